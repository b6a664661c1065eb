//! What belongs to the database itself and to no object in it: its locale, its
//! settings, its privileges, its comment.
//!
//! Source: `pg_database`, `pg_db_role_setting`, `pg_shdescription`; `dumpDatabase`
//! in `src/bin/pg_dump/pg_dump.c`.

use std::collections::BTreeSet;

use crate::session::{DbContext, DbError, Session};
use crate::sql::TableName;

/// A database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// What decides how text sorts and what a letter is, in words.
    pub locale: String,
    /// Its comment.
    pub comment: Option<String>,
    /// The comment on the schema public.
    pub comment_on_public: Option<String>,
}

/// A setting for every session of the database, or of a role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DatabaseSetting {
    /// The role it is for; all roles otherwise.
    pub role: Option<String>,
    /// Its name.
    pub name: String,
    /// Its value, as it is kept.
    pub value: String,
}

/// A privilege on the database.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DatabasePrivilege {
    /// Who has it; everybody otherwise.
    pub grantee: Option<String>,
    /// CONNECT, CREATE, TEMPORARY.
    pub privilege: String,
    /// Whether it can be passed on.
    pub is_grantable: bool,
}

/// The database of a session.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn read(session: &Session) -> Result<Database, DbError> {
    // Providers came with 15; their locale has had two names.
    let locale = match session.version() {
        170_000.. => {
            "pg_catalog.concat_ws(', ', 'provider ' || d.datlocprovider::text, d.datcollate, d.datctype, d.datlocale)"
        }
        150_000.. => {
            "pg_catalog.concat_ws(', ', 'provider ' || d.datlocprovider::text, d.datcollate, d.datctype, d.daticulocale)"
        }
        _ => "pg_catalog.concat_ws(', ', 'provider c', d.datcollate, d.datctype)",
    };
    let sql = format!(
        "SELECT d.datname::text, {locale}, pg_catalog.shobj_description(d.oid, 'pg_database'), \
           pg_catalog.obj_description((SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'public'), 'pg_namespace') \
         FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()"
    );
    let row = session.query_one(&sql, &[]).await.during(session.side(), "read the database's properties")?;
    Ok(Database { name: row.take(0)?, locale: row.take(1)?, comment: row.take(2)?, comment_on_public: row.take(3)? })
}

/// The settings of the session's database, for all roles and for single ones.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn settings(session: &Session) -> Result<BTreeSet<DatabaseSetting>, DbError> {
    let sql = "SELECT r.rolname::text, pg_catalog.split_part(item, '=', 1), pg_catalog.substr(item, pg_catalog.strpos(item, '=') + 1) \
         FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase \
         LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole, pg_catalog.unnest(s.setconfig) AS item \
         WHERE d.datname = pg_catalog.current_database() AND (s.setrole = 0 OR r.oid IS NOT NULL)";
    let rows = session.query(sql, &[]).await.during(session.side(), "list the database's settings")?;
    rows.iter().map(|row| Ok(DatabaseSetting { role: row.take(0)?, name: row.take(1)?, value: row.take(2)? })).collect()
}

/// The settings of roles in all databases of the server.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn role_settings(session: &Session) -> Result<BTreeSet<DatabaseSetting>, DbError> {
    let sql = "SELECT r.rolname::text, pg_catalog.split_part(item, '=', 1), pg_catalog.substr(item, pg_catalog.strpos(item, '=') + 1) \
         FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_roles r ON r.oid = s.setrole, pg_catalog.unnest(s.setconfig) AS item \
         WHERE s.setdatabase = 0";
    let rows = session.query(sql, &[]).await.during(session.side(), "list the roles' settings")?;
    rows.iter().map(|row| Ok(DatabaseSetting { role: row.take(0)?, name: row.take(1)?, value: row.take(2)? })).collect()
}

/// The privileges on the session's database but for its owner's.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn privileges(session: &Session) -> Result<BTreeSet<DatabasePrivilege>, DbError> {
    let sql = "SELECT r.rolname::text, a.privilege_type, a.is_grantable FROM pg_catalog.pg_database d \
         CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a \
         LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee \
         WHERE d.datname = pg_catalog.current_database() AND a.grantee <> d.datdba AND (a.grantee = 0 OR r.oid IS NOT NULL)";
    let rows = session.query(sql, &[]).await.during(session.side(), "list the database's privileges")?;
    rows.iter()
        .map(|row| Ok(DatabasePrivilege { grantee: row.take(0)?, privilege: row.take(1)?, is_grantable: row.take(2)? }))
        .collect()
}

/// Tables partitioned by ranges of text in the database's own order.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn sorted_partitions(session: &Session) -> Result<Vec<TableName>, DbError> {
    // 100 is "default" (`DEFAULT_COLLATION_OID`).
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_partitioned_table p \
         JOIN pg_catalog.pg_class c ON c.oid = p.partrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE p.partstrat = 'r' AND 100 = ANY (p.partcollation::oid[]) ORDER BY 1, 2";
    let rows = session.query(sql, &[]).await.during(session.side(), "list the tables partitioned by text")?;
    rows.iter().map(|row| Ok(TableName { schema: row.take(0)?, name: row.take(1)? })).collect()
}
