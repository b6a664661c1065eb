//! The target as a server: that it can be written to, whether the state can be
//! kept there, what the role may do, and whether the migration has begun.

use super::{CheckError, Findings, server};
use crate::catalog;
use crate::catalog::roles::{self, Role};
use crate::config::{SchemaMode, Settings, Side};
use crate::fault::Fault;
use crate::session::replica_role::{self, ReplicaRole, WAYS};
use crate::session::{DbContext, DbError, Session};
use crate::sql::ident;
use crate::state::own::Strange;
use crate::state::resume::Standing;
use crate::state::{State, StateError};

/// What the state says of the migration.
pub(super) enum Told {
    /// How far it is, if it has begun.
    Standing(Option<Box<Standing>>),
    /// Nothing, as others have a hand in it.
    Refused,
}

/// Looks for a migration of this name in the state.
pub(super) async fn migration(
    settings: &Settings,
    session: &Session,
    findings: &mut Findings,
) -> Result<Told, CheckError> {
    match (has_schema(session).await?, State::is_installed(session).await?) {
        (false, _) => return Ok(Told::Standing(None)),
        (true, false) => {
            findings
                .problem(Side::Target, "state", "a schema named walferry exists and is not walferry's")
                .remedy("walferry keeps its state in a schema of this name: rename or drop the one that is there")
                .sql("ALTER SCHEMA walferry RENAME TO something_else;");
            return Ok(Told::Standing(None));
        }
        (true, true) => {}
    }
    let strange = State::strange(session).await?;
    if !strange.is_empty() {
        let what = "the schema walferry is not safe to be used for the state, as others than role and administrators have a hand in it";
        findings.problem(Side::Target, "state", what).remedy("look whose it is; what takes that away is below");
        for Strange { what, sql } in strange {
            findings.problem(Side::Target, "state", what).sql(sql);
        }
        return Ok(Told::Refused);
    }
    let standing = Standing::read(session, &settings.name).await?;
    if standing.as_ref().is_some_and(|standing| standing.finished) {
        let message = format!("migration {} has ended: catchup --finish brought everything in", settings.name);
        let finding = findings.problem(Side::Target, "state", message);
        if let Some(remedy) = Fault::Ended.verdict().remedy {
            finding.remedy(remedy);
        }
    } else if let Some(Standing { phase, .. }) = &standing {
        let message = format!("migration {} has begun (phase {phase}) and goes on", settings.name);
        findings.ok(Side::Target, "state", message);
    }
    Ok(Told::Standing(standing.map(Box::new)))
}

/// Whether there is a schema of the state's name.
async fn has_schema(session: &Session) -> Result<bool, DbError> {
    let sql = "SELECT to_regnamespace('walferry') IS NOT NULL";
    session.query_one(sql, &[]).await.during(session.side(), "look for the state schema")?.take(0)
}

/// The role that has to create the state schema is given back, if it is to be created
/// and the server can be written to.
pub(super) async fn check(session: &Session, findings: &mut Findings) -> Result<Option<Role>, CheckError> {
    let here = catalog::server::read(session).await?;
    let ours = roles::current(session).await?;
    let read_only = server::read_only(session, &ours).await?;
    let is_there = has_schema(session).await?;
    if here.is_standby {
        findings
            .problem(Side::Target, "writable", "the target is a standby")
            .remedy("use the address of the primary (with several hosts: target_session_attrs=read-write)");
        return Ok(None);
    }
    if let Some(sql) = read_only {
        let message = format!("transactions of role {} in database {} are read-only", ours.name, ours.database);
        let finding = findings.problem(Side::Target, "writable", message);
        for sql in sql {
            finding.sql(sql);
        }
        return Ok(None);
    }
    findings.ok(Side::Target, "writable", "the target can be written to");
    Ok((!is_there).then_some(ours))
}

/// Tries to create the state schema.
pub(super) async fn try_state(role: &Role, session: &Session, findings: &mut Findings) {
    let refused = match State::try_to_install(session).await {
        Ok(()) => return findings.ok(Side::Target, "state", "the schema walferry can be created, for the state"),
        Err(StateError::Db(refused)) if refused.sqlstate().is_some() => refused,
        Err(error) => return findings.unfinished(Side::Target.into(), &error.into()),
    };
    let message = format!("the schema walferry cannot be created, for the state: {}", refused.words());
    let finding = findings.problem(Side::Target, "state", message);
    if role.may_create {
        finding.remedy("let an administrator of the target allow role and schema what the server's words name");
    } else {
        finding.remedy("let the database's owner run this:");
        finding.sql(format!("GRANT CREATE ON DATABASE {} TO {};", ident(&role.database), ident(&role.name)));
    }
}

/// The ways to set session_replication_role, in words.
const MESSAGES: [&str; 2] =
    ["session_replication_role can be set", "session_replication_role can be set through aiven_extras"];

/// Whether foreign keys and triggers can be kept quiet by the setting or by a provider's
/// function, in words. Tried in transactions that are rolled back, and the setting with
/// them.
pub(super) async fn replication_role(
    session: &Session,
    findings: &mut Findings,
) -> Option<(ReplicaRole, Option<&'static str>)> {
    for (way, message) in WAYS.into_iter().zip(MESSAGES) {
        match probe(session, way).await {
            Ok(true) => return Some((ReplicaRole::Set, Some(message))),
            Ok(false) => {}
            Err(error) => {
                findings.unfinished(Side::Target.into(), &error.into());
                return None;
            }
        }
    }
    Some((ReplicaRole::Refused, None))
}

/// Says how foreign keys and triggers are kept quiet, or held back. `some_fire` all the
/// same, where the schema is the operator's.
pub(super) fn say_replication_role(
    settings: &Settings,
    message: Option<&str>,
    some_fire: bool,
    findings: &mut Findings,
) {
    if let Some(message) = message {
        let quiet = if some_fire {
            "what is for ordinary sessions does not act while rows come and changes are applied"
        } else {
            "foreign keys and triggers are quiet while rows come and changes are applied"
        };
        return findings.ok(Side::Target, "session_replication_role", format!("{message}: {quiet}"));
    }
    if settings.schema == SchemaMode::None {
        findings
            .warning(
                Side::Target,
                "session_replication_role",
                "session_replication_role cannot be set by this role, and with --schema none the target's foreign keys and \
                 triggers stay in force: rows that come in another order than they want are refused, and triggers act on each row",
            )
            .remedy("--schema existing holds them back until the end (catchup --finish)");
        return;
    }
    findings.ok(
        Side::Target,
        "session_replication_role",
        "session_replication_role cannot be set by this role: foreign keys and triggers are held back until the end (catchup --finish)",
    );
}

async fn probe(session: &Session, way: &str) -> Result<bool, DbError> {
    session.batch_execute("BEGIN READ ONLY").await.during(Side::Target, "begin a read-only transaction")?;
    let is_set = replica_role::is_set_by(session, way).await;
    session.batch_execute("ROLLBACK").await.during(Side::Target, "end a read-only transaction")?;
    is_set
}
