//! The bounds of partitions, and partitions that came later, beside the target's: what is
//! printed is done to the letter, and leads to the end with both sides equal.

use crate::journey::{PATIENCE, value};
use crate::story::Story;
use crate::support::pair::Pair;
use crate::support::process::Walferry;
use crate::support::some_of;

const PARTED: &str = "CREATE TABLE p (id int PRIMARY KEY, a text) PARTITION BY RANGE (id); \
     CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (50)";
const ROOTED: &str = "CREATE PUBLICATION mine FOR ALL TABLES WITH (publish_via_partition_root)";

/// The operator has made these tables on the target, too; the source has a row of `p`.
async fn existing(mode: &str, tables: &str, publish: &str) -> Story {
    let pair = Pair::builder().start().await;
    pair.target_client().await.batch_execute(tables).await.unwrap();
    let publication: &[&str] = if publish.is_empty() { &[] } else { &["--publication", "mine"] };
    let arguments = [&["--schema", mode], publication].concat();
    Story::on(pair, &format!("{tables}; INSERT INTO p VALUES (1, 'x'); {publish}"), &arguments).await
}

/// The story: exit 0, also of --finish, and the root had the rows of the partition on the
/// source alone; behind a `resync` of what was named the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_came_later_and_is_not_attached_there_is_named_in_a_schema_of_the_operators() {
    let cases =
        [("existing", "", "add"), ("none", "", "resync"), ("existing", "CREATE PUBLICATION mine FOR ALL TABLES", "")];
    for (mode, publish, command) in some_of(cases) {
        let story = existing(mode, PARTED, publish).await;
        story.target.batch_execute("CREATE TABLE p2 (id int PRIMARY KEY, a text)").await.unwrap();
        story.source("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (50) TO (100)").await;
        story.source("INSERT INTO p VALUES (60, 'n')").await;
        if !command.is_empty() {
            story.run(&["add", "public.p2"], 0);
        }
        if command == "resync" {
            story.run(&["resync", "public.p2"], 0);
        }
        let said = story.run(&["catchup"], 8);
        let attach = "ALTER TABLE \"public\".\"p\" ATTACH PARTITION \"public\".\"p2\" FOR VALUES FROM (50) TO (100);";
        story.do_as_printed(&said, attach).await;
        story.ends_equal().await;
        story.run(&["catchup", "--finish"], 0);
        story.pair.assert_equal().await;
    }
}

const LIST: &str = "CREATE TABLE p (id int, d int, PRIMARY KEY (id, d)) PARTITION BY LIST (d); \
     CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1); CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2); \
     INSERT INTO p VALUES (1, 1), (2, 2)";

/// What becomes of the bounds, and a row that fits them then.
const SWAPPED: [&str; 2] = [
    "BEGIN; ALTER TABLE p DETACH PARTITION p1; ALTER TABLE p DETACH PARTITION p2; UPDATE p1 SET d = 2; UPDATE p2 SET d = 1; \
     ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (2); ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (1); COMMIT",
    "INSERT INTO p VALUES (5, 1)",
];
const EXTENDED: [&str; 2] = [
    "BEGIN; ALTER TABLE p DETACH PARTITION p1; ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1, 3); COMMIT",
    "INSERT INTO p VALUES (5, 3)",
];
const NARROWED: [&str; 2] = [
    "BEGIN; ALTER TABLE p DETACH PARTITION p1; ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1); \
     CREATE TABLE pd PARTITION OF p DEFAULT; INSERT INTO p VALUES (3, 3); COMMIT",
    "INSERT INTO p VALUES (5, 3)",
];
const DROPPED: [&str; 2] = [
    "BEGIN; DROP TABLE p1; ALTER TABLE p DETACH PARTITION p2; ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (1, 2); COMMIT",
    "INSERT INTO p VALUES (5, 1)",
];
const TAKEN: [&str; 2] = [
    "BEGIN; ALTER TABLE p DETACH PARTITION p1; UPDATE pd SET id = 4; DELETE FROM pd; \
     ALTER TABLE p ATTACH PARTITION p1 FOR VALUES IN (1, 3); INSERT INTO p VALUES (3, 3); COMMIT",
    "INSERT INTO p VALUES (5, 3)",
];

fn wide() -> String {
    LIST.replace("IN (1)", "IN (1, 3)")
}

fn defaulted() -> String {
    format!("{LIST}; CREATE TABLE pd PARTITION OF p DEFAULT; INSERT INTO p VALUES (3, 3)")
}

/// From what was there to the same bounds and rows on both sides.
async fn leads_to_the_same_bounds(setup: &str, arguments: &[&str], [sql, row]: [&str; 2]) {
    let story = Story::of(setup, arguments).await;
    story.source(sql).await;
    story.source(row).await;
    story.leads_to_the_end().await;
    let bounds = "SELECT string_agg(relname || ' ' || pg_get_expr(relpartbound, 0), ', ' ORDER BY relname) \
         FROM pg_class WHERE relispartition AND relkind = 'r'";
    let (here, there) = (value(&story.source, bounds).await, value(&story.target, bounds).await);
    assert_eq!(here, there, "{sql} {arguments:?}");
}

/// The stories: "copy it anew", which emptied the tables for good, as their rows violated
/// the bounds on the target; or 0, and the first row of the new bounds stopped the stream
/// without a word about them.
#[tokio::test(flavor = "multi_thread")]
async fn bounds_that_changed_on_the_source_lead_to_the_same_on_the_target() {
    for (setup, arguments, changed) in some_of([
        (LIST.to_owned(), &[][..], SWAPPED),
        (LIST.to_owned(), &["--all-tables"], SWAPPED),
        (LIST.to_owned(), &["--all-tables"], EXTENDED),
        (LIST.to_owned(), &["--all-tables"], [EXTENDED[0], ""]),
        (wide(), &[], NARROWED),
        (LIST.to_owned(), &["--all-tables"], DROPPED),
        (defaulted(), &[], TAKEN),
    ]) {
        leads_to_the_same_bounds(&setup, arguments, changed).await;
    }
}

/// The same where rows come in the root's name: "no partition of relation found for row".
#[tokio::test(flavor = "multi_thread")]
async fn bounds_of_a_root_that_is_published_as_one_lead_to_the_same_on_the_target() {
    for (setup, changed) in some_of([
        (LIST.to_owned(), SWAPPED),
        (LIST.to_owned(), EXTENDED),
        (wide(), NARROWED),
        (LIST.to_owned(), DROPPED),
        (defaulted(), TAKEN),
    ]) {
        leads_to_the_same_bounds(&format!("{setup}; {ROOTED}"), &["--publication", "mine"], changed).await;
    }
}

/// The story: `resync` of the swapped partitions emptied them before the target refused their rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_refused_before_a_partition_with_other_bounds_is_emptied() {
    for mode in some_of(["create", "existing"]) {
        let pair = Pair::builder().start().await;
        if mode == "existing" {
            pair.target_client().await.batch_execute(PARTED).await.unwrap();
        }
        let setup = format!("{PARTED}; INSERT INTO p VALUES (1, 'x')");
        let story = Story::on(pair, &setup, &["--schema", mode]).await;
        story.source("ALTER TABLE p DETACH PARTITION p1").await;
        story.source("UPDATE p1 SET id = 60; ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (50) TO (100)").await;
        let said = story.run(&["resync", "public.p1"], 7);
        assert_eq!(value(&story.target, "SELECT count(*)::text FROM p").await, "1");
        let sql = "ALTER TABLE \"public\".\"p\" DETACH PARTITION \"public\".\"p1\"; TRUNCATE \"public\".\"p1\"; \
             ALTER TABLE \"public\".\"p\" ATTACH PARTITION \"public\".\"p1\" FOR VALUES FROM (50) TO (100);";
        story.do_as_printed(&said, sql).await;
        // What was emptied is not called equal.
        let said = story.run(&["catchup"], 8).stderr;
        assert!(said.contains("walferry resync 'public.p1'"), "{said}");
        story.leads_to_the_end().await;
    }
}

/// Bounds of the operator's own are no difference, nor are other words for the same ones.
#[tokio::test(flavor = "multi_thread")]
async fn bounds_of_the_operators_own_are_left_alone_until_the_sources_change() {
    let pair = Pair::builder().start().await;
    let list = "CREATE TABLE l (k text PRIMARY KEY) PARTITION BY LIST (k)";
    let there = PARTED.replace("TO (50)", "TO (500)").replace("int", "bigint");
    let there = format!("{there}; {list}; CREATE TABLE l1 PARTITION OF l FOR VALUES IN ('b', 'a')");
    pair.target_client().await.batch_execute(&there).await.unwrap();
    let setup =
        format!("{PARTED}; INSERT INTO p VALUES (1, 'x'); {list}; CREATE TABLE l1 PARTITION OF l FOR VALUES IN ('a')");
    let story = Story::on(pair, &setup, &["--schema", "existing"]).await;
    story.source("INSERT INTO p VALUES (2, 'y')").await;
    story.ends_equal().await;
    let moved = "BEGIN; ALTER TABLE p DETACH PARTITION p1; ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (500); \
         ALTER TABLE l DETACH PARTITION l1; ALTER TABLE l ATTACH PARTITION l1 FOR VALUES IN ('a', 'b'); COMMIT";
    story.source(moved).await;
    story.source("INSERT INTO p VALUES (400, 'z'); INSERT INTO l VALUES ('b')").await;
    story.leads_to_the_end().await;
}

/// The story: all rows of the root were gone from the target, with "no partition of relation
/// found for row" and no further word.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_not_emptied_for_a_copy_while_the_target_lacks_a_partition_of_it() {
    let story = existing("existing", PARTED, ROOTED).await;
    story.source("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (50) TO (100)").await;
    story.source("INSERT INTO p VALUES (60, 'n')").await;
    let said = story.run(&["resync", "public.p"], 7);
    assert_eq!(value(&story.target, "SELECT count(*)::text FROM p").await, "1");
    story.do_as_printed(&said, "CREATE TABLE \"public\".\"p2\" PARTITION OF \"public\".\"p\"").await;
    story.run(&["resync", "public.p"], 0);
    story.leads_to_the_end().await;
    // The target parts its rows otherwise, and takes some of them only.
    let ranged = "CREATE TABLE p (id int PRIMARY KEY, a text) PARTITION BY RANGE (id); CREATE TABLE h PARTITION OF p FOR VALUES FROM (-10) TO (50)";
    let pair = Pair::builder().start().await;
    pair.target_client().await.batch_execute(ranged).await.unwrap();
    let setup = format!("{PARTED}; INSERT INTO p VALUES (1, 'x'); {ROOTED}");
    let story = Story::on(pair, &setup, &["--schema", "existing", "--publication", "mine"]).await;
    story.source("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (50) TO (100)").await;
    story.source("INSERT INTO p VALUES (60, 'n')").await;
    let said = story.run(&["resync", "public.p"], 7);
    story.do_as_printed(&said, "CREATE TABLE \"public\".\"p2\" PARTITION OF \"public\".\"p\"").await;
    story.run(&["resync", "public.p"], 0);
    story.run(&["catchup"], 0);
    let rows = "SELECT string_agg(p::text, ' ' ORDER BY id) FROM p";
    assert_eq!(value(&story.target, rows).await, "(1,x) (60,n)");
}

/// The story: "duplicate key", and no word of the `resync` that leads out.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_root_has_of_a_partition_that_is_gone_lead_to_its_copy() {
    let made_again = "BEGIN; ALTER TABLE p DETACH PARTITION p1; DROP TABLE p1; CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (50); \
         INSERT INTO p VALUES (1, 'new'); COMMIT";
    for sql in some_of([made_again, "BEGIN; TRUNCATE p1; INSERT INTO p VALUES (1, 'new'); COMMIT"]) {
        for mode in ["create", "existing"] {
            let story = match mode {
                "create" => {
                    Story::of(&format!("{PARTED}; INSERT INTO p VALUES (1, 'x'); {ROOTED}"), &["--publication", "mine"])
                        .await
                }
                _ => existing(mode, PARTED, ROOTED).await,
            };
            story.source(sql).await;
            let said = story.run(&["catchup"], 7).stderr;
            assert!(said.contains("walferry resync 'public.p'"), "{said}");
            story.leads_to_the_end().await;
        }
    }
}

/// The stories: "the migration does not have it: see walferry add", of no table; and 2 for what
/// another `add` of the same list had brought.
#[tokio::test]
async fn a_copy_of_nothing_and_of_what_is_there_say_what_is_so() {
    let story = Story::of("CREATE TABLE a (id int PRIMARY KEY)", &[]).await;
    story.source("CREATE TABLE top (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF top DEFAULT; INSERT INTO top VALUES (1)").await;
    story.run(&["add", "public.part"], 0);
    for table in ["public.top", "public.part"] {
        let said = story.run(&["add", table], 0).stdout;
        assert!(said.contains(&format!("{table}: the migration has it")), "{said}");
    }
    story.ends_equal().await;
    story.source("DROP TABLE a, top").await;
    story.target.batch_execute("DROP TABLE a, top").await.unwrap();
    story.run(&["catchup"], 0);
    let said = story.run(&["resync", "*"], 2).stderr;
    assert!(said.contains("no table is left") && !said.contains("does not have it"), "{said}");
    story.source("CREATE TABLE n (id int PRIMARY KEY)").await;
    let said = story.run(&["resync", "*"], 2).stderr;
    assert!(said.contains("no table is left") && said.contains("walferry add"), "{said}");
}

/// The story: ready, 0 and 0 of --finish, and the root had fewer rows there. How it is
/// there is the operator's, but not without a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_no_partition_or_child_there_from_the_beginning_is_warned_of_with_the_sql() {
    let roots =
        "CREATE TABLE p (id int PRIMARY KEY, a text) PARTITION BY RANGE (id); CREATE TABLE i (id int PRIMARY KEY)";
    let apart = "CREATE TABLE p1 (id int PRIMARY KEY, a text); CREATE TABLE i1 (id int PRIMARY KEY)";
    for mode in some_of(["existing", "none"]) {
        let pair = Pair::builder().start().await;
        pair.source_sql(&format!(
            "{PARTED}; INSERT INTO p VALUES (1, 'x'); CREATE TABLE i (id int PRIMARY KEY); \
             CREATE TABLE i1 (PRIMARY KEY (id)) INHERITS (i); INSERT INTO i1 VALUES (1)"
        ))
        .await;
        let target = pair.target_client().await;
        target.batch_execute(&format!("{roots}; {apart}")).await.unwrap();
        let checked = Walferry::run(&pair, &["check", "--schema", mode], PATIENCE).code(0).stdout;
        let attach = "ALTER TABLE \"public\".\"p\" ATTACH PARTITION \"public\".\"p1\" FOR VALUES FROM (0) TO (50);";
        let inherit = "ALTER TABLE \"public\".\"i1\" INHERIT \"public\".\"i\";";
        let said = Walferry::run(&pair, &["run", "--until", "caught-up", "--schema", mode], PATIENCE).code(0).stderr;
        for text in [&checked, &said] {
            assert!(text.contains(attach) && text.contains(inherit), "{text}");
            assert_eq!(text.matches("have fewer rows").count(), 1, "{text}");
        }
        target.batch_execute(&format!("{attach} {inherit}")).await.unwrap();
        let checked = Walferry::run(&pair, &["check", "--schema", mode], PATIENCE).code(0).stdout;
        assert!(!checked.contains("fewer rows"), "{checked}");
        Walferry::run(&pair, &["catchup", "--finish", "--schema", mode], PATIENCE).code(0);
        pair.assert_equal().await;
    }
}
