//! The second stream: from the slot that the tables were copied under, for these
//! tables only, up to where the main stream stands.
//!
//! Invariant: the tables become the main stream's in one transaction on the
//! target, while the main stream stands still at or before the point that the
//! second one has reached. When it goes on it reads the state under locks, so a
//! transaction whose answer was lost has come to its end by then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OnceCell, watch};
use tracing::info;

use super::Desk;
use crate::apply::ApplyError;
use crate::apply::steering::{Held, Steering, steering};
use crate::apply::tables::Share;
use crate::catalog;
use crate::copy::CopyError;
use crate::copy::anew::Copied;
use crate::lsn::{DurableLsn, EndLsn};
use crate::observe::metrics::Metrics;
use crate::run::Error;
use crate::run::receiver::Heard;
use crate::run::stream::{Event, Flow, Reason, TargetSide, status_interval};
use crate::session::{DbContext, Session};
use crate::sql::TableName;
use crate::state::position::temporary_prefix;
use crate::state::tables::{TableRow, TableState};
use crate::state::{State, StateError};

/// When the second stream needs no longer than this to reach the end of the
/// source's WAL, the main stream can wait for it.
const CLOSE: Duration = Duration::from_millis(500);

/// Rounds towards the end of the source's WAL; a source that writes faster than
/// both streams apply would have them go on for ever.
const ROUNDS: u32 = 30;

/// Brings the tables that are `joining` up to the main stream, and hands them
/// over.
pub(super) async fn join(desk: &Desk<'_>, copied: Copied) -> Result<(), Error> {
    let Copied { replication, slot, point } = copied;
    let (ctx, state, settings) = (desk.ctx, desk.state, &desk.ctx.settings);
    let rows = state.tables().await?;
    let tables: Vec<TableRow> = rows.into_iter().filter(|row| row.state == TableState::Joining).collect();
    // Those of attempts that were cut off.
    state.forget_positions(&temporary_prefix(&settings.name)).await?;
    state.begin_position(&slot, point).await?;
    let position = state.position(&slot).await?.ok_or_else(|| StateError::Foreign(format!("no position of {slot}")))?;

    let source = Session::connect(&settings.source, &settings.name).await?;
    let interval = status_interval(&source).await?;
    let target = TargetSide::connect(settings).await?;
    // What it applies are the same transactions again: they count once.
    let metrics = Metrics::new().map_err(|error| Error::Bug(format!("cannot make metrics: {error}")))?;
    let (steering, asks) = steering();
    let tools = target.tools(state, &metrics, &Arc::default(), (Share::Joining, &slot));
    let publications = desk.migration.publications.names();
    let flow = Flow { replication, slot: &slot, publications, interval, tools, position, until: None, asks };

    let (durable, watched) = watch::channel(position);
    let stop = ctx.shutdown.child_token();
    let held = OnceCell::new();
    let steering = async {
        match steer(&source, watched, &desk.steering, &steering, &held).await {
            Ok(()) => std::future::pending().await,
            Err(error) => Event::Beside(error),
        }
    };
    let heard = Heard::default();
    let end = flow.run(ctx, &heard, &durable, &stop, steering).await?;
    if end.reason != Reason::Reached {
        return Err(Error::Interrupted);
    }
    let at = end.position.end();
    crate::failpoint::hit("resync-joining");
    let stands = held.get().map(|(held, _)| held.at).ok_or(Error::StreamEnded)?;
    hand_over(desk, &tables, &slot, (stands, at)).await?;
    crate::failpoint::hit("resync-joined");
    let stood = held.get().map_or(Duration::ZERO, |(_, since): &(Held, Instant)| since.elapsed());
    info!(tables = tables.len(), at = %at.lsn(), stood_still_ms = stood.as_millis(), "the tables have joined the stream");
    Ok(())
}

/// Lets the second stream come close to the end of the source's WAL, then has
/// the main stream stand still, and the second one end where that stands.
async fn steer(
    source: &Session,
    mut second: watch::Receiver<DurableLsn>,
    main: &Steering,
    steering: &Steering,
    held: &OnceCell<(Held, Instant)>,
) -> Result<(), Error> {
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let end = catalog::wal::flush_to_end(source).await?;
        // The sender lives as long as the stream that this is beside.
        let _reached = second.wait_for(|durable| durable.lsn() >= end).await;
        if begun.elapsed() < CLOSE {
            break;
        }
    }
    let since = Instant::now();
    let standing = main.hold().await.ok_or(Error::StreamEnded)?;
    let at = standing.at.end();
    let _is_first = held.set((standing, since));
    steering.end_at(at).await;
    Ok(())
}

/// Makes the tables the main stream's from `at` on. Its position must be where it
/// stands: a batch that an earlier session of ours had sent, and that came in
/// late, may have changed the tables since they were emptied.
async fn hand_over(
    desk: &Desk<'_>,
    tables: &[TableRow],
    slot: &str,
    (stands, at): (DurableLsn, EndLsn),
) -> Result<(), Error> {
    let settings = &desk.ctx.settings;
    let own = State::open(Session::connect(&settings.target, &settings.name).await?, desk.state.name()).await?;
    let session = own.session();
    let run = async |sql: &str| session.batch_execute(sql).await.during(session.side(), "hand tables over");
    run("BEGIN").await?;
    let main = desk.migration.slot.name();
    if own.hold_position(main, desk.state.claim()).await? != Some(stands.lsn()) {
        return Err(ApplyError::PositionMoved { slot: main.to_owned(), expected: stands.lsn() }.into());
    }
    let oids: Vec<u32> = tables.iter().map(|row| row.source_oid).collect();
    if own.tables_joined(&oids, at).await? != tables.len() as u64 {
        let table = tables.first().map_or_else(|| TableName::new("", ""), |row| row.table.clone());
        return Err(CopyError::Elsewhere(table).into());
    }
    own.forget_positions(slot).await?;
    for table in tables {
        own.journal(&format!("{} has joined the stream at {}", table.table, at.lsn())).await?;
    }
    run("COMMIT").await?;
    Ok(())
}
