//! Tables that are to be filled anew lose the rows that they have.
//!
//! Invariant: with `--schema none` the operator's foreign keys stay in force, and TRUNCATE
//! is refused of a table that others refer to (`heap_truncate_check_FKs` in `heap.c`),
//! whatever the session's role. Where triggers are silent, and only there, the rows are
//! deleted instead: a key's action would take rows of others with them.

use super::{CopyContext, CopyError};
use crate::catalog::tables::{Shape, only};
use crate::config::SchemaMode;
use crate::session::replica_role::{self, ReplicaRole};
use crate::session::{DbContext, DbError, Session};
use crate::sql::TableName;

/// Whether the rows are to be deleted: triggers are silent, and others refer to these tables.
const IS_TO_DELETE: &str = "SELECT pg_catalog.current_setting('session_replication_role') = 'replica' \
     AND EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f' AND confrelid = ANY (wanted.oids) AND NOT conrelid = ANY (wanted.oids)) \
     FROM (SELECT $1::text[]::regclass[]::oid[] AS oids) AS wanted";

/// A session on the target that brings rows in: with triggers and keys that are the
/// operator's silent, where the role may have that.
///
/// # Errors
/// When the target cannot be reached.
pub(super) async fn session(ctx: &CopyContext<'_>) -> Result<Session, CopyError> {
    let session = Session::connect(&ctx.settings.target, &ctx.settings.name).await?;
    if ctx.settings.schema == SchemaMode::None {
        replica_role::set(&session).await?;
    }
    Ok(session)
}

/// Whether keys in force on the target are silent while rows come.
///
/// # Errors
/// When the target cannot be reached.
pub(super) async fn are_keys_silent(ctx: &CopyContext<'_>) -> Result<bool, CopyError> {
    let session = Session::connect(&ctx.settings.target, &ctx.settings.name).await?;
    Ok(ctx.settings.schema == SchemaMode::None && replica_role::set(&session).await? == ReplicaRole::Set)
}

/// Empties these tables, in the transaction that is open.
///
/// # Errors
/// When the target refuses it.
pub(super) async fn empty(
    session: &Session,
    tables: impl Iterator<Item = (&TableName, Shape)>,
    action: &str,
) -> Result<(), DbError> {
    let (names, of_rows): (Vec<String>, Vec<String>) =
        tables.map(|(name, shape)| (name.sql(), format!("{}{}", only(shape), name.sql()))).unzip();
    if names.is_empty() {
        return Ok(());
    }
    let asked = session.query_one(IS_TO_DELETE, &[&names]).await.during(session.side(), action)?;
    let sql = if asked.take(0)? {
        of_rows.iter().map(|name| format!("DELETE FROM {name};")).collect()
    } else {
        format!("TRUNCATE {}", of_rows.join(", "))
    };
    session.batch_execute(&sql).await.during(session.side(), action)
}
