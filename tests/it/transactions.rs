//! What a transaction is on the source it is on the target: whole, in order,
//! without what was rolled back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::journey::{Journey, PATIENCE, value};
use crate::support::pair::Pair;
use crate::support::{connect, wait_until};

/// Small batches, and a log that tells of the parts of large transactions.
const SMALL: &[&str] = &["--batch-bytes", "1MiB", "--batch-rows", "500", "--log-level", "info,walferry=debug"];

/// Looks at both tables until told to stop; the counts it saw together.
async fn watch(uri: String, stop: Arc<AtomicBool>) -> Vec<String> {
    let client = connect(&uri).await;
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let counts = value(&client, "SELECT (SELECT count(*) FROM t) || ' and ' || (SELECT count(*) FROM other)").await;
        if seen.last() != Some(&counts) {
            seen.push(counts);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    seen
}

#[tokio::test]
async fn a_transaction_larger_than_a_batch_appears_at_once_or_not_at_all() {
    let pair = Pair::builder().start().await;
    let fixtures = ["CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY)"];
    let mut journey = Journey::on(pair, &fixtures, SMALL).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn(watch(journey.pair.target_uri(), stop.clone()));
    journey
        .write(&["BEGIN; INSERT INTO t SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 15000) i;
             INSERT INTO other SELECT generate_series(1, 300); UPDATE t SET v = 'x' WHERE id % 10 = 0;
             DELETE FROM t WHERE id > 14000; COMMIT"])
        .await;
    journey.write(&["INSERT INTO other VALUES (1000)", "DELETE FROM t WHERE id <= 1000"]).await;
    let target = &journey.target;
    wait_until("all of it is there", PATIENCE, || async move {
        value(target, "SELECT (SELECT count(*) FROM t) = 13000 AND (SELECT count(*) FROM other) = 301").await == "t"
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let seen = watcher.await.unwrap();
    let allowed = ["0 and 0", "14000 and 300", "14000 and 301", "13000 and 301"];
    assert!(seen.iter().all(|counts| allowed.contains(&counts.as_str())), "a part was visible: {seen:?}");
    let parts = journey.log().matches("applied a part of a large transaction").count();
    assert!(parts > 1, "it was no large transaction: {parts} parts");
    journey.finish().await;
}

#[tokio::test]
async fn what_was_rolled_back_never_arrives_and_what_was_prepared_arrives_when_committed() {
    let pair = Pair::builder().source_setting("max_prepared_transactions", "5").start().await;
    let fixtures =
        ["CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 10) i"];
    let mut journey = Journey::on(pair, &fixtures, SMALL).await;
    journey
        .write(&[
            "BEGIN; INSERT INTO t VALUES (100, 'a'); SAVEPOINT s; UPDATE t SET v = 'no'; DELETE FROM t WHERE id = 1;
             ROLLBACK TO s; SAVEPOINT s2; INSERT INTO t VALUES (101, 'b'); RELEASE s2; COMMIT",
            "BEGIN; DELETE FROM t; ROLLBACK",
            // Subtransactions, one of them larger than a batch, rolled back.
            "BEGIN; SAVEPOINT a; INSERT INTO t SELECT i, repeat('x', 300) FROM generate_series(1000, 9000) i; ROLLBACK TO a;
             SAVEPOINT b; INSERT INTO t SELECT i, repeat('y', 300) FROM generate_series(1000, 7000) i; RELEASE b; COMMIT",
            "DO $$ BEGIN BEGIN INSERT INTO t VALUES (102, 'c'); INSERT INTO t VALUES (102, 'c');
             EXCEPTION WHEN unique_violation THEN INSERT INTO t VALUES (103, 'd'); END; END $$",
            "BEGIN; INSERT INTO t VALUES (200, 'prepared'); UPDATE t SET v = 'p' WHERE id = 2; PREPARE TRANSACTION 'one'",
            "BEGIN; INSERT INTO t VALUES (201, 'never'); PREPARE TRANSACTION 'two'",
            "INSERT INTO t VALUES (202, 'between')",
        ])
        .await;
    let target = &journey.target;
    wait_until("the row between is there", PATIENCE, || async move {
        value(target, "SELECT count(*) FROM t WHERE id = 202").await == "1"
    })
    .await;
    assert_eq!(journey.value("SELECT count(*) FROM t WHERE id IN (200, 201)").await, "0");
    journey.write(&["COMMIT PREPARED 'one'", "ROLLBACK PREPARED 'two'"]).await;
    journey.finish().await;
    assert_eq!(
        journey.value("SELECT string_agg(id::text, ',' ORDER BY id) FROM t WHERE id BETWEEN 100 AND 300").await,
        "100,101,103,200,202"
    );
}

#[tokio::test]
async fn unique_values_that_change_places_in_one_transaction_arrive() {
    let mut journey = Journey::of(&[
        "CREATE TABLE immediate (id int PRIMARY KEY, u int UNIQUE); INSERT INTO immediate SELECT i, i FROM generate_series(1, 10) i",
        "CREATE TABLE deferrable_now (id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY IMMEDIATE);
         INSERT INTO deferrable_now SELECT i, i FROM generate_series(1, 10) i",
        "CREATE TABLE deferrable_later (id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO deferrable_later SELECT i, i FROM generate_series(1, 10) i",
        "CREATE TABLE excluded (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&) DEFERRABLE INITIALLY IMMEDIATE);
         INSERT INTO excluded SELECT i, int4range(i * 10, i * 10 + 10) FROM generate_series(1, 10) i",
    ])
    .await;
    journey
        .write(&[
            "BEGIN; UPDATE immediate SET u = -1 WHERE id = 1; UPDATE immediate SET u = 1 WHERE id = 2;
             UPDATE immediate SET u = 2 WHERE id = 1; COMMIT",
            "BEGIN; DELETE FROM immediate WHERE id = 3; INSERT INTO immediate VALUES (33, 3); COMMIT",
            "BEGIN; DELETE FROM immediate WHERE id = 4; INSERT INTO immediate VALUES (4, 44); COMMIT",
            // Checked at the end of the one statement on the source.
            "UPDATE deferrable_now SET u = 11 - u",
            "BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE deferrable_now SET u = 5 WHERE id = 1;
             UPDATE deferrable_now SET u = 10 WHERE u = 5 AND id <> 1; COMMIT",
            "UPDATE deferrable_later SET u = u % 10 + 1",
            "UPDATE excluded SET r = int4range(lower(r) + 10, upper(r) + 10)",
        ])
        .await;
    journey.finish().await;
    assert_eq!(journey.value("SELECT u FROM deferrable_later WHERE id = 10").await, "1");
    assert_eq!(journey.value("SELECT lower(r) FROM excluded WHERE id = 10").await, "110");
}
