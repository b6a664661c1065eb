//! Sequences: read on both sides, set on the target where they differ.
//!
//! ```text
//! list both sides ─ pair them ─ read the values ─ plan ─ alter, set ─ record
//!    catalog          pairs        catalog         plan     write      state
//! ```
//!
//! Invariant: after a final pass over a source whose writes have stopped,
//! `last_value` and `is_called` are equal on both sides for every sequence of
//! the migration (ahead by the margin, if there is one), or the pass is an
//! error that names the others. A periodic pass never moves a sequence against
//! the direction of its increment. No pass waits for a lock for long, and of
//! one migration there is one at a time ([`SequenceSweep`]).
//!
//! Source: `src/backend/commands/sequence.c`. Sequences are not MVCC: the
//! value read is the current one, snapshot or not, and `setval` is not undone
//! by a rollback; so nothing here depends on transactions.

mod catalog;
mod drawing;
mod pairs;
mod plan;
mod problem;
mod renaming;
mod sweep;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_ddl;
#[cfg(test)]
mod tests_names;
mod value;
mod write;

use std::collections::{HashMap, HashSet};

use self::catalog::{IfGone, Sequence, is_gone};
use self::drawing::Elsewhere;
use self::pairs::{Home, Match, Records, matches};
use self::plan::{Change, plan};
use self::renaming::There;
use self::value::Value;
use super::SweepError;
use crate::catalog::sequences::Owner;
use crate::catalog::{named as by_name, tables};
use crate::config::{SchemaMode, Settings, TableFilter};
use crate::membership::{self, Known};
use crate::session::{DbContext, DbError, Session};
use crate::sql::TableName;
use crate::state::State;
use crate::state::sweeps::SequenceRow;
use crate::words::listed;

pub use problem::{Blame, Renaming, SequenceCause, SequenceProblem};
pub use sweep::{Newly, SequenceSweep};

/// Sequences named by one statement, at most: each takes a lock until the
/// statement ends, and a small server has about 1,500 lock slots
/// (max_locks_per_transaction 64 × max_connections).
const CHUNK_SEQUENCES: usize = 500;

/// How often the list is made anew when a sequence of it was dropped before its
/// value could be read. After that it is named like any that cannot be read.
const LIST_ATTEMPTS: usize = 5;

/// How exact a pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequencePass {
    /// With the copy: equal in either direction, problems are warnings.
    Initial,
    /// While both sides live: never backwards, problems are warnings.
    Periodic,
    /// After the writes have stopped: equal in either direction, problems are errors.
    Final {
        /// Calls of `nextval` that the target is to be ahead by.
        margin: u64,
    },
}

impl SequencePass {
    /// How long a statement waits for a lock. While both sides live less than
    /// `deadlock_timeout` (1 s), so that it is always this pass that gives way
    /// to the applier and the application; and they wait no longer for it.
    fn lock_wait(self) -> &'static str {
        match self {
            SequencePass::Initial | SequencePass::Periodic => "500ms",
            SequencePass::Final { .. } => "10s",
        }
    }
}

/// What a pass goes by.
#[derive(Clone, Copy, Debug)]
pub struct SequenceRules<'a> {
    /// Which tables, and with them which sequences, take part.
    pub filter: &'a TableFilter,
    /// With `Create` definitions follow the source's; otherwise the schema is
    /// the operator's, and differences are reported.
    pub schema: SchemaMode,
}

impl<'a> From<&'a Settings> for SequenceRules<'a> {
    fn from(settings: &'a Settings) -> Self {
        SequenceRules { filter: &settings.filter, schema: settings.schema }
    }
}

/// What a pass did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequenceReport {
    /// Sequences of the migration on the source.
    pub total: u64,
    /// Set on the target by this pass.
    pub changed: u64,
    /// Not brought to the source's value or definition.
    pub behind: u64,
    /// What was found, failures and remarks.
    pub problems: Vec<SequenceProblem>,
    /// Sequences that the source does not have any more; the target keeps them.
    pub dropped: Vec<TableName>,
}

/// Compares all sequences of the migration and sets those that differ.
///
/// Both sessions get short timeouts that stay. Periodic passes of several
/// processes at one time could move a sequence back: take [`SequenceSweep`].
///
/// # Errors
/// When either side cannot be read, and, in a final pass, when a sequence could
/// not be made equal ([`SweepError::Sequences`], after all others have been).
pub async fn pass(
    source: &Session,
    target: &Session,
    state: &State,
    rules: SequenceRules<'_>,
    kind: SequencePass,
) -> Result<SequenceReport, SweepError> {
    futures_util::try_join!(limit(source, kind), limit(target, kind))?;
    let found = gather(source, target, state, rules.filter).await?;
    let (changes, mut problems) = decide(&found, rules.schema, kind);
    let written = write::write(target, state, &changes).await?;
    for change in changes.iter().filter(|change| written.altered.contains(&change.place)) {
        let sequence = found.ours.get(change.place).map(|sequence| sequence.name.to_string());
        tracing::info!(sequence, "altered as on the source: {}", change.alter.as_deref().unwrap_or_default());
    }
    problems.extend(written.refused.into_iter().map(|(place, words)| (place, SequenceCause::Refused(words))));
    let problems = named(&found, problems);
    let dropped = record(state, &found, &problems).await?;
    let failures: Vec<SequenceProblem> = problems.iter().filter(|problem| problem.is_failure()).cloned().collect();
    if matches!(kind, SequencePass::Final { .. }) && !failures.is_empty() {
        return Err(SweepError::Sequences(failures));
    }
    let behind = failures.len() as u64;
    Ok(SequenceReport { total: found.ours.len() as u64, changed: written.changed, behind, problems, dropped })
}

/// No statement of a pass goes on for ever, nor waits long for a lock.
async fn limit(session: &Session, kind: SequencePass) -> Result<(), DbError> {
    let sql = format!("SET lock_timeout = '{}'; SET statement_timeout = '60s'", kind.lock_wait());
    session.batch_execute(&sql).await.during(session.side(), "limit the statements about sequences")
}

/// A sequence of the target and what it was found by, if there is one.
type Counterpart = Option<(Sequence, Match)>;

/// Both sides' sequences, with values; those of the target are the
/// counterparts, each at the place of its own.
struct Found {
    ours: Vec<Sequence>,
    theirs: Vec<Counterpart>,
    /// Those of the target that are the counterparts of none.
    others: Vec<Sequence>,
    /// Schemas of sequences that the target lacks, which it lacks as well.
    lacks: HashSet<String>,
    /// What those of the target have to belong to.
    homes: Vec<Home>,
    /// Columns of the target that draw from others.
    elsewhere: Vec<Elsewhere>,
    records: Records,
}

impl Found {
    /// Whether one got another name while it was read.
    fn is_another(&self) -> bool {
        let theirs = self.theirs.iter().flatten().map(|(sequence, _)| sequence);
        self.ours.iter().chain(theirs).any(|sequence| matches!(sequence.value, Err(SequenceCause::Another)))
    }
}

async fn gather(source: &Session, target: &Session, state: &State, filter: &TableFilter) -> Result<Found, SweepError> {
    let mut attempt = 1;
    loop {
        let if_gone = if attempt < LIST_ATTEMPTS { IfGone::Fail } else { IfGone::Name };
        match gather_once(source, target, state, filter, if_gone).await {
            Err(SweepError::Db(error)) if if_gone == IfGone::Fail && is_gone(&error.source) => attempt += 1,
            Ok(found) if if_gone == IfGone::Fail && found.is_another() => attempt += 1,
            result => return result,
        }
    }
}

async fn gather_once(
    source: &Session,
    target: &Session,
    state: &State,
    filter: &TableFilter,
    if_gone: IfGone,
) -> Result<Found, SweepError> {
    let list = async |session| Ok::<_, SweepError>(catalog::list(session).await?);
    let pairs = async { Ok(state.sequence_pairs().await?) };
    let known = async { Ok(membership::known(state).await?) };
    let (ours, theirs, pairs, known) = futures_util::try_join!(list(source), list(target), pairs, known)?;
    let ours: Vec<Sequence> = ours.into_iter().filter(|sequence| takes_part(sequence, filter, &known)).collect();
    let tables = state.target_names(&known.keys().copied().collect::<Vec<_>>()).await?;
    let records = Records { pairs, tables };
    let matched = matches(&ours, &theirs, &records);
    let mut theirs: Vec<Option<Sequence>> = theirs.into_iter().map(Some).collect();
    let counterparts: Vec<Counterpart> =
        matched.into_iter().map(|matched| Some((theirs.get_mut(matched.place()?)?.take()?, matched))).collect();
    let others: Vec<Sequence> = theirs.into_iter().flatten().collect();
    // One of a table that is not taken in yet is no gap of its own.
    let is_expected = |(ours, theirs): &(Sequence, Counterpart)| {
        theirs.is_some() || !membership::comes_with_its_table(&ours.fact, &known)
    };
    let (mut ours, mut theirs): (Vec<Sequence>, Vec<Counterpart>) =
        ours.into_iter().zip(counterparts).filter(is_expected).unzip();
    futures_util::try_join!(
        catalog::read(source, ours.iter_mut().collect(), if_gone),
        catalog::read(target, theirs.iter_mut().flatten().map(|(sequence, _)| sequence).collect(), if_gone),
    )?;
    let homes = homes(target, (&ours, &theirs), &records).await?;
    let missing = ours.iter().zip(&theirs).filter(|(_, theirs)| theirs.is_none()).map(|(ours, _)| ours);
    let lacks = lacks(target, missing).await?;
    let elsewhere = drawing::elsewhere(source, (&ours, &theirs, &others), &records).await?;
    Ok(Found { ours, theirs, others, lacks, homes, elsewhere, records })
}

/// The schemas of these that the target does not have.
async fn lacks(target: &Session, missing: impl Iterator<Item = &Sequence>) -> Result<HashSet<String>, DbError> {
    let mut schemas: HashSet<String> = missing.map(|sequence| sequence.name.schema.clone()).collect();
    if !schemas.is_empty() {
        let there = by_name::schemas(target, &schemas.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        schemas.retain(|schema| !there.contains(schema));
    }
    Ok(schemas)
}

/// What the target's counterparts have to belong to; where they do not, it is looked for there.
async fn homes(
    target: &Session,
    (ours, theirs): (&[Sequence], &[Counterpart]),
    records: &Records,
) -> Result<Vec<Home>, DbError> {
    let mut homes: Vec<Home> = ours.iter().map(|ours| Home::of(ours, records)).collect();
    let belongs = |theirs: &Counterpart, owner: &Owner| {
        theirs.as_ref().and_then(|(theirs, _)| theirs.owner.as_ref()).is_some_and(|(there, _)| there == owner)
    };
    let mut others: Vec<&mut Home> = homes
        .iter_mut()
        .zip(theirs)
        .filter(|(home, theirs)| matches!(home, Home::Column(owner) if !belongs(theirs, owner)))
        .map(|(home, _)| home)
        .collect();
    if others.is_empty() {
        return Ok(homes);
    }
    let names: HashSet<TableName> = others.iter().filter_map(|home| Some(home.column()?.table.clone())).collect();
    let there = tables::by_name(target, names.iter()).await?;
    for home in &mut others {
        let Some(owner) = home.column().cloned() else { continue };
        let columns = there.get(&owner.table).map_or(&[][..], |found| &found.columns);
        if !columns.iter().any(|column| column.name == owner.column) {
            **home = Home::Lacking(owner);
        }
    }
    Ok(homes)
}

/// Records which sequence of the target is which of the source, as of what the two sessions
/// see: they are known from then on, whatever names they get.
///
/// # Errors
/// When either side cannot be read, or the target refuses it.
pub async fn pair(source: &Session, target: &Session, state: &State, filter: &TableFilter) -> Result<(), SweepError> {
    let known = membership::known(state).await?;
    let tables = state.target_names(&known.keys().copied().collect::<Vec<_>>()).await?;
    let (ours, theirs) = futures_util::try_join!(catalog::list(source), catalog::list(target))?;
    let ours: Vec<Sequence> = ours.into_iter().filter(|sequence| takes_part(sequence, filter, &known)).collect();
    let matched = matches(&ours, &theirs, &Records { tables, ..Records::default() });
    let counterpart = |matched: Match| theirs.get(matched.place()?).map(|sequence| sequence.oid);
    let pairs = ours.iter().zip(matched).filter_map(|(ours, m)| Some((&ours.name, ours.oid, counterpart(m)?)));
    Ok(state.pair_sequences(&pairs.collect::<Vec<_>>()).await?)
}

/// What the end will want of the target's sequences, as far as it is known beforehand:
/// those that are not there, or that our role may not read and set.
///
/// # Errors
/// When a catalog cannot be read.
pub async fn foreseen(
    source: &Session,
    target: &Session,
    filter: &TableFilter,
    known: &Known,
) -> Result<Vec<SequenceProblem>, DbError> {
    let (ours, theirs) = futures_util::try_join!(catalog::list(source), catalog::list(target))?;
    let ours: Vec<Sequence> = ours.into_iter().filter(|sequence| takes_part(sequence, filter, known)).collect();
    let matched = matches(&ours, &theirs, &Records::default());
    let missing = ours.iter().zip(&matched).filter(|(_, matched)| **matched == Match::None).map(|(ours, _)| ours);
    let lacks = lacks(target, missing).await?;
    let problem = |(ours, matched): (&Sequence, Match)| {
        let there = matched.place().and_then(|place| theirs.get(place));
        let cause = plan::before_any_value(ours, there, &lacks)?;
        Some(SequenceProblem { sequence: ours.name.clone(), cause })
    };
    Ok(ours.iter().zip(matched).filter_map(problem).collect())
}

/// Whether a sequence is of the migration: with a table that takes part and that
/// it belongs to or is used by; one that is tied to none, by its own name.
fn takes_part(sequence: &Sequence, filter: &TableFilter, known: &Known) -> bool {
    membership::sequence(&sequence.fact, filter, known)
}

/// What has to be changed, and what cannot be, by place.
fn decide(found: &Found, schema: SchemaMode, kind: SequencePass) -> (Vec<Change>, Vec<(usize, SequenceCause)>) {
    let (mut changes, mut problems, mut cut) = (Vec::new(), Vec::new(), Vec::new());
    let (mut renames, mut wanted) = (Vec::new(), HashSet::new());
    let all = found.ours.iter().zip(&found.theirs).zip(&found.homes);
    for (place, ((ours, theirs), home)) in all.enumerate() {
        let theirs = theirs.as_ref().map(|(sequence, matched)| (sequence, *matched));
        if theirs.is_none() {
            wanted.insert(&ours.name);
        }
        let decided = plan(place, ours, theirs, (home, &found.lacks), (schema, kind));
        if let Some(steps) = decided.cut_to {
            cut.push(format!("{} ({steps})", ours.name));
        }
        changes.extend(decided.change);
        renames.extend(decided.rename.map(|(rename, blame)| (place, rename, blame)));
        problems.extend(decided.problems.into_iter().map(|cause| (place, cause)));
    }
    for one in &found.elsewhere {
        let (Some(ours), Some(theirs)) = (found.ours.get(one.place), found.theirs.get(one.place)) else { continue };
        problems.extend(one.cause(ours, theirs, &found.others, schema).map(|cause| (one.place, cause)));
    }
    if !cut.is_empty() {
        tracing::warn!("the margin is cut to what these have left: sequence {}", listed(&cut));
    }
    let counterparts = found.theirs.iter().flatten().map(|(sequence, _)| sequence);
    let there = There::of(counterparts, found.others.iter(), schema);
    problems.extend(there.renaming(renames, &wanted));
    problems.sort_by_key(|(_, cause)| cause.turn());
    (changes, problems)
}

/// Problems with their sequences' names.
fn named(found: &Found, problems: Vec<(usize, SequenceCause)>) -> Vec<SequenceProblem> {
    let name = |(place, cause): (usize, SequenceCause)| {
        let sequence = found.ours.get(place)?;
        Some(SequenceProblem { sequence: sequence.name.clone(), cause })
    };
    problems.into_iter().filter_map(name).collect()
}

/// Records the pass; the sequences that the source does not have any more.
async fn record(state: &State, found: &Found, problems: &[SequenceProblem]) -> Result<Vec<TableName>, SweepError> {
    let mut words: HashMap<&TableName, (bool, String)> = HashMap::new();
    for problem in problems {
        let (is_behind, text) = words.entry(&problem.sequence).or_default();
        *is_behind |= problem.is_failure();
        text.push_str(if text.is_empty() { "" } else { "; " });
        text.push_str(&problem.cause.to_string());
    }
    let row = |(ours, theirs): (&Sequence, &Option<(Sequence, Match)>)| {
        let (behind, problem) = words.get(&ours.name).cloned().unzip();
        SequenceRow {
            sequence: ours.name.clone(),
            source_oid: ours.oid,
            // Kept for as long as the other name may come to light.
            target_oid: theirs.as_ref().map(|(s, _)| s.oid).or_else(|| found.records.pairs.get(&ours.oid).copied()),
            value: ours.value.as_ref().ok().copied(),
            behind: behind.unwrap_or(false),
            problem,
        }
    };
    let rows: Vec<SequenceRow> = found.ours.iter().zip(&found.theirs).map(row).collect();
    Ok(state.record_sequences(&rows).await?)
}
