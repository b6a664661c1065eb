//! Row changes → statements, one change at a time: the ordered path's SQL.
//! Pure. The set-based statements of the fast path stand beside it in `set_based`.
//!
//! Invariants: every statement affects exactly one row, or the batch does not
//! commit; an unchanged TOAST value is never written; values travel as text
//! parameters, so the target's input functions see what the source's output
//! functions wrote. Source: `apply_handle_insert/update/delete` in
//! `src/backend/replication/logical/worker.c`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::mapping::{Identity, Mapping};
use super::target::{Generation, TargetColumn};
use crate::assemble::ChangeKind;
use crate::catalog::numbered::Numbered;
use crate::pgoutput::{OldTuple, Tuple, Value};
use crate::sql::ident;

/// A statement without its values: prepared once per connection.
#[derive(Debug)]
pub struct Shape {
    /// Unique in the process; names the prepared statement.
    pub id: u64,
    /// The SQL text with parameters.
    pub sql: String,
}

impl Shape {
    /// A new shape.
    pub fn new(sql: String) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Arc::new(Shape { id: NEXT.fetch_add(1, Ordering::Relaxed), sql })
    }
}

/// A statement with its values in PostgreSQL's text format.
#[derive(Debug)]
pub struct Statement<'a> {
    /// What to execute.
    pub shape: Arc<Shape>,
    /// Its parameters.
    pub params: Vec<Option<&'a [u8]>>,
}

/// Why a change has no statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The relation has no identity, so the row cannot be found.
    #[error(
        "the source sent no way to find the row: give the table a replica identity on the source, and copy it anew behind that (walferry resync TABLE), as what it has sent before stays so"
    )]
    NoIdentity,
    /// A tuple without a value that is needed: of a row that has come to meet a row filter.
    #[error(
        "the change has no value of column {0}, which is large and was not changed: give the table REPLICA IDENTITY FULL on \
         the source, with all of its columns published, and copy it anew behind that (walferry resync TABLE), as what the source has sent before stays so"
    )]
    MissingValue(String),
    /// A column that UPDATE may not write, where something acts on the row's going.
    #[error(
        "column {} is GENERATED ALWAYS on the target, so the row would be deleted and inserted anew, and foreign keys or \
         triggers there act on that. Run on the target: {}; then start again, and when the migration has ended: {}",
        .0.name, .0.sql("BY DEFAULT"), .0.sql("ALWAYS")
    )]
    Replaced(Numbered),
    /// The source sent a value in binary, which was not asked for.
    #[error("column {0} came in binary format, which was not requested")]
    Binary(String),
}

/// What distinguishes the shapes of one mapping. Column lists are indexes of
/// the relation's columns.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Form {
    Insert,
    Delete,
    Update { set: Vec<usize> },
    Replace { set: Vec<usize> },
    Lock,
}

/// The statements of one relation.
#[derive(Debug)]
pub struct Renderer {
    /// The relation's place on the target.
    pub mapping: Mapping,
    shapes: HashMap<Form, Arc<Shape>>,
}

impl Renderer {
    /// A renderer without any shapes yet.
    pub fn new(mapping: Mapping) -> Self {
        Renderer { mapping, shapes: HashMap::new() }
    }

    /// The statement of one row change (not of a TRUNCATE).
    ///
    /// # Errors
    /// When the change cannot be expressed; nothing is ever left out silently.
    pub fn render<'a>(&mut self, change: &'a ChangeKind) -> Result<Option<Statement<'a>>, RenderError> {
        match change {
            ChangeKind::Insert { new } => self.insert(new).map(Some),
            ChangeKind::Update { old, new } => self.update(old.as_ref(), new).map(Some),
            ChangeKind::Delete { old } => self.delete(old).map(Some),
            ChangeKind::Truncate { .. } => Ok(None),
        }
    }

    fn insert<'a>(&mut self, new: &'a Tuple) -> Result<Statement<'a>, RenderError> {
        let params = self.mapping.insertable().map(|index| self.value(new, index)).collect::<Result<_, _>>()?;
        Ok(Statement { shape: self.shape(Form::Insert), params })
    }

    fn delete<'a>(&mut self, old: &'a OldTuple) -> Result<Statement<'a>, RenderError> {
        let params = self.identity_values(tuple(old))?;
        Ok(Statement { shape: self.shape(Form::Delete), params })
    }

    fn update<'a>(&mut self, old: Option<&'a OldTuple>, new: &'a Tuple) -> Result<Statement<'a>, RenderError> {
        let before = old.map(tuple);
        let changed: Vec<usize> = self.mapping.insertable().filter(|&index| self.is_changed(old, new, index)).collect();
        let replaced = changed.iter().copied().find(|&index| self.is_identity_always(index));
        if let Some(column) =
            replaced.and_then(|index| self.mapping.column(index)).filter(|_| self.mapping.target.acts_on_delete())
        {
            let numbered = Numbered { table: self.mapping.target.table.clone(), name: column.name.clone() };
            return Err(RenderError::Replaced(numbered));
        }
        let mut params = changed.iter().map(|&index| self.value(new, index)).collect::<Result<Vec<_>, _>>()?;
        params.extend(self.identity_values(before.unwrap_or(new))?);
        let form = match changed {
            set if set.is_empty() => Form::Lock,
            set if replaced.is_some() => Form::Replace { set },
            set => Form::Update { set },
        };
        Ok(Statement { shape: self.shape(form), params })
    }

    /// Whether an UPDATE must write a column. A key column without an old
    /// tuple has not changed: the source sends the old key when it has.
    fn is_changed(&self, old: Option<&OldTuple>, new: &Tuple, index: usize) -> bool {
        match new.get(index) {
            Some(Value::Unchanged) | None => return false,
            Some(_) => {}
        }
        let is_key = matches!(&self.mapping.identity, Identity::Key(key) if key.contains(&index));
        match old {
            None => !is_key,
            Some(OldTuple::Key(before)) if is_key => before.get(index) != new.get(index),
            Some(OldTuple::Key(_)) => true,
            // All old values are known; what is equal need not be written,
            // and an identity column must not be.
            Some(OldTuple::Full(before)) => {
                before.get(index) != new.get(index) || !(is_key || self.is_identity_always(index))
            }
        }
    }

    fn is_identity_always(&self, index: usize) -> bool {
        self.mapping.column(index).is_some_and(|column| column.generation == Generation::IdentityAlways)
    }

    fn identity_values<'a>(&self, row: &'a Tuple) -> Result<Vec<Option<&'a [u8]>>, RenderError> {
        match &self.mapping.identity {
            Identity::Key(columns) => columns.iter().map(|&index| self.value(row, index)).collect(),
            Identity::WholeRow => self.mapping.insertable().map(|index| self.value(row, index)).collect(),
            Identity::None => Err(RenderError::NoIdentity),
        }
    }

    fn value<'a>(&self, row: &'a Tuple, index: usize) -> Result<Option<&'a [u8]>, RenderError> {
        let name = || self.mapping.relation.columns.get(index).map_or_else(|| index.to_string(), |c| ident(&c.name));
        match row.get(index) {
            Some(Value::Null) => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Binary(_)) => Err(RenderError::Binary(name())),
            Some(Value::Unchanged) | None => Err(RenderError::MissingValue(name())),
        }
    }

    fn shape(&mut self, form: Form) -> Arc<Shape> {
        if let Some(shape) = self.shapes.get(&form) {
            return Arc::clone(shape);
        }
        let shape = Shape::new(sql(&self.mapping, &form));
        self.shapes.insert(form, Arc::clone(&shape));
        shape
    }
}

/// The old tuple, whichever kind it is.
pub(super) fn tuple(old: &OldTuple) -> &Tuple {
    match old {
        OldTuple::Key(tuple) | OldTuple::Full(tuple) => tuple,
    }
}

fn sql(mapping: &Mapping, form: &Form) -> String {
    let only = mapping.target.only_sql();
    match form {
        Form::Insert => insert_sql(mapping),
        Form::Delete => format!("DELETE FROM {only} WHERE {}", identity_sql(mapping, 1)),
        Form::Update { set } => {
            let list: Vec<String> =
                set.iter().enumerate().map(|(n, &index)| format!("{} = ${}", name(mapping, index), n + 1)).collect();
            format!("UPDATE {only} SET {} WHERE {}", list.join(", "), identity_sql(mapping, set.len() + 1))
        }
        Form::Replace { set } => replace_sql(mapping, set),
        // Nothing to write, but the row must be there.
        Form::Lock => format!("SELECT FROM {only} WHERE {} FOR UPDATE", identity_sql(mapping, 1)),
    }
}

fn insert_sql(mapping: &Mapping) -> String {
    let columns: Vec<String> = mapping.insertable().map(|index| name(mapping, index)).collect();
    let table = mapping.target.table.sql();
    if columns.is_empty() {
        return format!("INSERT INTO {table} DEFAULT VALUES");
    }
    let places: Vec<String> = (1..=columns.len()).map(|n| format!("${n}")).collect();
    format!("INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE VALUES ({})", columns.join(", "), places.join(", "))
}

/// UPDATE may not name an identity-always column, not even to change it: the
/// row is deleted and inserted, what the change does not carry taken from the
/// old row.
fn replace_sql(mapping: &Mapping, set: &[usize]) -> String {
    let mut columns = Vec::new();
    let mut values = Vec::new();
    for index in mapping.insertable() {
        let column = name(mapping, index);
        values.push(match set.iter().position(|&changed| changed == index) {
            Some(n) => format!("${}{}", n + 1, bare_cast(mapping, index)),
            None => format!("was.{column}"),
        });
        columns.push(column);
    }
    for extra in mapping.extra_columns() {
        values.push(format!("was.{}", ident(&extra.name)));
        columns.push(ident(&extra.name));
    }
    format!(
        "WITH was AS (DELETE FROM {} WHERE {} RETURNING *) \
         INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM was",
        mapping.target.only_sql(),
        identity_sql(mapping, set.len() + 1),
        mapping.target.table.sql(),
        columns.join(", "),
        values.join(", ")
    )
}

/// The condition that finds the row; its parameters start at `first`.
fn identity_sql(mapping: &Mapping, first: usize) -> String {
    match &mapping.identity {
        Identity::Key(columns) => {
            let terms: Vec<String> = columns
                .iter()
                .enumerate()
                .map(|(n, &index)| {
                    let schema = mapping.column(index).map_or("pg_catalog", |c| c.equality_schema.as_str());
                    let place = format!("${}{}", first + n, bare_cast(mapping, index));
                    format!("{} OPERATOR({}.=) {place}", compared(mapping, index), ident(schema))
                })
                .collect();
            terms.join(" AND ")
        }
        Identity::WholeRow => whole_row_sql(mapping, first),
        // Never rendered: identity_values() has refused the change before.
        Identity::None => "false".to_owned(),
    }
}

/// Exactly one row of those equal to the last byte, duplicates included.
/// `record_image_eq` is NULL-safe and needs no equality operator of the types.
fn whole_row_sql(mapping: &Mapping, first: usize) -> String {
    let columns: Vec<String> = mapping.insertable().map(|index| name(mapping, index)).collect();
    let values: Vec<String> =
        mapping.insertable().enumerate().map(|(n, index)| format!("${}{}", first + n, cast(mapping, index))).collect();
    let table = mapping.target.only_sql();
    let (left, right) =
        if mapping.target.is_partitioned { ("(tableoid, ctid)", "tableoid, ctid") } else { ("ctid", "ctid") };
    format!(
        "{left} = (SELECT {right} FROM {table} WHERE pg_catalog.record_image_eq(ROW({}), ROW({})) LIMIT 1)",
        columns.join(", "),
        values.join(", ")
    )
}

fn name(mapping: &Mapping, index: usize) -> String {
    mapping.column(index).map_or_else(String::new, |column| ident(&column.name))
}

/// The column in a comparison.
pub(super) fn compared(mapping: &Mapping, index: usize) -> String {
    mapping.column(index).map_or_else(String::new, TargetColumn::compared)
}

/// A cast that takes the value as it is: one to `varchar(3)` would cut what the
/// column refuses, or look for another key.
fn bare_cast(mapping: &Mapping, index: usize) -> String {
    mapping.column(index).map_or_else(String::new, |column| format!("::{}", column.bare_type))
}

fn cast(mapping: &Mapping, index: usize) -> String {
    mapping.column(index).map_or_else(String::new, |column| format!("::{}", column.sql_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::target::{Matching, TargetTable};
    use crate::pgoutput::{KeyColumn, RelationColumn, ReplicaIdentity};
    use crate::relation::Relation;
    use crate::sql::TableName;
    use Value::{Null, Text, Unchanged};

    fn target(columns: &[(&str, Generation)], unique_key: Option<&[&str]>) -> TargetTable {
        let column = |&(name, generation): &(&str, Generation)| TargetColumn {
            name: name.to_owned(),
            sql_type: "text".to_owned(),
            bare_type: "text".to_owned(),
            equality_schema: "pg_catalog".to_owned(),
            matching: Matching::Equal,
            can_be_listed: true,
            generation,
            names_objects: false,
            is_cast_otherwise: false,
            is_domain: false,
            below: crate::catalog::types::ColumnType { oid: 25, modifier: -1 },
            number: 1,
        };
        TargetTable {
            table: TableName::new("public", "t"),
            is_partitioned: false,
            oid: 1,
            needs_order: false,
            has_foreign_keys: false,
            parents: Vec::new(),
            deferrable: Vec::new(),
            actions: Vec::new(),
            columns: columns.iter().map(column).collect(),
            unique_key: unique_key.map(|names| names.iter().map(|&name| name.to_owned()).collect()),
        }
    }

    fn relation(identity: ReplicaIdentity, columns: &[(&str, KeyColumn)]) -> Arc<Relation> {
        let column = |&(name, key): &(&str, KeyColumn)| RelationColumn {
            key,
            name: name.to_owned(),
            type_oid: 25,
            type_modifier: -1,
        };
        Arc::new(Relation {
            id: 1,
            table: TableName::new("public", "t"),
            replica_identity: identity,
            columns: columns.iter().map(column).collect(),
        })
    }

    fn keyed() -> Renderer {
        let relation =
            relation(ReplicaIdentity::Default, &[("k", KeyColumn::Yes), ("v", KeyColumn::No), ("w", KeyColumn::No)]);
        // Other order and one column more than the source.
        let columns =
            [("w", Generation::None), ("extra", Generation::None), ("v", Generation::None), ("k", Generation::None)];
        Renderer::new(Mapping::new(relation, target(&columns, Some(&["k"]))).unwrap())
    }

    fn row(values: &[Value<'_>]) -> Tuple {
        Tuple::from_values(values).unwrap()
    }

    fn rendered(renderer: &mut Renderer, change: &ChangeKind) -> (String, Vec<Option<String>>) {
        let statement = renderer.render(change).unwrap().unwrap();
        let text = |param: &Option<&[u8]>| param.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        (statement.shape.sql.clone(), statement.params.iter().map(text).collect())
    }

    #[test]
    fn an_insert_names_the_columns_it_carries_and_no_others() {
        let change = ChangeKind::Insert { new: row(&[Text(b"1"), Null, Text(b"x")]) };
        let (sql, params) = rendered(&mut keyed(), &change);
        assert_eq!(sql, r#"INSERT INTO "public"."t" ("k", "v", "w") OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3)"#);
        assert_eq!(params, [Some("1".to_owned()), None, Some("x".to_owned())]);
    }

    #[test]
    fn an_unchanged_value_is_left_out_of_the_update() {
        let change = ChangeKind::Update { old: None, new: row(&[Text(b"1"), Unchanged, Text(b"x")]) };
        let (sql, params) = rendered(&mut keyed(), &change);
        assert_eq!(sql, r#"UPDATE ONLY "public"."t" SET "w" = $1 WHERE "k" OPERATOR("pg_catalog".=) $2::text"#);
        assert_eq!(params, [Some("x".to_owned()), Some("1".to_owned())]);
    }

    #[test]
    fn a_key_change_finds_the_row_by_its_old_key() {
        let old = OldTuple::Key(row(&[Text(b"1"), Null, Null]));
        let change = ChangeKind::Update { old: Some(old), new: row(&[Text(b"2"), Unchanged, Null]) };
        let (sql, params) = rendered(&mut keyed(), &change);
        assert_eq!(
            sql,
            r#"UPDATE ONLY "public"."t" SET "k" = $1, "w" = $2 WHERE "k" OPERATOR("pg_catalog".=) $3::text"#
        );
        assert_eq!(params, [Some("2".to_owned()), None, Some("1".to_owned())]);
    }

    #[test]
    fn an_update_of_nothing_still_wants_its_row() {
        let change = ChangeKind::Update { old: None, new: row(&[Text(b"1"), Unchanged, Unchanged]) };
        let (sql, _) = rendered(&mut keyed(), &change);
        assert_eq!(sql, r#"SELECT FROM ONLY "public"."t" WHERE "k" OPERATOR("pg_catalog".=) $1::text FOR UPDATE"#);
    }

    #[test]
    fn a_full_identity_without_a_key_means_exactly_one_of_the_equal_rows() {
        let relation = relation(ReplicaIdentity::Full, &[("a", KeyColumn::Yes), ("b", KeyColumn::Yes)]);
        let table = target(&[("a", Generation::None), ("b", Generation::None)], None);
        let mut renderer = Renderer::new(Mapping::new(relation, table).unwrap());
        let change = ChangeKind::Delete { old: OldTuple::Full(row(&[Text(b"1"), Null])) };
        let (sql, params) = rendered(&mut renderer, &change);
        assert_eq!(
            sql,
            r#"DELETE FROM ONLY "public"."t" WHERE ctid = (SELECT ctid FROM ONLY "public"."t" WHERE pg_catalog.record_image_eq(ROW("a", "b"), ROW($1::text, $2::text)) LIMIT 1)"#
        );
        assert_eq!(params, [Some("1".to_owned()), None]);
    }

    #[test]
    fn a_full_identity_uses_the_targets_key_where_there_is_one() {
        let relation = relation(ReplicaIdentity::Full, &[("a", KeyColumn::Yes), ("b", KeyColumn::Yes)]);
        let table = target(&[("a", Generation::None), ("b", Generation::None)], Some(&["b"]));
        let mut renderer = Renderer::new(Mapping::new(relation, table).unwrap());
        let change = ChangeKind::Delete { old: OldTuple::Full(row(&[Text(b"1"), Text(b"2")])) };
        let (sql, params) = rendered(&mut renderer, &change);
        assert_eq!(sql, r#"DELETE FROM ONLY "public"."t" WHERE "b" OPERATOR("pg_catalog".=) $1::text"#);
        assert_eq!(params, [Some("2".to_owned())]);
    }

    #[test]
    fn an_identity_always_column_is_never_in_a_set_list() {
        let relation = relation(ReplicaIdentity::Default, &[("k", KeyColumn::Yes), ("v", KeyColumn::No)]);
        let table = target(
            &[("k", Generation::IdentityAlways), ("v", Generation::None), ("extra", Generation::None)],
            Some(&["k"]),
        );
        let mut renderer = Renderer::new(Mapping::new(relation, table).unwrap());
        let change = ChangeKind::Update { old: None, new: row(&[Text(b"1"), Text(b"x")]) };
        assert_eq!(
            rendered(&mut renderer, &change).0,
            r#"UPDATE ONLY "public"."t" SET "v" = $1 WHERE "k" OPERATOR("pg_catalog".=) $2::text"#
        );
        let old = OldTuple::Key(row(&[Text(b"1"), Null]));
        let change = ChangeKind::Update { old: Some(old), new: row(&[Text(b"2"), Unchanged]) };
        assert_eq!(
            rendered(&mut renderer, &change).0,
            "WITH was AS (DELETE FROM ONLY \"public\".\"t\" WHERE \"k\" OPERATOR(\"pg_catalog\".=) $2::text RETURNING *) \
             INSERT INTO \"public\".\"t\" (\"k\", \"v\", \"extra\") OVERRIDING SYSTEM VALUE \
             SELECT $1::text, was.\"v\", was.\"extra\" FROM was"
        );
    }

    #[test]
    fn a_generated_column_of_the_target_is_never_written() {
        let relation = relation(ReplicaIdentity::Default, &[("k", KeyColumn::Yes), ("g", KeyColumn::No)]);
        let table = target(&[("k", Generation::None), ("g", Generation::Expression)], Some(&["k"]));
        let mut renderer = Renderer::new(Mapping::new(relation, table).unwrap());
        let change = ChangeKind::Insert { new: row(&[Text(b"1"), Text(b"2")]) };
        let (sql, params) = rendered(&mut renderer, &change);
        assert_eq!(sql, r#"INSERT INTO "public"."t" ("k") OVERRIDING SYSTEM VALUE VALUES ($1)"#);
        assert_eq!(params, [Some("1".to_owned())]);
    }

    #[test]
    fn what_cannot_be_expressed_is_refused() {
        let change = ChangeKind::Insert { new: row(&[Text(b"1"), Unchanged, Null]) };
        let error = keyed().render(&change).unwrap_err();
        assert_eq!(error, RenderError::MissingValue("\"v\"".to_owned()));
        let relation = relation(ReplicaIdentity::Nothing, &[("k", KeyColumn::No)]);
        let mut renderer = Renderer::new(Mapping::new(relation, target(&[("k", Generation::None)], None)).unwrap());
        let change = ChangeKind::Delete { old: OldTuple::Full(row(&[Text(b"1")])) };
        assert_eq!(renderer.render(&change).unwrap_err(), RenderError::NoIdentity);
    }

    #[test]
    fn a_column_that_the_target_lacks_is_named_with_its_remedy() {
        let relation = relation(ReplicaIdentity::Default, &[("k", KeyColumn::Yes), ("new", KeyColumn::No)]);
        let error = Mapping::new(relation, target(&[("k", Generation::None)], None)).unwrap_err();
        assert!(error.to_string().contains(r#"ALTER TABLE "public"."t" ADD COLUMN "new" text"#), "{error}");
    }
}
