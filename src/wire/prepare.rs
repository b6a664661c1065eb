//! What a connection's session is prepared with.
//!
//! Invariant: every session, ours and pg_dump's, on both ends and for replication, has
//! [`PINNED`], whatever database and role have as their defaults: a value is read on one
//! side as it was written on the other. `row_security` is off so that a policy is an
//! error instead of missing rows; commits have reached the disk when they return: a
//! position is confirmed to the source on the strength of that. Read-only transactions
//! stay so: providers set that when a disk is full. On the source no session runs what is
//! behind a view or a foreign table ([`RESTRICTED`]): it may have been put where a table or
//! a sequence was when it was listed.
//!
//! Source: `libpqrcv_connect` in `src/backend/replication/libpqwalreceiver/libpqwalreceiver.c`
//! and `setup_connection` in `src/bin/pg_dump/pg_dump.c` pin the first of them;
//! <https://www.postgresql.org/docs/current/runtime-config-client.html> has all;
//! `set_restrict_relation_kind` in `pg_dump.c`, and CVE-2024-7348.

use std::fmt::Write;

use crate::config::Side;

/// A setting, the value that it has in our sessions, and the version (as
/// `server_version_num`) from which on servers know it.
type Pin = (&'static str, &'static str, i32);

/// The settings of every session. A replication connection has them for the output
/// functions that it calls.
pub const PINNED: [Pin; 28] = [
    // How values are written and read: the text of one side is the other's input.
    ("client_encoding", "UTF8", 0),
    ("datestyle", "ISO", 0),
    ("intervalstyle", "postgres", 0),
    ("extra_float_digits", "3", 0),
    ("bytea_output", "hex", 0),
    ("timezone", "UTC", 0),
    // Money has the sign and the point of this one.
    ("lc_monetary", "C", 0),
    // Off: NULL in an array is the text 'NULL'.
    ("array_nulls", "on", 0),
    // Document: a fragment is refused.
    ("xmloption", "content", 0),
    // Off: a backslash in a literal of a default or a CHECK is taken away.
    ("standard_conforming_strings", "on", 0),
    // On: "= NULL" in a CHECK or a policy is another condition.
    ("transform_null_equals", "off", 0),
    // On: definitions are not in the words that they are compared in.
    ("quote_all_identifiers", "off", 0),
    // What a name means: every name of ours is qualified.
    ("search_path", "", 0),
    // A named one cannot be given to partitioned tables; tables are where the database is.
    ("default_tablespace", "", 0),
    // A policy is an error.
    ("row_security", "off", 0),
    // A statement must see what another session committed before it.
    ("default_transaction_isolation", "read committed", 0),
    ("default_transaction_deferrable", "off", 0),
    // Error: there is no word of privileges that are not given.
    ("client_min_messages", "notice", 0),
    // Rows come in the order in which they are, not from where another scan is.
    ("synchronize_seqscans", "off", 0),
    // To compile a query over the catalogs of many tables takes longer than to run it.
    ("jit", "off", 110_000),
    // Nothing of ours is cut off for taking long.
    ("statement_timeout", "0", 0),
    ("lock_timeout", "0", 0),
    ("idle_in_transaction_session_timeout", "0", 0),
    ("idle_session_timeout", "0", 140_000),
    ("transaction_timeout", "0", 170_000),
    // The server asks within two minutes whether we are still there, not in the two hours
    // that its system would wait: a session of ours that a network swallowed may hold the
    // lease, or locks. Nothing on a Unix socket, or where the system has no such thing.
    ("tcp_keepalives_idle", "60", 0),
    ("tcp_keepalives_interval", "10", 0),
    ("tcp_keepalives_count", "6", 0),
];

/// What sessions of the source are kept from, where the server has the setting (17, and the
/// minors of August 2024: 12.20, 13.16, 14.13, 15.8, 16.4). Views and foreign tables that
/// came with the server may be read. Not on the target: the triggers, defaults and materialized
/// views there that act for us may be over views, and are the owners' whose rows we bring.
pub const RESTRICTED: (&str, &str) = ("restrict_nonsystem_relation_kind", "view, foreign-table");

/// The first major version that has it in every minor.
const RESTRICTED_SINCE: i32 = 170_000;

/// Those of pg_dump, as its session's options: what it does not set by itself.
pub const OF_PG_DUMP: [&str; 9] = [
    "jit",
    "timezone",
    "lc_monetary",
    "array_nulls",
    "xmloption",
    "standard_conforming_strings",
    "transform_null_equals",
    "quote_all_identifiers",
    "bytea_output",
];

/// The statement that prepares a session of a server of this version
/// (`server_version_num`); one, as a walsender below PostgreSQL 15 does not take several.
pub fn preparation(version: i32, side: Side) -> String {
    let mut sql = String::from("SELECT ");
    for (name, value, _) in PINNED.iter().filter(|(_, _, since)| version >= *since) {
        write!(sql, "pg_catalog.set_config('{name}', '{value}', false), ").unwrap_or_default();
    }
    if side == Side::Source {
        let (name, value) = RESTRICTED;
        // Asked of the server: what is built on PostgreSQL may number its minors otherwise.
        write!(
            sql,
            "CASE WHEN pg_catalog.current_setting('{name}', true) IS NOT NULL \
             THEN pg_catalog.set_config('{name}', '{value}', false) END, "
        )
        .unwrap_or_default();
    }
    sql.push_str(
        "pg_catalog.set_config('synchronous_commit', CASE pg_catalog.current_setting('synchronous_commit') \
         WHEN 'off' THEN 'on' ELSE pg_catalog.current_setting('synchronous_commit') END, false)",
    );
    sql
}

/// pg_dump's options: no timeouts (it sets its own off only after its first statement),
/// and what it takes from database and role of a server of this version. One from before
/// August 2024 does not restrict itself; below 17 it is left so, as the server may not know
/// the setting, and `--schema-only` reads no rows.
pub fn pg_dump_options(version: i32) -> String {
    let is_wanted = |name: &str| name.ends_with("_timeout") || OF_PG_DUMP.contains(&name);
    let wanted = PINNED.iter().filter(|(name, _, since)| version >= *since && is_wanted(name));
    let restricted = Some(RESTRICTED).filter(|_| version >= RESTRICTED_SINCE);
    let options = wanted.map(|(name, value, _)| (*name, *value)).chain(restricted);
    options.map(|(name, value)| format!("-c {name}={}", value.replace(' ', ""))).collect::<Vec<_>>().join(" ")
}
