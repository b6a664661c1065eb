//! Source columns → target columns: how the rows of one relation find their
//! place on the target. Pure.
//!
//! Invariant: columns are matched by name, never by place; a source column
//! that the target does not have is an error, an extra one on the target keeps
//! its default. Source: `logicalrep_rel_open` and
//! `logicalrep_rel_mark_updatable` in
//! `src/backend/replication/logical/relation.c`.

use std::sync::Arc;

use super::Label;
use super::target::{Generation, TargetColumn, TargetTable};
use crate::catalog::types::ColumnType;
use crate::pgoutput::{KeyColumn, ReplicaIdentity};
use crate::relation::Relation;
use crate::shell;
use crate::sql::printed::printed;
use crate::sql::{TableName, ident};

/// How the row that a change means is found on the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// By these columns of the relation (indexes), which an index covers.
    Key(Vec<usize>),
    /// By all columns: exactly one of the rows that are equal to the last byte.
    WholeRow,
    /// Not at all: only inserts can be applied.
    None,
}

/// Why a relation cannot be mapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// The target has no such table.
    #[error("table {0} does not exist on the target")]
    NoTable(TableName),
    /// The target's table lacks a column.
    #[error(
        "table {table} on the target has no column {}; run on the target: {} then start again", ident(.column),
        new_or_renamed(.altered, .column, .left_over.as_deref(), &printed(.remedy))
    )]
    NoColumn {
        /// The table.
        table: TableName,
        /// The column on the source.
        column: String,
        /// The one column that the target has and the source has not, when no other
        /// lacks: this may be its new name.
        left_over: Option<String>,
        /// The SQL that adds it.
        remedy: String,
        /// Where an ALTER TABLE reaches the column.
        altered: TableName,
    },
    /// Its columns have other names, or others have theirs.
    #[error("its columns are others on the source by now; run on the target: {} then start again", printed(.sql))]
    Columns {
        /// The statements.
        sql: String,
        /// Whether they only add columns: changes from before then still have a place.
        is_addition: bool,
    },
    /// Which columns a change has cannot be told.
    #[error(
        "only some columns of table {table} are published by now, or it was altered more than once on the source: which columns \
         this change is of cannot be told; copy it anew: walferry resync {}; then start again",
        shell::table(table)
    )]
    Layout {
        /// The table.
        table: TableName,
    },
    /// One transaction has changes of the table as it was and as it was altered.
    #[error(
        "table {table} was altered on the source in the midst of this transaction, and no table has a place for all its changes: \
         copy it anew: walferry resync {}; then start again",
        shell::table(table)
    )]
    Within {
        /// The table.
        table: TableName,
    },
    /// The target's column holds less than the source's.
    #[error(
        "column {} of table {table} is {on_source} on the source by now, and of {on_target} the target would round, cut or refuse values; \
         run on the target: ALTER TABLE {} ALTER COLUMN {} TYPE {on_source}; then start again", ident(.column), .altered.sql(), ident(.column)
    )]
    Narrower {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
        /// Its type on the source, as SQL.
        on_source: String,
        /// Its type on the target, as SQL.
        on_target: String,
        /// Where an ALTER TABLE reaches the column.
        altered: TableName,
    },
}

impl MappingError {
    /// Whether columns of the target are missing or have other names.
    pub fn is_of_columns(&self) -> bool {
        matches!(self, MappingError::NoColumn { .. } | MappingError::Columns { .. })
    }
}

/// What the stream alone knows of a column that is missing.
fn add_column_sql(table: &TableName, column: &str, type_oid: u32) -> String {
    let kind = tokio_postgres::types::Type::from_oid(type_oid)
        .map_or_else(|| "<its type on the source>".to_owned(), |known| known.name().to_owned());
    format!("ALTER TABLE {} ADD COLUMN {} {kind};", table.sql(), ident(column))
}

/// What is done about a column that the target lacks: it is new, or was renamed.
pub fn new_or_renamed(table: &TableName, column: &str, left_over: Option<&str>, add: &str) -> String {
    let Some(old) = left_over else { return add.to_owned() };
    let (table, old, column) = (table.sql(), ident(old), ident(column));
    format!(
        "if {column} is the new name of {old}: ALTER TABLE {table} RENAME COLUMN {old} TO {column}; if it is a new column: {add}"
    )
}

/// The one column that is on the target alone, when there is one on the source alone.
pub fn left_over<'a>(source: &[&str], target: &[&'a str]) -> Option<&'a str> {
    let mut lacking = source.iter().filter(|name| !target.contains(name));
    let mut beyond = target.iter().filter(|name| !source.contains(name));
    match (lacking.next(), lacking.next(), beyond.next(), beyond.next()) {
        (Some(_), None, Some(beyond), None) => Some(beyond),
        _ => None,
    }
}

/// A relation's place on the target.
#[derive(Debug)]
pub struct Mapping {
    /// The relation as the source described it.
    pub relation: Arc<Relation>,
    /// The table on the target.
    pub target: TargetTable,
    /// How rows are found.
    pub identity: Identity,
    /// Table and key, for messages.
    pub label: Arc<Label>,
    /// For each column of the relation its index in the target's columns.
    places: Vec<usize>,
}

impl Mapping {
    /// Maps a relation onto a table.
    ///
    /// # Errors
    /// When the target lacks a column.
    pub fn new(relation: Arc<Relation>, target: TargetTable) -> Result<Self, MappingError> {
        let place = |name: &str| target.columns.iter().position(|column| column.name == name);
        let left_over = || {
            let on_source: Vec<&str> = relation.columns.iter().map(|column| column.name.as_str()).collect();
            let on_target: Vec<&str> = target.columns.iter().map(|column| column.name.as_str()).collect();
            left_over(&on_source, &on_target).map(str::to_owned)
        };
        let places = relation
            .columns
            .iter()
            .map(|column| {
                place(&column.name).ok_or_else(|| MappingError::NoColumn {
                    table: target.table.clone(),
                    column: column.name.clone(),
                    left_over: left_over(),
                    remedy: add_column_sql(&target.table, &column.name, column.type_oid),
                    altered: target.table.clone(),
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let identity = identity(&relation, &target);
        let label = Arc::new(Label { table: relation.table.clone(), key: key_names(&relation, &identity) });
        Ok(Mapping { relation, target, identity, label, places })
    }

    /// The first column that is of a type on the target that holds less than `types`,
    /// which are those of the relation's columns below their domains.
    pub fn narrower(&self, types: &[ColumnType]) -> Option<(usize, &TargetColumn)> {
        let is_narrower = |(index, column_type): (usize, &ColumnType)| {
            let there = self.column(index).filter(|there| there.generation != Generation::Expression)?;
            column_type.loses_in(there.below).then_some((index, there))
        };
        types.iter().enumerate().find_map(is_narrower)
    }

    /// The target column of a relation's column.
    pub fn column(&self, index: usize) -> Option<&TargetColumn> {
        self.target.columns.get(*self.places.get(index)?)
    }

    /// The relation's columns (indexes) that INSERT may name.
    pub fn insertable(&self) -> impl Iterator<Item = usize> + '_ {
        let is_written =
            move |index: &usize| self.column(*index).is_some_and(|c| c.generation != Generation::Expression);
        (0..self.places.len()).filter(move |index| is_written(index))
    }

    /// The target's columns that INSERT may name but the relation does not have.
    pub fn extra_columns(&self) -> impl Iterator<Item = &TargetColumn> + '_ {
        self.target
            .columns
            .iter()
            .enumerate()
            .filter(|(place, column)| column.generation != Generation::Expression && !self.places.contains(place))
            .map(|(_, column)| column)
    }
}

fn key_names(relation: &Relation, identity: &Identity) -> Vec<String> {
    let name = |&index: &usize| relation.columns.get(index).map(|column| column.name.clone());
    match identity {
        Identity::Key(columns) => columns.iter().filter_map(name).collect(),
        Identity::WholeRow | Identity::None => Vec::new(),
    }
}

fn identity(relation: &Relation, target: &TargetTable) -> Identity {
    let place = |name: &String| relation.columns.iter().position(|column| &column.name == name);
    match relation.replica_identity {
        ReplicaIdentity::Full => {
            let unique = target.unique_key.as_ref().and_then(|names| names.iter().map(place).collect());
            unique.map_or(Identity::WholeRow, Identity::Key)
        }
        ReplicaIdentity::Default | ReplicaIdentity::Index => {
            let key: Vec<usize> = relation
                .columns
                .iter()
                .enumerate()
                .filter(|(_, column)| column.key == KeyColumn::Yes)
                .map(|(index, _)| index)
                .collect();
            if key.is_empty() { Identity::None } else { Identity::Key(key) }
        }
        ReplicaIdentity::Nothing => Identity::None,
    }
}
