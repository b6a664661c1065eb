//! SQL text taken apart as the server's scanner does, as far as it is about where a
//! quoted name, a string, a dollar-quoted body or a comment ends.
//!
//! Invariant: the tokens put together are the text. Source: `src/backend/parser/scan.l`
//! with `standard_conforming_strings` on.

/// The length of the token at the start of `rest`: a quoted string, a
/// dollar-quoted body, a comment, or one character. An unterminated one takes
/// everything.
pub(crate) fn token_length(rest: &str, before: &str) -> usize {
    let first = rest.chars().next().map_or(1, char::len_utf8);
    match rest.as_bytes() {
        [b'-', b'-', ..] => rest.find('\n').map_or(rest.len(), |end| end + 1),
        [b'/', b'*', ..] => block_comment(rest),
        [b'"', ..] => quoted(rest, b'"', Backslash::Plain),
        [b'\'', ..] => {
            quoted(rest, b'\'', if is_escape_string(before) { Backslash::Escapes } else { Backslash::Plain })
        }
        [b'$', ..] if !ends_in_word(before) => dollar_quoted(rest).unwrap_or(first),
        _ => first,
    }
}

/// The tokens of a text, each with what is before it.
pub(crate) fn tokens(sql: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (before, rest) = sql.split_at_checked(at)?;
        let token = rest.get(..token_length(rest, before)).filter(|token| !token.is_empty())?;
        at += token.len();
        Some((before, token))
    })
}

/// The length of the statement at the start of `sql`, its semicolon included.
/// (The body of a function in `BEGIN ATOMIC` counts as several.)
pub(crate) fn statement_length(sql: &str) -> usize {
    let mut at = 0;
    while let (Some(before), Some(rest)) = (sql.get(..at), sql.get(at..)) {
        if rest.is_empty() {
            break;
        }
        at += token_length(rest, before);
        if rest.starts_with(';') {
            break;
        }
    }
    at
}

/// What a backslash does inside a string.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backslash {
    Plain,
    Escapes,
}

fn quoted(rest: &str, quote: u8, backslash: Backslash) -> usize {
    let mut bytes = rest.bytes().enumerate().skip(1).peekable();
    while let Some((index, byte)) = bytes.next() {
        let doubled = byte == quote && bytes.peek().is_some_and(|(_, next)| *next == quote);
        if doubled || (byte == b'\\' && backslash == Backslash::Escapes) {
            bytes.next();
        } else if byte == quote {
            return index + 1;
        }
    }
    rest.len()
}

/// Whether the quote behind `before` opens an E'' string.
fn is_escape_string(before: &str) -> bool {
    let bare = before.strip_suffix(['E', 'e']);
    bare.is_some_and(|bare| !ends_in_word(bare))
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$')
}

fn dollar_quoted(rest: &str) -> Option<usize> {
    let end = rest.get(1..)?.find('$')? + 2;
    let tag = rest.get(..end)?;
    let inner = tag.trim_matches('$');
    let is_tag =
        !inner.starts_with(|c: char| c.is_ascii_digit()) && inner.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !is_tag {
        return None;
    }
    Some(rest.get(end..)?.find(tag).map_or(rest.len(), |close| end + close + end))
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let bytes = rest.as_bytes();
    let mut at = 0;
    while let Some(pair) = bytes.get(at..at + 2) {
        match pair {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" => (depth, at) = (depth.saturating_sub(1), at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}
