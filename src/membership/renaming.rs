//! How tables of the target get the names that those of the source have by now.
//!
//! Invariant: the statements run as they are printed; tables whose names are in each
//! other's way (two that were exchanged, say) are renamed by one text.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::SourceTable;
use super::coverage::Now;
use super::gap::{Cause, Gap};
use super::letting_go::first_away;
use crate::sql::TableName;
use crate::sql::rename::{Rename, Renamed, Renames, rename_sql};
use crate::state::places::TargetTable;

/// How a table of the target gets its new name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Renaming {
    /// By these statements.
    Sql(String),
    /// By the same statements, once the table that has the name is dropped there.
    OnceDropped(TableName, String),
    /// By the same statements, once these are away there that are not the migration's.
    OnceAway(Vec<TableName>, String),
    /// With this other one, whose statements rename both.
    With(TableName),
}

impl fmt::Display for Renaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Renaming::Sql(sql) => write!(f, "rename it on the target as well: {sql}"),
            Renaming::OnceDropped(other, sql) => {
                write!(f, "rename it on the target as well, once {other} is dropped there: {sql}")
            }
            Renaming::OnceAway(strangers, sql) => {
                write!(f, "rename it on the target as well ({}): {sql}", first_away(strangers))
            }
            Renaming::With(other) => write!(f, "what renames {other} on the target renames it as well"),
        }
    }
}

/// Fills in how tables are renamed on the target: those that are in each other's
/// way by one text, with the first of them.
pub(super) fn say_how_to_rename(gaps: &mut [Gap], now: &Now<'_>) {
    let renames = renames(now.tables, now.there);
    let dropped = |gap: &Gap| matches!(gap.cause, Cause::Dropped { .. } | Cause::CreatedAgain { .. });
    let dropped: HashSet<TableName> = gaps.iter().filter(|gap| dropped(gap)).map(|gap| gap.table.clone()).collect();
    let names: HashSet<&TableName> = now.there.values().map(|there| &there.name).collect();
    let connected = Renames::of(&renames);
    let mut said: HashMap<TableName, TableName> = HashMap::new();
    for gap in gaps {
        let (table, Cause::Renamed { how, .. }) = (&gap.table, &mut gap.cause) else { continue };
        if let Some(first) = said.get(table) {
            *how = Renaming::With(first.clone());
            continue;
        }
        let group = connected.group(table);
        said.extend(group.iter().map(|rename| (rename.from.clone(), table.clone())));
        let sql = rename_sql(Renamed::Table, &group, |name| names.contains(name));
        let in_the_way = group.iter().find(|rename| dropped.contains(&rename.to));
        let strangers = group.iter().map(|rename| &rename.to).filter(|to| now.strangers.contains(to));
        let strangers: Vec<TableName> = strangers.cloned().collect();
        *how = match in_the_way {
            _ if !strangers.is_empty() => Renaming::OnceAway(strangers, sql),
            Some(rename) => Renaming::OnceDropped(rename.to.clone(), sql),
            None => Renaming::Sql(sql),
        };
    }
}

/// What tables of the target are to be renamed to; those that are left out may be in the
/// way of others.
pub fn renames(tables: &[SourceTable], there: &HashMap<u32, TargetTable>) -> Vec<Rename> {
    tables.iter().filter_map(|table| rename(table, there)).collect()
}

/// What the target's counterpart of a table is to be renamed to.
fn rename(table: &SourceTable, there: &HashMap<u32, TargetTable>) -> Option<Rename> {
    let there = &there.get(&table.oid)?.name;
    (*there != table.name).then(|| Rename { from: there.clone(), to: table.name.clone() })
}
