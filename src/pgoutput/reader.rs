//! Takes fields off the front of a payload.
//!
//! Invariant: the reader never reads behind the payload and [`Reader::finish`]
//! refuses a payload that has not been read to its end.
//!
//! Source: `src/backend/libpq/pqformat.c`; numbers are big-endian, strings end
//! with a zero byte.

use bytes::Bytes;

use super::error::{DecodeError, Fault};
use crate::lsn::{CommitLsn, EndLsn, Lsn};

/// Reads one payload, field by field.
pub(super) struct Reader<'a> {
    frame: &'a Bytes,
    at: usize,
    tag: u8,
    message: &'static str,
}

impl<'a> Reader<'a> {
    /// A reader of this payload. Until [`Reader::tag`] it is no message yet.
    pub(super) fn new(frame: &'a Bytes) -> Self {
        Reader { frame, at: 0, tag: 0, message: "unknown" }
    }

    /// Reads the tag; `name` gives the message's name, `None` for no message.
    pub(super) fn tag(&mut self, name: impl Fn(u8) -> Option<&'static str>) -> Result<u8, DecodeError> {
        let tag = self.u8("tag")?;
        self.tag = tag;
        self.message = name(tag).ok_or_else(|| self.error("tag", 0, Fault::UnknownTag))?;
        Ok(tag)
    }

    /// The whole payload, refcounted.
    pub(super) fn frame(&self) -> Bytes {
        self.frame.clone()
    }

    /// The offset of the next byte.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    /// The number of bytes that have not been read.
    pub(super) fn left(&self) -> usize {
        self.frame.len().saturating_sub(self.at)
    }

    /// An error in a field that starts at `offset`.
    pub(super) fn error(&self, field: &'static str, offset: usize, fault: Fault) -> DecodeError {
        DecodeError { tag: self.tag, message: self.message, field, offset, fault }
    }

    /// An error about the value of the field of `width` bytes just read.
    pub(super) fn refuse(
        &self,
        field: &'static str,
        width: usize,
        found: impl Into<i64>,
        expected: &'static str,
    ) -> DecodeError {
        self.error(field, self.at.saturating_sub(width), Fault::Value { found: found.into(), expected })
    }

    /// The next `needed` bytes.
    pub(super) fn take(&mut self, field: &'static str, needed: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.frame.get(self.at..).unwrap_or_default();
        let Some(taken) = rest.get(..needed) else {
            return Err(self.error(field, self.at, Fault::Ends { needed, left: rest.len() }));
        };
        self.at += needed;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let rest = self.frame.get(self.at..).unwrap_or_default();
        let Some(taken) = rest.first_chunk::<N>() else {
            return Err(self.error(field, self.at, Fault::Ends { needed: N, left: rest.len() }));
        };
        self.at += N;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array(field)?))
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array(field)?))
    }

    /// A 16-bit count of things that take at least `least` bytes each, so that
    /// a wrong count is found before memory is asked for.
    pub(super) fn count16(&mut self, field: &'static str, least: usize) -> Result<usize, DecodeError> {
        let count = i16::from_be_bytes(self.array(field)?);
        let elements = usize::try_from(count).map_err(|_| self.refuse(field, 2, count, "0 or more"))?;
        self.room(field, 2, elements, least)
    }

    /// The same with 32 bits: a length in bytes, or a count.
    pub(super) fn count32(&mut self, field: &'static str, least: usize) -> Result<usize, DecodeError> {
        let count = self.i32(field)?;
        let elements = usize::try_from(count).map_err(|_| self.refuse(field, 4, count, "0 or more"))?;
        self.room(field, 4, elements, least)
    }

    fn room(&self, field: &'static str, width: usize, elements: usize, least: usize) -> Result<usize, DecodeError> {
        let (needed, left) = (elements.saturating_mul(least), self.left());
        if needed > left {
            let offset = self.at.saturating_sub(width);
            return Err(self.error(field, offset, Fault::Ends { needed: needed + width, left: left + width }));
        }
        Ok(elements)
    }

    /// A position without a role, which may be 0.
    pub(super) fn lsn(&mut self, field: &'static str) -> Result<Lsn, DecodeError> {
        Ok(Lsn::new(u64::from_be_bytes(self.array(field)?)))
    }

    /// A position that the server always sets: 0 would mean "no WAL at all"
    /// wherever it were stored or compared. `proto.c` refuses it as well.
    fn valid_lsn(&mut self, field: &'static str) -> Result<Lsn, DecodeError> {
        self.lsn(field)?.valid().ok_or_else(|| self.refuse(field, 8, 0, "a valid LSN"))
    }

    pub(super) fn commit_lsn(&mut self, field: &'static str) -> Result<CommitLsn, DecodeError> {
        self.valid_lsn(field).map(CommitLsn::of_record)
    }

    pub(super) fn end_lsn(&mut self, field: &'static str) -> Result<EndLsn, DecodeError> {
        self.valid_lsn(field).map(EndLsn::of_commit)
    }

    /// A flags byte that has no meaning yet; `proto.c` refuses any but 0.
    pub(super) fn no_flags(&mut self) -> Result<(), DecodeError> {
        match self.u8("flags")? {
            0 => Ok(()),
            other => Err(self.refuse("flags", 1, other, "0")),
        }
    }

    /// A name.
    pub(super) fn string(&mut self, field: &'static str) -> Result<String, DecodeError> {
        let start = self.at;
        let rest = self.frame.get(start..).unwrap_or_default();
        let Some(length) = rest.iter().position(|&byte| byte == 0) else {
            return Err(self.error(field, start, Fault::Unterminated));
        };
        let text = str::from_utf8(self.take(field, length)?);
        let text = text.map_err(|source| self.error(field, start, Fault::NotUtf8(source)))?;
        self.u8(field)?;
        Ok(text.to_owned())
    }

    /// The end of the message: nothing may be left.
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        match self.left() {
            0 => Ok(()),
            left => Err(self.error("end of the message", self.at, Fault::Trailing(left))),
        }
    }
}
