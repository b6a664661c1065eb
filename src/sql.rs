//! Quoting of names and literals for SQL text, and the name of a table.
//!
//! Invariant: every identifier or string that reaches SQL text passes through
//! here. It is always quoted, which is what `quote_all_identifiers` does. Source:
//! `PQescapeInternal` in `src/interfaces/libpq/fe-exec.c`, as postgres-protocol
//! has it.

pub mod rename;

use std::fmt;

use postgres_protocol::escape;
use serde::{Deserialize, Serialize};

/// Quotes an identifier for SQL: `a"b` becomes `"a""b"`.
pub fn ident(name: &str) -> String {
    escape::escape_identifier(name)
}

/// A name for people: quoted only where it needs it.
pub fn shown(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { ident(name) }
}

/// Quotes a string literal for SQL, independent of
/// `standard_conforming_strings`.
pub fn literal(text: &str) -> String {
    escape::escape_literal(text)
}

/// A table by schema and name, both unquoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TableName {
    /// The schema's name.
    pub schema: String,
    /// The table's name.
    pub name: String,
}

impl TableName {
    /// A table name from its unquoted parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        TableName { schema: schema.into(), name: name.into() }
    }

    /// Quoted and qualified, ready for SQL text.
    pub fn sql(&self) -> String {
        format!("{}.{}", ident(&self.schema), ident(&self.name))
    }
}

/// For people: quoted only where the name needs it.
impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", shown(&self.schema), shown(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the server's scanner makes of a quoted text: nothing but the two
    /// quotes, doubled ones for one, and in `E''` doubled backslashes for one.
    fn read_back(quoted: &str, quote: char) -> Option<String> {
        let (text, has_escapes) = match quoted.strip_prefix(" E") {
            Some(text) => (text, true),
            None => (quoted, false),
        };
        let mut inner = text.strip_prefix(quote)?.strip_suffix(quote)?.chars();
        let mut plain = String::new();
        while let Some(c) = inner.next() {
            if (c == quote || (has_escapes && c == '\\')) && inner.next() != Some(c) {
                return None;
            }
            // Without E its meaning would depend on standard_conforming_strings.
            if c == '\\' && quote == '\'' && !has_escapes {
                return None;
            }
            plain.push(c);
        }
        Some(plain)
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_as_it_was(text in r#"(['"\\ aE\n]|\PC){0,12}"#) {
            prop_assert_eq!(read_back(&ident(&text), '"'), Some(text.clone()));
            prop_assert_eq!(read_back(&literal(&text), '\''), Some(text.clone()));
            // How it was done before the crate did it.
            let (name, quoted) = (text.replace('"', "\"\""), text.replace('\'', "''"));
            prop_assert_eq!(ident(&text), format!("\"{name}\""));
            let before = if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") };
            prop_assert_eq!(literal(&text), before);
        }
    }

    #[test]
    fn names_and_literals_are_quoted_so_that_nothing_can_end_them() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
        assert_eq!(TableName::new("public", "Order \"x\"").to_string(), "public.\"Order \"\"x\"\"\"");
    }
}
