//! From an older to a newer major, and back: copy, stream, sequences, large
//! objects.

use walferry::demo::server::Server;

use crate::migration::{Load, PATIENCE, pair_with_tables, settle, streaming, until_applied};
use crate::support::oldest_and_newest;
use crate::support::pair::{Pair, PairBuilder};
use crate::support::process::Walferry;

async fn journey(builder: PairBuilder) {
    let pair = pair_with_tables(builder).await;
    pair.source_sql("SELECT lo_from_bytea(0, decode(repeat('00ff', 5000), 'hex')) FROM generate_series(1, 3)").await;
    let load = Load::start(&pair).await;
    let daemon = streaming(&pair, &[]).await;
    load.more(30).await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    pair.source_sql(
        "SELECT lo_put((SELECT min(oid) FROM pg_largeobject_metadata), 3, 'changed'); SELECT lo_from_bytea(0, 'new'); \
         SELECT lo_unlink(max(oid)) FROM pg_largeobject_metadata",
    )
    .await;
    settle(&pair, load).await;
    let finish = Walferry::run(&pair, &["catchup", "--finish", "--json"], PATIENCE).code(0).json();
    assert!(finish["restored"].as_u64().unwrap() >= 2, "a foreign key and a trigger: {finish}");
    pair.assert_equal().await;
    Walferry::run(&pair, &["cleanup"], PATIENCE).code(0);
}

fn between(source: &Server, target: &Server) -> PairBuilder {
    Pair::builder().servers(source, target)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_moves_from_the_oldest_to_the_newest_major() {
    let (oldest, newest) = oldest_and_newest();
    journey(between(&oldest, &newest)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_moves_from_the_newest_to_the_oldest_major() {
    let (oldest, newest) = oldest_and_newest();
    journey(between(&newest, &oldest)).await;
}

/// With the least memory for decoding every transaction of some size is
/// spilled to disk on the source, or streamed, had we asked for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_spills_its_transactions_is_followed() {
    let pair = pair_with_tables(Pair::builder().source_setting("logical_decoding_work_mem", "64kB")).await;
    let load = Load::start(&pair).await;
    let daemon = streaming(&pair, &["--batch-rows", "500"]).await;
    pair.source_sql(
        "BEGIN; CREATE TABLE IF NOT EXISTS public.never_there (a int); ROLLBACK; \
         BEGIN; INSERT INTO public.audited SELECT generate_series(1000, 20000); \
         SAVEPOINT s; DELETE FROM public.audited WHERE id % 2 = 0; ROLLBACK TO s; \
         SAVEPOINT t; UPDATE public.audited SET id = -id WHERE id % 3 = 0; RELEASE t; \
         UPDATE public.counter SET value = value + 1; COMMIT",
    )
    .await;
    until_applied(&pair).await;
    daemon.terminate(PATIENCE).code(0);
    settle(&pair, load).await;
}
