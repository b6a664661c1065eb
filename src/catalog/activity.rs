//! Who is at work on a server, and in whose way.
//!
//! Invariant: of another's query no more is shown than its beginning, up to the
//! first letter that a value could begin with.
//!
//! Source: `pg_blocking_pids` in `src/backend/utils/adt/lockfuncs.c`; a role
//! without `pg_read_all_stats` sees of others' sessions pid, user, database and
//! application only.

use std::fmt;

use super::server::OUR_DATABASE;
use crate::session::{DbContext, DbError, Session};
use crate::sql::literal;

/// A session of `pg_stat_activity`, in words.
const SESSION: &str = "pg_catalog.format('process %s (user %s, database %s, application %s%s)', \
    pid, usename, datname, application_name, \
    coalesce(', for ' || extract(epoch FROM pg_catalog.clock_timestamp() - xact_start)::bigint || ' s', '') \
    || coalesce(', ' || state || ': ' || pg_catalog.rtrim(pg_catalog.substring(query, '^[^''$0-9]{1,60}')), ', ' || state, ''))";

/// The writing transactions of the cluster, oldest first, and then the prepared ones:
/// what the creation of a slot waits for.
///
/// # Errors
/// When the server cannot be asked.
pub async fn writers(session: &Session) -> Result<Vec<String>, DbError> {
    let sql = format!(
        "SELECT {SESSION} \
         FROM (SELECT * FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start LIMIT 20) AS busy"
    );
    let rows = session.query(&sql, &[]).await.during(session.side(), "list the writing transactions")?;
    let mut writers: Vec<String> = rows.iter().map(|row| row.take(0)).collect::<Result<_, DbError>>()?;
    writers.extend(prepared(session).await?.iter().map(ToString::to_string));
    Ok(writers)
}

/// The processes of writing transactions that have been open for longer than so many
/// seconds, but for our own, oldest first.
///
/// # Errors
/// When the server cannot be asked.
pub async fn long_writers(session: &Session, seconds: i32) -> Result<Vec<i32>, DbError> {
    let sql = "SELECT pid FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid() \
         AND xact_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1::int) ORDER BY xact_start";
    let rows = session.query(sql, &[&seconds]).await.during(session.side(), "look for long transactions")?;
    rows.iter().map(|row| row.take(0)).collect()
}

/// A prepared transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Its identifier.
    pub gid: String,
    /// Whose it is; empty where the role is gone.
    pub owner: String,
    /// The database that it is in.
    pub database: String,
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Prepared { gid, owner, database } = self;
        write!(f, "prepared transaction {} (user {owner}, database {database})", literal(gid).trim())
    }
}

/// The prepared transactions of the cluster, oldest first.
///
/// # Errors
/// When the server cannot be asked.
pub async fn prepared(session: &Session) -> Result<Vec<Prepared>, DbError> {
    let sql =
        "SELECT gid, coalesce(owner::text, ''), database::text FROM pg_catalog.pg_prepared_xacts ORDER BY prepared";
    let rows = session.query(sql, &[]).await.during(session.side(), "look for prepared transactions")?;
    rows.iter().map(|row| Ok(Prepared { gid: row.take(0)?, owner: row.take(1)?, database: row.take(2)? })).collect()
}

/// Connections that WAL is sent to.
///
/// # Errors
/// When the server cannot be asked.
pub async fn replicating(session: &Session) -> Result<i64, DbError> {
    let sql = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication";
    session.query_one(sql, &[]).await.during(session.side(), "count the walsenders")?.take(0)
}

/// Connections in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Of the server.
    pub of_server: i64,
    /// Of our database.
    pub of_database: i64,
    /// Of our role.
    pub of_role: i64,
}

/// How many connections are in use, our own among them.
///
/// # Errors
/// When the server cannot be asked.
pub async fn connections(session: &Session) -> Result<Connections, DbError> {
    let sql = "SELECT (SELECT coalesce(pg_catalog.sum(numbackends), 0)::bigint FROM pg_catalog.pg_stat_database), \
         (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database()), \
         (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity WHERE usename = current_user)";
    let row = session.query_one(sql, &[]).await.during(session.side(), "count the connections")?;
    Ok(Connections { of_server: row.take(0)?, of_database: row.take(1)?, of_role: row.take(2)? })
}

/// Whether the server has a session with this process.
///
/// # Errors
/// When the server cannot be asked.
pub async fn has_process(session: &Session, pid: i32) -> Result<bool, DbError> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = $1)";
    session.query_one(sql, &[&pid]).await.during(session.side(), "look for a process")?.take(0)
}

/// Who holds tables of the database so that they cannot even be read: what pg_dump
/// waits for.
///
/// # Errors
/// When the server cannot be asked.
pub async fn exclusive_holders(session: &Session) -> Result<Vec<String>, DbError> {
    let sql = format!(
        "SELECT DISTINCT pg_catalog.format('process %s (user %s, %s, for %s s) holds %s', a.pid, a.usename, a.state, \
           extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::bigint, l.relation::pg_catalog.regclass) \
         FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
         WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'AccessExclusiveLock' AND l.pid <> pg_catalog.pg_backend_pid() \
           AND l.database = {OUR_DATABASE} ORDER BY 1 LIMIT 20"
    );
    let rows = session.query(&sql, &[]).await.during(session.side(), "look who holds tables")?;
    rows.iter().map(|row| row.take(0)).collect()
}

/// What a session waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The table, where it is one.
    pub relation: Option<String>,
    /// The sessions in the way.
    pub behind: Vec<String>,
}

/// What the session with this process waits for; `None` if for no lock.
///
/// # Errors
/// When the server cannot be asked.
pub async fn waiting(session: &Session, pid: i32) -> Result<Option<Waiting>, DbError> {
    let sql = format!(
        "SELECT (SELECT relation::pg_catalog.regclass::text FROM pg_catalog.pg_locks \
             WHERE pid = $1 AND NOT granted AND relation IS NOT NULL LIMIT 1), \
         coalesce((SELECT pg_catalog.array_agg({SESSION} ORDER BY xact_start) FROM pg_catalog.pg_stat_activity \
             WHERE pid = ANY (pg_catalog.pg_blocking_pids($1))), '{{}}')"
    );
    let row = session.query_one(&sql, &[&pid]).await.during(session.side(), "look who is in the way")?;
    let waiting = Waiting { relation: row.take(0)?, behind: row.take(1)? };
    Ok(Some(waiting).filter(|waiting| !waiting.behind.is_empty()))
}
