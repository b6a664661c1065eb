//! Objects held back until the rows are there (indexes, keys) or until the
//! cutover (foreign keys, triggers), each with the SQL that brings it in.

use super::{State, StateError};
use crate::sql::TableName;
use crate::words::worded;

/// When an object comes in, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeferredKind {
    /// An index, primary key, unique or exclusion constraint, replica identity,
    /// clustering, statistics object: after the table's rows, before the stream.
    AfterRows,
    /// A foreign key: at the end, NOT VALID, then validated.
    ForeignKey,
    /// A trigger or a rule, absent or disabled until the end.
    Trigger,
    /// The rows of an unlogged table: copied at the end, before keys and triggers.
    Unlogged,
    /// The data of a materialized view: REFRESH at the end.
    MaterializedView,
    /// Anything else that post-data brings: policies, comments on them.
    Other,
    /// What only an administrator may give: event triggers, comments on and owners
    /// of what only an administrator can create. Last of all, as event triggers
    /// would be fired by the others; what the role may not keeps nothing back.
    Administrator,
}

worded!(DeferredKind, "kind of deferred object", [
    AfterRows => "after rows",
    ForeignKey => "foreign key",
    Trigger => "trigger",
    Unlogged => "unlogged table",
    MaterializedView => "materialized view",
    Other => "other",
    Administrator => "administrator",
]);

/// A row of `walferry.deferred`.
#[derive(Clone, Debug)]
pub struct Deferred {
    /// Order in which objects of one kind are brought in.
    pub ordinal: i32,
    /// When it comes in.
    pub kind: DeferredKind,
    /// The table it belongs to (empty names where there is none).
    pub table: TableName,
    /// The object's name, for people.
    pub object: String,
    /// What brings it in.
    pub sql: String,
    /// Whether it is in.
    pub is_restored: bool,
}

impl State {
    /// Adds objects to the list; those already there (same ordinal) stay.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn add_deferred(&self, objects: &[Deferred]) -> Result<(), StateError> {
        let ordinals: Vec<i32> = objects.iter().map(|o| o.ordinal).collect();
        let kinds: Vec<&str> = objects.iter().map(|o| o.kind.as_str()).collect();
        let schemas: Vec<&str> = objects.iter().map(|o| o.table.schema.as_str()).collect();
        let tables: Vec<&str> = objects.iter().map(|o| o.table.name.as_str()).collect();
        let names: Vec<&str> = objects.iter().map(|o| o.object.as_str()).collect();
        let sql: Vec<&str> = objects.iter().map(|o| o.sql.as_str()).collect();
        self.execute(
            "INSERT INTO walferry.deferred (migration, ordinal, kind, schema, table_name, object, sql) \
             SELECT $1, * FROM unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) \
             ON CONFLICT (migration, ordinal) DO NOTHING",
            &[&self.name(), &ordinals, &kinds, &schemas, &tables, &names, &sql],
            "write the deferred objects",
        )
        .await?;
        Ok(())
    }

    /// All deferred objects in order, restored ones too.
    ///
    /// # Errors
    /// When the rows cannot be read or understood.
    pub async fn deferred(&self) -> Result<Vec<Deferred>, StateError> {
        let rows = self
            .query(
                "SELECT *, restored_at IS NOT NULL AS is_restored FROM walferry.deferred WHERE migration = $1 ORDER BY ordinal",
                &[&self.name()],
                "read the deferred objects",
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Deferred {
                    ordinal: row.take("ordinal")?,
                    kind: DeferredKind::parse(row.take("kind")?)?,
                    table: TableName::new(row.take::<&str>("schema")?, row.take::<&str>("table_name")?),
                    object: row.take("object")?,
                    sql: row.take("sql")?,
                    is_restored: row.take("is_restored")?,
                })
            })
            .collect()
    }
}

/// The statement that marks an object as restored; run it first in the
/// transaction that restores it. It waits for another session that restores the
/// same object (one that was given up for lost, say), and then affects no row
/// if that one has. Parameters: migration, ordinal.
pub const MARK_RESTORED_SQL: &str = "UPDATE walferry.deferred SET restored_at = pg_catalog.clock_timestamp() \
    WHERE migration = $1 AND ordinal = $2 AND restored_at IS NULL";
