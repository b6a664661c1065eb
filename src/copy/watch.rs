//! What is watched beside the copy: the WAL that the slot holds back on the
//! source, and the lease.
//!
//! Invariant: a copy whose slot is lost, or loses the WAL it needs at the next
//! checkpoint, is not gone on with for hours; and rows are not copied by a
//! process that another one may have taken over from.
//!
//! Source: `GetWALAvailability` in `src/backend/access/transam/xlog.c`
//! (`wal_status`, 13), `InvalidateObsoleteReplicationSlots` in `slot.c`.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::WalStage;
use super::{CopyContext, CopyError};
use crate::catalog::settings::{self, Setting};
use crate::catalog::slot::{Slot, WalStatus};
use crate::catalog::{self, wal};
use crate::observe::status::human_bytes;
use crate::session::{DbContext, DbError, Session};
use crate::state::resume::ResyncError;

/// Pause between two looks; between two of them a busy source writes some
/// hundred megabytes.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Pause between two looks at whether the lease's connection is still open:
/// what is copied in between is copied for nothing.
const CLOSED_EVERY: Duration = Duration::from_millis(100);

/// WAL held back that is worth a warning, where the source has no limit of its
/// own: half of the free space that a server is usually given.
const WARN_BYTES: u64 = 50 << 30;

/// What is looked at: the slot, and how far the source may get ahead of it.
struct Figures {
    slot: Slot,
    retained_bytes: i64,
    /// max_slot_wal_keep_size in bytes; `None` without a limit.
    limit_bytes: Option<u64>,
    /// The same as the source shows it.
    limit: String,
}

/// Watches the slot until it is lost. A source that cannot be asked is asked
/// again later: the workers notice it, too.
pub(super) async fn slot(ctx: &CopyContext<'_>) -> CopyError {
    let mut session: Option<Session> = None;
    let mut warned = Warned::No;
    loop {
        match look(ctx, &mut session).await {
            Ok(figures) => {
                if let Err(error) = judge(ctx, figures, &mut warned) {
                    return error;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot look at the slot");
                session = None;
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Watches the session that holds the lease.
pub(super) async fn lease(ctx: &CopyContext<'_>) -> CopyError {
    let session = ctx.state.session();
    loop {
        if let Err(error) = session.query("SELECT 1", &[]).await.during(session.side(), "keep the lease") {
            return error.into();
        }
        let asked = Instant::now();
        while !session.is_closed() && asked.elapsed() < LOOK_EVERY {
            sleep(CLOSED_EVERY).await;
        }
    }
}

/// How much WAL a slot may hold back; came with 13.
const WAL_LIMIT: &str = "max_slot_wal_keep_size";

/// Whether the operator has been warned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Warned {
    Yes,
    No,
}

async fn look(ctx: &CopyContext<'_>, kept: &mut Option<Session>) -> Result<Option<Figures>, CopyError> {
    let session = match kept.take() {
        Some(session) if !session.is_closed() => session,
        _ => Session::connect(&ctx.settings.source, &ctx.settings.name).await?,
    };
    Ok(figures(kept.insert(session), ctx.settings.slot.name()).await?)
}

async fn figures(source: &Session, slot: &str) -> Result<Option<Figures>, DbError> {
    let (slot, end, settings) =
        tokio::try_join!(catalog::slot::find(source, slot), wal::end(source), settings::read(source, &[WAL_LIMIT]))?;
    Ok(slot.map(|slot| Figures {
        retained_bytes: slot.retained_bytes(end).unwrap_or(0),
        limit_bytes: settings.get(WAL_LIMIT).and_then(Setting::bytes),
        limit: settings.shown(WAL_LIMIT).to_owned(),
        slot,
    }))
}

fn judge(ctx: &CopyContext<'_>, figures: Option<Figures>, warned: &mut Warned) -> Result<(), CopyError> {
    let slot = ctx.settings.slot.name();
    let Some(figures) = figures else { return Err(ResyncError::SlotGone(slot.to_owned()).into()) };
    ctx.metrics.slot_retained_bytes.with_label_values(&[slot]).set(figures.retained_bytes);
    ctx.metrics.slot_safe_wal_bytes.with_label_values(&[slot]).set(figures.slot.safe_wal_bytes.unwrap_or(-1));
    let stage = match figures.slot.wal_status {
        Some(WalStatus::Lost) => Some(WalStage::Lost),
        Some(WalStatus::Unreserved) => Some(WalStage::Ending),
        _ => None,
    };
    if let Some(stage) = stage {
        let Figures { retained_bytes, limit, .. } = figures;
        if figures.limit_bytes.is_none() {
            // Not for want of room: the server has other reasons as well.
            let status = figures.slot.loss().unwrap_or_else(|| WalStatus::Unreserved.to_string());
            return Err(ResyncError::SlotLost { slot: slot.to_owned(), status }.into());
        }
        return Err(CopyError::WalRunsOut { slot: slot.to_owned(), stage, retained_bytes, limit });
    }
    let retained = u64::try_from(figures.retained_bytes).unwrap_or_default();
    ctx.progress.retains(retained);
    if *warned == Warned::No && retained >= threshold(ctx.settings.wal_warn, figures.limit_bytes) {
        *warned = Warned::Yes;
        tracing::warn!(
            slot,
            retained = human_bytes(retained as f64),
            max_slot_wal_keep_size = figures.limit,
            "the slot holds back much WAL on the source: watch its disk, or copy with more --jobs"
        );
    }
    Ok(())
}

/// Bytes held back that are worth a warning.
fn threshold(asked: Option<u64>, limit: Option<u64>) -> u64 {
    asked.or(limit.map(|limit| limit / 2)).unwrap_or(WARN_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warning_comes_at_what_was_asked_for_else_at_half_of_the_limit() {
        assert_eq!(threshold(Some(7), Some(100)), 7);
        assert_eq!(threshold(None, Some(100)), 50);
        assert_eq!(threshold(None, None), 50 << 30);
    }
}
