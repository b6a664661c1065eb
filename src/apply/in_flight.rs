//! What the applier has sent and not heard of yet.

use std::collections::VecDeque;
use std::time::Instant;

use super::ApplyError;
use super::batch::Batch;
use super::order::Order;
use super::pipeline::CommitTag;
use super::send::Work;
use super::transaction::Expectation;
use crate::coalesce::{Segment, Step};
use crate::lsn::EndLsn;

/// How a batch was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As net changes, set by set.
    Fast,
    /// Row by row, in the order of the source.
    Ordered,
    /// Nothing but the position.
    Idle,
}

impl Way {
    /// Its word in the metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Way::Fast => "fast",
            Way::Ordered => "ordered",
            Way::Idle => "idle",
        }
    }
}

/// A batch that was sent with its COMMIT.
pub(super) struct InFlight {
    pub(super) batch: Batch,
    pub(super) expected: VecDeque<Expectation>,
    pub(super) end: EndLsn,
    pub(super) path: Way,
    pub(super) work: Work,
    pub(super) since: Instant,
    pub(super) committed: Option<CommitTag>,
    pub(super) error: Option<ApplyError>,
}

impl InFlight {
    /// Whether to replay it says more than its error does: a single transaction
    /// that went row by row would fail in the same way, and of one in parts
    /// only the last part is at hand.
    pub(super) fn can_be_replayed(&self) -> bool {
        !self.batch.is_part() && (self.path == Way::Fast || self.batch.pieces.len() > 1)
    }
}

/// What was sent with its COMMIT.
pub(super) struct Sending {
    pub(super) expected: VecDeque<Expectation>,
    pub(super) work: Work,
    pub(super) since: Instant,
}

/// What a target transaction is made of.
#[derive(Clone, Copy)]
pub(super) enum Changes<'a> {
    /// Net changes, and single rows where they are needed, in this order.
    Net(&'a [Segment<'a>], Order),
    /// Every change by itself.
    Rows,
}

/// Who makes sure that every statement affected the rows it should.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Counting {
    /// The statements themselves; COMMIT follows them at once.
    ByItself,
    /// We do, from the answers, and send COMMIT then.
    BeforeCommit,
}

/// Whether every statement counts its rows itself.
pub(super) fn is_pure(segments: &[Segment<'_>]) -> bool {
    segments.iter().all(|segment| match segment {
        Segment::Truncate(..) => true,
        Segment::Tables(tables) => {
            tables.iter().flat_map(|table| &table.steps).all(|step| matches!(step, Step::Net(_)))
        }
    })
}
