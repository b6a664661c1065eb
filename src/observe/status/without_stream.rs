//! What has no stream, as the status shows it: unlogged tables, materialized
//! views, foreign tables.
//!
//! Source: what waits is in `walferry.deferred`; views that stay as they are
//! and foreign tables are what the target's catalog has beside that.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::StatusError;
use crate::sql::TableName;
use crate::state::State;
use crate::state::sweeps::iso8601_sql;

/// A relation whose rows come by no stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithoutStream {
    /// `unlogged table`, `materialized view` or `foreign table`.
    pub kind: String,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `waiting` (for `catchup --finish`), `copied`, `refreshed`; `left alone`
    /// (a view without data on the source, or all with `--schema none`);
    /// `elsewhere` (a foreign table's rows).
    pub state: String,
    /// When it was copied or refreshed, ISO 8601.
    pub at: Option<String>,
}

const LIST: &str = "SELECT kind, schema, table_name, \
        CASE WHEN restored_at IS NULL THEN 'waiting' WHEN kind = 'unlogged table' THEN 'copied' ELSE 'refreshed' END, RESTORED \
    FROM walferry.deferred WHERE migration = $1 AND kind IN ('unlogged table', 'materialized view') \
    UNION ALL \
    SELECT CASE c.relkind WHEN 'f' THEN 'foreign table' ELSE 'materialized view' END, n.nspname::text, c.relname::text, \
        CASE c.relkind WHEN 'f' THEN 'elsewhere' ELSE 'left alone' END, NULL \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('f', 'm') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'walferry') \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass \
            AND d.objid = c.oid AND d.deptype = 'e') \
        AND NOT EXISTS (SELECT FROM walferry.deferred d WHERE d.migration = $1 AND d.kind = 'materialized view' \
            AND d.schema = n.nspname AND d.table_name = c.relname) \
    ORDER BY 1, 2, 3";

/// Reads the list.
///
/// # Errors
/// When the target cannot be asked.
pub(super) async fn list(state: &State) -> Result<Vec<WithoutStream>, StatusError> {
    let sql = LIST.replace("RESTORED", &iso8601_sql("restored_at"));
    let rows = state.query(&sql, &[&state.name()], "list what has no stream").await?;
    rows.iter()
        .map(|row| {
            Ok(WithoutStream {
                kind: row.take(0)?,
                schema: row.take(1)?,
                name: row.take(2)?,
                state: row.take(3)?,
                at: row.take(4)?,
            })
        })
        .collect()
}

impl fmt::Display for WithoutStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = TableName::new(&self.schema, &self.name);
        let state = match self.state.as_str() {
            "waiting" => "waits for catchup --finish",
            "elsewhere" => "its rows are elsewhere",
            other => other,
        };
        write!(f, "{} {name}  {state}", self.kind)?;
        match &self.at {
            Some(at) => write!(f, " {at}"),
            None => Ok(()),
        }
    }
}
