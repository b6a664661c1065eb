//! placeholder: comes with the merge.

use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::exit::Error;

/// When the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// When it is asked to.
    Stopped,
    /// When it has caught up.
    CaughtUp,
}

/// Whether deferred objects are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// They are.
    Yes,
    /// They wait.
    No,
}

/// Placeholder.
#[derive(serde::Serialize)]
pub struct CatchupReport {}

impl std::fmt::Display for CatchupReport {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}

/// Placeholder.
pub async fn daemon(_: Settings, _: Until, _: CancellationToken) -> Result<(), Error> {
    Err(Error::Placeholder("run"))
}

/// Placeholder.
pub async fn catchup(_: Settings, _: Finish, _: CancellationToken) -> Result<CatchupReport, Error> {
    Err(Error::Placeholder("catchup"))
}
