//! The stream: where receiver, worker and applier meet.
//!
//! ```text
//! source                                                            target
//! socket ─ receiver ─ chunks ─ worker (decode, assemble) ─ batches ─ applier ─ COMMIT
//!   ▲                                                                   │
//!   └───────── standby status (own timer) ◄──── DurableLsn ◄────────────┘
//!                      beside: housekeeping (lease, requests, metrics), sequences,
//!                      large objects, tables that are copied anew (resync)
//! ```
//!
//! Each arrow is bounded. When one part ends, all end, and what is durable is
//! confirmed to the source last.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::housekeeping::{self, House, HouseError};
use super::publication;
use super::receiver::{self, Budget, CHUNKS_MAX, Heard, ReceiverError};
use super::resync::{self, Desk};
use super::worker::{self, WorkerError};
use super::{Context, Error, coverage, identify, sequences, sweeps};
use crate::apply::ApplyError;
use crate::apply::applier::{Applier, Ended, Tools, Totals};
use crate::apply::pipeline::Pipeline;
use crate::apply::replica_role;
use crate::apply::steering::{Asks, steering};
use crate::apply::tables::Share;
use crate::catalog;
use crate::config::Settings;
use crate::lsn::{DurableLsn, EndLsn};
use crate::observe::metrics::Metrics;
use crate::session::Session;
use crate::session::replica_role::ReplicaRole;
use crate::state::State;
use crate::state::migration::{Migration, SourceIdentity};
use crate::sweep::large_objects::hints;
use crate::wire::StatusFeed;
use crate::wire::WireError;
use crate::wire::{Messages, PgoutputOptions, Replication, Streaming};

/// The longest pause between two standby statuses; native replication's
/// default for `wal_receiver_status_interval`.
const STATUS_INTERVAL_MAX: Duration = Duration::from_secs(10);

/// While an end is awaited the source is asked this often how far it is.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

/// How long a batch under way may take to finish when the stream ends for
/// another reason: a large batch over a slow link.
const FINISH_BATCH: Duration = Duration::from_secs(60);

/// How long the source may take to receive our last words.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why the stream ended, and what it did.
#[derive(Clone, Debug)]
pub struct StreamEnd {
    /// Why.
    pub reason: Reason,
    /// Where the target stands.
    pub position: DurableLsn,
    /// What was applied.
    pub totals: Totals,
}

/// Why a stream ended without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has reached what was asked for.
    Reached,
    /// This process was asked to stop.
    Asked,
    /// Another command took over.
    HandedOver {
        /// Who.
        to: String,
    },
}

/// What a stream needs to begin.
pub struct Start {
    /// The state, with the lease held.
    pub state: Arc<State>,
    /// The migration.
    pub migration: Migration,
    /// Where the target stands.
    pub position: DurableLsn,
    /// Where to end; `None` to go on until asked to stop.
    pub until: Option<EndLsn>,
}

/// Streams until the end is reached, until asked to stop, or until an error.
///
/// # Errors
/// Whatever part failed first.
pub async fn stream(ctx: &Context, start: Start, connections: Connections) -> Result<StreamEnd, Error> {
    let Start { state, migration, position, until } = start;
    let Connections { interval, found: _, replication, target } = connections;
    let (steering, asks) = steering();
    let slot = migration.slot.name();
    let (hints, named) = hints::channel();
    let tools = Tools { hints: Some(hints), ..target.tools(&state, &ctx.metrics, &ctx.careful, (Share::Main, slot)) };
    let flow = Flow {
        replication,
        slot,
        publications: migration.publications.names(),
        interval,
        tools,
        position,
        until,
        asks,
    };
    let (durable, watched) = watch::channel(position);
    let heard = Heard::default();
    let stop = ctx.shutdown.child_token();
    let house = House { ctx, state: &state, migration: &migration, heard: &heard, durable: watched, stop: &stop };
    let desk = Desk { ctx, state: &state, migration: &migration, steering };
    let beside = async {
        tokio::select! {
            kept = housekeeping::run(house) => Event::House(kept),
            error = resync::serve(desk, until) => Event::Beside(error),
            never = sequences::run(ctx, &state) => match never {},
            never = coverage::watch(ctx) => match never {},
            error = sweeps::large_objects(ctx, &state, named) => Event::House(Err(error)),
        }
    };
    ctx.established();
    match flow.run(ctx, &heard, &durable, &stop, beside).await {
        Err(error) => {
            let error = publication::or_gone(ctx, &state, &migration, error).await;
            let error = coverage::or_named(ctx, &state, error).await;
            Err(coverage::or_altered(ctx, &state, error).await)
        }
        ended => ended,
    }
}

/// A slot's changes on their way to the target.
pub(super) struct Flow<'a> {
    pub(super) replication: Replication,
    pub(super) slot: &'a str,
    pub(super) publications: &'a [String],
    /// Between two standby statuses.
    pub(super) interval: Duration,
    pub(super) tools: Tools,
    /// Where the target stands, read back.
    pub(super) position: DurableLsn,
    pub(super) until: Option<EndLsn>,
    pub(super) asks: Asks,
}

impl Flow<'_> {
    /// Runs until one of its parts ends, or what goes on beside it.
    pub(super) async fn run(
        self,
        ctx: &Context,
        heard: &Heard,
        durable: &watch::Sender<DurableLsn>,
        stop: &CancellationToken,
        beside: impl Future<Output = Event>,
    ) -> Result<StreamEnd, Error> {
        let Flow { replication, slot, publications, interval, tools, position, until, asks } = self;
        let settings = &ctx.settings;
        let share = tools.share;
        let options = options(publications, replication.server_version());
        let ((reader, writer), mut applier) =
            tokio::try_join!(async { Ok::<_, Error>(replication.start(slot, position, &options).await?) }, async {
                Ok(Applier::new(tools, settings, position, until, asks).await?)
            },)?;
        let feed = StatusFeed::spawn(writer, position, interval);
        info!(from = %position.lsn(), slot, "streaming");

        let bounds = settings.batch;
        let budget = Budget::new(settings.queue_bytes.max(2 * bounds.bytes));
        let (chunks, queue) = crossbeam_channel::bounded(CHUNKS_MAX);
        // One batch waits while one is applied: the worker gathers the next.
        let (output, mut batches) = mpsc::channel(1);
        let worker = worker::spawn(queue, output, position.end(), bounds, budget.most())?;
        let watched = durable.subscribe();
        let is_awaited = until.is_some() || share == Share::Joining;

        let event = {
            let applying = applier.run(&mut batches, durable, stop);
            tokio::pin!(applying);
            let event = tokio::select! {
                ended = &mut applying => Event::Applier(ended),
                received = receiver::run(reader, chunks, budget, &feed, heard) => Event::Receiver(received),
                error = confirm(watched.clone(), &feed) => Event::Status(error),
                () = ask(&feed, is_awaited) => Event::Never,
                event = beside => event,
            };
            if !matches!(event, Event::Applier(_)) {
                // A batch under way is finished; whoever comes next goes on behind it.
                stop.cancel();
                match tokio::time::timeout(FINISH_BATCH, applying).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => debug!(%error, "the last batch was not applied"),
                    Err(_) => debug!("the last batch did not end in time"),
                }
            }
            event
        };
        drop(batches);
        let outcome = settle(event, worker, ctx).await;
        let position = *watched.borrow();
        match outcome {
            Ok(reason) => {
                farewell(feed, position).await;
                Ok(StreamEnd { reason, position, totals: applier.totals() })
            }
            Err(error) => {
                if share == Share::Main {
                    ctx.add_totals(applier.totals());
                }
                Err(error)
            }
        }
    }
}

/// What a stream talks through, prepared.
pub struct Connections {
    /// Who the source is.
    pub found: SourceIdentity,
    interval: Duration,
    replication: Replication,
    target: TargetSide,
}

/// The target's side of a stream.
pub(super) struct TargetSide {
    pipeline: Pipeline,
    role: ReplicaRole,
    session: Session,
}

impl TargetSide {
    /// Connects: for the changes, and for the catalog.
    pub(super) async fn connect(settings: &Settings) -> Result<Self, Error> {
        let (target, name) = (&settings.target, settings.name.as_str());
        let applying = async {
            let mut pipeline = Pipeline::connect(target, name).await?;
            pipeline.pin_plans().await?;
            let role = replica_role::probe(&mut pipeline).await?;
            Ok((pipeline, role))
        };
        let ((pipeline, role), session) =
            tokio::try_join!(applying, async { Ok::<_, Error>(Session::connect(target, name).await?) })?;
        Ok(TargetSide { pipeline, role, session })
    }

    pub(super) fn tools(
        self,
        state: &Arc<State>,
        metrics: &Metrics,
        careful: &Arc<AtomicBool>,
        (share, slot): (Share, &str),
    ) -> Tools {
        let TargetSide { pipeline, role, session } = self;
        let (state, metrics, careful) = (Arc::clone(state), metrics.clone(), Arc::clone(careful));
        Tools { pipeline, role, target: session, state, metrics, careful, share, slot: slot.to_owned(), hints: None }
    }
}

/// Connects to both sides, all at once: a connection takes several round trips.
///
/// # Errors
/// When one of them is refused or lost.
pub async fn connect(settings: &Settings) -> Result<Connections, Error> {
    let interval = async { status_interval(&Session::connect(&settings.source, &settings.name).await?).await };
    let (interval, (replication, found), target) =
        tokio::try_join!(interval, identify(settings), TargetSide::connect(settings))?;
    Ok(Connections { found, interval, replication, target })
}

/// What ended first.
pub(super) enum Event {
    Applier(Result<Ended, ApplyError>),
    Receiver(Result<(), ReceiverError>),
    Status(WireError),
    House(Result<Option<String>, HouseError>),
    /// What goes on beside the stream cannot go on.
    Beside(Error),
    Never,
}

/// Turns what ended first into the reason or the error of the whole.
async fn settle(event: Event, worker: JoinHandle<Result<(), WorkerError>>, ctx: &Context) -> Result<Reason, Error> {
    match event {
        Event::Applier(Ok(Ended::Reached)) => Ok(Reason::Reached),
        Event::Applier(Ok(Ended::Stopped)) if ctx.shutdown.is_cancelled() => Ok(Reason::Asked),
        // Its input ended: the worker knows why.
        Event::Applier(Ok(Ended::Stopped)) => match join(worker).await {
            Err(error) => Err(error.into()),
            Ok(()) => Err(Error::StreamEnded),
        },
        Event::Applier(Err(error)) => Err(error.into()),
        Event::Receiver(Ok(())) => match join(worker).await {
            Err(error) => Err(error.into()),
            Ok(()) => Err(Error::StreamEnded),
        },
        Event::Receiver(Err(error)) => Err(error.into()),
        Event::Status(error) => Err(error.into()),
        Event::House(Err(error)) => Err(error.into()),
        Event::House(Ok(to)) => Ok(to.map_or(Reason::Asked, |to| Reason::HandedOver { to })),
        Event::Beside(error) => Err(error),
        Event::Never => Err(Error::StreamEnded),
    }
}

async fn join(worker: JoinHandle<Result<(), WorkerError>>) -> Result<(), WorkerError> {
    match tokio::task::spawn_blocking(move || worker.join()).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) | Err(_) => Err(WorkerError::Panicked),
    }
}

/// Passes every durable position on to the standby status.
async fn confirm(mut durable: watch::Receiver<DurableLsn>, feed: &StatusFeed) -> WireError {
    loop {
        tokio::select! {
            error = feed.failed() => return error,
            changed = durable.changed() => match changed {
                Ok(()) => feed.durable(*durable.borrow_and_update()),
                // The sender lives as long as this future's select.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// While an end is awaited, asks the source how far it is: without a question
/// it tells only when it has been quiet for half its timeout.
async fn ask(feed: &StatusFeed, is_awaited: bool) {
    let pause = if is_awaited { ASK_INTERVAL } else { STATUS_INTERVAL_MAX };
    loop {
        feed.request_reply();
        tokio::time::sleep(pause).await;
    }
}

/// Tells the source what is durable and that we leave.
async fn farewell(feed: StatusFeed, position: DurableLsn) {
    feed.durable(position);
    match tokio::time::timeout(FAREWELL, feed.finish()).await {
        Ok(Ok(())) => info!(position = %position.lsn(), "confirmed to the source"),
        // Not confirmed is not lost: the position is on the target.
        Ok(Err(error)) => debug!(%error, "the source did not take the last status"),
        Err(_) => debug!("the source did not take the last status in time"),
    }
}

fn options(publications: &[String], version: i32) -> PgoutputOptions {
    PgoutputOptions {
        // Transactions arrive whole, after their commit; the layouts of 1 and
        // 2 are the same without `streaming`.
        proto_version: if version >= 140_000 { 2 } else { 1 },
        publications: publications.to_vec(),
        messages: Messages::Include,
        streaming: Streaming::Off,
    }
}

/// A quarter of the source's wal_sender_timeout, at most ten seconds.
pub(super) async fn status_interval(source: &Session) -> Result<Duration, Error> {
    let name = "wal_sender_timeout";
    let timeout = catalog::settings::read(source, &[name]).await?.number(name);
    // The server's 0: it never loses its patience.
    let patience = timeout.and_then(|timeout| u64::try_from(timeout).ok()).filter(|timeout| *timeout > 0);
    Ok(patience
        .map_or(STATUS_INTERVAL_MAX, |timeout| Duration::from_millis((timeout / 4).max(100)).min(STATUS_INTERVAL_MAX)))
}

/// The end that `run --until caught-up` and `catchup` go to.
///
/// # Errors
/// When the source cannot be asked.
pub async fn end_as_of_now(ctx: &Context) -> Result<EndLsn, Error> {
    let source = ctx.source().await?;
    let end = catalog::wal::flush_to_end(&source).await?;
    source.done();
    Ok(EndLsn::of_wal(end))
}
