//! Insert, Update, Delete, Truncate: what happens to rows.
//!
//! Source: `logicalrep_read_insert`, `_update`, `_delete`, `_truncate` in
//! `src/backend/replication/logical/proto.c`.

use super::error::DecodeError;
use super::reader::Reader;
use super::tuple::{OldTuple, Tuple};
#[cfg(test)]
use super::writer::Writer;

/// `I`: a row was inserted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insert {
    /// The (sub)transaction, inside a stream only.
    pub xid: Option<u32>,
    /// The relation's oid on the source.
    pub relation: u32,
    /// The row. A row filter can leave columns unchanged even here.
    pub new: Tuple,
}

/// `U`: a row was updated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The (sub)transaction, inside a stream only.
    pub xid: Option<u32>,
    /// The relation's oid on the source.
    pub relation: u32,
    /// The old row; `None` when the key is in the new one unchanged.
    pub old: Option<OldTuple>,
    /// The row as it is now.
    pub new: Tuple,
}

/// `D`: a row was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// The (sub)transaction, inside a stream only.
    pub xid: Option<u32>,
    /// The relation's oid on the source.
    pub relation: u32,
    /// The row that is gone.
    pub old: OldTuple,
}

/// Whether TRUNCATE was said with CASCADE. The tables it reached are listed
/// anyhow if they are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cascade {
    /// `CASCADE`.
    Yes,
    /// `RESTRICT`, the default.
    No,
}

/// Whether TRUNCATE restarted the sequences that the tables own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartIdentity {
    /// `RESTART IDENTITY`.
    Yes,
    /// `CONTINUE IDENTITY`, the default.
    No,
}

/// `T`: tables were emptied by one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncate {
    /// The (sub)transaction, inside a stream only.
    pub xid: Option<u32>,
    /// CASCADE or not.
    pub cascade: Cascade,
    /// RESTART IDENTITY or not.
    pub restart_identity: RestartIdentity,
    /// The relations' oids on the source, one at least.
    pub relations: Vec<u32>,
}

const CASCADE: u8 = 1;
const RESTART: u8 = 2;

impl Insert {
    pub(super) fn read(reader: &mut Reader<'_>, xid: Option<u32>) -> Result<Self, DecodeError> {
        let relation = reader.u32("relation")?;
        match reader.u8("kind of row")? {
            b'N' => Ok(Insert { xid, relation, new: Tuple::read(reader)? }),
            other => Err(reader.refuse("kind of row", 1, other, "N")),
        }
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.xid(self.xid);
        writer.u32(self.relation);
        writer.u8(b'N');
        self.new.write(writer);
    }
}

impl Update {
    pub(super) fn read(reader: &mut Reader<'_>, xid: Option<u32>) -> Result<Self, DecodeError> {
        let relation = reader.u32("relation")?;
        let old = match reader.u8("kind of row")? {
            b'N' => return Ok(Update { xid, relation, old: None, new: Tuple::read(reader)? }),
            b'K' => OldTuple::Key(Tuple::read(reader)?),
            b'O' => OldTuple::Full(Tuple::read(reader)?),
            other => return Err(reader.refuse("kind of row", 1, other, "K, O or N")),
        };
        match reader.u8("kind of new row")? {
            b'N' => Ok(Update { xid, relation, old: Some(old), new: Tuple::read(reader)? }),
            other => Err(reader.refuse("kind of new row", 1, other, "N")),
        }
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.xid(self.xid);
        writer.u32(self.relation);
        if let Some(old) = &self.old {
            old.write(writer);
        }
        writer.u8(b'N');
        self.new.write(writer);
    }
}

impl Delete {
    pub(super) fn read(reader: &mut Reader<'_>, xid: Option<u32>) -> Result<Self, DecodeError> {
        let relation = reader.u32("relation")?;
        let old = match reader.u8("kind of row")? {
            b'K' => OldTuple::Key(Tuple::read(reader)?),
            b'O' => OldTuple::Full(Tuple::read(reader)?),
            other => return Err(reader.refuse("kind of row", 1, other, "K or O")),
        };
        Ok(Delete { xid, relation, old })
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.xid(self.xid);
        writer.u32(self.relation);
        self.old.write(writer);
    }
}

impl Truncate {
    pub(super) fn read(reader: &mut Reader<'_>, xid: Option<u32>) -> Result<Self, DecodeError> {
        // The flags come between the count and the oids, of four bytes each.
        let count = reader.count32("number of relations", 4)?;
        if count == 0 {
            return Err(reader.refuse("number of relations", 4, 0, "1 or more"));
        }
        let flags = reader.u8("flags")?;
        if flags & !(CASCADE | RESTART) != 0 {
            return Err(reader.refuse("flags", 1, flags, "0 to 3"));
        }
        let mut relations = Vec::with_capacity(count);
        for _ in 0..count {
            relations.push(reader.u32("relation")?);
        }
        let cascade = if flags & CASCADE != 0 { Cascade::Yes } else { Cascade::No };
        let restart_identity = if flags & RESTART != 0 { RestartIdentity::Yes } else { RestartIdentity::No };
        Ok(Truncate { xid, cascade, restart_identity, relations })
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.xid(self.xid);
        writer.count32("number of relations", self.relations.len());
        let cascade = if self.cascade == Cascade::Yes { CASCADE } else { 0 };
        let restart = if self.restart_identity == RestartIdentity::Yes { RESTART } else { 0 };
        writer.u8(cascade | restart);
        for relation in &self.relations {
            writer.u32(*relation);
        }
    }
}
