//! Columns whose default draws from a sequence on one side, and on the other does not.
//!
//! Invariant: with `--schema create` such a column is named with the default that it has on
//! the source: a key that draws nothing there refuses the application's first row. Defaults
//! are read by what they depend on, and compared as text before anything is said; other
//! defaults that were altered since are the operator's, and so is a schema of theirs.

use std::collections::{HashMap, HashSet};

use super::catalog::Sequence;
use super::problem::{SequenceCause, SequenceProblem};
use super::{Counterpart, Found};
use crate::catalog::added::{default_sql, number_of_column};
use crate::catalog::sequences::{Bond, Owner, Tied};
use crate::catalog::tables;
use crate::config::Side;
use crate::session::{DbError, Session};
use crate::sql::{TableName, ident};

/// All of them, with what is to be run on the target.
///
/// # Errors
/// When either side cannot be read.
pub(super) async fn find(source: &Session, target: &Session, found: &Found) -> Result<Vec<SequenceProblem>, DbError> {
    let there: Vec<&Sequence> = found.theirs.iter().flatten().map(|(one, _)| one).chain(&found.others).collect();
    let drawn_there: HashSet<(&TableName, &str)> =
        there.iter().flat_map(|one| drawing(one)).map(|(tied, _, column)| (&tied.table.name, column)).collect();
    let drawn_here: HashSet<(u32, &str)> =
        found.ours.iter().flat_map(drawing).map(|(tied, _, column)| (tied.table.oid, column)).collect();
    let mut problems = here_alone((source, target), found, &drawn_there).await?;
    let by_name: HashMap<&TableName, u32> = found.records.tables.iter().map(|(oid, name)| (name, *oid)).collect();
    let alone = |tied: &Tied, column: &str| {
        let oid = by_name.get(&tied.table.name).copied();
        oid.filter(|oid| !drawn_here.contains(&(*oid, column)))
    };
    let drawing_there =
        || there.iter().flat_map(|one| drawing(one)).filter(|(tied, _, column)| alone(tied, column).is_some());
    let all_alone: HashSet<(&TableName, &str)> =
        drawing_there().map(|(tied, _, column)| (&tied.table.name, column)).collect();
    for sequence in &there {
        for (tied, number, column) in drawing(sequence) {
            // What is run for a partitioned table reaches its partitions.
            let is_below_one = tied.above.iter().any(|above| all_alone.contains(&(&above.name, column)));
            let Some(oid) = alone(tied, column).filter(|_| !is_below_one) else { continue };
            let owner = Owner { table: tied.table.name.clone(), column: column.to_owned() };
            let bond = sequence.owner.as_ref().filter(|(of, _)| *of == owner).map(|(_, bond)| *bond);
            // What numbers it is looked at elsewhere; a column that the source has not, with columns.
            let Some(ours) = number_of_column(source, oid, column).await?.filter(|_| is_default(bond)) else {
                continue;
            };
            let (here, there) = (default_sql(source, oid, ours), default_sql(target, tied.table.oid, number));
            let (here, there) = tokio::try_join!(here, there)?;
            if here == there {
                continue;
            }
            let alter = alter_sql(&owner);
            let set = here.map_or_else(|| format!("{alter} DROP DEFAULT;"), |d| format!("{alter} SET DEFAULT {d};"));
            let is_left_over = bond.is_some() && found.others.iter().any(|other| other.oid == sequence.oid);
            let drop = format!(" DROP SEQUENCE {};", sequence.name.sql());
            let sql = if is_left_over { set + &drop } else { set };
            let cause = SequenceCause::OneSided { column: owner, drawn_on: Side::Target, sql };
            problems.push(SequenceProblem { sequence: sequence.name.clone(), cause });
        }
    }
    Ok(problems)
}

/// Those that draw on the source alone.
async fn here_alone(
    (source, target): (&Session, &Session),
    found: &Found,
    drawn_there: &HashSet<(&TableName, &str)>,
) -> Result<Vec<SequenceProblem>, DbError> {
    let mut alone: Vec<(&Sequence, &Tied, i16, Owner)> = Vec::new();
    for (sequence, theirs) in found.ours.iter().zip(&found.theirs) {
        for (tied, number, column) in drawing(sequence).filter(|_| is_set_there(sequence, theirs)) {
            let Some(table) = found.records.tables.get(&tied.table.oid) else { continue };
            if !drawn_there.contains(&(table, column)) {
                let owner = Owner { table: table.clone(), column: column.to_owned() };
                alone.push((sequence, tied, number, owner));
            }
        }
    }
    if alone.is_empty() {
        return Ok(Vec::new());
    }
    let names: HashSet<&TableName> = alone.iter().map(|(.., owner)| &owner.table).collect();
    let there = tables::by_name(target, names.into_iter()).await?;
    let has = |owner: &Owner| {
        let column = there.get(&owner.table).and_then(|table| table.columns.iter().find(|c| c.name == owner.column));
        column.is_some_and(|column| !column.is_generated())
    };
    alone.retain(|(.., owner)| has(owner));
    let named: HashSet<(u32, u32, String)> =
        alone.iter().map(|(one, tied, _, owner)| (one.oid, tied.table.oid, owner.column.clone())).collect();
    let mut problems = Vec::new();
    for (sequence, tied, number, owner) in alone {
        // What is run for a partitioned table reaches its partitions.
        if tied.above.iter().any(|above| named.contains(&(sequence.oid, above.oid, owner.column.clone()))) {
            continue;
        }
        let Some(default) = default_sql(source, tied.table.oid, number).await? else { continue };
        let sql = format!("{} SET DEFAULT {default};", alter_sql(&owner));
        let cause = SequenceCause::OneSided { column: owner, drawn_on: Side::Source, sql };
        problems.push(SequenceProblem { sequence: sequence.name.clone(), cause });
    }
    Ok(problems)
}

/// Whether a default is what draws: an identity is compared as a whole.
fn is_default(bond: Option<Bond>) -> bool {
    bond.is_none_or(|bond| bond == Bond::OwnedBy)
}

/// Whether the target has this name for it, or will: what a default calls by name.
fn is_set_there(ours: &Sequence, theirs: &Counterpart) -> bool {
    let is_numbered = ours.owner.as_ref().is_some_and(|(_, bond)| *bond != Bond::OwnedBy);
    !is_numbered && theirs.as_ref().is_none_or(|(theirs, _)| is_default(theirs.owner.as_ref().map(|(_, bond)| *bond)))
}

fn drawing(sequence: &Sequence) -> impl Iterator<Item = (&Tied, i16, &str)> {
    sequence
        .tied
        .iter()
        .flat_map(|tied| tied.drawing.iter().map(move |(number, column)| (tied, *number, column.as_str())))
}

fn alter_sql(column: &Owner) -> String {
    format!("ALTER TABLE {} ALTER COLUMN {}", column.table.sql(), ident(&column.column))
}
