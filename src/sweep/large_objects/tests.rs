//! What the passes over the large objects claim: contents become equal whichever
//! way the source may be read, holes and all, and beyond two gigabytes; nothing
//! of the target's own is written over; what cannot be read is named once the
//! others are there.

use super::*;
use crate::sweep::testing::{Pair, SOURCE_OWNER, SOURCE_READER, SUPERUSER, TARGET_OWNER};

/// Everything about the large objects of a database but their owners.
async fn contents(admin: &Session) -> Vec<(u32, i64, String, Option<String>)> {
    let sql = "SELECT m.oid, length(lo_get(m.oid))::bigint, md5(lo_get(m.oid)), obj_description(m.oid, 'pg_largeobject') \
               FROM pg_catalog.pg_largeobject_metadata m ORDER BY m.oid";
    let rows = admin.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

/// Objects of several sizes: empty, small, at and around page and piece
/// bounds, sparse (holes, short pages before others), truncated into a hole.
const FIXTURE: &str = r"
SELECT lo_create(1001);
SELECT lo_from_bytea(1002, 'small');
SELECT lo_from_bytea(1003, decode(repeat('ab', 2048), 'hex'));
SELECT lo_from_bytea(1004, decode(repeat('cd', 1048576), 'hex'));
SELECT lo_from_bytea(1005, decode(repeat('ef', 1048577), 'hex'));
SELECT lo_from_bytea(1006, (SELECT string_agg(sha256(i::text::bytea), '') FROM generate_series(1, 100000) i));
SELECT lo_from_bytea(1007, 'x'); SELECT lo_put(1007, 100000, 'y'); SELECT lo_put(1007, 5000, 'z');
SELECT lo_from_bytea(1008, 'head'); SELECT lo_put(1008, 5000000, 'tail');
SELECT lo_from_bytea(1009, 'gone soon'); SELECT lo_truncate64(lo_open(1009, x'20000'::int), 4096);
SELECT lo_create(1010); SELECT lo_truncate64(lo_open(1010, x'20000'::int), 3145728);
SELECT lo_from_bytea(1011, 'unlinked later');
COMMENT ON LARGE OBJECT 1002 IS 'it''s a comment';
SELECT lo_from_bytea(o, ('object ' || o)::bytea) FROM generate_series(20001, 22500) o";

const CHANGES: &str = r"
SELECT lo_put(1001, 0, 'no longer empty');
SELECT lo_truncate64(lo_open(1002, x'20000'::int), 2);
SELECT lo_put(1003, 10, 'changed in the middle');
SELECT lo_put(1006, 2500000, 'one piece of several');
SELECT lo_truncate64(lo_open(1005, x'20000'::int), 100);
SELECT lo_put(1008, 2000000, 'no hole any more');
SELECT lo_truncate64(lo_open(1010, x'20000'::int), 1500000);
SELECT lo_unlink(1011);
SELECT lo_put(1009, 2000000, 'has grown');
SELECT lo_from_bytea(1012, 'new');
COMMENT ON LARGE OBJECT 1002 IS NULL; COMMENT ON LARGE OBJECT 1003 IS 'new comment'";

async fn copy(source: &Session, target: &Session, state: &State, metrics: &Metrics) -> LargeObjectReport {
    source.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
    let report = copy_initial(source, target, state, metrics).await.unwrap();
    source.batch_execute("COMMIT").await.unwrap();
    report
}

#[tokio::test]
async fn contents_become_equal_whichever_way_the_source_is_read() {
    for role in [SUPERUSER, SOURCE_OWNER, SOURCE_READER] {
        let pair = Pair::new().await;
        let (owner, source) = (pair.source(SOURCE_OWNER).await, pair.source(role).await);
        let (target, admin, state) =
            (pair.target(TARGET_OWNER).await, pair.target(SUPERUSER).await, pair.state().await);
        let (from, metrics) = (pair.source(SUPERUSER).await, Metrics::new().unwrap());
        // An object of the target's own, which no pass may touch.
        target.batch_execute("SELECT lo_from_bytea(99, 'not of the migration')").await.unwrap();
        owner.batch_execute(FIXTURE).await.unwrap();
        let own = contents(&admin).await;
        let expected = [own.clone(), contents(&from).await].concat();

        let report = copy(&source, &target, &state, &metrics).await;
        assert_eq!((report.total, report.created, report.updated, report.removed), (2511, 2511, 0, 0), "{role}");
        assert!(contents(&admin).await == expected, "{role}");
        assert_eq!(
            copy(&source, &target, &state, &metrics).await,
            LargeObjectReport { total: 2511, ..Default::default() }
        );

        owner.batch_execute(CHANGES).await.unwrap();
        let before = metrics.large_object_bytes.get();
        let report = final_pass(&source, &target, &state, &metrics).await.unwrap();
        assert_eq!((report.total, report.created, report.updated, report.removed), (2511, 1, 8, 1), "{role}");
        assert_eq!(metrics.large_object_bytes.get() - before, report.bytes);
        assert!(report.bytes < 6 * (1 << 20), "only pieces that differ: {}", report.bytes);
        let expected = [own, contents(&from).await].concat();
        assert!(contents(&admin).await == expected, "{role}");
        let report = final_pass(&source, &target, &state, &metrics).await.unwrap();
        assert_eq!(report, LargeObjectReport { total: 2511, ..Default::default() });
        assert_eq!(state.large_object_counts().await.unwrap().total, 2511);
    }
}

#[tokio::test]
async fn a_taken_oid_is_refused_before_anything_is_written() {
    let pair = Pair::new().await;
    let (source, target, state) =
        (pair.source(SOURCE_OWNER).await, pair.target(TARGET_OWNER).await, pair.state().await);
    source.batch_execute("SELECT lo_from_bytea(501, 'a'), lo_from_bytea(502, 'b')").await.unwrap();
    target.batch_execute("SELECT lo_from_bytea(502, 'mine')").await.unwrap();
    let metrics = Metrics::new().unwrap();
    let error = copy_initial(&source, &target, &state, &metrics).await.unwrap_err();
    assert!(matches!(&error, SweepError::LargeObjectsInUse { oids, count: 1 } if oids == &[502]), "{error}");
    let found = target.query_one("SELECT count(*) FROM pg_catalog.pg_largeobject_metadata", &[]).await.unwrap();
    assert_eq!(found.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn a_baseline_restored_by_other_means_is_taken_in() {
    let pair = Pair::new().await;
    let (source, target, state) =
        (pair.source(SOURCE_OWNER).await, pair.target(TARGET_OWNER).await, pair.state().await);
    source.batch_execute("SELECT lo_from_bytea(501, 'new'), lo_from_bytea(502, 'b')").await.unwrap();
    target.batch_execute("SELECT lo_from_bytea(501, 'old'), lo_from_bytea(77, 'mine')").await.unwrap();
    let report = final_pass(&source, &target, &state, &Metrics::new().unwrap()).await.unwrap();
    assert_eq!((report.total, report.created, report.updated, report.removed), (2, 1, 1, 0));
    let found = contents(&target).await;
    assert_eq!(found.iter().map(|object| object.0).collect::<Vec<_>>(), [77, 501, 502]);
}

#[tokio::test]
async fn unreadable_objects_are_named_after_the_others_were_carried() {
    let pair = Pair::new().await;
    let (source, target, state) =
        (pair.source(SOURCE_OWNER).await, pair.target(TARGET_OWNER).await, pair.state().await);
    let admin = pair.source(SUPERUSER).await;
    admin
        .batch_execute(&format!(
            "SELECT lo_from_bytea(601, 'hidden'), lo_from_bytea(602, 'granted'); GRANT SELECT ON LARGE OBJECT 602 TO {SOURCE_OWNER}"
        ))
        .await
        .unwrap();
    source.batch_execute("SELECT lo_from_bytea(603, 'own')").await.unwrap();
    let error = final_pass(&source, &target, &state, &Metrics::new().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("GRANT SELECT ON LARGE OBJECT 601 TO source_owner"), "{error}");
    let found = contents(&target).await;
    assert_eq!(found.iter().map(|object| object.0).collect::<Vec<_>>(), [602, 603]);
    assert!(
        source.batch_execute("SELECT lo_from_bytea(604, 'writable again')").await.is_ok(),
        "the transaction was ended"
    );
}

#[tokio::test]
#[ignore = "hashes more than 4 GiB, half a minute"]
async fn an_object_over_two_gigabytes_keeps_its_holes() {
    let pair = Pair::new().await;
    let (source, target, state) = (pair.source(SUPERUSER).await, pair.target(TARGET_OWNER).await, pair.state().await);
    source
        .batch_execute(
            "SELECT lo_from_bytea(701, 'head'); SELECT lo_put(701, 2300000000, 'tail'); SELECT lo_put(701, 1200000000, 'middle')",
        )
        .await
        .unwrap();
    let report = final_pass(&source, &target, &state, &Metrics::new().unwrap()).await.unwrap();
    assert_eq!((report.created, report.updated), (1, 0));
    assert!(report.bytes <= 3 << 20, "three pieces: {}", report.bytes);
    let sql = "SELECT lo_lseek64(lo_open(701, 262144), 0, 2), lo_get(701, 0, 4), lo_get(701, 1200000000, 6), lo_get(701, 2300000000, 9), \
               (SELECT count(*) FROM pg_catalog.pg_largeobject)";
    let row = pair.target(SUPERUSER).await.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 2_300_000_004);
    assert_eq!((row.get::<_, &[u8]>(1), row.get::<_, &[u8]>(2)), (&b"head"[..], &b"middle"[..]));
    assert_eq!(row.get::<_, &[u8]>(3), b"tail");
    assert!(row.get::<_, i64>(4) <= 3 * 512 + 1, "the holes are holes");
    let again = final_pass(&source, &target, &state, &Metrics::new().unwrap()).await.unwrap();
    assert_eq!(again, LargeObjectReport { total: 1, ..Default::default() });
}
