//! The schema on the target: brought over with pg_dump, or taken as it is.
//!
//! Invariant: what the copy and the stream cannot have yet (foreign keys,
//! triggers, rules, policies) is never only in memory: it is a row of
//! `walferry.deferred`, written in the same transaction as the schema change
//! that made it necessary, with the SQL that brings it in. What has no stream
//! at all is listed there as well ([`without_stream`]).
//!
//! Source: the sections of an archive are those of `pg_dump.c` and
//! `pg_backup_archiver.c` (`src/bin/pg_dump`).

mod alike;
mod along;
mod archive;
mod attver;
mod classify;
mod create;
pub(crate) mod database;
mod dump;
mod existing;
mod follow;
pub(crate) mod kind;
mod left_out;
mod older;
mod order;
mod ownership;
mod pg_dump;
mod restore;
mod same;
mod source;
pub mod tables;
pub(crate) mod taken;
#[cfg(test)]
mod tests;
pub(crate) mod trial;
pub mod types;
pub mod without_stream;

use std::path::PathBuf;

pub(crate) use create::shown;
pub use create::{is_held_by_default, is_missing, is_overlapping, is_taken};
pub use existing::{Keys, has_an_end_begun, is_to_be_reopened, take_away_again};
pub use follow::follow;
pub(crate) use left_out::comes;
pub(crate) use order::in_order;
pub(crate) use ownership::missing_roles;
pub use pg_dump::{PgDump, find_pg_dump};
pub use restore::{Failure, Leftover, Mark, Restored, list_what_is_gone, restore_after_rows, restore_deferred};
use taken::Taken;

use crate::catalog::tables::by_name;
use crate::config::{SchemaMode, Settings, Side};
use crate::fault::Fault;
use crate::membership::SourceTable;
use crate::session::{DbContext, DbError, Session};
use crate::state::deferred::Deferred;
use crate::state::{State, StateError};
use crate::wire::WireError;

/// Why the schema could not be brought over.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A connection was refused or lost.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A statement failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The state could not be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// No pg_dump is new enough for the source.
    #[error(
        "no pg_dump of version {wanted} or newer was found ({found}): install the package postgresql-client-{wanted}, \
         or name the folder of the programs with --pg-bin"
    )]
    NoPgDump {
        /// The source's major version.
        wanted: u32,
        /// What was looked at.
        found: String,
    },
    /// pg_dump could not be started, or its password file not written.
    #[error("cannot run {program}")]
    Start {
        /// Its path.
        program: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// pg_dump ended with an error.
    #[error("{program} failed on the source ({status}): {stderr}")]
    Dump {
        /// Its path.
        program: PathBuf,
        /// Its exit status.
        status: String,
        /// The end of its standard error.
        stderr: String,
    },
    /// The dump could not be taken apart.
    #[error("pg_dump's output cannot be read: {0}")]
    Archive(String),
    /// Extensions the target's server does not offer.
    #[error(
        "the target's server does not offer {} of the source: {}; install the packages there, or enable them in the provider's console",
        if .0.len() == 1 { "an extension" } else { "extensions" }, .0.join(", ")
    )]
    Extensions(Vec<String>),
    /// Roles that the schema names and the target lacks, or may not give objects to.
    #[error(
        "policies, user mappings, owners or privileges of the source need roles on the target, or rights of theirs; let an administrator there run this, \
         or leave out --owners and --acl (policies and user mappings need their roles all the same):\n  {}", .0.join("\n  ")
    )]
    Roles(Vec<String>),
    /// An object of the dump was refused.
    #[error("cannot create {kind} {object} on the target{advice}")]
    Object {
        /// pg_dump's word for what it is.
        kind: String,
        /// Its name.
        object: String,
        /// What to do; empty or beginning with ": ".
        advice: &'static str,
        /// The server's words.
        #[source]
        source: DbError,
    },
    /// Something else has names that new tables, or their indexes, are to have.
    #[error(
        "something else on the target has {}; rename {} there, and run this again:\n  {}",
        if .0.len() == 1 { "the name that this is to have" } else { "the names that these are to have" },
        if .0.len() == 1 { "it" } else { "them" },
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
    )]
    Taken(Vec<Taken>),
    /// Privileges that the target's server only warns it does not give.
    #[error("the server would warn that it does not give all of them, and count the statement as executed")]
    NotGiven,
    /// The tables on the target do not fit those of the source.
    #[error("the schema on the target does not fit:\n  {}", .0.join("\n  "))]
    Mismatch(Vec<String>),
}

impl SchemaError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            SchemaError::Wire(error) => error.fault(),
            SchemaError::Db(error) => error.fault(),
            SchemaError::State(error) => error.fault(),
            SchemaError::Start { .. } => Fault::Machine,
            SchemaError::Dump { stderr, .. } if pg_dump::was_cut_off(stderr) => Fault::passing(Side::Source),
            SchemaError::Dump { .. } | SchemaError::Archive(_) => Fault::lasting(Side::Source),
            // The connection may have been lost in the middle of it; else nothing
            // of the schema is there.
            SchemaError::Object { source, .. } => source.fault().before_anything(),
            SchemaError::NoPgDump { .. }
            | SchemaError::Extensions(_)
            | SchemaError::Roles(_)
            | SchemaError::Taken(_)
            | SchemaError::NotGiven
            | SchemaError::Mismatch(_) => Fault::Refused,
        }
    }
}

/// Makes the target's schema ready for the rows, as the settings say, once: a
/// migration whose schema is ready already is left alone. `tables` are all
/// tables of the source, excluded ones too; `source` is a session in the
/// snapshot of the copy, `snapshot` its exported name.
///
/// # Errors
/// [`SchemaError`] says which object failed; nothing of the schema is on the
/// target then.
pub async fn prepare(
    settings: &Settings,
    state: &State,
    source: &Session,
    snapshot: &str,
    tables: &[SourceTable],
) -> Result<(), SchemaError> {
    let ready = state.load().await?.is_some_and(|migration| migration.schema_restored);
    if ready || settings.schema == SchemaMode::None {
        return Ok(());
    }
    // A session of its own: the daemon's other statements must not fall into
    // this transaction.
    let session = Session::connect(&settings.target, &settings.name).await?;
    let own = state.beside(session).await?;
    match settings.schema {
        SchemaMode::Create => create::run(settings, &own, source, snapshot, tables).await,
        SchemaMode::Existing | SchemaMode::None => existing::run(&own, tables, settings.baseline).await,
    }
}

/// Holds back what is in the way of the rows of these tables, of a copy that is under way,
/// if the schema has not been made ready.
///
/// # Errors
/// When the target refuses it; nothing is held back then.
pub async fn hold_back(settings: &Settings, state: &State, tables: &[SourceTable]) -> Result<(), SchemaError> {
    if state.load().await?.is_some_and(|migration| migration.schema_restored) {
        return Ok(());
    }
    let session = Session::connect(&settings.target, &settings.name).await?;
    existing::late(&state.beside(session).await?, tables).await
}

/// Brings over, or makes ready as they are, tables that come later than the
/// others; as [`prepare`] does for all. `tables` are all tables of the source.
///
/// # Errors
/// As [`prepare`].
pub async fn add(
    settings: &Settings,
    state: &State,
    source: &Session,
    tables: &[SourceTable],
    new: &[SourceTable],
) -> Result<(), SchemaError> {
    let session = Session::connect(&settings.target, &settings.name).await?;
    let own = state.beside(session).await?;
    let there = by_name(own.session(), new.iter().map(|table| &table.name)).await?;
    let (there, absent): (Vec<_>, Vec<_>) = new.iter().cloned().partition(|table| there.contains_key(&table.name));
    if settings.schema == SchemaMode::Create {
        create::add(settings, &own, source, tables, &absent).await?;
    }
    if settings.schema != SchemaMode::None && !there.is_empty() {
        existing::add(&own, &there).await?;
    }
    Ok(())
}

/// Adds `objects` behind those that are recorded; inside the caller's
/// transaction.
async fn append(state: &State, mut objects: Vec<Deferred>) -> Result<(), SchemaError> {
    classify::number(&mut objects);
    let last = state.deferred().await?.iter().map(|object| object.ordinal).max().unwrap_or(0);
    objects.iter_mut().for_each(|object| object.ordinal += last);
    state.add_deferred(&objects).await?;
    Ok(())
}

/// Forgets deferred objects of an attempt that did not commit, records
/// `objects` and the schema as ready; inside the caller's transaction.
async fn record(state: &State, objects: &[Deferred]) -> Result<(), SchemaError> {
    state
        .execute("DELETE FROM walferry.deferred WHERE migration = $1", &[&state.name()], "clear the deferred objects")
        .await?;
    state.add_deferred(objects).await?;
    is_ready(state).await
}

/// Records the schema as ready; inside the caller's transaction.
async fn is_ready(state: &State) -> Result<(), SchemaError> {
    let sql = "UPDATE walferry.migration SET schema_restored = true WHERE name = $1";
    state.execute(sql, &[&state.name()], "record that the schema is ready").await?;
    Ok(())
}

/// Runs plain SQL on a session, with the action named for errors.
async fn batch(session: &Session, sql: &str, action: &str) -> Result<(), DbError> {
    session.batch_execute(sql).await.during(session.side(), action)
}
