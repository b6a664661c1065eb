//! What `cleanup` drops, and what it leaves: only what the migration created
//! and still recognises.

use std::time::Duration;

use walferry::demo::cluster::{Cluster, SUPERUSER};

use crate::migration::{source_admin, traces};
use crate::support::pair::{APP, DATABASE, PASSWORD, Pair};
use crate::support::process::{Finished, Walferry, command};
use crate::support::{server, some_of};

/// Enough for anything that takes a moment on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

const TABLES: &str = "CREATE TABLE public.customer (id int PRIMARY KEY); \
    CREATE TABLE public.orders (id int PRIMARY KEY, customer int REFERENCES public.customer); \
    INSERT INTO public.customer VALUES (1); INSERT INTO public.orders VALUES (1, 1)";

/// A migration that has caught up and holds a foreign key back.
async fn caught_up() -> Pair {
    let pair = Pair::builder().start().await;
    pair.source_sql(TABLES).await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    pair
}

/// How many slots and publications of the name "walferry" the source has.
async fn named(pair: &Pair) -> (i64, i64) {
    let sql = "SELECT (SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'walferry'), \
        (SELECT count(*) FROM pg_publication WHERE pubname = 'walferry')";
    let row = source_admin(pair).await.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

async fn has_state(pair: &Pair) -> bool {
    let sql = "SELECT to_regnamespace('walferry') IS NOT NULL";
    pair.target_client().await.query_one(sql, &[]).await.unwrap().get(0)
}

/// The lines that say what was kept, each with the SQL at its end.
fn kept(finished: &Finished) -> Vec<String> {
    finished.stdout.lines().filter_map(|line| line.strip_prefix("kept ")).map(str::to_owned).collect()
}

/// The story: slot and publication were dropped by their names. Somebody had
/// dropped ours and made others for a tool of theirs, which then lost its
/// changes without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_and_a_publication_that_another_made_under_our_names_stay_with_the_sql_that_drops_them() {
    let pair = caught_up().await;
    let source = source_admin(&pair).await;
    for sql in [
        "SELECT pg_drop_replication_slot('walferry')",
        "SELECT pg_create_logical_replication_slot('walferry', 'pgoutput')",
        "DROP PUBLICATION walferry",
        "CREATE PUBLICATION walferry FOR TABLE public.orders",
    ] {
        source.batch_execute(sql).await.unwrap();
    }
    let cleaned = Walferry::run(&pair, &["cleanup", "--yes"], PATIENCE).code(0);
    assert_eq!(named(&pair).await, (1, 1), "{}", cleaned.stdout);
    assert!(!has_state(&pair).await);
    let kept = kept(&cleaned);
    assert!(kept[0].contains("created anew") && kept[1].contains("another one"), "{kept:?}");
    for line in &kept {
        let sql = line.rsplit(": ").next().unwrap();
        source.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    }
    assert_eq!(traces(&pair).await, [""; 0]);
}

/// The story: a slot that was there before ours could be taken for one of ours
/// whose creation was cut off; and one that another plugin or database has.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_another_plugin_stays_and_so_does_the_publication_of_an_older_walferry() {
    let pair = caught_up().await;
    let source = source_admin(&pair).await;
    for sql in
        ["SELECT pg_drop_replication_slot('walferry')", "SELECT pg_create_physical_replication_slot('walferry', true)"]
    {
        source.batch_execute(sql).await.unwrap();
    }
    let target = pair.target_client().await;
    target.batch_execute("UPDATE walferry.migration SET publication_oid = NULL").await.unwrap();
    let cleaned = Walferry::run(&pair, &["cleanup", "--yes"], PATIENCE).code(0);
    assert_eq!(named(&pair).await, (1, 1), "{}", cleaned.stdout);
    let kept = kept(&cleaned);
    assert!(kept[0].contains("its plugin is none") && kept[1].contains("not known to be made"), "{kept:?}");
}

/// The story: the state of a migration, and the connection string of another
/// server that has a migration under the same names: that one's went.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_dropped_on_another_server_or_in_another_database_than_the_migrations() {
    let pair = caught_up().await;
    // Not from the template, whose clusters all have one system identifier.
    let other = Cluster::builder(&server()).start().unwrap();
    other
        .psql(SUPERUSER, "postgres", &format!("CREATE ROLE {APP} LOGIN SUPERUSER REPLICATION PASSWORD '{PASSWORD}'"))
        .unwrap();
    let (here, there) = (pair.source.uri(APP, PASSWORD, "other"), other.uri(APP, PASSWORD, DATABASE));
    pair.source.psql(SUPERUSER, "postgres", "CREATE DATABASE other").unwrap();
    other.psql(SUPERUSER, "postgres", &format!("CREATE DATABASE {DATABASE}")).unwrap();
    let made =
        "SELECT pg_create_logical_replication_slot('walferry', 'pgoutput'); CREATE PUBLICATION walferry FOR ALL TABLES";
    for sql in made.split("; ") {
        other.psql(SUPERUSER, DATABASE, sql).unwrap();
    }
    for (uri, what) in [(&here, "the database was shop, is other"), (&there, "the system identifier was")] {
        let refused = Walferry::spawn(command(uri, &pair.target_uri(), &["cleanup", "--yes"])).wait(PATIENCE).code(2);
        assert!(refused.stderr.contains(what) && refused.stderr.contains("--state-only"), "{}", refused.stderr);
    }
    let count = "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)";
    assert_eq!(other.psql(SUPERUSER, DATABASE, count).unwrap(), "2\n");
    assert_eq!(named(&pair).await, (1, 1));
    assert!(has_state(&pair).await);
    Walferry::run(&pair, &["cleanup", "--yes"], PATIENCE).code(0);
    assert_eq!(traces(&pair).await, [""; 0]);
}

/// The story: `cleanup --yes` dropped the only place that knew the SQL of the
/// keys that were held back, and did not show it; and a source that was gone
/// had the operator drop the schema by hand.
#[tokio::test(flavor = "multi_thread")]
async fn the_state_goes_without_a_source_when_asked_and_what_it_held_back_is_printed_first() {
    for json in some_of([false, true]) {
        let mut pair = caught_up().await;
        let lacks = "SELECT count(*) FROM pg_constraint WHERE conname = 'orders_customer_fkey'";
        let target = pair.target_client().await;
        pair.source.stop().unwrap();
        let refused = Walferry::run(&pair, &["cleanup", "--yes"], PATIENCE).code(6);
        assert!(refused.stderr.contains("cleanup --state-only"), "{}", refused.stderr);
        let refused = Walferry::run(&pair, &["cleanup", "--state-only"], PATIENCE).code(2);
        assert!(refused.stderr.contains("2 objects are still held back"), "{}", refused.stderr);
        assert!(has_state(&pair).await);
        let arguments: &[&str] = &["cleanup", "--yes", "--state-only", "--json"];
        let cleaned = Walferry::run(&pair, &arguments[..3 + usize::from(json)], PATIENCE).code(0);
        assert!(!has_state(&pair).await);
        assert_eq!(target.query_one(lacks, &[]).await.unwrap().get::<_, i64>(0), 0);
        let (shown, sql) = if json {
            let sql = cleaned.json()["held_back"][0]["sql"].as_str().unwrap().to_owned();
            (&cleaned.stderr, sql)
        } else {
            let lines = cleaned.stdout.lines().skip_while(|line| !line.starts_with("ALTER TABLE"));
            let sql = lines.take_while(|line| !line.starts_with("dropped ")).collect::<Vec<_>>().join("\n");
            (&cleaned.stdout, sql)
        };
        assert!(shown.contains("FOREIGN KEY (customer)"), "{shown}");
        assert!(cleaned.stdout.contains("pg_drop_replication_slot('walferry')"), "{}", cleaned.stdout);
        target.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
        assert_eq!(target.query_one(lacks, &[]).await.unwrap().get::<_, i64>(0), 1);
    }
}

/// The story: without the state nothing tells whose a slot is, and `--yes`
/// dropped whatever had the name.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_state_nothing_is_dropped_by_its_name() {
    let pair = Pair::builder().start().await;
    let source = source_admin(&pair).await;
    source.batch_execute("SELECT pg_create_logical_replication_slot('walferry', 'pgoutput')").await.unwrap();
    source.batch_execute("CREATE PUBLICATION walferry FOR ALL TABLES").await.unwrap();
    let refused = Walferry::run(&pair, &["cleanup", "--yes"], PATIENCE).code(2);
    assert_eq!(named(&pair).await, (1, 1));
    assert!(
        refused.stderr.contains("walferry cleanup --state-only removes what is on the target"),
        "{}",
        refused.stderr
    );
    Walferry::run(&pair, &["cleanup", "--state-only"], PATIENCE).code(0);
    assert_eq!(named(&pair).await, (1, 1), "it leaves the source alone");
    for sql in ["SELECT pg_catalog.pg_drop_replication_slot('walferry');", "DROP PUBLICATION \"walferry\";"] {
        assert!(refused.stderr.contains(sql), "{}", refused.stderr);
        source.batch_execute(sql).await.unwrap();
    }
    Walferry::run(&pair, &["cleanup"], PATIENCE).code(0);
    assert_eq!(traces(&pair).await, [""; 0]);
}

/// The story: the schema was dropped with all that was in it or depended on it, a
/// table of the user's and a view of the administrator's among it, with exit 0.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_have_put_into_the_schema_or_made_of_the_state_stays_and_is_named() {
    let pair = caught_up().await;
    let target = pair.target_client().await;
    let theirs = "CREATE TABLE walferry.mine (id int PRIMARY KEY); INSERT INTO walferry.mine VALUES (1);
        CREATE FUNCTION walferry.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE TYPE walferry.kind AS ENUM ('a');
        CREATE SEQUENCE walferry.numbers; CREATE VIEW walferry.inside AS SELECT 1 AS n;
        CREATE VIEW public.progress AS SELECT name, rows FROM walferry.tables;
        CREATE MATERIALIZED VIEW public.seen AS SELECT * FROM public.progress;
        CREATE TABLE public.notes (migration text REFERENCES walferry.migration, line walferry.journal);
        CREATE FUNCTION public.first(walferry.tables) RETURNS text LANGUAGE sql AS 'SELECT $1.name'";
    target.batch_execute(theirs).await.unwrap();
    let is_there = "SELECT (SELECT count(*) FROM walferry.mine) + (SELECT count(*) FROM public.progress) + \
        (SELECT count(*) FROM public.seen) + (SELECT count(*) FROM public.notes)";
    let cleaned = Walferry::run(&pair, &["cleanup", "--yes"], PATIENCE).code(0);
    assert_eq!(named(&pair).await, (0, 0), "{}", cleaned.stdout);
    let rows: i64 = target.query_one(is_there, &[]).await.unwrap().get(0);
    assert_eq!(rows, 3, "theirs is as it was, a row and two that were materialized; the state itself is empty");
    // What is named goes by what is said, and then the schema does.
    let again = Walferry::run(&pair, &["cleanup"], PATIENCE).code(0);
    let kept = kept(&again);
    for name in ["mine", "f(integer)", "kind", "numbers", "inside", "progress", "notes", "first("] {
        assert!(kept.iter().any(|line| line.contains(name)), "{name}: {kept:?}");
    }
    assert!(
        kept.iter().any(|line| line.ends_with("run walferry cleanup --state-only when all these are gone")),
        "{kept:?}"
    );
    let statements: Vec<&str> =
        kept.iter().filter_map(|line| line.split_once("if nobody needs it: ")).map(|(_, sql)| sql).collect();
    for sql in statements {
        target.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    }
    let gone = Walferry::run(&pair, &["cleanup", "--state-only"], PATIENCE).code(0);
    assert!(gone.stdout.contains("dropped the schema walferry"), "{}", gone.stdout);
    assert!(!has_state(&pair).await);
}

/// A state that stays for others' sake is as good as new for the next migration.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_stays_takes_the_next_migration() {
    let pair = caught_up().await;
    let target = pair.target_client().await;
    target.batch_execute("CREATE TABLE walferry.mine (id int PRIMARY KEY)").await.unwrap();
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    Walferry::run(&pair, &["cleanup"], PATIENCE).code(0);
    target.batch_execute("DROP TABLE public.orders, public.customer").await.unwrap();
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
    target.batch_execute("DROP TABLE walferry.mine").await.unwrap();
    Walferry::run(&pair, &["cleanup"], PATIENCE).code(0);
    assert!(!has_state(&pair).await);
}

/// The story: what had been taken away after an end that failed was printed behind its
/// validation and its comment, which failed on the operator.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_back_is_printed_in_an_order_in_which_it_can_be_run() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1);
         CREATE TABLE k (id int PRIMARY KEY, r int CONSTRAINT fk REFERENCES p ON DELETE CASCADE, s int CONSTRAINT fk2 REFERENCES p);
         COMMENT ON CONSTRAINT fk ON k IS 'why'; COMMENT ON CONSTRAINT fk2 ON k IS 'why not'; INSERT INTO k VALUES (1, 1, 1)",
    )
    .await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let target = pair.target_client().await;
    target.batch_execute("INSERT INTO k VALUES (9, NULL, 9)").await.unwrap();
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(7);
    target.batch_execute("DELETE FROM k WHERE id = 9").await.unwrap();
    Walferry::run(&pair, &["catchup"], PATIENCE).code(0);
    // As if the comments had failed at that end.
    let comments = "UPDATE walferry.deferred SET restored_at = NULL WHERE object LIKE 'comment %'";
    assert_eq!(target.execute(comments, &[]).await.unwrap(), 2);
    let cleaned = Walferry::run(&pair, &["cleanup", "--yes"], PATIENCE).code(0);
    let lines = cleaned.stdout.lines().skip_while(|line| !line.starts_with("ALTER TABLE"));
    let sql = lines.take_while(|line| !line.starts_with("dropped ")).collect::<Vec<_>>().join("\n");
    target.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    let keys = "SELECT string_agg(concat_ws(' ', pg_get_constraintdef(oid), convalidated, obj_description(oid, 'pg_constraint')), ', ' ORDER BY conname)
        FROM pg_constraint WHERE conname IN ('fk', 'fk2')";
    let source: String = pair.source_client().await.query_one(keys, &[]).await.unwrap().get(0);
    assert_eq!(target.query_one(keys, &[]).await.unwrap().get::<_, String>(0), source);
    pair.assert_equal().await;
}

/// The story: `catchup --name` with a typing error entered a migration of that name, for whose
/// sake `cleanup` of the right one then left the state's schema.
#[tokio::test(flavor = "multi_thread")]
async fn only_run_enters_a_migration_that_is_not_there() {
    let pair = caught_up().await;
    for command in [&["catchup"][..], &["catchup", "--finish"], &["resync", "orders"], &["add", "orders"]] {
        let refused = Walferry::run(&pair, &[command, &["--name", "typo"]].concat(), PATIENCE).code(2);
        assert!(refused.stderr.contains("there is no migration \"typo\""), "{}", refused.stderr);
    }
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
    Walferry::run(&pair, &["cleanup"], PATIENCE).code(0);
    assert_eq!(traces(&pair).await, [""; 0]);
    assert!(!has_state(&pair).await);
}
