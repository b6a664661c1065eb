//! In whose name the rows of a table come, against the one they were copied in:
//! somebody has switched `publish_via_partition_root`, or detached a partition.
//!
//! Source: `get_rel_sync_entry` in `src/backend/replication/pgoutput/pgoutput.c`.

use std::collections::HashMap;
use std::fmt;

use super::SourceTable;
use super::publishing::{add_sql, root_in_name};
use crate::catalog::publication::{Partitions, Published};
use crate::catalog::tables::Shape;
use crate::shell;
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
    /// These publish partitions in their root's name: it is this one that they do not have
    /// any more.
    pub is_root_missing: bool,
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
            Partitions::InTheirOwnName if self.is_root_missing => write!(
                f,
                "is published as a partition of {root}, and was published in the name of {root} when its rows were copied, \
                 which is not published any more"
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
    /// Rows come in the name of this partition, and did in that of `root`.
    pub fn in_its_own_name(root: TableName, published: &Published) -> Self {
        let is_root_missing = published.portions.iter().all(|one| one.partitions == Partitions::InTheirRootsName);
        let publications = published.names();
        Switched { root, now: Partitions::InTheirOwnName, publications, is_root_missing }
    }

    /// Rows of partitions come in the name of this root, and did in their own.
    pub fn in_its_roots_name(root: TableName, publications: Vec<String>) -> Self {
        Switched { root, now: Partitions::InTheirRootsName, publications, is_root_missing: false }
    }

    /// The SQL that sets the publications as they were.
    pub fn sql(&self) -> String {
        if self.is_root_missing {
            return add_sql(self.publications.get(..1).unwrap_or_default(), &[self.root.sql()]);
        }
        let value = self.now == Partitions::InTheirOwnName;
        let alter =
            |name: &String| format!("ALTER PUBLICATION {} SET (publish_via_partition_root = {value});", ident(name));
        self.publications.iter().map(alter).collect::<Vec<_>>().join(" ")
    }

    /// What mends it.
    pub fn remedy(&self) -> String {
        format!(
            "nothing was skipped: set it as it was ({}) and copy the table anew: walferry resync {}",
            self.sql(),
            shell::table(&self.root)
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
        return (!is_streamed(above.oid)).then(|| Switched::in_its_roots_name(above.name.clone(), published.names()));
    }
    if table.shape == Shape::Plain {
        return None;
    }
    let comes_itself = |other: &SourceTable| published.get(&other.oid).filter(|_| other.is_below(table.oid));
    Some(Switched::in_its_own_name(table.name.clone(), tables.iter().find_map(comes_itself)?))
}

/// Whether a table whose rows came in the name of another is on its own by now: it was
/// detached. One that has partitions stands for them, if it is published as one, or will be.
pub fn is_alone(
    table: &SourceTable,
    state: TableState,
    (published, tables): (&HashMap<u32, Published>, &[SourceTable]),
    is_streamed: &impl Fn(u32) -> bool,
) -> bool {
    if state != TableState::Within || table.ancestors.iter().any(|above| is_streamed(above.oid)) {
        return false;
    }
    let comes_itself = |oid: u32| published.contains_key(&oid) || is_streamed(oid);
    let will_be_one = || {
        let are_rooted = |of: &Published| of.portions.iter().any(|one| one.partitions == Partitions::InTheirRootsName);
        let mut leaves = tables.iter().filter(|o| o.shape == Shape::Plain && o.is_below(table.oid)).peekable();
        // One without partitions has no rows that could have come.
        published.values().any(are_rooted) && leaves.peek().is_some() && !leaves.any(|leaf| comes_itself(leaf.oid))
    };
    match table.shape {
        Shape::Partitioned => published.contains_key(&table.oid) || table.ancestors.is_empty() && will_be_one(),
        Shape::Plain if table.ancestors.is_empty() => true,
        Shape::Plain => {
            let root = tables.iter().find(|other| table.ancestors.last().is_some_and(|root| root.oid == other.oid));
            root_in_name(published, table).is_none()
                && !root.is_some_and(|root| is_alone(root, state, (published, tables), is_streamed))
        }
    }
}
