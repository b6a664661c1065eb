//! The copy is considerate, and is not cut short: a rate, limits for index
//! builds, timeouts that role and database bring, transactions in the way.

use std::time::{Duration, Instant};

use walferry::demo::cluster::SUPERUSER;
use walferry::demo::server::Server;

use crate::migration::{NAME, PATIENCE};
use crate::support::pair::{APP, DATABASE, Pair, TargetRole};
use crate::support::process::Walferry;
use crate::support::{connect, oldest_and_newest, server, wait_until};

/// Longer than any of the timeouts, shorter than the copy at its rate.
const LONG: Duration = Duration::from_secs(2);

/// Timeouts that would end every session of a migration, for a role.
fn impatient(role: &str, server: &Server) -> String {
    let mut settings =
        vec![("statement_timeout", "1s"), ("lock_timeout", "100ms"), ("idle_in_transaction_session_timeout", "1s")];
    if server.major >= 14 {
        settings.push(("idle_session_timeout", "1s"));
    }
    if server.major >= 17 {
        settings.push(("transaction_timeout", "1s"));
    }
    let of_role = settings.iter().map(|(name, value)| format!("ALTER ROLE \"{role}\" SET {name} = '{value}'; "));
    let of_both = settings
        .iter()
        .map(|(name, value)| format!("ALTER ROLE \"{role}\" IN DATABASE {DATABASE} SET {name} = '{value}'; "));
    of_role.chain(of_both).collect()
}

/// `large` takes longer than the timeouts at the slowest rate; `later`, the
/// smaller one, comes behind it.
const TABLES: &str = "
    CREATE TABLE public.large (id int PRIMARY KEY, t text);
    INSERT INTO public.large SELECT i, repeat(md5(i::text), 4) FROM generate_series(1, 24000) i;
    CREATE INDEX ON public.large (t);
    CREATE TABLE public.later (id int PRIMARY KEY);
    INSERT INTO public.later SELECT generate_series(1, 10)";

async fn no_timeout_ends_a_session(source: &Server, target: &Server) {
    let pair = Pair::builder().servers(source, target).start().await;
    pair.source_sql(TABLES).await;
    pair.source.psql(SUPERUSER, DATABASE, &impatient(APP, source)).unwrap();
    pair.target.psql(SUPERUSER, DATABASE, &impatient(TargetRole::Do.name(), target)).unwrap();
    let begun = Instant::now();
    let run = ["run", "--until", "caught-up", "--jobs", "1", "--copy-rate", "1MiB", "--part-size", "1GiB"];
    let mut daemon = Walferry::on(&pair, &run);
    // Over the socket, as somebody without timeouts.
    let admin = connect(&pair.source.socket_uri(SUPERUSER, DATABASE)).await;
    let reading = "SELECT FROM pg_stat_activity WHERE application_name = $1 AND query LIKE 'COPY%large%'";
    wait_until("the large table is being read", PATIENCE, || {
        assert!(daemon.ended().is_none(), "the daemon has ended:\n{}", daemon.stderr());
        async { !admin.query(reading, &[&NAME]).await.unwrap().is_empty() }
    })
    .await;
    admin.batch_execute("BEGIN; LOCK TABLE public.later IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let waiting = "SELECT FROM pg_locks WHERE relation = 'public.later'::regclass AND NOT granted";
    wait_until("the other table's lock is waited for", PATIENCE, || {
        assert!(daemon.ended().is_none(), "the daemon has ended:\n{}", daemon.stderr());
        async { !admin.query(waiting, &[]).await.unwrap().is_empty() }
    })
    .await;
    // Not a wait for anything: longer than the timeouts.
    tokio::time::sleep(LONG).await;
    admin.batch_execute("ROLLBACK").await.unwrap();
    let ended = daemon.wait(PATIENCE).code(0);
    assert!(!ended.stderr.contains("cut off") && !ended.stderr.contains("cut short"), "{}", ended.stderr);
    // 24,000 rows of 128 letters and a few bytes more.
    assert!(begun.elapsed() > LONG + Duration::from_secs(2), "the rate was not kept: {:?}", begun.elapsed());
    pair.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_of_role_and_database_end_no_session_of_a_slow_copy() {
    no_timeout_ends_a_session(&server(), &server()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_do_those_of_the_newest_server() {
    let (_, newest) = oldest_and_newest();
    no_timeout_ends_a_session(&newest, &newest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn index_builds_have_the_memory_and_the_workers_that_were_asked_for() {
    let pair = Pair::builder().start().await;
    pair.source_sql(TABLES).await;
    let witness = "CREATE SCHEMA witness; CREATE TABLE witness.seen (tag text, memory text, workers text); \
        CREATE FUNCTION witness.look() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN \
            INSERT INTO witness.seen VALUES (tg_tag, current_setting('maintenance_work_mem'), \
            current_setting('max_parallel_maintenance_workers')); END $$; \
        CREATE EVENT TRIGGER witness ON ddl_command_start WHEN TAG IN ('CREATE INDEX', 'ALTER TABLE') \
            EXECUTE FUNCTION witness.look()";
    pair.target.psql(SUPERUSER, DATABASE, witness).unwrap();
    let run = ["run", "--until", "caught-up", "--index-jobs", "1", "--index-memory", "40MiB", "--index-workers", "1"];
    Walferry::run(&pair, &run, PATIENCE).code(0);
    let admin = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    // The keys of both tables, and the index.
    let sql = "SELECT tag, memory, workers FROM witness.seen WHERE tag = 'CREATE INDEX' OR memory <> '64MB'";
    let seen: Vec<(String, String, String)> =
        admin.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert!(seen.len() >= 3, "{seen:?}");
    assert!(seen.iter().all(|(_, memory, workers)| memory == "40MB" && workers == "1"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_the_slot_waits_for_is_named_and_then_the_copy_goes_on() {
    let pair = Pair::builder().start().await;
    pair.source_sql(TABLES).await;
    let other = pair.source_client().await;
    let pid: i32 = other.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let begin = "SET application_name = 'forgotten'; BEGIN; INSERT INTO public.later VALUES (11)";
    other.batch_execute(begin).await.unwrap();
    let mut daemon = Walferry::on(&pair, &["run", "--until", "caught-up"]);
    let named = format!("process {pid} (user {APP}, database {DATABASE}, application forgotten, for ");
    wait_until("the transaction is named", PATIENCE, || {
        assert!(daemon.ended().is_none(), "the daemon has ended:\n{}", daemon.stderr());
        let is_named = daemon.stderr().contains(&named);
        async move { is_named }
    })
    .await;
    other.batch_execute("COMMIT").await.unwrap();
    daemon.wait(PATIENCE).code(0);
    pair.assert_equal().await;
}
