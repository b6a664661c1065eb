//! What the status document claims: its lag is zero when nothing is
//! outstanding and never negative, every key is there and says what is so, and
//! a source that is away takes nothing from what the target knows.

use super::*;
use crate::config::SchemaMode;
use crate::lsn::EndLsn;
use crate::state::tables::{TableRow, TableState};
use crate::sweep::testing::{Pair, SUPERUSER, TARGET_OWNER};
use crate::testing::settings;

fn position(commit_age: Option<f64>, moved_age: f64) -> Position {
    Position { end: Lsn::new(0), commit_age, moved_age }
}

#[test]
fn lag_is_zero_without_outstanding_wal_and_small_on_an_idle_source() {
    assert_eq!(position(Some(86_400.0), 3600.0).lag_seconds(0), 0.0);
    assert_eq!(position(Some(86_400.0), 2.0).lag_seconds(1000), 2.0, "the position moved, next to nothing is left");
    assert_eq!(position(Some(86_400.0), 2.0).lag_seconds(1 << 30), 86_400.0, "it moves, but is far behind");
    assert_eq!(position(None, 5.0).lag_seconds(1 << 30), 5.0);
    assert_eq!(position(Some(-1.0), 5.0).lag_seconds(1), 0.0, "the source's clock is ahead");
}

fn table(name: &str, state: TableState) -> TableRow {
    TableRow::new(TableName::new("public", name), if name == "orders" { 1 } else { 2 }, state)
}

/// A migration in the middle of its stream.
async fn streaming(pair: &Pair) -> State {
    let state = pair.state().await;
    let rows = [table("orders", TableState::Waiting), table("left_out", TableState::Excluded)];
    state.register_tables(&rows).await.unwrap();
    let mut ready = table("orders", TableState::Ready);
    (ready.rows, ready.bytes, ready.snapshot_lsn) = (7, 2048, Some(EndLsn::of_commit(Lsn::new(0x16_b374_8000))));
    state.update_table(&ready).await.unwrap();
    state.heartbeat("host", 42, Some(Lsn::new(0x2_0000_0000))).await.unwrap();
    state
}

#[tokio::test]
async fn the_document_has_every_key_and_says_what_is_so() {
    let pair = Pair::new().await;
    let source = pair.source(SUPERUSER).await;
    let state = streaming(&pair).await;

    // No position yet, the source not reachable, no daemon.
    let document = collect_with(None, &state).await.unwrap();
    assert_eq!((document.position.as_ref(), document.lag_bytes, document.slot.as_ref()), (None, None, None));
    assert_eq!(document.source_lsn.as_deref(), Some("2/0"), "as last heard");
    assert_eq!(document.daemon, Daemon { alive: false, host: Some("host".to_owned()), pid: Some(42) });
    let expected = Table {
        schema: "public".to_owned(),
        name: "orders".to_owned(),
        state: TableState::Ready,
        rows: 7,
        bytes: 2048,
        snapshot_lsn: Some("16/B3748000".to_owned()),
    };
    assert_eq!(document.tables, [expected]);

    // With a source whose slot is missing.
    let document = collect_with(Some(&source), &state).await.unwrap();
    let slot = document.slot.unwrap();
    assert_eq!((slot.name.as_str(), slot.active, slot.wal_status.as_deref()), ("walferry", false, Some("missing")));

    // With a slot, a position and a daemon.
    let sql = "SELECT lsn FROM pg_create_logical_replication_slot('walferry', 'pgoutput')";
    let start: Lsn = source.query_one(sql, &[]).await.unwrap().get(0);
    state.finish_copy("walferry", EndLsn::of_commit(start)).await.unwrap();
    state.take_lease().await.unwrap();
    source.batch_execute("CREATE TABLE public.t (a int)").await.unwrap();
    let document = collect_with(Some(&source), &state).await.unwrap();
    assert_eq!((document.phase, document.daemon.alive), (Phase::Stream, true));
    assert!(document.lag_bytes.unwrap() > 0 && document.lag_seconds.is_some());
    let slot = document.slot.clone().unwrap();
    assert_eq!((slot.wal_status.as_deref(), slot.safe_wal_bytes), (Some("reserved"), None));
    assert!(slot.retained_bytes.unwrap() > 0);
    let json = serde_json::to_value(&document).unwrap();
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let mut issue = vec![
        "name",
        "phase",
        "position",
        "source_lsn",
        "lag_bytes",
        "lag_seconds",
        "daemon",
        "slot",
        "tables",
        "sequences",
        "large_objects",
        "without_stream",
        "stopped_because",
    ];
    issue.sort_unstable();
    assert_eq!(keys, issue);
    let text = document.to_string();
    assert!(text.contains("tables         1 of 1 ready (100 %), 7 rows, 2.00 KiB copied"), "{text}");
    assert!(text.contains("daemon         process 42 on host"), "{text}");
    source.batch_execute("SELECT pg_drop_replication_slot('walferry')").await.unwrap();
}

#[tokio::test]
async fn a_source_that_cannot_be_reached_leaves_the_rest_of_the_status() {
    let pair = Pair::new().await;
    drop(pair.state().await);
    let source = pair.info(crate::config::Side::Source, "postgres", "no_such_database");
    let settings = settings(source, pair.target_info(TARGET_OWNER), SchemaMode::None);
    let document = collect(&settings).await.unwrap();
    assert_eq!((document.phase, document.slot), (Phase::Setup, None));

    let unknown = Settings { name: "other".to_owned(), ..settings };
    let error = collect(&unknown).await.unwrap_err();
    assert!(matches!(error, StatusError::State(StateError::NoMigration(_))), "{error}");
}
