//! Who is at work on a server, and in whose way.
//!
//! Invariant: of another's query no more is shown than its beginning, up to the
//! first letter that a value could begin with.
//!
//! Source: `pg_blocking_pids` in `src/backend/utils/adt/lockfuncs.c`; a role
//! without `pg_read_all_stats` sees of others' sessions pid, user, database and
//! application only.

use crate::session::{DbContext, DbError, Session};

/// A session of `pg_stat_activity`, in words.
const SESSION: &str = "pg_catalog.format('process %s (user %s, database %s, application %s%s)', \
    pid, usename, datname, application_name, \
    coalesce(', for ' || extract(epoch FROM pg_catalog.clock_timestamp() - xact_start)::bigint || ' s', '') \
    || coalesce(', ' || state || ': ' || pg_catalog.rtrim(pg_catalog.substring(query, '^[^''$0-9]{1,60}')), ', ' || state, ''))";

/// The writing transactions of the cluster, oldest first: what the creation of
/// a slot waits for.
///
/// # Errors
/// When the server cannot be asked.
pub async fn writers(session: &Session) -> Result<Vec<String>, DbError> {
    let sql = format!(
        "SELECT {SESSION} \
         FROM (SELECT * FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start LIMIT 20) AS busy \
         UNION ALL SELECT pg_catalog.format('prepared transaction %L (user %s, database %s)', gid, owner, database) \
         FROM pg_catalog.pg_prepared_xacts"
    );
    let rows = session.query(&sql, &[]).await.during(session.side(), "list the writing transactions")?;
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
