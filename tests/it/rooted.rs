//! Partitioned tables whose rows come in the name of their root
//! (`publish_via_partition_root`), and whose trees are taken apart on the source.

use crate::story::Story;
use crate::support::some_of;

/// A root with a sub-root and a partition.
const TREE: &str = "CREATE TABLE r (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
     CREATE TABLE s PARTITION OF r FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id); \
     CREATE TABLE s0 PARTITION OF s FOR VALUES FROM (0) TO (50); \
     CREATE TABLE s1 PARTITION OF s FOR VALUES FROM (50) TO (100); \
     CREATE TABLE l PARTITION OF r FOR VALUES FROM (100) TO (200); \
     INSERT INTO r SELECT i, 'v' FROM generate_series(1, 199, 7) i";

const PUBLISHED: [&str; 2] = ["FOR ALL TABLES", "FOR TABLE r"];

fn setup(published: &str) -> String {
    format!("{TREE}; CREATE PUBLICATION mine {published} WITH (publish_via_partition_root)")
}

const MINE: [&str; 2] = ["--publication", "mine"];

/// The story: the ALTER PUBLICATION was printed back and forth, and a LOCK without tables.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_with_partitions_that_was_detached_is_copied_anew() {
    for published in some_of(PUBLISHED) {
        let story = Story::of(&setup(published), &MINE).await;
        story
            .source(
                "ALTER TABLE r DETACH PARTITION s; UPDATE s SET v = 'n' WHERE id < 20; INSERT INTO s VALUES (2, 'm')",
            )
            .await;
        if published == PUBLISHED[1] {
            story.source("ALTER PUBLICATION mine ADD TABLE s").await;
        }
        story.leads_on().await;
        story
            .source("INSERT INTO s VALUES (3, 'm'); DELETE FROM s WHERE id = 8; INSERT INTO r VALUES (150, 'x')")
            .await;
        story.leads_to_the_end().await;
    }
}

/// The story: the rename was not printed for the target, and `check` said ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_detached_takes_the_name_of_its_root() {
    for published in some_of(PUBLISHED) {
        let story = Story::of(&setup(published), &MINE).await;
        story
            .source("ALTER TABLE r DETACH PARTITION l; DROP TABLE r; ALTER TABLE l RENAME TO r; INSERT INTO r VALUES (150, 'x')")
            .await;
        if published == PUBLISHED[1] {
            story.source("ALTER PUBLICATION mine ADD TABLE r").await;
        }
        story.leads_on().await;
        story.source("INSERT INTO r VALUES (151, 'y'); DELETE FROM r WHERE id = 106").await;
        story.leads_to_the_end().await;
    }
}

/// The story: `resync`, as printed, found no table.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_leaves_the_published_schema_is_published_again() {
    let setup = format!(
        "CREATE SCHEMA a; SET search_path = a; {TREE}; RESET search_path; CREATE SCHEMA b; \
         CREATE TABLE a.z (id int PRIMARY KEY); CREATE PUBLICATION mine FOR TABLES IN SCHEMA a WITH (publish_via_partition_root)"
    );
    let story = Story::of(&setup, &MINE).await;
    story.source("ALTER TABLE a.r SET SCHEMA b; INSERT INTO b.r VALUES (150, 'x'); INSERT INTO a.z VALUES (1)").await;
    let said = story.run(&["catchup"], 7).stderr;
    let sql = "ALTER PUBLICATION \"mine\" ADD TABLE \"b\".\"r\";";
    assert!(said.contains(sql), "{said}");
    story.source(sql).await;
    story.leads_to_the_end().await;
}
