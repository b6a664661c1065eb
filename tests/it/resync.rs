//! Tables that are copied anew, or taken in later, beside the stream and
//! between two runs: whatever happens meanwhile, both sides are equal after it.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use tokio_postgres::Client;
use walferry::config::{ConnInfo, Env, Side};
use walferry::session::Session;
use walferry::state::State;

use crate::copy::{Churn, create_tables, through};
use crate::migration::{
    Load, NAME, PATIENCE, catch_up, compare, pair_with_tables, settle, source_admin, source_end, streaming,
    until_applied, until_streaming, usual_pair,
};
use crate::story::Story;
use crate::support::pair::{Pair, SourceRole};
use crate::support::process::{Walferry, command_for};
use crate::support::proxy::Proxy;
use crate::support::{wait_until, workload};

/// What somebody does to a table of the target by hand; the stream does not
/// meet it. A row at a time, or it would meet the stream in a deadlock.
async fn damage(pair: &Pair) {
    let target = pair.target_client().await;
    for id in (1..=500).step_by(7) {
        target.execute("UPDATE public.account SET payload = 'damaged' WHERE id = $1", &[&i64::from(id)]).await.unwrap();
    }
    let insert = "INSERT INTO public.account (id, name) SELECT -i, 'never there' FROM generate_series(1, 50) i";
    target.batch_execute(insert).await.unwrap();
}

async fn state_of(target: &Client, table: &str) -> String {
    let sql = "SELECT state FROM walferry.tables WHERE migration = $1 AND name = $2";
    target.query_one(sql, &[&NAME, &table]).await.unwrap().get(0)
}

async fn until_state(pair: &Pair, table: &str, wanted: &str) {
    let target = pair.target_client().await;
    wait_until(&format!("{table} is {wanted}"), PATIENCE, || async { state_of(&target, table).await == wanted }).await;
}

/// Somewhere between its emptying and its join: which states a look meets is
/// the machine's.
async fn until_begun(pair: &Pair, table: &str) {
    let target = pair.target_client().await;
    wait_until(&format!("{table} is begun"), PATIENCE, || async { state_of(&target, table).await != "ready" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_table_is_equal_after_a_resync_under_live_writes() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    let daemon = streaming(&pair, &[]).await;
    load.more(50).await;
    damage(&pair).await;
    // Of another migration, whose name begins like a temporary slot's.
    let other = "INSERT INTO walferry.migration (name, system_identifier, timeline, source_database, source_version, slot, \
         slot_is_ours, publication, publication_is_ours, phase) VALUES ('walferry_copy_2', '1', 1, 'x', 150000, 'walferry_copy_2', \
         true, 'p', true, 'stream'); INSERT INTO walferry.position VALUES ('walferry_copy_2', '0/1')";
    pair.target_client().await.batch_execute(other).await.unwrap();
    let done = Walferry::run(&pair, &["resync", "account", "--json"], PATIENCE).code(0).json();
    assert_eq!((&done["by_daemon"], &done["tables"][0]["table"]), (&true.into(), &"public.account".into()), "{done}");
    load.more(50).await;
    until_applied(&pair).await;
    let ended = daemon.terminate(PATIENCE).code(0);
    assert!(ended.stderr.contains("have joined the stream"), "{}", ended.stderr);
    settle(&pair, load).await;
    let positions = "SELECT count(*) FROM walferry.position";
    let count: i64 = pair.target_client().await.query_one(positions, &[]).await.unwrap().get(0);
    assert_eq!(count, 2, "the second stream's position is forgotten, and no other");
}

/// The slot of the new snapshot waits for every transaction of the source; the
/// others' tables must not.
#[tokio::test(flavor = "multi_thread")]
async fn the_stream_goes_on_for_the_other_tables_while_one_is_copied() {
    let pair = usual_pair().await;
    create_tables(&pair, 1, 1000).await;
    let daemon = streaming(&pair, &[]).await;
    let held = source_admin(&pair).await;
    held.batch_execute("BEGIN; INSERT INTO public.bulk_1 VALUES (5000, 0, 'in the open transaction')").await.unwrap();
    pair.target_client().await.batch_execute("DELETE FROM public.bulk_1 WHERE id > 500").await.unwrap();
    let resync = Walferry::on(&pair, &["resync", "public.bulk_1"]);
    until_state(&pair, "bulk_1", "waiting").await;
    for id in 1..=5 {
        let writes = format!(
            "INSERT INTO public.audited (id) VALUES ({}); UPDATE public.bulk_1 SET v = v + 1 WHERE id = {id}; \
             DELETE FROM public.bulk_1 WHERE id = {}",
            1000 + id,
            100 + id
        );
        pair.source_sql(&writes).await;
        until_applied(&pair).await;
    }
    let target = pair.target_client().await;
    let rows = target.query_one("SELECT count(*) FROM public.audited WHERE id > 1000", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 5, "the others go on");
    assert_eq!(state_of(&target, "bulk_1").await, "waiting", "this one still waits for the transaction");
    held.batch_execute("COMMIT").await.unwrap();
    let done = resync.wait(PATIENCE).code(0);
    assert!(
        done.stdout.contains("public.bulk_1") && done.stdout.contains("beside the running stream"),
        "{}",
        done.stdout
    );
    pair.source_sql("UPDATE public.bulk_1 SET v = -1 WHERE id % 2 = 0").await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    catch_up(&pair);
    pair.assert_equal().await;
}

/// The second stream gets ahead of the main one, which is held up: what it has
/// applied beyond must not be applied again.
#[tokio::test(flavor = "multi_thread")]
async fn the_main_stream_takes_a_table_up_where_the_second_one_ended() {
    let pair = usual_pair().await;
    create_tables(&pair, 1, 60_000).await;
    let churn = Churn::start(&pair, 1, 60_000, workload::seed()).await;
    let daemon = streaming(&pair, &[]).await;
    let asking = Walferry::on(&pair, &["resync", "bulk_1"]);
    until_begun(&pair, "bulk_1").await;
    let mut holder = pair.target_client().await;
    let held = holder.transaction().await.unwrap();
    held.execute("SELECT FROM public.audited WHERE id = 1 FOR UPDATE", &[]).await.unwrap();
    pair.source_sql("UPDATE public.audited SET touched = 100 WHERE id = 1").await;
    let end = source_end(&source_admin(&pair).await).await;
    let target = pair.target_client().await;
    let ahead = "SELECT EXISTS (SELECT FROM walferry.position WHERE slot <> $1 AND end_lsn - $2::pg_lsn > 20000)";
    wait_until("the second stream is ahead", PATIENCE, || async {
        target.query_one(ahead, &[&NAME, &end]).await.unwrap().get(0)
    })
    .await;
    pair.source_sql("INSERT INTO public.bulk_1 VALUES (-1, 0, 'beyond'); DELETE FROM public.bulk_1 WHERE id = 7").await;
    let beyond = "SELECT EXISTS (SELECT FROM public.bulk_1 WHERE id = -1)";
    wait_until("the second stream has applied it", PATIENCE, || async {
        target.query_one(beyond, &[]).await.unwrap().get(0)
    })
    .await;
    assert_eq!(state_of(&target, "bulk_1").await, "joining");
    held.rollback().await.unwrap();
    asking.wait(PATIENCE).code(0);
    pair.source_sql("UPDATE public.bulk_1 SET v = v + 1 WHERE id % 10 = 0").await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    churn.stop().await;
    catch_up(&pair);
    pair.assert_equal().await;
}

/// Every crash between the emptying and the join: the tables come anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_anywhere_in_a_resync_is_gone_on_with_by_the_next_run() {
    let pair = usual_pair().await;
    create_tables(&pair, 2, 2000).await;
    let load = Load::start(&pair).await;
    let churn = Churn::start(&pair, 2, 2000, workload::seed()).await;
    streaming(&pair, &[]).await.terminate(PATIENCE).code(0);
    for failpoint in
        ["resync-emptied:1", "copy-before-commit:1", "resync-copied:1", "resync-joining:1", "resync-joined:1"]
    {
        let mut command = command_for(&pair, &["run"]);
        command.env("WALFERRY_FAILPOINT", failpoint);
        let mut daemon = until_streaming(&pair, Walferry::spawn(command)).await;
        let asking = Walferry::on(&pair, &["resync", "account", "bulk_*"]);
        wait_until("the daemon dies", PATIENCE, || {
            let has_ended = daemon.ended().is_some();
            async move { has_ended }
        })
        .await;
        let died = daemon.wait(PATIENCE);
        assert_eq!(died.status.signal(), Some(Signal::ABORT.as_raw()), "{failpoint}: {}", died.stderr);
        // The command notices that nobody is at work any more, and does it itself.
        let done = asking.wait(PATIENCE).code(0);
        assert!(done.stderr.contains("going on without it"), "{failpoint}: {}", done.stderr);
    }
    churn.stop().await;
    settle(&pair, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_during_resyncs_lose_nothing() {
    let pair = usual_pair().await;
    create_tables(&pair, 3, 5000).await;
    let load = Load::start(&pair).await;
    let seed = workload::seed();
    let churn = Churn::start(&pair, 3, 5000, seed).await;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut daemon = streaming(&pair, &[]).await;
    let target = pair.target_client().await;
    for round in 0..6 {
        target
            .execute(
                "INSERT INTO walferry.control (migration, request, tables, requested_by) \
                 VALUES ($1, 'resync', ARRAY['\"public\".\"bulk_1\"', '\"public\".\"item\"'], 'a test')",
                &[&NAME],
            )
            .await
            .unwrap();
        if round % 2 == 0 {
            // Or is through already.
            let open = "SELECT count(*) FROM walferry.control WHERE answered_at IS NULL";
            wait_until("the daemon has begun", PATIENCE, || async {
                state_of(&target, "bulk_1").await != "ready"
                    || target.query_one(open, &[]).await.unwrap().get::<_, i64>(0) == 0
            })
            .await;
        }
        // Not a wait for anything: the moment of the kill.
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..600))).await;
        daemon.kill();
        target.execute("UPDATE walferry.control SET answered_at = now() WHERE answered_at IS NULL", &[]).await.unwrap();
        daemon = streaming(&pair, &[]).await;
    }
    until_state(&pair, "bulk_1", "ready").await;
    until_state(&pair, "item", "ready").await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    churn.stop().await;
    settle(&pair, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_during_a_resync_are_made_again() {
    let pair = usual_pair().await;
    create_tables(&pair, 1, 100_000).await;
    let churn = Churn::start(&pair, 1, 100_000, workload::seed()).await;
    let proxy = Proxy::start(pair.source.port()).await;
    let daemon = until_streaming(&pair, through(&pair, &proxy, None, &[])).await;
    proxy.delay(Duration::from_millis(10));
    let asking = Walferry::on(&pair, &["resync", "bulk_1"]);
    until_begun(&pair, "bulk_1").await;
    proxy.cut();
    proxy.delay(Duration::ZERO);
    asking.wait(PATIENCE).code(0);
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    churn.stop().await;
    catch_up(&pair);
    pair.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_the_command_copies_the_tables_and_the_next_run_goes_on() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    streaming(&pair, &[]).await.terminate(PATIENCE).code(0);
    load.more(30).await;
    damage(&pair).await;
    pair.target_client().await.batch_execute("DELETE FROM public.account WHERE id % 3 = 0").await.unwrap();
    let done = Walferry::run(&pair, &["resync", "acc*", "item"], PATIENCE).code(0);
    assert!(done.stdout.contains("2 tables") && done.stdout.contains("no daemon is running"), "{}", done.stdout);
    load.more(30).await;
    settle(&pair, load).await;
}

/// A catch-up that finds tables unfinished finishes them: it is to leave both
/// sides equal.
#[tokio::test(flavor = "multi_thread")]
async fn a_catch_up_finishes_what_a_killed_daemon_left() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    let mut command = command_for(&pair, &["run"]);
    command.env("WALFERRY_FAILPOINT", "resync-copied:1");
    let daemon = until_streaming(&pair, Walferry::spawn(command)).await;
    let asking = Walferry::on(&pair, &["resync", "account", "counter"]);
    until_begun(&pair, "account").await;
    asking.kill();
    daemon.wait(PATIENCE);
    let target = pair.target_client().await;
    assert_eq!(state_of(&target, "account").await, "joining");
    let (_, events) = load.stop().await;
    let caught_up = Walferry::run(&pair, &["catchup"], PATIENCE).code(0);
    assert!(caught_up.stderr.contains("copying them first"), "{}", caught_up.stderr);
    compare(&pair, events).await;
}

/// The owner publishes; the role of the source may not.
async fn listed_pair() -> Pair {
    let pair = pair_with_tables(Pair::builder().source_role(SourceRole::Restricted)).await;
    pair.source_sql(
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO mig_src; ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO mig_src; \
         GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO mig_src; \
         CREATE PUBLICATION mine FOR TABLE public.account, public.item, public.\"Tag \"\"odd\"\"\", public.log, public.counter, public.event, public.audited",
    )
    .await;
    pair
}

const LATE: &str = "CREATE TYPE public.mood AS ENUM ('sad', 'glad'); \
    CREATE TABLE public.late (id serial PRIMARY KEY, account bigint REFERENCES public.account, t text NOT NULL); \
    CREATE INDEX ON public.late (t); INSERT INTO public.late (t) SELECT 'row ' || i FROM generate_series(1, 3000) i";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_created_later_is_taken_in_with_its_definition_beside_the_stream() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    let daemon = streaming(&pair, &[]).await;
    // Not a change of it before it is taken in: the stream would stop there.
    pair.source_sql("CREATE TABLE public.late (id serial PRIMARY KEY, account bigint REFERENCES public.account, t text NOT NULL); CREATE INDEX ON public.late (t)").await;
    let refused = Walferry::run(&pair, &["resync", "late"], PATIENCE).code(2);
    assert!(refused.stderr.contains("walferry add"), "{}", refused.stderr);
    Walferry::run(&pair, &["add", "late"], PATIENCE).code(0);
    pair.source_sql("INSERT INTO public.late (t) SELECT 'row ' || i FROM generate_series(1, 3000) i").await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    let (_, events) = load.stop().await;
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    compare(&pair, events).await;
    let shape = "SELECT pg_catalog.string_agg(x, '; ' ORDER BY x) FROM (SELECT pg_get_constraintdef(oid) FROM pg_constraint \
         WHERE conrelid = 'public.late'::regclass UNION ALL SELECT indexdef FROM pg_indexes WHERE tablename = 'late') AS s (x)";
    let of = async |client: Client| client.query_one(shape, &[]).await.unwrap().get::<_, String>(0);
    assert_eq!(of(pair.target_client().await).await, of(pair.source_client().await).await);
}

/// The words of the stream that meets a table it does not know lead to the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_or_partition_that_stopped_the_stream_is_taken_in_and_the_stream_goes_on() {
    let pair = usual_pair().await;
    pair.source_sql(
        "CREATE TABLE public.visit (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at); \
         CREATE TABLE public.visit_24 PARTITION OF public.visit FOR VALUES FROM ('2024-01-01') TO ('2025-01-01'); \
         INSERT INTO public.visit VALUES (1, '2024-05-05')",
    )
    .await;
    let mut daemon = streaming(&pair, &[]).await;
    pair.source_sql(
        "CREATE TABLE public.visit_25 PARTITION OF public.visit FOR VALUES FROM ('2025-01-01') TO ('2026-01-01'); \
         INSERT INTO public.visit VALUES (2, '2025-05-05'), (3, '2024-06-06')",
    )
    .await;
    wait_until("the daemon stops", PATIENCE, || {
        let has_ended = daemon.ended().is_some();
        async move { has_ended }
    })
    .await;
    let stopped = daemon.wait(PATIENCE).code(7);
    assert!(stopped.stderr.contains("walferry add 'public.visit_25'"), "{}", stopped.stderr);
    Walferry::run(&pair, &["add", "public.visit_25"], PATIENCE).code(0);
    pair.source_sql("INSERT INTO public.visit VALUES (4, '2025-07-07'); DELETE FROM public.visit WHERE id = 2").await;
    catch_up(&pair);
    pair.assert_equal().await;
    // By the name of the whole.
    pair.target_client().await.batch_execute("UPDATE public.visit SET id = id + 100").await.unwrap();
    let done = Walferry::run(&pair, &["resync", "visit", "--json"], PATIENCE).code(0).json();
    assert_eq!(done["tables"].as_array().map(Vec::len), Some(2), "{done}");
    catch_up(&pair);
    pair.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_its_owner_publishes_later_is_added_with_the_rows_it_has() {
    let pair = listed_pair().await;
    let daemon = streaming(&pair, &["--publication", "mine"]).await;
    pair.source_sql(&LATE.replace("CREATE TYPE public.mood AS ENUM ('sad', 'glad'); ", "")).await;
    pair.source_sql("GRANT SELECT ON SEQUENCE public.late_id_seq TO mig_src").await;
    // The role may not publish it: the words are for the owner.
    let refused = Walferry::run(&pair, &["add", "late", "--publication", "mine"], PATIENCE).code(4);
    for words in ["LOCK TABLE", "ALTER PUBLICATION \"mine\" ADD TABLE ONLY \"public\".\"late\"", "COMMIT;"] {
        assert!(refused.stderr.contains(words), "no {words} in {}", refused.stderr);
    }
    let publish = "BEGIN; LOCK TABLE public.late IN SHARE ROW EXCLUSIVE MODE; ALTER PUBLICATION mine ADD TABLE public.late; COMMIT";
    pair.source_sql(publish).await;
    Walferry::run(&pair, &["add", "late", "--publication", "mine"], PATIENCE).code(0);
    pair.source_sql("UPDATE public.late SET t = 'changed' WHERE id <= 10; DELETE FROM public.late WHERE id > 2990")
        .await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--publication", "mine"], PATIENCE).code(0);
    pair.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_were_published_while_nobody_was_at_work_are_noticed_at_the_next_start() {
    let pair = listed_pair().await;
    streaming(&pair, &["--publication", "mine"]).await.terminate(PATIENCE).code(0);
    pair.source_sql(
        "CREATE TABLE public.late (id int PRIMARY KEY, t text); INSERT INTO public.late VALUES (1, 'before')",
    )
    .await;
    pair.source_sql("ALTER PUBLICATION mine ADD TABLE public.late").await;
    pair.source_sql("INSERT INTO public.late VALUES (2, 'after')").await;
    let daemon = streaming(&pair, &["--publication", "mine"]).await;
    until_state(&pair, "late", "ready").await;
    pair.source_sql("INSERT INTO public.late VALUES (3, 'streamed'); DELETE FROM public.late WHERE id = 1").await;
    until_applied(&pair).await;
    let ended = daemon.terminate(PATIENCE).code(0);
    assert!(ended.stderr.contains("taking them in"), "{}", ended.stderr);
    Walferry::run(&pair, &["catchup", "--publication", "mine"], PATIENCE).code(0);
    pair.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_filter_left_out_is_added_once_the_filter_lets_it_in() {
    let pair = usual_pair().await;
    streaming(&pair, &["--exclude-tables", "audited"]).await.terminate(PATIENCE).code(0);
    pair.source_sql("UPDATE public.audited SET touched = 7 WHERE id = 1").await;
    let refused = Walferry::run(&pair, &["add", "audited", "--exclude-tables", "audited"], PATIENCE).code(2);
    assert!(refused.stderr.contains("--exclude-tables"), "{}", refused.stderr);
    let done = Walferry::run(&pair, &["add", "audited"], PATIENCE).code(0);
    assert!(done.stdout.contains("public.audited: 20 rows"), "{}", done.stdout);
    pair.source_sql("UPDATE public.audited SET touched = 9 WHERE id = 2").await;
    catch_up(&pair);
    pair.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_copied_anew_is_refused_before_a_row_is_touched() {
    let pair = usual_pair().await;
    let unknown = Walferry::run(&pair, &["resync", "account"], PATIENCE).code(2);
    assert!(unknown.stderr.contains("no migration"), "{}", unknown.stderr);
    let daemon = streaming(&pair, &[]).await;
    let target = pair.target_client().await;
    target
        .batch_execute(
            "ALTER TABLE public.item ADD CONSTRAINT in_force FOREIGN KEY (account) REFERENCES public.account NOT VALID",
        )
        .await
        .unwrap();
    let cases: [(&[&str], i32, &str); 3] = [
        (&["resync", "nothing_like_it"], 2, "no table of the source fits it"),
        (&["resync", "account"], 7, "ALTER TABLE \"public\".\"item\" DROP CONSTRAINT \"in_force\";"),
        (&["resync", "a.b.c"], 2, "a.b.c"),
    ];
    for (arguments, code, words) in cases {
        let refused = Walferry::run(&pair, arguments, PATIENCE).code(code);
        assert!(refused.stderr.contains(words), "{arguments:?}: no \"{words}\" in {}", refused.stderr);
    }
    let said = Walferry::run(&pair, &["add", "account"], PATIENCE).code(0).stdout;
    assert!(said.contains("the migration has it already"), "{said}");
    let rows = target.query_one("SELECT count(*) FROM public.account", &[]).await.unwrap();
    assert_eq!(rows.get::<_, i64>(0), 500, "nothing was emptied");
    target.batch_execute("ALTER TABLE public.item DROP CONSTRAINT in_force").await.unwrap();
    daemon.terminate(PATIENCE).code(0);
    catch_up(&pair);
    pair.assert_equal().await;
}

/// The story: what a daemon had sent before it was killed was still at work on the target
/// while a table was copied anew: rows were there twice, with exit code 0.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_a_killed_daemon_has_sent_changes_no_table_that_is_copied_anew() {
    let pair = usual_pair().await;
    let sql = "CREATE TABLE public.k (id int PRIMARY KEY); INSERT INTO public.k VALUES (1); \
         CREATE TABLE public.f (n int); ALTER TABLE public.f REPLICA IDENTITY FULL; INSERT INTO public.f VALUES (0)";
    pair.source_sql(sql).await;
    let daemon = streaming(&pair, &[]).await;
    let (mut locks, target) = (pair.target_client().await, pair.target_client().await);
    let lock = locks.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE public.k").await.unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1";
    let waiting = || async { target.query_one(waits, &[&NAME]).await.unwrap().get::<_, i64>(0) };
    let write = "BEGIN; INSERT INTO public.k SELECT max(id) + 1 FROM public.k; INSERT INTO public.f SELECT generate_series(1, 100); COMMIT";
    pair.source_sql(write).await;
    wait_until("a batch waits on the target", PATIENCE, || async { waiting().await == 1 }).await;
    // Behind it, in sockets and queues.
    pair.source_sql(write).await;
    daemon.kill();
    let mut resync = Walferry::on(&pair, &["resync", "public.f"]);
    wait_until("it waits for the batch, or has not done so", PATIENCE, || {
        let is_through = resync.stderr().contains("asking the daemon") || resync.ended().is_some();
        async move { is_through }
    })
    .await;
    lock.rollback().await.unwrap();
    resync.wait(PATIENCE).code(0);
    wait_until("what was late is through", PATIENCE, || async { waiting().await == 0 }).await;
    catch_up(&pair);
    pair.assert_equal().await;
}

/// The story: a `resync` that waited for a lock when its lease was lost emptied the table
/// once it had it, though the migration had ended and the application was at work there.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_has_lost_its_lease_empties_no_table() {
    let pair = usual_pair().await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let (target, reader) = (pair.target_client().await, pair.target_client().await);
    let count = "SELECT count(*) FROM public.account";
    reader.batch_execute("BEGIN").await.unwrap();
    let rows: i64 = reader.query_one(count, &[]).await.unwrap().get(0);
    assert!(rows > 0);
    let resync = Walferry::spawn(command_for(&pair, &["resync", "public.account"]));
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'public.account'::regclass";
    let is_waiting = || async { target.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) > 0 };
    wait_until("the table is waited for", PATIENCE, is_waiting).await;
    let ended = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'";
    target.batch_execute(ended).await.unwrap();
    let info = ConnInfo::parse(Side::Target, &pair.target_uri(), &Env::empty()).unwrap();
    let other = State::open(Session::connect(&info, "another").await.unwrap(), NAME).await.unwrap();
    wait_until("another process has the lease", PATIENCE, || async { other.take_lease().await.is_ok() }).await;
    // Its turn comes.
    reader.batch_execute("ROLLBACK").await.unwrap();
    let is_over = || async { target.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 };
    wait_until("the lock was had", PATIENCE, is_over).await;
    assert_eq!(target.query_one(count, &[]).await.unwrap().get::<_, i64>(0), rows);
    assert_eq!(state_of(&target, "account").await, "ready");
    resync.kill();
    other.release_lease().await.unwrap();
    Walferry::run(&pair, &["catchup"], PATIENCE).code(0);
    pair.assert_equal().await;
}

/// The story: `resync` of all copied a table that its own flags left out.
#[tokio::test]
async fn what_is_copied_anew_is_not_what_is_excluded_beside_it() {
    let story = Story::of(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); INSERT INTO a VALUES (1)",
        &[],
    )
    .await;
    let said = story.run(&["resync", "public.*", "--exclude-tables", "public.b"], 0).stdout;
    assert!(said.contains("public.a: ") && !said.contains("public.b: "), "{said}");
    let said = story.run(&["resync", "public.b", "--exclude-tables", "public.b"], 2).stderr;
    assert!(said.contains("--exclude-tables"), "{said}");
    story.source("INSERT INTO b VALUES (77)").await;
    story.ends_equal().await;
}
