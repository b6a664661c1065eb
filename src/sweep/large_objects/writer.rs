//! Writing large objects on the target, as an ordinary role that owns them.
//!
//! Invariant: nothing is written outside a transaction that also keeps
//! `walferry.large_object_oids` right. Source: `be_lo_put`, `be_lo_truncate64`
//! in `src/backend/libpq/be-fsstubs.c`; a descriptor lives until its
//! transaction ends, so opening and truncating fit one statement.

use std::collections::{HashMap, HashSet};

use super::Ends;
use super::reader::Listed;
use crate::config::Side;
use crate::observe::metrics::Metrics;
use crate::session::{DbContext, DbError, Param, Session};
use crate::sql::literal;
use crate::state::large_objects::{CLAIM_IS_OURS_SQL, Claim, DISOWN_LARGE_OBJECTS_SQL, OWN_LARGE_OBJECTS_SQL};
use crate::sweep::SweepError;

/// `INV_WRITE` of `src/include/libpq/libpq-fs.h`.
const INV_WRITE: i32 = 0x0002_0000;

/// An object that is on the target.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Recorded as the migration's.
    pub is_ours: bool,
    pub comment: Option<String>,
}

/// Which of the oids are on the target, and whose they are.
pub(super) async fn known(target: &Session, migration: &str, oids: &[u32]) -> Result<HashMap<u32, Known>, DbError> {
    let sql = "SELECT m.oid, EXISTS (SELECT FROM walferry.large_object_oids w WHERE w.migration = $1 AND w.oid = m.oid), \
               obj_description(m.oid, 'pg_largeobject') \
               FROM pg_largeobject_metadata m WHERE m.oid = ANY ($2::oid[])";
    let rows = target.query(sql, &[&migration, &oids]).await.during(Side::Target, "look for large objects")?;
    rows.iter().map(|row| Ok((row.take(0)?, Known { is_ours: row.take(1)?, comment: row.take(2)? }))).collect()
}

/// Bytes of an object that lie together.
pub(super) struct Run {
    pub oid: u32,
    pub offset: i64,
    pub data: Vec<u8>,
}

/// Writes the migration's objects on the target.
#[derive(Clone, Copy)]
pub(super) struct Writer<'a> {
    pub session: &'a Session,
    pub migration: &'a str,
    pub claim: Claim,
    pub metrics: &'a Metrics,
}

impl<'a> Writer<'a> {
    /// A writer on the target, by the right of a claim.
    pub fn new(ends: Ends<'a>, claim: Claim) -> Self {
        Writer { session: ends.target, migration: ends.state.name(), claim, metrics: ends.metrics }
    }

    /// Begins a transaction that nobody else's can overlap.
    pub async fn begin(&self) -> Result<(), SweepError> {
        let params: [&dyn Param; 2] = [&self.migration, &self.claim.number];
        let begun =
            tokio::join!(self.session.batch_execute("BEGIN"), self.session.query_opt(CLAIM_IS_OURS_SQL, &params));
        begun.0.during(Side::Target, "begin to write large objects")?;
        match begun.1.during(Side::Target, "claim the large objects")? {
            Some(_) => Ok(()),
            None => self.end(Err(SweepError::LargeObjectsClaimed)).await,
        }
    }

    /// Commits what succeeded, rolls back what did not; the first error counts.
    pub async fn end<T>(&self, result: Result<T, SweepError>) -> Result<T, SweepError> {
        match result {
            Ok(value) => {
                self.session.batch_execute("COMMIT").await.during(Side::Target, "commit large objects")?;
                Ok(value)
            }
            Err(error) => {
                if let Err(second) = self.session.batch_execute("ROLLBACK").await {
                    tracing::debug!("cannot roll back after an error: {second}");
                }
                Err(error)
            }
        }
    }

    async fn query(
        &self,
        sql: &str,
        params: &[&dyn Param],
        action: &str,
    ) -> Result<Vec<crate::session::Row>, SweepError> {
        Ok(self.session.query(sql, params).await.during(Side::Target, action)?)
    }

    /// Enters objects as the migration's.
    pub async fn own(&self, oids: &[u32]) -> Result<(), SweepError> {
        self.query(OWN_LARGE_OBJECTS_SQL, &[&self.migration, &oids], "record large objects as ours").await?;
        Ok(())
    }

    /// Writes whole small objects; returns the bytes written. `shrinking`
    /// ones are cut to the length given.
    pub async fn write_small(
        &self,
        contents: Vec<(u32, Vec<u8>)>,
        created: &HashSet<u32>,
        shrinking: &[(u32, i64)],
    ) -> Result<u64, SweepError> {
        let bytes: u64 = contents.iter().map(|(_, content)| content.len() as u64).sum();
        let (new, old): (Vec<_>, Vec<_>) = contents.into_iter().partition(|(oid, _)| created.contains(oid));
        self.begin().await?;
        let result = async {
            self.create(new).await?;
            self.shrink(shrinking).await?;
            self.overwrite(old).await
        }
        .await;
        self.end(result).await?;
        self.metrics.large_object_bytes.inc_by(bytes);
        Ok(bytes)
    }

    pub async fn create(&self, objects: Vec<(u32, Vec<u8>)>) -> Result<(), SweepError> {
        let (oids, contents): (Vec<u32>, Vec<Vec<u8>>) = objects.into_iter().unzip();
        if oids.is_empty() {
            return Ok(());
        }
        let sql = "SELECT lo_from_bytea(o, d) FROM unnest($1::oid[], $2::bytea[]) AS t (o, d)";
        self.query(sql, &[&oids, &contents], "create large objects").await?;
        self.own(&oids).await
    }

    /// Gives objects these lengths; what is added is zeros, as far as it is new.
    pub async fn shrink(&self, objects: &[(u32, i64)]) -> Result<(), SweepError> {
        let (oids, bytes): (Vec<u32>, Vec<i64>) = objects.iter().copied().unzip();
        if oids.is_empty() {
            return Ok(());
        }
        let sql = format!(
            "SELECT lo_truncate64(lo_open(o, {INV_WRITE}), b) FROM unnest($1::oid[], $2::bigint[]) AS t (o, b)"
        );
        self.query(&sql, &[&oids, &bytes], "truncate large objects").await?;
        Ok(())
    }

    async fn overwrite(&self, objects: Vec<(u32, Vec<u8>)>) -> Result<(), SweepError> {
        let (oids, contents): (Vec<u32>, Vec<Vec<u8>>) = objects.into_iter().unzip();
        if oids.is_empty() {
            return Ok(());
        }
        let sql = "SELECT lo_put(o, 0, d) FROM unnest($1::oid[], $2::bytea[]) AS t (o, d)";
        self.query(sql, &[&oids, &contents], "write large objects").await?;
        Ok(())
    }

    /// Creates an object of `bytes` zeros, all of them a hole.
    pub async fn create_sized(&self, oid: u32, bytes: i64) -> Result<(), SweepError> {
        self.begin().await?;
        let result = async {
            self.create(vec![(oid, Vec::new())]).await?;
            self.shrink(&[(oid, bytes)]).await
        }
        .await;
        self.end(result).await
    }

    /// Gives an object another length; what is added is zeros.
    pub async fn resize(&self, oid: u32, bytes: i64) -> Result<(), SweepError> {
        self.shrink(&[(oid, bytes)]).await
    }

    /// Writes runs of bytes at offsets of objects, inside a transaction.
    pub async fn put_runs(&self, runs: Vec<Run>) -> Result<u64, SweepError> {
        let (mut oids, mut offsets, mut contents) = (Vec::new(), Vec::new(), Vec::new());
        for run in runs {
            oids.push(run.oid);
            offsets.push(run.offset);
            contents.push(run.data);
        }
        let bytes = contents.iter().map(|data| data.len() as u64).sum();
        let sql = "SELECT lo_put(o, f, d) FROM unnest($1::oid[], $2::bigint[], $3::bytea[]) AS t (o, f, d)";
        self.query(sql, &[&oids, &offsets, &contents], "write large objects").await?;
        self.metrics.large_object_bytes.inc_by(bytes);
        Ok(bytes)
    }

    /// Makes ranges (object, offset, length) zeros where they are not, inside a
    /// transaction; the objects that were not. Zeros that are holes stay holes.
    pub async fn clear(&self, ranges: &[(u32, i64, i32)]) -> Result<Vec<u32>, SweepError> {
        let oids: Vec<u32> = ranges.iter().map(|range| range.0).collect();
        let offsets: Vec<i64> = ranges.iter().map(|range| range.1).collect();
        let lengths: Vec<i32> = ranges.iter().map(|range| range.2).collect();
        // Of constants, so computed once for the statement.
        let longest = lengths.iter().max().unwrap_or(&0);
        let zeros = format!("substr(decode(repeat('00', {longest}), 'hex'), 1, t.n)");
        let sql = format!(
            "SELECT t.o, lo_put(t.o, t.f, {zeros}) FROM (SELECT * FROM unnest($1::oid[], $2::bigint[], $3::integer[]) \
             AS t (o, f, n) WHERE lo_get(t.o, t.f, t.n) <> {zeros} OFFSET 0) AS t"
        );
        let action = "clear what large objects no longer have";
        let rows = self.query(&sql, &[&oids, &offsets, &lengths], action).await?;
        rows.iter().map(|row| Ok(row.take(0)?)).collect()
    }

    /// Writes a piece at an offset, inside a transaction; nothing for `None`.
    pub async fn put(&self, oid: u32, piece: Option<&(i64, Vec<u8>)>) -> Result<u64, SweepError> {
        let Some((offset, content)) = piece else { return Ok(0) };
        self.query("SELECT lo_put($1, $2, $3)", &[&oid, offset, content], "write a large object").await?;
        self.metrics.large_object_bytes.inc_by(content.len() as u64);
        Ok(content.len() as u64)
    }

    /// Unlinks objects and forgets them; returns how many were still there.
    pub async fn unlink(&self, oids: &[u32]) -> Result<u64, SweepError> {
        self.begin().await?;
        let result = async {
            let sql = "SELECT lo_unlink(m.oid) FROM pg_largeobject_metadata m WHERE m.oid = ANY ($1::oid[])";
            let rows = self.query(sql, &[&oids], "remove large objects").await?;
            self.query(DISOWN_LARGE_OBJECTS_SQL, &[&self.migration, &oids], "forget large objects").await?;
            Ok(rows.len() as u64)
        }
        .await;
        self.end(result).await
    }

    /// Carries the comments that differ of those `listed` objects that are in `oids`.
    pub async fn comment(
        &self,
        listed: &[Listed],
        oids: &[u32],
        known: &HashMap<u32, Known>,
    ) -> Result<(), SweepError> {
        let ours: HashSet<u32> = oids.iter().copied().collect();
        let differing = listed
            .iter()
            .filter(|object| ours.contains(&object.oid))
            .filter(|object| object.comment.as_ref() != known.get(&object.oid).and_then(|k| k.comment.as_ref()))
            .map(|object| (object.oid, object.comment.clone()));
        self.set_comments(&differing.collect::<Vec<_>>()).await
    }

    /// Gives objects of ours these comments, in one transaction.
    pub async fn set_comments(&self, comments: &[(u32, Option<String>)]) -> Result<(), SweepError> {
        if comments.is_empty() {
            return Ok(());
        }
        let statement = |(oid, comment): &(u32, Option<String>)| {
            let comment = comment.as_deref().map_or_else(|| "NULL".to_owned(), literal);
            format!("COMMENT ON LARGE OBJECT {oid} IS {comment}")
        };
        let statements: Vec<String> = comments.iter().map(statement).collect();
        self.begin().await?;
        let result = self.session.batch_execute(&statements.join("; ")).await;
        self.end(result.during(Side::Target, "comment on large objects").map_err(SweepError::from)).await
    }
}
