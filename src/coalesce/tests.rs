//! A model against the net change: a map from key to row is changed in the
//! order of the source, and once more by deletes, updates and inserts. Both
//! must be the same for every history that a right source can send.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::assemble::{Begin, First};
use crate::lsn::{CommitLsn, EndLsn, Lsn};
use crate::pgoutput::{Cascade, KeyColumn, RelationColumn, ReplicaIdentity, RestartIdentity};
use crate::sql::TableName;

/// `a`, `b` (keys), `v`, and two columns that can be in TOAST.
pub(super) const COLUMNS: usize = 5;
const LARGE: [usize; 2] = [3, 4];
/// Histories of each property; two properties make some thousands.
const CASES: u32 = 2_000;

type Cells = Vec<Option<Vec<u8>>>;
/// Rows by key; of a table without one by a number of their own.
type Rows = BTreeMap<Vec<u8>, Cells>;

pub(super) fn relation(id: u32, identity: ReplicaIdentity, key: &[usize]) -> Arc<Relation> {
    let flag = |index| if key.contains(&index) { KeyColumn::Yes } else { KeyColumn::No };
    let column =
        |index| RelationColumn { key: flag(index), name: format!("c{index}"), type_oid: 25, type_modifier: -1 };
    Arc::new(Relation {
        id,
        table: TableName::new("public", format!("t{id}")),
        replica_identity: identity,
        columns: (0..COLUMNS).map(column).collect(),
    })
}

/// The kinds of tables that histories are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Single,
    Composite,
    /// REPLICA IDENTITY FULL, found by the target's key.
    Full,
    /// Rows are not found by any key.
    Keyless,
    /// Kept on the ordered path.
    Slow,
    /// Its rows were copied after the first transactions.
    Late,
    /// Rows are found by all their values; some are equal.
    Whole,
}

const KINDS: [Kind; 7] =
    [Kind::Single, Kind::Composite, Kind::Full, Kind::Keyless, Kind::Slow, Kind::Late, Kind::Whole];

impl Kind {
    fn key(self) -> &'static [usize] {
        match self {
            Kind::Composite => &[0, 1],
            _ => &[0],
        }
    }

    fn keying(self) -> Keying {
        match self {
            Kind::Keyless => Keying::Inserts,
            Kind::Whole => Keying::WholeRow,
            Kind::Slow => Keying::Rows,
            kind => Keying::Key(kind.key().into()),
        }
    }

    fn relation(self, id: u32) -> Arc<Relation> {
        match self {
            Kind::Full | Kind::Keyless | Kind::Whole => relation(id, ReplicaIdentity::Full, &[0, 1, 2, 3, 4]),
            kind => relation(id, ReplicaIdentity::Default, kind.key()),
        }
    }

    fn sends_full(self) -> bool {
        self == Kind::Full || self.is_keyless()
    }

    fn is_keyless(self) -> bool {
        matches!(self, Kind::Keyless | Kind::Whole)
    }
}

/// What is drawn; the state of the table decides what it becomes.
#[derive(Clone, Debug)]
struct Op {
    table: usize,
    kind: u8,
    key: u8,
    other: u8,
    value: u8,
    /// Which large columns an update leaves unchanged, and whether a key is.
    unchanged: u8,
    ends_piece: bool,
}

fn op() -> impl Strategy<Value = Op> {
    (0..KINDS.len(), 0..10_u8, 0..4_u8, 0..4_u8, any::<u8>(), 0..8_u8, prop::bool::weighted(0.3)).prop_map(
        |(table, kind, key, other, value, unchanged, ends_piece)| Op {
            table,
            kind,
            key,
            other,
            value,
            unchanged,
            ends_piece,
        },
    )
}

/// Keys whose texts run into each other when they are put side by side.
fn key_cells(kind: Kind, key: u8) -> (Vec<u8>, Vec<u8>) {
    match (kind, key) {
        (Kind::Composite, 0) => (b"1".to_vec(), b"12".to_vec()),
        (Kind::Composite, 1) => (b"11".to_vec(), b"2".to_vec()),
        (Kind::Composite, 2) => (b"".to_vec(), b"112".to_vec()),
        (_, key) => (vec![b'k', key], vec![b'x']),
    }
}

fn name_of(kind: Kind, cells: &Cells) -> Vec<u8> {
    let part = |&index: &usize| format!("{:?}/", cells[index]).into_bytes();
    kind.key().iter().flat_map(part).collect()
}

fn new_row(kind: Kind, op: &Op, key: u8) -> Cells {
    let (a, b) = key_cells(kind, key);
    let value = if kind == Kind::Whole { op.value % 3 } else { op.value };
    let large = |n: u8| (!value.is_multiple_of(3)).then(|| vec![value, n]);
    vec![Some(a), Some(b), (!value.is_multiple_of(5)).then(|| vec![value]), large(3), large(4)]
}

pub(super) fn tuple(cells: &[Value<'_>]) -> Tuple {
    Tuple::from_values(cells).unwrap()
}

fn whole(cells: &Cells) -> Tuple {
    tuple(&values(cells))
}

fn values(cells: &Cells) -> Vec<Value<'_>> {
    cells.iter().map(|cell| cell.as_deref().map_or(Value::Null, Value::Text)).collect()
}

fn key_only(kind: Kind, cells: &Cells) -> OldTuple {
    let mut values = values(cells);
    for (index, value) in values.iter_mut().enumerate() {
        if !kind.key().contains(&index) {
            *value = Value::Null;
        }
    }
    OldTuple::Key(tuple(&values))
}

/// What the source sends, and what its tables have in the end.
struct History {
    pieces: Vec<Piece>,
    before: Vec<Rows>,
    after: Vec<Rows>,
    /// The first piece that the late table takes.
    boundary: usize,
}

struct Writer {
    relations: Vec<Arc<Relation>>,
    state: Vec<Rows>,
    counter: u64,
}

impl Writer {
    fn new() -> Self {
        let relations = KINDS.iter().enumerate().map(|(n, kind)| kind.relation(n as u32)).collect();
        let mut writer = Writer { relations, state: vec![Rows::new(); KINDS.len()], counter: 0 };
        for table in 0..KINDS.len() {
            for key in 0..2 {
                let op = Op { table, kind: 0, key, other: 0, value: 7, unchanged: 0, ends_piece: false };
                writer.insert(&op);
            }
        }
        writer
    }

    fn insert(&mut self, op: &Op) -> ChangeKind {
        let kind = KINDS[op.table];
        let cells = new_row(kind, op, op.key);
        self.counter += 1;
        let name = if kind.is_keyless() { self.counter.to_be_bytes().to_vec() } else { name_of(kind, &cells) };
        let new = whole(&cells);
        assert!(self.state[op.table].insert(name, cells).is_none());
        ChangeKind::Insert { new }
    }

    fn delete(&mut self, op: &Op, name: &[u8]) -> ChangeKind {
        let kind = KINDS[op.table];
        let cells = self.state[op.table].remove(name).unwrap();
        let old = if kind.sends_full() { OldTuple::Full(whole(&cells)) } else { key_only(kind, &cells) };
        ChangeKind::Delete { old }
    }

    fn update(&mut self, op: &Op, name: &[u8], key: u8) -> ChangeKind {
        let kind = KINDS[op.table];
        let before = self.state[op.table].remove(name).unwrap();
        let mut after = new_row(kind, op, key);
        let mut sent = Vec::new();
        for index in 0..COLUMNS {
            let is_large = LARGE.iter().position(|&large| large == index);
            // A key that is stored outside the row comes as unchanged, with the old one.
            let is_key = index == 0 && op.unchanged & 4 != 0 && before[0] == after[0];
            if is_key || is_large.is_some_and(|n| op.unchanged >> n & 1 == 1 && before[index].is_some()) {
                after[index] = before[index].clone();
                sent.push(None);
            } else {
                sent.push(Some(after[index].clone()));
            }
        }
        let value = |cell: &Option<Option<Vec<u8>>>| match cell {
            None => Value::Unchanged,
            Some(None) => Value::Null,
            Some(Some(text)) => Value::Text(text.clone().leak()),
        };
        let new = tuple(&sent.iter().map(value).collect::<Vec<_>>());
        let is_moved = name_of(kind, &before) != name_of(kind, &after);
        let old = match kind {
            kind if kind.sends_full() => Some(OldTuple::Full(whole(&before))),
            kind if is_moved || sent[0].is_none() => Some(key_only(kind, &before)),
            _ => None,
        };
        let name = if kind.is_keyless() { name.to_vec() } else { name_of(kind, &after) };
        assert!(self.state[op.table].insert(name, after).is_none());
        ChangeKind::Update { old, new }
    }

    fn truncate(&mut self, op: &Op) -> ChangeKind {
        let tables = BTreeSet::from([op.table, usize::from(op.other)]);
        for &table in &tables {
            self.state[table].clear();
        }
        ChangeKind::Truncate {
            relations: tables.iter().map(|&table| self.relations[table].clone()).collect(),
            restart_identity: RestartIdentity::No,
            cascade: Cascade::No,
        }
    }

    fn change(&mut self, op: &Op) -> Change {
        let kind = KINDS[op.table];
        let (here, there) = (new_row(kind, op, op.key), new_row(kind, op, op.other));
        let rows = &self.state[op.table];
        let found = match kind {
            kind if kind.is_keyless() => rows.keys().nth(usize::from(op.key)).cloned(),
            _ => Some(name_of(kind, &here)).filter(|name| rows.contains_key(name)),
        };
        let is_free = kind.is_keyless() || !rows.contains_key(&name_of(kind, &there));
        let what = match (found, op.kind) {
            (_, 9) if op.value < 40 => self.truncate(op),
            (None, _) => self.insert(op),
            (Some(name), 0..=3) => self.update(op, &name, op.key),
            (Some(name), 4) if is_free => self.update(op, &name, op.other),
            (Some(_), 5) if kind.is_keyless() => self.insert(op),
            (Some(name), _) => self.delete(op, &name),
        };
        let relation = match &what {
            ChangeKind::Truncate { relations, .. } => relations[0].clone(),
            _ => self.relations[op.table].clone(),
        };
        Change { relation, kind: what }
    }
}

pub(super) fn piece(number: usize, changes: Vec<Change>) -> Piece {
    let at = Lsn::new(number as u64 * 10);
    let begin = Begin { commit_lsn: CommitLsn::of_record(at), commit_time: 0, xid: number as u32 };
    Piece { begin, first: First::Yes, changes, bytes: 0, end: Some(EndLsn::of_commit(Lsn::new(at.number() + 5))) }
}

fn history(ops: &[Op], boundary: usize) -> History {
    let mut writer = Writer::new();
    let mut before = writer.state.clone();
    let mut pieces = Vec::new();
    let mut changes = Vec::new();
    for op in ops {
        if pieces.len() == boundary && changes.is_empty() {
            before[5] = writer.state[5].clone();
        }
        changes.push(writer.change(op));
        if op.ends_piece {
            pieces.push(piece(pieces.len(), std::mem::take(&mut changes)));
        }
    }
    // The last piece can be passed over as well, or be the boundary and empty.
    if pieces.len() < boundary || (pieces.len() == boundary && changes.is_empty()) {
        before[5] = writer.state[5].clone();
    }
    pieces.push(piece(pieces.len(), changes));
    History { pieces, before, after: writer.state, boundary }
}

/// A target that applies what it is given and refuses what a table would.
struct Target<'h> {
    history: &'h History,
    tables: Vec<Rows>,
    counter: u64,
}

impl Target<'_> {
    fn takes(&self, piece: &Piece, table: usize) -> bool {
        KINDS[table] != Kind::Late || piece.begin.xid as usize >= self.history.boundary
    }

    fn name(kind: Kind, cells: &[Option<Value<'_>>]) -> Vec<u8> {
        let cells: Cells = cells
            .iter()
            .map(|value| match value {
                Some(Value::Text(text)) => Some(text.to_vec()),
                _ => None,
            })
            .collect();
        name_of(kind, &cells)
    }

    fn write(cells: &mut Cells, row: impl Fn(usize) -> Option<Value<'static>>) {
        for (index, cell) in cells.iter_mut().enumerate() {
            match row(index).unwrap() {
                Value::Unchanged => {}
                Value::Null => *cell = None,
                Value::Text(text) | Value::Binary(text) => *cell = Some(text.to_vec()),
            }
        }
    }

    fn segments(&mut self, segments: &[Segment<'_>]) {
        for segment in segments {
            match segment {
                Segment::Truncate(piece, change) => self.change(piece, change),
                // In the wrong order of tables: they do not depend on each other.
                Segment::Tables(work) => {
                    let ids: BTreeSet<u32> = work.iter().map(|table| table.relation.id).collect();
                    assert_eq!(ids.len(), work.len(), "a table comes twice");
                    for table in work.iter().rev() {
                        assert!(!table.steps.is_empty());
                        for step in &table.steps {
                            match step {
                                Step::Net(net) => self.net(table.relation.id as usize, net),
                                Step::Row(piece, change) => self.change(piece, change),
                            }
                        }
                    }
                }
            }
        }
    }

    fn net(&mut self, table: usize, net: &Net<'_>) {
        let kind = KINDS[table];
        assert!(!net.is_empty());
        let mut seen = BTreeSet::new();
        for old in &net.deletes {
            let wanted = old.iter().map(Some).collect::<Vec<_>>();
            let name = self.found(table, &wanted);
            assert!(seen.insert(name.clone()), "a key is deleted twice");
            self.tables[table].remove(&name).expect("a row that is deleted is there");
        }
        let mut seen = BTreeSet::new();
        for updated in &net.updates {
            let name = Self::name(kind, &updated.key.iter().map(Some).collect::<Vec<_>>());
            assert!(seen.insert(name.clone()), "a key is updated twice");
            let cells = self.tables[table].get_mut(&name).expect("a row that is updated is there");
            Self::write(cells, |index| updated.row.get(index).map(leaked));
            assert_eq!(name_of(kind, cells), name, "a key change was coalesced");
        }
        for row in &net.inserts {
            let mut cells = vec![None; COLUMNS];
            assert!((0..COLUMNS).all(|index| row.get(index) != Some(Value::Unchanged)), "a hole in an insert");
            Self::write(&mut cells, |index| row.get(index).map(leaked));
            self.add(table, cells);
        }
    }

    /// The name of the row with this key, or of one that has these values.
    fn found(&self, table: usize, wanted: &[Option<Value<'_>>]) -> Vec<u8> {
        let kind = KINDS[table];
        if !kind.is_keyless() {
            return Self::name(kind, wanted);
        }
        let is_it = |cells: &Cells| values(cells).into_iter().map(Some).eq(wanted.iter().copied());
        let found = self.tables[table].iter().find(|(_, cells)| is_it(cells));
        found.map(|(name, _)| name.clone()).expect("the row is there")
    }

    fn add(&mut self, table: usize, cells: Cells) {
        self.counter += 1;
        let name = match KINDS[table] {
            kind if kind.is_keyless() => (1 << 32 | self.counter).to_be_bytes().to_vec(),
            kind => name_of(kind, &cells),
        };
        assert!(self.tables[table].insert(name, cells).is_none(), "a row that is inserted is there already");
    }

    fn change(&mut self, piece: &Piece, change: &Change) {
        if let ChangeKind::Truncate { relations, .. } = &change.kind {
            for relation in relations {
                if self.takes(piece, relation.id as usize) {
                    self.tables[relation.id as usize].clear();
                }
            }
            return;
        }
        let table = change.relation.id as usize;
        assert!(self.takes(piece, table));
        match &change.kind {
            ChangeKind::Insert { new } => {
                let mut cells = vec![None; COLUMNS];
                Self::write(&mut cells, |index| new.get(index).map(leaked));
                self.add(table, cells);
            }
            ChangeKind::Update { old, new } => {
                let name =
                    self.found(table, &old.as_ref().map_or(new, OldTuple::tuple).iter().map(Some).collect::<Vec<_>>());
                let mut cells = self.tables[table].remove(&name).unwrap();
                Self::write(&mut cells, |index| new.get(index).map(leaked));
                self.add(table, cells);
            }
            ChangeKind::Delete { old } => {
                let name = self.found(table, &old.tuple().iter().map(Some).collect::<Vec<_>>());
                self.tables[table].remove(&name).unwrap();
            }
            ChangeKind::Truncate { .. } => {}
        }
    }
}

fn leaked(value: Value<'_>) -> Value<'static> {
    match value {
        Value::Null => Value::Null,
        Value::Unchanged => Value::Unchanged,
        Value::Text(text) | Value::Binary(text) => Value::Text(text.to_vec().leak()),
    }
}

/// The rows of a table without their names: those of a keyless one are made up.
fn rows(tables: &[Rows]) -> Vec<Vec<&Cells>> {
    let mut all = Vec::new();
    for table in tables {
        let mut cells: Vec<&Cells> = table.values().collect();
        cells.sort();
        all.push(cells);
    }
    all
}

fn keying(boundary: usize) -> impl Fn(&Piece, &Arc<Relation>) -> Keying {
    move |piece, relation| match KINDS[relation.id as usize] {
        Kind::Late if (piece.begin.xid as usize) < boundary => Keying::PassedOver,
        kind => kind.keying(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_net_change_does_what_the_changes_in_their_order_do(
        ops in prop::collection::vec(op(), 1..60),
        boundary in 0..6_usize,
    ) {
        let history = history(&ops, boundary);
        let segments = coalesce(&history.pieces, keying(boundary)).unwrap();
        let mut target = Target { history: &history, tables: history.before.clone(), counter: 0 };
        target.segments(&segments);
        prop_assert_eq!(rows(&target.tables), rows(&history.after));
    }

    #[test]
    fn on_one_hot_table_everything_folds_and_still_nothing_is_lost(
        ops in prop::collection::vec(op(), 20..80),
        table in 0..3_usize,
    ) {
        let ops: Vec<Op> = ops.into_iter().map(|op| Op { table, kind: op.kind.min(8), key: op.key % 2, ..op }).collect();
        let history = history(&ops, 0);
        let segments = coalesce(&history.pieces, keying(0)).unwrap();
        let mut target = Target { history: &history, tables: history.before.clone(), counter: 0 };
        target.segments(&segments);
        prop_assert_eq!(rows(&target.tables), rows(&history.after));
    }
}
