//! What the target's catalog says about a table that changes are applied to.
//!
//! Invariant: nothing about the target is assumed from the source; columns are
//! matched by name later ([`super::mapping`]). Source:
//! `logicalrep_rel_open` in `src/backend/replication/logical/relation.c`.

use super::replica_role::ReplicaRole;
use crate::config::Side;
use crate::session::{DbContext, DbError, Session};
use crate::sql::TableName;

/// Whether the target computes or numbers a column by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// An ordinary column, or identity BY DEFAULT.
    None,
    /// GENERATED ALWAYS AS IDENTITY: INSERT overrides it, UPDATE may not name it.
    IdentityAlways,
    /// GENERATED ALWAYS AS (expression): never written.
    Expression,
}

/// A column of a target table.
#[derive(Clone, Debug)]
pub struct TargetColumn {
    /// Its name.
    pub name: String,
    /// Its type with type modifier, qualified, as SQL text.
    pub sql_type: String,
    /// The same without its modifier. A cast to a type with one cuts a value
    /// that is too long; the assignment to the column refuses it.
    pub bare_type: String,
    /// The schema of the equality operator of its default btree class.
    pub equality_schema: String,
    /// Whether the target writes it by itself.
    pub generation: Generation,
}

/// A table on the target.
#[derive(Clone, Debug)]
pub struct TargetTable {
    /// Its name.
    pub table: TableName,
    /// A partitioned parent: statements must not say ONLY.
    pub is_partitioned: bool,
    /// Triggers, rules or foreign keys are active on it: changes must come in
    /// the order of the source, over all tables.
    pub needs_order: bool,
    /// Its columns in the target's order, dropped ones left out.
    pub columns: Vec<TargetColumn>,
    /// The columns of the primary key, or of the first unique index that is
    /// neither partial nor deferrable nor over an expression and whose columns
    /// are all NOT NULL.
    pub unique_key: Option<Vec<String>>,
}

const COLUMNS_SQL: &str = "
SELECT a.attname::text,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       coalesce((SELECT n.nspname::text FROM pg_catalog.pg_opclass c
                 JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
                 JOIN pg_catalog.pg_amop o ON o.amopfamily = c.opcfamily AND o.amopstrategy = 3
                      AND o.amoplefttype = c.opcintype AND o.amoprighttype = c.opcintype
                 JOIN pg_catalog.pg_operator p ON p.oid = o.amopopr
                 JOIN pg_catalog.pg_namespace n ON n.oid = p.oprnamespace
                 WHERE c.opcdefault AND c.opcintype IN (
                     WITH RECURSIVE base (oid) AS (SELECT t.oid UNION ALL SELECT d.typbasetype FROM base
                         JOIN pg_catalog.pg_type d ON d.oid = base.oid AND d.typtype = 'd')
                     SELECT base.oid FROM base JOIN pg_catalog.pg_type b ON b.oid = base.oid AND b.typtype <> 'd')
                 LIMIT 1), 'pg_catalog'),
       a.attidentity::text, ATTGENERATED, pg_catalog.format_type(a.atttypid, -1)
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum";

const ORDER_SQL: &str = "
SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal AND tgenabled IN ('O', 'A'))
    OR EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f' AND $1 IN (conrelid, confrelid))
    OR EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_class = $1 AND ev_enabled IN ('O', 'A'))";

const ORDER_AS_REPLICA_SQL: &str = "
SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid = $1 AND NOT tgisinternal AND tgenabled IN ('R', 'A'))
    OR EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_class = $1 AND ev_enabled IN ('R', 'A'))";

const KEY_SQL: &str = "
SELECT ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE k.place <= i.KEYATTS ORDER BY k.place)
FROM pg_catalog.pg_index i
WHERE i.indrelid = $1 AND i.indisunique AND i.indimmediate AND i.indisvalid
  AND i.indpred IS NULL AND i.indexprs IS NULL
  AND NOT EXISTS (SELECT FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
                  JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                  WHERE k.place <= i.KEYATTS AND NOT a.attnotnull)
ORDER BY i.indisprimary DESC, i.indexrelid
LIMIT 1";

impl TargetTable {
    /// Reads a table's description; `None` when the target has no such table.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn read(session: &Session, table: &TableName, role: ReplicaRole) -> Result<Option<Self>, DbError> {
        let action = || format!("read the description of {table}");
        let found = session
            .query_opt(
                "SELECT c.oid, c.relkind = 'p' FROM pg_catalog.pg_class c \
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')",
                &[&table.schema, &table.name],
            )
            .await
            .during(Side::Target, action())?;
        let Some(found) = found else { return Ok(None) };
        let oid: u32 = found.get(0);
        // attgenerated came with 12, indnkeyatts with 11.
        let generated = if session.version() >= 120_000 { "a.attgenerated::text" } else { "''::text" };
        let key_atts = if session.version() >= 110_000 { "indnkeyatts" } else { "indnatts" };
        let columns = session
            .query(&COLUMNS_SQL.replace("ATTGENERATED", generated), &[&oid])
            .await
            .during(Side::Target, action())?;
        let key =
            session.query_opt(&KEY_SQL.replace("KEYATTS", key_atts), &[&oid]).await.during(Side::Target, action())?;
        let order = match role {
            ReplicaRole::Set => ORDER_AS_REPLICA_SQL,
            ReplicaRole::Refused => ORDER_SQL,
        };
        let needs_order = session.query_one(order, &[&oid]).await.during(Side::Target, action())?.get(0);
        Ok(Some(TargetTable {
            table: table.clone(),
            is_partitioned: found.get(1),
            columns: columns.iter().map(column).collect(),
            needs_order,
            unique_key: key.map(|row| row.get(0)),
        }))
    }

    /// The name in a statement that must not touch inheritance children.
    pub fn only_sql(&self) -> String {
        if self.is_partitioned { self.table.sql() } else { format!("ONLY {}", self.table.sql()) }
    }
}

fn column(row: &tokio_postgres::Row) -> TargetColumn {
    let generation = match (row.get::<_, &str>(3), row.get::<_, &str>(4)) {
        (_, "s" | "v") => Generation::Expression,
        ("a", _) => Generation::IdentityAlways,
        _ => Generation::None,
    };
    TargetColumn {
        name: row.get(0),
        sql_type: row.get(1),
        bare_type: row.get(5),
        equality_schema: row.get(2),
        generation,
    }
}
