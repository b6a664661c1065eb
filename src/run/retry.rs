//! Again after a lost connection: with backoff, aloud, and bounded.

use std::time::{Duration, Instant};

use tracing::warn;

use super::Context;
use crate::exit::{Directive, Error};

/// The first pause; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause: an outage that ends is noticed within this time.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// The pause, a quarter more or less: what cuts connections at regular moments
/// must not meet every attempt at the same one.
pub(crate) fn uneven(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.75..1.25))
}

/// Counts the time since things last worked.
pub struct Retry {
    bound: Duration,
    /// Since when nothing works; `None` while it has never worked, and then
    /// there is nothing to go back to: a wrong address must not be tried for
    /// a quarter of an hour.
    failing_since: Option<Instant>,
    pause: Duration,
}

impl Retry {
    /// Nothing has worked yet.
    pub fn new(bound: Duration) -> Self {
        Retry { bound, failing_since: None, pause: FIRST_PAUSE }
    }

    /// Things had worked until just now: something was applied, or the
    /// connections have lasted.
    pub fn begin_anew(&mut self) {
        self.failing_since = Some(Instant::now());
        self.pause = FIRST_PAUSE;
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
        let verdict = error.verdict();
        let Some(since) = self.failing_since.filter(|_| verdict.directive == Directive::Retry) else {
            return Err(error);
        };
        if since.elapsed() >= self.bound {
            warn!(for_seconds = since.elapsed().as_secs(), "giving up");
            return Err(error);
        }
        if let Some(side) = verdict.side {
            ctx.metrics.reconnects.with_label_values(&[&side.to_string()]).inc();
        }
        let pause = uneven(self.pause);
        warn!(%error, again_in_ms = pause.as_millis(), "the work was cut short; trying again");
        tokio::select! {
            () = ctx.shutdown.cancelled() => return Err(Error::Interrupted),
            () = tokio::time::sleep(pause) => {}
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}
