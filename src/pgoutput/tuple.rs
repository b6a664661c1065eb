//! The columns of a row, as views into the payload they came in.
//!
//! Invariant: an unchanged TOAST column is [`Value::Unchanged`] and nothing
//! else; there is no way to read it as a null or as data. Column data are
//! never copied and never shown by `Debug`.
//!
//! Source: `logicalrep_write_tuple` in
//! `src/backend/replication/logical/proto.c`.

use std::fmt;
use std::mem::size_of;

use bytes::Bytes;

#[cfg(test)]
use super::error::EncodeError;
use super::error::{DecodeError, Fault};
use super::reader::Reader;
#[cfg(test)]
use super::writer::Writer;

/// One column of a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value<'a> {
    /// The SQL null. In a [`OldTuple::Key`] also every column outside the key.
    Null,
    /// A TOASTed value that the statement did not touch and the server did not
    /// read: the target has it already. Never to be written.
    Unchanged,
    /// The type's text output, in UTF-8 unless the source is SQL_ASCII.
    Text(&'a [u8]),
    /// The type's binary output (option `binary`).
    Binary(&'a [u8]),
}

/// Shows kind and length, never the data.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Unchanged => f.write_str("unchanged"),
            Value::Text(data) => write!(f, "text({})", data.len()),
            Value::Binary(data) => write!(f, "binary({})", data.len()),
        }
    }
}

/// Where a column's data is in the payload; 12 bytes.
#[derive(Clone, Copy)]
enum Cell {
    Null,
    Unchanged,
    Text { start: u32, length: u32 },
    Binary { start: u32, length: u32 },
}

/// A row. Keeps its whole payload alive, which it shares with the other row of
/// an update.
#[derive(Clone)]
pub struct Tuple {
    frame: Bytes,
    cells: Box<[Cell]>,
    data_bytes: usize,
}

impl Tuple {
    /// The number of columns; the relation's, once the assembler has passed it.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether the row has no columns at all, which a table may have.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The column at `index` of the relation's columns; `None` behind the last.
    pub fn get(&self, index: usize) -> Option<Value<'_>> {
        Some(match *self.cells.get(index)? {
            Cell::Null => Value::Null,
            Cell::Unchanged => Value::Unchanged,
            Cell::Text { start, length } => Value::Text(self.frame.get(range(start, length))?),
            Cell::Binary { start, length } => Value::Binary(self.frame.get(range(start, length))?),
        })
    }

    /// All columns in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'_>> {
        // `get` has an answer for each of them: the cells were made from this frame.
        (0..self.len()).map_while(|index| self.get(index))
    }

    /// The data of a text or binary column, sharing the payload; `None` for a
    /// null, an unchanged column and behind the last.
    pub fn bytes(&self, index: usize) -> Option<Bytes> {
        match *self.cells.get(index)? {
            Cell::Null | Cell::Unchanged => None,
            Cell::Text { start, length } | Cell::Binary { start, length } => {
                let data = self.frame.get(range(start, length))?;
                Some(self.frame.slice_ref(data))
            }
        }
    }

    /// Bytes this row keeps on the heap: its own column data and their index,
    /// not the rest of the payload.
    pub fn heap_size(&self) -> usize {
        self.data_bytes.saturating_add(self.index_size())
    }

    /// Bytes of the index alone, which come on top of the payload's.
    pub fn index_size(&self) -> usize {
        self.cells.len().saturating_mul(size_of::<Cell>())
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        // A column takes its kind at least.
        let count = reader.count16("number of columns", 1)?;
        let mut cells = Vec::with_capacity(count);
        let mut data_bytes = 0_usize;
        for _ in 0..count {
            let cell = read_cell(reader)?;
            if let Cell::Text { length, .. } | Cell::Binary { length, .. } = cell {
                data_bytes = data_bytes.saturating_add(length as usize);
            }
            cells.push(cell);
        }
        Ok(Tuple { frame: reader.frame(), cells: cells.into_boxed_slice(), data_bytes })
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.count16("number of columns", self.len());
        for value in self.iter() {
            match value {
                Value::Null => writer.u8(b'n'),
                Value::Unchanged => writer.u8(b'u'),
                Value::Text(data) => write_data(writer, b't', data),
                Value::Binary(data) => write_data(writer, b'b', data),
            }
        }
    }

    /// A row of these values, for tests and scripted servers.
    ///
    /// # Errors
    /// When there are more columns or bytes than the protocol can carry.
    #[cfg(test)]
    pub(crate) fn from_values(values: &[Value<'_>]) -> Result<Self, EncodeError> {
        let too_long = |_| EncodeError { field: "column data" };
        let mut frame = Vec::new();
        let mut cells = Vec::with_capacity(values.len());
        for value in values {
            let (Value::Text(data) | Value::Binary(data)) = value else {
                cells.push(if *value == Value::Null { Cell::Null } else { Cell::Unchanged });
                continue;
            };
            let start = u32::try_from(frame.len()).map_err(too_long)?;
            let length = u32::try_from(data.len()).map_err(too_long)?;
            frame.extend_from_slice(data);
            cells.push(match value {
                Value::Binary(_) => Cell::Binary { start, length },
                _ => Cell::Text { start, length },
            });
        }
        let data_bytes = frame.len();
        Ok(Tuple { frame: Bytes::from(frame), cells: cells.into_boxed_slice(), data_bytes })
    }
}

fn range(start: u32, length: u32) -> std::ops::Range<usize> {
    let start = start as usize;
    start..start.saturating_add(length as usize)
}

fn read_cell(reader: &mut Reader<'_>) -> Result<Cell, DecodeError> {
    match reader.u8("column kind")? {
        b'n' => Ok(Cell::Null),
        b'u' => Ok(Cell::Unchanged),
        b't' => read_data(reader).map(|(start, length)| Cell::Text { start, length }),
        b'b' => read_data(reader).map(|(start, length)| Cell::Binary { start, length }),
        other => Err(reader.refuse("column kind", 1, other, "n, u, t or b")),
    }
}

fn read_data(reader: &mut Reader<'_>) -> Result<(u32, u32), DecodeError> {
    let length = reader.count32("column length", 1)?;
    let start = reader.offset();
    reader.take("column data", length)?;
    // A frame's own length is an i32, so that neither can be larger in practice.
    match (u32::try_from(start), u32::try_from(length)) {
        (Ok(start), Ok(length)) => Ok((start, length)),
        _ => Err(reader.error("column data", start, Fault::Ends { needed: length, left: reader.left() })),
    }
}

#[cfg(test)]
fn write_data(writer: &mut Writer, kind: u8, data: &[u8]) {
    writer.u8(kind);
    writer.count32("column length", data.len());
    writer.raw(data);
}

/// The same values; where they are in a payload makes no difference.
impl PartialEq for Tuple {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Tuple {}

/// Shows kinds and lengths, never the data.
impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// What identifies the row before an update or a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OldTuple {
    /// The replica identity's columns; all others are sent as null and mean
    /// nothing. Take the key from the relation's flags, not from the nulls.
    Key(Tuple),
    /// The whole old row (REPLICA IDENTITY FULL), with TOASTed values in full.
    Full(Tuple),
}

impl OldTuple {
    /// The row, whichever it is.
    pub fn tuple(&self) -> &Tuple {
        match self {
            OldTuple::Key(tuple) | OldTuple::Full(tuple) => tuple,
        }
    }

    #[cfg(test)]
    pub(super) fn write(&self, writer: &mut Writer) {
        writer.u8(match self {
            OldTuple::Key(_) => b'K',
            OldTuple::Full(_) => b'O',
        });
        self.tuple().write(writer);
    }
}
