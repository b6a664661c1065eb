//! A baseline that was restored by other means: no rows are copied, and the
//! stream begins where the baseline ends.
//!
//! Invariant: the slot is older than the baseline, and the point given parts the
//! transactions: those whose commit record begins before it are on the target,
//! those at or behind it are not. walferry can check that the slot still has
//! everything from there on; that the rows are those of the point is the
//! operator's word, as for any restored backup.
//!
//! Source: a new slot's `confirmed_flush_lsn` is its consistent point, which its
//! exported snapshot stands for (`DecodingContextFindStartpoint` in
//! `src/backend/replication/logical/logical.c`).

use super::{CopyContext, CopyError, plan, publication};
use crate::catalog;
use crate::lsn::{EndLsn, Lsn};
use crate::session::Session;
use crate::state::StateError;
use crate::state::resume::{ResyncError, compare_slot};

/// Takes the rows on the target as those of `start`, and registers the tables.
///
/// # Errors
/// When publication or slot are not there, the slot has given up what is needed,
/// or the tables do not fit.
pub(super) async fn take(ctx: &CopyContext<'_>, source: &Session, start: Option<Lsn>) -> Result<EndLsn, CopyError> {
    publication::ensure(ctx, source).await?;
    let point = point(ctx, source, start).await?;
    let tables = ctx.tables(source).await?;
    // Nothing is dumped, so no snapshot has to be named.
    super::prepare_schema(ctx, source, "", &tables).await?;
    let target = Session::connect(&ctx.settings.target, &ctx.settings.name).await?;
    plan::register(ctx, source, &target, &tables).await?;
    ctx.state.set_consistent_point(point).await?;
    let count = ctx.state.tables_restored(point).await?;
    ctx.state.journal(&format!("no copy: {count} tables are taken as they are, as of {}", point.lsn())).await?;
    tracing::info!(tables = count, from = %point.lsn(), "no copy: the rows on the target are taken as they are");
    Ok(point)
}

/// Where the stream begins; the slot has everything from there on.
async fn point(ctx: &CopyContext<'_>, source: &Session, start: Option<Lsn>) -> Result<EndLsn, CopyError> {
    let migration = ctx.state.load().await?.ok_or_else(|| StateError::NoMigration(ctx.state.name().to_owned()))?;
    let name = migration.slot.name();
    // A point that somebody took from the server need not have been kept there so far.
    let end = catalog::wal::flush_to_end(source).await?;
    let slot = catalog::slot::find(source, name).await?;
    let begins = slot.as_ref().and_then(|slot| slot.confirmed_flush);
    let point = start.or(begins).ok_or_else(|| ResyncError::SlotGone(name.to_owned()))?;
    if point > end {
        return Err(CopyError::StartAhead { start: point, end });
    }
    compare_slot(name, &migration.source, slot, point)?;
    Ok(EndLsn::of_slot(point))
}
