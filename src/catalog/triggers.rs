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

/// How ENABLE is said, so that it fires as this letter says.
fn enable(letter: i8) -> &'static str {
    match u8::try_from(letter) {
        Ok(b'A') => "ENABLE ALWAYS",
        Ok(b'R') => "ENABLE REPLICA",
        _ => "ENABLE",
    }
}

/// In which sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fires {
    /// In such a one.
    In(ReplicaRole),
    /// In some session.
    Somewhere,
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

/// A trigger or a rule that fires.
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
    /// In which sessions, as the catalog has it.
    letter: i8,
}

impl InForce {
    fn alter(&self, what: &str) -> String {
        format!("ALTER TABLE ONLY {} {what} {} {};", self.table.sql(), self.kind.as_str(), ident(&self.name))
    }

    /// What silences it, on its table alone.
    pub fn disable_sql(&self) -> String {
        self.alter("DISABLE")
    }

    /// What lets it fire as it does now.
    pub fn enable_sql(&self) -> String {
        self.alter(enable(self.letter))
    }
}

/// The triggers and rules of these tables that fire, by table, and of each the rules first.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn in_force(session: &Session, tables: &[&TableName], fires: Fires) -> Result<Vec<InForce>, DbError> {
    query(session, tables, fires, &named::oids()).await
}

/// The same, with those of the partitions that the tables' rows go to.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn in_force_below(session: &Session, tables: &[&TableName], fires: Fires) -> Result<Vec<InForce>, DbError> {
    query(session, tables, fires, &named::oids_below()).await
}

async fn query(session: &Session, tables: &[&TableName], fires: Fires, oids: &str) -> Result<Vec<InForce>, DbError> {
    let letters = match fires {
        Fires::In(role) => format!("IN ({})", firing(role)),
        Fires::Somewhere => "<> 'D'".to_owned(),
    };
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, true, g.tgname::text, g.tgenabled, c.oid FROM pg_catalog.pg_trigger g \
         JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE NOT g.tgisinternal AND g.tgenabled {letters} AND c.oid IN {oids} \
         UNION ALL SELECT n.nspname::text, c.relname::text, false, r.rulename::text, r.ev_enabled, c.oid FROM pg_catalog.pg_rewrite r \
         JOIN pg_catalog.pg_class c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE r.rulename <> '_RETURN' AND r.ev_enabled {letters} AND c.oid IN {oids} ORDER BY 1, 2, 3, 4"
    );
    let (schemas, names) = named::lists(tables.iter().copied());
    let rows = session.query(&sql, &[&schemas, &names]).await.during(session.side(), "list the triggers and rules")?;
    let one = |row: &Row| {
        Ok(InForce {
            table: TableName { schema: row.take(0)?, name: row.take(1)? },
            kind: if row.take(2)? { Kind::Trigger } else { Kind::Rule },
            name: row.take(3)?,
            letter: row.take(4)?,
            table_oid: row.take(5)?,
        })
    };
    rows.iter().map(one).collect()
}
