//! The applier: takes batches, commits them on the target, and says what is
//! durable. The ordered path: row by row in source order, many source
//! transactions per commit, all statements in flight at once. A merged batch
//! that fails is replayed one source transaction at a time, so what is right
//! in it becomes durable and the error names the transaction it belongs to.
//!
//! ```text
//! Idle ── whole batch ──► verified ── COMMIT ──► Idle
//!   └── first part ──► Open ── further parts ──► last part verified ── COMMIT ──► Idle
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::batch::Batch;
use super::mapping::{Mapping, MappingError};
use super::pipeline::{CommitError, Pipeline};
use super::render::Renderer;
use super::replica_role;
use super::reread::{self, Filled};
use super::source::Source;
use super::tables::{Admission, Tables};
use super::target::TargetTable;
use super::transaction::{PositionStatements, Transaction};
use super::{ApplyError, Label, Place};
use crate::assemble::{Change, ChangeKind, First, Piece};
use crate::config::Settings;
use crate::lsn::{DurableLsn, EndLsn, Lsn};
use crate::observe::metrics::Metrics;
use crate::pgoutput::{Cascade, KeyColumn, RestartIdentity};
use crate::relation::Relation;
use crate::session::Session;
use crate::state::State;

/// How often the position is moved for the sake of an idle source: often
/// enough that the slot never holds back much, seldom enough that an idle
/// migration writes nothing to speak of.
const IDLE_MOVE_SECONDS: u64 = 10;

/// Relations remembered before the memory of them is started afresh.
const RELATIONS_MAX: usize = 20_000;

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
    /// A session on the target for its catalog.
    pub target: Session,
    /// The state, for tables that are new or renamed.
    pub state: Arc<State>,
    /// Counters.
    pub metrics: Metrics,
}

/// What is done with the changes of a relation.
enum Handling {
    Apply { renderer: Box<Renderer>, from: Option<EndLsn> },
    Filtered,
}

/// Applies batches.
pub struct Applier {
    tools: Tools,
    tables: Tables,
    /// By the address of the relation, which the entry keeps alive.
    relations: HashMap<usize, (Arc<Relation>, Handling)>,
    source: Source,
    statements: PositionStatements,
    /// Where the target's position stands; moved by our commits only.
    position: DurableLsn,
    phase: Phase,
    until: Option<EndLsn>,
    moved_at: Instant,
    totals: Totals,
}

/// Whether a target transaction is open between two batches.
enum Phase {
    Idle,
    /// Parts of a large source transaction have been applied in it.
    Open {
        since: Instant,
        work: Work,
    },
}

/// What a target transaction has done, for the counters.
#[derive(Clone, Copy, Default)]
struct Work {
    transactions: u64,
    inserts: u64,
    updates: u64,
    deletes: u64,
    truncates: u64,
    filtered: u64,
    /// Source commit time of the last transaction, microseconds since 2000.
    commit_time: Option<i64>,
}

impl Applier {
    /// An applier that goes on from `position`, which was read back, and ends
    /// when it has reached `until`.
    ///
    /// # Errors
    /// When the state cannot be read or the connection is lost.
    pub async fn new(
        mut tools: Tools,
        settings: &Settings,
        position: DurableLsn,
        until: Option<EndLsn>,
    ) -> Result<Self, ApplyError> {
        replica_role::probe(&mut tools.pipeline).await?;
        let tables = Tables::load(&tools.state, &settings.filter, &settings.adopt).await?;
        Ok(Applier {
            tools,
            tables,
            relations: HashMap::new(),
            source: Source::new(settings),
            statements: PositionStatements::new(settings.slot.name()),
            position,
            phase: Phase::Idle,
            until,
            moved_at: Instant::now(),
            totals: Totals::default(),
        })
    }

    /// What has been applied so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Applies batches until the end is reached, the input ends, or `stop` is
    /// cancelled; a batch that has begun is finished. Every durable position
    /// is published in `durable`.
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
            if self.until.is_some_and(|until| self.position.lsn() >= until.0) {
                return Ok(Ended::Reached);
            }
            let batch = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Ended::Stopped),
                batch = batches.recv() => batch,
            };
            let Some(batch) = batch else { return Ok(Ended::Stopped) };
            if let Some(reached) = self.apply(&batch).await? {
                crate::failpoint::hit("after-commit");
                self.position = reached;
                // Nobody listening any more means we are about to end anyway.
                durable.send_replace(reached);
            }
        }
    }

    async fn apply(&mut self, batch: &Batch) -> Result<Option<DurableLsn>, ApplyError> {
        if batch.pieces.is_empty() {
            return self.move_idle(batch).await;
        }
        self.admit(&batch.pieces).await?;
        if batch.is_part() {
            return self.apply_part(batch).await;
        }
        let Some(end) = batch.end else {
            return Err(ApplyError::OutOfStep("a batch without an end".to_owned()));
        };
        match self.apply_whole(&batch.pieces, end).await {
            Err(error) if batch.pieces.len() > 1 && is_refusal(&error) => {
                info!(%error, transactions = batch.pieces.len(), "a merged batch failed; replaying its transactions one by one");
                self.replay(&batch.pieces, end).await.map(Some)
            }
            other => other.map(Some),
        }
    }

    /// Moves the position where nothing but the position is to be moved.
    async fn move_idle(&mut self, batch: &Batch) -> Result<Option<DurableLsn>, ApplyError> {
        let Some(end) = batch.end.filter(|end| end.0 > self.position.lsn()) else { return Ok(None) };
        let is_awaited = self.until.is_some_and(|until| end >= until);
        if !is_awaited && self.moved_at.elapsed().as_secs() < IDLE_MOVE_SECONDS {
            return Ok(None);
        }
        let from = EndLsn(self.position.lsn());
        let mut transaction = Transaction::begin(&mut self.tools.pipeline, &self.statements).await?;
        transaction.advance(from, end, None).await?;
        transaction.verify().await?;
        self.commit(end, "idle", Work::default(), Instant::now()).await.map(Some)
    }

    async fn apply_whole(&mut self, pieces: &[Piece], end: EndLsn) -> Result<DurableLsn, ApplyError> {
        let since = Instant::now();
        let from = EndLsn(self.position.lsn());
        let time = pieces.last().map(|piece| piece.begin.commit_time);
        let mut transaction = Transaction::begin(&mut self.tools.pipeline, &self.statements).await?;
        transaction.advance(from, end, time).await?;
        let mut rows = Rows { relations: &mut self.relations, source: &mut self.source };
        let mut work = Work::default();
        for piece in pieces {
            rows.send(&mut transaction, piece, &mut work).await?;
            work.transactions += 1;
        }
        work.commit_time = time;
        if let Some(last) = pieces.last() {
            transaction.check_deferred(last.begin.commit_lsn).await?;
        }
        transaction.verify().await?;
        self.commit(end, "ordered", work, since).await
    }

    /// One source transaction at a time, each with its own commit.
    async fn replay(&mut self, pieces: &[Piece], end: EndLsn) -> Result<DurableLsn, ApplyError> {
        let mut rest = pieces;
        while let Some((piece, others)) = rest.split_first() {
            let own_end = if others.is_empty() { Some(end) } else { piece.end };
            let Some(own_end) = own_end else {
                return Err(ApplyError::OutOfStep("a transaction without an end in a whole batch".to_owned()));
            };
            self.position = self.apply_whole(std::slice::from_ref(piece), own_end).await?;
            rest = others;
        }
        Ok(self.position)
    }

    /// A part of a transaction that is too large for one batch: it is applied
    /// in the target transaction that its first part opened.
    async fn apply_part(&mut self, batch: &Batch) -> Result<Option<DurableLsn>, ApplyError> {
        let from = EndLsn(self.position.lsn());
        let (mut work, since) = match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => (Work::default(), Instant::now()),
            Phase::Open { since, work } => (work, since),
        };
        let is_first = batch.pieces.first().is_some_and(|piece| piece.first == First::Yes);
        let mut transaction = if is_first {
            let mut transaction = Transaction::begin(&mut self.tools.pipeline, &self.statements).await?;
            transaction.hold(from).await?;
            transaction
        } else {
            Transaction::resume(&mut self.tools.pipeline, &self.statements)
        };
        let mut rows = Rows { relations: &mut self.relations, source: &mut self.source };
        for piece in &batch.pieces {
            rows.send(&mut transaction, piece, &mut work).await?;
        }
        if let Some(end) = batch.end {
            transaction.advance(from, end, batch.commit_time()).await?;
            if let Some(last) = batch.pieces.last() {
                transaction.check_deferred(last.begin.commit_lsn).await?;
            }
        }
        transaction.verify().await?;
        debug!(rows = batch.rows, bytes = batch.bytes, "applied a part of a large transaction");
        match batch.end {
            Some(end) => {
                work.transactions += 1;
                work.commit_time = batch.commit_time();
                self.commit(end, "ordered", work, since).await.map(Some)
            }
            None => {
                self.phase = Phase::Open { since, work };
                Ok(None)
            }
        }
    }

    async fn commit(
        &mut self,
        end: EndLsn,
        path: &'static str,
        work: Work,
        since: Instant,
    ) -> Result<DurableLsn, ApplyError> {
        crate::failpoint::hit("before-commit");
        self.tools.pipeline.send_commit().await?;
        let first = self.tools.pipeline.reply().await?;
        let committed = match self.tools.pipeline.committed(first, end).await {
            Ok(committed) => committed,
            Err(CommitError::Wire(error)) => return Err(error.into()),
            Err(CommitError::Refused(error)) => {
                self.tools.pipeline.roll_back().await?;
                return Err(ApplyError::Statement { action: "commit a batch", error });
            }
            Err(error @ CommitError::RolledBack) => return Err(ApplyError::OutOfStep(error.to_string())),
        };
        self.moved_at = Instant::now();
        self.count(path, work, since);
        self.tools.pipeline.trim().await?;
        Ok(DurableLsn::of(&committed))
    }

    fn count(&mut self, path: &'static str, work: Work, since: Instant) {
        let metrics = &self.tools.metrics;
        metrics.batches.with_label_values(&[path]).inc();
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
        if path != "idle" {
            metrics.apply_seconds.observe(since.elapsed().as_secs_f64());
        }
    }

    /// Makes sure that every relation in these pieces has a place, before
    /// anything is sent: looking at the catalog must not wait for locks that
    /// our own transaction holds.
    async fn admit(&mut self, pieces: &[Piece]) -> Result<(), ApplyError> {
        if self.relations.len() > RELATIONS_MAX {
            self.relations.clear();
        }
        for piece in pieces {
            for change in &piece.changes {
                for relation in relations(change) {
                    self.admit_relation(relation, piece.begin.commit_lsn.0).await?;
                }
            }
        }
        Ok(())
    }

    async fn admit_relation(&mut self, relation: &Arc<Relation>, at: Lsn) -> Result<(), ApplyError> {
        if self.relations.contains_key(&address(relation)) {
            return Ok(());
        }
        let Tools { target, state, .. } = &self.tools;
        let handling = match self.tables.admit(relation, at, (target, &mut self.source), state).await? {
            Admission::Filtered => Handling::Filtered,
            Admission::Apply { from, there } => {
                let table = relation.table.clone();
                let found = TargetTable::read(target, &there).await?;
                let mapping = match found {
                    Some(found) => Mapping::new(Arc::clone(relation), found),
                    None => Err(MappingError::NoTable(table.clone())),
                };
                let mapping = match mapping {
                    Ok(mapping) => mapping,
                    Err(error) => {
                        let error = self.source.explain(relation.id, error).await?;
                        return Err(ApplyError::Mapping { table, at, error });
                    }
                };
                Handling::Apply { renderer: Box::new(Renderer::new(mapping)), from }
            }
        };
        self.relations.insert(address(relation), (Arc::clone(relation), handling));
        Ok(())
    }
}

/// Whether the server refused what was sent, as opposed to a lost connection:
/// then a merged batch is worth replaying one transaction at a time.
fn is_refusal(error: &ApplyError) -> bool {
    matches!(
        error,
        ApplyError::Refused { .. }
            | ApplyError::RowCount { .. }
            | ApplyError::Deferred { .. }
            | ApplyError::Statement { .. }
    )
}

/// PostgreSQL counts microseconds since 2000-01-01, Prometheus seconds since 1970.
fn unix_seconds(postgres_us: i64) -> f64 {
    const UNIX_2000: f64 = 946_684_800.0;
    // Exact to the microsecond for centuries: 2^53 us are 285 years.
    postgres_us as f64 / 1e6 + UNIX_2000
}

/// The relations that a change is about.
fn relations(change: &Change) -> &[Arc<Relation>] {
    match &change.kind {
        ChangeKind::Truncate { relations, .. } => relations,
        _ => std::slice::from_ref(&change.relation),
    }
}

fn address(relation: &Arc<Relation>) -> usize {
    Arc::as_ptr(relation) as usize
}

/// Sends the changes of pieces, row by row.
struct Rows<'a> {
    relations: &'a mut HashMap<usize, (Arc<Relation>, Handling)>,
    source: &'a mut Source,
}

impl Rows<'_> {
    async fn send(
        &mut self,
        transaction: &mut Transaction<'_>,
        piece: &Piece,
        work: &mut Work,
    ) -> Result<(), ApplyError> {
        for change in &piece.changes {
            match &change.kind {
                ChangeKind::Truncate { .. } => self.truncate(transaction, piece, change, work).await?,
                _ => self.row(transaction, piece, change, work).await?,
            }
        }
        Ok(())
    }

    async fn row(
        &mut self,
        transaction: &mut Transaction<'_>,
        piece: &Piece,
        change: &Change,
        work: &mut Work,
    ) -> Result<(), ApplyError> {
        let filled = match &change.kind {
            ChangeKind::Insert { new } if self.is_applied(&change.relation, piece) => {
                self.fill(piece, &change.relation, new).await?
            }
            _ => Filled::new(),
        };
        let renderer = match self.relations.get_mut(&address(&change.relation)) {
            Some((_, Handling::Apply { renderer, from })) => {
                if from.is_some_and(|from| !from.is_before(piece.begin.commit_lsn)) {
                    return Ok(());
                }
                renderer
            }
            Some((_, Handling::Filtered)) => {
                work.filtered += 1;
                return Ok(());
            }
            None => return Err(ApplyError::OutOfStep(format!("{} was not admitted", change.relation.table))),
        };
        let place = place(change, Arc::clone(&renderer.mapping.label), piece);
        let statement = match renderer.render(&change.kind, &filled) {
            Ok(Some(statement)) => statement,
            Ok(None) => return Err(ApplyError::OutOfStep("a TRUNCATE among rows".to_owned())),
            Err(error) => return Err(ApplyError::Render { place: Box::new(place), error }),
        };
        match &change.kind {
            ChangeKind::Insert { .. } => work.inserts += 1,
            ChangeKind::Update { .. } => work.updates += 1,
            ChangeKind::Delete { .. } => work.deletes += 1,
            ChangeKind::Truncate { .. } => {}
        }
        transaction.row(&statement, place).await
    }

    /// Reads what an INSERT leaves out from the source.
    async fn fill(
        &mut self,
        piece: &Piece,
        relation: &Arc<Relation>,
        new: &crate::pgoutput::Tuple,
    ) -> Result<Filled, ApplyError> {
        let missing = reread::missing(new);
        if missing.is_empty() {
            return Ok(Filled::new());
        }
        let filled = reread::read(self.source.session().await?, relation, new, &missing).await?;
        filled.ok_or_else(|| {
            let key = relation.columns.iter().filter(|c| c.key == KeyColumn::Yes).map(|c| c.name.clone()).collect();
            let place = Place {
                label: Arc::new(Label { table: relation.table.clone(), key }),
                operation: "INSERT",
                commit: piece.begin.commit_lsn,
                xid: piece.begin.xid,
            };
            ApplyError::Gone { place: Box::new(place) }
        })
    }

    fn is_applied(&self, relation: &Arc<Relation>, piece: &Piece) -> bool {
        match self.relations.get(&address(relation)) {
            Some((_, Handling::Apply { from, .. })) => from.is_none_or(|from| from.is_before(piece.begin.commit_lsn)),
            _ => false,
        }
    }

    async fn truncate(
        &mut self,
        transaction: &mut Transaction<'_>,
        piece: &Piece,
        change: &Change,
        work: &mut Work,
    ) -> Result<(), ApplyError> {
        let ChangeKind::Truncate { relations, restart_identity, cascade } = &change.kind else { return Ok(()) };
        // The tables that CASCADE reached are listed by the source itself; to
        // say CASCADE here would empty tables that the source did not.
        debug!(cascaded = (*cascade == Cascade::Yes), "applying a TRUNCATE");
        let mut names = Vec::new();
        for relation in relations {
            match self.relations.get(&address(relation)) {
                Some((_, Handling::Apply { renderer, .. })) if self.is_applied(relation, piece) => {
                    names.push(renderer.mapping.target.only_sql());
                }
                Some((_, Handling::Filtered)) => work.filtered += 1,
                _ => {}
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        let restart = if *restart_identity == RestartIdentity::Yes { " RESTART IDENTITY" } else { "" };
        work.truncates += 1;
        let sql = format!("TRUNCATE {}{restart}", names.join(", "));
        let label = Arc::new(Label { table: change.relation.table.clone(), key: Vec::new() });
        transaction.truncate(&sql, place(change, label, piece)).await
    }
}

fn place(change: &Change, label: Arc<Label>, piece: &Piece) -> Place {
    let operation = match &change.kind {
        ChangeKind::Insert { .. } => "INSERT",
        ChangeKind::Update { .. } => "UPDATE",
        ChangeKind::Delete { .. } => "DELETE",
        ChangeKind::Truncate { .. } => "TRUNCATE",
    };
    Place { label, operation, commit: piece.begin.commit_lsn, xid: piece.begin.xid }
}
