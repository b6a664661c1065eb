//! Which objects and which comments differ between the two sides, without
//! either side sending what is equal.
//!
//! Both servers hash their list in buckets (an oid belongs to the bucket of its
//! remainder); only the buckets that differ are sent. Invariant: two lists of
//! which no bucket differs are the same, as far as the hash tells
//! ([`super::reader::Digest`]).

use std::collections::{BTreeMap, HashMap, HashSet};

use super::reader::{Digest, Reader};
use crate::session::{DbError, Param};

/// Buckets: their hashes are some tens of kilobytes, and one bucket of a hundred
/// thousand objects is a hundred oids.
const BUCKETS: i32 = 1024;

/// Buckets whose content is held at once.
const BUCKETS_AT_ONCE: usize = 64;

/// A list of one side.
pub(super) struct List<'r> {
    pub reader: &'r Reader<'r>,
    /// The migration, for the target's side; `None` for the source's.
    pub migration: Option<&'r str>,
}

/// What a list is of.
#[derive(Clone, Copy)]
enum Kind {
    Objects,
    Comments,
}

/// Hashes by bucket.
type Hashes = BTreeMap<i32, Vec<u8>>;

/// The difference of the two sides' objects.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// How many the source has.
    pub total: u64,
    /// On the source, and not among the migration's own on the target.
    pub new: Vec<u32>,
    /// The migration's own on the target, and not on the source.
    pub gone: Vec<u32>,
}

impl List<'_> {
    /// FROM and WHERE of the list, with the object's oid as `x.oid`.
    fn tables_sql(&self, kind: Kind) -> String {
        let own = match self.migration {
            Some(_) => "JOIN walferry.large_object_oids w ON w.oid = m.oid AND w.migration = $1",
            None => "",
        };
        let comments = match kind {
            Kind::Objects => "",
            Kind::Comments => {
                "JOIN pg_description d ON d.objoid = m.oid AND d.objsubid = 0 \
                 AND d.classoid = 'pg_catalog.pg_largeobject'::regclass"
            }
        };
        format!("FROM pg_largeobject_metadata m {own} {comments} WHERE $1::text IS NOT DISTINCT FROM $1")
    }

    /// Hashes of the list, and how many objects there are.
    async fn hashes(&self, kind: Kind, digest: Digest) -> Result<(u64, Hashes), DbError> {
        let line = match kind {
            Kind::Objects => "m.oid::text",
            // With its length, so that no two lists have one text.
            Kind::Comments => "m.oid || ' ' || length(d.description) || ' ' || d.description",
        };
        let hash = digest.sql(&format!("convert_to(string_agg({line}, ',' ORDER BY m.oid), 'UTF8')"));
        let from = self.tables_sql(kind);
        let sql = format!("SELECT (m.oid::bigint % {BUCKETS})::integer, count(*), {hash} {from} GROUP BY 1");
        let rows = self.reader.rows(&sql, &[&self.migration], "compare the lists of large objects").await?;
        let counts: Vec<i64> = rows.iter().map(|row| row.take(1)).collect::<Result<_, _>>()?;
        let total = counts.into_iter().map(|count| u64::try_from(count).unwrap_or(0)).sum();
        let hashes = rows.iter().map(|row| Ok((row.take(0)?, row.take(2)?)));
        Ok((total, hashes.collect::<Result<_, DbError>>()?))
    }

    /// What is in some buckets: oids and, of comments, their text.
    async fn content(&self, kind: Kind, buckets: &[i32]) -> Result<Vec<crate::session::Row>, DbError> {
        let text = match kind {
            Kind::Objects => "NULL::text",
            Kind::Comments => "d.description",
        };
        let from = self.tables_sql(kind);
        let sql = format!("SELECT m.oid, {text} {from} AND (m.oid::bigint % {BUCKETS})::integer = ANY ($2::integer[])");
        let params: [&dyn Param; 2] = [&self.migration, &buckets];
        self.reader.rows(&sql, &params, "compare the lists of large objects").await
    }
}

/// The objects that only one side has.
pub(super) async fn objects(source: &List<'_>, target: &List<'_>, digest: Digest) -> Result<Objects, DbError> {
    let ((total, ours), (_, theirs)) =
        futures_util::try_join!(source.hashes(Kind::Objects, digest), target.hashes(Kind::Objects, digest))?;
    let mut found = Objects { total, ..Objects::default() };
    for buckets in differing(&ours, &theirs).chunks(BUCKETS_AT_ONCE) {
        let (ours, theirs) =
            futures_util::try_join!(source.content(Kind::Objects, buckets), target.content(Kind::Objects, buckets))?;
        let ours: HashSet<u32> = ours.iter().map(|row| row.take(0)).collect::<Result<_, _>>()?;
        let theirs: HashSet<u32> = theirs.iter().map(|row| row.take(0)).collect::<Result<_, _>>()?;
        found.new.extend(ours.difference(&theirs));
        found.gone.extend(theirs.difference(&ours));
    }
    found.new.sort_unstable();
    found.gone.sort_unstable();
    Ok(found)
}

/// The comments to be given to objects of the target, `None` to take one away.
/// Of objects that are not the migration's as well: the caller knows which are.
pub(super) async fn comments(
    source: &List<'_>,
    target: &List<'_>,
    digest: Digest,
) -> Result<Vec<(u32, Option<String>)>, DbError> {
    let ((_, ours), (_, theirs)) =
        futures_util::try_join!(source.hashes(Kind::Comments, digest), target.hashes(Kind::Comments, digest))?;
    let mut found = Vec::new();
    for buckets in differing(&ours, &theirs).chunks(BUCKETS_AT_ONCE) {
        let (ours, theirs) =
            futures_util::try_join!(source.content(Kind::Comments, buckets), target.content(Kind::Comments, buckets))?;
        let mut theirs: HashMap<u32, String> =
            theirs.iter().map(|row| Ok((row.take(0)?, row.take(1)?))).collect::<Result<_, DbError>>()?;
        for row in &ours {
            let (oid, text): (u32, String) = (row.take(0)?, row.take(1)?);
            if theirs.remove(&oid).as_ref() != Some(&text) {
                found.push((oid, Some(text)));
            }
        }
        found.extend(theirs.into_keys().map(|oid| (oid, None)));
    }
    Ok(found)
}

/// Buckets that are not the same on both sides.
fn differing(ours: &Hashes, theirs: &Hashes) -> Vec<i32> {
    let all: HashSet<i32> = ours.keys().chain(theirs.keys()).copied().collect();
    let mut differing: Vec<i32> = all.into_iter().filter(|bucket| ours.get(bucket) != theirs.get(bucket)).collect();
    differing.sort_unstable();
    differing
}
