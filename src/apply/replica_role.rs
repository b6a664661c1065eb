//! `session_replication_role` on the apply connection, where the role may set
//! it: triggers and rules of the target then stay silent. Where it may not,
//! nothing is lost: foreign keys and triggers are held back anyway.
//!
//! Probed in the order of the ways that exist, and read back: a denied SET
//! that nobody noticed has cost others days.

use tracing::{debug, info};

use super::ApplyError;
use super::pipeline::{Pipeline, Reply};
use crate::wire::ServerError;

/// Whether the target's triggers stay silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaRole {
    /// They do: the session has the role `replica`.
    Set,
    /// The role may not set it.
    Refused,
}

/// Ways to set it, the plain one first. Each is a statement that fails where
/// it does not work; none is sent at start-up, where some providers refuse it.
const WAYS: [&str; 2] = [
    "SET session_replication_role = replica",
    // The definer function some providers offer instead.
    "SELECT aiven_extras.session_replication_role('replica')",
];

/// Fails with division by zero unless the setting is in force.
const READ_BACK: &str = "SELECT 1 / (pg_catalog.current_setting('session_replication_role') = 'replica')::int";

/// Tries every way, all at once: one that does not work changes nothing.
///
/// # Errors
/// When the connection is lost.
pub async fn probe(pipeline: &mut Pipeline) -> Result<ReplicaRole, ApplyError> {
    for way in WAYS {
        pipeline.command(way).await?;
        pipeline.command(READ_BACK).await?;
        pipeline.sync().await?;
    }
    let mut role = ReplicaRole::Refused;
    for way in WAYS {
        match failure(pipeline).await? {
            None => role = ReplicaRole::Set,
            Some(error) => debug!(%error, way, "session_replication_role cannot be set this way"),
        }
    }
    if role == ReplicaRole::Set {
        info!("triggers and rules on the target stay silent (session_replication_role = replica)");
    } else {
        debug!("this role may not set session_replication_role; foreign keys and triggers are held back instead");
    }
    Ok(role)
}

/// The failure of a group of statements up to its Sync.
async fn failure(pipeline: &mut Pipeline) -> Result<Option<Box<ServerError>>, ApplyError> {
    let mut failed = None;
    loop {
        match pipeline.reply().await? {
            Reply::Complete(_) => {}
            Reply::Failed(error) => failed = failed.or(Some(error)),
            Reply::Ready => return Ok(failed),
        }
    }
}
