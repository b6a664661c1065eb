//! What has to be done before tables of the target are dropped there, or get other names.
//!
//! Invariant: no DROP is printed of what a table that the source still has is a partition
//! of there, or inherits from, unless what lets go of that one is printed before; and none
//! of a parent before those of its children. What has a new name already is named.
//!
//! Source: `heap_drop_with_catalog` in `src/backend/catalog/heap.c`; a partition depends on
//! its root automatically and goes with it, a child as others do, and refuses the DROP
//! (`StoreCatalogInheritance1` in `src/backend/commands/tablecmds.c`).

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use super::gap::{Cause, Gap};
use crate::catalog::named::{self, NAMED};
use crate::catalog::sequences;
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::TableName;
use crate::sql::rename::{Rename, Renamed, rename_sql};
use crate::state::places::TargetTable;
use crate::words::listed;

/// What belongs to another table on the target.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bond {
    parent: TableName,
    child: TableName,
    kind: Kind,
}

/// How it belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Partition,
    Child,
}

impl Bond {
    /// What ends it.
    fn release(&self) -> String {
        let (parent, child) = (self.parent.sql(), self.child.sql());
        match self.kind {
            Kind::Partition => format!("ALTER TABLE {parent} DETACH PARTITION {child}; "),
            Kind::Child => format!("ALTER TABLE {child} NO INHERIT {parent}; "),
        }
    }
}

/// All bonds below these tables.
async fn bonds(target: &Session, tables: &[&TableName]) -> Result<Vec<Bond>, DbError> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let (schemas, names) = named::lists(tables.iter().copied());
    let sql = format!(
        "WITH RECURSIVE below (parent, child) AS (SELECT i.inhparent, i.inhrelid FROM {NAMED} JOIN pg_catalog.pg_inherits i ON i.inhparent = c.oid \
             UNION SELECT i.inhparent, i.inhrelid FROM below JOIN pg_catalog.pg_inherits i ON i.inhparent = below.child) \
         SELECT pn.nspname::text, p.relname::text, cn.nspname::text, c.relname::text, c.relispartition FROM below \
             JOIN pg_catalog.pg_class p ON p.oid = parent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace \
             JOIN pg_catalog.pg_class c ON c.oid = child JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace \
         ORDER BY 1, 2, 3, 4"
    );
    let rows = target.query(&sql, &[&schemas, &names]).await.during(target.side(), "look what belongs to tables")?;
    let bond = |row: &Row| {
        Ok(Bond {
            parent: TableName { schema: row.take(0)?, name: row.take(1)? },
            child: TableName { schema: row.take(2)?, name: row.take(3)? },
            kind: if row.take(4)? { Kind::Partition } else { Kind::Child },
        })
    };
    rows.iter().map(bond).collect()
}

/// The bonds that a DROP of a table needs ended: of what is to stay below it, and of
/// children that have no DROP of their own. Partitions that are not to stay go with it.
fn to_end<'b>(top: &TableName, bonds: &'b [Bond], fates: &Fates<'_>) -> Vec<&'b Bond> {
    let (mut found, mut left, mut seen) = (Vec::new(), vec![top], HashSet::new());
    while let Some(parent) = left.pop() {
        for bond in bonds.iter().filter(|bond| bond.parent == *parent && !fates.dropped.contains(&bond.child)) {
            if bond.kind == Kind::Child || fates.kept.contains(&bond.child) {
                found.push(bond);
            } else if seen.insert(&bond.child) {
                left.push(&bond.child);
            }
        }
    }
    found
}

/// What becomes of tables of the target.
struct Fates<'a> {
    /// Those whose counterparts the source still has.
    kept: &'a HashSet<TableName>,
    /// Those that a DROP is printed for.
    dropped: HashSet<&'a TableName>,
}

/// How many levels of `bonds` a table is below the uppermost one.
fn depth(table: &TableName, bonds: &[Bond]) -> usize {
    let (mut depth, mut level) = (0, vec![table]);
    // In no more levels than there are bonds.
    while depth < bonds.len() {
        let above = bonds.iter().filter(|bond| level.contains(&&bond.child)).map(|bond| &bond.parent);
        let above: HashSet<&TableName> = above.collect();
        if above.is_empty() {
            break;
        }
        (depth, level) = (depth + 1, above.into_iter().collect());
    }
    depth
}

/// What tables of the target are let go of before they are dropped.
struct Below {
    bonds: Vec<Bond>,
    /// What lets go of the sequences that others call.
    sequences: HashMap<TableName, String>,
}

impl Below {
    async fn read(target: &Session, dropped: &[&TableName]) -> Result<Self, DbError> {
        let sequences = sequences::releases(target, dropped.iter().copied()).await?;
        Ok(Below { bonds: bonds(target, dropped).await?, sequences })
    }

    /// What goes before the DROP TABLE of a table, as SQL.
    fn release(&self, table: &TableName, fates: &Fates<'_>, is_said: impl Fn(&Bond) -> bool) -> String {
        let ended = to_end(table, &self.bonds, fates).into_iter().filter(|bond| !is_said(bond));
        let ended: String = ended.map(Bond::release).collect();
        ended + self.sequences.get(table).map(String::as_str).unwrap_or_default()
    }
}

/// The tables of the target whose counterparts the source still has.
pub fn kept<'t>(there: impl IntoIterator<Item = &'t TargetTable>, has: impl Fn(u32) -> bool) -> HashSet<TableName> {
    there.into_iter().filter(|there| has(there.source_oid)).map(|there| there.name.clone()).collect()
}

/// The DROP TABLE of a table of the target, behind that of its children which the source
/// has no more, and behind what lets go of those that are to stay.
///
/// # Errors
/// When the target cannot be asked.
pub async fn drop_sql(
    target: &Session,
    table: &TableName,
    there: &[TargetTable],
    has: impl Fn(u32) -> bool,
) -> Result<String, DbError> {
    let kept = kept(there, &has);
    let is_gone = |name: &TableName| !kept.contains(name) && there.iter().any(|there| there.name == *name);
    let bonds = bonds(target, &[table]).await?;
    let gone = bonds.iter().filter(|bond| bond.kind == Kind::Child && is_gone(&bond.child)).map(|bond| &bond.child);
    let gone: HashSet<&TableName> = gone.chain([table]).collect();
    let mut dropped: Vec<&TableName> = gone.iter().copied().collect();
    dropped.sort_by_key(|table| (Reverse(depth(table, &bonds)), *table));
    let below = Below::read(target, &dropped).await?;
    let fates = Fates { kept: &kept, dropped: gone };
    let sql = |table: &&TableName| format!("{}DROP TABLE {};", below.release(table, &fates, |_| false), table.sql());
    Ok(dropped.iter().map(sql).collect::<Vec<_>>().join(" "))
}

/// Fills in what goes before the DROP of tables, and puts these into an order that works;
/// what the statements of other gaps end, which come before, is left out.
///
/// # Errors
/// When the target cannot be asked.
pub async fn with_releases(target: &Session, gaps: &mut [Gap], kept: &HashSet<TableName>) -> Result<(), DbError> {
    let has_drop = |gap: &&Gap| matches!(gap.cause, Cause::Dropped { within: None, .. } | Cause::CreatedAgain { .. });
    let dropped: Vec<TableName> = gaps.iter().filter(has_drop).map(|gap| gap.table.clone()).collect();
    if dropped.is_empty() {
        return Ok(());
    }
    let tables: Vec<&TableName> = dropped.iter().collect();
    let below = Below::read(target, &tables).await?;
    let fates = Fates { kept, dropped: tables.iter().copied().collect() };
    let is_said = |bond: &Bond| gaps.iter().any(|gap| lets_go(gap, bond));
    let release = |table: &TableName| (table.clone(), below.release(table, &fates, is_said));
    let releases: HashMap<TableName, String> = dropped.iter().map(release).collect();
    let depths: HashMap<&TableName, usize> =
        tables.into_iter().map(|table| (table, depth(table, &below.bonds))).collect();
    for gap in gaps.iter_mut() {
        if let (Cause::Dropped { release, .. } | Cause::CreatedAgain { release, .. }, Some(sql)) =
            (&mut gap.cause, releases.get(&gap.table))
        {
            release.clone_from(sql);
        }
    }
    gaps.sort_by_key(|gap| (gap.turn(), Reverse(depths.get(&gap.table).copied())));
    Ok(())
}

/// Whether the statements of a gap end a bond.
fn lets_go(gap: &Gap, bond: &Bond) -> bool {
    let parents: Vec<&TableName> = match &gap.cause {
        Cause::Attached { target, .. } => target.iter().map(|home| &home.parent).collect(),
        Cause::Inherits { extra, .. } => extra.iter().collect(),
        _ => return false,
    };
    gap.table == bond.child && parents.contains(&&bond.parent)
}

/// Those of the new names that something on the target has which is none of its tables
/// `there`.
///
/// # Errors
/// When the target cannot be asked.
pub async fn strangers(
    target: &Session,
    renames: &[Rename],
    there: impl IntoIterator<Item = &TargetTable>,
) -> Result<HashSet<TableName>, DbError> {
    let names: HashSet<&TableName> = there.into_iter().map(|there| &there.name).collect();
    let wanted: Vec<&TableName> = renames.iter().map(|rename| &rename.to).filter(|to| !names.contains(to)).collect();
    if wanted.is_empty() {
        return Ok(HashSet::new());
    }
    Ok(named::kinds(target, wanted).await?.into_keys().collect())
}

/// The statements that give tables of the target these names, behind the DROP of those that
/// have one of them and whose counterparts are gone; what else has one is named before.
///
/// # Errors
/// When the target cannot be asked.
pub async fn rename_sql_with_drops(
    target: &Session,
    renames: &[Rename],
    there: &[TargetTable],
    has: impl Fn(u32) -> bool,
) -> Result<String, DbError> {
    let is_in_the_way = |there: &&TargetTable| renames.iter().any(|rename| rename.to == there.name);
    let dropped = there.iter().filter(is_in_the_way).filter(|there| !has(there.source_oid));
    let mut statements = Vec::new();
    for table in dropped {
        statements.push(drop_sql(target, &table.name, there, &has).await?);
    }
    statements.push(rename_sql(Renamed::Table, renames, |name| there.iter().any(|other| other.name == *name)));
    let strangers = strangers(target, renames, there).await?;
    let before = if strangers.is_empty() { String::new() } else { format!("({}) ", first_away(&strangers)) };
    Ok(before + &statements.join(" "))
}

/// For people: that these are in the way.
pub fn first_away<'n>(strangers: impl IntoIterator<Item = &'n TableName>) -> String {
    let mut strangers: Vec<&TableName> = strangers.into_iter().collect();
    strangers.sort();
    let (are, them) = if strangers.len() == 1 { ("is", "it") } else { ("are", "them") };
    format!("{} {are} in the way there, and not the migration's: rename or drop {them} first", listed(&strangers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> TableName {
        TableName::new("s", name)
    }

    fn bond(parent: &str, child: &str, kind: Kind) -> Bond {
        Bond { parent: name(parent), child: name(child), kind }
    }

    #[test]
    fn what_is_to_stay_is_let_go_of_where_it_is_and_what_goes_along_or_before_is_not() {
        let bonds = [
            bond("p", "kept", Kind::Partition),
            bond("p", "mid", Kind::Partition),
            bond("mid", "deep", Kind::Partition),
            bond("mid", "gone", Kind::Partition),
            bond("kept", "below_kept", Kind::Partition),
            bond("a", "b", Kind::Child),
            bond("b", "c", Kind::Child),
            bond("a", "stranger", Kind::Child),
        ];
        let kept: HashSet<TableName> = ["kept", "deep", "below_kept", "c"].map(name).into();
        let dropped = ["p", "a", "b"].map(name);
        let fates = Fates { kept: &kept, dropped: dropped.iter().collect() };
        let below = Below { bonds: bonds.to_vec(), sequences: HashMap::new() };
        let release = |table: &str| below.release(&name(table), &fates, |_| false).replace('"', "");
        assert_eq!(
            release("p"),
            "ALTER TABLE s.p DETACH PARTITION s.kept; ALTER TABLE s.mid DETACH PARTITION s.deep; "
        );
        assert_eq!(release("a"), "ALTER TABLE s.stranger NO INHERIT s.a; ");
        assert_eq!(release("b"), "ALTER TABLE s.c NO INHERIT s.b; ");
        assert_eq!(below.release(&name("b"), &fates, |bond| bond.child == name("c")), "");
        let depths = ["a", "b", "c", "gone"].map(|table| depth(&name(table), &bonds));
        assert_eq!(depths, [0, 1, 2, 2]);
    }
}
