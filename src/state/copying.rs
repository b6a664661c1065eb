//! The steps of a table's copy, each taken only from the state before it.
//!
//! Invariant: a step says whether it was taken, so a session that was given up
//! for lost, and whose last words arrive late, cannot move a table that has
//! been begun anew. What says that the rows are there is written in their
//! transaction, together with the line of the journal that proves it.

use super::tables::{TableRow, TableState};
use super::{State, StateError};
use crate::lsn::EndLsn;
use crate::sql::TableName;

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
    /// waiting → copying: rows of it may be on the target from now on.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn begin_table(&self, table: &TableName) -> Result<Step, StateError> {
        self.step(table, "state = 'copying'", "state = 'waiting'", "begin a table").await
    }

    /// copying → waiting; run it in the transaction that empties the table.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn reset_table(&self, table: &TableName) -> Result<Step, StateError> {
        let set = "state = 'waiting', rows = 0, bytes = 0, snapshot_lsn = NULL";
        self.step(table, set, "state = 'copying'", "begin a table anew").await
    }

    /// indexing → ready.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn table_ready(&self, table: &TableName) -> Result<Step, StateError> {
        self.step(table, "state = 'ready'", "state IN ('indexing', 'ready')", "record that a table is ready").await
    }

    /// indexing → joining: complete as of its snapshot, the stream has yet to
    /// take it up.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn table_joining(&self, table: &TableName) -> Result<Step, StateError> {
        self.step(table, "state = 'joining'", "state = 'indexing'", "record that a table is to join").await
    }

    /// joining → ready, all of these: they hold every commit before `point`,
    /// where the stream takes them up. Says how many there were; run it in the
    /// transaction that forgets the second stream's position.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn tables_joined(&self, tables: &[TableName], point: EndLsn) -> Result<u64, StateError> {
        let (schemas, names) = columns(tables);
        self.execute(
            "UPDATE walferry.tables t SET state = 'ready', snapshot_lsn = $4, changed_at = pg_catalog.clock_timestamp() \
             FROM unnest($2::text[], $3::text[]) AS these (schema, name) \
             WHERE t.migration = $1 AND t.schema = these.schema AND t.name = these.name AND t.state = 'joining'",
            &[&self.name(), &schemas, &names, &point.0],
            "record that the tables have joined",
        )
        .await
    }

    /// Any → waiting, all of these; run it in the transaction that empties them.
    /// Says how many there were.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn tables_anew(&self, tables: &[TableName]) -> Result<u64, StateError> {
        let (schemas, names) = columns(tables);
        self.execute(
            "UPDATE walferry.tables t SET state = 'waiting', rows = 0, bytes = 0, snapshot_lsn = NULL, \
                 target_oid = pg_catalog.to_regclass(pg_catalog.format('%I.%I', t.schema, t.name))::oid, \
                 changed_at = pg_catalog.clock_timestamp() \
             FROM unnest($2::text[], $3::text[]) AS these (schema, name) \
             WHERE t.migration = $1 AND t.schema = these.schema AND t.name = these.name",
            &[&self.name(), &schemas, &names],
            "record that the tables are copied anew",
        )
        .await
    }

    /// Takes a table out of the list again, if nothing of it has been copied.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn forget_table(&self, table: &TableName) -> Result<(), StateError> {
        self.execute(
            "DELETE FROM walferry.tables WHERE migration = $1 AND schema = $2 AND name = $3 AND state = 'waiting'",
            &[&self.name(), &table.schema, &table.name],
            "forget a table",
        )
        .await?;
        Ok(())
    }

    /// → excluded: the filter leaves it out by now.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn exclude_table(&self, table: &TableName) -> Result<Step, StateError> {
        let set = "state = 'excluded', rows = 0, bytes = 0, snapshot_lsn = NULL";
        self.step(table, set, "state = 'waiting'", "leave a table out").await
    }

    /// The state of a table, held until the end of the caller's transaction.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub async fn hold_table(&self, table: &TableName) -> Result<Option<TableState>, StateError> {
        let sql = "SELECT state FROM walferry.tables WHERE migration = $1 AND schema = $2 AND name = $3 FOR UPDATE";
        let rows = self.query(sql, &[&self.name(), &table.schema, &table.name], "read a table's state").await?;
        rows.first().map(|row| TableState::parse(row.get(0))).transpose()
    }

    /// How much of a table has been copied so far, for those who watch.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn record_progress(&self, table: &TableName, rows: i64, bytes: i64) -> Result<(), StateError> {
        self.execute(
            "UPDATE walferry.tables SET rows = $4, bytes = $5, changed_at = pg_catalog.clock_timestamp() \
             WHERE migration = $1 AND schema = $2 AND name = $3 AND state = 'copying'",
            &[&self.name(), &table.schema, &table.name, &rows, &bytes],
            "record a table's progress",
        )
        .await?;
        Ok(())
    }

    /// copying → indexing: all rows are there, as of the row's `snapshot_lsn`;
    /// run it in the transaction of the (last) rows. `how` is the journal's line.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn rows_copied(&self, row: &TableRow, how: &str) -> Result<Step, StateError> {
        let journaled = self
            .execute(
                "WITH moved AS (UPDATE walferry.tables SET state = 'indexing', rows = $4, bytes = $5, snapshot_lsn = $6, \
                     changed_at = pg_catalog.clock_timestamp() \
                     WHERE migration = $1 AND schema = $2 AND name = $3 AND state = 'copying' RETURNING 1) \
                 INSERT INTO walferry.journal (migration, what) SELECT $1, $7 FROM moved",
                &[
                    &self.name(), &row.table.schema, &row.table.name, &row.rows, &row.bytes,
                    &row.snapshot_lsn.map(|lsn| lsn.0), &how,
                ],
                "record that a table's rows are there",
            )
            .await?;
        Ok(Step::of(journaled))
    }

    /// → ready: the source dropped it before its rows were copied, so as of
    /// `point` it has none.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn table_gone(&self, table: &TableName, point: EndLsn) -> Result<Step, StateError> {
        let affected = self
            .execute(
                "UPDATE walferry.tables SET state = 'ready', rows = 0, bytes = 0, snapshot_lsn = $4, \
                 changed_at = pg_catalog.clock_timestamp() \
                 WHERE migration = $1 AND schema = $2 AND name = $3 AND state IN ('waiting', 'copying')",
                &[&self.name(), &table.schema, &table.name, &point.0],
                "record that a table is gone",
            )
            .await?;
        Ok(Step::of(affected))
    }

    /// waiting → ready, all of them: their rows were restored by other means, as
    /// of `point`. Says how many there are.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn tables_restored(&self, point: EndLsn) -> Result<u64, StateError> {
        self.execute(
            "UPDATE walferry.tables SET state = 'ready', snapshot_lsn = $2, changed_at = pg_catalog.clock_timestamp() \
             WHERE migration = $1 AND state = 'waiting'",
            &[&self.name(), &point.0],
            "record that the rows are there",
        )
        .await
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

    async fn step(&self, table: &TableName, set: &str, from: &str, action: &str) -> Result<Step, StateError> {
        let sql = format!(
            "UPDATE walferry.tables SET {set}, changed_at = pg_catalog.clock_timestamp() \
             WHERE migration = $1 AND schema = $2 AND name = $3 AND {from}"
        );
        Ok(Step::of(self.execute(&sql, &[&self.name(), &table.schema, &table.name], action).await?))
    }
}

/// Schemas and names, for `unnest`.
fn columns(tables: &[TableName]) -> (Vec<&str>, Vec<&str>) {
    tables.iter().map(|table| (table.schema.as_str(), table.name.as_str())).unzip()
}
