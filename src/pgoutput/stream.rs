//! StreamStart, StreamStop, StreamCommit, StreamAbort: transactions that the
//! source sends before it knows whether they commit (protocol 2, PostgreSQL
//! 14; abort details with `streaming 'parallel'`, protocol 4, PostgreSQL 16).
//!
//! Source: `logicalrep_read_stream_start`, `_commit`, `_abort` in
//! `src/backend/replication/logical/proto.c`.

use super::error::DecodeError;
use super::reader::Reader;
#[cfg(test)]
use super::writer::Writer;
use crate::lsn::{CommitLsn, EndLsn, Lsn};

/// Whether a stream segment opens its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// The first of its transaction.
    First,
    /// Goes on with a transaction that has been opened.
    Later,
}

/// `S`: messages of this transaction follow, up to the next StreamStop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStart {
    /// The top-level transaction.
    pub xid: u32,
    /// Whether it is its first segment.
    pub segment: Segment,
}

/// `c`: a streamed transaction has committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamCommit {
    /// The top-level transaction.
    pub xid: u32,
    /// Start of its commit record.
    pub commit_lsn: CommitLsn,
    /// End of its commit record.
    pub end_lsn: EndLsn,
    /// When it committed, in µs since 2000-01-01 00:00 UTC.
    pub commit_time: i64,
}

/// Whether StreamAbort tells where and when: only if `streaming 'parallel'`
/// was asked for, which the message itself does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortInfo {
    /// `streaming 'parallel'`.
    Present,
    /// Any other.
    Absent,
}

/// Where and when a streamed (sub)transaction was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortDetail {
    /// Its abort record; 0 after a crash of the source.
    pub abort_lsn: Lsn,
    /// In µs since 2000-01-01 00:00 UTC.
    pub abort_time: i64,
}

/// `A`: a streamed transaction or one of its subtransactions was rolled back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamAbort {
    /// The top-level transaction.
    pub xid: u32,
    /// What was rolled back; the same as `xid` for all of it.
    pub subxid: u32,
    /// With [`AbortInfo::Present`] only.
    pub detail: Option<AbortDetail>,
}

impl StreamStart {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let xid = reader.u32("xid")?;
        let segment = match reader.u8("first segment")? {
            1 => Segment::First,
            0 => Segment::Later,
            other => return Err(reader.refuse("first segment", 1, other, "0 or 1")),
        };
        Ok(StreamStart { xid, segment })
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u32(self.xid);
        writer.u8(u8::from(self.segment == Segment::First));
    }
}

impl StreamCommit {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let xid = reader.u32("xid")?;
        reader.no_flags()?;
        let commit_lsn = reader.commit_lsn("commit LSN")?;
        let end_lsn = reader.end_lsn("end LSN")?;
        Ok(StreamCommit { xid, commit_lsn, end_lsn, commit_time: reader.i64("commit time")? })
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u32(self.xid);
        writer.u8(0);
        writer.lsn(self.commit_lsn.lsn());
        writer.lsn(self.end_lsn.lsn());
        writer.i64(self.commit_time);
    }
}

impl StreamAbort {
    pub(super) fn read(reader: &mut Reader<'_>, info: AbortInfo) -> Result<Self, DecodeError> {
        let xid = reader.u32("xid")?;
        let subxid = reader.u32("subxid")?;
        let detail = match info {
            AbortInfo::Absent => None,
            AbortInfo::Present => {
                let abort_lsn = reader.lsn("abort LSN")?;
                Some(AbortDetail { abort_lsn, abort_time: reader.i64("abort time")? })
            }
        };
        Ok(StreamAbort { xid, subxid, detail })
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u32(self.xid);
        writer.u32(self.subxid);
        if let Some(detail) = self.detail {
            writer.lsn(detail.abort_lsn);
            writer.i64(detail.abort_time);
        }
    }
}
