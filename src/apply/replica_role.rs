//! The role of the apply connection ([`crate::session::replica_role`]), tried in the order
//! of the ways that exist, and read back.

use tracing::{debug, info};

use super::ApplyError;
use super::pipeline::{Pipeline, Reply};
use crate::session::replica_role::{READ_BACK, ReplicaRole, WAYS};
use crate::wire::ServerError;

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
