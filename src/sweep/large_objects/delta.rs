//! A pass by what has changed since the last one.
//!
//! ```text
//! snapshot ─ oids of both sides ─ gone: unlink ─ new: create whole
//!          ├ metadata rows that changed (unlinked and created again) ─ prepare
//!          ├ comments of both sides
//!          └ blocks of pg_largeobject, several readers ─ changed pages ─ put
//! everything committed ─ the snapshot's xmin is the next pass's bound
//! ```
//!
//! Invariant: when it returns, every object of the migration is equal to what
//! the snapshot sees, if it was equal to what the last bound's snapshot saw
//! ([`super::carry`]). The bound moves only then.
//!
//! Beside it hints are looked at ([`super::hints`]), with later snapshots. An
//! object that a hint has carried since our snapshot is left alone: what we
//! know of it is older. It is newer than our bound, too, so the next pass takes
//! it up from there. `turn` makes sure that the two do not write at once.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::sync::mpsc;

use super::bound::Changed;
use super::carry::{Carrier, Prepared};
use super::pages::{self, Page, Region, Snapshot};
use super::reader::Reader;
use super::sets::{self, List};
use super::writer;
use super::{BATCH_OBJECTS, Done, Ends, LargeObjectReport, Named, Pace, Turn};
use crate::session::{DbContext, DbError, Session};
use crate::sweep::SweepError;

/// Blocks of `pg_largeobject` that a reader takes at once: 32 MiB of the usual
/// blocks, small enough to share the work out and to pause in between.
const RANGE_BLOCKS: i64 = 4096;

/// Bytes of the table that a pass beside the stream reads in a second, at most: a
/// few per cent of what a server's memory gives, and half of what a plain disk
/// does.
const BESIDE_BYTES_PER_SECOND: u64 = 256 << 20;

/// From here on a range of blocks can be read without the others (TID range scans).
const READS_RANGES: i32 = 140_000;

/// One pass.
pub(super) struct Delta<'a> {
    ends: Ends<'a>,
    carrier: Carrier<'a>,
    snapshot: Snapshot,
    pace: Pace,
    /// Objects that were carried whole under this snapshot.
    whole: HashSet<u32>,
    prepared: Prepared,
    updated: HashSet<u32>,
    in_use: Named,
    report: LargeObjectReport,
}

impl<'a> Delta<'a> {
    /// A pass from the bound to the snapshot that the source's session is in.
    pub fn new(ends: Ends<'a>, carrier: Carrier<'a>, snapshot: Snapshot, pace: Pace) -> Self {
        Delta {
            ends,
            carrier,
            snapshot,
            pace,
            whole: HashSet::new(),
            prepared: Prepared::new(),
            updated: HashSet::new(),
            in_use: Named::default(),
            report: LargeObjectReport::default(),
        }
    }

    /// The lists, the metadata, the comments: what needs the turn as a whole.
    pub async fn lists(&mut self) -> Result<(), SweepError> {
        let (source, target) = (self.carrier.reader, Reader::of_target(self.ends.target));
        let migration = self.ends.state.name();
        let (ours, theirs) =
            (List { reader: &source, migration: None }, List { reader: &target, migration: Some(migration) });
        let found = sets::objects(&ours, &theirs, source.digest()).await?;
        self.report.total = found.total;
        for gone in chunks(&found.gone) {
            self.report.removed += self.carrier.writer.unlink(gone).await?;
        }
        for new in chunks(&found.new) {
            self.create(new).await?;
        }
        let touched = self.touched().await?;
        for oids in chunks(&touched) {
            self.carrier.writer.begin().await?;
            let result = self.carrier.prepare(oids, &mut self.prepared, &mut self.updated).await;
            self.carrier.writer.end(result).await?;
        }
        self.comments(&ours, &theirs).await
    }

    /// Creates what the target does not have, and names what is in the way.
    async fn create(&mut self, oids: &[u32]) -> Result<(), SweepError> {
        let taken = writer::known(self.ends.target, self.ends.state.name(), oids).await?;
        self.in_use.extend(taken.keys().copied());
        let oids: Vec<u32> = oids.iter().copied().filter(|oid| !taken.contains_key(oid)).collect();
        self.carrier.create(&oids, &mut self.report).await?;
        self.whole.extend(oids);
        Ok(())
    }

    /// Objects that were created, unlinked and created again, or given to
    /// somebody since the bound.
    async fn touched(&self) -> Result<Vec<u32>, DbError> {
        let changed = self.carrier.changed.sql("m.xmin");
        let sql = format!("SELECT m.oid FROM pg_largeobject_metadata m WHERE {changed} ORDER BY m.oid");
        let rows = self.carrier.reader.rows(&sql, &[], "look for changed large objects").await?;
        let mut oids: Vec<u32> = rows.iter().map(|row| row.take(0)).collect::<Result<_, _>>()?;
        oids.retain(|oid| !self.whole.contains(oid));
        Ok(oids)
    }

    async fn comments(&self, ours: &List<'_>, theirs: &List<'_>) -> Result<(), SweepError> {
        let differing = sets::comments(ours, theirs, ours.reader.digest()).await?;
        for comments in differing.chunks(BATCH_OBJECTS) {
            let oids: Vec<u32> = comments.iter().map(|(oid, _)| *oid).collect();
            let known = writer::known(self.ends.target, self.ends.state.name(), &oids).await?;
            let is_ours = |(oid, _): &&(u32, Option<String>)| known.get(oid).is_some_and(|known| known.is_ours);
            let comments: Vec<_> = comments.iter().filter(is_ours).cloned().collect();
            self.carrier.writer.set_comments(&comments).await?;
        }
        Ok(())
    }

    /// Reads the blocks of the table and puts what has changed.
    pub async fn scan(mut self, turn: &Turn) -> Result<Done, SweepError> {
        let ranges = self.ranges();
        let sessions = self.sessions(ranges.len()).await?;
        let (leader, changed) = (self.carrier.reader, self.carrier.changed);
        let readers: Vec<Reader<'_>> = match sessions.as_slice() {
            [] => vec![leader],
            sessions => sessions.iter().map(|session| leader.over(session)).collect(),
        };
        let throttle = Throttle::new(self.pace, self.snapshot.bytes, ranges.len());
        let work = Mutex::new(ranges.into_iter());
        let (out, mut portions) = mpsc::channel::<Vec<Page>>(1);
        let read = async {
            // Goes with this, and so ends the writing.
            let out = out;
            let all = readers.iter().map(|reader| read_ranges(reader, &work, changed, &throttle, &out));
            try_join_all(all).await.map_err(SweepError::from)
        };
        let write = async {
            while let Some(pages) = portions.recv().await {
                self.write(pages, turn).await?;
            }
            Ok(())
        };
        tokio::try_join!(read, write)?;
        self.report.updated = self.updated.len() as u64;
        let pauses = throttle.slept() / u32::try_from(readers.len()).unwrap_or(1);
        Ok(Done { report: self.report, unreadable: Named::default(), in_use: self.in_use, pauses })
    }

    /// The blocks that the snapshot can see rows in.
    fn ranges(&self) -> Vec<Region<'static>> {
        let reader = self.carrier.reader;
        if reader.session().version() < READS_RANGES {
            return vec![Region::Whole];
        }
        let blocks = self.snapshot.bytes / (self.carrier.page_bytes * 4);
        let range = |first: i64| Region::Blocks(first..(first + RANGE_BLOCKS).min(blocks));
        (0..blocks).step_by(usize::try_from(RANGE_BLOCKS).unwrap_or(1)).map(range).collect()
    }

    /// Sessions that share the snapshot; none where the leader does it alone.
    async fn sessions(&self, ranges: usize) -> Result<Vec<Session>, DbError> {
        let (crew, leader) = (self.ends.crew, self.carrier.reader.session());
        let wanted = crew.sessions.min(ranges);
        if wanted < 2 {
            return Ok(Vec::new());
        }
        let row = leader.query_one("SELECT pg_export_snapshot()", &[]).await;
        let snapshot: String = row.during(leader.side(), "export a snapshot")?.take(0)?;
        let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{snapshot}'");
        let mut sessions = Vec::new();
        for _ in 0..wanted {
            match Session::connect(crew.source, crew.name).await {
                Ok(session) => sessions.push(session),
                // Fewer do as well; none at all, and the leader reads.
                Err(error) => tracing::debug!(%error, "no further session to read large objects with"),
            }
        }
        for session in &sessions {
            session.batch_execute(&begin).await.during(session.side(), "begin to read large objects")?;
        }
        Ok(sessions)
    }

    /// Puts a portion of changed pages, in a transaction of its own.
    async fn write(&mut self, mut pages: Vec<Page>, turn: &Turn) -> Result<(), SweepError> {
        let hinted = turn.lock().await;
        pages.retain(|page| !self.whole.contains(&page.oid) && !hinted.contains(&page.oid));
        let unknown: HashSet<u32> =
            pages.iter().map(|page| page.oid).filter(|oid| !self.prepared.contains_key(oid)).collect();
        let unknown: Vec<u32> = unknown.into_iter().collect();
        if pages.is_empty() {
            return Ok(());
        }
        self.carrier.writer.begin().await?;
        let result = async {
            if !unknown.is_empty() {
                self.carrier.prepare(&unknown, &mut self.prepared, &mut self.updated).await?;
            }
            let length = |oid: u32| self.prepared.get(&oid).copied().flatten();
            pages.retain(|page| length(page.oid).is_some());
            self.updated.extend(pages.iter().map(|page| page.oid));
            self.carrier.put(pages, |oid| length(oid).unwrap_or(0)).await
        }
        .await;
        self.report.bytes += self.carrier.writer.end(result).await?;
        Ok(())
    }
}

/// Reads ranges until none is left.
async fn read_ranges(
    reader: &Reader<'_>,
    work: &Mutex<std::vec::IntoIter<Region<'static>>>,
    changed: Changed,
    throttle: &Throttle,
    out: &mpsc::Sender<Vec<Page>>,
) -> Result<(), DbError> {
    loop {
        let next = work.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(range) = next else { return Ok(()) };
        pages::read(reader, range, changed, out).await?;
        throttle.rest().await;
    }
}

fn chunks(oids: &[u32]) -> impl Iterator<Item = &[u32]> {
    oids.chunks(BATCH_OBJECTS)
}

/// Keeps a pass to its pace.
struct Throttle {
    begun: Instant,
    /// What a range counts for; `None` without a pace.
    each: Option<Duration>,
    ranges: AtomicU32,
    slept_us: AtomicU64,
}

impl Throttle {
    fn new(pace: Pace, bytes: i64, ranges: usize) -> Self {
        let all = Duration::from_secs_f64(bytes.max(0) as f64 / BESIDE_BYTES_PER_SECOND as f64);
        let ranges = u32::try_from(ranges.max(1)).unwrap_or(u32::MAX);
        let each = (pace == Pace::Beside).then(|| all / ranges);
        Throttle { begun: Instant::now(), each, ranges: AtomicU32::new(0), slept_us: AtomicU64::new(0) }
    }

    /// Rests behind a range for as long as the readers were too fast.
    async fn rest(&self) {
        let Some(each) = self.each else { return };
        let due = each * (self.ranges.fetch_add(1, Ordering::Relaxed) + 1);
        let pause = due.saturating_sub(self.begun.elapsed());
        self.slept_us.fetch_add(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        tokio::time::sleep(pause).await;
    }

    fn slept(&self) -> Duration {
        Duration::from_micros(self.slept_us.load(Ordering::Relaxed))
    }
}
