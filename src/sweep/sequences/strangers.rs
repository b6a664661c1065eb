//! What has the name of a new sequence on the target and is not the migration's: pure.
//!
//! Invariant: nothing is set on a sequence of the target that somebody else uses. One that
//! came on the source after the migration began is matched by its name alone, which says
//! nothing: somebody may have made another one there for purposes of their own, and it is
//! only taken if it is nobody's. Nobody's is one that no table of others uses and no other
//! migration has, and that was never called, as one that was just created as it was printed;
//! that an added column of the migration drew the values of older rows from; or that the
//! migration has brought for one that the source has dropped since.

use std::collections::{HashMap, HashSet};

use super::Counterpart;
use super::catalog::Sequence;
use super::pairs::{Match, Records};
use super::plan::unwritable;
use super::problem::{SequenceCause, Whose};
use super::value::{Value, is_ahead};
use crate::catalog::sequences::Tied;
use crate::sql::TableName;
use crate::state::sweeps::Listed;

/// Takes those away again that were matched by name and are not the migration's, or of which
/// that cannot be told: why, by place. `left` are those of pairs whose own the source has no more.
pub(super) fn apart(
    ours: &[Sequence],
    theirs: &mut [Counterpart],
    others: &mut Vec<Sequence>,
    (records, left): (&Records, &HashSet<u32>),
) -> HashMap<usize, SequenceCause> {
    let mut apart = HashMap::new();
    if records.pairs.listed == Listed::NotYet {
        return apart;
    }
    let tables: HashSet<&TableName> = records.tables.values().collect();
    for (place, (ours, found)) in ours.iter().zip(theirs).enumerate() {
        let Some((theirs, Match::Named(_))) = found else { continue };
        let Some(cause) = cause((ours, theirs), (records, &tables), left) else { continue };
        apart.insert(place, cause);
        others.extend(found.take().map(|(theirs, _)| theirs));
    }
    apart
}

/// Why a sequence of the target is not taken for the one of its name.
fn cause(
    (ours, theirs): (&Sequence, &Sequence),
    (records, tables): (&Records, &HashSet<&TableName>),
    left: &HashSet<u32>,
) -> Option<SequenceCause> {
    if let Some(table) = user(ours, theirs, (records, tables)) {
        return Some(SequenceCause::Stranger(Whose::Tables(table.clone())));
    }
    if let Some(migration) = records.pairs.anothers.get(&theirs.oid) {
        return Some(SequenceCause::Stranger(Whose::Migration(migration.clone())));
    }
    let (value, found) = match (&ours.value, &theirs.value) {
        (Ok(value), Ok(found)) => (*value, *found),
        (Err(cause), _) => return Some(cause.clone()),
        (_, Err(SequenceCause::Unread(words))) => return Some(SequenceCause::Refused(words.clone())),
        (_, Err(SequenceCause::Another)) => return Some(SequenceCause::Another),
        (_, Err(_)) => return Some(unwritable(theirs)),
    };
    let is_untouched = found == (theirs.definition.start, false);
    // The values that older rows got when the column was added there, as on the source.
    let is_drawn_as_ours = theirs.definition == ours.definition
        && !is_ahead(found, value, ours.definition.increment)
        && ours.tied.iter().any(|tied| draws_there(tied, theirs, records));
    let is_nobodys = is_untouched || is_drawn_as_ours || left.contains(&theirs.oid);
    (!is_nobodys).then_some(SequenceCause::Stranger(Whose::Unknown))
}

/// A table of the target that uses it, and is none of the migration's.
fn user<'t>(
    ours: &Sequence,
    theirs: &'t Sequence,
    (records, tables): (&Records, &HashSet<&TableName>),
) -> Option<&'t TableName> {
    // One that comes later may have been created there already, with what it draws from.
    let comes = |table: &TableName| {
        ours.tied.iter().any(|tied| tied.table.name == *table && !records.tables.contains_key(&tied.table.oid))
    };
    let is_ours = |table: &TableName| tables.contains(table) || comes(table);
    // How the target parts a table's rows is its own business.
    let is_anothers = |tied: &&Tied| !is_ours(&tied.table.name) && !tied.above.iter().any(|above| is_ours(&above.name));
    theirs.tied.iter().find(is_anothers).map(|tied| &tied.table.name)
}

/// Why a sequence of the migration is not set to this value all the same: it would go back,
/// and give others what they have.
pub(super) fn set_back(ours: &Sequence, theirs: &Sequence, value: Value, records: &Records) -> Option<SequenceCause> {
    let found = theirs.value.as_ref().ok().filter(|found| is_ahead(**found, value, ours.definition.increment));
    let tables: HashSet<&TableName> = records.tables.values().collect();
    found.and_then(|_| user(ours, theirs, (records, &tables))).cloned().map(SequenceCause::DrawnByOthers)
}

/// Whether a column of the table's counterpart draws from it that draws on the source.
fn draws_there(ours: &Tied, theirs: &Sequence, records: &Records) -> bool {
    let columns = |tied: &Tied| tied.drawing.iter().map(|(_, column)| column.clone()).collect::<HashSet<String>>();
    let table = records.tables.get(&ours.table.oid);
    theirs.tied.iter().any(|there| Some(&there.table.name) == table && !columns(there).is_disjoint(&columns(ours)))
}
