//! What the sweeps know: the sequences as of the last pass, and which large
//! objects on the target are the migration's own.
//!
//! Invariant: a large object's row in `walferry.large_object_oids` is written
//! in the transaction that creates the object ([`OWN_LARGE_OBJECTS_SQL`]), so
//! an object of ours is never taken for somebody else's.

use super::{State, StateError};
use crate::sql::TableName;

/// Enters large objects as the migration's own; run it in the transaction that
/// creates them. Parameters: migration, oid[].
pub const OWN_LARGE_OBJECTS_SQL: &str = "INSERT INTO walferry.large_object_oids (migration, oid) \
    SELECT $1, o FROM unnest($2::oid[]) o ON CONFLICT (migration, oid) DO NOTHING";

/// Forgets large objects; run it in the transaction that unlinks them.
/// Parameters: migration, oid[].
pub const DISOWN_LARGE_OBJECTS_SQL: &str =
    "DELETE FROM walferry.large_object_oids WHERE migration = $1 AND oid = ANY ($2::oid[])";

/// A row of `walferry.sequences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceRow {
    /// Schema and name on the source.
    pub sequence: TableName,
    /// The source's `last_value` and `is_called`; `None` if it cannot be read.
    pub value: Option<(i64, bool)>,
    /// Whether the target could not be brought to it.
    pub behind: bool,
}

/// Counts over a kind of swept object, for the status document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SweepCounts {
    /// Objects as of the last pass.
    pub total: i64,
    /// Of these, not equal to the source after the last pass.
    pub behind: i64,
    /// When the last pass ended, ISO 8601 in UTC; `None` before the first.
    pub last_pass: Option<String>,
}

/// SQL that renders a timestamptz expression as ISO 8601 in UTC, milliseconds.
pub(crate) fn iso8601_sql(expression: &str) -> String {
    format!("pg_catalog.to_char({expression} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')")
}

impl State {
    /// Replaces the record of the sequences with that of a pass that just ended.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn record_sequences(&self, rows: &[SequenceRow]) -> Result<(), StateError> {
        let schemas: Vec<&str> = rows.iter().map(|r| r.sequence.schema.as_str()).collect();
        let names: Vec<&str> = rows.iter().map(|r| r.sequence.name.as_str()).collect();
        let values: Vec<Option<i64>> = rows.iter().map(|r| r.value.map(|v| v.0)).collect();
        let called: Vec<Option<bool>> = rows.iter().map(|r| r.value.map(|v| v.1)).collect();
        let behind: Vec<bool> = rows.iter().map(|r| r.behind).collect();
        self.execute(
            "WITH pass AS (SELECT * FROM unnest($2::text[], $3::text[], $4::bigint[], $5::boolean[], $6::boolean[]) \
                 AS p (schema, name, last_value, is_called, behind)), \
             gone AS (DELETE FROM walferry.sequences s WHERE s.migration = $1 \
                 AND NOT EXISTS (SELECT FROM pass p WHERE p.schema = s.schema AND p.name = s.name)) \
             INSERT INTO walferry.sequences (migration, schema, name, last_value, is_called, behind) \
             SELECT $1, * FROM pass ON CONFLICT (migration, schema, name) DO UPDATE SET last_value = excluded.last_value, \
             is_called = excluded.is_called, behind = excluded.behind, synced_at = pg_catalog.clock_timestamp()",
            &[&self.name(), &schemas, &names, &values, &called, &behind],
            "record the sequences",
        )
        .await?;
        Ok(())
    }

    /// Counts the sequences as of the last pass.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn sequence_counts(&self) -> Result<SweepCounts, StateError> {
        let sql = format!(
            "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE behind), {} FROM walferry.sequences WHERE migration = $1",
            iso8601_sql("pg_catalog.max(synced_at)")
        );
        self.counts(&sql, "count the sequences").await
    }

    /// Counts the large objects as of the last pass.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub async fn large_object_counts(&self) -> Result<SweepCounts, StateError> {
        let sql = format!(
            "SELECT total, 0::bigint, {} FROM walferry.large_objects WHERE migration = $1",
            iso8601_sql("last_pass")
        );
        self.counts(&sql, "count the large objects").await
    }

    async fn counts(&self, sql: &str, action: &str) -> Result<SweepCounts, StateError> {
        let rows = self.query(sql, &[&self.name()], action).await?;
        Ok(rows
            .first()
            .map(|row| SweepCounts { total: row.get(0), behind: row.get(1), last_pass: row.get(2) })
            .unwrap_or_default())
    }

    /// Records what a pass over the large objects found: how many, and their
    /// bytes on the source.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn record_large_objects(&self, total: i64, bytes: i64) -> Result<(), StateError> {
        self.execute(
            "INSERT INTO walferry.large_objects (migration, total, bytes) VALUES ($1, $2, $3) \
             ON CONFLICT (migration) DO UPDATE SET total = excluded.total, bytes = excluded.bytes, \
             last_pass = pg_catalog.clock_timestamp()",
            &[&self.name(), &total, &bytes],
            "record the large objects",
        )
        .await?;
        Ok(())
    }

    /// Whether the migration has carried large objects before. If it has not,
    /// objects on the target are a baseline restored by other means, or in the way.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub async fn has_large_object_record(&self) -> Result<bool, StateError> {
        let rows = self
            .query(
                "SELECT FROM walferry.large_objects WHERE migration = $1",
                &[&self.name()],
                "look for the record of the large objects",
            )
            .await?;
        Ok(!rows.is_empty())
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
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
