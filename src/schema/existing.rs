//! A schema that exists on the target: its foreign keys are dropped and its
//! triggers and rules disabled until the end; CHECK constraints that are NOT VALID
//! are dropped until the rows are there, those of domains until the end.
//!
//! Invariant: everything is recorded with the SQL that brings it back, in the
//! transaction that takes it away. Source: an ordinary owner may `DISABLE
//! TRIGGER USER` but not `ALL` (`ATExecEnableDisableTrigger`, `EnableDisableTrigger`).

use super::{SchemaError, append, batch, classify, is_ready, record, shown, tables};
use crate::catalog::foreign_keys::ForeignKey;
use crate::catalog::tables::by_name;
use crate::catalog::triggers::{Fires, InForce, Kind};
use crate::catalog::{foreign_keys, named, triggers};
use crate::config::Baseline;
use crate::membership::SourceTable;
use crate::membership::placement::Hierarchy;
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::{TableName, ident, literal};
use crate::state::State;
use crate::state::deferred::{Deferred, DeferredKind, Follows};
use crate::state::tables::TableState;

/// How long taking keys and triggers away waits for a lock: a target that is
/// being filled has no other users, so a longer wait hides a mistake.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '30s'";

/// An object, and the statement that takes it away for now.
struct Removal {
    deferred: Vec<Deferred>,
    sql: String,
}

/// Takes away what the rows cannot stand yet; see [`super::prepare`].
pub(super) async fn run(state: &State, tables: &[SourceTable], baseline: Baseline) -> Result<(), SchemaError> {
    let target = state.session();
    // Those without a stream are filled at the end, before keys and triggers.
    let included = || tables.iter().filter(|table| table.takes_part());
    let there = by_name(target, included().map(|table| &table.name)).await?;
    tables::require_fit(included(), &there, Hierarchy::Own)?;
    for difference in tables::differences(included(), &there) {
        tracing::warn!("{difference}");
    }
    let names: Vec<&TableName> = included().map(|table| &table.name).collect();
    if baseline == Baseline::Copied {
        tables::require_empty(target, &names).await?;
    }
    batch(target, &format!("BEGIN; {LOCK_TIMEOUT}"), "begin to prepare the schema").await?;
    let checks = match baseline {
        Baseline::Copied => Checks::Away,
        _ => Checks::Stay,
    };
    let mut objects = take_away(target, &names, (Keys::All, checks)).await?;
    classify::number(&mut objects);
    record(state, &objects).await?;
    state.commit("commit the preparation of the schema").await?;
    tracing::info!(objects = objects.len(), "foreign keys and triggers of the target wait until the end");
    Ok(())
}

/// The same for a copy that is under way, with rows that are there: see [`super::hold_back`].
pub(super) async fn late(state: &State, tables: &[SourceTable]) -> Result<(), SchemaError> {
    let target = state.session();
    let included = tables.iter().filter(|table| table.takes_part());
    let names: Vec<&TableName> = included.map(|table| &table.name).collect();
    batch(target, &format!("BEGIN; {LOCK_TIMEOUT}"), "begin to prepare the schema").await?;
    let objects = take_away(target, &names, (Keys::All, Checks::Away)).await?;
    tracing::info!(objects = objects.len(), "foreign keys and triggers of the target wait until the end");
    append(state, objects).await?;
    is_ready(state).await?;
    state.commit("commit the preparation of the schema").await?;
    Ok(())
}

/// The same for tables that come later; see [`super::add`].
pub(super) async fn add(state: &State, tables: &[SourceTable]) -> Result<(), SchemaError> {
    let target = state.session();
    let names: Vec<&TableName> = tables.iter().map(|table| &table.name).collect();
    batch(target, &format!("BEGIN; {LOCK_TIMEOUT}"), "begin to prepare the tables").await?;
    let objects = take_away(target, &names, (Keys::All, Checks::Away)).await?;
    append(state, objects).await?;
    state.commit("commit the preparation of the tables").await?;
    Ok(())
}

/// Which foreign keys are taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// All: rows are to come in any order.
    All,
    /// Those that change rows by themselves (ON DELETE CASCADE and the like),
    /// which the stream brings as well. The others only check; to bring them in
    /// once more would read their tables once more.
    Acting,
}

/// Whether CHECK constraints that are NOT VALID are taken away: rows from before
/// them may violate them, and would not be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checks {
    /// They are, until the rows are there.
    Away,
    /// They stay: no row is copied, and the stream's pass them as they did on the source.
    Stay,
}

/// Takes away again what an end has brought in that did not end well, before
/// anything is applied: a trigger would go over rows that have been through it on
/// the source. What was brought in stays in the list as restored, and is listed
/// once more as waiting. Says how many objects wait again.
///
/// # Errors
/// When the target refuses it; nothing has been taken away then.
pub async fn take_away_again(state: &State, keys: Keys) -> Result<usize, SchemaError> {
    let listed = state.deferred().await?;
    if !is_to_be_reopened(&listed) {
        return Ok(0);
    }
    let rows = state.tables().await?;
    let streamed = rows.iter().filter(|row| row.state != TableState::Excluded).map(|row| &row.table);
    let unlogged = listed.iter().filter(|object| object.kind == DeferredKind::Unlogged).map(|object| &object.table);
    let names: Vec<&TableName> = streamed.chain(unlogged).collect();
    let target = state.session();
    let names = with_roots(target, &names).await?;
    let names: Vec<&TableName> = names.iter().collect();
    batch(target, &format!("BEGIN; {LOCK_TIMEOUT}"), "begin to take triggers and foreign keys away again").await?;
    let mut objects = take_away(target, &names, (keys, Checks::Stay)).await?;
    let count = objects.len();
    objects.retain(|object| !listed.iter().any(|other| !other.is_restored && other.sql == object.sql));
    append(state, objects).await?;
    state.commit("take triggers and foreign keys away again").await?;
    Ok(count)
}

/// These tables and what they are partitions of: a partition that comes later gets
/// the triggers of its root as they are.
async fn with_roots(target: &Session, names: &[&TableName]) -> Result<Vec<TableName>, SchemaError> {
    let ours = named::oids();
    let sql = format!(
        "WITH RECURSIVE up (oid) AS (SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid IN {ours} UNION \
            SELECT i.inhparent FROM up JOIN pg_catalog.pg_class c ON c.oid = up.oid AND c.relispartition \
            JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.oid) \
         SELECT n.nspname::text, c.relname::text FROM up JOIN pg_catalog.pg_class c ON c.oid = up.oid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2"
    );
    let rows = query(target, names, &sql, "list the tables and their roots").await?;
    let named = |row: &Row| {
        let (schema, name): (String, String) = (row.take(0)?, row.take(1)?);
        Ok(TableName { schema, name })
    };
    Ok(rows.iter().map(named).collect::<Result<_, DbError>>()?)
}

/// What forces row security upon the owner, behind the table's name.
const FORCE: &str = " FORCE ROW LEVEL SECURITY;";

/// Whether an end has brought something in that has to be taken away before anything is
/// applied: what acts on rows, or refuses some, or row security.
pub fn is_to_be_reopened(listed: &[Deferred]) -> bool {
    // What forces it comes with the table, and is in force with this.
    let is_row_security = |object: &Deferred| {
        object.kind == DeferredKind::Other
            && (object.sql.ends_with(FORCE) || object.object.starts_with("row security "))
    };
    has_an_end_begun(listed) || listed.iter().any(|object| object.is_restored && is_row_security(object))
}

/// Whether an end has brought something in that acts on rows, or refuses some.
pub fn has_an_end_begun(listed: &[Deferred]) -> bool {
    // A domain's constraint is of no kind of its own.
    let is_of_domain = |sql: &str| sql.starts_with("ALTER DOMAIN ") && sql.contains(" ADD CONSTRAINT ");
    let acts = |object: &Deferred| match object.kind {
        DeferredKind::ForeignKey | DeferredKind::Trigger => true,
        DeferredKind::Other => is_of_domain(&object.sql),
        _ => false,
    };
    listed.iter().any(|object| object.is_restored && acts(object))
}

/// Takes away what is in the way of these tables' rows, and says what brings it
/// back.
async fn take_away(
    target: &Session,
    names: &[&TableName],
    (keys, checks): (Keys, Checks),
) -> Result<Vec<Deferred>, SchemaError> {
    let mut removals = foreign_keys(target, names, keys).await?;
    if checks == Checks::Away {
        removals.extend(unproved_checks(target, names).await?);
    }
    removals.extend(unproved_domains(target, names).await?);
    removals.extend(switches(target, names).await?);
    removals.extend(forced_row_security(target, names).await?);
    // Validations come after all keys: numbers are given in this order.
    let (first, last): (Vec<_>, Vec<_>) =
        removals.iter().flat_map(|r| r.deferred.iter().cloned()).partition(|d| !d.object.starts_with("validation of "));
    for removal in &removals {
        batch(target, &removal.sql, &format!("execute \"{}\"", shown(&removal.sql))).await?;
    }
    Ok(first.into_iter().chain(last).collect())
}

async fn query(target: &Session, names: &[&TableName], sql: &str, action: &str) -> Result<Vec<Row>, SchemaError> {
    let (schemas, tables) = named::lists(names.iter().copied());
    Ok(target.query(sql, &[&schemas, &tables]).await.during(target.side(), action)?)
}

fn deferred(kind: DeferredKind, (table, follows): (&TableName, Follows), object: String, sql: String) -> Deferred {
    Deferred { ordinal: 0, kind, table: table.clone(), object, sql, is_restored: false, follows }
}

/// What brings a comment back, on a line behind what it is about.
fn with_comment(on: &str, comment: Option<&str>) -> String {
    comment.map_or_else(String::new, |text| format!("\nCOMMENT ON CONSTRAINT {on} IS {};", literal(text)))
}

/// The foreign keys of these tables and to them. One that is disabled is not in force and
/// stays.
async fn foreign_keys(target: &Session, names: &[&TableName], keys: Keys) -> Result<Vec<Removal>, SchemaError> {
    let is_meant = |key: &ForeignKey| key.is_topmost && !key.is_disabled && (keys == Keys::All || key.acts);
    let all = foreign_keys::of(target, names).await?;
    Ok(all.iter().filter(|key| is_meant(key)).map(|key| foreign_key(key, target.version())).collect())
}

fn foreign_key(key: &ForeignKey, version: i32) -> Removal {
    let (table, name, definition) = (&key.table, ident(&key.name), &key.definition);
    let object = format!("foreign key {name} of {table}");
    let of = (table, Follows::Target { table: key.table_oid, referenced: Some(key.referenced) });
    let comment = with_comment(&format!("{name} ON {}", table.sql()), key.comment.as_deref());
    let add = format!("ALTER TABLE {} ADD CONSTRAINT {name} {definition}", table.sql());
    let partitioned_now = key.is_of_partitioned && version < classify::PARTITIONED_NOT_VALID;
    let deferred = if key.is_validated && !partitioned_now {
        let validate = format!("ALTER TABLE {} VALIDATE CONSTRAINT {name};", table.sql());
        vec![
            deferred(DeferredKind::ForeignKey, of, object.clone(), format!("{add} NOT VALID;{comment}")),
            deferred(DeferredKind::ForeignKey, of, format!("validation of {object}"), validate),
        ]
    } else {
        vec![deferred(DeferredKind::ForeignKey, of, object, format!("{add};{comment}"))]
    };
    Removal { deferred, sql: format!("ALTER TABLE {} DROP CONSTRAINT {name}", table.sql()) }
}

/// CHECK constraints that are NOT VALID, those of parents before the children's
/// own. They go to the children as well, so they are of no single table.
async fn unproved_checks(target: &Session, names: &[&TableName]) -> Result<Vec<Removal>, SchemaError> {
    let ours = named::oids();
    let enforced = if target.version() >= 180_000 { "k.conenforced" } else { "true" };
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, k.conname::text, pg_catalog.pg_get_constraintdef(k.oid), \
            pg_catalog.obj_description(k.oid, 'pg_constraint'), c.oid \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype = 'c' AND NOT k.convalidated AND {enforced} AND k.conislocal AND k.conrelid IN {ours} \
         ORDER BY (WITH RECURSIVE up (oid) AS (SELECT k.conrelid UNION SELECT i.inhparent FROM up \
            JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.oid) SELECT pg_catalog.count(*) FROM up), 1, 2, 3"
    );
    let removal = |row: &Row| {
        let table = TableName { schema: row.take(0)?, name: row.take(1)? };
        let (name, definition) = (ident(row.take(2)?), row.take::<&str>(3)?);
        let comment = with_comment(&format!("{name} ON {}", table.sql()), row.take(4)?);
        let add = format!("ALTER TABLE {} ADD CONSTRAINT {name} {definition};{comment}", table.sql());
        let none = TableName::new(table.schema.clone(), "");
        let object = format!("check constraint {name} of {table}");
        let of = (&none, Follows::Target { table: row.take(5)?, referenced: None });
        Ok(Removal {
            deferred: vec![deferred(DeferredKind::AfterRows, of, object, add)],
            sql: format!("ALTER TABLE {} DROP CONSTRAINT {name}", table.sql()),
        })
    };
    let rows = query(target, names, &sql, "list the check constraints that are not valid").await?;
    Ok(rows.iter().map(removal).collect::<Result<_, DbError>>()?)
}

/// Constraints of the columns' domains that are NOT VALID: an UPDATE of another
/// column passes on a value that violates them, so they wait for the end.
async fn unproved_domains(target: &Session, names: &[&TableName]) -> Result<Vec<Removal>, SchemaError> {
    let ours = named::oids();
    let sql = format!(
        "SELECT n.nspname::text, t.typname::text, k.conname::text, pg_catalog.pg_get_constraintdef(k.oid), \
            pg_catalog.obj_description(k.oid, 'pg_constraint') \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_type t ON t.oid = k.contypid \
         JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
         WHERE k.contype = 'c' AND NOT k.convalidated AND EXISTS (SELECT FROM pg_catalog.pg_attribute a \
            WHERE a.atttypid = t.oid AND NOT a.attisdropped AND a.attrelid IN {ours}) ORDER BY 1, 2, 3"
    );
    let removal = |row: &Row| {
        let domain = TableName { schema: row.take(0)?, name: row.take(1)? };
        let (name, definition) = (ident(row.take(2)?), row.take::<&str>(3)?);
        let comment = with_comment(&format!("{name} ON DOMAIN {}", domain.sql()), row.take(4)?);
        let add = format!("ALTER DOMAIN {} ADD CONSTRAINT {name} {definition};{comment}", domain.sql());
        let none = TableName::new(domain.schema.clone(), "");
        let object = format!("constraint {name} of domain {domain}");
        Ok(Removal {
            deferred: vec![deferred(DeferredKind::Other, (&none, Follows::Nothing), object, add)],
            sql: format!("ALTER DOMAIN {} DROP CONSTRAINT {name}", domain.sql()),
        })
    };
    let rows = query(target, names, &sql, "list the constraints of domains that are not valid").await?;
    Ok(rows.iter().map(removal).collect::<Result<_, DbError>>()?)
}

/// Row security that is forced upon the owner, whom we are or belong to: with it in force
/// our statements are refused.
async fn forced_row_security(target: &Session, names: &[&TableName]) -> Result<Vec<Removal>, SchemaError> {
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, c.oid FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relforcerowsecurity AND pg_catalog.row_security_active(c.oid) AND pg_catalog.pg_has_role(c.relowner, 'USAGE') \
            AND c.oid IN {} ORDER BY 1, 2",
        named::oids()
    );
    let removal = |row: &Row| {
        let table = TableName { schema: row.take(0)?, name: row.take(1)? };
        let only = format!("ALTER TABLE ONLY {}", table.sql());
        let of = (&table, Follows::Target { table: row.take(2)?, referenced: None });
        let force = format!("{only}{FORCE}");
        Ok(Removal {
            deferred: vec![deferred(DeferredKind::Other, of, format!("forced row security of {table}"), force)],
            sql: format!("{only} NO{}", FORCE.trim_end_matches(';')),
        })
    };
    let rows = query(target, names, &sql, "list the tables with forced row security").await?;
    Ok(rows.iter().map(removal).collect::<Result<_, DbError>>()?)
}

/// Disables triggers, and then rules, and enables them again as they were: for ordinary
/// sessions, a replica's, as ours may be one, or always.
async fn switches(target: &Session, names: &[&TableName]) -> Result<Vec<Removal>, SchemaError> {
    let switch = |one: &InForce| {
        let (what, name, table) = (one.kind.as_str().to_lowercase(), ident(&one.name), &one.table);
        let of = (table, Follows::Target { table: one.table_oid, referenced: None });
        let object = format!("{what} {name} of {table}");
        Removal {
            deferred: vec![deferred(DeferredKind::Trigger, of, object, one.enable_sql())],
            sql: one.disable_sql(),
        }
    };
    let all = triggers::in_force(target, names, Fires::Somewhere).await?;
    let (triggers, rules): (Vec<&InForce>, Vec<&InForce>) = all.iter().partition(|one| one.kind == Kind::Trigger);
    Ok(triggers.into_iter().chain(rules).map(switch).collect())
}
