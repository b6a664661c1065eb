//! Batches: whole source transactions gathered for one target commit.
//!
//! Invariant: a batch ends at a commit boundary of the source, or it is a part
//! of one transaction that is too large for a batch, and then the target's
//! transaction stays open until the last part.

use tokio::sync::OwnedSemaphorePermit;

use crate::assemble::{First, Piece};
use crate::config::BatchBounds;
use crate::lsn::EndLsn;

/// What one target transaction, or a part of one, applies.
#[derive(Debug)]
pub struct Batch {
    /// The pieces in source order.
    pub pieces: Vec<Piece>,
    /// Where the position goes when it is committed; `None` when the last
    /// piece's transaction goes on in the next batch.
    pub end: Option<EndLsn>,
    /// Row changes in it.
    pub rows: usize,
    /// Bytes of messages in it.
    pub bytes: usize,
    /// The queue's bytes it occupies, given back when it is dropped.
    pub permit: Option<OwnedSemaphorePermit>,
}

impl Batch {
    /// Source commit time of its last transaction, in microseconds since
    /// 2000-01-01 UTC; `None` when it only moves the position.
    pub fn commit_time(&self) -> Option<i64> {
        self.pieces.last().map(|piece| piece.begin.commit_time)
    }

    /// The whole transactions at its beginning for which `is_wanted` holds, if
    /// there are any and they are not all.
    pub fn leading(mut self, is_wanted: impl Fn(&Piece) -> bool) -> Option<Batch> {
        let count = self.pieces.iter().take_while(|piece| is_wanted(piece)).count();
        if self.is_part() || count == self.pieces.len() {
            return None;
        }
        self.pieces.truncate(count);
        self.end = self.pieces.last()?.end;
        self.rows = self.pieces.iter().map(|piece| piece.changes.len()).sum();
        self.bytes = self.pieces.iter().map(|piece| piece.bytes).sum();
        Some(self)
    }

    /// Whether it continues or begins a transaction that does not end in it,
    /// or ends one that began in an earlier batch.
    pub fn is_part(&self) -> bool {
        self.pieces.iter().any(|piece| piece.end.is_none() || piece.first == First::No)
    }
}

/// Gathers pieces into batches.
pub struct Batcher {
    bounds: BatchBounds,
    pieces: Vec<Piece>,
    rows: usize,
    bytes: usize,
    end: Option<EndLsn>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Batcher {
    /// An empty batcher.
    pub fn new(bounds: BatchBounds) -> Self {
        Batcher { bounds, pieces: Vec::new(), rows: 0, bytes: 0, end: None, permit: None }
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.end.is_none() && self.pieces.is_empty()
    }

    /// Whether it must be sent before more is added.
    pub fn is_full(&self) -> bool {
        self.rows >= self.bounds.rows || self.bytes >= self.bounds.bytes || self.pieces.iter().any(|p| p.end.is_none())
    }

    /// Whether this piece can join what is gathered. Parts of a large
    /// transaction travel alone.
    pub fn accepts(&self, piece: &Piece) -> bool {
        self.is_empty() || (piece.first == First::Yes && piece.end.is_some() && !self.is_full())
    }

    /// Adds a piece; [`Self::accepts`] has said yes.
    pub fn push(&mut self, piece: Piece) {
        self.rows += piece.changes.len();
        self.bytes += piece.bytes;
        self.end = piece.end;
        self.pieces.push(piece);
    }

    /// Everything before this point has been seen and is in the batch or
    /// before it: the position may move there with it.
    pub fn reach(&mut self, end: EndLsn) {
        self.end = self.end.max(Some(end));
    }

    /// Ties queue space to what is gathered.
    pub fn occupy(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
    }

    /// Gives back the queue space beyond `bytes`. Chunks of a slow stream hold
    /// a message each, and occupy far more than that while they wait.
    pub fn release_beyond(&mut self, bytes: usize) {
        if let Some(held) = &mut self.permit {
            // The part that is split off is dropped, and so given back.
            let _surplus = held.split(held.num_permits().saturating_sub(bytes));
        }
    }

    /// Bytes of messages that are gathered.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes what is gathered.
    pub fn take(&mut self) -> Batch {
        let fresh = Batcher::new(self.bounds);
        let full = std::mem::replace(self, fresh);
        Batch { pieces: full.pieces, end: full.end, rows: full.rows, bytes: full.bytes, permit: full.permit }
    }
}
