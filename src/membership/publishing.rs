//! What of the source has to be published for those who take part, and what a
//! publication that is there lacks for them.
//!
//! Invariant: what is published is what takes part. A list names each table by
//! itself (`ONLY`, so that children which inherit are not published with it), a
//! partitioned table for all of its partitions only when all of them take part.
//! Nothing is published whose UPDATE and DELETE the source would then refuse.
//!
//! Source: `src/backend/commands/publicationcmds.c` (who may do what),
//! `OpenTableList` there (`ONLY`), `CheckCmdReplicaIdentity` in
//! `src/backend/executor/execReplication.c`.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::{Part, SourceTable};
use crate::catalog::publication::AllTables;
use crate::catalog::publication::{Operation, Partitions, Publication, Published};
use crate::catalog::tables::{Identity, Shape};
use crate::config::SchemaMode;
use crate::sql::{TableName, ident};

/// The entries that a list of tables has for those who take part, as SQL.
pub fn entries(tables: &[SourceTable]) -> Vec<(&SourceTable, String)> {
    let is_whole = wholes(tables);
    let is_entry = |table: &&SourceTable| {
        let is_covered = table.ancestors.iter().any(|above| is_whole.contains(&above.oid));
        table.part == Part::Included && !is_covered && (table.shape == Shape::Plain || is_whole.contains(&table.oid))
    };
    tables.iter().filter(is_entry).map(|table| (table, format!("{}{}", table.only(), table.name.sql()))).collect()
}

/// The partitioned tables that take part with all of their partitions.
fn wholes(tables: &[SourceTable]) -> HashSet<u32> {
    let is_in = |table: &SourceTable| matches!(table.part, Part::Included | Part::Unlogged);
    let broken: HashSet<u32> =
        tables.iter().filter(|t| !is_in(t)).flat_map(|t| t.ancestors.iter().map(|above| above.oid)).collect();
    let partitioned = tables.iter().filter(|table| table.shape == Shape::Partitioned && is_in(table));
    partitioned.map(|table| table.oid).filter(|oid| !broken.contains(oid)).collect()
}

/// The statement that publishes those who take part.
pub fn create_sql(name: &str, tables: &[SourceTable], all: AllTables) -> String {
    let name = ident(name);
    if all == AllTables::Yes {
        return format!("CREATE PUBLICATION {name} FOR ALL TABLES;");
    }
    let list: Vec<String> = entries(tables).into_iter().map(|(_, entry)| entry).collect();
    let list = if list.is_empty() { String::new() } else { format!(" FOR TABLE {}", list.join(", ")) };
    format!("CREATE PUBLICATION {name}{list};")
}

/// Tables that would be published without a replica identity, each with the SQL
/// that gives it one.
pub fn without_identity(tables: &[SourceTable], all: AllTables) -> Vec<(&SourceTable, String)> {
    let is_published = |table: &&SourceTable| {
        table.part == Part::Included || (all == AllTables::Yes && table.part == Part::OfExtension)
    };
    let bare = |table: &SourceTable| table.shape == Shape::Plain && table.identity != Identity::Usable;
    let published = tables.iter().filter(is_published).filter(|table| bare(table));
    published.filter_map(|table| Some((table, table.identity_sql()?))).collect()
}

/// What a publication that is there lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Tables that take part and are not published.
    Tables {
        /// They.
        tables: Vec<TableName>,
        /// As entries of a list.
        entries: Vec<String>,
    },
    /// Kinds of changes of tables that take part.
    Operations {
        /// The publication that leaves them out.
        publication: String,
        /// The kinds.
        lacks: Vec<&'static str>,
    },
    /// Columns of a table that takes part and that the target is to have.
    Columns {
        /// The table.
        table: TableName,
        /// As an entry of a list.
        entry: String,
        /// The columns.
        columns: Vec<String>,
    },
    /// Partitions that are left out come in the name of a root that takes part.
    LeftOutWithin {
        /// The root.
        root: TableName,
        /// The partitions.
        partitions: Vec<TableName>,
    },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lack::Tables { tables, .. } => write!(f, "does not publish {}", listed(tables)),
            Lack::Operations { publication, lacks } => {
                write!(f, "does not publish {} (publication {publication})", lacks.join(", "))
            }
            Lack::Columns { table, columns, .. } => {
                write!(f, "publishes only some columns of {table}: not {}", columns.join(", "))
            }
            Lack::LeftOutWithin { root, partitions } => write!(
                f,
                "publishes partitions of {root} in its name, so that {} cannot be left out",
                listed(partitions)
            ),
        }
    }
}

impl Lack {
    /// The SQL that mends it, for the publication's owner; `name` is where tables
    /// are added.
    pub fn sql(&self, name: &str) -> String {
        match self {
            Lack::Tables { entries, .. } => {
                format!("ALTER PUBLICATION {} ADD TABLE {};", ident(name), entries.join(", "))
            }
            Lack::Operations { publication, .. } => {
                let all: Vec<&str> = Operation::ALL.iter().map(|operation| operation.as_str()).collect();
                format!("ALTER PUBLICATION {} SET (publish = '{}');", ident(publication), all.join(", "))
            }
            Lack::Columns { table, entry, .. } => {
                let (name, table) = (ident(name), table.sql());
                format!("ALTER PUBLICATION {name} DROP TABLE {table}; ALTER PUBLICATION {name} ADD TABLE {entry};")
            }
            Lack::LeftOutWithin { .. } => {
                format!("ALTER PUBLICATION {} SET (publish_via_partition_root = false);", ident(name))
            }
        }
    }
}

/// A few names, and how many there are besides.
pub fn listed(names: &[TableName]) -> String {
    /// Enough to recognise what they are; the SQL has all of them.
    const SHOWN: usize = 10;
    let mut text: Vec<String> = names.iter().take(SHOWN).map(ToString::to_string).collect();
    if names.len() > SHOWN {
        text.push(format!("{} more", names.len() - SHOWN));
    }
    text.join(", ")
}

/// Columns that are not published and that the target has, or is to have: they
/// would differ. `is_there` says so of a table and a column.
pub fn columns_lacking(
    published: &HashMap<u32, Published>,
    tables: &[SourceTable],
    is_there: impl Fn(&SourceTable, &str) -> bool,
) -> Vec<Lack> {
    let of_table = |table: &SourceTable| {
        let left_out = published.get(&table.oid).filter(|_| table.part == Part::Included)?.left_out.iter();
        let columns: Vec<String> = left_out.filter(|column| is_there(table, column)).cloned().collect();
        let entry = format!("{}{}", table.only(), table.name.sql());
        (!columns.is_empty()).then(|| Lack::Columns { table: table.name.clone(), entry, columns })
    };
    tables.iter().filter_map(of_table).collect()
}

/// What publications that are there lack for those who take part; `published`
/// is what they publish together. Columns only where the target is to have them
/// all ([`columns_lacking`]).
pub fn lacks(
    publications: &[Publication],
    published: &HashMap<u32, Published>,
    tables: &[SourceTable],
    schema: SchemaMode,
) -> Vec<Lack> {
    let mut found = match schema {
        SchemaMode::Create => columns_lacking(published, tables, |_, _| true),
        SchemaMode::Existing | SchemaMode::None => Vec::new(),
    };
    for publication in publications.iter().filter(|publication| !publication.lacks().is_empty()) {
        let is_lacking = |table: &&SourceTable| {
            let here = published.get(&table.oid).is_some_and(|p| p.operations.len() < Operation::ALL.len());
            table.part == Part::Included && here
        };
        if tables.iter().any(|table| is_lacking(&table)) {
            found.push(Lack::Operations { publication: publication.name.clone(), lacks: publication.lacks() });
        }
    }
    let absent = uncovered(published, tables);
    if !absent.is_empty() {
        let oids: HashSet<u32> = absent.iter().map(|table| table.oid).collect();
        let is_wanted = |entry: &SourceTable| oids.contains(&entry.oid) || absent.iter().any(|t| t.is_below(entry.oid));
        let wanted = entries(tables).into_iter().filter(|(table, _)| is_wanted(table)).map(|(_, entry)| entry);
        let names = absent.iter().map(|table| table.name.clone()).collect();
        found.push(Lack::Tables { tables: names, entries: wanted.collect() });
    }
    if publications.iter().any(|publication| publication.partitions == Partitions::InTheirRootsName) {
        found.extend(left_out_within(published, tables));
    }
    found
}

fn left_out_within(published: &HashMap<u32, Published>, tables: &[SourceTable]) -> Vec<Lack> {
    let roots = tables
        .iter()
        .filter(|t| t.part == Part::Included && t.shape == Shape::Partitioned && published.contains_key(&t.oid));
    let within = |root: &SourceTable| Lack::LeftOutWithin {
        root: root.name.clone(),
        partitions: tables
            .iter()
            .filter(|t| t.is_below(root.oid) && matches!(t.part, Part::Filtered | Part::LetIn))
            .map(|t| t.name.clone())
            .collect(),
    };
    roots
        .map(within)
        .filter(|lack| !matches!(lack, Lack::LeftOutWithin { partitions, .. } if partitions.is_empty()))
        .collect()
}

/// Those who take part, hold rows, and whose changes do not come: neither in
/// their own name nor in that of a table above them.
pub fn uncovered<'t>(published: &HashMap<u32, Published>, tables: &'t [SourceTable]) -> Vec<&'t SourceTable> {
    let is_covered = |table: &SourceTable| {
        published.contains_key(&table.oid) || table.ancestors.iter().any(|above| published.contains_key(&above.oid))
    };
    tables.iter().filter(|t| t.part == Part::Included && t.shape == Shape::Plain && !is_covered(t)).collect()
}
