//! Pages of `pg_largeobject` as one snapshot of the source sees them: those that
//! have changed, of a range of blocks or of some objects, in portions.
//!
//! Invariant: every page of the region that counts as changed comes, once; a
//! portion is bounded in rows, and a page is `LOBLKSIZE` bytes at most.
//!
//! A range of blocks is a TID range scan (14 and newer), which reads these
//! blocks only; before, there is one range, the whole.

use std::ops::Range;

use tokio::sync::mpsc;

use super::bound::{Bound, Changed};
use super::reader::Reader;
use super::writer::Run;
use crate::catalog::wal;
use crate::session::{DbContext, DbError, Row};

/// Pages of a portion: 4 MiB, which both ends and we hold a few of.
const PORTION_PAGES: usize = 2048;

/// Bytes of a run of pages that is put at once: a value of moderate size.
const RUN_BYTES: usize = 1 << 20;

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    pub oid: u32,
    /// Its number in the object.
    pub number: i64,
    /// Its bytes; what is missing at its end is zeros unless it is the last.
    pub data: Vec<u8>,
}

/// What to look at.
#[derive(Clone, Debug)]
pub(super) enum Region<'r> {
    /// Everything.
    Whole,
    /// These blocks of the table.
    Blocks(Range<i64>),
    /// All pages of these objects.
    Objects(&'r [u32]),
}

impl Region<'_> {
    fn condition(&self) -> String {
        match self {
            Region::Whole => "true".to_owned(),
            Region::Blocks(range) => {
                format!("l.ctid >= '({},0)'::tid AND l.ctid < '({},0)'::tid", range.start, range.end)
            }
            Region::Objects(oids) => {
                let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
                format!("l.loid = ANY ('{{{}}}'::oid[])", oids.join(","))
            }
        }
    }
}

/// What a snapshot says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    /// Its xmin, the bound of the next pass.
    pub bound: Bound,
    /// Its xmax: every id that it sees is below.
    pub next: u64,
    /// Bytes of `pg_largeobject`, all that it sees and dead rows.
    pub bytes: i64,
}

impl Snapshot {
    /// The one that the source's session is in, once a crash of the source would not take
    /// back what it sees: a page that is as it was before then is in no later pass.
    pub async fn read(reader: &Reader<'_>) -> Result<Self, DbError> {
        // From 13 on there are other names for these, but these stay.
        let sql = "SELECT txid_snapshot_xmin(s), txid_snapshot_xmax(s), pg_relation_size('pg_catalog.pg_largeobject') \
                   FROM (SELECT txid_current_snapshot() AS s OFFSET 0) x";
        let row = reader.row(sql, &[], "look at the snapshot").await?;
        let next = u64::try_from(row.take::<i64>(1)?).unwrap_or(0);
        wal::flushed(reader.session()).await?;
        Ok(Snapshot { bound: Bound::new(row.take(0)?), next, bytes: row.take(2)? })
    }
}

/// Reads a region, portion by portion, into `out`. The session is inside a
/// transaction with the snapshot.
///
/// # Errors
/// When the source fails. A receiver that is gone ends it without one: what it
/// went with is the error.
pub(super) async fn read(
    reader: &Reader<'_>,
    region: Region<'_>,
    changed: Changed,
    out: &mpsc::Sender<Vec<Page>>,
) -> Result<(), DbError> {
    let (side, action) = (reader.session().side(), "read pages of large objects");
    let declare = format!(
        "DECLARE walferry_pages NO SCROLL CURSOR FOR SELECT l.loid, l.pageno, l.data FROM pg_catalog.pg_largeobject l \
         WHERE {} AND {}",
        region.condition(),
        changed.sql("l.xmin")
    );
    let fetch = format!("FETCH FORWARD {PORTION_PAGES} FROM walferry_pages");
    reader.session().batch_execute(&declare).await.during(side, action)?;
    loop {
        let rows = reader.rows(&fetch, &[], action).await?;
        let is_last = rows.len() < PORTION_PAGES;
        let page = |row: &Row| {
            Ok::<_, DbError>(Page { oid: row.take(0)?, number: i64::from(row.take::<i32>(1)?), data: row.take(2)? })
        };
        let pages: Vec<Page> = rows.iter().map(page).collect::<Result<_, _>>()?;
        drop(rows);
        if (!pages.is_empty() && out.send(pages).await.is_err()) || is_last {
            break;
        }
    }
    reader.session().batch_execute("CLOSE walferry_pages").await.during(side, action)
}

/// Puts pages of `page_bytes` bytes together where they adjoin. `length` is that
/// of a page's object: nothing is written beyond it.
pub(super) fn runs(mut pages: Vec<Page>, page_bytes: i64, length: impl Fn(u32) -> i64) -> Vec<Run> {
    pages.sort_unstable_by_key(|page| (page.oid, page.number));
    let mut runs: Vec<Run> = Vec::new();
    for page in pages {
        let offset = page.number * page_bytes;
        let room = (length(page.oid) - offset).clamp(0, page_bytes);
        let mut data = page.data;
        // A short page that is not the last ends in zeros.
        data.resize(usize::try_from(room).unwrap_or(0), 0);
        if data.is_empty() {
            continue;
        }
        match runs.last_mut() {
            Some(run)
                if run.oid == page.oid
                    && i64::try_from(run.data.len()).is_ok_and(|length| run.offset + length == offset)
                    && run.data.len() < RUN_BYTES =>
            {
                run.data.extend_from_slice(&data);
            }
            _ => runs.push(Run { oid: page.oid, offset, data }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(oid: u32, number: i64, data: &[u8]) -> Page {
        Page { oid, number, data: data.to_vec() }
    }

    #[test]
    fn adjoining_pages_become_one_run_and_short_ones_end_in_zeros() {
        let pages = vec![page(2, 0, b"x"), page(1, 3, b"last"), page(1, 1, b"ab"), page(1, 0, b"0123")];
        // Pages of four bytes; object 1 is 16 bytes long, object 2 one byte.
        let runs = runs(pages, 4, |oid| if oid == 1 { 16 } else { 1 });
        let found: Vec<(u32, i64, &[u8])> = runs.iter().map(|run| (run.oid, run.offset, run.data.as_slice())).collect();
        assert_eq!(found, [(1, 0, &b"0123ab\0\0"[..]), (1, 12, b"last"), (2, 0, b"x")]);
    }

    #[test]
    fn nothing_is_written_beyond_the_end_of_an_object() {
        let runs = runs(vec![page(1, 0, b"0123"), page(1, 1, b""), page(1, 2, b"x")], 4, |_| 4);
        assert_eq!(runs.iter().map(|run| (run.offset, run.data.len())).collect::<Vec<_>>(), [(0, 4)]);
    }
}
