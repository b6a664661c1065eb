//! Large values: what a change does not carry stays as it is on the target,
//! and what it needs but does not carry is read from the source.

use crate::journey::{Journey, execute};
use crate::support::pair::Pair;

/// About 100 KB that do not compress below a page.
const LARGE: &str = "(SELECT string_agg(md5(i::text || random()), '') FROM generate_series(1, 3200) i)";

#[tokio::test]
async fn an_unchanged_large_value_stays_and_a_changed_one_is_written() {
    let tables = ["t_default", "t_index", "t_full", "t_keyless"];
    let fixtures: Vec<String> = tables
        .iter()
        .map(|table| {
            let key = if *table == "t_keyless" { "id int" } else { "id int PRIMARY KEY" };
            format!(
                "CREATE TABLE {table} ({key}, code int NOT NULL, small text, large text, other bytea);
                 INSERT INTO {table} SELECT i, i, 'small', {LARGE}, decode({LARGE}, 'hex') FROM generate_series(1, 8) i"
            )
        })
        .collect();
    let mut fixtures: Vec<&str> = fixtures.iter().map(String::as_str).collect();
    fixtures.extend([
        "CREATE UNIQUE INDEX t_index_code ON t_index (code)",
        "ALTER TABLE t_index REPLICA IDENTITY USING INDEX t_index_code",
        "ALTER TABLE t_full REPLICA IDENTITY FULL",
        "ALTER TABLE t_keyless REPLICA IDENTITY FULL",
    ]);
    let mut journey = Journey::of(&fixtures).await;
    for table in tables {
        let changes = [
            format!("UPDATE {table} SET small = 'changed' WHERE id = 1"),
            format!("UPDATE {table} SET large = {LARGE} WHERE id = 2"),
            format!("UPDATE {table} SET id = 103, code = 103 WHERE id = 3"),
            format!("UPDATE {table} SET id = 104, code = 104, other = NULL WHERE id = 4"),
            format!("UPDATE {table} SET large = 'short now' WHERE id = 5"),
            format!("DELETE FROM {table} WHERE id = 6"),
            // Changed, and unchanged right after, in one transaction.
            format!("UPDATE {table} SET large = {LARGE} WHERE id = 7; UPDATE {table} SET small = NULL WHERE id = 7"),
            format!(
                "INSERT INTO {table} VALUES (9, 9, 'new', {LARGE}, NULL); UPDATE {table} SET small = 'x' WHERE id = 9"
            ),
        ];
        journey.write(&changes.each_ref().map(String::as_str)).await;
    }
    journey.finish().await;
    for table in tables {
        let sql = format!("SELECT count(*) FROM {table} WHERE length(large) > 100000 AND id IN (1, 2, 103, 104, 7, 9)");
        assert_eq!(journey.value(&sql).await, "6", "{table}");
    }
}

#[tokio::test]
async fn a_large_key_finds_its_row() {
    let key = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 70) i)";
    let mut journey = Journey::of(&[
        "CREATE TABLE t (k text PRIMARY KEY, v int, large text)",
        "ALTER TABLE t ALTER k SET STORAGE EXTERNAL",
        &format!("INSERT INTO t SELECT {key}, 1, {LARGE}"),
        &format!("INSERT INTO t SELECT 'b' || {key}, 1, {LARGE}"),
    ])
    .await;
    journey
        .write(&[
            "UPDATE t SET v = 2",
            "UPDATE t SET k = 'c' || k, v = 3 WHERE k LIKE 'b%'",
            "UPDATE t SET v = 4 WHERE k LIKE 'c%'",
        ])
        .await;
    journey.finish().await;
}

#[tokio::test]
async fn a_row_that_moves_into_a_row_filter_brings_its_unchanged_large_values() {
    let pair = Pair::builder().start().await;
    let source = pair.source_client().await;
    execute(
        &source,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, shown bool NOT NULL, large text, v int)",
            &format!("INSERT INTO t SELECT i, i = 1, {LARGE}, i FROM generate_series(1, 5) i"),
            "ALTER TABLE t REPLICA IDENTITY FULL",
            "CREATE PUBLICATION filtered FOR TABLE t WHERE (shown)",
        ],
    )
    .await;
    let mut journey = Journey::on(pair, &[], &["--publication", "filtered"]).await;
    assert_eq!(journey.value("SELECT count(*) FROM t").await, "1", "the copy keeps to the filter");
    journey
        .write(&[
            "ALTER TABLE t REPLICA IDENTITY DEFAULT",
            "ALTER PUBLICATION filtered SET TABLE t",
            // A filter on a column outside the key needs FULL for UPDATE, and
            // FULL sends every value: only a filter on the key leaves one out.
            "ALTER PUBLICATION filtered SET TABLE t WHERE (id > 100)",
            "UPDATE t SET id = 102, v = 20 WHERE id = 2",
            "UPDATE t SET id = 103 WHERE id = 3",
            "UPDATE t SET v = 30 WHERE id = 103",
        ])
        .await;
    // Another filter means other rows: that is said, whatever came of the changes.
    let said = journey.catch_up_again().code(8).stderr;
    assert!(said.contains("rows WHERE ((id > 100)) of public.t, and rows WHERE (shown) were published then"), "{said}");
    journey.stopped(0);
    assert_eq!(journey.value("SELECT length(large) FROM t WHERE id = 102 AND v = 20").await, "102400");
    let sql = "SELECT md5(string_agg(large, ',' ORDER BY id)) FROM t WHERE id > 100";
    assert_eq!(journey.value(sql).await, crate::journey::value(&journey.source, sql).await);
}
