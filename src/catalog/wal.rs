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

/// Where the next record goes; NULL on a standby, which writes none.
const INSERTED: &str =
    "CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE pg_catalog.pg_current_wal_insert_lsn() END";

/// The end of what a primary has kept; NULL on a standby, which is behind it for a while
/// whenever it has started.
pub(super) const FLUSHED: &str =
    "CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL ELSE pg_catalog.pg_current_wal_flush_lsn() END";

/// The end of what the server can send by now.
///
/// # Errors
/// When the server cannot be asked.
pub async fn end(session: &Session) -> Result<Lsn, DbError> {
    let sql = format!("SELECT coalesce({FLUSHED}, pg_catalog.pg_last_wal_replay_lsn(), '0/0')");
    session.query_one(&sql, &[]).await.during(session.side(), "read the end of the WAL")?.take(0)
}

/// The end of what a primary has kept; a standby has none.
///
/// # Errors
/// When the server cannot be asked.
pub async fn kept(session: &Session) -> Result<Option<Lsn>, DbError> {
    session
        .query_one(&format!("SELECT {FLUSHED}"), &[])
        .await
        .during(session.side(), "read the end of the WAL")?
        .take(0)
}

/// The end that every transaction which has committed by now is before, once
/// everything up to it is flushed.
///
/// # Errors
/// When the server cannot be asked.
pub async fn flush_to_end(session: &Session) -> Result<Lsn, DbError> {
    let row = session
        .query_one(&format!("SELECT {INSERTED}"), &[])
        .await
        .during(session.side(), "read the end of the WAL")?;
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
    let sql = format!(
        "SELECT {INSERTED}, pg_catalog.current_setting('wal_block_size')::int8, \
           pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size'))"
    );
    let row = session.query_one(&sql, &[]).await.during(session.side(), "read the end of the WAL")?;
    let Some(next) = row.take::<Option<Lsn>>(0)? else { return Ok(()) };
    let size = |bytes: i64| u64::try_from(bytes).unwrap_or_default();
    let inserted = behind_last(next, size(row.take(1)?), size(row.take(2)?));
    while end(session).await? < inserted {
        sleep(FLUSH_POLL).await;
    }
    Ok(())
}

/// Where the last record ends, if the next one goes to `next`: at the beginning of a page
/// that is behind the page's header, which is flushed with the record
/// (`XLogBytePosToRecPtr` in `src/backend/access/transam/xlog.c`; the headers' sizes are
/// those of `src/include/access/xlog_internal.h`).
fn behind_last(next: Lsn, page: u64, segment: u64) -> Lsn {
    const PAGE_HEADER: u64 = 24;
    const SEGMENT_HEADER: u64 = 40;
    let within = |size: u64| next.number().checked_rem(size);
    let header = match (within(segment), within(page)) {
        (Some(SEGMENT_HEADER), _) => SEGMENT_HEADER,
        (_, Some(PAGE_HEADER)) => PAGE_HEADER,
        _ => 0,
    };
    Lsn::new(next.number() - header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::testing::{Pair, SOURCE_OWNER, SUPERUSER};

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

    #[test]
    fn a_page_that_has_but_its_header_has_no_record() {
        let of = |next: u64| behind_last(Lsn::new(next), 8192, 16 << 20).number();
        let segment = 5 * (16 << 20);
        assert_eq!(of(segment + 40), segment);
        assert_eq!(of(segment + 8192 + 24), segment + 8192);
        // A record's last bytes.
        assert_eq!(of(segment + 8192 + 40), segment + 8192 + 40);
        assert_eq!(of(segment + 24 + 8), segment + 24 + 8);
    }

    /// The story: at the beginning of a page the place where the next record goes is behind
    /// the page's header, which nobody flushes: an idle server was waited for for ever.
    #[tokio::test]
    async fn an_idle_server_is_flushed_also_at_the_beginning_of_a_segment() {
        let pair = Pair::new().await;
        let (admin, reader) = (pair.source(SUPERUSER).await, pair.source(SOURCE_OWNER).await);
        admin.batch_execute("CHECKPOINT; SELECT pg_switch_wal()").await.unwrap();
        let sql = "SELECT pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()";
        let is_behind: bool = admin.query_one(sql, &[]).await.unwrap().take(0).unwrap();
        assert!(is_behind, "the story's situation");
        tokio::time::timeout(Duration::from_secs(5), flushed(&reader))
            .await
            .expect("nothing is to be flushed")
            .unwrap();
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
