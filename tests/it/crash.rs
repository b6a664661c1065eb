//! Nothing lost, nothing twice, wherever the process or a server dies.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;

use crate::migration::{
    Load, NAME, PATIENCE, catch_up, compare, confirmed, pair_with_tables, position, settle, source_admin, streaming,
    until_applied, until_streaming, usual_pair,
};
use crate::support::pair::Pair;
use crate::support::process::{Walferry, command_for};
use crate::support::proxy::Proxy;
use crate::support::{wait_until, workload};

/// Milliseconds a daemon lives at most before it is killed: from the start of
/// its connections to well inside the stream.
const LIFE_MS: u64 = 1500;

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_at_random_lose_nothing_and_double_nothing() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    let mut rng = StdRng::seed_from_u64(workload::seed());
    let mut daemon = streaming(&pair, &[]).await;
    for _ in 0..10 {
        // Not a wait for anything: the moment of the kill.
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..LIFE_MS))).await;
        daemon.kill();
        daemon = Walferry::on(&pair, &["run"]);
    }
    let daemon = until_streaming(&pair, daemon).await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    settle(&pair, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_before_commit_after_commit_and_within_a_batch_resumes_exactly() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    streaming(&pair, &[]).await.terminate(PATIENCE).code(0);
    let (source, target) = (source_admin(&pair).await, pair.target_client().await);
    for failpoint in
        ["before-commit:1", "after-commit:1", "mid-batch:1", "before-commit:4", "after-commit:5", "mid-batch:23"]
    {
        let mut command = command_for(&pair, &["run"]);
        command.env("WALFERRY_FAILPOINT", failpoint);
        let died = Walferry::spawn(command).wait(PATIENCE);
        assert_eq!(died.status.signal(), Some(Signal::ABORT.as_raw()), "{failpoint}: {}", died.stderr);
        // In this order: the position only moves on.
        let (confirmed, position) = (confirmed(&source).await, position(&target).await.unwrap());
        assert!(confirmed <= position, "{failpoint}: confirmed {confirmed}, but the target is at {position}");
        if failpoint == "after-commit:1" {
            assert!(confirmed < position, "the commit that returned had been confirmed before the crash");
        }
    }
    settle(&pair, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slot_is_never_ahead_of_the_target() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    let daemon = streaming(&pair, &["--batch-rows", "50"]).await;
    let (source, target) = (source_admin(&pair).await, pair.target_client().await);
    let (mut looks, mut distinct, mut last) = (0, 0, confirmed(&source).await);
    let until = load.committed() + 400;
    let begun = Instant::now();
    while load.committed() < until || distinct < 20 {
        let confirmed = confirmed(&source).await;
        let position = position(&target).await.unwrap();
        assert!(confirmed <= position, "confirmed {confirmed}, but the target is at {position}");
        looks += 1;
        distinct += u32::from(confirmed != last);
        last = confirmed;
        assert!(begun.elapsed() < PATIENCE, "the confirmed position moved {distinct} times in {looks} looks");
    }
    daemon.terminate(PATIENCE).code(0);
    settle(&pair, load).await;
}

/// The story: an asynchronous COMMIT returns before it is durable. On a target
/// with synchronous_commit = off the position would be lost in a crash after
/// it had been confirmed to the source.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_commits_asynchronously_and_crashes_loses_nothing_confirmed() {
    let builder = Pair::builder().target_setting("synchronous_commit", "off");
    let mut pair = pair_with_tables(builder.target_setting("wal_writer_delay", "10s")).await;
    let load = Load::start(&pair).await;
    let daemon = streaming(&pair, &[]).await;
    load.more(50).await;
    until_applied(&pair).await;
    pair.target.crash().unwrap();
    pair.target.restart().unwrap();
    load.more(50).await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    settle(&pair, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_restarts_is_followed_again() {
    let mut pair = usual_pair().await;
    let daemon = streaming(&pair, &[]).await;
    let load = Load::start(&pair).await;
    load.more(30).await;
    let (totals, events) = load.stop().await;
    assert!(totals.committed >= 30 && events > 0);
    pair.source.restart().unwrap();
    pair.source_sql(&format!("INSERT INTO public.event VALUES ({}, 'after the restart')", events + 1)).await;
    until_applied(&pair).await;
    assert!(daemon.stderr().contains("trying again"), "{}", daemon.stderr());
    daemon.terminate(PATIENCE).code(0);
    catch_up(&pair);
    compare(&pair, events + 1).await;
}

/// Rows of the table that a slow copy takes its time over; about 16 MB.
const FILLER_ROWS: u32 = 400_000;

/// A pair whose copy lasts some seconds, and the proxy that makes it so.
async fn slow_copy() -> (Pair, Proxy) {
    let pair = usual_pair().await;
    let sql = format!(
        "CREATE TABLE public.filler AS SELECT i, md5(i::text) AS t FROM generate_series(1, {FILLER_ROWS}) i; \
         ALTER TABLE public.filler ADD PRIMARY KEY (i)"
    );
    pair.source_sql(&sql).await;
    let proxy = Proxy::start(pair.source.port()).await;
    proxy.delay(Duration::from_millis(4));
    (pair, proxy)
}

/// A daemon in the middle of its copy: one table is ready, another one is not.
async fn in_the_copy(pair: &Pair, proxy: &Proxy) -> Walferry {
    let mut command = command_for(pair, &["run", "--jobs", "2"]);
    command.env("WALFERRY_SOURCE_PGURI", proxy.through(&pair.source_uri()));
    let mut daemon = Walferry::spawn(command);
    let target = pair.target_client().await;
    wait_until("one table is ready and another is not", PATIENCE, || {
        assert!(daemon.ended().is_none(), "the daemon has ended:\n{}", daemon.stderr());
        async {
            let there = "SELECT to_regclass('walferry.tables') IS NOT NULL";
            if !target.query_one(there, &[]).await.unwrap().get::<_, bool>(0) {
                return false;
            }
            let sql = "SELECT count(*) FILTER (WHERE state = 'ready'), count(*) FILTER (WHERE state = 'copying') \
                 FROM walferry.tables WHERE migration = $1";
            let row = target.query_one(sql, &[&NAME]).await.unwrap();
            row.get::<_, i64>(0) > 0 && row.get::<_, i64>(1) > 0
        }
    })
    .await;
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_killed_goes_on_by_itself() {
    let (pair, proxy) = slow_copy().await;
    let load = Load::start(&pair).await;
    in_the_copy(&pair, &proxy).await.kill();
    let status = Walferry::run(&pair, &["status", "--json"], PATIENCE).code(0).json();
    assert_eq!(status["phase"], "copy");
    proxy.delay(Duration::ZERO);
    let daemon = streaming(&pair, &[]).await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    settle(&pair, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_copy_ends_with_0_and_run_again_completes_it() {
    let (pair, proxy) = slow_copy().await;
    let load = Load::start(&pair).await;
    let mut daemon = in_the_copy(&pair, &proxy).await;
    daemon.signal(Signal::INT);
    daemon.wait(PATIENCE).code(0);
    proxy.delay(Duration::ZERO);
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    settle(&pair, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_in_the_copy_let_it_go_on() {
    let (pair, proxy) = slow_copy().await;
    let load = Load::start(&pair).await;
    let daemon = in_the_copy(&pair, &proxy).await;
    proxy.delay(Duration::ZERO);
    proxy.cut();
    let daemon = until_streaming(&pair, daemon).await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    settle(&pair, load).await;
}
