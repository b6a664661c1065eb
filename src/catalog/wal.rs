//! The end of the server's WAL.
//!
//! Invariant: the end of WAL is read here and nowhere else. On a standby it is
//! what has been replayed.
//!
//! Source: a walsender sends flushed WAL only (`GetFlushRecPtr` in
//! `src/backend/replication/walsender.c`), and an asynchronous commit is
//! visible before its record is flushed.

use std::time::Duration;

use tokio::time::sleep;

use crate::lsn::Lsn;
use crate::session::{DbContext, DbError, Session};

/// Pause between two looks at whether the WAL is flushed.
const FLUSH_POLL: Duration = Duration::from_millis(10);

/// The end of what the server can send by now.
///
/// # Errors
/// When the server cannot be asked.
pub async fn end(session: &Session) -> Result<Lsn, DbError> {
    let sql = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0') \
               ELSE pg_catalog.pg_current_wal_flush_lsn() END";
    session.query_one(sql, &[]).await.during(session.side(), "read the end of the WAL")?.take(0)
}

/// The end that every transaction which has committed by now is before, once
/// everything up to it is flushed.
///
/// # Errors
/// When the server cannot be asked.
pub async fn flush_to_end(session: &Session) -> Result<Lsn, DbError> {
    let sql = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
               ELSE pg_catalog.pg_current_wal_insert_lsn() END";
    let row = session.query_one(sql, &[]).await.during(session.side(), "read the end of the WAL")?;
    let Some(inserted) = row.take(0)? else { return end(session).await };
    // A commit of our own flushes everything before it if it has written
    // something: one that has only been given a transaction id does not
    // (`RecordTransactionCommit` in `src/backend/access/transam/xact.c`). No
    // standby is waited for.
    session
        .batch_execute(
            "BEGIN; SET LOCAL synchronous_commit = local; \
             SELECT pg_catalog.txid_current(), pg_catalog.pg_logical_emit_message(false, 'walferry', ''); COMMIT",
        )
        .await
        .during(session.side(), "flush the WAL")?;
    Ok(inserted)
}

/// Waits until every transaction that has committed by now is flushed, also in a
/// transaction that may not write: what a snapshot sees is lost in a crash as long as it
/// is not (`synchronous_commit = off`).
///
/// # Errors
/// When the server cannot be asked.
pub async fn flushed(session: &Session) -> Result<(), DbError> {
    let sql =
        "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE pg_catalog.pg_current_wal_insert_lsn() END";
    let row = session.query_one(sql, &[]).await.during(session.side(), "read the end of the WAL")?;
    let Some(inserted) = row.take::<Option<Lsn>>(0)? else { return Ok(()) };
    while end(session).await? < inserted {
        sleep(FLUSH_POLL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::testing::{Pair, SOURCE_OWNER};

    #[tokio::test]
    async fn what_has_committed_is_flushed_behind_the_wait_for_it() {
        let pair = Pair::new().await;
        let (session, reader) = (pair.source(SOURCE_OWNER).await, pair.source(SOURCE_OWNER).await);
        reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1").await.unwrap();
        let sql = "CREATE TABLE public.t (i int); SET synchronous_commit = off; INSERT INTO public.t VALUES (1)";
        session.batch_execute(sql).await.unwrap();
        let sql = "SELECT pg_current_wal_insert_lsn()";
        let inserted: Lsn = session.query_one(sql, &[]).await.unwrap().take(0).unwrap();
        flushed(&reader).await.unwrap();
        assert!(end(&session).await.unwrap() >= inserted);
    }

    /// The story: the flush was asked of a transaction that had an id and had
    /// written nothing, which the server commits asynchronously.
    #[tokio::test]
    async fn a_commit_that_was_not_flushed_yet_is_before_the_end_that_is_flushed_to() {
        let pair = Pair::new().await;
        let session = pair.source(SOURCE_OWNER).await;
        session
            .batch_execute(
                "CREATE TABLE public.t (i int); SET synchronous_commit = off; INSERT INTO public.t VALUES (1)",
            )
            .await
            .unwrap();
        let sql = "SELECT pg_current_wal_insert_lsn()";
        let inserted: Lsn = session.query_one(sql, &[]).await.unwrap().take(0).unwrap();
        let flushed_to = flush_to_end(&session).await.unwrap();
        assert!(flushed_to >= inserted, "{flushed_to} {inserted}");
        assert!(end(&session).await.unwrap() >= flushed_to);
    }
}
