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

use super::{Context, Error, Finish, coverage, going_on};
use crate::copy;
use crate::schema::without_stream::Copied;
use crate::schema::{self, Keys, Leftover, without_stream};
use crate::session::Session;
use crate::sql::TableName;
use crate::state::State;
use crate::state::deferred::{Deferred, DeferredKind};
use crate::state::migration::Migration;
use crate::state::tables::{TableRow, TableState};
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
    let source = ctx.source().await?;
    let given = large_objects::owners::give(&ctx.settings, &source, &session, state).await?;
    source.done();
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

/// Brings what waits up to what its tables are by now, lists what is gone and what has
/// no stream anew, and copies the unlogged tables.
async fn without_stream(ctx: &Context, state: &State) -> Result<u64, Error> {
    let source = ctx.source().await?;
    // An own session: others' statements must not fall into its transaction.
    let own = state.beside(Session::connect(&ctx.settings.target, &ctx.settings.name).await?).await?;
    let tables = ctx.copy(state).tables(&source).await?;
    schema::list_what_is_gone(&own).await?;
    schema::follow(&ctx.settings, &own, &source, &tables).await?;
    let copied = if schema::has_an_end_begun(&state.deferred().await?) { Copied::Stays } else { Copied::IsForgotten };
    without_stream::list_anew(&own, &source, &tables, &ctx.settings, copied).await?;
    source.done();
    let copy = ctx.copy(state);
    let copied = tokio::select! {
        biased;
        () = ctx.shutdown.cancelled() => return Err(Error::Interrupted),
        copied = copy::unlogged::run(&copy) => copied?,
    };
    info!(tables = copied, "unlogged tables are copied");
    Ok(copied)
}

/// Unlogged tables that an earlier end has copied, and this one has not: those that
/// differ. Their rows may be the application's.
///
/// # Errors
/// When either side cannot be asked.
pub(super) async fn unlogged_that_differ(ctx: &Context, copied: &[TableName]) -> Result<Vec<TableName>, Error> {
    if copied.is_empty() {
        return Ok(Vec::new());
    }
    let (source, target) = tokio::try_join!(ctx.source(), ctx.target())?;
    let mut differ = Vec::new();
    for table in copied {
        if !coverage::have_equal_rows((&source, table), (&target, table), None).await? {
            differ.push(table.clone());
        }
    }
    source.done();
    target.done();
    Ok(differ)
}

/// The unlogged tables that an end has copied that has brought in what acts on
/// rows: this one does not copy them again.
///
/// # Errors
/// When the state cannot be read.
pub(super) async fn copied_by_an_earlier_end(state: &State) -> Result<Vec<TableName>, Error> {
    let objects = state.deferred().await?;
    if !schema::has_an_end_begun(&objects) {
        return Ok(Vec::new());
    }
    let is_copied = |object: &Deferred| object.kind == DeferredKind::Unlogged && object.is_restored;
    Ok(objects.into_iter().filter(is_copied).map(|object| object.table).collect())
}

/// Takes away again what an end brought in that did not end well, before
/// anything is applied; the lease is held.
///
/// # Errors
/// [`Error::Ended`] where an end has ended well, also since the caller last looked; when
/// the target refuses it.
pub(super) async fn reopen(ctx: &Context, state: &State, finish: Finish) -> Result<(), Error> {
    // Nobody ends it from here on: with the lease lost nothing is committed below.
    going_on(state).await?;
    if !schema::is_to_be_reopened(&state.deferred_settled().await?) {
        return Ok(());
    }
    let keys = match finish {
        Finish::Yes => Keys::Acting,
        Finish::No => Keys::All,
    };
    // An own session: others' statements must not fall into its transaction.
    let own = state.beside(Session::connect(&ctx.settings.target, &ctx.settings.name).await?).await?;
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

/// Refuses to go on with a migration that has ended, and says again what its end has found.
///
/// # Errors
/// [`Error::Ended`], [`Error::UnloggedDiffer`].
pub(super) async fn require_not_ended(migration: &Migration, state: &State) -> Result<(), Error> {
    if !migration.finished {
        return Ok(());
    }
    let name = state.name().to_owned();
    let differing = |row: TableRow| (row.state == TableState::Unlogged && row.problem.is_some()).then_some(row.table);
    let tables: Vec<TableName> = state.tables().await?.into_iter().filter_map(differing).collect();
    // Whoever found it may have had no time to say so.
    if tables.is_empty() { Err(Error::Ended { name }) } else { Err(Error::UnloggedDiffer { name, tables }) }
}
