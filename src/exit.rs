//! The one table: what an error means, what is to be done, how the process
//! ends. Every layer's error arrives here; nothing else decides about a retry
//! or an exit code.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done, or asked to stop |
//! | 1 | a bug |
//! | 2 | usage or configuration |
//! | 3 | `check` refused |
//! | 4 | needs resync: the position and the source do not fit any more |
//! | 6 | the source failed |
//! | 7 | the target failed |
//! | 8 | the two sides differ |
//! | 130 | a one-shot was interrupted before it was done |

use tokio_postgres::error::SqlState;

use crate::apply::ApplyError;
use crate::check::CheckError;
use crate::cleanup::CleanupError;
use crate::config::{ConfigError, Side};
use crate::copy::{CopyError, WalStage};
use crate::demo::DemoError;
use crate::observe::http::HttpError;
use crate::observe::status::StatusError;
use crate::run::housekeeping::HouseError;
use crate::run::receiver::ReceiverError;
use crate::run::resume::ResyncError;
use crate::run::worker::WorkerError;
use crate::schema::{SchemaError, was_cut_off};
use crate::session::DbError;
use crate::sql::TableName;
use crate::state::StateError;
use crate::sweep::SweepError;
use crate::wire::{self, WireError};

/// Any error a command can end with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `check` found problems; they have been printed.
    #[error("a migration would fail: {problems} problem(s) found by check")]
    CheckRefused {
        /// How many.
        problems: usize,
    },
    /// `check` itself failed.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// `cleanup` failed.
    #[error(transparent)]
    Cleanup(#[from] CleanupError),
    /// The position and the source do not fit any more.
    #[error(transparent)]
    Resync(#[from] ResyncError),
    /// A connection.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A statement.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The state on the target.
    #[error(transparent)]
    State(#[from] StateError),
    /// The schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The copy.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Receiving.
    #[error(transparent)]
    Receiver(#[from] ReceiverError),
    /// Decoding and assembling.
    #[error("cannot read the stream: {0}")]
    Worker(#[from] WorkerError),
    /// Applying.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// Housekeeping beside the stream.
    #[error(transparent)]
    House(#[from] HouseError),
    /// Sequences and large objects.
    #[error(transparent)]
    Sweep(#[from] SweepError),
    /// The status document.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The HTTP side.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The demo.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// There is nothing to catch up yet.
    #[error("the copy of migration \"{name}\" is not complete")]
    NotCopied {
        /// The migration.
        name: String,
    },
    /// Tables that the source has and nothing carries.
    #[error(
        "rows of table(s) {} are not on the target: they were created on the source after the copy and are not in the publication, or were unlogged then and are not any more",
        .tables.iter().map(TableName::to_string).collect::<Vec<_>>().join(", ")
    )]
    NotCarried {
        /// The tables.
        tables: Vec<TableName>,
    },
    /// The daemon could not copy tables beside its stream.
    #[error("the daemon could not copy the tables: {why}")]
    NotResynced {
        /// Its answer.
        why: String,
    },
    /// Deferred objects that the target refused.
    #[error("{} deferred object(s) could not be restored: {}", .failures.len(), .failures.join("; "))]
    NotRestored {
        /// Each with its object and the target's words.
        failures: Vec<String>,
    },
    /// The source ended the stream: it shuts down.
    #[error("the source ended the stream")]
    StreamEnded,
    /// The lease that this process had is held by another session: by a command
    /// that took over, or by its own old one, which the server has not given up.
    #[error("migration \"{name}\" is being worked on by {holder}")]
    LeaseHeld {
        /// The migration.
        name: String,
        /// Host and process as far as known.
        holder: String,
    },
    /// Another command took over while this one was at work.
    #[error("{by} took over")]
    TakenOver {
        /// Who.
        by: String,
    },
    /// Asked to stop before it was done.
    #[error("interrupted before it was done")]
    Interrupted,
    /// Something that cannot be.
    #[error("bug: {0}")]
    Bug(String),
}

/// What is done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directive {
    /// Try again, within the bound.
    Retry,
    /// The operator has to do something.
    Operator,
    /// walferry is wrong.
    Bug,
}

impl Directive {
    /// The word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Directive::Retry => "retry",
            Directive::Operator => "operator",
            Directive::Bug => "bug",
        }
    }
}

/// The table's row for an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What is done.
    pub directive: Directive,
    /// Which side it is about.
    pub side: Option<Side>,
    /// What the operator can do, where the error itself does not say it.
    pub remedy: Option<String>,
    /// The exit code.
    pub code: u8,
}

impl Verdict {
    fn operator(code: u8, remedy: &str) -> Self {
        let remedy = Some(remedy.to_owned()).filter(|text| !text.is_empty());
        Verdict { directive: Directive::Operator, side: None, remedy, code }
    }

    fn bug() -> Self {
        let remedy = "this is a bug in walferry; nothing was lost: the position is on the target. Please report it";
        Verdict { directive: Directive::Bug, side: None, remedy: Some(remedy.to_owned()), code: 1 }
    }

    fn of_side(side: Side, directive: Directive) -> Self {
        let code = match side {
            Side::Source => 6,
            Side::Target => 7,
        };
        Verdict { directive, side: Some(side), remedy: None, code }
    }

    fn with_remedy(mut self, remedy: &str) -> Self {
        self.remedy = Some(remedy.to_owned());
        self
    }
}

const RESYNC: &str = "what is on the target cannot be continued from here. Show what there is with \"walferry status\", \
     remove it with \"walferry cleanup --yes\", empty the target's database (drop it and create it anew, or drop its \
     tables and unlink its large objects) and begin again with \"walferry run\"";

const DIFFERS: &str = "the two sides differ in this row: find out what else writes to the target. Nothing was skipped: \
     repair the row on the target, or copy the table anew with \"walferry resync TABLE\", and start again";

const LEASED: &str = "stop it first. If it is gone and its session hangs on, end that on the target: \
     SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = 2003592825";

impl Error {
    /// What the error means.
    pub fn verdict(&self) -> Verdict {
        match self {
            Error::Usage(_) | Error::Config(_) => Verdict::operator(2, ""),
            Error::CheckRefused { .. } => Verdict::operator(3, ""),
            Error::Resync(_) => Verdict::operator(4, RESYNC),
            Error::Wire(error) => connection(error),
            Error::Db(error) => db(error),
            Error::State(error) => state(error),
            Error::Schema(error) => schema(error),
            Error::Copy(error) => copy(error),
            Error::Worker(WorkerError::Spawn(_)) => Verdict::operator(1, "the operating system refuses threads"),
            Error::Receiver(ReceiverError::Wire(error)) => connection(error),
            Error::Receiver(ReceiverError::Full) | Error::Worker(_) | Error::Bug(_) => Verdict::bug(),
            Error::Apply(error) => apply(error),
            Error::House(HouseError::State(error)) => state(error),
            Error::House(HouseError::Wire(error)) => connection(error),
            Error::Sweep(error) => sweep(error),
            Error::Check(CheckError::Wire(error)) => connection(error),
            Error::Check(CheckError::Db(error)) => db(error),
            Error::Cleanup(error) => cleanup(error),
            Error::Status(error) => status(error),
            Error::Http(_) => Verdict::operator(2, "choose another --listen address"),
            Error::Demo(error) => demo(error),
            Error::NotCopied { .. } => {
                Verdict::operator(2, "start it with \"walferry run\", and catch up once it streams")
            }
            Error::NotCarried { .. } => Verdict::operator(
                8,
                "everything else is equal. Take these tables in by \"walferry add TABLE\" and catch up again, or say with \
                 --exclude-tables that they stay behind",
            ),
            Error::NotResynced { .. } => Verdict::operator(
                4,
                "\"walferry status\" shows which tables are not ready; the next \"walferry run\", \"catchup\" or \"resync\" \
                 copies them anew",
            ),
            Error::NotRestored { .. } => Verdict::of_side(Side::Target, Directive::Operator).with_remedy(
                "mend what the message names and run \"walferry catchup --finish\" again; what is restored stays",
            ),
            Error::StreamEnded => Verdict::of_side(Side::Source, Directive::Retry),
            Error::LeaseHeld { .. } => Verdict::of_side(Side::Target, Directive::Retry).with_remedy(LEASED),
            Error::TakenOver { .. } => Verdict::operator(2, "let one command work at a time"),
            Error::Interrupted => Verdict::operator(130, "run it again; it goes on from where it was"),
        }
    }

    /// Whether this is the answer to SIGINT or SIGTERM.
    pub fn is_interruption(&self) -> bool {
        matches!(self, Error::Interrupted | Error::Copy(CopyError::Stopped))
    }
}

fn connection(error: &WireError) -> Verdict {
    let directive = if error.is_transient() { Directive::Retry } else { Directive::Operator };
    Verdict::of_side(error.side(), directive)
}

const READ_ONLY: &str = "transactions of this role are read-only there (default_transaction_read_only): some providers set \
     that when the disk is full. When there is room: ALTER ROLE … SET default_transaction_read_only = off";

/// SQLSTATE read_only_sql_transaction.
const READ_ONLY_STATE: &str = "25006";

/// A statement on a connection of our own.
fn statement(error: &WireError) -> Verdict {
    let Some(server) = error.server() else { return connection(error) };
    refused(error.side(), &server.sqlstate)
}

/// What a server refused.
fn refused(side: Side, sqlstate: &str) -> Verdict {
    let directive = if is_transient(sqlstate) { Directive::Retry } else { Directive::Operator };
    let verdict = Verdict::of_side(side, directive);
    if sqlstate == SqlState::INSUFFICIENT_PRIVILEGE.code() {
        return verdict.with_remedy("\"walferry check\" prints the SQL that grants what is missing");
    }
    if sqlstate == READ_ONLY_STATE {
        return verdict.with_remedy(READ_ONLY);
    }
    verdict
}

/// A statement on tokio-postgres.
fn db(error: &DbError) -> Verdict {
    let directive = match error.sqlstate() {
        Some(code) => return refused(error.side, code.code()),
        // No SQLSTATE: the connection is gone.
        None if error.source.is_closed() || is_io(&error.source) => Directive::Retry,
        None => Directive::Bug,
    };
    Verdict::of_side(error.side, directive)
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

/// SQLSTATEs that pass by themselves: connection exceptions (class 08), too
/// many connections, object in use (a slot whose last owner was killed),
/// serialization and deadlock, lock timeouts, shutdown and start-up, crash.
pub fn is_transient(sqlstate: &str) -> bool {
    wire::server_error::is_transient(sqlstate) || matches!(sqlstate, "40P01" | "55P03" | "57P05")
}

fn state(error: &StateError) -> Verdict {
    match error {
        StateError::Db(error) => db(error),
        StateError::Newer { .. } | StateError::Foreign(_) => Verdict::of_side(Side::Target, Directive::Operator),
        StateError::Leased { .. } => Verdict::of_side(Side::Target, Directive::Operator).with_remedy(LEASED),
        StateError::NoMigration(_) => Verdict::operator(2, "start one with \"walferry run\", or name it with --name"),
    }
}

fn apply(error: &ApplyError) -> Verdict {
    let target = Verdict::of_side(Side::Target, Directive::Operator);
    match error {
        ApplyError::Statement { error, .. } if error.sqlstate == READ_ONLY_STATE => target.with_remedy(READ_ONLY),
        ApplyError::Refused { error, .. }
        | ApplyError::Deferred { error, .. }
        | ApplyError::Statement { error, .. }
        | ApplyError::Net { error, .. } => {
            let directive = if is_transient(&error.sqlstate) { Directive::Retry } else { Directive::Operator };
            Verdict::of_side(Side::Target, directive)
                .with_remedy("nothing was skipped: mend what the target complains of and start again")
        }
        ApplyError::RowCount { .. } => Verdict { code: 8, ..target }.with_remedy(DIFFERS),
        ApplyError::Copied { .. } => Verdict { code: 8, ..target }.with_remedy(
            "find what leaves rows of this table out (a trigger?), then copy it anew with \"walferry resync TABLE\"",
        ),
        ApplyError::Render { .. } | ApplyError::NetRender { .. } | ApplyError::Gone { .. } => target,
        ApplyError::Mapping { .. } | ApplyError::Unknown { .. } | ApplyError::Action { .. } => target,
        ApplyError::PositionMoved { .. } | ApplyError::InOrderAgain(_) => {
            Verdict::of_side(Side::Target, Directive::Retry)
        }
        ApplyError::OutOfStep(_) => Verdict::bug(),
        ApplyError::Wire(error) => connection(error),
        ApplyError::Db(error) => db(error),
        ApplyError::State(error) => state(error),
    }
}

fn schema(error: &SchemaError) -> Verdict {
    match error {
        SchemaError::Wire(error) => connection(error),
        SchemaError::Db(error) => db(error),
        SchemaError::State(error) => state(error),
        SchemaError::NoPgDump { .. } | SchemaError::Start { .. } => Verdict::operator(2, ""),
        SchemaError::Dump { stderr, .. } if was_cut_off(stderr) => Verdict::of_side(Side::Source, Directive::Retry),
        SchemaError::Dump { .. } | SchemaError::Archive(_) => Verdict::of_side(Side::Source, Directive::Operator),
        // The connection may have been lost in the middle of it.
        SchemaError::Object { source, .. } => db(source),
        SchemaError::Extensions(_) | SchemaError::Roles(_) | SchemaError::Mismatch(_) => {
            Verdict::of_side(Side::Target, Directive::Operator)
        }
    }
}

fn copy(error: &CopyError) -> Verdict {
    match error {
        CopyError::Wire(error) => connection(error),
        CopyError::Read { source, .. } => statement(source),
        CopyError::Db(error) => db(error),
        CopyError::State(error) => state(error),
        CopyError::Schema(error) => schema(error),
        CopyError::Sweep(error) => sweep(error),
        CopyError::Resync(_) => Verdict::operator(4, RESYNC),
        CopyError::WalRunsOut { stage: WalStage::Lost, .. } => Verdict::operator(4, RESYNC),
        CopyError::WalRunsOut { stage: WalStage::Ending, .. } => Verdict::of_side(Side::Source, Directive::Operator)
            .with_remedy("raise it before the next checkpoint and start again at once: finished tables stay"),
        CopyError::CutOff { side, .. } => Verdict::of_side(*side, Directive::Operator).with_remedy(
            "something in between ends connections sooner than this table needs: raise its limit (a proxy's or \
             pooler's maximum life of a connection), connect past it, copy the table faster (--jobs with a smaller \
             --part-size, a place nearer to both ends), or leave it out with --exclude-tables. Then start again: the \
             other tables stay",
        ),
        CopyError::RowCount { .. } | CopyError::UnreadableSnapshot(_) => Verdict::bug(),
        CopyError::ReplicaIdentity { .. }
        | CopyError::Publication { .. }
        | CopyError::ForeignSlot(_)
        | CopyError::SlotBlocked { .. }
        | CopyError::NoSnapshot(_)
        | CopyError::Renamed { .. }
        | CopyError::Unsettled { .. } => Verdict::of_side(Side::Source, Directive::Operator),
        CopyError::Elsewhere(_) | CopyError::KeysInForce(_) | CopyError::Triggers { .. } => {
            Verdict::of_side(Side::Target, Directive::Operator)
        }
        CopyError::NotHere { .. } => Verdict::operator(2, ""),
        CopyError::SlotInUse { .. } | CopyError::SnapshotGone => Verdict::of_side(Side::Source, Directive::Retry),
        CopyError::ExistingSlot(_) | CopyError::FilterGrown(_) | CopyError::StartAhead { .. } => {
            Verdict::operator(2, "")
        }
        CopyError::Stopped => Verdict::operator(130, "run it again"),
    }
}

/// Whether the copy itself tries again after this error, beside what goes on.
pub(crate) fn copy_is_retried(error: &CopyError) -> bool {
    copy(error).directive == Directive::Retry
}

/// The side that an error of the copy is about.
pub(crate) fn side_of_copy(error: &CopyError) -> Option<Side> {
    copy(error).side
}

fn sweep(error: &SweepError) -> Verdict {
    match error {
        SweepError::Wire(error) => connection(error),
        SweepError::Db(error) => db(error),
        SweepError::State(error) => state(error),
        SweepError::Sequences(_) | SweepError::Both(..) => {
            Verdict::operator(8, "everything else is equal: mend what the message names and run it again")
        }
        SweepError::UnreadableLargeObjects { .. } => Verdict::of_side(Side::Source, Directive::Operator),
        SweepError::LargeObjectsClaimed => Verdict::of_side(Side::Target, Directive::Retry),
        SweepError::LargeObjectsInUse { .. } => Verdict::of_side(Side::Target, Directive::Operator),
    }
}

fn status(error: &StatusError) -> Verdict {
    match error {
        StatusError::Wire(error) => connection(error),
        StatusError::Db(error) => db(error),
        StatusError::State(error) => state(error),
    }
}

fn cleanup(error: &CleanupError) -> Verdict {
    match error {
        CleanupError::Wire(error) | CleanupError::Source(error) => connection(error),
        CleanupError::Db(error) => db(error),
        CleanupError::State(error) => state(error),
        CleanupError::HeldBack(_) | CleanupError::NoState { .. } | CleanupError::OtherSource { .. } => {
            Verdict::operator(2, "")
        }
        CleanupError::SlotInUse { .. } => Verdict::of_side(Side::Source, Directive::Operator),
    }
}

fn demo(error: &DemoError) -> Verdict {
    match error {
        DemoError::Differs(_) => Verdict::operator(8, "this is a bug in walferry; please report it with the log"),
        DemoError::Cluster(_) | DemoError::Environment(_) => Verdict::operator(2, ""),
        _ => Verdict::operator(1, ""),
    }
}

/// The error and its causes, "a: b: c"; a cause that a message repeats already
/// is passed over. A driver error ends the chain: what wraps it has quoted the
/// server's words in full.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<tokio_postgres::Error>() {
            break;
        }
        let message = error.to_string();
        if !text.contains(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConnInfoError;

    #[test]
    fn the_chain_of_causes_is_printed_without_repetition() {
        let source = ConnInfoError::UnknownKeyword("hots".into());
        let error = Error::from(ConfigError::ConnInfo { side: Side::Target, source });
        assert_eq!(chain(&error), "the connection string of the target cannot be used: unknown keyword \"hots\"");
    }
}
