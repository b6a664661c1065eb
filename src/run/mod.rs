//! The commands that move data: `run` (the daemon) and `catchup`.
//!
//! ```text
//!            ┌────────────── lost connection: back off, then again ─────────────┐
//!            ▼                                                                  │
//! connect ─ lease ─ identity ─ copy (if not complete) ─ position ─ stream ──────┤
//!                                                                    │          │
//!                                        reached / asked / handed over    any other error: out
//! ```
//!
//! A lease that somebody else holds ends the first attempt. Later on it is a
//! lost connection like others: the holder is our own old session, which the
//! server has not given up yet, or a command that took over and will leave.

pub mod catchup;
mod coverage;
mod error;
mod extensions;
mod finish;
pub mod housekeeping;
mod lease;
mod looking;
mod publication;
pub mod receiver;
pub mod resync;
pub mod retry;
pub mod sequences;
pub mod stream;
pub mod sweeps;
pub mod worker;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use catchup::{CatchupReport, Finish, catchup};
pub use error::Error;

use crate::apply::applier::Totals;
use crate::catalog;
use crate::check;
use crate::config::{Provenance, Publications, Settings};
use crate::copy::{self, CopyContext};
use crate::fault::chain;
use crate::lsn::{DurableLsn, EndLsn};
use crate::observe::http::{HttpServer, Hub};
use crate::observe::metrics::Metrics;
use crate::observe::progress::Progress;
use crate::session::Session;
use crate::state::migration::{Migration, Phase, SourceIdentity};
use crate::state::position::Claim;
use crate::state::resume::{ResyncError, Standing, compare_slot, compare_source};
use crate::state::{State, StateError};
use crate::wire::Replication;
use lease::Leases;
pub(crate) use lease::{lease, wait_for_lease};
use retry::Retry;
use stream::{Reason, Start, StreamEnd, stream};

/// An attempt that lasted this long has worked, even if there was nothing to
/// apply: longer than a failure that repeats itself takes to come about again.
const STEADY: Duration = Duration::from_secs(60);

/// When `run` ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When it is asked to.
    Stopped,
    /// When it has caught up with the source as of the start of the stream.
    CaughtUp,
}

/// Whether this process has been entered as the one at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    /// It has: the lease was ours.
    Yes,
    /// It has not.
    No,
}

/// What the parts of one process share.
pub struct Context {
    /// The settings.
    pub settings: Settings,
    /// Counters.
    pub metrics: Metrics,
    /// Bars or lines.
    pub progress: Progress,
    /// What HTTP serves.
    pub hub: Hub,
    /// Cancelled by SIGINT or SIGTERM.
    pub shutdown: CancellationToken,
    /// For the state: where we run.
    pub hostname: String,
    /// For the state: which process we are.
    pub pid: i32,
    /// Set once both sides have been reached: the addresses are right.
    is_reached: AtomicBool,
    /// Set once the work has begun.
    is_established: AtomicBool,
    /// Set once this process has been entered as the one at work.
    entered: Mutex<Option<Leases>>,
    /// Net changes of a large transaction were refused once.
    pub careful: Arc<AtomicBool>,
    /// What earlier attempts of this process at the copy met.
    copy_memory: copy::Memory,
    /// What earlier attempts of this process applied.
    totals: Mutex<Totals>,
    /// Which row filters there are is said once.
    row_filters: std::sync::Once,
    /// Sessions for looks.
    idle_source: looking::Idle,
    idle_target: looking::Idle,
}

impl Context {
    /// The context of a command.
    ///
    /// # Errors
    /// When the metrics cannot be registered, which is a bug.
    pub fn new(settings: Settings, shutdown: CancellationToken) -> Result<Self, Error> {
        let metrics = Metrics::new().map_err(|error| Error::Bug(format!("cannot register the metrics: {error}")))?;
        Ok(Context {
            hub: Hub::new(metrics.clone()),
            settings,
            metrics,
            progress: Progress::auto(),
            shutdown,
            hostname: whoami::hostname().unwrap_or_else(|_| "unknown".to_owned()),
            pid: i32::try_from(std::process::id()).unwrap_or(0),
            is_reached: AtomicBool::new(false),
            is_established: AtomicBool::new(false),
            entered: Mutex::new(None),
            careful: Arc::default(),
            copy_memory: copy::Memory::default(),
            totals: Mutex::new(Totals::default()),
            row_filters: std::sync::Once::new(),
            idle_source: looking::Idle::default(),
            idle_target: looking::Idle::default(),
        })
    }

    /// Says that the work has begun: from now on lost connections are made again.
    pub fn established(&self) {
        self.is_established.store(true, Ordering::Relaxed);
    }

    /// Whether the work has begun since this was last asked.
    fn take_established(&self) -> bool {
        self.is_established.swap(false, Ordering::Relaxed)
    }

    /// What a copy works with.
    pub(crate) fn copy<'a>(&'a self, state: &'a State) -> CopyContext<'a> {
        CopyContext {
            settings: &self.settings,
            state,
            metrics: &self.metrics,
            progress: &self.progress,
            shutdown: &self.shutdown,
            memory: &self.copy_memory,
        }
    }

    fn begun(&self) -> Begun {
        if self.entered().is_some() { Begun::Yes } else { Begun::No }
    }

    fn entered(&self) -> Option<Leases> {
        self.entered.lock().ok().and_then(|entered| *entered)
    }

    /// Keeps a lease that this process got once more.
    fn leased_again(&self, claim: Claim) {
        if let Ok(mut entered) = self.entered.lock() {
            *entered = entered.map(|leases| leases.with(claim));
        }
    }

    /// Keeps what an attempt that failed has applied.
    pub fn add_totals(&self, totals: Totals) {
        if let Ok(mut sum) = self.totals.lock() {
            sum.transactions += totals.transactions;
            sum.rows += totals.rows;
        }
    }

    fn earlier_totals(&self) -> Totals {
        self.totals.lock().map(|totals| *totals).unwrap_or_default()
    }
}

/// `walferry run`.
///
/// # Errors
/// What ended the migration; [`Error::fault`] says what to do.
pub async fn daemon(settings: Settings, until: Until, shutdown: CancellationToken) -> Result<(), Error> {
    let ctx = Context::new(settings, shutdown)?;
    let serving = match &ctx.settings.listen {
        Some(listen) => Some(HttpServer::bind(listen, ctx.hub.clone()).await?),
        None => None,
    };
    let work = retrying(&ctx, || attempt(&ctx, until));
    let end = match serving {
        None => work.await,
        Some(server) => {
            let http_end = CancellationToken::new();
            let (end, ()) = tokio::join!(
                async {
                    let end = work.await;
                    http_end.cancel();
                    end
                },
                server.run(http_end.clone()),
            );
            end
        }
    };
    let end = match end {
        Err(error) if error.is_interruption() => {
            info!("stopped as asked");
            return Ok(());
        }
        end => end?,
    };
    match end.reason {
        Reason::Reached => info!(position = %end.position.lsn(), "caught up"),
        Reason::Asked => info!(position = %end.position.lsn(), "stopped as asked"),
        Reason::HandedOver { to } => info!(position = %end.position.lsn(), to, "handed over"),
    }
    Ok(())
}

/// Runs attempts until one ends well or fails for good, which is recorded.
pub(crate) async fn retrying<T, F>(ctx: &Context, attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let result = retried(ctx, attempt).await;
    if let Err(last) = &result
        && !last.is_interruption()
        && !last.fault().is_anothers()
    {
        record_stop(ctx, &chain(last)).await;
    }
    result
}

/// Runs attempts until one ends well or fails for good.
async fn retried<T, F>(ctx: &Context, mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut retry = Retry::new(ctx.settings.retry_for);
    loop {
        let (begun, applied) = (Instant::now(), ctx.earlier_totals().transactions);
        let copied = ctx.metrics.copied_tables.get();
        let error = match attempt().await {
            Ok(end) => return Ok(end),
            Err(error) => error,
        };
        if error.is_interruption() {
            return Err(error);
        }
        ctx.metrics.errors.with_label_values(&[error.fault().directive().as_str()]).inc();
        let has_worked = begun.elapsed() >= STEADY
            || ctx.earlier_totals().transactions > applied
            || ctx.metrics.copied_tables.get() > copied;
        if ctx.take_established() && has_worked {
            retry.begin_anew();
        } else if ctx.is_reached.load(Ordering::Relaxed) {
            retry.begin_if_new();
        }
        retry.wait(error, ctx).await?;
    }
}

/// One attempt of the daemon: everything from connecting on.
async fn attempt(ctx: &Context, until: Until) -> Result<StreamEnd, Error> {
    if ctx.begun() == Begun::No {
        refuse_what_check_finds(ctx).await?;
    }
    let (state, (replication, found)) = match tokio::try_join!(lease(ctx), identify(&ctx.settings)) {
        Ok(both) => both,
        Err(error) => return Err(before_it_began(ctx, error).await),
    };
    // Not kept idle for as long as a copy takes.
    drop(replication);
    if let Some(end) = lease::taken_over(ctx, &state).await? {
        return Ok(end);
    }
    enter(ctx, &state, &found).await?;
    let migration = prepare(ctx, &state, &found).await?;
    if ctx.begun() == Begun::Yes && migration.copied {
        // The target may be an earlier one by now.
        position(ctx, &state, &migration).await?;
    }
    begin(ctx, &state).await?;
    coverage::apply_filter(ctx, &state).await?;
    let migration = if migration.copied {
        migration
    } else {
        copy_rows(ctx, &state).await?;
        load(&state).await?
    };
    finish::reopen(ctx, &state, Finish::No).await?;
    let position = position(ctx, &state, &migration).await?;
    resync::take_in_published(ctx, &state, &migration).await?;
    coverage::at_start(ctx, &state).await?;
    state.set_phase(Phase::Stream).await?;
    ctx.show_phase(Phase::Stream);
    let until = match until {
        Until::Stopped => None,
        Until::CaughtUp => {
            resync::finish_between_runs(ctx, &state).await?;
            Some(stream::end_as_of_now(ctx).await?)
        }
    };
    let connections = stream::connect(&ctx.settings).await?;
    let start = Start { state: Arc::clone(&state), migration, position, until };
    let end = stream(ctx, start, connections).await?;
    let gaps = if end.reason == Reason::Reached { coverage::at_end(ctx, &state).await? } else { Vec::new() };
    let because = match &end.reason {
        Reason::Reached if !gaps.is_empty() => "caught up, but for tables that differ".to_owned(),
        Reason::Reached => "caught up".to_owned(),
        Reason::Asked => "asked to stop".to_owned(),
        Reason::HandedOver { to } => format!("handed over to {to}"),
    };
    leave(ctx, &state, &because).await?;
    if gaps.is_empty() { Ok(end) } else { Err(Error::NotCovered { gaps, left_out: None }) }
}

/// A first start asks what `check` asks, before it creates anything; so does one
/// that finds a state, but no list of tables in it yet.
async fn refuse_what_check_finds(ctx: &Context) -> Result<(), Error> {
    let connect = |info| Session::connect(info, &ctx.settings.name);
    let target = connect(&ctx.settings.target).await?;
    let standing = async {
        let is_installed = State::is_installed(&target).await?;
        if is_installed { Standing::read(&target, &ctx.settings.name).await } else { Ok(None) }
    };
    // What is in the way of reading it is in the way of a first start.
    let standing = standing.await.map_err(|error| Error::Refused(Box::new(error.into())))?;
    match standing {
        Some(standing) if standing.copied => Ok(()),
        Some(standing) if standing.is_set_up() => refuse(check::before_going_on(&standing, &target).await?),
        other => {
            if let Some(standing) = other {
                compare_source(&standing.source, &identify(&ctx.settings).await?.1)?;
            }
            let source = connect(&ctx.settings.source).await?;
            ctx.progress.note("looking at both ends as check does, before anything is created");
            tokio::select! {
                report = check::before_anything(&ctx.settings, &source, &target) => refuse(report?),
                () = ctx.shutdown.cancelled() => Err(Error::Interrupted),
            }
        }
    }
}

/// Refuses a start with what was found; what else is amiss with places is said.
fn refuse(report: check::Report) -> Result<(), Error> {
    for place in report.of_places().filter(|_| report.ok) {
        warn!("{place}");
    }
    match report.unreached {
        Some(side) => Err(Error::Unchecked { side, found: report.refusal() }),
        None if report.ok => Ok(()),
        None => Err(Error::CheckRefused(report.refusal())),
    }
}

/// What a server refuses to a migration that has no slot yet is what `check`
/// finds, as long as both ends let us in at all.
async fn before_it_began(ctx: &Context, error: Error) -> Error {
    let fault = error.fault();
    if ctx.begun() == Begun::Yes || fault.before_anything() == fault {
        return error;
    }
    let is_new = async {
        let connect = |info| Session::connect(info, &ctx.settings.name);
        let (_, target) = tokio::try_join!(connect(&ctx.settings.source), connect(&ctx.settings.target))?;
        if !State::is_installed(&target).await? {
            return Ok::<_, Error>(true);
        }
        let migration = State::open(target, &ctx.settings.name).await?.load().await?;
        Ok(migration.is_none_or(|migration| migration.consistent_point.is_none()))
    };
    match is_new.await {
        Ok(true) => Error::Refused(Box::new(error)),
        // The first error is the one to tell.
        Ok(false) | Err(_) => error,
    }
}

/// Leaves the migration to whoever comes next.
pub(crate) async fn leave(ctx: &Context, state: &State, because: &str) -> Result<(), Error> {
    state.set_stopped(because).await?;
    state.answer_requests(because).await?;
    ctx.show_phase(Phase::Stopped);
    state.release_lease().await?;
    Ok(())
}

/// Connects to the source and asks who it is.
pub(crate) async fn identify(settings: &Settings) -> Result<(Replication, SourceIdentity), Error> {
    Ok(SourceIdentity::ask(&settings.source, &settings.name).await?)
}

/// Enters the migration where it has not begun: `run` alone does, so that a name that was
/// mistyped elsewhere leaves nothing behind.
async fn enter(ctx: &Context, state: &State, found: &SourceIdentity) -> Result<(), Error> {
    if state.load().await?.is_none() {
        state.begin(found, &ctx.settings.slot, &ctx.settings.publications).await?;
        state.journal(&format!("began, from {}", ctx.settings.source)).await?;
    }
    Ok(())
}

/// Makes sure that the migration is the one that began here and has not ended.
pub(crate) async fn prepare(ctx: &Context, state: &State, found: &SourceIdentity) -> Result<Migration, Error> {
    let migration = load(state).await?;
    compare_source(&migration.source, found)?;
    same_objects(&ctx.settings, &migration)?;
    finish::require_not_ended(&migration, state).await?;
    Ok(migration)
}

/// The migration as it is with the lease held, if it has not ended: asked before anything
/// of it is taken away, as what was known before the lease was had may be long over.
async fn going_on(state: &State) -> Result<Migration, Error> {
    let migration = load(state).await?;
    finish::require_not_ended(&migration, state).await?;
    Ok(migration)
}

/// Enters this process as the one at work.
pub(crate) async fn begin(ctx: &Context, state: &State) -> Result<(), Error> {
    state.heartbeat(&ctx.hostname, ctx.pid, None).await?;
    if let Ok(mut entered) = ctx.entered.lock() {
        *entered = Some(Leases::entered(state.claim()));
    }
    ctx.is_reached.store(true, Ordering::Relaxed);
    Ok(())
}

/// The slot and the publications of a migration do not change under way.
pub(crate) fn same_objects(settings: &Settings, migration: &Migration) -> Result<(), Error> {
    let (slot, publications) = (&migration.slot, &migration.publications);
    let other = |recorded: String, asked: String, stays: String| {
        let name = &settings.name;
        Error::Usage(format!(
            "migration \"{name}\" uses {recorded}, not {asked}; leave {stays}, or take another --name"
        ))
    };
    if settings.slot.name() != slot.name() {
        let slots = |slot: &Provenance| format!("slot \"{}\"", slot.name());
        return Err(other(slots(slot), format!("\"{}\"", settings.slot.name()), "--slot as it was".to_owned()));
    }
    if !settings.publications.are(publications) {
        let stays = match publications {
            Publications::Ours(_) => "--publication out".to_owned(),
            Publications::Existing(_) => format!("it at --publication {}", in_shell(&publications.to_string())),
        };
        return Err(other(publications.noun(), settings.publications.to_string(), stays));
    }
    Ok(())
}

/// A value as a shell takes it.
fn in_shell(value: &str) -> String {
    let is_plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    if is_plain { value.to_owned() } else { format!("'{}'", value.replace('\'', "'\\''")) }
}

async fn load(state: &State) -> Result<Migration, Error> {
    Ok(state.load().await?.ok_or_else(|| StateError::NoMigration(state.name().to_owned()))?)
}

async fn copy_rows(ctx: &Context, state: &State) -> Result<EndLsn, Error> {
    ctx.established();
    ctx.show_phase(Phase::Copy);
    match copy::run(&ctx.copy(state)).await {
        Ok(point) => Ok(point),
        Err(error) => Err(coverage::or_named_of_copy(ctx, state, error.into()).await),
    }
}

/// Reads the position back and makes sure that the slot is good for it.
pub(crate) async fn position(ctx: &Context, state: &State, migration: &Migration) -> Result<DurableLsn, Error> {
    let slot = migration.slot.name();
    let source = ctx.source().await?;
    let (position, found) = tokio::try_join!(async { Ok::<_, Error>(state.position(slot).await?) }, async {
        Ok(catalog::slot::find(&source, slot).await?)
    })?;
    let Some(position) = position else { return Err(ResyncError::NoPosition(slot.to_owned()).into()) };
    compare_slot(slot, &migration.source, found, position.lsn())?;
    // Behind that: a source that was set back to before the migration has neither.
    publication::require_there(ctx, state, migration, &source).await?;
    source.done();
    Ok(position)
}

impl Context {
    /// Shows the phase in the metrics.
    pub(crate) fn show_phase(&self, phase: Phase) {
        for other in Phase::all() {
            self.metrics.phase.with_label_values(&[other.as_str()]).set(i64::from(other == phase));
        }
    }
}

/// Writes into the state why this process gives up, if the target can be reached.
async fn record_stop(ctx: &Context, because: &str) {
    let record = async {
        let session = Session::connect(&ctx.settings.target, &ctx.settings.name).await?;
        let state = State::open(session, &ctx.settings.name).await?;
        state.set_stopped(because).await?;
        Ok::<(), Error>(())
    };
    match tokio::time::timeout(Duration::from_secs(5), record).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "cannot record why the migration stopped"),
        Err(_) => tracing::debug!("cannot record why the migration stopped: no answer"),
    }
}
