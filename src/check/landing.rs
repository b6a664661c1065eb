//! Whether the source's content can land on the target: encoding, tables that are
//! to exist already, owners of large objects. What is to be created is tried
//! (`trial`).

use std::collections::{BTreeSet, HashMap, HashSet};

use super::tables::{Kind, Tables};
use super::{CheckError, Findings, trial};
use crate::catalog::named::{self, NAMED};
use crate::catalog::publication::{self, Published};
use crate::catalog::roles::{self, Role};
use crate::catalog::server::Server;
use crate::catalog::{contents, server};
use crate::config::{Baseline, Keep, SchemaMode, Settings, Side};
use crate::membership::{Part, publishing};
use crate::schema;
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::{TableName, ident};
use crate::state::resume::Standing;
use crate::sweep::large_objects::owners;
use crate::words;

/// What the target has to take.
pub(super) struct Content {
    tables: Tables,
    /// Those whose rows land in the target's tables of their names.
    pub(super) wanted: Vec<TableName>,
    /// Those of them that are copied at the beginning.
    pub(super) copied: Vec<TableName>,
    encoding: String,
    /// Roles that large objects are to be given to.
    owners: Vec<String>,
}

impl Content {
    /// Reads the rest of it from the source.
    pub(super) async fn read(settings: &Settings, session: &Session, tables: Tables) -> Result<Self, CheckError> {
        let encoding = server::read(session).await?.encoding;
        let owners = match settings.owners {
            Keep::Yes => owners::names(session).await?,
            Keep::No => Vec::new(),
        };
        let published = published(settings, session).await?;
        let wanted = publishing::landing(&tables.all, published.as_ref(), settings.schema);
        let copied = wanted.iter().filter(|table| table.part == Part::Included);
        let copied = copied.map(|table| table.name.clone()).collect();
        let wanted = wanted.into_iter().map(|table| table.name.clone()).collect();
        Ok(Content { tables, wanted, copied, encoding, owners })
    }
}

/// What is published already; `None` where the publication is still to be made.
pub(super) async fn published(
    settings: &Settings,
    source: &Session,
) -> Result<Option<HashMap<u32, Published>>, CheckError> {
    let names = settings.publications.names();
    let is_there = !publication::find(source, names).await?.is_empty();
    Ok(if is_there { Some(publication::tables(source, names).await?) } else { None })
}

pub(super) async fn check(
    settings: &Settings,
    content: &Content,
    standing: Option<&Standing>,
    session: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    not_replicated(settings, content, findings);
    encoding(content, session, findings).await?;
    if let Some(standing) = standing.filter(|standing| standing.schema_restored || standing.is_set_up()) {
        // The tables are there and have rows: that is how it goes on.
        let tables: Vec<TableName> = standing.names(session).await?;
        let landed = landed(&tables.iter().collect::<Vec<_>>(), session).await?;
        denied(&roles::current(session).await?, &landed, findings);
        return trial::waiting(standing, session, findings).await;
    }
    owners_of_large_objects(content, session, findings).await?;
    match settings.schema {
        SchemaMode::Create => Ok(()),
        SchemaMode::Existing | SchemaMode::None => tables(settings, content, session, findings).await,
    }
}

/// Kinds of tables that no publication carries.
fn not_replicated(settings: &Settings, content: &Content, findings: &mut Findings) {
    let views = match settings.schema {
        SchemaMode::None => "materialized views are left alone (--schema none)",
        SchemaMode::Create | SchemaMode::Existing => {
            "materialized views are refreshed at the end (catchup --finish), but for those without data"
        }
    };
    for (kind, check, what) in [
        (
            Kind::Unlogged,
            "unlogged",
            "unlogged tables have no stream: they are copied whole at the end, when nothing is written (catchup --finish)",
        ),
        (Kind::MaterializedView, "materialized_views", views),
        (
            Kind::Foreign,
            "foreign_tables",
            "foreign tables have their rows elsewhere; their definitions are moved, with servers and user mappings \
             (passwords only as far as the role may see them)",
        ),
    ] {
        let listed: Vec<&TableName> = content.tables.of(kind).map(|table| &table.name).collect();
        if !listed.is_empty() {
            findings.warning(Side::Source, check, format!("{what}: {}", words::listed(&listed)));
        }
    }
}

async fn encoding(content: &Content, session: &Session, findings: &mut Findings) -> Result<(), CheckError> {
    let Server { encoding, database, .. } = server::read(session).await?;
    if encoding == content.encoding {
        findings.ok(Side::Target, "encoding", format!("both databases are {encoding}"));
    } else if encoding == "UTF8" {
        findings.ok(Side::Target, "encoding", format!("{} text becomes UTF8", content.encoding));
    } else {
        findings
            .problem(
                Side::Target,
                "encoding",
                format!("the source is {}, the target {encoding}: text can be lost", content.encoding),
            )
            .remedy("create a database in UTF8 beside it, and give walferry its name:")
            .sql(format!("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8';", ident(&format!("{database}_utf8"))));
    }
    Ok(())
}

/// Large objects are given to their owners at the end; until then they are ours.
async fn owners_of_large_objects(
    content: &Content,
    session: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let missing = schema::missing_roles(session, &[], &content.owners).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let message = "owners of large objects are not there, or not ours to give to: they are carried, and catchup --finish will want these roles";
    let finding = findings.warning(Side::Target, "roles", message);
    finding.remedy("let an administrator run this:");
    for sql in missing {
        finding.sql(sql);
    }
    Ok(())
}

/// A table on the target.
struct Landed {
    name: TableName,
    may_write: bool,
    /// The right to find anything in its schema.
    may_use_schema: bool,
    may_read: bool,
    /// No foreign keys or triggers, or the right to alter them.
    may_hold_back: bool,
}

async fn landed(wanted: &[&TableName], session: &Session) -> Result<Vec<Landed>, DbError> {
    let (schemas, tables) = named::lists(wanted.iter().copied());
    let sql = format!(
        "SELECT named.schema, named.name, has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') \
           AND has_table_privilege(c.oid, 'DELETE') AND has_table_privilege(c.oid, 'TRUNCATE'), \
           has_schema_privilege(n.oid, 'USAGE'), has_table_privilege(c.oid, 'SELECT'), NOT row_security_active(c.oid), \
           pg_has_role(c.relowner, 'USAGE') OR NOT c.relhastriggers \
         FROM {NAMED} WHERE c.relkind IN ('r', 'p', 'f') ORDER BY 1, 2"
    );
    let rows = session.query(&sql, &[&schemas, &tables]).await.during(Side::Target, "look for the tables")?;
    let of_row = |row: &Row| {
        let (may_use_schema, may_select): (bool, bool) = (row.take(3)?, row.take(4)?);
        Ok(Landed {
            name: TableName { schema: row.take(0)?, name: row.take(1)? },
            may_write: row.take::<bool>(2)? && may_select,
            may_use_schema,
            may_read: may_use_schema && may_select && row.take::<bool>(5)?,
            may_hold_back: row.take(6)?,
        })
    };
    rows.iter().map(of_row).collect()
}

async fn tables(
    settings: &Settings,
    content: &Content,
    session: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let wanted: Vec<&TableName> = content.wanted.iter().collect();
    let landed = landed(&wanted, session).await?;
    let role = roles::current(session).await?;
    all_there(&role, &wanted, &landed, findings);
    if settings.schema == SchemaMode::Existing {
        alterable(&role, &landed, findings);
    }
    if let Baseline::Restored { .. } = settings.baseline {
        findings.ok(
            Side::Target,
            "tables",
            format!("{} tables are there; their rows are taken as they are", landed.len()),
        );
        return Ok(());
    }
    empty(&landed, session, findings).await
}

fn all_there(role: &Role, wanted: &[&TableName], landed: &[Landed], findings: &mut Findings) {
    let found: HashSet<&TableName> = landed.iter().map(|table| &table.name).collect();
    let absent: Vec<&&TableName> = wanted.iter().filter(|name| !found.contains(**name)).collect();
    if !absent.is_empty() {
        findings
            .problem(Side::Target, "tables", format!("tables are not there: {}", words::listed(&absent)))
            .remedy("create them, use --schema create, or leave them out with --exclude-tables");
    }
    denied(role, landed, findings);
}

/// Tables that the role may not write to, or not find.
fn denied(role: &Role, landed: &[Landed], findings: &mut Findings) {
    let denied: Vec<&Landed> = landed.iter().filter(|table| !(table.may_write && table.may_use_schema)).collect();
    if denied.is_empty() {
        return;
    }
    let listed: Vec<&TableName> = denied.iter().map(|table| &table.name).collect();
    let finding =
        findings.problem(Side::Target, "write", format!("the role may not write to {}", words::listed(&listed)));
    finding.remedy("let their owner run this:");
    let hidden = denied.iter().filter(|table| !table.may_use_schema);
    let schemas: BTreeSet<&str> = hidden.map(|table| table.name.schema.as_str()).collect();
    let role = ident(&role.name);
    for schema in schemas {
        finding.sql(format!("GRANT USAGE ON SCHEMA {} TO {role};", ident(schema)));
    }
    for table in denied.iter().filter(|table| !table.may_write) {
        let name = table.name.sql();
        finding.sql(format!("GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {name} TO {role};"));
    }
}

/// Foreign keys and triggers of existing tables are held back by altering them.
fn alterable(role: &Role, landed: &[Landed], findings: &mut Findings) {
    let foreign: Vec<&Landed> = landed.iter().filter(|table| !table.may_hold_back).collect();
    if foreign.is_empty() {
        return;
    }
    let listed: Vec<&TableName> = foreign.iter().map(|table| &table.name).collect();
    let finding = findings.problem(
        Side::Target,
        "hold_back",
        format!("foreign keys or triggers of tables that others own cannot be held back: {}", words::listed(&listed)),
    );
    finding.remedy("let their owner run this, or use the role that owns them:");
    for table in foreign {
        finding.sql(format!("ALTER TABLE {} OWNER TO {};", table.name.sql(), ident(&role.name)));
    }
}

/// A copy into tables with rows would make them twice, or fail on a key.
async fn empty(landed: &[Landed], session: &Session, findings: &mut Findings) -> Result<(), CheckError> {
    for table in landed.iter().filter(|table| !table.may_read) {
        findings
            .problem(Side::Target, "tables", format!("whether {} is empty cannot be seen", table.name))
            .remedy("SELECT on the table and USAGE on its schema are needed, and no row security in force");
    }
    let readable: Vec<&TableName> = landed.iter().filter(|table| table.may_read).map(|table| &table.name).collect();
    let filled = contents::filled(session, &readable).await?;
    if filled.is_empty() {
        if !landed.is_empty() {
            let are = if landed.len() == 1 { "exists and is" } else { "exist and are" };
            findings.ok(Side::Target, "tables", format!("{} {are} empty", words::count(landed.len(), "table")));
        }
        return Ok(());
    }
    let listed: Vec<&TableName> = filled.iter().map(|filled| &filled.table).collect();
    findings
        .problem(
            Side::Target,
            "tables",
            format!("{} of the tables have rows: {}", filled.len(), words::listed(&listed)),
        )
        .remedy("if these rows are not needed:")
        .sql(contents::truncate(&filled));
    Ok(())
}
