//! The decoder alone: payloads of `pgoutput` → messages, on one core.
//!
//! Two streams, made once, byte by byte: what pgbench's TPC-B makes (three
//! updates and an insert a transaction), and rows of forty columns. Criterion
//! reports messages per second; the groups `…/bytes` report the same work as
//! bytes of payload per second.

use bytes::{BufMut, Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use walferry::pgoutput::{AbortInfo, Decoder};

/// Transactions of a stream: enough that the payloads are not all in the
/// cache of one core, few enough that a sample takes milliseconds.
const TRANSACTIONS: u64 = 10_000;

/// Columns of a wide row.
const WIDE_COLUMNS: usize = 40;

/// Bytes of each column of a wide row.
const WIDE_COLUMN_BYTES: usize = 32;

/// Rows of a transaction of wide rows.
const WIDE_ROWS: u64 = 4;

fn begin(n: u64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(b'B');
    // Start of the commit record, its time, the transaction's id.
    out.put_u64(n * 1000);
    out.put_i64(0);
    out.put_u32(0);
    out.freeze()
}

fn commit(n: u64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(b'C');
    // Flags, start and end of the commit record, its time.
    out.put_u8(0);
    out.put_u64(n * 1000);
    out.put_u64(n * 1000 + 40);
    out.put_i64(0);
    out.freeze()
}

/// An INSERT (`I`) or an UPDATE without its old row (`U`).
fn row(tag: u8, relation: u32, texts: &[String]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(tag);
    out.put_u32(relation);
    out.put_u8(b'N');
    out.put_u16(texts.len() as u16);
    for text in texts {
        out.put_u8(b't');
        out.put_u32(text.len() as u32);
        out.put_slice(text.as_bytes());
    }
    out.freeze()
}

/// TPC-B as pgbench writes it, with the fillers of its tables.
fn tpcb() -> Vec<Bytes> {
    let mut stream = Vec::new();
    for n in 1..=TRANSACTIONS {
        let account = (n * 7919 % 1_000_000).to_string();
        let balance = (n * 31 % 9999).to_string();
        let (teller, branch) = ((n % 100).to_string(), (n % 10).to_string());
        let history =
            [teller.clone(), branch.clone(), account.clone(), balance.clone(), "2026-01-01 12:00:00.123456".to_owned()];
        stream.push(begin(n));
        stream.push(row(b'U', 1, &[account, "7".to_owned(), balance.clone(), " ".repeat(84)]));
        stream.push(row(b'U', 2, &[teller, "7".to_owned(), balance.clone()]));
        stream.push(row(b'U', 3, &[branch, balance]));
        stream.push(row(b'I', 4, &history));
        stream.push(commit(n));
    }
    stream
}

fn wide() -> Vec<Bytes> {
    let texts: Vec<String> = (0..WIDE_COLUMNS).map(|n| format!("{n:0WIDE_COLUMN_BYTES$}")).collect();
    let mut stream = Vec::new();
    for n in 1..=TRANSACTIONS {
        stream.push(begin(n));
        for _ in 0..WIDE_ROWS {
            stream.push(row(b'I', 1, &texts));
        }
        stream.push(commit(n));
    }
    stream
}

fn decode_all(stream: &[Bytes]) -> usize {
    let mut decoder = Decoder::new(AbortInfo::Absent);
    stream.iter().filter(|payload| black_box(decoder.decode(payload)).is_ok()).count()
}

fn decoder(criterion: &mut Criterion) {
    for (name, stream) in [("tpcb", tpcb()), ("wide", wide())] {
        assert_eq!(decode_all(&stream), stream.len(), "every message decodes");
        let bytes: usize = stream.iter().map(Bytes::len).sum();
        let mut group = criterion.benchmark_group("decoder");
        group.throughput(Throughput::Elements(stream.len() as u64));
        group.bench_with_input(BenchmarkId::new(name, "messages"), &stream, |bencher, stream| {
            bencher.iter(|| decode_all(stream));
        });
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::new(name, "bytes"), &stream, |bencher, stream| {
            bencher.iter(|| decode_all(stream));
        });
        group.finish();
    }
}

criterion_group!(benches, decoder);
criterion_main!(benches);
