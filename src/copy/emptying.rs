//! Tables that are to be filled anew lose the rows that they have, and foreign keys that
//! are the operator's.
//!
//! Invariants: no row is copied into a table with foreign keys at work, nor is one emptied
//! to which they lead from rows of others: each table is as of its own snapshot, and keys
//! between two of them hold for certain at the end alone. TRUNCATE is refused of a table that
//! others refer to, at work or not (`heap_truncate_check_FKs` in `heap.c`): then the rows are
//! deleted.

use super::{CopyContext, CopyError};
use crate::catalog::foreign_keys::{self, KeyInForce};
use crate::catalog::tables::{Shape, only};
use crate::config::SchemaMode;
use crate::session::replica_role::{self, ReplicaRole};
use crate::session::{DbContext, Session};
use crate::sql::TableName;

/// Whether others refer to these tables, and whether the session is a replica's.
const REFERRED_TO: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint \
         WHERE contype = 'f' AND confrelid = ANY (wanted.oids) AND NOT conrelid = ANY (wanted.oids)), \
     pg_catalog.current_setting('session_replication_role') = 'replica' \
     FROM (SELECT $1::text[]::regclass[]::oid[] AS oids) AS wanted";

/// A session on the target that brings rows in: with triggers and keys that are the
/// operator's silent, where the role may have that.
///
/// # Errors
/// When the target cannot be reached.
pub(super) async fn session(ctx: &CopyContext<'_>) -> Result<Session, CopyError> {
    Ok(session_as(ctx).await?.0)
}

async fn session_as(ctx: &CopyContext<'_>) -> Result<(Session, ReplicaRole), CopyError> {
    let session = Session::connect(&ctx.settings.target, &ctx.settings.name).await?;
    let role = match ctx.settings.schema {
        SchemaMode::None => replica_role::set(&session).await?,
        SchemaMode::Create | SchemaMode::Existing => ReplicaRole::Refused,
    };
    Ok((session, role))
}

/// Refuses tables with foreign keys at work that are in the way of rows.
///
/// # Errors
/// [`CopyError::KeysInForce`], or when the target cannot be asked.
pub(super) async fn require_no_keys(ctx: &CopyContext<'_>, tables: &[&TableName]) -> Result<(), CopyError> {
    if tables.is_empty() {
        return Ok(());
    }
    let (session, role) = session_as(ctx).await?;
    refuse(foreign_keys::keys_in_the_way(&session, tables, role).await?)
}

fn refuse(keys: Vec<KeyInForce>) -> Result<(), CopyError> {
    if keys.is_empty() { Ok(()) } else { Err(CopyError::KeysInForce(keys)) }
}

/// Empties these tables, in the transaction that is open.
///
/// # Errors
/// [`CopyError::KeysInForce`], or when the target refuses it otherwise.
pub(super) async fn empty(
    session: &Session,
    tables: impl Iterator<Item = (&TableName, Shape)>,
    action: &str,
) -> Result<(), CopyError> {
    let tables: Vec<(&TableName, Shape)> = tables.collect();
    if tables.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = tables.iter().map(|(name, _)| name.text()).collect();
    let of_rows: Vec<String> = tables.iter().map(|(name, shape)| format!("{}{}", only(*shape), name.sql())).collect();
    let asked = session.query_one(REFERRED_TO, &[&names]).await.during(session.side(), action)?;
    let sql = if asked.take(0)? {
        let role = if asked.take(1)? { ReplicaRole::Set } else { ReplicaRole::Refused };
        let named: Vec<&TableName> = tables.iter().map(|(name, _)| *name).collect();
        refuse(foreign_keys::keys_in_the_way(session, &named, role).await?)?;
        of_rows.iter().map(|name| format!("DELETE FROM {name};")).collect()
    } else {
        format!("TRUNCATE {}", of_rows.join(", "))
    };
    session.batch_execute(&sql).await.during(session.side(), action)?;
    Ok(())
}
