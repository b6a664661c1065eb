//! Results on standard output, errors on standard error.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use super::failure::Failure;
use crate::border;
use crate::config::LogFormat;
use crate::fault::chain;

/// Form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// For people.
    Human,
    /// One JSON document on one line.
    Json,
}

impl Format {
    pub(super) fn json_if(json: bool) -> Self {
        if json { Format::Json } else { Format::Human }
    }
}

/// Set once the reader of standard output has closed it.
static READER_HAS_LEFT: AtomicBool = AtomicBool::new(false);

/// Whether nobody reads standard output any more.
pub(super) fn reader_has_left() -> bool {
    READER_HAS_LEFT.load(Ordering::Relaxed)
}

/// Prints a result. A reader that has left (`| head`) is no error.
pub(super) fn result<T: Serialize + Display>(value: &T, format: Format) -> io::Result<()> {
    let text = match format {
        Format::Human => border::printable(&value.to_string()).into_owned(),
        Format::Json => border::json(&serde_json::to_string(value)?).into_owned(),
    };
    write(&format!("{}\n", text.trim_end()))
}

/// Prints what must be seen before the result: on standard output, or beside a
/// document for programs on standard error.
pub(super) fn notice(text: &str, format: Format) -> io::Result<()> {
    let text = border::printable(text);
    let text = text.as_bytes();
    match format {
        Format::Human => io::stdout().lock().write_all(text).and_then(|()| io::stdout().flush()),
        Format::Json => io::stderr().lock().write_all(text),
    }
}

/// Clears a terminal; does nothing to a file or pipe.
pub(super) fn clear_screen() -> io::Result<()> {
    if io::stdout().is_terminal() { write("\x1b[H\x1b[2J") } else { Ok(()) }
}

/// Writes to standard output. A reader that has left is no error.
pub(super) fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            READER_HAS_LEFT.store(true, Ordering::Relaxed);
            Ok(())
        }
        other => other,
    }
}

/// Prints an error with its causes and its remedy; gives its exit code.
pub(super) fn failure(error: &Failure, format: LogFormat) -> ExitCode {
    let verdict = error.fault().verdict();
    let message = chain(error);
    let text = match format {
        LogFormat::Human => {
            let remedy = verdict.remedy.as_ref().map(|remedy| format!("\nwhat to do: {remedy}")).unwrap_or_default();
            // Only what is ours begins at the margin.
            format!("error: {}{remedy}\n", border::indented(&message, 2))
        }
        LogFormat::Json => {
            let line = serde_json::json!({
                "level": "ERROR", "message": message, "remedy": verdict.remedy, "exit_code": verdict.exit.code(),
            });
            format!("{}\n", border::json(&line.to_string()))
        }
    };
    // Nothing is left to tell if standard error is closed.
    let _ = io::stderr().lock().write_all(text.as_bytes());
    verdict.exit.into()
}
