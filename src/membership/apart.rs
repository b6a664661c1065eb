//! Tables of an operator's own schema that are no partitions, or no children, there of what
//! they are on the source: what a root shows of them there is less.
//!
//! Invariant: nothing is said where the target parts the rows itself: where it lacks one of
//! the two, or gets the rows in the root's name.

use std::collections::{HashMap, HashSet};

use super::SourceTable;
use super::publishing::root_in_name;
use crate::catalog::publication::Published;
use crate::catalog::tables::{Shape, Table};
use crate::sql::TableName;

/// A table that stands apart on the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apart {
    /// Its name.
    pub table: TableName,
    /// What it belongs to on the source.
    pub parent: TableName,
    /// The SQL that makes it so; none where the table between the two is not there.
    pub sql: Option<String>,
}

/// Those of the source's tables that take part, by name.
pub fn apart(ours: &[SourceTable], published: &HashMap<u32, Published>, there: &[Table]) -> Vec<Apart> {
    let here: HashMap<u32, &SourceTable> = ours.iter().map(|table| (table.oid, table)).collect();
    let names: HashMap<&TableName, &Table> = there.iter().map(|table| (&table.name, table)).collect();
    let oids: HashMap<u32, &Table> = there.iter().map(|table| (table.oid, table)).collect();
    let comes_itself = |table: &&SourceTable| root_in_name(published, table).is_none();
    let mut found = Vec::new();
    for table in ours.iter().filter(|table| table.takes_part()).filter(comes_itself) {
        let Some(own) = names.get(&table.name) else { continue };
        let above = above(own, &oids);
        let is_parted = |name: &TableName| names.get(name).is_some_and(|root| root.shape == Shape::Partitioned);
        let root = table.ancestors.iter().position(|root| is_parted(&root.name));
        let root = root.and_then(|place| Some((table.ancestors.get(place)?, place == 0)));
        if let Some((root, is_next)) = root.filter(|(root, _)| !above.contains(&root.name)) {
            let sql = Some(own).filter(|_| is_next).and_then(|own| attach(table, own, &root.name));
            found.push(Apart { table: table.name.clone(), parent: root.name.clone(), sql });
        }
        let parents = table.parents.iter().filter_map(|oid| here.get(oid)).filter(|parent| parent.takes_part());
        let parents = parents.map(|parent| &parent.name);
        for parent in parents.filter(|parent| names.contains_key(parent) && !above.contains(parent)) {
            let sql = format!("ALTER TABLE {} INHERIT {};", table.name.sql(), parent.sql());
            found.push(Apart { table: table.name.clone(), parent: parent.clone(), sql: Some(sql) });
        }
    }
    found.sort_by(|a, b| (&a.table, &a.parent).cmp(&(&b.table, &b.parent)));
    found
}

/// All that a table of the target is a partition of, or inherits from.
fn above<'t>(table: &'t Table, oids: &HashMap<u32, &'t Table>) -> HashSet<&'t TableName> {
    let (mut above, mut left) = (HashSet::new(), table.above());
    while let Some(oid) = left.pop() {
        if let Some(parent) = oids.get(&oid).filter(|parent| above.insert(&parent.name)) {
            left.extend(parent.above());
        }
    }
    above
}

fn attach(table: &SourceTable, own: &Table, root: &TableName) -> Option<String> {
    let (bounds, name) = (table.bounds.as_deref()?, table.name.sql());
    let detach = |from: &TableName| format!("ALTER TABLE {} DETACH PARTITION {name}; ", from.sql());
    let detach = own.ancestors.first().map(|from| detach(&from.name)).unwrap_or_default();
    Some(format!("{detach}ALTER TABLE {} ATTACH PARTITION {name} {bounds};", root.sql()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tables::{Identity, Named, Persistence, Rights};
    use crate::membership::Part;

    fn name(name: &str) -> TableName {
        TableName::new("s", name)
    }

    fn table(oid: u32, named: &str, shape: Shape, above: &[(u32, &str)]) -> Table {
        let ancestors: Vec<Named> = above.iter().map(|(oid, above)| Named { oid: *oid, name: name(above) }).collect();
        Table {
            name: name(named),
            oid,
            shape,
            persistence: Persistence::Permanent,
            is_of_extension: false,
            bounds: (!ancestors.is_empty()).then(|| "DEFAULT".to_owned()),
            ancestors,
            links: Vec::new(),
            parents: Vec::new(),
            filenode: oid,
            parts: 0,
            identity: Identity::Usable,
            is_told_whole: false,
            leaves_values_out: false,
            rights: Rights { is_owned: true, may_read: true, may_use_schema: true, has_policies: false },
            bytes: 0,
            columns: Vec::new(),
        }
    }

    fn child(oid: u32, named: &str, parent: u32) -> Table {
        Table { parents: vec![parent], ..table(oid, named, Shape::Plain, &[]) }
    }

    #[test]
    fn what_the_target_has_apart_is_told_with_the_sql_and_what_it_parts_itself_is_not() {
        let (plain, parted) = (Shape::Plain, Shape::Partitioned);
        let ours = [
            table(1, "p", parted, &[]),
            table(2, "m", parted, &[(1, "p")]),
            table(3, "leaf", plain, &[(2, "m"), (1, "p")]),
            table(4, "lost", plain, &[(9, "absent"), (1, "p")]),
            table(5, "elsewhere", plain, &[(1, "p")]),
            table(6, "below", plain, &[(1, "p")]),
            table(7, "gone", plain, &[(1, "p")]),
            table(8, "a", plain, &[]),
            child(10, "b", 8),
            child(11, "c", 8),
        ];
        let ours = ours.map(|table| SourceTable { part: Part::Included, table });
        let there = [
            table(101, "p", parted, &[]),
            table(102, "m", parted, &[]),
            table(103, "leaf", plain, &[(102, "m")]),
            table(104, "lost", plain, &[]),
            table(105, "elsewhere", plain, &[(102, "m")]),
            table(120, "own", parted, &[(101, "p")]),
            table(106, "below", plain, &[(120, "own"), (101, "p")]),
            table(108, "a", plain, &[]),
            child(110, "b", 130),
            child(130, "own_child", 108),
            child(111, "c", 199),
        ];
        let found: Vec<String> = apart(&ours, &HashMap::new(), &there)
            .into_iter()
            .map(|one| format!("{} {}: {}", one.table, one.parent, one.sql.unwrap_or_default().replace('"', "")))
            .collect();
        assert_eq!(
            found,
            [
                "s.c s.a: ALTER TABLE s.c INHERIT s.a;",
                "s.elsewhere s.p: ALTER TABLE s.m DETACH PARTITION s.elsewhere; ALTER TABLE s.p ATTACH PARTITION s.elsewhere DEFAULT;",
                "s.lost s.p: ",
                "s.m s.p: ALTER TABLE s.p ATTACH PARTITION s.m DEFAULT;",
            ]
        );
    }
}
