//! What waits for the end follows the tables and objects that it is about, which
//! may have been renamed, moved or dropped on both sides meanwhile.
//!
//! Invariants: objects are known by oid, never by name. What pg_dump wrote is known
//! by the source's catalog: if anything there is not as the recorded SQL has it, the
//! schema is dumped anew, and what waits takes the SQL of the same objects from it.
//! What the target's own catalog told is known by its tables there, whose names are
//! put into the SQL. What is about an object that is no more falls away, and is said.
//! Nothing is added. All of it is one transaction, and done again it changes nothing.

use std::collections::{HashMap, HashSet};

use super::classify::{identifier, qualified};
use super::dump::{Dump, Patience, Scope};
use super::order::word;
use super::{SchemaError, batch, find_pg_dump};
use crate::catalog::objects::ObjectId;
use crate::catalog::present::{self, LOOKED_AT, Present, Standing};
use crate::config::Settings;
use crate::membership::SourceTable;
use crate::session::Session;
use crate::sql::printed::printed;
use crate::sql::tokens::{statement_length, token_length};
use crate::sql::{TableName, ident};
use crate::state::State;
use crate::state::deferred::{Deferred, Follows};

/// What becomes of an object that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Becomes {
    /// The same, with other SQL.
    Renamed(Deferred),
    /// Nothing.
    Nothing(Deferred),
}

/// Brings what waits up to what the two catalogs have by now. `state` has a session
/// of its own, and tables have the same names on both sides.
///
/// # Errors
/// When a catalog cannot be read, or pg_dump is wanted and cannot be run.
pub async fn follow(
    settings: &Settings,
    state: &State,
    source: &Session,
    tables: &[SourceTable],
) -> Result<(), SchemaError> {
    let waiting: Vec<Deferred> = state.deferred().await?.into_iter().filter(|object| !object.is_restored).collect();
    let mut changes = on_target(state.session(), &waiting).await?;
    changes.extend(on_source(settings, (source, state.session().version()), &waiting, tables).await?);
    if changes.is_empty() {
        return Ok(());
    }
    batch(state.session(), "BEGIN", "begin to follow renamed tables").await?;
    let mut renamed = 0_usize;
    for change in &changes {
        match change {
            Becomes::Renamed(object) => {
                state.replace_deferred(object).await?;
                renamed += 1;
            }
            Becomes::Nothing(object) => {
                let what = format!(
                    "{} was held back for the end and falls away: what it is about was dropped, or is left out by now",
                    object.object
                );
                tracing::warn!(sql = printed(&object.sql), "{what}");
                state.forget_deferred(object.ordinal).await?;
                state.journal(&what).await?;
            }
        }
    }
    if renamed > 0 {
        let what = "what is held back for the end follows what was renamed or altered meanwhile";
        tracing::info!(objects = renamed, "{what}");
        state.journal(&format!("{what} ({renamed} objects)")).await?;
    }
    state.commit("follow renamed tables").await?;
    Ok(())
}

/// What pg_dump wrote.
async fn on_source(
    settings: &Settings,
    (source, target_version): (&Session, i32),
    waiting: &[Deferred],
    tables: &[SourceTable],
) -> Result<Vec<Becomes>, SchemaError> {
    let ids: HashSet<ObjectId> = waiting.iter().filter_map(id_of).collect();
    let ids: Vec<ObjectId> = ids.into_iter().collect();
    let there = present::present(source, &ids).await?;
    let stale: HashSet<i32> = waiting.iter().filter(|o| is_stale(o, &there)).map(|object| object.ordinal).collect();
    if stale.is_empty() {
        return Ok(Vec::new());
    }
    tracing::info!(
        objects = stale.len(),
        "what is held back was renamed, altered or dropped on the source: asking anew"
    );
    let pg_dump = find_pg_dump(settings.pg_bin.as_deref(), source.version())?;
    let what = (Scope::All { snapshot: None }, Patience::Run);
    let dump = Dump::read(&pg_dump, settings, (source, target_version), what, tables).await?;
    Ok(matched(waiting, &stale, dump.deferred(tables, target_version)))
}

fn id_of(object: &Deferred) -> Option<ObjectId> {
    match object.follows {
        Follows::Source(id) => Some(id),
        Follows::Nothing | Follows::Target { .. } => None,
    }
}

/// Whether the SQL of an object is not what the source has by now. What is not looked
/// at is taken for unchanged.
fn is_stale(object: &Deferred, there: &HashMap<ObjectId, Present>) -> bool {
    let Some(id) = id_of(object) else { return false };
    let Some(now) = there.get(&id) else { return LOOKED_AT.contains(&id.0) };
    let names = now.relation.iter().flat_map(|name| [name.sql(), name.text()]).chain(now.quoted.clone());
    let is_named = now.relation.is_none() || names.into_iter().any(|name| object.sql.contains(&name));
    let is_itself = word(object).is_empty();
    !(is_named && (!is_itself || now.definitions.iter().all(|words| object.sql.contains(words))))
}

/// What becomes of those that wait, by the dump of `now`: the same objects by identity,
/// or by their words where the source has made them again. Those that are `stale` and
/// have no counterpart fall away.
fn matched(waiting: &[Deferred], stale: &HashSet<i32>, now: Vec<Deferred>) -> Vec<Becomes> {
    let mut left: Vec<Option<Deferred>> = now.into_iter().map(Some).collect();
    let mut take = |is_meant: &dyn Fn(&Deferred) -> bool| {
        left.iter_mut().find(|other| other.as_ref().is_some_and(is_meant)).and_then(Option::take)
    };
    let known: Vec<(&Deferred, ObjectId)> =
        waiting.iter().filter_map(|object| Some((object, id_of(object)?))).collect();
    let mut found: HashMap<i32, Deferred> = HashMap::new();
    // The same words first: a table may have several privileges.
    for is_exact in [true, false] {
        for (object, id) in &known {
            if found.contains_key(&object.ordinal) {
                continue;
            }
            let same = |other: &Deferred| {
                id_of(other) == Some(*id) && word(other) == word(object) && (!is_exact || other.object == object.object)
            };
            found.extend(take(&same).map(|other| (object.ordinal, other)));
        }
    }
    for (object, _) in &known {
        if stale.contains(&object.ordinal) && !found.contains_key(&object.ordinal) {
            let again = |other: &Deferred| other.kind == object.kind && other.object == object.object;
            found.extend(take(&again).map(|other| (object.ordinal, other)));
        }
    }
    let becomes = |(object, _): &(&Deferred, ObjectId)| match found.remove(&object.ordinal) {
        Some(now) => {
            let now = Deferred { ordinal: object.ordinal, ..now };
            (now != **object).then_some(Becomes::Renamed(now))
        }
        None => stale.contains(&object.ordinal).then(|| Becomes::Nothing((*object).clone())),
    };
    known.iter().filter_map(becomes).collect()
}

/// What the target's own catalog told.
async fn on_target(target: &Session, waiting: &[Deferred]) -> Result<Vec<Becomes>, SchemaError> {
    let by_words: HashMap<&str, &Deferred> = waiting.iter().map(|object| (object.object.as_str(), object)).collect();
    let named: Vec<(&Deferred, Vec<(u32, TableName)>)> =
        waiting.iter().filter_map(|o| Some((o, tables_of(key_of(o, &by_words))?))).collect();
    let all: HashSet<(u32, TableName)> = named.iter().flat_map(|(_, tables)| tables.iter().cloned()).collect();
    let all: Vec<(u32, TableName)> = all.into_iter().collect();
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let standing = present::standing(target, &all).await?;
    Ok(named.iter().filter_map(|(object, tables)| renamed(object, tables, &standing)).collect())
}

/// The key that a validation waits for, if that waits as well: it alone names both
/// tables. Any other object stands for itself.
fn key_of<'o>(object: &'o Deferred, by_words: &HashMap<&str, &'o Deferred>) -> &'o Deferred {
    let key = object.object.strip_prefix("validation of ");
    key.and_then(|key| by_words.get(key).copied()).unwrap_or(object)
}

/// The tables of the target that a statement names, with the names that it has for them.
fn tables_of(object: &Deferred) -> Option<Vec<(u32, TableName)>> {
    let Follows::Target { table, referenced } = object.follows else { return None };
    let parts = Parts::of(&object.sql)?;
    let referenced = referenced.zip(parts.referenced.map(|(name, _)| name));
    Some([(table, parts.table)].into_iter().chain(referenced).collect())
}

fn renamed(
    object: &Deferred,
    tables: &[(u32, TableName)],
    standing: &HashMap<(u32, TableName), Standing>,
) -> Option<Becomes> {
    let mut names = Vec::new();
    for table in tables {
        match standing.get(table)? {
            Standing::Is(name) => names.push(name.clone()),
            Standing::Again => names.push(table.1.clone()),
            Standing::Gone => return Some(Becomes::Nothing(object.clone())),
        }
    }
    if names.iter().eq(tables.iter().map(|(_, name)| name)) {
        return None;
    }
    let before = &tables.first()?.1;
    let table = names.first()?.clone();
    let sql = Parts::of(&object.sql)?.with_names(&table, names.get(1));
    let words = object.object.strip_suffix(&before.to_string());
    let words = words.map_or_else(|| object.object.clone(), |words| format!("{words}{table}"));
    // What is of no single table has the schema alone.
    let name = if object.table.name.is_empty() { TableName::new(table.schema, "") } else { table };
    let now = Deferred { table: name, object: words, sql, ..object.clone() };
    (now != *object).then_some(Becomes::Renamed(now))
}

/// A statement of [`super::existing`], taken apart at its tables' names:
/// `ALTER TABLE [ONLY] table … [REFERENCES table …]; [COMMENT ON CONSTRAINT name ON table …]`.
#[derive(Debug)]
struct Parts<'s> {
    head: &'static str,
    table: TableName,
    middle: &'s str,
    /// The other table, and what follows it.
    referenced: Option<(TableName, &'s str)>,
    /// The constraint of a comment behind it, and what follows its table.
    comment: Option<(String, &'s str)>,
}

const REFERENCES: &str = " REFERENCES ";

impl<'s> Parts<'s> {
    fn of(sql: &'s str) -> Option<Self> {
        let (first, rest) = sql.split_at_checked(statement_length(sql))?;
        let head = ["ALTER TABLE ONLY ", "ALTER TABLE "].into_iter().find(|head| first.starts_with(head))?;
        let (table, tail) = qualified(first.strip_prefix(head)?)?;
        let key = outside_of_quotes(tail, REFERENCES).and_then(|at| {
            let (middle, other) = tail.split_at_checked(at + REFERENCES.len())?;
            Some((middle, qualified(other)?))
        });
        let (middle, referenced) = key.map_or((tail, None), |(middle, other)| (middle, Some(other)));
        let comment = rest.trim_start().strip_prefix("COMMENT ON CONSTRAINT ").and_then(|rest| {
            let (name, rest) = identifier(rest)?;
            let (_, rest) = qualified(rest.strip_prefix(" ON ")?)?;
            Some((name, rest))
        });
        Some(Parts { head, table, middle, referenced, comment })
    }

    fn with_names(&self, table: &TableName, referenced: Option<&TableName>) -> String {
        let mut sql = format!("{}{}{}", self.head, table.sql(), self.middle);
        if let Some((before, rest)) = &self.referenced {
            sql.push_str(&referenced.unwrap_or(before).sql());
            sql.push_str(rest);
        }
        if let Some((name, rest)) = &self.comment {
            sql.push_str(&format!("\nCOMMENT ON CONSTRAINT {} ON {}{rest}", ident(name), table.sql()));
        }
        sql
    }
}

/// Where these words begin, in bytes, outside of every quoted name and string.
fn outside_of_quotes(text: &str, words: &str) -> Option<usize> {
    let mut at = 0;
    while let (Some(before), Some(rest)) = (text.get(..at), text.get(at..).filter(|rest| !rest.is_empty())) {
        if rest.starts_with(words) {
            return Some(at);
        }
        at += token_length(rest, before);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::deferred::DeferredKind;

    fn object(ordinal: i32, oid: u32, object: &str, sql: &str) -> Deferred {
        Deferred {
            ordinal,
            kind: DeferredKind::ForeignKey,
            table: TableName::new("s", "a"),
            object: object.into(),
            sql: sql.into(),
            is_restored: false,
            follows: Follows::Source((2606, oid)),
        }
    }

    #[test]
    fn what_waits_is_matched_by_identity_then_by_words_and_nothing_is_added() {
        let waiting = [
            object(3, 1, "fk constraint a k in s", "old"),
            object(4, 1, "validation of fk constraint a k in s", "old validation"),
            object(5, 2, "fk constraint a again in s", "old again"),
            object(6, 3, "fk constraint a gone in s", "gone"),
            object(7, 4, "fk constraint a unseen in s", "unseen"),
        ];
        let now = vec![
            object(1, 9, "fk constraint a2 new in s", "new"),
            object(2, 8, "fk constraint a again in s", "again"),
            object(3, 1, "fk constraint a2 k in s", "now"),
            object(4, 1, "validation of fk constraint a2 k in s", "now validation"),
        ];
        let becomes = matched(&waiting, &HashSet::from([3, 4, 5, 6]), now.clone());
        let same = |place: usize, ordinal| Becomes::Renamed(Deferred { ordinal, ..now[place].clone() });
        assert_eq!(becomes, [same(2, 3), same(3, 4), same(1, 5), Becomes::Nothing(waiting[3].clone())]);
        assert_eq!(matched(&now, &HashSet::from([1]), now.clone()), [], "what is as it was stays");
    }

    #[test]
    fn names_are_put_into_statements_of_every_kind_and_nothing_else_is_touched() {
        let (table, other) = (TableName::new("t", "new"), TableName::new("u", "o"));
        for (sql, expected) in [
            (
                r#"ALTER TABLE "s"."b" ADD CONSTRAINT "k" FOREIGN KEY (" REFERENCES s.a(") REFERENCES s."A b"(id) ON DELETE CASCADE NOT VALID;"#,
                r#"ALTER TABLE "t"."new" ADD CONSTRAINT "k" FOREIGN KEY (" REFERENCES s.a(") REFERENCES "u"."o"(id) ON DELETE CASCADE NOT VALID;"#,
            ),
            (
                "ALTER TABLE \"s\".\"b\" ADD CONSTRAINT \"k\" CHECK ((v <> ';\"s\".\"b\"'::text)) NOT VALID;\nCOMMENT ON CONSTRAINT \"k\" ON \"s\".\"b\" IS 'of s.b';",
                "ALTER TABLE \"t\".\"new\" ADD CONSTRAINT \"k\" CHECK ((v <> ';\"s\".\"b\"'::text)) NOT VALID;\nCOMMENT ON CONSTRAINT \"k\" ON \"t\".\"new\" IS 'of s.b';",
            ),
            (
                r#"ALTER TABLE ONLY "s"."b" ENABLE ALWAYS TRIGGER "s.b";"#,
                r#"ALTER TABLE ONLY "t"."new" ENABLE ALWAYS TRIGGER "s.b";"#,
            ),
            (r#"ALTER TABLE "s"."b" VALIDATE CONSTRAINT "k";"#, r#"ALTER TABLE "t"."new" VALIDATE CONSTRAINT "k";"#),
        ] {
            let parts = Parts::of(sql).expect("it is understood");
            assert_eq!(parts.table, TableName::new("s", "b"));
            assert_eq!(parts.with_names(&table, Some(&other)), expected);
        }
        assert!(Parts::of("ALTER DOMAIN s.d ADD CONSTRAINT k CHECK (true)").is_none());
    }
}
