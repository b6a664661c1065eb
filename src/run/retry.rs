//! Again after a lost connection: with backoff, aloud, and bounded.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{Context, Error};
use crate::fault::backoff::Backoff;

/// Counts the time since things last worked.
pub struct Retry {
    bound: Duration,
    /// Since when nothing works; `None` while it has never worked, and then
    /// there is nothing to go back to: a wrong address must not be tried for
    /// a quarter of an hour.
    failing_since: Option<Instant>,
    backoff: Backoff,
}

impl Retry {
    /// Nothing has worked yet.
    pub fn new(bound: Duration) -> Self {
        Retry { bound, failing_since: None, backoff: Backoff::default() }
    }

    /// Things had worked until just now: something was applied, or the
    /// connections have lasted.
    pub fn begin_anew(&mut self) {
        self.failing_since = Some(Instant::now());
        self.backoff = Backoff::default();
    }

    /// Both sides have been reached: from the first failure behind that on,
    /// it is worth trying again.
    pub fn begin_if_new(&mut self) {
        self.failing_since.get_or_insert_with(Instant::now);
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The error itself when there is to be no other attempt,
    /// [`Error::Interrupted`] when the wait was cut short.
    pub async fn wait(&mut self, error: Error, ctx: &Context) -> Result<(), Error> {
        let fault = error.fault();
        let Some(since) = self.failing_since.filter(|_| fault.is_retried()) else {
            return Err(error);
        };
        if since.elapsed() >= self.bound {
            warn!(for_seconds = since.elapsed().as_secs(), "giving up");
            return Err(error);
        }
        if let Some(side) = fault.side() {
            ctx.metrics.reconnects.with_label_values(&[&side.to_string()]).inc();
        }
        let pause = self.backoff.pause();
        warn!(%error, again_in_ms = pause.as_millis(), "the work was cut short; trying again");
        tokio::select! {
            () = ctx.shutdown.cancelled() => return Err(Error::Interrupted),
            () = tokio::time::sleep(pause) => {}
        }
        Ok(())
    }
}
