//! Tables that differ from another one by their names alone: of thousands of them a
//! trial tries one.
//!
//! Invariant: what is left out of a trial would have been taken as the one was that
//! is tried. So a table is left out only with its sequences, defaults, comments and
//! privileges; if their statements are, but for the table's, the sequences' and (where
//! the dump creates it) the schema's name, those of the other; if nothing else that is
//! created before the rows needs one of them; if their names are free; if no event
//! trigger of the target looks at names; and if the server has room for the locks of
//! them all.
//!
//! Source: `fmtId` in `src/fe_utils/string_utils.c` (names in a dump), `NLOCKENTS` in
//! `src/backend/storage/lmgr/lock.c`.

use std::collections::{HashMap, HashSet};

use super::archive::{Entry, Told};
use super::kind::Kind;
use crate::catalog::holders::{self, Wanted};
use crate::catalog::objects::{self, ObjectId};
use crate::catalog::settings;
use crate::session::{DbError, Session};
use crate::sql::TableName;

/// The places of the entries that need not be tried.
///
/// # Errors
/// When a catalog cannot be read.
pub(super) async fn others(source: &Session, target: &Session, entries: &[Entry]) -> Result<HashSet<usize>, DbError> {
    let families = families(entries, &objects::of_tables_alone(source).await?);
    if locks(entries, &families) > room_for_locks(target).await? || objects::has_event_triggers(target).await? {
        return Ok(HashSet::new());
    }
    let created = entries.iter().filter(|entry| entry.kind == Kind::Schema).map(|entry| entry.name.as_str()).collect();
    let mut shapes = HashSet::new();
    let alike: Vec<&Vec<usize>> =
        families.iter().filter(|places| shape(entries, places, &created).is_some_and(|s| !shapes.insert(s))).collect();
    let relation = |place: &usize| entries.get(*place).and_then(relation).map(Wanted::Relation);
    let names: Vec<Wanted> = alike.iter().flat_map(|places| places.iter().filter_map(relation)).collect();
    let taken = holders::frees(target, &names).await?;
    let is_free = |places: &Vec<usize>| !places.iter().filter_map(relation).any(|name| taken.contains_key(&name));
    Ok(alike.into_iter().filter(|places| is_free(places)).flatten().copied().collect())
}

/// Locks that the transaction has at its end, at most: a table with its TOAST table
/// and that one's index; defaults, owners of sequences, comments and privileges of a
/// table take that one's or its sequence's.
fn locks(entries: &[Entry], families: &[Vec<usize>]) -> usize {
    let of_tables: HashSet<usize> = families.iter().flatten().copied().collect();
    let of = |(place, entry): (usize, &Entry)| match entry.kind {
        Kind::Table => 3,
        Kind::Sequence => 1,
        _ if of_tables.contains(&place) => 0,
        _ => 1,
    };
    entries.iter().enumerate().map(of).sum()
}

/// Locks that the server has room for, at least.
async fn room_for_locks(target: &Session) -> Result<usize, DbError> {
    let factors = ["max_locks_per_transaction", "max_connections"];
    let found = settings::read(target, &factors).await?;
    let factor = |name| found.number(name).and_then(|number| usize::try_from(number).ok()).unwrap_or_default();
    Ok(factors.into_iter().map(factor).product())
}

/// The places of the entries of each table, in the order of the tables.
fn families(entries: &[Entry], members: &HashMap<ObjectId, u32>) -> Vec<Vec<usize>> {
    let table_of = |entry: &Entry| match entry.identity.told {
        Told::Object(id) => members.get(&id).copied(),
        Told::Nothing | Told::RowSecurityOf(_) => None,
    };
    let by_dump_id: HashMap<u32, u32> =
        entries.iter().filter_map(|entry| Some((entry.identity.dump_id, table_of(entry)?))).collect();
    let mut families: HashMap<u32, Vec<usize>> = HashMap::new();
    for (place, entry) in entries.iter().enumerate() {
        let needed = || entry.identity.belongs_to.iter().find_map(|id| by_dump_id.get(id)).copied();
        if let Some(table) = table_of(entry).or_else(needed) {
            families.entry(table).or_default().push(place);
        }
    }
    let mut families: Vec<Vec<usize>> = families.into_values().collect();
    families.sort();
    families
}

/// The statements of a table's entries without the names that are its own; `None` if
/// it cannot be told where these are.
fn shape(entries: &[Entry], places: &[usize], created: &HashSet<&str>) -> Option<String> {
    let family: Vec<&Entry> = places.iter().filter_map(|place| entries.get(*place)).collect();
    let mut names: Vec<TableName> = family.iter().filter_map(|entry| relation(entry)).collect();
    let schema = names.first()?.schema.clone();
    if names.iter().any(|name| name.schema != schema) {
        return None;
    }
    // The longer ones first: one name may be the beginning of another.
    names.sort_by_key(|name| std::cmp::Reverse(name.name.len()));
    let mut text = if created.contains(schema.as_str()) { String::new() } else { schema.clone() };
    for entry in family {
        let mut sql = entry.sql.clone();
        for (n, name) in names.iter().enumerate() {
            for schema in written(&schema) {
                for name in written(&name.name) {
                    sql = without(&sql, &format!("{schema}.{name}"), &format!("\0{n}"));
                }
            }
        }
        if relation(entry).is_some() && !sql.contains('\0') {
            return None;
        }
        if created.contains(schema.as_str()) {
            for schema in written(&schema) {
                sql = without(&sql, &format!("{schema}."), "\0.");
            }
        }
        text.push_str(&format!("\0\0{}\0{sql}", entry.kind));
    }
    Some(text)
}

/// The name of a table or sequence.
fn relation(entry: &Entry) -> Option<TableName> {
    let is_one = matches!(entry.kind, Kind::Table | Kind::Sequence);
    is_one.then(|| TableName::new(entry.schema.as_str(), entry.name.as_str()))
}

/// A name as pg_dump may write it.
fn written(name: &str) -> [String; 2] {
    [name.to_owned(), format!("\"{}\"", name.replace('"', "\"\""))]
}

/// A text without a name, where it stands by itself.
fn without(text: &str, name: &str, instead: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | '"' | '.');
    let ends_open = name.ends_with('.');
    let (mut rest, mut found) = (text, String::with_capacity(text.len()));
    while let Some((before, after)) = rest.split_once(name) {
        found.push_str(before);
        let goes_on = after.starts_with(is_word) && !ends_open && !after.starts_with('.');
        let is_own = !goes_on && !found.ends_with(is_word);
        found.push_str(if is_own { instead } else { name });
        rest = after;
    }
    found.push_str(rest);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::archive::Identity;

    fn entry((kind, schema, name): (&str, &str, &str), sql: &str, identity: Identity) -> Entry {
        let (name, kind, schema) = (name.to_owned(), kind.into(), schema.to_owned());
        Entry { name, kind, schema, owner: String::new(), sql: sql.to_owned(), identity }
    }

    /// A table with a serial column; `n` makes its oids.
    fn serial(n: u32, schema: &str, name: &str, columns: &str) -> Vec<Entry> {
        let identity =
            |dump_id, told, belongs_to: &[u32]| Identity { dump_id, told, belongs_to: belongs_to.to_vec(), of: None };
        let q = format!("{schema}.{name}");
        vec![
            entry(
                ("TABLE", schema, name),
                &format!("CREATE TABLE {q} (\n    id integer NOT NULL, {columns}\n);"),
                identity(n, Told::Object((1259, n)), &[]),
            ),
            entry(
                ("SEQUENCE", schema, &format!("{name}_id_seq")),
                &format!("CREATE SEQUENCE {q}_id_seq\n    START WITH 1;"),
                identity(n + 1, Told::Object((1259, n + 1)), &[]),
            ),
            entry(
                ("SEQUENCE OWNED BY", schema, &format!("{name}_id_seq")),
                &format!("ALTER SEQUENCE {q}_id_seq OWNED BY {q}.id;"),
                identity(n + 2, Told::Nothing, &[n + 1]),
            ),
            entry(
                ("DEFAULT", schema, &format!("{name} id")),
                &format!("ALTER TABLE ONLY {q} ALTER COLUMN id SET DEFAULT nextval('{q}_id_seq'::regclass);"),
                identity(n + 3, Told::Object((2604, n + 3)), &[]),
            ),
        ]
    }

    /// How many shapes the tables have.
    fn shapes(tables: &[Vec<Entry>], created: &[&str]) -> usize {
        let entries = tables.concat();
        let members = entries.iter().filter_map(|entry| match entry.identity.told {
            Told::Object(id) => Some((id, entry.identity.dump_id / 10)),
            _ => None,
        });
        let families = families(&entries, &members.collect());
        assert_eq!(families.len(), tables.len());
        assert!(families.iter().all(|family| family.len() == 4));
        let created = created.iter().copied().collect();
        let found: HashSet<Option<String>> = families.iter().map(|family| shape(&entries, family, &created)).collect();
        assert!(!found.contains(&None));
        found.len()
    }

    #[test]
    fn tables_are_alike_that_differ_by_their_names_alone() {
        let table = |n: u32, name: &str| serial(n * 10, "public", name, "v text");
        assert_eq!(shapes(&[table(1, "t1"), table(2, "t10"), table(3, "t")], &[]), 1);
        let quoted = |n: u32, name: &str| {
            let mut entries = table(n, &format!("\"{name}\""));
            for (entry, end) in entries.iter_mut().zip(["", "_id_seq", "_id_seq", " id"]) {
                (entry.name, entry.sql) = (format!("{name}{end}"), entry.sql.replace("\"_id_seq", "_id_seq\""));
            }
            entries
        };
        assert_eq!(shapes(&[table(1, "t1"), quoted(2, "T 1"), quoted(3, "order")], &[]), 1);
    }

    #[test]
    fn a_table_with_a_serial_column_takes_the_locks_of_its_relations() {
        let entries = serial(10, "public", "t1", "v text");
        assert_eq!(locks(&entries, &[(0..entries.len()).collect()]), 3 + 1);
        assert_eq!(locks(&entries, &[]), 3 + 1 + 2, "what is no table's may be locked by itself");
    }

    #[test]
    fn whatever_else_differs_makes_another_shape() {
        for (a, b) in [("v text", "v integer"), ("v text", "w text"), ("v public.e1", "v public.e2")] {
            assert_eq!(shapes(&[serial(10, "public", "t1", a), serial(20, "public", "t2", b)], &[]), 2, "{a} {b}");
        }
        let mut hers = serial(20, "public", "t2", "v text");
        hers[3].sql = hers[3].sql.replace("public.t2_id_seq", "public.t1_id_seq");
        assert_eq!(shapes(&[serial(10, "public", "t1", "v text"), hers], &[]), 2);
    }

    #[test]
    fn a_schema_is_a_name_as_well_where_the_dump_creates_it() {
        let of = |n: u32, schema: &str| serial(n, schema, "t", &format!("v {schema}.status"));
        assert_eq!(shapes(&[of(10, "a"), of(20, "b")], &["a", "b"]), 1);
        assert_eq!(shapes(&[of(10, "a"), of(20, "b")], &["a"]), 2);
        assert_eq!(shapes(&[of(10, "a"), serial(20, "b", "t", "v a.status")], &["a", "b"]), 2, "another's type");
    }

    #[test]
    fn a_name_is_found_where_it_stands_by_itself() {
        assert_eq!(without("a.t a.t_x xa.t 'a.t' a.t.id b.a.t", "a.t", "!"), "! a.t_x xa.t '!' !.id b.a.t");
        assert_eq!(without("a.t ba.t", "a.", "!."), "!.t ba.t");
    }
}
