//! What makes the two sides differ, or may: what is so, and what mends it, in words.
//!
//! Invariant: every statement that is printed can be run as it is, in the order in which
//! gaps are said.

use std::collections::HashSet;
use std::fmt;

use super::placement::{self, Home};
use super::placing::Placing;
use super::renaming::Renaming;
use super::row_filters::RowFilter;
use super::switched::Switched;
use crate::catalog::tables::Persistence;
use crate::shell;
use crate::sql::TableName;
use crate::sql::printed::printed;
use crate::words::listed;

/// When rows are copied anew: after all that is about names and places.
const TURN_OF_ROWS: u8 = 3;

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
    /// It has other partitions than when its rows were read, and its rows come in its own
    /// name: how the target parts them is the operator's.
    Parted,
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
            Cause::Rewritten { .. }
                | Cause::Parted
                | Cause::Paired { .. }
                | Cause::Altered { .. }
                | Cause::NewWithin { .. }
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
            Cause::Parted => {
                "has other partitions on the source than when its rows were read, and its rows are not equal: what was \
                 detached or dropped there may still be here, or what the target's partitions had of others may be gone"
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
        let (table, sql) = (shell::table(&self.table), self.table.sql());
        let again = format!("copy it anew: walferry resync {table}");
        let anew = |root: &TableName| format!("copy that one anew: walferry resync {}", shell::table(root));
        let add = format!("take it in: walferry add {table}");
        match &self.cause {
            Cause::Dropped { within: Some(parent), .. } => format!("it goes with {parent}"),
            Cause::Dropped { within: None, release } => {
                format!("if it can go, on the target: {}DROP TABLE {sql};", printed(release))
            }
            Cause::CreatedAgain { release, persistence } => {
                let then = if *persistence == Persistence::Unlogged { "the end brings the new one" } else { &add };
                format!("on the target: {}DROP TABLE {sql}; then {then}", printed(release))
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
            Cause::Columns(sql) => format!("on the target: {}", printed(&sql.join(" "))),
            Cause::MissingOnTarget => format!("create it there, and {again}"),
            Cause::Alone | Cause::NotPublished => format!("{again} (which publishes it again)"),
            Cause::Rewritten { root: Some(root) }
            | Cause::Paired { root: Some(root) }
            | Cause::Altered { root: Some(root) } => {
                format!("copy {root} anew, in whose name its rows come: walferry resync {}", shell::table(root))
            }
            Cause::Parted => format!("delete on the target what went on the source, or {again}"),
            Cause::PublishedAgain | Cause::Rewritten { .. } | Cause::Paired { .. } | Cause::Altered { .. } => again,
            Cause::NoPlace { create: None, .. } | Cause::Logged => add,
            Cause::NoPlace { root, create: Some(create) } => {
                format!("unless other partitions of {root} there take its rows, create it there: {}", printed(create))
            }
            Cause::NewWithin { root } => anew(root),
            Cause::LeftOutWithin { root } => format!("take it out of --exclude-tables, and {}", anew(root)),
            Cause::Operations(_) => format!("mend the publication, and {again}"),
            Cause::OtherRows => format!("let each publication that has it publish every kind of change, and {again}"),
            Cause::Unlogged { now } => format!(
                "make it logged on the source (ALTER TABLE {} SET LOGGED;) and copy it anew: walferry resync {}",
                now.sql(),
                shell::table(now)
            ),
            Cause::LetIn | Cause::New | Cause::NewAndEmpty => {
                format!("{add}, or leave it out: --exclude-tables {table}")
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
