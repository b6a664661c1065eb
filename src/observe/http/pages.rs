//! What is served: metrics, health, the status document, a page for people.
//!
//! Invariant: on the page, names of objects and words of servers are text,
//! whatever they hold.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder, TEXT_FORMAT, TextEncoder};

use super::guard::{self, Guard};
use super::{Hub, Readiness};
use crate::border::{printable, visible};

/// All pages, behind the guard.
pub(super) fn router(hub: Hub, guard: Guard) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .with_state(hub)
        .layer(middleware::from_fn_with_state(Arc::new(guard), guard::check))
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

/// Text that stands between tags or in an attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in printable(text).chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter => escaped.push(letter),
        }
    }
    escaped
}
