//! Quoting of names and literals for SQL text, and the name of a table.
//!
//! Invariant: every identifier or string that reaches SQL text passes through
//! here. It is always quoted, which is what `quote_all_identifiers` does, and stays on
//! one line whatever it holds, so that a statement can be pasted from where it is
//! printed. Source: `PQescapeInternal` in `src/interfaces/libpq/fe-exec.c`, as
//! postgres-protocol has it; "String Constants with C-Style Escapes" and "Identifiers
//! and Key Words" (`U&""`) of the documentation, for control characters.

pub mod printed;
pub mod rename;
pub(crate) mod tokens;

use std::fmt;

use postgres_protocol::escape;
use serde::{Deserialize, Serialize};

use crate::border::is_unseen;

/// Quotes an identifier for SQL: `a"b` becomes `"a""b"`, and what has control
/// characters `U&"a\000Ab"`.
pub fn ident(name: &str) -> String {
    if !name.contains(|c: char| c.is_ascii_control()) {
        return plain_ident(name);
    }
    let mut quoted = "U&\"".to_owned();
    push_escaped(&mut quoted, name, |c| c.is_ascii_control().then(|| format!("\\{:04X}", u32::from(c))), '"');
    quoted + "\""
}

/// Quotes an identifier for what is no SQL and takes what is between the quotes as it
/// stands: the value of a regclass, a list of publications, a pattern.
pub fn plain_ident(name: &str) -> String {
    escape::escape_identifier(name)
}

/// The same, quoted only where it needs it.
pub fn plain_shown(name: &str) -> String {
    if is_plain(name) { name.to_owned() } else { plain_ident(name) }
}

fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// Appends a text with its backslashes and quotes doubled, and with what has an escape
/// escaped.
fn push_escaped(to: &mut String, text: &str, escape: impl Fn(char) -> Option<String>, quote: char) {
    for c in text.chars() {
        match escape(c) {
            Some(escape) => to.push_str(&escape),
            None if c == quote || c == '\\' => to.extend([c, c]),
            None => to.push(c),
        }
    }
}

/// A name for people: quoted only where it needs it, on one line.
pub fn shown(name: &str) -> String {
    if is_plain(name) {
        return name.to_owned();
    }
    if !name.contains(is_unseen) {
        return ident(name);
    }
    let mut quoted = "U&\"".to_owned();
    push_escaped(&mut quoted, name, |c| is_unseen(c).then(|| unicode_escape(c)), '"');
    quoted + "\""
}

/// A character as `U&""` has it.
fn unicode_escape(c: char) -> String {
    match u32::from(c) {
        code @ ..=0xffff => format!("\\{code:04X}"),
        code => format!("\\+{code:06X}"),
    }
}

/// Quotes a string literal for SQL, independent of
/// `standard_conforming_strings`; control characters are escaped.
pub fn literal(text: &str) -> String {
    if !text.contains(|c: char| c.is_ascii_control()) {
        return escape::escape_literal(text);
    }
    let mut quoted = " E'".to_owned();
    push_escaped(&mut quoted, text, |c| c.is_ascii_control().then(|| format!("\\x{:02X}", u32::from(c))), '\'');
    quoted + "'"
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

    /// The same for what is no SQL: see [`plain_ident`].
    pub fn text(&self) -> String {
        format!("{}.{}", plain_ident(&self.schema), plain_ident(&self.name))
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
    /// quotes, doubled ones for one, and in `E''` and `U&""` what is escaped.
    fn read_back(quoted: &str, quote: char) -> Option<String> {
        let (text, digits) = match (quoted.strip_prefix(" E"), quoted.strip_prefix("U&")) {
            (Some(text), _) => (text, Some(3)),
            (_, Some(text)) => (text, Some(4)),
            _ => (quoted, None),
        };
        let mut inner = text.strip_prefix(quote)?.strip_suffix(quote)?.chars().peekable();
        let mut plain = String::new();
        while let Some(c) = inner.next() {
            // Without E its meaning would depend on standard_conforming_strings.
            match (c, digits) {
                ('\\', None) if quote == '\'' => return None,
                ('\\', Some(digits)) if inner.peek() != Some(&'\\') => {
                    let code: String = inner.by_ref().take(digits).collect();
                    let code = u32::from_str_radix(code.trim_start_matches('x'), 16).ok()?;
                    plain.push(char::from_u32(code)?);
                    continue;
                }
                ('\\', Some(_)) => drop(inner.next()),
                (c, _) if c == quote && inner.next() != Some(c) => return None,
                _ => {}
            }
            plain.push(c);
        }
        Some(plain)
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_as_it_was_and_is_on_one_line(text in r#"(['"\\ aE\x01-\x1f\x7f]|\PC){0,12}"#) {
            for (quoted, quote) in [(ident(&text), '"'), (literal(&text), '\'')] {
                prop_assert_eq!(read_back(&quoted, quote), Some(text.clone()), "{}", quoted);
                prop_assert!(!quoted.contains(|c: char| c.is_ascii_control()), "{:?}", quoted);
            }
            prop_assert_eq!(read_back(&plain_ident(&text), '"'), Some(text.clone()));
            if !text.contains(|c: char| c.is_ascii_control()) {
                // How it was done before the crate did it.
                let (name, quoted) = (text.replace('"', "\"\""), text.replace('\'', "''"));
                prop_assert_eq!(ident(&text), format!("\"{name}\""));
                let before = if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") };
                prop_assert_eq!(literal(&text), before);
            }
        }

        #[test]
        fn a_name_for_people_has_nothing_that_is_not_seen(schema in "\\PC*|.*", name in ".*") {
            prop_assert!(!TableName::new(schema, name).to_string().contains(is_unseen));
        }
    }

    #[test]
    fn names_and_literals_are_quoted_so_that_nothing_can_end_them() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
        assert_eq!(TableName::new("public", "Order \"x\"").to_string(), "public.\"Order \"\"x\"\"\"");
        assert_eq!(ident("a\"\\\n"), "U&\"a\"\"\\\\\\000A\"");
        assert_eq!(literal("it's\t\\"), " E'it''s\\x09\\\\'");
        let table = TableName::new("s", "a\u{202e}\n");
        assert_eq!(
            (table.to_string().as_str(), table.text().as_str()),
            ("s.U&\"a\\202E\\000A\"", "\"s\".\"a\u{202e}\n\"")
        );
    }
}
