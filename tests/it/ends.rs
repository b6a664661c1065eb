//! `catchup --finish`: run again after it has failed, and what comes after it.

use walferry::demo::cluster::SUPERUSER;

use crate::journey::{execute, value};
use crate::migration::{PATIENCE, is_active, source_admin, until_applied, until_streaming};
use crate::support::pair::{DATABASE, Pair};
use crate::support::process::{Walferry, command_for};
use crate::support::wait_until;

/// What acts on rows by itself, of every kind: it has done so on the source.
const ACTING: &str = "
    CREATE TABLE parent (id int PRIMARY KEY, n int NOT NULL DEFAULT 0);
    CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE, other int REFERENCES parent);
    CREATE TABLE audit (id serial PRIMARY KEY, what text);
    CREATE TABLE measure (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE measure_1 PARTITION OF measure FOR VALUES FROM (0) TO (10);
    CREATE UNLOGGED TABLE visit (id int PRIMARY KEY, n int);
    CREATE FUNCTION audited() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO audit (what) VALUES (TG_TABLE_NAME || TG_OP); RETURN NULL; END';
    CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON parent FOR EACH ROW EXECUTE FUNCTION audited();
    CREATE TRIGGER audited AFTER INSERT ON measure FOR EACH ROW EXECUTE FUNCTION audited();
    CREATE TRIGGER audited AFTER INSERT ON visit FOR EACH ROW EXECUTE FUNCTION audited();
    CREATE RULE audited AS ON INSERT TO child DO ALSO INSERT INTO audit (what) VALUES ('child');
    INSERT INTO parent (id) SELECT generate_series(1, 20);
    INSERT INTO child SELECT i, i, 20 FROM generate_series(1, 10) i;
    INSERT INTO measure SELECT i, i % 10 FROM generate_series(1, 30) i;
    INSERT INTO visit SELECT i, i FROM generate_series(1, 5) i;
    CREATE MATERIALIZED VIEW bad AS SELECT 100 / min(n + 1) AS n FROM parent";

/// Writes number `n`: each has its trigger, rule or key at work on the source.
fn writes(n: i32) -> String {
    format!(
        "INSERT INTO parent (id) VALUES ({n}00); INSERT INTO child VALUES ({n}00, {n}00, 20); UPDATE parent SET n = {n} WHERE id = {n}00;
         DELETE FROM parent WHERE id = {n}; INSERT INTO measure VALUES ({n}00, 5)"
    )
}

/// Keys, triggers and rules that are in force, by name.
const IN_FORCE: &str = "SELECT string_agg(name, ' ' ORDER BY name) FROM (
    SELECT conrelid::regclass || '.' || conname || ' ' || convalidated AS name FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace
    UNION ALL SELECT tgrelid::regclass || '.' || tgname FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'O'
    UNION ALL SELECT ev_class::regclass || '.' || rulename FROM pg_rewrite WHERE rulename = 'audited' AND ev_enabled = 'O') x";

const ALL_IN_FORCE: &str = "child.audited child.child_other_fkey true child.child_parent_fkey true measure.audited \
    measure_1.audited parent.audited visit.audited";

/// A pair whose end has failed for one view.
async fn failed_end() -> Pair {
    let pair = Pair::builder().start().await;
    pair.source_sql(ACTING).await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    pair.source_sql("INSERT INTO parent VALUES (0, -1)").await;
    let failed = Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(7);
    assert!(failed.stderr.contains("division by zero"), "{}", failed.stderr);
    assert_eq!(value(&pair.target_client().await, IN_FORCE).await, ALL_IN_FORCE);
    pair
}

/// The story: an end failed, its triggers were in, and whatever was run next
/// applied the stream through them. Audit rows came twice, with exit 0.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_end_that_failed_the_stream_is_applied_without_what_the_end_brought_in() {
    let pair = failed_end().await;
    let target = pair.target_client().await;
    pair.source_sql(&writes(1)).await;
    let run = Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    assert!(run.stderr.contains("it waits for the next --finish again"), "{}", run.stderr);
    assert_eq!(value(&target, IN_FORCE).await, "NULL");
    let waiting =
        "SELECT count(*) FROM walferry.deferred WHERE restored_at IS NULL AND kind IN ('trigger', 'foreign key')";
    assert_eq!(value(&target, waiting).await, "9");
    pair.source_sql(&writes(2)).await;
    Walferry::run(&pair, &["catchup"], PATIENCE).code(0);
    assert_eq!(value(&target, waiting).await, "9", "what waits is not listed once more");
    // Straight from one failed end to the next one.
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(7);
    pair.source_sql("DELETE FROM parent WHERE id = 0").await;
    pair.source_sql(&writes(3)).await;
    pair.source_sql("REFRESH MATERIALIZED VIEW bad").await;
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    assert_eq!(value(&target, IN_FORCE).await, ALL_IN_FORCE);
    pair.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_end_that_ended_well_nothing_is_applied_before_the_operator_says_so() {
    let pair = failed_end().await;
    let target = pair.target_client().await;
    pair.source_sql("DELETE FROM parent WHERE id = 0").await;
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
    pair.source_sql(&writes(1)).await;
    let rows = "SELECT (SELECT count(*) FROM parent) || ' ' || (SELECT count(*) FROM audit)";
    let before = value(&target, rows).await;
    for command in [&["run", "--until", "caught-up"][..], &["catchup"], &["catchup", "--finish"]] {
        let refused = Walferry::run(&pair, command, PATIENCE).code(3);
        assert!(refused.stderr.contains("UPDATE walferry.migration SET finished_at = NULL"), "{}", refused.stderr);
    }
    assert_eq!(value(&target, rows).await, before);
    assert_eq!(value(&target, IN_FORCE).await, ALL_IN_FORCE);
    execute(&target, &["UPDATE walferry.migration SET finished_at = NULL"]).await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    pair.source_sql(&writes(2)).await;
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    assert_eq!(value(&target, IN_FORCE).await, ALL_IN_FORCE);
    pair.assert_equal().await;
}

/// The story: an end could not bring everything in, the application went live all
/// the same, and each further try emptied the unlogged tables under it.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_application_wrote_to_unlogged_tables_outlive_the_next_try() {
    let pair = failed_end().await;
    let target = pair.target_client().await;
    // With a trigger on it the table was refused before it was emptied.
    execute(&target, &["DROP TRIGGER audited ON visit; INSERT INTO visit VALUES (1000, 1)"]).await;
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(7);
    assert_eq!(value(&target, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM visit").await, "1 2 3 4 5 1000");
}

/// The story: tables that nothing carried were named only after triggers and
/// keys had been brought in, and the catch-up that was to follow applied through them.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_brought_in_while_tables_are_missing() {
    let pair = Pair::builder().start().await;
    pair.source_sql(ACTING).await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    pair.source_sql("CREATE TABLE late (id int PRIMARY KEY); ALTER TABLE visit SET LOGGED").await;
    let refused = Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(8);
    assert!(refused.stderr.contains("public.visit"), "{}", refused.stderr);
    assert_eq!(value(&pair.target_client().await, IN_FORCE).await, "NULL");
}

/// What an ordinary role may not create, comment on or give away.
const ADMINISTRATORS: &str = "
    CREATE FUNCTION native() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler'";

const OWNERS: &str = "
    COMMENT ON FUNCTION native() IS 'only its owner may say this';
    CREATE FUNCTION watched() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER watch ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP TABLE') EXECUTE FUNCTION watched();
    COMMENT ON EVENT TRIGGER watch IS 'it''s watched';
    CREATE EVENT TRIGGER always ON sql_drop EXECUTE FUNCTION watched(); ALTER EVENT TRIGGER always ENABLE ALWAYS;
    COMMENT ON EVENT TRIGGER always IS 'a';
    CREATE EVENT TRIGGER never ON sql_drop EXECUTE FUNCTION watched(); ALTER EVENT TRIGGER never DISABLE;
    CREATE TABLE t (id int PRIMARY KEY, n int);
    CREATE FUNCTION audited() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER audited BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION audited();
    INSERT INTO t VALUES (1, 1)";

/// A pair whose end has left something to an administrator, with the SQL.
async fn left_to_an_administrator() -> (Pair, Vec<String>) {
    let pair = Pair::builder().start().await;
    pair.source_sql(ADMINISTRATORS).await;
    pair.source_sql(OWNERS).await;
    pair.target.psql(SUPERUSER, DATABASE, ADMINISTRATORS).unwrap();
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let finished = Walferry::run(&pair, &["catchup", "--finish", "--json"], PATIENCE).code(0);
    assert!(finished.stderr.contains("only an administrator"), "{}", finished.stderr);
    let left = finished.json()["administrators"].as_array().unwrap().clone();
    let sql: Vec<String> = left.iter().map(|left| left["sql"].as_str().unwrap().to_owned()).collect();
    assert_eq!(sql.len(), 6, "{sql:?}");
    (pair, sql)
}

/// The story: an end could never come to a good one where the source had an event
/// trigger, or a comment on something that an administrator had to create.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_an_administrator_can_give_is_named_keeps_nothing_back_and_counts_once_it_is_there() {
    let (pair, sql) = left_to_an_administrator().await;
    let target = pair.target_client().await;
    let triggers = "SELECT string_agg(tgname, ' ') FROM pg_trigger WHERE tgrelid = 't'::regclass AND tgenabled = 'O'";
    assert_eq!(value(&target, triggers).await, "audited");
    pair.assert_equal().await;
    // They run it, and it is looked at once more.
    pair.target.psql(SUPERUSER, DATABASE, &sql.join(" ")).unwrap();
    execute(&target, &["UPDATE walferry.migration SET finished_at = NULL"]).await;
    let again = Walferry::run(&pair, &["catchup", "--finish", "--json"], PATIENCE).code(0);
    assert_eq!(again.json()["administrators"].as_array().unwrap().len(), 0);
    assert_eq!(value(&target, "SELECT count(*) FROM walferry.deferred WHERE restored_at IS NULL").await, "0");
    pair.assert_equal().await;
}

/// The story: after an end that had left an event trigger to an administrator, who had created it
/// since, `cleanup` referred to `catchup --finish` and that to `cleanup`.
#[tokio::test(flavor = "multi_thread")]
async fn cleanup_looks_whether_what_was_left_to_an_administrator_is_there_by_now() {
    let (pair, sql) = left_to_an_administrator().await;
    let run = |sql: &[String]| pair.target.psql(SUPERUSER, DATABASE, &sql.join(" ")).unwrap();
    let refused = Walferry::run(&pair, &["cleanup"], PATIENCE).code(2).stderr;
    assert!(refused.contains("6 objects are") && refused.contains("an administrator"), "{refused}");
    assert!(!refused.contains("--finish"), "{refused}");
    run(&sql[..5]);
    let refused = Walferry::run(&pair, &["cleanup"], PATIENCE).code(2).stderr;
    assert!(refused.contains("1 object is") && refused.contains(sql[5].trim_end_matches(';')), "{refused}");
    run(&sql[5..]);
    let cleaned = Walferry::run(&pair, &["cleanup"], PATIENCE).code(0).stdout;
    assert!(cleaned.contains("dropped the schema walferry"), "{cleaned}");
    pair.assert_equal().await;
}

/// The story: an index of another table had the name of a primary key, which
/// counted as restored; the table went on without one, with exit 0.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_counts_as_there_by_its_definition_and_not_by_its_name() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE TABLE t (id int PRIMARY KEY, n int); CREATE INDEX by_n ON t (n); INSERT INTO t VALUES (1, 1)",
    )
    .await;
    let target = pair.target_client().await;
    // The schema is there, and the names of what waits are taken by others then.
    let mut command = command_for(&pair, &["run"]);
    command.env("WALFERRY_FAILPOINT", "copy-rows:1:panic");
    Walferry::spawn(command).wait(PATIENCE).code(1);
    execute(&target, &["CREATE TABLE other (n int); CREATE UNIQUE INDEX t_pkey ON other (n)"]).await;
    let run = ["run", "--until", "caught-up"];
    let refused = Walferry::run(&pair, &run, PATIENCE).code(3);
    assert!(refused.stderr.contains("DROP INDEX IF EXISTS public.t_pkey"), "{}", refused.stderr);
    let has_key = "SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'p'";
    assert_eq!(value(&target, has_key).await, "0");
    // The same key counts, whoever has made it, and a key of another column does not.
    execute(&target, &["DROP TABLE other; ALTER TABLE t ADD CONSTRAINT t_pkey PRIMARY KEY (n)"]).await;
    Walferry::run(&pair, &run, PATIENCE).code(3);
    execute(&target, &["ALTER TABLE t DROP CONSTRAINT t_pkey, ADD CONSTRAINT t_pkey PRIMARY KEY (id)"]).await;
    let done = Walferry::run(&pair, &run, PATIENCE).code(0);
    assert!(done.stderr.contains("is taken as restored"), "{}", done.stderr);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
    assert_eq!(value(&target, "SELECT count(*) FROM pg_indexes WHERE tablename = 't'").await, "2");
}

/// The story: the key was taken away again and brought in behind its validation,
/// so the end could never be had.
#[tokio::test]
async fn a_validation_that_failed_is_had_at_the_next_end_once_its_rows_are_mended() {
    let tables = "CREATE TABLE par (id int PRIMARY KEY); INSERT INTO par VALUES (1);
        CREATE TABLE ch (id int PRIMARY KEY, p int REFERENCES par ON DELETE CASCADE); INSERT INTO ch VALUES (1, 1)";
    let pair = Pair::builder().start().await;
    pair.source_sql(tables).await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let target = pair.target_client().await;
    execute(&target, &["INSERT INTO public.ch VALUES (500, 500)"]).await;
    let refused = Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(7).stderr;
    assert!(refused.contains("ch_p_fkey"), "{refused}");
    execute(&target, &["DELETE FROM public.ch WHERE id = 500"]).await;
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    let valid = "SELECT convalidated FROM pg_constraint WHERE conname = 'ch_p_fkey'";
    assert_eq!(value(&target, valid).await, "t");
    pair.assert_equal().await;
}

/// The story: a comment failed once, and from then on each end took the constraint away
/// and brought it in behind its comment, which could never be had.
#[tokio::test]
async fn the_comment_of_a_domains_constraint_that_failed_once_is_had_at_the_next_end() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE DOMAIN dd AS int; CREATE TABLE t (id int PRIMARY KEY, x dd, t int REFERENCES t); INSERT INTO t VALUES (1, -1);
         ALTER DOMAIN dd ADD CONSTRAINT ddc CHECK (value > 0) NOT VALID; COMMENT ON CONSTRAINT ddc ON DOMAIN dd IS 'c'",
    )
    .await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let refuse =
        "CREATE FUNCTION public.refuse() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no comments''; END';
        CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('COMMENT') EXECUTE FUNCTION public.refuse()";
    pair.target.psql(SUPERUSER, DATABASE, &refuse.replace("RAISE ", "RAISE EXCEPTION ")).unwrap();
    let failed = Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(7).stderr;
    assert!(failed.contains("no comments"), "{failed}");
    pair.target.psql(SUPERUSER, DATABASE, "DROP EVENT TRIGGER refuse; DROP FUNCTION public.refuse").unwrap();
    Walferry::run(&pair, &["catchup"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    let comment =
        "SELECT obj_description(oid, 'pg_constraint') || convalidated FROM pg_constraint WHERE conname = 'ddc'";
    assert_eq!(value(&pair.target_client().await, comment).await, "cfalse");
    pair.assert_equal().await;
}

/// The story: an end that failed left a domain's constraint in force if it had brought in
/// no key and no trigger, and the stream stopped at the next change of an old row.
#[tokio::test(flavor = "multi_thread")]
async fn a_domains_constraint_that_a_failed_end_brought_in_is_taken_away_before_the_stream_goes_on() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE DOMAIN dd AS int; CREATE TABLE t (id int PRIMARY KEY, x dd, n int); INSERT INTO t VALUES (1, -1, 1);
         ALTER DOMAIN dd ADD CONSTRAINT ddc CHECK (value > 0) NOT VALID;
         CREATE MATERIALIZED VIEW bad AS SELECT 100 / n AS n FROM t",
    )
    .await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    pair.source_sql("INSERT INTO t VALUES (2, 1, 0)").await;
    let failed = Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(7).stderr;
    assert!(failed.contains("division by zero"), "{failed}");
    // As an update of another column passes on what violates it, so does the stream.
    pair.source_sql("UPDATE t SET n = 2; REFRESH MATERIALIZED VIEW bad").await;
    Walferry::run(&pair, &["catchup"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
}

/// A key whose validation an end has refused, as a row of its table was deleted.
async fn refused_validation() -> Pair {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE k (id int PRIMARY KEY, r int CONSTRAINT fk REFERENCES p);
         COMMENT ON CONSTRAINT fk ON k IS 'why'; INSERT INTO p VALUES (1), (2); INSERT INTO k VALUES (1, 1)",
    )
    .await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    execute(&pair.target_client().await, &["DELETE FROM p WHERE id = 1"]).await;
    let failed = Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(7).stderr;
    assert!(failed.contains("validation of fk constraint k fk"), "{failed}");
    pair
}

const KEY: &str =
    "SELECT concat_ws(' ', pg_get_constraintdef(oid), convalidated, obj_description(oid, 'pg_constraint'))
    FROM pg_constraint WHERE conname = 'fk'";

async fn ends_with_the_key(pair: &Pair) {
    Walferry::run(pair, &["catchup", "--finish"], PATIENCE).code(0);
    let (source, target) = (pair.source_client().await, pair.target_client().await);
    assert_eq!(value(&target, KEY).await, value(&source, KEY).await);
    assert_eq!(value(&target, "SELECT count(*) FROM walferry.deferred WHERE restored_at IS NULL").await, "0");
    pair.assert_equal().await;
}

/// The story: `resync` printed ALTER TABLE … DROP CONSTRAINT for a key that the end had
/// brought in itself, and after that no end could be had, or only one without the key.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_copied_anew_after_an_end_that_failed_and_its_keys_come_in_at_the_next() {
    let pair = refused_validation().await;
    let unfit = Walferry::run(&pair, &["resync", "public.nothing"], PATIENCE).code(2).stderr;
    assert!(unfit.contains("no table of the source fits it"), "{unfit}");
    assert_ne!(
        value(&pair.target_client().await, KEY).await,
        "",
        "nothing is taken away for a command that is refused"
    );
    Walferry::run(&pair, &["resync", "public.p"], PATIENCE).code(0);
    ends_with_the_key(&pair).await;
}

/// The story: a key that somebody had dropped, as was printed, still counted as restored,
/// and its validation failed for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_dropped_before_its_validation_is_brought_in_once_more() {
    let pair = refused_validation().await;
    execute(&pair.target_client().await, &["ALTER TABLE public.k DROP CONSTRAINT fk; INSERT INTO p VALUES (1)"]).await;
    ends_with_the_key(&pair).await;
}

/// The story: a trigger's comment went to another one that had its name, and when that
/// was dropped the trigger came in without.
#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_an_object_that_failed_waits_with_it() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE TABLE t (id int PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER tr AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f(); COMMENT ON TRIGGER tr ON t IS 'mine'",
    )
    .await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let target = pair.target_client().await;
    execute(
        &target,
        &["CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
           CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION other()"],
    )
    .await;
    let failed = Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(7).stderr;
    let comment = "SELECT coalesce(obj_description(oid, 'pg_trigger'), 'none') FROM pg_trigger WHERE tgname = 'tr'";
    assert_eq!(value(&target, comment).await, "none", "{failed}");
    execute(&target, &["DROP TRIGGER tr ON t"]).await;
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    assert_eq!(value(&target, comment).await, "mine");
    pair.assert_equal().await;
}

/// The story: check and run refused for ever, as only the owner of a schema may comment on
/// it, also once the comment was there.
#[tokio::test(flavor = "multi_thread")]
async fn the_comment_of_a_schema_that_an_administrator_made_is_named_and_keeps_nothing_back() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE SCHEMA a; COMMENT ON SCHEMA a IS 'x'; CREATE TABLE a.t (id int PRIMARY KEY); INSERT INTO a.t VALUES (1);
        CREATE SCHEMA \"Our own\"; COMMENT ON SCHEMA \"Our own\" IS 'y'").await;
    let target = pair.target_client().await;
    let role = value(&target, "SELECT current_user").await;
    let make = format!("CREATE SCHEMA a; GRANT USAGE, CREATE ON SCHEMA a TO {role}");
    pair.target.psql(SUPERUSER, DATABASE, &make).unwrap();
    let comment = "COMMENT ON SCHEMA a IS 'x';";
    let check = Walferry::run(&pair, &["check"], PATIENCE).code(0).stdout;
    assert!(check.contains(comment), "{check}");
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let own = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = 'Our own'";
    assert_eq!(value(&target, own).await, "y");
    let finished = Walferry::run(&pair, &["catchup", "--finish", "--json"], PATIENCE).code(0).json();
    let left = finished["administrators"].as_array().unwrap();
    assert_eq!((left.len(), left[0]["sql"].as_str().unwrap()), (1, comment));
    pair.assert_equal().await;
    pair.target.psql(SUPERUSER, DATABASE, comment).unwrap();
    execute(&target, &["UPDATE walferry.migration SET finished_at = NULL"]).await;
    let again = Walferry::run(&pair, &["catchup", "--finish", "--json"], PATIENCE).code(0).json();
    assert_eq!(again["administrators"].as_array().unwrap().len(), 0);
    Walferry::run(&pair, &["cleanup"], PATIENCE).code(0);
    execute(&target, &["DROP TABLE a.t; DROP SCHEMA \"Our own\""]).await;
    let check = Walferry::run(&pair, &["check"], PATIENCE).code(0).stdout;
    assert!(!check.contains(comment), "{check}");
}

/// The story: an end was killed while it brought a trigger in, and what it had sent was
/// done all the same, once the stream was applied again: through the trigger.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_end_is_still_bringing_in_is_taken_away_before_anything_is_applied() {
    let pair = Pair::builder().start().await;
    let sql = "CREATE TABLE g (id int PRIMARY KEY); CREATE TABLE doubled (id int); ALTER TABLE doubled REPLICA IDENTITY FULL; \
         CREATE FUNCTION doubles() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO doubled VALUES (NEW.id); RETURN NULL; END'; \
         CREATE TRIGGER doubles AFTER INSERT ON g FOR EACH ROW EXECUTE FUNCTION doubles(); INSERT INTO g VALUES (1)";
    pair.source_sql(sql).await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let (mut locks, target) = (pair.target_client().await, pair.target_client().await);
    let lock = locks.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE g IN ROW EXCLUSIVE MODE").await.unwrap();
    let end = Walferry::on(&pair, &["catchup", "--finish"]);
    let waits = async |query: &str| {
        let sql =
            format!("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '{query}'");
        value(&target, &sql).await != "0"
    };
    wait_until("the end waits for a lock", PATIENCE, || waits("%CREATE TRIGGER%")).await;
    end.kill();
    let mut daemon = Walferry::on(&pair, &["run"]);
    let source = source_admin(&pair).await;
    wait_until("the next one waits for that, or has not done so", PATIENCE, || async {
        waits("%walferry.deferred%FOR SHARE%").await || is_active(&source).await
    })
    .await;
    assert!(daemon.ended().is_none());
    lock.rollback().await.unwrap();
    wait_until("the trigger's transaction has ended", PATIENCE, || async { !waits("%CREATE TRIGGER%").await }).await;
    let daemon = until_streaming(&pair, daemon).await;
    pair.source_sql("INSERT INTO g SELECT generate_series(2, 100)").await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
}
