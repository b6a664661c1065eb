//! The assembler's transitions, the illegal ones too, and its pieces.

use super::*;
use crate::lsn::Lsn;
use crate::pgoutput::{
    KeyColumn, LogicalMessage, Origin, Prepared, RelationColumn, RelationMessage, ReplicaIdentity, Segment,
    StreamAbort, StreamCommit, StreamStart, Transactional, TypeMessage, Value,
};

const LARGE: usize = 1 << 20;

fn assembler(position: u64, piece_bytes: usize) -> Assembler {
    Assembler::new(EndLsn::of_commit(Lsn::new(position)), piece_bytes)
}

fn begin(commit: u64) -> Message {
    Message::Begin(pgoutput::Begin { final_lsn: CommitLsn::of_record(Lsn::new(commit)), commit_time: 5, xid: 9 })
}

fn commit(commit: u64, end: u64) -> Message {
    Message::Commit(Commit {
        commit_lsn: CommitLsn::of_record(Lsn::new(commit)),
        end_lsn: EndLsn::of_commit(Lsn::new(end)),
        commit_time: 5,
    })
}

fn relation(id: u32) -> Message {
    let column = |name: &str| RelationColumn {
        key: if name == "id" { KeyColumn::Yes } else { KeyColumn::No },
        name: name.to_owned(),
        type_oid: 25,
        type_modifier: -1,
    };
    Message::Relation(RelationMessage {
        xid: None,
        id,
        schema: "public".to_owned(),
        name: format!("t{id}"),
        replica_identity: ReplicaIdentity::Default,
        columns: vec![column("id"), column("v")],
    })
}

fn tuple(columns: usize) -> Tuple {
    Tuple::from_values(&vec![Value::Text(b"1"); columns]).unwrap()
}

fn insert(relation: u32) -> Message {
    Message::Insert(Insert { xid: None, relation, new: tuple(2) })
}

fn update(relation: u32, old_columns: usize, columns: usize) -> Message {
    let old = Some(OldTuple::Key(tuple(old_columns)));
    Message::Update(Update { xid: None, relation, old, new: tuple(columns) })
}

fn delete(relation: u32, columns: usize) -> Message {
    Message::Delete(Delete { xid: None, relation, old: OldTuple::Full(tuple(columns)) })
}

fn truncate(relations: &[u32]) -> Message {
    let relations = relations.to_vec();
    Message::Truncate(Truncate { xid: None, cascade: Cascade::Yes, restart_identity: RestartIdentity::Yes, relations })
}

fn origin() -> Message {
    Message::Origin(Origin { origin_lsn: Lsn::new(1), name: "elsewhere".to_owned() })
}

fn logical() -> Message {
    let (lsn, prefix, content) = (Lsn::new(1), "p".to_owned(), bytes::Bytes::new());
    Message::Logical(LogicalMessage { xid: None, transactional: Transactional::No, lsn, prefix, content })
}

fn type_() -> Message {
    Message::Type(TypeMessage { xid: None, id: 20_000, schema: "public".to_owned(), name: "mood".to_owned() })
}

/// Pushes all, each as a payload of 100 bytes; the pieces until the error.
fn run(assembler: &mut Assembler, messages: Vec<Message>) -> (Vec<Piece>, Result<(), AssembleError>) {
    let mut pieces = Vec::new();
    for message in messages {
        match assembler.push(message, 100) {
            Ok(piece) => pieces.extend(piece),
            Err(error) => return (pieces, Err(error)),
        }
    }
    (pieces, Ok(()))
}

fn pieces(assembler: &mut Assembler, messages: Vec<Message>) -> Vec<Piece> {
    let (pieces, result) = run(assembler, messages);
    assert_eq!(result, Ok(()));
    pieces
}

fn error(messages: Vec<Message>) -> String {
    let mut assembler = assembler(10, LARGE);
    let error = run(&mut assembler, messages).1.expect_err("must not come here");
    let next = assembler.push(begin(1000), 1).expect_err("takes nothing more after an error");
    assert!(matches!(next, AssembleError::Failed { .. }), "{next}");
    error.to_string()
}

#[test]
fn a_small_transaction_is_one_piece_with_its_end() {
    let messages = vec![
        begin(100),
        origin(),
        type_(),
        relation(1),
        insert(1),
        logical(),
        update(1, 2, 2),
        delete(1, 2),
        commit(100, 110),
    ];
    let mut assembler = assembler(10, LARGE);
    let pieces = pieces(&mut assembler, messages);
    let [piece] = &pieces[..] else { panic!("{pieces:?}") };
    assert_eq!(piece.begin, Begin { commit_lsn: CommitLsn::of_record(Lsn::new(100)), commit_time: 5, xid: 9 });
    assert_eq!((piece.first, piece.end), (First::Yes, Some(EndLsn::of_commit(Lsn::new(110)))));
    use ChangeKind::{Delete, Insert, Update};
    let kinds: Vec<_> = piece.changes.iter().map(|change| &change.kind).collect();
    assert!(matches!(kinds[..], [Insert { .. }, Update { old: Some(_), .. }, Delete { .. }]), "{kinds:?}");
    assert_eq!(piece.changes[0].relation.table.to_string(), "public.t1");
    assert!(piece.bytes > 300, "payloads and their index");
    assert_eq!(assembler.passed_over(), PassedOver { known_transactions: 0, logical_messages: 1 });
}

#[test]
fn an_empty_transaction_moves_the_position_too() {
    let pieces = pieces(&mut assembler(10, LARGE), vec![begin(100), commit(100, 110)]);
    assert!(pieces[0].changes.is_empty());
    assert_eq!(
        (pieces[0].first, pieces[0].end, pieces[0].bytes),
        (First::Yes, Some(EndLsn::of_commit(Lsn::new(110))), 0)
    );
}

#[test]
fn a_large_transaction_comes_in_pieces_of_bounded_size() {
    let mut messages = vec![begin(100), relation(1)];
    messages.extend((0..1000).map(|_| insert(1)));
    messages.extend([commit(100, 110), begin(110), insert(1), commit(110, 120)]);
    let limit = 2_000;
    let pieces = pieces(&mut assembler(10, limit), messages);
    let (last, large) = pieces.split_last().unwrap();
    assert!(large.len() > 50, "{}", large.len());
    assert!(large.iter().all(|piece| piece.bytes < limit + 100 + 500), "one message over the limit at most");
    assert!(large.iter().enumerate().all(|(at, piece)| (piece.first == First::Yes) == (at == 0)));
    let ends: Vec<_> = large.iter().filter_map(|piece| piece.end).collect();
    assert_eq!(
        (ends, large.last().unwrap().end),
        (vec![EndLsn::of_commit(Lsn::new(110))], Some(EndLsn::of_commit(Lsn::new(110))))
    );
    assert_eq!(large.iter().map(|piece| piece.changes.len()).sum::<usize>(), 1000, "none lost");
    assert_eq!((last.first, last.changes.len()), (First::Yes, 1));
}

#[test]
fn a_transaction_that_ends_with_a_full_piece_still_has_an_end() {
    let pieces = pieces(&mut assembler(10, 1), vec![begin(100), relation(1), insert(1), commit(100, 110)]);
    assert_eq!(
        pieces.iter().map(|piece| (piece.first, piece.changes.len(), piece.end)).collect::<Vec<_>>(),
        [(First::Yes, 1, None), (First::No, 0, Some(EndLsn::of_commit(Lsn::new(110))))]
    );
}

#[test]
fn what_the_target_has_already_is_dropped_whole_but_its_relations_are_learned() {
    let mut assembler = assembler(110, LARGE);
    let known = vec![begin(100), origin(), relation(1), insert(1), truncate(&[9]), commit(100, 110)];
    assert!(pieces(&mut assembler, known).is_empty());
    // Starts where the position is: the server does not describe it again.
    let next = pieces(&mut assembler, vec![begin(110), insert(1), commit(110, 120)]);
    assert_eq!(next[0].changes.len(), 1);
    assert_eq!(assembler.passed_over().known_transactions, 1);
}

#[test]
fn a_truncate_of_several_tables_is_one_change() {
    let messages = vec![begin(100), relation(1), relation(2), truncate(&[2, 1]), commit(100, 110)];
    let pieces = pieces(&mut assembler(10, LARGE), messages);
    let [Change { relation, kind: ChangeKind::Truncate { relations, restart_identity, cascade } }] =
        &pieces[0].changes[..]
    else {
        panic!("{pieces:?}")
    };
    assert_eq!(relations.iter().map(|relation| relation.id).collect::<Vec<_>>(), [2, 1]);
    assert!(Arc::ptr_eq(relation, &relations[0]));
    assert_eq!((*restart_identity, *cascade), (RestartIdentity::Yes, Cascade::Yes));
}

#[test]
fn a_relation_described_anew_holds_for_the_changes_behind_it_only() {
    let narrow = |id| match relation(id) {
        Message::Relation(mut relation) => {
            relation.columns.truncate(1);
            Message::Relation(relation)
        }
        other => other,
    };
    let one = || Message::Insert(Insert { xid: None, relation: 1, new: tuple(1) });
    let messages = vec![begin(100), relation(1), insert(1), relation(1), insert(1), narrow(1), one(), commit(100, 110)];
    let pieces = pieces(&mut assembler(10, LARGE), messages);
    let [a, b, c] = &pieces[0].changes[..] else { panic!("{pieces:?}") };
    assert!(Arc::ptr_eq(&a.relation, &b.relation));
    assert_eq!((b.relation.columns.len(), c.relation.columns.len()), (2, 1));
}

#[test]
fn messages_that_belong_into_a_transaction_are_refused_outside() {
    for message in [insert(1), update(1, 2, 2), delete(1, 2), truncate(&[1]), origin(), commit(100, 110)] {
        let name = message.name();
        let expected = format!("{name} message outside a transaction, after position 0/A");
        assert_eq!(error(vec![relation(1), message]), expected);
    }
    let after = error(vec![begin(100), commit(100, 110), insert(1)]);
    assert_eq!(after, "Insert message outside a transaction, after position 0/6E");
}

#[test]
fn transactions_neither_nest_nor_go_back_nor_end_elsewhere() {
    assert_eq!(
        error(vec![begin(100), begin(200)]),
        "transaction 0/C8 begins inside the transaction that commits at 0/64"
    );
    assert_eq!(error(vec![begin(5), begin(200)]), "transaction 0/C8 begins inside the transaction that commits at 0/5");
    let back = "transaction that commits at 0/69 comes after one whose commit ended at 0/6E";
    assert_eq!(error(vec![begin(100), commit(100, 110), begin(105)]), back);
    let known = "transaction that commits at 0/5 comes after one whose commit ended at 0/6E";
    assert_eq!(error(vec![begin(100), commit(100, 110), begin(5)]), known);
    assert_eq!(error(vec![begin(100), commit(101, 110)]), "transaction that should commit at 0/64 commits at 0/65");
    assert_eq!(error(vec![begin(5), commit(6, 7)]), "transaction that should commit at 0/5 commits at 0/6");
    assert_eq!(error(vec![begin(100), commit(100, 100)]), "transaction that commits at 0/64 ends before that, at 0/64");
}

#[test]
fn changes_need_a_relation_and_exactly_its_columns() {
    let unknown = "which was never described, in the transaction that commits at 0/64";
    for message in [insert(7), update(7, 2, 2), delete(7, 2), truncate(&[1, 7])] {
        let expected = format!("{} for relation 7, {unknown}", message.name());
        assert_eq!(error(vec![begin(100), relation(1), message]), expected);
    }
    let wrong = [
        (Message::Insert(Insert { xid: None, relation: 1, new: tuple(3) }), 3),
        (update(1, 1, 2), 1),
        (update(1, 2, 3), 3),
        (delete(1, 0), 0),
    ];
    for (message, found) in wrong {
        let name = message.name();
        let expected =
            format!("{name} for public.t1 with {found} columns instead of 2, in the transaction that commits at 0/64");
        assert_eq!(error(vec![begin(100), relation(1), message]), expected);
    }
    assert_eq!(
        error(vec![begin(100), truncate(&[])]),
        "Truncate message without relations in the transaction that commits at 0/64"
    );
}

#[test]
fn messages_that_were_not_asked_for_are_refused_in_every_state() {
    let (lsn, end_lsn) = (CommitLsn::of_record(Lsn::new(100)), EndLsn::of_commit(Lsn::new(110)));
    let prepared = || Prepared { prepare_lsn: lsn, end_lsn, prepare_time: 0, xid: 1, gid: "g".to_owned() };
    let messages = || {
        let (commit_time, xid, gid) = (0, 1, "g".to_owned());
        [
            Message::StreamStart(StreamStart { xid, segment: Segment::First }),
            Message::StreamStop,
            Message::StreamCommit(StreamCommit { xid, commit_lsn: lsn, end_lsn, commit_time }),
            Message::StreamAbort(StreamAbort { xid, subxid: 2, detail: None }),
            Message::BeginPrepare(prepared()),
            Message::Prepare(prepared()),
            Message::StreamPrepare(prepared()),
            Message::CommitPrepared(pgoutput::CommitPrepared { commit_lsn: lsn, end_lsn, commit_time, xid, gid }),
            Message::RollbackPrepared(pgoutput::RollbackPrepared {
                prepare_end_lsn: end_lsn,
                rollback_end_lsn: end_lsn,
                prepare_time: 0,
                rollback_time: 0,
                xid,
                gid: "g".to_owned(),
            }),
        ]
    };
    for before in [vec![], vec![begin(100)], vec![begin(5)]] {
        for message in messages() {
            let expected = format!("{} message, which was not asked for, after position 0/A", message.name());
            assert_eq!(error(before.iter().cloned().chain([message]).collect()), expected);
        }
    }
}

#[test]
fn relations_types_and_logical_messages_may_come_anywhere() {
    let mut assembler = assembler(10, LARGE);
    let messages = vec![relation(1), type_(), logical(), begin(100), insert(1), commit(100, 110), logical()];
    assert_eq!(pieces(&mut assembler, messages).len(), 1);
    assert_eq!(assembler.passed_over().logical_messages, 2);
    assert_eq!(assembler.open_transaction(), None);
}
