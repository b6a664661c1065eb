//! What the filter leaves out of a dump: tables, and what cannot be without
//! them.
//!
//! Invariant: entries are taken out by the identity of their objects; what
//! belongs to such an entry (comments, privileges) goes with it. What goes that
//! is not a table's own is said.

use std::collections::HashSet;

use super::archive::{Entry, Told};
use super::kind::Kind;
use crate::catalog;
use crate::catalog::objects::{PG_CLASS, TakenAlong, taken_along};
use crate::catalog::tables::{Other, OtherKind};
use crate::config::TableFilter;
use crate::membership::{Part, SourceTable};
use crate::session::{DbError, Session};
use crate::sql::TableName;

/// The tables that the filter leaves out, and the views and foreign tables that it
/// excludes, with what they take along.
///
/// # Errors
/// When the catalog cannot be read.
pub(crate) async fn of_filter(
    source: &Session,
    filter: &TableFilter,
    tables: &[SourceTable],
) -> Result<TakenAlong, DbError> {
    let left_out = tables.iter().filter(|table| matches!(table.part, Part::Filtered | Part::LetIn));
    let others = if filter.is_empty() { Vec::new() } else { catalog::tables::others(source).await? };
    let others = others.into_iter().filter(|other| !comes(filter, other));
    let oids: Vec<u32> = left_out.map(|table| table.oid).chain(others.map(|other| other.oid)).collect();
    taken_along(source, &oids).await
}

/// Whether what is no table of rows comes with the schema: what is not excluded does, so
/// that a view is there whichever tables it is over. Sequences go with their tables.
pub(crate) fn comes(filter: &TableFilter, other: &Other) -> bool {
    other.kind == OtherKind::Sequence || !filter.excludes_explicitly(&other.name)
}

/// Takes the entries of a section out that are, or belong to, what is left out.
pub(super) fn remove(taken: &TakenAlong, entries: &mut Vec<Entry>) {
    let is_gone = |entry: &Entry| {
        let is_attachment = matches!(entry.kind, Kind::TableAttach | Kind::IndexAttach);
        match entry.identity.told {
            Told::Nothing if is_attachment => {
                taken.detached.contains(&TableName::new(entry.schema.as_str(), entry.name.as_str()))
            }
            Told::Nothing => false,
            Told::RowSecurityOf(table) => taken.objects.contains(&(PG_CLASS, table)),
            Told::Object(id) => taken.objects.contains(&id),
        }
    };
    let gone: HashSet<u32> = entries.iter().filter(|e| is_gone(e)).map(|e| e.identity.dump_id).collect();
    entries.retain(|entry| {
        let identity = &entry.identity;
        let belongs_to_gone =
            !matches!(identity.told, Told::Object(_)) && identity.belongs_to.iter().any(|id| gone.contains(id));
        !(gone.contains(&identity.dump_id) || belongs_to_gone) || identity.dump_id == 0
    });
}
