//! The copy on a real server, onto an ordinary role's database.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::CopyError;
use super::testing::{APP, SUPERUSER, Server};
use crate::config::filter::FilterPatterns;
use crate::config::{SchemaMode, TableFilter};
use crate::schema::{Mark, Restored, restore_after_rows, restore_deferred};
use crate::session::Session;
use crate::state::deferred::DeferredKind;
use crate::state::tables::TableState;

const SHOP: &str = include_str!("testing/shop.sql");

const ALL: [DeferredKind; 5] = [
    DeferredKind::AfterRows,
    DeferredKind::ForeignKey,
    DeferredKind::Trigger,
    DeferredKind::Other,
    DeferredKind::MaterializedView,
];

async fn finish(server: &Server, schema: SchemaMode) -> Restored {
    let settings = server.settings(SUPERUSER, schema);
    let state = server.state(&settings).await;
    let session = server.target().await;
    restore_deferred(&state, &session, &ALL).await.unwrap()
}

/// Count and hash of every table of the shop, on one side.
async fn contents(session: &Session) -> Vec<(String, i64, Option<String>)> {
    let mut contents = Vec::new();
    let tables = session
        .query(
            "SELECT c.oid::regclass::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = 'shop' AND relkind = 'r' ORDER BY c.relname",
            &[],
        )
        .await
        .unwrap();
    for row in &tables {
        let table: &str = row.get(0);
        let sql =
            format!("SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text COLLATE \"C\")) FROM {table} t");
        let row = session.query_one(&sql, &[]).await.unwrap();
        contents.push((table.to_owned(), row.get(0), row.get(1)));
    }
    contents
}

async fn assert_equal(server: &Server) {
    let source = contents(&server.source(SUPERUSER).await).await;
    assert!(source.len() >= 8, "{source:?}");
    assert_eq!(source, contents(&server.target().await).await);
}

async fn number(session: &Session, sql: &str) -> i64 {
    session.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rich_database_arrives_whole_and_its_keys_and_triggers_come_at_the_end() {
    let server = Server::start().await;
    server.source(SUPERUSER).await.batch_execute(SHOP).await.unwrap();
    let settings = server.settings(SUPERUSER, SchemaMode::Create);
    let point = server.copy(&settings, &CancellationToken::new()).await.unwrap();
    assert_equal(&server).await;
    let state = server.state(&settings).await;
    let migration = state.load().await.unwrap().unwrap();
    assert!(migration.copied && migration.schema_restored && !migration.publishes_all_tables);
    assert_eq!(migration.consistent_point, Some(point));
    assert!(state.position("walferry").await.unwrap().is_some_and(|position| position.lsn() == point.lsn()));
    assert!(
        state
            .tables()
            .await
            .unwrap()
            .iter()
            .filter(|t| t.state != TableState::Within)
            .all(|t| t.state == TableState::Ready && t.snapshot_lsn == Some(point))
    );
    let target = server.target().await;
    let foreign = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'shop'::regnamespace";
    let triggers = "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal";
    assert_eq!((number(&target, foreign).await, number(&target, triggers).await), (0, 0));
    let indexes = "SELECT count(*) FROM pg_index JOIN pg_class c ON c.oid = indrelid WHERE relnamespace = 'shop'::regnamespace AND indisvalid";
    assert_eq!(number(&target, indexes).await, number(&server.source(SUPERUSER).await, indexes).await);
    let restored = finish(&server, SchemaMode::Create).await;
    assert!(restored.failures.is_empty(), "{:#?}", restored.failures);
    assert_eq!((restored.materialized_views, restored.triggers, restored.after_rows), (2, 2, 0));
    let source = server.source(SUPERUSER).await;
    let valid = format!("{foreign} AND convalidated");
    assert_eq!(number(&target, &valid).await, number(&source, &valid).await);
    assert_eq!(number(&target, foreign).await, number(&source, foreign).await);
    assert_eq!(number(&target, "SELECT c FROM shop.a_mv2").await, number(&source, "SELECT c FROM shop.mv").await);
    let again = finish(&server, SchemaMode::Create).await;
    assert_eq!((again.foreign_keys, again.triggers, again.others), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_without_superuser_publishes_a_list_of_tables() {
    let server = Server::start().await;
    let source = server.source(SUPERUSER).await;
    source.batch_execute(SHOP).await.unwrap();
    source.batch_execute("REASSIGN OWNED BY postgres TO app").await.unwrap_err();
    let owned = "DO $$ DECLARE r record; BEGIN EXECUTE 'ALTER SCHEMA shop OWNER TO app'; \
        FOR r IN SELECT oid::regclass AS t FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind IN ('r', 'p', 'm') \
        LOOP EXECUTE format('ALTER TABLE %s OWNER TO app', r.t); END LOOP; \
        FOR r IN SELECT oid FROM pg_largeobject_metadata LOOP EXECUTE format('ALTER LARGE OBJECT %s OWNER TO app', r.oid); END LOOP; END $$; \
        GRANT SELECT ON ALL SEQUENCES IN SCHEMA shop TO app";
    source.batch_execute(owned).await.unwrap();
    let settings = server.settings(APP, SchemaMode::Create);
    server.copy(&settings, &CancellationToken::new()).await.unwrap();
    assert_equal(&server).await;
    assert!(!server.state(&settings).await.load().await.unwrap().unwrap().publishes_all_tables);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_cut_off_anywhere_goes_on_by_itself() {
    let server = Server::start().await;
    let source = server.source(SUPERUSER).await;
    source.batch_execute(SHOP).await.unwrap();
    let settings = server.settings(SUPERUSER, SchemaMode::Create);
    for milliseconds in [30, 120, 250, 400, 550, 700] {
        let shutdown = CancellationToken::new();
        let killed = tokio::time::timeout(Duration::from_millis(milliseconds), server.copy(&settings, &shutdown)).await;
        if let Ok(Err(error)) = killed {
            panic!("cut off after {milliseconds} ms: {error}");
        }
        if killed.is_ok() {
            break;
        }
    }
    if !server.state(&settings).await.load().await.unwrap().unwrap().copied {
        server.copy(&settings, &CancellationToken::new()).await.unwrap();
    }
    assert_equal(&server).await;
    assert!(finish(&server, SchemaMode::Create).await.failures.is_empty());
    assert_eq!(number(&source, "SELECT count(*) FROM pg_replication_slots").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_identity_is_refused_before_anything_is_published() {
    let server = Server::start().await;
    let source = server.source(SUPERUSER).await;
    source
        .batch_execute("CREATE TABLE public.log (x int); CREATE TABLE public.u (x int NOT NULL UNIQUE)")
        .await
        .unwrap();
    let settings = server.settings(SUPERUSER, SchemaMode::Create);
    let error = server.copy(&settings, &CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains("ALTER TABLE \"public\".\"log\" REPLICA IDENTITY FULL;"), "{error}");
    assert!(error.contains("ALTER TABLE \"public\".\"u\" REPLICA IDENTITY USING INDEX \"u_x_key\";"), "{error}");
    let made = "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots)";
    assert_eq!(number(&source, made).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_creation_that_is_held_up_and_given_up_leaves_no_slot() {
    let server = Server::start().await;
    let source = server.source(SUPERUSER).await;
    source.batch_execute("CREATE TABLE public.t (x int PRIMARY KEY)").await.unwrap();
    let blocker = server.source(SUPERUSER).await;
    blocker.batch_execute("BEGIN; INSERT INTO public.t VALUES (1)").await.unwrap();
    let shutdown = CancellationToken::new();
    let settings = server.settings(SUPERUSER, SchemaMode::Create);
    let stopping = async {
        while number(&source, "SELECT count(*) FROM pg_replication_slots WHERE active").await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shutdown.cancel();
    };
    let (result, ()) = tokio::join!(server.copy(&settings, &shutdown), stopping);
    assert!(matches!(result, Err(CopyError::Stopped)), "{result:?}");
    assert_eq!(number(&source, "SELECT count(*) FROM pg_replication_slots").await, 0);
    blocker.batch_execute("COMMIT").await.unwrap();
    server.copy(&settings, &CancellationToken::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_somebody_else_is_never_dropped() {
    let server = Server::start().await;
    let source = server.source(SUPERUSER).await;
    source.query("SELECT pg_create_logical_replication_slot('walferry', 'pgoutput')", &[]).await.unwrap();
    let settings = server.settings(SUPERUSER, SchemaMode::Create);
    let error = server.copy(&settings, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, CopyError::ForeignSlot { .. }), "{error}");
    assert_eq!(number(&source, "SELECT count(*) FROM pg_replication_slots").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_schema_gets_its_keys_and_triggers_back_as_they_were() {
    let server = Server::start().await;
    let source = server.source(SUPERUSER).await;
    let schema = "CREATE SCHEMA shop; CREATE TABLE shop.a (id int PRIMARY KEY, v text); \
        CREATE TABLE shop.b (a int REFERENCES shop.a ON DELETE CASCADE, id int PRIMARY KEY); \
        CREATE FUNCTION shop.no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $x$fired$x$; END';";
    let trigger = "CREATE TRIGGER no BEFORE INSERT ON shop.b FOR EACH ROW EXECUTE FUNCTION shop.no(); \
        ALTER TABLE shop.b ENABLE ALWAYS TRIGGER no; \
        CREATE RULE ru AS ON INSERT TO shop.a DO INSTEAD NOTHING";
    source.batch_execute(schema).await.unwrap();
    source.batch_execute("INSERT INTO shop.a SELECT g, g FROM generate_series(1, 1000) g; INSERT INTO shop.b SELECT g, g FROM generate_series(1, 1000) g").await.unwrap();
    let target = server.target().await;
    target
        .batch_execute(&format!(
            "{schema}{trigger}; ALTER TABLE shop.b ADD extra text DEFAULT 'x'; INSERT INTO shop.b VALUES (NULL, 1)"
        ))
        .await
        .unwrap_err();
    target.batch_execute(&format!("{schema}{trigger}; ALTER TABLE shop.b ADD extra text DEFAULT 'x'")).await.unwrap();
    let settings = server.settings(SUPERUSER, SchemaMode::Existing);
    server.copy(&settings, &CancellationToken::new()).await.unwrap();
    assert_eq!(number(&target, "SELECT count(*) FROM shop.a JOIN shop.b ON a.id = b.a WHERE extra = 'x'").await, 1000);
    let before =
        "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated AND conrelid = 'shop.b'::regclass";
    assert_eq!(number(&target, before).await, 0);
    let restored = finish(&server, SchemaMode::Existing).await;
    assert!(restored.failures.is_empty(), "{:#?}", restored.failures);
    assert_eq!((restored.foreign_keys, restored.validated, restored.triggers), (1, 1, 2));
    assert_eq!(number(&target, before).await, 1);
    assert_eq!(number(&target, "SELECT count(*) FROM pg_trigger WHERE tgname = 'no' AND tgenabled = 'A'").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_with_rows_and_missing_columns_are_refused_with_the_sql() {
    let server = Server::start().await;
    server
        .source(SUPERUSER)
        .await
        .batch_execute("CREATE TABLE public.t (x int PRIMARY KEY, note varchar(9))")
        .await
        .unwrap();
    let target = server.target().await;
    target.batch_execute("CREATE TABLE public.t (x int PRIMARY KEY); INSERT INTO public.t VALUES (1)").await.unwrap();
    let settings = server.settings(SUPERUSER, SchemaMode::None);
    let error = server.copy(&settings, &CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains("ALTER TABLE \"public\".\"t\" ADD COLUMN \"note\" character varying(9);"), "{error}");
    target.batch_execute("ALTER TABLE public.t ADD note text").await.unwrap();
    let error = server.copy(&settings, &CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains("TRUNCATE ONLY \"public\".\"t\";"), "{error}");
    target.batch_execute("TRUNCATE public.t").await.unwrap();
    server.copy(&settings, &CancellationToken::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_filter_leaves_out_takes_its_views_and_the_keys_to_it_along() {
    let server = Server::start().await;
    let source = server.source(SUPERUSER).await;
    source.batch_execute(SHOP).await.unwrap();
    let views =
        "CREATE VIEW shop.over AS SELECT * FROM shop.customers; CREATE VIEW shop.twice AS SELECT * FROM shop.over";
    source.batch_execute(views).await.unwrap();
    let mut settings = server.settings(SUPERUSER, SchemaMode::Create);
    let exclude_tables = vec!["shop.customers".to_owned(), "shop.orders_2".to_owned()];
    settings.filter = TableFilter::parse(&FilterPatterns { exclude_tables, ..FilterPatterns::default() }).unwrap();
    server.copy(&settings, &CancellationToken::new()).await.unwrap();
    let target = server.target().await;
    let left = "SELECT count(*) FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relname IN ('customers', 'over', 'twice')";
    assert_eq!(number(&target, left).await, 0);
    let partition = "SELECT count(*) FROM shop.orders_1";
    assert_eq!(number(&target, partition).await, number(&source, partition).await);
    let state = server.state(&settings).await;
    let tables = state.tables().await.unwrap();
    let excluded: Vec<String> =
        tables.iter().filter(|t| t.state == TableState::Excluded).map(|t| t.table.to_string()).collect();
    assert_eq!(excluded, ["shop.customers", "shop.orders_2"]);
    assert!(!state.load().await.unwrap().unwrap().publishes_all_tables);
    let restored = finish(&server, SchemaMode::Create).await;
    assert!(restored.failures.is_empty(), "{:#?}", restored.failures);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_a_lost_session_is_about_to_restore_is_not_restored_twice() {
    let server = Server::start().await;
    let source = server.source(SUPERUSER).await;
    source
        .batch_execute("CREATE TABLE public.t (x int PRIMARY KEY, y int); CREATE INDEX of_y ON public.t (y)")
        .await
        .unwrap();
    let settings = server.settings(SUPERUSER, SchemaMode::Create);
    server.copy(&settings, &CancellationToken::new()).await.unwrap();
    let state = server.state(&settings).await;
    let objects = state.deferred().await.unwrap();
    let object = objects.iter().find(|object| object.sql.contains("of_y")).unwrap();
    let lost = server.target().await;
    // As it was when the other session, which nobody reads from any more, was at it.
    lost.batch_execute("DROP INDEX public.of_y; UPDATE walferry.deferred SET restored_at = NULL").await.unwrap();
    lost.batch_execute("BEGIN").await.unwrap();
    let mark = crate::state::deferred::MARK_RESTORED_SQL;
    assert_eq!(lost.execute(mark, &[&"walferry", &object.ordinal]).await.unwrap(), 1);
    lost.batch_execute(&object.sql).await.unwrap();
    let ours = server.target().await;
    let (restored, ()) = tokio::join!(restore_after_rows(&ours, "walferry", object), async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        let watcher = server.target().await;
        while number(&watcher, waiting).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        lost.batch_execute("COMMIT").await.unwrap();
    });
    assert_eq!(restored.unwrap(), Mark::WasSet);
    assert_eq!(number(&ours, "SELECT count(*) FROM pg_class WHERE relname LIKE 'of_y%'").await, 1);
}
