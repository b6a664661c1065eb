//! From what was typed to [`Settings`]: meaning, defaults, limits.
//!
//! Invariant: a value that cannot be used is an error that names flag and
//! variable; nothing is rounded or clamped in silence.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::conninfo::{Address, Host};
use super::error::ConfigError;
use super::filter::{FilterPatterns, TableFilter};
use super::raw::{Ends, Raw, Text, Work, variable, variables};
use super::{
    Baseline, BatchBounds, ConnInfo, Env, IndexResources, Keep, Provenance, PublishWhat, SchemaMode, Settings, Side,
};

/// Slot, publication, state, lease and application_name without `--name`.
const DEFAULT_NAME: &str = "walferry";

/// Bytes of a name: it is a part of names of at most 63 (NAMEDATALEN - 1),
/// some of which get a suffix.
const LONGEST_NAME_BYTES: usize = 40;

/// Copy workers at most, by default: the source serves an application at the
/// same time.
const DEFAULT_JOBS_AT_MOST: usize = 4;

/// Copy workers at most: every one holds a connection on both sides.
const MOST_JOBS: usize = 128;

/// `MAX_PARALLEL_WORKER_LIMIT` in `src/include/postmaster/bgworker_internals.h`.
const MOST_PARALLEL_WORKERS: u32 = 1024;

/// Long enough for a failover or a restart of a managed server.
const DEFAULT_RETRY_FOR: Duration = Duration::from_secs(15 * 60);

/// Rows a batch: beyond this a larger batch hardly gains throughput and costs
/// memory and latency.
const DEFAULT_BATCH_ROWS: usize = 10_000;

/// Bytes a batch.
const DEFAULT_BATCH_BYTES: usize = 16 * 1024 * 1024;

/// Two batches: one is applied while the next gathers.
const DEFAULT_QUEUE_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of a part: copied in seconds to minutes, so that workers stay evenly
/// busy to the end, and large beside what a statement of its own costs.
const DEFAULT_PART_BYTES: usize = 256 * 1024 * 1024;

/// Long enough for all tables of most databases; a source that is written to
/// for longer than this without VACUUM begins to bloat.
const DEFAULT_SNAPSHOT_AGE: Duration = Duration::from_secs(30 * 60);

/// Sequences are exact at the end anyway; until then a pass is one query.
const DEFAULT_SEQUENCE_INTERVAL: Duration = Duration::from_secs(30);

/// Large objects that rows name are carried at once, and all are exact at the
/// end; the pauses bound how much is left for then.
const DEFAULT_LARGE_OBJECT_INTERVAL: Duration = Duration::from_secs(30);

impl Settings {
    /// Validates what was typed.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that cannot be used.
    pub fn validate(raw: Raw, env: &Env) -> Result<Settings, ConfigError> {
        let Raw { ends, work, serve, .. } = raw;
        let (source, target) = connections(&ends, env)?;
        let baseline = baseline(&work, &ends)?;
        let publish = publish(&work, &ends)?;
        let name = name(ends.name)?;
        let jobs = jobs("jobs", work.jobs.as_ref(), default_jobs())?;
        Ok(Settings {
            source,
            target,
            slot: object("slot", ends.slot, &name)?,
            publish,
            publication: publication(ends.publication, &name, baseline),
            name,
            filter: TableFilter::parse(&FilterPatterns {
                tables: work.tables.clone(),
                exclude_tables: work.exclude_tables.clone(),
                schemas: work.schemas.clone(),
                exclude_schemas: work.exclude_schemas.clone(),
            })?,
            adopt: TableFilter::only("adopt-tables", &work.adopt_tables)?,
            schema: schema_mode(work.schema.as_ref(), baseline)?,
            baseline,
            owners: keep("owners", work.owners.as_ref())?,
            acl: keep("acl", work.acl.as_ref())?,
            jobs,
            index_jobs: self::jobs("index-jobs", work.index_jobs.as_ref(), jobs)?,
            index_resources: IndexResources {
                memory_kib: optional_size("index-memory", work.index_memory.as_ref())?.map(|bytes| bytes / 1024),
                workers: index_workers(work.index_workers.as_ref())?,
            },
            copy_rate: optional_size("copy-rate", work.copy_rate.as_ref())?,
            part_size: bytes(size("part-size", work.part_size.as_ref(), DEFAULT_PART_BYTES)?),
            snapshot_age: snapshot_age(work.snapshot_age.as_ref())?,
            wal_warn: optional_size("wal-warn", work.wal_warn.as_ref())?,
            pg_bin: work.pg_bin.as_ref().map(|text| PathBuf::from(&text.0)),
            retry_for: duration("retry-for", work.retry_for.as_ref(), DEFAULT_RETRY_FOR)?,
            batch: batch(&work)?,
            queue_bytes: size("queue-bytes", work.queue_bytes.as_ref(), DEFAULT_QUEUE_BYTES)?,
            large_object_interval: duration(
                "large-object-interval",
                work.large_object_interval.as_ref(),
                DEFAULT_LARGE_OBJECT_INTERVAL,
            )?,
            sequence_interval: sequence_interval(work.sequence_interval.as_ref())?,
            sequence_margin: match &work.sequence_margin {
                Some(text) => text.0.trim().parse().map_err(|_| wrong("sequence-margin", "a number from 0", text))?,
                None => 0,
            },
            listen: listen(serve.listen)?,
        })
    }
}

fn connections(ends: &Ends, env: &Env) -> Result<(ConnInfo, ConnInfo), ConfigError> {
    let parse = |side: Side, text: &Option<Text>| match text {
        Some(text) => ConnInfo::parse(side, &text.0, env),
        None => Err(ConfigError::Missing { side, variable: variables(side)[0] }),
    };
    let source = parse(Side::Source, &ends.source)?;
    let target = parse(Side::Target, &ends.target)?;
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

fn wrong(name: &'static str, expected: &'static str, found: &Text) -> ConfigError {
    ConfigError::Setting { name, variable: variable(name), expected, found: found.0.clone() }
}

fn name(text: Option<Text>) -> Result<String, ConfigError> {
    let text = text.unwrap_or_else(|| Text(DEFAULT_NAME.to_owned()));
    check_slot_letters("name", &text, LONGEST_NAME_BYTES, "1 to 40 of the letters a-z, 0-9 and _")?;
    Ok(text.0)
}

/// Letters of a slot's name (`ReplicationSlotValidateName` in slot.c).
fn check_slot_letters(
    flag: &'static str,
    text: &Text,
    longest: usize,
    expected: &'static str,
) -> Result<(), ConfigError> {
    let plain = text.0.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if plain && (1..=longest).contains(&text.0.len()) { Ok(()) } else { Err(wrong(flag, expected, text)) }
}

fn object(flag: &'static str, given: Option<Text>, name: &str) -> Result<Provenance, ConfigError> {
    let Some(given) = given else { return Ok(Provenance::Ours(name.to_owned())) };
    check_slot_letters(flag, &given, 63, "1 to 63 of the letters a-z, 0-9 and _")?;
    Ok(Provenance::Existing(given.0))
}

/// A slot that exists decodes with a publication that is older than it.
fn publication(given: Option<Text>, name: &str, baseline: Baseline) -> Provenance {
    match (given, baseline) {
        (Some(text), _) => Provenance::Existing(text.0),
        (None, Baseline::Restored { .. }) => Provenance::Existing(name.to_owned()),
        (None, Baseline::Copied) => Provenance::Ours(name.to_owned()),
    }
}

fn publish(work: &Work, ends: &Ends) -> Result<PublishWhat, ConfigError> {
    match (truth("all-tables", work.all_tables.as_ref())?, &ends.publication) {
        (false, _) => Ok(PublishWhat::Listed),
        (true, None) => Ok(PublishWhat::AllTables),
        (true, Some(_)) => {
            let why = "does not go with --publication: one that exists holds what it holds";
            Err(ConfigError::Together { name: "all-tables", why })
        }
    }
}

fn schema_mode(text: Option<&Text>, baseline: Baseline) -> Result<SchemaMode, ConfigError> {
    let mode = match text {
        None if baseline == Baseline::Copied => SchemaMode::Create,
        None => SchemaMode::Existing,
        Some(text) => <SchemaMode as clap::ValueEnum>::from_str(&text.0, false)
            .map_err(|_| wrong("schema", "create, existing or none", text))?,
    };
    if mode == SchemaMode::Create && baseline != Baseline::Copied {
        let why = "goes with --schema existing or none: tables that have their rows are there already";
        return Err(ConfigError::Together { name: "no-copy", why });
    }
    Ok(mode)
}

fn baseline(work: &Work, ends: &Ends) -> Result<Baseline, ConfigError> {
    let is_restored = truth("no-copy", work.no_copy.as_ref())?;
    let start = match &work.start_lsn {
        None => None,
        Some(text) => Some(text.0.parse().map_err(|_| wrong("start-lsn", "an LSN such as 16/B374D848", text))?),
    };
    match (is_restored, start, &ends.slot) {
        (true, _, None) => {
            let why = "needs --slot: the changes since the rows were taken are in a slot that was created before that";
            Err(ConfigError::Together { name: "no-copy", why })
        }
        (true, start, Some(_)) => Ok(Baseline::Restored { start }),
        (false, Some(_), _) => {
            Err(ConfigError::Together { name: "start-lsn", why: "needs --no-copy: a copy has its own beginning" })
        }
        (false, None, _) => Ok(Baseline::Copied),
    }
}

fn keep(flag: &'static str, text: Option<&Text>) -> Result<Keep, ConfigError> {
    Ok(if truth(flag, text)? { Keep::Yes } else { Keep::No })
}

/// A switch: off unless it is given.
fn truth(flag: &'static str, text: Option<&Text>) -> Result<bool, ConfigError> {
    let Some(text) = text else { return Ok(false) };
    match text.0.as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(wrong(flag, "true or false", text)),
    }
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(DEFAULT_JOBS_AT_MOST)
}

fn jobs(flag: &'static str, text: Option<&Text>, default: usize) -> Result<usize, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    let accepted = text.0.parse().ok().filter(|jobs| (1..=MOST_JOBS).contains(jobs));
    accepted.ok_or_else(|| wrong(flag, "a number from 1 to 128", text))
}

fn index_workers(text: Option<&Text>) -> Result<Option<u32>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let accepted = text.0.parse().ok().filter(|workers| *workers <= MOST_PARALLEL_WORKERS);
    accepted.map(Some).ok_or_else(|| wrong("index-workers", "a number from 0 to 1024", text))
}

fn batch(work: &Work) -> Result<BatchBounds, ConfigError> {
    let rows = match work.batch_rows.as_ref() {
        None => DEFAULT_BATCH_ROWS,
        Some(text) => {
            let accepted = text.0.parse().ok().filter(|rows| *rows > 0);
            accepted.ok_or_else(|| wrong("batch-rows", "a number from 1", text))?
        }
    };
    Ok(BatchBounds { rows, bytes: size("batch-bytes", work.batch_bytes.as_ref(), DEFAULT_BATCH_BYTES)? })
}

/// A human duration; a bare number is one of seconds.
fn duration(flag: &'static str, text: Option<&Text>, default: Duration) -> Result<Duration, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    let seconds = text.0.trim().parse().map(Duration::from_secs);
    seconds
        .or_else(|_| humantime::parse_duration(text.0.trim()))
        .map_err(|_| wrong(flag, "a duration such as 15m, 900s or 250ms", text))
}

/// Passes more often than this would do nothing but that.
fn sequence_interval(text: Option<&Text>) -> Result<Duration, ConfigError> {
    const LEAST: Duration = Duration::from_millis(100);
    let interval = duration("sequence-interval", text, DEFAULT_SEQUENCE_INTERVAL)?;
    match text {
        Some(text) if interval < LEAST => {
            Err(wrong("sequence-interval", "a duration of at least 100ms, such as 30s", text))
        }
        _ => Ok(interval),
    }
}

/// A snapshot costs a slot's creation and a look at all tables: not more often
/// than once a second; and a day of WAL and dead rows is more than any source
/// should bear.
fn snapshot_age(text: Option<&Text>) -> Result<Duration, ConfigError> {
    const BOUNDS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
    let age = duration("snapshot-age", text, DEFAULT_SNAPSHOT_AGE)?;
    match text {
        Some(text) if !BOUNDS.contains(&age) => {
            Err(wrong("snapshot-age", "a duration from 1s to 24h, such as 30m", text))
        }
        _ => Ok(age),
    }
}

/// A human size; 1MiB is the least that a stream of rows can be worked in.
fn size(flag: &'static str, text: Option<&Text>, default: usize) -> Result<usize, ConfigError> {
    const LEAST_BYTES: usize = 1024 * 1024;
    let Some(text) = text else { return Ok(default) };
    let size = text.0.trim().parse::<bytesize::ByteSize>().ok().and_then(|size| usize::try_from(size.as_u64()).ok());
    size.filter(|size| *size >= LEAST_BYTES).ok_or_else(|| wrong(flag, "a size of at least 1MiB, such as 16MiB", text))
}

fn optional_size(flag: &'static str, text: Option<&Text>) -> Result<Option<u64>, ConfigError> {
    match text {
        Some(text) => Ok(Some(bytes(size(flag, Some(text), 0)?))),
        None => Ok(None),
    }
}

fn bytes(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

fn listen(text: Option<Text>) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let address = text.0.parse().map_err(|_| wrong("listen", "an address and port such as 127.0.0.1:9187", &text))?;
    Ok(Some(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::{Logging, Serve};

    fn env() -> Env {
        Env::empty()
            .with_user("me")
            .with("WALFERRY_SOURCE_PGURI", "postgres://a/x")
            .with("PG_URI_DST", "postgres://b/x")
    }

    fn settings(work: Work, env: &Env) -> Result<Settings, ConfigError> {
        let raw = Raw::of_flags(Ends::default(), work, Serve::default(), Logging::default());
        Settings::validate(raw.complete(env)?, env)
    }

    fn text(text: &str) -> Option<Text> {
        Some(Text(text.to_owned()))
    }

    #[test]
    fn defaults_are_those_of_the_help() {
        let settings = settings(Work::default(), &env()).unwrap();
        assert_eq!(settings.slot, Provenance::Ours("walferry".into()));
        assert_eq!(settings.publication, Provenance::Ours("walferry".into()));
        assert_eq!((settings.retry_for.as_secs(), settings.batch.rows), (900, 10_000));
        assert_eq!((settings.batch.bytes, settings.queue_bytes), (16 << 20, 32 << 20));
        assert_eq!((settings.part_size, settings.wal_warn), (256 << 20, None));
        assert_eq!((settings.index_jobs, settings.copy_rate), (settings.jobs, None));
        assert_eq!(settings.index_resources, IndexResources::default());
        assert!((1..=4).contains(&settings.jobs) && settings.listen.is_none() && settings.filter.is_empty());
        assert_eq!(settings.target.to_string(), "me@b:5432/x");
    }

    #[test]
    fn sequences_are_not_looked_at_without_pause_and_a_margin_is_a_number() {
        let of = |interval: &str, margin: &str| {
            let work = Work { sequence_interval: text(interval), sequence_margin: text(margin), ..Work::default() };
            settings(work, &env()).map(|settings| (settings.sequence_interval.as_millis(), settings.sequence_margin))
        };
        assert_eq!(of("100ms", "1000").unwrap(), (100, 1000));
        for (interval, margin) in [("0", "0"), ("99ms", "0"), ("1s", "-1"), ("1s", "many"), ("1s", "1.5")] {
            let error = of(interval, margin).unwrap_err().to_string();
            assert!(error.contains("sequence-") && error.contains("WALFERRY_SEQUENCE_"), "{error}");
        }
    }

    #[test]
    fn a_publication_of_all_tables_is_asked_for_and_never_another_s() {
        let of = |publication: Option<Text>, all_tables: Option<Text>| {
            let ends = Ends { publication, ..Ends::default() };
            let raw = Raw::of_flags(ends, Work { all_tables, ..Work::default() }, Serve::default(), Logging::default());
            Settings::validate(raw.complete(&env()).unwrap(), &env()).map(|settings| settings.publish)
        };
        assert_eq!(of(None, None).unwrap(), PublishWhat::Listed);
        assert_eq!(of(None, text("true")).unwrap(), PublishWhat::AllTables);
        assert_eq!(of(text("theirs"), text("false")).unwrap(), PublishWhat::Listed);
        let error = of(text("theirs"), text("true")).unwrap_err().to_string();
        assert!(error.contains("--all-tables does not go with --publication"), "{error}");
    }

    #[test]
    fn a_snapshot_is_turned_over_after_a_second_at_least_and_a_day_at_most() {
        let of = |age: Option<Text>| {
            settings(Work { snapshot_age: age, ..Work::default() }, &env()).map(|settings| settings.snapshot_age)
        };
        assert_eq!(of(None).unwrap(), Duration::from_secs(1800));
        assert_eq!(of(text("24h")).unwrap(), Duration::from_secs(86_400));
        for wrong in ["999ms", "25h", "0", "soon"] {
            let error = of(text(wrong)).unwrap_err().to_string();
            assert!(error.contains("--snapshot-age (or WALFERRY_SNAPSHOT_AGE)"), "{error}");
        }
    }

    #[test]
    fn flag_goes_over_environment_goes_over_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.toml");
        std::fs::write(
            &path,
            "jobs = 3\nbatch-rows = 7\nretry-for = \"1m\"\ntables = [\"a\", \"b\"]\nschemas = \"s\"\n",
        )
        .unwrap();
        let env = env()
            .with("WALFERRY_CONFIG", path.to_str().unwrap())
            .with("WALFERRY_JOBS", "5")
            .with("WALFERRY_BATCH_ROWS", "8");
        let settings = settings(Work { jobs: text("9"), ..Work::default() }, &env).unwrap();
        assert_eq!((settings.jobs, settings.batch.rows, settings.retry_for.as_secs()), (9, 8, 60));
        assert!(settings.filter.includes(&crate::sql::TableName::new("x", "b")));
        assert!(settings.filter.includes(&crate::sql::TableName::new("s", "c")));
        assert!(!settings.filter.includes(&crate::sql::TableName::new("x", "c")));
    }

    #[test]
    fn a_key_nobody_knows_and_a_wrong_type_are_errors_that_quote_no_value() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.toml");
        for (content, part) in
            [("job = 3\n", "\"job\""), ("\nsource = [\"hunter2\"]\n", "w.toml"), ("source = \"hunter2", "line 1")]
        {
            std::fs::write(&path, content).unwrap();
            let error = settings(Work::default(), &env().with("WALFERRY_CONFIG", path.to_str().unwrap()))
                .unwrap_err()
                .to_string();
            assert!(error.contains(part) && !error.contains("hunter2"), "{error}");
        }
        let missing = settings(Work::default(), &env().with("WALFERRY_CONFIG", "/nonexistent.toml"));
        assert!(matches!(missing, Err(ConfigError::File { .. })));
    }

    #[test]
    fn a_connection_string_can_come_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "postgres://u:p@filehost/x\n").unwrap();
        let env = Env::empty()
            .with_user("me")
            .with("WALFERRY_TARGET_PGURI_FILE", path.to_str().unwrap())
            .with("PGCOPYDB_SOURCE_PGURI", "host=c");
        let settings = settings(Work::default(), &env).unwrap();
        assert_eq!(settings.target.to_string(), "u@filehost:5432/x");
        assert_eq!(settings.source.to_string(), "me@c:5432/me");
    }

    #[test]
    fn a_migration_onto_itself_is_refused() {
        for (source, target, same) in [
            ("postgres://H/x", "postgres://u@h:5432/x", true),
            ("postgres://h/x", "postgres://h/y", false),
            ("postgres://h/x", "postgres://h:5433/x", false),
            ("postgres://a,h/x", "postgres://h/x", true),
        ] {
            let env = env().with("WALFERRY_SOURCE_PGURI", source).with("WALFERRY_TARGET_PGURI", target);
            let outcome = settings(Work::default(), &env);
            assert_eq!(matches!(outcome, Err(ConfigError::SameDatabase(_))), same, "{source} {target}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_used_names_flag_and_variable() {
        let cases: [(Work, &str); 9] = [
            (
                Work { jobs: text("0"), ..Work::default() },
                "--jobs (or WALFERRY_JOBS) must be a number from 1 to 128, not \"0\"",
            ),
            (Work { index_jobs: text("0"), ..Work::default() }, "--index-jobs (or WALFERRY_INDEX_JOBS)"),
            (Work { index_workers: text("-1"), ..Work::default() }, "a number from 0 to 1024"),
            (Work { copy_rate: text("fast"), ..Work::default() }, "--copy-rate"),
            (Work { retry_for: text("soon"), ..Work::default() }, "--retry-for"),
            (Work { batch_bytes: text("12"), ..Work::default() }, "at least 1MiB"),
            (Work { schema: text("drop"), ..Work::default() }, "create, existing or none"),
            (Work { batch_rows: text("-1"), ..Work::default() }, "WALFERRY_BATCH_ROWS"),
            (Work { tables: vec!["a.b.c".into()], ..Work::default() }, "--tables"),
        ];
        for (work, part) in cases {
            let error = settings(work, &env()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        for name in ["", "Upper", "a-b", &"x".repeat(41)] {
            let raw = Raw::of_flags(
                Ends { name: text(name), ..Ends::default() },
                Work::default(),
                Serve::default(),
                Logging::default(),
            );
            assert!(Settings::validate(raw.complete(&env()).unwrap(), &env()).is_err(), "{name}");
        }
        assert!(matches!(
            settings(Work::default(), &Env::empty()),
            Err(ConfigError::Missing { side: Side::Source, .. })
        ));
    }

    #[test]
    fn gentleness_is_read_as_it_is_written() {
        let work = Work {
            jobs: text("8"),
            index_memory: text("1GiB"),
            index_workers: text("0"),
            copy_rate: text("50MB"),
            ..Work::default()
        };
        let settings = settings(work, &env()).unwrap();
        assert_eq!((settings.index_jobs, settings.copy_rate), (8, Some(50_000_000)));
        assert_eq!(settings.index_resources, IndexResources { memory_kib: Some(1 << 20), workers: Some(0) });
    }

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        for (given, seconds) in [("900", 900), ("15m", 900), ("1h 30m", 5400), ("1d", 86_400)] {
            assert_eq!(duration("retry-for", text(given).as_ref(), Duration::ZERO).unwrap().as_secs(), seconds);
        }
        for (given, bytes) in [("16MiB", 16 << 20), ("2000000", 2_000_000), ("32 MB", 32_000_000), ("1GiB", 1 << 30)] {
            assert_eq!(size("batch-bytes", text(given).as_ref(), 0).unwrap(), bytes, "{given}");
        }
    }
}
