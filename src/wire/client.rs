//! tokio-postgres over our own dial.
//!
//! The connection is made, authenticated and prepared by [`Connection`]. Then
//! the driver gets a socket on which a server seems to greet it: what it sends
//! as its startup message is swallowed, and AuthenticationOk, the parameters,
//! the cancel key and ReadyForQuery are replayed from what the real server
//! said. Behind that the bytes pass untouched, under the limits of our own
//! connections. So there is one implementation of hosts, TLS and
//! authentication, and its errors are ours.
//!
//! Invariant: the driver never sees a password and never authenticates; it gets no
//! frame that [`super::FrameReader`] would refuse. Why a session was lost is known
//! before its callers notice that it is.
//!
//! Source: `connect_raw.rs` of tokio-postgres 0.7.18.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::DbError;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, NoTls};
use tracing::Level;

use super::notice::{Notices, plain};
use super::stream::Stream;
use super::watch::Watch;
use super::{CancelKey, Connection, FrameReader, Peer, Purpose, Security, WireError};
use crate::config::Side;
use crate::config::conninfo::ConnInfo;
use crate::fault::{Fault, sqlstate};

/// How often a session's server has only warned that it gives or takes no privilege: the
/// statement counts as executed (`restrict_and_check_grant` in `aclchk.c`).
#[derive(Clone, Debug, Default)]
pub struct PrivilegesRefused(Arc<AtomicU64>);

impl PrivilegesRefused {
    /// By statements that have been answered, since the session was made.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn take(&self, notice: &DbError) {
        if sqlstate::is_privilege_refused(notice.code().code()) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Why a session was lost, for its callers: the driver tells them only that it is closed.
#[derive(Clone, Debug, Default)]
pub struct Loss(Arc<OnceLock<Lost>>);

/// What a session was lost to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// In words.
    pub words: String,
    /// What it means.
    pub fault: Fault,
}

impl Loss {
    /// What is known of it.
    pub fn reason(&self) -> Option<&Lost> {
        self.0.get()
    }

    /// The first reason is the one.
    fn is(&self, words: String, fault: Fault) -> Lost {
        self.0.get_or_init(|| Lost { words, fault }).clone()
    }
}

/// An ordinary session, prepared as [`super::preparation`] says.
pub struct Ordinary {
    /// The driver's end.
    pub client: Client,
    /// The server's `server_version_num`.
    pub version: i32,
    /// How the connection is protected.
    pub security: Security,
    /// Privileges that it did not give or take.
    pub privileges_refused: PrivilegesRefused,
    /// Why it was lost.
    pub loss: Loss,
    driver: AbortHandle,
    side: Side,
}

impl Ordinary {
    /// Gives the connection up: what is asked of it from now on fails at once. Says why it
    /// is lost, which it may have been before.
    pub fn give_up(&self, words: String) -> Lost {
        let lost = self.loss.is(words, Fault::passing(self.side));
        self.driver.abort();
        lost
    }
}

/// Connects an ordinary session.
///
/// # Errors
/// [`WireError`] when no host lets us in.
pub async fn client(info: &ConnInfo, application_name: &str) -> Result<Ordinary, WireError> {
    let connection = Connection::connect(info, Purpose::Session, application_name).await?;
    let version = connection.server_version();
    let (peer, security) = (connection.peer().clone(), connection.security());
    let loss = Loss::default();
    let mut config = tokio_postgres::Config::new();
    config.user(&info.user).dbname(&info.dbname).application_name(application_name).ssl_mode(SslMode::Disable);
    let (client, driver) = config
        .connect_raw(Greeted::new(connection, loss.clone())?, NoTls)
        .await
        .map_err(|source| WireError::Driver { peer: peer.clone(), source: Box::new(source) })?;
    let privileges_refused = PrivilegesRefused::default();
    let driver = tokio::spawn(drive(driver, peer, privileges_refused.clone(), loss.clone())).abort_handle();
    Ok(Ordinary { client, version, security, privileges_refused, loss, driver, side: info.side })
}

/// Ends with the client. What it fails with, the client's callers see as a closed
/// connection, and only when this has ended.
async fn drive(
    mut driver: tokio_postgres::Connection<Greeted, NoTlsStream>,
    peer: Peer,
    refused: PrivilegesRefused,
    loss: Loss,
) {
    let mut notices = Notices::new(peer.clone());
    while let Some(message) = poll_fn(|cx| driver.poll_message(cx)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                refused.take(&notice);
                notices.take(Level::INFO, (notice.severity(), notice.code().code()), notice.message());
            }
            Ok(_) => {}
            Err(error) => {
                let lost = loss.is(reason(&error), Fault::passing(peer.side));
                tracing::warn!(%peer, "a session was lost: {}", lost.words);
                break;
            }
        }
    }
}

/// The server's last words, or what befell the connection.
fn reason(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), error.source()) {
        (Some(db), _) => plain(db.message()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

/// A socket on which the server greets for a second time.
struct Greeted {
    inner: tokio::io::Join<tokio::io::ReadHalf<Stream>, tokio::io::WriteHalf<Stream>>,
    /// What is read before anything of the socket.
    greeting: BytesMut,
    /// What is left to swallow of the driver's startup message.
    startup: Swallow,
    watch: Watch,
    loss: Loss,
}

/// The driver's startup message: a length of four bytes, itself included, and the rest.
enum Swallow {
    /// Bytes of the length that have been seen.
    Length(Vec<u8>),
    /// Bytes that remain, 0 when all is swallowed.
    Rest(usize),
}

impl Greeted {
    fn new(connection: Connection, loss: Loss) -> Result<Self, WireError> {
        let key = connection.cancel_key();
        let (reader, writer) = connection.split();
        let mut watch = Watch::new(reader.peer().clone());
        let mut greeting = greeting(&reader, key);
        let (read, unread) = reader.into_parts();
        watch.pass(&unread)?;
        greeting.unsplit(unread);
        Ok(Greeted {
            inner: tokio::io::join(read, writer.into_inner()),
            greeting,
            startup: Swallow::Length(Vec::with_capacity(4)),
            watch,
            loss,
        })
    }

    /// How many of the bytes belong to the startup message.
    fn swallow(&mut self, bytes: &[u8]) -> usize {
        match &mut self.startup {
            Swallow::Rest(left) => {
                let taken = bytes.len().min(*left);
                *left -= taken;
                taken
            }
            Swallow::Length(seen) => {
                let taken = bytes.len().min(4 - seen.len());
                seen.extend(bytes.iter().take(taken));
                if let Ok(length) = <[u8; 4]>::try_from(seen.as_slice()) {
                    self.startup = Swallow::Rest((u32::from_be_bytes(length) as usize).saturating_sub(4));
                }
                taken
            }
        }
    }
}

/// AuthenticationOk, ParameterStatus of each parameter, BackendKeyData, ReadyForQuery.
fn greeting(reader: &FrameReader, key: Option<CancelKey>) -> BytesMut {
    let mut bytes = BytesMut::new();
    let mut message = |tag: u8, body: &[u8]| {
        bytes.put_u8(tag);
        // Parameters came in frames of at most 30 kB.
        bytes.put_u32(u32::try_from(body.len() + 4).unwrap_or(u32::MAX));
        bytes.put_slice(body);
    };
    message(b'R', &0u32.to_be_bytes());
    for (name, value) in reader.parameters() {
        message(b'S', format!("{name}\0{value}\0").as_bytes());
    }
    if let Some(CancelKey { process_id, secret_key }) = key {
        message(b'K', &[process_id.to_be_bytes(), secret_key.to_be_bytes()].concat());
    }
    message(b'Z', b"I");
    bytes
}

impl AsyncRead for Greeted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.greeting.is_empty() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
            let read = buf.filled().get(before..).unwrap_or_default();
            return Poll::Ready(self.watch.pass(read).map_err(|refused| {
                self.loss.is(refused.to_string(), refused.fault());
                io::Error::new(io::ErrorKind::InvalidData, refused)
            }));
        }
        let length = self.greeting.len().min(buf.remaining());
        buf.put_slice(&self.greeting.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let swallowed = self.swallow(buf);
        if swallowed > 0 {
            return Poll::Ready(Ok(swallowed));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
