//! What is beside the tables and was left out without a word: rows of
//! extensions, the database's own properties, what an existing target has in the
//! way. Each comes along, or `check` names it.

use tokio_postgres::Client;
use walferry::demo::cluster::SUPERUSER;

use crate::migration::{PATIENCE, run_between};
use crate::support::connect;
use crate::support::pair::{DATABASE, Pair};
use crate::support::process::Walferry;

async fn text(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get::<_, Option<String>>(0).unwrap_or_default()
}

/// An extension with a configuration table and sequence, as one that calls
/// `pg_extension_config_dump` has them.
const EXTENSION: &str = "
    CREATE EXTENSION hstore; CREATE TABLE public.conf (id int PRIMARY KEY, v text, own bool); CREATE SEQUENCE public.conf_seq;
    ALTER EXTENSION hstore ADD TABLE public.conf; ALTER EXTENSION hstore ADD SEQUENCE public.conf_seq;
    UPDATE pg_extension SET extconfig = ARRAY['public.conf'::regclass::oid, 'public.conf_seq'::regclass::oid],
        extcondition = ARRAY['WHERE own', ''] WHERE extname = 'hstore'";

/// What the extension keeps for itself, and a role that may not read it.
const NOT_THE_USERS: &str = "CREATE SCHEMA within; CREATE TABLE within.keyless (a int); CREATE SEQUENCE within.numbers;
    ALTER EXTENSION hstore ADD SCHEMA within; ALTER EXTENSION hstore ADD TABLE within.keyless; ALTER EXTENSION hstore ADD SEQUENCE within.numbers;
    CREATE ROLE reader LOGIN REPLICATION PASSWORD 'of-rows'; GRANT SELECT ON t, conf, conf_seq TO reader";

/// The story: rows of cron.job, partman.part_config and the like stayed behind,
/// and nothing said so.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_extensions_come_along_as_pg_dump_takes_them_and_are_exact_at_the_end() {
    let pair = Pair::builder().with_extensions().start().await;
    let admin = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    pair.source_sql(EXTENSION).await;
    pair.source_sql("INSERT INTO conf VALUES (1, 'mine', true), (2, 'theirs', false); SELECT setval('conf_seq', 41); CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION prepared FOR TABLE t").await;
    connect(&pair.source.socket_uri(SUPERUSER, DATABASE)).await.batch_execute(NOT_THE_USERS).await.unwrap();
    admin.batch_execute(EXTENSION).await.unwrap();
    admin.batch_execute("INSERT INTO conf VALUES (2, 'theirs', false), (3, 'stale', true)").await.unwrap();
    // A list of tables is published, without the extension's.
    let run =
        |command: &[&str]| Walferry::run(&pair, &[command, &["--publication", "prepared"]].concat(), PATIENCE).code(0);
    let check = run(&["check"]).stdout;
    let grant = "GRANT SELECT, INSERT, DELETE ON \"public\".\"conf\" TO \"doadmin\";";
    assert!(check.contains("rows that belong to extensions stay behind") && check.contains(grant), "{check}");
    // What it keeps for itself is nobody's business, where all tables take part and where we may not read it.
    let reader = pair.source.uri("reader", "of-rows", DATABASE);
    let arguments = ["check", "--publication", "prepared"];
    let checks =
        [Walferry::run(&pair, &["check"], PATIENCE), run_between(&reader, &pair.target_uri(), &arguments, PATIENCE)];
    let said = checks.each_ref().map(|check| check.stdout.as_str()).concat();
    assert!(!said.contains("keyless") && !said.contains("numbers"), "{said}");
    assert!(checks.iter().all(|check| check.status.success()), "{said}");
    let begun = run(&["run", "--until", "caught-up"]);
    assert!(begun.stderr.contains("permission denied for table conf"), "{}", begun.stderr);
    admin.batch_execute("GRANT ALL ON conf, conf_seq TO doadmin").await.unwrap();
    run(&["catchup"]);
    let rows = "SELECT string_agg(conf::text, ' ' ORDER BY id) || (SELECT last_value FROM conf_seq) FROM conf";
    assert_eq!(text(&admin, rows).await, "(1,mine,t) (2,theirs,f)41");
    pair.source_sql("UPDATE conf SET v = 'changed' WHERE own; INSERT INTO conf VALUES (4, 'four', true); DELETE FROM conf WHERE id = 2; SELECT nextval('conf_seq')").await;
    run(&["catchup", "--finish"]);
    // What the extension brings itself is not touched.
    assert_eq!(text(&admin, rows).await, "(1,changed,t) (2,theirs,f) (4,four,t)42");
}

/// The story: the rows of all such tables were deleted first, each in a savepoint
/// of its own; a table whose rows could not be written then was empty on the target.
#[tokio::test(flavor = "multi_thread")]
async fn an_extensions_table_that_cannot_be_carried_keeps_its_rows_and_keeps_no_other_from_being_carried() {
    const SECOND: &str = "CREATE TABLE public.more (id int PRIMARY KEY); ALTER EXTENSION hstore ADD TABLE public.more;
        UPDATE pg_extension SET extconfig = extconfig || 'public.more'::regclass::oid, extcondition = extcondition || ''::text WHERE extname = 'hstore'";
    let pair = Pair::builder().start().await;
    let admin = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    pair.source_sql(&format!("{EXTENSION}; {SECOND}")).await;
    pair.source_sql("INSERT INTO conf VALUES (1, 'mine', true); INSERT INTO more VALUES (1), (2); CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION prepared FOR TABLE t").await;
    admin.batch_execute(&format!("{EXTENSION}; {SECOND}")).await.unwrap();
    admin
        .batch_execute(
            "INSERT INTO conf VALUES (7, 'old', true); ALTER TABLE conf ADD CONSTRAINT never CHECK (v <> 'mine'); INSERT INTO more VALUES (9); \
             GRANT ALL ON conf, conf_seq, more TO doadmin",
        )
        .await
        .unwrap();
    for command in [&["run", "--until", "caught-up"][..], &["catchup"]] {
        let done = Walferry::run(&pair, &[command, &["--publication", "prepared"]].concat(), PATIENCE).code(0);
        assert!(
            done.stderr.contains("public.conf") && done.stderr.contains("violates check constraint"),
            "{}",
            done.stderr
        );
        assert_eq!(text(&admin, "SELECT string_agg(conf::text, ' ') FROM conf").await, "(7,old,t)");
        assert_eq!(text(&admin, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM more").await, "1 2");
    }
    admin.batch_execute("ALTER TABLE conf DROP CONSTRAINT never").await.unwrap();
    Walferry::run(&pair, &["catchup", "--publication", "prepared"], PATIENCE).code(0);
    assert_eq!(text(&admin, "SELECT string_agg(conf::text, ' ') FROM conf").await, "(1,mine,t)");
}

/// What a database is told besides its objects.
const PROPERTIES: &str = "
    CREATE SCHEMA s; CREATE TABLE s.t (id int PRIMARY KEY);
    ALTER DATABASE shop SET search_path = s, \"$user\", public; ALTER DATABASE shop SET work_mem = '8MB';
    ALTER DATABASE shop SET default_transaction_read_only = off; ALTER DATABASE shop SET log_min_messages = 'debug1';
    ALTER ROLE app IN DATABASE shop SET lock_timeout = '3s';
    COMMENT ON DATABASE shop IS 'the shop''s'; COMMENT ON SCHEMA public IS 'ours'";

/// The story: the application's queries on the target did not find their
/// tables, as the source's database had a search_path.
#[tokio::test(flavor = "multi_thread")]
async fn properties_of_the_database_come_at_the_end_or_are_named_with_their_sql() {
    let pair = Pair::builder().start().await;
    pair.source_sql(PROPERTIES).await;
    pair.source
        .psql(SUPERUSER, "postgres", "CREATE ROLE reporting; ALTER ROLE reporting SET temp_buffers = '6MB'")
        .unwrap();
    pair.target.psql(SUPERUSER, "postgres", "CREATE ROLE reporting").unwrap();
    let check = Walferry::run(&pair, &["check"], PATIENCE).code(0).stdout;
    for words in [
        "comes at the end (catchup --finish): setting search_path of the database, setting work_mem of the database",
        "comment on the database, comment on the schema public",
        "ALTER DATABASE \"shop\" SET \"log_min_messages\" TO 'debug1';",
        "ALTER ROLE \"app\" IN DATABASE \"shop\" SET \"lock_timeout\" TO '3s';",
        "setting temp_buffers of the role reporting in all databases",
        "ALTER ROLE \"reporting\" SET \"temp_buffers\" TO '6MB';",
    ] {
        assert!(check.contains(words), "no {words} in:\n{check}");
    }
    let target = pair.target_client().await;
    let of = "SELECT string_agg(item, ';' ORDER BY item) || shobj_description(d.oid, 'pg_database') || obj_description('public'::regnamespace) \
        FROM pg_database d, pg_db_role_setting s, unnest(setconfig) AS item \
        WHERE d.datname = 'shop' AND s.setdatabase = d.oid AND s.setrole = 0 AND item !~ 'read_only|log_min' GROUP BY d.oid";
    let settings = "SELECT count(*)::text FROM pg_db_role_setting";
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    assert_eq!(text(&target, settings).await, "0", "nothing before the end");
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    assert_eq!(text(&target, of).await, text(&pair.source_client().await, of).await);
    pair.assert_equal().await;
}

/// The story: a column that the target lacks was met by the run, behind its
/// slot; an unlogged table of the target would be empty after a crash of its server.
#[tokio::test(flavor = "multi_thread")]
async fn an_existing_schema_that_does_not_fit_is_refused_by_check_with_the_sql_that_makes_it_fit() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TABLE t (id int PRIMARY KEY, a int, b text); INSERT INTO t VALUES (1, 2, 'x'); CREATE TABLE u (id int PRIMARY KEY)").await;
    let target = pair.target_client().await;
    target
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY, a int); CREATE UNLOGGED TABLE u (id int PRIMARY KEY)")
        .await
        .unwrap();
    let add = "ALTER TABLE \"public\".\"t\" ADD COLUMN \"b\" text;";
    let logged = "ALTER TABLE \"public\".\"u\" SET LOGGED;";
    let check = Walferry::run(&pair, &["check", "--schema", "existing"], PATIENCE).code(3).stdout;
    assert!(check.contains(add) && check.contains(logged), "{check}");
    target.batch_execute(add).await.unwrap();
    let refused = Walferry::run(&pair, &["run", "--schema", "existing"], PATIENCE);
    assert_ne!(refused.status.code(), Some(0));
    assert!(refused.stderr.contains(logged), "{}", refused.stderr);
    target.batch_execute(logged).await.unwrap();
    Walferry::run(&pair, &["check", "--schema", "existing"], PATIENCE).code(0);
    Walferry::run(&pair, &["run", "--schema", "existing", "--until", "caught-up"], PATIENCE).code(0);
    pair.assert_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_in_the_way_and_another_order_of_text_are_said_by_check() {
    let pair = Pair::builder().start().await;
    let here = "CREATE DATABASE sorted TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'";
    let there = "CREATE DATABASE sorted TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'";
    pair.source.psql(SUPERUSER, "postgres", here).unwrap();
    pair.target.psql(SUPERUSER, "postgres", there).unwrap();
    let (source, target) = (pair.source.socket_uri(SUPERUSER, "sorted"), pair.target.socket_uri(SUPERUSER, "sorted"));
    let object = "SELECT lo_from_bytea(4711, 'x')";
    let tables = "CREATE TABLE by_name (name text PRIMARY KEY) PARTITION BY RANGE (name); CREATE TABLE a PARTITION OF by_name FOR VALUES FROM ('a') TO ('n')";
    connect(&source).await.batch_execute(&format!("{object}; {tables}")).await.unwrap();
    let client = connect(&target).await;
    client.batch_execute(object).await.unwrap();
    let check = run_between(&source, &target, &["check"], PATIENCE).code(3).stdout;
    for words in
        ["text sorts differently", "ranges of text: public.by_name", "on the target already: 4711", "ARRAY[4711]"]
    {
        assert!(check.contains(words), "no {words} in:\n{check}");
    }
    client.batch_execute("SELECT lo_unlink(4711)").await.unwrap();
    run_between(&source, &target, &["check"], PATIENCE).code(0);
}
