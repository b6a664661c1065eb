//! What a migration has created on the source, and how it recognises it.
//!
//! ```text
//! end of WAL recorded ─ journal ─ slot created ─ consistent point ─ position moves
//!                    restart_lsn ≥ that end       confirmed_flush_lsn ≤ position
//! ```
//!
//! Invariant: a slot or publication that another made under our name is not
//! ours. A slot has no number of its own; but what is kept for one that was
//! there before ours is older than ours, and one that was made after ours has
//! been confirmed to where our target has not come.
//!
//! Source: `ReplicationSlotReserveWal` in `src/backend/replication/slot.c`
//! begins a logical slot at the end of the WAL; its first
//! `confirmed_flush_lsn` is its consistent point
//! (`DecodingContextFindStartpoint` in `logical.c`), behind a record that the
//! creation itself has written.

use super::resume::Standing;
use super::{State, StateError};
use crate::catalog::slot::{PLUGIN, Slot};
use crate::config::Side;
use crate::lsn::Lsn;
use crate::session::{DbContext, Session};

/// Whether a slot is the one that the migration created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognised {
    /// It is.
    Yes,
    /// It is not, and why.
    No(String),
}

/// Written into the journal before a slot is created, so that one whose
/// creation was cut off is known as ours.
fn journal_line(slot: &str) -> String {
    format!("creating slot \"{slot}\"")
}

impl State {
    /// Records that a slot is about to be created, on a source whose WAL ends
    /// at `end`. The consistent point of an earlier one is void.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn slot_begins(&self, slot: &str, end: Lsn) -> Result<(), StateError> {
        self.execute(
            "WITH line AS (INSERT INTO walferry.journal (migration, what) VALUES ($1, $2)) \
             UPDATE walferry.migration SET slot_created_lsn = $3, consistent_point = NULL WHERE name = $1",
            &[&self.name(), &journal_line(slot), &end],
            "record that the slot is about to be created",
        )
        .await?;
        Ok(())
    }

    /// Records that the slot that we created is gone: one of its name is another's
    /// from now on.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn slot_dropped(&self, slot: &str) -> Result<(), StateError> {
        self.execute(
            "UPDATE walferry.journal SET what = what || ', which is gone' WHERE migration = $1 AND what = $2",
            &[&self.name(), &journal_line(slot)],
            "record that the slot is gone",
        )
        .await?;
        Ok(())
    }

    /// Records the publication that we create.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn set_publication_oid(&self, oid: u32) -> Result<(), StateError> {
        self.execute(
            "UPDATE walferry.migration SET publication_oid = $2 WHERE name = $1",
            &[&self.name(), &oid],
            "record the publication",
        )
        .await?;
        Ok(())
    }

    /// Whether a slot that has the migration's name is the one it created.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub async fn recognises(&self, slot: &Slot) -> Result<Recognised, StateError> {
        let standing = Standing::read(self.session(), self.name()).await?;
        let nothing = || Recognised::No("there is no such migration".to_owned());
        Ok(standing.map_or_else(nothing, |standing| standing.recognises(slot)))
    }
}

/// Whether the migration was about to create a slot of this name, and has not seen it gone.
///
/// # Errors
/// When the state cannot be read.
pub(super) async fn creation_begun(session: &Session, migration: &str, slot: &str) -> Result<bool, StateError> {
    let sql = "SELECT EXISTS (SELECT FROM walferry.journal WHERE migration = $1::text AND what = $2::text)";
    let row =
        session.query_one(sql, &[&migration, &journal_line(slot)]).await.during(Side::Target, "read the journal")?;
    Ok(row.take(0)?)
}

/// What a migration knows of the creation of its slot.
#[derive(Clone, Debug)]
pub(super) struct Creation {
    /// Whether it has begun to create one.
    pub(super) begun: bool,
    /// The source's database.
    pub(super) database: String,
    /// The end of the WAL before the creation.
    pub(super) after: Option<Lsn>,
    /// Nothing of the slot was confirmed beyond this; unknown while its creation has
    /// not ended.
    pub(super) reached: Option<Lsn>,
}

impl Creation {
    /// Compares a slot with it.
    pub(super) fn recognises(&self, slot: &Slot) -> Recognised {
        let none = || "none".to_owned();
        if !self.begun {
            return Recognised::No("this migration has not created one".to_owned());
        }
        if slot.plugin.as_deref() != Some(PLUGIN) {
            return Recognised::No(format!("its plugin is {}", slot.plugin.clone().unwrap_or_else(none)));
        }
        if slot.database.as_deref() != Some(self.database.as_str()) {
            return Recognised::No(format!("it belongs to database {}", slot.database.clone().unwrap_or_else(none)));
        }
        if slot.is_temporary {
            return Recognised::No("it is temporary".to_owned());
        }
        match (slot.restart, self.after) {
            (Some(restart), Some(created)) if restart < created => {
                return Recognised::No(format!(
                    "it was there before ours: it begins at {restart}, ours after {created}"
                ));
            }
            _ => {}
        }
        match (slot.confirmed_flush, self.reached) {
            (Some(confirmed), Some(reached)) if confirmed > reached => Recognised::No(format!(
                "it is confirmed up to {confirmed}, and the target has come to {reached}: it was created anew, or advanced by somebody"
            )),
            _ => Recognised::Yes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn creation(reached: Option<Lsn>) -> Creation {
        Creation { begun: true, database: "shop".into(), after: Some(Lsn::new(100)), reached }
    }

    fn slot(restart: u64, confirmed: u64) -> Slot {
        Slot {
            plugin: Some(PLUGIN.into()),
            database: Some("shop".into()),
            active_pid: None,
            is_temporary: false,
            restart: Some(Lsn::new(restart)),
            confirmed_flush: Some(Lsn::new(confirmed)),
            wal_status: None,
            safe_wal_bytes: None,
            invalidation_reason: None,
            inactive_since: None,
            is_two_phase: false,
            is_failover: false,
            server_end: None,
        }
    }

    fn because(slot: &Slot, reached: Option<Lsn>) -> Option<String> {
        match creation(reached).recognises(slot) {
            Recognised::Yes => None,
            Recognised::No(why) => Some(why),
        }
    }

    #[test]
    fn our_slot_is_recognised_while_it_is_made_and_wherever_the_target_has_come() {
        assert_eq!(because(&slot(100, 120), None), None);
        assert_eq!(because(&slot(100, 120), Some(Lsn::new(120))), None);
        assert_eq!(because(&slot(4000, 5000), Some(Lsn::new(5000))), None);
        let lost = Slot { restart: None, ..slot(0, 120) };
        assert_eq!(because(&lost, Some(Lsn::new(120))), None);
    }

    #[test]
    fn a_slot_from_before_ours_or_from_after_it_is_anothers() {
        assert!(because(&slot(99, 99), None).unwrap().contains("there before ours"));
        assert!(because(&slot(130, 140), Some(Lsn::new(120))).unwrap().contains("created anew"));
    }

    #[test]
    fn a_slot_of_another_plugin_or_database_or_a_temporary_one_is_anothers() {
        let foreign = [
            Slot { plugin: Some("wal2json".into()), ..slot(100, 120) },
            Slot { plugin: None, database: None, ..slot(100, 120) },
            Slot { database: Some("other".into()), ..slot(100, 120) },
            Slot { is_temporary: true, ..slot(100, 120) },
        ];
        for slot in foreign {
            assert!(because(&slot, None).is_some(), "{slot:?}");
        }
    }
}
