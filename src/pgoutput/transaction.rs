//! Begin, Commit, Origin and logical messages: what frames and accompanies the
//! rows of a transaction.
//!
//! Source: `logicalrep_read_begin`, `_commit`, `_origin` and
//! `logicalrep_write_message` in `src/backend/replication/logical/proto.c`.

use std::fmt;

use bytes::Bytes;

use super::error::DecodeError;
use super::reader::Reader;
#[cfg(test)]
use super::writer::Writer;
use crate::lsn::{CommitLsn, EndLsn, Lsn};

/// `B`: a transaction follows, whole and committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Start of its commit record.
    pub final_lsn: CommitLsn,
    /// When it committed, in µs since 2000-01-01 00:00 UTC.
    pub commit_time: i64,
    /// The top-level transaction.
    pub xid: u32,
}

/// `C`: the transaction is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Start of its commit record, as in [`Begin`].
    pub commit_lsn: CommitLsn,
    /// End of its commit record: what the position becomes.
    pub end_lsn: EndLsn,
    /// When it committed, in µs since 2000-01-01 00:00 UTC.
    pub commit_time: i64,
}

/// `O`: the transaction came to the source from elsewhere. Follows the Begin,
/// or the first StreamStart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its commit on the server it came from; 0 inside a stream.
    pub origin_lsn: Lsn,
    /// The name of the replication origin on the source.
    pub name: String,
}

/// Whether a logical message belongs to the transaction around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transactional {
    /// It comes with its transaction, and only if that commits.
    Yes,
    /// It comes at once, inside no transaction, and may come again.
    No,
}

/// `M`: what `pg_logical_emit_message` was given.
#[derive(Clone, PartialEq, Eq)]
pub struct LogicalMessage {
    /// The (sub)transaction, inside a stream only.
    pub xid: Option<u32>,
    /// Whether it belongs to a transaction.
    pub transactional: Transactional,
    /// Where it is in the source's WAL.
    pub lsn: Lsn,
    /// Names who it is for.
    pub prefix: String,
    /// The content.
    pub content: Bytes,
}

/// Shows the content's length, not the content.
impl fmt::Debug for LogicalMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogicalMessage")
            .field("xid", &self.xid)
            .field("transactional", &self.transactional)
            .field("lsn", &self.lsn)
            .field("prefix", &self.prefix)
            .field("content_bytes", &self.content.len())
            .finish()
    }
}

impl Begin {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let final_lsn = reader.commit_lsn("final LSN")?;
        let commit_time = reader.i64("commit time")?;
        Ok(Begin { final_lsn, commit_time, xid: reader.u32("xid")? })
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.lsn(self.final_lsn.lsn());
        writer.i64(self.commit_time);
        writer.u32(self.xid);
    }
}

impl Commit {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.no_flags()?;
        let commit_lsn = reader.commit_lsn("commit LSN")?;
        let end_lsn = reader.end_lsn("end LSN")?;
        Ok(Commit { commit_lsn, end_lsn, commit_time: reader.i64("commit time")? })
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u8(0);
        writer.lsn(self.commit_lsn.lsn());
        writer.lsn(self.end_lsn.lsn());
        writer.i64(self.commit_time);
    }
}

impl Origin {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let origin_lsn = reader.lsn("origin LSN")?;
        Ok(Origin { origin_lsn, name: reader.string("origin name")? })
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.lsn(self.origin_lsn);
        writer.string("origin name", &self.name);
    }
}

impl LogicalMessage {
    pub(super) fn read(reader: &mut Reader<'_>, xid: Option<u32>) -> Result<Self, DecodeError> {
        let transactional = match reader.u8("flags")? {
            0 => Transactional::No,
            1 => Transactional::Yes,
            other => return Err(reader.refuse("flags", 1, other, "0 or 1")),
        };
        let lsn = reader.lsn("LSN")?;
        let prefix = reader.string("prefix")?;
        let length = reader.count32("length", 1)?;
        let content = reader.take("content", length)?;
        let content = reader.frame().slice_ref(content);
        Ok(LogicalMessage { xid, transactional, lsn, prefix, content })
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.xid(self.xid);
        writer.u8(u8::from(self.transactional == Transactional::Yes));
        writer.lsn(self.lsn);
        writer.string("prefix", &self.prefix);
        writer.count32("length", self.content.len());
        writer.raw(&self.content);
    }
}
