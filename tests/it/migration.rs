//! What the tests of running migrations share: a pair with tables and load,
//! and questions to both ends about slot, position and phase.
//!
//! Invariant: every wait has a condition and a limit. The tests run on a
//! runtime of several threads, since the runner blocks the thread it is on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use walferry::demo::cluster::SUPERUSER;
use walferry::lsn::Lsn;

use crate::support::pair::{DATABASE, Pair, PairBuilder};
use crate::support::process::{Finished, Walferry, command};
use crate::support::workload::{self, Totals, Workload};
use crate::support::{connect, wait_until};

/// Enough for anything that takes a moment, on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Name of slot, publication and migration.
pub const NAME: &str = "walferry";

/// Pause between two rows of the counted table: a hundred a second.
const EVENT_PAUSE: Duration = Duration::from_millis(10);

/// Pause of each random writer between two transactions: together they write
/// a hundred a second, which a debug build on a loaded machine follows.
const WRITER_PAUSE: Duration = Duration::from_millis(20);

/// Beside the workload's tables: one that only grows, without any key, so that
/// a row that is lost or comes twice shows in its count; one with a trigger; a
/// large object.
const EXTRAS: &str = "
    CREATE TABLE public.event (n bigint, line text);
    ALTER TABLE public.event REPLICA IDENTITY FULL;
    CREATE TABLE public.audited (id int PRIMARY KEY, touched int NOT NULL DEFAULT 0);
    CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN NEW.touched := NEW.touched + 1; RETURN NEW; END $$;
    CREATE TRIGGER touched BEFORE UPDATE ON public.audited FOR EACH ROW EXECUTE FUNCTION public.touch();
    INSERT INTO public.audited (id) SELECT generate_series(1, 20);
    UPDATE public.audited SET id = id WHERE id <= 10";

/// A large object, where the source's role may read it.
const LARGE_OBJECT: &str = "SELECT pg_catalog.lo_from_bytea(0, decode(repeat('00ff', 5000), 'hex'))";

/// A running pair whose source has tables.
pub async fn pair_with_tables(builder: PairBuilder) -> Pair {
    let pair = builder.start().await;
    let owner = pair.source_client().await;
    workload::create(&owner).await;
    owner.batch_execute(EXTRAS).await.unwrap();
    pair
}

/// The usual pair, with tables and a large object.
pub async fn usual_pair() -> Pair {
    let pair = pair_with_tables(Pair::builder()).await;
    pair.source_sql(LARGE_OBJECT).await;
    pair
}

/// Writers on the source: the random workload and the counted table.
pub struct Load {
    workload: Workload,
    stop: Arc<AtomicBool>,
    events: Arc<AtomicI64>,
    eventer: JoinHandle<()>,
}

impl Load {
    /// Starts them on a pair of [`pair_with_tables`].
    pub async fn start(pair: &Pair) -> Load {
        // The superuser, as the owner may not log in everywhere.
        let uri = pair.source.socket_uri(SUPERUSER, DATABASE);
        let workload = Workload::start_with_pauses(&uri, 2, workload::seed(), WRITER_PAUSE).await;
        let (stop, events) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let eventer = tokio::spawn(write_events(connect(&uri).await, stop.clone(), events.clone()));
        Load { workload, stop, events, eventer }
    }

    /// Transactions of the random workload so far.
    pub fn committed(&self) -> u64 {
        self.workload.committed()
    }

    /// Waits for this many more transactions.
    pub async fn more(&self, transactions: u64) {
        let wanted = self.committed() + transactions;
        wait_until("the writers have written", PATIENCE, || async { self.committed() >= wanted }).await;
    }

    /// Lets every writer finish; what they did, and the rows of the counted table.
    pub async fn stop(self) -> (Totals, i64) {
        self.stop.store(true, Ordering::Relaxed);
        self.eventer.await.expect("the writer of events failed");
        (self.workload.stop().await, self.events.load(Ordering::Relaxed))
    }
}

async fn write_events(client: Client, stop: Arc<AtomicBool>, events: Arc<AtomicI64>) {
    while !stop.load(Ordering::Relaxed) {
        let next = events.load(Ordering::Relaxed) + 1;
        client.execute("INSERT INTO public.event VALUES ($1, 'an event')", &[&next]).await.expect("write an event");
        events.store(next, Ordering::Relaxed);
        tokio::time::sleep(EVENT_PAUSE).await;
    }
}

/// What the daemon that listens on this port answers to such a request.
pub async fn get(port: u16, path: &str) -> String {
    get_with(port, path, None).await
}

/// The same with a token.
pub async fn get_with(port: u16, path: &str, token: Option<&str>) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{token}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// The value of a metric of the daemon that listens on this port.
pub async fn metric(port: u16, name: &str) -> f64 {
    let text = get(port, "/metrics").await;
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

/// `walferry run` on this pair, streaming.
pub async fn streaming(pair: &Pair, arguments: &[&str]) -> Walferry {
    let daemon = Walferry::on(pair, &[&["run"], arguments].concat());
    until_streaming(pair, daemon).await
}

/// The daemon, once it streams.
pub async fn until_streaming(pair: &Pair, mut daemon: Walferry) -> Walferry {
    let source = source_admin(pair).await;
    wait_until("the daemon streams", PATIENCE, || {
        assert!(daemon.ended().is_none(), "the daemon has ended:\n{}", daemon.stderr());
        async { is_active(&source).await }
    })
    .await;
    daemon
}

/// A superuser's session on the source: for questions, whatever the profile.
pub async fn source_admin(pair: &Pair) -> Client {
    connect(&pair.source.socket_uri(SUPERUSER, DATABASE)).await
}

/// Whether a walsender streams from the slot. (It is active, too, while it is
/// being created.)
pub async fn is_active(source: &Client) -> bool {
    let sql = "SELECT EXISTS (SELECT FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid \
         WHERE s.slot_name = $1 AND r.state IN ('catchup', 'streaming'))";
    source.query_one(sql, &[&NAME]).await.unwrap().get(0)
}

/// Where the source believes the target to be.
pub async fn confirmed(source: &Client) -> Lsn {
    let sql = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1";
    source.query_one(sql, &[&NAME]).await.unwrap().get(0)
}

/// Where the target is, if the copy is complete.
pub async fn position(target: &Client) -> Option<Lsn> {
    let rows = target.query("SELECT end_lsn FROM walferry.position WHERE slot = $1", &[&NAME]).await.unwrap();
    rows.first().map(|row| row.get(0))
}

/// The end of the source's WAL.
pub async fn source_end(source: &Client) -> Lsn {
    source.query_one("SELECT pg_current_wal_insert_lsn()", &[]).await.unwrap().get(0)
}

/// Waits until the target has what the source has now; panics when the daemon
/// has given up. Something must go on writing on the source, or it takes as
/// long as the daemon lets an idle position stand.
pub async fn until_applied(pair: &Pair) {
    let (source, target) = (source_admin(pair).await, connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await);
    let end = source_end(&source).await;
    let sql = "SELECT p.end_lsn, m.stopped_because FROM walferry.migration m \
         LEFT JOIN walferry.position p USING (slot) WHERE m.name = $1";
    wait_until("the target has followed", PATIENCE, || async {
        let row = target.query_one(sql, &[&NAME]).await.unwrap();
        let stopped: Option<&str> = row.get(1);
        assert!(stopped.is_none(), "the daemon has stopped: {stopped:?}");
        row.get::<_, Option<Lsn>>(0).is_some_and(|position| position >= end)
    })
    .await;
}

/// `walferry catchup --json`, which must succeed.
#[track_caller]
pub fn catch_up(pair: &Pair) -> Value {
    Walferry::run(pair, &["catchup", "--json"], PATIENCE).code(0).json()
}

/// Stops the load, catches up, and compares everything; the counted table by
/// its count as well.
pub async fn settle(pair: &Pair, load: Load) {
    let (totals, events) = load.stop().await;
    assert!(totals.committed > 0);
    catch_up(pair);
    compare(pair, events).await;
}

/// Compares everything; the counted table must have just these rows, each once.
pub async fn compare(pair: &Pair, events: i64) {
    pair.assert_equal().await;
    let target = pair.target_client().await;
    let row = target.query_one("SELECT count(*), count(DISTINCT n) FROM public.event", &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (events, events), "rows of the counted table");
}

/// What walferry creates on either side, by name: publications, slots, and its
/// schema on the target.
pub async fn traces(pair: &Pair) -> Vec<String> {
    let source = source_admin(pair).await;
    let target = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    let mut found = Vec::new();
    for (client, side) in [(&source, "source"), (&target, "target")] {
        let sql = "SELECT 'publication ' || pubname FROM pg_publication UNION ALL \
             SELECT 'slot ' || slot_name FROM pg_replication_slots UNION ALL \
             SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = 'walferry' ORDER BY 1";
        let rows = client.query(sql, &[]).await.unwrap();
        found.extend(rows.iter().map(|row| format!("{} on the {side}", row.get::<_, &str>(0))));
    }
    found
}

/// Runs a command of these two ends to its end.
#[track_caller]
pub fn run_between(source_uri: &str, target_uri: &str, arguments: &[&str], limit: Duration) -> Finished {
    Walferry::spawn(command(source_uri, target_uri, arguments)).wait(limit)
}
