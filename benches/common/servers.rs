//! Two throwaway servers, the roles on them, and sessions of a superuser.
//!
//! Invariant: both servers have the same settings; the target's role owns its
//! databases and is nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use walferry::demo::cluster::{Cluster, SUPERUSER};
use walferry::demo::server::Server;

use crate::error::BenchError;
use crate::options::Options;
use crate::process::Process;

/// Password of both roles; the servers listen on 127.0.0.1 and are thrown away.
const PASSWORD: &str = "bench";

/// The source's owner, a superuser.
pub const SOURCE_ROLE: &str = "app";

/// The target's role: owner of its databases and nothing more.
pub const TARGET_ROLE: &str = "doadmin";

/// Database on the source that everything is read from.
pub const DATABASE: &str = "bench";

/// How long a copy or a load may take.
pub const LIMIT: Duration = Duration::from_secs(900);

/// Settings of both servers: memory for the working set, and no checkpoint by
/// itself while something is measured.
const SETTINGS: &[(&str, &str)] = &[
    ("synchronous_commit", "on"),
    ("full_page_writes", "on"),
    ("shared_buffers", "512MB"),
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "30min"),
    ("wal_sender_timeout", "60s"),
    ("max_slot_wal_keep_size", "-1"),
    // The launcher of subscriptions starts one worker in this time, and would
    // let ours wait for it.
    ("wal_retrieve_retry_interval", "10ms"),
];

/// The servers and what drives them.
pub struct Servers {
    /// The source.
    pub source: Cluster,
    /// The target.
    pub target: Cluster,
    runtime: Runtime,
}

/// A session.
pub struct Sql<'a> {
    client: Client,
    runtime: &'a Runtime,
}

impl Sql<'_> {
    /// Runs statements.
    pub fn run(&self, sql: &str) -> Result<(), BenchError> {
        self.runtime.block_on(self.client.batch_execute(sql)).map_err(|source| failure(sql, source))
    }

    /// The columns of every row, as text.
    pub fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>, BenchError> {
        let messages = self.runtime.block_on(self.client.simple_query(sql)).map_err(|source| failure(sql, source))?;
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|index| row.get(index).unwrap_or_default().to_owned()).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// The first column of the only row.
    pub fn value(&self, sql: &str) -> Result<String, BenchError> {
        let rows = self.rows(sql)?;
        let value = rows.first().and_then(|row| row.first()).cloned();
        value.ok_or_else(|| BenchError::Unexpected(format!("no row came from {sql}")))
    }
}

fn failure(sql: &str, source: tokio_postgres::Error) -> BenchError {
    BenchError::Sql { action: format!("run {}", sql.chars().take(80).collect::<String>()), source }
}

impl Servers {
    /// Starts both servers.
    pub fn start(options: &Options) -> Result<Self, BenchError> {
        let server = server(options.server)?;
        let cluster = || {
            let mut builder = Cluster::builder(&server);
            for (name, value) in SETTINGS {
                builder = builder.setting(name, value);
            }
            builder.setting("fsync", if options.fsync { "on" } else { "off" }).start()
        };
        let (source, target) = (cluster()?, cluster()?);
        source.psql(
            SUPERUSER,
            "postgres",
            &format!("CREATE ROLE {SOURCE_ROLE} LOGIN SUPERUSER REPLICATION PASSWORD '{PASSWORD}'"),
        )?;
        target.psql(SUPERUSER, "postgres", &format!("CREATE ROLE {TARGET_ROLE} LOGIN PASSWORD '{PASSWORD}'"))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(BenchError::io("start the runtime"))?;
        Ok(Servers { source, target, runtime })
    }

    /// A superuser's session.
    pub fn sql(&self, cluster: &Cluster, database: &str) -> Result<Sql<'_>, BenchError> {
        let uri = cluster.socket_uri(SUPERUSER, database);
        let (client, connection) = self
            .runtime
            .block_on(tokio_postgres::connect(&uri, NoTls))
            .map_err(|source| BenchError::Sql { action: format!("connect to {database}"), source })?;
        // It ends with the client.
        self.runtime.spawn(connection);
        Ok(Sql { client, runtime: &self.runtime })
    }

    /// The source as everybody's publisher.
    pub fn source_uri(&self) -> String {
        self.source.uri(SOURCE_ROLE, PASSWORD, DATABASE)
    }

    /// A database of the target as walferry's role.
    pub fn target_uri(&self, database: &str) -> String {
        self.target.uri(TARGET_ROLE, PASSWORD, database)
    }

    /// A database of the target as a superuser with a password, which only
    /// pgcopydb asks for: the role comes into being here.
    pub fn target_superuser_uri(&self, database: &str) -> Result<String, BenchError> {
        let admin = self.sql(&self.target, "postgres")?;
        if admin.rows(&format!("SELECT FROM pg_roles WHERE rolname = '{SOURCE_ROLE}'"))?.is_empty() {
            admin.run(&format!("CREATE ROLE {SOURCE_ROLE} LOGIN SUPERUSER PASSWORD '{PASSWORD}'"))?;
        }
        Ok(self.target.uri(SOURCE_ROLE, PASSWORD, database))
    }

    /// A walferry command.
    pub fn walferry(&self, source_uri: &str, target_uri: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walferry"));
        without_settings(&mut command);
        command.args(arguments).arg("--log-level").arg("walferry=info");
        command.env("WALFERRY_SOURCE_PGURI", source_uri).env("WALFERRY_TARGET_PGURI", target_uri);
        command.env("WALFERRY_PG_BIN", self.bin_dir());
        command
    }

    fn bin_dir(&self) -> PathBuf {
        self.source.server().bin_dir.clone()
    }

    /// A program of the server.
    pub fn program(&self, name: &str) -> PathBuf {
        self.source.server().program(name)
    }

    /// Runs pgbench on the source's database.
    pub fn pgbench(&self, arguments: &[&str]) -> Result<(), BenchError> {
        let mut command = Command::new(self.program("pgbench"));
        command.args(arguments).arg(self.source.socket_uri(SUPERUSER, DATABASE));
        command.env("PGOPTIONS", "-c synchronous_commit=off");
        Process::start("pgbench", command)?.finish(LIMIT).map(drop)
    }

    /// Drops a slot as soon as its reader is gone.
    pub fn drop_slot(&self, slot: &str) -> Result<(), BenchError> {
        let source = self.sql(&self.source, "postgres")?;
        let deadline = Instant::now() + Duration::from_secs(20);
        let look = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
        loop {
            match source.rows(&look)?.first().and_then(|row| row.first()).map(String::as_str) {
                None => return Ok(()),
                Some("f") => return source.run(&format!("SELECT pg_drop_replication_slot('{slot}')")),
                Some(_) if Instant::now() >= deadline => {
                    return Err(BenchError::Late(format!("letting go of slot {slot}")));
                }
                Some(_) => sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Number of rows and hash of every table, by name.
    pub fn digest(&self, cluster: &Cluster, database: &str) -> Result<BTreeMap<String, String>, BenchError> {
        let sql = self.sql(cluster, database)?;
        let tables =
            sql.rows("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'")?;
        let mut digests = BTreeMap::new();
        for table in tables.iter().filter_map(|row| row.first()) {
            let digest = sql.value(&format!(
                "SELECT count(*) || ' rows, hash ' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM {table} AS t"
            ))?;
            digests.insert(table.clone(), digest);
        }
        Ok(digests)
    }

    /// What the servers say they are and how they are set.
    pub fn conditions(&self) -> Result<BTreeMap<String, String>, BenchError> {
        let sql = self.sql(&self.target, "postgres")?;
        let mut conditions = BTreeMap::from([("server".to_owned(), sql.value("SELECT version()")?)]);
        for name in ["fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size", "autovacuum"]
        {
            conditions.insert(name.to_owned(), sql.value(&format!("SHOW {name}"))?);
        }
        Ok(conditions)
    }

    /// The major version of both servers.
    pub fn major(&self) -> u32 {
        self.source.server().major
    }
}

/// The server of this major version, of those that are installed and those that
/// `scripts/postgres.sh --newer` has fetched; the newest installed one when none
/// is asked for.
fn server(major: Option<u32>) -> Result<Server, BenchError> {
    let mut servers = Server::find_all()?;
    let Some(major) = major else {
        return servers.pop().ok_or_else(|| BenchError::Unexpected("no PostgreSQL server was found".to_owned()));
    };
    for bin_dir in fetched() {
        servers.push(Server::at(bin_dir)?);
    }
    let majors: BTreeSet<u32> = servers.iter().map(|server| server.major).collect();
    let majors: Vec<String> = majors.iter().map(u32::to_string).collect();
    servers.into_iter().find(|server| server.major == major).ok_or_else(|| {
        BenchError::Unexpected(format!(
            "there is no PostgreSQL {major}, only {}; scripts/postgres.sh --newer fetches 16 and 18",
            majors.join(", ")
        ))
    })
}

/// The folders in the list that `scripts/postgres.sh` writes; without a list,
/// nothing was fetched.
fn fetched() -> Vec<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let list = std::fs::read_to_string(target.join("postgres/versions")).unwrap_or_default();
    list.lines().filter_map(|line| line.split_once('=')).map(|(_, bin_dir)| PathBuf::from(bin_dir)).collect()
}

/// Takes the caller's settings of libpq, walferry and pgcopydb from a command.
pub fn without_settings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("PG") || name.starts_with("WALFERRY_") {
            command.env_remove(name);
        }
    }
}

/// The URI with the server's port replaced by a proxy's.
pub fn through(uri: &str, server_port: u16, port: u16) -> String {
    uri.replacen(&format!(":{server_port}/"), &format!(":{port}/"), 1)
}

/// Makes the folder of a file.
pub fn create_parent(file: &Path) -> Result<(), BenchError> {
    match file.parent() {
        Some(folder) => std::fs::create_dir_all(folder).map_err(BenchError::io(format!("create {}", folder.display()))),
        None => Ok(()),
    }
}
