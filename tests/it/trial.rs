//! `check` tries the schema on the target, finds what `run` would meet, and
//! leaves nothing there.

use walferry::demo::cluster::SUPERUSER;

use crate::migration::{PATIENCE, run_between};
use crate::support::pair::{DATABASE, Pair};
use crate::support::process::Walferry;
use crate::support::{connect, wait_until};

/// Everything that the catalogs of the target hold, by identity.
const CATALOG: &str = "SELECT pg_catalog.md5(pg_catalog.string_agg(x, ',' ORDER BY x)) FROM ( \
    SELECT 'c' || oid || relname || relfilenode FROM pg_catalog.pg_class UNION ALL SELECT 't' || oid || typname FROM pg_catalog.pg_type \
    UNION ALL SELECT 'p' || oid || proname FROM pg_catalog.pg_proc UNION ALL SELECT 'n' || oid || nspname FROM pg_catalog.pg_namespace \
    UNION ALL SELECT 'k' || oid || conname FROM pg_catalog.pg_constraint UNION ALL SELECT 'e' || oid || extname FROM pg_catalog.pg_extension \
    UNION ALL SELECT 'g' || oid || tgname FROM pg_catalog.pg_trigger) AS s (x)";

async fn catalog(pair: &Pair) -> String {
    let client = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    client.query_one(CATALOG, &[]).await.unwrap().get(0)
}

/// What an ordinary role may not create, and what needs it.
const NOT_OURS: &str = "
    CREATE SCHEMA own; CREATE FUNCTION own.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE FUNCTION own.low(text) RETURNS text LANGUAGE internal IMMUTABLE STRICT AS 'lower';
    CREATE TABLE own.uses (id int PRIMARY KEY, t text DEFAULT own.low('X')); CREATE INDEX by_low ON own.uses (own.low(t));
    CREATE VIEW own.of_uses AS SELECT own.low(t) FROM own.uses; COMMENT ON VIEW own.of_uses IS 'too';
    CREATE TYPE own.base; CREATE FUNCTION own.base_in(cstring) RETURNS own.base LANGUAGE internal IMMUTABLE STRICT AS 'textin';
    CREATE FUNCTION own.base_out(own.base) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
    CREATE TYPE own.base (INPUT = own.base_in, OUTPUT = own.base_out, LIKE = text);
    CREATE TABLE own.of_base (id int PRIMARY KEY, b own.base);
    CREATE TABLE public.fine (id int PRIMARY KEY); CREATE EVENT TRIGGER watch ON sql_drop EXECUTE FUNCTION own.watch()";

/// The story: C and internal functions, base types, leftovers of an earlier
/// attempt and the like ended the run with 7 after check had said "ready".
#[tokio::test(flavor = "multi_thread")]
async fn check_finds_all_that_the_target_refuses_and_blames_no_object_for_another() {
    let pair = Pair::builder().start().await;
    pair.source_sql(NOT_OURS).await;
    pair.source_sql("CREATE TYPE public.mood AS ENUM ('a'); CREATE FUNCTION public.left_over(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE VIEW public.old AS SELECT 1 AS one").await;
    let leftovers = "CREATE TYPE public.mood AS ENUM ('b'); CREATE FUNCTION public.left_over(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE VIEW public.old AS SELECT 2 AS two";
    pair.target_client().await.batch_execute(leftovers).await.unwrap();
    let before = catalog(&pair).await;
    let check = Walferry::run(&pair, &["check", "--json"], PATIENCE).code(3).json();
    assert_eq!(catalog(&pair).await, before, "the trial leaves nothing");
    let findings = check["findings"].as_array().unwrap();
    let problems: Vec<&str> = findings
        .iter()
        .filter(|f| f["severity"] == "problem")
        .map(|finding| finding["message"].as_str().unwrap())
        .collect();
    for words in [
        "on the target already, though the schema brings them: type public.mood, function public.left_over(integer), view public.old",
        "cannot create function own.low(text): permission denied for language internal",
        "cannot create function own.base_in(cstring): permission denied for language internal",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(words)), "no {words} in {problems:#?}");
    }
    for words in ["own.uses", "of_uses", "by_low", "own.of_base"] {
        assert!(!problems.iter().any(|problem| problem.contains(words)), "{words} is blamed in {problems:#?}");
    }
    let text = check.to_string();
    assert!(
        text.contains("LANGUAGE internal") && text.contains("DROP TYPE \\\"public\\\".\\\"mood\\\" CASCADE;"),
        "{text}"
    );
    assert!(
        findings
            .iter()
            .any(|f| f["severity"] == "warning" && f["message"].as_str().unwrap().contains("event trigger watch"))
    );
}

/// A name that somebody else is about to take on the target.
const TAKING: &str = "BEGIN; CREATE SCHEMA own";

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_killed_while_it_tries_leaves_nothing() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE TABLE public.first (id int PRIMARY KEY); CREATE SCHEMA own; CREATE TABLE own.t (id int PRIMARY KEY)",
    )
    .await;
    let before = catalog(&pair).await;
    let other = pair.target_client().await;
    other.batch_execute(TAKING).await.unwrap();
    let check = Walferry::on(&pair, &["check"]);
    let watcher = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    let waiting = async || {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walferry' AND wait_event_type = 'Lock'";
        watcher.query_one(sql, &[]).await.unwrap().get::<_, i64>(0)
    };
    wait_until("the trial waits for the name", PATIENCE, || async { waiting().await == 1 }).await;
    check.kill();
    other.batch_execute("ROLLBACK").await.unwrap();
    let gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walferry'";
    wait_until("its session is gone", PATIENCE, || async {
        watcher.query_one(gone, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    assert_eq!(catalog(&pair).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_stays_taken_ends_the_trial_in_time_and_is_said() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE SCHEMA own; CREATE TABLE own.t (id int PRIMARY KEY)").await;
    let other = pair.target_client().await;
    other.batch_execute(TAKING).await.unwrap();
    let said = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
    assert!(said.contains("cannot create schema own: canceling statement due to lock timeout"), "{said}");
    other.batch_execute("ROLLBACK").await.unwrap();
    Walferry::run(&pair, &["check"], PATIENCE).code(0);
}

/// The story: a dump in the source's encoding could not be read, and the run
/// ended with 6 after check's ✓; names were taken for other ones.
#[tokio::test(flavor = "multi_thread")]
async fn names_comments_and_defaults_of_a_latin1_database_come_along_as_utf8() {
    let pair = Pair::builder().start().await;
    let source = pair.source.socket_uri(SUPERUSER, "latin");
    pair.source
        .psql(SUPERUSER, "postgres", "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        .unwrap();
    let client = connect(&source).await;
    client
        .batch_execute("CREATE TABLE \"größe\" (id int PRIMARY KEY, t text DEFAULT 'é'); COMMENT ON TABLE \"größe\" IS 'ü'; INSERT INTO \"größe\" VALUES (1), (2)")
        .await
        .unwrap();
    let run = |command: &[&str]| run_between(&source, &pair.target_uri(), command, PATIENCE);
    run(&["check"]).code(0);
    run(&["run", "--until", "caught-up"]).code(0);
    run(&["catchup", "--finish"]).code(0);
    let target = pair.target_client().await;
    let sql = "SELECT t || obj_description('\"größe\"'::regclass) || (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = '\"größe\"'::regclass) || count(*) FROM \"größe\" GROUP BY t";
    for side in [&client, &target] {
        assert_eq!(side.query_one(sql, &[]).await.unwrap().get::<_, String>(0), "éü'é'::text2");
    }
}
