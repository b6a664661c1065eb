//! Who reads the backlog: the roof, native subscriptions, walferry, pgcopydb.
//!
//! Invariant: the time runs from the start of the contender until the sentinel
//! row, the last one of the backlog, is visible on the target (the roof has no
//! target: until it has read the end of the backlog). A target that is not
//! equal to the source then makes the run void.

use std::collections::BTreeMap;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use walferry::demo::cluster::Cluster;

use crate::error::BenchError;
use crate::pgcopydb;
use crate::process::{Process, Used};
use crate::rig::{DATABASE, NATIVE_BASE, PUBLICATION, RUN, Rig, Sql, through};

/// Pause between two looks for the sentinel row.
const POLL: Duration = Duration::from_millis(5);

/// The longest that a run may take.
const LIMIT: Duration = Duration::from_secs(600);

/// What walferry logs when its stream begins.
const STREAM_BEGINS: &str = "streaming";

/// Where a slow link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Between source and walferry: walferry runs beside the target.
    Source,
    /// Between walferry and target: walferry runs beside the source.
    Target,
}

/// A reader of the backlog.
#[derive(Clone, Debug)]
pub enum Contender {
    /// `pg_recvlogical`, which throws everything away.
    Roof,
    /// A subscription with this value of `streaming`.
    Native(&'static str),
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
    /// pgcopydb, once and after everybody else.
    Pgcopydb,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// How long it took.
    pub seconds: f64,
    /// How much of it went by before the stream began: connections, checks,
    /// catalogs. Known of walferry only.
    pub start_up_seconds: Option<f64>,
    /// What the contender used, where it is one process.
    pub used: Option<Used>,
}

/// What a run needs to know of the backlog.
pub struct Backlog {
    /// Where it ends.
    pub end: String,
    /// What the source has then.
    pub digest: BTreeMap<String, String>,
}

impl Contender {
    /// Its name in tables.
    pub fn name(&self) -> String {
        match self {
            Contender::Roof => "roof".to_owned(),
            Contender::Native(streaming) => format!("native, streaming {streaming}"),
            Contender::Walferry => "walferry".to_owned(),
            Contender::WalferryOver { place, rtt, .. } => {
                let place = if *place == Place::Source { "source" } else { "target" };
                format!("walferry, {} ms to the {place}", rtt.as_millis())
            }
            Contender::Pgcopydb => pgcopydb::NAME.to_owned(),
        }
    }

    /// Whether it runs in this repetition, of so many; both count from 1.
    pub fn takes_part_in(&self, repetition: usize, repetitions: usize) -> bool {
        match self {
            Contender::Pgcopydb => repetition == repetitions,
            _ => true,
        }
    }

    /// Reads the backlog once.
    pub fn run(&self, rig: &Rig, backlog: &Backlog) -> Result<Run, BenchError> {
        match self {
            Contender::Roof => roof(rig, backlog),
            Contender::Native(streaming) => {
                let run = native(rig, streaming);
                // Also after a failure: the subscription would go on.
                let dropped = drop_subscription(rig);
                let run = run?;
                dropped?;
                compare(rig, backlog)?;
                Ok(run)
            }
            Contender::Walferry => walferry(rig, backlog, &rig.source_uri(), &rig.target_uri(RUN)),
            Contender::WalferryOver { place, port, .. } => {
                let (mut source, mut target) = (rig.source_uri(), rig.target_uri(RUN));
                match place {
                    Place::Source => source = through(&source, rig.source.port(), *port),
                    Place::Target => target = through(&target, rig.target.port(), *port),
                }
                walferry(rig, backlog, &source, &target)
            }
            Contender::Pgcopydb => pgcopydb::run(rig, backlog),
        }
    }
}

fn roof(rig: &Rig, backlog: &Backlog) -> Result<Run, BenchError> {
    rig.fresh("roof", None)?;
    let mut command = Command::new(rig.program("pg_recvlogical"));
    command.args(["--slot", "roof", "--start", "--no-loop", "--file", "/dev/null", "--endpos", &backlog.end]);
    command.args(["-o", "proto_version=1", "-o", &format!("publication_names={PUBLICATION}")]);
    command.args(["--dbname", &rig.source_uri()]);
    let begun = Instant::now();
    let used = Process::start("pg_recvlogical", command)?.finish(LIMIT)?;
    let seconds = begun.elapsed().as_secs_f64();
    rig.drop_slot("roof")?;
    Ok(Run { seconds, start_up_seconds: None, used: Some(used) })
}

fn native(rig: &Rig, streaming: &str) -> Result<Run, BenchError> {
    rig.fresh("native", Some(NATIVE_BASE))?;
    let target = rig.sql(&rig.target, RUN)?;
    target.run(&format!(
        "CREATE SUBSCRIPTION native CONNECTION '{}' PUBLICATION {PUBLICATION} \
         WITH (slot_name = 'native', create_slot = false, copy_data = false, enabled = false, streaming = {streaming})",
        rig.source_uri()
    ))?;
    let begun = Instant::now();
    target.run("ALTER SUBSCRIPTION native ENABLE")?;
    await_sentinel(&target, begun, LIMIT, || Ok(()))?;
    Ok(Run { seconds: begun.elapsed().as_secs_f64(), start_up_seconds: None, used: None })
}

/// Ends the subscription and its slot.
pub fn drop_subscription(rig: &Rig) -> Result<(), BenchError> {
    let target = rig.sql(&rig.target, RUN)?;
    if !target.rows("SELECT FROM pg_subscription WHERE subname = 'native'")?.is_empty() {
        target.run("ALTER SUBSCRIPTION native DISABLE")?;
        target.run("ALTER SUBSCRIPTION native SET (slot_name = NONE)")?;
        target.run("DROP SUBSCRIPTION native")?;
    }
    rig.drop_slot("native")
}

fn walferry(rig: &Rig, backlog: &Backlog, source_uri: &str, target_uri: &str) -> Result<Run, BenchError> {
    rig.fresh("walferry", Some(DATABASE))?;
    let target = rig.sql(&rig.target, RUN)?;
    let command = rig.walferry(source_uri, target_uri, &["catchup"]);
    let begun = Instant::now();
    let mut process = Process::start("walferry catchup", command)?;
    let mut start_up_seconds = None;
    await_sentinel(&target, begun, LIMIT, || {
        if start_up_seconds.is_none() && process.output().contains(STREAM_BEGINS) {
            start_up_seconds = Some(begun.elapsed().as_secs_f64());
        }
        process.look()
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    let used = process.finish(LIMIT)?;
    compare(rig, backlog)?;
    rig.drop_slot("walferry")?;
    Ok(Run { seconds, start_up_seconds, used: Some(used) })
}

/// Waits until the sentinel row is visible on the target.
///
/// # Errors
/// [`BenchError::Late`] beyond the limit, which counts from `begun`; else what
/// is done meanwhile says.
pub fn await_sentinel(
    target: &Sql<'_>,
    begun: Instant,
    limit: Duration,
    mut meanwhile: impl FnMut() -> Result<(), BenchError>,
) -> Result<(), BenchError> {
    while target.rows("SELECT 1 FROM sentinel")?.is_empty() {
        meanwhile()?;
        if begun.elapsed() > limit {
            return Err(BenchError::Late("the sentinel row".to_owned()));
        }
        sleep(POLL);
    }
    meanwhile()
}

/// The target of a run must have what the source has.
pub fn compare(rig: &Rig, backlog: &Backlog) -> Result<(), BenchError> {
    let cluster: &Cluster = &rig.target;
    let found = rig.digest(cluster, RUN)?;
    if found == backlog.digest {
        return Ok(());
    }
    let differing = backlog.digest.iter().filter(|(table, digest)| found.get(*table) != Some(*digest));
    let words: Vec<String> = differing
        .map(|(table, digest)| {
            format!("{table} has {} instead of {digest}", found.get(table).map_or("nothing", String::as_str))
        })
        .collect();
    Err(BenchError::Differs(words.join("; ")))
}
