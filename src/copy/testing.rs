//! A throwaway server for the tests of schema and copy: a source database and
//! a target database whose owner is an ordinary role.
//!
//! Invariant: the server stops and its files go when the value is dropped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{CopyContext, CopyError};
use crate::config::conninfo::{Address, ChannelBinding, ConnInfo, Host, RootCert, SslMode, TargetSessionAttrs};
use crate::config::{BatchBounds, Provenance, SchemaMode, Settings, Side, TableFilter};
use crate::lsn::EndLsn;
use crate::observe::metrics::Metrics;
use crate::observe::progress::Progress;
use crate::session::Session;
use crate::state::State;
use crate::state::migration::SourceIdentity;

/// Superuser of the server; the source's application.
pub(crate) const SUPERUSER: &str = "postgres";
/// Owner of the target database, and of nothing else.
pub(crate) const OWNER: &str = "doadmin";
/// May replicate and owns its tables on the source, and nothing else.
pub(crate) const APP: &str = "app";

pub(crate) struct Server {
    bin: PathBuf,
    folder: TempDir,
}

fn run(program: &Path, arguments: &[&str]) {
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout.starts_with(b"0\n");
    let mut command = if is_root { Command::new("setpriv") } else { Command::new(program) };
    if is_root {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    }
    let output = command.args(arguments).current_dir("/").output().unwrap();
    assert!(output.status.success(), "{program:?} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Server {
    /// Starts a server with the databases "source" and "target".
    pub(crate) async fn start() -> Self {
        let bin = crate::schema::find_pg_dump(None, 130_000).unwrap().path.parent().unwrap().to_owned();
        let server = Server { bin, folder: TempDir::with_prefix("walferry-copy-").unwrap() };
        let folder = server.folder.path().to_str().unwrap().to_owned();
        if Command::new("id").arg("-u").output().unwrap().stdout.starts_with(b"0\n") {
            assert!(Command::new("chown").args(["postgres", &folder]).status().unwrap().success());
        }
        let data = format!("{folder}/data");
        run(&server.bin.join("initdb"), &["-D", &data, "-U", SUPERUSER, "-A", "trust", "--no-sync", "-E", "UTF8"]);
        let options =
            format!("-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off -c wal_level=logical");
        run(&server.bin.join("pg_ctl"), &["-D", &data, "-w", "-l", &format!("{folder}/log"), "-o", &options, "start"]);
        let admin = server.session(Side::Source, SUPERUSER, "postgres").await;
        for sql in [
            "CREATE ROLE doadmin LOGIN NOSUPERUSER",
            "CREATE ROLE app LOGIN REPLICATION NOSUPERUSER",
            "CREATE DATABASE source OWNER app",
            "CREATE DATABASE target OWNER doadmin",
        ] {
            admin.batch_execute(sql).await.unwrap();
        }
        server
    }

    fn info(&self, side: Side, user: &str, dbname: &str) -> ConnInfo {
        ConnInfo {
            side,
            hosts: vec![Host { address: Address::Unix(self.folder.path().to_owned()), port: 5432, password: None }],
            user: user.to_owned(),
            dbname: dbname.to_owned(),
            sslmode: SslMode::Disable,
            sslrootcert: RootCert::Default,
            sslcert: None,
            sslkey: None,
            channel_binding: ChannelBinding::Prefer,
            target_session_attrs: TargetSessionAttrs::Any,
            connect_timeout: Duration::from_secs(10),
            options: None,
        }
    }

    async fn session(&self, side: Side, user: &str, dbname: &str) -> Session {
        Session::connect(&self.info(side, user, dbname), "test").await.unwrap()
    }

    pub(crate) async fn source(&self, user: &str) -> Session {
        self.session(Side::Source, user, "source").await
    }

    pub(crate) async fn target(&self) -> Session {
        self.session(Side::Target, OWNER, "target").await
    }

    pub(crate) fn settings(&self, user: &str, schema: SchemaMode) -> Settings {
        Settings {
            source: self.info(Side::Source, user, "source"),
            target: self.info(Side::Target, OWNER, "target"),
            name: "walferry".to_owned(),
            slot: Provenance::Ours("walferry".to_owned()),
            publication: Provenance::Ours("walferry".to_owned()),
            filter: TableFilter::default(),
            adopt: TableFilter::default(),
            schema,
            jobs: 3,
            part_size: 1 << 20,
            wal_warn: None,
            pg_bin: Some(self.bin.clone()),
            retry_for: Duration::from_secs(10),
            batch: BatchBounds { rows: 1000, bytes: 1 << 20 },
            queue_bytes: 1 << 20,
            sequence_interval: Duration::from_secs(30),
            listen: None,
        }
    }

    /// The state, with the migration begun unless it is.
    pub(crate) async fn state(&self, settings: &Settings) -> State {
        let state = State::install(self.target().await, &settings.name).await.unwrap();
        if state.load().await.unwrap().is_none() {
            let source = SourceIdentity {
                system_identifier: "1".to_owned(),
                timeline: 1,
                database: "source".to_owned(),
                version: 150_000,
            };
            state.begin(&source, &settings.slot, &settings.publication).await.unwrap();
        }
        state
    }

    /// Runs the copy until it ends or `shutdown` is cancelled.
    pub(crate) async fn copy(&self, settings: &Settings, shutdown: &CancellationToken) -> Result<EndLsn, CopyError> {
        let state = self.state(settings).await;
        let (metrics, progress) = (Metrics::new().unwrap(), Progress::lines());
        super::run(&CopyContext { settings, state: &state, metrics: &metrics, progress: &progress, shutdown, memory: &super::Memory::default() })
            .await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = self.folder.path().join("data");
        run(&self.bin.join("pg_ctl"), &["-D", data.to_str().unwrap(), "-m", "immediate", "stop"]);
    }
}
