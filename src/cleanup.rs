//! stub
#[derive(Debug, thiserror::Error)]
pub enum CleanupError { #[error(transparent)] Wire(#[from] crate::wire::WireError) }
