//! The slot of the migration: an old one cleared away, a new one created while
//! the transactions that hold it up are shown. And temporary ones, for the
//! snapshot they give: they go with their connection.
//!
//! Invariant: only a slot that this migration made is dropped, and a creation
//! that is given up leaves no slot behind.
//!
//! Source: `src/backend/replication/logical/snapbuild.c`: a slot is consistent
//! once every transaction that was writing when its creation began has ended,
//! in all databases of the cluster.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep, timeout};

use super::{CopyContext, CopyError};
use crate::catalog;
use crate::config::Provenance;
use crate::session::{DbContext, DbError, Session};
use crate::state::created::Recognised;
use crate::state::position::temporary_prefix;
use crate::wire::{CreatedSlot, Failover, Lifetime, Replication, SlotOptions, SnapshotAction};

/// How long a creation may wait for transactions on the source to end. Longer
/// ones are somebody's forgotten session, which somebody should look at.
const CREATION_DEADLINE: Duration = Duration::from_secs(600);

/// The same where the copy goes on without: enough for transactions of the
/// usual length.
const WELCOME_DEADLINE: Duration = Duration::from_secs(60);

/// Pause between two looks at who is in the way.
const BLOCKERS_EVERY: Duration = Duration::from_secs(5);

/// How long the server may take to notice that the holder of an old slot is
/// gone: its wal_sender_timeout (60 s by default) and a little.
const RELEASE_DEADLINE: Duration = Duration::from_secs(75);

/// Pause between two looks at an old slot.
const RELEASE_POLL: Duration = Duration::from_millis(500);

/// How long a cancelled creation may take to end.
const CANCEL_DEADLINE: Duration = Duration::from_secs(10);

/// Drops the slot of an attempt that was cut off.
///
/// # Errors
/// When the slot is the operator's, is not known to be ours, or stays in use.
pub(super) async fn clear(ctx: &CopyContext<'_>, source: &Session) -> Result<(), CopyError> {
    let slot = match &ctx.settings.slot {
        Provenance::Existing(name) => return Err(CopyError::ExistingSlot(name.clone())),
        Provenance::Ours(name) => name,
    };
    let give_up = Instant::now() + RELEASE_DEADLINE;
    loop {
        let Some(found) = catalog::slot::find(source, slot).await? else {
            ctx.state.slot_dropped(slot).await?;
            return Ok(());
        };
        if let Recognised::No(why) = ctx.state.recognises(&found).await? {
            return Err(CopyError::ForeignSlot { slot: slot.clone(), why });
        }
        match found.active_pid {
            None => break,
            Some(pid) if Instant::now() >= give_up => return Err(CopyError::SlotInUse { slot: slot.clone(), pid }),
            Some(pid) => tracing::info!(slot, pid, "waiting until the slot of an earlier attempt is released"),
        }
        sleep(RELEASE_POLL).await;
    }
    source
        .execute("SELECT pg_catalog.pg_drop_replication_slot($1::text)", &[&slot])
        .await
        .during(source.side(), format!("drop slot \"{slot}\" of an earlier attempt"))?;
    ctx.state.slot_dropped(slot).await?;
    tracing::info!(slot, "dropped the slot of an earlier attempt");
    Ok(())
}

/// Creates the slot with an exported snapshot, which lives until the returned
/// connection is used or dropped.
///
/// # Errors
/// [`CopyError::SlotBlocked`] names the sessions that were in the way.
pub(super) async fn create(ctx: &CopyContext<'_>, source: &Session) -> Result<(Replication, CreatedSlot), CopyError> {
    let slot = ctx.settings.slot.name();
    ctx.state.slot_begins(slot, catalog::wal::end(source).await?).await?;
    let mut replication = Replication::connect(&ctx.settings.source, &ctx.settings.name).await?;
    let created = attempt(ctx, source, &mut replication, (slot, Lifetime::Permanent), Need::Urgent).await?;
    tracing::info!(slot, consistent_point = %created.consistent_point.lsn(), "created the replication slot");
    Ok((replication, created))
}

/// How much a new snapshot is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing goes on without it.
    Urgent,
    /// It would only be better to have one: the creation is given up soon, and
    /// nobody has to be told who is in the way.
    Welcome,
}

impl Need {
    fn deadline(self) -> Duration {
        match self {
            Need::Urgent => CREATION_DEADLINE,
            Need::Welcome => WELCOME_DEADLINE,
        }
    }
}

/// Creates a temporary slot with an exported snapshot: the slot lives as long
/// as the returned connection, the snapshot until that is used.
///
/// # Errors
/// As [`create`].
pub(super) async fn create_temporary(
    ctx: &CopyContext<'_>,
    source: &Session,
    need: Need,
) -> Result<(Replication, CreatedSlot), CopyError> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // A name of its own each time: the server may not have noticed yet that an
    // earlier one's connection is gone. At most 40 + 6 + 11 letters.
    let slot = format!("{}{:x}", temporary_prefix(&ctx.settings.name), since_epoch.as_millis());
    let mut replication = Replication::connect(&ctx.settings.source, &ctx.settings.name).await?;
    let created = attempt(ctx, source, &mut replication, (&slot, Lifetime::Temporary), need).await?;
    tracing::info!(slot, consistent_point = %created.consistent_point.lsn(), "created a temporary slot for a new snapshot");
    Ok((replication, created))
}

async fn attempt(
    ctx: &CopyContext<'_>,
    source: &Session,
    replication: &mut Replication,
    (slot, lifetime): (&str, Lifetime),
    need: Need,
) -> Result<CreatedSlot, CopyError> {
    let options = SlotOptions { lifetime, snapshot: SnapshotAction::Export, failover: Failover::No };
    let mut creation = std::pin::pin!(replication.create_slot(slot, &options));
    let reason = tokio::select! {
        created = &mut creation => return Ok(created?),
        blockers = watch(source, need) => CopyError::SlotBlocked { minutes: need.deadline().as_secs() / 60, blockers: blockers? },
        () = ctx.shutdown.cancelled() => CopyError::Stopped,
    };
    // Without this the server would go on waiting, and leave the slot.
    cancel(source, slot).await?;
    if let Ok(Ok(_)) = timeout(CANCEL_DEADLINE, creation).await {
        tracing::info!(slot, "the slot was created at the last moment; the next attempt drops it");
    }
    Err(reason)
}

async fn cancel(source: &Session, slot: &str) -> Result<(), DbError> {
    let Some(pid) = catalog::slot::find(source, slot).await?.and_then(|slot| slot.active_pid) else { return Ok(()) };
    source
        .query("SELECT pg_catalog.pg_cancel_backend($1)", &[&pid])
        .await
        .during(source.side(), "cancel the creation of the slot")?;
    Ok(())
}

/// Shows who is in the way until the deadline; returns the last list.
async fn watch(source: &Session, need: Need) -> Result<String, DbError> {
    let give_up = Instant::now() + need.deadline();
    loop {
        sleep(BLOCKERS_EVERY).await;
        let blockers = blockers(source).await?;
        match need {
            Need::Urgent => tracing::warn!(blockers, "the slot waits until these transactions end"),
            Need::Welcome => tracing::debug!(blockers, "a new snapshot waits until these transactions end"),
        }
        if Instant::now() >= give_up {
            return Ok(blockers);
        }
    }
}

/// The writing transactions of the cluster.
async fn blockers(source: &Session) -> Result<String, DbError> {
    let names = catalog::activity::writers(source).await?;
    Ok(if names.is_empty() { "none that this role can see".to_owned() } else { names.join(", ") })
}
