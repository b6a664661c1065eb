//! The command line: parse, run, print, exit code.
//!
//! Invariant: standard output carries the result and nothing else; everything
//! for people goes to standard error. Errors are printed once, here.

mod args;
mod failure;
mod logging;
mod output;
mod signals;

use std::process::ExitCode;

use clap::Parser;
use tokio_util::sync::CancellationToken;

use args::{Cli, Command, ResyncArgs};
use failure::Failure;
use output::Format;

use crate::config::raw::{Ends, Logging, Raw, Serve, Work};
use crate::config::{ConfigError, Env, Settings};
use crate::fault::Exit;
use crate::run::resync::Kind;

/// Runs the program on the process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output with 0, errors to
            // standard error with 2. A reader that has left is no failure.
            let code = u8::try_from(error.exit_code()).unwrap_or(Exit::Bug.code());
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let env = Env::of_process();
    let (command, exposed, raw) = match prepare(cli, &env) {
        Ok(prepared) => prepared,
        Err((error, log_format)) => return output::failure(&error.into(), log_format),
    };
    let log_format = match logging::start(&raw.logging) {
        Ok(format) => format,
        Err(error) => return output::failure(&error.into(), logging::LogFormat::Human),
    };
    for (side, variable) in exposed {
        tracing::warn!(
            "the password of the {side} is on the command line, where every user of this machine can see it: use {variable} or ~/.pgpass"
        );
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return output::failure(&Failure::Machine { action: "start the runtime", source }, log_format),
    };
    let shutdown = CancellationToken::new();
    let outcome = runtime.block_on(async {
        signals::watch(shutdown.clone())?;
        run(command, raw, &env, shutdown).await
    });
    match outcome {
        Ok(code) => code,
        Err(error) => output::failure(&error, log_format),
    }
}

/// What is left of a command once its settings are taken out.
enum Action {
    Check(Format),
    Run(crate::run::Until),
    Catchup(crate::run::Finish, Format),
    Resync(Kind, Vec<String>, Format),
    Status(Format, args::Watch),
    Cleanup(crate::cleanup::Consent, Format),
    Demo(crate::demo::DemoOptions),
}

type Exposed = Vec<(crate::config::Side, &'static str)>;

/// Takes the settings out of the command, and completes them.
fn prepare(cli: Cli, env: &Env) -> Result<(Action, Exposed, Raw), (ConfigError, logging::LogFormat)> {
    let flags_format = logging::format_of(&cli.logging).unwrap_or(logging::LogFormat::Human);
    let (action, ends, work, serve) = split(cli.command);
    let is_server = matches!(action, Action::Run(_));
    let raw = Raw::of_flags(ends, work, serve, cli.logging);
    let exposed = raw.exposed_passwords();
    let mut raw = match action {
        // The demo has its own two ends; a file that lies about is not meant for it.
        Action::Demo(_) => raw,
        _ => raw.complete(env).map_err(|error| (error, flags_format))?,
    };
    if !is_server {
        // One file serves all commands; only the daemon listens.
        raw.serve = Serve::default();
    }
    Ok((action, exposed, raw))
}

fn split(command: Command) -> (Action, Ends, Work, Serve) {
    match command {
        Command::Check(args) => (Action::Check(Format::json_if(args.json)), args.ends, args.work, Serve::default()),
        Command::Run(args) => (Action::Run(args.until()), args.ends, args.work, args.serve),
        Command::Catchup(args) => {
            (Action::Catchup(args.finish(), Format::json_if(args.json)), args.ends, args.work, Serve::default())
        }
        Command::Resync(args) => resync(Kind::Resync, *args),
        Command::Add(args) => resync(Kind::Add, *args),
        Command::Status(args) => {
            let action = Action::Status(Format::json_if(args.json), args.watch());
            (action, args.ends, Work::default(), Serve::default())
        }
        Command::Cleanup(args) => {
            let action = Action::Cleanup(args.consent(), Format::json_if(args.json));
            (action, args.ends, Work::default(), Serve::default())
        }
        Command::Demo(args) => (Action::Demo(args.options()), Ends::default(), Work::default(), Serve::default()),
    }
}

fn resync(kind: Kind, args: ResyncArgs) -> (Action, Ends, Work, Serve) {
    let action = Action::Resync(kind, args.names, Format::json_if(args.json));
    (action, args.ends, args.work, Serve::default())
}

async fn run(action: Action, raw: Raw, env: &Env, shutdown: CancellationToken) -> Result<ExitCode, Failure> {
    if let Action::Demo(options) = action {
        return until_interrupted(&shutdown, async { Ok(crate::demo::run(options).await?) }).await;
    }
    let settings = Settings::validate(raw, env)?;
    match action {
        Action::Demo(_) => Ok(ExitCode::SUCCESS),
        Action::Run(until) => {
            crate::run::daemon(settings, until, shutdown).await?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Catchup(finish, format) => {
            let report = crate::run::catchup(settings, finish, shutdown).await?;
            output::result(&report, format).map_err(Failure::result)?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Resync(kind, names, format) => {
            let report = crate::run::resync::command(settings, kind, &names, shutdown).await?;
            output::result(&report, format).map_err(Failure::result)?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Check(format) => {
            let mut exit = Exit::Done;
            let code = until_interrupted(&shutdown, async {
                let report = crate::check::run(&settings).await;
                exit = report.exit();
                output::result(&report, format).map_err(Failure::result)
            })
            .await?;
            Ok(if exit == Exit::Done { code } else { exit.into() })
        }
        Action::Status(format, watch) => status(&settings, format, watch, &shutdown).await,
        Action::Cleanup(consent, format) => {
            until_interrupted(&shutdown, async {
                let report = crate::cleanup::run(&settings, consent).await?;
                output::result(&report, format).map_err(Failure::result)
            })
            .await
        }
    }
}

/// Runs a command that holds nothing worth finishing: a signal drops it.
async fn until_interrupted(
    shutdown: &CancellationToken,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<ExitCode, Failure> {
    tokio::select! {
        outcome = work => outcome.map(|()| ExitCode::SUCCESS),
        () = shutdown.cancelled() => Ok(Exit::Interrupted.into()),
    }
}

/// The status once, or again and again until a signal.
async fn status(
    settings: &Settings,
    format: Format,
    watch: args::Watch,
    shutdown: &CancellationToken,
) -> Result<ExitCode, Failure> {
    loop {
        let document = tokio::select! {
            document = crate::observe::status::collect(settings) => document?,
            () = shutdown.cancelled() => return Ok(ExitCode::SUCCESS),
        };
        if watch == args::Watch::Yes && format == Format::Human {
            output::clear_screen().map_err(Failure::result)?;
        }
        output::result(&document, format).map_err(Failure::result)?;
        if watch == args::Watch::No || output::reader_has_left() {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            () = tokio::time::sleep(args::WATCH_INTERVAL) => {}
            () = shutdown.cancelled() => return Ok(ExitCode::SUCCESS),
        }
    }
}

#[cfg(test)]
mod tests;
