//! The receiver: frames from the source into the worker's queue.
//!
//! Invariants: it never blocks a thread; what it has read but the target has
//! not taken is bounded in bytes by the queue's budget; a keepalive that asks
//! for a reply gets it at once. While the budget is used up nothing is read,
//! and the standby status goes out on its own timer ([`StatusFeed`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam_channel::{Sender, TrySendError};
use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::fault::Fault;
use crate::lsn::{EndLsn, Lsn};
use crate::wire::StatusFeed;
use crate::wire::WireError;
use crate::wire::{ReplicationFrame, ReplicationReader, ReplyRequested};

/// Frames are handed on in chunks of about this size: a channel operation per
/// row would cost more than decoding it.
const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks that follow each other closely before the receiver begins to rest
/// between them. The messages of a single small transaction are fewer, so that
/// it is never held up.
const DENSE_CHUNKS: u32 = 16;

/// Chunks closer than this follow each other closely.
const DENSE: Duration = Duration::from_millis(1);

/// How long the receiver rests in a dense stream, so that what arrives gathers
/// in the socket. The source sends every message by itself; a receiver that
/// wakes for each takes the time that decoding and the target's work need, and
/// the waking takes the source's. Far less than a socket's buffer holds arrives
/// meanwhile.
const REST: Duration = Duration::from_millis(1);

/// Chunks the channel holds. Each occupies at least its share of the budget,
/// so the budget runs out before the channel is full.
pub const CHUNKS_MAX: usize = 1024;

/// We ask the source for a sign of life every ten seconds at least; when none
/// comes for this long the connection is dead. Native replication's default
/// for `wal_receiver_timeout`.
const SILENCE: Duration = Duration::from_secs(60);

/// Why the receiver stopped before the stream's end. Nothing is lost by it: what
/// the target has not committed is not confirmed, and comes again.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// The connection is lost, or the source reports an error.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The channel was full although the budget had room: the bounds do not fit
    /// together, and trying again would not make them.
    #[error(
        "the queue to the worker holds {CHUNKS_MAX} chunks and has room for no other, though its bytes are not used up"
    )]
    Full,
}

impl ReceiverError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            ReceiverError::Wire(error) => error.fault(),
            ReceiverError::Full => Fault::Bug,
        }
    }
}

/// What the worker gets to see, in the source's order.
#[derive(Debug)]
pub enum Input {
    /// A pgoutput message.
    Payload(Bytes),
    /// Every commit before this point has been sent.
    Reached(EndLsn),
}

/// A run of inputs and the queue space they occupy.
#[derive(Debug)]
pub struct Chunk {
    /// The inputs in order.
    pub inputs: Vec<Input>,
    /// Given back when what came of them is durable, or nothing came of them.
    pub permit: OwnedSemaphorePermit,
}

/// Bytes that may wait between the socket and the target's COMMIT.
#[derive(Clone)]
pub struct Budget {
    free: Arc<Semaphore>,
    total: u32,
}

impl Budget {
    /// A budget of this many bytes.
    pub fn new(bytes: usize) -> Self {
        // The semaphore counts in u32; 4 GiB of queue is more than anyone wants.
        let total = u32::try_from(bytes).unwrap_or(u32::MAX).max(CHUNKS_MAX as u32);
        Budget { free: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// The most that one chunk occupies, and the most that the worker occupies
    /// with what it gathers: half of the budget. So a chunk is always let in
    /// once the applier has nothing more to do, however large a transaction
    /// under way has become.
    pub fn most(&self) -> usize {
        self.total as usize / 2
    }

    /// Waits until the bytes are free. A larger message than [`Self::most`]
    /// takes that.
    pub(super) async fn acquire(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let least = self.total / CHUNKS_MAX as u32;
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX).clamp(least, self.total / 2);
        Arc::clone(&self.free).acquire_many_owned(wanted).await.ok()
    }
}

/// How far the source is, as heard from it.
#[derive(Clone, Default)]
pub struct Heard(Arc<AtomicU64>);

impl Heard {
    /// The highest WAL end heard; none before anything was.
    pub fn wal_end(&self) -> Option<Lsn> {
        Lsn::new(self.0.load(Ordering::Relaxed)).valid()
    }

    fn note(&self, lsn: Lsn) {
        self.0.fetch_max(lsn.number(), Ordering::Relaxed);
    }
}

/// Reads frames until the source ends the stream or the worker is gone.
///
/// # Errors
/// [`ReceiverError::Wire`] when the connection is lost or the source reports an
/// error; [`ReceiverError::Full`] is a bug.
pub async fn run(
    mut reader: ReplicationReader,
    queue: Sender<Chunk>,
    budget: Budget,
    feed: &StatusFeed,
    heard: &Heard,
) -> Result<(), ReceiverError> {
    let mut density = Density::new();
    loop {
        let mut inputs = Vec::new();
        let mut bytes = 0;
        let mut frame = match tokio::time::timeout(SILENCE, reader.next()).await {
            Ok(frame) => frame?,
            Err(_) => return Err(WireError::Timeout { peer: reader.peer().clone(), after: SILENCE }.into()),
        };
        let mut may_rest = density.arrived();
        let is_done = loop {
            match take(frame, feed, heard) {
                Some(input) => {
                    bytes += size(&input);
                    inputs.push(input);
                }
                None => break true,
            }
            if bytes >= CHUNK_BYTES {
                break false;
            }
            // What has arrived already; reading on is cancel-safe.
            match reader.next().now_or_never() {
                Some(next) => frame = next?,
                None if !may_rest => break false,
                None => {
                    may_rest = false;
                    tokio::time::sleep(REST).await;
                    match reader.next().now_or_never() {
                        Some(next) => frame = next?,
                        None => break false,
                    }
                }
            }
        };
        density.gathered();
        let Some(permit) = budget.acquire(bytes).await else { return Ok(()) };
        match queue.try_send(Chunk { inputs, permit }) {
            Ok(()) if is_done => return Ok(()),
            Ok(()) => {}
            // The worker has ended; its own error says why.
            Err(TrySendError::Disconnected(_)) => return Ok(()),
            Err(TrySendError::Full(_)) => return Err(ReceiverError::Full),
        }
    }
}

/// How closely chunks follow each other.
struct Density {
    chunks: u32,
    since: Instant,
}

impl Density {
    fn new() -> Self {
        Density { chunks: 0, since: Instant::now() }
    }

    /// A chunk begins; whether there were many close to each other.
    fn arrived(&mut self) -> bool {
        self.chunks = if self.since.elapsed() < DENSE { self.chunks.saturating_add(1) } else { 0 };
        self.chunks >= DENSE_CHUNKS
    }

    /// A chunk is complete.
    fn gathered(&mut self) {
        self.since = Instant::now();
    }
}

/// The input in a frame; `None` at the end of the stream.
fn take(frame: ReplicationFrame, feed: &StatusFeed, heard: &Heard) -> Option<Input> {
    match frame {
        ReplicationFrame::Data { end, payload, .. } => {
            heard.note(end);
            Some(Input::Payload(payload))
        }
        ReplicationFrame::Keepalive { wal_end, reply, .. } => {
            heard.note(wal_end);
            if reply == ReplyRequested::Yes {
                feed.reply_now();
            }
            Some(Input::Reached(EndLsn::of_wal(wal_end)))
        }
        ReplicationFrame::Done => None,
    }
}

fn size(input: &Input) -> usize {
    match input {
        Input::Payload(payload) => payload.len(),
        Input::Reached(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::wire::fake::{Fake, data, serve, start};
    use crate::wire::testing::durable;

    #[tokio::test]
    async fn a_message_larger_than_the_budget_leaves_room_for_what_the_worker_holds() {
        let budget = Budget::new(1 << 20);
        let held = budget.acquire(budget.most()).await.unwrap();
        let large = budget.acquire(1 << 30).now_or_never().expect("it is let in").unwrap();
        assert_eq!(held.num_permits() + large.num_permits(), 1 << 20);
        assert!(budget.acquire(1).now_or_never().is_none());
    }

    /// The story: a full channel ended the receiver as if the source had ended
    /// the stream, and it was connected to again and again without a word.
    #[tokio::test]
    async fn a_channel_that_is_full_before_the_budget_is_used_up_is_a_bug_and_not_an_end() {
        let (info, _server) = serve(|mut fake: Fake| async move {
            fake.stream().await;
            fake.send(&data(0x20, b"no room for this")).await;
            // Stays until the receiver has gone.
            fake.socket.read_to_end(&mut Vec::new()).await
        })
        .await;
        let (reader, writer) = start(&info).await.unwrap();
        let feed = StatusFeed::spawn(writer, durable(0x10), SILENCE);
        let budget = Budget::new(1 << 20);
        let (chunks, queue) = crossbeam_channel::bounded(1);
        chunks.try_send(Chunk { inputs: Vec::new(), permit: budget.acquire(1).await.unwrap() }).unwrap();
        let ended = run(reader, chunks, budget, &feed, &Heard::default()).await.unwrap_err();
        assert!(matches!(ended, ReceiverError::Full), "{ended}");
        assert!(queue.recv().unwrap().inputs.is_empty(), "what was there before is still there");
        assert!(queue.recv().is_err(), "and nothing else");
        assert_eq!(ended.fault(), Fault::Bug);
        assert_eq!(feed.sent(), durable(0x10), "nothing of it is confirmed");
    }
}
