//! Types that somebody has made, enums and composite ones, whose parts differ between the
//! sides: nothing of an ALTER TYPE is in the stream, and none of its rows is written anew.
//!
//! Invariant: types are the same by name. An enum may have more values on the target; a
//! composite type has the same attributes in the same order, or the values of a column
//! mean something else there.
//!
//! Source: an enum's value is kept as the oid of its label, a composite one as a row of its
//! attributes (`src/backend/catalog/pg_enum.c`, `ATTypedTableRecursion` in
//! `src/backend/commands/tablecmds.c`).

use crate::catalog::types::{Body, Made};
use crate::sql::literal;

/// How the target's type differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlike {
    /// What makes it the source's.
    pub sql: String,
    /// Whether values that are there may be others than on the source: not where an enum
    /// has but more of them there.
    pub is_doubted: bool,
}

/// Compares two types of one name; none where the target's is the source's.
pub fn compare(here: &Made, there: &Made) -> Option<Unlike> {
    match (&here.body, &there.body) {
        (Body::Labels(ours), Body::Labels(theirs)) if !is_within(ours, theirs) => {
            let sql = of_labels(&here.name, ours, theirs);
            Some(Unlike { sql, is_doubted: !is_within(theirs, ours) })
        }
        (Body::Attributes(ours), Body::Attributes(theirs)) if ours != theirs => {
            let (name, ours, theirs) = (&here.name, ours.join(", "), theirs.join(", "));
            let sql = format!(
                "ALTER TYPE {name} ADD, DROP or RENAME ATTRIBUTE: it is ({ours}) on the source, and ({theirs}) there;"
            );
            Some(Unlike { sql, is_doubted: true })
        }
        _ => None,
    }
}

/// Whether these labels are among those, in the same order.
fn is_within(ours: &[String], theirs: &[String]) -> bool {
    let mut theirs = theirs.iter();
    ours.iter().all(|label| theirs.any(|other| other == label))
}

fn of_labels(name: &str, ours: &[String], theirs: &[String]) -> String {
    let mut sql = Vec::new();
    let is_renamed =
        |(ours_has, theirs_has): &(&String, &String)| !theirs.contains(*ours_has) && !ours.contains(*theirs_has);
    let renamed: Vec<(&String, &String)> = ours.iter().zip(theirs).filter(is_renamed).collect();
    for (to, from) in &renamed {
        sql.push(format!("ALTER TYPE {name} RENAME VALUE {} TO {};", literal(from), literal(to)));
    }
    let is_new = |label: &&String| !theirs.contains(label) && !renamed.iter().any(|(to, _)| to == label);
    for (at, label) in ours.iter().enumerate().filter(|(_, label)| is_new(label)) {
        let place = match at.checked_sub(1).and_then(|before| ours.get(before)) {
            Some(before) => format!(" AFTER {}", literal(before)),
            None => theirs.first().map_or_else(String::new, |first| {
                let first = renamed.iter().find(|(_, from)| *from == first).map_or(first, |(to, _)| *to);
                format!(" BEFORE {}", literal(first))
            }),
        };
        sql.push(format!("ALTER TYPE {name} ADD VALUE {}{place};", literal(label)));
    }
    sql.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(labels: &[&str]) -> Made {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Made { name: "e".to_owned(), body: Body::Labels(labels) }
    }

    #[test]
    fn labels_are_renamed_and_added_where_they_are_on_the_source() {
        let unlike = |ours: &[&str], theirs: &[&str]| compare(&of(ours), &of(theirs));
        let mended =
            |ours: &[&str], theirs: &[&str]| unlike(ours, theirs).map_or_else(String::new, |unlike| unlike.sql);
        let is_doubted = |ours: &[&str], theirs: &[&str]| unlike(ours, theirs).is_some_and(|unlike| unlike.is_doubted);
        assert!(is_doubted(&["x", "b"], &["a", "b"]) && is_doubted(&["x", "n"], &["a"]));
        assert!(!is_doubted(&["a", "n", "b"], &["a", "b"]));
        assert_eq!(mended(&["a", "b"], &["a", "b"]), "");
        assert_eq!(mended(&["a", "b"], &["a", "more", "b"]), "");
        assert_eq!(mended(&["x", "b"], &["a", "b"]), "ALTER TYPE e RENAME VALUE 'a' TO 'x';");
        assert_eq!(mended(&["a", "n", "b"], &["a", "b"]), "ALTER TYPE e ADD VALUE 'n' AFTER 'a';");
        assert_eq!(mended(&["n", "a"], &["a"]), "ALTER TYPE e ADD VALUE 'n' BEFORE 'a';");
        assert_eq!(
            mended(&["x", "b", "n"], &["a", "b"]),
            "ALTER TYPE e RENAME VALUE 'a' TO 'x'; ALTER TYPE e ADD VALUE 'n' AFTER 'b';"
        );
        let row = |of: &str| Made { name: "c".to_owned(), body: Body::Attributes(vec![of.to_owned()]) };
        assert_eq!(compare(&row("a integer"), &row("a integer")), None);
        let unlike = compare(&row("a integer"), &row("b integer")).unwrap();
        assert!(unlike.is_doubted && unlike.sql.contains("(a integer) on the source"), "{unlike:?}");
    }
}
