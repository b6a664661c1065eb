//! CopyBoth: what the stream brings, and what goes back.
//!
//! ```text
//! from the server, in CopyData:
//!   'w' | u64 start | u64 end | i64 sent at | payload
//!   'k' | u64 WAL end | i64 sent at | u8 reply requested
//! to the server, in CopyData:
//!   'r' | u64 written | u64 flushed | u64 applied | i64 now | u8 reply requested
//! ```
//!
//! Invariants: the only position that can be reported is a [`DurableLsn`]; the
//! message has three fields for one (written, flushed, applied), and all three
//! are it, so nothing that was merely received is ever acknowledged. An
//! ErrorResponse inside the stream is an error of the reader.
//!
//! Source: `XLogSendLogical`, `WalSndKeepalive` and `ProcessStandbyReplyMessage`
//! in `src/backend/replication/walsender.c`; `send_feedback` in
//! `logical/worker.c`.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::message::frontend;

use super::frame::server_failure;
use super::{FrameReader, FrameWriter, Peer, WireError};
use crate::lsn::{DurableLsn, Lsn};

/// From 1970-01-01 to 2000-01-01, PostgreSQL's epoch, in microseconds.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Bytes of a standby status in CopyData: type, three LSNs, a time, a flag.
const STATUS_BYTES: usize = 1 + 8 + 8 + 8 + 8 + 1;

/// Whether the server wants a status at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyRequested {
    /// It does, and closes the connection if none comes.
    Yes,
    /// No hurry.
    No,
}

/// Whether we want a keepalive at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestReply {
    /// We do.
    Yes,
    /// No need.
    No,
}

/// What the stream brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicationFrame {
    /// A message of pgoutput.
    Data {
        /// Its position; 0 for messages that have none.
        start: Lsn,
        /// The same again, in every version so far.
        end: Lsn,
        /// When it was sent, microseconds since 2000-01-01.
        sent_at: i64,
        /// The message.
        payload: Bytes,
    },
    /// A sign of life. Everything that committed before `wal_end` has been sent.
    Keepalive {
        /// How far the server has decoded; may lie before where we started.
        wal_end: Lsn,
        /// When it was sent, microseconds since 2000-01-01.
        sent_at: i64,
        /// Whether to answer at once.
        reply: ReplyRequested,
    },
    /// The server has ended the stream: it answers our end, or it shuts down.
    Done,
}

/// Whether the server still sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Open,
    Ended,
}

/// The receiving half of the stream.
pub struct ReplicationReader {
    frames: FrameReader,
    state: Direction,
}

impl ReplicationReader {
    pub(super) fn new(frames: FrameReader) -> Self {
        ReplicationReader { frames, state: Direction::Open }
    }

    /// The next message. Cancel safe. Unknown kinds of CopyData (`p`, `s` of
    /// PostgreSQL 19) are passed over as `worker.c` does. After
    /// [`ReplicationFrame::Done`] it answers `Done` again.
    ///
    /// # Errors
    /// [`WireError::Server`] with what the server says; `Closed`, `Io`,
    /// `Protocol`.
    pub async fn next(&mut self) -> Result<ReplicationFrame, WireError> {
        while self.state == Direction::Open {
            let frame = self.frames.next().await?;
            match frame.tag {
                b'd' => {
                    let message = copy_data(frame.body).map_err(|what| self.frames.protocol(what.into()))?;
                    if let Some(message) = message {
                        return Ok(message);
                    }
                }
                // CopyDone, or, when the server shuts down, CommandComplete without it.
                b'c' | b'C' => self.state = Direction::Ended,
                b'E' => return Err(server_failure(self.frames.peer(), &frame.body)),
                _ => return Err(self.frames.unexpected(&frame, "replication data")),
            }
        }
        Ok(ReplicationFrame::Done)
    }

    /// The server, for messages.
    pub fn peer(&self) -> &Peer {
        self.frames.peer()
    }
}

/// Decodes the envelope; `None` for kinds that we do not know.
fn copy_data(mut body: Bytes) -> Result<Option<ReplicationFrame>, &'static str> {
    let short = |_| "a replication message is too short";
    match body.try_get_u8().map_err(short)? {
        b'w' => {
            let start = Lsn::new(body.try_get_u64().map_err(short)?);
            let end = Lsn::new(body.try_get_u64().map_err(short)?);
            let sent_at = body.try_get_i64().map_err(short)?;
            Ok(Some(ReplicationFrame::Data { start, end, sent_at, payload: body }))
        }
        b'k' => {
            let wal_end = Lsn::new(body.try_get_u64().map_err(short)?);
            let sent_at = body.try_get_i64().map_err(short)?;
            let reply = match body.try_get_u8().map_err(short)? {
                0 => ReplyRequested::No,
                _ => ReplyRequested::Yes,
            };
            if !body.is_empty() {
                return Err("a keepalive is longer than 17 bytes");
            }
            Ok(Some(ReplicationFrame::Keepalive { wal_end, sent_at, reply }))
        }
        _ => Ok(None),
    }
}

/// The sending half of the stream: standby statuses and the end.
pub struct StatusWriter {
    frames: FrameWriter,
}

impl StatusWriter {
    pub(super) fn new(frames: FrameWriter) -> Self {
        StatusWriter { frames }
    }

    /// Reports what is durable on the target. Not cancel safe.
    ///
    /// # Errors
    /// `Closed` or `Io`; the server's reason is in the reader.
    pub async fn send(&mut self, durable: DurableLsn, reply: RequestReply) -> Result<(), WireError> {
        let message = status_message(durable, now_micros(), reply);
        self.frames.send(&message).await
    }

    /// The last status, then the end of our direction. The reader goes on
    /// until [`ReplicationFrame::Done`].
    ///
    /// # Errors
    /// As [`StatusWriter::send`].
    pub async fn finish(mut self, durable: DurableLsn) -> Result<(), WireError> {
        let mut message = status_message(durable, now_micros(), RequestReply::No);
        frontend::copy_done(&mut message);
        self.frames.send(&message).await
    }

    /// The server, for messages.
    pub fn peer(&self) -> &Peer {
        self.frames.peer()
    }
}

/// CopyData with a standby status: written = flushed = applied = durable.
fn status_message(durable: DurableLsn, at_micros: i64, reply: RequestReply) -> BytesMut {
    let mut message = BytesMut::with_capacity(5 + STATUS_BYTES);
    message.put_u8(b'd');
    message.put_u32(4 + STATUS_BYTES as u32);
    message.put_u8(b'r');
    for _ in ["written", "flushed", "applied"] {
        message.put_u64(durable.lsn().number());
    }
    message.put_i64(at_micros);
    message.put_u8(match reply {
        RequestReply::Yes => 1,
        RequestReply::No => 0,
    });
    message
}

/// Now, in microseconds since 2000-01-01; a clock before 1970 counts as 1970.
fn now_micros() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX) - POSTGRES_EPOCH_MICROS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::testing::durable;

    #[test]
    fn a_status_reports_the_durable_position_three_times() {
        let message = status_message(durable(0x0102_0304_0506_0708), 9, RequestReply::Yes);
        let lsn = [1, 2, 3, 4, 5, 6, 7, 8];
        let expected = [&b"d\0\0\0\x26r"[..], &lsn, &lsn, &lsn, &9i64.to_be_bytes(), &[1]].concat();
        assert_eq!(message, expected);
    }

    #[test]
    fn every_prefix_of_an_envelope_is_refused_and_unknown_kinds_are_passed_over() {
        let keepalive = [&b"k"[..], &7u64.to_be_bytes(), &8i64.to_be_bytes(), &[1]].concat();
        for end in 0..keepalive.len() {
            assert!(copy_data(Bytes::copy_from_slice(&keepalive[..end])).is_err(), "{end}");
        }
        let frame = ReplicationFrame::Keepalive { wal_end: Lsn::new(7), sent_at: 8, reply: ReplyRequested::Yes };
        assert_eq!(copy_data(keepalive.into()), Ok(Some(frame)));
        assert_eq!(copy_data(Bytes::from_static(b"s123")), Ok(None));
    }
}
