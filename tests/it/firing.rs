//! What acts on rows only where walferry writes: triggers and rules that are ENABLE
//! REPLICA or ENABLE ALWAYS, row security that is forced upon the owner, and foreign keys
//! that are the operator's.

use tokio_postgres::Client;
use walferry::demo::cluster::SUPERUSER;

use crate::journey::{KEYS_OF_PUBLIC, PATIENCE, execute, value};
use crate::story::Story;
use crate::support::pair::{DATABASE, Pair, TargetRole};
use crate::support::process::{Finished, Walferry, command_for};
use crate::support::{assert_equal, some_of};

/// A trigger and a rule of each kind.
const FIRING: &str = "
    CREATE TABLE tr (id int PRIMARY KEY, v text); CREATE TABLE ta (LIKE tr INCLUDING ALL);
    CREATE TABLE rr (LIKE tr INCLUDING ALL); CREATE TABLE ra (LIKE tr INCLUDING ALL);
    CREATE TABLE said (id int, what text); ALTER TABLE said REPLICA IDENTITY FULL;
    CREATE FUNCTION louder() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := NEW.v || ''!''; RETURN NEW; END';
    CREATE TRIGGER louder BEFORE INSERT OR UPDATE ON tr FOR EACH ROW EXECUTE FUNCTION louder();
    CREATE TRIGGER louder BEFORE INSERT OR UPDATE ON ta FOR EACH ROW EXECUTE FUNCTION louder();
    CREATE RULE says AS ON INSERT TO rr DO ALSO INSERT INTO said VALUES (NEW.id, 'rr');
    CREATE RULE says AS ON INSERT TO ra DO ALSO INSERT INTO said VALUES (NEW.id, 'ra');
    ALTER TABLE tr ENABLE REPLICA TRIGGER louder; ALTER TABLE ta ENABLE ALWAYS TRIGGER louder;
    ALTER TABLE rr ENABLE REPLICA RULE says; ALTER TABLE ra ENABLE ALWAYS RULE says;
    CREATE TABLE divided (id int PRIMARY KEY); CREATE MATERIALIZED VIEW bad AS SELECT 1 / id AS n FROM divided";

fn writes(n: i32) -> String {
    let insert = |table: &&str| {
        format!("INSERT INTO {table} VALUES ({n}1, 'a'), ({n}2, 'b'); UPDATE {table} SET v = 'c' WHERE id = {n}1;")
    };
    ["tr", "ta", "rr", "ra"].iter().map(insert).collect()
}

/// When each of them fires.
const WHEN: &str = "SELECT string_agg(x, ' ' ORDER BY x) FROM (
    SELECT tgrelid::regclass || '.' || tgname || ' ' || tgenabled::text FROM pg_trigger WHERE tgname = 'louder'
    UNION ALL SELECT ev_class::regclass || '.' || rulename || ' ' || ev_enabled::text FROM pg_rewrite WHERE rulename = 'says') f (x)";

const ALL: &str = "ra.says A rr.says R ta.louder A tr.louder R";

/// The story: a role that may set session_replication_role does, and what fires for a
/// replica alone fired over rows that the source had not sent through it. Such a trigger or
/// rule was left as it was where the schema is there already, and after an end that failed.
/// Every command ended with 0, and the rows differed.
#[tokio::test(flavor = "multi_thread")]
async fn what_fires_for_a_replica_or_always_waits_for_the_end_and_comes_back_as_it_was() {
    for (role, mode) in
        [(TargetRole::DoWrapped, "existing"), (TargetRole::Do, "existing"), (TargetRole::DoWrapped, "create")]
    {
        let pair = Pair::builder().target_role(role).start().await;
        if mode == "existing" {
            execute(&pair.target_client().await, &[FIRING]).await;
        }
        let setup = format!("{FIRING}; {}; INSERT INTO divided VALUES (1)", writes(1));
        let story = Story::on(pair, &setup, &["--schema", mode]).await;
        story.source(&writes(2)).await;
        story.ends_equal().await;
        story.source("INSERT INTO divided VALUES (0)").await;
        let failed = story.run(&["catchup", "--finish"], 7);
        assert!(failed.stderr.contains("division by zero"), "{}", failed.stderr);
        assert_eq!(value(&story.target, WHEN).await, ALL, "{mode}");
        story.source(&format!("DELETE FROM divided WHERE id = 0; {}", writes(3))).await;
        story.ends_equal().await;
        story.source(&writes(4)).await;
        story.run(&["catchup", "--finish"], 0);
        assert_eq!(value(&story.target, WHEN).await, ALL, "{mode}");
        story.pair.assert_equal().await;
    }
}

fn none(pair: &Pair, command: &[&str], code: i32) -> Finished {
    Walferry::run(pair, &[command, &["--schema", "none"]].concat(), PATIENCE).code(code)
}

/// What `check` prints to be run on the target, from this word on.
async fn do_what_check_says(target: &Client, said: &str, verb: &str) {
    let all: Vec<&str> =
        said.lines().map(str::trim).filter(|line| line.starts_with("ALTER TABLE") && line.contains(verb)).collect();
    assert_ne!(all, [""; 0], "no {verb} in:\n{said}");
    execute(target, &all).await;
}

/// The story: with `--schema none` `check` said that triggers are quiet, and those that
/// fire for a replica or always went over every row.
#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_triggers_and_rules_that_fire_where_the_schema_is_the_operators() {
    let quiet = "foreign keys and triggers are quiet";
    for (role, named, others) in some_of([
        (TargetRole::DoWrapped, ["tr", "ta", "rr", "ra"].as_slice(), ["o"].as_slice()),
        (TargetRole::Do, ["ta", "ra", "o"].as_slice(), ["tr", "rr"].as_slice()),
    ]) {
        let pair = Pair::builder().target_role(role).start().await;
        let ordinary = "CREATE TABLE o (LIKE tr INCLUDING ALL); CREATE TRIGGER louder BEFORE INSERT ON o FOR EACH ROW EXECUTE FUNCTION louder()";
        let target = pair.target_client().await;
        for client in [&pair.source_client().await, &target] {
            execute(client, &[FIRING, ordinary]).await;
        }
        pair.source_sql(&writes(1)).await;
        let said = none(&pair, &["check"], 0).stdout;
        assert!(!said.contains(quiet), "{said}");
        for (tables, is_named) in [(named, true), (others, false)] {
            for table in tables {
                let disable = format!("ALTER TABLE ONLY \"public\".\"{table}\" DISABLE ");
                assert_eq!(said.contains(&disable), is_named, "{disable} in:\n{said}");
            }
        }
        assert!(said.contains("ENABLE ALWAYS TRIGGER \"louder\""), "{said}");
        do_what_check_says(&target, &said, " DISABLE ").await;
        let said = none(&pair, &["check"], 0).stdout;
        assert!(!said.contains(" DISABLE "), "{said}");
        assert_eq!(said.contains(quiet), matches!(role, TargetRole::DoWrapped), "{said}");
        none(&pair, &["run", "--until", "caught-up"], 0);
        pair.source_sql(&writes(2)).await;
        none(&pair, &["catchup", "--finish"], 0);
        execute(&target, &["REFRESH MATERIALIZED VIEW bad"]).await;
        pair.assert_equal().await;
    }
}

/// The story: row security came in with an end that then failed for a view, and was in
/// force for the tables' owner. Every change behind it was refused; the server's hint led
/// to an end with 0 that had lost FORCE, or, of an unlogged table, nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn row_security_that_is_forced_waits_again_after_an_end_that_failed() {
    let forced = "ALTER TABLE # ENABLE ROW LEVEL SECURITY; ALTER TABLE # FORCE ROW LEVEL SECURITY; CREATE POLICY p ON # USING (id < 15)";
    let setup = format!(
        "CREATE TABLE a (id int PRIMARY KEY, d int); INSERT INTO a SELECT i, i FROM generate_series(1, 20) i;
         CREATE UNLOGGED TABLE u (id int PRIMARY KEY); INSERT INTO u SELECT generate_series(1, 20);
         CREATE TABLE p_a (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p_a FOR VALUES FROM (0) TO (100);
         INSERT INTO p_a SELECT generate_series(1, 20); {}; {}; {};
         CREATE TABLE z (id int PRIMARY KEY); INSERT INTO z VALUES (1);
         CREATE MATERIALIZED VIEW bad AS SELECT 1 / z.id AS n, a.d FROM z, a",
        forced.replace('#', "a"),
        forced.replace('#', "u"),
        forced.replace('#', "p_1"),
    );
    for acting in some_of([
        "",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER t AFTER INSERT ON u FOR EACH ROW EXECUTE FUNCTION f()",
    ]) {
        let story = Story::of(&format!("{setup}; {acting}"), &[]).await;
        story.source("INSERT INTO z VALUES (0)").await;
        let failed = story.run(&["catchup", "--finish"], 7);
        assert!(failed.stderr.contains("division by zero"), "{}", failed.stderr);
        story.source("DELETE FROM z WHERE id = 0; INSERT INTO a VALUES (2000, 1); UPDATE a SET d = 5 WHERE id IN (3, 18); DELETE FROM a WHERE id = 17; INSERT INTO p_a VALUES (50)").await;
        story.run(&["check"], 0);
        story.run(&["resync", "a"], 0);
        story.run(&["catchup"], 0);
        story.source("INSERT INTO a VALUES (2001, 1)").await;
        story.run(&["catchup", "--finish"], 0);
        let all = "SELECT string_agg(relname || relrowsecurity || relforcerowsecurity, ' ' ORDER BY relname) FROM pg_class WHERE relname IN ('a', 'u', 'p_1')";
        assert_eq!(value(&story.target, all).await, "atruetrue p_1truetrue utruetrue");
        // As superusers, who see all rows.
        let (source, target) = (&story.pair.source, &story.pair.target);
        assert_equal(&source.socket_uri(SUPERUSER, DATABASE), &target.socket_uri(SUPERUSER, DATABASE)).await;
    }
}

const KEYS: &str =
    "CREATE TABLE par (id int PRIMARY KEY, v text); CREATE TABLE chi (id int PRIMARY KEY, p int REFERENCES par);
    CREATE TABLE self (id int PRIMARY KEY, up int REFERENCES self)";

const ROWS: &str = "INSERT INTO par SELECT i, 'p' FROM generate_series(1, 300) i;
    INSERT INTO chi SELECT i, i % 300 + 1 FROM generate_series(1, 8000) i; INSERT INTO self VALUES (2, NULL), (1, 2)";

/// Nothing of ours is on either side.
async fn assert_untouched(pair: &Pair) {
    let source = pair.source_client().await;
    let left = "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots)";
    assert_eq!(value(&source, left).await, "0");
    assert_eq!(value(&pair.target_client().await, "SELECT to_regnamespace('walferry') IS NULL").await, "t");
}

/// A copy that is cut off between two tables.
fn cut_off(pair: &Pair, mode: &str) {
    let mut command = command_for(pair, &["run", "--schema", mode, "--jobs", "1"]);
    command.env("WALFERRY_FAILPOINT", "copy-before-commit:2");
    Walferry::spawn(command).wait(PATIENCE);
}

/// The story: `check` was ready, and the copy ended with a child's row that came before its
/// parent's; from then on no run could empty the parent: "cannot truncate a table referenced
/// in a foreign key constraint", for ever.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_would_refuse_rows_that_are_copied_are_said_before_anything_is_created() {
    let pair = Pair::builder().start().await;
    let target = pair.target_client().await;
    let parted = "CREATE TABLE parted (id int PRIMARY KEY, p int REFERENCES par) PARTITION BY RANGE (id);
        CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (9)";
    for sql in [KEYS, parted, ROWS] {
        pair.source_sql(sql).await;
    }
    execute(&target, &[KEYS, parted]).await;
    let said = none(&pair, &["check"], 3).stdout;
    let refused = none(&pair, &["run", "--until", "caught-up"], 3).stderr;
    let drop = |table: &str, key: &str| format!("ALTER TABLE \"public\".\"{table}\" DROP CONSTRAINT \"{key}\";");
    let add = "ALTER TABLE \"public\".\"chi\" ADD CONSTRAINT \"chi_p_fkey\" FOREIGN KEY (p) REFERENCES public.par(id);";
    let (of_self, of_parted) = (drop("self", "self_up_fkey"), drop("parted", "parted_p_fkey"));
    for words in [&drop("chi", "chi_p_fkey"), &of_self, &of_parted, add, "--schema existing"] {
        assert!(said.contains(words) && refused.contains(words), "no {words} in:\n{said}\n{refused}");
    }
    assert_eq!(said.matches(" DROP CONSTRAINT ").count(), 3, "{said}");
    assert_untouched(&pair).await;
    // What it prints leads to the end, also where the copy is cut off.
    do_what_check_says(&target, &said, " DROP CONSTRAINT ").await;
    none(&pair, &["check"], 0);
    cut_off(&pair, "none");
    // Somebody brings them back too early.
    let early = add.replace(';', " NOT VALID;");
    execute(&target, &[&early]).await;
    let refused = none(&pair, &["run", "--until", "caught-up"], 7).stderr;
    for words in [&drop("chi", "chi_p_fkey"), &early] {
        assert!(refused.contains(words), "no {words} in:\n{refused}");
    }
    assert_eq!(none(&pair, &["check"], 3).stdout.matches(" DROP CONSTRAINT ").count(), 1);
    execute(&target, &[&drop("chi", "chi_p_fkey")]).await;
    none(&pair, &["run", "--until", "caught-up"], 0);
    none(&pair, &["catchup", "--finish"], 0);
    execute(&target, &[add]).await;
    pair.assert_equal().await;
}

/// The story: `--schema existing`, as `check` advised, did not help a copy that had begun
/// with `--schema none`.
#[tokio::test(flavor = "multi_thread")]
async fn keys_are_held_back_where_the_schema_exists_also_of_a_copy_that_began_otherwise() {
    for begun in some_of(["existing", "none"]) {
        let pair = Pair::builder().start().await;
        let target = pair.target_client().await;
        pair.source_sql(KEYS).await;
        pair.source_sql(ROWS).await;
        let add = KEYS.replace("REFERENCES par", "").replace("REFERENCES self", "");
        execute(&target, &[if begun == "none" { &add } else { KEYS }]).await;
        cut_off(&pair, begun);
        if begun == "none" {
            let keys = "ALTER TABLE chi ADD FOREIGN KEY (p) REFERENCES par NOT VALID; ALTER TABLE self ADD FOREIGN KEY (up) REFERENCES self NOT VALID";
            execute(&target, &[keys]).await;
        }
        let existing =
            |command: &[&str]| Walferry::run(&pair, &[command, &["--schema", "existing"]].concat(), PATIENCE);
        existing(&["check"]).code(0);
        existing(&["run", "--until", "caught-up"]).code(0);
        pair.source_sql("DELETE FROM chi WHERE p = 7; DELETE FROM par WHERE id = 7").await;
        existing(&["catchup", "--finish"]).code(0);
        pair.assert_equal().await;
        assert_eq!(value(&target, KEYS_OF_PUBLIC).await, "2");
    }
}
