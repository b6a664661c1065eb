//! Which sequence of the target is a sequence of the source: pure.
//!
//! Invariant: no sequence of the target is the counterpart of two, and one that was paired
//! stays with its own as long as both are there: defaults follow a sequence by its oid,
//! whatever its name is and whatever column it belongs to by now. One that was not paired
//! yet gets what is nobody's: its column's, or else the one of its name, unless that is
//! somebody's (`strangers`). A column's table is known by what it was copied to, whatever its
//! name is by now.

use std::collections::{HashMap, HashSet};

use super::catalog::Sequence;
use crate::catalog::sequences::Owner;
use crate::sql::TableName;
use crate::state::sweeps::SequencePairs;

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

/// The target's counterpart of a source's sequence, by its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// It belongs to the same column, whatever its name.
    OfColumn(usize),
    /// By what was recorded, whatever its name and whatever it belongs to.
    Recorded(usize),
    /// By name.
    Named(usize),
    /// There is none.
    None,
}

impl Match {
    /// The counterpart's place in the list.
    pub fn place(self) -> Option<usize> {
        match self {
            Match::OfColumn(place) | Match::Recorded(place) | Match::Named(place) => Some(place),
            Match::None => None,
        }
    }
}

/// What is known of both sides beside their sequences.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// What was paired, as of earlier passes.
    pub pairs: SequencePairs,
    /// The target's present names of all tables that are known, by the source's oids.
    pub tables: HashMap<u32, TableName>,
}

/// Finds the counterparts, each one's at its place.
pub(super) fn matches(ours: &[Sequence], theirs: &[Sequence], records: &Records) -> Vec<Match> {
    let by_name: HashMap<&TableName, usize> = places(theirs.iter().map(|sequence| &sequence.name));
    let by_oid: HashMap<u32, usize> = places(theirs.iter().map(|sequence| sequence.oid));
    let columns = Columns::of(ours, theirs, records);
    let recorded = |sequence: &Sequence| {
        let place = by_oid.get(records.pairs.own.get(&sequence.oid)?).copied()?;
        let is_of_column = columns.owned_there(sequence).is_some_and(|owned| owned.contains(&place));
        Some(if is_of_column { Match::OfColumn(place) } else { Match::Recorded(place) })
    };
    let mut found = vec![Match::None; ours.len()];
    let mut taken: HashSet<usize> = HashSet::new();
    let mut fill = |pick: &dyn Fn(&Sequence) -> Option<Match>| {
        for (matched, sequence) in found.iter_mut().zip(ours).filter(|(matched, _)| **matched == Match::None) {
            let free = pick(sequence).filter(|free| free.place().is_some_and(|place| taken.insert(place)));
            *matched = free.unwrap_or(Match::None);
        }
    };
    fill(&recorded);
    fill(&|sequence| columns.only(sequence).map(Match::OfColumn));
    fill(&|sequence| by_name.get(&sequence.name).copied().map(Match::Named));
    found
}

fn places<K: std::hash::Hash + Eq>(keys: impl Iterator<Item = K>) -> HashMap<K, usize> {
    keys.enumerate().map(|(place, key)| (key, place)).collect()
}

/// What belongs to columns, on both sides.
struct Columns<'s> {
    theirs: &'s [Sequence],
    by_owner: HashMap<&'s Owner, Vec<usize>>,
    /// How many sequences of the source belong to one column.
    siblings: HashMap<&'s Owner, usize>,
    /// Where tables that are known are on the target.
    tables: &'s HashMap<u32, TableName>,
    /// These names, which are no other table's.
    anothers: HashSet<&'s TableName>,
}

impl<'s> Columns<'s> {
    fn of(ours: &'s [Sequence], theirs: &'s [Sequence], records: &'s Records) -> Self {
        let mut by_owner: HashMap<&Owner, Vec<usize>> = HashMap::new();
        for (place, sequence) in theirs.iter().enumerate() {
            if let Some((owner, _)) = &sequence.owner {
                by_owner.entry(owner).or_default().push(place);
            }
        }
        let mut siblings: HashMap<&Owner, usize> = HashMap::new();
        for (owner, _) in ours.iter().filter_map(|sequence| sequence.owner.as_ref()) {
            *siblings.entry(owner).or_default() += 1;
        }
        let tables = &records.tables;
        Columns { theirs, by_owner, siblings, tables, anothers: tables.values().collect() }
    }

    /// What belongs on the target to the column that a sequence of the source belongs to.
    fn owned_there(&self, sequence: &Sequence) -> Option<&[usize]> {
        let (owner, _) = sequence.owner.as_ref()?;
        let known = sequence.owner_table().and_then(|table| self.tables.get(&table.oid));
        let table = known.or_else(|| Some(&owner.table).filter(|name| !self.anothers.contains(name)))?;
        let there = Owner { table: table.clone(), column: owner.column.clone() };
        self.by_owner.get(&there).map(Vec::as_slice)
    }

    /// Of these the one of the same name, or the only one, if there is one on either side.
    fn only(&self, sequence: &Sequence) -> Option<usize> {
        let (owner, _) = sequence.owner.as_ref()?;
        let owned = self.owned_there(sequence)?;
        // The schema is the table's.
        let is_namesake = |place: &&usize| self.theirs.get(**place).is_some_and(|o| o.name.name == sequence.name.name);
        match (owned.iter().find(is_namesake), owned, self.siblings.get(owner)) {
            (Some(place), _, _) => Some(*place),
            (None, [only], Some(1)) => Some(*only),
            _ => None,
        }
    }
}
