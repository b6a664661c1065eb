//! The position: one row that moves only together with the data, or past data that
//! every table has by a later copy ([`State::pass_over`]).
//!
//! Every batch begins with [`MOVE_SQL`]. It fails (division by zero, 22012)
//! when the row is not where the batch expects it, or another process has taken the
//! lease since, so everything behind it in the pipeline falls with it: a batch whose
//! predecessor failed, or that comes from a process that was killed or has lost its
//! lease, cannot commit once the next one is at work.

use std::sync::atomic::Ordering;

use super::{State, StateError};
use crate::config::Side;
use crate::fault::sqlstate;
use crate::lsn::sealed::Sealed;
use crate::lsn::{Durable, DurableLsn, EndLsn, Lsn};
use crate::session::{DbContext, Session};
use crate::sql::literal;

/// Moves the position by compare-and-set. Parameters: slot, new end LSN,
/// commit time (microseconds since 2000-01-01 UTC, or null), expected end LSN, claim.
pub const MOVE_SQL: &str = "WITH moved AS (UPDATE walferry.position SET end_lsn = $2::pg_lsn, \
    commit_time = coalesce('2000-01-01 00:00:00+00'::timestamptz + $3::bigint * '1 microsecond'::interval, commit_time), \
    moved_at = pg_catalog.clock_timestamp() \
    WHERE slot = $1::text AND end_lsn = $4::pg_lsn AND claim = $5::bigint RETURNING 1) \
    SELECT 1 / pg_catalog.count(*) FROM moved";

/// Which process may move a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim(pub(super) i64);

impl Claim {
    /// As the state has it.
    pub fn number(self) -> i64 {
        self.0
    }

    /// One of this number, for tests.
    #[cfg(test)]
    pub(crate) fn of_number(number: i64) -> Self {
        Claim(number)
    }

    /// Whether nobody has had the lease in between.
    pub fn follows(self, earlier: Claim) -> bool {
        self.0 == earlier.0 + 1
    }

    /// Whether somebody has had the lease since: not where the state is of before that.
    pub fn has_others_since(self, earlier: Claim) -> bool {
        self.0 > earlier.0 + 1
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What the names of a migration's temporary slots begin with.
pub fn temporary_prefix(migration: &str) -> String {
    format!("{migration}_copy_")
}

/// A position that was read back from the target; made only by
/// [`State::position`].
pub struct ReadBack {
    end_lsn: EndLsn,
}

impl Sealed for ReadBack {}

impl Durable for ReadBack {
    fn end_lsn(&self) -> EndLsn {
        self.end_lsn
    }
}

/// A row for the process of this claim, which keeps the claim until the end of the
/// transaction.
pub(crate) const HELD_SQL: &str = "SELECT 1 FROM walferry.migration WHERE name = $1 AND claim = $2 FOR SHARE";

/// A statement that fails unless this one has a row.
fn required(held: &str) -> String {
    format!(
        "SELECT (CASE pg_catalog.count(*) WHEN 1 THEN '1' ELSE 'another process is at work on the migration' END)::int \
         FROM ({held}) AS held"
    )
}

impl State {
    /// What this process got with its lease.
    pub fn claim(&self) -> Claim {
        Claim(self.claim.load(Ordering::Relaxed))
    }

    /// A handle over another session, with what this process got with its lease.
    ///
    /// # Errors
    /// As [`State::open`].
    pub async fn beside(&self, session: Session) -> Result<State, StateError> {
        let own = State::open(session, self.name()).await?;
        own.claim.store(self.claim().0, Ordering::Relaxed);
        Ok(own)
    }

    /// Ends the transaction that is open on this handle's session well, unless another
    /// process has taken the lease since: then nothing of it is done.
    ///
    /// # Errors
    /// [`StateError::Leased`], or what the target says.
    pub async fn commit(&self, action: &str) -> Result<(), StateError> {
        let batch = async |sql: &str| self.session.batch_execute(sql).await.during(Side::Target, action);
        let rows = self.session.query(HELD_SQL, &[&self.name(), &self.claim().0]).await.during(Side::Target, action)?;
        if rows.is_empty() {
            batch("ROLLBACK").await?;
            return Err(self.leased().await?);
        }
        Ok(batch("COMMIT").await?)
    }

    /// A statement that fails where another process has taken the lease since; else none
    /// can before the end of the caller's transaction, which has to be short.
    pub fn require_lease_sql(&self) -> String {
        let held = HELD_SQL.replace("$1", &literal(self.name())).replace("$2", &self.claim().to_string());
        required(&held)
    }

    /// The same for a transaction that may be long, where there is a position: the
    /// migration's own row is written to all the time.
    pub fn require_claim_sql(&self) -> String {
        required(&format!(
            "SELECT 1 FROM walferry.position p JOIN walferry.migration m ON m.slot = p.slot \
             WHERE m.name = {} AND p.claim = {} FOR SHARE OF p",
            literal(self.name()),
            self.claim()
        ))
    }

    /// Takes the position from whoever had it before. Says whether it is had: not while a
    /// transaction of theirs is at work on the target.
    pub(super) async fn claim_position(&self) -> Result<bool, StateError> {
        let batch = async |sql: &str| self.session.batch_execute(sql).await.during(Side::Target, "claim the position");
        batch("BEGIN; SET LOCAL lock_timeout = '1s'").await?;
        // Positions of second streams, too.
        let sql = "WITH mine AS (UPDATE walferry.migration SET claim = claim + 1 WHERE name = $1 RETURNING slot, claim), \
             claimed AS (UPDATE walferry.position p SET claim = mine.claim FROM mine \
                 WHERE p.slot = mine.slot OR pg_catalog.left(p.slot, pg_catalog.length($2)) = $2 \
                     AND NOT EXISTS (SELECT FROM walferry.migration o WHERE o.slot = p.slot)) \
             SELECT claim FROM mine";
        let claimed = self.query(sql, &[&self.name(), &temporary_prefix(self.name())], "claim the position").await;
        // What waits for these rows later would do so without a word.
        let held = "SELECT (SELECT pg_catalog.count(*) FROM (SELECT FROM walferry.tables WHERE migration = $1 FOR NO KEY UPDATE) AS t), \
             (SELECT pg_catalog.count(*) FROM (SELECT FROM walferry.large_objects WHERE migration = $1 FOR NO KEY UPDATE) AS l)";
        let claimed = match claimed {
            Ok(rows) => self.query(held, &[&self.name()], "claim the tables").await.map(|_| rows),
            refused => refused,
        };
        batch(if claimed.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
        match claimed {
            Ok(rows) => {
                // A migration that has not begun has nothing to be claimed.
                let claim = rows.first().map_or(Ok(0), |row| row.take(0))?;
                self.claim.store(claim, Ordering::Relaxed);
                Ok(true)
            }
            Err(StateError::Db(error)) if error.sqlstate() == Some(sqlstate::LOCK_NOT_AVAILABLE) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads the position of a slot back. A committed row that another session
    /// sees is durable: the target's `synchronous_commit` stays on.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub async fn position(&self, slot: &str) -> Result<Option<DurableLsn>, StateError> {
        let rows =
            self.query("SELECT end_lsn FROM walferry.position WHERE slot = $1", &[&slot], "read the position").await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(DurableLsn::of(ReadBack { end_lsn: EndLsn::recorded(row.take::<Lsn>(0)?) })))
    }

    /// Where a position is, held there until the end of the caller's transaction; `None`
    /// where it is another process's.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub async fn hold_position(&self, slot: &str, claim: Claim) -> Result<Option<Lsn>, StateError> {
        let sql = "SELECT end_lsn FROM walferry.position WHERE slot = $1 AND claim = $2 FOR UPDATE";
        let rows = self.query(sql, &[&slot, &claim.0], "hold the position").await?;
        Ok(rows.first().map(|row| row.take(0)).transpose()?)
    }

    /// Enters a position for a slot: the rows on the target that its stream is
    /// about hold every commit before `point`.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn begin_position(&self, slot: &str, point: EndLsn) -> Result<(), StateError> {
        let sql = "INSERT INTO walferry.position (slot, end_lsn, claim) VALUES ($1, $2, $3)";
        self.execute(sql, &[&slot, &point.lsn(), &self.claim().0], "enter a position").await?;
        Ok(())
    }

    /// Moves a position on without data: what lies between is on the target by other
    /// means.
    ///
    /// # Errors
    /// When it is not where it was, or the target refuses it.
    pub async fn pass_over(&self, slot: &str, from: DurableLsn, to: EndLsn) -> Result<(), StateError> {
        self.query(MOVE_SQL, &[&slot, &to.lsn(), &None::<i64>, &from.lsn(), &self.claim().0], "move the position on")
            .await?;
        Ok(())
    }

    /// Forgets the positions of slots whose names begin with `prefix`, but of no
    /// migration's own: another one may be called like that.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn forget_positions(&self, prefix: &str) -> Result<(), StateError> {
        let sql = "DELETE FROM walferry.position p WHERE pg_catalog.left(p.slot, pg_catalog.length($1)) = $1 \
             AND NOT EXISTS (SELECT FROM walferry.migration m WHERE m.slot = p.slot)";
        self.execute(sql, &[&prefix], "forget positions").await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Claim;

    #[test]
    fn a_claim_follows_only_the_one_before_it() {
        assert!(Claim(5).follows(Claim(4)));
        assert!(!Claim(6).follows(Claim(4)) && !Claim(4).follows(Claim(4)));
        assert!(Claim(6).has_others_since(Claim(4)) && !Claim(5).has_others_since(Claim(4)));
        assert!(!Claim(3).has_others_since(Claim(4)), "the target was set back");
    }
}
