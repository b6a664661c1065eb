//! Triggers and rules that are in force.
//!
//! Source: `pg_trigger.tgenabled`, `pg_rewrite.ev_enabled`: O is for ordinary sessions, R
//! for those of a replica, A for all, D for none.

use super::named;
use crate::session::replica_role::ReplicaRole;
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::{TableName, ident};

/// The letters, for IN, of what fires in a session that is a replica's or is none.
pub fn firing(role: ReplicaRole) -> &'static str {
    match role {
        ReplicaRole::Set => "'R', 'A'",
        ReplicaRole::Refused => "'O', 'A'",
    }
}

/// What is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A trigger that somebody made.
    Trigger,
    /// A rule, but not that which is a view.
    Rule,
}

impl Kind {
    /// As ALTER TABLE names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Trigger => "TRIGGER",
            Kind::Rule => "RULE",
        }
    }
}

/// A trigger or a rule that fires in ordinary sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Which of the two.
    pub kind: Kind,
    /// Its table.
    pub table: TableName,
    /// That table's oid.
    pub table_oid: u32,
    /// Its name.
    pub name: String,
    /// Whether it fires in a replica's sessions as well.
    pub is_always: bool,
}

impl InForce {
    /// The statement that does this (ENABLE, DISABLE) with it, on its table alone.
    pub fn alter(&self, what: &str) -> String {
        format!("ALTER TABLE ONLY {} {what} {} {}", self.table.sql(), self.kind.as_str(), ident(&self.name))
    }
}

/// The triggers and rules of these tables that fire in ordinary sessions, by table, and of
/// each the rules first.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn in_force(session: &Session, tables: &[&TableName]) -> Result<Vec<InForce>, DbError> {
    let (named, firing) = (named::oids(), firing(ReplicaRole::Refused));
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, true, g.tgname::text, g.tgenabled = 'A', c.oid FROM pg_catalog.pg_trigger g \
         JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE NOT g.tgisinternal AND g.tgenabled IN ({firing}) AND c.oid IN {named} \
         UNION ALL SELECT n.nspname::text, c.relname::text, false, r.rulename::text, r.ev_enabled = 'A', c.oid FROM pg_catalog.pg_rewrite r \
         JOIN pg_catalog.pg_class c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE r.rulename <> '_RETURN' AND r.ev_enabled IN ({firing}) AND c.oid IN {named} ORDER BY 1, 2, 3, 4"
    );
    let (schemas, names) = named::lists(tables.iter().copied());
    let rows = session.query(&sql, &[&schemas, &names]).await.during(session.side(), "list the triggers and rules")?;
    let one = |row: &Row| {
        Ok(InForce {
            table: TableName { schema: row.take(0)?, name: row.take(1)? },
            kind: if row.take(2)? { Kind::Trigger } else { Kind::Rule },
            name: row.take(3)?,
            is_always: row.take(4)?,
            table_oid: row.take(5)?,
        })
    };
    rows.iter().map(one).collect()
}
