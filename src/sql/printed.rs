//! Statements as they are printed for the operator.
//!
//! Invariant: what is printed can be pasted and does what the statement does, whatever
//! the names in it hold: what a terminal does not show is written as the server reads it.
//! The one exception is a secret: it is not printed, and that is.
//!
//! Source: "CREATE USER MAPPING", "CREATE SERVER" and "CREATE SUBSCRIPTION" of the
//! documentation; `generic_option_elem` in `src/backend/parser/gram.y`.

use super::tokens::{statement_length, tokens};
use super::{push_escaped, unicode_escape};
use crate::border::is_unseen;

/// A statement, or several, ready for printing.
pub fn printed(sql: &str) -> String {
    let mut text = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some((statement, others)) = rest.split_at_checked(statement_length(rest)).filter(|_| !rest.is_empty()) {
        text.push_str(&one(statement));
        rest = others;
    }
    text
}

/// What stands behind a statement of which something was left out.
const HIDDEN: &str = " /* '***' is not shown: the source has it, in pg_user_mappings, pg_foreign_server or the like */";

/// Options of servers and wrappers that are shown: where they lead to. Any other may be
/// a secret of a wrapper that nobody here knows.
const OPEN_OPTIONS: [&str; 7] = ["host", "hostaddr", "port", "dbname", "type", "version", "filename"];

/// What the strings of a statement are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strings {
    /// Values of an ordinary statement.
    Open,
    /// Options, of which these are shown.
    Options(&'static [&'static str]),
}

impl Strings {
    fn of(statement: &str) -> Self {
        let is_word = |token: &&str| token.chars().all(|c| c.is_alphanumeric() || c == '_');
        let tokens = tokens(statement).map(|(_, token)| token).filter(|token| !is_comment(token));
        // Letters come one by one: of a statement's first words a few are enough.
        let start: String = tokens.take(80).map(|token| if is_word(&token) { token } else { " " }).collect();
        let words: Vec<String> = start.split_whitespace().take(4).map(str::to_uppercase).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["CREATE" | "ALTER", "USER", "MAPPING", ..] => Strings::Options(&[]),
            ["CREATE" | "ALTER", "SERVER" | "SUBSCRIPTION", ..]
            | ["CREATE" | "ALTER", "FOREIGN", "DATA", "WRAPPER"] => Strings::Options(&OPEN_OPTIONS),
            _ => Strings::Open,
        }
    }

    /// Whether the string behind `before` is not shown.
    fn hides(self, before: &str) -> bool {
        let Strings::Options(open) = self else { return false };
        let before = before.strip_suffix(['E', 'e']).unwrap_or(before).trim_end();
        let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
        let option = before.get(start..).unwrap_or_default().to_lowercase();
        !open.contains(&option.as_str())
    }
}

fn is_comment(token: &str) -> bool {
    token.starts_with("--") || token.starts_with("/*")
}

fn one(statement: &str) -> String {
    let strings = Strings::of(statement);
    let mut text = String::with_capacity(statement.len());
    let mut is_hidden = false;
    for (before, token) in tokens(statement) {
        match token.chars().next() {
            Some('\'') if strings.hides(before) => {
                is_hidden = true;
                text.push_str("'***'");
            }
            Some(quote @ ('\'' | '"')) if token.contains(is_unseen) => push_seen(&mut text, before, token, quote),
            _ => text.push_str(token),
        }
    }
    if is_hidden {
        text.push_str(HIDDEN);
    }
    text
}

/// Appends a quoted name or string with escapes for what is not seen.
fn push_seen(text: &mut String, before: &str, token: &str, quote: char) {
    let inner = token.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    // What does not end is no statement.
    let Some(inner) = inner else { return text.push_str(token) };
    let in_unicode = before.ends_with("U&") || before.ends_with("u&");
    let in_escapes = quote == '\'' && before.ends_with(['E', 'e']);
    let escape = |c: char| match (quote, in_unicode) {
        ('\'', false) => c_escape(c),
        _ => unicode_escape(c),
    };
    if in_unicode || in_escapes {
        text.push(quote);
        inner.chars().for_each(|c| if is_unseen(c) { text.push_str(&escape(c)) } else { text.push(c) });
    } else {
        text.push_str(if quote == '"' { "U&\"" } else { "E'" });
        // Quotes are doubled already.
        push_escaped(text, inner, |c| is_unseen(c).then(|| escape(c)), '\\');
    }
    text.push(quote);
}

/// A character as `E''` has it.
fn c_escape(c: char) -> String {
    match u32::from(c) {
        code @ ..=0xffff => format!("\\u{code:04X}"),
        code => format!("\\U{code:08X}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{TableName, ident, literal};

    #[test]
    fn names_and_strings_of_a_server_are_printed_so_that_they_can_be_pasted() {
        for (given, shown) in [
            ("ALTER TABLE \"a\nb\"\"\\\" OWNER TO x;", "ALTER TABLE U&\"a\\000Ab\"\"\\\\\" OWNER TO x;"),
            (
                "SELECT 'a\tb''\\', E'\\n\n', U&'\\0041\n';",
                "SELECT E'a\\u0009b''\\\\', E'\\n\\u000A', U&'\\0041\\000A';",
            ),
            ("COMMENT ON x IS '\u{202e}\u{e0001}';", "COMMENT ON x IS E'\\u202E\\U000E0001';"),
            ("CREATE FUNCTION f() AS $$a\n'b\n'$$;\n-- \"c\n;", "CREATE FUNCTION f() AS $$a\n'b\n'$$;\n-- \"c\n;"),
        ] {
            assert_eq!(printed(given), shown);
            assert_eq!(printed(shown), shown, "what is printed stays as it is");
        }
        let ours =
            format!("ALTER TABLE {} RENAME TO {} {}", TableName::new("a\n", "b").sql(), ident("\t\""), literal("\n"));
        assert_eq!(printed(&ours), ours);
    }

    #[test]
    fn the_options_of_user_mappings_and_servers_are_not_printed_and_that_is_said() {
        let shown = printed(
            "-- for people\ncreate  user mapping for \"a b\" server s options (password 's3''cret', \"user\" 'bob', x E'\\'s3');\n\
             CREATE SERVER s TYPE 'oracle' FOREIGN DATA WRAPPER w OPTIONS (host 'h', dbname 'd', sslkey '/s3', \"passwd\" 's3');\n\
             ALTER SUBSCRIPTION s CONNECTION 'host=h password=s3'; ALTER FOREIGN DATA WRAPPER w OPTIONS (ADD key 's3');\n\
             CREATE TABLE t (a text DEFAULT 'open');",
        );
        assert!(!shown.contains("s3") && !shown.contains("bob"), "{shown}");
        for part in
            ["password '***'", "TYPE 'oracle'", "host 'h', dbname 'd', sslkey '***'", "DEFAULT 'open'", "ADD key '***'"]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert_eq!(shown.matches("is not shown").count(), 4, "{shown}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_printed_of_quoted_names_has_nothing_that_is_not_seen(name in "([\0-\u{ff}\u{2028}-\u{202e}]){1,12}", text in ".*") {
            let name = name.replace('\0', "");
            let sql = format!("SELECT \"{}\", '{}'", name.replace('"', "\"\""), text.replace('\'', "''").replace('\\', ""));
            proptest::prop_assert!(!printed(&sql).contains(is_unseen));
        }
    }
}
