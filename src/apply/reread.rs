//! Unchanged TOAST values inside an INSERT: a row filter on the publication
//! turns an UPDATE that moves a row into the filter into an INSERT, and the
//! values that did not change are not in the stream. Native replication stores
//! NULL; we read them from the source.
//!
//! What is read is newer than the change, which is right in the end: a later
//! value comes with a later change, and an unchanged one is the same.
//! Source: `pgoutput_row_filter` in
//! `src/backend/replication/pgoutput/pgoutput.c`.

use std::collections::HashMap;

use tokio_postgres::SimpleQueryMessage;

use crate::config::Side;
use crate::pgoutput::{KeyColumn, Tuple, Value};
use crate::relation::Relation;
use crate::session::{DbContext, DbError, Session};
use crate::sql::{ident, literal};

/// Values by column index, `None` for NULL.
pub type Filled = HashMap<usize, Option<String>>;

/// The columns (indexes) whose values are not in the tuple.
pub fn missing(new: &Tuple) -> Vec<usize> {
    (0..new.len()).filter(|&index| matches!(new.get(index), Some(Value::Unchanged))).collect()
}

/// Reads the missing values of a row by its key; `None` when the source has
/// the row no more.
///
/// # Errors
/// When the source cannot be read.
pub async fn read(
    source: &Session,
    relation: &Relation,
    new: &Tuple,
    missing: &[usize],
) -> Result<Option<Filled>, DbError> {
    let name = |index: usize| relation.columns.get(index).map_or_else(String::new, |column| ident(&column.name));
    let wanted: Vec<String> = missing.iter().map(|&index| name(index)).collect();
    let condition: Vec<String> = (0..relation.columns.len())
        .filter(|&index| relation.columns.get(index).is_some_and(|column| column.key == KeyColumn::Yes))
        .filter_map(|index| match new.get(index) {
            Some(Value::Text(text)) => Some(format!("{} = {}", name(index), literal(&String::from_utf8_lossy(text)))),
            _ => None,
        })
        .collect();
    let sql = format!(
        "SELECT {} FROM {} WHERE {}",
        wanted.join(", "),
        relation.table.sql(),
        if condition.is_empty() { "false".to_owned() } else { condition.join(" AND ") }
    );
    let action = || format!("read unchanged values of {} again", relation.table);
    let messages = source.simple_query(&sql).await.during(Side::Source, action())?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            Some(missing.iter().enumerate().map(|(n, &index)| (index, row.get(n).map(str::to_owned))).collect())
        }
        _ => None,
    }))
}
