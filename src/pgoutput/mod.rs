//! The messages of `pgoutput`, protocol versions 1 to 4: bytes in, messages
//! out, and in tests back, for scripted servers. Pure: no I/O.
//!
//! Invariant: every byte of a payload is accounted for, or the payload is an
//! error that names message, field and offset. No input panics.
//!
//! Source: `src/backend/replication/logical/proto.c`; the byte table is in
//! `proto-notes/pgoutput.md`. One file a group of messages, decoding and
//! (for tests only) encoding side by side: [`transaction`], [`relation`],
//! [`row`], [`stream`], [`prepare`].
#![deny(clippy::indexing_slicing)]

mod error;
#[cfg(test)]
mod fixtures_test;
pub mod prepare;
mod reader;
pub mod relation;
pub mod row;
pub mod stream;
pub mod transaction;
mod tuple;
#[cfg(test)]
mod writer;

use bytes::Bytes;

#[cfg(test)]
pub(crate) use error::EncodeError;
pub use error::{DecodeError, Fault};
pub use prepare::{CommitPrepared, Prepared, RollbackPrepared};
pub use relation::{KeyColumn, RelationColumn, RelationMessage, ReplicaIdentity, TypeMessage};
pub use row::{Cascade, Delete, Insert, RestartIdentity, Truncate, Update};
pub use stream::{AbortDetail, AbortInfo, Segment, StreamAbort, StreamCommit, StreamStart};
pub use transaction::{Begin, Commit, LogicalMessage, Origin, Transactional};
pub use tuple::{OldTuple, Tuple, Value};

use reader::Reader;
#[cfg(test)]
use writer::Writer;

/// One message of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// `B`
    Begin(Begin),
    /// `C`
    Commit(Commit),
    /// `O`
    Origin(Origin),
    /// `R`
    Relation(RelationMessage),
    /// `Y`
    Type(TypeMessage),
    /// `I`
    Insert(Insert),
    /// `U`
    Update(Update),
    /// `D`
    Delete(Delete),
    /// `T`
    Truncate(Truncate),
    /// `M`
    Logical(LogicalMessage),
    /// `S`
    StreamStart(StreamStart),
    /// `E`
    StreamStop,
    /// `c`
    StreamCommit(StreamCommit),
    /// `A`
    StreamAbort(StreamAbort),
    /// `b`
    BeginPrepare(Prepared),
    /// `P`
    Prepare(Prepared),
    /// `K`
    CommitPrepared(CommitPrepared),
    /// `r`
    RollbackPrepared(RollbackPrepared),
    /// `p`
    StreamPrepare(Prepared),
}

/// Whether messages carry the xid of their (sub)transaction: between
/// StreamStart and StreamStop, and only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InStream {
    /// Between StreamStart and StreamStop.
    Yes,
    /// Anywhere else.
    No,
}

/// Decodes the payloads of one connection in their order.
#[derive(Clone, Debug)]
pub struct Decoder {
    in_stream: InStream,
    abort_info: AbortInfo,
}

impl Decoder {
    /// A decoder for a new connection. `abort_info` is [`AbortInfo::Present`]
    /// exactly if `streaming 'parallel'` was asked for.
    pub fn new(abort_info: AbortInfo) -> Self {
        Decoder { in_stream: InStream::No, abort_info }
    }

    /// Decodes the next payload: what an XLogData message holds behind its
    /// header. The rows of the message share `payload`.
    ///
    /// # Errors
    /// [`DecodeError`] for anything but one whole known message. The decoder is
    /// then where it was before.
    pub fn decode(&mut self, payload: &Bytes) -> Result<Message, DecodeError> {
        let message = decode(payload, self.in_stream, self.abort_info)?;
        match message {
            Message::StreamStart(_) => self.in_stream = InStream::Yes,
            Message::StreamStop => self.in_stream = InStream::No,
            _ => {}
        }
        Ok(message)
    }
}

/// Decodes one payload whose context is known.
///
/// # Errors
/// [`DecodeError`] for anything but one whole known message.
pub fn decode(payload: &Bytes, in_stream: InStream, abort_info: AbortInfo) -> Result<Message, DecodeError> {
    let mut reader = Reader::new(payload);
    let tag = reader.tag(name_of)?;
    let xid = match in_stream {
        InStream::Yes if carries_xid(tag) => Some(reader.u32("xid")?),
        InStream::Yes | InStream::No => None,
    };
    let message = match tag {
        b'B' => Message::Begin(Begin::read(&mut reader)?),
        b'C' => Message::Commit(Commit::read(&mut reader)?),
        b'O' => Message::Origin(Origin::read(&mut reader)?),
        b'R' => Message::Relation(RelationMessage::read(&mut reader, xid)?),
        b'Y' => Message::Type(TypeMessage::read(&mut reader, xid)?),
        b'I' => Message::Insert(Insert::read(&mut reader, xid)?),
        b'U' => Message::Update(Update::read(&mut reader, xid)?),
        b'D' => Message::Delete(Delete::read(&mut reader, xid)?),
        b'T' => Message::Truncate(Truncate::read(&mut reader, xid)?),
        b'M' => Message::Logical(LogicalMessage::read(&mut reader, xid)?),
        b'S' => Message::StreamStart(StreamStart::read(&mut reader)?),
        b'E' => Message::StreamStop,
        b'c' => Message::StreamCommit(StreamCommit::read(&mut reader)?),
        b'A' => Message::StreamAbort(StreamAbort::read(&mut reader, abort_info)?),
        b'b' => Message::BeginPrepare(Prepared::read_begin(&mut reader)?),
        b'P' => Message::Prepare(Prepared::read(&mut reader)?),
        b'p' => Message::StreamPrepare(Prepared::read(&mut reader)?),
        b'K' => Message::CommitPrepared(CommitPrepared::read(&mut reader)?),
        b'r' => Message::RollbackPrepared(RollbackPrepared::read(&mut reader)?),
        _ => return Err(reader.error("tag", 0, Fault::UnknownTag)),
    };
    reader.finish()?;
    Ok(message)
}

fn carries_xid(tag: u8) -> bool {
    matches!(tag, b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M')
}

/// The message's name, for errors; `None` where there is no such message.
fn name_of(tag: u8) -> Option<&'static str> {
    Some(match tag {
        b'B' => "Begin",
        b'C' => "Commit",
        b'O' => "Origin",
        b'R' => "Relation",
        b'Y' => "Type",
        b'I' => "Insert",
        b'U' => "Update",
        b'D' => "Delete",
        b'T' => "Truncate",
        b'M' => "Message",
        b'S' => "StreamStart",
        b'E' => "StreamStop",
        b'c' => "StreamCommit",
        b'A' => "StreamAbort",
        b'b' => "BeginPrepare",
        b'P' => "Prepare",
        b'p' => "StreamPrepare",
        b'K' => "CommitPrepared",
        b'r' => "RollbackPrepared",
        _ => return None,
    })
}

impl Message {
    /// The message's tag on the wire.
    pub fn tag(&self) -> u8 {
        match self {
            Message::Begin(_) => b'B',
            Message::Commit(_) => b'C',
            Message::Origin(_) => b'O',
            Message::Relation(_) => b'R',
            Message::Type(_) => b'Y',
            Message::Insert(_) => b'I',
            Message::Update(_) => b'U',
            Message::Delete(_) => b'D',
            Message::Truncate(_) => b'T',
            Message::Logical(_) => b'M',
            Message::StreamStart(_) => b'S',
            Message::StreamStop => b'E',
            Message::StreamCommit(_) => b'c',
            Message::StreamAbort(_) => b'A',
            Message::BeginPrepare(_) => b'b',
            Message::Prepare(_) => b'P',
            Message::StreamPrepare(_) => b'p',
            Message::CommitPrepared(_) => b'K',
            Message::RollbackPrepared(_) => b'r',
        }
    }

    /// The message's name as PostgreSQL's documentation has it.
    pub fn name(&self) -> &'static str {
        name_of(self.tag()).unwrap_or("unknown")
    }

    /// The payload that decodes to this message: tests are servers.
    ///
    /// # Errors
    /// [`EncodeError`] when a count or a length does not fit, or a name has a
    /// zero byte.
    #[cfg(test)]
    pub(crate) fn encode(&self) -> Result<Bytes, EncodeError> {
        let mut writer = Writer::new(self.tag());
        match self {
            Message::Begin(message) => message.write(&mut writer),
            Message::Commit(message) => message.write(&mut writer),
            Message::Origin(message) => message.write(&mut writer),
            Message::Relation(message) => message.write(&mut writer),
            Message::Type(message) => message.write(&mut writer),
            Message::Insert(message) => message.write(&mut writer),
            Message::Update(message) => message.write(&mut writer),
            Message::Delete(message) => message.write(&mut writer),
            Message::Truncate(message) => message.write(&mut writer),
            Message::Logical(message) => message.write(&mut writer),
            Message::StreamStart(message) => message.write(&mut writer),
            Message::StreamStop => {}
            Message::StreamCommit(message) => message.write(&mut writer),
            Message::StreamAbort(message) => message.write(&mut writer),
            Message::BeginPrepare(message) => message.write_begin(&mut writer),
            Message::Prepare(message) | Message::StreamPrepare(message) => message.write(&mut writer),
            Message::CommitPrepared(message) => message.write(&mut writer),
            Message::RollbackPrepared(message) => message.write(&mut writer),
        }
        writer.finish()
    }
}
