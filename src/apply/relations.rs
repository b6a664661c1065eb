//! The relations the applier has met: what is done with each, and how.
//!
//! Invariant: a relation is looked up before anything of its batch is sent, so
//! that looking at the catalog never waits for locks of our own transaction.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::actions::{self, Action};
use super::mapping::{Identity, Mapping, MappingError};
use super::order::{Order, References, parents_first};
use super::render::Renderer;
use super::set_based::{self, SetRenderer, Writing};
use super::source::Source;
use super::tables::{Admission, Tables};
use super::target::TargetTable;
use super::{ApplyError, Label};
use crate::assemble::{Change, ChangeKind, Piece};
use crate::catalog::tables;
use crate::coalesce::{Keying, TableWork};
use crate::lsn::{EndLsn, Lsn};
use crate::pgoutput::Value;
use crate::relation::Relation;
use crate::session::Session;
use crate::session::replica_role::ReplicaRole;
use crate::sql::TableName;
use crate::state::State;
use crate::sweep::large_objects::hints::Hints;

/// Relations remembered before the memory of them is started afresh.
const RELATIONS_MAX: usize = 20_000;

/// A table whose net changes were refused does without them for this many
/// batches: long enough that a table that swaps unique values all the time
/// seldom pays for the attempt, short enough that a single swap is forgotten.
pub(super) const SLOW_BATCHES: u32 = 64;

/// What is done with the changes of a relation.
pub(super) enum Handling {
    /// They are applied.
    Apply(Box<Apply>),
    /// They are none of ours.
    PassedOver,
    /// Another stream, or the copy of the table, brings them.
    Elsewhere,
    /// They are in rows that were copied as of here, perhaps in the name of other
    /// tables; those from there on are refused.
    WithinUntil(EndLsn, Refusal),
}

/// Why the changes of a relation are refused.
pub(super) enum Refusal {
    /// They are not part of the migration, in these words.
    Unknown(String),
    /// They have no place on the target.
    Mapping(MappingError),
}

impl Refusal {
    /// As the error of the table's first transaction that is refused.
    fn of(&self, table: &TableName, at: Lsn) -> ApplyError {
        let table = table.clone();
        match self {
            Refusal::Unknown(why) => ApplyError::Unknown { table, at, why: why.clone() },
            Refusal::Mapping(error) => ApplyError::Mapping { table, at, error: error.clone() },
        }
    }
}

/// How the changes of a relation are applied.
pub(super) struct Apply {
    /// Row by row.
    pub(super) rows: Renderer,
    /// Set-based.
    pub(super) sets: SetRenderer,
    /// The table's rows were copied as of here.
    pub(super) from: Option<EndLsn>,
    keying: Keying,
    /// The columns (indexes) whose values can name large objects.
    objects: Vec<usize>,
}

impl Apply {
    /// Whether a transaction is applied to this table: its rows were copied
    /// before it.
    pub(super) fn takes(&self, piece: &Piece) -> bool {
        self.from.is_none_or(|from| from.is_before(piece.begin.commit_lsn))
    }

    fn target(&self) -> &TargetTable {
        &self.rows.mapping.target
    }

    /// The foreign keys that act on rows, from this table or to it.
    pub(super) fn actions(&self) -> &[Action] {
        &self.target().actions
    }

    fn references(&self) -> References<'_> {
        References { table: self.target().oid, parents: &self.target().parents }
    }

    /// Whether a row may be deleted and inserted anew instead of updated: all
    /// it has comes from the source, and no other table refers to it.
    fn can_be_replaced(&self) -> bool {
        !self.target().has_foreign_keys && self.rows.mapping.extra_columns().next().is_none()
    }
}

/// The relations by the address of their description, which the entry keeps
/// alive.
#[derive(Default)]
pub(super) struct Relations {
    known: HashMap<usize, (Arc<Relation>, Handling)>,
    /// Tables that were refused, by relation id.
    slow: HashMap<u32, Slow>,
    /// Relations to be looked up anew: something about their tables is not as
    /// it was.
    stale: HashSet<u32>,
    /// Whether any relation ever had a column that can name large objects; most
    /// migrations have none, and then changes need not be looked at for them.
    names_objects: bool,
}

/// What a table that was refused does without, and for how many batches yet.
struct Slow {
    without: Without,
    batches: u32,
}

/// What a table that was refused does without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Without {
    /// Updates: its rows are deleted and inserted anew, and unique values that
    /// change places do not meet.
    Updates,
    /// Net changes: it goes row by row.
    Nets,
}

impl Relations {
    pub(super) fn get_mut(&mut self, relation: &Arc<Relation>) -> Option<&mut Handling> {
        self.known.get_mut(&address(relation)).map(|(_, handling)| handling)
    }

    pub(super) fn get(&self, relation: &Arc<Relation>) -> Option<&Handling> {
        self.known.get(&address(relation)).map(|(_, handling)| handling)
    }

    /// Looks every relation of these pieces up, and refuses what the target
    /// would do of itself about rows of a later point.
    pub(super) async fn admit(
        &mut self,
        pieces: &[Piece],
        tables: &mut Tables,
        (target, source): (&Session, &mut Source),
        state: &State,
        role: ReplicaRole,
    ) -> Result<(), ApplyError> {
        if self.known.len() > RELATIONS_MAX {
            self.known.clear();
        }
        if !self.stale.is_empty() {
            self.known.retain(|_, (relation, _)| !self.stale.contains(&relation.id));
            self.stale.clear();
        }
        let mut fresh = Vec::new();
        let mut met = HashSet::new();
        for piece in pieces {
            for relation in piece.changes.iter().flat_map(of_change) {
                if !self.known.contains_key(&address(relation)) && met.insert(address(relation)) {
                    fresh.push((relation, piece.begin.commit_lsn.lsn()));
                }
            }
        }
        if fresh.is_empty() {
            self.refuse_beyond_rows(pieces)?;
            return actions::refuse(self, pieces, tables);
        }
        // All at once: a first batch has many tables, and the target may be far.
        let found = fresh.iter().map(|(relation, _)| TargetTable::read(target, &relation.table, role));
        let found = try_join_all(found);
        let oids = fresh.iter().map(|(relation, _)| relation.id);
        let (found, ()) = tokio::try_join!(async { Ok(found.await?) }, tables.look_ahead(oids, state))?;
        for ((relation, at), found) in fresh.into_iter().zip(found) {
            let handling = look_up(relation, at, found, tables, (target, source), state, role).await;
            let handling = handling.map_err(|error| no_way_out(error, relation, pieces))?;
            self.names_objects |= matches!(&handling, Handling::Apply(apply) if !apply.objects.is_empty());
            self.known.insert(address(relation), (Arc::clone(relation), handling));
        }
        self.refuse_beyond_rows(pieces)?;
        actions::refuse(self, pieces, tables)
    }

    /// Refuses changes that come in another name than the rows of their table were
    /// copied in, and later.
    fn refuse_beyond_rows(&self, pieces: &[Piece]) -> Result<(), ApplyError> {
        if !self.known.values().any(|(_, handling)| matches!(handling, Handling::WithinUntil(..))) {
            return Ok(());
        }
        for piece in pieces {
            for relation in piece.changes.iter().flat_map(of_change) {
                if let Some(Handling::WithinUntil(point, why)) = self.get(relation)
                    && point.is_before(piece.begin.commit_lsn)
                {
                    return Err(why.of(&relation.table, piece.begin.commit_lsn.lsn()));
                }
            }
        }
        Ok(())
    }

    /// Whether any foreign key that was met acts on other tables.
    pub(super) fn have_actions(&self) -> bool {
        let acts = |handling: &Handling| matches!(handling, Handling::Apply(apply) if !apply.actions().is_empty());
        self.known.values().any(|(_, handling)| acts(handling))
    }

    /// The foreign keys that act on the rows of the table that a label names.
    pub(super) fn actions_on(&self, label: &Label) -> impl Iterator<Item = &Action> {
        let is_it =
            |handling: &&Handling| matches!(handling, Handling::Apply(apply) if *apply.rows.mapping.label == *label);
        let found = self.known.values().map(|(_, handling)| handling).find(is_it);
        let actions = match found {
            Some(Handling::Apply(apply)) => apply.actions(),
            _ => &[],
        };
        actions.iter().filter(|action| action.child == label.table || !action.is_parent)
    }

    /// Has every relation looked up anew, when next there are changes of it.
    pub(super) fn forget_all(&mut self) {
        self.known.clear();
        self.stale.clear();
    }

    /// Gives the large objects that a piece's new rows name to whoever carries them.
    pub(super) fn hint(&self, piece: &Piece, hints: &Hints) {
        if !self.names_objects {
            return;
        }
        for change in &piece.changes {
            let (ChangeKind::Insert { new } | ChangeKind::Update { new, .. }) = &change.kind else { continue };
            let Some(Handling::Apply(apply)) = self.get(&change.relation) else { continue };
            for index in &apply.objects {
                if let Some(Value::Text(text)) = new.get(*index)
                    && let Some(oid) = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok())
                    && oid != 0
                {
                    hints.give(oid);
                }
            }
        }
    }

    /// Whether all relations of a piece have been looked up, and none is refused.
    pub(super) fn has_all(&self, piece: &Piece) -> bool {
        piece.changes.iter().flat_map(of_change).all(|relation| match self.get(relation) {
            Some(Handling::WithinUntil(point, _)) => !point.is_before(piece.begin.commit_lsn),
            handling => handling.is_some(),
        })
    }

    /// How a relation's changes in a transaction can be coalesced.
    pub(super) fn keying(&self, piece: &Piece, relation: &Arc<Relation>) -> Keying {
        match self.get(relation) {
            Some(Handling::Apply(apply)) if !apply.takes(piece) => Keying::PassedOver,
            Some(Handling::Apply(_)) if self.without(relation.id) == Some(Without::Nets) => Keying::Rows,
            Some(Handling::Apply(apply)) => apply.keying.clone(),
            Some(Handling::PassedOver | Handling::Elsewhere | Handling::WithinUntil(..)) => Keying::PassedOver,
            None => Keying::Rows,
        }
    }

    /// The order that the tables of these pieces want.
    pub(super) fn order(&self, pieces: &[Piece]) -> Order {
        let is_bound = |apply: &Apply| apply.target().needs_order || apply.target().has_foreign_keys;
        // Usually none is, and then the pieces need not be walked through.
        if !self.known.values().any(|(_, handling)| matches!(handling, Handling::Apply(apply) if is_bound(apply))) {
            return Order::Free;
        }
        let mut met = HashMap::new();
        for change in pieces.iter().flat_map(|piece| &piece.changes) {
            for relation in of_change(change) {
                let Some(Handling::Apply(apply)) = self.get(relation) else { continue };
                let is_emptied = matches!(change.kind, ChangeKind::Truncate { .. });
                if apply.target().needs_order || (is_emptied && apply.target().has_foreign_keys) {
                    return Order::Source;
                }
                met.insert(address(relation), apply.references());
            }
        }
        let met: Vec<References<'_>> = met.into_values().collect();
        if met.iter().all(|table| table.parents.is_empty()) {
            return Order::Free;
        }
        parents_first(&met).map_or(Order::Source, |_| Order::ParentsFirst)
    }

    /// The places of these tables, each behind all those it refers to.
    pub(super) fn parents_first(&self, tables: &[TableWork<'_>]) -> Option<Vec<usize>> {
        let references = |table: &TableWork<'_>| match self.get(table.relation) {
            Some(Handling::Apply(apply)) => apply.references(),
            _ => References { table: 0, parents: &[] },
        };
        parents_first(&tables.iter().map(references).collect::<Vec<_>>())
    }

    /// How the net changes of a relation are written.
    pub(super) fn writing(&self, relation: u32) -> Writing {
        match self.without(relation) {
            Some(Without::Updates) => Writing::Replacing,
            Some(Without::Nets) | None => Writing::Updating,
        }
    }

    fn without(&self, relation: u32) -> Option<Without> {
        self.slow.get(&relation).map(|slow| slow.without)
    }

    /// Net changes of a table were refused: what it does without for a while.
    pub(super) fn slow_down(&mut self, relation: u32, is_duplicate: bool) -> Without {
        let can_replace = |(known, handling): &(Arc<Relation>, Handling)| match handling {
            Handling::Apply(apply) => known.id == relation && apply.can_be_replaced(),
            Handling::PassedOver | Handling::Elsewhere | Handling::WithinUntil(..) => false,
        };
        let is_new = !self.slow.contains_key(&relation);
        let without = if is_duplicate && is_new && self.known.values().any(can_replace) {
            Without::Updates
        } else {
            Without::Nets
        };
        self.slow.insert(relation, Slow { without, batches: SLOW_BATCHES });
        self.stale.insert(relation);
        without
    }

    /// A batch has been sent: one less to go slowly.
    pub(super) fn count_down(&mut self) {
        self.slow.retain(|_, slow| {
            slow.batches -= 1;
            slow.batches > 0
        });
    }
}

/// `found` is the target's table of the relation's name.
async fn look_up(
    relation: &Arc<Relation>,
    at: Lsn,
    found: Option<TargetTable>,
    tables: &mut Tables,
    (target, source): (&Session, &mut Source),
    state: &State,
    role: ReplicaRole,
) -> Result<Handling, ApplyError> {
    let (from, there) = match tables.admit(relation, at, (target, source), state).await? {
        Admission::PassedOver => return Ok(Handling::PassedOver),
        Admission::Elsewhere => return Ok(Handling::Elsewhere),
        Admission::WithinUntil(point, why) => return Ok(Handling::WithinUntil(point, Refusal::Unknown(why))),
        Admission::Apply { from, there } => (from, there),
    };
    let found = if there == relation.table { found } else { TargetTable::read(target, &there, role).await? };
    let mapping = match map(relation, found, (target, source), state).await? {
        Ok(mapping) => mapping,
        Err(error) => {
            let refusal = Refusal::Mapping(error);
            return match from {
                // Its rows were copied later: what comes of it before that is in them.
                Some(point) if at < point.lsn() => Ok(Handling::WithinUntil(point, refusal)),
                _ => Err(refusal.of(&relation.table, at)),
            };
        }
    };
    let keying = match (&mapping.identity, set_based::is_possible(&mapping)) {
        (_, false) => Keying::Rows,
        (Identity::Key(columns), true) => Keying::Key(columns.as_slice().into()),
        // A row that is deleted and inserted anew would lose what the target alone has of it.
        (Identity::WholeRow, true) if mapping.extra_columns().next().is_none() => Keying::WholeRow,
        (Identity::WholeRow | Identity::None, true) => Keying::Inserts,
    };
    let names_objects = |index: &usize| mapping.column(*index).is_some_and(|column| column.names_objects);
    let objects = (0..relation.columns.len()).filter(names_objects).collect();
    let (rows, sets) = (Renderer::new(mapping), SetRenderer::default());
    Ok(Handling::Apply(Box::new(Apply { rows, sets, from, keying, objects })))
}

/// A transaction that has altered a table between its changes cannot be applied to any
/// table of the target: what would mend it for one change is in the way of another.
fn no_way_out(error: ApplyError, relation: &Relation, pieces: &[Piece]) -> ApplyError {
    let ApplyError::Mapping { table, at, error: MappingError::Columns { is_addition: false, .. } } = &error else {
        return error;
    };
    let is_it = |other: &&Arc<Relation>| other.id == relation.id;
    let differ = |piece: &Piece| {
        let mut of_it = piece.changes.iter().flat_map(of_change).filter(is_it);
        let first = of_it.next();
        first.is_some_and(|first| of_it.any(|other| other.columns != first.columns))
    };
    if !pieces.iter().filter(|piece| piece.begin.commit_lsn.lsn() == *at).any(differ) {
        return error;
    }
    let (table, at) = (table.clone(), *at);
    ApplyError::Mapping { at, error: MappingError::Within { table: table.clone() }, table }
}

/// The place of a relation on the target's table `found`; no row is written to one whose
/// columns are others or hold less.
async fn map(
    relation: &Arc<Relation>,
    found: Option<TargetTable>,
    (target, source): (&Session, &mut Source),
    state: &State,
) -> Result<Result<Mapping, MappingError>, ApplyError> {
    let Some(found) = found else { return Ok(Err(MappingError::NoTable(relation.table.clone()))) };
    let types = source.types_below(relation).await?;
    if let Some(error) = source.require_columns(relation, &types, &found, (target, state)).await? {
        return Ok(Err(error));
    }
    let mapping = match Mapping::new(Arc::clone(relation), found) {
        Ok(mapping) => mapping,
        Err(error) => return Ok(Err(source.explain(relation.id, error, state).await?)),
    };
    let Some((index, there)) = mapping.narrower(&types) else { return Ok(Ok(mapping)) };
    let table = mapping.target.table.clone();
    // As the message has it: by now it may be another one again.
    let on_source = match types.get(index) {
        Some(told) => source.type_sql(*told).await?,
        None => String::new(),
    };
    let altered = tables::top_with_column(target, mapping.target.oid, &there.name).await?.unwrap_or(table.clone());
    let (column, on_target) = (there.name.clone(), there.sql_type.clone());
    Ok(Err(MappingError::Narrower { table, column, on_source, on_target, altered }))
}

/// The relations that a change is about.
pub(super) fn of_change(change: &Change) -> &[Arc<Relation>] {
    match &change.kind {
        ChangeKind::Truncate { relations, .. } => relations,
        _ => std::slice::from_ref(&change.relation),
    }
}

fn address(relation: &Arc<Relation>) -> usize {
    Arc::as_ptr(relation) as usize
}
