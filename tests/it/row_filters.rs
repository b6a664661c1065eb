//! Row filters that come, go or change while a migration is under way: rows were missing
//! behind exit 0, and nothing named the publication.

use crate::journey::{PATIENCE, value};
use crate::migration::streaming;
use crate::story::Story;
use crate::support::pair::Pair;
use crate::support::process::{Walferry, command_for};

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, v varchar(9)); INSERT INTO t SELECT i, 'x' FROM generate_series(1, 100) AS i;";

/// The rows of the target's tables t and n, as far as they are there.
async fn rows(story: &Story, table: &str) -> String {
    value(&story.target, &format!("SELECT count(*) FROM {table}")).await
}

/// The story: `resync`, as catchup had said, copied the 19 rows that the filter let through,
/// and `catchup --finish` ended with 0.
#[tokio::test]
async fn a_row_filter_that_comes_into_walferrys_own_publication_is_refused_until_it_is_gone() {
    let story = Story::of(TABLE, &[]).await;
    story.source("ALTER PUBLICATION walferry SET TABLE t WHERE (id < 20); INSERT INTO t VALUES (200, 'unseen')").await;
    let only = "publication walferry publishes only rows WHERE ((id < 20)) of public.t";
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains(only) && said.contains("and all were published then"), "{said}");
    let mends = "ALTER PUBLICATION \"walferry\" DROP TABLE ONLY \"public\".\"t\"; ALTER PUBLICATION \"walferry\" ADD TABLE ONLY \"public\".\"t\";";
    let refused = story.run(&["resync", "t"], 3).stderr;
    assert!(refused.contains(only) && refused.contains(mends) && said.contains(mends), "{said}\n{refused}");
    assert_eq!(rows(&story, "t").await, "100", "it was not emptied for that");
    story.run(&["catchup", "--finish"], 8);
    story.source(mends).await;
    story.leads_to_the_end().await;
}

#[tokio::test]
async fn a_row_filter_that_comes_into_the_operators_publication_is_named_until_the_table_is_copied_by_it() {
    let own = format!("{TABLE} CREATE PUBLICATION f1 FOR TABLE t");
    let story = Story::of(&own, &["--publication", "f1"]).await;
    story.source("ALTER PUBLICATION f1 SET TABLE t WHERE (id < 20)").await;
    for _ in 0..2 {
        let said = story.run(&["catchup"], 8).stderr;
        assert!(said.contains("publication f1 publishes only rows WHERE ((id < 20)) of public.t"), "{said}");
        assert!(said.contains("which takes rows that are not from the target: walferry resync 'public.t'"), "{said}");
    }
    let copied = story.run(&["resync", "t"], 0);
    assert!(
        copied.stdout.contains("public.t: 19 rows copied (only those WHERE ((id < 20)) are published)"),
        "{}",
        copied.stdout
    );
    let said = story.run(&["catchup"], 0).stderr;
    assert!(
        said.contains("publication f1 publishes only rows WHERE ((id < 20)) of public.t: only these are"),
        "{said}"
    );
    // A column of it that is renamed is no other condition.
    story.source("ALTER TABLE t RENAME id TO number; ALTER PUBLICATION f1 SET (publish = 'insert, update, delete, truncate')").await;
    story.target.batch_execute("ALTER TABLE t RENAME id TO number").await.unwrap();
    story.source("ALTER PUBLICATION f1 SET TABLE t").await;
    let said = story.run(&["catchup", "--finish"], 8).stderr;
    assert!(said.contains("publication f1 publishes all rows of public.t, and rows WHERE"), "{said}");
    story.leads_to_the_end().await;
}

/// What `resync` asks for is named with it.
#[tokio::test]
async fn a_row_filter_that_comes_to_a_table_with_large_values_is_named_with_what_has_all_of_them_come() {
    let own = format!("{TABLE} ALTER TABLE t ADD large text; CREATE PUBLICATION f1 FOR TABLE t");
    let story = Story::of(&own, &["--publication", "f1"]).await;
    story.source("ALTER PUBLICATION f1 SET TABLE t WHERE (id < 20)").await;
    let whole = "ALTER TABLE \"public\".\"t\" REPLICA IDENTITY FULL;";
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains(whole), "{said}");
    let refused = story.run(&["resync", "t"], 3).stderr;
    assert!(refused.contains(whole), "{refused}");
    assert_eq!(rows(&story, "t").await, "100", "it was not emptied for that");
    story.source(whole).await;
    story.run(&["resync", "t"], 0);
    story.run(&["catchup"], 0);
    assert_eq!(rows(&story, "t").await, "19");
}

/// The story: an UPDATE of a row that had been filtered out ended the stream with "find out
/// what else writes to the target".
#[tokio::test]
async fn a_row_that_is_missing_since_a_row_filter_went_is_told_with_the_publication() {
    let own = format!("{TABLE} CREATE PUBLICATION f1 FOR TABLE t WHERE (id < 20)");
    let story = Story::of(&own, &["--publication", "f1"]).await;
    story.source("ALTER PUBLICATION f1 SET TABLE t; UPDATE t SET v = 'y' WHERE id = 50").await;
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains("public.t is published otherwise than when its rows were read: publication f1"), "{said}");
    story.leads_to_the_end().await;
}

/// The story: of a new table nine of a hundred rows came, without a word.
#[tokio::test]
async fn a_new_table_with_a_row_filter_is_taken_in_with_its_condition_said_or_refused_by_our_own_publication() {
    let new = "CREATE TABLE n (id int PRIMARY KEY); INSERT INTO n SELECT generate_series(1, 100);";
    let own = format!("{TABLE} CREATE PUBLICATION f1 FOR TABLE t");
    let story = Story::of(&own, &["--publication", "f1"]).await;
    story.source(&format!("{new} ALTER PUBLICATION f1 ADD TABLE n WHERE (id < 10)")).await;
    let said = story.run(&["catchup"], 0).stderr;
    let only = "publishes only rows WHERE ((id < 10)) of public.n: only these are copied and followed";
    assert!(said.contains(only), "{said}");
    assert_eq!(rows(&story, "n").await, "9");

    let story = Story::of(TABLE, &[]).await;
    story.source(&format!("{new} ALTER PUBLICATION walferry ADD TABLE n WHERE (id < 10)")).await;
    for (command, code) in [(&["add", "n"][..], 3), (&["catchup"], 8)] {
        let said = story.run(command, code).stderr;
        assert!(said.contains("publication walferry publishes only rows WHERE ((id < 10)) of public.n"), "{said}");
    }
    story.source("ALTER PUBLICATION walferry DROP TABLE ONLY n; ALTER PUBLICATION walferry ADD TABLE ONLY n").await;
    story.leads_to_the_end().await;
}

/// The story: a first copy that was killed went on with a filter that had come since.
#[tokio::test]
async fn a_first_copy_does_not_go_on_with_a_row_filter_that_came_since() {
    let two = format!("{TABLE} CREATE TABLE t2 AS TABLE t; ALTER TABLE t2 ADD PRIMARY KEY (id);");
    let story = Story::cut_off(&two).await;
    story.source("ALTER PUBLICATION walferry SET TABLE t, t2 WHERE (id < 20)").await;
    let said = story.run(&["run", "--until", "caught-up"], 3).stderr;
    assert!(said.contains("publication walferry publishes only rows WHERE ((id < 20)) of public.t2"), "{said}");
    story.source("ALTER PUBLICATION walferry SET TABLE t, t2").await;
    story.run(&["run", "--until", "caught-up"], 0);
    story.leads_to_the_end().await;

    let pair = Pair::builder().start().await;
    pair.source_sql(&format!("{two} CREATE PUBLICATION f1 FOR TABLE t, t2")).await;
    let mut command = command_for(&pair, &["run", "--jobs", "1", "--publication", "f1"]);
    command.env("WALFERRY_FAILPOINT", "copy-before-commit:1");
    Walferry::spawn(command).wait(PATIENCE);
    pair.source_sql("ALTER PUBLICATION f1 SET TABLE t, t2 WHERE (id < 20)").await;
    let with = |command: &[&str], code| {
        Walferry::run(&pair, &[command, &["--publication", "f1"]].concat(), PATIENCE).code(code)
    };
    let said = with(&["run", "--until", "caught-up"], 3).stderr;
    assert!(said.contains("publication f1 publishes only rows WHERE ((id < 20)) of public.t2"), "{said}");
    // Its owner may want it so.
    with(&["resync", "t2"], 0);
    with(&["run", "--until", "caught-up"], 0);
    with(&["catchup"], 0);
    let target = pair.target_client().await;
    assert_eq!(value(&target, "SELECT (SELECT count(*) FROM t) || ' ' || (SELECT count(*) FROM t2)").await, "100 19");
}

/// The same through a daemon: the desk asks what the command asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_daemon_names_the_filter_and_copies_the_table_by_it() {
    let pair = Pair::builder().start().await;
    pair.source_sql(&format!("{TABLE} CREATE PUBLICATION f1 FOR TABLE t")).await;
    let daemon = streaming(&pair, &["--publication", "f1"]).await;
    pair.source_sql("ALTER PUBLICATION f1 SET TABLE t WHERE (id < 20)").await;
    let copied = Walferry::run(&pair, &["resync", "t", "--publication", "f1"], PATIENCE).code(0);
    assert!(copied.stdout.contains("only those WHERE ((id < 20)) are published"), "{}", copied.stdout);
    daemon.terminate(PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--publication", "f1"], PATIENCE).code(0);
    assert_eq!(value(&pair.target_client().await, "SELECT count(*) FROM t").await, "19");
}
