//! A pass over everything: where there is no bound yet, or pages may not be read.
//!
//! Invariant: when it returns, every object of the migration that can be read is
//! equal on both sides, whatever was there before; what cannot be read or is in
//! the way is named. It can be killed anywhere and run again.
//!
//! It walks over the source's oids in batches: both servers hash contents, and
//! only pieces that differ are transferred. Memory is bounded by `GROUP_BYTES` and
//! a few lists of `BATCH_OBJECTS`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::bound::Changed;
use super::carry::Carrier;
use super::reader::{Facts, Listed, Reader};
use super::writer::{self, Known, Writer};
use super::{BATCH_OBJECTS, Done, Ends, GROUP_BYTES, LargeObjectReport, Named, PIECE_BYTES};
use crate::state::large_objects::Claim;
use crate::sweep::SweepError;

/// [`BATCH_OBJECTS`] as the statements take it.
const LIST_OBJECTS: i64 = BATCH_OBJECTS as i64;

/// One pass over all objects.
pub(super) struct Pass<'a> {
    ends: Ends<'a>,
    pub(super) source: Reader<'a>,
    pub(super) target: Reader<'a>,
    pub(super) writer: Writer<'a>,
    pub(super) report: LargeObjectReport,
    unreadable: Named,
    in_use: Named,
}

/// An object that is not equal on both sides.
pub(super) struct Difference {
    pub(super) source: Facts,
    /// The target's object; `None` where it is to be created.
    pub(super) target: Option<Facts>,
}

impl<'a> Pass<'a> {
    /// A pass that reads with `source`, inside a transaction of its snapshot.
    pub(super) fn new(ends: Ends<'a>, source: Reader<'a>, claim: Claim) -> Self {
        let target = Reader::of_target(ends.target).with(source.digest());
        let report = LargeObjectReport::default();
        let (unreadable, in_use) = (Named::default(), Named::default());
        Pass { ends, source, target, writer: Writer::new(ends, claim), report, unreadable, in_use }
    }

    pub(super) async fn run(mut self) -> Result<Done, SweepError> {
        // What is there in part must not be taken for what was equal at the bound.
        self.ends.state.forget_large_object_bound(self.ends.target).await?;
        let mut above = None;
        loop {
            let listed = self.source.list(above, LIST_OBJECTS).await?;
            let Some(last) = listed.last() else { break };
            above = Some(last.oid);
            self.batch(&listed).await?;
        }
        self.remove_gone().await?;
        Ok(Done { report: self.report, unreadable: self.unreadable, in_use: self.in_use, pauses: Duration::ZERO })
    }

    /// Makes one batch of the source's objects equal.
    pub(super) async fn batch(&mut self, listed: &[Listed]) -> Result<(), SweepError> {
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
        if self.writer.claim.adopts {
            self.writer.own(&foreign.into_iter().collect::<Vec<_>>()).await?;
            return Ok(oids);
        }
        self.in_use.extend(foreign.iter().copied());
        Ok(oids.into_iter().filter(|oid| !foreign.contains(oid)).collect())
    }

    /// Compares a batch: lengths, and hashes of objects of one piece.
    async fn differences(&mut self, oids: &[u32], known: &HashMap<u32, Known>) -> Result<Vec<Difference>, SweepError> {
        let present: Vec<u32> = oids.iter().copied().filter(|oid| known.contains_key(oid)).collect();
        let all_hashed = vec![true; present.len()];
        let hashed: Vec<bool> = oids.iter().map(|oid| known.contains_key(oid)).collect();
        let (source, target) =
            futures_util::try_join!(self.source.facts(oids, &hashed), self.target.facts(&present, &all_hashed))?;
        let mut target: HashMap<u32, Facts> = target.into_iter().map(|facts| (facts.oid, facts)).collect();
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
            match (self.by_pages(), &difference.target) {
                // Pages that are there, and no others: holes cost nothing.
                (Some(carrier), None) => carrier.create(&[difference.source.oid], &mut self.report).await?,
                _ => self.carry_large(difference).await?,
            }
        }
        Ok(())
    }

    /// What carries objects by their pages, where pages may be read.
    fn by_pages(&self) -> Option<Carrier<'a>> {
        let page_bytes = self.source.page_bytes()?;
        Some(Carrier { reader: self.source, writer: self.writer, page_bytes, changed: Changed::Everything })
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
            let ours = self.ends.state.own_large_objects(above, LIST_OBJECTS).await?;
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
