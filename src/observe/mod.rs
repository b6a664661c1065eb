//! What people and machines see of a running migration.

pub mod http;
pub mod metrics;
pub mod progress;
pub mod status;
