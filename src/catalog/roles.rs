//! The role that we are on a server, and what it may do.
//!
//! Invariant: our own role and its rights on the database, and on schemas as their
//! owner, are read here and nowhere else. What is granted is granted to it, never to the
//! connection's user: `ALTER ROLE … SET role` makes another one of that.

use std::collections::HashSet;

use crate::session::{DbContext, DbError, Session};

/// Our role on one of the servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Nothing is denied to it.
    pub is_superuser: bool,
    /// It has the attribute, or the membership that stands in for it.
    pub may_replicate: bool,
    /// CREATE on the database.
    pub may_create: bool,
    /// The database.
    pub database: String,
    /// Its connection limit, if there is one.
    pub connection_limit: Option<u32>,
    /// The database's connection limit, if there is one.
    pub database_connection_limit: Option<u32>,
}

/// `rds_replication` stands in for the attribute where a provider gives no role
/// REPLICATION.
const SQL: &str = "SELECT r.rolname::text, r.rolsuper, \
    r.rolreplication OR EXISTS (SELECT FROM pg_catalog.pg_roles p \
        WHERE p.rolname = 'rds_replication' AND pg_catalog.pg_has_role(p.oid, 'MEMBER')), \
    pg_catalog.has_database_privilege(d.oid, 'CREATE'), d.datname::text, r.rolconnlimit, d.datconnlimit \
    FROM pg_catalog.pg_roles r, pg_catalog.pg_database d \
    WHERE r.rolname = current_user AND d.datname = pg_catalog.current_database()";

/// Our role on the server of a session.
///
/// # Errors
/// When the server cannot be asked.
pub async fn current(session: &Session) -> Result<Role, DbError> {
    let row = session.query_one(SQL, &[]).await.during(session.side(), "read the role's rights")?;
    Ok(Role {
        name: row.take(0)?,
        is_superuser: row.take(1)?,
        may_replicate: row.take(2)?,
        may_create: row.take(3)?,
        database: row.take(4)?,
        connection_limit: limit(row.take(5)?),
        database_connection_limit: limit(row.take(6)?),
    })
}

/// The catalog has a negative number where there is no limit.
fn limit(number: i32) -> Option<u32> {
    u32::try_from(number).ok()
}

/// The roles of the server but for its own.
///
/// # Errors
/// When the server cannot be asked.
pub async fn names(session: &Session) -> Result<HashSet<String>, DbError> {
    let sql = "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_'";
    let rows = session.query(sql, &[]).await.during(session.side(), "list the roles")?;
    rows.iter().map(|row| row.take(0)).collect()
}

/// The schemas that are not our role's own: it may say nothing of them.
///
/// # Errors
/// When the server cannot be asked.
pub async fn schemas_of_others(session: &Session) -> Result<HashSet<String>, DbError> {
    let sql = "SELECT nspname::text FROM pg_catalog.pg_namespace WHERE NOT pg_catalog.pg_has_role(nspowner, 'USAGE')";
    let rows = session.query(sql, &[]).await.during(session.side(), "list the schemas of others")?;
    rows.iter().map(|row| row.take(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::testing::{Pair, SOURCE_OWNER, SOURCE_READER, SUPERUSER};

    #[tokio::test]
    async fn a_role_is_told_with_what_it_may_do_in_its_database() {
        let pair = Pair::new().await;
        let owner = current(&pair.source(SOURCE_OWNER).await).await.unwrap();
        assert_eq!(owner.name, SOURCE_OWNER);
        assert!(owner.may_create && !owner.is_superuser && !owner.may_replicate, "{owner:?}");
        assert!(!current(&pair.source(SOURCE_READER).await).await.unwrap().may_create);
        let superuser = current(&pair.source(SUPERUSER).await).await.unwrap();
        assert!(superuser.is_superuser && superuser.may_replicate, "{superuser:?}");
        assert_eq!(superuser.database, owner.database);
    }
}
