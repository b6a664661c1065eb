//! Who owns a sequence or a table on the source puts a view in its place, in the moment
//! between walferry's list and its reading: his function is never run with walferry's rights.
//!
//! He holds walferry there by a lock: it waits for what it has listed as a sequence or a table,
//! and what it gets when he lets go is a view. Servers that cannot be asked to refuse views are
//! tried beside the code (`src/catalog/held.rs`).

use tokio_postgres::Client;

use crate::journey::{PATIENCE, execute, value};
use crate::story::Story;
use crate::support::process::Walferry;
use crate::support::{connect, wait_until};

/// An ordinary user of the source with a sequence, an unlogged table and a function that says
/// whose rights it had.
const MALLORY: &str = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); \
    CREATE ROLE mallory; GRANT USAGE, CREATE ON SCHEMA public TO mallory; SET ROLE mallory; \
    CREATE TABLE stolen (by text PRIMARY KEY); CREATE SEQUENCE bait; SELECT nextval('bait'); \
    CREATE UNLOGGED TABLE unlogged_bait (); INSERT INTO unlogged_bait DEFAULT VALUES; \
    CREATE FUNCTION take() RETURNS bigint LANGUAGE plpgsql AS \
        $$ BEGIN INSERT INTO public.stolen VALUES (session_user); RETURN 7; END $$; RESET ROLE";

/// A session of his, that has begun to put a view there and has not committed.
async fn swapping(story: &Story, sql: &str) -> Client {
    let mallory = connect(&story.pair.source_uri()).await;
    execute(&mallory, &["SET ROLE mallory", "BEGIN", sql]).await;
    mallory
}

/// Does this as soon as walferry waits for a lock that this session has, and ends that.
async fn let_go_on(holder: &Client, before: impl AsyncFnOnce()) {
    let waits = "SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid) \
        WHERE NOT l.granted AND a.application_name LIKE 'walferry%'";
    wait_until("walferry waits for the lock", PATIENCE, || async { value(holder, waits).await == "t" }).await;
    before().await;
    execute(holder, &["COMMIT"]).await;
}

async fn assert_nothing_was_run(story: &Story) {
    assert_eq!(value(&story.source, "SELECT count(*) FROM stolen").await, "0");
}

/// The story: the value of a sequence was read by its name; a view had it by then, and its
/// function ran as the superuser that walferry was.
#[tokio::test]
async fn a_sequence_that_becomes_a_view_while_it_is_read_is_gone_and_its_view_is_not_run() {
    let story = Story::of(MALLORY, &[]).await;
    let oid = value(&story.source, "SELECT 'bait'::regclass::oid").await;
    let view = format!(
        "DROP SEQUENCE bait; CREATE VIEW bait AS SELECT take() AS last_value, true AS is_called, {oid}::oid AS tableoid"
    );
    let mallory = swapping(&story, &view).await;
    let catchup = Walferry::on(&story.pair, &["catchup"]);
    let_go_on(&mallory, async || {}).await;
    let ended = catchup.wait(PATIENCE).code(0);
    assert_nothing_was_run(&story).await;
    assert!(ended.stderr.contains("public.bait"), "{}", ended.stderr);
    assert_eq!(
        value(&story.target, "SELECT count(*) FROM t").await,
        value(&story.source, "SELECT count(*) FROM t").await
    );
}

/// The story: unlogged tables were read at the end by their names, without a look under a lock. COPY
/// of a table refuses views; of one without columns it is a SELECT, which does not.
#[tokio::test]
async fn an_unlogged_table_that_becomes_a_view_at_the_end_is_not_run() {
    let story = Story::of(MALLORY, &[]).await;
    // It has listed what it reads, and waits with emptying the target's.
    execute(&story.target, &["BEGIN; LOCK TABLE public.unlogged_bait IN ACCESS SHARE MODE"]).await;
    let catchup = Walferry::on(&story.pair, &["catchup", "--finish", "--retry-for", "1s"]);
    let_go_on(&story.target, async || {
        let view = "DROP TABLE unlogged_bait; CREATE VIEW unlogged_bait AS SELECT 1 AS id WHERE take() > 0";
        execute(&swapping(&story, view).await, &["COMMIT"]).await;
    })
    .await;
    let ended = catchup.wait(PATIENCE).code(6);
    assert!(ended.stderr.contains("table public.unlogged_bait was emptied or written anew"), "{}", ended.stderr);
    assert_nothing_was_run(&story).await;
}
