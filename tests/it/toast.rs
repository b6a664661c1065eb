//! Large values: what a change does not carry stays as it is on the target,
//! and what it needs but does not carry is asked for before anything is copied.

use crate::journey::{Journey, PATIENCE, execute};
use crate::support::pair::Pair;
use crate::support::process::Walferry;

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

/// The story: the values were read from the source afterwards, by a key that another row had
/// by then.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_moves_into_a_row_filter_brings_its_unchanged_large_values_or_is_refused() {
    let pair = Pair::builder().start().await;
    let source = pair.source_client().await;
    execute(
        &source,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, large text, v int)",
            &format!("INSERT INTO t SELECT i, {LARGE}, i FROM generate_series(1, 5) i"),
            "CREATE TABLE small (id int PRIMARY KEY, v int)",
            "CREATE TABLE parted (id int PRIMARY KEY, large text) PARTITION BY RANGE (id)",
            "CREATE TABLE part PARTITION OF parted DEFAULT",
            "CREATE PUBLICATION filtered FOR TABLE t WHERE (id > 100), TABLE small WHERE (id > 100), TABLE parted WHERE (id > 100) \
             WITH (publish_via_partition_root)",
        ],
    )
    .await;
    let arguments = ["--publication", "filtered"];
    let whole = [
        "ALTER TABLE \"public\".\"t\" REPLICA IDENTITY FULL;",
        "ALTER TABLE \"public\".\"part\" REPLICA IDENTITY FULL;",
    ];
    let said = Walferry::run(&pair, &[&["check"][..], &arguments].concat(), PATIENCE).code(3).stdout;
    assert!(whole.iter().all(|sql| said.contains(sql)) && !said.contains("\"small\" REPLICA"), "{said}");
    let refused = Walferry::run(&pair, &[&["run"][..], &arguments].concat(), PATIENCE).code(3).stderr;
    assert!(whole.iter().all(|sql| refused.contains(sql)), "{refused}");
    execute(&source, &whole).await;
    let mut journey = Journey::on(pair, &[], &arguments).await;
    journey
        .write(&[
            "INSERT INTO parted SELECT id, large FROM t",
            "UPDATE t SET id = 102, v = 20 WHERE id = 2",
            "UPDATE t SET id = 103 WHERE id = 3",
            "UPDATE t SET v = 30 WHERE id = 103",
            "UPDATE t SET id = 6 WHERE id = 102",
            "UPDATE parted SET id = id + 100 WHERE id > 2",
        ])
        .await;
    journey.catch_up().await;
    let sql = "SELECT count(*) || md5(string_agg(t::text, ',' ORDER BY id)) || (SELECT md5(string_agg(p::text, ',' ORDER BY id)) FROM parted p \
               WHERE id > 100) FROM t WHERE id > 100";
    assert_eq!(journey.value(sql).await, crate::journey::value(&journey.source, sql).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_that_is_not_in_the_stream_stops_it_with_the_way_on() {
    let pair = Pair::builder().start().await;
    let source = pair.source_client().await;
    execute(
        &source,
        &[
            "CREATE TABLE t (id int PRIMARY KEY, large text)",
            &format!("INSERT INTO t SELECT i, {LARGE} FROM generate_series(1, 5) i"),
            "ALTER TABLE t REPLICA IDENTITY FULL",
            "CREATE PUBLICATION filtered FOR TABLE t WHERE (id > 100)",
        ],
    )
    .await;
    let mut journey = Journey::on(pair, &[], &["--publication", "filtered"]).await;
    journey.write(&["ALTER TABLE t REPLICA IDENTITY DEFAULT", "UPDATE t SET id = 102 WHERE id = 2"]).await;
    let said = journey.stopped(7).stderr;
    assert!(said.contains("no value of column \"large\"") && said.contains("REPLICA IDENTITY FULL"), "{said}");
    let resync = ["resync", "public.t", "--publication", "filtered"];
    let refused = Walferry::run(&journey.pair, &resync, PATIENCE).code(3).stderr;
    assert!(refused.contains("ALTER TABLE \"public\".\"t\" REPLICA IDENTITY FULL;"), "{refused}");
    journey.write(&["ALTER TABLE t REPLICA IDENTITY FULL"]).await;
    Walferry::run(&journey.pair, &resync, PATIENCE).code(0);
    journey.catch_up_again().code(0);
    let sql = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM t WHERE id > 100";
    assert_eq!(journey.value(sql).await, crate::journey::value(&journey.source, sql).await);
}
