//! placeholder
pub mod cluster;
pub mod keeper;
pub mod server;
