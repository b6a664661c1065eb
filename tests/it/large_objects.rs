//! Large objects: followed while they are written, exact at the end, whoever
//! is killed in between; and what each role on the source means for them.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio_postgres::Client;
use walferry::demo::cluster::{Cluster, SUPERUSER};
use walferry::demo::server::RunAs;

use crate::migration::{PATIENCE, run_between, source_admin, streaming, until_streaming};
use crate::support::pair::{DATABASE, PASSWORD, Pair};
use crate::support::process::{Walferry, command, command_for};
use crate::support::{connect, wait_until, workload};

/// Objects of each writer.
const OBJECTS_PER_WRITER: u32 = 120;

/// Pause of a writer between two transactions: a debug build on a loaded machine
/// is to come to its end, too.
const WRITER_PAUSE: Duration = Duration::from_millis(25);

/// Objects that all writers write to at once.
const SHARED: [u32; 4] = [900_001, 900_002, 900_003, 900_004];

/// 50 MB each, and one that is sparse and ends beyond 2 GiB.
const LARGE: [u32; 2] = [910_001, 910_002];
const SPARSE: u32 = 910_003;

/// Everything there is before the copy: thousands of small ones, large ones, a
/// sparse one.
const FIXTURE: &str = "
    CREATE TABLE public.document (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, content oid);
    SELECT count(lo_from_bytea(o, decode(repeat(md5(o::text), o % 200), 'hex'))) FROM generate_series(20001, 23000) o;
    SELECT lo_from_bytea(o, decode(repeat(md5(o::text), 3276800), 'hex')) FROM generate_series(910001, 910002) o;
    SELECT lo_from_bytea(910003, 'head'); SELECT lo_put(910003, 2200000000, 'tail');
    SELECT lo_create(o) FROM generate_series(900001, 900004) o;
    CREATE ROLE clerk; CREATE ROLE reader";

/// The roles that owners and privileges are of, on the target.
const TARGET_ROLES: &str = "CREATE ROLE clerk; CREATE ROLE reader; CREATE ROLE app; GRANT clerk, app TO doadmin; GRANT CREATE ON SCHEMA public TO app";

/// Length, hashes of the pieces that have bytes, comment, owner and privileges.
type Object = (i64, String, Option<String>, String, String);

/// All large objects of a database that are in none but the large ones' way:
/// pieces that either side has pages of are hashed, the others are holes on both.
async fn objects(admin: &Client, pieces: &BTreeMap<u32, Vec<i64>>) -> BTreeMap<u32, Object> {
    let sql = "SELECT m.oid, coalesce((SELECT l.pageno::bigint * 2048 + length(l.data) FROM pg_largeobject l \
               WHERE l.loid = m.oid ORDER BY l.pageno DESC LIMIT 1), 0), \
               coalesce((SELECT string_agg(md5(lo_get(m.oid, p << 20, 1 << 20)), ',' ORDER BY p) FROM unnest(x.pieces) p), ''), \
               obj_description(m.oid, 'pg_largeobject'), pg_get_userbyid(m.lomowner)::text, \
               coalesce((SELECT string_agg(a.grantee::regrole || a.privilege_type, ',' ORDER BY 1) FROM aclexplode(m.lomacl) a \
                         WHERE a.grantee <> m.lomowner), '') \
               FROM pg_largeobject_metadata m JOIN unnest($1::oid[], $2::text[]) u (oid, pieces) ON u.oid = m.oid, \
               LATERAL (SELECT u.pieces::bigint[] AS pieces) x";
    let oids: Vec<u32> = pieces.keys().copied().collect();
    let lists: Vec<String> = pieces
        .values()
        .map(|list| format!("{{{}}}", list.iter().map(i64::to_string).collect::<Vec<_>>().join(",")))
        .collect();
    let rows = admin.query(sql, &[&oids, &lists]).await.unwrap();
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3), row.get(4), row.get(5)))).collect()
}

/// The objects of a database and the pieces (1 MiB) of them that have pages.
async fn pieces(admin: &Client) -> BTreeMap<u32, Vec<i64>> {
    let sql = "SELECT m.oid, array_remove(array_agg(DISTINCT (l.pageno / 512)::bigint), NULL) \
               FROM pg_largeobject_metadata m LEFT JOIN pg_largeobject l ON l.loid = m.oid GROUP BY 1";
    admin.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// How far owners are to be the same.
#[derive(Clone, Copy, PartialEq)]
enum Owners {
    Same,
    Ours,
}

/// Panics unless all large objects are the same on both sides.
async fn assert_objects_equal(pair: &Pair, owners: Owners) {
    let (source, target) = (source_admin(pair).await, target_admin(pair).await);
    let (mut all, there) = tokio::join!(pieces(&source), pieces(&target));
    assert_eq!(all.keys().collect::<Vec<_>>(), there.keys().collect::<Vec<_>>(), "objects missing, or too many");
    for (oid, pieces) in there {
        let union = all.entry(oid).or_default();
        union.extend(pieces);
        union.sort_unstable();
        union.dedup();
    }
    let (mut here, mut there) = tokio::join!(objects(&source, &all), objects(&target, &all));
    if owners == Owners::Ours {
        for object in here.values_mut().chain(there.values_mut()) {
            (object.3, object.4) = Default::default();
        }
    }
    assert_eq!(here.len(), all.len());
    for (oid, object) in &here {
        assert_eq!(Some(object), there.get(oid), "large object {oid}");
    }
}

async fn target_admin(pair: &Pair) -> Client {
    connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await
}

/// Writers that do to large objects whatever can be done to them.
struct Writers {
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Writers {
    async fn start(pair: &Pair, count: u32) -> Writers {
        let seed = workload::seed();
        let (stop, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = JoinSet::new();
        for number in 0..count {
            let rng = StdRng::seed_from_u64(seed.wrapping_add(u64::from(number)));
            let client = connect(&pair.source_uri()).await;
            let mut writer = Writer { client, rng, number };
            let (stop, committed) = (stop.clone(), committed.clone());
            tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    writer.transaction().await;
                    committed.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(WRITER_PAUSE).await;
                }
            });
        }
        Writers { stop, committed, tasks }
    }

    async fn more(&self, transactions: u64) {
        let wanted = self.committed.load(Ordering::Relaxed) + transactions;
        let enough = || async { self.committed.load(Ordering::Relaxed) >= wanted };
        wait_until("the writers have written", PATIENCE, enough).await;
    }

    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
    }
}

struct Writer {
    client: Client,
    rng: StdRng,
    number: u32,
}

impl Writer {
    /// Some steps, each in a savepoint of its own: refused ones and a third of
    /// the others are rolled back, and now and then everything.
    async fn transaction(&mut self) {
        self.execute("BEGIN").await;
        for _ in 0..self.rng.random_range(1..8) {
            let step = self.step();
            self.execute("SAVEPOINT s").await;
            let is_undone = self.client.batch_execute(&step).await.is_err() || self.rng.random_ratio(1, 3);
            self.execute(if is_undone { "ROLLBACK TO s" } else { "RELEASE s" }).await;
        }
        let end = if self.rng.random_ratio(1, 8) { "ROLLBACK" } else { "COMMIT" };
        self.execute(end).await;
    }

    async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    fn step(&mut self) -> String {
        let rng = &mut self.rng;
        let oid = match rng.random_range(0..20) {
            0..3 => SHARED[rng.random_range(0..SHARED.len())],
            3 => rng.random_range(20_001..23_000),
            _ => (self.number + 1) * 10_000_000 + rng.random_range(0..OBJECTS_PER_WRITER),
        };
        // Page bounds are where the mistakes are.
        let length: i64 = match rng.random_range(0..3) {
            0 => rng.random_range(0..12) * 2048,
            1 => rng.random_range(0..12) * 2048 + rng.random_range(-1..2),
            _ => rng.random_range(0..60_000),
        }
        .max(0);
        let word: u64 = rng.random();
        let bytes = format!("decode(repeat(md5('{word}'), {}), 'hex')", rng.random_range(1..300));
        match rng.random_range(0..20) {
            0..4 => format!("SELECT lo_create({oid}); SELECT lo_put({oid}, {length}, {bytes})"),
            4..10 => format!("SELECT lo_put({oid}, {length}, {bytes})"),
            10..13 => format!("SELECT lo_truncate64(lo_open({oid}, x'20000'::int), {length})"),
            13 => format!("SELECT lo_unlink({oid})"),
            14 => format!("SELECT lo_unlink({oid}); SELECT lo_from_bytea({oid}, {bytes})"),
            15 => format!("SELECT lo_unlink({oid}); SELECT lo_create({oid})"),
            16 => format!("COMMENT ON LARGE OBJECT {oid} IS 'it''s {word}'"),
            17 => format!("COMMENT ON LARGE OBJECT {oid} IS NULL; INSERT INTO document (content) VALUES ({oid})"),
            18 => format!("ALTER LARGE OBJECT {oid} OWNER TO clerk; GRANT SELECT ON LARGE OBJECT {oid} TO reader"),
            _ => {
                let large = LARGE[rng.random_range(0..LARGE.len())];
                let (at, far) = (rng.random_range(0..52_000_000), rng.random_range(0..2_300_000_000_i64));
                format!("SELECT lo_put({large}, {at}, {bytes}); SELECT lo_put({SPARSE}, {far}, {bytes})")
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_done_to_large_objects_while_daemons_are_killed_is_equal_at_the_end() {
    let pair = Pair::builder().start().await;
    pair.source_sql(FIXTURE).await;
    target_admin(&pair).await.batch_execute(TARGET_ROLES).await.unwrap();
    let writers = Writers::start(&pair, 3).await;
    let options = ["--large-object-interval", "200ms", "--owners", "--acl"];
    let run = [&["run"], &options[..]].concat();
    let mut rng = StdRng::seed_from_u64(workload::seed());
    let mut daemon = streaming(&pair, &options).await;
    for _ in 0..3 {
        writers.more(60).await;
        // Not a wait for anything: the moment of the kill.
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..1500))).await;
        daemon.kill();
        daemon = until_streaming(&pair, Walferry::on(&pair, &run)).await;
    }
    // Also between the last commit of a pass and the record of it.
    daemon.kill();
    let mut dying = command_for(&pair, &run);
    dying.env("WALFERRY_FAILPOINT", "large-objects-carried:2");
    let died = Walferry::spawn(dying).wait(PATIENCE);
    assert_eq!(died.status.signal(), Some(Signal::ABORT.as_raw()), "{}", died.stderr);
    let daemon = until_streaming(&pair, Walferry::on(&pair, &run)).await;
    writers.more(60).await;
    writers.stop().await;
    daemon.terminate(PATIENCE).code(0);
    let catchup = [&["catchup"], &options[2..]].concat();
    Walferry::run(&pair, &catchup, PATIENCE).code(0);
    assert_objects_equal(&pair, Owners::Ours).await;
    let finish = [&catchup[..], &["--finish"]].concat();
    Walferry::run(&pair, &finish, PATIENCE).code(0);
    assert_objects_equal(&pair, Owners::Same).await;
    let sql =
        "SELECT count(*) FROM pg_largeobject_metadata WHERE pg_get_userbyid(lomowner) = 'clerk' AND lomacl IS NOT NULL";
    let owned: i64 = target_admin(&pair).await.query_one(sql, &[]).await.unwrap().get(0);
    assert!(owned > 0, "somebody else owns some");
}

/// Names an object in a row; the daemon is told to look on its own in an hour.
async fn name_and_wait(pair: &Pair, sql: &str, what: &str, wanted: &[u8]) {
    let row = pair.source_client().await.query_one(sql, &[]).await.unwrap();
    let oid: u32 = row.get(0);
    let target = target_admin(pair).await;
    let sql = "SELECT lo_get(oid) FROM pg_largeobject_metadata WHERE oid = $1";
    wait_until(what, PATIENCE, || async {
        let found = target.query_opt(sql, &[&oid]).await.unwrap();
        found.is_some_and(|row| row.get::<_, &[u8]>(0) == wanted)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_a_row_names_is_there_without_a_pass() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE DOMAIN public.lo AS oid; CREATE DOMAIN public.scan AS public.lo; \
         CREATE TABLE public.plain (id int PRIMARY KEY, doc oid); CREATE TABLE public.typed (id int PRIMARY KEY, doc public.scan); \
         SELECT lo_from_bytea(4711, 'before the copy')",
    )
    .await;
    let daemon = streaming(&pair, &["--large-object-interval", "1h"]).await;
    let new = "INSERT INTO plain VALUES (1, lo_from_bytea(0, 'new')) RETURNING doc";
    name_and_wait(&pair, new, "the object of a column of type oid has come", b"new").await;
    let new = "INSERT INTO typed VALUES (1, lo_from_bytea(0, 'of a domain')) RETURNING doc::oid";
    name_and_wait(&pair, new, "the object of a column of a domain has come", b"of a domain").await;
    let update = "WITH w AS (SELECT lo_put(4711, 0, 'BEFORE')) UPDATE plain SET doc = 4711 FROM w RETURNING doc";
    name_and_wait(&pair, update, "the object that an update names is as it is now", b"BEFORE the copy").await;
    // Rows that name nothing do no harm.
    pair.source_sql("INSERT INTO plain VALUES (2, 0), (3, NULL), (4, 4294967295), (5, 12)").await;
    daemon.terminate(PATIENCE).code(0);
    Walferry::run(&pair, &["catchup"], PATIENCE).code(0);
    assert_objects_equal(&pair, Owners::Ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_cannot_go_on_holds_nobody_up() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TABLE t (id int PRIMARY KEY); SELECT lo_from_bytea(1, 'a')").await;
    let mut daemon = streaming(&pair, &["--large-object-interval", "50ms"]).await;
    // Somebody holds the row that every writer of large objects locks.
    let holder = target_admin(&pair).await;
    holder.batch_execute("BEGIN; SELECT FROM walferry.large_objects FOR UPDATE").await.unwrap();
    pair.source_sql("SELECT lo_from_bytea(2, 'b')").await;
    let blocked =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'walferry'";
    let watcher = target_admin(&pair).await;
    wait_until("a pass waits", PATIENCE, || async {
        watcher.query_one(blocked, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
    // Rows go on, and so does the hand-over to another command.
    pair.source_sql("INSERT INTO t VALUES (1)").await;
    let arrived = "SELECT count(*) FROM t";
    wait_until("the row has come", PATIENCE, || async {
        watcher.query_one(arrived, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let catchup = Walferry::on(&pair, &["catchup"]);
    wait_until("the daemon has handed over", PATIENCE, || {
        let ended = daemon.ended();
        async move { ended.is_some() }
    })
    .await;
    daemon.wait(PATIENCE).code(0);
    holder.batch_execute("ROLLBACK").await.unwrap();
    catchup.wait(PATIENCE).code(0);
    assert_objects_equal(&pair, Owners::Ours).await;
}

/// What `check`, the passes and `catchup` make of a role on the source.
async fn outcome_for(role: &str, rights: &str, is_all_readable: bool) {
    let pair = Pair::builder().start().await;
    pair.source_sql(&format!(
        "CREATE ROLE {role} LOGIN REPLICATION PASSWORD '{PASSWORD}'; {rights}; \
         GRANT ALL ON SCHEMA public TO {role}; GRANT CREATE ON DATABASE {DATABASE} TO {role}; \
         SET ROLE {role}; CREATE TABLE public.t (id int PRIMARY KEY); SELECT lo_from_bytea(501, 'own'); RESET ROLE; \
         SELECT lo_from_bytea(502, 'granted'); GRANT SELECT ON LARGE OBJECT 502 TO {role}; SELECT lo_from_bytea(503, 'foreign')"
    ))
    .await;
    let source = pair.source.uri(role, PASSWORD, DATABASE);
    let run = |arguments: &[&str]| run_between(&source, &pair.target_uri(), arguments, PATIENCE);
    let checked = run(&["check"]);
    let interval = ["run", "--large-object-interval", "50ms"];
    let daemon = Walferry::spawn(command(&source, &pair.target_uri(), &interval));
    let daemon = until_streaming(&pair, daemon).await;
    // Followed as well, as far as it can be read.
    pair.source_sql(&format!("SELECT lo_put(501, 0, 'OWN'), lo_put(502, 0, 'G'), lo_put(503, 0, 'F'); SET ROLE {role}; SELECT lo_from_bytea(504, 'new')"))
        .await;
    let target = target_admin(&pair).await;
    let sql = "SELECT string_agg(oid || ' ' || convert_from(lo_get(oid), 'UTF8'), ', ' ORDER BY oid) FROM pg_largeobject_metadata";
    let wanted =
        if is_all_readable { "501 OWN, 502 Granted, 503 Foreign, 504 new" } else { "501 OWN, 502 Granted, 504 new" };
    wait_until("the objects have been followed", PATIENCE, || async {
        target.query_one(sql, &[]).await.unwrap().get::<_, Option<String>>(0).as_deref() == Some(wanted)
    })
    .await;
    let status = run(&["status", "--json"]).code(0).json();
    daemon.terminate(PATIENCE).code(0);
    let caught_up = run(&["catchup"]);
    let said = &status["large_objects"];
    assert!(said["final_pass_seconds"].as_f64().is_some(), "{said}");
    if is_all_readable {
        assert_eq!(checked.status.code(), Some(0), "{}", checked.stdout);
        assert_eq!((said["unreadable"].as_i64(), caught_up.status.code()), (Some(0), Some(0)), "{}", caught_up.stderr);
        return assert_objects_equal(&pair, Owners::Ours).await;
    }
    assert_eq!(checked.status.code(), Some(0), "{}", checked.stdout);
    assert!(checked.stdout.contains("may not read 1 of 3 large objects, which others own: 503"), "{}", checked.stdout);
    assert_eq!((said["unreadable"].as_i64(), said["unreadable_oids"][0].as_i64()), (Some(1), Some(503)), "{said}");
    assert!(run(&["status"]).stdout.contains("not readable: 1 (503)"));
    assert_eq!(caught_up.status.code(), Some(6), "{}", caught_up.stderr);
    assert!(caught_up.stderr.contains(&format!("GRANT SELECT ON LARGE OBJECT 503 TO {role}")), "{}", caught_up.stderr);
    // The way out that it names.
    pair.source_sql(&format!("GRANT SELECT ON LARGE OBJECT 503 TO {role}")).await;
    run(&["catchup"]).code(0);
    assert_objects_equal(&pair, Owners::Ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superuser_reads_all_pages() {
    outcome_for("boss", "ALTER ROLE boss SUPERUSER", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_pg_read_all_data_reads_all_pages() {
    outcome_for("auditor", "GRANT pg_read_all_data TO auditor", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_role_carries_what_it_may_open_and_names_the_rest() {
    outcome_for("plain", "SELECT", false).await;
}

/// Stops a server that has been shut down in order, sets its next transaction
/// id, and freezes everything, as a database of that age would be.
fn age(cluster: &mut Cluster, xid: u32) {
    cluster.stop().unwrap();
    let data = cluster.data_dir();
    // What pg_resetwal leaves to whoever calls it: the segment of the id.
    let segment = data.join(format!("pg_xact/{:04X}", xid / (1 << 20)));
    if !segment.exists() {
        std::fs::write(&segment, vec![0; 256 << 10]).unwrap();
        let owner = std::fs::metadata(data.join("PG_VERSION")).unwrap();
        std::os::unix::fs::chown(&segment, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let mut command = RunAs::choose().unwrap().command(&cluster.server().program("pg_resetwal"));
    let done =
        command.current_dir(cluster.socket_dir()).args(["-x", &xid.to_string(), "-D"]).arg(&data).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    cluster.restart().unwrap();
    cluster.psql(SUPERUSER, "postgres", "ALTER DATABASE template0 ALLOW_CONNECTIONS true").unwrap();
    for database in ["template0", "template1", "postgres", DATABASE] {
        cluster.psql(SUPERUSER, database, "VACUUM (FREEZE)").unwrap();
    }
}

/// The bytes of large objects that a catch-up wrote.
fn bytes_written(log: &str) -> u64 {
    let line = log.lines().find(|line| line.contains("large objects are exact")).unwrap();
    line.rsplit_once("bytes=").unwrap().1.trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_on_both_sides_of_the_edge_of_32_bits_are_found_and_no_others() {
    let mut pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE TABLE t (id int PRIMARY KEY); \
         SELECT count(lo_from_bytea(o, decode(repeat(md5(o::text), 1000), 'hex'))) FROM generate_series(1001, 1100) o",
    )
    .await;
    // Never more than half of all ids at once.
    for xid in [1_500_000_000, 3_000_000_000, u32::MAX - 1500] {
        age(&mut pair.source, xid);
    }
    let options = ["--large-object-interval", "1h"];
    streaming(&pair, &options).await.terminate(PATIENCE).code(0);
    let (source, target) = (source_admin(&pair).await, target_admin(&pair).await);
    let bound =
        async || -> i64 { target.query_one("SELECT scan_xmin FROM walferry.large_objects", &[]).await.unwrap().get(0) };
    assert!(bound().await < 1 << 32, "the copy was made before the edge");
    source.batch_execute("SELECT lo_put(1001, 0, 'before the edge')").await.unwrap();
    let burn = "DO $$ BEGIN FOR i IN 1..2000 LOOP PERFORM txid_current(); COMMIT; END LOOP; END $$";
    source.batch_execute(burn).await.unwrap();
    source.batch_execute("SELECT lo_put(1002, 5000, 'behind it'), lo_unlink(1003)").await.unwrap();
    let done = Walferry::run(&pair, &["catchup"], PATIENCE).code(0);
    assert_eq!(bytes_written(&done.stderr), 2 * 2048, "{}", done.stderr);
    assert!(bound().await > 1 << 32);
    assert_objects_equal(&pair, Owners::Ours).await;
    // And on from there, all of it behind the edge.
    source.batch_execute("SELECT lo_put(1004, 0, 'later')").await.unwrap();
    let done = Walferry::run(&pair, &["catchup"], PATIENCE).code(0);
    assert_eq!(bytes_written(&done.stderr), 2048, "{}", done.stderr);
    assert_objects_equal(&pair, Owners::Ours).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_cannot_be_given_is_named_by_check_and_at_the_end_and_keeps_nothing_else_back() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE ROLE clerk; CREATE ROLE reader; CREATE TABLE t (id int PRIMARY KEY); SELECT lo_from_bytea(1, 'a'), lo_from_bytea(2, 'b'); \
         ALTER LARGE OBJECT 1 OWNER TO clerk; GRANT SELECT ON LARGE OBJECT 2 TO reader",
    )
    .await;
    let target = target_admin(&pair).await;
    target.batch_execute("CREATE ROLE reader").await.unwrap();
    // The tables are the operator's: only large objects are given away.
    target.batch_execute("CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO doadmin").await.unwrap();
    let options = ["--schema", "existing", "--owners", "--acl"];
    let checked = Walferry::run(&pair, &[&["check"], &options[..]].concat(), PATIENCE).code(0);
    for sql in ["CREATE ROLE \"clerk\";", "GRANT \"clerk\" TO \"doadmin\";"] {
        assert!(checked.stdout.contains(sql), "{}", checked.stdout);
    }
    streaming(&pair, &options).await.terminate(PATIENCE).code(0);
    let finish = [&["catchup", "--finish"], &options[..]].concat();
    let refused = Walferry::run(&pair, &finish, PATIENCE).code(7);
    assert!(refused.stderr.contains("ALTER LARGE OBJECT 1 OWNER TO \"clerk\""), "{}", refused.stderr);
    let sql = "SELECT string_agg(lomacl::text, '') FROM pg_largeobject_metadata WHERE oid = 2";
    let rights: Option<String> = target.query_one(sql, &[]).await.unwrap().get(0);
    assert!(rights.as_ref().is_some_and(|rights| rights.contains("reader=r")), "{rights:?}");
    target.batch_execute("CREATE ROLE clerk; CREATE ROLE app; GRANT clerk, app TO doadmin").await.unwrap();
    Walferry::run(&pair, &finish, PATIENCE).code(0);
    assert_objects_equal(&pair, Owners::Same).await;
}
