//! `pg_attver`, an option that PostgreSQL's minors of November 2026 (15.20 and
//! its siblings) keep with every column in `pg_attribute.attoptions`.
//!
//! Invariant: it is the server's own and is never carried over. The pg_dump of
//! such a minor leaves it out itself; one of an earlier minor, of any major,
//! writes it as if somebody had set it, and servers that do not know it refuse.
//!
//! Source: `dumpTableSchema` in `src/bin/pg_dump/pg_dump.c` writes a column's
//! options as `ALTER … TABLE ONLY t ALTER COLUMN c SET (a=1, b=2);`.

use super::archive::Entry;
use super::classify::{identifier, qualified};
use super::kind::Kind;
use crate::sql::tokens::statement_length;

const OPTION: &str = "pg_attver";

/// The kinds of entries whose columns have options.
const KINDS: [Kind; 4] = [Kind::Table, Kind::ForeignTable, Kind::MaterializedView, Kind::View];

/// Takes the option out of the entry, and the statement where it says nothing else.
pub(super) fn strip(entry: &mut Entry) {
    if !KINDS.contains(&entry.kind) || !entry.sql.contains(OPTION) {
        return;
    }
    let mut kept = String::new();
    let mut at = 0;
    while let Some(rest) = entry.sql.get(at..).filter(|rest| !rest.is_empty()) {
        let length = statement_length(rest);
        let statement = rest.get(..length).unwrap_or(rest);
        match options(statement) {
            Some((head, list)) => {
                let others: Vec<&str> = list.split(", ").filter(|option| !is_internal(option)).collect();
                if !others.is_empty() {
                    kept.push_str(&format!("{head}{});", others.join(", ")));
                }
            }
            None => kept.push_str(statement),
        }
        at += length.max(1);
    }
    entry.sql = kept;
}

fn is_internal(option: &str) -> bool {
    option.split('=').next().is_some_and(|name| name.trim() == OPTION)
}

/// A statement that sets options of a column: up to the opening parenthesis,
/// and the list. Values are numbers, so nothing in it is quoted.
fn options(statement: &str) -> Option<(&str, &str)> {
    let altered = statement.trim_start().strip_prefix("ALTER ")?;
    let table =
        ["TABLE ", "FOREIGN TABLE ", "MATERIALIZED VIEW "].iter().find_map(|what| altered.strip_prefix(what))?;
    let (_, rest) = qualified(table.strip_prefix("ONLY ").unwrap_or(table))?;
    let (_, rest) = identifier(rest.strip_prefix(" ALTER COLUMN ")?)?;
    let list = rest.strip_prefix(" SET (")?;
    let head = statement.get(..statement.len() - list.len())?;
    Some((head, list.strip_suffix(");")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(kind: &str, sql: &str) -> String {
        let mut entry = Entry {
            name: String::new(),
            kind: kind.into(),
            schema: String::new(),
            owner: String::new(),
            sql: sql.into(),
            ..Entry::default()
        };
        strip(&mut entry);
        entry.sql
    }

    #[test]
    fn the_option_goes_with_its_statement_when_it_is_the_only_one() {
        let sql = "CREATE TABLE a.\"b;\" (\n    c int\n);\nALTER TABLE ONLY a.\"b;\" ALTER COLUMN \"c SET (\" SET (pg_attver=17);\n\
             ALTER TABLE ONLY a.\"b;\" ALTER COLUMN c SET STATISTICS 5;\nALTER FOREIGN TABLE ONLY a.b ALTER COLUMN d SET (pg_attver=18);\n\n\n\
             ALTER TABLE a.b OWNER TO o;";
        assert_eq!(
            stripped("TABLE", sql),
            "CREATE TABLE a.\"b;\" (\n    c int\n);\nALTER TABLE ONLY a.\"b;\" ALTER COLUMN c SET STATISTICS 5;\n\n\nALTER TABLE a.b OWNER TO o;"
        );
    }

    #[test]
    fn options_that_somebody_set_stay() {
        for (list, kept) in [
            ("n_distinct=5, pg_attver=17", "n_distinct=5"),
            ("pg_attver='17', n_distinct=-0.5", "n_distinct=-0.5"),
            ("n_distinct=5, pg_attver=17, n_distinct_inherited=9", "n_distinct=5, n_distinct_inherited=9"),
            ("n_distinct=5", "n_distinct=5"),
        ] {
            let sql = |list: &str| format!("x;\nALTER TABLE ONLY a.b ALTER COLUMN c SET ({list});");
            assert_eq!(stripped("MATERIALIZED VIEW", &sql(list)), sql(kept));
        }
    }

    #[test]
    fn what_only_speaks_of_it_stays() {
        let default =
            "CREATE TABLE a.b (\n    c text DEFAULT 'ALTER TABLE ONLY a.b ALTER COLUMN c SET (pg_attver=1);'\n);";
        assert_eq!(stripped("TABLE", default), default);
        let function = "CREATE FUNCTION f() AS $$\nALTER TABLE ONLY a.b ALTER COLUMN c SET (pg_attver=1);\n$$;";
        assert_eq!(stripped("FUNCTION", function), function);
    }
}
