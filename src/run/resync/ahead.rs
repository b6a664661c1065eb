//! What nobody needs any more is left behind: once every table was copied anew
//! between two runs, the stream begins where the first of them is of.
//!
//! Invariant: the position moves only past what is in the rows of every table that
//! is streamed, and of no table to come. So changes that the source cannot decode
//! (its publication was gone when they were made) need not end a migration.

use std::collections::HashSet;

use tracing::{info, warn};

use crate::catalog;
use crate::catalog::tables::{Detail, Shape};
use crate::copy::anew::Wanted;
use crate::lsn::EndLsn;
use crate::membership::{self, Part, SourceTable};
use crate::run::{Context, Error};
use crate::session::Session;
use crate::sql::TableName;
use crate::state::State;
use crate::state::migration::Migration;
use crate::state::resume::{ResyncError, compare_slot};
use crate::state::tables::{TableRow, TableState};
use crate::words::listed;

/// Moves the position up to the point that all tables' rows are of, if it is behind;
/// the lease is held, and no stream is at work.
///
/// # Errors
/// When an end cannot be asked, or another process has moved the position.
pub(super) async fn leave_behind(ctx: &Context, state: &State) -> Result<(), Error> {
    let Some(migration) = state.load().await? else { return Ok(()) };
    let slot = migration.slot.name();
    let Some(position) = state.position(slot).await? else { return Ok(()) };
    let source = ctx.source().await?;
    let tables = membership::of(&source, &ctx.settings.filter, state, Detail::Outline).await?;
    source.done();
    let Some(point) = all_are_of(&state.tables().await?, &tables) else { return Ok(()) };
    if point.lsn() <= position.lsn() {
        return Ok(());
    }
    if migration.publishes_all_tables && !record_strangers(state, &tables).await? {
        return Ok(());
    }
    state.pass_over(slot, position, point).await?;
    info!(from = %position.lsn(), to = %point.lsn(), "every table was copied anew: the stream goes on from there");
    state.journal(&format!("went on from {}, every table having been copied anew", point.lsn())).await?;
    Ok(())
}

/// Before a table is emptied: the slot has to have what the others lack, or there are
/// none, and what it lacks is left behind.
///
/// # Errors
/// [`ResyncError`] where no stream could go on with the tables.
pub(super) async fn require_stream(
    ctx: &Context,
    (state, migration): (&State, &Migration),
    source: &Session,
    wanted: &Wanted,
) -> Result<(), Error> {
    let slot = migration.slot.name();
    let Some(position) = state.position(slot).await? else {
        return Err(ResyncError::NoPosition(slot.to_owned()).into());
    };
    let found = catalog::slot::find(source, slot).await?;
    let Err(error) = compare_slot(slot, &migration.source, found, position.lsn()) else { return Ok(()) };
    let tables = membership::of(source, &ctx.settings.filter, state, Detail::Outline).await?;
    let again: HashSet<u32> = wanted.again.iter().map(|row| row.source_oid).collect();
    let are_all = streamed(&state.tables().await?, &tables).all(|row| again.contains(&row.source_oid));
    if matches!(error, ResyncError::SlotAhead { .. }) && are_all { Ok(()) } else { Err(error.into()) }
}

/// Those whose changes come. Of what is unlogged by now nothing comes any more; that its
/// rows differ is said elsewhere.
fn streamed<'r>(rows: &'r [TableRow], tables: &[SourceTable]) -> impl Iterator<Item = &'r TableRow> {
    let unlogged: HashSet<u32> = tables.iter().filter(|t| t.part == Part::Unlogged).map(|table| table.oid).collect();
    rows.iter().filter(move |row| row.state.is_streamed() && !unlogged.contains(&row.source_oid))
}

/// The point that the rows of every table that is streamed are of, at least.
fn all_are_of(rows: &[TableRow], tables: &[SourceTable]) -> Option<EndLsn> {
    let points: Option<Vec<EndLsn>> =
        streamed(rows, tables).map(|row| row.snapshot_lsn.filter(|_| row.state == TableState::Ready)).collect();
    points?.into_iter().min()
}

/// Tables that nobody knows are taken for whole when the stream meets them, as all
/// their rows are in it. They would not be: so those that the filter leaves out are
/// recorded, and others are in the way.
async fn record_strangers(state: &State, tables: &[SourceTable]) -> Result<bool, Error> {
    let known = membership::known(state).await?;
    let strangers = || tables.iter().filter(|table| table.shape == Shape::Plain && !known.contains_key(&table.oid));
    let new: Vec<TableName> = strangers().filter(|t| t.part == Part::Included).map(|t| t.name.clone()).collect();
    if !new.is_empty() {
        warn!(
            tables = listed(&new),
            "the stream has rows of tables that were created after the copy; take them in with \"walferry add\", and have \
             all tables copied anew once more if it cannot go on"
        );
        return Ok(false);
    }
    let left_out = |table: &SourceTable| TableRow::new(table.name.clone(), table.oid, TableState::Excluded);
    let left_out: Vec<TableRow> = strangers().filter(|t| t.part == Part::Filtered).map(left_out).collect();
    state.enter_tables(&left_out).await?;
    Ok(true)
}
