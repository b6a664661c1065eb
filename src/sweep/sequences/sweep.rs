//! Passes over the sequences of a migration, on sessions of their own.
//!
//! Invariant: of a process that has lost its lease, or was killed, nothing is set once the
//! next one has it: each statement that sets values holds the claim until its end, and
//! asks for it first. Otherwise a value that a killed daemon had sent could arrive
//! after a newer one, or after the last pass.

use std::collections::BTreeSet;
use std::time::Instant;

use super::{SequencePass, SequenceReport, SweepError, pass};
use crate::config::Settings;
use crate::observe::metrics::Metrics;
use crate::session::Session;
use crate::state::State;
use crate::words::listed;

/// Both sessions.
pub struct SequenceSweep {
    source: Session,
    /// On a session of its own, which sets the values, too.
    state: State,
}

impl SequenceSweep {
    /// Connects to both ends.
    ///
    /// # Errors
    /// When an end cannot be reached.
    pub async fn connect(settings: &Settings, state: &State) -> Result<Self, SweepError> {
        let source = async { Ok::<_, SweepError>(Session::connect(&settings.source, &settings.name).await?) };
        let state = async {
            let session = Session::connect(&settings.target, &settings.name).await?;
            Ok(state.beside(session).await?)
        };
        let (source, state) = futures_util::try_join!(source, state)?;
        Ok(SequenceSweep { source, state })
    }

    /// Whether a session is lost.
    pub fn is_closed(&self) -> bool {
        self.source.is_closed() || self.state.session().is_closed()
    }

    /// A pass, with its duration in the metrics.
    ///
    /// # Errors
    /// As [`pass`] says.
    pub async fn pass(
        &self,
        settings: &Settings,
        metrics: &Metrics,
        kind: SequencePass,
    ) -> Result<SequenceReport, SweepError> {
        let begun = Instant::now();
        let result = pass(&self.source, self.state.session(), &self.state, settings.into(), kind).await;
        metrics.sequence_pass_seconds.observe(begun.elapsed().as_secs_f64());
        if let Ok(report) = &result {
            metrics.sequences_synced.inc_by(report.changed);
            metrics.sequences_behind.set(i64::try_from(report.behind).unwrap_or(i64::MAX));
            metrics.sequences_are_as_of(begun);
        }
        result
    }
}

/// Says what is new since the last pass, and only that: passes come every few
/// seconds. Bounded by the number of sequences.
#[derive(Debug, Default)]
pub struct Newly {
    problems: BTreeSet<String>,
}

impl Newly {
    /// Logs what a pass found and the one before had not.
    pub fn log(&mut self, report: &SequenceReport) {
        let problems: BTreeSet<String> = report.problems.iter().map(ToString::to_string).collect();
        let new: Vec<&String> = problems.difference(&self.problems).collect();
        if !new.is_empty() {
            tracing::warn!(count = new.len(), "not as on the source: sequence {}", listed(&new));
        }
        if problems.is_empty() && !self.problems.is_empty() {
            tracing::info!("all sequences are as on the source again");
        }
        if !report.dropped.is_empty() {
            tracing::info!(
                "the source does not have these any more, the target keeps them: sequence {}",
                listed(&report.dropped)
            );
        }
        self.problems = problems;
    }
}
