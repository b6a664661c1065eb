//! The publication: the list of tables, all tables where that is asked for, or those
//! that the owner of the tables has made.
//!
//! Invariant: nothing is published whose UPDATE and DELETE the source would
//! then refuse, and every table of the migration is published before the slot
//! exists. What has to be published, and what is lacking, is decided in
//! [`crate::membership::publishing`].
//!
//! Source: `src/backend/commands/publicationcmds.c` (who may do what).

use std::collections::{HashMap, HashSet};

use super::{CopyContext, CopyError};
use crate::catalog::publication::{self, AllTables, Publication, Published};
use crate::catalog::{strangers, tables as catalog_tables};
use crate::config::{Publications, PublishWhat};
use crate::fault::sqlstate;
use crate::membership::publishing::{self, Lack};
use crate::membership::{self, Part, SourceTable, row_filters};
use crate::session::{DbContext, Session};
use crate::sql::{TableName, ident, shown};
use crate::state::tables::TableRow;
use crate::state::{SCHEMA, TABLES};
use crate::words;

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
    let found = publication::find(source, ctx.settings.publications.names()).await?;
    let all = match (&ctx.settings.publications, found.as_slice()) {
        (Publications::Ours(name), []) => {
            let wanted = match ctx.settings.publish {
                PublishWhat::AllTables => AllTables::Yes,
                PublishWhat::Listed => AllTables::No,
            };
            refuse_without_identity(&tables, wanted, &HashMap::new())?;
            create(ctx, source, name, &tables, wanted).await?;
            wanted
        }
        (_, found) => {
            let all = publication::all_tables(found);
            let published = publication::tables(source, ctx.settings.publications.names()).await?;
            refuse_without_identity(&tables, all, &published)?;
            use_existing(ctx, source, found, &tables).await?;
            all
        }
    };
    ctx.state.set_publishes_all_tables(all).await?;
    Ok(())
}

async fn use_existing(
    ctx: &CopyContext<'_>,
    source: &Session,
    found: &[Publication],
    tables: &[SourceTable],
) -> Result<(), CopyError> {
    let published = publication::tables(source, ctx.settings.publications.names()).await?;
    refuse_absent(ctx, source, tables, &published).await?;
    refuse_filtered(ctx, found, &published, (tables, &[])).await?;
    let created = created(ctx).await?;
    for lack in publishing::lacks(found, &published, tables, ctx.settings.schema) {
        let refused = || refused(ctx, &lack);
        match &lack {
            Lack::Tables { .. } if publishing::are_created_by_us(found, created) => {
                execute(source, &lack.sql(), "add tables to the publication", refused).await?;
            }
            Lack::Tables { .. } if matches!(ctx.settings.publications, Publications::Ours(_)) => {
                let problem = format!(
                    "{}, and this migration has not created it (with another --name it creates one of its own)",
                    lack.said(&ctx.settings.publications)
                );
                return Err(CopyError::Publication { problem, sql: lack.sql() });
            }
            _ => return Err(refused()),
        }
    }
    Ok(())
}

/// The publication that this migration created.
async fn created(ctx: &CopyContext<'_>) -> Result<Option<u32>, CopyError> {
    Ok(ctx.state.load().await?.and_then(|migration| migration.publication_oid))
}

/// Refuses tables that must not be copied by the row filter that they are published
/// with, or of which values would be left out by it; `rows` is what they were read or are to be read by.
async fn refuse_filtered(
    ctx: &CopyContext<'_>,
    found: &[Publication],
    published: &HashMap<u32, Published>,
    (tables, rows): (&[SourceTable], &[TableRow]),
) -> Result<(), CopyError> {
    let is_ours = publishing::are_created_by_us(found, created(ctx).await?);
    if let Some(filter) = row_filters::refused(tables, published, &ctx.settings.publications, (is_ours, rows)) {
        return Err(CopyError::Publication { problem: filter.said(), sql: filter.sql().to_owned() });
    }
    let leaving_out = row_filters::leaving_out(tables, published);
    if leaving_out.is_empty() {
        return Ok(());
    }
    let (tables, sql) = leaving_out.into_iter().unzip();
    Err(CopyError::LeavesValuesOut { tables, sql })
}

/// As a copy of these tables goes on or begins: by a condition that is another one than it
/// began with it does not. Another one is said.
///
/// # Errors
/// [`CopyError::Publication`] with the SQL for the publication's owner.
pub(super) async fn require_its_rows(
    ctx: &CopyContext<'_>,
    source: &Session,
    tables: &[SourceTable],
    published: &HashMap<u32, Published>,
) -> Result<(), CopyError> {
    let publications = &ctx.settings.publications;
    let filtered = row_filters::filtered(tables, published, publications);
    if filtered.is_empty() {
        return Ok(());
    }
    let found = publication::find(source, publications.names()).await?;
    refuse_filtered(ctx, &found, published, (tables, &ctx.state.tables().await?)).await?;
    for filter in filtered {
        tracing::warn!(table = %filter.table, "{}: only these are copied and followed", filter.said());
    }
    Ok(())
}

fn refused(ctx: &CopyContext<'_>, lack: &Lack) -> CopyError {
    CopyError::Publication { problem: lack.said(&ctx.settings.publications), sql: lack.sql() }
}

/// Each publication of the migration has to be there: the server decodes nothing
/// with one that is not.
async fn refuse_absent(
    ctx: &CopyContext<'_>,
    source: &Session,
    tables: &[SourceTable],
    published: &HashMap<u32, Published>,
) -> Result<(), CopyError> {
    let there = publication::names(source).await?;
    match publishing::absent(&ctx.settings.publications, &there, tables, published).first() {
        None => Ok(()),
        Some(lack) => Err(refused(ctx, lack)),
    }
}

/// Creates the publication; which it is is recorded before it is there for
/// others, so that it is known as ours wherever this is cut off.
async fn create(
    ctx: &CopyContext<'_>,
    source: &Session,
    name: &String,
    tables: &[SourceTable],
    all: AllTables,
) -> Result<(), CopyError> {
    let sql = publishing::create_sql(name, tables, all);
    let refused = |problem: &str| {
        let problem = format!("publication {} {problem}", shown(name));
        CopyError::Publication { problem, sql: sql.clone() }
    };
    let may_not = || refused("does not exist, and this role may not create it");
    let action = "create the publication";
    execute(source, &format!("BEGIN; {sql}"), action, may_not).await?;
    let found = publication::find(source, std::slice::from_ref(name)).await?;
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

/// The publications have to be there, and to agree about the tables of these oids,
/// among all of the source: asked before a row is touched.
///
/// # Errors
/// [`CopyError::Publication`] with the SQL for their owner.
pub(super) async fn require_sound(
    ctx: &CopyContext<'_>,
    source: &Session,
    tables: &[SourceTable],
    oids: &HashSet<u32>,
) -> Result<(), CopyError> {
    let names = ctx.settings.publications.names();
    let (found, published) = (publication::find(source, names).await?, publication::tables(source, names).await?);
    refuse_absent(ctx, source, tables, &published).await?;
    let wanted: Vec<SourceTable> = tables.iter().filter(|table| oids.contains(&table.oid)).cloned().collect();
    // With a filter of the operator's a table is copied anew by that.
    let rows = match ctx.settings.publications {
        Publications::Ours(_) => ctx.state.tables().await?,
        Publications::Existing(_) => Vec::new(),
    };
    refuse_filtered(ctx, &found, &published, (&wanted, &rows)).await?;
    match publishing::disagreements(&found, &published, &wanted).first() {
        None => Ok(()),
        Some(lack) => Err(refused(ctx, lack)),
    }
}

/// What was added to a publication.
#[derive(Debug)]
struct Addition {
    table: TableName,
    /// As it is in the list.
    entry: String,
    list: String,
}

/// What was added to publications.
#[derive(Debug, Default)]
pub(super) struct Additions(Vec<Addition>);

impl Additions {
    /// Whether this table was.
    pub(super) fn has(&self, table: &TableName) -> bool {
        self.0.iter().any(|added| added.table == *table)
    }
}

/// Publishes tables that come later than the others, if they are not, with changes
/// of every kind; returns those it has added. No transaction is writing to them at
/// that moment, for the sake of servers that lose changes otherwise.
///
/// # Errors
/// As [`ensure`]; a lock that is not had in time is retried.
pub(super) async fn include(
    ctx: &CopyContext<'_>,
    source: &Session,
    tables: &[SourceTable],
) -> Result<Additions, CopyError> {
    if tables.is_empty() {
        return Ok(Additions::default());
    }
    let names = ctx.settings.publications.names();
    let all = ctx.tables(source).await?;
    let (found, published) = (publication::find(source, names).await?, publication::tables(source, names).await?);
    let new: HashSet<u32> = tables.iter().map(|new| new.oid).collect();
    let is_new = |table: &SourceTable| new.contains(&table.oid);
    let all = membership::letting_in(all, |oid| new.contains(&oid));
    let asked: Vec<SourceTable> = all.iter().filter(|table| is_new(table)).cloned().collect();
    refuse_without_identity(&asked, AllTables::No, &published)?;
    require_sound(ctx, source, &all, &new).await?;
    if publication::all_tables(&found) == AllTables::Yes {
        return Ok(Additions::default());
    }
    let absent = publishing::uncovered(&published, &asked);
    let is_wanted = |entry: &SourceTable| {
        let is_whole = published.get(&entry.oid).is_some_and(|published| published.lacks().is_empty());
        !is_whole && (is_new(entry) || absent.iter().any(|table| table.is_below(entry.oid)))
    };
    let missing: Vec<(&SourceTable, String)> =
        publishing::entries(&all).into_iter().filter(|(table, _)| is_wanted(table)).collect();
    let listed = publication::listed(source, names).await?;
    let (mut added, mut changes) = (Additions::default(), Vec::new());
    for list in publishing::lists_for_new(&found) {
        let has = |table: &SourceTable| {
            let is_published = published.get(&table.oid).is_some_and(|p| p.portion(&list).is_some());
            is_published || listed.contains(&(list.clone(), table.oid))
        };
        let absent = missing.iter().filter(|(table, _)| !has(table));
        let additions: Vec<Addition> = absent
            .map(|(table, entry)| Addition { table: table.name.clone(), entry: entry.clone(), list: list.clone() })
            .collect();
        if !additions.is_empty() {
            let entries: Vec<String> = additions.iter().map(|addition| addition.entry.clone()).collect();
            changes.push(publishing::add_sql(std::slice::from_ref(&list), &entries));
            added.0.extend(additions);
        }
    }
    if changes.is_empty() {
        return Ok(added);
    }
    let list: Vec<TableName> = missing.iter().map(|(table, _)| table.name.clone()).collect();
    let list = words::listed(&list);
    let sql = publishing::locked_sql(missing.iter().map(|(table, _)| *table), &changes.join(" "));
    let refused = || CopyError::Publication {
        problem: ctx.settings.publications.who(&format!("does not publish {list}"), &format!("do not publish {list}")),
        sql: format!("BEGIN; {sql};"),
    };
    change(source, &sql, "add tables to the publication", refused).await?;
    tracing::info!(publication = %ctx.settings.publications, tables = %list, "added to the publication");
    Ok(added)
}

/// Tables that somebody else has published after the slot was created: a server
/// that may not have noticed it is made to look again, or the operator is told.
///
/// # Errors
/// A lock that is not had in time is retried.
pub(super) async fn notice(ctx: &CopyContext<'_>, source: &Session, tables: &[SourceTable]) -> Result<(), CopyError> {
    if tables.is_empty() || !loses_changes(source.version()) {
        return Ok(());
    }
    let names = ctx.settings.publications.names();
    let (found, published) = (publication::find(source, names).await?, publication::tables(source, names).await?);
    let has_one = |p: &&Publication| {
        let has = |table: &SourceTable| published.get(&table.oid).is_some_and(|of| of.portion(&p.name).is_some());
        p.all_tables == AllTables::No && tables.iter().any(has)
    };
    let changes: Vec<String> = found.iter().filter(has_one).map(as_it_is).collect();
    if changes.is_empty() {
        return Ok(());
    }
    let sql = publishing::locked_sql(tables.iter(), &changes.join(" "));
    let refused = || CopyError::Publication { problem: String::new(), sql: String::new() };
    match change(source, &sql, "have the publication noticed", refused).await {
        Err(CopyError::Publication { .. }) => {
            tracing::warn!(
                publication = %ctx.settings.publications,
                "this release of PostgreSQL may lose changes of a table that is published while it is written to; if the \
                 table was not locked then, let the owner run: BEGIN; {sql};"
            );
            Ok(())
        }
        result => result,
    }
}

/// Changes nothing but what the server remembers of the publication.
fn as_it_is(publication: &Publication) -> String {
    let kinds: Vec<&str> = publication.operations.iter().map(|kind| kind.as_str()).collect();
    format!("ALTER PUBLICATION {} SET (publish = '{}');", ident(&publication.name), kinds.join(", "))
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

/// Takes tables that [`include`] has added out of their publications again.
///
/// # Errors
/// When the source refuses it.
pub(super) async fn take_out(source: &Session, added: &Additions) -> Result<(), CopyError> {
    let drop =
        |Addition { entry, list, .. }: &Addition| format!("ALTER PUBLICATION {} DROP TABLE {entry};", ident(list));
    let sql: Vec<String> = added.0.iter().map(drop).collect();
    source.batch_execute(&sql.join(" ")).await.during(source.side(), "take tables out of the publication again")?;
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
        Err(error) if error.sqlstate() == Some(sqlstate::INSUFFICIENT_PRIVILEGE) => Err(refused()),
        result => Ok(result?),
    }
}

/// A pattern that fits nothing is a slip.
async fn refuse_unmatched(ctx: &CopyContext<'_>, source: &Session, tables: &[SourceTable]) -> Result<(), CopyError> {
    if ctx.settings.filter.is_empty() {
        return Ok(());
    }
    let others = catalog_tables::others(source).await?.into_iter().map(|other| other.name);
    let never_carried = strangers::relations(source, SCHEMA, &TABLES).await?.into_iter().map(|(name, _)| name);
    let others: Vec<TableName> = others.chain(never_carried).collect();
    let unmatched = membership::unmatched(&ctx.settings.filter, tables, &others);
    if unmatched.is_empty() { Ok(()) } else { Err(CopyError::Unmatched(unmatched)) }
}

fn refuse_without_identity(
    tables: &[SourceTable],
    all: AllTables,
    published: &HashMap<u32, Published>,
) -> Result<(), CopyError> {
    let without = publishing::without_identity(tables, all, published);
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
    use crate::catalog::publication::{Operation, Partitions};

    #[test]
    fn a_publication_that_is_to_be_noticed_keeps_the_kinds_that_it_has() {
        let operations = [Operation::Insert, Operation::Truncate].into();
        let (all_tables, partitions) = (AllTables::No, Partitions::InTheirOwnName);
        let publication = Publication { oid: 1, name: "a".into(), all_tables, operations, partitions, is_owned: true };
        assert_eq!(as_it_is(&publication), "ALTER PUBLICATION \"a\" SET (publish = 'insert, truncate');");
    }

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
