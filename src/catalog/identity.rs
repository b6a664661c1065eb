//! By what the source tells old rows of a table, as `tables` asks it.
//!
//! Invariant: what is usable is so whatever is published of the table.
//!
//! Source: `CheckCmdReplicaIdentity` in `src/backend/executor/execReplication.c`.

use crate::session::{DbError, Row};
use crate::sql::{TableName, ident};

/// How the source can identify old rows of a table once it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// By a key, or by the whole row.
    Usable,
    /// By these columns among others, which the server computes: where they are not
    /// published, UPDATE and DELETE fail from 18 on (`CheckCmdReplicaIdentity` in
    /// `src/backend/executor/execReplication.c`), and before that their keys come without
    /// them. This could be it instead.
    Computed(Vec<String>, Instead),
    /// Not at all, and then UPDATE and DELETE fail; this could be it.
    Missing(Instead),
}

/// What could be the replica identity of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instead {
    /// This unique index.
    Index(String),
    /// The whole row.
    WholeRow,
    /// Nothing that is there: the whole row has columns that the server computes.
    Nothing,
}

impl Identity {
    /// That of a row of `tables`.
    pub(super) fn of(row: &Row) -> Result<Self, DbError> {
        let computed: Vec<String> = row.take("computed_identity")?;
        let instead = match (row.take("unique_index")?, row.take("has_computed")?) {
            (Some(index), _) => Instead::Index(index),
            (None, true) => Instead::Nothing,
            (None, false) => Instead::WholeRow,
        };
        Ok(match row.take("has_identity")? {
            true if computed.is_empty() => Identity::Usable,
            true => Identity::Computed(computed, instead),
            false => Identity::Missing(instead),
        })
    }

    /// The SQL that gives this table another one, if it is not usable.
    pub(super) fn instead_sql(&self, name: &TableName) -> Option<String> {
        let table = name.sql();
        let (Identity::Computed(_, instead) | Identity::Missing(instead)) = self else { return None };
        Some(match instead {
            Instead::Index(index) => format!("ALTER TABLE {table} REPLICA IDENTITY USING INDEX {};", ident(index)),
            Instead::WholeRow => format!("ALTER TABLE {table} REPLICA IDENTITY FULL;"),
            Instead::Nothing => format!(
                "-- {name} has columns that the server computes, so the whole row is none: give it a unique index over NOT NULL \
                 columns that are not computed, and then: ALTER TABLE {table} REPLICA IDENTITY USING INDEX ...;"
            ),
        })
    }
}
