//! The publication: that it can be made, or that the one that exists publishes
//! what takes part. What has to be published is decided in
//! [`crate::membership::publishing`].

use super::findings::names;
use super::tables::Tables;
use super::{CheckError, Findings};
use crate::catalog::publication::AllTables;
use crate::catalog::publication::{self, Published};
use crate::catalog::roles::Role;
use crate::config::{Provenance, PublishWhat, Settings, Side};
use crate::membership::publishing;
use crate::session::Session;
use crate::sql::TableName;

pub(super) async fn check(
    settings: &Settings,
    role: &Role,
    tables: &Tables,
    session: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let name = settings.publication.name();
    let found = publication::find(session, &[name]).await?;
    if found.is_empty() {
        let wanted = match settings.publish {
            PublishWhat::AllTables => AllTables::Yes,
            PublishWhat::Listed => AllTables::No,
        };
        let sql = publishing::create_sql(name, &tables.all, wanted);
        match settings.publication {
            Provenance::Existing(_) => {
                findings
                    .problem(Side::Source, "publication", format!("there is no publication {name}"))
                    .remedy("let the owner of the tables run this:")
                    .sql(sql);
            }
            Provenance::Ours(_) => creation(name, role, tables, wanted, sql, findings),
        }
        return Ok(());
    }
    let published = publication::tables(session, &[name]).await?;
    filtered(name, &published, tables, findings);
    let lacks = publishing::lacks(&found, &published, &tables.all, settings.schema);
    if lacks.is_empty() {
        let message = format!("publication {name} exists and has all tables that take part");
        findings.ok(Side::Source, "publication", message);
    }
    for lack in lacks {
        findings
            .problem(Side::Source, "publication", format!("publication {name} {lack}"))
            .remedy("let its owner mend it, use --exclude-tables, or use another --name or --publication:")
            .sql(lack.sql(name));
    }
    Ok(())
}

/// Whether walferry can make its own: FOR ALL TABLES takes a superuser, FOR
/// TABLE takes CREATE on the database and every table's ownership.
fn creation(name: &str, role: &Role, tables: &Tables, wanted: AllTables, sql: String, findings: &mut Findings) {
    let foreign: Vec<&TableName> = publishing::entries(&tables.all)
        .into_iter()
        .filter(|(table, _)| !table.rights.is_owned)
        .map(|(table, _)| &table.name)
        .collect();
    let why = match wanted {
        AllTables::Yes if role.is_superuser => {
            let message = format!("publication {name} can be created for all tables");
            return findings.ok(Side::Source, "publication", message);
        }
        AllTables::Yes => "only a superuser can publish all tables".to_owned(),
        AllTables::No if foreign.is_empty() && role.may_create => {
            let message = format!("publication {name} can be created for a list of tables");
            return findings.ok(Side::Source, "publication", message);
        }
        AllTables::No if foreign.is_empty() => {
            format!("role {} may not create publications in database {}", role.name, role.database)
        }
        AllTables::No => {
            format!("role {} does not own {} of the tables to publish: {}", role.name, foreign.len(), names(&foreign))
        }
    };
    findings
        .problem(Side::Source, "publication", format!("publication {name} cannot be created: {why}"))
        .remedy("let the owner of the tables (who needs CREATE on the database) or a superuser create it beforehand; walferry uses it:")
        .sql(sql);
}

/// Tables of which only some rows are published.
fn filtered(
    name: &str,
    published: &std::collections::HashMap<u32, Published>,
    tables: &Tables,
    findings: &mut Findings,
) {
    let is_filtered = |oid: u32| published.get(&oid).is_some_and(|published| published.row_filter.is_some());
    let filtered: Vec<&TableName> =
        tables.all.iter().filter(|table| is_filtered(table.oid)).map(|table| &table.name).collect();
    if !filtered.is_empty() {
        findings
            .warning(
                Side::Source,
                "row_filter",
                format!("publication {name} publishes only some rows of {}", names(&filtered)),
            )
            .remedy("only those are copied and followed: publish these tables without WHERE if all are wanted");
    }
}
