//! Large objects: carried with the copy's snapshot, then compared and carried
//! again until both sides are equal.
//!
//! Invariant: a pass makes the target's objects of this migration equal to the
//! source's in oid, length, content and comment, and touches no others. An
//! object is the migration's if its oid is in `walferry.large_object_oids`,
//! which is written in the transaction that creates it; so a pass that was
//! killed is simply run again.
//!
//! A pass walks over the source's oids in batches: both servers hash contents,
//! and only pieces that differ are transferred. Memory is bounded by
//! `GROUP_BYTES` and a few lists of `BATCH_OBJECTS`. Source:
//! `src/backend/storage/large_object/inv_api.c`, `src/backend/libpq/be-fsstubs.c`.

mod large;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{HashMap, HashSet};

use self::reader::{Digest, Facts, Listed, Reader};
use self::writer::{Known, Writer};
use super::{NAMED_OBJECTS, SweepError};
use crate::config::Side;
use crate::observe::metrics::Metrics;
use crate::session::{DbContext, Session};
use crate::state::State;

/// Bytes of a piece: the unit in which contents are compared and transferred.
/// A multiple of every possible page (2 KiB to 8 KiB), small enough that a few
/// of them are nothing to either server.
const PIECE_BYTES: i64 = 1 << 20;

/// Objects compared by one statement: large enough that 100,000 objects are a
/// few hundred round trips, small enough for the locks of one transaction that
/// unlinks them (max_locks_per_transaction 64 × max_connections 22 of a small
/// server).
const BATCH_OBJECTS: i64 = 1000;

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

/// What is done about an object of the target that has an oid of the source's
/// and is not recorded as the migration's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unrecorded {
    /// It is in the way.
    Refuse,
    /// It comes from a baseline restored by other means: the migration's from now on.
    Adopt,
}

/// Carries all large objects as the source's transaction sees them. `source` is
/// inside a REPEATABLE READ transaction with the copy's snapshot.
///
/// # Errors
/// [`SweepError::LargeObjectsInUse`] before anything is written, when an oid is
/// taken on the target; [`SweepError::UnreadableLargeObjects`] after all others
/// have been carried; when a server fails.
pub async fn copy_initial(
    source: &Session,
    target: &Session,
    state: &State,
    metrics: &Metrics,
) -> Result<LargeObjectReport, SweepError> {
    refuse_taken_oids(source, target, state).await?;
    if !state.has_large_object_record().await? {
        state.record_large_objects(0, 0).await?;
    }
    Pass::new(source, target, state, metrics, Unrecorded::Refuse).await?.run().await
}

/// Compares all large objects and carries what differs. Exact when the source
/// is not being written to. Where the copy never carried large objects, those
/// on the target count as a baseline restored by other means and are taken in.
///
/// # Errors
/// [`SweepError::UnreadableLargeObjects`] and [`SweepError::LargeObjectsInUse`]
/// after all others have been carried; when a server fails.
pub async fn final_pass(
    source: &Session,
    target: &Session,
    state: &State,
    metrics: &Metrics,
) -> Result<LargeObjectReport, SweepError> {
    let unrecorded = if state.has_large_object_record().await? { Unrecorded::Refuse } else { Unrecorded::Adopt };
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    source.batch_execute(begin).await.during(Side::Source, "begin to read the large objects")?;
    let result = async { Pass::new(source, target, state, metrics, unrecorded).await?.run().await }.await;
    let ended = source.batch_execute("ROLLBACK").await.during(Side::Source, "end reading the large objects");
    let report = result?;
    ended?;
    Ok(report)
}

/// Refuses to begin where the target has objects in the way.
async fn refuse_taken_oids(source: &Session, target: &Session, state: &State) -> Result<(), SweepError> {
    let reader = Reader::of_source(source).await?;
    let mut taken = Named::default();
    let mut above = None;
    loop {
        let listed = reader.list(above, BATCH_OBJECTS).await?;
        let Some(last) = listed.last() else { break };
        above = Some(last.oid);
        let oids: Vec<u32> = listed.iter().map(|object| object.oid).collect();
        let known = writer::known(target, state.name(), &oids).await?;
        taken.extend(known.iter().filter(|(_, known)| !known.is_ours).map(|(oid, _)| *oid));
    }
    taken.in_use().map_or(Ok(()), Err)
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

/// One pass over all objects.
struct Pass<'a> {
    source: Reader<'a>,
    target: Reader<'a>,
    writer: Writer<'a>,
    state: &'a State,
    unrecorded: Unrecorded,
    report: LargeObjectReport,
    /// Bytes of all objects on the source.
    source_bytes: i64,
    unreadable: Named,
    in_use: Named,
}

/// An object that is not equal on both sides.
struct Difference {
    source: Facts,
    /// The target's object; `None` where it is to be created.
    target: Option<Facts>,
}

impl<'a> Pass<'a> {
    async fn new(
        source: &'a Session,
        target: &'a Session,
        state: &'a State,
        metrics: &'a Metrics,
        unrecorded: Unrecorded,
    ) -> Result<Self, SweepError> {
        let digest = Digest::of(source.version().min(target.version()));
        Ok(Pass {
            source: Reader::of_source(source).await?.with(digest),
            target: Reader::of_target(target).with(digest),
            writer: Writer { session: target, migration: state.name(), metrics },
            state,
            unrecorded,
            report: LargeObjectReport::default(),
            source_bytes: 0,
            unreadable: Named::default(),
            in_use: Named::default(),
        })
    }

    async fn run(mut self) -> Result<LargeObjectReport, SweepError> {
        let mut above = None;
        loop {
            let listed = self.source.list(above, BATCH_OBJECTS).await?;
            let Some(last) = listed.last() else { break };
            above = Some(last.oid);
            self.batch(&listed).await?;
        }
        self.remove_gone().await?;
        self.state.record_large_objects(count(self.report.total), self.source_bytes).await?;
        let role = self.source.role().await?;
        match (self.unreadable.unreadable(role), self.in_use.in_use()) {
            (None, None) => Ok(self.report),
            (Some(one), None) | (None, Some(one)) => Err(one),
            (Some(one), Some(other)) => Err(SweepError::Both(Box::new(one), Box::new(other))),
        }
    }

    /// Makes one batch of the source's objects equal.
    async fn batch(&mut self, listed: &[Listed]) -> Result<(), SweepError> {
        self.report.total += listed.len() as u64;
        self.unreadable.extend(listed.iter().filter(|object| !object.is_readable).map(|object| object.oid));
        let oids: Vec<u32> = listed.iter().filter(|object| object.is_readable).map(|object| object.oid).collect();
        let known = writer::known(self.writer.session, self.writer.migration, &oids).await?;
        let oids = self.without_foreign(oids, &known).await?;
        let differences = self.differences(&oids, &known).await?;
        self.carry(&differences).await?;
        self.writer.comment(listed, &oids, &known).await
    }

    /// Leaves out, or takes in, what is on the target without being recorded.
    async fn without_foreign(&mut self, oids: Vec<u32>, known: &HashMap<u32, Known>) -> Result<Vec<u32>, SweepError> {
        let foreign: HashSet<u32> = known.iter().filter(|(_, k)| !k.is_ours).map(|(oid, _)| *oid).collect();
        if foreign.is_empty() {
            return Ok(oids);
        }
        match self.unrecorded {
            Unrecorded::Adopt => {
                self.writer.own(&foreign.into_iter().collect::<Vec<_>>()).await?;
                Ok(oids)
            }
            Unrecorded::Refuse => {
                self.in_use.extend(foreign.iter().copied());
                Ok(oids.into_iter().filter(|oid| !foreign.contains(oid)).collect())
            }
        }
    }

    /// Compares a batch: lengths, and hashes of objects of one piece.
    async fn differences(&mut self, oids: &[u32], known: &HashMap<u32, Known>) -> Result<Vec<Difference>, SweepError> {
        let present: Vec<u32> = oids.iter().copied().filter(|oid| known.contains_key(oid)).collect();
        let all_hashed = vec![true; present.len()];
        let hashed: Vec<bool> = oids.iter().map(|oid| known.contains_key(oid)).collect();
        let (source, target) =
            futures_util::try_join!(self.source.facts(oids, &hashed), self.target.facts(&present, &all_hashed))?;
        let mut target: HashMap<u32, Facts> = target.into_iter().map(|facts| (facts.oid, facts)).collect();
        self.source_bytes += source.iter().map(|facts| facts.bytes).sum::<i64>();
        Ok(source
            .into_iter()
            .map(|source| Difference { target: target.remove(&source.oid), source })
            .filter(|difference| !difference.is_equal())
            .collect())
    }

    /// Transfers what differs: small objects in groups, the others by pieces.
    async fn carry(&mut self, differences: &[Difference]) -> Result<(), SweepError> {
        let (small, large): (Vec<&Difference>, Vec<&Difference>) =
            differences.iter().partition(|difference| difference.source.bytes <= PIECE_BYTES);
        for group in groups(&small) {
            self.carry_group(group).await?;
        }
        for difference in large {
            self.carry_large(difference).await?;
        }
        Ok(())
    }

    /// Transfers small objects together, in one transaction.
    async fn carry_group(&mut self, group: &[&Difference]) -> Result<(), SweepError> {
        let oids: Vec<u32> = group.iter().map(|difference| difference.source.oid).collect();
        let sizes: Vec<i64> = group.iter().map(|difference| difference.source.bytes).collect();
        let contents = self.source.contents(&oids, &sizes).await?;
        let shrinking = group
            .iter()
            .filter(|d| d.target.as_ref().is_some_and(|t| t.bytes > d.source.bytes))
            .map(|d| (d.source.oid, d.source.bytes))
            .collect::<Vec<_>>();
        let created: HashSet<u32> = group.iter().filter(|d| d.target.is_none()).map(|d| d.source.oid).collect();
        self.report.bytes += self.writer.write_small(contents, &created, &shrinking).await?;
        self.report.created += created.len() as u64;
        self.report.updated += (group.len() - created.len()) as u64;
        Ok(())
    }

    /// Unlinks objects of ours that are no longer on the source.
    async fn remove_gone(&mut self) -> Result<(), SweepError> {
        let mut above = None;
        loop {
            let ours = self.state.own_large_objects(above, BATCH_OBJECTS).await?;
            let Some(last) = ours.last() else { return Ok(()) };
            above = Some(*last);
            let gone = self.source.missing(&ours).await?;
            if !gone.is_empty() {
                self.report.removed += self.writer.unlink(&gone).await?;
            }
        }
    }
}

impl Difference {
    /// Larger objects have no hash here: their pieces are compared later.
    fn is_equal(&self) -> bool {
        let Some(target) = &self.target else { return false };
        self.source.bytes == target.bytes && self.source.hash.is_some() && self.source.hash == target.hash
    }
}

/// Cuts small objects into groups of at most [`GROUP_BYTES`].
fn groups<'s, 'd>(small: &'s [&'d Difference]) -> Vec<&'s [&'d Difference]> {
    let mut groups = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    for (index, difference) in small.iter().enumerate() {
        if bytes + difference.source.bytes > GROUP_BYTES && index > begin {
            groups.extend(small.get(begin..index));
            (begin, bytes) = (index, 0);
        }
        bytes += difference.source.bytes;
    }
    groups.extend(small.get(begin..).filter(|rest| !rest.is_empty()));
    groups
}

/// A count as the state stores it.
fn count(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
