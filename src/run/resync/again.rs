//! Tables that are to be copied anew although the first copy is not complete:
//! somebody has mended their rows on the source, after what belongs to them
//! could not be built.
//!
//! Invariant: nothing is at work meanwhile (the lease); afterwards the table
//! waits as one that was never begun, and the next `run` gives it a snapshot of
//! its own. Other tables stay as they are.

use tracing::info;

use crate::config::TableFilter;
use crate::copy::anew;
use crate::run::{Context, Error, going_on};
use crate::sql::TableName;
use crate::state::State;
use crate::state::tables::{TableRow, TableState};

/// Empties the tables of the first copy that fit the patterns, each of which has
/// one at least; says which they are. `None` where that copy is complete by now: nothing
/// has been done.
///
/// # Errors
/// [`Error::Usage`] for a pattern without a table, [`Error::NotCopied`] where no
/// copy has begun, [`Error::Ended`]; when a command is at work on the migration.
pub(super) async fn let_wait(
    ctx: &Context,
    state: &State,
    patterns: &[(&str, TableFilter)],
) -> Result<Option<Vec<TableName>>, Error> {
    if !state.tables().await?.iter().any(|row| row.state.is_streamed()) {
        return Err(Error::NotCopied { name: ctx.settings.name.clone() });
    }
    state.take_lease().await?;
    if going_on(state).await?.copied {
        state.release_lease().await?;
        return Ok(None);
    }
    // Others may have been at work since.
    let rows: Vec<TableRow> = state.tables().await?.into_iter().filter(|row| row.state.is_streamed()).collect();
    let mut wanted: Vec<&TableRow> = Vec::new();
    for (text, pattern) in patterns {
        let before = wanted.len();
        wanted.extend(rows.iter().filter(|row| pattern.includes(&row.table)));
        if wanted.len() == before {
            return Err(Error::Usage(format!("{text}: no table of the copy fits it")));
        }
    }
    let mut names: Vec<TableName> = wanted.iter().map(|row| row.table.clone()).collect();
    names.sort();
    names.dedup();
    // What was never begun may hold somebody's rows: the copy asks about them.
    let waiting: Vec<u32> =
        wanted.iter().filter(|row| row.state == TableState::Waiting).map(|row| row.source_oid).collect();
    let mut begun: Vec<TableRow> = wanted.into_iter().filter(|row| row.state != TableState::Waiting).cloned().collect();
    begun.dedup_by_key(|row| row.source_oid);
    anew::empty(&ctx.copy(state), &begun).await?;
    // With it goes which of their rows were to be read.
    state.tables_anew(&waiting).await?;
    for TableRow { table, .. } in &begun {
        state.journal(&format!("{table} is to be copied anew")).await?;
        info!(%table, "emptied; the next \"walferry run\" copies it anew, with what is left");
    }
    state.release_lease().await?;
    Ok(Some(names))
}
