//! Catch-up with a backlog, end to end: walferry beside a client that only
//! reads and throws away (`pg_recvlogical`: the roof, for the walsender decodes
//! on one core) and beside native subscriptions, on two throwaway servers; for
//! TPC-B beside pgcopydb too, where it is installed.
//!
//! ```text
//! tables ─ copy ─ slot ─┐
//!                       ├─ load ─ sentinel ─┐   for each repetition, in turn:
//!                       │                   ├── fresh slot and target, CHECKPOINT,
//!                       └── the backlog ────┘   start, sentinel visible, compare
//! ```
//!
//! Invariant: contenders of a workload read the same backlog into the same
//! target, in one run and interleaved; a target that differs from the source
//! afterwards makes the run void. Quote ratios within a run only.

mod chart;
mod contenders;
#[path = "../common/error.rs"]
mod error;
mod latency;
#[path = "../common/link.rs"]
mod link;
mod options;
mod pgcopydb;
#[path = "../common/process.rs"]
mod process;
mod report;
mod rig;
#[path = "../common/servers.rs"]
mod servers;
mod workloads;

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::thread;

use clap::Parser;

use contenders::{Backlog, Contender, Place};
use error::BenchError;
use link::Link;
use options::Options;
use report::{Figures, Measured, Report};
use rig::{Rig, create_parent};
use workloads::Workload;

/// The workload that is also measured over slow links.
const OVER_LINKS: &str = "w2";

/// The workload that pgcopydb follows too.
const WITH_PGCOPYDB: &str = "w2";

/// The workload that runs only when it is asked for: its time is that of the
/// source's spilling to disk.
const ON_REQUEST: &str = "w5";

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(report) => {
            println!("{}", report.table());
            if report.has_void_runs() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<Report, BenchError> {
    if !options.draw {
        measure(options)?;
    }
    let report = Report::read(&options.json)?;
    create_parent(&options.svg)?;
    fs::write(&options.svg, chart::draw(&report))
        .map_err(BenchError::io(format!("write {}", options.svg.display())))?;
    Ok(report)
}

/// Measures; the figures so far are saved after each workload.
fn measure(options: &Options) -> Result<(), BenchError> {
    let chosen = choose(options)?;
    let rig = Rig::start(options)?;
    let mut report = Report {
        conditions: conditions(&rig)?,
        repetitions: options.repetitions(),
        scale: options.scale(),
        ..Report::default()
    };
    if !options.no_latency {
        report.latency = latency::measure(&rig)?;
        report.save(&options.json)?;
    }
    for workload in chosen.iter().filter(|_| !options.no_catchup) {
        report.workloads.push(measure_one(&rig, workload, options)?);
        report.conditions.insert("load average at the end".to_owned(), load_average());
        report.save(&options.json)?;
    }
    Ok(())
}

fn choose(options: &Options) -> Result<Vec<Workload>, BenchError> {
    let all = workloads::all(options.scale());
    let unknown = options.workloads.iter().find(|name| all.iter().all(|workload| workload.name != name.as_str()));
    if let Some(name) = unknown {
        let names: Vec<&str> = all.iter().map(|workload| workload.name).collect();
        return Err(BenchError::Unexpected(format!("there is no workload {name}; there are {}", names.join(", "))));
    }
    let is_chosen = |workload: &Workload| match options.workloads.as_slice() {
        [] => workload.name != ON_REQUEST,
        names => names.iter().any(|name| name == workload.name),
    };
    Ok(all.into_iter().filter(is_chosen).collect())
}

fn measure_one(rig: &Rig, workload: &Workload, options: &Options) -> Result<Measured, BenchError> {
    eprintln!("{}: {}", workload.name, workload.title);
    rig.prepare(workload)?;
    let end = rig.load(workload)?;
    let backlog = Backlog { end, digest: rig.digest(&rig.source, rig::DATABASE)? };
    let contenders = contenders(rig, workload, options)?;
    let mut figures: Vec<Figures> = contenders.iter().map(|contender| Figures::new(contender.name())).collect();
    let repetitions = options.repetitions();
    for repetition in 1..=repetitions {
        let taking_part = contenders.iter().zip(&mut figures);
        for (contender, figures) in
            taking_part.filter(|(contender, _)| contender.takes_part_in(repetition, repetitions))
        {
            let run = contender.run(rig, &backlog);
            match &run {
                Ok(run) => eprintln!("  {:<32} {:>8.2} s", contender.name(), run.seconds),
                Err(error @ (BenchError::Over(_) | BenchError::LeftOut(_))) => {
                    eprintln!("  {:<32} {error}", contender.name());
                }
                Err(error) => eprintln!("  {:<32} void: {error}", contender.name()),
            }
            figures.add(run);
        }
    }
    rig.clear()?;
    Ok(Measured {
        name: workload.name.to_owned(),
        title: workload.title.clone(),
        changes: workload.changes,
        transactions: workload.transactions,
        contenders: figures,
    })
}

fn contenders(rig: &Rig, workload: &Workload, options: &Options) -> Result<Vec<Contender>, BenchError> {
    let mut contenders = vec![Contender::Roof, Contender::Native("off")];
    if rig.major() >= 16 {
        contenders.push(Contender::Native("parallel"));
    }
    contenders.push(Contender::Walferry);
    for &rtt in options.rtt.iter().filter(|_| workload.name == OVER_LINKS) {
        for (place, server_port) in [(Place::Target, rig.target.port()), (Place::Source, rig.source.port())] {
            let port = Link::start(server_port, rtt)?.port;
            contenders.push(Contender::WalferryOver { place, rtt, port });
        }
    }
    // Last: it writes to the source.
    if workload.name == WITH_PGCOPYDB && !options.no_pgcopydb && pgcopydb::is_installed() {
        contenders.push(Contender::Pgcopydb);
    }
    Ok(contenders)
}

/// The machine, the servers and their settings.
fn conditions(rig: &Rig) -> Result<BTreeMap<String, String>, BenchError> {
    let mut conditions = rig.conditions()?;
    let cores = thread::available_parallelism().map_err(BenchError::io("count the cores"))?;
    let memory = fs::read_to_string("/proc/meminfo").map_err(BenchError::io("read /proc/meminfo"))?;
    let kib = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB"));
    let gib = kib.and_then(|kib| kib.trim().parse::<f64>().ok()).unwrap_or_default() / 1_048_576.0;
    let machine =
        format!("{cores} cores, {gib:.0} GiB, both servers, PostgreSQL {}, and walferry on one machine", rig.major());
    conditions.insert("machine".to_owned(), machine);
    conditions.insert("walferry".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    conditions.insert("load average at the beginning".to_owned(), load_average());
    Ok(conditions)
}

/// Processes that wanted a core in the last 1, 5 and 15 minutes.
fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
