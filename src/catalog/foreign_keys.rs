//! Foreign keys.
//!
//! The applier asks for what it needs of a single table's with its other questions
//! (`apply::target`), and what empties a table whether there is one (`copy::emptying`).

use super::named;
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::TableName;

/// Whether the foreign key `k` changes or deletes rows of its table by itself when a row
/// that they refer to is deleted.
pub const ACTS_ON_DELETE: &str = "k.confdeltype IN ('c', 'n', 'd')";

/// The same when the key of such a row is changed.
pub const ACTS_ON_UPDATE: &str = "k.confupdtype IN ('c', 'n', 'd')";

/// A foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    /// The table that it is of.
    pub table: TableName,
    /// That table's oid.
    pub table_oid: u32,
    /// The oid of the table that it refers to.
    pub referenced: u32,
    /// Its name.
    pub name: String,
    /// What is behind ADD CONSTRAINT and its name.
    pub definition: String,
    /// Its comment.
    pub comment: Option<String>,
    /// Whether the rows are known to have it.
    pub is_validated: bool,
    /// Whether its table is partitioned.
    pub is_of_partitioned: bool,
    /// Whether it is no part of one of a partitioned table.
    pub is_topmost: bool,
    /// Whether somebody, who is a superuser, has disabled its triggers.
    pub is_disabled: bool,
    /// Whether it changes rows by itself (ON DELETE CASCADE and the like).
    pub acts: bool,
    /// What drops it, for people.
    pub drop_sql: String,
}

/// The foreign keys of these tables and to them, by their tables and names.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn of(session: &Session, tables: &[&TableName]) -> Result<Vec<ForeignKey>, DbError> {
    // conparentid came with 11.
    let topmost = if session.version() >= 110_000 { "k.conparentid = 0" } else { "true" };
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, k.conrelid, k.confrelid, k.conname::text, pg_catalog.pg_get_constraintdef(k.oid), \
            pg_catalog.obj_description(k.oid, 'pg_constraint'), k.convalidated, c.relkind = 'p', {topmost}, \
            coalesce((SELECT pg_catalog.bool_and(g.tgenabled = 'D') FROM pg_catalog.pg_trigger g WHERE g.tgconstraint = k.oid), false), \
            {ACTS_ON_DELETE} OR {ACTS_ON_UPDATE}, \
            pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I;', k.conrelid::pg_catalog.regclass, k.conname) \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype = 'f' AND (k.conrelid IN {named} OR k.confrelid IN {named}) ORDER BY 1, 2, 5",
        named = named::oids()
    );
    let (schemas, names) = named::lists(tables.iter().copied());
    let rows = session.query(&sql, &[&schemas, &names]).await.during(session.side(), "list the foreign keys")?;
    rows.iter().map(foreign_key).collect()
}

fn foreign_key(row: &Row) -> Result<ForeignKey, DbError> {
    Ok(ForeignKey {
        table: TableName { schema: row.take(0)?, name: row.take(1)? },
        table_oid: row.take(2)?,
        referenced: row.take(3)?,
        name: row.take(4)?,
        definition: row.take(5)?,
        comment: row.take(6)?,
        is_validated: row.take(7)?,
        is_of_partitioned: row.take(8)?,
        is_topmost: row.take(9)?,
        is_disabled: row.take(10)?,
        acts: row.take(11)?,
        drop_sql: row.take(12)?,
    })
}
