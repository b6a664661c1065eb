//! The slot: that its name is free, or that it is ours to go on with. What a
//! migration that has begun may go on from is compared as `run` compares it
//! ([`crate::state::resume`]).

use super::{CheckError, Findings};
use crate::catalog;
use crate::catalog::roles::Role;
use crate::catalog::slot::{PLUGIN, Slot};
use crate::config::{Provenance, Settings, Side};
use crate::session::Session;
use crate::sql::literal;
use crate::state::created::Recognised;
use crate::state::migration::SourceIdentity;
use crate::state::resume::{ResyncError, Standing, compare_source};

/// What is known of the migration.
pub(super) struct Known<'a> {
    /// Our role on the source.
    pub(super) role: &'a Role,
    /// Where the migration stands, if it has begun.
    pub(super) standing: Option<&'a Standing>,
    /// The source, where it could be asked who it is.
    pub(super) source: Option<&'a SourceIdentity>,
    /// The target, where it could be asked what it knows of migrations.
    pub(super) target: Option<&'a Session>,
}

pub(super) async fn check(
    settings: &Settings,
    known: &Known<'_>,
    session: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let name = settings.slot.name();
    let found = catalog::slot::find(session, name).await?;
    let active_pid = found.as_ref().and_then(|slot| slot.active_pid);
    if let Some(standing) = known.standing {
        // A start that has no list of tables yet begins with another slot of ours.
        let replaced = found.as_ref().filter(|_| !standing.is_set_up() && matches!(settings.slot, Provenance::Ours(_)));
        if let Some(Recognised::No(why)) = replaced.map(|slot| standing.recognises(slot)) {
            let message = format!("replication slot {name} exists and was not made for this migration ({why})");
            not_ours(name, message, findings);
            return Ok(());
        }
        let compared = go_on(standing, known.source, found.clone());
        if let Err(error) = as_of_the_slot(compared, known, found.clone()).await? {
            findings.ended(format!("the migration cannot go on: {error}"), &error.fault().verdict());
            return Ok(());
        }
        if found.is_none() {
            findings.ok(Side::Source, "slot", format!("the replication slot {name} will be created"));
            return Ok(());
        }
    } else if !begin(settings, known, found.as_ref(), findings) {
        return Ok(());
    }
    if let Some(pid) = active_pid {
        findings
            .warning(Side::Source, "slot", format!("replication slot {name} is in use by the server process {pid}"))
            .remedy("a running walferry is asked to hand over by `walferry catchup`; another `walferry run` would be refused");
    } else {
        findings.ok(Side::Source, "slot", format!("replication slot {name} is there to go on with"));
    }
    Ok(())
}

/// Whether a migration that has begun may go on.
fn go_on(standing: &Standing, source: Option<&SourceIdentity>, slot: Option<Slot>) -> Result<(), ResyncError> {
    if let Some(found) = source {
        compare_source(&standing.source, found)?;
    }
    standing.compare(slot)
}

/// The same with where the migration stands by now, if the slot is ahead: a daemon may have
/// come further, and confirmed it, since that was read.
async fn as_of_the_slot(
    compared: Result<(), ResyncError>,
    known: &Known<'_>,
    slot: Option<Slot>,
) -> Result<Result<(), ResyncError>, CheckError> {
    let (Err(ResyncError::SlotAhead { .. }), Some(target), Some(standing)) = (&compared, known.target, known.standing)
    else {
        return Ok(compared);
    };
    let now = Standing::read(target, &standing.name).await?;
    // What is written meanwhile is no less than what the slot's server had.
    let slot = slot.map(|slot| Slot { server_end: None, ..slot });
    Ok(now.map_or(compared, |now| go_on(&now, known.source, slot)))
}

/// A slot that another made.
fn not_ours(name: &str, message: String, findings: &mut Findings) {
    findings
        .problem(Side::Source, "slot", message)
        .remedy("use another --name; or, if nobody needs it, drop it:")
        .sql(format!("SELECT pg_drop_replication_slot({});", literal(name).trim()));
}

/// The slot of a migration that has not begun; whether there is one to use.
fn begin(settings: &Settings, known: &Known<'_>, found: Option<&Slot>, findings: &mut Findings) -> bool {
    let name = settings.slot.name();
    match (&settings.slot, found) {
        (Provenance::Existing(_), None) => {
            findings
                .problem(Side::Source, "slot", format!("there is no replication slot {name}"))
                .remedy("leave --slot out, and walferry creates its own");
        }
        (Provenance::Ours(_), None) => {
            findings.ok(Side::Source, "slot", format!("the name {name} is free for a replication slot"));
        }
        (Provenance::Ours(_), Some(_)) if known.target.is_none() => {
            let message = "exists; whether a migration needs it is known on the target alone, which cannot be asked";
            findings
                .problem(Side::Source, "slot", format!("a replication slot {name} {message}"))
                .remedy("mend what is said of the target first");
        }
        (Provenance::Ours(_), Some(_)) => {
            let message = "exists, and the target knows of no migration that it belongs to";
            not_ours(name, format!("a replication slot {name} {message}"), findings);
        }
        (Provenance::Existing(_), Some(slot))
            if slot.plugin.as_deref() != Some(PLUGIN) || slot.database.as_deref() != Some(&known.role.database) =>
        {
            findings
                .problem(
                    Side::Source,
                    "slot",
                    format!("replication slot {name} is not one of pgoutput in this database"),
                )
                .remedy("use another --slot or --name");
        }
        (Provenance::Existing(_), Some(slot)) => match slot.loss() {
            None => return true,
            Some(why) => {
                findings
                    .problem(
                        Side::Source,
                        "slot",
                        format!("replication slot {name} has been invalidated ({why}): the WAL it needs is gone"),
                    )
                    .remedy("max_slot_wal_keep_size decides how much WAL a slot may hold; create another one, and bring a baseline as of then");
            }
        },
    }
    false
}
