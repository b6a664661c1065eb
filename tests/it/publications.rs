//! Several publications of the operator's for one migration: what they publish
//! together is what is asked of them, and what arrives.

use crate::journey::{Journey, PATIENCE, execute, value};
use crate::support::pair::{Pair, SourceRole};
use crate::support::process::{Finished, Walferry};
use crate::support::{servers, some_of, wait_until};

const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, v varchar(20)); CREATE TABLE u (id int PRIMARY KEY, v text);
    INSERT INTO t SELECT i, 'x' FROM generate_series(1, 100) AS i; INSERT INTO u SELECT i, 'x' FROM generate_series(1, 20) AS i";

/// Changes of every kind, of both tables in one transaction too.
const CHANGES: [&str; 4] = [
    "INSERT INTO t VALUES (101, 'new'); UPDATE u SET v = 'y' WHERE id <= 5; DELETE FROM t WHERE id = 50",
    "UPDATE t SET id = id + 1000 WHERE id = 7; DELETE FROM u WHERE id = 6",
    "TRUNCATE u",
    "INSERT INTO u VALUES (1, 'after')",
];

/// A daemon between the two ends, with these publications.
async fn journey(fixtures: &[&str], publications: &str) -> Journey {
    Journey::on(Pair::builder().start().await, &[&[TABLES], fixtures].concat(), &["--publication", publications]).await
}

fn with(pair: &Pair, arguments: &[&str], publications: &str) -> Finished {
    Walferry::run(pair, &[arguments, &["--publication", publications]].concat(), PATIENCE)
}

#[tokio::test]
async fn two_lists_that_divide_the_tables_carry_them_all_and_stay_what_they_are() {
    let lists = ["CREATE PUBLICATION a FOR TABLE t", "CREATE PUBLICATION b FOR TABLE u"];
    let mut journey = journey(&lists, "a,b").await;
    journey.write(&CHANGES).await;
    journey.finish().await;
    let recorded =
        "SELECT publication || ' ' || further_publications::text || ' ' || publication_is_ours FROM walferry.migration";
    assert_eq!(journey.value(recorded).await, "a {b} false");
    // The order makes no other migration; a publication more or less does.
    journey.arguments(&["--publication", "b, a"]);
    journey.write(&["UPDATE t SET v = 'z'"]).await;
    journey.finish().await;
    let refused = |publications: &str| with(&journey.pair, &["catchup"], publications).code(2).stderr;
    for other in ["a", "a,b,c"] {
        let said = refused(other);
        assert!(said.contains("uses publications a, b, not") && said.contains("--publication 'a, b'"), "{said}");
    }
    let cleaned = with(&journey.pair, &["cleanup"], "a,b").code(0).stdout;
    for name in ["a", "b"] {
        let line = format!("kept publication {name} on the source: it was not made by walferry");
        assert!(cleaned.contains(&line), "{cleaned}");
    }
    let left = "SELECT string_agg(pubname, ' ' ORDER BY pubname) FROM pg_publication";
    assert_eq!(value(&journey.source, left).await, "a b");
}

#[tokio::test]
async fn rows_that_one_of_two_row_filters_lets_through_arrive() {
    let filters = [
        "CREATE PUBLICATION low FOR TABLE t WHERE (id < 20), u",
        "CREATE PUBLICATION high FOR TABLE t WHERE (id > 80)",
    ];
    let mut journey = journey(&filters, "low,high").await;
    journey.write(&CHANGES).await;
    // Out of both, into one, from one to the other, and what neither has.
    let moves = [
        "UPDATE t SET id = 50 WHERE id = 10",
        "UPDATE t SET id = 11000 WHERE id = 45",
        "UPDATE t SET id = 12000 WHERE id = 12",
        "UPDATE t SET v = 'unseen' WHERE id = 60",
        "UPDATE t SET v = 'seen' WHERE id IN (3, 90)",
    ];
    journey.write(&moves).await;
    journey.catch_up().await;
    let rows = "SELECT string_agg(t::text, ' ' ORDER BY id) FROM t";
    let published = format!("{rows} WHERE id < 20 OR id > 80");
    assert_eq!(journey.value(rows).await, value(&journey.source, &published).await);
    // A rewrite is settled by what is published, not by what is not.
    journey.write(&["VACUUM FULL t"]).await;
    journey.catch_up().await;
    assert!(journey.log().contains("its rows are equal"), "{}", journey.log());
    assert_eq!(journey.value(rows).await, value(&journey.source, &published).await);
    // An UPDATE of what only the second one lets through would not come any more.
    journey.write(&["ALTER PUBLICATION high SET (publish = 'insert')"]).await;
    let said = journey.catch_up_again().code(8).stderr;
    assert!(said.contains("public.t is published with a row filter that does not count for all kinds"), "{said}");
    // Copied anew it would be the same again: it is not emptied for that.
    let refused = with(&journey.pair, &["resync", "t"], "low,high").stderr;
    assert!(refused.contains("ALTER PUBLICATION \"high\" SET (publish = "), "{refused}");
    assert_eq!(journey.value(rows).await, value(&journey.source, &published).await);
    journey.write(&["ALTER PUBLICATION high SET (publish = 'insert, update, delete, truncate')"]).await;
    journey.catch_up().await;
    // Without one of them what it let through stands still.
    journey.write(&["ALTER PUBLICATION high DROP TABLE t"]).await;
    let said = journey.catch_up_again().code(8).stderr;
    assert!(said.contains("public.t is published otherwise"), "{said}");
    with(&journey.pair, &["resync", "t"], "low,high").code(0);
    journey.catch_up().await;
    assert_eq!(journey.value(rows).await, value(&journey.source, &format!("{rows} WHERE id < 20")).await);
}

#[tokio::test]
async fn kinds_of_changes_may_be_divided_between_publications_also_of_tables_that_come_later() {
    let kinds = [
        "CREATE PUBLICATION inserts FOR TABLE t, u WITH (publish = 'insert')",
        "CREATE PUBLICATION others FOR TABLE t, u WITH (publish = 'update, delete, truncate')",
    ];
    let mut journey = journey(&kinds, "inserts,others").await;
    journey.write(&CHANGES).await;
    journey.finish().await;
    journey.start();
    journey.streams().await;
    journey
        .write(&["CREATE TABLE late (id int PRIMARY KEY, v text)", "INSERT INTO late VALUES (1, 'x'), (2, 'x')"])
        .await;
    let added = with(&journey.pair, &["add", "late"], "inserts,others");
    // Both of its publications have it now, and keep the kinds that they had.
    added.code(0);
    journey
        .write(&[
            "INSERT INTO late VALUES (3, 'y')",
            "UPDATE late SET v = 'z' WHERE id = 1; DELETE FROM late WHERE id = 2",
        ])
        .await;
    journey.finish().await;
    let lists =
        "SELECT string_agg(pubname || ' ' || pubinsert || ' ' || pubdelete, ', ' ORDER BY pubname) FROM pg_publication
        JOIN pg_publication_tables USING (pubname) WHERE tablename = 'late'";
    assert_eq!(value(&journey.source, lists).await, "inserts true false, others false true");
    journey.write(&["ALTER PUBLICATION others DROP TABLE t", "UPDATE t SET v = 'unseen'"]).await;
    let said = journey.catch_up_again().code(8).stderr;
    assert!(said.contains("public.t is not published with update, delete, truncate any more"), "{said}");
    with(&journey.pair, &["resync", "t"], "inserts,others").code(0);
    journey.write(&["UPDATE t SET v = 'seen'"]).await;
    journey.finish().await;
}

/// The server publishes a partition in the name of the topmost table that one with
/// the option has, whatever the other has.
#[tokio::test]
async fn partitions_that_one_publishes_in_their_roots_name_and_another_in_their_own_arrive_once() {
    let tables = "CREATE TABLE root (id int, r text, v text, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
        CREATE TABLE x PARTITION OF root FOR VALUES IN ('x');
        CREATE TABLE mid PARTITION OF root FOR VALUES IN ('y', 'z') PARTITION BY LIST (r);
        CREATE TABLE y PARTITION OF mid FOR VALUES IN ('y'); CREATE TABLE z PARTITION OF mid FOR VALUES IN ('z');
        INSERT INTO root VALUES (1, 'x', 'a'), (2, 'y', 'a'), (3, 'z', 'a');
        CREATE PUBLICATION rooted FOR TABLE root WITH (publish_via_partition_root);
        CREATE PUBLICATION middle FOR TABLE mid WITH (publish_via_partition_root);
        CREATE PUBLICATION own FOR TABLE root, x, t, u";
    let changes = [
        "INSERT INTO root VALUES (4, 'x', 'b'), (5, 'z', 'b'); UPDATE root SET v = 'c' WHERE id IN (1, 2)",
        "UPDATE root SET r = 'y' WHERE id = 4; DELETE FROM root WHERE id = 3",
    ];
    for (place, server) in servers().into_iter().enumerate() {
        let pair = Pair::builder().servers(&server, &server).start().await;
        let order = ["own,middle,rooted", "rooted,own,middle"][place % 2];
        let mut journey = Journey::on(pair, &[TABLES, tables], &["--publication", order]).await;
        journey.write(&changes).await;
        journey.write(&CHANGES).await;
        journey.finish().await;
        let own = "SELECT string_agg(name, ' ' ORDER BY name) FROM walferry.tables WHERE state = 'ready'";
        assert_eq!(journey.value(own).await, "root t u");
        journey.write(&["TRUNCATE root", "INSERT INTO root VALUES (9, 'y', 'after')"]).await;
        journey.finish().await;
        with(&journey.pair, &["resync", "root"], order).code(0);
        journey.finish().await;
    }
}

/// Only the publication that has the topmost table is asked for its row filter, and
/// its kinds are those that count.
#[tokio::test]
async fn a_root_comes_by_the_row_filter_and_the_kinds_of_the_publication_that_has_it() {
    let pair = Pair::builder().start().await;
    let tables = [
        TABLES,
        "CREATE TABLE root (id int PRIMARY KEY, v varchar(9)) PARTITION BY RANGE (id)",
        "CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (1000)",
        "INSERT INTO root SELECT i, 'x' FROM generate_series(1, 50) AS i",
        "CREATE PUBLICATION rooted FOR TABLE root WHERE (id < 20), t WITH (publish_via_partition_root, publish = 'insert')",
        "CREATE PUBLICATION own FOR TABLE root, t, u",
    ];
    execute(&pair.source_client().await, &tables).await;
    // Inserts would be filtered and the other kinds not, and no TRUNCATE come.
    let checked = with(&pair, &["check"], "own,rooted").code(3).stdout;
    assert!(checked.contains("publishes update, delete, truncate of public.root"), "{checked}");
    let mended = "ALTER PUBLICATION \"rooted\" SET (publish = 'insert, update, delete, truncate');";
    assert!(checked.contains(mended), "{checked}");
    let mut journey = Journey::on(pair, &[mended], &["--publication", "own,rooted"]).await;
    journey
        .write(&[
            "UPDATE root SET v = 'y'",
            "INSERT INTO root VALUES (0, 'new'), (60, 'new')",
            "DELETE FROM root WHERE id IN (5, 30)",
        ])
        .await;
    journey.write(&["UPDATE root SET id = 500 WHERE id = 6; UPDATE root SET id = 6 WHERE id = 40"]).await;
    journey.write(&CHANGES).await;
    journey.catch_up().await;
    let rows = "SELECT string_agg(r::text, ' ' ORDER BY id) FROM root AS r";
    assert_eq!(journey.value(rows).await, value(&journey.source, &format!("{rows} WHERE id < 20")).await);
    for table in ["t", "u"] {
        let rows = format!("SELECT string_agg(r::text, ' ' ORDER BY id) FROM {table} AS r");
        assert_eq!(journey.value(&rows).await, value(&journey.source, &rows).await);
    }
    // How the root is published, altered for a while, is a doubt of the root.
    let without =
        ["ALTER PUBLICATION rooted SET (publish = 'insert')", "ALTER PUBLICATION own SET (publish = 'insert')"];
    let every = ["rooted", "own"].map(|name| mended.replace("rooted", name));
    journey.write(&without).await;
    journey.write(&["DELETE FROM root WHERE id = 1"]).await;
    journey.write(&[&every[0], &every[1]]).await;
    let said = journey.catch_up_again().code(8).stderr;
    assert!(said.contains("public.root is published otherwise"), "{said}");
    with(&journey.pair, &["resync", "root"], "own,rooted").code(0);
    journey.catch_up().await;
    assert_eq!(journey.value(rows).await, value(&journey.source, &format!("{rows} WHERE id < 20")).await);
}

#[tokio::test]
async fn publications_that_do_not_fit_together_are_refused_by_check_and_run_before_anything_is_made() {
    let pair = Pair::builder().start().await;
    let source = pair.source_client().await;
    let made = [
        TABLES,
        "CREATE PUBLICATION whole FOR TABLE t, u",
        "CREATE PUBLICATION lists FOR TABLE t (id)",
        "CREATE PUBLICATION partial FOR TABLE t WHERE (id > 5), u",
        "CREATE PUBLICATION inserts FOR TABLE t, u WITH (publish = 'insert')",
        "CREATE PUBLICATION new FOR TABLE t, u WITH (publish = 'insert')",
        "CREATE PUBLICATION inserts_too FOR TABLE t, u WITH (publish = 'insert')",
        "CREATE PUBLICATION just_t FOR TABLE t",
        "CREATE PUBLICATION just_t_too FOR TABLE t",
    ];
    execute(&source, &made).await;
    let cases = [
        ("whole,lists", "publications differ about the columns of public.t", "ALTER PUBLICATION \"lists\" DROP TABLE"),
        (
            "partial,inserts",
            "a row filter that does not count for all kinds of changes of public.t",
            "ALTER PUBLICATION \"inserts\" SET (publish",
        ),
        (
            "new,inserts_too",
            "none of the publications new, inserts_too publishes update, delete, truncate of public.t, public.u",
            "ALTER PUBLICATION \"new\" SET (publish",
        ),
        (
            "just_t,just_t_too",
            "none of the publications just_t, just_t_too publishes public.u",
            "ALTER PUBLICATION \"just_t\" ADD TABLE ONLY \"public\".\"u\";",
        ),
        (
            "just_t_too,\"Nowhere, else\"",
            "there is no publication \"Nowhere, else\"",
            "CREATE PUBLICATION \"Nowhere, else\" FOR TABLE ONLY \"public\".\"u\";",
        ),
    ];
    for (publications, words, sql) in cases {
        let checked = with(&pair, &["check"], publications).code(3);
        let ran = with(&pair, &["run"], publications).code(3);
        for text in [&checked.stdout, &(ran.stderr + &ran.stdout)] {
            assert!(text.contains(words) && text.contains(sql), "{publications}: no {words} and {sql} in:\n{text}");
        }
        let nothing = "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication WHERE pubname = 'walferry')";
        assert_eq!(value(&source, nothing).await, "0", "{publications}");
        let state = value(&pair.target_client().await, "SELECT to_regnamespace('walferry') IS NULL").await;
        assert_eq!(state, "t", "{publications}");
        // What it prints is what helps; the next cases do without.
        let sql: Vec<&str> = checked.stdout.lines().map(str::trim).filter(|line| line.ends_with(';')).collect();
        execute(&source, &sql).await;
        with(&pair, &["check"], publications).code(0);
        execute(&source, &["DROP PUBLICATION whole", "CREATE PUBLICATION whole FOR TABLE t, u"]).await;
    }
    let checked = with(&pair, &["check"], "whole,\"Whole\"").code(3).stdout;
    assert!(checked.contains("there is no publication \"Whole\" (did you mean whole?)"), "{checked}");
    for slip in ["whole,Whole", "whole,", "\"whole", ""] {
        let refused = with(&pair, &["check"], slip).code(2).stderr;
        assert!(refused.contains("--publication must be names"), "{slip}: {refused}");
    }
}

/// What a publication for all tables has counts for every table, whatever another
/// one lists.
#[tokio::test]
async fn a_publication_for_all_tables_beside_a_list_lifts_row_filters_and_refuses_column_lists() {
    let lists = ["CREATE PUBLICATION every FOR ALL TABLES", "CREATE PUBLICATION filtered FOR TABLE t WHERE (id < 5)"];
    let mut journey = journey(&lists, "filtered,every").await;
    journey.write(&CHANGES).await;
    // Its rows all come with the stream.
    journey.write(&["CREATE TABLE late (id int PRIMARY KEY)"]).await;
    execute(&journey.target, &["CREATE TABLE public.late (id int PRIMARY KEY)"]).await;
    journey.write(&["INSERT INTO late VALUES (1), (2)", "DELETE FROM late WHERE id = 1"]).await;
    journey.finish().await;
    journey.write(&["CREATE PUBLICATION listed FOR TABLE t (id)"]).await;
    let said = with(&journey.pair, &["check", "--name", "other"], "every,listed").stdout;
    assert!(said.contains("publications differ about the columns of public.t"), "{said}");
}

/// From 18 on publications may differ about columns that the server computes.
#[tokio::test]
async fn publications_that_differ_about_generated_columns_are_refused_with_what_mends_it() {
    let Some(server) = servers().pop().filter(|server| server.major >= 18) else { return };
    let pair = Pair::builder().servers(&server, &server).start().await;
    let made = [
        "CREATE TABLE g (id int PRIMARY KEY, d int GENERATED ALWAYS AS (id * 2) STORED)",
        "INSERT INTO g VALUES (1)",
        "CREATE PUBLICATION with_them FOR TABLE g WITH (publish_generated_columns = stored)",
        "CREATE PUBLICATION without FOR TABLE g",
    ];
    let source = pair.source_client().await;
    execute(&source, &made).await;
    let checked = with(&pair, &["check"], "without,with_them").code(3).stdout;
    assert!(checked.contains("publications differ about the columns of public.g"), "{checked}");
    let sql: Vec<&str> = checked.lines().map(str::trim).filter(|line| line.starts_with("ALTER")).collect();
    let mut journey = Journey::on(pair, &sql, &["--publication", "without,with_them"]).await;
    journey.write(&["INSERT INTO g VALUES (2)", "UPDATE g SET id = 3 WHERE id = 1"]).await;
    journey.finish().await;
}

#[tokio::test]
async fn a_table_that_moves_from_one_to_the_other_is_compared_and_named_if_it_differs() {
    let lists = ["CREATE PUBLICATION a FOR TABLE t", "CREATE PUBLICATION b FOR TABLE u"];
    let mut journey = journey(&lists, "a,b").await;
    let moved = "ALTER PUBLICATION a DROP TABLE t; ALTER PUBLICATION b ADD TABLE t";
    journey.write(&[moved, "UPDATE t SET v = 'seen'"]).await;
    journey.finish().await;
    assert!(journey.log().contains("its rows are equal"), "{}", journey.log());
    let back = ["ALTER PUBLICATION b DROP TABLE t", "UPDATE t SET v = 'unseen'", "ALTER PUBLICATION a ADD TABLE t"];
    journey.write(&back).await;
    let said = journey.catch_up_again().code(8).stderr;
    assert!(said.contains("public.t is published otherwise"), "{said}");
    with(&journey.pair, &["resync", "t"], "a,b").code(0);
    journey.write(&["UPDATE t SET v = 'seen again' WHERE id < 9"]).await;
    journey.finish().await;
    only_some_columns_of_it_are_published_for_a_while(&mut journey).await;
}

/// The story: the resync that was advised emptied the table, and said what is to be
/// mended first when it had.
async fn only_some_columns_of_it_are_published_for_a_while(journey: &mut Journey) {
    journey.write(&["ALTER PUBLICATION a SET TABLE t (id)"]).await;
    let said = journey.catch_up_again().code(8).stderr;
    assert!(said.contains("public.t was taken out of the publication and put back"), "{said}");
    journey.write(&["UPDATE t SET v = 'unseen', id = id + 1000 WHERE id < 5"]).await;
    let said = journey.catch_up_again().code(7).stderr;
    assert!(said.contains("only some columns of table public.t are published"), "{said}");
    let resync = || with(&journey.pair, &["resync", "t"], "a,b");
    let said = resync().code(3).stderr;
    let sql = said.lines().map(str::trim).find(|line| line.starts_with("ALTER PUBLICATION")).unwrap();
    assert_eq!(journey.value("SELECT count(*) FROM t").await, "100");
    journey.write(&[sql]).await;
    resync().code(0);
    journey.write(&["UPDATE t SET v = 'seen at last' WHERE id > 90"]).await;
    journey.finish().await;
}

/// Before 18 the server decodes nothing with a publication that is not there; from
/// then on it goes on with the others, and the tables that it had are named.
#[tokio::test]
async fn a_publication_that_is_dropped_while_streaming_is_named() {
    let lists = ["CREATE PUBLICATION a FOR TABLE t", "CREATE PUBLICATION b FOR TABLE u"];
    let drop = ["DROP PUBLICATION b", "UPDATE t SET v = 'y'; UPDATE u SET v = 'unseen'"];
    for server in some_of(servers()) {
        let pair = Pair::builder().servers(&server, &server).start().await;
        let mut journey = Journey::on(pair, &[&[TABLES], &lists[..]].concat(), &["--publication", "a,b"]).await;
        // It streams once this is there.
        journey.write(&["UPDATE u SET v = 'streamed'"]).await;
        wait_until("the daemon applies changes", PATIENCE, || async {
            journey.value("SELECT count(*) FROM u WHERE v = 'streamed'").await == "20"
        })
        .await;
        journey.write(&drop).await;
        if server.major < 18 {
            let gone = "publication b does not exist on the source any more";
            let ended = journey.stopped(6).stderr;
            assert!(ended.contains(gone), "{ended}");
            let said = journey.catch_up_again().code(6).stderr;
            let sql = "CREATE PUBLICATION \"b\" FOR TABLE ONLY \"public\".\"t\", ONLY \"public\".\"u\";";
            assert!(said.contains(gone) && said.contains(sql) && said.contains("walferry resync '*'"), "{said}");
            journey.write(&[sql]).await;
            with(&journey.pair, &["resync", "*"], "a,b").code(0);
            journey.start();
            journey.finish().await;
            continue;
        }
        let said = journey.catch_up_again().code(8).stderr;
        assert!(said.contains("public.u is not published any more"), "{said}");
        journey.stopped(0);
        let refused = with(&journey.pair, &["resync", "u"], "a,b").stderr;
        let sql = "CREATE PUBLICATION \"b\" FOR TABLE ONLY \"public\".\"u\";";
        assert!(refused.contains("there is no publication b") && refused.contains(sql), "{refused}");
        assert_eq!(journey.value("SELECT count(*) FROM u").await, "20", "nothing was emptied for it");
        journey.write(&[sql]).await;
        with(&journey.pair, &["resync", "u"], "a,b").code(0);
        journey.start();
        journey.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_read_as_sql_has_them_and_a_second_stream_has_all_of_them() {
    let lists = ["CREATE PUBLICATION \"Odd, \"\"one\"\"\" FOR TABLE t", "CREATE PUBLICATION \"it's\" FOR TABLE u"];
    let names = "\"Odd, \"\"one\"\"\" , \"it's\"";
    let mut journey = journey(&lists, names).await;
    journey.write(&CHANGES).await;
    journey.catch_up().await;
    journey.start();
    journey.streams().await;
    // The daemon copies it beside the stream, and takes its changes from another slot.
    execute(&journey.target, &["UPDATE u SET v = 'damaged'; DELETE FROM t WHERE id < 10"]).await;
    let done = with(&journey.pair, &["resync", "t", "u", "--json"], names).code(0).json();
    assert_eq!(done["by_daemon"], true, "{done}");
    journey.write(&["UPDATE u SET v = 'streamed'", "UPDATE t SET v = 'streamed' WHERE id < 30"]).await;
    journey.finish().await;
    // The same as a list of the file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("walferry.toml");
    std::fs::write(&file, "publication = ['\"Odd, \"\"one\"\"\"', \"\\\"it's\\\"\"]\n").unwrap();
    journey.write(&["UPDATE u SET v = 'by the file'"]).await;
    Walferry::run(&journey.pair, &["catchup", "--config", file.to_str().unwrap()], PATIENCE).code(0);
    journey.pair.assert_equal().await;
}

/// Whose words they are for is said by the publication that they name.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_is_for_the_owner_to_publish_in_the_first_list_where_our_role_may_not() {
    let pair = Pair::builder().source_role(SourceRole::Restricted).start().await;
    let own = [
        &TABLES.replace("TABLE ", "TABLE public.").replace("INTO ", "INTO public."),
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO mig_src",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO mig_src",
        "CREATE PUBLICATION inserts FOR TABLE public.t WITH (publish = 'insert')",
        "CREATE PUBLICATION first FOR TABLE public.t",
        "CREATE PUBLICATION second FOR TABLE public.u",
    ];
    let publications = "inserts,first,second";
    let mut journey = Journey::on(pair, &own, &["--publication", publications]).await;
    // pg_dump's words were all that was said.
    journey
        .write(&["CREATE TABLE public.hidden (id int PRIMARY KEY)", "REVOKE ALL ON public.hidden FROM mig_src"])
        .await;
    let hidden = with(&journey.pair, &["add", "hidden"], publications).code(3).stderr;
    assert!(hidden.contains("GRANT SELECT ON \"public\".\"hidden\" TO \"mig_src\";"), "{hidden}");
    journey.write(&["DROP TABLE public.hidden"]).await;
    journey.write(&["CREATE TABLE public.late (id int PRIMARY KEY)", "INSERT INTO public.late VALUES (1)"]).await;
    let refused = with(&journey.pair, &["add", "late"], publications).code(4).stderr;
    let sql = "BEGIN; LOCK TABLE ONLY \"public\".\"late\" IN SHARE ROW EXCLUSIVE MODE; ALTER PUBLICATION \"first\" ADD TABLE ONLY \"public\".\"late\"; COMMIT;";
    assert!(refused.contains(sql), "no {sql} in:\n{refused}");
    journey.write(&[sql]).await;
    with(&journey.pair, &["add", "late"], publications).code(0);
    journey.write(&["INSERT INTO public.late VALUES (2)", "DELETE FROM public.late WHERE id = 1"]).await;
    journey.finish().await;
}

/// The story: the SQL took a table out of its publication without ONLY, and with it
/// the tables that inherit from it.
#[tokio::test]
async fn the_sql_that_mends_a_column_list_leaves_those_published_that_inherit() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "CREATE TABLE parent (id int PRIMARY KEY, a int, b int); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent); \
         INSERT INTO parent VALUES (1, 2, 3); INSERT INTO child VALUES (4, 5, 6); \
         CREATE PUBLICATION mine FOR TABLE ONLY parent (id, a), ONLY child",
    )
    .await;
    pair.target_client()
        .await
        .batch_execute("CREATE TABLE parent (id int PRIMARY KEY, a int, b int); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent)")
        .await
        .unwrap();
    let arguments = ["--publication", "mine", "--schema", "existing"];
    let check = Walferry::run(&pair, &[&["check"], &arguments[..]].concat(), PATIENCE).code(3).stdout;
    let sql = check.lines().map(str::trim).find(|line| line.starts_with("ALTER PUBLICATION")).unwrap();
    pair.source_sql(sql).await;
    let published =
        "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables WHERE pubname = 'mine'";
    assert_eq!(value(&pair.source_client().await, published).await, "child parent", "{sql}");
    Walferry::run(&pair, &[&["run", "--until", "caught-up"], &arguments[..]].concat(), PATIENCE).code(0);
    pair.source_sql("UPDATE ONLY parent SET b = 30; UPDATE child SET b = 60").await;
    Walferry::run(&pair, &[&["catchup"], &arguments[..]].concat(), PATIENCE).code(0);
    pair.assert_equal().await;
}

/// The story: run added its tables to somebody else's publication that happened to have
/// the migration's name, and cleanup left them there.
#[tokio::test]
async fn a_publication_of_the_migrations_name_that_it_has_not_created_is_left_as_it_is() {
    let pair = Pair::builder().source_role(SourceRole::Superuser).start().await;
    let source = pair.source_client().await;
    source.batch_execute(&format!("{TABLES}; CREATE PUBLICATION walferry FOR TABLE t")).await.unwrap();
    let lists = "SELECT count(*)::text FROM pg_publication_tables WHERE pubname = 'walferry'";
    let said = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
    let sql = "ALTER PUBLICATION \"walferry\" ADD TABLE ONLY \"public\".\"u\";";
    assert!(said.contains(sql) && said.contains("another --name"), "{said}");
    let said = Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(3).stderr;
    assert!(said.contains(sql), "{said}");
    assert_eq!(value(&source, lists).await, "1");
    // With another name it makes its own; with what is printed it uses this one.
    Walferry::run(&pair, &["check", "--name", "mine"], PATIENCE).code(0);
    source.batch_execute(sql).await.unwrap();
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    pair.assert_equal().await;
}
