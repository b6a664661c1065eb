//! Log sequence numbers, one type per role.
//!
//! Invariant: a [`DurableLsn`] exists only where the target has made the
//! position durable: it is built from a [`Durable`] proof, and the only types
//! that implement that trait have private constructors behind a COMMIT that
//! returned and a position that was read back. The standby status
//! (`wire::status`) takes nothing else, so a premature acknowledgement does
//! not compile.
//!
//! Source: `src/include/access/xlogdefs.h`; the roles of commit and end LSN
//! are those of `logicalrep_write_commit` in
//! `src/backend/replication/logical/proto.c`.

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;

use tokio_postgres::types::{FromSql, IsNull, PgLsn, ToSql, Type, private::BytesMut, to_sql_checked};

/// A byte position in the write-ahead log, without a role.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position before all WAL; PostgreSQL's `InvalidXLogRecPtr`.
    pub const ZERO: Lsn = Lsn(0);

    /// Bytes from `earlier` to `self`; 0 when `earlier` is not earlier.
    pub fn bytes_since(self, earlier: Lsn) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not of the form `XXXXXXXX/XXXXXXXX`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is not an LSN (expected hexadecimal X/X, for example 0/16B3748)")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseLsnError(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(error)?;
        let part = |digits: &str| {
            // from_str_radix would also take a sign.
            if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            u32::from_str_radix(digits, 16).map_err(|_| error())
        };
        Ok(Lsn((u64::from(part(high)?) << 32) | u64::from(part(low)?)))
    }
}

impl<'a> FromSql<'a> for Lsn {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Lsn(u64::from(PgLsn::from_sql(ty, raw)?)))
    }

    fn accepts(ty: &Type) -> bool {
        <PgLsn as FromSql<'_>>::accepts(ty)
    }
}

impl ToSql for Lsn {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        PgLsn::from(self.0).to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        <PgLsn as ToSql>::accepts(ty)
    }

    to_sql_checked!();
}

/// The start of a commit record (`final_lsn` of Begin). Decides whether a
/// transaction is applied: it is, when this is at or after the position's
/// [`EndLsn`] or a slot's consistent point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitLsn(pub Lsn);

/// The end of a commit record: the start of whatever WAL record follows. What
/// the position stores, and where START_REPLICATION begins again. Also a
/// slot's consistent point and the walEnd of an idle keepalive, which delimit
/// commits in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndLsn(pub Lsn);

impl EndLsn {
    /// Whether a transaction whose commit record starts at `commit` lies after
    /// this position, that is, has not been applied yet. Two consecutive
    /// transactions can share a boundary, hence `>=`.
    pub fn is_before(self, commit: CommitLsn) -> bool {
        commit.0 >= self.0
    }
}

/// Who may be evidence: the types of this crate that have private constructors
/// behind a COMMIT that returned and a position that was read back.
pub(crate) mod sealed {
    /// Cannot be named outside of the crate.
    pub trait Sealed {}
}

/// Evidence that the target has made an end position durable. It is sealed: what
/// no COMMIT and no look at the target vouches for does not compile.
///
/// ```compile_fail
/// use walferry::lsn::{Durable, EndLsn, Lsn};
/// struct Hope;
/// impl Durable for Hope {
///     fn end_lsn(&self) -> EndLsn {
///         EndLsn(Lsn(1))
///     }
/// }
/// ```
pub trait Durable: sealed::Sealed {
    /// The position that is durable.
    fn end_lsn(&self) -> EndLsn;
}

/// A position up to which the target has committed everything. Moved by the
/// applier when a COMMIT returned; permits the source to discard WAL before it.
///
/// It cannot be made of a plain position, nor one proof stand for two:
///
/// ```compile_fail
/// let forged = walferry::lsn::DurableLsn(walferry::lsn::EndLsn(walferry::lsn::Lsn(1)));
/// ```
///
/// ```compile_fail
/// fn twice(tag: walferry::apply::pipeline::CommitTag, end: walferry::lsn::EndLsn) {
///     let one = walferry::apply::pipeline::Committed::new(tag, end);
///     let other = walferry::apply::pipeline::Committed::new(tag, end);
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurableLsn(EndLsn);

impl DurableLsn {
    /// The position a proof stands for, which is used up.
    pub fn of(proof: impl Durable) -> Self {
        DurableLsn(proof.end_lsn())
    }

    /// The position as a plain LSN, for the standby status and for display.
    pub fn lsn(self) -> Lsn {
        self.0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn display_and_parse_are_inverse(value: u64) {
            prop_assert_eq!(Lsn(value).to_string().parse::<Lsn>(), Ok(Lsn(value)));
        }
    }

    #[test]
    fn garbage_is_refused_with_the_text_named() {
        for text in ["", "/", "0", "0/", "/0", "0/+1", "0/123456789", "g/0", "0/0/0"] {
            assert_eq!(text.parse::<Lsn>(), Err(ParseLsnError(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_transaction_that_starts_at_the_position_is_not_applied_yet() {
        let position = EndLsn(Lsn(100));
        assert!(position.is_before(CommitLsn(Lsn(100))));
        assert!(position.is_before(CommitLsn(Lsn(101))));
        assert!(!position.is_before(CommitLsn(Lsn(99))));
    }
}
