//! Who copies: a raw pipe, walferry, a native subscription, pgcopydb.
//!
//! Invariant: the time runs from an empty database until all rows and keys are
//! there, the schema included with those who bring it over (walferry and
//! pgcopydb); raw pipe and subscription find it made. A target that is not
//! equal to the source then makes the run void.

use std::collections::BTreeMap;
use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use walferry::demo::cluster::Cluster;

use crate::error::BenchError;
use crate::options::Options;
use crate::process::{Group, Process, Used};
use crate::servers::{DATABASE, LIMIT, Servers, TARGET_ROLE, through, without_settings};

/// On the target: what a run writes to.
const RUN: &str = "bench_run";

/// Pause between two looks whether native synchronisation is through.
const POLL: Duration = Duration::from_millis(5);

/// The tool, and what its processes and files are called by.
const PGCOPYDB: &str = "pgcopydb";

/// Where a slow link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Between source and walferry: walferry runs beside the target.
    Source,
    /// Between walferry and target: walferry runs beside the source.
    Target,
}

/// Who copies.
#[derive(Clone, Debug)]
pub enum Contender {
    /// A pair of psql for each table in turn, binary, then the keys: the yardstick.
    Raw,
    /// One pair of psql for all tables: what small tables cost without a
    /// connection for each. It has to be text.
    RawText,
    /// walferry.
    Walferry,
    /// walferry with a proxy on this port, of this round-trip time, in between.
    WalferryOver {
        /// Where.
        place: Place,
        /// How slow.
        rtt: Duration,
        /// The proxy's port.
        port: u16,
    },
    /// CREATE SUBSCRIPTION with copy_data, into tables that have their keys.
    Native,
    /// `pgcopydb clone`.
    Pgcopydb,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// How long it took.
    pub seconds: f64,
    /// What the contender used, where it is one process.
    pub used: Option<Used>,
}

impl Contender {
    /// Its name in tables.
    pub fn name(&self) -> String {
        match self {
            Contender::Raw => "raw".to_owned(),
            Contender::RawText => "raw, one pipe of text".to_owned(),
            Contender::Walferry => "walferry".to_owned(),
            Contender::WalferryOver { place, rtt, .. } => {
                let place = if *place == Place::Source { "source" } else { "target" };
                format!("walferry, {} ms to the {place}", rtt.as_millis())
            }
            Contender::Native => "native".to_owned(),
            Contender::Pgcopydb => PGCOPYDB.to_owned(),
        }
    }

    /// Copies once.
    pub fn run(
        &self,
        servers: &Servers,
        options: &Options,
        expected: &BTreeMap<String, String>,
    ) -> Result<Run, BenchError> {
        fresh(servers)?;
        let (mut source, mut target) = (servers.source_uri(), servers.target_uri(RUN));
        let run = match self {
            Contender::Raw => raw(servers, binary_pipes),
            Contender::RawText => raw(servers, text_pipe),
            Contender::Walferry => walferry(servers, options, &source, &target),
            Contender::WalferryOver { place, port, .. } => {
                match place {
                    Place::Source => source = through(&source, servers.source.port(), *port),
                    Place::Target => target = through(&target, servers.target.port(), *port),
                }
                walferry(servers, options, &source, &target)
            }
            Contender::Native => native(servers),
            Contender::Pgcopydb => pgcopydb(servers, options),
        }?;
        compare(servers, expected)?;
        Ok(run)
    }
}

/// An empty database on the target, nothing of an earlier run on the source,
/// both sides checkpointed.
fn fresh(servers: &Servers) -> Result<(), BenchError> {
    let target = servers.sql(&servers.target, "postgres")?;
    end_native(servers)?;
    target.run(&format!("DROP DATABASE IF EXISTS {RUN} WITH (FORCE)"))?;
    target.run(&format!("CREATE DATABASE {RUN} OWNER {TARGET_ROLE}"))?;
    servers.drop_slot("walferry")?;
    let source = servers.sql(&servers.source, DATABASE)?;
    source.run("DROP PUBLICATION IF EXISTS walferry; DROP PUBLICATION IF EXISTS native")?;
    source.run("CHECKPOINT")?;
    target.run("CHECKPOINT")
}

/// Removes the databases.
pub fn clear(servers: &Servers) -> Result<(), BenchError> {
    end_native(servers)?;
    servers.drop_slot("walferry")?;
    for (cluster, database) in [(&servers.target, RUN), (&servers.source, DATABASE)] {
        servers.sql(cluster, "postgres")?.run(&format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"))?;
    }
    Ok(())
}

fn psql(servers: &Servers, uri: &str) -> Command {
    let mut command = Command::new(servers.program("psql"));
    without_settings(&mut command);
    command.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", uri]);
    command
}

/// The schema of the source, or a section of it.
fn schema(servers: &Servers, arguments: &[&str]) -> Result<String, BenchError> {
    let mut command = Command::new(servers.program("pg_dump"));
    without_settings(&mut command);
    command.args(["--schema-only", "--no-owner", "--no-publications"]).args(arguments);
    command.args(["--dbname", &servers.source_uri()]);
    let output = command.output().map_err(BenchError::io("start pg_dump"))?;
    if !output.status.success() {
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(BenchError::Process { what: "pg_dump".to_owned(), log });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a script on the target as its role.
fn on_target(servers: &Servers, script: &str) -> Result<(), BenchError> {
    let folder = tempfile::tempdir().map_err(BenchError::io("create a folder"))?;
    let file = folder.path().join("script.sql");
    std::fs::write(&file, script).map_err(BenchError::io("write a script"))?;
    let mut command = psql(servers, &servers.target_uri(RUN));
    command.arg("--file").arg(&file);
    Process::start("psql", command)?.finish(LIMIT).map(drop)
}

fn raw(servers: &Servers, rows: fn(&Servers, &[String]) -> Result<(), BenchError>) -> Result<Run, BenchError> {
    on_target(servers, &schema(servers, &["--section=pre-data"])?)?;
    let keys = schema(servers, &["--section=post-data"])?;
    let tables = servers.sql(&servers.source, DATABASE)?.rows(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' \
         ORDER BY relpages DESC",
    )?;
    let tables: Vec<String> = tables.into_iter().flatten().map(|table| format!("public.{table}")).collect();
    let begun = Instant::now();
    rows(servers, &tables)?;
    on_target(servers, &keys)?;
    Ok(Run { seconds: begun.elapsed().as_secs_f64(), used: None })
}

fn binary_pipes(servers: &Servers, tables: &[String]) -> Result<(), BenchError> {
    tables.iter().try_for_each(|table| {
        let mut source = psql(servers, &servers.source_uri());
        source.args(["--command", &format!("COPY {table} TO STDOUT (FORMAT binary)")]);
        let mut target = psql(servers, &servers.target_uri(RUN));
        target.args(["--command", &format!("COPY {table} FROM STDIN (FORMAT binary)")]);
        pipe(source, target)
    })
}

/// The source's psql writes a script with the rows in it.
fn text_pipe(servers: &Servers, tables: &[String]) -> Result<(), BenchError> {
    let mut source = psql(servers, &servers.source_uri());
    for table in tables {
        source.args(["--command", &format!("\\echo COPY {table} FROM STDIN;")]);
        source.args(["--command", &format!("COPY {table} TO STDOUT")]);
        source.args(["--command", r"\echo '\\.'"]);
    }
    pipe(source, psql(servers, &servers.target_uri(RUN)))
}

fn pipe(mut source: Command, mut target: Command) -> Result<(), BenchError> {
    let started = BenchError::io("start psql");
    let mut reader =
        source.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(BenchError::io("start psql"))?;
    let rows = reader.stdout.take().ok_or_else(|| BenchError::Unexpected("psql has no output".to_owned()))?;
    let written = target.stdin(rows).stdout(Stdio::null()).status().map_err(started);
    let read = reader.wait().map_err(BenchError::io("wait for psql"))?;
    match (read.success(), written?.success()) {
        (true, true) => Ok(()),
        _ => Err(BenchError::Process { what: "a pipe of psql".to_owned(), log: "see above".to_owned() }),
    }
}

fn jobs(options: &Options) -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(4) as u64;
    options.jobs.unwrap_or(cores).to_string()
}

fn walferry(servers: &Servers, options: &Options, source: &str, target: &str) -> Result<Run, BenchError> {
    let command = servers.walferry(source, target, &["run", "--until", "caught-up", "--jobs", &jobs(options)]);
    let begun = Instant::now();
    let used = Process::start("walferry run", command)?.finish(LIMIT)?;
    Ok(Run { seconds: begun.elapsed().as_secs_f64(), used: Some(used) })
}

fn native(servers: &Servers) -> Result<Run, BenchError> {
    on_target(servers, &schema(servers, &[])?)?;
    servers.sql(&servers.source, DATABASE)?.run("CREATE PUBLICATION native FOR ALL TABLES")?;
    let target = servers.sql(&servers.target, RUN)?;
    let subscription = format!("CREATE SUBSCRIPTION native CONNECTION '{}' PUBLICATION native", servers.source_uri());
    let begun = Instant::now();
    target.run(&subscription)?;
    while !target.rows("SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r' LIMIT 1")?.is_empty() {
        if begun.elapsed() > LIMIT {
            return Err(BenchError::Late("native table synchronisation".to_owned()));
        }
        sleep(POLL);
    }
    let seconds = begun.elapsed().as_secs_f64();
    end_native(servers)?;
    Ok(Run { seconds, used: None })
}

/// Ends the subscription and its slot, if there is one.
fn end_native(servers: &Servers) -> Result<(), BenchError> {
    let there = servers.sql(&servers.target, "postgres")?.rows(&format!(
        "SELECT FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE datname = '{RUN}'"
    ))?;
    if !there.is_empty() {
        let target = servers.sql(&servers.target, RUN)?;
        target.run("ALTER SUBSCRIPTION native DISABLE")?;
        target.run("ALTER SUBSCRIPTION native SET (slot_name = NONE)")?;
        target.run("DROP SUBSCRIPTION native")?;
    }
    servers.drop_slot("native")
}

fn pgcopydb(servers: &Servers, options: &Options) -> Result<Run, BenchError> {
    let path = env::var_os("PATH").unwrap_or_default();
    if !env::split_paths(&path).any(|folder| folder.join(PGCOPYDB).is_file()) {
        return Err(BenchError::LeftOut(format!("{PGCOPYDB} is not in PATH")));
    }
    let folder = tempfile::tempdir().map_err(BenchError::io("create a folder"))?;
    let mut command = Command::new(PGCOPYDB);
    without_settings(&mut command);
    let jobs = jobs(options);
    command.args(["clone", "--no-owner", "--no-acl", "--table-jobs", &jobs, "--index-jobs", &jobs]);
    command.args(["--source", &servers.source_uri(), "--target", &servers.target_superuser_uri(RUN)?]);
    command.arg("--dir").arg(folder.path().join("work"));
    // Some of its files are not in --dir; it runs the server's own pg_dump.
    let programs = servers.program(PGCOPYDB).parent().map(|bin| bin.as_os_str().to_owned()).unwrap_or_default();
    let path = env::join_paths(std::iter::once(programs.into()).chain(env::split_paths(&path)));
    let path = path.map_err(|error| BenchError::Unexpected(error.to_string()))?;
    command.env("XDG_DATA_HOME", folder.path()).env("PATH", path).process_group(0);
    let begun = Instant::now();
    let process = Process::start("pgcopydb clone", command)?;
    let _group = Group(process.id());
    process.finish(LIMIT)?;
    // Several processes: what one of them used says nothing.
    Ok(Run { seconds: begun.elapsed().as_secs_f64(), used: None })
}

/// The target of a run must have what the source has, keys included.
fn compare(servers: &Servers, expected: &BTreeMap<String, String>) -> Result<(), BenchError> {
    let found = servers.digest(&servers.target, RUN)?;
    for (table, digest) in expected {
        let has = found.get(table).map_or("nothing", String::as_str);
        if has != digest {
            return Err(BenchError::Differs(format!("{table} has {has} instead of {digest}")));
        }
    }
    let indexes = |cluster: &Cluster, database| {
        let sql = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid \
                   WHERE c.relnamespace = 'public'::regnamespace AND i.indisvalid";
        servers.sql(cluster, database)?.value(sql)
    };
    let (there, wanted) = (indexes(&servers.target, RUN)?, indexes(&servers.source, DATABASE)?);
    if there == wanted {
        return Ok(());
    }
    Err(BenchError::Differs(format!("{there} indexes instead of {wanted}")))
}
