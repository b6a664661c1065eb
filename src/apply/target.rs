//! What the target's catalog says about a table that changes are applied to.
//!
//! Invariant: nothing about the target is assumed from the source; columns are
//! matched by name later ([`super::mapping`]). Source:
//! `logicalrep_rel_open` in `src/backend/replication/logical/relation.c`.

use super::actions::Action;
use crate::catalog::foreign_keys::{self, ACTS_ON_DELETE, ACTS_ON_UPDATE};
use crate::catalog::named::oid_of;
use crate::catalog::tables::IS_UNIQUE_OF_ALL;
use crate::catalog::triggers::firing;
use crate::catalog::types::{BELOW_DOMAINS, ColumnType};
use crate::config::Side;
use crate::session::replica_role::ReplicaRole;
use crate::session::{DbContext, DbError, Param, Session};
use crate::sql::{TableName, ident};

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
    /// Its number.
    pub number: i16,
    /// Its name.
    pub name: String,
    /// Its type with type modifier, qualified, as SQL text.
    pub sql_type: String,
    /// The same without its modifier, and of a domain the type below. A cast to a type
    /// with a modifier, also a domain's, cuts a value that is too long; the assignment
    /// to the column refuses it.
    pub bare_type: String,
    /// The type below its domains, as the catalog has it.
    pub below: ColumnType,
    /// Whether its type is a domain. An operator that takes any enum takes no domain over
    /// one, so that a key is compared as of the type below.
    pub is_domain: bool,
    /// The schema of the equality operator of its default btree class.
    pub equality_schema: String,
    /// How rows are looked for by it among others.
    pub matching: Matching,
    /// Whether an array of its values can be written as `type[]`: not of arrays.
    pub can_be_listed: bool,
    /// Whether a cast from text is a function that somebody made, or another one than the
    /// type's input function: it may have another value than what the text stands for.
    pub is_cast_otherwise: bool,
    /// Whether the target writes it by itself.
    pub generation: Generation,
    /// Whether its values can name large objects: oid, or a domain over it (`lo`).
    pub names_objects: bool,
}

/// How rows are looked for by a column where all columns together are their identity. What is
/// equal to the last byte is equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matching {
    /// By its operator: its values are short, or in an index.
    Equal,
    /// By the length, and by the text where that is short: a large value would be read from
    /// its pieces for every row of the table.
    Text,
    /// By its operator, but only if there is no other column.
    Costly,
    /// Not at all: its type has no such operator.
    Never,
}

/// A table on the target.
#[derive(Clone, Debug)]
pub struct TargetTable {
    /// Its name.
    pub table: TableName,
    /// A partitioned parent: statements must not say ONLY.
    pub is_partitioned: bool,
    /// Its oid.
    pub oid: u32,
    /// Triggers or rules are active on it: changes must come in the order of
    /// the source, over all tables.
    pub needs_order: bool,
    /// Foreign keys from it or to it are in force.
    pub has_foreign_keys: bool,
    /// The tables that its foreign keys lead to, with their partitions, by oid.
    pub parents: Vec<u32>,
    /// The foreign keys that act on the rows of a child table, and of which it
    /// is the parent or the child.
    pub actions: Vec<Action>,
    /// The deferrable constraints of it, its partitions and of keys to it, quoted: events
    /// that wait for the commit refuse a TRUNCATE.
    pub deferrable: Vec<String>,
    /// Its columns in the target's order, dropped ones left out.
    pub columns: Vec<TargetColumn>,
    /// The columns of the primary key, or of the first unique index that is
    /// neither partial nor deferrable nor over an expression and whose columns
    /// are all NOT NULL.
    pub unique_key: Option<Vec<String>>,
}

/// Here and below TABLE_OID stands for the table `$1`.`$2`, so that none of the statements
/// has to wait for another.
const KIND_SQL: &str =
    "SELECT oid, relkind = 'p' FROM pg_catalog.pg_class WHERE oid = TABLE_OID AND relkind IN ('r', 'p')";

const COLUMNS_SQL: &str = "
SELECT a.attname::text,
       pg_catalog.format_type(a.atttypid, a.atttypmod),
       coalesce((SELECT n.nspname::text FROM pg_catalog.pg_opclass c
                 JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
                 JOIN pg_catalog.pg_amop o ON o.amopfamily = c.opcfamily AND o.amopstrategy = 3
                      AND o.amoplefttype = c.opcintype AND o.amoprighttype = c.opcintype
                 JOIN pg_catalog.pg_operator p ON p.oid = o.amopopr
                 JOIN pg_catalog.pg_namespace n ON n.oid = p.oprnamespace
                 WHERE c.opcdefault AND c.opcintype = t.oid LIMIT 1), 'pg_catalog'),
       a.attidentity::text, ATTGENERATED, pg_catalog.format_type(t.oid, -1),
       t.typarray <> 0 AND t.typcategory <> 'A', t.oid = 'pg_catalog.oid'::pg_catalog.regtype, t.oid <> a.atttypid, below.modifier,
       EXISTS (SELECT FROM pg_catalog.pg_cast f WHERE f.castsource = 'pg_catalog.text'::pg_catalog.regtype
               AND f.casttarget = t.oid AND f.castmethod = 'f'
               AND (f.castfunc >= 16384 OR t.oid = 'pg_catalog.regclass'::pg_catalog.regtype)), t.oid, a.attnum,
       t.typtype = 'e' OR EXISTS (SELECT FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_am m ON m.oid = c.opcmethod AND m.amname = 'btree'
                                  WHERE c.opcdefault AND c.opcintype = t.oid),
       t.typstorage IN ('p', 'm') OR EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = a.attrelid AND i.indisvalid
                                             AND i.indpred IS NULL AND i.indkey[0] = a.attnum),
       t.oid IN ('pg_catalog.text'::pg_catalog.regtype, 'pg_catalog.varchar'::pg_catalog.regtype, 'pg_catalog.bpchar'::pg_catalog.regtype,
                 'pg_catalog.bytea'::pg_catalog.regtype)
FROM pg_catalog.pg_attribute a
CROSS JOIN BELOW_DOMAINS AS below
JOIN pg_catalog.pg_type t ON t.oid = below.oid
WHERE a.attrelid = TABLE_OID AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum";

/// The table and, if it is partitioned, all its partitions: rows go through theirs.
const WITH_BELOW: &str = "WITH RECURSIVE below (oid) AS (SELECT TABLE_OID UNION \
    SELECT i.inhrelid FROM below b JOIN pg_catalog.pg_class c ON c.oid = b.oid AND c.relkind = 'p' \
    JOIN pg_catalog.pg_inherits i ON i.inhparent = b.oid)";

/// Whether triggers or rules of the table fire; ENABLED is the letters of those
/// that do.
const ACTIVE: &str = "(EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE tgrelid IN (SELECT oid FROM below) \
        AND NOT tgisinternal AND tgenabled IN (ENABLED)) \
    OR EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_class = TABLE_OID AND ev_enabled IN (ENABLED)))";

/// Whether foreign keys lead from it or to it, and the tables that its own lead
/// to, with their partitions.
const FOREIGN_KEYS: &str = "EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f' \
        AND (conrelid IN (SELECT oid FROM below) OR confrelid IN (SELECT oid FROM below))), \
    ARRAY(WITH RECURSIVE parents (oid) AS ( \
        SELECT confrelid FROM pg_catalog.pg_constraint WHERE contype = 'f' AND conrelid IN (SELECT oid FROM below) \
        UNION SELECT i.inhrelid FROM parents p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid) \
        SELECT oid FROM parents)";

/// The names of deferrable constraints.
const DEFERRABLE: &str = "ARRAY(SELECT DISTINCT pg_catalog.format('%I.%I', n.nspname, k.conname) FROM pg_catalog.pg_constraint k \
    JOIN pg_catalog.pg_namespace n ON n.oid = k.connamespace \
    WHERE k.condeferrable AND (k.conrelid IN (SELECT oid FROM below) OR k.confrelid IN (SELECT oid FROM below)) ORDER BY 1)";

/// The foreign keys to it or from it that act on the rows of the child, each with
/// the topmost one that it is a part of (PARENT: of partitioned tables).
const ACTIONS: &str = "SELECT k.confrelid IN (SELECT oid FROM below), cn.nspname::text, c.relname::text, tn.nspname::text, t.relname::text, top.conname::text, \
        pg_catalog.pg_get_constraintdef(top.oid), ON_DELETE, ON_UPDATE \
    FROM pg_catalog.pg_constraint k \
    JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace \
    JOIN pg_catalog.pg_constraint top ON top.oid = PARENT \
    JOIN pg_catalog.pg_class t ON t.oid = top.conrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace \
    WHERE k.contype = 'f' AND (k.confrelid IN (SELECT oid FROM below) OR k.conrelid IN (SELECT oid FROM below)) \
        AND (ON_DELETE OR ON_UPDATE)";

fn actions_sql(version: i32) -> String {
    let actions = ACTIONS.replace("ON_DELETE", ACTS_ON_DELETE).replace("ON_UPDATE", ACTS_ON_UPDATE);
    format!("{WITH_BELOW} {}", actions.replace("PARENT", foreign_keys::topmost(version)))
}

fn active_sql(role: ReplicaRole) -> String {
    // Internal triggers, which are the foreign keys', are silent for a replica.
    ACTIVE.replace("ENABLED", firing(role))
}

/// Fails with division by zero when triggers or rules of the table `$1` (its
/// quoted name) fire. COPY cannot count what it took away from; this says,
/// behind it and with its lock on the table, that nobody could take anything.
/// By name, as COPY finds it: the table may have been made anew since it was
/// looked up.
pub(super) fn guard_sql(role: ReplicaRole) -> String {
    let table = "pg_catalog.to_regclass($1::text)::oid";
    format!("{WITH_BELOW} SELECT 1 / (NOT {})::int", active_sql(role)).replace("TABLE_OID", table)
}

const KEY_SQL: &str = "
SELECT ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE k.place <= i.KEYATTS ORDER BY k.place)
FROM pg_catalog.pg_index i
WHERE i.indrelid = TABLE_OID AND IS_UNIQUE_OF_ALL
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
        // attgenerated came with 12, indnkeyatts with 11.
        let generated = if session.version() >= 120_000 { "a.attgenerated::text" } else { "''::text" };
        let key_atts = if session.version() >= 110_000 { "indnkeyatts" } else { "indnatts" };
        let columns_sql = COLUMNS_SQL.replace("ATTGENERATED", generated).replace("BELOW_DOMAINS", BELOW_DOMAINS);
        let key_sql = KEY_SQL.replace("KEYATTS", key_atts).replace("IS_UNIQUE_OF_ALL", IS_UNIQUE_OF_ALL);
        let foreign_keys = match role {
            ReplicaRole::Set => "false, '{}'::oid[]",
            ReplicaRole::Refused => FOREIGN_KEYS,
        };
        let order_sql = format!("{WITH_BELOW} SELECT {}, {foreign_keys}, {DEFERRABLE}", active_sql(role));
        let params: [&dyn Param; 2] = [&table.schema, &table.name];
        let oid = oid_of("$1", "$2");
        let sql = |sql: &str| sql.replace("TABLE_OID", &oid);
        let (kind_sql, columns_sql, key_sql, order_sql) =
            (sql(KIND_SQL), sql(&columns_sql), sql(&key_sql), sql(&order_sql));
        let actions_sql = sql(&actions_sql(session.version()));
        let actions = async {
            match role {
                ReplicaRole::Set => Ok(Vec::new()),
                ReplicaRole::Refused => session.query(&actions_sql, &params).await,
            }
        };
        let (kind, columns, key, order, actions) = tokio::try_join!(
            session.query_opt(&kind_sql, &params),
            session.query(&columns_sql, &params),
            session.query_opt(&key_sql, &params),
            session.query_one(&order_sql, &params),
            actions,
        )
        .during(Side::Target, format!("read the description of {table}"))?;
        let Some(kind) = kind else { return Ok(None) };
        Ok(Some(TargetTable {
            table: table.clone(),
            is_partitioned: kind.take(1)?,
            columns: columns.iter().map(column).collect::<Result<_, DbError>>()?,
            oid: kind.take(0)?,
            needs_order: order.take(0)?,
            has_foreign_keys: order.take(1)?,
            parents: order.take(2)?,
            deferrable: order.take(3)?,
            actions: actions.iter().map(action).collect::<Result<_, DbError>>()?,
            unique_key: key.map(|row| row.take(0)).transpose()?,
        }))
    }

    /// Whether something of the target acts when a row of it goes, also one that comes back
    /// at once.
    pub fn acts_on_delete(&self) -> bool {
        self.needs_order || self.actions.iter().any(|action| action.is_parent && action.on_delete)
    }

    /// The name in a statement that must not touch inheritance children.
    pub fn only_sql(&self) -> String {
        if self.is_partitioned { self.table.sql() } else { format!("ONLY {}", self.table.sql()) }
    }
}

impl TargetColumn {
    /// The column in a comparison; an index on it is used all the same
    /// (`match_index_to_operand` in `indxpath.c`).
    pub fn compared(&self) -> String {
        let name = ident(&self.name);
        if self.is_domain { format!("{name}::{}", self.bare_type) } else { name }
    }
}

fn action(row: &crate::session::Row) -> Result<Action, DbError> {
    Ok(Action {
        is_parent: row.take(0)?,
        child: TableName::new(row.take::<&str>(1)?, row.take::<&str>(2)?),
        owner: TableName::new(row.take::<&str>(3)?, row.take::<&str>(4)?),
        name: row.take(5)?,
        definition: row.take(6)?,
        on_delete: row.take(7)?,
        on_update: row.take(8)?,
    })
}

fn column(row: &crate::session::Row) -> Result<TargetColumn, DbError> {
    let generation = match (row.take::<&str>(3)?, row.take::<&str>(4)?) {
        (_, "s" | "v") => Generation::Expression,
        ("a", _) => Generation::IdentityAlways,
        _ => Generation::None,
    };
    Ok(TargetColumn {
        number: row.take(12)?,
        name: row.take(0)?,
        sql_type: row.take(1)?,
        bare_type: row.take(5)?,
        equality_schema: row.take(2)?,
        can_be_listed: row.take(6)?,
        generation,
        names_objects: row.take(7)?,
        is_domain: row.take(8)?,
        below: ColumnType { oid: row.take(11)?, modifier: row.take(9)? },
        is_cast_otherwise: row.take(10)?,
        matching: match (row.take(13)?, row.take(14)?, row.take(15)?) {
            (false, _, _) => Matching::Never,
            (true, true, _) => Matching::Equal,
            (true, false, true) => Matching::Text,
            (true, false, false) => Matching::Costly,
        },
    })
}
