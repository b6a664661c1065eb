//! Whether tables hold rows of their own.
//!
//! Invariant: a table that others inherit from is asked about itself alone, as
//! its children have rows of their own; a partitioned table has its partitions'.
//! Whatever empties a table says so too ([`Filled::sql`]). Nothing is read of what has
//! become a view meanwhile ([`held`]).
//!
//! Source: `RangeVar.inh` in `src/include/nodes/primnodes.h`: without ONLY a
//! table stands for everything that inherits from it, in TRUNCATE as well.

use std::collections::HashMap;

use super::held::{self, Foreign};
use super::named;
use super::tables::{Shape, only};
use crate::config::Side;
use crate::session::{DbContext, DbError, Session};
use crate::sql::{TableName, ident};

/// Tables asked about in one statement: enough to save round trips, few enough
/// for the planner.
const TABLES_PER_QUERY: usize = 200;

/// A table that holds rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Its name.
    pub table: TableName,
    sql: String,
}

impl Filled {
    /// How a statement names it that means these rows and no others.
    pub fn sql(&self) -> &str {
        &self.sql
    }
}

/// The TRUNCATE that takes these rows away, and no others.
pub fn truncate(filled: &[Filled]) -> String {
    let names: Vec<&str> = filled.iter().map(Filled::sql).collect();
    format!("TRUNCATE {};", names.join(", "))
}

/// What there is under a table's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// No table.
    Absent,
    /// A table without rows of its own.
    Empty,
    /// Rows.
    Rows(Filled),
}

/// Whether there is a table of this name.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn is_there(session: &Session, table: &TableName) -> Result<bool, DbError> {
    Ok(!names(session, &[table]).await?.is_empty())
}

/// Whether a table is there, and has rows.
///
/// # Errors
/// When it cannot be read.
pub async fn of(session: &Session, table: &TableName) -> Result<Contents, DbError> {
    if !is_there(session, table).await? {
        return Ok(Contents::Absent);
    }
    Ok(filled(session, &[table]).await?.pop().map_or(Contents::Empty, Contents::Rows))
}

/// Those of the tables that hold rows; one that is not there holds none.
///
/// # Errors
/// When one of them cannot be read.
pub async fn filled(session: &Session, tables: &[&TableName]) -> Result<Vec<Filled>, DbError> {
    let named = names(session, tables).await?;
    let asked: Vec<(&TableName, &'static str)> =
        tables.iter().filter_map(|table| Some((*table, *named.get(table)?))).collect();
    let mut found = Vec::new();
    for chunk in asked.chunks(TABLES_PER_QUERY) {
        let parts: Vec<String> = (0..)
            .zip(chunk)
            .map(|(n, (table, only))| format!("SELECT {n} WHERE EXISTS (SELECT FROM {only}{})", table.sql()))
            .collect();
        let relations = chunk.iter().map(|(table, only)| (*only, *table));
        let rows = held::read(session, relations, foreign(session), &parts.join(" UNION ALL ")).await;
        for row in rows.during(session.side(), "look whether the tables are empty")? {
            let place = row.get(0).and_then(|place| place.parse::<usize>().ok()).unwrap_or(usize::MAX);
            if let Some((table, only)) = chunk.get(place) {
                found.push(Filled { table: (*table).clone(), sql: format!("{only}{}", table.sql()) });
            }
        }
    }
    Ok(found)
}

/// Rows of the target may be behind foreign tables, if its owner wants that.
fn foreign(session: &Session) -> Foreign {
    match session.side() {
        Side::Source => Foreign::Refused,
        Side::Target => Foreign::Read,
    }
}

/// How many rows a table has, and the sum of their hashes, whatever their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    rows: String,
    sum: String,
}

/// Counts and sums the rows of a table over these columns, as text, all of them or
/// those that meet a condition. The hash is
/// the first 60 bits of an MD5, which every version knows.
///
/// # Errors
/// When the table cannot be read.
pub async fn checksum(
    session: &Session,
    table: &TableName,
    shape: Shape,
    columns: &[&str],
    condition: Option<&str>,
) -> Result<Checksum, DbError> {
    let list: Vec<String> = columns.iter().map(|column| ident(column)).collect();
    let hash = "('x' || pg_catalog.substr(pg_catalog.md5(ROW(LIST)::text), 1, 15))::bit(60)::bigint";
    let condition = condition.map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
    let sql = format!(
        "SELECT pg_catalog.count(*), coalesce(pg_catalog.sum({}::numeric), 0)::text FROM {}{}{condition}",
        hash.replace("LIST", &list.join(", ")),
        only(shape),
        table.sql()
    );
    let relation = std::iter::once((only(shape), table));
    let rows = held::read(session, relation, foreign(session), &sql).await;
    let rows = rows.during(session.side(), format!("compare the rows of {table}"))?;
    // No answer is like none of the other side's.
    let value = |column: usize| {
        let value = rows.first().and_then(|row| row.get(column));
        value.map_or_else(|| format!("none of the {}", session.side()), str::to_owned)
    };
    Ok(Checksum { rows: value(0), sum: value(1) })
}

/// What a statement has before the name of each table that is there, to mean itself alone.
async fn names(session: &Session, tables: &[&TableName]) -> Result<HashMap<TableName, &'static str>, DbError> {
    let kinds = named::kinds(session, tables.iter().copied()).await?;
    let name = |(table, kind): (TableName, char)| {
        let only = match kind {
            'r' => "ONLY ",
            'p' | 'f' => "",
            _ => return None,
        };
        Some((table, only))
    };
    Ok(kinds.into_iter().filter_map(name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copy::testing::Server;

    /// The story: a parent whose children had been copied counted as full, and
    /// the TRUNCATE that was printed took the children's rows.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_parent_is_not_full_by_its_childrens_rows_and_a_partitioned_table_is_by_its_partitions() {
        let server = Server::start().await;
        let target = server.target().await;
        target
            .batch_execute(
                "CREATE TABLE public.parent (id int); CREATE TABLE public.child () INHERITS (public.parent); \
                 CREATE TABLE public.root (id int) PARTITION BY LIST (id); \
                 CREATE TABLE public.leaf PARTITION OF public.root DEFAULT; \
                 INSERT INTO public.child VALUES (1); INSERT INTO public.leaf VALUES (1)",
            )
            .await
            .unwrap();
        let name = |name| TableName::new("public", name);
        let (parent, child, root, absent) = (name("parent"), name("child"), name("root"), name("absent"));
        let found = filled(&target, &[&parent, &child, &root, &absent]).await.unwrap();
        assert_eq!(truncate(&found), "TRUNCATE ONLY \"public\".\"child\", \"public\".\"root\";");
        target.batch_execute("INSERT INTO public.parent VALUES (1)").await.unwrap();
        let found = filled(&target, &[&parent]).await.unwrap();
        target.batch_execute(&truncate(&found)).await.unwrap();
        assert_eq!(filled(&target, &[&parent, &child]).await.unwrap().len(), 1, "the child's row is still there");
    }
}
