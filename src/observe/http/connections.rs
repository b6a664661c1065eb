//! Connections: accepted, bounded in number and in time, one request each.
//!
//! Invariant: at most [`Limits::connections`] are open, none for longer than
//! [`Limits::whole`], and nothing that a client or the system does ends the
//! loop or makes it spin. No connection is kept for a second request: a scrape
//! every few seconds gains nothing from it, and an idle one would be one more
//! state to bound.

use std::collections::VecDeque;
use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::IntCounter;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Connections at once. Some scrapers, probes and people need a few of them for
/// milliseconds; each costs a descriptor, and a process mostly has 1,024, which
/// the migration needs as well.
const CONNECTIONS_MAX: usize = 64;

/// From the connection to the end of the request's head: seconds over the
/// slowest line.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// From the connection to the last byte of the answer: the status of twenty
/// thousand tables is about 4 MB, half a minute at 1 Mbit/s.
const WHOLE_LIMIT: Duration = Duration::from_secs(60);

/// Bytes of a request's head, which is all that is held of one. A browser with
/// its cookies sends a few thousand.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Before another try when none can be accepted: what is short (descriptors,
/// memory) is rarely there again sooner.
const PAUSE: Duration = Duration::from_secs(1);

/// How long requests under way may take once the process is asked to stop: a
/// scraper that does not read must not hold up a hand-over.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once.
    pub(super) connections: usize,
    /// Until a request's head is there.
    pub(super) head: Duration,
    /// Until a connection is over.
    pub(super) whole: Duration,
    /// Until accepting is tried again.
    pub(super) pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { connections: CONNECTIONS_MAX, head: HEAD_LIMIT, whole: WHOLE_LIMIT, pause: PAUSE }
    }
}

/// Serves what is accepted until `shutdown`, and what is under way then for a
/// moment more.
pub(super) async fn serve<F>(
    accept: impl Fn() -> F,
    pages: Router,
    limits: Limits,
    failures: IntCounter,
    shutdown: CancellationToken,
) where
    F: Future<Output = io::Result<TcpStream>>,
{
    let mut open = OpenConnections::default();
    let mut failed_in_a_row: u64 = 0;
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                if std::mem::take(&mut failed_in_a_row) > 0 {
                    info!("connections for metrics can be accepted again");
                }
                open.make_room(limits.connections).await;
                open.add(connection(stream, pages.clone(), limits, shutdown.clone()));
            }
            Err(error) => {
                failures.inc();
                failed_in_a_row += 1;
                if failed_in_a_row == 1 {
                    warn!(%error, "no connection for metrics can be accepted; the work goes on, and it is tried again");
                }
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = tokio::time::sleep(limits.pause) => {}
                }
            }
        }
    }
    open.finish().await;
}

/// The connections that are open.
#[derive(Default)]
struct OpenConnections {
    tasks: JoinSet<()>,
    oldest_first: VecDeque<AbortHandle>,
}

impl OpenConnections {
    fn add(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        self.oldest_first.push_back(self.tasks.spawn(connection));
    }

    /// Ends the oldest where there are too many for another one: that is one
    /// that waits for its client, as serving takes milliseconds. To refuse the
    /// new one instead would let whoever holds all of them shut the scraper out.
    async fn make_room(&mut self, most: usize) {
        while self.tasks.try_join_next().is_some() {}
        self.oldest_first.retain(|task| !task.is_finished());
        while self.tasks.len() >= most {
            if let Some(oldest) = self.oldest_first.pop_front() {
                debug!("too many connections for metrics, the oldest is closed");
                oldest.abort();
            }
            self.tasks.join_next().await;
        }
    }

    /// Waits for those that are soon done; the others end here.
    async fn finish(mut self) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(GRACE, all).await.is_err() {
            debug!("connections for metrics are closed that did not end");
        }
    }
}

/// One request and its answer. What goes wrong on the way is the client's affair.
async fn connection(stream: TcpStream, pages: Router, limits: Limits, shutdown: CancellationToken) {
    let served = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES_MAX)
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(pages));
    let mut served = pin!(served);
    let whole = async {
        tokio::select! {
            ended = served.as_mut() => return ended,
            () = shutdown.cancelled() => served.as_mut().graceful_shutdown(),
        }
        served.await
    };
    match tokio::time::timeout(limits.whole, whole).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection for metrics has failed"),
        Err(_) => debug!("a connection for metrics took too long"),
    }
}
