//! The order in which what is held back comes in, and what belongs to what.
//!
//! Invariant: what belongs to an object (the validation of a key, comments, owners)
//! comes after it, whatever their numbers: an object that was taken away again has a
//! later one than what still waits for it. It is known by the constraint that both
//! statements name, or by the object of the source's catalog.

use std::collections::HashMap;

use super::classify::{identifier, qualified};
use crate::catalog::objects::ObjectId;
use crate::sql::TableName;
use crate::sql::tokens::statement_length;
use crate::state::deferred::{Deferred, DeferredKind, Follows};

/// Keys first, as triggers and policies cannot break them. Rows of unlogged tables
/// are copied before all of these (`copy::unlogged`). Materialized views before
/// policies, which may be in force for the owner of the tables as well, and before
/// owners and privileges, which may take a right from us.
const KINDS: [DeferredKind; 7] = [
    DeferredKind::AfterRows,
    DeferredKind::Unlogged,
    DeferredKind::ForeignKey,
    DeferredKind::Trigger,
    DeferredKind::MaterializedView,
    DeferredKind::Other,
    DeferredKind::Administrator,
];

/// What an object of the dump may be besides the object itself.
const BESIDES: [&str; 6] = [VALIDATION, "owner of ", "comment ", "security label ", "acl ", ATTACH];
const VALIDATION: &str = "validation of ";
/// An index of its own, which takes its place below another one.
const ATTACH: &str = "index attach ";

/// Which of these it is: with the identity of the object, what it is for good.
pub(super) fn word(object: &Deferred) -> &'static str {
    BESIDES.into_iter().find(|word| object.object.starts_with(word)).unwrap_or_default()
}

/// Whether it validates a foreign key that is there by then.
pub(super) fn is_validation(object: &Deferred) -> bool {
    word(object) == VALIDATION
}

fn is_part(object: &Deferred) -> bool {
    !["", ATTACH].contains(&word(object))
}

/// What an object is known by to what belongs to it.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    /// A constraint of this table or domain.
    Constraint(TableName, String),
    Source(ObjectId),
}

/// The surer one first: what was taken away again is known by its names alone.
fn keys(object: &Deferred) -> impl Iterator<Item = Key> {
    let source = match object.follows {
        // It has the identity of its table.
        Follows::Source(_) if object.object.starts_with("row security ") => None,
        Follows::Source(id) => Some(Key::Source(id)),
        Follows::Nothing | Follows::Target { .. } => None,
    };
    constraint(&object.sql).into_iter().chain(source)
}

/// The constraint that the first of these statements adds, validates or comments on.
fn constraint(sql: &str) -> Option<Key> {
    let (first, _) = sql.split_at_checked(statement_length(sql))?;
    if let Some(rest) = first.strip_prefix("COMMENT ON CONSTRAINT ") {
        let (name, rest) = identifier(rest)?;
        let rest = rest.strip_prefix(" ON ")?;
        let (table, _) = qualified(rest.strip_prefix("DOMAIN ").unwrap_or(rest))?;
        return Some(Key::Constraint(table, name));
    }
    let altered = first.strip_prefix("ALTER ")?;
    let kinds = ["TABLE ONLY ", "TABLE ", "FOREIGN TABLE ONLY ", "FOREIGN TABLE ", "DOMAIN "];
    let (table, rest) = qualified(kinds.iter().find_map(|kind| altered.strip_prefix(kind))?)?;
    let rest = rest.trim_start();
    let (name, _) =
        identifier(["ADD CONSTRAINT ", "VALIDATE CONSTRAINT "].iter().find_map(|what| rest.strip_prefix(what))?)?;
    Some(Key::Constraint(table, name))
}

/// Objects, by what those know them by that belong to them. Of several that are the
/// same, the one that was listed last.
pub(super) struct Wholes<'o>(HashMap<Key, &'o Deferred>);

impl<'o> Wholes<'o> {
    /// Among these objects.
    pub(super) fn among(objects: impl IntoIterator<Item = &'o Deferred>) -> Self {
        let mut wholes: HashMap<Key, &Deferred> = HashMap::new();
        for object in objects.into_iter().filter(|object| !is_part(object)) {
            for key in keys(object) {
                let known = wholes.entry(key).or_insert(object);
                if known.ordinal < object.ordinal {
                    *known = object;
                }
            }
        }
        Wholes(wholes)
    }

    /// The one that `part` belongs to.
    pub(super) fn whole_of(&self, part: &Deferred) -> Option<&'o Deferred> {
        if !is_part(part) {
            return None;
        }
        keys(part).find_map(|key| self.0.get(&key).copied())
    }
}

/// These objects as they are to be brought in, one after the other.
pub(crate) fn in_order<'o>(objects: impl IntoIterator<Item = &'o Deferred>) -> Vec<&'o Deferred> {
    let mut objects: Vec<&Deferred> = objects.into_iter().collect();
    let wholes = Wholes::among(objects.iter().copied());
    let rank = |object: &Deferred| KINDS.iter().position(|kind| *kind == object.kind);
    objects.sort_by_cached_key(|object| {
        let whole = wholes.whole_of(object).unwrap_or(object);
        let (rank, ordinal) = (rank(object).max(rank(whole)), object.ordinal.max(whole.ordinal));
        // A validation waits for all keys: it reads their tables.
        (rank, is_validation(object), ordinal, is_part(object), object.ordinal)
    });
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(ordinal: i32, kind: DeferredKind, follows: Follows, object: &str, sql: &str) -> Deferred {
        let (table, object, sql) = (TableName::new("s", "t"), object.to_owned(), sql.to_owned());
        Deferred { ordinal, kind, table, object, sql, is_restored: false, follows }
    }

    #[test]
    fn what_belongs_to_an_object_comes_after_it_and_what_an_administrator_gives_last_whatever_the_numbers() {
        use DeferredKind::{Administrator, ForeignKey, Other, Trigger};
        let (key, domain, trigger) =
            (Follows::Source((2606, 1)), Follows::Source((2606, 2)), Follows::Source((2620, 3)));
        let objects = [
            object(0, Administrator, Follows::Nothing, "event trigger e", "CREATE EVENT TRIGGER e ON sql_drop;"),
            object(
                1,
                ForeignKey,
                key,
                "validation of fk constraint t k in s",
                "ALTER TABLE s.t VALIDATE CONSTRAINT k;",
            ),
            object(2, Other, domain, "comment CONSTRAINT d in s", "COMMENT ON CONSTRAINT c ON DOMAIN s.d IS 'x';"),
            object(3, Other, key, "comment CONSTRAINT k ON t in s", "COMMENT ON CONSTRAINT k ON s.t IS 'x';"),
            object(4, Other, trigger, "comment TRIGGER g ON t in s", "COMMENT ON TRIGGER g ON s.t IS 'x';"),
            object(5, Other, Follows::Nothing, "policy t p in s", "CREATE POLICY p ON s.t;"),
            object(6, Trigger, trigger, "trigger t g in s", "CREATE TRIGGER g AFTER INSERT ON s.t;"),
            object(
                7,
                Other,
                Follows::Nothing,
                "constraint c of domain s.d",
                r#"ALTER DOMAIN "s"."d" ADD CONSTRAINT "c" CHECK (true) NOT VALID;"#,
            ),
            object(
                8,
                ForeignKey,
                Follows::Nothing,
                r#"foreign key "k" of s.t"#,
                r#"ALTER TABLE "s"."t" ADD CONSTRAINT "k" FOREIGN KEY (a) REFERENCES s.u(a) NOT VALID;"#,
            ),
        ];
        let order: Vec<i32> = in_order(&objects).iter().map(|object| object.ordinal).collect();
        assert_eq!(order, [8, 1, 6, 5, 4, 7, 2, 3, 0]);
        let wholes = Wholes::among(&objects);
        let whole_of = |place: usize| wholes.whole_of(&objects[place]).map(|whole| whole.ordinal);
        assert_eq!(
            (0..9).map(whole_of).collect::<Vec<_>>(),
            [None, Some(8), Some(7), Some(8), Some(6), None, None, None, None]
        );
    }
}
