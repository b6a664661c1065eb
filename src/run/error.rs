//! Why a command that moves data did not come to its end.

use super::housekeeping::HouseError;
use super::receiver::ReceiverError;
use super::worker::WorkerError;
use crate::apply::ApplyError;
use crate::check::CheckError;
use crate::config::{ConfigError, Publications, Side};
use crate::copy::CopyError;
use crate::fault::{Difference, Fault, Trouble};
use crate::membership::gap::{Gap, tables};
use crate::observe::http::HttpError;
use crate::schema::SchemaError;
use crate::session::DbError;
use crate::sql::{TableName, literal};
use crate::state::StateError;
use crate::state::deferred::DeferredKind;
use crate::state::resume::ResyncError;
use crate::sweep::SweepError;
use crate::wire::WireError;
use crate::words::{count, listed};

/// Why a command that moves data did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A server refused something before anything had been created.
    #[error(transparent)]
    Refused(Box<Error>),
    /// What `check` finds, found before anything was created.
    #[error("a migration would fail; \"walferry check\" says the same:{0}")]
    CheckRefused(String),
    /// What `check` asks could not be asked.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A session was lost before everything was looked at.
    #[error("the {side} was lost while a first start looked at it:{found}")]
    Unchecked {
        /// Which end.
        side: Side,
        /// What was found until then, that too.
        found: String,
    },
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
    /// The HTTP side.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// There is nothing to catch up yet.
    #[error("the copy of migration \"{name}\" is not complete")]
    NotCopied {
        /// The migration.
        name: String,
    },
    /// Tables that differ, or that nothing carries; and what a sweep left out.
    #[error(
        "{} not equal on both sides:\n  {}{}",
        match tables(.gaps.iter()) { 1 => "1 table is".to_owned(), count => format!("{count} tables are") },
        .gaps.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "),
        .left_out.as_ref().map(|error| format!("\nand then {error}")).unwrap_or_default()
    )]
    NotCovered {
        /// They.
        gaps: Vec<Gap>,
        /// What was left out: it may want the tables first.
        left_out: Option<SweepError>,
    },
    /// A row has no place on the target, where partitions are not those of the source, or
    /// meets rows there that are in doubt.
    #[error("{source}; {}", .gaps.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  "))]
    NotPlaced {
        /// They.
        gaps: Vec<Gap>,
        /// The target's words.
        source: Box<Error>,
    },
    /// The target takes no value of a type that was altered on the source, or lacks columns
    /// that may be of such a type.
    #[error("{}", unlike(.gaps, .source))]
    Unlike {
        /// The tables with columns of such types.
        gaps: Vec<Gap>,
        /// The target's words; or what is said of the columns, which are added behind that.
        source: Box<Error>,
    },
    /// The daemon could not copy tables beside its stream.
    #[error("the daemon could not copy the tables: {why}")]
    NotResynced {
        /// Its answer.
        why: String,
    },
    /// An end has ended well.
    #[error(
        "migration \"{name}\" has ended: catchup --finish brought everything in, and the target may be the application's. \
         If it is not and the source goes on, run on the target: {}; then \"run\" and \"catchup\" go on, and take triggers \
         and foreign keys away again until the next --finish",
        reopen_sql(name)
    )]
    Ended {
        /// The migration.
        name: String,
    },
    /// Unlogged tables that an earlier end has copied, and that differ.
    #[error(
        "everything is in, and the migration has ended; but an earlier catchup --finish had copied these unlogged tables, \
         and they are not equal on both sides: {}. If their rows on the target are the application's, nothing is left to do. \
         If the source has written to them since, have them copied again; run on the target: {}; {}; and then \
         catchup --finish",
        listed(.tables), recopy_sql(.name), reopen_sql(.name)
    )]
    UnloggedDiffer {
        /// The migration.
        name: String,
        /// They.
        tables: Vec<TableName>,
    },
    /// A publication is gone, or was when changes were made.
    #[error("{}. Nothing was skipped. {}", gone(.publications, .create), GONE_SINCE)]
    PublicationGone {
        /// Those that are gone; or the migration's, of which one was.
        publications: Publications,
        /// The SQL that creates what is not there.
        create: Option<String>,
        /// The source's words.
        #[source]
        source: Option<Box<Error>>,
    },
    /// Deferred objects that the target refused.
    #[error("{} could not be restored: {}", count(.failures.len(), "deferred object"), .failures.join("; "))]
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

/// What has a migration that has ended go on.
fn reopen_sql(name: &str) -> String {
    format!("UPDATE walferry.migration SET finished_at = NULL WHERE name = {}", literal(name))
}

/// What has unlogged tables copied again.
fn recopy_sql(name: &str) -> String {
    let kind = DeferredKind::Unlogged.as_str();
    format!("UPDATE walferry.deferred SET restored_at = NULL WHERE migration = {} AND kind = '{kind}'", literal(name))
}

/// The way on when all tables are copied anew.
const GONE_SINCE: &str = "What was changed in between comes with all tables copied anew, and the stream goes on behind it: \
     walferry resync '*'";

/// What became of publications, and what is to be done first.
fn gone(publications: &Publications, create: &Option<String>) -> String {
    match create {
        Some(sql) => format!(
            "{} on the source any more, and PostgreSQL before 18 decodes no change that was made since then: let the owner of \
             the tables create it again ({sql})",
            publications.who("does not exist", "do not exist")
        ),
        None => format!(
            "{} when changes were made that the slot has: dropped and created again; the source cannot decode these",
            publications.who("did not exist", "did not exist")
        ),
    }
}

/// A column that is added may have a default of what its type has only by then.
fn unlike(gaps: &[Gap], source: &Error) -> String {
    let types = gaps.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ");
    if source.is_of_columns() { format!("{types}\n  {source}") } else { format!("{source}; {types}") }
}

impl Error {
    /// Whether columns are missing on the target, or are others.
    pub(super) fn is_of_columns(&self) -> bool {
        matches!(self, Error::Apply(ApplyError::Mapping { error, .. }) if error.is_of_columns())
    }

    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            Error::Usage(_) => Fault::Usage,
            Error::Config(_) => Fault::Configuration,
            Error::Refused(error) => error.fault().before_anything(),
            Error::CheckRefused(_) => Fault::Refused,
            Error::Check(error) => error.fault(),
            Error::Unchecked { side, .. } => Fault::passing(*side),
            Error::Resync(error) => error.fault(),
            Error::Wire(error) => error.fault(),
            Error::Db(error) => error.fault(),
            Error::State(error) => error.fault(),
            Error::Schema(error) => error.fault(),
            Error::Copy(error) => error.fault(),
            Error::Receiver(error) => error.fault(),
            Error::Worker(error) => error.fault(),
            Error::Apply(error) => error.fault(),
            Error::House(error) => error.fault(),
            Error::Sweep(error) => error.fault(),
            Error::Http(error) => error.fault(),
            Error::NotCopied { .. } => Fault::NotCopied,
            Error::NotCovered { .. } => Fault::Differs(Difference::Remainder),
            Error::NotPlaced { source, .. } | Error::Unlike { source, .. } => source.fault(),
            Error::NotResynced { .. } => Fault::NotResynced,
            Error::Ended { .. } => Fault::Ended,
            Error::UnloggedDiffer { .. } => Fault::Differs(Difference::Unlogged),
            Error::PublicationGone { .. } => Fault::lasting(Side::Source),
            Error::NotRestored { .. } => Fault::Server(Side::Target, Trouble::NotRestored),
            Error::StreamEnded => Fault::passing(Side::Source),
            Error::LeaseHeld { .. } => Fault::Server(Side::Target, Trouble::LeaseLost),
            Error::TakenOver { .. } => Fault::TakenOver,
            Error::Interrupted => Fault::Interrupted,
            Error::Bug(_) => Fault::Bug,
        }
    }

    /// Whether this is the answer to SIGINT or SIGTERM.
    pub fn is_interruption(&self) -> bool {
        self.fault() == Fault::Interrupted
    }
}
