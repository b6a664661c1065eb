//! What others have in a schema beside its own tables, or have made of these.
//!
//! Source: `src/backend/catalog/dependency.c`; what an own table takes along (its
//! types, keys, sequences, triggers) depends on it automatically or internally.

use crate::session::{DbContext, DbError, Session};
use crate::sql::TableName;

/// An object that is not the schema's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// For people, in the server's words: "view shop.progress".
    pub description: String,
    /// What drops it; none where there is no plain statement.
    pub sql: Option<String>,
}

/// Relations that are in a schema beside its own tables, each with the first words of
/// the statement that alters one of its kind. Sequences of columns go with these.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn relations(session: &Session, schema: &str, own: &[&str]) -> Result<Vec<(TableName, String)>, DbError> {
    let sql = "SELECT n.nspname::text, c.relname::text, 'ALTER ' || CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' \
            WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1::text AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND NOT (c.relkind = 'r' AND c.relname = ANY ($2::text[])) \
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
                AND d.objid = c.oid AND d.objsubid = 0 AND (d.deptype = 'e' OR (c.relkind = 'S' AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')))) ORDER BY 1, 2";
    let rows = session.query(sql, &[&schema, &own]).await;
    let rows = rows.during(session.side(), format!("look for what else is in the schema {schema}"))?;
    rows.iter().map(|row| Ok((TableName { schema: row.take(0)?, name: row.take(1)? }, row.take(2)?))).collect()
}

/// What keeps the schema from being dropped with these tables and nothing else: in an
/// order in which it can be dropped.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn strangers(session: &Session, schema: &str, own: &[&str]) -> Result<Vec<Stranger>, DbError> {
    // A view depends by its rule. What depends on a table's column is not the table's.
    let sql = "WITH RECURSIVE part (classid, objid) AS ( \
          SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, c.oid FROM pg_catalog.pg_class c \
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1::text AND c.relname = ANY ($2::text[]) AND c.relkind = 'r' \
          UNION SELECT d.classid, d.objid FROM part p JOIN pg_catalog.pg_depend d \
            ON d.refclassid = p.classid AND d.refobjid = p.objid AND d.deptype IN ('a', 'i')), \
        other (classid, objid, objsubid, depth) AS ( \
          SELECT classid, objid, 0, 0 FROM part \
          UNION SELECT e.classid, e.objid, e.objsubid, o.depth + 1 FROM other o \
            JOIN pg_catalog.pg_depend d ON d.refclassid = o.classid AND d.refobjid = o.objid AND o.objsubid = 0 \
              AND (d.deptype = 'n' OR (o.depth > 0 AND d.deptype = 'i' AND d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass)) \
            LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid AND r.rulename = '_RETURN' \
            CROSS JOIN LATERAL (SELECT CASE WHEN r.oid IS NULL THEN d.classid ELSE 'pg_catalog.pg_class'::pg_catalog.regclass END, \
              coalesce(r.ev_class, d.objid), CASE WHEN r.oid IS NULL THEN d.objsubid ELSE 0 END) AS e (classid, objid, objsubid) \
            WHERE NOT EXISTS (SELECT FROM part p WHERE p.classid = e.classid AND p.objid = e.objid) \
              AND (e.classid, e.objid) <> (o.classid, o.objid) AND o.depth < 20), \
        all_of (classid, objid, objsubid, depth) AS ( \
          SELECT classid, objid, objsubid, depth FROM other WHERE depth > 0 \
          UNION ALL SELECT d.classid, d.objid, 0, 0 FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_namespace n ON n.oid = d.refobjid \
            WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND n.nspname = $1::text AND d.deptype = 'n' \
              AND NOT EXISTS (SELECT FROM part p WHERE p.classid = d.classid AND p.objid = d.objid) \
              AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend x WHERE x.classid = d.classid AND x.objid = d.objid AND x.deptype IN ('e', 'i'))) \
        SELECT pg_catalog.pg_describe_object(a.classid, a.objid, a.objsubid), CASE \
            WHEN i.type = 'table constraint' THEN (SELECT pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I;', k.conrelid::pg_catalog.regclass, k.conname) \
              FROM pg_catalog.pg_constraint k WHERE k.oid = a.objid) \
            WHEN i.type = 'table column' THEN (SELECT pg_catalog.format('ALTER TABLE %s DROP COLUMN %I;', t.attrelid::pg_catalog.regclass, t.attname) \
              FROM pg_catalog.pg_attribute t WHERE t.attrelid = a.objid AND t.attnum = a.objsubid) \
            WHEN i.type = 'statistics object' THEN 'DROP STATISTICS ' || i.identity || ';' \
            WHEN i.type = 'composite type' THEN 'DROP TYPE ' || i.identity || ';' \
            WHEN i.type IN ('table', 'foreign table', 'view', 'materialized view', 'sequence', 'function', 'procedure', 'aggregate', 'type', 'rule', \
              'trigger', 'policy', 'operator', 'collation', 'conversion', 'extension', 'text search configuration', 'text search dictionary') \
            THEN 'DROP ' || pg_catalog.upper(i.type) || ' ' || i.identity || ';' END \
        FROM (SELECT classid, objid, objsubid, pg_catalog.max(depth) FROM all_of GROUP BY 1, 2, 3) AS a (classid, objid, objsubid, depth) \
        CROSS JOIN LATERAL pg_catalog.pg_identify_object(a.classid, a.objid, a.objsubid) AS i \
        WHERE NOT (a.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND a.depth > 0 AND EXISTS \
          (SELECT FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid \
            WHERE t.oid = a.objid AND (t.typcategory = 'A' OR c.relkind <> 'c'))) \
        ORDER BY a.depth DESC, 1";
    let rows = session.query(sql, &[&schema, &own]).await;
    let rows = rows.during(session.side(), format!("look for what others have in the schema {schema}"))?;
    rows.iter().map(|row| Ok(Stranger { description: row.take(0)?, sql: row.take(1)? })).collect()
}
