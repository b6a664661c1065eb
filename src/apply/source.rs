//! What the applier asks the source beside the stream: seldom, when a change
//! cannot be understood from the stream alone.
//!
//! Invariant: the answers are of now, the changes are of then; they make words
//! for the operator and follow renames by oid, and nothing else.

use tokio_postgres::types::Type;

use crate::catalog::tables::{self, Table};
use crate::catalog::types::{BELOW_DOMAINS, ColumnType};
use crate::config::{Settings, Side};
use crate::pgoutput::RelationColumn;
use crate::relation::Relation;
use crate::session::{DbContext, Session};
use crate::sql::{TableName, ident, literal};

use super::ApplyError;
use super::mapping::MappingError;

/// A session on the source, made when it is first needed and again when lost.
pub struct Source {
    settings: Settings,
    session: Option<Session>,
}

impl Source {
    /// Nothing is connected yet.
    pub fn new(settings: &Settings) -> Self {
        Source { settings: settings.clone(), session: None }
    }

    /// The session.
    ///
    /// # Errors
    /// When the source cannot be reached.
    pub async fn session(&mut self) -> Result<&Session, ApplyError> {
        let session = match self.session.take() {
            Some(session) if !session.is_closed() => session,
            _ => Session::connect(&self.settings.source, &self.settings.name).await?,
        };
        Ok(self.session.insert(session))
    }

    /// The table with this oid as it is now; `None` when it was dropped.
    ///
    /// # Errors
    /// When the source cannot be asked.
    pub async fn table(&mut self, oid: u32) -> Result<Option<Table>, ApplyError> {
        Ok(tables::find(self.session().await?, oid).await?)
    }

    /// The SQL that gives the target a column of the source, with the value
    /// that the rows had that were there before it; `None` when the source has
    /// dropped it again.
    ///
    /// # Errors
    /// When the source cannot be asked.
    pub async fn add_column_sql(
        &mut self,
        relation: u32,
        table: &TableName,
        column: &str,
    ) -> Result<Option<String>, ApplyError> {
        let session = self.session().await?;
        let missing = if session.version() >= 110_000 {
            "CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END"
        } else {
            "NULL::text"
        };
        let sql = format!(
            "SELECT pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, \
             pg_catalog.pg_get_expr(d.adbin, d.adrelid), {missing} FROM pg_catalog.pg_attribute a \
             LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
             WHERE a.attrelid = $1 AND a.attname = $2 AND NOT a.attisdropped"
        );
        let row = session.query_opt(&sql, &[&relation, &column]).await;
        let row = row.during(Side::Source, format!("look at the new column of {table}"))?;
        let Some(row) = row else { return Ok(None) };
        let added = Added { kind: row.take(0)?, not_null: row.take(1)?, default: row.take(2)?, earlier: row.take(3)? };
        Ok(Some(added.sql(table, column)))
    }
}

impl Source {
    /// The types of a relation's columns below their domains; a message names a domain
    /// by its own oid, and not what is below.
    ///
    /// # Errors
    /// When the source cannot be asked.
    pub async fn types_below(&mut self, relation: &Relation) -> Result<Vec<ColumnType>, ApplyError> {
        let told = |column: &RelationColumn| ColumnType { oid: column.type_oid, modifier: column.type_modifier };
        let mut types: Vec<ColumnType> = relation.columns.iter().map(told).collect();
        let own: Vec<u32> = types.iter().map(|one| one.oid).filter(|oid| Type::from_oid(*oid).is_none()).collect();
        if own.is_empty() {
            return Ok(types);
        }
        let sql = format!(
            "SELECT a.atttypid, below.oid, below.modifier FROM (SELECT oid AS atttypid, -1 AS atttypmod FROM pg_catalog.pg_type \
             WHERE oid = ANY ($1::oid[]) AND typtype = 'd') AS a CROSS JOIN {BELOW_DOMAINS} AS below"
        );
        let rows = self.session().await?.query(&sql, &[&own]).await;
        for row in rows.during(Side::Source, format!("look at the types of {}", relation.table))? {
            let (domain, below) = (row.take::<u32>(0)?, ColumnType { oid: row.take(1)?, modifier: row.take(2)? });
            types.iter_mut().filter(|one| one.oid == domain).for_each(|one| *one = below);
        }
        Ok(types)
    }

    /// A column's type as SQL, as it is now; `None` when it is gone.
    ///
    /// # Errors
    /// When the source cannot be asked.
    pub async fn type_sql(&mut self, relation: &Relation, column: &str) -> Result<Option<String>, ApplyError> {
        let columns = tables::columns(self.session().await?, &[relation.id]).await?;
        let of_relation = columns.into_values().flatten();
        Ok(of_relation.into_iter().find(|one| one.name == column).map(|one| one.below_sql))
    }

    /// The same error, a missing column's remedy as the source defines it.
    ///
    /// # Errors
    /// When the source cannot be asked.
    pub async fn explain(&mut self, relation: u32, error: MappingError) -> Result<MappingError, ApplyError> {
        Ok(match error {
            MappingError::NoColumn { table, column, left_over, remedy } => {
                let known = self.add_column_sql(relation, &table, &column).await?;
                MappingError::NoColumn { table, column, left_over, remedy: known.unwrap_or(remedy) }
            }
            other => other,
        })
    }
}

/// A column that was added on the source.
struct Added {
    kind: String,
    not_null: bool,
    default: Option<String>,
    /// What rows have that were there before the column.
    earlier: Option<String>,
}

impl Added {
    fn sql(&self, table: &TableName, column: &str) -> String {
        let (table, column) = (table.sql(), ident(column));
        let mut sql = format!("ALTER TABLE {table} ADD COLUMN {column} {}", self.kind);
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
        if self.default.is_some() && self.earlier.is_none() {
            sql.push_str(
                " (rows that were there before may have values of their own in this column, which are in no stream: \
                 compare them)",
            );
        }
        sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(not_null: bool, default: Option<&str>, earlier: Option<&str>) -> String {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let added =
            Added { kind: "numeric(10,2)".to_owned(), not_null, default: text(default), earlier: text(earlier) };
        added.sql(&TableName::new("public", "t"), "a")
    }

    #[test]
    fn rows_that_were_there_before_get_what_they_have_on_the_source() {
        assert_eq!(
            sql(true, Some("1.5"), Some("1.50")),
            r#"ALTER TABLE "public"."t" ADD COLUMN "a" numeric(10,2) DEFAULT '1.50' NOT NULL, ALTER COLUMN "a" SET DEFAULT 1.5;"#
        );
        assert_eq!(sql(false, None, None), r#"ALTER TABLE "public"."t" ADD COLUMN "a" numeric(10,2);"#);
    }

    #[test]
    fn a_default_whose_values_nobody_knows_is_said_to_be_one() {
        let sql = sql(true, Some("random()"), None);
        assert!(sql.contains("SET DEFAULT random();") && sql.contains("in no stream"), "{sql}");
    }
}
