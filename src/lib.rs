//! walferry moves a live PostgreSQL database to another server while the
//! application keeps writing. It is its own subscriber: it decodes `pgoutput`
//! from a replication slot and applies the changes as an ordinary client with
//! an ordinary role, and it carries what logical replication leaves behind:
//! sequences and large objects.
//!
//! # The promises
//!
//! 1. **Nothing lost, nothing twice.** The position is a row on the target,
//!    written in the same transaction as the data ([`state::position`]).
//! 2. **The slot is never told more than the target has committed.** Only a
//!    COMMIT that returned, or a position read back, makes a
//!    [`lsn::DurableLsn`]; a standby status takes nothing else.
//! 3. **Every target commit equals the source at one commit boundary.** Source
//!    transactions may be merged; they are never split across a commit.
//! 4. **Nothing is skipped silently.** What cannot be decoded or applied stops
//!    the stream with relation, key, LSN, SQLSTATE and what to do ([`fault`]).
//! 5. **Everything is bounded.** Queues by bytes, batches by rows, bytes and
//!    time, retries by a deadline.
//! 6. **All durable state is on the target**, in the schema `walferry`
//!    ([`state`]).
//!
//! # Reading order
//!
//! Follow the bytes: [`wire`] (socket to frames) → [`pgoutput`] (frames to
//! messages) → [`assemble`] (messages to transactions) → [`apply`]
//! (transactions to SQL and COMMIT), all meeting in [`run`]. Before the stream
//! comes [`copy`] with [`schema`]; beside it [`sweep`].

pub mod apply;
pub mod assemble;
pub mod border;
pub mod catalog;
pub mod check;
pub mod cleanup;
pub mod cli;
pub mod coalesce;
pub mod config;
pub mod copy;
pub mod demo;
pub mod failpoint;
pub mod fault;
pub mod lsn;
pub mod membership;
#[cfg(test)]
mod modules_test;
pub mod observe;
pub mod pgoutput;
pub mod relation;
pub mod run;
pub mod schema;
pub mod session;
pub mod shell;
pub mod sql;
pub mod state;
pub mod sweep;
#[cfg(test)]
pub(crate) mod testing;
pub mod wire;
mod words;
