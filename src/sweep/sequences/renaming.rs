//! How the target's sequences get the names that the source's have: pure.
//!
//! Invariant: the statements run as they are printed, in their order. Those whose names are
//! in each other's way are one text; what was the counterpart of one that the source has no
//! more, and has a name that one of them gets, makes way first. What the migration never had
//! is neither dropped nor renamed: it is said to be in the way. What is created comes behind (`SequenceProblem::turn`), so a
//! name that a new one needs is free by then.

use std::collections::{HashMap, HashSet};

use super::catalog::Sequence;
use super::problem::{Blame, Renaming, SequenceCause};
use crate::config::SchemaMode;
use crate::sql::rename::{Rename, Renamed, Renames, aside, rename_sql};
use crate::sql::{TableName, ident};

/// The target's sequences.
pub(super) struct There<'s> {
    /// Those that are counterparts.
    counterparts: HashMap<&'s TableName, &'s Sequence>,
    /// Those that are none's.
    others: HashMap<&'s TableName, &'s Sequence>,
    /// Of these the ones that may make way, by their oids.
    left: HashSet<u32>,
    schema: SchemaMode,
}

impl<'s> There<'s> {
    pub fn of(
        counterparts: impl Iterator<Item = &'s Sequence>,
        others: impl Iterator<Item = &'s Sequence>,
        left: HashSet<u32>,
        schema: SchemaMode,
    ) -> Self {
        let by_name = |sequence: &'s Sequence| (&sequence.name, sequence);
        There { counterparts: counterparts.map(by_name).collect(), others: others.map(by_name).collect(), left, schema }
    }

    /// How these get their names, by the place of each. `wanted` has the names of those that
    /// the target lacks.
    pub fn renaming(
        &self,
        renames: Vec<(usize, Rename, Blame)>,
        wanted: &HashSet<&TableName>,
    ) -> Vec<(usize, SequenceCause)> {
        let all: Vec<Rename> = renames.iter().map(|(_, rename, _)| rename.clone()).collect();
        let connected = Renames::of(&all);
        let needed: HashSet<&TableName> = renames
            .iter()
            .filter(|(_, rename, blame)| *blame == Blame::NotOurs || wanted.contains(&rename.from))
            .map(|(_, rename, _)| &rename.from)
            .collect();
        let mut given = HashSet::new();
        let mut said: HashMap<TableName, (TableName, Blame)> = HashMap::new();
        let mut problems = Vec::new();
        for (place, Rename { from, to }, _) in &renames {
            let (how, blame) = match said.get(from) {
                Some((first, blame)) => (Renaming::With(first.clone()), *blame),
                None => {
                    let group = connected.group(from);
                    let is_needed = group.iter().any(|rename| needed.contains(&rename.from));
                    let blame = if is_needed { Blame::NotOurs } else { Blame::Schema };
                    said.extend(group.iter().map(|rename| (rename.from.clone(), (to.clone(), blame))));
                    (self.how(&group, &mut given), blame)
                }
            };
            problems.push((*place, SequenceCause::Renamed { how, blame }));
        }
        problems
    }

    fn how(&self, group: &[Rename], given: &mut HashSet<TableName>) -> Renaming {
        let is_strangers =
            |name: &&TableName| self.others.get(name).is_some_and(|other| !self.left.contains(&other.oid));
        let strangers: Vec<TableName> = group.iter().map(|rename| &rename.to).filter(is_strangers).cloned().collect();
        if strangers.is_empty() { Renaming::Sql(self.sql(group, given)) } else { Renaming::OnceAway(strangers) }
    }

    /// The statements for a group. `given` has the names that others were put aside to.
    fn sql(&self, group: &[Rename], given: &mut HashSet<TableName>) -> String {
        let mut statements: Vec<String> = Vec::new();
        for other in group.iter().filter_map(|rename| self.others.get(&rename.to)) {
            statements.push(self.out_of_the_way(other, given));
        }
        statements.extend(group.iter().filter_map(|rename| self.let_go(rename)));
        statements.push(rename_sql(Renamed::Sequence, group, |name| self.is_taken(name, given)));
        statements.join(" ")
    }

    /// What the source has no more and nothing uses can go; else it gets another name. It may
    /// have gone with its table by then.
    fn out_of_the_way(&self, other: &Sequence, given: &mut HashSet<TableName>) -> String {
        if self.schema == SchemaMode::Create && other.tied.is_empty() {
            return format!("DROP SEQUENCE IF EXISTS {};", other.name.sql());
        }
        let free = aside(&other.name.schema, |name| self.is_taken(name, given));
        let sql = format!("ALTER SEQUENCE IF EXISTS {} RENAME TO {};", other.name.sql(), ident(&free.name));
        given.insert(free);
        sql
    }

    /// A column's sequence is not moved into another schema as long as it is that.
    fn let_go(&self, rename: &Rename) -> Option<String> {
        let (_, bond) = self.counterparts.get(&rename.from)?.owner.as_ref()?;
        let is_held = rename.from.schema != rename.to.schema && !bond.is_identity();
        is_held.then(|| format!("ALTER SEQUENCE {} OWNED BY NONE;", rename.from.sql()))
    }

    fn is_taken(&self, name: &TableName, given: &HashSet<TableName>) -> bool {
        self.counterparts.contains_key(name) || self.others.contains_key(name) || given.contains(name)
    }
}
