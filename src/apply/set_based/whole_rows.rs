//! Deletes of rows whose identity is all that they have (REPLICA IDENTITY FULL without a key):
//! one statement looks for all of them at once, with one look at the table.
//!
//! ```text
//! the rows that go, each once, with how often ── = of some columns ──► candidates
//!   ── record_image_eq of all ──► rows ── the first so many of each ──► their places ── DELETE
//! ```
//!
//! Invariants: a row goes only if it is equal to the last byte, and as often as it is to go,
//! though there may be more like it; what the columns in `=` leave out is not equal, so they
//! decide nothing but how fast it is: they are as few as tell the rows that go apart, so that
//! a row of the table is compared as a whole with one of them at most; a large value is not
//! read for a row that differs otherwise.

use std::collections::HashMap;

use super::{Access, Form, SetRenderer, SetStatement, array, compared, counted, equality_schema, texts, unnests};
use crate::apply::mapping::Mapping;
use crate::apply::render::RenderError;
use crate::apply::target::Matching;
use crate::coalesce::values_of;
use crate::pgoutput::{Tuple, Value};

/// Bytes up to which a text is compared as such: below what is moved out of a row
/// (`TOAST_TUPLE_THRESHOLD`).
const TEXT_BYTES: u32 = 1000;

/// Rows that say which columns tell them apart.
const ASKED_ROWS: usize = 1000;

/// A row that goes, and how often.
struct Going<'n> {
    row: &'n Tuple,
    times: u64,
}

impl SetRenderer {
    /// The statements that remove these rows, one as often as it is among them.
    pub(super) fn whole_rows(&mut self, mapping: &Mapping, rows: &[&Tuple]) -> Result<Vec<SetStatement>, RenderError> {
        let mut statements = Vec::new();
        for (by, going) in by_columns(mapping, once_each(rows)?) {
            let columns: Vec<usize> = mapping.insertable().collect();
            let values = |&index: &usize| array(mapping, index, going.iter().map(|one| one.row.get(index)));
            let mut arrays = columns.iter().map(values).collect::<Result<Vec<_>, _>>()?;
            arrays.push(texts(going.iter().map(|one| one.times.to_string())));
            let rows = going.iter().map(|one| usize::try_from(one.times).unwrap_or(usize::MAX)).sum();
            let shape = self.shape(Form::DeleteWhole(by.clone()), || sql(mapping, &columns, &by));
            statements.push(SetStatement::Arrays { shape, arrays, rows, access: Access::Free });
        }
        Ok(statements)
    }
}

fn once_each<'n>(rows: &[&'n Tuple]) -> Result<Vec<Going<'n>>, RenderError> {
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut going: Vec<Going<'n>> = Vec::new();
    for row in rows {
        let values = values_of(|index| row.get(index)).ok_or(RenderError::NoIdentity)?;
        let place = *places.entry(values).or_insert(going.len());
        match going.get_mut(place) {
            Some(one) => one.times += 1,
            None => going.push(Going { row, times: 1 }),
        }
    }
    Ok(going)
}

/// The rows by the columns that they are looked for by: by those that no row has NULL in, if
/// there are some, as NULL is equal to nothing; else each by those that it has.
fn by_columns<'n>(mapping: &Mapping, going: Vec<Going<'n>>) -> Vec<(Vec<usize>, Vec<Going<'n>>)> {
    let of = |rows: &[Going<'n>]| {
        let is_given = |index: &usize| rows.iter().all(|one| one.row.get(*index) != Some(Value::Null));
        let by = |wanted: Matching| -> Vec<usize> {
            mapping.insertable().filter(|index| matching(mapping, *index) == wanted).filter(is_given).collect()
        };
        let cheap = telling_apart(rows, &[by(Matching::Equal), by(Matching::Text)]);
        if cheap.is_empty() { telling_apart(rows, &[by(Matching::Costly)]) } else { cheap }
    };
    let all = of(&going);
    if !all.is_empty() {
        return vec![(all, going)];
    }
    let mut parts: Vec<(Vec<usize>, Vec<Going<'n>>)> = Vec::new();
    for one in going {
        let by = of(std::slice::from_ref(&one));
        match parts.iter_mut().find(|(columns, _)| *columns == by) {
            Some((_, rows)) => rows.push(one),
            None => parts.push((by, vec![one])),
        }
    }
    parts
}

/// As few columns as tell these rows apart: one at least, if there is one, those of the first
/// list first, and of each the one that tells the most of them apart.
fn telling_apart(rows: &[Going<'_>], lists: &[Vec<usize>]) -> Vec<usize> {
    let asked = rows.get(..ASKED_ROWS).unwrap_or(rows);
    let mut chosen: Vec<usize> = Vec::new();
    let mut parts: Vec<usize> = vec![0; asked.len()];
    let mut count = 0;
    for list in lists {
        let mut left = list.clone();
        while count < asked.len() && !left.is_empty() {
            let finer = left.iter().map(|&index| (finer(asked, &parts, index), index));
            let Some(((most, into), index)) = finer.max_by_key(|((count, _), index)| (*count, usize::MAX - index))
            else {
                break;
            };
            if most <= count {
                break;
            }
            (count, parts) = (most, into);
            chosen.push(index);
            left.retain(|other| *other != index);
        }
    }
    chosen.sort_unstable();
    chosen
}

/// The parts of rows with one more column: how many, and each row's.
fn finer(rows: &[Going<'_>], parts: &[usize], index: usize) -> (usize, Vec<usize>) {
    let mut known: HashMap<(usize, Option<Value<'_>>), usize> = HashMap::new();
    let into = rows.iter().zip(parts).map(|(one, part)| {
        let next = known.len();
        *known.entry((*part, one.row.get(index))).or_insert(next)
    });
    let into: Vec<usize> = into.collect();
    (known.len(), into)
}

fn matching(mapping: &Mapping, index: usize) -> Matching {
    mapping.column(index).map_or(Matching::Never, |column| column.matching)
}

fn sql(mapping: &Mapping, columns: &[usize], by: &[usize]) -> String {
    let only = mapping.target.only_sql();
    let place = |index: &usize| columns.iter().position(|column| column == index).unwrap_or_default() + 1;
    let mut terms: Vec<String> = by.iter().map(|index| term(mapping, *index, place(index))).collect();
    let ours: Vec<String> = columns.iter().map(|&index| format!("t.{}", compared(mapping, index))).collect();
    let given: Vec<String> = (1..=columns.len()).map(|n| format!("g.c{n}")).collect();
    terms.push(format!("pg_catalog.record_image_eq(ROW({}), ROW({}))", ours.join(", "), given.join(", ")));
    // A place says which row of a partition, and not of which.
    let (relation, within) = match mapping.target.is_partitioned {
        true => ("t.tableoid AS relation, ", " AND (t.tableoid, t.ctid) IN (SELECT relation, place FROM found)"),
        false => ("", ""),
    };
    let found = format!(
        "SELECT * FROM (SELECT {relation}t.ctid AS place, g.times AS times, \
         pg_catalog.row_number() OVER (PARTITION BY g.number) AS nth FROM {only} AS t, {} WHERE {}) AS all_found WHERE nth <= times",
        given_sql(mapping, columns),
        terms.join(" AND ")
    );
    let delete = format!(
        "WITH found AS ({found}) DELETE FROM {only} AS t WHERE t.ctid = ANY (ARRAY(SELECT place FROM found)){within} RETURNING 1"
    );
    counted(&delete, columns.len() + 2)
}

/// What an equal row has: by its operator, or so that no large value is read.
fn term(mapping: &Mapping, index: usize, place: usize) -> String {
    let (ours, given) = (format!("t.{}", compared(mapping, index)), format!("g.c{place}"));
    let equal = |ours: &str, given: &str| format!("{ours} OPERATOR({}.=) {given}", equality_schema(mapping, index));
    if matching(mapping, index) != Matching::Text {
        return equal(&ours, &given);
    }
    let length = |text: &str| format!("pg_catalog.octet_length({text})");
    let short = |text: &str| format!("(CASE WHEN {} <= {TEXT_BYTES} THEN {text} END)", length(text));
    // NULL on both sides where it is long.
    let kind = mapping.column(index).map_or("text", |column| column.bare_type.as_str());
    let or_none = |text: &str| format!("coalesce({}, ''::{kind})", short(text));
    format!("{} = {} AND {}", length(&ours), length(&given), equal(&or_none(&ours), &or_none(&given)))
}

/// The values given, as a table `g` with columns `c1`, `c2` …, how often each, and its number.
fn given_sql(mapping: &Mapping, columns: &[usize]) -> String {
    let kind = |index: usize| mapping.column(index).map_or("text", |column| column.bare_type.as_str());
    let numbered = || (1..).zip(columns.iter().copied());
    let list: Vec<String> = numbered().map(|(n, index)| format!("a{n}::{} AS c{n}", kind(index))).collect();
    let names: Vec<String> = numbered().map(|(n, _)| format!("a{n}")).collect();
    let arrays: Vec<String> = (1..=columns.len() + 1).map(|n| format!("${n}::text[]")).collect();
    format!(
        "(SELECT {}, times::bigint AS times, number FROM ROWS FROM ({}) WITH ORDINALITY AS u({}, times, number)) AS g",
        list.join(", "),
        unnests(&arrays),
        names.join(", ")
    )
}
