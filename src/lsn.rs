//! Log sequence numbers, one type per role.
//!
//! Invariant: a [`DurableLsn`] exists only where the target has made the
//! position durable: it is built from a [`Durable`] proof, and the only types
//! that implement that trait have private constructors behind a COMMIT that
//! returned and a position that was read back. The standby status
//! (`wire::status`) takes nothing else, so a premature acknowledgement does
//! not compile.
//!
//! No position turns into one of another role by itself: the fields are
//! private, and each constructor of [`CommitLsn`] and [`EndLsn`] is named after
//! what the number was taken from. "No position" is an `Option` everywhere but
//! on the wire, where it is [`Lsn::INVALID`].
//!
//! Source: `src/include/access/xlogdefs.h`; the roles of commit and end LSN
//! are those of `logicalrep_write_commit` in
//! `src/backend/replication/logical/proto.c`.

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, PgLsn, ToSql, Type, to_sql_checked};

/// A byte position in the write-ahead log, without a role.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// What a server sends where it has no position: PostgreSQL's
    /// `InvalidXLogRecPtr`. On the wire only; [`Lsn::valid`] takes it out.
    pub const INVALID: Lsn = Lsn(0);

    /// The position that a server wrote as this number.
    pub const fn new(number: u64) -> Self {
        Lsn(number)
    }

    /// The number, as servers write it.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The position, if it is one.
    pub fn valid(self) -> Option<Lsn> {
        (self != Lsn::INVALID).then_some(self)
    }

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
pub struct CommitLsn(Lsn);

impl CommitLsn {
    /// Where the record of a commit (or of a prepared transaction) starts, as
    /// its Begin or Commit message says.
    pub const fn of_record(start: Lsn) -> Self {
        CommitLsn(start)
    }

    /// The position as a plain LSN, to be shown.
    pub const fn lsn(self) -> Lsn {
        self.0
    }
}

/// The end of a commit record: the start of whatever WAL record follows. What
/// the position stores, and where START_REPLICATION begins again. Also a
/// slot's consistent point and an end of WAL, which delimit commits in the same
/// way.
///
/// It says where commits are parted, not that anybody has applied them: a plain
/// position does not turn into one, and none turns into a [`DurableLsn`].
///
/// ```
/// # use walferry::lsn::{CommitLsn, EndLsn, Lsn};
/// let end = EndLsn::of_commit(Lsn::new(20));
/// assert!(end.is_before(CommitLsn::of_record(Lsn::new(20))));
/// ```
///
/// ```compile_fail
/// # use walferry::lsn::{CommitLsn, EndLsn, Lsn};
/// let end = EndLsn(Lsn::new(20));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndLsn(Lsn);

impl EndLsn {
    /// Where the record of a commit ends, as its Commit message says (or that of
    /// a prepared transaction, or of its end).
    pub const fn of_commit(end: Lsn) -> Self {
        EndLsn(end)
    }

    /// Where a slot begins: its snapshot has every commit before, its stream all
    /// others.
    pub(crate) const fn of_slot(consistent_point: Lsn) -> Self {
        EndLsn(consistent_point)
    }

    /// How far the source's WAL reaches, in its own words: whatever commits from
    /// then on does so behind it.
    pub(crate) const fn of_wal(end: Lsn) -> Self {
        EndLsn(end)
    }

    /// What was one when the state on the target recorded it.
    pub(crate) const fn recorded(end: Lsn) -> Self {
        EndLsn(end)
    }

    /// The position as a plain LSN, to be stored or shown.
    pub const fn lsn(self) -> Lsn {
        self.0
    }

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
///         EndLsn::of_commit(Lsn::new(1))
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
/// It cannot be made of a plain position, be that one where a commit ends, nor
/// one proof stand for two:
///
/// ```compile_fail
/// fn forged(end: walferry::lsn::EndLsn) -> walferry::lsn::DurableLsn {
///     walferry::lsn::DurableLsn(end)
/// }
/// ```
///
/// ```compile_fail
/// fn taken_for_one(end: walferry::lsn::EndLsn) -> walferry::lsn::DurableLsn {
///     walferry::lsn::DurableLsn::of(end)
/// }
/// ```
///
/// And the source is told nothing else:
///
/// ```
/// # use walferry::{lsn::DurableLsn, wire::{RequestReply, StatusWriter}};
/// async fn told(source: &mut StatusWriter, position: DurableLsn) {
///     let _sent = source.send(position, RequestReply::No).await;
/// }
/// ```
///
/// ```compile_fail
/// # use walferry::{lsn::EndLsn, wire::{RequestReply, StatusWriter}};
/// async fn told(source: &mut StatusWriter, position: EndLsn) {
///     let _sent = source.send(position, RequestReply::No).await;
/// }
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
        self.0.lsn()
    }

    /// Where it parts commits. The way back is barred.
    pub fn end(self) -> EndLsn {
        self.0
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
