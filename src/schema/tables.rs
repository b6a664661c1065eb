//! Whether the tables of the target fit those of the source.
//!
//! Invariant: tables and columns are matched by name; order and types may
//! differ (`src/backend/replication/logical/relation.c` does the same).

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};

use super::SchemaError;
use crate::catalog::contents;
use crate::catalog::tables::{Column, Found, Persistence};
use crate::membership::SourceTable;
use crate::session::Session;
use crate::sql::{TableName, ident};

/// Checks that every table and column that will be copied has its place, and
/// that no column of the target wants a value that the source does not have.
///
/// # Errors
/// [`SchemaError::Mismatch`] with everything that is wrong, and the SQL that mends it.
pub fn require_fit<'a>(
    tables: impl Iterator<Item = &'a SourceTable>,
    target: &HashMap<TableName, Found>,
) -> Result<(), SchemaError> {
    let mut wrong = Vec::new();
    let tables: Vec<&SourceTable> = tables.collect();
    let mut missing: HashMap<u32, Vec<&Column>> =
        lacking(&tables, target).into_iter().map(|(table, columns)| (table.oid, columns)).collect();
    for table in &tables {
        let Some(there) = target.get(&table.name) else {
            wrong.push(format!("table {} is not there: create it, or leave it out with --exclude-tables", table.name));
            continue;
        };
        if there.persistence == Persistence::Unlogged && table.persistence == Persistence::Permanent {
            wrong.push(format!(
                "table {} is unlogged on the target: a crash of its server would empty it: ALTER TABLE {} SET LOGGED;",
                table.name,
                table.name.sql()
            ));
        }
        let sql = table.name.sql();
        let missing = missing.remove(&table.oid).unwrap_or_default();
        wrong.extend(
            missing.into_iter().map(|c| format!("ALTER TABLE {sql} ADD COLUMN {} {};", ident(&c.name), c.type_sql)),
        );
        let beyond =
            there.columns.iter().filter(|t| !table.columns.iter().any(|c| c.name == t.name && !c.is_generated));
        wrong.extend(beyond.filter(|t| t.is_not_null && !t.has_default).map(|t| {
            let column = ident(&t.name);
            format!("column {column} of {} is NOT NULL without a default, and the source has no values for it: ALTER TABLE {sql} ALTER COLUMN {column} DROP NOT NULL;", table.name)
        }));
    }
    if wrong.is_empty() { Ok(()) } else { Err(SchemaError::Mismatch(wrong)) }
}

/// The columns of tables that the target has a place for and lacks. One of a partitioned
/// table comes to its partitions with it.
pub fn lacking<'a, T: Borrow<SourceTable>>(
    tables: &'a [T],
    target: &HashMap<TableName, Found>,
) -> Vec<(&'a SourceTable, Vec<&'a Column>)> {
    let names: HashSet<&TableName> = tables.iter().map(|table| &table.borrow().name).collect();
    let lacks = |name: &TableName, column: &str| {
        target.get(name).is_some_and(|there| there.columns.iter().all(|other| other.name != column))
    };
    let is_lacking = |table: &SourceTable, column: &Column| {
        let comes_from_above = |above: &TableName| names.contains(above) && lacks(above, &column.name);
        let is_above = table.ancestors.iter().any(|above| comes_from_above(&above.name));
        !column.is_generated && lacks(&table.name, &column.name) && !is_above
    };
    let of_table = |table: &'a T| {
        let table = table.borrow();
        (table, table.columns.iter().filter(|column| is_lacking(table, column)).collect::<Vec<_>>())
    };
    tables.iter().map(of_table).filter(|(_, columns)| !columns.is_empty()).collect()
}

/// What differs between columns of one name without being in the rows' way,
/// a line for each: types, expressions, NOT NULL.
pub fn differences<'a>(
    tables: impl Iterator<Item = &'a SourceTable>,
    target: &HashMap<TableName, Found>,
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
        "{} rows already; if these can go: {}",
        if full.len() == 1 { "one of the tables to be copied has" } else { "some of the tables to be copied have" },
        contents::truncate(&full)
    )]))
}
