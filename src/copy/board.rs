//! The board: what is left of the copy, and who does it.
//!
//! ```text
//!           begin            last part committed           objects built
//! waiting ────────► copying ─────────────────────► indexing ────────────► ready
//!    ▲                 │ a connection was lost,       │ ▲
//!    │                 │ or the table written anew    └─┘
//!    └─────────────────┘ (once no part is at work)
//! ```
//!
//! Invariants: the parts of a table are of one attempt under one snapshot; a
//! table is begun anew only when none of its parts is at work any more, so no
//! row of an attempt that was given up can come in behind the emptying; one that
//! was written anew on the source is begun under a newer snapshot only. A table
//! whose every attempt is cut off is given up after [`ATTEMPTS`], one that is
//! written anew before each of them after [`REWRITES`]; the others go on.
//!
//! No I/O here: the workers ask what to do, and say how it went. No step walks
//! all tables (`books`); only a snapshot that comes or goes does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::books::{Books, Line, Next, Parts, Turn};
use super::cuts::{Cuts, Failure};
use super::plan::RowsPlan;
use super::rows::Tally;
use crate::config::Side;
use crate::state::tables::TableState;

/// Attempts at a table that its connections did not outlive. A single cut may
/// hit any table, the second still be bad luck; a limit on the life of
/// connections meets the first attempt at a random moment, and each later one
/// with its whole length.
const ATTEMPTS: usize = 5;

/// Snapshots that a table is given because it was written anew, or emptied, on
/// the source before it was read. Such a table comes first under the next
/// snapshot, so a second time is bad luck; who does it every few seconds has to
/// be asked to stop.
const REWRITES: usize = 10;

/// What the target's table may hold of an earlier attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leftover {
    /// Nothing: it was never begun.
    Nothing,
    /// Rows, perhaps even all of them.
    Rows,
}

/// Where a table is when the board is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seed {
    /// Its rows are to be copied.
    Rows(Leftover),
    /// Its rows are there.
    Indexes,
}

/// Something to do for a worker.
#[derive(Clone)]
pub(super) enum Task {
    /// Empty the table where something is left over, then say [`Board::begun`].
    Begin { table: usize, plan: Arc<RowsPlan>, leftover: Leftover },
    /// Copy a part of a table that was begun.
    Part { table: usize, part: usize, plan: Arc<RowsPlan>, tally: Arc<Tally> },
    /// Build what comes after the rows; with the tally of these if they were
    /// copied in this run.
    Index { table: usize, tally: Option<Arc<Tally>> },
}

/// What follows on a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Other parts are left or at work.
    More,
    /// It was the last: to be recorded, then [`Board::rows_there`].
    Complete,
    /// Another part was lost: the table is begun anew.
    Broken,
}

enum Stage {
    Waiting(Leftover),
    Beginning(Arc<RowsPlan>),
    Copying(Copying),
    Indexing(Taken),
    Ready,
    GivenUp,
}

struct Copying {
    plan: Arc<RowsPlan>,
    tally: Arc<Tally>,
    left: VecDeque<usize>,
    at_work: usize,
    is_broken: bool,
}

/// Whether somebody builds a table's indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Taken {
    /// Somebody does.
    Yes,
    /// They wait.
    No,
}

struct Entry {
    stage: Stage,
    plan: Option<Arc<RowsPlan>>,
    /// Of the rows that are there.
    tally: Option<Arc<Tally>>,
    cuts: Cuts,
    rewritten: Rewritten,
}

/// How a table was written anew on the source before it was read.
#[derive(Clone, Copy, Default)]
struct Rewritten {
    times: usize,
    /// The last generation that it has passed, if any: it needs a newer one.
    passed: Option<u64>,
}

struct Inner {
    entries: Vec<Entry>,
    books: Books,
    /// The snapshot that tables can be begun under.
    generation: Option<u64>,
    /// Tables whose indexes may be built at the same time.
    index_jobs: usize,
    at_work: usize,
    worked_at: Instant,
    /// Entries looked at so far: what the copy's own work grows with.
    #[cfg(test)]
    visits: usize,
}

/// See the module.
pub(super) struct Board {
    inner: Mutex<Inner>,
    changed: Notify,
}

/// A table that every attempt failed on.
#[derive(Debug)]
pub(super) struct GivenUp {
    pub(super) table: usize,
    pub(super) cuts: Cuts,
    /// How often it was written anew before it was read.
    pub(super) rewrites: usize,
}

impl Board {
    /// Tables in the order in which they are begun: largest first. The indexes
    /// of so many of them are built at the same time.
    pub(super) fn new(tables: impl IntoIterator<Item = (Seed, Cuts)>, index_jobs: usize) -> Self {
        let entry = |(seed, cuts)| {
            let stage = match seed {
                Seed::Rows(leftover) => Stage::Waiting(leftover),
                Seed::Indexes => Stage::Indexing(Taken::No),
            };
            let mut entry = Entry { stage, plan: None, tally: None, cuts, rewritten: Rewritten::default() };
            entry.settle();
            entry
        };
        let mut inner = Inner {
            entries: tables.into_iter().map(entry).collect(),
            books: Books::default(),
            generation: None,
            index_jobs: index_jobs.max(1),
            at_work: 0,
            worked_at: Instant::now(),
            #[cfg(test)]
            visits: 0,
        };
        inner.write_books();
        Board { inner: Mutex::new(inner), changed: Notify::new() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes an entry and wakes whoever waits.
    fn change<T>(&self, table: usize, act: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        let done = self.inner().change(table, act);
        self.changed.notify_waiters();
        done
    }

    /// Changes all entries and wakes whoever waits.
    fn change_all(&self, act: impl FnOnce(&mut Inner)) {
        {
            let mut inner = self.inner();
            act(&mut inner);
            inner.write_books();
        }
        self.changed.notify_waiters();
    }

    /// Waits until `look` finds something.
    async fn until<T>(&self, mut look: impl FnMut(&mut Inner) -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Before the look, so that no change falls in between.
            changed.as_mut().enable();
            if let Some(found) = look(&mut self.inner()) {
                return found;
            }
            changed.await;
        }
    }

    /// The next thing to do; `None` when all is done or given up. Waits while
    /// others may still fail at what they do.
    pub(super) async fn next(&self) -> Option<Task> {
        self.until(Inner::pick).await
    }

    /// A snapshot is there: tables can be begun under it, as these plans say.
    pub(super) fn snapshot(&self, generation: u64, plans: Vec<(usize, Arc<RowsPlan>)>) {
        self.change_all(|inner| {
            for entry in &mut inner.entries {
                entry.plan = None;
            }
            for (table, plan) in plans {
                if let Some(entry) = inner.entries.get_mut(table) {
                    entry.plan = Some(plan);
                }
            }
            inner.generation = Some(generation);
        });
    }

    /// A snapshot is gone. Tables that have parts left under it cannot be
    /// completed: these must see the same rows in the same places. A table whose
    /// parts are all in work goes on, as each session has the snapshot for itself.
    pub(super) fn snapshot_lost(&self, generation: u64) {
        self.change_all(|inner| {
            inner.generation = inner.generation.filter(|present| *present != generation);
            for entry in &mut inner.entries {
                if let Stage::Copying(copying) = &mut entry.stage
                    && copying.plan.generation == generation
                    && !copying.left.is_empty()
                {
                    copying.break_off();
                    entry.settle();
                }
            }
        });
    }

    /// Waits until a table could be begun if only there were a snapshot, or a
    /// newer one.
    pub(super) async fn snapshot_wanted(&self) {
        self.until(|inner| inner.books.wants_snapshot().then_some(())).await;
    }

    /// Waits until a table is to be begun under the present snapshot.
    pub(super) async fn beginning_wanted(&self) {
        self.until(|inner| inner.books.can_begin().then_some(())).await;
    }

    /// Whether anything is read under this snapshot, or will be.
    pub(super) fn needs(&self, generation: u64) -> bool {
        let inner = self.inner();
        let books = &inner.books;
        let is_present = inner.generation == Some(generation);
        books.uses(generation) || is_present && (books.can_begin() || books.wants_snapshot())
    }

    /// The tables whose rows are not there yet.
    pub(super) fn without_rows(&self) -> Vec<usize> {
        let inner = self.inner();
        let is_without =
            |entry: &Entry| matches!(entry.stage, Stage::Waiting(_) | Stage::Beginning(_) | Stage::Copying(_));
        (0..).zip(&inner.entries).filter(|(_, entry)| is_without(entry)).map(|(table, _)| table).collect()
    }

    /// The table was recorded as begun: its first part is the caller's, whose
    /// session has the snapshot. `None` when it cannot be completed, as that has
    /// gone meanwhile.
    pub(super) fn begun(&self, table: usize, tally: &Arc<Tally>, held: impl FnOnce(u64) -> bool) -> Option<usize> {
        self.change(table, |entry| {
            let Stage::Beginning(plan) = &entry.stage else { return None };
            if plan.copies.parts.len() > 1 && !held(plan.generation) {
                entry.stage = Stage::Waiting(Leftover::Rows);
                return None;
            }
            entry.stage = Stage::Copying(Copying {
                left: (1..plan.copies.parts.len()).collect(),
                plan: Arc::clone(plan),
                tally: Arc::clone(tally),
                at_work: 1,
                is_broken: false,
            });
            Some(0)
        })
        .flatten()
    }

    /// The table was written anew on the source, or emptied, since the snapshot
    /// of this generation: what that would show of it is not what it held. It is
    /// begun under a newer one.
    pub(super) fn rewritten(&self, table: usize, generation: u64) {
        self.change(table, |entry| {
            match &mut entry.stage {
                Stage::Beginning(_) => entry.stage = Stage::Waiting(Leftover::Rows),
                Stage::Copying(copying) => {
                    copying.at_work = copying.at_work.saturating_sub(1);
                    copying.break_off();
                }
                Stage::Waiting(_) | Stage::Indexing(_) | Stage::Ready | Stage::GivenUp => {}
            }
            if entry.rewritten.passed < Some(generation) {
                entry.rewritten = Rewritten { times: entry.rewritten.times + 1, passed: Some(generation) };
            }
            entry.settle();
        });
    }

    /// A part is committed.
    pub(super) fn part_done(&self, table: usize) -> After {
        let after = self.change(table, |entry| {
            let Stage::Copying(copying) = &mut entry.stage else { return After::Broken };
            if !copying.is_broken && copying.left.is_empty() && copying.at_work == 1 {
                return After::Complete;
            }
            copying.at_work = copying.at_work.saturating_sub(1);
            let after = if copying.is_broken { After::Broken } else { After::More };
            entry.settle();
            after
        });
        after.unwrap_or(After::Broken)
    }

    /// All rows are there, and recorded. Says whether the caller is to build
    /// what comes after: else somebody will, when there is room for one more.
    pub(super) fn rows_there(&self, table: usize, tally: &Arc<Tally>) -> Taken {
        let taken = {
            let mut inner = self.inner();
            let taken = if inner.books.has_room(inner.index_jobs) { Taken::Yes } else { Taken::No };
            inner.change(table, |entry| {
                entry.stage = Stage::Indexing(taken);
                entry.tally = Some(Arc::clone(tally));
                entry.cuts = Cuts::default();
            });
            taken
        };
        self.changed.notify_waiters();
        taken
    }

    /// An object was built: what was done is not lost with the next connection.
    pub(super) fn object_built(&self, table: usize) {
        self.change(table, |entry| entry.cuts = Cuts::default());
    }

    /// The table is complete, or there is nothing to do about it.
    pub(super) fn ready(&self, table: usize) {
        self.change(table, |entry| {
            entry.stage = Stage::Ready;
            entry.tally = None;
        });
    }

    /// What a worker did about the table was cut off; with a failure when it
    /// had really begun. Says whether the table is given up.
    pub(super) fn failed(&self, table: usize, failure: Option<Failure>, words: &str) -> Attempts {
        let attempts = self.change(table, |entry| {
            if let Some(failure) = failure {
                entry.cuts.failures.push(failure);
                entry.cuts.last = words.to_owned();
            }
            match &mut entry.stage {
                Stage::Beginning(_) => entry.stage = Stage::Waiting(Leftover::Rows),
                Stage::Copying(copying) => {
                    copying.at_work = copying.at_work.saturating_sub(1);
                    copying.break_off();
                }
                Stage::Indexing(taken) => *taken = Taken::No,
                Stage::Waiting(_) | Stage::Ready | Stage::GivenUp => {}
            }
            let attempts = if entry.cuts.failures.len() >= ATTEMPTS { Attempts::Exhausted } else { Attempts::Left };
            entry.settle();
            attempts
        });
        attempts.unwrap_or(Attempts::Left)
    }

    /// The copy as a whole was cut off: each table that was in work has failed.
    /// Returns what every table has met so far.
    pub(super) fn cut_off(&self, side: Side, words: &str) -> Vec<Cuts> {
        let mut inner = self.inner();
        for entry in &mut inner.entries {
            if let Stage::Copying(Copying { tally, at_work: 1.., .. }) = &entry.stage {
                let failure = Failure { side, lived: tally.age(), bytes: Some(tally.bytes()) };
                entry.cuts.failures.push(failure);
                entry.cuts.last = words.to_owned();
            }
        }
        inner.entries.iter().map(|entry| entry.cuts.clone()).collect()
    }

    /// Bytes that the present attempt at a table has brought over; `None` when
    /// its rows are there.
    pub(super) fn bytes(&self, table: usize) -> Option<u64> {
        let inner = self.inner();
        match inner.entries.get(table).map(|entry| &entry.stage) {
            Some(Stage::Copying(copying)) => Some(copying.tally.bytes()),
            Some(Stage::Indexing(_) | Stage::Ready) | None => None,
            Some(_) => Some(0),
        }
    }

    /// The tables that were given up.
    pub(super) fn given_up(&self) -> Vec<GivenUp> {
        let inner = self.inner();
        let is_given_up = |entry: &Entry| matches!(entry.stage, Stage::GivenUp);
        let given_up = |(table, entry): (usize, &Entry)| {
            let rewrites = if entry.rewritten.times >= REWRITES { entry.rewritten.times } else { 0 };
            GivenUp { table, cuts: entry.cuts.clone(), rewrites }
        };
        (0..).zip(&inner.entries).filter(|(_, entry)| is_given_up(entry)).map(given_up).collect()
    }

    /// Tables by the state that the metrics show.
    pub(super) fn count(&self, state: TableState) -> usize {
        self.inner().books.count(state)
    }

    /// Says that rows flow or an object is built, until the guard is dropped.
    pub(super) fn at_work(&self) -> AtWork<'_> {
        self.inner().at_work += 1;
        AtWork { board: self }
    }

    /// Whether nobody has been at work for this long.
    pub(super) fn is_idle_for(&self, duration: Duration) -> bool {
        let inner = self.inner();
        inner.at_work == 0 && inner.worked_at.elapsed() >= duration
    }
}

/// Whether a table is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempts {
    /// It is.
    Left,
    /// It is not: it was cut off too often.
    Exhausted,
}

/// Somebody is at work.
pub(super) struct AtWork<'a> {
    board: &'a Board,
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let mut inner = self.board.inner();
        inner.at_work = inner.at_work.saturating_sub(1);
        inner.worked_at = Instant::now();
    }
}

impl Inner {
    /// Changes an entry, and its line in the books.
    fn change<T>(&mut self, table: usize, act: impl FnOnce(&mut Entry) -> T) -> Option<T> {
        self.visit(1);
        let entry = self.entries.get_mut(table)?;
        let before = entry.line(self.generation);
        let done = act(entry);
        let after = entry.line(self.generation);
        if before != after {
            self.books.strike(table, before);
            self.books.enter(table, after);
        }
        Some(done)
    }

    /// Writes the books anew.
    fn write_books(&mut self) {
        self.visit(self.entries.len());
        self.books = Books::default();
        for (table, entry) in self.entries.iter().enumerate() {
            self.books.enter(table, entry.line(self.generation));
        }
    }

    #[cfg(test)]
    fn visit(&mut self, entries: usize) {
        self.visits += entries;
    }

    #[cfg(not(test))]
    fn visit(&self, _entries: usize) {}

    /// `Some(None)` when there will never be anything to do again.
    fn pick(&mut self) -> Option<Option<Task>> {
        match self.books.next(self.index_jobs) {
            Next::Table(table) => self.change(table, |entry| entry.take(table)).flatten().map(Some),
            Next::Nothing => None,
            Next::Over => Some(None),
        }
    }
}

impl Entry {
    fn take(&mut self, table: usize) -> Option<Task> {
        match &mut self.stage {
            Stage::Indexing(taken @ Taken::No) => {
                *taken = Taken::Yes;
                Some(Task::Index { table, tally: self.tally.clone() })
            }
            Stage::Waiting(leftover) => {
                let (plan, leftover) = (Arc::clone(self.plan.as_ref()?), *leftover);
                self.stage = Stage::Beginning(Arc::clone(&plan));
                Some(Task::Begin { table, plan, leftover })
            }
            Stage::Copying(copying) => {
                let part = copying.left.pop_front()?;
                copying.at_work += 1;
                let (plan, tally) = (Arc::clone(&copying.plan), Arc::clone(&copying.tally));
                Some(Task::Part { table, part, plan, tally })
            }
            Stage::Beginning(_) | Stage::Indexing(Taken::Yes) | Stage::Ready | Stage::GivenUp => None,
        }
    }

    /// Moves on once nobody is at work on the table: an attempt that is broken
    /// off begins anew, or never again.
    fn settle(&mut self) {
        match &self.stage {
            Stage::Copying(copying) if copying.is_broken && copying.at_work == 0 => {
                copying.tally.begin_anew();
                self.stage = Stage::Waiting(Leftover::Rows);
            }
            _ => {}
        }
        let is_exhausted = match self.stage {
            Stage::Waiting(_) => self.cuts.failures.len() >= ATTEMPTS || self.rewritten.times >= REWRITES,
            Stage::Indexing(Taken::No) => self.cuts.failures.len() >= ATTEMPTS,
            _ => false,
        };
        if is_exhausted {
            self.stage = Stage::GivenUp;
        }
    }

    /// What the books know of it while the snapshot of this generation is there.
    fn line(&self, generation: Option<u64>) -> Line {
        match &self.stage {
            Stage::Waiting(_) => {
                let is_planned = self.plan.as_ref().is_some_and(|plan| Some(plan.generation) == generation);
                let is_newer = generation > self.rewritten.passed;
                let turn = if self.rewritten.times > 0 { Turn::Again } else { Turn::InOrder };
                if is_planned && is_newer { Line::Begin(turn) } else { Line::Snapshot }
            }
            Stage::Beginning(plan) => Line::Beginning(plan.generation),
            Stage::Copying(copying) => {
                let parts = if copying.left.is_empty() { Parts::Taken } else { Parts::Left };
                Line::Copying(copying.plan.generation, parts)
            }
            Stage::Indexing(Taken::No) => Line::Index,
            Stage::Indexing(Taken::Yes) => Line::Building,
            Stage::Ready => Line::Ready,
            Stage::GivenUp => Line::GivenUp,
        }
    }
}

impl Copying {
    /// No further part is begun; those at work come to their end.
    fn break_off(&mut self) {
        self.is_broken = true;
        self.left.clear();
    }
}

#[cfg(test)]
#[path = "board_test.rs"]
mod tests;
