//! The pauses between attempts: growing, and never quite even.

use std::time::Duration;

/// The first pause; doubled each time.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause: an outage that ends is noticed within this time.
const LONGEST: Duration = Duration::from_secs(20);

/// How long to wait next time.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { next: FIRST }
    }
}

impl Backoff {
    /// The next pause, a quarter more or less: what cuts connections at regular
    /// moments must not meet every attempt at the same one.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(rand::random_range(0.75..1.25));
        self.next = (self.next * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_are_uneven_by_a_quarter() {
        let mut backoff = Backoff::default();
        for wanted in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0] {
            let pause = backoff.pause().as_secs_f64();
            assert!((wanted * 0.75..=wanted * 1.25).contains(&pause), "{pause} for {wanted}");
        }
    }
}
