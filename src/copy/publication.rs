//! The publication: the list of tables, all tables where that is asked for, or one
//! that the owner of the tables has made.
//!
//! Invariant: nothing is published whose UPDATE and DELETE the source would
//! then refuse, and every table of the migration is published before the slot
//! exists. What has to be published, and what is lacking, is decided in
//! [`crate::membership::publishing`].
//!
//! Source: `src/backend/commands/publicationcmds.c` (who may do what).

use tokio_postgres::error::SqlState;

use super::{CopyContext, CopyError};
use crate::catalog::publication::AllTables;
use crate::catalog::publication::{self, Publication};
use crate::catalog::tables as catalog_tables;
use crate::config::{Provenance, PublishWhat};
use crate::membership::publishing::{self, Lack};
use crate::membership::{self, Part, SourceTable};
use crate::session::{DbContext, Session};
use crate::sql::{TableName, ident};

/// Makes sure that every table of the migration is published, changes of every
/// kind, and records whether tables to come are, too.
///
/// # Errors
/// [`CopyError::ReplicaIdentity`] before anything is published;
/// [`CopyError::Publication`] with the SQL for the owner of the tables.
pub(super) async fn ensure(ctx: &CopyContext<'_>, source: &Session) -> Result<(), CopyError> {
    let tables = ctx.tables(source).await?;
    refuse_unmatched(ctx, source, &tables).await?;
    name_what_is_not_carried(&tables);
    let name = ctx.settings.publication.name();
    let wanted = match ctx.settings.publish {
        PublishWhat::AllTables => AllTables::Yes,
        PublishWhat::Listed => AllTables::No,
    };
    let all = match publication::find(source, &[name]).await?.pop() {
        Some(found) => {
            refuse_without_identity(&tables, found.all_tables)?;
            use_existing(ctx, source, &found, &tables).await?;
            found.all_tables
        }
        None => {
            refuse_without_identity(&tables, wanted)?;
            create(ctx, source, &tables, wanted).await?;
            wanted
        }
    };
    ctx.state.set_publishes_all_tables(all).await?;
    Ok(())
}

async fn use_existing(
    ctx: &CopyContext<'_>,
    source: &Session,
    found: &Publication,
    tables: &[SourceTable],
) -> Result<(), CopyError> {
    let name = found.name.as_str();
    let published = publication::tables(source, &[name]).await?;
    for lack in publishing::lacks(std::slice::from_ref(found), &published, tables, ctx.settings.schema) {
        let sql = lack.sql(name);
        let refused = || CopyError::Publication { name: name.to_owned(), problem: lack.to_string(), sql: sql.clone() };
        match (&lack, &ctx.settings.publication) {
            (Lack::Tables { .. }, Provenance::Ours(_)) => {
                execute(source, &sql, "add tables to the publication", refused).await?;
            }
            _ => return Err(refused()),
        }
    }
    Ok(())
}

/// Creates the publication; which it is is recorded before it is there for
/// others, so that it is known as ours wherever this is cut off.
async fn create(
    ctx: &CopyContext<'_>,
    source: &Session,
    tables: &[SourceTable],
    all: AllTables,
) -> Result<(), CopyError> {
    let name = ctx.settings.publication.name();
    let sql = publishing::create_sql(name, tables, all);
    let refused =
        |problem: &str| CopyError::Publication { name: name.to_owned(), problem: problem.to_owned(), sql: sql.clone() };
    if let Provenance::Existing(_) = ctx.settings.publication {
        return Err(refused("does not exist"));
    }
    let may_not = || refused("does not exist, and this role may not create it");
    let action = "create the publication";
    execute(source, &format!("BEGIN; {sql}"), action, may_not).await?;
    let found = publication::find(source, &[name]).await?;
    let oid = found.first().map(|publication| publication.oid).ok_or_else(|| refused("was not created"))?;
    ctx.state.set_publication_oid(oid).await?;
    source.batch_execute("COMMIT").await.during(source.side(), action)?;
    tracing::info!(publication = name, all_tables = (all == AllTables::Yes), "created the publication");
    Ok(())
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
    let name = ctx.settings.publication.name();
    let all = ctx.tables(source).await?;
    let Some(found) = publication::find(source, &[name]).await?.pop() else {
        let sql = publishing::create_sql(name, &all, AllTables::No);
        return Err(CopyError::Publication { name: name.to_owned(), problem: "does not exist".to_owned(), sql });
    };
    let is_new = |table: &SourceTable| tables.iter().any(|new| new.oid == table.oid);
    let all = membership::letting_in(all, |oid| tables.iter().any(|new| new.oid == oid));
    let new: Vec<SourceTable> = all.iter().filter(|table| is_new(table)).cloned().collect();
    refuse_without_identity(&new, AllTables::No)?;
    if found.all_tables == AllTables::Yes {
        return Ok(Vec::new());
    }
    let published = publication::tables(source, &[name]).await?;
    let absent = publishing::uncovered(&published, &new);
    let is_wanted = |entry: &SourceTable| {
        let is_listed = published.contains_key(&entry.oid);
        !is_listed && (is_new(entry) || absent.iter().any(|table| table.is_below(entry.oid)))
    };
    let missing: Vec<(&SourceTable, String)> =
        publishing::entries(&all).into_iter().filter(|(table, _)| is_wanted(table)).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let list: Vec<TableName> = missing.iter().map(|(table, _)| table.name.clone()).collect();
    let entries: Vec<&str> = missing.iter().map(|(_, entry)| entry.as_str()).collect();
    let sql = locked(name, missing.iter().map(|(table, _)| *table), &format!("ADD TABLE {}", entries.join(", ")));
    let refused = || CopyError::Publication {
        name: name.to_owned(),
        problem: format!("does not publish {}", super::error::list(&list)),
        sql: format!("BEGIN; {sql};"),
    };
    change(source, &sql, "add tables to the publication", refused).await?;
    tracing::info!(publication = name, tables = %super::error::list(&list), "added to the publication");
    Ok(list)
}

/// Tables that somebody else has published after the slot was created: a server
/// that may not have noticed it is made to look again, or the operator is told.
///
/// # Errors
/// A lock that is not had in time is retried.
pub(super) async fn notice(ctx: &CopyContext<'_>, source: &Session, tables: &[SourceTable]) -> Result<(), CopyError> {
    let name = ctx.settings.publication.name();
    let found = publication::find(source, &[name]).await?;
    let is_listed = found.iter().any(|found| found.all_tables == AllTables::No);
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
pub(super) fn locked<'t>(publication: &str, tables: impl Iterator<Item = &'t SourceTable>, change: &str) -> String {
    let names: Vec<String> = tables.map(|table| format!("{}{}", table.only(), table.name.sql())).collect();
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

/// A pattern that fits nothing is a slip.
async fn refuse_unmatched(ctx: &CopyContext<'_>, source: &Session, tables: &[SourceTable]) -> Result<(), CopyError> {
    if ctx.settings.filter.is_empty() {
        return Ok(());
    }
    let others: Vec<TableName> = catalog_tables::others(source).await?.into_iter().map(|other| other.name).collect();
    let unmatched = membership::unmatched(&ctx.settings.filter, tables, &others);
    if unmatched.is_empty() { Ok(()) } else { Err(CopyError::Unmatched(unmatched)) }
}

fn refuse_without_identity(tables: &[SourceTable], all: AllTables) -> Result<(), CopyError> {
    let without = publishing::without_identity(tables, all);
    if without.is_empty() {
        return Ok(());
    }
    let (tables, sql) = without.into_iter().map(|(table, sql)| (table.name.clone(), sql)).unzip();
    Err(CopyError::ReplicaIdentity { tables, sql })
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
