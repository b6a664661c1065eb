//! After a refusal: what is in flight is rolled back, the batch that was refused
//! goes again by a slower way, and those behind it are sent again.
//!
//! Invariant: a batch goes again whole, from the pieces that were kept for it;
//! what its slower way refuses as well names its transaction and ends the stream.

use tokio::sync::watch;
use tracing::info;

use super::ApplyError;
use super::applier::Applier;
use super::batch::Batch;
use super::in_flight::{Changes, Counting, InFlight, Way};
use super::pipeline::Reply;
use super::relations::{SLOW_BATCHES, Without};
use crate::lsn::{DurableLsn, EndLsn};

impl Applier {
    /// One source transaction at a time, row by row, each with its own commit:
    /// what is right becomes durable, and an error names its transaction.
    pub(super) async fn replay(
        &mut self,
        batch: Batch,
        end: EndLsn,
        durable: &watch::Sender<DurableLsn>,
    ) -> Result<(), ApplyError> {
        let count = batch.pieces.len();
        for (n, piece) in batch.pieces.into_iter().enumerate() {
            let own_end = if n + 1 == count { Some(end) } else { piece.end };
            let Some(own_end) = own_end else {
                return Err(ApplyError::OutOfStep("a transaction without an end in a whole batch".to_owned()));
            };
            let rows = piece.changes.len();
            let bytes = piece.bytes;
            let single = Batch { pieces: vec![piece], end: Some(own_end), rows, bytes, permit: None };
            let sending = self.send(Changes::Rows, &single.pieces, own_end, Counting::BeforeCommit).await?;
            self.push(single, own_end, Way::Ordered, sending);
            self.drain(durable).await?;
        }
        Ok(())
    }

    /// The oldest batch in flight was refused, and with it all behind it: rolls
    /// back, replays that one, and has the others sent again.
    pub(super) async fn recover(
        &mut self,
        failed: InFlight,
        error: &ApplyError,
        durable: &watch::Sender<DurableLsn>,
    ) -> Result<(), ApplyError> {
        let mut outstanding = self.in_flight.len();
        while outstanding > 0 {
            if let Reply::Ready = self.tools.pipeline.reply().await? {
                outstanding -= 1;
            }
        }
        self.tools.pipeline.roll_back().await?;
        let behind: Vec<Batch> = self.in_flight.drain(..).map(|sent| sent.batch).collect();
        for batch in behind.into_iter().rev() {
            self.again.push_front(batch);
        }
        self.sent = self.durable.end();
        Box::pin(self.refused(failed.batch, failed.end, error, durable)).await
    }

    /// A batch was refused and rolled back, and nothing is in flight: it goes
    /// the fast path again if its table only has to do without updates, and one
    /// transaction at a time otherwise.
    pub(super) async fn refused(
        &mut self,
        batch: Batch,
        end: EndLsn,
        error: &ApplyError,
        durable: &watch::Sender<DurableLsn>,
    ) -> Result<(), ApplyError> {
        match self.note_refusal(error) {
            Some(Without::Updates) => {
                // Once a stretch: within it the table is not refused for updates again.
                info!(%error, batches = SLOW_BATCHES, "a batch was refused; for a while the table's rows are deleted and inserted anew");
                self.again.push_front(batch);
                Ok(())
            }
            Some(Without::Nets) | None => {
                info!(%error, transactions = batch.pieces.len(), "a batch was refused; replaying its transactions one by one");
                self.replay(batch, end, durable).await
            }
        }
    }

    /// Counts a refusal; what the table does without from now on.
    pub(super) fn note_refusal(&mut self, error: &ApplyError) -> Option<Without> {
        let (is_count, without) = match error {
            ApplyError::Net { relation, .. } | ApplyError::Copied { relation, .. } => {
                (error.is_wrong_count(), Some(self.relations.slow_down(*relation, error.is_duplicate())))
            }
            ApplyError::RowCount { .. } | ApplyError::Action { .. } => (true, None),
            _ => (false, None),
        };
        self.fall_back(if is_count { "count" } else { "constraint" });
        without
    }
}

/// Whether the server refused what was sent, as opposed to a lost connection:
/// then a merged batch is worth replaying one transaction at a time.
pub(super) fn is_refusal(error: &ApplyError) -> bool {
    matches!(
        error,
        ApplyError::Refused { .. }
            | ApplyError::RowCount { .. }
            | ApplyError::Action { .. }
            | ApplyError::Deferred { .. }
            | ApplyError::Statement { .. }
            | ApplyError::Net { .. }
            | ApplyError::Copied { .. }
    )
}
