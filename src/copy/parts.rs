//! Parts of a large table: ranges of its pages, by ctid.
//!
//! Invariant: the ranges follow on one another from the first page, and the
//! last one has no end; so every row that a snapshot sees is in exactly one of
//! them, as long as nobody writes the table anew. The keeper locks it (ACCESS
//! SHARE) for that: `VACUUM FULL`, `CLUSTER` and `ALTER TABLE` wait.
//!
//! Source: a range of ctids is read by a TID range scan from 14 on
//! (`src/backend/executor/nodeTidrangescan.c`); before, each would read the
//! whole table.

use std::collections::HashMap;

use crate::session::{DbContext, DbError, Session};

/// The first version that reads a range of ctids without reading the rest.
pub(super) const RANGE_SCANS: i32 = 140_000;

/// Parts of one table at most: a statement each, and a place in memory.
const PARTS_MAX: u64 = 4096;

/// Pages of a table's main fork, by its oid.
///
/// # Errors
/// When the source cannot be asked.
pub(super) async fn pages(source: &Session, oids: &[u32]) -> Result<HashMap<u32, u64>, DbError> {
    if oids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = "SELECT o, coalesce(pg_catalog.pg_relation_size(o, 'main'), 0) \
         / pg_catalog.current_setting('block_size')::int8 FROM unnest($1::oid[]) o";
    let rows = source.query(sql, &[&oids]).await.during(source.side(), "read the size of the large tables")?;
    Ok(rows.iter().map(|row| (row.get(0), u64::try_from(row.get::<_, i64>(1)).unwrap_or_default())).collect())
}

/// The conditions that split a table of so many bytes (its TOAST included) and
/// pages into parts of about `part_size` bytes; none when it is one part.
pub(super) fn conditions(bytes: u64, pages: u64, part_size: u64) -> Vec<String> {
    let parts = bytes.div_ceil(part_size.max(1)).min(PARTS_MAX).min(pages.max(1));
    if parts < 2 {
        return Vec::new();
    }
    let first = |part: u64| pages * part / parts;
    let condition = |part: u64| {
        let from = format!("ctid >= '({},0)'::pg_catalog.tid", first(part));
        if part + 1 == parts { from } else { format!("{from} AND ctid < '({},0)'::pg_catalog.tid", first(part + 1)) }
    };
    (0..parts).map(condition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_on_one_another_and_the_last_has_no_end() {
        assert_eq!(
            conditions(1000, 10, 400),
            [
                "ctid >= '(0,0)'::pg_catalog.tid AND ctid < '(3,0)'::pg_catalog.tid",
                "ctid >= '(3,0)'::pg_catalog.tid AND ctid < '(6,0)'::pg_catalog.tid",
                "ctid >= '(6,0)'::pg_catalog.tid",
            ]
        );
    }

    #[test]
    fn a_part_has_at_least_a_page_and_a_small_table_is_whole() {
        assert_eq!(conditions(1 << 30, 2, 1 << 20).len(), 2);
        assert_eq!(conditions(1 << 50, 1 << 40, 1).len(), 4096);
        for (bytes, pages) in [(0, 0), (400, 100), (1 << 30, 1)] {
            assert!(conditions(bytes, pages, 400).is_empty(), "{bytes} bytes on {pages} pages");
        }
    }
}
