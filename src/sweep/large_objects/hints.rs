//! Rows that name a large object: an application writes the object and then the
//! row with its oid, so the row is the sign to look at that object now.
//!
//! Invariant: a hint never decides anything. One that is dropped costs time, as
//! the next pass finds what it was about; one that is wrong costs a question.

use tokio::sync::mpsc;

use super::pages::Snapshot;
use super::reader::Reader;
use super::whole::Pass;
use super::{Ends, PIECE_BYTES, Turn, by_changes, reader, writer};
use crate::session::DbContext;
use crate::state::large_objects::Claim;
use crate::sweep::SweepError;

/// Hints that may wait: more than a batch of inserts has rows would only make
/// the next pass come later.
const WAITING: usize = 4096;

/// Where hints are dropped in.
#[derive(Clone, Debug)]
pub struct Hints(mpsc::Sender<u32>);

/// A place for hints, and where they come out.
pub fn channel() -> (Hints, mpsc::Receiver<u32>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Hints(sender), receiver)
}

impl Hints {
    /// Drops a hint in; without waiting, and in vain when there are too many.
    pub fn give(&self, oid: u32) {
        // Full or nobody there: the next pass finds it.
        let _dropped = self.0.try_send(oid);
    }
}

/// Looks at objects that were named: those that the source has and that are
/// ours, or not there yet, are carried.
///
/// # Errors
/// When a server fails.
pub async fn look(ends: Ends<'_>, claim: Claim, named: &[u32], turn: &Turn) -> Result<(), SweepError> {
    let (source, side) = (ends.source, ends.source.side());
    let mut hinted = turn.lock().await;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    source.batch_execute(begin).await.during(side, "begin to read large objects")?;
    let result = carry(ends, claim, named).await;
    let ended = source.batch_execute("ROLLBACK").await.during(side, "end reading large objects");
    // Behind their COMMITs: a pass that is under way passes these over.
    hinted.extend(result?);
    Ok(ended?)
}

/// Carries what can be carried at once; the objects that are as the snapshot of
/// now has them.
async fn carry(ends: Ends<'_>, claim: Claim, named: &[u32]) -> Result<Vec<u32>, SweepError> {
    let reader = reader(ends).await?;
    let snapshot = Snapshot::read(&reader).await?;
    let Some(carrier) = by_changes(ends, claim, reader, snapshot).await? else {
        small(ends, claim, reader, named).await?;
        // Such a pass has the turn for as long as it takes.
        return Ok(Vec::new());
    };
    let there: Vec<u32> = reader.listed(named).await?.into_iter().map(|object| object.oid).collect();
    let known = writer::known(ends.target, ends.state.name(), &there).await?;
    let ours: Vec<u32> = there.iter().copied().filter(|oid| known.get(oid).is_some_and(|k| k.is_ours)).collect();
    let new: Vec<u32> = there.iter().copied().filter(|oid| !known.contains_key(oid)).collect();
    let mut report = super::LargeObjectReport::default();
    carrier.create(&new, &mut report).await?;
    if !ours.is_empty() {
        carrier.renew(&ours).await?;
    }
    Ok([ours, new].concat())
}

/// Without pages: compares and carries what is small, in one go each.
async fn small(ends: Ends<'_>, claim: Claim, reader: Reader<'_>, named: &[u32]) -> Result<(), SweepError> {
    let mut there = reader.listed(named).await?;
    there.retain(|object| object.is_readable);
    let oids: Vec<u32> = there.iter().map(|object| object.oid).collect();
    let lengths = reader.lengths(&oids).await?;
    there.retain(|object| lengths.get(&object.oid).is_some_and(|bytes| *bytes <= PIECE_BYTES));
    if !there.is_empty() {
        Pass::new(ends, reader, claim).batch(&there).await?;
    }
    Ok(())
}
