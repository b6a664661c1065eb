//! What takes part is what is published is what arrives: partitions with their
//! roots, renames, filters that change, tables that come and go. Each of these
//! once ended with exit 0 and different rows.

use crate::journey::{Journey, PATIENCE, execute, value};
use crate::migration::source_admin;
use crate::story::Story;
use crate::support::pair::Pair;
use crate::support::process::Walferry;
use crate::support::{some_of, wait_until};

/// All rows of a query on both sides, as text; asserts that they are equal.
async fn same_rows(journey: &Journey, sql: &str) {
    let sql = format!("SELECT coalesce(string_agg(t::text, ' ' ORDER BY t::text), 'none') FROM ({sql}) AS t");
    let (ours, theirs) = (value(&journey.source, &sql).await, value(&journey.target, &sql).await);
    assert_eq!(ours, theirs, "{sql}");
}

/// Catches up with the daemon's own arguments plus nothing, asserting the exit
/// code; the daemon is gone then.
fn catch_up(journey: &mut Journey, arguments: &[&str], code: i32) -> String {
    journey.catch_up_with(arguments).code(code).stderr
}

const PARTS: &str = "CREATE SCHEMA shop; CREATE SCHEMA parts; CREATE TABLE other (id int PRIMARY KEY);
    CREATE TABLE shop.root (id int, region text, v text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
    CREATE TABLE parts.a PARTITION OF shop.root FOR VALUES IN ('a');
    CREATE TABLE parts.b PARTITION OF shop.root FOR VALUES IN ('b', 'c') PARTITION BY LIST (region);
    CREATE TABLE parts.b1 PARTITION OF parts.b FOR VALUES IN ('b');
    CREATE TABLE parts.b2 PARTITION OF parts.b FOR VALUES IN ('c');
    INSERT INTO shop.root VALUES (1, 'a', 'x'), (2, 'b', 'x'), (3, 'c', 'x')";

const CHANGES: [&str; 3] = [
    "INSERT INTO shop.root SELECT i, (array['a', 'b', 'c'])[1 + i % 3], 'streamed' FROM generate_series(10, 40) AS i",
    "UPDATE shop.root SET v = 'changed' WHERE id = 2",
    "DELETE FROM shop.root WHERE id = 3",
];

/// The story: every streamed change of every partition was thrown away.
#[tokio::test]
async fn a_partitioned_table_that_is_named_brings_its_partitions_of_all_levels_and_schemas() {
    for filter in some_of([["--tables", "root"], ["--schemas", "shop"]]) {
        let mut journey = Journey::on(Pair::builder().start().await, &[PARTS], &filter).await;
        journey.write(&CHANGES).await;
        catch_up(&mut journey, &filter, 0);
        same_rows(&journey, "SELECT * FROM shop.root").await;
        assert_eq!(journey.value("SELECT count(*) FROM shop.root").await, "33");
        assert_eq!(journey.value("SELECT to_regclass('other') IS NULL").await, "t");
        // Also once its partitions were copied anew.
        let resync: Vec<&str> = ["resync", "shop.root"].into_iter().chain(filter).collect();
        Walferry::run(&journey.pair, &resync, PATIENCE).code(0);
        journey.write(&["UPDATE shop.root SET v = 'again'"]).await;
        catch_up(&mut journey, &filter, 0);
        same_rows(&journey, "SELECT * FROM shop.root").await;
    }
}

#[tokio::test]
async fn an_excluded_root_leaves_its_partitions_out_and_an_excluded_partition_only_itself() {
    let filter = ["--exclude-tables", "root"];
    let mut journey = Journey::on(Pair::builder().start().await, &[PARTS], &filter).await;
    journey.write(&CHANGES).await;
    catch_up(&mut journey, &filter, 0);
    assert_eq!(
        journey.value("SELECT count(*) FROM pg_class WHERE relname IN ('root', 'a', 'b', 'b1', 'b2')").await,
        "0"
    );

    let filter = ["--exclude-tables", "parts.b1"];
    let keyless = "CREATE SCHEMA shop; CREATE SCHEMA parts; CREATE TABLE shop.root (id int, region text) PARTITION BY LIST (region);
        CREATE TABLE parts.a PARTITION OF shop.root FOR VALUES IN ('a');
        ALTER TABLE parts.a ADD PRIMARY KEY (id);
        CREATE TABLE parts.b1 PARTITION OF shop.root FOR VALUES IN ('b');
        INSERT INTO shop.root VALUES (1, 'a'), (2, 'b')";
    let mut journey = Journey::on(Pair::builder().start().await, &[keyless], &filter).await;
    // What is left out is not published: without a key its UPDATE would fail.
    journey.write(&["UPDATE shop.root SET id = id + 10", "INSERT INTO shop.root VALUES (5, 'a'), (6, 'b')"]).await;
    catch_up(&mut journey, &filter, 0);
    same_rows(&journey, "SELECT * FROM parts.a").await;
    assert_eq!(journey.value("SELECT count(*) FROM shop.root").await, "2");
}

/// The story: check was content, and the application's UPDATE on the table that was left
/// out failed from `run` on.
#[tokio::test]
async fn what_is_left_out_is_asked_for_an_identity_where_all_tables_are_published() {
    let pair = Pair::builder().start().await;
    let setup = "CREATE TABLE kept (id int PRIMARY KEY); CREATE TABLE audit (id int); INSERT INTO audit VALUES (1)";
    pair.source_sql(setup).await;
    let options = ["--all-tables", "--exclude-tables", "audit"];
    let ran = |command: &[&str], code| Walferry::run(&pair, &[command, &options].concat(), PATIENCE).code(code);
    let alter = "ALTER TABLE \"public\".\"audit\" REPLICA IDENTITY FULL;";
    let said = ran(&["check"], 3).stdout;
    assert!(said.contains("do without --all-tables") && said.contains(alter), "{said}");
    let said = ran(&["run", "--until", "caught-up"], 3).stderr;
    assert!(said.contains(alter), "{said}");
    // Where somebody publishes it already it is as it was.
    pair.source_sql("CREATE PUBLICATION mine FOR ALL TABLES").await;
    Walferry::run(&pair, &["check", "--publication", "mine", "--exclude-tables", "audit"], PATIENCE).code(0);
    pair.source_sql(&format!("DROP PUBLICATION mine; {alter}")).await;
    ran(&["check"], 0);
    ran(&["run", "--until", "caught-up"], 0);
    pair.source_sql("UPDATE audit SET id = 2; INSERT INTO kept VALUES (1)").await;
    ran(&["catchup"], 0);
    let target = pair.target_client().await;
    assert_eq!(value(&target, "SELECT count(*)::text FROM kept").await, "1");
    assert_eq!(value(&target, "SELECT (to_regclass('audit') IS NULL)::text").await, "true");
}

/// The story: children were published through their parents, and the
/// application's UPDATE on them failed from `run` on.
#[tokio::test]
async fn a_child_that_is_left_out_is_not_published_with_the_table_it_inherits_from() {
    let tables = "CREATE TABLE parent (id int PRIMARY KEY, v text); CREATE TABLE child () INHERITS (parent);
        INSERT INTO parent VALUES (1, 'p'); INSERT INTO child VALUES (2, 'c')";
    let filter = ["--exclude-tables", "child"];
    let mut journey = Journey::on(Pair::builder().start().await, &[tables], &filter).await;
    journey.write(&["UPDATE child SET v = 'of the application'", "UPDATE parent SET v = 'both'"]).await;
    catch_up(&mut journey, &filter, 0);
    same_rows(&journey, "SELECT * FROM ONLY parent").await;
}

/// The story: a member that was renamed out of the filter was passed over.
#[tokio::test]
async fn a_table_that_is_renamed_out_of_the_filter_stays_a_member() {
    let filter = ["--tables", "orders"];
    let orders = "CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE other (id int); INSERT INTO orders VALUES (1)";
    let mut journey = Journey::on(Pair::builder().start().await, &[orders], &filter).await;
    journey
        .write(&["CREATE SCHEMA old", "ALTER TABLE orders SET SCHEMA old; ALTER TABLE old.orders RENAME TO gone"])
        .await;
    // No change of it has been met yet: the names are compared.
    let said = catch_up(&mut journey, &filter, 8);
    assert!(said.contains("public.orders is old.gone on the source by now"), "{said}");
    journey.stopped(0);
    journey.write(&["INSERT INTO old.gone VALUES (2)"]).await;
    journey.start();
    let ended = journey.stopped(7);
    assert!(ended.stderr.contains("RENAME TO \"gone\""), "{}", ended.stderr);
    execute(
        &journey.target,
        &["CREATE SCHEMA old; ALTER TABLE orders SET SCHEMA old; ALTER TABLE old.orders RENAME TO gone"],
    )
    .await;
    catch_up(&mut journey, &filter, 0);
    same_rows(&journey, "SELECT * FROM old.gone").await;
}

/// The story: "ready", nothing moved, exit 0.
#[tokio::test]
async fn a_pattern_that_fits_nothing_is_named_with_what_was_meant() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE \"Audit\" (id int PRIMARY KEY)").await;
    for (flag, pattern, meant) in [("--tables", "order", "orders"), ("--exclude-tables", "Audit", "\"Audit\"")] {
        let checked = Walferry::run(&pair, &["check", flag, pattern], PATIENCE).code(3);
        let ran = Walferry::run(&pair, &["run", "--until", "caught-up", flag, pattern], PATIENCE).code(3);
        for text in [checked.stdout, ran.stderr + &ran.stdout] {
            assert!(text.contains(&format!("{flag} {pattern} fits no table")), "{text}");
            assert!(text.contains(&format!("did you mean {meant}?")), "{text}");
        }
    }
    let nothing = "SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots)";
    assert_eq!(value(&pair.source_client().await, nothing).await, "0");
}

/// The story: 20 rows there, 10 arrived, exit 0.
#[tokio::test]
async fn what_was_passed_over_is_copied_when_it_is_let_in() {
    let left_out = ["--all-tables", "--exclude-tables", "late*"];
    let known = "CREATE TABLE known (id int PRIMARY KEY); CREATE VIEW late_view AS SELECT 1 AS one";
    let mut journey = Journey::on(Pair::builder().start().await, &[known], &left_out).await;
    let late = "CREATE TABLE late (id int PRIMARY KEY)";
    journey.write(&[late, "INSERT INTO late SELECT generate_series(1, 10)", "INSERT INTO known VALUES (1)"]).await;
    catch_up(&mut journey, &left_out, 0);
    journey.stopped(0);
    execute(&journey.target, &[late]).await;
    // Let in, with changes to come.
    journey.write(&["INSERT INTO late SELECT generate_series(11, 20)"]).await;
    let let_in = ["--all-tables"];
    let said = catch_up(&mut journey, &let_in, 7);
    assert!(said.contains("walferry add"), "{said}");
    Walferry::run(&journey.pair, &["add", "late", "--all-tables"], PATIENCE).code(0);
    catch_up(&mut journey, &let_in, 0);
    same_rows(&journey, "SELECT * FROM late").await;
    assert_eq!(journey.value("SELECT count(*) FROM late").await, "20");
}

/// Without another change of it nothing stops, but nothing is called equal.
#[tokio::test]
async fn a_table_that_is_let_in_is_named_until_it_is_added() {
    let left_out = ["--exclude-tables", "late"];
    let tables =
        "CREATE TABLE known (id int PRIMARY KEY); CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)";
    let mut journey = Journey::on(Pair::builder().start().await, &[tables], &left_out).await;
    catch_up(&mut journey, &left_out, 0);
    journey.stopped(0);
    let said = catch_up(&mut journey, &[], 8);
    assert!(said.contains("public.late was left out"), "{said}");
    Walferry::run(&journey.pair, &["add", "late"], PATIENCE).code(0);
    catch_up(&mut journey, &[], 0);
    journey.pair.assert_equal().await;
}

#[tokio::test]
async fn a_filter_that_leaves_a_member_out_is_an_act_that_is_recorded() {
    let tables = "CREATE TABLE known (id int PRIMARY KEY); CREATE TABLE going (id int PRIMARY KEY)";
    let mut journey = Journey::of(&[tables]).await;
    catch_up(&mut journey, &[], 0);
    journey.stopped(0);
    journey.write(&["INSERT INTO going VALUES (1)", "INSERT INTO known VALUES (1)"]).await;
    let said = catch_up(&mut journey, &["--exclude-tables", "going"], 0);
    assert!(said.contains("followed no more"), "{said}");
    assert_eq!(journey.value("SELECT state FROM walferry.tables WHERE name = 'going'").await, "excluded");
    // And let in again it wants its copy.
    let said = catch_up(&mut journey, &[], 8);
    assert!(said.contains("public.going was left out"), "{said}");
}

/// The story: the target kept the old rows, exit 0.
#[tokio::test]
async fn a_table_that_was_dropped_or_created_again_without_a_change_since_is_named() {
    let tables =
        "CREATE TABLE again (id int PRIMARY KEY); INSERT INTO again VALUES (1); CREATE TABLE gone (id int PRIMARY KEY)";
    let mut journey = Journey::of(&[tables]).await;
    journey.write(&["DROP TABLE again; CREATE TABLE again (id int PRIMARY KEY)", "DROP TABLE gone"]).await;
    let said = catch_up(&mut journey, &[], 8);
    assert!(said.contains("public.again was dropped on the source and created again"), "{said}");
    assert!(said.contains("public.gone was dropped on the source, and the target still has it"), "{said}");
    journey.stopped(0);
    execute(&journey.target, &["DROP TABLE again, gone"]).await;
    Walferry::run(&journey.pair, &["add", "again"], PATIENCE).code(0);
    catch_up(&mut journey, &[], 0);
    journey.pair.assert_equal().await;
}

/// The story: the stop advised `walferry add`, which said there is no such table.
#[tokio::test]
async fn a_scratch_table_that_is_gone_by_now_is_passed_over_and_said() {
    let mut journey = Journey::of_all_tables(&["CREATE TABLE known (id int PRIMARY KEY)"]).await;
    journey
        .write(&[
            "BEGIN; CREATE TABLE scratch (id int PRIMARY KEY); INSERT INTO scratch SELECT generate_series(1, 100); COMMIT;
             BEGIN; INSERT INTO known SELECT id FROM scratch; DROP TABLE scratch; COMMIT",
        ])
        .await;
    journey.finish().await;
    assert!(journey.log().contains("gone on the source by now"), "{}", journey.log());
    assert_eq!(journey.value("SELECT count(*) FROM known").await, "100");
}

/// The story: the sequences of member tables stayed behind.
#[tokio::test]
async fn a_sequence_goes_with_every_member_that_owns_or_uses_it() {
    let tables = "CREATE SCHEMA pgboss; CREATE TABLE pgboss.job (id serial PRIMARY KEY);
        CREATE TABLE orders (id serial PRIMARY KEY, v text); CREATE TABLE orders_new (LIKE orders INCLUDING ALL);
        CREATE TABLE root (id int, region text) PARTITION BY LIST (region);
        CREATE TABLE leaf (id serial, region text); ALTER TABLE root ATTACH PARTITION leaf FOR VALUES IN ('a');
        ALTER TABLE leaf ADD PRIMARY KEY (id)";
    let filter = ["--tables", "orders,orders_new,root,pgboss.job"];
    let mut journey = Journey::on(Pair::builder().start().await, &[tables], &filter).await;
    // The owner is swapped out and is left out by now.
    journey
        .write(&[
            "INSERT INTO orders_new (v) SELECT 'x' FROM generate_series(1, 50); INSERT INTO pgboss.job DEFAULT VALUES",
            "INSERT INTO leaf (region) SELECT 'a' FROM generate_series(1, 7)",
        ])
        .await;
    let narrower = ["--tables", "orders_new,root,pgboss.job"];
    catch_up(&mut journey, &narrower, 0);
    let values = "SELECT string_agg(v::text, ' ') FROM (SELECT last_value AS v FROM orders_id_seq UNION ALL \
        SELECT last_value FROM leaf_id_seq UNION ALL SELECT last_value FROM pgboss.job_id_seq) AS s";
    assert_eq!(journey.value(values).await, value(&journey.source, values).await);
    assert_eq!(journey.value("SELECT last_value FROM orders_id_seq").await, "50");
    // And when the member has got the owner's name.
    let swap = "ALTER TABLE orders RENAME TO orders_x; ALTER TABLE orders_new RENAME TO orders";
    journey.write(&[swap, "INSERT INTO orders (v) VALUES ('y')"]).await;
    let replaced = ["--tables", "orders*,root,pgboss.job", "--exclude-tables", "*_x"];
    let said = catch_up(&mut journey, &replaced, 7);
    assert!(said.contains("\"orders\" RENAME TO \"orders_x\""), "{said}");
    execute(&journey.target, &[swap]).await;
    catch_up(&mut journey, &replaced, 0);
    assert_eq!(journey.value(values).await, value(&journey.source, values).await);
}

#[tokio::test]
async fn a_table_that_is_created_while_a_daemon_streams_is_noticed_by_the_minutes_look() {
    let mut journey = Journey::of(&["CREATE TABLE known (id int PRIMARY KEY)"]).await;
    journey.write(&["CREATE TABLE later (id int PRIMARY KEY); INSERT INTO later VALUES (1)"]).await;
    let journey_ref = &journey;
    let patience = PATIENCE * 2;
    wait_until("the look names it", patience, || async { journey_ref.log().contains("public.later was created") })
        .await;
    let said = catch_up(&mut journey, &[], 8);
    assert!(said.contains("walferry add 'public.later'"), "{said}");
}

/// The story: the table was emptied, and then the filter was complained of.
#[tokio::test]
async fn a_table_is_copied_anew_whatever_else_the_filter_lets_in_by_now() {
    let tables = "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE x (id int PRIMARY KEY);
        INSERT INTO a VALUES (1); INSERT INTO x VALUES (1)";
    let left_out = ["--exclude-tables", "x"];
    let mut journey = Journey::on(Pair::builder().start().await, &[tables], &left_out).await;
    catch_up(&mut journey, &left_out, 0);
    journey.stopped(0);
    journey.write(&["INSERT INTO a VALUES (2)", "ALTER TABLE x RENAME TO y"]).await;
    Walferry::run(&journey.pair, &["resync", "a"], PATIENCE).code(0);
    same_rows(&journey, "SELECT * FROM a").await;
    let said = catch_up(&mut journey, &[], 8);
    assert!(said.contains("walferry add 'public.y'"), "{said}");
    Walferry::run(&journey.pair, &["add", "y"], PATIENCE).code(0);
    catch_up(&mut journey, &[], 0);
    journey.pair.assert_equal().await;
}

/// The story: it took part by its root's name alone. The resync that the message
/// asked for emptied it, found that the filter does not have it, and left it out:
/// exit 0, and no row.
#[tokio::test]
async fn a_partition_that_was_detached_stays_a_member_when_it_is_copied_anew() {
    let filter = ["--schemas", "shop"];
    let mut journey = Journey::on(Pair::builder().start().await, &[PARTS], &filter).await;
    let changes = ["ALTER TABLE shop.root DETACH PARTITION parts.a", "UPDATE parts.a SET v = 'alone'"];
    journey.write(&changes).await;
    let stopped = catch_up(&mut journey, &filter, 8);
    let detach = "ALTER TABLE \"shop\".\"root\" DETACH PARTITION \"parts\".\"a\";";
    let again = "walferry resync 'parts.a'";
    let place = |words: &str| stopped.find(words).unwrap_or_else(|| panic!("no {words} in:\n{stopped}"));
    assert!(place(detach) < place(again), "in the order in which it can be done:\n{stopped}");
    assert!(stopped.contains("1 table is not equal"), "{stopped}");
    journey.target.batch_execute(detach).await.unwrap();
    let resync: Vec<&str> = ["resync", "parts.a"].into_iter().chain(filter).collect();
    Walferry::run(&journey.pair, &resync, PATIENCE).code(0);
    journey.write(&["INSERT INTO parts.a VALUES (99, 'z', 'streamed')"]).await;
    catch_up(&mut journey, &filter, 0);
    same_rows(&journey, "SELECT * FROM parts.a").await;
    assert_eq!(journey.value("SELECT count(*) FROM parts.a WHERE v IN ('alone', 'streamed')").await, "2");
}

/// The story: a table that was created between publication and slot was taken for a partition,
/// and was said to be none any more; nothing led on.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_created_while_the_slot_is_waited_for_is_a_new_one() {
    for mode in some_of(["create", "existing"]) {
        let pair = Pair::builder().start().await;
        let (source, target) = (pair.source_client().await, pair.target_client().await);
        let (first, late) =
            ("CREATE TABLE first (id int PRIMARY KEY)", "CREATE TABLE late (id int PRIMARY KEY, v text)");
        execute(&source, &[first]).await;
        if mode == "existing" {
            execute(&target, &[first, late]).await;
        }
        // The slot begins when this has ended.
        execute(&source, &["BEGIN", "INSERT INTO first VALUES (1)"]).await;
        let (arguments, beside) = (["--schema", mode], source_admin(&pair).await);
        let run = Walferry::on(&pair, &[&["run", "--until", "caught-up"], &arguments[..]].concat());
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event_type = 'Lock'";
        wait_until("the slot is waited for", PATIENCE, || async { value(&beside, waits).await == "1" }).await;
        execute(&beside, &[late, "INSERT INTO late SELECT i, 'early' FROM generate_series(1, 7) i"]).await;
        execute(&source, &["COMMIT"]).await;
        let said = run.wait(PATIENCE).code(8).stderr;
        execute(&source, &["INSERT INTO late VALUES (77, 'later')"]).await;
        for words in ["public.late was created on the source after", "walferry add 'public.late'"] {
            assert!(said.contains(words), "{mode}: no \"{words}\" in:\n{said}");
        }
        let arguments = arguments.map(str::to_owned).to_vec();
        Story { pair, source, target, arguments }.leads_to_the_end().await;
    }
}
