//! Tables whose columns differ: nothing of an ALTER TABLE is in the stream before the
//! next change of a row.

use std::collections::{HashMap, HashSet};

use super::{CopyContext, CopyError};
use crate::catalog::added::add_column_sql;
use crate::catalog::tables;
use crate::membership::columns::{self, Difference, Pair};
use crate::membership::coverage::{Cause, Gap};
use crate::membership::placement::Hierarchy;
use crate::membership::{Part, SourceTable};
use crate::session::Session;
use crate::state::State;
use crate::state::tables::Origin;

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
    let tables = ctx.tables(source).await?;
    let names = state.target_tables().await?.into_iter();
    let names: HashMap<u32, _> = names.map(|there| (there.source_oid, there.name)).collect();
    let takes_part = |table: &&SourceTable| matches!(table.part, Part::Included | Part::Unlogged);
    let tables: Vec<&SourceTable> = tables.iter().filter(takes_part).filter(|t| !others.contains(&t.oid)).collect();
    let there = tables::by_name(target, tables.iter().filter_map(|table| names.get(&table.oid))).await?;
    let pairs = state.column_pairs(&tables.iter().map(|table| table.oid).collect::<Vec<_>>()).await?;
    let (mut found, mut met) = (Found::default(), Vec::new());
    let mut differences: HashMap<u32, Vec<Difference<'_>>> = HashMap::new();
    for table in &tables {
        let Some(theirs) = names.get(&table.oid).and_then(|name| there.get(name)) else { continue };
        let known = pairs.get(&table.oid).map(Vec::as_slice).unwrap_or_default();
        let compared = columns::compare(&table.columns, &theirs.columns, known, hierarchy);
        if !compared.met.is_empty() {
            met.push(Met {
                table,
                pairs: known.iter().copied().chain(compared.met).collect(),
                is_replaced: compared.is_replaced,
            });
        }
        if !compared.retyped.is_empty() {
            let top = table.ancestors.iter().rev().find_map(|above| names.get(&above.oid));
            let name = top.or_else(|| names.get(&table.oid)).unwrap_or(&table.name);
            let cause = Cause::Columns(columns::sql(name, &compared.retyped, &HashMap::new()));
            found.retyped.insert(table.oid, Gap { source_oid: table.oid, table: name.clone(), cause });
        }
        if !compared.differences.is_empty() {
            found.differing.insert(table.oid);
            differences.insert(table.oid, compared.differences);
        }
    }
    record(state, met).await?;
    for table in &tables {
        let Some(name) = names.get(&table.oid) else { continue };
        let own = own(table, &differences);
        if own.is_empty() {
            continue;
        }
        let mut adds = HashMap::new();
        for column in columns::to_add(&own) {
            let add = add_column_sql(source, table.oid, name, column).await?;
            adds.extend(add.map(|add| (column.to_owned(), add)));
        }
        let cause = Cause::Columns(columns::sql(name, &own, &adds));
        found.gaps.push(Gap { source_oid: table.oid, table: name.clone(), cause });
    }
    Ok(found)
}

/// The differences that no table above has as well.
fn own<'a>(table: &SourceTable, differences: &HashMap<u32, Vec<Difference<'a>>>) -> Vec<Difference<'a>> {
    let above = table.ancestors.iter().map(|above| above.oid).chain(table.parents.iter().copied());
    let above: Vec<&Difference<'_>> = above.filter_map(|oid| differences.get(&oid)).flatten().collect();
    let is_same = |one: &Difference<'_>, other: &Difference<'_>| match (one, other) {
        (Difference::Lacks(one), Difference::Lacks(other)) => one.name == other.name,
        (Difference::Unlike { column: one, .. }, Difference::Unlike { column: other, .. }) => one.name == other.name,
        _ => one == other,
    };
    let of_table = differences.get(&table.oid).into_iter().flatten();
    of_table.filter(|one| !above.iter().any(|other| is_same(one, other))).copied().collect()
}

/// Pairs of a table that are recorded.
struct Met<'a> {
    table: &'a SourceTable,
    pairs: Vec<Pair>,
    is_replaced: bool,
}

/// Records the pairs; a table of which a column stands for one that was dropped is
/// compared, as changes of that one may have been written to it.
async fn record(state: &State, met: Vec<Met<'_>>) -> Result<(), CopyError> {
    if met.is_empty() {
        return Ok(());
    }
    let replaced: HashSet<u32> = met.iter().filter(|one| one.is_replaced).map(|one| one.table.oid).collect();
    let rows = state.tables().await?;
    let doubted = |via: &Option<String>| Origin { filenode: Some(0), via: via.clone() };
    let doubts: Vec<(u32, Origin)> = rows
        .iter()
        .filter(|row| replaced.contains(&row.source_oid) && row.state.is_streamed())
        .map(|row| (row.source_oid, doubted(&row.origin.via)))
        .collect();
    if !doubts.is_empty() {
        state.record_origins(&doubts).await?;
    }
    let pairs: Vec<(u32, Vec<Pair>)> = met.into_iter().map(|one| (one.table.oid, one.pairs)).collect();
    Ok(state.pair_columns(&pairs).await?)
}
