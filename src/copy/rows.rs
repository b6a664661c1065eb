//! One table's rows, from COPY to COPY, undecoded.
//!
//! Invariant: rows sent and rows taken are the same number, or the table's
//! transaction does not commit. The server sends one CopyData message a row
//! (protocol, "COPY Operations"); a binary copy ends with one that is none.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::time::Instant;

use super::plan::{Format, Job};
use super::{CopyContext, CopyError};
use crate::observe::progress::TableProgress;
use crate::session::{DbContext, Session};
use crate::state::tables::{TableRow, TableState};

/// Bytes gathered before they are sent on: well above the size of a row, so
/// that the per-message cost does not count, and small beside the memory bound.
const CHUNK: usize = 64 * 1024;

/// Pause between two records of a table's progress in the state.
const RECORD_EVERY: Duration = Duration::from_secs(2);

/// Copies the rows inside the open transaction of `target`; `row` counts them.
pub(super) async fn copy(
    ctx: &CopyContext<'_>,
    (source, target): (&Session, &Session),
    job: &Job,
    bar: &TableProgress,
    row: &mut TableRow,
) -> Result<(), CopyError> {
    let reading = || format!("read {}", job.table);
    let writing = || format!("write {}", job.table);
    let out = source.copy_out(&job.copy_out).await.during(source.side(), reading())?;
    let sink = target.copy_in::<_, Bytes>(&job.copy_in).await.during(target.side(), writing())?;
    let (mut out, mut sink) = (std::pin::pin!(out), std::pin::pin!(sink));
    let mut tally = Tally { messages: 0, chunk_messages: 0, no_row: no_row(job.format), recorded: Instant::now() };
    let mut chunk = BytesMut::with_capacity(2 * CHUNK);
    while let Some(message) = out.next().await {
        chunk.extend_from_slice(&message.during(source.side(), reading())?);
        tally.chunk_messages += 1;
        if chunk.len() >= CHUNK {
            tally.chunk(ctx, bar, row, chunk.len()).await?;
            sink.feed(chunk.split().freeze()).await.during(target.side(), writing())?;
            chunk.reserve(2 * CHUNK);
        }
    }
    tally.chunk(ctx, bar, row, chunk.len()).await?;
    sink.feed(chunk.freeze()).await.during(target.side(), writing())?;
    let taken = sink.finish().await.during(target.side(), writing())?;
    let sent = tally.messages.saturating_sub(no_row(job.format));
    if sent != taken {
        return Err(CopyError::RowCount { table: job.table.clone(), sent, taken });
    }
    row.rows = i64::try_from(taken).unwrap_or(i64::MAX);
    ctx.metrics.copied_rows.inc_by(taken);
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

/// What has gone through.
struct Tally {
    messages: u64,
    chunk_messages: u64,
    /// Messages yet to be left out of the rows that are shown.
    no_row: u64,
    recorded: Instant,
}

impl Tally {
    async fn chunk(
        &mut self,
        ctx: &CopyContext<'_>,
        bar: &TableProgress,
        row: &mut TableRow,
        bytes: usize,
    ) -> Result<(), CopyError> {
        let bytes = u64::try_from(bytes).unwrap_or_default();
        let messages = std::mem::take(&mut self.chunk_messages);
        self.messages += messages;
        let rows = messages.saturating_sub(std::mem::take(&mut self.no_row));
        bar.advance(rows, bytes);
        ctx.metrics.copied_bytes.inc_by(bytes);
        row.rows = i64::try_from(self.messages).unwrap_or(i64::MAX);
        row.bytes = row.bytes.saturating_add_unsigned(bytes);
        if self.recorded.elapsed() >= RECORD_EVERY {
            self.recorded = Instant::now();
            ctx.state.update_table(&TableRow { state: TableState::Copying, ..row.clone() }).await?;
        }
        Ok(())
    }
}
