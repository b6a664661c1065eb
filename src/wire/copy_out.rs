//! COPY … TO STDOUT: rows as bytes, never decoded.
//!
//! ```text
//! Query ─► H (how it is written) ─► d, d, d … ─► c ─► C "COPY rows" ─► Z
//!            └──────── E ◄──────────┴─► Z
//! ```
//!
//! A row is a CopyData of its own. Only the headers of these are looked at;
//! what is in them goes from the socket's buffer to the caller's, gathered, so
//! a row costs a copy of its bytes and nothing else. A row that is longer than
//! the buffer is handed on in pieces.
//!
//! Invariant: a copy counts as read only when its CommandComplete has come, and
//! that says how many rows it had.
//!
//! Source: "COPY Operations" of the protocol's documentation; `CopySendEndOfRow`
//! in `src/backend/commands/copyto.c`.

use bytes::BytesMut;
use futures_util::FutureExt;

use super::connection::is_last_word;
use super::frame::Stop;
use super::{Connection, Frame, WireError};

/// A COPY that is being read.
pub struct CopyOut<'a> {
    connection: &'a mut Connection,
    /// What is still to come of the CopyData at hand, in bytes.
    unread: usize,
}

/// What [`CopyOut::gather`] has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathered {
    /// The chunk is full; so many CopyData have ended in it.
    Chunk {
        /// CopyData messages.
        messages: u64,
    },
    /// The copy is complete; what is in the chunk is its end.
    End {
        /// CopyData messages that ended in the chunk.
        messages: u64,
        /// Rows of the whole copy, as the server counts them.
        rows: u64,
    },
}

impl Connection {
    /// Begins a COPY … TO STDOUT.
    ///
    /// # Errors
    /// [`WireError::Server`] when the server refuses it; the connection stays
    /// usable then, and after no other error.
    pub async fn copy_out(&mut self, sql: &str) -> Result<CopyOut<'_>, WireError> {
        self.send_query(sql).await?;
        let frame = self.next().await?;
        if frame.tag != b'H' {
            return Err(self.refused(&frame, "the beginning of a COPY").await);
        }
        Ok(CopyOut { connection: self, unread: 0 })
    }

    /// Whether the server has said or done anything since the last query. Asked
    /// between queries, when there is nothing to say, so it has ended the
    /// connection; nothing more can be done with that then.
    pub fn is_closed(&mut self) -> bool {
        self.next().now_or_never().is_some()
    }

    /// The error that a frame out of place stands for. Behind an error of a
    /// statement the server gets ready for the next one.
    async fn refused(&mut self, frame: &Frame, instead_of: &str) -> WireError {
        let error = self.reader().unexpected(frame, instead_of);
        if frame.tag != b'E' || is_last_word(&error) {
            return error;
        }
        match self.next().await {
            Ok(frame) if frame.tag == b'Z' => error,
            Ok(frame) => self.reader().unexpected(&frame, "the end of a COPY that failed"),
            Err(lost) => lost,
        }
    }
}

impl CopyOut<'_> {
    /// Adds to `chunk` until it holds `enough` bytes or the copy has ended.
    /// Not cancel safe: dropped, the connection is of no more use.
    ///
    /// # Errors
    /// [`WireError::Server`] when the server breaks the copy off, others when
    /// the connection is lost.
    pub async fn gather(&mut self, chunk: &mut BytesMut, enough: usize) -> Result<Gathered, WireError> {
        let mut messages = 0;
        loop {
            let (ended, stop) = self.connection.reader().take_copy_data(chunk, &mut self.unread, enough)?;
            messages += ended;
            match stop {
                Stop::Full => return Ok(Gathered::Chunk { messages }),
                Stop::NeedsBytes => self.connection.reader().fill().await?,
                Stop::OtherFrame => {
                    let frame = self.connection.next().await?;
                    match frame.tag {
                        b'c' => return self.complete(messages).await,
                        // Behind a notice.
                        b'd' => {
                            chunk.extend_from_slice(&frame.body);
                            messages += 1;
                        }
                        _ => return Err(self.connection.refused(&frame, "rows of a COPY").await),
                    }
                }
            }
        }
    }

    async fn complete(&mut self, messages: u64) -> Result<Gathered, WireError> {
        let frame = self.connection.next().await?;
        let tag =
            std::str::from_utf8(&frame.body).ok().and_then(|tag| tag.trim_end_matches('\0').strip_prefix("COPY "));
        let (b'C', Some(Ok(rows))) = (frame.tag, tag.map(str::parse)) else {
            return Err(self.connection.refused(&frame, "the end of a COPY").await);
        };
        let frame = self.connection.next().await?;
        if frame.tag != b'Z' {
            return Err(self.connection.refused(&frame, "the end of a COPY").await);
        }
        Ok(Gathered::End { messages, rows })
    }
}
