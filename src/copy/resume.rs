//! Where a copy begins: at its beginning, or where one that was cut off was.
//!
//! ```text
//! slot and list of tables are there ............ go on: finished tables stay
//! slot gone or lost, some table is finished .... needs resync
//! anything else ................................ from the beginning, with a new slot
//! ```
//!
//! Invariant: the list of tables in the state belongs to the slot. It is
//! written under the slot's own snapshot, and forgotten before the slot is
//! dropped; so a table that is not in it was created after the slot's
//! consistent point, and all its rows are in the stream.

use std::collections::HashSet;

use super::emptying;
use super::plan::Job;
use super::{CopyContext, CopyError};
use crate::catalog;
use crate::catalog::tables::{Shape, by_name, only};
use crate::lsn::EndLsn;
use crate::membership::{Part, SourceTable};
use crate::session::{DbContext, Session};
use crate::sql::TableName;
use crate::state::copying::{Attempt, Step};
use crate::state::resume::{ResyncError, compare_slot};
use crate::state::tables::{TableRow, TableState};
use crate::state::{State, StateError};

/// Where a copy begins.
#[derive(Debug)]
pub(super) enum Beginning {
    /// At its beginning.
    Anew,
    /// Where it was; the slot began here.
    Again(EndLsn),
    /// There is nothing to copy; the rows are as of here.
    There(EndLsn),
}

/// Decides where the copy begins.
///
/// # Errors
/// [`CopyError::Resync`] when finished tables cannot be gone on with.
pub(super) async fn beginning(ctx: &CopyContext<'_>, source: &Session) -> Result<Beginning, CopyError> {
    let migration = ctx.state.load().await?.ok_or_else(|| StateError::NoMigration(ctx.state.name().to_owned()))?;
    let rows = ctx.state.tables().await?;
    let Some(point) = migration.consistent_point.filter(|_| !rows.is_empty()) else {
        return Ok(Beginning::Anew);
    };
    let slot = catalog::slot::find(source, migration.slot.name()).await?;
    let is_finished =
        |row: &TableRow| matches!(row.state, TableState::Indexing | TableState::Joining | TableState::Ready);
    match compare_slot(migration.slot.name(), &migration.source, slot, point.lsn()) {
        Ok(()) => {
            let (finished, all) =
                (rows.iter().filter(|row| is_finished(row)).count(), rows.iter().filter(|row| takes_part(row)).count());
            tracing::info!(tables = all, finished, from = %point.lsn(), "going on with the copy that was cut off");
            Ok(Beginning::Again(point))
        }
        Err(error @ (ResyncError::SlotGone(_) | ResyncError::SlotLost { .. })) if !rows.iter().any(is_finished) => {
            tracing::warn!(%error, "no table was finished yet: the copy starts over with a new slot");
            Ok(Beginning::Anew)
        }
        Err(error) => Err(error.into()),
    }
}

fn takes_part(row: &TableRow) -> bool {
    row.state.is_streamed()
}

/// Says which tables the source has got since the list was written.
pub(super) async fn name_new_tables(ctx: &CopyContext<'_>, tables: &[SourceTable]) -> Result<(), CopyError> {
    let known: HashSet<u32> = ctx.state.tables().await?.iter().map(|row| row.source_oid).collect();
    let is_new = |table: &&SourceTable| {
        table.part == Part::Included
            && table.shape == Shape::Plain
            && table.ancestors.is_empty()
            && !known.contains(&table.oid)
    };
    for table in tables.iter().filter(is_new) {
        tracing::warn!(table = %table.name, "this table was created on the source after the copy began; \
            it is like one that is created later: see \"The schema changed on the source\" in the README");
    }
    Ok(())
}

/// Empties what a copy that was cut off had begun, and forgets it: the list of
/// tables and the slot it belongs to go in one transaction.
///
/// # Errors
/// When the target refuses it.
pub(super) async fn forget(ctx: &CopyContext<'_>) -> Result<(), CopyError> {
    let own = ctx.state.beside(emptying::session(ctx).await?).await?;
    let session = own.session();
    let action = "start the copy over";
    let run = async |sql: &str| session.batch_execute(sql).await.during(session.side(), action);
    let begun: Vec<TableName> = own
        .tables()
        .await?
        .into_iter()
        .filter(|row| row.state.is_streamed() && row.state != TableState::Waiting)
        .map(|row| row.table)
        .collect();
    run("BEGIN").await?;
    // Those that are still there; a partitioned table has its rows in its partitions.
    let there = by_name(session, begun.iter()).await?;
    if !there.is_empty() {
        tracing::info!(tables = there.len(), "the copy was cut off: emptying what it had begun");
        emptying::empty(session, there.iter().map(|(name, t)| (name, t.shape)), action).await?;
    }
    own.forget_copy().await?;
    own.commit(action).await?;
    Ok(())
}

/// What [`empty`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The table is empty now, and waiting.
    Empty,
    /// Its rows are all there after all, by this attempt: only the answer had been lost.
    Complete(Attempt),
}

/// Empties a table that was begun. Waits until every transaction that wrote to
/// it has ended, then looks at what it left.
///
/// # Errors
/// When the target refuses it.
pub(super) async fn empty(target: &State, job: &Job) -> Result<Found, CopyError> {
    let (table, shape) = (&job.table, job.shape);
    let session = target.session();
    let action = format!("empty {table} again");
    let run = async |sql: String| session.batch_execute(&sql).await.during(session.side(), &action);
    let only = only(shape);
    let sql = table.sql();
    run(format!("BEGIN; LOCK TABLE {only}{sql} IN ACCESS EXCLUSIVE MODE")).await?;
    let found = match target.hold_table(job.source_oid).await? {
        Some((TableState::Waiting, _)) => Found::Empty,
        Some((TableState::Copying, _)) => {
            emptying::empty(session, std::iter::once((table, shape)), &action).await?;
            expect(target.reset_table(job.source_oid).await?, table)?;
            Found::Empty
        }
        Some((TableState::Indexing | TableState::Joining | TableState::Ready, attempt)) => Found::Complete(attempt),
        Some(_) | None => return Err(CopyError::Elsewhere(table.clone())),
    };
    run("COMMIT".to_owned()).await?;
    Ok(found)
}

/// A table that the source dropped before its rows were copied: as of `point`
/// it is empty, and the changes before are passed over.
///
/// # Errors
/// When the target refuses it.
pub(super) async fn gone(target: &State, job: &Job, point: EndLsn) -> Result<(), CopyError> {
    let table = &job.table;
    tracing::warn!(%table, "this table was dropped on the source before it was copied; on the target it stays, empty");
    let session = target.session();
    let is_there = !by_name(session, std::iter::once(table)).await?.is_empty();
    let found = if is_there { empty(target, job).await? } else { Found::Empty };
    if found == Found::Empty {
        expect(target.table_gone(job.source_oid, point).await?, table)?;
        target.journal(&format!("{table} was dropped on the source before it was copied")).await?;
    }
    Ok(())
}

/// A step that was not taken is another process's doing.
pub(super) fn expect(step: Step, table: &TableName) -> Result<(), CopyError> {
    match step {
        Step::Taken => Ok(()),
        Step::Elsewhere => Err(CopyError::Elsewhere(table.clone())),
    }
}
