//! Claims about the command line.

use clap::{CommandFactory, Parser};

use super::args::Cli;
use super::*;
use crate::config::Side;

fn help(command: Option<&str>) -> String {
    let mut cli = Cli::command().term_width(100);
    cli.build();
    let help = match command {
        None => cli.render_long_help(),
        Some(name) => cli.find_subcommand_mut(name).unwrap().render_long_help(),
    };
    help.to_string()
}

#[test]
fn the_help_of_the_program_and_of_every_command_is_as_reviewed() {
    Cli::command().debug_assert();
    insta::assert_snapshot!("help", help(None));
    let names: Vec<String> = Cli::command().get_subcommands().map(|c| c.get_name().to_owned()).collect();
    assert_eq!(names, ["check", "run", "catchup", "resync", "add", "status", "cleanup", "demo"]);
    for name in names {
        insta::assert_snapshot!(format!("help_{name}"), help(Some(&name)));
    }
}

fn prepared(words: &[&str], env: &Env) -> (Action, Exposed, Raw) {
    let cli = Cli::try_parse_from(std::iter::once("walferry").chain(words.iter().copied())).unwrap();
    prepare(cli, env).map_err(|(error, _)| error).unwrap()
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for words in [&["walferry"][..], &["walferry", "frobnicate"], &["walferry", "status", "--jobs", "3"]] {
        assert_eq!(Cli::try_parse_from(words).err().unwrap().exit_code(), 2, "{words:?}");
    }
}

#[test]
fn a_password_in_a_flag_is_noticed_and_one_in_the_environment_is_not() {
    let env = Env::empty().with("WALFERRY_TARGET_PGURI", "postgres://u:p@h/d");
    let (_, exposed, _) = prepared(&["status", "--source", "postgres://u:p@h/d"], &env);
    assert_eq!(exposed, [(Side::Source, "WALFERRY_SOURCE_PGURI")]);
}

#[test]
fn only_run_listens_and_listen_without_value_has_an_address() {
    let env =
        Env::empty().with_user("me").with("WALFERRY_SOURCE_PGURI", "host=a").with("WALFERRY_TARGET_PGURI", "host=b");
    let settings = |words: &[&str], env: &Env| Settings::validate(prepared(words, env).2, env).unwrap();
    assert_eq!(settings(&["run"], &env).listen, None);
    assert_eq!(settings(&["run", "--listen"], &env).listen, Some("127.0.0.1:9187".parse().unwrap()));
    let env = env.with("WALFERRY_LISTEN", "0.0.0.0:1");
    assert_eq!(settings(&["run"], &env).listen, Some("0.0.0.0:1".parse().unwrap()));
    assert_eq!(settings(&["catchup"], &env).listen, None);
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
        Action::Cleanup(crate::cleanup::Consent::Given, Format::Human)
    ));
}
