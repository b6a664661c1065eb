//! The stream: where receiver, worker and applier meet.
//!
//! ```text
//! source                                                            target
//! socket ─ receiver ─ chunks ─ worker (decode, assemble) ─ batches ─ applier ─ COMMIT
//!   ▲                                                                   │
//!   └───────── standby status (own timer) ◄──── DurableLsn ◄────────────┘
//!                      beside: housekeeping (lease, sweeps, requests, metrics)
//! ```
//!
//! Each arrow is bounded. When one part ends, all end, and what is durable is
//! confirmed to the source last.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{debug, info};

use super::housekeeping::{self, House, HouseError};
use super::receiver::{self, Budget, CHUNKS_MAX, Heard, ReceiverError};
use super::worker::{self, WorkerError};
use super::{Context, identify, resume};
use crate::apply::ApplyError;
use crate::apply::applier::{Applier, Ended, Tools, Totals};
use crate::apply::pipeline::Pipeline;
use crate::apply::replica_role::{self, ReplicaRole};
use crate::config::{Settings, Side};
use crate::exit::Error;
use crate::lsn::{DurableLsn, EndLsn};
use crate::session::{DbContext, Session};
use crate::state::State;
use crate::state::migration::{Migration, SourceIdentity};
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
    let settings = &ctx.settings;
    let Connections { interval, found: _, replication, pipeline, role, target } = connections;
    let options = options(&migration, replication.server_version());
    let slot = migration.slot.name();
    let tools = Tools {
        pipeline,
        role,
        target,
        state: Arc::clone(&state),
        metrics: ctx.metrics.clone(),
        careful: Arc::clone(&ctx.careful),
    };
    let ((reader, writer), mut applier) =
        tokio::try_join!(async { Ok::<_, Error>(replication.start(slot, position, &options).await?) }, async {
            Ok(Applier::new(tools, settings, position, until).await?)
        },)?;
    let feed = StatusFeed::spawn(writer, position, interval);
    info!(from = %position.lsn(), slot, "streaming");

    let bounds = settings.batch;
    let budget = Budget::new(settings.queue_bytes.max(2 * bounds.bytes));
    let (chunks, queue) = crossbeam_channel::bounded(CHUNKS_MAX);
    // One batch waits while one is applied: the worker gathers the next.
    let (output, mut batches) = mpsc::channel(1);
    let worker = worker::spawn(queue, output, EndLsn(position.lsn()), bounds, budget.most())?;

    let (durable, watched) = watch::channel(position);
    let stop = ctx.shutdown.child_token();
    let heard = Heard::default();
    let house =
        House { ctx, state: &state, migration: &migration, heard: &heard, durable: watched.clone(), stop: &stop };
    ctx.established();

    let event = {
        let applying = applier.run(&mut batches, &durable, &stop);
        tokio::pin!(applying);
        let event = tokio::select! {
            ended = &mut applying => Event::Applier(ended),
            received = receiver::run(reader, chunks, budget, &feed, &heard) => Event::Receiver(received),
            error = confirm(watched.clone(), &feed) => Event::Status(error),
            () = ask(&feed, until) => Event::Never,
            kept = housekeeping::run(house) => Event::House(kept),
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
            ctx.add_totals(applier.totals());
            Err(error)
        }
    }
}

/// What a stream talks through, prepared.
pub struct Connections {
    /// Who the source is.
    pub found: SourceIdentity,
    interval: Duration,
    replication: Replication,
    pipeline: Pipeline,
    role: ReplicaRole,
    target: Session,
}

/// Connects to both sides, all at once: a connection takes several round trips.
///
/// # Errors
/// When one of them is refused or lost.
pub async fn connect(settings: &Settings) -> Result<Connections, Error> {
    let (source, target, name) = (&settings.source, &settings.target, settings.name.as_str());
    let interval = async { status_interval(&Session::connect(source, name).await?).await };
    let applying = async {
        let mut pipeline = Pipeline::connect(target, name).await?;
        pipeline.pin_plans().await?;
        let role = replica_role::probe(&mut pipeline).await?;
        Ok((pipeline, role))
    };
    let (interval, (replication, found), (pipeline, role), target) =
        tokio::try_join!(interval, identify(settings), applying, async { Ok(Session::connect(target, name).await?) },)?;
    Ok(Connections { found, interval, replication, pipeline, role, target })
}

/// What ended first.
enum Event {
    Applier(Result<Ended, ApplyError>),
    Receiver(Result<(), ReceiverError>),
    Status(WireError),
    House(Result<Option<String>, HouseError>),
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
async fn ask(feed: &StatusFeed, until: Option<EndLsn>) {
    let pause = if until.is_some() { ASK_INTERVAL } else { STATUS_INTERVAL_MAX };
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

fn options(migration: &Migration, version: i32) -> PgoutputOptions {
    PgoutputOptions {
        // Transactions arrive whole, after their commit; the layouts of 1 and
        // 2 are the same without `streaming`.
        proto_version: if version >= 140_000 { 2 } else { 1 },
        publications: vec![migration.publication.name().to_owned()],
        messages: Messages::Include,
        streaming: Streaming::Off,
    }
}

/// A quarter of the source's wal_sender_timeout, at most ten seconds.
async fn status_interval(source: &Session) -> Result<Duration, Error> {
    let row = source
        .query_one("SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'", &[])
        .await
        .during(Side::Source, "read wal_sender_timeout")?;
    let timeout = u64::try_from(row.get::<_, i64>(0)).unwrap_or(0);
    if timeout == 0 {
        return Ok(STATUS_INTERVAL_MAX);
    }
    Ok(Duration::from_millis((timeout / 4).max(100)).min(STATUS_INTERVAL_MAX))
}

/// The end that `run --until caught-up` and `catchup` go to.
///
/// # Errors
/// When the source cannot be asked.
pub async fn end_as_of_now(ctx: &Context) -> Result<EndLsn, Error> {
    let source = Session::connect(&ctx.settings.source, &ctx.settings.name).await?;
    Ok(EndLsn(resume::source_end(&source).await?))
}
