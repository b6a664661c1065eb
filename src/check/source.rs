//! The source as a server: settings, rights of the role, versions, and the
//! replication connection, which is the proof of most of them.

use crate::session::Row;

use super::findings::names;
use super::{CheckError, Findings};
use crate::config::{Settings, Side};
use crate::session::{DbContext, Session};
use crate::sql::{ident, literal};
use crate::wire::{Replication, WireError};

/// `server_version_num` of PostgreSQL 10, the first with pgoutput.
const OLDEST: i32 = 100_000;

/// From here on a slot raises the effective wal_level by itself.
const RAISES_WAL_LEVEL: i32 = 190_000;

/// Minor releases that mend "data loss in logical replication" (publication
/// changes beside writes); those before lack older repairs of decoding, too.
const MENDED: [(i32, i32); 5] = [(13, 21), (14, 18), (15, 13), (16, 9), (17, 5)];

/// A transaction older than this will probably outlive the next minute, too.
const LONG_TRANSACTION_SECONDS: i32 = 60;

/// The role on the source, for the SQL of remedies.
pub(super) struct Role {
    /// Its name.
    pub(super) name: String,
    /// Whether nothing is denied to it.
    pub(super) is_superuser: bool,
    /// Whether it has the attribute, or the membership that stands in for it.
    may_replicate: bool,
    /// CREATE on the database.
    pub(super) may_create: bool,
    /// The database.
    pub(super) database: String,
}

const FACTS: &str = "SELECT current_user::text AS role, current_database()::text AS database, r.rolsuper, \
    r.rolreplication OR EXISTS (SELECT FROM pg_roles p WHERE p.rolname = 'rds_replication' AND pg_has_role(p.oid, 'MEMBER')) AS may_replicate, \
    has_database_privilege(current_database(), 'CREATE') AS may_create, pg_is_in_recovery() AS standby, \
    current_setting('wal_level') AS wal_level, current_setting('effective_wal_level', true) AS effective_wal_level, \
    current_setting('max_replication_slots')::bigint AS max_slots, (SELECT count(*) FROM pg_replication_slots) AS slots, \
    current_setting('max_wal_senders')::bigint AS max_senders, (SELECT count(*) FROM pg_stat_replication) AS senders, \
    current_setting('synchronous_standby_names') AS sync_names, \
    coalesce(current_setting('max_slot_wal_keep_size', true), '-1') AS keep_size, \
    (SELECT pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname = current_database()) AS encoding \
    FROM pg_roles r WHERE r.rolname = current_user";

pub(super) async fn check(session: &Session, findings: &mut Findings) -> Result<Role, CheckError> {
    let row = session.query_one(FACTS, &[]).await.during(Side::Source, "read the settings")?;
    version(session.version(), findings);
    wal_level(session.version(), &row, findings);
    if row.get("standby") {
        findings
            .problem(Side::Source, "recovery", "the source is a standby")
            .remedy("use the address of the primary (with several hosts: target_session_attrs=read-write)");
    }
    room(&row, "max_replication_slots", "slots", "max_slots", findings);
    room(&row, "max_wal_senders", "senders", "max_senders", findings);
    cautions(&row, findings);
    blockers(session, findings).await?;
    Ok(Role {
        name: row.get("role"),
        is_superuser: row.get("rolsuper"),
        may_replicate: row.get("may_replicate"),
        may_create: row.get("may_create"),
        database: row.get("database"),
    })
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

fn wal_level(version: i32, row: &Row, findings: &mut Findings) {
    let set: String = row.get("wal_level");
    let level: String = row.get::<_, Option<String>>("effective_wal_level").unwrap_or_else(|| set.clone());
    if level == "logical" || (version >= RAISES_WAL_LEVEL && level == "replica") {
        findings.ok(Side::Source, "wal_level", format!("wal_level is {level}"));
    } else {
        findings
            .problem(Side::Source, "wal_level", format!("wal_level is {level}, logical is needed"))
            .remedy("set it in the provider's console, or as superuser and restart the server:")
            .sql("ALTER SYSTEM SET wal_level = 'logical';");
    }
}

fn room(row: &Row, setting: &'static str, used: &str, most: &str, findings: &mut Findings) {
    let (used, most): (i64, i64) = (row.get(used), row.get(most));
    if used < most {
        findings.ok(Side::Source, setting, format!("{setting} is {most}, {used} in use"));
    } else {
        findings
            .problem(Side::Source, setting, format!("{setting} is {most}, and all are in use"))
            .remedy("drop what is not needed any more, or raise it and restart the server:")
            .sql(format!("ALTER SYSTEM SET {setting} = {};", most + 4));
    }
}

fn cautions(row: &Row, findings: &mut Findings) {
    let sync: String = row.get("sync_names");
    if sync.contains('*') {
        findings
            .warning(Side::Source, "synchronous_standby_names", format!("synchronous_standby_names is {}, so that walferry can become a synchronous standby and commits on the source wait for it", literal(&sync).trim()))
            .remedy("name the standbys instead of *");
    }
    let keep: String = row.get("keep_size");
    if keep != "-1" {
        findings
            .warning(
                Side::Source,
                "max_slot_wal_keep_size",
                format!("max_slot_wal_keep_size is {keep}: when the copy takes longer than the source needs to write that much WAL, the slot is lost"),
            )
            .remedy("raise it for the time of the migration:")
            .sql("ALTER SYSTEM SET max_slot_wal_keep_size = -1; SELECT pg_reload_conf();");
    }
    let encoding: String = row.get("encoding");
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
    let rows = session
        .query("SELECT gid, database::text FROM pg_prepared_xacts ORDER BY prepared", &[])
        .await
        .during(Side::Source, "look for prepared transactions")?;
    if !rows.is_empty() {
        let finding = findings.warning(
            Side::Source,
            "prepared_transactions",
            format!("{} prepared transactions: the slot cannot be created before they end", rows.len()),
        );
        finding.remedy("end each of them in its database:");
        for row in &rows {
            let (gid, database): (String, String) = (row.get(0), row.get(1));
            finding.sql(format!(
                "COMMIT PREPARED {}; -- or ROLLBACK PREPARED, in {}",
                literal(&gid).trim(),
                ident(&database)
            ));
        }
    }
    let rows = session
        .query(
            "SELECT pid FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() \
             AND xact_start < clock_timestamp() - make_interval(secs => $1::int) ORDER BY xact_start",
            &[&LONG_TRANSACTION_SECONDS],
        )
        .await
        .during(Side::Source, "look for long transactions")?;
    if !rows.is_empty() {
        let pids: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
        let finding = findings.warning(
            Side::Source,
            "long_transactions",
            format!("writing transactions have been open for more than a minute (pid {}): the slot cannot be created before they end", names(&pids)),
        );
        finding.remedy("wait for them, or end them:");
        for pid in pids {
            finding.sql(format!("SELECT pg_terminate_backend({pid});"));
        }
    }
    Ok(())
}

/// The replication connection: the proof of right, pooler and pg_hba.
pub(super) async fn replication_connection(settings: &Settings, role: &Role, findings: &mut Findings) {
    let outcome: Result<String, WireError> = async {
        let mut connection = Replication::connect(&settings.source, &settings.name).await?;
        Ok(connection.identify_system().await?.system_id)
    }
    .await;
    match outcome {
        Ok(system) => {
            findings.ok(Side::Source, "replication", format!("role {} may replicate (system {system})", role.name));
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
}
