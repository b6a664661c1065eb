//! pg_dump's hard cases: a database of them moves to a newer and to an older
//! major, and both schemas are compared object by object.
//!
//! Invariant: a difference is allowed only by a rule of [`normalised`], which
//! says why.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use walferry::demo::cluster::{Cluster, SUPERUSER};
use walferry::demo::server::Server;

use crate::journey::value;
use crate::migration::{PATIENCE, streaming};
use crate::story::Story;
use crate::support::pair::{DATABASE, Pair};
use crate::support::process::Walferry;
use crate::support::{assert_equal, oldest_and_newest, some_of};

const HARD_CASES: &str = include_str!("schema/hard_cases.sql");

/// What else the schema of these tests holds that the comparison leaves out.
const NOT_OURS: [&str; 1] = ["--exclude-schema=walferry"];

/// The schema as this pg_dump writes it, by object.
fn dump(pg_dump: &Server, cluster: &Cluster, more: &[&str]) -> BTreeMap<String, String> {
    let uri = cluster.socket_uri(SUPERUSER, DATABASE);
    let output = Command::new(pg_dump.bin_dir.join("pg_dump"))
        .args(["--schema-only", "--no-publications", "--dbname", &uri])
        .args(NOT_OURS)
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    by_object(&String::from_utf8(output.stdout).unwrap())
}

/// Takes a dump apart at its headers; what they quote in comments and function
/// bodies goes with the object before.
fn by_object(dump: &str) -> BTreeMap<String, String> {
    let mut objects = BTreeMap::new();
    for part in dump.split("\n--\n-- Name: ").skip(1) {
        let (name, sql) = part.split_once('\n').unwrap();
        let has_query = ["VIEW", "RULE"].iter().any(|kind| name.contains(&format!("{kind}; Schema")));
        let sql = normalised(&without_attver(sql));
        objects.insert(name.to_owned(), if has_query { unqualified(&sql) } else { sql });
    }
    objects
}

/// The SQL of an object without what may differ.
fn normalised(sql: &str) -> String {
    let of_the_session = |line: &str| {
        // Which setting an object is preceded by depends on the one before it.
        line.starts_with("SET default_")
            || line.starts_with("--")
            // A random word of each dump.
            || line.starts_with("\\unrestrict")
            || line.is_empty()
    };
    let lines = sql.lines().filter(|line| !of_the_session(line)).map(|line| match line.split_once(" CONSTRAINT ") {
        // NOT NULL has a name from 18 on; one that older servers cannot keep.
        Some((column, named)) if named.contains(" NOT NULL") && !named.contains(" CHECK ") => {
            format!("{column} NOT NULL{}", named.split_once(" NOT NULL").unwrap().1)
        }
        _ => line.to_owned(),
    });
    // NOT NULL of inherited columns is repeated by children from 18 on.
    lines.filter(|line| !line.starts_with("    NOT NULL ")).collect::<Vec<_>>().join("\n")
}

/// From the minors of November 2026 on (15.20) a server keeps an option of its
/// own with every column, which older programs show.
fn without_attver(sql: &str) -> String {
    let mut kept = sql.to_owned();
    while let Some(at) = kept.find("pg_attver=") {
        let length = kept[at..].find([',', ')']).unwrap();
        kept.replace_range(at..at + length, "");
        let (before, after) = (kept[..at].to_owned(), kept[at..].to_owned());
        kept = if before.ends_with(" SET (") && after.starts_with(");") {
            format!("{}{}", &before[..before.rfind("\nALTER ").unwrap()], &after[2..])
        } else {
            format!("{}{}", before.trim_end_matches(", "), after.trim_start_matches(", "))
        };
    }
    kept
}

/// From 16 on a query is written with its tables' names in front of columns
/// only where these are needed, so names in front of a dot go.
fn unqualified(sql: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut kept = String::new();
    for c in sql.chars() {
        if c != '.' {
            kept.push(c);
            continue;
        }
        let start = match kept.strip_suffix('"') {
            Some(quoted) => quoted.rfind('"').unwrap(),
            None => kept.rfind(|c| !is_word(c)).map_or(0, |at| at + 1),
        };
        kept.truncate(start);
    }
    kept
}

/// Panics, naming the objects, unless both are equal.
#[track_caller]
fn assert_same(source: &BTreeMap<String, String>, target: &BTreeMap<String, String>) {
    let mut wrong = Vec::new();
    for name in source.keys().chain(target.keys().filter(|name| !source.contains_key(*name))) {
        let (here, there) = (source.get(name), target.get(name));
        if here != there {
            let text = |sql: Option<&String>| sql.cloned().unwrap_or_else(|| "(not there)".to_owned());
            wrong.push(format!("{name}\n--- source\n{}\n--- target\n{}", text(here), text(there)));
        }
    }
    assert!(wrong.is_empty(), "{} objects differ:\n{}", wrong.len(), wrong.join("\n\n"));
    assert!(source.len() > 1, "nothing was compared");
}

/// Writes while the daemon streams, to each shape of table.
const WRITES: &str = "
    INSERT INTO public.visit SELECT i, (ARRAY['eu', 'us', 'it''s', 'zz'])[i % 4 + 1], date '2023-12-01' + i, i, NULL FROM generate_series(200, 240) i;
    UPDATE public.visit SET region = 'us', n = n + 1 WHERE id % 5 = 0;
    DELETE FROM public.visit WHERE id % 7 = 0 AND id > 100;
    INSERT INTO \"Shop\".\"Item\" (title, mail, amount) VALUES ('later', 'x@y', 3);
    UPDATE \"Shop\".\"Item\" SET price = 7, place = ROW(9, 9, 9) WHERE \"ID\" % 3 = 0;
    UPDATE public.wide SET \"Column 2\" = 5 WHERE id < 4; DELETE FROM public.wide WHERE id = 5;
    INSERT INTO public.no_columns DEFAULT VALUES;
    INSERT INTO public.penguin VALUES (9, 'later', 2); UPDATE public.animal SET name = name || '!';
    UPDATE public.identity_index SET c = 'x'; INSERT INTO public.identity_deferrable VALUES (2, 2);
    UPDATE public.secret SET note = 'changed'; INSERT INTO public.by_key VALUES (2, 'a');
    UPDATE \"odd.schema with \"\"quotes\"\"\".child SET id = 5 WHERE id = 2;
    INSERT INTO public.empty VALUES (1, 'no more'); SELECT nextval('public.far');";

/// What goes on from before the copy until the stream has begun.
const MEANWHILE: &str = "UPDATE public.wide SET \"Column 3\" = coalesce(\"Column 3\", 0) + 1; UPDATE public.visit SET n = n + 1 WHERE id % 9 = 1; \
    INSERT INTO \"Shop\".\"Item\" (title, mail, amount) VALUES ('meanwhile', 'x@y', 3)";

/// The journey of the hard cases, written to all the time.
async fn live_journey(pair: &Pair) {
    let client = pair.source_client().await;
    let stop = Arc::new(AtomicBool::new(false));
    let until = stop.clone();
    let writer = tokio::spawn(async move {
        let mut written = 0;
        while !until.load(Ordering::Relaxed) {
            client.batch_execute(MEANWHILE).await.unwrap();
            written += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        written
    });
    let daemon = streaming(pair, &[]).await;
    // Both change the same rows, in another order.
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 0);
    pair.source_sql(WRITES).await;
    finish(pair, daemon, &[]).await;
}

/// The whole journey of a source that is filled already.
async fn journey(pair: &Pair, writes: &str, arguments: &[&str]) {
    let daemon = streaming(pair, arguments).await;
    pair.source_sql(writes).await;
    finish(pair, daemon, arguments).await;
}

async fn finish(pair: &Pair, daemon: Walferry, arguments: &[&str]) {
    Walferry::run(pair, &[&["catchup", "--finish", "--json"], arguments].concat(), PATIENCE).code(0).json();
    daemon.wait(PATIENCE).code(0);
    // As superusers: row security is in force for the owners.
    assert_equal(&pair.source.socket_uri(SUPERUSER, DATABASE), &pair.target.socket_uri(SUPERUSER, DATABASE)).await;
}

async fn pair_of(source: &Server, target: &Server, sql: &str) -> Pair {
    let pair = Pair::builder().servers(source, target).start().await;
    pair.source_sql(sql).await;
    pair
}

/// Without owners and privileges, which do not come along unless they are asked for.
const BARE: [&str; 2] = ["--no-owner", "--no-acl"];

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_hard_cases_is_the_same_on_a_newer_major() {
    let (oldest, newest) = oldest_and_newest();
    let pair = pair_of(&oldest, &newest, HARD_CASES).await;
    live_journey(&pair).await;
    assert_same(&dump(&newest, &pair.source, &BARE), &dump(&newest, &pair.target, &BARE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_hard_cases_is_the_same_on_an_older_major() {
    let (oldest, newest) = oldest_and_newest();
    let pair = pair_of(&newest, &oldest, HARD_CASES).await;
    live_journey(&pair).await;
    assert_same(&dump(&newest, &pair.source, &BARE), &dump(&newest, &pair.target, &BARE));
}

/// The story: 15.20 keeps an option of its own with every column. The pg_dump
/// of 18.4, like all of an earlier day, wrote it into the schema, and the target
/// refused it. Here it is put into the catalog, so that the servers of any day show it.
#[tokio::test(flavor = "multi_thread")]
async fn an_option_that_the_server_keeps_with_its_columns_does_not_come_along() {
    let sql = "CREATE TABLE public.t (id int PRIMARY KEY, n int); CREATE MATERIALIZED VIEW public.m AS SELECT n FROM public.t; \
         CREATE TABLE public.p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE public.p1 PARTITION OF public.p DEFAULT; \
         INSERT INTO public.t VALUES (1, 2); INSERT INTO public.p VALUES (1)";
    const KEPT: &str = "UPDATE pg_attribute SET attoptions = CASE attname WHEN 'n' THEN '{n_distinct=5,pg_attver=7}' ELSE '{pg_attver=7}' END::text[] \
         WHERE attnum > 0 AND attrelid = ANY ('{t,m,p,p1}'::regclass[])";
    let pair = pair_of(&crate::support::server(), &crate::support::server(), sql).await;
    pair.source_sql(KEPT).await;
    journey(&pair, "UPDATE public.t SET n = 3; REFRESH MATERIALIZED VIEW public.m", &[]).await;
    let set = "SELECT coalesce(string_agg(attrelid::regclass || '.' || attname || ' ' || attoptions::text, ' ' ORDER BY attrelid), '') FROM \
         (SELECT attrelid, attname, ARRAY(SELECT o FROM unnest(attoptions) o WHERE o !~ '^pg_attver=') AS attoptions FROM pg_attribute) a \
         WHERE attrelid >= 16384 AND attoptions <> '{}'";
    assert_eq!(value(&pair.target_client().await, set).await, "t.n {n_distinct=5} m.n {n_distinct=5}");
    let ours = "SELECT count(*) FROM pg_attribute WHERE 'pg_attver=7' = ANY (attoptions)";
    assert_eq!(value(&pair.target_client().await, ours).await, "0");
}

/// Extensions that an ordinary owner may create, and what is built on them.
const EXTENDED: &str = "
    CREATE SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE EXTENSION pg_trgm;
    CREATE EXTENSION pgcrypto SCHEMA ext; CREATE EXTENSION btree_gist;
    COMMENT ON EXTENSION hstore IS 'only the owner of an extension may comment on it';
    CREATE TABLE public.person (id uuid DEFAULT ext.gen_random_uuid() PRIMARY KEY, name ext.citext UNIQUE, more ext.hstore DEFAULT ''::ext.hstore,
        room int, during daterange, EXCLUDE USING gist (room WITH =, during WITH &&), CHECK (ext.digest(name::text, 'sha256') IS NOT NULL));
    CREATE INDEX by_trigram ON public.person USING gin ((name::text) gin_trgm_ops);
    CREATE INDEX by_more ON public.person USING gin (more);
    INSERT INTO public.person (name, more, room, during) SELECT 'Name ' || i, ext.hstore('a', i::text), i, daterange('2024-01-01', '2024-02-01')
        FROM generate_series(1, 20) i";

async fn offers(cluster: &Cluster, extension: &str) -> bool {
    let client = crate::support::connect(&cluster.socket_uri(SUPERUSER, DATABASE)).await;
    let sql = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = $1)";
    client.query_one(sql, &[&extension]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn extensions_and_what_is_built_on_them_come_along_without_their_comments() {
    let pair = Pair::builder().with_extensions().start().await;
    if !offers(&pair.source, "hstore").await {
        return eprintln!("no contrib extensions on this machine: nothing was tested");
    }
    pair.source_sql(EXTENDED).await;
    journey(&pair, "UPDATE public.person SET more = 'b=>2', name = name::text || '!'", &[]).await;
    let dump = |cluster| {
        let mut objects = dump(pair.source.server(), cluster, &BARE);
        // Comments on extensions are their owners'.
        objects.retain(|name, _| !name.starts_with("EXTENSION ") || !name.contains("; Type: COMMENT;"));
        objects
    };
    assert_same(&dump(&pair.source), &dump(&pair.target));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_the_target_lacks_is_named_before_anything_is_created() {
    let (oldest, newest) = oldest_and_newest();
    let pair = Pair::builder().servers(&oldest, &newest).start().await;
    if !offers(&pair.source, "hstore").await || offers(&pair.target, "hstore").await {
        return eprintln!("both servers or none offer hstore: nothing was tested");
    }
    pair.source_sql("CREATE EXTENSION hstore; CREATE TABLE public.t (id int PRIMARY KEY, a hstore)").await;
    let failed = Walferry::run(&pair, &["run"], PATIENCE).code(3);
    assert!(failed.stderr.contains("does not offer an extension of the source: hstore"), "{}", failed.stderr);
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!(pair.target_client().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// The story: the end printed an ALTER … OWNER that nobody but a superuser could run.
#[tokio::test(flavor = "multi_thread")]
async fn new_owners_that_may_own_nothing_in_public_are_named_with_the_grant() {
    let here = "CREATE ROLE seller; GRANT CREATE ON SCHEMA public TO seller; SET ROLE seller; CREATE TABLE public.t (id int PRIMARY KEY); \
         RESET ROLE; REVOKE CREATE ON SCHEMA public FROM seller";
    let pair = pair_of(&crate::support::server(), &crate::support::server(), here).await;
    pair.target.psql(SUPERUSER, DATABASE, "CREATE ROLE seller; GRANT seller TO doadmin").unwrap();
    let said = Walferry::run(&pair, &["check", "--owners"], PATIENCE).code(3).stdout;
    let sql = "GRANT CREATE ON SCHEMA \"public\" TO \"seller\";";
    assert!(said.contains(sql), "{said}");
    pair.target.psql(SUPERUSER, DATABASE, sql).unwrap();
    journey(&pair, "INSERT INTO public.t VALUES (1)", &["--owners"]).await;
    let owner = "SELECT tableowner::text FROM pg_tables WHERE tablename = 't'";
    assert_eq!(pair.target_client().await.query_one(owner, &[]).await.unwrap().get::<_, String>(0), "seller");
}

/// The story: an operator class that "does not exist", of an extension that was there.
#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_is_in_another_schema_is_named_with_the_sql_that_moves_it() {
    let pair = Pair::builder().with_extensions().start().await;
    if !offers(&pair.source, "hstore").await {
        return eprintln!("the server does not offer hstore: nothing was tested");
    }
    let here = "CREATE SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext; CREATE TABLE public.t (id int PRIMARY KEY, a ext.hstore)";
    pair.source_sql(here).await;
    pair.target.psql(SUPERUSER, DATABASE, "CREATE EXTENSION hstore SCHEMA public").unwrap();
    let said = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
    let sql = "CREATE SCHEMA IF NOT EXISTS \"ext\"; ALTER EXTENSION \"hstore\" SET SCHEMA \"ext\";";
    assert!(
        said.contains("is in schema ext on the source and in public on the target") && said.contains(sql),
        "{said}"
    );
    pair.target.psql(SUPERUSER, DATABASE, &format!("{sql} ALTER SCHEMA ext OWNER TO doadmin")).unwrap();
    Walferry::run(&pair, &["check"], PATIENCE).code(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_schema_is_compared_column_by_column_and_everything_is_said_at_once() {
    let here = "CREATE TABLE public.a (id int PRIMARY KEY, n int NOT NULL, g int GENERATED ALWAYS AS (id * 2) STORED, t varchar(5), gone int); \
         CREATE TABLE public.b (id int PRIMARY KEY, same text)";
    let pair = pair_of(&crate::support::server(), &crate::support::server(), here).await;
    let there = "CREATE TABLE public.a (t text NOT NULL, id bigint PRIMARY KEY, n int, g int, more int NOT NULL, fine int NOT NULL DEFAULT 1)";
    let target = pair.target_client().await;
    target.batch_execute(there).await.unwrap();
    let run = ["run", "--until", "caught-up", "--schema", "existing"];
    let failed = Walferry::run(&pair, &run, PATIENCE).code(3);
    for part in [
        "tables are not there: public.b",
        "ALTER TABLE \"public\".\"a\" ADD COLUMN \"gone\" integer;",
        "ALTER TABLE \"public\".\"a\" ALTER COLUMN \"more\" DROP NOT NULL;",
    ] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    let mended = "CREATE TABLE public.b (same text, id int PRIMARY KEY); ALTER TABLE public.a ADD COLUMN gone integer, ALTER COLUMN more DROP NOT NULL";
    target.batch_execute(mended).await.unwrap();
    let done = Walferry::run(&pair, &run, PATIENCE).code(0);
    for part in [
        "public.a.\"id\" is integer on the source, bigint on the target",
        "public.a.\"t\" is character varying(5) on the source, text on the target",
        "public.a.\"t\" is NOT NULL on the target only",
        "public.a.\"n\" is NOT NULL on the source only",
        "public.a.\"g\" is computed on the source only",
    ] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
}

/// Objects of several owners, with privileges on everything that has them.
const OWNED: &str = "
    CREATE ROLE \"Shop owner\"; CREATE ROLE reader; CREATE ROLE writer;
    GRANT CREATE ON DATABASE shop TO \"Shop owner\";
    CREATE SCHEMA s AUTHORIZATION \"Shop owner\"; GRANT USAGE ON SCHEMA s TO reader, writer WITH GRANT OPTION;
    GRANT CREATE ON SCHEMA public TO app; GRANT CREATE ON SCHEMA public TO \"Shop owner\";
    SET ROLE \"Shop owner\";
    ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO reader;
    ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
    CREATE TABLE s.t (id serial PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, secret text);
    CREATE FUNCTION s.f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;
    CREATE TYPE s.e AS ENUM ('a'); CREATE DOMAIN s.d AS int; CREATE SEQUENCE s.q; CREATE STATISTICS s.st ON id, secret FROM s.t;
    CREATE VIEW s.v AS SELECT id FROM s.t; CREATE MATERIALIZED VIEW s.m AS SELECT count(*) AS n FROM s.t;
    CREATE MATERIALIZED VIEW s.late AS SELECT id, secret FROM s.t GROUP BY id;
    GRANT INSERT, UPDATE (secret) ON s.t TO writer; GRANT SELECT ON s.m, s.v TO PUBLIC; GRANT USAGE ON SEQUENCE s.q TO writer;
    REVOKE USAGE ON TYPE s.e FROM PUBLIC; GRANT EXECUTE ON FUNCTION s.f() TO reader;
    ALTER TABLE s.t ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON s.t TO reader USING (id > 0);
    RESET ROLE;
    CREATE TABLE public.of_app (id int PRIMARY KEY); GRANT SELECT ON public.of_app TO reader;
    INSERT INTO s.t (secret) VALUES ('x')";

#[tokio::test(flavor = "multi_thread")]
async fn owners_and_privileges_come_along_when_they_are_asked_for() {
    let pair = pair_of(&crate::support::server(), &crate::support::server(), OWNED).await;
    let keep = ["--owners", "--acl"];
    let failed = Walferry::run(&pair, &["run", "--owners", "--acl"], PATIENCE).code(3);
    let mending = ["CREATE ROLE \"Shop owner\";", "GRANT \"Shop owner\" TO \"doadmin\";", "CREATE ROLE \"reader\";"];
    for sql in mending {
        assert!(failed.stderr.contains(sql), "{sql}: {}", failed.stderr);
    }
    // Everything that the error says: with it the right to own something in public.
    let statements = failed
        .stderr
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("CREATE ROLE") || line.starts_with("GRANT"));
    let statements: Vec<&str> = statements.collect();
    pair.target.psql(SUPERUSER, DATABASE, &statements.join(" ")).unwrap();
    journey(&pair, "INSERT INTO s.t (secret) VALUES ('y')", &keep).await;
    assert_same(&dump(pair.source.server(), &pair.source, &[]), &dump(pair.source.server(), &pair.target, &[]));
}

/// The story: a ✗ that nobody could mend before the tables were there.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_than_the_owner_have_granted_is_left_to_an_administrator() {
    let here = "CREATE ROLE lender; CREATE ROLE borrower; CREATE TABLE public.t (id int PRIMARY KEY); \
         ALTER TABLE public.t OWNER TO app; GRANT SELECT ON public.t TO lender WITH GRANT OPTION; \
         SET SESSION AUTHORIZATION lender; GRANT SELECT ON public.t TO borrower; RESET SESSION AUTHORIZATION";
    let pair = pair_of(&crate::support::server(), &crate::support::server(), here).await;
    pair.target.psql(SUPERUSER, DATABASE, "CREATE ROLE lender; CREATE ROLE borrower").unwrap();
    let check = Walferry::run(&pair, &["check", "--acl"], PATIENCE).code(0).stdout;
    let sql = "GRANT SELECT ON TABLE public.t TO borrower;";
    assert!(check.contains(sql), "{check}");
    Walferry::run(&pair, &["run", "--until", "caught-up", "--acl"], PATIENCE).code(0);
    let report = Walferry::run(&pair, &["catchup", "--finish", "--acl", "--json"], PATIENCE).code(0).json();
    let left = report["administrators"][0]["sql"].as_str().unwrap();
    assert!(left.contains(sql) && !left.contains("TO lender"), "{report}");
    pair.target.psql(SUPERUSER, DATABASE, left).unwrap();
    let granted = "SELECT string_agg(grantee::regrole || ' by ' || grantor::regrole, ', ' ORDER BY grantee::regrole::text) \
         FROM pg_class, aclexplode(relacl) WHERE relname = 't' AND grantee::regrole::text IN ('lender', 'borrower')";
    let granted: String = pair.target_client().await.query_one(granted, &[]).await.unwrap().get(0);
    assert_eq!(granted, "borrower by lender, lender by doadmin");
}

/// The story: `check` blamed the key of a table that had not been created.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_needs_a_function_that_needs_a_key_comes_along() {
    for needs in some_of(["x bigint DEFAULT f()", "x bigint, CHECK (f() >= 0 OR id > 0)"]) {
        let here = format!(
            "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'); \
             CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM (SELECT id, v FROM t GROUP BY id) x; END; \
             CREATE TABLE u (id int PRIMARY KEY, {needs}); INSERT INTO u (id) VALUES (1)"
        );
        let story = Story::of(&here, &[]).await;
        story.source("INSERT INTO u (id) VALUES (2); INSERT INTO t VALUES (2, 'b')").await;
        story.leads_to_the_end().await;
    }
}

/// The story: the server warns of what it does not give, and the end was 0 without a word.
#[tokio::test(flavor = "multi_thread")]
async fn privileges_that_the_target_only_warns_of_are_left_to_an_administrator() {
    let here = "CREATE ROLE reader; CREATE TABLE public.t (id int PRIMARY KEY); GRANT SELECT ON public.t TO reader; \
         REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC; GRANT USAGE ON LANGUAGE plpgsql TO reader; GRANT SELECT ON pg_catalog.pg_cast TO reader";
    let pair = pair_of(&crate::support::server(), &crate::support::server(), here).await;
    let hostile = "CREATE ROLE reader; ALTER ROLE doadmin SET client_min_messages = error";
    pair.target.psql(SUPERUSER, DATABASE, hostile).unwrap();
    let checked = Walferry::run(&pair, &["check", "--acl", "--json"], PATIENCE).code(0).json();
    let warned = |finding: &&serde_json::Value| finding["message"].as_str().unwrap().contains("does not give all");
    let warnings: Vec<&serde_json::Value> = checked["findings"].as_array().unwrap().iter().filter(warned).collect();
    assert_eq!(warnings.len(), 2, "{checked}");
    assert!(warnings.iter().all(|warning| warning["sql"][0].as_str().unwrap().contains("reader")), "{checked}");
    Walferry::run(&pair, &["run", "--until", "caught-up", "--acl"], PATIENCE).code(0);
    let report = Walferry::run(&pair, &["catchup", "--finish", "--acl", "--json"], PATIENCE).code(0).json();
    let left: Vec<&str> =
        report["administrators"].as_array().unwrap().iter().map(|one| one["sql"].as_str().unwrap()).collect();
    assert_eq!(left.len(), 2, "{report}");
    pair.target.psql(SUPERUSER, DATABASE, &left.join(";\n")).unwrap();
    let given = "SELECT has_language_privilege('reader', 'plpgsql', 'USAGE') AND NOT has_language_privilege('app', 'plpgsql', 'USAGE') \
         AND has_table_privilege('reader', 'public.t', 'SELECT')";
    let given = given.replace("'app'", "(SELECT oid FROM pg_roles WHERE rolname = 'pg_monitor')");
    assert!(pair.target_client().await.query_one(&given, &[]).await.unwrap().get::<_, bool>(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_of_a_policy_is_missed_before_the_copy_and_owners_stay_behind_by_default() {
    let pair = pair_of(&crate::support::server(), &crate::support::server(), OWNED).await;
    let checked = Walferry::run(&pair, &["check"], PATIENCE).code(3);
    assert!(checked.stdout.contains("CREATE ROLE \"reader\";"), "{}", checked.stdout);
    let failed = Walferry::run(&pair, &["run"], PATIENCE).code(3);
    assert!(failed.stderr.contains("CREATE ROLE \"reader\";"), "{}", failed.stderr);
    assert!(!failed.stderr.contains("Shop owner") && !failed.stderr.contains("writer"), "{}", failed.stderr);
    pair.target.psql(SUPERUSER, DATABASE, "CREATE ROLE reader").unwrap();
    journey(&pair, "SELECT 1", &[]).await;
    assert_same(&dump(pair.source.server(), &pair.source, &BARE), &dump(pair.source.server(), &pair.target, &BARE));
    let sql = "SELECT count(*) FROM pg_class WHERE relnamespace = 's'::regnamespace AND relowner <> 'doadmin'::regrole";
    assert_eq!(pair.target_client().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_cannot_be_created_is_named_with_its_sql_and_counts_once_somebody_else_has_made_it() {
    let sql = "CREATE FUNCTION public.low(text) RETURNS text LANGUAGE internal IMMUTABLE STRICT AS 'lower'";
    let pair = pair_of(&crate::support::server(), &crate::support::server(), sql).await;
    pair.source_sql("CREATE TABLE public.t (id int PRIMARY KEY, v text DEFAULT public.low('X'))").await;
    let run = ["run", "--until", "caught-up"];
    let failed = Walferry::run(&pair, &run, PATIENCE).code(3);
    for part in ["cannot create function public.low(text)", "let an administrator", "AS $$lower$$;"] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
    pair.target.psql(SUPERUSER, DATABASE, sql).unwrap();
    let done = Walferry::run(&pair, &run, PATIENCE).code(0);
    assert!(done.stderr.contains("is on the target already"), "{}", done.stderr);
}

/// Of a superuser's kinds, with comments on them, and nothing needs them.
const UNUSED: &str = "
    CREATE FUNCTION public.low(text) RETURNS text LANGUAGE internal IMMUTABLE STRICT AS 'lower'; COMMENT ON FUNCTION public.low(text) IS 'l';
    CREATE OPERATOR FAMILY public.family USING btree; COMMENT ON OPERATOR FAMILY public.family USING btree IS 'f';
    CREATE TYPE public.base; CREATE FUNCTION public.base_in(cstring) RETURNS public.base LANGUAGE internal IMMUTABLE STRICT AS 'textin';
    CREATE FUNCTION public.base_out(public.base) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
    CREATE TYPE public.base (INPUT = public.base_in, OUTPUT = public.base_out, LIKE = text); COMMENT ON TYPE public.base IS 'b';
    CREATE FUNCTION public.plain(point) RETURNS text LANGUAGE sql RETURN 'p'; CREATE CAST (point AS text) WITH FUNCTION public.plain(point);
    COMMENT ON CAST (point AS text) IS 'c';
    CREATE TRANSFORM FOR int LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION int4recv(internal));
    CREATE OPERATOR CLASS public.backwards FOR TYPE int USING btree AS
        OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 btint4cmp(int, int);
    CREATE FUNCTION public.speak() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
    CREATE LANGUAGE tongue HANDLER public.speak; COMMENT ON LANGUAGE tongue IS 't'";

/// The story: a function in C that nothing used kept a whole migration back.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_an_administrator_may_create_keeps_nothing_back_that_does_not_need_it() {
    let tables = "CREATE TABLE public.t (id int PRIMARY KEY); INSERT INTO public.t VALUES (1)";
    let pair = pair_of(&crate::support::server(), &crate::support::server(), UNUSED).await;
    pair.source_sql(tables).await;
    let check = Walferry::run(&pair, &["check"], PATIENCE).code(0).stdout;
    for part in [
        "AS $$lower$$;",
        "CREATE OPERATOR FAMILY public.family USING btree;",
        "INPUT = public.base_in",
        "CREATE CAST (point AS text)",
        "CREATE TRANSFORM FOR integer LANGUAGE sql",
        "CREATE OPERATOR CLASS public.backwards",
        "LANGUAGE tongue HANDLER public.speak",
    ] {
        assert_eq!(check.matches(part).count(), 1, "{part}:\n{check}");
    }
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    // One of them is there by the end.
    let made = "CREATE FUNCTION public.low(text) RETURNS text LANGUAGE internal IMMUTABLE STRICT AS 'lower'; COMMENT ON FUNCTION public.low(text) IS 'l'";
    pair.target.psql(SUPERUSER, DATABASE, made).unwrap();
    let report = Walferry::run(&pair, &["catchup", "--finish", "--json"], PATIENCE).code(0).json();
    let left: Vec<&str> =
        report["administrators"].as_array().unwrap().iter().map(|one| one["sql"].as_str().unwrap()).collect();
    assert!(left.iter().any(|sql| sql.contains("INPUT = public.base_in")), "{left:#?}");
    assert!(left.iter().all(|sql| !sql.contains("lower")), "{left:#?}");
    pair.assert_equal().await;
    // As printed, in order, they bring in what is missing.
    pair.target.psql(SUPERUSER, DATABASE, &left.join("\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_target_does_not_know_is_named_with_its_table() {
    let (oldest, newest) = oldest_and_newest();
    let sql = "CREATE TABLE public.modern (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) VIRTUAL)";
    let pair = pair_of(&newest, &oldest, sql).await;
    let failed = Walferry::run(&pair, &["run"], PATIENCE).code(3);
    for part in ["cannot create table public.modern", "twice integer GENERATED ALWAYS AS", "older than the source"] {
        assert!(failed.stderr.contains(part), "{part}: {}", failed.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pg_bin_says_which_pg_dump_and_one_older_than_the_source_is_refused() {
    let (oldest, newest) = oldest_and_newest();
    let pair = pair_of(&newest, &oldest, "CREATE TABLE public.t (id int PRIMARY KEY)").await;
    let with = |server: &Server| {
        let folder = server.bin_dir.to_str().unwrap().to_owned();
        Walferry::run(&pair, &["run", "--until", "caught-up", "--pg-bin", &folder], PATIENCE)
    };
    let refused = with(&oldest).code(3);
    assert!(refused.stderr.contains("--pg-bin"), "{}", refused.stderr);
    let done = with(&newest).code(0);
    assert!(done.stderr.contains(newest.bin_dir.to_str().unwrap()), "{}", done.stderr);
}
