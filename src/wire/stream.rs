//! The socket: TCP, TLS over TCP, or a Unix socket.
//!
//! Source: `connectDBStart` and `useKeepalives` in
//! `src/interfaces/libpq/fe-connect.c`.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use async_io::Async;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use tokio_util::either::Either;

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

/// A connected socket: TCP, plain or within TLS, or a Unix socket.
pub(super) type Stream = Either<Either<Tcp, Box<TlsStream<Tcp>>>, UnixStream>;

/// A TCP socket, watched in one of two ways: by tokio, where every arrival is an
/// event, or by async-io, where an arrival is an event while it is awaited, and
/// once.
///
/// The source sends every row by itself, and tokio, which watches sockets edge
/// by edge, is woken by each of them, even while nobody waits for one. On a
/// busy stream that took more of both machines' time than decoding did.
pub(super) type Tcp = Either<TcpStream, Compat<Async<std::net::TcpStream>>>;

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
        Purpose::Session => Either::Left(stream),
        Purpose::Replication => Either::Right(Async::new(stream.into_std()?)?.compat()),
    })
}

/// Connects to the Unix socket of a port in a folder.
pub(super) async fn unix(folder: &Path, port: u16) -> io::Result<UnixStream> {
    UnixStream::connect(folder.join(format!(".s.PGSQL.{port}"))).await
}
