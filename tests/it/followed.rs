//! Stops that are led out of by what they print, done to the letter, where tables were
//! altered in ways that a stream does not tell of. Each story went in circles, or lost
//! the rows that the advice was about.

use walferry::demo::cluster::SUPERUSER;

use crate::journey::{PATIENCE, value};
use crate::story::Story;
use crate::support::pair::{DATABASE, Pair};
use crate::support::process::Walferry;
use crate::support::{connect, servers, some_of};

const TWO: &str = "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, 'A' FROM generate_series(1, 5) AS i; \
     CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b SELECT i, 'B' FROM generate_series(11, 20) AS i";

const PARTED: &str = "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
     CREATE TABLE p0 PARTITION OF p FOR VALUES FROM (0) TO (100); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (100) TO (200); \
     INSERT INTO p VALUES (1, 'a'), (101, 'b')";

/// The story: 8 for ever, and a `resync` that was refused.
#[tokio::test]
async fn a_root_that_is_left_out_with_all_of_its_partitions_is_no_gap() {
    let setup = format!(
        "{PARTED}; CREATE TABLE a (id int PRIMARY KEY); CREATE PUBLICATION mine FOR ALL TABLES WITH (publish_via_partition_root)"
    );
    for filter in some_of([["--exclude-tables", "p"], ["--tables", "a"]]) {
        let story = Story::of(&setup, &[&["--publication", "mine"], &filter[..]].concat()).await;
        story.source("INSERT INTO p VALUES (2, 'c'); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (200) TO (300); INSERT INTO a VALUES (1)").await;
        story.run(&["catchup"], 0);
    }
}

/// The story: `resync` emptied the table and failed for ever, `add` named `resync`.
#[tokio::test]
async fn a_partition_that_comes_to_a_root_that_is_published_as_one_gets_its_place() {
    let cases = [
        (["add", "public.p2"], "FOR TABLE p"),
        (["resync", "public.p"], "FOR ALL TABLES"),
        (["resync", "*"], "FOR TABLE p"),
        (["add", "public.p2"], "FOR ALL TABLES"),
    ];
    for (command, publication) in some_of(cases) {
        let publish = format!("CREATE PUBLICATION mine {publication} WITH (publish_via_partition_root)");
        let story = Story::of(&format!("{PARTED}; {publish}"), &["--publication", "mine"]).await;
        story
            .source("CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (200) TO (300); INSERT INTO p VALUES (250, 'c')")
            .await;
        story.run(&["catchup"], 7);
        story.run(&command, 0);
        story.source("INSERT INTO p VALUES (251, 'd'); DELETE FROM p WHERE id = 1").await;
        story.ends_equal().await;
    }
}

/// The story: behind the TRUNCATE that was advised the target's new table was called
/// the dropped one, and to be dropped.
#[tokio::test]
async fn a_table_that_was_dropped_and_created_again_takes_the_place_of_the_old_one() {
    for command in some_of([["add", "public.a"], ["resync", "*"]]) {
        let story = Story::of(TWO, &["--all-tables"]).await;
        story.source("DROP TABLE a; CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a VALUES (7, 8)").await;
        let said = story.run(&command, 7);
        story.do_as_printed(&said, "DROP TABLE \"public\".\"a\"").await;
        story.run(&command, 0);
        story.ends_equal().await;
    }
    // To empty it is not enough, as long as it has other columns.
    let story = Story::of(TWO, &[]).await;
    story.source("DROP TABLE a; CREATE TABLE a (id int PRIMARY KEY, n int); INSERT INTO a VALUES (7, 8)").await;
    story.target.batch_execute("TRUNCATE a").await.unwrap();
    let said = story.run(&["add", "public.a"], 7);
    story.do_as_printed(&said, "DROP TABLE \"public\".\"a\"").await;
    story.run(&["add", "public.a"], 0);
    story.ends_equal().await;
}

/// The story: changes of the old table that the stream had not come to yet were applied to
/// the new one.
#[tokio::test]
async fn changes_of_a_dropped_table_are_not_the_new_ones_of_its_name() {
    let old = ["INSERT INTO a VALUES (7, 'old'); DELETE FROM a WHERE id = 1", "TRUNCATE a"];
    let new = ["(id int PRIMARY KEY, v text)", "(n int, id int PRIMARY KEY)"];
    for (old, new) in some_of(old.into_iter().zip(new)) {
        let story = Story::of(TWO, &[]).await;
        story.source(old).await;
        story.source(&format!("DROP TABLE a; CREATE TABLE a {new}; INSERT INTO a (id) VALUES (1), (5)")).await;
        let said = story.run(&["add", "public.a"], 7);
        story.do_as_printed(&said, "DROP TABLE \"public\".\"a\"").await;
        story.run(&["add", "public.a"], 0);
        story.run(&["catchup"], 0);
        story.ends_equal().await;
    }
}

/// The story: what the stream still had of a table that was dropped on both sides was refused
/// for ever, as it does not exist on the target.
#[tokio::test]
async fn changes_of_a_table_that_is_gone_on_both_sides_are_passed_over() {
    let story = Story::of(TWO, &[]).await;
    story.source("UPDATE a SET v = 'late'; UPDATE b SET v = 'x' WHERE id = 11; DROP TABLE a").await;
    story.target.batch_execute("DROP TABLE a").await.unwrap();
    let said = story.run(&["catchup"], 0);
    assert!(said.stderr.contains("it is gone on the source by now"), "{}", said.stderr);
    story.leads_to_the_end().await;
}

/// The stories: two RENAMEs for ever; the new table was renamed to the old one's name and
/// had its changes; nothing led out.
#[tokio::test]
async fn changes_of_a_table_under_two_names_that_is_dropped_later_lead_on() {
    let renamed = "BEGIN; UPDATE a SET v = 'x'; ALTER TABLE a RENAME TO c; UPDATE c SET v = 'y'; COMMIT; DROP TABLE c";
    let swapped = "BEGIN; CREATE TABLE n (LIKE a INCLUDING ALL); INSERT INTO n SELECT * FROM a; ALTER TABLE a RENAME TO c; \
         ALTER TABLE n RENAME TO a; COMMIT; UPDATE c SET v = 'late'; UPDATE a SET v = 'y' WHERE id = 1; DROP TABLE c";
    for (sql, arguments) in some_of([(renamed, &[][..]), (swapped, &[]), (swapped, &["--all-tables"])]) {
        let story = Story::of(TWO, arguments).await;
        story.source(sql).await;
        story.leads_to_the_end().await;
    }
}

/// The story: it was only warned of, and the end was reached without it.
#[tokio::test]
async fn a_table_without_a_row_that_came_later_is_wanted_on_the_target() {
    for empty in some_of([
        "CREATE TABLE e (id int PRIMARY KEY)",
        "CREATE TABLE e (id int) PARTITION BY RANGE (id); CREATE TABLE e_1 PARTITION OF e DEFAULT",
    ]) {
        let story = Story::of(TWO, &["--all-tables"]).await;
        story.source(empty).await;
        let said = story.run(&["catchup"], 8);
        assert!(said.stderr.contains("walferry add 'public.e"), "{}", said.stderr);
        story.leads_to_the_end().await;
        assert_eq!(value(&story.target, "SELECT pg_catalog.to_regclass('e')::text").await, "e");
    }
    // It is taken in with its first row, where somebody has made it there.
    let story = Story::of(TWO, &["--all-tables"]).await;
    story.source("CREATE TABLE e (id int PRIMARY KEY)").await;
    story.target.batch_execute("CREATE TABLE e (id int PRIMARY KEY)").await.unwrap();
    story.run(&["catchup"], 0);
    story.source("INSERT INTO e VALUES (1)").await;
    story.leads_to_the_end().await;
}

/// The story: the same, with a partition.
#[tokio::test]
async fn a_partition_that_was_dropped_and_created_again_takes_the_place_of_the_old_one() {
    let story = Story::of(PARTED, &[]).await;
    story
        .source(
            "DROP TABLE p0; CREATE TABLE p0 PARTITION OF p FOR VALUES FROM (0) TO (100); INSERT INTO p VALUES (3, 'n')",
        )
        .await;
    let said = story.run(&["catchup"], 7);
    story.do_as_printed(&said, "DROP TABLE \"public\".\"p0\"").await;
    assert!(said.stderr.contains("walferry add 'public.p0'"), "{}", said.stderr);
    story.run(&["add", "public.p0"], 0);
    story.ends_equal().await;
}

/// The story: two tables of the source became one of the target, whose rows `add` had
/// advised to empty.
#[tokio::test]
async fn a_new_table_under_the_old_name_of_a_renamed_one_waits_until_that_is_renamed() {
    let story = Story::of(TWO, &[]).await;
    story
        .source(
            "ALTER TABLE a RENAME TO c; CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'new')",
        )
        .await;
    let said = story.run(&["add", "public.a"], 7);
    story.do_as_printed(&said, "ALTER TABLE \"public\".\"a\" RENAME TO \"c\"").await;
    story.run(&["add", "public.a"], 0);
    story.source("INSERT INTO a VALUES (2, 'x'); INSERT INTO c VALUES (6, 'y')").await;
    story.ends_equal().await;
}

/// The story: the RENAME that was printed failed, as the table that was dropped had the name.
#[tokio::test]
async fn a_table_that_takes_the_name_of_a_dropped_one_is_renamed_behind_the_drop() {
    let story = Story::of(TWO, &[]).await;
    story.source("BEGIN; DROP TABLE a; ALTER TABLE b RENAME TO a; COMMIT; INSERT INTO a (id) VALUES (77)").await;
    let said = story.run(&["catchup"], 7);
    story.do_as_printed(&said, "DROP TABLE \"public\".\"a\"; ALTER TABLE \"public\".\"b\" RENAME TO \"a\"").await;
    story.ends_equal().await;
}

/// The story: the name that a table had when it was first written to was advised for
/// ever; or another table had that by then, and was called the one.
#[tokio::test]
async fn a_table_that_was_renamed_before_anybody_met_it_is_told_by_its_present_name() {
    for rename in some_of(["ALTER TABLE n RENAME TO m", "CREATE SCHEMA m; ALTER TABLE n SET SCHEMA m"]) {
        for again in ["", "CREATE TABLE n (id int PRIMARY KEY); INSERT INTO n VALUES (7)"] {
            let story = Story::of(TWO, &["--all-tables"]).await;
            story.source("CREATE TABLE n (id int PRIMARY KEY); INSERT INTO n VALUES (1)").await;
            story.source(rename).await;
            story.source(again).await;
            let mut wanted = vec![if rename.contains("SCHEMA") { "m.n" } else { "public.m" }];
            wanted.extend((!again.is_empty()).then_some("public.n"));
            for table in wanted {
                let said = story.run(&["catchup"], 7).stderr;
                assert!(said.contains(&format!("walferry add '{table}'")), "{table}: {said}");
                story.run(&["add", table], 0);
            }
            story.ends_equal().await;
        }
    }
}

/// The story: `add` was advised, and refused; `--finish` wanted the table to be there.
#[tokio::test]
async fn unlogged_tables_that_came_later_are_created_and_filled_at_the_end() {
    let story = Story::of(TWO, &["--all-tables"]).await;
    story.source("CREATE TABLE n (id serial PRIMARY KEY, v text); INSERT INTO n (v) VALUES ('x')").await;
    story.source("ALTER TABLE n SET UNLOGGED").await;
    story.run(&["catchup"], 0);
    story.run(&["catchup", "--finish"], 0);
    story.pair.assert_equal().await;
    // What happens to it between its coming and the end: it was no member until then.
    for changed in some_of([
        "ALTER TABLE n RENAME TO m",
        "DROP TABLE n",
        "ALTER TABLE n RENAME v TO w; ALTER TABLE n ADD k int DEFAULT 3",
        "DROP TABLE n; CREATE UNLOGGED TABLE n (k text PRIMARY KEY, z int); INSERT INTO n VALUES ('k', 1)",
    ]) {
        let story = Story::of(TWO, &[]).await;
        story.source("CREATE UNLOGGED TABLE n (id serial PRIMARY KEY, v text); INSERT INTO n (v) VALUES ('x')").await;
        story.run(&["catchup"], 0);
        story.source(changed).await;
        story.leads_to_the_end().await;
    }
    // One that a filter left out at first.
    let mut story = Story::of(
        &format!(
            "{TWO}; CREATE UNLOGGED TABLE u (id serial PRIMARY KEY, v text); INSERT INTO u (v) VALUES ('a'), ('b')"
        ),
        &["--exclude-tables", "u"],
    )
    .await;
    story.arguments.clear();
    story.run(&["catchup"], 0);
    let said = story.run(&["add", "public.u"], 2).stderr;
    assert!(said.contains("catchup --finish copies it"), "{said}");
    story.run(&["catchup", "--finish"], 0);
    story.pair.assert_equal().await;
}

/// The story: one table that was unlogged by then kept `resync '*'` from all others.
#[tokio::test]
async fn all_tables_are_copied_anew_but_for_those_that_are_unlogged_by_now() {
    for server in some_of(servers()) {
        let pair = Pair::builder().servers(&server, &server).start().await;
        let publish = "CREATE PUBLICATION mine FOR ALL TABLES";
        let story = Story::on(pair, &format!("{TWO}; {publish}"), &["--publication", "mine"]).await;
        story.source("ALTER TABLE b SET UNLOGGED; DROP PUBLICATION mine").await;
        story.source("INSERT INTO a VALUES (100, 'unseen')").await;
        story.source(publish).await;
        story.run(&["resync", "*"], 0);
        let said = story.run(&["catchup"], 8).stderr;
        assert!(said.contains("ALTER TABLE \"public\".\"b\" SET LOGGED;"), "{said}");
        // Asked for by name it is refused, and not put off until an end that would not copy it.
        let said = story.run(&["resync", "public.b"], 2).stderr;
        assert!(said.contains("make it logged on the source") && !said.contains("--finish"), "{said}");
        story.source("ALTER TABLE b SET LOGGED").await;
        story.run(&["resync", "public.b"], 0);
        story.ends_equal().await;
    }
}

/// The story: the RENAME that was printed failed, as the one that was left out had the name.
#[tokio::test]
async fn names_that_were_exchanged_with_a_table_that_is_left_out_are_exchanged_on_the_target() {
    let exchange = "BEGIN; ALTER TABLE a RENAME TO x; ALTER TABLE b RENAME TO a; ALTER TABLE x RENAME TO b; COMMIT";
    let mut story = Story::of(TWO, &[]).await;
    story.arguments = vec!["--exclude-tables".to_owned(), "b".to_owned()];
    story.run(&["catchup"], 0);
    story.source(exchange).await;
    story.arguments.clear();
    let said = story.run(&["catchup"], 8);
    story.do_as_printed(&said, "ALTER TABLE \"public\".\"a\" RENAME TO").await;
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains("walferry add 'public.a'"), "{said}");
    story.target.batch_execute("TRUNCATE a").await.unwrap();
    story.run(&["add", "public.a"], 0);
    story.source("INSERT INTO a VALUES (101, 'n'); INSERT INTO b VALUES (102, 'n')").await;
    story.ends_equal().await;
}

/// The story: the partition was emptied, and no command got any further than that its
/// rows violate the partition constraint.
#[tokio::test]
async fn a_partition_that_was_detached_is_copied_anew_once_it_is_on_the_target_as_well() {
    let story = Story::of(PARTED, &[]).await;
    story.source("ALTER TABLE p0 SET UNLOGGED").await;
    story.source("ALTER TABLE p DETACH PARTITION p0; INSERT INTO p0 VALUES (500, 'out')").await;
    story.run(&["catchup"], 8);
    story.source("ALTER TABLE p0 SET LOGGED").await;
    let said = story.run(&["resync", "public.p0"], 7);
    story.do_as_printed(&said, "ALTER TABLE \"public\".\"p\" DETACH PARTITION").await;
    story.run(&["resync", "public.p0"], 0);
    story.ends_equal().await;
}

/// The story: of a large schema what waits for the rows was not tried, nor looked up:
/// check said "ready", also behind the failure of the run.
#[tokio::test]
async fn check_of_a_large_schema_finds_taken_names_of_what_waits_and_schemas_that_may_not_be_used() {
    let pair = Pair::builder().start().await;
    pair.source_sql(
        "DO $$ BEGIN FOR i IN 1..5100 LOOP EXECUTE format('CREATE FUNCTION pad%s() RETURNS int LANGUAGE sql AS %L', i, 'SELECT 1'); \
         END LOOP; END $$; CREATE SCHEMA b; CREATE TABLE b.t (id int PRIMARY KEY, v int); CREATE STATISTICS b.st ON id, v FROM b.t",
    )
    .await;
    let target = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    let role: String = pair.target_client().await.query_one("SELECT current_user::text", &[]).await.unwrap().get(0);
    let cases = [
        (
            format!(
                "CREATE SCHEMA b AUTHORIZATION {role}; CREATE TABLE b.k (i int, j int); CREATE STATISTICS b.st ON i, j FROM b.k"
            ),
            "ALTER STATISTICS b.st RENAME TO st_elsewhere;".to_owned(),
        ),
        (
            format!("CREATE SCHEMA b AUTHORIZATION {role}; CREATE TABLE b.k (i int); CREATE INDEX t_pkey ON b.k (i)"),
            "ALTER INDEX IF EXISTS b.t_pkey RENAME TO t_pkey_elsewhere;".to_owned(),
        ),
        (
            format!("CREATE SCHEMA b; GRANT CREATE ON SCHEMA b TO {role}"),
            format!("GRANT USAGE, CREATE ON SCHEMA \"b\" TO \"{role}\";"),
        ),
    ];
    for (make, mends) in cases {
        target.batch_execute(&make).await.unwrap();
        let said = Walferry::run(&pair, &["check"], PATIENCE).code(3).stdout;
        assert!(said.contains(&mends), "no {mends} in:\n{said}");
        target.batch_execute(&mends).await.unwrap();
        Walferry::run(&pair, &["check"], PATIENCE).code(0);
        target.batch_execute("DROP SCHEMA b CASCADE").await.unwrap();
    }
}

/// The story: exit 0, and the root had the rows of the partition on the target alone.
#[tokio::test]
async fn a_partition_that_was_detached_is_named_also_where_the_schema_is_the_operators() {
    for publish in some_of(["", "CREATE PUBLICATION mine FOR ALL TABLES"]) {
        let pair = Pair::builder().start().await;
        let there = PARTED.split_once("; INSERT").unwrap().0;
        pair.target_client().await.batch_execute(there).await.unwrap();
        let publication: &[&str] = if publish.is_empty() { &[] } else { &["--publication", "mine"] };
        let arguments = [&["--schema", "existing"], publication].concat();
        let story = Story::on(pair, &format!("{PARTED}; {publish}"), &arguments).await;
        let detach = "ALTER TABLE p DETACH PARTITION p0";
        story.source(detach).await;
        for (command, code) in [(["catchup"].as_slice(), 8), (&["resync", "public.p0"], 7)] {
            let said = story.run(command, code).stderr;
            assert!(said.contains("DETACH PARTITION \"public\".\"p0\""), "{said}");
        }
        story.target.batch_execute(detach).await.unwrap();
        if publish.is_empty() {
            story.run(&["resync", "public.p0"], 0);
        }
        story.ends_equal().await;
    }
}

/// The story: `catchup` created it anew under its new name, and printed a rename that
/// could not be run.
#[tokio::test]
async fn an_unlogged_table_that_was_renamed_is_renamed_on_the_target() {
    let setup = format!("{TWO}; CREATE UNLOGGED TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)");
    let story = Story::of(&setup, &[]).await;
    story.source("ALTER TABLE u RENAME TO u2").await;
    let said = story.run(&["catchup"], 8);
    story.do_as_printed(&said, "ALTER TABLE \"public\".\"u\" RENAME TO \"u2\"").await;
    story.run(&["catchup", "--finish"], 0);
    story.pair.assert_equal().await;
}

/// The story: check had not a word about it.
#[tokio::test]
async fn partitions_whose_bounds_differ_on_the_target_are_warned_of_where_rows_come_in_their_names() {
    let pair = Pair::builder().start().await;
    pair.source_sql(PARTED).await;
    let there = "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
         CREATE TABLE p0 PARTITION OF p FOR VALUES FROM (100) TO (200); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100)";
    pair.target_client().await.batch_execute(there).await.unwrap();
    let existing = ["--schema", "existing"];
    // Partitions go with the root that is named.
    for filter in [&[][..], &["--tables", "p"]] {
        let said = Walferry::run(&pair, &[&["check"], &existing[..], filter].concat(), PATIENCE).code(0).stdout;
        let warning = "other bounds than on the source, so that rows may be refused: public.p0, public.p1";
        assert!(said.contains(warning), "{said}");
    }
    pair.source_sql("CREATE PUBLICATION mine FOR TABLE p WITH (publish_via_partition_root)").await;
    let rooted = ["--schema", "existing", "--publication", "mine"];
    let said = Walferry::run(&pair, &[&["check"], &rooted[..]].concat(), PATIENCE).code(0).stdout;
    assert!(!said.contains("other bounds"), "{said}");
    Walferry::run(&pair, &[&["run", "--until", "caught-up"], &rooted[..]].concat(), PATIENCE).code(0);
}

/// The story: 0 beside a warning, as only `catchup` looked.
#[tokio::test]
async fn a_run_until_caught_up_does_not_end_well_while_tables_differ() {
    let story = Story::of(TWO, &[]).await;
    story.source("CREATE TABLE n (id int PRIMARY KEY); INSERT INTO n VALUES (1)").await;
    let run = ["run", "--until", "caught-up"];
    let said = story.run(&run, 8).stderr;
    assert!(said.contains("walferry add 'public.n'"), "{said}");
    story.run(&["add", "public.n"], 0);
    story.run(&run, 0);
    story.pair.assert_equal().await;
}

/// The story: `add` of the new partition failed with the server's "would overlap", and
/// nothing said that the old one is to be detached.
#[tokio::test]
async fn a_partition_that_was_detached_renamed_and_replaced_leads_to_the_same_on_the_target() {
    let story = Story::of(PARTED, &[]).await;
    story
        .source(
            "ALTER TABLE p DETACH PARTITION p0; ALTER TABLE p0 RENAME TO p0_old; \
             CREATE TABLE p0 PARTITION OF p FOR VALUES FROM (0) TO (100); INSERT INTO p VALUES (3, 'n')",
        )
        .await;
    let said = story.run(&["catchup"], 7);
    story.do_as_printed(&said, "ALTER TABLE \"public\".\"p0\" RENAME TO \"p0_old\"").await;
    let said = story.run(&["add", "public.p0"], 7);
    story.do_as_printed(&said, "ALTER TABLE \"public\".\"p\" DETACH PARTITION \"public\".\"p0_old\"").await;
    story.run(&["add", "public.p0"], 0);
    story.source("INSERT INTO p VALUES (4, 'm'); UPDATE p0_old SET v = 'o'").await;
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains("walferry resync 'public.p0_old'"), "{said}");
    story.run(&["resync", "public.p0_old"], 0);
    story.ends_equal().await;
}

/// The story: `check` printed a DROP CONSTRAINT … CASCADE of the key of a table that is
/// a member, for an index of that name that a new table was to have.
#[tokio::test]
async fn an_index_in_the_way_of_a_new_table_is_renamed_and_the_key_it_is_of_remains() {
    let story = Story::of(TWO, &[]).await;
    let rename = "ALTER TABLE a RENAME TO c";
    story.source(rename).await;
    story.target.batch_execute(rename).await.unwrap();
    story
        .source("ALTER INDEX a_pkey RENAME TO c_pkey; CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)")
        .await;
    let said = story.run(&["add", "public.a"], 3);
    assert!(said.stderr.contains("has the name that this is to have"), "{}", said.stderr);
    story.do_as_printed(&said, "ALTER INDEX").await;
    story.run(&["add", "public.a"], 0);
    story.source("UPDATE c SET v = 'u' WHERE id = 1; INSERT INTO a VALUES (2)").await;
    story.ends_equal().await;
    let key = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'c'::regclass AND contype = 'p'";
    assert_eq!(value(&story.target, key).await, "1");
}

/// The story: the way out of the table that is logged now was that of its old name.
#[tokio::test]
async fn an_unlogged_table_that_was_renamed_and_logged_is_renamed_first() {
    let setup = format!("{TWO}; CREATE UNLOGGED TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)");
    let story = Story::of(&setup, &[]).await;
    story.source("ALTER TABLE u RENAME TO u2; ALTER TABLE u2 SET LOGGED; INSERT INTO u2 VALUES (2)").await;
    let said = story.run(&["catchup"], 8);
    story.do_as_printed(&said, "ALTER TABLE \"public\".\"u\" RENAME TO \"u2\"").await;
    let said = story.run(&["catchup"], 8).stderr;
    assert!(said.contains("walferry add 'public.u2'"), "{said}");
    story.run(&["add", "public.u2"], 0);
    story.ends_equal().await;
}

/// The story: the new one was created anew before the old one's rename was asked for.
#[tokio::test]
async fn an_unlogged_table_under_the_name_of_a_renamed_one_waits_until_that_is_renamed() {
    let setup = format!("{TWO}; CREATE UNLOGGED TABLE u (id int PRIMARY KEY); INSERT INTO u VALUES (1)");
    let story = Story::of(&setup, &["--all-tables"]).await;
    story.source("ALTER TABLE u RENAME TO u2; CREATE UNLOGGED TABLE u (id int PRIMARY KEY, n int); INSERT INTO u VALUES (7, 8)").await;
    let said = story.run(&["catchup"], 8);
    story.do_as_printed(&said, "ALTER TABLE \"public\".\"u\" RENAME TO \"u2\"").await;
    story.run(&["catchup", "--finish"], 0);
    story.pair.assert_equal().await;
}

/// The story: exit 0, as the stream has nothing of an ALTER TABLE before the next row.
#[tokio::test]
async fn columns_that_the_target_lacks_are_named_before_a_change_comes() {
    let cases = [
        ("ALTER TABLE a ADD COLUMN n int NOT NULL DEFAULT 7", "ALTER TABLE \"public\".\"a\" ADD COLUMN"),
        (
            "ALTER TABLE a ADD COLUMN n text; ALTER TABLE a ADD COLUMN m numeric(5, 2) DEFAULT 1.5",
            "ALTER TABLE \"public\".\"a\" ADD COLUMN",
        ),
        ("ALTER TABLE a RENAME COLUMN v TO w", "ALTER TABLE \"public\".\"a\" RENAME COLUMN \"v\" TO \"w\""),
    ];
    for (alter, as_printed) in some_of(cases) {
        // What is printed is the same for both; a rename is the one that would lose values.
        let modes: &[&str] = if alter.contains("RENAME") { &["create", "existing"] } else { &["existing"] };
        for mode in modes {
            let pair = Pair::builder().start().await;
            if *mode == "existing" {
                let there: Vec<&str> = TWO.split(';').filter(|sql| sql.contains("CREATE")).collect();
                pair.target_client().await.batch_execute(&there.join(";")).await.unwrap();
            }
            let story = Story::on(pair, TWO, &["--schema", mode]).await;
            story.source(alter).await;
            let said = story.run(&["catchup"], 8);
            story.run(&["run", "--until", "caught-up"], 8);
            story.do_as_printed(&said, as_printed).await;
            story.ends_equal().await;
            story.source("INSERT INTO a (id) VALUES (90)").await;
            story.ends_equal().await;
        }
    }
}

/// The story: the stream met it first, and had ADD COLUMN alone to offer: old rows lost
/// their values in that column.
#[tokio::test]
async fn a_column_that_was_renamed_is_said_to_be_so_where_the_stream_stops() {
    let story = Story::of(TWO, &[]).await;
    story.source("ALTER TABLE a RENAME COLUMN v TO w; UPDATE a SET w = 'x' WHERE id = 1").await;
    let said = story.run(&["catchup"], 7);
    story.do_as_printed(&said, "ALTER TABLE \"public\".\"a\" RENAME COLUMN \"v\" TO \"w\"").await;
    story.ends_equal().await;
}

/// The story: "start with an empty database", in the middle of a migration.
#[tokio::test]
async fn what_a_table_that_is_added_lacks_or_collides_with_is_said_with_the_way_out() {
    let setup = format!("{TWO}; CREATE SEQUENCE s");
    let story = Story::of(&setup, &[]).await;
    story.source("DROP SEQUENCE s; CREATE TABLE s (id int PRIMARY KEY); INSERT INTO s VALUES (1)").await;
    let said = story.run(&["add", "public.s"], 3);
    story.do_as_printed(&said, "ALTER SEQUENCE IF EXISTS public.s RENAME TO s_elsewhere").await;
    story.target.batch_execute("DROP SEQUENCE s_elsewhere").await.unwrap();
    story.run(&["add", "public.s"], 0);
    let mood = "CREATE TYPE mood AS ENUM ('good')";
    story.source(mood).await;
    story.source("CREATE TABLE t (id int PRIMARY KEY, m mood); INSERT INTO t VALUES (1, 'good')").await;
    let said = story.run(&["add", "public.t"], 3).stderr;
    assert!(said.contains("create there what it needs") && !said.contains("empty database"), "{said}");
    story.target.batch_execute(mood).await.unwrap();
    story.run(&["add", "public.t"], 0);
    story.ends_equal().await;
}

/// Columns that the rows do not come with are nobody's concern.
#[tokio::test]
async fn columns_that_are_generated_or_not_published_may_lack_on_the_target() {
    let versions = servers();
    let server = versions.last().unwrap();
    let pair = Pair::builder().servers(server, server).start().await;
    pair.target_client()
        .await
        .batch_execute("CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE p (id int, v text)")
        .await
        .unwrap();
    let setup = "CREATE TABLE a (id int PRIMARY KEY, v text, g int GENERATED ALWAYS AS (id + 1) STORED, secret text); \
         INSERT INTO a VALUES (1, 'x', DEFAULT, 's'); CREATE PUBLICATION mine FOR TABLE a (id, v), TABLE p WITH (publish_via_partition_root)";
    let story =
        Story::on(pair, &format!("{PARTED}; {setup}"), &["--publication", "mine", "--schema", "existing"]).await;
    story.source("ALTER TABLE a ADD COLUMN later int DEFAULT 3; INSERT INTO a VALUES (2, 'y')").await;
    story.run(&["catchup"], 0);
    // Of the partitions the target has none.
    story.source("ALTER TABLE p ADD COLUMN w int DEFAULT 5").await;
    let said = story.run(&["catchup"], 8);
    assert!(said.stderr.contains("1 table"), "{}", said.stderr);
    story.do_as_printed(&said, "ALTER TABLE \"public\".\"p\" ADD COLUMN").await;
    story.run(&["catchup"], 0);
}

/// The story: the table came, and its sequence had never been called.
#[tokio::test]
async fn an_unlogged_table_that_is_let_in_later_comes_with_its_sequence() {
    let versions = servers();
    let table = "CREATE UNLOGGED TABLE ul (id serial PRIMARY KEY, v text)";
    for schema in some_of(["create", "existing"]) {
        let pair = Pair::builder().servers(versions.first().unwrap(), versions.last().unwrap()).start().await;
        if schema == "existing" {
            let there = "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text)";
            pair.target_client().await.batch_execute(&format!("{there}; {table}")).await.unwrap();
        }
        let setup = format!("{TWO}; {table}; INSERT INTO ul (v) VALUES ('a'), ('b'), ('c')");
        let mut story = Story::on(pair, &setup, &["--schema", schema, "--exclude-tables", "public.ul"]).await;
        story.arguments.truncate(2);
        story.run(&["catchup"], 0);
        story.run(&["catchup", "--finish"], 0);
        story.pair.assert_equal().await;
        let last = "SELECT last_value::text FROM ul_id_seq";
        assert_eq!(value(&story.target, last).await, "3");
    }
}
