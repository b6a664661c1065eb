//! What the sweep of the sequences knows: their values as of the last pass.

use std::collections::{HashMap, HashSet};

use super::{State, StateError};
use crate::session::Row;
use crate::sql::TableName;

/// Whether all sequences that were there when the migration began are in the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listed {
    /// There was no pass, or the passes were those of a version that knew them by name.
    #[default]
    NotYet,
    /// They are.
    Wholly,
}

/// What is recorded of the counterparts of sequences.
#[derive(Clone, Debug, Default)]
pub struct SequencePairs {
    /// The migration's: the target's oids by the source's. Of what the source has no more
    /// as well, for as long as the target has it.
    pub own: HashMap<u32, u32>,
    /// The source's oids of those that are of the migration still.
    pub members: HashSet<u32>,
    /// Those of the other migrations with this target: their names by the target's oids.
    pub anothers: HashMap<u32, String>,
    /// Whether one that is in no pair came later than the migration began.
    pub listed: Listed,
}

/// A row of `walferry.sequences`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceRow {
    /// Schema and name on the source.
    pub sequence: TableName,
    /// Its oid there, by which one that was renamed is known.
    pub source_oid: u32,
    /// The oid of its counterpart on the target, as last known.
    pub target_oid: Option<u32>,
    /// The source's `last_value` and `is_called`; `None` if it cannot be read.
    pub value: Option<(i64, bool)>,
    /// Whether the target could not be brought to it.
    pub behind: bool,
    /// What is wrong with it, and what to do; `None` if nothing is.
    pub problem: Option<String>,
}

impl SequenceRow {
    /// One that is of the migration no more: no schema has an empty name, so it is in nobody's
    /// way, and neither counted nor said. What it was the counterpart of is known by it.
    pub fn former(source_oid: u32, target_oid: u32) -> Self {
        let sequence = TableName::new("", target_oid.to_string());
        let target_oid = Some(target_oid);
        SequenceRow { sequence, source_oid, target_oid, value: None, behind: false, problem: None }
    }
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
    /// Replaces the record of the sequences with that of a pass that just ended;
    /// only rows that change are written. The names that are in it no more, with the source's oids.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn record_sequences(&self, rows: &[SequenceRow]) -> Result<Vec<(TableName, Option<u32>)>, StateError> {
        let schemas: Vec<&str> = rows.iter().map(|r| r.sequence.schema.as_str()).collect();
        let names: Vec<&str> = rows.iter().map(|r| r.sequence.name.as_str()).collect();
        let source_oids: Vec<u32> = rows.iter().map(|r| r.source_oid).collect();
        let target_oids: Vec<Option<u32>> = rows.iter().map(|r| r.target_oid).collect();
        let values: Vec<Option<i64>> = rows.iter().map(|r| r.value.map(|v| v.0)).collect();
        let called: Vec<Option<bool>> = rows.iter().map(|r| r.value.map(|v| v.1)).collect();
        let behind: Vec<bool> = rows.iter().map(|r| r.behind).collect();
        let problems: Vec<Option<&str>> = rows.iter().map(|r| r.problem.as_deref()).collect();
        let gone = self
            .query(
                "WITH pass AS (SELECT * FROM unnest($2::text[], $3::text[], $4::oid[], $5::oid[], $6::bigint[], $7::boolean[], \
                     $8::boolean[], $9::text[]) AS p (schema, name, source_oid, target_oid, last_value, is_called, behind, problem)), \
                 gone AS (DELETE FROM walferry.sequences s WHERE s.migration = $1 \
                     AND NOT EXISTS (SELECT FROM pass p WHERE p.schema = s.schema AND p.name = s.name) \
                     RETURNING s.schema, s.name, s.source_oid), \
                 written AS (INSERT INTO walferry.sequences AS s \
                     (migration, schema, name, source_oid, target_oid, last_value, is_called, behind, problem) \
                     SELECT $1, * FROM pass ON CONFLICT (migration, schema, name) DO UPDATE SET source_oid = excluded.source_oid, \
                     target_oid = excluded.target_oid, last_value = excluded.last_value, is_called = excluded.is_called, \
                     behind = excluded.behind, problem = excluded.problem, synced_at = pg_catalog.clock_timestamp() \
                     WHERE (s.source_oid, s.target_oid, s.last_value, s.is_called, s.behind, s.problem) IS DISTINCT FROM \
                     (excluded.source_oid, excluded.target_oid, excluded.last_value, excluded.is_called, excluded.behind, excluded.problem)), \
                 seen AS (UPDATE walferry.migration SET sequences_at = pg_catalog.clock_timestamp() WHERE name = $1) \
                 SELECT g.schema, g.name, g.source_oid FROM gone g WHERE g.schema <> '' \
                     AND NOT EXISTS (SELECT FROM pass p WHERE p.source_oid = g.source_oid AND p.schema <> '')",
                &[&self.name(), &schemas, &names, &source_oids, &target_oids, &values, &called, &behind, &problems],
                "record the sequences",
            )
            .await?;
        gone.iter().map(|row| Ok((name(row)?, row.take(2)?))).collect()
    }

    /// Replaces the record of the sequences with these: name and oid on the source, and the
    /// counterpart's oid. Their values are not known yet.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn pair_sequences(&self, pairs: &[(&TableName, u32, u32)]) -> Result<(), StateError> {
        let schemas: Vec<&str> = pairs.iter().map(|(name, ..)| name.schema.as_str()).collect();
        let names: Vec<&str> = pairs.iter().map(|(name, ..)| name.name.as_str()).collect();
        let source_oids: Vec<u32> = pairs.iter().map(|(_, oid, _)| *oid).collect();
        let target_oids: Vec<u32> = pairs.iter().map(|(.., oid)| *oid).collect();
        self.execute(
            "DELETE FROM walferry.sequences WHERE migration = $1",
            &[&self.name()],
            "clear the list of sequences",
        )
        .await?;
        self.execute(
            "INSERT INTO walferry.sequences (migration, schema, name, source_oid, target_oid) \
             SELECT $1, * FROM unnest($2::text[], $3::text[], $4::oid[], $5::oid[])",
            &[&self.name(), &schemas, &names, &source_oids, &target_oids],
            "pair the sequences",
        )
        .await?;
        Ok(())
    }

    /// Which sequences are paired, as of the copy and earlier passes.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn sequence_pairs(&self) -> Result<SequencePairs, StateError> {
        let sql = "SELECT m.name, m.sequences_at IS NOT NULL, s.migration IS NOT NULL, s.source_oid, s.target_oid, coalesce(s.schema <> '', false) \
             FROM walferry.migration m LEFT JOIN walferry.sequences s ON s.migration = m.name";
        let mut found = SequencePairs::default();
        let (mut is_listed, mut is_without_oid) = (false, false);
        for row in &self.query(sql, &[], "read the sequences' counterparts").await? {
            let (migration, is_row): (&str, bool) = (row.take(0)?, row.take(2)?);
            let (ours, theirs): (Option<u32>, Option<u32>) = (row.take(3)?, row.take(4)?);
            if migration == self.name() {
                is_listed |= is_row || row.take(1)?;
                is_without_oid |= is_row && ours.is_none();
                found.own.extend(ours.zip(theirs));
                found.members.extend(if row.take(5)? { ours.filter(|_| theirs.is_some()) } else { None });
            } else {
                found.anothers.extend(theirs.map(|oid| (oid, migration.to_owned())));
            }
        }
        found.listed = if is_listed && !is_without_oid { Listed::Wholly } else { Listed::NotYet };
        Ok(found)
    }

    /// Records that these are of the migration no more ([`SequenceRow::former`]), by the
    /// source's oids.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn let_go_of_sequences(&self, source_oids: &[u32]) -> Result<(), StateError> {
        let sql = "UPDATE walferry.sequences SET schema = '', name = target_oid::text, behind = false, problem = NULL \
             WHERE migration = $1 AND source_oid = ANY ($2::oid[]) AND target_oid IS NOT NULL";
        self.execute(sql, &[&self.name(), &source_oids], "let go of sequences").await?;
        Ok(())
    }

    /// The sequences with a problem as of the last pass, at most `limit`: those
    /// that are behind first.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn sequence_problems(&self, limit: i64) -> Result<Vec<(TableName, bool, String)>, StateError> {
        let sql = "SELECT schema, name, behind, coalesce(problem, 'is not equal') FROM walferry.sequences \
             WHERE migration = $1 AND (behind OR problem IS NOT NULL) ORDER BY behind DESC, schema, name LIMIT $2";
        let rows = self.query(sql, &[&self.name(), &limit], "read the sequences' problems").await?;
        rows.iter().map(|row| Ok((name(row)?, row.take(2)?, row.take(3)?))).collect()
    }

    /// Counts the sequences as of the last pass.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn sequence_counts(&self) -> Result<SweepCounts, StateError> {
        let sql = format!(
            "SELECT pg_catalog.count(s.name), pg_catalog.count(*) FILTER (WHERE s.behind), {} \
             FROM walferry.migration m LEFT JOIN walferry.sequences s ON s.migration = m.name AND s.schema <> '' \
             WHERE m.name = $1 GROUP BY m.sequences_at",
            // A migration of version 1 has the rows' times only.
            iso8601_sql("coalesce(m.sequences_at, pg_catalog.max(s.synced_at))")
        );
        self.counts(&sql, "count the sequences").await
    }

    async fn counts(&self, sql: &str, action: &str) -> Result<SweepCounts, StateError> {
        let rows = self.query(sql, &[&self.name()], action).await?;
        let Some(row) = rows.first() else { return Ok(SweepCounts::default()) };
        Ok(SweepCounts { total: row.take(0)?, behind: row.take(1)?, last_pass: row.take(2)? })
    }
}

/// A name in the first two columns.
fn name(row: &Row) -> Result<TableName, StateError> {
    Ok(TableName::new(row.take::<String>(0)?, row.take::<String>(1)?))
}
