//! The integration tests: one binary, a module a theme. They run real servers
//! and the real binary; what they stand on is in `tests/support`.

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod environment;
mod journey;
mod migration;
mod network;
mod resume;
mod roles;
mod stopping;
mod versions;
