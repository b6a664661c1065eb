//! The command line: parse, run, print, exit code.
//!
//! Invariant: standard output carries the result and nothing else; everything
//! for people goes to standard error. Errors are printed once, here.

mod args;
mod failure;
mod flags;
mod generate;
mod logging;
mod output;
mod panic;
mod signals;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches;
use tokio_util::sync::CancellationToken;

use args::{Cli, Command};
use failure::Failure;
use output::Format;

use crate::config::given::{Exposed, near_variables};
use crate::config::{ConfigError, Env, LogFormat, Settings, Values};
use crate::fault::Exit;
use crate::run::resync::Kind;

/// Runs the program on the process's arguments.
pub fn main() -> ExitCode {
    panic::end_on_panic(LogFormat::Human);
    let (cli, flags) = match parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version go to standard output with 0, errors to
            // standard error with 2. A reader that has left is no failure.
            let code = u8::try_from(error.exit_code()).unwrap_or(Exit::Bug.code());
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let env = match Env::of_process() {
        Ok(env) => env,
        Err(error) => return output::failure(&error.into(), logging::known_format(&flags)),
    };
    let action = Action::of(cli.command);
    let (exposed, values) = match complete(&action, flags, &env) {
        Ok(completed) => completed,
        Err((error, format)) => return output::failure(&error.into(), format),
    };
    let log_format = match logging::start(&values) {
        Ok(format) => format,
        Err(error) => return output::failure(&error.into(), logging::known_format(&values)),
    };
    panic::end_on_panic(log_format);
    for Exposed { what, instead } in exposed {
        tracing::warn!("the {what} is on the command line, where every user of this machine can see it: use {instead}");
    }
    if action.knows_a_migration() {
        for (name, near) in near_variables(&env) {
            tracing::warn!("{name} is no setting: did you mean {}?", near.join(" or "));
        }
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return output::failure(&Failure::Machine { action: "start the runtime", source }, log_format),
    };
    let shutdown = CancellationToken::new();
    let outcome = runtime.block_on(async {
        signals::watch(shutdown.clone())?;
        run(action, values, &env, shutdown).await
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
    Cleanup(crate::cleanup::Request, Format),
    Demo(crate::demo::DemoOptions),
    Generate(args::Generate),
}

impl Action {
    fn of(command: Command) -> Self {
        match command {
            Command::Check(args) => Action::Check(Format::json_if(args.json)),
            Command::Run(args) => Action::Run(args.until()),
            Command::Catchup(args) => Action::Catchup(args.finish(), Format::json_if(args.json)),
            Command::Resync(args) => Action::Resync(Kind::Resync, args.names, Format::json_if(args.json)),
            Command::Add(args) => Action::Resync(Kind::Add, args.names, Format::json_if(args.json)),
            Command::Status(args) => Action::Status(Format::json_if(args.json), args.watch()),
            Command::Cleanup(args) => Action::Cleanup(args.request(), Format::json_if(args.json)),
            Command::Demo(args) => Action::Demo(args.options()),
            Command::Generate(what) => Action::Generate(what),
        }
    }

    /// Whether the environment and the file are meant for it: the demo has its
    /// own two ends.
    fn knows_a_migration(&self) -> bool {
        !matches!(self, Action::Demo(_) | Action::Generate(_))
    }
}

/// Command and settings of the command line.
fn parse(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<(Cli, Values), clap::Error> {
    let mut command = flags::command();
    let matches = command.try_get_matches_from_mut(words)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok((cli, flags::given(&matches)))
}

/// Completes the flags by environment and file. An error comes with the form of
/// the log, as far as it was known by then.
fn complete(action: &Action, flags: Values, env: &Env) -> Result<(Vec<Exposed>, Values), (ConfigError, LogFormat)> {
    let exposed = flags.exposed();
    let mut values = flags;
    if action.knows_a_migration() {
        let format = logging::known_format(&values);
        values = values.with_env(env).map_err(|error| (error, format))?;
        let format = logging::known_format(&values);
        values = values.with_file().map_err(|error| (error, format))?;
    }
    if !matches!(action, Action::Run(_)) {
        values.forget_daemon();
    }
    Ok((exposed, values))
}

async fn run(action: Action, values: Values, env: &Env, shutdown: CancellationToken) -> Result<ExitCode, Failure> {
    // These two know no migration.
    let action = match action {
        Action::Demo(options) => {
            return until_interrupted(&shutdown, async { Ok(crate::demo::run(options).await?) }).await;
        }
        Action::Generate(what) => {
            generate::write(what).map_err(Failure::result)?;
            return Ok(ExitCode::SUCCESS);
        }
        action => action,
    };
    let settings = Settings::validate(&values, env)?;
    match action {
        Action::Demo(_) | Action::Generate(_) => Ok(ExitCode::SUCCESS),
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
        Action::Cleanup(request, format) => {
            until_interrupted(&shutdown, async {
                let report = crate::cleanup::run(&settings, request, |sql| output::notice(sql, format)).await?;
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
