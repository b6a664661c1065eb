//! Sequences of the target that are not the migration's: what the source makes, renames or
//! moves after the copy never sets a value on one that has the name there by chance.
//!
//! The story of the first: a sequence that was created on the source took over another
//! application's by its name, set it back, and that got numbers a second time.

use crate::journey::value;
use crate::story::Story;
use crate::support::pair::Pair;
use crate::support::some_of;

/// Somebody's on the target, with a table of theirs and without.
const THEIRS: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, v text); \
    CREATE SEQUENCE counter OWNED BY orders.id; \
    ALTER TABLE orders ALTER id SET DEFAULT nextval('counter'); \
    INSERT INTO orders (v) SELECT 'x' FROM generate_series(1, 500); \
    CREATE SEQUENCE ticket; SELECT setval('ticket', 41)";

const OURS: &str =
    "CREATE TABLE t (id serial PRIMARY KEY, v text); CREATE SEQUENCE kept; INSERT INTO t (v) VALUES ('a')";

/// What somebody's sequences are at, and what owns one.
const STATE_OF_THEIRS: &str = "SELECT (SELECT last_value FROM counter) || ' ' || (SELECT last_value FROM ticket) || ' ' || \
    coalesce(pg_get_serial_sequence('orders', 'id'), 'none')";

async fn assert_theirs_are_untouched(story: &Story) {
    assert_eq!(value(&story.target, STATE_OF_THEIRS).await, "500 41 public.counter");
}

/// Two rounds of passes, as a second one goes by what the first has recorded.
async fn refuses_again_and_again(story: &Story) -> String {
    let mut said = String::new();
    for _ in 0..2 {
        story.run(&["run", "--until", "caught-up", "--sequence-interval", "100ms"], 0);
        said = story.run(&["catchup"], 8).stderr;
        assert_theirs_are_untouched(story).await;
    }
    said
}

#[tokio::test]
async fn a_new_sequence_does_not_take_over_what_has_its_name_on_the_target() {
    for arguments in some_of([&[][..], &["--schema", "existing"]]) {
        let pair = Pair::builder().start().await;
        if !arguments.is_empty() {
            pair.target_client()
                .await
                .batch_execute(
                    "CREATE TABLE t (id serial PRIMARY KEY, v text); CREATE SEQUENCE kept; SELECT setval('kept', 77)",
                )
                .await
                .unwrap();
        }
        let story = Story::on(pair, OURS, arguments).await;
        story.target.batch_execute(THEIRS).await.unwrap();
        story
            .source("CREATE SEQUENCE counter; SELECT nextval('counter'); CREATE SEQUENCE ticket; CREATE SEQUENCE plain")
            .await;
        let said = refuses_again_and_again(&story).await;
        assert!(said.contains("public.counter is on the target and not the migration's"), "{said}");
        assert!(
            said.contains("table public.orders there uses it") && said.contains("public.ticket is on the target"),
            "{said}"
        );
        assert!(said.contains("CREATE SEQUENCE IF NOT EXISTS \"public\".\"plain\""), "{said}");
        // Once they are away, what is printed leads on.
        story
            .target
            .batch_execute("ALTER SEQUENCE counter RENAME TO counter_2; ALTER SEQUENCE ticket RENAME TO ticket_2")
            .await
            .unwrap();
        let said = story.run(&["catchup"], 8);
        story.do_what_is_printed(&said).await;
        story.run(&["catchup"], 0);
        for sequence in ["counter", "ticket", "plain", "kept"] {
            let draw = format!("SELECT nextval('{sequence}')");
            assert_eq!(value(&story.target, &draw).await, value(&story.source, &draw).await, "{sequence}");
        }
        assert_eq!(value(&story.target, "SELECT max(id) FROM orders").await, "500");
    }
}

/// Also where the source had none at all at the copy, and where what is there is restarted on purpose.
#[tokio::test]
async fn a_source_without_sequences_at_the_copy_takes_none_over_either() {
    let story = Story::of("CREATE TABLE t (id int PRIMARY KEY)", &[]).await;
    story.target.batch_execute("CREATE SEQUENCE ticket; SELECT setval('ticket', 41)").await.unwrap();
    story.source("CREATE SEQUENCE ticket; SELECT setval('ticket', 5)").await;
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains("public.ticket is on the target and not the migration's"), "{said}");
    assert_eq!(value(&story.target, "SELECT last_value FROM ticket").await, "41");
    story.target.batch_execute("ALTER SEQUENCE ticket RESTART").await.unwrap();
    story.run(&["catchup"], 0);
    assert_eq!(value(&story.target, "SELECT last_value FROM ticket").await, "5");
}

/// The story: the SQL for a rename began with the DROP of what somebody else had there.
#[tokio::test]
async fn what_the_migration_never_had_is_not_dropped_for_a_sequence_that_gets_its_name() {
    let story = Story::of(OURS, &[]).await;
    story.target.batch_execute(THEIRS).await.unwrap();
    story.source("ALTER SEQUENCE kept RENAME TO ticket; SELECT setval('ticket', 8)").await;
    let said = refuses_again_and_again(&story).await;
    assert!(!said.contains("DROP SEQUENCE") && !said.contains("walferry_aside"), "{said}");
    assert!(
        said.contains("public.ticket is in the way there, and not the migration's: rename or drop it first"),
        "{said}"
    );
    story.target.batch_execute("ALTER SEQUENCE ticket RENAME TO mine").await.unwrap();
    let said = story.run(&["catchup"], 8);
    story.do_what_is_printed(&said).await;
    story.run(&["catchup"], 0);
    assert_eq!(value(&story.target, "SELECT last_value FROM ticket").await, "8");
    assert_eq!(value(&story.target, "SELECT last_value FROM mine").await, "41");
}

/// What the migration has brought is its own for as long as it is there, whatever the source
/// does in between and however many passes there are.
#[tokio::test]
async fn a_sequence_that_was_dropped_and_created_again_goes_on_with_what_was_brought() {
    let story = Story::of(OURS, &[]).await;
    story.source("SELECT setval('kept', 90)").await;
    story.run(&["catchup"], 0);
    story.source("DROP SEQUENCE kept").await;
    story.run(&["catchup"], 0);
    story.run(&["catchup"], 0);
    let json = story.run(&["status", "--json"], 0).json();
    assert_eq!(json["sequences"]["total"], 1, "{json}");
    story.source("CREATE SEQUENCE kept; SELECT setval('kept', 7)").await;
    story.run(&["catchup"], 0);
    assert_eq!(value(&story.target, "SELECT last_value FROM kept").await, "7");
    // And makes way for another one after passes that know nothing of it any more.
    story.source("DROP SEQUENCE kept").await;
    story.run(&["catchup"], 0);
    story.source("ALTER SEQUENCE t_id_seq RENAME TO kept").await;
    story.run(&["catchup"], 8);
    let said = story.run(&["catchup"], 8);
    assert!(said.stderr.contains("DROP SEQUENCE IF EXISTS \"public\".\"kept\";"), "{}", said.stderr);
    story.do_what_is_printed(&said).await;
    story.ends_equal().await;
}

#[tokio::test]
async fn what_another_migration_has_is_not_taken_over_by_a_second_one() {
    let one = Story::of("CREATE SCHEMA a; CREATE TABLE a.t (id int PRIMARY KEY); CREATE SEQUENCE a.s; CREATE SCHEMA b; CREATE TABLE b.u (id serial PRIMARY KEY)",
        &["--schemas", "a"]).await;
    let second = ["--name", "second", "--schemas", "b", "--schema", "existing"];
    let with = |command: &[&'static str]| command.iter().chain(&second).copied().collect::<Vec<_>>();
    let pair = &one.pair;
    let run = |command: &[&'static str], code| {
        crate::support::process::Walferry::run(pair, &with(command), crate::journey::PATIENCE).code(code)
    };
    one.target
        .batch_execute("CREATE SCHEMA IF NOT EXISTS b; CREATE TABLE IF NOT EXISTS b.u (id serial PRIMARY KEY)")
        .await
        .unwrap();
    run(&["run", "--until", "caught-up"], 0);
    one.source("ALTER SEQUENCE a.s SET SCHEMA b").await;
    one.target.batch_execute("ALTER SEQUENCE a.s SET SCHEMA b").await.unwrap();
    one.run(&["catchup"], 0);
    let said = run(&["catchup"], 8);
    assert!(said.stderr.contains("b.s is on the target and not the migration's"), "{}", said.stderr);
}

/// The story: it was said that the source did not have it any more, and the end was 0.
#[tokio::test]
async fn a_sequence_that_goes_where_the_filter_does_not_reach_stays_of_the_migration() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY); CREATE SCHEMA x; CREATE SCHEMA y; CREATE SEQUENCE x.a; CREATE SEQUENCE x.b; CREATE SEQUENCE y.c; \
        SELECT setval('y.c', 3)";
    let story = Story::of(setup, &["--exclude-schemas", "y"]).await;
    story.source("ALTER SEQUENCE x.a SET SCHEMA y; SELECT setval('y.a', 55)").await;
    let said = story.run(&["catchup"], 8);
    assert!(
        said.stderr.contains("y.a has another name on the target") && !said.stderr.contains("any more"),
        "{}",
        said.stderr
    );
    assert_eq!(value(&story.target, "SELECT last_value FROM x.a").await, "55");
    story.do_what_is_printed(&said).await;
    for _ in 0..2 {
        story.source("SELECT nextval('y.a')").await;
        story.run(&["catchup"], 0);
    }
    assert_eq!(value(&story.target, "SELECT last_value FROM y.a").await, "57");
    // What was left out, and comes to where the filter reaches, is new.
    story.target.batch_execute("CREATE SEQUENCE x.c; SELECT setval('x.c', 900)").await.unwrap();
    story.source("ALTER SEQUENCE y.c SET SCHEMA x").await;
    let said = story.run(&["catchup"], 8);
    assert!(said.stderr.contains("x.c is on the target and not the migration's"), "{}", said.stderr);
    assert_eq!(value(&story.target, "SELECT last_value FROM x.c").await, "900");
}

/// A rename changes nothing, another filter does.
#[tokio::test]
async fn another_filter_leaves_a_sequence_out() {
    let story = Story::of("CREATE TABLE t (id int PRIMARY KEY); CREATE SEQUENCE a; CREATE SEQUENCE b", &[]).await;
    story.source("ALTER SEQUENCE a INCREMENT 5; SELECT setval('a', 55), setval('b', 66)").await;
    story.run(&["catchup", "--exclude-tables", "a"], 0);
    assert_eq!(
        value(&story.target, "SELECT (SELECT last_value FROM a) || ' ' || (SELECT last_value FROM b)").await,
        "1 66"
    );
}

/// The story: the first pass set back what a table of others on the target drew from.
#[tokio::test]
async fn what_others_draw_from_is_not_set_back_in_a_schema_of_the_operators() {
    let setup = "CREATE SEQUENCE f; CREATE TABLE a (id int PRIMARY KEY DEFAULT nextval('f')); \
         CREATE TABLE b (id serial PRIMARY KEY); CREATE TABLE c (id int PRIMARY KEY DEFAULT nextval('f'))";
    let strange = "CREATE TABLE s (id int PRIMARY KEY DEFAULT nextval('f'), o int DEFAULT nextval('b_id_seq')); \
         INSERT INTO s SELECT FROM generate_series(1, 300)";
    for (mode, filter) in some_of([("existing", &["--exclude-tables", "c"][..]), ("none", &[])]) {
        let pair = Pair::builder().start().await;
        pair.target_client().await.batch_execute(&format!("{setup}; {strange}")).await.unwrap();
        let rows = "INSERT INTO a SELECT FROM generate_series(1, 30); INSERT INTO b SELECT FROM generate_series(1, 30)";
        let story = Story::on(pair, &format!("{setup}; {rows}"), &[&["--schema", mode], filter].concat()).await;
        let values = "SELECT (SELECT last_value FROM f) || ' ' || (SELECT last_value FROM b_id_seq)";
        for _ in 0..2 {
            let said = story.run(&["catchup"], 8).stderr;
            assert!(
                said.contains("2 sequences")
                    && said.contains("table public.s there, which is not the migration's, draws from it"),
                "{said}"
            );
            assert_eq!(value(&story.target, values).await, "300 300");
        }
        // What is ahead by the margin alone is as it is to be.
        story.source("SELECT setval('f', 200), setval('b_id_seq', 200)").await;
        story.run(&["catchup", "--sequence-margin", "100"], 0);
        story.target.batch_execute("ALTER TABLE s ALTER id DROP DEFAULT, ALTER o DROP DEFAULT").await.unwrap();
        story.run(&["catchup", "--finish"], 0);
        assert_eq!(value(&story.target, values).await, "200 200");
    }
}

/// Partitions of the operator's own draw from what their root draws from.
#[tokio::test]
async fn partitions_of_the_operators_own_are_none_of_others() {
    let here = "CREATE SEQUENCE f; CREATE TABLE r (id int PRIMARY KEY DEFAULT nextval('f')); INSERT INTO r SELECT FROM generate_series(1, 30)";
    let there = "CREATE SEQUENCE f; CREATE TABLE r (id int PRIMARY KEY DEFAULT nextval('f')) PARTITION BY RANGE (id); \
         CREATE TABLE of_r PARTITION OF r FOR VALUES FROM (0) TO (1000); SELECT setval('f', 300)";
    let pair = Pair::builder().start().await;
    pair.target_client().await.batch_execute(there).await.unwrap();
    let story = Story::on(pair, here, &["--schema", "existing"]).await;
    story.run(&["catchup", "--finish"], 0);
    assert_eq!(value(&story.target, "SELECT last_value::text FROM f").await, "30");
}
