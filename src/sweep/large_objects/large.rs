//! An object of more than one piece: its pieces are hashed on both sides, and
//! those that differ are transferred, a window at a time.
//!
//! Invariant: when it returns, length and every piece are equal to the
//! source's; holes stay cheap, because a target object of the right length has
//! zeros wherever nothing was written (`inv_read` fills them in).

use super::PIECE_BYTES;
use super::whole::{Difference, Pass};
use crate::sweep::SweepError;

/// Pieces hashed by one statement: a gigabyte, some seconds of a server's work.
const WINDOW_PIECES: i64 = 1024;

/// Pieces transferred by one target transaction: few commits, little to repeat.
const TRANSACTION_PIECES: usize = 16;

impl Pass<'_> {
    /// Makes an object of more than one piece equal.
    pub(super) async fn carry_large(&mut self, difference: &Difference) -> Result<(), SweepError> {
        let (oid, bytes) = (difference.source.oid, difference.source.bytes);
        match &difference.target {
            None => {
                self.writer.create_sized(oid, bytes).await?;
                self.report.created += 1;
            }
            Some(target) if target.bytes != bytes => self.writer.resize(oid, bytes).await?,
            Some(_) => {}
        }
        let pieces = bytes.div_euclid(PIECE_BYTES) + i64::from(bytes.rem_euclid(PIECE_BYTES) > 0);
        let mut written = 0;
        let mut first = 0;
        while first < pieces {
            let end = (first + WINDOW_PIECES).min(pieces);
            let differing = self.differing_pieces(oid, bytes, first, end).await?;
            for chunk in differing.chunks(TRANSACTION_PIECES) {
                written += self.carry_pieces(oid, bytes, chunk).await?;
            }
            first = end;
        }
        self.report.bytes += written;
        let was_changed = difference.target.as_ref().is_some_and(|target| target.bytes != bytes || written > 0);
        self.report.updated += u64::from(was_changed);
        Ok(())
    }

    /// Indexes of the pieces of `first..end` that are not equal.
    async fn differing_pieces(&self, oid: u32, bytes: i64, first: i64, end: i64) -> Result<Vec<i64>, SweepError> {
        let (source, target) = futures_util::try_join!(
            self.source.piece_hashes(oid, bytes, first, end),
            self.target.piece_hashes(oid, bytes, first, end)
        )?;
        Ok((first..end)
            .zip(source.into_iter().map(Some).chain(std::iter::repeat(None)))
            .zip(target.into_iter().map(Some).chain(std::iter::repeat(None)))
            .filter(|((_, source), target)| source.is_none() || source != target)
            .map(|((piece, _), _)| piece)
            .collect())
    }

    /// Transfers a few pieces in one transaction; the next one is read while
    /// one is written.
    async fn carry_pieces(&self, oid: u32, bytes: i64, pieces: &[i64]) -> Result<u64, SweepError> {
        let mut written = 0;
        self.writer.begin().await?;
        let result = async {
            let mut waiting: Option<(i64, Vec<u8>)> = None;
            for piece in pieces {
                let read = async { self.source.piece(oid, bytes, piece * PIECE_BYTES).await.map_err(SweepError::from) };
                let write = self.writer.put(oid, waiting.as_ref());
                let (content, put) = futures_util::try_join!(read, write)?;
                written += put;
                waiting = Some((piece * PIECE_BYTES, content));
            }
            written += self.writer.put(oid, waiting.as_ref()).await?;
            Ok::<_, SweepError>(())
        }
        .await;
        self.writer.end(result).await?;
        Ok(written)
    }
}
