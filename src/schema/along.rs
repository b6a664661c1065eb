//! What was left out with tables (views over them, keys of others to them), and comes
//! when they are let in.
//!
//! Invariant: nothing of it keeps a table back. What the target refuses is told with its
//! SQL, as nothing asks for it again.

use std::collections::HashSet;

use super::archive::Entry;
use super::create::{age, execute};
use super::dump::{Dump, Patience, Scope};
use super::{PgDump, SchemaError, batch, classify};
use crate::catalog::objects::{ObjectId, taken_along};
use crate::config::Settings;
use crate::membership::SourceTable;
use crate::session::Session;
use crate::state::State;
use crate::state::deferred::{Deferred, Follows};
use crate::state::tables::TableState;

/// What comes along.
#[derive(Debug, Default)]
pub(super) struct Along {
    /// What is created with the tables.
    pre_data: Vec<Entry>,
    /// What waits.
    pub(super) objects: Vec<Deferred>,
}

impl Along {
    /// What was left out with those of `new` that were, less what needs other tables
    /// that still are.
    pub(super) async fn of(
        pg_dump: &PgDump,
        settings: &Settings,
        (source, state): (&Session, &State),
        (tables, new): (&[SourceTable], &[SourceTable]),
    ) -> Result<Self, SchemaError> {
        let rows = state.tables().await?.into_iter().filter(|row| row.state == TableState::Excluded);
        let left_out: HashSet<u32> = rows.map(|row| row.source_oid).collect();
        let let_in: Vec<u32> = new.iter().map(|table| table.oid).filter(|oid| left_out.contains(oid)).collect();
        let others = taken_along(source, &let_in).await?.others;
        let others: HashSet<ObjectId> = others.into_iter().map(|along| along.id).collect();
        if others.is_empty() {
            return Ok(Along::default());
        }
        let version = state.session().version();
        let what = (Scope::All { snapshot: None }, Patience::Run);
        let dump = Dump::read(pg_dump, settings, (source, version), what, tables).await?;
        let is_of_them = |entry: &&Entry| entry.identity.of.is_some_and(|id| others.contains(&id));
        let pre_data = dump.wanted().into_iter().filter(is_of_them).cloned().collect();
        let mut objects = dump.deferred(tables, version);
        objects.retain(|object| matches!(object.follows, Follows::Source(id) if others.contains(&id)));
        Ok(Along { pre_data, objects })
    }

    /// Creates what does not wait, inside the caller's transaction; says what the target
    /// refuses.
    pub(super) async fn create(&self, source: &Session, target: &Session) -> Result<(), SchemaError> {
        let savepoint = async |sql: &str| batch(target, sql, "create what comes along").await;
        for entry in &self.pre_data {
            savepoint("SAVEPOINT walferry_along").await?;
            let Err(error) = execute(target, age(source, target), entry).await else {
                savepoint("RELEASE SAVEPOINT walferry_along").await?;
                continue;
            };
            savepoint("ROLLBACK TO SAVEPOINT walferry_along; RELEASE SAVEPOINT walferry_along").await?;
            let (what, why) = (classify::describe(entry), crate::fault::chain(&error));
            tracing::warn!(
                "{what} was left out with a table that is let in, and cannot be created on the target ({why}); nothing asks for \
                 it again, so create it there when it can be:\n{}",
                entry.sql.trim()
            );
        }
        Ok(())
    }
}
