//! A slow link: a TCP proxy that holds every byte back for half of a
//! round-trip time in either direction.
//!
//! Invariant: bytes travel side by side. A chunk waits for its own time and not
//! for the chunks before it, so that the link costs time, not throughput, as a
//! real one with enough bandwidth. (The tests' proxy waits after each chunk,
//! which bounds the throughput as well: right for tests, wrong for a
//! benchmark.) At most [`CHUNKS_IN_FLIGHT`] chunks are on their way.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::BenchError;

/// Bytes read at once: what a socket buffer holds.
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks on their way in one direction: 64 MiB, more than a link of 80 ms and
/// 5 Gbit/s holds.
const CHUNKS_IN_FLIGHT: usize = 1024;

/// A proxy on a port of its own, for as long as the process lives.
pub struct Link {
    /// The port on 127.0.0.1.
    pub port: u16,
}

impl Link {
    /// A link to a port of 127.0.0.1.
    pub fn start(server_port: u16, rtt: Duration) -> Result<Self, BenchError> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(BenchError::io("listen for the slow link"))?;
        let port = listener.local_addr().map_err(BenchError::io("listen for the slow link"))?.port();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) {
                    // A connection that cannot be set up is closed, which its client sees.
                    let _started = connect(client, server, rtt / 2);
                }
            }
        });
        Ok(Link { port })
    }
}

fn connect(client: TcpStream, server: TcpStream, delay: Duration) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        let (sender, receiver) = sync_channel(CHUNKS_IN_FLIGHT);
        thread::spawn(move || take(from, &sender, delay));
        thread::spawn(move || give(to, &receiver));
    }
    Ok(())
}

fn take(mut from: TcpStream, sender: &SyncSender<(Instant, Vec<u8>)>, delay: Duration) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let chunk = buffer.get(..length).unwrap_or_default().to_vec();
        if sender.send((Instant::now() + delay, chunk)).is_err() {
            return;
        }
    }
}

fn give(mut to: TcpStream, receiver: &Receiver<(Instant, Vec<u8>)>) {
    for (due, chunk) in receiver {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&chunk).is_err() {
            break;
        }
    }
    // The other side learns of the end; it may have gone itself.
    let _closed = to.shutdown(Shutdown::Both);
}
