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
use crate::catalog::types::{ColumnType, is_built_in};

pub use crate::state::tables::Pair;

/// These two as they are now.
pub fn pair(column: &Column, there: &Column) -> Pair {
    let was = match (&column.expression, &there.expression) {
        (Some(ours), theirs) => Pair::computed(ours, theirs.as_deref()),
        (None, Some(_)) => Pair::COMPUTED_THERE,
        (None, None) => column.below,
    };
    Pair { ours: column.number, theirs: there.number, was }
}

/// The same where rows are about to be copied, and some of the table's columns are `known`: one
/// that the target computes otherwise than the source does by now is still to be made as that.
pub fn pair_for_copy(column: &Column, there: &Column, known: &[Pair]) -> Pair {
    let now = pair(column, there);
    if there.expression.is_none() || column.expression == there.expression {
        return now;
    }
    let was = known.iter().find(|pair| pair.theirs == there.number && Pair::is_computed(pair.was));
    was.map_or(now, |was| Pair { was: was.was, ..now })
}

/// The highest number of these columns.
pub fn newest(columns: &[Column]) -> Option<i16> {
    columns.iter().map(|column| column.number).max()
}

/// The pairs with those that were met, which go over others of their columns.
pub fn with_met(known: &[Pair], met: &[Pair]) -> Vec<Pair> {
    let is_met = |pair: &&Pair| met.iter().any(|met| met.ours == pair.ours || met.theirs == pair.theirs);
    known.iter().filter(|pair| !is_met(pair)).chain(met).copied().collect()
}

/// What columns are called on the target, by their names on the source, where these differ:
/// of `tables`, each the source's columns, the target's and their pairs, all of one family of
/// partitions or of tables that inherit. A column has the same name in all of them, so one
/// that came later and was renamed since, which changes of one table alone have paired, is
/// known in the others.
pub fn called<'a>(tables: impl Iterator<Item = (&'a [Column], &'a [Column], &'a [Pair])>) -> HashMap<String, String> {
    let of_table = |(source, target, pairs): (&'a [Column], &'a [Column], &'a [Pair])| {
        let names = move |pair: &Pair| {
            let ours = source.iter().find(|column| column.number == pair.ours)?;
            let theirs = target.iter().find(|column| column.number == pair.theirs)?;
            (ours.name != theirs.name).then(|| (ours.name.clone(), theirs.name.clone()))
        };
        pairs.iter().filter_map(names)
    };
    tables.flat_map(of_table).collect()
}

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
    /// Those of them that the source has altered since they were paired.
    pub altered: Vec<Difference<'a>>,
    /// A column that is paired now may have other values in older rows: it stands for one
    /// that was dropped, on the target alone or on both sides, whose changes may have been
    /// written to it or are gone with it; it was the operator's own before; or it was not
    /// added with what the older rows have on the source.
    pub is_doubted: bool,
}

/// Compares a table's columns; of an own hierarchy (`--schema existing`) only what is in
/// the way of the rows. `called` has the target's names of columns that are not paired yet,
/// where others know them ([`called`]).
pub fn compare<'a>(
    source: &'a [Column],
    target: &'a [Column],
    (pairs, called): (&[Pair], &HashMap<String, String>),
    hierarchy: Hierarchy,
) -> Compared<'a> {
    let there: HashMap<i16, &Column> = target.iter().map(|column| (column.number, column)).collect();
    let here: HashSet<i16> = source.iter().map(|column| column.number).collect();
    let counterpart: HashMap<i16, (&Column, ColumnType)> =
        pairs.iter().filter_map(|pair| Some((pair.ours, (*there.get(&pair.theirs)?, pair.was)))).collect();
    // Whose pair a column of the target is.
    let owner: HashMap<i16, i16> = pairs.iter().map(|pair| (pair.theirs, pair.ours)).collect();
    let is_gone = |pair: &Pair| !here.contains(&pair.ours) && !there.contains_key(&pair.theirs);
    let mut compared = Compared::default();
    let mut wanted = HashSet::new();
    for column in source {
        let known = counterpart.get(&column.number).copied();
        let was = known.map(|(_, was)| was);
        let of_name = |name: &String| target.iter().find(|t| t.name == *name && !owner.contains_key(&t.number));
        let new = || called.get(&column.name).and_then(of_name).or_else(|| of_name(&column.name));
        let found = known.map(|(found, _)| found).or_else(new);
        match found {
            Some(found) => {
                let unlike = Difference::Unlike { column, there: found };
                let is_unlike = is_unlike(column, found, hierarchy, was);
                let is_altered = hierarchy == Hierarchy::Same && !is_unlike && is_altered(column, found, was);
                compared.altered.extend(is_altered.then_some(unlike));
                if known.is_none() {
                    compared.met.push(pair(column, found));
                    let is_another = |pair: &Pair| pair.ours == column.number || is_gone(pair);
                    let came_later = !pairs.is_empty() && !column.is_generated();
                    let is_as_added = hierarchy == Hierarchy::Same && column.missing == found.missing;
                    compared.is_doubted |= pairs.iter().any(is_another) || came_later && !is_as_added;
                } else if !is_unlike && was != Some(pair(column, found).was) {
                    compared.met.extend((!is_altered).then(|| pair(column, found)));
                    // The older rows' values were made anew, on each side by itself.
                    compared.is_doubted |= was.is_some_and(|was| match () {
                        () if was == Pair::COMPUTED_THERE => true,
                        () if Pair::is_computed(was) => !column.is_generated(),
                        () => !was.is_kept_in(column.below),
                    });
                }
                if found.name != column.name {
                    wanted.insert(column.name.as_str());
                    compared.differences.push(Difference::Renamed { from: &found.name, to: &column.name });
                }
                if is_unlike {
                    compared.differences.push(unlike);
                } else if is_built_in(column.below) && is_built_in(found.below) && column.below != found.below {
                    compared.retyped.push(unlike);
                }
            }
            None if column.is_generated() && hierarchy == Hierarchy::Own => {}
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

/// Columns of one name whose kinds of types differ, so that values that arrive would be
/// others; those that lose any are with [`compare`].
pub fn of_another_kind<'a>(source: &'a [Column], target: &'a [Column]) -> impl Iterator<Item = Difference<'a>> {
    let there = |column: &&Column| target.iter().find(|there| there.name == column.name);
    let differs = |column: &Column, there: &Column| {
        let is_computed = column.is_generated() || there.is_generated();
        !is_computed && !column.below.loses_in(there.below) && !column.below.is_kept_in(there.below)
    };
    let pairs = source.iter().filter_map(move |column| Some((column, there(&column)?)));
    pairs
        .filter(move |(column, there)| differs(column, there))
        .map(|(column, there)| Difference::Unlike { column, there })
}

/// Whether the source has given the column another type since it was paired, and the target
/// has not.
fn is_altered(column: &Column, there: &Column, was: Option<ColumnType>) -> bool {
    let is_other = if is_built_in(column.below) && is_built_in(there.below) {
        column.below != there.below
    } else {
        column.below_sql != there.below_sql
    };
    let is_computed = column.is_generated() || there.is_generated();
    is_other && !is_computed && was.is_some_and(|was| !Pair::is_computed(was) && was != column.below)
}

/// Whether the target's cannot be the source's. Where the schema is the operator's, so is
/// another kind of column, until the source's becomes another one than it `was`.
fn is_unlike(column: &Column, there: &Column, hierarchy: Hierarchy, was: Option<ColumnType>) -> bool {
    match (hierarchy, column.is_generated(), there.is_generated()) {
        (_, true, true) => {
            // An older walferry has known the source's alone.
            let known =
                [pair(column, there).was, Pair::computed(column.expression.as_deref().unwrap_or_default(), None)];
            let is_another = was.is_some_and(|was| Pair::is_known(was) && !known.contains(&was));
            is_another && column.expression != there.expression
        }
        (Hierarchy::Own, false, true) => was.is_some_and(Pair::is_computed),
        (Hierarchy::Own, true, _) => false,
        (Hierarchy::Same, ours, theirs) if ours != theirs => true,
        _ => {
            let is_ours = was.map_or(hierarchy == Hierarchy::Same, |was| was != column.below);
            column.below.loses_in(there.below) || is_ours && !column.below.is_kept_in(there.below)
        }
    }
}

/// The differences of a table that none above it has as well: an ALTER TABLE of that one
/// reaches this one. `above` has those of the tables above.
pub fn own<'a>(of_table: &[Difference<'a>], above: &[&[Difference<'a>]]) -> Vec<Difference<'a>> {
    let is_same = |one: &Difference<'_>, other: &Difference<'_>| match (one, other) {
        (Difference::Lacks(one), Difference::Lacks(other)) => one.name == other.name,
        (Difference::Unlike { column: one, .. }, Difference::Unlike { column: other, .. }) => {
            one.name == other.name && one.expression == other.expression
        }
        _ => one == other,
    };
    let is_own = |one: &&Difference<'_>| !above.iter().flat_map(|of| of.iter()).any(|other| is_same(one, other));
    of_table.iter().filter(is_own).copied().collect()
}

/// Columns and pairs for the tests of this folder.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(in crate::membership) const INTEGER: ColumnType = ColumnType { oid: 23, modifier: -1 };

    pub(in crate::membership) fn column(number: i16, name: &str) -> Column {
        Column {
            number,
            name: name.to_owned(),
            type_oid: 23,
            type_sql: "integer".to_owned(),
            below: ColumnType { oid: 23, modifier: -1 },
            below_sql: "integer".to_owned(),
            expression: None,
            is_not_null: false,
            has_default: false,
            is_binary_safe: true,
            has_one_image: true,
            missing: None,
        }
    }

    pub(in crate::membership) fn columns(of: &[(i16, &str)]) -> Vec<Column> {
        of.iter().map(|(number, name)| column(*number, name)).collect()
    }

    pub(in crate::membership) fn pairs(of: &[(i16, i16)]) -> Vec<Pair> {
        of.iter().map(|(ours, theirs)| Pair { ours: *ours, theirs: *theirs, was: INTEGER }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{INTEGER, column, columns, pairs};
    use super::*;
    use crate::catalog::types::ColumnType;
    use crate::membership::alter;
    use crate::sql::TableName;

    /// Pairs of 1 to 3 with 1 to 3; both sides as given.
    fn mended(source: &[(i16, &str)], target: &[(i16, &str)]) -> String {
        let (source, target) = (columns(source), columns(target));
        let compared = compare(&source, &target, (&pairs(&[(1, 1), (2, 2), (3, 3)]), &HashMap::new()), Hierarchy::Same);
        let add = |difference: &Difference<'_>| match difference {
            Difference::Lacks(column) => Some((column.name.clone(), format!("ADD {};", column.name))),
            _ => None,
        };
        let adds = compared.differences.iter().filter_map(add).collect();
        alter::sql(&TableName::new("s", "t"), &compared.differences, &adds)
            .join(" ")
            .replace("ALTER TABLE \"s\".\"t\" ", "")
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
        let three = pairs(&[(1, 1), (2, 2), (3, 3)]);
        let (source, target) =
            (columns(&[(1, "id"), (2, "a"), (3, "b"), (4, "n")]), columns(&[(1, "id"), (2, "a"), (3, "b"), (9, "n")]));
        let compared = compare(&source, &target, (&three, &HashMap::new()), Hierarchy::Same);
        assert_eq!((compared.met, compared.is_doubted), (pairs(&[(4, 9)]), false));
        // Added otherwise than with what the older rows have.
        let five = [Column { missing: Some("5".to_owned()), ..column(4, "n") }];
        let source = [columns(&THERE), five.to_vec()].concat();
        let compared = compare(&source, &target, (&three, &HashMap::new()), Hierarchy::Same);
        assert_eq!((compared.met, compared.is_doubted), (pairs(&[(4, 9)]), true));
        // Dropped and made again on the target alone; one of the operator's own.
        let (source, target) = (columns(&THERE), columns(&[(1, "id"), (2, "a"), (9, "b")]));
        let compared = compare(&source, &target, (&three, &HashMap::new()), Hierarchy::Same);
        assert_eq!((compared.met, compared.is_doubted), (pairs(&[(3, 9)]), true));
        let (source, target) = (columns(&[(1, "id"), (9, "n")]), columns(&[(1, "id"), (2, "n")]));
        let compared = compare(&source, &target, (&pairs(&[(1, 1)]), &HashMap::new()), Hierarchy::Own);
        assert_eq!((compared.met, compared.is_doubted), (pairs(&[(9, 2)]), true));
        // On both sides.
        let (source, target) = (columns(&[(1, "id"), (2, "a"), (4, "b")]), columns(&[(1, "id"), (2, "a"), (5, "b")]));
        let compared = compare(&source, &target, (&three, &HashMap::new()), Hierarchy::Same);
        assert_eq!((compared.met, compared.is_doubted), (pairs(&[(4, 5)]), true));
    }

    /// Types that were altered since, and columns that were computed.
    #[test]
    fn a_type_is_the_operators_until_the_sources_is_another_one() {
        let of = |below, is_generated: bool| {
            [Column { below, expression: is_generated.then(|| "a".to_owned()), ..column(1, "a") }]
        };
        let text = ColumnType { oid: 25, modifier: -1 };
        let computed = [Pair { ours: 1, theirs: 1, was: Pair::computed("a", Some("a")) }];
        let is_unlike = |source: &[Column], target: &[Column], pairs: &[Pair], hierarchy| {
            let compared = compare(source, target, (pairs, &HashMap::new()), hierarchy);
            matches!(compared.differences[..], [Difference::Unlike { .. }])
        };
        let (was_integer, was_text) = (pairs(&[(1, 1)]), [Pair { ours: 1, theirs: 1, was: text }]);
        for hierarchy in [Hierarchy::Own, Hierarchy::Same] {
            assert!(is_unlike(&of(text, false), &of(INTEGER, false), &was_integer, hierarchy));
            assert!(!is_unlike(&of(text, false), &of(INTEGER, false), &was_text, hierarchy));
            assert!(!is_unlike(&of(INTEGER, false), &of(text, false), &was_text, hierarchy));
            assert!(is_unlike(&of(text, false), &of(text, true), &computed, hierarchy));
        }
        assert!(!is_unlike(&of(text, false), &of(INTEGER, false), &[], Hierarchy::Own));
        assert!(!is_unlike(&of(text, false), &of(text, true), &was_text, Hierarchy::Own));
    }
}
