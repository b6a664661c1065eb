//! Ordinary SQL sessions on either side, on tokio-postgres: catalog queries,
//! copies, state. The replication connection and the apply pipeline have their
//! own connections in [`crate::wire`].
//!
//! Invariant: every session is prepared as [`wire::preparation`] says: the text
//! formats of walreceivers, no timeouts, no policy that hides rows.

mod answer;
mod error;
mod param;
pub mod replica_role;
mod row;

use std::ops::Deref;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio_postgres::{Client, RowStream, SimpleQueryMessage};

use answer::Wait;
pub use error::{DbContext, DbError, QueryError};
pub use param::{Param, Typed};
pub use row::Row;

use crate::config::{ConnInfo, Side};
use crate::wire::{self, Ordinary, Security, WireError};

/// What the rows of an answer may take, in bytes: the columns of a hundred thousand
/// tables, of which the largest answers are made, are half of it.
const MAX_ANSWER_BYTES: usize = 1 << 30;

/// What a row takes beside its bytes.
const ROW_OVERHEAD_BYTES: usize = 128;

/// A statement on its way; on the heap, as hundreds of them are awaited within each other.
type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, QueryError>> + Send + 'a>>;

/// An ordinary session, prepared as the module says. Derefs to the client, but
/// has statements of its own, which take one round trip.
pub struct Session {
    ordinary: Ordinary,
    side: Side,
    wait: Wait,
}

impl Session {
    /// Connects and prepares a session.
    ///
    /// # Errors
    /// [`WireError`] when no host lets us in.
    pub async fn connect(info: &ConnInfo, application_name: &str) -> Result<Self, WireError> {
        let ordinary = wire::client(info, application_name).await?;
        Ok(Session { ordinary, side: info.side, wait: Wait::new(info, application_name) })
    }

    /// Has every statement from now on answered within this, or the session is lost.
    pub fn answer_within(&self, bound: Duration) {
        self.wait.at_most(bound);
    }

    /// Awaits a statement as [`answer`] says.
    async fn answered<T>(&self, work: Work<'_, T>) -> Result<T, QueryError> {
        let outcome = match self.wait.answer(work).await {
            Ok(outcome) => outcome,
            Err(silence) => return Err(QueryError::Lost(self.ordinary.give_up(silence))),
        };
        outcome.map_err(|error| match error {
            QueryError::Driver(driver) if driver.as_db_error().is_none() => {
                self.ordinary.loss.reason().cloned().map_or(QueryError::Driver(driver), QueryError::Lost)
            }
            other => other,
        })
    }

    /// The rows of a statement.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn query(&self, sql: &str, params: &[&dyn Param]) -> Result<Vec<Row>, QueryError> {
        self.answered(Box::pin(async {
            let rows = self.ordinary.client.query_typed_raw(sql, param::typed(params)).await?;
            gather(rows, self.side, MAX_ANSWER_BYTES).await
        }))
        .await
    }

    /// The only row of a statement.
    ///
    /// # Errors
    /// Why it is not there; also when there is none or more than one.
    pub async fn query_one(&self, sql: &str, params: &[&dyn Param]) -> Result<Row, QueryError> {
        self.answered(Box::pin(async {
            let row = self.ordinary.client.query_typed_one(sql, &param::typed(params)).await?;
            Ok(Row::new(row, self.side))
        }))
        .await
    }

    /// The row of a statement that has one or none.
    ///
    /// # Errors
    /// Why it is not known; also when there is more than one.
    pub async fn query_opt(&self, sql: &str, params: &[&dyn Param]) -> Result<Option<Row>, QueryError> {
        self.answered(Box::pin(async {
            let row = self.ordinary.client.query_typed_opt(sql, &param::typed(params)).await?;
            Ok(row.map(|row| Row::new(row, self.side)))
        }))
        .await
    }

    /// Executes a statement; the number of rows it affected.
    ///
    /// # Errors
    /// Why it was not executed.
    pub async fn execute(&self, sql: &str, params: &[&dyn Param]) -> Result<u64, QueryError> {
        self.answered(Box::pin(async { Ok(self.ordinary.client.execute_typed(sql, &param::typed(params)).await?) }))
            .await
    }

    /// Executes statements without parameters.
    ///
    /// # Errors
    /// Why one was not executed.
    pub async fn batch_execute(&self, sql: &str) -> Result<(), QueryError> {
        self.answered(Box::pin(async { Ok(self.ordinary.client.batch_execute(sql).await?) })).await
    }

    /// What statements without parameters answer, values as text.
    ///
    /// # Errors
    /// Why one was not executed.
    pub async fn simple_query(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, QueryError> {
        self.answered(Box::pin(async { Ok(self.ordinary.client.simple_query(sql).await?) })).await
    }

    /// Which end this session is on.
    pub fn side(&self) -> Side {
        self.side
    }

    /// How the connection is protected.
    pub fn security(&self) -> Security {
        self.ordinary.security
    }

    /// The server's `server_version_num`, for example 150018.
    pub fn version(&self) -> i32 {
        self.ordinary.version
    }

    /// How many privileges the server has said not to give or take, in warnings behind which a
    /// GRANT or REVOKE counts as executed; of all statements that have been answered.
    pub fn privileges_refused(&self) -> u64 {
        self.ordinary.privileges_refused.count()
    }
}

/// All rows, unless they take more than the limit.
async fn gather(rows: RowStream, side: Side, limit: usize) -> Result<Vec<Row>, QueryError> {
    let mut rows = pin!(rows);
    let (mut all, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        bytes += row.raw_size_bytes() + ROW_OVERHEAD_BYTES;
        if bytes > limit {
            return Err(QueryError::TooLong { limit });
        }
        all.push(Row::new(row, side));
    }
    Ok(all)
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.ordinary.client
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::cluster::SUPERUSER;
    use crate::testing::{cluster, over_socket};

    #[tokio::test]
    async fn rows_are_gathered_up_to_a_limit_and_the_session_stays_usable_behind_it() {
        let cluster = cluster().start().unwrap();
        let info = over_socket(&cluster, Side::Source, SUPERUSER, "postgres");
        let session = Session::connect(&info, "walferry").await.unwrap();
        let rows = async |limit| {
            let sql = "SELECT pg_catalog.repeat('x', 100) FROM pg_catalog.generate_series(1, 1000)";
            let answer = session.ordinary.client.query_typed_raw(sql, param::typed(&[])).await.unwrap();
            gather(answer, Side::Source, limit).await
        };
        let error = rows(100_000).await.unwrap_err();
        assert!(error.to_string().contains("more than 100000 bytes"), "{error}");
        assert_eq!(rows(1_000_000).await.unwrap().len(), 1000);
    }
}
