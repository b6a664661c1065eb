//! A throwaway PostgreSQL: initialised in a temporary folder, on a port of its
//! own, gone with the value, also after a panic; its processes end by
//! themselves if we are killed.
//!
//! Invariant: a [`Cluster`] that [`ClusterBuilder::start`] returned accepts
//! connections. Readiness is the last line of `postmaster.pid`, as pg_ctl
//! judges it (`src/bin/pg_ctl/pg_ctl.c`, `wait_for_postmaster_start`).

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::Signal;
use tempfile::TempDir;

use super::keeper::Keeper;
use super::server::{RunAs, Server};

/// The bootstrap superuser of every cluster.
pub const SUPERUSER: &str = "postgres";

/// How long a server may take to accept connections. It takes a fraction of a
/// second; a loaded machine is given time.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks at `postmaster.pid`.
const START_POLL: Duration = Duration::from_millis(10);

/// A free port may be taken by somebody else before the server binds it; then
/// another one is tried, this often.
const PORT_ATTEMPTS: usize = 5;

/// Folders of clusters begin with this and our process id.
const FOLDER_PREFIX: &str = "walferry-pg-";

/// Settings of every cluster: logical decoding on, nothing kept safe on disk
/// (it is thrown away), and a wal_sender_timeout that shows a receiver which
/// does not answer keepalives within a test's time.
const DEFAULT_SETTINGS: &[(&str, &str)] = &[
    ("wal_level", "logical"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    ("synchronous_commit", "off"),
    ("max_connections", "60"),
    ("max_wal_senders", "10"),
    ("max_replication_slots", "10"),
    ("shared_buffers", "64MB"),
    ("wal_sender_timeout", "10s"),
    ("log_line_prefix", "%m [%p] %q%u@%d "),
];

/// Why a throwaway cluster could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No server programs anywhere.
    #[error(
        "no PostgreSQL server found in /usr/lib/postgresql or PATH; install the package postgresql, \
         or name folders of server programs in WALFERRY_TEST_PG_BINDIRS"
    )]
    NoServer,
    /// We are root and there is nobody to run a server as.
    #[error("a PostgreSQL server does not run as root, and there is no user postgres or nobody to run it as")]
    NoUser,
    /// `postgres --version` said something unknown.
    #[error("{} is no PostgreSQL server: it answered \"{answer}\"", program.display())]
    Version {
        /// The program that was run.
        program: PathBuf,
        /// What it printed.
        answer: String,
    },
    /// A file or program could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The verb.
        action: &'static str,
        /// The object.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name.
        program: String,
        /// What it printed.
        output: String,
    },
    /// The server did not come up.
    #[error("PostgreSQL {major} did not start; its log ends with:\n{log}")]
    NotReady {
        /// Major version.
        major: u32,
        /// The end of the log.
        log: String,
    },
}

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    server: Server,
    templates: Option<PathBuf>,
    settings: Vec<(String, String)>,
    hba: Vec<String>,
    files: Vec<(String, Vec<u8>)>,
    scripts: Vec<Script>,
}

/// What psql runs in a new cluster.
#[derive(Clone, Debug)]
struct Script {
    database: String,
    file: PathBuf,
    /// `name=value`.
    variables: Vec<String>,
}

impl ClusterBuilder {
    /// A setting of postgresql.conf; the last one of a name counts.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A line of pg_hba.conf, before the default that asks everyone on TCP for
    /// a SCRAM password. (The Unix socket, in a folder only we can enter, is
    /// always open to us.)
    pub fn hba(mut self, line: &str) -> Self {
        self.hba.push(line.to_owned());
        self
    }

    /// A file in the data folder, readable by the server only: certificates, keys.
    pub fn file(mut self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), contents.into()));
        self
    }

    /// A file that psql runs in this database of the new cluster as the superuser, with
    /// variables `name=value`; several in their order.
    pub fn script(mut self, database: &str, file: impl Into<PathBuf>, variables: &[&str]) -> Self {
        let variables = variables.iter().map(|variable| (*variable).to_owned()).collect();
        self.scripts.push(Script { database: database.to_owned(), file: file.into(), variables });
        self
    }

    /// A folder in which data folders are kept between runs, initialised and with what
    /// the scripts made, so that both is done once per version. Several processes may
    /// share it.
    pub fn templates(mut self, folder: impl Into<PathBuf>) -> Self {
        self.templates = Some(folder.into());
        self
    }

    /// Initialises and starts the cluster; returns when it accepts connections.
    ///
    /// # Errors
    /// [`ClusterError`], with the end of the server's log where it was the server.
    pub fn start(self) -> Result<Cluster, ClusterError> {
        remove_orphans();
        let run_as = RunAs::choose()?;
        let dir = tempfile::Builder::new()
            .prefix(&format!("{FOLDER_PREFIX}{}-", std::process::id()))
            .tempdir()
            .map_err(|source| ClusterError::Io { action: "create a folder in", path: std::env::temp_dir(), source })?;
        run_as.own(dir.path()).map_err(io_error("give away", dir.path()))?;
        let mut cluster = Cluster { server: self.server.clone(), run_as, dir, port: 0, keeper: None };
        let template = self.template(&cluster)?;
        let is_prepared = cluster.initialise(self.templates.as_deref(), template.as_deref())?;
        cluster.configure(&self)?;
        cluster.start_on_a_free_port()?;
        if !is_prepared {
            cluster.prepare(&self.scripts, template.as_deref())?;
        }
        Ok(cluster)
    }

    /// Where the data folder is kept that has what the scripts make.
    fn template(&self, cluster: &Cluster) -> Result<Option<PathBuf>, ClusterError> {
        let Some(folder) = self.templates.as_deref().filter(|_| !self.scripts.is_empty()) else { return Ok(None) };
        let mut hasher = DefaultHasher::new();
        for Script { database, file, variables } in &self.scripts {
            (database, fs::read(file).map_err(io_error("read", file))?, variables).hash(&mut hasher);
        }
        Ok(Some(folder.join(format!("{}-{:016x}", cluster.template_name(), hasher.finish()))))
    }
}

/// A running throwaway PostgreSQL.
pub struct Cluster {
    server: Server,
    run_as: RunAs,
    dir: TempDir,
    port: u16,
    /// `None` while stopped.
    keeper: Option<Keeper>,
}

impl Cluster {
    /// A cluster of this server with the default settings.
    pub fn builder(server: &Server) -> ClusterBuilder {
        ClusterBuilder {
            server: server.clone(),
            templates: None,
            settings: Vec::new(),
            hba: Vec::new(),
            files: Vec::new(),
            scripts: Vec::new(),
        }
    }

    /// The server's programs and version.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the Unix socket, and of everything else of the cluster.
    pub fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The postmaster's process id; `None` while stopped.
    pub fn pid(&self) -> Option<u32> {
        self.keeper.as_ref().map(Keeper::pid)
    }

    /// A connection URI over TCP.
    pub fn uri(&self, user: &str, password: &str, database: &str) -> String {
        let [user, password, database] = [user, password, database].map(|s| utf8_percent_encode(s, NON_ALPHANUMERIC));
        format!("postgresql://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// A connection URI over the Unix socket, where nobody needs a password.
    pub fn socket_uri(&self, user: &str, database: &str) -> String {
        let folder = self.dir.path().to_string_lossy().into_owned();
        let [user, folder, database] = [user, &folder, database].map(|s| utf8_percent_encode(s, NON_ALPHANUMERIC));
        format!("postgresql://{user}@/{database}?host={folder}&port={}", self.port)
    }

    /// Runs SQL through psql as this user, over the socket; stops at the first
    /// error. Returns the rows, unaligned and without headings.
    ///
    /// # Errors
    /// [`ClusterError::Program`] with psql's words.
    pub fn psql(&self, user: &str, database: &str, sql: &str) -> Result<String, ClusterError> {
        self.run_psql(user, database, &["-c", sql])
    }

    fn run_psql(&self, user: &str, database: &str, arguments: &[&str]) -> Result<String, ClusterError> {
        let mut command = Command::new(self.server.program("psql"));
        command.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", &self.socket_uri(user, database)]);
        output_of(command.args(arguments))
    }

    /// Stops the server as a crash would (immediate shutdown).
    ///
    /// # Errors
    /// When the process cannot be signalled or waited for.
    pub fn crash(&mut self) -> Result<(), ClusterError> {
        self.stop_with(Signal::QUIT)
    }

    /// Stops the server in order (fast shutdown: open sessions are ended).
    ///
    /// # Errors
    /// When the process cannot be signalled or waited for.
    pub fn stop(&mut self) -> Result<(), ClusterError> {
        self.stop_with(Signal::INT)
    }

    /// Starts a stopped server again on its port.
    ///
    /// # Errors
    /// [`ClusterError::NotReady`] with the end of the log.
    pub fn restart(&mut self) -> Result<(), ClusterError> {
        self.stop()?;
        self.launch()
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        match fs::read(self.dir.path().join("log")) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(no log: {error})"),
        }
    }

    fn stop_with(&mut self, signal: Signal) -> Result<(), ClusterError> {
        if let Some(keeper) = self.keeper.take() {
            keeper.stop(signal).map_err(io_error("stop the server of", self.dir.path()))?;
        }
        Ok(())
    }

    /// Makes the data folder; whether it has what the scripts make.
    fn initialise(&self, templates: Option<&Path>, prepared: Option<&Path>) -> Result<bool, ClusterError> {
        let data = self.data_dir();
        if let Some(prepared) = prepared.filter(|prepared| prepared.exists()) {
            return copy_folder(prepared, &data).map(|()| true);
        }
        let Some(folder) = templates else {
            return self.initdb(&data, &[]).map(|()| false);
        };
        fs::create_dir_all(folder).map_err(io_error("create", folder))?;
        let template = folder.join(self.template_name());
        if template.exists() {
            copy_folder(&template, &data)?;
        } else {
            // A file of WAL of the usual size would be a half of what is to copy.
            self.initdb(&data, &["--wal-segsize=1"])?;
            self.keep(&template)?;
        }
        Ok(false)
    }

    /// Runs the scripts, and keeps what they made.
    fn prepare(&mut self, scripts: &[Script], template: Option<&Path>) -> Result<(), ClusterError> {
        for Script { database, file, variables } in scripts {
            let file = file.to_string_lossy();
            let mut arguments = vec!["-f", &*file];
            arguments.extend(variables.iter().flat_map(|variable| ["-v", variable]));
            self.run_psql(SUPERUSER, database, &arguments)?;
        }
        if let Some(template) = template {
            self.stop()?;
            self.keep(template)?;
            self.launch()?;
        }
        Ok(())
    }

    /// Keeps a copy of the data folder as a template.
    fn keep(&self, template: &Path) -> Result<(), ClusterError> {
        // Two threads of one process may be at it, as well as two processes.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let unfinished = template.with_extension(format!("unfinished-{}-{number}", std::process::id()));
        copy_folder(&self.data_dir(), &unfinished)?;
        // Another process may have been faster: then its template stays.
        if fs::rename(&unfinished, template).is_err() {
            fs::remove_dir_all(&unfinished).map_err(io_error("remove", &unfinished))?;
        }
        Ok(())
    }

    /// A template belongs to the user whose server will read its copy.
    fn template_name(&self) -> String {
        match self.run_as {
            RunAs::Ourselves => format!("{}-own", self.server.major),
            RunAs::User { uid, .. } => format!("{}-uid{uid}", self.server.major),
        }
    }

    fn initdb(&self, data: &Path, options: &[&str]) -> Result<(), ClusterError> {
        let mut command = self.run_as.command(&self.server.program("initdb"));
        command.current_dir(self.dir.path()).arg("-D").arg(data);
        command.args(["-U", SUPERUSER, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        command.args(options);
        output_of(&mut command).map(drop)
    }

    fn configure(&self, wanted: &ClusterBuilder) -> Result<(), ClusterError> {
        let mut conf = format!(
            "\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\n",
            self.dir.path().to_string_lossy().replace('\'', "''")
        );
        let defaults = DEFAULT_SETTINGS.iter().map(|&(name, value)| (name, value));
        let extra = wanted.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in defaults.chain(extra) {
            conf.push_str(&format!("{name} = '{}'\n", value.replace('\'', "''")));
        }
        self.write("postgresql.auto.conf", conf.as_bytes())?;
        let mut hba = String::from("local all all trust\nlocal replication all trust\n");
        for line in &wanted.hba {
            hba.push_str(line);
            hba.push('\n');
        }
        hba.push_str("host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n");
        self.write("pg_hba.conf", hba.as_bytes())?;
        wanted.files.iter().try_for_each(|(name, contents)| self.write(name, contents))
    }

    /// Writes a file of the data folder, for the server's eyes only.
    fn write(&self, name: &str, contents: &[u8]) -> Result<(), ClusterError> {
        let path = self.data_dir().join(name);
        fs::write(&path, contents)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
            .and_then(|()| self.run_as.own(&path))
            .map_err(io_error("write", &path))
    }

    fn start_on_a_free_port(&mut self) -> Result<(), ClusterError> {
        for attempt in 1.. {
            self.port = free_port()?;
            match self.launch() {
                Err(ClusterError::NotReady { log, .. })
                    if attempt < PORT_ATTEMPTS && log.contains("Address already in use") => {}
                done => return done,
            }
        }
        Ok(())
    }

    fn launch(&mut self) -> Result<(), ClusterError> {
        let log = self.dir.path().join("log");
        let log_file = fs::OpenOptions::new().create(true).append(true).open(&log).map_err(io_error("open", &log))?;
        let mut command = self.run_as.command(&self.server.program("postgres"));
        command.current_dir(self.dir.path()).arg("-D").arg(self.data_dir());
        command.args(["-p", &self.port.to_string()]);
        // An interrupt at the terminal is ours to handle, not the server's.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file);
        let keeper = Keeper::spawn(command, Signal::QUIT).map_err(io_error("start a server in", self.dir.path()))?;
        self.await_ready(&keeper)?;
        self.keeper = Some(keeper);
        Ok(())
    }

    fn await_ready(&self, keeper: &Keeper) -> Result<(), ClusterError> {
        let pid_file = self.data_dir().join("postmaster.pid");
        let deadline = Instant::now() + START_PATIENCE;
        while Instant::now() < deadline {
            // Line 1 is the pid, line 8 the status, absent until there is one.
            if let Ok(text) = fs::read_to_string(&pid_file) {
                let ours = text.lines().next() == Some(keeper.pid().to_string().as_str());
                if ours && text.lines().nth(7).is_some_and(|status| status.trim() == "ready") {
                    return Ok(());
                }
            }
            if keeper.ended().map_err(io_error("wait for the server of", self.dir.path()))?.is_some() {
                break;
            }
            thread::sleep(START_POLL);
        }
        let log = self.log();
        let tail: Vec<&str> = log.lines().rev().take(20).collect();
        let log = tail.into_iter().rev().collect::<Vec<_>>().join("\n");
        Err(ClusterError::NotReady { major: self.server.major, log })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The keeper stops the server; only then does the folder go.
        drop(self.keeper.take());
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClusterError + use<> {
    let path = path.to_owned();
    move |source| ClusterError::Io { action, path, source }
}

/// Runs a command to its end; its standard output, or an error with both outputs.
fn output_of(command: &mut Command) -> Result<String, ClusterError> {
    let program = PathBuf::from(command.get_program());
    let output = command.stdin(Stdio::null()).output().map_err(io_error("run", &program))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(stdout.into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(ClusterError::Program {
        program: program.to_string_lossy().into_owned(),
        output: format!("{} {}", stdout.trim(), stderr.trim()).trim().to_owned(),
    })
}

/// A copy with owners and modes.
fn copy_folder(from: &Path, to: &Path) -> Result<(), ClusterError> {
    output_of(Command::new("cp").arg("-a").arg(from).arg(to)).map(drop)
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, ClusterError> {
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    Ok(port.map_err(io_error("find a free port on", Path::new("127.0.0.1")))?.port())
}

/// Removes folders of processes that were killed before they could. Best
/// effort: what cannot be removed is somebody else's.
fn remove_orphans() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(FOLDER_PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::debug!(folder = %entry.path().display(), %error, "cannot remove an orphaned folder");
        }
    }
}
