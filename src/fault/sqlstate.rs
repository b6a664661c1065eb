//! The one table of SQLSTATEs: which of them pass by themselves, and what an
//! operator can do about others.
//!
//! Invariant: what a SQLSTATE means is decided here and nowhere else; a code
//! that is not in the table is for the operator, with the server's own words.
//!
//! Source: `src/backend/utils/errcodes.txt`; where the codes come from is said
//! at each of them.

use super::{Fault, Trouble};
use crate::config::Side;

/// unique_violation.
pub const UNIQUE_VIOLATION: &str = "23505";
/// check_violation: of a partition's bounds as well.
pub const CHECK_VIOLATION: &str = "23514";
/// exclusion_violation.
pub const EXCLUSION_VIOLATION: &str = "23P01";
/// division_by_zero: how our own statements say that a count is wrong.
pub const DIVISION_BY_ZERO: &str = "22012";
/// invalid_text_representation: of a label that an enum lacks, of a record with other
/// attributes.
pub const INVALID_TEXT_REPRESENTATION: &str = "22P02";
/// insufficient_privilege.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// read_only_sql_transaction.
pub const READ_ONLY_SQL_TRANSACTION: &str = "25006";
/// undefined_function.
pub const UNDEFINED_FUNCTION: &str = "42883";
/// undefined_table.
pub const UNDEFINED_TABLE: &str = "42P01";
/// cannot_coerce: there is no cast between two types.
pub const CANNOT_COERCE: &str = "42846";
/// lock_not_available.
pub const LOCK_NOT_AVAILABLE: &str = "55P03";
/// undefined_object.
pub const UNDEFINED_OBJECT: &str = "42704";
/// internal_error: what PostgreSQL's own checks find.
pub const INTERNAL_ERROR: &str = "XX000";

/// What is known of a SQLSTATE.
struct Meaning {
    trouble: Trouble,
    /// What to do, for the message itself.
    advice: &'static str,
}

const fn meaning(trouble: Trouble, advice: &'static str) -> Meaning {
    Meaning { trouble, advice }
}

fn of(sqlstate: &str) -> Meaning {
    use Trouble::{Lasting, NotGranted, Passing, ReadOnly};
    match sqlstate {
        // Class 08: connection exceptions.
        _ if sqlstate.starts_with("08") => meaning(Passing, ""),
        // serialization_failure; on a replication connection "initial slot
        // snapshot too large" (snapbuild.c). deadlock_detected.
        "40001" | "40P01" => meaning(Passing, ""),
        "53300" => meaning(
            Passing,
            "raise max_connections, max_wal_senders or the role's CONNECTION LIMIT there, or close connections",
        ),
        // object_in_use: "replication slot is active", until the server notices
        // that our previous connection is gone.
        "55006" => meaning(
            Passing,
            "another connection uses it: end that process, or wait until the server notices that it is gone",
        ),
        // lock_not_available: lock_timeout.
        LOCK_NOT_AVAILABLE => meaning(Passing, ""),
        // admin_shutdown, crash_shutdown, cannot_connect_now (starting up),
        // idle_session_timeout.
        "57P01" | "57P02" | "57P03" | "57P05" => meaning(Passing, ""),
        INSUFFICIENT_PRIVILEGE => meaning(NotGranted, ""),
        READ_ONLY_SQL_TRANSACTION => meaning(ReadOnly, ""),
        "28P01" => meaning(Lasting, "check the password in the URI, PGPASSWORD or ~/.pgpass"),
        "28000" => {
            meaning(Lasting, "check that the role exists, may log in, and that pg_hba.conf lets it in from here")
        }
        "3D000" => meaning(Lasting, "check the database's name"),
        _ => meaning(Lasting, ""),
    }
}

/// How internal errors begin that say no more than that somebody altered or dropped
/// an object while a statement looked at it (`elog` in `src/backend/utils/cache/`,
/// `relation_open`, `simple_heap_update`): never translated, and gone the next time.
const CAUGHT_IN_BETWEEN: [&str; 3] =
    ["cache lookup failed for ", "could not open relation with OID ", "tuple concurrently "];

/// What is wrong at the server that says this, in these words.
pub fn trouble(sqlstate: &str, words: &str) -> Trouble {
    let is_caught = sqlstate == INTERNAL_ERROR && CAUGHT_IN_BETWEEN.iter().any(|begin| words.starts_with(begin));
    if is_caught { Trouble::Passing } else { of(sqlstate).trouble }
}

/// The fault of a statement that a server refused in these words.
pub fn fault(side: Side, sqlstate: &str, words: &str) -> Fault {
    Fault::Server(side, trouble(sqlstate, words))
}

/// What to do about it, for the message; empty where the server's words do. The
/// context says within what it was met: only functions miss others there.
pub fn advice(sqlstate: &str, context: Option<&str>) -> &'static str {
    match sqlstate {
        UNDEFINED_FUNCTION | UNDEFINED_TABLE if context.is_some() => {
            "the function finds what it uses by search_path, which is empty here as in a restore of pg_dump's: give \
             it its own (ALTER FUNCTION … SET search_path = …)"
        }
        _ => of(sqlstate).advice,
    }
}

/// Whether a relation or its schema is gone: undefined_table,
/// invalid_schema_name.
pub fn is_gone(sqlstate: &str) -> bool {
    matches!(sqlstate, "42P01" | "3F000")
}

/// Whether a table, a column or a schema is not there under its name:
/// undefined_table, undefined_column, invalid_schema_name.
pub fn is_undefined(sqlstate: &str) -> bool {
    matches!(sqlstate, "42P01" | "42703" | "3F000")
}

/// What importing a snapshot that is gone is answered with
/// (`ImportSnapshot` in `src/backend/utils/time/snapmgr.c`): there is no file of
/// that name (22023; 42704 from 17 on), or who exported it has ended (55000).
pub fn is_snapshot_gone(sqlstate: &str) -> bool {
    matches!(sqlstate, "22023" | "42704" | "55000")
}

/// Whether detail and context of an error quote the row (data exceptions,
/// violated constraints): they are not shown then, names stand for them.
pub fn quotes_the_row(sqlstate: &str) -> bool {
    sqlstate.starts_with("22") || sqlstate.starts_with("23")
}
