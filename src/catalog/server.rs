//! The server and the database that a session is in.
//!
//! Invariant: which these are is read here and nowhere else, but where a statement is
//! about our own database (`pg_catalog.current_database()`) or asks in the same moment
//! for something that a standby does not have ([`super::wal`]).

use std::time::SystemTime;

use crate::session::{DbContext, DbError, Session};

/// The oid of the session's database, as SQL.
pub const OUR_DATABASE: &str = "(SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";

/// Where a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Whether the server is a standby, which nobody can write to.
    pub is_standby: bool,
    /// When it was started, which of two servers is seldom the same to the microsecond.
    pub began: SystemTime,
    /// The session's process.
    pub pid: i32,
    /// The database's oid.
    pub database_oid: u32,
    /// The database's name.
    pub database: String,
    /// The database's encoding.
    pub encoding: String,
}

/// The server and the database of a session.
///
/// # Errors
/// When the server cannot be asked.
pub async fn read(session: &Session) -> Result<Server, DbError> {
    let sql = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_postmaster_start_time(), pg_catalog.pg_backend_pid(), \
           d.oid, d.datname::text, pg_catalog.pg_encoding_to_char(d.encoding)::text \
         FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";
    let row = session.query_one(sql, &[]).await.during(session.side(), "identify the database")?;
    Ok(Server {
        is_standby: row.take(0)?,
        began: row.take(1)?,
        pid: row.take(2)?,
        database_oid: row.take(3)?,
        database: row.take(4)?,
        encoding: row.take(5)?,
    })
}
