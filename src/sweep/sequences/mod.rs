//! Sequences: read on both sides, set on the target where they differ.
//!
//! Invariant: after an exact pass over a source whose writes have stopped,
//! `last_value` and `is_called` are equal on both sides for every sequence of
//! the migration, or the pass is an error that names the others. A periodic
//! pass never moves a sequence against the direction of its increment.
//!
//! Source: `src/backend/commands/sequence.c`. Sequences are not MVCC: the
//! value read is the current one, snapshot or not, and `setval` is not undone
//! by a rollback; so nothing here depends on transactions.

mod catalog;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use self::catalog::{Owner, Sequence, Value};
use super::SweepError;
use crate::config::{Side, TableFilter};
use crate::session::{DbContext, Session};
use crate::sql::TableName;
use crate::state::State;
use crate::state::sweeps::SequenceRow;

/// Sequences named by one statement, at most: each takes a lock until the
/// statement ends, and a small server has about 1,500 lock slots
/// (max_locks_per_transaction 64 × max_connections).
const CHUNK_SEQUENCES: usize = 500;

/// How exact a pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequencePass {
    /// With the copy: equal in either direction, problems are warnings.
    Initial,
    /// While both sides live: never backwards, problems are warnings.
    Periodic,
    /// After the writes have stopped: equal in either direction, problems are errors.
    Final,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceReport {
    /// Sequences of the migration on the source.
    pub total: u64,
    /// Set on the target by this pass.
    pub changed: u64,
    /// Not brought to the source's value.
    pub behind: u64,
}

/// A sequence that a pass could not make equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceProblem {
    /// Schema and name on the source.
    pub sequence: TableName,
    /// Why.
    pub cause: SequenceCause,
}

/// Why a sequence could not be made equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SequenceCause {
    /// The target has no such sequence.
    Missing,
    /// Our role may not read it on the source; the SQL that mends it.
    Unreadable(String),
    /// Our role may not read and set it on the target; the SQL that mends it.
    Unwritable(String),
    /// The target refused the value, in its words.
    Refused(String),
}

impl fmt::Display for SequenceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.sequence;
        match &self.cause {
            SequenceCause::Missing => write!(f, "{name} does not exist on the target (create it as on the source)"),
            SequenceCause::Unreadable(sql) => write!(f, "{name} cannot be read on the source (run there: {sql})"),
            SequenceCause::Unwritable(sql) => write!(f, "{name} cannot be set on the target (run there: {sql})"),
            SequenceCause::Refused(words) => write!(f, "{name}: {words}"),
        }
    }
}

/// A value to set: the source's, on the target's sequence.
struct Change {
    /// Index into the source's sequences.
    index: usize,
    /// The sequence's oid on the target.
    oid: u32,
    value: Value,
}

/// Compares all sequences of the migration and sets those that differ.
///
/// # Errors
/// When either side cannot be read, and, in a final pass, when a sequence could
/// not be made equal ([`SweepError::Sequences`], after all others have been).
pub async fn pass(
    source: &Session,
    target: &Session,
    state: &State,
    filter: &TableFilter,
    kind: SequencePass,
) -> Result<SequenceReport, SweepError> {
    let (ours, theirs) = futures_util::try_join!(catalog::read(source), catalog::read(target))?;
    let ours: Vec<Sequence> = ours.into_iter().filter(|sequence| sequence.takes_part(filter)).collect();
    let (changes, mut problems) = compare(&ours, &theirs, kind);
    let mut changed = 0;
    for chunk in changes.chunks(CHUNK_SEQUENCES) {
        changed += set(target, chunk, &ours, &mut problems).await?;
    }
    record(state, &ours, &problems).await?;
    let report = SequenceReport { total: ours.len() as u64, changed, behind: problems.len() as u64 };
    if kind == SequencePass::Final && !problems.is_empty() {
        return Err(SweepError::Sequences(problems));
    }
    warn_once(&problems);
    Ok(report)
}

/// What has to be set, and what cannot be.
fn compare(ours: &[Sequence], theirs: &[Sequence], kind: SequencePass) -> (Vec<Change>, Vec<SequenceProblem>) {
    let index = TargetIndex::new(ours, theirs);
    let (mut changes, mut problems) = (Vec::new(), Vec::new());
    for (position, sequence) in ours.iter().enumerate() {
        match change(sequence, index.find(sequence), kind) {
            Ok(Some((oid, value))) => changes.push(Change { index: position, oid, value }),
            Ok(None) => {}
            Err(cause) => problems.push(SequenceProblem { sequence: sequence.name.clone(), cause }),
        }
    }
    (changes, problems)
}

/// The target's oid and the value to set there, or nothing to do.
fn change(
    ours: &Sequence,
    theirs: Option<&Sequence>,
    kind: SequencePass,
) -> Result<Option<(u32, Value)>, SequenceCause> {
    let theirs = theirs.ok_or(SequenceCause::Missing)?;
    let value = ours.value.ok_or_else(|| SequenceCause::Unreadable(ours.grant("SELECT")))?;
    let grant = || SequenceCause::Unwritable(theirs.grant("SELECT, UPDATE"));
    let found = theirs.value.ok_or_else(grant)?;
    let wanted = match kind {
        SequencePass::Periodic => is_ahead(value, found, ours.increment),
        SequencePass::Initial | SequencePass::Final => value != found,
    };
    match (wanted, theirs.may_update) {
        (false, _) => Ok(None),
        (true, false) => Err(grant()),
        (true, true) => Ok(Some((theirs.oid, value))),
    }
}

/// Whether `a` comes after `b` in the direction of the increment. A value that
/// has been called is after the same one that has not.
fn is_ahead(a: Value, b: Value, increment: i64) -> bool {
    let order = if increment < 0 { b.0.cmp(&a.0) } else { a.0.cmp(&b.0) };
    order.then(a.1.cmp(&b.1)).is_gt()
}

/// Finds the target's counterpart of a source's sequence.
struct TargetIndex<'a> {
    by_name: HashMap<&'a TableName, &'a Sequence>,
    by_owner: HashMap<&'a Owner, Vec<&'a Sequence>>,
    /// How many sequences of the source belong to one column.
    siblings: HashMap<&'a Owner, usize>,
}

impl<'a> TargetIndex<'a> {
    fn new(ours: &'a [Sequence], theirs: &'a [Sequence]) -> Self {
        let mut index = TargetIndex { by_name: HashMap::new(), by_owner: HashMap::new(), siblings: HashMap::new() };
        for sequence in theirs {
            index.by_name.insert(&sequence.name, sequence);
            if let Some(owner) = &sequence.owner {
                index.by_owner.entry(owner).or_default().push(sequence);
            }
        }
        for owner in ours.iter().filter_map(|sequence| sequence.owner.as_ref()) {
            *index.siblings.entry(owner).or_default() += 1;
        }
        index
    }

    /// By owning column where that is unambiguous, whatever the name; else by name.
    fn find(&self, sequence: &Sequence) -> Option<&'a Sequence> {
        let of_column = |owner: &Owner| {
            let candidates = self.by_owner.get(owner)?;
            let same_name = candidates.iter().find(|candidate| candidate.name == sequence.name);
            match (same_name, candidates.as_slice(), self.siblings.get(owner)) {
                (Some(found), _, _) => Some(*found),
                (None, [only], Some(1)) => Some(*only),
                _ => None,
            }
        };
        sequence.owner.as_ref().and_then(of_column).or_else(|| self.by_name.get(&sequence.name).copied())
    }
}

/// Sets a chunk in one statement; if the target refuses it, one by one, so that
/// the one at fault is known and the others are set.
async fn set(
    target: &Session,
    chunk: &[Change],
    ours: &[Sequence],
    problems: &mut Vec<SequenceProblem>,
) -> Result<u64, SweepError> {
    match setval(target, chunk).await {
        Ok(()) => return Ok(chunk.len() as u64),
        // Without a word from the server the connection is gone.
        Err(error) if error.as_db_error().is_none() => {
            return Err(error).during(Side::Target, "set the sequences").map_err(SweepError::from);
        }
        Err(_) => {}
    }
    let mut changed = 0;
    for change in chunk {
        let Err(error) = setval(target, std::slice::from_ref(change)).await else {
            changed += 1;
            continue;
        };
        if error.as_db_error().is_none() {
            return Err(error).during(Side::Target, "set a sequence").map_err(SweepError::from);
        }
        if let Some(sequence) = ours.get(change.index) {
            let words = Err::<(), _>(error).during(Side::Target, "set it").err().map(|e| e.to_string());
            let cause = SequenceCause::Refused(words.unwrap_or_default());
            problems.push(SequenceProblem { sequence: sequence.name.clone(), cause });
        }
    }
    Ok(changed)
}

async fn setval(target: &Session, changes: &[Change]) -> Result<(), tokio_postgres::Error> {
    let oids: Vec<u32> = changes.iter().map(|c| c.oid).collect();
    let values: Vec<i64> = changes.iter().map(|c| c.value.0).collect();
    let called: Vec<bool> = changes.iter().map(|c| c.value.1).collect();
    let sql = "SELECT pg_catalog.setval(s.oid::pg_catalog.regclass, s.value, s.called) \
               FROM unnest($1::oid[], $2::bigint[], $3::boolean[]) AS s (oid, value, called)";
    target.query(sql, &[&oids, &values, &called]).await?;
    Ok(())
}

async fn record(state: &State, ours: &[Sequence], problems: &[SequenceProblem]) -> Result<(), SweepError> {
    let behind: BTreeSet<&TableName> = problems.iter().map(|problem| &problem.sequence).collect();
    let rows: Vec<SequenceRow> = ours
        .iter()
        .map(|sequence| SequenceRow {
            sequence: sequence.name.clone(),
            value: sequence.value,
            behind: behind.contains(&sequence.name),
        })
        .collect();
    Ok(state.record_sequences(&rows).await?)
}

/// Problems that have been logged by this process; bounded by the number of
/// sequences, and a pass that meets them every few seconds stays readable.
static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

fn warn_once(problems: &[SequenceProblem]) {
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    for problem in problems {
        let text = problem.to_string();
        if !warned.contains(&text) {
            tracing::warn!("sequence {text}");
            warned.insert(text);
        }
    }
}
