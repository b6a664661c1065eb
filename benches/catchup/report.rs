//! The figures: as JSON, and as a table made from it.
//!
//! Invariant: the JSON holds every run and the conditions; whatever is printed
//! or drawn is computed from it, so that it can be made again without
//! measuring.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::contenders::Run;
use crate::error::BenchError;
use crate::rig::create_parent;

/// Bytes of a mebibyte.
const MIB: f64 = 1_048_576.0;

/// Everything measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// What it was measured on.
    pub conditions: BTreeMap<String, String>,
    /// Repetitions that were asked for.
    pub repetitions: usize,
    /// Size of the workloads, of the full ones.
    pub scale: f64,
    /// Catch-up with a backlog.
    pub workloads: Vec<Measured>,
    /// Single rows at low load.
    pub latency: Vec<Latency>,
}

/// A workload and its contenders.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// What it is.
    pub title: String,
    /// Row changes.
    pub changes: u64,
    /// Source transactions.
    pub transactions: u64,
    /// Who read it.
    pub contenders: Vec<Figures>,
}

/// The runs of a contender.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Its name.
    pub name: String,
    /// Seconds of each good run.
    pub seconds: Vec<f64>,
    /// Seconds of each good run that went by before the stream began, where
    /// that is known.
    #[serde(default)]
    pub start_up_seconds: Vec<f64>,
    /// CPU seconds (user and system) of the contender's own process.
    pub cpu_seconds: Vec<f64>,
    /// Its peak of resident memory, in bytes.
    pub peak_rss_bytes: Vec<u64>,
    /// Limits that it was not done by, in seconds, one for each such run.
    #[serde(default)]
    pub over_seconds: Vec<u64>,
    /// Why it did not run.
    #[serde(default)]
    pub left_out: Option<String>,
    /// Why runs are void.
    pub void: Vec<String>,
}

/// Single rows at low load.
#[derive(Debug, Serialize, Deserialize)]
pub struct Latency {
    /// Who carried them.
    pub contender: String,
    /// How many.
    pub samples: usize,
    /// Half were faster.
    pub median_ms: f64,
    /// 95 of 100 were faster.
    pub p95_ms: f64,
    /// 99 of 100 were faster.
    pub p99_ms: f64,
}

impl Figures {
    /// A contender without runs yet.
    pub fn new(name: String) -> Self {
        Figures { name, ..Figures::default() }
    }

    /// Adds a run.
    pub fn add(&mut self, run: Result<Run, BenchError>) {
        match run {
            Ok(run) => {
                self.seconds.push(run.seconds);
                self.start_up_seconds.extend(run.start_up_seconds);
                self.cpu_seconds.extend(run.used.map(|used| used.cpu_seconds));
                self.peak_rss_bytes.extend(run.used.map(|used| used.peak_rss_bytes));
            }
            Err(BenchError::Over(limit)) => self.over_seconds.push(limit.as_secs()),
            Err(BenchError::LeftOut(reason)) => self.left_out = Some(reason),
            Err(error) => self.void.push(error.to_string()),
        }
    }

    /// Its median for the table; a run that was not done by its limit comes first.
    fn seconds_shown(&self) -> String {
        match self.over_seconds.iter().max() {
            Some(limit) => format!("over {limit}"),
            None => shown(self.median_seconds(), 2),
        }
    }

    /// The median of the good runs' seconds.
    pub fn median_seconds(&self) -> Option<f64> {
        median(&self.seconds)
    }
}

impl Measured {
    /// A contender's median over the roof's.
    pub fn over_roof(&self, figures: &Figures) -> Option<f64> {
        Some(figures.median_seconds()? / self.find("roof")?.median_seconds()?)
    }

    /// A contender's speed, of the fastest native subscription's.
    pub fn of_native(&self, figures: &Figures) -> Option<f64> {
        let native = self.contenders.iter().filter(|other| other.name.starts_with("native"));
        let best = native.filter_map(Figures::median_seconds).min_by(f64::total_cmp)?;
        Some(best / figures.median_seconds()?)
    }

    fn find(&self, name: &str) -> Option<&Figures> {
        self.contenders.iter().find(|figures| figures.name == name)
    }

    fn rows(&self) -> impl Iterator<Item = Vec<String>> + '_ {
        self.contenders.iter().map(|figures| {
            let runs = &figures.seconds;
            let low = runs.iter().copied().min_by(f64::total_cmp);
            let high = runs.iter().copied().max_by(f64::total_cmp);
            let is_ours = figures.name.starts_with("walferry");
            let cpu = median(&figures.cpu_seconds).filter(|_| is_ours);
            let peak = figures.peak_rss_bytes.iter().max().filter(|_| is_ours);
            vec![
                self.name.clone(),
                figures.name.clone(),
                figures.seconds_shown(),
                low.zip(high).map_or_else(String::new, |(low, high)| format!("{low:.2}–{high:.2}")),
                shown(median(&figures.start_up_seconds), 2),
                shown(self.over_roof(figures), 2),
                shown(figures.median_seconds().map(|seconds| self.changes as f64 / seconds / 1000.0), 0),
                shown(self.of_native(figures).filter(|_| is_ours), 2),
                shown(cpu.map(|seconds| seconds / (self.changes as f64 / 1e6)), 2),
                shown(peak.map(|&bytes| bytes as f64 / MIB), 0),
                match (&figures.left_out, figures.void.len()) {
                    (Some(_), _) => "left out".to_owned(),
                    (None, 0) => String::new(),
                    (None, void) => format!("{void} void"),
                },
            ]
        })
    }
}

/// A number with so many decimals; nothing where there is none.
fn shown(number: Option<f64>, decimals: usize) -> String {
    number.map_or_else(String::new, |number| format!("{number:.decimals$}"))
}

/// The middle one; of an even number the mean of both.
fn median(numbers: &[f64]) -> Option<f64> {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    Some((sorted.get(sorted.len() / 2 - 1)? + upper) / 2.0)
}

impl Report {
    /// Whether any run is void.
    pub fn has_void_runs(&self) -> bool {
        self.workloads.iter().flat_map(|workload| &workload.contenders).any(|figures| !figures.void.is_empty())
    }

    /// Writes the JSON.
    pub fn save(&self, file: &Path) -> Result<(), BenchError> {
        create_parent(file)?;
        let text = serde_json::to_string_pretty(self).map_err(|error| BenchError::Unexpected(error.to_string()))?;
        fs::write(file, text + "\n").map_err(BenchError::io(format!("write {}", file.display())))
    }

    /// Reads the JSON.
    pub fn read(file: &Path) -> Result<Self, BenchError> {
        let text = fs::read_to_string(file).map_err(BenchError::io(format!("read {}", file.display())))?;
        serde_json::from_str(&text).map_err(|error| BenchError::Unexpected(format!("{}: {error}", file.display())))
    }

    /// The table, for a terminal or as Markdown.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header([
            "workload",
            "contender",
            "seconds",
            "range",
            "start-up",
            "over roof",
            "k changes/s",
            "of native's speed",
            "CPU s per M changes",
            "peak MiB",
            "",
        ]);
        for row in self.workloads.iter().flat_map(Measured::rows) {
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let mut text = table.to_string();
        text.push_str("\n\n");
        for workload in &self.workloads {
            text.push_str(&format!("{}: {}\n", workload.name, workload.title));
            for figures in &workload.contenders {
                if let Some(reason) = &figures.left_out {
                    text.push_str(&format!("  left out, {}: {reason}\n", figures.name));
                }
                for reason in &figures.void {
                    text.push_str(&format!("  void, {}: {reason}\n", figures.name));
                }
            }
        }
        for latency in &self.latency {
            text.push_str(&format!(
                "single row at low load, {}: median {:.1} ms, 95 % {:.1} ms, 99 % {:.1} ms ({} rows)\n",
                latency.contender, latency.median_ms, latency.p95_ms, latency.p99_ms, latency.samples
            ));
        }
        text.push_str(&format!("\nmedians of {}, scale {}\n", self.repetitions, self.scale));
        for (name, value) in &self.conditions {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text
    }
}
