//! Whether what takes part is still what is published and what the target has:
//! compared at each start, while streaming, and before anything is called equal.
//!
//! Invariant: whatever the stream cannot tell of is noticed here, by the oids,
//! files and entries that the state has of the time when the rows were read. What
//! is found is named with what mends it; nothing is decided from silence.
//!
//! Source: what logical decoding leaves out: DDL of every kind, changes of tables
//! that are not published or not logged, TRUNCATE of a partition under
//! `publish_via_partition_root` (`pgoutput_truncate` in
//! `src/backend/replication/pgoutput/pgoutput.c`), rows of a rewritten table
//! (`relrewrite` in `src/backend/replication/logical/reorderbuffer.c`).

use std::collections::{HashMap, HashSet};

use super::gap::{Cause, Gap};
use super::placement::{Hierarchy, Rules, attached_otherwise, dropped_above};
use super::publishing::{of_publication, published_as, root_in_name};
use super::renaming::{Renaming, say_how_to_rename};
use super::row_filters;
use super::switched;
use super::{Part, SourceTable};
use crate::catalog::publication::{self, Published, Since};
use crate::catalog::tables::{Named, Persistence, Shape};
use crate::config::Publications;
use crate::sql::TableName;
use crate::state::places::TargetTable;
use crate::state::tables::{Origin, TableRow, TableState};

/// Both sides as they are just now.
#[derive(Debug)]
pub struct Now<'a> {
    /// What the state says.
    pub rows: &'a [TableRow],
    /// The tables of the source.
    pub tables: &'a [SourceTable],
    /// What is published.
    pub published: &'a HashMap<u32, Published>,
    /// By which publications.
    pub publications: &'a Publications,
    /// The target's tables by the source's oids.
    pub there: &'a HashMap<u32, TargetTable>,
    /// Tables of the source that nobody knows and that have rows.
    pub filled: &'a HashSet<u32>,
    /// Those without, that the target has a table for: it is taken in with the first row.
    pub awaited: &'a HashSet<u32>,
    /// Names that tables of the target are to get, and that something has there which is
    /// not the migration's.
    pub strangers: &'a HashSet<TableName>,
    /// Whether tables to come are published.
    pub publishes_all: bool,
    /// What partitions have to be.
    pub rules: Rules<'a>,
}

/// Who takes part, by oid.
struct Members {
    all: HashSet<u32>,
    /// Those whose changes come in their own names.
    streamed: HashSet<u32>,
    /// Those that the filter lets in, whether the state knows them or not.
    let_in: HashSet<u32>,
}

/// What makes the two sides differ, or may, in the order in which it can be mended,
/// and of the tables' names.
pub fn compare(now: &Now<'_>) -> Vec<Gap> {
    let by_oid: HashMap<u32, &SourceTable> = now.tables.iter().map(|table| (table.oid, table)).collect();
    let known: HashSet<u32> = now.rows.iter().map(|row| row.source_oid).collect();
    let is_stranger = |table: &&SourceTable| !known.contains(&table.oid) && table.part != Part::Filtered;
    let strangers: HashMap<&TableName, &SourceTable> =
        now.tables.iter().filter(is_stranger).map(|table| (&table.name, table)).collect();
    // Its rows are the root's, and so is its place there.
    let takes_its_place = |row: &TableRow, stranger: &SourceTable| {
        row.state == TableState::Within
            && stranger.shape == Shape::Plain
            && root_in_name(now.published, stranger).is_some()
    };
    let oids = |is_meant: fn(TableState) -> bool| {
        now.rows.iter().filter(|row| is_meant(row.state)).map(|row| row.source_oid).collect::<HashSet<u32>>()
    };
    let let_in = now.tables.iter().filter(|table| table.part == Part::Included).map(|table| table.oid).collect();
    let members = Members { all: oids(TableState::takes_part), streamed: oids(TableState::is_streamed), let_in };
    let mut gaps = Vec::new();
    for row in now.rows {
        let there = now.there.get(&row.source_oid);
        let causes = match by_oid.get(&row.source_oid) {
            Some(table) => of_table(now, &members, row, table, there),
            None if !row.state.takes_part() || there.is_none() => Vec::new(),
            None if let Some(stranger) = there.and_then(|there| strangers.get(&there.name)) => {
                let again = Cause::CreatedAgain { release: String::new(), persistence: stranger.persistence };
                (!takes_its_place(row, stranger)).then_some(again).into_iter().collect()
            }
            None => vec![Cause::Dropped {
                within: there.and_then(|there| dropped_above(&by_oid, there)),
                release: String::new(),
            }],
        };
        // One without a table there, as it was left out, goes by its present name.
        let here = by_oid.get(&row.source_oid).map_or(&row.table, |table| &table.name);
        let name = there.map_or(here, |there| &there.name);
        gaps.extend(causes.into_iter().map(|cause| Gap { source_oid: row.source_oid, table: name.clone(), cause }));
    }
    let mut of_strangers: HashMap<u32, Gap> = HashMap::new();
    let again = |gap: &Gap| matches!(gap.cause, Cause::CreatedAgain { .. }).then(|| gap.table.clone());
    let again: HashSet<TableName> = gaps.iter().filter_map(again).collect();
    for table in now.tables.iter().filter(|table| !known.contains(&table.oid) && !again.contains(&table.name)) {
        let Some(gap) = of_stranger(now, (&known, &members), &by_oid, table) else { continue };
        // A tree of partitions is one: with rows, if one of them has any.
        let held = of_strangers.entry(gap.source_oid).or_insert_with(|| gap.clone());
        if gap.cause != Cause::NewAndEmpty {
            *held = gap;
        }
    }
    gaps.extend(of_strangers.into_values());
    gaps.sort_by(|a, b| (a.turn(), &a.table).cmp(&(b.turn(), &b.table)));
    say_how_to_rename(&mut gaps, now);
    gaps
}

/// What is to be done first comes first.
fn of_table(
    now: &Now<'_>,
    members: &Members,
    row: &TableRow,
    table: &SourceTable,
    there: Option<&TargetTable>,
) -> Vec<Cause> {
    let one = |cause: Option<Cause>| cause.into_iter().collect();
    let renamed = there.and_then(|there| renamed(table, there));
    let of_place = || {
        let there = there?;
        attached(now, members, table, there).or_else(|| inherits(now, members, table, there))
    };
    match row.state {
        TableState::Extension => return Vec::new(),
        TableState::Excluded => {
            return one(left_out_within(now, members, table).or((table.part == Part::LetIn).then_some(Cause::LetIn)));
        }
        TableState::Unlogged if table.persistence == Persistence::Permanent && renamed.is_none() => {
            // A partitioned table has no rows that could be unlogged.
            return one((table.shape == Shape::Plain).then_some(Cause::Logged));
        }
        TableState::Unlogged => {}
        _ if table.persistence == Persistence::Unlogged => {
            let of_place = of_place().filter(|_| renamed.is_some());
            return of_place.into_iter().chain(renamed).chain([Cause::Unlogged { now: table.name.clone() }]).collect();
        }
        _ => {}
    }
    let Some(there) = there else {
        // How a target parts the rows of a root is its own business.
        let missing = row.state.is_streamed().then_some(Cause::MissingOnTarget);
        return one(missing.or_else(|| of_rows(now, members, row, table)));
    };
    if renamed.is_some() {
        // It may have to leave what is dropped, and whose name it gets.
        return of_place().into_iter().chain(renamed).collect();
    }
    if let Some(cause) = in_another_name(now, members, row, table, there) {
        return vec![cause];
    }
    let of_rows = of_rows(now, members, row, table);
    let filter = || row_filters::since_copied(row, table, now.published, now.publications).map(Cause::RowFilter);
    let of_publication = || of_publication(row, published_as(now.published, table));
    let first = if of_rows == Some(Cause::Alone) { None } else { filter().or_else(of_publication) };
    of_place().into_iter().chain(first.or(of_rows)).collect()
}

/// What may have happened to its rows without the stream.
fn of_rows(now: &Now<'_>, members: &Members, row: &TableRow, table: &SourceTable) -> Option<Cause> {
    let is_streamed = |oid| members.streamed.contains(&oid);
    let is_alone =
        |table: &SourceTable| switched::is_alone(table, row.state, (now.published, now.tables), &is_streamed);
    if row.state != TableState::Within || table.ancestors.iter().any(|above| is_streamed(above.oid)) {
        return doubt(now, row, table);
    }
    let root = table.ancestors.last().and_then(|root| now.tables.iter().find(|table| table.oid == root.oid));
    match root {
        _ if is_alone(table) => Some(Cause::Alone),
        // It comes with that one.
        Some(root) if is_alone(root) => None,
        _ => doubt(now, row, table),
    }
}

/// It has another name than on the target; how it gets that is filled in later.
fn renamed(table: &SourceTable, there: &TargetTable) -> Option<Cause> {
    let how = Renaming::Sql(String::new());
    (there.name != table.name).then(|| Cause::Renamed { now: table.name.clone(), how })
}

/// The rows of a table that is streamed come in another's name by now.
fn in_another_name(
    now: &Now<'_>,
    members: &Members,
    row: &TableRow,
    table: &SourceTable,
    there: &TargetTable,
) -> Option<Cause> {
    if row.state != TableState::Ready || now.published.contains_key(&table.oid) {
        return None;
    }
    let is_streamed = |oid| members.streamed.contains(&oid);
    if let Some(switched) = switched::switched(table, now.published, now.tables, is_streamed) {
        return Some(Cause::Switched(switched));
    }
    let root = root_in_name(now.published, table)?;
    attached(now, members, table, there).or_else(|| Some(Cause::NewWithin { root: root.clone() }))
}

/// What a table is on the source just now: kept with its rows, and compared with
/// what it is later.
pub fn origin(table: &SourceTable, published: &HashMap<u32, Published>) -> Origin {
    let in_its_own_name = published.get(&table.oid).map(|published| published.via.clone());
    let in_anothers = || (!table.links.is_empty()).then(|| publication::links(&table.links));
    let filenode = if table.shape == Shape::Partitioned { table.parts } else { table.filenode };
    Origin { filenode: Some(filenode), via: in_its_own_name.or_else(in_anothers) }
}

/// What may have changed rows without the stream.
fn doubt(now: &Now<'_>, row: &TableRow, table: &SourceTable) -> Option<Cause> {
    // A partitioned table whose rows come in its own name stands for its partitions.
    match (row.state, table.shape) {
        (TableState::Ready, _) | (TableState::Within, Shape::Plain) => {}
        _ => return None,
    }
    let is = origin(table, now.published);
    let root = root_in_name(now.published, table).cloned();
    match row.origin.filenode {
        Some(Origin::COLUMNS_CAME) => return Some(Cause::Paired { root }),
        Some(was) if is.filenode != Some(was) => match (table.shape, now.rules.hierarchy) {
            (Shape::Plain, _) => return Some(Cause::Rewritten { root }),
            (Shape::Partitioned, Hierarchy::Own) => return Some(Cause::Parted),
            // The target parts its rows as the source does: what went took them along.
            (Shape::Partitioned, Hierarchy::Same) => {}
        },
        _ => {}
    }
    let (was, is) = row.origin.via.as_deref().zip(is.via.as_deref())?;
    (publication::since(was, is) != Since::Unbroken).then_some(Cause::Altered { root })
}

/// The table above one that is left out in whose name its rows come, if that takes part.
fn left_out_within(now: &Now<'_>, members: &Members, table: &SourceTable) -> Option<Cause> {
    let root = root_in_name(now.published, table)?;
    takes_part(members, table, root).then(|| Cause::LeftOutWithin { root: root.clone() })
}

/// Whether a table above another one takes part, or will.
fn takes_part(members: &Members, table: &SourceTable, root: &TableName) -> bool {
    let oid = table.ancestors.iter().find(|above| above.name == *root).map(|above| above.oid);
    oid.is_some_and(|oid| members.all.contains(&oid) || members.let_in.contains(&oid))
}

fn attached(now: &Now<'_>, members: &Members, table: &SourceTable, there: &TargetTable) -> Option<Cause> {
    // A root that came later takes part as well.
    let is_known = |oid: u32| now.rows.iter().any(|row| row.source_oid == oid);
    let takes_part = |oid: u32| members.all.contains(&oid) || members.let_in.contains(&oid) && !is_known(oid);
    attached_otherwise((&now.rules, now.rules.hierarchy_of(table, now.there)), table, (there, now.there), takes_part)
}

fn inherits(now: &Now<'_>, members: &Members, table: &SourceTable, there: &TargetTable) -> Option<Cause> {
    if now.rules.hierarchy_of(table, now.there) == Hierarchy::Own {
        return None;
    }
    let name = |oid: &u32| now.there.get(oid).map(|there| there.name.clone());
    let members = |oid: &&u32| members.all.contains(*oid);
    let here = table.parents.iter().filter(members).filter(|oid| !there.inherits.contains(oid));
    let beyond = there.inherits.iter().filter(members).filter(|oid| !table.parents.contains(oid));
    let [missing, extra]: [Vec<TableName>; 2] = [here.filter_map(name).collect(), beyond.filter_map(name).collect()];
    (!missing.is_empty() || !extra.is_empty()).then_some(Cause::Inherits { missing, extra })
}

/// A table that the state does not know; one in a tree of partitions that it does
/// not know goes by the tree's root. Under FOR ALL TABLES each row of it has been
/// met by now, unless it came by what is in no stream.
fn of_stranger(
    now: &Now<'_>,
    (known, members): (&HashSet<u32>, &Members),
    by_oid: &HashMap<u32, &SourceTable>,
    table: &SourceTable,
) -> Option<Gap> {
    if table.shape != Shape::Plain {
        return None;
    }
    let is_empty = now.publishes_all && !now.filled.contains(&table.oid);
    // A root that has no stream by the state was switched to: that is said of others.
    let is_streamed = |root: &&TableName| {
        table.ancestors.iter().any(|above| above.name == **root && members.streamed.contains(&above.oid))
    };
    let root = root_in_name(now.published, table);
    let cause = match (table.part, root.filter(|root| table.part == Part::Filtered || is_streamed(root))) {
        (Part::Filtered, Some(root)) if takes_part(members, table, root) => Cause::LeftOutWithin { root: root.clone() },
        (Part::Included, Some(root)) => Cause::NewWithin { root: root.clone() },
        (Part::Included, None) if is_empty && now.awaited.contains(&table.oid) => return None,
        (Part::Included, None) if is_empty => Cause::NewAndEmpty,
        (Part::Included, None) => Cause::New,
        _ => return None,
    };
    let is_new = |above: &&Named| {
        !known.contains(&above.oid) && by_oid.get(&above.oid).is_some_and(|above| above.part == Part::Included)
    };
    let root = table.ancestors.iter().rev().find(is_new);
    match (&cause, root) {
        (Cause::New | Cause::NewAndEmpty, Some(root)) => {
            Some(Gap { source_oid: root.oid, table: root.name.clone(), cause })
        }
        _ => Some(Gap { source_oid: table.oid, table: table.name.clone(), cause }),
    }
}
