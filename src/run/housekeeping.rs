//! Beside the stream: signs of life, requests from other commands, the slot's
//! figures, the status document.
//!
//! Invariant: nothing here touches rows. What the source is only looked at for
//! never ends the stream: a session for figures that is refused or lost, and a
//! query that is refused or does not end, is logged, counted and tried again.
//! The loss of the lease's session does end it.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::Context;
use super::receiver::Heard;
use crate::catalog;
use crate::config::ConnInfo;
use crate::fault::{Fault, chain};
use crate::lsn::{DurableLsn, Lsn};
use crate::observe::http::Readiness;
use crate::observe::status::{self, StatusDocument, StatusError};
use crate::session::Session;
use crate::state::migration::Migration;
use crate::state::tables::TableState;
use crate::state::{State, StateError};
use crate::wire::WireError;

/// How often requests are looked for: what a command waits at most for us.
const REQUEST_INTERVAL: Duration = Duration::from_millis(250);

/// How often the figures are renewed.
const FIGURES_INTERVAL: Duration = Duration::from_secs(2);

/// How long a look at the source may take: far longer than its few queries.
const LOOK_LIMIT: Duration = Duration::from_secs(20);

/// A lag up to one WAL segment counts as ready: less than a busy source writes
/// in a second or two, more than an idle one ever does.
const READY_LAG_BYTES: i64 = 16 << 20;

/// Why the housekeeping ended the stream.
#[derive(Debug, thiserror::Error)]
pub enum HouseError {
    /// The state, and with it the lease, is out of reach.
    #[error(transparent)]
    State(#[from] StateError),
}

impl HouseError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            HouseError::State(error) => error.fault(),
        }
    }
}

/// What is kept.
pub struct House<'a> {
    /// The process.
    pub ctx: &'a Context,
    /// The state, on the session that holds the lease.
    pub state: &'a State,
    /// The migration.
    pub migration: &'a Migration,
    /// How far the source is.
    pub heard: &'a Heard,
    /// How far the target is.
    pub durable: watch::Receiver<DurableLsn>,
    /// Cancelled to stop the applier between two batches.
    pub stop: &'a CancellationToken,
}

/// Keeps house until another command asks for a hand-over (its name is
/// returned once the applier may stop), or for ever.
///
/// # Errors
/// When the lease's session is lost.
pub async fn run(house: House<'_>) -> Result<Option<String>, HouseError> {
    // A look may wait for a source that stands; signs of life and requests do not wait for it.
    tokio::select! {
        asked = keep(&house) => asked,
        never = look(&house) => match never {},
    }
}

/// Gives signs of life, until another command asks for a hand-over.
async fn keep(house: &House<'_>) -> Result<Option<String>, HouseError> {
    let mut seen_at: Option<Instant> = None;
    loop {
        if let Some(request) = house.state.pending_hand_over().await? {
            info!(by = %request.requested_by, "asked to hand over");
            return Ok(Some(request.requested_by));
        }
        if seen_at.is_none_or(|seen| seen.elapsed() >= FIGURES_INTERVAL) {
            seen_at = Some(Instant::now());
            house.state.heartbeat(&house.ctx.hostname, house.ctx.pid, house.heard.wal_end()).await?;
        }
        rest(house, REQUEST_INTERVAL).await;
    }
}

/// Renews the figures.
async fn look(house: &House<'_>) -> Infallible {
    let mut looks = Looks::default();
    loop {
        looks.take(house).await;
        rest(house, FIGURES_INTERVAL).await;
    }
}

/// Waits; for ever once the applier is to stop.
async fn rest(house: &House<'_>, interval: Duration) {
    tokio::select! {
        () = house.stop.cancelled() => std::future::pending().await,
        () = tokio::time::sleep(interval) => {}
    }
}

/// Whether the last look at the source told us something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sight {
    #[default]
    Clear,
    /// It did not, and it has been said.
    Lost,
}

/// Looks at the source, for figures only.
#[derive(Default)]
struct Looks {
    session: Option<Session>,
    sight: Sight,
}

impl Looks {
    /// Renews metrics and the status document, as far as they can be had.
    async fn take(&mut self, house: &House<'_>) {
        let metrics = &house.ctx.metrics;
        let why = match tokio::time::timeout(LOOK_LIMIT, self.look(house)).await {
            Ok(Ok(())) => {
                if std::mem::take(&mut self.sight) == Sight::Lost {
                    info!("the source's figures can be read again");
                }
                return;
            }
            Ok(Err(error)) => chain(&error),
            Err(_) => {
                self.session = None;
                format!("no answer within {} s", LOOK_LIMIT.as_secs())
            }
        };
        metrics.look_failures.inc();
        if std::mem::replace(&mut self.sight, Sight::Lost) == Sight::Lost {
            debug!(why, "the figures cannot be read; trying again");
        } else {
            warn!(why, "the figures cannot be read; the stream goes on, and they are tried again");
        }
        // As far as the stream itself has heard; nothing is said about what nobody knows.
        if let Some(end) = house.heard.wal_end() {
            show_lag(house, end);
        }
    }

    async fn look(&mut self, house: &House<'_>) -> Result<(), StatusError> {
        let ctx = house.ctx;
        let source = match kept(&mut self.session, &ctx.settings.source, ctx).await {
            Ok(source) => source,
            Err(error) => {
                show(ctx, status::collect_with(None, house.state).await?);
                return Err(error.into());
            }
        };
        show(ctx, status::collect_with(Some(source), house.state).await?);
        let name = house.migration.slot.name();
        let (slot, end) = tokio::try_join!(catalog::slot::find(source, name), catalog::wal::end(source))?;
        match slot {
            Some(slot) => {
                let label = [name];
                ctx.metrics.slot_retained_bytes.with_label_values(&label).set(slot.retained_bytes(end).unwrap_or(0));
                ctx.metrics.slot_safe_wal_bytes.with_label_values(&label).set(slot.safe_wal_bytes.unwrap_or(-1));
                show_lag(house, end);
            }
            None => warn!(slot = name, "the slot is gone"),
        }
        Ok(())
    }
}

/// The session that is kept, or a new one when it is lost.
async fn kept<'s>(place: &'s mut Option<Session>, info: &ConnInfo, ctx: &Context) -> Result<&'s Session, WireError> {
    let session = match place.take() {
        Some(session) if !session.is_closed() => session,
        _ => Session::connect(info, &ctx.settings.name).await?,
    };
    Ok(place.insert(session))
}

/// Publishes a status document.
fn show(ctx: &Context, document: StatusDocument) {
    ctx.metrics.apply_lag_seconds.set(document.lag_seconds.unwrap_or(0.0));
    for state in TableState::streamed() {
        let count = document.tables.iter().filter(|table| table.state == state).count();
        ctx.metrics.tables.with_label_values(&[state.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    ctx.hub.publish_status(document);
}

/// Publishes how far the stream is behind the end of the source's WAL.
fn show_lag(house: &House<'_>, end: Lsn) {
    let metrics = &house.ctx.metrics;
    let lag = |from: Lsn| i64::try_from(end.bytes_since(from)).unwrap_or(i64::MAX);
    let durable = house.durable.borrow().lsn();
    // Nothing heard yet: the stream begins at the position.
    metrics.receive_lag_bytes.set(lag(house.heard.wal_end().unwrap_or(durable)));
    let behind = lag(durable);
    metrics.apply_lag_bytes.set(behind);
    house.ctx.hub.publish_readiness(readiness(behind));
}

fn readiness(lag_bytes: i64) -> Readiness {
    if lag_bytes <= READY_LAG_BYTES {
        Readiness::Ready
    } else {
        Readiness::NotReady(format!("streaming, {lag_bytes} bytes behind the source"))
    }
}
