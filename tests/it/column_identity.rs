//! Columns are followed by what they are, not by what they are called: each story ended
//! with exit 0 and other values, or in words that did not lead out.

use crate::story::Story;
use crate::support::pair::Pair;
use crate::support::servers;

const PLAIN: &str = "CREATE DOMAIN {m}_d AS int CHECK (value > 0); \
     CREATE TABLE {m} (id int PRIMARY KEY, a text, b text, n numeric(8,2), ts timestamp(0)); \
     INSERT INTO {m} SELECT i, 'a' || i, 'b' || i, i, '2026-01-01' FROM generate_series(1, 5) i";

const COMPUTED: &str = "CREATE TABLE {m} (id int PRIMARY KEY, a text, b text, g int GENERATED ALWAYS AS (id * 2) STORED); \
     INSERT INTO {m} (id, a, b) SELECT i, 'a' || i, 'b' || i FROM generate_series(1, 5) i";

const SWAP: &str =
    "BEGIN; ALTER TABLE {m} RENAME a TO z; ALTER TABLE {m} RENAME b TO a; ALTER TABLE {m} RENAME z TO b; COMMIT";

/// A name for `{m}`.
fn named(sql: &str, number: usize) -> String {
    sql.replace("{m}", &format!("m{number}"))
}

/// DDL with a change behind it, and without one; a table for each, all in one migration.
async fn stories(setup: &str, stories: &[(&str, &str)]) {
    let setup: Vec<String> = (0..2 * stories.len()).map(|number| named(setup, number)).collect();
    let story = Story::of(&setup.join("; "), &[]).await;
    for (number, (ddl, change)) in stories.iter().flat_map(|story| [story; 2]).enumerate() {
        story.source(&named("UPDATE {m} SET b = 'before' WHERE id = 2", number)).await;
        story.source(&named(ddl, number)).await;
        if number % 2 == 0 {
            story.source(&named(change, number)).await;
        }
    }
    story.leads_to_the_end().await;
}

#[tokio::test]
async fn renamed_columns_keep_their_values_whatever_else_is_left_over() {
    stories(COMPUTED, &[("ALTER TABLE {m} RENAME a TO a2", "INSERT INTO {m} (id, a2, b) VALUES (9, 'x', 'y')")]).await;
    stories(
        PLAIN,
        &[
            (
                "ALTER TABLE {m} DROP COLUMN b; ALTER TABLE {m} RENAME a TO a2",
                "INSERT INTO {m} (id, a2) VALUES (9, 'x')",
            ),
            (
                "ALTER TABLE {m} RENAME a TO a2; ALTER TABLE {m} RENAME b TO b2",
                "INSERT INTO {m} (id, a2, b2) VALUES (9, 'x', 'y')",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn names_of_columns_that_others_have_by_now_are_noticed() {
    stories(
        PLAIN,
        &[
            (SWAP, "INSERT INTO {m} (id, a, b) VALUES (9, 'new a', 'new b'); UPDATE {m} SET a = 'u' WHERE id = 1"),
            (
                "ALTER TABLE {m} DROP COLUMN a; ALTER TABLE {m} ADD COLUMN a text DEFAULT 'new'",
                "UPDATE {m} SET a = 'u' WHERE id = 1",
            ),
            (
                "ALTER TABLE {m} DROP COLUMN ts; ALTER TABLE {m} ADD COLUMN ts timestamp",
                "UPDATE {m} SET ts = '2026-02-02' WHERE id = 1",
            ),
            ("ALTER TABLE {m} DROP COLUMN b; ALTER TABLE {m} RENAME a TO b", "UPDATE {m} SET b = 'u' WHERE id = 1"),
        ],
    )
    .await;
}

#[tokio::test]
async fn columns_that_came_later_have_the_older_rows_values() {
    stories(
        PLAIN,
        &[
            ("ALTER TABLE {m} ADD COLUMN x float8 DEFAULT random()", "UPDATE {m} SET a = 'u' WHERE id = 1"),
            ("ALTER TABLE {m} ADD COLUMN x {m}_d DEFAULT 3, ADD y text", "UPDATE {m} SET y = 'u' WHERE id = 1"),
            ("ALTER TABLE {m} ADD COLUMN x int GENERATED ALWAYS AS IDENTITY", "INSERT INTO {m} (id) VALUES (9)"),
            ("ALTER TABLE {m} ADD COLUMN x serial", "INSERT INTO {m} (id) VALUES (9)"),
            ("ALTER TABLE {m} ADD COLUMN g int GENERATED ALWAYS AS (id * 2) STORED", "INSERT INTO {m} (id) VALUES (9)"),
        ],
    )
    .await;
}

#[tokio::test]
async fn types_and_expressions_are_followed() {
    stories(
        PLAIN,
        &[
            (
                "ALTER TABLE {m} ALTER n TYPE numeric, ALTER ts TYPE timestamp",
                "INSERT INTO {m} VALUES (9, 'x', 'y', 1.23456, '2026-01-01 10:00:00.777')",
            ),
            ("ALTER TABLE {m} ALTER n TYPE numeric(12,4)", "INSERT INTO {m} VALUES (9, 'x', 'y', 1.2345)"),
            ("ALTER TABLE {m} ALTER n TYPE numeric(6,1)", "INSERT INTO {m} VALUES (9, 'x', 'y', 1.25)"),
            // Printed was the type that it has by now, for ever.
            (
                "ALTER TABLE {m} ALTER n TYPE numeric(12,4); INSERT INTO {m} VALUES (8, 'x', 'y', 1.2345); \
                 ALTER TABLE {m} ALTER n TYPE numeric(6,1)",
                "INSERT INTO {m} VALUES (9, 'x', 'y', 1.25)",
            ),
            (
                "ALTER TABLE {m} ALTER ts TYPE timestamptz USING ts AT TIME ZONE 'UTC'",
                "UPDATE {m} SET ts = '2026-03-03 10:00+02' WHERE id = 1",
            ),
        ],
    )
    .await;
    stories(COMPUTED, &[("ALTER TABLE {m} ALTER g DROP EXPRESSION", "UPDATE {m} SET g = 777 WHERE id = 1")]).await;
}

/// The story: "cannot add column to a partition", for ever.
#[tokio::test]
async fn columns_of_partitions_and_children_are_altered_where_it_reaches_them() {
    let parted = "CREATE TABLE {m} (id int, b text, PRIMARY KEY (id)) PARTITION BY RANGE (id); \
         CREATE TABLE {m}_0 PARTITION OF {m} FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id); \
         CREATE TABLE {m}_0_0 PARTITION OF {m}_0 FOR VALUES FROM (0) TO (50); CREATE TABLE {m}_1 PARTITION OF {m} FOR VALUES FROM (100) TO (200); \
         INSERT INTO {m} SELECT i, 'b' FROM generate_series(1, 5) i";
    let inherited = "CREATE TABLE {m} (id int PRIMARY KEY, b text); CREATE TABLE {m}_child (PRIMARY KEY (id)) INHERITS ({m}); \
         INSERT INTO {m} VALUES (1, 'b'), (2, 'b'); INSERT INTO {m}_child VALUES (3, 'c')";
    for setup in [parted, inherited] {
        stories(
            setup,
            &[
                ("ALTER TABLE {m} ADD COLUMN w int DEFAULT 5", "UPDATE {m} SET w = 1 WHERE id = 3"),
                ("ALTER TABLE {m} RENAME b TO bb", "UPDATE {m} SET bb = 'u' WHERE id = 3"),
                ("ALTER TABLE {m} ALTER b TYPE varchar(9)", "UPDATE {m} SET b = 'u' WHERE id = 3"),
            ],
        )
        .await;
    }
}

/// The story: named in the write pause, with SQL that lost the column's values and default.
#[tokio::test]
async fn columns_of_unlogged_tables_are_followed_before_the_end() {
    let ddl = ["RENAME id TO r1", "RENAME v TO w", "ADD COLUMN c int NOT NULL DEFAULT 7"];
    let unlogged =
        "CREATE UNLOGGED TABLE u{m} (id serial PRIMARY KEY, v text); INSERT INTO u{m} (v) VALUES ('a'), ('b')";
    let setup: Vec<String> = (0..ddl.len()).map(|number| named(unlogged, number)).collect();
    let story = Story::of(&format!("{}; {}", named(PLAIN, 0), setup.join("; ")), &[]).await;
    for (number, ddl) in ddl.iter().enumerate() {
        story.source(&named(&format!("ALTER TABLE u{{m}} {ddl}"), number)).await;
    }
    story.run(&["catchup"], 8);
    story.leads_to_the_end().await;
}

/// Columns are told apart also where the target's are the operator's, in another order.
#[tokio::test]
async fn columns_are_followed_in_a_schema_of_the_operators() {
    let stories = [
        (SWAP, "UPDATE {m} SET a = 'u' WHERE id = 1"),
        ("ALTER TABLE {m} DROP COLUMN b; ALTER TABLE {m} RENAME a TO b", "UPDATE {m} SET b = 'u' WHERE id = 1"),
        ("ALTER TABLE {m} ADD COLUMN x float8 DEFAULT random()", "INSERT INTO {m} (id) VALUES (9)"),
    ];
    let there = "CREATE TABLE {m} (ts timestamp, b text, own int, n numeric, a text, id bigint PRIMARY KEY)";
    let of_all = |sql: &str| (0..stories.len()).map(|number| named(sql, number)).collect::<Vec<_>>().join("; ");
    let story = of_the_operator(&of_all(there), &of_all(PLAIN)).await;
    for (number, (ddl, change)) in stories.iter().enumerate() {
        story.source(&named(ddl, number)).await;
        story.source(&named(change, number)).await;
    }
    story.leads_to_the_end().await;
}

/// A migration into tables that are there.
async fn of_the_operator(there: &str, setup: &str) -> Story {
    let pair = Pair::builder().start().await;
    pair.target_client().await.batch_execute(there).await.unwrap();
    Story::on(pair, setup, &["--schema", "existing"]).await
}

/// The stories: a column that was added on the target without what was printed for the
/// older rows, or made anew there, was taken for the source's, with exit 0; the columns of
/// a table that was made anew in another order were to be renamed.
#[tokio::test]
async fn what_the_operator_makes_otherwise_than_it_was_is_compared() {
    let tables = |sql: &str| (0..3).map(|number| named(sql, number)).collect::<Vec<_>>().join("; ");
    let another = "CREATE TABLE m2 (b text, n numeric(8,2), ts timestamp(0), a text, id int PRIMARY KEY)";
    let there = format!(
        "CREATE TABLE m0 (id int PRIMARY KEY, a text, b text, n numeric(8,2), ts timestamp(0), x int DEFAULT 5); \
         CREATE TABLE m1 (id int PRIMARY KEY, a text, b text, n numeric, ts timestamp); {another}"
    );
    let of_create = Story::of(&tables(PLAIN), &[]).await;
    of_create.source("ALTER TABLE m0 ADD COLUMN x int DEFAULT 5").await;
    of_create.target.batch_execute("ALTER TABLE m0 ADD COLUMN x int; DROP TABLE m2").await.unwrap();
    of_create.target.batch_execute(another).await.unwrap();
    let of_existing = of_the_operator(&there, &tables(PLAIN)).await;
    of_existing.target.batch_execute("UPDATE m0 SET x = id; DROP TABLE m2").await.unwrap();
    of_existing
        .target
        .batch_execute("CREATE TABLE m2 (id int PRIMARY KEY, a text, n numeric(8,2), b text, ts timestamp(0))")
        .await
        .unwrap();
    of_existing.source("ALTER TABLE m0 ADD COLUMN x int DEFAULT 5").await;
    for story in [of_create, of_existing] {
        story.target.batch_execute("ALTER TABLE m1 DROP COLUMN b; ALTER TABLE m1 ADD COLUMN b text").await.unwrap();
        let said = story.run(&["catchup"], 8).stderr;
        assert!(said.contains("3 tables are not equal") && !said.contains("RENAME"), "{said}");
        for table in ["m0", "m1", "m2"] {
            assert!(said.contains(&format!("walferry resync 'public.{table}'")), "{table}:\n{said}");
        }
        story.leads_to_the_end().await;
    }
}

/// The story: what the rows of the partitions had came as NULL.
#[tokio::test]
async fn a_column_that_comes_in_the_name_of_a_root_has_the_older_rows_values() {
    let versions = servers();
    let server = versions.last().unwrap();
    let pair = Pair::builder().servers(server, server).start().await;
    let setup = "CREATE TABLE p (id int PRIMARY KEY, b text) PARTITION BY RANGE (id); \
         CREATE TABLE p_0 PARTITION OF p FOR VALUES FROM (0) TO (100); INSERT INTO p VALUES (1, 'b'); \
         CREATE PUBLICATION mine FOR TABLE p WITH (publish_via_partition_root)";
    let story = Story::on(pair, setup, &["--publication", "mine"]).await;
    story.source("ALTER TABLE p ADD COLUMN w int DEFAULT 5; INSERT INTO p VALUES (2, 'c', 6)").await;
    let said = story.run(&["catchup"], 7).stderr;
    assert!(said.contains("ADD COLUMN \"w\" integer DEFAULT '5'"), "{said}");
    // Not to the letter.
    story.target.batch_execute("ALTER TABLE p ADD COLUMN w int").await.unwrap();
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains("walferry resync 'public.p'"), "{said}");
    story.leads_to_the_end().await;
}

/// With a column list what is not listed is nobody's concern, and a rename is one.
#[tokio::test]
async fn columns_of_a_list_are_followed() {
    let versions = servers();
    let server = versions.last().unwrap();
    let pair = Pair::builder().servers(server, server).start().await;
    pair.target_client().await.batch_execute("CREATE TABLE m0 (id int PRIMARY KEY, a text, n numeric)").await.unwrap();
    let setup = format!("{}; CREATE PUBLICATION mine FOR TABLE m0 (id, a, n)", named(PLAIN, 0));
    let story = Story::on(pair, &setup, &["--publication", "mine", "--schema", "existing"]).await;
    story
        .source(
            "ALTER TABLE m0 RENAME a TO a2; ALTER TABLE m0 ADD COLUMN later int DEFAULT 3; ALTER TABLE m0 DROP COLUMN b",
        )
        .await;
    story.source("INSERT INTO m0 (id, a2) VALUES (9, 'x')").await;
    let said = story.run(&["catchup"], 7);
    story.do_as_printed(&said, "ALTER TABLE \"public\".\"m0\" RENAME COLUMN \"a\" TO \"a2\"").await;
    story.run(&["catchup"], 0);
    let rows = "SELECT string_agg(concat_ws(' ', id, a2, n), ', ' ORDER BY id) FROM m0";
    let value = async |client: &tokio_postgres::Client| client.query_one(rows, &[]).await.unwrap().get::<_, String>(0);
    assert_eq!(value(&story.target).await, value(&story.source).await);
}
