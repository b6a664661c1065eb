//! Which columns of a source's table those of a Relation message are: it has their names of
//! then, in the order of their numbers, and no numbers.
//!
//! Invariant: what was paired when the rows were copied and is still there is in every
//! message (a number is never given again); what came or went since may be. Where that
//! leaves several ways, names decide if they do, and what they decide counts as a guess.
//!
//! Source: `logicalrep_write_attrs` in `src/backend/replication/logical/proto.c`.

use std::collections::HashMap;

use crate::catalog::tables::Column;
use crate::catalog::types::ColumnType;
use crate::state::tables::Pair;

/// What the columns of a Relation message are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// These.
    Known(Vec<Column>),
    /// These, as far as names tell.
    Guessed(Vec<Column>),
    /// The table was altered more than once, or not all of its columns are published,
    /// and nothing tells.
    Unknown,
}

/// What is known of a source's table whose columns a message has.
#[derive(Clone, Copy, Debug)]
pub struct Numbers<'a> {
    /// All columns by now.
    pub now: &'a [Column],
    /// The highest number that was ever given, also to one that is gone.
    pub last: i16,
    /// The same when the rows were copied.
    pub copied: Option<i16>,
    /// The pairs.
    pub pairs: &'a [Pair],
    /// The target's columns.
    pub there: &'a [Column],
}

/// A number that a column of the message may have.
struct Slot<'a> {
    number: i16,
    now: Option<&'a Column>,
    /// The names that it is known to have had.
    names: [Option<&'a str>; 2],
    /// It is in the message: it was there at the copy, and still is.
    is_certain: bool,
}

impl Numbers<'_> {
    /// The columns of a message, which come in the order of their numbers, with these.
    ///
    /// A number is there from when it was given until the column is dropped: what was
    /// paired and is still there is in the message, what came or went since may be.
    /// Where that leaves one way, names do not matter; else they have to be known ones.
    pub fn of(&self, names: &[&str]) -> Layout {
        let slots = self.slots();
        let certain = slots.iter().filter(|slot| slot.is_certain).count();
        let column = |(slot, name): (&Slot<'_>, &&str)| match slot.now {
            Some(now) => Column { name: (*name).to_owned(), ..now.clone() },
            None => gone(slot.number, name),
        };
        let named = |chosen: &[&Slot<'_>]| chosen.iter().copied().zip(names).map(column).collect();
        let all: Vec<&Slot<'_>> = slots.iter().collect();
        let sure: Vec<&Slot<'_>> = all.iter().copied().filter(|slot| slot.is_certain).collect();
        if certain == names.len() {
            return Layout::Known(named(&sure));
        }
        if all.len() == names.len() {
            return Layout::Known(named(&all));
        }
        by_names(&slots, names).map_or(Layout::Unknown, |only| Layout::Guessed(named(&only)))
    }

    fn slots(&self) -> Vec<Slot<'_>> {
        let now: HashMap<i16, &Column> = self.now.iter().map(|column| (column.number, column)).collect();
        let pairs: HashMap<i16, &Pair> = self.pairs.iter().map(|pair| (pair.ours, pair)).collect();
        // Those that are paired and came later need not be in the message.
        let newest = self.copied.or_else(|| self.pairs.iter().map(|pair| pair.ours).max()).unwrap_or(0);
        let slot = |number: i16| {
            let (column, pair) = (now.get(&number).copied(), pairs.get(&number).copied());
            if column.is_none() && pair.is_none() && number <= newest {
                return None;
            }
            let formerly = pair.and_then(|pair| self.there.iter().find(|there| there.number == pair.theirs));
            let names = [column.map(|column| column.name.as_str()), formerly.map(|there| there.name.as_str())];
            let is_sent = |column: &Column| !column.is_generated();
            let was_sent = pair.is_some_and(|pair| !Pair::is_computed(pair.was));
            let is_certain = number <= newest && was_sent && column.is_some_and(is_sent);
            Some(Slot { number, now: column, names, is_certain })
        };
        (1..=self.last).filter_map(slot).collect()
    }
}

/// The one way to give the names to slots in their order, if there is just one: each
/// certain slot has a name, and each name is one that its slot has had.
fn by_names<'s, 'n>(slots: &'s [Slot<'n>], names: &[&str]) -> Option<Vec<&'s Slot<'n>>> {
    let takes = |slot: &Slot<'_>, name: Option<&&str>| name.is_some_and(|name| slot.names.contains(&Some(*name)));
    // For each slot from the last, the number of ways in which it and those behind it take
    // the names from each on; of more than one it does not matter how many.
    let mut ways = vec![vec![0_u8; names.len() + 1]];
    ways[0][names.len()] = 1;
    for slot in slots.iter().rev() {
        let behind = &ways[ways.len() - 1];
        let here = (0..=names.len()).map(|at| {
            let passed = if slot.is_certain { 0 } else { behind[at] };
            let taken = if takes(slot, names.get(at)) { behind[at + 1] } else { 0 };
            (passed + taken).min(2)
        });
        ways.push(here.collect());
    }
    ways.reverse();
    let mut chosen = Vec::new();
    for (slot, behind) in slots.iter().zip(ways.iter().skip(1)) {
        if takes(slot, names.get(chosen.len())) && behind[chosen.len() + 1] > 0 {
            chosen.push(slot);
        }
    }
    (ways[0][0] == 1).then_some(chosen)
}

/// A column that the source has no more; its type is the message's.
fn gone(number: i16, name: &str) -> Column {
    Column {
        number,
        name: name.to_owned(),
        type_oid: 0,
        type_sql: String::new(),
        below: ColumnType { oid: 0, modifier: -1 },
        below_sql: String::new(),
        expression: None,
        is_not_null: false,
        has_default: false,
        is_binary_safe: false,
        has_one_image: false,
        missing: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::columns::testing::{columns, pairs};

    const THERE: [(i16, &str); 3] = [(1, "id"), (2, "a"), (3, "b")];

    #[test]
    fn the_columns_of_a_message_are_known_by_their_places_or_by_names_that_they_have_had() {
        let (three, there) = (pairs(&[(1, 1), (2, 2), (3, 3)]), columns(&THERE));
        let numbers_with = |paired: &[Pair], names: &[&str], now: &[(i16, &str)], last: i16| {
            let now = columns(now);
            let layout = Numbers { now: &now, last, copied: Some(3), pairs: paired, there: &there }.of(names);
            let shown = |columns: Vec<Column>| columns.iter().map(|c| c.number).collect::<Vec<_>>();
            match layout {
                Layout::Known(columns) => (1, shown(columns)),
                Layout::Guessed(columns) => (2, shown(columns)),
                Layout::Unknown => (3, Vec::new()),
            }
        };
        let numbers = |names: &[&str], now: &[(i16, &str)], last: i16| numbers_with(&three, names, now, last);
        // Renames and exchanges leave the places alone, whatever the names are.
        assert_eq!(numbers(&["id", "x", "y"], &[(1, "id"), (2, "b"), (3, "a")], 3), (1, vec![1, 2, 3]));
        // Exchanged, changed, one dropped; one added, changed, exchanged with it.
        assert_eq!(numbers(&["id", "b", "a"], &[(1, "id"), (2, "b")], 3), (1, vec![1, 2, 3]));
        assert_eq!(
            numbers(&["id", "c", "b", "a"], &[(1, "id"), (2, "a"), (3, "b"), (4, "c")], 4),
            (1, vec![1, 2, 3, 4])
        );
        // From before one came, and after one went.
        assert_eq!(numbers(&["id", "a", "b"], &[(1, "id"), (2, "a"), (3, "b"), (4, "n")], 4), (1, vec![1, 2, 3]));
        assert_eq!(numbers(&["id", "b"], &[(1, "id"), (3, "b")], 3), (1, vec![1, 3]));
        // One went and one came: by names that are known.
        assert_eq!(numbers(&["id", "a", "b"], &[(1, "id"), (3, "b"), (4, "a")], 4), (2, vec![1, 2, 3]));
        assert_eq!(numbers(&["id", "b", "a"], &[(1, "id"), (3, "b"), (4, "a")], 4), (2, vec![1, 3, 4]));
        // And renamed after the change.
        assert_eq!(numbers(&["id", "b", "a"], &[(1, "id"), (3, "b"), (4, "e")], 4), (3, Vec::new()));
        // One that came, and is paired by now: changes from before it have none.
        let four = pairs(&[(1, 1), (2, 2), (3, 3), (4, 4)]);
        let now = [(1, "id"), (2, "a"), (3, "b"), (4, "n")];
        assert_eq!(numbers_with(&four, &["id", "a", "b"], &now, 4), (1, vec![1, 2, 3]));
        assert_eq!(numbers_with(&four, &["id", "a", "b", "n"], &now, 4), (1, vec![1, 2, 3, 4]));
        // One that came and went.
        assert_eq!(numbers(&["id", "a", "b", "n"], &[(1, "id"), (2, "a"), (3, "b")], 4), (1, vec![1, 2, 3, 4]));
    }
}
