//! Columns that the server computes: as what they identify rows, below roots that compute
//! otherwise, and when only the target's were altered.

use crate::journey::{PATIENCE, value};
use crate::story::Story;
use crate::support::pair::Pair;
use crate::support::process::Walferry;
use crate::support::{oldest_and_newest, some_of};

/// The story: `check` was ready, and from `run` on the application's UPDATE and DELETE failed
/// on the source (18), or came without their keys (before).
#[tokio::test]
async fn an_identity_of_columns_that_are_not_published_is_refused_before_anything_is() {
    let (oldest, newest) = oldest_and_newest();
    let key = "CREATE TABLE k (a int, g int GENERATED ALWAYS AS (a * 2) STORED PRIMARY KEY, o int NOT NULL UNIQUE); INSERT INTO k VALUES (1, DEFAULT, 1)";
    let whole = "CREATE TABLE k (a int, g int GENERATED ALWAYS AS (a * 2) STORED); ALTER TABLE k REPLICA IDENTITY FULL; INSERT INTO k VALUES (1)";
    for (server, setup, mended) in some_of([
        (&oldest, key, "REPLICA IDENTITY USING INDEX \"k_o_key\";"),
        (&newest, key, "REPLICA IDENTITY USING INDEX \"k_o_key\";"),
        (&newest, whole, "give it a unique index over NOT NULL columns that are not computed"),
    ]) {
        let pair = Pair::builder().servers(server, server).start().await;
        pair.source_sql(setup).await;
        let said = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
        assert!(said.contains(mended), "{said}");
        let said = Walferry::run(&pair, &["run"], PATIENCE).code(3).stderr;
        assert!(said.contains(mended), "{said}");
        pair.source_sql("UPDATE k SET a = 7; DELETE FROM k; INSERT INTO k (a) SELECT 1 WHERE false").await;
        let mend = match setup == key {
            true => "ALTER TABLE k REPLICA IDENTITY USING INDEX k_o_key",
            false => "ALTER TABLE k ADD i int NOT NULL UNIQUE; ALTER TABLE k REPLICA IDENTITY USING INDEX k_i_key",
        };
        pair.source_sql(mend).await;
        let story = Story::on(pair, "INSERT INTO k VALUES (1, DEFAULT, 1)", &[]).await;
        story.source("UPDATE k SET a = 3").await;
        story.leads_to_the_end().await;
    }
}

/// What an older server's whole row is, has all that is sent.
#[tokio::test]
async fn the_whole_row_with_computed_columns_is_an_identity_where_the_server_takes_it() {
    let (oldest, _) = oldest_and_newest();
    let pair = Pair::builder().servers(&oldest, &oldest).start().await;
    let setup = "CREATE TABLE k (a int, g int GENERATED ALWAYS AS (a * 2) STORED); ALTER TABLE k REPLICA IDENTITY FULL; INSERT INTO k VALUES (1), (2)";
    let story = Story::on(pair, setup, &[]).await;
    story.source("UPDATE k SET a = 3 WHERE a = 1; DELETE FROM k WHERE a = 2").await;
    story.leads_to_the_end().await;
}

const PARTED: &str = "CREATE TABLE p (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) STORED) PARTITION BY RANGE (id); \
     CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200); \
     INSERT INTO p (id, a) VALUES (1, 5), (101, 5)";

const INHERITED: &str = "CREATE TABLE p (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) STORED); \
     CREATE TABLE p1 (PRIMARY KEY (id)) INHERITS (p); CREATE TABLE p2 (PRIMARY KEY (id)) INHERITS (p); \
     INSERT INTO p (id, a) VALUES (201, 5); INSERT INTO p1 (id, a) VALUES (1, 5); INSERT INTO p2 (id, a) VALUES (101, 5)";

/// The story: the SQL was printed for the root, and changed all that is below it.
#[tokio::test(flavor = "multi_thread")]
async fn an_expression_of_a_part_is_altered_there_and_nowhere_else() {
    let (_, newest) = oldest_and_newest();
    for (setup, altered) in some_of([
        (PARTED, "ALTER TABLE p1 ALTER g SET EXPRESSION AS (a + 1)"),
        (PARTED, "ALTER TABLE p2 ALTER g SET EXPRESSION AS (a + 2); ALTER TABLE p1 ALTER g SET EXPRESSION AS (a + 1)"),
        (PARTED, "ALTER TABLE p ALTER g SET EXPRESSION AS (a * 3); ALTER TABLE p1 ALTER g SET EXPRESSION AS (a + 1)"),
        (INHERITED, "ALTER TABLE p1 ALTER g SET EXPRESSION AS (a + 5)"),
    ]) {
        let pair = Pair::builder().servers(&newest, &newest).start().await;
        let story = Story::on(pair, setup, &[]).await;
        story.source(altered).await;
        story.source("UPDATE p SET a = 6 WHERE id IN (1, 101)").await;
        story.leads_to_the_end().await;
        let expressions = "SELECT string_agg(adrelid::regclass || ' ' || pg_get_expr(adbin, adrelid), ', ' ORDER BY adrelid::regclass::text) FROM pg_attrdef WHERE adrelid::regclass::text LIKE 'p%'";
        assert_eq!(value(&story.target, expressions).await, value(&story.source, expressions).await);
    }
}

/// The story: whoever rehearsed a change on the target first was told that both sides are
/// equal.
#[tokio::test(flavor = "multi_thread")]
async fn an_expression_that_was_altered_on_the_target_alone_is_named() {
    let (_, newest) = oldest_and_newest();
    let pair = Pair::builder().servers(&newest, &newest).start().await;
    let story = Story::on(pair, PARTED, &[]).await;
    story.target.batch_execute("ALTER TABLE p ALTER g SET EXPRESSION AS (a * 3)").await.unwrap();
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains("ALTER TABLE \"public\".\"p\" ALTER COLUMN \"g\" SET EXPRESSION AS ((a * 2));"), "{said}");
    story.leads_to_the_end().await;
    // On both sides it is no difference.
    for side in [&story.source, &story.target] {
        side.batch_execute("ALTER TABLE p ALTER g SET EXPRESSION AS (a * 4)").await.unwrap();
    }
}

/// The story: the ADD COLUMN that was printed said VIRTUAL, which the target did not know.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_computed_when_it_is_read_is_stored_on_a_target_that_knows_none_such() {
    let (oldest, newest) = oldest_and_newest();
    if newest.major < 18 {
        return eprintln!("no server computes columns when they are read: nothing was tested");
    }
    let pair = Pair::builder().servers(&newest, &oldest).start().await;
    let story = Story::on(pair, "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)", &[]).await;
    story.source("ALTER TABLE t ADD twice int GENERATED ALWAYS AS (id * 2) VIRTUAL; INSERT INTO t VALUES (2)").await;
    story.leads_to_the_end().await;
}
