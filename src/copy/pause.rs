//! Pauses after lost connections inside the copy, growing as those of
//! [`crate::run::retry`] do.
//!
//! Invariant: as long as anybody is at work the others may wait for their
//! connections; when nobody is, the copy as a whole is given back to the retry
//! around it, which has the deadline.

use std::time::Duration;

use tokio::time::sleep;

use super::board::Board;
use super::{CopyContext, CopyError};
use crate::exit;
use crate::run::retry::uneven;

/// The first pause; doubled each time.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause: an outage that ends is noticed within this time.
const LONGEST: Duration = Duration::from_secs(20);

/// How long nobody may have been at work: longer than a few attempts to
/// connect take, short beside `--retry-for`.
const IDLE: Duration = Duration::from_secs(30);

/// How long to wait next time.
pub(super) struct Pause {
    next: Duration,
}

impl Pause {
    pub(super) fn new() -> Self {
        Pause { next: FIRST }
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
        if let Some(side) = exit::side_of_copy(&error) {
            ctx.metrics.reconnects.with_label_values(&[&side.to_string()]).inc();
        }
        let pause = uneven(self.next);
        tracing::warn!(%error, again_in_ms = pause.as_millis(), "a part of the copy was cut off; trying again");
        sleep(pause).await;
        self.next = (self.next * 2).min(LONGEST);
        Ok(())
    }
}
