//! A TCP proxy between walferry and a server that delays, cuts and swallows on
//! demand.
//!
//! Invariant: it never changes a byte; it only decides whether and when bytes
//! go on. A cut is hard: both sockets are dropped with what was in flight.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

/// Bytes read at once. Small enough that a cut falls in the middle of a copy.
const CHUNK_BYTES: usize = 16 * 1024;

/// What happens to bytes that arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They go on.
    Pass,
    /// They are swallowed, and nobody is told (no FIN).
    Blackhole,
    /// New connections are closed at once.
    Refuse,
}

/// A pattern in what a client sends, and what it sets off.
struct Trap {
    pattern: Vec<u8>,
    /// Passes over this many occurrences first.
    skip: usize,
    springs: Springs,
}

/// What a trap does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Springs {
    /// The pattern goes on, and the connection is cut.
    Cut,
    /// The pattern and everything from then on, of all connections, is swallowed.
    Blackhole,
}

struct Shared {
    server: SocketAddr,
    delay_ms: AtomicU64,
    mode: watch::Sender<Mode>,
    /// Changes whenever all connections are to be cut.
    cut: watch::Sender<u64>,
    lifetime: watch::Sender<Duration>,
    trap: Mutex<Option<Trap>>,
    accepted: AtomicUsize,
    trapped: AtomicUsize,
}

/// A listening proxy; it closes everything when dropped.
pub struct Proxy {
    shared: Arc<Shared>,
    port: u16,
    listener: AbortHandle,
}

impl Proxy {
    /// A proxy on a free port in front of a port of 127.0.0.1.
    pub async fn start(server_port: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server: SocketAddr::from(([127, 0, 0, 1], server_port)),
            delay_ms: AtomicU64::new(0),
            mode: watch::Sender::new(Mode::Pass),
            cut: watch::Sender::new(0),
            lifetime: watch::Sender::new(Duration::ZERO),
            trap: Mutex::new(None),
            accepted: AtomicUsize::new(0),
            trapped: AtomicUsize::new(0),
        });
        let listener = tokio::spawn(accept(listener, shared.clone())).abort_handle();
        Proxy { shared, port, listener }
    }

    /// The URI with the server's port replaced by ours.
    pub fn through(&self, uri: &str) -> String {
        let port = format!(":{}/", self.shared.server.port());
        assert!(uri.contains(&port), "the URI is not of the server behind this proxy");
        uri.replacen(&port, &format!(":{}/", self.port), 1)
    }

    /// Delays each chunk in both directions.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay_ms.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Sets what happens to bytes from now on.
    pub fn mode(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Cuts every connection there is.
    pub fn cut(&self) {
        self.shared.cut.send_modify(|generation| *generation += 1);
    }

    /// Cuts every connection again and again until the task is aborted.
    pub fn cut_every(&self, period: Duration) -> AbortHandle {
        let shared = self.shared.clone();
        let task = tokio::spawn(async move {
            loop {
                sleep(period).await;
                shared.cut.send_modify(|generation| *generation += 1);
            }
        });
        task.abort_handle()
    }

    /// Connections live for so long, from now on; zero: for ever.
    pub fn live_for(&self, lifetime: Duration) {
        self.shared.lifetime.send_replace(lifetime);
    }

    /// Once: when a client sends the pattern for the `nth` time (from 1),
    /// passes it on to the server and cuts that connection before the answer:
    /// "between COMMIT sent and answer received".
    pub fn cut_after_sent(&self, pattern: &[u8], nth: usize) {
        self.trap(pattern, nth, Springs::Cut);
    }

    /// Once: when a client sends the pattern, [`Mode::Blackhole`] begins with it.
    pub fn blackhole_from(&self, pattern: &[u8]) {
        self.trap(pattern, 1, Springs::Blackhole);
    }

    fn trap(&self, pattern: &[u8], nth: usize, springs: Springs) {
        assert!(nth >= 1 && !pattern.is_empty());
        *self.shared.trap.lock().unwrap() = Some(Trap { pattern: pattern.to_owned(), skip: nth - 1, springs });
    }

    /// How often a trap has closed.
    pub fn trapped(&self) -> usize {
        self.shared.trapped.load(Ordering::Relaxed)
    }

    /// How many connections have been accepted.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task: so are all connections.
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        while connections.try_join_next().is_some() {}
        if *shared.mode.borrow() == Mode::Refuse {
            continue;
        }
        shared.accepted.fetch_add(1, Ordering::Relaxed);
        connections.spawn(connection(client, shared.clone()));
    }
}

async fn connection(client: TcpStream, shared: Arc<Shared>) {
    let mut cut = shared.cut.subscribe();
    let Ok(server) = TcpStream::connect(shared.server).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Whichever ends first takes the other with it.
    tokio::select! {
        () = pump(from_client, to_server, &shared, Direction::ToServer) => {}
        () = pump(from_server, to_client, &shared, Direction::ToClient) => {}
        _ = cut.changed() => {}
        () = outlived(&shared) => {}
    }
}

/// Ends when a connection of this moment has lived for as long as it may.
async fn outlived(shared: &Shared) {
    let mut lifetime = shared.lifetime.subscribe();
    loop {
        let Ok(time) = lifetime.wait_for(|time| !time.is_zero()).await.map(|time| *time) else { return };
        sleep(time).await;
        if !lifetime.borrow().is_zero() {
            return;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, direction: Direction) {
    let mut mode = shared.mode.subscribe();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut tail = Vec::new();
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let delay = shared.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            sleep(Duration::from_millis(delay)).await;
        }
        let sprung = if direction == Direction::ToServer { shared.springs(&mut tail, &buffer[..length]) } else { None };
        if sprung == Some(Springs::Blackhole) {
            shared.mode.send_replace(Mode::Blackhole);
        }
        if *mode.borrow() == Mode::Blackhole {
            // What was swallowed is lost: the connection is of no use after.
            let _opened = mode.wait_for(|mode| *mode != Mode::Blackhole).await;
            return;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        if sprung == Some(Springs::Cut) {
            // The server has the bytes; an orderly end lets it act on them.
            let _closed = to.shutdown().await;
            return;
        }
    }
}

impl Shared {
    /// What these bytes set off, if they complete the trap's pattern the wanted time.
    /// `tail` is the end of what was sent before, for patterns split over two chunks.
    fn springs(&self, tail: &mut Vec<u8>, bytes: &[u8]) -> Option<Springs> {
        let mut trap = self.trap.lock().unwrap();
        let Some(Trap { pattern, skip, springs }) = trap.as_mut() else {
            tail.clear();
            return None;
        };
        let springs = *springs;
        tail.extend_from_slice(bytes);
        let occurrences = tail.windows(pattern.len()).filter(|window| window == pattern).count();
        let sprung = occurrences > *skip;
        *skip = skip.saturating_sub(occurrences);
        // One byte less than the pattern: an occurrence is never counted twice.
        tail.drain(..tail.len().saturating_sub(pattern.len() - 1));
        if sprung {
            *trap = None;
            self.trapped.fetch_add(1, Ordering::Relaxed);
        }
        sprung.then_some(springs)
    }
}
