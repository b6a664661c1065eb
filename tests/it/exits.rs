//! How a command ends: the same cause has the same exit code in every command.

use walferry::demo::cluster::SUPERUSER;

use crate::migration::{PATIENCE, traces};
use crate::support::pair::{DATABASE, Pair, SourceRole};
use crate::support::process::Walferry;

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
