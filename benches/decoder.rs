//! The decoder alone: payloads of `pgoutput` → messages, on one core.
//!
//! Two streams, each encoded once by the mirror of the decoder: what pgbench's
//! TPC-B makes (three updates and an insert a transaction), and rows of forty
//! columns. Criterion reports messages per second; the groups `…/bytes` report
//! the same work as bytes of payload per second.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use walferry::lsn::{CommitLsn, EndLsn, Lsn};
use walferry::pgoutput::{AbortInfo, Begin, Commit, Decoder, EncodeError, Insert, Message, Tuple, Update, Value};

/// Transactions of a stream: enough that the payloads are not all in the
/// cache of one core, few enough that a sample takes milliseconds.
const TRANSACTIONS: u64 = 10_000;

/// Columns of a wide row.
const WIDE_COLUMNS: usize = 40;

/// Bytes of each column of a wide row.
const WIDE_COLUMN_BYTES: usize = 32;

/// Rows of a transaction of wide rows.
const WIDE_ROWS: u64 = 4;

fn begin(n: u64) -> Message {
    Message::Begin(Begin { final_lsn: CommitLsn::of_record(Lsn::new(n * 1000)), commit_time: 0, xid: 0 })
}

fn commit(n: u64) -> Message {
    let (commit_lsn, end_lsn) = (CommitLsn::of_record(Lsn::new(n * 1000)), EndLsn::of_commit(Lsn::new(n * 1000 + 40)));
    Message::Commit(Commit { commit_lsn, end_lsn, commit_time: 0 })
}

fn row(texts: &[String]) -> Result<Tuple, EncodeError> {
    let values: Vec<Value<'_>> = texts.iter().map(|text| Value::Text(text.as_bytes())).collect();
    Tuple::from_values(&values)
}

fn update(relation: u32, texts: &[String]) -> Result<Message, EncodeError> {
    Ok(Message::Update(Update { xid: None, relation, old: None, new: row(texts)? }))
}

/// TPC-B as pgbench writes it, with the fillers of its tables.
fn tpcb() -> Result<Vec<Bytes>, EncodeError> {
    let mut stream = Vec::new();
    for n in 1..=TRANSACTIONS {
        let account = (n * 7919 % 1_000_000).to_string();
        let balance = (n * 31 % 9999).to_string();
        let messages = [
            begin(n),
            update(1, &[account.clone(), "7".to_owned(), balance.clone(), " ".repeat(84)])?,
            update(2, &[(n % 100).to_string(), "7".to_owned(), balance.clone()])?,
            update(3, &[(n % 10).to_string(), balance.clone()])?,
            Message::Insert(Insert {
                xid: None,
                relation: 4,
                new: row(&[
                    (n % 100).to_string(),
                    (n % 10).to_string(),
                    account,
                    balance,
                    "2026-01-01 12:00:00.123456".to_owned(),
                ])?,
            }),
            commit(n),
        ];
        for message in &messages {
            stream.push(message.encode()?);
        }
    }
    Ok(stream)
}

fn wide() -> Result<Vec<Bytes>, EncodeError> {
    let texts: Vec<String> = (0..WIDE_COLUMNS).map(|n| format!("{n:0WIDE_COLUMN_BYTES$}")).collect();
    let mut stream = Vec::new();
    for n in 1..=TRANSACTIONS {
        stream.push(begin(n).encode()?);
        for _ in 0..WIDE_ROWS {
            stream.push(Message::Insert(Insert { xid: None, relation: 1, new: row(&texts)? }).encode()?);
        }
        stream.push(commit(n).encode()?);
    }
    Ok(stream)
}

fn decode_all(stream: &[Bytes]) -> usize {
    let mut decoder = Decoder::new(AbortInfo::Absent);
    stream.iter().filter(|payload| black_box(decoder.decode(payload)).is_ok()).count()
}

fn decoder(criterion: &mut Criterion) {
    for (name, stream) in [("tpcb", tpcb()), ("wide", wide())] {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => panic!("the {name} stream cannot be encoded: {error}"),
        };
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
