//! Places where a test kills the process, to prove that nothing is lost there.
//!
//! `WALFERRY_FAILPOINT=name:n` kills the process without any clean-up when the
//! point `name` is passed for the n-th time. Debug builds only: a release
//! build has no such code.

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    fn parse(text: &str) -> Option<(String, u64)> {
        let (name, count) = text.split_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    }

    pub fn hit(name: &str) {
        let armed = ARMED.get_or_init(|| parse(&std::env::var("WALFERRY_FAILPOINT").ok()?));
        let Some((wanted, count)) = armed else { return };
        if wanted == name && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *count {
            // abort() runs no destructors and sends no farewell on any socket:
            // to both servers it looks like kill -9.
            std::process::abort();
        }
    }
}

/// Kills the process here if a test has asked for it.
#[inline]
pub fn hit(_name: &str) {
    #[cfg(debug_assertions)]
    armed::hit(_name);
}
