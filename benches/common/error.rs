//! Why a benchmark has no figure.

use std::io;
use std::time::Duration;

use walferry::demo::cluster::ClusterError;

/// Why a benchmark, or one run of it, has no figure.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A statement of the benchmark itself.
    #[error("cannot {action}: {}", words(source))]
    Sql {
        /// The verb and its object.
        action: String,
        /// What the server said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A file or process.
    #[error("cannot {action}: {source}")]
    Io {
        /// The verb and its object.
        action: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A contender failed.
    #[error("{what} failed: {log}")]
    Process {
        /// Which.
        what: String,
        /// The end of what it printed.
        log: String,
    },
    /// Something took too long.
    #[error("{0} took too long")]
    Late(String),
    /// A contender with a time limit of its own was not done by then: its figure,
    /// not a fault.
    #[error("over {} s", .0.as_secs())]
    Over(Duration),
    /// A contender cannot run here: no figure, and no fault.
    #[error("left out: {0}")]
    LeftOut(String),
    /// The target does not have what the source has: the run is void.
    #[error("the target differs from the source: {0}")]
    Differs(String),
    /// Something the benchmark relies on is not so.
    #[error("{0}")]
    Unexpected(String),
}

impl BenchError {
    /// An error of the system, with what was being done.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| BenchError::Io { action, source }
    }
}

/// What the server said, where it was the server; the library would only say
/// that it was.
fn words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().to_owned())
}
