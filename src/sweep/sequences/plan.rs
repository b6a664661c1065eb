//! What a pass does about each sequence: pure.
//!
//! Invariant: every sequence of the migration gets what makes it equal, or a
//! problem that says why there is nothing to do; never neither.

use std::collections::HashSet;

use super::catalog::Sequence;
use super::pairs::{Home, Match};
use super::problem::{Blame, SequenceCause};
use super::value::{Value, is_ahead, with_margin};
use super::{SequencePass, numbering};
use crate::catalog::sequences::{Bond, Definition, Owner};
use crate::catalog::tables::Persistence;
use crate::config::SchemaMode;
use crate::sql::ident;
use crate::sql::rename::Rename;

/// What is to be done about one sequence of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Place in the list of the source's sequences.
    pub place: usize,
    /// The sequence's oid on the target.
    pub oid: u32,
    /// The ALTER SEQUENCE that goes before, in the same transaction.
    pub alter: Option<String>,
    /// What to set.
    pub value: Option<Value>,
}

/// What a pass makes of one sequence.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub change: Option<Change>,
    pub problems: Vec<SequenceCause>,
    /// The target has it under another name.
    pub rename: Option<(Rename, Blame)>,
    /// The margin did not fit: how much of it did.
    pub cut_to: Option<u64>,
}

impl Plan {
    fn problem(cause: SequenceCause) -> Self {
        Plan { problems: vec![cause], ..Plan::default() }
    }
}

/// What is in the way of a sequence whatever its value is. `lacks` has the schemas that are
/// not on the target.
pub(super) fn before_any_value(
    ours: &Sequence,
    theirs: Option<&Sequence>,
    lacks: &HashSet<String>,
) -> Option<SequenceCause> {
    match theirs {
        None => Some(SequenceCause::Missing(create_sql(ours, lacks))),
        Some(theirs) if !theirs.may_read || !theirs.may_update => Some(unwritable(theirs)),
        Some(_) => None,
    }
}

pub(super) fn unwritable(theirs: &Sequence) -> SequenceCause {
    SequenceCause::Unwritable(theirs.grant("SELECT, UPDATE"))
}

/// Decides about a sequence and its counterpart.
pub(super) fn plan(
    place: usize,
    ours: &Sequence,
    theirs: Option<(&Sequence, Match)>,
    (home, lacks): (&Home, &HashSet<String>),
    (schema, pass): (SchemaMode, SequencePass),
) -> Plan {
    let Some((theirs, matched)) = theirs else {
        return Plan::problem(match home {
            Home::Lacking(owner) => SequenceCause::WithColumn(owner.clone()),
            // It belongs to a table that is left out.
            Home::Unknown => SequenceCause::Missing(create_free_sql(ours, lacks)),
            _ => SequenceCause::Missing(create_sql(ours, lacks)),
        });
    };
    let value = match &ours.value {
        Ok(value) => *value,
        Err(cause) => return Plan::problem(cause.clone()),
    };
    let numbered = numbering::of_both(ours, theirs, matched, schema);
    // One that another takes the place of gets no name any more.
    let is_replaced = matches!(&numbered, Some(cause) if cause.is_failure() && cause.replaces());
    let rename = rename(ours, theirs, matched, schema).filter(|_| !is_replaced);
    let mut plan = Plan { rename, problems: numbered.into_iter().collect(), ..Plan::default() };
    let found = match &theirs.value {
        Ok(found) => *found,
        Err(SequenceCause::Unread(words)) => {
            plan.problems.push(SequenceCause::Refused(words.clone()));
            return plan;
        }
        Err(SequenceCause::Another) => {
            plan.problems.push(SequenceCause::Another);
            return plan;
        }
        Err(_) => {
            plan.problems.push(unwritable(theirs));
            return plan;
        }
    };
    let (alter, found) = follow((ours, theirs, home), (value, found), schema, &mut plan.problems);
    let logged = log(ours, theirs, schema, &mut plan.problems);
    let bounds = if alter.is_some() { &ours.definition } else { &theirs.definition };
    let wanted = match pass {
        SequencePass::Periodic => Some(value).filter(|value| is_ahead(*value, found, ours.definition.increment)),
        SequencePass::Initial => Some(value),
        SequencePass::Final { margin } => {
            let bounds = Definition { increment: ours.definition.increment, ..bounds.clone() };
            let (ahead, steps) = with_margin(value, margin, &bounds);
            plan.cut_to = Some(steps).filter(|steps| *steps < margin);
            Some(ahead)
        }
    };
    let value = wanted.filter(|wanted| *wanted != found);
    let alter = [alter, logged].into_iter().flatten().reduce(|one, other| format!("{one}; {other}"));
    if value.is_some() && !theirs.may_update {
        plan.problems.push(unwritable(theirs));
    } else if value.is_some() || alter.is_some() {
        plan.change = Some(Change { place, oid: theirs.oid, alter, value });
    }
    plan
}

/// The name that the target's has to get. A column's sequence is in the schema of its
/// table and moves with it: where the table has to, that is said of the table.
fn rename(ours: &Sequence, theirs: &Sequence, matched: Match, schema: SchemaMode) -> Option<(Rename, Blame)> {
    let is_in_place = match matched {
        Match::OfColumn(_) => ours.name.schema == theirs.name.schema,
        Match::Recorded(_) | Match::Named(_) | Match::None => true,
    };
    let rename = Rename { from: theirs.name.clone(), to: ours.name.clone() };
    // One that is no column's is found by nothing but its name.
    let blame = match (matched, schema) {
        (Match::OfColumn(_), SchemaMode::Existing | SchemaMode::None) => Blame::Schema,
        _ => Blame::NotOurs,
    };
    (is_in_place && rename.from != rename.to).then_some((rename, blame))
}

/// Compares the definitions: the ALTER SEQUENCE, if it is ours to do, and the
/// value that the target's sequence has after it.
fn follow(
    (ours, theirs, home): (&Sequence, &Sequence, &Home),
    (value, found): (Value, Value),
    schema: SchemaMode,
    problems: &mut Vec<SequenceCause>,
) -> (Option<String>, Value) {
    let mut there = theirs.definition.differences(&ours.definition);
    let owner = owner_sql((ours, theirs, home), schema);
    if there.is_empty() && owner.is_none() {
        return (None, found);
    }
    let mut sql = format!("ALTER SEQUENCE {}", theirs.name.sql());
    let mut after = found;
    if !there.is_empty() {
        sql.push_str(&format!(" {}", ours.definition.sql()));
        if !ours.definition.admits(found.0) {
            sql.push_str(&format!(" RESTART WITH {}", value.0));
            after = (value.0, false);
        }
    }
    if let Some((is, to_be)) = owner {
        there = [there, is].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ");
        sql.push_str(&format!(" {to_be}"));
    }
    match (schema, theirs.may_alter) {
        (SchemaMode::Create, true) => (Some(sql), after),
        (SchemaMode::Create, false) => {
            problems.push(SequenceCause::Defined { there, sql, blame: Blame::NotOurs });
            (None, found)
        }
        (SchemaMode::Existing | SchemaMode::None, _) => {
            problems.push(SequenceCause::Defined { there, sql, blame: Blame::Schema });
            (None, found)
        }
    }
}

/// Compares whether a crash resets them: the ALTER SEQUENCE, if it is ours to do. One that
/// is reset gives values a second time, whoever's the schema is.
fn log(ours: &Sequence, theirs: &Sequence, schema: SchemaMode, problems: &mut Vec<SequenceCause>) -> Option<String> {
    let is_logged = match ours.persistence {
        Some(persistence) => persistence == Persistence::Permanent,
        // That of an unlogged table is not, once it is on a newer server.
        None => ours.owner.is_none(),
    };
    let sql = |how: &str| format!("ALTER SEQUENCE {} SET {how}", theirs.name.sql());
    let (there, sql, blame) = match (ours.persistence, theirs.persistence?) {
        (_, Persistence::Unlogged) if is_logged => ("UNLOGGED", sql("LOGGED"), Blame::NotOurs),
        (Some(Persistence::Unlogged), Persistence::Permanent) => ("LOGGED", sql("UNLOGGED"), Blame::Schema),
        _ => return None,
    };
    if (schema, theirs.may_alter, blame) == (SchemaMode::Create, true, Blame::NotOurs) {
        return Some(sql);
    }
    problems.push(SequenceCause::Defined { there: there.to_owned(), sql, blame });
    None
}

/// The OWNED BY that the target's has, and the one that it has to get: a sequence keeps a
/// table from being dropped that it does not belong to on the source any more. In a schema
/// of the operator's it may belong to no column. An identity column's cannot get another.
fn owner_sql((ours, theirs, home): (&Sequence, &Sequence, &Home), schema: SchemaMode) -> Option<(String, String)> {
    let is_owned_by = |sequence: &Sequence| sequence.owner.as_ref().is_none_or(|(_, bond)| !bond.is_identity());
    if !is_owned_by(ours) || !is_owned_by(theirs) {
        return None;
    }
    let there = theirs.owner.as_ref().map(|(owner, _)| owner);
    let wanted = match home {
        // One that is in another schema is moved first.
        Home::Column(owner) if owner.table.schema == theirs.name.schema => Some(owner),
        Home::Nowhere => None,
        Home::Column(_) | Home::Lacking(_) | Home::Unknown => return None,
    };
    let sql = |owner: Option<&Owner>| match owner {
        Some(owner) => format!("OWNED BY {}.{}", owner.table.sql(), ident(&owner.column)),
        None => "OWNED BY NONE".to_owned(),
    };
    let is_to_change = there != wanted && (schema == SchemaMode::Create || there.is_some());
    is_to_change.then(|| (sql(there), sql(wanted)))
}

/// The SQL that makes a sequence like this one on the target, which lacks these schemas.
fn create_sql(sequence: &Sequence, lacks: &HashSet<String>) -> String {
    match &sequence.owner {
        Some((owner, bond)) => create_of_column_sql(sequence, owner, *bond),
        None => create_free_sql(sequence, lacks),
    }
}

/// The same of one that belongs to no column there.
fn create_free_sql(sequence: &Sequence, lacks: &HashSet<String>) -> String {
    let (name, definition) = (sequence.name.sql(), &sequence.definition);
    // Where it is there it needs the right to create schemas all the same.
    let schema = lacks.get(&sequence.name.schema);
    let schema = schema.map(|schema| format!("CREATE SCHEMA IF NOT EXISTS {}; ", ident(schema)));
    // A table whose default calls it may have brought it by then.
    schema.unwrap_or_default() + &format!("CREATE SEQUENCE IF NOT EXISTS {name} {}", definition.sql())
}

/// The SQL that makes a sequence like this one for a column of the target.
pub(super) fn create_of_column_sql(sequence: &Sequence, owner: &Owner, bond: Bond) -> String {
    let (name, definition) = (sequence.name.sql(), &sequence.definition);
    let (table, column) = (owner.table.sql(), ident(&owner.column));
    if !bond.is_identity() {
        return format!("CREATE SEQUENCE {name} {} OWNED BY {table}.{column}", definition.sql());
    }
    // What it has otherwise is refused, and is no more on the source either.
    format!(
        "ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT, ALTER COLUMN {column} SET NOT NULL, \
         ALTER COLUMN {column} ADD {} AS IDENTITY (SEQUENCE NAME {name} {})",
        bond.sql(),
        definition.options_sql()
    )
}
