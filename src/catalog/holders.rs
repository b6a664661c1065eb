//! What has a name on a server already, and the statement that frees the name: the
//! holder is renamed, whatever it is, as its rows and what needs it are somebody's.
//! How it is dropped, should nobody need it, stands behind that, in a comment.
//!
//! Invariants: the statement is that of what is there, whatever was to be created
//! under the name: tables, views, sequences, indexes and types share their names;
//! routines and statistics objects have names of their own. Nothing is dropped with
//! CASCADE. New names are free, and no two of one answer are the same.
//!
//! Source: `heap_create_with_catalog` in `src/backend/catalog/heap.c` (relations
//! and types), `ProcedureCreate` in `pg_proc.c`; array types make way by themselves
//! (`moveArrayTypeName` in `pg_type.c`).

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

/// What there is of these names: its kind (with IF EXISTS where the server takes that
/// for a rename), what it is called in a statement, its own name, and what drops it.
/// An index of a constraint goes with that, and a sequence of a column with nothing
/// but the column. A table's row type is the table.
const FOUND: &str = "found (what, schema, name, class, oid, namespace, kind, there, own, dropped) AS ( \
      SELECT w.what, w.schema, w.name, 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, n.oid, \
        CASE c.relkind WHEN 'v' THEN 'VIEW IF EXISTS' WHEN 'm' THEN 'MATERIALIZED VIEW IF EXISTS' WHEN 'S' THEN 'SEQUENCE IF EXISTS' \
          WHEN 'f' THEN 'FOREIGN TABLE IF EXISTS' WHEN 'i' THEN 'INDEX IF EXISTS' WHEN 'I' THEN 'INDEX IF EXISTS' WHEN 'c' THEN 'TYPE' ELSE 'TABLE IF EXISTS' END, \
        pg_catalog.format('%I.%I', n.nspname, c.relname), c.relname::text, \
        CASE WHEN k.oid IS NOT NULL THEN pg_catalog.format('ALTER TABLE IF EXISTS %s DROP CONSTRAINT IF EXISTS %I;', k.conrelid::pg_catalog.regclass, k.conname) \
          WHEN c.relkind = 'S' AND EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid \
            AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')) THEN '' END \
      FROM wanted w JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema \
      JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name \
      LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = c.oid AND k.contype IN ('p', 'u', 'x') WHERE w.what = 'relation' \
    UNION ALL \
      SELECT w.what, w.schema, w.name, 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, n.oid, \
        CASE t.typtype WHEN 'd' THEN 'DOMAIN' ELSE 'TYPE' END, pg_catalog.format('%I.%I', n.nspname, t.typname), t.typname::text, NULL \
      FROM wanted w JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema \
      JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname = w.name AND t.typrelid = 0 \
      WHERE w.what = 'relation' AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid) \
    UNION ALL \
      SELECT w.what, w.schema, w.name, 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, n.oid, \
        CASE pg_catalog.to_jsonb(p) ->> 'prokind' WHEN 'p' THEN 'PROCEDURE' WHEN 'a' THEN 'AGGREGATE' ELSE 'FUNCTION' END, \
        p.oid::pg_catalog.regprocedure::text, p.proname::text, NULL \
      FROM wanted w JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid \
        AND pg_catalog.format('%s(%s)', p.proname, (SELECT pg_catalog.string_agg(pg_catalog.format_type(a.type, NULL), ', ' ORDER BY a.n) \
          FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY AS a (type, n))) = w.name WHERE w.what = 'routine' \
    UNION ALL \
      SELECT w.what, w.schema, w.name, 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid, n.oid, 'STATISTICS', \
        pg_catalog.format('%I.%I', n.nspname, s.stxname), s.stxname::text, NULL \
      FROM wanted w JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema \
      JOIN pg_catalog.pg_statistic_ext s ON s.stxnamespace = n.oid AND s.stxname = w.name WHERE w.what = 'statistics')";

/// Of several that begin alike each takes another one of the names that are free. A
/// name has at most 63 bytes, and a character up to four. An extension's object goes
/// with the extension.
const FREES: &str = "based AS (SELECT f.*, pg_catalog.left(f.own, CASE WHEN pg_catalog.octet_length(f.own) = pg_catalog.length(f.own) THEN 50 ELSE 12 END) AS base FROM found f), \
    placed AS (SELECT b.*, pg_catalog.row_number() OVER (PARTITION BY b.namespace, b.base ORDER BY b.what, b.name, b.oid) - 1 AS place FROM based b) \
    SELECT p.what, p.schema, p.name, coalesce( \
      (SELECT pg_catalog.format('DROP EXTENSION IF EXISTS %I;', e.extname) \
        FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid \
        WHERE d.classid = p.class AND d.objid = p.oid AND d.deptype = 'e' LIMIT 1), \
      pg_catalog.format('ALTER %s %s RENAME TO %I;', p.kind, p.there, \
        (SELECT new.name FROM (SELECT n, p.base || '_elsewhere' || CASE n WHEN 1 THEN '' ELSE n::text END AS name FROM pg_catalog.generate_series(1, 999) AS n) AS new \
          WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace = p.namespace AND c.relname = new.name) \
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typnamespace = p.namespace AND t.typname = new.name) \
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc r WHERE r.pronamespace = p.namespace AND r.proname = new.name) \
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_statistic_ext s WHERE s.stxnamespace = p.namespace AND s.stxname = new.name) \
          ORDER BY new.n OFFSET p.place LIMIT 1)) \
      || CASE p.dropped WHEN '' THEN '' ELSE ' -- or, if it is not needed: ' \
        || coalesce(p.dropped, pg_catalog.format('DROP %s IF EXISTS %s;', pg_catalog.replace(p.kind, ' IF EXISTS', ''), p.there)) END) FROM placed p";

/// What frees those of these names that are taken.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn frees(session: &Session, wanted: &[Wanted]) -> Result<HashMap<Wanted, String>, DbError> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let kinds: Vec<&str> = wanted.iter().map(|one| one.parts().0).collect();
    let schemas: Vec<&str> = wanted.iter().map(|one| one.parts().1.schema.as_str()).collect();
    let names: Vec<&str> = wanted.iter().map(|one| one.parts().1.name.as_str()).collect();
    let sql = format!(
        "WITH wanted AS (SELECT DISTINCT * FROM unnest($1::text[], $2::text[], $3::text[]) AS w (what, schema, name)), {FOUND}, {FREES}"
    );
    let rows = session.query(&sql, &[&kinds, &schemas, &names]).await;
    let rows = rows.during(session.side(), "look whose names are taken")?;
    let mut frees = HashMap::new();
    for row in &rows {
        let name = TableName { schema: row.take(1)?, name: row.take(2)? };
        let one = match row.take::<&str>(0)? {
            "relation" => Wanted::Relation(name),
            "statistics" => Wanted::Statistics(name),
            _ => Wanted::Routine(name),
        };
        frees.insert(one, row.take(3)?);
    }
    Ok(frees)
}
