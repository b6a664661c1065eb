//! `walferry demo`: the whole journey on two throwaway clusters, with writers
//! at work throughout, driven through the real binary as an operator would.
//!
//! Invariant: it ends well only if every table, sequence and large object is
//! equal on both sides; whatever it started is gone when it ends.

pub mod cluster;
pub mod compare;
pub mod daemon;
pub mod keeper;
pub mod server;
pub mod shop;
pub mod writers;

use std::io;
use std::net::TcpListener;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, Table, presets};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

use self::cluster::{Cluster, ClusterError, SUPERUSER};
use self::compare::{Compared, Kind};
use self::daemon::{Binary, CaughtUp, Daemon, Status};
use self::server::Server;
use self::writers::{WriterError, Writers, Written};
use crate::config::Side;
use crate::fault::{Difference, Fault, sqlstate};
use crate::session::{DbContext, DbError};
use crate::state::migration::Phase;

/// The database on either side.
const DATABASE: &str = "shop";

/// The source's owner, a superuser as on many an old server.
const SOURCE_ROLE: &str = "app";

/// The target's role: owner of its database and nothing more.
const TARGET_ROLE: &str = "doadmin";

/// Both clusters listen on 127.0.0.1 only and are gone in two minutes.
const PASSWORD: &str = "demo";

/// Pause between two looks at the status.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Pause between two lines of which only the lag is new.
const SAY_LAG_EVERY: Duration = Duration::from_secs(2);

/// How long the copy and the way to a small lag may take before the demo gives up.
const JOURNEY_PATIENCE: Duration = Duration::from_secs(90);

/// Lag at which the target counts as following: a fraction of a second of what
/// the writers write.
const SMALL_LAG_BYTES: u64 = 1024 * 1024;

/// Sessions that write all the time: enough for transactions that overlap.
const WRITERS: u32 = 4;

/// How long the target must have followed, with a small lag, before the writers
/// stop, unless the options say otherwise: time to see it work, within the two
/// minutes that the whole demo may take.
const STREAM_SECONDS: u64 = 15;

/// What the demo does.
#[derive(Clone, Copy, Debug, Default)]
pub struct DemoOptions {
    /// Leaves both servers running afterwards, until interrupted.
    pub keep: bool,
    /// Seconds for which the target must have followed the writers before they
    /// stop.
    pub seconds: Option<u64>,
}

/// Why the demo did not end well.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A server could not be started.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A statement of the demo itself failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The writers failed.
    #[error(transparent)]
    Writer(#[from] WriterError),
    /// The environment cannot be handed to a process.
    #[error("cannot prepare the environment of walferry: {0}")]
    Environment(String),
    /// A process could not be started or waited for.
    #[error("cannot run walferry {command}: {source}")]
    Start {
        /// The command and its flags.
        command: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A process failed.
    #[error("walferry {command} ended with {status}; its log ends with:\n{log}")]
    Command {
        /// The command and its flags.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it logged.
        log: String,
    },
    /// A process printed something else than was agreed.
    #[error("walferry {command} printed an unexpected document: {source}")]
    Json {
        /// The command and its flags.
        command: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// Something took too long.
    #[error("{what} did not get there within {seconds} s")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// The stream stopped for a reason that an operator has to look at.
    #[error("the stream stopped: {0}")]
    Stopped(String),
    /// The target's role may do what it should not be able to.
    #[error("the target's role is not restricted: it may {0}")]
    NotRestricted(&'static str),
    /// The two ends are not the same.
    #[error("source and target differ:\n{0}")]
    Differs(String),
    /// A thread of the demo broke down.
    #[error("a task of the demo broke down: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl DemoError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            DemoError::Differs(_) => Fault::Differs(Difference::Demo),
            DemoError::Cluster(_) | DemoError::Environment(_) => Fault::Configuration,
            DemoError::Db(_)
            | DemoError::Writer(_)
            | DemoError::Start { .. }
            | DemoError::Command { .. }
            | DemoError::Json { .. }
            | DemoError::Late { .. }
            | DemoError::Stopped(_)
            | DemoError::NotRestricted(_)
            | DemoError::Task(_) => Fault::Machine,
        }
    }
}

/// Runs the demo, telling its story on standard output. Dropping the future
/// ends everything it started.
///
/// # Errors
/// [`DemoError`], in particular [`DemoError::Differs`] when the two ends are
/// not equal at the end.
pub async fn run(options: DemoOptions) -> Result<(), DemoError> {
    let ends = Ends::start().await?;
    let outcome = journey(&ends, options).await;
    if options.keep {
        println!("source  {}\ntarget  {}\nBoth run until you interrupt this.", ends.source_uri(), ends.target_uri());
        if let Err(error) = &outcome {
            println!("The demo failed: {error}");
        }
        // The caller's handling of signals ends this.
        std::future::pending::<()>().await;
    }
    outcome
}

async fn journey(ends: &Ends, options: DemoOptions) -> Result<(), DemoError> {
    let begun = Instant::now();
    let (source, target) = (ends.source_link().await?, ends.target_link().await?);
    assert_restricted(&target.client).await?;
    println!("target   role {TARGET_ROLE} is no superuser and may not CREATE SUBSCRIPTION");
    shop::load(&source.client).await?;
    println!("shop     loaded after {:.1} s", begun.elapsed().as_secs_f64());

    let binary = ends.binary()?;
    let mut writers = Writers::start(&ends.source_uri(), WRITERS).await?;
    println!("writers  {} sessions write from now on", WRITERS);
    let daemon = Daemon::start(&binary, &free_address()?, ends.source.socket_dir())?;
    let mut memory = Peak(0);
    let stream_for = Duration::from_secs(options.seconds.unwrap_or(STREAM_SECONDS));
    follow(&binary, &daemon, &mut writers, &mut memory, stream_for).await?;

    let pause = Instant::now();
    let written = writers.stop().await?;
    println!("cutover  writers stopped; the write pause begins");
    memory.sample(&daemon);
    let caught_up: CaughtUp = binary.json(&["catchup", "--finish", "--json"]).await?;
    let pause = pause.elapsed();
    memory.sample(&daemon);
    daemon.stop()?;

    let compared = compare::compare(&source.client, &target.client).await?;
    source.close(Side::Source).await?;
    target.close(Side::Target).await?;
    report(&Ended { compared: &compared, caught_up, written, pause, memory, total: begun.elapsed() });
    let differences = compare::differences(&compared);
    if differences.is_empty() { Ok(()) } else { Err(DemoError::Differs(differences)) }
}

/// The two clusters.
struct Ends {
    source: Cluster,
    target: Cluster,
}

impl Ends {
    async fn start() -> Result<Self, DemoError> {
        let server = Server::find_all()?.into_iter().next().ok_or(ClusterError::NoServer)?;
        println!("servers  PostgreSQL {} of {}", server.major, server.bin_dir.display());
        let start = |server: Server, roles: fn(&Cluster) -> Result<(), ClusterError>| {
            tokio::task::spawn_blocking(move || {
                let cluster = Cluster::builder(&server).start()?;
                roles(&cluster)?;
                Ok::<_, ClusterError>(cluster)
            })
        };
        let (source, target) =
            tokio::try_join!(start(server.clone(), create_source_role), start(server, create_target_role))?;
        let ends = Ends { source: source?, target: target? };
        println!("source   port {}, role {SOURCE_ROLE}", ends.source.port());
        println!("target   port {}, role {TARGET_ROLE}", ends.target.port());
        Ok(ends)
    }

    fn source_uri(&self) -> String {
        self.source.uri(SOURCE_ROLE, PASSWORD, DATABASE)
    }

    fn target_uri(&self) -> String {
        self.target.uri(TARGET_ROLE, PASSWORD, DATABASE)
    }

    async fn source_link(&self) -> Result<Link, DbError> {
        Link::connect(Side::Source, &self.source_uri()).await
    }

    async fn target_link(&self) -> Result<Link, DbError> {
        Link::connect(Side::Target, &self.target_uri()).await
    }

    fn binary(&self) -> Result<Binary, DemoError> {
        let program = std::env::current_exe()
            .map_err(|source| DemoError::Start { command: "(this executable)".to_owned(), source })?;
        Ok(Binary {
            program,
            source_uri: self.source_uri(),
            target_uri: self.target_uri(),
            pg_bin: self.source.server().bin_dir.clone(),
        })
    }
}

fn create_source_role(cluster: &Cluster) -> Result<(), ClusterError> {
    let role = format!("CREATE ROLE {SOURCE_ROLE} LOGIN SUPERUSER REPLICATION PASSWORD '{PASSWORD}'");
    cluster.psql(SUPERUSER, "postgres", &role)?;
    cluster.psql(SUPERUSER, "postgres", &format!("CREATE DATABASE {DATABASE} OWNER {SOURCE_ROLE}"))?;
    Ok(())
}

/// As a DigitalOcean database has it.
fn create_target_role(cluster: &Cluster) -> Result<(), ClusterError> {
    let role = format!(
        "CREATE ROLE {TARGET_ROLE} LOGIN PASSWORD '{PASSWORD}' \
         NOSUPERUSER CREATEDB CREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 22"
    );
    cluster.psql(SUPERUSER, "postgres", &role)?;
    cluster.psql(SUPERUSER, "postgres", &format!("CREATE DATABASE {DATABASE} OWNER {TARGET_ROLE}"))?;
    Ok(())
}

/// A session of the demo's own.
struct Link {
    client: Client,
    connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

impl Link {
    async fn connect(side: Side, uri: &str) -> Result<Self, DbError> {
        let (client, connection) = tokio_postgres::connect(uri, NoTls).await.during(side, "connect the demo")?;
        Ok(Link { client, connection: tokio::spawn(connection) })
    }

    /// Says goodbye, so that the server does not stop under an open session.
    async fn close(self, side: Side) -> Result<(), DemoError> {
        drop(self.client);
        Ok(self.connection.await?.during(side, "close the demo's session")?)
    }
}

/// The demo means nothing on a target that could have used a subscription.
async fn assert_restricted(target: &Client) -> Result<(), DemoError> {
    let probes = [
        ("set session_replication_role", "SET session_replication_role = replica"),
        ("create a subscription", "CREATE SUBSCRIPTION s CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)"),
        ("use replication origins", "SELECT pg_replication_origin_create('probe')"),
    ];
    for (right, sql) in probes {
        match target.batch_execute(sql).await {
            Err(error) if error.code().is_some_and(|code| code.code() == sqlstate::INSUFFICIENT_PRIVILEGE) => {}
            Err(error) => return Err(error).during(Side::Target, format!("try to {right}"))?,
            Ok(()) => return Err(DemoError::NotRestricted(right)),
        }
    }
    Ok(())
}

fn free_address() -> Result<String, DemoError> {
    let address = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    let address = address.map_err(|source| DemoError::Start { command: "run --listen".to_owned(), source })?;
    Ok(address.to_string())
}

/// The most resident memory seen, in bytes.
struct Peak(u64);

impl Peak {
    fn sample(&mut self, daemon: &Daemon) {
        self.0 = self.0.max(daemon.peak_resident_bytes().unwrap_or(0));
    }
}

/// Shows the status as it changes, until the target has followed closely for
/// long enough.
async fn follow(
    binary: &Binary,
    daemon: &Daemon,
    writers: &mut Writers,
    memory: &mut Peak,
    stream_for: Duration,
) -> Result<(), DemoError> {
    let begun = Instant::now();
    let mut streaming_since = None;
    let mut shown = Shown::default();
    let mut last_error = None;
    while begun.elapsed() < JOURNEY_PATIENCE + stream_for {
        daemon.check()?;
        writers.check()?;
        memory.sample(daemon);
        match binary.json::<Status>(&["status", "--json"]).await {
            Ok(status) => {
                last_error = None;
                if let Some(reason) = &status.stopped_because {
                    return Err(DemoError::Stopped(reason.clone()));
                }
                shown.show(&status, writers.written());
                if status.phase == Phase::Stream {
                    let since = *streaming_since.get_or_insert_with(Instant::now);
                    let close = status.lag_bytes.is_some_and(|lag| lag <= SMALL_LAG_BYTES);
                    if close && since.elapsed() >= stream_for {
                        return Ok(());
                    }
                }
            }
            // Until the daemon has created its state there is none to show.
            Err(error @ (DemoError::Command { .. } | DemoError::Json { .. })) => last_error = Some(error),
            Err(error) => return Err(error),
        }
        sleep(LOOK_EVERY).await;
    }
    let late = format!("the migration (the daemon's log ends with:\n{}\n)", daemon.log_tail());
    Err(last_error.unwrap_or(DemoError::Late { what: late, seconds: begun.elapsed().as_secs() }))
}

/// What the story has told of the status.
#[derive(Default)]
struct Shown {
    /// Phase, tables ready, rows copied, and when it was said.
    last: Option<((Phase, usize, u64), Instant)>,
}

impl Shown {
    /// Prints a line when the status has changed; for the lag alone, now and then.
    fn show(&mut self, status: &Status, written: Written) {
        let state = (status.phase, status.ready(), status.rows());
        if let Some((last, at)) = &self.last
            && *last == state
            && at.elapsed() < SAY_LAG_EVERY
        {
            return;
        }
        let lag = status.lag_bytes.map_or_else(|| "unknown".to_owned(), kibibytes);
        println!(
            "{:<8} {} of {} tables ready, {} rows copied, lag {lag}, {} transactions written",
            status.phase,
            status.ready(),
            status.tables.len(),
            status.rows(),
            written.transactions
        );
        self.last = Some((state, Instant::now()));
    }
}

fn kibibytes(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

/// Everything the last page says.
struct Ended<'a> {
    compared: &'a [Compared],
    caught_up: CaughtUp,
    written: Written,
    pause: Duration,
    memory: Peak,
    total: Duration,
}

fn report(ended: &Ended<'_>) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["object", "name", "source", "target", "equal"]);
    for object in ended.compared {
        let equal = if object.equal { "yes" } else { "NO" };
        table.add_row([&object.kind.to_string(), &object.name, &object.source, &object.target, equal]);
    }
    for numeric in [2, 3] {
        if let Some(column) = table.column_mut(numeric) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    println!("\n{table}\n");
    let count = |kind| ended.compared.iter().filter(|object| object.kind == kind).count();
    let equal = ended.compared.iter().filter(|object| object.equal).count();
    println!("compared        {equal} of {} objects equal", ended.compared.len());
    println!("                {} tables, {} sequences, all large objects", count(Kind::Table), count(Kind::Sequence));
    println!("written         {} rows in {} transactions meanwhile", ended.written.rows, ended.written.transactions);
    println!(
        "caught up       to {}: {} transactions, {} sequences, {} large objects",
        ended.caught_up.end_lsn, ended.caught_up.transactions, ended.caught_up.sequences, ended.caught_up.large_objects
    );
    println!("write pause     {:.2} s", ended.pause.as_secs_f64());
    println!("memory          {} KiB resident at most", ended.memory.0 / 1024);
    println!("total           {:.0} s", ended.total.as_secs_f64());
}
