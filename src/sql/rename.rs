//! The SQL that gives relations, columns and values of enums other names: one rule.
//!
//! Invariant: the statements can be run as they are, in their order. What is in
//! the way goes first; of relations that exchange names one goes by a name that
//! nobody has. A new schema is created unless it is there, as the whole
//! schema may have been renamed.

use std::collections::HashMap;

use super::{TableName, ident, literal};

/// What is renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renamed<'a> {
    /// Tables.
    Table,
    /// Sequences.
    Sequence,
    /// Columns of this table; their names have no schema.
    Column(&'a TableName),
    /// Labels of the enum of this name, as SQL; they have no schema.
    Label(&'a str),
    /// Attributes of the composite type of this name, as SQL; they have no schema.
    Attribute(&'a str),
}

/// A relation's name, and the one that it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// Its name.
    pub from: TableName,
    /// The one that it gets.
    pub to: TableName,
}

/// Renames by their names, none of which is from or to the same name as another.
#[derive(Debug)]
pub struct Renames<'r> {
    by_old: HashMap<&'r TableName, &'r Rename>,
    by_new: HashMap<&'r TableName, &'r Rename>,
}

impl<'r> Renames<'r> {
    /// These.
    pub fn of(renames: &'r [Rename]) -> Self {
        let (by_old, by_new) = renames.iter().map(|rename| ((&rename.from, rename), (&rename.to, rename))).unzip();
        Renames { by_old, by_new }
    }

    /// The one from this name, and those that it is connected with by a name that one
    /// gives and another takes.
    pub fn group(&self, from: &TableName) -> Vec<Rename> {
        let mut group: Vec<Rename> = self.by_old.get(from).map(|first| (*first).clone()).into_iter().collect();
        while let Some(next) = group.last().and_then(|last| self.by_old.get(&last.to)) {
            if next.from == *from {
                return group;
            }
            group.push((*next).clone());
        }
        let mut first = from;
        while let Some(before) = self.by_new.get(first) {
            group.push((*before).clone());
            first = &before.from;
        }
        group
    }
}

/// The statements for these renames, none of which is from or to the same name as
/// another. `is_taken` says which names there are.
pub fn rename_sql(what: Renamed<'_>, renames: &[Rename], is_taken: impl Fn(&TableName) -> bool) -> String {
    let left = renames.to_vec();
    let mut writer = Writer { what, is_taken, left, moved: Vec::new(), given: Vec::new(), sql: Vec::new() };
    while let Some(next) = writer.next() {
        writer.write(next);
    }
    writer.sql.join(" ")
}

/// A name of this schema that nobody has.
pub fn aside(schema: &str, is_taken: impl Fn(&TableName) -> bool) -> TableName {
    let names = (1u32..).map(|number| TableName::new(schema, format!("walferry_aside_{number}")));
    let mut free = names.filter(|name| !is_taken(name));
    free.next().unwrap_or_else(|| TableName::new(schema, "walferry_aside"))
}

struct Writer<'a, F> {
    what: Renamed<'a>,
    is_taken: F,
    left: Vec<Rename>,
    /// Names that were given up.
    moved: Vec<TableName>,
    /// Names that another one has got by now.
    given: Vec<TableName>,
    sql: Vec<String>,
}

impl<F: Fn(&TableName) -> bool> Writer<'_, F> {
    /// One whose new name is no other's any more. Of a circle one makes way first.
    fn next(&mut self) -> Option<Rename> {
        let is_free = |place: &usize| {
            let to = self.left.get(*place).map(|rename| &rename.to);
            self.left.iter().all(|other| Some(&other.from) != to)
        };
        if let Some(place) = (0..self.left.len()).find(is_free) {
            return Some(self.left.remove(place));
        }
        let first = self.left.first()?.from.clone();
        let aside = self.aside(&first.schema);
        self.statement(&first, Action::Name(&aside.name));
        if let Some(rename) = self.left.first_mut() {
            rename.from = aside;
        }
        self.moved.push(first);
        self.next()
    }

    fn write(&mut self, Rename { from, to }: Rename) {
        let under_its_new_name = TableName::new(&from.schema, &to.name);
        let in_its_new_schema = TableName::new(&to.schema, &from.name);
        if from.schema != to.schema {
            let create = format!("CREATE SCHEMA IF NOT EXISTS {};", ident(&to.schema));
            if !self.sql.contains(&create) {
                self.sql.push(create);
            }
        }
        let (rename, move_it) = (Action::Name(&to.name), Action::Schema(&to.schema));
        match (from.name != to.name, from.schema != to.schema) {
            (true, false) => self.statement(&from, rename),
            (false, true) => self.statement(&from, move_it),
            (true, true) if !self.is_there(&under_its_new_name) => {
                self.statement(&from, rename);
                self.statement(&under_its_new_name, move_it);
            }
            (true, true) if !self.is_there(&in_its_new_schema) => {
                self.statement(&from, move_it);
                self.statement(&in_its_new_schema, rename);
            }
            (true, true) => {
                let aside = self.aside(&from.schema);
                self.statement(&from, Action::Name(&aside.name));
                self.statement(&aside, move_it);
                self.statement(&TableName::new(&to.schema, aside.name), rename);
            }
            (false, false) => {}
        }
        self.moved.push(from);
        self.given.push(to);
    }

    fn aside(&self, schema: &str) -> TableName {
        aside(schema, |name| self.is_there(name))
    }

    fn is_there(&self, name: &TableName) -> bool {
        let is_of_another = (self.is_taken)(name) && !self.moved.contains(name);
        is_of_another || self.given.contains(name) || self.left.iter().any(|rename| rename.from == *name)
    }

    fn statement(&mut self, relation: &TableName, action: Action<'_>) {
        let (sql, name) = (relation.sql(), &relation.name);
        let to = match action {
            Action::Name(to) => format!("RENAME TO {}", ident(to)),
            Action::Schema(to) => format!("SET SCHEMA {}", ident(to)),
        };
        self.sql.push(match (self.what, action) {
            (Renamed::Table, _) => format!("ALTER TABLE {sql} {to};"),
            (Renamed::Sequence, _) => format!("ALTER SEQUENCE {sql} {to};"),
            (Renamed::Column(table), Action::Name(to) | Action::Schema(to)) => {
                format!("ALTER TABLE {} RENAME COLUMN {} TO {};", table.sql(), ident(name), ident(to))
            }
            (Renamed::Attribute(of), Action::Name(to) | Action::Schema(to)) => {
                format!("ALTER TYPE {of} RENAME ATTRIBUTE {} TO {} CASCADE;", ident(name), ident(to))
            }
            (Renamed::Label(of), Action::Name(to) | Action::Schema(to)) => {
                format!("ALTER TYPE {of} RENAME VALUE {} TO {};", literal(name), literal(to))
            }
        });
    }
}

/// What is done to a relation; to what has no schema it is another name.
#[derive(Clone, Copy)]
enum Action<'a> {
    Name(&'a str),
    Schema(&'a str),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sql(renames: &[(&str, &str)], taken: &[&str]) -> String {
        let name = |text: &str| {
            let (schema, name) = text.split_once('.').unwrap();
            TableName::new(schema, name)
        };
        let renames: Vec<Rename> = renames.iter().map(|(from, to)| Rename { from: name(from), to: name(to) }).collect();
        rename_sql(Renamed::Table, &renames, |asked| taken.iter().any(|text| name(text) == *asked)).replace('"', "")
    }

    #[test]
    fn what_is_in_the_way_goes_first() {
        assert_eq!(
            sql(&[("s.a", "s.b"), ("s.b", "s.c")], &["s.a", "s.b"]),
            "ALTER TABLE s.b RENAME TO c; ALTER TABLE s.a RENAME TO b;"
        );
    }

    #[test]
    fn tables_that_exchange_names_go_round_by_a_free_one() {
        assert_eq!(
            sql(&[("s.a", "s.b"), ("s.b", "s.a")], &["s.a", "s.b", "s.walferry_aside_1"]),
            "ALTER TABLE s.a RENAME TO walferry_aside_2; ALTER TABLE s.b RENAME TO a; \
             ALTER TABLE s.walferry_aside_2 RENAME TO b;"
        );
        assert_eq!(
            sql(&[("s.a", "s.b"), ("s.b", "t.c"), ("t.c", "s.a")], &["s.a", "s.b", "t.c"]),
            "ALTER TABLE s.a RENAME TO walferry_aside_1; CREATE SCHEMA IF NOT EXISTS s; ALTER TABLE t.c RENAME TO a; \
             ALTER TABLE t.a SET SCHEMA s; CREATE SCHEMA IF NOT EXISTS t; ALTER TABLE s.b RENAME TO c; ALTER TABLE s.c SET SCHEMA t; ALTER TABLE s.walferry_aside_1 RENAME TO b;"
        );
    }

    /// The story: the name that the first of a circle had given up was another one's by then.
    #[test]
    fn tables_that_exchange_schemas_do_not_pass_by_a_name_that_was_given_to_the_other() {
        assert_eq!(
            sql(&[("s.a", "t.a"), ("t.a", "s.a")], &["s.a", "t.a"]),
            "ALTER TABLE s.a RENAME TO walferry_aside_1; CREATE SCHEMA IF NOT EXISTS s; ALTER TABLE t.a SET SCHEMA s; \
             CREATE SCHEMA IF NOT EXISTS t; ALTER TABLE s.walferry_aside_1 SET SCHEMA t; ALTER TABLE t.walferry_aside_1 RENAME TO a;"
        );
    }

    #[test]
    fn a_name_between_the_old_and_the_new_one_may_be_taken() {
        assert_eq!(
            sql(&[("s.a", "t.b")], &["s.a", "s.b"]),
            "CREATE SCHEMA IF NOT EXISTS t; ALTER TABLE s.a SET SCHEMA t; ALTER TABLE t.a RENAME TO b;"
        );
        assert_eq!(
            sql(&[("s.a", "t.b")], &["s.a", "s.b", "t.a"]),
            "CREATE SCHEMA IF NOT EXISTS t; ALTER TABLE s.a RENAME TO walferry_aside_1; ALTER TABLE s.walferry_aside_1 SET SCHEMA t; \
             ALTER TABLE t.walferry_aside_1 RENAME TO b;"
        );
    }
}
