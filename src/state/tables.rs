//! The tables of the migration: how far each is, and the LSN its copy stands for.

use super::{State, StateError};
use crate::lsn::{EndLsn, Lsn};
use crate::sql::TableName;

/// How far a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableState {
    /// Not begun.
    Waiting,
    /// Rows are being copied.
    Copying,
    /// Rows are there, indexes are being built.
    Indexing,
    /// Copied beside the stream: complete as of its snapshot, and not yet taken
    /// up by the stream.
    Joining,
    /// Complete; the stream keeps it so.
    Ready,
    /// The operator's filter leaves it out.
    Excluded,
}

impl TableState {
    /// The word in the state and in the status document.
    pub fn as_str(self) -> &'static str {
        match self {
            TableState::Waiting => "waiting",
            TableState::Copying => "copying",
            TableState::Indexing => "indexing",
            TableState::Joining => "joining",
            TableState::Ready => "ready",
            TableState::Excluded => "excluded",
        }
    }

    pub(super) fn parse(word: &str) -> Result<Self, StateError> {
        Ok(match word {
            "waiting" => TableState::Waiting,
            "copying" => TableState::Copying,
            "indexing" => TableState::Indexing,
            "joining" => TableState::Joining,
            "ready" => TableState::Ready,
            "excluded" => TableState::Excluded,
            other => return Err(StateError::Foreign(format!("unknown table state \"{other}\""))),
        })
    }
}

/// A row of `walferry.tables`.
#[derive(Clone, Debug)]
pub struct TableRow {
    /// Schema and name on the source.
    pub table: TableName,
    /// Its oid on the source: tells a table that was there at the snapshot from
    /// one of the same name that was created later.
    pub source_oid: u32,
    /// How far it is.
    pub state: TableState,
    /// Rows copied.
    pub rows: i64,
    /// Bytes of COPY data.
    pub bytes: i64,
    /// Its rows were copied as of this point; changes before it are passed over.
    pub snapshot_lsn: Option<EndLsn>,
}

impl TableRow {
    /// Whether its rows are not all there, or not up to the stream, though they
    /// are to be.
    pub fn is_unfinished(&self) -> bool {
        !matches!(self.state, TableState::Ready | TableState::Excluded)
    }
}

impl State {
    /// Replaces the list of tables: all `waiting` or `excluded`, nothing copied.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn register_tables(&self, tables: &[TableRow]) -> Result<(), StateError> {
        self.execute("DELETE FROM walferry.tables WHERE migration = $1", &[&self.name()], "clear the list of tables")
            .await?;
        let schemas: Vec<&str> = tables.iter().map(|t| t.table.schema.as_str()).collect();
        let names: Vec<&str> = tables.iter().map(|t| t.table.name.as_str()).collect();
        let oids: Vec<u32> = tables.iter().map(|t| t.source_oid).collect();
        let states: Vec<&str> = tables.iter().map(|t| t.state.as_str()).collect();
        self.execute(
            "INSERT INTO walferry.tables (migration, schema, name, source_oid, state, target_oid) \
             SELECT $1, schema, name, oid, state, pg_catalog.to_regclass(pg_catalog.format('%I.%I', schema, name))::oid \
             FROM unnest($2::text[], $3::text[], $4::oid[], $5::text[]) AS t (schema, name, oid, state)",
            &[&self.name(), &schemas, &names, &oids, &states],
            "write the list of tables",
        )
        .await?;
        Ok(())
    }

    /// All tables of the migration, excluded ones too, by name.
    ///
    /// # Errors
    /// When the rows cannot be read or understood.
    pub async fn tables(&self) -> Result<Vec<TableRow>, StateError> {
        self.list("").await
    }

    /// The same, once every transaction that has changed one of the rows has
    /// come to its end: also one of ours whose answer was lost.
    ///
    /// # Errors
    /// When the rows cannot be read or understood.
    pub async fn tables_settled(&self) -> Result<Vec<TableRow>, StateError> {
        self.list("FOR SHARE").await
    }

    async fn list(&self, lock: &str) -> Result<Vec<TableRow>, StateError> {
        let sql = format!("SELECT * FROM walferry.tables WHERE migration = $1 ORDER BY schema, name {lock}");
        let rows = self.query(&sql, &[&self.name()], "read the list of tables").await?;
        rows.iter()
            .map(|row| {
                Ok(TableRow {
                    table: TableName::new(row.get::<_, &str>("schema"), row.get::<_, &str>("name")),
                    source_oid: row.get("source_oid"),
                    state: TableState::parse(row.get("state"))?,
                    rows: row.get("rows"),
                    bytes: row.get("bytes"),
                    snapshot_lsn: row.get::<_, Option<Lsn>>("snapshot_lsn").map(EndLsn),
                })
            })
            .collect()
    }

    /// Moves a table on, with what has been copied so far.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn update_table(&self, row: &TableRow) -> Result<(), StateError> {
        self.execute(
            "UPDATE walferry.tables SET state = $4, rows = $5, bytes = $6, snapshot_lsn = $7, changed_at = pg_catalog.clock_timestamp() \
             WHERE migration = $1 AND schema = $2 AND name = $3",
            &[
                &self.name(), &row.table.schema, &row.table.name, &row.state.as_str(), &row.rows, &row.bytes,
                &row.snapshot_lsn.map(|lsn| lsn.0),
            ],
            "record a table's progress",
        )
        .await?;
        Ok(())
    }

    /// Takes in a table that appeared after the snapshot, or replaces the row
    /// of one that was dropped and created again.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn adopt_table(&self, row: &TableRow) -> Result<(), StateError> {
        self.execute(
            "INSERT INTO walferry.tables (migration, schema, name, source_oid, state, snapshot_lsn, target_oid) \
             VALUES ($1, $2, $3, $4, $5, $6, pg_catalog.to_regclass(pg_catalog.format('%I.%I', $2::text, $3::text))::oid) \
             ON CONFLICT (migration, schema, name) DO UPDATE SET source_oid = excluded.source_oid, state = excluded.state, \
             target_oid = excluded.target_oid, \
             snapshot_lsn = excluded.snapshot_lsn, rows = 0, bytes = 0",
            &[
                &self.name(), &row.table.schema, &row.table.name, &row.source_oid, &row.state.as_str(),
                &row.snapshot_lsn.map(|lsn| lsn.0),
            ],
            "take in a table",
        )
        .await?;
        Ok(())
    }

    /// Follows a table that has a new name on both sides.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn rename_table(&self, from: &TableName, to: &TableName) -> Result<(), StateError> {
        self.execute(
            "UPDATE walferry.tables SET schema = $4, name = $5 WHERE migration = $1 AND schema = $2 AND name = $3",
            &[&self.name(), &from.schema, &from.name, &to.schema, &to.name],
            "record a table's new name",
        )
        .await?;
        Ok(())
    }

    /// The present name of the target's table that this one was copied to;
    /// `None` when it is no longer there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn target_name(&self, table: &TableName) -> Result<Option<TableName>, StateError> {
        let rows = self
            .query(
                "SELECT n.nspname::text, c.relname::text FROM walferry.tables t \
                 JOIN pg_catalog.pg_class c ON c.oid = t.target_oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE t.migration = $1 AND t.schema = $2 AND t.name = $3",
                &[&self.name(), &table.schema, &table.name],
                "look for a table's new name",
            )
            .await?;
        Ok(rows.first().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))))
    }
}
