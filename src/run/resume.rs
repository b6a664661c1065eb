//! May this migration go on from where it is? Compares what the state says
//! with what the source is. Anything that does not fit means rows are missing
//! or doubled, so it is "needs resync", never a silent restart.
//!
//! Source: `StartLogicalReplication` forwards a start position that is behind
//! `confirmed_flush_lsn` without a word
//! (`src/backend/replication/logical/logical.c`, `CreateDecodingContext`).

use crate::config::Side;
use crate::lsn::Lsn;
use crate::session::{DbContext, DbError, Session};
use crate::state::migration::{Migration, SourceIdentity};

/// Why a migration cannot go on from its position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResyncError {
    /// The server is another one.
    #[error("the source is not the server this migration began with: {what} was {recorded}, is {found}")]
    OtherSource {
        /// What differs.
        what: &'static str,
        /// As recorded when the migration began.
        recorded: String,
        /// As found now.
        found: String,
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
        "slot \"{slot}\" was confirmed up to {confirmed}, but the target is only at {position}: something else consumed it"
    )]
    SlotAhead {
        /// The slot.
        slot: String,
        /// Its confirmed_flush_lsn.
        confirmed: Lsn,
        /// The position on the target.
        position: Lsn,
    },
    /// The copy is complete but the position is missing.
    #[error("the target has no position for slot \"{0}\", although the copy is complete")]
    NoPosition(String),
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
    for (what, recorded, found) in pairs {
        if recorded != found {
            return Err(ResyncError::OtherSource { what, recorded, found });
        }
    }
    Ok(())
}

/// A slot as the source describes it.
#[derive(Clone, Debug)]
pub struct SlotInfo {
    /// The output plugin.
    pub plugin: Option<String>,
    /// Its database.
    pub database: Option<String>,
    /// Up to where it has been confirmed.
    pub confirmed_flush: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved`, `lost`; `None` below 13.
    pub wal_status: Option<String>,
}

/// Reads a slot.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn read_slot(source: &Session, slot: &str) -> Result<Option<SlotInfo>, DbError> {
    let wal_status = if source.version() >= 130_000 { "wal_status" } else { "NULL::text" };
    let sql = format!(
        "SELECT plugin::text, database::text, confirmed_flush_lsn, {wal_status} \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = $1"
    );
    let row = source.query_opt(&sql, &[&slot]).await.during(Side::Source, format!("read slot \"{slot}\""))?;
    Ok(row.map(|row| SlotInfo {
        plugin: row.get(0),
        database: row.get(1),
        confirmed_flush: row.get(2),
        wal_status: row.get(3),
    }))
}

/// Whether the slot still holds everything behind the position (before the
/// copy is complete: behind the slot's own beginning).
///
/// # Errors
/// When it does not.
pub fn compare_slot(migration: &Migration, slot: Option<SlotInfo>, position: Lsn) -> Result<(), ResyncError> {
    let name = migration.slot.name().to_owned();
    let Some(slot) = slot else { return Err(ResyncError::SlotGone(name)) };
    if slot.plugin.as_deref() != Some("pgoutput") {
        let what = format!("its plugin is {}", slot.plugin.as_deref().unwrap_or("none"));
        return Err(ResyncError::OtherSlot { slot: name, what });
    }
    if slot.database.as_deref() != Some(migration.source.database.as_str()) {
        let what = format!("it belongs to database {}", slot.database.as_deref().unwrap_or("none"));
        return Err(ResyncError::OtherSlot { slot: name, what });
    }
    if let Some(status) = slot.wal_status.filter(|status| status == "lost") {
        return Err(ResyncError::SlotLost { slot: name, status });
    }
    match slot.confirmed_flush {
        Some(confirmed) if confirmed > position => Err(ResyncError::SlotAhead { slot: name, confirmed, position }),
        _ => Ok(()),
    }
}

/// The end of the source's WAL, with everything before it flushed: what every
/// transaction that has committed by now is before.
///
/// # Errors
/// When the source cannot be asked.
pub async fn source_end(source: &Session) -> Result<Lsn, DbError> {
    let action = "read the end of the source's WAL";
    let sql = "SELECT pg_catalog.pg_is_in_recovery(), CASE WHEN pg_catalog.pg_is_in_recovery() \
               THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END";
    let row = source.query_one(sql, &[]).await.during(Side::Source, action)?;
    let (is_in_recovery, end) = (row.get(0), row.get(1));
    if is_in_recovery {
        return Ok(end);
    }
    // The walsender sends flushed WAL only, and an asynchronous commit is
    // visible before that. A commit of our own that assigns a transaction id
    // flushes everything before it.
    source
        .batch_execute("BEGIN; SET LOCAL synchronous_commit = on; SELECT pg_catalog.txid_current(); COMMIT")
        .await
        .during(Side::Source, "flush the source's WAL")?;
    Ok(end)
}
