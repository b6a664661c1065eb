//! The plans of the set-based statements: the rows of a large table are reached
//! through an index on their key, whatever its type.
//!
//! A generic plan does not know how long the arrays are. Left alone it reads
//! the whole table sooner or later, once for each batch.

use std::sync::Arc;

use walferry::apply::mapping::Mapping;
use walferry::apply::pipeline::plan_settings;
use walferry::apply::set_based::{SetRenderer, SetStatement, Writing};
use walferry::apply::target::TargetTable;
use walferry::coalesce::{Net, Row, Updated};
use walferry::config::{ConnInfo, Env, Side};
use walferry::pgoutput::{AbortInfo, Decoder, Insert, KeyColumn, Message, RelationColumn, ReplicaIdentity, Tuple};
use walferry::relation::Relation;
use walferry::session::Session;
use walferry::session::replica_role::ReplicaRole;
use walferry::sql::TableName;

use crate::journey::execute;
use crate::support::pair::Pair;
use crate::support::{servers, some_of};

/// Rows of each table.
const ROWS: u32 = 100_000;

/// Where citext is not installed, an ordinary domain
/// stands in: not every server of the tests comes with the extensions.
const CITEXT: &str = "DO $$ BEGIN IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'citext') \
     THEN CREATE EXTENSION citext; ELSE CREATE DOMAIN citext AS text; END IF; END $$";

const TYPES: &[&str] = &[
    CITEXT,
    "CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy')",
    "CREATE DOMAIN code AS varchar(20)",
    "CREATE DOMAIN number AS numeric(12, 2)",
    "CREATE DOMAIN name_ci AS citext",
    "CREATE DOMAIN trail AS int[]",
];

/// Columns of a key, and their values for row `i`.
type Key = &'static [(&'static str, &'static str)];

const KEYS: &[Key] = &[
    &[("int", "i")],
    &[("bigint", "i")],
    &[("text", "'key ' || i")],
    &[("citext", "'Key ' || i")],
    &[("uuid", "md5(i::text)::uuid")],
    &[("numeric", "i + 0.5")],
    &[("numeric(12, 2)", "i + 0.5")],
    &[("varchar(20)", "'key ' || i")],
    &[("char(12)", "'key ' || i")],
    &[("bytea", "decode(md5(i::text), 'hex')")],
    &[("timestamptz", "to_timestamp(i)")],
    &[("code", "'code ' || i")],
    &[("number", "i + 0.5")],
    &[("name_ci", "'Name ' || i")],
    &[("int[]", "ARRAY[i, i]")],
    &[("trail", "ARRAY[i, i]::trail")],
    &[("int", "i / 100"), ("text", "'key ' || i")],
    &[("mood", "(enum_range(null::mood))[1 + i % 3]"), ("int", "i")],
    &[("uuid", "md5((i % 10)::text)::uuid"), ("varchar(10)", "i"), ("date", "date '2024-01-01' + i % 5")],
];

async fn create(client: &tokio_postgres::Client) {
    execute(client, TYPES).await;
    for (number, key) in KEYS.iter().enumerate() {
        let names: Vec<String> = (0..key.len()).map(|n| format!("k{n}")).collect();
        let names = names.join(", ");
        let columns: Vec<String> = key.iter().enumerate().map(|(n, (kind, _))| format!("k{n} {kind}")).collect();
        let values: Vec<&str> = key.iter().map(|(_, value)| *value).collect();
        let (columns, values) = (columns.join(", "), values.join(", "));
        execute(
            client,
            &[
                &format!("CREATE TABLE p{number} ({columns}, v text)"),
                &format!("INSERT INTO p{number} SELECT {values}, 'v' FROM generate_series(1, {ROWS}) i"),
                &format!("ALTER TABLE p{number} ADD PRIMARY KEY ({names})"),
            ],
        )
        .await;
    }
}

/// A row as an Insert message has it: that many keys, each `1`, and a last column.
fn row(keys: usize, last: &[u8]) -> Tuple {
    let columns = u16::try_from(keys + 1).unwrap().to_be_bytes();
    let payload = [b"I\0\0\0\x01N".as_slice(), &columns, &b"t\0\0\0\x011".repeat(keys), last].concat();
    match Decoder::new(AbortInfo::Absent).decode(&payload.into()).unwrap() {
        Message::Insert(Insert { new, .. }) => new,
        other => panic!("{other:?}"),
    }
}

/// The statements for a table whose key has this many columns.
async fn statements(session: &Session, number: usize, keys: usize) -> Vec<String> {
    let column = |name: String, key| RelationColumn { key, name, type_oid: 25, type_modifier: -1 };
    let table = TableName::new("public", format!("p{number}"));
    let relation = Relation {
        id: 1,
        table: table.clone(),
        replica_identity: ReplicaIdentity::Default,
        columns: (0..keys)
            .map(|n| column(format!("k{n}"), KeyColumn::Yes))
            .chain([column("v".to_owned(), KeyColumn::No)])
            .collect(),
    };
    let found = TargetTable::read(session, &table, ReplicaRole::Refused).await.unwrap().unwrap();
    let mapping = Mapping::new(Arc::new(relation), found).unwrap();
    let (changed, untouched) = (row(keys, b"t\0\0\0\x011"), row(keys, b"u"));
    let updated = |row| Updated { key: &changed, row: Row::Whole(row) };
    let net =
        Net { deletes: vec![&changed], updates: vec![updated(&changed), updated(&untouched)], inserts: Vec::new() };
    let rendered = SetRenderer::default().render(&mapping, &net, Writing::Updating).unwrap();
    let sql = |statement: &SetStatement| match statement {
        SetStatement::Arrays { shape, .. } => shape.sql.clone(),
        SetStatement::Copy { sql, .. } => panic!("{sql}"),
    };
    rendered.iter().map(sql).collect()
}

async fn plan(session: &Session, sql: &str) -> String {
    session
        .batch_execute(&format!("PREPARE planned AS {sql}"))
        .await
        .unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    // The last one is the count.
    let arrays = sql.matches('$').count() - 1;
    let sql = format!("EXPLAIN (COSTS off) EXECUTE planned ({}'0')", "'{}', ".repeat(arrays));
    let rows = session.query(&sql, &[]).await.unwrap();
    session.batch_execute("DEALLOCATE planned").await.unwrap();
    rows.iter().map(|row| row.take::<String>(0).unwrap()).collect::<Vec<_>>().join("\n")
}

async fn all_by_index(session: &Session, when: &str) {
    for (number, key) in KEYS.iter().enumerate() {
        let statements = statements(session, number, key.len()).await;
        assert_eq!(statements.len(), 3, "a delete, an update, and an update of nothing");
        for sql in statements {
            let plan = plan(session, &sql).await;
            for node in ["Seq Scan", "Hash Join", "Merge Join"] {
                assert!(!plan.contains(node), "{when}, {key:?}: {node} in\n{sql}\n{plan}");
            }
            let condition = plan.lines().find(|line| line.contains("Index Cond:"));
            let condition = condition.unwrap_or_else(|| panic!("{when}, {key:?}: no Index Cond in\n{sql}\n{plan}"));
            for n in 0..key.len() {
                assert!(condition.contains(&format!("k{n}")), "{when}, {key:?}: k{n} is not looked up in\n{plan}");
            }
        }
    }
}

#[tokio::test]
async fn every_set_based_statement_reaches_its_rows_through_an_index() {
    for server in some_of(servers()) {
        let pair = Pair::builder().servers(&server, &server).start().await;
        create(&pair.target_client().await).await;
        let info = ConnInfo::parse(Side::Target, &pair.target_uri(), &Env::empty()).unwrap();
        let session = Session::connect(&info, "plans").await.unwrap();
        for setting in plan_settings(session.version()) {
            session.batch_execute(&format!("SET {setting}")).await.unwrap();
        }
        all_by_index(&session, &format!("{}, after the copy", server.major)).await;
        session.batch_execute("ANALYZE").await.unwrap();
        all_by_index(&session, &format!("{}, analysed", server.major)).await;
    }
}
