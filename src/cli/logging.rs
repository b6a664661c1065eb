//! The log: on standard error, for people or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::ConfigError;
use crate::config::raw::Logging;

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The form that was asked for.
pub(super) fn format_of(logging: &Logging) -> Result<LogFormat, ConfigError> {
    match logging.log_format.as_ref().map(|text| text.0.as_str()) {
        None | Some("human") => Ok(LogFormat::Human),
        Some("json") => Ok(LogFormat::Json),
        Some(found) => Err(wrong("log-format", "WALFERRY_LOG_FORMAT", "human or json", found)),
    }
}

/// Starts the log.
pub(super) fn start(logging: &Logging) -> Result<LogFormat, ConfigError> {
    let format = format_of(logging)?;
    let level = logging.log_level.as_ref().map_or("info", |text| text.0.as_str());
    let filter = EnvFilter::try_new(level).map_err(|_| {
        wrong("log-level", "WALFERRY_LOG_LEVEL", "error, warn, info, debug, trace or tracing directives", level)
    })?;
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    // A second start can only happen in tests that share a process; the first
    // subscriber stays.
    let _ = match format {
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(format)
}

fn wrong(name: &'static str, variable: &str, expected: &'static str, found: &str) -> ConfigError {
    ConfigError::Setting { name, variable: variable.to_owned(), expected, found: found.to_owned() }
}
