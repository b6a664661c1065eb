//! Changes that come in another name than the rows of their table were copied in:
//! of a partition whose rows came in its root's, or the other way about. Somebody
//! has switched `publish_via_partition_root` of the publication; or the table was none of
//! its partitions yet.
//!
//! Invariant: they are passed over as far as they are in the rows of the tables
//! that have them, and refused from there on. What the slot has already decided
//! about the name is so for good (it decodes under the catalog of then), so after
//! the publication is as it was those tables are copied anew, behind it.

use std::collections::HashSet;

use super::{Admission, Source, Tables, unknown};
use crate::apply::ApplyError;
use crate::catalog::publication::{self, Partitions, Published};
use crate::catalog::tables::{self, Detail, Named, Shape, Table};
use crate::lsn::{CommitLsn, Lsn};
use crate::membership::switched::Switched;
use crate::relation::Relation;
use crate::shell;
use crate::state::tables::TableRow;

impl Tables {
    /// Decides about changes in the name of a table whose rows are in others'.
    pub(super) async fn within(
        &self,
        table: &Table,
        relation: &Relation,
        at: Lsn,
        source: &mut Source,
    ) -> Result<Admission, ApplyError> {
        let all = tables::list(source.session().await?, Detail::Outline).await?;
        let below: HashSet<u32> = all.iter().filter(|other| other.is_below(table.oid)).map(|other| other.oid).collect();
        let is_related = |row: &&TableRow| {
            row.state.is_streamed() && (below.contains(&row.source_oid) || table.is_below(row.source_oid))
        };
        let related: Vec<&TableRow> = self.by_oid.values().filter(is_related).collect();
        let published = publication::tables(source.session().await?, &self.publications).await?;
        let own = published.get(&table.oid);
        let is_related_above = |above: &&Named| related.iter().any(|row| row.source_oid == above.oid);
        let above = table.ancestors.iter().find(is_related_above).map(|above| above.name.clone());
        let switched = match (table.shape, above) {
            (Shape::Plain, Some(root)) => match own {
                Some(own) => Switched::in_its_own_name(root, own),
                None => Switched {
                    root,
                    now: Partitions::InTheirOwnName,
                    publications: self.publications.clone(),
                    is_root_missing: false,
                },
            },
            (Shape::Partitioned, _) if !related.is_empty() => {
                let publications = own.map_or_else(|| self.publications.clone(), Published::names);
                Switched::in_its_roots_name(table.name.clone(), publications)
            }
            _ => {
                let why = format!(
                    "its rows came in the name of a table that it is or was a partition of, and do not any more: copy it \
                     anew: walferry resync {}",
                    shell::table(&table.name)
                );
                return Err(unknown(&relation.table, at, &why));
            }
        };
        let comes_so = |above: &Named| published.contains_key(&above.oid);
        let root = &switched.root;
        let was_alone = own.is_none() && table.ancestors.iter().any(comes_so);
        let why = if was_alone {
            format!(
                "it was a table of its own then, and is a partition of {root} by now, in whose name its rows come; copy that one \
                 anew: walferry resync {}",
                shell::table(root)
            )
        } else {
            format!("it {switched}; {}", switched.remedy())
        };
        // What has its rows in here would be taken for whole later.
        let is_new = |other: &&Table| {
            let is_near = other.is_below(table.oid) || table.ancestors.iter().any(|above| other.is_below(above.oid));
            is_near && other.shape == Shape::Plain && !self.by_oid.contains_key(&other.oid)
        };
        if let Some(new) = all.iter().find(is_new).filter(|_| self.publishes_all && table.shape == Shape::Partitioned) {
            return Err(unknown(
                &relation.table,
                at,
                &format!("{why}; and take in what is new: walferry add {}", shell::table(&new.name)),
            ));
        }
        let points = related.iter().map(|row| row.snapshot_lsn.filter(|_| self.share.has(row)));
        let until = points.collect::<Option<Vec<_>>>().and_then(|points| points.into_iter().min());
        match until {
            Some(until) if !until.is_before(CommitLsn::of_record(at)) => Ok(Admission::WithinUntil(until, why)),
            _ => Err(unknown(&relation.table, at, &why)),
        }
    }
}
