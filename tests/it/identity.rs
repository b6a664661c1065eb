//! Each replica identity, and keys of each usual type: the row that a change
//! means is the row that changes, and no other.

use std::fmt::Write;

use crate::journey::Journey;
use crate::story::Story;
use crate::support::pair::Pair;

#[tokio::test]
async fn every_replica_identity_finds_its_rows() {
    let mut journey = Journey::of(&[
        "CREATE TABLE by_default (id int PRIMARY KEY, v text);
         INSERT INTO by_default SELECT i, 'v' || i FROM generate_series(1, 20) i",
        "CREATE TABLE by_index (a int NOT NULL, b text NOT NULL, v text, id int PRIMARY KEY);
         CREATE UNIQUE INDEX by_index_ba ON by_index (b, a);
         ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_ba;
         INSERT INTO by_index SELECT i % 3, 'b' || i, NULL, i FROM generate_series(1, 20) i",
        "CREATE TABLE composite (a int, b text, c int, v text, PRIMARY KEY (c, a, b));
         INSERT INTO composite SELECT i % 2, 'b' || i % 5, i % 7, i FROM generate_series(1, 70) i",
        "CREATE TABLE full_keyed (id int PRIMARY KEY, v text, w int);
         ALTER TABLE full_keyed REPLICA IDENTITY FULL;
         INSERT INTO full_keyed SELECT i, 'v', NULL FROM generate_series(1, 20) i",
        // Unique, but several rows may have NULL: no key to find a row by.
        "CREATE TABLE full_nullable (u int UNIQUE, v text);
         ALTER TABLE full_nullable REPLICA IDENTITY FULL;
         INSERT INTO full_nullable VALUES (NULL, 'a'), (NULL, 'a'), (NULL, 'b'), (1, 'a'), (2, NULL)",
        "CREATE TABLE full_keyless (a int, b text, c float8, j json, p point);
         ALTER TABLE full_keyless REPLICA IDENTITY FULL;
         INSERT INTO full_keyless VALUES (1, 'three', 'NaN', '{\"a\": 1}', '(1,2)'), (1, 'three', 'NaN', '{\"a\": 1}', '(1,2)'),
             (1, 'three', 'NaN', '{\"a\": 1}', '(1,2)'), (2, NULL, '-0', NULL, NULL), (2, NULL, '0', NULL, NULL),
             (2, NULL, '0', NULL, NULL), (NULL, NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL, NULL)",
        "CREATE TABLE inserts_only (id int PRIMARY KEY, v text)",
    ])
    .await;
    journey
        .write(&[
            "ALTER TABLE inserts_only REPLICA IDENTITY NOTHING",
            "INSERT INTO inserts_only VALUES (1, 'a'), (2, NULL)",
            "UPDATE by_default SET v = NULL WHERE id = 1",
            "DELETE FROM by_default WHERE id = 2",
            "UPDATE by_default SET id = 102 WHERE id = 3",
            "INSERT INTO by_default VALUES (3, 'again')",
            // Two keys swapped through a third, in one transaction.
            "BEGIN; UPDATE by_default SET id = -1 WHERE id = 4; UPDATE by_default SET id = 4 WHERE id = 5;
             UPDATE by_default SET id = 5 WHERE id = -1; COMMIT",
            // Every key moves.
            "UPDATE by_default SET id = id + 1000",
            "UPDATE by_index SET v = 'by key' WHERE id = 1",
            "UPDATE by_index SET a = 9, b = 'moved', v = 'key' WHERE id = 2",
            "UPDATE by_index SET id = 1003 WHERE id = 3",
            "DELETE FROM by_index WHERE id = 4",
            "UPDATE composite SET v = NULL WHERE c = 1",
            "UPDATE composite SET b = 'other ' || b, a = 7 WHERE c = 2 AND a = 0",
            "DELETE FROM composite WHERE c = 3",
            "UPDATE full_keyed SET v = NULL WHERE id = 1",
            "UPDATE full_keyed SET v = v WHERE id = 2",
            "UPDATE full_keyed SET id = 1003, w = 1 WHERE id = 3",
            "DELETE FROM full_keyed WHERE id = 4",
        ])
        .await;
    journey
        .write(&[
            "DELETE FROM full_nullable WHERE ctid = (SELECT ctid FROM full_nullable WHERE u IS NULL AND v = 'a' LIMIT 1)",
            "UPDATE full_nullable SET u = 3 WHERE v = 'b'",
            "UPDATE full_nullable SET v = 'c' WHERE v IS NULL",
            "DELETE FROM full_keyless WHERE ctid = (SELECT ctid FROM full_keyless WHERE a = 1 LIMIT 1)",
            "UPDATE full_keyless SET b = 'one of two' WHERE ctid = (SELECT ctid FROM full_keyless WHERE a = 1 LIMIT 1)",
            // Zero and minus zero are equal, and not the same row.
            "UPDATE full_keyless SET b = 'minus' WHERE a = 2 AND c::text = '-0'",
            "DELETE FROM full_keyless WHERE ctid = (SELECT ctid FROM full_keyless WHERE a = 2 AND c::text = '0' LIMIT 1)",
            "UPDATE full_keyless SET a = 3 WHERE ctid = (SELECT ctid FROM full_keyless WHERE a IS NULL LIMIT 1)",
            "UPDATE full_keyless SET a = a WHERE a IS NULL",
        ])
        .await;
    journey.finish().await;
    assert_eq!(journey.value("SELECT count(*) FROM full_keyless WHERE b LIKE '%three%'").await, "1");
    assert_eq!(
        journey.value("SELECT string_agg(c::text, ',' ORDER BY c::text) FROM full_keyless WHERE a = 2").await,
        "-0,0"
    );
    assert_eq!(journey.value("SELECT count(*) FROM full_nullable WHERE u IS NULL AND v = 'a'").await, "1");
    assert_eq!(journey.value("SELECT v FROM by_default WHERE id = 1004").await, "v5");
    assert_eq!(journey.value("SELECT count(*) FROM inserts_only").await, "2");
}

/// A type, and four different values of it.
const KEYS: &[(&str, [&str; 4])] = &[
    ("text", ["", "a'b\\c", "ü\n\"x\"", "A"]),
    ("varchar(10)", ["a", "a ", "A", ""]),
    ("char(5)", ["a", "ab", "abcde", "Ä"]),
    ("\"char\"", ["a", "b", "\\377", "'"]),
    ("name", ["a", "b c", "D", "\"e\""]),
    ("citext", ["a", "B", "c c", ""]),
    ("ltree", ["a", "a.b", "c", "D.e"]),
    ("dom_ltree", ["a", "a.b", "c", "D.e"]),
    ("dom", ["x", "y", "z", "X"]),
    ("dom_citext", ["x", "y", "z", ""]),
    ("dom_dom", ["x", "y", "z", "X"]),
    ("mood", ["sad", "so so", "it's", "HAPPY"]),
    ("pair", ["(1,a)", "(1,)", "(2,\"b,\"\"c\")", "(,a)"]),
    ("bool", ["t", "f", "f", "f"]),
    ("int2", ["-32768", "0", "1", "32767"]),
    ("int8", ["-9223372036854775808", "0", "1", "9223372036854775807"]),
    ("float4", ["NaN", "-Infinity", "1.1", "3.4e38"]),
    ("float8", ["NaN", "Infinity", "0.1", "1.7976931348623157e308"]),
    ("numeric", ["NaN", "0.00", "1e50", "-123456789.000000001"]),
    ("numeric(10,2)", ["0", "1.10", "-1.1", "99999999.99"]),
    ("money", ["1.10", "-1", "0", "99"]),
    (
        "uuid",
        [
            "00000000-0000-0000-0000-000000000000",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ],
    ),
    ("bytea", ["\\x", "\\x00", "\\xdeadbeef", "\\x5c27"]),
    ("date", ["infinity", "0044-03-15 BC", "2024-02-29", "-infinity"]),
    ("time", ["00:00", "24:00", "12:34:56.789012", "01:00"]),
    ("timetz", ["00:00+00", "24:00-05", "12:34:56.789012+05:30", "01:00+14"]),
    ("timestamp", ["infinity", "0044-03-15 12:00 BC", "2024-02-29 23:59:59.999999", "-infinity"]),
    ("timestamptz", ["infinity", "0044-03-15 12:00+00 BC", "2024-02-29 23:59:59.999999+05:30", "-infinity"]),
    ("interval", ["1 mon", "-1 day 00:00:01", "00:00:00.000001", "100 years"]),
    ("bit varying", ["", "1", "0101", "00"]),
    ("inet", ["10.0.0.1", "10.0.0.0/8", "::1", "fe80::/10"]),
    ("macaddr", ["08:00:2b:01:02:03", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "08:00:2b:01:02:04"]),
    ("oid", ["0", "1", "4294967295", "2147483648"]),
    ("pg_lsn", ["0/0", "0/1", "16/B374D848", "FFFFFFFF/FFFFFFFF"]),
    ("jsonb", ["null", "{\"a\": [1, \"x\"]}", "1.10", "\"\""]),
    ("tsvector", ["", "'a':1A 'b''c'", "'a'", "'x':3"]),
    ("int4range", ["empty", "[1,5)", "(,)", "[7,)"]),
    ("int4multirange", ["{}", "{[1,3),[5,7)}", "{(,)}", "{[9,)}"]),
    ("int[]", ["{}", "{1,NULL,3}", "[0:1]={1,2}", "{{1},{2}}"]),
    ("text[]", ["{}", "{\"a,b\",NULL,\"NULL\"}", "{\"\\\\\\\"\"}", "{ä}"]),
    ("mood[]", ["{}", "{sad}", "{\"so so\",sad}", "{it's}"]),
];

const KEY_TYPES: &str = "
    CREATE EXTENSION citext; CREATE EXTENSION ltree; CREATE DOMAIN ltree_once AS ltree; CREATE DOMAIN dom_ltree AS ltree_once; CREATE DOMAIN dom AS text CHECK (value <> 'bad'); CREATE DOMAIN dom_citext AS citext;
    CREATE DOMAIN dom_dom AS dom; CREATE TYPE mood AS ENUM ('sad', 'so so', 'it''s', 'HAPPY');
    CREATE TYPE pair AS (a int, b text)";

#[tokio::test]
async fn keys_of_every_usual_type_find_their_rows() {
    let (mut fixtures, mut changes) = (String::from(KEY_TYPES), String::new());
    for (number, (kind, [a, b, c, d])) in KEYS.iter().enumerate() {
        let value = |text: &str| format!("'{}'::{kind}", text.replace('\'', "''"));
        let [a, b, c, d] = [a, b, c, d].map(|text| value(text));
        write!(fixtures, "; CREATE TABLE k{number} (k {kind} PRIMARY KEY, v int)").unwrap();
        write!(fixtures, "; INSERT INTO k{number} VALUES ({a}, 1), ({b}, 2)").unwrap();
        write!(changes, "; UPDATE k{number} SET v = 3 WHERE k = {a}").unwrap();
        if *kind != "bool" {
            write!(changes, "; INSERT INTO k{number} VALUES ({c}, 4); UPDATE k{number} SET k = {d} WHERE k = {a}")
                .unwrap();
            write!(changes, "; UPDATE k{number} SET k = {a}, v = 5 WHERE k = {b}").unwrap();
        }
        write!(changes, "; DELETE FROM k{number} WHERE k = {b} OR k = {c}").unwrap();
        write!(changes, "; INSERT INTO k{number} VALUES ({b}, 6)").unwrap();
    }
    let mut journey = Journey::on(Pair::builder().with_extensions().start().await, &[&fixtures], &[]).await;
    journey.write(&[changes.trim_start_matches(';')]).await;
    journey.finish().await;
    let rows: usize = KEYS.iter().map(|(kind, _)| if *kind == "bool" { 2 } else { 3 }).sum();
    let each: Vec<String> = (0..KEYS.len()).map(|number| format!("SELECT 1 FROM k{number}")).collect();
    let counted = journey.value(&format!("SELECT count(*) FROM ({}) all_rows", each.join(" UNION ALL "))).await;
    assert_eq!(counted, rows.to_string());
}

/// The story: "insert, delete another" of a key that is unique on the target alone became
/// nothing, with exit 0.
#[tokio::test]
async fn a_key_that_is_unique_on_the_target_alone_takes_no_row_for_another() {
    let pair = Pair::builder().start().await;
    let there = "CREATE TABLE t (k int CONSTRAINT only_here PRIMARY KEY, v text)";
    pair.target_client().await.batch_execute(there).await.unwrap();
    let setup = "CREATE TABLE t (k int, v text); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, 'old'), (2, 'two')";
    let story = Story::on(pair, setup, &["--schema", "existing"]).await;
    story
        .source("UPDATE t SET v = 'zwei' WHERE k = 2; INSERT INTO t VALUES (1, 'new'); DELETE FROM t WHERE v = 'old'")
        .await;
    let said = story.run(&["catchup"], 7).stderr;
    assert!(said.contains("only_here"), "{said}");
    story.target.batch_execute("ALTER TABLE t DROP CONSTRAINT only_here").await.unwrap();
    story.ends_equal().await;
}

#[tokio::test]
async fn a_key_that_changes_to_an_equal_but_different_value_is_followed() {
    let mut journey = Journey::on(Pair::builder().with_extensions().start().await, &[
        "CREATE EXTENSION citext; CREATE TABLE t (k citext PRIMARY KEY, v int); INSERT INTO t VALUES ('abc', 1), ('x', 2)",
        "CREATE TABLE n (k numeric PRIMARY KEY, v int); INSERT INTO n VALUES (1, 1), (2.50, 2)",
        "CREATE TABLE f (k float8 PRIMARY KEY, v int); INSERT INTO f VALUES ('-0', 1)",
    ], &[])
    .await;
    journey
        .write(&[
            "UPDATE t SET k = 'ABC' WHERE k = 'abc'",
            "UPDATE t SET v = 3 WHERE k = 'abc'",
            "DELETE FROM t WHERE k = 'X'",
            "UPDATE n SET k = 1.000 WHERE k = 1",
            "UPDATE n SET v = 7 WHERE k = 2.5",
            "UPDATE f SET k = 0",
        ])
        .await;
    journey.finish().await;
    assert_eq!(journey.value("SELECT k FROM t").await, "ABC");
    assert_eq!(journey.value("SELECT k FROM n WHERE v = 1").await, "1.000");
    assert_eq!(journey.value("SELECT k FROM f").await, "0");
}
