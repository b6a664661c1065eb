//! Tables whose columns differ: nothing of an ALTER TABLE is in the stream before the
//! next change of a row.

use std::collections::{HashMap, HashSet};

use super::types::Types;
use super::{CopyContext, CopyError};
use crate::catalog::tables::{self, Column, Shape};
use crate::membership::SourceTable;
use crate::membership::alter::{self, Altered};
use crate::membership::columns::{self, Difference, Pair};
use crate::membership::gap::{Cause, Gap};
use crate::membership::placement::Hierarchy;
use crate::schema::types::Told;
use crate::session::Session;
use crate::sql::TableName;
use crate::state::State;
use crate::state::tables::Pairs;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// A gap for each table, where an ALTER TABLE reaches the columns: of a partition or a
    /// child that is with the topmost one that differs in the same way.
    pub gaps: Vec<Gap>,
    /// All tables that differ, those below included.
    pub differing: HashSet<u32>,
    /// Gaps of tables whose types differ and lose nothing: they count where the rows are
    /// not equal, as the source's may have been altered with them.
    pub retyped: HashMap<u32, Gap>,
    /// Gaps of tables whose types the source has altered, and that lose nothing: they count
    /// once the rows are equal, which can be cast then.
    pub altered: Vec<Gap>,
    /// Whether rows are to be compared by now that were not in doubt before.
    pub has_new_doubts: bool,
}

/// Compares the columns of those of all tables that take part, with the columns that are
/// published, but for `others`, which have something else to mend first.
///
/// # Errors
/// When either side cannot be asked.
pub async fn look(
    ctx: &CopyContext<'_>,
    tables: &[SourceTable],
    others: &HashSet<u32>,
    (source, target): (&Session, &Session),
) -> Result<Found, CopyError> {
    let hierarchy = Hierarchy::of(ctx.settings.schema);
    let state = ctx.state;
    let names = state.names_there().await?;
    let all: Vec<&SourceTable> = tables.iter().filter(|table| table.takes_part()).collect();
    let tables: Vec<&SourceTable> = all.iter().copied().filter(|table| !others.contains(&table.oid)).collect();
    let there = tables::by_name(target, all.iter().filter_map(|table| names.get(&table.oid))).await?;
    let formerly = state.former_places().await?;
    let pairs = state.column_pairs(&tables.iter().map(|table| table.oid).collect::<Vec<_>>()).await?;
    let types = Types::of(&all, there.values(), (source, target), (state, hierarchy)).await?;
    // Also of tables that have something else to mend first: it is not found again.
    let mut doubted: HashSet<u32> =
        all.iter().filter(|table| types.are_doubted(table)).map(|table| table.oid).collect();
    let gaps_of_types = types.gaps(&tables, (&names, &there), (target, Told::ButMembers)).await?;
    let differing = types.differing(&tables, (&names, &there));
    let (mut found, mut met) = (Found { gaps: gaps_of_types, differing, ..Found::default() }, Vec::new());
    let (mut differences, mut altered) = (HashMap::new(), HashMap::new());
    let known = |table: &SourceTable, theirs: &tables::Found| {
        pairs.get(&table.oid).map(|pairs| pairs.with(theirs.oid)).unwrap_or_default()
    };
    let beside = |table: &SourceTable| names.get(&table.oid).and_then(|name| there.get(name));
    let tops = tops(&tables);
    let called = by_family(tables.iter().filter_map(|table| {
        let theirs = beside(table)?;
        Some((tops[&table.oid], (table.columns.as_slice(), theirs.columns.as_slice(), known(table, theirs))))
    }));
    for table in &tables {
        let Some(theirs) = beside(table) else { continue };
        let pairs_of = pairs.get(&table.oid);
        let (known, called) = (known(table, theirs), &called[&tops[&table.oid]]);
        let compared = columns::compare(&table.columns, &theirs.columns, (known, called), hierarchy);
        if !compared.met.is_empty() {
            let formerly = formerly.get(&table.oid).cloned().unwrap_or_else(|| table.place());
            let pairs = columns::with_met(known, &compared.met);
            let last = pairs_of.map_or_else(|| columns::newest(&table.columns), |pairs| pairs.last);
            met.push((table.oid, Pairs { of: theirs.oid, pairs, formerly, last }));
            // Another table of that name has other rows.
            let is_another = pairs_of.is_some_and(|pairs| pairs.of != theirs.oid);
            doubted.extend(is_another.then_some(table.oid));
        }
        doubted.extend(compared.is_doubted.then_some(table.oid));
        if !compared.retyped.is_empty() {
            found.retyped.insert(table.oid, retyped(table, &names, &compared.retyped));
        }
        if !compared.altered.is_empty() {
            altered.insert(table.oid, compared.altered);
        }
        let mut of_table = compared.differences;
        // A partition that comes later has to have the very types of its root.
        if table.shape == Shape::Partitioned && hierarchy == Hierarchy::Same {
            of_table.extend(&compared.retyped);
        }
        if !of_table.is_empty() {
            found.differing.insert(table.oid);
            differences.insert(table.oid, of_table);
        }
    }
    found.has_new_doubts = state.keep_pairs(&met, &doubted).await?;
    types.keep(state).await?;
    let counterparts: Vec<(&SourceTable, &TableName, u32)> =
        tables.iter().filter_map(|table| Some((*table, names.get(&table.oid)?, beside(table)?.oid))).collect();
    found.gaps.extend(gaps(&counterparts, &differences, (source, target), state).await?);
    found.altered = gaps(&counterparts, &altered, (source, target), state).await?;
    Ok(found)
}

/// What gives a table's columns, or those of the one at its top, the source's types.
fn retyped(table: &SourceTable, names: &HashMap<u32, TableName>, of: &[Difference<'_>]) -> Gap {
    let top = table.ancestors.iter().rev().find_map(|above| names.get(&above.oid));
    let name = top.or_else(|| names.get(&table.oid)).unwrap_or(&table.name);
    Gap { source_oid: table.oid, table: name.clone(), cause: Cause::Columns(alter::sql(name, of, &HashMap::new())) }
}

/// A table's columns on the source and on the target, and their pairs.
type Sides<'a> = (&'a [Column], &'a [Column], &'a [Pair]);

/// What columns are called in each family, by the table at its top ([`columns::called`]).
fn by_family<'a>(tables: impl Iterator<Item = (u32, Sides<'a>)>) -> HashMap<u32, HashMap<String, String>> {
    let mut families: HashMap<u32, Vec<Sides<'a>>> = HashMap::new();
    for (top, sides) in tables {
        families.entry(top).or_default().push(sides);
    }
    families.into_iter().map(|(top, of_family)| (top, columns::called(of_family.into_iter()))).collect()
}

/// The table at the top of each one's family.
fn tops(tables: &[&SourceTable]) -> HashMap<u32, u32> {
    let above: HashMap<u32, u32> =
        tables.iter().filter_map(|table| Some((table.oid, *table.above().first()?))).collect();
    let top = |oid: u32| std::iter::successors(Some(oid), |oid| above.get(oid).copied()).last().unwrap_or(oid);
    tables.iter().map(|table| (table.oid, top(table.oid))).collect()
}

/// The gaps of `differences`, what several tables have with the topmost. `tables` are those
/// of the source, each with its counterpart's name and oid.
async fn gaps(
    tables: &[(&SourceTable, &TableName, u32)],
    differences: &HashMap<u32, Vec<Difference<'_>>>,
    sessions: (&Session, &Session),
    state: &State,
) -> Result<Vec<Gap>, CopyError> {
    let (mut gaps, mut said) = (Vec::new(), HashSet::new());
    for &(table, name, there) in tables {
        let Some(of_table) = differences.get(&table.oid) else { continue };
        let above = table.ancestors.iter().map(|above| &above.oid).chain(&table.parents);
        let above: Vec<&[Difference<'_>]> = above.filter_map(|oid| differences.get(oid)).map(Vec::as_slice).collect();
        let own = columns::own(of_table, &above);
        if own.is_empty() {
            continue;
        }
        let altered = Altered { oid: table.oid, columns: &table.columns, there, name };
        let mut sql = alter::mended(sessions, altered, &own, state).await?;
        sql.retain(|one| said.insert(one.clone()));
        if !sql.is_empty() {
            gaps.push(Gap { source_oid: table.oid, table: name.clone(), cause: Cause::Columns(sql) });
        }
    }
    Ok(gaps)
}
