//! What a newer pg_dump writes and an older target does not understand.
//!
//! Invariant: the rewritten statements mean the same on the older server.
//! Source: `dumpTableSchema` in `src/bin/pg_dump/pg_dump.c`: a table of 18 or
//! newer names NOT NULL of an inherited column among its table constraints,
//! which older grammars do not have.

use super::archive::Entry;
use super::classify::{identifier, qualified};
use super::kind::Kind;
use crate::sql::ident;
use crate::sql::tokens::token_length;

/// The first PostgreSQL (`server_version_num`) with NOT NULL as a constraint of a table.
const NOT_NULL_OF_TABLES: i32 = 180_000;

/// Rewrites the entry's SQL for a target of this version.
pub(super) fn rewrite(entry: &mut Entry, target_version: i32) {
    if target_version >= NOT_NULL_OF_TABLES || !matches!(entry.kind, Kind::Table | Kind::ForeignTable) {
        return;
    }
    if let Some(sql) = without_table_not_nulls(&entry.sql) {
        entry.sql = sql;
    }
}

/// The NOT NULLs among the elements of CREATE TABLE as statements behind it;
/// `None` when there are none.
fn without_table_not_nulls(sql: &str) -> Option<String> {
    let (_, name) = sql.split_once("TABLE ")?;
    let (table, _) = qualified(name)?;
    let (head, elements, tail) = elements(sql)?;
    let (not_nulls, kept): (Vec<&str>, Vec<&str>) = elements.into_iter().partition(|e| not_null_column(e).is_some());
    if not_nulls.is_empty() {
        return None;
    }
    let columns = not_nulls.into_iter().filter_map(not_null_column);
    let alters = columns
        .map(|column| format!("\n\nALTER TABLE ONLY {} ALTER COLUMN {} SET NOT NULL;", table.sql(), ident(&column)));
    let kept: Vec<&str> = kept.into_iter().map(str::trim_end).collect();
    Some(format!("{head}{}\n{tail}{}", kept.join(","), alters.collect::<String>()))
}

/// The column of "[CONSTRAINT name] NOT NULL column".
fn not_null_column(element: &str) -> Option<String> {
    let element = element.trim();
    let unnamed = match element.strip_prefix("CONSTRAINT ") {
        Some(named) => identifier(named)?.1.trim_start(),
        None => element,
    };
    identifier(unnamed.strip_prefix("NOT NULL ")?).map(|(column, _)| column)
}

/// Splits CREATE TABLE at the commas of its first parentheses: what is up to
/// the opening one, the elements, and the rest from the closing one on.
fn elements(sql: &str) -> Option<(&str, Vec<&str>, &str)> {
    let (mut at, mut depth, mut start, mut head) = (0, 0_usize, 0, None);
    let mut found = Vec::new();
    while let Some(rest) = sql.get(at..).filter(|rest| !rest.is_empty()) {
        let length = token_length(rest, sql.get(..at)?);
        match rest.as_bytes().first() {
            Some(b'(') => {
                depth += 1;
                if depth == 1 {
                    (head, start) = (sql.get(..at + 1), at + 1);
                }
            }
            Some(b')') if depth == 1 => {
                found.push(sql.get(start..at)?);
                return Some((head?, found, rest));
            }
            Some(b')') => depth = depth.checked_sub(1)?,
            Some(b',') if depth == 1 => {
                found.push(sql.get(start..at)?);
                start = at + 1;
            }
            Some(b';') if depth == 0 && sql.get(..at)?.contains("CREATE ") => return None,
            _ => {}
        }
        at += length;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(sql: &str, version: i32) -> String {
        let mut entry = Entry {
            name: String::new(),
            kind: "TABLE".into(),
            schema: String::new(),
            owner: String::new(),
            sql: sql.into(),
            ..Entry::default()
        };
        rewrite(&mut entry, version);
        entry.sql
    }

    #[test]
    fn not_nulls_of_a_table_become_statements_of_their_own_for_an_older_target() {
        let sql = "SET default_x = y;\nCREATE TABLE a.\"b (\" (\n    NOT NULL \"c,\",\n    d text DEFAULT '(,' NOT NULL,\n    \
                   CONSTRAINT \"NOT NULL\" NOT NULL e,\n    CONSTRAINT k CHECK ((d <> ','))\n)\nINHERITS (a.p);";
        assert_eq!(
            rewritten(sql, 150_000),
            "SET default_x = y;\nCREATE TABLE a.\"b (\" (\n    d text DEFAULT '(,' NOT NULL,\n    CONSTRAINT k CHECK ((d <> ','))\n)\n\
             INHERITS (a.p);\n\nALTER TABLE ONLY \"a\".\"b (\" ALTER COLUMN \"c,\" SET NOT NULL;\
             \n\nALTER TABLE ONLY \"a\".\"b (\" ALTER COLUMN \"e\" SET NOT NULL;"
        );
        assert_eq!(rewritten(sql, 180_000), sql);
    }

    #[test]
    fn a_table_of_nothing_else_stays_a_table() {
        assert_eq!(
            rewritten("CREATE TABLE a.b (\n    NOT NULL c\n)\nINHERITS (a.p);", 170_000),
            "CREATE TABLE a.b (\n)\nINHERITS (a.p);\n\nALTER TABLE ONLY \"a\".\"b\" ALTER COLUMN \"c\" SET NOT NULL;"
        );
        let plain = "CREATE TABLE a.b (\n    c int NOT NULL\n);";
        assert_eq!(rewritten(plain, 100_000), plain);
    }
}
