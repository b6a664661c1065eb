//! Tables that are copied anew, or taken in later, once the migration streams.
//!
//! ```text
//! walferry resync, add ─ request ─► desk (in the daemon)          no daemon: the command itself,
//!                                     │                           between two runs (copy::anew)
//!      the stream stands still ─ emptied, entered ─ the stream goes on without them
//!                                     │
//!      copied under a temporary slot's snapshot     (copy::anew)
//!                                     │
//!      a second stream, from that slot: these tables only         (join)
//!                                     │
//!      the stream stands still ─ the second one reaches it ─ the stream goes on with them
//! ```
//!
//! Invariant: at every moment each change of a table is either in the rows that
//! were copied, or applied by exactly one of the two streams. What the main
//! stream passes over while a table is not ready is in the temporary slot; when
//! that is lost the table is copied anew.
//!
//! Source: `src/backend/replication/logical/tablesync.c` does the same with a
//! second worker (SYNCWAIT, CATCHUP, SYNCDONE).

mod again;
mod ahead;
mod command;
mod join;

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

pub use command::{Kind, ResyncReport, command};

use super::retry::Retry;
use super::{Context, Error, coverage};
use crate::apply::steering::Steering;
use crate::copy::{CopyContext, anew, room};
use crate::fault::chain;
use crate::lsn::EndLsn;
use crate::session::Session;
use crate::state::State;
use crate::state::control::{Answer, Resync};
use crate::state::migration::Migration;
use crate::state::tables::TableRow;

/// How often requests are looked for.
const REQUEST_INTERVAL: Duration = Duration::from_millis(250);

/// What serves requests beside the stream.
pub(super) struct Desk<'a> {
    pub(super) ctx: &'a Context,
    pub(super) state: &'a Arc<State>,
    pub(super) migration: &'a Migration,
    /// Of the main stream.
    pub(super) steering: Steering,
}

/// What is to be brought up to the stream.
enum Work {
    /// What is not finished as the stream begins.
    Left,
    /// What a command asks for.
    Asked(Resync),
}

/// Serves requests for as long as the stream runs; one that is to end by itself
/// has none. What cannot be done is answered and said; the stream goes on.
///
/// # Errors
/// When the state is out of reach.
pub(super) async fn serve(desk: Desk<'_>, until: Option<EndLsn>) -> Error {
    if until.is_some() {
        return std::future::pending().await;
    }
    let mut work = Some(Work::Left);
    loop {
        if let Some(work) = work.take()
            && let Err(error) = desk.see_to(work).await
        {
            return error;
        }
        match desk.state.pending_resync().await {
            Ok(Some(request)) => work = Some(Work::Asked(request)),
            Ok(None) => tokio::time::sleep(REQUEST_INTERVAL).await,
            Err(error) => return error.into(),
        }
    }
}

impl Desk<'_> {
    /// Does it, again after lost connections, and answers.
    async fn see_to(&self, work: Work) -> Result<(), Error> {
        let ctx = self.ctx;
        let mut retry = Retry::new(ctx.settings.retry_for);
        let result = loop {
            let copied = ctx.metrics.copied_tables.get();
            match Box::pin(self.perform(&work)).await {
                Ok(()) => break Ok(()),
                Err(error) => {
                    if ctx.metrics.copied_tables.get() > copied {
                        retry.begin_anew();
                    }
                    retry.begin_if_new();
                    if let Err(error) = retry.wait(error, ctx).await {
                        break Err(error);
                    }
                }
            }
        };
        let answer = match &result {
            Ok(()) => Answer::Done,
            Err(error) => Answer::NotDone(chain(error)),
        };
        if let Answer::NotDone(why) = &answer {
            error!(error = why, "tables could not be copied beside the stream; it goes on without them");
            self.state.journal(&format!("could not copy tables beside the stream: {why}")).await?;
        }
        if let Work::Asked(request) = &work {
            self.state.answer_request(request.id, &answer).await?;
        }
        Ok(())
    }

    async fn perform(&self, work: &Work) -> Result<(), Error> {
        let ctx = self.ctx;
        let copy = ctx.copy(self.state);
        let source = Session::connect(&ctx.settings.source, &ctx.settings.name).await?;
        let wanted = match work {
            Work::Left => left(&copy).await?,
            Work::Asked(request) => anew::sort_out(&copy, &source, &request.tables).await?,
        };
        if wanted.names().is_empty() {
            return Ok(());
        }
        let by = if let Work::Asked(request) = work { request.requested_by.as_str() } else { "the state" };
        info!(by, tables = %list(&wanted), "copying tables beside the stream");
        room::require_possible(&copy, &source, &wanted).await?;
        room::make_room(&copy, &source, &wanted).await?;
        {
            let Some(_held) = self.steering.hold().await else { return Err(Error::StreamEnded) };
            anew::begin(&copy, &source, &wanted).await?;
        }
        drop(source);
        crate::failpoint::hit("resync-emptied");
        let copied = match anew::beside_stream(&copy).await {
            Ok(copied) => copied,
            Err(error) => return Err(coverage::or_named_of_copy(ctx, self.state, error.into()).await),
        };
        crate::failpoint::hit("resync-copied");
        Box::pin(join::join(self, copied)).await
    }
}

/// What is not finished.
async fn left(copy: &CopyContext<'_>) -> Result<anew::Wanted, Error> {
    let unfinished = copy.state.tables().await?.into_iter().filter(TableRow::is_unfinished);
    Ok(anew::Wanted { again: unfinished.collect(), ..anew::Wanted::default() })
}

/// Enters tables that somebody has added to the publication since the migration
/// began, before the stream meets changes of them. What cannot be entered is
/// said; the stream stops at its first change.
///
/// # Errors
/// When a connection is lost.
pub(super) async fn take_in_published(ctx: &Context, state: &State, migration: &Migration) -> Result<(), Error> {
    if migration.publishes_all_tables {
        return Ok(());
    }
    let copy = ctx.copy(state);
    let source = ctx.source().await?;
    let new = anew::unknown(&copy, &source).await?;
    if new.is_empty() {
        source.done();
        return Ok(());
    }
    let tables = anew::Wanted { new, ..anew::Wanted::default() };
    info!(tables = %list(&tables), "published since the migration began: taking them in");
    let entered = async {
        room::make_room(&copy, &source, &tables).await?;
        anew::enter(&copy, &source, &tables.new).await
    };
    match entered.await {
        Err(error) if !error.fault().is_retried() => {
            warn!(error = chain(&error), "they could not be taken in: the first change of them will stop the stream");
            Ok(())
        }
        result => Ok(result?),
    }
}

fn list(wanted: &anew::Wanted) -> String {
    wanted.names().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Brings what is not finished up, for a command that ends by itself: before
/// its stream begins. Says whether there was anything.
///
/// # Errors
/// When a table cannot be copied.
pub(super) async fn finish_between_runs(ctx: &Context, state: &State) -> Result<bool, Error> {
    let unfinished = state.tables().await?.iter().any(TableRow::is_unfinished);
    if unfinished {
        info!("tables are not finished: copying them first");
        between_runs(ctx, state).await?;
    }
    Ok(unfinished)
}

/// Copies what is not finished, no stream being at work.
async fn between_runs(ctx: &Context, state: &State) -> Result<(), Error> {
    match anew::between_runs(&ctx.copy(state)).await {
        Ok(()) => Ok(()),
        Err(error) => Err(coverage::or_named_of_copy(ctx, state, error.into()).await),
    }
}
