//! What keeps a sequence from being equal on both sides, in words with what to
//! do about it.

use std::fmt;

use crate::catalog::sequences::{Bond, Owner};
use crate::config::Side;
use crate::membership::letting_go::first_away;
use crate::session::{DbContext, QueryError};
use crate::sql::printed::printed;
use crate::sql::{TableName, ident};

/// A sequence that a pass could not make equal, or found otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceProblem {
    /// Schema and name on the source.
    pub sequence: TableName,
    /// Why.
    pub cause: SequenceCause,
}

/// Why a sequence is not equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SequenceCause {
    /// The target has no such sequence; the SQL that creates it.
    Missing(String),
    /// The target has neither it nor this column, which it belongs to.
    WithColumn(Owner),
    /// This table of the target draws from it as well and is not the migration's, and it stands
    /// further on there.
    DrawnByOthers(TableName),
    /// What has its name on the target is not the migration's: nothing was set there.
    Stranger(Whose),
    /// The target has it under another name.
    Renamed {
        /// How it gets this one.
        how: Renaming,
        /// Whether that may be on purpose.
        blame: Blame,
    },
    /// A column draws from it on the source, and from another one on the target.
    Elsewhere {
        /// The column there.
        column: Owner,
        /// What that draws from.
        from: TableName,
        /// The SQL that lets it draw from this one.
        sql: String,
    },
    /// A column draws from it on one side, and from none on the other.
    OneSided {
        /// The column on the target.
        column: Owner,
        /// Where it draws.
        drawn_on: Side,
        /// The SQL that gives it the source's default.
        sql: String,
    },
    /// The column that it belongs to on the target is numbered otherwise on the source.
    Numbered {
        /// The column there.
        column: Owner,
        /// What numbers it there.
        there: Bond,
        /// What does on the source.
        here: Option<Bond>,
        /// The SQL that makes it so.
        sql: String,
        /// Whether that may be on purpose.
        blame: Blame,
    },
    /// Our role may not read it on the source; the SQL that mends it.
    Unreadable(String),
    /// The server did not give its value, in its words.
    Unread(String),
    /// Its name was another one's by the time when it was read.
    Another,
    /// Our role may not read and set it on the target; the SQL that mends it.
    Unwritable(String),
    /// The target refused the value or the definition, in its words.
    Refused(String),
    /// It is defined otherwise on the target.
    Defined {
        /// What the target has.
        there: String,
        /// The SQL that makes it as on the source.
        sql: String,
        /// Whose the difference is.
        blame: Blame,
    },
}

/// How a sequence of the target gets the name that the source's has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renaming {
    /// By this SQL.
    Sql(String),
    /// Once these are away there, which are not the migration's.
    OnceAway(Vec<TableName>),
    /// With this other one, whose SQL renames both.
    With(TableName),
}

/// Whose a sequence of the target is that is not the migration's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This table uses it, which is not the migration's.
    Tables(TableName),
    /// Another migration has it.
    Migration(String),
    /// Somebody has called it.
    Unknown,
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whose::Tables(table) => {
                write!(f, "table {table} there uses it: rename or drop it first")
            }
            Whose::Migration(name) => write!(f, "migration \"{name}\" has it: rename it first"),
            Whose::Unknown => write!(
                f,
                "it was called there already: rename or drop it first, or restart it if it is to follow the source's"
            ),
        }
    }
}

impl fmt::Display for Renaming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Renaming::Sql(sql) => write!(f, "run on the target: {sql}"),
            Renaming::OnceAway(strangers) => f.write_str(&first_away(strangers)),
            Renaming::With(other) => write!(f, "what renames {other} there renames it as well"),
        }
    }
}

/// What a definition or a name that differs means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// It follows the source's, and is not ours to alter.
    NotOurs,
    /// The schema is the operator's: it is reported, and left.
    Schema,
}

impl SequenceCause {
    /// When its SQL is to be run: first what has the names that the target has by now,
    /// then what changes these, and then what has those that they are by then.
    pub(super) fn turn(&self) -> u8 {
        match self {
            SequenceCause::Renamed { .. } => 1,
            SequenceCause::Missing(_) | SequenceCause::Numbered { .. } => 2,
            SequenceCause::Elsewhere { .. } | SequenceCause::OneSided { drawn_on: Side::Source, .. } => 3,
            _ => 0,
        }
    }
}

impl SequenceCause {
    /// Whether the sequence cannot be said to be equal; else it is a remark.
    pub fn is_failure(&self) -> bool {
        let (SequenceCause::Defined { blame, .. }
        | SequenceCause::Renamed { blame, .. }
        | SequenceCause::Numbered { blame, .. }) = self
        else {
            return true;
        };
        *blame != Blame::Schema
    }

    /// Whether its SQL puts another sequence in the place of the target's.
    pub(super) fn replaces(&self) -> bool {
        matches!(self, SequenceCause::Numbered { there, here, .. }
            if !there.is_identity() || !here.is_some_and(Bond::is_identity))
    }
}

impl SequenceProblem {
    /// Whether the sequence cannot be said to be equal; else it is a remark.
    pub fn is_failure(&self) -> bool {
        self.cause.is_failure()
    }
}

impl fmt::Display for SequenceProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sequence, self.cause)
    }
}

impl fmt::Display for SequenceCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SequenceCause::Missing(sql) => {
                write!(
                    f,
                    "does not exist on the target (run on the target: {sql}; or leave it out with --exclude-tables)"
                )
            }
            SequenceCause::WithColumn(Owner { table, column }) => {
                write!(
                    f,
                    "does not exist on the target; it comes with column {} of {table}, which is not there so far",
                    ident(column)
                )
            }
            SequenceCause::DrawnByOthers(table) => write!(
                f,
                "stands further on on the target than on the source, and table {table} there, which is not the migration's, draws from it as well: nothing was set (give that table a sequence of its own, or drop it)"
            ),
            SequenceCause::Stranger(whose) => {
                write!(f, "is on the target and not the migration's, so nothing was set ({whose})")
            }
            SequenceCause::Renamed { how, blame } => {
                let whose = match blame {
                    Blame::NotOurs => "",
                    Blame::Schema => "if that is not on purpose, ",
                };
                write!(f, "has another name on the target; its value was carried ({whose}{how})")
            }
            SequenceCause::Elsewhere { column: Owner { table, column }, from, sql } => {
                let column = ident(column);
                write!(
                    f,
                    "is what column {column} of {table} draws its values from on the source, and on the target that draws \
                     from {from} (run on the target: {})",
                    printed(sql)
                )
            }
            SequenceCause::OneSided { column: Owner { table, column }, drawn_on, sql } => {
                let (column, other) = (ident(column), drawn_on.other());
                write!(
                    f,
                    "is what column {column} of {table} draws its values from on the {drawn_on}, and on the {other} that \
                     draws from none (run on the target: {})",
                    printed(sql)
                )
            }
            SequenceCause::Numbered { column: Owner { table, column }, there, here, sql, blame } => {
                let whose = match blame {
                    Blame::NotOurs => "",
                    Blame::Schema => "if that is not on purpose, ",
                };
                let (column, there, here) = (ident(column), there.sql(), here.map_or("not at all", Bond::sql));
                write!(
                    f,
                    "is what numbers column {column} of {table} on the target, {there}, and on the source that is \
                     numbered {here} ({whose}run on the target: {sql})"
                )
            }
            SequenceCause::Another => write!(f, "got another name while it was read"),
            SequenceCause::Unreadable(sql) => write!(f, "cannot be read on the source (run on the source: {sql})"),
            SequenceCause::Unwritable(sql) => write!(f, "cannot be set on the target (run on the target: {sql})"),
            SequenceCause::Unread(words) | SequenceCause::Refused(words) => write!(f, "is not equal: {words}"),
            SequenceCause::Defined { there, sql, blame } => {
                let whose = match blame {
                    Blame::NotOurs => "as its owner, run on the target",
                    Blame::Schema => "if that is not on purpose, run on the target",
                };
                write!(f, "is defined otherwise on the target, {there} ({whose}: {sql})")
            }
        }
    }
}

/// A server's refusal in words.
pub(super) fn refusal(side: Side, action: &str, error: QueryError) -> String {
    Err::<(), _>(error).during(side, action).err().map(|error| error.to_string()).unwrap_or_default()
}
