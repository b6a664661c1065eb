//! Why bytes are no message, and, in tests, why a message cannot become bytes.
//!
//! Invariant: an error names message, field and offset, and never carries
//! column data.

use std::str::Utf8Error;

/// A payload is not a `pgoutput` message that we know. Nothing can be passed
/// over: whoever gets this stops the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode pgoutput message {message} (tag {:?}): {field} at byte {offset}: {fault}", char::from(*.tag))]
pub struct DecodeError {
    /// First byte of the payload; 0 when the payload is empty.
    pub tag: u8,
    /// The message's name, "unknown" for a tag that we do not know.
    pub message: &'static str,
    /// The field that was being read.
    pub field: &'static str,
    /// Where that field starts, in bytes from the start of the payload.
    pub offset: usize,
    /// What is wrong with it; part of the text, hence not the source.
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The payload ends inside the field.
    #[error("needs {needed} bytes, but the message ends after {left}")]
    Ends {
        /// Bytes the field has.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// The payload goes on after the last field.
    #[error("{0} bytes too many: the server speaks a protocol that this version does not know")]
    Trailing(usize),
    /// The tag is none of protocol 1 to 4.
    #[error("no such message in protocol versions 1 to 4")]
    UnknownTag,
    /// A string without its closing zero byte.
    #[error("the string has no end")]
    Unterminated,
    /// A name that is no UTF-8, although the session asks for it; only an
    /// SQL_ASCII database can send that.
    #[error("{0} (a database in SQL_ASCII sends names as they are: rename it in ASCII)")]
    NotUtf8(Utf8Error),
    /// A value outside of what the protocol allows.
    #[error("{found} is not allowed here, expected {expected}")]
    Value {
        /// What was found; a tag or flag as its number.
        found: i64,
        /// What the protocol allows.
        expected: &'static str,
    },
}

/// A message holds more than the protocol's length fields can say, or a name
/// with a zero byte.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot encode pgoutput message: {field} does not fit the protocol")]
pub struct EncodeError {
    /// The first field that does not fit.
    pub field: &'static str,
}
