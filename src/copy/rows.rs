//! Rows of a table or of a part of it, from COPY to COPY, undecoded.
//!
//! ```text
//! source ─ frames ─ payloads gathered into a chunk ─ CopyData of the chunk's size ─ target
//! ```
//!
//! The two directions work side by side: while a chunk is on its way to the
//! target, the next one is read.
//!
//! Invariant: rows sent and rows taken are the same number, or the transaction
//! does not commit: what the source's COPY says of itself, and the target's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use tokio::time::Instant;

use super::pace::Pace;
use super::plan::{Copies, Format};
use super::{CopyContext, CopyError};
use crate::observe::progress::TableProgress;
use crate::session::{DbContext, QueryError, Session};
use crate::sql::TableName;
use crate::state::copying::Attempt;
use crate::wire::{Connection, Gathered};

/// Bytes gathered before they are sent on: well above the size of a row, so
/// that the per-message cost does not count, and small beside the memory bound.
const CHUNK: usize = 64 * 1024;

/// Pause between two records of a table's progress in the state.
const RECORD_EVERY: Duration = Duration::from_secs(2);

/// What an attempt at a table has brought over, all its parts together.
pub(super) struct Tally {
    bar: TableProgress,
    attempt: Attempt,
    rows: AtomicU64,
    bytes: AtomicU64,
    began: Instant,
    recorded: Mutex<Instant>,
}

impl Tally {
    pub(super) fn new(bar: TableProgress, attempt: Attempt) -> Self {
        let began = Instant::now();
        Tally { bar, attempt, rows: AtomicU64::new(0), bytes: AtomicU64::new(0), began, recorded: Mutex::new(began) }
    }

    pub(super) fn bar(&self) -> &TableProgress {
        &self.bar
    }

    /// Which attempt the state knows it as.
    pub(super) fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Rows so far; those of text and binary headers left out.
    pub(super) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Bytes of COPY data so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How long the attempt has lasted.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// The attempt counts for nothing any more.
    pub(super) fn begin_anew(&self) {
        self.bar.take_back();
    }

    fn add(&self, ctx: &CopyContext<'_>, rows: u64, bytes: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bar.advance(rows, bytes);
        ctx.metrics.copied_bytes.inc_by(bytes);
    }

    /// Whether it is time to record the progress.
    fn is_due(&self) -> bool {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = recorded.elapsed() >= RECORD_EVERY;
        if is_due {
            *recorded = Instant::now();
        }
        is_due
    }
}

/// The target's transaction that rows come in with; the caller ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    /// One that begins with them.
    New,
    /// One that is open.
    Open,
}

/// Copies a part.
pub(super) async fn copy(
    ctx: &CopyContext<'_>,
    pace: &Pace,
    (source, target, within): (&mut Connection, &Session, Within),
    table: &TableName,
    (copies, copy_out): (&Copies, &str),
    tally: &Tally,
) -> Result<(), CopyError> {
    let reading = |source| CopyError::Read { table: table.clone(), source };
    let writing = || format!("write {table}");
    let out = async { source.copy_out(copy_out).await.map_err(reading) };
    // Both servers at once; BEGIN is sent first, and its answer not waited for.
    let sink = async {
        let begin = async { if within == Within::New { target.batch_execute("BEGIN").await } else { Ok(()) } };
        let (begun, sink) = tokio::join!(begin, target.copy_in::<_, Bytes>(&copies.copy_in));
        begun.and(sink.map_err(QueryError::from)).during(target.side(), writing()).map_err(CopyError::from)
    };
    let (mut out, sink) = tokio::try_join!(out, sink)?;
    let mut sink = std::pin::pin!(sink);
    let mut chunk = BytesMut::with_capacity(2 * CHUNK);
    // Messages that are no row: they come first in this count.
    let (mut counted, mut no_row) = (0, no_row(copies.format));
    let sent = loop {
        let gathered = out.gather(&mut chunk, CHUNK).await.map_err(reading)?;
        let (Gathered::Chunk { messages } | Gathered::End { messages, .. }) = gathered;
        let rows = messages.saturating_sub(no_row);
        no_row = no_row.saturating_sub(messages);
        counted += rows;
        let bytes = u64::try_from(chunk.len()).unwrap_or_default();
        tally.add(ctx, rows, bytes);
        record_progress(ctx, copies.source_oid, tally).await?;
        sink.feed(chunk.split().freeze()).await.during(target.side(), writing())?;
        pace.pay(bytes).await;
        if let Gathered::End { rows, .. } = gathered {
            break rows;
        }
        chunk.reserve(2 * CHUNK);
    };
    let taken = sink.finish().await.during(target.side(), writing())?;
    if sent != taken || sent != counted {
        return Err(CopyError::RowCount { table: table.clone(), sent, taken });
    }
    ctx.metrics.copied_rows.inc_by(taken);
    Ok(())
}

async fn record_progress(ctx: &CopyContext<'_>, source_oid: u32, tally: &Tally) -> Result<(), CopyError> {
    if tally.is_due() {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        ctx.state.record_progress(source_oid, number(tally.rows()), number(tally.bytes())).await?;
    }
    Ok(())
}

/// Messages of a copy that are no row: a binary one ends with its trailer (the
/// header comes with the first row, or with the trailer of an empty table).
fn no_row(format: Format) -> u64 {
    match format {
        Format::Text => 0,
        Format::Binary => 1,
    }
}
