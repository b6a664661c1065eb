//! Where tables are: what the target has of them by now, and what each of the source's
//! belonged to when it was copied first.

use std::collections::HashMap;

use super::{State, StateError};
use crate::catalog::named::oid_of;
use crate::session::Row;
use crate::sql::TableName;

/// A table of the target.
#[derive(Clone, Debug)]
pub struct TargetTable {
    /// The oid of its counterpart.
    pub source_oid: u32,
    /// Its name.
    pub name: TableName,
    /// The table that it is a partition of: by the oid of that one's counterpart, and by name.
    pub parent: Option<(Option<u32>, TableName)>,
    /// Its bounds as a partition, in the server's words.
    pub bounds: Option<String>,
    /// Whether it is a partitioned table without a partition.
    pub is_bare_root: bool,
    /// The counterparts, by oid, of the tables that it inherits from.
    pub inherits: Vec<u32>,
}

/// What a table belonged to on the source: nothing, if it came after the first copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Former {
    /// The tables that it was a partition of, or inherited from, by their oids.
    pub parents: Vec<u32>,
    /// Its bounds, in the server's words, as far as they are known.
    pub bounds: Option<String>,
}

impl State {
    /// The target's tables that those of the source, by their oids there, were
    /// copied to, as far as they are there: each with its present name and the
    /// table that it is a partition of, by the oid of its counterpart and by name.
    /// One that was made anew on the target is known by its name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn target_tables(&self) -> Result<Vec<TargetTable>, StateError> {
        let rows = self
            .query(
                &format!("SELECT t.source_oid, n.nspname::text, c.relname::text, p.source_oid, pn.nspname::text, pc.relname::text, \
                     ARRAY(SELECT o.source_oid FROM pg_catalog.pg_inherits h JOIN walferry.tables o ON o.migration = t.migration \
                         AND o.target_oid = h.inhparent WHERE h.inhrelid = c.oid AND NOT c.relispartition), \
                     pg_catalog.pg_get_expr(c.relpartbound, 0), \
                     c.relkind = 'p' AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhparent = c.oid) \
                 FROM (SELECT source_oid, migration, CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_class o WHERE o.oid = target_oid) \
                     THEN target_oid ELSE (SELECT named.oid FROM {} \
                         AS named (oid) WHERE NOT EXISTS (SELECT FROM walferry.tables o WHERE o.target_oid = named.oid)) END AS oid \
                     FROM walferry.tables) AS t \
                 JOIN pg_catalog.pg_class c ON c.oid = t.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                 LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid AND c.relispartition \
                 LEFT JOIN pg_catalog.pg_class pc ON pc.oid = i.inhparent LEFT JOIN pg_catalog.pg_namespace pn ON pn.oid = pc.relnamespace \
                 LEFT JOIN walferry.tables p ON p.migration = t.migration AND p.target_oid = pc.oid \
                 WHERE t.migration = $1", oid_of("schema", "name")),
                &[&self.name()],
                "look for the tables of the target",
            )
            .await?;
        let table = |row: &Row| {
            let parent = row.take::<Option<String>>(4)?.zip(row.take::<Option<String>>(5)?);
            let parent = parent.map(|(schema, name)| TableName { schema, name });
            let counterpart: Option<u32> = row.take(3)?;
            Ok(TargetTable {
                source_oid: row.take(0)?,
                name: TableName { schema: row.take(1)?, name: row.take(2)? },
                parent: parent.map(|name| (counterpart, name)),
                inherits: row.take(6)?,
                bounds: row.take(7)?,
                is_bare_root: row.take(8)?,
            })
        };
        rows.iter().map(table).collect()
    }

    /// The names of [`State::target_tables`], by the oids of their counterparts.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn names_there(&self) -> Result<HashMap<u32, TableName>, StateError> {
        Ok(self.target_tables().await?.into_iter().map(|there| (there.source_oid, there.name)).collect())
    }

    /// What each table belonged to when it was copied first, by oids.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn former_places(&self) -> Result<HashMap<u32, Former>, StateError> {
        let sql =
            "SELECT source_oid, parents, bounds FROM walferry.tables WHERE migration = $1 AND parents IS NOT NULL";
        let rows = self.query(sql, &[&self.name()], "read what the tables belonged to").await?;
        rows.iter().map(|row| Ok((row.take(0)?, Former { parents: row.take(1)?, bounds: row.take(2)? }))).collect()
    }

    /// Records that tables came after the first copy: they belonged to nothing then.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn came_later(&self, source_oids: &[u32]) -> Result<(), StateError> {
        let sql = "UPDATE walferry.tables SET parents = '{}' WHERE migration = $1 AND source_oid = ANY ($2::oid[])";
        self.execute(sql, &[&self.name(), &source_oids], "record tables that came later").await?;
        Ok(())
    }
}
