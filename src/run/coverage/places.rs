//! The place on the target of partitions that came after the copy, or went.
//!
//! Invariant: a row that no partition of the target takes, or that one refuses, is told
//! with what makes the partitions there those of the source, where they are not.

use std::collections::HashMap;

use tracing::debug;

use super::look;
use crate::apply::ApplyError;
use crate::catalog::tables::{self, Shape};
use crate::fault::sqlstate;
use crate::membership::SourceTable;
use crate::membership::coverage::{Cause, Gap};
use crate::membership::placement::Hierarchy;
use crate::run::{Context, Error};
use crate::session::{DbError, Session};
use crate::sql::TableName;
use crate::state::State;

/// Whether the target lacks the table of a gap, a partition whose rows come in its
/// root's name: then what leads to it.
pub(super) async fn lacking(
    hierarchy: Hierarchy,
    gap: &Gap,
    tables: &[SourceTable],
    (source, target): (&Session, &Session),
) -> Result<Option<Gap>, DbError> {
    let Cause::NewWithin { root } = &gap.cause else { return Ok(None) };
    let Some(table) = tables.iter().find(|table| table.oid == gap.source_oid) else { return Ok(None) };
    let parent = table.ancestors.first().map_or(root, |above| &above.name);
    let there = tables::by_name(target, [&gap.table, parent].into_iter()).await?;
    if there.contains_key(&gap.table) {
        return Ok(None);
    }
    let create = match hierarchy {
        Hierarchy::Same => None,
        // The target need not part the rows at all.
        Hierarchy::Own if there.get(parent).is_none_or(|found| found.shape != Shape::Partitioned) => return Ok(None),
        Hierarchy::Own => {
            let bounds: HashMap<TableName, (u32, String)> = tables::bounds(source).await?;
            let Some((_, bound)) = bounds.get(&table.name) else { return Ok(None) };
            Some(format!("CREATE TABLE {} PARTITION OF {} {bound};", table.name.sql(), parent.sql()))
        }
    };
    Ok(Some(Gap { cause: Cause::NoPlace { root: root.clone(), create }, ..gap.clone() }))
}

/// What ended a stream; a row that has no place on the target, with the partitions that
/// are not where they are on the source.
pub(in crate::run) async fn or_named(ctx: &Context, state: &State, error: Error) -> Error {
    let table = match &error {
        Error::Apply(ApplyError::Refused { place, error }) if error.sqlstate == sqlstate::CHECK_VIOLATION => {
            place.label.table.clone()
        }
        _ => return error,
    };
    match misplaced(ctx, state, &table).await {
        Ok(gaps) if gaps.is_empty() => error,
        Ok(gaps) => Error::NotPlaced { gaps, source: Box::new(error) },
        Err(unasked) => {
            debug!(error = %unasked, "cannot look which partitions are not where they are on the source");
            error
        }
    }
}

/// Partitions that are not where they are on the source: a table, or what is or was a
/// partition of it.
async fn misplaced(ctx: &Context, state: &State, table: &TableName) -> Result<Vec<Gap>, Error> {
    let (settings, name) = (&ctx.settings, &ctx.settings.name);
    let (source, target) =
        tokio::try_join!(Session::connect(&settings.source, name), Session::connect(&settings.target, name))?;
    let look = look(settings, state, &source).await?;
    let mut found = Vec::new();
    for gap in look.gaps {
        match &gap.cause {
            Cause::Attached { source, target, .. } => {
                let is_of_it = [source, target].into_iter().flatten().any(|parent| parent == table);
                found.extend((gap.table == *table || is_of_it).then_some(gap));
            }
            Cause::NewWithin { root } if root == table => {
                let lacking = lacking(Hierarchy::of(settings.schema), &gap, &look.tables, (&source, &target)).await?;
                found.extend(lacking);
            }
            _ => {}
        }
    }
    Ok(found)
}
