//! The copy survives: kills, cuts, a snapshot that goes, parts. What was
//! finished is never copied again: the journal has one line for each table.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use walferry::demo::cluster::SUPERUSER;
use walferry::lsn::Lsn;

use crate::journey::value;
use crate::migration::{
    Load, NAME, PATIENCE, catch_up, pair_with_tables, settle, source_admin, streaming, until_applied, until_streaming,
    usual_pair,
};
use crate::support::pair::{DATABASE, Pair};
use crate::support::process::{Walferry, command_for};
use crate::support::proxy::Proxy;
use crate::support::{connect, of_a_storm, oldest_and_newest, wait_until, workload};

/// Tables beside those of the workload.
const TABLES: u32 = 20;

/// Creates tables of so many rows of about 60 bytes, without indexes but keys.
pub async fn create_tables(pair: &Pair, tables: u32, rows: u32) {
    for table in 1..=tables {
        let sql = format!(
            "CREATE TABLE public.bulk_{table} (id int PRIMARY KEY, v int NOT NULL DEFAULT 0, t text); \
             INSERT INTO public.bulk_{table} SELECT i, 0, md5(i::text) FROM generate_series(1, {rows}) i; \
             CREATE INDEX ON public.bulk_{table} (v)"
        );
        pair.source_sql(&sql).await;
    }
}

/// Changes, adds and removes rows of the bulk tables until it is stopped.
pub struct Churn {
    stop: Arc<AtomicBool>,
    task: JoinHandle<u64>,
}

impl Churn {
    pub async fn start(pair: &Pair, tables: u32, rows: u32, seed: u64) -> Churn {
        let client = connect(&pair.source.socket_uri(SUPERUSER, DATABASE)).await;
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(churn(client, stop.clone(), tables, rows, StdRng::seed_from_u64(seed)));
        Churn { stop, task }
    }

    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        assert!(self.task.await.expect("the churn failed") > 0, "it wrote");
    }
}

async fn churn(client: Client, stop: Arc<AtomicBool>, tables: u32, rows: u32, mut rng: StdRng) -> u64 {
    let (mut written, mut next) = (0, rows);
    while !stop.load(Ordering::Relaxed) {
        let (table, id) = (rng.random_range(1..=tables), rng.random_range(1..=rows));
        let sql = match rng.random_range(0..5) {
            0 => {
                next += 1;
                format!("INSERT INTO public.bulk_{table} VALUES ({next}, 1, 'new')")
            }
            1 => format!("DELETE FROM public.bulk_{table} WHERE id = {id}"),
            _ => format!("UPDATE public.bulk_{table} SET v = v + 1 WHERE id = {id}"),
        };
        client.batch_execute(&sql).await.expect("the churn's statement");
        written += 1;
        tokio::time::sleep(Duration::from_millis(6)).await;
    }
    written
}

/// The tables whose rows are there, each with its snapshot.
async fn finished(target: &Client) -> BTreeMap<String, Lsn> {
    let there = "SELECT to_regclass('walferry.tables') IS NOT NULL";
    if !target.query_one(there, &[]).await.unwrap().get::<_, bool>(0) {
        return BTreeMap::new();
    }
    let sql = "SELECT name, snapshot_lsn FROM walferry.tables WHERE migration = $1 AND state IN ('indexing', 'ready')";
    target.query(sql, &[&NAME]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Every table was copied exactly once: lines of the journal, written with the
/// rows. Returns in how many parts each.
async fn assert_copied_once(target: &Client) -> BTreeMap<String, i64> {
    let sql = "SELECT (regexp_match(what, '^copied public\\.(.*): (\\d+) rows in (\\d+) part'))[1], \
         (regexp_match(what, 'in (\\d+) part'))[1]::int8, count(*) FROM walferry.journal \
         WHERE migration = $1 AND what LIKE 'copied %' GROUP BY 1, 2";
    let rows = target.query(sql, &[&NAME]).await.unwrap();
    let lines: Vec<(String, i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert!(lines.iter().all(|(_, _, times)| *times == 1), "copied more than once: {lines:?}");
    let tables = target
        .query_one("SELECT count(*) FROM walferry.tables WHERE migration = $1 AND state NOT IN ('excluded', 'extension', 'unlogged', 'within')", &[&NAME])
        .await
        .unwrap();
    assert_eq!(i64::try_from(lines.len()).unwrap(), tables.get::<_, i64>(0), "one line a table: {lines:?}");
    lines.into_iter().map(|(table, parts, _)| (table, parts)).collect()
}

/// `walferry run` through a proxy on either side.
pub fn through(pair: &Pair, source: &Proxy, target: Option<&Proxy>, arguments: &[&str]) -> Walferry {
    let mut command = command_for(pair, &[&["run"], arguments].concat());
    command.env("WALFERRY_SOURCE_PGURI", source.through(&pair.source_uri()));
    if let Some(target) = target {
        command.env("WALFERRY_TARGET_PGURI", target.through(&pair.target_uri()));
    }
    Walferry::spawn(command)
}

/// The same daemon, once it copies rows.
pub async fn copying(mut daemon: Walferry) -> Walferry {
    wait_until("rows are being copied", PATIENCE, || {
        assert!(daemon.ended().is_none(), "the daemon has ended:\n{}", daemon.stderr());
        let log = daemon.stderr();
        let is_copying = log.contains("INFO copying") || log.contains("INFO streaming");
        async move { is_copying }
    })
    .await;
    daemon
}

/// `walferry run` that kills itself at a point.
fn dies_at(pair: &Pair, failpoint: &str, arguments: &[&str]) {
    let mut command = command_for(pair, &[&["run"], arguments].concat());
    command.env("WALFERRY_FAILPOINT", failpoint);
    let died = Walferry::spawn(command).wait(PATIENCE);
    assert_eq!(died.status.signal(), Some(Signal::ABORT.as_raw()), "{failpoint}: {}", died.stderr);
}

/// The daemon streams, follows, leaves; both sides are equal.
async fn finish(pair: &Pair, daemon: Walferry, load: Load) {
    let daemon = until_streaming(pair, daemon).await;
    until_applied(pair).await;
    daemon.terminate(PATIENCE).code(0);
    settle(pair, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_in_a_copy_end_equal_and_copy_no_finished_table_again() {
    let pair = usual_pair().await;
    create_tables(&pair, TABLES, 30_000).await;
    let seed = workload::seed();
    let (load, churn) = (Load::start(&pair).await, Churn::start(&pair, TABLES, 30_000, seed).await);
    let mut rng = StdRng::seed_from_u64(seed);
    // The schema is there: the kills are to fall among the rows.
    dies_at(&pair, "copy-before-commit:1", &["--jobs", "2"]);
    let proxy = Proxy::start(pair.source.port()).await;
    let target = pair.target_client().await;
    let (mut before, mut in_the_copy) = (BTreeMap::new(), 0);
    let kills = of_a_storm(20);
    for kill in 1..=kills {
        // On a fast machine it is not to be through before the last kill.
        let is_ahead = before.len() * (kills + 2) > kill * (TABLES as usize + 7);
        let (longest_ms, delay_ms) = if is_ahead { (200, 8) } else { (1400, 2) };
        proxy.delay(Duration::from_millis(delay_ms));
        let mut daemon = through(&pair, &proxy, None, &["--jobs", "2", "--part-size", "1MiB"]);
        if rng.random_ratio(3, 4) {
            daemon = copying(daemon).await;
        }
        // On a slow one some table is to be through before it.
        if before.is_empty() && kill >= kills / 3 {
            wait_until("a table is finished", PATIENCE, || async { !finished(&target).await.is_empty() }).await;
        }
        // Not a wait for anything: the moment of the kill.
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..longest_ms))).await;
        let log = daemon.kill().stderr;
        in_the_copy += usize::from(!log.contains("streaming") && log.contains("INFO copying"));
        let after = finished(&target).await;
        for (table, snapshot) in &before {
            assert_eq!(after.get(table), Some(snapshot), "kill {kill}: {table} was finished");
        }
        before = after;
    }
    eprintln!("{in_the_copy} of {kills} kills fell among the rows; {} tables were finished by then", before.len());
    assert!(in_the_copy >= kills / 2 && !before.is_empty(), "the kills fell elsewhere");
    proxy.delay(Duration::ZERO);
    let daemon = through(&pair, &proxy, None, &["--jobs", "2", "--part-size", "1MiB"]);
    let daemon = until_streaming(&pair, daemon).await;
    let copied = assert_copied_once(&target).await;
    // On a fast machine the kills may have left the last run nothing to do.
    assert!(copied.len() >= before.len(), "tables were lost");
    let after = finished(&target).await;
    assert!(before.iter().all(|(table, snapshot)| after.get(table) == Some(snapshot)));
    churn.stop().await;
    finish(&pair, daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_live_for_three_seconds_are_enough_for_tables_that_need_less() {
    let pair = usual_pair().await;
    create_tables(&pair, TABLES, 20_000).await;
    let (load, churn) = (Load::start(&pair).await, Churn::start(&pair, TABLES, 20_000, 1).await);
    let (source, target) = (Proxy::start(pair.source.port()).await, Proxy::start(pair.target.port()).await);
    let period = Duration::from_secs(3);
    let daemon = copying(through(&pair, &source, Some(&target), &["--jobs", "2"])).await;
    source.delay(Duration::from_millis(4));
    let ends = [&source, &target];
    ends.iter().for_each(|end| end.live_for(period));
    let client = pair.target_client().await;
    wait_until("the copy is complete", PATIENCE, || {
        let is_over = daemon.stderr().contains("streaming");
        async move { is_over }
    })
    .await;
    ends.iter().for_each(|end| end.live_for(Duration::ZERO));
    source.delay(Duration::ZERO);
    assert!(daemon.stderr().matches("temporary slot").count() > 1, "it was cut more than once: {}", daemon.stderr());
    assert_copied_once(&client).await;
    churn.stop().await;
    finish(&pair, daemon, load).await;
}

/// The source's connections, or those of both sides, live for two seconds, and
/// one table needs longer.
async fn one_table_needs_longer(ends: Ends) {
    let pair = usual_pair().await;
    create_tables(&pair, 3, 20_000).await;
    pair.source_sql(
        "CREATE TABLE public.huge AS SELECT i, md5(i::text) AS t FROM generate_series(1, 400000) i; \
         ALTER TABLE public.huge ADD PRIMARY KEY (i)",
    )
    .await;
    let (source, target) = (Proxy::start(pair.source.port()).await, Proxy::start(pair.target.port()).await);
    let period = Duration::from_secs(2);
    let daemon = copying(through(&pair, &source, Some(&target), &["--jobs", "2"])).await;
    source.delay(Duration::from_millis(4));
    source.live_for(period);
    if ends == Ends::Both {
        target.live_for(period);
    }
    let ended = daemon.wait(PATIENCE);
    source.live_for(Duration::ZERO);
    target.live_for(Duration::ZERO);
    let code = ended.status.code();
    assert!(code == Some(6) || code == Some(7) && ends == Ends::Both, "{code:?}: {}", ended.stderr);
    for words in ["table public.huge could not be copied", "lost 5 times", "had lived for", "--exclude-tables"] {
        assert!(ended.stderr.contains(words), "no \"{words}\" in:\n{}", ended.stderr);
    }
    let client = pair.target_client().await;
    let there = finished(&client).await;
    assert!(!there.contains_key("huge") && there.contains_key("bulk_1") && there.contains_key("account"), "{there:?}");
    // Without the limit it is the only one that is left.
    source.delay(Duration::ZERO);
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    assert_copied_once(&client).await;
    catch_up(&pair);
    pair.assert_equal().await;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Source,
    Both,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_needs_longer_than_its_connections_live_is_named_and_the_others_are_there() {
    one_table_needs_longer(Ends::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_named_as_well_when_the_lease_goes_with_every_cut() {
    one_table_needs_longer(Ends::Both).await;
}

/// Tables in parts: of rows that have moved and gone, of TOAST, quoted, empty
/// at the end.
const IN_PARTS: &str = "
    CREATE TABLE public.\"In \"\"Parts\" (id int PRIMARY KEY, v int, t text);
    INSERT INTO public.\"In \"\"Parts\" SELECT i, 0, repeat(md5(i::text), 3) FROM generate_series(1, 60000) i;
    UPDATE public.\"In \"\"Parts\" SET v = 1 WHERE id % 3 = 0;
    DELETE FROM public.\"In \"\"Parts\" WHERE id > 50000 OR id % 7 = 0;
    CREATE TABLE public.toasted (id int PRIMARY KEY, t text);
    ALTER TABLE public.toasted ALTER t SET STORAGE EXTERNAL;
    INSERT INTO public.toasted SELECT i, repeat(md5(i::text), 200) FROM generate_series(1, 800) i;
    CREATE TABLE public.visit (id int, at int, t text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE public.visit_1 PARTITION OF public.visit FOR VALUES FROM (0) TO (30000);
    CREATE TABLE public.visit_2 PARTITION OF public.visit FOR VALUES FROM (30000) TO (40000);
    INSERT INTO public.visit SELECT i, i, md5(i::text) FROM generate_series(1, 35000) i";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_parts_is_equal_also_when_it_is_killed_between_them() {
    let pair = usual_pair().await;
    pair.source_sql(IN_PARTS).await;
    let load = Load::start(&pair).await;
    let arguments = ["--part-size", "1MiB", "--jobs", "3"];
    for failpoint in ["copy-part:1", "copy-part:4", "copy-before-commit:3", "copy-part:6", "copy-rows:1"] {
        dies_at(&pair, failpoint, &arguments);
    }
    let daemon = streaming(&pair, &arguments).await;
    let copied = assert_copied_once(&pair.target_client().await).await;
    assert!(copied["\"In \"\"Parts\""] >= 8 && copied["toasted"] >= 4 && copied["event"] == 1, "{copied:?}");
    assert!(copied["visit_1"] >= 2 && copied["visit_2"] == 1 && !copied.contains_key("visit"), "{copied:?}");
    finish(&pair, daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_snapshot_goes_gets_a_new_one_and_goes_on() {
    the_snapshot_goes(usual_pair().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_from_the_newest_server_whose_snapshot_goes_gets_a_new_one_and_goes_on() {
    let (oldest, newest) = oldest_and_newest();
    the_snapshot_goes(pair_with_tables(Pair::builder().servers(&newest, &oldest)).await).await;
}

async fn the_snapshot_goes(pair: Pair) {
    create_tables(&pair, 6, 40_000).await;
    pair.source_sql(IN_PARTS).await;
    let (load, churn) = (Load::start(&pair).await, Churn::start(&pair, 6, 40_000, 2).await);
    let proxy = Proxy::start(pair.source.port()).await;
    let daemon = copying(through(&pair, &proxy, None, &["--jobs", "2", "--part-size", "4MiB"])).await;
    proxy.delay(Duration::from_millis(4));
    let (source, target) = (source_admin(&pair).await, pair.target_client().await);
    wait_until("a table is there", PATIENCE, || async { !finished(&target).await.is_empty() }).await;
    // The keeper exports its snapshot again; the workers only import it.
    let keeper = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = $1 \
         AND state LIKE 'idle in transaction%' AND query NOT LIKE 'COPY%'";
    let terminated: i64 = source.query_one(keeper, &[&NAME]).await.unwrap().get(0);
    assert!(terminated >= 1, "the keeper was there");
    proxy.delay(Duration::ZERO);
    let daemon = until_streaming(&pair, daemon).await;
    let log = daemon.stderr();
    assert!(log.contains("the session that holds the snapshot was lost") && log.contains("temporary slot"), "{log}");
    assert!(!log.contains("the work was cut short"), "the copy itself went on: {log}");
    assert_copied_once(&target).await;
    let snapshots: std::collections::BTreeSet<Lsn> = finished(&target).await.into_values().collect();
    assert_eq!(snapshots.len(), 2, "tables of the first snapshot and of the second: {snapshots:?}");
    churn.stop().await;
    finish(&pair, daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_the_copy_whose_answer_is_lost_is_found_done_or_done_again() {
    let pair = usual_pair().await;
    create_tables(&pair, 12, 50_000).await;
    let (load, churn) = (Load::start(&pair).await, Churn::start(&pair, 12, 50_000, 3).await);
    let (source, target) = (Proxy::start(pair.source.port()).await, Proxy::start(pair.target.port()).await);
    let mut daemon = copying(through(&pair, &source, Some(&target), &["--jobs", "1"])).await;
    source.delay(Duration::from_millis(2));
    // Of rows and of indexes, as it happens.
    while !daemon.stderr().contains("only the answer had been lost") {
        let before = target.trapped();
        target.cut_after_sent(b"COMMIT", 1);
        wait_until("a COMMIT has lost its answer", PATIENCE, || {
            assert!(daemon.ended().is_none(), "the daemon has ended:\n{}", daemon.stderr());
            async { target.trapped() > before }
        })
        .await;
        // What follows on it, undisturbed.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert!(!daemon.stderr().contains("streaming"), "no COMMIT of rows was met:\n{}", daemon.stderr());
    }
    source.delay(Duration::ZERO);
    let daemon = until_streaming(&pair, daemon).await;
    assert_copied_once(&pair.target_client().await).await;
    churn.stop().await;
    finish(&pair, daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_loses_a_connection_goes_on_and_the_others_do_not_notice() {
    let pair = usual_pair().await;
    // More than sockets hold: both servers are at it while the workers are.
    create_tables(&pair, 3, 350_000).await;
    let load = Load::start(&pair).await;
    let proxy = Proxy::start(pair.source.port()).await;
    let mut daemon = copying(through(&pair, &proxy, None, &["--jobs", "2"])).await;
    proxy.delay(Duration::from_millis(4));
    let source = source_admin(&pair).await;
    let target = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    // The one that has come again: what a worker that was cut off has left may still be at it.
    let newest_of_two = "SELECT pg_terminate_backend((array_agg(pid ORDER BY backend_start DESC))[1]) FROM pg_stat_activity \
         WHERE application_name = $1 AND state = 'active' AND query LIKE 'COPY%' \
         HAVING count(*) = 2 AND max(backend_start) > $2::text::timestamptz";
    let mut since = "-infinity".to_owned();
    let cuts = |daemon: &Walferry| daemon.stderr().matches("a part of the copy was cut off").count();
    for (n, client) in [(1, &source), (2, &target)] {
        wait_until("one of two workers is terminated", PATIENCE, || {
            assert!(daemon.ended().is_none(), "the daemon has ended:\n{}", daemon.stderr());
            async { !client.query(newest_of_two, &[&NAME, &since]).await.unwrap().is_empty() }
        })
        .await;
        let killed_at = value(client, "SELECT clock_timestamp()::text").await;
        // What the proxy still holds comes first. Its other session goes as well,
        // and then both come again.
        wait_until("the worker has noticed", PATIENCE, || async { cuts(&daemon) == n }).await;
        since = killed_at;
    }
    proxy.delay(Duration::ZERO);
    let daemon = until_streaming(&pair, daemon).await;
    let log = daemon.stderr();
    assert_eq!(log.matches("a part of the copy was cut off").count(), 2, "{log}");
    assert!(!log.contains("the work was cut short") && !log.contains("temporary slot"), "only that worker: {log}");
    assert_copied_once(&pair.target_client().await).await;
    finish(&pair, daemon, load).await;
}

/// The story: a worker whose connection was lost between its look at a table and the
/// first row made a new one, outside the snapshot: it read the rows of now, and the
/// stream brought those that had come since the snapshot once more, with exit code 0.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_read_in_the_snapshot_or_not_at_all() {
    let pair = usual_pair().await;
    let sql = "CREATE TABLE public.late (n int); ALTER TABLE public.late REPLICA IDENTITY FULL; \
         INSERT INTO public.late SELECT generate_series(1, 100)";
    pair.source_sql(sql).await;
    let mut command = command_for(&pair, &["run"]);
    command.env("WALFERRY_FAILPOINT", "copy-slot:1");
    Walferry::spawn(command).wait(PATIENCE);
    // Between the look and the first row the worker waits for the target.
    let target = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    let waits = "CREATE FUNCTION public.waits() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NEW; END'; \
         CREATE TRIGGER waits BEFORE UPDATE ON walferry.tables FOR EACH ROW \
         WHEN (NEW.name = 'late' AND NEW.state = 'copying' AND OLD.state = 'waiting') EXECUTE FUNCTION public.waits(); \
         SELECT pg_advisory_lock(42)";
    target.batch_execute(waits).await.unwrap();
    let daemon = Walferry::on(&pair, &["run"]);
    let source = connect(&pair.source.socket_uri(SUPERUSER, DATABASE)).await;
    let readers = "FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE '%\"late\" LIMIT 0%'";
    wait_until("the table was looked at", PATIENCE, || async {
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)";
        let looked = format!("SELECT EXISTS (SELECT {readers})");
        target.query_one(waits, &[]).await.unwrap().get::<_, bool>(0)
            && source.query_one(&looked, &[]).await.unwrap().get::<_, bool>(0)
    })
    .await;
    source.batch_execute("INSERT INTO public.late SELECT generate_series(101, 200)").await.unwrap();
    source.batch_execute(&format!("SELECT pg_terminate_backend(pid) {readers}")).await.unwrap();
    wait_until("the worker's connection is gone", PATIENCE, || async {
        !source.query_one(&format!("SELECT EXISTS (SELECT {readers})"), &[]).await.unwrap().get::<_, bool>(0)
    })
    .await;
    target.batch_execute("SELECT pg_advisory_unlock(42); DROP FUNCTION public.waits CASCADE").await.unwrap();
    let daemon = until_streaming(&pair, daemon).await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    catch_up(&pair);
    pair.assert_equal().await;
}

/// The story: a process whose lease was lost unnoticed went on committing parts of a table
/// that another process had begun anew: rows were there twice, with exit code 0.
#[tokio::test(flavor = "multi_thread")]
async fn no_part_commits_for_a_table_that_another_process_has_begun_anew() {
    let pair = usual_pair().await;
    pair.source_sql("CREATE TABLE public.parts (n int, t text); ALTER TABLE public.parts REPLICA IDENTITY FULL").await;
    pair.source_sql("INSERT INTO public.parts SELECT i, repeat(md5(i::text), 6) FROM generate_series(1, 20000) i")
        .await;
    let arguments = ["--jobs", "1", "--part-size", "1MiB"];
    dies_at(&pair, "copy-part:2", &arguments);
    // The next attempt waits in a part.
    let target = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    let waits = "CREATE FUNCTION public.waits() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END'; \
         CREATE TRIGGER waits BEFORE INSERT ON public.parts FOR EACH STATEMENT EXECUTE FUNCTION public.waits(); \
         ALTER TABLE public.parts ENABLE ALWAYS TRIGGER waits; SELECT pg_advisory_lock(42)";
    target.batch_execute(waits).await.unwrap();
    let daemon = Walferry::on(&pair, &[&["run"], &arguments[..]].concat());
    wait_until("a part is on its way", PATIENCE, || async {
        let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)";
        target.query_one(waits, &[]).await.unwrap().get::<_, bool>(0)
    })
    .await;
    // As another process begins it.
    let anew = "UPDATE walferry.tables SET attempt = txid_current() WHERE name = 'parts' AND state = 'copying'";
    assert_eq!(target.execute(anew, &[]).await.unwrap(), 1);
    target.batch_execute("SELECT pg_advisory_unlock(42)").await.unwrap();
    let said = daemon.wait(PATIENCE).code(7).stderr;
    assert!(said.contains("table public.parts is not where this copy left it: another process"), "{said}");
    assert_eq!(target.query_one("SELECT count(*) FROM public.parts", &[]).await.unwrap().get::<_, i64>(0), 0);
    target.batch_execute("DROP FUNCTION public.waits CASCADE").await.unwrap();
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    catch_up(&pair);
    pair.assert_equal().await;
}
