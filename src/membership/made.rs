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

/// What makes the target's type the source's; none where it is.
pub fn sql(here: &Made, there: &Made) -> Option<String> {
    match (&here.body, &there.body) {
        (Body::Labels(ours), Body::Labels(theirs)) if !is_within(ours, theirs) => {
            Some(of_labels(&here.name, ours, theirs))
        }
        (Body::Attributes(ours), Body::Attributes(theirs)) if ours != theirs => Some(format!(
            "ALTER TYPE {} ADD, DROP or RENAME ATTRIBUTE: it is ({}) on the source, and ({}) there;",
            here.name,
            ours.join(", "),
            theirs.join(", ")
        )),
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
        let mended = |ours: &[&str], theirs: &[&str]| sql(&of(ours), &of(theirs)).unwrap_or_default();
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
        assert_eq!(sql(&row("a integer"), &row("a integer")), None);
        assert!(sql(&row("a integer"), &row("b integer")).is_some_and(|sql| sql.contains("(a integer) on the source")));
    }
}
