//! Which types of columns hold all values of which others, exactly.
//!
//! Invariant: a pair that is not known to lose anything counts as one that does not:
//! what the target's input function or assignment refuses, it says itself. Known are the
//! built-in types whose input rounds, cuts, or drops a part without a word, and their
//! lengths, which an ALTER on the source raises without a trace in the rows.
//!
//! Source: `numeric.c` (`make_numeric_typmod`), `timestamp.c` (`intervaltypmodin`,
//! `anytimestamp_typmod_check`), `varchar.c`, `varbit.c` for the modifiers.

use std::collections::HashMap;

use tokio_postgres::types::{Kind, Type};

use crate::fault::sqlstate;
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::TableName;

/// A column's type below all domains, with its modifier (-1: none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnType {
    /// The type's oid.
    pub oid: u32,
    /// What the parentheses hold, as `pg_attribute.atttypmod` has it.
    pub modifier: i32,
}

/// The type below a column's domains: LATERAL, with `oid` and `modifier`; the column is
/// `a` (`pg_attribute`). Only the last of several domains has a modifier.
pub const BELOW_DOMAINS: &str = "LATERAL (WITH RECURSIVE below (oid, modifier) AS (SELECT a.atttypid, a.atttypmod \
    UNION ALL SELECT d.typbasetype, d.typtypmod FROM below JOIN pg_catalog.pg_type d ON d.oid = below.oid AND d.typtype = 'd') \
    SELECT b.oid, b.modifier FROM below b JOIN pg_catalog.pg_type t ON t.oid = b.oid AND t.typtype <> 'd')";

/// Digits behind the second where a modifier says nothing.
const FULL_PRECISION: i32 = 6;

/// `INTERVAL_FULL_PRECISION` and `INTERVAL_FULL_RANGE` in `timestamp.h`.
const INTERVAL_FULL: (i32, i32) = (0xFFFF, 0x7FFF);

/// Header that the modifiers of texts and numbers include (`VARHDRSZ`).
const HEADER: i32 = 4;

/// Whether the type is the same one on every server.
pub fn is_built_in(of: ColumnType) -> bool {
    Type::from_oid(of.oid).is_some()
}

impl ColumnType {
    /// Whether a column of the type `target` would round, cut or refuse values of this
    /// one.
    pub fn loses_in(self, target: ColumnType) -> bool {
        let (Some(from), Some(to)) = (Type::from_oid(self.oid), Type::from_oid(target.oid)) else { return false };
        match (from.kind(), to.kind()) {
            // An array's modifier is its elements'.
            (Kind::Array(from), Kind::Array(to)) => loses(from, self.modifier, to, target.modifier),
            _ => loses(&from, self.modifier, &to, target.modifier),
        }
    }
}

impl ColumnType {
    /// Whether values of this type keep their text in a column of the type `target`, as far
    /// as the kinds of the types go: lengths are [`Self::loses_in`]'s. `'007'` is a text and
    /// an integer, and another one. Of two types that somebody made nothing is known.
    pub fn is_kept_in(self, target: ColumnType) -> bool {
        let any_text = [Type::TEXT, Type::VARCHAR].map(|known| known.oid());
        if any_text.contains(&target.oid) && target.modifier < 0 {
            return true;
        }
        match (Type::from_oid(self.oid), Type::from_oid(target.oid)) {
            (Some(from), Some(to)) => match (from.kind(), to.kind()) {
                (Kind::Array(from), Kind::Array(to)) => is_of_kind(from, to),
                _ => is_of_kind(&from, &to),
            },
            (None, None) => true,
            _ => false,
        }
    }
}

/// A type that somebody has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its oid.
    pub oid: u32,
    /// Its name as SQL.
    pub name: String,
    /// Schema and name; a row type's are its table's.
    pub called: TableName,
    /// What it is.
    pub kind: MadeKind,
    /// What it consists of, in order.
    pub parts: Vec<PartOfType>,
    /// The statement that makes it; none where that takes more than one.
    pub definition: Option<String>,
}

/// What a type is that somebody has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeKind {
    /// An enum, of labels.
    Enum,
    /// A composite type, of attributes.
    Composite,
    /// The type of a table's rows, of its columns.
    Row,
    /// A domain, of one part: the type that it is over.
    Domain,
    /// A range, of one part: the type that it is of.
    Range,
}

/// A label of an enum, an attribute of a composite type, or what a domain or range is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartOfType {
    /// What it is known by, whatever it is called: a label's oid, an attribute's number.
    pub number: i64,
    /// Its name.
    pub name: String,
    /// Its type; nothing for a label.
    pub of: String,
    /// The same by its oid; 0 for a label.
    pub kind: ColumnType,
    /// The version of its row in the catalog (`xmin`): whatever alters it gives it another one.
    /// What a domain or range is over is never altered.
    pub version: String,
}

/// The statement that makes the type `t` (`pg_type`), where one does.
pub(super) const DEFINITION: &str = "CASE t.typtype \
    WHEN 'e' THEN 'CREATE TYPE ' || pg_catalog.format_type(t.oid, NULL) || ' AS ENUM (' || coalesce((SELECT pg_catalog.string_agg( \
        pg_catalog.quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid), '') || ');' \
    WHEN 'c' THEN 'CREATE TYPE ' || pg_catalog.format_type(t.oid, NULL) || ' AS (' || coalesce((SELECT pg_catalog.string_agg( \
        pg_catalog.quote_ident(a.attname) || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum) \
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped), '') || ');' \
    WHEN 'd' THEN 'CREATE DOMAIN ' || pg_catalog.format_type(t.oid, NULL) || ' AS ' || pg_catalog.format_type(t.typbasetype, t.typtypmod) \
        || coalesce((SELECT ' COLLATE ' || pg_catalog.quote_ident(w.nspname) || '.' || pg_catalog.quote_ident(l.collname) \
            FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace w ON w.oid = l.collnamespace WHERE l.oid = t.typcollation \
            AND t.typcollation <> (SELECT b.typcollation FROM pg_catalog.pg_type b WHERE b.oid = t.typbasetype)), '') \
        || coalesce(' DEFAULT ' || coalesce(pg_catalog.pg_get_expr(t.typdefaultbin, 0), pg_catalog.quote_literal(t.typdefault)), '') \
        || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END \
        || coalesce((SELECT pg_catalog.string_agg(' CONSTRAINT ' || pg_catalog.quote_ident(k.conname) || ' ' \
            || pg_catalog.pg_get_constraintdef(k.oid), '' ORDER BY k.conname) FROM pg_catalog.pg_constraint k \
            WHERE k.contypid = t.oid AND k.contype = 'c'), '') || ';' \
    END";

/// The types that somebody has made and that values of these types consist of, by the oids of
/// these: also those below domains, and in arrays, ranges and composite types.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn made(session: &Session, oids: &[u32]) -> Result<HashMap<u32, Vec<Made>>, DbError> {
    let mut found: HashMap<u32, Vec<Made>> = HashMap::new();
    if oids.is_empty() {
        return Ok(found);
    }
    let within = within(session.version());
    let sql = format!(
        "WITH RECURSIVE reached (root, oid) AS (SELECT oid, oid FROM pg_catalog.unnest($1::oid[]) AS oid \
             UNION SELECT r.root, n.oid FROM reached r JOIN pg_catalog.pg_type t ON t.oid = r.oid, {within} AS n (oid)) \
         SELECT r.root, t.oid, pg_catalog.format_type(t.oid, NULL), n.nspname::text, t.typname::text, \
             CASE WHEN t.typtype = 'c' AND (SELECT c.relkind FROM pg_catalog.pg_class c WHERE c.oid = t.typrelid) <> 'c' \
                 THEN 't' ELSE t.typtype::text END, {DEFINITION}, p.numbers, p.names, p.types, p.oids, p.modifiers, p.versions \
         FROM reached r JOIN pg_catalog.pg_type t ON t.oid = r.oid AND t.typtype IN ('e', 'c', 'd', 'r') AND t.oid >= 16384 \
         JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace, LATERAL ( \
             SELECT coalesce(pg_catalog.array_agg(number ORDER BY place), '{{}}') AS numbers, \
                 coalesce(pg_catalog.array_agg(name ORDER BY place), '{{}}') AS names, \
                 coalesce(pg_catalog.array_agg(pg_catalog.format_type(nullif(oid, 0), modifier) ORDER BY place), '{{}}') AS types, \
                 coalesce(pg_catalog.array_agg(oid ORDER BY place), '{{}}') AS oids, \
                 coalesce(pg_catalog.array_agg(modifier ORDER BY place), '{{}}') AS modifiers, \
                 coalesce(pg_catalog.array_agg(version ORDER BY place), '{{}}') AS versions FROM ( \
                 SELECT e.oid::int8, e.enumlabel::text, 0::oid, -1, e.enumsortorder::float8, e.xmin::text FROM pg_catalog.pg_enum e \
                     WHERE e.enumtypid = t.oid \
                 UNION ALL SELECT a.attnum::int8, a.attname::text, a.atttypid, a.atttypmod, a.attnum::float8, a.xmin::text \
                     FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 \
                     AND NOT a.attisdropped \
                 UNION ALL SELECT 0, '', t.typbasetype, t.typtypmod, 0, '' WHERE t.typtype = 'd' \
                 UNION ALL SELECT 0, '', g.rngsubtype, -1, 0, '' FROM pg_catalog.pg_range g WHERE g.rngtypid = t.oid \
                 ) AS part (number, name, oid, modifier, place, version)) AS p"
    );
    let rows = session.query(&sql, &[&oids]).await.during(session.side(), "look at types that were made")?;
    for row in &rows {
        found.entry(row.take(0)?).or_default().push(one_made(row)?);
    }
    Ok(found)
}

/// The oids of the types that the type `t` is made of, for FROM, on a server of this version.
pub(super) fn within(version: i32) -> String {
    let multiranges = match version >= 140_000 {
        true => "UNION ALL SELECT g.rngtypid FROM pg_catalog.pg_range g WHERE g.rngmultitypid = t.oid",
        false => "",
    };
    format!(
        "LATERAL (SELECT t.typbasetype WHERE t.typtype = 'd' \
             UNION ALL SELECT t.typelem WHERE t.typelem <> 0 AND t.typlen = -1 \
             UNION ALL SELECT g.rngsubtype FROM pg_catalog.pg_range g WHERE g.rngtypid = t.oid {multiranges} \
             UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a \
                 WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)"
    )
}

fn one_made(row: &Row) -> Result<Made, DbError> {
    let (numbers, names): (Vec<i64>, Vec<String>) = (row.take(7)?, row.take(8)?);
    let (types, oids): (Vec<Option<String>>, Vec<u32>) = (row.take(9)?, row.take(10)?);
    let (modifiers, versions): (Vec<i32>, Vec<String>) = (row.take(11)?, row.take(12)?);
    let kinds = oids.into_iter().zip(modifiers).map(|(oid, modifier)| ColumnType { oid, modifier });
    let parts = numbers.into_iter().zip(names).zip(types).zip(kinds).zip(versions);
    let part = |((((number, name), of), kind), version)| {
        let of: Option<String> = of;
        PartOfType { number, name, of: of.filter(|_| kind != LABEL).unwrap_or_default(), kind, version }
    };
    Ok(Made {
        oid: row.take(1)?,
        name: row.take(2)?,
        called: TableName { schema: row.take(3)?, name: row.take(4)? },
        kind: match row.take::<&str>(5)? {
            "e" => MadeKind::Enum,
            "c" => MadeKind::Composite,
            "t" => MadeKind::Row,
            "d" => MadeKind::Domain,
            _ => MadeKind::Range,
        },
        definition: row.take(6)?,
        parts: parts.map(part).collect(),
    })
}

/// What a label has for a type.
pub const LABEL: ColumnType = ColumnType { oid: 0, modifier: -1 };

/// A column whose values consist of a type, among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The topmost table that has it.
    pub table: TableName,
    /// Its name.
    pub column: String,
    /// Its type as SQL.
    pub kind: String,
}

/// The columns of tables whose values consist of this type, also in arrays, domains, ranges
/// and composite types.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn users(session: &Session, oid: u32) -> Result<Vec<User>, DbError> {
    let sql = "WITH RECURSIVE using_it (oid) AS (SELECT $1::oid UNION SELECT n.oid FROM using_it u, LATERAL ( \
             SELECT t.oid FROM pg_catalog.pg_type t WHERE t.typbasetype = u.oid OR t.typelem = u.oid AND t.typlen = -1 \
             UNION ALL SELECT g.rngtypid FROM pg_catalog.pg_range g WHERE g.rngsubtype = u.oid \
             UNION ALL SELECT c.reltype FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind = 'c' \
                 WHERE a.atttypid = u.oid AND NOT a.attisdropped) AS n (oid)) \
         SELECT n.nspname::text, c.relname::text, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod) \
         FROM using_it u JOIN pg_catalog.pg_attribute a ON a.atttypid = u.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attinhcount = 0 \
         JOIN pg_catalog.pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace ORDER BY 1, 2, a.attnum";
    let rows = session.query(sql, &[&oid]).await.during(session.side(), "look for columns of a type")?;
    let user = |row: &Row| {
        let table = TableName { schema: row.take(0)?, name: row.take(1)? };
        Ok(User { table, column: row.take(2)?, kind: row.take(3)? })
    };
    rows.iter().map(user).collect()
}

/// Whether values of one type, both as SQL, can be cast to the other; a type that this side
/// does not have is taken for one that can be.
///
/// # Errors
/// When the server cannot be asked.
pub async fn has_cast(session: &Session, from: &str, to: &str) -> Result<bool, DbError> {
    let tried = session.query(&format!("SELECT NULL::{from}::{to}"), &[]).await;
    match tried.during(session.side(), "look for a cast") {
        Err(error) if error.sqlstate() == Some(sqlstate::CANNOT_COERCE) => Ok(false),
        Err(error) if error.sqlstate().is_some() => Ok(true),
        tried => tried.map(|_| true),
    }
}

fn is_of_kind(from: &Type, to: &Type) -> bool {
    match (family(from), family(to)) {
        (Some(Family::Text), Some(Family::Text)) => *from == Type::BPCHAR || *to != Type::BPCHAR,
        (Some(Family::Bits), Some(Family::Bits)) | (Some(Family::Number(_)), Some(Family::Number(_))) => true,
        (Some(Family::Time(from)), Some(Family::Time(to))) => from == to,
        _ => from == to,
    }
}

fn loses(from: &Type, had: i32, to: &Type, has: i32) -> bool {
    match (*from == *to, family(from), family(to)) {
        (_, Some(Family::Text), Some(Family::Text)) => text_loses((from, had), (to, has)),
        (_, Some(Family::Bits), Some(Family::Bits)) => bits_lose((from, had), (to, has)),
        (_, Some(Family::Number(from)), Some(Family::Number(to))) => numbers_lose((from, had), (to, has)),
        (_, Some(Family::Time(from)), Some(Family::Time(to))) => {
            let lacks = |part: fn(Parts) -> bool| part(from) && !part(to);
            let is_cut = lacks(|p| p.date) || lacks(|p| p.clock) || lacks(|p| p.zone);
            is_cut || (from.clock && precision(has) < precision(had))
        }
        (true, ..) if *from == Type::INTERVAL => interval_loses(had, has),
        _ => false,
    }
}

/// Types that take each other's text.
#[derive(Clone, Copy)]
enum Family {
    Text,
    Bits,
    Number(Number),
    Time(Parts),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    /// Bytes.
    Int(u8),
    /// Digits that it keeps.
    Float(u8),
    Numeric,
}

/// What a time says.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Parts {
    date: bool,
    clock: bool,
    zone: bool,
}

fn family(of: &Type) -> Option<Family> {
    let time = |date, clock, zone| Some(Family::Time(Parts { date, clock, zone }));
    match *of {
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::CHAR => Some(Family::Text),
        Type::BIT | Type::VARBIT => Some(Family::Bits),
        Type::INT2 => Some(Family::Number(Number::Int(2))),
        Type::INT4 => Some(Family::Number(Number::Int(4))),
        Type::INT8 => Some(Family::Number(Number::Int(8))),
        Type::FLOAT4 => Some(Family::Number(Number::Float(6))),
        Type::FLOAT8 => Some(Family::Number(Number::Float(15))),
        Type::NUMERIC => Some(Family::Number(Number::Numeric)),
        Type::DATE => time(true, false, false),
        Type::TIME => time(false, true, false),
        Type::TIMETZ => time(false, true, true),
        Type::TIMESTAMP => time(true, true, false),
        Type::TIMESTAMPTZ => time(true, true, true),
        _ => None,
    }
}

fn precision(modifier: i32) -> i32 {
    if modifier < 0 { FULL_PRECISION } else { modifier }
}

/// The characters that a text type has room for; `None`: any number.
fn room(of: &Type, modifier: i32) -> Option<i32> {
    match *of {
        Type::CHAR => Some(1),
        // Bytes; a name of so many characters may be longer.
        Type::NAME => Some(63),
        _ if modifier >= HEADER => Some(modifier - HEADER),
        _ => None,
    }
}

fn is_longer(had: Option<i32>, has: Option<i32>) -> bool {
    has.is_some_and(|has| had.is_none_or(|had| had > has))
}

fn text_loses((from, had): (&Type, i32), (to, has): (&Type, i32)) -> bool {
    let is_name_of_text = *to == Type::NAME && *from != Type::NAME && *from != Type::CHAR;
    is_name_of_text || is_longer(room(from, had), room(to, has))
}

fn bits_lose((from, had): (&Type, i32), (to, has): (&Type, i32)) -> bool {
    let length = |modifier: i32| (modifier > 0).then_some(modifier);
    match (*from == Type::BIT, *to == Type::BIT) {
        // As many, and no fewer.
        (is_bit, true) => !is_bit || had != has,
        (_, false) => is_longer(length(had), length(has)),
    }
}

fn numbers_lose((from, had): (Number, i32), (to, has): (Number, i32)) -> bool {
    match (from, to) {
        (Number::Int(from), Number::Int(to)) => from > to,
        (Number::Int(bytes), Number::Float(digits)) => bytes > 4 || (bytes == 4 && digits < 9),
        (Number::Float(from), Number::Float(to)) => from > to,
        (Number::Float(_) | Number::Numeric, Number::Int(_)) | (Number::Numeric, Number::Float(_)) => true,
        (Number::Float(_), Number::Numeric) => has >= HEADER,
        (Number::Int(bytes), Number::Numeric) => {
            let digits = match bytes {
                2 => 5,
                4 => 10,
                _ => 19,
            };
            has >= HEADER && digits > whole_digits(has)
        }
        (Number::Numeric, Number::Numeric) => {
            has >= HEADER && (had < HEADER || scale(had) > scale(has) || whole_digits(had) > whole_digits(has))
        }
    }
}

/// Digits behind the point of a numeric; from 15 on it may be negative.
fn scale(modifier: i32) -> i32 {
    (((modifier - HEADER) & 0x7FF) ^ 1024) - 1024
}

/// Digits before the point of a numeric.
fn whole_digits(modifier: i32) -> i32 {
    (((modifier - HEADER) >> 16) & 0xFFFF) - scale(modifier)
}

fn interval_loses(had: i32, has: i32) -> bool {
    let parts = |modifier: i32| match modifier {
        ..0 => INTERVAL_FULL,
        _ => (modifier & 0xFFFF, (modifier >> 16) & 0x7FFF),
    };
    let ((had_digits, had_range), (has_digits, has_range)) = (parts(had), parts(has));
    let digits = |digits: i32| if digits == INTERVAL_FULL.0 { FULL_PRECISION } else { digits };
    (has_range != INTERVAL_FULL.1 && has_range != had_range) || digits(has_digits) < digits(had_digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_another_type_takes_as_well_is_not_kept_by_it() {
        let of = |kind: Type, modifier| ColumnType { oid: kind.oid(), modifier };
        let own = ColumnType { oid: 100_000, modifier: -1 };
        for (from, to, is_kept) in [
            (of(Type::TEXT, -1), of(Type::INT4, -1), false),
            (of(Type::INT4, -1), of(Type::TEXT, -1), true),
            (of(Type::INT4, -1), of(Type::INT8, -1), true),
            (of(Type::INT4, -1), of(Type::OID, -1), false),
            (of(Type::JSON, -1), of(Type::JSONB, -1), false),
            (of(Type::TEXT, -1), of(Type::BPCHAR, 9), false),
            (of(Type::BPCHAR, 9), of(Type::BPCHAR, 14), true),
            (of(Type::TEXT_ARRAY, -1), of(Type::INT4_ARRAY, -1), false),
            (of(Type::INT4_ARRAY, -1), of(Type::INT8_ARRAY, -1), true),
            (of(Type::INT4, -1), of(Type::INT4_ARRAY, -1), false),
            (of(Type::TIMESTAMP, -1), of(Type::TIMESTAMPTZ, -1), false),
            (of(Type::TIMESTAMP, 0), of(Type::TIMESTAMP, -1), true),
            (own, own, true),
            (own, of(Type::INT4, -1), false),
            (own, of(Type::TEXT, -1), true),
            (of(Type::TEXT, -1), own, false),
        ] {
            assert_eq!(from.is_kept_in(to), is_kept, "{from:?} {to:?}");
        }
    }

    fn numeric(precision: i32, scale: i32) -> ColumnType {
        ColumnType { oid: 1700, modifier: ((precision << 16) | (scale & 0x7FF)) + HEADER }
    }

    fn of(name: &Type, modifier: i32) -> ColumnType {
        ColumnType { oid: name.oid(), modifier }
    }

    fn free(name: &Type) -> ColumnType {
        of(name, -1)
    }

    #[test]
    fn a_numeric_of_fewer_digits_on_either_side_of_the_point_loses() {
        for (from, to, expected) in [
            (numeric(10, 2), numeric(14, 4), false),
            (numeric(14, 4), numeric(10, 2), true),
            (numeric(10, 2), numeric(10, 4), true),
            (numeric(10, 2), free(&Type::NUMERIC), false),
            (free(&Type::NUMERIC), numeric(1000, 500), true),
            (numeric(5, -2), numeric(7, 0), false),
            (numeric(5, -2), numeric(6, 0), true),
            (numeric(3, 5), numeric(3, 5), false),
            (free(&Type::INT4), numeric(10, 0), false),
            (free(&Type::INT4), numeric(10, 2), true),
            (free(&Type::FLOAT8), numeric(10, 2), true),
            (numeric(10, 2), free(&Type::FLOAT8), true),
        ] {
            assert_eq!(from.loses_in(to), expected, "{from:?} in {to:?}");
        }
    }

    #[test]
    fn a_shorter_text_a_lower_precision_and_a_smaller_number_lose() {
        let varchar = |length: i32| of(&Type::VARCHAR, length + HEADER);
        let interval = |range: i32, digits: i32| of(&Type::INTERVAL, (range << 16) | digits);
        for (from, to, expected) in [
            (varchar(3), varchar(10), false),
            (varchar(10), varchar(3), true),
            (varchar(10), free(&Type::TEXT), false),
            (free(&Type::TEXT), varchar(255), true),
            (free(&Type::TEXT), free(&Type::NAME), true),
            (of(&Type::BPCHAR, 5 + HEADER), varchar(5), false),
            (of(&Type::VARCHAR_ARRAY, 10 + HEADER), of(&Type::VARCHAR_ARRAY, 3 + HEADER), true),
            (of(&Type::TIMESTAMP, 6), of(&Type::TIMESTAMP, 0), true),
            (of(&Type::TIMESTAMP, 0), of(&Type::TIMESTAMP, 6), false),
            (free(&Type::TIMESTAMPTZ), of(&Type::TIMESTAMPTZ, 3), true),
            (free(&Type::TIMESTAMP), free(&Type::DATE), true),
            (free(&Type::DATE), free(&Type::TIMESTAMP), false),
            (free(&Type::TIMESTAMPTZ), free(&Type::TIMESTAMP), true),
            (free(&Type::INT8), free(&Type::INT4), true),
            (free(&Type::INT4), free(&Type::INT8), false),
            (free(&Type::INT4), free(&Type::FLOAT4), true),
            (free(&Type::FLOAT8), free(&Type::FLOAT4), true),
            (of(&Type::BIT, 3), of(&Type::BIT, 4), true),
            (of(&Type::BIT, 3), of(&Type::VARBIT, 4), false),
            (free(&Type::VARBIT), of(&Type::VARBIT, 4), true),
            (free(&Type::INTERVAL), interval(INTERVAL_FULL.1, 2), true),
            (interval(INTERVAL_FULL.1, 2), free(&Type::INTERVAL), false),
            (interval(1 << 3, INTERVAL_FULL.0), interval(1 << 2, INTERVAL_FULL.0), true),
            (free(&Type::JSON), free(&Type::JSONB), false),
            (ColumnType { oid: 99_999, modifier: 7 }, varchar(3), false),
        ] {
            assert_eq!(from.loses_in(to), expected, "{from:?} in {to:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_in_the_same_type(oid in 0_u32..5000, modifier in -1_i32..100_000) {
            let same = ColumnType { oid, modifier };
            proptest::prop_assert!(!same.loses_in(same));
        }
    }
}
