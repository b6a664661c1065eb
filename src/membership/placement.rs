//! Which tables partitions are of on the target, beside the source's: what has to be
//! the same there, and what is the operator's.
//!
//! Invariant: a partition that is one of another table there, or of none, is named
//! before rows are sent to it.

use std::collections::HashMap;

use super::SourceTable;
use super::coverage::{Cause, Gap};
use crate::catalog::tables;
use crate::config::SchemaMode;
use crate::session::{DbError, Session};
use crate::sql::TableName;
use crate::state::tables::TargetTable;

/// Whether partitions have to be partitions of the same tables on both sides: not
/// where the schema on the target is the operator's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hierarchy {
    /// They have to.
    Same,
    /// That is the operator's business.
    Own,
}

impl Hierarchy {
    /// What a schema of this origin has to be.
    pub fn of(schema: SchemaMode) -> Self {
        match schema {
            SchemaMode::Create => Hierarchy::Same,
            SchemaMode::Existing | SchemaMode::None => Hierarchy::Own,
        }
    }
}

/// A table that is a partition of another table on the target, or of none.
pub fn misplaced(
    hierarchy: Hierarchy,
    table: &SourceTable,
    there: &HashMap<u32, TargetTable>,
    takes_part: impl Fn(u32) -> bool,
) -> Option<Gap> {
    let own = there.get(&table.oid)?;
    let cause = attached_otherwise(hierarchy, table, (own, there), takes_part)?;
    Some(Gap { source_oid: table.oid, table: own.name.clone(), cause })
}

/// The same for one whose table there is known already.
pub(super) fn attached_otherwise(
    hierarchy: Hierarchy,
    table: &SourceTable,
    (own, there): (&TargetTable, &HashMap<u32, TargetTable>),
    takes_part: impl Fn(u32) -> bool,
) -> Option<Cause> {
    // A root that is left out is none on the target.
    let parent = table.ancestors.first().filter(|parent| takes_part(parent.oid));
    let is_another = match (hierarchy, &parent, &own.parent) {
        (_, None, None) => false,
        (Hierarchy::Same, Some(parent), Some((oid, _))) => *oid != Some(parent.oid),
        (Hierarchy::Same, _, _) => true,
        // How the target parts its rows is the operator's, but not which of them a root has.
        (Hierarchy::Own, _, Some((Some(oid), _))) => takes_part(*oid) && !table.is_below(*oid),
        (Hierarchy::Own, _, _) => false,
    };
    is_another.then(|| Cause::Attached {
        // By its name there, where it may be renamed yet.
        source: parent.map(|parent| there.get(&parent.oid).map_or(&parent.name, |there| &there.name).clone()),
        target: own.parent.as_ref().map(|(_, name)| name.clone()),
        bounds: None,
        is_there: parent.is_none_or(|parent| there.contains_key(&parent.oid)),
    })
}

/// What makes a table (`sql`) a partition of the one that it is one of on the source, and of
/// no other: of the source's, its bounds there, and whether the target has it.
pub(super) fn remedy(
    sql: &str,
    (source, bounds, is_there): (Option<&TableName>, Option<&str>, bool),
    target: Option<&TableName>,
) -> String {
    let bounds = bounds.unwrap_or("… (its bounds as on the source)");
    let detach = target.map(|parent| format!("ALTER TABLE {} DETACH PARTITION {sql};", parent.sql()));
    let attach = source.map(|parent| match is_there {
        true => format!("ALTER TABLE {} ATTACH PARTITION {sql} {bounds};", parent.sql()),
        false => format!("take that one in first: walferry add '{parent}'"),
    });
    match (detach, attach) {
        (Some(detach), Some(attach)) => format!("do the same there: {detach} {attach}"),
        (detach, attach) => format!("do the same there: {}", detach.or(attach).unwrap_or_default()),
    }
}

/// Fills in the bounds of those that are to be attached.
///
/// # Errors
/// When the source cannot be asked.
pub async fn with_bounds(source: &Session, gaps: &mut [Gap]) -> Result<(), DbError> {
    let mut wanted = gaps.iter_mut().filter_map(|gap| match &mut gap.cause {
        Cause::Attached { source: Some(_), bounds, .. } => Some((gap.source_oid, bounds)),
        _ => None,
    });
    let Some(first) = wanted.next() else { return Ok(()) };
    let known: HashMap<u32, String> = tables::bounds(source).await?.into_values().collect();
    for (oid, bounds) in std::iter::once(first).chain(wanted) {
        *bounds = known.get(&oid).cloned();
    }
    Ok(())
}

/// The table that one is a partition of on the target, if the source has that no
/// more, either.
pub(super) fn dropped_above(by_oid: &HashMap<u32, &SourceTable>, there: &TargetTable) -> Option<TableName> {
    let (oid, name) = there.parent.as_ref()?;
    oid.is_some_and(|oid| !by_oid.contains_key(&oid)).then(|| name.clone())
}
