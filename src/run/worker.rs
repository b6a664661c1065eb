//! The worker: one OS thread for the CPU work between the two sockets.
//!
//! ```text
//! chunks of frames ─ decode ─ assemble ─ gather ─ batches
//! ```
//!
//! It hands a batch on as soon as the applier is free, and gathers on while it
//! is not: under low load a commit leaves at once, under a backlog the batches
//! grow to their bounds. No timer decides.
//!
//! Invariant: the order of the source is kept, and what was whole before an
//! undecodable message is still handed on.

use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::receiver::{Chunk, Input};
use crate::apply::batch::{Batch, Batcher};
use crate::assemble::{AssembleError, Assembler};
use crate::config::BatchBounds;
use crate::failpoint;
use crate::fault::Fault;
use crate::lsn::EndLsn;
use crate::pgoutput::{AbortInfo, DecodeError, Decoder};

/// How long the worker waits for more input before it looks again whether the
/// applier is free; only while the applier is busy and the input is empty.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Why the worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A message could not be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The messages do not make transactions.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// The operating system gave no thread.
    #[error("cannot start the decoding thread: {0}")]
    Spawn(#[source] std::io::Error),
    /// The thread panicked: a bug.
    #[error("the decoding thread panicked")]
    Panicked,
}

impl WorkerError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            WorkerError::Spawn(_) => Fault::Machine,
            WorkerError::Decode(_) | WorkerError::Assemble(_) | WorkerError::Panicked => Fault::Bug,
        }
    }
}

/// Starts the worker. It ends when its input or its output is gone. What it
/// gathers occupies at most `most` bytes of the queue.
///
/// # Errors
/// When no thread can be had.
pub fn spawn(
    input: Receiver<Chunk>,
    output: mpsc::Sender<Batch>,
    position: EndLsn,
    bounds: BatchBounds,
    most: usize,
) -> Result<JoinHandle<Result<(), WorkerError>>, WorkerError> {
    let worker = Worker {
        decoder: Decoder::new(AbortInfo::Absent),
        assembler: Assembler::new(position, bounds.bytes),
        batcher: Batcher::new(bounds),
        output,
        most,
    };
    std::thread::Builder::new()
        .name("walferry-decode".to_owned())
        .spawn(move || worker.run(&input))
        .map_err(WorkerError::Spawn)
}

/// Whether there is still somebody to work for.
enum Flow {
    Go,
    End,
}

struct Worker {
    decoder: Decoder,
    assembler: Assembler,
    batcher: Batcher,
    output: mpsc::Sender<Batch>,
    most: usize,
}

impl Worker {
    fn run(mut self, input: &Receiver<Chunk>) -> Result<(), WorkerError> {
        loop {
            let chunk = match self.next(input) {
                Some(chunk) => chunk,
                None => return Ok(()),
            };
            match self.digest(chunk) {
                Ok(Flow::Go) => {}
                Ok(Flow::End) => return Ok(()),
                Err(error) => {
                    // What is whole is good, whatever came behind it.
                    self.send();
                    return Err(error);
                }
            }
        }
    }

    /// The next chunk; hands on what is gathered whenever the applier is free.
    fn next(&mut self, input: &Receiver<Chunk>) -> Option<Chunk> {
        loop {
            match input.try_recv() {
                Ok(chunk) => return Some(chunk),
                Err(TryRecvError::Disconnected) => {
                    self.send();
                    return None;
                }
                Err(TryRecvError::Empty) => {}
            }
            if self.batcher.is_empty() {
                return input.recv().ok();
            }
            if matches!(self.offer(), Flow::End) {
                return None;
            }
            if !self.batcher.is_empty() {
                match input.recv_timeout(LOOK_AGAIN) {
                    Ok(chunk) => return Some(chunk),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
                }
            }
        }
    }

    fn digest(&mut self, chunk: Chunk) -> Result<Flow, WorkerError> {
        failpoint::hit("worker");
        let Chunk { inputs, permit } = chunk;
        self.batcher.occupy(permit);
        for input in inputs {
            let flow = match input {
                Input::Payload(payload) => self.message(payload)?,
                Input::Reached(end) => self.reached(end),
            };
            if matches!(flow, Flow::End) {
                return Ok(Flow::End);
            }
        }
        // What is held in memory, and no more: a transaction of many small
        // chunks, or messages of which nothing comes, would otherwise use the
        // queue up, and wait for ever for their own end.
        let held = self.batcher.bytes().saturating_add(self.assembler.open_bytes());
        self.batcher.release_beyond(held.min(self.most));
        Ok(Flow::Go)
    }

    fn message(&mut self, payload: bytes::Bytes) -> Result<Flow, WorkerError> {
        let length = payload.len();
        let message = self.decoder.decode(&payload)?;
        let Some(piece) = self.assembler.push(message, length)? else { return Ok(Flow::Go) };
        if !self.batcher.accepts(&piece) && matches!(self.send(), Flow::End) {
            return Ok(Flow::End);
        }
        self.batcher.push(piece);
        if self.batcher.is_full() { Ok(self.send()) } else { Ok(Flow::Go) }
    }

    /// Inside a transaction a keepalive says nothing about the position: the
    /// transaction itself is before it and not applied.
    fn reached(&mut self, end: EndLsn) -> Flow {
        if self.assembler.open_transaction().is_none() {
            self.batcher.reach(end);
        }
        Flow::Go
    }

    /// Hands on what is gathered if the applier is free to take it.
    fn offer(&mut self) -> Flow {
        match self.output.try_reserve() {
            Ok(place) => {
                place.send(self.batcher.take());
                Flow::Go
            }
            Err(TrySendError::Full(())) => Flow::Go,
            Err(TrySendError::Closed(())) => Flow::End,
        }
    }

    /// Hands on what is gathered, waiting for the applier.
    fn send(&mut self) -> Flow {
        if self.batcher.is_empty() {
            return Flow::Go;
        }
        match self.output.blocking_send(self.batcher.take()) {
            Ok(()) => Flow::Go,
            Err(_) => Flow::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lsn::{CommitLsn, Lsn};
    use crate::pgoutput::{
        Begin, Commit, Insert, KeyColumn, Message, RelationColumn, RelationMessage, ReplicaIdentity, Tuple, Value,
    };
    use crate::run::receiver::{Budget, CHUNKS_MAX, Input};

    fn begin() -> Message {
        Message::Begin(Begin { final_lsn: CommitLsn::of_record(Lsn::new(100)), commit_time: 5, xid: 9 })
    }

    fn relation() -> Message {
        let id = RelationColumn { key: KeyColumn::Yes, name: "id".to_owned(), type_oid: 25, type_modifier: -1 };
        Message::Relation(RelationMessage {
            xid: None,
            id: 1,
            schema: "public".to_owned(),
            name: "t".to_owned(),
            replica_identity: ReplicaIdentity::Default,
            columns: vec![id],
        })
    }

    fn insert() -> Message {
        Message::Insert(Insert { xid: None, relation: 1, new: Tuple::from_values(&[Value::Text(b"1")]).unwrap() })
    }

    fn commit() -> Message {
        Message::Commit(Commit {
            commit_lsn: CommitLsn::of_record(Lsn::new(100)),
            end_lsn: EndLsn::of_commit(Lsn::new(120)),
            commit_time: 5,
        })
    }

    /// The story: a walsender that reads a large transaction back from disk
    /// sends its rows one by one. Each was a chunk and took a thousandth of the
    /// queue until the commit, and after a thousand of them the commit itself
    /// could not be read any more.
    #[tokio::test]
    async fn a_transaction_of_more_chunks_than_the_queue_has_places_comes_through() {
        let budget = Budget::new(1 << 20);
        let (chunks, queue) = crossbeam_channel::bounded(CHUNKS_MAX);
        let (output, mut batches) = mpsc::channel(1);
        let bounds = BatchBounds { rows: 100_000, bytes: 1 << 20 };
        let worker = spawn(queue, output, EndLsn::of_commit(Lsn::new(10)), bounds, budget.most()).unwrap();
        let rows = 3 * CHUNKS_MAX;
        let messages = [begin(), relation()].into_iter().chain(std::iter::repeat_n(insert(), rows)).chain([commit()]);
        for message in messages {
            let payload = message.encode().unwrap();
            let permit = tokio::time::timeout(Duration::from_secs(10), budget.acquire(payload.len()));
            let permit = permit.await.expect("the queue lets it in").unwrap();
            chunks.send(Chunk { inputs: vec![Input::Payload(payload)], permit }).unwrap();
        }
        let batch = batches.recv().await.unwrap();
        assert_eq!((batch.rows, batch.end), (rows, Some(EndLsn::of_commit(Lsn::new(120)))));
        drop((chunks, batch));
        tokio::task::spawn_blocking(move || worker.join()).await.unwrap().unwrap().unwrap();
    }
}
