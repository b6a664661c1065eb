//! Brings the schema over: pre-data now, post-data as deferred objects.
//!
//! Invariant: one transaction on the target holds all of pre-data, the list of
//! deferred objects and the mark that the schema is ready; a crash leaves all
//! or nothing.

use tokio_postgres::error::SqlState;

use super::archive::{self, Entry};
use super::ownership::Given;
use super::tables::SourceTable;
use super::{SchemaError, batch, classify, find_pg_dump, older, ownership, record, source};
use crate::config::{Keep, Settings};
use crate::session::{DbContext, DbError, Session};
use crate::sql::{TableName, ident};
use crate::state::State;
use crate::state::deferred::Deferred;

/// What pg_dump sets for its entries, as far as every version knows it;
/// search_path and timeouts are the session's.
const SETTINGS: &str = "SET LOCAL check_function_bodies = off; SET LOCAL xmloption = content; \
    SET LOCAL client_min_messages = warning; SET LOCAL standard_conforming_strings = on";

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
    let left_out = source::left_out(source, tables).await?;
    let dump = async |section: &str| {
        let text = pg_dump.run(&settings.source, &arguments(settings, section, snapshot, &left_out)).await?;
        archive::split(&text)
    };
    let mut pre_data = dump("pre-data").await?;
    pre_data.iter_mut().for_each(|entry| older::rewrite(entry, target.version()));
    let mut post_data = dump("post-data").await?;
    let mut given = Given::default();
    given.take(&mut pre_data);
    given.take(&mut post_data);
    ownership::require_roles(source, target, settings.acl, tables, &given.new_owners).await?;
    drop_dangling_keys(source, tables, &mut post_data).await?;
    let mut objects = classify::deferred(&post_data, &source::partitioned(tables), target.version());
    objects.extend(source::refreshes(source, &left_out).await?);
    objects.extend(given.into_objects());
    classify::number(&mut objects);
    tracing::info!(pg_dump = %pg_dump.path.display(), objects = pre_data.len(), deferred = objects.len(), "restoring the schema");
    restore(state, &pre_data, &objects).await
}

fn arguments(settings: &Settings, section: &str, snapshot: &str, left_out: &[TableName]) -> Vec<String> {
    let mut args =
        vec![format!("--section={section}"), format!("--snapshot={snapshot}"), "--exclude-schema=walferry".to_owned()];
    // Tablespaces are folders of the other server's machine.
    let flags = ["--no-publications", "--no-subscriptions", "--no-tablespaces"];
    args.extend(flags.map(str::to_owned));
    let unwanted = [(settings.owners, "--no-owner"), (settings.acl, "--no-acl")];
    args.extend(unwanted.iter().filter(|(keep, _)| *keep == Keep::No).map(|(_, flag)| (*flag).to_owned()));
    // Quoted parts of a pattern are taken literally.
    args.extend(left_out.iter().map(|name| format!("--exclude-table={}", name.sql())));
    args
}

/// A key to a table that the filter leaves out has nothing to point to.
async fn drop_dangling_keys(
    source: &Session,
    tables: &[SourceTable],
    post_data: &mut Vec<Entry>,
) -> Result<(), SchemaError> {
    let dangling = source::keys_to_left_out(source, tables).await?;
    post_data.retain(|entry| {
        let is_dangling =
            entry.kind == "FK CONSTRAINT" && dangling.contains(&(entry.schema.clone(), entry.name.clone()));
        if is_dangling {
            tracing::warn!(
                schema = entry.schema,
                key = entry.name,
                "a foreign key to a table that the filter leaves out is left out, too"
            );
        }
        !is_dangling
    });
    Ok(())
}

async fn restore(state: &State, pre_data: &[Entry], objects: &[Deferred]) -> Result<(), SchemaError> {
    let target = state.session();
    batch(target, &format!("BEGIN; {SETTINGS}"), "begin the restore of the schema").await?;
    for entry in pre_data.iter().filter(|entry| classify::is_wanted(entry)) {
        if entry.kind == "SCHEMA" && is_there(target, &entry.name).await? {
            continue;
        }
        let action = format!("execute \"{}\"", first_line(&entry.sql));
        batch(target, &entry.sql, &action).await.map_err(|source| refused(entry, source))?;
    }
    record(state, objects).await?;
    batch(target, "COMMIT", "commit the schema").await?;
    Ok(())
}

async fn is_there(target: &Session, schema: &str) -> Result<bool, DbError> {
    let row = target
        .query_one("SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1::text)", &[&schema])
        .await
        .during(target.side(), format!("look for the schema {}", ident(schema)))?;
    Ok(row.get(0))
}

fn first_line(sql: &str) -> &str {
    sql.lines().next().unwrap_or_default()
}

fn refused(entry: &Entry, source: DbError) -> SchemaError {
    let advice = match source.sqlstate() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            ": the role may not; have an administrator of the target create it and start again, \
             or grant the role what is missing"
        }
        Some(
            &SqlState::DUPLICATE_TABLE
            | &SqlState::DUPLICATE_OBJECT
            | &SqlState::DUPLICATE_FUNCTION
            | &SqlState::DUPLICATE_SCHEMA,
        ) => ": it exists already; use --schema existing, or start with an empty database",
        Some(&SqlState::OUT_OF_MEMORY) => {
            ": if the server speaks of locks, raise max_locks_per_transaction on the target: the schema is restored in one transaction"
        }
        _ => "",
    };
    let schema = if entry.schema.is_empty() { String::new() } else { format!("{}.", entry.schema) };
    SchemaError::Object { kind: entry.kind.to_lowercase(), object: format!("{schema}{}", entry.name), advice, source }
}
