//! What no stream tells of is noticed before anything is called equal: tables
//! that are not published any more, or not logged, that were rewritten, detached,
//! or emptied by what is not sent. Each of these once ended with exit 0 and
//! different rows.

use crate::journey::{Journey, PATIENCE, execute, value};
use crate::migration::streaming;
use crate::story::Story;
use crate::support::pair::{Pair, SourceRole};
use crate::support::process::Walferry;
use crate::support::{some_of, wait_until};

const TABLES: &str = "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text);
    INSERT INTO a SELECT i, 'x' FROM generate_series(1, 20) AS i; INSERT INTO b SELECT i, 'x' FROM generate_series(1, 20) AS i";

/// After these statements on the source a catch-up ends with 8 and says this; the
/// table copied anew, with 0 and equal.
async fn noticed_and_mended(journey: &mut Journey, statements: &[&str], words: &str, table: &str) {
    journey.write(statements).await;
    let said = journey.catch_up_again().code(8).stderr;
    assert!(said.contains(words), "no \"{words}\" in:\n{said}");
    journey.stopped(0);
    Walferry::run(&journey.pair, &["resync", table], PATIENCE).code(0);
    journey.start();
    journey.finish().await;
    journey.start();
    journey.streams().await;
}

#[tokio::test]
async fn a_table_that_is_taken_out_of_the_publication_is_named_also_when_it_is_put_back() {
    let mut journey = Journey::of(&[TABLES]).await;
    let take_out = ["ALTER PUBLICATION walferry DROP TABLE a", "UPDATE a SET v = 'unseen'"];
    noticed_and_mended(&mut journey, &take_out, "public.a is not published any more", "a").await;
    let and_put_back = [take_out[0], "UPDATE a SET v = 'unseen again'", "ALTER PUBLICATION walferry ADD TABLE ONLY a"];
    noticed_and_mended(&mut journey, &and_put_back, "public.a was taken out of the publication and put back", "a")
        .await;
}

#[tokio::test]
async fn a_table_that_leaves_the_schema_that_is_published_is_named() {
    let pair = Pair::builder().start().await;
    let own = "CREATE SCHEMA s; CREATE SCHEMA elsewhere; CREATE TABLE s.t (id int PRIMARY KEY, v text); INSERT INTO s.t VALUES (1, 'x');
        CREATE PUBLICATION mine FOR TABLES IN SCHEMA s";
    let arguments = ["--publication", "mine"];
    let journey = Journey::on(pair, &[own], &arguments).await;
    journey.write(&["ALTER TABLE s.t SET SCHEMA elsewhere", "UPDATE elsewhere.t SET v = 'unseen'"]).await;
    let said = Walferry::run(&journey.pair, &["catchup", "--publication", "mine"], PATIENCE).code(8).stderr;
    assert!(said.contains("s.t is elsewhere.t on the source by now"), "{said}");
    execute(&journey.target, &["ALTER TABLE s.t SET SCHEMA elsewhere"]).await;
    let said = Walferry::run(&journey.pair, &["catchup", "--publication", "mine"], PATIENCE).code(8).stderr;
    assert!(said.contains("elsewhere.t is not published any more"), "{said}");
    // What it says is what helps, though the stream has met no change of it since.
    Walferry::run(&journey.pair, &["resync", "elsewhere.t", "--publication", "mine"], PATIENCE).code(0);
    Walferry::run(&journey.pair, &["catchup", "--publication", "mine"], PATIENCE).code(0);
    journey.pair.assert_equal().await;
}

#[tokio::test]
async fn a_partition_that_is_detached_is_named_until_it_is_on_the_target_too() {
    let tables = "CREATE TABLE root (id int, r text, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
        CREATE TABLE leaf PARTITION OF root FOR VALUES IN ('a'); INSERT INTO root VALUES (1, 'a')";
    let mut journey = Journey::of(&[tables]).await;
    let detach = "ALTER TABLE root DETACH PARTITION leaf";
    journey.write(&[detach, "INSERT INTO leaf VALUES (2, 'a')"]).await;
    let said = journey.catch_up_with(&[]).code(8).stderr;
    assert!(said.contains("public.leaf is not published any more"), "{said}");
    journey.stopped(0);
    let differs = "public.leaf is no partition on the source and a partition of public.root on the target";
    assert!(said.contains(differs), "{said}");
    // Its rows may not fit where it is.
    let refused = Walferry::run(&journey.pair, &["resync", "leaf"], PATIENCE).code(7).stderr;
    assert!(refused.contains(differs), "{refused}");
    execute(&journey.target, &[detach]).await;
    Walferry::run(&journey.pair, &["resync", "leaf"], PATIENCE).code(0);
    journey.catch_up_with(&[]).code(0);
    journey.pair.assert_equal().await;
}

/// The story: rows loaded while a table was unlogged never arrived.
#[tokio::test]
async fn a_table_that_was_unlogged_for_a_while_is_compared_and_named() {
    // Of a list of tables none can be made unlogged.
    let mut journey = Journey::of_all_tables(&[TABLES]).await;
    let load = [
        "ALTER TABLE a SET UNLOGGED",
        "INSERT INTO a SELECT i, 'y' FROM generate_series(100, 200) AS i",
        "ALTER TABLE a SET LOGGED",
    ];
    noticed_and_mended(&mut journey, &load, "public.a was rewritten on the source", "a").await;
    journey.write(&["ALTER TABLE b SET UNLOGGED"]).await;
    let said = journey.catch_up_with(&["--all-tables"]).code(8).stderr;
    assert!(said.contains("public.b is unlogged on the source by now"), "{said}");
}

/// A rewrite that changes nothing is none of the operator's business.
#[tokio::test]
async fn a_table_that_was_merely_rewritten_or_emptied_by_truncate_is_found_equal() {
    let mut journey = Journey::of(&[TABLES]).await;
    journey.write(&["VACUUM FULL a", "TRUNCATE b", "INSERT INTO b VALUES (1, 'new')", "CLUSTER a USING a_pkey"]).await;
    journey.finish().await;
    assert!(journey.log().contains("its rows are equal"), "{}", journey.log());
}

#[tokio::test]
async fn a_table_that_was_created_unlogged_and_logged_later_is_not_taken_for_one_whose_rows_all_came() {
    let mut journey = Journey::of_all_tables(&[TABLES]).await;
    let create = "CREATE UNLOGGED TABLE late (id int PRIMARY KEY)";
    journey.write(&[create, "INSERT INTO late SELECT generate_series(1, 5)", "ALTER TABLE late SET LOGGED"]).await;
    let said = journey.catch_up_with(&["--all-tables"]).code(8).stderr;
    assert!(said.contains("public.late was created on the source after the copy"), "{said}");
    journey.stopped(0);
    execute(&journey.target, &["CREATE TABLE late (id int PRIMARY KEY)"]).await;
    journey.write(&["INSERT INTO late VALUES (6)"]).await;
    journey.start();
    let ended = journey.stopped(7);
    assert!(ended.stderr.contains("walferry add"), "{}", ended.stderr);
    Walferry::run(&journey.pair, &["add", "late", "--all-tables"], PATIENCE).code(0);
    journey.start();
    journey.finish().await;
    assert_eq!(journey.value("SELECT count(*) FROM late").await, "6");
}

#[tokio::test]
async fn an_unlogged_table_that_is_logged_by_the_end_is_named() {
    let tables = "CREATE TABLE known (id int PRIMARY KEY); CREATE UNLOGGED TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)";
    let mut journey = Journey::of(&[tables]).await;
    journey.write(&["ALTER TABLE u SET LOGGED"]).await;
    let said = journey.catch_up_with(&[]).code(8).stderr;
    let words = "public.u was unlogged and is logged by now";
    assert!(said.contains(words), "{said}");
    journey.stopped(0);
    // A daemon says so before it streams.
    let daemon = streaming(&journey.pair, &[]).await.terminate(PATIENCE).code(0);
    assert!(daemon.stderr.contains(words), "{}", daemon.stderr);
    // The target's table, which walferry has made, becomes one that keeps its rows.
    Walferry::run(&journey.pair, &["add", "u"], PATIENCE).code(0);
    journey.start();
    journey.finish().await;
    assert_eq!(journey.value("SELECT count(*) FROM u").await, "1");
}

const ROOTED: &str = "CREATE TABLE root (id int, r text, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
    CREATE TABLE x PARTITION OF root FOR VALUES IN ('x'); CREATE TABLE y PARTITION OF root FOR VALUES IN ('y');
    INSERT INTO root VALUES (1, 'x'), (2, 'y'); CREATE TABLE plain (id int PRIMARY KEY); INSERT INTO plain VALUES (1);
    CREATE PUBLICATION rooted FOR TABLE root, plain WITH (publish_via_partition_root)";

/// The story: equal, but the catch-up ended with 8 for ever.
#[tokio::test]
async fn partitions_that_are_published_in_their_roots_name_are_carried() {
    let mut journey = Journey::on(Pair::builder().start().await, &[ROOTED], &["--publication", "rooted"]).await;
    journey.write(&["INSERT INTO root VALUES (3, 'x')", "UPDATE root SET r = 'y' WHERE id = 1"]).await;
    journey.finish().await;
    // The TRUNCATE of a partition is not sent in the name of its root.
    journey.write(&["TRUNCATE y"]).await;
    let said = journey.catch_up_with(&["--publication", "rooted"]).code(8).stderr;
    assert!(said.contains("public.y was rewritten on the source"), "{said}");
    Walferry::run(&journey.pair, &["resync", "root", "--publication", "rooted"], PATIENCE).code(0);
    journey.catch_up_with(&["--publication", "rooted"]).code(0);
    journey.pair.assert_equal().await;
}

/// Rows come in the root's name: how the target parts them is its own business.
#[tokio::test]
async fn a_target_that_parts_its_rows_otherwise_gets_them_through_the_root() {
    let pair = Pair::builder().start().await;
    let there = "CREATE TABLE public.root (id int, r text, PRIMARY KEY (id, r)) PARTITION BY HASH (id);
        CREATE TABLE public.h0 PARTITION OF public.root FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE public.h1 PARTITION OF public.root FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE TABLE public.plain (id int PRIMARY KEY)";
    execute(&pair.target_client().await, &[there]).await;
    let arguments = ["--publication", "rooted", "--schema", "existing"];
    let journey = Journey::on(pair, &[ROOTED], &arguments).await;
    journey.write(&["INSERT INTO root VALUES (3, 'x')", "DELETE FROM root WHERE id = 2"]).await;
    let with = |command: &'static str| -> Vec<&'static str> { std::iter::once(command).chain(arguments).collect() };
    Walferry::run(&journey.pair, &with("catchup"), PATIENCE).code(0);
    let rows = "SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM root AS t";
    assert_eq!(journey.value(rows).await, value(&journey.source, rows).await);
    let resync: Vec<&str> = ["resync", "root"].into_iter().chain(arguments).collect();
    Walferry::run(&journey.pair, &resync, PATIENCE).code(0);
    Walferry::run(&journey.pair, &with("catchup"), PATIENCE).code(0);
    assert_eq!(journey.value(rows).await, value(&journey.source, rows).await);
    // So do those that are taken in later, whoever publishes them.
    for later in ["mine", "ours"] {
        let root = format!("CREATE TABLE public.{later} (id int, r text, PRIMARY KEY (id, r)) PARTITION BY");
        let here = format!(
            "{root} LIST (r); CREATE TABLE {later}_x PARTITION OF {later} FOR VALUES IN ('x'); INSERT INTO {later} VALUES (1, 'x'), (2, 'x'); \
             CREATE TABLE {later}_y PARTITION OF {later} FOR VALUES IN ('y')"
        );
        let there = format!("{root} RANGE (id); CREATE TABLE public.all_{later} PARTITION OF public.{later} DEFAULT");
        journey.write(&[&here]).await;
        execute(&journey.target, &[&there]).await;
    }
    journey.write(&["ALTER PUBLICATION rooted ADD TABLE mine"]).await;
    let add: Vec<&str> = ["add", "mine", "ours"].into_iter().chain(arguments).collect();
    Walferry::run(&journey.pair, &add, PATIENCE).code(0);
    for later in ["mine", "ours"] {
        journey.write(&[&format!("UPDATE {later} SET r = 'y' WHERE id = 2; DELETE FROM {later} WHERE id = 1")]).await;
    }
    Walferry::run(&journey.pair, &with("catchup"), PATIENCE).code(0);
    let rows = "SELECT concat_ws(' ', mine, ours) FROM mine, ours";
    assert_eq!(journey.value(rows).await, "(2,y) (2,y)");
    assert_eq!(journey.value(rows).await, value(&journey.source, rows).await);
}

#[tokio::test]
async fn a_publication_that_leaves_kinds_or_columns_out_is_refused_with_the_sql() {
    for (publication, words) in some_of([
        ("CREATE PUBLICATION mine FOR TABLE t WITH (publish = 'insert')", "does not publish update, delete, truncate"),
        ("CREATE PUBLICATION mine FOR TABLE t (id)", "publishes only some columns of public.t"),
    ]) {
        let pair = Pair::builder().start().await;
        pair.source_sql(&format!("CREATE TABLE t (id int PRIMARY KEY, v text); {publication}")).await;
        let checked = Walferry::run(&pair, &["check", "--publication", "mine"], PATIENCE).code(3);
        let ran = Walferry::run(&pair, &["run", "--publication", "mine"], PATIENCE).code(3);
        for text in [checked.stdout, ran.stderr + &ran.stdout] {
            assert!(text.contains(words) && text.contains("ALTER PUBLICATION \"mine\""), "{text}");
        }
    }
}

/// Without its column on the target nothing is amiss.
#[tokio::test]
async fn a_column_that_is_not_published_need_not_be_on_the_target() {
    let pair = Pair::builder().start().await;
    execute(&pair.target_client().await, &["CREATE TABLE public.t (id int PRIMARY KEY)"]).await;
    let own = "CREATE TABLE t (id int PRIMARY KEY, secret text); INSERT INTO t VALUES (1, 's'); CREATE PUBLICATION mine FOR TABLE t (id)";
    let arguments = ["--publication", "mine", "--schema", "existing"];
    let journey = Journey::on(pair, &[own], &arguments).await;
    journey.write(&["INSERT INTO t VALUES (2, 's')", "UPDATE t SET secret = 'z'"]).await;
    let catchup: Vec<&str> = std::iter::once("catchup").chain(arguments).collect();
    Walferry::run(&journey.pair, &catchup, PATIENCE).code(0);
    assert_eq!(journey.value("SELECT string_agg(id::text, ' ' ORDER BY id) FROM t").await, "1 2");
}

/// The stories: what was altered and put back between two looks left other rows
/// behind exit 0.
#[tokio::test]
async fn what_was_altered_and_put_back_is_compared_before_it_is_called_equal() {
    let mut journey = Journey::of(&[TABLES]).await;
    let without_deletes = [
        "ALTER PUBLICATION walferry SET (publish = 'insert, update')",
        "DELETE FROM a WHERE id = 1",
        "ALTER PUBLICATION walferry SET (publish = 'insert, update, delete, truncate')",
    ];
    noticed_and_mended(&mut journey, &without_deletes, "public.a is published otherwise", "a").await;
    journey.write(&[without_deletes[0], without_deletes[2]]).await;
    journey.finish().await;
    assert!(journey.log().contains("its rows are equal"), "{}", journey.log());
}

#[tokio::test]
async fn a_table_that_left_the_schema_that_is_published_for_a_while_is_compared() {
    let own = "CREATE SCHEMA s; CREATE SCHEMA elsewhere; CREATE TABLE s.t (id int PRIMARY KEY, v text); INSERT INTO s.t VALUES (1, 'x');
        CREATE PUBLICATION mine FOR TABLES IN SCHEMA s";
    let arguments = ["--publication", "mine"];
    let mut journey = Journey::on(Pair::builder().start().await, &[own], &arguments).await;
    let away = "ALTER TABLE s.t SET SCHEMA elsewhere";
    let back = "ALTER TABLE elsewhere.t SET SCHEMA s";
    journey.write(&[away, "UPDATE elsewhere.t SET v = 'unseen'", back]).await;
    let said = journey.catch_up_again().code(8).stderr;
    assert!(said.contains("s.t is published otherwise"), "{said}");
    Walferry::run(&journey.pair, &["resync", "s.t", "--publication", "mine"], PATIENCE).code(0);
    journey.write(&[away, back]).await;
    journey.catch_up_again().code(0);
    journey.pair.assert_equal().await;
}

#[tokio::test]
async fn partitions_of_a_root_that_is_published_as_one_are_followed_through_its_life() {
    let arguments = ["--publication", "rooted"];
    let mut journey = Journey::on(Pair::builder().start().await, &[ROOTED], &arguments).await;
    let resync = |journey: &Journey| {
        Walferry::run(&journey.pair, &["resync", "root", "--publication", "rooted"], PATIENCE).code(0);
    };
    // Detached, changed, attached.
    let (detach, attach) =
        ("ALTER TABLE root DETACH PARTITION x", "ALTER TABLE root ATTACH PARTITION x FOR VALUES IN ('x')");
    journey.write(&[detach, "INSERT INTO x VALUES (9, 'x')", attach]).await;
    let said = journey.catch_up_again().code(8).stderr;
    assert!(said.contains("public.x is published otherwise"), "{said}");
    resync(&journey);
    journey.catch_up_again().code(0);
    journey.pair.assert_equal().await;
    // One that comes later, with the rows it had before.
    let create = "CREATE TABLE z (id int, r text, PRIMARY KEY (id, r))";
    let join = "ALTER TABLE root ATTACH PARTITION z FOR VALUES IN ('z')";
    journey.write(&[create, "INSERT INTO z VALUES (7, 'z')", join, "INSERT INTO root VALUES (8, 'z')"]).await;
    execute(&journey.target, &["CREATE TABLE public.z PARTITION OF public.root FOR VALUES IN ('z')"]).await;
    let said = journey.catch_up_again().code(8).stderr;
    assert!(said.contains("public.z was made a partition after the copy"), "{said}");
    resync(&journey);
    journey.catch_up_again().code(0);
    journey.catch_up_again().code(0);
    journey.pair.assert_equal().await;
}

#[tokio::test]
async fn a_table_that_is_left_out_and_attached_to_a_root_published_as_one_is_named() {
    let tables =
        format!("CREATE TABLE o (id int, r text, PRIMARY KEY (id, r)); INSERT INTO o VALUES (5, 'o'); {ROOTED}");
    let arguments = ["--publication", "rooted", "--exclude-tables", "o"];
    let mut journey = Journey::on(Pair::builder().start().await, &[&tables], &arguments).await;
    journey.write(&["ALTER TABLE root ATTACH PARTITION o FOR VALUES IN ('o')"]).await;
    let said = journey.catch_up_again().code(8).stderr;
    assert!(said.contains("public.o is left out, and cannot be: its rows come in the name of public.root"), "{said}");
}

/// The stories: a SELECT of the parent had other rows on the target, with exit 0, where
/// the schema there is the operator's.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_gets_another_place_is_named_also_in_a_schema_of_the_operators() {
    let tables = "CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id); \
         CREATE TABLE r_0 PARTITION OF r FOR VALUES FROM (0) TO (100); CREATE TABLE c (id int PRIMARY KEY); \
         CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE i (id int PRIMARY KEY); CREATE TABLE n (PRIMARY KEY (id)) INHERITS (p)";
    // Of these the operator has made something else.
    let (here, there) = (
        "CREATE TABLE own (PRIMARY KEY (id)) INHERITS (p); CREATE TABLE r_1 PARTITION OF r FOR VALUES FROM (900) TO (999)",
        "CREATE TABLE own (id int PRIMARY KEY); CREATE TABLE r_1 (id int PRIMARY KEY)",
    );
    for schema in some_of(["existing", "none"]) {
        let pair = Pair::builder().start().await;
        pair.target_client().await.batch_execute(&format!("{tables}; {there}")).await.unwrap();
        let setup =
            format!("{tables}; {here}; INSERT INTO c VALUES (150); INSERT INTO i VALUES (1); INSERT INTO n VALUES (2)");
        let story = Story::on(pair, &setup, &["--schema", schema]).await;
        story.run(&["catchup"], 0);
        let moved = "ALTER TABLE r ATTACH PARTITION c FOR VALUES FROM (100) TO (200); ALTER TABLE i INHERIT p; ALTER TABLE n NO INHERIT p";
        story.source(moved).await;
        let said = story.run(&["catchup"], 8).stderr;
        for words in [
            "3 tables are not equal",
            "public.c is a partition of public.r",
            "INHERIT \"public\".\"p\"",
            "NO INHERIT \"public\".\"p\"",
        ] {
            assert!(said.contains(words), "{schema}: no {words} in:\n{said}");
        }
        story.target.batch_execute(moved).await.unwrap();
        story.run(&["catchup", "--finish"], 0);
    }
}

/// The story: check was ready after its own SQL, and the first UPDATE stopped for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_in_whose_name_rows_come_is_asked_for_a_replica_identity() {
    let pair = Pair::builder().source_role(SourceRole::Superuser).start().await;
    let setup = "CREATE TABLE r (id int, v text) PARTITION BY RANGE (id); \
         CREATE TABLE r_0 PARTITION OF r FOR VALUES FROM (0) TO (100); INSERT INTO r VALUES (1, 'a'); \
         CREATE PUBLICATION mine FOR TABLE r WITH (publish_via_partition_root)";
    pair.source_sql(setup).await;
    let run = |arguments: &[&str]| Walferry::run(&pair, &[arguments, &["--publication", "mine"]].concat(), PATIENCE);
    let said = run(&["check"]).code(3).stdout;
    for table in ["r", "r_0"] {
        let sql = format!("ALTER TABLE \"public\".\"{table}\" REPLICA IDENTITY FULL;");
        assert!(said.contains(&sql), "no {sql} in:\n{said}");
        pair.source_sql(&sql).await;
    }
    run(&["check"]).code(0);
    run(&["run", "--until", "caught-up"]).code(0);
    pair.source_sql("UPDATE r SET v = 'b'").await;
    run(&["catchup"]).code(0);
    pair.assert_equal().await;
}

/// The story: after a TRUNCATE every rehearsal asked for a new copy of a table that was
/// only written to.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_written_to_while_they_are_compared_are_said_to_be() {
    let setup =
        "CREATE TABLE a (id serial PRIMARY KEY, v text); INSERT INTO a (v) SELECT 'x' FROM generate_series(1, 20)";
    let story = Story::of(setup, &[]).await;
    story.source("TRUNCATE a").await;
    let writer = story.pair.source_client().await;
    let writes = tokio::spawn(async move {
        while writer.batch_execute("INSERT INTO a (v) VALUES ('y'); SELECT pg_sleep(0.01)").await.is_ok() {}
    });
    wait_until("rows come", PATIENCE, || async {
        value(&story.source, "SELECT (count(*) > 9)::text FROM a").await == "true"
    })
    .await;
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains("written to on the source just now"), "{said}");
    writes.abort();
    assert!(writes.await.is_err());
    story.ends_equal().await;
    story.run(&["catchup", "--finish"], 0);
}

/// The story: asked for was a copy of the root, which was refused, for ever; and a
/// partition that the target lacks was not said at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_attached_to_a_root_published_as_one_is_named_in_a_schema_of_the_operators() {
    let tables = "CREATE TABLE r (id int PRIMARY KEY) PARTITION BY RANGE (id); \
         CREATE TABLE r_0 PARTITION OF r FOR VALUES FROM (0) TO (100); CREATE TABLE c (id int PRIMARY KEY)";
    let pair = Pair::builder().start().await;
    pair.target_client().await.batch_execute(tables).await.unwrap();
    let setup = format!(
        "{tables}; INSERT INTO r VALUES (1); INSERT INTO c VALUES (150); \
         CREATE PUBLICATION mine FOR TABLE ONLY r, ONLY c WITH (publish_via_partition_root)"
    );
    let story = Story::on(pair, &setup, &["--schema", "existing", "--publication", "mine"]).await;
    let attached = "ALTER TABLE r ATTACH PARTITION c FOR VALUES FROM (100) TO (200)";
    story.source(attached).await;
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains("ATTACH PARTITION"), "{said}");
    story.target.batch_execute(attached).await.unwrap();
    story.ends_equal().await;
    story.source("CREATE TABLE r_2 PARTITION OF r FOR VALUES FROM (200) TO (300)").await;
    let said = story.run(&["catchup"], 0).stderr;
    assert!(said.contains("public.r_2") && said.contains("PARTITION OF"), "{said}");
}

/// The story: check was ready, and run and the SQL of its stops went in a circle.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_its_root_is_refused_where_its_rows_come_in_the_roots_name() {
    let pair = Pair::builder().source_role(SourceRole::Superuser).start().await;
    let setup = "CREATE SCHEMA a; CREATE TABLE a.r (id int PRIMARY KEY) PARTITION BY RANGE (id); \
         CREATE TABLE p PARTITION OF a.r FOR VALUES FROM (0) TO (100); CREATE TABLE a.p PARTITION OF a.r FOR VALUES FROM (100) TO (200); \
         INSERT INTO a.r VALUES (1), (101); CREATE PUBLICATION mine FOR TABLE ONLY a.r WITH (publish_via_partition_root)";
    pair.source_sql(setup).await;
    let with = ["--publication", "mine", "--schemas", "public"];
    let said = Walferry::run(&pair, &[&["check"][..], &with].concat(), PATIENCE).code(3).stdout;
    let sql = "ALTER PUBLICATION \"mine\" SET (publish_via_partition_root = false);";
    assert!(said.contains("public.p cannot take part without it") && said.contains(sql), "{said}");
    pair.source_sql(sql).await;
    Walferry::run(&pair, &[&["run", "--until", "caught-up"][..], &with].concat(), PATIENCE).code(0);
    let target = pair.target_client().await;
    assert_eq!(value(&target, "SELECT string_agg(id::text, ' ') FROM p").await, "1");
}

/// The story: ALTER TABLE … SET LOGGED was printed with the name that the source's has no
/// more, and resync with one that fits none; the rename was not said.
#[tokio::test]
async fn a_table_that_was_set_unlogged_and_renamed_is_named_as_it_is_called_now() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); INSERT INTO t VALUES (1); \
         CREATE PUBLICATION own FOR ALL TABLES";
    for rename_first in some_of([true, false]) {
        let story = Story::of(setup, &["--publication", "own"]).await;
        story.source("ALTER TABLE t SET UNLOGGED; ALTER TABLE t RENAME TO tr; INSERT INTO tr VALUES (2)").await;
        let said = story.run(&["catchup"], 8).stderr;
        let (_, error) = said.split_once("error: ").unwrap();
        let (rename, logged) =
            ("ALTER TABLE \"public\".\"t\" RENAME TO \"tr\";", "ALTER TABLE \"public\".\"tr\" SET LOGGED;");
        let (first, then) = error.split_once(rename).unwrap();
        assert!(then.contains(logged) && then.contains("walferry resync 'public.tr'"), "{said}");
        assert!(!first.contains("SET LOGGED"), "{said}");
        if rename_first {
            story.target.batch_execute(rename).await.unwrap();
            let said = story.run(&["catchup"], 8).stderr;
            assert!(said.contains(logged) && said.contains("walferry resync 'public.tr'"), "{said}");
        }
        story.source(logged).await;
        story.leads_to_the_end().await;
    }
}
