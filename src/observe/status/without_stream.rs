//! What has no stream, as the status shows it: unlogged tables, materialized
//! views, foreign tables.
//!
//! Source: what waits is in `walferry.deferred`; views that stay as they are
//! and foreign tables are what the target's catalog has beside that.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::StatusError;
use crate::session::{DbError, Row};
use crate::sql::TableName;
use crate::state::deferred::DeferredKind;
use crate::state::sweeps::iso8601_sql;
use crate::state::{State, StateError};
use crate::words::{self, Words};

/// What a relation without a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum StreamlessKind {
    /// Its rows are copied at the end.
    Unlogged,
    /// Refreshed at the end, where it has data on the source.
    MaterializedView,
    /// Its rows are elsewhere.
    ForeignTable,
}

/// Whether the rows of a relation without a stream have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum Arrival {
    /// For `catchup --finish`.
    Waiting,
    /// An unlogged table whose rows are there.
    Copied,
    /// A view.
    Refreshed,
    /// A view without data on the source, or all with `--schema none`.
    LeftAlone,
    /// A foreign table.
    Elsewhere,
}

/// The kinds' words; those of what waits are the state's.
fn kinds() -> Words<StreamlessKind, 3> {
    [
        (StreamlessKind::Unlogged, DeferredKind::Unlogged.as_str()),
        (StreamlessKind::MaterializedView, DeferredKind::MaterializedView.as_str()),
        (StreamlessKind::ForeignTable, "foreign table"),
    ]
}

const ARRIVALS: Words<Arrival, 5> = [
    (Arrival::Waiting, "waiting"),
    (Arrival::Copied, "copied"),
    (Arrival::Refreshed, "refreshed"),
    (Arrival::LeftAlone, "left alone"),
    (Arrival::Elsewhere, "elsewhere"),
];

impl From<StreamlessKind> for &'static str {
    fn from(kind: StreamlessKind) -> Self {
        words::word(&kinds(), &kind)
    }
}

impl TryFrom<String> for StreamlessKind {
    type Error = StateError;

    fn try_from(word: String) -> Result<Self, Self::Error> {
        words::value(&kinds(), &word).ok_or_else(|| StateError::Foreign(format!("unknown kind \"{word}\"")))
    }
}

impl From<Arrival> for &'static str {
    fn from(arrival: Arrival) -> Self {
        words::word(&ARRIVALS, &arrival)
    }
}

impl TryFrom<String> for Arrival {
    type Error = StateError;

    fn try_from(word: String) -> Result<Self, Self::Error> {
        words::value(&ARRIVALS, &word).ok_or_else(|| StateError::Foreign(format!("unknown state \"{word}\"")))
    }
}

/// A relation whose rows come by no stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithoutStream {
    /// `unlogged table`, `materialized view` or `foreign table`.
    pub kind: StreamlessKind,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `waiting` (for `catchup --finish`), `copied`, `refreshed`; `left alone`
    /// (a view without data on the source, or all with `--schema none`);
    /// `elsewhere` (a foreign table's rows).
    pub state: Arrival,
    /// When it was copied or refreshed, ISO 8601.
    pub at: Option<String>,
}

/// What waits or has come (`$2`: unlogged tables, `$3`: views) and when, then views
/// that are left alone and foreign tables.
const LIST: &str = "SELECT kind = $3, false, schema, table_name, restored_at IS NULL, RESTORED \
    FROM walferry.deferred WHERE migration = $1 AND kind IN ($2, $3) \
    UNION ALL \
    SELECT c.relkind = 'm', true, n.nspname::text, c.relname::text, false, NULL \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('f', 'm') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'walferry') \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass \
            AND d.objid = c.oid AND d.deptype = 'e') \
        AND NOT EXISTS (SELECT FROM walferry.deferred d WHERE d.migration = $1 AND d.kind = $3 \
            AND d.schema = n.nspname AND d.table_name = c.relname)";

/// Reads the list.
///
/// # Errors
/// When the target cannot be asked.
pub(super) async fn list(state: &State) -> Result<Vec<WithoutStream>, StatusError> {
    let sql = LIST.replace("RESTORED", &iso8601_sql("restored_at"));
    let (unlogged, view) = (DeferredKind::Unlogged.as_str(), DeferredKind::MaterializedView.as_str());
    let rows = state.query(&sql, &[&state.name(), &unlogged, &view], "list what has no stream").await?;
    let mut found = rows.iter().map(relation).collect::<Result<Vec<_>, _>>()?;
    found.sort_by(|a, b| (<&str>::from(a.kind), &a.schema, &a.name).cmp(&(<&str>::from(b.kind), &b.schema, &b.name)));
    Ok(found)
}

fn relation(row: &Row) -> Result<WithoutStream, DbError> {
    let (is_view, is_catalog, is_waiting): (bool, bool, bool) = (row.take(0)?, row.take(1)?, row.take(4)?);
    let (kind, state) = match (is_view, is_catalog) {
        (true, true) => (StreamlessKind::MaterializedView, Arrival::LeftAlone),
        (false, true) => (StreamlessKind::ForeignTable, Arrival::Elsewhere),
        (true, false) => {
            (StreamlessKind::MaterializedView, if is_waiting { Arrival::Waiting } else { Arrival::Refreshed })
        }
        (false, false) => (StreamlessKind::Unlogged, if is_waiting { Arrival::Waiting } else { Arrival::Copied }),
    };
    Ok(WithoutStream { kind, schema: row.take(2)?, name: row.take(3)?, state, at: row.take(5)? })
}

impl fmt::Display for WithoutStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = TableName::new(&self.schema, &self.name);
        let state = match self.state {
            Arrival::Waiting => "waits for catchup --finish",
            Arrival::Elsewhere => "its rows are elsewhere",
            other => other.into(),
        };
        write!(f, "{} {name}  {state}", <&str>::from(self.kind))?;
        match &self.at {
            Some(at) => write!(f, " {at}"),
            None => Ok(()),
        }
    }
}
