//! What publications publish: which tables, in whose name, which columns, rows and
//! kinds of changes, and by which entry.
//!
//! Invariant: tables are known by oid. Where several publications are asked for
//! together, a change comes if one of them publishes it, and a partition's in the
//! name of the topmost table that one with `publish_via_partition_root` has.
//!
//! Source: `get_rel_sync_entry` in `src/backend/replication/pgoutput/pgoutput.c`,
//! `pg_get_publication_tables` in `src/backend/catalog/pg_publication.c`.

use std::collections::{BTreeSet, HashMap};

use crate::session::{DbContext, DbError, Row, Session};

/// Whether a publication is FOR ALL TABLES.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllTables {
    /// Tables to come are published, too.
    Yes,
    /// A list of tables or schemas.
    No,
}

/// A kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// TRUNCATE, from 11 on.
    Truncate,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 4] = [Operation::Insert, Operation::Update, Operation::Delete, Operation::Truncate];

    /// The word of the option `publish`.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Insert => "insert",
            Operation::Update => "update",
            Operation::Delete => "delete",
            Operation::Truncate => "truncate",
        }
    }
}

/// In whose name changes of partitions come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partitions {
    /// In their own.
    InTheirOwnName,
    /// In their root's (`publish_via_partition_root`, 13).
    InTheirRootsName,
}

/// A publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Its oid: another one of the same name is another publication.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Whether it is FOR ALL TABLES.
    pub all_tables: AllTables,
    /// The kinds of changes that it publishes.
    pub operations: BTreeSet<Operation>,
    /// In whose name changes of partitions come.
    pub partitions: Partitions,
    /// Whether our role has its owner's rights.
    pub is_owned: bool,
}

impl Publication {
    /// The kinds of changes that it leaves out.
    pub fn lacks(&self) -> Vec<&'static str> {
        Operation::ALL.iter().filter(|kind| !self.operations.contains(kind)).map(|kind| kind.as_str()).collect()
    }
}

/// A table as it is published: the rows of its changes come in its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The columns that are not published, less those that the server computes.
    pub left_out: Vec<String>,
    /// The condition that rows must meet; `None` for all rows.
    pub row_filter: Option<String>,
    /// The kinds of changes that come.
    pub operations: BTreeSet<Operation>,
    /// What publishes it, as words with blanks between them ([`Published::is_unbroken_since`]
    /// and [`is_altered`] compare them): an entry of it, of its schema or of a table
    /// above it; and the versions of the publication and, where its schema is
    /// published, of the table's own row in the catalog.
    pub via: String,
}

impl Published {
    /// Whether a table that was published by `before` has been so ever since: one of
    /// its entries is still the same.
    pub fn is_unbroken_since(&self, before: &str) -> bool {
        let entries = |words: &'_ str| -> Vec<String> {
            words.split(' ').filter(|word| !is_version(word)).map(str::to_owned).collect()
        };
        let now = entries(&self.via);
        entries(before).iter().any(|word| now.contains(word))
    }
}

/// Whether something about how a table is published was altered between two
/// moments, perhaps there and back: changes may have been lost or not.
pub fn is_altered(before: &str, now: &str) -> bool {
    let versions = |words: &'_ str| -> BTreeSet<String> {
        words.split(' ').filter(|word| is_version(word)).map(str::to_owned).collect()
    };
    versions(before) != versions(now)
}

/// The words that stand for versions of rows of the catalog.
fn is_version(word: &str) -> bool {
    ["publication:", "row:", "links:"].iter().any(|kind| word.starts_with(kind))
}

/// The word for the links between a partition and the tables above it, whose
/// versions are given; for one whose rows come in a root's name it is all there is.
pub fn links(versions: &[String]) -> String {
    format!("links:{}", versions.join("/"))
}

/// The publications of these names, as far as they are there.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn find(session: &Session, names: &[&str]) -> Result<Vec<Publication>, DbError> {
    let truncate = if session.version() >= 110_000 { "pubtruncate" } else { "pubdelete" };
    let via_root = if session.version() >= 130_000 { "pubviaroot" } else { "false" };
    let sql = format!(
        "SELECT oid, pubname::text, puballtables, pubinsert, pubupdate, pubdelete, {truncate}, {via_root}, \
         pg_catalog.pg_has_role(pubowner, 'USAGE') FROM pg_catalog.pg_publication WHERE pubname = ANY ($1::text[]) ORDER BY 2"
    );
    let rows = session.query(&sql, &[&names]).await.during(session.side(), "look for the publication")?;
    rows.iter().map(publication).collect()
}

fn publication(row: &Row) -> Result<Publication, DbError> {
    let mut operations = BTreeSet::new();
    for (place, operation) in (3usize..).zip(Operation::ALL) {
        if row.take(place)? {
            operations.insert(operation);
        }
    }
    Ok(Publication {
        oid: row.take(0)?,
        name: row.take(1)?,
        all_tables: if row.take(2)? { AllTables::Yes } else { AllTables::No },
        operations,
        partitions: if row.take(7)? { Partitions::InTheirRootsName } else { Partitions::InTheirOwnName },
        is_owned: row.take(8)?,
    })
}

/// DETAILS and SCHEMAS are filled in. A word is the entry's oid, with the version
/// of each link between a partition and the table whose entry it is. The view asks
/// a function that may see an entry that came a moment later than the rest.
const TABLES: &str = "\
    WITH RECURSIVE wanted AS (SELECT oid, xmin::text AS version, pubname, puballtables FROM pg_catalog.pg_publication WHERE pubname = ANY ($1::text[])), \
    up (relation, ancestor, links) AS ( \
        SELECT oid, oid, '' FROM pg_catalog.pg_class WHERE relkind IN ('r', 'p') \
        UNION ALL \
        SELECT up.relation, i.inhparent, up.links || '/' || i.xmin::text FROM up \
        JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.ancestor JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE c.relispartition), \
    entries (publication, oid, relation, word) AS ( \
        SELECT prpubid, oid, prrelid, 'table:' FROM pg_catalog.pg_publication_rel SCHEMAS), \
    paths AS (SELECT up.relation, e.publication, \
            pg_catalog.string_agg(e.word || e.oid::text || up.links, ' ' ORDER BY up.links, e.oid) AS words \
        FROM up JOIN entries e ON e.relation = up.ancestor GROUP BY up.relation, e.publication), \
    above AS (SELECT relation, pg_catalog.array_agg(ancestor) AS oids FROM up WHERE ancestor <> relation GROUP BY relation) \
    SELECT c.oid, p.pubname::text, DETAILS, \
        CASE WHEN w.puballtables THEN 'all:' || w.oid::text ELSE paths.words END \
            || ' publication:' || w.oid::text || '@' || w.version \
            || CASE WHEN paths.words LIKE '%schema:%' THEN ' row:' || c.xmin::text ELSE '' END, coalesce(above.oids, '{}') \
    FROM wanted w JOIN pg_catalog.pg_publication_tables p ON p.pubname = w.pubname \
    JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname \
    JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename \
    LEFT JOIN paths ON paths.relation = c.oid AND paths.publication = w.oid LEFT JOIN above ON above.relation = c.oid \
    WHERE w.puballtables OR paths.words IS NOT NULL";

/// What these publications publish together, by the oid of the table in whose
/// name it comes.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn tables(session: &Session, names: &[&str]) -> Result<HashMap<u32, Published>, DbError> {
    let publications = find(session, names).await?;
    let (details, schemas) = if session.version() >= 150_000 {
        (
            "ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 \
                 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attname <> ALL (p.attnames) ORDER BY a.attnum), p.rowfilter",
            "UNION ALL SELECT s.pnpubid, s.oid, c.oid, 'schema:' FROM pg_catalog.pg_publication_namespace s \
             JOIN pg_catalog.pg_class c ON c.relnamespace = s.pnnspid AND c.relkind IN ('r', 'p')",
        )
    } else {
        ("'{}'::text[], NULL::text", "")
    };
    let sql = TABLES.replace("DETAILS", details).replace("SCHEMAS", schemas);
    let rows = session.query(&sql, &[&names]).await.during(session.side(), "read what is published")?;
    let mut tables: HashMap<u32, Published> = HashMap::new();
    let mut above: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut roots = BTreeSet::new();
    for row in &rows {
        let (oid, name): (u32, String) = (row.take(0)?, row.take(1)?);
        let Some(publication) = publications.iter().find(|publication| publication.name == name) else { continue };
        if publication.partitions == Partitions::InTheirRootsName {
            roots.insert(oid);
        }
        above.insert(oid, row.take(5)?);
        let published = Published {
            left_out: row.take(2)?,
            row_filter: row.take(3)?,
            operations: publication.operations.clone(),
            via: row.take(4)?,
        };
        match tables.get_mut(&oid) {
            Some(known) => known.add(published),
            None => {
                tables.insert(oid, published);
            }
        }
    }
    tables.retain(|oid, _| !above.get(oid).is_some_and(|above| above.iter().any(|root| roots.contains(root))));
    Ok(tables)
}

impl Published {
    /// Another publication has it as well.
    fn add(&mut self, other: Published) {
        // Lists that differ are refused by the server when it decodes.
        self.left_out.retain(|column| other.left_out.contains(column));
        self.row_filter = match (self.row_filter.take(), other.row_filter) {
            (Some(one), Some(other)) => Some(format!("({one}) OR ({other})")),
            _ => None,
        };
        self.operations.extend(other.operations);
        self.via = format!("{} {}", self.via, other.via);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(via: &str) -> Published {
        Published { left_out: Vec::new(), row_filter: None, operations: BTreeSet::new(), via: via.to_owned() }
    }

    #[test]
    fn a_table_is_published_without_a_break_as_long_as_one_entry_stays() {
        assert!(published("table:7").is_unbroken_since("table:7"));
        assert!(published("table:7 table:9/800").is_unbroken_since("table:9/800"), "its own entry came later");
        assert!(!published("table:8").is_unbroken_since("table:7"), "taken out and put back");
        assert!(!published("table:9/801").is_unbroken_since("table:9/800"), "detached and attached again");
        assert!(!published("table:8 publication:1@5").is_unbroken_since("table:7 publication:1@5"));
    }

    #[test]
    fn what_was_altered_and_put_back_is_another_version() {
        assert!(!is_altered("table:7 publication:1@5", "publication:1@5 table:8"));
        assert!(is_altered("table:7 publication:1@5", "table:7 publication:1@6"));
        assert!(is_altered("schema:7 publication:1@5 row:3", "schema:7 publication:1@5 row:4"));
        assert!(is_altered(&links(&["800".to_owned()]), &links(&["801".to_owned()])));
    }
}
