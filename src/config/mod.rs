//! Configuration: as declared ([`settings`]), as typed ([`given`]) and as
//! validated ([`Settings`]).
//!
//! Reading order: [`settings`] (each setting with its type, default and bounds)
//! → [`given`] (flags, environment, file) → `validate` (what goes together) →
//! [`conninfo`], made by `resolve` of `uri` or `keywords`, `service`,
//! `passfile`.
//!
//! Invariant: everything behind this module works on validated values only;
//! each setting is declared once, with its default and the reason for it.

pub mod conninfo;
mod env;
pub mod error;
pub mod filter;
pub mod given;
mod keywords;
pub mod listen;
mod near;
mod passfile;
mod private;
pub mod publications;
mod resolve;
mod service;
pub mod settings;
mod uri;
mod validate;

use std::path::PathBuf;
use std::time::Duration;

use crate::lsn::Lsn;

pub use conninfo::{ConnInfo, Secret};
pub use env::Env;
pub use error::{ConfigError, ConnInfoError};
pub use filter::{Pattern, Subject, TableFilter, Verdict};
pub use given::{Origin, Values};
pub use listen::{Audience, Listen, ListenAddress};
pub use near::near_misses;
pub use publications::Publications;

/// One of the two ends of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The server that the application writes to.
    Source,
    /// The server that the database moves to.
    Target,
}

impl Side {
    /// The one that this is not.
    pub fn other(self) -> Self {
        match self {
            Side::Source => Side::Target,
            Side::Target => Side::Source,
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Side::Source => "source",
            Side::Target => "target",
        })
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    Human,
    /// One JSON object a line
    Json,
}

/// What walferry does about the schema on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, clap::ValueEnum)]
pub enum SchemaMode {
    /// Create it from the source's, foreign keys and triggers deferred.
    Create,
    /// It exists; its foreign keys and triggers are deferred.
    Existing,
    /// It exists; nothing about it is looked at or changed.
    None,
}

/// Whether something of the source comes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It does.
    Yes,
    /// It does not.
    No,
}

/// Whether an object on the source is walferry's own or the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// walferry creates it, under this name, and `cleanup` drops it.
    Ours(String),
    /// The operator named an existing one; it is never dropped.
    Existing(String),
}

impl Provenance {
    /// The object's name, whoever made it.
    pub fn name(&self) -> &str {
        match self {
            Provenance::Ours(name) | Provenance::Existing(name) => name,
        }
    }
}

/// Which tables a publication of our own holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishWhat {
    /// Those that take part, each by its name.
    Listed,
    /// FOR ALL TABLES, those to come included: a table without a replica
    /// identity that the application creates later cannot be updated there.
    AllTables,
}

/// Bounds of one apply batch. Whole source transactions are gathered while the
/// target is busy, until one of these is reached: no transaction waits for
/// company.
#[derive(Clone, Copy, Debug)]
pub struct BatchBounds {
    /// Row changes.
    pub rows: usize,
    /// Bytes of decoded changes.
    pub bytes: usize,
}

/// What an index build may use on the target; `None` where that is the target's
/// own choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexResources {
    /// `maintenance_work_mem`, in kB.
    pub memory_kib: Option<u64>,
    /// `max_parallel_maintenance_workers`.
    pub workers: Option<u32>,
}

/// Where the rows that were there before the stream come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// They are copied.
    Copied,
    /// They are on the target already.
    Restored {
        /// The target has exactly the transactions whose commit record begins
        /// before this; `None` for where the slot begins.
        start: Option<Lsn>,
    },
}

/// Everything a command needs to know, validated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the rows come from.
    pub source: ConnInfo,
    /// Where the rows go.
    pub target: ConnInfo,
    /// The migration's name: slot, publication and state carry it.
    pub name: String,
    /// The replication slot on the source.
    pub slot: Provenance,
    /// The publications on the source.
    pub publications: Publications,
    /// What a publication of our own holds.
    pub publish: PublishWhat,
    /// Which tables take part.
    pub filter: TableFilter,
    /// Tables the operator vouches for: their rows all came through the stream.
    pub adopt: TableFilter,
    /// What to do about the schema.
    pub schema: SchemaMode,
    /// Whether objects belong to the source's owners at the end.
    pub owners: Keep,
    /// Whether privileges are granted at the end.
    pub acl: Keep,
    /// Where the rows that were there before the stream come from.
    pub baseline: Baseline,
    /// Copy workers.
    pub jobs: usize,
    /// Workers that may build indexes at the same time.
    pub index_jobs: usize,
    /// What each session that builds indexes has for it.
    pub index_resources: IndexResources,
    /// Bytes a second at which rows are read at most; `None` without a limit.
    pub copy_rate: Option<u64>,
    /// Bytes above which a table is copied in parts, and of a part.
    pub part_size: u64,
    /// How old a snapshot of the copy may be for tables to be begun under it:
    /// as long as it is held, the source's VACUUM removes nothing newer.
    pub snapshot_age: Duration,
    /// Bytes of WAL held back during the copy that are worth a warning; `None`
    /// for half of the source's own limit.
    pub wal_warn: Option<u64>,
    /// Folder of pg_dump and pg_restore; `None` searches PATH and the usual places.
    pub pg_bin: Option<PathBuf>,
    /// How long lost connections are retried.
    pub retry_for: Duration,
    /// Bounds of an apply batch.
    pub batch: BatchBounds,
    /// Bytes that may wait between the receiver and the applier.
    pub queue_bytes: usize,
    /// From one pass over the sequences to the next.
    pub sequence_interval: Duration,
    /// Values of each sequence that the last pass leaves unused.
    pub sequence_margin: u64,
    /// Pause between two passes over the large objects.
    pub large_object_interval: Duration,
    /// Where and to whom metrics and health are served; `None` for nowhere.
    pub listen: Option<Listen>,
}
