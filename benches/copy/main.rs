//! The copy, end to end: from an empty database to all rows with their keys,
//! on two throwaway servers.
//!
//! ```text
//! tables on the source ─┐   for each repetition, in turn:
//!                       └── empty target, CHECKPOINT, start, all rows and keys there, compare
//! ```
//!
//! Invariant: contenders of a workload copy the same rows into an empty
//! database of the same server, in one run and interleaved; a target that
//! differs from the source afterwards makes the run void. Quote ratios within a
//! run only.

mod contenders;
#[path = "../common/error.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod error;
#[path = "../common/link.rs"]
mod link;
mod options;
#[path = "../common/process.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod process;
mod report;
#[path = "../common/servers.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod servers;
mod workloads;

use std::process::ExitCode;

use clap::Parser;

use contenders::{Contender, Place};
use error::BenchError;
use link::Link;
use options::Options;
use report::{Figures, Measured, Report};
use servers::{DATABASE, Servers};
use workloads::Workload;

fn main() -> ExitCode {
    let options = Options::parse();
    match measure(&options) {
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

/// Measures; the figures so far are saved after each workload.
fn measure(options: &Options) -> Result<Report, BenchError> {
    let chosen = choose(options)?;
    let servers = Servers::start(options)?;
    let mut report =
        Report { conditions: servers.conditions()?, repetitions: options.repetitions(), ..Report::default() };
    for workload in &chosen {
        report.workloads.push(measure_one(&servers, workload, options)?);
        report.save(&options.json)?;
    }
    Ok(report)
}

fn choose(options: &Options) -> Result<Vec<Workload>, BenchError> {
    let all = workloads::all(options.scale());
    let unknown = options.workloads.iter().find(|name| all.iter().all(|workload| workload.name != name.as_str()));
    if let Some(name) = unknown {
        return Err(BenchError::Unexpected(format!("there is no workload {name}; there are large and small")));
    }
    let is_chosen =
        |workload: &Workload| options.workloads.is_empty() || options.workloads.iter().any(|n| n == workload.name);
    Ok(all.into_iter().filter(is_chosen).collect())
}

fn measure_one(servers: &Servers, workload: &Workload, options: &Options) -> Result<Measured, BenchError> {
    eprintln!("{}: {}", workload.name, workload.title);
    workload.prepare(servers)?;
    let expected = servers.digest(&servers.source, DATABASE)?;
    let contenders = contenders(servers, workload, options)?;
    let mut figures: Vec<Figures> = contenders.iter().map(|contender| Figures::new(contender.name())).collect();
    for _ in 0..options.repetitions() {
        for (contender, figures) in contenders.iter().zip(&mut figures) {
            let run = contender.run(servers, options, &expected);
            match &run {
                Ok(run) => eprintln!("  {:<32} {:>8.2} s", contender.name(), run.seconds),
                Err(error @ BenchError::LeftOut(_)) => eprintln!("  {:<32} {error}", contender.name()),
                Err(error) => eprintln!("  {:<32} void: {error}", contender.name()),
            }
            figures.add(run);
        }
    }
    contenders::clear(servers)?;
    Ok(Measured { name: workload.name.to_owned(), title: workload.title.clone(), contenders: figures })
}

fn contenders(servers: &Servers, workload: &Workload, options: &Options) -> Result<Vec<Contender>, BenchError> {
    let mut contenders = vec![Contender::Raw];
    if workload.name == workloads::SMALL {
        contenders.push(Contender::RawText);
    }
    contenders.push(Contender::Walferry);
    for &rtt in options.rtt.iter().filter(|_| workload.name == workloads::LARGE) {
        for (place, server_port) in [(Place::Source, servers.source.port()), (Place::Target, servers.target.port())] {
            let port = Link::start(server_port, rtt)?.port;
            contenders.push(Contender::WalferryOver { place, rtt, port });
        }
    }
    if !options.no_native {
        contenders.push(Contender::Native);
    }
    if !options.no_pgcopydb {
        contenders.push(Contender::Pgcopydb);
    }
    Ok(contenders)
}
