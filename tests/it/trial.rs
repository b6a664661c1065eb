//! `check` tries the schema on the target, finds what `run` would meet, and
//! leaves nothing there.

use walferry::demo::cluster::SUPERUSER;

use crate::migration::{PATIENCE, run_between, traces};
use crate::support::pair::{DATABASE, Pair};
use crate::support::process::{Walferry, command_for};
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
    CREATE TABLE public.fine (id int PRIMARY KEY, t text DEFAULT own.low('X'), b own.base); CREATE EVENT TRIGGER watch ON sql_drop EXECUTE FUNCTION own.watch()";

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
    // What an excluded schema has besides tables comes, as a table does that needs it.
    let excluded = Walferry::run(&pair, &["check", "--json", "--exclude-schemas", "own"], PATIENCE).code(3).json();
    let check = Walferry::run(&pair, &["check", "--json"], PATIENCE).code(3).json();
    assert_eq!(catalog(&pair).await, before, "the trial leaves nothing");
    for check in [&excluded, &check] {
        let findings = check["findings"].as_array().unwrap().iter();
        let problems: Vec<&str> = findings
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
        for words in ["own.uses", "of_uses", "by_low", "own.of_base", "public.fine"] {
            assert!(!problems.iter().any(|problem| problem.contains(words)), "{words} is blamed in {problems:#?}");
        }
        assert!(check.to_string().contains("LANGUAGE internal"), "{check:#}");
    }
    let (findings, text) = (check["findings"].as_array().unwrap(), check.to_string());
    assert!(text.contains("ALTER TYPE public.mood RENAME TO mood_elsewhere; -- or, if it is not needed: DROP TYPE IF EXISTS public.mood;"), "{text}");
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

/// What stands in the way, by its kind, each under the name of a table, an index
/// or a routine of the source; most have rows, or are needed by something that has.
const TAKEN: &str = "
    CREATE VIEW public.t1 AS SELECT 1 AS a; CREATE MATERIALIZED VIEW public.t2 AS SELECT 1 AS a; CREATE SEQUENCE public.t3;
    CREATE TYPE public.t4 AS (a int); CREATE TYPE public.t5 AS ENUM ('a'); CREATE DOMAIN public.t6 AS int;
    CREATE TABLE public.other (id int CONSTRAINT t7 PRIMARY KEY, b int, c public.t4, d public.t5, e public.t6); CREATE INDEX t8 ON public.other (b);
    INSERT INTO public.other VALUES (1, 2, ROW(3), 'a', 4); CREATE VIEW public.seen AS SELECT a FROM public.t1;
    CREATE TABLE public.t9 (a int GENERATED ALWAYS AS IDENTITY) PARTITION BY RANGE (a); CREATE TABLE public.\"T 10\" (a serial PRIMARY KEY);
    CREATE TABLE public.part PARTITION OF public.t9 FOR VALUES FROM (0) TO (10); INSERT INTO public.t9 VALUES (DEFAULT);
    CREATE TABLE public.heir () INHERITS (public.\"T 10\"); INSERT INTO public.heir VALUES (1); CREATE TABLE public.t9_elsewhere (a int);
    CREATE TABLE public.numbered (a int GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME public.t11), b serial); INSERT INTO public.numbered VALUES (DEFAULT);
    ALTER SEQUENCE public.numbered_b_seq RENAME TO t12;
    CREATE TABLE public.lxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx1 (a int); CREATE TABLE public.lxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx2 (a int); CREATE TABLE public.äääääääääääääääääääääääääääääää (a int);
    CREATE VIEW public.k1 AS SELECT 1 AS a; CREATE TABLE public.k2 (a int); CREATE TYPE public.e AS (a int);
    CREATE FUNCTION public.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE PROCEDURE public.g(text) LANGUAGE sql AS 'SELECT 1';
    CREATE AGGREGATE public.h(int) (SFUNC = int4pl, STYPE = int)";

/// What the source has of these names.
const WANTED: &str = "
    CREATE TABLE public.t1 (id int PRIMARY KEY); CREATE TABLE public.t2 (id int PRIMARY KEY); CREATE TABLE public.t3 (id int PRIMARY KEY);
    CREATE TABLE public.t4 (id int PRIMARY KEY); CREATE TABLE public.t5 (id int PRIMARY KEY); CREATE VIEW public.t6 AS SELECT 1 AS a;
    CREATE TABLE public.t7 (id int PRIMARY KEY); CREATE TABLE public.t8 (id int PRIMARY KEY); CREATE TABLE public.t9 (id int PRIMARY KEY);
    CREATE TABLE public.\"T 10\" (a serial PRIMARY KEY); CREATE TYPE public.e AS ENUM ('a');
    CREATE TABLE public.t11 (id int PRIMARY KEY); CREATE TABLE public.t12 (id int PRIMARY KEY);
    CREATE TABLE public.lxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx1 (id int CONSTRAINT l1 PRIMARY KEY); CREATE TABLE public.lxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx2 (id int CONSTRAINT l2 PRIMARY KEY); CREATE TABLE public.äääääääääääääääääääääääääääääää (id int CONSTRAINT l3 PRIMARY KEY);
    CREATE TABLE public.keyed (id int CONSTRAINT k1 PRIMARY KEY, b int); CREATE INDEX k2 ON public.keyed (b); INSERT INTO keyed VALUES (1, 2);
    CREATE FUNCTION public.f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION public.g(text) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION public.h(int) RETURNS int LANGUAGE sql AS 'SELECT 1'";

/// What stood in the way goes, so that both sides can be compared.
const AWAY: &str = "DROP VIEW public.seen; DROP TABLE public.heir, public.part, public.numbered, public.other;
    DO $$ DECLARE c record; BEGIN FOR c IN SELECT relname, relkind FROM pg_class WHERE relname LIKE '%elsewhere%' AND relkind NOT IN ('c', 'i') LOOP
      EXECUTE format('DROP %s IF EXISTS public.%I CASCADE', CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW'
        WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.relname); END LOOP; END $$";

/// The story: the name of a key was taken on the target: check found it, the run
/// ended with 7 after the rows and advised to mend them; and of a view or a type
/// of a table's name check said DROP TABLE. Then it was DROP … CASCADE, which took
/// partitions with their rows along, columns of other tables and their defaults.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_a_name_on_the_target_is_refused_by_both_and_renamed_without_a_loss_by_what_they_print() {
    let pair = Pair::builder().start().await;
    pair.source_sql(WANTED).await;
    let target = pair.target_client().await;
    target.batch_execute(TAKEN).await.unwrap();
    let check = Walferry::run(&pair, &["check", "--json"], PATIENCE).code(3).json();
    let run = Walferry::run(&pair, &["run"], PATIENCE).code(3).stderr;
    assert_eq!(traces(&pair).await, [""; 0], "{run}");
    let findings = check["findings"].as_array().unwrap();
    let problems: Vec<_> = findings.iter().filter(|finding| finding["severity"] == "problem").collect();
    assert!(problems.iter().all(|problem| problem["check"] == "exists"), "{problems:#?}");
    for sql in problems.iter().flat_map(|problem| problem["sql"].as_array().unwrap()) {
        let sql = sql.as_str().unwrap();
        assert!(sql.starts_with("ALTER ") && sql.contains(" RENAME TO ") && !sql.contains("CASCADE"), "{sql}");
        assert!(run.contains(sql), "no {sql} in:\n{run}");
        target.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    }
    Walferry::run(&pair, &["check"], PATIENCE).code(0);
    let rows = "SELECT concat_ws(' ', o, (SELECT count(*) FROM part), (SELECT count(*) FROM heir), (SELECT count(*) FROM seen),
        (SELECT concat_ws('.', a, b) FROM numbered)) FROM other o";
    let kept: String = target.query_one(rows, &[]).await.unwrap().get(0);
    assert_eq!(kept, r#"(1,2,"(3)",a,4) 1 1 1 1.1"#);
    target.batch_execute("INSERT INTO public.numbered VALUES (DEFAULT)").await.unwrap();
    target.batch_execute(AWAY).await.unwrap();
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
}

/// `run`, cut off where the failpoint is.
fn cut_off(pair: &Pair, point: &str) {
    let mut command = command_for(pair, &["run"]);
    command.env("WALFERRY_FAILPOINT", format!("{point}:1:panic"));
    Walferry::spawn(command).wait(PATIENCE).code(1);
}

/// The story: after a run that was refused or cut off, check said "ready" of what
/// the next run met, as the migration had begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_has_begun_is_tried_until_its_schema_is_there_and_its_names_are_looked_at_until_its_rows_are()
{
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE TABLE public.t (id int CONSTRAINT the_key PRIMARY KEY); INSERT INTO public.t VALUES (1), (2)",
    )
    .await;
    let target = pair.target_client().await;
    // Publication and slot are there; then there is the schema as well.
    for point in ["copy-slot", "copy-rows"] {
        cut_off(&pair, point);
        target.batch_execute("CREATE VIEW public.the_key AS SELECT 1 AS a").await.unwrap();
        let check = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
        let run = Walferry::run(&pair, &["run"], PATIENCE).code(3).stderr;
        for said in [check, run] {
            assert!(
                said.contains("ALTER VIEW IF EXISTS public.the_key RENAME TO the_key_elsewhere;"),
                "{point}:\n{said}"
            );
        }
        target.batch_execute("DROP VIEW public.the_key").await.unwrap();
        Walferry::run(&pair, &["check"], PATIENCE).code(0);
    }
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
    let ended = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
    assert!(ended.contains("has ended"), "{ended}");
}

/// Who takes part in a migration that has begun is what its state says.
#[tokio::test(flavor = "multi_thread")]
async fn check_of_a_migration_that_has_begun_goes_by_its_tables_whatever_their_names_are() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TABLE public.t (id int PRIMARY KEY); CREATE TABLE public.out (id int PRIMARY KEY)").await;
    let filter = |command: &[&str]| Walferry::run(&pair, &[command, &["--tables", "public.t"]].concat(), PATIENCE);
    filter(&["run", "--until", "caught-up"]).code(0);
    pair.source_sql("ALTER TABLE public.t RENAME TO u; CREATE TABLE public.keyless (a int)").await;
    let check = filter(&["check"]).code(0).stdout;
    assert!(check.contains("all tables that take part"), "{check}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_is_stopped_while_it_tries_ends_well_and_leaves_nothing() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE SCHEMA own; CREATE TABLE own.t (id int PRIMARY KEY)").await;
    let before = catalog(&pair).await;
    let other = pair.target_client().await;
    other.batch_execute(TAKING).await.unwrap();
    let run = Walferry::on(&pair, &["run"]);
    let watcher = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walferry' AND wait_event_type = 'Lock'";
    wait_until("the trial waits for the name", PATIENCE, || async {
        watcher.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let ended = run.terminate(PATIENCE).code(0);
    assert!(ended.stderr.contains("trying the schema on the target"), "{}", ended.stderr);
    other.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(catalog(&pair).await, before);
    assert_eq!(traces(&pair).await, [""; 0]);
}

/// The story: a check of twenty thousand tables took a minute and a half.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_tables_that_are_alike_one_is_tried_and_a_name_that_is_taken_found_all_the_same() {
    let builder = Pair::builder().source_setting("max_locks_per_transaction", "256");
    let pair = builder.target_setting("max_locks_per_transaction", "256").start().await;
    let many = |schema: &str, count| {
        format!(
            "DO $$ BEGIN FOR i IN 1..{count} LOOP EXECUTE pg_catalog.format('CREATE TABLE {schema}.%I (id serial PRIMARY KEY, \
             n {schema}.amount, v text DEFAULT ''x'')', CASE WHEN i % 2 = 0 THEN 't' ELSE 'T ' END || i); END LOOP; END $$"
        )
    };
    for (schema, count) in [("public", 600), ("a", 300), ("b", 300)] {
        let create = format!("CREATE SCHEMA IF NOT EXISTS {schema}; CREATE DOMAIN {schema}.amount AS int");
        pair.source_sql(&format!("{create}; {}", many(schema, count))).await;
    }
    // Something needs one of them, and one is another.
    pair.source_sql("CREATE VIEW public.seen AS SELECT id FROM public.t8; ALTER TABLE public.t6 ADD extra uuid").await;
    let target = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    let before = catalog(&pair).await;
    let check = || Walferry::run(&pair, &["check"], PATIENCE);
    let said = check().code(0).stdout;
    // Two in public and one for both schemas, the two that are not alike, and a dozen others.
    let (tried, of) = said.split_once("as it was tried: ").unwrap().1.split_once(" of ").unwrap();
    assert!(tried.parse::<u32>().unwrap() < 40 && of.contains("more are as some of these"), "{tried} of {of}");
    assert_eq!(catalog(&pair).await, before, "the trial leaves nothing");
    let refusals = [
        ("CREATE TYPE public.t590 AS ENUM ()", "public.t590", "DROP TYPE public.t590"),
        ("CREATE SEQUENCE public.\"T 431_id_seq\"", "public.T 431_id_seq", "DROP SEQUENCE public.\"T 431_id_seq\""),
        (
            "CREATE FUNCTION public.looks() RETURNS event_trigger LANGUAGE plpgsql AS $$DECLARE c record; BEGIN \
             FOR c IN SELECT * FROM pg_event_trigger_ddl_commands() LOOP \
             IF c.object_identity = 'a.t222' THEN RAISE EXCEPTION 'not this one'; END IF; END LOOP; END$$; \
             CREATE EVENT TRIGGER looks ON ddl_command_end EXECUTE FUNCTION public.looks()",
            "cannot create table a.t222: not this one",
            "DROP FUNCTION public.looks() CASCADE",
        ),
    ];
    for (make, words, take_back) in refusals {
        target.batch_execute(make).await.unwrap();
        let said = check().code(3).stdout;
        assert!(said.contains(words), "no {words} in:\n{said}");
        target.batch_execute(take_back).await.unwrap();
    }
}

/// The story: a role that becomes another one in this database was to be granted what that one
/// lacked, and `check` ended with 3 for ever.
#[tokio::test(flavor = "multi_thread")]
async fn rights_are_asked_for_the_role_that_the_session_has() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TABLE public.t (id int PRIMARY KEY); INSERT INTO public.t VALUES (1)").await;
    let admin = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    let other = format!(
        "CREATE ROLE becomes; GRANT becomes TO doadmin; GRANT CREATE ON DATABASE {DATABASE} TO becomes; \
         ALTER SCHEMA public OWNER TO {SUPERUSER}; REVOKE ALL ON SCHEMA public FROM public, doadmin; \
         ALTER ROLE doadmin IN DATABASE {DATABASE} SET role = becomes"
    );
    admin.batch_execute(&other).await.unwrap();
    let said = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
    let grants: Vec<&str> = said.lines().map(str::trim).filter(|line| line.starts_with("GRANT ")).collect();
    assert_eq!(grants, ["GRANT USAGE, CREATE ON SCHEMA \"public\" TO \"becomes\";"], "{said}");
    admin.batch_execute(grants[0]).await.unwrap();
    Walferry::run(&pair, &["check"], PATIENCE).code(0);
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
}

/// The story: the administrator made it as printed, and `check` asked for it ever after.
#[tokio::test]
async fn a_type_of_which_there_is_but_a_name_counts_once_an_administrator_has_made_it() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TYPE \"My b\"; CREATE TABLE t (id int PRIMARY KEY)").await;
    let named = Walferry::run(&pair, &["check"], PATIENCE).code(0).stdout;
    let sql = "CREATE TYPE public.\"My b\";";
    assert!(named.contains(sql), "{named}");
    pair.target.psql(SUPERUSER, DATABASE, sql).unwrap();
    let named = Walferry::run(&pair, &["check"], PATIENCE).code(0).stdout;
    assert!(!named.contains("My b"), "{named}");
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let ended = Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    assert!(!ended.stdout.contains("administrator"), "{}", ended.stdout);
    pair.assert_equal().await;
}
