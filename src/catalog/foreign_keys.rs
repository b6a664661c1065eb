//! Foreign keys. One is at work as far as its triggers are; one that is NOT ENFORCED (18)
//! has none.
//!
//! The applier asks for what it needs of a single table's with its other questions
//! (`apply::target`), and what empties a table whether there is one (`copy::emptying`).

use std::collections::BTreeSet;

use super::triggers::firing;
use super::{contents, named};
use crate::session::replica_role::ReplicaRole;
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::{TableName, ident};

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
            {ACTS_ON_DELETE} OR {ACTS_ON_UPDATE} \
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
    })
}

/// The topmost constraint of the constraint `k`, which may be a part of one of a
/// partitioned table. conparentid came with 11.
pub fn topmost(version: i32) -> &'static str {
    if version < 110_000 {
        return "k.oid";
    }
    "(WITH RECURSIVE up (oid, parent) AS (SELECT k.oid, k.conparentid UNION ALL \
        SELECT p.oid, p.conparentid FROM up JOIN pg_catalog.pg_constraint p ON p.oid = up.parent) \
        SELECT oid FROM up WHERE parent = 0)"
}

/// A foreign key that is checked, or acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInForce {
    /// The table that it is of.
    pub table: TableName,
    name: String,
    definition: String,
    /// Whether its table is one of those that were asked for: it refuses rows of theirs.
    is_theirs: bool,
}

impl KeyInForce {
    /// What drops it.
    pub fn drop_sql(&self) -> String {
        format!("ALTER TABLE {} DROP CONSTRAINT {};", self.table.sql(), ident(&self.name))
    }

    /// What adds it again.
    pub fn add_sql(&self) -> String {
        format!("ALTER TABLE {} ADD CONSTRAINT {} {};", self.table.sql(), ident(&self.name), self.definition)
    }
}

/// The foreign keys that are in the way where such a session fills these tables, or empties
/// them: those of theirs, and those of other tables to them that have rows.
///
/// # Errors
/// When the catalog or a table cannot be read.
pub async fn keys_in_the_way(
    session: &Session,
    tables: &[&TableName],
    role: ReplicaRole,
) -> Result<Vec<KeyInForce>, DbError> {
    let mut keys = keys(session, tables, role).await?;
    let others: BTreeSet<&TableName> = keys.iter().filter(|key| !key.is_theirs).map(|key| &key.table).collect();
    let filled = contents::filled(session, &others.into_iter().collect::<Vec<_>>()).await?;
    keys.retain(|key| key.is_theirs || filled.iter().any(|filled| filled.table == key.table));
    Ok(keys)
}

/// The foreign keys of these tables and to them that are at work where such a session
/// writes: of partitioned tables those that the others are parts of.
async fn keys(session: &Session, tables: &[&TableName], role: ReplicaRole) -> Result<Vec<KeyInForce>, DbError> {
    let (letters, topmost, below) = (firing(role), topmost(session.version()), named::oids_below());
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, top.conname::text, pg_catalog.pg_get_constraintdef(top.oid), \
            pg_catalog.bool_or(k.conrelid IN {below}) \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_constraint top ON top.oid = {topmost} \
         JOIN pg_catalog.pg_class c ON c.oid = top.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype = 'f' AND (k.conrelid IN {below} OR k.confrelid IN {below}) \
            AND EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgconstraint = k.oid AND g.tgenabled IN ({letters})) \
         GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3"
    );
    let one = |row: &Row| {
        Ok(KeyInForce {
            table: TableName { schema: row.take(0)?, name: row.take(1)? },
            name: row.take(2)?,
            definition: row.take(3)?,
            is_theirs: row.take(4)?,
        })
    };
    let (schemas, names) = named::lists(tables.iter().copied());
    let rows =
        session.query(&sql, &[&schemas, &names]).await.during(session.side(), "look for foreign keys in force")?;
    rows.iter().map(one).collect()
}
