//! Which entries of the dump are executed, and when.
//!
//! Invariant: every kind of entry has its place by rule; one that this program
//! does not know is kept for the end, never dropped.
//!
//! Source: the `.description` of the archive entries in `src/bin/pg_dump/pg_dump.c`.

use std::collections::HashSet;

use super::archive::Entry;
use super::kind::Kind;
use super::source::PartitionedTables;
use crate::sql::tokens::statement_length;
use crate::sql::{TableName, ident};
use crate::state::deferred::{Deferred, DeferredKind, Follows};

/// The first PostgreSQL (`server_version_num`) that takes a foreign key of a
/// partitioned table as NOT VALID.
pub(super) const PARTITIONED_NOT_VALID: i32 = 180_000;

/// Whether an entry of pre-data is executed on the target. Comments on
/// extensions and on the schema "public" belong to those who made them.
pub(super) fn is_wanted(entry: &Entry) -> bool {
    let is_foreign_comment =
        entry.kind == Kind::Comment && (entry.name.starts_with("EXTENSION ") || entry.name == "SCHEMA public");
    !(is_foreign_comment || entry.kind.is_of_publishing() || (entry.kind == Kind::Schema && entry.name == "public"))
}

/// Kinds that only a superuser may create.
const SUPERUSERS: [Kind; 10] = [
    Kind::AccessMethod,
    Kind::Cast,
    Kind::ForeignDataWrapper,
    Kind::OperatorClass,
    Kind::OperatorFamily,
    Kind::ProceduralLanguage,
    Kind::ShellType,
    Kind::TextSearchParser,
    Kind::TextSearchTemplate,
    Kind::Transform,
];

/// Whether only a superuser may create it: somebody else may have done so
/// beforehand, as the error about it asks for.
pub(super) fn needs_superuser(entry: &Entry) -> bool {
    let natives = ["LANGUAGE c ", "LANGUAGE c\n", "LANGUAGE internal ", "LANGUAGE internal\n"];
    let is_native = || natives.iter().any(|language| entry.sql.contains(language));
    // Also one of which there is no more than the name.
    let is_base_type = || entry.sql.contains("\n    INTERNALLENGTH = ") || !entry.sql.contains(['(', '\n']);
    match &entry.kind {
        Kind::Function => is_native(),
        Kind::Type => is_base_type(),
        kind => SUPERUSERS.contains(kind),
    }
}

/// What an object that is an administrator's own is: pg_dump's word and its name.
/// Comments on it and the like are none.
pub(super) fn administrators_own(object: &Deferred) -> Option<(Kind, &str)> {
    let kinds = SUPERUSERS.into_iter().chain([Kind::Function, Kind::Type]);
    let named = |kind: Kind| {
        let name = object.object.strip_prefix(&format!("{} ", kind.shown()))?;
        Some((kind, name))
    };
    let (kind, name) = kinds.filter_map(named).next()?;
    let place = format!(" in {}", object.table.schema);
    Some((kind, name.strip_suffix(&place).filter(|_| !object.table.schema.is_empty()).unwrap_or(name)))
}

/// Whether only an administrator may give it, so that it waits for the end:
/// event triggers and what belongs to them. `others` are the entries that need a
/// superuser.
pub(super) fn is_administrators(entry: &Entry, others: &HashSet<u32>) -> bool {
    let is_note = matches!(entry.kind, Kind::Comment | Kind::SecurityLabel | Kind::Acl);
    entry.kind == Kind::EventTrigger
        || (is_note && entry.name.starts_with("EVENT TRIGGER "))
        || (is_note && entry.identity.belongs_to.iter().any(|id| others.contains(id)))
}

/// Whether it says something of one of these schemas.
pub(super) fn is_note_on(entry: &Entry, schemas: &HashSet<String>) -> bool {
    let schema = entry.name.strip_prefix("SCHEMA ").and_then(identifier);
    matches!(entry.kind, Kind::Comment | Kind::SecurityLabel) && schema.is_some_and(|(name, _)| schemas.contains(&name))
}

/// pg_dump's numbers of the entries that need a superuser.
pub(super) fn superusers(entries: &[Entry]) -> HashSet<u32> {
    entries.iter().filter(|entry| needs_superuser(entry)).map(|entry| entry.identity.dump_id).collect()
}

/// When an entry of post-data comes in.
pub(super) fn kind_of(entry: &Entry) -> DeferredKind {
    match entry.kind {
        // An UPDATE of another column passes on a value that violates it.
        Kind::CheckConstraint if entry.sql.starts_with("ALTER DOMAIN ") => DeferredKind::Other,
        Kind::Constraint | Kind::CheckConstraint | Kind::Index | Kind::IndexAttach | Kind::Statistics => {
            DeferredKind::AfterRows
        }
        // Their queries need a primary key (GROUP BY id), so pg_dump puts them
        // off; indexes and triggers may be theirs.
        Kind::MaterializedView | Kind::View | Kind::Function | Kind::Procedure => DeferredKind::AfterRows,
        // A view whose query needed a primary key: other objects may need the view.
        Kind::Rule if entry.name.ends_with(" _RETURN") => DeferredKind::AfterRows,
        Kind::FkConstraint => DeferredKind::ForeignKey,
        Kind::Trigger | Kind::Rule => DeferredKind::Trigger,
        _ if is_administrators(entry, &HashSet::new()) => DeferredKind::Administrator,
        _ => DeferredKind::Other,
    }
}

/// The entries of post-data as deferred objects, in pg_dump's order; foreign
/// keys are split into the key, NOT VALID, and its validation, which follows
/// when all keys are there.
pub(super) fn deferred(entries: &[Entry], partitioned: &PartitionedTables, target_version: i32) -> Vec<Deferred> {
    let mut objects = Vec::new();
    let mut validations = Vec::new();
    for entry in entries.iter().filter(|entry| is_wanted(entry)) {
        let kind = kind_of(entry);
        let table = table_of(entry).unwrap_or_else(|| TableName::new(entry.schema.clone(), ""));
        let mut object = Deferred {
            ordinal: 0,
            kind,
            table,
            object: describe(entry),
            sql: entry.sql.clone(),
            is_restored: false,
            follows: follows(entry),
        };
        if kind == DeferredKind::ForeignKey
            && (target_version >= PARTITIONED_NOT_VALID || !partitioned.contains(&object.table))
            && let Some((sql, validation)) = without_validation(entry, &object.table)
        {
            object.sql = sql;
            validations.push(Deferred {
                object: format!("validation of {}", object.object),
                sql: validation,
                ..object.clone()
            });
        }
        objects.push(object);
    }
    objects.extend(validations);
    objects
}

/// An entry that an administrator has to give if our role may not.
pub(super) fn of_administrator(entry: &Entry) -> Deferred {
    let table = TableName::new(entry.schema.clone(), "");
    let (object, sql) = (describe(entry), entry.sql.clone());
    Deferred {
        ordinal: 0,
        kind: DeferredKind::Administrator,
        table,
        object,
        sql,
        is_restored: false,
        follows: follows(entry),
    }
}

/// What an entry follows: the object that it is, or belongs to.
pub(super) fn follows(entry: &Entry) -> Follows {
    entry.identity.of.map_or(Follows::Nothing, Follows::Source)
}

/// Gives objects their numbers in order.
pub(super) fn number(objects: &mut [Deferred]) {
    for (ordinal, object) in (1..).zip(objects.iter_mut()) {
        object.ordinal = ordinal;
    }
}

/// For people: "constraint items items_pkey in shop".
pub(super) fn describe(entry: &Entry) -> String {
    let place = if entry.schema.is_empty() { String::new() } else { format!(" in {}", entry.schema) };
    format!("{} {}{place}", entry.kind.shown(), entry.name)
}

/// The key as NOT VALID, and the statement that validates it; `None` when it
/// is not to be validated, being NOT VALID or NOT ENFORCED on the source.
fn without_validation(entry: &Entry, table: &TableName) -> Option<(String, String)> {
    let (statement, rest) = entry.sql.split_at_checked(statement_length(&entry.sql).checked_sub(1)?)?;
    if !rest.starts_with(';') || statement.ends_with(" NOT VALID") || statement.ends_with(" NOT ENFORCED") {
        return None;
    }
    // Names may hold anything, these words and semicolons too.
    let altered = statement.strip_prefix("ALTER TABLE ")?;
    let (_, altered) = qualified(altered.strip_prefix("ONLY ").unwrap_or(altered))?;
    let (name, _) = identifier(altered.trim_start().strip_prefix("ADD CONSTRAINT ")?)?;
    Some((
        format!("{statement} NOT VALID{rest}"),
        format!("ALTER TABLE {} VALIDATE CONSTRAINT {};", table.sql(), ident(&name)),
    ))
}

/// The table (or materialized view) that an entry of post-data belongs to,
/// read from its first statement.
fn table_of(entry: &Entry) -> Option<TableName> {
    let sql = entry.sql.as_str();
    let rest = match entry.kind {
        // A CHECK goes to the children as well, whose rows may not be there yet: it is
        // of no single table.
        Kind::Constraint | Kind::FkConstraint | Kind::RowSecurity => {
            let rest = sql.strip_prefix("ALTER ").and_then(|rest| rest.split_once("TABLE "))?.1;
            rest.strip_prefix("ONLY ").unwrap_or(rest)
        }
        Kind::Index => {
            let (_, rest) = sql.split_once("INDEX ")?;
            let (_, rest) = identifier(rest)?;
            let rest = rest.strip_prefix(" ON ")?;
            rest.strip_prefix("ONLY ").unwrap_or(rest)
        }
        Kind::Statistics => sql.rsplit_once(" FROM ")?.1,
        Kind::Policy => {
            let (_, rest) = identifier(sql.strip_prefix("CREATE POLICY ")?)?;
            rest.strip_prefix(" ON ")?
        }
        _ => return None,
    };
    qualified(rest).map(|(table, _)| table)
}

/// The "schema.name" at the start of `text`, and what follows it.
pub(super) fn qualified(text: &str) -> Option<(TableName, &str)> {
    let (schema, rest) = identifier(text)?;
    let (name, rest) = identifier(rest.strip_prefix('.')?)?;
    Some((TableName { schema, name }, rest))
}

/// The identifier at the start of `text`, unquoted, and what follows it.
pub(super) fn identifier(text: &str) -> Option<(String, &str)> {
    let is_escaped = text.starts_with("U&\"");
    let Some(quoted) = text.strip_prefix("U&").filter(|_| is_escaped).unwrap_or(text).strip_prefix('"') else {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(text.len());
        let (name, rest) = text.split_at_checked(end)?;
        return (!name.is_empty()).then(|| (name.to_owned(), rest));
    };
    let mut name = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((index, c)) = chars.next() {
        match (c, chars.peek()) {
            ('"', Some((_, '"'))) => {
                name.push('"');
                chars.next();
            }
            ('"', _) => return Some((name, quoted.get(index + 1..)?)),
            ('\\', Some((_, '\\'))) if is_escaped => {
                name.push(c);
                chars.next();
            }
            // As `crate::sql::ident` writes control characters.
            ('\\', _) if is_escaped => {
                let code = u32::from_str_radix(quoted.get(index + 1..index + 5)?, 16).ok()?;
                name.push(char::from_u32(code)?);
                chars.nth(3);
            }
            _ => name.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_unquoted_and_end_where_they_end() {
        assert_eq!(identifier("a_1.b"), Some(("a_1".to_owned(), ".b")));
        assert_eq!(identifier("\"a\"\" ON \".\"b\""), Some(("a\" ON ".to_owned(), ".\"b\"")));
        let hard = "a\"\n\\b\t";
        assert_eq!(identifier(&format!("{}.x", ident(hard))), Some((hard.to_owned(), ".x")));
        assert_eq!(identifier("U&b"), Some(("U".to_owned(), "&b")));
        assert_eq!(identifier("\"open"), None);
        assert_eq!(identifier(""), None);
    }
}
