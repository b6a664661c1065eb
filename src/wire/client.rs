//! tokio-postgres over our own dial.
//!
//! The connection is made, authenticated and prepared by [`Connection`]. Then
//! the driver gets a socket on which a server seems to greet it: what it sends
//! as its startup message is swallowed, and AuthenticationOk, the parameters,
//! the cancel key and ReadyForQuery are replayed from what the real server
//! said. Behind that the bytes pass untouched. So there is one implementation
//! of hosts, TLS and authentication, and its errors are ours.
//!
//! Invariant: the driver never sees a password and never authenticates.
//!
//! Source: `connect_raw.rs` of tokio-postgres 0.7.18.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::DbError;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use super::stream::Stream;
use super::{CancelKey, Connection, FrameReader, Purpose, WireError};
use crate::config::conninfo::ConnInfo;
use crate::fault::sqlstate;

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
        tracing::info!("{}: {}", notice.severity(), notice.message());
        if sqlstate::is_privilege_refused(notice.code().code()) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Connects an ordinary session, prepared as [`super::preparation`] says; its
/// server's `server_version_num` comes along.
///
/// # Errors
/// [`WireError`] when no host lets us in.
pub async fn client(info: &ConnInfo, application_name: &str) -> Result<(Client, i32, PrivilegesRefused), WireError> {
    let connection = Connection::connect(info, Purpose::Session, application_name).await?;
    let version = connection.server_version();
    let peer = connection.peer().clone();
    let mut config = tokio_postgres::Config::new();
    config.user(&info.user).dbname(&info.dbname).application_name(application_name).ssl_mode(SslMode::Disable);
    let (client, mut driver) = config
        .connect_raw(Greeted::new(connection), NoTls)
        .await
        .map_err(|source| WireError::Driver { peer: peer.clone(), source: Box::new(source) })?;
    // Ends with the client. What it fails with, the client's callers see as a
    // closed connection; the server's reason is only here.
    let refused = PrivilegesRefused::default();
    let notices = refused.clone();
    tokio::spawn(async move {
        while let Some(message) = poll_fn(|cx| driver.poll_message(cx)).await {
            match message {
                Ok(AsyncMessage::Notice(notice)) => notices.take(&notice),
                Ok(_) => {}
                Err(error) => {
                    let reason = error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
                    tracing::warn!(%peer, "a session was lost: {reason}");
                    break;
                }
            }
        }
    });
    Ok((client, version, refused))
}

/// A socket on which the server greets for a second time.
struct Greeted {
    inner: tokio::io::Join<tokio::io::ReadHalf<Stream>, tokio::io::WriteHalf<Stream>>,
    /// What is read before anything of the socket.
    greeting: BytesMut,
    /// What is left to swallow of the driver's startup message.
    startup: Swallow,
}

/// The driver's startup message: a length of four bytes, itself included, and the rest.
enum Swallow {
    /// Bytes of the length that have been seen.
    Length(Vec<u8>),
    /// Bytes that remain, 0 when all is swallowed.
    Rest(usize),
}

impl Greeted {
    fn new(connection: Connection) -> Self {
        let key = connection.cancel_key();
        let (reader, writer) = connection.split();
        let mut greeting = greeting(&reader, key);
        let (read, unread) = reader.into_parts();
        greeting.unsplit(unread);
        Greeted {
            inner: tokio::io::join(read, writer.into_inner()),
            greeting,
            startup: Swallow::Length(Vec::with_capacity(4)),
        }
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
            return Pin::new(&mut self.inner).poll_read(cx, buf);
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
