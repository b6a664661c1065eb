//! Whether the tables of the target fit those of the source.
//!
//! Invariant: tables and columns are matched by name; order may differ
//! (`src/backend/replication/logical/relation.c` does the same), and types as far as
//! the target's holds every value of the source's ([`crate::catalog::types`]).

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
    let mut unplaced: HashMap<u32, Vec<Unplaced<'_>>> =
        unplaced(&tables, target).into_iter().map(|(table, columns)| (table.oid, columns)).collect();
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
        let of_column = |one: Unplaced<'_>| match one.there {
            None => format!("ALTER TABLE {sql} ADD COLUMN {} {};", ident(&one.column.name), one.column.type_sql),
            Some(there) => format!(
                "column {} of {} is {} on the source, and of {} the target would round, cut or refuse values: {}",
                ident(&there.name),
                table.name,
                one.column.below_sql,
                there.below_sql,
                one.retype_sql(&table.name)
            ),
        };
        wrong.extend(unplaced.remove(&table.oid).unwrap_or_default().into_iter().map(of_column));
        let beyond =
            there.columns.iter().filter(|t| !table.columns.iter().any(|c| c.name == t.name && !c.is_generated));
        wrong.extend(beyond.filter(|t| t.is_not_null && !t.has_default).map(|t| {
            let column = ident(&t.name);
            format!("column {column} of {} is NOT NULL without a default, and the source has no values for it: ALTER TABLE {sql} ALTER COLUMN {column} DROP NOT NULL;", table.name)
        }));
    }
    if wrong.is_empty() { Ok(()) } else { Err(SchemaError::Mismatch(wrong)) }
}

/// A column of the source that the target has no place for.
#[derive(Clone, Copy, Debug)]
pub struct Unplaced<'a> {
    /// The source's column.
    pub column: &'a Column,
    /// The target's column of its name, which holds less; `None` where there is none.
    pub there: Option<&'a Column>,
}

impl Unplaced<'_> {
    /// The SQL that gives a column the type that it has on the source, below all domains:
    /// one of the same name may be another one on the target.
    pub fn retype_sql(&self, table: &TableName) -> String {
        let Column { name, below_sql, .. } = self.column;
        format!("ALTER TABLE {} ALTER COLUMN {} TYPE {below_sql};", table.sql(), ident(name))
    }
}

/// The columns of tables that the target lacks, or that hold less there. One of a
/// partitioned table comes to its partitions with it.
pub fn unplaced<'a, T: Borrow<SourceTable>>(
    tables: &'a [T],
    target: &'a HashMap<TableName, Found>,
) -> Vec<(&'a SourceTable, Vec<Unplaced<'a>>)> {
    let names: HashSet<&TableName> = tables.iter().map(|table| &table.borrow().name).collect();
    let look = |name: &TableName, column: &'a Column| {
        let there = target.get(name)?.columns.iter().find(|other| other.name == column.name);
        let holds_all = |there: &Column| there.is_generated || !column.below.loses_in(there.below);
        (!there.is_some_and(holds_all)).then_some(Unplaced { column, there })
    };
    let of_column = |table: &SourceTable, column: &'a Column| {
        let comes_from_above = |above: &TableName| names.contains(above) && look(above, column).is_some();
        let is_above = table.ancestors.iter().any(|above| comes_from_above(&above.name));
        look(&table.name, column).filter(|_| !column.is_generated && !is_above)
    };
    let of_table = |table: &'a T| {
        let table = table.borrow();
        (table, table.columns.iter().filter_map(|column| of_column(table, column)).collect::<Vec<_>>())
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
            if column.type_sql != other.type_sql && !column.below.loses_in(other.below) {
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
