//! The table of effects, field by field, and what makes a batch go the ordered path:
//! single histories, where `tests` makes thousands.

use super::tests::{COLUMNS, piece, relation, tuple};
use super::*;
use crate::pgoutput::ReplicaIdentity;

fn text(key: &'static [u8], value: &'static [u8]) -> Tuple {
    tuple(&[Value::Text(key), Value::Text(b"b"), Value::Text(value), Value::Null, Value::Null])
}

/// `i`, `u`, `d` on one row, each with a value of its own.
fn changes(relation: &Arc<Relation>, letters: &str) -> Vec<Change> {
    let change = |(n, letter): (usize, char)| {
        let new = text(b"k", [&b"0"[..], b"1", b"2", b"3", b"4"][n]);
        let kind = match letter {
            'i' => ChangeKind::Insert { new },
            'u' => ChangeKind::Update { old: None, new },
            _ => ChangeKind::Delete { old: OldTuple::Key(new) },
        };
        Change { relation: relation.clone(), kind }
    };
    letters.chars().enumerate().map(change).collect()
}

/// Deletes, updates, inserts, and the value that is written.
type Counts = (usize, usize, usize, Option<Vec<u8>>);

/// What remains of a row's changes.
fn net_of(letters: &str) -> Result<Counts, Conflict> {
    let relation = relation(0, ReplicaIdentity::Default, &[0]);
    let pieces = [piece(0, changes(&relation, letters))];
    let segments = coalesce(&pieces, |_, _| Keying::Key([0].into()))?;
    let [Segment::Tables(tables)] = &segments[..] else { return Ok((0, 0, 0, None)) };
    let [Step::Net(net)] = &tables[0].steps[..] else { panic!("{letters}: {tables:?}") };
    let row = net.updates.first().map(|updated| &updated.row).or(net.inserts.first());
    let value = row.and_then(|row| row.get(2)).and_then(|value| match value {
        Value::Text(text) => Some(text.to_vec()),
        _ => None,
    });
    Ok((net.deletes.len(), net.updates.len(), net.inserts.len(), value))
}

#[test]
fn every_effect_of_the_table_is_what_the_table_says() {
    let value = |n: u8| Some(vec![b'0' + n]);
    for (letters, expected) in [
        ("i", (0, 0, 1, value(0))),
        ("u", (0, 1, 0, value(0))),
        ("d", (1, 0, 0, None)),
        ("iu", (0, 0, 1, value(1))),
        ("id", (0, 0, 0, None)),
        ("uu", (0, 1, 0, value(1))),
        ("ud", (1, 0, 0, None)),
        ("di", (1, 0, 1, value(1))),
        ("diu", (1, 0, 1, value(2))),
        ("did", (1, 0, 0, None)),
        ("didi", (1, 0, 1, value(3))),
        ("idi", (0, 0, 1, value(2))),
        ("udiu", (1, 0, 1, value(3))),
    ] {
        assert_eq!(net_of(letters), Ok(expected), "{letters}");
    }
}

#[test]
fn changes_that_do_not_follow_from_each_other_are_a_conflict() {
    for letters in ["ii", "ui", "du", "dd", "dii", "idu", "idd", "uii", "udd", "udu"] {
        assert_eq!(net_of(letters), Err(Conflict::Inconsistent), "{letters}");
    }
}

/// A key that is unique on the target alone: the source may have two rows of it.
#[test]
fn a_change_of_another_row_of_the_key_than_the_batch_left_is_a_conflict() {
    let relation = relation(0, ReplicaIdentity::Full, &[0, 1, 2, 3, 4]);
    let change = |kind| Change { relation: relation.clone(), kind };
    let row = |value| text(b"k", value);
    let full = |value| OldTuple::Full(row(value));
    let delete = |value| change(ChangeKind::Delete { old: full(value) });
    let update = |old, new| change(ChangeKind::Update { old: Some(full(old)), new: row(new) });
    let insert = |value| change(ChangeKind::Insert { new: row(value) });
    let of = |changes| coalesce(&[piece(0, changes)], |_, _| Keying::Key([0].into())).map(|segments| segments.len());
    for another in [
        vec![insert(b"new"), delete(b"old")],
        vec![update(b"a", b"b"), delete(b"c")],
        vec![update(b"a", b"b"), update(b"c", b"d")],
        vec![delete(b"a"), insert(b"b"), update(b"c", b"d")],
        vec![delete(b"a"), insert(b"b"), delete(b"c")],
    ] {
        assert_eq!(of(another), Err(Conflict::Inconsistent));
    }
    assert_eq!(of(vec![insert(b"a"), update(b"a", b"b"), delete(b"b")]), Ok(0));
    assert_eq!(of(vec![update(b"a", b"b"), update(b"b", b"c"), delete(b"c"), insert(b"d")]), Ok(1));
}

/// What goes that was there before has to be there, also where an equal row comes later: else
/// a row that the target lacks would not be noticed.
#[test]
fn of_whole_rows_only_what_came_in_the_batch_is_spared_from_going() {
    let relation = relation(0, ReplicaIdentity::Full, &[0, 1, 2, 3, 4]);
    let change = |kind| Change { relation: relation.clone(), kind };
    let row = |value| text(b"k", value);
    let delete = |value| change(ChangeKind::Delete { old: OldTuple::Full(row(value)) });
    let update = |old, new| change(ChangeKind::Update { old: Some(OldTuple::Full(row(old))), new: row(new) });
    let insert = |value| change(ChangeKind::Insert { new: row(value) });
    for (changes, expected) in [
        (vec![insert(b"a"), delete(b"a")], (0, 0)),
        (vec![delete(b"a"), insert(b"a")], (1, 1)),
        (vec![delete(b"a"), delete(b"a")], (2, 0)),
        (vec![insert(b"a"), insert(b"a"), delete(b"a")], (0, 1)),
        (vec![insert(b"a"), delete(b"a"), delete(b"a")], (1, 0)),
        (vec![update(b"a", b"b"), update(b"b", b"c")], (1, 1)),
        (vec![update(b"a", b"b"), update(b"a", b"b"), delete(b"b")], (2, 1)),
    ] {
        let pieces = [piece(0, changes)];
        let segments = coalesce(&pieces, |_, _| Keying::WholeRow).unwrap();
        let counts = match &segments[..] {
            [Segment::Tables(tables)] => match &tables[0].steps[..] {
                [Step::Net(net)] if net.updates.is_empty() => (net.deletes.len(), net.inserts.len()),
                steps => panic!("{steps:?}"),
            },
            _ => (0, 0),
        };
        assert_eq!(counts, expected, "{pieces:?}");
    }
    // An old row that is not whole is none to be found by.
    let key = change(ChangeKind::Delete { old: OldTuple::Key(row(b"a")) });
    let pieces = [piece(0, vec![insert(b"b"), key])];
    let segments = coalesce(&pieces, |_, _| Keying::WholeRow).unwrap();
    let [Segment::Tables(tables)] = &segments[..] else { panic!("{segments:?}") };
    assert!(matches!(&tables[0].steps[..], [Step::Net(_), Step::Row(..)]), "{tables:?}");
}

#[test]
fn what_was_passed_over_by_the_key_is_a_conflict_and_not_a_guess() {
    let keyed = |_: &Piece, _: &Arc<Relation>| Keying::Key([0].into());
    let relation_0 = relation(0, ReplicaIdentity::Default, &[0]);
    let change = |kind| vec![piece(0, vec![Change { relation: relation_0.clone(), kind }])];
    let nulls = || tuple(&[Value::Null; COLUMNS]);
    for kind in [ChangeKind::Insert { new: nulls() }, ChangeKind::Update { old: None, new: nulls() }] {
        assert_eq!(coalesce(&change(kind), keyed).unwrap_err(), Conflict::Inconsistent);
    }
    let binary = tuple(&[Value::Binary(b"k"), Value::Null, Value::Null, Value::Null, Value::Null]);
    let kind = ChangeKind::Delete { old: OldTuple::Key(binary) };
    assert_eq!(coalesce(&change(kind), keyed).unwrap_err(), Conflict::Inconsistent);
    let hole = tuple(&[Value::Text(b"k"), Value::Null, Value::Null, Value::Unchanged, Value::Null]);
    for keying in [Keying::Key([0].into()), Keying::Inserts, Keying::WholeRow] {
        let pieces = change(ChangeKind::Insert { new: hole.clone() });
        assert_eq!(coalesce(&pieces, |_, _| keying.clone()).unwrap_err(), Conflict::ValueMissing);
    }
    // Neither matters to a table that is not applied, or goes row by row.
    let pieces = change(ChangeKind::Insert { new: hole });
    assert!(coalesce(&pieces, |_, _| Keying::PassedOver).unwrap().is_empty());
    assert_eq!(coalesce(&pieces, |_, _| Keying::Rows).unwrap().len(), 1);
}

#[test]
fn a_table_that_is_described_anew_within_the_batch_is_a_conflict() {
    let one = relation(0, ReplicaIdentity::Default, &[0]);
    let other = relation(0, ReplicaIdentity::Default, &[0]);
    let mut both = changes(&one, "i");
    both.extend(changes(&other, "u"));
    let pieces = [piece(0, both)];
    assert_eq!(coalesce(&pieces, |_, _| Keying::Key([0].into())).unwrap_err(), Conflict::RelationChanged);
}

#[test]
fn a_key_change_stands_alone_between_the_nets_before_and_after_it() {
    let relation = relation(0, ReplicaIdentity::Default, &[0]);
    let mut all = changes(&relation, "u");
    let kind = ChangeKind::Update { old: Some(OldTuple::Key(text(b"k", b"0"))), new: text(b"l", b"1") };
    all.push(Change { relation: relation.clone(), kind });
    all.extend(changes(&relation, "i"));
    let pieces = [piece(0, all)];
    let segments = coalesce(&pieces, |_, _| Keying::Key([0].into())).unwrap();
    let [Segment::Tables(tables)] = &segments[..] else { panic!("{segments:?}") };
    let [Step::Net(before), Step::Row(..), Step::Net(after)] = &tables[0].steps[..] else { panic!("{tables:?}") };
    assert_eq!((before.updates.len(), after.inserts.len()), (1, 1));
}
