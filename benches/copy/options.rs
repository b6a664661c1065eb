//! What is measured, and how often.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// pgbench scale of `--quick`: a run takes a minute and shows that everything
/// works. Its figures mean little.
const QUICK_SCALE: u64 = 10;

/// pgbench scale of a full run: 10 million rows, 1.3 GB.
const FULL_SCALE: u64 = 100;

/// The copy: walferry beside a raw binary COPY pipe with the keys built
/// afterwards, the table synchronisation of a native subscription and, where it
/// is installed, pgcopydb; in one run and interleaved.
#[derive(Parser, Clone, Debug)]
#[command(name = "copy", verbatim_doc_comment)]
pub struct Options {
    /// One repetition at scale 10: does it work?
    #[arg(long)]
    pub quick: bool,
    /// Repetitions of each contender [default: 5, with --quick 1]
    #[arg(long, env = "WALFERRY_BENCH_REPETITIONS")]
    repetitions: Option<usize>,
    /// pgbench scale of the large table, 100,000 rows each [default: 100, with --quick 10]
    #[arg(long, env = "WALFERRY_BENCH_COPY_SCALE")]
    scale: Option<u64>,
    /// Workloads by their names, large and small; both without it
    #[arg(long, value_delimiter = ',')]
    pub workloads: Vec<String>,
    /// Round-trip times for walferry and the large table, on either side: 20ms
    #[arg(long, value_parser = humantime::parse_duration, value_delimiter = ',', env = "WALFERRY_BENCH_RTT")]
    pub rtt: Vec<Duration>,
    /// Workers of walferry and pgcopydb [default: walferry's own]
    #[arg(long)]
    pub jobs: Option<u64>,
    /// Leave out pgcopydb
    #[arg(long)]
    pub no_pgcopydb: bool,
    /// Leave out native table synchronisation
    #[arg(long)]
    pub no_native: bool,
    /// Major version of both servers; `scripts/postgres.sh --newer` fetches 16 and
    /// 18 [default: the newest installed]
    #[arg(long, env = "WALFERRY_BENCH_SERVER")]
    pub server: Option<u32>,
    /// Let the servers wait for the disk (fsync): the other durability class
    #[arg(long)]
    pub fsync: bool,
    /// Where the figures go
    #[arg(long, default_value = "target/bench/copy.json")]
    pub json: PathBuf,
    /// `cargo bench` says so
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Repetitions of each contender.
    pub fn repetitions(&self) -> usize {
        self.repetitions.unwrap_or(if self.quick { 1 } else { 5 }).max(1)
    }

    /// pgbench scale of the large table.
    pub fn scale(&self) -> u64 {
        self.scale.unwrap_or(if self.quick { QUICK_SCALE } else { FULL_SCALE }).max(1)
    }
}
