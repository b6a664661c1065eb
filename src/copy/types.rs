//! Types that somebody has made, of columns of tables that take part: compared before a
//! catch-up says 0, and where the target does not take a value. What is compared is in
//! [`crate::membership::made`].
//!
//! Invariant: the pairs of a type are altered behind the record that rows of it are in doubt.

use std::collections::{HashMap, HashSet};

use super::{CopyContext, CopyError};
use crate::catalog::tables::{self, Column, Detail};
use crate::catalog::types::{Made, is_built_in, made};
use crate::membership::SourceTable;
use crate::membership::coverage::{Cause, Gap};
use crate::membership::made;
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
) -> Result<(), CopyError> {
    let tables: Vec<&SourceTable> = tables.collect();
    let mut types = Types::of(&tables, there.values(), sessions, state).await?;
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
    let types = Types::of(&tables, there.values(), (source, target), ctx.state).await?;
    Ok(types.gaps(&tables, &names))
}

/// Enums and composite types of columns, against their counterparts.
#[derive(Default)]
pub(super) struct Types {
    /// What values of a column's type consist of, by the type's oid.
    of_column: HashMap<u32, Vec<u32>>,
    /// Of each of the source's: what mends its counterpart, and whether values of it are in
    /// doubt.
    compared: HashMap<u32, (Option<String>, bool)>,
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
        state: &State,
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
                let compared = made::compare(ours, theirs, was);
                if was != Some(&compared.pairs) {
                    types.changed.push((ours.oid, compared.pairs));
                }
                types.compared.insert(ours.oid, (compared.sql, compared.is_doubted));
            }
        }
        Ok(types)
    }

    fn of_table<'s>(&'s self, table: &SourceTable) -> impl Iterator<Item = &'s (Option<String>, bool)> {
        let columns = table.columns.iter().filter_map(|column| self.of_column.get(&column.below.oid));
        columns.flatten().filter_map(|made| self.compared.get(made)).collect::<Vec<_>>().into_iter()
    }

    /// Whether values of a table's columns may be others than on the source.
    pub(super) fn are_doubted(&self, table: &SourceTable) -> bool {
        self.of_table(table).any(|(_, is_doubted)| *is_doubted)
    }

    /// The tables with columns of types whose counterparts are not as they are.
    pub(super) fn differing(&self, tables: &[&SourceTable]) -> HashSet<u32> {
        let differs = |table: &&&SourceTable| self.of_table(table).any(|(sql, _)| sql.is_some());
        tables.iter().filter(differs).map(|table| table.oid).collect()
    }

    /// What mends them, each with the first table that has it. `names` are the target's.
    pub(super) fn gaps(&self, tables: &[&SourceTable], names: &HashMap<u32, TableName>) -> Vec<Gap> {
        let mut said = HashSet::new();
        let mut gaps = Vec::new();
        for table in tables {
            let sql = self.of_table(table).filter_map(|(sql, _)| sql.as_ref());
            let unsaid: Vec<String> = sql.filter(|sql| said.insert(*sql)).cloned().collect();
            if let Some(name) = names.get(&table.oid).filter(|_| !unsaid.is_empty()) {
                gaps.push(Gap { source_oid: table.oid, table: name.clone(), cause: Cause::Columns(unsaid) });
            }
        }
        gaps
    }

    /// Writes the pairs down, behind the doubts.
    pub(super) async fn keep(&self, state: &State) -> Result<(), CopyError> {
        Ok(state.keep_type_pairs(&self.changed).await?)
    }
}
