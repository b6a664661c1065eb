//! The end of a migration: slot, publication and state are removed.
//!
//! Invariants: what the operator named (`--slot`, `--publication`) is never
//! dropped; nothing is dropped while another process works on the migration;
//! the state goes last, so that a cleanup that was interrupted can be run
//! again and finds whatever is left.

use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::catalog;
use crate::config::{Provenance, Settings, Side};
use crate::fault::Fault;
use crate::session::{DbContext, DbError, Session};
use crate::sql::{ident, literal};
use crate::state::deferred::Deferred;
use crate::state::migration::Migration;
use crate::state::{State, StateError};
use crate::wire::WireError;

/// How long a slot may stay in use by a connection that is going away: the
/// server notices a killed client at its next write.
const SLOT_PATIENCE: Duration = Duration::from_secs(10);

/// Pause between two looks at the slot.
const SLOT_POLL: Duration = Duration::from_millis(250);

/// Whether the operator has said `--yes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Drop, whatever is held back.
    Given,
    /// Drop only what nobody can miss.
    Missing,
}

/// Why nothing, or not everything, was dropped.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The target cannot be reached.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The source cannot be reached.
    #[error(
        "cannot reach the source, whose disk a forgotten slot would fill (if it no longer exists, run on the target: DROP SCHEMA walferry CASCADE)"
    )]
    Source(#[source] WireError),
    /// A statement failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The state cannot be read, or a process works on the migration.
    #[error(transparent)]
    State(#[from] StateError),
    /// Objects are held back.
    #[error(
        "{} objects are still held back on the target, and without the state nobody knows how to bring them in: run `walferry catchup --finish`, or run the SQL below there, or drop the state all the same with --yes\n{}",
        .0.len(), deferred_sql(.0)
    )]
    HeldBack(Vec<Deferred>),
    /// Only the names tell that the objects are ours.
    #[error(
        "the target knows of no migration \"{name}\", but the source has {what}: if they are left over from it, drop them with --yes"
    )]
    NoState {
        /// The migration.
        name: String,
        /// What is there.
        what: String,
    },
    /// The connection strings are not those of the migration.
    #[error(
        "migration \"{name}\" is one from database {expected}, and the source given is {found}: use its own --source, or another --name"
    )]
    OtherSource {
        /// The migration.
        name: String,
        /// Database and system of the migration.
        expected: String,
        /// Those of the connection.
        found: String,
    },
    /// Somebody reads from the slot.
    #[error(
        "replication slot \"{slot}\" is in use by server process {pid} of the source: stop its client, or run there: SELECT pg_terminate_backend({pid})"
    )]
    SlotInUse {
        /// The slot.
        slot: String,
        /// The walsender.
        pid: i32,
    },
}

impl CleanupError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            CleanupError::Wire(error) | CleanupError::Source(error) => error.fault(),
            CleanupError::Db(error) => error.fault(),
            CleanupError::State(error) => error.fault(),
            CleanupError::HeldBack(_) | CleanupError::NoState { .. } | CleanupError::OtherSource { .. } => Fault::Usage,
            CleanupError::SlotInUse { .. } => Fault::lasting(Side::Source),
        }
    }
}

/// How long a command that is leaving is waited for.
const LEASE_WAIT: Duration = Duration::from_secs(5);

/// Pause between two attempts to take the lease.
const LEASE_POLL: Duration = Duration::from_millis(200);

async fn take_lease(state: &State) -> Result<(), StateError> {
    let give_up = Instant::now() + LEASE_WAIT;
    loop {
        match state.take_lease().await {
            Err(StateError::Leased { .. }) if Instant::now() < give_up => tokio::time::sleep(LEASE_POLL).await,
            taken => return taken,
        }
    }
}

/// The SQL of objects that are held back, with what each is.
fn deferred_sql(objects: &[Deferred]) -> String {
    let lines = objects.iter().map(|o| {
        let sql = o.sql.trim().trim_end_matches(';');
        format!("-- {}\n{sql};", o.object)
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What was done.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The migration.
    pub name: String,
    /// What was dropped, in order.
    pub dropped: Vec<String>,
    /// What was left, and why.
    pub kept: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dropped.is_empty() {
            writeln!(f, "nothing of migration {} was there to drop", self.name)?;
        }
        for what in &self.dropped {
            writeln!(f, "dropped {what}")?;
        }
        for what in &self.kept {
            writeln!(f, "kept {what}")?;
        }
        Ok(())
    }
}

/// What there is on the source under the migration's names.
struct Found {
    slot: Option<String>,
    publication: Option<String>,
}

/// Removes slot, publication and state of a migration.
///
/// # Errors
/// [`CleanupError`] when a process works on the migration, objects are held
/// back and consent is missing, or a statement fails; running it again goes on.
pub async fn run(settings: &Settings, consent: Consent) -> Result<Report, CleanupError> {
    let mut report = Report { name: settings.name.clone(), ..Report::default() };
    let target = Session::connect(&settings.target, &settings.name).await?;
    let state =
        if State::is_installed(&target).await? { Some(State::open(target, &settings.name).await?) } else { None };
    let migration = match &state {
        Some(state) => {
            // Held until this process ends: nobody starts what is being dropped.
            // A command that has just ended may need a moment to let go.
            take_lease(state).await?;
            state.load().await?
        }
        None => None,
    };
    if let (Some(state), Some(_), Consent::Missing) = (&state, &migration, consent) {
        let held: Vec<Deferred> = state.deferred().await?.into_iter().filter(|object| !object.is_restored).collect();
        if !held.is_empty() {
            return Err(CleanupError::HeldBack(held));
        }
    }
    let source = Session::connect(&settings.source, &settings.name).await.map_err(CleanupError::Source)?;
    let found = look(settings, migration.as_ref(), &source, &mut report).await?;
    if migration.is_none() && consent == Consent::Missing {
        refuse_by_name_only(settings, &found)?;
    }
    if let Some(slot) = &found.slot {
        drop_slot(&source, slot).await?;
        report.dropped.push(format!("replication slot {slot} on the source"));
    }
    if let Some(publication) = &found.publication {
        let sql = format!("DROP PUBLICATION IF EXISTS {}", ident(publication));
        source.batch_execute(&sql).await.during(Side::Source, "drop the publication")?;
        report.dropped.push(format!("publication {publication} on the source"));
    }
    if let Some(state) = &state {
        drop_state(state, migration.as_ref(), &mut report).await?;
    }
    Ok(report)
}

/// Finds what is to be dropped on the source, and says what is kept.
async fn look(
    settings: &Settings,
    migration: Option<&Migration>,
    source: &Session,
    report: &mut Report,
) -> Result<Found, CleanupError> {
    if let Some(migration) = migration {
        same_source(settings, migration, source).await?;
    }
    // What the state says counts; without it, what the flags say.
    let slot = migration.map_or(&settings.slot, |migration| &migration.slot);
    let publication = migration.map_or(&settings.publication, |migration| &migration.publication);
    Ok(Found {
        slot: ours(slot, &settings.slot, "replication slot", report, find_slot(source, slot.name()).await?),
        publication: find_publication(source, publication, &settings.publication, report).await?,
    })
}

/// The object's name, if it is there and neither state nor flags call it the
/// operator's.
fn ours(recorded: &Provenance, flag: &Provenance, what: &str, report: &mut Report, is_there: bool) -> Option<String> {
    if !is_there {
        return None;
    }
    let name = recorded.name();
    let is_operators = matches!(recorded, Provenance::Existing(_)) || *flag == Provenance::Existing(name.to_owned());
    if is_operators {
        report.kept.push(format!("{what} {name} on the source: it was not made by walferry"));
        return None;
    }
    Some(name.to_owned())
}

async fn find_slot(source: &Session, name: &str) -> Result<bool, DbError> {
    let Some(slot) = catalog::slot::find(source, name).await? else { return Ok(false) };
    let row = source
        .query_one("SELECT pg_catalog.current_database()::text", &[])
        .await
        .during(Side::Source, "read the database's name")?;
    Ok(slot.database == row.take(0)?)
}

async fn find_publication(
    source: &Session,
    recorded: &Provenance,
    flag: &Provenance,
    report: &mut Report,
) -> Result<Option<String>, DbError> {
    let name = recorded.name();
    let sql = "SELECT pg_catalog.pg_has_role(pubowner, 'USAGE') FROM pg_catalog.pg_publication WHERE pubname = $1";
    let rows = source.query(sql, &[&name]).await.during(Side::Source, "look for the publication")?;
    let Some(row) = rows.first() else { return Ok(None) };
    if !row.get::<_, bool>(0) && matches!(recorded, Provenance::Ours(_)) {
        // Made beforehand by the owner of the tables.
        report.kept.push(format!(
            "publication {name} on the source: its owner can drop it (DROP PUBLICATION {})",
            ident(name)
        ));
        return Ok(None);
    }
    Ok(ours(recorded, flag, "publication", report, true))
}

/// A slot of the same name on another source belongs to another migration.
async fn same_source(settings: &Settings, migration: &Migration, source: &Session) -> Result<(), CleanupError> {
    let row = source
        .query_one(
            "SELECT pg_catalog.current_database()::text, system_identifier::text FROM pg_catalog.pg_control_system()",
            &[],
        )
        .await
        .during(Side::Source, "identify the source")?;
    let (database, system): (String, String) = (row.get(0), row.get(1));
    let recorded = &migration.source;
    if database == recorded.database && system == recorded.system_identifier {
        return Ok(());
    }
    Err(CleanupError::OtherSource {
        name: settings.name.clone(),
        expected: format!("\"{}\" of system {}", recorded.database, recorded.system_identifier),
        found: format!("\"{database}\" of system {system}"),
    })
}

fn refuse_by_name_only(settings: &Settings, found: &Found) -> Result<(), CleanupError> {
    let slot = found.slot.as_ref().map(|slot| format!("a replication slot \"{slot}\""));
    let publication = found.publication.as_ref().map(|publication| format!("a publication \"{publication}\""));
    let what: Vec<String> = slot.into_iter().chain(publication).collect();
    if what.is_empty() {
        return Ok(());
    }
    Err(CleanupError::NoState { name: settings.name.clone(), what: what.join(" and ") })
}

/// Drops the slot, with patience for a connection that is going away.
async fn drop_slot(source: &Session, slot: &str) -> Result<(), CleanupError> {
    let deadline = Instant::now() + SLOT_PATIENCE;
    loop {
        let Some(found) = catalog::slot::find(source, slot).await? else { return Ok(()) };
        match found.active_pid {
            None => break,
            Some(pid) if Instant::now() >= deadline => {
                return Err(CleanupError::SlotInUse { slot: slot.to_owned(), pid });
            }
            Some(_) => tokio::time::sleep(SLOT_POLL).await,
        }
    }
    let sql = format!("SELECT pg_catalog.pg_drop_replication_slot({})", literal(slot));
    source.batch_execute(&sql).await.during(Side::Source, "drop the replication slot")?;
    Ok(())
}

/// Removes the migration from the state, and the schema with the last one.
async fn drop_state(state: &State, migration: Option<&Migration>, report: &mut Report) -> Result<(), CleanupError> {
    let session = state.session();
    let execute = async |sql: &str, action: &str| session.batch_execute(sql).await.during(Side::Target, action);
    let name = literal(state.name());
    execute(
        "BEGIN; SET LOCAL client_min_messages = warning; LOCK TABLE walferry.migration IN ACCESS EXCLUSIVE MODE",
        "lock the state",
    )
    .await?;
    if let Some(migration) = migration {
        let sql = format!(
            "DELETE FROM walferry.position WHERE slot = {}; DELETE FROM walferry.journal WHERE migration = {name}; \
             DELETE FROM walferry.control WHERE migration = {name}; DELETE FROM walferry.migration WHERE name = {name}",
            literal(migration.slot.name())
        );
        execute(&sql, "delete the state of the migration").await?;
        report.dropped.push(format!("the state of migration {} on the target", state.name()));
    }
    let row = session
        .query_one("SELECT count(*) FROM walferry.migration", &[])
        .await
        .during(Side::Target, "count the other migrations")?;
    let others: i64 = row.get(0);
    if others == 0 {
        execute("DROP SCHEMA walferry CASCADE", "drop the schema walferry").await?;
        report.dropped.push("the schema walferry on the target".to_owned());
    } else {
        report.kept.push(format!("the schema walferry on the target: {others} other migrations are in it"));
    }
    execute("COMMIT", "commit the removal of the state").await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::TableName;
    use crate::state::deferred::DeferredKind;

    #[test]
    fn what_is_held_back_is_shown_with_the_sql_that_brings_it_in() {
        let held = Deferred {
            ordinal: 1,
            kind: DeferredKind::ForeignKey,
            table: TableName::new("shop", "orders"),
            object: "fk constraint orders orders_customer_fkey in shop".into(),
            sql: "ALTER TABLE shop.orders ADD CONSTRAINT x FOREIGN KEY (c) REFERENCES shop.customers (id);\n".into(),
            is_restored: false,
        };
        let text = CleanupError::HeldBack(vec![held]).to_string();
        assert!(text.contains("1 objects are still held back") && text.contains("catchup --finish"), "{text}");
        assert!(text.ends_with("-- fk constraint orders orders_customer_fkey in shop\nALTER TABLE shop.orders ADD CONSTRAINT x FOREIGN KEY (c) REFERENCES shop.customers (id);"), "{text}");
    }

    #[test]
    fn what_the_operator_named_is_never_dropped() {
        let ours_of = |recorded: Provenance, flag: Provenance| {
            let mut report = Report::default();
            let found = ours(&recorded, &flag, "replication slot", &mut report, true);
            (found, report.kept.len())
        };
        let (made, named) = (|| Provenance::Ours("s".into()), || Provenance::Existing("s".into()));
        assert_eq!(ours_of(made(), made()), (Some("s".into()), 0));
        assert_eq!(ours_of(named(), made()), (None, 1));
        assert_eq!(ours_of(made(), named()), (None, 1));
    }
}
