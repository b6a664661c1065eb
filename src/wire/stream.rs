//! The socket: TCP, TLS over TCP, or a Unix socket.
//!
//! Source: `connectDBStart` and `useKeepalives` in
//! `src/interfaces/libpq/fe-connect.c`.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_io::Async;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

use super::connection::Purpose;

/// Silence before the first probe: below the five minutes after which common
/// NAT gateways and load balancers forget a connection.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// Pause between probes: with Linux's nine probes a dead peer is noticed two
/// and a half minutes after the last byte.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long data may stay unacknowledged before the connection counts as dead:
/// a firewall that swallows packets must not hold a migration for the quarter
/// of an hour that the system would wait.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(60);

/// A connected socket.
pub(super) enum Stream {
    /// Plain TCP.
    Tcp(Tcp),
    /// TLS over TCP.
    Tls(Box<TlsStream<Tcp>>),
    /// A Unix socket.
    Unix(UnixStream),
}

/// A TCP socket, watched in one of two ways.
///
/// The source sends every row by itself, and tokio, which watches sockets edge
/// by edge, is woken by each of them, even while nobody waits for one. On a
/// busy stream that took more of both machines' time than decoding did.
pub(super) enum Tcp {
    /// By tokio: every arrival is an event.
    Eager(TcpStream),
    /// By async-io: an arrival is an event while it is awaited, and once.
    Quiet(Compat<Async<std::net::TcpStream>>),
}

/// Connects over TCP, without delay of small writes and with keepalives.
pub(super) async fn tcp(address: SocketAddr, purpose: Purpose) -> io::Result<Tcp> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(match purpose {
        Purpose::Session => Tcp::Eager(stream),
        Purpose::Replication => Tcp::Quiet(Async::new(stream.into_std()?)?.compat()),
    })
}

/// Connects to the Unix socket of a port in a folder.
pub(super) async fn unix(folder: &Path, port: u16) -> io::Result<UnixStream> {
    UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await
}

impl AsyncRead for Tcp {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Tcp::Eager(stream) => Pin::new(stream).poll_read(cx, buf),
            Tcp::Quiet(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Tcp::Eager(stream) => Pin::new(stream).poll_write(cx, buf),
            Tcp::Quiet(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Tcp::Eager(stream) => Pin::new(stream).poll_flush(cx),
            Tcp::Quiet(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Tcp::Eager(stream) => Pin::new(stream).poll_shutdown(cx),
            Tcp::Quiet(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
