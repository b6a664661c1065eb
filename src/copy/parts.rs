//! Parts of a large table: ranges of its pages, or of its primary key.
//!
//! | source | primary key begins with | parts |
//! |---|---|---|
//! | 14 or newer | anything, or none | ranges of pages, by ctid |
//! | older | `int2`, `int4`, `int8` | ranges of that column |
//! | older | anything else, or none | one: the table |
//!
//! Invariant: the ranges follow on one another, the first page is in the first
//! one (of keys: it is open below), and the last one has no end; so every row
//! that a snapshot sees is in exactly one of them, as long as nobody writes the
//! table anew. Whether somebody has is asked before each part is read
//! ([`super::snapshot::look`]); no lock is held between two of them. Columns of
//! a primary key are never NULL. Where the ranges of keys are cut is a matter of
//! speed only.
//!
//! Source: a range of ctids is read by a TID range scan from 14 on
//! (`src/backend/executor/nodeTidrangescan.c`); before, each would read the
//! whole table.

use std::collections::HashMap;

use crate::catalog::held;
use crate::catalog::tables::Shape;
use crate::membership::SourceTable;
use crate::session::{DbContext, DbError, Session};
use crate::sql::{TableName, ident};

/// The first version that reads a range of ctids without reading the rest.
const RANGE_SCANS: i32 = 140_000;

/// Parts of one table at most: a statement each, and a place in memory.
const PARTS_MAX: u64 = 4096;

/// `int8`, `int2`, `int4` (`src/include/catalog/pg_type.dat`).
const INTEGERS: [u32; 3] = [20, 21, 23];

/// The first column of a primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    column: String,
    type_oid: u32,
}

/// How a large table is split.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Split<'a> {
    Pages,
    Key(&'a str),
    Whole,
}

/// The first column of each table's primary key, by the table's oid.
const KEYS: &str = "SELECT i.indrelid, a.attname::text, a.atttypid FROM pg_catalog.pg_index i \
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
    WHERE i.indisprimary AND i.indrelid = ANY ($1::oid[])";

/// Where the statistics cut a column into ranges of about as many rows; they
/// are as old as the last ANALYZE, and there may be none.
const HISTOGRAM: &str = "SELECT histogram_bounds::text::int8[] FROM pg_catalog.pg_stats \
    WHERE schemaname = $1::text AND tablename = $2::text AND attname = $3::text AND NOT inherited \
    AND histogram_bounds IS NOT NULL";

/// Behind this, what it looked at is not locked any more.
const BEGIN_LOOK: &str = "SAVEPOINT look";

/// A lock that was taken behind a savepoint goes with it.
const END_LOOK: &str = "ROLLBACK TO SAVEPOINT look; RELEASE SAVEPOINT look";

/// The conditions that split each of these tables into parts of about
/// `part_size` bytes, by oid; of those that are not split there is none. The
/// session is in a transaction, which locks none of them in the end.
///
/// # Errors
/// When the source cannot be asked.
pub(super) async fn conditions(
    source: &Session,
    large: &[&SourceTable],
    part_size: u64,
) -> Result<HashMap<u32, Vec<String>>, DbError> {
    let keys = if source.version() < RANGE_SCANS { keys(source, large).await? } else { HashMap::new() };
    let splits = large.iter().map(|table| (*table, split(source.version(), keys.get(&table.oid))));
    let splits: Vec<_> = splits.filter(|(_, split)| *split != Split::Whole).collect();
    if splits.is_empty() {
        return Ok(HashMap::new());
    }
    let pages = pages(source, large).await?;
    let mut conditions = HashMap::new();
    for (table, split) in splits {
        let pages = pages.get(&table.oid).copied().unwrap_or_default();
        let parts = count(table.bytes, pages, part_size);
        let ranges = match split {
            Split::Key(column) if parts > 1 => key_ranges(column, &cuts(source, &table.name, column, parts).await?),
            _ => page_ranges(pages, parts),
        };
        conditions.insert(table.oid, ranges);
    }
    Ok(conditions)
}

fn split(version: i32, key: Option<&Key>) -> Split<'_> {
    match key {
        _ if version >= RANGE_SCANS => Split::Pages,
        Some(key) if INTEGERS.contains(&key.type_oid) => Split::Key(&key.column),
        _ => Split::Whole,
    }
}

/// Parts of a table of so many bytes (its TOAST included) and pages.
fn count(bytes: u64, pages: u64, part_size: u64) -> u64 {
    bytes.div_ceil(part_size.max(1)).min(PARTS_MAX).min(pages.max(1))
}

/// Pages of a table's main fork, by its oid.
async fn pages(source: &Session, tables: &[&SourceTable]) -> Result<HashMap<u32, u64>, DbError> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let sql = "SELECT o, coalesce(pg_catalog.pg_relation_size(o, 'main'), 0) \
         / pg_catalog.current_setting('block_size')::int8 FROM unnest($1::oid[]) o";
    let rows = source.query(sql, &[&oids]).await.during(source.side(), "read the size of the large tables")?;
    rows.iter().map(|row| Ok((row.take(0)?, u64::try_from(row.take::<i64>(1)?).unwrap_or_default()))).collect()
}

/// None when it is one part.
fn page_ranges(pages: u64, parts: u64) -> Vec<String> {
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

async fn keys(source: &Session, tables: &[&SourceTable]) -> Result<HashMap<u32, Key>, DbError> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let rows = source.query(KEYS, &[&oids]).await.during(source.side(), "read the keys of the large tables")?;
    rows.iter().map(|row| Ok((row.take(0)?, Key { column: row.take(1)?, type_oid: row.take(2)? }))).collect()
}

/// Where a table is cut into about so many parts, by this column.
async fn cuts(source: &Session, table: &TableName, column: &str, parts: u64) -> Result<Vec<i64>, DbError> {
    let action = || format!("find where to split {table}");
    let row = source.query_opt(HISTOGRAM, &[&table.schema, &table.name, &column]).await;
    if let Some(row) = row.during(source.side(), action())? {
        return Ok(quantiles(&row.take::<Vec<i64>>(0)?, parts));
    }
    let column = ident(column);
    let sql = format!("SELECT min({column})::int8, max({column})::int8 FROM ONLY {}", table.sql());
    let begin = format!("{BEGIN_LOOK}; {}", held::hold(Shape::Plain, table));
    source.batch_execute(&begin).await.during(source.side(), action())?;
    let row = source.query_one(&sql, &[]).await.during(source.side(), action())?;
    source.batch_execute(END_LOOK).await.during(source.side(), action())?;
    Ok(match (row.take(0)?, row.take(1)?) {
        (Some(least), Some(greatest)) => equal_widths(least, greatest, parts),
        _ => Vec::new(),
    })
}

/// The bounds between parts of about as many of a histogram's ranges.
fn quantiles(bounds: &[i64], parts: u64) -> Vec<i64> {
    let ranges = u64::try_from(bounds.len()).unwrap_or(u64::MAX).saturating_sub(1);
    let parts = parts.min(ranges);
    let bound = |part: u64| bounds.get(usize::try_from(ranges * part / parts).unwrap_or_default()).copied();
    (1..parts).filter_map(bound).collect()
}

fn equal_widths(least: i64, greatest: i64, parts: u64) -> Vec<i64> {
    let width = i128::from(greatest) - i128::from(least) + 1;
    let cut = |part: u64| i64::try_from(i128::from(least) + width * i128::from(part) / i128::from(parts)).ok();
    (1..parts).filter_map(cut).collect()
}

/// Ranges of a column between these values; none when it is one part. Any
/// values will do.
fn key_ranges(column: &str, cuts: &[i64]) -> Vec<String> {
    let mut cuts = cuts.to_vec();
    cuts.sort_unstable();
    cuts.dedup();
    let column = ident(column);
    let below = |cut: &i64| format!("{column} < '{cut}'::pg_catalog.int8");
    let from = |cut: &i64| format!("{column} >= '{cut}'::pg_catalog.int8");
    let (Some(first), Some(last)) = (cuts.first(), cuts.last()) else { return Vec::new() };
    let between = cuts.windows(2).filter_map(|pair| match pair {
        [low, high] => Some(format!("{} AND {}", from(low), below(high))),
        _ => None,
    });
    std::iter::once(below(first)).chain(between).chain(std::iter::once(from(last))).collect()
}

#[cfg(test)]
#[path = "parts_test.rs"]
mod tests;
