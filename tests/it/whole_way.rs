//! The whole way under load: run, status, metrics, catch-up, finish, cleanup.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use walferry::lsn::Lsn;

use crate::migration::{
    Load, NAME, PATIENCE, confirmed, position, settle, source_admin, source_end, streaming, traces, until_applied,
    usual_pair,
};
use crate::support::pair::Pair;
use crate::support::process::{Walferry, free_port};
use crate::support::wait_until;

#[tokio::test(flavor = "multi_thread")]
async fn a_live_database_moves_and_every_command_says_what_it_should() {
    let pair = usual_pair().await;
    pair.source_sql("CREATE MATERIALIZED VIEW public.overview AS SELECT count(*) AS events FROM public.event").await;
    let load = Load::start(&pair).await;
    let port = free_port();
    let daemon = streaming(&pair, &["--listen", &format!("127.0.0.1:{port}"), "--sequence-interval", "1s"]).await;
    until_applied(&pair).await;
    status_follows(&pair, &daemon, &load).await;
    http_answers(port).await;
    assert_eq!(deferred_on_target(&pair).await, (0, 0), "foreign keys and triggers wait");

    let (totals, events) = load.stop().await;
    assert!(totals.committed > 0 && events > 0);
    let end = source_end(&source_admin(&pair).await).await;
    let report = Walferry::run(&pair, &["catchup", "--json"], PATIENCE).code(0).json();
    let left = daemon.wait(PATIENCE).code(0);
    assert!(left.stderr.contains("handed over"), "{}", left.stderr);
    let reached: Lsn = report["end_lsn"].as_str().unwrap().parse().unwrap();
    assert!(reached >= end, "{report}");
    assert_eq!(keys(&report), ["end_lsn", "large_objects", "rows", "seconds", "sequences", "transactions"]);
    assert_eq!((report["sequences"].as_u64(), report["large_objects"].as_u64()), (Some(2), Some(1)), "{report}");
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(status(&pair)["phase"], "stopped");
    pair.assert_equal().await;

    finish_and_clean_up(&pair).await;
}

/// What is left to do once both sides are equal.
async fn finish_and_clean_up(pair: &Pair) {
    let refused = Walferry::run(pair, &["cleanup"], PATIENCE).code(2);
    assert!(refused.stderr.contains("held back") && refused.stderr.contains("FOREIGN KEY"), "{}", refused.stderr);
    let report = Walferry::run(pair, &["catchup", "--finish", "--json"], PATIENCE).code(0).json();
    assert!(report["restored"].as_u64().unwrap() >= 3, "a foreign key, a trigger, a materialized view: {report}");
    assert_eq!(deferred_on_target(pair).await, (1, 1));
    let target = pair.target_client().await;
    let row = target.query_one("SELECT (SELECT events FROM public.overview) = count(*) FROM public.event", &[]).await;
    assert!(row.unwrap().get::<_, bool>(0), "the materialized view is filled");
    pair.assert_equal().await;
    Walferry::run(pair, &["cleanup", "--json"], PATIENCE).code(0).json();
    assert_eq!(traces(pair).await, [""; 0]);
    pair.assert_equal().await;
}

/// Validated foreign keys and enabled triggers of the application on the target.
async fn deferred_on_target(pair: &Pair) -> (i64, i64) {
    let sql = "SELECT (SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated AND connamespace = 'public'::regnamespace), \
         (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'O')";
    let row = pair.target_client().await.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

fn status(pair: &Pair) -> Value {
    Walferry::run(pair, &["status", "--json"], PATIENCE).code(0).json()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// The document of `status --json` while the daemon works.
async fn status_follows(pair: &Pair, daemon: &Walferry, load: &Load) {
    let first = status(pair);
    load.more(50).await;
    until_applied(pair).await;
    let document = status(pair);
    let lsn = |document: &Value, key: &str| document[key].as_str().unwrap().parse::<Lsn>().unwrap();
    assert!(lsn(&document, "position") > lsn(&first, "position"));
    assert!(lsn(&document, "source_lsn") >= lsn(&document, "position"));
    assert_eq!(
        keys(&document),
        [
            "daemon",
            "lag_bytes",
            "lag_seconds",
            "large_objects",
            "name",
            "phase",
            "position",
            "sequences",
            "slot",
            "source_lsn",
            "stopped_because",
            "tables",
            "without_stream"
        ]
    );
    assert_eq!((&document["name"], &document["phase"]), (&NAME.into(), &"stream".into()));
    assert_eq!(document["daemon"]["alive"], true);
    assert_eq!(document["daemon"]["pid"], daemon.pid());
    assert!(document["daemon"]["host"].is_string());
    assert!(document["lag_bytes"].is_u64() && document["lag_seconds"].is_f64(), "{document}");
    assert_eq!((&document["slot"]["name"], &document["slot"]["active"]), (&NAME.into(), &true.into()));
    assert!(document["slot"]["retained_bytes"].as_i64().unwrap() >= 0);
    assert_eq!(document["slot"]["wal_status"], "reserved");
    assert!(document["slot"].as_object().unwrap().contains_key("safe_wal_bytes"));
    let tables = document["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 7, "{document}");
    for table in tables {
        assert_eq!(keys(table), ["bytes", "name", "rows", "schema", "snapshot_lsn", "state"]);
        assert_eq!(table["state"], "ready");
    }
    assert_eq!(keys(&document["sequences"]), ["behind", "last_pass", "problems", "total"]);
    assert_eq!(document["sequences"]["total"], 2);
    assert_eq!(document["large_objects"]["total"], 1);
    let view = &document["without_stream"][0];
    assert_eq!(keys(view), ["at", "kind", "name", "schema", "state"]);
    assert_eq!((&view["name"], &view["state"], &view["at"]), (&"overview".into(), &"waiting".into(), &Value::Null));
    assert!(document["stopped_because"].is_null());
}

/// A GET; the status code and the body.
async fn get(port: u16, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn http_answers(port: u16) {
    assert_eq!(get(port, "/livez").await.0, 200);
    wait_until("the daemon is ready", PATIENCE, || async { get(port, "/readyz").await.0 == 200 }).await;
    let (code, body) = get(port, "/status").await;
    let document: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, &document["phase"]), (200, &"stream".into()));
    let (code, metrics) = get(port, "/metrics").await;
    assert_eq!(code, 200);
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(value("walferry_transactions_applied_total") > 0.0);
    assert!(value("walferry_rows_applied_total{operation=\"insert\"}") > 0.0);
    assert!(value("walferry_copied_rows_total") > 0.0);
    assert!(value("walferry_slot_retained_bytes{slot_name=\"walferry\"}") >= 0.0);
    assert!(value("walferry_apply_lag_bytes") >= 0.0);
    assert!(value("walferry_sequence_pass_seconds_count") > 0.0 && value("walferry_sequence_lag_seconds") > 0.0);
    assert_eq!(value("walferry_sequences_behind"), 0.0);
    assert_eq!(value("walferry_tables{state=\"ready\"}"), 7.0);
    assert_eq!(value("walferry_phase{phase=\"stream\"}"), 1.0);
    promtool_accepts(&metrics);
}

/// Where Prometheus' tools are at hand, they have the last word on the format.
fn promtool_accepts(metrics: &str) {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let spawned = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).spawn();
    let Ok(mut promtool) = spawned else {
        eprintln!("promtool is not here; the format of the metrics was not checked by it");
        return;
    };
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    assert!(promtool.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn run_until_caught_up_ends_by_itself_and_run_goes_on_from_there() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    load.more(20).await;
    let begun_at = source_end(&source_admin(&pair).await).await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    assert!(position(&pair.target_client().await).await.unwrap() >= begun_at);
    let daemon = streaming(&pair, &[]).await;
    load.more(20).await;
    daemon.terminate(PATIENCE).code(0);
    settle(&pair, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_source_holds_back_no_wal_that_others_write() {
    let pair = usual_pair().await;
    pair.source.psql("postgres", "postgres", "CREATE DATABASE noisy").unwrap();
    let _daemon = streaming(&pair, &[]).await;
    let (source, target) = (source_admin(&pair).await, pair.target_client().await);
    let before = position(&target).await.unwrap();
    let noise = "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 50) FROM generate_series(1, 20000) i; DROP TABLE t";
    pair.source.psql("postgres", "noisy", noise).unwrap();
    let end = source_end(&source).await;
    assert!(end.bytes_since(before) > 16 << 20);
    // Twice the interval of an idle position's moves, and more.
    wait_until("the position has followed the noise", PATIENCE, || async {
        position(&target).await.unwrap() >= end && confirmed(&source).await >= end
    })
    .await;
    let retained = || async {
        // What the slot may let go of is decided at such a record.
        source.batch_execute("CHECKPOINT").await.unwrap();
        let sql = "SELECT (pg_current_wal_lsn() - restart_lsn)::bigint FROM pg_replication_slots";
        source.query_one(sql, &[]).await.unwrap().get::<_, i64>(0)
    };
    wait_until("the slot lets go of the noise", PATIENCE, || async { retained().await < 8 << 20 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catch_up_on_an_idle_source_ends() {
    let pair = usual_pair().await;
    streaming(&pair, &[]).await.terminate(PATIENCE).code(0);
    for _ in 0..2 {
        let report = Walferry::run(&pair, &["catchup", "--json"], Duration::from_secs(30)).code(0).json();
        assert_eq!(report["transactions"], 0);
    }
    pair.assert_equal().await;
}
