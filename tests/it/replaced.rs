//! Partitions that are replaced, come or go where rows come in their root's name, and
//! tables that are made anew: what is printed is done to the letter, and leads to the
//! end with both sides equal.

use crate::journey::value;
use crate::story::Story;
use crate::support::pair::Pair;
use crate::support::some_of;

const PARTED: &str = "CREATE TABLE pt (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
     CREATE TABLE pt_1 PARTITION OF pt FOR VALUES FROM (0) TO (100); INSERT INTO pt VALUES (1, 'v'), (2, 'v')";

/// Another partition with the same rows takes the place of the one.
const REPLACED: &str = "CREATE TABLE ps (LIKE pt_1 INCLUDING ALL); INSERT INTO ps SELECT * FROM pt_1; \
     ALTER TABLE pt DETACH PARTITION pt_1; ALTER TABLE pt ATTACH PARTITION ps FOR VALUES FROM (0) TO (100);";

const ROOTED: &str = "CREATE PUBLICATION mine FOR TABLE pt WITH (publish_via_partition_root)";
const ALL_ROOTED: &str = "CREATE PUBLICATION mine FOR ALL TABLES WITH (publish_via_partition_root)";

/// Between two servers, the schema being ours or the operator's; `pt` comes in its own name.
async fn rooted(mode: &str) -> Story {
    published(mode, ROOTED).await
}

async fn published(mode: &str, publish: &str) -> Story {
    let pair = Pair::builder().start().await;
    if mode == "existing" {
        let there = PARTED.split_once("; INSERT").unwrap().0;
        pair.target_client().await.batch_execute(there).await.unwrap();
    }
    Story::on(pair, &format!("{PARTED}; {publish}"), &["--publication", "mine", "--schema", mode]).await
}

/// The story: the rows were compared while the old partition was still there, and then
/// it was detached or dropped as advised, with them: exit 0, also of --finish.
#[tokio::test]
async fn rows_of_a_partition_that_takes_the_place_of_another_are_not_lost_with_that() {
    for mode in some_of(["create", "existing"]) {
        for old in ["", "DROP TABLE pt_1;"] {
            let story = rooted(mode).await;
            story.source(&format!("BEGIN; {REPLACED} {old} COMMIT")).await;
            story.leads_to_the_end().await;
        }
    }
}

/// The stories: nothing led out when rows of the default partition went to a new one, or when
/// a table became a partition of a new one under its name.
#[tokio::test]
async fn rows_that_are_in_another_partition_by_now_and_tables_that_became_partitions_lead_on() {
    let with_default = format!(
        "{PARTED}; CREATE TABLE pt_d PARTITION OF pt DEFAULT; INSERT INTO pt SELECT i, 'd' FROM generate_series(101, 110) i"
    );
    let split = "BEGIN; ALTER TABLE pt DETACH PARTITION pt_d; CREATE TABLE pt_2 PARTITION OF pt FOR VALUES FROM (100) TO (105); \
         INSERT INTO pt SELECT * FROM pt_d WHERE id < 105; DELETE FROM pt_d WHERE id < 105; ALTER TABLE pt ATTACH PARTITION pt_d DEFAULT; COMMIT";
    let below = "BEGIN; ALTER TABLE pt DETACH PARTITION pt_1; ALTER TABLE pt_1 RENAME TO pt_1_0; \
         CREATE TABLE pt_1 (LIKE pt INCLUDING ALL) PARTITION BY RANGE (id); ALTER TABLE pt_1 ATTACH PARTITION pt_1_0 FOR VALUES FROM (0) TO (100); \
         ALTER TABLE pt ATTACH PARTITION pt_1 FOR VALUES FROM (0) TO (100); UPDATE pt SET v = 'w' WHERE id = 1; COMMIT";
    let plain = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'v'), (2, 'v')";
    let converted = "BEGIN; ALTER TABLE t RENAME TO t_0; CREATE TABLE t (id int NOT NULL, v text) PARTITION BY RANGE (id); \
         ALTER TABLE t ATTACH PARTITION t_0 FOR VALUES FROM (0) TO (100); CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (100) TO (200); \
         ALTER TABLE t ADD PRIMARY KEY (id); INSERT INTO t VALUES (150, 'n'); UPDATE t SET v = 'w' WHERE id = 1; COMMIT";
    let rooted = |setup: &str| format!("{setup}; {ALL_ROOTED}");
    for (setup, sql, arguments) in some_of([
        (with_default.clone(), split, &[][..]),
        (rooted(&with_default), split, &["--publication", "mine"]),
        (PARTED.to_owned(), below, &[]),
        (rooted(PARTED), below, &["--publication", "mine"]),
        (plain.to_owned(), converted, &[]),
    ]) {
        let story = Story::of(&setup, arguments).await;
        story.source(sql).await;
        story.leads_to_the_end().await;
        // A root's index is whole once those of all partitions are attached to it.
        let parts = "SELECT count(*)::text FROM pg_catalog.pg_index WHERE NOT indisvalid";
        assert_eq!(value(&story.target, parts).await, "0", "{sql}");
    }
}

/// The story: of what came with its own partitions, those were to be detached, and their
/// rows were lost with that.
#[tokio::test]
async fn a_tree_that_is_attached_to_a_root_that_is_published_as_one_comes_whole() {
    for publish in some_of([ROOTED, ALL_ROOTED]) {
        let story = published("create", publish).await;
        story
            .source(
                "BEGIN; CREATE TABLE q (LIKE pt INCLUDING ALL) PARTITION BY RANGE (id); CREATE TABLE q_1 PARTITION OF q DEFAULT; \
                 ALTER TABLE pt ATTACH PARTITION q FOR VALUES FROM (100) TO (200); INSERT INTO pt VALUES (101, 'q'); COMMIT",
            )
            .await;
        // A process that was killed behind the table and before its row.
        story.run(&["catchup"], 7);
        story.run(&["add", "public.q_1"], 0);
        story.target.batch_execute("DELETE FROM walferry.tables WHERE name = 'q'").await.unwrap();
        story.leads_to_the_end().await;
        let parent = "SELECT inhparent::pg_catalog.regclass::text FROM pg_catalog.pg_inherits WHERE inhrelid = pg_catalog.to_regclass('q_1')";
        assert_eq!(value(&story.target, parent).await, "q");
    }
}

/// The story: what the new one did before it was a partition comes in its own name. The
/// stop spoke of a publication that was switched, and the `resync` that it advised failed
/// with "would overlap" as long as the old one was not detached.
#[tokio::test]
async fn a_partition_that_was_filled_before_it_took_the_place_of_another_leads_to_the_root() {
    for old in some_of(["", "DROP TABLE pt_1;"]) {
        let story = published("create", ALL_ROOTED).await;
        story.source(&format!("BEGIN; {REPLACED} {old} COMMIT")).await;
        let said = story.run(&["catchup"], 7).stderr;
        assert!(said.contains("was a table of its own then") && !said.contains("ALTER PUBLICATION"), "{said}");
        story.leads_to_the_end().await;
    }
}

/// The story: the old one's rename was printed, then that back, and so on for ever, as
/// both were taken for the same table of the target.
#[tokio::test]
async fn a_partition_that_takes_the_place_and_the_name_of_another_is_told_from_it() {
    for mode in some_of(["create", "existing"]) {
        let story = rooted(mode).await;
        let names = "ALTER TABLE pt_1 RENAME TO old; ALTER TABLE ps RENAME TO pt_1;";
        story.source(&format!("BEGIN; {REPLACED} {names} COMMIT")).await;
        story.leads_to_the_end().await;
    }
}

/// The story: "would overlap partition", without the SQL that drops the old one.
#[tokio::test]
async fn a_dropped_partition_in_the_way_of_the_one_in_its_place_is_named_with_the_sql() {
    for arguments in some_of([&[][..], &["--all-tables"]]) {
        let story = Story::of(PARTED, arguments).await;
        story.source(&format!("BEGIN; {REPLACED} DROP TABLE pt_1; COMMIT; INSERT INTO pt VALUES (50, 'n')")).await;
        story.leads_to_the_end().await;
    }
}

/// The story: "violates partition constraint", and nothing about the DETACH, as the end
/// at which that is looked for was not reached.
#[tokio::test]
async fn a_row_that_the_place_of_its_partition_on_the_target_refuses_leads_to_the_detach() {
    let story = Story::of(PARTED, &["--all-tables"]).await;
    story.source("ALTER TABLE pt DETACH PARTITION pt_1").await;
    story.source("INSERT INTO pt_1 VALUES (777, 'beyond')").await;
    story.leads_to_the_end().await;
}

/// The stories: "no partition of relation found for row", and no word of `add`; and
/// without a row exit 0, though the target lacked the partition.
#[tokio::test]
async fn a_new_partition_of_a_root_that_is_published_as_one_is_named_with_or_without_rows() {
    for (mode, row) in some_of([
        ("create", "INSERT INTO pt VALUES (201, 'n')"),
        ("create", ""),
        ("existing", "INSERT INTO pt VALUES (201, 'n')"),
    ]) {
        let story = rooted(mode).await;
        story.source("CREATE TABLE pt_3 PARTITION OF pt FOR VALUES FROM (200) TO (300)").await;
        story.source(row).await;
        story.leads_to_the_end().await;
    }
}

/// The story: a `resync` of the partition was printed, which answered "name that one"
/// and did not say which.
#[tokio::test]
async fn a_partition_that_was_emptied_is_copied_with_the_root_in_whose_name_its_rows_come() {
    for mode in some_of(["create", "existing"]) {
        let story = rooted(mode).await;
        story.source("TRUNCATE pt_1").await;
        let said = story.run(&["resync", "public.pt_1"], 2).stderr;
        assert!(said.contains("walferry resync 'public.pt'"), "{said}");
        story.leads_to_the_end().await;
    }
}

/// The story: a TRUNCATE was advised, and the target kept the old key and lacked the new
/// one and its index.
#[tokio::test]
async fn a_table_that_was_made_anew_with_other_keys_has_them_on_the_target() {
    for rows in some_of(["INSERT INTO m VALUES (1, 'a')", ""]) {
        let setup = format!("CREATE TABLE m (id int PRIMARY KEY, a text); {rows}");
        let story = Story::of(&setup, &["--all-tables"]).await;
        story
            .source("DROP TABLE m; CREATE TABLE m (id int NOT NULL, a text PRIMARY KEY); CREATE INDEX ON m (id)")
            .await;
        story.source("INSERT INTO m VALUES (9, 'x')").await;
        story.leads_to_the_end().await;
        let indexes = "SELECT string_agg(indexdef, '; ' ORDER BY indexdef) FROM pg_indexes WHERE tablename = 'm'";
        assert_eq!(value(&story.target, indexes).await, value(&story.source, indexes).await);
    }
}

/// The story: add ended with 0 and no row, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_dropped_and_made_again_is_copied_with_its_root() {
    let made_again = "DROP TABLE {r}_0; CREATE TABLE {r}_0 PARTITION OF {r} FOR VALUES FROM (0) TO (100)";
    let swapped = "CREATE TABLE new_{r} (LIKE {r}_0 INCLUDING ALL); INSERT INTO new_{r} SELECT * FROM {r}_0; \
         ALTER TABLE {r} DETACH PARTITION {r}_0; ALTER TABLE {r}_0 RENAME TO old_{r}; ALTER TABLE new_{r} RENAME TO {r}_0; \
         ALTER TABLE {r} ATTACH PARTITION {r}_0 FOR VALUES FROM (0) TO (100); DROP TABLE old_{r}";
    let filled = format!("{made_again}; INSERT INTO {{r}} VALUES (7, 'new'), (150, 'new')");
    let stories = [made_again, swapped, &filled];
    let of_all = |sql: &str| (0..3).map(|n| sql.replace("{r}", &format!("r{n}"))).collect::<Vec<_>>().join("; ");
    let setup = of_all(
        "CREATE TABLE {r} (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
         CREATE TABLE {r}_0 PARTITION OF {r} FOR VALUES FROM (0) TO (100); \
         CREATE TABLE {r}_1 PARTITION OF {r} FOR VALUES FROM (100) TO (200); INSERT INTO {r} SELECT i * 10, 'x' FROM generate_series(0, 14) i",
    );
    let published = "CREATE PUBLICATION mine FOR TABLE ONLY r0, ONLY r1, ONLY r2 WITH (publish_via_partition_root)";
    let story = Story::of(&format!("{setup}; {published}"), &["--publication", "mine"]).await;
    for (n, sql) in stories.iter().enumerate() {
        story.source(&format!("BEGIN; {}; COMMIT", sql.replace("{r}", &format!("r{n}")))).await;
    }
    story.leads_to_the_end().await;
}
