//! placeholder: comes with the merge.

/// Placeholder.
#[derive(Clone, Debug, Default)]
pub struct DemoOptions {
    /// Leave the clusters.
    pub keep: bool,
    /// Seconds of live writes.
    pub seconds: Option<u64>,
}

/// Placeholder.
#[derive(Debug, thiserror::Error)]
#[error("the demo is not there yet")]
pub struct DemoError;

/// Placeholder.
pub async fn run(_: DemoOptions) -> Result<(), DemoError> {
    Err(DemoError)
}
