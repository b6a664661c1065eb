//! A position that does not fit its source any more is never gone on from:
//! exit 4, and words.

use crate::migration::{
    Load, PATIENCE, confirmed, position, run_between, source_admin, streaming, until_applied, usual_pair,
};
use crate::support::pair::{APP, DATABASE, PASSWORD, Pair, cluster};
use crate::support::process::{Finished, Walferry};
use crate::support::server;

/// A pair whose migration has streamed and was stopped, with changes waiting.
async fn stopped() -> Pair {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    let daemon = streaming(&pair, &[]).await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    load.more(20).await;
    let (totals, events) = load.stop().await;
    assert!(totals.committed >= 20 && events > 0);
    pair
}

/// Neither `run` nor `catchup` goes on; both say why, and nothing is applied.
async fn assert_refused(pair: &Pair, source_uri: &str, words: &[&str]) {
    let target = pair.target_client().await;
    let before = position(&target).await;
    for arguments in [&["run"][..], &["run", "--until", "caught-up"]] {
        let Finished { stderr, .. } = run_between(source_uri, &pair.target_uri(), arguments, PATIENCE).code(4);
        for word in words {
            assert!(stderr.contains(word), "no \"{word}\" in:\n{stderr}");
        }
        assert!(stderr.contains("walferry cleanup"), "it says what to do:\n{stderr}");
    }
    assert_eq!(position(&target).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_gone_needs_a_resync() {
    let pair = stopped().await;
    pair.source_sql("SELECT pg_drop_replication_slot('walferry')").await;
    assert_refused(&pair, &pair.source_uri(), &["slot \"walferry\" no longer exists on the source"]).await;
    let status = Walferry::run(&pair, &["status", "--json"], PATIENCE).code(0).json();
    assert!(status["stopped_because"].as_str().unwrap().contains("no longer exists"), "{status}");
    assert_eq!(status["slot"]["wal_status"], "missing");
    Walferry::run(&pair, &["catchup"], PATIENCE).code(4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_somebody_advanced_needs_a_resync() {
    let pair = stopped().await;
    let at = position(&pair.target_client().await).await.unwrap();
    let source = source_admin(&pair).await;
    // A slot is advanced up to what is flushed: by a commit that waits for it.
    source.batch_execute("SET synchronous_commit = on; CREATE TABLE flushed (); DROP TABLE flushed").await.unwrap();
    source.batch_execute("SELECT pg_replication_slot_advance('walferry', pg_current_wal_lsn())").await.unwrap();
    assert!(confirmed(&source).await > at);
    let at = at.to_string();
    assert_refused(&pair, &pair.source_uri(), &["the target is only at", &at, "something else consumed it"]).await;
    Walferry::run(&pair, &["catchup"], PATIENCE).code(4);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_source_server_needs_a_resync() {
    let pair = stopped().await;
    // A cluster of its own system identifier, with everything else the same.
    let other = cluster_with_another_identity();
    assert_refused(&pair, &other.uri(APP, PASSWORD, DATABASE), &["is not the server", "the system identifier"]).await;
    let slots = other.psql("postgres", DATABASE, "SELECT count(*) FROM pg_replication_slots").unwrap();
    assert_eq!(slots, "0\n", "nothing is created there");
}

/// Initialised anew: the usual clusters are copies of one template, and share
/// its identifier.
fn cluster_with_another_identity() -> walferry::demo::cluster::Cluster {
    let folder = tempfile::tempdir().unwrap();
    let other = cluster(&server()).templates(folder.path()).start().unwrap();
    for sql in [
        format!("CREATE ROLE {APP} LOGIN SUPERUSER REPLICATION PASSWORD '{PASSWORD}'"),
        format!("CREATE DATABASE {DATABASE} OWNER {APP}"),
    ] {
        other.psql("postgres", "postgres", &sql).unwrap();
    }
    other
}
