//! The settings as flags: added to the commands that take them, and taken out
//! of what was parsed.
//!
//! Invariant: clap only collects texts. What they mean, and the error when they
//! mean nothing, is the setting's own, wherever they came from.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory};

use super::args::Cli;
use crate::config::Values;
use crate::config::settings::{self, Arity, Declared, Taker};

/// The whole command line.
pub(super) fn command() -> Command {
    let mut command = Cli::command().args(taken_by("").map(|setting| arg(setting).global(true)));
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(&name, |sub| sub.args(taken_by(&name).map(arg)));
    }
    command
}

/// The flags that were given, of whatever command.
pub(super) fn given(matches: &ArgMatches) -> Values {
    let Some((name, of_command)) = matches.subcommand() else { return Values::default() };
    taken_by(name).chain(taken_by("")).fold(Values::default(), |values, setting| {
        let about = setting.about();
        match of_command.get_many::<String>(about.name) {
            Some(texts) => values.with_flag(about, texts.cloned().collect()),
            None => values,
        }
    })
}

/// The settings that a command takes; those of every command for "".
fn taken_by(command: &str) -> impl Iterator<Item = &'static dyn Declared> {
    settings::all().filter(move |setting| match setting.about().taker {
        Taker::Everyone => command.is_empty(),
        taker => taker.commands().contains(&command),
    })
}

fn arg(setting: &'static dyn Declared) -> Arg {
    let about = setting.about();
    let help = format!("{}{}", about.help, default(setting));
    let mut long_help = help.clone();
    let paragraphs = [about.why.to_owned(), other_places(setting)];
    for paragraph in paragraphs.iter().filter(|paragraph| !paragraph.is_empty()) {
        long_help.push_str(&format!("\n\n{paragraph}"));
    }
    let arg = Arg::new(about.name)
        .long(about.name)
        .value_name(setting.placeholder())
        .help_heading(about.heading.title())
        .help(help)
        .long_help(long_help)
        .value_hint(setting.hint())
        .value_parser(Texts(setting.words()))
        .hide_possible_values(setting.alone().is_some())
        .action(match setting.arity() {
            Arity::One => ArgAction::Set,
            Arity::Many => ArgAction::Append,
        });
    match setting.alone() {
        // Behind a switch a word is the command's, not its value.
        Some(alone) => arg.num_args(0..=1).require_equals(setting.is_switch()).default_missing_value(alone),
        None => arg,
    }
}

/// What holds without the flag, and with the flag alone.
fn default(setting: &dyn Declared) -> String {
    match (setting.default().as_str(), setting.about().alone) {
        ("", _) => String::new(),
        (default, "") => format!(" [default: {default}]"),
        (default, alone) => format!(" [default: {default}; without a value: {alone}]"),
    }
}

/// Variables that do not follow from the name.
fn other_places(setting: &dyn Declared) -> String {
    let about = setting.about();
    match (about.variables, about.secrecy) {
        (settings::Variables::Named, settings::Secrecy::Open) => String::new(),
        (settings::Variables::Named, settings::Secrecy::Secret) => {
            format!("Without it: {name}, or the file that {name}_FILE names.", name = about.variable())
        }
        (settings::Variables::These(names), settings::Secrecy::Open) => format!("Without it: {}.", names.join(", ")),
        (settings::Variables::These(names), settings::Secrecy::Secret) => {
            format!("Without it: {}, or the file that one of these with _FILE behind it names.", names.join(", "))
        }
    }
}

/// Takes any text; the words are for completions and help.
#[derive(Clone)]
struct Texts(Vec<PossibleValue>);

impl TypedValueParser for Texts {
    type Value = String;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<String, clap::Error> {
        StringValueParser::new().parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        if self.0.is_empty() { None } else { Some(Box::new(self.0.iter().cloned())) }
    }
}
