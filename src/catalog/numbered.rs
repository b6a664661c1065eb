//! Columns that are GENERATED ALWAYS AS IDENTITY: UPDATE may not write them, not even with
//! the value that they have, so that a row which gets another value is deleted and inserted
//! anew.
//!
//! Source: `rewriteTargetListIU` in `src/backend/rewrite/rewriteHandler.c`.

use super::foreign_keys::ACTS_ON_DELETE;
use super::named;
use super::triggers::firing;
use crate::session::replica_role::ReplicaRole;
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::{TableName, ident};

/// Such a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// Its table.
    pub table: TableName,
    /// Its name.
    pub name: String,
}

impl Numbered {
    /// What has it GENERATED `how`, without a semicolon.
    pub fn sql(&self, how: &str) -> String {
        format!("ALTER TABLE {} ALTER COLUMN {} SET GENERATED {how}", self.table.sql(), ident(&self.name))
    }
}

/// Those of these tables that are in no primary key, so that any UPDATE may have to write
/// them, and whose rows do not go unnoticed: foreign keys act on others then, or triggers
/// or rules fire.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn acted_upon(session: &Session, tables: &[&TableName], role: ReplicaRole) -> Result<Vec<Numbered>, DbError> {
    let keys = match role {
        // Their triggers are silent for a replica.
        ReplicaRole::Set => "false".to_owned(),
        ReplicaRole::Refused => format!(
            "EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.confrelid = c.oid AND {ACTS_ON_DELETE})"
        ),
    };
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, a.attname::text FROM {named} \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attidentity = 'a' \
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisprimary \
                AND a.attnum = ANY (i.indkey::int2[])) \
            AND ({keys} OR EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid = c.oid AND NOT g.tgisinternal \
                    AND g.tgenabled IN ({letters})) \
                OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_enabled IN ({letters}))) \
         ORDER BY 1, 2, 3",
        named = named::NAMED,
        letters = firing(role)
    );
    let (schemas, names) = named::lists(tables.iter().copied());
    let rows = session.query(&sql, &[&schemas, &names]).await.during(session.side(), "look for numbered columns")?;
    let one =
        |row: &Row| Ok(Numbered { table: TableName { schema: row.take(0)?, name: row.take(1)? }, name: row.take(2)? });
    rows.iter().map(one).collect()
}
