//! What the fast path cannot do: it is noticed, done in the order of the
//! source, counted by reason, and the result is the same.

use std::time::Duration;

use crate::journey::{Journey, PATIENCE, execute, value};
use crate::migration::metric;
use crate::support::pair::Pair;
use crate::support::process::free_port;
use crate::support::wait_until;

/// A handful of batches is decoded and sent in a few milliseconds.
const WINDOW_FILLS: Duration = Duration::from_millis(500);

/// A journey whose daemon serves its metrics.
struct Watched {
    journey: Journey,
    port: u16,
    arguments: Vec<String>,
}

impl Watched {
    async fn of(fixtures: &[&str], arguments: &[&str]) -> Self {
        let mut fixtures = fixtures.to_vec();
        fixtures.push("CREATE TABLE sentinel (n int PRIMARY KEY)");
        let journey = Journey::on(Pair::builder().start().await, &fixtures, arguments).await;
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Watched { journey, port: free_port(), arguments }
    }

    /// Starts the daemon, which serves its metrics; a catch-up serves nothing.
    fn start(&mut self) {
        let listen = format!("127.0.0.1:{}", self.port);
        let plain: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        self.journey.arguments(&[&["--listen", &listen], &plain[..]].concat());
        self.journey.start();
        self.journey.arguments(&plain);
    }

    /// Writes while no daemon runs, so that the next one meets a backlog, and
    /// lets it apply all of that.
    async fn backlog(&mut self, statements: &[String]) {
        self.journey.catch_up().await;
        for sql in statements {
            execute(&self.journey.source, &[sql]).await;
        }
        execute(&self.journey.source, &["INSERT INTO sentinel SELECT count(*) FROM sentinel"]).await;
        let wanted = value(&self.journey.source, "SELECT count(*) FROM sentinel").await;
        self.start();
        self.journey.streams().await;
        let (target, wanted) = (&self.journey.target, &wanted);
        wait_until("the backlog is applied", PATIENCE, || async move {
            value(target, "SELECT count(*) FROM sentinel").await == *wanted
        })
        .await;
    }

    /// Batches of this daemon that left the fast path for this reason.
    async fn fallbacks(&self, reason: &str) -> f64 {
        self.metric(&format!("walferry_fallbacks_total{{reason=\"{reason}\"}}")).await
    }

    /// Batches of this daemon that went row by row.
    async fn ordered(&self) -> f64 {
        self.metric("walferry_batches_total{path=\"ordered\"}").await
    }

    async fn metric(&self, name: &str) -> f64 {
        metric(self.port, name).await
    }
}

const PLAYERS: &str = "CREATE TABLE player (id int PRIMARY KEY, u int UNIQUE); INSERT INTO player SELECT i, i FROM generate_series(1, 100) i";

/// Two rows exchange their unique values in one transaction.
fn swap(table: &str, a: u32, b: u32) -> String {
    format!(
        "DO $$ DECLARE one int; other int; BEGIN SELECT u INTO one FROM {table} WHERE id = {a}; \
         SELECT u INTO other FROM {table} WHERE id = {b}; UPDATE {table} SET u = -1 WHERE id = {a}; \
         UPDATE {table} SET u = one WHERE id = {b}; UPDATE {table} SET u = other WHERE id = {a}; END $$"
    )
}

#[tokio::test]
async fn rows_whose_unique_values_change_places_in_a_merged_batch_are_deleted_and_inserted() {
    let mut watched = Watched::of(&[PLAYERS], &[]).await;
    let swaps: Vec<String> = (0..300).map(|n| swap("player", 1 + n % 100, 1 + (n * 7 + 3) % 100)).collect();
    watched.backlog(&swaps).await;
    assert!(watched.fallbacks("constraint").await > 0.0);
    assert_eq!(watched.fallbacks("count").await, 0.0);
    assert_eq!(watched.ordered().await, 0.0, "nothing was replayed");
    watched.journey.finish().await;
}

/// A row of which not all values came cannot be inserted anew.
#[tokio::test]
async fn unique_values_that_change_places_beside_an_unchanged_large_value_are_replayed_in_order() {
    let fixture = "CREATE TABLE player (id int PRIMARY KEY, u int UNIQUE, large text); \
         ALTER TABLE player ALTER large SET STORAGE EXTERNAL; \
         INSERT INTO player SELECT i, i, repeat(md5(i::text), 300) FROM generate_series(1, 100) i";
    let mut watched = Watched::of(&[fixture], &[]).await;
    let swaps: Vec<String> = (0..100).map(|n| swap("player", 1 + n % 100, 1 + (n * 7 + 3) % 100)).collect();
    watched.backlog(&swaps).await;
    assert!(watched.fallbacks("constraint").await > 1.0, "refused as updates, and as what is left of them");
    assert!(watched.ordered().await > 0.0);
    watched.journey.finish().await;
}

/// The story: each refusal rolls the whole window back and replays a batch. A
/// table that swaps all the time would do so for every batch.
#[tokio::test]
async fn a_table_that_was_refused_does_without_updates_for_a_while() {
    let mut watched = Watched::of(&[PLAYERS], &["--batch-rows", "10"]).await;
    let swaps: Vec<String> = (0..300).map(|n| swap("player", 1 + n % 100, 1 + (n * 7 + 3) % 100)).collect();
    watched.backlog(&swaps).await;
    let (refused, batches) =
        (watched.fallbacks("constraint").await, watched.metric("walferry_batches_total{path=\"fast\"}").await);
    assert!(refused >= 1.0 && batches > 30.0, "{refused} refusals, {batches} batches");
    // One in each 64 batches, and no more: the window behind it goes with it.
    assert!(refused <= 2.0 + batches / 32.0, "{refused} refusals, {batches} batches");
    watched.journey.finish().await;
    // A line for each stretch, and none for the batches within it.
    let log = watched.journey.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("deleted and inserted anew")).collect();
    assert_eq!(lines.len() as f64, refused, "{lines:#?}");
    assert!(lines.iter().all(|line| line.contains("public.player") && line.contains("player_u_key")), "{lines:#?}");
}

/// The story: a batch that had to wait for those in flight was sent at once
/// when one of them was refused, before those between the two were sent again.
/// It missed their rows, and the position went to and fro.
#[tokio::test]
async fn what_waits_for_the_window_stays_behind_what_is_sent_again() {
    let moved = "CREATE TABLE moved (id int PRIMARY KEY, v int)";
    let mut watched = Watched::of(&[PLAYERS, moved], &["--batch-rows", "1"]).await;
    watched.journey.catch_up().await;
    execute(
        &watched.journey.source,
        &[
            &swap("player", 1, 2),
            "INSERT INTO moved VALUES (1, 0)",
            "UPDATE moved SET v = 1",
            // A key change is counted before its COMMIT is sent: it waits.
            "UPDATE moved SET id = 2",
            "UPDATE moved SET v = 2",
            "UPDATE moved SET id = 3",
        ],
    )
    .await;
    // Holds the first batch up until the window behind it is full.
    let holder = watched.journey.pair.target_client().await;
    execute(&holder, &["BEGIN", "LOCK TABLE player IN EXCLUSIVE MODE"]).await;
    watched.start();
    let target = &watched.journey.target;
    wait_until("the swap waits for its table", PATIENCE, || async move {
        value(target, "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'player'::regclass").await == "1"
    })
    .await;
    tokio::time::sleep(WINDOW_FILLS).await;
    execute(&holder, &["COMMIT"]).await;
    wait_until("all is applied", PATIENCE, || async move {
        value(target, "SELECT count(*) FROM moved WHERE id = 3 AND v = 2").await == "1"
    })
    .await;
    assert_eq!(watched.fallbacks("constraint").await, 1.0);
    assert_eq!(watched.fallbacks("count").await, 0.0);
    watched.journey.finish().await;
}

#[tokio::test]
async fn a_trigger_that_is_active_on_the_target_keeps_the_order() {
    let mut watched = Watched::of(
        &[
            "CREATE TABLE plain (id int PRIMARY KEY, v int)",
            "CREATE TABLE triggered (id int PRIMARY KEY, v int); INSERT INTO triggered VALUES (0, 0)",
        ],
        &[],
    )
    .await;
    let rows = |table: &str| -> Vec<String> {
        (1..60)
            .map(|n| format!("INSERT INTO {table} VALUES ({n}, {n}); UPDATE {table} SET v = v + 1 WHERE id <= {n}"))
            .collect()
    };
    watched.backlog(&rows("plain")).await;
    assert_eq!(watched.fallbacks("order").await, 0.0);
    // It came after the start, and before the first change of its table.
    execute(
        &watched.journey.target,
        &[
            "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER noted BEFORE UPDATE ON triggered FOR EACH ROW EXECUTE FUNCTION noted()",
        ],
    )
    .await;
    watched.backlog(&rows("triggered")).await;
    assert!(watched.fallbacks("order").await > 0.0);
    watched.journey.finish().await;
}

/// A statement that counts itself is refused where such a rule is (`WITH` takes
/// none with a `DO ALSO` rule): on the ordered path rows are counted from the answers.
#[tokio::test]
async fn a_rule_that_is_active_on_the_target_acts_once_for_each_row() {
    let mut watched =
        Watched::of(&["CREATE TABLE ruled (id int PRIMARY KEY, v int); INSERT INTO ruled VALUES (0, 0)"], &[]).await;
    execute(
        &watched.journey.target,
        &[
            "CREATE SCHEMA beside; CREATE TABLE beside.seen (what text)",
            "CREATE RULE also AS ON INSERT TO ruled DO ALSO INSERT INTO beside.seen VALUES ('insert')",
            "CREATE RULE too AS ON DELETE TO ruled DO ALSO INSERT INTO beside.seen VALUES ('delete')",
        ],
    )
    .await;
    let rows = (1..60).map(|n| {
        format!(
            "BEGIN; INSERT INTO ruled VALUES ({n}, {n}); UPDATE ruled SET v = v + 1 WHERE id <= {n}; COMMIT; \
             DELETE FROM ruled WHERE id = {n} - 2"
        )
    });
    watched.backlog(&rows.collect::<Vec<_>>()).await;
    assert!(watched.fallbacks("order").await > 0.0);
    assert_eq!(watched.fallbacks("constraint").await, 0.0);
    let seen = "SELECT count(*) FILTER (WHERE what = 'insert') || ', ' || count(*) FILTER (WHERE what = 'delete') \
        FROM beside.seen";
    assert_eq!(value(&watched.journey.target, seen).await, "59, 58");
    // The two sides are compared without it.
    execute(&watched.journey.target, &["DROP SCHEMA beside CASCADE"]).await;
    watched.journey.finish().await;
}

/// The story: COPY counts what it took, but COMMIT was sent behind it before
/// that was read. Rows that a trigger left out were gone without a word.
#[tokio::test]
async fn rows_that_a_new_trigger_leaves_out_of_a_copy_stop_the_stream_and_are_not_lost() {
    for trigger in ["BEFORE INSERT ON t", "BEFORE INSERT ON parted_1"] {
        let fixture = "CREATE TABLE t (id int PRIMARY KEY); \
             CREATE TABLE parted (id int PRIMARY KEY) PARTITION BY RANGE (id); \
             CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10000)";
        let mut watched = Watched::of(&[fixture], &[]).await;
        let insert = |from: u32| {
            let rows = format!("SELECT generate_series({from}, {})", from + 999);
            format!("INSERT INTO t {rows}; INSERT INTO parted {rows}")
        };
        // Now both tables have been looked up.
        watched.journey.write(&[&insert(0)]).await;
        let rows = "SELECT (SELECT count(*) FROM t) || ' ' || (SELECT count(*) FROM parted)";
        let target = &watched.journey.target;
        wait_until("the rows are there", PATIENCE, || async move { value(target, rows).await == "1000 1000" }).await;
        execute(
            &watched.journey.target,
            &[
                "CREATE FUNCTION left_out() RETURNS trigger LANGUAGE plpgsql \
                 AS 'BEGIN IF NEW.id % 10 = 7 THEN RETURN NULL; END IF; RETURN NEW; END'",
                &format!("CREATE TRIGGER left_out {trigger} FOR EACH ROW EXECUTE FUNCTION left_out()"),
            ],
        )
        .await;
        execute(&watched.journey.source, &[&insert(1000)]).await;
        let ended = watched.journey.stopped(8);
        assert!(ended.stderr.contains("it affected 0 rows on the target instead of one"), "{}", ended.stderr);
        assert_eq!(watched.journey.value(rows).await, "1000 1000", "nothing of it is there");
        let table = trigger.rsplit(' ').next().unwrap();
        execute(&watched.journey.target, &[&format!("DROP TRIGGER left_out ON {table}")]).await;
        watched.journey.start();
        watched.journey.finish().await;
    }
}

/// The story: the guard behind a COPY asked about the table that was looked up,
/// by its oid. Its successor of the same name had a trigger.
#[tokio::test]
async fn rows_that_the_trigger_of_a_table_made_anew_leaves_out_stop_the_stream_as_well() {
    let plain = "CREATE TABLE t (id int PRIMARY KEY)";
    let parted = "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id); \
         CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10000)";
    for (successor, triggered) in [(plain, "t"), (parted, "t_1")] {
        let mut watched = Watched::of(&[plain], &[]).await;
        watched.journey.write(&["INSERT INTO t SELECT generate_series(0, 999)"]).await;
        let target = &watched.journey.target;
        let rows = "SELECT count(*) FROM t";
        wait_until("the rows are there", PATIENCE, || async move { value(target, rows).await == "1000" }).await;
        execute(
            target,
            &[
                "CREATE FUNCTION left_out() RETURNS trigger LANGUAGE plpgsql \
                 AS 'BEGIN IF NEW.id % 10 = 7 THEN RETURN NULL; END IF; RETURN NEW; END'",
                &format!(
                    "DROP TABLE t; {successor}; INSERT INTO t SELECT generate_series(0, 999); \
                     CREATE TRIGGER left_out BEFORE INSERT ON {triggered} FOR EACH ROW EXECUTE FUNCTION left_out()"
                ),
            ],
        )
        .await;
        execute(&watched.journey.source, &["INSERT INTO t SELECT generate_series(1000, 1999)"]).await;
        let ended = watched.journey.stopped(8);
        assert!(ended.stderr.contains("it affected 0 rows on the target instead of one"), "{}", ended.stderr);
        assert_eq!(watched.journey.value(rows).await, "1000", "nothing of it is there");
        execute(&watched.journey.target, &[&format!("DROP TRIGGER left_out ON {triggered}")]).await;
        watched.journey.start();
        watched.journey.catch_up().await;
        assert_eq!(watched.journey.value(rows).await, "2000");
    }
}

/// Foreign keys that somebody brought in early, or that were kept.
#[tokio::test]
async fn foreign_keys_in_force_on_the_target_want_parents_first_and_circles_the_order_of_the_source() {
    let mut watched = Watched::of(
        &[
            "CREATE TABLE parent (id int PRIMARY KEY)",
            "CREATE TABLE child (id int PRIMARY KEY, parent int NOT NULL REFERENCES parent)",
            "CREATE TABLE pet (id int PRIMARY KEY, child int REFERENCES child ON DELETE CASCADE)",
            "CREATE TABLE post (id int PRIMARY KEY, answers int REFERENCES post)",
            "CREATE TABLE chicken (id int PRIMARY KEY, egg int); CREATE TABLE egg (id int PRIMARY KEY, chicken int)",
            "ALTER TABLE chicken ADD FOREIGN KEY (egg) REFERENCES egg",
            "ALTER TABLE egg ADD FOREIGN KEY (chicken) REFERENCES chicken",
        ],
        &[],
    )
    .await;
    watched
        .journey
        .write(&[
            "INSERT INTO parent SELECT generate_series(5001, 5060)",
            "INSERT INTO child SELECT i, i FROM generate_series(5001, 5060) i",
        ])
        .await;
    watched.journey.catch_up().await;
    execute(
        &watched.journey.target,
        &[
            "ALTER TABLE child ADD FOREIGN KEY (parent) REFERENCES parent",
            "ALTER TABLE pet ADD FOREIGN KEY (child) REFERENCES child ON DELETE CASCADE",
            "ALTER TABLE post ADD FOREIGN KEY (answers) REFERENCES post",
            "ALTER TABLE chicken ADD FOREIGN KEY (egg) REFERENCES egg",
            "ALTER TABLE egg ADD FOREIGN KEY (chicken) REFERENCES chicken",
        ],
    )
    .await;
    let family = (1..60).map(|n| {
        format!(
            "BEGIN; INSERT INTO parent VALUES ({n}), (-{n}); INSERT INTO child VALUES ({n}, {n}); \
             INSERT INTO pet VALUES ({n}, {n}); INSERT INTO post VALUES ({n}, nullif({n} - 1, 0)); COMMIT; \
             BEGIN; UPDATE child SET parent = -{n} WHERE id = {n}; DELETE FROM parent WHERE id = {n}; COMMIT; \
             BEGIN; DELETE FROM child WHERE id = {n} / 2; DELETE FROM parent WHERE id = -({n} / 2); \
             UPDATE post SET answers = NULL WHERE answers = {n} / 2; DELETE FROM post WHERE id = {n} / 2; COMMIT; \
             BEGIN; DELETE FROM child WHERE id = 5000 + {n}; DELETE FROM parent WHERE id = 5000 + {n}; \
             INSERT INTO parent VALUES (5000 + {n}); INSERT INTO child VALUES (5000 + {n}, 5060); COMMIT"
        )
    });
    watched.backlog(&family.collect::<Vec<_>>()).await;
    assert_eq!((watched.fallbacks("order").await, watched.fallbacks("constraint").await), (0.0, 0.0));
    watched.journey.finish().await;
    let circle = (1..20).map(|n| {
        format!(
            "BEGIN; INSERT INTO egg VALUES ({n}, NULL); INSERT INTO chicken VALUES ({n}, {n}); \
             UPDATE egg SET chicken = {n} WHERE id = {n}; COMMIT"
        )
    });
    watched.journey.start();
    watched.backlog(&circle.collect::<Vec<_>>()).await;
    assert!(watched.fallbacks("order").await > 0.0);
    watched.journey.finish().await;
}

#[tokio::test]
async fn a_commit_that_a_deferred_constraint_refuses_stops_at_its_transaction() {
    let mut watched =
        Watched::of(&["CREATE TABLE t (id int PRIMARY KEY, u int); CREATE TABLE other (id int PRIMARY KEY)"], &[])
            .await;
    // Only the target has it: the source cannot keep to it.
    let constraint = "ALTER TABLE t ADD CONSTRAINT once UNIQUE (u) DEFERRABLE INITIALLY DEFERRED";
    watched.journey.catch_up().await;
    execute(&watched.journey.target, &[constraint]).await;
    let mut changes: Vec<String> = (1..40).map(|n| format!("INSERT INTO t VALUES ({n}, {n})")).collect();
    changes.push("INSERT INTO t VALUES (100, 7)".to_owned());
    changes.extend((1..40).map(|n| format!("INSERT INTO other VALUES ({n})")));
    for sql in &changes {
        execute(&watched.journey.source, &[sql]).await;
    }
    watched.journey.start();
    let ended = watched.journey.stopped(7);
    assert!(ended.stderr.contains("a batch was refused; replaying"), "{}", ended.stderr);
    assert!(ended.stderr.contains("once"), "the constraint is not named:\n{}", ended.stderr);
    assert_eq!(watched.journey.value("SELECT count(*) FROM t").await, "39", "all before it is there");
    assert_eq!(watched.journey.value("SELECT count(*) FROM other").await, "0", "and nothing behind it");
    execute(&watched.journey.target, &["ALTER TABLE t DROP CONSTRAINT once"]).await;
    watched.journey.start();
    watched.journey.finish().await;
}

#[tokio::test]
async fn a_large_transaction_whose_net_changes_are_refused_comes_again_row_by_row() {
    let fixtures = [PLAYERS, "CREATE TABLE wide (id int PRIMARY KEY, v text)"];
    let mut journey = Journey::on(Pair::builder().start().await, &fixtures, &["--batch-bytes", "1MiB"]).await;
    let wide = |from: u32| {
        format!("INSERT INTO wide SELECT i, repeat('x', 300) FROM generate_series({from}, {}) i", from + 6000)
    };
    let transaction =
        format!("BEGIN; {}; {}; {}; {}; COMMIT", wide(1), swap("player", 1, 2), swap("player", 3, 4), wide(10_000));
    journey.write(&[&transaction, "INSERT INTO wide VALUES (0, 'behind')"]).await;
    let target = &journey.target;
    wait_until("all of it is there", PATIENCE, || async move {
        value(target, "SELECT count(*) FROM wide WHERE id = 0").await == "1"
    })
    .await;
    let log = journey.log();
    assert!(log.contains("net changes of a large transaction were refused"), "{log}");
    journey.finish().await;
}

/// The story: the values were cast to the column's type, and a cast to
/// `varchar(3)` cuts what an assignment refuses. The target was silently short.
#[tokio::test]
async fn a_value_that_is_too_long_for_the_target_is_refused_and_not_cut() {
    let mut journey = Journey::of(&[
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(10), c char(5), b bit(4), w varbit(9)); INSERT INTO t VALUES (0)",
    ])
    .await;
    for (change, column, kind) in [
        ("INSERT INTO t (id, v) VALUES (1, 'abcdef')", "v", "varchar"),
        ("UPDATE t SET c = 'abcd' WHERE id = 0", "c", "char"),
        ("INSERT INTO t (id, b) VALUES (2, '1010')", "b", "bit"),
        ("UPDATE t SET w = '10101' WHERE id = 0", "w", "varbit"),
    ] {
        journey.catch_up().await;
        execute(&journey.target, &[&format!("ALTER TABLE t ALTER {column} TYPE {kind}(3)")]).await;
        journey.write(&[change]).await;
        journey.start();
        let ended = journey.stopped(7);
        assert!(ended.stderr.contains("public.t"), "{change}: {}", ended.stderr);
        execute(
            &journey.target,
            &[&format!("ALTER TABLE t ALTER {column} TYPE {kind}(10) USING {column}::{kind}(10)")],
        )
        .await;
        if kind == "bit" || kind == "char" {
            let length = if kind == "bit" { 4 } else { 5 };
            let sql = format!("ALTER TABLE t ALTER {column} TYPE {kind}({length}) USING {column}::{kind}({length})");
            execute(&journey.target, &[&sql]).await;
        }
        journey.start();
        journey.finish().await;
    }
}

/// What rows without a key can have: equal ones, NULLs alone, values that are equal to the last
/// byte only if they were read as the stream has them, large ones.
const KEYLESS: [&str; 7] = [
    "CREATE TABLE log (at timestamptz, level text, message text, extra jsonb); ALTER TABLE log REPLICA IDENTITY FULL; \
     INSERT INTO log SELECT '2026-01-01'::timestamptz + i * '1 min'::interval, CASE WHEN i % 3 > 0 THEN 'info' END, 'm' || i % 50, \
     jsonb_build_object('n', i % 7) FROM generate_series(1, 2000) i",
    "CREATE TABLE equal (a int, b text); ALTER TABLE equal REPLICA IDENTITY FULL; \
     INSERT INTO equal SELECT nullif(i % 4, 0), nullif(i % 3, 0)::text FROM generate_series(1, 600) i",
    "CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE DOMAIN short AS varchar(5); \
     CREATE TABLE odd (f float8, q tsquery, p point, n numeric, m mood, s short, c char(4), arr int[], j json, x bytea); \
     ALTER TABLE odd REPLICA IDENTITY FULL; \
     INSERT INTO odd SELECT CASE i % 3 WHEN 0 THEN 'Infinity'::float8 * 0.0::float8 WHEN 1 THEN '-0' ELSE i END, \
         (repeat('a & !(b | c:*A) <-> ', i % 4) || 'd')::tsquery, point(i % 2, 'Infinity'::float8 * 0), (i % 5)::numeric(6, 3), \
         CASE WHEN i % 2 = 0 THEN 'sad' ELSE 'glad' END::mood, 's' || i % 10, 'c' || i % 3, ARRAY[i % 2, NULL], \
         json_build_object('i', i % 6), decode(md5((i % 8)::text), 'hex') FROM generate_series(1, 300) i",
    // Of types that would be copied in binary.
    "CREATE TABLE images (f float8, q tsquery, p point, n int); ALTER TABLE images REPLICA IDENTITY FULL; \
     INSERT INTO images SELECT CASE i % 3 WHEN 0 THEN 'Infinity'::float8 * 0.0::float8 WHEN 1 THEN '-0' ELSE i END, \
         (repeat('a & !(b | c:*A) <-> ', i % 4) || 'd')::tsquery && 'e'::tsquery, point(i % 2, 'Infinity'::float8 * 0), i % 9 \
     FROM generate_series(1, 200) i",
    "CREATE TABLE large (t text, u text); ALTER TABLE large REPLICA IDENTITY FULL; \
     INSERT INTO large SELECT (SELECT string_agg(md5((i % 40 + n)::text), '') FROM generate_series(1, 200) n), repeat('x', i % 2000) \
     FROM generate_series(1, 120) i",
    "CREATE TABLE parted (k int, v text) PARTITION BY LIST (k); CREATE TABLE parted1 PARTITION OF parted FOR VALUES IN (1); \
     CREATE TABLE parted2 PARTITION OF parted DEFAULT; ALTER TABLE parted1 REPLICA IDENTITY FULL; \
     ALTER TABLE parted2 REPLICA IDENTITY FULL; INSERT INTO parted SELECT i % 3, 'v' || i % 9 FROM generate_series(1, 400) i",
    "CREATE TABLE indexed (a int, t text); CREATE INDEX ON indexed (t); ALTER TABLE indexed REPLICA IDENTITY FULL; \
     INSERT INTO indexed SELECT i % 20, 't' || i % 100 FROM generate_series(1, 1000) i",
];

/// The story: each of a thousand changes of a table without a key read the whole of it.
#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_key_are_found_together_to_the_last_byte_and_as_often_as_they_are_meant() {
    let mut watched = Watched::of(&KEYLESS, &[]).await;
    let writes = [
        "UPDATE log SET level = 'warn' WHERE message = 'm7'",
        "DELETE FROM log WHERE extra @> '{\"n\": 3}' OR level IS NULL AND message < 'm3'",
        "INSERT INTO log SELECT at, level, message, extra FROM log WHERE message = 'm9'",
        "UPDATE equal SET b = coalesce(b, '') || 'x' WHERE ctid IN (SELECT ctid FROM equal WHERE a IS NULL LIMIT 20)",
        "DELETE FROM equal WHERE ctid IN (SELECT ctid FROM equal WHERE a IS NULL AND b IS NULL LIMIT 7)",
        "DELETE FROM equal WHERE ctid IN (SELECT ctid FROM equal WHERE a = 1 LIMIT 30)",
        "UPDATE odd SET n = n + 0.001 WHERE f = 'NaN'",
        "DELETE FROM odd WHERE ctid IN (SELECT ctid FROM odd ORDER BY s, f LIMIT 90)",
        "UPDATE odd SET q = 'e'::tsquery && q, c = c || 'y', j = NULL WHERE m = 'sad'",
        "UPDATE images SET n = -n WHERE n % 2 = 0",
        "DELETE FROM images WHERE ctid IN (SELECT ctid FROM images WHERE n = 3 LIMIT 10)",
        "UPDATE large SET u = 'short' WHERE length(u) % 3 = 0",
        "DELETE FROM large WHERE ctid IN (SELECT ctid FROM large ORDER BY md5(t) LIMIT 30)",
        "UPDATE parted SET k = k + 1, v = v || 'z' WHERE v = 'v3'",
        "DELETE FROM parted WHERE ctid IN (SELECT ctid FROM parted2 WHERE k = 0 LIMIT 25)",
        "UPDATE indexed SET a = -a WHERE t < 't5'",
        "BEGIN; INSERT INTO indexed VALUES (1, 'gone'); UPDATE indexed SET a = 2 WHERE t = 'gone'; \
         DELETE FROM indexed WHERE t = 'gone' OR a = 3; COMMIT",
    ];
    watched.backlog(&writes.map(str::to_owned)).await;
    let left = (watched.fallbacks("count").await, watched.fallbacks("order").await, watched.ordered().await);
    assert_eq!(left, (0.0, 0.0, 0.0), "all of it was done by nets");
    watched.journey.finish().await;
}

/// Rows that are equal stand for each other, but not for one that is not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_a_key_that_the_target_lacks_stops_also_where_an_equal_one_comes_behind_it() {
    let setup = "CREATE TABLE t (a int, b text); ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, 'x'), (1, 'x'), (2, 'y')";
    let mut journey = Journey::of(&[setup]).await;
    journey.catch_up().await;
    execute(&journey.target, &["DELETE FROM t WHERE ctid IN (SELECT ctid FROM t WHERE a = 1 LIMIT 1)"]).await;
    journey.write(&["BEGIN; DELETE FROM t WHERE a = 1; INSERT INTO t VALUES (1, 'x'), (1, 'x'); COMMIT"]).await;
    let stopped = journey.catch_up_again().code(8).stderr;
    assert!(stopped.contains("cannot apply DELETE on public.t") && stopped.contains("0 rows"), "{stopped}");
    execute(&journey.target, &["INSERT INTO t VALUES (1, 'x')"]).await;
    journey.finish().await;
}
