//! Appends fields to a payload; the reader's mirror, for scripted servers in
//! tests.
//!
//! Invariant: a payload that [`Writer::finish`] returns decodes to the message
//! it was made from; what does not fit is an error there.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::EncodeError;
use crate::lsn::Lsn;

/// Writes one payload, field by field.
pub(super) struct Writer {
    out: BytesMut,
    fault: Option<&'static str>,
}

impl Writer {
    pub(super) fn new(tag: u8) -> Self {
        let mut out = BytesMut::new();
        out.put_u8(tag);
        Writer { out, fault: None }
    }

    fn fail(&mut self, field: &'static str) {
        self.fault.get_or_insert(field);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.out.put_u8(value);
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.out.put_i32(value);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.out.put_u32(value);
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.out.put_i64(value);
    }

    pub(super) fn lsn(&mut self, value: Lsn) {
        self.out.put_u64(value.number());
    }

    /// The xid that messages carry inside a stream.
    pub(super) fn xid(&mut self, xid: Option<u32>) {
        if let Some(xid) = xid {
            self.u32(xid);
        }
    }

    pub(super) fn count16(&mut self, field: &'static str, count: usize) {
        match i16::try_from(count) {
            Ok(count) => self.out.put_i16(count),
            Err(_) => self.fail(field),
        }
    }

    pub(super) fn count32(&mut self, field: &'static str, count: usize) {
        match i32::try_from(count) {
            Ok(count) => self.out.put_i32(count),
            Err(_) => self.fail(field),
        }
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }

    pub(super) fn string(&mut self, field: &'static str, text: &str) {
        if text.contains('\0') {
            self.fail(field);
        }
        self.raw(text.as_bytes());
        self.u8(0);
    }

    pub(super) fn finish(self) -> Result<Bytes, EncodeError> {
        match self.fault {
            None => Ok(self.out.freeze()),
            Some(field) => Err(EncodeError { field }),
        }
    }
}
