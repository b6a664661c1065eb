//! Columns that are numbered otherwise on the target than on the source: by nothing, by a
//! default, or by an identity, ALWAYS or BY DEFAULT.
//!
//! Invariant: a column of the migration is numbered as on the source, or is named: what is
//! GENERATED ALWAYS refuses values that the source takes, and what has no identity any more
//! needs a default. With `--schema create` that is a change made since; in a schema of the
//! operator's it may be on purpose.
//!
//! Source: `ATExecAddIdentity` in `src/backend/commands/tablecmds.c`: a column gets an identity
//! if it is NOT NULL and has no default.

use std::collections::HashSet;

use super::catalog::Sequence;
use super::drawing::{Elsewhere, drawing};
use super::pairs::{Match, Records};
use super::plan::create_of_column_sql;
use super::problem::{Blame, SequenceCause};
use crate::catalog::added::number_of_column;
use crate::catalog::sequences::{Owner, Tied};
use crate::catalog::tables::Named;
use crate::config::SchemaMode;
use crate::session::{DbError, Session};
use crate::sql::literal;

/// Whose a difference is.
fn blame(schema: SchemaMode) -> Blame {
    match schema {
        SchemaMode::Create => Blame::NotOurs,
        SchemaMode::Existing | SchemaMode::None => Blame::Schema,
    }
}

/// What there is to say of a column that has a sequence on both sides.
pub(super) fn of_both(ours: &Sequence, theirs: &Sequence, matched: Match, schema: SchemaMode) -> Option<SequenceCause> {
    let ((owner, bond), (there, bond_there)) = (ours.owner.as_ref()?, theirs.owner.as_ref()?);
    if !matches!(matched, Match::OfColumn(_)) || bond == bond_there {
        return None;
    }
    let alter = there.alter_sql();
    let create = create_of_column_sql(ours, there, *bond);
    let draws = ours
        .tied
        .iter()
        .any(|tied| tied.table.name == owner.table && tied.drawing.iter().any(|(_, column)| *column == owner.column));
    let nextval = format!("pg_catalog.nextval({})", literal(&ours.name.text()));
    let sql = match (bond.is_identity(), bond_there.is_identity()) {
        (true, true) => format!("{alter} SET {};", bond.sql()),
        // What it draws from goes with it: the name may be the same.
        (true, false) => {
            let (off, on) = beside(theirs, there, &nextval);
            format!("{off}{alter} DROP DEFAULT; DROP SEQUENCE {}; {create};{on}", theirs.name.sql())
        }
        (false, _) => {
            let (off, on) = beside(theirs, there, &nextval);
            let set = if draws { format!(" {alter} SET DEFAULT {nextval};") } else { String::new() };
            format!("{off}{alter} DROP IDENTITY; {create};{set}{on}")
        }
    };
    let (here, blame) = (Some(*bond), blame(schema));
    Some(SequenceCause::Numbered { column: there.clone(), there: *bond_there, here, sql, blame })
}

/// What takes the other columns off a sequence that is dropped, and what has them draw from the
/// one that comes for it.
fn beside(theirs: &Sequence, of: &Owner, nextval: &str) -> (String, String) {
    let column = |table: &Named, name: &str| Owner { table: table.name.clone(), column: name.to_owned() };
    let all: Vec<Owner> = drawing(theirs).map(|(tied, (_, name))| column(&tied.table, name)).collect();
    // What is run for a partitioned table reaches its partitions.
    let is_reached = |tied: &Tied, name: &str| tied.above.iter().any(|above| all.contains(&column(above, name)));
    let tops = drawing(theirs).filter(|(tied, (_, name))| !is_reached(tied, name));
    let others = tops.map(|(tied, (_, name))| column(&tied.table, name)).filter(|column| column != of);
    let alters: Vec<String> = others.map(|column| column.alter_sql()).collect();
    let off = alters.iter().map(|alter| format!("{alter} DROP DEFAULT; ")).collect();
    (off, alters.iter().map(|alter| format!(" {alter} SET DEFAULT {nextval};")).collect())
}

/// Columns of the target that are numbered and on the source are not: the sequence there, and
/// what there is to say. `others` are the target's sequences that are no counterparts.
///
/// # Errors
/// When the source cannot be read.
pub(super) async fn of_target_alone<'s>(
    source: &Session,
    others: &'s [Sequence],
    (elsewhere, records): (&[Elsewhere], &Records),
    schema: SchemaMode,
) -> Result<Vec<(&'s Sequence, SequenceCause)>, DbError> {
    let named: HashSet<&Owner> = elsewhere.iter().map(|one| &one.column).collect();
    let mut found = Vec::new();
    for other in others {
        let Some((owner, bond)) = other.owner.as_ref().filter(|(_, bond)| bond.is_identity()) else { continue };
        let Some((oid, _)) = records.tables.iter().find(|(_, name)| **name == owner.table) else { continue };
        if named.contains(owner) || number_of_column(source, *oid, &owner.column).await?.is_none() {
            continue;
        }
        let (sql, blame) = (format!("{} DROP IDENTITY;", owner.alter_sql()), blame(schema));
        found.push((other, SequenceCause::Numbered { column: owner.clone(), there: *bond, here: None, sql, blame }));
    }
    Ok(found)
}
