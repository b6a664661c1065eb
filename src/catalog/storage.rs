//! Whether a snapshot still shows a table as it was.
//!
//! | since the snapshot | it shows |
//! |---|---|
//! | rows changed | what the table held |
//! | TRUNCATE, ALTER TABLE that writes it anew | an empty table: neither is MVCC-safe |
//! | VACUUM FULL, CLUSTER, SET TABLESPACE | the rows, in other places |
//! | a partition detached or attached | other rows |
//! | dropped, renamed | nothing, or another table |
//!
//! All but the first give the table or its TOAST table another file, another
//! name or other partitions. In a transaction whose snapshot is an older one,
//! `pg_class` is read as the snapshot has it, while `pg_relation_filenode`,
//! `to_regclass` and `pg_partition_tree` go by the catalogs as they are: what a
//! COPY in that transaction goes by, too.
//!
//! Invariant: the comparison is made under the lock that the rows are read
//! under, so what is found equal stays so until they are read. Nothing is read
//! by a name before it is known to be a table's ([`held`]).
//!
//! Source: "Caveats" in the manual's chapter on MVCC; `ExecuteTruncateGuts` and
//! `ATRewriteTables` in `src/backend/commands/tablecmds.c`; `pg_relation_filenode`
//! in `src/backend/utils/adt/dbsize.c` (by the syscache, so as of now).

use super::held;
use super::tables::Shape;
use crate::sql::{TableName, literal};

/// SQL for the simple protocol, to be run in a transaction with an older
/// snapshot: locks the table (ACCESS SHARE) until that ends, and answers one
/// value, true if the snapshot shows the table as it was.
///
/// The files are those of a table itself (what inherits from it is another table), or of a
/// partitioned table's partitions, of all levels.
pub fn lock_and_compare(table: &TableName, oid: u32, shape: Shape) -> String {
    let only = super::tables::only(shape);
    // The partitions' locks are taken by the planner, once the root is held.
    format!("{}; SELECT FROM {only}{} LIMIT 0; {}", held::hold(shape, table), table.sql(), compare(table, oid, shape))
}

/// The comparison alone, of what nobody has locked.
pub fn compare(table: &TableName, oid: u32, shape: Shape) -> String {
    let oids = match shape {
        Shape::Plain => format!("SELECT '{oid}'::pg_catalog.oid"),
        Shape::Partitioned => partitions(oid),
    };
    let whole = match shape {
        Shape::Plain => "true".to_owned(),
        Shape::Partitioned => format!(
            "(SELECT pg_catalog.array_agg(oid ORDER BY oid) FROM seen) = (SELECT pg_catalog.array_agg(relid::pg_catalog.oid \
             ORDER BY relid::pg_catalog.oid) FROM pg_catalog.pg_partition_tree('{oid}'::pg_catalog.regclass))"
        ),
    };
    let name = literal(&table.text());
    format!(
        "WITH RECURSIVE seen (oid) AS ({oids}) \
         SELECT coalesce(pg_catalog.to_regclass({name})::pg_catalog.oid = '{oid}'::pg_catalog.oid \
             AND pg_catalog.bool_and(c.relfilenode = coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)) AND {whole}, false) \
         FROM pg_catalog.pg_class c WHERE c.oid = ANY (ARRAY(SELECT oid FROM seen UNION ALL \
             SELECT t.reltoastrelid FROM seen JOIN pg_catalog.pg_class t USING (oid) WHERE t.reltoastrelid <> 0))"
    )
}

/// A partitioned table with its partitions of all levels, as the snapshot has them.
fn partitions(oid: u32) -> String {
    format!(
        "SELECT '{oid}'::pg_catalog.oid UNION SELECT i.inhrelid FROM seen \
         JOIN pg_catalog.pg_inherits i ON i.inhparent = seen.oid"
    )
}
