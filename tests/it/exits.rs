//! How a command ends: the same cause has the same exit code in every command.

use std::os::unix::fs::PermissionsExt;

use walferry::demo::cluster::SUPERUSER;

use crate::migration::{PATIENCE, streaming, traces};
use crate::support::pair::{APP, DATABASE, Pair, SourceRole};
use crate::support::process::{Walferry, command_for};
use crate::support::wait_until;

/// What stands in the way: its name, the SQL that brings it about and the one
/// that mends it, for the superuser of the source, and the arguments.
struct Cause<'a> {
    name: &'a str,
    made: &'a str,
    mended: &'a str,
    arguments: &'a [&'a str],
}

/// `check` and `run` refuse it with the same code.
fn refused_by_both(pair: &Pair, cause: &Cause<'_>) {
    let Cause { name, made, mended, arguments } = cause;
    pair.source.psql(SUPERUSER, DATABASE, made).unwrap();
    for command in ["check", "run"] {
        let ended = Walferry::run(pair, &[&[command], *arguments].concat(), PATIENCE);
        assert_eq!(ended.status.code(), Some(3), "{command}, {name}:\n{}\n{}", ended.stdout, ended.stderr);
    }
    pair.source.psql(SUPERUSER, DATABASE, mended).unwrap();
}

/// The story: a missing replica identity was 3 in `check` and 6 in `run`, a
/// missing pg_dump 3 and 2, and a supervisor that starts again after 6 did so
/// for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_check_finds_ends_run_with_the_same_code() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TABLE public.t (id int PRIMARY KEY); INSERT INTO public.t VALUES (1)").await;
    let empty = tempfile::tempdir().unwrap();
    let no_programs = ["--pg-bin", empty.path().to_str().unwrap()];
    let causes = [
        Cause {
            name: "another's slot",
            made: "SELECT pg_create_logical_replication_slot('walferry', 'pgoutput')",
            mended: "SELECT pg_drop_replication_slot('walferry')",
            arguments: &[],
        },
        Cause {
            name: "no replica identity",
            made: "CREATE TABLE public.keyless (a int)",
            mended: "DROP TABLE public.keyless",
            arguments: &[],
        },
        Cause {
            name: "no such publication",
            made: "",
            mended: "",
            arguments: &["--name", "other", "--publication", "nobodys"],
        },
        Cause { name: "no pg_dump", made: "", mended: "", arguments: &no_programs },
    ];
    for cause in &causes {
        refused_by_both(&pair, cause);
    }
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
}

/// The story: 3, "not ready", for a source that did not answer pg_dump in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_lost_to_pg_dump_is_one_that_cannot_be_reached() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TABLE public.t (id int PRIMARY KEY)").await;
    let programs = tempfile::tempdir().unwrap();
    let (program, folder) = (programs.path().join("pg_dump"), programs.path().to_str().unwrap());
    let words = "pg_dump: error: connection to server at \"127.0.0.1\", port 1 failed: timeout expired";
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'pg_dump (PostgreSQL) 99.1'; exit; fi\necho '{words}' >&2\nexit 1\n"
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    for command in [&["check"][..], &["run", "--retry-for", "1s"]] {
        let ended = Walferry::run(&pair, &[command, &["--pg-bin", folder]].concat(), PATIENCE).code(6);
        assert!(format!("{}{}", ended.stdout, ended.stderr).contains("timeout expired"), "{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_ends_run_as_it_ends_check() {
    let pair = Pair::builder().source_role(SourceRole::Restricted).start().await;
    pair.source.psql(SUPERUSER, DATABASE, "CREATE TABLE public.t (id int PRIMARY KEY)").unwrap();
    let causes = [
        Cause { name: "no right to publish", made: "", mended: "", arguments: &[] },
        Cause {
            name: "no right to replicate",
            made: "ALTER ROLE mig_src NOREPLICATION",
            mended: "ALTER ROLE mig_src REPLICATION",
            arguments: &[],
        },
    ];
    for cause in &causes {
        refused_by_both(&pair, cause);
    }
    let left = traces(&pair).await;
    assert!(left.iter().all(|trace| trace.starts_with("schema")), "nothing is left on the source: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_gives_no_slot_ends_run_as_it_ends_check() {
    let pair = Pair::builder().source_setting("wal_level", "replica").start().await;
    pair.source_sql("CREATE TABLE public.t (id int PRIMARY KEY)").await;
    refused_by_both(&pair, &Cause { name: "wal_level", made: "", mended: "", arguments: &[] });
}

/// The story: a panic in a task left the others waiting for it, and one in the
/// main thread ended the process with 101, which no table knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_any_thread_or_task_ends_the_process_as_a_bug_and_nothing_is_lost() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TABLE public.t (id int PRIMARY KEY); INSERT INTO public.t VALUES (1)").await;
    // The copy, the thread that decodes, the task that confirms.
    for point in ["copy-rows:1:panic", "worker:1:panic", "status:1:panic"] {
        let mut command = command_for(&pair, &["run"]);
        command.env("WALFERRY_FAILPOINT", point);
        let ended = Walferry::spawn(command).wait(PATIENCE).code(1);
        for words in
            ["walferry panicked at src/failpoint.rs", "what to do: this is a bug in walferry; nothing was lost"]
        {
            assert!(ended.stderr.contains(words), "{point}, \"{words}\":\n{}", ended.stderr);
        }
        pair.source_sql("INSERT INTO public.t SELECT max(id) + 1 FROM public.t").await;
    }
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
}

/// The story: the stream of a healthy migration ended with 6 because a session
/// that only reads figures was refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_for_figures_that_is_refused_does_not_end_the_stream() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TABLE public.t (id int PRIMARY KEY)").await;
    let mut daemon = streaming(&pair, &[]).await;
    let admin = |sql: &str| pair.source.psql(SUPERUSER, DATABASE, sql).unwrap();
    // The walsender stays; nobody else comes in again.
    admin(&format!("ALTER ROLE {APP} NOLOGIN"));
    admin(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{APP}' AND backend_type = 'client backend'"
    ));
    wait_until("the refusal is spoken of", PATIENCE, async || daemon.stderr().contains("the figures cannot be read"))
        .await;
    admin("INSERT INTO public.t SELECT generate_series(1, 100)");
    let target = pair.target_client().await;
    wait_until("the rows arrive all the same", PATIENCE, async || {
        let sql = "SELECT count(*) FROM public.t";
        target.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 100
    })
    .await;
    assert!(daemon.ended().is_none(), "it goes on");
    admin(&format!("ALTER ROLE {APP} LOGIN"));
    wait_until("the figures are back", PATIENCE, async || daemon.stderr().contains("figures can be read again")).await;
    let ended = daemon.terminate(PATIENCE).code(0);
    assert!(!ended.stderr.contains("the work was cut short"), "{}", ended.stderr);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
}
