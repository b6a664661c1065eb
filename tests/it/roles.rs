//! The profiles of roles on either side: each moves a database; what is
//! missing is named by `check` with the SQL that mends it.

use walferry::demo::cluster::SUPERUSER;

use crate::migration::{
    Load, PATIENCE, pair_with_tables, run_between, settle, streaming, traces, until_applied, until_streaming,
};
use crate::support::pair::{APP, DATABASE, PASSWORD, Pair, PairBuilder, SourceRole, TargetRole};
use crate::support::process::{Finished, Walferry, command};
use crate::support::{connect, oldest_and_newest};

/// The small journey: copy and stream under load, catch up, compare.
async fn journey(builder: PairBuilder) -> Pair {
    let pair = pair_with_tables(builder).await;
    let load = Load::start(&pair).await;
    let daemon = streaming(&pair, &[]).await;
    load.more(30).await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    settle(&pair, load).await;
    pair
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fly_like_target_role_is_enough() {
    let pair = journey(Pair::builder().target_role(TargetRole::Fly)).await;
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    Walferry::run(&pair, &["cleanup"], PATIENCE).code(0);
    assert_eq!(traces(&pair).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_role_that_may_only_replicate_and_read_is_enough_with_the_owners_publication() {
    let pair = pair_with_tables(Pair::builder().source_role(SourceRole::Restricted)).await;
    let refused = Walferry::run(&pair, &["check"], PATIENCE).code(3);
    assert!(refused.stdout.contains("CREATE PUBLICATION"), "{}", refused.stdout);
    pair.source_sql(
        "CREATE PUBLICATION prepared FOR TABLE public.account, public.item, public.log, public.counter, public.event, \
         public.audited, public.\"Tag \"\"odd\"\"\"",
    )
    .await;
    Walferry::run(&pair, &["check", "--publication", "prepared"], PATIENCE).code(0);
    let load = Load::start(&pair).await;
    let daemon = streaming(&pair, &["--publication", "prepared"]).await;
    load.more(30).await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    let (totals, events) = load.stop().await;
    assert!(totals.committed > 0 && events > 0);
    Walferry::run(&pair, &["catchup", "--finish", "--publication", "prepared"], PATIENCE).code(0);
    pair.assert_equal().await;
    Walferry::run(&pair, &["cleanup", "--publication", "prepared"], PATIENCE).code(0);
    assert_eq!(traces(&pair).await, ["publication prepared on the source"], "what the owner made stays");
}

/// Counts what fires on the target while rows are applied.
const ALARM: &str = "
    CREATE TABLE public.fired (at timestamptz DEFAULT now());
    CREATE FUNCTION public.fire() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN INSERT INTO public.fired DEFAULT VALUES; RETURN NULL; END $$;
    CREATE TRIGGER fire AFTER INSERT ON public.event FOR EACH ROW EXECUTE FUNCTION public.fire()";

#[tokio::test(flavor = "multi_thread")]
async fn a_providers_definer_function_keeps_triggers_on_the_target_quiet() {
    triggers_stay_quiet(pair_with_tables(Pair::builder().target_role(TargetRole::DoWrapped)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_was_granted_session_replication_role_uses_it() {
    let (_, newest) = oldest_and_newest();
    let pair = pair_with_tables(Pair::builder().servers(&newest, &newest)).await;
    let grant = "GRANT SET ON PARAMETER session_replication_role TO doadmin";
    pair.target.psql(SUPERUSER, "postgres", grant).unwrap();
    triggers_stay_quiet(pair).await;
}

async fn triggers_stay_quiet(pair: Pair) {
    let load = Load::start(&pair).await;
    let daemon = streaming(&pair, &[]).await;
    let target = pair.target_client().await;
    target.batch_execute(ALARM).await.unwrap();
    load.more(30).await;
    until_applied(&pair).await;
    let fired = "SELECT count(*) FROM public.fired";
    assert_eq!(target.query_one(fired, &[]).await.unwrap().get::<_, i64>(0), 0);
    target
        .batch_execute("INSERT INTO public.event VALUES (0, 'by hand'); DELETE FROM public.event WHERE n = 0")
        .await
        .unwrap();
    assert_eq!(target.query_one(fired, &[]).await.unwrap().get::<_, i64>(0), 1, "it fires for others");
    daemon.terminate(PATIENCE).code(0);
    target.batch_execute("DROP TABLE public.fired CASCADE; DROP FUNCTION public.fire() CASCADE").await.unwrap();
    settle(&pair, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superuser_target_over_its_socket_is_fine_as_well() {
    let pair = pair_with_tables(Pair::builder()).await;
    let target = pair.target.socket_uri(SUPERUSER, DATABASE);
    let load = Load::start(&pair).await;
    let daemon = Walferry::spawn(command(&pair.source_uri(), &target, &["run"]));
    let daemon = until_streaming(&pair, daemon).await;
    load.more(30).await;
    daemon.terminate(PATIENCE).code(0);
    let (totals, events) = load.stop().await;
    assert!(totals.committed > 0 && events > 0);
    run_between(&pair.source_uri(), &target, &["catchup", "--finish"], PATIENCE).code(0);
    crate::support::assert_equal(&pair.source_uri(), &target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_what_is_missing_with_sql_that_mends_it_and_creates_nothing() {
    let mut pair = pair_with_tables(Pair::builder().source_setting("wal_level", "replica")).await;
    pair.source_sql(
        "CREATE TABLE public.keyless (a int); CREATE ROLE reader LOGIN PASSWORD 'secret-word'; \
         GRANT pg_read_all_data TO reader",
    )
    .await;
    let reader = pair.source.uri("reader", "secret-word", DATABASE);
    let said = run_between(&reader, &pair.target_uri(), &["check"], PATIENCE).code(3).stdout;
    for sql in [
        "ALTER SYSTEM SET wal_level = 'logical';",
        "ALTER ROLE \"reader\" REPLICATION;",
        "ALTER TABLE \"public\".\"keyless\" REPLICA IDENTITY FULL;",
    ] {
        assert!(said.contains(sql), "no {sql} in:\n{said}");
    }
    let run = run_between(&reader, &pair.target_uri(), &["run"], PATIENCE);
    assert_ne!(run.status.code(), Some(0), "run does not begin either: {}", run.stderr);
    for said in [&said, &run.stderr] {
        assert!(!said.contains("secret-word"), "{said}");
    }

    // As walferry says it: the SQL of the document, on the side it names.
    let arguments = ["check", "--json"];
    let document = run_between(&reader, &pair.target_uri(), &arguments, PATIENCE).code(3).json();
    let findings = document["findings"].as_array().unwrap().clone();
    let owner = connect(&pair.source.uri(APP, PASSWORD, DATABASE)).await;
    for finding in findings.iter().filter(|finding| finding["severity"] == "problem") {
        assert_eq!(finding["where"], "source", "{finding}");
        for sql in finding["sql"].as_array().unwrap_or(&Vec::new()) {
            owner.batch_execute(sql.as_str().unwrap()).await.unwrap();
        }
    }
    drop(owner);
    pair.source.restart().unwrap();
    let uri = pair.source.uri("reader", "secret-word", DATABASE);
    let said = run_between(&uri, &pair.target_uri(), &["check"], PATIENCE);
    assert_eq!(said.status.code(), Some(0), "{}", said.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_check_nor_a_run_that_cannot_begin_leaves_a_trace() {
    let pair = pair_with_tables(Pair::builder().source_setting("wal_level", "replica")).await;
    pair.source_sql("CREATE TABLE public.keyless (a int)").await;
    Walferry::run(&pair, &["check"], PATIENCE).code(3);
    assert_eq!(traces(&pair).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_cannot_be_reached_is_named_with_its_code_and_without_its_password() {
    let pair = Pair::builder().start().await;
    let (source, target) = (pair.source_uri(), pair.target_uri());
    let port = |uri: &str, port: u16| {
        uri.replacen(&format!(":{}/", uri.rsplit([':', '/']).nth(1).unwrap()), &format!(":{port}/"), 1)
    };
    let refused = crate::support::process::free_port();
    let broken = |uri: &str| {
        [
            (uri.replacen(":x@", ":not-this-one@", 1), "password"),
            (
                uri.replacen("127.0.0.1", "no-such-host.invalid", 1).replacen(":x@", ":not-this-one@", 1),
                "no-such-host.invalid",
            ),
            (format!("{uri}2").replacen(":x@", ":x@", 1), "shop2"),
            (port(uri, refused), "refused"),
        ]
    };
    for (side, code, uri) in [("source", 6, &source), ("target", 7, &target)] {
        for (bad, words) in broken(uri) {
            let (source, target) = if side == "source" { (&bad, &target) } else { (&source, &bad) };
            for arguments in [&["run"][..], &["catchup"]] {
                let Finished { stderr, stdout, .. } = run_between(source, target, arguments, PATIENCE).code(code);
                assert!(stderr.contains(words) && stderr.contains(side), "{side} {words}: {stderr}");
                assert!(!stderr.contains("not-this-one") && stdout.is_empty(), "{stderr}{stdout}");
            }
            let check = run_between(source, target, &["check"], PATIENCE).code(code);
            assert!(check.stdout.contains(words) && !check.stdout.contains("not-this-one"), "{}", check.stdout);
        }
    }
    assert_eq!(traces(&pair).await.iter().filter(|trace| !trace.starts_with("schema")).count(), 0);
}

/// The story: a role whose transactions are serializable by default fails now
/// and then where READ COMMITTED waits and looks again.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_written_under_read_committed_whatever_the_role_has_by_default() {
    let pair = Pair::builder().start().await;
    for (cluster, role) in [(&pair.source, APP), (&pair.target, "doadmin")] {
        let sql = format!("ALTER ROLE {role} SET default_transaction_isolation = 'serializable'");
        cluster.psql(SUPERUSER, "postgres", &sql).unwrap();
    }
    pair.source_sql("CREATE TABLE public.t (id int PRIMARY KEY); INSERT INTO public.t VALUES (1)").await;
    let seen = "CREATE TABLE public.t (id int PRIMARY KEY, seen text DEFAULT current_setting('transaction_isolation'))";
    let target = pair.target_client().await;
    target.batch_execute(seen).await.unwrap();
    let daemon = streaming(&pair, &["--schema", "existing"]).await;
    pair.source_sql("INSERT INTO public.t VALUES (2)").await;
    pair.source_sql("INSERT INTO public.t SELECT generate_series(3, 1000)").await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish", "--schema", "existing"], PATIENCE).code(0);
    let row = target.query_one("SELECT count(*), min(seen), max(seen) FROM public.t", &[]).await.unwrap();
    let found = (row.get::<_, i64>(0), row.get::<_, &str>(1), row.get::<_, &str>(2));
    assert_eq!(found, (1000, "read committed", "read committed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_whose_transactions_are_read_only_is_told_so() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TABLE public.t (id int PRIMARY KEY)").await;
    let daemon = streaming(&pair, &[]).await;
    daemon.terminate(PATIENCE).code(0);
    let read_only = "ALTER ROLE doadmin SET default_transaction_read_only =";
    pair.target.psql(SUPERUSER, "postgres", &format!("{read_only} on")).unwrap();
    pair.source_sql("INSERT INTO public.t VALUES (1)").await;
    let refused = Walferry::run(&pair, &["catchup"], PATIENCE).code(7);
    for words in ["SQLSTATE 25006", "default_transaction_read_only = off"] {
        assert!(refused.stderr.contains(words), "no \"{words}\" in:\n{}", refused.stderr);
    }
    pair.target.psql(SUPERUSER, "postgres", &format!("{read_only} off")).unwrap();
    Walferry::run(&pair, &["catchup"], PATIENCE).code(0);
    pair.assert_equal().await;
}

/// The story: the SQL that was printed where transactions are read-only failed, as its own
/// transaction was.
#[tokio::test(flavor = "multi_thread")]
async fn what_lets_a_role_write_again_can_be_run_where_it_is_read() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TABLE public.t (id int PRIMARY KEY); INSERT INTO public.t VALUES (1)").await;
    let read_only = format!("ALTER DATABASE {DATABASE} SET default_transaction_read_only = on");
    pair.target.psql(SUPERUSER, "postgres", &read_only).unwrap();
    let said = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
    let target = pair.target_client().await;
    let lines = said.lines().map(str::trim).filter(|line| line.contains("default_transaction_read_only = off;"));
    for sql in lines {
        target.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    }
    Walferry::run(&pair, &["check"], PATIENCE).code(0);
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    pair.assert_equal().await;
}
