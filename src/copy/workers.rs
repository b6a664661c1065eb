//! The workers: each takes what the board has to do, over a pair of sessions
//! that it makes anew when one is lost.
//!
//! Invariants: a table's rows and the record that they are there are one
//! transaction on the target; of a table in parts the record comes after the
//! last part has committed, in a transaction of its own, and no part commits for
//! an attempt that is not the one at the table any more: another process may have
//! taken over. What was cut off before is emptied. On the source each table or
//! part is a transaction of its own, in the snapshot: it looks at the table under
//! the lock that the rows are read under, and no table is locked longer than that.
//! A session that is lost in between is not replaced: the table is begun anew.

use std::sync::Arc;

use tokio::time::Instant;

use super::board::{After, AtWork, Attempts, Board, GivenUp, Leftover, Taken, Task};
use super::cuts::{Cuts, Failure};
use super::emptying;
use super::keep::Snapshots;
use super::pace::Pace;
use super::pause::Pause;
use super::plan::{Job, RowsPlan};
use super::resume::{self, Found};
use super::rows::{self, Tally, Within};
use super::snapshot::{self, Sight};
use super::{CopyContext, CopyError};
use crate::config::{IndexResources, Side};
use crate::failpoint;
use crate::schema::{self, Mark};
use crate::session::{DbContext, DbError, Session};
use crate::sql::TableName;
use crate::state::State;
use crate::state::copying::Attempt;
use crate::state::deferred::DeferredKind;
use crate::state::tables::{TableRow, TableState};
use crate::wire::Connection;
use crate::words;

/// Memory for building an index where nobody asked for any and the server gives
/// less, in kB: enough to sort a few million keys at once, and four workers'
/// worth fits a small server.
const INDEX_MEMORY_KIB: u64 = 256 << 10;

/// Sets what index builds may use; `$1` is kB.
const INDEX_MEMORY: &str = "SELECT pg_catalog.set_config('maintenance_work_mem', $1::text, false)";

/// The same, unless the server gives more.
const INDEX_MEMORY_AT_LEAST: &str = "SELECT pg_catalog.set_config('maintenance_work_mem', $1::text, false) \
    FROM pg_catalog.pg_settings WHERE name = 'maintenance_work_mem' AND setting::bigint < $1::text::bigint";

/// Parallel workers of an index build (11; a server that does not know the
/// setting builds alone).
const INDEX_WORKERS: &str = "SELECT pg_catalog.set_config(name, $1::text, false) \
    FROM pg_catalog.pg_settings WHERE name = 'max_parallel_maintenance_workers'";

/// A session that we have given up for lost must not keep its locks on the
/// table for hours, as we wait for them: the server is to notice within a
/// minute that nobody is there, by TCP's own questions while it reads from us
/// and by looking at the socket while it builds an index (14 and later).
const NOTICE_LOSS: &str = "SELECT pg_catalog.set_config(s.name, wanted.value, false) FROM (VALUES \
    ('tcp_keepalives_idle', '30'), ('tcp_keepalives_interval', '10'), ('tcp_keepalives_count', '3'), \
    ('client_connection_check_interval', '10s')) AS wanted (name, value) \
    JOIN pg_catalog.pg_settings s USING (name) WHERE pg_catalog.version() ~ 'linux'";

/// What the tables are copied for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The migration begins: the stream comes after, at the slot's beginning.
    First,
    /// The stream comes after, from where it was.
    BetweenRuns,
    /// The stream goes on meanwhile, and has yet to take the tables up.
    BesideStream,
}

/// What the workers share.
pub(super) struct Crew<'a> {
    pub(super) ctx: &'a CopyContext<'a>,
    pub(super) board: &'a Board,
    pub(super) snapshots: &'a Snapshots<'a>,
    pub(super) pace: Pace,
    pub(super) jobs: &'a [Job],
    /// Tables that were ready before.
    pub(super) ready_before: usize,
    pub(super) purpose: Purpose,
}

/// Copies all tables, then builds what belongs to several of them.
///
/// # Errors
/// The first error that trying again cannot mend; then the other workers are
/// given up, and the target rolls their tables back. When all is done but for
/// tables that were cut off every time: [`CopyError::CutOff`].
pub(super) async fn run(crew: &Crew<'_>) -> Result<(), CopyError> {
    let ctx = crew.ctx;
    crew.show();
    if crew.jobs.is_empty() {
        return last_objects(ctx).await;
    }
    ctx.progress.begin(crew.jobs.len(), crew.jobs.iter().map(|job| job.bytes).sum());
    let workers = (0..ctx.settings.jobs.max(1)).map(|_| Worker::new(crew).work());
    futures_util::future::try_join_all(workers).await?;
    if let Some(given_up) = crew.board.given_up().into_iter().next() {
        return Err(crew.unfinished(given_up));
    }
    ctx.progress.end();
    last_objects(ctx).await
}

/// What is built on several tables, or on none.
async fn last_objects(ctx: &CopyContext<'_>) -> Result<(), CopyError> {
    let left = ctx.state.deferred().await?;
    let left: Vec<_> = left.into_iter().filter(|o| o.kind == DeferredKind::AfterRows && !o.is_restored).collect();
    if left.is_empty() {
        return Ok(());
    }
    let target = worker_session(ctx).await?;
    for object in &left {
        let restored = schema::restore_after_rows(&target, ctx.state.name(), object).await;
        restored.map_err(|error| not_built(&object.table, error))?;
    }
    Ok(())
}

async fn worker_session(ctx: &CopyContext<'_>) -> Result<Session, CopyError> {
    let target = emptying::session(ctx).await?;
    let IndexResources { memory_kib, workers } = ctx.settings.index_resources;
    let sql = if memory_kib.is_some() { INDEX_MEMORY } else { INDEX_MEMORY_AT_LEAST };
    let memory = memory_kib.unwrap_or(INDEX_MEMORY_KIB).to_string();
    target.query(sql, &[&memory]).await.during(target.side(), "set the memory for building indexes")?;
    if let Some(workers) = workers {
        let set = target.query(INDEX_WORKERS, &[&workers.to_string()]).await;
        set.during(target.side(), "set the parallel workers for building indexes")?;
    }
    target.query(NOTICE_LOSS, &[]).await.during(target.side(), "have lost connections noticed")?;
    Ok(target)
}

impl Crew<'_> {
    /// Shows the tables by state in the metrics.
    fn show(&self) {
        for state in [TableState::Waiting, TableState::Copying, TableState::Indexing, TableState::Ready] {
            let before = if state == TableState::Ready { self.ready_before } else { 0 };
            let count = i64::try_from(self.board.count(state) + before).unwrap_or(i64::MAX);
            self.ctx.metrics.tables.with_label_values(&[state.as_str()]).set(count);
        }
    }

    /// A table was written anew on the source since its snapshot.
    fn rewritten(&self, table: usize, plan: &RowsPlan) {
        if let Some(job) = self.jobs.get(table) {
            tracing::info!(
                table = %job.table,
                "emptied, written anew or altered on the source since the snapshot; it is copied under a new one"
            );
        }
        self.board.rewritten(table, plan.generation);
    }

    fn unfinished(&self, given_up: GivenUp) -> CopyError {
        let GivenUp { table, cuts: Cuts { failures, last }, rewrites } = given_up;
        let Some(job) = self.jobs.get(table) else { return CopyError::SnapshotGone };
        if rewrites > 0 {
            return CopyError::Rewritten { table: job.table.clone(), times: rewrites };
        }
        let side = failures.last().map_or(Side::Source, |failure| failure.side);
        CopyError::CutOff { table: job.table.clone(), expected_bytes: job.bytes, failures, side, last }
    }
}

/// A session, and since when.
struct Kept<T> {
    session: T,
    since: Instant,
}

/// A worker's sessions, and what it is at.
struct Worker<'a> {
    crew: &'a Crew<'a>,
    source: Option<Kept<Connection>>,
    target: Option<Kept<State>>,
    /// Set while rows flow or an object is built.
    at_work: Option<AtWork<'a>>,
    pause: Pause,
}

impl<'a> Worker<'a> {
    fn new(crew: &'a Crew<'a>) -> Self {
        Worker { crew, source: None, target: None, at_work: None, pause: Pause::new() }
    }

    async fn work(mut self) -> Result<(), CopyError> {
        while let Some(task) = self.crew.board.next().await {
            self.crew.show();
            let result = self.perform(&task).await;
            let was_at_work = self.at_work.take().is_some();
            match result {
                Ok(()) => self.pause = Pause::new(),
                Err(error) if error.is_retried() => {
                    self.failed(&task, &error, was_at_work);
                    if was_at_work {
                        self.pause = Pause::new();
                    }
                    self.pause.after(error, self.crew.ctx, self.crew.board).await?;
                }
                Err(error) => return Err(error),
            }
            self.crew.show();
        }
        Ok(())
    }

    /// Tells the board, and gives both sessions up: neither is in a state to go on.
    fn failed(&mut self, task: &Task, error: &CopyError, was_at_work: bool) {
        let side = error.fault().side().unwrap_or(Side::Source);
        let since = match side {
            Side::Source => self.source.take().map(|kept| kept.since),
            Side::Target => self.target.take().map(|kept| kept.since),
        };
        (self.source, self.target) = (None, None);
        let (Task::Begin { table, .. } | Task::Part { table, .. } | Task::Index { table, .. }) = task;
        let bytes = self.crew.board.bytes(*table);
        let lost = since.filter(|_| was_at_work);
        let failure = lost.map(|since| Failure { side, lived: since.elapsed(), bytes });
        if self.crew.board.failed(*table, failure, &error.to_string()) == Attempts::Exhausted
            && let Some(job) = self.crew.jobs.get(*table)
        {
            tracing::error!(table = %job.table, "cut off every time; the others go on without it");
        }
    }

    async fn perform(&mut self, task: &Task) -> Result<(), CopyError> {
        match task {
            Task::Begin { table, plan, leftover } => self.begin(*table, plan, *leftover).await,
            Task::Part { table, part, plan, tally } => self.part(*table, *part, plan, tally).await,
            Task::Index { table, tally } => {
                let Some(job) = self.crew.jobs.get(*table) else { return Ok(()) };
                let bar = || self.tally(job, job.attempt);
                let tally = tally.clone().unwrap_or_else(bar);
                self.index(*table, &tally).await
            }
        }
    }

    fn tally(&self, job: &Job, attempt: Attempt) -> Arc<Tally> {
        Arc::new(Tally::new(self.crew.ctx.progress.table(&job.table, job.bytes), attempt))
    }

    async fn begin(&mut self, table: usize, plan: &Arc<RowsPlan>, leftover: Leftover) -> Result<(), CopyError> {
        let crew = self.crew;
        let Some(job) = crew.jobs.get(table) else { return Ok(()) };
        let held = crew.snapshots.get(plan.generation)?;
        let (source, target) = self.ends().await?;
        if leftover == Leftover::Rows
            && let Found::Complete(attempt) = resume::empty(target, job).await?
        {
            tracing::info!(table = %job.table, "its rows are all there: only the answer had been lost");
            let tally = self.tally(job, attempt);
            return self.rows_there(table, &tally).await;
        }
        let (begun, sight) = tokio::join!(
            target.begin_table(job.source_oid),
            snapshot::look(source, held.keeper.snapshot(), job.unit())
        );
        let attempt = begun?.ok_or_else(|| CopyError::Elsewhere(job.table.clone()))?;
        drop(held);
        if sight? == Sight::Passed {
            crew.rewritten(table, plan);
            return Ok(());
        }
        let tally = self.tally(job, attempt);
        tally.bar().in_parts(u64::try_from(plan.copies.parts.len()).unwrap_or(u64::MAX));
        match crew.board.begun(table, &tally, |generation| crew.snapshots.get(generation).is_ok()) {
            Some(part) => {
                crew.show();
                self.rows(table, part, plan, &tally).await
            }
            None => Ok(snapshot::leave(self.as_looked()?.0).await?),
        }
    }

    async fn part(
        &mut self,
        table: usize,
        part: usize,
        plan: &Arc<RowsPlan>,
        tally: &Arc<Tally>,
    ) -> Result<(), CopyError> {
        let crew = self.crew;
        let Some(job) = crew.jobs.get(table) else { return Ok(()) };
        let held = crew.snapshots.get(plan.generation)?;
        let (source, _) = self.ends().await?;
        let sight = snapshot::look(source, held.keeper.snapshot(), job.unit()).await?;
        drop(held);
        match sight {
            Sight::True => self.rows(table, part, plan, tally).await,
            Sight::Passed => {
                crew.rewritten(table, plan);
                Ok(())
            }
        }
    }

    /// The rows of a table or a part that was looked at.
    async fn rows(
        &mut self,
        table: usize,
        part: usize,
        plan: &Arc<RowsPlan>,
        tally: &Arc<Tally>,
    ) -> Result<(), CopyError> {
        let crew = self.crew;
        let (Some(job), Some(copy_out)) = (crew.jobs.get(table), plan.copies.parts.get(part)) else { return Ok(()) };
        self.at_work = Some(crew.board.at_work());
        let (source, target) = self.as_looked()?;
        let ends = (&mut *source, target.session(), Within::New);
        match rows::copy(crew.ctx, &crew.pace, ends, &job.table, (&plan.copies, copy_out), tally).await {
            Err(CopyError::Read { source, .. }) if snapshot::has_passed(&source) => {
                (self.source, self.target) = (None, None);
                crew.rewritten(table, plan);
                return Ok(());
            }
            result => result?,
        }
        failpoint::hit("copy-before-commit");
        let is_whole = plan.copies.parts.len() == 1;
        let written = async {
            if is_whole {
                record(target, job, plan, tally).await?;
            } else {
                resume::expect(target.still_copies(job.source_oid, tally.attempt()).await?, &job.table)?;
            }
            run_sql(target, "COMMIT", job).await.map_err(CopyError::from)
        };
        // All is read, whatever becomes of the session that did.
        let (left, written) = tokio::join!(snapshot::leave(source), written);
        written?;
        if let Err(error) = left {
            tracing::debug!(%error, "a session that had read its rows was lost");
            self.source = None;
        }
        if !is_whole {
            tally.bar().part_done();
            failpoint::hit("copy-part");
            match crew.board.part_done(table) {
                After::More | After::Broken => return Ok(()),
                After::Complete => {}
            }
            record(self.target().await?, job, plan, tally).await?;
        }
        failpoint::hit("copy-rows");
        self.rows_there(table, tally).await
    }

    /// All rows of a table are recorded.
    async fn rows_there(&mut self, table: usize, tally: &Arc<Tally>) -> Result<(), CopyError> {
        self.crew.ctx.metrics.copied_tables.inc();
        match self.crew.board.rows_there(table, tally) {
            Taken::Yes => self.index(table, tally).await,
            Taken::No => Ok(()),
        }
    }

    /// Indexes and keys of a table whose rows are there, and its statistics.
    async fn index(&mut self, table: usize, tally: &Tally) -> Result<(), CopyError> {
        let crew = self.crew;
        let Some(job) = crew.jobs.get(table) else { return Ok(()) };
        crew.show();
        tally.bar().indexing();
        self.target().await?;
        self.at_work.get_or_insert_with(|| crew.board.at_work());
        let Some(Kept { session: target, .. }) = &self.target else { return Ok(()) };
        for object in &job.objects {
            let restored = schema::restore_after_rows(target.session(), crew.ctx.state.name(), object).await;
            if restored.map_err(|error| not_built(&job.table, error))? == Mark::Set {
                crew.board.object_built(table);
            }
        }
        run_sql(target, &format!("ANALYZE {}", job.table.sql()), job).await?;
        let step = match crew.purpose {
            Purpose::First | Purpose::BetweenRuns => target.table_ready(job.source_oid, tally.attempt()).await?,
            Purpose::BesideStream => target.table_joining(job.source_oid, tally.attempt()).await?,
        };
        resume::expect(step, &job.table)?;
        crew.board.ready(table);
        tally.bar().finish();
        Ok(())
    }

    /// Makes sure of both sessions; the source's may be a new one, in no transaction.
    async fn ends(&mut self) -> Result<(&mut Connection, &State), CopyError> {
        self.target().await?;
        let kept = self.source.take().map(|mut kept| (kept.session.is_closed(), kept));
        let source = match kept {
            Some((false, kept)) => kept,
            Some((true, _)) | None => {
                let session = snapshot::connect(self.crew.ctx.settings).await?;
                Kept { session, since: Instant::now() }
            }
        };
        let source = self.source.insert(source);
        match &self.target {
            Some(target) => Ok((&mut source.session, &target.session)),
            None => Err(CopyError::SnapshotGone),
        }
    }

    /// Both sessions as they are, also when one is lost by now: a new one of the source
    /// would not be in the snapshot, and would read the rows of now.
    fn as_looked(&mut self) -> Result<(&mut Connection, &State), CopyError> {
        match (&mut self.source, &self.target) {
            (Some(source), Some(target)) => Ok((&mut source.session, &target.session)),
            _ => Err(CopyError::SnapshotGone),
        }
    }

    /// Makes sure of a session of the target.
    async fn target(&mut self) -> Result<&State, CopyError> {
        let kept = match self.target.take() {
            Some(kept) if !kept.session.session().is_closed() => kept,
            _ => {
                let session = worker_session(self.crew.ctx).await?;
                Kept { session: State::open(session, self.crew.ctx.state.name()).await?, since: Instant::now() }
            }
        };
        Ok(&self.target.insert(kept).session)
    }
}

/// Trying again mends what passes by itself; not rows that a unique index cannot
/// be built on.
fn not_built(table: &TableName, error: DbError) -> CopyError {
    if error.fault().is_retried() {
        return error.into();
    }
    CopyError::NotBuilt { table: table.clone(), source: error }
}

/// Records that all rows of a table are there.
async fn record(target: &State, job: &Job, plan: &RowsPlan, tally: &Tally) -> Result<(), CopyError> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let row = TableRow {
        rows: number(tally.rows()),
        bytes: number(tally.bytes()),
        snapshot_lsn: Some(plan.point),
        origin: plan.origin.clone(),
        ..TableRow::new(job.table.clone(), job.source_oid, TableState::Indexing)
    };
    let parts = plan.copies.parts.len();
    let how = format!(
        "copied {}: {} rows in {}, as of {}",
        job.table,
        row.rows,
        words::count(parts, "part"),
        plan.point.lsn()
    );
    resume::expect(target.rows_copied(&row, tally.attempt(), &how).await?, &job.table)
}

async fn run_sql(target: &State, sql: &str, job: &Job) -> Result<(), DbError> {
    let session = target.session();
    session.batch_execute(sql).await.during(session.side(), format!("copy {}", job.table))
}
