//! The HTTP side: `/metrics`, `/livez`, `/readyz`, `/status` and a page for people.
//!
//! ```text
//! accept ─► connections (how many, how long) ─► guard (who may ask what) ─► pages
//! ```
//!
//! Invariant: no request reaches a database: what is served is what the
//! process published in the [`Hub`], so scraping costs nothing and `/livez`
//! never fails because a server is down. And none harms the migration: what
//! clients can take of the process is bounded, and nothing that they do ends it.

mod connections;
mod guard;
mod pages;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::status::StatusDocument;
use crate::config::{Listen, ListenAddress};
use crate::fault::Fault;
use connections::Limits;
use guard::Guard;

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for metrics: {source}; name a free one with --listen")]
    Bind {
        /// The address.
        address: ListenAddress,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl HttpError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            HttpError::Bind { .. } => Fault::Address,
        }
    }
}

/// Whether the migration streams with a lag that is under the bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// It does not, and why: `/readyz` tells everybody, so it says nothing
    /// about whose data are moved from where.
    NotReady(String),
}

/// What the process publishes and the server serves. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    /// The metrics of the process.
    pub metrics: Metrics,
    status: watch::Sender<Option<StatusDocument>>,
    readiness: watch::Sender<Readiness>,
}

impl Hub {
    /// A hub of a process that has published nothing and is not ready.
    pub fn new(metrics: Metrics) -> Self {
        let readiness = Readiness::NotReady("the process is starting".to_owned());
        Hub { metrics, status: watch::Sender::new(None), readiness: watch::Sender::new(readiness) }
    }

    /// Publishes the latest status document; about once a second is enough.
    pub fn publish_status(&self, document: StatusDocument) {
        self.status.send_replace(Some(document));
    }

    /// Publishes whether the migration is ready.
    pub fn publish_readiness(&self, readiness: Readiness) {
        self.readiness.send_replace(readiness);
    }

    /// The latest status document, if there is one yet.
    pub fn status(&self) -> Option<StatusDocument> {
        self.status.borrow().clone()
    }

    /// Whether the migration is ready.
    pub fn readiness(&self) -> Readiness {
        self.readiness.borrow().clone()
    }
}

/// A server that has its address, so that a port in use is known before work begins.
pub struct HttpServer {
    listener: TcpListener,
    guard: Guard,
    hub: Hub,
    limits: Limits,
}

impl HttpServer {
    /// Takes the address.
    ///
    /// # Errors
    /// [`HttpError::Bind`].
    pub async fn bind(listen: &Listen, hub: Hub) -> Result<Self, HttpError> {
        let address = listen.address();
        let listener = TcpListener::bind(address.to_string())
            .await
            .map_err(|source| HttpError::Bind { address: address.clone(), source })?;
        let guard = Guard::new(listen, whoami::hostname().ok());
        Ok(HttpServer { listener, guard, hub, limits: Limits::default() })
    }

    /// Serves until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let HttpServer { listener, guard, hub, limits } = self;
        let failures = hub.metrics.http_accept_failures.clone();
        let listener = &listener;
        let accept = || async move { listener.accept().await.map(|(stream, _)| stream) };
        connections::serve(accept, pages::router(hub, guard), limits, failures, shutdown).await;
    }
}

#[cfg(test)]
mod tests;
