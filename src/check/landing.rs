//! Whether the source's content can land on the target: encoding, schemas,
//! extensions, tables that exist already.

use std::collections::{BTreeSet, HashSet};

use super::findings::names;
use super::tables::{Kind, Tables};
use super::{CheckError, Findings, foreign};
use crate::catalog::contents;
use crate::config::{Baseline, Keep, SchemaMode, Settings, Side};
use crate::schema;
use crate::session::{DbContext, DbError, Session};
use crate::sql::{TableName, ident};
use crate::state::resume::Standing;
use crate::sweep::large_objects::owners;

/// What the target has to take.
pub(super) struct Content {
    tables: Tables,
    encoding: String,
    extensions: Vec<String>,
    /// Roles that policies name, and privileges when these come along.
    roles: Vec<String>,
    /// Roles that large objects are to be given to.
    owners: Vec<String>,
    foreign: foreign::Needs,
}

const ENCODING: &str = "SELECT pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname = current_database()";

impl Content {
    /// Reads the rest of it from the source.
    pub(super) async fn read(settings: &Settings, session: &Session, tables: Tables) -> Result<Self, CheckError> {
        let encoding = session.query_one(ENCODING, &[]).await.during(Side::Source, "read the encoding")?.take(0)?;
        let rows = session
            .query("SELECT extname::text FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1", &[])
            .await
            .during(Side::Source, "list the extensions")?;
        let roles = schema::named_roles(session, settings.acl, &[]).await?;
        let owners = match settings.owners {
            Keep::Yes => owners::names(session).await?,
            Keep::No => Vec::new(),
        };
        let foreign = foreign::Needs::read(session).await?;
        let extensions = rows.iter().map(|row| row.take(0)).collect::<Result<_, _>>()?;
        Ok(Content { tables, encoding, extensions, roles, owners, foreign })
    }
}

pub(super) async fn check(
    settings: &Settings,
    content: &Content,
    migration: Option<&Standing>,
    session: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    not_replicated(settings, content, findings);
    encoding(content, session, findings).await?;
    if migration.is_some() {
        // The tables are there and have rows: that is how it goes on.
        return Ok(());
    }
    if settings.schema == SchemaMode::Create {
        extensions(content, session, findings).await?;
        foreign::check(&content.foreign, session, findings).await?;
        schemas(content, session, findings).await?;
    }
    roles(settings, content, session, findings).await?;
    tables(settings, content, session, findings).await
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
            findings.warning(Side::Source, check, format!("{what}: {}", names(&listed)));
        }
    }
}

async fn encoding(content: &Content, session: &Session, findings: &mut Findings) -> Result<(), CheckError> {
    let encoding: String = session.query_one(ENCODING, &[]).await.during(Side::Target, "read the encoding")?.take(0)?;
    if encoding == content.encoding {
        findings.ok(Side::Target, "encoding", format!("both databases are {encoding}"));
    } else if encoding == "UTF8" {
        findings.ok(Side::Target, "encoding", format!("{} text becomes UTF8", content.encoding));
    } else {
        let database: String = session
            .query_one("SELECT current_database()::text", &[])
            .await
            .during(Side::Target, "read the database's name")?
            .take(0)?;
        findings
            .problem(
                Side::Target,
                "encoding",
                format!("the source is {}, the target {encoding}: text can be lost", content.encoding),
            )
            .remedy("create the target's database anew:")
            .sql(format!("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8';", ident(&database)));
    }
    Ok(())
}

async fn extensions(content: &Content, session: &Session, findings: &mut Findings) -> Result<(), CheckError> {
    let rows = session
        .query("SELECT name::text, installed_version IS NOT NULL FROM pg_available_extensions", &[])
        .await
        .during(Side::Target, "list the extensions")?;
    let (mut available, mut installed) = (HashSet::<String>::new(), HashSet::<String>::new());
    for row in &rows {
        let name: String = row.take(0)?;
        if row.take(1)? {
            installed.insert(name.clone());
        }
        available.insert(name);
    }
    let absent: Vec<&String> = content.extensions.iter().filter(|name| !available.contains(*name)).collect();
    if !absent.is_empty() {
        findings
            .problem(Side::Target, "extensions", format!("the target's server does not offer {}", names(&absent)))
            .remedy("install their packages on the server, or enable them in the provider's console");
    }
    // `trusted` is new in 13; before, every extension took a superuser.
    let trusted = if session.version() >= 130_000 { "trusted" } else { "false" };
    let sql = format!(
        "SELECT DISTINCT name::text FROM pg_available_extension_versions WHERE name::text = ANY ($1) AND superuser AND NOT {trusted} \
         AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)"
    );
    let rows =
        session.query(&sql, &[&content.extensions]).await.during(Side::Target, "list the untrusted extensions")?;
    let mut restricted: Vec<String> = rows.iter().map(|row| row.take(0)).collect::<Result<_, _>>()?;
    restricted.retain(|name| !installed.contains(name));
    if restricted.is_empty() {
        if absent.is_empty() {
            findings.ok(
                Side::Target,
                "extensions",
                format!("all {} extensions are available", content.extensions.len()),
            );
        }
        return Ok(());
    }
    let finding = findings.warning(
        Side::Target,
        "extensions",
        format!("PostgreSQL lets only a superuser create {}; providers often allow it", names(&restricted)),
    );
    finding.remedy("if the copy fails there, have them created beforehand:");
    for name in &restricted {
        finding.sql(format!("CREATE EXTENSION {};", ident(name)));
    }
    Ok(())
}

/// Roles of policies, and of privileges that come along, must exist; those that
/// large objects are given to must be ours to give to. Other owners are looked at
/// when the dump names them.
async fn roles(
    settings: &Settings,
    content: &Content,
    session: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    // A schema that is not ours to create has its policies and privileges.
    let named = if settings.schema == SchemaMode::Create { content.roles.as_slice() } else { &[] };
    let missing = schema::missing_roles(session, named, &content.owners).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} roles that policies, privileges or owners name are not there, or not ours to give to",
        missing.len()
    );
    // They may be those of tables that the filter leaves out.
    let finding = if settings.filter.is_empty() {
        findings.problem(Side::Target, "roles", message)
    } else {
        findings.warning(Side::Target, "roles", message)
    };
    finding.remedy("let an administrator run this:");
    for sql in missing {
        finding.sql(sql);
    }
    Ok(())
}

/// Schemas that exist must let the role create in them.
async fn schemas(content: &Content, session: &Session, findings: &mut Findings) -> Result<(), CheckError> {
    let wanted: BTreeSet<&str> = content.tables.list.iter().map(|table| table.name.schema.as_str()).collect();
    let wanted: Vec<&str> = wanted.into_iter().collect();
    let rows = session
        .query(
            "SELECT nspname::text, current_user::text FROM pg_namespace WHERE nspname::text = ANY ($1) AND NOT has_schema_privilege(oid, 'CREATE')",
            &[&wanted],
        )
        .await
        .during(Side::Target, "look at the schemas")?;
    for row in &rows {
        let (schema, role): (String, String) = (row.take(0)?, row.take(1)?);
        findings
            .problem(Side::Target, "schemas", format!("role {role} may not create in schema {schema}"))
            .remedy("let its owner run this:")
            .sql(format!("GRANT CREATE ON SCHEMA {} TO {};", ident(&schema), ident(&role)));
    }
    Ok(())
}

/// A table on the target.
struct Landed {
    name: TableName,
    may_write: bool,
    may_read: bool,
    /// No foreign keys or triggers, or the right to alter them.
    may_hold_back: bool,
    /// The role of the connection.
    role: String,
}

async fn tables(
    settings: &Settings,
    content: &Content,
    session: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let wanted: Vec<&TableName> = content
        .tables
        .list
        .iter()
        .filter(|t| matches!(t.kind, Kind::Plain | Kind::Partitioned | Kind::Unlogged))
        .map(|t| &t.name)
        .collect();
    let schemas: Vec<&str> = wanted.iter().map(|name| name.schema.as_str()).collect();
    let tables: Vec<&str> = wanted.iter().map(|name| name.name.as_str()).collect();
    let rows = session
        .query(
            "SELECT w.schema, w.name, has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') \
             AND has_table_privilege(c.oid, 'DELETE') AND has_table_privilege(c.oid, 'TRUNCATE'), \
             has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AND NOT row_security_active(c.oid), \
             pg_has_role(c.relowner, 'USAGE') OR NOT c.relhastriggers, current_user::text \
             FROM unnest($1::text[], $2::text[]) AS w (schema, name) JOIN pg_namespace n ON n.nspname = w.schema \
             JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name ORDER BY 1, 2",
            &[&schemas, &tables],
        )
        .await
        .during(Side::Target, "look for the tables")?;
    let landed: Vec<Landed> = rows
        .iter()
        .map(|row| {
            Ok(Landed {
                name: TableName { schema: row.take(0)?, name: row.take(1)? },
                may_write: row.take(2)?,
                may_read: row.take(3)?,
                may_hold_back: row.take(4)?,
                role: row.take(5)?,
            })
        })
        .collect::<Result<_, DbError>>()?;
    if settings.schema == SchemaMode::Create {
        not_there_yet(&landed, findings);
        return Ok(());
    }
    all_there(&wanted, &landed, findings);
    if settings.schema == SchemaMode::Existing {
        alterable(&landed, findings);
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

fn not_there_yet(landed: &[Landed], findings: &mut Findings) {
    if landed.is_empty() {
        return findings.ok(Side::Target, "tables", "none of the tables exists yet");
    }
    let listed: Vec<&TableName> = landed.iter().map(|table| &table.name).collect();
    let list: Vec<String> = listed.iter().map(|name| name.sql()).collect();
    findings
        .problem(Side::Target, "tables", format!("{} of the tables exist already: {}", landed.len(), names(&listed)))
        .remedy("use --schema existing to fill them; or, if they are not needed, drop them:")
        .sql(format!("DROP TABLE {};", list.join(", ")));
}

fn all_there(wanted: &[&TableName], landed: &[Landed], findings: &mut Findings) {
    let found: HashSet<&TableName> = landed.iter().map(|table| &table.name).collect();
    let absent: Vec<&&TableName> = wanted.iter().filter(|name| !found.contains(**name)).collect();
    if !absent.is_empty() {
        findings
            .problem(Side::Target, "tables", format!("{} of the tables do not exist: {}", absent.len(), names(&absent)))
            .remedy("create them, use --schema create, or leave them out with --exclude-tables");
    }
    let denied: Vec<&Landed> = landed.iter().filter(|table| !table.may_write).collect();
    if !denied.is_empty() {
        let listed: Vec<&TableName> = denied.iter().map(|table| &table.name).collect();
        let finding = findings.problem(Side::Target, "write", format!("the role may not write to {}", names(&listed)));
        finding.remedy("let their owner run this:");
        for table in denied {
            let (name, role) = (table.name.sql(), ident(&table.role));
            finding.sql(format!("GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {name} TO {role};"));
        }
    }
}

/// Foreign keys and triggers of existing tables are held back by altering them.
fn alterable(landed: &[Landed], findings: &mut Findings) {
    let foreign: Vec<&Landed> = landed.iter().filter(|table| !table.may_hold_back).collect();
    if foreign.is_empty() {
        return;
    }
    let listed: Vec<&TableName> = foreign.iter().map(|table| &table.name).collect();
    let finding = findings.problem(
        Side::Target,
        "hold_back",
        format!("foreign keys or triggers of tables that others own cannot be held back: {}", names(&listed)),
    );
    finding.remedy("let their owner run this, or use the role that owns them:");
    for table in foreign {
        finding.sql(format!("ALTER TABLE {} OWNER TO {};", table.name.sql(), ident(&table.role)));
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
            findings.ok(Side::Target, "tables", format!("{} tables exist and are empty", landed.len()));
        }
        return Ok(());
    }
    let listed: Vec<&TableName> = filled.iter().map(|filled| &filled.table).collect();
    findings
        .problem(Side::Target, "tables", format!("{} of the tables have rows: {}", filled.len(), names(&listed)))
        .remedy("if these rows are not needed:")
        .sql(contents::truncate(&filled));
    Ok(())
}
