//! The page of all settings, in Markdown (`docs/settings.md`).
//!
//! Invariant: the file in the repository is what this writes; a test compares.

use std::fmt::Write;

use super::{Arity, Declared, InFile, Secrecy, Taker, all};

/// How the page is written anew; on the page and in the test's failure.
pub const COMMAND: &str = "cargo run -- generate settings > docs/settings.md";

const INTRODUCTION: &str = "\
Every setting is a flag, a variable of the environment and a key of `walferry.toml`. The flag goes over the variable,
the variable over the file, setting by setting. The file is read from the working folder, or from `--config FILE`; its
keys are the flags' names without the dashes, and a key that is no setting is an error. A value that cannot be used is
an error that names the place it came from.

- SIZE: `16MiB`, `1GiB`, `50MB` (decimal), or bytes.
- TIME: `15m`, `1h 30m`, `250ms`, or seconds.
- BOOL: `true`, `yes`, `on`, `1` or `false`, `no`, `off`, `0`; the flag alone means `true`,
  and a value follows it after `=`.
- PATTERN: as in psql. `*` for any letters, `?` for one, `schema.table`, several by commas (in the file also a list);
  letters fold to lower case outside double quotes.";

/// The whole page.
pub fn markdown() -> String {
    let mut page = format!("<!-- Written by `{COMMAND}`; change src/config/settings instead. -->\n\n# Settings\n\n");
    page.push_str(INTRODUCTION);
    page.push('\n');
    let mut heading = None;
    for setting in all() {
        let about = setting.about();
        if heading != Some(about.heading) {
            heading = Some(about.heading);
            page.push_str(&format!("\n## {}\n", about.heading.title()));
        }
        // Writing to a string cannot fail.
        let _ = section(&mut page, setting);
    }
    page
}

fn section(page: &mut String, setting: &dyn Declared) -> std::fmt::Result {
    let about = setting.about();
    let value = match setting.alone() {
        Some(_) if setting.is_switch() => format!("[={}]", setting.placeholder()),
        Some(_) => format!(" [{}]", setting.placeholder()),
        None => format!(" {}", setting.placeholder()),
    };
    writeln!(page, "\n### `--{}{value}`\n\n{}.\n", about.name, escaped(about.help))?;
    let words = setting.words();
    for word in words.iter().filter(|word| word.get_help().is_some()) {
        let help = word.get_help().map(ToString::to_string).unwrap_or_default();
        writeln!(page, "- `{}`: {help}", word.get_name())?;
    }
    if words.iter().any(|word| word.get_help().is_some()) {
        writeln!(page)?;
    }
    if !about.why.is_empty() {
        writeln!(page, "{}\n", escaped(about.why))?;
    }
    let default = match setting.default() {
        none if none.is_empty() => "none; it must be given".to_owned(),
        value if setting.default_is_value() => format!("`{value}`"),
        words => escaped(&words),
    };
    writeln!(page, "- Default: {default}")?;
    if let Some(alone) = setting.alone().filter(|_| !about.alone.is_empty()) {
        writeln!(page, "- Without a value: `{alone}`")?;
    }
    if setting.arity() == Arity::One && setting.is_bounded() {
        writeln!(page, "- Accepted: {}", setting.expected())?;
    }
    let mut variables: Vec<String> = about.variables();
    if about.secrecy == Secrecy::Secret {
        variables = variables.iter().flat_map(|name| [name.clone(), format!("{name}_FILE")]).collect();
    }
    let variables: Vec<String> = variables.iter().map(|name| format!("`{name}`")).collect();
    let key = match about.in_file {
        InFile::Key => format!("; key of the file: `{}`", about.name),
        InFile::Nothing => "; not in the file".to_owned(),
    };
    writeln!(page, "- Variable: {}{key}", variables.join(", "))?;
    match about.taker {
        Taker::Everyone => writeln!(page, "- Flag of: every command"),
        taker => writeln!(page, "- Flag of: {}", taker.commands().join(", ")),
    }
}

/// Text that has letters which mean something in Markdown.
fn escaped(text: &str) -> String {
    text.replace('*', "\\*").replace('_', "\\_").replace('[', "\\[").replace('<', "\\<")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_repository_is_what_the_declarations_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(page == markdown(), "docs/settings.md is not what the declarations say: {COMMAND}");
    }
}
