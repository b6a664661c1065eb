//! What waits for `catchup --finish` while tables are renamed, moved and dropped
//! on both sides: it follows the tables, and falls away with them.

use std::collections::HashSet;

use crate::journey::{execute, value};
use crate::migration::PATIENCE;
use crate::support::pair::Pair;
use crate::support::process::{Finished, Walferry};
use crate::support::{servers, some_of};

const TABLES: &str = r#"
    CREATE SCHEMA s; CREATE SCHEMA other;
    CREATE TABLE s.a (id int PRIMARY KEY, v text);
    CREATE TABLE s.b (id int PRIMARY KEY, f int REFERENCES s.a (id) ON DELETE CASCADE);
    CREATE TABLE s."C ""REFERENCES s.a(" (id int PRIMARY KEY, " REFERENCES s.a(" int REFERENCES s.a, b int REFERENCES s.b);
    CREATE TABLE s.one (id int PRIMARY KEY); CREATE TABLE s.two (id int PRIMARY KEY);
    CREATE TABLE s.both (id int PRIMARY KEY, one int REFERENCES s.one, two int REFERENCES s.two);
    CREATE TABLE s.p (id int PRIMARY KEY, a int REFERENCES s.a) PARTITION BY RANGE (id);
    CREATE TABLE s.p_1 PARTITION OF s.p FOR VALUES FROM (0) TO (100);
    CREATE TABLE s.audit (what text);
    CREATE FUNCTION s.audited() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO s.audit VALUES (TG_NAME); RETURN NULL; END $$;
    CREATE TRIGGER on_a AFTER INSERT ON s.a FOR EACH ROW WHEN (NEW.v <> 's.a') EXECUTE FUNCTION s.audited();
    CREATE TRIGGER on_p AFTER INSERT ON s.p FOR EACH ROW EXECUTE FUNCTION s.audited();
    CREATE TRIGGER on_p_1 AFTER DELETE ON s.p_1 FOR EACH ROW EXECUTE FUNCTION s.audited();
    CREATE RULE on_b AS ON INSERT TO s.b DO ALSO INSERT INTO s.audit SELECT v FROM s.a WHERE s.a.id = NEW.f;
    COMMENT ON CONSTRAINT b_f_fkey ON s.b IS 'it''s of s.b';
    COMMENT ON TRIGGER on_a ON s.a IS 'it''s of s.a';
    ALTER TABLE s.audit REPLICA IDENTITY FULL;
    INSERT INTO s.a SELECT i, 'A' FROM generate_series(1, 5) AS i; INSERT INTO s.b VALUES (1, 1);
    INSERT INTO s.one VALUES (1), (2); INSERT INTO s.two VALUES (3), (4); INSERT INTO s.both VALUES (1, 2, 3);
    INSERT INTO s.p VALUES (1, 1), (2, NULL); INSERT INTO s."C ""REFERENCES s.a(" VALUES (1, 2, 1)"#;

/// Policies are brought over with the schema alone.
const POLICIES: &str = "CREATE POLICY mine ON s.b USING (EXISTS (SELECT FROM s.a WHERE s.a.id = f));
    COMMENT ON CONSTRAINT a_pkey ON s.a IS 'a key that is there, its comment waits'";

/// Renames on both sides: of tables with what they reference, into another schema,
/// of a partition and its root, and two that exchange their names.
const RENAMES: &str = r#"ALTER TABLE s.a RENAME TO "A 2"; ALTER TABLE s.b SET SCHEMA other; ALTER TABLE other.b RENAME TO b2;
    ALTER TABLE s.one RENAME TO aside; ALTER TABLE s.two RENAME TO one; ALTER TABLE s.aside RENAME TO two;
    ALTER TABLE s.p RENAME TO p2; ALTER TABLE s.p_1 SET SCHEMA other"#;

/// Keys, triggers, rules and policies with what the server says of them.
const HELD: &str = "SELECT string_agg(x, E'\\n' ORDER BY x) FROM (
    SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated, obj_description(oid, 'pg_constraint'))
      FROM pg_constraint WHERE contype IN ('f', 'p') AND connamespace::regnamespace::text IN ('s', 'other')
    UNION ALL SELECT concat_ws(' ', pg_get_triggerdef(oid), tgenabled, obj_description(oid, 'pg_trigger')) FROM pg_trigger
      WHERE NOT tgisinternal AND tgrelid > 16384
    UNION ALL SELECT pg_get_ruledef(oid) || ev_enabled::text FROM pg_rewrite WHERE rulename = 'on_b'
    UNION ALL SELECT concat_ws(' ', polrelid::regclass, polname, pg_get_expr(polqual, polrelid)) FROM pg_policy) AS held (x)";

const WAITING: &str = "SELECT count(*) FROM walferry.deferred WHERE restored_at IS NULL";

fn with(pair: &Pair, arguments: &[&str], mode: &str) -> Finished {
    Walferry::run(pair, &[arguments, &["--schema", mode]].concat(), PATIENCE)
}

/// A migration that has caught up.
async fn caught_up(mode: &str) -> Pair {
    caught_up_on(Pair::builder().start().await, mode).await
}

async fn caught_up_on(pair: Pair, mode: &str) -> Pair {
    pair.source_sql(TABLES).await;
    if mode == "create" {
        pair.source_sql(POLICIES).await;
    } else {
        let target = pair.target_client().await;
        let (tables, _) = TABLES.split_once("INSERT INTO s.a SELECT").unwrap();
        execute(&target, &[tables]).await;
    }
    with(&pair, &["run", "--until", "caught-up"], mode).code(0);
    pair
}

async fn ends_with_all_that_the_source_has(pair: &Pair, mode: &str) {
    with(pair, &["catchup", "--finish"], mode).code(0);
    let (source, target) = (pair.source_client().await, pair.target_client().await);
    assert_eq!(value(&target, HELD).await, value(&source, HELD).await, "{mode}");
    assert_eq!(value(&target, WAITING).await, "0");
    pair.assert_equal().await;
    Walferry::run(pair, &["cleanup"], PATIENCE).code(0);
}

/// The story: what was held back kept the tables' old names, and the end failed for
/// ever: relation "s.a" does not exist. Where two had exchanged their names a key
/// would have gone to the wrong one.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_back_follows_tables_that_are_renamed_or_moved() {
    let servers = servers();
    let (first, last) = (servers.first().unwrap(), servers.last().unwrap());
    for (source, target, mode) in
        [(first, last, "create"), (last, last, "create"), (last, first, "existing"), (last, last, "existing")]
    {
        let pair = caught_up_on(Pair::builder().servers(source, target).start().await, mode).await;
        pair.source_sql(RENAMES).await;
        pair.source_sql(r#"INSERT INTO s."A 2" VALUES (77, 'n'); INSERT INTO other.b2 VALUES (2, 77)"#).await;
        execute(&pair.target_client().await, &[RENAMES]).await;
        with(&pair, &["catchup"], mode).code(0);
        ends_with_all_that_the_source_has(&pair, mode).await;
    }
}

/// The story: as above; what a failed end had brought in is taken away again, and
/// its SQL is the target's own.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_end_had_brought_in_follows_as_well_and_an_end_is_repeatable() {
    for mode in some_of(["create", "existing"]) {
        let pair = caught_up(mode).await;
        let target = pair.target_client().await;
        // Of a key that cannot be validated, whichever name its table has.
        execute(&target, &["INSERT INTO s.both VALUES (500, 500, 500)"]).await;
        with(&pair, &["catchup", "--finish"], mode).code(7);
        with(&pair, &["catchup"], mode).code(0);
        pair.source_sql(RENAMES).await;
        execute(&target, &[RENAMES]).await;
        let failed = with(&pair, &["catchup", "--finish"], mode).code(7);
        assert!(!failed.stderr.contains("does not exist"), "{}", failed.stderr);
        execute(&target, &["DELETE FROM s.both WHERE id = 500"]).await;
        ends_with_all_that_the_source_has(&pair, mode).await;
    }
}

/// The story: `DROP TABLE` on both sides, as printed, and then no end any more.
#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_tables_that_are_dropped_on_both_sides_falls_away_and_is_said() {
    for (mode, excluded) in some_of([("create", ""), ("create", "s.b"), ("existing", "")]) {
        let pair = caught_up(mode).await;
        let target = pair.target_client().await;
        pair.source_sql("DROP TABLE s.b CASCADE; DROP TABLE s.one CASCADE; DROP TABLE s.p").await;
        if mode == "create" {
            // The source has it no more, and rows that it would refuse.
            pair.source_sql("ALTER TABLE s.both DROP CONSTRAINT both_two_fkey; INSERT INTO s.both VALUES (7, 7, 7)")
                .await;
        }
        let said = with(&pair, &["catchup"], mode).code(8).stderr;
        for table in ["b", "one", "p"] {
            let sql = format!("DROP TABLE \"s\".\"{table}\"");
            assert!(said.contains(&sql), "{said}");
            execute(&target, &[&sql]).await;
        }
        with(&pair, &["catchup"], mode).code(0);
        if excluded.is_empty() {
            let end = with(&pair, &["catchup", "--finish"], mode).code(0).stderr;
            assert!(end.contains("b_f_fkey") && end.contains("falls away"), "{end}");
            assert!(!end.contains("a_pkey"), "{end}");
        } else {
            with(&pair, &["catchup", "--finish", "--exclude-tables", excluded], mode).code(0);
        }
        let journal = "SELECT count(*) FROM walferry.journal WHERE what LIKE '%b_f_fkey%'";
        assert_ne!(value(&target, journal).await, "0");
        execute(&target, &["UPDATE walferry.migration SET finished_at = NULL"]).await;
        ends_with_all_that_the_source_has(&pair, mode).await;
    }
}

/// The story: a key that was dropped and made again is another one by its oid.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_made_again_on_the_source_comes_in_as_it_is_there_now() {
    let pair = caught_up("create").await;
    pair.source_sql(
        "ALTER TABLE s.b DROP CONSTRAINT b_f_fkey, ADD CONSTRAINT b_f_fkey FOREIGN KEY (f) REFERENCES s.a (id) ON DELETE SET NULL;
         COMMENT ON CONSTRAINT b_f_fkey ON s.b IS 'again'",
    )
    .await;
    ends_with_all_that_the_source_has(&pair, "create").await;
}

/// A column or a key that was renamed, an action that was altered: by the same way.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_back_follows_columns_and_keys_that_are_renamed_on_the_source() {
    let pair = caught_up("create").await;
    let column = "ALTER TABLE s.b RENAME COLUMN f TO of_a; ALTER TABLE s.a RENAME COLUMN v TO text";
    pair.source_sql(column).await;
    pair.source_sql(
        "ALTER TABLE s.both RENAME CONSTRAINT both_two_fkey TO to_two; ALTER TRIGGER on_p ON s.p RENAME TO on_every_p",
    )
    .await;
    execute(&pair.target_client().await, &[column]).await;
    ends_with_all_that_the_source_has(&pair, "create").await;
}

/// The story: under `--schema existing` the SQL that waits is the target's own, and a key
/// of a column that was renamed since could never be restored: no way out.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_restored_can_be_given_up() {
    let pair = caught_up("existing").await;
    let target = pair.target_client().await;
    let column = "ALTER TABLE s.b RENAME COLUMN f TO of_a";
    pair.source_sql(column).await;
    execute(&target, &[column]).await;
    with(&pair, &["catchup"], "existing").code(0);
    let said = with(&pair, &["catchup", "--finish"], "existing").code(7).stderr;
    // The key alone: what else names the column is kept as it is by the target.
    let statements: HashSet<&str> = said
        .lines()
        .filter_map(|line| line.split_once("not wanted any more, on the target: "))
        .map(|(_, sql)| sql)
        .collect();
    assert!(!statements.is_empty(), "{said}");
    for sql in statements {
        assert_ne!(target.execute(sql, &[]).await.unwrap(), 0, "{sql}");
    }
    with(&pair, &["catchup", "--finish"], "existing").code(0);
    pair.assert_equal().await;
    let of_others = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conrelid = 's.both'::regclass";
    assert_eq!(value(&target, of_others).await, "2");
}

/// The dump is read once more only for something that is not as it was: to do so takes
/// time and pg_dump, just when the application waits.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_at_which_everything_is_as_it_was_asks_for_no_dump() {
    for server in some_of(servers()) {
        let pair = caught_up_on(Pair::builder().servers(&server, &server).start().await, "create").await;
        let elsewhere = tempfile::tempdir().unwrap();
        let arguments = ["catchup", "--finish", "--pg-bin", elsewhere.path().to_str().unwrap()];
        let end = Walferry::run(&pair, &arguments, PATIENCE).code(0).stderr;
        assert!(!end.contains("asking anew"), "{end}");
        pair.assert_equal().await;
    }
}
