//! The relations the applier has met: what is done with each, and how.
//!
//! Invariant: a relation is looked up before anything of its batch is sent, so
//! that looking at the catalog never waits for locks of our own transaction.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::ApplyError;
use super::mapping::{Identity, Mapping, MappingError};
use super::render::Renderer;
use super::replica_role::ReplicaRole;
use super::set_based::{self, SetRenderer};
use super::source::Source;
use super::tables::{Admission, Tables};
use super::target::TargetTable;
use crate::assemble::{Change, ChangeKind, Piece};
use crate::coalesce::Keying;
use crate::lsn::{EndLsn, Lsn};
use crate::relation::Relation;
use crate::session::Session;
use crate::state::State;

/// Relations remembered before the memory of them is started afresh.
const RELATIONS_MAX: usize = 20_000;

/// A table whose net changes were refused goes row by row for this many
/// batches: long enough that a table that swaps unique values all the time
/// seldom pays for the attempt, short enough that a single swap is forgotten.
const SLOW_BATCHES: u32 = 64;

/// What is done with the changes of a relation.
pub(super) enum Handling {
    /// They are applied.
    Apply(Box<Apply>),
    /// The operator's filter leaves them out.
    Filtered,
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
}

impl Apply {
    /// Whether a transaction is applied to this table: its rows were copied
    /// before it.
    pub(super) fn takes(&self, piece: &Piece) -> bool {
        self.from.is_none_or(|from| from.is_before(piece.begin.commit_lsn))
    }
}

/// The relations by the address of their description, which the entry keeps
/// alive.
#[derive(Default)]
pub(super) struct Relations {
    known: HashMap<usize, (Arc<Relation>, Handling)>,
    /// Tables that go row by row, by relation id, and for how many batches yet.
    slow: HashMap<u32, u32>,
}

impl Relations {
    pub(super) fn get_mut(&mut self, relation: &Arc<Relation>) -> Option<&mut Handling> {
        self.known.get_mut(&address(relation)).map(|(_, handling)| handling)
    }

    pub(super) fn get(&self, relation: &Arc<Relation>) -> Option<&Handling> {
        self.known.get(&address(relation)).map(|(_, handling)| handling)
    }

    /// Looks every relation of these pieces up.
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
        for piece in pieces {
            for change in &piece.changes {
                for relation in of_change(change) {
                    if let Entry::Vacant(place) = self.known.entry(address(relation)) {
                        let at = piece.begin.commit_lsn.0;
                        let handling = look_up(relation, at, tables, (target, source), state, role).await?;
                        place.insert((Arc::clone(relation), handling));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether all relations of a piece have been looked up.
    pub(super) fn has_all(&self, piece: &Piece) -> bool {
        piece.changes.iter().flat_map(of_change).all(|relation| self.get(relation).is_some())
    }

    /// How a relation's changes in a transaction can be coalesced.
    pub(super) fn keying(&self, piece: &Piece, relation: &Arc<Relation>) -> Keying {
        match self.get(relation) {
            Some(Handling::Apply(apply)) if !apply.takes(piece) => Keying::PassedOver,
            Some(Handling::Apply(_)) if self.slow.contains_key(&relation.id) => Keying::Rows,
            Some(Handling::Apply(apply)) => apply.keying.clone(),
            Some(Handling::Filtered) => Keying::PassedOver,
            None => Keying::Rows,
        }
    }

    /// Whether some table of these pieces must see all changes of all tables
    /// in the order of the source: its triggers, rules or foreign keys are
    /// active on the target.
    pub(super) fn need_order(&self, pieces: &[Piece]) -> bool {
        let needs = |relation: &Arc<Relation>| match self.get(relation) {
            Some(Handling::Apply(apply)) => apply.rows.mapping.target.needs_order,
            _ => false,
        };
        // Usually none does, and then the pieces need not be walked through.
        self.known.values().any(|(relation, _)| needs(relation))
            && pieces.iter().flat_map(|piece| &piece.changes).flat_map(of_change).any(needs)
    }

    /// Sends a table row by row for a while.
    pub(super) fn slow_down(&mut self, relation: u32) {
        self.slow.insert(relation, SLOW_BATCHES);
    }

    /// A batch has been sent: one less to go slowly.
    pub(super) fn count_down(&mut self) {
        self.slow.retain(|_, batches| {
            *batches -= 1;
            *batches > 0
        });
    }
}

async fn look_up(
    relation: &Arc<Relation>,
    at: Lsn,
    tables: &mut Tables,
    (target, source): (&Session, &mut Source),
    state: &State,
    role: ReplicaRole,
) -> Result<Handling, ApplyError> {
    let (from, there) = match tables.admit(relation, at, (target, source), state).await? {
        Admission::Filtered => return Ok(Handling::Filtered),
        Admission::Apply { from, there } => (from, there),
    };
    let table = relation.table.clone();
    let mapping = match TargetTable::read(target, &there, role).await? {
        Some(found) => Mapping::new(Arc::clone(relation), found),
        None => Err(MappingError::NoTable(table.clone())),
    };
    let mapping = match mapping {
        Ok(mapping) => mapping,
        Err(error) => {
            let error = source.explain(relation.id, error).await?;
            return Err(ApplyError::Mapping { table, at, error });
        }
    };
    let keying = match (&mapping.identity, set_based::is_possible(&mapping)) {
        (_, false) => Keying::Rows,
        (Identity::Key(columns), true) => Keying::Key(columns.as_slice().into()),
        (Identity::WholeRow | Identity::None, true) => Keying::Inserts,
    };
    Ok(Handling::Apply(Box::new(Apply { rows: Renderer::new(mapping), sets: SetRenderer::default(), from, keying })))
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
