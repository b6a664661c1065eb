//! A change that cannot be applied stops the stream with words, skips nothing,
//! and goes on once it can be.

use crate::journey::{Journey, execute};

#[tokio::test]
async fn a_row_that_is_missing_on_the_target_stops_the_stream_until_it_is_back() {
    let mut journey = Journey::of(&[
        "CREATE TABLE orders (id int, line int, v text, PRIMARY KEY (id, line)); INSERT INTO orders VALUES (1, 1, 'a'), (2, 1, 'secret value')",
        "CREATE TABLE other (id int PRIMARY KEY)",
    ])
    .await;
    execute(&journey.target, &["DELETE FROM orders WHERE id = 2"]).await;
    let before = journey.position().await;
    journey
        .write(&[
            "BEGIN; INSERT INTO other VALUES (1); UPDATE orders SET v = 'b' WHERE id = 2; COMMIT",
            "INSERT INTO other VALUES (2)",
        ])
        .await;
    let ended = journey.stopped(8);
    for words in ["UPDATE", "orders", "id, line", "committed at"] {
        assert!(ended.stderr.contains(words), "{words} is not in:\n{}", ended.stderr);
    }
    assert!(!ended.stderr.contains("secret value"), "a row's value was logged:\n{}", ended.stderr);
    assert_eq!(journey.value("SELECT count(*) FROM other").await, "0", "nothing of it or behind it is there");
    let position = journey.position().await;
    // The replay may have moved it to the end of what came before, not beyond.
    let is_behind = journey.value(&format!("SELECT '{position}'::pg_lsn >= '{before}'::pg_lsn")).await;
    assert_eq!(is_behind, "t");
    journey.start();
    journey.stopped(8);
    assert_eq!(journey.position().await, position);

    execute(&journey.target, &["INSERT INTO orders VALUES (2, 1, 'secret value')"]).await;
    journey.start();
    journey.finish().await;
    assert_eq!(journey.value("SELECT count(*) FROM other").await, "2");
}

#[tokio::test]
async fn a_missing_row_of_a_table_without_a_key_and_a_missing_deleted_row_stop_too() {
    let mut journey = Journey::of(&[
        "CREATE TABLE keyless (a int, b text); ALTER TABLE keyless REPLICA IDENTITY FULL; INSERT INTO keyless VALUES (1, 'x'), (1, 'x')",
        "CREATE TABLE keyed (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY); INSERT INTO keyed VALUES (1), (2)",
    ])
    .await;
    execute(&journey.target, &["UPDATE keyless SET b = 'y' WHERE ctid = (SELECT min(ctid) FROM keyless)"]).await;
    journey.write(&["DELETE FROM keyless"]).await;
    let ended = journey.stopped(8);
    assert!(ended.stderr.contains("DELETE") && ended.stderr.contains("keyless"), "{}", ended.stderr);
    execute(&journey.target, &["UPDATE keyless SET b = 'x'", "DELETE FROM keyed WHERE id = 1"]).await;
    journey.start();
    journey.streams().await;
    // Replaced as a whole, for its identity column: that must find a row too.
    journey.write(&["UPDATE keyed SET n = DEFAULT WHERE id = 1"]).await;
    let ended = journey.stopped(8);
    assert!(ended.stderr.contains("UPDATE") && ended.stderr.contains("keyed"), "{}", ended.stderr);
    execute(&journey.target, &["INSERT INTO keyed OVERRIDING SYSTEM VALUE VALUES (1, 1)"]).await;
    journey.start();
    journey.finish().await;
}

#[tokio::test]
async fn a_constraint_that_only_the_target_has_stops_with_the_targets_words() {
    let mut journey = Journey::of(&[
        "CREATE TABLE t (id int PRIMARY KEY, v int, w text); INSERT INTO t VALUES (1, 1, 'a')",
        "CREATE TABLE other (id int PRIMARY KEY)",
    ])
    .await;
    execute(
        &journey.target,
        &["ALTER TABLE t ADD CONSTRAINT only_here CHECK (v < 100)", "CREATE UNIQUE INDEX only_here_w ON t (w)"],
    )
    .await;
    journey.write(&["INSERT INTO other VALUES (1)", "INSERT INTO t VALUES (2, 100, 'secret value')"]).await;
    let ended = journey.stopped(7);
    for words in ["INSERT", "public.t", "only_here", "23514"] {
        assert!(ended.stderr.contains(words), "{words} is not in:\n{}", ended.stderr);
    }
    assert!(!ended.stderr.contains("secret value"), "a row's value was logged:\n{}", ended.stderr);
    assert_eq!(journey.value("SELECT count(*) FROM other").await, "1", "what came before is durable");
    execute(&journey.target, &["ALTER TABLE t DROP CONSTRAINT only_here"]).await;
    journey.start();
    journey.streams().await;
    journey.write(&["INSERT INTO t VALUES (3, 3, 'a')"]).await;
    let ended = journey.stopped(7);
    assert!(ended.stderr.contains("23505") && ended.stderr.contains("only_here_w"), "{}", ended.stderr);
    execute(&journey.target, &["DROP INDEX only_here_w"]).await;
    journey.start();
    journey.finish().await;
}

#[tokio::test]
async fn a_column_added_on_the_source_stops_with_the_alter_that_helps() {
    let mut journey = Journey::of(&[
        "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')",
    ])
    .await;
    let additions = [
        "ALTER TABLE t ADD COLUMN \"Amount\" numeric(10,2)",
        "ALTER TABLE t ADD COLUMN feeling mood NOT NULL DEFAULT 'glad'",
    ];
    for (number, addition) in additions.iter().enumerate() {
        let change = format!("INSERT INTO t VALUES ({})", 10 + number);
        journey.write(&[addition, &change, "UPDATE t SET v = 'changed' WHERE id = 1"]).await;
        let ended = journey.stopped(7);
        let start = ended.stderr.find("ALTER TABLE").unwrap_or_else(|| panic!("no remedy in:\n{}", ended.stderr));
        let end = ended.stderr[start..].find(';').unwrap() + start;
        // What it says is what helps, rows that were there before included.
        execute(&journey.target, &[&ended.stderr[start..end]]).await;
        journey.start();
        journey.streams().await;
    }
    journey.finish().await;
    assert_eq!(
        journey.value("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'Amount'").await,
        "numeric(10,2)"
    );
}

#[tokio::test]
async fn a_deferrable_constraint_that_does_not_hold_at_the_end_stops_with_its_name_and_the_transaction() {
    let mut journey = Journey::of(&[
        "CREATE TABLE t (id int PRIMARY KEY, u text, CONSTRAINT u_once UNIQUE (u) DEFERRABLE INITIALLY IMMEDIATE);
         INSERT INTO t VALUES (1, 'a')",
        "CREATE TABLE other (id int PRIMARY KEY)",
    ])
    .await;
    execute(&journey.target, &["INSERT INTO t VALUES (9, 'secret value')"]).await;
    journey
        .write(&[
            "INSERT INTO other VALUES (1)",
            "INSERT INTO t VALUES (2, 'secret value')",
            "INSERT INTO other VALUES (2)",
        ])
        .await;
    let ended = journey.stopped(7);
    for words in ["u_once", "23505", "committed at"] {
        assert!(ended.stderr.contains(words), "{words} is not in:\n{}", ended.stderr);
    }
    assert!(!ended.stderr.contains("secret value"), "a row's value was logged:\n{}", ended.stderr);
    assert_eq!(journey.value("SELECT string_agg(id::text, ',') FROM other").await, "1");
    execute(&journey.target, &["DELETE FROM t WHERE id = 9"]).await;
    journey.start();
    journey.finish().await;
}
