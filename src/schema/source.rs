//! What the source's catalog says about objects that pg_dump leaves to us.

use std::collections::HashSet;

use super::SchemaError;
use crate::catalog::extensions;
use crate::catalog::named::kinds;
use crate::catalog::tables::Shape;
use crate::membership::SourceTable;
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::TableName;

/// The partitioned tables of the source.
pub(super) type PartitionedTables = HashSet<TableName>;

/// The partitioned ones among `tables`.
pub(super) fn partitioned(tables: &[SourceTable]) -> PartitionedTables {
    tables.iter().filter(|t| t.shape == Shape::Partitioned).map(|t| t.name.clone()).collect()
}

/// Checks that the target offers every extension the source uses.
///
/// # Errors
/// [`SchemaError::Extensions`] names those it does not.
pub(super) async fn require_extensions(source: &Session, target: &Session) -> Result<(), SchemaError> {
    let missing = missing_extensions(source, target).await?;
    if missing.is_empty() { Ok(()) } else { Err(SchemaError::Extensions(missing)) }
}

/// The extensions of the source that the target does not offer.
///
/// # Errors
/// When a catalog cannot be read.
pub(super) async fn missing_extensions(source: &Session, target: &Session) -> Result<Vec<String>, DbError> {
    let there: HashSet<String> = extensions::list(target).await?.into_iter().map(|extension| extension.name).collect();
    let used = extensions::list(source).await?.into_iter().map(|extension| extension.name);
    let absent: Vec<String> = used.filter(|name| !there.contains(name)).collect();
    let sql = "SELECT used FROM unnest($1::text[]) AS used WHERE NOT EXISTS \
             (SELECT FROM pg_catalog.pg_available_extensions a WHERE a.name = used)";
    let missing = target.query(sql, &[&absent]).await.during(target.side(), "list the extensions that can be had")?;
    missing.iter().map(|row| row.take(0)).collect()
}

/// The indexes of these tables that are parts of a partitioned table's, as
/// pg_dump names them: "index", and "table constraint", with the schema.
///
/// # Errors
/// When the catalog cannot be read.
pub(super) async fn inherited_indexes(source: &Session, tables: &[u32]) -> Result<HashSet<(String, String)>, DbError> {
    let rows = source
        .query(
            "SELECT n.nspname::text, name FROM pg_catalog.pg_index x JOIN pg_catalog.pg_inherits h ON h.inhrelid = x.indexrelid \
             JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid JOIN pg_catalog.pg_class c ON c.oid = x.indrelid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace, \
             LATERAL (VALUES (i.relname::text), (c.relname || ' ' || i.relname)) AS named (name) \
             WHERE x.indrelid = ANY ($1::oid[])",
            &[&tables],
        )
        .await
        .during(source.side(), "list the indexes of partitions")?;
    rows.iter().map(|row| Ok((row.take(0)?, row.take(1)?))).collect()
}

/// Every materialized view that holds data on the source, each after those it
/// reads, directly or through views.
///
/// # Errors
/// When the catalog cannot be read.
pub(super) async fn filled_views(source: &Session, left_out: &[TableName]) -> Result<Vec<TableName>, DbError> {
    let rows = source
        .query(
            "WITH RECURSIVE edge AS ( \
                SELECT DISTINCT r.ev_class AS reader, d.refobjid AS read FROM pg_catalog.pg_rewrite r \
                JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid \
                    AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid <> r.ev_class \
                WHERE r.rulename = '_RETURN'), \
             reach (view, read) AS (SELECT reader, read FROM edge UNION \
                SELECT reach.view, edge.read FROM reach JOIN edge ON edge.reader = reach.read) \
             SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'm' AND c.relispopulated AND n.nspname <> 'walferry' AND NOT EXISTS \
                (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') \
             ORDER BY (SELECT pg_catalog.count(*) FROM reach JOIN pg_catalog.pg_class m ON m.oid = reach.read AND m.relkind = 'm' \
                WHERE reach.view = c.oid), 1, 2",
            &[],
        )
        .await
        .during(source.side(), "list the materialized views")?;
    let views: Vec<TableName> = rows.iter().map(named).collect::<Result<_, _>>()?;
    Ok(views.into_iter().filter(|view| !left_out.contains(view)).collect())
}

/// The sequences that defaults of these tables use and the target does not have.
/// pg_dump brings those that a column owns with its table, and no others.
///
/// # Errors
/// When a catalog cannot be read.
pub(super) async fn sequences_of_defaults(
    source: &Session,
    target: &Session,
    tables: &[SourceTable],
) -> Result<Vec<TableName>, DbError> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let sql = "SELECT DISTINCT n.nspname::text, s.relname::text FROM pg_catalog.pg_attrdef f \
         JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = f.oid \
            AND d.refclassid = 'pg_catalog.pg_class'::regclass \
         JOIN pg_catalog.pg_class s ON s.oid = d.refobjid AND s.relkind = 'S' JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace \
         WHERE f.adrelid = ANY ($1::oid[]) ORDER BY 1, 2";
    let rows = source.query(sql, &[&oids]).await.during(source.side(), "list the sequences of the tables' defaults")?;
    let used: Vec<TableName> = rows.iter().map(named).collect::<Result<_, _>>()?;
    let there = kinds(target, &used).await?;
    Ok(used.into_iter().filter(|sequence| !there.contains_key(sequence)).collect())
}

/// The name in the first two columns.
fn named(row: &Row) -> Result<TableName, DbError> {
    Ok(TableName { schema: row.take(0)?, name: row.take(1)? })
}
