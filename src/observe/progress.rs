//! Progress of the copy: bars on a terminal, log lines elsewhere.
//!
//! Invariant: nothing here can fail the copy. Bars and log lines share the terminal through
//! [`StderrWriter`], which writes a line above the bars, so neither tears the other.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

use super::status::human_bytes;
use crate::border::indented;
use crate::sql::TableName;

/// Pause between two log lines about one thing: a copy of hours stays readable.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Pause between two changes of a bar: what an eye can follow.
const BAR_INTERVAL: Duration = Duration::from_millis(100);

/// The bars of this process: there is one terminal.
static TERMINAL: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Where progress is shown.
enum Sink {
    Bars(MultiProgress),
    Lines,
}

/// Shows the progress of a copy. Cheap to clone.
#[derive(Clone)]
pub struct Progress {
    inner: Arc<Inner>,
}

struct Inner {
    sink: Sink,
    interval: Duration,
    total: Mutex<Total>,
    shown: Throttle,
}

/// The whole copy.
#[derive(Default)]
struct Total {
    tables: usize,
    finished: usize,
    /// Estimated bytes of all tables.
    expected: u64,
    /// The part of `expected` that is done; a finished table counts in full.
    done: u64,
    /// Bytes that really came.
    bytes: u64,
    rows: u64,
    /// WAL that the slot holds back on the source, in bytes.
    retained: Option<u64>,
    began: Option<Instant>,
    bar: Option<ProgressBar>,
}

/// Lets one of many callers through each interval.
struct Throttle {
    epoch: Instant,
    /// Milliseconds after the epoch when the next one may pass.
    next: AtomicU64,
}

impl Throttle {
    fn new(first: Duration) -> Self {
        Throttle { epoch: Instant::now(), next: AtomicU64::new(millis(first)) }
    }

    fn passes(&self, interval: Duration) -> bool {
        let now = millis(self.epoch.elapsed());
        let next = self.next.load(Ordering::Relaxed);
        let after = now + millis(interval);
        now >= next && self.next.compare_exchange(next, after, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `rows`, `bytes`, rate, and the time left if `share` (0 to 1) is done.
fn amounts(rows: u64, bytes: u64, elapsed: Duration, share: f64) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let mut text = format!("{rows} rows, {}, {}/s", human_bytes(bytes as f64), human_bytes(bytes as f64 / seconds));
    let left = seconds / share - seconds;
    // Before the first percent any estimate is noise.
    if (0.01..1.0).contains(&share) && left.is_finite() {
        text.push_str(&format!(", {} left", HumanDuration(Duration::from_secs_f64(left))));
    }
    text
}

/// `done` of `expected`, 0 to 1; 0 where nothing is known.
fn share(done: u64, expected: u64) -> f64 {
    if expected == 0 { 0.0 } else { (done as f64 / expected as f64).min(1.0) }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▉▊▋▌▍▎▏ ")
}

impl Total {
    fn message(&self) -> String {
        let elapsed = self.began.map(|began| began.elapsed()).unwrap_or_default();
        let amounts = amounts(self.rows, self.bytes, elapsed, share(self.done, self.expected));
        let retained = self.retained.map(|bytes| format!(", {} of WAL held back", human_bytes(bytes as f64)));
        format!("{} of {} tables, {amounts}{}", self.finished, self.tables, retained.unwrap_or_default())
    }

    fn refresh_bar(&self) {
        if let Some(bar) = &self.bar {
            bar.set_length(self.expected.max(self.done));
            bar.set_position(self.done);
            bar.set_message(self.message());
        }
    }
}

/// Log lines until told otherwise.
impl Default for Progress {
    fn default() -> Self {
        Progress::lines()
    }
}

impl Progress {
    /// Bars on standard error.
    pub fn terminal() -> Self {
        Self::new(Sink::Bars(TERMINAL.clone()), BAR_INTERVAL)
    }

    /// Log lines, every few seconds for each active table and the total.
    pub fn lines() -> Self {
        Self::new(Sink::Lines, LINE_INTERVAL)
    }

    /// Bars if standard error is a terminal, else log lines.
    pub fn auto() -> Self {
        if io::stderr().is_terminal() { Self::terminal() } else { Self::lines() }
    }

    fn new(sink: Sink, interval: Duration) -> Self {
        let shown = Throttle::new(interval);
        Progress { inner: Arc::new(Inner { sink, interval, total: Mutex::new(Total::default()), shown }) }
    }

    /// A copy of so many tables and (estimated) bytes begins.
    pub fn begin(&self, tables: usize, bytes: u64) {
        let mut total = self.inner.total();
        if let Some(bar) = total.bar.take() {
            bar.finish_and_clear();
        }
        *total = Total { tables, expected: bytes, began: Some(Instant::now()), ..Total::default() };
        match &self.inner.sink {
            Sink::Bars(bars) => {
                let bar = bars.add(ProgressBar::new(bytes));
                bar.set_style(style("{prefix:.bold} [{bar:30}] {percent:>3} %  {msg}"));
                bar.set_prefix("copy");
                total.bar = Some(bar);
                total.refresh_bar();
            }
            Sink::Lines => {
                tracing::info!("copying {tables} tables, about {}", human_bytes(bytes as f64));
            }
        }
    }

    /// A table's copy begins; the estimate is a part of that of [`Self::begin`].
    pub fn table(&self, table: &TableName, estimated_bytes: u64) -> TableProgress {
        let bar = match &self.inner.sink {
            Sink::Lines => None,
            Sink::Bars(bars) => {
                let bar = ProgressBar::new(estimated_bytes);
                // Above the total, which stays the last line.
                let bar = match &self.inner.total().bar {
                    Some(total) => bars.insert_before(total, bar),
                    None => bars.add(bar),
                };
                bar.set_style(style("  [{bar:20}] {prefix}  {msg}"));
                bar.set_prefix(table.to_string());
                Some(bar)
            }
        };
        TableProgress {
            inner: Arc::new(TableInner {
                progress: self.inner.clone(),
                name: table.to_string(),
                expected: estimated_bytes,
                rows: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                parts: AtomicU64::new(1),
                parts_done: AtomicU64::new(0),
                began: Instant::now(),
                shown: Throttle::new(self.inner.interval),
                is_finished: AtomicBool::new(false),
                bar,
            }),
        }
    }

    /// So much WAL is held back on the source until the copy is over.
    pub fn retains(&self, wal_bytes: u64) {
        self.inner.total().retained = Some(wal_bytes);
    }

    /// A line about the copy as a whole.
    pub fn note(&self, text: &str) {
        match &self.inner.sink {
            Sink::Lines => tracing::info!("{text}"),
            Sink::Bars(bars) => {
                if let Err(error) = bars.println(indented(text, 2)) {
                    tracing::debug!("cannot write to the terminal: {error}");
                }
            }
        }
    }

    /// The copy has ended: the bars go, one line stays.
    pub fn end(&self) {
        let mut total = self.inner.total();
        let bar = total.bar.take();
        let elapsed = total.began.take().map(|began| began.elapsed()).unwrap_or_default();
        let (finished, tables) = (total.finished, total.tables);
        let amounts = amounts(total.rows, total.bytes, elapsed, 1.0);
        drop(total);
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        self.note(&format!("copied {finished} of {tables} tables, {amounts}, in {:.1} s", elapsed.as_secs_f64()));
    }
}

impl Inner {
    fn total(&self) -> std::sync::MutexGuard<'_, Total> {
        self.total.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what a table did, and shows it when it is time.
    fn add(&self, rows: u64, bytes: u64, done: u64) {
        let mut total = self.total();
        total.rows += rows;
        total.bytes += bytes;
        total.done += done;
        if self.shown.passes(self.interval) {
            match self.sink {
                Sink::Bars(_) => total.refresh_bar(),
                Sink::Lines => tracing::info!("copy: {}", total.message()),
            }
        }
    }
}

/// Shows the progress of one table. Cheap to clone, one table all the same;
/// when the last clone goes without [`Self::finish`], the table leaves the
/// screen and does not count as copied.
#[derive(Clone)]
pub struct TableProgress {
    inner: Arc<TableInner>,
}

struct TableInner {
    progress: Arc<Inner>,
    name: String,
    expected: u64,
    rows: AtomicU64,
    bytes: AtomicU64,
    /// Parts in all, 1 for a table that is copied as a whole.
    parts: AtomicU64,
    /// Parts that are on the target.
    parts_done: AtomicU64,
    began: Instant,
    shown: Throttle,
    is_finished: AtomicBool,
    bar: Option<ProgressBar>,
}

impl TableProgress {
    /// So many more rows and bytes have been copied.
    pub fn advance(&self, rows: u64, bytes: u64) {
        let table = &self.inner;
        table.rows.fetch_add(rows, Ordering::Relaxed);
        let before = table.bytes.fetch_add(bytes, Ordering::Relaxed);
        // An estimate that proves too small must not promise an early end.
        let done = (before + bytes).min(table.expected) - before.min(table.expected);
        table.progress.add(rows, bytes, done);
        if table.shown.passes(table.progress.interval) {
            match &table.bar {
                Some(bar) => {
                    bar.set_position((before + bytes).min(table.expected));
                    bar.set_message(table.amounts());
                }
                None => tracing::info!("copying {}: {}", table.name, table.amounts()),
            }
        }
    }

    /// The table is copied in so many parts.
    pub fn in_parts(&self, parts: u64) {
        self.inner.parts.store(parts, Ordering::Relaxed);
    }

    /// One more part is on the target.
    pub fn part_done(&self) {
        self.inner.parts_done.fetch_add(1, Ordering::Relaxed);
    }

    /// What was copied so far has been for nothing: it is copied anew.
    pub fn take_back(&self) {
        let table = &self.inner;
        let (rows, bytes) = (table.rows.swap(0, Ordering::Relaxed), table.bytes.swap(0, Ordering::Relaxed));
        let mut total = table.progress.total();
        total.rows = total.rows.saturating_sub(rows);
        total.bytes = total.bytes.saturating_sub(bytes);
        total.done = total.done.saturating_sub(bytes.min(table.expected));
        total.refresh_bar();
        drop(total);
        if let Some(bar) = &table.bar {
            bar.set_position(0);
        }
    }

    /// The rows are there, indexes and constraints are being built.
    pub fn indexing(&self) {
        match &self.inner.bar {
            Some(bar) => {
                bar.set_position(self.inner.expected);
                bar.set_message("indexing");
            }
            None => tracing::info!("indexing {}", self.inner.name),
        }
    }

    /// The table is complete. A second call does nothing.
    pub fn finish(&self) {
        let table = &self.inner;
        if table.is_finished.swap(true, Ordering::Relaxed) {
            return;
        }
        let rest = table.expected.saturating_sub(table.bytes.load(Ordering::Relaxed));
        table.progress.total().finished += 1;
        table.progress.add(0, 0, rest);
        match &table.bar {
            Some(bar) => bar.finish_and_clear(),
            None => tracing::info!("copied {}: {}", table.name, table.amounts()),
        }
    }
}

impl TableInner {
    fn amounts(&self) -> String {
        let (rows, bytes) = (self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let done = if self.is_finished.load(Ordering::Relaxed) { 1.0 } else { share(bytes, self.expected) };
        let amounts = amounts(rows, bytes, self.began.elapsed(), done);
        match self.parts.load(Ordering::Relaxed) {
            0 | 1 => amounts,
            parts => format!("{} of {parts} parts, {amounts}", self.parts_done.load(Ordering::Relaxed)),
        }
    }
}

impl Drop for TableInner {
    fn drop(&mut self) {
        // Or each drawing would walk over all that have been.
        if let (Some(bar), Sink::Bars(bars)) = (&self.bar, &self.progress.sink) {
            bar.finish_and_clear();
            bars.remove(bar);
        }
    }
}

/// Lines of the log that nobody got: who reads it has left, or its disk is full.
static LINES_LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines of the log could not be written.
pub fn lines_lost() -> u64 {
    LINES_LOST.load(Ordering::Relaxed)
}

/// Standard error for log lines: above the bars, if there are any. For
/// `tracing_subscriber::fmt().with_writer(StderrWriter)`, which writes a line at a time.
/// What cannot be written is counted, and is no error of anybody's.
#[derive(Clone, Copy, Debug, Default)]
pub struct StderrWriter;

impl<'a> MakeWriter<'a> for StderrWriter {
    type Writer = StderrWriter;

    fn make_writer(&'a self) -> Self::Writer {
        StderrWriter
    }
}

impl Write for StderrWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = if TERMINAL.is_hidden() { io::stderr().write_all(bytes) } else { above_bars(bytes) };
        if written.is_err() {
            LINES_LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Writes a line on the terminal; one that is gone is drawn on no more. (`suspend` of the
/// bars panics there.)
fn above_bars(line: &[u8]) -> io::Result<()> {
    let line = String::from_utf8_lossy(line);
    TERMINAL
        .println(line.trim_end_matches('\n'))
        .inspect_err(|_| TERMINAL.set_draw_target(ProgressDrawTarget::hidden()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the log got.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(work: impl FnOnce()) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
    }

    fn copy_two(progress: &Progress) {
        progress.begin(2, 3000);
        progress.retains(5 << 20);
        let (one, two) = (TableName::new("public", "one"), TableName::new("public", "Two"));
        let (one, two) = (progress.table(&one, 2000), progress.table(&two, 1000));
        one.advance(10, 500);
        two.advance(5, 4000);
        one.indexing();
        one.finish();
        one.clone().finish();
        drop(two);
        assert_eq!(progress.inner.total().finished, 1, "a table that was dropped is not copied");
        assert_eq!(progress.inner.total().done, 3000, "a finished table counts in full, another one at most so");
        progress.end();
    }

    #[test]
    fn lines_name_each_table_and_the_total() {
        let text = logged(|| copy_two(&Progress::new(Sink::Lines, Duration::ZERO)));
        for words in [
            "copying 2 tables, about 2.93 KiB",
            "copying public.one: 10 rows, 500 B",
            "copying public.\"Two\": 5 rows, 3.91 KiB",
            "copy: 0 of 2 tables, 15 rows",
            ", 5.00 MiB of WAL held back",
            "indexing public.one",
            "copied public.one: 10 rows",
            "copied 1 of 2 tables, 15 rows",
        ] {
            assert!(text.contains(words), "{words} is not in {text}");
        }
    }

    #[test]
    fn what_is_taken_back_counts_once_when_it_comes_again() {
        let progress = Progress::lines();
        progress.begin(1, 1000);
        let name = TableName::new("public", "t");
        let table = progress.table(&name, 1000);
        table.in_parts(3);
        table.part_done();
        table.advance(10, 700);
        assert!(table.inner.amounts().starts_with("1 of 3 parts, 10 rows, 700 B"), "{}", table.inner.amounts());
        table.take_back();
        drop(table);
        let table = progress.table(&name, 1000);
        table.advance(20, 1400);
        table.finish();
        let total = progress.inner.total();
        assert_eq!((total.rows, total.bytes, total.done, total.finished), (20, 1400, 1000, 1));
    }

    #[test]
    fn lines_are_few() {
        let text = logged(|| {
            let progress = Progress::lines();
            progress.begin(1, 1000);
            let table = progress.table(&TableName::new("public", "t"), 1000);
            (0..1000).for_each(|_| table.advance(1, 1));
        });
        assert_eq!(text.lines().count(), 1, "{text}");
    }

    #[test]
    fn bars_come_and_go() {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        copy_two(&Progress::new(Sink::Bars(bars), Duration::ZERO));
    }

    #[test]
    fn time_left_follows_from_the_share_that_is_done() {
        assert_eq!(amounts(1, 1024, Duration::from_secs(10), 0.25), "1 rows, 1.00 KiB, 102 B/s, 30 seconds left");
        assert_eq!(amounts(1, 1024, Duration::from_secs(1), 0.0), "1 rows, 1.00 KiB, 1.00 KiB/s");
    }
}
