//! The facts of both servers' catalogs, each read by one statement and told by
//! one type.
//!
//! Invariant: nothing else in the program asks a catalog for a fact that is
//! here; whoever needs it takes it from here, `check` and `run` alike. What a
//! fact means for a migration is not decided here.

pub mod activity;
pub mod added;
pub mod bounds;
pub mod contents;
pub mod database;
pub mod extensions;
pub mod foreign_keys;
pub mod held;
pub mod holders;
mod identity;
pub mod large_objects;
pub mod named;
pub mod needed;
pub mod numbered;
pub mod objects;
pub mod present;
pub mod publication;
pub mod roles;
pub mod sequences;
pub mod server;
pub mod settings;
pub mod slot;
pub mod storage;
pub mod strangers;
pub mod tables;
pub mod triggers;
pub mod types;
pub mod wal;
