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

/// Starts the worker. It ends when its input or its output is gone.
///
/// # Errors
/// When no thread can be had.
pub fn spawn(
    input: Receiver<Chunk>,
    output: mpsc::Sender<Batch>,
    position: EndLsn,
    bounds: BatchBounds,
) -> Result<JoinHandle<Result<(), WorkerError>>, WorkerError> {
    let worker = Worker {
        decoder: Decoder::new(AbortInfo::Absent),
        assembler: Assembler::new(position, bounds.bytes),
        batcher: Batcher::new(bounds),
        output,
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
