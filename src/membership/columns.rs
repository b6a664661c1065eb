//! Which column of the target is which of the source, whatever their names are by now.
//!
//! Invariant: a column is known by its number (`pg_attribute.attnum`), which a rename
//! leaves alone and which is never given again; the pairs are those of the moment when
//! the table was copied. So a rename, an exchange of names, and a column that was dropped
//! and made again under its name are three things, and each is mended by other SQL. A
//! column that came later is paired with the target's of its name, unless that is the
//! pair of another one.

use std::collections::{HashMap, HashSet};

use super::placement::Hierarchy;
use crate::catalog::tables::Column;
use crate::catalog::types::is_built_in;
use crate::sql::rename::{Rename, Renamed, rename_sql};
use crate::sql::{TableName, ident};

/// The number of a column on the source, and on the target.
pub type Pair = (i16, i16);

/// How a column differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference<'a> {
    /// It has another name on the target.
    Renamed {
        /// Its name on the target.
        from: &'a str,
        /// Its name on the source.
        to: &'a str,
    },
    /// The target has none that is this one.
    Lacks(&'a Column),
    /// The source has it no more, and another column there has its name.
    InTheWay(&'a str),
    /// The target's is of another type, or computed, or not.
    Unlike {
        /// The source's.
        column: &'a Column,
        /// The target's.
        there: &'a Column,
    },
}

/// What a comparison found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Compared<'a> {
    /// What differs, in the order of the source's columns.
    pub differences: Vec<Difference<'a>>,
    /// Pairs that are to be kept from now on.
    pub met: Vec<Pair>,
    /// Types that differ and lose nothing: the target's may be so on purpose.
    pub retyped: Vec<Difference<'a>>,
    /// A column that is paired now may have other values in older rows: it stands for one
    /// that was dropped, on the target alone or on both sides, whose changes may have been
    /// written to it or are gone with it; it was the operator's own before; or it was not
    /// added with what the older rows have on the source.
    pub is_doubted: bool,
}

/// Compares a table's columns; of an own hierarchy (`--schema existing`) only what is in
/// the way of the rows.
pub fn compare<'a>(source: &'a [Column], target: &'a [Column], pairs: &[Pair], hierarchy: Hierarchy) -> Compared<'a> {
    let there: HashMap<i16, &Column> = target.iter().map(|column| (column.number, column)).collect();
    let here: HashSet<i16> = source.iter().map(|column| column.number).collect();
    let counterpart: HashMap<i16, &Column> =
        pairs.iter().filter_map(|(ours, theirs)| Some((*ours, *there.get(theirs)?))).collect();
    // Whose pair a column of the target is.
    let owner: HashMap<i16, i16> = pairs.iter().map(|(ours, theirs)| (*theirs, *ours)).collect();
    let is_gone = |pair: &Pair| !here.contains(&pair.0) && !there.contains_key(&pair.1);
    let mut compared = Compared::default();
    let mut wanted = HashSet::new();
    for column in source {
        let known = counterpart.get(&column.number).copied();
        let found = known.or_else(|| target.iter().find(|t| t.name == column.name && !owner.contains_key(&t.number)));
        match found {
            Some(found) => {
                if known.is_none() {
                    compared.met.push((column.number, found.number));
                    let is_another = |pair: &Pair| pair.0 == column.number || is_gone(pair);
                    let came_later = !pairs.is_empty() && !column.is_generated;
                    let is_as_added = hierarchy == Hierarchy::Same && column.missing == found.missing;
                    compared.is_doubted |= pairs.iter().any(is_another) || came_later && !is_as_added;
                }
                if found.name != column.name {
                    wanted.insert(column.name.as_str());
                    compared.differences.push(Difference::Renamed { from: &found.name, to: &column.name });
                }
                let unlike = Difference::Unlike { column, there: found };
                if is_unlike(column, found, hierarchy) {
                    compared.differences.push(unlike);
                } else if is_built_in(column.below) && is_built_in(found.below) && column.below != found.below {
                    compared.retyped.push(unlike);
                }
            }
            None if column.is_generated && hierarchy == Hierarchy::Own => {}
            None => {
                wanted.insert(column.name.as_str());
                compared.differences.push(Difference::Lacks(column));
            }
        }
    }
    let is_left = |column: &&Column| owner.get(&column.number).is_some_and(|ours| !here.contains(ours));
    let in_the_way = target.iter().filter(is_left).filter(|column| wanted.contains(column.name.as_str()));
    let in_the_way: Vec<Difference<'a>> = in_the_way.map(|column| Difference::InTheWay(&column.name)).collect();
    compared.differences.splice(..0, in_the_way);
    compared
}

fn is_unlike(column: &Column, there: &Column, hierarchy: Hierarchy) -> bool {
    match (hierarchy, column.is_generated, there.is_generated) {
        (Hierarchy::Own, ours, theirs) if ours || theirs => false,
        (Hierarchy::Same, ours, theirs) if ours != theirs => true,
        _ => column.below.loses_in(there.below),
    }
}

/// The statements that mend it, in their order. `table` is where an ALTER reaches the
/// column; `adds` has the statements for the columns that lack, by name.
pub fn sql(table: &TableName, differences: &[Difference<'_>], adds: &HashMap<String, String>) -> Vec<String> {
    let (mut drops, mut renames, mut others) = (Vec::new(), Vec::new(), Vec::new());
    let alter = |what: String| format!("ALTER TABLE {} {what};", table.sql());
    let name = |column: &str| TableName::new("", column);
    for difference in differences {
        match difference {
            Difference::InTheWay(column) => drops.push(alter(format!("DROP COLUMN {}", ident(column)))),
            Difference::Renamed { from, to } => renames.push(Rename { from: name(from), to: name(to) }),
            Difference::Lacks(column) => others.extend(adds.get(&column.name).cloned()),
            Difference::Unlike { column, there } if there.is_generated && !column.is_generated => {
                others.push(alter(format!("ALTER COLUMN {} DROP EXPRESSION", ident(&column.name))));
            }
            Difference::Unlike { column, there } if column.is_generated && !there.is_generated => {
                others.push(alter(format!("DROP COLUMN {}", ident(&column.name))));
                others.extend(adds.get(&column.name).cloned());
            }
            Difference::Unlike { column, .. } => {
                others.push(alter(format!("ALTER COLUMN {} TYPE {}", ident(&column.name), column.below_sql)));
            }
        }
    }
    let renamed =
        if renames.is_empty() { String::new() } else { rename_sql(Renamed::Column(table), &renames, |_| false) };
    drops.into_iter().chain((!renamed.is_empty()).then_some(renamed)).chain(others).collect()
}

/// The differences of a table that none above it has as well: an ALTER TABLE of that one
/// reaches this one. `above` has those of the tables above.
pub fn own<'a>(of_table: &[Difference<'a>], above: &[&[Difference<'a>]]) -> Vec<Difference<'a>> {
    let is_same = |one: &Difference<'_>, other: &Difference<'_>| match (one, other) {
        (Difference::Lacks(one), Difference::Lacks(other)) => one.name == other.name,
        (Difference::Unlike { column: one, .. }, Difference::Unlike { column: other, .. }) => one.name == other.name,
        _ => one == other,
    };
    let is_own = |one: &&Difference<'_>| !above.iter().flat_map(|of| of.iter()).any(|other| is_same(one, other));
    of_table.iter().filter(is_own).copied().collect()
}

/// The columns whose definition on the source is wanted for [`sql`].
pub fn to_add<'a>(differences: &[Difference<'a>]) -> impl Iterator<Item = &'a str> {
    differences
        .iter()
        .filter_map(|difference| match difference {
            Difference::Lacks(column) => Some(column.name.as_str()),
            Difference::Unlike { column, there } if column.is_generated && !there.is_generated => {
                Some(column.name.as_str())
            }
            _ => None,
        })
        .collect::<Vec<_>>()
        .into_iter()
}

/// Columns of a Relation message, which come in the order of their numbers, with these.
/// `now` are all columns by now. `None` when the two cannot be told together: columns
/// came or went since.
pub fn numbered(names: &[&str], now: &[Column], pairs: &[Pair]) -> Option<Vec<Column>> {
    let mut rest = now.iter();
    let by_name: Option<Vec<Column>> =
        names.iter().map(|name| rest.find(|column| column.name == *name).cloned()).collect();
    if by_name.is_some() {
        return by_name;
    }
    // Renames alone leave the numbers as they are.
    let paired: HashSet<i16> = pairs.iter().map(|(ours, _)| *ours).collect();
    let sent: Vec<&Column> = now.iter().filter(|column| !column.is_generated).collect();
    let only_renamed = names.len() == sent.len() && sent.iter().all(|column| paired.contains(&column.number));
    let renamed = |(column, name): (&&Column, &&str)| Column { name: (*name).to_owned(), ..(*column).clone() };
    only_renamed.then(|| sent.iter().zip(names).map(renamed).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::types::ColumnType;

    fn column(number: i16, name: &str) -> Column {
        Column {
            number,
            name: name.to_owned(),
            type_oid: 23,
            type_sql: "integer".to_owned(),
            below: ColumnType { oid: 23, modifier: -1 },
            below_sql: "integer".to_owned(),
            is_generated: false,
            is_not_null: false,
            has_default: false,
            is_binary_safe: true,
            missing: None,
        }
    }

    fn columns(of: &[(i16, &str)]) -> Vec<Column> {
        of.iter().map(|(number, name)| column(*number, name)).collect()
    }

    /// Pairs of 1 to 3 with 1 to 3; both sides as given.
    fn mended(source: &[(i16, &str)], target: &[(i16, &str)]) -> String {
        let (source, target) = (columns(source), columns(target));
        let compared = compare(&source, &target, &[(1, 1), (2, 2), (3, 3)], Hierarchy::Same);
        let adds = |name: &str| (name.to_owned(), format!("ADD {name};"));
        let adds = to_add(&compared.differences).map(adds).collect();
        sql(&TableName::new("s", "t"), &compared.differences, &adds).join(" ").replace("ALTER TABLE \"s\".\"t\" ", "")
    }

    const THERE: [(i16, &str); 3] = [(1, "id"), (2, "a"), (3, "b")];

    #[test]
    fn a_column_is_known_by_its_number() {
        for (source, target, expected) in [
            (vec![(1, "id"), (2, "a"), (3, "b")], THERE.to_vec(), ""),
            (vec![(1, "id"), (2, "x"), (3, "b")], THERE.to_vec(), r#"RENAME COLUMN "a" TO "x";"#),
            (
                vec![(1, "id"), (2, "x"), (3, "y")],
                THERE.to_vec(),
                r#"RENAME COLUMN "a" TO "x"; RENAME COLUMN "b" TO "y";"#,
            ),
            (
                vec![(1, "id"), (2, "b"), (3, "a")],
                THERE.to_vec(),
                r#"RENAME COLUMN "a" TO "walferry_aside_1"; RENAME COLUMN "b" TO "a"; RENAME COLUMN "walferry_aside_1" TO "b";"#,
            ),
            // Dropped and made again; dropped, and another has its name now.
            (vec![(1, "id"), (2, "a"), (4, "b")], THERE.to_vec(), r#"DROP COLUMN "b"; ADD b;"#),
            (vec![(1, "id"), (2, "b")], THERE.to_vec(), r#"DROP COLUMN "b"; RENAME COLUMN "a" TO "b";"#),
            // Dropped alone: the target keeps it.
            (vec![(1, "id"), (2, "a")], THERE.to_vec(), ""),
            (vec![(1, "id"), (2, "a"), (3, "b"), (4, "n")], THERE.to_vec(), "ADD n;"),
            // A new one under the old name of a renamed one.
            (vec![(1, "id"), (2, "a"), (3, "x"), (4, "b")], THERE.to_vec(), r#"RENAME COLUMN "b" TO "x"; ADD b;"#),
            (vec![(1, "id"), (2, "a"), (3, "b"), (4, "n")], vec![(1, "id"), (2, "a"), (3, "b"), (7, "n")], ""),
        ] {
            assert_eq!(mended(&source, &target), expected, "{source:?}");
        }
    }

    #[test]
    fn a_column_that_came_later_is_paired_and_one_that_stands_for_another_is_said_to() {
        let three = [(1, 1), (2, 2), (3, 3)];
        let (source, target) =
            (columns(&[(1, "id"), (2, "a"), (3, "b"), (4, "n")]), columns(&[(1, "id"), (2, "a"), (3, "b"), (9, "n")]));
        let compared = compare(&source, &target, &three, Hierarchy::Same);
        assert_eq!((compared.met, compared.is_doubted), (vec![(4, 9)], false));
        // Added otherwise than with what the older rows have.
        let five = [Column { missing: Some("5".to_owned()), ..column(4, "n") }];
        let source = [columns(&THERE), five.to_vec()].concat();
        let compared = compare(&source, &target, &three, Hierarchy::Same);
        assert_eq!((compared.met, compared.is_doubted), (vec![(4, 9)], true));
        // Dropped and made again on the target alone; one of the operator's own.
        let (source, target) = (columns(&THERE), columns(&[(1, "id"), (2, "a"), (9, "b")]));
        let compared = compare(&source, &target, &three, Hierarchy::Same);
        assert_eq!((compared.met, compared.is_doubted), (vec![(3, 9)], true));
        let (source, target) = (columns(&[(1, "id"), (9, "n")]), columns(&[(1, "id"), (2, "n")]));
        let compared = compare(&source, &target, &[(1, 1)], Hierarchy::Own);
        assert_eq!((compared.met, compared.is_doubted), (vec![(9, 2)], true));
        // On both sides.
        let (source, target) = (columns(&[(1, "id"), (2, "a"), (4, "b")]), columns(&[(1, "id"), (2, "a"), (5, "b")]));
        let compared = compare(&source, &target, &three, Hierarchy::Same);
        assert_eq!((compared.met, compared.is_doubted), (vec![(4, 5)], true));
    }

    #[test]
    fn a_message_from_before_a_rename_has_the_numbers_of_now() {
        let now = columns(&[(1, "id"), (2, "b"), (3, "a")]);
        let pairs = [(1, 1), (2, 2), (3, 3)];
        let numbers = |names: &[&str], now: &[Column]| {
            let columns = numbered(names, now, &pairs)?;
            Some(columns.into_iter().map(|column| (column.number, column.name)).collect::<Vec<_>>())
        };
        let expected = |names: [&str; 3]| {
            Some(names.into_iter().enumerate().map(|(n, name)| (n as i16 + 1, name.to_owned())).collect())
        };
        assert_eq!(numbers(&["id", "a", "b"], &now), expected(["id", "a", "b"]));
        assert_eq!(numbers(&["id", "b", "a"], &now), expected(["id", "b", "a"]));
        // One came since; one came and one went.
        assert_eq!(
            numbers(&["id", "b", "a"], &columns(&[(1, "id"), (2, "b"), (3, "a"), (4, "n")])),
            expected(["id", "b", "a"])
        );
        assert_eq!(numbers(&["id", "a", "b"], &columns(&[(1, "id"), (3, "b"), (4, "a")])), None);
    }
}
