//! A child process with its CPU time and its peak of resident memory, from
//! `/proc`.
//!
//! Invariant: the process does not outlive its value.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::error::BenchError;

/// Length of a clock tick in `/proc/PID/stat` (`USER_HZ`), on every Linux that
/// walferry is built for.
const SECONDS_A_TICK: f64 = 0.01;

/// Pause between two looks at a process.
const POLL: Duration = Duration::from_millis(5);

/// Bytes of a process's log that an error shows.
const LOG_SHOWN_BYTES: usize = 1500;

/// A running contender, its outputs going to a file.
pub struct Process {
    what: String,
    child: Child,
    folder: TempDir,
    peak_rss_bytes: u64,
    ended: Option<Used>,
}

/// What a process has used in its life.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// User and system time, in seconds.
    pub cpu_seconds: f64,
    /// `VmHWM`, in bytes, as of the last look.
    pub peak_rss_bytes: u64,
}

impl Process {
    /// Starts it.
    pub fn start(what: impl Into<String>, mut command: Command) -> Result<Self, BenchError> {
        let what = what.into();
        let folder = tempfile::tempdir().map_err(BenchError::io("create a folder"))?;
        let log = File::create(folder.path().join("log")).map_err(BenchError::io("create a log"))?;
        let other = log.try_clone().map_err(BenchError::io("create a log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(other)
            .spawn()
            .map_err(BenchError::io(format!("start {what}")))?;
        Ok(Process { what, child, folder, peak_rss_bytes: 0, ended: None })
    }

    /// Looks at its memory and, once it has ended, at its times; the error of a
    /// process that has ended badly.
    pub fn look(&mut self) -> Result<(), BenchError> {
        if self.ended.is_some() {
            return Ok(());
        }
        if let Some(bytes) = peak_rss_bytes(self.child.id()) {
            self.peak_rss_bytes = self.peak_rss_bytes.max(bytes);
        }
        // A process that has ended keeps its times until it is waited for.
        let Some(stat) = Stat::of(self.child.id()).filter(|stat| stat.is_zombie) else { return Ok(()) };
        let status = self.child.wait().map_err(BenchError::io(format!("wait for {}", self.what)))?;
        if !status.success() {
            return Err(self.failure());
        }
        self.ended = Some(Used { cpu_seconds: stat.cpu_seconds, peak_rss_bytes: self.peak_rss_bytes });
        Ok(())
    }

    /// Waits for its end, at most as long as the limit; what it has used.
    pub fn finish(mut self, limit: Duration) -> Result<Used, BenchError> {
        let deadline = Instant::now() + limit;
        loop {
            self.look()?;
            if let Some(used) = self.ended {
                return Ok(used);
            }
            if Instant::now() >= deadline {
                return Err(BenchError::Late(self.what.clone()));
            }
            sleep(POLL);
        }
    }

    /// Asks it to stop, and waits.
    pub fn stop(self, limit: Duration) -> Result<Used, BenchError> {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)
                .map_err(|error| BenchError::io(format!("stop {}", self.what))(error.into()))?;
        }
        self.finish(limit)
    }

    /// What it has printed so far.
    pub fn output(&self) -> String {
        let bytes = fs::read(self.folder.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it had ended, and well, at the last look.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// The end of what it has printed so far.
    pub fn output_end(&self) -> String {
        let output = self.output();
        let start = output.len().saturating_sub(LOG_SHOWN_BYTES);
        let start = (start..=output.len()).find(|&at| output.is_char_boundary(at)).unwrap_or(0);
        output.get(start..).unwrap_or_default().trim().to_owned()
    }

    fn failure(&self) -> BenchError {
        BenchError::Process { what: self.what.clone(), log: self.output_end() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either may fail when it has ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A process group of this leader: all of its processes end with this value.
pub struct Group(pub u32);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.0).ok().and_then(Pid::from_raw) {
            // There is none any more when it ended by itself.
            let _ended = kill_process_group(pid, Signal::KILL);
        }
    }
}

struct Stat {
    is_zombie: bool,
    cpu_seconds: f64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
        // Behind the name, which may hold anything: state, then 10 fields, then
        // utime and stime.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some(Stat { is_zombie: fields.first() == Some(&"Z"), cpu_seconds: (ticks(11)? + ticks(12)?) * SECONDS_A_TICK })
    }
}

/// `VmHWM` of a process that has not ended.
fn peak_rss_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
