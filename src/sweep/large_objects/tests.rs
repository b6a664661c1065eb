//! What the passes over the large objects claim: contents become equal whichever
//! way the source may be read, holes and all, and beyond two gigabytes; nothing
//! of the target's own is written over; what cannot be read is named once the
//! others are there.

use super::*;
use crate::catalog;
use crate::config::Side;
use crate::lsn::Lsn;
use crate::sweep::testing::{Pair, SOURCE_OWNER, SOURCE_READER, SUPERUSER, TARGET_OWNER};
use crate::testing::{cluster, over_socket};

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

/// Whether a pass found nothing to create or remove. It may have written what it
/// had written before: a transaction of another test that goes on holds the
/// bound back.
fn is_quiet(report: LargeObjectReport, total: u64) -> bool {
    (report.total, report.created, report.removed) == (total, 0, 0)
}

/// What a pass works with, on sessions of a pair.
struct Rig {
    source: Session,
    target: Session,
    state: State,
    metrics: Metrics,
    info: ConnInfo,
}

impl Rig {
    async fn new(pair: &Pair, role: &str) -> Rig {
        Rig {
            source: pair.source(role).await,
            target: pair.target(TARGET_OWNER).await,
            state: pair.state().await,
            metrics: Metrics::new().unwrap(),
            info: pair.source_info(role),
        }
    }

    fn ends(&self) -> Ends<'_> {
        let Rig { source, target, state, metrics, info } = self;
        Ends { source, target, state, metrics, crew: Crew { source: info, name: "walferry-test", sessions: 2 } }
    }

    async fn copy(&self) -> LargeObjectReport {
        copy_initial(self.ends()).await.unwrap()
    }

    /// Waits until no transaction is open that was when this began: of other
    /// tests, which would hold the bound back.
    async fn settle(&self) {
        let sql = "SELECT txid_snapshot_xmax(txid_current_snapshot())";
        let now: i64 = self.source.query_one(sql, &[]).await.unwrap().get(0);
        let sql = "SELECT txid_snapshot_xmin(txid_current_snapshot()) >= $1";
        while !self.source.query_one(sql, &[&now]).await.unwrap().get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn last(&self) -> LargeObjectReport {
        final_pass(self.ends()).await.unwrap()
    }

    /// Passes of a kind so far.
    fn passes(&self, kind: &str) -> u64 {
        self.metrics.large_object_passes.with_label_values(&[kind]).get()
    }
}

#[tokio::test]
async fn contents_become_equal_whichever_way_the_source_is_read() {
    for role in [SUPERUSER, SOURCE_OWNER, SOURCE_READER] {
        let pair = Pair::new().await;
        let (owner, admin, from) =
            (pair.source(SOURCE_OWNER).await, pair.target(SUPERUSER).await, pair.source(SUPERUSER).await);
        let rig = Rig::new(&pair, role).await;
        // An object of the target's own, which no pass may touch.
        rig.target.batch_execute("SELECT lo_from_bytea(99, 'not of the migration')").await.unwrap();
        owner.batch_execute(FIXTURE).await.unwrap();
        let own = contents(&admin).await;
        let expected = [own.clone(), contents(&from).await].concat();

        let report = rig.copy().await;
        assert_eq!((report.total, report.created, report.updated, report.removed), (2511, 2511, 0, 0), "{role}");
        assert!(contents(&admin).await == expected, "{role}");
        assert!(is_quiet(rig.copy().await, 2511), "{role}");

        owner.batch_execute(CHANGES).await.unwrap();
        let before = rig.metrics.large_object_bytes.get();
        let report = rig.last().await;
        assert_eq!((report.total, report.created, report.removed), (2511, 1, 1), "{role}");
        assert!(report.updated >= 8, "{role}: {report:?}");
        assert_eq!(rig.metrics.large_object_bytes.get() - before, report.bytes);
        assert!(report.bytes < 6 * (1 << 20), "only pieces that differ: {}", report.bytes);
        let expected = [own, contents(&from).await].concat();
        assert!(contents(&admin).await == expected, "{role}");
        assert!(is_quiet(rig.last().await, 2511), "{role}");
        assert_eq!(rig.state.large_objects().await.unwrap().unwrap().total, 2511);
        let whole = if role == SOURCE_OWNER { 4 } else { 1 };
        assert_eq!((rig.passes("everything"), rig.passes("changes")), (whole, 4 - whole), "{role}");
    }
}

#[tokio::test]
async fn a_taken_oid_is_refused_before_anything_is_written() {
    let pair = Pair::new().await;
    let rig = Rig::new(&pair, SOURCE_OWNER).await;
    let (source, target) = (&rig.source, &rig.target);
    source.batch_execute("SELECT lo_from_bytea(501, 'a'), lo_from_bytea(502, 'b')").await.unwrap();
    target.batch_execute("SELECT lo_from_bytea(502, 'mine')").await.unwrap();
    let error = copy_initial(rig.ends()).await.unwrap_err();
    assert!(matches!(&error, SweepError::LargeObjectsInUse { oids, count: 1 } if oids == &[502]), "{error}");
    let found = target.query_one("SELECT count(*) FROM pg_catalog.pg_largeobject_metadata", &[]).await.unwrap();
    assert_eq!(found.get::<_, i64>(0), 1);
}

#[tokio::test]
async fn a_baseline_restored_by_other_means_is_taken_in() {
    let pair = Pair::new().await;
    let rig = Rig::new(&pair, SOURCE_OWNER).await;
    let (source, target) = (&rig.source, &rig.target);
    source.batch_execute("SELECT lo_from_bytea(501, 'new'), lo_from_bytea(502, 'b')").await.unwrap();
    target.batch_execute("SELECT lo_from_bytea(501, 'old'), lo_from_bytea(77, 'mine')").await.unwrap();
    let report = rig.last().await;
    assert_eq!((report.total, report.created, report.updated, report.removed), (2, 1, 1, 0));
    let found = contents(target).await;
    assert_eq!(found.iter().map(|object| object.0).collect::<Vec<_>>(), [77, 501, 502]);
}

#[tokio::test]
async fn unreadable_objects_are_named_after_the_others_were_carried() {
    let pair = Pair::new().await;
    let rig = Rig::new(&pair, SOURCE_OWNER).await;
    let (source, target) = (&rig.source, &rig.target);
    let admin = pair.source(SUPERUSER).await;
    admin
        .batch_execute(&format!(
            "SELECT lo_from_bytea(601, 'hidden'), lo_from_bytea(602, 'granted'); GRANT SELECT ON LARGE OBJECT 602 TO {SOURCE_OWNER}"
        ))
        .await
        .unwrap();
    source.batch_execute("SELECT lo_from_bytea(603, 'own')").await.unwrap();
    let error = final_pass(rig.ends()).await.unwrap_err();
    assert!(error.to_string().contains("GRANT SELECT ON LARGE OBJECT 601 TO source_owner"), "{error}");
    let found = contents(target).await;
    assert_eq!(found.iter().map(|object| object.0).collect::<Vec<_>>(), [602, 603]);
    assert!(
        source.batch_execute("SELECT lo_from_bytea(604, 'writable again')").await.is_ok(),
        "the transaction was ended"
    );
}

/// The story: the documented GRANT made pages readable, and what had changed meanwhile was
/// older than the bound.
#[tokio::test]
async fn an_object_that_was_unreadable_for_a_while_is_equal_once_it_can_be_read() {
    let pair = Pair::new().await;
    let rig = Rig::new(&pair, SOURCE_OWNER).await;
    let admin = pair.source(SUPERUSER).await;
    let run = async |sql: &str| admin.batch_execute(sql).await.unwrap();
    run(&format!("SELECT lo_from_bytea(601, 'before'); GRANT SELECT ON LARGE OBJECT 601 TO {SOURCE_OWNER}")).await;
    final_pass(rig.ends()).await.unwrap();
    run(&format!("REVOKE SELECT ON LARGE OBJECT 601 FROM {SOURCE_OWNER}; SELECT lo_put(601, 0, 'AFTER')")).await;
    final_pass(rig.ends()).await.unwrap_err();
    run(&format!("GRANT pg_read_all_data TO {SOURCE_OWNER}")).await;
    final_pass(rig.ends()).await.unwrap();
    assert_eq!(contents(&rig.target).await, contents(&admin).await);
    // From here on by what has changed.
    run("SELECT lo_put(601, 0, 'later')").await;
    final_pass(rig.ends()).await.unwrap();
    assert_eq!(contents(&rig.target).await, contents(&admin).await);
    assert!(rig.passes("changes") > 0);
}

#[tokio::test]
async fn an_object_over_two_gigabytes_keeps_its_holes() {
    let pair = Pair::new().await;
    let rig = Rig::new(&pair, SUPERUSER).await;
    rig.source
        .batch_execute(
            "SELECT lo_from_bytea(701, 'head'); SELECT lo_put(701, 2300000000, 'tail'); SELECT lo_put(701, 1200000000, 'middle')",
        )
        .await
        .unwrap();
    rig.settle().await;
    let report = rig.copy().await;
    assert_eq!((report.created, report.updated), (1, 0));
    assert!(report.bytes <= 3 * 2048, "three pages: {}", report.bytes);
    let sql = "SELECT lo_lseek64(lo_open(701, 262144), 0, 2), lo_get(701, 0, 4), lo_get(701, 1200000000, 6), lo_get(701, 2300000000, 9), \
               (SELECT count(*) FROM pg_catalog.pg_largeobject)";
    let row = pair.target(SUPERUSER).await.query_one(sql, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 2_300_000_004);
    assert_eq!((row.get::<_, &[u8]>(1), row.get::<_, &[u8]>(2)), (&b"head"[..], &b"middle"[..]));
    assert_eq!(row.get::<_, &[u8]>(3), b"tail");
    assert!(row.get::<_, i64>(4) <= 6, "the holes are holes");
    // A change is found, and the holes are not read over the wire for it.
    rig.source.batch_execute("SELECT lo_put(701, 1800000000, 'more'), lo_put(701, 1200000003, 'D')").await.unwrap();
    let before = rig.metrics.large_object_read_bytes.get();
    let report = rig.last().await;
    assert_eq!((report.updated, report.bytes), (1, 2 * 2048));
    assert!(rig.metrics.large_object_read_bytes.get() - before < 1 << 20);
    let sql = "SELECT lo_get(701, 1800000000, 4), lo_get(701, 1200000000, 6), lo_lseek64(lo_open(701, 262144), 0, 2)";
    let row = rig.target.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, &[u8]>(0), row.get::<_, &[u8]>(1)), (&b"more"[..], &b"midDle"[..]));
    assert_eq!(row.get::<_, i64>(2), 2_300_000_004);
    assert!(is_quiet(rig.last().await, 1));
}

/// The bytes that the source sends for a pass, of 64 MiB of which one page in a
/// hundred was touched.
#[tokio::test]
async fn nothing_but_changed_pages_crosses_the_network() {
    const PAGES: i64 = (64 << 20) / 2048;
    let pair = Pair::new().await;
    let rig = Rig::new(&pair, SOURCE_READER).await;
    let owner = pair.source(SOURCE_OWNER).await;
    let fill = "SELECT count(lo_from_bytea(o, (SELECT string_agg(sha256((o * 1000000 + i)::text::bytea), '') \
                FROM generate_series(1, 131072) i))) FROM generate_series(1001, 1016) o";
    owner.batch_execute(fill).await.unwrap();
    rig.settle().await;
    rig.copy().await;
    let read = &rig.metrics.large_object_read_bytes;
    let before = read.get();
    assert_eq!(rig.last().await.updated, 0);
    let quiet = read.get() - before;
    assert!(quiet < 100_000, "a pass without changes: {quiet} bytes");
    // Every hundredth page, in all of the objects.
    let touch = format!(
        "SELECT count((SELECT 1 FROM lo_put((1001 + p / 2048)::oid, p % 2048 * 2048 + 77, 'touched'))) \
         FROM generate_series(0, {PAGES} - 1, 100) p"
    );
    owner.batch_execute(&touch).await.unwrap();
    let before = read.get();
    let report = rig.last().await;
    let bytes = read.get() - before;
    eprintln!("{bytes} bytes read for {} pages", PAGES / 100);
    assert_eq!((report.updated, report.bytes), (16, (PAGES as u64 / 100 + 1) * 2048));
    assert!(bytes * 100 <= 3 * (64 << 20), "{bytes} bytes are more than three per cent");
    assert!(contents(&pair.target(SUPERUSER).await).await == contents(&pair.source(SUPERUSER).await).await);
}

#[tokio::test]
async fn whoever_has_lost_the_claim_writes_nothing_more() {
    let pair = Pair::new().await;
    let rig = Rig::new(&pair, SUPERUSER).await;
    rig.source.batch_execute("SELECT lo_from_bytea(1, 'a')").await.unwrap();
    rig.copy().await;
    let old = rig.state.claim_large_objects(&rig.target, false).await.unwrap();
    let new = rig.state.claim_large_objects(&rig.target, false).await.unwrap();
    rig.source.batch_execute("SELECT lo_put(1, 0, 'b')").await.unwrap();
    let turn = Turn::default();
    let error = pass(rig.ends(), old, Pace::Beside, &turn).await.unwrap_err();
    assert!(matches!(error, SweepError::LargeObjectsClaimed), "{error}");
    let error = hints::look(rig.ends(), old, &[1], &turn).await.unwrap_err();
    assert!(matches!(error, SweepError::LargeObjectsClaimed), "{error}");
    assert_eq!(rig.target.query_one("SELECT lo_get(1)", &[]).await.unwrap().get::<_, &[u8]>(0), b"a");
    pass(rig.ends(), new, Pace::Beside, &turn).await.unwrap();
    assert_eq!(rig.target.query_one("SELECT lo_get(1)", &[]).await.unwrap().get::<_, &[u8]>(0), b"b");
}

/// The story: a transaction that truncates and one that writes behind the new
/// end at the same time leave a page that has not changed behind pages that
/// are gone. What is gone cannot be told from what has changed.
#[tokio::test]
async fn pages_that_vanish_before_an_unchanged_one_become_zeros() {
    let pair = Pair::new().await;
    let rig = Rig::new(&pair, SUPERUSER).await;
    let other = pair.source(SUPERUSER).await;
    other.batch_execute("SELECT lo_from_bytea(1, decode(repeat('aa', 20480), 'hex'))").await.unwrap();
    // Older than the one that truncates, and it ends before the snapshot.
    other.batch_execute("BEGIN; SELECT txid_current()").await.unwrap();
    rig.source.batch_execute("SELECT 1").await.unwrap();
    let truncating = pair.source(SUPERUSER).await;
    truncating.batch_execute("BEGIN; SELECT lo_truncate64(lo_open(1, x'20000'::int), 5000)").await.unwrap();
    other.batch_execute("SELECT lo_put(1, 40960, 'beyond'); COMMIT").await.unwrap();
    rig.copy().await;
    truncating.batch_execute("COMMIT").await.unwrap();
    rig.last().await;
    let (here, there) = (contents(&pair.source(SUPERUSER).await).await, contents(&pair.target(SUPERUSER).await).await);
    assert_eq!(here, there);
    let hole =
        rig.target.query_one("SELECT lo_get(1, 6144, 10000) = decode(repeat('00', 10000), 'hex')", &[]).await.unwrap();
    assert!(hole.get::<_, bool>(0));
}

/// What was carried by a hint since the pass took its snapshot is newer than
/// what the pass knows.
#[tokio::test]
async fn a_pass_does_not_undo_what_a_hint_has_carried_meanwhile() {
    let pair = Pair::new().await;
    let rig = Rig::new(&pair, SUPERUSER).await;
    rig.source.batch_execute("SELECT lo_from_bytea(1, 'one'), lo_from_bytea(2, 'two')").await.unwrap();
    rig.copy().await;
    let writer = pair.source(SUPERUSER).await;
    let claim = rig.state.claim_large_objects(&rig.target, false).await.unwrap();
    writer.batch_execute("SELECT lo_put(1, 0, 'ONE'), lo_put(2, 0, 'TWO')").await.unwrap();
    // The pass has its snapshot and its lists, and waits for its turn to write.
    rig.source.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
    let reader = reader(rig.ends()).await.unwrap();
    let snapshot = Snapshot::read(&reader).await.unwrap();
    let carrier = by_changes(rig.ends(), claim, reader, snapshot).await.unwrap().unwrap();
    let mut delta = Delta::new(rig.ends(), carrier, snapshot, Pace::Beside);
    let turn = Turn::default();
    delta.lists().await.unwrap();
    writer.batch_execute("SELECT lo_put(1, 0, '1st'), lo_unlink(2); SELECT lo_from_bytea(3, 'new')").await.unwrap();
    let (source, target) = (pair.source(SUPERUSER).await, pair.target(TARGET_OWNER).await);
    let ends = Ends { source: &source, target: &target, ..rig.ends() };
    hints::look(ends, claim, &[1, 2, 3, 4], &turn).await.unwrap();
    let done = delta.scan(&turn).await.unwrap();
    record(rig.ends(), claim, snapshot, &done, Duration::ZERO).await.unwrap();
    rig.source.batch_execute("ROLLBACK").await.unwrap();
    let target = pair.target(SUPERUSER).await;
    let found: Vec<(u32, i64)> = contents(&target).await.into_iter().map(|object| (object.0, object.1)).collect();
    assert_eq!(found, [(1, 3), (2, 3), (3, 3)]);
    assert_eq!(target.query_one("SELECT lo_get(1)", &[]).await.unwrap().get::<_, &[u8]>(0), b"1st");
    rig.last().await;
    assert!(contents(&target).await == contents(&pair.source(SUPERUSER).await).await);
}

/// The story: what a pass had read was lost in a crash of the source, as its commit had not
/// been flushed, and stayed on the target: no later pass looked at it again.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_read_before_a_crash_of_the_source_could_take_it_back() {
    let pair = Pair::new().await;
    let rig = Rig::new(&pair, SUPERUSER).await;
    let writer = pair.source(SUPERUSER).await;
    writer.batch_execute("SET synchronous_commit = off; SELECT lo_from_bytea(1, 'one')").await.unwrap();
    let row = writer.query_one("SELECT pg_current_wal_insert_lsn()", &[]).await.unwrap();
    let inserted: Lsn = row.take(0).unwrap();
    rig.source.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
    Snapshot::read(&reader(rig.ends()).await.unwrap()).await.unwrap();
    assert!(catalog::wal::end(&writer).await.unwrap() >= inserted);
}

/// The story: what an open transaction had written was waited for until the server's
/// background writer came by, up to fifteen seconds, also in the write pause.
#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_is_waited_for_waits_for_no_flush_that_nobody_does() {
    let pair = Pair::new().await;
    // Of its own: what is committed on the target would flush it too.
    let cluster = cluster().start().unwrap();
    let info = over_socket(&cluster, Side::Source, SUPERUSER, "postgres");
    let [source, writer] =
        [Session::connect(&info, "walferry-test").await.unwrap(), Session::connect(&info, "writer").await.unwrap()];
    let rig = Rig { source, info, ..Rig::new(&pair, SUPERUSER).await };
    writer.batch_execute("CREATE TABLE public.open (i int); BEGIN; INSERT INTO public.open VALUES (1)").await.unwrap();
    let copy = tokio::time::timeout(Duration::from_secs(5), rig.copy());
    assert_eq!(copy.await.expect("nobody is to be waited for").total, 0);
}
