//! What depends on what among the objects of a database.
//!
//! An object is known by its catalog and its oid there, as in `pg_depend`.
//!
//! Source: `src/backend/catalog/dependency.c`, and for what pg_dump writes as
//! one entry with its table (defaults, checks) `getDependencies` and
//! `repairDependencyLoop` in `src/bin/pg_dump`.

use std::collections::{HashMap, HashSet};

use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::TableName;

/// The catalog of relations (`RelationRelationId`, fixed in `pg_class.h`).
pub const PG_CLASS: u32 = 1259;

/// An object by the oid of its catalog, and its own.
pub type ObjectId = (u32, u32);

/// An object that goes with tables that are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Along {
    /// Which it is.
    pub id: ObjectId,
    /// For people, in the server's words: "view shop.totals".
    pub description: String,
}

/// What tables take along when they are left out.
#[derive(Clone, Debug, Default)]
pub struct TakenAlong {
    /// All of it, what is the tables' own (types, keys, triggers) as well, and
    /// the tables themselves.
    pub objects: HashSet<ObjectId>,
    /// What is not the tables' own: views, foreign keys of others, functions
    /// over their row types, policies and rules of others, and the like.
    pub others: Vec<Along>,
    /// The tables, views and sequences among the objects.
    pub relations: Vec<TableName>,
    /// Partitions, and indexes of partitions, that stay without what they were
    /// attached to.
    pub detached: HashSet<TableName>,
    /// What cannot come without them, though it is not left out, in words.
    pub needs: Vec<String>,
}

/// The objects that depend on the tables $1, those included. Tables that are
/// not left out end the way, and with them their defaults and checks: these are
/// what needs the tables. Views follow their rule, composite types their
/// relation, domains their constraint. Sequences stay as long as anything that
/// is not left out uses them. Kinds of dependencies of partitions ('P', 'S', 'I')
/// lead from one partition to another, which is not meant here. `used` has the
/// sequences with a user that is not gone: users and what is gone are grouped, as a
/// look for each user among all that is gone takes the square of the time.
const GONE: &str = "WITH RECURSIVE tables_gone (classid, objid) AS ( \
      SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, oid FROM pg_catalog.unnest($1::oid[]) AS oid \
    UNION \
      SELECT e.classid, e.objid FROM tables_gone g CROSS JOIN LATERAL ( \
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend d \
          WHERE d.refclassid = g.classid AND d.refobjid = g.objid AND d.deptype IN ('n', 'a', 'i') \
            AND d.classid <> 'pg_catalog.pg_attrdef'::pg_catalog.regclass \
            AND NOT (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND EXISTS \
              (SELECT FROM pg_catalog.pg_class c WHERE c.oid = d.objid AND c.relkind IN ('r', 'p', 'f', 'S'))) \
            AND NOT (d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND EXISTS \
              (SELECT FROM pg_catalog.pg_constraint k WHERE k.oid = d.objid AND k.contype IN ('c', 'n') AND k.conrelid <> 0)) \
        UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, r.ev_class FROM pg_catalog.pg_rewrite r \
          WHERE g.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = g.objid AND r.rulename = '_RETURN' \
        UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, c.reltype FROM pg_catalog.pg_class c \
          WHERE g.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = g.objid AND c.relkind = 'c' \
        UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, k.contypid FROM pg_catalog.pg_constraint k \
          WHERE g.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = g.objid AND k.contypid <> 0 \
      ) AS e (classid, objid)), \
    of_tables (objid) AS (SELECT DISTINCT d.objid FROM tables_gone g JOIN pg_catalog.pg_depend d \
          ON d.refclassid = g.classid AND d.refobjid = g.objid AND d.deptype IN ('a', 'i') \
          AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
        JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S'), \
    used (objid) AS (SELECT pg_catalog.unnest(pg_catalog.array_agg(x.sequence)) FROM ( \
          SELECT s.objid, CASE WHEN f.oid IS NULL THEN u.classid ELSE 'pg_catalog.pg_class'::pg_catalog.regclass END, \
            coalesce(f.adrelid, u.objid) FROM of_tables s \
          JOIN pg_catalog.pg_depend u ON u.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND u.refobjid = s.objid \
            AND u.deptype = 'n' \
          LEFT JOIN pg_catalog.pg_attrdef f ON u.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND f.oid = u.objid \
          UNION ALL SELECT NULL, classid, objid FROM tables_gone) AS x (sequence, classid, objid) \
        GROUP BY x.classid, x.objid HAVING pg_catalog.count(*) = pg_catalog.count(x.sequence)), \
    sequences_gone (objid) AS (SELECT objid FROM of_tables EXCEPT SELECT objid FROM used), \
    gone (classid, objid) AS (SELECT classid, objid FROM tables_gone \
      UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, objid FROM sequences_gone) ";

/// The relation that an object is a part of, or null.
const PART_OF: &str = "CASE g.classid \
      WHEN 'pg_catalog.pg_class'::pg_catalog.regclass THEN (SELECT coalesce( \
        (SELECT i.indrelid FROM pg_catalog.pg_index i WHERE i.indexrelid = g.objid), \
        (SELECT d.refobjid FROM pg_catalog.pg_depend d WHERE d.classid = g.classid AND d.objid = g.objid AND d.objsubid = 0 \
          AND d.refclassid = g.classid AND d.deptype IN ('a', 'i') LIMIT 1))) \
      WHEN 'pg_catalog.pg_constraint'::pg_catalog.regclass THEN (SELECT nullif(conrelid, 0) FROM pg_catalog.pg_constraint WHERE oid = g.objid) \
      WHEN 'pg_catalog.pg_trigger'::pg_catalog.regclass THEN (SELECT tgrelid FROM pg_catalog.pg_trigger WHERE oid = g.objid) \
      WHEN 'pg_catalog.pg_policy'::pg_catalog.regclass THEN (SELECT polrelid FROM pg_catalog.pg_policy WHERE oid = g.objid) \
      WHEN 'pg_catalog.pg_rewrite'::pg_catalog.regclass THEN (SELECT ev_class FROM pg_catalog.pg_rewrite WHERE oid = g.objid) \
      WHEN 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass THEN (SELECT stxrelid FROM pg_catalog.pg_statistic_ext WHERE oid = g.objid) \
      WHEN 'pg_catalog.pg_type'::pg_catalog.regclass THEN (SELECT nullif(coalesce(nullif(t.typrelid, 0), \
        (SELECT e.typrelid FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid)), 0) FROM pg_catalog.pg_type t WHERE t.oid = g.objid) \
      END";

/// What is gone with the tables $1: relations by their names, the relation that each
/// is a part of, and the descriptions of what may be another's.
fn gone_sql() -> String {
    format!(
        "{GONE} SELECT g.classid, g.objid, n.nspname::text, c.relname::text, \
           {PART_OF}, CASE WHEN NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t \
             WHERE g.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = g.objid AND t.tgisinternal) \
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t \
             WHERE g.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = g.objid AND t.typelem <> 0 AND t.typlen = -1) \
           AND g.classid NOT IN ('pg_catalog.pg_publication_rel'::pg_catalog.regclass) \
           THEN pg_catalog.pg_describe_object(g.classid, g.objid, 0) END \
         FROM gone g LEFT JOIN pg_catalog.pg_class c ON g.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
           AND c.oid = g.objid AND c.relkind IN ('r', 'p', 'f', 'v', 'm', 'S') \
         LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 6, 1, 2"
    )
}

/// What the tables of these oids take along.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn taken_along(session: &Session, tables: &[u32]) -> Result<TakenAlong, DbError> {
    if tables.is_empty() {
        return Ok(TakenAlong::default());
    }
    let mut taken = TakenAlong::default();
    let mut parts: Vec<(Along, Option<u32>)> = Vec::new();
    let rows =
        session.query(&gone_sql(), &[&tables]).await.during(session.side(), "list what goes with tables left out")?;
    for row in &rows {
        let id: ObjectId = (row.take(0)?, row.take(1)?);
        taken.objects.insert(id);
        let (schema, name): (Option<String>, Option<String>) = (row.take(2)?, row.take(3)?);
        taken.relations.extend(schema.zip(name).map(|(schema, name)| TableName { schema, name }));
        let (part_of, description): (Option<u32>, Option<String>) = (row.take(4)?, row.take(5)?);
        parts.extend(description.map(|description| (Along { id, description }, part_of)));
    }
    // Not asked of the server: it would look for each of them among all of them.
    let asked: HashSet<ObjectId> = tables.iter().map(|oid| (PG_CLASS, *oid)).collect();
    let is_gone = |relation: u32| taken.objects.contains(&(PG_CLASS, relation));
    let is_other = |(along, part_of): &(Along, Option<u32>)| {
        !asked.contains(&along.id) && !part_of.is_some_and(|relation| relation != along.id.1 && is_gone(relation))
    };
    taken.others = parts.into_iter().filter(is_other).map(|(along, _)| along).collect();
    taken.relations.sort();
    taken.detached = detached(session, tables).await?;
    taken.needs = needs(session, tables).await?;
    Ok(taken)
}

/// The statements that create those of these objects that are views, in an order in which
/// they can be run.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn create_views(session: &Session, objects: &[Along]) -> Result<Vec<String>, DbError> {
    let oids: Vec<u32> = objects.iter().filter(|along| along.id.0 == PG_CLASS).map(|along| along.id.1).collect();
    // Nothing is over what has a higher number, but for a view that was replaced.
    let sql = "SELECT pg_catalog.format('CREATE %s %I.%I AS%s', CASE c.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END, \
           n.nspname, c.relname, E'\\n' || pg_catalog.pg_get_viewdef(c.oid)) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid = ANY ($1::oid[]) AND c.relkind IN ('v', 'm') ORDER BY c.oid";
    let rows = session.query(sql, &[&oids]).await.during(session.side(), "read the views that are left out")?;
    rows.iter().map(|row| row.take(0)).collect()
}

/// Partitions of these tables that are none of them, and the partitions'
/// indexes that are attached to the tables' indexes.
async fn detached(session: &Session, tables: &[u32]) -> Result<HashSet<TableName>, DbError> {
    let sql = "SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_inherits h \
         JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = h.inhparent \
         WHERE coalesce(i.indrelid, h.inhparent) = ANY ($1::oid[])";
    let rows = session.query(sql, &[&tables]).await.during(session.side(), "list the partitions of tables left out")?;
    rows.iter().map(|row| Ok(TableName { schema: row.take(0)?, name: row.take(1)? })).collect()
}

/// Tables that stay and need one that is gone: they inherit from it, or have a
/// column, a default or a check over something that goes with it.
async fn needs(session: &Session, tables: &[u32]) -> Result<Vec<String>, DbError> {
    let sql = format!(
        "{GONE} SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid), \
           pg_catalog.pg_describe_object(g.classid, g.objid, 0) \
         FROM gone g JOIN pg_catalog.pg_depend d ON d.refclassid = g.classid AND d.refobjid = g.objid AND d.deptype IN ('n', 'a') \
         LEFT JOIN pg_catalog.pg_attrdef f ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND f.oid = d.objid \
         LEFT JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = d.objid \
           AND k.contype IN ('c', 'n') \
         JOIN pg_catalog.pg_class c ON c.relkind IN ('r', 'p', 'f') AND c.oid = CASE d.classid \
           WHEN 'pg_catalog.pg_class'::pg_catalog.regclass THEN d.objid \
           WHEN 'pg_catalog.pg_attrdef'::pg_catalog.regclass THEN f.adrelid ELSE k.conrelid END \
         WHERE NOT EXISTS (SELECT FROM gone t WHERE t.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND t.objid = c.oid) \
           AND NOT (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype = 'a') ORDER BY 1, 2"
    );
    let rows = session.query(&sql, &[&tables]).await.during(session.side(), "list what needs tables left out")?;
    rows.iter()
        .map(|row| {
            let (what, needed): (String, String) = (row.take(0)?, row.take(1)?);
            Ok(format!("{what} needs {needed}"))
        })
        .collect()
}

/// What tables consist of that nothing else needs before the rows come: each table's
/// own oid, those of its defaults and sequences, with the table's. None of them is a
/// partition or inherits.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn of_tables_alone(session: &Session) -> Result<HashMap<ObjectId, u32>, DbError> {
    let sql = "WITH tables AS (SELECT c.oid, c.reltype FROM pg_catalog.pg_class c \
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
           WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND NOT c.relispartition AND c.reloftype = 0 AND n.nspname <> 'information_schema' \
             AND pg_catalog.left(n.nspname, 3) <> 'pg_' \
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid) \
             AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = c.oid)), \
         parts (class, oid, of) AS (SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, t.oid, t.oid FROM tables t \
           UNION ALL SELECT d.classid, d.objid, t.oid FROM tables t JOIN pg_catalog.pg_depend d ON d.refobjid = t.oid \
             JOIN pg_catalog.pg_class s ON s.oid = d.objid AND s.relkind = 'S' \
             WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass \
               AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i') \
           UNION ALL SELECT 'pg_catalog.pg_attrdef'::pg_catalog.regclass, f.oid, t.oid \
             FROM tables t JOIN pg_catalog.pg_attrdef f ON f.adrelid = t.oid), \
         with_types AS (SELECT class, oid, of FROM parts \
           UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, e.oid, t.oid FROM tables t \
             JOIN pg_catalog.pg_type r ON r.oid = t.reltype JOIN pg_catalog.pg_type e ON e.oid IN (r.oid, r.typarray)), \
         needed AS (SELECT w.of FROM with_types w JOIN pg_catalog.pg_depend d ON d.refclassid = w.class AND d.refobjid = w.oid \
           LEFT JOIN with_types own ON own.class = d.classid AND own.oid = d.objid AND own.of = w.of \
           LEFT JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = d.objid \
           LEFT JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = d.objid \
           WHERE own.oid IS NULL AND (k.oid IS NULL OR k.contype <> 'f' AND k.conrelid <> w.of) \
             AND (c.oid IS NULL OR c.relkind NOT IN ('i', 't')) \
             AND d.classid <> ALL (ARRAY['pg_catalog.pg_trigger', 'pg_catalog.pg_policy', 'pg_catalog.pg_statistic_ext', \
               'pg_catalog.pg_publication_rel', 'pg_catalog.pg_type']::pg_catalog.regclass[]) \
           UNION ALL SELECT w.of FROM with_types w JOIN pg_catalog.pg_depend d ON d.refclassid = w.class AND d.refobjid = w.oid \
             WHERE d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.deptype <> 'i') \
         SELECT class::oid, oid, of FROM parts WHERE of NOT IN (SELECT of FROM needed)";
    let rows = session.query(sql, &[]).await.during(session.side(), "read what tables consist of")?;
    rows.iter().map(|row| Ok(((row.take(0)?, row.take(1)?), row.take(2)?))).collect()
}

/// Whether the server looks at what is created by triggers of its own.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn has_event_triggers(session: &Session) -> Result<bool, DbError> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtenabled <> 'D')";
    let row = session.query_one(sql, &[]).await.during(session.side(), "look for event triggers")?;
    row.take(0)
}

/// Objects whose dependents are looked for at once: each is a walk of its own.
const ROOTS: usize = 200;

/// Which of these objects, as far as they are known, depend on which, directly or not: pairs of places, the
/// dependent one second. Only the first objects of many are followed. What
/// pg_dump writes with its table (defaults, checks) stands for it.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn dependents(session: &Session, objects: &[Option<ObjectId>]) -> Result<Vec<(usize, usize)>, DbError> {
    let sql = "WITH RECURSIVE of AS (SELECT classid, objid, place FROM unnest($1::oid[], $2::oid[]) \
           WITH ORDINALITY AS o (classid, objid, place)), \
         reach (root, classid, objid) AS (SELECT place, classid, objid FROM of WHERE place <= $3::int8 AND objid <> 0 \
         UNION SELECT r.root, e.classid, e.objid FROM reach r CROSS JOIN LATERAL ( \
           SELECT d.classid, d.objid FROM pg_catalog.pg_depend d WHERE d.refclassid = r.classid AND d.refobjid = r.objid \
           UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, w.ev_class FROM pg_catalog.pg_rewrite w \
             WHERE r.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND w.oid = r.objid AND w.rulename = '_RETURN' \
           UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, f.adrelid FROM pg_catalog.pg_attrdef f \
             WHERE r.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND f.oid = r.objid \
           UNION ALL SELECT CASE WHEN k.contypid = 0 THEN 'pg_catalog.pg_class'::pg_catalog.regclass \
             ELSE 'pg_catalog.pg_type'::pg_catalog.regclass END, CASE WHEN k.contypid = 0 THEN k.conrelid ELSE k.contypid END FROM pg_catalog.pg_constraint k \
             WHERE r.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = r.objid AND k.contype IN ('c', 'n') \
           UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, c.reltype FROM pg_catalog.pg_class c \
             WHERE r.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = r.objid AND c.relkind = 'c') AS e (classid, objid)) \
         SELECT r.root, o.place FROM reach r JOIN of o ON o.classid = r.classid AND o.objid = r.objid AND o.place > r.root \
         ORDER BY 1, 2";
    // InvalidOid, which no object has, keeps the place of one that is not known.
    let (classes, oids): (Vec<u32>, Vec<u32>) = objects.iter().map(|object| object.unwrap_or((0, 0))).unzip();
    let roots = i64::try_from(ROOTS.min(objects.len())).unwrap_or_default();
    let rows = session.query(sql, &[&classes, &oids, &roots]).await;
    let rows = rows.during(session.side(), "read what depends on what")?;
    let place = |row: &Row, column: usize| -> Result<usize, DbError> {
        Ok(usize::try_from(row.take::<i64>(column)? - 1).unwrap_or_default())
    };
    rows.iter().map(|row| Ok((place(row, 0)?, place(row, 1)?))).collect()
}

#[cfg(test)]
mod tests {
    use tokio_postgres::SimpleQueryMessage;

    use super::*;
    use crate::sweep::testing::{Pair, SOURCE_OWNER};

    const SCHEMA: &str = "
        CREATE TABLE lost (id int PRIMARY KEY, n serial, note text);
        CREATE TABLE kept (id int PRIMARY KEY, lost_id int REFERENCES lost, n int DEFAULT nextval('lost_n_seq'));
        CREATE TABLE also_out (id serial PRIMARY KEY);
        CREATE VIEW first AS SELECT id FROM lost; CREATE VIEW second AS SELECT id FROM first;
        CREATE FUNCTION all_of() RETURNS SETOF lost LANGUAGE sql AS 'SELECT * FROM lost';
        CREATE FUNCTION by_row(lost) RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE VIEW third AS SELECT note FROM all_of();
        CREATE POLICY p ON kept USING (EXISTS (SELECT FROM lost)); CREATE POLICY own ON lost USING (true);
        CREATE RULE r AS ON INSERT TO kept DO ALSO DELETE FROM lost;
        CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (9);
        CREATE TABLE heir (x int) INHERITS (lost); CREATE TABLE with_row (o lost);
        CREATE TYPE pair_of AS (a lost, b int);";

    /// The story: a function over the row type, a policy or a rule of another
    /// table was restored without the table it names, and failed in the middle.
    #[tokio::test]
    async fn tables_take_along_what_cannot_be_without_them_and_nothing_else() {
        let pair = Pair::new().await;
        let session = pair.source(SOURCE_OWNER).await;
        session.batch_execute(&format!("SET search_path = public; {SCHEMA} SET search_path = ''")).await.unwrap();
        let row = session
            .query_one(
                "SELECT array_agg(oid) FROM pg_class WHERE relname IN ('lost', 'also_out', 'root') AND relkind IN ('r', 'p')",
                &[],
            )
            .await
            .unwrap();
        let taken = taken_along(&session, &row.take::<Vec<u32>>(0).unwrap()).await.unwrap();
        let others: Vec<&str> = taken.others.iter().map(|along| along.description.as_str()).collect();
        assert_eq!(
            others,
            [
                "composite type public.pair_of",
                "constraint kept_lost_id_fkey on table public.kept",
                "function public.all_of()",
                "function public.by_row(public.lost)",
                "policy p on table public.kept",
                "rule r on table public.kept",
                "view public.first",
                "view public.second",
                "view public.third",
            ]
        );
        let relations: Vec<String> = taken.relations.iter().map(ToString::to_string).collect();
        // The sequence of "lost" is used by a table that stays.
        assert_eq!(
            relations,
            [
                "public.also_out",
                "public.also_out_id_seq",
                "public.first",
                "public.lost",
                "public.root",
                "public.second",
                "public.third"
            ]
        );
        assert!(taken.detached.contains(&TableName::new("public", "leaf")), "{:?}", taken.detached);
        assert!(taken.detached.contains(&TableName::new("public", "leaf_pkey")), "{:?}", taken.detached);
        assert_eq!(
            taken.needs,
            ["column o of table public.with_row needs type public.lost", "table public.heir needs table public.lost"]
        );
    }

    /// The rows that a query has handled, over all steps of its plan.
    fn handled(plan: &serde_json::Value) -> f64 {
        let number = |name: &str| plan[name].as_f64().unwrap_or_default();
        let removed = number("Rows Removed by Filter") + number("Rows Removed by Join Filter");
        let below = plan["Plans"].as_array().into_iter().flatten().map(handled).sum::<f64>();
        (number("Actual Rows") + removed) * number("Actual Loops") + below
    }

    /// The story: for each sequence, and for each object, all that is gone was looked
    /// through: 11 s where 2,000 tables are left out, more than four times the time it takes
    /// now.
    #[tokio::test]
    async fn what_goes_with_many_tables_is_found_by_work_that_grows_as_they_do() {
        let pair = Pair::new().await;
        let session = pair.source(SOURCE_OWNER).await;
        let mut work = Vec::new();
        for (schema, tables) in [("few", 200), ("many", 800)] {
            let create = format!(
                "CREATE SCHEMA {schema}; DO $$ BEGIN FOR i IN 1..{tables} LOOP EXECUTE format('CREATE TABLE {schema}.t%s \
                 (id serial PRIMARY KEY, g int GENERATED ALWAYS AS IDENTITY)', i); END LOOP; END $$"
            );
            session.batch_execute(&create).await.unwrap();
            let sql = format!(
                "SELECT array_agg(oid) FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r'"
            );
            let oids: Vec<u32> = session.query_one(&sql, &[]).await.unwrap().take(0).unwrap();
            let explain = format!("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {}", gone_sql());
            // As text: the driver takes no JSON.
            let literal = format!("'{{{}}}'::oid[]", oids.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
            let messages = session.simple_query(&explain.replace("$1::oid[]", &literal)).await.unwrap();
            let text = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0),
                _ => None,
            });
            let plan: serde_json::Value = serde_json::from_str(text.unwrap()).unwrap();
            work.push(handled(&plan[0]["Plan"]));
            assert_eq!(taken_along(&session, &oids).await.unwrap().relations.len(), 3 * tables);
        }
        assert!(work[1] < 8.0 * work[0], "four times the tables: {work:?}");
    }
}
