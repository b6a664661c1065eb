//! Which tables take part: psql-like patterns.

use crate::sql::TableName;

/// The operator's choice of tables.
#[derive(Clone, Debug, Default)]
pub struct TableFilter {}

impl TableFilter {
    /// Whether the table takes part in the migration.
    pub fn includes(&self, _table: &TableName) -> bool {
        true
    }
}
