//! Brings the schema over: pre-data now, post-data as deferred objects.
//!
//! Invariant: one transaction on the target holds all of pre-data, the list of
//! deferred objects and the mark that the schema is ready; a crash leaves all
//! or nothing.

use std::collections::HashSet;

use futures_util::future::join_all;

use super::along::Along;
use super::archive::Entry;
use super::dump::{Dump, Patience, Scope};
use super::kind::Kind;
use super::{SchemaError, append, batch, classify, database, find_pg_dump, ownership, record, source, taken};
use crate::catalog::roles;
use crate::config::Settings;
use crate::fault::sqlstate;
use crate::membership::SourceTable;
use crate::session::{DbContext, DbError, Session};
use crate::sql::ident;
use crate::sql::printed::printed;
use crate::state::State;
use crate::state::deferred::Deferred;

/// What pg_dump sets for its entries, as far as every version knows it;
/// search_path and timeouts are the session's.
pub(super) const SETTINGS: &str = "SET LOCAL check_function_bodies = off; SET LOCAL xmloption = content; \
    SET LOCAL client_min_messages = warning; SET LOCAL standard_conforming_strings = on";

/// Statements on their way at once: few round trips for a schema of thousands,
/// and no more than `join_all` polls, and so sends, one after the other.
pub(super) const PIPELINED: usize = 30;

/// The target's major version beside the source's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Older,
    SameOrNewer,
}

/// Dumps and restores; see [`super::prepare`].
pub(super) async fn run(
    settings: &Settings,
    state: &State,
    source: &Session,
    snapshot: &str,
    tables: &[SourceTable],
) -> Result<(), SchemaError> {
    let target = state.session();
    let pg_dump = find_pg_dump(settings.pg_bin.as_deref(), source.version())?;
    source::require_extensions(source, target).await?;
    let what = (Scope::All { snapshot: Some(snapshot) }, Patience::Run);
    let mut dump = Dump::read(&pg_dump, settings, (source, target.version()), what, tables).await?;
    dump.leave_notes_on(&roles::schemas_of_others(target).await?);
    ownership::require_roles(source, target, settings.acl, tables, &dump.given.new_owners).await?;
    for along in &dump.taken.others {
        tracing::warn!("{} is left out, too, as it needs a table that the filter leaves out", along.description);
    }
    let pre_data: Vec<Entry> = dump.wanted().into_iter().cloned().collect();
    let mut objects = dump.deferred(tables, target.version());
    let of_database = database::read(settings, source, target).await?;
    for (sql, words) in &of_database.administrators {
        tracing::warn!(
            sql,
            "a property of the source's database stays behind, unless an administrator gives it: {words}"
        );
    }
    objects.extend(of_database.ours);
    classify::number(&mut objects);
    tracing::info!(pg_dump = %pg_dump.path.display(), objects = pre_data.len(), deferred = objects.len(), "restoring the schema");
    restore(state, age(source, target), &pre_data, objects).await
}

/// Brings over single tables, with their columns' sequences and others that their
/// defaults use, as far as these are not there; see [`super::add`]. What they need besides (types, functions) must be there.
pub(super) async fn add(
    settings: &Settings,
    state: &State,
    source: &Session,
    tables: &[SourceTable],
    new: &[SourceTable],
) -> Result<(), SchemaError> {
    if new.is_empty() {
        return Ok(());
    }
    let target = state.session();
    let sequences = source::sequences_of_defaults(source, target, new).await?;
    let pg_dump = find_pg_dump(settings.pg_bin.as_deref(), source.version())?;
    let what = (Scope::Tables(new, &sequences), Patience::Run);
    let mut dump = Dump::read(&pg_dump, settings, (source, target.version()), what, tables).await?;
    ownership::require_roles(source, target, settings.acl, tables, &dump.given.new_owners).await?;
    // A partition gets the indexes of a table that is there as it is attached.
    let is_joining = |table: &&SourceTable| !table.ancestors.iter().all(|a| new.iter().any(|other| other.oid == a.oid));
    let joining: Vec<u32> = new.iter().filter(is_joining).map(|table| table.oid).collect();
    dump.drop_indexes(&source::inherited_indexes(source, &joining).await?);
    let pre_data: Vec<Entry> = dump.wanted().into_iter().cloned().collect();
    let objects = dump.deferred(tables, target.version());
    let along = Along::of(&pg_dump, settings, (source, state), (tables, new)).await?;
    let taken = taken::of_tables(target, &pre_data, &objects).await?;
    if !taken.is_empty() {
        return Err(SchemaError::Taken(taken));
    }
    batch(target, &format!("BEGIN; {SETTINGS}"), "begin to create the tables").await?;
    let names = new.iter().map(|table| &table.name).chain(&sequences);
    let schemas: HashSet<&str> = names.map(|name| name.schema.as_str()).collect();
    for schema in schemas {
        if !is_there(target, schema).await? {
            let sql = format!("CREATE SCHEMA {}", ident(schema));
            batch(target, &sql, &format!("execute \"{}\"", shown(&sql))).await?;
        }
    }
    for entry in &pre_data {
        execute(target, age(source, target), entry).await.map_err(needs_more)?;
    }
    along.create(source, target).await?;
    append(state, objects).await?;
    append(state, along.objects).await?;
    state.commit("commit the tables").await?;
    tracing::info!(tables = new.len(), "created on the target");
    Ok(())
}

/// A table that is added may need more than its own sequences.
fn needs_more(error: SchemaError) -> SchemaError {
    match error {
        SchemaError::Object { kind, object, source, .. } if is_missing(&source) => {
            let advice = ": create there what it needs, as it is on the source, and run this again";
            SchemaError::Object { kind, object, advice, source }
        }
        other => other,
    }
}

pub(super) fn age(source: &Session, target: &Session) -> Age {
    if target.version() / 10_000 < source.version() / 10_000 { Age::Older } else { Age::SameOrNewer }
}

async fn restore(state: &State, age: Age, pre_data: &[Entry], mut objects: Vec<Deferred>) -> Result<(), SchemaError> {
    let target = state.session();
    let mut left = Vec::new();
    batch(target, &format!("BEGIN; {SETTINGS}"), "begin the restore of the schema").await?;
    // Runs of plain statements are sent without waiting for each other's
    // answers; the first error of a run is the one that counts.
    for run in pre_data.chunk_by(|a, b| !needs_a_look(a) && !needs_a_look(b)) {
        if let [entry] = run
            && classify::needs_superuser(entry)
        {
            if superusers(target, age, entry, &left).await? == Superusers::Left {
                left.push(classify::of_administrator(entry));
            }
            continue;
        }
        for entries in run.chunks(PIPELINED) {
            let executed = join_all(entries.iter().map(|entry| execute(target, age, entry))).await;
            executed.into_iter().collect::<Result<(), _>>()?;
        }
    }
    // Before what belongs to them.
    left.append(&mut objects);
    classify::number(&mut left);
    record(state, &left).await?;
    state.commit("commit the schema").await?;
    Ok(())
}

/// What became of an object of a superuser's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Superusers {
    /// It is there.
    Made,
    /// It is left to an administrator, and to the end.
    Left,
}

/// Creates an object of a superuser's kind, if the role may. What needs it will be
/// refused; what does not goes on without it.
async fn superusers(target: &Session, age: Age, entry: &Entry, left: &[Deferred]) -> Result<Superusers, SchemaError> {
    let savepoint = async |sql: &str| batch(target, sql, "restore what a superuser may").await;
    savepoint("SAVEPOINT walferry_superusers").await?;
    let Err(error) = execute(target, age, entry).await else {
        savepoint("RELEASE SAVEPOINT walferry_superusers").await?;
        return Ok(Superusers::Made);
    };
    match &error {
        SchemaError::Object { source, .. } if is_administrators(source, !left.is_empty()) => {
            savepoint("ROLLBACK TO SAVEPOINT walferry_superusers; RELEASE SAVEPOINT walferry_superusers").await?;
            tracing::warn!(
                object = classify::describe(entry),
                "only an administrator may create it: it waits for one until the end"
            );
            Ok(Superusers::Left)
        }
        _ => Err(error),
    }
}

/// Whether an object of an administrator's is refused for want of a right, or of
/// one that was refused before.
pub(super) fn is_administrators(error: &DbError, others_are_left: bool) -> bool {
    error.sqlstate() == Some(sqlstate::INSUFFICIENT_PRIVILEGE) || (others_are_left && is_missing(error))
}

pub(super) async fn execute(target: &Session, age: Age, entry: &Entry) -> Result<(), SchemaError> {
    let action = format!("execute \"{}\"", shown(&entry.sql));
    if entry.kind == Kind::Schema && is_there(target, &entry.name).await? {
        return Ok(());
    }
    if classify::needs_superuser(entry) && is_made(target, &entry.kind, (&entry.schema, &entry.name)).await? {
        // Somebody who may has created it beforehand, as the error asks for.
        tracing::warn!(
            kind = entry.kind.as_str(),
            object = entry.name,
            "it is on the target already and is taken as it is"
        );
        return Ok(());
    }
    batch(target, &entry.sql, &action).await.map_err(|source| refused(age, entry, source))
}

/// Whether the target is asked about it before it is executed.
pub(super) fn needs_a_look(entry: &Entry) -> bool {
    entry.kind == Kind::Schema || classify::needs_superuser(entry)
}

/// Whether an object of a superuser's kind is there. Asked beforehand, as the
/// right to create it is looked at before its name.
pub(super) async fn is_made(target: &Session, kind: &Kind, (schema, name): (&str, &str)) -> Result<bool, DbError> {
    let found = match kind {
        Kind::AccessMethod => "pg_catalog.pg_am WHERE amname = $2::text",
        Kind::Cast => {
            "pg_catalog.pg_cast WHERE pg_catalog.format('CAST (%s AS %s)', pg_catalog.format_type(castsource, NULL), \
             pg_catalog.format_type(casttarget, NULL)) = $2::text"
        }
        Kind::ForeignDataWrapper => "pg_catalog.pg_foreign_data_wrapper WHERE fdwname = $2::text",
        Kind::Function => {
            "pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1::text \
             AND pg_catalog.format('%s(%s)', p.proname, (SELECT pg_catalog.string_agg(pg_catalog.format_type(a.type, NULL), ', ' ORDER BY a.n) \
                FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY AS a (type, n))) = $2::text"
        }
        Kind::OperatorClass => {
            "pg_catalog.pg_opclass JOIN pg_catalog.pg_namespace n ON n.oid = opcnamespace WHERE n.nspname = $1::text AND opcname = $2::text"
        }
        Kind::OperatorFamily => {
            "pg_catalog.pg_opfamily JOIN pg_catalog.pg_namespace n ON n.oid = opfnamespace WHERE n.nspname = $1::text AND opfname = $2::text"
        }
        Kind::ProceduralLanguage => "pg_catalog.pg_language WHERE lanname = $2::text",
        Kind::TextSearchParser => {
            "pg_catalog.pg_ts_parser JOIN pg_catalog.pg_namespace n ON n.oid = prsnamespace WHERE n.nspname = $1::text AND prsname = $2::text"
        }
        Kind::TextSearchTemplate => {
            "pg_catalog.pg_ts_template JOIN pg_catalog.pg_namespace n ON n.oid = tmplnamespace WHERE n.nspname = $1::text AND tmplname = $2::text"
        }
        Kind::Type | Kind::ShellType => {
            "pg_catalog.pg_type JOIN pg_catalog.pg_namespace n ON n.oid = typnamespace WHERE n.nspname = $1::text AND typname = $2::text"
        }
        Kind::Transform => {
            "pg_catalog.pg_transform JOIN pg_catalog.pg_language l ON l.oid = trflang WHERE pg_catalog.format('TRANSFORM FOR %s LANGUAGE %I', \
             pg_catalog.format_type(trftype, NULL), l.lanname) = $2::text"
        }
        _ => return Ok(false),
    };
    // Both parameters have a use, whatever the kind.
    let sql = format!("SELECT $1::text IS NOT NULL AND $2::text IS NOT NULL AND EXISTS (SELECT FROM {found})");
    let action = || format!("look for {} {name}", kind.shown());
    target.query_one(&sql, &[&schema, &name]).await.during(target.side(), action())?.take(0)
}

async fn is_there(target: &Session, schema: &str) -> Result<bool, DbError> {
    let row = target
        .query_one("SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1::text)", &[&schema])
        .await
        .during(target.side(), format!("look for the schema {}", ident(schema)))?;
    row.take(0)
}

/// Characters of a statement that are worth showing: most are shorter, and the
/// beginning of the others says which they are.
const SQL_SHOWN: usize = 1000;

/// A statement, or as much of it as says which it is.
pub(crate) fn shown(sql: &str) -> String {
    let sql = printed(sql);
    match sql.char_indices().nth(SQL_SHOWN) {
        Some((end, _)) => format!("{}…", sql.get(..end).unwrap_or_default()),
        None => sql,
    }
}

/// Whether the target refused an object because something is not there that it needs.
pub fn is_missing(error: &DbError) -> bool {
    error.sqlstate().is_some_and(sqlstate::is_missing)
}

/// Whether the target refused a partition because others there overlap it.
pub fn is_overlapping(error: &DbError) -> bool {
    error.sqlstate().is_some_and(sqlstate::is_overlapping)
}

/// Whether the target refused a partition as rows of the default one belong to it.
pub fn is_held_by_default(error: &DbError) -> bool {
    error.sqlstate() == Some(sqlstate::CHECK_VIOLATION)
}

/// Whether the target refused an object because something has its name.
pub fn is_taken(error: &DbError) -> bool {
    error.sqlstate().is_some_and(sqlstate::is_already_there)
}

fn refused(age: Age, entry: &Entry, source: DbError) -> SchemaError {
    let advice = source.sqlstate().map_or("", |code| sqlstate::advice_on_creating(code, age == Age::Older));
    let schema = if entry.schema.is_empty() { String::new() } else { format!("{}.", entry.schema) };
    SchemaError::Object { kind: entry.kind.shown(), object: format!("{schema}{}", entry.name), advice, source }
}
