//! The place on the target of partitions that came after the copy, or went.
//!
//! Invariant: a row that no partition of the target takes, or that one refuses, is told
//! with what makes the partitions there those of the source, where they are not; one that
//! meets a row there which the source has no more, with the tables whose rows are in doubt.

use std::collections::HashSet;

use tracing::debug;

use super::{Purpose, look};
use crate::apply::ApplyError;
use crate::catalog::tables::{self, Shape};
use crate::copy::CopyError;
use crate::fault::sqlstate;
use crate::membership::SourceTable;
use crate::membership::gap::{Cause, Gap};
use crate::membership::placement::{self, Hierarchy};
use crate::run::{Context, Error};
use crate::session::{DbError, Session};
use crate::sql::TableName;
use crate::state::State;
use crate::state::tables::TableRow;

/// Whether the target lacks the table of a gap, a partition whose rows come in its
/// root's name: then what leads to it.
pub(super) async fn lacking(
    hierarchy: Hierarchy,
    gap: &Gap,
    tables: &[SourceTable],
    target: &Session,
) -> Result<Option<Gap>, DbError> {
    let Cause::NewWithin { root } = &gap.cause else { return Ok(None) };
    let Some(table) = tables.iter().find(|table| table.oid == gap.source_oid) else { return Ok(None) };
    let parent = table.ancestors.first().map_or(root, |above| &above.name);
    let there = tables::by_name(target, [&gap.table, parent].into_iter()).await?;
    if there.contains_key(&gap.table) {
        return Ok(None);
    }
    match hierarchy {
        Hierarchy::Same => Ok(Some(Gap { cause: Cause::NoPlace { root: root.clone(), create: None }, ..gap.clone() })),
        // The target need not part the rows at all.
        Hierarchy::Own if there.get(parent).is_none_or(|found| found.shape != Shape::Partitioned) => Ok(None),
        Hierarchy::Own => Ok(placement::lacking(table, root)),
    }
}

/// What a row was refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// No partition takes it, or its partition does not.
    Place,
    /// Its key is there already, or what it changes is not: the row may be in doubt, or of
    /// those that a row filter had left out.
    Others,
}

/// What ended a stream; of a row that has no place on the target the partitions that are
/// not what they are on the source, and of one that meets others what these may come from.
pub(in crate::run) async fn or_named(ctx: &Context, state: &State, error: Error) -> Error {
    let Error::Apply(ApplyError::Refused { place, .. } | ApplyError::RowCount { place, .. }) = &error else {
        return error;
    };
    let refusal = match &error {
        Error::Apply(ApplyError::Refused { error, .. }) if error.sqlstate == sqlstate::CHECK_VIOLATION => {
            Some(Refusal::Place)
        }
        Error::Apply(ApplyError::Refused { error, .. }) if error.sqlstate != sqlstate::UNIQUE_VIOLATION => None,
        _ => Some(Refusal::Others),
    };
    let table = place.label.table.clone();
    match refusal {
        Some(refusal) => named(ctx, state, (error, refusal), &[table]).await,
        None => error,
    }
}

/// What ended a copy of tables that are not finished; the same of their rows and values.
pub(in crate::run) async fn or_named_of_copy(ctx: &Context, state: &State, error: Error) -> Error {
    let Error::Copy(CopyError::Db(refused)) = &error else { return error };
    if refused.sqlstate() != Some(sqlstate::CHECK_VIOLATION) {
        return super::or_altered(ctx, state, error).await;
    }
    let unfinished = match state.tables().await {
        Ok(rows) => rows.into_iter().filter(TableRow::is_unfinished).map(|row| row.table).collect::<Vec<_>>(),
        Err(_) => return error,
    };
    named(ctx, state, (error, Refusal::Place), &unfinished).await
}

async fn named(ctx: &Context, state: &State, (error, refusal): (Error, Refusal), tables: &[TableName]) -> Error {
    match found(ctx, state, refusal, tables).await {
        Ok(gaps) if gaps.is_empty() => error,
        Ok(gaps) => Error::NotPlaced { gaps, source: Box::new(error) },
        Err(unasked) => {
            debug!(error = %unasked, "cannot look which partitions are not what they are on the source");
            error
        }
    }
}

/// Partitions that are not what they are on the source, of the trees of these tables; or what
/// their rows are in doubt for.
async fn found(ctx: &Context, state: &State, refusal: Refusal, refused: &[TableName]) -> Result<Vec<Gap>, Error> {
    let (settings, name) = (&ctx.settings, &ctx.settings.name);
    let (source, target) =
        tokio::try_join!(Session::connect(&settings.source, name), Session::connect(&settings.target, name))?;
    let look = look(settings, state, &source, Purpose::Refused).await?;
    let trees: HashSet<&TableName> =
        look.tables.iter().filter(|table| refused.contains(&table.name)).map(|table| table.root()).collect();
    let is_of_them = |gap: &Gap| {
        let table = look.tables.iter().find(|table| table.oid == gap.source_oid);
        refused.contains(&gap.table) || table.is_some_and(|table| trees.contains(table.root()))
    };
    // What it left out is missing when it is gone.
    let is_of_filter = |cause: &Cause| matches!(cause, Cause::RowFilter(_));
    let mut found = Vec::new();
    for gap in &look.gaps {
        match (&gap.cause, refusal) {
            (Cause::Attached { source, target, .. }, _) => {
                let is_parent = [source, target].into_iter().flatten().any(|home| refused.contains(&home.parent));
                found.extend((is_of_them(gap) || is_parent).then(|| gap.clone()));
            }
            (Cause::NewWithin { root }, Refusal::Place) if refused.contains(root) => {
                found.extend(lacking(Hierarchy::of(settings.schema), gap, &look.tables, &target).await?);
            }
            (cause, Refusal::Others) if (gap.is_doubt() || is_of_filter(cause)) && is_of_them(gap) => {
                found.push(gap.clone());
            }
            _ => {}
        }
    }
    // What places those that were found may be said with another.
    let is_missing = |gap: &&Gap| !found.contains(gap) && found.iter().any(|f| f.placed_with() == Some(&gap.table));
    let with: Vec<Gap> = look.gaps.iter().filter(is_missing).cloned().collect();
    found.extend(with.into_iter().filter(|gap| matches!(gap.cause, Cause::Attached { .. })));
    Ok(found)
}
