//! Asked to stop, by signals and by other commands: what is durable is
//! confirmed, the slot is free, and the next run goes on.

use rustix::process::Signal;

use crate::migration::{
    Load, NAME, PATIENCE, confirmed, metric, position, settle, source_admin, streaming, until_applied, until_streaming,
    usual_pair,
};
use crate::support::process::{Walferry, command_for, free_port};
use crate::support::wait_until;

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_and_sigint_confirm_what_is_durable_and_free_the_slot() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    let (source, target) = (source_admin(&pair).await, pair.target_client().await);
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        let mut daemon = streaming(&pair, &[]).await;
        until_applied(&pair).await;
        load.more(20).await;
        daemon.signal(signal);
        let left = daemon.wait(PATIENCE).code(0);
        assert!(left.stderr.contains("stopped as asked"), "{}", left.stderr);
        wait_until("the slot is free", PATIENCE, || async {
            let sql = "SELECT active FROM pg_replication_slots WHERE slot_name = $1";
            !source.query_one(sql, &[&NAME]).await.unwrap().get::<_, bool>(0)
        })
        .await;
        assert_eq!(Some(confirmed(&source).await), position(&target).await, "{signal:?}: {}", left.stderr);
        let status = Walferry::run(&pair, &["status", "--json"], PATIENCE).code(0).json();
        assert_eq!((&status["phase"], &status["daemon"]["alive"]), (&"stopped".into(), &false.into()));
        assert!(status["stopped_because"].as_str().unwrap().contains("asked to stop"), "{status}");
    }
    settle(&pair, load).await;
}

/// The story: `2> >(head -1)` ended the daemon with the second line.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_any_more_ends_nothing() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    for is_full in [true, false] {
        let port = free_port();
        let command = command_for(&pair, &["run", "--listen", &format!("127.0.0.1:{port}")]);
        let daemon = until_streaming(&pair, Walferry::spawn_unread(command, is_full)).await;
        until_applied(&pair).await;
        let lost = metric(port, "walferry_log_lines_lost").await;
        assert!(lost > 0.0, "it has logged");
        daemon.terminate(PATIENCE).code(0);
    }
    // It says nothing, and the exit code all.
    let command = command_for(&pair, &["run", "--schema", "no such mode"]);
    Walferry::spawn_unread(command, false).wait(PATIENCE).code(2);
    settle(&pair, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_leaves_and_names_the_one_at_work() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    let mut first = streaming(&pair, &[]).await;
    let second = Walferry::run(&pair, &["run"], PATIENCE).code(7);
    let holder = format!("process {}", first.pid());
    assert!(second.stderr.contains(&holder), "it names {holder}: {}", second.stderr);
    assert!(first.ended().is_none(), "the first one has ended:\n{}", first.stderr());
    until_applied(&pair).await;
    let status = Walferry::run(&pair, &["status", "--json"], PATIENCE).code(0).json();
    assert_eq!((&status["phase"], &status["daemon"]["pid"]), (&"stream".into(), &first.pid().into()));
    first.terminate(PATIENCE).code(0);
    settle(&pair, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_does_not_touch_a_migration_at_work() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    let mut daemon = streaming(&pair, &[]).await;
    let refused = Walferry::run(&pair, &["cleanup", "--yes"], PATIENCE);
    assert_ne!(refused.status.code(), Some(0), "{}", refused.stdout);
    assert!(daemon.ended().is_none());
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    settle(&pair, load).await;
}
