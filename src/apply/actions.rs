//! Referential actions (ON DELETE CASCADE, SET NULL, ON UPDATE …) that are in
//! force on the target.
//!
//! What an action did on the source is in the stream itself, as changes of the
//! child table. Where parent and child stand at one point of the source, the
//! action of the target finds nothing to do that the stream does not say as
//! well. But a child whose rows were copied as of a later point has passed its
//! changes up to there over, and the action of an older change of the parent
//! would fall upon rows that came after it: a parent deleted and inserted again
//! would take the children of the new one along.
//!
//! And where changes go row by row, the parent's DELETE comes first, as on the
//! source, and takes the child's row before the child's own DELETE does.
//!
//! Invariants: no DELETE, and no UPDATE, of a parent runs while a foreign key
//! that acts on it leads to it from a table whose rows are of a later point; a
//! row of a child that is not there is never taken for done by an action: it
//! stops the stream, with the keys' names.
//!
//! Source: `RI_FKey_cascade_del` and its like in
//! `src/backend/utils/adt/ri_triggers.c`.

use super::relations::{Handling, Relations};
use super::tables::Tables;
use super::{ApplyError, Label, Place};
use crate::assemble::{Change, ChangeKind, Piece};
use crate::sql::{TableName, ident};

/// A foreign key of the target that acts on the rows of its child table.
#[derive(Clone, Debug)]
pub struct Action {
    /// Whether the table that was looked at is its parent (and not its child).
    pub is_parent: bool,
    /// The table with the key; of a partitioned one this may be a partition.
    pub child: TableName,
    /// The table to alter: the topmost one that has the key.
    pub owner: TableName,
    /// The key's name there.
    pub name: String,
    /// Its definition, as ADD CONSTRAINT takes it.
    pub definition: String,
    /// It acts when the parent's row goes.
    pub on_delete: bool,
    /// It acts when the parent's key changes.
    pub on_update: bool,
}

impl Action {
    fn meets(&self, change: &Change) -> bool {
        match change.kind {
            ChangeKind::Delete { .. } => self.on_delete,
            ChangeKind::Update { .. } => self.on_update,
            ChangeKind::Insert { .. } | ChangeKind::Truncate { .. } => false,
        }
    }
}

/// Refuses changes whose effects on another table would come in twice, the
/// second time at a wrong point.
///
/// # Errors
/// [`ApplyError::Action`] with the SQL that drops the keys and brings them back.
pub(super) fn refuse(relations: &Relations, pieces: &[Piece], tables: &Tables) -> Result<(), ApplyError> {
    // Usually there is none, and then the pieces need not be walked through.
    if !relations.have_actions() {
        return Ok(());
    }
    for piece in pieces {
        for change in &piece.changes {
            let Some(Handling::Apply(apply)) = relations.get(&change.relation) else { continue };
            if !apply.takes(piece) {
                continue;
            }
            let is_early = |action: &&Action| {
                let child = tables.rows_as_of(&action.child);
                action.is_parent && action.meets(change) && child.may_be_after(piece.begin.commit_lsn)
            };
            let acting: Vec<&Action> = apply.actions().iter().filter(is_early).collect();
            if !acting.is_empty() {
                return Err(error(piece, change, &acting));
            }
        }
    }
    Ok(())
}

const OF_A_LATER_POINT: &str = "foreign keys in force on the target would change rows of other tables in its wake, and \
     these were copied as of a later point, so rows would be lost";

const TAKEN_ALREADY: &str = "it affected 0 rows on the target instead of one. Foreign keys in force there act on this \
     table: when changes go row by row, they take its rows before its own changes come";

/// An error of the target, told by its cause: a row that an action may have
/// taken before its own change came.
pub(super) fn explain(error: ApplyError, relations: &Relations) -> ApplyError {
    let ApplyError::RowCount { place, affected: 0 } = error else { return error };
    let keys: Vec<&Action> = relations.actions_on(&place.label).collect();
    if keys.is_empty() { ApplyError::RowCount { place, affected: 0 } } else { told(place, TAKEN_ALREADY, &keys) }
}

fn error(piece: &Piece, change: &Change, acting: &[&Action]) -> ApplyError {
    let operation = if matches!(change.kind, ChangeKind::Delete { .. }) { "DELETE" } else { "UPDATE" };
    let label = Label { table: change.relation.table.clone(), key: Vec::new() };
    let place = Place { label: label.into(), operation, commit: piece.begin.commit_lsn, xid: piece.begin.xid };
    told(Box::new(place), OF_A_LATER_POINT, acting)
}

fn told(place: Box<Place>, why: &'static str, keys: &[&Action]) -> ApplyError {
    let mut keys: Vec<(&TableName, &str, &str)> =
        keys.iter().map(|action| (&action.owner, action.name.as_str(), action.definition.as_str())).collect();
    keys.sort_unstable();
    keys.dedup();
    let (drop, add): (Vec<String>, Vec<String>) = keys
        .iter()
        .map(|(owner, name, definition)| {
            let (table, name) = (owner.sql(), ident(name));
            let add = format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition};");
            (format!("ALTER TABLE {table} DROP CONSTRAINT {name};"), add)
        })
        .unzip();
    ApplyError::Action { place, why, drop: drop.join(" "), add: add.join(" ") }
}
