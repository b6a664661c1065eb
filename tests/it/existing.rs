//! Constraints that rows violate, and a schema that is on the target already.

use crate::journey::{execute, value};
use crate::migration::PATIENCE;
use crate::support::pair::Pair;
use crate::support::process::Walferry;

const TABLES: &str = "
    CREATE DOMAIN small AS int;
    CREATE TABLE parent (id int PRIMARY KEY);
    CREATE TABLE item (id int PRIMARY KEY, parent int, other int, v int, x small);
    CREATE TABLE item_2 (PRIMARY KEY (id)) INHERITS (item);
    CREATE TABLE visit (id int, at int, v int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE visit_1 PARTITION OF visit FOR VALUES FROM (0) TO (10);
    ALTER TABLE item REPLICA IDENTITY FULL";

/// From before the constraints.
const ROWS: &str = "
    INSERT INTO parent SELECT generate_series(1, 9);
    INSERT INTO item SELECT i, i, 100, -i, 99 FROM generate_series(1, 9) i;
    INSERT INTO item_2 SELECT i, 1, 100, -i, 99 FROM generate_series(10, 30) i;
    INSERT INTO visit SELECT i, 5, -1 FROM generate_series(1, 9) i";

const CONSTRAINTS: &str = "
    ALTER TABLE item ADD CONSTRAINT positive CHECK (v > 0) NOT VALID;
    ALTER TABLE item_2 ADD CONSTRAINT own CHECK (x < 10) NOT VALID;
    ALTER TABLE visit ADD CONSTRAINT positive CHECK (v > 0) NOT VALID;
    COMMENT ON CONSTRAINT positive ON item IS 'it''s for new ones';
    ALTER DOMAIN small ADD CONSTRAINT is_small CHECK (value < 10) NOT VALID;
    COMMENT ON CONSTRAINT is_small ON DOMAIN small IS 'new ones';
    ALTER TABLE item ADD CONSTRAINT by_parent FOREIGN KEY (parent) REFERENCES parent ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;
    COMMENT ON CONSTRAINT by_parent ON item IS 'kept';
    ALTER TABLE item ADD CONSTRAINT never FOREIGN KEY (other) REFERENCES parent NOT VALID";

/// Every constraint but NOT NULL, with what belongs to it.
const ALL_CONSTRAINTS: &str = "SELECT string_agg(concat_ws(' ', conrelid::regclass, contypid::regtype, conname, pg_get_constraintdef(oid), convalidated,
        condeferrable, condeferred, conislocal, coninhcount, obj_description(oid, 'pg_constraint')), E'\\n' ORDER BY conname, conrelid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'";

async fn journey(mode: &str) {
    let pair = Pair::builder().start().await;
    for sql in [TABLES, ROWS, CONSTRAINTS] {
        pair.source_sql(sql).await;
    }
    let target = pair.target_client().await;
    if mode == "existing" {
        execute(&target, &[TABLES, CONSTRAINTS]).await;
    }
    let with = |arguments: &[&str]| Walferry::run(&pair, &[arguments, &["--schema", mode]].concat(), PATIENCE);
    with(&["run", "--until", "caught-up"]).code(0);
    // Of a row that violates the domain's constraint another column changes.
    pair.source_sql("UPDATE item SET parent = 2, v = 1 WHERE id = 3; DELETE FROM parent WHERE id = 4").await;
    pair.source_sql("UPDATE visit SET v = 1 WHERE id = 3").await;
    with(&["catchup", "--finish"]).code(0);
    let expected = value(&pair.source_client().await, ALL_CONSTRAINTS).await;
    assert_eq!(value(&target, ALL_CONSTRAINTS).await, expected, "{mode}");
    pair.assert_equal().await;
}

/// The story: the rows from before a constraint NOT VALID stopped the copy, or an
/// UPDATE of another column the stream, and a key lost its comment.
#[tokio::test(flavor = "multi_thread")]
async fn constraints_that_rows_violate_wait_where_the_schema_exists_and_keys_come_back_as_they_were() {
    journey("existing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn constraints_that_rows_violate_wait_where_the_schema_is_ours() {
    journey("create").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_missing_is_asked_for_at_the_root_alone() {
    let pair = Pair::builder().start().await;
    pair.source_sql(TABLES).await;
    pair.source_sql("ALTER TABLE visit ADD COLUMN late int; INSERT INTO visit VALUES (1, 1, 1, 1)").await;
    let target = pair.target_client().await;
    execute(&target, &[TABLES]).await;
    let run = ["run", "--until", "caught-up", "--schema", "existing"];
    let refused = Walferry::run(&pair, &run, PATIENCE).code(3);
    let asked: Vec<&str> =
        refused.stderr.lines().map(str::trim).filter(|line| line.starts_with("ALTER TABLE")).collect();
    assert_eq!(asked, ["ALTER TABLE \"public\".\"visit\" ADD COLUMN \"late\" integer;"]);
    execute(&target, &asked).await;
    Walferry::run(&pair, &run, PATIENCE).code(0);
    pair.assert_equal().await;
}

/// The story: a sequence that no column owns did not come with the table whose
/// default uses it, and the table was refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_added_brings_the_sequences_of_its_defaults() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TABLE first (id int PRIMARY KEY)").await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    pair.source_sql(
        "CREATE SEQUENCE free INCREMENT 5; CREATE SEQUENCE shared; \
         CREATE TABLE late (id int PRIMARY KEY DEFAULT nextval('free'), own serial, n int DEFAULT nextval('shared')); \
         INSERT INTO late DEFAULT VALUES; INSERT INTO late DEFAULT VALUES",
    )
    .await;
    let target = pair.target_client().await;
    execute(&target, &["CREATE SEQUENCE shared"]).await;
    Walferry::run(&pair, &["add", "late"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    let state = "SELECT (SELECT last_value FROM free) || ' ' || (SELECT last_value FROM shared) || ' ' || (SELECT last_value FROM late_own_seq)";
    assert_eq!(value(&target, state).await, value(&pair.source_client().await, state).await);
    pair.assert_equal().await;
}

/// The story: run warned, and only the end said what it wanted.
#[tokio::test(flavor = "multi_thread")]
async fn sequences_that_lack_or_may_not_be_set_are_said_by_check_where_the_schema_exists() {
    let pair = Pair::builder().start().await;
    let tables = "CREATE TABLE t (id serial PRIMARY KEY, n int)";
    pair.source_sql(&format!("{tables}; CREATE SEQUENCE alone INCREMENT 3")).await;
    let target = pair.target_client().await;
    execute(&target, &[tables, "REVOKE ALL ON SEQUENCE t_id_seq FROM doadmin"]).await;
    let check = || Walferry::run(&pair, &["check", "--schema", "existing"], PATIENCE).code(0).stdout;
    let said = check();
    for sql in [
        "CREATE SEQUENCE IF NOT EXISTS \"public\".\"alone\"",
        "GRANT SELECT, UPDATE ON SEQUENCE \"public\".\"t_id_seq\" TO",
    ] {
        assert!(said.contains(sql), "no {sql} in:\n{said}");
    }
    let mended = ["CREATE SEQUENCE alone INCREMENT 3", "GRANT SELECT, UPDATE ON SEQUENCE t_id_seq TO doadmin"];
    execute(&target, &mended).await;
    assert!(!check().contains("SEQUENCE"), "{}", check());
}
