//! What single objects of a catalog are by now, in the server's own words: whether
//! they are there, of which relation they are, and what they say.
//!
//! Objects of other catalogs than [`LOOKED_AT`] are not looked at.

use std::collections::HashMap;

use super::named::oid_of;
use super::objects::ObjectId;
use crate::session::{DbContext, DbError, Session};
use crate::sql::TableName;

/// Relations, constraints, triggers, rules and policies: the oids of their catalogs,
/// which are the same everywhere (`src/include/catalog`).
pub const LOOKED_AT: [u32; 5] = [1259, 2606, 2620, 2618, 3256];

/// An object that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// The relation that it is or is a part of; none of a domain's constraint.
    pub relation: Option<TableName>,
    /// The same as the server quotes it.
    pub quoted: Option<String>,
    /// What a statement that makes it says of it, in the server's words.
    pub definitions: Vec<String>,
}

/// Those of these objects that are there, as far as they are looked at.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn present(session: &Session, objects: &[ObjectId]) -> Result<HashMap<ObjectId, Present>, DbError> {
    let sql = "WITH wanted AS (SELECT * FROM unnest($1::oid[], $2::oid[]) AS w (class, oid)), \
         found (class, oid, relation, definitions) AS ( \
           SELECT w.class, w.oid, w.oid, ARRAY[]::text[] FROM wanted w WHERE w.class = 1259 \
           UNION SELECT w.class, k.oid, k.conrelid, ARRAY[pg_catalog.format('ADD CONSTRAINT %I %s', k.conname, pg_catalog.pg_get_constraintdef(k.oid))] \
             FROM wanted w JOIN pg_catalog.pg_constraint k ON k.oid = w.oid WHERE w.class = 2606 \
           UNION SELECT w.class, g.oid, g.tgrelid, ARRAY[pg_catalog.pg_get_triggerdef(g.oid)] \
             FROM wanted w JOIN pg_catalog.pg_trigger g ON g.oid = w.oid WHERE w.class = 2620 \
           UNION SELECT w.class, r.oid, r.ev_class, ARRAY[pg_catalog.pg_get_ruledef(r.oid)] \
             FROM wanted w JOIN pg_catalog.pg_rewrite r ON r.oid = w.oid WHERE w.class = 2618 \
           UNION SELECT w.class, p.oid, p.polrelid, ARRAY[pg_catalog.quote_ident(p.polname), \
               coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), ''), coalesce(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), '')] \
             FROM wanted w JOIN pg_catalog.pg_policy p ON p.oid = w.oid WHERE w.class = 3256) \
         SELECT f.class, f.oid, n.nspname::text, c.relname::text, CASE WHEN c.oid IS NOT NULL THEN pg_catalog.format('%I.%I', n.nspname, c.relname) END, f.definitions \
         FROM found f LEFT JOIN pg_catalog.pg_class c ON c.oid = f.relation LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid IS NOT NULL OR f.class = 2606";
    let (classes, oids): (Vec<u32>, Vec<u32>) = objects.iter().copied().unzip();
    let rows = session.query(sql, &[&classes, &oids]).await.during(session.side(), "look at what waits for the end")?;
    let mut found = HashMap::new();
    for row in &rows {
        let name: Option<(String, String)> = row.take::<Option<String>>(2)?.zip(row.take(3)?);
        let relation = name.map(|(schema, name)| TableName { schema, name });
        let quoted = relation.is_some().then(|| row.take(4)).transpose()?;
        found.insert((row.take(0)?, row.take(1)?), Present { relation, quoted, definitions: row.take(5)? });
    }
    Ok(found)
}

/// A relation that is looked for by its oid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is there, under this name.
    Is(TableName),
    /// It is not, but another one has the name that it had.
    Again,
    /// It is not, and nothing has its name.
    Gone,
}

/// What became of relations, by the oids and names that they had.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn standing(
    session: &Session,
    relations: &[(u32, TableName)],
) -> Result<HashMap<(u32, TableName), Standing>, DbError> {
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, {} IS NOT NULL \
         FROM unnest($1::oid[], $2::text[], $3::text[]) WITH ORDINALITY AS w (oid, schema, name, place) \
         LEFT JOIN pg_catalog.pg_class c ON c.oid = w.oid LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY w.place",
        oid_of("w.schema", "w.name")
    );
    let oids: Vec<u32> = relations.iter().map(|(oid, _)| *oid).collect();
    let schemas: Vec<&str> = relations.iter().map(|(_, name)| name.schema.as_str()).collect();
    let names: Vec<&str> = relations.iter().map(|(_, name)| name.name.as_str()).collect();
    let rows = session.query(&sql, &[&oids, &schemas, &names]).await;
    let rows = rows.during(session.side(), "look what became of tables")?;
    let mut found = HashMap::new();
    for (row, relation) in rows.iter().zip(relations) {
        let is: Option<(String, String)> = row.take::<Option<String>>(0)?.zip(row.take(1)?);
        let standing = match (is, row.take(2)?) {
            (Some((schema, name)), _) => Standing::Is(TableName { schema, name }),
            (None, true) => Standing::Again,
            (None, false) => Standing::Gone,
        };
        found.insert(relation.clone(), standing);
    }
    Ok(found)
}
