//! The HTTP side: `/metrics`, `/livez`, `/readyz`, `/status` and a page for people.
//!
//! Invariant: no request reaches a database: what is served is what the
//! process published in the [`Hub`], so scraping costs nothing and `/livez`
//! never fails because a server is down.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, TEXT_FORMAT, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::status::StatusDocument;
use crate::border::{printable, visible};
use crate::fault::Fault;

/// How long requests under way may take once the process is asked to stop: a
/// scraper that does not read must not hold up a hand-over.
const GRACE: Duration = Duration::from_secs(2);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for metrics: {source}; name a free one with --listen")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The listener failed later.
    #[error("cannot serve metrics on {address}: {source}")]
    Serve {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl HttpError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            HttpError::Bind { .. } | HttpError::Serve { .. } => Fault::Address,
        }
    }
}

/// Whether the migration streams with a lag that is under the bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It does.
    Ready,
    /// It does not, and why.
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

/// Serves until `shutdown`.
///
/// # Errors
/// [`HttpError`] when the address cannot be listened on, or no longer.
pub async fn serve(listen: SocketAddr, hub: Hub, shutdown: CancellationToken) -> Result<(), HttpError> {
    let listener = bind(listen).await?;
    serve_on(listener, hub, shutdown).await
}

/// Takes the address, so that a port in use is known before work begins.
///
/// # Errors
/// [`HttpError::Bind`].
pub async fn bind(listen: SocketAddr) -> Result<TcpListener, HttpError> {
    TcpListener::bind(listen).await.map_err(|source| HttpError::Bind { address: listen, source })
}

/// Serves on a listener until `shutdown`.
///
/// # Errors
/// [`HttpError::Serve`].
pub async fn serve_on(listener: TcpListener, hub: Hub, shutdown: CancellationToken) -> Result<(), HttpError> {
    let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let server = axum::serve(listener, router(hub)).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let deadline = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = async { server.await } => served.map_err(|source| HttpError::Serve { address, source }),
        () = deadline => Ok(()),
    }
}

fn router(hub: Hub) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .with_state(hub)
}

async fn metrics(State(hub): State<Hub>) -> Response {
    hub.metrics.observe_process();
    let mut text = Vec::new();
    match TextEncoder::new().encode(&hub.metrics.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the metrics: {error}\n")).into_response()
        }
    }
}

async fn readyz(State(hub): State<Hub>) -> Response {
    match hub.readiness() {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::NotReady(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", visible(&reason))).into_response()
        }
    }
}

async fn status(State(hub): State<Hub>) -> Response {
    match hub.status() {
        Some(document) => axum::Json(document).into_response(),
        None => {
            let body = serde_json::json!({ "error": "no status has been collected yet" });
            (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response()
        }
    }
}

async fn page(State(hub): State<Hub>) -> Html<String> {
    let status = hub.status().map_or_else(|| "no status has been collected yet".to_owned(), |d| d.to_string());
    let readiness = match hub.readiness() {
        Readiness::Ready => "ready".to_owned(),
        Readiness::NotReady(reason) => format!("not ready: {reason}"),
    };
    Html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"2\">\
         <title>walferry</title><style>body{{font:15px/1.5 sans-serif;margin:2em auto;max-width:60em;padding:0 1em}}\
         pre{{font:14px/1.5 monospace;overflow-x:auto}}</style></head><body><h1>walferry</h1><p>{}</p><pre>{}</pre>\
         <p><a href=\"/status\">status</a> <a href=\"/metrics\">metrics</a> <a href=\"/readyz\">readyz</a> \
         <a href=\"/livez\">livez</a></p></body></html>\n",
        escape(&readiness),
        escape(&status)
    ))
}

/// Names of tables and words of servers are text, not markup.
fn escape(text: &str) -> String {
    printable(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::status::{Daemon, Sequences};
    use super::*;
    use crate::state::migration::Phase;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: walferry\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn document() -> StatusDocument {
        StatusDocument {
            name: "walferry".to_owned(),
            phase: Phase::Stream,
            position: Some("0/16B3748".to_owned()),
            source_lsn: Some("0/16B3748".to_owned()),
            lag_bytes: Some(0),
            lag_seconds: Some(0.0),
            daemon: Daemon { alive: true, host: Some("<host>".to_owned()), pid: Some(1) },
            slot: None,
            tables: Vec::new(),
            sequences: Sequences { total: 0, behind: 0, last_pass: None, problems: Vec::new() },
            without_stream: Vec::new(),
            large_objects: crate::state::large_objects::LargeObjectsRow::default().into(),
            stopped_because: None,
        }
    }

    #[tokio::test]
    async fn every_page_answers_what_was_published() {
        let hub = Hub::new(Metrics::new().unwrap());
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve_on(listener, hub.clone(), shutdown.clone()));

        assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503 "));
        assert!(get(address, "/status").await.starts_with("HTTP/1.1 503 "));
        hub.publish_readiness(Readiness::NotReady("lag 70 s".to_owned()));
        assert!(get(address, "/readyz").await.ends_with("not ready: lag 70 s\n"));
        hub.publish_readiness(Readiness::Ready);
        hub.publish_status(document());
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200 "));
        let status = get(address, "/status").await;
        let (_, body) = status.split_once("\r\n\r\n").unwrap();
        assert_eq!(serde_json::from_str::<StatusDocument>(body).unwrap(), document());
        let metrics = get(address, "/metrics").await.to_lowercase();
        assert!(metrics.contains("content-type: text/plain; version=0.0.4\r\n"), "{metrics}");
        assert!(metrics.contains(r#"walferry_build_info{version=""#), "{metrics}");
        let page = get(address, "/").await;
        assert!(page.contains("&lt;host&gt;") && !page.contains("<host>"), "{page}");
        assert!(get(address, "/nothing").await.starts_with("HTTP/1.1 404 "));

        shutdown.cancel();
        tokio::time::timeout(GRACE * 2, server).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let taken = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = taken.local_addr().unwrap();
        let hub = Hub::new(Metrics::new().unwrap());
        let error = serve(address, hub, CancellationToken::new()).await.unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("--listen"), "{error}");
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_does_not_hold_up_the_end() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve_on(listener, Hub::new(Metrics::new().unwrap()), shutdown.clone()));
        let mut silent = TcpStream::connect(address).await.unwrap();
        silent.write_all(b"GET /livez HT").await.unwrap();
        shutdown.cancel();
        tokio::time::timeout(GRACE * 2, server).await.unwrap().unwrap().unwrap();
    }

    /// Prometheus' own opinion, where its tools are at hand.
    #[tokio::test]
    async fn promtool_accepts_the_metrics() {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let metrics = Metrics::new().unwrap();
        metrics.observe_process();
        metrics.slot_retained_bytes.with_label_values(&["walferry"]).set(1);
        let text = TextEncoder::new().encode_to_string(&metrics.registry.gather()).unwrap();
        let spawned = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        match spawned {
            Ok(mut tool) => {
                tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
                let output = tool.wait_with_output().unwrap();
                let words =
                    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                assert!(output.status.success() && words.is_empty(), "{words}\n{text}");
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        }
    }
}
