//! Foreign keys of the operator's (`--schema none`) that act on rows of other tables: in
//! force behind the copy, while changes are applied, where there is no way to be silent,
//! and silent in the copy as in the stream where there is.

use crate::journey::{PATIENCE, execute, value};
use crate::support::pair::{Pair, TargetRole};
use crate::support::process::{Walferry, command_for};
use crate::support::some_of;

const RUN: [&str; 5] = ["run", "--until", "caught-up", "--schema", "none"];

/// A pair whose copy was killed between the parent's rows and the child's, so
/// that the child's are of a later point once it has gone on. The key was brought in by
/// hand behind them.
async fn cut_off_between(action: &str, changes: &[&str]) -> Pair {
    let pair = Pair::builder().start().await;
    let tables =
        "CREATE TABLE parent (id int PRIMARY KEY, filler text); CREATE TABLE child (id int PRIMARY KEY, parent int)";
    let key = format!("ALTER TABLE child ADD CONSTRAINT acts FOREIGN KEY (parent) REFERENCES parent {action}");
    let (source, target) = (pair.source_client().await, pair.target_client().await);
    execute(&source, &[tables, &key, "INSERT INTO parent SELECT i, md5(i::text) FROM generate_series(1, 20000) i"])
        .await;
    execute(&source, &["INSERT INTO child SELECT i, i FROM generate_series(1, 20) i"]).await;
    execute(&target, &[tables]).await;
    let killed_at = async |failpoint: &str, expected: &str| {
        let mut command = command_for(&pair, &["run", "--schema", "none", "--jobs", "1"]);
        command.env("WALFERRY_FAILPOINT", failpoint);
        Walferry::spawn(command).wait(PATIENCE);
        let states = "SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) FROM walferry.tables";
        assert_eq!(value(&target, states).await, expected);
    };
    // The larger table comes first.
    killed_at("copy-before-commit:2", "child copying, parent ready").await;
    execute(&source, changes).await;
    killed_at("copy-rows:1", "child indexing, parent ready").await;
    execute(&target, &[&key]).await;
    pair
}

/// The story: with `--schema none` the parent's old DELETE was applied to a
/// target whose child table was of a later point, and took rows along that
/// nothing brought back. Both sides differed, and nobody said so.
#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_would_fall_upon_rows_of_a_later_point_is_refused_with_the_sql_that_mends_it() {
    let anew = "BEGIN; DELETE FROM parent WHERE id = 1; INSERT INTO parent VALUES (1, 'anew'); \
         INSERT INTO child VALUES (101, 1); COMMIT";
    let moved = "BEGIN; UPDATE parent SET id = 100000 WHERE id = 1; UPDATE child SET parent = 2 WHERE id = 1; \
         INSERT INTO parent VALUES (1, 'anew'); INSERT INTO child VALUES (101, 1); COMMIT";
    for (action, changes, operation) in some_of([
        ("ON DELETE CASCADE", anew, "DELETE"),
        ("ON DELETE SET NULL", anew, "DELETE"),
        ("ON UPDATE CASCADE", moved, "UPDATE"),
    ]) {
        let pair = cut_off_between(action, &[changes]).await;
        let refused = Walferry::run(&pair, &RUN, PATIENCE).code(7);
        let (drop, add) = (
            "ALTER TABLE \"public\".\"child\" DROP CONSTRAINT \"acts\";".to_owned(),
            format!(
                "ALTER TABLE \"public\".\"child\" ADD CONSTRAINT \"acts\" FOREIGN KEY (parent) REFERENCES public.parent(id) {action};"
            ),
        );
        for words in [&format!("cannot apply {operation} on public.parent"), &drop, &add] {
            assert!(refused.stderr.contains(words), "no \"{words}\" in:\n{}", refused.stderr);
        }
        let target = pair.target_client().await;
        execute(&target, &[&drop]).await;
        Walferry::run(&pair, &RUN, PATIENCE).code(0);
        Walferry::run(&pair, &["catchup", "--schema", "none"], PATIENCE).code(0);
        pair.assert_equal().await;
        execute(&target, &[&add]).await;
    }
}

/// Where no change of the parent lies between the two points, and where all
/// tables are of one, the actions are harmless.
#[tokio::test(flavor = "multi_thread")]
async fn an_action_with_nothing_to_do_is_none_to_refuse() {
    // Not between: an insert acts on nobody.
    let pair = cut_off_between(
        "ON DELETE CASCADE",
        &["INSERT INTO parent VALUES (30000, 'new'); UPDATE parent SET filler = 'changed' WHERE id = 2"],
    )
    .await;
    Walferry::run(&pair, &RUN, PATIENCE).code(0);
    let source = pair.source_client().await;
    // Behind both points: the stream itself has what the action does.
    execute(&source, &["DELETE FROM parent WHERE id <= 3", "INSERT INTO child VALUES (101, 4)"]).await;
    Walferry::run(&pair, &["catchup", "--schema", "none"], PATIENCE).code(0);
    pair.assert_equal().await;
}

/// Row by row the parent's DELETE comes first, and its action takes the row
/// that the child's own DELETE is for.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_an_action_took_before_its_own_delete_came_is_spoken_of_as_that() {
    let pair = cut_off_between("ON DELETE CASCADE", &[]).await;
    Walferry::run(&pair, &RUN, PATIENCE).code(0);
    let (source, target) = (pair.source_client().await, pair.target_client().await);
    // A trigger wants the order of the source.
    execute(
        &target,
        &[
            "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER noted BEFORE UPDATE ON child FOR EACH ROW EXECUTE FUNCTION noted()",
        ],
    )
    .await;
    execute(&source, &["DELETE FROM parent WHERE id = 1"]).await;
    let catch_up = ["catchup", "--schema", "none"];
    let refused = Walferry::run(&pair, &catch_up, PATIENCE).code(7);
    let drop = "ALTER TABLE \"public\".\"child\" DROP CONSTRAINT \"acts\";";
    for words in ["cannot apply DELETE on public.child (key id)", "it affected 0 rows", drop] {
        assert!(refused.stderr.contains(words), "no \"{words}\" in:\n{}", refused.stderr);
    }
    execute(&target, &[drop]).await;
    Walferry::run(&pair, &catch_up, PATIENCE).code(0);
    pair.assert_equal().await;
}

/// The story: UPDATE may not write such a column, the row was deleted and inserted anew, and its
/// children went with it; exit 0.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_would_be_a_delete_and_an_insert_is_refused_where_something_acts_on_that() {
    let fires = "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN DELETE FROM child; RETURN OLD; END'; \
         CREATE TRIGGER noted AFTER DELETE ON parent FOR EACH ROW EXECUTE FUNCTION noted()";
    let acts = "ALTER TABLE child ADD FOREIGN KEY (parent) REFERENCES parent ON DELETE CASCADE";
    for in_force in some_of([acts, fires]) {
        let pair = Pair::builder().start().await;
        let (source, target) = (pair.source_client().await, pair.target_client().await);
        let tables = "CREATE TABLE parent (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v text); \
             CREATE TABLE child (id int PRIMARY KEY, parent int)";
        execute(&source, &[tables, "INSERT INTO parent (id, v) VALUES (1, 'a'), (2, 'b')"]).await;
        execute(&source, &["INSERT INTO child SELECT i, 1 FROM generate_series(1, 20) i"]).await;
        execute(&target, &[tables]).await;
        Walferry::run(&pair, &RUN, PATIENCE).code(0);
        execute(&target, &[in_force]).await;
        execute(&source, &["UPDATE parent SET v = 'c', n = DEFAULT WHERE id = 1"]).await;
        let catch_up = ["catchup", "--schema", "none"];
        let refused = Walferry::run(&pair, &catch_up, PATIENCE).code(7).stderr;
        let alter = |how| format!("ALTER TABLE public.parent ALTER COLUMN n SET GENERATED {how}");
        let check = Walferry::run(&pair, &["check", "--schema", "none"], PATIENCE).code(3).stdout;
        for said in [&refused, &check] {
            let said = said.replace('"', "");
            assert!(said.contains(&alter("BY DEFAULT")) && said.contains(&alter("ALWAYS")), "{said}");
        }
        assert_eq!(value(&target, "SELECT count(*) FROM child").await, "20");
        execute(&target, &[&alter("BY DEFAULT")]).await;
        Walferry::run(&pair, &catch_up, PATIENCE).code(0);
        pair.assert_equal().await;
        execute(&target, &[&alter("ALWAYS")]).await;
    }
}

/// The stories: `check` was ready as triggers can be silent, and no copy brought the child's
/// rows in before the parent's, or could empty the parent once more.
#[tokio::test(flavor = "multi_thread")]
async fn keys_and_triggers_are_silent_in_the_copy_where_the_role_may_have_that() {
    let pair = Pair::builder().target_role(TargetRole::DoWrapped).start().await;
    let tables = "CREATE TABLE parent (id int PRIMARY KEY, filler text); \
         CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE, filler text); \
         CREATE UNLOGGED TABLE above (id int PRIMARY KEY); CREATE UNLOGGED TABLE below (id int PRIMARY KEY REFERENCES above ON DELETE CASCADE)";
    let triggers = [
        "CREATE FUNCTION changes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.filler := ''other''; RETURN NEW; END'",
        "CREATE TRIGGER changes BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION changes()",
        "CREATE UNLOGGED TABLE of_the_targets (id int REFERENCES above ON DELETE CASCADE)",
    ];
    let (source, target) = (pair.source_client().await, pair.target_client().await);
    let rows = [
        tables,
        "INSERT INTO parent SELECT i, 'p' FROM generate_series(1, 100) i",
        "INSERT INTO child SELECT i, i % 100 + 1, repeat('c', 100) FROM generate_series(1, 20000) i",
        "INSERT INTO above VALUES (1), (2); INSERT INTO below VALUES (1)",
    ];
    execute(&source, &rows).await;
    execute(&target, &[tables]).await;
    execute(&target, &triggers).await;
    Walferry::run(&pair, &["check", "--schema", "none"], PATIENCE).code(0);
    // The larger table comes first, and the parent is cut off.
    let mut command = command_for(&pair, &["run", "--schema", "none", "--jobs", "1"]);
    command.env("WALFERRY_FAILPOINT", "copy-before-commit:2");
    Walferry::spawn(command).wait(PATIENCE);
    let states = "SELECT string_agg(name || ' ' || state, ', ' ORDER BY name) FROM walferry.tables WHERE name IN ('child', 'parent')";
    assert_eq!(value(&target, states).await, "child ready, parent copying");
    Walferry::run(&pair, &RUN, PATIENCE).code(0);
    execute(&source, &["UPDATE parent SET filler = 'q' WHERE id = 7", "DELETE FROM child WHERE id = 8"]).await;
    // Its children stay.
    Walferry::run(&pair, &["resync", "public.parent", "--schema", "none"], PATIENCE).code(0);
    Walferry::run(&pair, &["catchup", "--finish", "--schema", "none"], PATIENCE).code(0);
    execute(&target, &["DROP TABLE of_the_targets"]).await;
    pair.assert_equal().await;
    assert_eq!(value(&target, "SELECT count(*)::text FROM child WHERE filler <> 'other'").await, "19999");
}
