//! What has no stream: the rows of unlogged tables, the data of materialized
//! views. Both come at the end, when nothing is written any more.
//!
//! Invariant: what waits for the end is a row of `walferry.deferred`, written
//! with the list of tables. The end makes that list anew, as the source has it
//! then, and everything on it is brought in. An end that is run again brings it in
//! again, but for the rows of unlogged tables once triggers or keys are in: from
//! then on they may be the application's.
//!
//! Foreign tables have their rows elsewhere, and temporary ones have theirs in
//! a session: neither is on the list.

use super::{SchemaError, batch, left_out, source};
use crate::catalog::named;
use crate::catalog::tables::Shape;
use crate::config::{SchemaMode, Settings};
use crate::membership::{Part, SourceTable};
use crate::session::Session;
use crate::shell;
use crate::sql::TableName;
use crate::state::State;
use crate::state::deferred::{Deferred, DeferredKind, Follows};

/// The kinds of deferred objects that this is about.
pub const KINDS: [DeferredKind; 2] = [DeferredKind::Unlogged, DeferredKind::MaterializedView];

/// Writes down what waits for the end, in the place of what was written before;
/// inside the caller's transaction. `source` is a session in the snapshot of the
/// copy. With `--schema none` views are the operator's own.
///
/// # Errors
/// When the source's catalog cannot be read, or the target refuses it.
pub async fn list(
    state: &State,
    source: &Session,
    tables: &[SourceTable],
    settings: &Settings,
) -> Result<(), SchemaError> {
    let views = match settings.schema {
        SchemaMode::Create | SchemaMode::Existing => views(source, settings, tables).await?,
        SchemaMode::None => Vec::new(),
    };
    write(state, tables, views, Copied::IsForgotten).await
}

/// What becomes of unlogged tables that an earlier end has copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// They are copied again: nobody else has written to them since.
    IsForgotten,
    /// They stay: their rows may be the application's by now.
    Stays,
}

/// Makes the list anew at the end, with a transaction of its own on `state`'s
/// session. A view that the target does not have is named and left out.
///
/// # Errors
/// As of [`list`].
pub async fn list_anew(
    state: &State,
    source: &Session,
    tables: &[SourceTable],
    settings: &Settings,
    copied: Copied,
) -> Result<(), SchemaError> {
    let views = match settings.schema {
        SchemaMode::Create | SchemaMode::Existing => {
            there(state.session(), views(source, settings, tables).await?).await?
        }
        SchemaMode::None => Vec::new(),
    };
    batch(state.session(), "BEGIN", "begin to list what has no stream").await?;
    write(state, tables, views, copied).await?;
    state.commit("list what has no stream").await?;
    Ok(())
}

/// The unlogged tables whose rows are carried: partitioned ones have none.
pub fn unlogged(tables: &[SourceTable]) -> impl Iterator<Item = &SourceTable> {
    tables.iter().filter(|table| table.part == Part::Unlogged && table.shape == Shape::Plain)
}

async fn views(source: &Session, settings: &Settings, tables: &[SourceTable]) -> Result<Vec<TableName>, SchemaError> {
    let taken = left_out::of_filter(source, &settings.filter, tables).await?;
    Ok(source::filled_views(source, &taken.relations).await?)
}

/// Those views that the target has, in the same order.
async fn there(target: &Session, views: Vec<TableName>) -> Result<Vec<TableName>, SchemaError> {
    let found = named::kinds(target, &views).await?;
    let (there, absent): (Vec<TableName>, Vec<TableName>) =
        views.into_iter().partition(|view| found.get(view) == Some(&'m'));
    for view in absent {
        tracing::warn!(%view, "the source has this materialized view, the target does not: it is not refreshed");
    }
    Ok(there)
}

async fn write(
    state: &State,
    tables: &[SourceTable],
    views: Vec<TableName>,
    copied: Copied,
) -> Result<(), SchemaError> {
    let kinds: Vec<&str> = KINDS.iter().map(|kind| kind.as_str()).collect();
    let kept = match copied {
        Copied::IsForgotten => None,
        Copied::Stays => Some(DeferredKind::Unlogged.as_str()),
    };
    let delete = "DELETE FROM walferry.deferred WHERE migration = $1 AND kind = ANY ($2::text[]) \
         AND (kind IS DISTINCT FROM $3::text OR restored_at IS NULL)";
    state.execute(delete, &[&state.name(), &kinds, &kept], "forget what has no stream").await?;
    let left = state.deferred().await?;
    let last = left.iter().map(|object| object.ordinal).max().unwrap_or_default();
    let is_copied =
        |name: &TableName| left.iter().any(|object| object.kind == DeferredKind::Unlogged && object.table == *name);
    let rows = unlogged(tables).filter(|table| !is_copied(&table.name)).map(|table| rows_of(&table.name));
    let mut objects: Vec<Deferred> = rows.chain(views.into_iter().map(refresh_of)).collect();
    for (ordinal, object) in (last + 1..).zip(objects.iter_mut()) {
        object.ordinal = ordinal;
    }
    state.add_deferred(&objects).await?;
    Ok(())
}

fn rows_of(table: &TableName) -> Deferred {
    Deferred {
        ordinal: 0,
        kind: DeferredKind::Unlogged,
        table: table.clone(),
        object: format!("rows of unlogged table {table}"),
        // No statement of the target can fetch them; this is what a person would do.
        sql: format!(
            "-- catchup --finish copies them; or: pg_dump --data-only -t {} | psql",
            shell::word(&table.text())
        ),
        is_restored: false,
        follows: Follows::Nothing,
    }
}

fn refresh_of(view: TableName) -> Deferred {
    Deferred {
        ordinal: 0,
        kind: DeferredKind::MaterializedView,
        object: format!("data of materialized view {view}"),
        sql: format!("REFRESH MATERIALIZED VIEW {};", view.sql()),
        table: view,
        is_restored: false,
        follows: Follows::Nothing,
    }
}
