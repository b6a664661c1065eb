//! What the applier asks the source beside the stream: seldom, when a change
//! cannot be understood from the stream alone.
//!
//! Invariant: the answers are of now, the changes are of then; they make words
//! for the operator and follow renames by oid, and nothing else.

use std::collections::{HashMap, HashSet};

use tokio_postgres::types::Type;

use super::target::{Generation, TargetColumn, TargetTable};
use crate::catalog::tables::{self, Column, Table};
use crate::catalog::types::{BELOW_DOMAINS, ColumnType};
use crate::config::{Settings, Side};
use crate::membership::alter::{self, Altered};
use crate::membership::columns::{self, Difference, Pair};
use crate::membership::layout::{Layout, Numbers};
use crate::membership::placement::Hierarchy;
use crate::pgoutput::RelationColumn;
use crate::relation::Relation;
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::TableName;
use crate::state::State;
use crate::state::tables::Pairs;

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

    /// The names of these tables, by oid, as far as the source still has them.
    ///
    /// # Errors
    /// When the source cannot be asked.
    pub async fn names(&mut self, oids: impl Iterator<Item = u32>) -> Result<HashMap<u32, TableName>, ApplyError> {
        let oids: Vec<u32> = oids.collect();
        let sql = "SELECT c.oid, n.nspname::text, c.relname::text FROM pg_catalog.pg_class c \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1::oid[])";
        let rows =
            self.session().await?.query(sql, &[&oids]).await.during(Side::Source, "look for the tables' names")?;
        let name = |row: &Row| Ok((row.take(0)?, TableName { schema: row.take(1)?, name: row.take(2)? }));
        Ok(rows.iter().map(name).collect::<Result<_, DbError>>()?)
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
            "SELECT a.atttypid, below.oid, below.modifier, a.typtype = 'd' FROM (SELECT oid AS atttypid, -1 AS atttypmod, typtype \
             FROM pg_catalog.pg_type WHERE oid = ANY ($1::oid[])) AS a CROSS JOIN {BELOW_DOMAINS} AS below"
        );
        let rows = self.session().await?.query(&sql, &[&own]).await;
        let mut gone = own;
        for row in rows.during(Side::Source, format!("look at the types of {}", relation.table))? {
            let (own, below) = (row.take::<u32>(0)?, ColumnType { oid: row.take(1)?, modifier: row.take(2)? });
            gone.retain(|gone| *gone != own);
            if row.take(3)? {
                types.iter_mut().filter(|one| one.oid == own).for_each(|one| *one = below);
            }
        }
        if gone.is_empty() {
            return Ok(types);
        }
        // Of a type that was dropped since, nothing but what the column has become tells.
        let now =
            tables::columns(self.session().await?, &[relation.id]).await?.remove(&relation.id).unwrap_or_default();
        for (told, column) in types.iter_mut().zip(&relation.columns).filter(|(told, _)| gone.contains(&told.oid)) {
            *told = now.iter().find(|now| now.name == column.name).map_or(*told, |now| now.below);
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

    /// Refuses a relation whose columns are not the target's of their names, or of another
    /// type than they were, with the SQL that makes them so
    /// ([`crate::membership::columns`]). `types` are those below all domains.
    ///
    /// # Errors
    /// When either side cannot be asked.
    pub async fn require_columns(
        &mut self,
        relation: &Relation,
        types: &[ColumnType],
        there: &TargetTable,
        (target, state): (&Session, &State),
    ) -> Result<Option<MappingError>, ApplyError> {
        let known = state.column_pairs(&[relation.id]).await?.remove(&relation.id).unwrap_or_default();
        let pairs = known.with(there.oid);
        let names: Vec<&str> = relation.columns.iter().map(|column| column.name.as_str()).collect();
        if are_as_paired(&names, types, there, pairs) {
            return Ok(None);
        }
        let session = self.session().await?;
        let now = tables::columns(session, &[relation.id]).await?.remove(&relation.id).unwrap_or_default();
        let last = tables::last_column(session, relation.id).await?;
        let theirs = tables::columns(target, &[there.oid]).await?.remove(&there.oid).unwrap_or_default();
        let numbers = Numbers { now: &now, last, copied: known.last, pairs, there: &theirs };
        let (mut columns, is_guessed) = match numbers.of(&names) {
            Layout::Known(columns) => (columns, false),
            Layout::Guessed(columns) => (columns, true),
            Layout::Unknown => {
                return Ok(Some(MappingError::Layout { table: there.table.clone() }));
            }
        };
        // As the message has them: by now they may be others again.
        for (column, told) in columns.iter_mut().zip(types).filter(|(column, told)| column.below != **told) {
            (column.below, column.below_sql) = (*told, self.type_sql(*told).await?);
        }
        let is_sent = |column: &&Column| columns.iter().any(|sent| sent.number == column.number);
        let is_paired = |column: &&Column| pairs.iter().any(|pair| pair.ours == column.number);
        let beside: Vec<Column> = now.iter().filter(is_paired).filter(|column| !is_sent(column)).cloned().collect();
        // From before a column came that the target has by now.
        let is_there = |column: &&Column| theirs.iter().any(|there| there.name == column.name) || is_paired(column);
        let is_older = now.iter().filter(|c| !c.is_generated() && !is_sent(c)).any(|column| is_there(&column));
        columns.extend(beside);
        let hierarchy = Hierarchy::of(self.settings.schema);
        let mut compared = columns::compare(&columns, &theirs, (pairs, &HashMap::new()), hierarchy);
        let called;
        if compared.differences.iter().any(|difference| matches!(difference, Difference::Lacks(_))) {
            called = self.called(relation.id, (target, state)).await?;
            compared = columns::compare(&columns, &theirs, (pairs, &called), hierarchy);
        }
        if compared.differences.is_empty() {
            // What the message has no value for gets the target's default, and need not
            // have been so on the source.
            let doubted: HashSet<u32> =
                (is_guessed || is_older || compared.is_doubted).then_some(relation.id).into_iter().collect();
            let met = (!compared.met.is_empty()).then(|| {
                (
                    relation.id,
                    Pairs {
                        of: there.oid,
                        pairs: columns::with_met(pairs, &compared.met),
                        formerly: known.formerly.clone(),
                        last: known.last.or_else(|| pairs.iter().map(|pair| pair.ours).max()),
                    },
                )
            });
            state.keep_pairs(&met.into_iter().collect::<Vec<_>>(), &doubted).await?;
            return Ok(None);
        }
        let altered = Altered { oid: relation.id, columns: &now, there: there.oid, name: &there.table };
        let sql =
            alter::mended((self.session().await?, target), altered, &compared.differences, state).await?.join(" ");
        let is_addition = compared.differences.iter().all(|difference| matches!(difference, Difference::Lacks(_)));
        Ok(Some(MappingError::Columns { sql, is_addition }))
    }

    /// What columns are called on the target that others of the same family have met
    /// ([`columns::called`]).
    async fn called(
        &mut self,
        relation: u32,
        (target, state): (&Session, &State),
    ) -> Result<HashMap<String, String>, ApplyError> {
        let session = self.session().await?;
        let family = tables::family(session, relation).await?;
        let here = tables::columns(session, &family).await?;
        let pairs = state.column_pairs(&family).await?;
        let there = tables::columns(target, &pairs.values().map(|pairs| pairs.of).collect::<Vec<_>>()).await?;
        Ok(columns::called(pairs.iter().filter_map(|(oid, known)| {
            Some((here.get(oid)?.as_slice(), there.get(&known.of)?.as_slice(), known.pairs.as_slice()))
        })))
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
                let session = self.session().await?;
                let top = alter::top(session, (relation, &table), &column, state).await?;
                let known = alter::addition((session, state.session()), &top, &column, state).await?;
                let altered = top.there;
                MappingError::NoColumn { table, column, left_over, remedy: known.unwrap_or(remedy), altered }
            }
            other => other,
        })
    }
}

/// Whether the names are those that the pairs' columns have on the target, in the order of
/// the source and without a gap, the types as they were, and none is computed there or there
/// alone: then the source need not be asked. A column that is gone may have left its name to
/// another.
fn are_as_paired(names: &[&str], types: &[ColumnType], there: &TargetTable, pairs: &[Pair]) -> bool {
    let column = |number: i16| there.columns.iter().find(|column| column.number == number);
    let is_computed = |column: &&TargetColumn| column.generation == Generation::Expression;
    let mut pairs: Vec<&Pair> = pairs.iter().filter(|pair| !Pair::is_computed(pair.was)).collect();
    pairs.sort_unstable_by_key(|pair| pair.ours);
    let paired = pairs.iter().filter_map(|pair| Some((column(pair.theirs)?, pair.was)));
    let paired = paired.filter(|(column, _)| !is_computed(column));
    let told = names.iter().copied().zip(types.iter().copied());
    let is_alone = |column: &TargetColumn| !pairs.iter().any(|pair| pair.theirs == column.number);
    if !pairs.is_empty() && there.columns.iter().any(|column| !is_computed(&column) && is_alone(column)) {
        return false;
    }
    let is_known = pairs.is_empty() || paired.map(|(column, was)| (column.name.as_str(), was)).eq(told);
    is_known && !there.columns.iter().filter(is_computed).any(|column| names.contains(&column.name.as_str()))
}
