//! The decoder against what real servers sent: `tests/fixtures/pgoutput`,
//! captured by `tests/capture/pgoutput.sh`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

struct Fixture {
    name: String,
    abort_info: AbortInfo,
    payloads: Vec<Bytes>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pgoutput")
}

fn unhex(line: &str) -> Bytes {
    assert!(line.len().is_multiple_of(2), "half a byte: {line}");
    (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
}

fn fixtures() -> Vec<Fixture> {
    let mut paths: Vec<_> = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "hex"));
    paths.sort();
    assert!(paths.len() >= 30, "the fixtures of three major versions");
    paths.iter().map(|path| fixture(path)).collect()
}

fn fixture(path: &Path) -> Fixture {
    let text = fs::read_to_string(path).unwrap();
    let parallel = text.contains("'streaming', 'parallel'");
    let payloads: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).map(unhex).collect();
    assert!(!payloads.is_empty(), "{path:?} is empty");
    Fixture {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        abort_info: if parallel { AbortInfo::Present } else { AbortInfo::Absent },
        payloads,
    }
}

/// Every payload with the context it is decoded in, and its message.
fn messages(fixture: &Fixture) -> Vec<(Bytes, InStream, Message)> {
    let mut decoder = Decoder::new(fixture.abort_info);
    let decode = |payload: &Bytes| {
        let context = decoder.in_stream;
        let message = decoder.decode(payload).unwrap_or_else(|error| panic!("{}: {error}", fixture.name));
        (payload.clone(), context, message)
    };
    fixture.payloads.iter().map(decode).collect()
}

/// A row with its values; the fixtures hold no one's data. Long ones are
/// shown by length.
fn row(tuple: &Tuple) -> String {
    let show = |value| match value {
        Value::Text(data) if data.len() <= 100 => format!("{:?}", String::from_utf8_lossy(data)),
        Value::Binary(data) => data.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}")),
        other => format!("{other:?}"),
    };
    tuple.iter().map(show).collect::<Vec<_>>().join(" | ")
}

fn describe(message: &Message) -> String {
    let old = |old: &OldTuple| match old {
        OldTuple::Key(tuple) => format!("key {}", row(tuple)),
        OldTuple::Full(tuple) => format!("full {}", row(tuple)),
    };
    match message {
        Message::Insert(m) => format!("Insert {:?} {}: {}", m.xid, m.relation, row(&m.new)),
        Message::Delete(m) => format!("Delete {:?} {}: {}", m.xid, m.relation, old(&m.old)),
        Message::Update(m) => {
            let from = m.old.as_ref().map_or_else(|| "none".to_owned(), old);
            format!("Update {:?} {}: {from} -> {}", m.xid, m.relation, row(&m.new))
        }
        other => format!("{other:?}"),
    }
}

/// Runs of inserts are shortened: they repeat themselves.
fn golden(fixture: &Fixture) -> String {
    let mut text = String::new();
    let mut run = 0;
    for (_, _, message) in messages(fixture) {
        run = if matches!(message, Message::Insert(_) | Message::Update(_)) { run + 1 } else { 0 };
        match run {
            0..=5 => writeln!(text, "{}", describe(&message)).unwrap(),
            6 => writeln!(text, "…").unwrap(),
            _ => {}
        }
    }
    text
}

fn assert_golden(name: &str, text: &str) {
    insta::with_settings!({
        snapshot_path => directory().join("golden"), prepend_module_to_snapshot => false, omit_expression => true
    }, { insta::assert_snapshot!(name, text) });
}

#[test]
fn every_fixture_decodes_to_what_it_did_before() {
    for fixture in fixtures() {
        assert_golden(&fixture.name, &golden(&fixture));
    }
}

#[test]
fn the_fixtures_hold_every_message_of_the_protocol() {
    let mut tags: Vec<u8> = fixtures().iter().flat_map(messages).map(|(_, _, message)| message.tag()).collect();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(String::from_utf8_lossy(&tags), "ABCDEIKMOPRSTUYbcpr");
}

#[test]
fn encoding_gives_the_bytes_that_the_server_sent() {
    for fixture in fixtures() {
        for (payload, _, message) in messages(&fixture) {
            assert_eq!(message.encode().unwrap(), payload, "{}: {message:?}", fixture.name);
        }
    }
}

#[test]
fn what_servers_send_without_streaming_assembles_into_whole_transactions() {
    let plain = |fixture: &Fixture| !fixture.name.contains("stream") && !fixture.name.contains("immediate");
    for fixture in fixtures().iter().filter(|fixture| plain(fixture) && !fixture.name.ends_with("prepared-v3")) {
        let start = crate::lsn::EndLsn::of_commit(crate::lsn::Lsn::new(1));
        let mut assembler = crate::assemble::Assembler::new(start, 1 << 20);
        let (mut changes, mut commits, mut sent) = (0, 0, 0);
        for (payload, _, message) in messages(fixture) {
            sent += usize::from(matches!(message.tag(), b'I' | b'U' | b'D' | b'T'));
            commits += usize::from(message.tag() == b'C');
            let piece = assembler.push(message, payload.len()).unwrap_or_else(|e| panic!("{}: {e}", fixture.name));
            if let Some(piece) = piece {
                assert!(piece.end.is_some(), "{} is small", fixture.name);
                commits -= 1;
                changes += piece.changes.len();
            }
        }
        assert_eq!((changes, commits), (sent, 0), "{}", fixture.name);
        assert!(changes > 0, "{}", fixture.name);
    }
}

/// Streams repeat one small message hundreds of times; one of each is enough.
fn distinct() -> Vec<(Bytes, InStream, AbortInfo)> {
    let all = |fixture: Fixture| {
        let abort_info = fixture.abort_info;
        messages(&fixture).into_iter().map(move |(payload, context, _)| (payload, context, abort_info))
    };
    let mut all: Vec<_> = fixtures().into_iter().flat_map(all).collect();
    let shape = |(payload, context, info): &(Bytes, InStream, AbortInfo)| {
        (payload[0], payload.len(), *context == InStream::Yes, *info == AbortInfo::Present)
    };
    all.sort_by_key(shape);
    all.dedup_by_key(|message| shape(message));
    all
}

#[test]
fn every_strict_prefix_of_a_message_is_an_error_inside_the_message() {
    for (payload, context, info) in distinct() {
        for length in 0..payload.len() {
            let error = decode(&payload.slice(..length), context, info).expect_err("a prefix is no message");
            assert!(error.offset <= length, "{error} in {length} bytes");
        }
    }
}

#[test]
fn a_message_with_a_byte_more_is_an_error() {
    for (payload, context, info) in distinct() {
        let longer: Bytes = payload.iter().copied().chain([0]).collect();
        let error = decode(&longer, context, info).expect_err("one byte too many");
        assert_eq!((error.fault, error.offset), (Fault::Trailing(1), payload.len()));
    }
}

#[test]
fn a_decoder_that_was_told_the_wrong_context_does_not_make_up_a_message() {
    for (payload, context, info) in distinct() {
        if matches!(payload[0], b'I' | b'U' | b'D') {
            let other = if context == InStream::Yes { InStream::No } else { InStream::Yes };
            assert!(decode(&payload, other, info).is_err(), "{payload:?}");
        }
    }
}

fn refusal(payload: &'static [u8]) -> String {
    decode(&Bytes::from_static(payload), InStream::No, AbortInfo::Absent).expect_err("no message").to_string()
}

#[test]
fn errors_name_message_field_offset_and_what_was_expected() {
    let texts = [
        refusal(b""),
        refusal(b"Z"),
        refusal(b"I\0\0\0\x01N\0\x01x"),
        refusal(b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xff"),
        refusal(b"I\0\0\0\x01N\x7f\xff"),
        refusal(b"I\0\0\0\x01K\0\0"),
        refusal(b"B\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"),
        refusal(b"C\x01"),
        refusal(b"R\0\0\0\x01s\0n\xff\0d\0\0"),
        refusal(b"R\0\0\0\x01s\0n\0z\0\0"),
        refusal(b"Y\0\0\0\x01abc"),
        refusal(b"T\0\0\0\0\0"),
        refusal(b"T\0\0\0\x01\x04\0\0\0\x01"),
    ];
    assert_golden("refusals", &texts.join("\n"));
}

#[test]
fn the_empty_schema_is_pg_catalog() {
    let payload = Bytes::from_static(b"R\0\0\0\x01\0pg_class\0n\0\0");
    let message = decode(&payload, InStream::No, AbortInfo::Absent).unwrap();
    assert!(matches!(&message, Message::Relation(relation) if relation.schema == "pg_catalog"));
    assert_eq!(message.encode().unwrap(), payload);
}

#[test]
fn column_data_are_views_into_the_payload_and_never_shown() {
    let payload = Bytes::from_static(b"I\0\0\0\x01N\0\x04t\0\0\0\x06secretnub\0\0\0\x01\xff");
    let Message::Insert(insert) = decode(&payload, InStream::No, AbortInfo::Absent).unwrap() else {
        panic!("an insert")
    };
    let new = &insert.new;
    assert_eq!(
        new.iter().collect::<Vec<_>>(),
        [Value::Text(b"secret"), Value::Null, Value::Unchanged, Value::Binary(b"\xff")]
    );
    assert_eq!(new.bytes(0).unwrap().as_ptr(), payload[13..].as_ptr(), "no copy");
    assert_eq!((new.bytes(1), new.bytes(2), new.get(4)), (None, None, None));
    assert_eq!(new.heap_size(), 7 + new.index_size());
    assert_eq!(format!("{new:?}"), "[text(6), null, unchanged, binary(1)]");
}

#[test]
fn what_the_protocol_cannot_carry_is_an_error_of_encoding() {
    let name = Message::Origin(Origin { origin_lsn: crate::lsn::Lsn::new(1), name: "a\0b".to_owned() });
    assert_eq!(name.encode(), Err(EncodeError { field: "origin name" }));
    let new = Tuple::from_values(&vec![Value::Null; 40_000]).unwrap();
    let wide = Message::Insert(Insert { xid: None, relation: 1, new });
    assert_eq!(wide.encode(), Err(EncodeError { field: "number of columns" }));
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic_and_what_decodes_encodes_back(
        tag in prop::sample::select(b"BCORYIUDTMSEcAbPpKr".to_vec()),
        rest in prop::collection::vec(prop_oneof![any::<u8>(), 0..4_u8, prop::sample::select(b"NKOtnub".to_vec())], 0..60),
        in_stream: bool,
        parallel: bool,
    ) {
        let payload: Bytes = [tag].into_iter().chain(rest).collect();
        let context = if in_stream { InStream::Yes } else { InStream::No };
        let info = if parallel { AbortInfo::Present } else { AbortInfo::Absent };
        if let Ok(message) = decode(&payload, context, info) {
            let bytes = message.encode().unwrap();
            let again = decode(&bytes, context, info).unwrap();
            prop_assert_eq!(again, message);
        }
    }

    #[test]
    fn a_fixture_with_one_byte_changed_never_panics(pick: prop::sample::Index, at: prop::sample::Index, byte: u8) {
        thread_local! { static MESSAGES: Vec<(Bytes, InStream, AbortInfo)> = distinct(); }
        MESSAGES.with(|messages| {
            let (payload, context, info) = &messages[pick.index(messages.len())];
            let mut bytes = payload.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Err(error) = decode(&Bytes::from(bytes), *context, *info) {
                assert!(error.offset <= payload.len());
            }
        });
    }
}
