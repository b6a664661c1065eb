//! A child process that does not outlive us, however we end.
//!
//! Invariant: the thread that started the child lives as long as the keeper.
//! The kernel ties the parent-death signal to the *thread* that forked
//! (prctl(2), PR_SET_PDEATHSIG), so a child started from a pool's thread would
//! be killed when the pool shrinks.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a signalled child may take to end before it is killed: an
/// immediate shutdown takes milliseconds, a fast one writes a checkpoint.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Pause between two looks at a child that is to end.
const STOP_POLL: Duration = Duration::from_millis(5);

/// A child and the thread that is its parent.
pub struct Keeper {
    child: Arc<Mutex<Child>>,
    pid: u32,
    /// What ends the child when the keeper is dropped.
    last: Signal,
    /// Dropped to let the parent thread end.
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the command from a thread of its own. When the keeper is dropped,
    /// the signal `last` is what ends the child.
    ///
    /// # Errors
    /// When the thread or the program cannot be started.
    pub fn spawn(mut command: Command, last: Signal) -> io::Result<Self> {
        let (alive, until_dropped) = mpsc::channel::<()>();
        let (started, answer) = mpsc::channel();
        let thread = thread::Builder::new().name("keeper".into()).spawn(move || {
            let child = command.spawn();
            drop(command);
            // The answer is awaited below; recv ends when `alive` is dropped.
            if started.send(child).is_ok() {
                let _ended = until_dropped.recv();
            }
        })?;
        let child = answer.recv().map_err(io::Error::other)??;
        let pid = child.id();
        Ok(Keeper { child: Arc::new(Mutex::new(child)), pid, last, alive: Some(alive), thread: Some(thread) })
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the child ended, if it has.
    ///
    /// # Errors
    /// As waitpid(2) reports.
    pub fn ended(&self) -> io::Result<Option<ExitStatus>> {
        self.child().try_wait()
    }

    /// Sends a signal; nothing happens to a child that has ended.
    ///
    /// # Errors
    /// As kill(2) reports.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        // The lock keeps the pid from being reaped and used anew meanwhile.
        let mut child = self.child();
        if child.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(kill_process(pid, signal)?)
    }

    /// Sends the signal and waits for the end, killing a child that takes too long.
    ///
    /// # Errors
    /// As kill(2) and waitpid(2) report.
    pub fn stop(&self, signal: Signal) -> io::Result<ExitStatus> {
        self.signal(signal)?;
        let deadline = Instant::now() + STOP_PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            thread::sleep(STOP_POLL);
        }
        let mut child = self.child();
        child.kill()?;
        child.wait()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Err(error) = self.stop(self.last) {
            tracing::warn!(pid = self.pid, %error, "cannot stop a child process");
        }
        drop(self.alive.take());
        if let Some(thread) = self.thread.take() {
            // The thread does nothing that could panic.
            let _ended = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_keeper_leaves_no_process() {
        let mut command = Command::new("sleep");
        command.arg("600");
        let keeper = Keeper::spawn(command, Signal::TERM).unwrap();
        let entry = std::path::PathBuf::from(format!("/proc/{}", keeper.pid()));
        assert!(entry.exists());
        drop(keeper);
        assert!(!entry.exists());
    }
}
