//! The figures: as JSON, and as a table made from it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::contenders::Run;
use crate::error::BenchError;
use crate::servers::create_parent;

/// Bytes of a mebibyte.
const MIB: f64 = 1_048_576.0;

/// Everything measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// What it was measured on.
    pub conditions: BTreeMap<String, String>,
    /// Repetitions that were asked for.
    pub repetitions: usize,
    /// What was copied.
    pub workloads: Vec<Measured>,
}

/// A workload and its contenders; the raw pipe comes first.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Its name.
    pub name: String,
    /// What it is.
    pub title: String,
    /// Who copied it.
    pub contenders: Vec<Figures>,
}

/// The runs of a contender.
#[derive(Debug, Default, Serialize)]
pub struct Figures {
    /// Its name.
    pub name: String,
    /// Seconds of each good run.
    pub seconds: Vec<f64>,
    /// CPU seconds (user and system) of the contender's own process.
    pub cpu_seconds: Vec<f64>,
    /// Its peak of resident memory, in bytes.
    pub peak_rss_bytes: Vec<u64>,
    /// Why it did not run.
    pub left_out: Option<String>,
    /// Why runs are void.
    pub void: Vec<String>,
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
                self.cpu_seconds.extend(run.used.map(|used| used.cpu_seconds));
                self.peak_rss_bytes.extend(run.used.map(|used| used.peak_rss_bytes));
            }
            Err(BenchError::LeftOut(reason)) => self.left_out = Some(reason),
            Err(error) => self.void.push(error.to_string()),
        }
    }

    fn fate(&self) -> String {
        match (&self.left_out, self.void.len()) {
            (Some(_), _) => "left out".to_owned(),
            (None, 0) => String::new(),
            (None, void) => format!("{void} void"),
        }
    }
}

impl Measured {
    fn median_of(&self, name: &str) -> Option<f64> {
        median(&self.contenders.iter().find(|figures| figures.name == name)?.seconds)
    }

    fn rows(&self) -> impl Iterator<Item = Vec<String>> + '_ {
        self.contenders.iter().map(|figures| {
            let seconds = median(&figures.seconds);
            let over = |other: &str| Some(seconds? / self.median_of(other)?);
            let low = figures.seconds.iter().copied().min_by(f64::total_cmp);
            let high = figures.seconds.iter().copied().max_by(f64::total_cmp);
            vec![
                self.name.clone(),
                figures.name.clone(),
                shown(seconds, 2),
                low.zip(high).map_or_else(String::new, |(low, high)| format!("{low:.2}–{high:.2}")),
                shown(over("raw"), 2),
                shown(over("walferry"), 2),
                shown(median(&figures.cpu_seconds), 2),
                shown(figures.peak_rss_bytes.iter().max().map(|&bytes| bytes as f64 / MIB), 0),
                figures.fate(),
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

    /// The table, for a terminal or as Markdown.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let head = ["workload", "contender", "seconds", "range", "over raw", "over walferry", "CPU s", "peak MiB", ""];
        table.set_header(head);
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
        text.push_str(&format!("\nmedians of {}\n", self.repetitions));
        for (name, value) in &self.conditions {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text
    }
}
