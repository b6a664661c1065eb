//! The wire against a scripted server: what a real one does rarely, or never
//! when it is asked to.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fake::{Fake, data, error, frame, keepalive, serve, start};
use super::testing::{durable, host};
use super::*;
use crate::config::Side;
use crate::config::conninfo::{AuthMethod, ConnInfo, SslMode, SslNegotiation, TargetSessionAttrs};
use crate::lsn::Lsn;
use crate::session::{DbContext, Session};

async fn refusal(info: &ConnInfo) -> WireError {
    match Connection::connect(info, Purpose::Session, "walferry").await {
        Ok(_) => panic!("the connection was made"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn frames_that_come_byte_by_byte_survive_dropped_futures() {
    let (info, _server) = serve(|mut fake: Fake| async move {
        fake.stream().await;
        let notice = frame(b'N', b"SWARNING\0VWARNING\0C01000\0Mmind the gap\0\0");
        let unknown = frame(b'd', b"s12345678");
        for byte in [data(0x20, b"hello"), notice, unknown, keepalive(0x30, 1)].concat() {
            fake.send(&[byte]).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fake.message().await
    })
    .await;
    let (mut reader, _writer) = start(&info).await.unwrap();
    let mut frames = Vec::new();
    while frames.len() < 2 {
        // The future is dropped in the middle of almost every frame.
        if let Ok(next) = tokio::time::timeout(Duration::from_micros(1500), reader.next()).await {
            frames.push(next.unwrap());
        }
    }
    let payload = Bytes::from_static(b"hello");
    let expected = [
        ReplicationFrame::Data { start: Lsn::new(0x20), end: Lsn::new(0x20), sent_at: 5, payload },
        ReplicationFrame::Keepalive { wal_end: Lsn::new(0x30), sent_at: 0, reply: ReplyRequested::Yes },
    ];
    assert_eq!(frames, expected);
}

/// Write, flush and apply position of a status, and whether it asks for a reply.
fn status(message: &(u8, Vec<u8>)) -> (u64, u8) {
    let (tag, body) = message;
    assert_eq!((*tag, body.len(), body[0]), (b'd', 34, b'r'));
    let lsn = |at: usize| u64::from_be_bytes(body[at..at + 8].try_into().unwrap());
    assert_eq!((lsn(1), lsn(1)), (lsn(9), lsn(17)));
    (lsn(1), body[33])
}

#[tokio::test]
async fn statuses_report_only_what_is_durable_and_never_go_back() {
    let (info, server) = serve(|mut fake: Fake| async move {
        fake.stream().await;
        // Far ahead of what is durable: must not be acknowledged.
        fake.send(&[data(0x9000, b"x"), keepalive(0x9999, 1)].concat()).await;
        let mut seen = Vec::new();
        loop {
            let message = fake.message().await;
            if message.0 == b'c' {
                fake.send(&[frame(b'c', b""), frame(b'C', b"COPY 0\0"), frame(b'Z', b"I")].concat()).await;
                return seen;
            }
            seen.push(status(&message));
        }
    })
    .await;
    let (mut reader, writer) = start(&info).await.unwrap();
    let feed = StatusFeed::spawn(writer, durable(0x10), Duration::from_secs(3600));
    for _ in 0..2 {
        reader.next().await.unwrap();
    }
    let settle = || tokio::time::sleep(Duration::from_millis(30));
    settle().await;
    feed.reply_now();
    settle().await;
    feed.durable(durable(0x40));
    settle().await;
    feed.durable(durable(0x20));
    feed.request_reply();
    settle().await;
    assert_eq!(feed.sent(), durable(0x40));
    feed.durable(durable(0x50));
    feed.finish().await.unwrap();
    assert_eq!(reader.next().await.unwrap(), ReplicationFrame::Done);
    assert_eq!(reader.next().await.unwrap(), ReplicationFrame::Done);
    let seen = server.await.unwrap();
    assert_eq!(&seen[..4], [(0x10, 0), (0x10, 0), (0x40, 0), (0x40, 1)]);
    assert_eq!(seen.last(), Some(&(0x50, 0)));
    assert!(seen.is_sorted_by_key(|&(lsn, _)| lsn));
}

#[tokio::test]
async fn statuses_go_out_on_their_own_timer() {
    let (info, server) = serve(|mut fake: Fake| async move {
        fake.stream().await;
        for _ in 0..5 {
            status(&fake.message().await);
        }
    })
    .await;
    let (_reader, writer) = start(&info).await.unwrap();
    // Nobody reads and nothing moves.
    let _feed = StatusFeed::spawn(writer, durable(0x10), Duration::from_millis(20));
    tokio::time::timeout(Duration::from_secs(10), server).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_feed_that_cannot_write_says_so() {
    let (info, _server) = serve(|mut fake: Fake| async move { fake.stream().await }).await;
    let (_reader, writer) = start(&info).await.unwrap();
    let feed = StatusFeed::spawn(writer, durable(0x10), Duration::from_millis(10));
    let error = tokio::time::timeout(Duration::from_secs(10), feed.failed()).await.unwrap();
    assert!(error.is_transient(), "{error}");
    assert!(feed.finish().await.is_err());
}

#[tokio::test]
async fn an_error_inside_the_stream_is_the_servers_own() {
    let (info, _server) = serve(|mut fake: Fake| async move {
        fake.stream().await;
        fake.send(&error("FATAL", "57P01", "terminating connection")).await;
    })
    .await;
    let (mut reader, _writer) = start(&info).await.unwrap();
    let error = reader.next().await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("57P01"));
    assert!(error.is_transient() && error.to_string().contains("terminating connection"));
    assert!(matches!(reader.next().await, Err(WireError::Closed { .. })));
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_of_a_frame_is_closed_not_ended() {
    let (info, _server) = serve(|mut fake: Fake| async move {
        fake.stream().await;
        let bytes = data(0x20, b"hello");
        fake.send(&bytes[..bytes.len() - 2]).await;
        fake.socket.shutdown().await.unwrap();
        fake.socket.read_u8().await.ok();
    })
    .await;
    let (mut reader, _writer) = start(&info).await.unwrap();
    let error = reader.next().await.unwrap_err();
    assert!(matches!(error, WireError::Closed { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_shuts_down_ends_the_stream() {
    let (info, _server) = serve(|mut fake: Fake| async move {
        fake.stream().await;
        fake.send(&frame(b'C', b"COPY 0\0")).await;
    })
    .await;
    let (mut reader, _writer) = start(&info).await.unwrap();
    assert_eq!(reader.next().await.unwrap(), ReplicationFrame::Done);
}

#[tokio::test]
async fn an_oversized_frame_is_refused_before_it_is_read() {
    let (info, _server) = serve(|mut fake: Fake| async move {
        fake.stream().await;
        fake.send(&[b'd', 0x40, 0, 0, 0]).await;
        fake.message().await
    })
    .await;
    let (mut reader, _writer) = start(&info).await.unwrap();
    let error = reader.next().await.unwrap_err();
    assert!(matches!(error, WireError::FrameTooLarge { length: 0x4000_0000, .. }), "{error}");
}

#[tokio::test]
async fn a_long_message_before_login_is_no_postgresql() {
    let (info, _server) = serve(|mut fake: Fake| async move {
        fake.send(&[b'E', 0, 1, 0, 0]).await;
        fake.startup().await
    })
    .await;
    assert!(matches!(refusal(&info).await, WireError::FrameTooLarge { limit: 30_000, .. }));
}

#[tokio::test]
async fn a_web_server_is_recognised_with_and_without_tls() {
    for sslmode in [SslMode::Disable, SslMode::Prefer, SslMode::Require] {
        let (mut info, _server) = serve(|mut fake: Fake| async move {
            fake.send(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            fake.socket.read_to_end(&mut Vec::new()).await.ok();
        })
        .await;
        info.sslmode = sslmode;
        let error = refusal(&info).await;
        assert!(matches!(error, WireError::Protocol { .. }), "{error}");
        assert!(error.to_string().contains("no PostgreSQL server listens there"), "{error}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn tls_that_is_not_offered_is_done_without_only_where_the_mode_allows() {
    for (sslmode, wanted) in [(SslMode::Prefer, true), (SslMode::Require, false)] {
        let (mut info, server) = serve(|mut fake: Fake| async move {
            assert_eq!(fake.startup().await, 80_877_103u32.to_be_bytes());
            fake.send(b"N").await;
            fake.greet().await;
        })
        .await;
        info.sslmode = sslmode;
        match Connection::connect(&info, Purpose::Session, "walferry").await {
            Ok(_) => assert!(wanted),
            Err(error) => {
                assert!(matches!(error, WireError::TlsRefused { .. }) && !wanted, "{error}");
                server.abort();
            }
        }
    }
}

#[tokio::test]
async fn a_pooler_is_named_as_such() {
    let (info, _server) = serve(|mut fake: Fake| async move {
        let startup = fake.startup().await;
        assert!(startup.windows(21).any(|part| part == &b"replication\0database\0"[..]));
        fake.send(&error("FATAL", "08P01", "unsupported startup parameter: replication")).await;
    })
    .await;
    let Err(error) = Replication::connect(&info, "walferry").await else { panic!("connected") };
    assert!(matches!(error, WireError::Pooler { .. }) && !error.is_transient());
    assert!(error.to_string().contains("direct host"), "{error}");
}

#[tokio::test]
async fn a_server_that_skips_its_scram_proof_is_not_believed() {
    let (mut info, _server) = serve(|mut fake: Fake| async move {
        fake.startup().await;
        fake.send(&frame(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")).await;
        fake.message().await;
        fake.send(&frame(b'R', &0u32.to_be_bytes())).await;
        fake.socket.read_to_end(&mut Vec::new()).await.ok();
    })
    .await;
    info = super::testing::with_password(info, "u", "secret-word");
    let error = refusal(&info).await;
    assert!(matches!(error, WireError::Auth { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("secret-word"));
}

#[tokio::test]
async fn silence_ends_with_the_timeout() {
    let (mut info, _server) = serve(|mut fake: Fake| async move {
        fake.startup().await;
        fake.socket.read_to_end(&mut Vec::new()).await.ok();
    })
    .await;
    info.connect_timeout = Duration::from_millis(50);
    let error = refusal(&info).await;
    assert!(matches!(error, WireError::Timeout { .. }) && error.is_transient());
}

#[tokio::test]
async fn the_next_host_is_tried_when_one_does_not_answer() {
    let (mut info, _server) = serve(|mut fake: Fake| async move {
        fake.greet().await;
        fake.message().await
    })
    .await;
    info.hosts.insert(0, host("first.example", super::testing::free_port()));
    let connection = Connection::connect(&info, Purpose::Session, "walferry").await.unwrap();
    assert_eq!(connection.host(), &info.hosts[1]);
    assert_eq!(connection.server_version(), 150_018);
}

/// "localhost" has two addresses and the server listens on one: a wrong
/// password must not look like a server that may yet come up.
#[tokio::test]
async fn a_refusal_is_final_even_after_an_address_that_did_not_answer() {
    let (mut info, _server) = serve(|mut fake: Fake| async move {
        fake.startup().await;
        fake.send(&error("FATAL", "28P01", "password authentication failed")).await;
    })
    .await;
    info.hosts.insert(0, host("first.example", super::testing::free_port()));
    info.hosts.push(host("third.example", 1));
    let error = refusal(&info).await;
    assert!(matches!(&error, WireError::NoSuitableHost { attempts, .. } if attempts.len() == 2), "{error}");
    assert_eq!(error.sqlstate(), Some("28P01"));
    assert!(!error.is_transient());
}

#[tokio::test]
async fn a_host_of_the_wrong_kind_is_passed_over() {
    let (mut info, _server) = serve(|mut fake: Fake| async move {
        fake.send(&frame(b'N', b"SNOTICE\0C00000\0Mhello\0\0")).await;
        fake.send(&frame(b'S', b"in_hot_standby\0on\0")).await;
        fake.send(&frame(b'S', b"default_transaction_read_only\0off\0")).await;
        fake.greet().await;
    })
    .await;
    info.target_session_attrs = TargetSessionAttrs::ReadWrite;
    let error = refusal(&info).await;
    assert!(matches!(error, WireError::NotWanted { .. }) && error.to_string().contains("read-write"), "{error}");
}

/// A COPY of three rows, with a notice between them; then what `end` is.
fn copy_of_three(end: &[Vec<u8>]) -> Vec<u8> {
    let notice = frame(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mmind the gap\0\0");
    let rows = [frame(b'd', b"one\n"), frame(b'd', b""), notice, frame(b'd', b"three is longer\n")].concat();
    [frame(b'H', &[0, 0, 0]), rows, end.concat()].concat()
}

fn end_of_copy(tag: &[u8]) -> [Vec<u8>; 3] {
    [frame(b'c', b""), frame(b'C', tag), frame(b'Z', b"T")]
}

/// The pieces of a COPY, the messages that ended in them, and the rows.
async fn read_copy(connection: &mut Connection, enough: usize) -> Result<(Vec<String>, u64, u64), WireError> {
    let mut copy = connection.copy_out("COPY t TO STDOUT").await?;
    let (mut pieces, mut messages) = (Vec::new(), 0);
    loop {
        let mut chunk = bytes::BytesMut::new();
        let gathered = copy.gather(&mut chunk, enough).await?;
        pieces.push(String::from_utf8(chunk.to_vec()).unwrap());
        match gathered {
            Gathered::Chunk { messages: more } => messages += more,
            Gathered::End { messages: more, rows } => return Ok((pieces, messages + more, rows)),
        }
    }
}

#[tokio::test]
async fn rows_of_a_copy_are_gathered_however_they_come() {
    let (info, server) = serve(|mut fake: Fake| async move {
        fake.greet().await;
        fake.message().await;
        fake.send(&copy_of_three(&end_of_copy(b"COPY 3\0"))).await;
        fake.message().await;
        for byte in copy_of_three(&end_of_copy(b"COPY 3\0")) {
            fake.send(&[byte]).await;
        }
        fake.message().await;
        let long = frame(b'd', &[b'x'; 300_000]);
        fake.send(&[frame(b'H', &[0, 0, 0]), long, end_of_copy(b"COPY 1\0").concat()].concat()).await;
        fake.message().await;
    })
    .await;
    let mut connection = Connection::connect(&info, Purpose::Session, "walferry").await.unwrap();
    let (pieces, messages, rows) = read_copy(&mut connection, 1000).await.unwrap();
    assert_eq!((pieces.concat().as_str(), pieces.len(), messages, rows), ("one\nthree is longer\n", 1, 3, 3));
    let (pieces, messages, rows) = read_copy(&mut connection, 5).await.unwrap();
    assert_eq!((pieces.concat().as_str(), messages, rows), ("one\nthree is longer\n", 3, 3));
    let (pieces, messages, rows) = read_copy(&mut connection, 1000).await.unwrap();
    assert_eq!((pieces.concat().len(), messages, rows), (300_000, 1, 1));
    assert!(pieces.len() > 3, "a row that is longer than what is read at once comes in pieces: {}", pieces.len());
    assert!(!connection.is_closed(), "the server waits for the next query");
    connection.send_query("SELECT 1").await.unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn a_copy_counts_only_when_the_server_says_that_it_is_complete() {
    let broken = |end: Vec<Vec<u8>>| async move {
        let (info, _server) = serve(|mut fake: Fake| async move {
            fake.greet().await;
            fake.message().await;
            fake.send(&copy_of_three(&end)).await;
        })
        .await;
        let mut connection = Connection::connect(&info, Purpose::Session, "walferry").await.unwrap();
        let error = read_copy(&mut connection, 1000).await.expect_err("it is not complete");
        (error.to_string(), error.is_transient(), connection.is_closed())
    };
    let (words, is_transient, _) =
        broken(vec![error("ERROR", "XX001", "invalid page in block 7"), frame(b'Z', b"E")]).await;
    assert!(words.contains("invalid page in block 7") && !is_transient, "{words}");
    let fatal = error("FATAL", "57P01", "terminating connection due to administrator command");
    let (words, is_transient, _) = broken(vec![fatal]).await;
    assert!(words.contains("administrator command") && is_transient, "{words}");
    for cut in [vec![], vec![frame(b'c', b"")], vec![frame(b'c', b""), frame(b'C', b"COPY 3\0")], vec![vec![b'd', 0]]] {
        let (words, is_transient, is_closed) = broken(cut).await;
        assert!(is_transient && is_closed, "{words}");
    }
    for end in [end_of_copy(b"SELECT 3\0"), end_of_copy(b"COPY \0"), end_of_copy(b"COPY -3\0")] {
        let (words, is_transient, _) = broken(end.to_vec()).await;
        assert!(words.contains("broke the protocol") && !is_transient, "{words}");
    }
    let (words, ..) = broken(vec![vec![b'd', 0, 0, 0, 3]]).await;
    assert!(words.contains("length 3"), "{words}");
}

#[tokio::test]
async fn a_copy_that_is_refused_leaves_the_connection_usable() {
    let (info, _server) = serve(|mut fake: Fake| async move {
        fake.greet().await;
        fake.message().await;
        fake.send(&[error("ERROR", "42501", "permission denied for table t"), frame(b'Z', b"I")].concat()).await;
        fake.message().await;
        fake.send(&copy_of_three(&end_of_copy(b"COPY 3\0"))).await;
        fake.message().await;
    })
    .await;
    let mut connection = Connection::connect(&info, Purpose::Session, "walferry").await.unwrap();
    let error = read_copy(&mut connection, 1000).await.expect_err("it is refused");
    assert_eq!(error.sqlstate(), Some("42501"));
    assert_eq!(read_copy(&mut connection, 1000).await.unwrap().2, 3);
}

/// The story: parameters without end, before a server was ready, took a gigabyte.
#[tokio::test]
async fn what_comes_before_a_server_is_ready_is_bounded_in_bytes() {
    for flood in [frame(b'S', &[&b"name\0"[..], &[b'x'; 20_000], b"\0"].concat()), frame(b'N', b"M\0\0")] {
        let (info, _server) = serve(|mut fake: Fake| async move {
            fake.startup().await;
            fake.send(&frame(b'R', &0u32.to_be_bytes())).await;
            while fake.socket.write_all(&flood.repeat(10)).await.is_ok() {}
        })
        .await;
        let error = refusal(&info).await;
        assert!(matches!(error, WireError::Protocol { .. }) && !error.is_transient(), "{error}");
        assert!(error.to_string().contains("before it was ready"), "{error}");
    }
}

#[tokio::test]
async fn what_comes_unasked_and_what_a_question_answers_is_bounded() {
    let unasked = |tag| vec![tag, 0x01, 0, 0, 1];
    let named = |name: u32| frame(b'S', &[format!("{name}\0").as_bytes(), &[b'x'; 20_000], b"\0"].concat());
    let parameters = (0..100).flat_map(named).collect();
    let rows = frame(b'D', &[&[0, 1][..], &100_000u32.to_be_bytes(), &[b'x'; 100_000]].concat()).repeat(200);
    for (flood, words) in [
        (unasked(b'N'), "announces a message 'N' of 16777217 bytes"),
        (unasked(b'E'), "announces a message 'E' of 16777217 bytes"),
        (parameters, "reports parameters without end"),
        (rows, "an answer of more than 16777216 bytes"),
    ] {
        let (info, _server) = serve(move |mut fake: Fake| async move {
            fake.let_in().await;
            fake.message().await;
            fake.socket.write_all(&flood).await.ok();
            fake.socket.read_to_end(&mut Vec::new()).await.ok();
        })
        .await;
        let error = refusal(&info).await;
        assert!(error.to_string().contains(words) && !error.is_transient(), "{error}");
    }
}

/// The story: the driver has no limits: what it was handed it gathered, a gigabyte of it.
#[tokio::test]
async fn an_ordinary_session_refuses_what_our_own_connections_refuse_and_says_why() {
    let parameters = frame(b'S', &[&b"name\0"[..], &[b'x'; 20_000], b"\0"].concat()).repeat(60);
    for (flood, words) in [
        (vec![b'D', 0x40, 0, 0, 0], "announces a message 'D' of 1073741824 bytes"),
        (vec![b'N', 0x01, 0, 0, 1], "announces a message 'N' of 16777217 bytes"),
        (parameters, "reports parameters without end"),
    ] {
        let (info, _server) = serve(move |mut fake: Fake| async move {
            fake.greet().await;
            fake.message().await;
            fake.socket.write_all(&flood).await.ok();
            fake.socket.read_to_end(&mut Vec::new()).await.ok();
        })
        .await;
        let session = Session::connect(&info, "walferry").await.unwrap();
        let asked = tokio::time::timeout(Duration::from_secs(20), session.query("SELECT 1", &[])).await.unwrap();
        let error = asked.during(Side::Source, "ask").unwrap_err();
        assert!(error.to_string().contains(words) && !error.fault().is_retried(), "{error}");
        let again = session.batch_execute("SELECT 1").await.during(Side::Source, "ask").unwrap_err();
        assert!(again.to_string().contains(words), "{again}");
    }
}

#[tokio::test]
async fn a_session_that_is_ended_says_what_the_server_said_last() {
    let (info, server) = serve(|mut fake: Fake| async move {
        fake.greet().await;
        fake.send(&error("FATAL", "57P01", "terminating \x1b[2J connection")).await;
    })
    .await;
    let session = Session::connect(&info, "walferry").await.unwrap();
    server.await.unwrap();
    let error = session.query("SELECT 1", &[]).await.during(Side::Source, "ask").unwrap_err();
    assert!(error.to_string().contains(r"terminating \u{1b}[2J connection") && error.fault().is_retried(), "{error}");
}

/// The story: a server that lets everybody in and then says nothing held `status` for ever.
#[tokio::test]
async fn a_replication_connection_that_is_not_told_who_the_server_is_does_not_wait_for_ever() {
    let (mut info, _server) = serve(|mut fake: Fake| async move {
        fake.greet().await;
        fake.socket.read_to_end(&mut Vec::new()).await.ok();
    })
    .await;
    info.connect_timeout = Duration::from_millis(200);
    let mut replication = Replication::connect(&info, "walferry").await.unwrap();
    let asked = tokio::time::timeout(Duration::from_secs(20), replication.identify_system()).await.unwrap();
    let error = asked.expect_err("it was told nothing");
    assert!(matches!(error, WireError::Silent { .. }) && error.is_transient(), "{error}");
}

#[tokio::test]
async fn nothing_of_the_password_is_sent_by_a_way_that_require_auth_rules_out() {
    let asked = [
        (&b"\0\0\0\x03"[..], "password"),
        (b"\0\0\0\x05salt", "md5"),
        (b"\0\0\0\x0aSCRAM-SHA-256\0\0", "scram-sha-256"),
        (b"\0\0\0\0", "none"),
    ];
    for (request, name) in asked {
        let (mut info, server) = serve(move |mut fake: Fake| async move {
            fake.startup().await;
            fake.send(&frame(b'R', request)).await;
            let mut sent = Vec::new();
            fake.socket.read_to_end(&mut sent).await.unwrap();
            sent
        })
        .await;
        info = super::testing::with_password(info, "u", "secret-word");
        let others = AuthMethod::ALL.iter().filter(|(_, other)| *other != name).map(|(method, _)| *method);
        info.require_auth = Some(others.collect());
        let error = refusal(&info).await;
        assert!(matches!(error, WireError::Auth { .. }) && !error.is_transient(), "{error}");
        assert!(error.to_string().contains(&format!("the method {name}, which require_auth rules out")), "{error}");
        assert_eq!(server.await.unwrap(), b"", "{name}");
    }
}

#[tokio::test]
async fn direct_tls_asks_for_nothing_and_offers_postgresql_alone() {
    let (mut info, server) = serve(|mut fake: Fake| async move {
        let mut head = [0; 5];
        fake.socket.read_exact(&mut head).await.unwrap();
        let mut hello = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        fake.socket.read_exact(&mut hello).await.unwrap();
        (head[0], hello)
    })
    .await;
    (info.sslmode, info.sslnegotiation) = (SslMode::Require, SslNegotiation::Direct);
    let error = refusal(&info).await;
    assert!(matches!(error, WireError::Closed { .. } | WireError::Io { .. }), "{error}");
    let (kind, hello) = server.await.unwrap();
    assert_eq!(kind, 0x16, "a handshake");
    assert!(hello.windows(13).any(|part| part == b"\0\x0b\x0apostgresql"));
}
