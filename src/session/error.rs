//! Why a statement has no result.
//!
//! Invariant: the driver only says that a connection is closed; what it was lost to is
//! in the error all the same.

use tokio_postgres::error::SqlState;

use crate::config::Side;
use crate::fault::{Fault, sqlstate};
use crate::wire::{Lost, ServerError};

/// Why a statement has no result.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// What the driver reports: the server's words, or its own.
    #[error("{}", describe(.0))]
    Driver(#[from] tokio_postgres::Error),
    /// The session is gone, and it is known to what.
    #[error("the connection was lost: {}", .0.words)]
    Lost(Lost),
    /// More rows than any catalog has.
    #[error("the answer has more than {limit} bytes; is this a PostgreSQL server?")]
    TooLong {
        /// What an answer may have, in bytes.
        limit: usize,
    },
}

impl QueryError {
    /// The server's error, if it answered with one.
    pub fn as_db_error(&self) -> Option<&tokio_postgres::error::DbError> {
        match self {
            QueryError::Driver(error) => error.as_db_error(),
            QueryError::Lost(_) | QueryError::TooLong { .. } => None,
        }
    }

    /// The SQLSTATE, when the server gave one.
    pub fn code(&self) -> Option<&SqlState> {
        self.as_db_error().map(tokio_postgres::error::DbError::code)
    }

    fn fault(&self, side: Side) -> Fault {
        match self {
            QueryError::Lost(lost) => lost.fault,
            QueryError::TooLong { .. } => Fault::lasting(side),
            QueryError::Driver(error) => match error.as_db_error() {
                Some(error) => sqlstate::fault(side, error.code().code(), error.message()),
                // No SQLSTATE: the connection is gone.
                None if error.is_closed() || is_io(error) => Fault::passing(side),
                None => Fault::Bug,
            },
        }
    }
}

/// A statement failed on one of the two servers.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} on the {side}: {source}")]
pub struct DbError {
    /// The server.
    pub side: Side,
    /// Verb and object: "read the sequences".
    pub action: String,
    /// Why.
    #[source]
    pub source: QueryError,
}

impl DbError {
    /// What the server says, without what we were about; the driver's words
    /// when it says nothing.
    pub fn words(&self) -> String {
        self.source.to_string()
    }

    /// The SQLSTATE, when the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        self.source.code().map(SqlState::code)
    }

    /// What it means.
    pub fn fault(&self) -> Fault {
        self.source.fault(self.side)
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

/// The server's words as [`ServerError`] shows them; the driver's when it says nothing.
fn describe(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| ServerError::from(error).to_string())
}

/// Adds side and action to an error.
pub trait DbContext<T> {
    /// `action` is verb and object, for "cannot {action} on the {side}".
    fn during(self, side: Side, action: impl Into<String>) -> Result<T, DbError>;
}

impl<T, E: Into<QueryError>> DbContext<T> for Result<T, E> {
    fn during(self, side: Side, action: impl Into<String>) -> Result<T, DbError> {
        self.map_err(|source| DbError { side, action: action.into(), source: source.into() })
    }
}
