//! Which large objects there are.

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
