//! From what was typed to [`Settings`]: what goes together, and the defaults
//! that depend on something.
//!
//! Invariant: a value that cannot be used is an error that names the place it
//! came from.

use super::conninfo::{Address, Host};
use super::error::ConfigError;
use super::filter::{FilterPatterns, TableFilter};
use super::given::{Values, uri};
use super::publications::{Names, Publications};
use super::settings::connections::{NAME, PUBLICATION, SLOT};
use super::settings::how::{
    BATCH_BYTES, BATCH_ROWS, COPY_RATE, INDEX_JOBS, INDEX_MEMORY, INDEX_WORKERS, JOBS, LARGE_OBJECT_INTERVAL, LISTEN,
    LISTEN_TOKEN, PART_SIZE, PG_BIN, QUEUE_BYTES, RETRY_FOR, SEQUENCE_INTERVAL, SEQUENCE_MARGIN, SNAPSHOT_AGE,
    WAL_WARN,
};
use super::settings::moved::{
    ACL, ADOPT_TABLES, ALL_TABLES, EXCLUDE_SCHEMAS, EXCLUDE_TABLES, NO_COPY, OWNERS, SCHEMA, SCHEMAS, START_LSN, TABLES,
};
use super::settings::value::{ListenToken, Patterns, Switch};
use super::settings::{Optional, Setting};
use super::{
    Baseline, BatchBounds, ConnInfo, Env, IndexResources, Keep, Listen, Origin, Provenance, PublishWhat, SchemaMode,
    Settings, Side,
};

/// Copy workers at most, by default: the source serves an application at the
/// same time.
const DEFAULT_JOBS_AT_MOST: usize = 4;

impl Settings {
    /// Validates what was typed.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that cannot be used.
    pub fn validate(values: &Values, env: &Env) -> Result<Settings, ConfigError> {
        let (source, target) = connections(values, env)?;
        Settings::between(source, target, values)
    }

    /// The settings of a migration between these two.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that cannot be used.
    pub fn between(source: ConnInfo, target: ConnInfo, values: &Values) -> Result<Settings, ConfigError> {
        let baseline = baseline(values)?;
        let name = values.get(&NAME)?.0.into_owned();
        let jobs = values.find(&JOBS)?.unwrap_or_else(default_jobs);
        Ok(Settings {
            source,
            target,
            slot: slot(values, &name)?,
            publications: publications(values, &name, baseline)?,
            publish: publish(values)?,
            name,
            filter: filter(values)?,
            adopt: adopt(values)?,
            schema: schema_mode(values, baseline)?,
            baseline,
            owners: keep(values, &OWNERS)?,
            acl: keep(values, &ACL)?,
            jobs,
            index_jobs: values.find(&INDEX_JOBS)?.unwrap_or(jobs),
            index_resources: IndexResources {
                memory_kib: values.find(&INDEX_MEMORY)?.map(|size| size.as_u64() / 1024),
                workers: values.find(&INDEX_WORKERS)?,
            },
            copy_rate: values.find(&COPY_RATE)?.map(|size| size.as_u64()),
            part_size: values.get(&PART_SIZE)?.as_u64(),
            snapshot_age: values.get(&SNAPSHOT_AGE)?,
            wal_warn: values.find(&WAL_WARN)?.map(|size| size.as_u64()),
            pg_bin: values.find(&PG_BIN)?,
            retry_for: values.get(&RETRY_FOR)?,
            batch: BatchBounds { rows: values.get(&BATCH_ROWS)?, bytes: in_memory(values, &BATCH_BYTES)? },
            queue_bytes: in_memory(values, &QUEUE_BYTES)?,
            large_object_interval: values.get(&LARGE_OBJECT_INTERVAL)?,
            sequence_interval: values.get(&SEQUENCE_INTERVAL)?,
            sequence_margin: values.get(&SEQUENCE_MARGIN)?,
            listen: listen(values)?,
        })
    }
}

fn connections(values: &Values, env: &Env) -> Result<(ConnInfo, ConnInfo), ConfigError> {
    let parse = |side: Side| match values.find(uri(side))? {
        Some(text) => ConnInfo::parse(side, &text.0, env),
        None => Err(ConfigError::Missing { side, variable: uri(side).about.variable() }),
    };
    let source = parse(Side::Source)?;
    let target = parse(Side::Target)?;
    let same_place = source.hosts.iter().any(|a| target.hosts.iter().any(|b| is_same_place(a, b)));
    if same_place && source.dbname == target.dbname {
        return Err(ConfigError::SameDatabase(source.to_string()));
    }
    Ok((source, target))
}

fn is_same_place(a: &Host, b: &Host) -> bool {
    let same = match (&a.address, &b.address) {
        (Address::Unix(a), Address::Unix(b)) => a == b,
        (Address::Tcp { host: a, hostaddr: None }, Address::Tcp { host: b, hostaddr: None }) => {
            a.eq_ignore_ascii_case(b)
        }
        (Address::Tcp { hostaddr: Some(a), .. }, Address::Tcp { hostaddr: Some(b), .. }) => a == b,
        _ => false,
    };
    same && a.port == b.port
}

fn slot(values: &Values, name: &str) -> Result<Provenance, ConfigError> {
    Ok(match values.find(&SLOT)? {
        Some(slot) => Provenance::Existing(slot.0.into_owned()),
        None => Provenance::Ours(name.to_owned()),
    })
}

/// A slot that exists decodes with a publication that is older than it.
fn publications(values: &Values, name: &str, baseline: Baseline) -> Result<Publications, ConfigError> {
    Ok(match (values.find(&PUBLICATION)?, baseline) {
        (Some(names), _) => Publications::Existing(names),
        (None, Baseline::Restored { .. }) => Publications::Existing(Names::of(name)),
        (None, Baseline::Copied) => Publications::Ours(name.to_owned()),
    })
}

fn publish(values: &Values) -> Result<PublishWhat, ConfigError> {
    match (values.get(&ALL_TABLES)?, values.find(&PUBLICATION)?) {
        (Switch::Off, _) => Ok(PublishWhat::Listed),
        (Switch::On, None) => Ok(PublishWhat::AllTables),
        (Switch::On, Some(_)) => {
            let why = "does not go with --publication: one that exists holds what it holds";
            Err(ConfigError::Together { from: values.origin(&ALL_TABLES), why })
        }
    }
}

fn filter(values: &Values) -> Result<TableFilter, ConfigError> {
    let filter = TableFilter::parse(&FilterPatterns {
        tables: patterns(values, &TABLES)?,
        exclude_tables: patterns(values, &EXCLUDE_TABLES)?,
        schemas: patterns(values, &SCHEMAS)?,
        exclude_schemas: patterns(values, &EXCLUDE_SCHEMAS)?,
    });
    placed(values, filter)
}

fn adopt(values: &Values) -> Result<TableFilter, ConfigError> {
    placed(values, TableFilter::only(ADOPT_TABLES.about.name, &patterns(values, &ADOPT_TABLES)?))
}

/// A filter, or its error, that knows where its patterns were given.
fn placed(values: &Values, filter: Result<TableFilter, ConfigError>) -> Result<TableFilter, ConfigError> {
    match filter {
        Ok(filter) => Ok(filter.placed(|name| values.origin_of(name))),
        Err(ConfigError::Pattern { from: Origin::Flag(name), pattern, why }) => {
            Err(ConfigError::Pattern { from: values.origin_of(name), pattern, why })
        }
        Err(other) => Err(other),
    }
}

fn patterns(values: &Values, setting: &Optional<Patterns>) -> Result<Vec<String>, ConfigError> {
    Ok(values.find(setting)?.map(|patterns| patterns.0).unwrap_or_default())
}

fn schema_mode(values: &Values, baseline: Baseline) -> Result<SchemaMode, ConfigError> {
    let otherwise = if baseline == Baseline::Copied { SchemaMode::Create } else { SchemaMode::Existing };
    let mode = values.find(&SCHEMA)?.unwrap_or(otherwise);
    if mode == SchemaMode::Create && baseline != Baseline::Copied {
        let why = "goes with --schema existing or none: tables that have their rows are there already";
        return Err(ConfigError::Together { from: values.origin(&NO_COPY), why });
    }
    Ok(mode)
}

fn baseline(values: &Values) -> Result<Baseline, ConfigError> {
    match (values.get(&NO_COPY)?, values.find(&START_LSN)?, values.find(&SLOT)?) {
        (Switch::On, _, None) => {
            let why = "needs --slot: the changes since the rows were taken are in a slot that was created before that";
            Err(ConfigError::Together { from: values.origin(&NO_COPY), why })
        }
        (Switch::On, start, Some(_)) => Ok(Baseline::Restored { start }),
        (Switch::Off, Some(_), _) => {
            let why = "needs --no-copy: a copy has its own beginning";
            Err(ConfigError::Together { from: values.origin(&START_LSN), why })
        }
        (Switch::Off, None, _) => Ok(Baseline::Copied),
    }
}

fn keep(values: &Values, setting: &Setting<Switch>) -> Result<Keep, ConfigError> {
    Ok(match values.get(setting)? {
        Switch::On => Keep::Yes,
        Switch::Off => Keep::No,
    })
}

/// A token alone listens nowhere: one file serves several ways to start.
fn listen(values: &Values) -> Result<Option<Listen>, ConfigError> {
    let said = values.find(&LISTEN_TOKEN)?.map(ListenToken::audience);
    let Some(address) = values.find(&LISTEN)? else { return Ok(None) };
    let why = "names an address that other machines can reach: say who is served there, by a token that requests carry \
               (WALFERRY_LISTEN_TOKEN, or the file that WALFERRY_LISTEN_TOKEN_FILE names), or with --listen-token none \
               everybody; or listen on 127.0.0.1";
    let refused = || ConfigError::Together { from: values.origin(&LISTEN), why };
    Listen::new(address, said).ok_or_else(refused).map(Some)
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(DEFAULT_JOBS_AT_MOST)
}

/// Bytes that are held in memory. More than fits an address is no bound, and so
/// is the greatest address.
fn in_memory(values: &Values, setting: &Setting<bytesize::ByteSize>) -> Result<usize, ConfigError> {
    Ok(usize::try_from(values.get(setting)?.as_u64()).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests;
