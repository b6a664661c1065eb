//! In whose name the rows of a table come, against the one they were copied in:
//! somebody has switched `publish_via_partition_root`, or detached a partition.
//!
//! Source: `get_rel_sync_entry` in `src/backend/replication/pgoutput/pgoutput.c`.

use std::collections::HashMap;
use std::fmt;

use super::SourceTable;
use crate::catalog::publication::{Partitions, Published};
use crate::catalog::tables::Shape;
use crate::sql::{TableName, ident};
use crate::state::tables::TableState;

/// The rows of a table that takes part come in another name than they were copied
/// in: somebody has switched `publish_via_partition_root`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Switched {
    /// The table whose partitions it is about.
    pub root: TableName,
    /// In whose name they come by now.
    pub now: Partitions,
    /// The publications that have it so.
    pub publications: Vec<String>,
}

/// Behind a table's name: what is so.
impl fmt::Display for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = &self.root;
        match self.now {
            Partitions::InTheirRootsName => write!(
                f,
                "is published in the name of {root} (publish_via_partition_root), and was not when its rows were copied"
            ),
            Partitions::InTheirOwnName => write!(
                f,
                "is published in the name of single partitions of {root}, and was published in the name of {root} \
                 (publish_via_partition_root) when its rows were copied"
            ),
        }
    }
}

impl Switched {
    /// The SQL that sets the publications as they were.
    pub fn sql(&self) -> String {
        let value = self.now == Partitions::InTheirOwnName;
        let alter =
            |name: &String| format!("ALTER PUBLICATION {} SET (publish_via_partition_root = {value});", ident(name));
        self.publications.iter().map(alter).collect::<Vec<_>>().join(" ")
    }

    /// What mends it.
    pub fn remedy(&self) -> String {
        format!(
            "nothing was skipped: set it as it was ({}) and copy the table anew: walferry resync '{}'",
            self.sql(),
            self.root
        )
    }
}

/// Whether the rows of a table that is streamed come in another name by now. One that
/// was made a partition of another that is streamed is none of these.
pub fn switched(
    table: &SourceTable,
    published: &HashMap<u32, Published>,
    tables: &[SourceTable],
    is_streamed: impl Fn(u32) -> bool,
) -> Option<Switched> {
    if published.contains_key(&table.oid) {
        return None;
    }
    let above = table.ancestors.iter().find_map(|above| Some((above, published.get(&above.oid)?)));
    if let Some((above, published)) = above {
        let (root, publications) = (above.name.clone(), published.names());
        return (!is_streamed(above.oid)).then_some(Switched { root, now: Partitions::InTheirRootsName, publications });
    }
    if table.shape == Shape::Plain {
        return None;
    }
    let comes_itself = |other: &SourceTable| published.get(&other.oid).filter(|_| other.is_below(table.oid));
    let publications = tables.iter().find_map(comes_itself)?.names();
    Some(Switched { root: table.name.clone(), now: Partitions::InTheirOwnName, publications })
}

/// Whether a table whose rows came in the name of another is on its own by now: it
/// was detached.
pub fn is_alone(table: &SourceTable, state: TableState, is_streamed: impl Fn(u32) -> bool) -> bool {
    let has_root = table.ancestors.iter().any(|above| is_streamed(above.oid));
    state == TableState::Within && table.shape == Shape::Plain && !has_root
}
