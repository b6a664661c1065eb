//! The log: on standard error, for people or as JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::settings::log::{LOG_FORMAT, LOG_LEVEL};
use crate::config::{ConfigError, LogFormat, Values};
use crate::observe::progress::StderrWriter;

/// The form that was asked for, as far as it is known: for errors before the log
/// is started.
pub(super) fn known_format(values: &Values) -> LogFormat {
    values.get(&LOG_FORMAT).unwrap_or(LogFormat::Human)
}

/// Starts the log.
pub(super) fn start(values: &Values) -> Result<LogFormat, ConfigError> {
    let format = values.get(&LOG_FORMAT)?;
    // The level was found to be one by the setting.
    let filter = EnvFilter::new(values.get(&LOG_LEVEL)?.0);
    let builder = tracing_subscriber::fmt().with_writer(StderrWriter).with_env_filter(filter);
    // A second start can only happen in tests that share a process; the first
    // subscriber stays.
    let _ = match format {
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(format)
}
