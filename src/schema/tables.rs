//! Whether the tables of the target fit those of the source.
//!
//! Invariant: tables and columns are matched by name; order and types may
//! differ (`src/backend/replication/logical/relation.c` does the same).

use std::collections::HashMap;

use super::SchemaError;
use crate::catalog::contents;
use crate::catalog::tables::{Found, Persistence};
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
        if there.persistence == Persistence::Unlogged && table.persistence == Persistence::Permanent {
            wrong.push(format!(
                "table {} is unlogged on the target: a crash of its server would empty it: ALTER TABLE {} SET LOGGED;",
                table.name,
                table.name.sql()
            ));
        }
        let missing =
            table.columns.iter().filter(|c| !c.is_generated && !there.columns.iter().any(|t| t.name == c.name));
        let missing = missing.filter(|c| !table.ancestors.iter().any(|ancestor| lacks(&ancestor.name, &c.name)));
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
