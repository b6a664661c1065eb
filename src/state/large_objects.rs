//! What is known of the large objects: which on the target are the migration's
//! own, up to where they have been carried, and who may carry them.
//!
//! Invariants: a large object's row in `walferry.large_object_oids` is written
//! in the transaction that creates the object ([`OWN_LARGE_OBJECTS_SQL`]), so an
//! object of ours is never taken for somebody else's. `scan_xmin` is written
//! when everything below it is on the target, never before. Every transaction
//! that writes large objects locks the migration's row and finds its claim there
//! ([`CLAIM_IS_OURS_SQL`]), so what a process had under way when it was killed is
//! over before the next one writes.

use super::sweeps::iso8601_sql;
use super::{State, StateError};
use crate::config::Side;
use crate::session::{DbContext, Session};

/// Enters large objects as the migration's own; run it in the transaction that
/// creates them. Parameters: migration, oid[].
pub const OWN_LARGE_OBJECTS_SQL: &str = "INSERT INTO walferry.large_object_oids (migration, oid) \
    SELECT $1, o FROM unnest($2::oid[]) o ON CONFLICT (migration, oid) DO NOTHING";

/// Forgets large objects; run it in the transaction that unlinks them.
/// Parameters: migration, oid[].
pub const DISOWN_LARGE_OBJECTS_SQL: &str =
    "DELETE FROM walferry.large_object_oids WHERE migration = $1 AND oid = ANY ($2::oid[])";

/// A row while the claim stands, locked until the transaction ends. Parameters:
/// migration, claim.
pub const CLAIM_IS_OURS_SQL: &str =
    "SELECT 1 FROM walferry.large_objects WHERE migration = $1 AND claim = $2 FOR UPDATE";

/// The right to write the migration's large objects, until the next one is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its number.
    pub number: i64,
    /// No pass has ended yet and the copy carried none: what is on the target is
    /// a baseline restored by other means.
    pub adopts: bool,
}

/// What a pass found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LargeObjectsRow {
    /// Objects on the source.
    pub total: i64,
    /// Bytes of pg_largeobject on the source.
    pub bytes: i64,
    /// When the last pass ended, ISO 8601 in UTC; `None` before the first.
    pub last_pass: Option<String>,
    /// xmin, with its epoch, of the snapshot that was carried; `None` if all
    /// contents have to be compared.
    pub scan_xmin: Option<i64>,
    /// xmax of the same snapshot, for people.
    pub scan_xmax: Option<i64>,
    /// How long the pass took, pauses left out.
    pub pass_seconds: Option<f64>,
    /// How many could not be read on the source.
    pub unreadable: i64,
    /// The first of these.
    pub unreadable_oids: Vec<u32>,
}

impl State {
    /// Makes a claim; all older ones are void. Waits for what their owners have
    /// under way, and so is not for the session that has the lease. `carried` says
    /// whether the copy carries large objects.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn claim_large_objects(&self, session: &Session, carried: bool) -> Result<Claim, StateError> {
        let adopts = !carried;
        let sql = "INSERT INTO walferry.large_objects AS l (migration, total, bytes, claim, adopting) VALUES ($1, 0, 0, 1, $2) \
                   ON CONFLICT (migration) DO UPDATE SET claim = l.claim + 1 RETURNING claim, adopting";
        let row = session.query_one(sql, &[&self.name(), &adopts]).await;
        let row = row.during(Side::Target, "claim the large objects")?;
        Ok(Claim { number: row.take(0)?, adopts: row.take(1)? })
    }

    /// From now on contents may differ anywhere, until a pass ends.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn forget_large_object_bound(&self, session: &Session) -> Result<(), StateError> {
        let sql = "UPDATE walferry.large_objects SET scan_xmin = NULL, scan_xmax = NULL \
                   WHERE migration = $1 AND scan_xmin IS NOT NULL";
        let forgotten = session.execute(sql, &[&self.name()]).await;
        forgotten.during(Side::Target, "forget how far the large objects are")?;
        Ok(())
    }

    /// Records what a pass found that has carried everything.
    ///
    /// # Errors
    /// When the target refuses it, or another process has made a claim since.
    pub async fn record_large_objects(
        &self,
        session: &Session,
        claim: Claim,
        found: &LargeObjectsRow,
    ) -> Result<(), StateError> {
        let updated = session
            .execute(
                "UPDATE walferry.large_objects SET total = $3, bytes = $4, scan_xmin = $5, scan_xmax = $6, \
                 pass_seconds = $7, unreadable = $8, unreadable_oids = $9, adopting = false, \
                 last_pass = pg_catalog.clock_timestamp() WHERE migration = $1 AND claim = $2",
                &[
                    &self.name(),
                    &claim.number,
                    &found.total,
                    &found.bytes,
                    &found.scan_xmin,
                    &found.scan_xmax,
                    &found.pass_seconds,
                    &found.unreadable,
                    &found.unreadable_oids,
                ],
            )
            .await
            .during(Side::Target, "record the large objects")?;
        if updated == 0 {
            let holder = "another process, which carries its large objects".to_owned();
            return Err(StateError::Leased { name: self.name().to_owned(), holder });
        }
        Ok(())
    }

    /// What the last pass found; `None` before there was anything to find.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub async fn large_objects(&self) -> Result<Option<LargeObjectsRow>, StateError> {
        let sql = format!(
            "SELECT total, bytes, CASE WHEN adopting THEN NULL ELSE {} END, scan_xmin, scan_xmax, pass_seconds, \
             unreadable, unreadable_oids FROM walferry.large_objects WHERE migration = $1",
            iso8601_sql("last_pass")
        );
        let rows = self.query(&sql, &[&self.name()], "read what is known of the large objects").await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(LargeObjectsRow {
            total: row.take(0)?,
            bytes: row.take(1)?,
            last_pass: row.take(2)?,
            scan_xmin: row.take(3)?,
            scan_xmax: row.take(4)?,
            pass_seconds: row.take(5)?,
            unreadable: row.take(6)?,
            unreadable_oids: row.take(7)?,
        }))
    }

    /// The migration's own large objects above an oid (from the first with
    /// `None`), in order, at most `limit`.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn own_large_objects(&self, above: Option<u32>, limit: i64) -> Result<Vec<u32>, StateError> {
        let rows = self
            .query(
                "SELECT oid FROM walferry.large_object_oids WHERE migration = $1 AND ($2::oid IS NULL OR oid > $2) \
                 ORDER BY oid LIMIT $3",
                &[&self.name(), &above, &limit],
                "read the large objects that are ours",
            )
            .await?;
        rows.iter().map(|row| Ok(row.take(0)?)).collect()
    }
}
