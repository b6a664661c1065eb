//! The lease of the migration, and what may have become of it while this process was
//! without its connections: another command has had it, or the target was set back to a
//! time before this process.
//!
//! Invariant: another one's word that it has ended the migration counts only where it had
//! the lease after us; the claims that come with leases only rise.

use std::sync::Arc;
use std::time::Duration;

use super::stream::{Reason, StreamEnd};
use super::{Begun, Context, Error};
use crate::apply::applier::Totals;
use crate::session::Session;
use crate::state::migration::Phase;
use crate::state::position::Claim;
use crate::state::resume::ResyncError;
use crate::state::{State, StateError};

/// How long the lease is waited for: after kill -9 the server needs a moment
/// to notice that its client is gone. Once the work has begun, the retries wait
/// on behind it.
const LEASE_WAIT: Duration = Duration::from_secs(20);

/// The leases of this process since it was entered as the one at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leases {
    /// What came with the latest.
    latest: Claim,
    /// Whether another one had the lease between two of them.
    has_others: bool,
}

impl Leases {
    /// It has just been entered, with this.
    pub(super) fn entered(latest: Claim) -> Self {
        Leases { latest, has_others: false }
    }

    /// It got this after that, whatever became of the attempts in between.
    pub(super) fn with(self, claim: Claim) -> Self {
        Leases { latest: claim, has_others: self.has_others || claim.has_others_since(self.latest) }
    }
}

/// Connects to the target's state and takes the lease.
pub(crate) async fn lease(ctx: &Context) -> Result<Arc<State>, Error> {
    let session = Session::connect(&ctx.settings.target, &ctx.settings.name).await?;
    let state = State::install(session, &ctx.settings.name).await?;
    wait_for_lease(ctx, &state, LEASE_WAIT).await?;
    ctx.leased_again(state.claim());
    Ok(Arc::new(state))
}

/// Takes the lease, waiting for a holder that is about to leave.
pub(crate) async fn wait_for_lease(ctx: &Context, state: &State, wait: Duration) -> Result<(), Error> {
    let begun = ctx.begun();
    // An attempt is not to outlast the retries it is one of.
    let wait = if begun == Begun::Yes { wait.min(ctx.settings.retry_for) } else { wait };
    let deadline = tokio::time::Instant::now() + wait;
    loop {
        match state.take_lease().await {
            Ok(()) => return Ok(()),
            Err(StateError::Leased { .. }) if tokio::time::Instant::now() < deadline => {}
            Err(error) => return Err(refused(error, begun)),
        }
        tokio::select! {
            () = ctx.shutdown.cancelled() => return Err(Error::Interrupted),
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
}

/// What a lease that was not had means: before this process has begun, another
/// one is at work and the operator decides; afterwards it was ours, and is
/// waited for like a lost connection.
fn refused(error: StateError, begun: Begun) -> Error {
    match (error, begun) {
        (StateError::Leased { name, holder }, Begun::Yes) => Error::LeaseHeld { name, holder },
        (error, _) => error.into(),
    }
}

/// While this process was trying to get its connections back, another command
/// may have taken the migration over and ended it: then it is not ours any more. A target
/// that was set back says so of those before us, whose leases came before ours.
pub(super) async fn taken_over(ctx: &Context, state: &State) -> Result<Option<StreamEnd>, Error> {
    let Some(leases) = ctx.entered() else { return Ok(None) };
    let name = state.name().to_owned();
    let Some(migration) = state.load().await? else { return Err(ResyncError::StateGone(name).into()) };
    let is_ours = migration.daemon == Some((ctx.hostname.clone(), ctx.pid));
    if migration.phase != Phase::Stopped || is_ours || !leases.has_others {
        return Ok(None);
    }
    let Some(position) = state.position(migration.slot.name()).await? else { return Ok(None) };
    let reason = Reason::HandedOver { to: migration.holder() };
    Ok(Some(StreamEnd { reason, position, totals: Totals::default() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Directive, Exit};

    fn leased() -> StateError {
        StateError::Leased { name: "walferry".to_owned(), holder: "process 7 on host".to_owned() }
    }

    #[test]
    fn a_lease_that_another_holds_is_the_operators_at_first_and_retried_once_the_work_has_begun() {
        for (begun, directive) in [(Begun::No, Directive::Operator), (Begun::Yes, Directive::Retry)] {
            let error = refused(leased(), begun);
            let verdict = error.fault().verdict();
            assert_eq!((verdict.directive, verdict.exit), (directive, Exit::Target), "{error}");
            assert!(error.to_string().contains("process 7 on host"), "{error}");
            assert!(verdict.remedy.is_some_and(|remedy| remedy.contains("pg_terminate_backend")));
            assert!(error.fault().is_anothers(), "its state is not written over when this process gives up");
        }
    }

    #[test]
    fn attempts_of_its_own_that_failed_are_nobody_elses() {
        let claims = |numbers: &[i64]| numbers.iter().map(|number| Claim::of_number(*number)).collect::<Vec<_>>();
        let has_others = |numbers: &[i64]| {
            let claims = claims(numbers);
            claims[1..].iter().fold(Leases::entered(claims[0]), |leases, claim| leases.with(*claim)).has_others
        };
        assert!(!has_others(&[4, 5, 6, 7]), "the source did not answer");
        assert!(has_others(&[4, 5, 7, 8]) && has_others(&[4, 6]));
        assert!(!has_others(&[7, 3, 4, 5, 6, 7, 8, 9]), "the target was set back");
    }

    #[test]
    fn any_other_refusal_of_the_lease_stays_what_it_is() {
        let error = refused(StateError::NoMigration("walferry".to_owned()), Begun::Yes);
        assert!(matches!(error, Error::State(StateError::NoMigration(_))), "{error}");
    }
}
