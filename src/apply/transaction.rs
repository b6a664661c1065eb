//! One transaction on the target: what was sent, what it must answer.
//!
//! Invariant: `verify` returns Ok only when the position stood where it was
//! expected and every row statement affected exactly one row; COMMIT is sent
//! after that.

use std::collections::VecDeque;
use std::sync::Arc;

use super::mapping::Mapping;
use super::pipeline::{CommitTag, Pipeline, Reply, Tag};
use super::render::{Shape, Statement};
use super::set_based::{Access, SetStatement};
use super::target::guard_sql;
use super::{ApplyError, Label, Place};
use crate::fault::sqlstate;
use crate::lsn::{CommitLsn, EndLsn};
use crate::session::replica_role::ReplicaRole;
use crate::state::position::{Claim, MOVE_SQL};
use crate::wire::ServerError;

/// Holds the position for a transaction that comes in parts: its end is not
/// known yet, but nobody else may move it meanwhile. Parameters: slot,
/// expected end LSN, claim.
const HOLD_SQL: &str = "WITH held AS (SELECT 1 FROM walferry.position \
    WHERE slot = $1::text AND end_lsn = $2::pg_lsn AND claim = $3::bigint FOR UPDATE) \
    SELECT 1 / pg_catalog.count(*) FROM held";

/// What one statement, or SET CONSTRAINTS, did on the source comes here row by
/// row: a deferrable constraint holds again at its end only. Foreign keys are
/// held back; this is about unique and exclusion constraints.
const DEFER_SQL: &str = "SET CONSTRAINTS ALL DEFERRED";

/// For a statement that may have to read a whole table: it does so once (see
/// [`super::pipeline::plan_settings`]).
const FREE_SQL: &str =
    "SELECT pg_catalog.set_config('enable_hashjoin', 'on', true), pg_catalog.set_config('enable_seqscan', 'on', true)";

/// The same for those behind it.
const INDEXED_SQL: &str = "SELECT pg_catalog.set_config('enable_hashjoin', 'off', true), pg_catalog.set_config('enable_seqscan', 'off', true)";

/// Checks what was deferred while the transaction can still be named.
const CHECK_SQL: &str = "SET CONSTRAINTS ALL IMMEDIATE";

/// What a statement that was sent must answer.
pub(super) enum Expectation {
    /// Nothing in particular.
    Done(&'static str),
    /// The position must have stood there.
    Position(EndLsn),
    /// Exactly one row.
    OneRow(Place),
    /// A TRUNCATE, and what goes before it.
    Truncated(Place),
    /// Net changes of a table; the statement counts its rows itself.
    Net(u32, Arc<Label>),
    /// A COPY of so many rows into a table.
    Copied(u32, Arc<Label>, usize),
    /// COMMIT.
    Committed,
    /// That no deferred constraint is violated by the source transactions up
    /// to this one.
    Checked(CommitLsn),
}

/// Our own statements, for one slot; prepared once per connection.
pub(super) struct OwnStatements {
    slot: String,
    claim: String,
    advance: Arc<Shape>,
    hold: Arc<Shape>,
    guard: Arc<Shape>,
}

impl OwnStatements {
    pub(super) fn new(slot: &str, claim: Claim, role: ReplicaRole) -> Self {
        OwnStatements {
            slot: slot.to_owned(),
            claim: claim.to_string(),
            advance: Shape::new(MOVE_SQL.to_owned()),
            hold: Shape::new(HOLD_SQL.to_owned()),
            guard: Shape::new(guard_sql(role)),
        }
    }
}

/// A transaction being sent.
pub(super) struct Transaction<'p> {
    pipeline: &'p mut Pipeline,
    own: &'p OwnStatements,
    sent: Vec<Expectation>,
}

impl<'p> Transaction<'p> {
    /// Begins a transaction with nothing sent yet.
    pub(super) async fn begin(pipeline: &'p mut Pipeline, own: &'p OwnStatements) -> Result<Self, ApplyError> {
        pipeline.command("BEGIN").await?;
        pipeline.command(DEFER_SQL).await?;
        let sent = vec![Expectation::Done("begin a transaction"), Expectation::Done("defer the constraints")];
        Ok(Transaction { pipeline, own, sent })
    }

    /// Goes on with one that [`Self::begin`] began and whose parts so far have
    /// been verified.
    pub(super) fn resume(pipeline: &'p mut Pipeline, own: &'p OwnStatements) -> Self {
        Transaction { pipeline, own, sent: Vec::new() }
    }

    /// Moves the position by compare-and-set.
    pub(super) async fn advance(
        &mut self,
        from: EndLsn,
        to: EndLsn,
        commit_time: Option<i64>,
    ) -> Result<(), ApplyError> {
        let (expected, end) = (from.lsn().to_string(), to.lsn().to_string());
        let time = commit_time.map(|time| time.to_string());
        let params = [
            Some(self.own.slot.as_bytes()),
            Some(end.as_bytes()),
            time.as_deref().map(str::as_bytes),
            Some(expected.as_bytes()),
            Some(self.own.claim.as_bytes()),
        ];
        self.sent.push(Expectation::Position(from));
        Ok(self.pipeline.push(&self.own.advance, &params).await?)
    }

    /// Holds the position where it is.
    pub(super) async fn hold(&mut self, at: EndLsn) -> Result<(), ApplyError> {
        let expected = at.lsn().to_string();
        self.sent.push(Expectation::Position(at));
        let params = [Some(self.own.slot.as_bytes()), Some(expected.as_bytes()), Some(self.own.claim.as_bytes())];
        Ok(self.pipeline.push(&self.own.hold, &params).await?)
    }

    /// Sends a row statement.
    pub(super) async fn row(&mut self, statement: &Statement<'_>, place: Place) -> Result<(), ApplyError> {
        crate::failpoint::hit("mid-batch");
        self.sent.push(Expectation::OneRow(place));
        Ok(self.pipeline.push(&statement.shape, &statement.params).await?)
    }

    /// Sends a TRUNCATE. What waits for the commit by `deferrable` constraints of its
    /// tables is looked at before, as it refuses one (`CheckTableNotInUse` in
    /// `src/backend/commands/tablecmds.c`): the source had nothing that waited, where the
    /// constraints were in force or other transactions had committed.
    pub(super) async fn truncate(&mut self, sql: &str, deferrable: &[String], place: Place) -> Result<(), ApplyError> {
        if deferrable.is_empty() {
            return self.truncated(sql, place).await;
        }
        let names = deferrable.join(", ");
        self.truncated(&format!("SET CONSTRAINTS {names} IMMEDIATE"), place.clone()).await?;
        self.truncated(sql, place).await?;
        // By name it is refused where another one of its name, of another table, cannot be
        // deferred.
        self.sent.push(Expectation::Done("defer the constraints"));
        Ok(self.pipeline.command(DEFER_SQL).await?)
    }

    async fn truncated(&mut self, sql: &str, place: Place) -> Result<(), ApplyError> {
        self.sent.push(Expectation::Truncated(place));
        Ok(self.pipeline.command(sql).await?)
    }

    /// Sends net changes of a table.
    pub(super) async fn net(&mut self, statement: &SetStatement, mapping: &Mapping) -> Result<(), ApplyError> {
        crate::failpoint::hit("mid-batch");
        let (relation, label) = (mapping.relation.id, &mapping.label);
        let counts_itself = Expectation::Net(relation, Arc::clone(label));
        let SetStatement::Copy { rows, .. } = statement else {
            return self.arrays(statement, counts_itself).await;
        };
        self.sent.push(Expectation::Copied(relation, Arc::clone(label), *rows));
        self.pipeline.push_set(statement).await?;
        self.sent.push(counts_itself);
        let table = mapping.target.table.text();
        Ok(self.pipeline.push(&self.own.guard, &[Some(table.as_bytes())]).await?)
    }

    /// Sends a statement that counts its rows itself.
    async fn arrays(&mut self, statement: &SetStatement, counts_itself: Expectation) -> Result<(), ApplyError> {
        let is_free = matches!(statement, SetStatement::Arrays { access: Access::Free, .. });
        if is_free {
            self.pipeline.command(FREE_SQL).await?;
            self.sent.push(Expectation::Done("let a plan read tables"));
        }
        self.sent.push(counts_itself);
        self.pipeline.push_set(statement).await?;
        if is_free {
            self.pipeline.command(INDEXED_SQL).await?;
            self.sent.push(Expectation::Done("let no plan read tables"));
        }
        Ok(())
    }

    /// Sends COMMIT behind all that was sent, without waiting for any answer.
    /// Only for a transaction whose statements count their rows themselves.
    pub(super) async fn commit(mut self) -> Result<VecDeque<Expectation>, ApplyError> {
        crate::failpoint::hit("before-commit");
        self.pipeline.command("COMMIT").await?;
        self.sent.push(Expectation::Committed);
        self.pipeline.sync().await?;
        Ok(self.sent.into())
    }

    /// Checks the deferred constraints; the last source transaction in it
    /// committed there.
    pub(super) async fn check_deferred(&mut self, last: CommitLsn) -> Result<(), ApplyError> {
        self.sent.push(Expectation::Checked(last));
        Ok(self.pipeline.command(CHECK_SQL).await?)
    }

    /// Waits for all answers and checks them. After an error the transaction
    /// has been rolled back and the connection can be used again (unless it is
    /// the connection that failed).
    pub(super) async fn verify(self) -> Result<(), ApplyError> {
        let Transaction { pipeline, own, sent } = self;
        pipeline.sync().await?;
        let mut first_error = None;
        let mut expectations = sent.into_iter();
        loop {
            let reply = pipeline.reply().await?;
            if let Reply::Ready = reply {
                break;
            }
            let Some(expectation) = expectations.next() else { return Err(for_nothing(reply, pipeline)) };
            if let (Err(error), None) = (check(expectation, reply, own), &first_error) {
                first_error = Some(error);
            }
        }
        if first_error.is_none() && expectations.next().is_some() {
            first_error = Some(ApplyError::OutOfStep("fewer answers than statements".to_owned()));
        }
        match first_error {
            None => Ok(()),
            Some(error) => {
                pipeline.roll_back().await?;
                Err(error)
            }
        }
    }
}

/// An answer that nothing was sent for.
pub(super) fn for_nothing(reply: Reply, pipeline: &Pipeline) -> ApplyError {
    match reply {
        Reply::Failed(error) => pipeline.failed(error, "an error came for nothing").into(),
        reply => ApplyError::OutOfStep(format!("{reply:?} for nothing")),
    }
}

/// Checks an answer; a COMMIT that committed gives its proof.
pub(super) fn check(
    expectation: Expectation,
    reply: Reply,
    own: &OwnStatements,
) -> Result<Option<CommitTag>, ApplyError> {
    match (expectation, reply) {
        (Expectation::Committed, Reply::Complete(Tag::Commit(tag))) => Ok(Some(tag)),
        (Expectation::Committed, Reply::Failed(error)) => {
            Err(ApplyError::Statement { action: "commit a batch", error })
        }
        (Expectation::Committed, other) => Err(ApplyError::OutOfStep(format!("{other:?} to COMMIT"))),
        (Expectation::OneRow(_), Reply::Complete(Tag::Rows(1))) => Ok(None),
        (Expectation::OneRow(place), Reply::Complete(Tag::Rows(affected))) => {
            Err(ApplyError::RowCount { place: Box::new(place), affected })
        }
        (Expectation::Copied(_, _, given), Reply::Complete(Tag::Rows(taken))) if taken == given as u64 => Ok(None),
        (Expectation::Copied(relation, label, given), Reply::Complete(Tag::Rows(taken))) => {
            Err(ApplyError::Copied { label, relation, given, taken })
        }
        (
            Expectation::Done(_)
            | Expectation::Position(_)
            | Expectation::Truncated(_)
            | Expectation::Checked(_)
            | Expectation::Net(..),
            Reply::Complete(_),
        ) => Ok(None),
        (Expectation::Position(expected), Reply::Failed(error)) => Err(position_error(own, expected, error)),
        (Expectation::Net(relation, label) | Expectation::Copied(relation, label, _), Reply::Failed(error)) => {
            Err(ApplyError::Net { label, relation, error })
        }
        (Expectation::OneRow(place) | Expectation::Truncated(place), Reply::Failed(error)) => {
            Err(ApplyError::Refused { place: Box::new(place), error })
        }
        (Expectation::Checked(commit), Reply::Failed(error)) => Err(ApplyError::Deferred { commit, error }),
        (Expectation::Done(action), Reply::Failed(error)) => Err(ApplyError::Statement { action, error }),
        (_, other) => Err(ApplyError::OutOfStep(format!("unexpected {other:?}"))),
    }
}

fn position_error(own: &OwnStatements, expected: EndLsn, error: Box<ServerError>) -> ApplyError {
    if error.sqlstate == sqlstate::DIVISION_BY_ZERO {
        ApplyError::PositionMoved { slot: own.slot.clone(), expected: expected.lsn() }
    } else {
        ApplyError::Statement { action: "move the position", error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Side;
    use crate::demo::cluster::SUPERUSER;
    use crate::testing::{cluster, over_socket};

    /// The story: "this is a bug in walferry".
    #[tokio::test]
    async fn a_session_that_the_server_ends_while_nothing_is_asked_of_it_is_a_lost_one() {
        let cluster = cluster().start().unwrap();
        let mut pipeline =
            Pipeline::connect(&over_socket(&cluster, Side::Target, SUPERUSER, "postgres"), "walferry").await.unwrap();
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'walferry'";
        cluster.psql(SUPERUSER, "postgres", sql).unwrap();
        let reply = pipeline.reply().await.unwrap();
        assert!(matches!(reply, Reply::Failed(_)), "{reply:?}");
        assert!(for_nothing(reply, &pipeline).fault().is_retried());
        // Any other answer is one that cannot be.
        assert!(!for_nothing(Reply::Ready, &pipeline).fault().is_retried());
    }
}
