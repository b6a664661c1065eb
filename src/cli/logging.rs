//! The log: on standard error, for people or as JSON.
//!
//! Invariant: a line that begins at the margin is the beginning of a message of ours;
//! what a value holds goes on indented, and moves no cursor. The driver's own log of
//! statements is in none: it has the values of their parameters.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use tracing::{Level, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::border;

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
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    // A second start can only happen in tests that share a process; the first
    // subscriber stays.
    let _ = match format {
        LogFormat::Human => {
            let builder = builder.with_ansi(io::stderr().is_terminal()).with_target(false);
            builder.with_writer(StderrWriter).fmt_fields(fields()).finish().with(without_values()).try_init()
        }
        LogFormat::Json => {
            builder.json().flatten_event(true).with_writer(|| JsonLines).finish().with(without_values()).try_init()
        }
    };
    Ok(format)
}

/// Passes over the driver's statements, whatever level is asked for: they come with the
/// values of their parameters.
fn without_values<S: Subscriber>() -> impl Layer<S> {
    filter_fn(|metadata| *metadata.level() <= Level::INFO || !metadata.target().starts_with("tokio_postgres"))
}

/// Message and values of a line for people.
fn fields() -> impl for<'w> FormatFields<'w> + 'static {
    let write = |writer: &mut Writer<'_>, field: &tracing::field::Field, value: &dyn fmt::Debug| {
        let text = border::indented(&format!("{value:?}"), 2);
        match field.name() {
            "message" => write!(writer, "{text}"),
            // What is of the log crate is told already.
            name if name.starts_with("log.") => Ok(()),
            name => write!(writer, "{name}={text}"),
        }
    };
    debug_fn(write).delimited(" ")
}

/// Lines of JSON, in which a terminal meets nothing that it does not show.
struct JsonLines;

impl Write for JsonLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        StderrWriter.write_all(border::json(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        StderrWriter.flush()
    }
}
