//! The sequences of one side: what they belong to, what we may do with them,
//! and their values.
//!
//! Invariant: every sequence that is not temporary, not an extension's and not
//! walferry's own is in the list, readable or not. Source: `pg_sequence.h`;
//! an owning column is a `pg_depend` row of type `a` (OWNED BY, serial) or `i`
//! (identity). `pg_sequences.last_value` is not used: it is null both for a
//! sequence that was never called and for one that may not be read.

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::CHUNK_SEQUENCES;
use crate::config::TableFilter;
use crate::session::{DbContext, DbError, Session};
use crate::sql::{TableName, ident};

/// How often the list is read anew when a sequence of it was dropped before
/// its value could be read. A source that drops one each time is not at rest.
const LIST_ATTEMPTS: usize = 5;

/// `last_value` and `is_called` of a sequence.
pub(super) type Value = (i64, bool);

/// The column a sequence belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub table: TableName,
    pub column: String,
}

/// A sequence of one side.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    pub oid: u32,
    pub name: TableName,
    /// The column it belongs to (serial, identity, OWNED BY).
    pub owner: Option<Owner>,
    /// Tables whose column defaults call it, besides the owner.
    pub used_by: Vec<TableName>,
    pub increment: i64,
    pub may_update: bool,
    /// Our role, quoted.
    role: String,
    may_select: bool,
    /// `None` if it may not be read.
    pub value: Option<Value>,
}

impl Sequence {
    /// Whether it is of the migration: an owned one with its table, another one
    /// by its own name or with a table that takes its defaults from it.
    pub fn takes_part(&self, filter: &TableFilter) -> bool {
        match &self.owner {
            Some(owner) => filter.includes(&owner.table),
            None => filter.includes(&self.name) || self.used_by.iter().any(|table| filter.includes(table)),
        }
    }

    /// The SQL that gives our role the right.
    pub fn grant(&self, right: &str) -> String {
        format!(
            "GRANT USAGE ON SCHEMA {} TO {role}; GRANT {right} ON SEQUENCE {} TO {role}",
            ident(&self.name.schema),
            self.name.sql(),
            role = self.role
        )
    }

    fn from_row(row: &Row) -> Self {
        let table = |schema: Option<String>, name: Option<String>| Some(TableName::new(schema?, name?));
        let used_by: Vec<TableName> = row
            .get::<_, Vec<String>>("used_schemas")
            .into_iter()
            .zip(row.get::<_, Vec<String>>("used_names"))
            .map(|(schema, name)| TableName::new(schema, name))
            .collect();
        Sequence {
            oid: row.get("oid"),
            name: TableName::new(row.get::<_, String>("schema"), row.get::<_, String>("name")),
            owner: table(row.get("owner_schema"), row.get("owner_table"))
                .zip(row.get::<_, Option<String>>("owner_column"))
                .map(|(table, column)| Owner { table, column }),
            used_by,
            increment: row.get("increment"),
            may_update: row.get("may_update"),
            role: row.get("role"),
            may_select: row.get("may_select"),
            value: None,
        }
    }
}

const LIST_SQL: &str = "
SELECT c.oid, n.nspname::text AS schema, c.relname::text AS name, s.seqincrement AS increment,
       tn.nspname::text AS owner_schema, t.relname::text AS owner_table, a.attname::text AS owner_column,
       ARRAY(SELECT un.nspname::text FROM pg_attrdef d JOIN pg_depend e ON e.classid = 'pg_attrdef'::regclass AND e.objid = d.oid
             JOIN pg_class u ON u.oid = d.adrelid JOIN pg_namespace un ON un.oid = u.relnamespace
             WHERE e.refclassid = 'pg_class'::regclass AND e.refobjid = c.oid ORDER BY u.oid) AS used_schemas,
       ARRAY(SELECT u.relname::text FROM pg_attrdef d JOIN pg_depend e ON e.classid = 'pg_attrdef'::regclass AND e.objid = d.oid
             JOIN pg_class u ON u.oid = d.adrelid
             WHERE e.refclassid = 'pg_class'::regclass AND e.refobjid = c.oid ORDER BY u.oid) AS used_names,
       has_schema_privilege(n.oid, 'USAGE') AND has_sequence_privilege(c.oid, 'SELECT') AS may_select,
       has_sequence_privilege(c.oid, 'UPDATE') AS may_update, quote_ident(current_user) AS role
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence s ON s.seqrelid = c.oid
LEFT JOIN pg_depend o ON o.classid = 'pg_class'::regclass AND o.objid = c.oid AND o.objsubid = 0
     AND o.refclassid = 'pg_class'::regclass AND o.refobjsubid > 0 AND o.deptype IN ('a', 'i')
LEFT JOIN pg_class t ON t.oid = o.refobjid
LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = o.refobjid AND a.attnum = o.refobjsubid
WHERE c.relkind = 'S' AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('walferry', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
  AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = 'pg_class'::regclass AND x.objid = c.oid AND x.deptype = 'e')
ORDER BY c.oid";

/// Reads all sequences of a side with their values.
///
/// # Errors
/// When the catalog or a value that we may read cannot be read.
pub(super) async fn read(session: &Session) -> Result<Vec<Sequence>, DbError> {
    let mut attempt = 1;
    loop {
        match read_once(session).await {
            Err(error) if attempt < LIST_ATTEMPTS && error.sqlstate() == Some(&SqlState::UNDEFINED_TABLE) => {
                attempt += 1;
            }
            result => return result,
        }
    }
}

async fn read_once(session: &Session) -> Result<Vec<Sequence>, DbError> {
    let rows = session.query(LIST_SQL, &[]).await.during(session.side(), "list the sequences")?;
    let mut sequences: Vec<Sequence> = rows.iter().map(Sequence::from_row).collect();
    // Polled together, so all chunks are sent before the first one answers.
    let chunks = sequences.chunks_mut(CHUNK_SEQUENCES).map(|chunk| read_values(session, chunk));
    futures_util::future::try_join_all(chunks).await?;
    Ok(sequences)
}

/// Reads the values of a chunk in one statement.
async fn read_values(session: &Session, chunk: &mut [Sequence]) -> Result<(), DbError> {
    let branches: Vec<String> = chunk
        .iter()
        .enumerate()
        .filter(|(_, sequence)| sequence.may_select)
        .map(|(index, sequence)| format!("SELECT {index}, last_value, is_called FROM {}", sequence.name.sql()))
        .collect();
    if branches.is_empty() {
        return Ok(());
    }
    let sql = branches.join(" UNION ALL ");
    let rows = session.query(&sql, &[]).await.during(session.side(), "read the sequences")?;
    for row in &rows {
        let index = usize::try_from(row.get::<_, i32>(0)).unwrap_or(usize::MAX);
        if let Some(sequence) = chunk.get_mut(index) {
            sequence.value = Some((row.get(1), row.get(2)));
        }
    }
    Ok(())
}
