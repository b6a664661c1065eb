//! The SQL that gives relations, columns and values of enums other names: one rule.
//!
//! Invariant: the statements can be run as they are, in their order. What is in
//! the way goes first; of relations that exchange names one goes by a name that
//! nobody has. Where they exchange schemas, all of one schema go by a schema of their
//! own: a table takes its indexes along, whose names may be those of others'. A new
//! schema is created unless it is there, as the whole schema may have been renamed.
//!
//! Source: `AlterTableNamespaceInternal` in `src/backend/commands/tablecmds.c`.

use std::collections::{HashMap, HashSet};

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

impl Rename {
    fn leaves_its_schema(&self) -> bool {
        self.from.schema != self.to.schema
    }
}

/// Renames, none of which is from or to the same name as another.
#[derive(Debug)]
pub struct Renames<'r> {
    all: &'r [Rename],
    by_old: HashMap<&'r TableName, usize>,
    by_new: HashMap<&'r TableName, usize>,
    /// Those that leave each schema.
    leaving: HashMap<&'r str, Vec<usize>>,
    /// Those that come into each from another one.
    coming: HashMap<&'r str, Vec<usize>>,
}

impl<'r> Renames<'r> {
    /// These.
    pub fn of(all: &'r [Rename]) -> Self {
        let by = |name: fn(&Rename) -> &TableName| all.iter().enumerate().map(|(n, one)| (name(one), n)).collect();
        let (mut leaving, mut coming) = (HashMap::<&str, Vec<usize>>::new(), HashMap::<&str, Vec<usize>>::new());
        for (place, rename) in all.iter().enumerate().filter(|(_, rename)| rename.leaves_its_schema()) {
            leaving.entry(&rename.from.schema).or_default().push(place);
            coming.entry(&rename.to.schema).or_default().push(place);
        }
        Renames { all, by_old: by(|one| &one.from), by_new: by(|one| &one.to), leaving, coming }
    }

    /// The one from this name, and those that it is connected with: by a name that one
    /// gives and another takes, or by a schema that one leaves and another comes into.
    pub fn group(&self, from: &TableName) -> Vec<Rename> {
        let mut group: Vec<usize> = self.by_old.get(from).copied().into_iter().collect();
        let mut seen: HashSet<usize> = group.iter().copied().collect();
        let mut seen_schemas: HashSet<(&str, bool)> = HashSet::new();
        let mut next = 0;
        while let Some(one) = group.get(next).and_then(|place| self.all.get(*place)) {
            next += 1;
            let mut with: Vec<usize> =
                [self.by_old.get(&one.to), self.by_new.get(&one.from)].into_iter().flatten().copied().collect();
            if one.leaves_its_schema() {
                let schemas = [(&one.to.schema, &self.leaving, true), (&one.from.schema, &self.coming, false)];
                for (schema, others, leaves) in schemas {
                    if seen_schemas.insert((schema.as_str(), leaves)) {
                        with.extend(others.get(schema.as_str()).into_iter().flatten());
                    }
                }
            }
            group.extend(with.into_iter().filter(|place| seen.insert(*place)));
        }
        group.into_iter().filter_map(|place| self.all.get(place)).cloned().collect()
    }
}

/// The statements for these renames, none of which is from or to the same name as
/// another. `is_taken` says which names there are.
pub fn rename_sql(what: Renamed<'_>, renames: &[Rename], is_taken: impl Fn(&TableName) -> bool) -> String {
    let mut writer = Writer {
        what,
        is_taken,
        left: renames.to_vec(),
        names: renames.iter().map(|one| one.from.clone()).collect(),
        leaving: HashMap::new(),
        moved: HashSet::new(),
        given: HashSet::new(),
        created: HashSet::new(),
        aside: Vec::new(),
        sql: Vec::new(),
    };
    for one in renames.iter().filter(|one| one.leaves_its_schema()) {
        *writer.leaving.entry(one.from.schema.clone()).or_default() += 1;
    }
    while let Some(next) = writer.next() {
        writer.write(next);
    }
    let dropped = writer.aside.iter().map(|schema| format!("DROP SCHEMA {};", ident(schema)));
    writer.sql.iter().cloned().chain(dropped).collect::<Vec<_>>().join(" ")
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
    /// What those that are left have as their names.
    names: HashSet<TableName>,
    /// How many of them leave each schema.
    leaving: HashMap<String, usize>,
    /// Names that are free by now.
    moved: HashSet<TableName>,
    /// Names that another one has got by now.
    given: HashSet<TableName>,
    /// Schemas that are there, if need be.
    created: HashSet<String>,
    /// Those of them that are for what is put aside.
    aside: Vec<String>,
    sql: Vec<String>,
}

impl<F: Fn(&TableName) -> bool> Writer<'_, F> {
    /// One whose new name is no other's any more, and whose new schema none of the others
    /// leaves. Of a circle one makes way first, or all that leave its schema.
    fn next(&mut self) -> Option<Rename> {
        let is_left = |schema: &str| self.leaving.get(schema).is_none_or(|count| *count == 0);
        let is_free =
            |one: &Rename| !self.names.contains(&one.to) && (!one.leaves_its_schema() || is_left(&one.to.schema));
        if let Some(place) = self.left.iter().position(is_free) {
            let one = self.left.remove(place);
            self.names.remove(&one.from);
            self.leaves(&one);
            return Some(one);
        }
        match self.left.iter().find(|one| one.leaves_its_schema()).map(|one| one.from.schema.clone()) {
            Some(schema) => self.put_all_aside(&schema),
            None => self.put_aside()?,
        }
        self.next()
    }

    /// Its schema has one less that leaves it.
    fn leaves(&mut self, one: &Rename) {
        if let Some(count) = self.leaving.get_mut(&one.from.schema).filter(|_| one.leaves_its_schema()) {
            *count -= 1;
        }
    }

    /// The first one goes by a name that nobody has.
    fn put_aside(&mut self) -> Option<()> {
        let first = self.left.first()?.from.clone();
        let aside = self.aside(&first.schema);
        self.statement(&first, Action::Name(&aside.name));
        if let Some(rename) = self.left.first_mut() {
            rename.from = aside.clone();
        }
        self.names.remove(&first);
        self.names.insert(aside);
        self.moved.insert(first);
        Some(())
    }

    /// All that leave this schema go by one of their own.
    fn put_all_aside(&mut self, schema: &str) {
        let is_taken = |name: &String| self.left.iter().any(|one| one.from.schema == *name || one.to.schema == *name);
        let mut asides = (1u32..).map(|number| format!("walferry_aside_{number}"));
        let Some(aside) = asides.find(|name| !is_taken(name)) else { return };
        self.create(&aside);
        let (gone, left): (Vec<Rename>, Vec<Rename>) = std::mem::take(&mut self.left)
            .into_iter()
            .partition(|one| one.leaves_its_schema() && one.from.schema == schema);
        for Rename { from, to } in gone {
            self.statement(&from, Action::Schema(&aside));
            let now = TableName::new(aside.as_str(), &from.name);
            self.names.remove(&from);
            self.names.insert(now.clone());
            self.moved.insert(from);
            self.left.push(Rename { from: now, to });
        }
        self.leaving.remove(schema);
        self.leaving.insert(aside.clone(), self.left.len());
        self.left.extend(left);
        self.aside.push(aside);
    }

    /// Makes sure that there is a schema.
    fn create(&mut self, schema: &str) {
        if self.created.insert(schema.to_owned()) {
            self.sql.push(format!("CREATE SCHEMA IF NOT EXISTS {};", ident(schema)));
        }
    }

    fn write(&mut self, Rename { from, to }: Rename) {
        let under_its_new_name = TableName::new(&from.schema, &to.name);
        let in_its_new_schema = TableName::new(&to.schema, &from.name);
        if from.schema != to.schema {
            self.create(&to.schema);
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
        self.moved.insert(from);
        self.given.insert(to);
    }

    fn aside(&self, schema: &str) -> TableName {
        aside(schema, |name| self.is_there(name))
    }

    fn is_there(&self, name: &TableName) -> bool {
        let is_of_another = (self.is_taken)(name) && !self.moved.contains(name);
        is_of_another || self.given.contains(name) || self.names.contains(name)
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
            "CREATE SCHEMA IF NOT EXISTS walferry_aside_1; ALTER TABLE s.b SET SCHEMA walferry_aside_1; ALTER TABLE s.a RENAME TO b; \
             CREATE SCHEMA IF NOT EXISTS s; ALTER TABLE t.c RENAME TO a; ALTER TABLE t.a SET SCHEMA s; CREATE SCHEMA IF NOT EXISTS t; \
             ALTER TABLE walferry_aside_1.b RENAME TO c; ALTER TABLE walferry_aside_1.c SET SCHEMA t; DROP SCHEMA walferry_aside_1;"
        );
    }

    /// An index of the one may have the name of one of the other.
    #[test]
    fn tables_that_exchange_schemas_go_round_by_a_schema_of_their_own() {
        let all = [("s.t", "t.t"), ("t.t", "s.t"), ("s.u", "t.u"), ("t.v", "s.v"), ("s.x", "s.y"), ("s.y", "s.x")];
        let taken: Vec<&str> = all.iter().map(|(from, _)| *from).collect();
        assert_eq!(
            sql(&all, &taken),
            "CREATE SCHEMA IF NOT EXISTS walferry_aside_1; ALTER TABLE s.t SET SCHEMA walferry_aside_1; \
             ALTER TABLE s.u SET SCHEMA walferry_aside_1; CREATE SCHEMA IF NOT EXISTS s; ALTER TABLE t.t SET SCHEMA s; \
             ALTER TABLE t.v SET SCHEMA s; CREATE SCHEMA IF NOT EXISTS t; ALTER TABLE walferry_aside_1.t SET SCHEMA t; \
             ALTER TABLE walferry_aside_1.u SET SCHEMA t; ALTER TABLE s.x RENAME TO walferry_aside_1; ALTER TABLE s.y RENAME TO x; \
             ALTER TABLE s.walferry_aside_1 RENAME TO y; DROP SCHEMA walferry_aside_1;"
        );
        let three = [("s.t", "t.t"), ("t.t", "r.t"), ("r.t", "s.t")];
        assert_eq!(
            sql(&three, &["s.t", "t.t", "r.t"]),
            "CREATE SCHEMA IF NOT EXISTS walferry_aside_1; ALTER TABLE s.t SET SCHEMA walferry_aside_1; \
             CREATE SCHEMA IF NOT EXISTS s; ALTER TABLE r.t SET SCHEMA s; CREATE SCHEMA IF NOT EXISTS r; ALTER TABLE t.t SET SCHEMA r; \
             CREATE SCHEMA IF NOT EXISTS t; ALTER TABLE walferry_aside_1.t SET SCHEMA t; DROP SCHEMA walferry_aside_1;"
        );
        let chain = [("s.t", "t.t"), ("t.v", "r.v")];
        assert_eq!(
            sql(&chain, &["s.t", "t.v"]),
            "CREATE SCHEMA IF NOT EXISTS r; ALTER TABLE t.v SET SCHEMA r; CREATE SCHEMA IF NOT EXISTS t; ALTER TABLE s.t SET SCHEMA t;"
        );
    }

    #[test]
    fn those_that_are_connected_by_names_or_schemas_go_together() {
        let name = |text: &str| {
            let (schema, name) = text.split_once('.').unwrap();
            TableName::new(schema, name)
        };
        let pairs = [("s.a", "s.b"), ("s.b", "s.c"), ("s.t", "t.t"), ("t.u", "r.u"), ("q.x", "q.y"), ("q.y", "q.x")];
        let all: Vec<Rename> = pairs.iter().map(|(from, to)| Rename { from: name(from), to: name(to) }).collect();
        let connected = Renames::of(&all);
        for (from, group) in
            [("s.b", ["s.b", "s.a"]), ("s.t", ["s.t", "t.u"]), ("t.u", ["t.u", "s.t"]), ("q.x", ["q.x", "q.y"])]
        {
            let found: Vec<String> = connected.group(&name(from)).iter().map(|one| one.from.to_string()).collect();
            assert_eq!(found, group, "{from}");
        }
        assert!(connected.group(&name("s.none")).is_empty());
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
