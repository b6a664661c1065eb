//! Tables whose columns differ: nothing of an ALTER TABLE is in the stream before the
//! next change of a row.

use std::collections::{HashMap, HashSet};

use super::{CopyContext, CopyError};
use crate::catalog::tables::{self, Column, Detail, Shape};
use crate::catalog::types::{Made, is_built_in, made};
use crate::membership::alter::{self, Altered};
use crate::membership::columns::{self, Difference, Pair};
use crate::membership::coverage::{Cause, Gap};
use crate::membership::made;
use crate::membership::placement::Hierarchy;
use crate::membership::{Part, SourceTable};
use crate::session::Session;
use crate::sql::TableName;
use crate::state::State;
use crate::state::tables::Pairs;
use crate::state::types::TypePairs;

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

/// Compares the columns of all tables that take part, but for `others`, which have
/// something else to mend first.
///
/// # Errors
/// When either side cannot be asked.
pub async fn look(
    ctx: &CopyContext<'_>,
    others: &HashSet<u32>,
    (source, target): (&Session, &Session),
) -> Result<Found, CopyError> {
    let hierarchy = Hierarchy::of(ctx.settings.schema);
    let state = ctx.state;
    let tables = ctx.tables_in(source, Detail::Columns).await?;
    let names = names_there(state).await?;
    let takes_part = |table: &&SourceTable| matches!(table.part, Part::Included | Part::Unlogged);
    let all: Vec<&SourceTable> = tables.iter().filter(takes_part).collect();
    let tables: Vec<&SourceTable> = all.iter().copied().filter(|table| !others.contains(&table.oid)).collect();
    let there = tables::by_name(target, all.iter().filter_map(|table| names.get(&table.oid))).await?;
    let formerly = state.former_places().await?;
    let pairs = state.column_pairs(&tables.iter().map(|table| table.oid).collect::<Vec<_>>()).await?;
    let types = Types::of(&all, there.values(), (source, target), state).await?;
    // Also of tables that have something else to mend first: it is not found again.
    let mut doubted: HashSet<u32> =
        all.iter().filter(|table| types.are_doubted(table)).map(|table| table.oid).collect();
    let (mut found, mut met, mut said) = (Found::default(), Vec::new(), HashSet::new());
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
        let unlike = types.unlike(table);
        found.differing.extend((!unlike.is_empty()).then_some(table.oid));
        let unsaid: Vec<String> = unlike.into_iter().filter(|sql| said.insert(sql.clone())).collect();
        if !unsaid.is_empty() {
            let name = names.get(&table.oid).unwrap_or(&table.name).clone();
            found.gaps.push(Gap { source_oid: table.oid, table: name, cause: Cause::Columns(unsaid) });
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

/// The names that the source's tables have on the target.
async fn names_there(state: &State) -> Result<HashMap<u32, TableName>, CopyError> {
    Ok(state.target_tables().await?.into_iter().map(|there| (there.source_oid, there.name)).collect())
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

/// Enums and composite types of columns, against their counterparts.
#[derive(Default)]
struct Types {
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
    async fn of(
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
        let there: HashMap<&str, &Made> = there.values().flatten().map(|made| (made.name.as_str(), made)).collect();
        let mut types = Types { known: known.keys().copied().collect(), ..Types::default() };
        for (column, of_column) in &here {
            types.of_column.insert(*column, of_column.iter().map(|made| made.oid).collect());
            for ours in of_column {
                // Of another name is another type: with its column.
                let Some(theirs) = there.get(ours.name.as_str()).filter(|theirs| theirs.kind == ours.kind) else {
                    continue;
                };
                let was = known.get(&ours.oid);
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
    fn are_doubted(&self, table: &SourceTable) -> bool {
        self.of_table(table).any(|(_, is_doubted)| *is_doubted)
    }

    /// What makes the counterparts of a table's types as they are.
    fn unlike(&self, table: &SourceTable) -> Vec<String> {
        self.of_table(table).filter_map(|(sql, _)| sql.clone()).collect()
    }

    /// Writes the pairs down, behind the doubts.
    async fn keep(&self, state: &State) -> Result<(), CopyError> {
        Ok(state.keep_type_pairs(&self.changed).await?)
    }
}
