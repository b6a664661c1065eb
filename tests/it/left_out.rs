//! What the filter leaves out takes along what cannot be without it: the rest
//! moves, and `check` names what does not.

use walferry::demo::cluster::SUPERUSER;

use crate::journey::value;
use crate::migration::{PATIENCE, source_admin, streaming, traces};
use crate::story::Story;
use crate::support::connect;
use crate::support::pair::{DATABASE, Pair};
use crate::support::process::Walferry;

/// What of the kept tables is compared: rows and objects.
const KEPT: &str = "SELECT pg_catalog.string_agg(x, '; ' ORDER BY x) FROM ( \
      SELECT 'kept ' || k::text FROM shop.kept k UNION ALL SELECT 'leaf ' || l::text FROM shop.leaf l \
      UNION ALL SELECT conname || ' ' || pg_catalog.pg_get_constraintdef(oid) FROM pg_catalog.pg_constraint \
        WHERE conrelid IN ('shop.kept'::regclass, 'shop.leaf'::regclass) AND contype <> 'f' \
      UNION ALL SELECT polname FROM pg_catalog.pg_policy WHERE polrelid = 'shop.kept'::regclass AND polname <> 'by_lost' \
      UNION ALL SELECT proname FROM pg_catalog.pg_proc WHERE proname = 'plain') AS s (x)";

const SCHEMA: &str = "
    CREATE SCHEMA shop;
    CREATE TABLE shop.lost (id serial PRIMARY KEY, note text);
    CREATE TABLE shop.kept (id int PRIMARY KEY, lost_id int REFERENCES shop.lost, n int DEFAULT 1);
    COMMENT ON CONSTRAINT kept_lost_id_fkey ON shop.kept IS 'goes with it';
    CREATE VIEW shop.of_lost AS SELECT id FROM shop.lost; COMMENT ON VIEW shop.of_lost IS 'goes with it';
    CREATE FUNCTION shop.rows_of_lost() RETURNS SETOF shop.lost LANGUAGE sql AS 'SELECT * FROM shop.lost';
    CREATE FUNCTION shop.plain() RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE TABLE shop.audit (id int PRIMARY KEY);
    CREATE POLICY by_lost ON shop.kept USING (EXISTS (SELECT FROM shop.lost)); CREATE POLICY plain ON shop.kept USING (true);
    CREATE RULE also AS ON DELETE TO shop.audit DO ALSO DELETE FROM shop.lost;
    CREATE TABLE shop.root (id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
    CREATE TABLE shop.leaf PARTITION OF shop.root FOR VALUES FROM (0) TO (100);
    CREATE INDEX ON shop.root (note);
    CREATE TABLE shop.tree (id int PRIMARY KEY) PARTITION BY RANGE (id);
    CREATE TABLE shop.near PARTITION OF shop.tree FOR VALUES FROM (0) TO (100);
    CREATE TABLE shop.far PARTITION OF shop.tree FOR VALUES FROM (100) TO (200);
    CREATE TABLE shop.items (id serial PRIMARY KEY, n int); CREATE TABLE shop.fresh (LIKE shop.items INCLUDING ALL);
    ALTER TABLE shop.items RENAME TO items_x; ALTER TABLE shop.fresh RENAME TO items; INSERT INTO shop.items (n) VALUES (1), (2);
    INSERT INTO shop.lost SELECT 1, 'x'; INSERT INTO shop.kept VALUES (1, 1), (2, NULL); INSERT INTO shop.root VALUES (7, 'seven');
    INSERT INTO shop.tree VALUES (8), (108); INSERT INTO shop.audit VALUES (1)";

/// Nor is anything begun.
async fn nothing_comes_that_inherits_from_what_is_left_out(pair: &Pair) {
    pair.source_sql("CREATE TABLE shop.heir (PRIMARY KEY (id)) INHERITS (shop.lost)").await;
    for command in ["check", "run"] {
        let said = Walferry::run(pair, &[command, "--exclude-tables", "shop.lost"], PATIENCE).code(3);
        let words = "the filter leaves out what tables need that come: ";
        let (_, needs) = said.stdout.split_once(words).or(said.stderr.split_once(words)).unwrap();
        assert!(needs.contains("table shop.heir needs table shop.lost"), "{needs}");
    }
    assert_eq!(traces(pair).await, [""; 0]);
    pair.source_sql("DROP TABLE shop.heir").await;
}

/// The story: the functions and rules of a table that was left out were
/// restored all the same, and the schema, or the end, failed in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_left_out_take_along_what_needs_them_and_the_rest_moves() {
    let pair = Pair::builder().start().await;
    pair.source_sql(SCHEMA).await;
    nothing_comes_that_inherits_from_what_is_left_out(&pair).await;
    // The root of a partition that comes; a partition of a root that comes.
    let tables = "shop.kept,shop.leaf,shop.tree,shop.near,shop.audit,shop.items*";
    let filter = ["--tables", tables, "--exclude-tables", "shop.far,*_x"];
    let run = |command: &'static str, more: &[&'static str]| {
        Walferry::run(&pair, &[&[command], &filter[..], more].concat(), PATIENCE)
    };
    let check = run("check", &[]).code(0).stdout;
    for words in [
        "constraint kept_lost_id_fkey on table shop.kept",
        "view shop.of_lost",
        "CREATE VIEW shop.of_lost AS\n         SELECT",
        "function shop.rows_of_lost()",
        "policy by_lost on table shop.kept",
        "rule also on table shop.audit",
    ] {
        assert!(check.contains(words), "no {words} in:\n{check}");
    }
    let daemon = streaming(&pair, &filter).await;
    pair.source_sql("INSERT INTO shop.kept VALUES (3, NULL); UPDATE shop.leaf SET note = 'more'; INSERT INTO shop.tree VALUES (9); INSERT INTO shop.audit VALUES (2); INSERT INTO shop.items (n) VALUES (3)").await;
    daemon.terminate(PATIENCE).code(0);
    run("catchup", &["--finish"]).code(0);

    let (source, target) = (pair.source_client().await, pair.target_client().await);
    let of = async |client: &tokio_postgres::Client, sql: &str| -> String {
        client.query_one(sql, &[]).await.unwrap().get::<_, Option<String>>(0).unwrap_or_default()
    };
    assert_eq!(of(&target, KEPT).await, of(&source, KEPT).await);
    let tree = "SELECT string_agg(id::text, ',' ORDER BY id) FROM shop.tree WHERE id < 100";
    assert_eq!(of(&target, tree).await, of(&source, tree).await);
    let tables = "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')";
    assert_eq!(of(&target, tables).await, "audit,items,items_id_seq,kept,leaf,near,tree");
    // Its owner was replaced by the table that uses it, and is left out.
    let numbers = "SELECT string_agg(id::text, ',' ORDER BY id) || nextval('shop.items_id_seq') FROM shop.items";
    assert_eq!(of(&target, numbers).await, of(&source, numbers).await);
    let functions = "SELECT string_agg(proname, ',') FROM pg_proc WHERE pronamespace = 'shop'::regnamespace";
    assert_eq!(of(&target, functions).await, "plain");
}

/// The story: the view over it, and the key of another table to it, did not come with the
/// table, nor at the end, and nothing named them.
#[tokio::test]
async fn what_was_left_out_with_a_table_comes_with_it_when_that_is_let_in() {
    let setup = "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE f (id int PRIMARY KEY, p int REFERENCES p, n text UNIQUE); \
         CREATE TABLE k (id int PRIMARY KEY, f int REFERENCES f); CREATE TABLE out (id int PRIMARY KEY); \
         CREATE VIEW v AS SELECT p.id, f.n FROM p JOIN f ON f.p = p.id; COMMENT ON VIEW v IS 'both'; CREATE VIEW w AS SELECT n FROM v; \
         CREATE VIEW beyond AS SELECT f.id FROM f JOIN out ON out.id = f.id; CREATE FUNCTION g() RETURNS SETOF f LANGUAGE sql AS 'SELECT * FROM f'; \
         CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM f; \
         INSERT INTO p VALUES (1); INSERT INTO f VALUES (1, 1, 'f'); INSERT INTO k VALUES (1, 1)";
    let mut story = Story::of(setup, &["--exclude-tables", "f,out"]).await;
    story.arguments = ["--exclude-tables", "out"].map(str::to_owned).to_vec();
    story.run(&["add", "public.f"], 0);
    story.source("INSERT INTO f VALUES (2, 1, 'g'); REFRESH MATERIALIZED VIEW m").await;
    story.run(&["catchup", "--finish"], 0);
    let objects = "SELECT string_agg(x, '; ' ORDER BY x) FROM ( \
          SELECT conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace \
          UNION ALL SELECT relname || pg_get_viewdef(oid) || coalesce(obj_description(oid), '') FROM pg_class \
            WHERE relkind IN ('v', 'm') AND relnamespace = 'public'::regnamespace AND relname <> 'beyond' \
          UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace \
          UNION ALL SELECT m::text FROM m UNION ALL SELECT w::text FROM w) AS s (x)";
    assert_eq!(value(&story.target, objects).await, value(&story.source, objects).await);
    assert_eq!(value(&story.target, "SELECT to_regclass('beyond') IS NULL").await, "t");
}

/// Of what cannot come then, as something else has its name, the SQL is told.
#[tokio::test]
async fn what_was_left_out_with_a_table_and_cannot_come_is_told_with_the_sql() {
    let setup =
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE f (id int PRIMARY KEY); CREATE VIEW v AS SELECT id FROM f";
    let mut story = Story::of(setup, &["--exclude-tables", "f"]).await;
    story.arguments.clear();
    story.target.batch_execute("CREATE TABLE v (id int)").await.unwrap();
    let said = story.run(&["add", "public.f"], 0).stderr;
    assert!(said.contains("CREATE VIEW public.v AS"), "{said}");
    story.target.batch_execute("DROP TABLE v").await.unwrap();
    story.ends_equal().await;
}

/// Those that are left out are named to pg_dump a hundred in a pattern: what means
/// something in a pattern means itself in a name.
#[tokio::test(flavor = "multi_thread")]
async fn many_tables_with_odd_names_are_left_out_and_none_besides() {
    let pair = Pair::builder().start().await;
    let odd = ["a.b", "c|d", "E\"f", "(g)", "h*", "i?", "$j", "k\\l", "m\nn", "[o]", "^p", "q+", "r{2}", "UPPER"];
    let similar = ["axb", "c", "d", "ef", "g", "hh", "i", "j", "kl", "mn", "o", "p", "qq", "rr", "upper"];
    let create = |name: &&str| format!("CREATE TABLE mix.\"{}\" (id int PRIMARY KEY);", name.replace('"', "\"\""));
    let many =
        "DO $$ BEGIN FOR i IN 1..230 LOOP EXECUTE format('CREATE TABLE mix.out_%s (id int)', i); END LOOP; END $$";
    let all: String = odd.iter().chain(&similar).map(create).collect();
    pair.source_sql(&format!("CREATE SCHEMA mix; {all} {many}; INSERT INTO mix.axb VALUES (1)")).await;
    let wanted: Vec<String> = similar.iter().map(|name| format!("mix.{name}")).collect();
    let filter = ["--tables", &wanted.join(",")];
    Walferry::run(&pair, &[&["run", "--until", "caught-up"], &filter[..]].concat(), PATIENCE).code(0);
    Walferry::run(&pair, &[&["catchup", "--finish"], &filter[..]].concat(), PATIENCE).code(0);
    let tables = "SELECT array_agg(relname::text ORDER BY relname COLLATE \"C\") FROM pg_class WHERE relnamespace = 'mix'::regnamespace AND relkind = 'r'";
    let there: Vec<String> = pair.target_client().await.query_one(tables, &[]).await.unwrap().get(0);
    let mut expected = similar.map(str::to_owned).to_vec();
    expected.sort();
    assert_eq!(there, expected);
}

/// The story: the names of tables that are left out were looked up as well, which is
/// refused where their schema may not be used on the target; check was ready.
#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_may_not_be_used_stops_nothing_where_its_tables_are_left_out() {
    let pair = Pair::builder().start().await;
    let sql = "CREATE SCHEMA vault; CREATE TABLE vault.t (id int PRIMARY KEY); CREATE TABLE public.kept (id int PRIMARY KEY); \
         INSERT INTO public.kept VALUES (1)";
    pair.source_sql(sql).await;
    let target = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    target.batch_execute("CREATE SCHEMA vault; CREATE TABLE vault.t (id int PRIMARY KEY)").await.unwrap();
    for schema in ["create", "existing"] {
        if schema == "existing" {
            pair.target_client().await.batch_execute("CREATE TABLE public.kept (id int PRIMARY KEY)").await.unwrap();
        }
        let run = |arguments: &[&str]| {
            let filter = ["--exclude-tables", "vault.t", "--schema", schema];
            Walferry::run(&pair, &[arguments, &filter[..]].concat(), PATIENCE).code(0)
        };
        run(&["check"]);
        run(&["run", "--until", "caught-up"]);
        pair.source_sql("INSERT INTO public.kept SELECT max(id) + 1 FROM public.kept").await;
        run(&["resync", "public.kept"]);
        run(&["catchup"]);
        let sum = "SELECT sum(id) FROM public.kept";
        assert_eq!(value(&target, sum).await, value(&source_admin(&pair).await, sum).await);
        Walferry::run(&pair, &["cleanup", "--yes"], PATIENCE).code(0);
        target.batch_execute("DROP TABLE public.kept").await.unwrap();
    }
}

/// The story: the exclusion of a view was taken as one that fits something, check hid the
/// view, and it came all the same.
#[tokio::test(flavor = "multi_thread")]
async fn views_that_are_excluded_stay_behind_with_what_is_over_them_and_others_come() {
    let pair = Pair::builder().start().await;
    let setup = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE VIEW v AS SELECT id FROM t; \
         CREATE VIEW over_v AS SELECT id FROM v; CREATE MATERIALIZED VIEW secret AS SELECT id FROM t; \
         CREATE MATERIALIZED VIEW open AS SELECT id FROM t";
    pair.source_sql(setup).await;
    let run = |command: &[&str], filter: &[&str]| Walferry::run(&pair, &[command, filter].concat(), PATIENCE).code(0);
    let listed = run(&["check"], &["--tables", "t"]).stdout;
    assert!(listed.contains("public.open, public.secret") || listed.contains("public.secret, public.open"), "{listed}");
    let filter = ["--exclude-tables", "v,secret"];
    let said = run(&["check"], &filter).stdout;
    assert!(said.contains("view public.over_v") && said.contains("public.open") && !said.contains("secret"), "{said}");
    run(&["run", "--until", "caught-up"], &filter);
    run(&["catchup", "--finish"], &filter);
    let views = "SELECT string_agg(relname, ' ') FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 'public'::regnamespace";
    assert_eq!(value(&pair.target_client().await, views).await, "open");
    pair.assert_equal().await;
}
