//! The snapshot of the copy, and a new one when it is lost.
//!
//! ```text
//! held ── keeper's connection lost ──► none ── a table waits ──► temporary slot ─ keeper ─ plans ──► held
//! ```
//!
//! Invariant: a table's `snapshot_lsn` is the consistent point of the slot that
//! gave the snapshot its rows were read in, so the stream takes up each table
//! exactly where its rows end: at or after that point. The migration's own
//! slot, and with it the beginning of the stream, stays what it was.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::board::Board;
use super::pause::Pause;
use super::plan::{self, Job, Planned};
use super::snapshot::Keeper;
use super::{CopyContext, CopyError, resume, slot};
use crate::lsn::EndLsn;
use crate::session::{DbContext, DbError, Session};
use crate::state::State;

/// Pause between two queries that keep proxies from cutting the keeper off;
/// the shortest idle limits found are one minute.
const AWAKE_EVERY: Duration = Duration::from_secs(30);

/// Pause between two looks at whether the keeper's connection is still open.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A snapshot that can be imported.
pub(super) struct Held {
    /// Its number in this process.
    pub(super) generation: u64,
    /// The point it stands for.
    pub(super) point: EndLsn,
    /// The session that has it.
    pub(super) keeper: Keeper,
}

/// The snapshot that tables are begun under.
pub(super) struct Snapshots<'a> {
    ctx: &'a CopyContext<'a>,
    held: Mutex<Option<Arc<Held>>>,
    /// Whether a slot is being created, which must not simply be dropped.
    is_creating: watch::Sender<bool>,
}

impl<'a> Snapshots<'a> {
    pub(super) fn new(ctx: &'a CopyContext<'a>) -> Self {
        Snapshots { ctx, held: Mutex::new(None), is_creating: watch::Sender::new(false) }
    }

    /// The snapshot of this number, if it is still there.
    pub(super) fn get(&self, generation: u64) -> Result<Arc<Held>, CopyError> {
        self.held().filter(|held| held.generation == generation).ok_or(CopyError::SnapshotGone)
    }

    /// Makes sure that the snapshot has been held without a break: its
    /// transaction, and with it the locks on tables in parts, still lives.
    ///
    /// # Errors
    /// [`CopyError::SnapshotGone`] when it does not.
    pub(super) async fn confirm(&self, generation: u64) -> Result<(), CopyError> {
        let held = self.get(generation)?;
        ask(held.keeper.session()).await.map_err(|_| CopyError::SnapshotGone)
    }

    /// Waits until no slot is being created.
    pub(super) async fn not_creating(&self) {
        let mut is_creating = self.is_creating.subscribe();
        // The sender is ours, so there is one.
        let _waited = is_creating.wait_for(|is_creating| !is_creating).await;
    }

    /// Plans what is left under a snapshot, and lets the workers begin.
    ///
    /// # Errors
    /// When a table cannot be planned.
    pub(super) async fn hold(&self, held: Held, jobs: &[Job], board: &Board) -> Result<(), CopyError> {
        let settings = &self.ctx.settings;
        let target = Session::connect(&settings.target, &settings.name).await?;
        let version = (held.generation, held.point);
        let wanted = board.without_rows();
        let planned = plan::plans(self.ctx, (held.keeper.session(), &target), version, jobs, &wanted).await?;
        let target = State::open(target, self.ctx.state.name()).await?;
        let Planned { plans, gone, left_out } = planned;
        for (index, job) in gone.into_iter().filter_map(|index| Some((index, jobs.get(index)?))) {
            resume::gone(&target, &job.table, job.shape, held.point).await?;
            board.ready(index);
        }
        for (index, job) in left_out.into_iter().filter_map(|index| Some((index, jobs.get(index)?))) {
            resume::leave_out(&target, &job.table, job.shape).await?;
            board.ready(index);
        }
        let generation = held.generation;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(held));
        board.snapshot(generation, plans);
        Ok(())
    }

    /// Sees to it that there is a snapshot whenever a table waits for one.
    /// Returns only when that cannot be had.
    pub(super) async fn keep(&self, jobs: &[Job], board: &Board) -> CopyError {
        let mut generation = self.held().map_or(0, |held| held.generation);
        let mut pause = Pause::new();
        loop {
            if let Some(held) = self.held() {
                lost(&held).await;
                drop(held);
                self.let_go();
                board.snapshot_lost();
                tracing::warn!("the session that holds the snapshot was lost; tables that are not begun get a new one");
            }
            board.snapshot_wanted().await;
            generation += 1;
            match self.renew(generation, jobs, board).await {
                Ok(()) => pause = Pause::new(),
                Err(error) if error.is_retried() => {
                    if let Err(error) = pause.after(error, self.ctx, board).await {
                        return error;
                    }
                }
                Err(error) => return error,
            }
        }
    }

    /// Waits until the snapshot's session is lost, for whom no other snapshot
    /// will do.
    pub(super) async fn lost(&self) -> CopyError {
        if let Some(held) = self.held() {
            lost(&held).await;
        }
        CopyError::SnapshotGone
    }

    /// A new snapshot, of a temporary slot.
    async fn renew(&self, generation: u64, jobs: &[Job], board: &Board) -> Result<(), CopyError> {
        let settings = &self.ctx.settings;
        let source = Session::connect(&settings.source, &settings.name).await?;
        self.is_creating.send_replace(true);
        let created = slot::create_temporary(self.ctx, &source).await;
        self.is_creating.send_replace(false);
        let (replication, created) = created?;
        let exported = created.snapshot.ok_or_else(|| CopyError::NoSnapshot(created.name.clone()))?;
        let keeper = Keeper::import(settings, &exported).await?;
        // The keeper has it: connection and slot may go.
        drop(replication);
        keeper.settle(&source).await?;
        self.hold(Held { generation, point: created.consistent_point, keeper }, jobs, board).await
    }

    fn held(&self) -> Option<Arc<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn let_go(&self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Waits until the keeper is lost, and keeps proxies from losing it.
async fn lost(held: &Held) {
    let session = held.keeper.session();
    let mut asked = Instant::now();
    while !session.is_closed() {
        sleep(LOOK_EVERY).await;
        if asked.elapsed() >= AWAKE_EVERY {
            asked = Instant::now();
            if let Err(error) = ask(session).await {
                tracing::debug!(%error, "the keeper does not answer");
                return;
            }
        }
    }
}

async fn ask(session: &Session) -> Result<(), DbError> {
    session.query("SELECT 1", &[]).await.during(session.side(), "keep the snapshot").map(drop)
}
