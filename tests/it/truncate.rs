//! TRUNCATE in all its forms, and partitioned tables.

use crate::journey::{Journey, PATIENCE, execute, value};
use crate::support::pair::Pair;
use crate::support::wait_until;

#[tokio::test]
async fn a_truncate_empties_what_the_source_emptied_and_nothing_else() {
    let table = |name: &str| {
        format!(
            "CREATE TABLE {name} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text); INSERT INTO {name} (v) SELECT 'v' FROM generate_series(1, 20)"
        )
    };
    let mut journey = Journey::of(&[
        &table("a"), &table("b"), &table("c"), &table("restarted"), &table("untouched"), &table("within"),
        "CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
         CREATE TABLE grandchild (id int PRIMARY KEY, child int REFERENCES child ON DELETE CASCADE);
         INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (1, 1), (2, 2); INSERT INTO grandchild VALUES (1, 1)",
        "CREATE TABLE keyless (v text); ALTER TABLE keyless REPLICA IDENTITY FULL; INSERT INTO keyless VALUES ('x')",
        "CREATE TABLE base (id int PRIMARY KEY); CREATE TABLE heir (PRIMARY KEY (id)) INHERITS (base);
         INSERT INTO base VALUES (1); INSERT INTO heir VALUES (2)",
    ])
    .await;
    journey
        .write(&[
            "INSERT INTO a (v) VALUES ('before')",
            "TRUNCATE a, b, keyless",
            "INSERT INTO a (v) VALUES ('after')",
            "TRUNCATE restarted RESTART IDENTITY",
            "INSERT INTO restarted (v) VALUES ('first again')",
            "TRUNCATE parent CASCADE",
            "INSERT INTO parent VALUES (3); INSERT INTO child VALUES (3, 3)",
            // In one transaction: what came before goes, what comes after stays.
            "BEGIN; INSERT INTO within (v) VALUES ('gone'); UPDATE within SET v = 'gone too'; TRUNCATE within;
             INSERT INTO within (v) VALUES ('stays'); INSERT INTO c (v) VALUES ('c'); TRUNCATE c; COMMIT",
            "BEGIN; TRUNCATE untouched; ROLLBACK",
            "BEGIN; SAVEPOINT s; TRUNCATE untouched; ROLLBACK TO s; INSERT INTO untouched (v) VALUES ('more'); COMMIT",
            "TRUNCATE ONLY base",
        ])
        .await;
    let target = &journey.target;
    wait_until("all of it is there", PATIENCE, || async move {
        value(target, "SELECT count(*) FROM ONLY base").await == "0"
    })
    .await;
    // The sequence itself began anew: no pass over the sequences goes back.
    assert_eq!(journey.value("SELECT last_value FROM restarted_id_seq").await, "1");
    journey.finish().await;
    assert_eq!(journey.value("SELECT string_agg(v, ',') FROM within").await, "stays");
    assert_eq!(journey.value("SELECT count(*) FROM untouched").await, "21");
    assert_eq!(journey.value("SELECT count(*) FROM heir").await, "1");
    assert_eq!(journey.value("SELECT count(*) FROM grandchild").await, "0");
}

/// The story: "cannot TRUNCATE because it has pending trigger events", retried for ever.
#[tokio::test]
async fn a_truncate_behind_changes_that_deferrable_constraints_look_at_later_is_applied() {
    let filled = |name: &str| format!("INSERT INTO {name} SELECT i, i FROM generate_series(1, 10) i");
    let mut journey = Journey::of(&[
        "CREATE TABLE now (id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY IMMEDIATE)",
        "CREATE TABLE \"L\" (id int PRIMARY KEY, u int CONSTRAINT \"L u\" UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TABLE r (id int, u int, UNIQUE (id, u) DEFERRABLE) PARTITION BY RANGE (id); ALTER TABLE r REPLICA IDENTITY FULL",
        "CREATE TABLE r_0 PARTITION OF r FOR VALUES FROM (0) TO (100); ALTER TABLE r_0 REPLICA IDENTITY FULL",
        "CREATE TABLE other (id int PRIMARY KEY, u int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TABLE namesake (id int PRIMARY KEY CONSTRAINT \"L u\" CHECK (id > 0), CONSTRAINT now_u_key CHECK (id < 99))",
        &filled("now"),
        &filled("\"L\""),
        &filled("r"),
        &filled("other"),
    ])
    .await;
    journey
        .write(&[
            "UPDATE \"L\" SET u = u % 10 + 1",
            "TRUNCATE \"L\"",
            // What waits of another table is not right yet.
            "BEGIN; UPDATE now SET u = 11 - u; UPDATE other SET u = 2 WHERE id = 1; UPDATE r SET u = 11 - u, id = 11 - id;
             TRUNCATE now, r; INSERT INTO now SELECT i, i FROM generate_series(1, 5) i; UPDATE now SET u = 6 - u;
             INSERT INTO r VALUES (1, 1); UPDATE other SET u = 1 WHERE id = 2; COMMIT",
            "UPDATE now SET u = u % 5 + 1",
            "TRUNCATE r_0",
        ])
        .await;
    journey.finish().await;
    assert_eq!(journey.value("SELECT string_agg(u::text, ' ' ORDER BY id) FROM other WHERE id < 3").await, "2 1");
    assert_eq!(journey.value("SELECT count(*) FROM now").await, "5");
}

const PARTITIONED: &[&str] = &[
    "CREATE TABLE by_range (id int, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
     CREATE TABLE by_range_1 PARTITION OF by_range FOR VALUES FROM (MINVALUE) TO ('2024-01-01');
     CREATE TABLE by_range_2 PARTITION OF by_range FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
     CREATE TABLE by_range_rest PARTITION OF by_range DEFAULT",
    "CREATE TABLE by_list (id int, kind text, v text, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
     CREATE TABLE by_list_a PARTITION OF by_list FOR VALUES IN ('a') PARTITION BY RANGE (id);
     CREATE TABLE by_list_a_low PARTITION OF by_list_a FOR VALUES FROM (MINVALUE) TO (100);
     CREATE TABLE by_list_a_high PARTITION OF by_list_a FOR VALUES FROM (100) TO (MAXVALUE);
     CREATE TABLE by_list_rest PARTITION OF by_list DEFAULT",
    // Columns in another order in a partition that was attached.
    "CREATE TABLE by_hash (id int PRIMARY KEY, v text) PARTITION BY HASH (id);
     CREATE TABLE by_hash_0 (v text, gone int, id int NOT NULL PRIMARY KEY); ALTER TABLE by_hash_0 DROP gone;
     ALTER TABLE by_hash ATTACH PARTITION by_hash_0 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
     CREATE TABLE by_hash_1 PARTITION OF by_hash FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    "CREATE TABLE keyless (a int, v text) PARTITION BY LIST (a);
     CREATE TABLE keyless_1 PARTITION OF keyless FOR VALUES IN (1); CREATE TABLE keyless_2 PARTITION OF keyless DEFAULT;
     ALTER TABLE keyless_1 REPLICA IDENTITY FULL; ALTER TABLE keyless_2 REPLICA IDENTITY FULL; ALTER TABLE keyless REPLICA IDENTITY FULL",
    "INSERT INTO by_range SELECT i, '2023-12-01'::date + i * 20, 'v' FROM generate_series(1, 40) i",
    "INSERT INTO by_list SELECT i, CASE WHEN i % 2 = 0 THEN 'a' ELSE 'z' END, 'v' FROM generate_series(1, 200) i",
    "INSERT INTO by_hash SELECT i, 'v' FROM generate_series(1, 50) i",
    "INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (2, 'x'), (2, 'x')",
];

const PARTITION_CHANGES: &[&str] = &[
    "INSERT INTO by_range VALUES (1000, '2023-01-01', 'new'), (1001, '2024-06-01', 'new'), (1002, '2030-01-01', 'new')",
    // Rows that move to another partition.
    "UPDATE by_range SET at = '2026-01-01', v = 'moved' WHERE id IN (1, 1000)",
    "UPDATE by_range SET v = 'stays' WHERE id = 5",
    "UPDATE by_list SET kind = 'a' WHERE id BETWEEN 10 AND 20",
    "UPDATE by_list SET id = id + 1000 WHERE kind = 'a' AND id < 100",
    "DELETE FROM by_list WHERE kind = 'z' AND id > 150",
    "UPDATE by_hash SET id = id + 100, v = 'moved' WHERE id <= 20",
    "DELETE FROM by_hash WHERE id > 45 AND id < 100",
    "UPDATE keyless SET a = 2 WHERE ctid = (SELECT ctid FROM keyless WHERE a = 1 LIMIT 1) AND a = 1",
    "DELETE FROM keyless WHERE a = 2 AND ctid = (SELECT ctid FROM keyless WHERE a = 2 LIMIT 1)",
];

#[tokio::test]
async fn rows_of_partitions_follow_through_their_leaves() {
    let mut journey = Journey::of_all_tables(PARTITIONED).await;
    journey.write(PARTITION_CHANGES).await;
    execute(&journey.target, &["ALTER TABLE by_range DETACH PARTITION by_range_1"]).await;
    journey
        .write(&[
            "TRUNCATE by_range_2",
            "INSERT INTO by_range VALUES (2000, '2024-02-02', 'after')",
            "TRUNCATE by_list_a",
            "BEGIN; INSERT INTO by_hash VALUES (-1, 'x'); TRUNCATE by_hash; INSERT INTO by_hash VALUES (-2, 'y'); COMMIT",
            // Detached, it is an ordinary table; its rows go on.
            "ALTER TABLE by_range DETACH PARTITION by_range_1; INSERT INTO by_range_1 VALUES (3000, '2020-01-01', 'alone')",
        ])
        .await;
    journey.finish().await;
    assert_eq!(journey.value("SELECT count(*) FROM by_hash").await, "1");
    assert_eq!(journey.value("SELECT count(*) FROM by_range_2").await, "1");
}

#[tokio::test]
async fn rows_of_partitions_published_through_their_root_follow() {
    let pair = Pair::builder().start().await;
    let source = pair.source_client().await;
    execute(&source, PARTITIONED).await;
    execute(&source, &["CREATE PUBLICATION rooted FOR ALL TABLES WITH (publish_via_partition_root)"]).await;
    let mut journey = Journey::on(pair, &[], &["--publication", "rooted"]).await;
    journey.write(PARTITION_CHANGES).await;
    journey.write(&["TRUNCATE by_hash", "INSERT INTO by_hash VALUES (7, 'again')", "TRUNCATE by_list, by_range"]).await;
    journey.finish().await;
    assert_eq!(journey.value("SELECT count(*) FROM by_range").await, "0");
    assert_eq!(journey.value("SELECT count(*) FROM by_hash").await, "1");
}
