//! Types that somebody has made, of columns of tables that take part: compared before a
//! catch-up says 0, and where the target does not take a value ([`crate::schema::types`]).
//!
//! Invariant: the pairs of a type are altered behind the record that rows of it are in doubt.

use std::collections::{HashMap, HashSet};

use super::{CopyContext, CopyError};
use crate::catalog::tables::{self, Detail};
use crate::membership::SourceTable;
use crate::membership::gap::{Cause, Gap};
use crate::membership::placement::Hierarchy;
use crate::schema::types::{self, Mending, Told};
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
    Types::of(&tables, there.values(), sessions, (state, hierarchy)).await?.keep_new(state).await
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
    types.gaps(&tables, (&names, &there), (target, Told::All)).await
}

/// The types of columns against their counterparts, with what is known of these.
#[derive(Default)]
pub(super) struct Types {
    types: types::Types,
    /// As they were paired before.
    known: HashMap<u32, TypePairs>,
}

impl Types {
    pub(super) async fn of(
        tables: &[&SourceTable],
        there: impl Iterator<Item = &tables::Found>,
        sessions: (&Session, &Session),
        (state, hierarchy): (&State, Hierarchy),
    ) -> Result<Self, CopyError> {
        let known = state.type_pairs().await?;
        let types = types::Types::of(tables, there, sessions, (&known, hierarchy)).await?;
        Ok(Types { types, known })
    }

    /// Whether values of a table's columns may be others than on the source.
    pub(super) fn are_doubted(&self, table: &SourceTable) -> bool {
        self.types.of_table(table).any(|compared| compared.is_doubted)
    }

    /// The tables with columns of types whose counterparts are not as they are.
    pub(super) fn differing(
        &self,
        tables: &[&SourceTable],
        (names, there): (&HashMap<u32, TableName>, &HashMap<TableName, tables::Found>),
    ) -> HashSet<u32> {
        let theirs = |table: &SourceTable| names.get(&table.oid).and_then(|name| there.get(name));
        let differs = |table: &&&SourceTable| theirs(table).is_some_and(|theirs| self.types.differ(table, theirs));
        tables.iter().filter(differs).map(|table| table.oid).collect()
    }

    /// What mends them. `names` and `there` are the target's.
    pub(super) async fn gaps(
        &self,
        tables: &[&SourceTable],
        there: (&HashMap<u32, TableName>, &HashMap<TableName, tables::Found>),
        told: (&Session, Told),
    ) -> Result<Vec<Gap>, CopyError> {
        let mending = self.types.mending(tables, there, told).await?;
        let gap = |Mending { source_oid, table, sql }| Gap { source_oid, table, cause: Cause::Columns(sql) };
        Ok(mending.into_iter().map(gap).collect())
    }

    /// Writes the pairs down that are others by now, behind the doubts.
    pub(super) async fn keep(&self, state: &State) -> Result<(), CopyError> {
        self.keep_if(state, |was, now| was != Some(now)).await
    }

    /// The same of those that are not known yet.
    async fn keep_new(&self, state: &State) -> Result<(), CopyError> {
        self.keep_if(state, |was, _| was.is_none()).await
    }

    async fn keep_if(
        &self,
        state: &State,
        is_kept: impl Fn(Option<&TypePairs>, &TypePairs) -> bool,
    ) -> Result<(), CopyError> {
        let pairs = self.types.compared().map(|(oid, compared)| (oid, &compared.pairs));
        let kept: Vec<(u32, TypePairs)> =
            pairs.filter(|(oid, now)| is_kept(self.known.get(oid), now)).map(|(oid, now)| (oid, now.clone())).collect();
        Ok(state.keep_type_pairs(&kept).await?)
    }
}
