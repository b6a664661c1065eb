//! Words of command lines that are printed for the operator.
//!
//! Invariant: pasted into a POSIX shell (dash, bash, zsh), a word is that one argument,
//! on one line and without anything that is not seen, whatever it holds.
//!
//! Source: "Quoting" and the utility `printf` in "Shell & Utilities" of POSIX.1-2024.

use crate::border::is_unseen;
use crate::sql::{TableName, plain_shown};

/// The pattern that fits this table and no other, as a word of a shell.
pub fn table(table: &TableName) -> String {
    word(&pattern(table))
}

/// The pattern that fits this table and no other: what is quoted stands for itself.
fn pattern(table: &TableName) -> String {
    format!("{}.{}", plain_shown(&table.schema), plain_shown(&table.name))
}

/// Quotes a word that does not end with the end of a line.
pub fn word(text: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    if !text.contains(is_unseen) {
        return quoted(text);
    }
    let mut format = String::new();
    for c in text.chars() {
        match c {
            '%' | '\\' => format.extend([c, c]),
            c if is_unseen(c) => {
                let mut bytes = [0; 4];
                format.extend(c.encode_utf8(&mut bytes).bytes().map(|byte| format!("\\{byte:03o}")));
            }
            c => format.push(c),
        }
    }
    format!("\"$(printf {})\"", quoted(&format))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::config::filter::TableFilter;

    /// What a shell makes of a word.
    fn read_by_a_shell(word: &str) -> String {
        let script = format!("printf '%s' {word}");
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{word}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_shell_reads_each_word_as_the_one_argument_that_it_was() {
        for text in [
            "public.orders",
            "it's",
            "a b;$(touch /tmp/x)`id`\"!\\ #~*?[x]{a,b}&|<>",
            "-n",
            "",
            "a\nb\t%s\\n\u{1b}[2J'",
            "user\u{202e}gnp 漢字 \u{9b}2J",
        ] {
            let word = word(text);
            assert_eq!(read_by_a_shell(&word), text, "{word}");
            assert!(!word.contains(is_unseen), "{word:?}");
        }
        assert_eq!(word("public.orders"), "'public.orders'");
        assert_eq!(word("a\nb"), "\"$(printf 'a\\012b')\"");
    }

    #[test]
    fn a_printed_pattern_fits_its_table_and_no_other() {
        let names = [
            "orders",
            "Orders",
            "a*",
            "ab",
            "a?c",
            "abc",
            "a.b,c",
            "\"q\"",
            "x\";$(touch /tmp/x)\n\u{1b}[2J",
            " a",
            "a\n",
        ];
        let tables: Vec<TableName> = names.iter().flat_map(|s| names.iter().map(|n| TableName::new(*s, *n))).collect();
        for (place, name) in names.iter().enumerate() {
            let meant = TableName::new(*name, names[(place + 1) % names.len()]);
            let argument = read_by_a_shell(&table(&meant));
            let filter = TableFilter::only("resync", &[argument]).unwrap();
            let fits: Vec<&TableName> = tables.iter().filter(|table| filter.includes(table)).collect();
            assert_eq!(fits, [&meant]);
        }
    }
}
