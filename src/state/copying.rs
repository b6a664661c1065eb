//! The steps of a table's copy, each taken only from the state before it.
//!
//! Invariant: a step says whether it was taken, so a session that was given up
//! for lost, and whose last words arrive late, cannot move a table that has
//! been begun anew. What says that the rows are there is written in their
//! transaction, together with the line of the journal that proves it. A part of a
//! table commits only while the attempt that it is of is the one at the table: who
//! empties it waits for whoever writes to it.

use super::tables::{TableRow, TableState};
use super::{State, StateError};
use crate::catalog::named::oid_of;
use crate::lsn::EndLsn;
use crate::session::Param;

/// What else is set where no rows of a table are left.
const NO_ROWS: &str = ", rows = 0, bytes = 0, snapshot_lsn = NULL";

/// An attempt at a table's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt(pub(super) Option<i64>);

impl Attempt {
    /// None of which anything is recorded.
    pub const NONE: Attempt = Attempt(None);
}

/// Whether a step was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// The table was where it was expected, and has moved on.
    Taken,
    /// It is somewhere else.
    Elsewhere,
}

impl Step {
    fn of(affected: u64) -> Self {
        if affected == 1 { Step::Taken } else { Step::Elsewhere }
    }
}

impl State {
    /// waiting → copying: rows of it may be on the target from now on. `None`: it is
    /// somewhere else.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn begin_table(&self, source_oid: u32) -> Result<Option<Attempt>, StateError> {
        let sql = format!(
            "UPDATE walferry.tables SET state = {}, attempt = pg_catalog.txid_current(), changed_at = pg_catalog.clock_timestamp() \
             WHERE migration = $1 AND source_oid = $2 AND state = {} RETURNING attempt",
            TableState::sql([TableState::Copying]),
            TableState::sql([TableState::Waiting])
        );
        let rows = self.query(&sql, &[&self.name(), &source_oid], "begin a table").await?;
        rows.first().map(|row| Ok(Attempt(Some(row.take(0)?)))).transpose()
    }

    /// copying, as it is: whether this attempt is still the one at the table. Ask it in a
    /// transaction that has written to the table.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn still_copies(&self, source_oid: u32, attempt: Attempt) -> Result<Step, StateError> {
        let sql = format!(
            "SELECT FROM walferry.tables WHERE migration = $1 AND source_oid = $2 AND attempt IS NOT DISTINCT FROM $3 AND state = {}",
            TableState::sql([TableState::Copying])
        );
        let rows = self.query(&sql, &[&self.name(), &source_oid, &attempt.0], "look whose a table is").await?;
        Ok(if rows.is_empty() { Step::Elsewhere } else { Step::Taken })
    }

    /// copying → waiting; run it in the transaction that empties the table.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn reset_table(&self, source_oid: u32) -> Result<Step, StateError> {
        self.step(source_oid, TableState::Waiting, NO_ROWS, [TableState::Copying], "begin a table anew").await
    }

    /// indexing → ready, after this attempt.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn table_ready(&self, source_oid: u32, attempt: Attempt) -> Result<Step, StateError> {
        let from = [TableState::Indexing, TableState::Ready];
        self.step_of(source_oid, attempt, TableState::Ready, from, "record that a table is ready").await
    }

    /// indexing → joining, after this attempt: complete as of its snapshot, the stream
    /// has yet to take it up.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn table_joining(&self, source_oid: u32, attempt: Attempt) -> Result<Step, StateError> {
        let from = [TableState::Indexing];
        self.step_of(source_oid, attempt, TableState::Joining, from, "record that a table is to join").await
    }

    /// joining → ready, all of these: they hold every commit before `point`,
    /// where the stream takes them up. Says how many there were; run it in the
    /// transaction that forgets the second stream's position.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn tables_joined(&self, tables: &[u32], point: EndLsn) -> Result<u64, StateError> {
        let sql = format!(
            "UPDATE walferry.tables SET state = {}, snapshot_lsn = $3, changed_at = pg_catalog.clock_timestamp() \
             WHERE migration = $1 AND source_oid = ANY ($2::oid[]) AND state = {}",
            TableState::sql([TableState::Ready]),
            TableState::sql([TableState::Joining])
        );
        self.execute(&sql, &[&self.name(), &tables, &point.lsn()], "record that the tables have joined").await
    }

    /// Any → waiting, all of these; run it in the transaction that empties them.
    /// Says how many there were.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn tables_anew(&self, tables: &[u32]) -> Result<u64, StateError> {
        let sql = format!(
            "UPDATE walferry.tables t SET state = {}{NO_ROWS}, filenode = NULL, via = NULL, problem = NULL, \
                 target_oid = {}, \
                 changed_at = pg_catalog.clock_timestamp() \
             WHERE t.migration = $1 AND t.source_oid = ANY ($2::oid[])",
            TableState::sql([TableState::Waiting]),
            oid_of("t.schema", "t.name")
        );
        self.execute(&sql, &[&self.name(), &tables], "record that the tables are copied anew").await
    }

    /// The state of a table and the attempt at it, held until the end of the caller's
    /// transaction.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub async fn hold_table(&self, source_oid: u32) -> Result<Option<(TableState, Attempt)>, StateError> {
        let sql = "SELECT state, attempt FROM walferry.tables WHERE migration = $1 AND source_oid = $2 FOR UPDATE";
        let rows = self.query(sql, &[&self.name(), &source_oid], "read a table's state").await?;
        rows.first().map(|row| Ok((TableState::parse(row.take(0)?)?, Attempt(row.take(1)?)))).transpose()
    }

    /// How much of a table has been copied so far, for those who watch.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn record_progress(&self, source_oid: u32, rows: i64, bytes: i64) -> Result<(), StateError> {
        let sql = format!(
            "UPDATE walferry.tables SET rows = $3, bytes = $4, changed_at = pg_catalog.clock_timestamp() \
             WHERE migration = $1 AND source_oid = $2 AND state = {}",
            TableState::sql([TableState::Copying])
        );
        self.execute(&sql, &[&self.name(), &source_oid, &rows, &bytes], "record a table's progress").await?;
        Ok(())
    }

    /// copying → indexing: this attempt has brought all rows, as of the row's
    /// `snapshot_lsn`; run it in the transaction of the (last) rows. `how` is the
    /// journal's line.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn rows_copied(&self, row: &TableRow, attempt: Attempt, how: &str) -> Result<Step, StateError> {
        let sql = format!(
            "WITH moved AS (UPDATE walferry.tables SET state = {}, rows = $3, bytes = $4, snapshot_lsn = $5, \
                 filenode = $6, via = $7, changed_at = pg_catalog.clock_timestamp() \
                 WHERE migration = $1 AND source_oid = $2 AND attempt IS NOT DISTINCT FROM $9 AND state = {} RETURNING 1) \
             INSERT INTO walferry.journal (migration, what) SELECT $1, $8 FROM moved",
            TableState::sql([TableState::Indexing]),
            TableState::sql([TableState::Copying])
        );
        let point = row.snapshot_lsn.map(EndLsn::lsn);
        let (filenode, via) = (&row.origin.filenode, &row.origin.via);
        let params: [&dyn Param; 9] =
            [&self.name(), &row.source_oid, &row.rows, &row.bytes, &point, filenode, via, &how, &attempt.0];
        Ok(Step::of(self.execute(&sql, &params, "record that a table's rows are there").await?))
    }

    /// → ready: the source dropped it before its rows were copied, so as of
    /// `point` it has none.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn table_gone(&self, source_oid: u32, point: EndLsn) -> Result<Step, StateError> {
        let sql = format!(
            "UPDATE walferry.tables SET state = {}, rows = 0, bytes = 0, snapshot_lsn = $3, \
             changed_at = pg_catalog.clock_timestamp() \
             WHERE migration = $1 AND source_oid = $2 AND state IN ({})",
            TableState::sql([TableState::Ready]),
            TableState::sql([TableState::Waiting, TableState::Copying])
        );
        let params: [&dyn Param; 3] = [&self.name(), &source_oid, &point.lsn()];
        Ok(Step::of(self.execute(&sql, &params, "record that a table is gone").await?))
    }

    /// waiting → ready, all of them: their rows were restored by other means, as
    /// of `point`. Says how many there are.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn tables_restored(&self, point: EndLsn) -> Result<u64, StateError> {
        let sql = format!(
            "UPDATE walferry.tables SET state = {}, snapshot_lsn = $2, changed_at = pg_catalog.clock_timestamp() \
             WHERE migration = $1 AND state = {}",
            TableState::sql([TableState::Ready]),
            TableState::sql([TableState::Waiting])
        );
        self.execute(&sql, &[&self.name(), &point.lsn()], "record that the rows are there").await
    }

    /// Forgets the list of tables and where the slot began: the next copy
    /// begins at its beginning. Their rows must be gone in the same transaction.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn forget_copy(&self) -> Result<(), StateError> {
        self.execute(
            "WITH gone AS (DELETE FROM walferry.tables WHERE migration = $1) \
             UPDATE walferry.migration SET consistent_point = NULL WHERE name = $1",
            &[&self.name()],
            "forget the copy that was cut off",
        )
        .await?;
        Ok(())
    }

    async fn step_of<const N: usize>(
        &self,
        source_oid: u32,
        attempt: Attempt,
        to: TableState,
        from: [TableState; N],
        action: &str,
    ) -> Result<Step, StateError> {
        let (to, from) = (TableState::sql([to]), TableState::sql(from));
        let sql = format!(
            "UPDATE walferry.tables SET state = {to}, changed_at = pg_catalog.clock_timestamp() \
             WHERE migration = $1 AND source_oid = $2 AND attempt IS NOT DISTINCT FROM $3 AND state IN ({from})"
        );
        Ok(Step::of(self.execute(&sql, &[&self.name(), &source_oid, &attempt.0], action).await?))
    }

    async fn step<const N: usize>(
        &self,
        source_oid: u32,
        to: TableState,
        set: &str,
        from: [TableState; N],
        action: &str,
    ) -> Result<Step, StateError> {
        let (to, from) = (TableState::sql([to]), TableState::sql(from));
        let sql = format!(
            "UPDATE walferry.tables SET state = {to}{set}, changed_at = pg_catalog.clock_timestamp() \
             WHERE migration = $1 AND source_oid = $2 AND state IN ({from})"
        );
        Ok(Step::of(self.execute(&sql, &[&self.name(), &source_oid], action).await?))
    }
}
