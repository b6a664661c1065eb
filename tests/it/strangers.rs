//! Tables that the migration does not know: nothing is passed over unless the
//! operator says so, and the message names the ways on.

use walferry::demo::compare;

use crate::journey::{Journey, PATIENCE, execute, value};
use crate::support::pair::Pair;
use crate::support::process::{Walferry, free_port};
use crate::support::wait_until;

const KNOWN: &str = "CREATE TABLE known (id int PRIMARY KEY, v text); INSERT INTO known VALUES (1, 'a')";

/// An LSN as PostgreSQL writes it.
fn names_an_lsn(text: &str) -> bool {
    text.split_whitespace().any(|word| {
        word.trim_matches(|c: char| !c.is_ascii_alphanumeric()).split_once('/').is_some_and(|(high, low)| {
            let is_hex = |half: &str| !half.is_empty() && half.chars().all(|c| c.is_ascii_hexdigit());
            is_hex(high) && is_hex(low)
        })
    })
}

#[tokio::test]
async fn a_table_created_later_stops_with_the_ways_on_and_is_taken_in_once_it_is_there() {
    let mut journey = Journey::of_all_tables(&[KNOWN]).await;
    let create = "CREATE TABLE later (id int PRIMARY KEY, v text)";
    journey.write(&["INSERT INTO known VALUES (2, 'b')", create, "INSERT INTO later VALUES (1, 'x'), (2, 'y')"]).await;
    let ended = journey.stopped(7);
    for words in ["later", "walferry add", "--exclude-tables"] {
        assert!(ended.stderr.contains(words), "{words} is not in:\n{}", ended.stderr);
    }
    assert!(names_an_lsn(&ended.stderr), "{}", ended.stderr);
    let because = journey.value("SELECT stopped_because FROM walferry.migration").await;
    assert!(because.contains("later"), "{because}");
    assert_eq!(journey.value("SELECT count(*) FROM known").await, "2", "what came before is durable");
    // Started again without a word: it stops in the same place.
    let position = journey.position().await;
    journey.start();
    journey.stopped(7);
    assert_eq!(journey.position().await, position);
    execute(&journey.target, &[create]).await;
    journey.start();
    journey.streams().await;
    journey.write(&["UPDATE later SET v = 'z' WHERE id = 1", "DELETE FROM later WHERE id = 2"]).await;
    journey.finish().await;
    assert_eq!(journey.value("SELECT v FROM later").await, "z");
}

#[tokio::test]
async fn a_table_created_later_that_has_rows_on_the_target_is_not_mixed_with_them() {
    let mut journey = Journey::of_all_tables(&[KNOWN]).await;
    let create = "CREATE TABLE later (id int PRIMARY KEY, v text)";
    execute(&journey.target, &[create, "INSERT INTO later VALUES (99, 'whose?')"]).await;
    journey.write(&[create, "INSERT INTO later VALUES (1, 'x')"]).await;
    let ended = journey.stopped(7);
    assert!(ended.stderr.contains("TRUNCATE ONLY \"public\".\"later\";"), "{}", ended.stderr);
    assert_eq!(journey.value("SELECT count(*) FROM later").await, "1", "nothing was written to it");
    execute(&journey.target, &["TRUNCATE ONLY public.later"]).await;
    journey.start();
    journey.finish().await;
}

/// The story: the rows of a child counted as its parent's, and the TRUNCATE that was
/// printed took them; exit 0.
#[tokio::test]
async fn a_parent_that_was_created_later_is_not_full_by_the_rows_of_its_children() {
    let mut journey = Journey::of_all_tables(&[KNOWN]).await;
    let create =
        "CREATE TABLE later (id int PRIMARY KEY, v text); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (later)";
    execute(&journey.target, &[create]).await;
    journey.write(&[create, "INSERT INTO child VALUES (1, 'c')"]).await;
    let target = &journey.target;
    let arrived = || async { value(target, "SELECT count(*) FROM child").await == "1" };
    wait_until("the child's row is there", PATIENCE, arrived).await;
    journey.write(&["INSERT INTO later VALUES (2, 'l')"]).await;
    journey.finish().await;
    assert_eq!(journey.value("SELECT count(*) FROM later").await, "2");
}

#[tokio::test]
async fn a_partition_that_is_added_is_asked_for_and_then_followed() {
    let mut journey = Journey::of_all_tables(&[
        "CREATE TABLE p (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE p_2024 PARTITION OF p FOR VALUES FROM ('2024-01-01') TO ('2025-01-01'); INSERT INTO p VALUES (1, '2024-05-05')",
    ])
    .await;
    let create = "CREATE TABLE p_2025 PARTITION OF p FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')";
    journey.write(&[create, "INSERT INTO p VALUES (2, '2025-05-05'), (3, '2024-06-06')"]).await;
    let ended = journey.stopped(7);
    assert!(ended.stderr.contains("p_2025"), "{}", ended.stderr);
    assert_eq!(journey.value("SELECT count(*) FROM p").await, "1", "no part of the transaction was applied");
    execute(&journey.target, &[create]).await;
    journey.start();
    journey.finish().await;
    assert_eq!(journey.value("SELECT count(*) FROM p").await, "3");
}

#[tokio::test]
async fn what_the_filter_leaves_out_is_passed_over_and_counted() {
    let pair = Pair::builder().start().await;
    let source = pair.source_client().await;
    let skipped = "CREATE TABLE skipped (id int PRIMARY KEY); INSERT INTO skipped VALUES (1)";
    execute(&source, &[KNOWN, skipped, "CREATE PUBLICATION everything FOR ALL TABLES"]).await;
    let listen = format!("127.0.0.1:{}", free_port());
    let filter = ["--publication", "everything", "--exclude-tables", "skipped"];
    let with_listen: Vec<&str> = filter.iter().copied().chain(["--listen", &listen]).collect();
    let mut journey = Journey::on(pair, &[], &with_listen).await;
    journey
        .write(&[
            "INSERT INTO skipped VALUES (2), (3)",
            "DELETE FROM skipped WHERE id = 1",
            "TRUNCATE skipped",
            "INSERT INTO known VALUES (2, 'b')",
        ])
        .await;
    let target = &journey.target;
    wait_until("the row behind is there", PATIENCE, || async move {
        value(target, "SELECT count(*) FROM known").await == "2"
    })
    .await;
    let metrics = http_get(&listen, "/metrics").await;
    assert!(metrics.contains("\nwalferry_changes_filtered_total 4\n"), "{metrics}");
    journey.arguments(&filter);
    journey.catch_up().await;
    let compared = compare::compare(&journey.source, &journey.target).await.unwrap();
    let differ: Vec<&str> = compared.iter().filter(|object| !object.equal).map(|object| object.name.as_str()).collect();
    assert!(differ.iter().all(|name| *name == "public.skipped"), "{differ:?}");
    // Without the filter the table is one that nobody copied.
    journey.arguments(&["--publication", "everything"]);
    journey.start();
    journey.write(&["INSERT INTO public.skipped VALUES (9)"]).await;
    let ended = journey.stopped(7);
    assert!(ended.stderr.contains("skipped") && ended.stderr.contains("--exclude-tables"), "{}", ended.stderr);
}

async fn http_get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_renamed_table_is_followed_once_it_has_the_name_on_the_target_too() {
    let mut journey = Journey::of_all_tables(&[KNOWN, "CREATE SCHEMA archive"]).await;
    journey
        .write(&[
            "ALTER TABLE known RENAME TO \"Renamed\"; ALTER TABLE \"Renamed\" SET SCHEMA archive",
            "INSERT INTO archive.\"Renamed\" VALUES (2, 'b')",
            "ALTER TABLE archive.\"Renamed\" RENAME TO \"Renamed twice\"",
            "INSERT INTO archive.\"Renamed twice\" VALUES (3, 'c')",
        ])
        .await;
    let ended = journey.stopped(7);
    let said = &ended.stderr[ended.stderr.find("error:").unwrap()..];
    let start = said.find("ALTER TABLE").unwrap_or_else(|| panic!("no remedy in:\n{}", ended.stderr));
    let end = said[start..].rfind(';').unwrap() + start;
    // What it says is what helps.
    execute(&journey.target, &[&said[start..=end]]).await;
    journey.start();
    journey.finish().await;
    assert_eq!(journey.value("SELECT count(*) FROM archive.\"Renamed twice\"").await, "3");
}

#[tokio::test]
async fn a_table_dropped_and_created_again_begins_anew() {
    let mut journey = Journey::of_all_tables(&[KNOWN]).await;
    let create = "CREATE TABLE known (id int PRIMARY KEY, v text)";
    journey
        .write(&["UPDATE known SET v = 'old'", "DROP TABLE known", create, "INSERT INTO known VALUES (5, 'new')"])
        .await;
    let ended = journey.stopped(7);
    assert!(ended.stderr.contains("DROP TABLE \"public\".\"known\";"), "{}", ended.stderr);
    execute(&journey.target, &["DROP TABLE known"]).await;
    Walferry::run(&journey.pair, &["add", "known", "--all-tables"], PATIENCE).code(0);
    journey.start();
    journey.finish().await;
    assert_eq!(journey.value("SELECT string_agg(v, ',') FROM known").await, "new");
}

#[tokio::test]
async fn a_table_that_took_the_place_of_another_is_never_mixed_up_with_it() {
    let mut journey = Journey::of_all_tables(&[KNOWN]).await;
    journey
        .write(&[
            "CREATE TABLE known_new (id int PRIMARY KEY, v text)",
            "BEGIN; INSERT INTO known_new SELECT id + 100, v FROM known;
             ALTER TABLE known RENAME TO known_old; ALTER TABLE known_new RENAME TO known; COMMIT",
            "INSERT INTO known VALUES (200, 'of the new one')",
            "INSERT INTO known_old VALUES (2, 'of the old one')",
        ])
        .await;
    let ended = journey.stopped(7);
    assert!(ended.stderr.contains("\"known\" RENAME TO \"known_old\""), "{}", ended.stderr);
    // Both exist, neither is renamed: the new rows must not go into the old table.
    execute(&journey.target, &["CREATE TABLE known_new (id int PRIMARY KEY, v text)"]).await;
    journey.start();
    let ended = journey.stopped(7);
    assert!(ended.stderr.contains("RENAME TO"), "{}", ended.stderr);
    assert_eq!(journey.value("SELECT count(*) FROM known").await, "1");
    execute(&journey.target, &["ALTER TABLE known RENAME TO known_old", "ALTER TABLE known_new RENAME TO known"]).await;
    journey.start();
    journey.finish().await;
    assert_eq!(journey.value("SELECT v FROM known WHERE id = 200").await, "of the new one");
}

#[tokio::test]
async fn tables_that_exchange_their_names_are_followed_by_what_they_are() {
    let mut journey = Journey::of_all_tables(&[
        "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'a')",
        "CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b VALUES (1, 'b')",
    ])
    .await;
    let exchange = "BEGIN; ALTER TABLE a RENAME TO c; ALTER TABLE b RENAME TO a; ALTER TABLE c RENAME TO b; COMMIT";
    journey.write(&[exchange, "INSERT INTO a VALUES (2, 'was b')", "INSERT INTO b VALUES (2, 'was a')"]).await;
    let ended = journey.stopped(7);
    assert!(ended.stderr.contains("RENAME TO"), "{}", ended.stderr);
    assert_eq!(journey.value("SELECT (SELECT count(*) FROM a) + (SELECT count(*) FROM b)").await, "2");
    execute(&journey.target, &[exchange]).await;
    journey.start();
    journey.finish().await;
}

#[tokio::test]
async fn a_new_table_under_the_name_of_one_that_was_renamed_asks_for_the_rename() {
    let mut journey = Journey::of_all_tables(&[KNOWN]).await;
    let create = "CREATE TABLE known (id int PRIMARY KEY, v text)";
    journey
        .write(&[
            "ALTER TABLE known RENAME TO kept",
            create,
            "INSERT INTO known VALUES (1, 'new')",
            "UPDATE kept SET v = 'kept'",
        ])
        .await;
    let ended = journey.stopped(7);
    // To empty the table would lose the rows of the one that was renamed.
    assert!(ended.stderr.contains("RENAME TO \"kept\"") && !ended.stderr.contains("TRUNCATE"), "{}", ended.stderr);
    execute(&journey.target, &["ALTER TABLE known RENAME TO kept", create]).await;
    journey.start();
    journey.finish().await;
    assert_eq!(journey.value("SELECT v FROM kept").await, "kept");
}

#[tokio::test]
async fn a_table_that_nothing_carries_is_named_at_catch_up_until_it_is_left_out_by_name() {
    let pair = Pair::builder().start().await;
    let other = "CREATE TABLE elsewhere (id int PRIMARY KEY)";
    // A filter that leaves something out makes the publication a list.
    let mut journey = Journey::on(pair, &[KNOWN, other], &["--exclude-tables", "elsewhere"]).await;
    journey.write(&["CREATE TABLE later (id int PRIMARY KEY)", "INSERT INTO later VALUES (1)"]).await;
    let ended = journey.catch_up_with(&["--exclude-tables", "elsewhere"]).code(8);
    assert!(ended.stderr.contains("public.later"), "{}", ended.stderr);
    assert!(ended.stderr.contains("--exclude-tables"), "{}", ended.stderr);
    journey.catch_up_with(&["--exclude-tables", "elsewhere,later"]).code(0);
}
