//! Beside the stream: the large objects, pass after pass, and those that rows
//! name at once.
//!
//! Invariants: nothing waits for this; when the stream ends it is dropped where
//! it is, and what it had under way on the target is rolled back or committed as
//! a whole. It has sessions of its own. What fails is logged and tried again with
//! the next pass; only the loss of the state, and with it the lease, ends the
//! stream.

use std::time::Instant;

use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::Context;
use super::housekeeping::HouseError;
use crate::catalog;
use crate::session::Session;
use crate::state::State;
use crate::state::large_objects::Claim;
use crate::sweep::SweepError;
use crate::sweep::large_objects::{self, Crew, Ends, Pace, Turn, hints};

/// Passes that are left out in a row because the source's counters stand still.
/// They are a hint only: with the usual interval a change that they do not show
/// is there after ten minutes, and at the end in any case.
const MOST_SKIPPED: u32 = 20;

/// Objects looked at together.
const HINTS_AT_ONCE: usize = 1000;

/// Carries the large objects for as long as the stream lasts; returns when the
/// state is out of reach.
pub async fn large_objects(ctx: &Context, state: &State, named: mpsc::Receiver<u32>) -> HouseError {
    // Nothing is done before it is due: a stream that ends soon needs none of this.
    let claim = OnceClaim { state, claim: tokio::sync::OnceCell::new() };
    let turn = Turn::default();
    let sweeper = Sweeper { ctx, state, claim: &claim, turn: &turn };
    tokio::select! {
        error = sweeper.passes() => error,
        error = sweeper.hints(named) => error,
    }
}

/// The claim, made when it is needed first.
struct OnceClaim<'a> {
    state: &'a State,
    claim: tokio::sync::OnceCell<Claim>,
}

impl OnceClaim<'_> {
    async fn get(&self, target: &Session) -> Result<Claim, SweepError> {
        Ok(*self.claim.get_or_try_init(|| self.state.claim_large_objects(target, false)).await?)
    }
}

struct Sweeper<'a> {
    ctx: &'a Context,
    state: &'a State,
    claim: &'a OnceClaim<'a>,
    turn: &'a Turn,
}

/// A session on either side.
struct Sessions {
    source: Session,
    target: Session,
}

impl Sweeper<'_> {
    /// Pass after pass.
    async fn passes(&self) -> HouseError {
        let interval = self.ctx.settings.large_object_interval;
        let mut sessions: Option<Sessions> = None;
        let mut watch = Watch::default();
        let mut pause = interval;
        loop {
            tokio::time::sleep(pause).await;
            let begun = Instant::now();
            match self.pass(&mut sessions, &mut watch).await {
                Ok(()) => {}
                Err(SweepError::State(error)) => return error.into(),
                Err(error) => {
                    warn!(%error, "cannot follow the large objects; trying again");
                    sessions = None;
                }
            }
            // At most a quarter of the time is spent on passes.
            pause = interval.max(begun.elapsed() * 3);
        }
    }

    async fn pass(&self, sessions: &mut Option<Sessions>, watch: &mut Watch) -> Result<(), SweepError> {
        let sessions = self.connected(sessions).await?;
        let counters = catalog::large_objects::written(&sessions.source).await?;
        if watch.is_quiet(counters) {
            self.ctx.metrics.large_object_passes.with_label_values(&["skipped"]).inc();
            return Ok(());
        }
        let claim = self.claim.get(&sessions.target).await?;
        let outcome = large_objects::pass(self.ends(sessions), claim, Pace::Beside, self.turn).await?;
        // Counted before the pass took its snapshot: what came later shows next time.
        watch.seen(counters);
        let report = outcome.report;
        debug!(?report, "followed the large objects");
        match (&outcome.left_out, watch.has_warned) {
            (Some(error), false) => warn!("{error}"),
            (None, true) => info!("all large objects can be carried now"),
            _ => {}
        }
        watch.has_warned = outcome.left_out.is_some();
        Ok(())
    }

    /// Looks at what rows name.
    async fn hints(&self, mut named: mpsc::Receiver<u32>) -> HouseError {
        let mut sessions: Option<Sessions> = None;
        let mut oids = Vec::new();
        loop {
            oids.clear();
            if named.recv_many(&mut oids, HINTS_AT_ONCE).await == 0 {
                // The applier is gone: so is the stream, in a moment.
                return std::future::pending().await;
            }
            oids.sort_unstable();
            oids.dedup();
            match self.look(&mut sessions, &oids).await {
                Ok(()) => {}
                Err(SweepError::State(error)) => return error.into(),
                Err(error) => {
                    debug!(%error, objects = oids.len(), "cannot look at large objects that rows name; the next pass does");
                    sessions = None;
                }
            }
        }
    }

    async fn look(&self, sessions: &mut Option<Sessions>, oids: &[u32]) -> Result<(), SweepError> {
        let sessions = self.connected(sessions).await?;
        let claim = self.claim.get(&sessions.target).await?;
        hints::look(self.ends(sessions), claim, oids, self.turn).await
    }

    fn ends<'s>(&'s self, sessions: &'s Sessions) -> Ends<'s> {
        let Context { settings, metrics, .. } = self.ctx;
        let Sessions { source, target } = sessions;
        Ends { source, target, state: self.state, metrics, crew: Crew::of(settings) }
    }

    /// The sessions that are kept, or new ones when one is lost.
    async fn connected<'s>(&self, place: &'s mut Option<Sessions>) -> Result<&'s Sessions, SweepError> {
        let settings = &self.ctx.settings;
        let sessions = match place.take() {
            Some(sessions) if !sessions.source.is_closed() && !sessions.target.is_closed() => sessions,
            _ => {
                let (source, target) = tokio::try_join!(
                    Session::connect(&settings.source, &settings.name),
                    Session::connect(&settings.target, &settings.name)
                )?;
                Sessions { source, target }
            }
        };
        Ok(place.insert(sessions))
    }
}

/// What was counted when the last pass began.
#[derive(Default)]
struct Watch {
    seen: Option<i64>,
    skipped: u32,
    has_warned: bool,
}

impl Watch {
    /// Whether a pass can be left out: nothing has been counted since the last.
    fn is_quiet(&mut self, counters: Option<i64>) -> bool {
        let is_quiet = counters.is_some() && self.seen == counters && self.skipped < MOST_SKIPPED;
        self.skipped = if is_quiet { self.skipped + 1 } else { 0 };
        is_quiet
    }

    fn seen(&mut self, counters: Option<i64>) {
        self.seen = counters;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_is_left_out_while_nothing_is_counted_but_not_for_ever() {
        let mut watch = Watch::default();
        assert!(!watch.is_quiet(Some(5)), "the first pass looks");
        watch.seen(Some(5));
        for _ in 0..MOST_SKIPPED {
            assert!(watch.is_quiet(Some(5)));
        }
        assert!(!watch.is_quiet(Some(5)), "counters are a hint only");
        assert!(watch.is_quiet(Some(5)));
        assert!(!watch.is_quiet(Some(6)));
        watch.seen(None);
        assert!(!watch.is_quiet(None), "who does not count says nothing");
    }
}
