//! The publication: that it can be made, or that the one that exists publishes
//! what takes part.

use std::collections::HashSet;

use super::findings::names;
use super::tables::{Kind, SourceTable, Tables};
use super::{CheckError, Findings};
use crate::catalog::roles::Role;
use crate::config::{Provenance, Settings, Side};
use crate::session::{DbContext, Session};
use crate::sql::{TableName, ident};

pub(super) async fn check(
    settings: &Settings,
    role: &Role,
    tables: &Tables,
    session: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let name = settings.publication.name();
    let truncate = if session.version() >= 110_000 { "pubtruncate" } else { "true" };
    let sql =
        format!("SELECT pubinsert AND pubupdate AND pubdelete AND {truncate} FROM pg_publication WHERE pubname = $1");
    let rows = session.query(&sql, &[&name]).await.during(Side::Source, "look for the publication")?;
    match (rows.first(), &settings.publication) {
        (Some(row), _) => {
            if !row.get::<_, bool>(0) {
                findings
                    .problem(
                        Side::Source,
                        "publication",
                        format!("publication {name} leaves out some kinds of changes"),
                    )
                    .sql(format!(
                        "ALTER PUBLICATION {} SET (publish = 'insert, update, delete, truncate');",
                        ident(name)
                    ));
            }
            coverage(name, tables, session, findings).await
        }
        (None, Provenance::Existing(_)) => {
            missing(name, tables, findings);
            Ok(())
        }
        (None, Provenance::Ours(_)) => {
            creation(name, settings, role, tables, findings);
            Ok(())
        }
    }
}

fn create_sql(name: &str, tables: &Tables) -> String {
    let list: Vec<String> = tables.published().iter().map(|table| table.name.sql()).collect();
    if list.is_empty() {
        format!("CREATE PUBLICATION {};", ident(name))
    } else {
        format!("CREATE PUBLICATION {} FOR TABLE {};", ident(name), list.join(", "))
    }
}

fn missing(name: &str, tables: &Tables, findings: &mut Findings) {
    findings
        .problem(Side::Source, "publication", format!("there is no publication {name}"))
        .remedy("let the owner of the tables run this:")
        .sql(create_sql(name, tables));
}

/// Whether walferry can make its own: FOR ALL TABLES takes a superuser, FOR
/// TABLE takes CREATE on the database and every table's ownership.
fn creation(name: &str, settings: &Settings, role: &Role, tables: &Tables, findings: &mut Findings) {
    if role.is_superuser && settings.filter.is_empty() {
        return findings.ok(Side::Source, "publication", format!("publication {name} can be created for all tables"));
    }
    let foreign: Vec<&TableName> =
        tables.published().into_iter().filter(|table| !table.is_owned).map(|table| &table.name).collect();
    if foreign.is_empty() && role.may_create {
        return findings.ok(
            Side::Source,
            "publication",
            format!("publication {name} can be created for a list of tables"),
        );
    }
    let why = if foreign.is_empty() {
        format!("role {} may not create publications in database {}", role.name, role.database)
    } else {
        format!("role {} does not own {} of the tables to publish: {}", role.name, foreign.len(), names(&foreign))
    };
    findings
        .problem(Side::Source, "publication", format!("publication {name} cannot be created: {why}"))
        .remedy("let the owner of the tables (who needs CREATE on the database) or a superuser create it beforehand; walferry uses it:")
        .sql(create_sql(name, tables));
}

/// Whether a publication that exists has every table that takes part, whole.
async fn coverage(name: &str, tables: &Tables, session: &Session, findings: &mut Findings) -> Result<(), CheckError> {
    let partial = if session.version() >= 150_000 { "rowfilter IS NOT NULL" } else { "false" };
    let sql =
        format!("SELECT schemaname::text, tablename::text, {partial} FROM pg_publication_tables WHERE pubname = $1");
    let rows = session.query(&sql, &[&name]).await.during(Side::Source, "list the published tables")?;
    let published: HashSet<TableName> =
        rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect();
    // Leaves are listed, or their roots (publish_via_partition_root).
    let absent: Vec<&SourceTable> = tables
        .of(Kind::Plain)
        .filter(|table| !published.contains(&table.name) && !published.contains(&table.root))
        .collect();
    let filtered: Vec<TableName> = rows
        .iter()
        .filter(|row| row.get(2))
        .map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1)))
        .collect();
    if !filtered.is_empty() {
        findings
            .warning(
                Side::Source,
                "row_filter",
                format!("publication {name} publishes only some rows of {}", names(&filtered)),
            )
            .remedy("only those are copied and followed: publish these tables without WHERE if all are wanted");
    }
    if absent.is_empty() {
        findings.ok(
            Side::Source,
            "publication",
            format!("publication {name} exists and has all tables that take part"),
        );
        return Ok(());
    }
    let mut add: Vec<&TableName> = absent.iter().map(|table| &table.root).collect();
    add.dedup();
    let list: Vec<String> = add.iter().map(|table| table.sql()).collect();
    findings
        .problem(
            Side::Source,
            "publication",
            format!("publication {name} exists and lacks {} of the tables: {}", absent.len(), names(&add)),
        )
        .remedy("let its owner add them, leave them out with --exclude-tables, or use another --name or --publication:")
        .sql(format!("ALTER PUBLICATION {} ADD TABLE {};", ident(name), list.join(", ")));
    Ok(())
}
