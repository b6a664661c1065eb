//! What tables were cut off by, kept over attempts of the whole copy.
//!
//! Invariant: a table that no connection outlives is named in the end, however
//! the copy around it was cut off meanwhile.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::config::Side;
use crate::sql::TableName;

/// A lost connection, seen from the table that was in work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The side that was lost.
    pub side: Side,
    /// How long that connection had lived.
    pub lived: Duration,
    /// Bytes of the table that had come over; `None` while its indexes were
    /// being built.
    pub bytes: Option<u64>,
}

/// What was met at the tables, kept over attempts of the whole copy: a limit
/// on the life of connections may end the lease's session as well, and with it
/// everything, before any table can be complete.
#[derive(Debug, Default)]
pub struct Memory {
    cuts: Mutex<HashMap<TableName, Cuts>>,
}

/// What a table was cut off by.
#[derive(Clone, Debug, Default)]
pub(super) struct Cuts {
    pub(super) failures: Vec<Failure>,
    /// The server's words the last time.
    pub(super) last: String,
}

impl Memory {
    pub(super) fn of(&self, table: &TableName) -> Cuts {
        self.cuts.lock().unwrap_or_else(PoisonError::into_inner).get(table).cloned().unwrap_or_default()
    }

    pub(super) fn keep<'a>(&self, tables: impl IntoIterator<Item = (&'a TableName, Cuts)>) {
        let cuts = tables.into_iter().filter(|(_, cuts)| !cuts.failures.is_empty());
        *self.cuts.lock().unwrap_or_else(PoisonError::into_inner) =
            cuts.map(|(table, cuts)| (table.clone(), cuts)).collect();
    }
}
