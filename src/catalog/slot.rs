//! A replication slot.
//!
//! Invariant: `pg_replication_slots` is read here and nowhere else.
//!
//! Source: `pg_get_replication_slots` in `src/backend/replication/slotfuncs.c`:
//! `wal_status` and `safe_wal_size` came with 13, `two_phase` with 14,
//! `failover`, `inactive_since` and `invalidation_reason` with 17. A slot that
//! is being created is listed, with the process that creates it.

use std::fmt;
use std::time::SystemTime;

use super::wal::FLUSHED;
use crate::lsn::Lsn;
use crate::session::{DbContext, DbError, Session};

/// The plugin that all our slots are of.
pub const PLUGIN: &str = "pgoutput";

/// A slot as the server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its output plugin; `None` for a physical slot.
    pub plugin: Option<String>,
    /// The database it decodes; `None` for a physical slot.
    pub database: Option<String>,
    /// The process that uses it.
    pub active_pid: Option<i32>,
    /// Goes with its session.
    pub is_temporary: bool,
    /// The oldest WAL that is kept for it; moved forward by the server as its
    /// user confirms. `None` once the slot is invalidated.
    pub restart: Option<Lsn>,
    /// Up to where it has been confirmed: of a new slot its consistent point.
    pub confirmed_flush: Option<Lsn>,
    /// Whether the WAL it needs is kept; `None` before 13.
    pub wal_status: Option<WalStatus>,
    /// WAL that may still be written before it is lost; `None` without a limit
    /// and before 13.
    pub safe_wal_bytes: Option<i64>,
    /// Why it was invalidated; `None` if it was not, and before 17.
    pub invalidation_reason: Option<String>,
    /// Since when nobody uses it; `None` before 17.
    pub inactive_since: Option<SystemTime>,
    /// It decodes prepared transactions at PREPARE.
    pub is_two_phase: bool,
    /// It is synchronized to standbys.
    pub is_failover: bool,
    /// The end of the WAL that the server had kept just then; `None` on a standby.
    pub server_end: Option<Lsn>,
}

impl Slot {
    /// WAL that the slot keeps on a server whose WAL ends at `end`.
    pub fn retained_bytes(&self, end: Lsn) -> Option<i64> {
        self.restart.map(|restart| i64::try_from(end.bytes_since(restart)).unwrap_or(i64::MAX))
    }

    /// The server's word for the loss of a slot that is lost.
    pub fn loss(&self) -> Option<String> {
        (self.wal_status == Some(WalStatus::Lost))
            .then(|| self.invalidation_reason.clone().unwrap_or_else(|| WalStatus::Lost.to_string()))
    }
}

/// Whether the server keeps the WAL that a slot needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalStatus {
    /// Within max_wal_size.
    Reserved,
    /// Beyond that, and still kept.
    Extended,
    /// No longer kept: lost at the next checkpoint unless the slot moves.
    Unreserved,
    /// The slot can no longer be used.
    Lost,
    /// A word that this program does not know.
    Unknown,
}

impl WalStatus {
    fn parse(word: &str) -> Self {
        match word {
            "reserved" => WalStatus::Reserved,
            "extended" => WalStatus::Extended,
            "unreserved" => WalStatus::Unreserved,
            "lost" => WalStatus::Lost,
            _ => WalStatus::Unknown,
        }
    }
}

/// The server's word.
impl fmt::Display for WalStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WalStatus::Reserved => "reserved",
            WalStatus::Extended => "extended",
            WalStatus::Unreserved => "unreserved",
            WalStatus::Lost => "lost",
            WalStatus::Unknown => "unknown",
        })
    }
}

fn sql(version: i32) -> String {
    let of_13 = if version >= 130_000 { "wal_status, safe_wal_size" } else { "NULL::text, NULL::int8" };
    let of_14 = if version >= 140_000 { "two_phase" } else { "false" };
    let of_17 = if version >= 170_000 {
        "failover, inactive_since, invalidation_reason"
    } else {
        "false, NULL::timestamptz, NULL::text"
    };
    format!(
        "SELECT plugin::text, database::text, active_pid, temporary, restart_lsn, confirmed_flush_lsn, {of_13}, {of_14}, {of_17}, {FLUSHED} \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = $1"
    )
}

/// Finds a slot by its name.
///
/// # Errors
/// When the server cannot be asked.
pub async fn find(session: &Session, name: &str) -> Result<Option<Slot>, DbError> {
    let row = session
        .query_opt(&sql(session.version()), &[&name])
        .await
        .during(session.side(), format!("read slot \"{name}\""))?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Slot {
        plugin: row.take(0)?,
        database: row.take(1)?,
        active_pid: row.take(2)?,
        is_temporary: row.take(3)?,
        restart: row.take(4)?,
        confirmed_flush: row.take(5)?,
        wal_status: row.take::<Option<&str>>(6)?.map(WalStatus::parse),
        safe_wal_bytes: row.take(7)?,
        is_two_phase: row.take(8)?,
        is_failover: row.take(9)?,
        inactive_since: row.take(10)?,
        invalidation_reason: row.take(11)?,
        server_end: row.take(12)?,
    }))
}

/// How many slots the server has.
///
/// # Errors
/// When the server cannot be asked.
pub async fn count(session: &Session) -> Result<i64, DbError> {
    let action = "count the replication slots";
    let row = session
        .query_one("SELECT count(*) FROM pg_catalog.pg_replication_slots", &[])
        .await
        .during(session.side(), action)?;
    row.take(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::wal;
    use crate::config::Side;
    use crate::sweep::testing::{Pair, SUPERUSER};

    fn slot(restart: Option<Lsn>, wal_status: Option<WalStatus>, reason: Option<&str>) -> Slot {
        Slot {
            plugin: Some(PLUGIN.into()),
            database: Some("shop".into()),
            active_pid: None,
            is_temporary: false,
            restart,
            confirmed_flush: restart,
            wal_status,
            safe_wal_bytes: None,
            invalidation_reason: reason.map(Into::into),
            inactive_since: None,
            is_two_phase: false,
            is_failover: false,
            server_end: None,
        }
    }

    #[test]
    fn a_lost_slot_says_why_as_far_as_the_server_does() {
        assert_eq!(slot(None, Some(WalStatus::Lost), None).loss().as_deref(), Some("lost"));
        assert_eq!(slot(None, Some(WalStatus::Lost), Some("wal_removed")).loss().as_deref(), Some("wal_removed"));
        assert_eq!(slot(Some(Lsn::new(1)), Some(WalStatus::Unreserved), None).loss(), None);
    }

    #[test]
    fn what_a_slot_retains_is_known_while_it_has_a_restart_lsn() {
        assert_eq!(slot(Some(Lsn::new(10)), None, None).retained_bytes(Lsn::new(15)), Some(5));
        assert_eq!(slot(Some(Lsn::new(10)), None, None).retained_bytes(Lsn::new(5)), Some(0));
        assert_eq!(slot(None, None, None).retained_bytes(Lsn::new(5)), None);
    }

    #[tokio::test]
    async fn a_slot_is_found_as_it_was_created() {
        let pair = Pair::new().await;
        let session = pair.source(SUPERUSER).await;
        let name = format!("found_{}", std::process::id());
        assert_eq!(find(&session, &name).await.unwrap(), None);
        let before = wal::flush_to_end(&session).await.unwrap();
        session.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&name]).await.unwrap();
        let found = find(&session, &name).await.unwrap().unwrap();
        let end = wal::end(&session).await.unwrap();
        assert_eq!(found.plugin.as_deref(), Some(PLUGIN));
        let database: String =
            session.query_one("SELECT current_database()::text", &[]).await.unwrap().take(0).unwrap();
        assert_eq!(found.database, Some(database));
        assert!(found.restart.unwrap() >= before && found.confirmed_flush.unwrap() <= end, "{found:?}");
        assert_eq!((found.active_pid, found.is_temporary, found.loss()), (None, false, None));
        assert_eq!(session.side(), Side::Source);
        session.query("SELECT pg_drop_replication_slot($1)", &[&name]).await.unwrap();
    }
}
