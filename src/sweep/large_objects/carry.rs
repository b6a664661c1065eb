//! Carrying single objects by their pages, as one snapshot of the source sees
//! them.
//!
//! Invariant: when an object has been prepared and all of its changed pages have
//! been put, it is equal to the source's. That holds because it was equal at the
//! bound: a page that has not changed since is there already, a changed one is
//! put, and what the source does not have (the tail, holes) is cut off or made
//! zeros here. A crash in between leaves nothing that a pass from the same bound
//! does not repeat: whatever was cut off or cleared has changed since the bound,
//! if it is there again.
//!
//! Holes are asked of the source instead of derived from what has changed. A
//! truncation does leave a changed page behind (`inv_truncate` writes the one at
//! the new end, if need be an empty one), but with two writers on one object,
//! one of them truncating while a snapshot is taken, pages that vanished can have
//! unchanged ones behind them.

use std::collections::{HashMap, HashSet};

use tokio::sync::mpsc;

use super::bound::Changed;
use super::pages::{self, Page, Region};
use super::reader::Reader;
use super::writer::{self, Writer};
use super::{LargeObjectReport, PIECE_BYTES};
use crate::session::Row;
use crate::sweep::SweepError;

/// Holes asked for at once: the source sorts the pages of sparse objects for it.
const HOLES_AT_ONCE: usize = 10_000;

/// Pieces of holes that the target looks at in one statement.
const PIECES_AT_ONCE: usize = 1000;

/// Carries objects by their pages.
pub(super) struct Carrier<'a> {
    /// The source, inside a transaction with the snapshot.
    pub reader: Reader<'a>,
    pub writer: Writer<'a>,
    /// Bytes of a full page on the source.
    pub page_bytes: i64,
    /// What counts as changed.
    pub changed: Changed,
}

/// An object as the source has it.
struct Shape {
    oid: u32,
    bytes: i64,
    /// It has fewer pages than the number of its last one says.
    is_sparse: bool,
}

/// Objects that have been prepared, with their lengths; `None` for what is not
/// the migration's, or not on the source.
pub(super) type Prepared = HashMap<u32, Option<i64>>;

impl Carrier<'_> {
    /// Creates objects with all of their pages, in one transaction: one that is
    /// there in part would be taken for one that was equal at the bound.
    pub async fn create(&self, oids: &[u32], report: &mut LargeObjectReport) -> Result<(), SweepError> {
        let lengths: HashMap<u32, i64> =
            self.shapes(oids).await?.iter().map(|shape| (shape.oid, shape.bytes)).collect();
        let oids: Vec<u32> = lengths.keys().copied().collect();
        if oids.is_empty() {
            return Ok(());
        }
        self.writer.begin().await?;
        let result = async {
            self.writer.create(oids.iter().map(|oid| (*oid, Vec::new())).collect()).await?;
            let sized: Vec<(u32, i64)> =
                lengths.iter().filter(|(_, bytes)| **bytes > 0).map(|(o, b)| (*o, *b)).collect();
            self.writer.shrink(&sized).await?;
            let (out, mut portions) = mpsc::channel(1);
            let read = async {
                let out = out;
                pages::read(&self.reader, Region::Objects(&oids), Changed::Everything, &out)
                    .await
                    .map_err(SweepError::from)
            };
            let write = async {
                let mut written = 0;
                while let Some(pages) = portions.recv().await {
                    written += self.put(pages, |oid| lengths.get(&oid).copied().unwrap_or(0)).await?;
                }
                Ok(written)
            };
            Ok(tokio::try_join!(read, write)?.1)
        }
        .await;
        report.bytes += self.writer.end(result).await?;
        report.created += oids.len() as u64;
        Ok(())
    }

    /// Brings objects of ours to their lengths and clears their holes, inside a
    /// transaction. Those that were touched by that enter `updated`.
    pub async fn prepare(
        &self,
        oids: &[u32],
        prepared: &mut Prepared,
        updated: &mut HashSet<u32>,
    ) -> Result<(), SweepError> {
        let known = writer::known(self.writer.session, self.writer.migration, oids).await?;
        prepared.extend(oids.iter().map(|oid| (*oid, None)));
        let ours: Vec<u32> = oids.iter().copied().filter(|oid| known.get(oid).is_some_and(|k| k.is_ours)).collect();
        if ours.is_empty() {
            return Ok(());
        }
        let target = Reader::of_target(self.writer.session);
        let (shapes, lengths) = tokio::try_join!(self.shapes(&ours), async { Ok(target.lengths(&ours).await?) })?;
        let differing: Vec<(u32, i64)> = shapes
            .iter()
            .filter(|shape| lengths.get(&shape.oid) != Some(&shape.bytes))
            .map(|shape| (shape.oid, shape.bytes))
            .collect();
        self.writer.shrink(&differing).await?;
        updated.extend(differing.iter().map(|(oid, _)| *oid));
        let sparse: Vec<u32> = shapes.iter().filter(|shape| shape.is_sparse).map(|shape| shape.oid).collect();
        updated.extend(self.clear_holes(&sparse).await?);
        prepared.extend(shapes.iter().map(|shape| (shape.oid, Some(shape.bytes))));
        Ok(())
    }

    /// Writes pages of prepared objects, inside a transaction.
    pub async fn put(&self, pages: Vec<Page>, length: impl Fn(u32) -> i64) -> Result<u64, SweepError> {
        let runs = pages::runs(pages, self.page_bytes, length);
        if runs.is_empty() { Ok(0) } else { self.writer.put_runs(runs).await }
    }

    /// Carries some objects of ours: what has changed of them since the bound.
    pub async fn renew(&self, oids: &[u32]) -> Result<u64, SweepError> {
        let (mut prepared, mut updated) = (Prepared::new(), HashSet::new());
        self.writer.begin().await?;
        let result = self.prepare(oids, &mut prepared, &mut updated).await;
        self.writer.end(result).await?;
        let (out, mut portions) = mpsc::channel(1);
        let read = async {
            let out = out;
            pages::read(&self.reader, Region::Objects(oids), self.changed, &out).await.map_err(SweepError::from)
        };
        let write = async {
            let mut written = 0;
            while let Some(mut pages) = portions.recv().await {
                pages.retain(|page| prepared.get(&page.oid).copied().flatten().is_some());
                self.writer.begin().await?;
                let put = self.put(pages, |oid| prepared.get(&oid).copied().flatten().unwrap_or(0)).await;
                written += self.writer.end(put).await?;
            }
            Ok(written)
        };
        Ok(tokio::try_join!(read, write)?.1)
    }

    /// Lengths and density of objects that the source has.
    async fn shapes(&self, oids: &[u32]) -> Result<Vec<Shape>, SweepError> {
        let page = self.page_bytes;
        let sql = format!(
            "SELECT m.oid, coalesce((SELECT l.pageno::bigint * {page} + length(l.data) FROM pg_largeobject l \
                                     WHERE l.loid = m.oid ORDER BY l.pageno DESC LIMIT 1), 0), coalesce(p.pages <= p.last, false) \
             FROM unnest($1::oid[]) o (oid) JOIN pg_largeobject_metadata m ON m.oid = o.oid \
             LEFT JOIN (SELECT loid, count(*) AS pages, max(pageno) AS last FROM pg_largeobject \
                        WHERE loid = ANY ($1::oid[]) GROUP BY loid) p ON p.loid = o.oid"
        );
        let rows = self.reader.rows(&sql, &[&oids], "look at large objects").await?;
        let shape = |row: &Row| Ok(Shape { oid: row.take(0)?, bytes: row.take(1)?, is_sparse: row.take(2)? });
        rows.iter().map(shape).collect()
    }

    /// Makes the target's objects zeros wherever the source's have no page; those
    /// that were not.
    async fn clear_holes(&self, oids: &[u32]) -> Result<HashSet<u32>, SweepError> {
        let sql = format!(
            "SELECT p.loid, p.before + 1, p.pageno - 1 FROM (SELECT l.loid, l.pageno, \
             lag(l.pageno, 1, CASE WHEN l.loid = $2::oid THEN $3::integer ELSE -1 END) OVER (PARTITION BY l.loid ORDER BY l.pageno) \
             AS before FROM pg_largeobject l WHERE l.loid = ANY ($1::oid[]) AND (l.loid, l.pageno) > ($2::oid, $3::integer)) p \
             WHERE p.pageno > p.before + 1 ORDER BY p.loid, p.pageno LIMIT {HOLES_AT_ONCE}"
        );
        let (mut behind, mut cleared) = ((0_u32, -1_i32), HashSet::new());
        let mut is_more = !oids.is_empty();
        while is_more {
            let rows =
                self.reader.rows(&sql, &[&oids, &behind.0, &behind.1], "look for holes of large objects").await?;
            let mut pieces = Vec::new();
            for row in &rows {
                let (oid, first, last): (u32, i32, i32) = (row.take(0)?, row.take(1)?, row.take(2)?);
                let bytes = (i64::from(first) * self.page_bytes, (i64::from(last) + 1) * self.page_bytes);
                pieces.extend(pieces_of(bytes.0, bytes.1).map(|(at, length)| (oid, at, length)));
                // The page behind the hole is there.
                behind = (oid, last + 1);
            }
            for chunk in pieces.chunks(PIECES_AT_ONCE) {
                cleared.extend(self.writer.clear(chunk).await?);
            }
            is_more = rows.len() == HOLES_AT_ONCE;
        }
        Ok(cleared)
    }
}

/// A range of bytes in pieces: offsets and lengths.
fn pieces_of(begin: i64, end: i64) -> impl Iterator<Item = (i64, i32)> {
    let step = usize::try_from(PIECE_BYTES).unwrap_or(1);
    (begin..end).step_by(step).map(move |at| (at, i32::try_from(PIECE_BYTES.min(end - at)).unwrap_or(0)))
}
