//! The end, when nothing is written on the source any more: the rows of
//! unlogged tables, then what was held back, then materialized views; large
//! objects go to their owners.
//!
//! Invariant: an end that did not end well is run again. What it has brought in
//! that acts on rows is taken away before anything is applied, and comes in again;
//! rows of unlogged tables that are there by then stay, as they may be the
//! application's. An end that ended well is the last: afterwards nothing of the
//! migration is begun again, before the operator says so.

use tracing::{info, warn};

use super::{Context, Error, Finish};
use crate::copy;
use crate::schema::without_stream::Copied;
use crate::schema::{self, Keys, Leftover, without_stream};
use crate::session::Session;
use crate::sql::{TableName, literal};
use crate::state::State;
use crate::state::deferred::DeferredKind;
use crate::sweep::large_objects;

/// What was brought in.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    /// Objects that were held back.
    pub(super) restored: u64,
    /// Unlogged tables copied.
    pub(super) unlogged_tables: u64,
    /// What is left to an administrator.
    pub(super) administrators: Vec<Leftover>,
}

/// Brings everything in; the stream has ended, and the lease is held.
///
/// # Errors
/// When a table cannot be copied: then nothing else has been brought in. When
/// objects were refused: then the others are in.
pub(super) async fn finish(ctx: &Context, state: &State) -> Result<Finished, Error> {
    let unlogged_tables = without_stream(ctx, state).await?;
    let session = Session::connect(&ctx.settings.target, &ctx.settings.name).await?;
    let restored = schema::restore_deferred(state, &session, &DeferredKind::all().collect::<Vec<_>>()).await?;
    let source = Session::connect(&ctx.settings.source, &ctx.settings.name).await?;
    let given = large_objects::owners::give(&ctx.settings, &source, &session, state).await?;
    if restored.failures.is_empty() && given.refused.is_empty() {
        for left in &restored.administrators {
            warn!(object = left.object, sql = left.sql, "only an administrator of the target can bring this in");
        }
        return Ok(Finished { restored: restored.total(), unlogged_tables, administrators: restored.administrators });
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
    let tables = ctx.copy(state).tables(&source).await?;
    let copied = if schema::has_an_end_begun(&state.deferred().await?) { Copied::Stays } else { Copied::IsForgotten };
    if copied == Copied::Stays {
        say_what_stays(state).await?;
    }
    without_stream::list_anew(&own, &source, &tables, ctx.settings.schema, copied).await?;
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
    let tables = named(state, |kind, is_restored| kind == DeferredKind::Unlogged && is_restored).await?;
    if !tables.is_empty() {
        warn!(
            tables,
            "an earlier catchup --finish has copied these unlogged tables and brought triggers or keys in: they are not \
             emptied and copied again, as their rows may be the application's. If they are not, and the source has \
             written to them since, run on the target: UPDATE walferry.deferred SET restored_at = NULL WHERE migration = {} \
             AND kind = '{}'; and then catchup --finish again",
            literal(state.name()),
            DeferredKind::Unlogged.as_str()
        );
    }
    Ok(())
}

/// Takes away again what an end brought in that did not end well, before
/// anything is applied; the lease is held.
///
/// # Errors
/// When the target refuses it.
pub(super) async fn reopen(ctx: &Context, state: &State, finish: Finish) -> Result<(), Error> {
    if !schema::has_an_end_begun(&state.deferred().await?) {
        return Ok(());
    }
    let keys = match finish {
        Finish::Yes => Keys::Acting,
        Finish::No => Keys::All,
    };
    // An own session: others' statements must not fall into its transaction.
    let own = State::open(Session::connect(&ctx.settings.target, &ctx.settings.name).await?, state.name()).await?;
    let objects = schema::take_away_again(&own, keys).await?;
    if objects > 0 {
        let what = "an earlier catchup --finish brought in what acts on rows: it waits for the next --finish again";
        warn!(objects, "{what}");
        state.journal(&format!("{what} ({objects} objects)")).await?;
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
