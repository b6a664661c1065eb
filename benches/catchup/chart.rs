//! The picture: bars of the time over the roof, as SVG.
//!
//! Invariant: drawn from the report alone, without pgcopydb, beside whose bar
//! the others would not be seen; colours and text hold on a light
//! and on a dark page, for the picture brings its own ground.

use std::fmt::Write;

use crate::pgcopydb;
use crate::report::{Figures, Measured, Report};

/// Width of the picture, in SVG units.
const WIDTH: f64 = 860.0;

/// Where the bars begin, left of which the names are.
const LEFT: f64 = 250.0;

/// What is left free on the right for the figures.
const RIGHT: f64 = 120.0;

/// Height of a bar.
const BAR: f64 = 14.0;

/// Free space between two workloads.
const GAP: f64 = 16.0;

/// Where the first bar is, below title and legend.
const TOP: f64 = 64.0;

/// The picture of a report.
pub fn draw(report: &Report) -> String {
    let longest = report
        .workloads
        .iter()
        .flat_map(|workload| drawn(workload).filter_map(|figures| workload.over_roof(figures)))
        .fold(1.0, f64::max);
    let unit = (WIDTH - LEFT - RIGHT) / longest;
    let mut body = String::new();
    let mut y = TOP;
    for workload in &report.workloads {
        y = bars(&mut body, workload, y, unit) + GAP;
    }
    let height = y + 28.0;
    let roof = LEFT + unit;
    let about =
        format!("medians of {}; {}", report.repetitions, report.conditions.get("machine").map_or("", String::as_str));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"bold\" fill=\"#222222\">Time to catch up, over the roof \
         (a client that only reads: 1.0); shorter is better</text>\n\
         {legend}{body}\
         <line x1=\"{roof:.1}\" y1=\"{line_top}\" x2=\"{roof:.1}\" y2=\"{y:.1}\" stroke=\"#222222\" stroke-dasharray=\"3 3\"/>\n\
         <text x=\"16\" y=\"{about_y:.1}\" font-size=\"11\" fill=\"#555555\">{about}</text>\n\
         </svg>\n",
        legend = legend(),
        line_top = TOP - 6.0,
        about_y = height - 12.0,
        about = escape(&about),
    )
}

fn legend() -> String {
    let mut text = String::new();
    for (x, colour, name) in [(16.0, OURS, "walferry"), (110.0, THEIRS, "native subscription")] {
        // Writing into a String cannot fail.
        let _written = writeln!(
            text,
            "<rect x=\"{x}\" y=\"36\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"46\" fill=\"#222222\">{name}</text>",
            x + 18.0
        );
    }
    text
}

const OURS: &str = "#1b7f5c";
const THEIRS: &str = "#b0b7bf";

/// Whose bars are drawn: the roof is the line.
fn drawn(workload: &Measured) -> impl Iterator<Item = &Figures> {
    let left_out = ["roof", pgcopydb::NAME];
    workload.contenders.iter().filter(move |figures| !left_out.contains(&figures.name.as_str()))
}

/// The bars of a workload from `y` on; where they end.
fn bars(body: &mut String, workload: &Measured, y: f64, unit: f64) -> f64 {
    let mut at = y;
    for figures in drawn(workload) {
        let Some(over) = workload.over_roof(figures) else { continue };
        let colour = if figures.name.starts_with("walferry") { OURS } else { THEIRS };
        let width = over * unit;
        let _written = writeln!(
            body,
            "<rect x=\"{LEFT}\" y=\"{at:.1}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"11\" fill=\"#222222\">{}</text>",
            LEFT + width + 6.0,
            at + BAR - 3.0,
            escape(&note(figures, over)),
            height = BAR - 2.0,
        );
        at += BAR;
    }
    let mut title_y = y + BAR - 3.0;
    for line in lines(&format!("{} {}", workload.name, workload.title)) {
        let _written = writeln!(
            body,
            "<text x=\"16\" y=\"{title_y:.1}\" font-size=\"11\" fill=\"#222222\">{}</text>",
            escape(&line)
        );
        title_y += BAR;
    }
    at.max(title_y - BAR + 3.0)
}

fn note(figures: &Figures, over: f64) -> String {
    let seconds = figures.median_seconds().unwrap_or_default();
    match figures.name.strip_prefix("walferry, ") {
        Some(link) => format!("{over:.2} ({seconds:.1} s, {link})"),
        None => format!("{over:.2} ({seconds:.1} s)"),
    }
}

/// Words in lines that fit left of the bars.
fn lines(text: &str) -> Vec<String> {
    /// Letters of a line at this size of type.
    const LETTERS: usize = 40;
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= LETTERS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
