//! Who may ask what: the method, the token, the name that we are asked by.
//!
//! Invariant: no page is made for a request that is refused here, and every
//! answer, refusals too, tells the browser to run nothing, guess nothing, keep
//! nothing and show it in no other page's frame.
//!
//! The name is asked for because of DNS rebinding: a page of the web whose name
//! comes to mean 127.0.0.1 could read ours in the browser of whoever visits it,
//! as for the browser both are of one origin. It still asks by its own name.
//! With the right token it does not matter: no browser adds that by itself.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use crate::config::{Audience, Listen};

/// What probes ask that carry no token: whether the process lives and follows,
/// and nothing of what it moves.
const OPEN_PATHS: [&str; 2] = ["/livez", "/readyz"];

/// On every answer; `default-src` says nothing about frames around the page.
const HEADERS: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ),
];

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Denial {
    #[error("only GET and HEAD are served here")]
    Method,
    #[error("this needs the header \"Authorization: Bearer TOKEN\", with the token of walferry's --listen-token")]
    Token,
    #[error(
        "the Host header is none of this server's names: ask by its IP address, by localhost, by the machine's host \
         name or by the name that walferry's --listen has; or with the token of its --listen-token"
    )]
    Host,
}

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        let words = format!("{self}\n");
        match self {
            Denial::Method => (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], words).into_response(),
            Denial::Token => (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], words).into_response(),
            Denial::Host => (StatusCode::FORBIDDEN, words).into_response(),
        }
    }
}

/// What a token is.
enum Credentials {
    /// It is the one.
    Right,
    /// There is none, or another.
    Wanting,
    /// None is asked for.
    Needless,
}

/// Who is let in.
#[derive(Clone)]
pub(super) struct Guard {
    audience: Audience,
    /// In lower case.
    names: Vec<String>,
}

impl Guard {
    /// For an address, on a machine of this name.
    pub(super) fn new(listen: &Listen, machine: Option<String>) -> Self {
        let named = [Some("localhost".to_owned()), machine, listen.address().name().map(str::to_owned)];
        let names = named.into_iter().flatten().map(|name| plain(&name)).collect();
        Guard { audience: listen.audience().clone(), names }
    }

    fn admits(&self, request: &Request) -> Result<(), Denial> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return Err(Denial::Method);
        }
        match self.credentials(request.headers()) {
            Credentials::Right => return Ok(()),
            Credentials::Wanting if !OPEN_PATHS.contains(&request.uri().path()) => return Err(Denial::Token),
            Credentials::Wanting | Credentials::Needless => {}
        }
        if self.is_asked_by_name(request.uri(), request.headers()) { Ok(()) } else { Err(Denial::Host) }
    }

    fn credentials(&self, headers: &HeaderMap) -> Credentials {
        let Audience::Bearer(token) = &self.audience else { return Credentials::Needless };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
        match given {
            Some(given) if bool::from(given.ct_eq(token.reveal().as_bytes())) => Credentials::Right,
            _ => Credentials::Wanting,
        }
    }

    /// Whether there is a name and every one is ours: two headers, or a URI with
    /// a name of its own, would leave it open which of them is meant.
    fn is_asked_by_name(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let of_headers = headers.get_all(header::HOST).into_iter().map(HeaderValue::as_bytes);
        let mut named = of_headers.chain(uri.authority().map(|authority| authority.as_str().as_bytes())).peekable();
        named.peek().is_some() && named.all(|name| self.is_ours(name))
    }

    fn is_ours(&self, name: &[u8]) -> bool {
        let Ok(authority) = Authority::try_from(name) else { return false };
        let host = plain(authority.host());
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        address.parse::<IpAddr>().is_ok() || self.names.contains(&host)
    }
}

/// Names are the same in any case, and with the dot of the root.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The token of an Authorization header (RFC 6750, RFC 9110: the scheme in any case).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Refuses, or has the page made.
pub(super) async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let mut response = match guard.admits(&request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    response.headers_mut().extend(HEADERS);
    response
}
