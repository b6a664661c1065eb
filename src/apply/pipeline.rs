//! The apply connection: statements go out without waiting for answers; a task
//! reads the answers as they come, so neither side ever blocks the other.
//!
//! Invariants: a [`Committed`] exists only where the server answered COMMIT
//! with the tag `COMMIT` (it answers `ROLLBACK` when the transaction had
//! failed, and that is no commit); after an error everything up to the next
//! Sync is skipped by the server, so nothing behind a failed statement runs.
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html>,
//! "Extended Query" and "Pipelining".

use std::collections::HashSet;

use bytes::{Buf, BytesMut};
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use tokio::sync::mpsc;

use super::render::Shape;
use crate::config::{ConnInfo, Side};
use crate::lsn::{Durable, EndLsn};
use crate::wire::{self, Connection, Frame, FrameReader, FrameWriter, Peer, Purpose, ServerError, WireError};

/// Bytes gathered before they are written to the socket: large enough that a
/// system call is negligible, small enough to stay in the cache.
const WRITE_BYTES: usize = 64 * 1024;

/// Prepared statements kept on the connection. An UPDATE has a shape for each
/// set of columns that is left out; this bounds the server's memory for them.
const PREPARED_MAX: usize = 2_000;

/// A commit the server has confirmed; made only by [`Pipeline::committed`].
#[derive(Debug)]
pub struct Committed {
    end_lsn: EndLsn,
}

impl Durable for Committed {
    fn end_lsn(&self) -> EndLsn {
        self.end_lsn
    }
}

/// What the server answered to one statement or Sync.
#[derive(Debug)]
pub enum Reply {
    /// The statement is done.
    Complete(Tag),
    /// The statement failed; everything up to the next Sync is skipped.
    Failed(Box<ServerError>),
    /// A Sync was reached.
    Ready,
}

/// A command tag, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// COMMIT that committed.
    Commit,
    /// Also the answer to COMMIT in a failed transaction.
    Rollback,
    /// A statement that counts rows.
    Rows(u64),
    /// Any other.
    Other,
}

impl Tag {
    fn parse(text: &str) -> Self {
        let mut words = text.split(' ');
        match words.next() {
            Some("COMMIT") => Tag::Commit,
            Some("ROLLBACK") => Tag::Rollback,
            Some("INSERT" | "UPDATE" | "DELETE" | "SELECT") => {
                words.next_back().and_then(|count| count.parse().ok()).map_or(Tag::Other, Tag::Rows)
            }
            _ => Tag::Other,
        }
    }
}

/// A connection for applying batches.
pub struct Pipeline {
    writer: FrameWriter,
    replies: mpsc::UnboundedReceiver<Result<Reply, WireError>>,
    reader: tokio::task::JoinHandle<()>,
    out: BytesMut,
    prepared: HashSet<u64>,
    peer: Peer,
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Pipeline {
    /// Connects to the target.
    ///
    /// # Errors
    /// When no host lets us in.
    pub async fn connect(info: &ConnInfo, application_name: &str) -> Result<Self, WireError> {
        let connection = Connection::connect(info, Purpose::Session, application_name).await?;
        let peer = connection.peer().clone();
        let (reader, writer) = connection.split();
        // Unbounded in type, bounded in fact: the applier reads the answers of
        // one batch before it sends the next, so it holds one entry a row.
        let (sender, replies) = mpsc::unbounded_channel();
        let reader = tokio::spawn(read_replies(reader, sender));
        Ok(Pipeline { writer, replies, reader, out: BytesMut::new(), prepared: HashSet::new(), peer })
    }

    /// Queues a statement without parameters or result, prepared anew each time.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn command(&mut self, sql: &str) -> Result<(), WireError> {
        let encoded = frontend::parse("", sql, std::iter::empty(), &mut self.out);
        self.checked(encoded)?;
        self.bind_and_execute("", &[]).await
    }

    /// Queues a statement with its parameters in text format.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn push(&mut self, shape: &Shape, params: &[Option<&[u8]>]) -> Result<(), WireError> {
        let name = format!("w{}", shape.id);
        if self.prepared.insert(shape.id) {
            let encoded = frontend::parse(&name, &shape.sql, std::iter::empty(), &mut self.out);
            self.checked(encoded)?;
        }
        self.bind_and_execute(&name, params).await
    }

    async fn bind_and_execute(&mut self, statement: &str, params: &[Option<&[u8]>]) -> Result<(), WireError> {
        let encoded = frontend::bind(
            "",
            statement,
            std::iter::empty(),
            params,
            |value, buffer| {
                Ok(match value {
                    Some(text) => {
                        buffer.extend_from_slice(text);
                        IsNull::No
                    }
                    None => IsNull::Yes,
                })
            },
            std::iter::empty(),
            &mut self.out,
        );
        match encoded {
            Ok(()) => {}
            Err(frontend::BindError::Conversion(error)) => return Err(self.protocol(error.to_string())),
            Err(frontend::BindError::Serialization(error)) => return Err(self.protocol(error.to_string())),
        }
        let encoded = frontend::execute("", 0, &mut self.out);
        self.checked(encoded)?;
        if self.out.len() >= WRITE_BYTES { self.write().await } else { Ok(()) }
    }

    /// Ends a group of statements and sends all that is queued.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn sync(&mut self) -> Result<(), WireError> {
        frontend::sync(&mut self.out);
        self.write().await?;
        self.writer.flush().await
    }

    async fn write(&mut self) -> Result<(), WireError> {
        self.writer.send(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// The next answer. Cancel-safe.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn reply(&mut self) -> Result<Reply, WireError> {
        match self.replies.recv().await {
            Some(reply) => reply,
            None => Err(self.protocol("the connection's reader has ended".to_owned())),
        }
    }

    /// Queues COMMIT and sends it, without waiting for its answer.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn send_commit(&mut self) -> Result<(), WireError> {
        self.command("COMMIT").await?;
        self.sync().await
    }

    /// Takes the two answers to [`Self::send_commit`]. Not cancel-safe between
    /// the two, which is why it waits for the first in [`Self::reply`] only.
    ///
    /// # Errors
    /// [`CommitError`] when the server did not commit.
    pub async fn committed(&mut self, first: Reply, end_lsn: EndLsn) -> Result<Committed, CommitError> {
        let second = self.reply().await?;
        match (first, second) {
            (Reply::Complete(Tag::Commit), Reply::Ready) => Ok(Committed { end_lsn }),
            (Reply::Failed(error), Reply::Ready) => Err(CommitError::Refused(error)),
            (Reply::Complete(Tag::Rollback), _) => Err(CommitError::RolledBack),
            (first, _) => Err(self.protocol(format!("unexpected answer to COMMIT: {first:?}")).into()),
        }
    }

    /// After a failure, and with its Sync answered: ends the transaction and
    /// forgets the prepared statements, some of which the server never saw.
    ///
    /// # Errors
    /// When the connection is lost or the server refuses even that.
    pub async fn roll_back(&mut self) -> Result<(), WireError> {
        self.command("ROLLBACK").await?;
        self.command("DEALLOCATE ALL").await?;
        self.sync().await?;
        self.prepared.clear();
        loop {
            match self.reply().await? {
                Reply::Complete(_) => {}
                Reply::Ready => return Ok(()),
                Reply::Failed(error) => return Err(self.protocol(format!("ROLLBACK failed: {error}"))),
            }
        }
    }

    /// Forgets all prepared statements when there are too many. To be called
    /// outside a transaction with no answer outstanding.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn trim(&mut self) -> Result<(), WireError> {
        if self.prepared.len() > PREPARED_MAX { self.roll_back().await } else { Ok(()) }
    }

    fn checked(&self, encoded: std::io::Result<()>) -> Result<(), WireError> {
        encoded.map_err(|error| self.protocol(error.to_string()))
    }

    fn protocol(&self, what: String) -> WireError {
        WireError::Protocol { peer: self.peer.clone(), what }
    }
}

/// Why COMMIT did not commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The connection is lost: whether the server committed is unknown until
    /// the position is read back.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The server refused it (a deferred constraint, a serialization failure).
    #[error("{0}")]
    Refused(Box<ServerError>),
    /// The transaction had failed before.
    #[error("COMMIT was answered with ROLLBACK: the transaction had failed before")]
    RolledBack,
}

/// Reads answers until the connection ends or nobody listens any more.
async fn read_replies(mut reader: FrameReader, sender: mpsc::UnboundedSender<Result<Reply, WireError>>) {
    loop {
        let reply = match reader.next().await {
            Ok(frame) => interpret(reader.peer().side, &frame),
            Err(error) => Some(Err(error)),
        };
        let Some(reply) = reply else { continue };
        let is_last = reply.is_err();
        if sender.send(reply).is_err() || is_last {
            return;
        }
    }
}

/// The reply in a frame; `None` for those that say nothing new
/// (ParseComplete, BindComplete, DataRow and their like).
fn interpret(side: Side, frame: &Frame) -> Option<Result<Reply, WireError>> {
    match frame.tag {
        b'C' => {
            let mut body = frame.body.clone();
            body.truncate(body.len().saturating_sub(1));
            let tag = Tag::parse(&String::from_utf8_lossy(body.chunk()));
            Some(Ok(Reply::Complete(tag)))
        }
        b'E' => Some(wire::server_error(side, &frame.body).map(|error| Reply::Failed(Box::new(error)))),
        b'Z' => Some(Ok(Reply::Ready)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tag_commit_is_a_commit() {
        assert_eq!(Tag::parse("COMMIT"), Tag::Commit);
        assert_eq!(Tag::parse("ROLLBACK"), Tag::Rollback);
        assert_eq!(Tag::parse("INSERT 0 7"), Tag::Rows(7));
        assert_eq!(Tag::parse("UPDATE 0"), Tag::Rows(0));
        assert_eq!(Tag::parse("TRUNCATE TABLE"), Tag::Other);
    }
}
