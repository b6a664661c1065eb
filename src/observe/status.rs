//! placeholder: comes with the merge.

use crate::config::Settings;
use crate::exit::Error;

/// Placeholder.
#[derive(serde::Serialize)]
pub struct StatusDocument {}

impl std::fmt::Display for StatusDocument {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}

/// Placeholder.
pub async fn collect(_: &Settings) -> Result<StatusDocument, Error> {
    Err(Error::Placeholder("status"))
}
