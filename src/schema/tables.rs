//! The tables of the source, and whether those of the target fit them.
//!
//! Invariant: tables and columns are matched by name; order and types may
//! differ (`src/backend/replication/logical/relation.c` does the same).

use std::collections::HashMap;

use super::SchemaError;
use crate::catalog::contents;
use crate::config::TableFilter;
use crate::session::{DbContext, DbError, Session};
use crate::sql::{TableName, ident};

/// What a table is to the migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It is copied and streamed.
    Included,
    /// The operator's filter leaves it out.
    Filtered,
    /// An extension's own: CREATE EXTENSION makes it on the target.
    OfExtension,
    /// Unlogged: its rows are in no stream, so they are copied at the end.
    Unlogged,
}

/// Whether a table holds rows itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An ordinary table, or a partition that is a leaf.
    Plain,
    /// A partitioned table: its rows are in its partitions.
    Partitioned,
}

/// A column on either side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type's oid.
    pub type_oid: u32,
    /// Its type as SQL.
    pub type_sql: String,
    /// Whether the server computes it (GENERATED ALWAYS AS (expression)).
    pub is_generated: bool,
    /// Whether it is declared NOT NULL.
    pub is_not_null: bool,
    /// Whether a row gets a value for it when none is given: a default, an
    /// identity, an expression.
    pub has_default: bool,
    /// Whether the type is built in and its binary form means the same on
    /// every server: no domain, no enum, nothing that carries an oid by name.
    pub is_binary_safe: bool,
}

/// A table of the source.
#[derive(Clone, Debug)]
pub struct SourceTable {
    /// Schema and name.
    pub name: TableName,
    /// Its oid.
    pub oid: u32,
    /// Whether it holds rows itself.
    pub shape: Shape,
    /// What it is to the migration.
    pub part: Part,
    /// The partitioned tables it is a partition of, nearest first or not.
    pub ancestors: Vec<TableName>,
    /// Size on disk with its TOAST, in bytes.
    pub bytes: u64,
    /// Its columns in order.
    pub columns: Vec<Column>,
}

/// A table of the target.
#[derive(Clone, Debug)]
pub struct TargetTable {
    /// Its columns in order.
    pub columns: Vec<Column>,
    /// Whether it holds rows itself.
    pub shape: Shape,
}

const TABLES: &str = "\
    WITH RECURSIVE up (relation, ancestor) AS ( \
        SELECT i.inhrelid, i.inhparent FROM pg_catalog.pg_inherits i \
        JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE c.relispartition \
        UNION \
        SELECT up.relation, i.inhparent FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.ancestor \
        JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE c.relispartition) \
    SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p' AS partitioned, c.relpersistence = 'u' AS unlogged, \
        coalesce(pg_catalog.pg_table_size(c.oid), 0) AS bytes, \
        EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid \
            AND d.deptype = 'e') AS extension, \
        ARRAY(SELECT up.ancestor FROM up WHERE up.relation = c.oid) AS ancestors \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence IN ('p', 'u') \
        AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'walferry') \
    ORDER BY n.nspname, c.relname";

/// All tables of the source that are no temporary or system ones.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn of_source(source: &Session, filter: &TableFilter) -> Result<Vec<SourceTable>, DbError> {
    let rows = source.query(TABLES, &[]).await.during(source.side(), "list the tables")?;
    let named: HashMap<u32, TableName> = rows
        .iter()
        .map(|row| (row.get::<_, u32>(0), TableName::new(row.get::<_, &str>(1), row.get::<_, &str>(2))))
        .collect();
    let oids: Vec<u32> = named.keys().copied().collect();
    let mut columns = columns(source, &oids).await?;
    let table = |row: &crate::session::Row| {
        let oid: u32 = row.get("oid");
        let name = TableName::new(row.get::<_, &str>(1), row.get::<_, &str>(2));
        let ancestors: Vec<TableName> =
            row.get::<_, Vec<u32>>("ancestors").iter().filter_map(|oid| named.get(oid).cloned()).collect();
        let part = match (row.get("extension"), row.get("unlogged")) {
            (true, _) => Part::OfExtension,
            _ if !takes_part(filter, &name, &ancestors) => Part::Filtered,
            (_, true) => Part::Unlogged,
            _ => Part::Included,
        };
        SourceTable {
            name,
            oid,
            shape: if row.get("partitioned") { Shape::Partitioned } else { Shape::Plain },
            part,
            ancestors,
            bytes: u64::try_from(row.get::<_, i64>("bytes")).unwrap_or_default(),
            columns: columns.remove(&oid).unwrap_or_default(),
        }
    };
    Ok(rows.iter().map(table).collect())
}

/// A partition takes part with its partitioned table, unless it is left out by name.
fn takes_part(filter: &TableFilter, name: &TableName, ancestors: &[TableName]) -> bool {
    let with_root = || ancestors.iter().any(|ancestor| filter.includes(ancestor));
    filter.includes(name) || (with_root() && !filter.excludes_explicitly(name))
}

/// The tables of these names on the target, as far as they are there.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn of_target(
    target: &Session,
    names: impl Iterator<Item = &TableName>,
) -> Result<HashMap<TableName, TargetTable>, DbError> {
    let (schemas, tables): (Vec<&str>, Vec<&str>) = names.map(|t| (t.schema.as_str(), t.name.as_str())).unzip();
    let rows = target
        .query(
            "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind = 'p' FROM unnest($1::text[], $2::text[]) AS wanted (schema, name) \
             JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema \
             JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name AND c.relkind IN ('r', 'p', 'f')",
            &[&schemas, &tables],
        )
        .await
        .during(target.side(), "list the tables")?;
    let oids: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
    let mut columns = columns(target, &oids).await?;
    let table = |row: &crate::session::Row| {
        let shape = if row.get(3) { Shape::Partitioned } else { Shape::Plain };
        let columns = columns.remove(&row.get(0)).unwrap_or_default();
        (TableName::new(row.get::<_, &str>(1), row.get::<_, &str>(2)), TargetTable { columns, shape })
    };
    Ok(rows.iter().map(table).collect())
}

async fn columns(session: &Session, oids: &[u32]) -> Result<HashMap<u32, Vec<Column>>, DbError> {
    let generated = if session.version() >= 120_000 { "a.attgenerated <> ''" } else { "false" };
    let identity = if session.version() >= 100_000 { "a.attidentity <> ''" } else { "false" };
    // Oids below 10000 are assigned by hand in pg_type.dat and never change.
    let sql = format!(
        "SELECT a.attrelid, a.attname::text, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod), {generated}, \
         t.oid < 10000 AND t.typtype IN ('b', 'r', 'm') AND t.typsend::oid <> 0 AND t.typreceive::oid <> 0 \
         AND t.typname !~ '^_?reg', a.attnotnull, a.atthasdef OR {identity} OR t.typdefault IS NOT NULL \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         WHERE a.attrelid = ANY ($1::oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum"
    );
    let rows = session.query(&sql, &[&oids]).await.during(session.side(), "list the columns")?;
    let mut columns: HashMap<u32, Vec<Column>> = HashMap::new();
    for row in &rows {
        columns.entry(row.get(0)).or_default().push(Column {
            name: row.get(1),
            type_oid: row.get(2),
            type_sql: row.get(3),
            is_generated: row.get(4),
            is_binary_safe: row.get(5),
            is_not_null: row.get(6),
            has_default: row.get(7),
        });
    }
    Ok(columns)
}

/// Checks that every table and column that will be copied has its place, and
/// that no column of the target wants a value that the source does not have.
///
/// # Errors
/// [`SchemaError::Mismatch`] with everything that is wrong, and the SQL that mends it.
pub fn require_fit<'a>(
    tables: impl Iterator<Item = &'a SourceTable>,
    target: &HashMap<TableName, TargetTable>,
) -> Result<(), SchemaError> {
    let mut wrong = Vec::new();
    let tables: Vec<&SourceTable> = tables.collect();
    // A column of a partitioned table comes to its partitions with it.
    let lacks = |name: &TableName, column: &str| {
        tables.iter().any(|table| table.name == *name)
            && target.get(name).is_some_and(|there| there.columns.iter().all(|other| other.name != column))
    };
    for table in &tables {
        let Some(there) = target.get(&table.name) else {
            wrong.push(format!("table {} is not there: create it, or leave it out with --exclude-tables", table.name));
            continue;
        };
        let missing =
            table.columns.iter().filter(|c| !c.is_generated && !there.columns.iter().any(|t| t.name == c.name));
        let missing = missing.filter(|c| !table.ancestors.iter().any(|ancestor| lacks(ancestor, &c.name)));
        let sql = table.name.sql();
        wrong.extend(missing.map(|c| format!("ALTER TABLE {sql} ADD COLUMN {} {};", ident(&c.name), c.type_sql)));
        let beyond =
            there.columns.iter().filter(|t| !table.columns.iter().any(|c| c.name == t.name && !c.is_generated));
        wrong.extend(beyond.filter(|t| t.is_not_null && !t.has_default).map(|t| {
            let column = ident(&t.name);
            format!("column {column} of {} is NOT NULL without a default, and the source has no values for it: ALTER TABLE {sql} ALTER COLUMN {column} DROP NOT NULL;", table.name)
        }));
    }
    if wrong.is_empty() { Ok(()) } else { Err(SchemaError::Mismatch(wrong)) }
}

/// What differs between columns of one name without being in the rows' way,
/// a line for each: types, expressions, NOT NULL.
pub fn differences<'a>(
    tables: impl Iterator<Item = &'a SourceTable>,
    target: &HashMap<TableName, TargetTable>,
) -> Vec<String> {
    let mut found = Vec::new();
    for table in tables {
        let Some(there) = target.get(&table.name) else { continue };
        for column in &table.columns {
            let Some(other) = there.columns.iter().find(|other| other.name == column.name) else { continue };
            let place = format!("{}.{}", table.name, ident(&column.name));
            if column.type_sql != other.type_sql {
                found.push(format!("{place} is {} on the source, {} on the target", column.type_sql, other.type_sql));
            }
            match (column.is_generated, other.is_generated) {
                (false, true) => {
                    found.push(format!("{place} is computed on the target: the source's values do not arrive"))
                }
                (true, false) => {
                    found.push(format!("{place} is computed on the source only: it stays empty on the target"))
                }
                _ => {}
            }
            match (column.is_not_null, other.is_not_null) {
                (false, true) => {
                    found.push(format!("{place} is NOT NULL on the target only: a row without a value stops the move"))
                }
                (true, false) => found.push(format!("{place} is NOT NULL on the source only")),
                _ => {}
            }
        }
    }
    found
}

/// Checks that tables of the target hold no row of their own.
///
/// # Errors
/// [`SchemaError::Mismatch`] with the TRUNCATE that empties those that do.
pub async fn require_empty(target: &Session, tables: &[&TableName]) -> Result<(), SchemaError> {
    let full = contents::filled(target, tables).await?;
    if full.is_empty() {
        return Ok(());
    }
    Err(SchemaError::Mismatch(vec![format!(
        "{} to be copied hold rows already; if these can go: {}",
        if full.len() == 1 { "one of the tables" } else { "some of the tables" },
        contents::truncate(&full)
    )]))
}
