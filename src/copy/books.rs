//! The board's books: what can be taken next, and how many tables are where.
//!
//! Invariant: they say what a walk over all tables would say, and are kept with
//! each change of one table, so that no step of a copy walks all of them: with
//! 20,000 tables that would be the copy's own work.

use std::collections::{BTreeMap, BTreeSet};

use crate::state::tables::TableState;

/// Who is begun first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// Whose snapshot has passed before it was read: the next one is to be read
    /// while it is fresh.
    Again,
    /// The largest first.
    InOrder,
}

/// Whether parts of a table are left to be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parts {
    /// Some are.
    Left,
    /// All are done or in work.
    Taken,
}

/// What the books know of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It can be begun.
    Begin(Turn),
    /// It waits for a snapshot, or for one newer than there is.
    Snapshot,
    /// Somebody begins it under the snapshot of this generation.
    Beginning(u64),
    /// Its rows are being copied under the snapshot of this generation.
    Copying(u64, Parts),
    /// What comes after the rows waits to be built.
    Index,
    /// Somebody builds it.
    Building,
    /// It is complete.
    Ready,
    /// It is given up.
    GivenUp,
}

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Books {
    begin: BTreeSet<(Turn, usize)>,
    parts: BTreeSet<usize>,
    index: BTreeSet<usize>,
    without_snapshot: usize,
    building: usize,
    /// Neither ready nor given up.
    open: usize,
    states: BTreeMap<&'static str, usize>,
    /// Tables in work under each generation.
    generations: BTreeMap<u64, usize>,
}

/// Something that can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A table that can be begun or has parts left, or one to be indexed.
    Table(usize),
    /// Nothing now; others may still fail at what they do.
    Nothing,
    /// Nothing, ever again.
    Over,
}

impl Books {
    /// Enters a table.
    pub(super) fn enter(&mut self, table: usize, line: Line) {
        match line {
            Line::Begin(turn) => {
                self.begin.insert((turn, table));
            }
            Line::Copying(_, Parts::Left) => {
                self.parts.insert(table);
            }
            Line::Index => {
                self.index.insert(table);
            }
            _ => {}
        }
        for count in self.counts(line) {
            *count += 1;
        }
    }

    /// Strikes a table out, as it was entered.
    pub(super) fn strike(&mut self, table: usize, line: Line) {
        match line {
            Line::Begin(turn) => {
                self.begin.remove(&(turn, table));
            }
            Line::Copying(_, Parts::Left) => {
                self.parts.remove(&table);
            }
            Line::Index => {
                self.index.remove(&table);
            }
            _ => {}
        }
        for count in self.counts(line) {
            *count = count.saturating_sub(1);
        }
        self.generations.retain(|_, tables| *tables > 0);
        self.states.retain(|_, tables| *tables > 0);
    }

    /// The numbers that a table of this line counts in.
    fn counts(&mut self, line: Line) -> Vec<&mut usize> {
        let mut counts = vec![self.states.entry(state(line).as_str()).or_default()];
        match line {
            Line::Snapshot => counts.push(&mut self.without_snapshot),
            Line::Building => counts.push(&mut self.building),
            Line::Beginning(generation) | Line::Copying(generation, _) => {
                counts.push(self.generations.entry(generation).or_default());
            }
            Line::Begin(_) | Line::Index | Line::Ready | Line::GivenUp => {}
        }
        if !matches!(line, Line::Ready | Line::GivenUp) {
            counts.push(&mut self.open);
        }
        counts
    }

    /// The next table to take, when so many may have their indexes built at
    /// the same time. The books are not changed by it.
    pub(super) fn next(&self, index_jobs: usize) -> Next {
        if let Some((Turn::Again, table)) = self.begin.first() {
            return Next::Table(*table);
        }
        let begin = self.begin.first().map(|(_, table)| table);
        let index = self.index.first().filter(|_| self.has_room(index_jobs));
        match [begin, self.parts.first(), index].into_iter().flatten().min() {
            Some(table) => Next::Table(*table),
            None if self.open == 0 => Next::Over,
            None => Next::Nothing,
        }
    }

    /// Whether one more table may have its indexes built.
    pub(super) fn has_room(&self, index_jobs: usize) -> bool {
        self.building < index_jobs
    }

    /// Whether a table waits for a snapshot that there is not.
    pub(super) fn wants_snapshot(&self) -> bool {
        self.without_snapshot > 0
    }

    /// Whether a table is to be begun under the present snapshot.
    pub(super) fn can_begin(&self) -> bool {
        !self.begin.is_empty()
    }

    /// Whether any table is in work under this generation.
    pub(super) fn uses(&self, generation: u64) -> bool {
        self.generations.contains_key(&generation)
    }

    /// Tables by the state that the metrics show.
    pub(super) fn count(&self, state: TableState) -> usize {
        self.states.get(state.as_str()).copied().unwrap_or_default()
    }
}

fn state(line: Line) -> TableState {
    match line {
        Line::Begin(_) | Line::Snapshot | Line::Beginning(_) | Line::GivenUp => TableState::Waiting,
        Line::Copying(..) => TableState::Copying,
        Line::Index | Line::Building => TableState::Indexing,
        Line::Ready => TableState::Ready,
    }
}
