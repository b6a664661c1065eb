//! The settings as typed: flags, environment, file. Each setting is defined
//! here once, with the words its `--help` shows.
//!
//! Invariant: flag over environment over file, setting by setting; a variable
//! is `WALFERRY_` and the flag's name in capitals, a key of the file is the
//! flag's name. Meaning and defaults are given by [`Settings::validate`](super::Settings::validate).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Deserializer};

use super::error::ConfigError;
use super::{ConnInfo, Env, Side};

/// The file that is read from the working folder when `--config` is not given.
const DEFAULT_FILE: &str = "walferry.toml";

/// A value as typed; numbers and truth values of the file become text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub String);

impl From<String> for Text {
    fn from(text: String) -> Self {
        Text(text)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(i64),
    Flag(bool),
}

impl From<Scalar> for Text {
    fn from(scalar: Scalar) -> Self {
        match scalar {
            Scalar::Text(text) => Text(text),
            Scalar::Number(number) => Text(number.to_string()),
            Scalar::Flag(flag) => Text(flag.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Scalar::deserialize(deserializer).map(Text::from)
    }
}

/// In the file a list may also be one string.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(text) => vec![text],
        OneOrMany::Many(texts) => texts,
    })
}

/// Where the two ends are, and which migration is meant.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Ends {
    /// Connection string of the source: a URI or keyword=value pairs, as libpq
    /// understands them.
    ///
    /// Without it: WALFERRY_SOURCE_PGURI (or the file that
    /// WALFERRY_SOURCE_PGURI_FILE names), PG_URI_SRC, PGCOPYDB_SOURCE_PGURI.
    /// A password on the command line can be seen by every user of the
    /// machine: prefer the variable or ~/.pgpass.
    #[arg(long, value_name = "URI", help_heading = "Connections")]
    pub source: Option<Text>,
    /// Connection string of the target.
    ///
    /// Without it: WALFERRY_TARGET_PGURI (or the file that
    /// WALFERRY_TARGET_PGURI_FILE names), PG_URI_DST, PGCOPYDB_TARGET_PGURI.
    #[arg(long, value_name = "URI", help_heading = "Connections")]
    pub target: Option<Text>,
    /// Name of the migration: slot, publication and state carry it [default: walferry]
    #[arg(long, value_name = "NAME", help_heading = "Connections")]
    pub name: Option<Text>,
    /// Use this replication slot, which exists, and never drop it
    #[arg(long, value_name = "SLOT", help_heading = "Connections")]
    pub slot: Option<Text>,
    /// Use this publication, which exists, and never drop it
    #[arg(long, value_name = "PUBLICATION", help_heading = "Connections")]
    pub publication: Option<Text>,
    /// Read settings from this file [default: ./walferry.toml if it exists]
    #[arg(long, value_name = "FILE", help_heading = "Connections")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// What is moved, and how.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Work {
    /// Only these tables: [schema.]table with * and ?, several by commas
    #[arg(long, value_name = "PATTERN", help_heading = "What is moved")]
    #[serde(deserialize_with = "one_or_many")]
    pub tables: Vec<String>,
    /// Not these tables
    #[arg(long, value_name = "PATTERN", help_heading = "What is moved")]
    #[serde(deserialize_with = "one_or_many")]
    pub exclude_tables: Vec<String>,
    /// Only the tables of these schemas (added to --tables)
    #[arg(long, value_name = "PATTERN", help_heading = "What is moved")]
    #[serde(deserialize_with = "one_or_many")]
    pub schemas: Vec<String>,
    /// Not the tables of these schemas
    #[arg(long, value_name = "PATTERN", help_heading = "What is moved")]
    #[serde(deserialize_with = "one_or_many")]
    pub exclude_schemas: Vec<String>,
    /// Take in these tables, which appeared after the copy: all of their rows
    /// came through the stream
    #[arg(long, value_name = "PATTERN", help_heading = "What is moved")]
    #[serde(deserialize_with = "one_or_many")]
    pub adopt_tables: Vec<String>,
    /// Publish with FOR ALL TABLES, tables to come included [default: the tables
    /// that take part, each by its name]
    ///
    /// Needs a superuser on the source. A table that the application creates
    /// later is published at once: without a primary key or REPLICA IDENTITY its
    /// UPDATE and DELETE fail on the source.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "What is moved")]
    pub all_tables: Option<Text>,
    /// Schema on the target: create, existing (its foreign keys and triggers
    /// are held back) or none (left alone) [default: create]
    #[arg(long, value_name = "MODE", help_heading = "What is moved")]
    pub schema: Option<Text>,
    /// Give objects their owners of the source at the end (catchup --finish)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "What is moved")]
    pub owners: Option<Text>,
    /// Grant the source's privileges at the end
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "What is moved")]
    pub acl: Option<Text>,
    /// Copy no rows: they are on the target already, restored by other means,
    /// as of the beginning of the slot that --slot names (or of --start-lsn)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "What is moved")]
    pub no_copy: Option<Text>,
    /// With --no-copy: the target has exactly the transactions whose commit is
    /// before this point [default: where the slot begins]
    #[arg(long, value_name = "LSN", help_heading = "What is moved")]
    pub start_lsn: Option<Text>,
    /// Copy workers [default: the cores, at most 4]
    #[arg(long, value_name = "N", help_heading = "How")]
    pub jobs: Option<Text>,
    /// Workers that may build indexes at the same time [default: as --jobs]
    #[arg(long, value_name = "N", help_heading = "How")]
    pub index_jobs: Option<Text>,
    /// Memory of each index build, maintenance_work_mem [default: the target's,
    /// 256MiB if that is less]
    #[arg(long, value_name = "SIZE", help_heading = "How")]
    pub index_memory: Option<Text>,
    /// Parallel workers of each index build, max_parallel_maintenance_workers
    /// [default: the target's]
    #[arg(long, value_name = "N", help_heading = "How")]
    pub index_workers: Option<Text>,
    /// Bytes a second at which rows are read from the source at most, all
    /// workers together, for example 50MB [default: no limit]
    #[arg(long, value_name = "SIZE", help_heading = "How")]
    pub copy_rate: Option<Text>,
    /// Larger tables are copied in parts of this size, side by side [default: 256MiB]
    #[arg(long, value_name = "SIZE", help_heading = "How")]
    pub part_size: Option<Text>,
    /// Tables that are not begun by then get a new snapshot, so that the source
    /// can vacuum [default: 30m]
    #[arg(long, value_name = "DURATION", help_heading = "How")]
    pub snapshot_age: Option<Text>,
    /// Warn when the slot holds back this much WAL during the copy [default: half
    /// of max_slot_wal_keep_size where it is set, else 50GiB]
    #[arg(long, value_name = "SIZE", help_heading = "How")]
    pub wal_warn: Option<Text>,
    /// Folder of pg_dump [default: searched in PATH and the usual places]
    #[arg(long, value_name = "FOLDER", help_heading = "How")]
    pub pg_bin: Option<Text>,
    /// How long lost connections are retried, for example 15m or 900s [default: 15m]
    #[arg(long, value_name = "DURATION", help_heading = "How")]
    pub retry_for: Option<Text>,
    /// Row changes gathered into one commit on the target [default: 10000]
    #[arg(long, value_name = "N", help_heading = "How")]
    pub batch_rows: Option<Text>,
    /// Bytes of changes gathered into one commit [default: 16MiB]
    #[arg(long, value_name = "SIZE", help_heading = "How")]
    pub batch_bytes: Option<Text>,
    /// Bytes that may wait between receiving and applying [default: 32MiB]
    #[arg(long, value_name = "SIZE", help_heading = "How")]
    pub queue_bytes: Option<Text>,
    /// Time from one pass over the sequences to the next [default: 30s]
    #[arg(long, value_name = "DURATION", help_heading = "How")]
    pub sequence_interval: Option<Text>,
    /// Values of each sequence that the last pass (catchup) leaves unused [default: 0]
    #[arg(long, value_name = "N", help_heading = "How")]
    pub sequence_margin: Option<Text>,
    /// Pause between two passes over the large objects [default: 30s]
    #[arg(long, value_name = "DURATION", help_heading = "How")]
    pub large_object_interval: Option<Text>,
}

/// Settings of a process that keeps running.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Serve {
    /// Serve /metrics, /livez, /readyz and /status here [default address when
    /// given without one: 127.0.0.1:9187]
    #[arg(long, value_name = "ADDR:PORT", num_args = 0..=1, default_missing_value = "127.0.0.1:9187", help_heading = "How")]
    pub listen: Option<Text>,
}

/// How messages are written.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Logging {
    /// Form of the log on standard error: human or json [default: human]
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Log")]
    pub log_format: Option<Text>,
    /// What is logged: error, warn, info, debug, trace, or directives such as
    /// walferry::apply=debug [default: info]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Log")]
    pub log_level: Option<Text>,
}

/// All settings as typed.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Raw {
    /// The two ends.
    #[serde(flatten)]
    pub ends: Ends,
    /// What is moved, and how.
    #[serde(flatten)]
    pub work: Work,
    /// Settings of a process that keeps running.
    #[serde(flatten)]
    pub serve: Serve,
    /// How messages are written.
    #[serde(flatten)]
    pub logging: Logging,
    /// Keys of the file that nobody knows. (serde cannot combine `flatten` with
    /// `deny_unknown_fields`.)
    #[serde(flatten)]
    unknown: BTreeMap<String, toml::Value>,
}

impl Raw {
    /// Flags as parsed.
    pub fn of_flags(ends: Ends, work: Work, serve: Serve, logging: Logging) -> Self {
        Raw { ends, work, serve, logging, unknown: BTreeMap::new() }
    }

    /// The ends whose password is on the command line, with the variable that
    /// would hide it. To be asked of flags, before they are completed.
    pub fn exposed_passwords(&self) -> Vec<(Side, &'static str)> {
        let exposed = |text: &Option<Text>| text.as_ref().is_some_and(|text| ConnInfo::text_has_password(&text.0));
        let ends = [(Side::Source, exposed(&self.ends.source)), (Side::Target, exposed(&self.ends.target))];
        ends.into_iter().filter(|(_, is_exposed)| *is_exposed).map(|(side, _)| (side, variables(side)[0])).collect()
    }

    /// Completes flags from the environment and the file.
    ///
    /// # Errors
    /// When a file that is named cannot be read, or is not understood.
    pub fn complete(self, env: &Env) -> Result<Raw, ConfigError> {
        let mut raw = self.or(Raw::of_env(env)?);
        let file = match &raw.ends.config {
            Some(path) => Some(path.clone()),
            None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()),
        };
        if let Some(path) = file {
            raw = raw.or(Raw::of_file(&path)?);
        }
        Ok(raw)
    }

    /// Settings of this one, and those of the other where this has none.
    fn or(self, other: Raw) -> Raw {
        let (e, oe, w, ow) = (self.ends, other.ends, self.work, other.work);
        let list = |ours: Vec<String>, theirs: Vec<String>| if ours.is_empty() { theirs } else { ours };
        Raw {
            ends: Ends {
                source: e.source.or(oe.source),
                target: e.target.or(oe.target),
                name: e.name.or(oe.name),
                slot: e.slot.or(oe.slot),
                publication: e.publication.or(oe.publication),
                config: e.config.or(oe.config),
            },
            work: Work {
                tables: list(w.tables, ow.tables),
                exclude_tables: list(w.exclude_tables, ow.exclude_tables),
                schemas: list(w.schemas, ow.schemas),
                exclude_schemas: list(w.exclude_schemas, ow.exclude_schemas),
                adopt_tables: list(w.adopt_tables, ow.adopt_tables),
                all_tables: w.all_tables.or(ow.all_tables),
                schema: w.schema.or(ow.schema),
                owners: w.owners.or(ow.owners),
                acl: w.acl.or(ow.acl),
                no_copy: w.no_copy.or(ow.no_copy),
                start_lsn: w.start_lsn.or(ow.start_lsn),
                jobs: w.jobs.or(ow.jobs),
                index_jobs: w.index_jobs.or(ow.index_jobs),
                index_memory: w.index_memory.or(ow.index_memory),
                index_workers: w.index_workers.or(ow.index_workers),
                copy_rate: w.copy_rate.or(ow.copy_rate),
                part_size: w.part_size.or(ow.part_size),
                snapshot_age: w.snapshot_age.or(ow.snapshot_age),
                wal_warn: w.wal_warn.or(ow.wal_warn),
                pg_bin: w.pg_bin.or(ow.pg_bin),
                retry_for: w.retry_for.or(ow.retry_for),
                batch_rows: w.batch_rows.or(ow.batch_rows),
                batch_bytes: w.batch_bytes.or(ow.batch_bytes),
                queue_bytes: w.queue_bytes.or(ow.queue_bytes),
                sequence_interval: w.sequence_interval.or(ow.sequence_interval),
                sequence_margin: w.sequence_margin.or(ow.sequence_margin),
                large_object_interval: w.large_object_interval.or(ow.large_object_interval),
            },
            serve: Serve { listen: self.serve.listen.or(other.serve.listen) },
            logging: Logging {
                log_format: self.logging.log_format.or(other.logging.log_format),
                log_level: self.logging.log_level.or(other.logging.log_level),
            },
            unknown: BTreeMap::new(),
        }
    }

    fn of_env(env: &Env) -> Result<Raw, ConfigError> {
        let text = |name: &str| env.get(&variable(name)).map(|text| Text(text.to_owned()));
        let list = |name: &str| env.get(&variable(name)).map(str::to_owned).into_iter().collect();
        Ok(Raw {
            ends: Ends {
                source: uri_of_env(env, Side::Source)?,
                target: uri_of_env(env, Side::Target)?,
                name: text("name"),
                slot: text("slot"),
                publication: text("publication"),
                config: env.get(&variable("config")).map(PathBuf::from),
            },
            work: Work {
                tables: list("tables"),
                exclude_tables: list("exclude-tables"),
                schemas: list("schemas"),
                exclude_schemas: list("exclude-schemas"),
                adopt_tables: list("adopt-tables"),
                all_tables: text("all-tables"),
                schema: text("schema"),
                owners: text("owners"),
                acl: text("acl"),
                no_copy: text("no-copy"),
                start_lsn: text("start-lsn"),
                jobs: text("jobs"),
                index_jobs: text("index-jobs"),
                index_memory: text("index-memory"),
                index_workers: text("index-workers"),
                copy_rate: text("copy-rate"),
                part_size: text("part-size"),
                snapshot_age: text("snapshot-age"),
                wal_warn: text("wal-warn"),
                pg_bin: text("pg-bin"),
                retry_for: text("retry-for"),
                batch_rows: text("batch-rows"),
                batch_bytes: text("batch-bytes"),
                queue_bytes: text("queue-bytes"),
                sequence_interval: text("sequence-interval"),
                sequence_margin: text("sequence-margin"),
                large_object_interval: text("large-object-interval"),
            },
            serve: Serve { listen: text("listen") },
            logging: Logging { log_format: text("log-format"), log_level: text("log-level") },
            unknown: BTreeMap::new(),
        })
    }

    fn of_file(path: &Path) -> Result<Raw, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        let wrong = |why: String| ConfigError::Toml { path: path.to_owned(), why };
        let raw: Raw = toml::from_str(&text).map_err(|error| {
            let line = error.span().map(|span| text.get(..span.start).unwrap_or("").lines().count().max(1));
            wrong(match line {
                Some(line) => format!("line {line}: {}", error.message()),
                None => error.message().to_owned(),
            })
        })?;
        match raw.unknown.keys().next() {
            Some(key) => {
                Err(wrong(format!("there is no setting \"{key}\" (settings are named like the flags, without \"--\")")))
            }
            None => Ok(raw),
        }
    }
}

/// A setting's environment variable.
pub(super) fn variable(name: &str) -> String {
    format!("WALFERRY_{}", name.replace('-', "_").to_ascii_uppercase())
}

/// Variables of an end's connection string, in the order they are looked at:
/// ours, a common pair, pgcopydb's.
pub(super) fn variables(side: Side) -> [&'static str; 3] {
    match side {
        Side::Source => ["WALFERRY_SOURCE_PGURI", "PG_URI_SRC", "PGCOPYDB_SOURCE_PGURI"],
        Side::Target => ["WALFERRY_TARGET_PGURI", "PG_URI_DST", "PGCOPYDB_TARGET_PGURI"],
    }
}

/// A connection string of the environment, or of the file that `…_FILE` names:
/// containers get their secrets as files.
fn uri_of_env(env: &Env, side: Side) -> Result<Option<Text>, ConfigError> {
    for name in variables(side) {
        if let Some(text) = env.get(name) {
            return Ok(Some(Text(text.to_owned())));
        }
        if let Some(path) = env.get(&format!("{name}_FILE")) {
            let path = PathBuf::from(path);
            let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::File { path, source })?;
            return Ok(Some(Text(text.trim().to_owned())));
        }
    }
    Ok(None)
}
