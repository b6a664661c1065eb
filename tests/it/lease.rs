//! The lease while a process is held up or without its connections: somebody else may
//! have taken it meanwhile, and may have ended the migration.

use rustix::process::Signal;
use tokio_postgres::Client;
use walferry::state::lease::LOCK_CLASS;

use crate::journey::value;
use crate::migration::{
    Load, NAME, PATIENCE, catch_up, compare, is_active, source_admin, streaming, until_applied, usual_pair,
};
use crate::network::Proxied;
use crate::support::pair::Pair;
use crate::support::process::{Walferry, command_for};
use crate::support::proxy::Mode;
use crate::support::{some_of, wait_until};

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
    // Another one may have been at a COMMIT.
    wait_until("all of the daemon's sessions are gone", PATIENCE, || async {
        let others = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        holder.query_one(others, &[&NAME]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
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

/// A key, a trigger and a rule, and how many of them are in force.
const ACTING: &str = "
    CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);
    CREATE FUNCTION quiet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER quiet AFTER INSERT ON parent FOR EACH ROW EXECUTE FUNCTION quiet();
    CREATE RULE quiet AS ON INSERT TO child DO ALSO NOTIFY quiet;
    INSERT INTO parent SELECT generate_series(1, 100); INSERT INTO child SELECT i, i FROM generate_series(1, 100) i";
const IN_FORCE: &str =
    "SELECT (SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace)
    + (SELECT count(*) FROM pg_trigger WHERE tgname = 'quiet' AND tgenabled = 'O')
    + (SELECT count(*) FROM pg_rewrite WHERE rulename = 'quiet' AND ev_enabled = 'O')";

/// A command that knows how far the migration is, and stands still before it has the lease.
async fn held_before_the_lease(pair: &Pair, command: &[&str]) -> Walferry {
    let (lock, looks) = (pair.target_client().await, pair.target_client().await);
    lock.batch_execute("BEGIN; LOCK TABLE walferry.tables").await.unwrap();
    let mut held = Walferry::on(pair, command);
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'walferry.tables'::regclass";
    wait_until("it asks for its tables", PATIENCE, || async { value(&looks, waits).await == "1" }).await;
    held.signal(Signal::STOP);
    lock.batch_execute("ROLLBACK").await.unwrap();
    held
}

/// The story: a `resync` that was held up went on when `catchup --finish` had ended with 0,
/// took keys, triggers and rules off the finished target, and only then saw that it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_resync_that_has_the_lease_only_after_the_end_changes_nothing() {
    for is_copied in some_of([true, false]) {
        let pair = Pair::builder().start().await;
        pair.source_sql(ACTING).await;
        let mut run = command_for(&pair, &["run", "--until", "caught-up"]);
        if !is_copied {
            run.env("WALFERRY_FAILPOINT", "copy-before-commit:2");
        }
        let ran = Walferry::spawn(run).wait(PATIENCE);
        assert_eq!(ran.status.success(), is_copied, "{}", ran.stderr);
        let mut late = held_before_the_lease(&pair, &["resync", "parent", "child"]).await;
        Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
        Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
        let target = pair.target_client().await;
        assert_eq!(value(&target, IN_FORCE).await, "3");
        late.signal(Signal::CONT);
        let refused = late.wait(PATIENCE).code(3);
        assert!(refused.stderr.contains("has ended"), "{}", refused.stderr);
        assert_eq!(value(&target, IN_FORCE).await, "3", "copied: {is_copied}");
        pair.assert_equal().await;
        Walferry::run(&pair, &["cleanup"], PATIENCE).code(0);
    }
}

/// The story: `resync` beside a daemon that was frozen waited without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_resync_says_who_holds_the_lease_and_gives_no_sign_of_life() {
    let pair = usual_pair().await;
    let mut daemon = streaming(&pair, &[]).await;
    daemon.signal(Signal::STOP);
    let resync = Walferry::on(&pair, &["resync", "public.account"]);
    let words = format!("process {} on ", daemon.pid());
    wait_until("it says so", PATIENCE, || {
        let said = resync.stderr();
        let words = words.clone();
        async move { said.lines().any(|line| line.contains(&words) && line.contains("no sign of life")) }
    })
    .await;
    daemon.signal(Signal::CONT);
    resync.wait(PATIENCE).code(0);
    daemon.terminate(PATIENCE).code(0);
    catch_up(&pair);
    pair.assert_equal().await;
}
