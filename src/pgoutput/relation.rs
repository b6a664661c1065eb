//! Relation and Type: what the rows that follow look like.
//!
//! Source: `logicalrep_read_rel`, `logicalrep_read_attrs` and
//! `logicalrep_read_typ` in `src/backend/replication/logical/proto.c`.

use super::error::DecodeError;
use super::reader::Reader;
#[cfg(test)]
use super::writer::Writer;

/// How the source identifies the old row (`pg_class.relreplident`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// Nothing: updates and deletes cannot be published.
    Nothing,
    /// All columns.
    Full,
    /// An index of the table.
    Index,
}

/// Whether a column belongs to the replica identity. Under
/// [`ReplicaIdentity::Full`] every column does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyColumn {
    /// Part of the replica identity.
    Yes,
    /// Not part of it.
    No,
}

/// A published column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn {
    /// Whether it is part of the replica identity.
    pub key: KeyColumn,
    /// Its name, unquoted.
    pub name: String,
    /// Its type's oid on the source; a domain's own, not its base type's.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`, -1 for none.
    pub type_modifier: i32,
}

/// `R`: describes a relation before its first row, and again after anything
/// that might have changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationMessage {
    /// The (sub)transaction, inside a stream only.
    pub xid: Option<u32>,
    /// The relation's oid on the source.
    pub id: u32,
    /// Its schema. The wire's empty name is `pg_catalog` here.
    pub schema: String,
    /// Its name, unquoted.
    pub name: String,
    /// How old rows are identified.
    pub replica_identity: ReplicaIdentity,
    /// The published columns, in the order of the rows.
    pub columns: Vec<RelationColumn>,
}

/// `Y`: names a type that is not built in. Sent before the relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeMessage {
    /// The (sub)transaction, inside a stream only.
    pub xid: Option<u32>,
    /// The type's oid on the source.
    pub id: u32,
    /// Its schema. The wire's empty name is `pg_catalog` here.
    pub schema: String,
    /// Its name; for a domain the base type's.
    pub name: String,
}

/// The schema that the wire abbreviates to an empty string.
const CATALOG: &str = "pg_catalog";

/// Bytes of a column at least: flags, empty name, type, modifier.
const COLUMN_BYTES: usize = 1 + 1 + 4 + 4;

fn read_schema(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let schema = reader.string("schema")?;
    Ok(if schema.is_empty() { CATALOG.to_owned() } else { schema })
}

#[cfg(test)]
fn write_schema(writer: &mut Writer, schema: &str) {
    writer.string("schema", if schema == CATALOG { "" } else { schema });
}

impl RelationMessage {
    pub(super) fn read(reader: &mut Reader<'_>, xid: Option<u32>) -> Result<Self, DecodeError> {
        let id = reader.u32("relation")?;
        let schema = read_schema(reader)?;
        let name = reader.string("name")?;
        let replica_identity = match reader.u8("replica identity")? {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            other => return Err(reader.refuse("replica identity", 1, other, "d, n, f or i")),
        };
        let count = reader.count16("number of columns", COLUMN_BYTES)?;
        let columns = (0..count).map(|_| RelationColumn::read(reader)).collect::<Result<_, _>>()?;
        Ok(RelationMessage { xid, id, schema, name, replica_identity, columns })
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.xid(self.xid);
        writer.u32(self.id);
        write_schema(writer, &self.schema);
        writer.string("name", &self.name);
        writer.u8(match self.replica_identity {
            ReplicaIdentity::Default => b'd',
            ReplicaIdentity::Nothing => b'n',
            ReplicaIdentity::Full => b'f',
            ReplicaIdentity::Index => b'i',
        });
        writer.count16("number of columns", self.columns.len());
        for column in &self.columns {
            column.write(writer);
        }
    }
}

impl RelationColumn {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let key = match reader.u8("column flags")? {
            0 => KeyColumn::No,
            1 => KeyColumn::Yes,
            other => return Err(reader.refuse("column flags", 1, other, "0 or 1")),
        };
        let name = reader.string("column name")?;
        let type_oid = reader.u32("column type")?;
        let type_modifier = reader.i32("column type modifier")?;
        Ok(RelationColumn { key, name, type_oid, type_modifier })
    }

    #[cfg(test)]
    fn write(&self, writer: &mut Writer) {
        writer.u8(u8::from(self.key == KeyColumn::Yes));
        writer.string("column name", &self.name);
        writer.u32(self.type_oid);
        writer.i32(self.type_modifier);
    }
}

impl TypeMessage {
    pub(super) fn read(reader: &mut Reader<'_>, xid: Option<u32>) -> Result<Self, DecodeError> {
        let id = reader.u32("type")?;
        let schema = read_schema(reader)?;
        let name = reader.string("name")?;
        Ok(TypeMessage { xid, id, schema, name })
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.xid(self.xid);
        writer.u32(self.id);
        write_schema(writer, &self.schema);
        writer.string("name", &self.name);
    }
}
