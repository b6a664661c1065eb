//! The SQL that gives the target a column that was added on the source.
//!
//! Invariant: rows that were there before the column get what they have on the source
//! as far as the source's catalog has it (`pg_attribute.attmissingval`); a default that
//! gave each row a value of its own wrote the table anew, which is noticed by itself.
//! A table below that has another default, or other older values by an ADD COLUMN of its
//! own, keeps these.

use super::tables;
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::{TableName, ident, literal};

/// The statements that add the column of this number, of the table with this oid, to
/// `table` under this name (by now the source may have another of that name); `None` when
/// the source has dropped it again. A target that knows none which is computed when it is read
/// (before 18) stores it.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn add_column_sql(
    (source, target): (&Session, &Session),
    oid: u32,
    table: &TableName,
    (number, name): (i16, &str),
) -> Result<Option<String>, DbError> {
    // A partitioned table has no rows that were there before, and another one may have been
    // written anew since: those below it that have the column by it know the same.
    let missing = format!(
        "(WITH RECURSIVE below (oid, name, depth) AS (SELECT a.attrelid, a.attname, 0 UNION ALL \
             SELECT i.inhrelid, below.name, below.depth + 1 FROM below JOIN pg_catalog.pg_inherits i ON i.inhparent = below.oid \
             JOIN pg_catalog.pg_attribute c ON c.attrelid = i.inhrelid AND c.attname = below.name AND NOT c.attislocal) \
         SELECT value FROM (SELECT {} AS value, below.depth FROM pg_catalog.pg_attribute a JOIN below \
             ON below.oid = a.attrelid AND below.name = a.attname) AS of_all WHERE value IS NOT NULL ORDER BY depth LIMIT 1)",
        tables::missing(source)
    );
    let generated = if source.version() >= 120_000 { "a.attgenerated::text" } else { "''::text" };
    let sql = format!(
        "SELECT pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, \
         pg_catalog.pg_get_expr(d.adbin, d.adrelid), {missing}, a.attidentity::text, {generated}, \
         n.nspname::text, s.relname::text, pg_catalog.format_type(q.seqtypid, NULL) FROM pg_catalog.pg_attribute a \
         LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
         LEFT JOIN (pg_catalog.pg_depend o JOIN pg_catalog.pg_sequence q ON q.seqrelid = o.objid \
             JOIN pg_catalog.pg_class s ON s.oid = o.objid JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace) \
             ON o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND o.refclassid = o.classid AND o.deptype = 'a' \
             AND o.refobjid = a.attrelid AND o.refobjsubid = a.attnum \
         WHERE a.attrelid = $1 AND a.attnum = $2 AND NOT a.attisdropped LIMIT 1"
    );
    let row = source.query_opt(&sql, &[&oid, &number]).await;
    let Some(row) = row.during(source.side(), format!("look at the new column of {table}"))? else { return Ok(None) };
    let owned = row.take::<Option<String>>(6)?.zip(row.take::<Option<String>>(7)?).zip(row.take::<Option<String>>(8)?);
    let added = Added {
        kind: row.take(0)?,
        not_null: row.take(1)?,
        default: row.take(2)?,
        earlier: row.take(3)?,
        fill: match (row.take::<&str>(4)?, row.take::<&str>(5)?) {
            ("a", _) => Fill::Identity("ALWAYS"),
            ("d", _) => Fill::Identity("BY DEFAULT"),
            (_, "s") => Fill::Computed("STORED"),
            (_, "v") if target.version() >= 180_000 => Fill::Computed("VIRTUAL"),
            (_, "v") => Fill::Computed("STORED"),
            _ => owned.map_or(Fill::Default, |((schema, name), kind)| Fill::Serial(TableName { schema, name }, kind)),
        },
    };
    Ok(Some(added.sql(table, name)))
}

/// The default of the column of this number, of the table with this oid, as SQL.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn default_sql(source: &Session, oid: u32, number: i16) -> Result<Option<String>, DbError> {
    let sql =
        "SELECT pg_catalog.pg_get_expr(adbin, adrelid) FROM pg_catalog.pg_attrdef WHERE adrelid = $1 AND adnum = $2";
    let row =
        source.query_opt(sql, &[&oid, &number]).await.during(source.side(), "look for the default of a column")?;
    row.map_or(Ok(None), |row| row.take(0))
}

/// The number of the column of this name that is neither an identity nor computed, of the
/// table with this oid.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn number_of_column(source: &Session, oid: u32, name: &str) -> Result<Option<i16>, DbError> {
    let generated = if source.version() >= 120_000 { "AND attgenerated = ''" } else { "" };
    let sql = format!(
        "SELECT attnum FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attname = $2::text AND attnum > 0 \
         AND NOT attisdropped AND attidentity = '' {generated}"
    );
    let row = source.query_opt(&sql, &[&oid, &name]).await.during(source.side(), "look for a column by its name")?;
    row.map(|row| row.take(0)).transpose()
}

/// A table below another one whose column is not what an ALTER TABLE of that one makes it.
#[derive(Clone, Debug)]
pub struct Below {
    /// Its oid.
    pub oid: u32,
    /// The column's number there.
    pub number: i16,
    /// Whether older rows have other values there, by an ADD COLUMN of its own.
    pub has_own_values: bool,
    /// Its default as SQL, where it has another one.
    pub own_default: Option<Option<String>>,
}

/// Those below the table with this oid, by partition or inheritance, whose column of the
/// name that this one has is not what an ALTER TABLE of this table makes it; the deepest first.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn otherwise_below(source: &Session, oid: u32, number: i16) -> Result<Vec<Below>, DbError> {
    let generated = if source.version() >= 120_000 { "a.attgenerated = ''" } else { "true" };
    let sql = format!(
        "WITH RECURSIVE below (oid, depth) AS (SELECT $1::oid, 0 UNION ALL SELECT i.inhrelid, below.depth + 1 FROM below \
             JOIN pg_catalog.pg_inherits i ON i.inhparent = below.oid), \
         named AS (SELECT attname FROM pg_catalog.pg_attribute WHERE attrelid = $1 AND attnum = $2), \
         of_all AS (SELECT a.attrelid, a.attnum, b.depth, a.attislocal, {} AS missing, pg_catalog.pg_get_expr(d.adbin, d.adrelid) AS given \
             FROM (SELECT oid, max(depth) AS depth FROM below GROUP BY oid) AS b CROSS JOIN named \
             JOIN pg_catalog.pg_attribute a ON a.attrelid = b.oid AND a.attname = named.attname AND {generated} \
             LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum) \
         SELECT c.attrelid, c.attnum, c.has_own_values, c.has_own_default, c.given FROM (SELECT o.attrelid, o.attnum, o.depth, o.given, \
             o.attislocal AND o.missing IS DISTINCT FROM top.missing AS has_own_values, o.given IS DISTINCT FROM top.given AS has_own_default \
             FROM of_all o JOIN of_all top ON top.depth = 0 AND o.depth > 0) AS c \
         WHERE c.has_own_values OR c.has_own_default ORDER BY c.depth DESC, c.attrelid",
        tables::missing(source)
    );
    let rows = source.query(&sql, &[&oid, &number]).await;
    let below = |row: &Row| {
        let has_own_default: bool = row.take(3)?;
        let default: Option<String> = row.take(4)?;
        Ok(Below {
            oid: row.take(0)?,
            number: row.take(1)?,
            has_own_values: row.take(2)?,
            own_default: has_own_default.then_some(default),
        })
    };
    rows.during(source.side(), "look at the defaults of the tables below")?.iter().map(below).collect()
}

/// Where the values of new rows come from.
#[derive(Debug)]
enum Fill {
    /// The default, if there is one.
    Default,
    /// A sequence of its own, of this type.
    Serial(TableName, String),
    /// It is numbered, ALWAYS or BY DEFAULT.
    Identity(&'static str),
    /// The default is an expression; STORED or VIRTUAL.
    Computed(&'static str),
}

/// A column that was added on the source.
#[derive(Debug)]
struct Added {
    kind: String,
    not_null: bool,
    default: Option<String>,
    /// What rows have that were there before the column.
    earlier: Option<String>,
    fill: Fill,
}

/// Said of values that no catalog has.
const COMPARED: &str = " (rows that were there before may have values of their own in this column, which are in no stream: \
     the next catchup compares them)";

impl Added {
    fn sql(&self, table: &TableName, column: &str) -> String {
        let (table, column, kind) = (table.sql(), ident(column), &self.kind);
        let add = format!("ALTER TABLE {table} ADD COLUMN {column} {kind}");
        let default = self.default.as_deref().unwrap_or_default();
        match &self.fill {
            Fill::Identity(when) => format!("{add} GENERATED {when} AS IDENTITY;{COMPARED}"),
            Fill::Computed(how) => format!("{add} GENERATED ALWAYS AS ({default}) {how};"),
            Fill::Serial(sequence, of) => format!(
                "CREATE SEQUENCE IF NOT EXISTS {} AS {of}; {add} DEFAULT {default}{}; ALTER SEQUENCE {} OWNED BY {table}.{column};{COMPARED}",
                sequence.sql(),
                if self.not_null { " NOT NULL" } else { "" },
                sequence.sql()
            ),
            Fill::Default => self.plain_sql(add, &table, &column),
        }
    }

    fn plain_sql(&self, add: String, table: &str, column: &str) -> String {
        let mut sql = add;
        if let Some(earlier) = &self.earlier {
            sql.push_str(&format!(" DEFAULT {}", literal(earlier)));
            if self.not_null {
                sql.push_str(" NOT NULL");
            }
        }
        if let Some(default) = &self.default {
            sql.push_str(&format!(", ALTER COLUMN {column} SET DEFAULT {default}"));
        }
        sql.push(';');
        if self.earlier.is_some() && self.default.is_none() {
            // In one statement it would come before the column.
            sql.push_str(&format!(" ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT;"));
        }
        if self.default.is_some() && self.earlier.is_none() {
            sql.push_str(COMPARED);
        }
        sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(not_null: bool, default: Option<&str>, earlier: Option<&str>, fill: Fill) -> String {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let (default, earlier) = (text(default), text(earlier));
        let added = Added { kind: "numeric(10,2)".to_owned(), not_null, default, earlier, fill };
        added.sql(&TableName::new("public", "t"), "a")
    }

    #[test]
    fn rows_that_were_there_before_get_what_they_have_on_the_source() {
        assert_eq!(
            sql(true, Some("1.5"), Some("1.50"), Fill::Default),
            r#"ALTER TABLE "public"."t" ADD COLUMN "a" numeric(10,2) DEFAULT '1.50' NOT NULL, ALTER COLUMN "a" SET DEFAULT 1.5;"#
        );
        assert_eq!(
            sql(false, None, Some("1.50"), Fill::Default),
            r#"ALTER TABLE "public"."t" ADD COLUMN "a" numeric(10,2) DEFAULT '1.50'; ALTER TABLE "public"."t" ALTER COLUMN "a" DROP DEFAULT;"#
        );
        let bare = r#"ALTER TABLE "public"."t" ADD COLUMN "a" numeric(10,2);"#;
        assert_eq!(sql(false, None, None, Fill::Default), bare);
    }

    #[test]
    fn values_that_no_catalog_has_are_said_to_be_compared() {
        let sql_of = |fill| sql(true, Some("random()"), None, fill);
        let plain = sql_of(Fill::Default);
        assert!(plain.contains("SET DEFAULT random();") && plain.contains("in no stream"), "{plain}");
        let identity = sql_of(Fill::Identity("ALWAYS"));
        assert!(identity.contains("numeric(10,2) GENERATED ALWAYS AS IDENTITY; (rows"), "{identity}");
        let serial = sql_of(Fill::Serial(TableName::new("s", "q"), "bigint".to_owned()));
        assert!(serial.starts_with(r#"CREATE SEQUENCE IF NOT EXISTS "s"."q" AS bigint; ALTER TABLE"#), "{serial}");
        let computed = sql(false, Some("(id * 2)"), None, Fill::Computed("STORED"));
        assert!(computed.ends_with("GENERATED ALWAYS AS ((id * 2)) STORED;"), "{computed}");
    }
}
