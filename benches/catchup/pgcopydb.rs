//! pgcopydb, where it is installed: follows the backlog of TPC-B once.
//!
//! Driven as version 0.10 (Debian 12) is: it knows no plugin but wal2json
//! (package `postgresql-15-wal2json`), so its slot is a copy of the one that
//! holds the backlog with that plugin; its sentinel on the source says where to
//! begin and where to end. It is given a superuser on both ends: it creates a
//! replication origin on the target. Where the server has no such plugin it is
//! left out; any other reason why it cannot makes its run void.
//!
//! About 10 s of its time are a wait: it looks for its first file of SQL, finds
//! that it is not written yet, and sleeps so long before it looks again.
//!
//! Invariant: it runs when nobody else reads the backlog any more, for its
//! sentinel is a table of the source that the others' publication would carry.
//! None of its processes outlives a run.

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::contenders::{Backlog, Run, await_sentinel, compare};
use crate::error::BenchError;
use crate::process::{Group, Process};
use crate::rig::{DATABASE, NATIVE_BASE, RUN, Rig, without_settings};

/// The program, and the name of its slot, of its origin and of its schema on
/// the source.
pub const NAME: &str = "pgcopydb";

/// The only output plugin that version 0.10 knows.
const PLUGIN: &str = "wal2json";

/// The longest that it may follow: a hundred times what the others take at full
/// size. Beyond it the exact figure says no more than "over".
const FOLLOW_LIMIT: Duration = Duration::from_secs(300);

/// The longest that one of its preparing commands, or its end after the last
/// row, may take; each takes a fraction of a second.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Whether PATH has the program.
pub fn is_installed() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(NAME).is_file())
}

/// Follows the backlog once: from the start of the process that follows until
/// the sentinel row is visible.
pub fn run(rig: &Rig, backlog: &Backlog) -> Result<Run, BenchError> {
    let run = follow(rig, backlog);
    // Also after a failure: it would be in the way of whoever comes next.
    let cleared = clear(rig);
    let run = run?;
    cleared?;
    compare(rig, backlog)?;
    Ok(run)
}

fn follow(rig: &Rig, backlog: &Backlog) -> Result<Run, BenchError> {
    rig.fresh_with(NAME, PLUGIN, Some(NATIVE_BASE)).map_err(|error| without_plugin(rig, &error))?;
    let folder = tempfile::tempdir().map_err(BenchError::io("create a folder"))?;
    let ends = Ends { source: rig.source_uri(), target: rig.target_superuser_uri(RUN)?, folder };
    set_up(rig, &ends, backlog)?;
    let target = rig.sql(&rig.target, RUN)?;
    let mut command = ends.command(&["follow", "--endpos", &backlog.end]);
    ends.add_both(&mut command);
    command.process_group(0);
    let begun = Instant::now();
    let mut process = Process::start("pgcopydb follow", command)?;
    let _group = Group(process.id());
    let arrived = await_sentinel(&target, begun, FOLLOW_LIMIT, || {
        process.look()?;
        if process.has_ended() && target.rows("SELECT 1 FROM sentinel")?.is_empty() {
            let words = process.output_end();
            return Err(BenchError::Unexpected(format!("pgcopydb follow ended before the sentinel row: {words}")));
        }
        Ok(())
    });
    match arrived {
        Err(BenchError::Late(_)) => return Err(BenchError::Over(FOLLOW_LIMIT)),
        other => other?,
    }
    let seconds = begun.elapsed().as_secs_f64();
    process.finish(COMMAND_LIMIT)?;
    // Several processes: what one of them used says nothing.
    Ok(Run { seconds, start_up_seconds: None, used: None })
}

/// What to do when its slot cannot be had.
fn without_plugin(rig: &Rig, error: &BenchError) -> BenchError {
    let major = rig.major();
    BenchError::LeftOut(format!(
        "{error} (pgcopydb 0.10 follows by the output plugin {PLUGIN} only; \
         Debian's package for this server is postgresql-{major}-{PLUGIN})"
    ))
}

/// Its origin on the target, its sentinel on the source.
fn set_up(rig: &Rig, ends: &Ends, backlog: &Backlog) -> Result<(), BenchError> {
    let begin = rig
        .sql(&rig.source, DATABASE)?
        .value(&format!("SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{NAME}'"))?;
    // With --resume it takes a slot that is there, and leaves the sentinel to us.
    let mut setup = ends.command(&["stream", "setup"]);
    ends.add_both(&mut setup);
    let sentinel = ["stream", "sentinel", "create", "--startpos", &begin, "--endpos", &backlog.end];
    let mut create = ends.command(&sentinel);
    let mut apply = ends.command(&["stream", "sentinel", "set", "apply"]);
    for command in [&mut create, &mut apply] {
        command.args(["--source", &ends.source]);
    }
    let finish = |what: &str, command| Process::start(format!("pgcopydb {what}"), command)?.finish(COMMAND_LIMIT);
    finish("stream setup", setup)?;
    finish("stream sentinel create", create)?;
    // The others' publication is of all tables, so that the server would not let
    // it update a table without a key.
    rig.sql(&rig.source, DATABASE)?.run(&format!("ALTER TABLE {NAME}.sentinel REPLICA IDENTITY FULL"))?;
    finish("stream sentinel set apply", apply).map(drop)
}

/// Removes its slot, its sentinel and its origin.
fn clear(rig: &Rig) -> Result<(), BenchError> {
    rig.drop_slot(NAME)?;
    rig.sql(&rig.source, DATABASE)?.run(&format!("DROP SCHEMA IF EXISTS {NAME} CASCADE"))?;
    rig.sql(&rig.target, "postgres")?
        .run(&format!("SELECT pg_replication_origin_drop(roname) FROM pg_replication_origin WHERE roname = '{NAME}'"))
}

/// What its commands work on.
struct Ends {
    source: String,
    target: String,
    /// Its files: the changes, first as JSON and then as SQL.
    folder: TempDir,
}

impl Ends {
    /// A command of it, free of settings of the caller's environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(NAME);
        without_settings(&mut command);
        // Some of its files are not in --dir.
        command.env("XDG_DATA_HOME", self.folder.path()).args(arguments);
        command
    }

    /// Adds what a command that touches both ends needs; the folder is not
    /// there yet, for it makes its own.
    fn add_both(&self, command: &mut Command) {
        command.args(["--source", &self.source, "--target", &self.target, "--slot-name", NAME, "--origin", NAME]);
        command.args(["--resume", "--not-consistent", "--dir"]).arg(self.folder.path().join("work"));
    }
}
