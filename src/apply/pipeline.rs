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
use super::set_based::SetStatement;
use crate::config::{ConnInfo, Side};
use crate::lsn::sealed::Sealed;
use crate::lsn::{Durable, EndLsn};
use crate::wire::{self, Connection, Frame, FrameReader, FrameWriter, Peer, Purpose, ServerError, WireError};

/// Bytes gathered before they are written to the socket: large enough that a
/// system call is negligible, small enough to stay in the cache.
const WRITE_BYTES: usize = 64 * 1024;

/// Prepared statements kept on the connection. An UPDATE has a shape for each
/// set of columns that is left out; this bounds the server's memory for them.
const PREPARED_MAX: usize = 2_000;

/// Proof that the server answered COMMIT with the tag `COMMIT`; made only by
/// `Tag::parse`, and used up by the one commit that it proves.
#[derive(Debug, PartialEq, Eq)]
pub struct CommitTag {
    _private: (),
}

/// A commit the server has confirmed.
#[derive(Debug)]
pub struct Committed {
    end_lsn: EndLsn,
}

impl Committed {
    /// The transaction that moved the position to `end_lsn` was answered with
    /// this tag.
    pub fn new(_proof: CommitTag, end_lsn: EndLsn) -> Self {
        Committed { end_lsn }
    }
}

impl Sealed for Committed {}

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
#[derive(Debug, PartialEq, Eq)]
pub enum Tag {
    /// COMMIT that committed.
    Commit(CommitTag),
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
            Some("COMMIT") => Tag::Commit(CommitTag { _private: () }),
            Some("ROLLBACK") => Tag::Rollback,
            Some("INSERT" | "UPDATE" | "DELETE" | "SELECT" | "COPY") => {
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
    version: i32,
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The planner's settings on a server of this `server_version_num`, as SET
/// takes them.
pub fn plan_settings(version: i32) -> Vec<&'static str> {
    let mut settings = vec!["enable_hashjoin = off", "enable_mergejoin = off", "enable_seqscan = off"];
    if version >= 110_000 {
        // The disabled nodes' costs would have every statement compiled.
        settings.push("jit = off");
    }
    if version >= 120_000 {
        settings.push("plan_cache_mode = force_generic_plan");
    }
    settings
}

impl Pipeline {
    /// Connects to the target.
    ///
    /// # Errors
    /// When no host lets us in.
    pub async fn connect(info: &ConnInfo, application_name: &str) -> Result<Self, WireError> {
        let connection = Connection::connect(info, Purpose::Session, application_name).await?;
        let peer = connection.peer().clone();
        let version = connection.server_version();
        let (reader, writer) = connection.split();
        // Unbounded in type, bounded in fact: the applier reads the answers of
        // one batch before it sends the next, so it holds one entry a row.
        let (sender, replies) = mpsc::unbounded_channel();
        let reader = tokio::spawn(read_replies(reader, sender));
        Ok(Pipeline { writer, replies, reader, out: BytesMut::new(), prepared: HashSet::new(), peer, version })
    }

    /// The server's `server_version_num`.
    pub fn version(&self) -> i32 {
        self.version
    }

    /// Makes the planner reach the target's rows by their keys, whatever it
    /// believes about the length of an array: the batches are small beside the
    /// tables, and a plan that reads a whole table would be made once and kept.
    ///
    /// # Errors
    /// When the connection is lost or the server refuses a setting.
    pub async fn pin_plans(&mut self) -> Result<(), WireError> {
        for setting in plan_settings(self.version) {
            self.command(&format!("SET {setting}")).await?;
        }
        self.sync().await?;
        loop {
            match self.reply().await? {
                Reply::Complete(_) => {}
                Reply::Ready => return Ok(()),
                Reply::Failed(error) => return Err(self.failed(error, "a setting was refused")),
            }
        }
    }

    /// Queues a statement without parameters or result, prepared anew each time.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn command(&mut self, sql: &str) -> Result<(), WireError> {
        let encoded = frontend::parse("", sql, std::iter::empty(), &mut self.out);
        self.checked(encoded)?;
        self.bind_and_execute("", &[], &[]).await
    }

    /// Queues a statement with its parameters in text format.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn push(&mut self, shape: &Shape, params: &[Option<&[u8]>]) -> Result<(), WireError> {
        let name = self.prepare(shape)?;
        self.bind_and_execute(&name, &[], params).await
    }

    /// Queues a set-based statement.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn push_set(&mut self, statement: &SetStatement) -> Result<(), WireError> {
        match statement {
            SetStatement::Arrays { shape, arrays, rows, .. } => {
                let name = self.prepare(shape)?;
                let rows = rows.to_string();
                let count = Some(rows.as_bytes());
                let params: Vec<Option<&[u8]>> = arrays.iter().map(|array| Some(&array[..])).chain([count]).collect();
                // Arrays in binary format, the count as text.
                let formats: Vec<i16> = arrays.iter().map(|_| 1).chain([0]).collect();
                self.out.reserve(arrays.iter().map(|array| array.len() + 8).sum());
                self.bind_and_execute(&name, &formats, &params).await
            }
            SetStatement::Copy { sql, data, .. } => self.copy(sql, data).await,
        }
    }

    /// Queues a COPY FROM STDIN with its data. The data may follow at once: a
    /// server that does not copy after all passes them over
    /// (`PostgresMain`, messages `d` and `c`, in `src/backend/tcop/postgres.c`).
    async fn copy(&mut self, sql: &str, data: &[u8]) -> Result<(), WireError> {
        self.command(sql).await?;
        for chunk in data.chunks(WRITE_BYTES) {
            let message = frontend::CopyData::new(chunk).map_err(|error| self.protocol(error.to_string()))?;
            message.write(&mut self.out);
            self.write_if_large().await?;
        }
        frontend::copy_done(&mut self.out);
        Ok(())
    }

    /// Prepares a shape unless the connection knows it; gives its name.
    fn prepare(&mut self, shape: &Shape) -> Result<String, WireError> {
        let name = format!("w{}", shape.id);
        if self.prepared.insert(shape.id) {
            let encoded = frontend::parse(&name, &shape.sql, std::iter::empty(), &mut self.out);
            self.checked(encoded)?;
        }
        Ok(name)
    }

    async fn bind_and_execute(
        &mut self,
        statement: &str,
        formats: &[i16],
        params: &[Option<&[u8]>],
    ) -> Result<(), WireError> {
        let encode = |value: &Option<&[u8]>, buffer: &mut BytesMut| {
            Ok(match value {
                Some(data) => {
                    buffer.extend_from_slice(data);
                    IsNull::No
                }
                None => IsNull::Yes,
            })
        };
        let (formats, results) = (formats.iter().copied(), std::iter::empty());
        let encoded = frontend::bind("", statement, formats, params, encode, results, &mut self.out);
        match encoded {
            Ok(()) => {}
            Err(frontend::BindError::Conversion(error)) => return Err(self.protocol(error.to_string())),
            Err(frontend::BindError::Serialization(error)) => return Err(self.protocol(error.to_string())),
        }
        let encoded = frontend::execute("", 0, &mut self.out);
        self.checked(encoded)?;
        self.write_if_large().await
    }

    async fn write_if_large(&mut self) -> Result<(), WireError> {
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
                Reply::Failed(error) => return Err(self.failed(error, "ROLLBACK failed")),
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

    /// An error that nothing was sent for, or where there can be none, unless the server ends
    /// the session with it.
    pub fn failed(&self, error: Box<ServerError>, what: &str) -> WireError {
        match error.ends_the_session() {
            true => WireError::Server { peer: self.peer.clone(), error },
            false => self.protocol(format!("{what}: {error}")),
        }
    }

    fn protocol(&self, what: String) -> WireError {
        WireError::Protocol { peer: self.peer.clone(), what }
    }
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
        assert!(matches!(Tag::parse("COMMIT"), Tag::Commit(_)));
        assert_eq!(Tag::parse("COPY 3"), Tag::Rows(3));
        assert_eq!(Tag::parse("ROLLBACK"), Tag::Rollback);
        assert_eq!(Tag::parse("INSERT 0 7"), Tag::Rows(7));
        assert_eq!(Tag::parse("UPDATE 0"), Tag::Rows(0));
        assert_eq!(Tag::parse("TRUNCATE TABLE"), Tag::Other);
    }
}
