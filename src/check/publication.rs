//! The publication: that it can be made, or that those that exist publish together
//! what takes part. What has to be published is decided in
//! [`crate::membership::publishing`].

use std::collections::HashMap;

use super::tables::Tables;
use super::{CheckError, Findings, server};
use crate::catalog::publication::{self, AllTables, Publication, Published};
use crate::catalog::roles::Role;
use crate::config::{Publications, PublishWhat, Settings, Side};
use crate::membership::publishing::{self, Lack};
use crate::membership::row_filters;
use crate::session::{DbContext, Session};
use crate::sql::{TableName, ident, shown};
use crate::state::resume::Standing;
use crate::words;

pub(super) async fn check(
    settings: &Settings,
    (role, standing): (&Role, Option<&Standing>),
    tables: &Tables,
    session: &Session,
    findings: &mut Findings,
) -> Result<Option<Creation>, CheckError> {
    let wanted = &settings.publications;
    let found = publication::find(session, wanted.names()).await?;
    if let (Publications::Ours(name), []) = (wanted, found.as_slice()) {
        let all = match settings.publish {
            PublishWhat::AllTables => AllTables::Yes,
            PublishWhat::Listed => AllTables::No,
        };
        match server::read_only(session, role).await? {
            None => return Ok(creation(name, role, tables, all, findings)),
            Some(mending) => {
                let message = format!(
                    "publication {} cannot be created: transactions of role {} in database {} are read-only",
                    shown(name),
                    role.name,
                    role.database
                );
                let finding = findings.problem(Side::Source, "publication", message);
                finding.remedy(
                    "let them write; or let the owner of the tables create it beforehand, and walferry uses it:",
                );
                for sql in mending {
                    finding.sql(sql);
                }
                finding.sql(publishing::create_sql(name, &tables.all, all));
            }
        }
        return Ok(None);
    }
    let published = publication::tables(session, wanted.names()).await?;
    let absent = publishing::absent(wanted, &publication::names(session).await?, &tables.all, &published);
    if !absent.is_empty() {
        for lack in absent {
            findings
                .problem(Side::Source, "publication", lack.said(wanted))
                .remedy("let the owner of the tables run this, or name others with --publication:")
                .sql(lack.sql());
        }
        return Ok(None);
    }
    filtered(wanted, &published, tables, findings);
    let lacks = publishing::lacks(&found, &published, &tables.all, settings.schema);
    if lacks.is_empty() {
        let message = wanted
            .who("exists and has all tables that take part", "exist and have all tables that take part, together");
        findings.ok(Side::Source, "publication", message);
    }
    let created = standing.and_then(|standing| standing.publication_oid);
    let is_ours = publishing::are_created_by_us(&found, created);
    let may_write = server::read_only(session, role).await?.is_none();
    for lack in lacks {
        if is_ours && may_write && run_adds(&found, tables, &lack) {
            let message = format!("{}; run adds it", lack.said(wanted));
            findings.ok(Side::Source, "publication", message);
            continue;
        }
        findings
            .problem(Side::Source, "publication", lack.said(wanted))
            .remedy("let its owner mend it, use --exclude-tables, or use another --name or --publication:")
            .sql(lack.sql());
    }
    Ok(None)
}

/// A publication that a run would create.
pub(super) struct Creation {
    name: String,
    /// What says that it can.
    can: String,
    /// What creates it with its tables.
    sql: String,
}

/// Tries to create it, in a transaction that is rolled back; without its tables, on
/// which it would wait for whoever vacuums them. What else stands in the way is not
/// in the catalog's rights: an event trigger, say.
pub(super) async fn try_creation(creation: Creation, session: &Session, findings: &mut Findings) {
    let Creation { name, can, sql } = creation;
    let tried = session.batch_execute(&format!("BEGIN; CREATE PUBLICATION {}", ident(&name))).await;
    let tried = tried.during(Side::Source, format!("create publication {}", shown(&name)));
    let back = session.batch_execute("ROLLBACK").await.during(Side::Source, "end the trial of a publication");
    match (tried, back) {
        (Ok(()), Ok(())) => findings.ok(Side::Source, "publication", can),
        (Err(refused), Ok(())) => {
            let message = format!("publication {} cannot be created: {}", shown(&name), refused.words());
            findings.problem(Side::Source, "publication", message).remedy(BEFOREHAND).sql(sql);
        }
        (_, Err(lost)) => findings.unfinished(Side::Source.into(), &lost.into()),
    }
}

/// The way out where our role cannot create one.
const BEFOREHAND: &str = "let the owner of the tables (who needs CREATE on the database) or a superuser create it beforehand; walferry uses it:";

/// Whether `run` mends it by itself: tables that a publication of ours does not have yet.
fn run_adds(found: &[Publication], tables: &Tables, lack: &Lack) -> bool {
    let is_owned = |name: &TableName| tables.all.iter().any(|table| table.name == *name && table.rights.is_owned);
    match lack {
        Lack::Tables { tables, .. } => {
            found.iter().all(|publication| publication.is_owned) && tables.iter().all(is_owned)
        }
        _ => false,
    }
}

/// Whether walferry may make its own: FOR ALL TABLES takes a superuser, FOR
/// TABLE takes CREATE on the database and every table's ownership.
fn creation(name: &str, role: &Role, tables: &Tables, wanted: AllTables, findings: &mut Findings) -> Option<Creation> {
    let sql = publishing::create_sql(name, &tables.all, wanted);
    let can = |what: &str| format!("publication {} can be created for {what}", shown(name));
    let can = |what| Some(Creation { name: name.to_owned(), can: can(what), sql: sql.clone() });
    let foreign: Vec<&TableName> = publishing::entries(&tables.all)
        .into_iter()
        .filter(|(table, _)| !table.rights.is_owned)
        .map(|(table, _)| &table.name)
        .collect();
    let why = match wanted {
        AllTables::Yes if role.is_superuser => return can("all tables"),
        AllTables::Yes => "only a superuser can publish all tables".to_owned(),
        AllTables::No if foreign.is_empty() && role.may_create => return can("a list of tables"),
        AllTables::No if foreign.is_empty() => {
            format!("role {} may not create publications in database {}", role.name, role.database)
        }
        AllTables::No => {
            format!(
                "role {} does not own {} of the tables to publish: {}",
                role.name,
                foreign.len(),
                words::listed(&foreign)
            )
        }
    };
    findings
        .problem(Side::Source, "publication", format!("publication {} cannot be created: {why}", shown(name)))
        .remedy(BEFOREHAND)
        .sql(sql);
    None
}

/// Tables of which only some rows are published.
fn filtered(
    publications: &Publications,
    published: &HashMap<u32, Published>,
    tables: &Tables,
    findings: &mut Findings,
) {
    let is_filtered = |oid: u32| published.get(&oid).is_some_and(|published| published.row_filter().is_some());
    let filtered: Vec<&TableName> =
        tables.all.iter().filter(|table| is_filtered(table.oid)).map(|table| &table.name).collect();
    if !filtered.is_empty() {
        let only = |verb| format!("{verb} only some rows of {}", words::listed(&filtered));
        findings
            .warning(Side::Source, "row_filter", publications.who(&only("publishes"), &only("publish")))
            .remedy("only those are copied and followed: publish these tables without WHERE if all are wanted");
    }
    let leaving_out = row_filters::leaving_out(&tables.all, published);
    if !leaving_out.is_empty() {
        let listed = words::listed(&leaving_out.iter().map(|(table, _)| table).collect::<Vec<_>>());
        let message = "a row that comes to meet the condition would come without the large values that it has already";
        let finding = findings.problem(Side::Source, "row_filter_values", format!("{message}: {listed}"));
        finding.remedy("let the owner run this (it waits for the table's transactions to end), or publish all rows:");
        for (_, sql) in leaving_out {
            finding.sql(sql);
        }
    }
}
