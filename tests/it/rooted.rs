//! Partitioned tables whose rows come in the name of their root
//! (`publish_via_partition_root`), and whose trees are taken apart on the source.

use crate::journey::{PATIENCE, value};
use crate::story::Story;
use crate::support::pair::Pair;
use crate::support::process::{Walferry, command_for};
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

/// How the operator's target parts the rows of `r`.
const PARTED_OTHERWISE: [&str; 3] = [
    "CREATE TABLE r (id int PRIMARY KEY, v text)",
    "CREATE TABLE r (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
         CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (100); \
         CREATE TABLE r2 PARTITION OF r FOR VALUES FROM (100) TO (250); \
         CREATE TABLE r3 PARTITION OF r FOR VALUES FROM (250) TO (300)",
    "CREATE TABLE r (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
         CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (100); CREATE TABLE d PARTITION OF r DEFAULT",
];

/// The story: exit 0 with the dropped partition's rows still there, or with others gone that the
/// target's partition of that name had.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_root_loses_is_looked_for_where_the_target_parts_its_rows_otherwise() {
    let setup = "CREATE TABLE r (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
         CREATE TABLE r1 PARTITION OF r FOR VALUES FROM (0) TO (100); \
         CREATE TABLE r2 PARTITION OF r FOR VALUES FROM (100) TO (200); \
         CREATE TABLE r3 PARTITION OF r FOR VALUES FROM (200) TO (300); \
         INSERT INTO r SELECT i, 'v' FROM generate_series(0, 299, 10) i; \
         CREATE PUBLICATION mine FOR TABLE r WITH (publish_via_partition_root)";
    for (there, changed) in some_of(PARTED_OTHERWISE.iter().flat_map(|there| {
        ["DROP TABLE r2", "ALTER TABLE r DETACH PARTITION r2; DROP TABLE r2"].map(|changed| (there, changed))
    })) {
        let pair = Pair::builder().start().await;
        pair.target_client().await.batch_execute(there).await.unwrap();
        let story = Story::on(pair, setup, &["--schema", "existing", "--publication", "mine"]).await;
        story.source(&format!("INSERT INTO r VALUES (5, 'n'); {changed}; INSERT INTO r VALUES (6, 'n')")).await;
        let said = story.run(&["catchup"], 8);
        story.do_what_is_printed(&said).await;
        let said = story.run(&["catchup"], 8).stderr;
        assert!(said.contains("has other partitions on the source") && said.contains("resync 'public.r'"), "{said}");
        story
            .target
            .batch_execute("CREATE TABLE IF NOT EXISTS r2 PARTITION OF r FOR VALUES FROM (100) TO (250)")
            .await
            .ok();
        story.run(&["resync", "public.r"], 0);
        story.source("INSERT INTO r VALUES (7, 'n'); DELETE FROM r WHERE id = 210").await;
        story.run(&["catchup", "--finish"], 0);
        let rows = "SELECT string_agg(r::text, ' ' ORDER BY id) FROM r";
        assert_eq!(value(&story.target, rows).await, value(&story.source, rows).await);
    }
    // Where both part them alike, nothing is read.
    let story = Story::of(setup, &["--publication", "mine"]).await;
    story.source("DROP TABLE r2").await;
    let said = story.run(&["catchup"], 8);
    assert!(!said.stderr.contains("other partitions"), "{}", said.stderr);
    story.do_what_is_printed(&said).await;
    let said = story.run(&["catchup"], 0).stderr;
    assert!(!said.contains("comparing its rows"), "{said}");
    story.pair.assert_equal().await;
}

/// The story: the resync of each leaf was asked for, and refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_detached_sub_root_is_asked_for_as_one_where_the_target_does_not_part_its_rows() {
    let pair = Pair::builder().start().await;
    pair.target_client().await.batch_execute("CREATE TABLE r (id int PRIMARY KEY, v text)").await.unwrap();
    let story = Story::on(pair, &setup(PUBLISHED[1]), &["--schema", "existing", "--publication", "mine"]).await;
    story.source("ALTER TABLE r DETACH PARTITION s; UPDATE s SET v = 'n'").await;
    let said = story.run(&["catchup"], 8).stderr;
    for asked in ["resync 'public.r'", "resync 'public.s'"] {
        assert!(said.contains(asked) && !said.contains("public.s0"), "{said}");
    }
    story.run(&["resync", "public.r"], 0);
    let said = story.run(&["resync", "public.s"], 3).stderr;
    assert!(said.contains("public.s"), "{said}");
    story.target.batch_execute("CREATE TABLE s (id int PRIMARY KEY, v text)").await.unwrap();
    story.run(&["resync", "public.s"], 0);
    story.source("INSERT INTO s VALUES (3, 'x'); DELETE FROM r WHERE id = 106").await;
    story.run(&["catchup", "--finish"], 0);
    for rows in
        ["SELECT string_agg(r::text, ' ' ORDER BY id) FROM r", "SELECT string_agg(s::text, ' ' ORDER BY id) FROM s"]
    {
        assert_eq!(value(&story.target, rows).await, value(&story.source, rows).await);
    }
}

/// A root without a partition beside others that are published as one: nothing came in its name.
#[tokio::test]
async fn a_root_without_partitions_that_nobody_publishes_is_no_difference() {
    let setup = format!(
        "{}; CREATE TABLE bare (id int PRIMARY KEY) PARTITION BY RANGE (id); \
         CREATE TABLE low (id int PRIMARY KEY) PARTITION BY RANGE (id); \
         CREATE TABLE lower PARTITION OF low FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (id)",
        setup(PUBLISHED[1])
    );
    let story = Story::of(&setup, &MINE).await;
    story.source("INSERT INTO r VALUES (151, 'x')").await;
    story.ends_equal().await;
}

/// One that is asked for by itself leads to its root.
#[tokio::test]
async fn a_partition_is_copied_anew_with_the_root_in_whose_name_its_rows_come() {
    let story = Story::of(&setup(PUBLISHED[1]), &MINE).await;
    let said = story.run(&["resync", "public.l"], 2).stderr;
    assert!(said.contains("walferry resync 'public.r'"), "{said}");
    story.run(&["resync", "public.r"], 0);
    story.ends_equal().await;
}

/// What publishes them is not taken for a list that has lost them: their ADD TABLE would
/// change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_cut_off_does_not_go_on_with_partitions_that_come_in_their_roots_name() {
    let pair = Pair::builder().start().await;
    let (source, target) = (pair.source_client().await, pair.target_client().await);
    let story = Story { pair, source, target, arguments: MINE.map(str::to_owned).to_vec() };
    story.source(&format!("{TREE}; CREATE PUBLICATION mine FOR TABLE r")).await;
    let mut command = command_for(&story.pair, &["run", "--jobs", "1", "--publication", "mine"]);
    command.env("WALFERRY_FAILPOINT", "copy-before-commit:2");
    Walferry::spawn(command).wait(PATIENCE);
    let via_root = async |on: bool| {
        story.source(&format!("ALTER PUBLICATION mine SET (publish_via_partition_root = {on})")).await;
    };
    via_root(true).await;
    let said = story.run(&["run", "--until", "caught-up"], 2).stderr;
    assert!(said.contains("its rows come in the name of public.r") && !said.contains("ADD TABLE"), "{said}");
    via_root(false).await;
    story.run(&["run", "--until", "caught-up"], 0);
    story.leads_to_the_end().await;
}

/// The story: `check` was ready, and the target's partitions refused the rows (23514).
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_hash_of_an_enum_parts_come_in_the_roots_name_or_are_refused_by_check() {
    let pair = Pair::builder().start().await;
    // The same labels have other oids.
    pair.source_sql(
        "CREATE TYPE shift AS ENUM ('x', 'y', 'z'); DROP TYPE shift; CREATE TABLE plain (id int PRIMARY KEY); \
         CREATE TYPE mood AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l'); CREATE DOMAIN moody AS mood; \
         CREATE TABLE felt (id int, how moody, v text, PRIMARY KEY (id, how)) PARTITION BY HASH (how); \
         CREATE TABLE felt0 PARTITION OF felt FOR VALUES WITH (MODULUS 3, REMAINDER 0); \
         CREATE TABLE felt1 PARTITION OF felt FOR VALUES WITH (MODULUS 3, REMAINDER 1) PARTITION BY LIST (how); \
         CREATE TABLE felt10 PARTITION OF felt1 DEFAULT; \
         CREATE TABLE felt2 PARTITION OF felt FOR VALUES WITH (MODULUS 3, REMAINDER 2); \
         CREATE TABLE other (id int PRIMARY KEY) PARTITION BY HASH (id); \
         CREATE TABLE other0 PARTITION OF other FOR VALUES WITH (MODULUS 1, REMAINDER 0); INSERT INTO other VALUES (1), (2); \
         INSERT INTO plain VALUES (1); \
         INSERT INTO felt SELECT i, (enum_range(NULL::mood))[i % 12 + 1], 'v' FROM generate_series(1, 120) i",
    )
    .await;
    let said = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
    assert!(said.contains("would refuse them: public.felt\n"), "{said}");
    Walferry::run(&pair, &["run"], PATIENCE).code(3);
    let sql = said.lines().map(str::trim).find(|line| line.starts_with("CREATE PUBLICATION")).unwrap();
    pair.source_sql(sql).await;
    let rooted = ["--publication", "walferry_rooted"];
    Walferry::run(&pair, &[&["run", "--until", "caught-up"], &rooted[..]].concat(), PATIENCE).code(0);
    pair.source_sql("UPDATE felt SET v = 'w' WHERE id % 3 = 0; UPDATE felt SET how = 'a' WHERE id < 20; DELETE FROM felt WHERE id > 100").await;
    pair.source_sql("INSERT INTO plain VALUES (2); INSERT INTO other VALUES (3)").await;
    Walferry::run(&pair, &[&["catchup", "--finish"], &rooted[..]].concat(), PATIENCE).code(0);
    let rows = "SELECT (SELECT string_agg(t::text, ' ' ORDER BY id) FROM felt t) || (SELECT count(*) FROM plain) || (SELECT count(*) FROM other)";
    assert_eq!(value(&pair.target_client().await, rows).await, value(&pair.source_client().await, rows).await);
    let others = "SELECT string_agg(tableoid::regclass || how::text, ' ' ORDER BY id) FROM felt";
    assert_ne!(
        value(&pair.target_client().await, others).await,
        value(&pair.source_client().await, others).await,
        "nothing was tried"
    );
}
