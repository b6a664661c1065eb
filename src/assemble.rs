//! Messages to transactions, in pieces of bounded size. Pure: no I/O.
//!
//! ```text
//!             B, committed at or after the position
//!   ┌─────────────────────────────────────────► Open ──┐ O: passed over
//!   │ ◄───────────────────────────────────────── │     │ I U D T: gathered; a piece when full
//!   │   C: the last piece, with its end          │ ◄───┘
//! Between
//!   │ ◄───────────────────────────────────────── │
//!   │   C: counted                               │ ◄───┐ O I U D T: passed over
//!   └─────────────────────────────────────────► Known ─┘
//!             B, committed before the position
//!
//!   R: installed, M and Y: passed over, in any state
//!   any other message in any state is an error, and after one: Failed, for good
//! ```
//!
//! Streamed transactions (S E c A) and prepared ones (b P K r p) are not asked
//! for yet and are errors. Their place is beside Open: a spool by top-level
//! xid, from which `c` makes the same pieces.
//!
//! Invariant: the pieces of a transaction come in order, without anything in
//! between, exactly the first says [`First::Yes`] and exactly the last has an
//! end; transactions come in the order of their commits. A piece holds no more
//! than `piece_bytes` and one message.
//!
//! Source: `apply_dispatch` in `src/backend/replication/logical/worker.c`.

use std::mem::{size_of, take};
use std::sync::Arc;

use crate::lsn::{CommitLsn, EndLsn};
use crate::pgoutput::{
    self, Cascade, Commit, Delete, Insert, Message, OldTuple, RestartIdentity, Truncate, Tuple, Update,
};
use crate::relation::{Relation, RelationCache};

/// What a transaction is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Start of its commit record on the source.
    pub commit_lsn: CommitLsn,
    /// When it committed, in µs since 2000-01-01 00:00 UTC.
    pub commit_time: i64,
    /// Its top-level transaction id on the source.
    pub xid: u32,
}

/// Whether a piece is the first of its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// It opens the transaction.
    Yes,
    /// It goes on with the transaction of the piece before.
    No,
}

/// A transaction, or a part of a large one.
#[derive(Debug)]
pub struct Piece {
    /// The transaction.
    pub begin: Begin,
    /// Whether this is its first piece.
    pub first: First,
    /// What it does, in order. May be empty.
    pub changes: Vec<Change>,
    /// Memory that the changes hold, in bytes: payloads and their index.
    pub bytes: usize,
    /// End of the commit record: what the position becomes with this piece.
    /// `None`: the transaction goes on in the next piece.
    pub end: Option<EndLsn>,
}

/// What one message does.
#[derive(Debug)]
pub struct Change {
    /// To which relation; the first one for a TRUNCATE of several.
    pub relation: Arc<Relation>,
    /// What.
    pub kind: ChangeKind,
}

/// What is done to a relation. Rows have as many columns as the relation.
#[derive(Debug)]
pub enum ChangeKind {
    /// A row is added.
    Insert {
        /// The row; a row filter on the source can leave columns unchanged
        /// even here.
        new: Tuple,
    },
    /// A row is changed.
    Update {
        /// The old one; `None` when its key is in the new one.
        old: Option<OldTuple>,
        /// The new one.
        new: Tuple,
    },
    /// A row is removed.
    Delete {
        /// The row.
        old: OldTuple,
    },
    /// Tables are emptied by one statement.
    Truncate {
        /// All tables of the statement, at least one, the change's relation
        /// first.
        relations: Vec<Arc<Relation>>,
        /// Whether their sequences start again.
        restart_identity: RestartIdentity,
        /// Whether it was said with CASCADE; the tables that it reached are in
        /// `relations`, as far as they are published.
        cascade: Cascade,
    },
}

/// What was left out, and why; each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// Transactions that the target has already (committed before the
    /// position).
    pub known_transactions: u64,
    /// Logical messages, which carry no rows.
    pub logical_messages: u64,
}

/// The messages make no transactions. All of these mean that the source does
/// not speak the protocol we asked for, or that we have a fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// A message that belongs into a transaction came outside of one.
    #[error("{message} message outside a transaction, after position {}", .after.lsn())]
    Outside {
        /// The message's name.
        message: &'static str,
        /// End of the transaction before, or where the stream began.
        after: EndLsn,
    },
    /// A transaction began inside another one.
    #[error("transaction {} begins inside the transaction that commits at {}", .inner.lsn(), .open.lsn())]
    Nested {
        /// The commit record of the one that is open.
        open: CommitLsn,
        /// That of the one that begins.
        inner: CommitLsn,
    },
    /// Transactions did not come in the order of their commits.
    #[error("transaction that commits at {} comes after one whose commit ended at {}", .commit_lsn.lsn(), .after.lsn())]
    OutOfOrder {
        /// The commit record of the one that begins.
        commit_lsn: CommitLsn,
        /// The end of the one before.
        after: EndLsn,
    },
    /// Commit is not that of Begin.
    #[error("transaction that should commit at {} commits at {}", .begin.lsn(), .commit.lsn())]
    OtherCommit {
        /// What Begin said.
        begin: CommitLsn,
        /// What Commit said.
        commit: CommitLsn,
    },
    /// A commit record that ends before it starts.
    #[error("transaction that commits at {} ends before that, at {}", .commit_lsn.lsn(), .end_lsn.lsn())]
    EndBeforeCommit {
        /// Start of the commit record.
        commit_lsn: CommitLsn,
        /// End of the commit record.
        end_lsn: EndLsn,
    },
    /// A change for a relation that was never described.
    #[error("{message} for relation {relation}, which was never described, in the transaction that commits at {}", .commit_lsn.lsn())]
    UnknownRelation {
        /// The message's name.
        message: &'static str,
        /// The relation's oid on the source.
        relation: u32,
        /// The transaction's commit record.
        commit_lsn: CommitLsn,
    },
    /// A row that does not have the relation's columns.
    #[error("{message} for {} with {found} columns instead of {expected}, in the transaction that commits at {}", .relation.table, .commit_lsn.lsn())]
    ColumnCount {
        /// The message's name.
        message: &'static str,
        /// The relation.
        relation: Arc<Relation>,
        /// The transaction's commit record.
        commit_lsn: CommitLsn,
        /// The relation's number of columns.
        expected: usize,
        /// The row's.
        found: usize,
    },
    /// A TRUNCATE of nothing, which the decoder refuses already.
    #[error("Truncate message without relations in the transaction that commits at {}", .commit_lsn.lsn())]
    EmptyTruncate {
        /// The transaction's commit record.
        commit_lsn: CommitLsn,
    },
    /// A message of a protocol feature that was not asked for.
    #[error("{message} message, which was not asked for, after position {}", .after.lsn())]
    NotRequested {
        /// The message's name.
        message: &'static str,
        /// End of the transaction before, or where the stream began.
        after: EndLsn,
    },
    /// A message after an error: the one that failed would be missing.
    #[error("{message} message after an error that ended the stream at position {}", .after.lsn())]
    Failed {
        /// The message's name.
        message: &'static str,
        /// End of the last whole transaction.
        after: EndLsn,
    },
}

enum State {
    Between,
    Open(Open),
    /// In a transaction that the target has already.
    Known(CommitLsn),
    Failed,
}

/// The piece that is being filled.
struct Open {
    begin: Begin,
    first: First,
    changes: Vec<Change>,
    bytes: usize,
}

impl Open {
    fn piece(&mut self, end: Option<EndLsn>) -> Piece {
        let first = std::mem::replace(&mut self.first, First::No);
        Piece { begin: self.begin, first, changes: take(&mut self.changes), bytes: take(&mut self.bytes), end }
    }

    /// Keeps a change that came in a payload of this many bytes.
    fn keep(&mut self, change: Change, payload_bytes: usize) {
        let index = match &change.kind {
            ChangeKind::Insert { new } => new.index_size(),
            ChangeKind::Update { old, new } => {
                old.as_ref().map_or(0, |old| old.tuple().index_size()).saturating_add(new.index_size())
            }
            ChangeKind::Delete { old } => old.tuple().index_size(),
            ChangeKind::Truncate { relations, .. } => size_of::<Arc<Relation>>().saturating_mul(relations.len()),
        };
        let size = size_of::<Change>().saturating_add(payload_bytes).saturating_add(index);
        self.bytes = self.bytes.saturating_add(size);
        self.changes.push(change);
    }
}

/// Makes transactions of the messages of one connection. After an error it
/// takes nothing more.
pub struct Assembler {
    /// Transactions before this are known to the target. Does not move.
    position: EndLsn,
    /// End of the last whole transaction; the position before there is one.
    after: EndLsn,
    piece_bytes: usize,
    relations: RelationCache,
    state: State,
    passed_over: PassedOver,
}

impl Assembler {
    /// An assembler for a connection whose stream starts at the target's
    /// `position`. A transaction of more than `piece_bytes` bytes comes in
    /// several pieces.
    pub fn new(position: EndLsn, piece_bytes: usize) -> Self {
        Assembler {
            position,
            after: position,
            piece_bytes,
            relations: RelationCache::new(),
            state: State::Between,
            passed_over: PassedOver::default(),
        }
    }

    /// What has been left out so far.
    pub fn passed_over(&self) -> PassedOver {
        self.passed_over
    }

    /// The commit record of the transaction whose messages are coming in;
    /// `None` between transactions, where a keepalive's walEnd is progress.
    pub fn open_transaction(&self) -> Option<CommitLsn> {
        match &self.state {
            State::Open(open) => Some(open.begin.commit_lsn),
            State::Known(commit_lsn) => Some(*commit_lsn),
            State::Between | State::Failed => None,
        }
    }

    /// Memory that the piece which is being filled holds, in bytes.
    pub fn open_bytes(&self) -> usize {
        match &self.state {
            State::Open(open) => open.bytes,
            State::Known(_) | State::Between | State::Failed => 0,
        }
    }

    /// Takes the next message, which came in a payload of `payload_bytes`
    /// bytes; gives a piece when it completes one.
    ///
    /// # Errors
    /// [`AssembleError`] when the message must not come here. From then on
    /// every message is refused.
    pub fn push(&mut self, message: Message, payload_bytes: usize) -> Result<Option<Piece>, AssembleError> {
        let result = self.step(message, payload_bytes);
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    fn step(&mut self, message: Message, payload_bytes: usize) -> Result<Option<Piece>, AssembleError> {
        let name = message.name();
        if matches!(self.state, State::Failed) {
            return Err(AssembleError::Failed { message: name, after: self.after });
        }
        match message {
            Message::Begin(begin) => self.begin(begin).map(|()| None),
            Message::Commit(commit) => self.commit(commit),
            Message::Relation(relation) => {
                self.relations.install(relation);
                Ok(None)
            }
            Message::Logical(_) => {
                self.passed_over.logical_messages += 1;
                Ok(None)
            }
            // Types are known from the source's catalog, and their names here
            // are not reliable: a domain has its base type's.
            Message::Type(_) => Ok(None),
            Message::Origin(_) if self.open_transaction().is_some() => Ok(None),
            Message::Origin(_) => Err(AssembleError::Outside { message: name, after: self.after }),
            Message::Insert(insert) => self.change(name, payload_bytes, |lookup| lookup.insert(insert)),
            Message::Update(update) => self.change(name, payload_bytes, |lookup| lookup.update(update)),
            Message::Delete(delete) => self.change(name, payload_bytes, |lookup| lookup.delete(delete)),
            Message::Truncate(truncate) => self.change(name, payload_bytes, |lookup| lookup.truncate(&truncate)),
            Message::StreamStart(_)
            | Message::StreamStop
            | Message::StreamCommit(_)
            | Message::StreamAbort(_)
            | Message::BeginPrepare(_)
            | Message::Prepare(_)
            | Message::CommitPrepared(_)
            | Message::RollbackPrepared(_)
            | Message::StreamPrepare(_) => Err(AssembleError::NotRequested { message: name, after: self.after }),
        }
    }

    fn begin(&mut self, message: pgoutput::Begin) -> Result<(), AssembleError> {
        let pgoutput::Begin { final_lsn: commit_lsn, commit_time, xid } = message;
        if let Some(open) = self.open_transaction() {
            return Err(AssembleError::Nested { open, inner: commit_lsn });
        }
        let known = !self.position.is_before(commit_lsn);
        // Known ones come before all others, if they come at all.
        let in_order = if known { self.after == self.position } else { self.after.is_before(commit_lsn) };
        if !in_order {
            return Err(AssembleError::OutOfOrder { commit_lsn, after: self.after });
        }
        if known {
            self.state = State::Known(commit_lsn);
            return Ok(());
        }
        let begin = Begin { commit_lsn, commit_time, xid };
        self.state = State::Open(Open { begin, first: First::Yes, changes: Vec::new(), bytes: 0 });
        Ok(())
    }

    fn commit(&mut self, commit: Commit) -> Result<Option<Piece>, AssembleError> {
        let Some(begin) = self.open_transaction() else {
            return Err(AssembleError::Outside { message: "Commit", after: self.after });
        };
        let Commit { commit_lsn, end_lsn, .. } = commit;
        if commit_lsn != begin {
            return Err(AssembleError::OtherCommit { begin, commit: commit_lsn });
        }
        if end_lsn.lsn() <= commit_lsn.lsn() {
            return Err(AssembleError::EndBeforeCommit { commit_lsn, end_lsn });
        }
        self.after = self.after.max(end_lsn);
        match std::mem::replace(&mut self.state, State::Between) {
            State::Open(mut open) => Ok(Some(open.piece(Some(end_lsn)))),
            State::Known(_) | State::Between | State::Failed => {
                self.passed_over.known_transactions += 1;
                Ok(None)
            }
        }
    }

    fn change(
        &mut self,
        message: &'static str,
        payload_bytes: usize,
        make: impl FnOnce(Lookup<'_>) -> Result<Change, AssembleError>,
    ) -> Result<Option<Piece>, AssembleError> {
        let open = match &mut self.state {
            State::Open(open) => open,
            State::Known(_) => return Ok(None),
            State::Between | State::Failed => return Err(AssembleError::Outside { message, after: self.after }),
        };
        let commit_lsn = open.begin.commit_lsn;
        open.keep(make(Lookup { relations: &self.relations, message, commit_lsn })?, payload_bytes);
        Ok((open.bytes >= self.piece_bytes).then(|| open.piece(None)))
    }
}

/// Finds the relations of one message, and says where it did not.
struct Lookup<'a> {
    relations: &'a RelationCache,
    message: &'static str,
    commit_lsn: CommitLsn,
}

impl Lookup<'_> {
    fn insert(self, insert: Insert) -> Result<Change, AssembleError> {
        let relation = self.relation_of(insert.relation, [&insert.new])?;
        Ok(Change { relation, kind: ChangeKind::Insert { new: insert.new } })
    }

    fn update(self, update: Update) -> Result<Change, AssembleError> {
        let old = update.old.as_ref().map(OldTuple::tuple);
        let relation = self.relation_of(update.relation, old.into_iter().chain([&update.new]))?;
        Ok(Change { relation, kind: ChangeKind::Update { old: update.old, new: update.new } })
    }

    fn delete(self, delete: Delete) -> Result<Change, AssembleError> {
        let relation = self.relation_of(delete.relation, [delete.old.tuple()])?;
        Ok(Change { relation, kind: ChangeKind::Delete { old: delete.old } })
    }

    fn truncate(self, truncate: &Truncate) -> Result<Change, AssembleError> {
        let relations = truncate.relations.iter().map(|id| self.relation(*id)).collect::<Result<Vec<_>, _>>()?;
        let Some(relation) = relations.first().cloned() else {
            return Err(AssembleError::EmptyTruncate { commit_lsn: self.commit_lsn });
        };
        let (restart_identity, cascade) = (truncate.restart_identity, truncate.cascade);
        Ok(Change { relation, kind: ChangeKind::Truncate { relations, restart_identity, cascade } })
    }

    fn relation(&self, id: u32) -> Result<Arc<Relation>, AssembleError> {
        self.relations.get(id).cloned().ok_or(AssembleError::UnknownRelation {
            message: self.message,
            relation: id,
            commit_lsn: self.commit_lsn,
        })
    }

    fn relation_of<'t>(
        &self,
        id: u32,
        rows: impl IntoIterator<Item = &'t Tuple>,
    ) -> Result<Arc<Relation>, AssembleError> {
        let relation = self.relation(id)?;
        let expected = relation.columns.len();
        let Some(wrong) = rows.into_iter().find(|row| row.len() != expected) else {
            return Ok(relation);
        };
        let (message, commit_lsn, found) = (self.message, self.commit_lsn, wrong.len());
        Err(AssembleError::ColumnCount { message, relation, commit_lsn, expected, found })
    }
}

#[cfg(test)]
#[path = "assemble_test.rs"]
mod tests;
