//! Values arrive as the source wrote them, whatever casts, domains and column types
//! there are on the target.

use walferry::demo::cluster::SUPERUSER;

use crate::journey::{Journey, PATIENCE, execute, value};
use crate::story::Story;
use crate::support::connect;
use crate::support::pair::{DATABASE, Pair};
use crate::support::process::Walferry;

/// The story: a cast from text that a user had made was taken for the type's input
/// function: streamed values were others, an update changed what it had not touched, and
/// a DELETE took the row whose cast value was the same.
#[tokio::test]
async fn a_cast_from_text_that_somebody_made_is_not_taken_for_the_input_function() {
    let fixtures = [
        "CREATE TYPE mood AS ENUM ('sad', 'so so', 'glad')",
        "CREATE FUNCTION lenient(text) RETURNS mood LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN \
           RETURN CASE WHEN $1 = 'glad' THEN 'sad' ELSE 'so so' END; END $$",
        "CREATE CAST (text AS mood) WITH FUNCTION lenient(text) AS ASSIGNMENT",
        "CREATE DOMAIN felt AS mood; CREATE DOMAIN truly AS felt",
        "CREATE FUNCTION many(text) RETURNS mood[] LANGUAGE sql IMMUTABLE AS 'SELECT ARRAY[''sad'']::mood[]'",
        "CREATE CAST (text AS mood[]) WITH FUNCTION many(text)",
        "CREATE TABLE plain (id int PRIMARY KEY, m mood, f felt, t truly, l mood[], d felt[], note text)",
        "CREATE TABLE by_mood (m mood PRIMARY KEY, note text)",
        "CREATE TABLE by_both (id int, f truly, note text, PRIMARY KEY (id, f))",
        "CREATE TABLE by_list (l mood[] PRIMARY KEY, note text)",
        "CREATE TABLE keyless (m mood, l felt[]); ALTER TABLE keyless REPLICA IDENTITY FULL",
        "INSERT INTO by_mood VALUES ('sad', 's'), ('so so', 'o'), ('glad', 'g')",
        "INSERT INTO by_list VALUES ('{sad}', 's'), ('{glad,sad}', 'g')",
        "INSERT INTO plain SELECT i, 'glad', 'glad', 'sad', '{glad,sad}', '{glad}', 'n' FROM generate_series(1, 20) i",
    ];
    let mut journey = Journey::of(&fixtures).await;
    execute(
        &journey.source,
        &[
            "INSERT INTO plain SELECT i, 'glad', 'glad', 'glad', '{glad,\"so so\"}', '{glad,NULL}', 'n' FROM generate_series(100, 500) i",
            "INSERT INTO plain VALUES (21, 'sad', 'glad', 'so so', '{}', NULL, 'x')",
            "UPDATE plain SET note = 'm' WHERE id BETWEEN 3 AND 5; UPDATE plain SET m = 'sad', l = '{sad,glad}' WHERE id = 7",
            "DELETE FROM by_mood WHERE m = 'glad'; DELETE FROM by_list WHERE l = '{glad,sad}'",
            "INSERT INTO by_both SELECT i, 'glad', 'n' FROM generate_series(1, 5) i; INSERT INTO by_both VALUES (1, 'sad', 's')",
            "UPDATE by_both SET note = 'u' WHERE f::mood = 'glad'; DELETE FROM by_both WHERE id = 1 AND f::mood = 'glad'",
            "INSERT INTO keyless VALUES ('glad', '{glad}'), ('sad', '{sad}'), ('glad', '{glad}')",
            "DELETE FROM keyless WHERE m = 'sad'; UPDATE keyless SET m = 'so so'",
        ],
    )
    .await;
    journey.finish().await;
}

/// The story: a key of a domain over an enum has no operator that takes it.
#[tokio::test]
async fn keys_of_domains_find_their_rows() {
    let fixtures = [
        "CREATE TYPE mood AS ENUM ('sad', 'so so', 'glad'); CREATE DOMAIN felt AS mood; CREATE DOMAIN truly AS felt",
        "CREATE DOMAIN numbers AS int[]; CREATE DOMAIN short AS varchar(5); CREATE DOMAIN spans AS int4range",
        "CREATE TABLE alone (k truly PRIMARY KEY, n int); CREATE TABLE listed (k numbers PRIMARY KEY, n int)",
        "CREATE TABLE brief (k short PRIMARY KEY, n int); CREATE TABLE ranged (k spans PRIMARY KEY, n int)",
        "CREATE TABLE several (a felt, b numbers, c short, n int, PRIMARY KEY (a, b, c))",
        "INSERT INTO alone VALUES ('sad', 1), ('so so', 2), ('glad', 3); INSERT INTO listed VALUES ('{1}', 1), ('{1,2}', 2), ('{}', 3)",
        "INSERT INTO brief VALUES ('a', 1), ('ab', 2), ('', 3); INSERT INTO ranged VALUES ('[1,3)', 1), ('empty', 2), ('[,]', 3)",
        "INSERT INTO several SELECT 'sad', ARRAY[i], 'x' || i, i FROM generate_series(1, 9) i",
    ];
    let mut journey = Journey::of(&fixtures).await;
    for table in ["alone", "listed", "brief", "ranged"] {
        let sql = format!("UPDATE {table} SET n = 10 WHERE n = 1; DELETE FROM {table} WHERE n = 2");
        execute(&journey.source, &[&sql]).await;
    }
    execute(
        &journey.source,
        &[
            "UPDATE alone SET k = 'so so' WHERE n = 10; UPDATE listed SET k = '{7}' WHERE n = 10; UPDATE brief SET k = 'c' WHERE n = 10",
            "UPDATE several SET n = -n WHERE n < 5; UPDATE several SET c = 'new' WHERE n = 6; DELETE FROM several WHERE n > 7",
        ],
    )
    .await;
    journey.finish().await;
}

/// Types of a column before and after, and a value that needs the second.
const WIDENED: [(&str, &str, &str); 6] = [
    ("numeric(10,2)", "numeric(14,4)", "1.2345"),
    ("timestamp(0) without time zone", "timestamp(6) without time zone", "2026-01-01 00:00:00.123456"),
    ("character varying(3)", "character varying(10)", "abcdef"),
    ("real", "double precision", "0.1234567890123"),
    ("numeric(5,1)[]", "numeric(7,3)[]", "{1.125}"),
    ("bit varying(3)", "bit varying", "10101"),
];

/// The story: 1.2345 arrived as 1.23, exit 0; the Relation message says the new type, and
/// nobody compared it.
#[tokio::test]
async fn a_type_that_changes_on_the_source_is_a_stop_with_the_alter_before_the_first_value() {
    let all = |which: fn(&(&'static str, &'static str, &'static str)) -> &'static str| {
        let columns = WIDENED.iter().enumerate().map(|(n, types)| format!("c{n} {}", which(types)));
        columns.collect::<Vec<_>>().join(", ")
    };
    let setup = format!("CREATE TABLE a (id int PRIMARY KEY, {}); INSERT INTO a (id) VALUES (1)", all(|types| types.0));
    let story = Story::of(&setup, &[]).await;
    for (n, (_, after, value)) in WIDENED.iter().enumerate() {
        let alter = format!("ALTER COLUMN \"c{n}\" TYPE {after}");
        story.source(&format!("ALTER TABLE a {alter}; INSERT INTO a (id, c{n}) VALUES (10 + {n}, '{value}')")).await;
        let said = story.run(&["catchup"], 7);
        story.do_as_printed(&said, &format!("ALTER TABLE \"public\".\"a\" {alter}")).await;
        story.ends_equal().await;
    }
    // Without a change behind it: named at the end.
    story.source("ALTER TABLE a ALTER COLUMN c2 TYPE varchar(20)").await;
    let said = story.run(&["catchup"], 8);
    story.do_as_printed(&said, "ALTER TABLE \"public\".\"a\" ALTER COLUMN \"c2\" TYPE").await;
    story.ends_equal().await;
}

/// The story: a domain over varchar(3) cut streamed values of varchar(10), and a column of
/// fewer digits rounded copied ones.
#[tokio::test]
async fn a_schema_whose_columns_hold_less_is_refused_by_check_and_run_with_the_alter() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE DOMAIN wide AS numeric(14,4); CREATE TABLE a (id int PRIMARY KEY, v varchar(10), w wide, n numeric(4,1)); \
         INSERT INTO a VALUES (1, 'abcdef', 1.2345, 1.5)",
    )
    .await;
    let target = pair.target_client().await;
    execute(
        &target,
        &["CREATE DOMAIN short AS varchar(3); CREATE DOMAIN shorter AS short; CREATE DOMAIN wide AS numeric(10,2); \
           CREATE TABLE a (id bigint PRIMARY KEY, v shorter, w wide, n numeric)"],
    )
    .await;
    let with = |command: &[&str], code: i32| {
        Walferry::run(&pair, &[command, &["--schema", "existing"]].concat(), PATIENCE).code(code)
    };
    let check = with(&["check"], 3).stdout;
    let run = with(&["run", "--until", "caught-up"], 3).stderr;
    for said in [&check, &run] {
        assert!(said.contains("ALTER TABLE \"public\".\"a\" ALTER COLUMN \"v\" TYPE character varying(10);"), "{said}");
        assert!(
            said.contains("\"w\" of public.a is numeric(14,4) on the source, and of numeric(10,2)")
                && !said.contains("\"n\" of public.a"),
            "{said}"
        );
    }
    execute(&target, &["ALTER TABLE a ALTER COLUMN v TYPE varchar(10), ALTER COLUMN w TYPE numeric(14,4)"]).await;
    with(&["run", "--until", "caught-up"], 0);
    pair.source_sql("INSERT INTO a SELECT i, 'long' || i, 1.0001 * i, 9.9 FROM generate_series(2, 600) AS i; UPDATE a SET w = 9.8765 WHERE id = 1").await;
    with(&["catchup"], 0);
    pair.assert_equal().await;
}

/// Settings of a database or a role that change values or definitions for whoever takes them over.
pub const HOSTILE: [&str; 14] = [
    "array_nulls=off",
    "standard_conforming_strings=off",
    "datestyle=German",
    "intervalstyle=sql_standard",
    "extra_float_digits=-5",
    "bytea_output=escape",
    "timezone='Asia/Kolkata'",
    "transform_null_equals=on",
    "quote_all_identifiers=on",
    "default_transaction_isolation=serializable",
    "xmloption=document",
    "lc_monetary='C.UTF-8'",
    "backslash_quote=off",
    "default_tablespace='pg_default'",
];

/// The story: settings of a role or a database changed values, and definitions, without a word.
#[tokio::test]
async fn settings_of_role_and_database_change_neither_values_nor_definitions() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        r"CREATE TABLE t (id int PRIMARY KEY, a text[] DEFAULT '{NULL}', b text DEFAULT 'a\b\n', c money DEFAULT 12.34,
             d timestamptz DEFAULT '2026-03-04 05:06:07+00', e interval DEFAULT '1 year -2 days', f float8 DEFAULT 0.1234567890123456,
             g bytea DEFAULT '\xdeadbeef', CHECK (b <> E'\\'), CHECK ((id = NULL) IS NULL));
          CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id);
          CREATE INDEX odd ON t (b) WHERE b <> 'x\y'; COMMENT ON TABLE t IS 'back\slash'; INSERT INTO t VALUES (1), (2)",
    )
    .await;
    for cluster in [&pair.source, &pair.target] {
        let admin = connect(&cluster.socket_uri(SUPERUSER, DATABASE)).await;
        for setting in HOSTILE {
            admin.batch_execute(&format!("ALTER DATABASE {DATABASE} SET {setting}")).await.unwrap();
        }
    }
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    pair.source_sql(
        r"SET standard_conforming_strings = on; SET array_nulls = on; SET datestyle = 'ISO';
          INSERT INTO t VALUES (3); INSERT INTO t VALUES (4, E'{NULL,x,\\\\}', E'q\\'), (5, ARRAY['NULL', NULL], 'r');
          UPDATE t SET a = ARRAY[NULL, 'NULL'], c = -99.01, d = '1900-01-01', f = 1e-300 WHERE id = 1; INSERT INTO t SELECT generate_series(10, 700)",
    )
    .await;
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
    let definitions = "SELECT string_agg(x, E'\\n' ORDER BY x) FROM (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 't'::regclass \
         UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 't'::regclass \
         UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 't'::regclass \
         UNION ALL SELECT obj_description('t'::regclass)) AS d (x)";
    let (source, target) = (pair.source_client().await, pair.target_client().await);
    assert_eq!(value(&target, definitions).await, value(&source, definitions).await);
}
