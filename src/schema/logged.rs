//! Tables of the target that are unlogged where the source's are logged.
//!
//! Invariant: no copy begins into one: a crash of the target's server empties it,
//! and the position stays. Source: `ResetUnloggedRelations` in
//! `src/backend/storage/file/reinit.c`.

use super::SchemaError;
use super::tables::SourceTable;
use crate::session::{DbContext, DbError, Session};

/// A table that would lose its rows.
#[derive(Debug)]
pub(crate) struct Unlogged {
    /// What is wrong.
    pub(crate) what: String,
    /// What mends it.
    pub(crate) sql: String,
}

/// Those of these tables, logged on the source, that the target has unlogged.
///
/// # Errors
/// When the catalog cannot be read.
pub(crate) async fn unlogged_on_target(target: &Session, tables: &[&SourceTable]) -> Result<Vec<Unlogged>, DbError> {
    let (schemas, names): (Vec<&str>, Vec<&str>) =
        tables.iter().map(|table| (table.name.schema.as_str(), table.name.name.as_str())).unzip();
    let sql = "SELECT t.place FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS t (schema, name, place) \
         JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema \
         JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.name \
         WHERE c.relpersistence = 'u' AND c.relkind = 'r' ORDER BY 1";
    let rows = target.query(sql, &[&schemas, &names]).await.during(target.side(), "look for unlogged tables")?;
    let mut found = Vec::new();
    for row in &rows {
        let place = usize::try_from(row.take::<i64>(0)? - 1).unwrap_or_default();
        let Some(table) = tables.get(place) else { continue };
        found.push(Unlogged {
            what: format!("table {} is unlogged on the target: a crash of its server would empty it", table.name),
            sql: format!("ALTER TABLE {} SET LOGGED;", table.name.sql()),
        });
    }
    Ok(found)
}

/// Refuses such tables.
///
/// # Errors
/// [`SchemaError::Mismatch`] with the SQL that mends it.
pub(super) async fn require_logged(target: &Session, tables: &[&SourceTable]) -> Result<(), SchemaError> {
    let found = unlogged_on_target(target, tables).await?;
    if found.is_empty() {
        return Ok(());
    }
    Err(SchemaError::Mismatch(found.into_iter().map(|table| format!("{}: {}", table.what, table.sql)).collect()))
}
