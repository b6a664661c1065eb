//! `session_replication_role` of a session on the target, where the role may set
//! it: triggers and foreign keys that are in force there then stay silent. Where it
//! may not, they are held back, but for the operator's with `--schema none`.
//!
//! Source: `src/backend/commands/trigger.c` (`TriggerEnabled`); the setting is a
//! superuser's, or granted (GRANT SET ON PARAMETER, 15).

use super::{DbContext, DbError, Session};

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
pub const WAYS: [&str; 2] = [
    "SET session_replication_role = replica",
    // The definer function some providers offer instead.
    "SELECT aiven_extras.session_replication_role('replica')",
];

/// Fails with division by zero unless the setting is in force: a denied SET that
/// nobody noticed has cost others days.
pub const READ_BACK: &str = "SELECT 1 / (pg_catalog.current_setting('session_replication_role') = 'replica')::int";

/// Tries one way; whether the setting is in force then.
///
/// # Errors
/// When the connection is lost.
pub async fn is_set_by(session: &Session, way: &str) -> Result<bool, DbError> {
    let set = async {
        session.batch_execute(way).await?;
        session.batch_execute(READ_BACK).await
    };
    match set.await {
        Ok(()) => Ok(true),
        // Denied or not there: an answer. A lost connection is none.
        Err(error) if error.as_db_error().is_some() => Ok(false),
        Err(error) => Err(error).during(session.side(), "set session_replication_role"),
    }
}

/// Tries every way, as far as needed.
///
/// # Errors
/// When the connection is lost.
pub async fn set(session: &Session) -> Result<ReplicaRole, DbError> {
    for way in WAYS {
        if is_set_by(session, way).await? {
            return Ok(ReplicaRole::Set);
        }
    }
    Ok(ReplicaRole::Refused)
}
