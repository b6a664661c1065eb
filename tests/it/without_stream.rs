//! What has no stream: unlogged tables, materialized views, foreign tables.
//! Said by `check` and `status`, brought in by `catchup --finish`.

use serde_json::Value;
use tokio_postgres::Client;
use walferry::demo::cluster::SUPERUSER;

use crate::journey::{KEYS_OF_PUBLIC, execute, value};
use crate::migration::{PATIENCE, streaming, until_applied};
use crate::story::Story;
use crate::support::pair::{APP, DATABASE, Pair, PairBuilder, SourceRole, TargetRole};
use crate::support::process::{Finished, Walferry, command_for};
use crate::support::{oldest_and_newest, some_of};

/// Unlogged tables with what they can have, their names against the order of
/// their keys; views over views, their names against the order of reading.
const TABLES: &str = "
    CREATE TABLE customer (id int PRIMARY KEY, name text);
    CREATE UNLOGGED TABLE visit (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int REFERENCES customer,
        n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
    CREATE UNLOGGED TABLE click (id serial PRIMARY KEY, visit int NOT NULL REFERENCES visit ON DELETE CASCADE);
    CREATE TABLE event (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE event_1 PARTITION OF event FOR VALUES FROM (0) TO (10);
    CREATE UNLOGGED TABLE event_2 PARTITION OF event FOR VALUES FROM (10) TO (20);
    CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.n := NEW.n + 100; RETURN NEW; END';
    CREATE TRIGGER counted BEFORE INSERT ON visit FOR EACH ROW EXECUTE FUNCTION counted();
    CREATE MATERIALIZED VIEW visits AS SELECT count(*) AS n FROM visit;
    CREATE MATERIALIZED VIEW a_copy AS SELECT n FROM visits;
    CREATE VIEW between AS SELECT n FROM a_copy;
    CREATE MATERIALIZED VIEW a_a_copy AS SELECT n FROM between;
    CREATE MATERIALIZED VIEW bare AS SELECT count(*) AS n FROM visit WITH NO DATA;
    CREATE MATERIALIZED VIEW filled_later AS SELECT count(*) AS n FROM visit WITH NO DATA";

const ROWS: &str = "
    INSERT INTO customer SELECT i, 'Ada' FROM generate_series(1, 10) i;
    INSERT INTO visit (customer, n) SELECT 1 + i % 10, i FROM generate_series(1, 500) i;
    INSERT INTO click (visit) SELECT 1 + i % 500 FROM generate_series(1, 900) i;
    INSERT INTO event SELECT i, i % 20 FROM generate_series(1, 400) i";

const REFRESH: &str =
    "REFRESH MATERIALIZED VIEW visits; REFRESH MATERIALIZED VIEW a_copy; REFRESH MATERIALIZED VIEW a_a_copy";

/// The publication for a role that may not make one.
const PUBLICATION: &str = "CREATE PUBLICATION prepared FOR TABLE customer, event";

const RELATIONS: [&str; 8] = ["customer", "visit", "click", "event_1", "event_2", "visits", "a_a_copy", "filled_later"];

async fn pair_of(builder: PairBuilder) -> Pair {
    let pair = builder.start().await;
    for sql in [TABLES, ROWS, REFRESH] {
        pair.source_sql(sql).await;
    }
    pair
}

async fn rows_of(client: &Client, relation: &str) -> String {
    let sum = "md5(string_agg(t::text, ' ' ORDER BY t::text))";
    let sql = format!("SELECT CASE count(*) WHEN 0 THEN 'none' ELSE count(*) || ' ' || {sum} END FROM {relation} t");
    value(client, &sql).await
}

async fn assert_same(pair: &Pair, relations: &[&str]) {
    let (source, target) = (pair.source_client().await, pair.target_client().await);
    for relation in relations {
        assert_eq!(rows_of(&target, relation).await, rows_of(&source, relation).await, "{relation}");
    }
}

/// `kind name state` of everything without a stream, as the status has it.
fn listed(pair: &Pair) -> Vec<String> {
    let document = Walferry::run(pair, &["status", "--json"], PATIENCE).code(0).json();
    let entry = |entry: &Value| {
        let word = |key: &str| entry[key].as_str().unwrap().to_owned();
        let is_done = matches!(entry["state"].as_str(), Some("copied" | "refreshed"));
        assert_eq!(entry["at"].is_string(), is_done, "{entry}");
        format!("{} {} {}", word("kind"), word("name"), word("state"))
    };
    document["without_stream"].as_array().unwrap().iter().map(entry).collect()
}

/// A journey with the publication of its own that a role may need.
struct Journey<'a> {
    pair: Pair,
    publication: &'a [&'a str],
}

impl Journey<'_> {
    fn run(&self, arguments: &[&str]) -> Finished {
        Walferry::run(&self.pair, &[arguments, self.publication].concat(), PATIENCE)
    }

    async fn up_to_the_end(&self) {
        let Journey { pair, publication } = self;
        let run = |arguments: &[&str]| self.run(arguments);
        let check = run(&["check"]).code(0).stdout;
        for words in [
            "copied whole at the end, when nothing is written (catchup --finish): public.click, public.event_2, public.visit",
            "but for those without data: public.a_a_copy, public.a_copy, public.bare, public.filled_later, public.visits",
        ] {
            assert!(check.contains(words), "no \"{words}\" in:\n{check}");
        }
        let daemon = streaming(pair, publication).await;
        let waiting = [
            "materialized view a_a_copy waiting",
            "materialized view a_copy waiting",
            "materialized view bare left alone",
            "materialized view filled_later left alone",
            "materialized view visits waiting",
            "unlogged table click waiting",
            "unlogged table event_2 waiting",
            "unlogged table visit waiting",
        ];
        assert_eq!(listed(pair), waiting);
        pair.source_sql("UPDATE visit SET n = 7 WHERE id < 9; DELETE FROM click WHERE id < 5; INSERT INTO event VALUES (1000, 1), (1000, 15)").await;
        pair.source_sql("INSERT INTO visit (customer, n) VALUES (2, 3); REFRESH MATERIALIZED VIEW filled_later").await;
        pair.source_sql(REFRESH).await;
        until_applied(pair).await;
        daemon.terminate(PATIENCE).code(0);

        let caught_up = run(&["catchup"]).code(0);
        let words = "public.click, public.event_2, public.visit, public.visits, public.a_copy, public.a_a_copy";
        assert!(
            caught_up.stderr.contains("not on the target before catchup --finish") && caught_up.stderr.contains(words),
            "{}",
            caught_up.stderr
        );
        let target = pair.target_client().await;
        assert_eq!(rows_of(&target, "visit").await, "none");
        let status = Walferry::run(pair, &["status"], PATIENCE).code(0).stdout;
        assert!(status.contains("unlogged table public.visit  waits for catchup --finish"), "{status}");
        let refused = run(&["cleanup"]).code(2).stderr;
        assert!(refused.contains("rows of unlogged table public.visit") && refused.contains("REFRESH"), "{refused}");
    }

    async fn the_end_and_after_it(&self) {
        let pair = &self.pair;
        let run = |arguments: &[&str]| self.run(arguments);
        let target = pair.target_client().await;
        let report = run(&["catchup", "--finish", "--json"]).code(0).json();
        assert_eq!(report["unlogged_tables"], 3, "{report}");
        assert_same(pair, &RELATIONS).await;
        assert_eq!(value(&target, "SELECT relispopulated FROM pg_class WHERE relname = 'bare'").await, "f");
        for sequence in ["visit_id_seq", "click_id_seq"] {
            let next = format!("SELECT last_value || ' ' || is_called FROM {sequence}");
            assert_eq!(value(&target, &next).await, value(&pair.source_client().await, &next).await, "{sequence}");
        }
        let done = [
            "materialized view a_a_copy refreshed",
            "materialized view a_copy refreshed",
            "materialized view bare left alone",
            "materialized view filled_later refreshed",
            "materialized view visits refreshed",
            "unlogged table click copied",
            "unlogged table event_2 copied",
            "unlogged table visit copied",
        ];
        assert_eq!(listed(pair), done);

        // The target is the application's now: what it writes stays.
        execute(&target, &["INSERT INTO visit (customer, n) VALUES (1, 1)"]).await;
        let mine = rows_of(&target, "visit").await;
        let again = run(&["catchup", "--finish"]).code(3);
        assert!(again.stderr.contains("has ended"), "{}", again.stderr);
        assert_eq!(rows_of(&target, "visit").await, mine);
        run(&["cleanup"]).code(0);
    }
}

async fn journey(builder: PairBuilder, publication: &[&str]) {
    let pair = pair_of(builder).await;
    if !publication.is_empty() {
        pair.source_sql(PUBLICATION).await;
    }
    let journey = Journey { pair, publication };
    journey.up_to_the_end().await;
    journey.the_end_and_after_it().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_stream_is_named_all_the_way_and_comes_at_the_end() {
    journey(Pair::builder(), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_stream_comes_to_a_newer_server_as_well() {
    let (oldest, newest) = oldest_and_newest();
    journey(Pair::builder().servers(&oldest, &newest), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_stream_needs_no_more_rights_than_the_rest() {
    let builder = Pair::builder().source_role(SourceRole::Restricted).target_role(TargetRole::Fly);
    journey(builder, &["--publication", "prepared"]).await;
}

/// The story: an end that failed for one thing and was run again, the source
/// having been written to in between, would have left the rest as it was.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_run_again_leaves_the_rows_of_unlogged_tables_unless_it_is_asked_for() {
    let pair = pair_of(Pair::builder()).await;
    pair.source_sql("CREATE MATERIALIZED VIEW a_bad AS SELECT 100 / min(id) AS n FROM customer").await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    pair.source_sql("INSERT INTO customer VALUES (0, 'nobody')").await;
    let refused = Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(7);
    for words in ["1 deferred object", "restore the data of materialized view public.a_bad", "division by zero"] {
        assert!(refused.stderr.contains(words), "no \"{words}\" in:\n{}", refused.stderr);
    }
    assert_same(&pair, &RELATIONS[..7]).await;
    let target = pair.target_client().await;
    assert_eq!(value(&target, KEYS_OF_PUBLIC).await, "2");

    pair.source_sql(
        "DELETE FROM customer WHERE id = 0; INSERT INTO visit (customer, n) SELECT 1, 1 FROM generate_series(1, 10)",
    )
    .await;
    pair.source_sql("INSERT INTO click (visit) SELECT max(id) FROM visit; DELETE FROM visit WHERE id < 10").await;
    pair.source_sql(REFRESH).await;
    // Their rows may be the application's by now: they are copied again only when that is asked for.
    let kept = rows_of(&target, "visit").await;
    let finished = Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(8);
    let again = "UPDATE walferry.deferred SET restored_at = NULL WHERE migration = 'walferry' AND kind = 'unlogged table'; \
         UPDATE walferry.migration SET finished_at = NULL WHERE name = 'walferry'";
    assert!(finished.stderr.contains(again), "{}", finished.stderr);
    assert_eq!(rows_of(&target, "visit").await, kept);
    assert_same(&pair, &["customer", "event_1", "a_bad"]).await;
    execute(&target, &[again]).await;
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    assert_same(&pair, &RELATIONS[..7]).await;
    assert_eq!(value(&target, "SELECT tgenabled FROM pg_trigger WHERE tgname = 'counted'").await, "O");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_killed_leaves_unlogged_tables_empty_and_goes_on() {
    let pair = pair_of(Pair::builder()).await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let mut command = command_for(&pair, &["catchup", "--finish"]);
    command.env("WALFERRY_FAILPOINT", "unlogged-before-commit:1");
    Walferry::spawn(command).wait(PATIENCE);
    let target = pair.target_client().await;
    for table in ["visit", "click", "event_2"] {
        assert_eq!(rows_of(&target, table).await, "none", "{table}");
    }
    assert!(listed(&pair).contains(&"unlogged table visit waiting".to_owned()));
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    assert_same(&pair, &RELATIONS[..7]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_views_that_exist_are_filled_at_the_end_and_views_left_alone_without_a_schema_of_ours() {
    for (mode, views) in some_of([("existing", "refreshed"), ("none", "left alone")]) {
        let pair = pair_of(Pair::builder()).await;
        let target = pair.target_client().await;
        let mut tables = TABLES.replace(" AS SELECT n FROM between", " AS SELECT n FROM between WITH NO DATA");
        if mode == "none" {
            // In force all the time: it would be fired by the copy.
            tables = tables.replace("CREATE TRIGGER counted BEFORE INSERT", "CREATE TRIGGER counted BEFORE UPDATE");
        }
        execute(&target, &[&tables, "INSERT INTO visit (n) VALUES (1)"]).await;
        let check = Walferry::run(&pair, &["check", "--schema", mode], PATIENCE).code(3);
        assert!(check.stdout.contains("have rows: public.visit"), "{}", check.stdout);
        let arguments = ["run", "--until", "caught-up", "--schema", mode];
        let refused = Walferry::run(&pair, &arguments, PATIENCE).code(3);
        assert!(refused.stderr.contains("TRUNCATE ONLY \"public\".\"visit\""), "{}", refused.stderr);
        execute(&target, &["DELETE FROM visit"]).await;
        Walferry::run(&pair, &arguments, PATIENCE).code(0);
        let finish = ["catchup", "--finish", "--schema", mode];
        Walferry::run(&pair, &finish, PATIENCE).code(0);
        assert_same(&pair, &RELATIONS[..5]).await;
        let state = listed(&pair).into_iter().find(|line| line.contains("a_a_copy")).unwrap();
        assert_eq!(state, format!("materialized view a_a_copy {views}"));
        if mode == "existing" {
            assert_same(&pair, &["visits", "a_copy", "a_a_copy"]).await;
            assert_eq!(value(&target, "SELECT tgenabled FROM pg_trigger WHERE tgname = 'counted'").await, "O");
        } else {
            let filled = "SELECT relispopulated FROM pg_class WHERE relname = 'a_a_copy'";
            assert_eq!(value(&target, filled).await, "f");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_leaves_unlogged_tables_and_the_views_over_them_out() {
    let pair = pair_of(Pair::builder()).await;
    let filter = ["--exclude-tables", "public.visit,public.click"];
    Walferry::run(&pair, &[&["run", "--until", "caught-up"], &filter[..]].concat(), PATIENCE).code(0);
    let report =
        Walferry::run(&pair, &[&["catchup", "--finish", "--json"], &filter[..]].concat(), PATIENCE).code(0).json();
    assert_eq!(report["unlogged_tables"], 1, "{report}");
    assert_same(&pair, &["event_1", "event_2"]).await;
    assert_eq!(listed(&pair), ["unlogged table event_2 copied"]);
}

/// The story: its rows were in no copy, as it was unlogged, and in no stream,
/// as they were written before it was logged.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_logged_after_the_copy_is_not_passed_over() {
    for publication in some_of([None, Some("CREATE PUBLICATION walferry FOR TABLE customer, event")]) {
        let pair = pair_of(Pair::builder()).await;
        if let Some(sql) = publication {
            pair.source_sql(sql).await;
        }
        Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
        pair.source_sql("ALTER TABLE click SET UNLOGGED; ALTER TABLE event_2 SET LOGGED").await;
        let refused = Walferry::run(&pair, &["catchup"], PATIENCE).code(8);
        assert!(refused.stderr.contains("public.event_2 was unlogged and is logged by now"), "{}", refused.stderr);
        Walferry::run(&pair, &["add", "public.event_2"], PATIENCE).code(0);
        Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
        assert_same(&pair, &RELATIONS[..5]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_tables_are_named_with_what_their_servers_need() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER far FOREIGN DATA WRAPPER nothing; \
         CREATE USER MAPPING FOR app SERVER far; CREATE FOREIGN TABLE moon (id int) SERVER far; \
         CREATE TABLE earth (id int PRIMARY KEY); INSERT INTO earth VALUES (1)",
    )
    .await;
    let (grant, role) = ("GRANT USAGE ON FOREIGN DATA WRAPPER \"nothing\" TO \"doadmin\";", "CREATE ROLE \"app\";");
    let check = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
    for words in ["foreign tables have their rows elsewhere", "public.moon", grant, role] {
        assert!(check.contains(words), "no \"{words}\" in:\n{check}");
    }
    let wrapper = "CREATE FOREIGN DATA WRAPPER nothing";
    pair.target.psql(SUPERUSER, DATABASE, &format!("{wrapper}; {}", role.replace("\"app\"", APP))).unwrap();
    let check = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
    assert!(check.contains(grant) && !check.contains(role), "{check}");
    pair.target.psql(SUPERUSER, DATABASE, grant).unwrap();
    Walferry::run(&pair, &["check"], PATIENCE).code(0);
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    assert_eq!(listed(&pair), ["foreign table moon elsewhere"]);
    assert_same(&pair, &["earth"]).await;
}

/// The story: `add` was printed of an unlogged table that had been made anew, and refused.
#[tokio::test]
async fn an_unlogged_table_that_was_created_again_comes_at_the_end_behind_what_is_printed() {
    let setup =
        "CREATE UNLOGGED TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1); CREATE TABLE t (id int PRIMARY KEY)";
    let story = Story::of(setup, &[]).await;
    story.source("DROP TABLE u; CREATE UNLOGGED TABLE u (k text PRIMARY KEY); INSERT INTO u VALUES ('new')").await;
    let said = story.run(&["catchup"], 8);
    assert!(said.stderr.contains("DROP TABLE \"public\".\"u\"; then the end brings the new one"), "{}", said.stderr);
    story.do_as_printed(&said, "DROP TABLE \"public\".\"u\"").await;
    story.run(&["catchup", "--finish"], 0);
    story.pair.assert_equal().await;
}

/// What is at the end goes by its present schema.
#[tokio::test]
async fn a_materialized_view_whose_schema_is_renamed_is_filled_at_the_end() {
    let setup = "CREATE SCHEMA a; CREATE TABLE a.t (id int PRIMARY KEY); INSERT INTO a.t VALUES (1); \
         CREATE MATERIALIZED VIEW a.m AS SELECT id FROM a.t; CREATE UNLOGGED TABLE a.u (id int PRIMARY KEY); \
         INSERT INTO a.u VALUES (5)";
    let story = Story::of(setup, &[]).await;
    let rename = "ALTER SCHEMA a RENAME TO b";
    story.source(&format!("{rename}; INSERT INTO b.t VALUES (2); REFRESH MATERIALIZED VIEW b.m")).await;
    story.target.batch_execute(rename).await.unwrap();
    story.run(&["catchup", "--finish"], 0);
    story.pair.assert_equal().await;
    assert_eq!(value(&story.target, "SELECT count(*)::text FROM b.m").await, "2");
}
