//! The snapshots of the copy: the one that tables are begun under, and older
//! ones for as long as a table is in work under them.
//!
//! ```text
//!              ┌ its connection lost, it has aged, or a table was written anew since ┐
//! present ─────┴► temporary slot ─ keeper ─ plans ─► the next one is present ◄───────┘
//!    └────────────────────────────────────────────► old ─ nothing in work ─► let go
//! ```
//!
//! Invariant: a table's `snapshot_lsn` is the consistent point of the slot that
//! gave the snapshot its rows were read in, so the stream takes up each table
//! exactly where its rows end: at or after that point. The migration's own
//! slot, and with it the beginning of the stream, stays what it was. No snapshot
//! is held that nothing is read under, nor is a table begun under one that is
//! older than `--snapshot-age` where a new one can be had: the source cannot
//! remove rows that died after the oldest.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::board::Board;
use super::pause::Pause;
use super::plan::{self, Job, Planned};
use super::slot::Need;
use super::snapshot::Keeper;
use super::{CopyContext, CopyError, resume, slot};
use crate::lsn::EndLsn;
use crate::session::{DbContext, DbError, Session};
use crate::state::State;

/// Pause between two queries that keep proxies from cutting the keeper off;
/// the shortest idle limits found are one minute.
const AWAKE_EVERY: Duration = Duration::from_secs(30);

/// Pause between two looks at whether the keepers' connections are still open,
/// and whether anything is read under them.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A snapshot that can be imported.
pub(super) struct Held {
    /// Its number in this process.
    pub(super) generation: u64,
    /// The point it stands for.
    pub(super) point: EndLsn,
    /// The session that has it.
    pub(super) keeper: Keeper,
    since: Instant,
}

impl Held {
    /// The first one of this process, which stands for this point.
    pub(super) fn first(point: EndLsn, keeper: Keeper) -> Self {
        Held { generation: 1, point, keeper, since: Instant::now() }
    }
}

/// The snapshots that are held.
pub(super) struct Snapshots<'a> {
    ctx: &'a CopyContext<'a>,
    /// Oldest first; tables are begun under the last one.
    held: Mutex<Vec<Arc<Held>>>,
    /// The number of the last one that was made.
    made: AtomicU64,
    /// Whether a slot is being created, which must not simply be dropped.
    is_creating: watch::Sender<bool>,
}

impl<'a> Snapshots<'a> {
    pub(super) fn new(ctx: &'a CopyContext<'a>) -> Self {
        let (held, made, is_creating) = (Mutex::new(Vec::new()), AtomicU64::new(0), watch::Sender::new(false));
        Snapshots { ctx, held, made, is_creating }
    }

    /// The snapshot of this number, if it is still there.
    pub(super) fn get(&self, generation: u64) -> Result<Arc<Held>, CopyError> {
        self.all().into_iter().find(|held| held.generation == generation).ok_or(CopyError::SnapshotGone)
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
        let Planned { plans, gone } = planned;
        for (index, job) in gone.into_iter().filter_map(|index| Some((index, jobs.get(index)?))) {
            resume::gone(&target, job, held.point).await?;
            board.ready(index);
        }
        let generation = held.generation;
        self.made.fetch_max(generation, Ordering::Relaxed);
        self.held.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(held));
        board.snapshot(generation, plans);
        Ok(())
    }

    /// Sees to it that there is a snapshot whenever a table waits for one, and
    /// no longer than that. Returns only when one cannot be had.
    pub(super) async fn keep(&self, jobs: &[Job], board: &Board) -> CopyError {
        tokio::select! {
            error = self.renewals(jobs, board) => error,
            never = self.look_after(board) => match never {},
        }
    }

    async fn renewals(&self, jobs: &[Job], board: &Board) -> CopyError {
        let mut pause = Pause::new();
        let mut not_before = Instant::now();
        loop {
            let need = self.needed(board, not_before).await;
            let created = match self.create(need).await {
                // What is there will do.
                Err(error) if need == Need::Welcome && !matches!(error, CopyError::Stopped) => {
                    tracing::warn!(%error, "the snapshot of the copy is old, and there is no new one yet: rows that \
                        are dead on the source cannot be removed there; trying again later");
                    not_before = Instant::now() + self.ctx.settings.snapshot_age;
                    continue;
                }
                Ok(held) => self.hold(held, jobs, board).await,
                Err(error) => Err(error),
            };
            match created {
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

    /// Waits until a new snapshot is needed.
    async fn needed(&self, board: &Board, not_before: Instant) -> Need {
        let old = async {
            match self.all().last() {
                Some(held) => sleep_until((held.since + self.ctx.settings.snapshot_age).max(not_before)).await,
                None => std::future::pending().await,
            }
            board.beginning_wanted().await;
        };
        tokio::select! {
            biased;
            () = board.snapshot_wanted() => Need::Urgent,
            () = old => Need::Welcome,
        }
    }

    /// A new snapshot, of a temporary slot.
    async fn create(&self, need: Need) -> Result<Held, CopyError> {
        let settings = &self.ctx.settings;
        let source = Session::connect(&settings.source, &settings.name).await?;
        self.is_creating.send_replace(true);
        let created = slot::create_temporary(self.ctx, &source, need).await;
        self.is_creating.send_replace(false);
        let (replication, created) = created?;
        let since = Instant::now();
        let exported = created.snapshot.ok_or_else(|| CopyError::NoSnapshot(created.name.clone()))?;
        let keeper = Keeper::import(settings, &exported).await?;
        // The keeper has it: connection and slot may go.
        drop(replication);
        keeper.settle(&source).await?;
        let generation = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Held { generation, point: created.consistent_point, keeper, since })
    }

    /// Notices what is lost, and lets go of what nothing is read under any more.
    async fn look_after(&self, board: &Board) -> Infallible {
        let mut asked = Instant::now();
        loop {
            sleep(LOOK_EVERY).await;
            let is_time = asked.elapsed() >= AWAKE_EVERY;
            if is_time {
                asked = Instant::now();
            }
            for held in self.all() {
                let session = held.keeper.session();
                if session.is_closed() || is_time && !answers(session).await {
                    self.let_go(held.generation);
                    board.snapshot_lost(held.generation);
                    tracing::warn!(
                        "the session that holds the snapshot was lost; tables that are not begun get a new one"
                    );
                } else if !board.needs(held.generation) {
                    tracing::debug!(generation = held.generation, "nothing is read under this snapshot any more");
                    self.let_go(held.generation);
                    board.snapshot_lost(held.generation);
                }
            }
        }
    }

    fn all(&self) -> Vec<Arc<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn let_go(&self, generation: u64) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).retain(|held| held.generation != generation);
    }
}

/// Asks a keeper something, so that nobody takes its connection for idle.
async fn answers(session: &Session) -> bool {
    let asked: Result<_, DbError> = session.query("SELECT 1", &[]).await.during(session.side(), "keep the snapshot");
    if let Err(error) = &asked {
        tracing::debug!(%error, "the keeper does not answer");
    }
    asked.is_ok()
}
