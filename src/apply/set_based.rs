//! Net changes → set-based statements: the fast path's SQL. Pure.
//!
//! ```text
//! deletes   DELETE … = ANY ($1::text[]::type[]), or
//!           DELETE … USING (SELECT a1::type … FROM unnest($1::text[], …)), or
//!           of whole rows, with one look at the table ([`whole_rows`])
//! updates   UPDATE … FROM  (SELECT …), one statement per set of columns
//! inserts   INSERT … SELECT … FROM unnest, or COPY for long runs
//! ```
//!
//! Invariants: values travel as `text[]`, one array a column, and are cast in
//! the select list (an array of arrays would be flattened by `unnest`), to the
//! column's type without its modifier, for a cast to `varchar(3)` would cut what
//! an assignment refuses, and only where that is the type's input function
//! (`find_coercion_pathway` in `parse_coerce.c` prefers a cast that somebody made); every
//! statement counts the rows it affected and fails by itself (division by
//! zero) when they are not as many as expected, so COMMIT can be sent behind it
//! without waiting; a key is at most once in a statement.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::mapping::{Identity, Mapping};
use super::render::{RenderError, Shape, compared};
use super::target::Generation;
use crate::coalesce::{Net, Row, Updated};
use crate::pgoutput::{Tuple, Value};
use crate::sql::ident;

/// Rows from which on COPY is faster than INSERT … unnest: parsing a COPY
/// costs about as much as inserting this many rows.
const COPY_ROWS: usize = 200;

/// Bytes of rows that one UPDATE takes at most. Megabytes of arrays are memory
/// that the server asks its system for, and gives back, with each statement;
/// that costs more than a few statements do. Measured from 96 KiB to 16 MiB.
const UPDATE_BYTES: usize = 256 * 1024;

/// Columns a set-based statement takes: one array parameter each, and the
/// server's target list ends at 1664.
pub const COLUMNS_MAX: usize = 400;

/// Element type of the array parameters: `text`.
const TEXT_OID: u32 = 25;

/// A set-based statement with its values.
#[derive(Debug)]
pub enum SetStatement {
    /// A prepared statement: arrays in binary format, then the expected count.
    Arrays {
        /// What to execute.
        shape: Arc<Shape>,
        /// One `text[]` a column, encoded.
        arrays: Vec<BytesMut>,
        /// Rows it must affect.
        rows: usize,
        /// How the server may get at the table's rows.
        access: Access,
    },
    /// A COPY FROM STDIN in text format.
    Copy {
        /// The command.
        sql: String,
        /// The rows.
        data: BytesMut,
        /// Rows it takes; COPY counts by itself.
        rows: usize,
    },
}

/// How the server may get at the rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// By an index, as the connection's plans do.
    Indexed,
    /// As it sees fit.
    Free,
}

/// How rows that change are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// By UPDATE.
    Updating,
    /// By DELETE and INSERT where all their values are at hand. What is left of
    /// a table between the two, and while the rows come in, is a part of what
    /// it is at the end: no unique or exclusion constraint can be in the way
    /// that holds at the end.
    Replacing,
    /// By UPDATE, and so is a row that goes and comes again under its key: where
    /// foreign keys are in force inserts come before deletes, and meanwhile
    /// others may refer to the row.
    Keeping,
}

/// The statements of a table's net changes, in the order in which they are
/// executed.
#[derive(Debug, Default)]
pub struct Statements {
    /// Removes rows.
    pub deletes: Vec<SetStatement>,
    /// Changes rows, a statement for each set of columns.
    pub updates: Vec<SetStatement>,
    /// Adds rows.
    pub inserts: Option<SetStatement>,
}

impl Statements {
    /// All of them in their order.
    pub fn iter(&self) -> impl Iterator<Item = &SetStatement> {
        self.deletes.iter().chain(&self.updates).chain(&self.inserts)
    }
}

/// What distinguishes the shapes of one mapping.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Form {
    Delete,
    /// Of whole rows, looked for by these columns.
    DeleteWhole(Vec<usize>),
    Update(Vec<usize>),
    Insert,
}

/// The set-based statements of one relation.
#[derive(Debug, Default)]
pub struct SetRenderer {
    shapes: HashMap<Form, Arc<Shape>>,
}

impl SetRenderer {
    /// The statements of a table's net changes.
    ///
    /// # Errors
    /// When a value is missing; nothing is left out silently.
    pub fn render(&mut self, mapping: &Mapping, net: &Net<'_>, writing: Writing) -> Result<Statements, RenderError> {
        let Identity::Key(key) = &mapping.identity else {
            let deletes = if net.deletes.is_empty() { Vec::new() } else { self.whole_rows(mapping, &net.deletes)? };
            return Ok(Statements { deletes, updates: Vec::new(), inserts: self.inserts(mapping, &net.inserts)? });
        };
        let other;
        let net = match writing {
            Writing::Updating => net,
            Writing::Replacing => {
                other = replacing(mapping, net);
                &other
            }
            Writing::Keeping => {
                other = keeping(mapping, key, net);
                &other
            }
        };
        let deletes =
            if net.deletes.is_empty() { Vec::new() } else { vec![self.deletes(mapping, key, &net.deletes)?] };
        let mut updates = Vec::new();
        for (set, rows) in by_set(mapping, key, &net.updates) {
            for rows in pieces(&rows) {
                updates.push(self.updates(mapping, key, set.clone(), rows)?);
            }
        }
        Ok(Statements { deletes, updates, inserts: self.inserts(mapping, &net.inserts)? })
    }

    fn deletes(&mut self, mapping: &Mapping, key: &[usize], rows: &[&Tuple]) -> Result<SetStatement, RenderError> {
        let array = |&index: &usize| array(mapping, index, rows.iter().map(|row| row.get(index)));
        let arrays = key.iter().map(array).collect::<Result<_, _>>()?;
        let shape = self.shape(Form::Delete, || delete_sql(mapping, key));
        Ok(SetStatement::Arrays { shape, arrays, rows: rows.len(), access: Access::Indexed })
    }

    fn updates(
        &mut self,
        mapping: &Mapping,
        key: &[usize],
        set: Vec<usize>,
        rows: &[&Updated<'_>],
    ) -> Result<SetStatement, RenderError> {
        let mut arrays = Vec::with_capacity(key.len() + set.len());
        for &index in key {
            arrays.push(array(mapping, index, rows.iter().map(|row| row.key.get(index)))?);
        }
        for &index in &set {
            arrays.push(array(mapping, index, rows.iter().map(|row| row.row.get(index)))?);
        }
        let form = Form::Update(set);
        let shape = match self.shapes.get(&form) {
            Some(shape) => Arc::clone(shape),
            None => {
                let Form::Update(set) = &form else { return Err(RenderError::NoIdentity) };
                let shape = Shape::new(update_sql(mapping, key, set));
                self.shapes.insert(form, Arc::clone(&shape));
                shape
            }
        };
        Ok(SetStatement::Arrays { shape, arrays, rows: rows.len(), access: Access::Indexed })
    }

    fn inserts(&mut self, mapping: &Mapping, rows: &[Row<'_>]) -> Result<Option<SetStatement>, RenderError> {
        let columns: Vec<usize> = mapping.insertable().collect();
        if rows.is_empty() {
            return Ok(None);
        }
        if rows.len() >= COPY_ROWS {
            return copy(mapping, &columns, rows).map(Some);
        }
        let array = |&index: &usize| array(mapping, index, rows.iter().map(|row| row.get(index)));
        let arrays = columns.iter().map(array).collect::<Result<_, _>>()?;
        let shape = self.shape(Form::Insert, || insert_sql(mapping, &columns));
        Ok(Some(SetStatement::Arrays { shape, arrays, rows: rows.len(), access: Access::Indexed }))
    }

    fn shape(&mut self, form: Form, sql: impl FnOnce() -> String) -> Arc<Shape> {
        Arc::clone(self.shapes.entry(form).or_insert_with(|| Shape::new(sql())))
    }
}

/// Whether rows of this relation can be written by set-based statements at all.
pub fn is_possible(mapping: &Mapping) -> bool {
    let columns = mapping.insertable().count();
    let is_unsettable = |index: usize| {
        let is_key = matches!(&mapping.identity, Identity::Key(key) if key.contains(&index));
        let generation = mapping.column(index).map(|column| column.generation);
        // UPDATE cannot write it; the ordered path replaces the row.
        !is_key && generation == Some(Generation::IdentityAlways)
    };
    // The ordered path has no casts: its parameters are of the columns' types.
    let is_cast_otherwise = |index: usize| mapping.column(index).is_some_and(|column| column.is_cast_otherwise);
    (1..=COLUMNS_MAX).contains(&columns)
        && !mapping.insertable().any(|index| is_unsettable(index) || is_cast_otherwise(index))
}

/// The same net changes with as few updates as possible.
fn replacing<'a>(mapping: &Mapping, net: &Net<'a>) -> Net<'a> {
    let mut replaced = Net { deletes: net.deletes.clone(), updates: Vec::new(), inserts: net.inserts.clone() };
    for update in &net.updates {
        let is_whole = mapping.insertable().all(|index| update.row.get(index) != Some(Value::Unchanged));
        if is_whole {
            replaced.deletes.push(update.key);
            replaced.inserts.push(update.row.clone());
        } else {
            replaced.updates.push(update.clone());
        }
    }
    replaced
}

/// The same net changes with no key both deleted and inserted. Columns that only
/// the target has would keep their values: tables with such are left as they are.
fn keeping<'n>(mapping: &Mapping, key: &[usize], net: &'n Net<'n>) -> Net<'n> {
    let (mut updates, mut inserts) = (net.updates.clone(), Vec::new());
    let mut kept: HashSet<*const Tuple> = HashSet::new();
    let is_possible = mapping.extra_columns().next().is_none();
    let mut gone: HashMap<Vec<&[u8]>, &'n Tuple> = HashMap::new();
    if is_possible && !net.inserts.is_empty() {
        gone.extend(net.deletes.iter().filter_map(|old| Some((key_text(key, |index| old.get(index))?, *old))));
    }
    for row in &net.inserts {
        match key_text(key, |index| row.get(index)).and_then(|text| gone.remove(&text)) {
            Some(old) => {
                kept.insert(old);
                updates.push(Updated { key: old, row: row.clone() });
            }
            None => inserts.push(row.clone()),
        }
    }
    let deletes = net.deletes.iter().copied().filter(|old| !kept.contains(&std::ptr::from_ref(*old))).collect();
    Net { deletes, updates, inserts }
}

/// The key's values, if they are all there.
fn key_text<'n>(key: &[usize], value: impl Fn(usize) -> Option<Value<'n>>) -> Option<Vec<&'n [u8]>> {
    let text = |&index: &usize| match value(index) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    };
    key.iter().map(text).collect()
}

/// Rows in pieces of [`UPDATE_BYTES`], at least one row each.
fn pieces<'s, 'n, 'a>(rows: &'s [&'n Updated<'a>]) -> impl Iterator<Item = &'s [&'n Updated<'a>]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let is_in = |update: &&&Updated<'_>| {
            let begins = bytes == 0;
            bytes += update.row.bytes();
            begins || bytes <= UPDATE_BYTES
        };
        let count = rest.iter().take_while(is_in).count();
        let (piece, behind) = rest.split_at(count);
        rest = behind;
        (count > 0).then_some(piece)
    })
}

/// Updates by the set of columns they write, in the order of first appearance.
fn by_set<'n, 'a>(
    mapping: &Mapping,
    key: &[usize],
    updates: &'n [Updated<'a>],
) -> Vec<(Vec<usize>, Vec<&'n Updated<'a>>)> {
    let settable: Vec<usize> = mapping.insertable().filter(|index| !key.contains(index)).collect();
    let mut places: HashMap<Vec<usize>, usize> = HashMap::new();
    let mut groups: Vec<(Vec<usize>, Vec<&'n Updated<'a>>)> = Vec::new();
    let mut whole: Option<usize> = None;
    for update in updates {
        let is_set = |index: &usize| update.row.get(*index) != Some(Value::Unchanged);
        // Nearly always every column is set; spare the look-up then.
        if settable.iter().all(is_set) {
            let place = *whole.get_or_insert_with(|| {
                groups.push((settable.clone(), Vec::new()));
                groups.len() - 1
            });
            groups[place].1.push(update);
            continue;
        }
        let set: Vec<usize> = settable.iter().copied().filter(is_set).collect();
        let place = *places.entry(set).or_insert_with_key(|set| {
            groups.push((set.clone(), Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(update);
    }
    groups
}

fn delete_sql(mapping: &Mapping, key: &[usize]) -> String {
    if let &[index] = key
        && mapping.column(index).is_some_and(|column| column.can_be_listed)
    {
        return counted(&delete_any_sql(mapping, index), 2);
    }
    counted(
        &format!(
            "DELETE FROM {} AS t USING {} WHERE {} RETURNING 1",
            mapping.target.only_sql(),
            given_sql(mapping, key),
            join_sql(mapping, key)
        ),
        key.len() + 1,
    )
}

/// One key column: the index takes the array as it is, sorted and a page at a
/// time, a fifth faster than row by row from `unnest`.
fn delete_any_sql(mapping: &Mapping, index: usize) -> String {
    let kind = mapping.column(index).map_or("text", |column| column.bare_type.as_str());
    format!(
        "DELETE FROM {} AS t WHERE t.{} OPERATOR({}.=) ANY ($1::text[]::{kind}[]) RETURNING 1",
        mapping.target.only_sql(),
        compared(mapping, index),
        equality_schema(mapping, index)
    )
}

fn update_sql(mapping: &Mapping, key: &[usize], set: &[usize]) -> String {
    let columns: Vec<usize> = key.iter().chain(set).copied().collect();
    let given = given_sql(mapping, &columns);
    let place = columns.len() + 1;
    if set.is_empty() {
        // Nothing to write, but the rows must be there.
        let sql = format!("SELECT 1 FROM {} AS t, {given} WHERE {}", mapping.target.only_sql(), join_sql(mapping, key));
        return counted(&sql, place);
    }
    let list: Vec<String> = set
        .iter()
        .enumerate()
        .map(|(n, &index)| format!("{} = g.c{}", name(mapping, index), key.len() + n + 1))
        .collect();
    let sql = format!(
        "UPDATE {} AS t SET {} FROM {given} WHERE {} RETURNING 1",
        mapping.target.only_sql(),
        list.join(", "),
        join_sql(mapping, key)
    );
    counted(&sql, place)
}

fn insert_sql(mapping: &Mapping, columns: &[usize]) -> String {
    let names: Vec<String> = columns.iter().map(|&index| name(mapping, index)).collect();
    let sql = format!(
        "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT * FROM {} RETURNING 1",
        mapping.target.table.sql(),
        names.join(", "),
        given_sql(mapping, columns)
    );
    counted(&sql, columns.len() + 1)
}

/// Fails unless the statement affects as many rows as parameter `place` says.
fn counted(sql: &str, place: usize) -> String {
    format!("WITH affected AS ({sql}) SELECT 1 / (pg_catalog.count(*) = ${place}::bigint)::int FROM affected")
}

/// The values given, as a table `g` with columns `c1`, `c2` …
fn given_sql(mapping: &Mapping, columns: &[usize]) -> String {
    let mut list = Vec::with_capacity(columns.len());
    let mut arrays = Vec::with_capacity(columns.len());
    let mut names = Vec::with_capacity(columns.len());
    for (n, &index) in columns.iter().enumerate().map(|(n, index)| (n + 1, index)) {
        let kind = mapping.column(index).map_or("text", |column| column.bare_type.as_str());
        list.push(format!("a{n}::{kind} AS c{n}"));
        arrays.push(format!("${n}::text[]"));
        names.push(format!("a{n}"));
    }
    format!("(SELECT {} FROM ROWS FROM ({}) AS u({})) AS g", list.join(", "), unnests(&arrays), names.join(", "))
}

/// `unnest` of several arrays takes a hundred arguments at most; a function
/// for each array has no such bound.
fn unnests(arrays: &[String]) -> String {
    let calls: Vec<String> = arrays.iter().map(|array| format!("pg_catalog.unnest({array})")).collect();
    calls.join(", ")
}

fn join_sql(mapping: &Mapping, key: &[usize]) -> String {
    let term = |(n, &index): (usize, &usize)| {
        format!("t.{} OPERATOR({}.=) g.c{}", compared(mapping, index), equality_schema(mapping, index), n + 1)
    };
    key.iter().enumerate().map(term).collect::<Vec<_>>().join(" AND ")
}

fn equality_schema(mapping: &Mapping, index: usize) -> String {
    ident(mapping.column(index).map_or("pg_catalog", |column| column.equality_schema.as_str()))
}

fn name(mapping: &Mapping, index: usize) -> String {
    mapping.column(index).map_or_else(String::new, |column| ident(&column.name))
}

fn source_name(mapping: &Mapping, index: usize) -> String {
    mapping.relation.columns.get(index).map_or_else(|| index.to_string(), |column| ident(&column.name))
}

/// One column of many rows as a `text[]` in binary format.
/// Source: `array_recv` in `src/backend/utils/adt/arrayfuncs.c`.
fn array<'a>(
    mapping: &Mapping,
    index: usize,
    values: impl ExactSizeIterator<Item = Option<Value<'a>>> + Clone,
) -> Result<BytesMut, RenderError> {
    // Of large values an array is megabytes: to grow into it would copy them
    // again and again.
    let data: usize = values.clone().map(data_len).sum();
    let mut out = BytesMut::with_capacity(20 + values.len() * 4 + data);
    header(values.len(), &mut out);
    for value in values {
        match value {
            Some(Value::Null) => out.put_i32(-1),
            Some(Value::Text(text)) => {
                out.put_i32(i32::try_from(text.len()).unwrap_or(i32::MAX));
                out.put_slice(text);
            }
            Some(Value::Binary(_)) => return Err(RenderError::Binary(source_name(mapping, index))),
            Some(Value::Unchanged) | None => return Err(RenderError::MissingValue(source_name(mapping, index))),
        }
    }
    Ok(out)
}

/// Bytes of a value's data.
fn data_len(value: Option<Value<'_>>) -> usize {
    match value {
        Some(Value::Text(data) | Value::Binary(data)) => data.len(),
        Some(Value::Null | Value::Unchanged) | None => 0,
    }
}

/// Rows as a COPY in text format.
/// Source: `CopyReadAttributesText` in `src/backend/commands/copyfromparse.c`.
fn copy(mapping: &Mapping, columns: &[usize], rows: &[Row<'_>]) -> Result<SetStatement, RenderError> {
    let names: Vec<String> = columns.iter().map(|&index| name(mapping, index)).collect();
    let sql = format!("COPY {} ({}) FROM STDIN", mapping.target.table.sql(), names.join(", "));
    let all = |row: &Row<'_>| columns.iter().map(|&index| data_len(row.get(index)) + 1).sum::<usize>();
    let mut data = BytesMut::with_capacity(rows.iter().map(all).sum());
    for row in rows {
        for (n, &index) in columns.iter().enumerate() {
            if n > 0 {
                data.put_u8(b'\t');
            }
            match row.get(index) {
                Some(Value::Null) => data.put_slice(b"\\N"),
                Some(Value::Text(text)) => escape(text, &mut data),
                Some(Value::Binary(_)) => return Err(RenderError::Binary(source_name(mapping, index))),
                Some(Value::Unchanged) | None => return Err(RenderError::MissingValue(source_name(mapping, index))),
            }
        }
        data.put_u8(b'\n');
    }
    Ok(SetStatement::Copy { sql, data, rows: rows.len() })
}

/// Texts as a `text[]` in binary format.
fn texts(texts: impl Iterator<Item = String>) -> BytesMut {
    let texts: Vec<String> = texts.collect();
    let mut out = BytesMut::new();
    header(texts.len(), &mut out);
    for text in &texts {
        out.put_i32(i32::try_from(text.len()).unwrap_or(i32::MAX));
        out.put_slice(text.as_bytes());
    }
    out
}

/// What a `text[]` of so many elements begins with.
fn header(count: usize, out: &mut BytesMut) {
    out.put_i32(1);
    // Whether there are nulls: the server finds them itself.
    out.put_i32(1);
    out.put_u32(TEXT_OID);
    out.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
    out.put_i32(1);
}

fn escape(text: &[u8], out: &mut BytesMut) {
    out.reserve(text.len() + 8);
    let is_special = |byte: &u8| matches!(byte, b'\\' | b'\t' | b'\n' | b'\r');
    let mut rest = text;
    while let Some(at) = rest.iter().position(is_special) {
        let (plain, tail) = rest.split_at(at);
        out.put_slice(plain);
        out.put_u8(b'\\');
        let Some((special, after)) = tail.split_first() else { return };
        out.put_u8(match special {
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            other => *other,
        });
        rest = after;
    }
    out.put_slice(rest);
}

#[cfg(test)]
mod tests;
mod whole_rows;
