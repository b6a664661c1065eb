//! What is measured, and how often.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Sizes of `--quick`, of the full ones: a run takes a minute and shows that
/// everything works. Its figures mean nothing.
const QUICK_SCALE: f64 = 0.02;

/// Catch-up with a backlog: walferry beside a client that only reads
/// (`pg_recvlogical`) and native subscriptions, in one run and interleaved; then,
/// where it is installed, pgcopydb, once and for w2 only.
#[derive(Parser, Clone, Debug)]
#[command(name = "catchup", verbatim_doc_comment)]
pub struct Options {
    /// One repetition of small sizes: does it work?
    #[arg(long)]
    pub quick: bool,
    /// Repetitions of each contender [default: 5, with --quick 1]
    #[arg(long, env = "WALFERRY_BENCH_REPETITIONS")]
    repetitions: Option<usize>,
    /// Size of the workloads, of the full ones [default: 1, with --quick 0.02]
    #[arg(long, env = "WALFERRY_BENCH_SCALE")]
    scale: Option<f64>,
    /// Workloads by their names; all but w5 without it
    #[arg(long, value_delimiter = ',', env = "WALFERRY_BENCH_WORKLOADS")]
    pub workloads: Vec<String>,
    /// Round-trip times for w2, on either side of walferry: 20ms
    #[arg(long, value_parser = humantime::parse_duration, value_delimiter = ',', env = "WALFERRY_BENCH_RTT")]
    pub rtt: Vec<Duration>,
    /// Leave out pgcopydb, which else follows w2 where PATH has it; version 0.10
    /// needs the output plugin wal2json in the server
    #[arg(long)]
    pub no_pgcopydb: bool,
    /// Major version of both servers; `scripts/postgres.sh --newer` fetches 16 and
    /// 18 [default: the newest installed]
    #[arg(long, env = "WALFERRY_BENCH_SERVER")]
    pub server: Option<u32>,
    /// Leave out the latency of single rows
    #[arg(long)]
    pub no_latency: bool,
    /// Leave out the catch-up (latency only)
    #[arg(long)]
    pub no_catchup: bool,
    /// Let the servers wait for the disk (fsync): the other durability class
    #[arg(long)]
    pub fsync: bool,
    /// Where the figures go
    #[arg(long, default_value = "target/bench/catchup.json")]
    pub json: PathBuf,
    /// Where the picture goes
    #[arg(long, default_value = "target/bench/catchup.svg")]
    pub svg: PathBuf,
    /// Measure nothing: table and picture of the figures that are in --json
    #[arg(long)]
    pub draw: bool,
    /// `cargo bench` says so
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Repetitions of each contender.
    pub fn repetitions(&self) -> usize {
        self.repetitions.unwrap_or(if self.quick { 1 } else { 5 }).max(1)
    }

    /// Size of the workloads, of the full ones.
    pub fn scale(&self) -> f64 {
        self.scale.unwrap_or(if self.quick { QUICK_SCALE } else { 1.0 })
    }
}
