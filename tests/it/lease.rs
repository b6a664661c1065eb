//! The lease while the daemon is without its connections: somebody else may
//! have taken it meanwhile, and may have ended the migration.

use tokio_postgres::Client;
use walferry::state::lease::LOCK_CLASS;

use crate::migration::{Load, NAME, PATIENCE, catch_up, compare, is_active, source_admin, until_applied, usual_pair};
use crate::network::Proxied;
use crate::support::pair::Pair;
use crate::support::proxy::Mode;
use crate::support::wait_until;

/// Everything the state says of the migration, in rows of text, but for who claims its
/// position.
async fn state(pair: &Pair) -> Vec<String> {
    let sql = "SELECT (to_jsonb(m) - 'claim')::text FROM walferry.migration m UNION ALL SELECT (to_jsonb(p) - 'claim')::text FROM walferry.position p \
         UNION ALL SELECT c::text FROM walferry.control c UNION ALL SELECT j::text FROM walferry.journal j ORDER BY 1";
    let rows = pair.target_client().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Takes the daemon's connection to the target away, and the lease for this session.
async fn hold_lease_of_lost(ends: &Proxied) -> Client {
    ends.target.mode(Mode::Refuse);
    ends.target.cut();
    let holder = ends.pair.target_client().await;
    // Waits for the daemon's session to be gone.
    holder.query_one("SELECT pg_advisory_lock($1, hashtext($2))", &[&LOCK_CLASS, &NAME]).await.unwrap();
    holder
}

/// The story: the daemon got its connections back, took the lease that
/// `catchup` had given back, and went on with a migration that was over.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_migration_catchup_has_ended_meanwhile_leaves_by_itself_handed_over() {
    let ends = Proxied::around(usual_pair().await).await;
    let load = Load::start(&ends.pair).await;
    let daemon = ends.daemon(&[]).await;
    until_applied(&ends.pair).await;
    for proxy in [&ends.source, &ends.target] {
        proxy.mode(Mode::Refuse);
        proxy.cut();
    }
    load.more(20).await;
    let (_, events) = load.stop().await;
    catch_up(&ends.pair);
    let left_behind = state(&ends.pair).await;
    for proxy in [&ends.source, &ends.target] {
        proxy.mode(Mode::Pass);
    }

    let left = daemon.wait(PATIENCE).code(0);
    let (target, sql) = (ends.pair.target_client().await, "SELECT daemon_pid::text FROM walferry.migration");
    let by: String = target.query_one(sql, &[]).await.unwrap().get(0);
    let words = format!("to=\"process {by} on ");
    assert!(left.stderr.contains("handed over") && left.stderr.contains(&words), "{words} is not in {}", left.stderr);
    assert_eq!(state(&ends.pair).await, left_behind, "it has touched nothing");
    assert!(!is_active(&source_admin(&ends.pair).await).await);
    compare(&ends.pair, events).await;
}

/// The story: after a cut the server may hold the daemon's own old session, and
/// its lease, for longer than a new one waits. That ended the daemon with 7.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_held_when_the_connection_comes_back_is_waited_for_as_long_as_the_connection() {
    let ends = Proxied::around(usual_pair().await).await;
    let load = Load::start(&ends.pair).await;

    // No longer than that: and whoever has it writes the state.
    let daemon = ends.daemon(&["--retry-for", "2s"]).await;
    until_applied(&ends.pair).await;
    let holder = hold_lease_of_lost(&ends).await;
    let before = state(&ends.pair).await;
    ends.target.mode(Mode::Pass);
    let left = daemon.wait(PATIENCE).code(7);
    assert!(left.stderr.contains("giving up") && left.stderr.contains("is being worked on by"), "{}", left.stderr);
    assert_eq!(state(&ends.pair).await, before);
    drop(holder);

    let mut daemon = ends.daemon(&[]).await;
    let holder = hold_lease_of_lost(&ends).await;
    ends.target.mode(Mode::Pass);
    wait_until("it has waited for the lease in vain", PATIENCE, || {
        let log = daemon.stderr();
        assert!(daemon.ended().is_none(), "the daemon has ended:\n{log}");
        async move { log.lines().any(|line| line.contains("is being worked on by") && line.contains("trying again")) }
    })
    .await;
    drop(holder);
    until_applied(&ends.pair).await;
    ends.settle(daemon, load).await;
}
