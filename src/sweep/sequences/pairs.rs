//! Which sequence of the target is a sequence of the source: pure.
//!
//! Invariant: no sequence of the target is the counterpart of two. The column
//! goes over the name: a name may be taken by another column's sequence. A column's
//! table is known by what it was copied to, whatever its name is by now.

use std::collections::{HashMap, HashSet};

use super::catalog::Sequence;
use crate::catalog::sequences::Owner;
use crate::sql::TableName;

/// The column that a sequence of the target has to belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// This one; the target has it.
    Column(Owner),
    /// This one, which the target lacks so far.
    Lacking(Owner),
    /// None.
    Nowhere,
    /// The column's table is not taken in so far.
    Unknown,
}

impl Home {
    /// That of a sequence of the source. Whether the target has the column is seen later.
    pub fn of(ours: &Sequence, records: &Records) -> Self {
        let Some((owner, _)) = &ours.owner else { return Home::Nowhere };
        let there = ours.owner_table().and_then(|table| records.tables.get(&table.oid));
        there.map_or(Home::Unknown, |table| Home::Column(Owner { table: table.clone(), column: owner.column.clone() }))
    }

    /// The column, if the target has it.
    pub fn column(&self) -> Option<&Owner> {
        match self {
            Home::Column(owner) => Some(owner),
            Home::Lacking(_) | Home::Nowhere | Home::Unknown => None,
        }
    }
}

/// The target's counterpart of a source's sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// By owning column, whatever the name: its place in the list.
    OfColumn(usize),
    /// By name.
    Named(usize),
    /// By what was recorded when both had one name.
    Formerly(usize),
    /// There is none.
    None,
}

impl Match {
    /// The counterpart's place in the list.
    pub fn place(self) -> Option<usize> {
        match self {
            Match::OfColumn(place) | Match::Named(place) | Match::Formerly(place) => Some(place),
            Match::None => None,
        }
    }
}

/// What is known of both sides beside their sequences.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The target's oid of a sequence by the source's, as of earlier passes.
    pub pairs: HashMap<u32, u32>,
    /// The target's present names of all tables that are known, by the source's oids.
    pub tables: HashMap<u32, TableName>,
}

/// Finds the counterparts, each one's at its place.
pub(super) fn matches(ours: &[Sequence], theirs: &[Sequence], records: &Records) -> Vec<Match> {
    let mut by_name: HashMap<&TableName, usize> = HashMap::new();
    let mut by_owner: HashMap<&Owner, Vec<usize>> = HashMap::new();
    let mut by_oid: HashMap<u32, usize> = HashMap::new();
    for (place, sequence) in theirs.iter().enumerate() {
        by_name.insert(&sequence.name, place);
        by_oid.insert(sequence.oid, place);
        if let Some((owner, _)) = &sequence.owner {
            by_owner.entry(owner).or_default().push(place);
        }
    }
    // How many sequences of the source belong to one column.
    let mut siblings: HashMap<&Owner, usize> = HashMap::new();
    for (owner, _) in ours.iter().filter_map(|sequence| sequence.owner.as_ref()) {
        *siblings.entry(owner).or_default() += 1;
    }
    let anothers: HashSet<&TableName> = records.tables.values().collect();
    let of_column = |sequence: &Sequence| {
        let (owner, _) = sequence.owner.as_ref()?;
        let known = sequence.owner_table().and_then(|table| records.tables.get(&table.oid));
        let table = known.or_else(|| Some(&owner.table).filter(|name| !anothers.contains(name)))?;
        let there = Owner { table: table.clone(), column: owner.column.clone() };
        let candidates = by_owner.get(&there)?;
        // The schema is the table's.
        let is_namesake = |place: &&usize| theirs.get(**place).is_some_and(|o| o.name.name == sequence.name.name);
        match (candidates.iter().find(is_namesake), candidates.as_slice(), siblings.get(owner)) {
            (Some(place), _, _) => Some(*place),
            (None, [only], Some(1)) => Some(*only),
            _ => None,
        }
    };
    let mut found: Vec<Match> =
        ours.iter().map(|sequence| of_column(sequence).map_or(Match::None, Match::OfColumn)).collect();
    let mut taken: HashSet<usize> = found.iter().filter_map(|m| m.place()).collect();
    let mut fill = |pick: &dyn Fn(&Sequence) -> Option<usize>, kind: fn(usize) -> Match| {
        for (place, sequence) in found.iter_mut().zip(ours).filter(|(place, _)| **place == Match::None) {
            if let Some(free) = pick(sequence).filter(|free| taken.insert(*free)) {
                *place = kind(free);
            }
        }
    };
    fill(&|sequence| by_name.get(&sequence.name).copied(), Match::Named);
    fill(&|sequence| by_oid.get(records.pairs.get(&sequence.oid)?).copied(), Match::Formerly);
    found
}
