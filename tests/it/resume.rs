//! A position that does not fit its source any more is never gone on from:
//! exit 4, and words.

use std::path::Path;
use std::process::Command;

use walferry::demo::cluster::SUPERUSER;

use crate::journey::value;
use crate::migration::{
    Load, PATIENCE, catch_up, confirmed, position, run_between, source_admin, streaming, until_applied, usual_pair,
};
use crate::network::Proxied;
use crate::support::pair::{APP, DATABASE, PASSWORD, Pair, cluster};
use crate::support::process::{Finished, Walferry, free_port};
use crate::support::proxy::Mode;
use crate::support::{server, wait_until};

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
    let said = Walferry::run(&pair, &["catchup"], PATIENCE).code(4).stderr;
    assert!(said.contains("walferry resync '*'"), "{said}");
    // The story: `resync` of one table emptied and copied it, and the next catch-up was where it had been.
    let target = pair.target_client().await;
    let copied = "SELECT string_agg(name || snapshot_lsn, ' ' ORDER BY name) FROM walferry.tables";
    let before = value(&target, copied).await;
    let refused = Walferry::run(&pair, &["resync", "public.account"], PATIENCE).code(4).stderr;
    assert!(refused.contains("something else consumed it") && refused.contains("walferry resync '*'"), "{refused}");
    assert_eq!(value(&target, copied).await, before, "nothing was emptied");
    Walferry::run(&pair, &["resync", "*"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// The story: started at the target's position, the server passed over what it wrote up to
/// there, and the slot was moved behind its own end; exit 0.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_set_back_behind_the_target_needs_a_resync() {
    let mut pair = usual_pair().await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let (data, backup) = (pair.source.data_dir(), tempfile::tempdir().unwrap());
    pair.source.stop().unwrap();
    copy(&data, &backup.path().join("data"));
    pair.source.restart().unwrap();
    pair.source_sql(
        "INSERT INTO public.account (id, name) SELECT i, repeat('x', 100) FROM generate_series(100001, 120000) i",
    )
    .await;
    Walferry::run(&pair, &["catchup"], PATIENCE).code(0);
    pair.source.stop().unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup.path().join("data"), &data);
    pair.source.restart().unwrap();
    pair.source_sql("UPDATE public.account SET name = 'another history'").await;
    assert_refused(&pair, &pair.source_uri(), &["the WAL of the source ends at", "was set back"]).await;
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(4);
    let check = Walferry::run(&pair, &["check"], PATIENCE).code(4).stdout;
    assert!(check.contains("the WAL of the source ends at"), "{check}");
}

/// The story: the state in the backup had been left by an earlier process, and the daemon
/// took that for a hand-over and ended with 0; and so it did once attempts of its own had had
/// the lease of the earlier state, and lost it as the source did not answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_set_back_while_the_daemon_runs_ends_it_as_it_ends_catchup() {
    let mut ends = Proxied::around(usual_pair().await).await;
    Walferry::run(&ends.pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let (target, claim) = (ends.pair.target_client().await, "SELECT claim::text FROM walferry.migration");
    let (before, claimed) = (position(&target).await.unwrap(), value(&target, claim).await.parse::<i64>().unwrap());
    let (data, backup) = (ends.pair.target.data_dir(), tempfile::tempdir().unwrap());
    ends.pair.target.stop().unwrap();
    copy(&data, &backup.path().join("data"));
    ends.pair.target.restart().unwrap();
    let daemon = ends.daemon(&[]).await;
    ends.pair.source_sql("CREATE TABLE since (id int PRIMARY KEY); UPDATE public.account SET id = id").await;
    until_applied(&ends.pair).await;
    let source = source_admin(&ends.pair).await;
    wait_until("it is confirmed", PATIENCE, || async { confirmed(&source).await > before }).await;
    ends.pair.target.stop().unwrap();
    ends.source.mode(Mode::Blackhole);
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup.path().join("data"), &data);
    ends.pair.target.restart().unwrap();
    let target = ends.pair.target_client().await;
    for lost in 1..=2 {
        wait_until("it has the lease", PATIENCE, || async {
            value(&target, claim).await.parse::<i64>().unwrap() >= claimed + lost
        })
        .await;
        ends.source.cut();
    }
    ends.source.mode(Mode::Pass);
    let said = daemon.wait(PATIENCE).code(4).stderr;
    assert!(said.contains("or the target was set back to an earlier state") && !said.contains("handed over"), "{said}");
    Walferry::run(&ends.pair, &["catchup"], PATIENCE).code(4);
}

/// The story: the daemon began a migration of its own where there was none any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_does_not_begin_anew_when_its_state_is_gone() {
    let ends = Proxied::around(usual_pair().await).await;
    let daemon = ends.daemon(&[]).await;
    ends.target.mode(Mode::Refuse);
    ends.target.cut();
    let target = ends.pair.target_client().await;
    wait_until("its sessions are gone", PATIENCE, || async {
        value(&target, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").await == "0"
    })
    .await;
    target.batch_execute("DROP SCHEMA walferry CASCADE").await.unwrap();
    ends.target.mode(Mode::Pass);
    let said = daemon.wait(PATIENCE).code(4).stderr;
    assert!(said.contains("the target has no state of migration \"walferry\" any more"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_source_server_needs_a_resync() {
    let pair = stopped().await;
    // A cluster of its own system identifier, with everything else the same.
    let other = cluster_with_another_identity();
    assert_refused(&pair, &other.uri(APP, PASSWORD, DATABASE), &["is not the server", "the system identifier"]).await;
    let slots = other.psql("postgres", DATABASE, "SELECT count(*) FROM pg_replication_slots").unwrap();
    assert_eq!(slots, "0\n", "nothing is created there");
    // The story: with a mere slip in the address the first advice was to destroy everything.
    for command in [&["check"][..], &["run"], &["catchup"], &["resync", "public.account"]] {
        let ended = run_between(&other.uri(APP, PASSWORD, DATABASE), &pair.target_uri(), command, PATIENCE).code(4);
        let said = ended.stdout + &ended.stderr;
        let (first, then) = (said.find("use its own --source, or another --name"), said.find("walferry cleanup --yes"));
        assert!(first.is_some() && first < then, "{command:?}:\n{said}");
        assert!(said.contains("(database shop)") && said.contains("Only where its source was replaced"), "{said}");
    }
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

/// The stories: exit 6 with the SQL that would create the publication in a backup; a `cleanup`
/// that took the migration away, whose source was there again a minute later.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_the_source_from_before_the_migration_is_none_to_go_on_with_or_to_clean_up() {
    let pair = stopped().await;
    // A copy of the same template: of the same identifier.
    let other = cluster(&server()).start().unwrap();
    for sql in [
        format!("CREATE ROLE {APP} LOGIN SUPERUSER REPLICATION PASSWORD '{PASSWORD}'"),
        format!("CREATE DATABASE {DATABASE} OWNER {APP}"),
    ] {
        other.psql("postgres", "postgres", &sql).unwrap();
    }
    let backup = other.uri(APP, PASSWORD, DATABASE);
    let run = |command: &[&str], code| run_between(&backup, &pair.target_uri(), command, PATIENCE).code(code);
    for command in [&["run"][..], &["catchup"], &["catchup", "--finish"], &["resync", "*"]] {
        let said = run(command, 4).stderr;
        assert!(!said.contains("CREATE PUBLICATION"), "{command:?}: {said}");
    }
    // A slot of the name in another server, or another database, says nothing of ours.
    let elsewhere = pair.source.uri(APP, PASSWORD, "postgres");
    let status = run_between(&elsewhere, &pair.target_uri(), &["status", "--json"], PATIENCE).code(0);
    assert!(status.stderr.contains("not the server this migration began with"), "{}", status.stderr);
    assert!(status.json()["slot"].is_null(), "{}", status.stdout);
    let said = run(&["cleanup", "--yes"], 2).stderr;
    assert!(said.contains("Nothing is dropped there"), "{said}");
    catch_up(&pair);
    pair.assert_equal().await;
}

/// The story: with a target that was down for a moment, `check` printed what drops the slot.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_migration_cannot_be_asked_for_is_not_said_to_be_nobodys() {
    let pair = stopped().await;
    let away = format!("postgresql://doadmin:{PASSWORD}@127.0.0.1:{}/{DATABASE}", free_port());
    let said = run_between(&pair.source_uri(), &away, &["check"], PATIENCE).code(7).stdout;
    assert!(said.contains("cannot be asked") && !said.contains("pg_drop_replication_slot"), "{said}");
    // Nor is it where the target is there, and its state cannot be read.
    let owner = |owner| format!("ALTER TABLE walferry.migration OWNER TO {owner}");
    pair.target.psql(SUPERUSER, DATABASE, &owner(SUPERUSER)).unwrap();
    let said = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
    assert!(said.contains("cannot be asked") && !said.contains("pg_drop_replication_slot"), "{said}");
    pair.target.psql(SUPERUSER, DATABASE, &owner("doadmin")).unwrap();
    Walferry::run(&pair, &["check"], PATIENCE).code(0);
}

/// The story: the position was read before the slot, which the daemon had moved on by then;
/// exit 4, and the advice to begin again.
#[tokio::test(flavor = "multi_thread")]
async fn check_beside_a_daemon_that_goes_on_finds_nothing_amiss() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    let daemon = streaming(&pair, &[]).await;
    for _ in 0..8 {
        Walferry::run(&pair, &["check"], PATIENCE).code(0);
    }
    load.stop().await;
    daemon.terminate(PATIENCE).code(0);
}
