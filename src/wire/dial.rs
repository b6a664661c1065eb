//! Which host, which address, with or without TLS: the attempts, in libpq's
//! order.
//!
//! ```text
//! for each pass (prefer-standby: standby, then any)
//!   for each host
//!     for each address of it
//!       sslmode disable: plain │ allow: plain, then TLS │ prefer: TLS, then plain │ others: TLS
//! ```
//!
//! A refusal that waiting would not mend (a wrong password, a certificate that
//! is not trusted) ends the search: the next host is not tried, as in libpq.
//!
//! Source: `PQconnectPoll` in `src/interfaces/libpq/fe-connect.c`.

use std::net::SocketAddr;
use std::path::Path;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::either::Either;

use super::auth::Channel;
use super::connection::{CancelKey, Connection, Purpose, Startup};
use super::prepare::preparation;
use super::stream::{self, Stream};
use super::tls::{Offer, TlsSettings};
use super::{Peer, Protection, WireError, frame, tls_verify};
use crate::config::conninfo::{Address, ConnInfo, Host, RootCert, SslMode, TargetSessionAttrs};

/// Where a socket leads.
#[derive(Clone, Copy)]
enum Place<'a> {
    Tcp(SocketAddr, &'a str),
    Unix(&'a Path),
}

/// What an attempt does about TLS.
#[derive(Clone, Copy)]
enum Encryption<'a> {
    Plain,
    IfOffered(&'a TlsSettings),
    Required(&'a TlsSettings),
}

/// How far an attempt came before it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    /// No answer from a server.
    Nobody,
    /// A server, without TLS.
    Plain,
    /// A server, in or during TLS.
    Tls,
}

struct Failure {
    error: WireError,
    reached: Reached,
}

/// [`Connection::connect`].
pub(super) async fn connect(
    info: &ConnInfo,
    purpose: Purpose,
    application_name: &str,
) -> Result<Connection, WireError> {
    let tls = load_tls(info)?;
    let passes: &[TargetSessionAttrs] = match &info.target_session_attrs {
        TargetSessionAttrs::PreferStandby => &[TargetSessionAttrs::Standby, TargetSessionAttrs::Any],
        other => std::slice::from_ref(other),
    };
    let mut attempts = Vec::new();
    for &wanted in passes {
        for host in &info.hosts {
            let startup = Startup { info, host, purpose, application_name };
            match connect_host(&startup, tls.as_ref(), wanted).await {
                Ok(connection) => {
                    connection.security().log(connection.peer());
                    return Ok(connection);
                }
                Err(errors) => {
                    let final_word = errors.iter().any(|e| !e.is_transient());
                    attempts.extend(errors);
                    if final_word {
                        return Err(verdict(info, attempts));
                    }
                }
            }
        }
    }
    Err(verdict(info, attempts))
}

/// The certificates, if any of the hosts may be reached over TLS.
fn load_tls(info: &ConnInfo) -> Result<Option<TlsSettings>, WireError> {
    let over_tcp = info.hosts.iter().any(|host| matches!(host.address, Address::Tcp { .. }));
    if over_tcp && info.sslmode != SslMode::Disable { TlsSettings::load(info).map(Some) } else { Ok(None) }
}

/// One error as it is, several as a list.
fn verdict(info: &ConnInfo, mut attempts: Vec<WireError>) -> WireError {
    match attempts.pop() {
        Some(only) if attempts.is_empty() => only,
        last => {
            attempts.extend(last);
            WireError::NoSuitableHost { side: info.side, attempts }
        }
    }
}

/// Tries every address of a host; on failure one error for each.
async fn connect_host(
    startup: &Startup<'_>,
    tls: Option<&TlsSettings>,
    wanted: TargetSessionAttrs,
) -> Result<Connection, Vec<WireError>> {
    let mut errors = Vec::new();
    let places = match places(startup).await {
        Ok(places) => places,
        Err(error) => return Err(vec![error]),
    };
    for place in places {
        match connect_place(startup, place, tls, wanted).await {
            Ok(connection) => return Ok(connection),
            Err(error) => {
                let final_word = !error.is_transient();
                errors.push(error);
                if final_word {
                    break;
                }
            }
        }
    }
    Err(errors)
}

fn peer(startup: &Startup<'_>) -> Peer {
    Peer { side: startup.info.side, host: startup.host.to_string() }
}

/// The addresses of a host.
async fn places<'a>(startup: &Startup<'a>) -> Result<Vec<Place<'a>>, WireError> {
    let Host { address, port, .. } = startup.host;
    let (host, hostaddr) = match address {
        Address::Unix(folder) => return Ok(vec![Place::Unix(folder)]),
        Address::Tcp { host, hostaddr } => (host, hostaddr),
    };
    if let Some(ip) = hostaddr {
        return Ok(vec![Place::Tcp(SocketAddr::new(*ip, *port), host)]);
    }
    let look_up = tokio::net::lookup_host((host.as_str(), *port));
    let after = startup.info.connect_timeout;
    let found = tokio::time::timeout(after, look_up)
        .await
        .map_err(|_| WireError::Timeout { peer: peer(startup), after })?
        .map_err(|source| WireError::Resolve { peer: peer(startup), source })?;
    let places: Vec<_> = found.map(|address| Place::Tcp(address, host)).collect();
    if places.is_empty() {
        let source = std::io::Error::other("the name has no address");
        return Err(WireError::Resolve { peer: peer(startup), source });
    }
    Ok(places)
}

/// Tries one address with every encryption that sslmode allows.
async fn connect_place(
    startup: &Startup<'_>,
    place: Place<'_>,
    tls: Option<&TlsSettings>,
    wanted: TargetSessionAttrs,
) -> Result<Connection, WireError> {
    let (first, second) = ways(startup.info, place, tls);
    let failure = match bounded(startup, place, first, wanted).await {
        Ok(connection) => return Ok(connection),
        Err(failure) => failure,
    };
    let Some(second) = second.filter(|second| worth_the_other_way(&failure, *second)) else {
        return Err(failure.error);
    };
    bounded(startup, place, second, wanted).await.map_err(|again| more_telling(failure, again))
}

/// What sslmode means for an address: the first way, and the one after it.
fn ways<'a>(
    info: &ConnInfo,
    place: Place<'_>,
    tls: Option<&'a TlsSettings>,
) -> (Encryption<'a>, Option<Encryption<'a>>) {
    match (place, tls, effective_mode(info)) {
        (Place::Unix(_), _, _) | (_, None, _) | (_, _, SslMode::Disable) => (Encryption::Plain, None),
        (_, Some(tls), SslMode::Allow) => (Encryption::Plain, Some(Encryption::Required(tls))),
        (_, Some(tls), SslMode::Prefer) => (Encryption::IfOffered(tls), Some(Encryption::Plain)),
        (_, Some(tls), SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => (Encryption::Required(tls), None),
    }
}

/// Weaker modes make no sense with public authorities; libpq refuses them, we
/// make them `verify-full`.
fn effective_mode(info: &ConnInfo) -> SslMode {
    match (&info.sslrootcert, info.sslmode) {
        (RootCert::System, mode) if mode != SslMode::Disable => SslMode::VerifyFull,
        (_, mode) => mode,
    }
}

/// Whether the failure may be due to the encryption: a handshake that failed,
/// or a server that refused this kind of connection.
fn worth_the_other_way(failure: &Failure, other: Encryption<'_>) -> bool {
    let refused = matches!(failure.error, WireError::Server { .. } | WireError::Tls { .. });
    match other {
        Encryption::Plain => failure.reached == Reached::Tls && refused,
        Encryption::IfOffered(_) | Encryption::Required(_) => failure.reached == Reached::Plain && refused,
    }
}

/// Of two failures the one on the encrypted way, unless TLS itself was the trouble.
fn more_telling(first: Failure, second: Failure) -> WireError {
    let tls_trouble = |e: &WireError| matches!(e, WireError::Tls { .. } | WireError::TlsRefused { .. });
    let (over_tls, plain) =
        if first.reached == Reached::Tls { (first.error, second.error) } else { (second.error, first.error) };
    let (told, untold) = if tls_trouble(&over_tls) { (plain, over_tls) } else { (over_tls, plain) };
    tracing::debug!("the other way of connecting failed too: {untold}");
    told
}

/// One attempt within `connect_timeout`.
async fn bounded(
    startup: &Startup<'_>,
    place: Place<'_>,
    encryption: Encryption<'_>,
    wanted: TargetSessionAttrs,
) -> Result<Connection, Failure> {
    let after = startup.info.connect_timeout;
    match tokio::time::timeout(after, attempt(startup, place, encryption, wanted)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure { error: WireError::Timeout { peer: peer(startup), after }, reached: Reached::Nobody }),
    }
}

async fn attempt(
    startup: &Startup<'_>,
    place: Place<'_>,
    encryption: Encryption<'_>,
    wanted: TargetSessionAttrs,
) -> Result<Connection, Failure> {
    let (stream, channel, protection) = open(startup, place, encryption).await?;
    let reached = if channel == Channel::Plain { Reached::Plain } else { Reached::Tls };
    let at = |error| Failure { error: pooler_or(error), reached };
    let mut connection = Connection::start(stream, (channel, protection), startup).await.map_err(at)?;
    prepare(&mut connection).await.map_err(at)?;
    if suits(&mut connection, wanted).await.map_err(at)? {
        return Ok(connection);
    }
    Err(Failure { error: WireError::NotWanted { peer: peer(startup), wanted }, reached })
}

/// Asks the server to cancel what a connection is doing. The answer, if it was
/// in time, comes on that connection as an error 57014. `host` is the one that
/// let it in.
///
/// # Errors
/// When the request cannot be delivered.
pub async fn cancel(info: &ConnInfo, host: &Host, key: CancelKey) -> Result<(), WireError> {
    let startup = Startup { info, host, purpose: Purpose::Session, application_name: "" };
    let tls = load_tls(info)?;
    let mut last = WireError::Closed { peer: peer(&startup) };
    for place in places(&startup).await? {
        let (first, second) = ways(info, place, tls.as_ref());
        for way in [Some(first), second].into_iter().flatten() {
            let after = info.connect_timeout;
            let timeout = || WireError::Timeout { peer: peer(&startup), after };
            match tokio::time::timeout(after, deliver_cancel(&startup, place, way, key)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => last = error,
                Err(_) => last = timeout(),
            }
        }
    }
    Err(last)
}

/// Sends a CancelRequest and waits until the server has read it and hangs up.
async fn deliver_cancel(
    startup: &Startup<'_>,
    place: Place<'_>,
    encryption: Encryption<'_>,
    key: CancelKey,
) -> Result<(), WireError> {
    let (mut stream, ..) = open(startup, place, encryption).await.map_err(|failure| failure.error)?;
    let mut request = BytesMut::new();
    frontend::cancel_request(key.process_id, key.secret_key, &mut request);
    let lost = |error| frame::lost(&peer(startup), error);
    stream.write_all(&request).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    // It hangs up without a word, over TLS without a goodbye too: any end will do.
    let _end = stream.read_u8().await;
    Ok(())
}

/// The socket, encrypted as asked.
async fn open(
    startup: &Startup<'_>,
    place: Place<'_>,
    encryption: Encryption<'_>,
) -> Result<(Stream, Channel, Protection), Failure> {
    let peer = peer(startup);
    let unreached =
        |source| Failure { error: WireError::Connect { peer: peer.clone(), source }, reached: Reached::Nobody };
    let (address, name) = match place {
        Place::Unix(folder) => {
            let socket = stream::unix(folder, startup.host.port).await.map_err(unreached)?;
            return Ok((Either::Right(socket), Channel::Plain, Protection::Local));
        }
        Place::Tcp(address, name) => (address, name),
    };
    let socket = stream::tcp(address, startup.purpose).await.map_err(unreached)?;
    let plain = if address.ip().is_loopback() { Protection::Local } else { Protection::Plain };
    let settings = match encryption {
        Encryption::Plain => return Ok((Either::Left(Either::Left(socket)), Channel::Plain, plain)),
        Encryption::IfOffered(settings) | Encryption::Required(settings) => settings,
    };
    let in_tls = |error| Failure { error, reached: Reached::Tls };
    match settings.negotiate(socket, (name, address.ip()), &peer).await.map_err(in_tls)? {
        Offer::Tls(stream) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let end_point = certificate.and_then(|der| tls_verify::server_end_point(der));
            Ok((Either::Left(Either::Right(stream)), Channel::Tls(end_point), settings.protection))
        }
        Offer::Plain(socket) if matches!(encryption, Encryption::IfOffered(_)) => {
            Ok((Either::Left(Either::Left(socket)), Channel::Plain, plain))
        }
        Offer::Plain(_) => Err(Failure { error: WireError::TlsRefused { peer }, reached: Reached::Plain }),
    }
}

/// PgBouncer and its kind refuse `replication` and `options` with these words,
/// which are not translated; the SQLSTATE 08P01 alone they use for everything.
fn pooler_or(error: WireError) -> WireError {
    match error {
        WireError::Server { peer, error } if error.message.contains("unsupported startup parameter") => {
            WireError::Pooler { peer, error }
        }
        other => other,
    }
}

/// By a statement: at startup older versions would refuse some, and poolers all.
async fn prepare(connection: &mut Connection) -> Result<(), WireError> {
    let sql = preparation(connection.server_version(), connection.side());
    connection.simple_query(&sql).await.map(drop)
}

/// Whether the session is of the wanted kind. From PostgreSQL 14 on the server
/// reports it by itself; older ones are asked.
async fn suits(connection: &mut Connection, wanted: TargetSessionAttrs) -> Result<bool, WireError> {
    if matches!(wanted, TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby) {
        return Ok(true);
    }
    let standby = match connection.parameter("in_hot_standby") {
        Some(value) => value == "on",
        None => is_true(connection, "SELECT pg_catalog.pg_is_in_recovery()").await?,
    };
    let read_only = match connection.parameter("default_transaction_read_only") {
        Some(value) => value == "on" || standby,
        None => is_true(connection, "SELECT pg_catalog.current_setting('transaction_read_only')::bool").await?,
    };
    Ok(match wanted {
        TargetSessionAttrs::ReadWrite => !read_only,
        TargetSessionAttrs::ReadOnly => read_only,
        TargetSessionAttrs::Primary => !standby,
        TargetSessionAttrs::Standby => standby,
        TargetSessionAttrs::Any | TargetSessionAttrs::PreferStandby => true,
    })
}

async fn is_true(connection: &mut Connection, sql: &str) -> Result<bool, WireError> {
    let rows = connection.simple_query(sql).await?;
    Ok(rows.first().and_then(|row| row.first()).is_some_and(|value| value.as_deref() == Some("t")))
}
