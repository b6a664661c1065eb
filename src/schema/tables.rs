//! Whether the tables of the target fit those of the source.
//!
//! Invariant: tables and columns are matched by name; order may differ
//! (`src/backend/replication/logical/relation.c` does the same), and types as far as
//! the target's holds every value of the source's ([`crate::catalog::types`]).

use std::collections::{HashMap, HashSet};

use super::SchemaError;
use crate::catalog::contents;
use crate::catalog::tables::{Found, Persistence};
use crate::membership::SourceTable;
use crate::membership::alter;
use crate::membership::columns::{self, Difference};
use crate::membership::placement::Hierarchy;
use crate::session::Session;
use crate::sql::{TableName, ident, literal};

/// Checks that every table and column that will be copied has its place, and
/// that no column of the target wants a value that the source does not have.
///
/// # Errors
/// [`SchemaError::Mismatch`] with everything that is wrong, and the SQL that mends it.
pub fn require_fit<'a>(
    tables: impl Iterator<Item = &'a SourceTable>,
    target: &HashMap<TableName, Found>,
    hierarchy: Hierarchy,
) -> Result<(), SchemaError> {
    let mut wrong = Vec::new();
    let tables: Vec<&SourceTable> = tables.collect();
    // Only what is in the rows' way, whoever's the schema is.
    let mut differences: HashMap<&TableName, Vec<Difference<'_>>> = HashMap::new();
    for table in &tables {
        let Some(there) = target.get(&table.name) else { continue };
        let mut compared =
            columns::compare(&table.columns, &there.columns, (&[], &HashMap::new()), Hierarchy::Own).differences;
        if hierarchy == Hierarchy::Same {
            compared.extend(columns::of_another_kind(&table.columns, &there.columns));
        }
        differences.insert(&table.name, compared);
    }
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
        let above = table.ancestors.iter().filter_map(|above| differences.get(&above.name)).map(Vec::as_slice);
        let of_table = differences.get(&table.name).map(Vec::as_slice).unwrap_or_default();
        wrong.extend(columns::own(of_table, &above.collect::<Vec<_>>()).iter().filter_map(|one| wanted(table, one)));
        let beyond =
            there.columns.iter().filter(|t| !table.columns.iter().any(|c| c.name == t.name && !c.is_generated()));
        wrong.extend(beyond.filter(|t| t.is_not_null && !t.has_default).map(|t| {
            let column = ident(&t.name);
            format!("column {column} of {} is NOT NULL without a default, and the source has no values for it: ALTER TABLE {sql} ALTER COLUMN {column} DROP NOT NULL;", table.name)
        }));
    }
    let mut said = HashSet::new();
    wrong.retain(|line| said.insert(line.clone()));
    if wrong.is_empty() { Ok(()) } else { Err(SchemaError::Mismatch(wrong)) }
}

/// What a difference wants done before there are rows.
fn wanted(table: &SourceTable, difference: &Difference<'_>) -> Option<String> {
    // A partition is altered with its root.
    let (name, sql) = (table.root(), table.root().sql());
    match difference {
        Difference::Lacks(column) => {
            let not_null = if column.is_not_null { " NOT NULL" } else { "" };
            let earlier = column.missing.as_deref().map(|value| format!(" DEFAULT {}{not_null}", literal(value)));
            let (column, kind) = (ident(&column.name), &column.type_sql);
            Some(format!("ALTER TABLE {sql} ADD COLUMN {column} {kind}{};", earlier.unwrap_or_default()))
        }
        Difference::Unlike { column, there } => {
            let alter = alter::sql(name, std::slice::from_ref(difference), &HashMap::new()).join(" ");
            Some(format!(
                "column {} of {name} is {} on the source, and of {} the target would round, cut or refuse values: {alter}",
                ident(&column.name),
                column.below_sql,
                there.below_sql
            ))
        }
        // Of columns that nobody has paired none has another name.
        Difference::Renamed { .. } | Difference::InTheWay(_) => None,
    }
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
            let place = format!("{}.{}", table.name, ident(&column.name));
            let Some(other) = there.columns.iter().find(|other| other.name == column.name) else {
                let lacks = || format!("{place} is computed on the source, and the target does not have it");
                found.extend(column.is_generated().then(lacks));
                continue;
            };
            if column.type_sql != other.type_sql && !column.below.loses_in(other.below) {
                found.push(format!("{place} is {} on the source, {} on the target", column.type_sql, other.type_sql));
            }
            match (column.is_generated(), other.is_generated()) {
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
