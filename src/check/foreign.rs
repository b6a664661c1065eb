//! Foreign servers: what pg_dump's definitions of them ask of the target.
//!
//! Source: `CreateForeignServer`, `CreateUserMapping` in
//! `src/backend/commands/foreigncmds.c`: a server takes USAGE on its wrapper,
//! which only a superuser creates, and a mapping the role it is for. pg_dump
//! writes all servers of a database, whatever tables are asked for.

use super::findings::names;
use super::{CheckError, Findings};
use crate::config::Side;
use crate::session::{DbContext, Session};
use crate::sql::ident;

/// What the source's servers need.
pub(super) struct Needs {
    /// Wrappers of servers.
    wrappers: Vec<String>,
    /// Roles with user mappings.
    roles: Vec<String>,
}

impl Needs {
    /// Reads them from the source.
    pub(super) async fn read(source: &Session) -> Result<Self, CheckError> {
        // Servers that CREATE EXTENSION makes come with it.
        let of_extension = "EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_foreign_server'::regclass AND d.objid = s.oid AND d.deptype = 'e')";
        let wrappers = format!(
            "SELECT DISTINCT w.fdwname::text FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw \
             WHERE NOT {of_extension} ORDER BY 1"
        );
        let roles = format!(
            "SELECT DISTINCT m.usename::text FROM pg_user_mappings m JOIN pg_foreign_server s ON s.oid = m.srvid \
             WHERE m.umuser <> 0 AND NOT {of_extension} ORDER BY 1"
        );
        let wrappers = source.query(&wrappers, &[]).await.during(Side::Source, "list the foreign data wrappers")?;
        let roles = source.query(&roles, &[]).await.during(Side::Source, "list the user mappings")?;
        Ok(Needs {
            wrappers: wrappers.iter().map(|row| row.take(0)).collect::<Result<_, _>>()?,
            roles: roles.iter().map(|row| row.take(0)).collect::<Result<_, _>>()?,
        })
    }
}

pub(super) async fn check(needs: &Needs, target: &Session, findings: &mut Findings) -> Result<(), CheckError> {
    let sql = "SELECT name, current_user::text, w.oid IS NOT NULL, \
         coalesce(has_foreign_data_wrapper_privilege(w.oid, 'USAGE'), false), \
         (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) \
         FROM unnest($1::text[]) AS name LEFT JOIN pg_foreign_data_wrapper w ON w.fdwname = name ORDER BY 1";
    let rows =
        target.query(sql, &[&needs.wrappers]).await.during(Side::Target, "look for the foreign data wrappers")?;
    for row in &rows {
        let (wrapper, role): (String, String) = (row.take(0)?, row.take(1)?);
        let (is_there, may_use, is_superuser): (bool, bool, bool) = (row.take(2)?, row.take(3)?, row.take(4)?);
        if may_use || (!is_there && is_superuser) {
            continue;
        }
        let grant = format!("GRANT USAGE ON FOREIGN DATA WRAPPER {} TO {};", ident(&wrapper), ident(&role));
        if is_there {
            let message = format!("role {role} may not make servers of the foreign data wrapper {wrapper}");
            findings.problem(Side::Target, "foreign_data", message).remedy("let its owner run this:").sql(grant);
        } else {
            let message = format!(
                "foreign servers of the source need the foreign data wrapper {wrapper}, which only a superuser can create"
            );
            findings
                .warning(Side::Target, "foreign_data", message)
                .remedy("have it created beforehand (as a rule by CREATE EXTENSION), and then:")
                .sql(grant);
        }
    }
    let sql = "SELECT name FROM unnest($1::text[]) AS name WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) ORDER BY 1";
    let rows = target.query(sql, &[&needs.roles]).await.during(Side::Target, "look for roles of user mappings")?;
    let missing: Vec<String> = rows.iter().map(|row| row.take(0)).collect::<Result<_, _>>()?;
    if missing.is_empty() {
        return Ok(());
    }
    let finding = findings.problem(
        Side::Target,
        "foreign_data",
        format!("roles that user mappings of foreign servers name are not there: {}", names(&missing)),
    );
    finding.remedy("let an administrator run this, or drop the mappings on the source:");
    for role in &missing {
        finding.sql(format!("CREATE ROLE {} NOLOGIN;", ident(role)));
    }
    Ok(())
}
