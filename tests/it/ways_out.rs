//! Stops lead out: what a message says to do is done here as it is printed, and
//! then both sides are equal. Each of these once led nowhere.

use walferry::demo::server::Server;

use crate::journey::{Journey, PATIENCE, execute, value};
use crate::support::pair::Pair;
use crate::support::process::Walferry;
use crate::support::{oldest_and_newest, some_of};

const TABLES: &str = "CREATE TABLE a (id int PRIMARY KEY, v text); CREATE TABLE b (id int PRIMARY KEY, v text);
    INSERT INTO a SELECT i, 'x' FROM generate_series(1, 20) AS i; INSERT INTO b SELECT i, 'x' FROM generate_series(1, 20) AS i";

/// A tree of partitions over two levels and schemas, with rows.
const TREE: &str =
    "CREATE SCHEMA parts; CREATE TABLE p (id int, r text, v text, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
    CREATE TABLE p1 PARTITION OF p FOR VALUES IN ('a');
    CREATE TABLE parts.p2 PARTITION OF p FOR VALUES IN ('b') PARTITION BY RANGE (id);
    CREATE TABLE parts.p21 PARTITION OF parts.p2 FOR VALUES FROM (0) TO (100);
    CREATE INDEX p_v ON p (v); INSERT INTO p VALUES (1, 'a', 'x'), (2, 'b', 'y')";

const CHANGES: [&str; 3] = [
    "INSERT INTO p VALUES (3, 'a', 'late'), (4, 'b', 'late')",
    "UPDATE p SET r = 'b' WHERE id = 1",
    "UPDATE parts.p21 SET v = 'seen' WHERE id = 2; DELETE FROM p WHERE id = 4",
];

/// The statements that a message prints between these words.
#[track_caller]
pub fn printed<'s>(said: &'s str, before: &str, after: &str) -> &'s str {
    let (_, rest) = said.split_once(before).unwrap_or_else(|| panic!("no \"{before}\" in:\n{said}"));
    rest.split_once(after).unwrap_or_else(|| panic!("no \"{after}\" in:\n{rest}")).0
}

#[tokio::test]
async fn a_tree_of_partitions_that_was_created_later_is_taken_in_whole_by_its_root_or_a_part() {
    for (table, words) in some_of([("p", ""), ("parts.p21", ""), ("p", "--all-tables")]) {
        let arguments: Vec<&str> = [words].into_iter().filter(|word| !word.is_empty()).collect();
        let mut journey = Journey::on(Pair::builder().start().await, &[TABLES], &arguments).await;
        journey.write(&[TREE]).await;
        if words.is_empty() {
            let said = journey.catch_up_again().code(8).stderr;
            assert!(said.contains("public.p was created on the source after the copy"), "{said}");
            assert!(said.contains("1 table is not equal") && said.contains("walferry add 'public.p'"), "{said}");
            journey.stopped(0);
            journey.start();
            journey.streams().await;
        } else {
            // Its changes stop the stream, with what helps.
            let said = journey.stopped(7).stderr;
            assert!(said.contains("walferry add 'p"), "{said}");
        }
        // The switch before the table is none that takes it for its value.
        let command: Vec<&str> = ["add"].into_iter().chain(arguments.iter().copied()).chain([table]).collect();
        Walferry::run(&journey.pair, &command, PATIENCE).code(0);
        if !words.is_empty() {
            journey.start();
            journey.streams().await;
        }
        journey.write(&CHANGES).await;
        journey.finish().await;
        let states =
            "SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) FROM walferry.tables WHERE name LIKE 'p%'";
        assert_eq!(journey.value(states).await, "p within, p1 ready, p2 within, p21 ready");
        // Known by now: not taken in twice.
        let again = Walferry::run(&journey.pair, &command, PATIENCE).code(0).stdout;
        assert!(
            again.contains(&format!("{}: the migration has it already", if table == "p" { "public.p" } else { table })),
            "{again}"
        );
    }
}

#[tokio::test]
async fn a_level_of_partitions_that_was_added_to_a_known_root_is_taken_in_by_hand_or_at_the_next_start() {
    for by in some_of(["hand", "start"]) {
        let mut journey = Journey::of(&[TREE]).await;
        journey.catch_up().await;
        journey
            .write(&[
                "CREATE TABLE parts.p3 PARTITION OF p FOR VALUES IN ('c') PARTITION BY RANGE (id);
                 CREATE TABLE parts.p31 PARTITION OF parts.p3 FOR VALUES FROM (0) TO (100); INSERT INTO p VALUES (7, 'c', 'z')",
            ])
            .await;
        if by == "hand" {
            Walferry::run(&journey.pair, &["add", "parts.p31"], PATIENCE).code(0);
        }
        journey.start();
        journey.streams().await;
        journey.write(&["INSERT INTO p VALUES (8, 'c', 'z')", "UPDATE p SET r = 'c' WHERE id = 1"]).await;
        journey.finish().await;
    }
}

/// The story: the owner had published it already, and `add` wanted to do that again,
/// for ever (42710): what is published is shown by its partitions, not by its root.
#[tokio::test]
async fn a_partitioned_table_that_somebody_has_published_already_is_taken_in() {
    let prepared = [TABLES, "CREATE PUBLICATION mine FOR TABLE a, b"];
    let mut journey = Journey::on(Pair::builder().start().await, &prepared, &["--publication", "mine"]).await;
    journey.catch_up().await;
    journey
        .write(&[
            "CREATE TABLE late (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
             CREATE TABLE late_1 PARTITION OF late FOR VALUES FROM (0) TO (100); INSERT INTO late VALUES (5, 'before')",
            "ALTER PUBLICATION mine ADD TABLE late",
        ])
        .await;
    let added = Walferry::run(&journey.pair, &["add", "late", "--publication", "mine"], PATIENCE);
    assert_eq!(added.code(0).stdout.matches("late_1").count(), 1);
    journey.write(&["INSERT INTO late VALUES (6, 'after')"]).await;
    journey.start();
    journey.finish().await;
    assert_eq!(journey.value("SELECT count(*) FROM late").await, "2");
}

#[tokio::test]
async fn a_child_that_was_created_later_brings_what_it_inherits_from() {
    let mut journey = Journey::of(&[TABLES]).await;
    journey
        .write(&[
            "CREATE TABLE parent (id int PRIMARY KEY, v text); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
             INSERT INTO parent VALUES (1, 'p'); INSERT INTO child VALUES (2, 'c')",
        ])
        .await;
    Walferry::run(&journey.pair, &["add", "child"], PATIENCE).code(0);
    journey.write(&["UPDATE parent SET v = 'both'", "INSERT INTO child VALUES (3, 'c')"]).await;
    journey.finish().await;
    assert_eq!(journey.value("SELECT count(*) FROM parent").await, "3");
}

#[tokio::test]
async fn inheritance_that_was_altered_is_named_with_the_sql() {
    let tables =
        "CREATE TABLE parent (id int PRIMARY KEY, v text); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
        CREATE TABLE other (id int PRIMARY KEY, v text); INSERT INTO child VALUES (2, 'c')";
    let mut journey = Journey::of(&[tables]).await;
    journey.write(&["ALTER TABLE child NO INHERIT parent", "ALTER TABLE child INHERIT other"]).await;
    let said = journey.catch_up_with(&[]).code(8).stderr;
    journey.stopped(0);
    assert!(said.contains("public.child inherits from public.other on the source only"), "{said}");
    let sql = printed(&said, "do the same there: ", "\n").to_owned();
    execute(&journey.target, &[&sql]).await;
    journey.catch_up_with(&[]).code(0);
    assert_eq!(
        journey.value("SELECT (SELECT count(*) FROM parent) || ' ' || (SELECT count(*) FROM other)").await,
        "0 1"
    );
    journey.pair.assert_equal().await;
}

#[tokio::test]
async fn tables_that_exchange_names_are_renamed_by_what_is_printed() {
    let three = "CREATE SCHEMA s; CREATE TABLE s.c (id int PRIMARY KEY, v text); INSERT INTO s.c VALUES (1, 'c')";
    let exchange = [
        "ALTER TABLE a RENAME TO t; ALTER TABLE b RENAME TO a; ALTER TABLE t RENAME TO b",
        "ALTER TABLE s.c RENAME TO d; ALTER TABLE a SET SCHEMA s; ALTER TABLE s.a RENAME TO c; ALTER TABLE s.d SET SCHEMA public; \
         ALTER TABLE d RENAME TO a",
    ];
    let marks = "UPDATE a SET v = 'a'; UPDATE b SET v = 'b'";
    // Noticed before there was a change of them, and by the first change.
    for changes in some_of([&[][..], &["UPDATE a SET v = 'new'", "INSERT INTO b VALUES (99, 'new')"]]) {
        let mut journey = Journey::of(&[TABLES, three, marks]).await;
        journey.write(&exchange).await;
        let said = if changes.is_empty() {
            let said = journey.catch_up_with(&[]).code(8).stderr;
            journey.stopped(0);
            printed(&said, "rename it on the target as well: ", "\n").to_owned()
        } else {
            journey.write(changes).await;
            printed(&journey.stopped(7).stderr, "then start again: ", "\n").to_owned()
        };
        execute(&journey.target, &[&said]).await;
        journey.catch_up_with(&[]).code(0);
        journey.pair.assert_equal().await;
    }
}

/// The story: the table that had the name was advised to be dropped and added.
#[tokio::test]
async fn a_table_that_takes_the_name_of_a_dropped_one_is_renamed_once_that_is_dropped() {
    let mut journey = Journey::of(&[TABLES]).await;
    journey.write(&["DROP TABLE a; ALTER TABLE b RENAME TO a"]).await;
    let said = journey.catch_up_with(&[]).code(8).stderr;
    journey.stopped(0);
    let drop = printed(&said, "if it can go, on the target: ", "\n").to_owned();
    let rename = printed(&said, "once public.a is dropped there: ", "\n").to_owned();
    execute(&journey.target, &[&drop, &rename]).await;
    journey.catch_up_with(&[]).code(0);
    journey.pair.assert_equal().await;
}

const ROOTED: &str = "CREATE TABLE root (id int, r text, PRIMARY KEY (id, r)) PARTITION BY LIST (r);
    CREATE TABLE x PARTITION OF root FOR VALUES IN ('x'); CREATE TABLE y PARTITION OF root FOR VALUES IN ('y');
    INSERT INTO root VALUES (1, 'x'), (2, 'y'); CREATE TABLE plain (id int PRIMARY KEY); INSERT INTO plain VALUES (1)";

/// The story: 7 for ever, and a resync that emptied the tables and then failed.
#[tokio::test]
async fn a_publication_whose_partitions_come_in_another_name_is_set_back_without_loss() {
    let rows = "SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM root AS t";
    for (is, set) in some_of([("true", "false"), ("false", "true")]) {
        let publication =
            format!("CREATE PUBLICATION mine FOR TABLE root, plain WITH (publish_via_partition_root = {is})");
        let arguments = ["--publication", "mine"];
        let pair = Pair::builder().start().await;
        let mut journey = Journey::on(pair, &[ROOTED, &publication], &arguments).await;
        let switch = format!("ALTER PUBLICATION mine SET (publish_via_partition_root = {set})");
        // Before a change is met it is named.
        journey.write(&[&switch]).await;
        let said = journey.catch_up_again().code(8).stderr;
        journey.stopped(0);
        let sql = format!("ALTER PUBLICATION \"mine\" SET (publish_via_partition_root = {is});");
        assert!(said.contains(&sql) && said.contains("walferry resync 'public.root'"), "{said}");
        // Nothing is emptied by what cannot be done.
        let refused = Walferry::run(&journey.pair, &["resync", "root", "--publication", "mine"], PATIENCE).code(3);
        assert!(refused.stderr.contains(&sql), "{}", refused.stderr);
        assert_eq!(journey.value(rows).await, "(1,x) (2,y)");
        // Nor passed over by the stream.
        journey.write(&["INSERT INTO root VALUES (3, 'x')", "UPDATE root SET r = 'y' WHERE id = 1"]).await;
        journey.start();
        let stopped = journey.stopped(7).stderr;
        assert!(stopped.contains(&sql) && stopped.contains("walferry resync 'public.root'"), "{stopped}");
        journey.write(&[&sql, "INSERT INTO root VALUES (4, 'y')"]).await;
        journey.start();
        journey.stopped(7);
        Walferry::run(&journey.pair, &["resync", "root", "--publication", "mine"], PATIENCE).code(0);
        journey.start();
        journey.streams().await;
        journey.write(&["INSERT INTO root VALUES (5, 'x')", "DELETE FROM root WHERE id = 2"]).await;
        journey.finish().await;
        assert_eq!(journey.value(rows).await, value(&journey.source, rows).await);
    }
}

#[tokio::test]
async fn a_target_that_parts_its_rows_otherwise_loses_nothing_when_its_publication_is_switched() {
    let pair = Pair::builder().start().await;
    let there = "CREATE TABLE public.root (id int, r text, PRIMARY KEY (id, r)) PARTITION BY HASH (id);
        CREATE TABLE public.h0 PARTITION OF public.root FOR VALUES WITH (MODULUS 1, REMAINDER 0);
        CREATE TABLE public.plain (id int PRIMARY KEY)";
    execute(&pair.target_client().await, &[there]).await;
    let publication = "CREATE PUBLICATION mine FOR TABLE root, plain WITH (publish_via_partition_root)";
    let arguments = ["--publication", "mine", "--schema", "existing"];
    let mut journey = Journey::on(pair, &[ROOTED, publication], &arguments).await;
    let switch = "ALTER PUBLICATION mine SET (publish_via_partition_root = false)";
    journey.write(&[switch, "INSERT INTO root VALUES (3, 'x')"]).await;
    let said = journey.stopped(7).stderr;
    let sql = printed(&said, "set it as it was (", ")").to_owned() + ")";
    journey.write(&[&sql]).await;
    let resync: Vec<&str> = ["resync", "root"].into_iter().chain(arguments).collect();
    Walferry::run(&journey.pair, &resync, PATIENCE).code(0);
    journey.write(&["INSERT INTO root VALUES (4, 'y')"]).await;
    journey.catch_up_again().code(0);
    let rows = "SELECT string_agg(t::text, ' ' ORDER BY t::text) FROM root AS t";
    assert_eq!(journey.value(rows).await, value(&journey.source, rows).await);
}

/// The story: the resync that was advised emptied the table and then failed.
#[tokio::test]
async fn a_member_that_is_attached_to_a_root_that_is_published_as_one_goes_with_it() {
    let publication = "CREATE TABLE z (id int, r text, PRIMARY KEY (id, r)); INSERT INTO z VALUES (7, 'z');
        CREATE PUBLICATION mine FOR TABLE root, plain, z WITH (publish_via_partition_root)";
    let mut journey =
        Journey::on(Pair::builder().start().await, &[ROOTED, publication], &["--publication", "mine"]).await;
    let attach = "ALTER TABLE root ATTACH PARTITION z FOR VALUES IN ('z')";
    journey.write(&["INSERT INTO z VALUES (8, 'z')", attach]).await;
    let said = journey.catch_up_again().code(8).stderr;
    journey.stopped(0);
    assert!(
        said.contains("public.z is a partition of public.root on the source and no partition on the target"),
        "{said}"
    );
    execute(&journey.target, &[attach]).await;
    journey.write(&["INSERT INTO root VALUES (9, 'z')", "DELETE FROM z WHERE id = 7"]).await;
    journey.catch_up_again().code(0);
    journey.pair.assert_equal().await;
    Walferry::run(&journey.pair, &["resync", "root", "--publication", "mine"], PATIENCE).code(0);
    journey.write(&["INSERT INTO root VALUES (10, 'z')"]).await;
    journey.catch_up_again().code(0);
    journey.pair.assert_equal().await;
    assert_eq!(journey.value("SELECT state FROM walferry.tables WHERE name = 'z'").await, "within");
}

/// The story: once it was detached on both sides nothing carried it, and exit 0.
#[tokio::test]
async fn a_partition_that_is_detached_from_a_root_that_is_published_as_one_goes_its_own_way() {
    for by in some_of(["list", "all"]) {
        let list = "CREATE PUBLICATION mine FOR TABLE root, plain WITH (publish_via_partition_root)";
        let all = "CREATE PUBLICATION mine FOR ALL TABLES WITH (publish_via_partition_root)";
        let publication = if by == "list" { list } else { all };
        let arguments = ["--publication", "mine"];
        let mut journey = Journey::on(Pair::builder().start().await, &[ROOTED, publication], &arguments).await;
        journey.catch_up().await;
        let detach = "ALTER TABLE root DETACH PARTITION x";
        journey.write(&[detach, "INSERT INTO x VALUES (5, 'x')"]).await;
        execute(&journey.target, &[detach]).await;
        let said = journey.catch_up_again().code(if by == "list" { 8 } else { 7 }).stderr;
        assert!(said.contains("walferry resync"), "{said}");
        Walferry::run(&journey.pair, &["resync", "x", "--publication", "mine"], PATIENCE).code(0);
        journey
            .write(&["INSERT INTO x VALUES (6, 'x')", "DELETE FROM x WHERE id = 1", "INSERT INTO root VALUES (9, 'y')"])
            .await;
        journey.catch_up_again().code(0);
        journey.pair.assert_equal().await;
    }
}

/// What came in a partition's own name before its root was copied anew is in those
/// rows; what comes so after that stops the stream, also where it has met the former.
#[tokio::test]
async fn changes_that_come_in_another_name_stop_the_stream_from_the_copy_on() {
    let create = "CREATE PUBLICATION mine FOR TABLE root, plain WITH (publish_via_partition_root)";
    let mut journey = Journey::on(Pair::builder().start().await, &[ROOTED, create], &["--publication", "mine"]).await;
    journey.catch_up().await;
    let via_root = |on| format!("ALTER PUBLICATION mine SET (publish_via_partition_root = {on})");
    let resync = |journey: &Journey| {
        Walferry::run(&journey.pair, &["resync", "root", "--publication", "mine"], PATIENCE).code(0)
    };
    journey.write(&[&via_root(false), "INSERT INTO x VALUES (5, 'x')", &via_root(true)]).await;
    resync(&journey);
    journey.write(&[&via_root(false), "INSERT INTO x VALUES (6, 'x')"]).await;
    journey.start();
    let said = journey.stopped(7).stderr;
    assert!(said.contains("publish_via_partition_root"), "{said}");
    journey.write(&[&via_root(true)]).await;
    resync(&journey);
    journey.write(&["INSERT INTO root VALUES (9, 'x')", "DELETE FROM root WHERE id = 6"]).await;
    journey.start();
    journey.finish().await;
}

/// The story: 6, and no way on but to begin again. Up to 17 the slot cannot pass
/// changes that were made while there was no publication; from 18 on it drops them.
#[tokio::test]
async fn a_publication_that_was_gone_for_a_while_is_made_again_and_its_tables_copied_anew() {
    for server in some_of(<[Server; 2]>::from(oldest_and_newest())) {
        for (all, arguments) in [(" FOR ALL TABLES", &["--all-tables"][..]), ("", &[])] {
            let pair = Pair::builder().servers(&server, &server).start().await;
            let mut journey = Journey::on(pair, &[TABLES], arguments).await;
            let create = "CREATE TABLE late (id int PRIMARY KEY)";
            journey.write(&["DROP PUBLICATION walferry", "UPDATE a SET v = 'unseen' WHERE id = 1"]).await;
            if !all.is_empty() {
                journey.write(&[create, "INSERT INTO late VALUES (1)"]).await;
            }
            let sql = if server.major < 18 {
                let said = journey.stopped(6).stderr;
                printed(&said, "create it again (", ";)").to_owned()
            } else {
                let said = journey.catch_up_again().code(8).stderr;
                journey.stopped(0);
                assert!(said.contains("public.a is not published any more"), "{said}");
                let list = if all.is_empty() { " FOR TABLE ONLY a, ONLY b" } else { all };
                format!("CREATE PUBLICATION walferry{list}")
            };
            journey.write(&[&sql, "UPDATE b SET v = 'seen' WHERE id = 2"]).await;
            let catchup: Vec<&str> = std::iter::once("catchup").chain(arguments.iter().copied()).collect();
            let again = Walferry::run(&journey.pair, &catchup, PATIENCE);
            assert!(again.stderr.contains("walferry resync"), "{}", again.stderr);
            let resync: Vec<&str> = ["resync"].into_iter().chain(arguments.iter().copied()).chain(["*"]).collect();
            // With the table that was created while nothing was published.
            Walferry::run(&journey.pair, &resync, PATIENCE).code(0);
            if !all.is_empty() {
                journey.write(&["INSERT INTO late VALUES (2)"]).await;
            }
            journey.write(&["INSERT INTO a VALUES (100, 'seen')"]).await;
            journey.start();
            journey.finish().await;
        }
    }
}

/// The story: `resync '*'` said 0 and to add the table, and `catchup` to run `resync '*'`.
#[tokio::test]
async fn a_table_that_was_created_while_one_of_two_publications_was_gone_comes_with_all_tables() {
    for server in some_of(<[Server; 2]>::from(oldest_and_newest())) {
        for (gone, what) in [("everything", "FOR ALL TABLES"), ("few", "FOR TABLE a")] {
            let pair = Pair::builder().servers(&server, &server).start().await;
            let publications = ["--publication", "everything,few"];
            let setup = [TABLES, "CREATE PUBLICATION everything FOR ALL TABLES", "CREATE PUBLICATION few FOR TABLE a"];
            let mut journey = Journey::on(pair, &setup, &publications).await;
            let late = "CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)";
            let drop = format!("DROP PUBLICATION {gone}");
            journey.write(&[&drop, late, "UPDATE b SET v = 'unseen' WHERE id = 1"]).await;
            if server.major < 18 {
                journey.stopped(6);
            } else {
                journey.catch_up_again();
                let ended = journey.ended();
                assert!([0, 7].contains(&ended), "{ended}");
            }
            let create = format!("CREATE PUBLICATION {gone} {what}");
            journey.write(&[&create, "UPDATE b SET v = 'seen' WHERE id = 2"]).await;
            let again = Walferry::run(&journey.pair, &[&["catchup"], &publications[..]].concat(), PATIENCE);
            assert!(again.stderr.contains("walferry "), "{}", again.stderr);
            Walferry::run(&journey.pair, &[&["resync", "*"], &publications[..]].concat(), PATIENCE).code(0);
            journey.write(&["INSERT INTO late VALUES (2)"]).await;
            journey.start();
            journey.finish().await;
        }
    }
}

/// The story: a table that was created while the publication for all tables was gone
/// would have been taken for one whose rows all come with the stream.
#[tokio::test]
async fn a_table_that_was_created_while_the_publication_was_gone_is_not_taken_for_whole() {
    for server in some_of(<[Server; 2]>::from(oldest_and_newest())) {
        let pair = Pair::builder().servers(&server, &server).start().await;
        let mut journey = Journey::on(pair, &[TABLES], &["--all-tables"]).await;
        journey.catch_up().await;
        let gap = "BEGIN; DROP PUBLICATION walferry; CREATE TABLE late (id int PRIMARY KEY); COMMIT";
        journey.write(&[gap, "CREATE PUBLICATION walferry FOR ALL TABLES", "INSERT INTO late VALUES (1)"]).await;
        execute(&journey.target, &["CREATE TABLE late (id int PRIMARY KEY)"]).await;
        journey.start();
        let said = journey.stopped(7).stderr;
        assert!(said.contains("walferry add 'public.late'"), "{said}");
        Walferry::run(&journey.pair, &["add", "late", "--all-tables"], PATIENCE).code(0);
        Walferry::run(&journey.pair, &["resync", "*", "--all-tables"], PATIENCE).code(0);
        journey.start();
        journey.finish().await;
    }
}

#[tokio::test]
async fn what_the_end_that_ended_says_names_the_migration_and_leads_on() {
    let pair = Pair::builder().start().await;
    pair.source_sql(TABLES).await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.source_sql("UPDATE a SET v = 'late'").await;
    let said = Walferry::run(&pair, &["catchup"], PATIENCE).code(3).stderr;
    let sql = printed(&said, "run on the target: ", "; then");
    assert!(sql.ends_with("WHERE name = 'walferry'"), "{sql}");
    execute(&pair.target_client().await, &[sql]).await;
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
}

/// The story: exit 0 with other rows, and a warning whose SQL was refused.
#[tokio::test]
async fn an_unlogged_table_that_was_written_between_two_ends_is_named_with_what_copies_it_again() {
    let tables = "CREATE TABLE par (id int PRIMARY KEY); INSERT INTO par VALUES (1); CREATE UNLOGGED TABLE u (id int PRIMARY KEY);
        CREATE UNLOGGED TABLE same (id int PRIMARY KEY); INSERT INTO u VALUES (1); INSERT INTO same VALUES (1);
        CREATE TABLE ch (id int PRIMARY KEY, p int REFERENCES par); INSERT INTO ch VALUES (1, 1);
        CREATE TABLE other (id int PRIMARY KEY, p int REFERENCES par); INSERT INTO other VALUES (1, 1)";
    let pair = Pair::builder().start().await;
    pair.source_sql(tables).await;
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    let target = pair.target_client().await;
    execute(&target, &["INSERT INTO public.ch VALUES (500, 500)"]).await;
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(7);
    execute(&target, &["DELETE FROM public.ch WHERE id = 500"]).await;
    pair.source_sql("INSERT INTO u VALUES (2)").await;
    let said = Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(8).stderr;
    assert!(said.contains("not equal on both sides: public.u."), "{said}");
    // Whoever has not read it is told again.
    for command in [&["catchup"][..], &["run", "--until", "caught-up"], &["catchup", "--finish"]] {
        let again = Walferry::run(&pair, command, PATIENCE).code(8).stderr;
        assert!(again.contains("not equal on both sides: public.u."), "{again}");
    }
    let sql = printed(&said, "run on the target: ", "; and then");
    execute(&target, &[sql]).await;
    Walferry::run(&pair, &["catchup", "--finish"], PATIENCE).code(0);
    pair.assert_equal().await;
    assert_eq!(value(&target, "SELECT count(*) FROM u").await, "2");
}
