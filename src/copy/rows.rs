//! Rows of a table or of a part of it, from COPY to COPY, undecoded.
//!
//! Invariant: rows sent and rows taken are the same number, or the transaction
//! does not commit. The server sends one CopyData message a row (protocol,
//! "COPY Operations"); a binary copy ends with one that is none.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::time::Instant;

use super::plan::{Format, RowsPlan};
use super::{CopyContext, CopyError};
use crate::observe::progress::TableProgress;
use crate::session::{DbContext, Session};
use crate::sql::TableName;

/// Bytes gathered before they are sent on: well above the size of a row, so
/// that the per-message cost does not count, and small beside the memory bound.
const CHUNK: usize = 64 * 1024;

/// Pause between two records of a table's progress in the state.
const RECORD_EVERY: Duration = Duration::from_secs(2);

/// What an attempt at a table has brought over, all its parts together.
pub(super) struct Tally {
    bar: TableProgress,
    rows: AtomicU64,
    bytes: AtomicU64,
    began: Instant,
    recorded: Mutex<Instant>,
}

impl Tally {
    pub(super) fn new(bar: TableProgress) -> Self {
        let began = Instant::now();
        Tally { bar, rows: AtomicU64::new(0), bytes: AtomicU64::new(0), began, recorded: Mutex::new(began) }
    }

    pub(super) fn bar(&self) -> &TableProgress {
        &self.bar
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

/// Copies a part inside the open transaction of `target`.
pub(super) async fn copy(
    ctx: &CopyContext<'_>,
    (source, target): (&Session, &Session),
    table: &TableName,
    plan: &RowsPlan,
    copy_out: &str,
    tally: &Tally,
) -> Result<(), CopyError> {
    let reading = || format!("read {table}");
    let writing = || format!("write {table}");
    let out = source.copy_out(copy_out).await.during(source.side(), reading())?;
    let sink = target.copy_in::<_, Bytes>(&plan.copy_in).await.during(target.side(), writing())?;
    let (mut out, mut sink) = (std::pin::pin!(out), std::pin::pin!(sink));
    let mut counter = Counter { sent: 0, fresh: 0, no_row: no_row(plan.format) };
    let mut chunk = BytesMut::with_capacity(2 * CHUNK);
    while let Some(message) = out.next().await {
        // A row each: the words of an error are made only when there is one.
        let message = match message {
            Ok(message) => message,
            Err(error) => return Err(error).during(source.side(), reading())?,
        };
        chunk.extend_from_slice(&message);
        counter.message();
        if chunk.len() >= CHUNK {
            pass_on(ctx, table, tally, &mut counter, chunk.len()).await?;
            sink.feed(chunk.split().freeze()).await.during(target.side(), writing())?;
            chunk.reserve(2 * CHUNK);
        }
    }
    pass_on(ctx, table, tally, &mut counter, chunk.len()).await?;
    sink.feed(chunk.freeze()).await.during(target.side(), writing())?;
    let taken = sink.finish().await.during(target.side(), writing())?;
    if counter.sent != taken {
        return Err(CopyError::RowCount { table: table.clone(), sent: counter.sent, taken });
    }
    ctx.metrics.copied_rows.inc_by(taken);
    Ok(())
}

async fn pass_on(
    ctx: &CopyContext<'_>,
    table: &TableName,
    tally: &Tally,
    counter: &mut Counter,
    bytes: usize,
) -> Result<(), CopyError> {
    tally.add(ctx, std::mem::take(&mut counter.fresh), u64::try_from(bytes).unwrap_or_default());
    if tally.is_due() {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        ctx.state.record_progress(table, number(tally.rows()), number(tally.bytes())).await?;
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

/// Rows of one COPY.
struct Counter {
    /// Rows that came.
    sent: u64,
    /// Of these, rows that are not in the tally yet.
    fresh: u64,
    /// Messages that are no row, yet to come: the first ones stand for them.
    no_row: u64,
}

impl Counter {
    fn message(&mut self) {
        if self.no_row > 0 {
            self.no_row -= 1;
            return;
        }
        self.sent += 1;
        self.fresh += 1;
    }
}
