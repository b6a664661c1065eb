//! Transactions → net change per table and key. Pure.
//!
//! ```text
//!            insert          update              delete
//! (nothing)  Insert          Update              Delete
//! Insert     ✗               Insert, merged      (nothing)
//! Update     ✗               Update, merged      Delete
//! Delete     Delete+Insert   ✗                   ✗
//! Delete+Insert ✗            Delete+Insert, m.   Delete
//! (nothing again) Insert     ✗                   ✗
//! ```
//!
//! ✗ cannot come from a source that is right; it makes the whole batch go the
//! ordered path, which names the row.
//!
//! Invariants: applying the deletes, then the updates, then the inserts of a
//! [`Net`] leaves a table as the changes in their order would; an unchanged
//! TOAST value is merged from an earlier change of the same row or stays
//! unchanged, and is never anything else; a change of another row than the one that the
//! batch left under its key is no net change of it; what cannot be reordered (a key that
//! changes, a row without a key) is a step of its own between two nets of its
//! table. Tables are independent of each other: the caller says so by choosing
//! this path (no active foreign key or trigger). A TRUNCATE parts everything.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use crate::assemble::{Change, ChangeKind, Piece};
use crate::pgoutput::{OldTuple, Tuple, Value};
use crate::relation::Relation;

/// How the rows of a relation can be coalesced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keying {
    /// By these columns.
    Key(Arc<[usize]>),
    /// By all their values (REPLICA IDENTITY FULL without a key): equal rows stand for each
    /// other, so it counts alone how many of them come and go.
    WholeRow,
    /// Inserts only; anything else row by row.
    Inserts,
    /// Row by row.
    Rows,
    /// Not applied at all.
    PassedOver,
}

/// A row as it is to be written.
#[derive(Clone, Debug)]
pub enum Row<'a> {
    /// As one change carries it.
    Whole(&'a Tuple),
    /// Put together from several changes.
    Merged(Vec<Value<'a>>),
}

impl<'a> Row<'a> {
    /// The value of a column; [`Value::Unchanged`] means: leave it alone.
    pub fn get(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Row::Whole(tuple) => tuple.get(index),
            Row::Merged(values) => values.get(index).copied(),
        }
    }

    /// Bytes of its data, about.
    pub fn bytes(&self) -> usize {
        let size = |value: &Value<'_>| match value {
            Value::Text(data) | Value::Binary(data) => data.len(),
            Value::Null | Value::Unchanged => 0,
        };
        match self {
            Row::Whole(tuple) => tuple.heap_size(),
            Row::Merged(values) => values.iter().map(size).sum(),
        }
    }

    /// Whether it may be this row, which the source sent whole.
    fn may_be(&self, whole: &Tuple) -> bool {
        let is_equal = |(index, value): (usize, Value<'_>)| {
            self.get(index).is_some_and(|ours| ours == Value::Unchanged || ours == value)
        };
        whole.iter().enumerate().all(is_equal)
    }

    /// The row after `later` has been written over it.
    fn merge(self, later: &'a Tuple) -> Self {
        if !later.iter().any(|value| value == Value::Unchanged) {
            return Row::Whole(later);
        }
        let mut values = match self {
            Row::Merged(values) => values,
            Row::Whole(tuple) => tuple.iter().collect(),
        };
        for (value, new) in values.iter_mut().zip(later.iter()) {
            if new != Value::Unchanged {
                *value = new;
            }
        }
        Row::Merged(values)
    }
}

/// The net change of a table: deletes first, then updates, then inserts.
#[derive(Debug, Default)]
pub struct Net<'a> {
    /// Rows to remove, by the tuple that has their key; of whole rows each as often as it is
    /// to go.
    pub deletes: Vec<&'a Tuple>,
    /// Rows to change; each key once.
    pub updates: Vec<Updated<'a>>,
    /// Rows to add.
    pub inserts: Vec<Row<'a>>,
}

impl Net<'_> {
    /// Whether nothing is left to do.
    pub fn is_empty(&self) -> bool {
        self.deletes.is_empty() && self.updates.is_empty() && self.inserts.is_empty()
    }
}

/// A row to change.
#[derive(Clone, Debug)]
pub struct Updated<'a> {
    /// The tuple that has its key.
    pub key: &'a Tuple,
    /// What it becomes.
    pub row: Row<'a>,
}

/// What is done to one table, in order.
#[derive(Debug)]
pub enum Step<'a> {
    /// Net changes.
    Net(Net<'a>),
    /// One change by itself.
    Row(&'a Piece, &'a Change),
}

/// All steps of one table between two TRUNCATEs.
#[derive(Debug)]
pub struct TableWork<'a> {
    /// The table.
    pub relation: &'a Arc<Relation>,
    /// Its steps in order.
    pub steps: Vec<Step<'a>>,
}

/// A part of a batch whose tables are independent of each other.
#[derive(Debug)]
pub enum Segment<'a> {
    /// Changes of rows.
    Tables(Vec<TableWork<'a>>),
    /// A TRUNCATE.
    Truncate(&'a Piece, &'a Change),
}

/// Why a batch cannot be coalesced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Changes that do not follow from each other.
    Inconsistent,
    /// The table's definition changes within the batch.
    RelationChanged,
    /// An INSERT whose large values are not in the stream.
    ValueMissing,
}

impl Conflict {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Conflict::Inconsistent => "inconsistent",
            Conflict::RelationChanged => "relation_changed",
            Conflict::ValueMissing => "value_missing",
        }
    }
}

/// Computes the net changes of whole transactions.
///
/// # Errors
/// [`Conflict`]: apply them in order instead.
pub fn coalesce<'a>(
    pieces: &'a [Piece],
    mut keying: impl FnMut(&'a Piece, &'a Arc<Relation>) -> Keying,
) -> Result<Vec<Segment<'a>>, Conflict> {
    let mut segments = Vec::new();
    let mut tables = Tables::default();
    for piece in pieces {
        for change in &piece.changes {
            if let ChangeKind::Truncate { .. } = change.kind {
                tables.close(&mut segments);
                segments.push(Segment::Truncate(piece, change));
            } else {
                tables.of(piece, &change.relation, &mut keying)?.add(piece, change)?;
            }
        }
        // A snapshot's boundary can lie between two transactions.
        tables.forget_keying();
    }
    tables.close(&mut segments);
    Ok(segments)
}

/// The tables of the segment that is being filled.
#[derive(Default)]
struct Tables<'a> {
    by_id: HashMap<u32, usize>,
    open: Vec<OpenTable<'a>>,
}

impl<'a> Tables<'a> {
    fn of(
        &mut self,
        piece: &'a Piece,
        relation: &'a Arc<Relation>,
        keying: &mut impl FnMut(&'a Piece, &'a Arc<Relation>) -> Keying,
    ) -> Result<&mut OpenTable<'a>, Conflict> {
        let place = *self.by_id.entry(relation.id).or_insert_with(|| {
            self.open.push(OpenTable::new(relation));
            self.open.len() - 1
        });
        let table = self.open.get_mut(place).ok_or(Conflict::Inconsistent)?;
        if !Arc::ptr_eq(table.relation, relation) {
            return Err(Conflict::RelationChanged);
        }
        if !table.is_keyed {
            table.is_keyed = true;
            table.keying = keying(piece, relation);
        }
        Ok(table)
    }

    fn forget_keying(&mut self) {
        for table in &mut self.open {
            table.is_keyed = false;
        }
    }

    fn close(&mut self, segments: &mut Vec<Segment<'a>>) {
        self.by_id.clear();
        let work: Vec<TableWork<'a>> = self.open.drain(..).filter_map(OpenTable::close).collect();
        if !work.is_empty() {
            segments.push(Segment::Tables(work));
        }
    }
}

/// What the batch does to one row.
#[derive(Debug)]
enum Effect<'a> {
    /// It came and went within the batch.
    Nothing,
    Insert(Row<'a>),
    Update(Updated<'a>),
    Delete(&'a Tuple),
    Replace(&'a Tuple, Row<'a>),
}

impl Effect<'_> {
    /// Whether it leaves the row that a change says was there. Under REPLICA IDENTITY
    /// FULL the source may have several rows of a key that is unique on the target alone.
    fn leaves(&self, old: Option<&OldTuple>) -> bool {
        match (self, old) {
            (Effect::Insert(row) | Effect::Replace(_, row), Some(OldTuple::Full(whole))) => row.may_be(whole),
            (Effect::Update(updated), Some(OldTuple::Full(whole))) => updated.row.may_be(whole),
            _ => true,
        }
    }
}

/// A table of the segment that is being filled.
struct OpenTable<'a> {
    relation: &'a Arc<Relation>,
    is_keyed: bool,
    keying: Keying,
    steps: Vec<Step<'a>>,
    by_key: HashMap<Cow<'a, [u8]>, usize>,
    /// Inserts of whole rows, by their values.
    by_values: HashMap<Vec<u8>, Vec<usize>>,
    effects: Vec<Effect<'a>>,
}

impl<'a> OpenTable<'a> {
    fn new(relation: &'a Arc<Relation>) -> Self {
        OpenTable {
            relation,
            is_keyed: false,
            keying: Keying::Rows,
            steps: Vec::new(),
            by_key: HashMap::new(),
            by_values: HashMap::new(),
            effects: Vec::new(),
        }
    }

    fn add(&mut self, piece: &'a Piece, change: &'a Change) -> Result<(), Conflict> {
        let key_columns = match &self.keying {
            Keying::PassedOver => return Ok(()),
            Keying::Key(columns) => Some(Arc::clone(columns)),
            Keying::Inserts => None,
            Keying::WholeRow => return self.whole(piece, change),
            Keying::Rows => {
                self.single(piece, change);
                return Ok(());
            }
        };
        match (&change.kind, key_columns) {
            (ChangeKind::Insert { new }, _) if has_unchanged(new) => Err(Conflict::ValueMissing),
            (ChangeKind::Insert { new }, None) => {
                self.effects.push(Effect::Insert(Row::Whole(new)));
                Ok(())
            }
            (ChangeKind::Insert { new }, Some(columns)) => {
                let key = key_of(new, &columns).ok_or(Conflict::Inconsistent)?;
                self.insert(key, new)
            }
            (ChangeKind::Update { old, new }, Some(columns)) => {
                let before = old.as_ref().map_or(new, OldTuple::tuple);
                let key = key_of(before, &columns).ok_or(Conflict::Inconsistent)?;
                if old.is_some() && is_key_changed(before, new, &columns) {
                    self.single(piece, change);
                    return Ok(());
                }
                self.update(key, before, old.as_ref(), new)
            }
            (ChangeKind::Delete { old }, Some(columns)) => {
                let key = key_of(old.tuple(), &columns).ok_or(Conflict::Inconsistent)?;
                self.delete(key, old)
            }
            (ChangeKind::Update { .. } | ChangeKind::Delete { .. } | ChangeKind::Truncate { .. }, _) => {
                self.single(piece, change);
                Ok(())
            }
        }
    }

    /// A row that comes in the batch and goes in it is none; one that was there before has to
    /// be there, also where an equal one comes later.
    fn whole(&mut self, piece: &'a Piece, change: &'a Change) -> Result<(), Conflict> {
        match &change.kind {
            ChangeKind::Insert { new } => self.comes(Row::Whole(new)),
            ChangeKind::Update { old: Some(OldTuple::Full(old)), new } => {
                self.goes(old)?;
                self.comes(Row::Whole(old).merge(new))
            }
            ChangeKind::Delete { old: OldTuple::Full(old) } => self.goes(old),
            ChangeKind::Update { .. } | ChangeKind::Delete { .. } | ChangeKind::Truncate { .. } => {
                self.single(piece, change);
                Ok(())
            }
        }
    }

    fn comes(&mut self, row: Row<'a>) -> Result<(), Conflict> {
        let values = values_of(|index| row.get(index)).ok_or(Conflict::ValueMissing)?;
        self.by_values.entry(values).or_default().push(self.effects.len());
        self.effects.push(Effect::Insert(row));
        Ok(())
    }

    fn goes(&mut self, old: &'a Tuple) -> Result<(), Conflict> {
        let values = values_of(|index| old.get(index)).ok_or(Conflict::Inconsistent)?;
        match self.by_values.get_mut(&values).and_then(Vec::pop).and_then(|place| self.effects.get_mut(place)) {
            Some(came) => *came = Effect::Nothing,
            None => self.effects.push(Effect::Delete(old)),
        }
        Ok(())
    }

    fn insert(&mut self, key: Cow<'a, [u8]>, new: &'a Tuple) -> Result<(), Conflict> {
        match self.effect(key, Effect::Nothing) {
            place @ Effect::Nothing => *place = Effect::Insert(Row::Whole(new)),
            place @ Effect::Delete(_) => {
                if let Effect::Delete(old) = std::mem::replace(place, Effect::Nothing) {
                    *place = Effect::Replace(old, Row::Whole(new));
                }
            }
            _ => return Err(Conflict::Inconsistent),
        }
        Ok(())
    }

    fn update(
        &mut self,
        key: Cow<'a, [u8]>,
        before: &'a Tuple,
        old: Option<&'a OldTuple>,
        new: &'a Tuple,
    ) -> Result<(), Conflict> {
        // Under REPLICA IDENTITY FULL the old row has what the new one leaves out.
        let row = match old {
            Some(OldTuple::Full(full)) => Row::Whole(full).merge(new),
            Some(OldTuple::Key(_)) | None => Row::Whole(new),
        };
        let Some(place) = self.by_key.get(&key).and_then(|&place| self.effects.get_mut(place)) else {
            self.effect(key, Effect::Update(Updated { key: before, row }));
            return Ok(());
        };
        if !place.leaves(old) {
            return Err(Conflict::Inconsistent);
        }
        *place = match std::mem::replace(place, Effect::Nothing) {
            Effect::Insert(row) => Effect::Insert(row.merge(new)),
            Effect::Update(updated) => Effect::Update(Updated { row: updated.row.merge(new), ..updated }),
            Effect::Replace(old, row) => Effect::Replace(old, row.merge(new)),
            Effect::Nothing | Effect::Delete(_) => return Err(Conflict::Inconsistent),
        };
        Ok(())
    }

    fn delete(&mut self, key: Cow<'a, [u8]>, old: &'a OldTuple) -> Result<(), Conflict> {
        let Some(place) = self.by_key.get(&key).and_then(|&place| self.effects.get_mut(place)) else {
            self.effect(key, Effect::Delete(old.tuple()));
            return Ok(());
        };
        if !place.leaves(Some(old)) {
            return Err(Conflict::Inconsistent);
        }
        *place = match std::mem::replace(place, Effect::Nothing) {
            Effect::Insert(_) => Effect::Nothing,
            Effect::Update(updated) => Effect::Delete(updated.key),
            Effect::Replace(old, _) => Effect::Delete(old),
            Effect::Nothing | Effect::Delete(_) => return Err(Conflict::Inconsistent),
        };
        Ok(())
    }

    /// The effect on a row, `first` if it has none yet.
    fn effect(&mut self, key: Cow<'a, [u8]>, first: Effect<'a>) -> &mut Effect<'a> {
        let OpenTable { by_key, effects, .. } = self;
        let place = *by_key.entry(key).or_insert_with(|| {
            effects.push(first);
            effects.len() - 1
        });
        &mut effects[place]
    }

    /// A change that cannot be reordered with others of its table.
    fn single(&mut self, piece: &'a Piece, change: &'a Change) {
        self.flush();
        self.steps.push(Step::Row(piece, change));
    }

    fn flush(&mut self) {
        self.by_key.clear();
        self.by_values.clear();
        let mut net = Net::default();
        for effect in self.effects.drain(..) {
            match effect {
                Effect::Nothing => {}
                Effect::Insert(row) => net.inserts.push(row),
                Effect::Update(updated) => net.updates.push(updated),
                Effect::Delete(old) => net.deletes.push(old),
                Effect::Replace(old, row) => {
                    net.deletes.push(old);
                    net.inserts.push(row);
                }
            }
        }
        if !net.is_empty() {
            self.steps.push(Step::Net(net));
        }
    }

    fn close(mut self) -> Option<TableWork<'a>> {
        self.flush();
        if self.steps.is_empty() { None } else { Some(TableWork { relation: self.relation, steps: self.steps }) }
    }
}

fn has_unchanged(row: &Tuple) -> bool {
    row.iter().any(|value| value == Value::Unchanged)
}

/// Whether the new row has another key. A key value that was not touched can
/// come as unchanged.
fn is_key_changed(before: &Tuple, new: &Tuple, columns: &[usize]) -> bool {
    columns.iter().any(|&index| new.get(index) != Some(Value::Unchanged) && new.get(index) != before.get(index))
}

/// All values of a row, so that two rows of a table look alike only if they are; `None` when
/// one is missing.
pub fn values_of<'a>(value: impl Fn(usize) -> Option<Value<'a>>) -> Option<Vec<u8>> {
    let mut values = Vec::new();
    for value in (0..).map_while(value) {
        match value {
            Value::Null => values.push(0),
            Value::Text(text) => {
                values.push(1);
                values.extend_from_slice(&text.len().to_be_bytes());
                values.extend_from_slice(text);
            }
            Value::Unchanged | Value::Binary(_) => return None,
        }
    }
    Some(values)
}

/// The key's text, each column with its length before it so that two keys
/// never look alike; `None` when a value is missing.
fn key_of<'a>(row: &'a Tuple, columns: &[usize]) -> Option<Cow<'a, [u8]>> {
    let text = |index: usize| match row.get(index) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    };
    if let &[index] = columns {
        return text(index).map(Cow::Borrowed);
    }
    let mut key = Vec::new();
    for &index in columns {
        let text = text(index)?;
        key.extend_from_slice(&text.len().to_be_bytes());
        key.extend_from_slice(text);
    }
    Some(Cow::Owned(key))
}

#[cfg(test)]
mod table_test;
#[cfg(test)]
mod tests;
