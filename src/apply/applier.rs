//! The applier: takes batches, commits them on the target, and says what is
//! durable.
//!
//! ```text
//! batch ─ coalesce ─┬─ net changes only ──► sent with its COMMIT, the next one behind it
//!                   ├─ with single rows ──► sent, every row counted, then COMMIT
//!                   └─ not possible ──────► row by row, every row counted, then COMMIT
//!
//! refused: roll back what is in flight, replay that batch one source
//! transaction at a time and row by row, send the ones behind it again
//! ```
//!
//! Invariants: batches commit in source order, for each begins with the
//! compare-and-set of the position and fails when its predecessor has failed;
//! a position is durable only once its COMMIT was answered with `COMMIT`; what
//! is in flight is bounded in bytes and in number.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::ApplyError;
use super::actions;
use super::batch::Batch;
use super::in_flight::{Changes, Counting, InFlight, Sending, Way, is_pure};
use super::order::Order;
use super::pipeline::{CommitTag, Committed, Pipeline, Reply};
use super::recovery::is_refusal;
use super::relations::Relations;
use super::send::{Sender, Work};
use super::source::Source;
use super::steering::{Ask, Asks};
use super::tables::{Share, Tables};
use super::transaction::{self, OwnStatements, Transaction};
use crate::assemble::{First, Piece};
use crate::coalesce::{Conflict, Segment, coalesce};
use crate::config::Settings;
use crate::lsn::{DurableLsn, EndLsn};
use crate::observe::metrics::Metrics;
use crate::session::Session;
use crate::session::replica_role::ReplicaRole;
use crate::state::State;
use crate::sweep::large_objects::hints::Hints;

/// How often the position is moved for the sake of an idle source: often
/// enough that the slot never holds back much, seldom enough that an idle
/// migration writes nothing to speak of.
const IDLE_MOVE_SECONDS: u64 = 10;

/// Batches in flight at most. Over a slow link the bound in bytes is reached
/// first; this one keeps the replay after a failure short.
const WINDOW_BATCHES: usize = 32;

/// Why the applier ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The position has reached what was asked for.
    Reached,
    /// It was asked to stop, or its input has ended.
    Stopped,
}

/// What has been applied by this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Source transactions.
    pub transactions: u64,
    /// Row changes.
    pub rows: u64,
}

/// What the applier works with.
pub struct Tools {
    /// The connection that applies.
    pub pipeline: Pipeline,
    /// Whether triggers stay silent on it.
    pub role: ReplicaRole,
    /// A session on the target for its catalog.
    pub target: Session,
    /// The state, for tables that are new or renamed.
    pub state: Arc<State>,
    /// Counters.
    pub metrics: Metrics,
    /// Set when net changes of a large transaction were refused: such
    /// transactions go row by row for the rest of the process.
    pub careful: Arc<AtomicBool>,
    /// Which of the migration's tables are this applier's.
    pub share: Share,
    /// The slot whose position moves with what is applied.
    pub slot: String,
    /// Takes the large objects that rows name, where somebody wants to know.
    pub hints: Option<Hints>,
}

/// Applies batches.
pub struct Applier {
    pub(super) tools: Tools,
    settings: Settings,
    tables: Tables,
    pub(super) relations: Relations,
    source: Source,
    statements: OwnStatements,
    /// Where the target's position stands; moved by our commits only.
    pub(super) durable: DurableLsn,
    /// Where it will stand once all that is in flight has committed.
    pub(super) sent: EndLsn,
    pub(super) in_flight: VecDeque<InFlight>,
    pub(super) again: VecDeque<Batch>,
    phase: Phase,
    asks: Asks,
    until: Option<EndLsn>,
    /// An end that the position was not moved to, as nothing was to be applied.
    passed: Option<EndLsn>,
    moved_at: Instant,
    totals: Totals,
}

/// Whether a target transaction is open between two batches.
#[derive(Clone, Copy)]
enum Phase {
    Idle,
    /// Parts of a large source transaction have been applied in it.
    Open {
        since: Instant,
        work: Work,
    },
}

impl Applier {
    /// An applier that goes on from `position`, which was read back, and ends
    /// when it has reached `until`.
    ///
    /// # Errors
    /// When the state cannot be read or the connection is lost.
    pub async fn new(
        tools: Tools,
        settings: &Settings,
        position: DurableLsn,
        until: Option<EndLsn>,
        asks: Asks,
    ) -> Result<Self, ApplyError> {
        let tables = Tables::load(&tools.state, settings, tools.share).await?;
        let statements = OwnStatements::new(&tools.slot, tools.state.claim(), tools.role);
        Ok(Applier {
            tools,
            settings: settings.clone(),
            tables,
            relations: Relations::default(),
            source: Source::new(settings),
            statements,
            durable: position,
            sent: position.end(),
            in_flight: VecDeque::new(),
            again: VecDeque::new(),
            phase: Phase::Idle,
            asks,
            until,
            passed: None,
            moved_at: Instant::now(),
            totals: Totals::default(),
        })
    }

    /// What has been applied so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Applies batches until the end is reached, the input ends, or `stop` is
    /// cancelled; batches in flight are finished. Every durable position is
    /// published in `durable`.
    ///
    /// # Errors
    /// When a batch cannot be applied; nothing of it is on the target then.
    pub async fn run(
        &mut self,
        batches: &mut mpsc::Receiver<Batch>,
        durable: &watch::Sender<DurableLsn>,
        stop: &CancellationToken,
    ) -> Result<Ended, ApplyError> {
        loop {
            if self.until.is_some_and(|until| self.durable.end() >= until) {
                self.drain(durable).await?;
                return Ok(Ended::Reached);
            }
            if let Some(batch) = self.again.pop_front() {
                self.take(batch, durable).await?;
                continue;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.drain(durable).await?;
                    return Ok(Ended::Stopped);
                }
                Some(ask) = self.asks.0.recv(), if matches!(self.phase, Phase::Idle) => {
                    self.answer_ask(ask, durable, stop).await?;
                }
                reply = self.tools.pipeline.reply(), if !self.in_flight.is_empty() => {
                    self.answer(reply?, durable).await?;
                }
                batch = batches.recv(), if self.has_room() => match batch {
                    Some(batch) => self.take(batch, durable).await?,
                    None if self.in_flight.is_empty() => return Ok(Ended::Stopped),
                    None => self.drain(durable).await?,
                },
            }
        }
    }

    /// Does what somebody beside the stream asks for.
    async fn answer_ask(
        &mut self,
        ask: Ask,
        durable: &watch::Sender<DurableLsn>,
        stop: &CancellationToken,
    ) -> Result<(), ApplyError> {
        match ask {
            Ask::EndAt(end) => {
                self.until = Some(end);
                // An idle source does not say again where it is.
                if let Some(passed) = self.passed {
                    let idle = Batch { pieces: Vec::new(), end: Some(passed), rows: 0, bytes: 0, permit: None };
                    self.move_idle(idle).await?;
                }
            }
            Ask::Hold { standing, released } => {
                self.drain(durable).await?;
                if standing.send(self.durable).is_err() {
                    return Ok(());
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    _released = released => {}
                }
                let Tools { state, share, .. } = &self.tools;
                self.tables = Tables::load(state, &self.settings, *share).await?;
                self.relations.forget_all();
            }
        }
        Ok(())
    }

    /// One batch is executed while the next one waits on the target; a third is
    /// sent only when batches have grown large, which they do because they have
    /// to wait here: over a slow link.
    fn has_room(&self) -> bool {
        let Some(last) = self.in_flight.back().filter(|_| self.in_flight.len() >= 2) else { return true };
        let bounds = self.settings.batch;
        let is_large = last.batch.rows >= bounds.rows / 2 || last.batch.bytes >= bounds.bytes / 2;
        let bytes: usize = self.in_flight.iter().map(|sent| sent.batch.bytes).sum();
        is_large && self.in_flight.len() < WINDOW_BATCHES && bytes < self.settings.queue_bytes
    }

    async fn take(&mut self, batch: Batch, durable: &watch::Sender<DurableLsn>) -> Result<(), ApplyError> {
        if batch.pieces.is_empty() {
            return self.move_idle(batch).await;
        }
        let Tools { target, state, .. } = &self.tools;
        let sides = (target, &mut self.source);
        match self.relations.admit(&batch.pieces, &mut self.tables, sides, state, self.tools.role).await {
            Err(_) if !self.in_flight.is_empty() => return self.postpone(batch, durable).await,
            Err(error @ (ApplyError::Unknown { .. } | ApplyError::Mapping { .. })) => {
                self.finish_before(batch, durable).await?;
                return Err(error);
            }
            admitted => admitted?,
        }
        let order = self.relations.order(&batch.pieces);
        if (batch.is_part() || order == Order::Source) && !self.in_flight.is_empty() {
            return self.postpone(batch, durable).await;
        }
        if batch.is_part() {
            return self.apply_part(batch, order).await;
        }
        let Some(end) = batch.end else {
            return Err(ApplyError::OutOfStep("a batch without an end".to_owned()));
        };
        if order == Order::Source {
            self.fall_back("order");
            return self.in_order(batch, end, durable).await;
        }
        let coalesced = self.coalesce(&batch.pieces);
        let is_pure = coalesced.as_ref().is_ok_and(|segments| is_pure(segments));
        if !is_pure && !self.in_flight.is_empty() {
            drop(coalesced);
            return self.postpone(batch, durable).await;
        }
        self.relations.count_down();
        let segments = match coalesced {
            // Foreign keys are no matter of single rows between net changes.
            Ok(_) if order == Order::ParentsFirst && !is_pure => Err("order"),
            Ok(segments) => Ok(segments),
            Err(conflict) => Err(conflict.as_str()),
        };
        let segments = match segments {
            Ok(segments) => segments,
            Err(reason) => {
                self.fall_back(reason);
                return self.in_order(batch, end, durable).await;
            }
        };
        let counting = if is_pure { Counting::ByItself } else { Counting::BeforeCommit };
        let outcome = self.send(Changes::Net(&segments, order), &batch.pieces, end, counting).await;
        drop(segments);
        match outcome {
            Ok(sending) => {
                self.push(batch, end, Way::Fast, sending);
                Ok(())
            }
            Err(error) if is_refusal(&error) => self.refused(batch, end, &error, durable).await,
            Err(error) => Err(error),
        }
    }

    /// A batch that is counted before its COMMIT waits until nothing is in
    /// flight. It is taken up again behind what the failure of one of those
    /// before it may put in front of it.
    async fn postpone(&mut self, batch: Batch, durable: &watch::Sender<DurableLsn>) -> Result<(), ApplyError> {
        self.again.push_front(batch);
        self.drain(durable).await
    }

    /// A table has no place: everything before the transaction that changes it
    /// is made durable, so that what the operator then does about the table
    /// meets the state that the source had there. Nothing is in flight.
    async fn finish_before(&mut self, batch: Batch, durable: &watch::Sender<DurableLsn>) -> Result<(), ApplyError> {
        if let Some(before) = batch.leading(|piece| self.relations.has_all(piece)) {
            Box::pin(self.take(before, durable)).await?;
            self.drain(durable).await?;
        }
        Ok(())
    }

    /// The net changes of pieces; CPU work, which other tasks must not wait for.
    fn coalesce<'a>(&self, pieces: &'a [Piece]) -> Result<Vec<Segment<'a>>, Conflict> {
        tokio::task::block_in_place(|| coalesce(pieces, |piece, relation| self.relations.keying(piece, relation)))
    }

    /// Moves the position where nothing but the position is to be moved.
    async fn move_idle(&mut self, batch: Batch) -> Result<(), ApplyError> {
        let Some(end) = batch.end.filter(|end| *end > self.sent) else { return Ok(()) };
        let is_awaited = self.until.is_some_and(|until| end >= until);
        // A second stream is waited for all the time.
        let is_awaited = is_awaited || self.tools.share == Share::Joining;
        if !is_awaited && self.moved_at.elapsed().as_secs() < IDLE_MOVE_SECONDS {
            self.passed = Some(end);
            return Ok(());
        }
        let since = Instant::now();
        let mut transaction = Transaction::begin(&mut self.tools.pipeline, &self.statements).await?;
        transaction.advance(self.sent, end, None).await?;
        let expected = transaction.commit().await?;
        self.push(batch, end, Way::Idle, Sending { expected, work: Work::default(), since });
        Ok(())
    }

    /// Sends whole transactions and their COMMIT, without waiting for its answer.
    pub(super) async fn send(
        &mut self,
        changes: Changes<'_>,
        pieces: &[Piece],
        end: EndLsn,
        counting: Counting,
    ) -> Result<Sending, ApplyError> {
        let since = Instant::now();
        let mut work = Work::default();
        for piece in pieces {
            work.count(&self.relations, piece);
            self.hint(piece);
        }
        let mut transaction = Transaction::begin(&mut self.tools.pipeline, &self.statements).await?;
        transaction.advance(self.sent, end, work.commit_time).await?;
        let mut sender = Sender { relations: &mut self.relations };
        match changes {
            Changes::Net(segments, order) => sender.segments(&mut transaction, segments, order).await?,
            Changes::Rows => sender.pieces(&mut transaction, pieces).await?,
        }
        if counting == Counting::ByItself {
            return Ok(Sending { expected: transaction.commit().await?, work, since });
        }
        if let Some(last) = pieces.last() {
            transaction.check_deferred(last.begin.commit_lsn).await?;
        }
        transaction.verify().await.map_err(|error| actions::explain(error, &self.relations))?;
        let expected = Transaction::resume(&mut self.tools.pipeline, &self.statements).commit().await?;
        Ok(Sending { expected, work, since })
    }

    /// The ordered path for a whole batch; replayed one by one when refused.
    /// Nothing is in flight.
    async fn in_order(
        &mut self,
        batch: Batch,
        end: EndLsn,
        durable: &watch::Sender<DurableLsn>,
    ) -> Result<(), ApplyError> {
        match self.send(Changes::Rows, &batch.pieces, end, Counting::BeforeCommit).await {
            Ok(sending) => {
                self.push(batch, end, Way::Ordered, sending);
                Ok(())
            }
            Err(error) if batch.pieces.len() > 1 && is_refusal(&error) => {
                info!(%error, transactions = batch.pieces.len(), "a merged batch failed; replaying its transactions one by one");
                self.replay(batch, end, durable).await
            }
            Err(error) => Err(error),
        }
    }

    /// A part of a transaction that is too large for one batch: it is applied
    /// in the target transaction that its first part opened.
    async fn apply_part(&mut self, batch: Batch, order: Order) -> Result<(), ApplyError> {
        let (mut work, since) = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => (Work::default(), Instant::now()),
            Phase::Open { since, work } => (work, since),
        };
        let is_careful = self.tools.careful.load(Ordering::Relaxed) || order != Order::Free;
        let segments = if is_careful { None } else { self.coalesce(&batch.pieces).ok() };
        batch.pieces.iter().for_each(|piece| self.hint(piece));
        let is_first = batch.pieces.first().is_some_and(|piece| piece.first == First::Yes);
        let mut transaction = if is_first {
            let mut transaction = Transaction::begin(&mut self.tools.pipeline, &self.statements).await?;
            transaction.hold(self.sent).await?;
            transaction
        } else {
            Transaction::resume(&mut self.tools.pipeline, &self.statements)
        };
        for piece in &batch.pieces {
            work.count(&self.relations, piece);
        }
        let mut sender = Sender { relations: &mut self.relations };
        match &segments {
            Some(segments) => sender.segments(&mut transaction, segments, order).await?,
            None => sender.pieces(&mut transaction, &batch.pieces).await?,
        }
        if let Some(end) = batch.end {
            transaction.advance(self.sent, end, batch.commit_time()).await?;
            if let Some(last) = batch.pieces.last() {
                transaction.check_deferred(last.begin.commit_lsn).await?;
            }
        }
        let verified = transaction.verify().await.map_err(|error| actions::explain(error, &self.relations));
        let path = if segments.is_some() { Way::Fast } else { Way::Ordered };
        drop(segments);
        match verified {
            // The parts before this one are gone from memory: the whole
            // transaction comes again, and goes row by row then.
            Err(error) if path == Way::Fast && is_refusal(&error) => {
                self.note_refusal(&error);
                self.tools.careful.store(true, Ordering::Relaxed);
                return Err(ApplyError::InOrderAgain(error.to_string()));
            }
            verified => verified?,
        }
        debug!(rows = batch.rows, bytes = batch.bytes, path = path.as_str(), "applied a part of a large transaction");
        match batch.end {
            Some(end) => {
                let expected = Transaction::resume(&mut self.tools.pipeline, &self.statements).commit().await?;
                self.push(batch, end, path, Sending { expected, work, since });
            }
            None => self.phase = Phase::Open { since, work },
        }
        Ok(())
    }

    /// Gives the large objects that new rows name to whoever carries them.
    fn hint(&self, piece: &Piece) {
        if let Some(hints) = &self.tools.hints {
            self.relations.hint(piece, hints);
        }
    }

    pub(super) fn push(&mut self, batch: Batch, end: EndLsn, path: Way, sending: Sending) {
        let Sending { expected, work, since } = sending;
        self.sent = end;
        self.moved_at = Instant::now();
        self.in_flight.push_back(InFlight { batch, expected, end, path, work, since, committed: None, error: None });
    }

    /// Waits until nothing is in flight.
    pub(super) async fn drain(&mut self, durable: &watch::Sender<DurableLsn>) -> Result<(), ApplyError> {
        while !self.in_flight.is_empty() {
            let reply = self.tools.pipeline.reply().await?;
            self.settle(reply, durable).await?;
        }
        Ok(())
    }

    async fn answer(&mut self, reply: Reply, durable: &watch::Sender<DurableLsn>) -> Result<(), ApplyError> {
        self.settle(reply, durable).await?;
        if self.in_flight.is_empty() {
            self.tools.pipeline.trim().await?;
        }
        Ok(())
    }

    /// Takes an answer to the oldest batch in flight.
    async fn settle(&mut self, reply: Reply, durable: &watch::Sender<DurableLsn>) -> Result<(), ApplyError> {
        let Some(front) = self.in_flight.front_mut() else {
            return Err(transaction::for_nothing(reply, &self.tools.pipeline));
        };
        if !matches!(reply, Reply::Ready) {
            let Some(expectation) = front.expected.pop_front() else {
                return Err(transaction::for_nothing(reply, &self.tools.pipeline));
            };
            match transaction::check(expectation, reply, &self.statements) {
                Ok(tag) => front.committed = front.committed.take().or(tag),
                Err(error) => front.error = front.error.take().or(Some(error)),
            }
            return Ok(());
        }
        let Some(mut front) = self.in_flight.pop_front() else { return Ok(()) };
        match (front.error.take(), front.committed.take()) {
            (None, Some(tag)) => {
                self.confirm(&front, tag, durable);
                Ok(())
            }
            (None, None) => Err(ApplyError::OutOfStep("no answer to COMMIT".to_owned())),
            // Committed all the same: nothing that a replay could mend.
            (Some(error), Some(_)) => Err(error),
            (Some(error), None) if is_refusal(&error) && front.can_be_replayed() => {
                self.recover(front, &error, durable).await
            }
            (Some(error), None) => Err(error),
        }
    }

    fn confirm(&mut self, done: &InFlight, tag: CommitTag, durable: &watch::Sender<DurableLsn>) {
        crate::failpoint::hit("after-commit");
        self.durable = DurableLsn::of(Committed::new(tag, done.end));
        durable.send_replace(self.durable);
        self.count(done);
    }

    pub(super) fn fall_back(&self, reason: &str) {
        self.tools.metrics.fallbacks.with_label_values(&[reason]).inc();
    }

    fn count(&mut self, done: &InFlight) {
        let metrics = &self.tools.metrics;
        let work = &done.work;
        metrics.batches.with_label_values(&[done.path.as_str()]).inc();
        metrics.transactions_applied.inc_by(work.transactions);
        metrics.changes_filtered.inc_by(work.filtered);
        let operations = [
            ("insert", work.inserts),
            ("update", work.updates),
            ("delete", work.deletes),
            ("truncate", work.truncates),
        ];
        for (operation, count) in operations {
            metrics.rows_applied.with_label_values(&[operation]).inc_by(count);
            self.totals.rows += count;
        }
        self.totals.transactions += work.transactions;
        if let Some(time) = work.commit_time {
            metrics.last_applied_commit_timestamp_seconds.set(unix_seconds(time));
        }
        if done.path != Way::Idle {
            metrics.apply_seconds.observe(done.since.elapsed().as_secs_f64());
        }
    }
}

/// PostgreSQL counts microseconds since 2000-01-01, Prometheus seconds since 1970.
fn unix_seconds(postgres_us: i64) -> f64 {
    const UNIX_2000: f64 = 946_684_800.0;
    // Exact to the microsecond for centuries: 2^53 us are 285 years.
    postgres_us as f64 / 1e6 + UNIX_2000
}
