//! The extensions of a database, and what they keep of the user's: rows of their
//! configuration tables.
//!
//! Source: `pg_extension_config_dump` in `src/backend/commands/extension.c`;
//! `processExtensionTables` in `src/bin/pg_dump/pg_dump.c`.

use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::TableName;

/// An extension that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// The schema of its objects.
    pub schema: String,
    /// Whether ALTER EXTENSION can move them into another one.
    pub is_relocatable: bool,
}

/// The extensions of the session's database by name.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn list(session: &Session) -> Result<Vec<Extension>, DbError> {
    let sql = "SELECT e.extname::text, n.nspname::text, e.extrelocatable FROM pg_catalog.pg_extension e \
         JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace ORDER BY 1";
    let rows = session.query(sql, &[]).await.during(session.side(), "list the extensions")?;
    let extension =
        |row: &Row| Ok(Extension { name: row.take(0)?, schema: row.take(1)?, is_relocatable: row.take(2)? });
    rows.iter().map(extension).collect()
}

/// A table (or sequence) of an extension whose rows are the user's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigTable {
    /// The extension.
    pub extension: String,
    /// The table.
    pub table: TableName,
    /// What it is.
    pub kind: ConfigKind,
    /// Which of the rows are the user's: empty, or "WHERE …".
    pub condition: String,
    /// Its columns that are not computed, in order.
    pub columns: Vec<String>,
    /// Whether the session's role may read it.
    pub may_read: bool,
    /// Whether the session's role may put rows in and take them away.
    pub may_write: bool,
}

/// What a configuration table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigKind {
    /// A table with rows.
    Table,
    /// A sequence with a position.
    Sequence,
}

/// The configuration tables of the session's database, in the order in which
/// their extensions name them.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn config_tables(session: &Session) -> Result<Vec<ConfigTable>, DbError> {
    let generated = if session.version() >= 120_000 { "AND a.attgenerated = ''" } else { "" };
    let sql = format!(
        "SELECT e.extname::text, n.nspname::text, c.relname::text, c.relkind = 'S', coalesce(x.condition, ''), \
           ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 \
             AND NOT a.attisdropped {generated} ORDER BY a.attnum), \
           pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT') \
             AND NOT pg_catalog.row_security_active(c.oid), \
           pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND CASE c.relkind WHEN 'S' THEN pg_catalog.has_sequence_privilege(c.oid, 'UPDATE') \
             ELSE pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'INSERT') \
               AND pg_catalog.has_table_privilege(c.oid, 'DELETE') END \
         FROM pg_catalog.pg_extension e CROSS JOIN LATERAL unnest(e.extconfig, e.extcondition) WITH ORDINALITY AS x (oid, condition, place) \
         JOIN pg_catalog.pg_class c ON c.oid = x.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'S') ORDER BY e.oid, x.place"
    );
    let rows = session.query(&sql, &[]).await.during(session.side(), "list the configuration tables of extensions")?;
    rows.iter()
        .map(|row| {
            Ok(ConfigTable {
                extension: row.take(0)?,
                table: TableName { schema: row.take(1)?, name: row.take(2)? },
                kind: if row.take(3)? { ConfigKind::Sequence } else { ConfigKind::Table },
                condition: row.take(4)?,
                columns: row.take(5)?,
                may_read: row.take(6)?,
                may_write: row.take(7)?,
            })
        })
        .collect()
}
