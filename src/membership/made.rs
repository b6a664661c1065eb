//! Types that somebody has made, enums, composite types, domains and ranges, that differ
//! between the sides: nothing of an ALTER TYPE is in the stream, and none of its rows is
//! written anew.
//!
//! Invariant: types are the same by name when they are first met, their parts by their
//! numbers, as they were paired when the rows were copied: a label that was renamed, and one that was added under its old
//! name, are two things, and so is an attribute that was dropped and added again. An enum
//! may have more labels on the target, and where the schema is the operator's in another
//! order; a composite type has the same attributes in the same order, or the values of a
//! column mean something else there. What a domain or range is over holds there whatever it
//! holds on the source: a column of it alone is compared as of the type below, but in arrays,
//! ranges and composite types nobody else would look.
//!
//! Source: an enum's value is kept as the oid of its label, a composite one as a row of its
//! attributes (`src/backend/catalog/pg_enum.c`, `ATTypedTableRecursion` in
//! `src/backend/commands/tablecmds.c`).

use super::placement::Hierarchy;
use crate::catalog::types::{LABEL, Made, MadeKind, PartOfType};
use crate::sql::rename::{Rename, Renamed, rename_sql};
use crate::sql::{TableName, ident, literal};
use crate::state::types::{PartPair, TypePairs};

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// What makes the target's type the source's; none where it is.
    pub sql: Option<String>,
    /// Whether that is another type, which columns are to be given.
    pub is_anew: bool,
    /// Whether values that are there may be others than on the source: not where an enum
    /// has but more of them there.
    pub is_doubted: bool,
    /// The pairs from now on.
    pub pairs: TypePairs,
}

/// Compares two types of one name, whose parts were paired so before; there is none where the
/// target's column is of another kind.
pub fn compare(here: &Made, there: Option<&Made>, known: Option<&TypePairs>, hierarchy: Hierarchy) -> Compared {
    let looks = |made: &Made| -> Vec<(String, String)> {
        made.parts.iter().map(|part| (part.name.clone(), part.of.clone())).collect()
    };
    let looks_alike = there.is_some_and(|there| looks(here) == looks(there));
    let pairs = paired(here, there, known, looks_alike || here.kind == MadeKind::Enum);
    let is_another = known.is_some_and(|known| is_another(known, &pairs));
    let Some(there) = there else { return Compared { sql: None, is_anew: false, is_doubted: is_another, pairs } };
    let of_pair = |part: &PartOfType| {
        let pair = pairs.parts.iter().find(|pair| pair.ours == part.number)?;
        there.parts.iter().find(|other| other.number == pair.theirs)
    };
    let counterparts: Vec<(&PartOfType, Option<&PartOfType>)> =
        here.parts.iter().map(|part| (part, of_pair(part))).collect();
    let is_renamed = counterparts.iter().any(|(part, other)| other.is_some_and(|other| other.name != part.name));
    let (sql, is_anew) = match here.kind {
        MadeKind::Enum => {
            let sql = of_labels(here, there, &counterparts);
            let is_anew = sql.is_none() && hierarchy == Hierarchy::Same && !is_in_order(there, &counterparts);
            (if is_anew { Some(anew(here, there)) } else { sql }, is_anew)
        }
        MadeKind::Domain | MadeKind::Range if holds_all(&counterparts, hierarchy) => (None, false),
        MadeKind::Domain | MadeKind::Range => (Some(anew(here, there)), true),
        MadeKind::Composite | MadeKind::Row if looks_alike => (None, false),
        MadeKind::Composite | MadeKind::Row => (Some(of_attributes(here, there, &counterparts)), false),
    };
    let is_unlike = here.kind != MadeKind::Enum && sql.is_some();
    Compared { sql, is_anew, is_doubted: is_another || is_unlike || is_renamed, pairs }
}

/// Whether labels compare as they do on the source. Where the target has more of them, rows
/// may have these as well, and no type without them.
fn is_in_order(there: &Made, counterparts: &[(&PartOfType, Option<&PartOfType>)]) -> bool {
    if there.parts.len() > counterparts.len() {
        return true;
    }
    let place = |label: &PartOfType| there.parts.iter().position(|other| other.number == label.number);
    counterparts.iter().filter_map(|(_, other)| place((*other)?)).is_sorted()
}

/// Whether what a domain or range is over there takes all values of the source's as they are.
/// Where the schema is the operator's, so is another kind of type that loses none.
fn holds_all(counterparts: &[(&PartOfType, Option<&PartOfType>)], hierarchy: Hierarchy) -> bool {
    let is_theirs = hierarchy == Hierarchy::Own;
    let holds = |(part, other): &(&PartOfType, Option<&PartOfType>)| {
        other.is_some_and(|other| !part.kind.loses_in(other.kind) && (is_theirs || part.kind.is_kept_in(other.kind)))
    };
    counterparts.iter().all(holds)
}

/// The statements that make a type of the source beside the one that has its name there, which
/// nothing alters into it; none where it has that name no more.
fn anew(here: &Made, there: &Made) -> String {
    match &here.definition {
        _ if here.name != there.name => String::new(),
        Some(definition) => {
            let former = ident(&format!("{}_former", there.called.name));
            format!("ALTER TYPE {} RENAME TO {former}; {definition}", there.name)
        }
        None => format!(
            "-- {} is of {} on the source: give the one that is there another name, and make it there as it is on the source;",
            here.name,
            here.parts.first().map_or("another type", |part| part.of.as_str())
        ),
    }
}

/// Whether a part that was paired was altered since on either side, or is gone, or is paired
/// with another one: values that came in between may have been taken for those of another.
/// One that is new is none that rows had.
fn is_another(known: &TypePairs, now: &TypePairs) -> bool {
    let is_as_it_was = |old: &PartPair| {
        now.parts.iter().any(|new| {
            (old.ours, old.theirs) == (new.ours, new.theirs) && (old.versions.is_none() || old.versions == new.versions)
        })
    };
    // A type that was made anew there.
    known.of != now.of || !known.parts.iter().all(is_as_it_was)
}

/// Pairs each part with what it was paired with, others by their names. What has the name of
/// one that is gone on the source `may_stand_for` another; else that one stays paired with
/// what the target has kept of it.
fn paired(here: &Made, there: Option<&Made>, known: Option<&TypePairs>, may_stand_for: bool) -> TypePairs {
    let of = there.map_or(0, |there| there.oid);
    let Some(there) = there else {
        let alone = |part: &PartOfType| PartPair {
            ours: part.number,
            theirs: 0,
            versions: Some((part.version.clone(), String::new())),
        };
        return TypePairs { of, parts: here.parts.iter().map(alone).collect() };
    };
    let was: &[PartPair] = known.filter(|known| known.of == of).map_or(&[], |known| &known.parts);
    let is_here = |number: i64| here.parts.iter().any(|part| part.number == number);
    let there_is = |number: i64| there.parts.iter().find(|other| other.number == number);
    let mut parts: Vec<PartPair> = Vec::new();
    for part in &here.parts {
        let known = was.iter().find(|pair| pair.ours == part.number).and_then(|pair| there_is(pair.theirs));
        let is_free = |theirs: i64| {
            let owner = was.iter().find(|pair| pair.theirs == theirs);
            owner.is_none_or(|pair| may_stand_for && !is_here(pair.ours))
        };
        let of_name = there.parts.iter().find(|other| other.name == part.name && is_free(other.number));
        // What somebody has made there under its new name is the counterpart by now.
        parts.extend(of_name.or(known).map(|theirs| PartPair {
            ours: part.number,
            theirs: theirs.number,
            versions: Some((part.version.clone(), theirs.version.clone())),
        }));
    }
    let is_left = |pair: &&PartPair| {
        !is_here(pair.ours) && there_is(pair.theirs).is_some() && !parts.iter().any(|new| new.theirs == pair.theirs)
    };
    let left = |pair: &PartPair| PartPair { versions: Some(pair.versions.clone().unwrap_or_default()), ..pair.clone() };
    let left: Vec<PartPair> = was.iter().filter(is_left).map(left).collect();
    TypePairs { of, parts: [parts, left].concat() }
}

/// The statements that rename what is called otherwise there.
fn renames(what: Renamed<'_>, there: &Made, counterparts: &[(&PartOfType, Option<&PartOfType>)]) -> String {
    let name = |part: &PartOfType| TableName::new("", &part.name);
    let pairs = counterparts.iter().filter_map(|(part, other)| Some((*part, (*other)?)));
    let renames: Vec<Rename> = pairs
        .filter(|(part, other)| part.name != other.name)
        .map(|(part, other)| Rename { from: name(other), to: name(part) })
        .collect();
    rename_sql(what, &renames, |name| there.parts.iter().any(|part| part.name == name.name))
}

/// The source's attributes come in the order in which they were added, as the target's do.
/// Those of a row type are its table's columns.
fn of_attributes(here: &Made, there: &Made, counterparts: &[(&PartOfType, Option<&PartOfType>)]) -> String {
    let is_row = here.kind == MadeKind::Row;
    let alter = |what: &str, of_table: &str, rest: String| match is_row {
        true => format!("ALTER TABLE {} {of_table} {rest};", there.called.sql()),
        false => format!("ALTER TYPE {} {what} {rest} CASCADE;", there.name),
    };
    let is_left = |part: &&PartOfType| !counterparts.iter().any(|(_, other)| other.is_some_and(|other| other == *part));
    let drop = |part: &PartOfType| alter("DROP ATTRIBUTE", "DROP COLUMN IF EXISTS", ident(&part.name));
    let mut sql: Vec<String> = there.parts.iter().filter(is_left).map(drop).collect();
    let renamed = if is_row { Renamed::Column(&there.called) } else { Renamed::Attribute(&there.name) };
    sql.push(renames(renamed, there, counterparts));
    for (part, other) in counterparts {
        let name = ident(&part.name);
        match other {
            None => {
                sql.push(alter("ADD ATTRIBUTE", "ADD COLUMN IF NOT EXISTS", format!("{name} {}", part.of)));
            }
            Some(other) if other.of != part.of => {
                sql.push(alter("ALTER ATTRIBUTE", "ALTER COLUMN", format!("{name} TYPE {}", part.of)));
            }
            Some(_) => {}
        }
    }
    sql.retain(|one| !one.is_empty());
    if sql.is_empty() {
        let of = |made: &Made| made.parts.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(", ");
        return format!(
            "-- the attributes of {} are in another order: ({}), here ({});",
            there.name,
            of(here),
            of(there)
        );
    }
    sql.join(" ")
}

/// Whether an attribute is given another type, which the server refuses as long as a column
/// has a value of it.
pub fn retypes_attributes(here: &Made, there: &Made) -> bool {
    let is_another = |part: &PartOfType| {
        there.parts.iter().any(|other| other.name == part.name && other.of != part.of && part.kind != LABEL)
    };
    here.kind == MadeKind::Composite && here.parts.iter().any(is_another)
}

fn of_labels(here: &Made, there: &Made, counterparts: &[(&PartOfType, Option<&PartOfType>)]) -> Option<String> {
    let mut sql = vec![renames(Renamed::Label(&there.name), there, counterparts)];
    // What a label is called there once that is done.
    let called = |part: &PartOfType| {
        let of = counterparts.iter().find(|(_, other)| other.is_some_and(|other| other == part));
        of.map_or(&part.name, |(ours, _)| &ours.name).clone()
    };
    for (at, (label, _)) in counterparts.iter().enumerate().filter(|(_, (_, other))| other.is_none()) {
        let place = match at.checked_sub(1).and_then(|before| here.parts.get(before)) {
            Some(before) => format!(" AFTER {}", literal(&before.name)),
            None => {
                there.parts.first().map_or_else(String::new, |first| format!(" BEFORE {}", literal(&called(first))))
            }
        };
        sql.push(format!("ALTER TYPE {} ADD VALUE {}{place};", there.name, literal(&label.name)));
    }
    sql.retain(|one| !one.is_empty());
    (!sql.is_empty()).then(|| sql.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of walferry's own schema.
    fn compare(here: &Made, there: Option<&Made>, known: Option<&TypePairs>) -> Compared {
        super::compare(here, there, known, Hierarchy::Same)
    }

    fn of(kind: MadeKind, parts: &[(i64, &str)]) -> Made {
        let part = |(number, name): &(i64, &str)| PartOfType {
            number: *number,
            name: (*name).to_owned(),
            of: String::new(),
            kind: LABEL,
            // A rename is another version.
            version: (*name).to_owned(),
        };
        let (name, called) = ("e".to_owned(), TableName::new("public", "e"));
        let definition = Some("CREATE TYPE e AS ENUM (…);".to_owned());
        Made { oid: 7, name, called, kind, parts: parts.iter().map(part).collect(), definition }
    }

    fn pairs(of: &[(i64, i64, &str)]) -> Vec<PartPair> {
        of.iter()
            .map(|(ours, theirs, name)| PartPair {
                ours: *ours,
                theirs: *theirs,
                versions: Some(((*name).to_owned(), (*name).to_owned())),
            })
            .collect()
    }

    /// What is said, and whether there is a doubt, of labels that were paired so.
    fn labels(ours: &[(i64, &str)], theirs: &[(i64, &str)], known: &[(i64, i64, &str)]) -> (String, bool) {
        let known = TypePairs { of: 7, parts: pairs(known) };
        let compared = compare(&of(MadeKind::Enum, ours), Some(&of(MadeKind::Enum, theirs)), Some(&known));
        (compared.sql.unwrap_or_default().replace("ALTER TYPE e ", ""), compared.is_doubted)
    }

    #[test]
    fn labels_are_known_by_their_numbers() {
        let two = [(1, 11, "a"), (2, 12, "b")];
        let there = [(11, "a"), (12, "b")];
        let said = |ours: &[(i64, &str)], theirs: &[(i64, &str)]| labels(ours, theirs, &two);
        assert_eq!(said(&[(1, "a"), (2, "b")], &there), (String::new(), false));
        assert_eq!(said(&[(1, "a"), (2, "b")], &[(11, "a"), (13, "more"), (12, "b")]), (String::new(), false));
        assert_eq!(said(&[(1, "x"), (2, "b")], &there), ("RENAME VALUE 'a' TO 'x';".to_owned(), true));
        assert_eq!(said(&[(1, "a"), (3, "n"), (2, "b")], &there), ("ADD VALUE 'n' AFTER 'a';".to_owned(), false));
        assert_eq!(said(&[(3, "n"), (1, "a"), (2, "b")], &there), ("ADD VALUE 'n' BEFORE 'a';".to_owned(), false));
        // The story: another one has the old name by now.
        assert_eq!(
            said(&[(1, "a"), (2, "old"), (3, "b")], &there),
            ("RENAME VALUE 'b' TO 'old'; ADD VALUE 'b' AFTER 'old';".to_owned(), true)
        );
        // They exchange their names.
        assert_eq!(
            said(&[(1, "b"), (2, "a")], &there).0,
            "RENAME VALUE 'a' TO 'walferry_aside_1'; RENAME VALUE 'b' TO 'a'; RENAME VALUE 'walferry_aside_1' TO 'b';"
        );
        // On both sides, and there before the values from before it had come.
        let both = [(1, "a"), (2, "old"), (3, "b")];
        assert_eq!(said(&both, &both.map(|(number, name)| (number + 10, name))), (String::new(), true));
        // Somebody has added there what was renamed on the source.
        assert_eq!(said(&[(1, "a"), (2, "old")], &[(11, "a"), (12, "b"), (13, "old")]), (String::new(), true));
    }

    #[test]
    fn parts_that_are_paired_anew_are_in_doubt_and_the_first_pairs_are_not() {
        let here = of(MadeKind::Composite, &[(1, "x"), (3, "y")]);
        let there = of(MadeKind::Composite, &[(1, "x"), (2, "y")]);
        let first = compare(&here, Some(&there), None);
        assert_eq!(
            (first.sql, first.is_doubted, &first.pairs.parts),
            (None, false, &pairs(&[(1, 1, "x"), (3, 2, "y")]))
        );
        let known = TypePairs { of: 7, parts: pairs(&[(1, 1, "x"), (2, 2, "y")]) };
        let again = compare(&here, Some(&there), Some(&known));
        assert_eq!((again.sql, again.is_doubted, again.pairs.parts), (None, true, pairs(&[(1, 1, "x"), (3, 2, "y")])));
        let elsewhere = TypePairs { of: 8, ..known };
        assert!(compare(&here, Some(&there), Some(&elsewhere)).is_doubted);
        let unlike = compare(&of(MadeKind::Composite, &[(1, "z")]), Some(&there), None);
        assert!(unlike.is_doubted);
        assert_eq!(
            unlike.sql.unwrap().replace("ALTER TYPE e ", ""),
            "DROP ATTRIBUTE \"x\" CASCADE; DROP ATTRIBUTE \"y\" CASCADE; ADD ATTRIBUTE \"z\"  CASCADE;"
        );
        let here = of(MadeKind::Composite, &[(2, "y"), (3, "x")]);
        let unlike =
            compare(&here, Some(&there), Some(&TypePairs { of: 7, parts: pairs(&[(1, 1, "x"), (2, 2, "y")]) }));
        assert_eq!(
            unlike.sql.unwrap().replace("ALTER TYPE e ", ""),
            "DROP ATTRIBUTE \"x\" CASCADE; ADD ATTRIBUTE \"x\"  CASCADE;"
        );
    }

    #[test]
    fn what_was_altered_and_altered_back_or_dropped_on_both_sides_is_in_doubt() {
        let two = TypePairs { of: 7, parts: pairs(&[(1, 1, "x"), (2, 2, "y")]) };
        let made = of(MadeKind::Enum, &[(1, "x"), (2, "y")]);
        let is_doubted =
            |here: &Made, there: Option<&Made>, known: &TypePairs| compare(here, there, Some(known)).is_doubted;
        assert!(!is_doubted(&made, Some(&made), &two));
        let mut altered = made.clone();
        altered.parts[0].version = "2".to_owned();
        assert!(is_doubted(&altered, Some(&made), &two) && is_doubted(&made, Some(&altered), &two));
        let by_an_older = |pairs: &TypePairs| {
            let parts = pairs.parts.iter().map(|pair| PartPair { versions: None, ..pair.clone() });
            TypePairs { parts: parts.collect(), ..pairs.clone() }
        };
        assert!(!is_doubted(&altered, Some(&made), &by_an_older(&two)));
        let anew = of(MadeKind::Composite, &[(1, "x"), (3, "y")]);
        assert!(is_doubted(&anew, Some(&anew), &two));
        // The target's column is of a type of its own.
        let first = compare(&made, None, None);
        assert_eq!((&first.sql, first.is_doubted), (&None, false));
        assert!(!is_doubted(&made, None, &first.pairs) && is_doubted(&altered, None, &first.pairs));
    }

    #[test]
    fn what_is_said_of_an_attribute_that_was_made_anew_is_said_until_it_is_done() {
        let two = TypePairs { of: 7, parts: pairs(&[(1, 1, "x"), (2, 2, "y")]) };
        let (here, there) =
            (of(MadeKind::Composite, &[(2, "y"), (3, "x")]), of(MadeKind::Composite, &[(1, "x"), (2, "y")]));
        let first = compare(&here, Some(&there), Some(&two));
        assert!(first.is_doubted && first.sql.as_ref().is_some_and(|sql| sql.contains("DROP ATTRIBUTE")));
        let again = compare(&here, Some(&there), Some(&first.pairs));
        assert_eq!((again.sql, again.pairs), (first.sql, first.pairs));
    }
}
