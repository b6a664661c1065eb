//! Ordinary SQL sessions on either side, on tokio-postgres: catalog queries,
//! copies, state. The replication connection and the apply pipeline have their
//! own connections in [`crate::wire`].
//!
//! Invariant: every session is prepared as [`wire::preparation`] says: the text
//! formats of walreceivers, no timeouts, no policy that hides rows.

mod param;
pub mod replica_role;
mod row;

use std::ops::Deref;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

pub use param::{Param, Typed};
pub use row::Row;

use crate::config::{ConnInfo, Side};
use crate::fault::{Fault, sqlstate};
use crate::wire::{self, PrivilegesRefused, ServerError, WireError};

/// A statement failed on one of the two servers.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} on the {side}: {}", describe(.source))]
pub struct DbError {
    /// The server.
    pub side: Side,
    /// Verb and object: "read the sequences".
    pub action: String,
    /// What the driver reported.
    #[source]
    pub source: tokio_postgres::Error,
}

impl DbError {
    /// What the server says, without what we were about; the driver's words
    /// when it says nothing.
    pub fn words(&self) -> String {
        describe(&self.source)
    }

    /// The SQLSTATE, when the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        self.source.code().map(SqlState::code)
    }

    /// What it means.
    pub fn fault(&self) -> Fault {
        match self.source.as_db_error() {
            Some(error) => sqlstate::fault(self.side, error.code().code(), error.message()),
            // No SQLSTATE: the connection is gone.
            None if self.source.is_closed() || is_io(&self.source) => Fault::passing(self.side),
            None => Fault::Bug,
        }
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

/// The server's words as [`ServerError`] shows them; the driver's when it says nothing.
fn describe(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| ServerError::from(error).to_string())
}

/// Adds side and action to a driver error.
pub trait DbContext<T> {
    /// `action` is verb and object, for "cannot {action} on the {side}".
    fn during(self, side: Side, action: impl Into<String>) -> Result<T, DbError>;
}

impl<T> DbContext<T> for Result<T, tokio_postgres::Error> {
    fn during(self, side: Side, action: impl Into<String>) -> Result<T, DbError> {
        self.map_err(|source| DbError { side, action: action.into(), source })
    }
}

/// An ordinary session, prepared as the module says. Derefs to the client, but
/// has statements of its own, which take one round trip.
pub struct Session {
    client: Client,
    side: Side,
    version: i32,
    privileges_refused: PrivilegesRefused,
}

impl Session {
    /// Connects and prepares a session.
    ///
    /// # Errors
    /// [`WireError`] when no host lets us in.
    pub async fn connect(info: &ConnInfo, application_name: &str) -> Result<Self, WireError> {
        let (client, version, privileges_refused) = wire::client(info, application_name).await?;
        Ok(Session { client, side: info.side, version, privileges_refused })
    }

    /// The rows of a statement.
    ///
    /// # Errors
    /// What the driver reports.
    pub async fn query(&self, sql: &str, params: &[&dyn Param]) -> Result<Vec<Row>, tokio_postgres::Error> {
        let rows = self.client.query_typed(sql, &param::typed(params)).await?;
        Ok(rows.into_iter().map(|row| Row::new(row, self.side)).collect())
    }

    /// The only row of a statement.
    ///
    /// # Errors
    /// What the driver reports; also when there is none or more than one.
    pub async fn query_one(&self, sql: &str, params: &[&dyn Param]) -> Result<Row, tokio_postgres::Error> {
        Ok(Row::new(self.client.query_typed_one(sql, &param::typed(params)).await?, self.side))
    }

    /// The row of a statement that has one or none.
    ///
    /// # Errors
    /// What the driver reports; also when there is more than one.
    pub async fn query_opt(&self, sql: &str, params: &[&dyn Param]) -> Result<Option<Row>, tokio_postgres::Error> {
        let row = self.client.query_typed_opt(sql, &param::typed(params)).await?;
        Ok(row.map(|row| Row::new(row, self.side)))
    }

    /// Executes a statement; the number of rows it affected.
    ///
    /// # Errors
    /// What the driver reports.
    pub async fn execute(&self, sql: &str, params: &[&dyn Param]) -> Result<u64, tokio_postgres::Error> {
        self.client.execute_typed(sql, &param::typed(params)).await
    }

    /// Which end this session is on.
    pub fn side(&self) -> Side {
        self.side
    }

    /// The server's `server_version_num`, for example 150018.
    pub fn version(&self) -> i32 {
        self.version
    }

    /// How many privileges the server has said not to give or take, in warnings behind which a
    /// GRANT or REVOKE counts as executed; of all statements that have been answered.
    pub fn privileges_refused(&self) -> u64 {
        self.privileges_refused.count()
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}
