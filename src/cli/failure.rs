//! Why a command has no result.

use std::io;

use crate::cleanup::CleanupError;
use crate::config::ConfigError;
use crate::demo::DemoError;
use crate::fault::Fault;
use crate::observe::status::StatusError;
use crate::run;

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What moves data failed.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// The status cannot be told.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// Not everything was removed.
    #[error(transparent)]
    Cleanup(#[from] CleanupError),
    /// The demo did not end well.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// Something panicked.
    #[error("walferry panicked at {place}: {words}")]
    Panicked {
        /// File and line.
        place: String,
        /// What it said.
        words: String,
    },
    /// Standard output, the signal handlers, or the runtime.
    #[error("cannot {action}")]
    Machine {
        /// Verb and object.
        action: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Failure {
    /// The result cannot be written.
    pub(super) fn result(source: io::Error) -> Self {
        Failure::Machine { action: "write the result", source }
    }

    /// What it means.
    pub(super) fn fault(&self) -> Fault {
        match self {
            Failure::Config(_) => Fault::Configuration,
            Failure::Run(error) => error.fault(),
            Failure::Status(error) => error.fault(),
            Failure::Cleanup(error) => error.fault(),
            Failure::Demo(error) => error.fault(),
            Failure::Panicked { .. } => Fault::Bug,
            Failure::Machine { .. } => Fault::Machine,
        }
    }
}
