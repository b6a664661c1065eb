//! Which large objects there are, and whether any are written.

use crate::session::{DbContext, DbError, Session};

/// Oids that are compared: a target that is not empty has few, or is the wrong one.
const LOOKED_AT: i64 = 10_000;

/// Oids that both ends have, of the first so many of the target.
///
/// # Errors
/// When a catalog cannot be read.
pub async fn in_both(source: &Session, target: &Session) -> Result<Vec<u32>, DbError> {
    let sql = "SELECT oid FROM pg_catalog.pg_largeobject_metadata ORDER BY oid LIMIT $1::int8";
    let rows = target.query(sql, &[&LOOKED_AT]).await.during(target.side(), "list the large objects")?;
    let there: Vec<u32> = rows.iter().map(|row| row.take(0)).collect::<Result<_, _>>()?;
    let sql = "SELECT oid FROM pg_catalog.pg_largeobject_metadata WHERE oid = ANY ($1::oid[]) ORDER BY oid";
    let rows = source.query(sql, &[&there]).await.during(source.side(), "list the large objects")?;
    rows.iter().map(|row| row.take(0)).collect()
}

/// Rows of large objects, their metadata and comments that were ever written, as
/// far as the server counts them; a standby does not count what it replays.
///
/// # Errors
/// When the server cannot be asked.
pub async fn written(session: &Session) -> Result<Option<i64>, DbError> {
    let sql = "SELECT CASE WHEN current_setting('track_counts')::boolean AND NOT pg_is_in_recovery() \
               THEN sum(n_tup_ins + n_tup_upd + n_tup_del)::bigint END FROM pg_stat_sys_tables \
               WHERE relid IN ('pg_catalog.pg_largeobject'::regclass, 'pg_catalog.pg_largeobject_metadata'::regclass, \
                               'pg_catalog.pg_description'::regclass)";
    let row = session.query_one(sql, &[]).await.during(session.side(), "look at the counters of the large objects")?;
    row.take(0)
}
