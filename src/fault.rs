//! What an error means: the kind of fault, and for each kind what is done
//! about it, how the process ends, and what the operator can do.
//!
//! ```text
//! a layer's error ─ fault() ─► Fault ─ verdict() ─► directive · exit code · remedy
//!        SQLSTATE ─ sqlstate::trouble ─┘
//! ```
//!
//! Invariant: nothing else decides about a retry, a remedy or an exit code.
//! Each layer says beside its own enum which kind an error of it is; the table
//! of kinds is [`Fault::verdict`], the one of SQLSTATEs is [`sqlstate`], and
//! help, README and notes show [`Exit`].

pub mod backoff;
pub mod sqlstate;

use std::fmt;
use std::process::ExitCode;

use crate::config::Side;

/// The kind of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The command line asks for something that cannot be.
    Usage,
    /// A setting is wrong.
    Configuration,
    /// The address for HTTP cannot be had.
    Address,
    /// There is no such migration.
    NoMigration,
    /// The migration's copy is not complete.
    NotCopied,
    /// The migration has ended well.
    Ended,
    /// Another command took over.
    TakenOver,
    /// Something that `check` looks at stands in the way of a migration.
    Refused,
    /// The position and the source do not fit any more.
    NeedsResync,
    /// The source is another one: of another migration, or put in the place of its own.
    OtherSource,
    /// The slot has given up changes that the target lacks.
    Consumed,
    /// The daemon could not copy tables beside its stream.
    NotResynced,
    /// Something is wrong at one of the servers, or on the way to it.
    Server(Side, Trouble),
    /// The two sides differ.
    Differs(Difference),
    /// Asked to stop before it was done.
    Interrupted,
    /// The system that walferry runs on refuses something.
    Machine,
    /// walferry is wrong.
    Bug,
}

/// What is wrong at a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It passes by itself: a lost connection, a server that starts.
    Passing,
    /// Only an operator can mend it, as the message says.
    Lasting,
    /// A right is missing.
    NotGranted,
    /// Transactions are read-only.
    ReadOnly,
    /// A change cannot be applied.
    NotApplied,
    /// What was held back cannot be brought in.
    NotRestored,
    /// Connections are ended sooner than a table can be copied.
    CutOff,
    /// A table is written anew before it can be read.
    Rewritten,
    /// What belongs to a table's rows cannot be built on them.
    NotBuilt,
    /// Its name is taken.
    NameTaken,
    /// What it needs is not found.
    NotFound,
    /// The slot is about to lose its WAL.
    WalEnding,
    /// Another process works on the migration.
    Leased,
    /// The lease that this process had is held by another session.
    LeaseLost,
}

/// In what the two sides differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// A row.
    Row,
    /// What COPY has left out.
    LeftOut,
    /// Nothing but what the message names.
    Remainder,
    /// Unlogged tables, perhaps as they should.
    Unlogged,
    /// The demo's two databases.
    Demo,
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

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// A bug, or this machine.
    Bug = 1,
    /// Usage or configuration.
    Usage = 2,
    /// Refused.
    Refused = 3,
    /// Needs resync.
    Resync = 4,
    /// The source failed.
    Source = 6,
    /// The target failed.
    Target = 7,
    /// The sides differ.
    Differs = 8,
    /// Interrupted: 128 + SIGINT, as shells count.
    Interrupted = 130,
}

impl Exit {
    /// All of them, in order.
    pub const ALL: [Exit; 9] = [
        Exit::Done,
        Exit::Bug,
        Exit::Usage,
        Exit::Refused,
        Exit::Resync,
        Exit::Source,
        Exit::Target,
        Exit::Differs,
        Exit::Interrupted,
    ];

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What it says, for help and manual.
    pub fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "done, or asked to stop",
            Exit::Bug => "a bug in walferry, or this machine refuses something (threads, pipes)",
            Exit::Usage => "wrong usage or configuration",
            Exit::Refused => "refused: something that check names stands in the way of a migration",
            Exit::Resync => "the migration needs a resync: position and source do not fit any more",
            Exit::Source => "the source failed, or cannot be reached",
            Exit::Target => "the target failed, or cannot be reached",
            Exit::Differs => "source and target differ",
            Exit::Interrupted => "interrupted before it was done",
        }
    }

    /// That of a server's failure.
    pub fn of(side: Side) -> Self {
        match side {
            Side::Source => Exit::Source,
            Side::Target => Exit::Target,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// The code and what it says, aligned.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>3}  {}", self.code(), self.meaning())
    }
}

/// The table's row for a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What is done.
    pub directive: Directive,
    /// How the process ends.
    pub exit: Exit,
    /// Which side it is about.
    pub side: Option<Side>,
    /// What the operator can do, where the error itself does not say it.
    pub remedy: Option<&'static str>,
}

/// What to do about a bug; the panic hook says it, too.
pub const BUG: &str =
    "this is a bug in walferry; nothing was lost: the position is on the target. Please report it, and start again";

const REFUSED: &str =
    "mend what the message names; \"walferry check\" shows what else stands in the way of a migration";

const ENDED: &str = "\"walferry cleanup\" is what is left to do";

/// The way that leaves nothing of the migration.
macro_rules! begin_again {
    () => {
        "what is on the target cannot be continued from here. Show what there is with \"walferry status\", \
         remove it with \"walferry cleanup --yes\", empty the target's database (drop it and create it anew, or drop its \
         tables and unlink its large objects) and begin again with \"walferry run\""
    };
}

const RESYNC: &str = begin_again!();

const OTHER_SOURCE: &str = concat!(
    "if this is not the source of that migration, it has lost nothing: use its own --source, or another --name for a \
     migration of this source. Only where its source was replaced for good (restored from a backup, promoted): ",
    begin_again!()
);

const CONSUMED: &str = concat!(
    "\"walferry resync '*'\" copies all tables anew, and the stream goes on behind what is lost. Before the first copy is \
     complete that leads nowhere: ",
    begin_again!()
);

const NOT_RESYNCED: &str = "\"walferry status\" shows which tables are not ready; the next \"walferry run\", \"catchup\" or \"resync\" \
     copies them anew";

impl Fault {
    /// A fault that passes by itself.
    pub fn passing(side: Side) -> Self {
        Fault::Server(side, Trouble::Passing)
    }

    /// A fault that only an operator can mend.
    pub fn lasting(side: Side) -> Self {
        Fault::Server(side, Trouble::Lasting)
    }

    /// The one table.
    pub fn verdict(self) -> Verdict {
        use Directive::{Bug, Operator};
        let (directive, exit, remedy) = match self {
            Fault::Usage | Fault::Configuration => (Operator, Exit::Usage, ""),
            Fault::Address => (Operator, Exit::Usage, "choose another --listen address"),
            Fault::NoMigration => (Operator, Exit::Usage, "start one with \"walferry run\", or name it with --name"),
            Fault::NotCopied => (Operator, Exit::Usage, "start it with \"walferry run\", and catch up once it streams"),
            Fault::Ended => (Operator, Exit::Refused, ENDED),
            Fault::TakenOver => (Operator, Exit::Usage, "let one command work at a time"),
            Fault::Refused => (Operator, Exit::Refused, REFUSED),
            Fault::NeedsResync => (Operator, Exit::Resync, RESYNC),
            Fault::OtherSource => (Operator, Exit::Resync, OTHER_SOURCE),
            Fault::Consumed => (Operator, Exit::Resync, CONSUMED),
            Fault::NotResynced => (Operator, Exit::Resync, NOT_RESYNCED),
            Fault::Server(side, trouble) => {
                let (directive, remedy) = trouble.verdict();
                (directive, Exit::of(side), remedy)
            }
            Fault::Differs(difference) => (Operator, Exit::Differs, difference.remedy()),
            Fault::Interrupted => (Operator, Exit::Interrupted, "run it again; it goes on from where it was"),
            Fault::Machine => (Operator, Exit::Bug, ""),
            Fault::Bug => (Bug, Exit::Bug, BUG),
        };
        Verdict { directive, exit, side: self.side(), remedy: Some(remedy).filter(|text| !text.is_empty()) }
    }

    /// What is done about it.
    pub fn directive(self) -> Directive {
        self.verdict().directive
    }

    /// Whether the work is worth another try.
    pub fn is_retried(self) -> bool {
        self.directive() == Directive::Retry
    }

    /// The side that it is about.
    pub fn side(self) -> Option<Side> {
        match self {
            Fault::Server(side, _) => Some(side),
            _ => None,
        }
    }

    /// Whether another process is at work: then how the migration stands is its
    /// business, and not that this one has left.
    pub fn is_anothers(self) -> bool {
        matches!(self, Fault::Server(_, Trouble::Leased | Trouble::LeaseLost) | Fault::TakenOver)
    }

    /// The same where nothing has been created yet: what a server refuses for
    /// good then is what `check` finds.
    pub fn before_anything(self) -> Self {
        match self {
            Fault::Server(_, Trouble::Lasting | Trouble::NotGranted | Trouble::ReadOnly) => Fault::Refused,
            other => other,
        }
    }
}

impl Trouble {
    fn verdict(self) -> (Directive, &'static str) {
        use Directive::{Operator, Retry};
        match self {
            Trouble::Passing => (Retry, ""),
            Trouble::Lasting => (Operator, ""),
            Trouble::NotGranted => (Operator, "\"walferry check\" prints the SQL that grants what is missing"),
            Trouble::ReadOnly => (
                Operator,
                "transactions of this role are read-only there (default_transaction_read_only): some providers set \
                 that when the disk is full. When there is room: SET default_transaction_read_only = off; \
                 ALTER ROLE … SET default_transaction_read_only = off",
            ),
            Trouble::NotApplied => (
                Operator,
                "nothing was skipped: mend what the target complains of and start again. Where nothing mends it, as the \
                 source was altered since, have the table copied anew with \"walferry resync TABLE\": its changes up to \
                 then are passed over",
            ),
            Trouble::NotRestored => (
                Operator,
                "mend what the message names and run \"walferry catchup --finish\" again; what is restored stays",
            ),
            Trouble::CutOff => (
                Operator,
                "something in between ends connections sooner than this table needs: raise its limit (a proxy's or \
                 pooler's maximum life of a connection), connect past it, copy the table faster (--jobs with a smaller \
                 --part-size, a place nearer to both ends), or leave it out with --exclude-tables. Then start again: \
                 the other tables stay",
            ),
            Trouble::Rewritten => (
                Operator,
                "let what does that pause until the table is copied, or leave the table out with --exclude-tables. \
                 Then start again: the other tables stay",
            ),
            Trouble::NotBuilt => (
                Operator,
                "mend the rows on the source, have the table copied anew with \"walferry resync TABLE\", and start \
                 again: the other tables stay",
            ),
            Trouble::NameTaken => (
                Operator,
                "something else on the target has its name: rename or drop it there (\"walferry check\" prints the SQL), \
                 and start again: the other tables stay",
            ),
            Trouble::NotFound => {
                (Operator, "let it find that on the target, and start again: the rows and the other tables stay")
            }
            Trouble::WalEnding => {
                (Operator, "raise it before the next checkpoint and start again at once: finished tables stay")
            }
            Trouble::Leased => (Operator, LEASED),
            Trouble::LeaseLost => (Retry, LEASED),
        }
    }
}

/// What to do about a process that holds the lease.
pub const LEASED: &str = "stop it first. If it is gone and a session of it hangs on, end that on the target: \
     SELECT DISTINCT pg_terminate_backend(pid) FROM pg_locks WHERE pid <> pg_backend_pid() \
     AND (locktype = 'advisory' AND classid = 2003592825 OR relation IN (SELECT oid FROM pg_class WHERE relnamespace = 'walferry'::regnamespace))";

impl Difference {
    fn remedy(self) -> &'static str {
        match self {
            Difference::Row => {
                "the two sides differ in this row: find out what else writes to the target, or what was altered since on \
                 the source (a label of an enum?). Nothing was skipped: repair \
                 the row on the target, or copy the table anew with \"walferry resync TABLE\", and start again"
            }
            Difference::LeftOut => {
                "find what leaves rows of this table out (a trigger?), then copy it anew with \"walferry resync TABLE\""
            }
            Difference::Remainder => "everything else is equal: mend what the message names and run it again",
            Difference::Unlogged => "everything else is equal",
            Difference::Demo => "this is a bug in walferry; please report it with the log",
        }
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
#[path = "fault/tests.rs"]
mod tests;
