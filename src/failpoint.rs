//! Places where a test kills the process, to prove that nothing is lost there.
//!
//! `WALFERRY_FAILPOINT=name:n` kills the process without any clean-up when the
//! point `name` is passed for the n-th time; `name:n:panic` panics there. Debug
//! builds only: a release build has no such code.

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// What happens at the point.
    #[derive(Clone, Copy)]
    enum Blow {
        Kill,
        Panic,
    }

    static ARMED: OnceLock<Option<(String, u64, Blow)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    fn parse(text: &str) -> Option<(String, u64, Blow)> {
        let (name, count) = text.split_once(':')?;
        let (count, blow) = count.strip_suffix(":panic").map_or((count, Blow::Kill), |count| (count, Blow::Panic));
        Some((name.to_owned(), count.parse().ok()?, blow))
    }

    pub fn hit(name: &str) {
        let armed = ARMED.get_or_init(|| parse(&std::env::var("WALFERRY_FAILPOINT").ok()?));
        let Some((wanted, count, blow)) = armed else { return };
        if wanted == name && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *count {
            match blow {
                // abort() runs no destructors and sends no farewell on any
                // socket: to both servers it looks like kill -9.
                Blow::Kill => std::process::abort(),
                Blow::Panic => panic!("a test asked for it"),
            }
        }
    }
}

/// Kills the process here if a test has asked for it.
#[inline]
pub fn hit(_name: &str) {
    #[cfg(debug_assertions)]
    armed::hit(_name);
}
