//! Transactions → SQL → COMMIT, on the target, as an ordinary role.
//!
//! ```text
//! Batch ─ tables (ours?) ─ mapping (where?) ─ render (SQL) ─ pipeline ─ COMMIT ─ DurableLsn
//!                                                               │
//!                       error in a merged batch: each source transaction by itself
//! ```
//!
//! Invariant: the position's compare-and-set is the first statement of every
//! target transaction, every row statement is counted before COMMIT is sent,
//! and only a COMMIT that returned moves the [`crate::lsn::DurableLsn`].

mod actions;
pub mod applier;
pub mod batch;
mod in_flight;
pub mod mapping;
pub(crate) mod order;
pub mod pipeline;
mod recovery;
mod relations;
pub mod render;
pub mod replica_role;
mod send;
pub mod set_based;
pub mod source;
pub mod steering;
pub mod tables;
pub mod target;
mod transaction;

use std::sync::Arc;

use crate::config::Side;
use crate::fault::{Difference, Fault, Trouble, sqlstate};
use crate::lsn::{CommitLsn, Lsn};
use crate::session::DbError;
use crate::sql::TableName;
use crate::state::StateError;
use crate::wire::{ServerError, WireError};

/// A table and how its rows are identified: never any value.
#[derive(Debug, PartialEq, Eq)]
pub struct Label {
    /// The table.
    pub table: TableName,
    /// Names of the columns that identify a row.
    pub key: Vec<String>,
}

/// A change that could not be applied: where it is, for the operator.
#[derive(Clone, Debug)]
pub struct Place {
    /// The table and its key.
    pub label: Arc<Label>,
    /// INSERT, UPDATE, DELETE or TRUNCATE.
    pub operation: &'static str,
    /// The commit record of the source transaction.
    pub commit: CommitLsn,
    /// The source transaction's id.
    pub xid: u32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {}", self.operation, self.label.table)?;
        if !self.label.key.is_empty() {
            write!(f, " (key {})", self.label.key.join(", "))?;
        }
        write!(f, " of source transaction {} committed at {}", self.xid, self.commit.lsn())
    }
}

/// Why changes could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The target refused a change.
    #[error("cannot apply {place}: {error}")]
    Refused {
        /// Which change.
        place: Box<Place>,
        /// The target's words.
        error: Box<ServerError>,
    },
    /// A change hit no row, or more than one.
    #[error(
        "cannot apply {place}: it affected {affected} rows on the target instead of one; the two sides differ there"
    )]
    RowCount {
        /// Which change.
        place: Box<Place>,
        /// Rows it affected.
        affected: u64,
    },
    /// The target refused the net changes of a table, or they affected other
    /// rows than they should; the ordered path finds out which.
    #[error("cannot apply the net changes of {}: {error}", .label.table)]
    Net {
        /// The table.
        label: Arc<Label>,
        /// Its oid on the source.
        relation: u32,
        /// The target's words.
        error: Box<ServerError>,
    },
    /// COPY took other rows than it was given.
    #[error("COPY into {} took {taken} of {given} rows; something on the target leaves rows out", .label.table)]
    Copied {
        /// The table.
        label: Arc<Label>,
        /// Its oid on the source.
        relation: u32,
        /// Rows it was given.
        given: usize,
        /// Rows it says it took.
        taken: u64,
    },
    /// Net changes have no statement.
    #[error("cannot apply the net changes of {}: {error}", .label.table)]
    NetRender {
        /// The table.
        label: Arc<Label>,
        /// Why not.
        error: render::RenderError,
    },
    /// A deferrable constraint of the target does not hold at the end.
    #[error("cannot apply the source transaction committed at {} (or one merged with it): {error}", .commit.lsn())]
    Deferred {
        /// The commit record of the last source transaction.
        commit: CommitLsn,
        /// The target's words.
        error: Box<ServerError>,
    },
    /// A change has no statement.
    #[error("cannot apply {place}: {error}")]
    Render {
        /// Which change.
        place: Box<Place>,
        /// Why not.
        error: render::RenderError,
    },
    /// The relation has no place on the target.
    #[error("cannot apply changes of {table} from {at} on: {error}")]
    Mapping {
        /// The relation.
        table: TableName,
        /// The first transaction that changes it.
        at: Lsn,
        /// Why not.
        error: mapping::MappingError,
    },
    /// The relation is not part of the migration and nobody said what to do.
    #[error("the source changes table {table} (from {at} on), which is not part of this migration: {why}")]
    Unknown {
        /// The relation.
        table: TableName,
        /// The first transaction that changes it.
        at: Lsn,
        /// What is known of it, and the ways on.
        why: String,
    },
    /// Foreign keys of the target act on rows where the stream does so itself.
    #[error(
        "cannot apply {place}: {why}. Run on the target: {drop} Then start again, and bring them back when the migration \
         has ended: {add}"
    )]
    Action {
        /// Which change.
        place: Box<Place>,
        /// What they would do, or have done.
        why: &'static str,
        /// The SQL that drops the keys.
        drop: String,
        /// The SQL that brings them back.
        add: String,
    },
    /// The position is not where this process left it.
    #[error("the position of slot \"{slot}\" is not at {expected}: another process has moved it")]
    PositionMoved {
        /// The slot.
        slot: String,
        /// Where it was expected.
        expected: Lsn,
    },
    /// A large transaction whose net changes were refused: it comes again and
    /// goes row by row.
    #[error("net changes of a large transaction were refused, it is applied row by row: {0}")]
    InOrderAgain(String),
    /// The target refused a statement of our own.
    #[error("cannot {action} on the target: {error}")]
    Statement {
        /// Verb and object.
        action: &'static str,
        /// The target's words.
        error: Box<ServerError>,
    },
    /// The target answered out of order.
    #[error("the target's answers do not match what was sent: {0}")]
    OutOfStep(String),
    /// The connection to the target is lost.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A catalog query failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The state could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
}

impl ApplyError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            ApplyError::Refused { error, .. }
            | ApplyError::Deferred { error, .. }
            | ApplyError::Statement { error, .. }
            | ApplyError::Net { error, .. } => match sqlstate::trouble(&error.sqlstate, &error.message) {
                Trouble::Lasting => Fault::Server(Side::Target, Trouble::NotApplied),
                trouble => Fault::Server(Side::Target, trouble),
            },
            ApplyError::RowCount { .. } => Fault::Differs(Difference::Row),
            ApplyError::Copied { .. } => Fault::Differs(Difference::LeftOut),
            ApplyError::Render { .. }
            | ApplyError::NetRender { .. }
            | ApplyError::Mapping { .. }
            | ApplyError::Unknown { .. }
            | ApplyError::Action { .. } => Fault::lasting(Side::Target),
            ApplyError::PositionMoved { .. } | ApplyError::InOrderAgain(_) => Fault::passing(Side::Target),
            ApplyError::OutOfStep(_) => Fault::Bug,
            ApplyError::Wire(error) => error.fault(),
            ApplyError::Db(error) => error.fault(),
            ApplyError::State(error) => error.fault(),
        }
    }

    /// Whether net changes affected other rows than they should: the
    /// statement's own count divides by zero then.
    fn is_wrong_count(&self) -> bool {
        match self {
            ApplyError::Net { error, .. } => error.sqlstate == sqlstate::DIVISION_BY_ZERO,
            ApplyError::Copied { .. } => true,
            _ => false,
        }
    }

    /// Whether net changes met a unique or exclusion constraint.
    fn is_duplicate(&self) -> bool {
        matches!(self, ApplyError::Net { error, .. } if matches!(error.sqlstate.as_str(), sqlstate::UNIQUE_VIOLATION | sqlstate::EXCLUSION_VIOLATION))
    }
}
