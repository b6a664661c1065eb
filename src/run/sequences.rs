//! Passes over the sequences, beside the stream.
//!
//! Invariant: nothing waits for a pass: it has sessions of its own and is given
//! up, with them, when it takes too long, when the stream ends, or when the
//! daemon hands over. What it had sent by then is waited for by the next one,
//! in whatever process ([`SequenceSweep`]).

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tracing::warn;

use super::Context;
use crate::fault::chain;
use crate::state::State;
use crate::sweep::SweepError;
use crate::sweep::sequences::{Newly, SequencePass, SequenceReport, SequenceSweep};

/// How long a pass may take with its connections; ten thousand sequences take seconds.
const PASS_LIMIT: Duration = Duration::from_secs(300);

/// Makes passes until it is dropped. One that fails is logged, and tried again
/// at the next turn: if an end is lost, others notice and the stream ends.
pub async fn run(ctx: &Context, state: &State) -> Infallible {
    let mut turns = tokio::time::interval(ctx.settings.sequence_interval);
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut sweep, mut newly) = (None, Newly::default());
    loop {
        turns.tick().await;
        match tokio::time::timeout(PASS_LIMIT, pass(ctx, state, &mut sweep)).await {
            Ok(Ok(report)) => newly.log(&report),
            Ok(Err(error)) => warn!(error = %chain(&error), "cannot renew the sequences; trying again"),
            Err(_) => {
                sweep = None;
                warn!("a pass over the sequences has taken too long; trying again on new connections");
            }
        }
    }
}

/// A pass on the sessions that are kept, or on new ones if they are lost.
async fn pass(ctx: &Context, state: &State, sweep: &mut Option<SequenceSweep>) -> Result<SequenceReport, SweepError> {
    let kept = match sweep.take().filter(|sweep| !sweep.is_closed()) {
        Some(kept) => kept,
        None => SequenceSweep::connect(&ctx.settings, state).await?,
    };
    sweep.insert(kept).pass(&ctx.settings, &ctx.metrics, SequencePass::Periodic).await
}
