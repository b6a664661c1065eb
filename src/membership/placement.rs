//! Which tables partitions are of on the target, and with which bounds, beside the
//! source's: what has to be the same there, and what is the operator's.
//!
//! Invariant: a partition that is one of another table there, or of none, or has other
//! bounds, is named before rows are sent to it. Where the schema is the operator's that is
//! so from the moment on that the source's place or bounds are others than when the rows
//! were copied first, and of a table that came later; how the rows of a root that is
//! published as one are parted stays the operator's.

use std::collections::HashMap;

use super::SourceTable;
use super::gap::{Cause, Gap};
use super::placing::Placing;
use super::publishing::root_in_name;
use crate::catalog::bounds::are_alike;
use crate::catalog::publication::Published;
use crate::config::SchemaMode;
use crate::sql::TableName;
use crate::state::places::{Former, TargetTable};

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

/// What partitions have to be.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// By the origin of the schema.
    pub hierarchy: Hierarchy,
    /// What the tables belonged to when they were copied first, by oids.
    pub formerly: &'a HashMap<u32, Former>,
    /// What is published.
    pub published: &'a HashMap<u32, Published>,
    /// The target has refused a row: then all bounds are looked at.
    pub is_refused: bool,
}

impl Rules<'_> {
    /// What the place of a table has to be: also in an own hierarchy the source's, once
    /// it has got another one there, and if the target parts those rows as well.
    pub fn hierarchy_of(&self, table: &SourceTable, there: &HashMap<u32, TargetTable>) -> Hierarchy {
        let is_moved = || self.formerly.get(&table.oid).is_some_and(|was| was.parents != table.above());
        let is_parted = |oid: u32| {
            let is_of = |there: &TargetTable| there.parent.as_ref().is_some_and(|(parent, _)| *parent == Some(oid));
            there.get(&oid).is_some_and(|root| root.is_bare_root) || there.values().any(is_of)
        };
        match self.hierarchy {
            Hierarchy::Own if is_moved() && table.ancestors.first().is_none_or(|above| is_parted(above.oid)) => {
                Hierarchy::Same
            }
            hierarchy => hierarchy,
        }
    }

    /// Whether a partition has to have the source's bounds.
    fn count_bounds_of(&self, table: &SourceTable) -> bool {
        let was = || self.formerly.get(&table.oid).and_then(|was| was.bounds.as_deref());
        let are_others = || was().zip(table.bounds.as_deref()).is_some_and(|(was, is)| !are_alike(was, is));
        self.hierarchy == Hierarchy::Same
            || self.is_refused
            || root_in_name(self.published, table).is_none() && are_others()
    }
}

/// What a partition is one of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Home {
    /// That table, by its name on the target.
    pub parent: TableName,
    /// The partition's bounds, in the server's words.
    pub bounds: String,
}

/// A table that is a partition of another table on the target, or of none, or one with
/// other bounds.
pub fn misplaced(
    rules: &Rules<'_>,
    table: &SourceTable,
    there: &HashMap<u32, TargetTable>,
    takes_part: impl Fn(u32) -> bool,
) -> Option<Gap> {
    let own = there.get(&table.oid)?;
    let cause = attached_otherwise((rules, rules.hierarchy), table, (own, there), takes_part)?;
    Some(Gap { source_oid: table.oid, table: own.name.clone(), cause })
}

/// The same for one whose table there is known already.
pub(super) fn attached_otherwise(
    (rules, hierarchy): (&Rules<'_>, Hierarchy),
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
    let is_of_the_same = parent.zip(own.parent.as_ref()).is_some_and(|(parent, (oid, _))| *oid == Some(parent.oid));
    let bounds = table.bounds.as_deref().zip(own.bounds.as_deref());
    let has_other_bounds = || {
        is_of_the_same && rules.count_bounds_of(table) && bounds.is_some_and(|(here, there)| !are_alike(here, there))
    };
    let words = |bounds: &Option<String>| bounds.clone().unwrap_or_default();
    (is_another || has_other_bounds()).then(|| Cause::Attached {
        source: parent.map(|parent| Home {
            // By its name there, where it may be renamed yet.
            parent: there.get(&parent.oid).map_or(&parent.name, |there| &there.name).clone(),
            bounds: words(&table.bounds),
        }),
        target: own.parent.as_ref().map(|(_, name)| Home { parent: name.clone(), bounds: words(&own.bounds) }),
        is_there: parent.is_none_or(|parent| there.contains_key(&parent.oid)),
        how: Placing::Unsaid,
    })
}

/// For people: what a table is a partition of on the source, and what on the target.
pub(super) fn differing(source: Option<&Home>, target: Option<&Home>) -> String {
    match (source, target) {
        (Some(source), Some(target)) if source.parent == target.parent => format!(
            "is a partition of {} {} on the source and {} on the target",
            source.parent, source.bounds, target.bounds
        ),
        (source, target) => {
            let of = |home: Option<&Home>| match home {
                Some(home) => format!("a partition of {}", home.parent),
                None => "no partition".to_owned(),
            };
            format!("is {} on the source and {} on the target", of(source), of(target))
        }
    }
}

/// A partition that a target of the operator's own lacks, whose rows come in the name of
/// this table.
pub fn lacking(table: &SourceTable, root: &TableName) -> Option<Gap> {
    let (parent, bounds) = (&table.ancestors.first()?.name, table.bounds.as_deref()?);
    let create = Some(format!("CREATE TABLE {} PARTITION OF {} {bounds};", table.name.sql(), parent.sql()));
    let cause = Cause::NoPlace { root: root.clone(), create };
    Some(Gap { source_oid: table.oid, table: table.name.clone(), cause })
}

/// The table that one is a partition of on the target, if the source has that no
/// more, either.
pub(super) fn dropped_above(by_oid: &HashMap<u32, &SourceTable>, there: &TargetTable) -> Option<TableName> {
    let (oid, name) = there.parent.as_ref()?;
    oid.is_some_and(|oid| !by_oid.contains_key(&oid)).then(|| name.clone())
}
