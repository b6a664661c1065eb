//! What a connection's session is prepared with.
//!
//! Invariant: every session has the text formats of `libpqrcv_connect`
//! (`src/backend/replication/libpqwalreceiver/libpqwalreceiver.c`), an empty
//! search_path, no timeouts that would cut long work, `row_security = off` so
//! that a policy is an error instead of missing rows, READ COMMITTED whatever
//! the role's default is (a statement must see what another session committed
//! before it), and commits that have reached the disk when they return: a
//! position is confirmed to the source on the strength of that. Read-only
//! transactions stay so: providers set that when a disk is full.

/// The server is to ask within two minutes whether we are still there, not in
/// the two hours that its system would wait: a session of ours that a network
/// swallowed may hold the lease, or locks. Set on every session; nothing on a
/// Unix socket, or where the server's system has no such thing.
pub const NOTICE_LOSS: [&str; 3] =
    ["SET tcp_keepalives_idle = 60", "SET tcp_keepalives_interval = 10", "SET tcp_keepalives_count = 6"];

/// The statements that prepare a session of a server of this version
/// (`server_version_num`).
pub fn preparation(version: i32) -> String {
    let mut sql = String::from(
        "SET statement_timeout = 0; SET lock_timeout = 0; SET client_encoding = 'UTF8'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; \
         SET extra_float_digits = 3; SET search_path = ''; SET row_security = off; \
         SET default_transaction_isolation = 'read committed'; SET default_transaction_deferrable = off; \
         SET idle_in_transaction_session_timeout = 0; \
         SELECT pg_catalog.set_config('synchronous_commit', 'on', false) \
         WHERE pg_catalog.current_setting('synchronous_commit') = 'off'",
    );
    for setting in NOTICE_LOSS {
        sql.push_str("; ");
        sql.push_str(setting);
    }
    if version >= 140_000 {
        sql.push_str("; SET idle_session_timeout = 0");
    }
    if version >= 170_000 {
        sql.push_str("; SET transaction_timeout = 0");
    }
    sql
}

/// One statement: a walsender below PostgreSQL 15 does not take several.
pub(super) fn replication_preparation(version: i32) -> String {
    let mut sql = String::from("SELECT pg_catalog.set_config('search_path', '', false)");
    for (since, setting) in [(140_000, "idle_session_timeout"), (170_000, "transaction_timeout")] {
        if version >= since {
            sql.push_str(&format!(", pg_catalog.set_config('{setting}', '0', false)"));
        }
    }
    sql
}
