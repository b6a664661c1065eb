//! Connections to a server: sockets, TLS, authentication, frames, and the
//! replication stream.
//!
//! ```text
//! dial ─ stream ─ tls ─ auth ─ Connection ─┬─ split: FrameReader, FrameWriter   (apply pipeline)
//!                                          ├─ client: an ordinary Session       (catalogs, COPY FROM, state)
//!                                          ├─ copy_out: COPY … TO STDOUT        (the rows of the copy)
//!                                          └─ Replication ─ ReplicationReader, StatusWriter ─ StatusFeed
//! ```
//!
//! Invariant: there is one way in for every connection ([`Connection::connect`]),
//! so hosts, TLS and authentication mean the same everywhere; and one way to
//! acknowledge, which takes a [`crate::lsn::DurableLsn`] and nothing else.
//!
//! Source: libpq (`src/interfaces/libpq`) and `libpqwalreceiver.c`; the bytes
//! are written down in `proto-notes/connection.md` and `proto-notes/replication.md`.

mod auth;
mod client;
mod connection;
mod copy_both;
mod copy_out;
mod dial;
mod error;
mod frame;
mod notice;
mod prepare;
pub mod replication;
mod security;
pub mod server_error;
mod status;
mod stream;
mod tls;
mod tls_verify;
mod watch;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests_fake;
#[cfg(test)]
mod tests_server;

pub use client::{Loss, Lost, Ordinary, PrivilegesRefused, client};
pub use connection::{CancelKey, Connection, Purpose};
pub use copy_both::{ReplicationFrame, ReplicationReader, ReplyRequested, RequestReply, StatusWriter};
pub use copy_out::{CopyOut, Gathered};
pub use dial::cancel;
pub use error::{AuthError, Peer, WireError};
pub use frame::{Frame, FrameReader, FrameWriter, server_error};
pub use prepare::{PINNED, RESTRICTED, pg_dump_options, preparation};
pub use replication::{
    CreatedSlot, Failover, Lifetime, Messages, PgoutputOptions, Replication, SlotOptions, SnapshotAction, Streaming,
    SystemIdentity,
};
pub use security::{PasswordShown, Protection, Security};
pub use server_error::ServerError;
pub use status::StatusFeed;
