//! Claims about the command line.

use std::collections::BTreeSet;

use super::*;
use crate::config::settings::{self, log::LOG_FORMAT};

fn help(command: Option<&str>) -> String {
    let mut cli = flags::command().term_width(100);
    cli.build();
    let help = match command {
        None => cli.render_long_help(),
        Some(name) => cli.find_subcommand_mut(name).unwrap().render_long_help(),
    };
    help.to_string()
}

#[test]
fn the_help_of_the_program_and_of_every_command_is_as_reviewed() {
    flags::command().debug_assert();
    insta::assert_snapshot!("help", help(None));
    let names: Vec<String> = flags::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
    assert_eq!(names, ["check", "run", "catchup", "resync", "add", "status", "cleanup", "demo", "generate"]);
    for name in names {
        insta::assert_snapshot!(format!("help_{name}"), help(Some(&name)));
    }
}

#[test]
fn whoever_takes_a_setting_is_a_command() {
    let command = flags::command();
    let commands: BTreeSet<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    for setting in settings::all() {
        for name in setting.about().taker.commands() {
            assert!(commands.contains(name), "{name} takes --{}", setting.about().name);
        }
    }
}

fn prepared(words: &[&str], env: &Env) -> (Action, Vec<Exposed>, Values) {
    let (cli, flags) = parse(std::iter::once("walferry").chain(words.iter().copied())).unwrap();
    let action = Action::of(cli.command);
    let (exposed, values) = complete(&action, flags, env).map_err(|(error, _)| error).unwrap();
    (action, exposed, values)
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for words in [&["walferry"][..], &["walferry", "frobnicate"], &["walferry", "status", "--jobs", "3"]] {
        assert_eq!(parse(words).err().unwrap().exit_code(), 2, "{words:?}");
    }
}

#[test]
fn a_password_or_token_in_a_flag_is_noticed_and_one_in_the_environment_is_not() {
    let token = "0123456789abcdef";
    let env = Env::empty().with("WALFERRY_TARGET_PGURI", "postgres://u:p@h/d").with("WALFERRY_LISTEN_TOKEN", token);
    let exposed = |words: &[&str]| -> Vec<[String; 2]> {
        prepared(words, &env).1.into_iter().map(|Exposed { what, instead }| [what, instead]).collect()
    };
    assert_eq!(
        exposed(&["status", "--source", "postgres://u:p@h/d"]),
        [["password of the source", "WALFERRY_SOURCE_PGURI or ~/.pgpass"]]
    );
    assert_eq!(
        exposed(&["run", "--listen-token", token]),
        [["token of --listen", "WALFERRY_LISTEN_TOKEN or WALFERRY_LISTEN_TOKEN_FILE"]]
    );
    assert!(exposed(&["run", "--listen-token", "none"]).is_empty() && exposed(&["run"]).is_empty());
}

#[test]
fn only_run_listens_and_listen_without_value_has_an_address() {
    let env =
        Env::empty().with_user("me").with("WALFERRY_SOURCE_PGURI", "host=a").with("WALFERRY_TARGET_PGURI", "host=b");
    let settings = |words: &[&str], env: &Env| Settings::validate(&prepared(words, env).2, env).unwrap();
    let listen = |words: &[&str], env: &Env| settings(words, env).listen.map(|listen| listen.address().to_string());
    assert_eq!(listen(&["run"], &env), None);
    assert_eq!(listen(&["run", "--listen"], &env).as_deref(), Some("127.0.0.1:9187"));
    let env = env.with("WALFERRY_LISTEN", "127.0.0.1:1");
    assert_eq!(listen(&["run"], &env).as_deref(), Some("127.0.0.1:1"));
    // What a daemon is refused is no affair of the others.
    let env = env.with("WALFERRY_LISTEN", "0.0.0.0:1");
    assert_eq!(listen(&["catchup"], &env), None);
}

#[test]
fn flags_reach_the_settings_from_before_and_behind_the_command_once_or_again_and_again() {
    let env = Env::empty().with_user("me");
    let words = ["--log-format", "json", "run", "--source=host=a", "--target=host=b", "--tables", "a", "--tables=b,c"];
    let (_, _, values) = prepared(&[&words[..], &["--owners", "--acl=no"]].concat(), &env);
    assert_eq!(values.get(&LOG_FORMAT).unwrap(), LogFormat::Json);
    let settings = Settings::validate(&values, &env).unwrap();
    let patterns: Vec<&str> = settings.filter.patterns().map(|pattern| pattern.text()).collect();
    assert_eq!(patterns, ["a", "b", "c"]);
    assert_eq!((settings.owners, settings.acl), (crate::config::Keep::Yes, crate::config::Keep::No));
}

#[test]
fn flags_of_two_values_reach_the_commands_as_what_they_mean() {
    let env = Env::empty();
    assert!(matches!(prepared(&["run", "--until", "caught-up"], &env).0, Action::Run(crate::run::Until::CaughtUp)));
    assert!(matches!(
        prepared(&["catchup", "--finish", "--json"], &env).0,
        Action::Catchup(crate::run::Finish::Yes, Format::Json)
    ));
    assert!(matches!(
        prepared(&["cleanup", "--yes"], &env).0,
        Action::Cleanup(
            crate::cleanup::Request {
                consent: crate::cleanup::Consent::Given,
                scope: crate::cleanup::Scope::Everything
            },
            Format::Human
        )
    ));
}

#[test]
fn completions_know_settings_and_their_words_and_every_command_has_a_man_page() {
    let mut script = Vec::new();
    clap_complete::generate(clap_complete::Shell::Bash, &mut flags::command(), "walferry", &mut script);
    let script = String::from_utf8(script).unwrap();
    assert!(script.contains("--snapshot-age") && script.contains("create existing none"), "{script}");

    let folder = tempfile::tempdir().unwrap();
    generate::write(args::Generate::Man { folder: folder.path().to_owned() }).unwrap();
    for page in ["walferry.1", "walferry-run.1", "walferry-cleanup.1"] {
        let page = std::fs::read_to_string(folder.path().join(page)).unwrap();
        assert!(page.contains("log\\-format"), "{page}");
    }
}

/// Flags of other programs that the README names: cargo's, of our benchmarks, of
/// docker, of pg_dump.
const OTHERS: [&str; 6] = ["build", "locked", "no-pgcopydb", "release", "server", "snapshot"];

#[test]
fn every_flag_that_the_readme_names_is_there() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let mut command = flags::command();
    command.build();
    let flags_of = |command: &clap::Command| -> Vec<String> {
        command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect()
    };
    let flags: BTreeSet<String> = command.get_subcommands().flat_map(flags_of).chain(flags_of(&command)).collect();
    // What stands behind a letter, a dash or a "!" is a line or a comment.
    let ends = |c: char| !(c.is_ascii_lowercase() || c == '-');
    let named = readme.match_indices("--").filter_map(|(at, dashes)| {
        let before = readme[..at].chars().next_back().unwrap_or(' ');
        let name = readme[at + dashes.len()..].split(ends).next().unwrap_or_default();
        let is_flag = !before.is_ascii_alphanumeric() && !"-!|".contains(before) && !name.is_empty();
        (is_flag && !name.starts_with('-')).then_some(name)
    });
    for name in named {
        assert!(flags.contains(name) || OTHERS.contains(&name), "README.md names --{name}, which no command takes");
    }
}
