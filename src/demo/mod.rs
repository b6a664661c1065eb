//! placeholder
pub mod cluster;
pub mod compare;
pub mod keeper;
pub mod server;
