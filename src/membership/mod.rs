//! Who takes part in a migration, and why: the one place that decides it.
//!
//! ```text
//! an extension's own ................................. no: CREATE EXTENSION makes it
//! known to the state, and takes part ................. yes, whatever its name is by now
//! it, or a partitioned table above it, is excluded ... no
//! it, or a partitioned table above it, is included ... yes (a known one above: whatever its name)
//! known to the state as left out, and included now ... let in: it wants to be copied first
//! ```
//!
//! Invariants: a partition goes with its root, over all levels and schemas; a
//! table that inherits goes by its own name. What was decided is kept by oid in
//! `walferry.tables` and asked there: a rename changes nothing, only another
//! filter does ([`narrowed`]). Every pattern fits something
//! ([`unmatched`]).

pub mod alter;
pub mod apart;
pub mod columns;
pub mod coverage;
pub mod gap;
pub mod layout;
pub mod letting_go;
pub mod made;
pub mod placement;
pub mod placing;
pub mod publishing;
pub mod renaming;
pub mod row_filters;
pub mod switched;

use std::collections::{HashMap, HashSet};
use std::ops::Deref;

use crate::catalog::publication::{self, AllTables};
use crate::catalog::sequences::{Sequence, Tied};
use crate::catalog::tables::{self, Detail, Persistence, Table};
use crate::config::{Pattern, Subject, TableFilter, Verdict, near_misses};
use crate::session::{DbError, Session};
use crate::sql::{TableName, shown};
use crate::state::places::Former;
use crate::state::tables::TableState;
use crate::state::{State, StateError};

/// What a table is to the migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It is copied and streamed.
    Included,
    /// The operator's filter leaves it out.
    Filtered,
    /// The filter left it out when the others were copied, and does not any
    /// more: changes were passed over, so it has to be copied.
    LetIn,
    /// An extension's own: CREATE EXTENSION makes it on the target.
    OfExtension,
    /// Unlogged: its rows are in no stream, so they are copied at the end.
    Unlogged,
}

/// A table of the source, and what it is to the migration.
#[derive(Clone, Debug)]
pub struct SourceTable {
    /// What the catalog says.
    pub table: Table,
    /// What it is to the migration.
    pub part: Part,
}

impl Deref for SourceTable {
    type Target = Table;

    fn deref(&self) -> &Table {
        &self.table
    }
}

impl SourceTable {
    /// Whether it is one of the migration's: its rows are carried.
    pub fn takes_part(&self) -> bool {
        matches!(self.part, Part::Included | Part::Unlogged)
    }

    /// What it belongs to.
    pub fn place(&self) -> Former {
        Former { parents: self.above(), bounds: self.bounds.clone() }
    }

    /// What the state is to say of one whose rows come in its own name, or in
    /// that of others.
    pub fn state(&self, rows: Rows) -> TableState {
        match (self.part, rows) {
            (Part::Included, Rows::Own) => TableState::Waiting,
            (Part::Included, Rows::OfOthers) => TableState::Within,
            (Part::Filtered | Part::LetIn, _) => TableState::Excluded,
            (Part::OfExtension, _) => TableState::Extension,
            (Part::Unlogged, _) => TableState::Unlogged,
        }
    }
}

/// In whose name a table's rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// In its own.
    Own,
    /// In its partitions', or in its root's.
    OfOthers,
}

/// What the state knows, by oid.
pub type Known = HashMap<u32, TableState>;

/// All tables of the source, each with what it is to the migration; `known` is
/// what the state says already.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn read(
    source: &Session,
    filter: &TableFilter,
    known: &Known,
    detail: Detail,
) -> Result<Vec<SourceTable>, DbError> {
    let tables = tables::list(source, detail).await?;
    let decided = tables.into_iter().map(|table| SourceTable { part: part(&table, filter, known), table });
    Ok(decided.collect())
}

/// The same for a migration whose state is at hand.
///
/// # Errors
/// When the catalog or the state cannot be read.
pub async fn of(
    source: &Session,
    filter: &TableFilter,
    state: &State,
    detail: Detail,
) -> Result<Vec<SourceTable>, StateError> {
    let known = known(state).await?;
    Ok(read(source, filter, &known, detail).await?)
}

/// Those that a filter left out, and that it does not any more.
pub fn let_in(tables: &[SourceTable]) -> Vec<TableName> {
    tables.iter().filter(|table| table.part == Part::LetIn).map(|table| table.name.clone()).collect()
}

/// The same tables, those of `new` (oids) included, which the filter lets in by now
/// and which are about to be copied.
pub fn letting_in(tables: Vec<SourceTable>, new: impl Fn(u32) -> bool) -> Vec<SourceTable> {
    let let_in = |mut table: SourceTable| {
        if table.part == Part::LetIn && new(table.oid) {
            table.part = Part::Included;
        }
        table
    };
    tables.into_iter().map(let_in).collect()
}

/// Whether tables to come are published, all their rows included. A publication for
/// all tables that was dropped and made anew has not published those that were created
/// in between: from then on new tables have to be taken in, which is recorded.
///
/// # Errors
/// When the state or the source cannot be asked.
pub async fn publishes_all(source: &Session, publications: &[String], state: &State) -> Result<bool, StateError> {
    if !state.load().await?.is_some_and(|migration| migration.publishes_all_tables) {
        return Ok(false);
    }
    let found = publication::find(source, publications).await?;
    let rows = state.tables().await?;
    let vias = rows.iter().filter_map(|row| row.origin.via.as_deref());
    if !vias.into_iter().any(|via| publication::is_of_former_all_tables(via, &found)) {
        return Ok(true);
    }
    state.set_publishes_all_tables(AllTables::No).await?;
    let what =
        "the publication for all tables is another one: tables that the migration does not have want \"walferry add\"";
    tracing::warn!("{what}");
    state.journal(what).await?;
    Ok(false)
}

/// What the state says, by oid.
///
/// # Errors
/// When the state cannot be read.
pub async fn known(state: &State) -> Result<Known, StateError> {
    Ok(state.tables().await?.into_iter().map(|row| (row.source_oid, row.state)).collect())
}

/// What a table is to the migration.
pub fn part(table: &Table, filter: &TableFilter, known: &Known) -> Part {
    if table.is_of_extension {
        return Part::OfExtension;
    }
    let is_below_known = table.ancestors.iter().any(|above| known.get(&above.oid).is_some_and(|s| s.takes_part()));
    let by_filter = if is_below_known { !is_excluded(filter, table) } else { includes(filter, table) };
    match (known.get(&table.oid), table.persistence) {
        (Some(state), Persistence::Permanent) if state.takes_part() => Part::Included,
        (Some(state), Persistence::Unlogged) if state.takes_part() => Part::Unlogged,
        (Some(TableState::Excluded), Persistence::Permanent) if by_filter => Part::LetIn,
        (_, _) if !by_filter => Part::Filtered,
        (_, Persistence::Unlogged) => Part::Unlogged,
        (_, Persistence::Permanent) => Part::Included,
    }
}

/// Whether the filter includes a table: with its root, unless it, or one above
/// it, is excluded.
pub fn includes(filter: &TableFilter, table: &Table) -> bool {
    takes(filter, &table.name, table.ancestors.iter().map(|ancestor| &ancestor.name))
}

/// Whether a filter excludes a table, or one above it.
pub fn is_excluded(filter: &TableFilter, table: &Table) -> bool {
    let mut names = std::iter::once(&table.name).chain(table.ancestors.iter().map(|above| &above.name));
    names.any(|name| filter.excludes_explicitly(name))
}

/// The same for a name with those of the partitioned tables above it.
pub fn takes<'a>(filter: &TableFilter, name: &'a TableName, above: impl Iterator<Item = &'a TableName>) -> bool {
    let mut is_included = false;
    for name in std::iter::once(name).chain(above) {
        match filter.verdict(name) {
            Verdict::Excluded { .. } => return false,
            Verdict::Included { .. } => is_included = true,
            Verdict::NotIncluded => {}
        }
    }
    is_included
}

/// Whether a sequence takes part: with a table that does and that it belongs to,
/// or that takes defaults from it; one that is tied to no table, and one that its
/// own name lets in beside tables that merely use it, by that, or because it did when it was
/// `paired` (by the source's oids).
pub fn sequence(sequence: &Sequence, filter: &TableFilter, known: &Known, paired: &HashSet<u32>) -> bool {
    let takes_part = |tied: &Tied| match known.get(&tied.table.oid) {
        Some(state) => state.takes_part(),
        None => takes(filter, &tied.table.name, tied.above.iter().map(|above| &above.name)),
    };
    let is_in_by_itself = || paired.contains(&sequence.oid) || filter.includes(&sequence.name);
    sequence.tied.iter().any(takes_part) || (sequence.owner.is_none() && is_in_by_itself())
}

/// Whether a sequence belongs to a table that the state does not know yet: it comes
/// when that is taken in.
pub fn comes_with_its_table(sequence: &Sequence, known: &Known) -> bool {
    sequence.owner_table().is_some_and(|table| !known.contains_key(&table.oid))
}

/// Members that another filter than the recorded one leaves out by now, by their
/// present names. Those of `known` that take part.
pub fn narrowed<'t>(
    tables: &'t [SourceTable],
    filter: &'t TableFilter,
    known: &'t Known,
) -> impl Iterator<Item = &'t SourceTable> {
    tables.iter().filter(move |table| table.takes_part() && known.contains_key(&table.oid) && !includes(filter, table))
}

/// A pattern that fits no table of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmatched {
    /// The pattern, with its flag.
    pub pattern: String,
    /// Names that may have been meant.
    pub near: Vec<String>,
}

impl std::fmt::Display for Unmatched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} fits no table of the source", self.pattern)?;
        if !self.near.is_empty() {
            write!(f, "; did you mean {}?", self.near.join(" or "))?;
        }
        Ok(())
    }
}

/// The filter's patterns that fit nothing: no table, nor any other relation in
/// `others` (views, sequences and the like, which go by the same patterns).
pub fn unmatched(filter: &TableFilter, tables: &[SourceTable], others: &[TableName]) -> Vec<Unmatched> {
    let names = || tables.iter().map(|table| &table.name).chain(others);
    let fits_none = |pattern: &&Pattern| !names().any(|name| pattern.fits(name));
    let near = |pattern: &Pattern| -> Vec<String> {
        let (schema, table) = (|name: &TableName| name.schema.clone(), |name: &TableName| name.name.clone());
        let of_subject = match pattern.subject() {
            Subject::Schema => names().map(schema).collect::<std::collections::BTreeSet<String>>(),
            Subject::Table if pattern.text().contains('.') => names().map(ToString::to_string).collect(),
            Subject::Table => names().map(table).collect(),
        };
        let quoted = |name: &str| if name.contains('.') { name.to_owned() } else { shown(name) };
        near_misses(pattern.text(), of_subject.iter().map(String::as_str)).into_iter().map(quoted).collect()
    };
    filter
        .patterns()
        .filter(fits_none)
        .map(|pattern| Unmatched { pattern: pattern.to_string(), near: near(pattern) })
        .collect()
}
