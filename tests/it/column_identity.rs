//! Columns are followed by what they are, not by what they are called: each story ended
//! with exit 0 and other values, or in words that did not lead out.

use crate::story::Story;
use crate::support::pair::Pair;
use crate::support::{oldest_and_newest, servers, some_of};

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
    let stories: Vec<&(&str, &str)> = some_of(stories).collect();
    let setup: Vec<String> = (0..2 * stories.len()).map(|number| named(setup, number)).collect();
    let story = Story::of(&setup.join("; "), &[]).await;
    for (number, (ddl, change)) in stories.iter().flat_map(|story| [*story; 2]).enumerate() {
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

/// The stories: a change was read after the DDL behind it, and written by names that are
/// those of other columns by then.
#[tokio::test]
async fn changes_between_two_pieces_of_ddl_find_their_columns() {
    let swapped = |one: &str, other: &str| {
        let rename = |from: &str, to: &str| format!("ALTER TABLE {{m}} RENAME {from} TO {to};");
        [rename(one, "z"), rename(other, one), rename("z", other)].concat()
    };
    let and_dropped =
        format!("BEGIN; {} UPDATE {{m}} SET a = 'new a' || id; ALTER TABLE {{m}} DROP a; COMMIT", swapped("a", "b"));
    let made_anew = "ALTER TABLE {m} DROP a; ALTER TABLE {m} ADD a text; INSERT INTO {m} (id, a, b) VALUES (7, 'a', 'b'); \
         ALTER TABLE {m} RENAME a TO e";
    let came = format!(
        "ALTER TABLE {{m}} RENAME a TO c; ALTER TABLE {{m}} ADD a text DEFAULT 'd'; \
         INSERT INTO {{m}} (id, a, b, c) VALUES (7, 'a', 'b', 'c'); {}",
        swapped("a", "c")
    );
    let exchanged = format!(
        "ALTER TABLE {{m}} ADD c text DEFAULT 'd'; INSERT INTO {{m}} (id, a, b, c) VALUES (7, 'a', 'b', 'c'); {}",
        swapped("a", "c")
    );
    let of_two_types = format!(
        "ALTER TABLE {{m}} ADD c int DEFAULT 5, ADD d text DEFAULT 'd'; INSERT INTO {{m}} (id, c, d) VALUES (7, 7, 't'); {}",
        swapped("c", "d")
    );
    let twice = "ALTER TABLE {m} RENAME a TO d; ALTER TABLE {m} RENAME b TO a; INSERT INTO {m} (id, d, a) VALUES (7, 'd', 'a'); \
         ALTER TABLE {m} DROP a";
    stories(
        PLAIN,
        &[
            (&and_dropped, "UPDATE {m} SET b = 'u' WHERE id = 1"),
            (made_anew, "INSERT INTO {m} (id, e) VALUES (9, 'e')"),
            (&came, "INSERT INTO {m} (id, a, c) VALUES (9, 'a', 'c')"),
            (&exchanged, "INSERT INTO {m} (id, a, c) VALUES (9, 'a', 'c')"),
            (&of_two_types, "INSERT INTO {m} (id, c) VALUES (9, 'c')"),
            // In the midst of a transaction: no table of the target has a place for both.
            (
                "BEGIN; UPDATE {m} SET a = 'u' WHERE id = 1; ALTER TABLE {m} RENAME a TO k; UPDATE {m} SET k = 'v' WHERE id = 2; COMMIT",
                "UPDATE {m} SET k = 'w' WHERE id = 3",
            ),
            (
                "BEGIN; INSERT INTO {m} (id, a, b) VALUES (7, 'a', 'b'); ALTER TABLE {m} ADD k text; \
                 ALTER TABLE {m} ALTER k SET DEFAULT 'later'; INSERT INTO {m} (id, a, b) VALUES (8, 'a', 'b'); COMMIT",
                "UPDATE {m} SET k = 'w' WHERE id = 3",
            ),
            (twice, "INSERT INTO {m} (id, d) VALUES (9, 'd')"),
        ],
    )
    .await;
}

/// The stories: '007' became 7, with exit 0; or the target refused a value, without the
/// ALTER; or the ALTER was refused as there is no cast, or as the default has none.
#[tokio::test]
async fn a_type_of_another_kind_is_a_stop_with_an_alter_that_works() {
    let typed = "CREATE TABLE {m} (id int PRIMARY KEY, b text, i int DEFAULT 7, t text DEFAULT '1', j jsonb, l int[], n int, \
             g int GENERATED ALWAYS AS (n * 2) STORED); \
         INSERT INTO {m} SELECT i, 'b', i, i, '{\"a\":1}', '{1}', i FROM generate_series(1, 5) i";
    stories(
        typed,
        &[
            ("ALTER TABLE {m} ALTER i TYPE text", "INSERT INTO {m} (id, i) VALUES (9, '007'), (10, 'x')"),
            (
                "ALTER TABLE {m} ALTER i DROP DEFAULT, ALTER i TYPE boolean USING i = 1, ALTER i SET DEFAULT true",
                "INSERT INTO {m} (id) VALUES (9)",
            ),
            (
                "ALTER TABLE {m} ALTER t DROP DEFAULT, ALTER t TYPE int USING t::int, ALTER t SET DEFAULT 1",
                "INSERT INTO {m} (id) VALUES (9)",
            ),
            ("ALTER TABLE {m} ALTER j TYPE text", "INSERT INTO {m} (id, j) VALUES (9, '{ \"a\": 1 }')"),
            (
                "ALTER TABLE {m} ALTER i DROP DEFAULT, ALTER i TYPE uuid USING gen_random_uuid(), ALTER i SET NOT NULL, \
                 ALTER i SET DEFAULT gen_random_uuid()",
                "INSERT INTO {m} (id) VALUES (9)",
            ),
            ("ALTER TABLE {m} ALTER l TYPE text[]", "INSERT INTO {m} (id, l) VALUES (9, '{007}')"),
            // As the source has done it: with an expression, cut, without the default, without
            // what was computed from it.
            ("ALTER TABLE {m} ALTER b TYPE int USING length(b)", "INSERT INTO {m} (id, b) VALUES (9, 7)"),
            (
                "UPDATE {m} SET b = 'a long one' WHERE id = 1; ALTER TABLE {m} ALTER b TYPE varchar(3) USING b::varchar(3)",
                "INSERT INTO {m} (id, b) VALUES (9, 'abc')",
            ),
            ("ALTER TABLE {m} ALTER t DROP DEFAULT, ALTER t TYPE int USING t::int", "INSERT INTO {m} (id) VALUES (9)"),
            (
                "BEGIN; ALTER TABLE {m} DROP g; ALTER TABLE {m} ALTER n TYPE bigint; \
                 ALTER TABLE {m} ADD g bigint GENERATED ALWAYS AS (n * 2) STORED; COMMIT",
                "INSERT INTO {m} (id, n) VALUES (9, 5000000000)",
            ),
            ("ALTER TABLE {m} DROP g; ALTER TABLE {m} ALTER n TYPE text", "INSERT INTO {m} (id, n) VALUES (9, 'n')"),
        ],
    )
    .await;
    // Copied anew, and without a stream.
    let unlogged = "CREATE UNLOGGED TABLE u (id int PRIMARY KEY, i int)";
    let story = Story::of(&format!("CREATE TABLE m0 (id int PRIMARY KEY, i int); {unlogged}"), &[]).await;
    for table in ["m0", "u"] {
        story.source(&format!("ALTER TABLE {table} ALTER i TYPE text; INSERT INTO {table} VALUES (1, '007')")).await;
    }
    let said = story.run(&["resync", "m0"], 3).stderr;
    assert!(said.contains("ALTER TABLE \"public\".\"m0\" ALTER COLUMN \"i\" TYPE text"), "{said}");
    story.leads_to_the_end().await;
}

#[tokio::test]
async fn columns_that_came_later_have_the_older_rows_values() {
    stories(
        PLAIN,
        &[
            ("ALTER TABLE {m} ADD COLUMN x float8 DEFAULT random()", "UPDATE {m} SET a = 'u' WHERE id = 1"),
            ("ALTER TABLE {m} ADD COLUMN x {m}_d DEFAULT 3, ADD y text", "UPDATE {m} SET y = 'u' WHERE id = 1"),
            (
                "ALTER TABLE {m} ADD x box DEFAULT '(1,2),(3,4)', ADD y text[] DEFAULT '{\"a,b\",NULL}', ADD z text DEFAULT ''",
                "UPDATE {m} SET y = '{u}' WHERE id = 1",
            ),
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
    let inherited = "CREATE TABLE {m} (id int PRIMARY KEY, b text); CREATE TABLE {m}_child (own int, PRIMARY KEY (id)) INHERITS ({m}); \
         INSERT INTO {m} VALUES (1, 'b'), (2, 'b'); INSERT INTO {m}_child VALUES (3, 'c', 4)";
    stories(inherited, &[("ALTER TABLE {m}_child RENAME own TO other", "UPDATE {m}_child SET other = 5")]).await;
    let narrowed =
        "ALTER TABLE {m} ALTER b TYPE varchar(9); CREATE TABLE {m}_2 PARTITION OF {m} FOR VALUES FROM (200) TO (300)";
    stories(parted, &[(narrowed, "INSERT INTO {m} VALUES (201, 'x')")]).await;
    // What one partition alone has met, its root and the others are to follow.
    let late = "ALTER TABLE {m} ADD n text DEFAULT 'd'; COMMIT; UPDATE {m} SET n = 'x' WHERE id = 3; COMMIT; ALTER TABLE {m} RENAME n TO k";
    for setup in some_of([parted, inherited]) {
        stories(
            setup,
            &[
                (late, "INSERT INTO {m} (id, k) VALUES (150, 'y')"),
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

/// The stories: what a column had that is computed no more was dropped without a word; one
/// that exchanged its name with a computed one was to take its place.
#[tokio::test]
async fn columns_that_are_computed_on_both_sides_are_followed_in_a_schema_of_the_operators() {
    let tables = |sql: &str| (0..2).map(|number| named(sql, number)).collect::<Vec<_>>().join("; ");
    let there = COMPUTED.split(';').next().unwrap();
    let story = of_the_operator(&tables(there), &tables(COMPUTED)).await;
    story
        .source("ALTER TABLE m0 ALTER g DROP EXPRESSION; UPDATE m0 SET g = 99; INSERT INTO m0 VALUES (9, 'x', 'y', 33)")
        .await;
    story.source("ALTER TABLE m1 RENAME g TO x; ALTER TABLE m1 RENAME a TO g; ALTER TABLE m1 RENAME x TO a").await;
    story.source("UPDATE m1 SET g = 'u' WHERE id = 1").await;
    story.leads_to_the_end().await;
    let rows = "SELECT string_agg(t::text, ' ' ORDER BY id) FROM (SELECT id, a::text, b, g::text FROM m1) t";
    let value = async |client: &tokio_postgres::Client| client.query_one(rows, &[]).await.unwrap().get::<_, String>(0);
    assert_eq!(value(&story.target).await, value(&story.source).await);
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

/// The stories: exit 0 and other values: of a column whose older rows were written anew on
/// each side by itself, and of one that the source computes otherwise by now.
#[tokio::test]
async fn values_that_each_side_makes_by_itself_are_compared() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, at timestamp); INSERT INTO t VALUES (1, '2020-01-01 12:00')";
    let story = Story::of(setup, &[]).await;
    story.target.batch_execute("SET timezone = 'America/New_York'").await.unwrap();
    story
        .source("SET timezone = 'UTC'; ALTER TABLE t ALTER at TYPE timestamptz; INSERT INTO t VALUES (2, now())")
        .await;
    story.leads_to_the_end().await;
    // In one transaction, so that there are changes from before and after it.
    let dropped = "BEGIN; INSERT INTO t (id, a) VALUES (2, 'two'); ALTER TABLE t ALTER g DROP EXPRESSION; \
         INSERT INTO t VALUES (3, 'three', 'free'); COMMIT";
    let computed = "CREATE TABLE t (id int PRIMARY KEY, a text, g text GENERATED ALWAYS AS (a || '!') STORED); \
         INSERT INTO t (id, a) VALUES (1, 'one')";
    let (_, newest) = oldest_and_newest();
    for (alter, oldest) in some_of([(dropped, true), ("ALTER TABLE t ALTER g SET EXPRESSION AS (a || '?')", false)]) {
        let builder = Pair::builder();
        let pair = if oldest { builder } else { builder.servers(&newest, &newest) }.start().await;
        let story = Story::on(pair, computed, &[]).await;
        story.source(alter).await;
        story.leads_to_the_end().await;
    }
}

/// The stories: a table that was copied anew before its columns were mended was paired by
/// name, and what was printed afterwards failed for ever.
#[tokio::test]
async fn a_table_whose_columns_have_other_names_by_now_is_not_copied_anew_before_they_are_mended() {
    let setup = "CREATE TABLE p (id int PRIMARY KEY, a text, b text) PARTITION BY RANGE (id); \
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (50); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (50) TO (99); \
         INSERT INTO p VALUES (1, 'a1', 'b1'), (51, 'a51', 'b51')";
    let story = Story::of(setup, &[]).await;
    story.source("ALTER TABLE p RENAME a TO x; UPDATE p SET x = 'x1' WHERE id = 1").await;
    let said = story.run(&["resync", "p1"], 3);
    assert!(said.stderr.contains(r#"ALTER TABLE "public"."p" RENAME COLUMN "a" TO "x""#), "{}", said.stderr);
    story.do_as_printed(&said, "ALTER TABLE \"public\".\"p\"").await;
    story.run(&["resync", "p1"], 0);
    // What the target has kept of a dropped one is still known to be of that.
    story.source("ALTER TABLE p DROP b").await;
    story.run(&["resync", "p"], 0);
    story.source("ALTER TABLE p RENAME x TO b; UPDATE p SET b = 'u' WHERE id = 51").await;
    story.leads_to_the_end().await;
}

/// The story: exit 0, and another value in every row of an enum's renamed label.
#[tokio::test]
async fn enums_and_composite_types_that_are_altered_are_named_and_their_rows_compared() {
    let setup = "CREATE TYPE e AS ENUM ('x', 'y'); CREATE TYPE c AS (a text, b text); \
         CREATE TABLE t (id int PRIMARY KEY, v e, w e[]); INSERT INTO t VALUES (1, 'x', '{x,y}'); \
         CREATE TABLE u (id int PRIMARY KEY, r c); INSERT INTO u VALUES (1, ROW('a', 'b')); \
         CREATE TABLE w (id int PRIMARY KEY, v e)";
    let story = Story::of(setup, &[]).await;
    story.source("ALTER TYPE e RENAME VALUE 'x' TO 'x2'").await;
    story.source("ALTER TYPE e ADD VALUE 'w' BEFORE 'y'").await;
    // Said of the first table that has it, and of the one that is asked for.
    let said = story.run(&["resync", "w"], 3);
    assert!(said.stderr.contains("ALTER TYPE public.e RENAME VALUE 'x' TO 'x2'"), "{}", said.stderr);
    let said = story.run(&["catchup"], 8);
    for sql in ["ALTER TYPE public.e RENAME VALUE 'x' TO 'x2'", "ALTER TYPE public.e ADD VALUE 'w' AFTER 'x2'"] {
        assert!(said.stderr.contains(sql), "{}", said.stderr);
        story.target.batch_execute(sql).await.unwrap();
    }
    story.source("INSERT INTO t VALUES (2, 'w', '{x2,w}')").await;
    story.ends_equal().await;
    story.source("ALTER TYPE c DROP ATTRIBUTE a; ALTER TYPE c ADD ATTRIBUTE a text").await;
    let said = story.run(&["catchup"], 8);
    story
        .do_as_printed(&said, "ALTER TYPE public.c DROP ATTRIBUTE \"a\" CASCADE; ALTER TYPE public.c ADD ATTRIBUTE")
        .await;
    story.ends_equal().await;
    story.run(&["catchup", "--finish"], 0);
}

/// The stories: exit 0, and other values: an enum's label that was renamed, whose old name
/// another one has now, exchanged names, and an attribute that was dropped and made again.
/// And a stop for ever at a value of a label that was added, without a word of it.
#[tokio::test]
async fn labels_and_attributes_are_told_from_others_of_their_names() {
    let setup = "CREATE TYPE e AS ENUM ('a', 'b', 'c'); CREATE DOMAIN d AS e[]; CREATE TYPE c AS (x int, y text); CREATE TYPE n AS (c c, e e); \
         CREATE TABLE t (id int PRIMARY KEY, v e, w d); INSERT INTO t VALUES (1, 'a', '{a,c}'), (2, 'b', '{b}'); \
         CREATE TABLE u (id int PRIMARY KEY, r c[], s n); INSERT INTO u VALUES (1, ARRAY[ROW(1, 'y')::c], ROW(ROW(2, 'z'), 'b'))";
    let story = Story::of(setup, &[]).await;
    for ddl in [
        "ALTER TYPE e RENAME VALUE 'b' TO 'old'; ALTER TYPE e ADD VALUE 'b'",
        "ALTER TYPE e RENAME VALUE 'a' TO 'aside'; ALTER TYPE e RENAME VALUE 'c' TO 'a'; ALTER TYPE e RENAME VALUE 'aside' TO 'c'",
        "ALTER TYPE c DROP ATTRIBUTE y; ALTER TYPE c ADD ATTRIBUTE y text",
    ] {
        for sql in ddl.split("; ") {
            story.source(sql).await;
        }
        story.leads_on().await;
    }
    // Done on both sides, and there before the change from before it has come.
    story.source("INSERT INTO t VALUES (3, 'b', '{b}')").await;
    for sql in ["ALTER TYPE e RENAME VALUE 'b' TO 'was_b'", "ALTER TYPE e ADD VALUE 'b'"] {
        story.source(sql).await;
        story.target.batch_execute(sql).await.unwrap();
    }
    story.leads_on().await;
    // Somebody makes there by hand what was renamed here.
    story.source("ALTER TYPE e RENAME VALUE 'old' TO 'older'").await;
    story.target.batch_execute("ALTER TYPE e ADD VALUE 'older'").await.unwrap();
    story.leads_on().await;
    for (ddl, write) in [
        ("ALTER TYPE e ADD VALUE 'new'", "UPDATE t SET v = 'new' WHERE id = 1"),
        ("ALTER TYPE c ADD ATTRIBUTE z int", "UPDATE u SET r = ARRAY[ROW(3, 'y', 4)::c]"),
    ] {
        story.source(ddl).await;
        story.source(write).await;
        let said = story.run(&["catchup"], 7);
        story.do_as_printed(&said, "ALTER TYPE public.").await;
    }
    story.leads_to_the_end().await;
}

/// The story: 0, and another type for ever, as none of the values was another one.
#[tokio::test]
async fn a_type_that_loses_nothing_is_named_where_the_source_has_altered_it() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, a text, b int); INSERT INTO t VALUES (1, '7', 8)";
    let story = Story::of(setup, &[]).await;
    // The target's own.
    story.target.batch_execute("ALTER TABLE t ALTER b TYPE bigint").await.unwrap();
    story.ends_equal().await;
    story.source("ALTER TABLE t ALTER a TYPE int USING a::int; INSERT INTO t VALUES (2, 3, 4)").await;
    let said = story.run(&["catchup"], 8);
    assert!(said.stderr.contains(r#"ALTER COLUMN "a" TYPE integer"#), "{}", said.stderr);
    story.leads_to_the_end().await;
}

/// The stories: exit 0, and other values: labels that exchanged their names and got them back,
/// an attribute that was made anew on both sides, while changes from before had not come; and
/// the SQL for one was said once, and a remark that leads nowhere from then on.
#[tokio::test]
async fn what_was_altered_back_or_on_both_sides_is_compared() {
    let setup = "CREATE TYPE e AS ENUM ('a', 'b'); CREATE TYPE c AS (x text, y text); CREATE TYPE d AS (x text, y text); \
         CREATE TABLE r (x text PRIMARY KEY, y text); \
         CREATE TABLE t (id int PRIMARY KEY, v e); INSERT INTO t VALUES (1, 'a'); \
         CREATE TABLE u (id int PRIMARY KEY, v c); INSERT INTO u VALUES (1, ROW('a', 'b')); \
         CREATE TABLE w (id int PRIMARY KEY, v r); INSERT INTO w VALUES (1, ROW('a', 'b')); \
         CREATE TABLE z (id int PRIMARY KEY, v d); INSERT INTO z VALUES (1, ROW('a', 'b'))";
    let story = Story::of(setup, &[]).await;
    let exchange =
        ["'a' TO 'aside'", "'b' TO 'a'", "'aside' TO 'b'"].map(|what| format!("ALTER TYPE e RENAME VALUE {what}"));
    for sql in &exchange {
        story.source(sql).await;
    }
    story.source("INSERT INTO t VALUES (2, 'a')").await;
    for sql in &exchange {
        story.source(sql).await;
    }
    story.source("INSERT INTO u VALUES (2, ROW('c', 'd')); INSERT INTO w VALUES (2, ROW('c', 'd'))").await;
    for sql in [
        "ALTER TYPE c DROP ATTRIBUTE y CASCADE",
        "ALTER TYPE c ADD ATTRIBUTE y text CASCADE",
        "ALTER TABLE r DROP COLUMN y",
        "ALTER TABLE r ADD COLUMN y text",
    ] {
        story.source(sql).await;
        story.target.batch_execute(sql).await.unwrap();
    }
    let said = story.run(&["catchup"], 8).stderr;
    for table in ["t", "u", "w"] {
        assert!(said.contains(&format!("walferry resync 'public.{table}'")), "{table}:\n{said}");
    }
    story.leads_on().await;
    story.source("ALTER TYPE d DROP ATTRIBUTE x CASCADE; ALTER TYPE d ADD ATTRIBUTE x text CASCADE").await;
    story.source("INSERT INTO z VALUES (2, ROW('b', 'a'))").await;
    for _ in 0..2 {
        let said = story.run(&["catchup"], 8).stderr;
        assert!(said.contains("ALTER TYPE public.d DROP ATTRIBUTE \"x\" CASCADE"), "{said}");
    }
    // Nothing mends a value of an attribute that is gone by now.
    story.leads_on().await;
    story.source("ALTER TYPE d ADD ATTRIBUTE q text CASCADE").await;
    story.source("INSERT INTO z VALUES (3, ROW('b', 'a', 'q'))").await;
    story.source("ALTER TYPE d DROP ATTRIBUTE q CASCADE").await;
    let said = story.run(&["catchup"], 7).stderr;
    assert!(said.contains("walferry resync TABLE"), "{said}");
    story.run(&["resync", "z"], 0);
    story.leads_to_the_end().await;
}

/// The story: exit 0, and the old label for ever in a column that is of text there.
#[tokio::test]
async fn labels_are_followed_where_the_target_has_them_as_text() {
    let setup =
        "CREATE TYPE e AS ENUM ('a', 'b'); CREATE TABLE t (id int PRIMARY KEY, v e); INSERT INTO t VALUES (1, 'a')";
    let story = of_the_operator("CREATE TABLE t (id int PRIMARY KEY, v text)", setup).await;
    story.ends_equal().await;
    story.source("ALTER TYPE e RENAME VALUE 'a' TO 'z'").await;
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains("walferry resync 'public.t'"), "{said}");
    story.leads_to_the_end().await;
}

/// The story: exit 0 over rows that nobody had compared, as a type of the target was another one
/// that no column of the source's is of there.
#[tokio::test]
async fn rows_are_not_called_equal_before_they_are_compared() {
    let there = "CREATE TYPE e AS ENUM ('a'); CREATE TABLE t (id int PRIMARY KEY, v text, own e)";
    let setup = "CREATE TYPE e AS ENUM ('a', 'b'); CREATE TABLE t (id int PRIMARY KEY, v e); \
         INSERT INTO t VALUES (1, 'a'); CREATE PUBLICATION own FOR ALL TABLES";
    let pair = Pair::builder().start().await;
    pair.target_client().await.batch_execute(there).await.unwrap();
    let story = Story::on(pair, setup, &["--schema", "existing", "--publication", "own"]).await;
    story.ends_equal().await;
    story.source("ALTER TABLE t SET UNLOGGED; INSERT INTO t VALUES (2, 'b')").await;
    story.source("ALTER TABLE t SET LOGGED").await;
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains("walferry resync 'public.t'"), "{said}");
    // It was refused, without a word.
    story.leads_to_the_end().await;
}

/// The stories: exit 0, and other values in columns that were computed, or are by now; and
/// a stop at a label that was added, without a word of it.
#[tokio::test]
async fn what_is_altered_while_a_copy_is_cut_off_is_followed() {
    let setup: Vec<String> = (0..3).map(|number| named(COMPUTED, number)).collect();
    let setup = format!(
        "{}; CREATE TYPE e AS ENUM ('a', 'b'); CREATE TABLE t (id int PRIMARY KEY, v e); INSERT INTO t VALUES (1, 'a')",
        setup.join("; ")
    );
    let story = Story::cut_off(&setup).await;
    for ddl in [
        "ALTER TABLE m0 DROP g, ADD g int GENERATED ALWAYS AS (id * 3) STORED",
        "ALTER TABLE m1 ALTER g DROP EXPRESSION",
        "UPDATE m1 SET g = 99 WHERE id = 1",
        "ALTER TABLE m2 DROP g, ADD g int DEFAULT 3",
        "ALTER TYPE e ADD VALUE 'c' BEFORE 'b'",
        "INSERT INTO t VALUES (2, 'c')",
    ] {
        story.source(ddl).await;
    }
    let said = story.run(&["run", "--until", "caught-up"], 7);
    story.do_as_printed(&said, "ALTER TYPE public.e ADD VALUE").await;
    story.leads_through(&["run", "--until", "caught-up"]).await;
    story.leads_to_the_end().await;
}

/// The story: exit 0, and in the older rows what the target had computed.
#[tokio::test]
async fn a_column_that_the_operator_computes_no_more_is_compared() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, g int); INSERT INTO t VALUES (1, 7)";
    let story =
        of_the_operator("CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id) STORED)", setup).await;
    story.run(&["catchup"], 0);
    story.target.batch_execute("ALTER TABLE t ALTER g DROP EXPRESSION").await.unwrap();
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains("walferry resync 'public.t'"), "{said}");
    story.leads_to_the_end().await;
}
