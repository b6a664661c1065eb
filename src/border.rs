//! The border to a person's terminal: nothing that a server, a name or a file says
//! moves its cursor, changes the order of its letters, or begins a line of its own.
//!
//! ```text
//! words of others ─ visible() ─► one line in quotes where need be ─┐
//! our own lines ───────────────────────────────────────────────────┴► printable(), indented() ─► terminal
//! ```
//!
//! Invariant: of what leaves here, "\n" and "\t" are the only characters that are not
//! seen, and no line but the first begins at the margin where [`indented`] wrote it.
//!
//! Source: ECMA-48 (C0, C1), and the general categories Cc, Cf, Zl and Zp of
//! `UnicodeData.txt` 17.

use std::borrow::Cow;

/// Format characters (Cf) and separators of lines (Zl, Zp): they are not seen, and some
/// of them reorder what is.
const FORMAT_CHARACTERS: [(char, char); 19] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e007f}'),
];

/// Whether a terminal does something else with it than to show it.
pub fn is_unseen(c: char) -> bool {
    c.is_control() || FORMAT_CHARACTERS.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// A text for people: what is not seen is written out, but for the ends of lines and tabs.
pub fn printable(text: &str) -> Cow<'_, str> {
    written_out(text, |c| is_unseen(c) && !matches!(c, '\n' | '\t'))
}

/// A text of which every line but the first is indented by so many places, for what
/// begins at the margin to be ours.
pub fn indented(text: &str, places: usize) -> String {
    printable(text.trim_end_matches('\n')).replace('\n', &format!("\n{:places$}", ""))
}

/// Words of others on one line: where that takes writing out what is not seen, in
/// quotes, so that it can be told where they end.
pub fn visible(text: &str) -> Cow<'_, str> {
    match written_out(text, is_unseen) {
        Cow::Borrowed(text) => Cow::Borrowed(text),
        Cow::Owned(text) => Cow::Owned(format!("\"{text}\"")),
    }
}

/// JSON with what is not seen in its strings escaped: the same document.
pub fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(|c: char| is_unseen(c) && c != '\n') {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unseen(c) && c != '\n' {
            let mut units = [0; 2];
            escaped.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

fn written_out(text: &str, is_written: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_written) {
        return Cow::Borrowed(text);
    }
    let mut seen = String::with_capacity(text.len());
    for c in text.chars() {
        if is_written(c) { seen.extend(c.escape_default()) } else { seen.push(c) }
    }
    Cow::Owned(seen)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_moves_a_cursor_or_reorders_letters_is_written_out() {
        for (given, shown) in [
            ("\u{1b}[2Jx", "\\u{1b}[2Jx"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("a\rb\u{7f}\u{8}", "a\\rb\\u{7f}\\u{8}"),
            ("user\u{202e}gnp.exe\u{2066}", "user\\u{202e}gnp.exe\\u{2066}"),
            ("\u{feff}\u{200b}\u{2028}", "\\u{feff}\\u{200b}\\u{2028}"),
        ] {
            assert_eq!(printable(given), shown);
            assert_eq!(visible(given), format!("\"{shown}\""));
        }
        assert_eq!(printable("é 漢字 – “a\\b”\n\tc"), "é 漢字 – “a\\b”\n\tc");
        assert_eq!(visible("é 漢字 – “a\\b”"), "é 漢字 – “a\\b”");
    }

    #[test]
    fn words_of_others_begin_no_line_and_end_where_it_can_be_seen() {
        let forged = "no\nwhat to do: run rm\n2026-01-01T00:00:00Z INFO all is well";
        assert_eq!(visible(forged), "\"no\\nwhat to do: run rm\\n2026-01-01T00:00:00Z INFO all is well\"");
        assert_eq!(indented(forged, 2), "no\n  what to do: run rm\n  2026-01-01T00:00:00Z INFO all is well");
    }

    #[test]
    fn escaped_json_is_the_same_document() {
        let document = serde_json::json!({ "a\u{202e}": ["\u{7f}\u{9b}", "\u{e0001}\n"] });
        let text = serde_json::to_string_pretty(&document).unwrap();
        let escaped = json(&text);
        assert!(!escaped.contains(|c| is_unseen(c) && c != '\n') && escaped != text, "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), document);
    }

    proptest! {
        /// Any text, rich in what is not seen.
        #[test]
        fn nothing_unseen_comes_out_but_ends_of_lines_and_tabs(text in "([\0-\u{ff}\u{2000}-\u{2070}\u{feff}]|.){0,40}") {
            let is_ours = |c: char| matches!(c, '\n' | '\t');
            for shown in [printable(&text).into_owned(), indented(&text, 2)] {
                prop_assert!(!shown.contains(|c| is_unseen(c) && !is_ours(c)), "{shown:?}");
                prop_assert!(!shown.contains(|c: char| c < ' ' && !is_ours(c)), "{shown:?}");
            }
            prop_assert!(!visible(&text).contains(|c: char| c < ' ' || is_unseen(c)));
            prop_assert!(indented(&text, 2).lines().skip(1).all(|line| line.starts_with("  ")));
        }
    }
}
