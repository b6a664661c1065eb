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
mod numbering;
mod one_sided;
mod pairs;
mod plan;
mod problem;
mod renaming;
mod strangers;
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
use crate::state::sweeps::{Listed, SequenceRow};
use crate::words::listed;

pub use problem::{Blame, Renaming, SequenceCause, SequenceProblem, Whose};
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
    // What was called by us is nobody else's, also when this is cut off before its end.
    let mut dropped =
        if found.has_new_pairs() { record(state, &found, &named(&found, problems.clone())).await? } else { Vec::new() };
    let written = write::write(target, state, &changes).await?;
    for change in changes.iter().filter(|change| written.altered.contains(&change.place)) {
        let sequence = found.ours.get(change.place).map(|sequence| sequence.name.to_string());
        tracing::info!(sequence, "altered as on the source: {}", change.alter.as_deref().unwrap_or_default());
    }
    problems.extend(written.refused.into_iter().map(|(place, words)| (place, SequenceCause::Refused(words))));
    let mut problems = named(&found, problems);
    dropped.extend(record(state, &found, &problems).await?);
    let alone =
        numbering::of_target_alone(source, &found.others, (&found.elsewhere, &found.records), rules.schema).await?;
    let alone = alone.into_iter().map(|(there, cause)| SequenceProblem { sequence: there.name.clone(), cause });
    problems.extend(alone);
    if rules.schema == SchemaMode::Create {
        problems.extend(one_sided::find(source, target, &found).await?);
    }
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
    /// Why what has the name of one is not its counterpart, by place.
    apart: HashMap<usize, SequenceCause>,
    /// The oids of all sequences of the source.
    of_source: HashSet<u32>,
    /// Schemas of sequences that the target lacks, which it lacks as well.
    lacks: HashSet<String>,
    /// What those of the target have to belong to.
    homes: Vec<Home>,
    /// Columns of the target that draw from others.
    elsewhere: Vec<Elsewhere>,
    records: Records,
}

impl Found {
    /// Whether there is one that came since the migration began, and whose counterpart is known now.
    fn has_new_pairs(&self) -> bool {
        let is_new = |ours: &Sequence| !self.records.pairs.own.contains_key(&ours.oid);
        let mut both = self.ours.iter().zip(&self.theirs);
        self.records.pairs.listed == Listed::Wholly && both.any(|(ours, theirs)| theirs.is_some() && is_new(ours))
    }

    /// Those of the target that may make way: what the migration has brought for what the
    /// source has no more.
    fn left(&self) -> HashSet<u32> {
        match self.records.pairs.listed {
            Listed::NotYet => self.others.iter().map(|other| other.oid).collect(),
            Listed::Wholly => left(&self.records, &self.of_source),
        }
    }

    /// What is kept of pairs whose own is of the migration no more, for as long as the
    /// target has the other and it is nobody's.
    fn former(&self) -> impl Iterator<Item = SequenceRow> {
        let ours: HashSet<u32> = self.ours.iter().map(|sequence| sequence.oid).collect();
        let others: HashSet<u32> = self.others.iter().map(|sequence| sequence.oid).collect();
        let pairs = self.records.pairs.own.iter().map(|(ours, theirs)| (*ours, *theirs));
        let is_kept = move |(source, target): &(u32, u32)| !ours.contains(source) && others.contains(target);
        pairs.filter(is_kept).map(|(ours, theirs)| SequenceRow::former(ours, theirs))
    }

    /// Whether one got another name while it was read.
    fn is_another(&self) -> bool {
        let theirs = self.theirs.iter().flatten().map(|(sequence, _)| sequence);
        self.ours.iter().chain(theirs).any(|sequence| matches!(sequence.value, Err(SequenceCause::Another)))
    }
}

/// The target's oids of pairs whose own the source has no more.
fn left(records: &Records, of_source: &HashSet<u32>) -> HashSet<u32> {
    records.pairs.own.iter().filter(|(ours, _)| !of_source.contains(ours)).map(|(_, theirs)| *theirs).collect()
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
    let of_source: HashSet<u32> = ours.iter().map(|sequence| sequence.oid).collect();
    let is_paired = |sequence: &Sequence| pairs.own.contains_key(&sequence.oid);
    // One of a table that is not taken in so far is not looked for: another may have its name.
    let is_to_come = |sequence: &Sequence| {
        pairs.listed == Listed::Wholly && !is_paired(sequence) && membership::comes_with_its_table(sequence, &known)
    };
    let is_ours =
        |sequence: &Sequence| membership::sequence(sequence, filter, &known, &pairs.members) && !is_to_come(sequence);
    let ours: Vec<Sequence> = ours.into_iter().filter(is_ours).collect();
    let tables = state.target_names(&known.keys().copied().collect::<Vec<_>>()).await?;
    let records = Records { pairs, tables };
    let matched = matches(&ours, &theirs, &records);
    let mut theirs: Vec<Option<Sequence>> = theirs.into_iter().map(Some).collect();
    let counterparts: Vec<Counterpart> =
        matched.into_iter().map(|matched| Some((theirs.get_mut(matched.place()?)?.take()?, matched))).collect();
    let mut others: Vec<Sequence> = theirs.into_iter().flatten().collect();
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
    let apart = strangers::apart(&ours, &mut theirs, &mut others, (&records, &left(&records, &of_source)));
    let homes = homes(target, (&ours, &theirs), &records).await?;
    let missing = ours.iter().zip(&theirs).filter(|(_, theirs)| theirs.is_none()).map(|(ours, _)| ours);
    let lacks = lacks(target, missing).await?;
    let elsewhere = drawing::elsewhere(source, (&ours, &theirs, &others), &records).await?;
    Ok(Found { ours, theirs, others, apart, of_source, lacks, homes, elsewhere, records })
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
    let ours: Vec<Sequence> =
        ours.into_iter().filter(|sequence| membership::sequence(sequence, filter, &known, &HashSet::new())).collect();
    let matched = matches(&ours, &theirs, &Records { tables, ..Records::default() });
    let counterpart = |matched: Match| theirs.get(matched.place()?).map(|sequence| sequence.oid);
    let pairs = ours.iter().zip(matched).filter_map(|(ours, m)| Some((&ours.name, ours.oid, counterpart(m)?)));
    Ok(state.pair_sequences(&pairs.collect::<Vec<_>>()).await?)
}

/// Lets go of the sequences that a filter leaves out which is another one than the recorded: a
/// rename changes nothing, that does.
///
/// # Errors
/// When the source cannot be read, or the target refuses it.
pub async fn leave_out(source: &Session, state: &State, filter: &TableFilter) -> Result<(), SweepError> {
    let (members, known) = (state.sequence_pairs().await?.members, membership::known(state).await?);
    let is_left_out = |sequence: &Sequence| {
        members.contains(&sequence.oid) && !membership::sequence(sequence, filter, &known, &HashSet::new())
    };
    let left_out: Vec<Sequence> = catalog::list(source).await?.into_iter().filter(is_left_out).collect();
    if !left_out.is_empty() {
        let names: Vec<&TableName> = left_out.iter().map(|sequence| &sequence.name).collect();
        tracing::warn!(
            "the filter leaves these out by now, and they are followed no more: sequence {}",
            listed(&names)
        );
        state.let_go_of_sequences(&left_out.iter().map(|sequence| sequence.oid).collect::<Vec<_>>()).await?;
    }
    Ok(())
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
    let ours: Vec<Sequence> =
        ours.into_iter().filter(|sequence| membership::sequence(sequence, filter, known, &HashSet::new())).collect();
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

/// What has to be changed, and what cannot be, by place.
fn decide(found: &Found, schema: SchemaMode, kind: SequencePass) -> (Vec<Change>, Vec<(usize, SequenceCause)>) {
    let (mut changes, mut problems, mut cut) = (Vec::new(), Vec::new(), Vec::new());
    let (mut renames, mut wanted) = (Vec::new(), HashSet::new());
    let all = found.ours.iter().zip(&found.theirs).zip(&found.homes);
    for (place, ((ours, theirs), home)) in all.enumerate() {
        if let Some(cause) = found.apart.get(&place) {
            problems.push((place, cause.clone()));
            continue;
        }
        let theirs = theirs.as_ref().map(|(sequence, matched)| (sequence, *matched));
        if theirs.is_none() {
            wanted.insert(&ours.name);
        }
        let decided = plan(place, ours, theirs, (home, &found.lacks), (schema, kind));
        if let Some(steps) = decided.cut_to {
            cut.push(format!("{} ({steps})", ours.name));
        }
        let back = theirs.zip(decided.change.as_ref().and_then(|change| change.value));
        let back = back.and_then(|((theirs, _), value)| strangers::set_back(ours, theirs, value, &found.records));
        changes.extend(decided.change.filter(|_| back.is_none()));
        problems.extend(back.map(|cause| (place, cause)));
        renames.extend(decided.rename.map(|(rename, blame)| (place, rename, blame)));
        problems.extend(decided.problems.into_iter().map(|cause| (place, cause)));
    }
    for one in found.elsewhere.iter().filter(|one| !found.apart.contains_key(&one.place)) {
        let (Some(ours), Some(theirs)) = (found.ours.get(one.place), found.theirs.get(one.place)) else { continue };
        problems.extend(one.cause(ours, theirs, &found.others, schema).map(|cause| (one.place, cause)));
    }
    if !cut.is_empty() {
        tracing::warn!("the margin is cut to what these have left: sequence {}", listed(&cut));
    }
    let counterparts = found.theirs.iter().flatten().map(|(sequence, _)| sequence);
    let there = There::of(counterparts, found.others.iter(), found.left(), schema);
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
            target_oid: theirs.as_ref().map(|(s, _)| s.oid).or_else(|| found.records.pairs.own.get(&ours.oid).copied()),
            value: ours.value.as_ref().ok().copied(),
            behind: behind.unwrap_or(false),
            problem,
        }
    };
    let rows: Vec<SequenceRow> = found.ours.iter().zip(&found.theirs).map(row).chain(found.former()).collect();
    let gone = state.record_sequences(&rows).await?.into_iter();
    let is_dropped = |oid: Option<u32>| oid.is_none_or(|oid| !found.of_source.contains(&oid));
    Ok(gone.filter(|(_, oid)| is_dropped(*oid)).map(|(name, _)| name).collect())
}
