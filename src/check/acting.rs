//! What is at work on the target while rows come, where the schema is the operator's
//! (`--schema none`): triggers and rules that go over each row, foreign keys that refuse
//! some.

use super::landing::Content;
use super::{CheckError, Finding, Findings};
use crate::catalog::foreign_keys::{self, KeyInForce};
use crate::catalog::numbered::{self, Numbered};
use crate::catalog::triggers::{self, Fires, InForce};
use crate::config::{Baseline, Settings, Side};
use crate::session::Session;
use crate::session::replica_role::ReplicaRole;
use crate::sql::TableName;
use crate::state::resume::Standing;
use crate::state::tables::TableState;
use crate::words::listed;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Acting {
    /// Triggers and rules.
    pub(super) firing: Vec<InForce>,
    /// Foreign keys that are in the way of tables that are still to be copied.
    keys: Vec<KeyInForce>,
    /// Columns whose rows have to be deleted and inserted anew, which something acts on.
    numbered: Vec<Numbered>,
}

impl Acting {
    /// Looks for it, as it is for sessions of such a role.
    pub(super) async fn find(
        settings: &Settings,
        (content, standing): (&Content, Option<&Standing>),
        session: &Session,
        role: ReplicaRole,
    ) -> Result<Self, CheckError> {
        let begun = standing.filter(|standing| standing.is_set_up());
        let is_left = |state| matches!(state, TableState::Waiting | TableState::Copying);
        let (wanted, copied): (Vec<TableName>, Vec<TableName>) = match begun {
            Some(standing) => (standing.names(session).await?, standing.names_of(session, is_left).await?),
            None => (content.wanted.clone(), content.copied.clone()),
        };
        let firing = triggers::in_force_below(session, &wanted.iter().collect::<Vec<_>>(), Fires::In(role)).await?;
        let keys = match settings.baseline {
            Baseline::Copied => {
                foreign_keys::keys_in_the_way(session, &copied.iter().collect::<Vec<_>>(), role).await?
            }
            Baseline::Restored { .. } => Vec::new(),
        };
        let numbered = numbered::acted_upon(session, &wanted.iter().collect::<Vec<_>>(), role).await?;
        Ok(Acting { firing, keys, numbered })
    }

    /// Says it, with the SQL that silences it and the SQL that brings it back.
    pub(super) fn say(&self, findings: &mut Findings) {
        if !self.firing.is_empty() {
            let tables: Vec<&TableName> = self.firing.iter().map(|one| &one.table).collect();
            let message =
                format!("triggers or rules of the target act on each row that comes, once more: {}", listed(&tables));
            let finding = findings.warning(Side::Target, "triggers", message);
            finding.remedy("unless that is what they are for, disable them until the migration has ended:");
            until_the_end(finding, &self.firing, InForce::disable_sql, InForce::enable_sql);
        }
        if !self.numbered.is_empty() {
            let tables: Vec<&TableName> = self.numbered.iter().map(|one| &one.table).collect();
            let message = format!(
                "UPDATE may not write columns that are GENERATED ALWAYS, and foreign keys or triggers act on a row that is deleted and \
                 inserted instead: {}",
                listed(&tables)
            );
            let finding = findings.problem(Side::Target, "generated_always", message);
            finding.remedy("have them BY DEFAULT until the migration has ended:");
            let sql = |how| move |one: &Numbered| format!("{};", one.sql(how));
            until_the_end(finding, &self.numbered, sql("BY DEFAULT"), sql("ALWAYS"));
        }
        if !self.keys.is_empty() {
            let tables: Vec<&TableName> = self.keys.iter().map(|key| &key.table).collect();
            let message = format!(
                "foreign keys in force would refuse rows that are copied, as each table is copied as of its own moment, in any order: {}",
                listed(&tables)
            );
            let finding = findings.problem(Side::Target, "foreign_keys", message);
            finding.remedy("--schema existing holds them back until the end (catchup --finish); or drop them until the migration has ended:");
            until_the_end(finding, &self.keys, KeyInForce::drop_sql, KeyInForce::add_sql);
        }
    }
}

/// Adds what silences each of these, and, for later, what brings it back.
fn until_the_end<T>(
    finding: &mut Finding,
    all: &[T],
    silence: impl Fn(&T) -> String,
    bring_back: impl Fn(&T) -> String,
) {
    for one in all {
        finding.sql(silence(one));
    }
    for one in all {
        finding.sql(format!("-- when it has ended: {}", bring_back(one)));
    }
}
