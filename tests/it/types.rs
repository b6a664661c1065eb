//! Values of every type that a column can have, through the copy and through
//! the stream.

use std::fmt::Write;

use crate::journey::{Journey, PATIENCE, execute, value};
use crate::support::pair::Pair;
use crate::support::process::Walferry;
use crate::support::servers;

/// A type and values of it, as they are typed.
pub type Sample = (&'static str, &'static [&'static str]);

pub const BUILT_IN: &[Sample] = &[
    ("bool", &["t", "f"]),
    ("bytea", &["\\x", "\\x00ff5c27220a", "\\xdeadbeef"]),
    ("\"char\"", &["a", "'", "\\"]),
    ("name", &["a", "Ünï \"q\"", ""]),
    ("int2", &["-32768", "32767"]),
    ("int4", &["-2147483648", "2147483647"]),
    ("int8", &["-9223372036854775808", "9223372036854775807"]),
    ("float4", &["NaN", "Infinity", "-0", "1e-45", "0.1"]),
    ("float8", &["NaN", "-Infinity", "-0", "5e-324", "0.1", "1.7976931348623157e308"]),
    ("numeric", &["NaN", "Infinity", "-1e1000", "0.000", "123456789012345678901234567890.1234567890"]),
    ("numeric(6,2)", &["0", "-1234.50", "NaN"]),
    ("text", &["", "a\tb\r\nc\\.\\N'\"", "\\.", "\\N", "\u{1f418} ü", "NULL"]),
    ("varchar(5)", &["", "abc  ", "ü\\n'"]),
    ("char(5)", &["", "ab", "abcde"]),
    ("bpchar", &["", "ab", "a'b"]),
    ("json", &["{\"a\" : 1, \"a\": 2}", "null", "[ ]", "\"\\u00e9\\n\""]),
    ("jsonb", &["{\"b\": [1.10, null, \"\\\\\"], \"a\": {}}", "null", "[]"]),
    ("jsonpath", &["$.\"a\"[*]?(@ > 1)", "strict $"]),
    ("point", &["(1,2)", "(-0,1e-300)", "(NaN,Infinity)"]),
    ("line", &["{1,2,3}", "{0,-1,0.5}"]),
    ("lseg", &["[(0,0),(1,1)]", "[(1.5,-2),(0.1,0)]"]),
    ("box", &["(1,1),(0,0)", "(0.1,2),(-3,-4)"]),
    ("path", &["[(0,0),(1,1)]", "((0,0),(1,1),(2,0))"]),
    ("polygon", &["((0,0),(1,1),(2,0))", "((0.1,0))"]),
    ("circle", &["<(0,0),1>", "<(1.5,-2),0>"]),
    ("date", &["infinity", "-infinity", "0044-03-15 BC", "2024-02-29"]),
    ("time", &["00:00", "24:00", "12:34:56.789012"]),
    ("time(2)", &["00:00", "12:34:56.79"]),
    ("timetz", &["00:00+00", "24:00-15:59", "12:34:56.789012+05:45"]),
    ("timestamp", &["infinity", "4713-01-01 BC", "2024-02-29 23:59:59.999999"]),
    (
        "timestamptz",
        &["-infinity", "0044-03-15 12:00+00 BC", "294276-12-31 23:59:59.999999+00", "1900-01-01 00:00+00:09"],
    ),
    ("interval", &["1 year -2 mons 3 days -04:05:06.789", "00:00", "-178000000 years"]),
    ("interval day to second(2)", &["3 days 04:05:06.78"]),
    ("bit(3)", &["101", "000"]),
    ("bit", &["1", "0"]),
    ("varbit", &["", "1", "010101010"]),
    ("inet", &["10.1.2.3/8", "::ffff:1.2.3.4", "fe80::1/64"]),
    ("cidr", &["10.0.0.0/8", "::/0"]),
    ("macaddr", &["08:00:2b:01:02:03"]),
    ("macaddr8", &["08:00:2b:01:02:03:04:05"]),
    ("uuid", &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "00000000-0000-0000-0000-000000000000"]),
    ("money", &["-92233720368547758.08", "0.01"]),
    ("tsvector", &["", "'a':1A,2B 'b''c\\\\':3"]),
    ("tsquery", &["'a' & !'b':*A | 'c' <-> 'd'", ""]),
    ("pg_lsn", &["0/0", "FFFFFFFF/FFFFFFFF"]),
    ("oid", &["0", "4294967295"]),
    ("xid", &["0", "4294967295"]),
    ("xid8", &["0", "18446744073709551615"]),
    ("cid", &["0", "4294967295"]),
    ("tid", &["(0,1)", "(4294967295,65535)"]),
    ("refcursor", &["", "a cursor"]),
    ("int2vector", &["", "1 -2 3"]),
    ("oidvector", &["", "0 4294967295"]),
    ("txid_snapshot", &["10:20:10,14,15", "1:1:"]),
    ("pg_snapshot", &["10:20:10,14,15", "1:1:"]),
    ("aclitem", &["=r/postgres", "postgres=rw*/postgres"]),
    ("regclass", &["pg_class", "-", "public.mentioned"]),
    ("regtype", &["int4", "numeric[]", "public.mood"]),
    ("regproc", &["pg_catalog.now", "-", "public.f"]),
    ("regprocedure", &["pg_catalog.abs(integer)", "-"]),
    ("regoper", &["0", "pg_catalog.||/"]),
    ("regoperator", &["pg_catalog.+(integer,integer)", "0"]),
    ("regnamespace", &["public", "pg_catalog"]),
    ("regrole", &["postgres", "-"]),
    ("regconfig", &["english", "simple"]),
    ("regdictionary", &["simple"]),
    ("regcollation", &["\"C\"", "-"]),
    ("int4range", &["empty", "[1,5)", "(,)"]),
    ("int8range", &["[1,5)", "(,9223372036854775807)"]),
    ("numrange", &["(1.10,2.00]", "[NaN,NaN]"]),
    ("tsrange", &["[2024-01-01,infinity]", "empty"]),
    ("tstzrange", &["[2024-01-01 00:00+00,2024-01-02 00:00+00)", "(,)"]),
    ("daterange", &["[2024-01-01,2024-02-01)", "(,infinity)"]),
    ("int4multirange", &["{}", "{[1,3),[5,7)}"]),
    ("int8multirange", &["{(,)}"]),
    ("nummultirange", &["{[1.0,1.50]}"]),
    ("tsmultirange", &["{[2024-01-01,2024-01-02)}"]),
    ("tstzmultirange", &["{[2024-01-01 00:00+00,)}"]),
    ("datemultirange", &["{[2024-01-01,2024-02-01),[2025-01-01,)}"]),
];

const COMPOUND: &[Sample] = &[
    ("int4[]", &["{}", "{1,NULL,3}", "[2:3][-1:0]={{1,2},{3,4}}", "{{{1}},{{2}}}"]),
    ("text[]", &["{\"\",NULL,\"NULL\",\"a,b\",\"\\\\ \\\"\",\"\n\"}", "[0:0]={x}"]),
    ("bytea[]", &["{\"\\\\x00\",\"\\\\x\"}"]),
    ("numeric(6,2)[]", &["{1.10,NaN}"]),
    ("timestamptz[]", &["{infinity,NULL}"]),
    ("jsonb[]", &["{\"{\\\"a\\\": [1]}\",null}"]),
    ("box[]", &["{(1,1),(0,0);(2,2),(1,1)}"]),
    ("regtype[]", &["{integer,public.mood}"]),
    ("int4range[]", &["{\"[1,5)\",empty}"]),
    ("public.mood", &["sad", "it's", "so so"]),
    ("public.mood[]", &["{sad,\"so so\",it's,NULL}"]),
    ("public.dom", &["x", ""]),
    ("public.dom[]", &["{x,NULL}"]),
    ("public.dom_array", &["{1,2}", "{}"]),
    ("public.dom_row", &["(1,x)"]),
    ("public.inside", &["(1,\"a\"\"b\\\\,\")", "(,)", "(2,\"\")"]),
    ("public.inside[]", &["{\"(1,\\\"x y\\\")\",NULL,\"(,)\"}"]),
    ("public.outside", &["(\"(1,\"\"a b\"\")\",\"{\"\"(2,c)\"\",NULL}\",sad,\"[1,2)\")", "(,,,)"]),
    ("public.spread", &["[1.5,2.5)", "empty", "(,)"]),
    ("public.spread_multi", &["{[1,2),[3,4)}", "{}"]),
    ("\"Odd types\".\"Mood \"\"2\"\"\"", &["A b", ""]),
    ("\"Odd types\".\"Mood \"\"2\"\"\"[]", &["{\"A b\",\"\"}"]),
];

const TYPES: &[&str] = &[
    "CREATE TYPE public.mood AS ENUM ('sad', 'so so', 'it''s')",
    "CREATE DOMAIN public.dom AS text CHECK (value <> 'bad')",
    "CREATE DOMAIN public.dom_array AS int[] NOT NULL DEFAULT '{}'",
    "CREATE TYPE public.inside AS (a int, b text)",
    "CREATE DOMAIN public.dom_row AS public.inside CHECK ((value).a > 0)",
    "CREATE TYPE public.spread AS RANGE (subtype = float8, multirange_type_name = spread_multi)",
    "CREATE TYPE public.outside AS (i public.inside, n public.inside[], m public.mood, r int4range)",
    "CREATE SCHEMA \"Odd types\"; CREATE TYPE \"Odd types\".\"Mood \"\"2\"\"\" AS ENUM ('A b', '')",
    "CREATE TABLE public.mentioned (a int PRIMARY KEY)",
    "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
];

/// Types of pg_catalog that no user's column has: no input, or pseudo.
const WITHOUT_INPUT: &str = "'pg_node_tree', 'pg_ndistinct', 'pg_dependencies', 'pg_mcv_list', 'pg_brin_bloom_summary', \
    'pg_brin_minmax_multi_summary', 'gtsvector', 'pg_ddl_command', 'unknown'";

/// The columns' definitions and the rows' values: as many rows as the longest
/// sample has values, and one of NULLs.
struct Rows {
    columns: String,
    rows: Vec<String>,
}

fn rows(samples: &[Sample]) -> Rows {
    let mut columns = String::new();
    for (number, (kind, _)) in samples.iter().enumerate() {
        write!(columns, ", c{number} {kind}").unwrap();
    }
    let longest = samples.iter().map(|(_, values)| values.len()).max().unwrap();
    let row = |at: usize| {
        let cell = |(_, values): &Sample| format!(", '{}'", values[at % values.len()].replace('\'', "''"));
        samples.iter().map(cell).collect::<String>()
    };
    Rows { columns, rows: (0..longest).map(row).collect() }
}

async fn every_value_arrives(samples: &[Sample], null: &str) {
    let Rows { columns, rows } = rows(samples);
    let nulls = null.repeat(samples.len());
    let mut fixtures: Vec<String> = TYPES.iter().map(|sql| (*sql).to_owned()).collect();
    fixtures.push(format!("CREATE TABLE keyed (id int PRIMARY KEY{columns})"));
    fixtures.push(format!("CREATE TABLE keyless (id int{columns}); ALTER TABLE keyless REPLICA IDENTITY FULL"));
    for table in ["keyed", "keyless"] {
        for (id, values) in rows.iter().enumerate() {
            fixtures.push(format!("INSERT INTO {table} VALUES ({id}{values}), (10{id}{values})"));
        }
        fixtures.push(format!("INSERT INTO {table} VALUES (99{nulls})"));
    }
    let fixtures: Vec<&str> = fixtures.iter().map(String::as_str).collect();
    let mut journey = Journey::of(&fixtures).await;
    let names: Vec<String> = (0..samples.len()).map(|number| format!("c{number}")).collect();
    for table in ["keyed", "keyless"] {
        for (id, values) in rows.iter().enumerate() {
            journey.write(&[&format!("INSERT INTO {table} VALUES (20{id}{values})")]).await;
        }
        let next = &rows[1];
        journey
            .write(&[
                &format!("INSERT INTO {table} VALUES (299{nulls})"),
                &format!(
                    "UPDATE {table} SET ({}) = ROW({}) WHERE id = 100",
                    names.join(", "),
                    next.trim_start_matches(", ")
                ),
                &format!("UPDATE {table} SET id = id + 500 WHERE id BETWEEN 200 AND 299"),
                &format!("UPDATE {table} SET id = -1 WHERE id = 99"),
                &format!("DELETE FROM {table} WHERE id BETWEEN 101 AND 109"),
            ])
            .await;
    }
    journey.finish().await;
    let expected = 2 * rows.len() + 3;
    assert_eq!(journey.value("SELECT count(*) FROM keyless").await, expected.to_string());
}

#[tokio::test]
async fn values_of_every_built_in_type_arrive_through_copy_and_stream() {
    every_value_arrives(BUILT_IN, ", NULL").await;
}

#[tokio::test]
async fn values_of_the_users_own_types_and_of_arrays_arrive_through_copy_and_stream() {
    // A domain that is NOT NULL has a default instead.
    let samples: Vec<Sample> = COMPOUND.iter().copied().filter(|(kind, _)| *kind != "public.dom_array").collect();
    every_value_arrives(&samples, ", NULL").await;
    let only: Vec<Sample> = COMPOUND.iter().copied().filter(|(kind, _)| *kind == "public.dom_array").collect();
    every_value_arrives(&only, ", '{3}'").await;
}

#[tokio::test]
async fn no_built_in_type_is_left_out_of_these_tests() {
    let pair = Pair::builder().start().await;
    let source = pair.source_client().await;
    let mut tested = String::from("ARRAY['xml'::regtype::oid");
    for (kind, _) in BUILT_IN {
        write!(tested, ", '{}'::regtype::oid", kind.replace('\'', "''")).unwrap();
    }
    let sql = format!(
        "SELECT coalesce(string_agg(typname, ', '), '') FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace \
         AND typtype IN ('b', 'r', 'm') AND typcategory <> 'A' AND typname NOT IN ({WITHOUT_INPUT}) AND oid <> ALL ({tested}])"
    );
    assert_eq!(value(&source, &sql).await, "");
}

#[tokio::test]
async fn xml_arrives_where_the_servers_have_it() {
    let pair = Pair::builder().start().await;
    if pair.source_client().await.batch_execute("SELECT '<a/>'::xml").await.is_err() {
        eprintln!("this server was built without xml");
        return;
    }
    let fixtures = [
        "CREATE TABLE t (id int, x xml); ALTER TABLE t REPLICA IDENTITY FULL",
        "INSERT INTO t VALUES (1, '<?xml version=\"1.0\"?><a b=\"c\">&lt;ü</a>'), (2, 'text <b/> too'), (3, NULL), (3, NULL)",
    ];
    let mut journey = Journey::on(pair, &fixtures, &[]).await;
    execute(
        &journey.source,
        &[
            "INSERT INTO t SELECT id + 10, x FROM t",
            "UPDATE t SET id = 20 WHERE id = 11; UPDATE t SET x = '<new/>' WHERE id = 2; DELETE FROM t WHERE id = 12",
            "DELETE FROM t WHERE ctid = (SELECT ctid FROM t WHERE id = 3 LIMIT 1)",
        ],
    )
    .await;
    journey.finish().await;
}

/// The story: the copy ended at the first value, after a check that said ready.
#[tokio::test]
async fn xml_is_refused_beforehand_by_a_server_that_takes_none() {
    let versions = servers();
    let pair = Pair::builder().servers(versions.first().unwrap(), versions.last().unwrap()).start().await;
    let has_xml = async |client: tokio_postgres::Client| client.batch_execute("SELECT '<a/>'::xml").await.is_ok();
    if !has_xml(pair.source_client().await).await || has_xml(pair.target_client().await).await {
        eprintln!("both servers or none were built with xml: nothing was tested");
        return;
    }
    pair.source_sql("CREATE DOMAIN page AS xml; CREATE TABLE pages (id int PRIMARY KEY, p page); CREATE TABLE t (id int PRIMARY KEY)")
        .await;
    let check = |arguments: &[&str]| Walferry::run(&pair, &[&["check"], arguments].concat(), PATIENCE);
    let said = check(&[]).code(3).stdout;
    assert!(said.contains("built without libxml") && said.contains("public.pages"), "{said}");
    check(&["--exclude-tables", "pages"]).code(0);
}
