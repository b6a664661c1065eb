//! The real binary as the demo drives it: the daemon as a child process, the
//! other commands one by one.
//!
//! Invariant: the daemon does not outlive its [`Daemon`], and a failure is
//! reported with the end of what the process logged.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;

use super::DemoError;
use super::keeper::Keeper;
use crate::state::migration::Phase;
use crate::state::tables::TableState;

/// Lines of a failed process's log that are shown.
const LOG_LINES_SHOWN: usize = 20;

/// The longest that a command may take: the last pass of `catchup` restores
/// and validates foreign keys, which takes seconds.
const COMMAND_PATIENCE: Duration = Duration::from_secs(120);

/// How to run walferry on the demo's two ends.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The executable.
    pub program: PathBuf,
    /// Connection URI of the source.
    pub source_uri: String,
    /// Connection URI of the target.
    pub target_uri: String,
    /// The folder of `pg_dump`.
    pub pg_bin: PathBuf,
}

/// Whether a process is told to end when the thread that started it dies.
#[derive(Clone, Copy)]
enum Tie {
    /// It ends by itself soon.
    None,
    /// It would go on for long; start it from a [`Keeper`]'s thread.
    ToUs,
}

impl Binary {
    fn command(&self, tie: Tie, arguments: &[&str]) -> Result<Command, DemoError> {
        let mut command = match tie {
            Tie::None => Command::new(&self.program),
            Tie::ToUs => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "TERM", "--"]).arg(&self.program);
                command
            }
        };
        command.args(arguments).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("PG") || name.starts_with("WALFERRY_") {
                command.env_remove(name);
            }
        }
        let old = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([self.pg_bin.clone()].into_iter().chain(std::env::split_paths(&old)))
            .map_err(|error| DemoError::Environment(error.to_string()))?;
        command.env("PATH", path);
        command.env("WALFERRY_SOURCE_PGURI", &self.source_uri).env("WALFERRY_TARGET_PGURI", &self.target_uri);
        Ok(command)
    }

    /// Runs a command to its end and reads its standard output as JSON.
    ///
    /// # Errors
    /// When it fails, takes too long or prints something else.
    pub async fn json<T: for<'a> Deserialize<'a>>(&self, arguments: &[&str]) -> Result<T, DemoError> {
        let name = arguments.join(" ");
        let mut command = tokio::process::Command::from(self.command(Tie::None, arguments)?);
        let run = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).output();
        let output = tokio::time::timeout(COMMAND_PATIENCE, run)
            .await
            .map_err(|_| DemoError::Late { what: format!("walferry {name}"), seconds: COMMAND_PATIENCE.as_secs() })?
            .map_err(|source| DemoError::Start { command: name.clone(), source })?;
        let Output { status, stdout, stderr } = output;
        if !status.success() {
            let log = tail(&String::from_utf8_lossy(&stderr));
            return Err(DemoError::Command { command: name, status, log });
        }
        serde_json::from_slice(&stdout).map_err(|source| DemoError::Json { command: name, source })
    }
}

/// What `walferry status --json` says, as far as the demo looks at it.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// setup, copy, stream, …
    pub phase: Phase,
    /// Bytes of the source's log that the target has not committed.
    pub lag_bytes: Option<u64>,
    /// Every table of the migration.
    #[serde(default)]
    pub tables: Vec<TableStatus>,
    /// Why the stream stands still, if it does.
    pub stopped_because: Option<String>,
}

/// One table of [`Status`].
#[derive(Clone, Debug, Deserialize)]
pub struct TableStatus {
    /// waiting, copying, indexing, ready.
    pub state: TableState,
    /// Rows copied.
    #[serde(default)]
    pub rows: u64,
}

impl Status {
    /// Tables that are copied, indexes and all.
    pub fn ready(&self) -> usize {
        self.tables.iter().filter(|table| table.state == TableState::Ready).count()
    }

    /// Rows copied in all.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

/// What `walferry catchup --finish --json` says.
#[derive(Clone, Debug, Deserialize)]
pub struct CaughtUp {
    /// The position it drained to.
    pub end_lsn: String,
    /// Transactions it applied.
    pub transactions: u64,
    /// Sequences it made exact.
    pub sequences: u64,
    /// Large objects it compared or carried.
    pub large_objects: u64,
}

/// A running `walferry run`.
pub struct Daemon {
    keeper: Keeper,
    log: PathBuf,
}

impl Daemon {
    /// Starts the daemon, its log going to a file in the folder.
    ///
    /// # Errors
    /// When the log or the process cannot be created.
    pub fn start(binary: &Binary, listen: &str, folder: &Path) -> Result<Self, DemoError> {
        let log = folder.join("walferry.log");
        let start = |source| DemoError::Start { command: "run".to_owned(), source };
        let file = File::create(&log).map_err(start)?;
        let mut command = binary.command(Tie::ToUs, &["run", "--listen", listen])?;
        command.stdout(Stdio::null()).stderr(file);
        // Dropped without `stop` means that the demo is given up, servers and all.
        Ok(Daemon { keeper: Keeper::spawn(command, Signal::KILL).map_err(start)?, log })
    }

    /// Fails when the daemon has ended, with the end of its log.
    ///
    /// # Errors
    /// [`DemoError::Command`] when it has.
    pub fn check(&self) -> Result<(), DemoError> {
        let wait = |source| DemoError::Start { command: "run".to_owned(), source };
        match self.keeper.ended().map_err(wait)? {
            None => Ok(()),
            Some(status) => Err(DemoError::Command { command: "run".to_owned(), status, log: self.log_tail() }),
        }
    }

    /// Asks the daemon to end and waits; it must end well, and may have already.
    ///
    /// # Errors
    /// [`DemoError::Command`] when its exit code is not 0.
    pub fn stop(self) -> Result<(), DemoError> {
        let wait = |source| DemoError::Start { command: "run".to_owned(), source };
        let status = self.keeper.stop(Signal::TERM).map_err(wait)?;
        if status.success() {
            return Ok(());
        }
        Err(DemoError::Command { command: "run".to_owned(), status, log: self.log_tail() })
    }

    /// The most memory it has ever held, in bytes; `None` when it has ended.
    pub fn peak_resident_bytes(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.keeper.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// The end of what it logged.
    pub fn log_tail(&self) -> String {
        match fs::read(&self.log) {
            Ok(bytes) => tail(&String::from_utf8_lossy(&bytes)),
            Err(error) => format!("(no log: {error})"),
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let first = lines.len().saturating_sub(LOG_LINES_SHOWN);
    lines.iter().skip(first).copied().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_far_as_the_demo_needs_it() {
        let status: Status = serde_json::from_str(
            r#"{"name": "walferry", "phase": "copy", "position": null, "lag_bytes": null, "stopped_because": null,
                "tables": [{"schema": "a", "name": "b", "state": "ready", "rows": 5},
                           {"schema": "a", "name": "c", "state": "copying", "rows": 2, "snapshot_lsn": null}]}"#,
        )
        .unwrap();
        assert_eq!((status.ready(), status.rows(), status.lag_bytes), (1, 7, None));
    }

    #[test]
    fn only_the_end_of_a_log_is_shown() {
        let log: String = (0..100).map(|i| format!("{i}\n")).collect();
        assert!(tail(&log).starts_with("80\n") && tail(&log).ends_with("99"));
    }
}
