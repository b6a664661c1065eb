//! A schema that exists on the target: its foreign keys are dropped and its
//! triggers and rules disabled until the end; CHECK constraints that are NOT VALID
//! are dropped until the rows are there, those of domains until the end.
//!
//! Invariant: everything is recorded with the SQL that brings it back, in the
//! transaction that takes it away. Source: an ordinary owner may `DISABLE
//! TRIGGER USER` but not `ALL` (`ATExecEnableDisableTrigger`, `EnableDisableTrigger`).

use super::{SchemaError, append, batch, classify, record, tables};
use crate::catalog::tables::by_name;
use crate::config::Baseline;
use crate::membership::placement::Hierarchy;
use crate::membership::{Part, SourceTable};
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
    let included = || tables.iter().filter(|table| matches!(table.part, Part::Included | Part::Unlogged));
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
    if !has_an_end_begun(&listed) {
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
    let sql = format!(
        "WITH RECURSIVE up (oid) AS (SELECT c.oid FROM pg_catalog.pg_class c WHERE c.oid IN {OURS} UNION \
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
    removals.extend(switches(target, names, TRIGGERS, "TRIGGER").await?);
    removals.extend(switches(target, names, RULES, "RULE").await?);
    // Validations come after all keys: numbers are given in this order.
    let (first, last): (Vec<_>, Vec<_>) =
        removals.iter().flat_map(|r| r.deferred.iter().cloned()).partition(|d| !d.object.starts_with("validation of "));
    for removal in &removals {
        batch(target, &removal.sql, &format!("execute \"{}\"", removal.sql)).await?;
    }
    Ok(first.into_iter().chain(last).collect())
}

/// The relations of these names: parameters $1 and $2 are schemas and names.
const OURS: &str = "(SELECT c.oid FROM unnest($1::text[], $2::text[]) AS t (schema, name) \
    JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema \
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.name)";

async fn query(target: &Session, names: &[&TableName], sql: &str, action: &str) -> Result<Vec<Row>, SchemaError> {
    let (schemas, tables): (Vec<&str>, Vec<&str>) = names.iter().map(|t| (t.schema.as_str(), t.name.as_str())).unzip();
    Ok(target.query(sql, &[&schemas, &tables]).await.during(target.side(), action)?)
}

fn deferred(kind: DeferredKind, (table, follows): (&TableName, Follows), object: String, sql: String) -> Deferred {
    Deferred { ordinal: 0, kind, table: table.clone(), object, sql, is_restored: false, follows }
}

/// What brings a comment back, on a line behind what it is about.
fn with_comment(on: &str, comment: Option<&str>) -> String {
    comment.map_or_else(String::new, |text| format!("\nCOMMENT ON CONSTRAINT {on} IS {};", literal(text)))
}

/// The foreign keys of these tables and to them. One whose triggers somebody has
/// disabled, which only a superuser can, is not in force and stays.
async fn foreign_keys(target: &Session, names: &[&TableName], keys: Keys) -> Result<Vec<Removal>, SchemaError> {
    let meant = match keys {
        Keys::All => "true",
        Keys::Acting => "(k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))",
    };
    let top = if target.version() >= 110_000 { "k.conparentid = 0" } else { "true" };
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, k.conname::text, pg_catalog.pg_get_constraintdef(k.oid), k.convalidated, c.relkind = 'p', \
            pg_catalog.obj_description(k.oid, 'pg_constraint'), k.conrelid, k.confrelid \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype = 'f' AND {top} AND {meant} AND (k.conrelid IN {OURS} OR k.confrelid IN {OURS}) \
            AND NOT coalesce((SELECT pg_catalog.bool_and(g.tgenabled = 'D') FROM pg_catalog.pg_trigger g WHERE g.tgconstraint = k.oid), false) \
         ORDER BY 1, 2, 3"
    );
    let version = target.version();
    let rows = query(target, names, &sql, "list the foreign keys").await?;
    Ok(rows.iter().map(|row| foreign_key(row, version)).collect::<Result<_, DbError>>()?)
}

fn foreign_key(row: &Row, version: i32) -> Result<Removal, DbError> {
    let table = TableName { schema: row.take(0)?, name: row.take(1)? };
    let (name, definition) = (ident(row.take(2)?), row.take::<&str>(3)?);
    let object = format!("foreign key {name} of {table}");
    let of = (&table, Follows::Target { table: row.take(7)?, referenced: Some(row.take(8)?) });
    let comment = with_comment(&format!("{name} ON {}", table.sql()), row.take(6)?);
    let add = format!("ALTER TABLE {} ADD CONSTRAINT {name} {definition}", table.sql());
    let partitioned_now = row.take(5)? && version < classify::PARTITIONED_NOT_VALID;
    let deferred = if row.take(4)? && !partitioned_now {
        let validate = format!("ALTER TABLE {} VALIDATE CONSTRAINT {name};", table.sql());
        vec![
            deferred(DeferredKind::ForeignKey, of, object.clone(), format!("{add} NOT VALID;{comment}")),
            deferred(DeferredKind::ForeignKey, of, format!("validation of {object}"), validate),
        ]
    } else {
        vec![deferred(DeferredKind::ForeignKey, of, object, format!("{add};{comment}"))]
    };
    Ok(Removal { deferred, sql: format!("ALTER TABLE {} DROP CONSTRAINT {name}", table.sql()) })
}

/// CHECK constraints that are NOT VALID, those of parents before the children's
/// own. They go to the children as well, so they are of no single table.
async fn unproved_checks(target: &Session, names: &[&TableName]) -> Result<Vec<Removal>, SchemaError> {
    let enforced = if target.version() >= 180_000 { "k.conenforced" } else { "true" };
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, k.conname::text, pg_catalog.pg_get_constraintdef(k.oid), \
            pg_catalog.obj_description(k.oid, 'pg_constraint'), c.oid \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE k.contype = 'c' AND NOT k.convalidated AND {enforced} AND k.conislocal AND k.conrelid IN {OURS} \
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
    let sql = format!(
        "SELECT n.nspname::text, t.typname::text, k.conname::text, pg_catalog.pg_get_constraintdef(k.oid), \
            pg_catalog.obj_description(k.oid, 'pg_constraint') \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_type t ON t.oid = k.contypid \
         JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
         WHERE k.contype = 'c' AND NOT k.convalidated AND EXISTS (SELECT FROM pg_catalog.pg_attribute a \
            WHERE a.atttypid = t.oid AND NOT a.attisdropped AND a.attrelid IN {OURS}) ORDER BY 1, 2, 3"
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

/// Triggers that are in force, with the letter that says when.
const TRIGGERS: &str = "SELECT n.nspname::text, c.relname::text, g.tgname::text, g.tgenabled, c.oid FROM pg_catalog.pg_trigger g \
     JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE NOT g.tgisinternal AND g.tgenabled IN ('O', 'A') AND c.oid IN ";

/// The same of rules.
const RULES: &str = "SELECT n.nspname::text, c.relname::text, r.rulename::text, r.ev_enabled, c.oid FROM pg_catalog.pg_rewrite r \
     JOIN pg_catalog.pg_class c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE r.rulename <> '_RETURN' AND r.ev_enabled IN ('O', 'A') AND c.oid IN ";

/// Disables triggers or rules, and enables them again as they were: for every
/// session, or always.
async fn switches(target: &Session, names: &[&TableName], sql: &str, what: &str) -> Result<Vec<Removal>, SchemaError> {
    let switch = |row: &Row| {
        let table = TableName { schema: row.take(0)?, name: row.take(1)? };
        let name = ident(row.take(2)?);
        let always = if row.take::<i8>(3)? == b'A' as i8 { " ALWAYS" } else { "" };
        let enable = format!("ALTER TABLE ONLY {} ENABLE{always} {what} {name};", table.sql());
        let object = format!("{} {name} of {table}", what.to_lowercase());
        let of = (&table, Follows::Target { table: row.take(4)?, referenced: None });
        Ok(Removal {
            deferred: vec![deferred(DeferredKind::Trigger, of, object, enable)],
            sql: format!("ALTER TABLE ONLY {} DISABLE {what} {name}", table.sql()),
        })
    };
    let sql = format!("{sql}{OURS} ORDER BY 1, 2, 3");
    let rows = query(target, names, &sql, &format!("list the {}s", what.to_lowercase())).await?;
    Ok(rows.iter().map(switch).collect::<Result<_, DbError>>()?)
}
