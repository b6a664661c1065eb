//! Columns whose default draws from a sequence on one side, and on the other does not.
//!
//! Invariant: with `--schema create` such a column is named with the default that it has on
//! the source: a key that draws nothing there refuses the application's first row. Defaults
//! are read by what they depend on, and compared as text before anything is said; other
//! defaults that were altered since are the operator's, and so is a schema of theirs.

use std::collections::{HashMap, HashSet};

use super::Found;
use super::catalog::Sequence;
use super::drawing::{drawing, left_behind};
use super::problem::{SequenceCause, SequenceProblem};
use crate::catalog::added::{default_sql, number_of_column};
use crate::catalog::sequences::{Owner, Tied};
use crate::catalog::tables;
use crate::config::Side;
use crate::session::{DbError, Session};
use crate::sql::TableName;

/// All of them, with what is to be run on the target.
///
/// # Errors
/// When either side cannot be read.
pub(super) async fn find(source: &Session, target: &Session, found: &Found) -> Result<Vec<SequenceProblem>, DbError> {
    let there: Vec<&Sequence> = found.theirs.iter().flatten().map(|(one, _)| one).chain(&found.others).collect();
    let mut problems = on_source((source, target), found, &there).await?;
    problems.extend(on_target((source, target), found, &there).await?);
    Ok(problems)
}

/// Those that draw on the source alone. `there` are the target's sequences.
async fn on_source(
    (source, target): (&Session, &Session),
    found: &Found,
    there: &[&Sequence],
) -> Result<Vec<SequenceProblem>, DbError> {
    let drawn_there: HashSet<(&TableName, &str)> = there
        .iter()
        .flat_map(|one| drawing(one))
        .map(|(tied, (_, column))| (&tied.table.name, column.as_str()))
        .collect();
    let mut alone: Vec<(&Sequence, &Tied, i16, Owner)> = Vec::new();
    for sequence in &found.ours {
        for (tied, (number, column)) in drawing(sequence) {
            let Some(table) = found.records.tables.get(&tied.table.oid) else { continue };
            let owner = Owner { table: table.clone(), column: column.clone() };
            if !drawn_there.contains(&(table, column.as_str())) {
                alone.push((sequence, tied, *number, owner));
            }
        }
    }
    if alone.is_empty() {
        return Ok(Vec::new());
    }
    // A column that the target lacks comes with its default.
    let names: HashSet<&TableName> = alone.iter().map(|(.., owner)| &owner.table).collect();
    let tables = tables::by_name(target, names.into_iter()).await?;
    let has = |owner: &Owner| {
        let column = tables.get(&owner.table).and_then(|table| table.columns.iter().find(|c| c.name == owner.column));
        column.is_some_and(|column| !column.is_generated())
    };
    alone.retain(|(.., owner)| has(owner));
    let all: HashSet<(u32, u32, &str)> =
        alone.iter().map(|(one, tied, _, owner)| (one.oid, tied.table.oid, owner.column.as_str())).collect();
    let mut problems = Vec::new();
    for (sequence, tied, number, owner) in &alone {
        // What is run for a partitioned table reaches its partitions.
        if tied.above.iter().any(|above| all.contains(&(sequence.oid, above.oid, owner.column.as_str()))) {
            continue;
        }
        // An identity has none, and is compared as a whole.
        if let Some(default) = default_sql(source, tied.table.oid, *number).await? {
            let sql = format!("{} SET DEFAULT {default};", owner.alter_sql());
            problems.push(problem(sequence, owner.clone(), Side::Source, sql));
        }
    }
    Ok(problems)
}

/// Those that draw on the target alone.
async fn on_target(
    (source, target): (&Session, &Session),
    found: &Found,
    there: &[&Sequence],
) -> Result<Vec<SequenceProblem>, DbError> {
    let drawn_here: HashSet<(u32, &str)> =
        found.ours.iter().flat_map(drawing).map(|(tied, (_, column))| (tied.table.oid, column.as_str())).collect();
    let by_name: HashMap<&TableName, u32> = found.records.tables.iter().map(|(oid, name)| (name, *oid)).collect();
    let mut alone: Vec<(&Sequence, &Tied, i16, &str, u32)> = Vec::new();
    for sequence in there {
        for (tied, (number, column)) in drawing(sequence) {
            let Some(oid) = by_name.get(&tied.table.name).filter(|o| !drawn_here.contains(&(**o, column))) else {
                continue;
            };
            alone.push((sequence, tied, *number, column, *oid));
        }
    }
    let all: HashSet<(&TableName, &str)> =
        alone.iter().map(|(_, tied, _, column, _)| (&tied.table.name, *column)).collect();
    let mut problems = Vec::new();
    for (sequence, tied, number, column, oid) in &alone {
        if tied.above.iter().any(|above| all.contains(&(&above.name, *column))) {
            continue;
        }
        let owner = Owner { table: tied.table.name.clone(), column: (*column).to_owned() };
        // What numbers it is looked at elsewhere; a column that the source has not, with columns.
        let Some(ours) = number_of_column(source, *oid, column).await?.filter(|_| !sequence.is_identity_of(&owner))
        else {
            continue;
        };
        let (here, there) = (default_sql(source, *oid, ours), default_sql(target, tied.table.oid, *number));
        let (here, there) = tokio::try_join!(here, there)?;
        if here != there {
            let alter = owner.alter_sql();
            let set = here.map_or_else(|| format!("{alter} DROP DEFAULT;"), |d| format!("{alter} SET DEFAULT {d};"));
            let sql = set + &left_behind(sequence, &owner, &found.others);
            problems.push(problem(sequence, owner, Side::Target, sql));
        }
    }
    Ok(problems)
}

fn problem(sequence: &Sequence, column: Owner, drawn_on: Side, sql: String) -> SequenceProblem {
    let cause = SequenceCause::OneSided { column, drawn_on, sql };
    SequenceProblem { sequence: sequence.name.clone(), cause }
}
