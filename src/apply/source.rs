//! What the applier asks the source beside the stream: seldom, when a change
//! cannot be understood from the stream alone.
//!
//! Invariant: the answers are of now, the changes are of then; they make words
//! for the operator and follow renames by oid, and nothing else.

use std::collections::HashMap;

use tokio_postgres::types::Type;

use super::target::{Generation, TargetColumn, TargetTable};
use crate::catalog::added::add_column_sql;
use crate::catalog::tables::{self, Table};
use crate::catalog::types::{BELOW_DOMAINS, ColumnType};
use crate::config::{Settings, Side};
use crate::membership::columns::{self, Difference, Pair};
use crate::membership::placement::Hierarchy;
use crate::pgoutput::RelationColumn;
use crate::relation::Relation;
use crate::session::{DbContext, Session};
use crate::sql::TableName;
use crate::state::State;

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

    /// A type of the source as SQL.
    ///
    /// # Errors
    /// When the source cannot be asked.
    pub async fn type_sql(&mut self, of: ColumnType) -> Result<String, ApplyError> {
        let sql = "SELECT pg_catalog.format_type($1::oid, $2::int4)";
        let row = self.session().await?.query_one(sql, &[&of.oid, &of.modifier]).await;
        Ok(row.during(Side::Source, "look at a type")?.take(0)?)
    }

    /// The table on the target where an ALTER TABLE reaches a column of this relation.
    ///
    /// # Errors
    /// When either side cannot be asked.
    pub async fn altered(
        &mut self,
        relation: u32,
        there: &TableName,
        columns: &[&str],
        state: &State,
    ) -> Result<TableName, ApplyError> {
        let above = tables::with_column_above(self.session().await?, relation, columns).await?;
        let names = state.target_names(&above.iter().map(|table| table.oid).collect::<Vec<_>>()).await?;
        Ok(above.iter().find_map(|table| names.get(&table.oid)).unwrap_or(there).clone())
    }

    /// Refuses a relation whose columns are not the target's of their names, with the SQL
    /// that makes them so ([`crate::membership::columns`]).
    ///
    /// # Errors
    /// [`MappingError::Columns`]; when either side cannot be asked.
    pub async fn require_columns(
        &mut self,
        relation: &Relation,
        there: &TargetTable,
        target: &Session,
        state: &State,
    ) -> Result<Option<MappingError>, ApplyError> {
        let pairs = state.column_pairs(&[relation.id]).await?.remove(&relation.id).unwrap_or_default();
        let pairs = pairs.with(there.oid);
        let names: Vec<&str> = relation.columns.iter().map(|column| column.name.as_str()).collect();
        if are_as_paired(&names, there, pairs) {
            return Ok(None);
        }
        let hierarchy = Hierarchy::of(self.settings.schema);
        let now =
            tables::columns(self.session().await?, &[relation.id]).await?.remove(&relation.id).unwrap_or_default();
        let Some(columns) = columns::numbered(&names, &now, pairs) else { return Ok(None) };
        let theirs = tables::columns(target, &[there.oid]).await?.remove(&there.oid).unwrap_or_default();
        let compared = columns::compare(&columns, &theirs, pairs, hierarchy);
        // Types are compared as the message has them.
        let is_of_names = |one: &Difference<'_>| match one {
            Difference::Unlike { column, there } => there.is_generated && !column.is_generated,
            _ => true,
        };
        let differences: Vec<Difference<'_>> = compared.differences.into_iter().filter(is_of_names).collect();
        if differences.is_empty() {
            return Ok(None);
        }
        let altered = self.altered(relation.id, &there.table, &names, state).await?;
        let mut adds = HashMap::new();
        for column in columns::to_add(&differences) {
            let add = add_column_sql(self.session().await?, relation.id, &altered, column).await?;
            adds.extend(add.map(|add| (column.to_owned(), add)));
        }
        Ok(Some(MappingError::Columns { sql: columns::sql(&altered, &differences, &adds).join(" ") }))
    }

    /// The same error, a missing column's remedy as the source defines it.
    ///
    /// # Errors
    /// When the source cannot be asked.
    pub async fn explain(
        &mut self,
        relation: u32,
        error: MappingError,
        state: &State,
    ) -> Result<MappingError, ApplyError> {
        Ok(match error {
            MappingError::NoColumn { table, column, left_over, remedy, .. } => {
                let altered = self.altered(relation, &table, &[&column], state).await?;
                let known = add_column_sql(self.session().await?, relation, &altered, &column).await?;
                MappingError::NoColumn { table, column, left_over, remedy: known.unwrap_or(remedy), altered }
            }
            other => other,
        })
    }
}

/// Whether the names are those that the pairs' columns have on the target, in the order of
/// the source and without a gap, and none is computed there: then the source need not be
/// asked. A column that is gone may have left its name to another.
fn are_as_paired(names: &[&str], there: &TargetTable, pairs: &[Pair]) -> bool {
    let column = |number: i16| there.columns.iter().find(|column| column.number == number);
    let is_computed = |column: &&TargetColumn| column.generation == Generation::Expression;
    let mut pairs = pairs.to_vec();
    pairs.sort_unstable();
    let paired = pairs.iter().filter_map(|(_, theirs)| column(*theirs)).filter(|column| !is_computed(column));
    let is_known = pairs.is_empty() || paired.map(|column| column.name.as_str()).eq(names.iter().copied());
    is_known && !there.columns.iter().filter(is_computed).any(|column| names.contains(&column.name.as_str()))
}
