//! The publication: all tables where the role may, else the list of tables,
//! else one that the owner of the tables has made.
//!
//! Invariant: nothing is published whose UPDATE and DELETE the source would
//! then refuse, and every table of the migration is published before the slot
//! exists.
//!
//! Source: `src/backend/commands/publicationcmds.c` (who may do what),
//! `CheckCmdReplicaIdentity` in `src/backend/executor/execReplication.c`.

use std::collections::HashSet;

use tokio_postgres::error::SqlState;

use super::{CopyContext, CopyError};
use crate::catalog;
use crate::config::Provenance;
use crate::schema::tables::{self, Part, Shape, SourceTable};
use crate::session::{DbContext, DbError, Session};
use crate::sql::{TableName, ident};
use crate::state::migration::AllTables;

/// Makes sure that every table of the migration is published, changes of every
/// kind, and records whether tables to come are, too.
///
/// # Errors
/// [`CopyError::ReplicaIdentity`] before anything is published;
/// [`CopyError::Publication`] with the SQL for the owner of the tables.
pub(super) async fn ensure(ctx: &CopyContext<'_>, source: &Session) -> Result<(), CopyError> {
    let tables = tables::of_source(source, &ctx.settings.filter).await?;
    refuse_without_identity(source, &tables).await?;
    name_what_is_not_carried(&tables);
    let publication = &ctx.settings.publication;
    let all = match (publication, find(source, publication.name()).await?) {
        (_, Some(found)) => {
            use_existing(source, publication, &found, &tables).await?;
            found.all_tables
        }
        (Provenance::Ours(name), None) => create(ctx, source, name, &tables).await?,
        (Provenance::Existing(name), None) => {
            let sql = create_sql(name, &tables);
            return Err(CopyError::Publication { name: name.clone(), problem: "does not exist".to_owned(), sql });
        }
    };
    ctx.state.set_publishes_all_tables(all).await?;
    Ok(())
}

/// What a publication publishes.
struct Found {
    all_tables: AllTables,
    /// Kinds of changes that are left out.
    lacks: Vec<&'static str>,
}

async fn find(source: &Session, name: &str) -> Result<Option<Found>, DbError> {
    let truncate = if source.version() >= 110_000 { "pubtruncate" } else { "true" };
    let sql = format!(
        "SELECT puballtables, pubinsert, pubupdate, pubdelete, {truncate} FROM pg_catalog.pg_publication WHERE pubname = $1::text"
    );
    let rows = source.query(&sql, &[&name]).await.during(source.side(), "look for the publication")?;
    Ok(rows.first().map(|row| Found {
        all_tables: if row.get(0) { AllTables::Yes } else { AllTables::No },
        lacks: (1..)
            .zip(["insert", "update", "delete", "truncate"])
            .filter(|(n, _)| !row.get::<_, bool>(*n))
            .map(|(_, what)| what)
            .collect(),
    }))
}

async fn use_existing(
    source: &Session,
    publication: &Provenance,
    found: &Found,
    tables: &[SourceTable],
) -> Result<(), CopyError> {
    let name = publication.name();
    let quoted = ident(name);
    if !found.lacks.is_empty() {
        return Err(CopyError::Publication {
            name: name.to_owned(),
            problem: format!("does not publish {}", found.lacks.join(", ")),
            sql: format!("ALTER PUBLICATION {quoted} SET (publish = 'insert, update, delete, truncate');"),
        });
    }
    let published = published(source, name).await?;
    let is_covered = |table: &SourceTable| {
        published.contains(&table.name) || table.ancestors.iter().any(|ancestor| published.contains(ancestor))
    };
    let missing: Vec<&SourceTable> =
        tables.iter().filter(|t| t.part == Part::Included && t.shape == Shape::Plain && !is_covered(t)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = missing.iter().map(|table| table.name.sql()).collect();
    let sql = format!("ALTER PUBLICATION {quoted} ADD TABLE {}", list.join(", "));
    let names: Vec<TableName> = missing.iter().map(|table| table.name.clone()).collect();
    let problem = format!(
        "does not publish {} (leave out with --exclude-tables what you do not need)",
        super::error::list(&names)
    );
    let refused = || CopyError::Publication { name: name.to_owned(), problem, sql: format!("{sql};") };
    match publication {
        Provenance::Existing(_) => Err(refused()),
        Provenance::Ours(_) => execute(source, &sql, "add tables to the publication", refused).await,
    }
}

/// How long the lock on a table that is published waits for its writers: they
/// wait behind it.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '5s'";

/// The first releases in which a publication may change beside writes without
/// loss: from 13.21, 14.18, 15.13, 16.9 and 17.5 on.
const CHANGES_BESIDE_WRITES: [(i32, i32); 5] = [(13, 21), (14, 18), (15, 13), (16, 9), (17, 5)];

/// Whether a server that decodes a transaction which wrote to a table before it
/// was published, and goes on after, takes the table for not published from then
/// on ("Fix data loss in logical replication", release notes of 17.5).
fn loses_changes(version: i32) -> bool {
    let (major, minor) = (version / 10_000, version % 10_000);
    CHANGES_BESIDE_WRITES.iter().find(|(fixed, _)| *fixed == major).map_or(major < 13, |(_, first)| minor < *first)
}

/// Publishes tables that come later than the others, if they are not; returns
/// those it has added. No transaction is writing to them at that moment, for
/// the sake of servers that lose changes otherwise.
///
/// # Errors
/// As [`ensure`]; a lock that is not had in time is retried.
pub(super) async fn include(
    ctx: &CopyContext<'_>,
    source: &Session,
    tables: &[SourceTable],
) -> Result<Vec<TableName>, CopyError> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    refuse_without_identity(source, tables).await?;
    let name = ctx.settings.publication.name();
    let Some(found) = find(source, name).await? else {
        let sql = create_sql(name, &tables::of_source(source, &ctx.settings.filter).await?);
        return Err(CopyError::Publication { name: name.to_owned(), problem: "does not exist".to_owned(), sql });
    };
    if found.all_tables == AllTables::Yes {
        return Ok(Vec::new());
    }
    let published = published(source, name).await?;
    let is_covered = |table: &SourceTable| {
        published.contains(&table.name) || table.ancestors.iter().any(|ancestor| published.contains(ancestor))
    };
    // A partitioned table brings its partitions, those to come included.
    let has_parent = |table: &SourceTable| tables.iter().any(|parent| table.ancestors.contains(&parent.name));
    let missing: Vec<&SourceTable> = tables.iter().filter(|table| !is_covered(table) && !has_parent(table)).collect();
    if !missing.is_empty() {
        let names: Vec<String> = missing.iter().map(|table| table.name.sql()).collect();
        let sql = locked(name, missing.iter().copied(), &format!("ADD TABLE {}", names.join(", ")));
        let list: Vec<TableName> = missing.iter().map(|table| table.name.clone()).collect();
        let refused = || CopyError::Publication {
            name: name.to_owned(),
            problem: format!("does not publish {}", super::error::list(&list)),
            sql: format!("BEGIN; {sql};"),
        };
        change(source, &sql, "add tables to the publication", refused).await?;
        tracing::info!(publication = name, tables = %super::error::list(&list), "added to the publication");
        return Ok(list);
    }
    Ok(Vec::new())
}

/// Tables that somebody else has published after the slot was created: a server
/// that may not have noticed it is made to look again, or the operator is told.
///
/// # Errors
/// A lock that is not had in time is retried.
pub(super) async fn notice(ctx: &CopyContext<'_>, source: &Session, tables: &[SourceTable]) -> Result<(), CopyError> {
    let name = ctx.settings.publication.name();
    let is_listed = find(source, name).await?.is_some_and(|found| found.all_tables == AllTables::No);
    if tables.is_empty() || !is_listed || !loses_changes(source.version()) {
        return Ok(());
    }
    // Changes nothing but what the server remembers of the publication.
    let sql = locked(name, tables.iter(), "SET (publish = 'insert, update, delete, truncate')");
    let refused = || CopyError::Publication { name: name.to_owned(), problem: String::new(), sql: String::new() };
    match change(source, &sql, "have the publication noticed", refused).await {
        Err(CopyError::Publication { .. }) => {
            tracing::warn!(
                publication = name,
                "this release of PostgreSQL may lose changes of a table that is published while it is written to; if the \
                 table was not locked then, let the owner run: BEGIN; {sql};"
            );
            Ok(())
        }
        result => result,
    }
}

/// A change of the publication that waits for the writers of these tables.
fn locked<'t>(publication: &str, tables: impl Iterator<Item = &'t SourceTable>, change: &str) -> String {
    let names: Vec<String> = tables.map(|table| table.name.sql()).collect();
    let names = names.join(", ");
    let publication = ident(publication);
    format!("LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE; ALTER PUBLICATION {publication} {change}; COMMIT")
}

/// Changes the publication in a transaction that is rolled back when refused.
async fn change(
    source: &Session,
    sql: &str,
    action: &str,
    refused: impl FnOnce() -> CopyError,
) -> Result<(), CopyError> {
    let changed = execute(source, &format!("BEGIN; {LOCK_TIMEOUT}; {sql}"), action, refused).await;
    if changed.is_err() {
        source.batch_execute("ROLLBACK").await.during(source.side(), action)?;
    }
    changed
}

/// Takes tables that [`include`] has added out of the publication again.
///
/// # Errors
/// When the source refuses it.
pub(super) async fn take_out(ctx: &CopyContext<'_>, source: &Session, added: &[TableName]) -> Result<(), CopyError> {
    if added.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = added.iter().map(TableName::sql).collect();
    let sql = format!("ALTER PUBLICATION {} DROP TABLE {}", ident(ctx.settings.publication.name()), names.join(", "));
    source.batch_execute(&sql).await.during(source.side(), "take tables out of the publication again")?;
    Ok(())
}

/// The tables a publication publishes; partitions or their roots, as it says.
async fn published(source: &Session, name: &str) -> Result<HashSet<TableName>, DbError> {
    let rows = source
        .query(
            "SELECT schemaname::text, tablename::text FROM pg_catalog.pg_publication_tables WHERE pubname = $1::text",
            &[&name],
        )
        .await
        .during(source.side(), "read what is published")?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))).collect())
}

/// Creates the publication; which it is is recorded before it is there for
/// others, so that it is known as ours wherever this is cut off.
async fn create(
    ctx: &CopyContext<'_>,
    source: &Session,
    name: &str,
    tables: &[SourceTable],
) -> Result<AllTables, CopyError> {
    let all = if may_publish_all(source, tables).await? { AllTables::Yes } else { AllTables::No };
    let sql = match all {
        AllTables::Yes => format!("CREATE PUBLICATION {} FOR ALL TABLES", ident(name)),
        AllTables::No => create_sql(name, tables),
    };
    let refused = || CopyError::Publication {
        name: name.to_owned(),
        problem: "does not exist, and this role may not create it".to_owned(),
        sql: create_sql(name, tables),
    };
    let action = "create the publication";
    execute(source, &format!("BEGIN; {sql}"), action, refused).await?;
    let oid = "SELECT oid FROM pg_catalog.pg_publication WHERE pubname = $1::text";
    let oid = source.query_one(oid, &[&name]).await.during(source.side(), action)?.take(0)?;
    ctx.state.set_publication_oid(oid).await?;
    source.batch_execute("COMMIT").await.during(source.side(), action)?;
    tracing::info!(publication = name, all_tables = (all == AllTables::Yes), "created the publication");
    Ok(all)
}

/// All tables only as a superuser, without a filter, and unless that would
/// break the updates of an extension's own table.
async fn may_publish_all(source: &Session, tables: &[SourceTable]) -> Result<bool, CopyError> {
    if !catalog::roles::current(source).await?.is_superuser || tables.iter().any(|table| table.part == Part::Filtered) {
        return Ok(false);
    }
    let extension: Vec<&SourceTable> = tables.iter().filter(|table| table.part == Part::OfExtension).collect();
    Ok(without_identity(source, &extension).await?.is_empty())
}

/// The statement that publishes the list of tables: a partitioned table stands
/// for its partitions, those to come included.
fn create_sql(name: &str, tables: &[SourceTable]) -> String {
    let included: HashSet<&TableName> =
        tables.iter().filter(|table| table.part == Part::Included).map(|table| &table.name).collect();
    let list: Vec<String> = tables
        .iter()
        .filter(|table| table.part == Part::Included && !table.ancestors.iter().any(|a| included.contains(a)))
        .map(|table| table.name.sql())
        .collect();
    let tables = if list.is_empty() { String::new() } else { format!(" FOR TABLE {}", list.join(", ")) };
    format!("CREATE PUBLICATION {}{tables};", ident(name))
}

/// Executes a statement; `refused` is the error where the role may not.
async fn execute(
    source: &Session,
    sql: &str,
    action: &str,
    refused: impl FnOnce() -> CopyError,
) -> Result<(), CopyError> {
    match source.batch_execute(sql).await.during(source.side(), action) {
        Err(error) if error.sqlstate() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Err(refused()),
        result => Ok(result?),
    }
}

async fn refuse_without_identity(source: &Session, tables: &[SourceTable]) -> Result<(), CopyError> {
    let included: Vec<&SourceTable> = tables.iter().filter(|table| table.part == Part::Included).collect();
    let without = without_identity(source, &included).await?;
    if without.is_empty() {
        return Ok(());
    }
    let sql = without
        .iter()
        .map(|(table, index)| match index {
            Some(index) => format!("ALTER TABLE {} REPLICA IDENTITY USING INDEX {};", table.sql(), ident(index)),
            None => format!("ALTER TABLE {} REPLICA IDENTITY FULL;", table.sql()),
        })
        .collect();
    Err(CopyError::ReplicaIdentity { tables: without.into_iter().map(|(table, _)| table).collect(), sql })
}

/// Tables without a usable replica identity, each with a unique index that
/// could be one.
async fn without_identity(
    source: &Session,
    tables: &[&SourceTable],
) -> Result<Vec<(TableName, Option<String>)>, DbError> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let rows = source
        .query(
            "SELECT n.nspname::text, c.relname::text, (SELECT min(i.relname::text) FROM pg_catalog.pg_index x \
                JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid AND x.indisunique \
                AND x.indimmediate AND x.indisvalid AND x.indpred IS NULL AND x.indexprs IS NULL AND NOT EXISTS \
                (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (x.indkey::int2[]) AND NOT a.attnotnull)) \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.oid = ANY ($1::oid[]) AND c.relkind = 'r' AND c.relreplident <> 'f' \
                AND pg_catalog.pg_get_replica_identity_index(c.oid) IS NULL ORDER BY 1, 2",
            &[&oids],
        )
        .await
        .during(source.side(), "look for tables without a replica identity")?;
    Ok(rows.iter().map(|row| (TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1)), row.get(2))).collect())
}

fn name_what_is_not_carried(tables: &[SourceTable]) {
    for table in tables.iter().filter(|table| table.part == Part::Unlogged) {
        tracing::warn!(table = %table.name, "the rows of this unlogged table are in no stream; catchup --finish copies them");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_releases_that_lose_changes_beside_a_change_of_the_publication_are_known() {
        for (version, loses) in [
            (120_022, true),
            (130_020, true),
            (130_021, false),
            (140_017, true),
            (150_012, true),
            (150_013, false),
            (160_009, false),
            (170_004, true),
            (170_005, false),
            (180_000, false),
        ] {
            assert_eq!(loses_changes(version), loses, "{version}");
        }
    }
}
