//! A copy that is gone on with meets a source that has moved: slot, WAL,
//! tables, filter.

use std::time::Duration;

use tokio_postgres::Client;
use walferry::demo::cluster::SUPERUSER;

use crate::copy::{copying, create_tables, through};
use crate::migration::{Load, NAME, PATIENCE, catch_up, pair_with_tables, source_admin, usual_pair};
use crate::support::pair::{DATABASE, Pair, SourceRole};
use crate::support::process::{Walferry, command_for};
use crate::support::proxy::Proxy;
use crate::support::{oldest_and_newest, wait_until};

/// A copy that was killed with some tables ready and some not begun; the
/// largest come first, so the small ones are those.
async fn cut_off() -> Pair {
    let pair = usual_pair().await;
    create_tables(&pair, 4, 30_000).await;
    let mut command = command_for(&pair, &["run", "--jobs", "1"]);
    command.env("WALFERRY_FAILPOINT", "copy-before-commit:3");
    Walferry::spawn(command).wait(PATIENCE);
    let target = pair.target_client().await;
    assert!(states(&target, "ready").await >= 2 && states(&target, "waiting").await >= 2);
    pair
}

async fn states(target: &Client, state: &str) -> i64 {
    let sql = "SELECT count(*) FROM walferry.tables WHERE migration = $1 AND state = $2";
    target.query_one(sql, &[&NAME, &state]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_goes_while_a_copy_is_cut_off_needs_a_resync_once_a_table_is_finished() {
    let pair = cut_off().await;
    pair.source_sql("SELECT pg_drop_replication_slot('walferry')").await;
    let refused = Walferry::run(&pair, &["run"], PATIENCE).code(4);
    for words in ["slot \"walferry\" no longer exists on the source", "walferry cleanup"] {
        assert!(refused.stderr.contains(words), "no \"{words}\" in:\n{}", refused.stderr);
    }
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(source_admin(&pair).await.query_one(slots, &[]).await.unwrap().get::<_, i64>(0), 0, "none was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_goes_before_any_table_is_finished_is_made_anew() {
    let pair = usual_pair().await;
    let load = Load::start(&pair).await;
    let mut command = command_for(&pair, &["run"]);
    command.env("WALFERRY_FAILPOINT", "copy-before-commit:1");
    Walferry::spawn(command).wait(PATIENCE);
    assert_eq!(states(&pair.target_client().await, "ready").await, 0);
    pair.source_sql("SELECT pg_drop_replication_slot('walferry')").await;
    // Nothing of it is in the old slot's list of tables.
    pair.source_sql("CREATE TABLE public.between (id int PRIMARY KEY); INSERT INTO public.between VALUES (1)").await;
    pair.target_client().await.batch_execute("CREATE TABLE public.between (id int PRIMARY KEY)").await.unwrap();
    // Killed with a new slot and the list of tables of the old one, had it stayed.
    let mut command = command_for(&pair, &["run"]);
    command.env("WALFERRY_FAILPOINT", "copy-slot:1");
    let died = Walferry::spawn(command).wait(PATIENCE);
    assert!(died.stderr.contains("starts over with a new slot"), "{}", died.stderr);
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    load.stop().await;
    catch_up(&pair);
    pair.assert_equal().await;
}

/// A source with little room for WAL, in the middle of a slow copy.
async fn slow_copy(arguments: &[&str]) -> (Pair, Proxy, Walferry) {
    let builder =
        Pair::builder().source_setting("max_slot_wal_keep_size", "32MB").source_setting("max_wal_size", "32MB");
    let pair = pair_with_tables(builder.source_setting("min_wal_size", "32MB")).await;
    create_tables(&pair, 2, 200_000).await;
    let proxy = Proxy::start(pair.source.port()).await;
    let daemon = copying(through(&pair, &proxy, None, &[&["--jobs", "1"], arguments].concat())).await;
    proxy.delay(Duration::from_millis(20));
    (pair, proxy, daemon)
}

async fn write_wal(pair: &Pair) {
    pair.source_sql(
        "CREATE TABLE IF NOT EXISTS public.noise (t text); INSERT INTO public.noise SELECT repeat(md5(i::text), 50) FROM generate_series(1, 10000) i; \
         TRUNCATE public.noise; CHECKPOINT",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_slot_loses_its_wal_stops_at_once_and_says_what_to_set() {
    let (pair, _proxy, mut daemon) = slow_copy(&[]).await;
    wait_until("the daemon has ended", PATIENCE, || {
        let has_ended = daemon.ended().is_some();
        let pair = &pair;
        async move {
            if !has_ended {
                write_wal(pair).await;
            }
            has_ended
        }
    })
    .await;
    let ended = daemon.wait(PATIENCE);
    assert!(matches!(ended.status.code(), Some(4 | 6)), "{:?}: {}", ended.status, ended.stderr);
    for words in [
        "max_slot_wal_keep_size is 32MB",
        "ALTER SYSTEM SET max_slot_wal_keep_size",
        "while the rows were being copied",
    ] {
        assert!(ended.stderr.contains(words), "no \"{words}\" in:\n{}", ended.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn much_wal_that_is_held_back_in_a_copy_is_warned_of_once() {
    let (pair, _proxy, daemon) = slow_copy(&["--wal-warn", "2MiB"]).await;
    write_wal(&pair).await;
    wait_until("it warns", PATIENCE, || {
        let warns = daemon.stderr().contains("holds back much WAL");
        async move { warns }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(daemon.kill().stderr.matches("holds back much WAL").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_come_and_go_while_a_copy_is_cut_off_are_as_they_are_after_it() {
    let pair = cut_off().await;
    let target = pair.target_client().await;
    // Waiting, and changed before it goes; "item" refers to account, counter stays.
    pair.source_sql("UPDATE public.counter SET value = value + 1; DELETE FROM public.audited WHERE id = 3").await;
    pair.source_sql("INSERT INTO public.log VALUES (77, 'before the second snapshot'); TRUNCATE public.audited").await;
    pair.source_sql("UPDATE public.\"Tag \"\"odd\"\"\" SET n = 5; DROP TABLE public.counter").await;
    let created = "CREATE TABLE public.late (id int PRIMARY KEY, t text)";
    pair.source_sql(&format!("{created}; INSERT INTO public.late SELECT i, 'before' FROM generate_series(1, 100) i"))
        .await;
    target.batch_execute(created).await.unwrap();
    let load = "INSERT INTO public.late VALUES (101, 'after'); DELETE FROM public.late WHERE id <= 10; \
         INSERT INTO public.audited (id) VALUES (1000)";
    pair.source_sql(load).await;
    let ended = Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(8);
    assert!(ended.stderr.contains("dropped on the source before it was copied"), "{}", ended.stderr);
    assert!(ended.stderr.contains("created on the source after the copy began"), "{}", ended.stderr);
    Walferry::run(&pair, &["add", "public.late"], PATIENCE).code(0);
    let rows: i64 = target.query_one("SELECT count(*) FROM public.counter", &[]).await.unwrap().get(0);
    assert_eq!(rows, 0, "what was dropped stays empty");
    target.batch_execute("DROP TABLE public.counter").await.unwrap();
    catch_up(&pair);
    pair.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_added_while_a_copy_is_cut_off_is_asked_for() {
    let pair = cut_off().await;
    pair.source_sql("ALTER TABLE public.counter ADD extra text; UPDATE public.counter SET extra = 'x'").await;
    let refused = Walferry::run(&pair, &["run"], PATIENCE).code(3);
    let sql = "ALTER TABLE \"public\".\"counter\" ADD COLUMN \"extra\" text;";
    assert!(refused.stderr.contains(sql), "{}", refused.stderr);
    pair.target_client().await.batch_execute(sql).await.unwrap();
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    catch_up(&pair);
    pair.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_or_a_filter_that_changes_while_a_copy_is_cut_off_is_spoken_of() {
    let pair = cut_off().await;
    pair.source_sql("ALTER TABLE public.counter RENAME TO meter").await;
    let refused = Walferry::run(&pair, &["run"], PATIENCE).code(6);
    assert!(refused.stderr.contains("public.counter was renamed on the source to public.meter"), "{}", refused.stderr);
    pair.source_sql("ALTER TABLE public.meter RENAME TO counter").await;
    // Less is possible, more is not.
    let less = ["run", "--until", "caught-up", "--exclude-tables", "public.counter"];
    Walferry::run(&pair, &less, PATIENCE).code(0);
    let target = pair.target_client().await;
    assert_eq!(states(&target, "excluded").await, 1);
    let rows: i64 = target.query_one("SELECT count(*) FROM public.counter", &[]).await.unwrap().get(0);
    assert_eq!(rows, 0);
}

/// The story: such a table was left out without a word, and the end was well.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_became_unlogged_before_it_was_copied_stops_the_copy() {
    let pair = cut_off().await;
    pair.source_sql("ALTER PUBLICATION walferry DROP TABLE public.counter; ALTER TABLE public.counter SET UNLOGGED")
        .await;
    let refused = Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(6);
    let logged = "ALTER TABLE \"public\".\"counter\" SET LOGGED;";
    for words in ["public.counter was to be copied, and is unlogged on the source by now", logged] {
        assert!(refused.stderr.contains(words), "no \"{words}\" in:\n{}", refused.stderr);
    }
    pair.source_sql(logged).await;
    let refused = Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(3).stderr;
    let publish = "BEGIN; LOCK TABLE ONLY \"public\".\"counter\" IN SHARE ROW EXCLUSIVE MODE; \
        ALTER PUBLICATION \"walferry\" ADD TABLE ONLY \"public\".\"counter\"; COMMIT;";
    assert!(refused.contains(publish), "{refused}");
    pair.source_sql(publish).await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    catch_up(&pair);
    pair.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_lets_in_more_than_the_copy_began_with_is_refused() {
    let pair = usual_pair().await;
    let mut command = command_for(&pair, &["run", "--exclude-tables", "public.counter"]);
    command.env("WALFERRY_FAILPOINT", "copy-before-commit:2");
    Walferry::spawn(command).wait(PATIENCE);
    let check = Walferry::run(&pair, &["check"], PATIENCE).code(3);
    let refused = Walferry::run(&pair, &["run"], PATIENCE).code(3);
    for said in [&check.stdout, &refused.stderr] {
        assert!(said.contains("the filter left public.counter out"), "{said}");
    }
}

/// The story: the advice was to copy the table anew, which did not help.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_whose_function_needs_a_search_path_says_so_and_is_built_once_it_has_one() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'A'); \
         CREATE FUNCTION low(x text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower(x)'; \
         CREATE FUNCTION norm(x text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN low(x); END'; \
         CREATE INDEX normed ON t (norm(v))",
    )
    .await;
    let run = ["run", "--until", "caught-up"];
    let refused = Walferry::run(&pair, &run, PATIENCE).code(7).stderr;
    for words in ["function low(text) does not exist", "ALTER FUNCTION … SET search_path"] {
        assert!(refused.contains(words), "no \"{words}\" in:\n{refused}");
    }
    let target = pair.target_client().await;
    target.batch_execute("ALTER FUNCTION norm(text) SET search_path = public").await.unwrap();
    Walferry::run(&pair, &run, PATIENCE).code(0);
    catch_up(&pair);
    pair.assert_equal().await;
}

/// What a server lacks is no fault of the rows: the table is not said to have to come anew.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_a_full_disk_keeps_from_being_built_is_built_once_there_is_room() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'A'); \
         CREATE FUNCTION low(x text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$BEGIN \
         IF current_setting('disk.is_full', true) = 'on' THEN RAISE 'could not extend file' USING ERRCODE = '53100'; END IF; \
         RETURN lower(x); END$$; \
         CREATE INDEX lowered ON t (low(v))",
    )
    .await;
    let full = format!("ALTER DATABASE {DATABASE} SET disk.is_full = 'on'");
    pair.target.psql(SUPERUSER, DATABASE, &full).unwrap();
    let run = ["run", "--until", "caught-up"];
    let refused = Walferry::run(&pair, &run, PATIENCE).code(7).stderr;
    assert!(refused.contains("make room on its disk") && !refused.contains("copied anew"), "{refused}");
    pair.target.psql(SUPERUSER, DATABASE, &format!("ALTER DATABASE {DATABASE} RESET disk.is_full")).unwrap();
    Walferry::run(&pair, &run, PATIENCE).code(0);
    catch_up(&pair);
    pair.assert_equal().await;
}

/// The story: the server's words alone, which name a function that is plainly there.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_calls_a_function_that_needs_a_search_path_says_so_and_comes_once_it_has_one() {
    // From 17 on an index is built with a path of its own.
    let (oldest, _) = oldest_and_newest();
    let pair = Pair::builder().servers(&oldest, &oldest).start().await;
    pair.source_sql("CREATE FUNCTION low(x text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower(x)'").await;
    let callers = [
        "CREATE TABLE t1 (id int PRIMARY KEY, v text CHECK (norm1(v) <> ''))",
        "CREATE TABLE t2 (id int PRIMARY KEY, v text, g text GENERATED ALWAYS AS (norm2(v)) STORED)",
        "CREATE DOMAIN d AS text CHECK (norm3(value) <> ''); CREATE TABLE t3 (id int PRIMARY KEY, v d)",
        "CREATE TABLE t4 (id int PRIMARY KEY, v text); CREATE MATERIALIZED VIEW m AS SELECT norm4(v) FROM t4",
    ];
    for (n, caller) in (1..).zip(callers) {
        let function = format!(
            "CREATE FUNCTION norm{n}(x text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN low(x); END'"
        );
        pair.source_sql(&format!("{function}; {caller}; INSERT INTO t{n} VALUES (1, 'A')")).await;
    }
    pair.source_sql("REFRESH MATERIALIZED VIEW m").await;
    let target = pair.target_client().await;
    let mut mended = Vec::new();
    for arguments in [&["run", "--until", "caught-up"][..], &["catchup", "--finish"]] {
        loop {
            let finished = Walferry::run(&pair, arguments, PATIENCE);
            if finished.status.success() {
                break;
            }
            let said = finished.code(7).stderr;
            let advice = "the function finds what it uses by search_path, which is empty here";
            assert!(said.contains("function low(text) does not exist") && said.contains(advice), "{said}");
            let (_, context) = said.split_once("PL/pgSQL function public.").unwrap();
            let (function, _) = context.split_once('(').unwrap();
            target.batch_execute(&format!("ALTER FUNCTION {function}(text) SET search_path = public")).await.unwrap();
            mended.push(function.to_owned());
        }
    }
    mended.sort();
    assert_eq!(mended, ["norm1", "norm2", "norm3", "norm4"]);
    pair.assert_equal().await;
}

/// The story: TRUNCATE of a table empties those that inherit from it as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_is_begun_anew_leaves_its_finished_child_alone() {
    let pair = usual_pair().await;
    pair.source_sql(
        "CREATE TABLE public.parent (id int PRIMARY KEY, t text); \
         CREATE TABLE public.child (PRIMARY KEY (id)) INHERITS (public.parent); \
         INSERT INTO public.parent SELECT i, md5(i::text) FROM generate_series(1, 60000) i; \
         INSERT INTO public.child SELECT i, md5(i::text) FROM generate_series(100001, 190000) i",
    )
    .await;
    let mut command = command_for(&pair, &["run", "--jobs", "1"]);
    command.env("WALFERRY_FAILPOINT", "copy-before-commit:2");
    Walferry::spawn(command).wait(PATIENCE);
    let target = pair.target_client().await;
    let sql = "SELECT name FROM walferry.tables WHERE migration = $1 AND state = $2";
    for (state, table) in [("ready", "child"), ("copying", "parent")] {
        assert_eq!(target.query_one(sql, &[&NAME, &state]).await.unwrap().get::<_, &str>(0), table);
    }
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    catch_up(&pair);
    pair.assert_equal().await;
}

/// A parent with rows, and two children that are larger.
async fn inheriting() -> Pair {
    let pair = usual_pair().await;
    pair.source_sql(
        "CREATE TABLE public.parent (id int PRIMARY KEY, t text); \
         CREATE TABLE public.child_1 (PRIMARY KEY (id)) INHERITS (public.parent); \
         CREATE TABLE public.child_2 (PRIMARY KEY (id)) INHERITS (public.parent); \
         INSERT INTO public.parent SELECT i, md5(i::text) FROM generate_series(1, 20000) i; \
         INSERT INTO public.child_1 SELECT i, md5(i::text) FROM generate_series(100001, 190000) i; \
         INSERT INTO public.child_2 SELECT i, md5(i::text) FROM generate_series(200001, 260000) i",
    )
    .await;
    pair
}

/// The story: public Pagila, killed in its copy, was asked to truncate the
/// parent, as its finished children have rows; that took the children's rows,
/// and the migration ended with 0 without them.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_on_by_itself_where_a_parent_waits_behind_its_finished_children() {
    let pair = inheriting().await;
    let target = pair.target_client().await;
    let sql = "SELECT name FROM walferry.tables WHERE migration = $1 AND state = $2 AND name ~ '^(parent|child)'";
    for failpoint in ["copy-before-commit:2", "copy-before-commit:1"] {
        let mut command = command_for(&pair, &["run", "--jobs", "1"]);
        command.env("WALFERRY_FAILPOINT", failpoint);
        Walferry::spawn(command).wait(PATIENCE);
        for (state, table) in [("ready", "child_1"), ("copying", "child_2"), ("waiting", "parent")] {
            assert_eq!(target.query_one(sql, &[&NAME, &state]).await.unwrap().get::<_, &str>(0), table, "{failpoint}");
        }
    }
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    catch_up(&pair);
    pair.assert_equal().await;
}

/// The story: the same with a healthy migration, by a resync of the parent.
#[tokio::test(flavor = "multi_thread")]
async fn a_resync_of_a_parent_leaves_its_children_alone() {
    let pair = inheriting().await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    pair.source_sql("UPDATE public.parent SET t = 'new' WHERE id % 7 = 0").await;
    Walferry::run(&pair, &["resync", "public.parent"], PATIENCE).code(0);
    catch_up(&pair);
    pair.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_have_the_rows_and_columns_that_the_publication_lets_through() {
    let pair = pair_with_tables(Pair::builder().source_role(SourceRole::Restricted)).await;
    pair.source_sql(
        "CREATE TABLE public.wide (id int PRIMARY KEY, a text, b text DEFAULT 'not carried'); \
         INSERT INTO public.wide SELECT i, md5(i::text) FROM generate_series(1, 60000) i; \
         CREATE PUBLICATION prepared FOR TABLE public.wide (id, a) WHERE (id % 3 = 0 OR id = 1)",
    )
    .await;
    // A column that is not published must not be on the target.
    let there = "CREATE TABLE public.wide (id int PRIMARY KEY, a text)";
    pair.target_client().await.batch_execute(there).await.unwrap();
    let mut arguments = vec!["run", "--until", "caught-up", "--publication", "prepared", "--tables", "public.wide"];
    arguments.extend(["--part-size", "1MiB", "--schema", "existing"]);
    let mut command = command_for(&pair, &arguments);
    command.env("WALFERRY_FAILPOINT", "copy-part:2");
    Walferry::spawn(command).wait(PATIENCE);
    Walferry::run(&pair, &arguments, PATIENCE).code(0);
    let target = pair.target_client().await;
    let journal = "SELECT what FROM walferry.journal WHERE what LIKE 'copied %'";
    let line: String = target.query_one(journal, &[]).await.unwrap().get(0);
    assert!(line.starts_with("copied public.wide: 20001 rows in ") && !line.contains(" 1 part"), "{line}");
    let sql = "SELECT count(*), count(a), sum(id) FROM public.wide";
    let row = target.query_one(sql, &[]).await.unwrap();
    let found = (row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2));
    assert_eq!(found, (20_001, 20_001, 600_030_001));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_waits_says_for_whom_and_leaves_nothing_when_it_is_given_up() {
    let pair = usual_pair().await;
    let busy = source_admin(&pair).await;
    busy.batch_execute("BEGIN; UPDATE public.account SET name = 'a secret' WHERE id = 1").await.unwrap();
    let pid: i32 = busy.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    busy.batch_execute("UPDATE public.account SET name = 'a secret' WHERE id = 2").await.unwrap();
    let daemon = Walferry::on(&pair, &["run"]);
    wait_until("it says for whom it waits", PATIENCE, || {
        let has_said = daemon.stderr().contains("the slot waits until these transactions end");
        async move { has_said }
    })
    .await;
    let ended = daemon.terminate(PATIENCE);
    for words in [format!("process {pid} (user "), "idle in transaction: UPDATE public.account SET name =".to_owned()] {
        assert!(ended.stderr.contains(&words), "no \"{words}\" in:\n{}", ended.stderr);
    }
    assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
    let slots = "SELECT count(*) FROM pg_replication_slots";
    assert_eq!(busy.query_one(slots, &[]).await.unwrap().get::<_, i64>(0), 0, "none is left");
}

/// The story: an index of the source had been corrupt, and its table has rows
/// that no unique index can be built on. Whatever was done about them on the
/// source, the rows on the target stayed, and so did the error, at every start.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_index_cannot_be_built_is_copied_anew_on_request_and_the_others_stay() {
    let pair = usual_pair().await;
    pair.source_sql(
        "CREATE TABLE public.doubled (id int PRIMARY KEY, v int); CREATE UNIQUE INDEX once ON public.doubled (v); \
         INSERT INTO public.doubled SELECT i, i FROM generate_series(1, 1000) i; \
         UPDATE pg_index SET indisready = false WHERE indexrelid = 'once'::regclass",
    )
    .await;
    pair.source_sql("INSERT INTO public.doubled VALUES (1001, 7)").await;
    pair.source_sql("UPDATE pg_index SET indisready = true WHERE indexrelid = 'once'::regclass").await;
    let run = ["run", "--until", "caught-up"];
    let refused = Walferry::run(&pair, &run, PATIENCE).code(7);
    for words in
        ["table public.doubled are there, but", "could not create unique index \"once\"", "walferry resync TABLE"]
    {
        assert!(refused.stderr.contains(words), "no \"{words}\" in:\n{}", refused.stderr);
    }
    pair.source_sql("DELETE FROM public.doubled WHERE id = 1001; REINDEX TABLE public.doubled").await;
    Walferry::run(&pair, &run, PATIENCE).code(7);
    Walferry::run(&pair, &["resync", "public.nothing"], PATIENCE).code(2);
    let report = Walferry::run(&pair, &["resync", "public.doubled"], PATIENCE).code(0);
    assert!(
        report.stdout.contains("public.doubled: emptied; the next \"walferry run\" copies it"),
        "{}",
        report.stdout
    );
    let target = pair.target_client().await;
    let snapshots =
        "SELECT name FROM walferry.tables WHERE migration = $1 AND state = 'ready' AND snapshot_lsn IS NOT NULL";
    let ready = target.query(snapshots, &[&NAME]).await.unwrap().len();
    let ended = Walferry::run(&pair, &run, PATIENCE).code(0);
    assert!(ready == 0 || !ended.stderr.contains("copied public.account"), "{}", ended.stderr);
    catch_up(&pair);
    pair.assert_equal().await;
    assert_eq!(states(&target, "ready").await, target_tables(&target).await);
}

async fn target_tables(target: &Client) -> i64 {
    let sql = "SELECT count(*) FROM walferry.tables WHERE migration = $1 AND state <> 'excluded'";
    target.query_one(sql, &[&NAME]).await.unwrap().get(0)
}
