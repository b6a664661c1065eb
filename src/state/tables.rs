//! The tables of the migration: which take part, how far each is, and the LSN its
//! copy stands for.
//!
//! Invariant: a table is known by its oid on the source, whatever its name is by
//! now; who takes part is decided in [`crate::membership`] and kept here.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::copying::Attempt;
use super::places::Former;
use super::{State, StateError};
use crate::catalog::named::oid_of;
use crate::catalog::types::ColumnType;
use crate::lsn::{EndLsn, Lsn};
use crate::session::Row;
use crate::sql::{TableName, literal};
use crate::words::worded;

/// How far a table is, or why it has no stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
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
    /// An extension's own: CREATE EXTENSION makes it on the target.
    Extension,
    /// Unlogged: its rows are in no stream, and copied at the end.
    Unlogged,
    /// Its rows come with those of other tables: with its partitions', or, of a
    /// partition, in the name of its root.
    Within,
}

worded!(TableState, "table state", [
    Waiting => "waiting",
    Copying => "copying",
    Indexing => "indexing",
    Joining => "joining",
    Ready => "ready",
    Excluded => "excluded",
    Extension => "extension",
    Unlogged => "unlogged",
    Within => "within",
]);

impl TableState {
    /// The states that tables with a stream go through.
    pub fn streamed() -> impl Iterator<Item = TableState> {
        TableState::all().filter(|state| state.is_streamed())
    }

    /// Its word, or those of several, as SQL compares a table's state with them.
    pub(super) fn sql<const N: usize>(states: [TableState; N]) -> String {
        states.map(|state| literal(state.as_str())).join(", ")
    }

    /// Whether its rows are copied, and its changes come in its own name.
    pub fn is_streamed(self) -> bool {
        match self {
            TableState::Waiting
            | TableState::Copying
            | TableState::Indexing
            | TableState::Joining
            | TableState::Ready => true,
            TableState::Excluded | TableState::Extension | TableState::Unlogged | TableState::Within => false,
        }
    }

    /// Whether it takes part in the migration, with a stream or without.
    pub fn takes_part(self) -> bool {
        self.is_streamed() || matches!(self, TableState::Unlogged | TableState::Within)
    }
}

/// A column of the source and its counterpart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Its number on the source (`pg_attribute.attnum`).
    pub ours: i16,
    /// The counterpart's.
    pub theirs: i16,
    /// Its type on the source below all domains when the two were paired;
    /// [`Pair::computed`] where the source computed it, [`Pair::COMPUTED_THERE`] where only the
    /// target did.
    pub was: ColumnType,
}

impl Pair {
    /// No type: of a column that was GENERATED ALWAYS AS this expression on the source, and as
    /// that one on the target, if there, too.
    pub fn computed(ours: &str, theirs: Option<&str>) -> ColumnType {
        let theirs = theirs.map_or_else(String::new, |theirs| format!("\0{theirs}"));
        let digest = Sha256::digest(format!("{ours}{theirs}"));
        let digest = digest.first_chunk().map_or(0, |first| i32::from_be_bytes(*first));
        ColumnType { oid: 0, modifier: digest & i32::MAX }
    }

    /// No type: of a column that the target computed, and the source did not, so that it has
    /// nothing of the source's values.
    pub const COMPUTED_THERE: ColumnType = ColumnType { oid: 0, modifier: -2 };

    /// Whether this is of a column that the source computed.
    pub fn is_computed(was: ColumnType) -> bool {
        was.oid == 0 && was != Pair::COMPUTED_THERE
    }

    /// Whether it says by which expression.
    pub fn is_known(was: ColumnType) -> bool {
        was.modifier >= 0
    }
}

/// Which column of a table is which of its counterpart, by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// The counterpart: the numbers are this table's, and no other's of its name.
    pub of: u32,
    /// The columns.
    pub pairs: Vec<Pair>,
    /// What it belonged to on the source when it was copied first.
    pub formerly: Former,
    /// The highest number of a column on the source, then.
    pub last: Option<i16>,
}

impl Pairs {
    /// Those that are about this table of the target.
    pub fn with(&self, table: u32) -> &[Pair] {
        if self.of == table { &self.pairs } else { &[] }
    }
}

/// A row of `walferry.tables`.
#[derive(Clone, Debug)]
pub struct TableRow {
    /// Schema and name: those of the target's table, and of the source's but for
    /// the time between a rename there and here.
    pub table: TableName,
    /// Its oid on the source, by which it is known.
    pub source_oid: u32,
    /// How far it is.
    pub state: TableState,
    /// Rows copied.
    pub rows: i64,
    /// Bytes of COPY data.
    pub bytes: i64,
    /// Its rows were copied as of this point; changes before it are passed over.
    pub snapshot_lsn: Option<EndLsn>,
    /// What it was on the source when its rows were read.
    pub origin: Origin,
    /// What makes the two sides differ, as last looked at.
    pub problem: Option<String>,
    /// Which attempt at its copy is or was at it.
    pub attempt: Attempt,
}

/// By what a change of a table is noticed that no stream tells of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its file (`pg_class.relfilenode`): another one when the table was
    /// rewritten or emptied.
    pub filenode: Option<u32>,
    /// What it is published by: other words when it was taken out of the
    /// publication and put back.
    pub via: Option<String>,
}

impl Origin {
    /// No table's file (a partitioned one has 0): the rows are to be compared, as there
    /// are columns since the copy.
    pub const COLUMNS_CAME: u32 = u32::MAX;
}

impl TableRow {
    /// A table of which nothing is copied.
    pub fn new(table: TableName, source_oid: u32, state: TableState) -> Self {
        let (origin, problem, attempt) = (Origin::default(), None, Attempt::NONE);
        TableRow { table, source_oid, state, rows: 0, bytes: 0, snapshot_lsn: None, origin, problem, attempt }
    }

    /// Whether its rows are not all there, or not up to the stream, though they
    /// are to be.
    pub fn is_unfinished(&self) -> bool {
        self.state.is_streamed() && self.state != TableState::Ready
    }
}

impl State {
    /// Replaces the list of tables; nothing is copied.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn register_tables(&self, tables: &[TableRow]) -> Result<(), StateError> {
        self.execute("DELETE FROM walferry.tables WHERE migration = $1", &[&self.name()], "clear the list of tables")
            .await?;
        self.enter_tables(tables).await
    }

    /// Enters tables, each in its state, or replaces their rows; nothing of them
    /// is copied.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn enter_tables(&self, tables: &[TableRow]) -> Result<(), StateError> {
        let schemas: Vec<&str> = tables.iter().map(|t| t.table.schema.as_str()).collect();
        let names: Vec<&str> = tables.iter().map(|t| t.table.name.as_str()).collect();
        let oids: Vec<u32> = tables.iter().map(|t| t.source_oid).collect();
        let states: Vec<&str> = tables.iter().map(|t| t.state.as_str()).collect();
        let points: Vec<Option<Lsn>> = tables.iter().map(|t| t.snapshot_lsn.map(|lsn| lsn.lsn())).collect();
        let files: Vec<Option<u32>> = tables.iter().map(|t| t.origin.filenode).collect();
        let vias: Vec<Option<&str>> = tables.iter().map(|t| t.origin.via.as_deref()).collect();
        self.execute(
            &format!("INSERT INTO walferry.tables (migration, schema, name, source_oid, state, snapshot_lsn, filenode, via, target_oid) \
             SELECT $1, schema, name, oid, state, point, filenode, via, {} \
             FROM unnest($2::text[], $3::text[], $4::oid[], $5::text[], $6::pg_lsn[], $7::oid[], $8::text[]) \
                 AS t (schema, name, oid, state, point, filenode, via) \
             ON CONFLICT (migration, source_oid) DO UPDATE SET schema = excluded.schema, name = excluded.name, \
                 state = excluded.state, target_oid = excluded.target_oid, snapshot_lsn = excluded.snapshot_lsn, rows = 0, \
                 bytes = 0, filenode = excluded.filenode, via = excluded.via, problem = NULL, \
                 source_columns = NULL, target_columns = NULL, source_types = NULL, source_modifiers = NULL, columns_of = NULL, parents = NULL, bounds = NULL, last_column = NULL, \
                 changed_at = pg_catalog.clock_timestamp()", oid_of("t.schema", "t.name")),
            &[&self.name(), &schemas, &names, &oids, &states, &points, &files, &vias],
            "write the list of tables",
        )
        .await?;
        Ok(())
    }

    /// All tables of the migration, those without a stream of their own, too, by
    /// name.
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
        let sql =
            format!("SELECT * FROM walferry.tables WHERE migration = $1 ORDER BY schema, name, source_oid {lock}");
        let rows = self.query(&sql, &[&self.name()], "read the list of tables").await?;
        rows.iter()
            .map(|row| {
                Ok(TableRow {
                    table: TableName::new(row.take::<&str>("schema")?, row.take::<&str>("name")?),
                    source_oid: row.take("source_oid")?,
                    state: TableState::parse(row.take("state")?)?,
                    rows: row.take("rows")?,
                    bytes: row.take("bytes")?,
                    snapshot_lsn: row.take::<Option<Lsn>>("snapshot_lsn")?.map(EndLsn::recorded),
                    origin: Origin { filenode: row.take("filenode")?, via: row.take("via")? },
                    problem: row.take("problem")?,
                    attempt: Attempt(row.take("attempt")?),
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
            "UPDATE walferry.tables SET state = $3, rows = $4, bytes = $5, snapshot_lsn = $6, changed_at = pg_catalog.clock_timestamp() \
             WHERE migration = $1 AND source_oid = $2",
            &[
                &self.name(), &row.source_oid, &row.state.as_str(), &row.rows, &row.bytes,
                &row.snapshot_lsn.map(|lsn| lsn.lsn()),
            ],
            "record a table's progress",
        )
        .await?;
        Ok(())
    }

    /// Forgets tables that are on neither side any more.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn forget_tables(&self, source_oids: &[u32]) -> Result<(), StateError> {
        let sql = "DELETE FROM walferry.tables WHERE migration = $1 AND source_oid = ANY ($2::oid[])";
        self.execute(sql, &[&self.name(), &source_oids], "forget tables").await?;
        Ok(())
    }

    /// Forgets tables that the source has no more and whose table on the target is gone, or
    /// that of another by now, which takes part. `present` are all tables of the source.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn forget_displaced(&self, present: &[u32]) -> Result<(), StateError> {
        let others = TableState::sql([TableState::Excluded, TableState::Extension]);
        let sql = format!(
            "DELETE FROM walferry.tables o WHERE o.migration = $1 AND o.source_oid <> ALL ($2::oid[]) \
             AND (EXISTS (SELECT FROM walferry.tables n WHERE n.migration = $1 AND n.source_oid = ANY ($2::oid[]) \
             AND n.target_oid = o.target_oid AND n.state NOT IN ({others})) \
             OR NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = o.target_oid))"
        );
        self.execute(&sql, &[&self.name(), &present], "forget tables that others have replaced").await?;
        Ok(())
    }

    /// Follows a table that has a new name on both sides.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn rename_table(&self, source_oid: u32, to: &TableName) -> Result<(), StateError> {
        self.execute(
            "UPDATE walferry.tables SET schema = $3, name = $4 WHERE migration = $1 AND source_oid = $2",
            &[&self.name(), &source_oid, &to.schema, &to.name],
            "record a table's new name",
        )
        .await?;
        Ok(())
    }

    /// The present names of the target's tables that those of the source, by
    /// their oids there, were copied to; none for one that is no longer there.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn target_names(&self, source_oids: &[u32]) -> Result<HashMap<u32, TableName>, StateError> {
        let rows = self
            .query(
                "SELECT t.source_oid, n.nspname::text, c.relname::text FROM walferry.tables t \
                 JOIN pg_catalog.pg_class c ON c.oid = t.target_oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE t.migration = $1 AND t.source_oid = ANY ($2::oid[])",
                &[&self.name(), &source_oids],
                "look for the tables' present names",
            )
            .await?;
        let named = |row: &Row| Ok((row.take(0)?, TableName::new(row.take::<&str>(1)?, row.take::<&str>(2)?)));
        rows.iter().map(named).collect()
    }

    /// Which column of the source is which of the target, by table; nothing of tables
    /// that nobody has paired.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn column_pairs(&self, source_oids: &[u32]) -> Result<HashMap<u32, Pairs>, StateError> {
        let sql = "SELECT source_oid, columns_of, source_columns, target_columns, source_types, source_modifiers, \
                 coalesce(parents, '{}'), last_column, bounds FROM walferry.tables WHERE migration = $1 AND source_oid = ANY ($2::oid[]) AND columns_of IS NOT NULL";
        let rows = self.query(sql, &[&self.name(), &source_oids], "read the pairs of columns").await?;
        let pairs = |row: &Row| {
            let (ours, theirs): (Vec<i16>, Vec<i16>) = (row.take(2)?, row.take(3)?);
            let (oids, modifiers): (Vec<u32>, Vec<i32>) = (row.take(4)?, row.take(5)?);
            let types = oids.into_iter().zip(modifiers).map(|(oid, modifier)| ColumnType { oid, modifier });
            let pairs = ours.into_iter().zip(theirs).zip(types);
            let pairs = pairs.map(|((ours, theirs), was)| Pair { ours, theirs, was }).collect();
            Ok((
                row.take(0)?,
                Pairs {
                    of: row.take(1)?,
                    pairs,
                    formerly: Former { parents: row.take(6)?, bounds: row.take(8)? },
                    last: row.take(7)?,
                },
            ))
        };
        rows.iter().map(pairs).collect()
    }

    /// Records which column is which, in place of what was recorded of these tables, by
    /// their oids on the source.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn pair_columns(&self, tables: &[(u32, Pairs)]) -> Result<(), StateError> {
        let of_all = tables.iter().flat_map(|(oid, of)| of.pairs.iter().map(|pair| (*oid, of.of, *pair)));
        let (mut oids, mut of, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut types, mut modifiers) = (Vec::new(), Vec::new());
        for (oid, table, pair) in of_all {
            oids.push(oid);
            of.push(table);
            ours.push(pair.ours);
            theirs.push(pair.theirs);
            types.push(pair.was.oid);
            modifiers.push(pair.was.modifier);
        }
        // An array has no arrays of its own length.
        let list = |parents: &[u32]| parents.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let all: Vec<u32> = tables.iter().map(|(oid, _)| *oid).collect();
        let parents: Vec<String> = tables.iter().map(|(_, pairs)| list(&pairs.formerly.parents)).collect();
        let bounds: Vec<Option<&str>> = tables.iter().map(|(_, pairs)| pairs.formerly.bounds.as_deref()).collect();
        let last: Vec<Option<i16>> = tables.iter().map(|(_, pairs)| pairs.last).collect();
        self.execute(
            "UPDATE walferry.tables t SET parents = pg_catalog.string_to_array(p.parents, ',')::oid[], last_column = p.last, bounds = p.bounds, \
                 columns_of = c.of, source_columns = c.ours, target_columns = c.theirs, \
                 source_types = c.types, source_modifiers = c.modifiers \
             FROM unnest($8::oid[], $9::text[], $10::int2[], $11::text[]) AS p (oid, parents, last, bounds) LEFT JOIN ( \
                 SELECT oid, of, pg_catalog.array_agg(our ORDER BY our) AS ours, pg_catalog.array_agg(their ORDER BY our) AS theirs, \
                     pg_catalog.array_agg(kind ORDER BY our) AS types, pg_catalog.array_agg(modifier ORDER BY our) AS modifiers \
                 FROM unnest($2::oid[], $3::oid[], $4::int2[], $5::int2[], $6::oid[], $7::int4[]) \
                     AS u (oid, of, our, their, kind, modifier) GROUP BY oid, of) AS c ON c.oid = p.oid \
             WHERE t.migration = $1 AND t.source_oid = p.oid",
            &[&self.name(), &oids, &of, &ours, &theirs, &types, &modifiers, &all, &parents, &last, &bounds],
            "record the pairs of columns",
        )
        .await?;
        Ok(())
    }

    /// Records pairs that were met, and that the rows of some of the tables are to be
    /// compared; says whether there are any of these.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn keep_pairs(&self, met: &[(u32, Pairs)], doubted: &HashSet<u32>) -> Result<bool, StateError> {
        let has_rows = |row: &TableRow| row.state.is_streamed() || row.state == TableState::Within;
        let mut doubts = Vec::new();
        if !doubted.is_empty() {
            let rows = self.tables().await?.into_iter();
            let doubted = rows.filter(|row| doubted.contains(&row.source_oid) && has_rows(row));
            doubts.extend(
                doubted
                    .map(|row| (row.source_oid, Origin { filenode: Some(Origin::COLUMNS_CAME), via: row.origin.via })),
            );
        }
        if !doubts.is_empty() {
            self.record_origins(&doubts).await?;
        }
        if !met.is_empty() {
            self.pair_columns(met).await?;
        }
        Ok(!doubts.is_empty())
    }

    /// The patterns that the tables were chosen by, as recorded last; `None` before
    /// a copy, or when an older walferry has made it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn filter(&self) -> Result<Option<String>, StateError> {
        let sql = "SELECT filter FROM walferry.migration WHERE name = $1";
        let rows = self.query(sql, &[&self.name()], "read the recorded filter").await?;
        Ok(rows.first().map(|row| row.take(0)).transpose()?.flatten())
    }

    /// Records the patterns that the tables are chosen by.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn record_filter(&self, filter: &str) -> Result<(), StateError> {
        let sql = "UPDATE walferry.migration SET filter = $2 WHERE name = $1";
        self.execute(sql, &[&self.name(), &filter], "record the filter").await?;
        Ok(())
    }

    /// Replaces what is wrong with tables, as looked at just now: null for those
    /// that are not named.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn record_problems(&self, problems: &[(u32, String)]) -> Result<(), StateError> {
        let (oids, words): (Vec<u32>, Vec<&str>) = problems.iter().map(|(oid, words)| (*oid, words.as_str())).unzip();
        self.execute(
            "UPDATE walferry.tables t SET problem = found.words FROM (SELECT source_oid, words FROM walferry.tables o \
                 LEFT JOIN (SELECT oid, pg_catalog.string_agg(words, '; ' ORDER BY place) AS words \
                     FROM unnest($2::oid[], $3::text[]) WITH ORDINALITY AS u (oid, words, place) GROUP BY oid) p ON p.oid = o.source_oid WHERE o.migration = $1) AS found \
             WHERE t.migration = $1 AND t.source_oid = found.source_oid AND t.problem IS DISTINCT FROM found.words",
            &[&self.name(), &oids, &words],
            "record what is wrong with tables",
        )
        .await?;
        Ok(())
    }

    /// Records what tables are on the source, from now on; run it when that has
    /// been found to be no difference.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn record_origins(&self, origins: &[(u32, Origin)]) -> Result<(), StateError> {
        let oids: Vec<u32> = origins.iter().map(|(oid, _)| *oid).collect();
        let files: Vec<Option<u32>> = origins.iter().map(|(_, origin)| origin.filenode).collect();
        let vias: Vec<Option<&str>> = origins.iter().map(|(_, origin)| origin.via.as_deref()).collect();
        self.execute(
            "UPDATE walferry.tables t SET filenode = o.filenode, via = o.via \
             FROM unnest($2::oid[], $3::oid[], $4::text[]) AS o (oid, filenode, via) \
             WHERE t.migration = $1 AND t.source_oid = o.oid",
            &[&self.name(), &oids, &files, &vias],
            "record what the tables are on the source",
        )
        .await?;
        Ok(())
    }
}
