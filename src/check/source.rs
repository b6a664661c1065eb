//! The source as a server: settings, rights of the role, versions, and the
//! replication connection, which is the proof of most of them.

use super::{CheckError, Findings};
use crate::catalog::activity::Prepared;
use crate::catalog::roles::Role;
use crate::catalog::{self, activity, settings};
use crate::config::{Settings, Side};
use crate::session::Session;
use crate::sql::{ident, literal};
use crate::state::migration::SourceIdentity;
use crate::words;

/// `server_version_num` of PostgreSQL 10, the first with pgoutput.
const OLDEST: i32 = 100_000;

/// From here on a slot raises the effective wal_level by itself.
const RAISES_WAL_LEVEL: i32 = 190_000;

/// Minor releases that mend "data loss in logical replication" (publication
/// changes beside writes); those before lack older repairs of decoding, too.
const MENDED: [(i32, i32); 5] = [(13, 21), (14, 18), (15, 13), (16, 9), (17, 5)];

/// A transaction older than this will probably outlive the next minute, too.
const LONG_TRANSACTION_SECONDS: i32 = 60;

/// What the source has to be set to, and what it should not be.
const SETTINGS: [&str; 6] = [
    "wal_level",
    "effective_wal_level",
    "max_replication_slots",
    "max_wal_senders",
    "synchronous_standby_names",
    "max_slot_wal_keep_size",
];

pub(super) async fn check(session: &Session, findings: &mut Findings) -> Result<Role, CheckError> {
    let here = catalog::server::read(session).await?;
    let server = settings::read(session, &SETTINGS).await?;
    version(session.version(), findings);
    wal_level(session.version(), &server, findings);
    if here.is_standby {
        findings
            .problem(Side::Source, "recovery", "the source is a standby")
            .remedy("use the address of the primary (with several hosts: target_session_attrs=read-write)");
    }
    room(&server, "max_replication_slots", catalog::slot::count(session).await?, findings);
    room(&server, "max_wal_senders", activity::replicating(session).await?, findings);
    cautions(&server, findings);
    encoding(&here.encoding, findings);
    blockers(session, findings).await?;
    Ok(catalog::roles::current(session).await?)
}

fn version(version: i32, findings: &mut Findings) {
    let (major, minor) = (version / 10_000, version % 10_000);
    if version < OLDEST {
        findings.problem(
            Side::Source,
            "version",
            format!("PostgreSQL {major} has no built-in logical decoding for pgoutput: 10 or newer is needed"),
        );
    }
    if let Some((_, mended)) = MENDED.iter().find(|(m, mended)| *m == major && minor < *mended) {
        findings
            .warning(
                Side::Source,
                "minor_version",
                format!("PostgreSQL {major}.{minor} can lose changes when a publication is altered beside writes"),
            )
            .remedy(format!("update to {major}.{mended} or newer, or alter no publication during the migration"));
    }
}

fn wal_level(version: i32, server: &settings::Settings, findings: &mut Findings) {
    let level = server.get("effective_wal_level").map_or(server.shown("wal_level"), |setting| &setting.shown);
    if level == "logical" || (version >= RAISES_WAL_LEVEL && level == "replica") {
        findings.ok(Side::Source, "wal_level", format!("wal_level is {level}"));
    } else {
        findings
            .problem(Side::Source, "wal_level", format!("wal_level is {level}, logical is needed"))
            .remedy("set it in the provider's console, or as superuser and restart the server:")
            .sql("ALTER SYSTEM SET wal_level = 'logical';");
    }
}

fn room(server: &settings::Settings, setting: &'static str, used: i64, findings: &mut Findings) {
    // Every server that we know has it.
    let most = server.number(setting).unwrap_or_default();
    if used < most {
        findings.ok(Side::Source, setting, format!("{setting} is {most}, {used} in use"));
    } else {
        findings
            .problem(Side::Source, setting, format!("{setting} is {most}, and all are in use"))
            .remedy("drop what is not needed any more, or raise it and restart the server:")
            .sql(format!("ALTER SYSTEM SET {setting} = {};", most + 4));
    }
}

fn cautions(server: &settings::Settings, findings: &mut Findings) {
    let sync = server.shown("synchronous_standby_names");
    if sync.contains('*') {
        findings
            .warning(Side::Source, "synchronous_standby_names", format!("synchronous_standby_names is {}, so that walferry can become a synchronous standby and commits on the source wait for it", literal(sync).trim()))
            .remedy("name the standbys instead of *");
    }
    // The setting came with 13.
    if let Some(keep) = server.get("max_slot_wal_keep_size").filter(|setting| setting.number != Some(-1)) {
        let keep = &keep.shown;
        findings
            .warning(
                Side::Source,
                "max_slot_wal_keep_size",
                format!("max_slot_wal_keep_size is {keep}: when the copy takes longer than the source needs to write that much WAL, the slot is lost"),
            )
            .remedy("raise it for the time of the migration:")
            .sql("ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf();");
    }
}

fn encoding(encoding: &str, findings: &mut Findings) {
    if encoding == "SQL_ASCII" {
        findings
            .warning(
                Side::Source,
                "encoding",
                "the database is SQL_ASCII: bytes that are no valid text stop the copy at the target",
            )
            .remedy("make the target's database SQL_ASCII, too, or mend the text first");
    }
}

/// What the creation of a slot waits for, in every database of the cluster.
async fn blockers(session: &Session, findings: &mut Findings) -> Result<(), CheckError> {
    let prepared = activity::prepared(session).await?;
    if !prepared.is_empty() {
        let finding = findings.warning(
            Side::Source,
            "prepared_transactions",
            format!("{} prepared transactions: the slot cannot be created before they end", prepared.len()),
        );
        finding.remedy("end each of them in its database:");
        for Prepared { gid, database, .. } in &prepared {
            finding.sql(format!(
                "COMMIT PREPARED {}; -- or ROLLBACK PREPARED, in {}",
                literal(gid).trim(),
                ident(database)
            ));
        }
    }
    let pids = activity::long_writers(session, LONG_TRANSACTION_SECONDS).await?;
    if !pids.is_empty() {
        let finding = findings.warning(
            Side::Source,
            "long_transactions",
            format!("writing transactions have been open for more than a minute (pid {}): the slot cannot be created before they end", words::listed(&pids)),
        );
        finding.remedy("wait for them, or end them:");
        for pid in pids {
            finding.sql(format!("SELECT pg_terminate_backend({pid});"));
        }
    }
    Ok(())
}

/// The replication connection: the proof of right, pooler and pg_hba. It tells
/// which server this is.
pub(super) async fn replication_connection(
    settings: &Settings,
    role: &Role,
    findings: &mut Findings,
) -> Option<SourceIdentity> {
    match SourceIdentity::ask(&settings.source, &settings.name).await {
        Ok((_, found)) => {
            let message = format!("role {} may replicate (system {})", role.name, found.system_identifier);
            findings.ok(Side::Source, "replication", message);
            return Some(found);
        }
        Err(error) if role.may_replicate || role.is_superuser => {
            findings
                .problem(Side::Source, "replication", format!("the replication connection is refused: {error}"))
                .remedy("use the address of the server itself, not of a pooler or proxy, and allow it in pg_hba.conf");
        }
        Err(error) => {
            findings
                .problem(Side::Source, "replication", format!("role {} may not replicate: {error}", role.name))
                .remedy("let a superuser run this, or switch replication on in the provider's console:")
                .sql(format!("ALTER ROLE {} REPLICATION;", ident(&role.name)));
        }
    }
    None
}
