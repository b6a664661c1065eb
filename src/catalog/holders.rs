//! What has a name on a server already, and the statement that drops it. An index is
//! renamed: the table that it is of may be needed, and its key with it.
//!
//! Invariant: the statement is that of what is there, whatever was to be created
//! under the name: tables, views, sequences, indexes and types share their names;
//! routines and statistics objects have names of their own.
//!
//! Source: `heap_create_with_catalog` in `src/backend/catalog/heap.c` (relations
//! and types), `ProcedureCreate` in `pg_proc.c`.

use std::collections::HashMap;

use crate::session::{DbContext, DbError, Session};
use crate::sql::TableName;

/// A name that something is to be created under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// A relation's or a type's.
    Relation(TableName),
    /// A routine's, with the types of what it takes.
    Routine(TableName),
    /// A statistics object's.
    Statistics(TableName),
}

impl Wanted {
    fn parts(&self) -> (&'static str, &TableName) {
        match self {
            Wanted::Relation(name) => ("relation", name),
            Wanted::Routine(name) => ("routine", name),
            Wanted::Statistics(name) => ("statistics", name),
        }
    }
}

/// An index is renamed, or goes with its constraint, and an extension's objects
/// with the extension. A table's row type is the table.
const HOLDERS: &str = "WITH wanted AS (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS w (what, schema, name)), \
    found (what, schema, name, class, oid, sql) AS ( \
      SELECT w.what, w.schema, w.name, 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, \
        CASE WHEN c.relkind IN ('i', 'I') THEN pg_catalog.format('ALTER INDEX IF EXISTS %I.%I RENAME TO %I; -- or, if it is not needed: ', \
            n.nspname, c.relname, pg_catalog.left(c.relname, 50) || '_elsewhere') ELSE '' END || \
        CASE WHEN k.oid IS NOT NULL THEN pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I CASCADE;', k.conrelid::pg_catalog.regclass, k.conname) \
        ELSE pg_catalog.format('DROP %s IF EXISTS %I.%I CASCADE;', CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' \
          WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'i' THEN 'INDEX' WHEN 'I' THEN 'INDEX' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, \
          n.nspname, c.relname) END \
      FROM wanted w JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema \
      JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name \
      LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = c.oid AND k.contype IN ('p', 'u', 'x') WHERE w.what = 'relation' \
    UNION ALL \
      SELECT w.what, w.schema, w.name, 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, \
        pg_catalog.format('DROP %s IF EXISTS %I.%I CASCADE;', CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, n.nspname, t.typname) \
      FROM wanted w JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema \
      JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname = w.name AND t.typrelid = 0 WHERE w.what = 'relation' \
    UNION ALL \
      SELECT w.what, w.schema, w.name, 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, pg_catalog.format('DROP %s IF EXISTS %s CASCADE;', \
        CASE pg_catalog.to_jsonb(p) ->> 'prokind' WHEN 'p' THEN 'PROCEDURE' WHEN 'a' THEN 'AGGREGATE' ELSE 'FUNCTION' END, p.oid::pg_catalog.regprocedure) \
      FROM wanted w JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid \
        AND pg_catalog.format('%s(%s)', p.proname, (SELECT pg_catalog.string_agg(pg_catalog.format_type(a.type, NULL), ', ' ORDER BY a.n) \
          FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY AS a (type, n))) = w.name WHERE w.what = 'routine' \
    UNION ALL \
      SELECT w.what, w.schema, w.name, 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid, \
        pg_catalog.format('DROP STATISTICS IF EXISTS %I.%I CASCADE;', n.nspname, s.stxname) \
      FROM wanted w JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema \
      JOIN pg_catalog.pg_statistic_ext s ON s.stxnamespace = n.oid AND s.stxname = w.name WHERE w.what = 'statistics') \
    SELECT f.what, f.schema, f.name, coalesce((SELECT pg_catalog.format('DROP EXTENSION IF EXISTS %I CASCADE;', e.extname) \
      FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid \
      WHERE d.classid = f.class AND d.objid = f.oid AND d.deptype = 'e' LIMIT 1), f.sql) FROM found f";

/// What drops those that have these names, as far as the names are taken.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn drops(session: &Session, wanted: &[Wanted]) -> Result<HashMap<Wanted, String>, DbError> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let kinds: Vec<&str> = wanted.iter().map(|one| one.parts().0).collect();
    let schemas: Vec<&str> = wanted.iter().map(|one| one.parts().1.schema.as_str()).collect();
    let names: Vec<&str> = wanted.iter().map(|one| one.parts().1.name.as_str()).collect();
    let rows = session.query(HOLDERS, &[&kinds, &schemas, &names]).await;
    let rows = rows.during(session.side(), "look whose names are taken")?;
    let mut drops = HashMap::new();
    for row in &rows {
        let name = TableName { schema: row.take(1)?, name: row.take(2)? };
        let one = match row.take::<&str>(0)? {
            "relation" => Wanted::Relation(name),
            "statistics" => Wanted::Statistics(name),
            _ => Wanted::Routine(name),
        };
        drops.insert(one, row.take(3)?);
    }
    Ok(drops)
}
