//! The copy: publication, slot, snapshot, schema, rows, indexes, sequences,
//! large objects; then, and only then, the position.
//!
//! ```text
//! publication ─ slot + snapshot ─ schema ─ list of tables ─┐
//!   (cut off before here: begins anew)                     ▼
//!   (cut off behind: goes on here) ─ tables ─ what is left of the indexes ─┬─ position
//!                                  │   │ ▲                                 │
//!             board ─ workers ─ parts ◄┘ └─ keep: a new snapshot when …    │
//!                                  └─ sweeps ──────────────────────────────┘
//! ```
//!
//! Invariant: the order is publication → slot → snapshot → everything else
//! (membership of a publication is decided by the catalog as of each change),
//! and a position exists only after everything is complete. Finished tables
//! stay, each as of the snapshot it was read in; the stream begins where the
//! slot began, and takes up each table where its rows end.
//!
//! Reading order: `resume` (where it begins), `plan`, `board` (what is
//! left), `workers`, `rows`; beside them `keep` and `watch`. Tables that come
//! later, or again: `anew`.
//!
//! Source: `src/backend/replication/logical/snapbuild.c` (exported snapshots),
//! `tablesync.c` (what native replication does at this point).

pub mod anew;
mod baseline;
mod board;
mod books;
pub mod columns;
mod cuts;
mod emptying;
mod error;
mod keep;
mod pace;
mod parts;
mod pause;
mod plan;
mod publication;
mod resume;
pub mod room;
mod rows;
mod slot;
mod snapshot;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod types;
pub mod unlogged;
mod watch;
mod workers;

use futures_util::future::{Either, select};
use tokio_util::sync::CancellationToken;

pub use cuts::{Failure, Memory};
pub use error::{CopyError, WalStage};

use crate::catalog::publication as publication_facts;
use crate::catalog::tables::Detail;
use crate::config::{Baseline, SchemaMode, Settings};
use crate::failpoint;
use crate::fault;
use crate::lsn::EndLsn;
use crate::membership::{self, SourceTable, publishing};
use crate::observe::metrics::Metrics;
use crate::observe::progress::Progress;
use crate::schema;
use crate::session::Session;
use crate::sql::TableName;
use crate::state::migration::Phase;
use crate::state::tables::TableState;
use crate::state::{State, StateError};
use crate::sweep::extension_rows::{Stage, carry};
use crate::sweep::large_objects::{self, Ends};
use crate::sweep::sequences::{Newly, SequencePass, SequenceSweep};
use board::{Board, Seed};
use keep::{Held, Snapshots};
use pace::Pace;
use plan::Job;
use resume::Beginning;
use workers::{Crew, Purpose};

/// What a copy works with.
pub struct CopyContext<'a> {
    /// The validated settings.
    pub settings: &'a Settings,
    /// The state; the lease is held and the migration's row exists.
    pub state: &'a State,
    /// The metrics of the process.
    pub metrics: &'a Metrics,
    /// Where people see how far it is.
    pub progress: &'a Progress,
    /// Cancelled when the process shall end.
    pub shutdown: &'a CancellationToken,
    /// What earlier attempts of this process have met.
    pub memory: &'a Memory,
}

impl CopyContext<'_> {
    /// All tables of the source, with what each is to the migration, and with the
    /// columns that are published.
    ///
    /// # Errors
    /// When catalog or state cannot be read.
    pub async fn tables(&self, source: &Session) -> Result<Vec<SourceTable>, StateError> {
        self.tables_in(source, Detail::Full).await
    }

    /// The same in this detail, which has columns.
    ///
    /// # Errors
    /// When catalog or state cannot be read.
    pub async fn tables_in(&self, source: &Session, detail: Detail) -> Result<Vec<SourceTable>, StateError> {
        let tables = membership::of(source, &self.settings.filter, self.state, detail).await?;
        let published = publication_facts::tables(source, self.settings.publications.names()).await?;
        Ok(publishing::with_published_columns(tables, &published))
    }
}

/// Copies everything that is not copied yet, and returns the point from which
/// the stream goes on: every table's snapshot holds every commit before it.
///
/// # Errors
/// [`CopyError`]; a lost connection is returned as it is, and running the copy
/// again is right after every one of them.
pub async fn run(ctx: &CopyContext<'_>) -> Result<EndLsn, CopyError> {
    let source = Session::connect(&ctx.settings.source, &ctx.settings.name).await?;
    let begins = match ctx.settings.baseline {
        Baseline::Copied => until_stopped(ctx, resume::beginning(ctx, &source)).await?,
        Baseline::Restored { start } => Beginning::There(
            until_stopped(ctx, baseline::take(ctx, &source, start)).await.map_err(CopyError::before_anything)?,
        ),
    };
    let point = match begins {
        Beginning::There(point) => point,
        Beginning::Anew => from_the_beginning(ctx, source).await?,
        Beginning::Again(point) => {
            let listed = async {
                ctx.state.set_phase(Phase::Copy).await?;
                let tables = ctx.tables(&source).await?;
                plan::require_no_wider_filter(&tables)?;
                hold_back(ctx, &source, &tables).await?;
                resume::name_new_tables(ctx, &tables).await?;
                Ok(tables)
            };
            let tables = until_stopped(ctx, listed).await?;
            drop(source);
            rest(ctx, &tables, None, Purpose::First).await?;
            point
        }
    };
    ctx.state.finish_copy(ctx.settings.slot.name(), point).await?;
    ctx.state.journal(&format!("the copy is complete as of {}", point.lsn())).await?;
    Ok(point)
}

async fn from_the_beginning(ctx: &CopyContext<'_>, source: Session) -> Result<EndLsn, CopyError> {
    let prepared = async {
        resume::forget(ctx).await?;
        publication::ensure(ctx, &source).await?;
        slot::clear(ctx, &source).await
    };
    until_stopped(ctx, prepared).await.map_err(CopyError::before_anything)?;
    ctx.progress.note("creating the replication slot");
    // Not simply dropped when the process shall end: the server would go on.
    let (replication, created) = slot::create(ctx, &source).await.map_err(CopyError::before_anything)?;
    let point = created.consistent_point;
    let listed = async {
        ctx.state.set_consistent_point(point).await?;
        failpoint::hit("copy-slot");
        let exported = created.snapshot.ok_or_else(|| CopyError::NoSnapshot(created.name.clone()))?;
        let keeper = snapshot::Keeper::import(ctx.settings, &exported).await?;
        // The keeper has it: the connection that exported it may go.
        drop(replication);
        keeper.settle(&source).await?;
        drop(source);
        let session = keeper.session();
        let tables = ctx.tables(session).await?;
        ctx.progress.note("bringing the schema over");
        prepare_schema(ctx, session, keeper.snapshot().name(), &tables).await?;
        let target = Session::connect(&ctx.settings.target, &ctx.settings.name).await?;
        plan::register(ctx, session, &target, &tables).await?;
        resume::name_new_tables(ctx, &tables).await?;
        Ok((keeper, tables))
    };
    let (keeper, tables) = match until_stopped(ctx, listed).await {
        Ok(listed) => listed,
        Err(error) => {
            // Nothing is listed yet, so the next attempt begins anew.
            if !error.is_retried() && !matches!(error, CopyError::Stopped) {
                give_slot_back(ctx).await;
            }
            return Err(error);
        }
    };
    rest(ctx, &tables, Some(Held::first(point, keeper)), Purpose::First).await?;
    Ok(point)
}

/// Drops the slot that an attempt has made which only an operator can help: until
/// then it would hold back WAL for nobody.
async fn give_slot_back(ctx: &CopyContext<'_>) {
    let dropped = async {
        let source = Session::connect(&ctx.settings.source, &ctx.settings.name).await?;
        slot::clear(ctx, &source).await
    };
    if let Err(error) = dropped.await {
        tracing::warn!(error = fault::chain(&error), "the slot stays, and holds back WAL until the next start");
    }
}

/// Makes the target's schema ready, for the tables that it is to have.
async fn prepare_schema(
    ctx: &CopyContext<'_>,
    source: &Session,
    snapshot: &str,
    tables: &[SourceTable],
) -> Result<(), CopyError> {
    let (settings, state) = (ctx.settings, ctx.state);
    match settings.schema {
        SchemaMode::Create => schema::prepare(settings, state, source, snapshot, tables).await?,
        SchemaMode::Existing | SchemaMode::None => {
            let tables = plan::in_their_own_name(ctx, source, tables).await?;
            schema::prepare(settings, state, source, snapshot, &tables).await?;
        }
    }
    Ok(())
}

/// A copy that began with `--schema none` and goes on with `existing`: what would be in
/// the way of its rows waits for the end from here on.
async fn hold_back(ctx: &CopyContext<'_>, source: &Session, tables: &[SourceTable]) -> Result<(), CopyError> {
    if ctx.settings.schema == SchemaMode::Existing {
        let tables = plan::in_their_own_name(ctx, source, tables).await?;
        schema::hold_back(ctx.settings, ctx.state, &tables).await?;
    }
    Ok(())
}

/// Gives work up when the process shall end: its sessions are dropped, and the
/// servers roll back.
async fn until_stopped<T>(
    ctx: &CopyContext<'_>,
    work: impl Future<Output = Result<T, CopyError>>,
) -> Result<T, CopyError> {
    tokio::select! {
        biased;
        () = ctx.shutdown.cancelled() => Err(CopyError::Stopped),
        result = work => result,
    }
}

/// All that is left once the list of tables is there; under the first
/// snapshot, or under new ones.
async fn rest(
    ctx: &CopyContext<'_>,
    tables: &[SourceTable],
    first: Option<Held>,
    purpose: Purpose,
) -> Result<(), CopyError> {
    let jobs = plan::jobs(ctx, tables).await?;
    let rows = ctx.state.tables().await?;
    let taking_part = rows.iter().filter(|row| row.state.is_streamed()).count();
    let waiting: Vec<&TableName> =
        rows.iter().filter(|row| row.state == TableState::Waiting).map(|row| &row.table).collect();
    schema::tables::require_empty(ctx.state.session(), &waiting).await?;
    let filled = jobs.iter().filter(|job| matches!(job.seed, Seed::Rows(_))).map(|job| &job.table);
    emptying::require_no_keys(ctx, &filled.collect::<Vec<_>>()).await?;
    let snapshots = Snapshots::new(ctx);
    let tables = jobs.iter().map(|job| (job.seed, ctx.memory.of(&job.table)));
    let board = Board::new(tables, ctx.settings.index_jobs);
    let crew = Crew {
        ctx,
        board: &board,
        snapshots: &snapshots,
        pace: Pace::new(ctx.settings.copy_rate),
        jobs: &jobs,
        ready_before: taking_part - jobs.len(),
        purpose,
    };
    let stopped = async {
        ctx.shutdown.cancelled().await;
        snapshots.not_creating().await;
    };
    let result = tokio::select! {
        biased;
        () = stopped => Err(CopyError::Stopped),
        error = watch::slot(ctx) => Err(error),
        error = watch::lease(ctx) => Err(error),
        result = tables_and_sweeps(&crew, first) => result,
    };
    finish(ctx, &board, &jobs, result)
}

/// The end of a copy: what cut it off is remembered for the next attempt.
fn finish(ctx: &CopyContext<'_>, board: &Board, jobs: &[Job], result: Result<(), CopyError>) -> Result<(), CopyError> {
    if let Err(error) = &result
        && let (true, Some(side)) = (error.is_retried(), error.fault().side())
    {
        let cuts = board.cut_off(side, &error.to_string());
        ctx.memory.keep(jobs.iter().map(|job| &job.table).zip(cuts));
    }
    result
}

async fn tables_and_sweeps(crew: &Crew<'_>, first: Option<Held>) -> Result<(), CopyError> {
    let ctx = crew.ctx;
    if let Some(held) = first {
        crew.snapshots.hold(held, crew.jobs, crew.board).await?;
    }
    let rows = std::pin::pin!(async {
        tokio::select! {
            biased;
            result = workers::run(crew) => result,
            error = crew.snapshots.keep(crew.jobs, crew.board) => Err(error),
        }
    });
    if crew.purpose != Purpose::First {
        return rows.await;
    }
    // Beside the rows, which need neither. A sweep that loses its connection does
    // not take the rows with it: it is begun again when they are there. What only
    // an operator can mend ends both.
    match select(rows, std::pin::pin!(sweeps(ctx))).await {
        Either::Left((rows, sweeps)) => {
            rows?;
            sweeps.await
        }
        Either::Right((Err(error), _)) if !error.is_retried() => Err(error),
        Either::Right((swept, rows)) => {
            rows.await?;
            swept
        }
    }
}

/// Sequences and large objects, as of now: neither is in the stream; both are
/// followed beside it, and compared again by the last `catchup`.
async fn sweeps(ctx: &CopyContext<'_>) -> Result<(), CopyError> {
    let settings = ctx.settings;
    ctx.progress.note("carrying sequences and large objects");
    let sequences = SequenceSweep::connect(settings, ctx.state).await?;
    Newly::default().log(&sequences.pass(settings, ctx.metrics, SequencePass::Initial).await?);
    drop(sequences);
    for left in carry(settings, ctx.state, Stage::Before).await?.left {
        tracing::warn!(left, "rows that belong to an extension stay behind");
    }
    let (source, target) = tokio::try_join!(
        Session::connect(&settings.source, &settings.name),
        Session::connect(&settings.target, &settings.name)
    )?;
    let crew = large_objects::Crew { sessions: 1, ..large_objects::Crew::of(settings) };
    let ends = Ends { source: &source, target: &target, state: ctx.state, metrics: ctx.metrics, crew };
    large_objects::copy_initial(ends).await?;
    Ok(())
}
