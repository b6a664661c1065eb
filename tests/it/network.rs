//! Connections that break, hang and come back, on either side, at any moment.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio_postgres::Client;
use walferry::demo::cluster::SUPERUSER;

use crate::migration::{
    Load, NAME, PATIENCE, catch_up, compare, confirmed, pair_with_tables, position, settle, source_admin, streaming,
    until_applied, until_streaming, usual_pair,
};
use crate::support::pair::{DATABASE, Pair};
use crate::support::process::{Finished, Walferry, command_for};
use crate::support::proxy::{Mode, Proxy};
use crate::support::{connect, wait_until};

/// A pair with a proxy on either side.
pub struct Proxied {
    pub pair: Pair,
    pub source: Proxy,
    pub target: Proxy,
}

impl Proxied {
    pub async fn around(pair: Pair) -> Proxied {
        let (source, target) = (Proxy::start(pair.source.port()).await, Proxy::start(pair.target.port()).await);
        Proxied { pair, source, target }
    }

    /// A daemon that reaches both ends through the proxies.
    pub async fn daemon(&self, arguments: &[&str]) -> Walferry {
        let mut command = command_for(&self.pair, &[&["run"], arguments].concat());
        command.env("WALFERRY_SOURCE_PGURI", self.source.through(&self.pair.source_uri()));
        command.env("WALFERRY_TARGET_PGURI", self.target.through(&self.pair.target_uri()));
        until_streaming(&self.pair, Walferry::spawn(command)).await
    }

    /// The end of every test: the daemon is still the same, follows, leaves in
    /// order, and both sides are equal.
    pub async fn settle(self, daemon: Walferry, load: Load) -> Finished {
        until_applied(&self.pair).await;
        let left = daemon.terminate(PATIENCE).code(0);
        settle(&self.pair, load).await;
        left
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_cut_in_the_stream_are_made_again_on_either_side() {
    let ends = Proxied::around(usual_pair().await).await;
    let load = Load::start(&ends.pair).await;
    let daemon = ends.daemon(&[]).await;
    for proxy in [&ends.source, &ends.target, &ends.source, &ends.target] {
        let before = proxy.accepted();
        load.more(20).await;
        proxy.cut();
        wait_until("it connects again", PATIENCE, || async { proxy.accepted() > before }).await;
        until_applied(&ends.pair).await;
    }
    let left = ends.settle(daemon, load).await;
    assert!(left.stderr.contains("trying again"), "it says so: {}", left.stderr);
}

/// The story: "this is a bug in walferry", as the server had ended the session that applies
/// while nothing was asked of it.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_the_target_ends_at_any_moment_are_made_again() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    let mut daemon = streaming(&pair, &[]).await;
    let target = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    let mut rng = rand::rng();
    for _ in 0..6 {
        // Not a wait for anything: the moment at which they end.
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..200))).await;
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1";
        target.query_one(sql, &[&NAME]).await.unwrap();
        until_applied(&pair).await;
        assert!(daemon.ended().is_none(), "the daemon has ended:\n{}", daemon.stderr());
    }
    daemon.terminate(PATIENCE).code(0);
    settle(&pair, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_breaks_every_two_seconds_only_slows_it_down() {
    let ends = Proxied::around(usual_pair().await).await;
    let load = Load::start(&ends.pair).await;
    let daemon = ends.daemon(&[]).await;
    let cutting = [ends.source.cut_every(Duration::from_secs(2)), ends.target.cut_every(Duration::from_millis(2700))];
    let (source, target) = (ends.source.accepted(), ends.target.accepted());
    // Each attempt needs several connections.
    wait_until("both have broken several times", PATIENCE, || async {
        ends.source.accepted() > source + 12 && ends.target.accepted() > target + 12
    })
    .await;
    let position_at = position(&ends.pair.target_client().await).await.unwrap();
    let client = ends.pair.target_client().await;
    wait_until("it gets on in between", PATIENCE, || async { position(&client).await.unwrap() > position_at }).await;
    cutting.iter().for_each(tokio::task::AbortHandle::abort);
    ends.settle(daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_neither_lost_nor_done_twice() {
    let ends = Proxied::around(usual_pair().await).await;
    let load = Load::start(&ends.pair).await;
    let daemon = ends.daemon(&[]).await;
    for nth in [1, 2, 7] {
        let before = ends.target.trapped();
        ends.target.cut_after_sent(b"COMMIT", nth);
        wait_until("a COMMIT has lost its answer", PATIENCE, || async { ends.target.trapped() > before }).await;
        until_applied(&ends.pair).await;
    }
    ends.settle(daemon, load).await;
}

/// wal_sender_timeout in tests that outlast it.
const SENDER_TIMEOUT: Duration = Duration::from_secs(3);

async fn impatient_pair() -> Pair {
    pair_with_tables(Pair::builder().source_setting("wal_sender_timeout", "3s")).await
}

/// The walsender's process and its start.
async fn walsender(source: &Client) -> Option<(i32, String)> {
    let sql = "SELECT r.pid, r.backend_start::text FROM pg_replication_slots s \
         JOIN pg_stat_replication r ON r.pid = s.active_pid WHERE s.slot_name = $1";
    source.query_opt(sql, &[&NAME]).await.unwrap().map(|row| (row.get(0), row.get(1)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_falls_silent_and_comes_back_is_followed_again() {
    let ends = Proxied::around(impatient_pair().await).await;
    let load = Load::start(&ends.pair).await;
    let daemon = ends.daemon(&[]).await;
    until_applied(&ends.pair).await;
    let source = source_admin(&ends.pair).await;
    ends.source.mode(Mode::Blackhole);
    wait_until("the source has given up on us", PATIENCE, || async { walsender(&source).await.is_none() }).await;
    load.more(20).await;
    ends.source.mode(Mode::Pass);
    ends.settle(daemon, load).await;
}

/// The story: `resync` blamed a healthy daemon, whose look at a source that stood kept it from
/// giving a sign of life.
#[tokio::test(flavor = "multi_thread")]
async fn signs_of_life_do_not_wait_for_a_source_that_stands() {
    let ends = Proxied::around(usual_pair().await).await;
    let load = Load::start(&ends.pair).await;
    let daemon = ends.daemon(&[]).await;
    until_applied(&ends.pair).await;
    let target = ends.pair.target_client().await;
    let seen = async || {
        let row = target.query_one("SELECT daemon_seen::text FROM walferry.migration", &[]).await.unwrap();
        row.get::<_, String>(0)
    };
    ends.source.mode(Mode::Blackhole);
    // A look is given up after the time of ten signs of life.
    let signs = Mutex::new(HashSet::new());
    wait_until("a look at the source is given up", PATIENCE, || async {
        let sign = seen().await;
        signs.lock().unwrap().insert(sign);
        daemon.stderr().contains("the figures cannot be read")
    })
    .await;
    ends.source.mode(Mode::Pass);
    assert!(signs.lock().unwrap().len() >= 5, "{signs:?}");
    ends.settle(daemon, load).await;
}

/// The story: a server that let `status` in and answered nothing held it for ever.
#[tokio::test(flavor = "multi_thread")]
async fn status_does_not_wait_for_a_server_that_lets_it_in_and_falls_silent() {
    let ends = Proxied::around(usual_pair().await).await;
    ends.daemon(&[]).await.terminate(PATIENCE).code(0);
    let status = || {
        let mut command = command_for(&ends.pair, &["status"]);
        let soon =
            |uri: String| if uri.contains('?') { uri + "&connect_timeout=1" } else { uri + "?connect_timeout=1" };
        command.env("WALFERRY_SOURCE_PGURI", soon(ends.source.through(&ends.pair.source_uri())));
        command.env("WALFERRY_TARGET_PGURI", soon(ends.target.through(&ends.pair.target_uri())));
        Walferry::spawn(command).wait(PATIENCE)
    };
    ends.source.blackhole_from(b"pg_replication_slots");
    let told = status().code(0);
    assert_eq!(ends.source.trapped(), 1);
    assert!(told.stdout.contains(NAME), "{}", told.stdout);
    let words = "the status is without the source's side";
    assert!(told.stderr.contains(words) && told.stderr.contains("no answer within 4 s"), "{}", told.stderr);
    ends.source.mode(Mode::Pass);
    ends.target.blackhole_from(b"walferry.migration");
    let ended = status().code(7);
    assert_eq!(ends.target.trapped(), 1);
    assert!(ended.stderr.contains("no answer within 4 s"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_falls_silent_and_comes_back_is_gone_on_with() {
    let ends = Proxied::around(impatient_pair().await).await;
    let load = Load::start(&ends.pair).await;
    let daemon = ends.daemon(&[]).await;
    until_applied(&ends.pair).await;
    let (source, target) = (source_admin(&ends.pair).await, ends.pair.target_client().await);
    ends.target.mode(Mode::Blackhole);
    let begun = Instant::now();
    while begun.elapsed() < 2 * SENDER_TIMEOUT {
        assert!(confirmed(&source).await <= position(&target).await.unwrap());
        load.more(5).await;
    }
    ends.target.mode(Mode::Pass);
    ends.settle(daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_stays_away_longer_than_retry_for_ends_it_with_that_sides_code() {
    let ends = Proxied::around(usual_pair().await).await;
    for (proxy, code, side) in [(&ends.source, 6, "source"), (&ends.target, 7, "target")] {
        let daemon = ends.daemon(&["--retry-for", "2s"]).await;
        proxy.mode(Mode::Refuse);
        proxy.cut();
        let left = daemon.wait(PATIENCE).code(code);
        assert!(left.stderr.contains("giving up") && left.stderr.contains(side), "{}", left.stderr);
        assert!(!left.stderr.contains("app:x@"), "no password is logged");
        proxy.mode(Mode::Pass);
    }
    // Nothing is lost by giving up.
    let load = Load::start(&ends.pair).await;
    let daemon = ends.daemon(&[]).await;
    ends.settle(daemon, load).await;
}

/// The story: a lock on the target, a long COMMIT, a full disk there. A
/// receiver that waits for the target does not answer the source's keepalives,
/// is thrown out, connects again, is sent everything again, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_blocked_does_not_cost_the_connection_to_the_source() {
    let ends = Proxied::around(impatient_pair().await).await;
    let load = Load::start(&ends.pair).await;
    let daemon = ends.daemon(&["--queue-bytes", "2MiB", "--batch-bytes", "1MiB"]).await;
    until_applied(&ends.pair).await;
    let (source, target) = (source_admin(&ends.pair).await, ends.pair.target_client().await);
    let locker = ends.pair.target_client().await;
    let before = walsender(&source).await.expect("it streams");
    // One table: two could deadlock with the applier.
    locker.batch_execute("BEGIN; LOCK TABLE public.event").await.unwrap();
    let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)";
    wait_until("the applier is blocked", PATIENCE, || async {
        target.query_one(waits, &[]).await.unwrap().get::<_, bool>(0)
    })
    .await;
    // More than the queue takes: nothing is read from the source any more.
    let much = "INSERT INTO public.account (id, name, payload) \
         SELECT i, 'much', repeat('x', 1000) FROM generate_series(500001, 520000) i";
    ends.pair.source_sql(much).await;
    let (begun, blocked_at) = (Instant::now(), position(&target).await);
    while begun.elapsed() < 3 * SENDER_TIMEOUT {
        load.more(5).await;
        assert_eq!(walsender(&source).await.as_ref(), Some(&before), "{}", daemon.stderr());
    }
    assert_eq!(position(&target).await, blocked_at, "it was blocked all the time");
    locker.batch_execute("ROLLBACK").await.unwrap();
    until_applied(&ends.pair).await;
    assert_eq!(walsender(&source).await, Some(before));
    ends.settle(daemon, load).await;
}

/// What fails in the same way every time is no lost connection, however
/// transient the server calls it.
#[tokio::test(flavor = "multi_thread")]
async fn a_transient_error_that_never_passes_ends_it_after_retry_for() {
    let pair = usual_pair().await;
    let daemon = streaming(&pair, &["--retry-for", "3s"]).await;
    let target = pair.target_client().await;
    let always = "CREATE FUNCTION public.always() RETURNS trigger LANGUAGE plpgsql \
         AS $$ BEGIN RAISE deadlock_detected USING MESSAGE = 'always'; END $$; \
         CREATE TRIGGER always BEFORE INSERT ON public.event FOR EACH ROW EXECUTE FUNCTION public.always()";
    target.batch_execute(always).await.unwrap();
    pair.source_sql("INSERT INTO public.event VALUES (1, 'refused')").await;
    let left = daemon.wait(PATIENCE).code(7);
    assert!(left.stderr.contains("giving up") && left.stderr.contains("public.event"), "{}", left.stderr);
    target.batch_execute("DROP FUNCTION public.always() CASCADE").await.unwrap();
    catch_up(&pair);
    compare(&pair, 1).await;
}
