//! May this migration go on from where it is? Compares what the state says
//! with what the source is. Anything that does not fit means rows are missing
//! or doubled, so it is "needs resync", never a silent restart.
//!
//! Source: `StartLogicalReplication` forwards a start position that is behind
//! `confirmed_flush_lsn` without a word
//! (`src/backend/replication/logical/logical.c`, `CreateDecodingContext`).

use std::collections::HashMap;

use super::created::{Creation, Recognised, creation_begun};
use super::migration::SourceIdentity;
use super::tables::TableState;
use super::{State, StateError};
use crate::catalog::slot::{PLUGIN, Slot};
use crate::config::Side;
use crate::fault::Fault;
use crate::lsn::Lsn;
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::TableName;

/// Why a migration cannot go on from its position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResyncError {
    /// The server is another one.
    #[error(
        "the source is not the server this migration began with (database {database}): {what} was {recorded}, is {found}"
    )]
    OtherSource {
        /// What differs.
        what: &'static str,
        /// As recorded when the migration began.
        recorded: String,
        /// As found now.
        found: String,
        /// The database that it began with.
        database: String,
    },
    /// The slot is gone.
    #[error("slot \"{0}\" no longer exists on the source, so changes since then are lost")]
    SlotGone(String),
    /// The slot was lost to max_slot_wal_keep_size or a conflict.
    #[error("slot \"{slot}\" was invalidated by the source ({status}), so changes since then are lost")]
    SlotLost {
        /// The slot.
        slot: String,
        /// The source's reason.
        status: String,
    },
    /// It is not a slot of ours.
    #[error("slot \"{slot}\" is not walferry's: {what}")]
    OtherSlot {
        /// The slot.
        slot: String,
        /// What is wrong with it.
        what: String,
    },
    /// Somebody consumed the slot.
    #[error(
        "slot \"{slot}\" was confirmed up to {confirmed}, but the target is only at {position}: something else consumed it, or the target was set back to an earlier state"
    )]
    SlotAhead {
        /// The slot.
        slot: String,
        /// Its confirmed_flush_lsn.
        confirmed: Lsn,
        /// The position on the target.
        position: Lsn,
    },
    /// The source is at an earlier point than what came from it.
    #[error(
        "the target has everything up to {position}, but the WAL of the source ends at {end}: the source was set back to an earlier state, or is a copy of one"
    )]
    SourceBehind {
        /// The position on the target.
        position: Lsn,
        /// The end of the source's WAL.
        end: Lsn,
    },
    /// This process was at work on it.
    #[error(
        "the target has no state of migration \"{0}\" any more: it was cleaned up, or the target was set back or emptied"
    )]
    StateGone(String),
    /// The copy is complete but the position is missing.
    #[error("the target has no position for slot \"{0}\", although the copy is complete")]
    NoPosition(String),
}

impl ResyncError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            // A copy of the source is one as well.
            ResyncError::OtherSource { .. } | ResyncError::SourceBehind { .. } => Fault::OtherSource,
            ResyncError::SlotAhead { .. } => Fault::Consumed,
            _ => Fault::NeedsResync,
        }
    }
}

/// Compares the source with the one the migration began with.
///
/// # Errors
/// When it is another one.
pub fn compare_source(recorded: &SourceIdentity, found: &SourceIdentity) -> Result<(), ResyncError> {
    let pairs = [
        ("the system identifier", recorded.system_identifier.clone(), found.system_identifier.clone()),
        ("the timeline", recorded.timeline.to_string(), found.timeline.to_string()),
        ("the database", recorded.database.clone(), found.database.clone()),
    ];
    for (what, was, found) in pairs {
        if was != found {
            return Err(ResyncError::OtherSource { what, recorded: was, found, database: recorded.database.clone() });
        }
    }
    Ok(())
}

/// Whether a source whose WAL ends there has what came from it. Started from the position, it
/// would pass over what it writes up to that point.
///
/// # Errors
/// When it has not.
pub fn compare_end(position: Option<Lsn>, end: Option<Lsn>) -> Result<(), ResyncError> {
    match position.zip(end) {
        Some((position, end)) if end < position => Err(ResyncError::SourceBehind { position, end }),
        _ => Ok(()),
    }
}

/// Whether the slot still holds everything behind the position (before the
/// copy is complete: behind the slot's own beginning).
///
/// # Errors
/// When it does not.
pub fn compare_slot(name: &str, source: &SourceIdentity, slot: Option<Slot>, position: Lsn) -> Result<(), ResyncError> {
    let name = name.to_owned();
    let Some(slot) = slot else { return Err(ResyncError::SlotGone(name)) };
    if slot.plugin.as_deref() != Some(PLUGIN) {
        let what = format!("its plugin is {}", slot.plugin.as_deref().unwrap_or("none"));
        return Err(ResyncError::OtherSlot { slot: name, what });
    }
    if slot.database.as_deref() != Some(source.database.as_str()) {
        let what = format!("it belongs to database {}", slot.database.as_deref().unwrap_or("none"));
        return Err(ResyncError::OtherSlot { slot: name, what });
    }
    if let Some(status) = slot.loss() {
        return Err(ResyncError::SlotLost { slot: name, status });
    }
    compare_end(Some(position), slot.server_end)?;
    match slot.confirmed_flush {
        Some(confirmed) if confirmed > position => Err(ResyncError::SlotAhead { slot: name, confirmed, position }),
        _ => Ok(()),
    }
}

/// Where a migration stands, as a start compares it with the source.
#[derive(Clone, Debug)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// The source as it was when the migration began.
    pub source: SourceIdentity,
    /// The slot's name.
    pub slot: String,
    /// The phase, in the word of the version that wrote it: to be shown.
    pub phase: String,
    /// The schema is on the target, by our hand.
    pub schema_restored: bool,
    /// Every table's rows are there.
    pub copied: bool,
    /// `catchup --finish` has ended well.
    pub finished: bool,
    /// The tables as they are listed, by their oids on the source; none before the
    /// copy has its list.
    pub tables: HashMap<u32, TableState>,
    /// The position; before there is one, where the slot began.
    pub reached: Option<Lsn>,
    /// The publication that it created.
    pub publication_oid: Option<u32>,
    /// Of the slot's creation.
    creation: Creation,
}

impl Standing {
    /// The names on the target of the tables whose rows it brings.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn names(&self, session: &Session) -> Result<Vec<TableName>, DbError> {
        self.names_of(session, |state| state.is_streamed() || state == TableState::Unlogged).await
    }

    /// The names on the target of the tables in states that are meant.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn names_of(
        &self,
        session: &Session,
        is_meant: impl Fn(TableState) -> bool,
    ) -> Result<Vec<TableName>, DbError> {
        let brought = |oid: &u32| self.tables.get(oid).is_some_and(|state| is_meant(*state));
        let sql = "SELECT source_oid, schema, name FROM walferry.tables WHERE migration = $1";
        let rows = session.query(sql, &[&self.name]).await.during(Side::Target, "read the list of tables")?;
        let named = |row: &Row| Ok((row.take(0)?, TableName { schema: row.take(1)?, name: row.take(2)? }));
        let named = rows.iter().map(named).collect::<Result<Vec<(u32, TableName)>, DbError>>()?;
        Ok(named.into_iter().filter(|(oid, _)| brought(oid)).map(|(_, name)| name).collect())
    }

    /// Reads it without writing anything, whichever version wrote the state:
    /// the columns are those of the first. `None` if the migration has not
    /// begun.
    ///
    /// # Errors
    /// When the state cannot be read or understood, or is of a newer version.
    pub async fn read(session: &Session, name: &str) -> Result<Option<Self>, StateError> {
        State::require_known(session).await?;
        let sql = "SELECT m.system_identifier, m.timeline, m.source_database, m.source_version, m.slot, m.phase, m.schema_restored, \
             m.copied, pg_catalog.to_jsonb(m) ->> 'finished_at' IS NOT NULL, CASE WHEN m.copied THEN p.end_lsn ELSE m.consistent_point END, \
             (pg_catalog.to_jsonb(m) ->> 'slot_created_lsn')::pg_lsn, coalesce(p.end_lsn, m.consistent_point), \
             (pg_catalog.to_jsonb(m) ->> 'publication_oid')::oid \
             FROM walferry.migration m LEFT JOIN walferry.position p ON p.slot = m.slot WHERE m.name = $1";
        let row = session.query_opt(sql, &[&name]).await.during(Side::Target, "read the state")?;
        let Some(row) = row else { return Ok(None) };
        let sql = "SELECT source_oid, state FROM walferry.tables WHERE migration = $1";
        let listed = session.query(sql, &[&name]).await.during(Side::Target, "read the list of tables")?;
        let listed = listed.iter().map(|row| Ok((row.take(0)?, TableState::parse(row.take(1)?)?)));
        let (slot, database): (String, String) = (row.take(4)?, row.take(2)?);
        let creation = Creation {
            begun: creation_begun(session, name, &slot).await?,
            database: database.clone(),
            after: row.take(10)?,
            reached: row.take(11)?,
        };
        Ok(Some(Standing {
            name: name.to_owned(),
            source: SourceIdentity {
                system_identifier: row.take(0)?,
                timeline: row.take(1)?,
                database,
                version: row.take(3)?,
            },
            slot,
            phase: row.take(5)?,
            schema_restored: row.take(6)?,
            copied: row.take(7)?,
            finished: row.take(8)?,
            tables: listed.collect::<Result<_, StateError>>()?,
            reached: row.take(9)?,
            publication_oid: row.take(12)?,
            creation,
        }))
    }

    /// Whether a slot of the migration's name is the one that it created.
    pub fn recognises(&self, slot: &Slot) -> Recognised {
        self.creation.recognises(slot)
    }

    /// Whether the list of tables has been written, with the schema before it:
    /// until then a start is as the first one.
    pub fn is_set_up(&self) -> bool {
        self.copied || !self.tables.is_empty()
    }

    /// Whether some table's rows are there.
    fn has_finished_tables(&self) -> bool {
        let is_finished =
            |state: &TableState| matches!(state, TableState::Indexing | TableState::Joining | TableState::Ready);
        self.tables.values().any(is_finished)
    }

    /// Whether a start may go on with this slot. A copy of which nothing is
    /// finished begins anew with another one.
    ///
    /// # Errors
    /// When it may not.
    pub fn compare(&self, slot: Option<Slot>) -> Result<(), ResyncError> {
        let Some(reached) = self.reached else {
            return if self.copied { Err(ResyncError::NoPosition(self.slot.clone())) } else { Ok(()) };
        };
        match compare_slot(&self.slot, &self.source, slot, reached) {
            Err(ResyncError::SlotGone(_) | ResyncError::SlotLost { .. })
                if !self.copied && !self.has_finished_tables() =>
            {
                Ok(())
            }
            compared => compared,
        }
    }
}
