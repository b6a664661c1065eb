//! Commands and their own arguments, as clap sees them; their texts are the
//! manual. The settings, which several commands share, are added by
//! [`super::flags`].
//!
//! Invariant: a flag of two values becomes an enum before it leaves this file.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cleanup::{Consent, Request, Scope};
use crate::demo::DemoOptions;
use crate::fault::Exit;
use crate::run::{Finish, Until};

/// Pause between two documents of `status --watch`.
pub(super) const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// The exit codes, and where settings come from.
fn after_help() -> String {
    let codes: String = Exit::ALL.iter().map(|exit| format!("{exit}\n")).collect();
    format!("Exit codes:\n{codes}\n{SETTINGS}")
}

const SETTINGS: &str = "\
Every setting can also be given as WALFERRY_<FLAG> in the environment, or under
the flag's name in walferry.toml; a flag goes over the environment, which goes
over the file. PGUSER, PGPASSWORD, PGSSLMODE and the like fill in what a
connection string leaves out; PGHOST, PGPORT and PGDATABASE do not, as they
would mean both ends.";

/// Moves a live PostgreSQL database to another server
///
/// walferry copies a database to another server and keeps the copy up to date
/// while the application keeps writing, until you switch. The role on the
/// target needs no superuser rights and no CREATE SUBSCRIPTION.
///
///   walferry check     --source URI --target URI    would it work?
///   walferry run       --source URI --target URI    copy, then follow
///   walferry status    --source URI --target URI    how far is it?
///   walferry resync    --source URI --target URI TABLE…    copy tables anew
///   walferry catchup   --source URI --target URI    drain, once writes have stopped
///   walferry cleanup   --source URI --target URI    remove slot, publication, state
#[derive(Parser)]
#[command(name = "walferry", version, verbatim_doc_comment, after_help = after_help(), max_term_width = 100)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Look at both ends and say what would make a migration fail; change nothing
    ///
    /// Every problem comes with the SQL that mends it. Exits with 3 when there
    /// is one, with 6 or 7 when an end cannot be reached.
    Check(CheckArgs),
    /// Copy the database and follow its changes until stopped
    ///
    /// Brings over schema, rows, indexes, sequences and large objects, and then
    /// applies changes as they happen. Stopped or killed, it goes on from where
    /// it was when started again. SIGINT or SIGTERM: the batch in hand is
    /// finished and confirmed; a second signal ends at once.
    Run(RunArgs),
    /// Drain to the source's position as of now, make sequences and large objects exact, exit
    ///
    /// Run it after the application has stopped writing. A running daemon is
    /// asked to hand over.
    Catchup(CatchupArgs),
    /// Copy tables anew while the stream goes on
    ///
    /// A running daemon empties the tables on the target, copies them under a new
    /// snapshot beside its stream, and takes them up where that ends; the other
    /// tables go on meanwhile. Without a daemon this command copies them, and the
    /// next run goes on.
    Resync(ResyncArgs),
    /// Take in tables that were created, published or let in by the filter later
    ///
    /// Brings over their definition where the schema is walferry's, adds them to
    /// the publication, and copies them as "resync" does.
    Add(ResyncArgs),
    /// Say how far the migration is, with or without a running daemon
    Status(StatusArgs),
    /// Remove slot, publication and state of a migration
    ///
    /// Refuses while objects are still held back on the target, and shows the SQL
    /// that brings them in; --yes drops all the same. Where the target knows nothing
    /// of the migration, nothing of its name is dropped on the source: --state-only
    /// leaves that alone. What was named with --slot or --publication is never dropped.
    Cleanup(CleanupArgs),
    /// Watch a whole migration between two throwaway servers on this machine
    Demo(DemoArgs),
    /// Write completions, man pages or the page of all settings
    #[command(hide = true, subcommand)]
    Generate(Generate),
}

/// What comes of the commands and settings as they are declared.
#[derive(Subcommand)]
pub(super) enum Generate {
    /// Completions of a shell, to standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// A man page for each command, into a folder
    Man {
        /// The folder, which exists
        #[arg(value_hint = clap::ValueHint::DirPath)]
        folder: PathBuf,
    },
    /// The page of all settings (Markdown), to standard output
    Settings,
}

#[derive(Args)]
pub(super) struct CheckArgs {
    /// Print the findings as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// When `run` ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum UntilWord {
    /// Once the target has everything the source had when the copy was done
    CaughtUp,
}

#[derive(Args)]
pub(super) struct RunArgs {
    /// End by itself at this point instead of when stopped
    #[arg(long, value_name = "WHEN")]
    until: Option<UntilWord>,
}

impl RunArgs {
    pub(super) fn until(&self) -> Until {
        match self.until {
            Some(UntilWord::CaughtUp) => Until::CaughtUp,
            None => Until::Stopped,
        }
    }
}

#[derive(Args)]
pub(super) struct CatchupArgs {
    /// Also bring in what was held back (foreign keys, triggers) and what has no stream (rows of unlogged tables, data of materialized views)
    #[arg(long)]
    finish: bool,
    /// Print what was done as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl CatchupArgs {
    pub(super) fn finish(&self) -> Finish {
        if self.finish { Finish::Yes } else { Finish::No }
    }
}

#[derive(Args)]
pub(super) struct ResyncArgs {
    /// The tables: patterns as for --tables; a partitioned table stands for its partitions
    #[arg(value_name = "TABLE", required = true)]
    pub(super) names: Vec<String>,
    /// Print what was done as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Whether `status` goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    Yes,
    No,
}

#[derive(Args)]
pub(super) struct StatusArgs {
    /// Print the status as JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Print it again every two seconds until interrupted (with --json: one document a line)
    #[arg(long)]
    watch: bool,
}

impl StatusArgs {
    pub(super) fn watch(&self) -> Watch {
        if self.watch { Watch::Yes } else { Watch::No }
    }
}

#[derive(Args)]
pub(super) struct CleanupArgs {
    /// Drop even if objects are held back; the SQL that brings them in is printed
    #[arg(long)]
    yes: bool,
    /// Drop only the state on the target: for a source that is gone
    #[arg(long)]
    state_only: bool,
    /// Print what was dropped as JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl CleanupArgs {
    pub(super) fn request(&self) -> Request {
        Request {
            consent: if self.yes { Consent::Given } else { Consent::Missing },
            scope: if self.state_only { Scope::StateOnly } else { Scope::Everything },
        }
    }
}

#[derive(Args)]
pub(super) struct DemoArgs {
    /// Leave the two servers running afterwards
    #[arg(long)]
    keep: bool,
    /// How long the application writes
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
}

impl DemoArgs {
    pub(super) fn options(&self) -> DemoOptions {
        DemoOptions { keep: self.keep, seconds: self.seconds }
    }
}
