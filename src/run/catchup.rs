//! `walferry catchup`: drain to the source's position as of now, make the
//! sequences and large objects exact, say what was done.
//!
//! A daemon that is at work is asked, through `walferry.control`, to finish
//! its batch and leave; the lease shows when it has.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::{Mutex, OnceCell};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::stream::{self, Reason, Start, end_as_of_now, stream};
use super::{
    Context, Error, begin, coverage, extensions, finish, leave, position, prepare, resync, retrying, wait_for_lease,
};
use crate::border::{indented, visible};
use crate::catalog::sequences::Owner;
use crate::config::Settings;
use crate::copy;
use crate::lsn::EndLsn;
use crate::membership::gap::{Cause, Gap};
use crate::schema::Leftover;
use crate::session::Session;
use crate::sql::{TableName, ident};
use crate::state::State;
use crate::state::migration::Phase;
use crate::state::position::Claim;
use crate::sweep::large_objects::{self, Crew, Ends, LargeObjectReport};
use crate::sweep::sequences::{Newly, SequenceCause, SequencePass, SequenceProblem, SequenceReport, SequenceSweep};
use crate::sweep::{SweepError, both};

/// How long a daemon may take to finish its batch and leave: a batch over a
/// slow link, or a part of a large transaction, and its COMMIT.
const HAND_OVER_WAIT: Duration = Duration::from_secs(120);

/// Whether deferred foreign keys, triggers and materialized views are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// They are.
    Yes,
    /// They stay held back.
    No,
}

/// What a catch-up did.
#[derive(Clone, Debug, Serialize)]
pub struct CatchupReport {
    /// The target is equal to the source up to here.
    pub end_lsn: String,
    /// Source transactions applied.
    pub transactions: u64,
    /// Row changes applied.
    pub rows: u64,
    /// Sequences compared and made exact.
    pub sequences: u64,
    /// Large objects compared and made exact.
    pub large_objects: u64,
    /// How long it took.
    pub seconds: f64,
    /// Deferred objects restored, with `--finish`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<u64>,
    /// Unlogged tables copied, with `--finish`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlogged_tables: Option<u64>,
    /// What only an administrator of the target can bring in, with `--finish`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub administrators: Option<Vec<Leftover>>,
}

impl fmt::Display for CatchupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "caught up to {} in {:.1} s: {} transactions with {} row changes applied, {} sequences and {} large objects exact",
            self.end_lsn, self.seconds, self.transactions, self.rows, self.sequences, self.large_objects
        )?;
        if let Some(restored) = self.restored {
            write!(f, ", {restored} deferred objects restored")?;
        }
        if let Some(tables @ 1..) = self.unlogged_tables {
            write!(f, ", {tables} unlogged tables copied")?;
        }
        for left in self.administrators.iter().flatten() {
            write!(
                f,
                "\nleft to an administrator of the target: {}: {}",
                visible(&left.object),
                indented(&left.sql, 2)
            )?;
        }
        Ok(())
    }
}

/// `walferry catchup`.
///
/// # Errors
/// What kept the target from becoming equal; [`Error::Interrupted`] when it
/// was asked to stop before that.
pub async fn catchup(settings: Settings, finish: Finish, shutdown: CancellationToken) -> Result<CatchupReport, Error> {
    let begun = Instant::now();
    let ctx = Context::new(settings, shutdown)?;
    // Fixed once: a lost connection must not move the goal.
    let goal = OnceCell::new();
    let ended = Mutex::new(None);
    let mut report = retrying(&ctx, || attempt(&ctx, (&goal, &ended), finish)).await?;
    let earlier = ctx.earlier_totals();
    report.transactions += earlier.transactions;
    report.rows += earlier.rows;
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// `ended` is the report of an end that only remains to be recorded: what it has
/// brought in must not be taken away again.
async fn attempt(
    ctx: &Context,
    (goal, ended): (&OnceCell<EndLsn>, &Mutex<Option<Complete>>),
    finish: Finish,
) -> Result<CatchupReport, Error> {
    let earlier = ended.lock().await.clone();
    if let Some(ended) = earlier {
        let state = open_state(ctx).await?;
        take_over(ctx, &state).await?;
        // Else another process has been at work since, and has taken away what acts on rows.
        if state.claim().follows(ended.claim) {
            // A crash of the target has emptied what is unlogged since.
            final_sequences(ctx, &state).await?;
            let differ = finish::unlogged_that_differ(ctx, &finish::copied_by_an_earlier_end(&state).await?).await?;
            return end_well(ctx, &state, Complete { differ, ..ended }).await;
        }
    }
    let set = || async {
        let until = end_as_of_now(ctx).await?;
        info!(until = %until.lsn(), "catching up");
        Ok::<_, Error>(until)
    };
    // All connections at once, and before a daemon is asked to leave: it shall
    // not do so for a catch-up that cannot reach the source.
    let (until, connections, state) =
        tokio::join!(goal.get_or_try_init(set), stream::connect(&ctx.settings), open_state(ctx));
    let (&until, connections, state) = (until?, connections?, state?);
    take_over(ctx, &state).await?;
    let answered = async { Ok(state.answer_requests("taken over").await?) };
    let (migration, ()) = tokio::try_join!(prepare(ctx, &state, &connections.found), answered)?;
    if !migration.copied {
        return Err(Error::NotCopied { name: ctx.settings.name.clone() });
    }
    coverage::apply_filter(ctx, &state).await?;
    let set_phase = async { Ok(state.set_phase(Phase::Stream).await?) };
    resync::take_in_published(ctx, &state, &migration).await?;
    let until = if resync::finish_between_runs(ctx, &state).await? {
        // These tables are as of now: the others are to be, too.
        end_as_of_now(ctx).await?.max(until)
    } else {
        until
    };
    let (from, (), ()) = tokio::try_join!(position(ctx, &state, &migration), begin(ctx, &state), set_phase)?;
    finish::reopen(ctx, &state, finish).await?;
    let start = Start { state: Arc::clone(&state), migration, position: from, until: Some(until) };
    let end = stream(ctx, start, connections).await?;
    require_reached(ctx, &state, end.reason).await?;
    ctx.add_totals(end.totals);
    let report = beside_the_stream(ctx, &state, finish).await?;
    let report = CatchupReport { end_lsn: end.position.lsn().to_string(), ..report };
    if finish == Finish::No {
        finish::say_what_waits(&state).await?;
        leave(ctx, &state, &format!("caught up to {}", report.end_lsn)).await?;
        return Ok(report);
    }
    let stay = finish::copied_by_an_earlier_end(&state).await?;
    // Before row security that is forced upon the owner is in force.
    let differ = finish::unlogged_that_differ(ctx, &stay).await?;
    let done = finish::finish(ctx, &state).await?;
    let (restored, unlogged_tables) = (Some(done.restored), Some(done.unlogged_tables));
    let administrators = Some(done.administrators);
    let report = CatchupReport { restored, unlogged_tables, administrators, ..report };
    let complete = Complete { report, differ, claim: state.claim() };
    *ended.lock().await = Some(complete.clone());
    end_well(ctx, &state, complete).await
}

/// What is in no stream: tables that the stream could not tell of are looked for, and
/// the last passes made. What both find is said at once; nothing is restored before
/// everything is there.
async fn beside_the_stream(ctx: &Context, state: &State, finish: Finish) -> Result<CatchupReport, Error> {
    let gaps = coverage::at_end(ctx, state).await?;
    // A gap may be about the names that they would take.
    if gaps.is_empty() {
        let source = ctx.source().await?;
        copy::unlogged::take_in(&ctx.copy(state), &source).await?;
        source.done();
    }
    let swept = match sweep(ctx, state).await {
        Err(error) if gaps.is_empty() || !error.is_remainder() => return Err(error.into()),
        swept => swept,
    };
    extensions::rows(ctx, state, finish).await?;
    if gaps.is_empty() {
        return Ok(swept?);
    }
    finish::say_what_waits(state).await?;
    leave(ctx, state, "caught up, but for tables that differ").await?;
    let left_out = swept.err().and_then(|error| beside(error, &gaps));
    Err(Error::NotCovered { gaps, left_out })
}

/// What is left beside these gaps: a column's own sequence comes with the column.
fn beside(error: SweepError, gaps: &[Gap]) -> Option<SweepError> {
    let SweepError::Sequences(problems) = error else { return Some(error) };
    let comes_with = |problem: &SequenceProblem, gap: &Gap| match (&problem.cause, &gap.cause) {
        (SequenceCause::Missing(_), Cause::Columns(columns)) => {
            let created = format!("CREATE SEQUENCE IF NOT EXISTS {} ", problem.sequence.sql());
            columns.iter().any(|sql| sql.contains(&created))
        }
        (SequenceCause::WithColumn(Owner { table, column }), Cause::Columns(columns)) => {
            let added = format!("ALTER TABLE {} ADD COLUMN {} ", table.sql(), ident(column));
            columns.iter().any(|sql| sql.contains(&added))
        }
        // Which column is which, of which name, is known once those are mended.
        (SequenceCause::OneSided { column, .. }, Cause::Columns(_) | Cause::Renamed { .. }) => {
            column.table == gap.table
        }
        _ => false,
    };
    let is_left = |problem: &SequenceProblem| !gaps.iter().any(|gap| comes_with(problem, gap));
    let left: Vec<SequenceProblem> = problems.into_iter().filter(is_left).collect();
    (!left.is_empty()).then_some(SweepError::Sequences(left))
}

/// An end at which everything is in.
#[derive(Clone, Debug)]
struct Complete {
    report: CatchupReport,
    /// Unlogged tables that an earlier end has copied, and that differ.
    differ: Vec<TableName>,
    /// What it had got with its lease.
    claim: Claim,
}

/// A stream that ended before its goal is left to whoever comes next.
async fn require_reached(ctx: &Context, state: &State, reason: Reason) -> Result<(), Error> {
    match reason {
        Reason::Reached => Ok(()),
        Reason::Asked => {
            leave(ctx, state, "a catch-up was interrupted").await?;
            Err(Error::Interrupted)
        }
        Reason::HandedOver { to } => {
            leave(ctx, state, &format!("handed over to {to}")).await?;
            Err(Error::TakenOver { by: to })
        }
    }
}

/// Records that everything is in, and leaves.
async fn end_well(ctx: &Context, state: &State, ended: Complete) -> Result<CatchupReport, Error> {
    let Complete { report, differ, .. } = ended;
    let rows = state.tables().await?;
    let unlike = "its rows are not those of the source; an earlier catchup --finish had copied them";
    let unlike = rows.iter().filter(|row| differ.contains(&row.table)).map(|row| (row.source_oid, unlike.to_owned()));
    state.record_problems(&unlike.collect::<Vec<_>>()).await?;
    state.set_finished().await?;
    leave(ctx, state, &format!("caught up to {}", report.end_lsn)).await?;
    if differ.is_empty() {
        return Ok(report);
    }
    Err(Error::UnloggedDiffer { name: ctx.settings.name.clone(), tables: differ })
}

async fn open_state(ctx: &Context) -> Result<Arc<State>, Error> {
    let session = Session::connect(&ctx.settings.target, &ctx.settings.name).await?;
    Ok(Arc::new(State::open(session, &ctx.settings.name).await?))
}

/// Takes the lease, asking a daemon that has it to hand over.
async fn take_over(ctx: &Context, state: &State) -> Result<(), Error> {
    if state.take_lease().await.is_ok() {
        return Ok(());
    }
    if state.is_leased().await? {
        let holder = state.load().await?.map_or_else(|| "the daemon".to_owned(), |migration| migration.holder());
        info!(holder, "asking for a hand-over");
        state.request_hand_over(&format!("catchup, process {} on {}", ctx.pid, ctx.hostname)).await?;
    }
    wait_for_lease(ctx, state, HAND_OVER_WAIT).await
}

/// The last passes: exact, the writes being stopped.
async fn sweep(ctx: &Context, state: &State) -> Result<CatchupReport, SweepError> {
    let (sequences, objects) = both(final_sequences(ctx, state).await, final_large_objects(ctx, state)).await?;
    Ok(CatchupReport {
        end_lsn: String::new(),
        transactions: 0,
        rows: 0,
        sequences: sequences.total,
        large_objects: objects.total,
        seconds: 0.0,
        restored: None,
        unlogged_tables: None,
        administrators: None,
    })
}

async fn final_sequences(ctx: &Context, state: &State) -> Result<SequenceReport, SweepError> {
    let kind = SequencePass::Final { margin: ctx.settings.sequence_margin };
    let report = SequenceSweep::connect(&ctx.settings, state).await?.pass(&ctx.settings, &ctx.metrics, kind).await?;
    Newly::default().log(&report);
    match ctx.settings.sequence_margin {
        0 => info!(total = report.total, changed = report.changed, "sequences are exact"),
        margin => {
            info!(total = report.total, changed = report.changed, margin, "sequences are exact, ahead by the margin")
        }
    }
    Ok(report)
}

async fn final_large_objects(ctx: &Context, state: &State) -> Result<LargeObjectReport, SweepError> {
    let source = Session::connect(&ctx.settings.source, &ctx.settings.name).await?;
    let target = Session::connect(&ctx.settings.target, &ctx.settings.name).await?;
    let crew = Crew::of(&ctx.settings);
    let ends = Ends { source: &source, target: &target, state, metrics: &ctx.metrics, crew };
    let report = large_objects::final_pass(ends).await?;
    info!(total = report.total, bytes = report.bytes, "large objects are exact");
    Ok(report)
}
