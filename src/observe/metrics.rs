//! The metrics: one table of names, one prefix, base units.
//!
//! Invariant: every series that can be known beforehand exists from the start
//! with 0, so that a rule over it never meets "no data".

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::progress::lines_lost;
use crate::state::migration::Phase;
use crate::state::tables::TableState;

/// All metrics of a process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    /// Where they are collected from.
    pub registry: Registry,
    /// 1 for the current phase, by `phase`.
    pub phase: IntGaugeVec,
    /// WAL the slot holds back on the source, by `slot_name`.
    pub slot_retained_bytes: IntGaugeVec,
    /// WAL that may still be written before the slot is lost, by `slot_name`; -1 without a limit.
    pub slot_safe_wal_bytes: IntGaugeVec,
    /// Source WAL end minus the last WAL received.
    pub receive_lag_bytes: IntGauge,
    /// Source WAL end minus the durable position.
    pub apply_lag_bytes: IntGauge,
    /// Age of the oldest change that is not applied.
    pub apply_lag_seconds: Gauge,
    /// Source commit time of the last transaction applied.
    pub last_applied_commit_timestamp_seconds: Gauge,
    /// Rows applied, by `operation`.
    pub rows_applied: IntCounterVec,
    /// Source transactions applied.
    pub transactions_applied: IntCounter,
    /// Target commits, by `path`.
    pub batches: IntCounterVec,
    /// Batches that left the fast path, by `reason`.
    pub fallbacks: IntCounterVec,
    /// Time from the first statement of a batch to its COMMIT.
    pub apply_seconds: Histogram,
    /// Changes passed over because the operator's filter says so.
    pub changes_filtered: IntCounter,
    /// Tables that are known to differ, or that nothing carries.
    pub tables_differing: IntGauge,
    /// Rows copied.
    pub copied_rows: IntCounter,
    /// Tables whose rows have been copied.
    pub copied_tables: IntCounter,
    /// Bytes of COPY data copied.
    pub copied_bytes: IntCounter,
    /// Tables, by `state`.
    pub tables: IntGaugeVec,
    /// Sequences set on the target.
    pub sequences_synced: IntCounter,
    /// Sequences that are not as on the source after the last pass.
    pub sequences_behind: IntGauge,
    /// Time since the last pass over the sequences that ended began; 0 before it.
    pub sequence_lag_seconds: Gauge,
    /// Time of a pass over the sequences.
    pub sequence_pass_seconds: Histogram,
    /// When the last pass over the sequences that ended began.
    sequences_as_of: Arc<Mutex<Option<Instant>>>,
    /// Bytes of large objects written to the target.
    pub large_object_bytes: IntCounter,
    /// Bytes of rows that the source sent about large objects.
    pub large_object_read_bytes: IntCounter,
    /// Passes over the large objects, by `kind`.
    pub large_object_passes: IntCounterVec,
    /// Large objects that cannot be read on the source.
    pub large_objects_unreadable: IntGauge,
    /// Errors, by `class`: retry, operator, bug.
    pub errors: IntCounterVec,
    /// Reconnects, by `side`.
    pub reconnects: IntCounterVec,
    /// Looks at the source, for figures only, that failed.
    pub look_failures: IntCounter,
    /// Connections for these metrics that could not be accepted.
    pub http_accept_failures: IntCounter,
    /// Lines of the log that could not be written.
    pub log_lines_lost: IntGauge,
    /// Memory of the process that is resident; 0 where the system does not say.
    pub resident_memory_bytes: IntGauge,
    /// Always 1, by `version`.
    pub build_info: IntGaugeVec,
}

impl Metrics {
    /// Registers every metric, all known series at 0.
    ///
    /// # Errors
    /// Only when two metrics have one name, which a test rules out.
    pub fn new() -> Result<Self, prometheus::Error> {
        let maker = Maker { registry: Registry::new() };
        let metrics = Metrics {
            phase: maker.gauges("phase", "1 for the phase the migration is in", "phase")?,
            slot_retained_bytes: maker.gauges(
                "slot_retained_bytes",
                "WAL the slot holds back on the source",
                "slot_name",
            )?,
            slot_safe_wal_bytes: maker.gauges(
                "slot_safe_wal_bytes",
                "WAL that may still be written before the slot is lost; -1 without a limit",
                "slot_name",
            )?,
            receive_lag_bytes: maker.gauge("receive_lag_bytes", "Source WAL end minus the WAL received")?,
            apply_lag_bytes: maker.gauge("apply_lag_bytes", "Source WAL end minus the position on the target")?,
            apply_lag_seconds: maker.float("apply_lag_seconds", "Age of the oldest commit that is not applied yet")?,
            last_applied_commit_timestamp_seconds: maker
                .float("last_applied_commit_timestamp_seconds", "Source commit time of the last transaction applied")?,
            rows_applied: maker.counters("rows_applied_total", "Row changes applied", "operation")?,
            transactions_applied: maker.counter("transactions_applied_total", "Source transactions applied")?,
            batches: maker.counters("batches_total", "Batches committed on the target", "path")?,
            fallbacks: maker.counters("fallbacks_total", "Batches that left the fast path", "reason")?,
            apply_seconds: maker
                .histogram("apply_seconds", "Time from the first statement of a batch to its COMMIT")?,
            changes_filtered: maker
                .counter("changes_filtered_total", "Row changes passed over by the operator's filter")?,
            tables_differing: maker
                .gauge("tables_differing", "Tables that are known to differ, or that nothing carries")?,
            copied_rows: maker.counter("copied_rows_total", "Rows copied")?,
            copied_tables: maker.counter("copied_tables_total", "Tables whose rows have been copied")?,
            copied_bytes: maker.counter("copied_bytes_total", "Bytes of COPY data copied")?,
            tables: maker.gauges("tables", "Tables of the migration", "state")?,
            sequences_synced: maker.counter("sequences_synced_total", "Sequences set on the target")?,
            sequences_behind: maker.gauge("sequences_behind", "Sequences not as on the source after the last pass")?,
            sequence_lag_seconds: maker
                .float("sequence_lag_seconds", "Time since the last complete pass over the sequences began")?,
            sequence_pass_seconds: maker.histogram("sequence_pass_seconds", "Time of a pass over the sequences")?,
            sequences_as_of: Arc::default(),
            large_object_bytes: maker
                .counter("large_object_bytes_total", "Bytes of large objects written to the target")?,
            large_object_read_bytes: maker
                .counter("large_object_read_bytes_total", "Bytes that the source sent about large objects")?,
            large_object_passes: maker.counters(
                "large_object_passes_total",
                "Passes over the large objects",
                "kind",
            )?,
            large_objects_unreadable: maker
                .gauge("large_objects_unreadable", "Large objects that cannot be read on the source")?,
            errors: maker.counters("errors_total", "Errors met", "class")?,
            reconnects: maker.counters("reconnects_total", "Connections lost and made again", "side")?,
            look_failures: maker
                .counter("look_failures_total", "Looks at the source, for figures only, that failed")?,
            http_accept_failures: maker
                .counter("http_accept_failures_total", "Times that no connection for metrics could be accepted")?,
            log_lines_lost: maker.gauge("log_lines_lost", "Lines of the log that could not be written")?,
            resident_memory_bytes: maker.gauge("resident_memory_bytes", "Resident memory of the process")?,
            build_info: maker.gauges("build_info", "Always 1; the version is the label", "version")?,
            registry: maker.registry,
        };
        metrics.initialise();
        Ok(metrics)
    }

    /// The sequences on the target are those of this moment, or newer.
    pub fn sequences_are_as_of(&self, moment: Instant) {
        *self.sequences_as_of.lock().unwrap_or_else(PoisonError::into_inner) = Some(moment);
    }

    /// Brings the metrics up to date that nothing but time changes, and those of
    /// the process itself.
    pub fn observe_process(&self) {
        let as_of = *self.sequences_as_of.lock().unwrap_or_else(PoisonError::into_inner);
        self.sequence_lag_seconds.set(as_of.map_or(0.0, |moment| moment.elapsed().as_secs_f64()));
        self.log_lines_lost.set(i64::try_from(lines_lost()).unwrap_or(i64::MAX));
        if let Some(bytes) = resident_bytes() {
            self.resident_memory_bytes.set(bytes);
        }
    }

    /// Gives every series with a known label its 0.
    fn initialise(&self) {
        self.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        for phase in Phase::all() {
            self.phase.with_label_values(&[phase.as_str()]).set(0);
        }
        for state in TableState::streamed() {
            self.tables.with_label_values(&[state.as_str()]).set(0);
        }
        for operation in ["insert", "update", "delete", "truncate"] {
            self.rows_applied.with_label_values(&[operation]).reset();
        }
        for path in ["fast", "ordered", "idle"] {
            self.batches.with_label_values(&[path]).reset();
        }
        for reason in ["constraint", "count", "inconsistent", "order", "relation_changed", "value_missing"] {
            self.fallbacks.with_label_values(&[reason]).reset();
        }
        for kind in ["changes", "everything", "skipped"] {
            self.large_object_passes.with_label_values(&[kind]).reset();
        }
        for class in ["retry", "operator", "bug"] {
            self.errors.with_label_values(&[class]).reset();
        }
        for side in ["source", "target"] {
            self.reconnects.with_label_values(&[side]).reset();
        }
    }
}

/// Resident memory of this process in bytes, as Linux reports it (`VmRSS` of
/// proc(5), in KiB); `None` on other systems.
pub fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok()?.checked_mul(1024)
}

/// Registers metrics under the one prefix.
struct Maker {
    registry: Registry,
}

impl Maker {
    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(format!("walferry_{name}"), help)
    }

    fn register<C: prometheus::core::Collector + Clone + 'static>(&self, collector: C) -> prometheus::Result<C> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::with_opts(Self::opts(name, help))?)
    }

    fn float(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.register(Gauge::with_opts(Self::opts(name, help))?)
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Self::opts(name, help), &[label])?)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::with_opts(Self::opts(name, help))?)
    }

    fn counters(&self, name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Self::opts(name, help), &[label])?)
    }

    fn histogram(&self, name: &str, help: &str) -> prometheus::Result<Histogram> {
        // From a single-row commit nearby to a large batch over a slow link.
        let buckets = prometheus::exponential_buckets(0.001, 2.5, 12)?;
        let opts = HistogramOpts { common_opts: Self::opts(name, help), buckets };
        self.register(Histogram::with_opts(opts)?)
    }
}
