//! The sequences of one side with their values.
//!
//! Invariants: one whose value is not had says why. None is read that has become something
//! else since it was listed: it is [`held`] first. Source: `pg_sequences.last_value`
//! is not used: it is null both for a sequence that was never called and for one
//! that may not be read, as is what `pg_get_sequence_data` (18) returns.

use std::ops::Deref;
use std::str::FromStr;

use tokio_postgres::SimpleQueryRow;

use super::CHUNK_SEQUENCES;
use super::problem::{SequenceCause, refusal};
use super::value::Value;
use crate::catalog::held::{self, Foreign};
use crate::catalog::sequences;
use crate::fault::sqlstate;
use crate::session::{DbContext, DbError, QueryError, Session};

/// How long a sequence is waited for that is read or set by itself: a statement
/// over many has waited for it already.
const SINGLE_LOCK_WAIT: &str = "SET lock_timeout = '100ms'";

/// A sequence of one side.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    /// What the catalog says.
    pub fact: sequences::Sequence,
    /// Why there is no value, until there is one.
    pub value: Result<Value, SequenceCause>,
}

impl Deref for Sequence {
    type Target = sequences::Sequence;

    fn deref(&self) -> &sequences::Sequence {
        &self.fact
    }
}

impl From<sequences::Sequence> for Sequence {
    fn from(fact: sequences::Sequence) -> Self {
        let cause = if fact.may_read {
            SequenceCause::Unread("its value was not asked for".to_owned())
        } else {
            SequenceCause::Unreadable(fact.grant("SELECT"))
        };
        Sequence { fact, value: Err(cause) }
    }
}

/// Lists all sequences of a side, without their values.
///
/// # Errors
/// When the catalog cannot be read.
pub(super) async fn list(session: &Session) -> Result<Vec<Sequence>, DbError> {
    Ok(sequences::list(session).await?.into_iter().map(Sequence::from).collect())
}

/// What is done about a sequence that is not there any more when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IfGone {
    /// The list is made anew: it was dropped or renamed.
    Fail,
    /// It is named, like any other that cannot be read.
    Name,
}

/// Reads the values of sequences that may be read; one that the server does not
/// give up says so itself.
///
/// # Errors
/// When the connection is lost, and with [`IfGone::Fail`] when one is gone.
pub(super) async fn read(session: &Session, sequences: Vec<&mut Sequence>, gone: IfGone) -> Result<(), DbError> {
    let mut readable: Vec<&mut Sequence> =
        sequences.into_iter().filter(|s| matches!(s.value, Err(SequenceCause::Unread(_)))).collect();
    // Polled together, so all chunks are sent before the first one answers.
    let chunks = readable.chunks_mut(CHUNK_SEQUENCES).map(|chunk| read_chunk(session, chunk, gone));
    futures_util::future::try_join_all(chunks).await?;
    Ok(())
}

/// Reads a chunk in one statement; if the server refuses it, one by one, so that
/// the one at fault is known and the others are read.
async fn read_chunk(session: &Session, chunk: &mut [&mut Sequence], gone: IfGone) -> Result<(), DbError> {
    let branch = |(index, sequence): (usize, &&mut Sequence)| {
        format!("SELECT {index}, last_value, is_called, tableoid FROM {}", sequence.name.sql())
    };
    let branches: Vec<String> = chunk.iter().enumerate().map(branch).collect();
    let names = chunk.iter().map(|sequence| ("", &sequence.name));
    let rows = match held::read(session, names, Foreign::Refused, &branches.join(" UNION ALL ")).await {
        Ok(rows) => rows,
        Err(error) if error.as_db_error().is_none() || (gone == IfGone::Fail && is_gone(&error)) => {
            return Err(error).during(session.side(), "read the sequences");
        }
        Err(_) => return read_singly(session, chunk, gone).await,
    };
    for row in &rows {
        let index = number::<usize>(row, 0).unwrap_or(usize::MAX);
        if let Some(sequence) = chunk.get_mut(index) {
            sequence.value = value(sequence, row, 1);
        }
    }
    Ok(())
}

async fn read_singly(session: &Session, chunk: &mut [&mut Sequence], gone: IfGone) -> Result<(), DbError> {
    wait_less(session).await?;
    let queries = chunk.iter_mut().map(|sequence| async move {
        let sql = format!("SELECT last_value, is_called, tableoid FROM {}", sequence.name.sql());
        match held::read(session, std::iter::once(("", &sequence.name)), Foreign::Refused, &sql).await {
            Ok(rows) => {
                sequence.value = rows.first().map_or(Err(SequenceCause::Another), |row| value(sequence, row, 0));
            }
            Err(error) if error.as_db_error().is_none() || (gone == IfGone::Fail && is_gone(&error)) => {
                return Err(error).during(session.side(), "read a sequence");
            }
            Err(error) => sequence.value = Err(SequenceCause::Unread(refusal(session.side(), "read it", error))),
        }
        Ok(())
    });
    futures_util::future::try_join_all(queries).await?;
    Ok(())
}

/// The value in a row, from this column on: a sequence is read by its name, and may have
/// given that to another one, or to a table, since it was listed.
fn value(sequence: &Sequence, row: &SimpleQueryRow, column: usize) -> Result<Value, SequenceCause> {
    let is_it = number(row, column + 2) == Some(sequence.oid);
    let value = number(row, column).zip(row.get(column + 1).map(|is_called| is_called == "t"));
    value.filter(|_| is_it).ok_or(SequenceCause::Another)
}

fn number<T: FromStr>(row: &SimpleQueryRow, column: usize) -> Option<T> {
    row.get(column)?.parse().ok()
}

/// From now on single ones are waited for, until the next pass.
pub(super) async fn wait_less(session: &Session) -> Result<(), DbError> {
    session.batch_execute(SINGLE_LOCK_WAIT).await.during(session.side(), "shorten the lock timeout")
}

/// Whether a sequence was dropped or renamed since it was listed, also where something else
/// has its name by now.
pub(super) fn is_gone(error: &QueryError) -> bool {
    error.code().is_some_and(|code| sqlstate::is_gone(code.code()) || sqlstate::is_restricted(code.code()))
}
