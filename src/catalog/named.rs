//! Relations, and schemas, by their names.
//!
//! Not `to_regclass`: it refuses where the schema may not be used.

use std::collections::{HashMap, HashSet};

use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::TableName;

/// For FROM: the relations of the names that are given as the parameters `$1` and `$2`,
/// which are [`lists`]; `c` is the relation, `n` its schema. One that is not there is left
/// out.
pub const NAMED: &str = "unnest($1::text[], $2::text[]) AS named (schema, name) \
    JOIN pg_catalog.pg_namespace n ON n.nspname = named.schema \
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = named.name";

/// The oids of these relations, as a query in brackets.
pub fn oids() -> String {
    format!("(SELECT c.oid FROM {NAMED})")
}

/// The same with the partitions that their rows go to.
pub fn oids_below() -> String {
    format!(
        "(WITH RECURSIVE below (oid) AS (SELECT c.oid FROM {NAMED} UNION \
         SELECT i.inhrelid FROM below b JOIN pg_catalog.pg_class c ON c.oid = b.oid AND c.relkind = 'p' \
         JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid) SELECT oid FROM below)"
    )
}

/// Schemas and names, as [`NAMED`] takes them.
pub fn lists<'n>(names: impl IntoIterator<Item = &'n TableName>) -> (Vec<&'n str>, Vec<&'n str>) {
    names.into_iter().map(|table| (table.schema.as_str(), table.name.as_str())).unzip()
}

/// The oid of the relation that these expressions, a schema and a name, are of; NULL when
/// there is none.
pub fn oid_of(schema: &str, name: &str) -> String {
    format!(
        "(SELECT named.oid FROM pg_catalog.pg_class named JOIN pg_catalog.pg_namespace within ON within.oid = named.relnamespace \
         WHERE within.nspname = {schema} AND named.relname = {name})"
    )
}

/// What has these names, as far as something has, with its letter in `pg_class.relkind`.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn kinds(
    session: &Session,
    names: impl IntoIterator<Item = &TableName>,
) -> Result<HashMap<TableName, char>, DbError> {
    let (schemas, names) = lists(names);
    let sql = format!("SELECT n.nspname::text, c.relname::text, c.relkind::text FROM {NAMED}");
    let rows = session.query(&sql, &[&schemas, &names]).await.during(session.side(), "look what has these names")?;
    let kind = |row: &Row| {
        let letter = row.take::<&str>(2)?.chars().next().unwrap_or_default();
        Ok((TableName { schema: row.take(0)?, name: row.take(1)? }, letter))
    };
    rows.iter().map(kind).collect()
}

/// Those of these schemas that are there.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn schemas(session: &Session, names: &[&str]) -> Result<HashSet<String>, DbError> {
    let sql = "SELECT nspname::text FROM pg_catalog.pg_namespace WHERE nspname = ANY ($1::text[])";
    let rows = session.query(sql, &[&names]).await.during(session.side(), "look which schemas are there")?;
    rows.iter().map(|row| row.take(0)).collect()
}
