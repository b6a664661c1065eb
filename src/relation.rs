//! What the source's relations look like: the newest Relation message by oid.
//!
//! Invariant: an entry is replaced as a whole by every Relation message that
//! differs from it and kept, the same `Arc`, by every one that does not; so
//! two changes with the same `Arc` have the same columns, and a relation that
//! was merely announced again costs nothing downstream.
//!
//! Source: `logicalrep_relmap_update` in
//! `src/backend/replication/logical/relation.c`. A Relation message knows
//! neither nullability, defaults, constraints nor the primary key's name, and
//! a renamed column looks like one dropped and one added.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pgoutput::{KeyColumn, RelationColumn, RelationMessage, ReplicaIdentity};
use crate::sql::TableName;

/// A published table as its rows come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Its oid on the source.
    pub id: u32,
    /// Its name, on the source and, mapped by name, on the target.
    pub table: TableName,
    /// How the source identifies old rows.
    pub replica_identity: ReplicaIdentity,
    /// The published columns, in the order of the rows.
    pub columns: Vec<RelationColumn>,
}

impl Relation {
    /// The columns of the replica identity with their places in a row. All of
    /// them under [`ReplicaIdentity::Full`], none under
    /// [`ReplicaIdentity::Nothing`].
    pub fn key_columns(&self) -> impl Iterator<Item = (usize, &RelationColumn)> {
        self.columns.iter().enumerate().filter(|(_, column)| column.key == KeyColumn::Yes)
    }
}

impl From<RelationMessage> for Relation {
    fn from(message: RelationMessage) -> Self {
        let RelationMessage { xid: _, id, schema, name, replica_identity, columns } = message;
        Relation { id, table: TableName { schema, name }, replica_identity, columns }
    }
}

/// The relations of one connection. The server announces each relation anew
/// on a new connection, so a cache must not outlive its own. Bounded by the
/// number of published tables.
#[derive(Debug, Default)]
pub struct RelationCache {
    relations: HashMap<u32, Arc<Relation>>,
}

impl RelationCache {
    /// An empty cache, for a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what a Relation message says.
    pub fn install(&mut self, message: RelationMessage) {
        let relation = Relation::from(message);
        match self.relations.get(&relation.id) {
            Some(known) if **known == relation => {}
            Some(_) | None => {
                self.relations.insert(relation.id, Arc::new(relation));
            }
        }
    }

    /// The relation with this oid, if it has been announced.
    pub fn get(&self, id: u32) -> Option<&Arc<Relation>> {
        self.relations.get(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, key: KeyColumn) -> RelationColumn {
        RelationColumn { key, name: name.to_owned(), type_oid: 23, type_modifier: -1 }
    }

    fn message(columns: Vec<RelationColumn>) -> RelationMessage {
        RelationMessage {
            xid: None,
            id: 7,
            schema: "public".to_owned(),
            name: "orders".to_owned(),
            replica_identity: ReplicaIdentity::Default,
            columns,
        }
    }

    #[test]
    fn a_relation_announced_again_unchanged_stays_the_same_one() {
        let mut cache = RelationCache::new();
        cache.install(message(vec![column("id", KeyColumn::Yes)]));
        let before = cache.get(7).unwrap().clone();
        cache.install(RelationMessage { xid: Some(5), ..message(vec![column("id", KeyColumn::Yes)]) });
        assert!(Arc::ptr_eq(&before, cache.get(7).unwrap()));
    }

    #[test]
    fn a_relation_that_differs_replaces_the_old_one_as_a_whole() {
        let mut cache = RelationCache::new();
        cache.install(message(vec![column("id", KeyColumn::Yes), column("a", KeyColumn::No)]));
        let before = cache.get(7).unwrap().clone();
        cache.install(message(vec![column("b", KeyColumn::No), column("id", KeyColumn::Yes)]));
        let after = cache.get(7).unwrap();
        assert!(!Arc::ptr_eq(&before, after));
        assert_eq!(after.columns.len(), 2);
        assert_eq!(before.columns[1].name, "a", "who holds the old one keeps it");
        assert_eq!(after.key_columns().map(|(at, column)| (at, column.name.as_str())).collect::<Vec<_>>(), [(1, "id")]);
        assert_eq!(cache.get(8), None);
    }
}
