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
/// numeric_value_out_of_range.
pub const NUMERIC_VALUE_OUT_OF_RANGE: &str = "22003";
/// string_data_right_truncation: of a value that is too long.
pub const STRING_DATA_RIGHT_TRUNCATION: &str = "22001";
/// insufficient_privilege.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// deadlock_detected.
pub const DEADLOCK_DETECTED: &str = "40P01";
/// feature_not_supported: also what the server was built without.
pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
/// out_of_memory: also of the table of locks.
pub const OUT_OF_MEMORY: &str = "53200";
/// syntax_error: also a replication command in an ordinary session.
pub const SYNTAX_ERROR: &str = "42601";
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
        "40001" | DEADLOCK_DETECTED => meaning(Passing, ""),
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
        "53100" => meaning(Lasting, "make room on its disk, and start again: what is done stays"),
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

/// What to do about a refused statement that creates an object of the source's, for
/// the message; empty where the server's words do. A target that is older than the
/// source does not know all of its syntax.
pub fn advice_on_creating(sqlstate: &str, is_target_older: bool) -> &'static str {
    match sqlstate {
        INSUFFICIENT_PRIVILEGE => {
            ": the role may not; have an administrator of the target create it and start again, \
             or grant the role what is missing"
        }
        _ if is_already_there(sqlstate) => {
            ": it exists already; use --schema existing, or start with an empty database"
        }
        OUT_OF_MEMORY => {
            ": if the server speaks of locks, raise max_locks_per_transaction on the target: the schema is restored in one transaction"
        }
        SYNTAX_ERROR if is_target_older => {
            ": the target is older than the source and does not know this; change it on the source, \
             leave the table out with --exclude-tables, or create the schema yourself and use --schema existing"
        }
        _ => "",
    }
}

/// Whether the server's machine has not enough of something, or fails: rows and SQL are as good
/// as they were (classes 53 and 58).
pub fn is_of_the_machine(sqlstate: &str) -> bool {
    sqlstate.starts_with("53") || sqlstate.starts_with("58")
}

/// Whether a warning says that privileges were not given or not taken
/// (`privilege_not_granted`, `privilege_not_revoked`).
pub fn is_privilege_refused(sqlstate: &str) -> bool {
    matches!(sqlstate, "01006" | "01007")
}

/// Whether a relation or its schema is gone: undefined_table,
/// invalid_schema_name.
pub fn is_gone(sqlstate: &str) -> bool {
    matches!(sqlstate, UNDEFINED_TABLE | "3F000")
}

/// Whether what has a name may be a view that is not to be read
/// (object_not_in_prerequisite_state, see [`crate::wire::RESTRICTED`]); it has other causes.
pub fn is_restricted(sqlstate: &str) -> bool {
    sqlstate == "55000"
}

/// Whether a table, a column or a schema is not there under its name:
/// undefined_column, or as [`is_gone`].
pub fn is_undefined(sqlstate: &str) -> bool {
    sqlstate == "42703" || is_gone(sqlstate)
}

/// Whether something is not there that a statement needs: undefined_function,
/// undefined_object, wrong_object_type, invalid_foreign_key (no key that it could
/// refer to), or as [`is_undefined`].
pub fn is_missing(sqlstate: &str) -> bool {
    matches!(sqlstate, UNDEFINED_FUNCTION | UNDEFINED_OBJECT | "42809" | "42830") || is_undefined(sqlstate)
}

/// Whether something has the name already: duplicate_table, duplicate_object,
/// duplicate_function, duplicate_schema.
pub fn is_already_there(sqlstate: &str) -> bool {
    matches!(sqlstate, "42P07" | "42710" | "42723" | "42P06")
}

/// Whether a table has a primary key already ("multiple primary keys for table"):
/// invalid_table_definition.
pub fn is_second_key(sqlstate: &str) -> bool {
    sqlstate == "42P16"
}

/// Whether other partitions overlap a new one: invalid_object_definition.
pub fn is_overlapping(sqlstate: &str) -> bool {
    sqlstate == "42P17"
}

/// Whether a statement was given up after the time that it was given:
/// lock_not_available (lock_timeout), query_canceled (statement_timeout).
pub fn is_given_up(sqlstate: &str) -> bool {
    matches!(sqlstate, LOCK_NOT_AVAILABLE | "57014")
}

/// What importing a snapshot that is gone is answered with
/// (`ImportSnapshot` in `src/backend/utils/time/snapmgr.c`): there is no file of
/// that name (22023; 42704 from 17 on), or who exported it has ended (55000).
pub fn is_snapshot_gone(sqlstate: &str) -> bool {
    matches!(sqlstate, "22023" | UNDEFINED_OBJECT | "55000")
}

/// Whether detail and context of an error quote the row (data exceptions,
/// violated constraints): they are not shown then, names stand for them.
pub fn quotes_the_row(sqlstate: &str) -> bool {
    sqlstate.starts_with("22") || sqlstate.starts_with("23")
}
