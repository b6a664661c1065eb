//! A throwaway server for the tests of the sweeps: two databases on a Unix
//! socket, and the roles that matter.
//!
//! Invariant: the last test that lets go of the server stops it and removes
//! its files. The migration's target role is an ordinary owner.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tempfile::TempDir;

use crate::config::conninfo::{Address, ChannelBinding, ConnInfo, Host, RootCert, SslMode, TargetSessionAttrs};
use crate::config::{Provenance, Side};
use crate::session::Session;
use crate::state::State;
use crate::state::migration::SourceIdentity;

/// The server's superuser.
pub const SUPERUSER: &str = "postgres";
/// Owns the source database; nothing more.
pub const SOURCE_OWNER: &str = "source_owner";
/// Reads everything on the source; owns nothing.
pub const SOURCE_READER: &str = "source_reader";
/// Owns the target database; nothing more.
pub const TARGET_OWNER: &str = "target_owner";

struct Server {
    bin: PathBuf,
    folder: TempDir,
}

static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// Runs a program of the server as a user that may run it.
fn run(program: &Path, arguments: &[&str]) {
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout.starts_with(b"0\n");
    let mut command = if is_root { Command::new("setpriv") } else { Command::new(program) };
    if is_root {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    }
    let output = command.args(arguments).current_dir("/").output().unwrap();
    assert!(output.status.success(), "{program:?} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn find_bin() -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path().join("bin"))
        .chain(std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect::<Vec<_>>())
        .filter(|folder| folder.join("initdb").exists())
        .collect();
    found.sort();
    std::env::var_os("WALFERRY_PG_BIN").map(PathBuf::from).or(found.pop()).expect("PostgreSQL's initdb is not here")
}

impl Server {
    fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *shared = Arc::downgrade(&server);
        server
    }

    fn start() -> Self {
        let server = Server { bin: find_bin(), folder: TempDir::with_prefix("walferry-sweep-").unwrap() };
        let folder = server.folder.path().to_str().unwrap();
        if Command::new("id").arg("-u").output().unwrap().stdout.starts_with(b"0\n") {
            assert!(Command::new("chown").args(["postgres", folder]).status().unwrap().success());
        }
        let data = server.data();
        run(&server.bin.join("initdb"), &["-D", &data, "-U", SUPERUSER, "-A", "trust", "--no-sync", "-E", "UTF8"]);
        let options =
            format!("-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off -c wal_level=logical");
        let log = format!("{folder}/log");
        run(&server.bin.join("pg_ctl"), &["-D", &data, "-w", "-l", &log, "-o", &options, "start"]);
        server
    }

    fn data(&self) -> String {
        self.folder.path().join("data").to_str().unwrap().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        run(&self.bin.join("pg_ctl"), &["-D", &self.data(), "-m", "immediate", "stop"]);
    }
}

/// A source database, a target database and a migration between them.
pub struct Pair {
    server: Arc<Server>,
    number: u32,
}

impl Pair {
    /// Two empty databases and the roles.
    pub async fn new() -> Self {
        let pair = Pair { server: Server::shared(), number: DATABASES.fetch_add(1, Ordering::Relaxed) };
        let admin = pair.connect(Side::Source, SUPERUSER, "postgres").await;
        for role in [SOURCE_OWNER, SOURCE_READER, TARGET_OWNER] {
            let sql = format!(
                "SELECT pg_advisory_lock(1); DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN \
                 CREATE ROLE {role} LOGIN; END IF; END $$; SELECT pg_advisory_unlock(1)"
            );
            admin.batch_execute(&sql).await.unwrap();
        }
        admin.batch_execute(&format!("GRANT pg_read_all_data TO {SOURCE_READER}")).await.ok();
        for (side, owner) in [(Side::Source, SOURCE_OWNER), (Side::Target, TARGET_OWNER)] {
            admin.batch_execute(&format!("CREATE DATABASE {} OWNER {owner}", pair.database(side))).await.unwrap();
        }
        pair
    }

    fn database(&self, side: Side) -> String {
        format!("{side}_{}", self.number)
    }

    /// Where one side is, for a role.
    pub fn info(&self, side: Side, user: &str, dbname: &str) -> ConnInfo {
        let address = Address::Unix(self.server.folder.path().to_owned());
        ConnInfo {
            side,
            hosts: vec![Host { address, port: 5432, password: None }],
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

    /// Where the target is, for a role.
    pub fn target_info(&self, user: &str) -> ConnInfo {
        self.info(Side::Target, user, &self.database(Side::Target))
    }

    async fn connect(&self, side: Side, user: &str, dbname: &str) -> Session {
        Session::connect(&self.info(side, user, dbname), "walferry-test").await.unwrap()
    }

    /// A session on the source.
    pub async fn source(&self, user: &str) -> Session {
        self.connect(Side::Source, user, &self.database(Side::Source)).await
    }

    /// A session on the target.
    pub async fn target(&self, user: &str) -> Session {
        Session::connect(&self.target_info(user), "walferry-test").await.unwrap()
    }

    /// The state of a migration that has begun, on a session of its own.
    pub async fn state(&self) -> State {
        let state = State::install(self.target(TARGET_OWNER).await, "walferry").await.unwrap();
        let source = SourceIdentity {
            system_identifier: "1".to_owned(),
            timeline: 1,
            database: self.database(Side::Source),
            version: 150_000,
        };
        let ours = Provenance::Ours("walferry".to_owned());
        state.begin(&source, &ours, &ours).await.unwrap();
        state
    }
}
