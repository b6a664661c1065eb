//! Types that somebody has made, of columns of tables that take part: compared before a
//! catch-up says 0, and where the target does not take a value. What is compared is in
//! [`crate::membership::made`].
//!
//! Invariant: the pairs of a type are altered behind the record that rows of it are in doubt.

use std::collections::{HashMap, HashSet};

use super::{CopyContext, CopyError};
use crate::catalog::added::default_sql;
use crate::catalog::tables::{self, Column, Detail};
use crate::catalog::types::{Made, MadeKind, is_built_in, made};
use crate::membership::SourceTable;
use crate::membership::alter;
use crate::membership::coverage::{Cause, Gap};
use crate::membership::made::{self, Compared};
use crate::membership::placement::Hierarchy;
use crate::schema;
use crate::session::Session;
use crate::sql::TableName;
use crate::state::State;
use crate::state::types::TypePairs;

/// Pairs the types that somebody has made, of columns of tables whose rows are about to be
/// read: those that are not known yet.
///
/// # Errors
/// When either side cannot be asked.
pub(super) async fn pair_types<'t>(
    state: &State,
    tables: impl Iterator<Item = &'t SourceTable>,
    there: &HashMap<TableName, tables::Found>,
    sessions: (&Session, &Session),
    hierarchy: Hierarchy,
) -> Result<(), CopyError> {
    let tables: Vec<&SourceTable> = tables.collect();
    let mut types = Types::of(&tables, there.values(), sessions, (state, hierarchy)).await?;
    types.changed.retain(|(oid, _)| !types.known.contains(oid));
    types.keep(state).await
}

/// The types of all tables that take part which differ, with what mends them; nothing is
/// written down.
///
/// # Errors
/// When either side cannot be asked.
pub async fn differ(ctx: &CopyContext<'_>, (source, target): (&Session, &Session)) -> Result<Vec<Gap>, CopyError> {
    let tables = ctx.tables_in(source, Detail::Columns).await?;
    let tables: Vec<&SourceTable> = tables.iter().filter(|table| table.takes_part()).collect();
    let names = ctx.state.names_there().await?;
    let there = tables::by_name(target, tables.iter().filter_map(|table| names.get(&table.oid))).await?;
    let hierarchy = Hierarchy::of(ctx.settings.schema);
    let types = Types::of(&tables, there.values(), (source, target), (ctx.state, hierarchy)).await?;
    types.gaps(&tables, (&names, &there), (target, RowTypes::All)).await
}

/// Which row types are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowTypes {
    /// All.
    All,
    /// Those of tables that take part are not: their columns are.
    OfOthers,
}

/// Enums and composite types of columns, against their counterparts.
#[derive(Default)]
pub(super) struct Types {
    /// What values of a column's type consist of, by the type's oid.
    of_column: HashMap<u32, Vec<u32>>,
    /// Of each of the source's what was found.
    compared: HashMap<u32, Compared>,
    /// Row types of tables that take part, whose columns are compared by themselves.
    of_members: HashSet<u32>,
    /// Those that were paired before.
    known: HashSet<u32>,
    /// Pairs that are others by now.
    changed: Vec<(u32, TypePairs)>,
}

impl Types {
    pub(super) async fn of(
        tables: &[&SourceTable],
        there: impl Iterator<Item = &tables::Found>,
        (source, target): (&Session, &Session),
        (state, hierarchy): (&State, Hierarchy),
    ) -> Result<Self, CopyError> {
        let own = |columns: &mut dyn Iterator<Item = &Column>| -> Vec<u32> {
            let own: HashSet<u32> =
                columns.map(|column| column.below).filter(|t| !is_built_in(*t)).map(|t| t.oid).collect();
            own.into_iter().collect()
        };
        let ours = own(&mut tables.iter().flat_map(|table| &table.columns));
        if ours.is_empty() {
            return Ok(Types::default());
        }
        let theirs = own(&mut there.flat_map(|found| &found.columns));
        let (here, there) = tokio::try_join!(made(source, &ours), made(target, &theirs))?;
        let known = state.type_pairs().await?;
        let by_name: HashMap<&str, &Made> = there.values().flatten().map(|made| (made.name.as_str(), made)).collect();
        let by_oid: HashMap<u32, &Made> = there.values().flatten().map(|made| (made.oid, made)).collect();
        let mut types = Types { known: known.keys().copied().collect(), ..Types::default() };
        for (column, of_column) in &here {
            types.of_column.insert(*column, of_column.iter().map(|made| made.oid).collect());
            for ours in of_column {
                let was = known.get(&ours.oid);
                // One that was renamed is still that one.
                let theirs = was.and_then(|was| by_oid.get(&was.of)).or_else(|| by_name.get(ours.name.as_str()));
                // Of another name, or kind, is another type: with its column.
                let theirs = theirs.filter(|theirs| theirs.kind == ours.kind).copied();
                if types.compared.contains_key(&ours.oid) {
                    continue;
                }
                let mut compared = made::compare(ours, theirs, was, hierarchy);
                if was != Some(&compared.pairs) {
                    types.changed.push((ours.oid, compared.pairs.clone()));
                }
                if ours.kind == MadeKind::Row && tables.iter().any(|table| table.name == ours.called) {
                    types.of_members.insert(ours.oid);
                }
                if let Some((theirs, sql)) = theirs.zip(compared.sql.as_ref()) {
                    compared.sql = Some(schema::types::possible(target, (ours, theirs), sql).await?);
                }
                types.compared.insert(ours.oid, compared);
            }
        }
        Ok(types)
    }

    fn of_column(&self, column: &Column) -> impl Iterator<Item = &u32> {
        self.of_column.get(&column.below.oid).into_iter().flatten()
    }

    fn made_of(&self, table: &SourceTable) -> impl Iterator<Item = &u32> {
        table.columns.iter().flat_map(|column| self.of_column(column))
    }

    fn of_table(&self, table: &SourceTable) -> impl Iterator<Item = &Compared> {
        self.made_of(table).filter_map(|made| self.compared.get(made))
    }

    /// Whether values of a table's columns may be others than on the source.
    pub(super) fn are_doubted(&self, table: &SourceTable) -> bool {
        self.of_table(table).any(|compared| compared.is_doubted)
    }

    /// The tables with columns of types whose counterparts are not as they are.
    pub(super) fn differing(&self, tables: &[&SourceTable]) -> HashSet<u32> {
        let differs = |table: &&&SourceTable| self.of_table(table).any(|compared| compared.sql.is_some());
        tables.iter().filter(differs).map(|table| table.oid).collect()
    }

    /// What mends them, each with the first table that has it, and then the columns that
    /// are to be of the new ones. `names` and `there` are the target's.
    pub(super) async fn gaps(
        &self,
        tables: &[&SourceTable],
        (names, there): (&HashMap<u32, TableName>, &HashMap<TableName, tables::Found>),
        (target, rows): (&Session, RowTypes),
    ) -> Result<Vec<Gap>, CopyError> {
        let mut said = HashSet::new();
        let (mut gaps, mut of_columns) = (Vec::new(), Vec::new());
        for table in tables {
            let Some(name) = names.get(&table.oid) else { continue };
            let gap = |sql| Gap { source_oid: table.oid, table: name.clone(), cause: Cause::Columns(sql) };
            let is_told = |made: &&u32| rows == RowTypes::All || !self.of_members.contains(*made);
            let of_table = self.made_of(table).filter(is_told).filter_map(|made| self.compared.get(made));
            let sql = of_table.filter_map(|compared| compared.sql.as_ref());
            let unsaid: Vec<String> = sql.filter(|sql| !sql.is_empty() && said.insert(*sql)).cloned().collect();
            gaps.extend((!unsaid.is_empty()).then(|| gap(unsaid)));
            let mut given = Vec::new();
            // An ALTER TABLE of what is above reaches it.
            for column in table.columns.iter().filter(|_| table.above().is_empty()) {
                let is_anew =
                    self.of_column(column).any(|made| self.compared.get(made).is_some_and(|compared| compared.is_anew));
                let Some(found) = there.get(name).filter(|_| is_anew) else { continue };
                let theirs = found.columns.iter().find(|c| c.name == column.name && !c.is_generated());
                if let Some(theirs) = theirs {
                    // In words that name the new type by then.
                    let default = default_sql(target, found.oid, theirs.number).await?;
                    given.push(alter::given_anew(name, column, default.as_deref()));
                }
            }
            of_columns.extend((!given.is_empty()).then(|| gap(given)));
        }
        Ok([gaps, of_columns].concat())
    }

    /// Writes the pairs down, behind the doubts.
    pub(super) async fn keep(&self, state: &State) -> Result<(), CopyError> {
        Ok(state.keep_type_pairs(&self.changed).await?)
    }
}
