//! Progress of the copy, for a terminal and for logs.

/// placeholder
#[derive(Clone, Default)]
pub struct Progress;
