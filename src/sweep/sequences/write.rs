//! Changes to the target's sequences.
//!
//! Invariant: what a server refuses is known by its sequence, and the others
//! are changed all the same. `setval` takes effect at once and is not undone by
//! a rollback (`do_setval`), so there is no transaction around many of them; an
//! ALTER SEQUENCE is undone, so it and the value after it are one transaction.

use super::catalog::wait_less;
use super::plan::Change;
use super::problem::refusal;
use super::{CHUNK_SEQUENCES, SweepError, Value};
use crate::config::Side;
use crate::session::{DbContext, DbError, QueryError, Session};
use crate::state::State;
use crate::state::position::HELD_SQL;

/// What came of the changes.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Sequences set.
    pub changed: u64,
    /// Sequences whose definition was altered, by their place.
    pub altered: Vec<usize>,
    /// Sequences that the server refused, by their place, with its words.
    pub refused: Vec<(usize, String)>,
}

/// Makes the changes.
///
/// # Errors
/// When the connection is lost.
pub(super) async fn write(target: &Session, state: &State, changes: &[Change]) -> Result<Written, SweepError> {
    let mut written = Written::default();
    let (alters, sets): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(|change| change.alter.is_some());
    for chunk in sets.chunks(CHUNK_SEQUENCES) {
        set_chunk((target, state), chunk, &mut written).await?;
    }
    for change in alters {
        match target.batch_execute(&alter_sql(state, change)).await {
            Ok(()) => {
                written.altered.push(change.place);
                written.changed += u64::from(change.value.is_some());
            }
            Err(error) => refused(change, error, "alter it", &mut written)?,
        }
    }
    Ok(written)
}

/// Sets a chunk in one statement; if the target refuses it, one by one.
async fn set_chunk(
    (target, state): (&Session, &State),
    chunk: &[&Change],
    written: &mut Written,
) -> Result<(), SweepError> {
    match setval(target, state, chunk).await {
        Ok(0) => return Err(state.leased().await?.into()),
        Ok(_) => {
            written.changed += chunk.len() as u64;
            return Ok(());
        }
        // Without a word from the server the connection is gone.
        Err(error) if error.as_db_error().is_none() => {
            return Ok(Err(error).during(Side::Target, "set the sequences")?);
        }
        Err(_) => wait_less(target).await?,
    }
    for change in chunk {
        match setval(target, state, &[change]).await {
            Ok(0) => return Err(state.leased().await?.into()),
            Ok(_) => written.changed += 1,
            Err(error) => refused(change, error, "set it", written)?,
        }
    }
    Ok(())
}

fn refused(change: &Change, error: QueryError, action: &str, written: &mut Written) -> Result<(), DbError> {
    if error.as_db_error().is_none() {
        return Err(error).during(Side::Target, action);
    }
    written.refused.push((change.place, refusal(Side::Target, action, error)));
    Ok(())
}

/// Says how many were set: none by a process whose lease another has taken since.
async fn setval(target: &Session, state: &State, changes: &[&Change]) -> Result<usize, QueryError> {
    let values: Vec<(u32, Value)> = changes.iter().filter_map(|c| Some((c.oid, c.value?))).collect();
    let oids: Vec<u32> = values.iter().map(|(oid, _)| *oid).collect();
    let lasts: Vec<i64> = values.iter().map(|(_, value)| value.0).collect();
    let called: Vec<bool> = values.iter().map(|(_, value)| value.1).collect();
    let sql = format!(
        "WITH held AS ({HELD_SQL}) SELECT pg_catalog.setval(s.oid::pg_catalog.regclass, s.value, s.called) \
         FROM held, unnest($3::oid[], $4::bigint[], $5::boolean[]) AS s (oid, value, called)"
    );
    Ok(target.query(&sql, &[&state.name(), &state.claim().number(), &oids, &lasts, &called]).await?.len())
}

/// Statements of one string are one transaction.
fn alter_sql(state: &State, change: &Change) -> String {
    let mut sql = format!("{}; {}", state.require_lease_sql(), change.alter.as_deref().unwrap_or_default());
    if let Some((last, is_called)) = change.value {
        sql.push_str(&format!("; SELECT pg_catalog.setval({}::pg_catalog.regclass, {last}, {is_called})", change.oid));
    }
    sql
}
