//! Whether types that somebody has made hold on the target what they hold on the source:
//! asked before rows are written.
//!
//! Invariant: types are the same by name here; what was renamed since is known by its pairs
//! ([`crate::membership::made`]), and has its rows compared. Labels that an enum lacks are no
//! matter of values that change: the target refuses them.

use std::collections::{HashMap, HashSet};

use super::SchemaError;
use crate::catalog::added::default_sql;
use crate::catalog::tables::{Column, Found};
use crate::catalog::types::{self, Made, MadeKind, User, is_built_in};
use crate::membership::placement::Hierarchy;
use crate::membership::{SourceTable, alter, made};
use crate::session::{DbError, Session};
use crate::sql::{TableName, ident};

/// Checks that no value of these tables would be rounded, cut or refused by a type within its
/// column's type.
///
/// # Errors
/// [`SchemaError::Mismatch`] with everything that is wrong, and the SQL that mends it.
pub async fn require_fit<'a>(
    tables: impl Iterator<Item = &'a SourceTable>,
    there: &HashMap<TableName, Found>,
    sessions: (&Session, &Session),
) -> Result<(), SchemaError> {
    let wrong = unfit(tables, there, sessions).await?;
    if wrong.is_empty() { Ok(()) } else { Err(SchemaError::Mismatch(wrong)) }
}

/// What [`require_fit`] refuses, a line for each type.
///
/// # Errors
/// When a catalog cannot be read.
pub async fn unfit<'a>(
    tables: impl Iterator<Item = &'a SourceTable>,
    there: &HashMap<TableName, Found>,
    (source, target): (&Session, &Session),
) -> Result<Vec<String>, DbError> {
    let tables: Vec<&SourceTable> = tables.collect();
    let counterpart = |table: &SourceTable, column: &Column| {
        there.get(&table.name)?.columns.iter().find(|other| other.name == column.name && !other.is_generated())
    };
    let pairs: Vec<(&SourceTable, &Column, &Column)> = tables
        .iter()
        .flat_map(|table| table.columns.iter().map(move |column| (*table, column)))
        .filter(|(_, column)| !column.is_generated() && !is_built_in(column.below))
        .filter_map(|(table, column)| Some((table, column, counterpart(table, column)?)))
        .collect();
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    let oids = |of: fn(&(&SourceTable, &Column, &Column)) -> u32| -> Vec<u32> {
        pairs.iter().map(of).collect::<HashSet<_>>().into_iter().collect()
    };
    let (ours, theirs) = (oids(|(_, column, _)| column.below.oid), oids(|(_, _, other)| other.below.oid));
    let (ours, theirs) = tokio::try_join!(types::made(source, &ours), types::made(target, &theirs))?;
    let mut said = HashSet::new();
    let (mut wrong, mut of_columns, mut given) = (Vec::new(), Vec::new(), HashSet::new());
    for (table, column, other) in pairs {
        let none = Vec::new();
        let of_theirs = theirs.get(&other.below.oid).unwrap_or(&none);
        for one in ours.get(&column.below.oid).into_iter().flatten().filter(|one| one.kind != MadeKind::Enum) {
            let namesake = of_theirs.iter().find(|other| other.name == one.name && other.kind == one.kind);
            // The columns of a table that takes part are compared by themselves.
            let is_of_member = one.kind == MadeKind::Row && tables.iter().any(|table| table.name == one.called);
            let Some(theirs) = namesake.filter(|_| !is_of_member) else { continue };
            let compared = made::compare(one, Some(theirs), None, Hierarchy::Own);
            let Some(sql) = compared.sql else { continue };
            if said.insert(one.oid) {
                let sql = possible(target, (one, theirs), &sql).await?;
                wrong.push(format!(
                    "values of column {} of {} consist of {}, which is another type on the target and would round, cut or refuse them: {sql}",
                    ident(&column.name),
                    table.name,
                    one.name
                ));
            }
            // An ALTER TABLE of what is above reaches it.
            if compared.is_anew && table.above().is_empty() && given.insert((table.oid, column.number)) {
                let oid = there.get(&table.name).map_or(0, |found| found.oid);
                let default = default_sql(target, oid, other.number).await?;
                of_columns.push(format!(
                    "column {} of {} is of that one then: {}",
                    ident(&column.name),
                    table.name,
                    alter::given_anew(&table.name, column, default.as_deref())
                ));
            }
        }
    }
    wrong.extend(of_columns);
    Ok(wrong)
}

/// The statements with what makes them possible: the server alters no attribute's type as long
/// as a column has values of it, so the columns are texts meanwhile.
///
/// # Errors
/// When the target's catalog cannot be read.
pub async fn possible(target: &Session, (ours, theirs): (&Made, &Made), sql: &str) -> Result<String, DbError> {
    if !made::retypes_attributes(ours, theirs) {
        return Ok(sql.to_owned());
    }
    let users = types::users(target, theirs.oid).await?;
    let alter = |user: &User, kind: &str| {
        let (table, column) = (user.table.sql(), ident(&user.column));
        format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE {kind} USING {column}::text::{kind};")
    };
    let out = users.iter().map(|user| alter(user, "text"));
    let back = users.iter().map(|user| alter(user, &user.kind));
    Ok(out.chain([sql.to_owned()]).chain(back).collect::<Vec<_>>().join(" "))
}
