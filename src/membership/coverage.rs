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
use std::fmt;

use super::placement::{self, Hierarchy, Home, Rules, attached_otherwise, dropped_above};
use super::placing::Placing;
use super::publishing::{of_publication, published_as, root_in_name};
use super::renaming::{Renaming, say_how_to_rename};
use super::row_filters::{self, RowFilter};
use super::switched::{self, Switched};
use super::{Part, SourceTable};
use crate::catalog::publication::{self, Published, Since};
use crate::catalog::tables::{Named, Persistence, Shape};
use crate::config::Publications;
use crate::sql::TableName;
use crate::state::places::TargetTable;
use crate::state::tables::{Origin, TableRow, TableState};
use crate::words::listed;

/// What makes the two sides differ, or may.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The source has no such table any more.
    Dropped {
        /// The table that it is a partition of on the target, when that is to go, too.
        within: Option<TableName>,
        /// What lets go of what is to stay, filled in later ([`super::letting_go`]).
        release: String,
    },
    /// The source has another table of its name.
    CreatedAgain {
        /// The same.
        release: String,
        /// Of the new one.
        persistence: Persistence,
    },
    /// The source has it under another name than the target.
    Renamed {
        /// The name there.
        now: TableName,
        /// What renames it on the target.
        how: Renaming,
    },
    /// The target has no such table any more.
    MissingOnTarget,
    /// Its changes do not come any more.
    NotPublished,
    /// They came in the name of a table that it is no partition of any more.
    Alone,
    /// They did not come for a while.
    PublishedAgain,
    /// Other rows of it are published than those that were read.
    RowFilter(RowFilter),
    /// Some kinds of them do not come.
    Operations(Vec<&'static str>),
    /// Those of one kind come of other rows than those of another.
    OtherRows,
    /// It is unlogged by now.
    Unlogged {
        /// Its name on the source.
        now: TableName,
    },
    /// It was unlogged and is not any more: its rows are in no stream.
    Logged,
    /// The filter left it out and does not any more.
    LetIn,
    /// It came after the copy, and nothing carries it.
    New,
    /// It came after the copy, and has no row so far; the target lacks it.
    NewAndEmpty,
    /// Its columns differ; the SQL that mends it ([`super::columns`]).
    Columns(Vec<String>),
    /// Its file is another one: it was rewritten, or emptied.
    Rewritten {
        /// The table in whose name its rows come, if not in its own.
        root: Option<TableName>,
    },
    /// The target has columns of it since the copy, whose older values came in no stream.
    Paired {
        /// The table in whose name its rows come, if not in its own.
        root: Option<TableName>,
    },
    /// How it is published was altered, perhaps there and back.
    Altered {
        /// The table in whose name its rows come, if not in its own.
        root: Option<TableName>,
    },
    /// It came after the copy, and its rows come in the name of this table, which
    /// takes part; rows that it had before do not.
    NewWithin {
        /// The table.
        root: TableName,
    },
    /// The same, and the target lacks it.
    NoPlace {
        /// The table in whose name its rows come.
        root: TableName,
        /// The SQL that creates it, where the schema on the target is the operator's.
        create: Option<String>,
    },
    /// The filter leaves it out, and its rows come in the name of this table, which
    /// takes part.
    LeftOutWithin {
        /// The table.
        root: TableName,
    },
    /// Its rows come in another name than they were copied in.
    Switched(Switched),
    /// It does not inherit from the same tables as on the target, so that what these
    /// show differs.
    Inherits {
        /// It does on the source, not on the target.
        missing: Vec<TableName>,
        /// It does on the target, not on the source.
        extra: Vec<TableName>,
    },
    /// It is a partition of another table than on the target, or of none, or has other
    /// bounds.
    Attached {
        /// What it is a partition of on the source.
        source: Option<Home>,
        /// On the target.
        target: Option<Home>,
        /// Whether the target has that of the source: else that is taken in first.
        is_there: bool,
        /// What gives it its place, filled in later ([`super::placing`]).
        how: Placing,
    },
}

/// A table that is not, or may not be, equal on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gap {
    /// Its oid on the source.
    pub source_oid: u32,
    /// Its name: the target's, or the source's where the target has none.
    pub table: TableName,
    /// Why.
    pub cause: Cause,
}

impl Gap {
    /// Whether the rows of both sides are to be compared to know: no word for an
    /// operator before that.
    pub fn is_doubt(&self) -> bool {
        matches!(
            self.cause,
            Cause::Rewritten { .. } | Cause::Paired { .. } | Cause::Altered { .. } | Cause::NewWithin { .. }
        )
    }

    /// Whether a rewrite is in doubt, as of a type that was altered.
    pub fn is_of_a_rewrite(&self) -> bool {
        matches!(self.cause, Cause::Rewritten { .. })
    }

    /// The table that is placed by the same statements, and with which they are said.
    pub fn placed_with(&self) -> Option<&TableName> {
        match &self.cause {
            Cause::Attached { how: Placing::With(other), .. } => Some(other),
            _ => None,
        }
    }

    /// Whether what mends it renames, drops or places tables of the target: what the
    /// rows of a root are is not known before that.
    pub fn is_of_names_and_places(&self) -> bool {
        self.turn() < TURN_OF_ROWS
    }
}

/// For people: what is so, and what mends it.
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table, self.what())?;
        match self.remedy() {
            remedy if remedy.is_empty() => Ok(()),
            remedy => write!(f, "; {remedy}"),
        }
    }
}

impl Gap {
    /// What is so, behind the table's name.
    fn what(&self) -> String {
        let fixed = match &self.cause {
            Cause::Renamed { now, .. } => return format!("is {now} on the source by now"),
            Cause::Switched(switched) => return switched.to_string(),
            Cause::RowFilter(filter) => return filter.what(),
            Cause::Inherits { missing, extra } => {
                let some = |tables: &[TableName], words: &str| {
                    (!tables.is_empty()).then(|| format!("inherits from {} on the {words}", listed(tables)))
                };
                let differs = [some(missing, "source only"), some(extra, "target only")];
                return differs.into_iter().flatten().collect::<Vec<_>>().join(", and ");
            }
            Cause::Operations(lacks) => {
                return format!(
                    "is not published with {} any more, and such changes since then are lost",
                    lacks.join(", ")
                );
            }
            Cause::Attached { source, target, .. } => return placement::differing(source.as_ref(), target.as_ref()),
            Cause::NewWithin { root } => {
                return format!(
                    "was made a partition after the copy, and its rows come in the name of {root} only since then"
                );
            }
            Cause::NoPlace { root, .. } => {
                return format!("was made a partition of {root} after the copy, and the target lacks it");
            }
            Cause::LeftOutWithin { root } => {
                return format!("is left out, and cannot be: its rows come in the name of {root}");
            }
            Cause::Columns(_) => "has other columns on the source by now",
            Cause::Altered { .. } => {
                "is published otherwise than when its rows were read, or was for a while (kinds of changes, its publication, its \
                 schema, the table that it is a partition of), and changes in between may be lost"
            }
            Cause::OtherRows => {
                "is published with a row filter that does not count for all kinds of changes, and such changes since then \
                 may be lost"
            }
            Cause::Dropped { .. } => "was dropped on the source, and the target still has it",
            Cause::CreatedAgain { .. } => {
                "was dropped on the source and created again, and the target still has the old one"
            }
            Cause::MissingOnTarget => "is not on the target any more",
            Cause::NotPublished => "is not published any more, and its changes since then are lost",
            Cause::Alone => {
                "is no partition any more of the table in whose name its rows came, and nothing carries it since"
            }
            Cause::PublishedAgain => {
                "was taken out of the publication and put back, and its changes in between are lost"
            }
            Cause::Unlogged { .. } => "is unlogged on the source by now, so its changes are in no stream",
            Cause::Logged => "was unlogged and is logged by now, so its earlier rows are in no stream",
            Cause::LetIn => "was left out when the rows were copied, and is not any more",
            Cause::New => "was created on the source after the copy, and its rows are not on the target",
            Cause::NewAndEmpty => "was created on the source after the copy, and is not on the target",
            Cause::Rewritten { .. } => {
                "was rewritten on the source (by ALTER TABLE, SET UNLOGGED and back, VACUUM FULL, CLUSTER or TRUNCATE), \
                 and what that did to its rows may be in no stream"
            }
            Cause::Paired { .. } => {
                "has columns on the target that were added or made anew there, or was emptied there for its bounds, and its \
                 rows are not equal"
            }
        };
        fixed.to_owned()
    }

    /// What mends it.
    fn remedy(&self) -> String {
        let (table, sql) = (&self.table, self.table.sql());
        let again = format!("copy it anew: walferry resync '{table}'");
        let anew = |root: &TableName| format!("copy that one anew: walferry resync '{root}'");
        let add = format!("take it in: walferry add '{table}'");
        match &self.cause {
            Cause::Dropped { within: Some(parent), .. } => format!("it goes with {parent}"),
            Cause::Dropped { within: None, release } => {
                format!("if it can go, on the target: {release}DROP TABLE {sql};")
            }
            Cause::CreatedAgain { release, persistence } => {
                let then = if *persistence == Persistence::Unlogged { "the end brings the new one" } else { &add };
                format!("on the target: {release}DROP TABLE {sql}; then {then}")
            }
            Cause::Renamed { how, .. } => how.to_string(),
            Cause::Switched(switched) => switched.remedy(),
            Cause::RowFilter(filter) => filter.remedy(),
            Cause::Inherits { missing, extra } => {
                let alter = |what: &str, parent: &TableName| format!("ALTER TABLE {sql} {what} {};", parent.sql());
                let statements = missing.iter().map(|parent| alter("INHERIT", parent));
                let statements = statements.chain(extra.iter().map(|parent| alter("NO INHERIT", parent)));
                format!("do the same there: {}", statements.collect::<Vec<_>>().join(" "))
            }
            Cause::Columns(sql) => format!("on the target: {}", sql.join(" ")),
            Cause::MissingOnTarget => format!("create it there, and {again}"),
            Cause::Alone | Cause::NotPublished => format!("{again} (which publishes it again)"),
            Cause::Rewritten { root: Some(root) }
            | Cause::Paired { root: Some(root) }
            | Cause::Altered { root: Some(root) } => {
                format!("copy {root} anew, in whose name its rows come: walferry resync '{root}'")
            }
            Cause::PublishedAgain | Cause::Rewritten { .. } | Cause::Paired { .. } | Cause::Altered { .. } => again,
            Cause::NoPlace { create: None, .. } | Cause::Logged => add,
            Cause::NoPlace { root, create: Some(create) } => {
                format!("unless other partitions of {root} there take its rows, create it there: {create}")
            }
            Cause::NewWithin { root } => anew(root),
            Cause::LeftOutWithin { root } => format!("take it out of --exclude-tables, and {}", anew(root)),
            Cause::Operations(_) => format!("mend the publication, and {again}"),
            Cause::OtherRows => format!("let each publication that has it publish every kind of change, and {again}"),
            Cause::Unlogged { now } => format!(
                "make it logged on the source (ALTER TABLE {} SET LOGGED;) and copy it anew: walferry resync '{now}'",
                now.sql()
            ),
            Cause::LetIn | Cause::New | Cause::NewAndEmpty => {
                format!("{add}, or leave it out: --exclude-tables '{table}'")
            }
            Cause::Attached { source, is_there, how, .. } => {
                how.said(source.as_ref().filter(|_| !is_there).map(|home| &home.parent))
            }
        }
    }
}

/// How many tables these are about.
pub fn tables<'g>(gaps: impl Iterator<Item = &'g Gap>) -> usize {
    gaps.map(|gap| gap.source_oid).collect::<HashSet<u32>>().len()
}

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

/// When rows are copied anew: after all that is about names and places.
const TURN_OF_ROWS: u8 = 3;

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

impl Gap {
    /// When it is mended: what has the target's present names in its SQL before tables
    /// are renamed there, what takes names that are given then after that.
    pub(super) fn turn(&self) -> u8 {
        match self.cause {
            Cause::Switched(_) | Cause::Attached { .. } | Cause::Inherits { .. } => 0,
            Cause::Dropped { .. } | Cause::CreatedAgain { .. } => 1,
            Cause::Renamed { .. } => 2,
            _ => TURN_OF_ROWS,
        }
    }
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
        return one(missing.or_else(|| doubt(now, row, table)));
    };
    if renamed.is_some() {
        // It may have to leave what is dropped, and whose name it gets.
        return of_place().into_iter().chain(renamed).collect();
    }
    if let Some(cause) = in_another_name(now, members, row, table, there) {
        return vec![cause];
    }
    let is_alone = switched::is_alone(table, row.state, now.published, |oid| members.streamed.contains(&oid));
    let filter = || row_filters::since_copied(row, table, now.published, now.publications).map(Cause::RowFilter);
    let of_publication = || of_publication(row, published_as(now.published, table));
    let of_rows = || filter().or_else(of_publication).or_else(|| doubt(now, row, table));
    let of_rows = if is_alone { Some(Cause::Alone) } else { of_rows() };
    of_place().into_iter().chain(of_rows).collect()
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
    Origin { filenode: Some(table.filenode), via: in_its_own_name.or_else(in_anothers) }
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
        Some(was) if is.filenode != Some(was) => return Some(Cause::Rewritten { root }),
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
