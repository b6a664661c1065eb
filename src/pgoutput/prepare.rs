//! BeginPrepare, Prepare, StreamPrepare, CommitPrepared, RollbackPrepared:
//! two-phase transactions as such (protocol 3, PostgreSQL 15, on a slot made
//! with TWO_PHASE). Other slots send them as ordinary transactions at COMMIT
//! PREPARED.
//!
//! Source: `logicalrep_read_begin_prepare`, `_prepare`, `_commit_prepared`,
//! `_rollback_prepared` in `src/backend/replication/logical/proto.c`.

use super::error::DecodeError;
use super::reader::Reader;
#[cfg(test)]
use super::writer::Writer;
use crate::lsn::{CommitLsn, EndLsn};

/// A prepared transaction: the content of `b`, `P` and `p`, which differ in
/// their flags byte only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Start of the prepare record, which orders it among the commits.
    pub prepare_lsn: CommitLsn,
    /// End of the prepare record.
    pub end_lsn: EndLsn,
    /// When it was prepared, in µs since 2000-01-01 00:00 UTC.
    pub prepare_time: i64,
    /// The top-level transaction.
    pub xid: u32,
    /// The name given to PREPARE TRANSACTION.
    pub gid: String,
}

/// `K`: a prepared transaction was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPrepared {
    /// Start of the record of COMMIT PREPARED.
    pub commit_lsn: CommitLsn,
    /// End of that record.
    pub end_lsn: EndLsn,
    /// When, in µs since 2000-01-01 00:00 UTC.
    pub commit_time: i64,
    /// The top-level transaction.
    pub xid: u32,
    /// The name given to PREPARE TRANSACTION.
    pub gid: String,
}

/// `r`: a prepared transaction was rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollbackPrepared {
    /// End of the prepare record.
    pub prepare_end_lsn: EndLsn,
    /// End of the record of ROLLBACK PREPARED.
    pub rollback_end_lsn: EndLsn,
    /// When it was prepared, in µs since 2000-01-01 00:00 UTC.
    pub prepare_time: i64,
    /// When it was rolled back, in µs since 2000-01-01 00:00 UTC.
    pub rollback_time: i64,
    /// The top-level transaction.
    pub xid: u32,
    /// The name given to PREPARE TRANSACTION.
    pub gid: String,
}

impl Prepared {
    /// `b`: has no flags.
    pub(super) fn read_begin(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let prepare_lsn = reader.commit_lsn("prepare LSN")?;
        let end_lsn = reader.end_lsn("end LSN")?;
        let prepare_time = reader.i64("prepare time")?;
        let xid = reader.u32("xid")?;
        Ok(Prepared { prepare_lsn, end_lsn, prepare_time, xid, gid: reader.string("gid")? })
    }

    /// `P` and `p`.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.no_flags()?;
        Self::read_begin(reader)
    }

    #[cfg(test)]
    pub(super) fn write_begin(&self, writer: &mut Writer) {
        writer.lsn(self.prepare_lsn.lsn());
        writer.lsn(self.end_lsn.lsn());
        writer.i64(self.prepare_time);
        writer.u32(self.xid);
        writer.string("gid", &self.gid);
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u8(0);
        self.write_begin(writer);
    }
}

impl CommitPrepared {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.no_flags()?;
        let commit_lsn = reader.commit_lsn("commit LSN")?;
        let end_lsn = reader.end_lsn("end LSN")?;
        let commit_time = reader.i64("commit time")?;
        let xid = reader.u32("xid")?;
        Ok(CommitPrepared { commit_lsn, end_lsn, commit_time, xid, gid: reader.string("gid")? })
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u8(0);
        writer.lsn(self.commit_lsn.lsn());
        writer.lsn(self.end_lsn.lsn());
        writer.i64(self.commit_time);
        writer.u32(self.xid);
        writer.string("gid", &self.gid);
    }
}

impl RollbackPrepared {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.no_flags()?;
        let prepare_end_lsn = reader.end_lsn("prepare end LSN")?;
        let rollback_end_lsn = reader.end_lsn("rollback end LSN")?;
        let prepare_time = reader.i64("prepare time")?;
        let rollback_time = reader.i64("rollback time")?;
        let xid = reader.u32("xid")?;
        let gid = reader.string("gid")?;
        Ok(RollbackPrepared { prepare_end_lsn, rollback_end_lsn, prepare_time, rollback_time, xid, gid })
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u8(0);
        writer.lsn(self.prepare_end_lsn.lsn());
        writer.lsn(self.rollback_end_lsn.lsn());
        writer.i64(self.prepare_time);
        writer.i64(self.rollback_time);
        writer.u32(self.xid);
        writer.string("gid", &self.gid);
    }
}
