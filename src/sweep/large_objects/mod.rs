//! Large objects: carried with the copy, then followed, and exact once the
//! source's writes have stopped.
//!
//! Invariant: a pass makes the target's objects of this migration equal to what
//! one snapshot of the source sees in oid, length, content and comment, and
//! touches no others. An object is the migration's if its oid is in
//! `walferry.large_object_oids`, which is written in the transaction that creates
//! it; so a pass that was killed is simply run again.
//!
//! ```text
//! pages may be read, and a pass has ended before ─► delta: what has changed since
//! otherwise                                      ─► whole: contents compared by hash
//! a row that names an object                     ─► hints: that object, at once
//! ```
//!
//! Source: `src/backend/storage/large_object/inv_api.c`,
//! `src/backend/libpq/be-fsstubs.c`.

mod bound;
mod carry;
mod delta;
pub mod hints;
mod large;
pub mod owners;
mod pages;
mod reader;
mod sets;
#[cfg(test)]
mod tests;
mod whole;
mod writer;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use self::bound::{Bound, Changed};
use self::carry::Carrier;
use self::delta::Delta;
use self::pages::Snapshot;
use self::reader::{Digest, Reader};
use self::whole::Pass;
use self::writer::Writer;
use super::SweepError;
use crate::catalog::wal;
use crate::config::{ConnInfo, Settings};
use crate::observe::metrics::Metrics;
use crate::session::{DbContext, DbError, Session};
use crate::state::State;
use crate::state::large_objects::{Claim, LargeObjectsRow};
use crate::words::NAMED_OBJECTS;

pub(crate) use self::reader::READABLE_SQL;

/// Bytes of a piece: the unit in which contents are compared and transferred
/// where pages may not be read. A multiple of every possible page (2 KiB to
/// 8 KiB), small enough that a few of them are nothing to either server.
const PIECE_BYTES: i64 = 1 << 20;

/// Objects handled by one statement: large enough that 100,000 objects are a
/// few hundred round trips, small enough for the locks of one transaction that
/// unlinks them (max_locks_per_transaction 64 × max_connections 22 of a small
/// server).
const BATCH_OBJECTS: usize = 1000;

/// Bytes of contents of small objects that are transferred together.
const GROUP_BYTES: i64 = 8 << 20;

/// What a pass over the large objects did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LargeObjectReport {
    /// Objects on the source.
    pub total: u64,
    /// Created on the target.
    pub created: u64,
    /// Changed on the target.
    pub updated: u64,
    /// Removed from the target.
    pub removed: u64,
    /// Bytes written to the target.
    pub bytes: u64,
}

/// Further sessions on the source, for reading side by side.
#[derive(Clone, Copy)]
pub struct Crew<'a> {
    /// Where it is.
    pub source: &'a ConnInfo,
    /// The migration's name.
    pub name: &'a str,
    /// How many at most.
    pub sessions: usize,
}

impl<'a> Crew<'a> {
    /// As many as there are copy workers.
    pub fn of(settings: &'a Settings) -> Self {
        Crew { source: &settings.source, name: &settings.name, sessions: settings.jobs }
    }
}

/// What a pass works with.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    /// A session on the source, outside of a transaction.
    pub source: &'a Session,
    /// A session on the target, outside of a transaction.
    pub target: &'a Session,
    /// The migration.
    pub state: &'a State,
    /// Counters.
    pub metrics: &'a Metrics,
    /// For sources that are large.
    pub crew: Crew<'a>,
}

/// How fast a pass goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Beside an application that uses the source.
    Beside,
    /// As fast as it can.
    Full,
}

/// Who writes: a pass holds it for each of its transactions, a hint for as long
/// as it takes. What is in it are the objects that hints have carried since the
/// pass under way took its snapshot.
pub type Turn = Mutex<HashSet<u32>>;

/// What a pass did, and what it had to leave out.
#[derive(Debug)]
pub struct Outcome {
    /// What it did.
    pub report: LargeObjectReport,
    /// [`SweepError::UnreadableLargeObjects`], [`SweepError::LargeObjectsInUse`] or both.
    pub left_out: Option<SweepError>,
}

/// Carries all large objects with the copy.
///
/// # Errors
/// [`SweepError::LargeObjectsInUse`] before anything is written, when an oid is
/// taken on the target; when a server fails. What cannot be read is a warning: the
/// last pass will not end well with it.
pub async fn copy_initial(ends: Ends<'_>) -> Result<LargeObjectReport, SweepError> {
    refuse_taken_oids(ends).await?;
    let claim = ends.state.claim_large_objects(ends.target, true).await?;
    let outcome = pass(ends, claim, Pace::Full, &Turn::default()).await?;
    match outcome.left_out {
        Some(error @ SweepError::UnreadableLargeObjects { .. }) => tracing::warn!("{error}"),
        Some(error) => return Err(error),
        None => {}
    }
    Ok(outcome.report)
}

/// Makes all large objects equal. Exact when the source is not being written to.
/// Where the copy never carried large objects, those on the target count as a
/// baseline restored by other means and are taken in.
///
/// # Errors
/// [`SweepError::UnreadableLargeObjects`] and [`SweepError::LargeObjectsInUse`]
/// after all others have been carried; when a server fails.
pub async fn final_pass(ends: Ends<'_>) -> Result<LargeObjectReport, SweepError> {
    let claim = ends.state.claim_large_objects(ends.target, false).await?;
    let outcome = pass(ends, claim, Pace::Full, &Turn::default()).await?;
    outcome.left_out.map_or(Ok(outcome.report), Err)
}

/// A pass: by what has changed where that is known, over everything otherwise.
///
/// # Errors
/// When a server fails; then it is as if there had been none.
pub async fn pass(ends: Ends<'_>, claim: Claim, pace: Pace, turn: &Turn) -> Result<Outcome, SweepError> {
    let (source, side) = (ends.source, ends.source.side());
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let begun = Instant::now();
    let mut hinted = turn.lock().await;
    hinted.clear();
    // What nobody has committed is flushed by nobody for up to fifteen seconds
    // (`LOG_SNAPSHOT_INTERVAL_MS` in `src/backend/postmaster/bgwriter.c`), and the snapshot
    // waits for it: not where somebody waits for us.
    if pace == Pace::Full {
        wal::flush_to_end(source).await?;
    }
    source.batch_execute(begin).await.during(side, "begin to read the large objects")?;
    let result = async {
        let reader = reader(ends).await?;
        let snapshot = Snapshot::read(&reader).await?;
        let done = match by_changes(ends, claim, reader, snapshot).await? {
            Some(carrier) => {
                ends.metrics.large_object_passes.with_label_values(&["changes"]).inc();
                let mut delta = Delta::new(ends, carrier, snapshot, pace);
                delta.lists().await?;
                drop(hinted);
                delta.scan(turn).await?
            }
            None => {
                ends.metrics.large_object_passes.with_label_values(&["everything"]).inc();
                Pass::new(ends, reader, claim).run().await?
            }
        };
        let took = begun.elapsed().saturating_sub(done.pauses);
        record(ends, claim, snapshot, &done, took).await?;
        done.outcome(reader.role().await?)
    }
    .await;
    let ended = source.batch_execute("ROLLBACK").await.during(side, "end reading the large objects");
    let outcome = result?;
    ended?;
    Ok(outcome)
}

/// A reader of the source with the hash that both sides know.
async fn reader(ends: Ends<'_>) -> Result<Reader<'_>, DbError> {
    let digest = Digest::of(ends.source.version().min(ends.target.version()));
    Ok(Reader::of_source(ends.source, ends.metrics).await?.with(digest))
}

/// What carries by changed pages, where that is possible.
async fn by_changes<'a>(
    ends: Ends<'a>,
    claim: Claim,
    reader: Reader<'a>,
    snapshot: Snapshot,
) -> Result<Option<Carrier<'a>>, SweepError> {
    let known = ends.state.large_objects().await?;
    let bound = known.and_then(|known| known.scan_xmin).map(Bound::new);
    let (Some(page_bytes), Some(bound)) = (reader.page_bytes(), bound) else { return Ok(None) };
    match bound.changed_before(snapshot.next) {
        Changed::Everything => Ok(None),
        changed => Ok(Some(Carrier { reader, writer: Writer::new(ends, claim), page_bytes, changed })),
    }
}

/// Records a pass, behind all its commits. The bound moves only if everything has been
/// carried: what could not be read may have changed before it.
async fn record(
    ends: Ends<'_>,
    claim: Claim,
    snapshot: Snapshot,
    done: &Done,
    took: Duration,
) -> Result<(), SweepError> {
    crate::failpoint::hit("large-objects-carried");
    let (scan_xmin, scan_xmax) = match done.unreadable.count {
        0 => (Some(snapshot.bound.get()), i64::try_from(snapshot.next).ok()),
        _ => ends.state.large_objects().await?.map_or((None, None), |known| (known.scan_xmin, known.scan_xmax)),
    };
    let row = LargeObjectsRow {
        total: count(done.report.total),
        bytes: snapshot.bytes,
        last_pass: None,
        scan_xmin,
        scan_xmax,
        pass_seconds: Some(took.as_secs_f64()),
        unreadable: count(done.unreadable.count),
        unreadable_oids: done.unreadable.oids.clone(),
    };
    ends.state.record_large_objects(ends.target, claim, &row).await?;
    ends.metrics.large_objects_unreadable.set(row.unreadable);
    Ok(())
}

/// Refuses to begin where the target has objects in the way.
async fn refuse_taken_oids(ends: Ends<'_>) -> Result<(), SweepError> {
    let reader = Reader::of_source(ends.source, ends.metrics).await?;
    let mut taken = Named::default();
    let mut above = None;
    loop {
        let listed = reader.list(above, BATCH_OBJECTS as i64).await?;
        let Some(last) = listed.last() else { break };
        above = Some(last.oid);
        let oids: Vec<u32> = listed.iter().map(|object| object.oid).collect();
        let known = writer::known(ends.target, ends.state.name(), &oids).await?;
        taken.extend(known.iter().filter(|(_, known)| !known.is_ours).map(|(oid, _)| *oid));
    }
    taken.in_use().map_or(Ok(()), Err)
}

/// What a pass did, before it is judged.
struct Done {
    report: LargeObjectReport,
    unreadable: Named,
    in_use: Named,
    /// Time that it spent resting.
    pauses: Duration,
}

impl Done {
    fn outcome(self, role: String) -> Result<Outcome, SweepError> {
        let left_out = match (self.unreadable.unreadable(role), self.in_use.in_use()) {
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => Some(one),
            (Some(one), Some(other)) => Some(SweepError::Both(Box::new(one), Box::new(other))),
        };
        Ok(Outcome { report: self.report, left_out })
    }
}

/// Oids for an error: the first few and how many.
#[derive(Default)]
struct Named {
    oids: Vec<u32>,
    count: u64,
}

impl Named {
    fn extend(&mut self, oids: impl Iterator<Item = u32>) {
        for oid in oids {
            self.count += 1;
            if self.oids.len() < NAMED_OBJECTS {
                self.oids.push(oid);
                self.oids.sort_unstable();
            }
        }
    }

    fn in_use(self) -> Option<SweepError> {
        (self.count > 0).then_some(SweepError::LargeObjectsInUse { oids: self.oids, count: self.count })
    }

    fn unreadable(self, role: String) -> Option<SweepError> {
        (self.count > 0).then_some(SweepError::UnreadableLargeObjects { role, oids: self.oids, count: self.count })
    }
}

/// A count as the state stores it.
fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
