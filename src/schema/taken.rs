//! Names that are taken on the target by now and that new tables, or indexes and keys
//! which still wait, are to have: they cannot be built when their turn comes.
//!
//! Invariant: what is there in the same shape is no hindrance, as the restore
//! takes it as restored ([`super::same`]).

use super::archive::Entry;
use super::classify;
use super::kind::Kind;
use super::same::{self, There};
use crate::catalog::holders::{self, Wanted};
use crate::session::{DbContext, DbError, Session};
use crate::sql::TableName;
use crate::state::deferred::Deferred;

/// An object to come whose name something else has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The object, for people.
    pub object: String,
    /// What renames the one that has its name.
    pub frees: String,
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.object, self.frees)
    }
}

/// Looks for the names of what a migration that has begun still waits for. The
/// columns are those of the first version of the state.
///
/// # Errors
/// When state or catalog cannot be read.
pub(crate) async fn look(target: &Session, migration: &str) -> Result<Vec<Taken>, DbError> {
    let sql = "SELECT object, sql FROM walferry.deferred WHERE migration = $1 AND restored_at IS NULL ORDER BY ordinal";
    let rows = target.query(sql, &[&migration]).await.during(target.side(), "read what waits")?;
    let waiting = rows.iter().map(|row| Ok((row.take(0)?, row.take(1)?))).collect::<Result<Vec<_>, DbError>>()?;
    of(target, waiting.into_iter()).await
}

/// The same for these objects, each with its SQL.
///
/// # Errors
/// When the catalog cannot be read.
pub(super) async fn of(
    target: &Session,
    objects: impl Iterator<Item = (String, String)>,
) -> Result<Vec<Taken>, DbError> {
    let name = |(object, sql): (String, String)| same::name_taken_by(&sql).map(|name| (object, sql, name));
    let waiting: Vec<(String, String, Wanted)> = objects.filter_map(name).collect();
    let names: Vec<Wanted> = waiting.iter().map(|(_, _, name)| name.clone()).collect();
    let frees = holders::frees(target, &names).await?;
    let mut taken = Vec::new();
    for (object, sql, name) in waiting {
        let Some(frees) = frees.get(&name) else { continue };
        if matches!(same::look(target, &sql).await?, There::Other(_)) {
            taken.push(Taken { object, frees: frees.clone() });
        }
    }
    Ok(taken)
}

/// The same for these tables to be created, with their sequences, and for what comes
/// after their rows.
///
/// # Errors
/// When the catalog cannot be read.
pub(super) async fn of_tables(target: &Session, entries: &[Entry], later: &[Deferred]) -> Result<Vec<Taken>, DbError> {
    let relation = |entry: &Entry| match entry.kind {
        Kind::Table | Kind::Sequence => Some(Wanted::Relation(TableName::new(&entry.schema, &entry.name))),
        _ => None,
    };
    let names: Vec<Wanted> = entries.iter().filter_map(relation).collect();
    let frees = holders::frees(target, &names).await?;
    let is_taken = |entry: &Entry| {
        let frees = frees.get(&relation(entry)?)?.clone();
        Some(Taken { object: classify::describe(entry), frees })
    };
    let mut taken: Vec<Taken> = entries.iter().filter_map(is_taken).collect();
    taken.extend(of(target, later.iter().map(|object| (object.object.clone(), object.sql.clone()))).await?);
    Ok(taken)
}
