//! Columns of the target that draw their values from another sequence than the source's do.
//!
//! Invariant: a column that draws from a sequence on both sides draws from counterparts, or
//! is named: nobody would carry the value that it goes on from. A default calls a sequence by
//! its oid, which says nothing of names, and may have been bound to another one: by a
//! statement that named what was renamed since, or as the source's was altered later. What
//! draws on one side alone is a default that differs, and no matter of values.

use std::collections::{HashMap, HashSet};

use super::Counterpart;
use super::catalog::Sequence;
use super::pairs::{Match, Records};
use super::problem::SequenceCause;
use crate::catalog::added::default_sql;
use crate::catalog::sequences::{Owner, Tied};
use crate::config::SchemaMode;
use crate::session::{DbError, Session};
use crate::sql::{TableName, literal, plain_shown};

/// A column that draws from another one there.
#[derive(Clone, Debug)]
pub(super) struct Elsewhere {
    /// The place of the sequence that it draws from on the source.
    pub place: usize,
    /// The column there.
    pub column: Owner,
    /// What it draws from there.
    from: Sequence,
    /// The table's oid on the source, and the column's number.
    ours: (u32, i16),
    /// Its default on the source; none of a numbered one.
    pub default: Option<String>,
}

/// Finds them, with the source's defaults. `others` are the target's sequences that are no
/// counterparts.
///
/// # Errors
/// When a default cannot be read.
pub(super) async fn elsewhere(
    source: &Session,
    (ours, theirs, others): (&[Sequence], &[Counterpart], &[Sequence]),
    records: &Records,
) -> Result<Vec<Elsewhere>, DbError> {
    let mut found = find(ours, theirs, others, records);
    for one in &mut found {
        one.default = default_sql(source, one.ours.0, one.ours.1).await?;
    }
    Ok(found)
}

/// The same without the defaults: pure.
pub(super) fn find(
    ours: &[Sequence],
    theirs: &[Counterpart],
    others: &[Sequence],
    records: &Records,
) -> Vec<Elsewhere> {
    let mut there: HashMap<Owner, Vec<&Sequence>> = HashMap::new();
    for sequence in theirs.iter().flatten().map(|(sequence, _)| sequence).chain(others) {
        for (tied, (_, column)) in drawing(sequence) {
            there.entry(Owner { table: tied.table.name.clone(), column: column.clone() }).or_default().push(sequence);
        }
    }
    let counterpart = |place: usize| theirs.get(place)?.as_ref().map(|(sequence, _)| sequence.oid);
    // What each column of the source is to draw from.
    let mut wanted: HashSet<(u32, &str, u32)> = HashSet::new();
    for (place, sequence) in ours.iter().enumerate() {
        let oid = counterpart(place);
        wanted
            .extend(drawing(sequence).filter_map(|(tied, (_, column))| Some((tied.table.oid, column.as_str(), oid?))));
    }
    let mut found: Vec<(Elsewhere, &Tied)> = Vec::new();
    let mut named: HashSet<(usize, u32, &str)> = HashSet::new();
    for (place, sequence) in ours.iter().enumerate() {
        for (tied, (number, column)) in drawing(sequence) {
            let Some(table) = records.tables.get(&tied.table.oid) else { continue };
            let owner = Owner { table: table.clone(), column: column.clone() };
            let Some(drawn) = there.get(&owner) else { continue };
            if drawn.iter().any(|one| Some(one.oid) == counterpart(place)) {
                continue;
            }
            let is_none_of_its = |one: &&&Sequence| !wanted.contains(&(tied.table.oid, column.as_str(), one.oid));
            let Some(from) = drawn.iter().find(is_none_of_its).or_else(|| drawn.first()) else { continue };
            named.insert((place, tied.table.oid, column));
            let ours = (tied.table.oid, *number);
            found.push((Elsewhere { place, column: owner, from: (*from).clone(), ours, default: None }, tied));
        }
    }
    // What is run for a partitioned table reaches its partitions.
    let is_topmost = |(one, tied): &(Elsewhere, &Tied)| {
        !tied.above.iter().any(|above| named.contains(&(one.place, above.oid, one.column.column.as_str())))
    };
    found.into_iter().filter(is_topmost).map(|(one, _)| one).collect()
}

/// The columns that draw from a sequence, with their tables.
pub(super) fn drawing(sequence: &Sequence) -> impl Iterator<Item = (&Tied, &(i16, String))> {
    sequence.tied.iter().flat_map(|tied| tied.drawing.iter().map(move |column| (tied, column)))
}

/// What becomes of a sequence of the target that is no counterpart, once the column that it
/// belongs to draws from it no more: as SQL behind another statement.
pub(super) fn left_behind(from: &Sequence, column: &Owner, others: &[Sequence]) -> String {
    let is_its = from.owner.as_ref().is_some_and(|(of, bond)| of == column && !bond.is_identity());
    if !is_its || !others.iter().any(|other| other.oid == from.oid) {
        return String::new();
    }
    match from.tied.as_slice() {
        [tied] if tied.drawing.len() < 2 => format!(" DROP SEQUENCE {};", from.name.sql()),
        // Others' defaults draw from it as well.
        _ => format!(" ALTER SEQUENCE {} OWNED BY NONE;", from.name.sql()),
    }
}

/// A sequence as a server writes it into a default: the name quoted where it needs it, and
/// the whole a string whatever it holds (`regclassout`, `simple_quote_literal`).
fn as_regclass(name: &TableName) -> String {
    let text = format!("{}.{}", plain_shown(&name.schema), plain_shown(&name.name)).replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", text.replace('\\', "\\\\")) } else { format!("'{text}'") }
}

impl Elsewhere {
    /// What there is to say of the sequence of the source that the column is to draw from;
    /// `None` if that is numbered, and made as a whole.
    pub fn cause(
        &self,
        ours: &Sequence,
        theirs: &Counterpart,
        others: &[Sequence],
        schema: SchemaMode,
    ) -> Option<SequenceCause> {
        let Elsewhere { column, from, .. } = self;
        // A column's sequence keeps its name in a schema of the operator's.
        let name = match theirs {
            Some((theirs, Match::OfColumn(_))) if schema != SchemaMode::Create => &theirs.name,
            _ => &ours.name,
        };
        let default = match (&self.default, theirs) {
            (Some(default), _) if *name == ours.name => default.clone(),
            (Some(default), _) => default.replace(&as_regclass(&ours.name), &literal(&name.text())),
            (None, Some(_)) => format!("pg_catalog.nextval({})", literal(&name.text())),
            (None, None) => return None,
        };
        let alter = column.alter_sql();
        let drop = if from.is_identity_of(column) { format!("{alter} DROP IDENTITY; ") } else { String::new() };
        let sql = format!("{drop}{alter} SET DEFAULT {default};{}", left_behind(from, column, others));
        Some(SequenceCause::Elsewhere { column: column.clone(), from: from.name.clone(), sql })
    }
}
