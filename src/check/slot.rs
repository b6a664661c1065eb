//! The slot: that its name is free, or that it is ours to go on with.

use super::target::Migration;
use super::{CheckError, Findings};
use crate::catalog;
use crate::catalog::roles::Role;
use crate::catalog::slot::PLUGIN;
use crate::config::{Provenance, Settings, Side};
use crate::session::Session;
use crate::sql::literal;

pub(super) async fn check(
    settings: &Settings,
    role: &Role,
    migration: Option<&Migration>,
    session: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let name = settings.slot.name();
    let Some(slot) = catalog::slot::find(session, name).await? else {
        match (&settings.slot, migration) {
            (Provenance::Existing(_), _) => {
                findings
                    .problem(Side::Source, "slot", format!("there is no replication slot {name}"))
                    .remedy("leave --slot out, and walferry creates its own");
            }
            (Provenance::Ours(_), Some(migration)) if migration.has_slot => {
                findings
                    .problem(
                        Side::Source,
                        "slot",
                        format!(
                            "the migration {} has lost its replication slot {name}: the changes since are gone",
                            settings.name
                        ),
                    )
                    .remedy("begin again: walferry cleanup --yes, then empty the target's database");
            }
            _ => findings.ok(Side::Source, "slot", format!("the name {name} is free for a replication slot")),
        }
        return Ok(());
    };
    let is_ours_in_kind = slot.plugin.as_deref() == Some(PLUGIN) && slot.database.as_deref() == Some(&role.database);
    let drop_it = format!("SELECT pg_drop_replication_slot({});", literal(name).trim());
    let is_expected = matches!(settings.slot, Provenance::Existing(_)) || migration.is_some();
    if !is_expected {
        findings
            .problem(
                Side::Source,
                "slot",
                format!("a replication slot {name} exists, and the target knows of no migration that it belongs to"),
            )
            .remedy("use another --name; or, if nobody needs it, drop it:")
            .sql(drop_it);
    } else if !is_ours_in_kind {
        findings
            .problem(Side::Source, "slot", format!("replication slot {name} is not one of pgoutput in this database"))
            .remedy("use another --slot or --name");
    } else if slot.loss().is_some() {
        findings
            .problem(Side::Source, "slot", format!("replication slot {name} has been invalidated: the WAL it needs is gone"))
            .remedy("begin again: walferry cleanup --yes, then empty the target's database; max_slot_wal_keep_size decides how much WAL a slot may hold");
    } else if let Some(pid) = slot.active_pid {
        findings
            .warning(Side::Source, "slot", format!("replication slot {name} is in use by the server process {pid}"))
            .remedy("a running walferry is asked to hand over by `walferry catchup`; another `walferry run` would be refused");
    } else {
        findings.ok(Side::Source, "slot", format!("replication slot {name} is there to go on with"));
    }
    Ok(())
}
