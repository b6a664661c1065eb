//! Rows of extensions at the end of a catch-up: exact when nothing is written.

use tracing::{info, warn};

use super::{Context, Error, Finish};
use crate::state::State;
use crate::sweep::extension_rows::{Stage, carry};

/// Carries them; what cannot be carried is named.
///
/// # Errors
/// When a connection is lost.
pub(super) async fn rows(ctx: &Context, state: &State, finish: Finish) -> Result<(), Error> {
    let stage = match finish {
        Finish::Yes => Stage::End,
        Finish::No => Stage::Before,
    };
    let carried = carry(&ctx.settings, state, stage).await?;
    for left in &carried.left {
        warn!(left, "rows that belong to an extension stay behind");
    }
    if carried.tables > 0 {
        info!(tables = carried.tables, "rows of extensions are exact");
    }
    Ok(())
}
