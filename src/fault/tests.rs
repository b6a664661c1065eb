//! Tests of the tables.

use super::*;

#[test]
fn an_exit_code_is_that_of_its_kind() {
    let codes: Vec<u8> = Exit::ALL.into_iter().map(Exit::code).collect();
    assert_eq!(codes, [0, 1, 2, 3, 4, 6, 7, 8, 130]);
    assert_eq!(Fault::Server(Side::Source, Trouble::Lasting).verdict().exit, Exit::Source);
    assert_eq!(Fault::Server(Side::Target, Trouble::Passing).verdict().exit, Exit::Target);
}

#[test]
fn only_what_passes_is_tried_again() {
    assert!(Fault::passing(Side::Source).is_retried() && Fault::Server(Side::Target, Trouble::LeaseLost).is_retried());
    for fault in [Fault::Bug, Fault::Refused, Fault::Interrupted, Fault::NeedsResync, Fault::lasting(Side::Target)] {
        assert!(!fault.is_retried(), "{fault:?}");
    }
}

/// The story: a deadlock on a replication connection or in a copy was for the
/// operator, on an ordinary session it was tried again: two lists.
#[test]
fn a_sqlstate_means_the_same_whoever_meets_it() {
    for passing in ["08006", "08P01", "40001", "40P01", "53300", "55006", "55P03", "57P01", "57P02", "57P03", "57P05"] {
        assert_eq!(sqlstate::trouble(passing, ""), Trouble::Passing, "{passing}");
    }
    for lasting in ["28P01", "28000", "3D000", "23505", "22012", "42601", "55000", "57014", "XX000", ""] {
        assert_eq!(sqlstate::trouble(lasting, ""), Trouble::Lasting, "{lasting}");
    }
    assert_eq!(sqlstate::trouble("42501", ""), Trouble::NotGranted);
    assert_eq!(sqlstate::trouble("25006", ""), Trouble::ReadOnly);
}

#[test]
fn what_is_missing_and_what_is_there_already_have_the_codes_of_the_drivers_names() {
    use tokio_postgres::error::SqlState;
    let missing = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_OBJECT,
        SqlState::UNDEFINED_COLUMN,
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::WRONG_OBJECT_TYPE,
        SqlState::INVALID_FOREIGN_KEY,
    ];
    let there = [
        SqlState::DUPLICATE_TABLE,
        SqlState::DUPLICATE_OBJECT,
        SqlState::DUPLICATE_FUNCTION,
        SqlState::DUPLICATE_SCHEMA,
    ];
    let given_up = [SqlState::LOCK_NOT_AVAILABLE, SqlState::QUERY_CANCELED];
    assert!(missing.iter().all(|code| sqlstate::is_missing(code.code())));
    assert!(there.iter().all(|code| sqlstate::is_already_there(code.code())));
    assert!(given_up.iter().all(|code| sqlstate::is_given_up(code.code())));
    assert!(!missing.iter().chain(&given_up).any(|code| sqlstate::is_already_there(code.code())));
    assert!(sqlstate::is_second_key(SqlState::INVALID_TABLE_DEFINITION.code()));
    assert!(sqlstate::is_overlapping(SqlState::INVALID_OBJECT_DEFINITION.code()));
    for (ours, theirs) in [
        (sqlstate::OUT_OF_MEMORY, SqlState::OUT_OF_MEMORY),
        (sqlstate::SYNTAX_ERROR, SqlState::SYNTAX_ERROR),
        (sqlstate::FEATURE_NOT_SUPPORTED, SqlState::FEATURE_NOT_SUPPORTED),
        (sqlstate::DEADLOCK_DETECTED, SqlState::T_R_DEADLOCK_DETECTED),
    ] {
        assert_eq!(ours, theirs.code());
    }
}

/// The story: a publication that was dropped while a look read the catalog ended the
/// daemon with the server's riddle.
#[test]
fn an_object_that_is_altered_while_it_is_looked_at_passes() {
    for words in ["cache lookup failed for publication 16402", "tuple concurrently updated"] {
        assert_eq!(sqlstate::trouble("XX000", words), Trouble::Passing, "{words}");
        assert_eq!(sqlstate::trouble("42704", words), Trouble::Lasting, "{words}");
    }
    assert_eq!(sqlstate::trouble("XX000", "invalid memory alloc request size"), Trouble::Lasting);
}

#[test]
fn what_a_server_refuses_for_good_before_anything_was_created_is_refused_and_the_rest_stays() {
    for refused in [Trouble::Lasting, Trouble::NotGranted, Trouble::ReadOnly] {
        assert_eq!(Fault::Server(Side::Source, refused).before_anything(), Fault::Refused);
    }
    for stays in [Fault::passing(Side::Source), Fault::Server(Side::Target, Trouble::Leased), Fault::Bug] {
        assert_eq!(stays.before_anything(), stays);
    }
}

/// A table of documentation has each code with its meaning.
fn requires(text: &str, what: &str) {
    let rows: Vec<String> = Exit::ALL.iter().map(|exit| format!("| {} | {} |", exit.code(), exit.meaning())).collect();
    let table = format!("| code | meaning |\n|---|---|\n{}\n", rows.join("\n"));
    assert!(text.contains(&table), "{what} has another table of exit codes than:\n{table}");
}

#[test]
fn readme_and_notes_show_the_table_of_exit_codes() {
    requires(include_str!("../../README.md"), "README.md");
    requires(include_str!("../../proto-notes/errors.md"), "proto-notes/errors.md");
}

#[test]
fn the_chain_of_causes_is_printed_without_repetition() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot do it: {0}")]
    struct Outer(#[source] Inner);
    #[derive(Debug, thiserror::Error)]
    #[error("the inner words")]
    struct Inner(#[source] std::io::Error);
    let error = Outer(Inner(std::io::Error::other("no such thing")));
    assert_eq!(chain(&error), "cannot do it: the inner words: no such thing");
}
