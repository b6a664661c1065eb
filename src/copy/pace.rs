//! How fast the source is read: at most so many bytes a second, all workers
//! together (`--copy-rate`).
//!
//! Invariant: what was read is paid for before more is read. A worker that
//! waits reads nothing, so the server's socket fills and its COPY waits, too.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What the workers share of the rate.
pub(super) struct Pace {
    /// `None` without a limit.
    bytes_per_second: Option<u64>,
    /// When everything that was read has been paid for.
    paid_at: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>) -> Self {
        Pace { bytes_per_second, paid_at: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes, which were read, are paid for.
    pub(super) async fn pay(&self, bytes: u64) {
        if let Some(rate) = self.bytes_per_second {
            let due = self.book(bytes, rate, Instant::now());
            sleep_until(due).await;
        }
    }

    /// Time that nobody used is not saved up.
    fn book(&self, bytes: u64, rate: u64, now: Instant) -> Instant {
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        *paid_at = (*paid_at).max(now) + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        *paid_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_workers_together_stay_below_the_rate_and_unused_time_is_not_saved_up() {
        let pace = Pace::new(Some(1000));
        let now = Instant::now();
        let second = |n: u64| now + Duration::from_secs(n);
        assert_eq!(pace.book(500, 1000, now), now + Duration::from_millis(500));
        assert_eq!(pace.book(1500, 1000, now), second(2), "behind what another one has booked");
        assert_eq!(pace.book(1000, 1000, second(60)), second(61));
    }
}
