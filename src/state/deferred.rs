//! Objects held back until the rows are there (indexes, keys) or until the
//! cutover (foreign keys, triggers), each with the SQL that brings it in.

use super::{State, StateError};
use crate::catalog::objects::ObjectId;
use crate::session::{DbError, Row};
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

/// What an object that waits follows when that is renamed, moved or dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follows {
    /// Nothing that is known by an oid.
    #[default]
    Nothing,
    /// The object of the source's catalog that it is, or belongs to.
    Source(ObjectId),
    /// Tables of the target, by their oids there: the one it is of, and of a foreign
    /// key the other.
    Target {
        /// The table.
        table: u32,
        /// The table that it references.
        referenced: Option<u32>,
    },
}

/// A row of `walferry.deferred`.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// What it follows.
    pub follows: Follows,
}

impl Deferred {
    fn of(row: &Row) -> Result<Self, StateError> {
        Ok(Deferred {
            ordinal: row.take("ordinal")?,
            kind: DeferredKind::parse(row.take("kind")?)?,
            table: TableName::new(row.take::<&str>("schema")?, row.take::<&str>("table_name")?),
            object: row.take("object")?,
            sql: row.take("sql")?,
            is_restored: row.take("is_restored")?,
            follows: Follows::of(row)?,
        })
    }
}

impl Follows {
    fn of(row: &Row) -> Result<Self, DbError> {
        if let Some(id) = row.take::<Option<u32>>("source_class")?.zip(row.take("source_oid")?) {
            return Ok(Follows::Source(id));
        }
        let referenced = row.take("referenced_oid")?;
        let table: Option<u32> = row.take("target_oid")?;
        Ok(table.map_or(Follows::Nothing, |table| Follows::Target { table, referenced }))
    }

    /// As the state has it: catalog and oid of the source, the two tables of the target.
    fn columns(self) -> [Option<u32>; 4] {
        match self {
            Follows::Nothing => [None; 4],
            Follows::Source((class, oid)) => [Some(class), Some(oid), None, None],
            Follows::Target { table, referenced } => [None, None, Some(table), referenced],
        }
    }
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
        let column = |place: usize| -> Vec<Option<u32>> {
            objects.iter().map(|object| object.follows.columns().get(place).copied().flatten()).collect()
        };
        let (classes, oids, targets, referenced) = (column(0), column(1), column(2), column(3));
        self.execute(
            "INSERT INTO walferry.deferred (migration, ordinal, kind, schema, table_name, object, sql, \
                 source_class, source_oid, target_oid, referenced_oid) \
             SELECT $1, * FROM unnest($2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], \
                 $8::oid[], $9::oid[], $10::oid[], $11::oid[]) \
             ON CONFLICT (migration, ordinal) DO NOTHING",
            &[&self.name(), &ordinals, &kinds, &schemas, &tables, &names, &sql, &classes, &oids, &targets, &referenced],
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
        rows.iter().map(Deferred::of).collect()
    }

    /// The same, once every transaction that brings one in at the end has ended: also one
    /// of a process that was killed. An index that is built is not waited for.
    ///
    /// # Errors
    /// When the rows cannot be read or understood.
    pub async fn deferred_settled(&self) -> Result<Vec<Deferred>, StateError> {
        let sql = "SELECT FROM walferry.deferred WHERE migration = $1 AND kind <> $2 FOR SHARE";
        let kind = DeferredKind::AfterRows.as_str();
        self.query(sql, &[&self.name(), &kind], "wait for what an earlier end brings in").await?;
        self.deferred().await
    }

    /// Gives an object that waits other words and SQL; one that is in by now stays.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn replace_deferred(&self, object: &Deferred) -> Result<(), StateError> {
        let [class, oid, target, referenced] = object.follows.columns();
        self.execute(
            "UPDATE walferry.deferred SET kind = $3, schema = $4, table_name = $5, object = $6, sql = $7, source_class = $8, \
                 source_oid = $9, target_oid = $10, referenced_oid = $11 \
             WHERE migration = $1 AND ordinal = $2 AND restored_at IS NULL",
            &[
                &self.name(), &object.ordinal, &object.kind.as_str(), &object.table.schema, &object.table.name,
                &object.object, &object.sql, &class, &oid, &target, &referenced,
            ],
            "rename a deferred object",
        )
        .await?;
        Ok(())
    }

    /// Takes an object that waits off the list; one that is in by now stays.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn forget_deferred(&self, ordinal: i32) -> Result<(), StateError> {
        let sql = "DELETE FROM walferry.deferred WHERE migration = $1 AND ordinal = $2 AND restored_at IS NULL";
        self.execute(sql, &[&self.name(), &ordinal], "forget a deferred object").await?;
        Ok(())
    }
}

/// The statement that marks an object as restored; run it first in the
/// transaction that restores it. It waits for another session that restores the
/// same object (one that was given up for lost, say), and then affects no row
/// if that one has. Parameters: migration, ordinal.
pub const MARK_RESTORED_SQL: &str = "UPDATE walferry.deferred SET restored_at = pg_catalog.clock_timestamp() \
    WHERE migration = $1 AND ordinal = $2 AND restored_at IS NULL";
