//! Types that somebody has made, and what they are made of: each story ended with exit 0 and
//! values that were rounded, compared otherwise, or in SQL that the server refuses.

use crate::journey::{PATIENCE, value};
use crate::story::Story;
use crate::support::pair::Pair;
use crate::support::process::{Walferry, command_for};
use crate::support::{some_of, wait_until};

/// Domains in arrays, in a composite type and in a range.
const OURS: &str = "CREATE DOMAIN d AS numeric(10,4); CREATE TYPE c AS (a d); CREATE TYPE r AS RANGE (subtype = numeric); \
     CREATE TABLE t (id int PRIMARY KEY, da d[], cd c, rn r); \
     INSERT INTO t VALUES (1, '{1.2345}', '(1.2345)', '[1.00000000000000000001,2]')";

/// What takes them, and rounds.
const THEIRS: [(&str, &str); 2] = [
    (
        "public.d",
        "CREATE DOMAIN d AS numeric(10,1); CREATE TYPE c AS (a d); CREATE TYPE r AS RANGE (subtype = numeric)",
    ),
    ("public.r", "CREATE DOMAIN d AS numeric(10,4); CREATE TYPE c AS (a d); CREATE TYPE r AS RANGE (subtype = float8)"),
];

#[tokio::test]
async fn a_type_of_the_targets_that_holds_less_within_a_columns_type_is_refused_before_a_row_is_written() {
    let refused = "values of public.t consist of types that are others on the target";
    for mode in some_of(["existing", "none"]) {
        for (what, theirs) in THEIRS {
            let pair = Pair::builder().start().await;
            pair.source_sql(OURS).await;
            let target = pair.target_client().await;
            target.batch_execute(theirs).await.unwrap();
            target.batch_execute("CREATE TABLE t (id int PRIMARY KEY, da d[], cd c, rn r)").await.unwrap();
            let said = Walferry::run(&pair, &["check", "--schema", mode], PATIENCE).code(3).stdout;
            assert!(said.contains(refused) && said.contains(what), "{said}");
            let said = Walferry::run(&pair, &["run", "--schema", mode], PATIENCE).code(3).stderr;
            assert!(said.contains(refused) && said.contains(what), "{said}");
            assert_eq!(value(&target, "SELECT count(*)::text FROM t").await, "0");
            if what == "public.d" {
                for line in said.lines().filter_map(|line| Some(line.split_once(": ALTER ")?.1)) {
                    target.batch_execute(&format!("ALTER {line}")).await.unwrap();
                }
                // The composite type is of the former domain still.
                target
                    .batch_execute("ALTER TABLE t DROP cd; DROP TYPE c; CREATE TYPE c AS (a d); ALTER TABLE t ADD cd c")
                    .await
                    .unwrap();
                Walferry::run(&pair, &["run", "--schema", mode, "--until", "caught-up"], PATIENCE).code(0);
                Walferry::run(&pair, &["catchup", "--finish", "--schema", mode], PATIENCE).code(0);
                pair.assert_equal().await;
            }
        }
    }
}

/// How each is replaced by one that holds more, as the owner of the source does it.
const REPLACED: [&str; 2] = [
    "ALTER DOMAIN d RENAME TO d_old; CREATE DOMAIN d AS numeric(10,4); ALTER TABLE t ALTER da TYPE d[]; \
     ALTER TABLE e ALTER da TYPE d[]",
    "ALTER DOMAIN d RENAME TO d_old; CREATE DOMAIN d AS numeric(10,4) DEFAULT 7 CHECK (value > 0); \
     ALTER TABLE t ALTER da DROP DEFAULT, ALTER da TYPE d[], ALTER da SET DEFAULT '{1}'; ALTER TABLE e ALTER da TYPE d[]; DROP DOMAIN d_old",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_was_replaced_within_arrays_is_named_and_values_that_came_are_compared() {
    for replaced in some_of(REPLACED) {
        let story = Story::of(
            "CREATE DOMAIN d AS numeric(10,1); CREATE TABLE t (id int PRIMARY KEY, da d[] DEFAULT '{1}'); \
             CREATE TABLE e (id int PRIMARY KEY, da d[]); INSERT INTO t VALUES (1, '{1.5}')",
            &[],
        )
        .await;
        story.source(replaced).await;
        story.source("INSERT INTO t VALUES (100, '{1.2345}'); INSERT INTO e VALUES (100, '{1.2345}')").await;
        let said = story.run(&["catchup"], 8).stderr;
        assert!(
            said.contains("ALTER TYPE public.d RENAME TO \"d_former\"; CREATE DOMAIN public.d AS numeric(10,4)"),
            "{said}"
        );
        // What copies through the type as it is would be no remedy.
        story.run(&["resync", "public.t"], 3);
        story.leads_to_the_end().await;
        let default = "INSERT INTO t (id) VALUES (7) RETURNING da::text";
        assert_eq!(value(&story.target, default).await, value(&story.source, default).await);
    }
}

/// The order of labels decides what ORDER BY, min and < say, and which partition a row is in.
#[tokio::test(flavor = "multi_thread")]
async fn labels_in_another_order_are_named_where_the_schema_is_walferrys() {
    let setup = "CREATE TYPE mood AS ENUM ('low', 'mid', 'high'); CREATE TABLE t (id int PRIMARY KEY, m mood DEFAULT 'mid', ms mood[]); \
         CREATE TABLE u (m mood PRIMARY KEY); INSERT INTO t VALUES (1, 'low', '{low}'), (2, 'mid', '{mid,high}'), (3, 'high', '{}'); \
         INSERT INTO u VALUES ('low'), ('high')";
    let story = Story::of(setup, &[]).await;
    story
        .source(
            "ALTER TYPE mood RENAME TO mood_old; CREATE TYPE mood AS ENUM ('high', 'mid', 'low'); ALTER TABLE t ALTER m DROP DEFAULT, \
             ALTER m TYPE mood USING m::text::mood, ALTER m SET DEFAULT 'mid', ALTER ms TYPE mood[] USING ms::text::mood[]; \
             ALTER TABLE u ALTER m TYPE mood USING m::text::mood; DROP TYPE mood_old",
        )
        .await;
    story.source("INSERT INTO t VALUES (4, 'high', '{low}')").await;
    story.leads_to_the_end().await;
    let order = "SELECT string_agg(id::text, ' ' ORDER BY m, id) FROM t";
    assert_eq!(value(&story.target, order).await, value(&story.source, order).await);
}

/// The server refuses to alter a composite type that a column has.
#[tokio::test(flavor = "multi_thread")]
async fn an_attribute_gets_another_type_although_columns_have_values_of_it() {
    let story = Story::of(
        "CREATE TYPE c AS (a numeric(10,1), b text); CREATE DOMAIN cd AS c; CREATE TABLE t (id int PRIMARY KEY, c c, cs c[], cd cd); \
         INSERT INTO t VALUES (1, '(1.5,x)', '{\"(2.5,\\\"y \\\"\\\"z\\\")\"}', '(3.5,)')",
        &[],
    )
    .await;
    story
        .source(
            "ALTER TABLE t ALTER c TYPE text USING c::text, ALTER cs TYPE text USING cs::text, ALTER cd TYPE text USING cd::text; \
             ALTER TYPE c ALTER ATTRIBUTE a TYPE numeric(10,4); \
             ALTER TABLE t ALTER c TYPE c USING c::c, ALTER cs TYPE c[] USING cs::c[], ALTER cd TYPE cd USING cd::cd",
        )
        .await;
    story.source("INSERT INTO t VALUES (2, '(1.2345,x)', '{}', NULL)").await;
    story.leads_to_the_end().await;
}

/// It is altered as what it is: `ALTER TYPE` says that it is no composite type.
#[tokio::test(flavor = "multi_thread")]
async fn the_row_type_of_a_table_is_altered_as_the_table() {
    for arguments in some_of([&[][..], &["--exclude-tables", "a"]]) {
        let setup = "CREATE TABLE a (x int PRIMARY KEY, y text); CREATE TABLE b (id int PRIMARY KEY, r a); \
             INSERT INTO b VALUES (1, '(1,one)')";
        let pair = Pair::builder().start().await;
        if !arguments.is_empty() {
            pair.target_client()
                .await
                .batch_execute("CREATE TABLE a (x int PRIMARY KEY, y text); CREATE TABLE b (id int PRIMARY KEY, r a)")
                .await
                .unwrap();
        }
        let all: Vec<&str> = arguments
            .iter()
            .copied()
            .chain(["--schema", if arguments.is_empty() { "create" } else { "existing" }])
            .collect();
        let story = Story::on(pair, setup, &all).await;
        story.source("ALTER TABLE a ADD z int").await;
        story.source("INSERT INTO b VALUES (2, '(2,two,22)')").await;
        let said = story.run(&["catchup"], 7).stderr;
        assert!(said.contains("ALTER TABLE \"public\".\"a\" ADD COLUMN") && !said.contains("ALTER TYPE"), "{said}");
        story.leads_to_the_end().await;
    }
}

/// The story: what was asked before rows are written knew types by their names alone, and said
/// to drop an attribute that was renamed; and a column of the operator's that is a text was to
/// become of the type.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_before_rows_are_written_knows_renames_and_columns_of_another_kind() {
    let tables = "CREATE TYPE c AS (a int, b text); CREATE DOMAIN d AS numeric(10,1); \
         CREATE TABLE t (id int PRIMARY KEY, c c, da d[]); CREATE TABLE u (id int PRIMARY KEY, c c, da d[])";
    let rows = "INSERT INTO t VALUES (1, '(1,x)', '{1.5}'); INSERT INTO u VALUES (1, '(1,x)', '{1.5}')";
    let pair = Pair::builder().start().await;
    let target = pair.target_client().await;
    target.batch_execute(tables).await.unwrap();
    target.batch_execute("ALTER TABLE u ALTER da TYPE text USING da::text").await.unwrap();
    let story = Story::on(pair, &format!("{tables}; {rows}"), &["--schema", "existing"]).await;
    story.source("ALTER TYPE c RENAME ATTRIBUTE a TO z").await;
    let said = story.run(&["resync", "public.u"], 3).stderr;
    assert!(said.contains("RENAME ATTRIBUTE \"a\" TO \"z\"") && !said.contains("DROP ATTRIBUTE"), "{said}");
    story.target.batch_execute("ALTER TYPE c RENAME ATTRIBUTE a TO z").await.unwrap();
    story
        .source(
            "ALTER DOMAIN d RENAME TO d_old; CREATE DOMAIN d AS numeric(10,4); ALTER TABLE t ALTER da TYPE d[]; \
             ALTER TABLE u ALTER da TYPE d[]; DROP DOMAIN d_old; INSERT INTO u VALUES (2, NULL, '{1.2345}')",
        )
        .await;
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains("ALTER TABLE \"public\".\"t\" ALTER COLUMN \"da\" TYPE public.d[]"), "{said}");
    assert!(!said.contains("ALTER TABLE \"public\".\"u\" ALTER COLUMN"), "{said}");
    assert_eq!(value(&story.target, "SELECT da FROM u WHERE id = 2").await, "{1.2345}");
}

/// The story that would be: a replacement on the target rounded what was there, was undone, and
/// both sides were called equal.
#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_was_another_one_on_the_target_meanwhile_leads_to_the_rows_that_it_rounded() {
    let setup = "CREATE DOMAIN d AS numeric(10,4); CREATE TABLE t (id int PRIMARY KEY, da d[]); INSERT INTO t VALUES (1, '{1.2345}')";
    let story = Story::of(setup, &[]).await;
    for kind in ["numeric(10,1)", "numeric(10,4)"] {
        let replace = format!(
            "ALTER DOMAIN d RENAME TO d_old; CREATE DOMAIN d AS {kind}; ALTER TABLE t ALTER da TYPE d[]; DROP DOMAIN d_old"
        );
        story.target.batch_execute(&replace).await.unwrap();
    }
    assert_ne!(value(&story.target, "SELECT da::text FROM t").await, "{1.2345}");
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains("walferry resync 'public.t'"), "{said}");
    story.leads_to_the_end().await;
}

/// What a type was paired with is known to a table that comes later, and to a copy that goes
/// on: an attribute that was renamed is none to drop.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_is_known_to_what_is_copied_later() {
    let is_said = |said: &str| said.contains("RENAME ATTRIBUTE ") && !said.contains("DROP ATTRIBUTE");
    let tables = "CREATE TYPE c AS (a int, b text); CREATE TABLE t (id int PRIMARY KEY, c c)";
    let pair = Pair::builder().start().await;
    pair.target_client().await.batch_execute(tables).await.unwrap();
    let story =
        Story::on(pair, &format!("{tables}; INSERT INTO t VALUES (1, '(1,x)')"), &["--schema", "existing"]).await;
    let rename = "ALTER TYPE c RENAME ATTRIBUTE a TO z";
    let later = "CREATE TABLE u (id int PRIMARY KEY, c c)";
    story.target.batch_execute(later).await.unwrap();
    story.source(&format!("{later}; {rename}; INSERT INTO u VALUES (1, '(1,x)')")).await;
    let said = story.run(&["resync", "public.t"], 3).stderr;
    assert!(is_said(&said), "resync: {said}");
    let said = story.run(&["add", "public.u"], 3).stderr;
    assert!(is_said(&said), "add: {said}");
    story.target.batch_execute(rename).await.unwrap();
    story.leads_on().await;
    // A table that a copy anew has emptied, behind another one of the type.
    let mut emptied = command_for(&story.pair, &["resync", "public.u", "--schema", "existing"]);
    emptied.env("WALFERRY_FAILPOINT", "copy-before-commit:1");
    Walferry::spawn(emptied).wait(PATIENCE);
    let back = "ALTER TYPE c RENAME ATTRIBUTE z TO a";
    story.source(back).await;
    let daemon = Walferry::on(&story.pair, &["run", "--schema", "existing"]);
    wait_until("it says so", PATIENCE, || async { daemon.stderr().contains("could not be copied beside the stream") })
        .await;
    let said = daemon.terminate(PATIENCE).code(0).stderr;
    assert!(is_said(&said), "daemon: {said}");
    let said = story.run(&["catchup"], 3).stderr;
    assert!(is_said(&said), "catchup: {said}");
    story.target.batch_execute(back).await.unwrap();
    story.leads_to_the_end().await;

    let story = Story::cut_off(&format!("{tables}; INSERT INTO t VALUES (1, '(1,x)')")).await;
    story.source(rename).await;
    let said = story.run(&["run", "--until", "caught-up"], 3).stderr;
    assert!(is_said(&said), "run: {said}");
    story.do_what_is_printed(&story.run(&["run", "--until", "caught-up"], 3)).await;
    story.leads_through(&["run", "--until", "caught-up"]).await;
    story.leads_to_the_end().await;
}

/// The stories: "TYPE ???" of a domain that had been dropped and made anew, and a value that an
/// attribute did not take without a word of the type.
#[tokio::test(flavor = "multi_thread")]
async fn values_from_before_a_type_was_dropped_or_widened_lead_to_the_sql() {
    let story = Story::of(
        "CREATE DOMAIN d AS int CHECK (value >= 0); CREATE TABLE t (id int PRIMARY KEY, d d); INSERT INTO t VALUES (1, 1)",
        &[],
    )
    .await;
    // Nothing has to be mended, whether it is one transaction or several.
    let again = "INSERT INTO t VALUES (20, 20); ALTER TABLE t ALTER d TYPE int; DROP DOMAIN d; INSERT INTO t VALUES (21, 20); \
         CREATE DOMAIN d AS int CHECK (value >= 0); ALTER TABLE t ALTER d TYPE d; UPDATE t SET d = 4 WHERE id = 1";
    story.source(&again.replace('2', "1")).await;
    story.ends_equal().await;
    for sql in again.split("; ") {
        story.source(sql).await;
    }
    story.ends_equal().await;
    story.leads_to_the_end().await;
    for (before, after, value) in [("int", "bigint", "99999999998"), ("varchar(3)", "varchar(9)", "abcdefg")] {
        let setup = format!(
            "CREATE TYPE c AS (x {before}, y text); CREATE TABLE t (id int PRIMARY KEY, c c); INSERT INTO t VALUES (1, '(1,a)')"
        );
        let story = Story::of(&setup, &[]).await;
        story
            .source(&format!(
                "ALTER TABLE t ALTER c TYPE text; ALTER TYPE c ALTER ATTRIBUTE x TYPE {after}; ALTER TABLE t ALTER c TYPE c USING c::c; \
                 INSERT INTO t VALUES (77, '({value},n)')"
            ))
            .await;
        let said = story.run(&["catchup"], 7).stderr;
        assert!(said.contains("ALTER ATTRIBUTE"), "{said}");
        story.leads_to_the_end().await;
    }
}

/// The story: ADD COLUMN … DEFAULT 'q' was printed for ever, of a type that had no 'q' there.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_came_with_a_default_of_a_type_that_was_altered_leads_to_both() {
    let setup =
        "CREATE TYPE en AS ENUM ('a', 'b'); CREATE TABLE t (id int PRIMARY KEY, e en); INSERT INTO t VALUES (1, 'a')";
    for alter in some_of(["ALTER TYPE en ADD VALUE 'q'", "ALTER TYPE en RENAME VALUE 'b' TO 'q'"]) {
        let story = Story::of(setup, &[]).await;
        story.source(alter).await;
        story.source("ALTER TABLE t ADD f en DEFAULT 'q'; INSERT INTO t (id) VALUES (9)").await;
        story.leads_to_the_end().await;
    }
}
