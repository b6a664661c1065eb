//! Steering the applier from beside: to stand still between two target
//! transactions, and to end at a point that is known only later.
//!
//! Invariant: while it stands still everything it has sent is committed or
//! rolled back, and what it applies next it looks up anew; so whoever holds it
//! may move tables from one stream to another.

use tokio::sync::{mpsc, oneshot};

use crate::lsn::{DurableLsn, EndLsn};

/// What the applier is asked for between two batches.
pub(super) enum Ask {
    /// To stand still until `released` ends.
    Hold {
        /// Told where it stands.
        standing: oneshot::Sender<DurableLsn>,
        /// Ends when it may go on.
        released: oneshot::Receiver<()>,
    },
    /// To end once it has reached this point.
    EndAt(EndLsn),
}

/// Where the applier hears what is asked.
pub struct Asks(pub(super) mpsc::Receiver<Ask>);

/// Asks an applier.
#[derive(Clone)]
pub struct Steering {
    asks: mpsc::Sender<Ask>,
}

/// An applier that stands still until this is dropped.
pub struct Held {
    /// Where it stands: every commit before is on the target, none behind is.
    pub at: DurableLsn,
    _release: oneshot::Sender<()>,
}

/// The two ends.
pub fn steering() -> (Steering, Asks) {
    let (sender, receiver) = mpsc::channel(1);
    (Steering { asks: sender }, Asks(receiver))
}

impl Steering {
    /// Waits until the applier stands still; `None` when it has ended.
    pub async fn hold(&self) -> Option<Held> {
        let (standing, stands) = oneshot::channel();
        let (release, released) = oneshot::channel();
        self.asks.send(Ask::Hold { standing, released }).await.ok()?;
        Some(Held { at: stands.await.ok()?, _release: release })
    }

    /// Has the applier end once it has reached `end`. One that has ended
    /// already is past caring.
    pub async fn end_at(&self, end: EndLsn) {
        let _has_ended = self.asks.send(Ask::EndAt(end)).await;
    }
}
