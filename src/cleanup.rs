//! The end of a migration: slot, publication and state are removed.
//!
//! Invariants: only what this migration has created and still recognises is
//! dropped, the slot by its plugin, database and LSNs ([`crate::state::created`]),
//! the publication by its oid, and only on the server that the migration began
//! with; whatever else has its names is named with the SQL that drops it. So is what
//! others have put into the state's schema, or have made of its tables: while any of
//! it is there, the schema stays as it was created, empty.
//! Nothing is dropped while another process works on the migration. What the
//! state alone knows is shown before it goes (once the end is over only what that has
//! left to an administrator and is not there yet), and it goes last, so that a
//! cleanup that was interrupted can be run again and finds whatever is left.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::border::visible;
use crate::catalog::strangers::{Stranger, strangers};
use crate::catalog::{self, publication, wal};
use crate::config::{Provenance, Publications, Settings, Side};
use crate::fault::Fault;
use crate::schema::{SchemaError, in_order, restore_deferred};
use crate::session::{DbContext, DbError, Session};
use crate::sql::printed::printed;
use crate::sql::{ident, literal};
use crate::state::created::Recognised;
use crate::state::deferred::{Deferred, DeferredKind};
use crate::state::migration::{Migration, SourceIdentity};
use crate::state::resume::{ResyncError, compare_end, compare_source};
use crate::state::{SCHEMA, State, StateError, TABLES};
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

/// What is cleaned up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Slot, publication and state.
    Everything,
    /// The state on the target; the source is not asked.
    StateOnly,
}

/// Why nothing, or not everything, was dropped.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The target cannot be reached.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The source cannot be reached.
    #[error(
        "cannot reach the source, whose disk a forgotten slot would fill (if it no longer exists, or the slot is of no concern: walferry cleanup --state-only)"
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
        "{} still held back on the target, and without the state nobody knows how to bring them in: run `walferry catchup --finish`, or run the SQL below there, or drop the state all the same with --yes\n{}",
        count(.0.len()), deferred_sql(.0)
    )]
    HeldBack(Vec<Deferred>),
    /// The end is over, and what it left is not there yet.
    #[error(
        "{} still left to an administrator of the target, and without the state nobody knows how to bring them in: let an administrator run the SQL below there, and run `walferry cleanup` again, or drop the state all the same with --yes\n{}",
        count(.0.len()), deferred_sql(.0)
    )]
    Left(Vec<Deferred>),
    /// It could not be looked for.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// What is held back could not be shown.
    #[error("cannot print what is held back, so the state that knows it stays")]
    Unshown(#[source] io::Error),
    /// Nobody knows any more whose the objects are.
    #[error(
        "the target knows of no migration \"{name}\", so nothing tells whether this is left over from it or is somebody else's; walferry cleanup --state-only removes what is on the target; if nobody needs it, run on the source:\n{}",
        .sql.join("\n")
    )]
    NoState {
        /// The migration.
        name: String,
        /// What would drop what is there.
        sql: Vec<String>,
    },
    /// The source is not the server of the migration.
    #[error(
        "migration \"{name}\": {difference}. Nothing is dropped there: use the migration's own --source, or another --name; if that server is gone: walferry cleanup --state-only"
    )]
    OtherSource {
        /// The migration.
        name: String,
        /// What tells the two apart.
        difference: ResyncError,
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
            CleanupError::Schema(error) => error.fault(),
            CleanupError::HeldBack(_)
            | CleanupError::Left(_)
            | CleanupError::NoState { .. }
            | CleanupError::OtherSource { .. } => Fault::Usage,
            CleanupError::Unshown(_) => Fault::Machine,
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

fn count(objects: usize) -> String {
    if objects == 1 { "1 object is".to_owned() } else { format!("{objects} objects are") }
}

/// The SQL of objects that are held back, with what each is.
fn deferred_sql(objects: &[Deferred]) -> String {
    let lines = objects.iter().map(|o| {
        let sql = printed(&o.sql);
        format!("-- {}\n{};", visible(&o.object), sql.trim().trim_end_matches(';'))
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
    /// What the target still lacks, and no state knows any more.
    pub held_back: Vec<HeldBack>,
}

/// An object that was held back to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldBack {
    /// What it is.
    pub object: String,
    /// What brings it in.
    pub sql: String,
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

/// How a cleanup is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whether `--yes` was said.
    pub consent: Consent,
    /// What is cleaned up.
    pub scope: Scope,
}

/// Removes slot, publication and state of a migration. `show` is given the SQL
/// of what is held back before the state goes that knows it.
///
/// # Errors
/// [`CleanupError`] when a process works on the migration, objects are held
/// back and consent is missing, or a statement fails; running it again goes on.
pub async fn run(
    settings: &Settings,
    request: Request,
    show: impl FnOnce(&str) -> io::Result<()>,
) -> Result<Report, CleanupError> {
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
    let mut held = Vec::new();
    let mut is_ended = false;
    if let (Some(state), Some(migration)) = (&state, &migration) {
        held = held_back(settings, state, migration).await?;
        is_ended = migration.finished;
    }
    if !held.is_empty() && request.consent == Consent::Missing {
        return Err(if is_ended { CleanupError::Left(held) } else { CleanupError::HeldBack(held) });
    }
    match (request.scope, &state, &migration) {
        (Scope::StateOnly, ..) => leave_source(settings, migration.as_ref(), &mut report),
        (Scope::Everything, Some(state), Some(migration)) => {
            clean_source(settings, state, migration, &mut report).await?;
        }
        (Scope::Everything, ..) => refuse_by_name_only(settings).await?,
    }
    if !held.is_empty() {
        show(&format!("{}\n", deferred_sql(&held))).map_err(CleanupError::Unshown)?;
        report.held_back = held.into_iter().map(|o| HeldBack { object: o.object, sql: printed(&o.sql) }).collect();
    }
    if let Some(state) = &state {
        drop_state(state, migration.as_ref(), &mut report).await?;
    }
    Ok(report)
}

/// What is held back, in order. Where the end is over it is what that has left to an
/// administrator, and as an end does it counts once it is there.
async fn held_back(settings: &Settings, state: &State, migration: &Migration) -> Result<Vec<Deferred>, CleanupError> {
    let mut listed = state.deferred().await?;
    if migration.finished && listed.iter().any(|object| !object.is_restored) {
        let session = Session::connect(&settings.target, &settings.name).await?;
        restore_deferred(state, &session, &DeferredKind::all().collect::<Vec<_>>()).await?;
        listed = state.deferred().await?;
    }
    Ok(in_order(listed.iter().filter(|object| !object.is_restored)).into_iter().cloned().collect())
}

fn drop_slot_sql(slot: &str) -> String {
    format!("SELECT pg_catalog.pg_drop_replication_slot({});", literal(slot).trim())
}

fn drop_publication_sql(publication: &str) -> String {
    format!("DROP PUBLICATION {};", ident(publication))
}

/// The source is not asked: what may be there is named.
fn leave_source(settings: &Settings, migration: Option<&Migration>, report: &mut Report) {
    let Some(migration) = migration else { return };
    let mut keep = |what: &str, name: &str, whose: Whose, sql: String| {
        report.kept.push(match whose {
            Whose::Operators => not_ours(what, name),
            Whose::Ours => format!("{what} {name} on the source: it was not asked; if it is still there: {sql}"),
        });
    };
    let slot = migration.slot.name();
    keep("replication slot", slot, whose_slot(&migration.slot, &settings.slot), drop_slot_sql(slot));
    for name in migration.publications.names() {
        keep(
            "publication",
            name,
            whose_publications(&migration.publications, &settings.publications),
            drop_publication_sql(name),
        );
    }
}

/// Whether an object of the migration may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// walferry made it.
    Ours,
    /// State or flags call it the operator's.
    Operators,
}

fn whose_slot(recorded: &Provenance, flag: &Provenance) -> Whose {
    match (recorded, flag) {
        (Provenance::Existing(_), _) => Whose::Operators,
        (Provenance::Ours(recorded), Provenance::Existing(named)) if recorded == named => Whose::Operators,
        (Provenance::Ours(_), _) => Whose::Ours,
    }
}

fn whose_publications(recorded: &Publications, flag: &Publications) -> Whose {
    match (recorded, flag) {
        (Publications::Existing(_), _) => Whose::Operators,
        (Publications::Ours(recorded), named @ Publications::Existing(_)) if named.names().contains(recorded) => {
            Whose::Operators
        }
        (Publications::Ours(_), _) => Whose::Ours,
    }
}

/// Drops what the migration created on the source, and says what is kept.
async fn clean_source(
    settings: &Settings,
    state: &State,
    migration: &Migration,
    report: &mut Report,
) -> Result<(), CleanupError> {
    same_source(settings, migration).await?;
    let source = Session::connect(&settings.source, &settings.name).await.map_err(CleanupError::Source)?;
    not_set_back(settings, (state, migration), &source).await?;
    if whose_slot(&migration.slot, &settings.slot) == Whose::Operators {
        let slot = migration.slot.name();
        if catalog::slot::find(&source, slot).await?.is_some() {
            report.kept.push(not_ours("replication slot", slot));
        }
    } else {
        clean_slot(state, migration, &source, report).await?;
    }
    clean_publications(settings, migration, &source, report).await
}

fn not_ours(what: &str, name: &str) -> String {
    format!("{what} {name} on the source: it was not made by walferry")
}

/// A slot or publication of the same name on another server is another's.
async fn same_source(settings: &Settings, migration: &Migration) -> Result<(), CleanupError> {
    let asked = SourceIdentity::ask(&settings.source, &settings.name).await;
    let (_, found) = asked.map_err(CleanupError::Source)?;
    compare_source(&migration.source, &found)
        .map_err(|difference| CleanupError::OtherSource { name: settings.name.clone(), difference })
}

/// A backup of the source answers as the source does: the migration of that is not over.
async fn not_set_back(
    settings: &Settings,
    (state, migration): (&State, &Migration),
    source: &Session,
) -> Result<(), CleanupError> {
    let position = state.position(migration.slot.name()).await?.map(|position| position.lsn());
    compare_end(position, wal::kept(source).await?)
        .map_err(|difference| CleanupError::OtherSource { name: settings.name.clone(), difference })
}

/// Drops the slot if it is the migration's, with patience for a connection that
/// is going away.
async fn clean_slot(
    state: &State,
    migration: &Migration,
    source: &Session,
    report: &mut Report,
) -> Result<(), CleanupError> {
    let name = migration.slot.name();
    let deadline = Instant::now() + SLOT_PATIENCE;
    loop {
        let Some(found) = catalog::slot::find(source, name).await? else { return Ok(()) };
        if let Recognised::No(why) = state.recognises(&found).await? {
            let sql = drop_slot_sql(name);
            let line = format!(
                "replication slot {name} on the source: it is not known to be this migration's ({why}); if nobody needs it: {sql}"
            );
            report.kept.push(line);
            return Ok(());
        }
        match found.active_pid {
            None => break,
            Some(pid) if Instant::now() >= deadline => {
                return Err(CleanupError::SlotInUse { slot: name.to_owned(), pid });
            }
            Some(_) => tokio::time::sleep(SLOT_POLL).await,
        }
    }
    source.batch_execute(&drop_slot_sql(name)).await.during(Side::Source, "drop the replication slot")?;
    report.dropped.push(format!("replication slot {name} on the source"));
    Ok(())
}

/// Drops the publication if it is the one that the migration created.
async fn clean_publications(
    settings: &Settings,
    migration: &Migration,
    source: &Session,
    report: &mut Report,
) -> Result<(), CleanupError> {
    for found in publication::find(source, migration.publications.names()).await? {
        let name = &found.name;
        if whose_publications(&migration.publications, &settings.publications) == Whose::Operators {
            report.kept.push(not_ours("publication", name));
            continue;
        }
        let sql = drop_publication_sql(name);
        let why = match migration.publication_oid {
            None => Some("it is not known to be made by this migration; if nobody needs it"),
            Some(ours) if ours != found.oid => Some("it is another one than this migration made; if nobody needs it"),
            Some(_) if !found.is_owned => Some("its owner can drop it"),
            Some(_) => None,
        };
        if let Some(why) = why {
            report.kept.push(format!("publication {name} on the source: {why}: {sql}"));
            continue;
        }
        source.batch_execute(&sql).await.during(Side::Source, "drop the publication")?;
        report.dropped.push(format!("publication {name} on the source"));
    }
    Ok(())
}

/// Without the state only the names are left, and they prove nothing.
async fn refuse_by_name_only(settings: &Settings) -> Result<(), CleanupError> {
    let source = Session::connect(&settings.source, &settings.name).await.map_err(CleanupError::Source)?;
    let mut sql = Vec::new();
    if let Provenance::Ours(slot) = &settings.slot
        && catalog::slot::find(&source, slot).await?.is_some()
    {
        sql.push(drop_slot_sql(slot));
    }
    if let Publications::Ours(name) = &settings.publications {
        let found = publication::find(&source, std::slice::from_ref(name)).await?;
        sql.extend(found.iter().map(|publication| drop_publication_sql(&publication.name)));
    }
    if sql.is_empty() { Ok(()) } else { Err(CleanupError::NoState { name: settings.name.clone(), sql }) }
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
    let others: i64 = row.take(0)?;
    if others == 0 {
        drop_schema(session, report).await?;
    } else {
        let who =
            if others == 1 { "another migration is".to_owned() } else { format!("{others} other migrations are") };
        report.kept.push(format!("the schema walferry on the target: {who} in it"));
    }
    execute("COMMIT", "commit the removal of the state").await?;
    Ok(())
}

/// Drops the schema with the state's tables, inside the caller's transaction; while
/// others have something in it, or have made something of the tables, it stays as it
/// was created. Without CASCADE: what they make at this moment is not lost either.
async fn drop_schema(session: &Session, report: &mut Report) -> Result<(), CleanupError> {
    let strangers = strangers(session, SCHEMA, &TABLES).await?;
    if strangers.is_empty() {
        let tables = TABLES.map(|table| format!("{SCHEMA}.{table}")).join(", ");
        let sql = format!("DROP TABLE IF EXISTS {tables}; DROP SCHEMA {SCHEMA}");
        session.batch_execute(&sql).await.during(Side::Target, "drop the schema walferry")?;
        report.dropped.push("the schema walferry on the target".to_owned());
        return Ok(());
    }
    let it = if strangers.len() == 1 { "that is gone" } else { "all these are gone" };
    for Stranger { description, sql } in strangers {
        let sql = sql.map_or_else(String::new, |sql| format!("; if nobody needs it: {}", printed(&sql)));
        report.kept.push(format!(
            "{description} on the target: it is in the schema walferry or needs a table there, and is not walferry's{sql}"
        ));
    }
    report.kept.push(format!(
        "the schema walferry on the target, with the state's tables, which are empty: run walferry cleanup --state-only when {it}"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::publications::Names;
    use crate::sql::TableName;
    use crate::state::deferred::Follows;

    #[test]
    fn what_is_held_back_is_shown_with_the_sql_that_brings_it_in() {
        let held = Deferred {
            ordinal: 1,
            kind: DeferredKind::ForeignKey,
            table: TableName::new("shop", "orders"),
            object: "fk constraint orders orders_customer_fkey in shop".into(),
            sql: "ALTER TABLE shop.orders ADD CONSTRAINT x FOREIGN KEY (c) REFERENCES shop.customers (id);\n".into(),
            is_restored: false,
            follows: Follows::Nothing,
        };
        let text = CleanupError::HeldBack(vec![held]).to_string();
        assert!(text.contains("1 object is still held back") && text.contains("catchup --finish"), "{text}");
        assert!(text.ends_with("-- fk constraint orders orders_customer_fkey in shop\nALTER TABLE shop.orders ADD CONSTRAINT x FOREIGN KEY (c) REFERENCES shop.customers (id);"), "{text}");
    }

    #[test]
    fn what_state_or_flags_call_the_operators_is_the_operators() {
        let (made, named) = (Provenance::Ours("s".into()), Provenance::Existing("s".into()));
        assert_eq!(whose_slot(&made, &made), Whose::Ours);
        assert_eq!((whose_slot(&named, &made), whose_slot(&made, &named)), (Whose::Operators, Whose::Operators));
        let made = Publications::Ours("s".into());
        let named = |text| Publications::Existing(Names::parse([text]).unwrap());
        assert_eq!(whose_publications(&made, &made), Whose::Ours);
        assert_eq!(whose_publications(&made, &named("other")), Whose::Ours);
        for (recorded, flag) in [(&named("a,s"), &made), (&made, &named("a,s"))] {
            assert_eq!(whose_publications(recorded, flag), Whose::Operators);
        }
    }
}
