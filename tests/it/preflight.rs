//! What `check` finds and `run` refuses on: the same, before anything is
//! created, and in a time that is bounded.

use std::time::{Duration, Instant};

use walferry::demo::cluster::SUPERUSER;

use crate::migration::{source_admin, traces};
use crate::support::connect;
use crate::support::pair::{DATABASE, Pair};
use crate::support::process::{Walferry, command_for};

/// Enough for anything that takes a moment on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

const TABLE: &str = "CREATE TABLE public.orders (id int PRIMARY KEY, note text DEFAULT 'none')";

/// The story: a table that an ALTER TABLE held exclusively kept `check` waiting
/// for as long as it was held, without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_waits_behind_a_lock_says_whose_and_goes_on() {
    let pair = Pair::builder().start().await;
    pair.source_sql(TABLE).await;
    let target = pair.target_client().await;
    target.batch_execute(TABLE).await.unwrap();
    let check = || Walferry::run(&pair, &["check", "--schema", "existing"], PATIENCE);
    check().code(0);
    // On the source nothing has to wait: no row is looked at.
    let holder = source_admin(&pair).await;
    holder.batch_execute("BEGIN; LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE").await.unwrap();
    check().code(0);
    holder.batch_execute("ROLLBACK").await.unwrap();
    for (holder, side) in [(target, "target")] {
        let pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        holder.batch_execute("BEGIN; LOCK TABLE public.orders IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let begun = Instant::now();
        let said = check().code(3).stdout;
        assert!(begun.elapsed() < PATIENCE / 2, "{side}: {:?}", begun.elapsed());
        for words in ["behind a lock on public.orders", &format!("process {pid} (user "), "BEGIN"] {
            assert!(said.contains(words), "{side}: no {words} in:\n{said}");
        }
        for words in ["wal_level is logical", "may read all 0 sequences", "the target can be written to"] {
            assert!(said.contains(words), "{side}: no {words} in:\n{said}");
        }
        holder.batch_execute("ROLLBACK").await.unwrap();
        check().code(0);
    }
}

/// The story: the two connection strings were exchanged, `check` said "ready",
/// and `run` moved nothing and said that all was well.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_tables_beside_a_target_that_has_some_is_asked_about() {
    let pair = Pair::builder().start().await;
    pair.target_client().await.batch_execute(TABLE).await.unwrap();
    let said = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
    assert!(said.contains("are the two swapped?"), "{said}");
    let refused = Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(3).stderr;
    assert!(refused.contains("are the two swapped?"), "{refused}");
    assert_eq!(traces(&pair).await, [""; 0]);
    // Told so, and with tables on the source, it is no question.
    let check = Walferry::run(&pair, &["check", "--schema", "none"], PATIENCE).code(0).stdout;
    assert!(check.contains("foreign keys and triggers stay in force"), "{check}");
    pair.source_sql(TABLE).await;
    Walferry::run(&pair, &["check", "--schema", "existing"], PATIENCE).code(0);
}

/// The story: `check` said that the slot was there to go on with, and `run`
/// ended with 4.
#[tokio::test(flavor = "multi_thread")]
async fn check_compares_slot_and_source_with_the_state_as_run_does() {
    let pair = Pair::builder().start().await;
    pair.source_sql(TABLE).await;
    let until = ["run", "--until", "caught-up"];
    Walferry::run(&pair, &until, PATIENCE).code(0);
    let target = pair.target_client().await;
    let agree = async |words: &str| {
        let check = Walferry::run(&pair, &["check"], PATIENCE).code(4).stdout;
        assert!(check.contains(words), "no {words} in:\n{check}");
        let run = Walferry::run(&pair, &until, PATIENCE).code(4).stderr;
        assert!(run.contains(words), "no {words} in:\n{run}");
    };
    let began = "SELECT system_identifier FROM walferry.migration";
    let began: String = target.query_one(began, &[]).await.unwrap().get(0);
    for (column, other, words) in [
        ("system_identifier", "'1'", "the system identifier was 1, is "),
        ("timeline", "7", "the timeline was 7, is 1"),
        ("source_database", "'other'", "the database was other, is shop"),
    ] {
        target.batch_execute(&format!("UPDATE walferry.migration SET {column} = {other}")).await.unwrap();
        agree(words).await;
        let back = format!(
            "UPDATE walferry.migration SET system_identifier = '{began}', timeline = 1, source_database = '{DATABASE}'"
        );
        target.batch_execute(&back).await.unwrap();
    }
    Walferry::run(&pair, &["check"], PATIENCE).code(0);
    // A slot is not moved beyond what is flushed.
    pair.source_sql("SET synchronous_commit = on; INSERT INTO public.orders VALUES (1)").await;
    pair.source_sql("SELECT pg_replication_slot_advance('walferry', pg_current_wal_lsn())").await;
    agree("something else consumed it").await;
    pair.source_sql("SELECT pg_drop_replication_slot('walferry')").await;
    agree("no longer exists").await;
}

/// The story: publication and slot were made, and then it turned out that a
/// table could not be published, or that pg_dump was not there; the slot held
/// back WAL from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_refuses_what_check_finds_and_has_created_nothing() {
    let pair = Pair::builder().source_setting("wal_level", "replica").start().await;
    pair.source_sql("CREATE TABLE public.keyless (a int)").await;
    let check = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
    let run = Walferry::run(&pair, &["run"], PATIENCE).code(3).stderr;
    for said in ["wal_level is replica, logical is needed", "ALTER TABLE \"public\".\"keyless\" REPLICA IDENTITY FULL;"]
    {
        assert!(check.contains(said), "{check}");
        assert!(run.contains(said), "{run}");
    }
    assert_eq!(traces(&pair).await, [""; 0]);
}

/// The story: `check` said "ready", as the rights were there; `run` was refused, and
/// left its schema on the target.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_event_trigger_or_a_missing_right_forbids_is_found_before_anything_is_created() {
    let pair = Pair::builder().start().await;
    pair.source_sql(TABLE).await;
    let (source, target) = (source_admin(&pair).await, connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await);
    let forbid = "CREATE FUNCTION public.forbid() RETURNS event_trigger LANGUAGE plpgsql AS \
        $$BEGIN RAISE EXCEPTION 'not before the audit'; END$$; \
        CREATE EVENT TRIGGER forbidden ON ddl_command_start WHEN TAG IN (@) EXECUTE FUNCTION public.forbid()";
    let role = pair.target_client().await.query_one("SELECT current_user::text", &[]).await.unwrap();
    let role: String = role.get(0);
    let owner = format!("ALTER DATABASE {DATABASE} OWNER TO {SUPERUSER}");
    let drop = "DROP FUNCTION public.forbid() CASCADE".to_owned();
    let grant = format!("GRANT CREATE ON DATABASE \"{DATABASE}\" TO \"{role}\";");
    let cases = [
        (
            &source,
            forbid.replace('@', "'CREATE PUBLICATION'"),
            "publication walferry cannot be created: not before the audit",
            &drop,
        ),
        (
            &target,
            forbid.replace('@', "'CREATE SCHEMA'"),
            "the schema walferry cannot be created, for the state: not before the audit",
            &drop,
        ),
        (&target, owner, &grant, &format!("ALTER DATABASE {DATABASE} OWNER TO {role}")),
    ];
    for (client, make, words, take_back) in cases {
        client.batch_execute(&make).await.unwrap();
        let check = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
        let run = Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(3).stderr;
        assert!(check.contains(words), "no {words} in:\n{check}");
        assert!(run.contains(words), "no {words} in:\n{run}");
        assert_eq!(traces(&pair).await, [""; 0]);
        client.batch_execute(take_back).await.unwrap();
    }
    Walferry::run(&pair, &["check"], PATIENCE).code(0);
    assert_eq!(traces(&pair).await, [""; 0]);
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
}

/// The story: `check` said "ready" where `run` was refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_anothers_behind_a_start_that_was_killed_and_the_state_of_a_newer_version_are_refused_by_both() {
    let pair = Pair::builder().start().await;
    pair.source_sql(TABLE).await;
    let run = ["run", "--until", "caught-up"];
    let mut killed = command_for(&pair, &run);
    killed.env("WALFERRY_FAILPOINT", "copy-slot:1");
    assert_eq!(Walferry::spawn(killed).wait(PATIENCE).status.code(), None);
    Walferry::run(&pair, &["check"], PATIENCE).code(0);
    let both_refuse = |words: &str| {
        for arguments in [&["check"][..], &run] {
            let refused = Walferry::run(&pair, arguments, PATIENCE).code(3);
            let said = format!("{}{}", refused.stdout, refused.stderr);
            assert!(said.contains(words), "no {words} in:\n{said}");
        }
    };
    pair.source_sql("SELECT pg_drop_replication_slot('walferry'), pg_create_physical_replication_slot('walferry')")
        .await;
    both_refuse("was not made for this migration (its plugin is none)");
    pair.source_sql("SELECT pg_drop_replication_slot('walferry')").await;
    Walferry::run(&pair, &["check"], PATIENCE).code(0);
    Walferry::run(&pair, &run, PATIENCE).code(0);
    let target = pair.target_client().await;
    target.batch_execute("UPDATE walferry.version SET version = version + 1").await.unwrap();
    both_refuse("use a newer walferry");
    target.batch_execute("UPDATE walferry.version SET version = version - 1").await.unwrap();
    Walferry::run(&pair, &["catchup"], PATIENCE).code(0);
    pair.assert_equal().await;
}

/// The story: tables in a schema of the name "walferry" stayed behind without a word.
#[tokio::test(flavor = "multi_thread")]
async fn tables_in_a_schema_of_the_states_name_are_named_and_what_an_own_state_has_left_there_is_not() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE SCHEMA walferry; CREATE TABLE walferry.t (id int PRIMARY KEY); INSERT INTO walferry.t VALUES (1);
         CREATE TABLE walferry.journal (id int); CREATE VIEW walferry.\"a view\" AS SELECT 1 AS a; CREATE TABLE public.u (id int PRIMARY KEY)",
    )
    .await;
    let moves =
        ["ALTER TABLE \"walferry\".\"t\" SET SCHEMA public;", "ALTER VIEW \"walferry\".\"a view\" SET SCHEMA public;"];
    let check = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
    let run = Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(3).stderr;
    for said in [&check, &run] {
        assert!(moves.iter().all(|sql| said.contains(sql)) && !said.contains("journal"), "{said}");
    }
    // Whoever wants to leave them behind says so.
    let without = ["--exclude-tables", "walferry.*"];
    Walferry::run(&pair, &[&["check"], &without[..]].concat(), PATIENCE).code(0);
    Walferry::run(&pair, &[&["run", "--until", "caught-up"], &without[..]].concat(), PATIENCE).code(0);
    Walferry::run(&pair, &["cleanup"], PATIENCE).code(0);
    pair.target_client().await.batch_execute("DROP TABLE public.u").await.unwrap();
    for sql in moves {
        pair.source_sql(sql).await;
    }
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
}

/// The story: `--tables` with the name of a view, and a migration of nothing went well.
#[tokio::test(flavor = "multi_thread")]
async fn a_selection_without_a_table_is_refused() {
    let pair = Pair::builder().start().await;
    pair.source_sql(TABLE).await;
    pair.source_sql("CREATE VIEW public.v AS SELECT 1 AS a").await;
    for selection in [["--tables", "v"], ["--exclude-tables", "*"]] {
        let check = Walferry::run(&pair, &[&["check"], &selection[..]].concat(), PATIENCE).code(3).stdout;
        let run = Walferry::run(&pair, &[&["run"], &selection[..]].concat(), PATIENCE).code(3).stderr;
        for said in [check, run] {
            assert!(said.contains("leave not a single table of the source"), "{selection:?}:\n{said}");
        }
    }
    assert_eq!(traces(&pair).await, [""; 0]);
    Walferry::run(&pair, &["check", "--tables", "orders,v"], PATIENCE).code(0);
}

/// The story: a right that was taken away on the target referred to `check`, which said that
/// all was well.
#[tokio::test(flavor = "multi_thread")]
async fn rights_that_were_taken_away_on_the_target_are_asked_for() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE SCHEMA s; CREATE TABLE s.a (id int PRIMARY KEY); CREATE TABLE s.b (id int PRIMARY KEY)")
        .await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let admin = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    let taken = "ALTER SCHEMA s OWNER TO postgres; REVOKE ALL ON SCHEMA s FROM doadmin; ALTER TABLE s.a OWNER TO postgres; REVOKE ALL ON s.a FROM doadmin";
    admin.batch_execute(taken).await.unwrap();
    pair.source_sql("INSERT INTO s.a VALUES (1); INSERT INTO s.b VALUES (2)").await;
    let refused = Walferry::run(&pair, &["catchup"], PATIENCE).code(7).stderr;
    assert!(refused.contains("walferry check"), "{refused}");
    let said = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
    let grants: Vec<&str> = said.lines().map(str::trim).filter(|line| line.starts_with("GRANT ")).collect();
    let (schema, table) = (
        "GRANT USAGE ON SCHEMA \"s\" TO \"doadmin\";",
        "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON \"s\".\"a\" TO \"doadmin\";",
    );
    assert_eq!(grants, [schema, table], "{said}");
    for sql in grants {
        admin.batch_execute(sql).await.unwrap();
    }
    Walferry::run(&pair, &["check"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup"], PATIENCE).code(0);
    pair.assert_equal().await;
}
