//! Brings deferred objects in: indexes and keys after the rows, the rest at
//! the end.
//!
//! Invariant: an object and its mark as restored are one transaction, and an
//! object that is there already in the same shape ([`super::same`]) counts as
//! restored, so a run that was cut off is simply run again. What only an
//! administrator can give is named and keeps nothing back. What belongs to an object
//! comes after it ([`super::order`]), and waits with it where that could not be brought
//! in: something else may have its name.

use std::collections::HashSet;

use super::order::{self, Wholes, is_validation};
use super::same::{self, There};
use super::{SchemaError, append, batch, classify, create};
use crate::fault::sqlstate;
use crate::session::{DbContext, DbError, Session};
use crate::sql::literal;
use crate::sql::printed::printed;
use crate::state::State;
use crate::state::deferred::{Deferred, DeferredKind, MARK_RESTORED_SQL};

/// How long an object waits for its lock at the end. The application may be
/// live on the target by then, and everything queues behind a waiting ALTER
/// TABLE: better to fail and be run again.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '10s'";

/// An object that could not be brought in.
#[derive(Debug)]
pub struct Failure {
    /// The object, for people.
    pub object: String,
    /// The SQL that brings it in.
    pub sql: String,
    /// The SQL that takes it off the list of what waits.
    pub give_up: String,
    /// Why it could not.
    pub error: DbError,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Failure { sql, give_up, error, .. } = self;
        let sql = printed(sql);
        write!(f, "{error}; when that is mended, run catchup --finish again, or yourself: {sql}")?;
        write!(f, " If it is not wanted any more, on the target: {give_up}")
    }
}

/// What an administrator of the target has to run.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Leftover {
    /// The object, for people.
    pub object: String,
    /// The SQL that brings it in.
    pub sql: String,
}

impl Leftover {
    fn of(object: &Deferred) -> Self {
        Leftover { object: object.object.clone(), sql: printed(&object.sql) }
    }
}

/// What [`restore_deferred`] did: objects brought in now, by kind.
#[derive(Debug, Default)]
pub struct Restored {
    /// Indexes and constraints that had been left.
    pub after_rows: u64,
    /// Foreign keys; their validations are not counted.
    pub foreign_keys: u64,
    /// Foreign keys validated.
    pub validated: u64,
    /// Triggers and rules.
    pub triggers: u64,
    /// Policies, comments, event triggers and the like.
    pub others: u64,
    /// Materialized views refreshed.
    pub materialized_views: u64,
    /// Those that could not be brought in.
    pub failures: Vec<Failure>,
    /// Those that only an administrator can bring in.
    pub administrators: Vec<Leftover>,
}

impl Restored {
    /// Objects brought in, of all kinds.
    pub fn total(&self) -> u64 {
        self.after_rows + self.foreign_keys + self.triggers + self.others + self.materialized_views
    }

    fn count(&mut self, object: &Deferred) {
        let counter = match object.kind {
            DeferredKind::AfterRows => &mut self.after_rows,
            DeferredKind::ForeignKey if is_validation(object) => &mut self.validated,
            DeferredKind::ForeignKey => &mut self.foreign_keys,
            DeferredKind::Trigger => &mut self.triggers,
            DeferredKind::Other | DeferredKind::Administrator => &mut self.others,
            DeferredKind::MaterializedView => &mut self.materialized_views,
            DeferredKind::Unlogged => return,
        };
        *counter += 1;
    }
}

/// Brings in the deferred objects of these kinds that are not in yet, each in
/// its own transaction on `session` (a session of the target). One that fails
/// does not keep the others out; it is in [`Restored::failures`].
///
/// # Errors
/// When the state cannot be read, or the session is lost.
pub async fn restore_deferred(
    state: &State,
    session: &Session,
    kinds: &[DeferredKind],
) -> Result<Restored, SchemaError> {
    let objects = state.deferred().await?;
    let waiting: Vec<&Deferred> = objects.iter().filter(|object| !object.is_restored).collect();
    let wholes = Wholes::among(waiting.iter().copied());
    // Not for a process that has lost its lease since.
    let settings = format!("{LOCK_TIMEOUT}; {}", state.require_claim_sql());
    let mut restored = Restored::default();
    let mut failed: HashSet<i32> = HashSet::new();
    let mut left: HashSet<i32> = HashSet::new();
    for object in order::in_order(waiting.iter().copied()) {
        // Rows of unlogged tables are copied.
        if !kinds.contains(&object.kind) || object.kind == DeferredKind::Unlogged {
            continue;
        }
        if object.kind == DeferredKind::Administrator && !restored.failures.is_empty() {
            // An event trigger would be fired by what is still to come.
            break;
        }
        let whole = wholes.whole_of(object).map(|whole| whole.ordinal);
        if whole.is_some_and(|whole| failed.contains(&whole)) {
            continue;
        }
        if whole.is_some_and(|whole| left.contains(&whole)) {
            restored.administrators.push(Leftover::of(object));
            continue;
        }
        match restore_one(session, state.name(), object, &settings).await {
            Ok(Mark::NotGiven) => {
                left.insert(object.ordinal);
                restored.administrators.push(Leftover::of(object));
            }
            Ok(_) => restored.count(object),
            Err(error) if session.is_closed() => return Err(error.into()),
            Err(error) if is_administrators(object, &error, &restored) => {
                left.insert(object.ordinal);
                restored.administrators.push(Leftover::of(object));
            }
            Err(error) => {
                failed.insert(object.ordinal);
                let is_its = |other: &&&Deferred| wholes.whole_of(other).is_some_and(|w| w.ordinal == object.ordinal);
                let give_up = give_up(state.name(), object, waiting.iter().filter(is_its).copied());
                let Deferred { object, sql, .. } = object.clone();
                restored.failures.push(Failure { object, sql, give_up, error });
            }
        }
    }
    Ok(restored)
}

/// Takes an object off the list, with what belongs to it.
fn give_up<'o>(migration: &str, object: &'o Deferred, parts: impl Iterator<Item = &'o Deferred>) -> String {
    let ordinals: Vec<String> = [object].into_iter().chain(parts).map(|one| one.ordinal.to_string()).collect();
    let (migration, ordinals) = (literal(migration), ordinals.join(", "));
    format!("DELETE FROM walferry.deferred WHERE migration = {migration} AND ordinal IN ({ordinals});")
}

/// Lists once more as waiting what was restored by an end that failed, and is gone by
/// now, if something waits that belongs to it: a key that somebody dropped before its
/// validation. What was brought in stays in the list as restored, as after
/// [`super::take_away_again`]. `state` has a session of its own.
///
/// # Errors
/// When state or catalog cannot be read.
pub async fn list_what_is_gone(state: &State) -> Result<(), SchemaError> {
    let objects = state.deferred().await?;
    let wholes = Wholes::among(&objects);
    let mut gone: Vec<Deferred> = Vec::new();
    for whole in objects.iter().filter(|part| !part.is_restored).filter_map(|part| wholes.whole_of(part)) {
        if !whole.is_restored || gone.iter().any(|one| one.sql == whole.sql) {
            continue;
        }
        if same::can_be_looked_at(&whole.sql) && same::look(state.session(), &whole.sql).await? == There::Other(None) {
            gone.push(Deferred { is_restored: false, ..whole.clone() });
        }
    }
    if gone.is_empty() {
        return Ok(());
    }
    for one in &gone {
        tracing::warn!(
            object = one.object,
            "an earlier end had restored it, and it is not there any more: it waits again"
        );
    }
    // Its comments went with it.
    let is_its = |part: &&Deferred| {
        part.is_restored && wholes.whole_of(part).is_some_and(|whole| gone.iter().any(|one| one.sql == whole.sql))
    };
    let with_it: Vec<Deferred> =
        objects.iter().filter(is_its).map(|part| Deferred { is_restored: false, ..part.clone() }).collect();
    gone.extend(with_it);
    batch(state.session(), "BEGIN", "begin to list what is gone").await?;
    append(state, gone).await?;
    state.commit("list what is gone").await?;
    Ok(())
}

/// Whether an object is missing only for want of a right that administrators
/// have, or belongs to one that is.
fn is_administrators(object: &Deferred, error: &DbError, restored: &Restored) -> bool {
    object.kind == DeferredKind::Administrator && create::is_administrators(error, !restored.administrators.is_empty())
}

/// Brings in one object during the copy, waiting for locks as long as it
/// takes: only we are there.
///
/// # Errors
/// When the target refuses it; the object is named.
pub async fn restore_after_rows(session: &Session, migration: &str, object: &Deferred) -> Result<Mark, DbError> {
    restore_one(session, migration, object, "SET LOCAL lock_timeout = 0").await
}

async fn restore_one(session: &Session, migration: &str, object: &Deferred, settings: &str) -> Result<Mark, DbError> {
    let error = match attempt(session, migration, object, &object.sql, settings).await {
        Ok(mark) => return Ok(mark),
        Err(error) => error,
    };
    if session.is_closed() || !may_be_there(object, &error) {
        return Err(error);
    }
    if let Some((kind, name)) =
        classify::administrators_own(object).filter(|_| object.kind == DeferredKind::Administrator)
    {
        // The server has no words for most of these that could be compared.
        let is_made = create::is_made(session, &kind, (&object.table.schema, name)).await?;
        return if is_made { attempt(session, migration, object, "", settings).await } else { Err(error) };
    }
    match same::look(session, &object.sql).await? {
        There::Same { rest } => {
            tracing::warn!(object = object.object, "it is on the target already and is taken as restored");
            attempt(session, migration, object, &rest, settings).await
        }
        There::Other(there) => {
            if let Some(there) = there {
                tracing::warn!(object = object.object, there, "another one of this name is on the target");
            }
            Err(error)
        }
    }
}

/// Whether the target may have refused an object because it is there. The right
/// to create something is looked at before its name.
fn may_be_there(object: &Deferred, error: &DbError) -> bool {
    error.sqlstate().is_some_and(|code| match code {
        sqlstate::INSUFFICIENT_PRIVILEGE => object.kind == DeferredKind::Administrator,
        _ => sqlstate::is_already_there(code) || sqlstate::is_second_key(code),
    })
}

async fn attempt(
    session: &Session,
    migration: &str,
    object: &Deferred,
    sql: &str,
    settings: &str,
) -> Result<Mark, DbError> {
    let result = transaction(session, migration, object, sql, settings).await;
    if result.is_err() && batch(session, "ROLLBACK", "roll back").await.is_err() {
        // A session that cannot even roll back is lost; the first error says why.
        tracing::debug!("cannot roll back");
    }
    result
}

async fn transaction(
    session: &Session,
    migration: &str,
    object: &Deferred,
    sql: &str,
    settings: &str,
) -> Result<Mark, DbError> {
    // One behind the other in a single round trip: they are sent in this order.
    let begin = format!("BEGIN; {settings}");
    let what = format!("restore the {}", object.object);
    let (begun, mark) = tokio::join!(batch(session, &begin, &what), mark(session, migration, object));
    begun?;
    let mark = mark?;
    let sql = if mark == Mark::Set { sql } else { "" };
    let refused = session.privileges_refused();
    if !gives_privileges(sql) {
        // On a line of its own, as the last one may end with a comment. Behind an
        // error the server passes over what is left.
        batch(session, &format!("{sql};\nCOMMIT"), &what).await?;
        return Ok(mark);
    }
    batch(session, sql, &what).await?;
    let is_given = session.privileges_refused() == refused;
    batch(session, if is_given { "COMMIT" } else { "ROLLBACK" }, &what).await?;
    Ok(if is_given { mark } else { Mark::NotGiven })
}

/// Whether these are the statements of an entry of privileges: of what is not given by them,
/// the server only warns.
fn gives_privileges(sql: &str) -> bool {
    ["GRANT ", "REVOKE ", "ALTER DEFAULT PRIVILEGES "].iter().any(|verb| sql.trim_start().starts_with(verb))
}

/// Who marked an object as restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// We, just now.
    Set,
    /// Somebody did before.
    WasSet,
    /// Nobody: the target gives some of its privileges to nobody whom we may tell it to.
    NotGiven,
}

async fn mark(session: &Session, migration: &str, object: &Deferred) -> Result<Mark, DbError> {
    let marked = session
        .execute(MARK_RESTORED_SQL, &[&migration, &object.ordinal])
        .await
        .during(session.side(), format!("mark the {} as restored", object.object))?;
    Ok(if marked == 0 { Mark::WasSet } else { Mark::Set })
}
