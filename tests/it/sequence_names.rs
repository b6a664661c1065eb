//! Sequences that are known by their oids: names that were exchanged, freed and taken again
//! on the source never lead a value to another one's counterpart.
//!
//! The story of all: after these changes the catch-up said that all was equal, and a default
//! on the target drew values that were drawn already.

use crate::journey::value;
use crate::story::Story;
use crate::support::pair::Pair;
use crate::support::some_of;

/// Tables that draw from sequences of which no column is the owner, and one with a serial.
const TABLES: &str = "\
    CREATE SEQUENCE sa; CREATE SEQUENCE sb START 1000; CREATE SEQUENCE unused; CREATE SCHEMA s3; CREATE SEQUENCE s3.sa START 5000; \
    CREATE TABLE ta (id int DEFAULT nextval('sa') PRIMARY KEY, v text); \
    CREATE TABLE tb (id int DEFAULT nextval('sb') PRIMARY KEY, v text); \
    CREATE TABLE tc (id int DEFAULT nextval('s3.sa') PRIMARY KEY, v text); \
    CREATE TABLE ts (id serial PRIMARY KEY, v text)";

/// The tables, with what they draw from.
const DRAWN: &str = "INSERT INTO ta (v) SELECT 'x' FROM generate_series(1, 7); INSERT INTO tb (v) SELECT 'x' FROM generate_series(1, 3); \
    INSERT INTO tc (v) SELECT 'x' FROM generate_series(1, 2); INSERT INTO ts (v) SELECT 'x' FROM generate_series(1, 5)";

/// How the target's schema comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Schema {
    Create,
    Existing,
}

const BOTH: [Schema; 2] = [Schema::Create, Schema::Existing];

async fn story(schema: Schema) -> Story {
    let pair = Pair::builder().start().await;
    if schema == Schema::Existing {
        pair.target_client().await.batch_execute(TABLES).await.unwrap();
    }
    let setup = format!("{TABLES}; {DRAWN}");
    Story::on(pair, &setup, if schema == Schema::Existing { &["--schema", "existing"] } else { &[] }).await
}

/// The change is refused by the end, what is printed mends it at once, and then each
/// table draws on both sides what nobody has drawn. What was printed.
async fn leads_to_equal_draws(story: &Story, change: &str) -> String {
    story.source(change).await;
    story.source(DRAWN).await;
    let said = story.run(&["catchup"], 8);
    let (_, error) = said.stderr.split_once("error: ").unwrap();
    let error = error.to_owned();
    story.do_what_is_printed(&said).await;
    draws_equal_at_the_end(story, &error).await;
    error
}

/// Nothing is in the way of the end, and behind it both sides draw the same.
async fn draws_equal_at_the_end(story: &Story, error: &str) {
    story.run(&["catchup", "--finish"], 0);
    story.pair.assert_equal().await;
    // New sessions, as one that has drawn may have a cache.
    let (source, target) = (story.pair.source_client().await, story.pair.target_client().await);
    for table in ["ta", "tb", "tc", "ts"] {
        let draw = format!("INSERT INTO {table} (v) VALUES ('after') RETURNING id");
        assert_eq!(value(&target, &draw).await, value(&source, &draw).await, "{table} after:\n{error}");
        let calls = format!(
            "SELECT string_agg(pg_get_expr(adbin, adrelid), ' ' ORDER BY adnum) FROM pg_attrdef WHERE adrelid = '{table}'::regclass"
        );
        assert_eq!(value(&target, &calls).await, value(&source, &calls).await, "{table} after:\n{error}");
    }
    story.pair.assert_equal().await;
}

#[tokio::test]
async fn sequences_that_exchanged_names_are_exchanged_on_the_target_and_keep_their_values() {
    for schema in some_of(BOTH) {
        let exchange = "BEGIN; ALTER SEQUENCE sa RENAME TO sx; ALTER SEQUENCE sb RENAME TO sa; ALTER SEQUENCE sx RENAME TO sb; COMMIT";
        let error = leads_to_equal_draws(&story(schema).await, exchange).await;
        assert!(error.contains("2 sequences") && error.contains("walferry_aside_1"), "{error}");
    }
}

#[tokio::test]
async fn a_sequence_that_took_the_name_of_a_dropped_one_is_renamed_once_that_is_out_of_the_way() {
    let change = "DROP SEQUENCE unused; ALTER SEQUENCE sa RENAME TO unused";
    let error = leads_to_equal_draws(&story(Schema::Create).await, change).await;
    assert!(
        error.contains("1 sequence ") && error.contains("DROP SEQUENCE IF EXISTS \"public\".\"unused\"; ALTER"),
        "{error}"
    );
}

/// In a schema of the operator's what is in the way is put aside, as is what a default uses.
#[tokio::test]
async fn what_may_be_needed_is_put_aside_for_a_sequence_that_gets_its_name() {
    for (schema, change, other) in some_of([
        (Schema::Existing, "DROP SEQUENCE unused; ALTER SEQUENCE sa RENAME TO unused", "unused"),
        (
            Schema::Create,
            "ALTER TABLE tb ALTER id DROP DEFAULT; DROP SEQUENCE sb; ALTER SEQUENCE sa RENAME TO sb",
            "sb",
        ),
    ]) {
        let story = story(schema).await;
        story.source(change).await;
        let said = story.run(&["catchup"], 8);
        let aside = format!("ALTER SEQUENCE IF EXISTS \"public\".\"{other}\" RENAME TO \"walferry_aside_1\"; ALTER");
        assert!(said.stderr.contains(&aside), "{}", said.stderr);
        story.do_what_is_printed(&said).await;
        story.run(&["catchup", "--finish"], 0);
        let draw = "INSERT INTO ta (v) VALUES ('after') RETURNING id";
        assert_eq!(value(&story.target, draw).await, value(&story.source, draw).await);
    }
}

#[tokio::test]
async fn a_sequence_that_was_renamed_is_not_taken_for_the_one_that_was_created_under_its_old_name() {
    for schema in some_of(BOTH) {
        let change = "ALTER SEQUENCE sa RENAME TO sa_old; CREATE SEQUENCE sa START 300";
        let error = leads_to_equal_draws(&story(schema).await, change).await;
        let (rename, create) = (error.find("RENAME TO \"sa_old\"").unwrap(), error.find("CREATE SEQUENCE").unwrap());
        assert!(rename < create && !error.contains("IF NOT EXISTS \"public\".\"sa_old\""), "{error}");
    }
}

#[tokio::test]
async fn a_serials_sequence_that_was_freed_and_renamed_is_not_taken_for_the_one_that_has_its_name() {
    for schema in some_of(BOTH) {
        let change = "ALTER SEQUENCE ts_id_seq OWNED BY NONE; ALTER SEQUENCE ts_id_seq RENAME TO ts_old; \
            CREATE SEQUENCE ts_id_seq START 300";
        let error = leads_to_equal_draws(&story(schema).await, change).await;
        let (rename, create) = (error.find("RENAME TO \"ts_old\"").unwrap(), error.find("CREATE SEQUENCE").unwrap());
        assert!(rename < create, "{error}");
    }
}

#[tokio::test]
async fn a_sequence_that_went_to_a_schema_is_not_taken_for_the_one_that_had_its_name_there() {
    for schema in some_of(BOTH) {
        for change in [
            "ALTER SEQUENCE s3.sa RENAME TO sa_old; ALTER SEQUENCE sa SET SCHEMA s3",
            "ALTER SEQUENCE s3.sa RENAME TO sa_old; ALTER SEQUENCE sa SET SCHEMA s3; CREATE SEQUENCE sa START 300",
            "ALTER SEQUENCE sa RENAME TO aside; ALTER SEQUENCE s3.sa SET SCHEMA public; ALTER SEQUENCE aside SET SCHEMA s3; \
             ALTER SEQUENCE s3.aside RENAME TO sa",
        ] {
            leads_to_equal_draws(&story(schema).await, change).await;
        }
    }
}

/// The story: the SQL for a sequence in a new schema could not be run.
#[tokio::test]
async fn a_new_sequence_in_a_new_schema_is_printed_with_its_schema() {
    let change =
        "CREATE SCHEMA fresh; CREATE SEQUENCE fresh.one START 40; CREATE SEQUENCE fresh.two; CREATE SEQUENCE plain";
    let error = leads_to_equal_draws(&story(Schema::Create).await, change).await;
    assert!(error.contains("CREATE SCHEMA IF NOT EXISTS \"fresh\"; CREATE SEQUENCE IF NOT EXISTS"), "{error}");
    assert!(!error.contains("SCHEMA IF NOT EXISTS \"public\""), "{error}");
}

/// The daemon's passes go by the same rule: no value is led astray meanwhile, nor is one
/// forgotten after many passes.
#[tokio::test]
async fn what_the_daemon_sets_meanwhile_is_never_anothers_value() {
    let story = story(Schema::Create).await;
    story
        .source(
            "BEGIN; ALTER SEQUENCE sa RENAME TO sx; ALTER SEQUENCE sb RENAME TO sa; ALTER SEQUENCE sx RENAME TO sb; \
             DROP SEQUENCE unused; ALTER SEQUENCE s3.sa RENAME TO sa_old; ALTER SEQUENCE s3.sa_old SET SCHEMA public; \
             ALTER SEQUENCE sa_old RENAME TO unused; CREATE SEQUENCE s3.sa START 90000; COMMIT",
        )
        .await;
    story.source(DRAWN).await;
    for _ in 0..2 {
        story.run(&["run", "--until", "caught-up", "--sequence-interval", "100ms"], 0);
        story.run(&["catchup"], 8);
        let values = "SELECT (SELECT last_value FROM sa) || ' ' || (SELECT last_value FROM sb) || ' ' || (SELECT last_value FROM s3.sa)";
        assert_eq!(value(&story.target, values).await, "14 1005 5003");
    }
    leads_to_equal_draws(&story, "SELECT").await;
}

/// The story: a default follows a sequence by its oid, and only names and values were
/// compared: the target went on to draw from what it had drawn from before.
#[tokio::test]
async fn a_default_that_draws_from_another_sequence_by_now_is_named_with_that() {
    for schema in some_of(BOTH) {
        for change in [
            "ALTER TABLE ta ALTER id SET DEFAULT nextval('sb'); ALTER TABLE tb ALTER id SET DEFAULT nextval('s3.sa')",
            "CREATE SEQUENCE fresh START 700; ALTER TABLE ta ALTER id SET DEFAULT nextval('fresh') + 10000",
            "CREATE SEQUENCE fresh START 700; ALTER SEQUENCE ts_id_seq OWNED BY NONE; ALTER TABLE ts ALTER id SET DEFAULT nextval('fresh'); \
             ALTER SEQUENCE fresh OWNED BY ts.id",
        ] {
            let error = leads_to_equal_draws(&story(schema).await, change).await;
            assert!(error.contains("draws its values from on the source") && error.contains("SET DEFAULT"), "{error}");
        }
    }
}

/// The story: the ADD COLUMN that was printed named a sequence by what another one was
/// called on the target so far.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_was_added_draws_from_the_counterpart_whatever_was_called_so_before() {
    for change in some_of([
        "ALTER SEQUENCE sa RENAME TO sa_old; CREATE SEQUENCE sa START 300; ALTER TABLE tb ADD COLUMN n int DEFAULT nextval('sa')",
        "ALTER SEQUENCE sb RENAME TO sx; ALTER SEQUENCE sa RENAME TO sb; ALTER SEQUENCE sx RENAME TO sa; \
         ALTER TABLE tc ADD COLUMN n int DEFAULT nextval('sb')",
    ]) {
        let story = story(Schema::Create).await;
        story.source(change).await;
        story.source(DRAWN).await;
        story.leads_on().await;
        draws_equal_at_the_end(&story, change).await;
    }
}
