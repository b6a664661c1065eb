//! The end, when nothing is written on the source any more: the rows of
//! unlogged tables, then what was held back, then materialized views; large
//! objects go to their owners.
//!
//! Invariant: until it has ended well once, everything that has no stream is
//! brought in again each time, as the source may have been written to between
//! two attempts; afterwards none of it is touched, as the target may be the
//! application's by then.

use tracing::{info, warn};

use super::{Context, Error};
use crate::copy;
use crate::schema::{self, without_stream};
use crate::session::Session;
use crate::sql::TableName;
use crate::state::State;
use crate::state::deferred::DeferredKind;
use crate::sweep::large_objects;

/// What was brought in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finished {
    /// Objects that were held back.
    pub(super) restored: u64,
    /// Unlogged tables copied.
    pub(super) unlogged_tables: u64,
}

/// Brings everything in; the stream has ended, and the lease is held.
///
/// # Errors
/// When a table cannot be copied: then nothing else has been brought in. When
/// objects were refused: then the others are in.
pub(super) async fn finish(ctx: &Context, state: &State) -> Result<Finished, Error> {
    let unlogged_tables = if state.load().await?.is_some_and(|migration| migration.finished) {
        say_what_stays(state).await?;
        0
    } else {
        without_stream(ctx, state).await?
    };
    let session = Session::connect(&ctx.settings.target, &ctx.settings.name).await?;
    let restored = schema::restore_deferred(state, &session, &DeferredKind::ALL).await?;
    let source = Session::connect(&ctx.settings.source, &ctx.settings.name).await?;
    let given = large_objects::owners::give(&ctx.settings, &source, &session, state).await?;
    if restored.failures.is_empty() && given.refused.is_empty() {
        return Ok(Finished { restored: restored.total(), unlogged_tables });
    }
    for failure in &restored.failures {
        warn!(%failure, "a deferred object could not be restored");
    }
    let more = (given.more_refused > 0).then(|| format!("{} more statements about large objects", given.more_refused));
    let failures = restored.failures.iter().map(ToString::to_string).chain(given.refused).chain(more).collect();
    Err(Error::NotRestored { failures })
}

/// Lists what has no stream anew, and copies the unlogged tables.
async fn without_stream(ctx: &Context, state: &State) -> Result<u64, Error> {
    let source = Session::connect(&ctx.settings.source, &ctx.settings.name).await?;
    // An own session: others' statements must not fall into its transaction.
    let own = State::open(Session::connect(&ctx.settings.target, &ctx.settings.name).await?, state.name()).await?;
    let tables = schema::tables::of_source(&source, &ctx.settings.filter).await.map_err(schema::SchemaError::from)?;
    without_stream::list_anew(&own, &source, &tables, ctx.settings.schema).await?;
    let copy = ctx.copy(state);
    let copied = tokio::select! {
        biased;
        () = ctx.shutdown.cancelled() => return Err(Error::Interrupted),
        copied = copy::unlogged::run(&copy) => copied?,
    };
    info!(tables = copied, "unlogged tables are copied");
    Ok(copied)
}

async fn say_what_stays(state: &State) -> Result<(), Error> {
    let tables = named(state, |kind, _| kind == DeferredKind::Unlogged).await?;
    if !tables.is_empty() {
        warn!(
            tables,
            "an earlier catchup --finish ended well, and the target may be the application's: unlogged tables are not \
             copied again. If it is not, and the source was written to since, run on the target: \
             UPDATE walferry.migration SET finished_at = NULL; and then catchup --finish again"
        );
    }
    Ok(())
}

/// Says what a catch-up without the end leaves out.
pub(super) async fn say_what_waits(state: &State) -> Result<(), Error> {
    let what = named(state, |kind, is_restored| without_stream::KINDS.contains(&kind) && !is_restored).await?;
    if !what.is_empty() {
        warn!(what, "not on the target before catchup --finish, having no stream");
    }
    Ok(())
}

/// At most this many names in a line of the log.
const SHOWN: usize = 20;

async fn named(state: &State, is_meant: impl Fn(DeferredKind, bool) -> bool) -> Result<String, Error> {
    let objects = state.deferred().await?;
    let names: Vec<&TableName> =
        objects.iter().filter(|o| is_meant(o.kind, o.is_restored)).map(|object| &object.table).collect();
    let mut text: Vec<String> = names.iter().take(SHOWN).map(ToString::to_string).collect();
    if names.len() > SHOWN {
        text.push(format!("{} more", names.len() - SHOWN));
    }
    Ok(text.join(", "))
}
