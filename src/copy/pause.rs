//! Pauses after lost connections inside the copy.
//!
//! Invariant: as long as anybody is at work the others may wait for their
//! connections; when nobody is, the copy as a whole is given back to the retry
//! around it, which has the deadline.

use std::time::Duration;

use tokio::time::sleep;

use super::board::Board;
use super::{CopyContext, CopyError};
use crate::fault::backoff::Backoff;

/// How long nobody may have been at work: longer than a few attempts to
/// connect take, short beside `--retry-for`.
const IDLE: Duration = Duration::from_secs(30);

/// How long to wait next time.
pub(super) struct Pause {
    backoff: Backoff,
}

impl Pause {
    pub(super) fn new() -> Self {
        Pause { backoff: Backoff::default() }
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The error itself when nobody has been at work for too long.
    pub(super) async fn after(
        &mut self,
        error: CopyError,
        ctx: &CopyContext<'_>,
        board: &Board,
    ) -> Result<(), CopyError> {
        if board.is_idle_for(IDLE) {
            return Err(error);
        }
        if let Some(side) = error.fault().side() {
            ctx.metrics.reconnects.with_label_values(&[&side.to_string()]).inc();
        }
        let pause = self.backoff.pause();
        tracing::warn!(%error, again_in_ms = pause.as_millis(), "a part of the copy was cut off; trying again");
        sleep(pause).await;
        Ok(())
    }
}
