//! The workers: each takes the largest table that is left, copies its rows and
//! builds its indexes.
//!
//! Invariant: a table's rows and the record that they are there are one
//! transaction on the target; what was cut off before is empty.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::plan::{Job, Plan};
use super::snapshot::{self, Keeper};
use super::{CopyContext, CopyError, rows};
use crate::lsn::EndLsn;
use crate::observe::progress::TableProgress;
use crate::schema;
use crate::session::{DbContext, DbError, Session};
use crate::state::State;
use crate::state::tables::{TableRow, TableState};

/// Memory for building an index, a worker (`maintenance_work_mem`), where the
/// server gives less: enough to sort a few million keys at once, and four
/// workers' worth fits a small server.
const INDEX_MEMORY: &str = "SELECT pg_catalog.set_config('maintenance_work_mem', '256MB', false) \
    FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem' AND setting::bigint < 262144";

/// Copies all tables, then builds what belongs to several of them.
///
/// # Errors
/// The first error of a worker; the others are given up, and the target rolls
/// their tables back.
pub(super) async fn run(ctx: &CopyContext<'_>, keeper: &Keeper, plan: &Plan, point: EndLsn) -> Result<(), CopyError> {
    ctx.progress.begin(plan.jobs.len(), plan.jobs.iter().map(|job| job.bytes).sum());
    let queue: Mutex<VecDeque<&Job>> = Mutex::new(plan.jobs.iter().collect());
    let workers = ctx.settings.jobs.max(1).min(plan.jobs.len());
    futures_util::future::try_join_all((0..workers).map(|_| work(ctx, keeper, &queue, point))).await?;
    if !plan.last.is_empty() {
        let target = worker_session(ctx).await?;
        for object in &plan.last {
            schema::restore_after_rows(&target, ctx.state.name(), object).await?;
        }
    }
    Ok(())
}

async fn worker_session(ctx: &CopyContext<'_>) -> Result<Session, CopyError> {
    let target = Session::connect(&ctx.settings.target, &ctx.settings.name).await?;
    target.query(INDEX_MEMORY, &[]).await.during(target.side(), "set the memory for building indexes")?;
    Ok(target)
}

async fn work(
    ctx: &CopyContext<'_>,
    keeper: &Keeper,
    queue: &Mutex<VecDeque<&Job>>,
    point: EndLsn,
) -> Result<(), CopyError> {
    let source = snapshot::enter(ctx.settings, keeper.snapshot()).await?;
    let target = State::open(worker_session(ctx).await?, ctx.state.name()).await?;
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some(job) = next() {
        let bar = ctx.progress.table(&job.table, job.bytes);
        table(ctx, &source, &target, job, &bar, point).await?;
        bar.finish();
    }
    Ok(())
}

/// One table: rows, indexes and keys, statistics.
async fn table(
    ctx: &CopyContext<'_>,
    source: &Session,
    target: &State,
    job: &Job,
    bar: &TableProgress,
    point: EndLsn,
) -> Result<(), CopyError> {
    let mut row = TableRow {
        table: job.table.clone(),
        source_oid: job.source_oid,
        state: TableState::Copying,
        rows: 0,
        bytes: 0,
        snapshot_lsn: None,
    };
    let session = target.session();
    // Before the rows, so that a copy that is cut off empties this table.
    target.update_table(&row).await?;
    count(ctx, TableState::Waiting, TableState::Copying);
    run_sql(session, "BEGIN", job).await?;
    rows::copy(ctx, (source, session), job, bar, &mut row).await?;
    row.state = TableState::Indexing;
    row.snapshot_lsn = Some(point);
    target.update_table(&row).await?;
    run_sql(session, "COMMIT", job).await?;
    count(ctx, TableState::Copying, TableState::Indexing);
    bar.indexing();
    for object in &job.objects {
        schema::restore_after_rows(session, ctx.state.name(), object).await?;
    }
    run_sql(session, &format!("ANALYZE {}", job.table.sql()), job).await?;
    row.state = TableState::Ready;
    target.update_table(&row).await?;
    count(ctx, TableState::Indexing, TableState::Ready);
    Ok(())
}

async fn run_sql(session: &Session, sql: &str, job: &Job) -> Result<(), DbError> {
    session.batch_execute(sql).await.during(session.side(), format!("copy {}", job.table))
}

fn count(ctx: &CopyContext<'_>, from: TableState, to: TableState) {
    ctx.metrics.tables.with_label_values(&[from.as_str()]).dec();
    ctx.metrics.tables.with_label_values(&[to.as_str()]).inc();
}
