//! Compares two databases that nobody writes to: every table by count and an
//! order-independent sum of row hashes computed by the servers, every sequence,
//! every large object.
//!
//! Invariant: both sides compute over the source's columns, by name, so a
//! target with columns in another order compares equal. Partitions are
//! compared one by one, through their leaves.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::config::Side;
use crate::session::{DbContext, DbError, Row};
use crate::sql::{TableName, ident};

/// How many differing keys are named per object.
const DIFFERENCES_SHOWN: usize = 5;

/// Above this many rows a table's differences are not looked for one by one:
/// they would have to be fetched.
const ROWS_BISECTED: i64 = 500_000;

/// Schemas that belong to no application: PostgreSQL's and walferry's.
const NOT_OURS: &str = "n.nspname NOT IN ('pg_catalog', 'information_schema', 'walferry') AND n.nspname !~ '^pg_'";

/// Makes row text the same on both servers, whatever their defaults.
const TEXT_FORMATS: &str = "SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 3; \
     SET bytea_output = 'hex'; SET timezone = 'UTC'; SET client_encoding = 'UTF8'; SET search_path = ''; \
     SET statement_timeout = 0";

/// What kind of object was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An ordinary table or a leaf partition.
    Table,
    /// A sequence.
    Sequence,
    /// All large objects together.
    LargeObjects,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Table => "table",
            Kind::Sequence => "sequence",
            Kind::LargeObjects => "large objects",
        })
    }
}

/// One object as both sides have it.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The kind of object.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What the source has: rows, or the sequence's value.
    pub source: String,
    /// What the target has.
    pub target: String,
    /// Fingerprints are equal on both sides.
    pub equal: bool,
    /// Keys of the first differing rows; never row values.
    pub differing: Vec<String>,
}

/// A row count and the sum of the row hashes.
type Fingerprint = (i64, String);

/// Compares everything the source has, and names what the target has beyond it.
///
/// # Errors
/// [`DbError`] when a query fails on either side.
pub async fn compare(source: &Client, target: &Client) -> Result<Vec<Compared>, DbError> {
    for (client, side) in [(source, Side::Source), (target, Side::Target)] {
        client.batch_execute(TEXT_FORMATS).await.during(side, "set the text formats")?;
    }
    let mut all = tables(source, target).await?;
    all.extend(sequences(source, target).await?);
    all.push(large_objects(source, target).await?);
    Ok(all)
}

/// A line per object that differs, for an error message; empty when all are equal.
pub fn differences(compared: &[Compared]) -> String {
    let lines = compared.iter().filter(|object| !object.equal).map(|object| {
        let Compared { kind, name, source, target, differing, .. } = object;
        format!("{kind} {name}: source {source}, target {target}; differing: {}", differing.join(", "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The rows of a statement on one side.
async fn query(
    client: &Client,
    side: Side,
    sql: &str,
    params: &[&(dyn ToSql + Sync)],
    action: &str,
) -> Result<Vec<Row>, DbError> {
    let rows = client.query(sql, params).await.during(side, action)?;
    Ok(rows.into_iter().map(|row| Row::new(row, side)).collect())
}

/// The only row of a statement on one side.
async fn query_one(client: &Client, side: Side, sql: &str, action: &str) -> Result<Row, DbError> {
    Ok(Row::new(client.query_one(sql, &[]).await.during(side, action)?, side))
}

async fn relations(client: &Client, side: Side, kind: &str) -> Result<Vec<TableName>, DbError> {
    // Rows of unlogged tables come at the end; their sequences at any time.
    let persistence = if kind == "S" { "<> 't'" } else { "= 'p'" };
    let sql = format!(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = '{kind}' AND c.relpersistence {persistence} AND {NOT_OURS} \
         AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass \
                         AND d.objid = c.oid AND d.deptype = 'e') \
         ORDER BY 1, 2"
    );
    let rows = query(client, side, &sql, &[], "list the relations").await?;
    rows.iter().map(|row| Ok(TableName { schema: row.take(0)?, name: row.take(1)? })).collect()
}

async fn tables(source: &Client, target: &Client) -> Result<Vec<Compared>, DbError> {
    let here = relations(source, Side::Source, "r").await?;
    let there = relations(target, Side::Target, "r").await?;
    let mut compared = Vec::with_capacity(here.len());
    for table in &here {
        compared.push(if there.contains(table) {
            compare_table(source, target, table).await?
        } else {
            only_on(Kind::Table, table, Side::Source)
        });
    }
    compared.extend(there.iter().filter(|t| !here.contains(t)).map(|t| only_on(Kind::Table, t, Side::Target)));
    Ok(compared)
}

fn only_on(kind: Kind, name: &TableName, side: Side) -> Compared {
    let state = |wanted| if side == wanted { "exists" } else { "missing" }.to_owned();
    Compared {
        kind,
        name: name.to_string(),
        source: state(Side::Source),
        target: state(Side::Target),
        equal: false,
        differing: Vec::new(),
    }
}

/// The columns of a table and of its primary key, quoted.
struct Columns {
    all: Vec<String>,
    key: Vec<String>,
}

async fn columns(source: &Client, table: &TableName) -> Result<Columns, DbError> {
    let sql = "SELECT a.attname, coalesce(a.attnum = ANY (i.indkey), false) FROM pg_catalog.pg_attribute a \
         LEFT JOIN pg_catalog.pg_index i ON i.indrelid = a.attrelid AND i.indisprimary \
         WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname";
    let action = format!("read the columns of {table}");
    let rows = query(source, Side::Source, sql, &[&table.text()], &action).await?;
    let mut columns = Columns { all: Vec::new(), key: Vec::new() };
    for row in &rows {
        let name = ident(row.take(0)?);
        if row.take(1)? {
            columns.key.push(name.clone());
        }
        columns.all.push(name);
    }
    Ok(columns)
}

impl Columns {
    /// The hash of a row, over the text of its columns.
    fn hash(&self) -> String {
        format!("pg_catalog.hashtextextended(ROW({})::text, 0)", self.all.join(", "))
    }

    /// What names a row: its key, or its hash where there is none.
    fn name(&self) -> String {
        if self.key.is_empty() {
            format!("{}::text", self.hash())
        } else {
            format!("ROW({})::text", self.key.join(", "))
        }
    }
}

async fn compare_table(source: &Client, target: &Client, table: &TableName) -> Result<Compared, DbError> {
    let columns = columns(source, table).await?;
    let sql = format!("SELECT count(*), coalesce(sum({}::numeric), 0)::text FROM ONLY {}", columns.hash(), table.sql());
    let (here, there) = tokio::try_join!(
        fingerprint(source, Side::Source, table, &sql),
        fingerprint(target, Side::Target, table, &sql)
    )?;
    let equal = here == there;
    let differing =
        if equal || here.0 > ROWS_BISECTED { Vec::new() } else { differing(source, target, table, &columns).await? };
    Ok(Compared {
        kind: Kind::Table,
        name: table.to_string(),
        source: format!("{} rows", here.0),
        target: format!("{} rows", there.0),
        equal,
        differing,
    })
}

async fn fingerprint(client: &Client, side: Side, table: &TableName, sql: &str) -> Result<Fingerprint, DbError> {
    let row = query_one(client, side, sql, &format!("compute the fingerprint of {table}")).await?;
    Ok((row.take(0)?, row.take(1)?))
}

/// The names of the first rows that are not the same on both sides.
async fn differing(
    source: &Client,
    target: &Client,
    table: &TableName,
    columns: &Columns,
) -> Result<Vec<String>, DbError> {
    let sql =
        format!("SELECT {}, {}, count(*) FROM ONLY {} GROUP BY 1, 2", columns.name(), columns.hash(), table.sql());
    let mut balance: BTreeMap<(String, i64), i64> = BTreeMap::new();
    for (client, side, sign) in [(source, Side::Source, 1), (target, Side::Target, -1)] {
        let rows = query(client, side, &sql, &[], &format!("compare the rows of {table}")).await?;
        for row in &rows {
            *balance.entry((row.take(0)?, row.take(1)?)).or_default() += sign * row.take::<i64>(2)?;
        }
    }
    let unequal = balance.into_iter().filter(|(_, count)| *count != 0);
    let named = unequal.map(|((name, _), count)| {
        let side = if count > 0 { Side::Source } else { Side::Target };
        format!("{name} only on the {side}")
    });
    Ok(named.take(DIFFERENCES_SHOWN).collect())
}

async fn sequences(source: &Client, target: &Client) -> Result<Vec<Compared>, DbError> {
    let here = relations(source, Side::Source, "S").await?;
    let there = relations(target, Side::Target, "S").await?;
    let mut compared = Vec::with_capacity(here.len());
    for sequence in &here {
        if !there.contains(sequence) {
            compared.push(only_on(Kind::Sequence, sequence, Side::Source));
            continue;
        }
        let (ours, theirs) = tokio::try_join!(
            sequence_value(source, Side::Source, sequence),
            sequence_value(target, Side::Target, sequence)
        )?;
        compared.push(Compared {
            kind: Kind::Sequence,
            name: sequence.to_string(),
            equal: ours == theirs,
            source: ours,
            target: theirs,
            differing: Vec::new(),
        });
    }
    compared.extend(there.iter().filter(|s| !here.contains(s)).map(|s| only_on(Kind::Sequence, s, Side::Target)));
    Ok(compared)
}

async fn sequence_value(client: &Client, side: Side, sequence: &TableName) -> Result<String, DbError> {
    let sql = format!("SELECT last_value, is_called FROM {}", sequence.sql());
    let row = query_one(client, side, &sql, &format!("read the sequence {sequence}")).await?;
    let called = if row.take(1)? { "" } else { " (not called)" };
    Ok(format!("{}{called}", row.take::<i64>(0)?))
}

async fn large_objects(source: &Client, target: &Client) -> Result<Compared, DbError> {
    let (here, there) =
        tokio::try_join!(large_object_hashes(source, Side::Source), large_object_hashes(target, Side::Target))?;
    let both = here.keys().chain(there.keys().filter(|oid| !here.contains_key(*oid)));
    let differing: Vec<String> = both
        .filter(|oid| here.get(*oid) != there.get(*oid))
        .map(|oid| match (here.get(oid), there.get(oid)) {
            (Some(_), None) => format!("{oid} only on the source"),
            (None, _) => format!("{oid} only on the target"),
            (Some(_), Some(_)) => format!("{oid} in its contents"),
        })
        .collect();
    Ok(Compared {
        kind: Kind::LargeObjects,
        name: "all".to_owned(),
        source: format!("{} objects", here.len()),
        target: format!("{} objects", there.len()),
        equal: differing.is_empty(),
        differing: differing.into_iter().take(DIFFERENCES_SHOWN).collect(),
    })
}

async fn large_object_hashes(client: &Client, side: Side) -> Result<BTreeMap<u32, String>, DbError> {
    let sql = "SELECT oid, pg_catalog.md5(pg_catalog.lo_get(oid)) FROM pg_catalog.pg_largeobject_metadata";
    let rows = query(client, side, sql, &[], "read the large objects").await?;
    rows.iter().map(|row| Ok((row.take(0)?, row.take(1)?))).collect()
}
