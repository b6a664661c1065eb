//! Tables that are renamed on the source after what they belonged to was dropped, that
//! exchange schemas, or whose new name something else has on the target: what is printed is
//! done to the letter, and leads to the end with both sides equal.

use crate::journey::value;
use crate::story::Story;
use crate::support::pair::Pair;
use crate::support::some_of;

const PARTED: &str = "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
     CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200); \
     INSERT INTO p VALUES (1, 'x'), (101, 'y')";

/// Two levels.
const DEEP: &str = "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
     CREATE TABLE m PARTITION OF p FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id); \
     CREATE TABLE l1 PARTITION OF m FOR VALUES FROM (0) TO (50); CREATE TABLE l2 PARTITION OF m FOR VALUES FROM (50) TO (100); \
     CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200); INSERT INTO p VALUES (1, 'x'), (51, 'y'), (101, 'z')";

/// A child of a child as well.
const INHERITED: &str = "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (PRIMARY KEY (id)) INHERITS (a); \
     CREATE TABLE c (PRIMARY KEY (id)) INHERITS (b); INSERT INTO a VALUES (1, 'a'); INSERT INTO b VALUES (11, 'b'); INSERT INTO c VALUES (21, 'c')";

/// From what was there to the same on both sides, whether changes come before the end or
/// not.
async fn leads_to_the_end(mode: &str, setup: &str, changed: &str, rows: &str) {
    for rows in some_of(["", rows]) {
        let pair = Pair::builder().start().await;
        if mode == "existing" {
            let tables: Vec<&str> = setup.split("; ").filter(|sql| !sql.trim().starts_with("INSERT")).collect();
            pair.target_client().await.batch_execute(&tables.join("; ")).await.unwrap();
        }
        let story = Story::on(pair, setup, &["--schema", mode]).await;
        story.source(&format!("BEGIN; {changed}; COMMIT")).await;
        story.source(rows).await;
        story.leads_to_the_end().await;
    }
}

/// The story: the DROP of the root was printed, and the rename behind it, but no DETACH
/// before: the rows went with the root, and the rename failed.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_takes_the_name_of_its_dropped_root_is_detached_before_the_drop() {
    let taken = "ALTER TABLE p DETACH PARTITION p1; DROP TABLE p; ALTER TABLE p1 RENAME TO p";
    for mode in some_of(["create", "existing"]) {
        leads_to_the_end(mode, PARTED, taken, "INSERT INTO p VALUES (2, 'n')").await;
    }
    let other = "ALTER TABLE p DETACH PARTITION p1; ALTER TABLE p DETACH PARTITION p2; DROP TABLE p; ALTER TABLE p2 RENAME TO q";
    leads_to_the_end("create", PARTED, other, "UPDATE q SET v = 'n'").await;
}

/// The same over two levels: the middle one takes the name, or one below it.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_over_several_levels_are_detached_before_what_is_above_them_is_dropped() {
    let leaf = "ALTER TABLE m DETACH PARTITION l1; DROP TABLE p; ALTER TABLE l1 RENAME TO p";
    let middle = "ALTER TABLE p DETACH PARTITION m; DROP TABLE p; ALTER TABLE m RENAME TO p";
    let both = "ALTER TABLE p DETACH PARTITION m; ALTER TABLE m DETACH PARTITION l1; DROP TABLE p; \
         ALTER TABLE m RENAME TO p; ALTER TABLE l1 RENAME TO m";
    for changed in some_of([leaf, middle, both]) {
        leads_to_the_end("create", DEEP, changed, "INSERT INTO p VALUES (52, 'n')").await;
    }
}

/// The same with another root that takes the name.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_move_to_a_new_root_of_the_name_are_detached_before_the_drop() {
    let moved = "CREATE TABLE q (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
         ALTER TABLE p DETACH PARTITION p1; ALTER TABLE q ATTACH PARTITION p1 FOR VALUES FROM (0) TO (100); \
         ALTER TABLE p DETACH PARTITION p2; ALTER TABLE q ATTACH PARTITION p2 FOR VALUES FROM (100) TO (200); \
         DROP TABLE p; ALTER TABLE q RENAME TO p";
    let renamed = format!("{moved}; ALTER TABLE p1 RENAME TO p_1");
    for changed in some_of([moved, &renamed]) {
        leads_to_the_end("create", PARTED, changed, "UPDATE p SET v = 'n'").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_takes_the_name_of_its_dropped_parent_lets_go_of_it_before_the_drop() {
    let child = "ALTER TABLE b NO INHERIT a; INSERT INTO b VALUES (12, 'z'); DROP TABLE a; ALTER TABLE b RENAME TO a";
    let grandchild = "ALTER TABLE c NO INHERIT b; DROP TABLE a CASCADE; ALTER TABLE c RENAME TO a";
    for mode in some_of(["create", "existing"]) {
        leads_to_the_end(mode, INHERITED, child, "INSERT INTO a VALUES (13, 'n')").await;
        leads_to_the_end(mode, INHERITED, grandchild, "INSERT INTO a VALUES (23, 'n')").await;
    }
}

/// The story: neither `resync` nor `add` took it, and what was printed named the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_renamed_and_is_missing_on_the_target_is_copied_once_it_is_there() {
    for rows in some_of(["", "INSERT INTO now VALUES (2, 'n')"]) {
        let story =
            Story::of("CREATE TABLE was (id int PRIMARY KEY, v text); INSERT INTO was VALUES (1, 'x')", &[]).await;
        story.target.batch_execute("DROP TABLE was").await.unwrap();
        story.source("ALTER TABLE was RENAME TO now").await;
        story.source(rows).await;
        if rows.is_empty() {
            let said = story.run(&["catchup"], 8).stderr;
            assert!(said.contains("public.now is not on the target any more; create it there"), "{said}");
        }
        // Before that it is said once more.
        let said = story.run(&["resync", "public.now"], 3).stderr;
        assert!(said.contains("public.now is not there: create it"), "{said}");
        story.target.batch_execute("CREATE TABLE now (id int PRIMARY KEY, v text)").await.unwrap();
        story.run(&["resync", "public.now"], 0);
        story.source("INSERT INTO now VALUES (3, 'n')").await;
        story.leads_to_the_end().await;
    }
}

/// The story: "relation t_pkey already exists in schema s2", as only the table was put
/// aside, not its index.
#[tokio::test(flavor = "multi_thread")]
async fn schemas_that_exchange_their_names_take_tables_indexes_and_sequences_along() {
    let setup = "CREATE SCHEMA s1; CREATE SCHEMA s2; CREATE TABLE s1.t (id serial PRIMARY KEY, v text); CREATE INDEX v ON s1.t (v); \
         CREATE TABLE s2.t (id serial PRIMARY KEY, w text); CREATE TABLE s2.u (id int PRIMARY KEY, v text); CREATE INDEX v ON s2.u (v); \
         CREATE SEQUENCE s1.q; CREATE SEQUENCE s2.q START 100; \
         INSERT INTO s1.t (v) VALUES ('1'); INSERT INTO s2.t (w) VALUES ('2'), ('3'); INSERT INTO s2.u VALUES (4, '4')";
    let swapped = "ALTER SCHEMA s1 RENAME TO tmp; ALTER SCHEMA s2 RENAME TO s1; ALTER SCHEMA tmp RENAME TO s2";
    for rows in some_of(["", "UPDATE s2.t SET v = 'n'; INSERT INTO s1.t (w) VALUES ('n')"]) {
        let story = Story::of(setup, &[]).await;
        story.source(&format!("BEGIN; {swapped}; COMMIT")).await;
        story.source(rows).await;
        story.leads_to_the_end().await;
        let aside = "SELECT count(*)::text FROM pg_catalog.pg_namespace WHERE nspname LIKE 'walferry_aside%'";
        assert_eq!(value(&story.target, aside).await, "0");
    }
}

/// The story: "relation a_old already exists", and no word of that table.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_the_new_name_of_a_table_on_the_target_is_named() {
    for (stranger, away) in some_of([
        ("CREATE TABLE a_old (x int)", "DROP TABLE a_old"),
        ("CREATE VIEW a_old AS SELECT 1 AS x", "ALTER VIEW a_old RENAME TO mine"),
    ]) {
        for rows in ["", "INSERT INTO a_old VALUES (2)"] {
            let story = Story::of("CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)", &[]).await;
            story.target.batch_execute(stranger).await.unwrap();
            story.source("ALTER TABLE a RENAME TO a_old").await;
            story.source(rows).await;
            let said = story.run(&["catchup"], if rows.is_empty() { 8 } else { 7 });
            assert!(said.stderr.contains("public.a_old is in the way there"), "{}", said.stderr);
            let said = story.run(&["resync", "public.a_old"], 7);
            assert!(said.stderr.contains("public.a_old is in the way there"), "{}", said.stderr);
            story.target.batch_execute(away).await.unwrap();
            story.leads_to_the_end().await;
        }
    }
}
