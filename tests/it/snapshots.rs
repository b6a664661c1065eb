//! The snapshots of a copy: what is done to tables on the source while they
//! wait, how long they are locked, and how old a snapshot gets.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use tokio_postgres::Client;

use crate::copy::create_tables;
use crate::migration::{Load, NAME, PATIENCE, catch_up, settle, source_admin, streaming, usual_pair};
use crate::support::pair::{Pair, SourceRole};
use crate::support::process::Walferry;
use crate::support::wait_until;

/// `long` is the largest, and takes some seconds at [`SLOWLY`]; the others wait
/// behind it where one worker is at work.
const TABLES: &str = "
    CREATE TABLE public.long (id int PRIMARY KEY, t text);
    INSERT INTO public.long SELECT i, repeat(md5(i::text), 4) FROM generate_series(1, 30000) i;
    CREATE TABLE public.altered (id int PRIMARY KEY, v int, t text);
    INSERT INTO public.altered SELECT i, i, md5(i::text) FROM generate_series(1, 9000) i;
    CREATE TABLE public.emptied (id int PRIMARY KEY, t text);
    INSERT INTO public.emptied SELECT i, md5(i::text) FROM generate_series(1, 8000) i;
    CREATE TABLE public.full_vacuum (id int PRIMARY KEY, t text);
    INSERT INTO public.full_vacuum SELECT i, md5(i::text) FROM generate_series(1, 7000) i;
    DELETE FROM public.full_vacuum WHERE id % 2 = 0;
    CREATE TABLE public.narrowed (id int PRIMARY KEY, t text, gone text);
    INSERT INTO public.narrowed SELECT i, md5(i::text), 'x' FROM generate_series(1, 6000) i;
    CREATE TABLE public.untouched (id int PRIMARY KEY, t text);
    INSERT INTO public.untouched SELECT i, md5(i::text) FROM generate_series(1, 5000) i";

/// What an application's deployment and its jobs do.
const REWRITES: &str = "
    ALTER TABLE public.altered ALTER v TYPE bigint;
    UPDATE public.altered SET v = v + 1 WHERE id <= 10;
    TRUNCATE public.emptied;
    INSERT INTO public.emptied SELECT i, 'new' FROM generate_series(1, 50) i;
    UPDATE public.emptied SET t = 'newer' WHERE id = 7;
    UPDATE public.full_vacuum SET t = 'changed' WHERE id = 1;
    DELETE FROM public.untouched WHERE id = 1;
    ALTER TABLE public.narrowed DROP gone";

/// Several seconds for the largest table.
const SLOWLY: [&str; 4] = ["--jobs", "1", "--copy-rate", "1MiB"];

async fn rewrite(pair: &Pair) {
    pair.source_sql(REWRITES).await;
    pair.source_sql("VACUUM FULL public.full_vacuum").await;
    pair.target_client().await.batch_execute("ALTER TABLE public.altered ALTER v TYPE bigint").await.unwrap();
}

/// Waits until rows of the table are being read.
async fn until_read(pair: &Pair, daemon: &mut Walferry, table: &str) {
    let source = source_admin(pair).await;
    let sql = "SELECT FROM pg_stat_activity WHERE application_name = $1 AND query LIKE 'COPY%' || $2 || '%'";
    wait_until(&format!("{table} is being read"), PATIENCE, || {
        assert!(daemon.ended().is_none(), "the daemon has ended:\n{}", daemon.stderr());
        async { !source.query(sql, &[&NAME, &table]).await.unwrap().is_empty() }
    })
    .await;
}

async fn state_of(target: &Client, table: &str) -> String {
    let sql = "SELECT state FROM walferry.tables WHERE migration = $1 AND name = $2";
    target.query_one(sql, &[&NAME, &table]).await.unwrap().get(0)
}

/// The story: ALTER TABLE … TYPE is not MVCC-safe, so a snapshot from before it
/// sees an empty table: it was copied with 0 rows, and the run ended with 0.
/// Behind a TRUNCATE the stream met rows that it was said to have, at every start.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_written_anew_or_emptied_while_they_wait_are_copied_under_a_new_snapshot() {
    let pair = usual_pair().await;
    pair.source_sql(TABLES).await;
    let load = Load::start(&pair).await;
    let mut daemon = Walferry::on(&pair, &[&["run", "--until", "caught-up"], SLOWLY.as_slice()].concat());
    until_read(&pair, &mut daemon, "long").await;
    rewrite(&pair).await;
    let ended = daemon.wait(PATIENCE).code(0);
    for table in ["altered", "emptied", "full_vacuum"] {
        let words = format!("copied under a new one table=public.{table}");
        assert!(ended.stderr.contains(&words), "no \"{words}\" in:\n{}", ended.stderr);
    }
    assert!(!ended.stderr.contains("table=public.untouched"), "{}", ended.stderr);
    settle(&pair, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_emptied_between_two_of_its_parts_is_begun_anew() {
    let pair = usual_pair().await;
    pair.source_sql(TABLES).await;
    let arguments = ["run", "--until", "caught-up", "--part-size", "1MiB"];
    let mut daemon = Walferry::on(&pair, &[arguments.as_slice(), &SLOWLY].concat());
    until_read(&pair, &mut daemon, "long").await;
    // Waits for the part that is being read, and no longer.
    pair.source_sql("TRUNCATE public.long; INSERT INTO public.long SELECT i, 'new' FROM generate_series(1, 900) i")
        .await;
    assert_eq!(state_of(&pair.target_client().await, "long").await, "copying");
    let ended = daemon.wait(PATIENCE).code(0);
    assert!(ended.stderr.contains("copied under a new one table=public.long"), "{}", ended.stderr);
    catch_up(&pair);
    pair.assert_equal().await;
}

/// A partitioned table that is published as itself is read as a whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_emptied_or_detached_while_its_root_waits_is_noticed() {
    let pair = Pair::builder().source_role(SourceRole::Restricted).start().await;
    pair.source_sql(
        "CREATE TABLE public.long (id int PRIMARY KEY, t text); \
         INSERT INTO public.long SELECT i, repeat(md5(i::text), 4) FROM generate_series(1, 30000) i; \
         CREATE TABLE public.root (id int PRIMARY KEY, t text) PARTITION BY RANGE (id); \
         CREATE TABLE public.low PARTITION OF public.root FOR VALUES FROM (0) TO (1000); \
         CREATE TABLE public.middle PARTITION OF public.root FOR VALUES FROM (1000) TO (2000); \
         CREATE TABLE public.high PARTITION OF public.root DEFAULT; \
         INSERT INTO public.root SELECT i, md5(i::text) FROM generate_series(1, 5000) i; \
         CREATE PUBLICATION prepared FOR TABLE public.long, public.root WITH (publish_via_partition_root)",
    )
    .await;
    let run = ["run", "--publication", "prepared", "--until", "caught-up"];
    let mut daemon = Walferry::on(&pair, &[run.as_slice(), &SLOWLY].concat());
    until_read(&pair, &mut daemon, "long").await;
    pair.source_sql(
        "DELETE FROM public.middle; ALTER TABLE public.root DETACH PARTITION public.middle; DROP TABLE public.middle; \
         TRUNCATE public.low; INSERT INTO public.root VALUES (7, 'new')",
    )
    .await;
    // What was dropped is still on the target.
    let ended = daemon.wait(PATIENCE).code(8);
    assert!(ended.stderr.contains("copied under a new one table=public.root"), "{}", ended.stderr);
    let sql = "SELECT count(*), sum(id), min(t) FROM public.root";
    let (source, target) = (pair.source_client().await, pair.target_client().await);
    let rows = async |client: &Client| {
        let row = client.query_one(sql, &[]).await.unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, String>(2))
    };
    assert_eq!(rows(&source).await, rows(&target).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_beside_the_stream() {
    let pair = usual_pair().await;
    pair.source_sql(TABLES).await;
    let load = Load::start(&pair).await;
    let mut daemon = streaming(&pair, &SLOWLY).await;
    let resync = ["resync", "public.long", "public.altered", "public.emptied", "public.full_vacuum", "public.narrowed"];
    let command = Walferry::on(&pair, &resync);
    until_read(&pair, &mut daemon, "long").await;
    rewrite(&pair).await;
    command.wait(PATIENCE).code(0);
    let ended = daemon.terminate(PATIENCE).code(0);
    assert!(ended.stderr.contains("copied under a new one table=public.emptied"), "{}", ended.stderr);
    settle(&pair, load).await;
}

/// The story: TRUNCATE of a staging table waited for hours, until the last
/// table was copied, and whoever reads the table behind it.
#[tokio::test(flavor = "multi_thread")]
async fn no_table_is_locked_longer_than_its_rows_are_read() {
    let pair = usual_pair().await;
    pair.source_sql(TABLES).await;
    let run = ["run", "--until", "caught-up", "--jobs", "2", "--copy-rate", "1MiB", "--part-size", "1GiB"];
    let mut daemon = Walferry::on(&pair, &run);
    until_read(&pair, &mut daemon, "long").await;
    let target = pair.target_client().await;
    wait_until("another table is ready", PATIENCE, || async { state_of(&target, "altered").await == "ready" }).await;
    let source = source_admin(&pair).await;
    source
        .batch_execute("SET lock_timeout = '1s'; TRUNCATE public.altered; ALTER TABLE public.altered ADD w int")
        .await
        .unwrap();
    target.batch_execute("ALTER TABLE public.altered ADD w int").await.unwrap();
    let locked = "SELECT DISTINCT relation::regclass::text FROM pg_locks JOIN pg_stat_activity USING (pid) \
        JOIN pg_class ON pg_class.oid = relation WHERE application_name = $1 AND relkind = 'r' AND relnamespace = 'public'::regnamespace";
    let tables = source.query(locked, &[&NAME]).await.unwrap();
    assert!(tables.len() <= 2, "more than one for each worker: {tables:?}");
    assert_eq!(state_of(&target, "long").await, "copying", "all that was beside the copy");
    daemon.wait(PATIENCE).code(0);
    catch_up(&pair);
    pair.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_has_aged_gives_way_to_a_new_one_and_the_sources_horizon_moves_on() {
    let pair = usual_pair().await;
    create_tables(&pair, 9, 12_000).await;
    let load = Load::start(&pair).await;
    let arguments = ["run", "--until", "caught-up", "--snapshot-age", "1s", "--copy-rate", "1MiB", "--jobs", "2"];
    let mut daemon = Walferry::on(&pair, &arguments);
    let source = source_admin(&pair).await;
    let horizons = Mutex::new(BTreeSet::new());
    wait_until("it is through", PATIENCE, || {
        let has_ended = daemon.ended().is_some();
        let (source, horizons) = (&source, &horizons);
        async move {
            let oldest = "SELECT (array_agg(backend_xmin::text ORDER BY age(backend_xmin) DESC))[1] FROM pg_stat_activity \
                WHERE application_name = $1 AND backend_xmin IS NOT NULL";
            let row = source.query_one(oldest, &[&NAME]).await.unwrap();
            horizons.lock().unwrap().extend(row.get::<_, Option<String>>(0));
            has_ended
        }
    })
    .await;
    daemon.wait(Duration::from_secs(5)).code(0);
    let sql = "SELECT count(DISTINCT snapshot_lsn) FROM walferry.tables WHERE migration = $1";
    let snapshots: i64 = pair.target_client().await.query_one(sql, &[&NAME]).await.unwrap().get(0);
    assert!(snapshots >= 3, "{snapshots} snapshots");
    let horizons = horizons.into_inner().unwrap();
    assert!(horizons.len() >= 3, "the oldest snapshots that were held: {horizons:?}");
    settle(&pair, load).await;
}
