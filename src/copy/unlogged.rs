//! The rows of unlogged tables: whole, at the end, when nothing is written on
//! the source any more. They are in no WAL and so in no stream.
//!
//! Invariant: one transaction empties all of them, brings their rows in and
//! records that. Another attempt does the same again, so what the source has
//! then is what the target has.
//!
//! One transaction, as foreign keys may lead from one to another: a table that
//! is referred to can be emptied only together with those that refer to it.

use std::collections::{HashMap, HashSet};

use super::emptying;
use super::pace::Pace;
use super::plan::{Coming, Copies, copies, paired};
use super::rows::{self, Tally, Within};
use super::snapshot::{self, Sight};
use super::{CopyContext, CopyError};
use crate::apply::order::{References, parents_first};
use crate::catalog::tables::{Detail, Found, Shape, by_name};
use crate::catalog::triggers::{Fires, InForce};
use crate::catalog::{foreign_keys, triggers};
use crate::config::{SchemaMode, Side};
use crate::failpoint;
use crate::membership::placement::Hierarchy;
use crate::membership::{self, SourceTable};
use crate::schema::{self, tables, without_stream};
use crate::session::replica_role::ReplicaRole;
use crate::session::{DbContext, Session};
use crate::sql::TableName;
use crate::state::State;
use crate::state::copying::Attempt;
use crate::state::deferred::{Deferred, DeferredKind, MARK_RESTORED_SQL};
use crate::state::tables::{TableRow, TableState};
use crate::wire::Connection;

/// As for everything that is brought in at the end: a lock that somebody holds
/// is an error that is tried again, not a wait of hours.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '10s'";

/// A table to fill, and its row of `walferry.deferred`.
struct Unit<'a> {
    table: &'a SourceTable,
    ordinal: i32,
    copies: Copies,
}

/// Copies every unlogged table that `walferry.deferred` has waiting. Says how
/// many there were.
///
/// # Errors
/// [`CopyError`]; nothing of it is on the target then.
pub async fn run(ctx: &CopyContext<'_>) -> Result<u64, CopyError> {
    let waiting: Vec<Deferred> = ctx.state.deferred().await?.into_iter().filter(is_waiting).collect();
    if waiting.is_empty() {
        return Ok(0);
    }
    let source = Session::connect(&ctx.settings.source, &ctx.settings.name).await?;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    source.batch_execute(begin).await.during(source.side(), "begin to read the unlogged tables")?;
    let tables = ctx.tables(&source).await?;
    let session = emptying::session(ctx).await?;
    let target = ctx.state.beside(session).await?;
    let units = units(&target, Hierarchy::of(ctx.settings.schema), &tables, &waiting).await?;
    ctx.progress.begin(units.len(), units.iter().map(|unit| unit.table.bytes).sum());
    let run =
        async |sql: &str| target.session().batch_execute(sql).await.during(Side::Target, "copy the unlogged tables");
    run(&format!("BEGIN; {LOCK_TIMEOUT}")).await?;
    // None of them is partitioned: those have no storage to be unlogged.
    let all = units.iter().map(|unit| (&unit.table.name, Shape::Plain));
    emptying::empty(target.session(), all, "copy the unlogged tables").await?;
    if ctx.settings.schema != SchemaMode::None {
        refuse_triggers(target.session(), &units).await?;
    }
    let snapshot = snapshot::Exported::by(&source).await?;
    let mut reader = snapshot::connect(ctx.settings).await?;
    let pace = Pace::new(ctx.settings.copy_rate);
    for unit in &units {
        let read = (&unit.table.name, unit.table.oid, Shape::Plain);
        if snapshot::look(&mut reader, &snapshot, read).await? == Sight::Passed {
            return Err(CopyError::Rewritten { table: unit.table.name.clone(), times: 1 });
        }
        fill(ctx, &pace, (&mut reader, &target), unit).await?;
        snapshot::leave(&mut reader).await?;
    }
    failpoint::hit("unlogged-before-commit");
    target.commit("copy the unlogged tables").await?;
    for unit in &units {
        run(&format!("ANALYZE {}", unit.table.name.sql())).await?;
    }
    ctx.progress.end();
    Ok(units.len() as u64)
}

/// Gives unlogged tables that came after the schema, or that the filter left out then,
/// their place on the target, if that is ours to do, and lets those take part that the
/// filter lets in by now. Their sequences are looked at soon.
///
/// # Errors
/// When the target refuses one.
pub async fn take_in(ctx: &CopyContext<'_>, source: &Session) -> Result<(), CopyError> {
    let tables = ctx.tables(source).await?;
    let unlogged = || without_stream::unlogged(&tables);
    if ctx.settings.schema == SchemaMode::Create {
        let there = by_name(ctx.state.session(), unlogged().map(|table| &table.name)).await?;
        // One that has another name there is to be renamed.
        let known = ctx.state.target_names(&unlogged().map(|table| table.oid).collect::<Vec<_>>()).await?;
        let is_absent = |table: &&SourceTable| !there.contains_key(&table.name) && !known.contains_key(&table.oid);
        let absent: Vec<SourceTable> = unlogged().filter(is_absent).cloned().collect();
        if !absent.is_empty() {
            schema::add(ctx.settings, ctx.state, source, &tables, &absent).await?;
        }
    }
    // What belongs to one that is let in by now takes part with it, and one that came later
    // is followed from here on.
    let known = membership::known(ctx.state).await?;
    let there = by_name(ctx.state.session(), unlogged().map(|table| &table.name)).await?;
    let is_let_in = |table: &&SourceTable| match known.get(&table.oid) {
        Some(state) => *state == TableState::Excluded,
        None => there.contains_key(&table.name),
    };
    let row = |table: &SourceTable| TableRow::new(table.name.clone(), table.oid, TableState::Unlogged);
    let let_in: Vec<TableRow> = unlogged().filter(is_let_in).map(row).collect();
    if let_in.is_empty() {
        return Ok(());
    }
    ctx.state.enter_tables(&let_in).await?;
    let let_in: HashSet<u32> = let_in.iter().map(|row| row.source_oid).collect();
    let tables = ctx.tables_in(source, Detail::Columns).await?;
    let paired =
        paired(tables.iter().filter(|table| let_in.contains(&table.oid)), &there, &HashMap::new(), Coming::Later);
    Ok(ctx.state.pair_columns(&paired).await?)
}

fn is_waiting(object: &Deferred) -> bool {
    object.kind == DeferredKind::Unlogged && !object.is_restored
}

/// What is to be filled, tables that others refer to before those.
async fn units<'a>(
    target: &State,
    hierarchy: Hierarchy,
    tables: &'a [SourceTable],
    waiting: &[Deferred],
) -> Result<Vec<Unit<'a>>, CopyError> {
    let mut found = Vec::new();
    for object in waiting {
        let table = without_stream::unlogged(tables).find(|table| table.name == object.table);
        // Listed a moment ago: somebody still alters tables on the source.
        found.push((table.ok_or_else(|| CopyError::Elsewhere(object.table.clone()))?, object.ordinal));
    }
    let there = by_name(target.session(), found.iter().map(|(table, _)| &table.name)).await?;
    tables::require_fit(found.iter().map(|(table, _)| *table), &there, hierarchy)?;
    let mut units = Vec::new();
    for (table, ordinal) in in_order(target.session(), &there, found).await? {
        let Some(there) = there.get(&table.name) else { continue };
        units.push(Unit { table, ordinal, copies: copies(table, None, there, None) });
    }
    Ok(units)
}

/// Parents before children, where foreign keys are in force already; tables
/// that refer to each other in a circle stay in their order, and the target
/// says what it thinks of that.
async fn in_order<'a>(
    target: &Session,
    there: &HashMap<TableName, Found>,
    tables: Vec<(&'a SourceTable, i32)>,
) -> Result<Vec<(&'a SourceTable, i32)>, CopyError> {
    let names: Vec<&TableName> = tables.iter().map(|(table, _)| &table.name).collect();
    let keys = foreign_keys::of(target, &names).await?;
    let oid = |name: &TableName| there.get(name).map(|found| found.oid).unwrap_or_default();
    let known: Vec<(u32, Vec<u32>)> = names
        .iter()
        .map(|name| oid(name))
        .map(|oid| {
            let own = keys.iter().filter(|key| key.table_oid == oid);
            (oid, own.map(|key| key.referenced).collect())
        })
        .collect();
    let references: Vec<References<'_>> =
        known.iter().map(|(table, parents)| References { table: *table, parents }).collect();
    let places = parents_first(&references).unwrap_or_else(|| (0..tables.len()).collect());
    Ok(places.into_iter().filter_map(|place| tables.get(place).copied()).collect())
}

/// Triggers and rules come in behind the rows. Those that an earlier end, or
/// somebody else, has brought in would act on rows that have been through them.
async fn refuse_triggers(target: &Session, units: &[Unit<'_>]) -> Result<(), CopyError> {
    let names: Vec<&TableName> = units.iter().map(|unit| &unit.table.name).collect();
    let found = triggers::in_force(target, &names, Fires::In(ReplicaRole::Refused)).await?;
    if found.is_empty() {
        return Ok(());
    }
    let all = |sql: fn(&InForce) -> String| found.iter().map(sql).collect::<Vec<String>>().join(" ");
    Err(CopyError::Triggers { disable: all(InForce::disable_sql), enable: all(InForce::enable_sql) })
}

async fn fill(
    ctx: &CopyContext<'_>,
    pace: &Pace,
    (source, target): (&mut Connection, &State),
    unit: &Unit<'_>,
) -> Result<(), CopyError> {
    let table = &unit.table.name;
    let tally = Tally::new(ctx.progress.table(table, unit.table.bytes), Attempt::NONE);
    for copy_out in &unit.copies.parts {
        let ends = (&mut *source, target.session(), Within::Open);
        rows::copy(ctx, pace, ends, table, (&unit.copies, copy_out), &tally).await?;
    }
    let marked =
        target.execute(MARK_RESTORED_SQL, &[&target.name(), &unit.ordinal], "record that rows are there").await?;
    if marked != 1 {
        return Err(CopyError::Elsewhere(table.clone()));
    }
    target.journal(&format!("copied unlogged {table}: {} rows, at the end", tally.rows())).await?;
    tally.bar().finish();
    Ok(())
}
