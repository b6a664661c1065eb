//! The copy: publication, slot, snapshot, schema, rows, indexes, sequences,
//! large objects; then, and only then, the position.
//!
//! Invariant: the order is publication → slot → snapshot → everything else
//! (membership of a publication is decided by the catalog as of each change),
//! and a position exists only after everything is complete. A copy that was
//! cut off starts over with a new slot; the schema and the indexes it made
//! stay, the rows go.
//!
//! Source: `src/backend/replication/logical/snapbuild.c` (exported snapshots),
//! `tablesync.c` (what native replication does at this point).

mod plan;
mod publication;
mod rows;
mod slot;
mod snapshot;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod workers;

use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::lsn::EndLsn;
use crate::observe::metrics::Metrics;
use crate::observe::progress::Progress;
use crate::schema::{self, SchemaError};
use crate::session::{DbError, Session};
use crate::sql::TableName;
use crate::state::{State, StateError};
use crate::sweep::sequences::SequencePass;
use crate::sweep::{SweepError, large_objects, sequences};
use crate::wire::WireError;

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
}

/// Why a copy did not come to its end. It starts over when run again.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A connection was refused or lost.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A statement failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The state could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The schema could not be brought over, or does not fit.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Sequences or large objects could not be carried.
    #[error(transparent)]
    Sweep(#[from] SweepError),
    /// Publishing would make UPDATE and DELETE fail on the source.
    #[error(
        "the source would refuse UPDATE and DELETE on {} once published, for want of a replica identity; on the source:\n  {}",
        list(.tables), .sql.join("\n  ")
    )]
    ReplicaIdentity {
        /// The tables without one.
        tables: Vec<TableName>,
        /// What gives each of them one.
        sql: Vec<String>,
    },
    /// The publication is not there, or does not publish what it must.
    #[error("publication \"{name}\" on the source {problem}; the owner of the tables can mend it:\n  {sql}")]
    Publication {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
        /// What mends it.
        sql: String,
    },
    /// The operator's own slot cannot be the start of a copy.
    #[error(
        "slot \"{0}\" was named as an existing one, but only a new slot gives the snapshot that a copy begins with: \
         leave out --slot"
    )]
    ExistingSlot(String),
    /// A slot of this name is not known to be ours.
    #[error(
        "slot \"{0}\" exists on the source and was not made for this migration: choose another --name, or, if nobody needs it: \
         SELECT pg_drop_replication_slot('{0}');"
    )]
    ForeignSlot(String),
    /// The slot of an earlier attempt is still in use.
    #[error(
        "slot \"{slot}\" of an earlier attempt is still in use on the source by process {pid}: wait until that ends, or: \
         SELECT pg_terminate_backend({pid});"
    )]
    SlotInUse {
        /// The slot.
        slot: String,
        /// The server process that uses it.
        pid: i32,
    },
    /// Transactions on the source did not end in time.
    #[error(
        "the slot could not be created within {minutes} minutes, as transactions on the source did not end: {blockers}; \
         end them and start again"
    )]
    SlotBlocked {
        /// How long was waited.
        minutes: u64,
        /// Who is in the way.
        blockers: String,
    },
    /// The server gave a slot but no snapshot.
    #[error("the source exported no snapshot with slot \"{0}\"")]
    NoSnapshot(String),
    /// A commit of the snapshot is not complete on the source.
    #[error(
        "transactions that the snapshot holds are still not finished on the source after {seconds} s; \
         is a synchronous standby missing? Start again when it is back"
    )]
    Unsettled {
        /// How long was waited.
        seconds: u64,
    },
    /// A snapshot's text form is not what PostgreSQL writes.
    #[error(
        "the source described a snapshot as \"{0}\", which walferry cannot read, so it cannot tell which commits to wait for; \
         this is a bug, please report it"
    )]
    UnreadableSnapshot(String),
    /// Both ends of a COPY disagree about the rows.
    #[error("{table}: the source sent {sent} rows, the target took {taken}; this is a bug, please report it")]
    RowCount {
        /// The table.
        table: TableName,
        /// Rows the source sent.
        sent: u64,
        /// Rows the target says it has taken.
        taken: u64,
    },
    /// The process was asked to stop.
    #[error("the copy was stopped; it starts over next time")]
    Stopped,
}

/// At most ten names, then how many more.
fn list(tables: &[TableName]) -> String {
    let mut text: Vec<String> = tables.iter().take(10).map(TableName::to_string).collect();
    if tables.len() > text.len() {
        text.push(format!("{} more", tables.len() - text.len()));
    }
    text.join(", ")
}

/// Copies everything, and returns the point from which the stream goes on: the
/// snapshot holds every commit before it.
///
/// # Errors
/// [`CopyError`]; a lost connection is returned as it is, and running the copy
/// again is right after every one of them.
pub async fn run(ctx: &CopyContext<'_>) -> Result<EndLsn, CopyError> {
    let name = &ctx.settings.name;
    let source = Session::connect(&ctx.settings.source, name).await?;
    let prepared = async {
        publication::ensure(ctx, &source).await?;
        slot::clear(ctx, &source).await
    };
    until_stopped(ctx, prepared).await?;
    ctx.progress.note("creating the replication slot");
    // Not simply dropped when the process shall end: the server would go on.
    let (replication, created) = slot::create(ctx, &source).await?;
    let point = created.consistent_point;
    let copied = async {
        ctx.state.set_consistent_point(point).await?;
        let exported = created.snapshot.ok_or_else(|| CopyError::NoSnapshot(created.name.clone()))?;
        let keeper = snapshot::Keeper::import(ctx.settings, &exported).await?;
        // The keeper has it: the connection that exported it may go.
        drop(replication);
        keeper.settle(&source).await?;
        drop(source);
        keeper.awake_during(everything(ctx, &keeper, point)).await
    };
    until_stopped(ctx, copied).await?;
    ctx.state.finish_copy(ctx.settings.slot.name(), point).await?;
    ctx.state.journal(&format!("the copy is complete as of {}", point.0)).await?;
    Ok(point)
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

/// All that happens inside the snapshot, and the sequences.
async fn everything(ctx: &CopyContext<'_>, keeper: &snapshot::Keeper, point: EndLsn) -> Result<(), CopyError> {
    let settings = ctx.settings;
    let source = keeper.session();
    let tables = schema::tables::of_source(source, &settings.filter).await?;
    ctx.progress.note("bringing the schema over");
    schema::prepare(settings, ctx.state, source, keeper.snapshot(), &tables).await?;
    let target = Session::connect(&settings.target, &settings.name).await?;
    let plan = plan::make(ctx, source, &target, &tables).await?;
    workers::run(ctx, keeper, &plan, point).await?;
    ctx.progress.note("carrying sequences and large objects");
    // Not in the snapshot's transaction: a sequence that may not be read would end it.
    let live = Session::connect(&settings.source, &settings.name).await?;
    sequences::pass(&live, &target, ctx.state, &settings.filter, SequencePass::Initial).await?;
    large_objects::copy_initial(source, &target, ctx.state, ctx.metrics).await?;
    Ok(())
}
