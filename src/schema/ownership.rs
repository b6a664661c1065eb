//! Owners and privileges: kept only when asked for (`--owners`, `--acl`), and
//! given last.
//!
//! Invariant: until the end everything on the target belongs to the role that
//! walferry uses; a role that is missing is known before anything is copied.
//!
//! Source: `_printTocEntry` in `src/bin/pg_dump/pg_backup_archiver.c` writes the
//! owner as an entry's last statement; `pg_shdepend` knows every role that is named.

use std::collections::BTreeSet;

use super::archive::Entry;
use super::kind::Kind;
use super::{SchemaError, classify};
use crate::catalog::roles;
use crate::config::Keep;
use crate::membership::{Part, SourceTable};
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::tokens::statement_length;
use crate::sql::{TableName, ident};
use crate::state::deferred::{Deferred, DeferredKind};

/// Roles that are to own something, each with a schema in which it is.
pub(super) type NewOwners = BTreeSet<(String, String)>;

/// What is given at the end, in the order in which an ordinary role can give it.
#[derive(Debug, Default)]
pub(super) struct Given {
    objects: Vec<(Rank, Deferred)>,
    /// The roles that are to own something.
    pub(super) new_owners: NewOwners,
}

/// A new owner needs CREATE in the schema, which the schema's owner or its
/// privileges give; a column's sequence follows its table, and must not go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    OwnerOfSchema,
    PrivilegesOfSchema,
    Owner,
    OwnerOfSequence,
    Privileges,
    DefaultPrivileges,
}

impl Given {
    /// Takes owners and privileges out of the entries of a section.
    pub(super) fn take(&mut self, entries: &mut Vec<Entry>) {
        let superusers = classify::superusers(entries);
        entries.retain_mut(|entry| {
            if !classify::is_wanted(entry) {
                return true;
            }
            let rank = match entry.kind {
                Kind::Acl if entry.name.starts_with("SCHEMA ") => Rank::PrivilegesOfSchema,
                Kind::Acl => Rank::Privileges,
                Kind::DefaultAcl => Rank::DefaultPrivileges,
                _ => {
                    self.take_owner(entry);
                    return true;
                }
            };
            let (sql, of_others) = by_grantor(&std::mem::take(&mut entry.sql));
            let mut object = deferred(&classify::describe(entry), entry, sql);
            if classify::is_administrators(entry, &superusers) {
                object.kind = DeferredKind::Administrator;
            }
            let named = format!("{}, given by others than the owner", object.object);
            let others =
                Deferred { object: named, sql: of_others, kind: DeferredKind::Administrator, ..object.clone() };
            self.objects
                .extend([object, others].into_iter().filter(|object| !object.sql.is_empty()).map(|o| (rank, o)));
            false
        });
    }

    fn take_owner(&mut self, entry: &mut Entry) {
        if entry.owner.is_empty() {
            return;
        }
        let Some((before, statement, behind)) = owner_statement(&entry.sql, &entry.owner) else { return };
        let rank = match entry.kind {
            Kind::Schema => Rank::OwnerOfSchema,
            Kind::Sequence => Rank::OwnerOfSequence,
            _ => Rank::Owner,
        };
        let mut owner = deferred(&format!("owner of {}", classify::describe(entry)), entry, statement.to_owned());
        if classify::needs_superuser(entry) || entry.kind == Kind::EventTrigger {
            owner.kind = DeferredKind::Administrator;
        }
        let rest = format!("{}{behind}", before.trim_end());
        self.objects.push((rank, owner));
        self.new_owners.insert((entry.owner.clone(), entry.schema.clone()));
        entry.sql = rest;
    }

    /// All of it, in order.
    pub(super) fn into_objects(mut self) -> Vec<Deferred> {
        self.objects.sort_by_key(|(rank, _)| *rank);
        self.objects.into_iter().map(|(_, object)| object).collect()
    }
}

fn deferred(object: &str, entry: &Entry, sql: String) -> Deferred {
    let table = TableName::new(entry.schema.clone(), "");
    Deferred {
        ordinal: 0,
        kind: DeferredKind::Other,
        table,
        object: object.to_owned(),
        sql,
        is_restored: false,
        follows: classify::follows(entry),
    }
}

/// The statements of privileges that the owner has given, and those that others have, who
/// had them with the grant option: only a superuser can take the part of these. As
/// `buildACLCommands` in `src/bin/pg_dump/dumputils.c` writes them.
fn by_grantor(sql: &str) -> (String, String) {
    let (mut owners, mut others): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let (mut at, mut is_anothers) = (0, false);
    while let Some(rest) = sql.get(at..).filter(|rest| !rest.trim().is_empty()) {
        let end = at + statement_length(rest);
        let statement = sql.get(at..end).unwrap_or_default().trim();
        is_anothers |= statement.starts_with("SET SESSION AUTHORIZATION ");
        if is_anothers {
            others.push(statement)
        } else {
            owners.push(statement)
        }
        is_anothers &= statement != "RESET SESSION AUTHORIZATION;";
        at = end;
    }
    (owners.join("\n"), others.join("\n"))
}

/// The statement that gives the object to its owner, with what is before and behind it:
/// pg_dump's last one, and what an older server needs besides ([`super::older`]).
fn owner_statement<'a>(sql: &'a str, owner: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let gives = [owner.to_owned(), ident(owner)].map(|owner| format!(" OWNER TO {owner};"));
    let (mut at, mut found) = (0, None);
    while let Some(rest) = sql.get(at..).filter(|rest| !rest.trim().is_empty()) {
        let end = at + statement_length(rest);
        let statement = sql.get(at..end).unwrap_or_default().trim();
        if statement.starts_with("ALTER ") && gives.iter().any(|gives| statement.ends_with(gives)) {
            found = Some((sql.get(..at)?, statement, sql.get(end..)?));
        }
        at = end;
    }
    found
}

/// Checks that every role that the schema names is on the target: those of
/// policies and user mappings, of privileges when these are kept, and the new
/// owners, which our role must be able to give objects to.
///
/// # Errors
/// [`SchemaError::Roles`] with the SQL that mends it.
pub(super) async fn require_roles(
    source: &Session,
    target: &Session,
    acl: Keep,
    tables: &[SourceTable],
    new_owners: &NewOwners,
) -> Result<(), SchemaError> {
    let left_out: Vec<u32> = tables
        .iter()
        .filter(|table| matches!(table.part, Part::Filtered | Part::LetIn))
        .map(|table| table.oid)
        .collect();
    let named = named_roles(source, acl, &left_out).await?;
    let owners: BTreeSet<&String> = new_owners.iter().map(|(owner, _)| owner).collect();
    let owners: Vec<String> = owners.into_iter().cloned().collect();
    let mut missing = missing_roles(target, &named, &owners).await?;
    missing.extend(missing_rights(target, new_owners).await?);
    if missing.is_empty() { Ok(()) } else { Err(SchemaError::Roles(missing)) }
}

/// The roles that policies and user mappings of the source name (pg_dump writes
/// all servers, whatever tables are asked for), and those of privileges when these
/// are kept; policies of the tables `left_out` (oids) do not count.
///
/// # Errors
/// When the catalog cannot be read.
async fn named_roles(source: &Session, acl: Keep, left_out: &[u32]) -> Result<Vec<String>, DbError> {
    // 'r' is a role of a policy, 'a' one of a list of privileges.
    let of_privileges = match acl {
        Keep::Yes => "OR d.deptype = 'a'",
        Keep::No => "",
    };
    let sql = format!(
        "SELECT DISTINCT r.rolname::text FROM pg_catalog.pg_shdepend d \
         JOIN pg_catalog.pg_database b ON b.oid = d.dbid AND b.datname = pg_catalog.current_database() \
         JOIN pg_catalog.pg_roles r ON r.oid = d.refobjid \
         WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND (d.deptype = 'r' AND NOT EXISTS \
            (SELECT FROM pg_catalog.pg_policy p WHERE p.oid = d.objid AND p.polrelid = ANY ($1::oid[])) {of_privileges}) \
         UNION SELECT m.usename::text FROM pg_catalog.pg_user_mappings m WHERE m.umuser <> 0 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d \
            WHERE d.classid = 'pg_catalog.pg_foreign_server'::pg_catalog.regclass AND d.objid = m.srvid AND d.deptype = 'e')"
    );
    let rows = source.query(&sql, &[&left_out]).await.during(source.side(), "list the roles that the schema names")?;
    rows.iter().map(|row| row.take(0)).collect()
}

/// The SQL that lets the new owners own something in the schemas that the target has and
/// that are not our role's: those are given away first. As `AlterObjectOwner_internal` in
/// `src/backend/commands/alter.c` asks for it.
async fn missing_rights(target: &Session, new_owners: &NewOwners) -> Result<Vec<String>, DbError> {
    let (owners, schemas): (Vec<&str>, Vec<&str>) =
        new_owners.iter().map(|(owner, schema)| (owner.as_str(), schema.as_str())).unzip();
    // A role that is to be created has what everybody has.
    let sql = "SELECT w.schema, w.owner FROM unnest($1::text[], $2::text[]) AS w (owner, schema) \
         JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema JOIN pg_catalog.pg_roles o ON o.rolname = current_user \
         LEFT JOIN pg_catalog.pg_roles r ON r.rolname = w.owner WHERE n.nspowner <> o.oid \
         AND NOT pg_catalog.has_schema_privilege(coalesce(r.rolname, 'public'), n.oid, 'CREATE') ORDER BY 1, 2";
    let rows = target.query(sql, &[&owners, &schemas]).await.during(target.side(), "look what new owners may do")?;
    let grant = |row: &Row| {
        let (schema, owner): (&str, &str) = (row.take(0)?, row.take(1)?);
        Ok(format!("GRANT CREATE ON SCHEMA {} TO {};", ident(schema), ident(owner)))
    };
    rows.iter().map(grant).collect()
}

/// The SQL that makes the target have these roles, and our role able to give
/// objects to the `owners`; nothing when all is well.
///
/// # Errors
/// When the catalog cannot be read.
pub(crate) async fn missing_roles(
    target: &Session,
    named: &[String],
    owners: &[String],
) -> Result<Vec<String>, DbError> {
    let all: BTreeSet<&str> = named.iter().chain(owners).map(String::as_str).collect();
    let all: Vec<&str> = all.into_iter().collect();
    let owners: Vec<&str> = owners.iter().map(String::as_str).collect();
    // Membership with SET is what ALTER … OWNER asks for from 16 on.
    let right = if target.version() >= 160_000 { "SET" } else { "MEMBER" };
    let sql = format!(
        "SELECT w.name, r.oid IS NULL, w.name = ANY ($2::text[]) AND NOT coalesce(pg_catalog.pg_has_role(current_user, r.oid, '{right}'), false) \
         FROM unnest($1::text[]) AS w (name) LEFT JOIN pg_catalog.pg_roles r ON r.rolname = w.name ORDER BY 1"
    );
    let rows = target.query(&sql, &[&all, &owners]).await.during(target.side(), "look for the roles")?;
    let ours = roles::current(target).await?.name;
    let mut missing = Vec::new();
    for row in &rows {
        let name: &str = row.take(0)?;
        if row.take(1)? {
            missing.push(format!("CREATE ROLE {};", ident(name)));
        }
        if row.take(2)? {
            missing.push(format!("GRANT {} TO {};", ident(name), ident(&ours)));
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, name: &str, sql: &str) -> Entry {
        Entry {
            name: name.into(),
            kind: kind.into(),
            schema: "s".into(),
            owner: "o".into(),
            sql: sql.into(),
            ..Entry::default()
        }
    }

    #[test]
    fn an_owner_is_the_last_statement_and_nothing_else_is_taken() {
        let body = "CREATE FUNCTION s.f() BEGIN ATOMIC SELECT ';'; END;";
        let mut entries = vec![
            entry("FUNCTION", "f()", &format!("{body}\n\n\nALTER FUNCTION s.f() OWNER TO o;")),
            entry("TABLE", "a; OWNER TO b", "CREATE TABLE s.\"a; OWNER TO b\" (\n);"),
        ];
        let mut given = Given::default();
        given.take(&mut entries);
        assert_eq!(entries[0].sql, body);
        let of_older = entry(
            "TABLE",
            "c",
            "CREATE TABLE s.c ();\n\nALTER TABLE s.c OWNER TO o;\n\nALTER TABLE s.c ALTER a SET NOT NULL;",
        );
        let mut given_of_older = Given::default();
        let mut of_older = vec![of_older];
        given_of_older.take(&mut of_older);
        assert_eq!(of_older[0].sql, "CREATE TABLE s.c ();\n\nALTER TABLE s.c ALTER a SET NOT NULL;");
        assert_eq!(given_of_older.into_objects()[0].sql, "ALTER TABLE s.c OWNER TO o;");
        assert_eq!(entries[1].sql, "CREATE TABLE s.\"a; OWNER TO b\" (\n);");
        let objects = given.into_objects();
        assert_eq!(objects.len(), 1);
        assert_eq!(objects[0].sql, "ALTER FUNCTION s.f() OWNER TO o;");
    }

    #[test]
    fn what_others_than_the_owner_have_given_is_apart() {
        let sql = "GRANT SELECT ON TABLE s.t TO a WITH GRANT OPTION;\nSET SESSION AUTHORIZATION a;\n\
                   GRANT SELECT ON TABLE s.t TO b;\nRESET SESSION AUTHORIZATION;\nGRANT SELECT ON TABLE s.t TO c;\n";
        let (owners, others) = by_grantor(sql);
        assert_eq!(owners, "GRANT SELECT ON TABLE s.t TO a WITH GRANT OPTION;\nGRANT SELECT ON TABLE s.t TO c;");
        assert_eq!(
            others,
            "SET SESSION AUTHORIZATION a;\nGRANT SELECT ON TABLE s.t TO b;\nRESET SESSION AUTHORIZATION;"
        );
    }

    #[test]
    fn schemas_go_first_and_default_privileges_last() {
        let mut entries = vec![
            entry("DEFAULT ACL", "DEFAULT PRIVILEGES FOR TABLES", "d;"),
            entry("ACL", "TABLE t", "t;"),
            entry("SEQUENCE", "q", "CREATE SEQUENCE s.q;\n\nALTER SEQUENCE s.q OWNER TO o;"),
            entry("TABLE", "t", "CREATE TABLE s.t ();\n\nALTER TABLE s.t OWNER TO o;"),
            entry("ACL", "SCHEMA s", "a;"),
            entry("SCHEMA", "s", "CREATE SCHEMA s;\n\nALTER SCHEMA s OWNER TO o;"),
        ];
        let mut given = Given::default();
        given.take(&mut entries);
        assert_eq!(entries.len(), 3);
        assert_eq!(given.new_owners, BTreeSet::from([("o".to_owned(), "s".to_owned())]));
        let sql: Vec<String> = given.into_objects().into_iter().map(|object| object.sql).collect();
        assert_eq!(
            sql,
            [
                "ALTER SCHEMA s OWNER TO o;",
                "a;",
                "ALTER TABLE s.t OWNER TO o;",
                "ALTER SEQUENCE s.q OWNER TO o;",
                "t;",
                "d;"
            ]
        );
    }
}
