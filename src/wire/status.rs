//! The standby status, from a task and a timer of its own.
//!
//! ```text
//! waiting ─┬─ the position moved ──────── status ─┬─► waiting
//!          ├─ the server asked for one ── status ─┤
//!          ├─ we want a keepalive ─ status + ask ─┤
//!          └─ the interval is over ────── status ─┘
//! finish ──── status, CopyDone ──► ended          an error ──► failed
//! ```
//!
//! Invariants: nothing that the applier or the receiver does can hold a status
//! up; the position that is reported never goes backwards.
//!
//! Source: `send_feedback` in `src/backend/replication/logical/worker.c`; the
//! server's side is `WalSndCheckTimeOut` in `walsender.c`.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

use super::{Peer, RequestReply, StatusWriter, WireError};
use crate::failpoint;
use crate::lsn::DurableLsn;

/// How long the last status may take to be written: a server that has not read
/// for so long has stopped reading.
const LAST_STATUS: Duration = Duration::from_secs(10);

/// How the task ended, if it did.
#[derive(Debug)]
enum Outcome {
    Running,
    Finished,
    /// The error, until somebody takes it.
    Failed(Option<WireError>),
}

/// What the handle and the task share.
struct Shared {
    durable: watch::Sender<DurableLsn>,
    sent: watch::Sender<DurableLsn>,
    reply_now: Notify,
    request_reply: Notify,
    finish: Notify,
    ended: watch::Sender<bool>,
    outcome: Mutex<Outcome>,
}

impl Shared {
    fn set_outcome(&self, outcome: Outcome) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
        self.ended.send_replace(true);
    }

    fn take_error(&self) -> Option<WireError> {
        match &mut *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) {
            Outcome::Failed(error) => error.take(),
            Outcome::Running | Outcome::Finished => None,
        }
    }
}

/// The task that reports. Dropping it ends the task without a goodbye.
pub struct StatusFeed {
    shared: Arc<Shared>,
    peer: Peer,
    task: AbortOnDropHandle<()>,
}

impl StatusFeed {
    /// Starts reporting `first`, at least every `interval`, which must be well
    /// under half of the server's `wal_sender_timeout`.
    pub fn spawn(writer: StatusWriter, first: DurableLsn, interval: Duration) -> Self {
        let peer = writer.peer().clone();
        let shared = Arc::new(Shared {
            durable: watch::Sender::new(first),
            sent: watch::Sender::new(first),
            reply_now: Notify::new(),
            request_reply: Notify::new(),
            finish: Notify::new(),
            ended: watch::Sender::new(false),
            outcome: Mutex::new(Outcome::Running),
        });
        let theirs = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut timer = tokio::time::interval(interval);
            // After a stall one status says it all.
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let outcome = match report(writer, &theirs, timer).await {
                Ok(()) => Outcome::Finished,
                Err(error) => Outcome::Failed(Some(error)),
            };
            theirs.set_outcome(outcome);
        });
        StatusFeed { shared, peer, task: AbortOnDropHandle::new(task) }
    }

    /// The target has committed up to here; the source learns it soon. A
    /// position that is behind is ignored.
    pub fn durable(&self, position: DurableLsn) {
        self.shared.durable.send_if_modified(|current| {
            let ahead = position > *current;
            if ahead {
                *current = position;
            }
            ahead
        });
    }

    /// The server asked for a status.
    pub fn reply_now(&self) {
        self.shared.reply_now.notify_one();
    }

    /// Asks the server for a keepalive, to learn how far it has come.
    pub fn request_reply(&self) {
        self.shared.request_reply.notify_one();
    }

    /// What was reported last; `first` until then.
    pub fn sent(&self) -> DurableLsn {
        *self.shared.sent.borrow()
    }

    /// Waits until the task has failed, and says why. Pending while it works.
    /// Cancel safe. The error is given once.
    pub async fn failed(&self) -> WireError {
        let mut ended = self.shared.ended.subscribe();
        // The sender lives in `self`.
        if ended.wait_for(|ended| *ended).await.is_ok()
            && let Some(error) = self.shared.take_error()
        {
            return error;
        }
        std::future::pending().await
    }

    /// Reports for the last time and ends our direction of the stream. The
    /// reader must be driven on until `Done`.
    ///
    /// # Errors
    /// What the task failed with, now or before; `Io` when the server no longer
    /// reads.
    pub async fn finish(self) -> Result<(), WireError> {
        self.shared.finish.notify_one();
        let Ok(joined) = tokio::time::timeout(LAST_STATUS, self.task).await else {
            let source = io::Error::new(io::ErrorKind::TimedOut, "the last status could not be written");
            return Err(WireError::Io { peer: self.peer, source });
        };
        // A panic of the task leaves the outcome at Running.
        let closed = WireError::Closed { peer: self.peer };
        let outcome = std::mem::replace(
            &mut *self.shared.outcome.lock().unwrap_or_else(PoisonError::into_inner),
            Outcome::Running,
        );
        match outcome {
            Outcome::Finished if joined.is_ok() => Ok(()),
            Outcome::Failed(Some(error)) => Err(error),
            _ => Err(closed),
        }
    }
}

/// The task: reports until it is told to finish.
async fn report(mut writer: StatusWriter, shared: &Shared, mut timer: Interval) -> Result<(), WireError> {
    let mut durable = shared.durable.subscribe();
    loop {
        let reply = tokio::select! {
            biased;
            () = shared.finish.notified() => break,
            () = shared.reply_now.notified() => RequestReply::No,
            () = shared.request_reply.notified() => RequestReply::Yes,
            // The sender is in `shared`: an error cannot be.
            _ = durable.changed() => RequestReply::No,
            _ = timer.tick() => RequestReply::No,
        };
        failpoint::hit("status");
        let position = *durable.borrow_and_update();
        writer.send(position, reply).await?;
        shared.sent.send_replace(position);
        timer.reset();
    }
    let position = *durable.borrow_and_update();
    writer.finish(position).await?;
    shared.sent.send_replace(position);
    Ok(())
}
