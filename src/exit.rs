//! placeholder: the table of errors comes with the merge.

/// Errors of the layers that are there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Configuration.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// Check.
    #[error(transparent)]
    Check(#[from] crate::check::CheckError),
    /// Cleanup.
    #[error(transparent)]
    Cleanup(#[from] crate::cleanup::CleanupError),
    /// Demo.
    #[error(transparent)]
    Demo(#[from] crate::demo::DemoError),
    /// Not there yet.
    #[error("{0} is not there yet")]
    Placeholder(&'static str),
}

/// What follows from an error.
pub struct Verdict {
    /// The exit code.
    pub code: u8,
    /// What to do.
    pub remedy: Option<String>,
}

impl Error {
    /// What follows.
    pub fn verdict(&self) -> Verdict {
        let code = match self {
            Error::Config(_) => 2,
            Error::Cleanup(_) => 3,
            _ => 1,
        };
        Verdict { code, remedy: None }
    }
}
