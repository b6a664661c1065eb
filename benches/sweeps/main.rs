//! What a pass over sequences and large objects costs: its time, and the bytes
//! that the source sends for it. Two throwaway servers; the target's role is an
//! ordinary owner, the source's a superuser, which reads pages.
//!
//! Invariant: what is compared is measured in one run. Each figure is the median
//! of its repetitions; after each kind of objects both sides are compared.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use walferry::config::{ConnInfo, Env, Provenance, Publications, SchemaMode, Side, TableFilter};
use walferry::demo::cluster::{Cluster, ClusterError, SUPERUSER};
use walferry::demo::server::Server;
use walferry::observe::metrics::Metrics;
use walferry::session::Session;
use walferry::state::State;
use walferry::state::migration::SourceIdentity;
use walferry::sweep::large_objects::{self, Crew, Ends, Pace, Turn};
use walferry::sweep::sequences::{self, SequencePass, SequenceRules};

type Failure = Box<dyn std::error::Error>;

/// The cost of passes over sequences and large objects.
#[derive(Parser, Clone, Debug)]
#[command(name = "sweeps", verbatim_doc_comment)]
struct Options {
    /// Small sizes: does it work?
    #[arg(long)]
    quick: bool,
    /// Repetitions of each figure
    #[arg(long, default_value_t = 3)]
    repetitions: u32,
    /// Sessions that read large objects side by side
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Major version of both servers [default: the newest installed]
    #[arg(long)]
    server: Option<u32>,
    /// Only the pages of large objects
    #[arg(long)]
    pages: bool,
    /// `cargo bench` says so
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), Failure> {
    let scale = if options.quick { 50 } else { 1 };
    println!("{:<66} {:>10} {:>14}", "", "time", "bytes read");
    if !options.pages {
        let rig = Rig::start(options).await?;
        sequences(&rig, options, 1000 / scale).await?;
        small_objects(&rig, options, 100_000 / scale).await?;
    }
    let rig = Rig::start(options).await?;
    pages(&rig, options, 1024 / i64::from(scale)).await
}

/// Two servers and a migration between them.
struct Rig {
    source: Session,
    target: Session,
    state: State,
    metrics: Metrics,
    info: ConnInfo,
    jobs: usize,
    /// Stopped when this goes.
    _servers: [Cluster; 2],
}

const DATABASE: &str = "bench";

impl Rig {
    async fn start(options: &Options) -> Result<Rig, Failure> {
        let mut servers = Server::find_all()?;
        servers.retain(|server| options.server.is_none_or(|major| server.major == major));
        servers.sort_by_key(|server| server.major);
        let server = servers.pop().ok_or("no such server: run scripts/postgres.sh")?;
        let start = || -> Result<Cluster, ClusterError> {
            let cluster = Cluster::builder(&server)
                .setting("shared_buffers", "512MB")
                .setting("max_wal_size", "8GB")
                .setting("checkpoint_timeout", "30min")
                // Nothing else is to read the tables while a pass is timed.
                .setting("autovacuum", "off")
                .start()?;
            cluster.psql(SUPERUSER, "postgres", "CREATE ROLE mover LOGIN")?;
            cluster.psql(SUPERUSER, "postgres", &format!("CREATE DATABASE {DATABASE} OWNER mover"))?;
            Ok(cluster)
        };
        let servers = [start()?, start()?];
        let info = |side, cluster: &Cluster, user| {
            ConnInfo::parse(side, &cluster.socket_uri(user, DATABASE), &Env::of_process()?)
        };
        let source_info = info(Side::Source, &servers[0], SUPERUSER)?;
        let target_info = info(Side::Target, &servers[1], "mover")?;
        let connect = async |info: &ConnInfo| Session::connect(info, "bench").await;
        let state = State::install(connect(&target_info).await?, "walferry").await?;
        let ours = Provenance::Ours("walferry".to_owned());
        let identity = SourceIdentity {
            system_identifier: "1".to_owned(),
            timeline: 1,
            database: DATABASE.to_owned(),
            version: 0,
        };
        state.begin(&identity, &ours, &Publications::Ours("walferry".to_owned())).await?;
        Ok(Rig {
            source: connect(&source_info).await?,
            target: connect(&target_info).await?,
            state,
            metrics: Metrics::new()?,
            info: source_info,
            jobs: options.jobs,
            _servers: servers,
        })
    }

    fn ends(&self) -> Ends<'_> {
        let Rig { source, target, state, metrics, info, jobs, .. } = self;
        Ends { source, target, state, metrics, crew: Crew { source: info, name: "bench", sessions: *jobs } }
    }

    /// A pass by what has changed; its time and the bytes that the source sent.
    async fn pass(&self, pace: Pace) -> Result<(Duration, u64), Failure> {
        let claim = self.state.claim_large_objects(&self.target, false).await?;
        let (begun, before) = (Instant::now(), self.metrics.large_object_read_bytes.get());
        large_objects::pass(self.ends(), claim, pace, &Turn::default()).await?;
        Ok((begun.elapsed(), self.metrics.large_object_read_bytes.get() - before))
    }

    /// Fails unless the contents of all large objects are equal.
    async fn compare(&self) -> Result<(), Failure> {
        let sql = "SELECT md5(string_agg(oid || md5(lo_get(oid)), ',' ORDER BY oid)) FROM pg_largeobject_metadata";
        let (here, there) = tokio::try_join!(self.source.query_one(sql, &[]), self.target.query_one(sql, &[]))?;
        if here.take::<Option<String>>(0)? == there.take::<Option<String>>(0)? {
            return Ok(());
        }
        Err("the large objects are not equal: the figures are void".into())
    }
}

fn print(what: &str, mut figures: Vec<(Duration, u64)>) -> Duration {
    figures.sort_unstable();
    let Some((time, bytes)) = figures.get(figures.len() / 2) else { return Duration::ZERO };
    println!("{what:<66} {:>8.1} ms {bytes:>14}", time.as_secs_f64() * 1000.0);
    *time
}

async fn sequences(rig: &Rig, options: &Options, count: u32) -> Result<(), Failure> {
    for session in [&rig.source, &rig.target] {
        let sql =
            format!("DO $$ BEGIN FOR i IN 1..{count} LOOP EXECUTE 'CREATE SEQUENCE public.s' || i; END LOOP; END $$");
        session.batch_execute(&sql).await?;
    }
    let filter = TableFilter::default();
    let rules = SequenceRules { filter: &filter, schema: SchemaMode::Create };
    let (mut quiet, mut busy) = (Vec::new(), Vec::new());
    for _ in 0..options.repetitions {
        for figures in [&mut busy, &mut quiet] {
            let begun = Instant::now();
            sequences::pass(&rig.source, &rig.target, &rig.state, rules, SequencePass::Periodic).await?;
            figures.push((begun.elapsed(), 0));
        }
        let sql = "SELECT count(nextval(c.oid::regclass)) FROM pg_class c WHERE relkind = 'S'";
        rig.source.batch_execute(sql).await?;
    }
    // The first of them met sequences that were equal.
    busy.remove(0);
    print(&format!("{count} sequences, nothing changed"), quiet);
    print(&format!("{count} sequences, all changed"), busy);
    Ok(())
}

async fn small_objects(rig: &Rig, options: &Options, count: u32) -> Result<(), Failure> {
    // In several transactions: a server has locks for some thousands of objects.
    for first in (1..=count).step_by(5000) {
        let last = (first + 4999).min(count);
        let sql = format!(
            "SELECT count(lo_from_bytea((100000 + o)::oid, decode(repeat(md5(o::text), 20), 'hex'))) \
             FROM generate_series({first}, {last}) o"
        );
        rig.source.batch_execute(&sql).await?;
    }
    let begun = Instant::now();
    large_objects::copy_initial(rig.ends()).await?;
    print(
        &format!("{count} small objects, first copy"),
        vec![(begun.elapsed(), rig.metrics.large_object_read_bytes.get())],
    );
    let (mut quiet, mut busy) = (Vec::new(), Vec::new());
    for n in 0..options.repetitions {
        quiet.push(rig.pass(Pace::Full).await?);
        let sql = format!(
            "SELECT count((SELECT 1 FROM lo_put((100000 + o)::oid, 5, 'change {n}'))) FROM generate_series({n} + 1, {count}, 100) o"
        );
        rig.source.batch_execute(&sql).await?;
        busy.push(rig.pass(Pace::Full).await?);
    }
    print(&format!("{count} small objects, nothing changed"), quiet);
    print(&format!("{count} small objects, one in a hundred changed"), busy);
    rig.compare().await
}

/// Objects of 16 MiB of bytes that cannot be compressed.
async fn pages(rig: &Rig, options: &Options, mebibytes: i64) -> Result<(), Failure> {
    let mut rng = StdRng::seed_from_u64(1);
    let objects = (mebibytes / 16).max(1);
    for object in 0..objects {
        let oid = u32::try_from(object)? + 1;
        rig.source.query_one("SELECT lo_create($1)", &[&oid]).await?;
        for piece in 0..16_i64 {
            let mut bytes = vec![0_u8; 1 << 20];
            rng.fill(&mut bytes[..]);
            rig.source.query_one("SELECT lo_put($1, $2, $3)", &[&oid, &(piece << 20), &bytes]).await?;
        }
    }
    let total = u64::try_from(objects * 16)? << 20;
    rig.source.batch_execute("VACUUM pg_catalog.pg_largeobject").await?;
    let begun = Instant::now();
    large_objects::copy_initial(rig.ends()).await?;
    let read = rig.metrics.large_object_read_bytes.get();
    let what = format!("{} MiB in {objects} objects", total >> 20);
    print(&format!("{what}, first copy"), vec![(begun.elapsed(), read)]);
    let (mut scans, mut quiet, mut busy, mut beside) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    rig.source.batch_execute("SET max_parallel_workers_per_gather = 0").await?;
    let pages = i64::try_from(total / 2048)?;
    for n in 0..options.repetitions {
        let begun = Instant::now();
        rig.source.query_one("SELECT sum(length(data)) FROM pg_catalog.pg_largeobject", &[]).await?;
        scans.push((begun.elapsed(), 0));
        quiet.push(rig.pass(Pace::Full).await?);
        for (figures, pace, first) in [(&mut busy, Pace::Full, n), (&mut beside, Pace::Beside, n + 50)] {
            let sql = format!(
                "SELECT count((SELECT 1 FROM lo_put((1 + p / 8192)::oid, p % 8192 * 2048 + 100, 'change {n}'))) \
                 FROM generate_series({first}, {pages} - 1, 100) p"
            );
            rig.source.batch_execute(&sql).await?;
            figures.push(rig.pass(pace).await?);
        }
    }
    let scan = print(&format!("{what}, one sequential scan"), scans);
    print(&format!("{what}, a pass without changes"), quiet);
    let bytes = busy.iter().map(|figure| figure.1).max().unwrap_or(0);
    let full = print(&format!("{what}, a pass over one page in a hundred"), busy);
    print(&format!("{what}, the same beside a stream (at most 256 MiB a second)"), beside);
    println!(
        "a pass over one page in a hundred: {:.2} % of the bytes, {:.2} times a sequential scan",
        bytes as f64 * 100.0 / total as f64,
        full.as_secs_f64() / scan.as_secs_f64().max(f64::EPSILON)
    );
    rig.compare().await
}
