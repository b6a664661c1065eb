//! Runs the real `walferry` binary and watches it.
//!
//! Invariant: a [`Walferry`] that is dropped is killed and reaped; what it
//! logged is printed when the test fails.

use std::fs::{self, File};
use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use walferry::demo::server::Server;

use super::pair::Pair;
use super::server;

/// Pause between two looks at a process.
const POLL: Duration = Duration::from_millis(10);

/// How a run ended.
#[derive(Debug)]
pub struct Finished {
    /// How the process ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Asserts the exit code; shows both outputs otherwise.
    #[track_caller]
    pub fn code(self, expected: i32) -> Self {
        assert_eq!(self.status.code(), Some(expected), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}) in:\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }
}

/// A free port of 127.0.0.1, for `--listen`.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A walferry command of these two ends, ready for more arguments.
pub fn command(source_uri: &str, target_uri: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walferry"));
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("PG") || (name.starts_with("WALFERRY_") && !name.starts_with("WALFERRY_TEST_")) {
            command.env_remove(name);
        }
    }
    command.env("WALFERRY_SOURCE_PGURI", source_uri).env("WALFERRY_TARGET_PGURI", target_uri);
    finding_pg_dump(command, &server())
}

/// The same for a pair, with the newer pg_dump of the two.
pub fn command_for(pair: &Pair, arguments: &[&str]) -> Command {
    let command = command(&pair.source_uri(), &pair.target_uri(), arguments);
    let (source, target) = (pair.source.server(), pair.target.server());
    finding_pg_dump(command, if source.major > target.major { source } else { target })
}

/// With this server's pg_dump first in PATH.
fn finding_pg_dump(mut command: Command, server: &Server) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(server.bin_dir.clone()).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(paths).unwrap());
    command
}

/// A running walferry.
pub struct Walferry {
    child: Child,
    folder: TempDir,
}

impl Walferry {
    /// Starts the command, its outputs going to files.
    pub fn spawn(mut command: Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name| File::create(folder.path().join(name)).unwrap();
        let child = command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr")).spawn().unwrap();
        Walferry { child, folder }
    }

    /// Starts the command with a log that nobody reads (`2> >(head -1)`), or, if `is_full`,
    /// on a disk that is full.
    pub fn spawn_unread(mut command: Command, is_full: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("stderr")).unwrap();
        let stdout = File::create(folder.path().join("stdout")).unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let stderr = if is_full { Stdio::from(full()) } else { Stdio::from(writer) };
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap();
        Walferry { child, folder }
    }

    /// `walferry` with these arguments on this pair.
    pub fn on(pair: &Pair, arguments: &[&str]) -> Self {
        Walferry::spawn(command_for(pair, arguments))
    }

    /// Runs to the end, at most as long as the limit.
    #[track_caller]
    pub fn run(pair: &Pair, arguments: &[&str], limit: Duration) -> Finished {
        Walferry::on(pair, arguments).wait(limit)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn stderr(&self) -> String {
        self.output("stderr")
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Sends a signal: `Signal::TERM`, `Signal::INT`, `Signal::STOP`, …
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.ended().is_none(), "walferry has ended:\n{}", self.stderr());
        kill_process(Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap(), signal).unwrap();
    }

    /// kill -9, and reaps it.
    pub fn kill(mut self) -> Finished {
        self.child.kill().unwrap();
        self.wait(Duration::from_secs(10))
    }

    /// SIGTERM, then waits.
    #[track_caller]
    pub fn terminate(mut self, limit: Duration) -> Finished {
        self.signal(Signal::TERM);
        self.wait(limit)
    }

    /// Waits for the end; panics when it takes longer than the limit.
    #[track_caller]
    pub fn wait(mut self, limit: Duration) -> Finished {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended() {
                return Finished { status, stdout: self.output("stdout"), stderr: self.output("stderr") };
            }
            assert!(Instant::now() < deadline, "walferry did not end within {limit:?}");
            std::thread::sleep(POLL);
        }
    }

    fn output(&self, name: &str) -> String {
        let mut text = Vec::new();
        File::open(self.folder.path().join(name)).and_then(|mut file| file.read_to_end(&mut text)).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Walferry {
    fn drop(&mut self) {
        // Either may fail when it has ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read(self.folder.path().join("stderr")).unwrap_or_default();
            eprintln!("--- walferry {} logged:\n{}", self.child.id(), String::from_utf8_lossy(&log));
        }
    }
}
