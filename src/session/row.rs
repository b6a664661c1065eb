//! A row that a server answered.
//!
//! Invariant: a column is taken with [`Row::take`]: a server that answers
//! something else than was asked for is an error with words, never a panic
//! (`tokio_postgres::Row::get` panics).

use std::fmt::Display;

use tokio_postgres::row::RowIndex;
use tokio_postgres::types::FromSql;

use super::{DbContext, DbError};
use crate::config::Side;

/// A row of the server on one side.
#[derive(Debug)]
pub struct Row {
    row: tokio_postgres::Row,
    side: Side,
}

impl Row {
    /// A row that the server on this side answered.
    pub fn new(row: tokio_postgres::Row, side: Side) -> Self {
        Row { row, side }
    }

    /// The value of a column, by place or name.
    ///
    /// # Errors
    /// When there is no such column, or its value is of another type.
    pub fn take<'a, T: FromSql<'a>>(&'a self, column: impl RowIndex + Display + Copy) -> Result<T, DbError> {
        self.row.try_get(column).during(self.side, format!("understand column {column} of the answer"))
    }

    /// What it took on the wire, in bytes.
    pub fn raw_size_bytes(&self) -> usize {
        self.row.raw_size_bytes()
    }
}

/// For tests, where a panic is the words.
#[cfg(test)]
impl Row {
    pub(crate) fn get<'a, I: RowIndex + Display + Copy, T: FromSql<'a>>(&'a self, column: I) -> T {
        self.take(column).unwrap()
    }
}
