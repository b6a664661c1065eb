//! What of the source has to be published for those who take part, and what the
//! publications that are there lack for them, together.
//!
//! Invariant: what is published is what takes part. A list names each table by
//! itself (`ONLY`, so that children which inherit are not published with it), a
//! partitioned table for all of its partitions only when all of them take part.
//! Nothing is published whose UPDATE and DELETE the source would then refuse.
//!
//! Source: `src/backend/commands/publicationcmds.c` (who may do what),
//! `OpenTableList` there (`ONLY`), `CheckCmdReplicaIdentity` in
//! `src/backend/executor/execReplication.c`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::gap::Cause;
use super::{Part, SourceTable};
use crate::catalog::publication::{
    self, AllTables, Operation, Partitions, Portion, Publication, Published, RowsOfKind, Since,
};
use crate::catalog::tables::{Identity, Shape};
use crate::config::publications::who;
use crate::config::{Publications, SchemaMode, near_misses};
use crate::sql::{TableName, ident, shown};
use crate::state::tables::TableRow;
use crate::words::listed;

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
    let broken: HashSet<u32> =
        tables.iter().filter(|t| !t.takes_part()).flat_map(|t| t.ancestors.iter().map(|above| above.oid)).collect();
    let partitioned = tables.iter().filter(|table| table.shape == Shape::Partitioned && table.takes_part());
    partitioned.map(|table| table.oid).filter(|oid| !broken.contains(oid)).collect()
}

/// The partitioned table in whose name the rows of a table come, if not in its own.
pub fn root_in_name<'t>(published: &HashMap<u32, Published>, table: &'t SourceTable) -> Option<&'t TableName> {
    let is_own = published.contains_key(&table.oid);
    let above = table.ancestors.iter().find(|above| published.contains_key(&above.oid));
    above.filter(|_| !is_own).map(|above| &above.name)
}

/// How its changes come: in its own name, or in that of a table above it.
pub(super) fn published_as<'p>(published: &'p HashMap<u32, Published>, table: &SourceTable) -> Option<&'p Published> {
    let above = || table.ancestors.iter().find_map(|above| published.get(&above.oid));
    published.get(&table.oid).or_else(above)
}

/// What changes of a table do not come, or did not for a while, by how it is published.
pub(super) fn of_publication(row: &TableRow, published: Option<&Published>) -> Option<Cause> {
    // Its rows come as others'; those are looked at.
    if !row.state.is_streamed() || row.is_unfinished() {
        return None;
    }
    let Some(published) = published else { return Some(Cause::NotPublished) };
    let since = row.origin.via.as_deref().map(|before| publication::since(before, &published.via));
    if since == Some(Since::Broken) {
        return Some(Cause::PublishedAgain);
    }
    let lacks = published.lacks();
    if !lacks.is_empty() {
        return Some(Cause::Operations(lacks));
    }
    published.parts_kinds().then_some(Cause::OtherRows)
}

/// The tables (oids) that are to take part and whose rows nothing carries ([`uncovered`]), as
/// they were created when the publication had its tables; a partitioned table with them, if
/// all of its partitions are such.
pub fn came_too_late(tables: &[SourceTable], published: &HashMap<u32, Published>) -> HashSet<u32> {
    let late: HashSet<u32> = uncovered(published, tables).iter().map(|table| table.oid).collect();
    if late.is_empty() {
        return late;
    }
    let is_late = |root: &&SourceTable| {
        let mut parts =
            tables.iter().filter(|table| table.shape == Shape::Plain && table.is_below(root.oid)).peekable();
        parts.peek().is_some() && parts.all(|part| late.contains(&part.oid))
    };
    let roots = tables.iter().filter(|root| root.shape == Shape::Partitioned && root.part == Part::Included);
    let roots: Vec<u32> = roots.filter(is_late).map(|root| root.oid).collect();
    late.into_iter().chain(roots).collect()
}

/// Those whose rows come in their own name, or in that of their partitions: how a
/// target parts the rows of a root that is published as one is its own business.
pub fn in_their_own_name<'t>(
    tables: &'t [SourceTable],
    published: &HashMap<u32, Published>,
) -> impl Iterator<Item = &'t SourceTable> {
    tables.iter().filter(|table| root_in_name(published, table).is_none())
}

/// The tables that a target has to have by their names, where its schema is not
/// ours to create. `published` is what a publication that is there publishes; of
/// one that is to be made it is each table by itself.
pub fn landing<'t>(
    tables: &'t [SourceTable],
    published: Option<&HashMap<u32, Published>>,
    schema: SchemaMode,
) -> Vec<&'t SourceTable> {
    let nothing = HashMap::new();
    let takes_part = |table: &&SourceTable| match (schema, table.part, table.shape) {
        (SchemaMode::Create | SchemaMode::Existing, ..) => table.takes_part(),
        (SchemaMode::None, Part::Included, shape) => {
            published.map_or(shape == Shape::Plain, |published| published.contains_key(&table.oid))
        }
        (SchemaMode::None, part, shape) => part == Part::Unlogged && shape == Shape::Plain,
    };
    in_their_own_name(tables, published.unwrap_or(&nothing)).filter(takes_part).collect()
}

/// The same tables with the columns that are published.
pub fn with_published_columns(mut tables: Vec<SourceTable>, published: &HashMap<u32, Published>) -> Vec<SourceTable> {
    for table in &mut tables {
        if let Some(published) = published.get(&table.oid) {
            table.table.columns.retain(|column| !published.left_out().contains(&column.name));
        }
    }
    tables
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
/// that gives it one. Of a partitioned table it is asked where rows come in its name
/// (`published`): a message has the key of the table that it names. A publication for all
/// tables has those that are left out too; it is asked of them while there is none yet.
pub fn without_identity<'t>(
    tables: &'t [SourceTable],
    all: AllTables,
    published: &HashMap<u32, Published>,
) -> Vec<(&'t SourceTable, String)> {
    let all_are_to_be = all == AllTables::Yes && published.is_empty();
    let is_published = |table: &&SourceTable| match table.part {
        Part::Included => true,
        Part::Filtered | Part::LetIn | Part::OfExtension => all_are_to_be,
        Part::Unlogged => false,
    };
    let is_named = |table: &SourceTable| table.shape == Shape::Plain || published.contains_key(&table.oid);
    let bare = |table: &SourceTable| is_named(table) && !is_identified(table, published);
    let published = tables.iter().filter(is_published).filter(|table| bare(table));
    published.filter_map(|table| Some((table, table.identity_sql()?))).collect()
}

/// Whether a table's old rows can be identified as it is published, or is to be: what
/// walferry publishes itself has no columns that the server computes.
fn is_identified(table: &SourceTable, published: &HashMap<u32, Published>) -> bool {
    match &table.identity {
        Identity::Usable => true,
        Identity::Missing(_) => false,
        Identity::Computed(columns, _) => {
            let named = std::iter::once(table.oid).chain(table.ancestors.iter().map(|above| above.oid));
            let portions: Vec<_> = named.filter_map(|oid| published.get(&oid)).flat_map(|p| &p.portions).collect();
            let has_them = |portion: &&Portion| columns.iter().all(|column| portion.columns.contains(column));
            !portions.is_empty() && portions.iter().all(has_them)
        }
    }
}

/// A publication with an entry of a list that one has, or is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// The publication.
    pub publication: String,
    /// The table alone (`ONLY`), as SQL.
    pub only: String,
    /// The same with the row filter that it has there.
    pub sql: String,
    /// The columns that are published there.
    pub columns: Vec<String>,
    /// The columns that are not, less those that the server computes.
    pub left_out: Vec<String>,
}

/// What the publications that are there lack, together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// A publication itself.
    Publication {
        /// Its name.
        name: String,
        /// Names that may have been meant.
        near: Vec<String>,
        /// What the others do not publish, as entries of a list.
        entries: Vec<String>,
    },
    /// Tables that take part and are not published.
    Tables {
        /// They.
        tables: Vec<TableName>,
        /// As entries of a list.
        entries: Vec<String>,
        /// The publications that can take them.
        into: Vec<String>,
    },
    /// Kinds of changes of tables that take part.
    Operations {
        /// The tables.
        tables: Vec<TableName>,
        /// A publication that has them.
        publication: String,
        /// The kinds.
        lacks: Vec<&'static str>,
    },
    /// Columns of a table that takes part and that the target is to have.
    Columns {
        /// The table.
        table: TableName,
        /// Where it is published.
        entries: Vec<ListEntry>,
        /// The columns.
        columns: Vec<String>,
    },
    /// One list of columns of a table: the server decodes no change of it.
    OneColumnList {
        /// The table.
        table: TableName,
        /// Where it is published.
        entries: Vec<ListEntry>,
    },
    /// One row filter for all kinds of changes of a table: a row would be followed by
    /// some of its changes only.
    OneRowFilter {
        /// The table.
        table: TableName,
        /// The publications that have it and do not publish every kind.
        publications: Vec<String>,
        /// The rows of each kind, in words.
        rows: String,
    },
    /// Partitions that take part come in the name of a root that is left out.
    WithoutRoot {
        /// The root.
        root: TableName,
        /// The partitions.
        partitions: Vec<TableName>,
        /// The publications that do so.
        publications: Vec<String>,
    },
    /// Partitions that are left out come in the name of a root that takes part.
    LeftOutWithin {
        /// The root.
        root: TableName,
        /// The partitions.
        partitions: Vec<TableName>,
        /// The publications that do so.
        publications: Vec<String>,
    },
}

impl Lack {
    /// What is so, in a sentence.
    pub fn said(&self, of: &Publications) -> String {
        match self {
            Lack::Publication { name, near, .. } => {
                let near: Vec<String> = near.iter().map(|name| shown(name)).collect();
                let hint =
                    if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(" or ")) };
                format!("there is no publication {}{hint}", shown(name))
            }
            Lack::Tables { tables, .. } if of.names().len() == 1 => {
                of.who(&format!("does not publish {}", listed(tables)), "")
            }
            Lack::Tables { tables, .. } => format!("none of the publications {of} publishes {}", listed(tables)),
            Lack::Operations { publication, lacks, .. } if of.names().len() == 1 => {
                format!("publication {} does not publish {}", shown(publication), lacks.join(", "))
            }
            Lack::Operations { tables, lacks, .. } => {
                format!("none of the publications {of} publishes {} of {}", lacks.join(", "), listed(tables))
            }
            Lack::Columns { table, entries, columns } => {
                let rest = |verb| format!("{verb} only some columns of {table}: not {}", columns.join(", "));
                who(&publications(entries), &rest("publishes"), &rest("publish"))
            }
            Lack::OneColumnList { table, entries } => {
                let lists =
                    entries.iter().map(|entry| format!("{} ({})", shown(&entry.publication), entry.columns.join(", ")));
                let lists = lists.collect::<Vec<_>>().join(" and ");
                format!(
                    "publications differ about the columns of {table}, and PostgreSQL decodes no change of it then: {lists}"
                )
            }
            Lack::OneRowFilter { table, rows, .. } => {
                format!(
                    "{} a row filter that does not count for all kinds of changes of {table}: {rows}",
                    of.who("has", "have")
                )
            }
            Lack::WithoutRoot { root, partitions, publications }
            | Lack::LeftOutWithin { root, partitions, publications } => {
                let is_taken = matches!(self, Lack::WithoutRoot { .. });
                let cannot = if is_taken { "take part without it" } else { "be left out" };
                let partitions = listed(partitions);
                let rest =
                    |verb| format!("{verb} partitions of {root} in its name, so that {partitions} cannot {cannot}");
                who(publications, &rest("publishes"), &rest("publish"))
            }
        }
    }

    /// The SQL that mends it, for the owner of publication and tables.
    pub fn sql(&self) -> String {
        let set = |names: &[String], option: &str| {
            let set = |name: &String| format!("ALTER PUBLICATION {} SET ({option});", ident(name));
            names.iter().map(set).collect::<Vec<_>>().join(" ")
        };
        let every_kind = || {
            let all: Vec<&str> = Operation::ALL.iter().map(|operation| operation.as_str()).collect();
            format!("publish = '{}'", all.join(", "))
        };
        match self {
            Lack::Publication { name, entries, .. } if entries.is_empty() => {
                format!("CREATE PUBLICATION {};", ident(name))
            }
            Lack::Publication { name, entries, .. } => {
                format!("CREATE PUBLICATION {} FOR TABLE {};", ident(name), entries.join(", "))
            }
            Lack::Tables { entries, into, .. } => add_sql(into, entries),
            Lack::Operations { publication, .. } => set(std::slice::from_ref(publication), &every_kind()),
            Lack::OneRowFilter { publications, .. } => set(publications, &every_kind()),
            Lack::Columns { entries, .. } | Lack::OneColumnList { entries, .. } => {
                let again = |entry: &ListEntry| {
                    let name = ident(&entry.publication);
                    let (only, entry) = (&entry.only, &entry.sql);
                    format!("ALTER PUBLICATION {name} DROP TABLE {only}; ALTER PUBLICATION {name} ADD TABLE {entry};")
                };
                let partial = entries.iter().filter(|entry| !entry.left_out.is_empty());
                let sql = partial.map(again).collect::<Vec<_>>().join(" ");
                // They differ about columns that the server computes.
                if sql.is_empty() { set(&publications(entries), "publish_generated_columns = none") } else { sql }
            }
            Lack::LeftOutWithin { publications, .. } | Lack::WithoutRoot { publications, .. } => {
                set(publications, "publish_via_partition_root = false")
            }
        }
    }
}

fn publications(entries: &[ListEntry]) -> Vec<String> {
    entries.iter().map(|entry| entry.publication.clone()).collect()
}

/// Adds entries to the lists of publications.
pub fn add_sql(into: &[String], entries: &[String]) -> String {
    let add = |name: &String| format!("ALTER PUBLICATION {} ADD TABLE {};", ident(name), entries.join(", "));
    into.iter().map(add).collect::<Vec<_>>().join(" ")
}

/// A change of publications that waits for the writers of these tables, and lets them
/// wait: no transaction may have written to one and go on. Decoding it, older servers
/// would take the table for not published, and so those after it.
pub fn locked_sql<'t>(tables: impl Iterator<Item = &'t SourceTable>, changes: &str) -> String {
    let names: Vec<String> = tables.map(|table| format!("{}{}", table.only(), table.name.sql())).collect();
    format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE; {changes} COMMIT", names.join(", "))
}

/// The lists that a table of which nothing is published is added to, so that changes
/// of every kind come: the first that publishes them all, else as many as it takes.
pub fn lists_for_new(found: &[Publication]) -> Vec<String> {
    let lists = || found.iter().filter(|publication| publication.all_tables == AllTables::No);
    if let Some(whole) = lists().find(|publication| publication.lacks().is_empty()) {
        return vec![whole.name.clone()];
    }
    let (mut into, mut comes) = (Vec::new(), BTreeSet::new());
    for list in lists().filter(|list| !list.operations.is_empty()) {
        if !list.operations.is_subset(&comes) {
            comes.extend(list.operations.iter().copied());
            into.push(list.name.clone());
        }
    }
    into
}

/// Where a table is published, each with the entry that publishes all of its columns
/// and the rows that it has.
fn list_entries(table: &SourceTable, published: &Published) -> Vec<ListEntry> {
    let entry = |portion: &Portion| {
        let filter = portion.row_filter.as_ref().map(|filter| format!(" WHERE ({filter})")).unwrap_or_default();
        let only = format!("{}{}", table.only(), table.name.sql());
        let sql = format!("{only}{filter}");
        let (columns, left_out) = (portion.columns.clone(), portion.left_out.clone());
        ListEntry { publication: portion.publication.clone(), only, sql, columns, left_out }
    };
    published.portions.iter().map(entry).collect()
}

/// Columns that are not published and that the target has, or is to have: they
/// would differ. `is_there` says so of a table and a column.
pub fn columns_lacking(
    published: &HashMap<u32, Published>,
    tables: &[SourceTable],
    is_there: impl Fn(&SourceTable, &str) -> bool,
) -> Vec<Lack> {
    let of_table = |table: &SourceTable| {
        let published = published.get(&table.oid).filter(|_| table.part == Part::Included)?;
        let left_out = published.left_out().iter();
        let columns: Vec<String> = left_out.filter(|column| is_there(table, column)).cloned().collect();
        (!columns.is_empty() && published.has_one_column_list()).then(|| Lack::Columns {
            table: table.name.clone(),
            entries: list_entries(table, published),
            columns,
        })
    };
    tables.iter().filter_map(of_table).collect()
}

/// Tables about which their publications do not agree: the columns, or which rows'
/// changes of each kind come.
pub fn disagreements(found: &[Publication], published: &HashMap<u32, Published>, tables: &[SourceTable]) -> Vec<Lack> {
    let included = tables.iter().filter(|table| table.part == Part::Included);
    let known = included.filter_map(|table| Some((table, published.get(&table.oid)?)));
    let mut lacks = Vec::new();
    for (table, published) in known {
        let name = table.name.clone();
        if !published.has_one_column_list() {
            lacks.push(Lack::OneColumnList { table: name.clone(), entries: list_entries(table, published) });
        }
        if published.parts_kinds() {
            let has = |name: &str| published.portions.iter().any(|portion| portion.publication == name);
            let parted = found.iter().filter(|publication| has(&publication.name) && !publication.lacks().is_empty());
            let publications = parted.map(|publication| publication.name.clone()).collect();
            lacks.push(Lack::OneRowFilter { table: name, publications, rows: rows_by_kind(published) });
        }
    }
    lacks
}

/// Which rows' changes of each kind come, in words.
fn rows_by_kind(published: &Published) -> String {
    let words = |kind: &Operation| {
        let rows = match published.rows(*kind) {
            RowsOfKind::All => "all rows".to_owned(),
            RowsOfKind::Meeting(conditions) => conditions.into_iter().collect::<Vec<_>>().join(" or "),
        };
        format!("{} {rows}", kind.as_str())
    };
    let comes = published.operations();
    let kinds = Operation::OF_ROWS.iter().filter(|kind| comes.contains(kind));
    kinds.map(words).collect::<Vec<_>>().join("; ")
}

/// The publications of a migration that are not there, each with names that may have
/// been meant; `all` are those that are there.
pub fn absent(
    wanted: &Publications,
    all: &[String],
    tables: &[SourceTable],
    published: &HashMap<u32, Published>,
) -> Vec<Lack> {
    let mut entries = entries_of(tables, &uncovered(published, tables));
    let missing = wanted.names().iter().filter(|name| !all.contains(name));
    let lack = |name: &String| {
        let folded: Vec<&String> = all.iter().filter(|there| there.eq_ignore_ascii_case(name)).collect();
        let near = if folded.is_empty() {
            near_misses(name, all.iter().map(String::as_str)).into_iter().map(str::to_owned).collect()
        } else {
            folded.into_iter().cloned().collect()
        };
        // One of them is enough to publish what is not published yet.
        Lack::Publication { name: name.clone(), near, entries: std::mem::take(&mut entries) }
    };
    missing.map(lack).collect()
}

/// Whether walferry adds tables to these by itself: only to the one that this migration
/// created. Another one of its name may be somebody else's, who would publish them for good.
pub fn are_created_by_us(found: &[Publication], created: Option<u32>) -> bool {
    found.iter().all(|publication| Some(publication.oid) == created)
}

/// What publications that are there lack for those who take part; `published`
/// is what they publish together. Columns only where the target is to have them
/// all ([`columns_lacking`]).
pub fn lacks(
    found: &[Publication],
    published: &HashMap<u32, Published>,
    tables: &[SourceTable],
    schema: SchemaMode,
) -> Vec<Lack> {
    let mut lacks = match schema {
        SchemaMode::Create => columns_lacking(published, tables, |_, _| true),
        SchemaMode::Existing | SchemaMode::None => Vec::new(),
    };
    lacks.extend(operations_lacking(published, tables));
    lacks.extend(disagreements(found, published, tables));
    let absent = uncovered(published, tables);
    if !absent.is_empty() {
        let entries = entries_of(tables, &absent);
        let names = absent.iter().map(|table| table.name.clone()).collect();
        lacks.push(Lack::Tables { tables: names, entries, into: lists_for_new(found) });
    }
    if found.iter().any(|publication| publication.partitions == Partitions::InTheirRootsName) {
        lacks.extend(left_out_within(published, tables));
        lacks.extend(without_root(published, tables));
    }
    lacks
}

fn without_root(published: &HashMap<u32, Published>, tables: &[SourceTable]) -> Vec<Lack> {
    let left_out = tables.iter().filter(|table| matches!(table.part, Part::Filtered | Part::LetIn));
    let lack = |root: &SourceTable| {
        let of_root = published.get(&root.oid)?;
        let comes = |table: &&SourceTable| {
            table.part == Part::Included && root_in_name(published, table).is_some_and(|name| *name == root.name)
        };
        let partitions: Vec<TableName> = tables.iter().filter(comes).map(|table| table.name.clone()).collect();
        let publications = of_root.portions.iter().map(|portion| portion.publication.clone()).collect();
        (!partitions.is_empty()).then(|| Lack::WithoutRoot { root: root.name.clone(), partitions, publications })
    };
    left_out.filter_map(lack).collect()
}

/// Kinds of changes that do not come, by the publication that could publish them.
fn operations_lacking(published: &HashMap<u32, Published>, tables: &[SourceTable]) -> Vec<Lack> {
    let mut lacking: BTreeMap<(String, Vec<&'static str>), Vec<TableName>> = BTreeMap::new();
    for table in tables.iter().filter(|table| table.part == Part::Included) {
        let Some(published) = published.get(&table.oid) else { continue };
        let (lacks, first) = (published.lacks(), published.portions.first());
        if let (false, Some(portion)) = (lacks.is_empty(), first) {
            lacking.entry((portion.publication.clone(), lacks)).or_default().push(table.name.clone());
        }
    }
    let lack = |((publication, lacks), tables)| Lack::Operations { tables, publication, lacks };
    lacking.into_iter().map(lack).collect()
}

/// The entries of a list that publish these tables.
fn entries_of(tables: &[SourceTable], absent: &[&SourceTable]) -> Vec<String> {
    let oids: HashSet<u32> = absent.iter().map(|table| table.oid).collect();
    let is_wanted = |entry: &SourceTable| oids.contains(&entry.oid) || absent.iter().any(|t| t.is_below(entry.oid));
    entries(tables).into_iter().filter(|(table, _)| is_wanted(table)).map(|(_, entry)| entry).collect()
}

fn left_out_within(published: &HashMap<u32, Published>, tables: &[SourceTable]) -> Vec<Lack> {
    let roots = tables
        .iter()
        .filter(|t| t.part == Part::Included && t.shape == Shape::Partitioned && published.contains_key(&t.oid));
    let by = |root: &SourceTable| {
        published.get(&root.oid).map(|p| p.portions.iter().map(|s| s.publication.clone()).collect())
    };
    let within = |root: &SourceTable| Lack::LeftOutWithin {
        root: root.name.clone(),
        publications: by(root).unwrap_or_default(),
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
