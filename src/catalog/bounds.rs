//! Bounds of partitions: in the server's words, and which rows do not fit them.
//!
//! Invariant: two words for the same bounds are told to be alike ([`are_alike`]), where
//! only the order of a list or the types of the columns differ.
//!
//! Source: `get_rule_expr` (T_PartitionBoundSpec) and `get_const_expr` in
//! `src/backend/utils/adt/ruleutils.c`, `get_qual_from_partbound` in
//! `src/backend/partitioning/partbounds.c`.

use std::collections::HashMap;

use super::held::{self, Foreign};
use super::tables::{Shape, only};
use super::types;
use crate::session::{DbContext, DbError, Session};
use crate::sql::TableName;

/// Those of a default partition.
pub const DEFAULT: &str = "DEFAULT";

/// The bounds of all partitions, in the server's words, with their oids.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn bounds(session: &Session) -> Result<HashMap<TableName, (u32, String)>, DbError> {
    // Without the table's oid, which some versions lock it for.
    let sql = "SELECT n.nspname::text, c.relname::text, c.oid, pg_catalog.pg_get_expr(c.relpartbound, 0) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relispartition AND c.relkind IN ('r', 'p')";
    let rows = session.query(sql, &[]).await.during(session.side(), "read the bounds of the partitions")?;
    let bound = |row: &crate::session::Row| {
        let name = TableName { schema: row.take(0)?, name: row.take(1)? };
        Ok((name, (row.take(2)?, row.take(3)?)))
    };
    rows.iter().map(bound).collect()
}

/// The tables that part their rows by a hash of what has another oid on each server, as the
/// labels of an enum have: there a row belongs to another partition (`hashenum` in
/// `src/backend/access/hash/hashfunc.c`).
///
/// # Errors
/// When the catalog cannot be read.
pub async fn hashed_by_oid(session: &Session) -> Result<HashMap<u32, TableName>, DbError> {
    let within = types::within(session.version());
    let sql = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text FROM pg_catalog.pg_partitioned_table p \
         JOIN pg_catalog.pg_class c ON c.oid = p.partrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE p.partstrat = 'h' AND EXISTS (WITH RECURSIVE reached (oid) AS (SELECT a.atttypid FROM pg_catalog.pg_attribute a \
                 WHERE a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs::int2[]) \
             UNION SELECT n.oid FROM reached r JOIN pg_catalog.pg_type t ON t.oid = r.oid, {within} AS n (oid)) \
             SELECT FROM reached r JOIN pg_catalog.pg_type t ON t.oid = r.oid WHERE t.typtype = 'e' OR t.typname ~ '^reg')"
    );
    let rows = session.query(&sql, &[]).await.during(session.side(), "look how tables part their rows")?;
    rows.iter().map(|row| Ok((row.take(0)?, TableName { schema: row.take(1)?, name: row.take(2)? }))).collect()
}

/// What the rows of a partition have to meet, by its bounds and those of the tables above
/// it, as SQL; nothing where no row is kept out.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn constraint(session: &Session, oid: u32) -> Result<Option<String>, DbError> {
    let sql = "SELECT pg_catalog.pg_get_partition_constraintdef($1::oid)";
    let row = session.query_opt(sql, &[&oid]).await.during(session.side(), "read the bounds of a partition")?;
    Ok(row.map(|row| row.take(0)).transpose()?.flatten())
}

/// Which rows of a table are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Those that meet the condition.
    Meeting,
    /// The others.
    Others,
}

/// Whether a table of the target has such rows; a condition that the server cannot ask for, as one of a
/// hash, which names a table by its oid, is met by each row and by none.
///
/// # Errors
/// When the session is lost.
pub async fn has(
    session: &Session,
    (table, shape): (&TableName, Shape),
    condition: &str,
    rows: Rows,
) -> Result<bool, DbError> {
    let of_table = format!("SELECT EXISTS (SELECT FROM {}{}", only(shape), table.sql());
    let any = format!("{of_table})");
    let is_met = match rows {
        Rows::Meeting => "",
        Rows::Others => " NOT",
    };
    let asked = format!("{of_table} WHERE ({condition}) IS{is_met} TRUE)");
    let sql = if condition.contains("satisfies_hash_partition") { &any } else { &asked };
    let read = async |sql| held::read(session, std::iter::once((only(shape), table)), Foreign::Read, sql).await;
    let rows = match read(sql).await {
        Err(error) if error.as_db_error().is_some() => read(&any).await,
        rows => rows,
    };
    let rows = rows.during(session.side(), format!("look for rows of {table} that do not fit the bounds"))?;
    Ok(rows.first().and_then(|row| row.get(0)) == Some("t"))
}

/// Whether these are the same bounds: the order of a list is left aside, and what the same
/// value is called in columns of other types.
pub fn are_alike(one: &str, other: &str) -> bool {
    one == other || parts(one) == parts(other)
}

/// The words with the values between them, those of a list in order.
fn parts(bounds: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let (mut part, mut is_quoted) = (String::new(), false);
    for letter in bounds.chars() {
        is_quoted ^= letter == '\'';
        match letter {
            '(' | ')' | ',' if !is_quoted => {
                parts.push(value(part.trim()));
                part.clear();
            }
            _ => part.push(letter),
        }
    }
    parts.push(value(part.trim()));
    if bounds.starts_with("FOR VALUES IN") {
        parts.sort_unstable();
    }
    parts
}

/// A value as any type of its kind would have it: numbers and dates are quoted in columns of
/// some types, and have decimals or a time of day in those of others.
fn value(word: &str) -> String {
    let bare = word.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).unwrap_or(word);
    let without_zone = bare.strip_suffix("+00").unwrap_or(bare);
    let is_date = |text: &str| !text.is_empty() && text.chars().all(|letter| letter.is_ascii_digit() || letter == '-');
    match without_zone.strip_suffix(" 00:00:00") {
        Some(date) if is_date(date) => return date.to_owned(),
        _ => {}
    }
    let is_number = bare.chars().any(|letter| letter.is_ascii_digit())
        && bare.chars().all(|letter| letter.is_ascii_digit() || letter == '-' || letter == '.');
    match (is_number, bare.contains('.')) {
        (true, true) => bare.trim_end_matches('0').trim_end_matches('.').to_owned(),
        (true, false) => bare.to_owned(),
        (false, _) => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_alike_in_another_order_and_in_columns_of_other_types() {
        for (one, other) in [
            ("FOR VALUES FROM (0) TO (50)", "FOR VALUES FROM ('0') TO ('50')"),
            ("FOR VALUES FROM (0) TO (-5)", "FOR VALUES FROM (0.00) TO ('-5.0')"),
            ("FOR VALUES IN ('a', 'b''c, (d', NULL)", "FOR VALUES IN (NULL, 'b''c, (d', 'a')"),
            (
                "FOR VALUES FROM ('2020-01-01') TO (MAXVALUE)",
                "FOR VALUES FROM ('2020-01-01 00:00:00+00') TO (MAXVALUE)",
            ),
        ] {
            assert!(are_alike(one, other), "{one}, {other}");
        }
        for (one, other) in [
            ("FOR VALUES FROM (0) TO (50)", "FOR VALUES FROM (50) TO (0)"),
            ("FOR VALUES FROM (1, 2) TO (3, 4)", "FOR VALUES FROM (1, 3) TO (2, 4)"),
            ("FOR VALUES IN ('a')", "FOR VALUES IN ('a', 'b')"),
            ("FOR VALUES IN ('a,b')", "FOR VALUES IN ('a', 'b')"),
            ("FOR VALUES IN (NULL)", "FOR VALUES IN ('NULL')"),
            ("FOR VALUES FROM (MINVALUE) TO ('x')", "FOR VALUES FROM ('MINVALUE') TO ('x')"),
            ("FOR VALUES IN (10)", "FOR VALUES IN (100)"),
            ("FOR VALUES WITH (modulus 4, remainder 1)", "FOR VALUES WITH (modulus 4, remainder 2)"),
            ("FOR VALUES FROM ('2020-01-01') TO (MAXVALUE)", "FOR VALUES FROM ('2020-01-01 10:00:00') TO (MAXVALUE)"),
            (DEFAULT, "FOR VALUES IN (1)"),
        ] {
            assert!(!are_alike(one, other), "{one}, {other}");
        }
    }
}
