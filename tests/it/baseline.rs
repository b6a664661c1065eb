//! `--no-copy`: the rows are on the target already, restored by other means.

use crate::journey::{Journey, PATIENCE, execute, value};
use crate::support::pair::Pair;
use crate::support::process::Walferry;

/// What both sides have before the slot exists.
const SCHEMA: &str = "CREATE TABLE part (id int PRIMARY KEY, name text NOT NULL); \
     CREATE TABLE stock (part int REFERENCES part, id serial PRIMARY KEY, n int); \
     INSERT INTO part SELECT i, 'part ' || i FROM generate_series(1, 500) i; \
     INSERT INTO stock (part, n) SELECT i, i * 3 FROM generate_series(1, 500) i";

/// What is written between the slot and the point at which the baseline is
/// taken, and so is on the target as well.
const BEFORE: &str = "INSERT INTO part SELECT i, 'early' FROM generate_series(501, 600) i; UPDATE part SET name = 'touched' WHERE id = 3";

/// What is written behind it.
const AFTER: [&str; 3] = [
    "INSERT INTO part SELECT i, 'late' FROM generate_series(601, 700) i",
    "UPDATE stock SET n = n + 1 WHERE part <= 100",
    "DELETE FROM stock WHERE part > 400",
];

const ARGUMENTS: [&str; 5] = ["--no-copy", "--slot", "theirs", "--publication", "theirs"];

/// A pair with the same tables on both sides, and a slot on the source.
async fn restored() -> Pair {
    let pair = Pair::builder().start().await;
    execute(&pair.source_client().await, &[SCHEMA, "CREATE PUBLICATION theirs FOR ALL TABLES"]).await;
    execute(&pair.target_client().await, &[SCHEMA]).await;
    pair.source_sql("SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')").await;
    pair
}

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&ARGUMENTS[..], more].concat()
}

async fn lsn(pair: &Pair) -> String {
    value(&pair.source_client().await, "SELECT pg_current_wal_insert_lsn()").await
}

#[tokio::test]
async fn rows_restored_as_of_the_slot_are_taken_as_they_are_and_followed() {
    let pair = restored().await;
    execute(&pair.source_client().await, &[BEFORE]).await;
    let mut journey = Journey::on(pair, &AFTER, &ARGUMENTS).await;
    journey.finish().await;
    let log = journey.log();
    assert!(log.contains("no copy: the rows on the target are taken as they are tables=2"), "{log}");
    // Its foreign key was there and was held back.
    let foreign_keys = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conrelid = 'stock'::regclass";
    assert_eq!(journey.value(foreign_keys).await, "0");
    let finished = journey.catch_up_with(&[&["--finish"], &ARGUMENTS[1..]].concat()).code(0);
    assert_eq!(journey.value(foreign_keys).await, "1", "{}", finished.stderr);
}

#[tokio::test]
async fn a_backup_from_behind_the_beginning_of_the_slot_is_followed_from_its_own_point_on() {
    let pair = restored().await;
    execute(&pair.source_client().await, &[BEFORE]).await;
    execute(&pair.target_client().await, &[BEFORE]).await;
    let start = lsn(&pair).await;
    let mut journey = Journey::on(pair, &AFTER, &arguments(&["--start-lsn", &start])).await;
    journey.finish().await;
    // From the slot's own beginning the early rows would have come twice.
    assert_eq!(journey.value("SELECT count(*) FROM part WHERE name = 'early'").await, "100");
}

#[tokio::test]
async fn a_baseline_that_cannot_be_followed_is_refused_with_the_reason() {
    let pair = restored().await;
    let refused = |arguments: &[&str], code: i32| {
        Walferry::run(&pair, &[&["run"], arguments].concat(), PATIENCE).code(code).stderr
    };
    let words = refused(&["--no-copy"], 2);
    assert!(words.contains("--no-copy needs --slot"), "{words}");
    let words = refused(&["--start-lsn", "0/1"], 2);
    assert!(words.contains("--start-lsn needs --no-copy"), "{words}");
    let words = refused(&arguments(&["--schema", "create"]), 2);
    assert!(words.contains("--schema existing or none"), "{words}");
    let words = refused(&["--no-copy", "--slot", "nowhere", "--publication", "theirs"], 3);
    assert!(words.contains("there is no replication slot nowhere"), "{words}");
    let words = refused(&["--no-copy", "--slot", "theirs", "--publication", "nowhere", "--name", "other"], 3);
    assert!(words.contains("there is no publication nowhere"), "{words}");
    let named = |more: &[&'static str]| [&arguments(more)[..], &["--name", "another"]].concat();
    let words = refused(&named(&["--start-lsn", "FFFF/0"]), 2);
    assert!(words.contains("ahead of the source"), "{words}");
    let words = refused(&named(&["--start-lsn", "0/1"]), 4);
    assert!(words.contains("something else consumed it"), "{words}");
}
