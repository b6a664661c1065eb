//! What holds for both servers: no pooler in between, connections enough, and
//! that they are two.
//!
//! A transaction pooler loses session settings and gives them to other clients;
//! it is recognised by two sessions that have the same backend, or one session
//! that has several.

use super::patience;
use super::{CheckError, Findings, Place};
use crate::catalog::roles::Role;
use crate::catalog::server::Server;
use crate::catalog::{self, activity};
use crate::config::{SchemaMode, Settings, Side};
use crate::session::{DbContext, DbError, Session};
use crate::sql::ident;

/// Transactions after which a session must still have its first backend.
const TRANSACTIONS: usize = 5;

/// Connections beside those of the copy workers, which later read large objects:
/// two of the applier, state, sequences, two of the large objects, and one for
/// `status` or `catchup`; where there is one worker these are not all.
const CONNECTIONS_BESIDE_JOBS: i64 = 6;

pub(super) async fn check(settings: &Settings, session: &Session, findings: &mut Findings) {
    let side = session.side();
    if let Err(error) = pooler(settings, session, findings).await {
        findings.unfinished(side.into(), &error);
    }
    if let Err(error) = connections(settings, session, findings).await {
        findings.unfinished(side.into(), &error.into());
    }
}

async fn pooler(settings: &Settings, session: &Session, findings: &mut Findings) -> Result<(), CheckError> {
    let side = session.side();
    let info = match side {
        Side::Source => &settings.source,
        Side::Target => &settings.target,
    };
    let backend = async |session: &Session| Ok::<i32, DbError>(catalog::server::read(session).await?.pid);
    let first = backend(session).await?;
    let other = Session::connect(info, &settings.name).await?;
    patience::limit(&other).await?;
    other.batch_execute("BEGIN READ ONLY").await.during(side, "begin a transaction")?;
    let mut is_direct = backend(&other).await? != first;
    for _ in 0..TRANSACTIONS {
        is_direct &= backend(session).await? == first;
    }
    other.batch_execute("ROLLBACK").await.during(side, "end a transaction")?;
    if is_direct {
        findings.ok(side, "pooler", "sessions have backends of their own (no pooler in between)");
    } else {
        findings.problem(side, "pooler", "sessions share backends: a pooler in transaction mode is in between").remedy(
            "use the address of the server itself: providers call it the direct host, often with another port or without \"pooler\" in its name",
        );
    }
    Ok(())
}

/// Of the connections that a server has, those that ordinary roles may use are
/// what these leave; the last came with 16.
const SETTINGS: [&str; 3] = ["max_connections", "superuser_reserved_connections", "reserved_connections"];

async fn connections(settings: &Settings, session: &Session, findings: &mut Findings) -> Result<(), DbError> {
    let side = session.side();
    let used = activity::connections(session).await?;
    let server = catalog::settings::read(session, &SETTINGS).await?;
    // Nothing is reserved by a setting that the server does not have.
    let [most, for_superusers, reserved] = SETTINGS.map(|name| server.number(name).unwrap_or_default());
    let server_free = most - for_superusers - reserved - used.of_server;
    let role = catalog::roles::current(session).await?;
    let left = |limit: Option<u32>, used: i64| limit.map(|limit| i64::from(limit) - used);
    let needed = i64::try_from(settings.jobs).unwrap_or(i64::MAX).saturating_add(CONNECTIONS_BESIDE_JOBS);
    // Our own connections count as used, so they are a part of what is needed.
    let kinds = [
        (Some(server_free), "the server".to_owned(), "ALTER SYSTEM SET max_connections = …; -- and restart".to_owned()),
        (
            left(role.database_connection_limit, used.of_database),
            format!("database {}", role.database),
            format!("ALTER DATABASE {} CONNECTION LIMIT -1;", ident(&role.database)),
        ),
        (
            left(role.connection_limit, used.of_role),
            format!("role {}", role.name),
            format!("ALTER ROLE {} CONNECTION LIMIT -1;", ident(&role.name)),
        ),
    ];
    let mut is_enough = true;
    for (free, of, sql) in kinds {
        if let Some(free) = free.filter(|free| *free < needed) {
            is_enough = false;
            findings
                .problem(side, "connections", format!("{of} has {free} connections free, {needed} are needed"))
                .remedy("give --jobs a smaller number, close connections, or raise the limit:")
                .sql(sql);
        }
    }
    if is_enough {
        findings.ok(side, "connections", format!("{needed} connections are free"));
    }
    Ok(())
}

/// Whether transactions are read-only unless they say otherwise.
const READ_ONLY: &str = "default_transaction_read_only";

/// The SQL that lets a role write again whose transactions are read-only; those of the
/// session that is to run it are, too.
pub(super) async fn read_only(session: &Session, role: &Role) -> Result<Option<[String; 2]>, DbError> {
    let server = catalog::settings::read(session, &[READ_ONLY]).await?;
    let (role, database) = (ident(&role.name), ident(&role.database));
    let off = |whose: &str| format!("{whose}SET {READ_ONLY} = off;");
    let sql = || [off(""), off(&format!("ALTER ROLE {role} IN DATABASE {database} "))];
    Ok((server.shown(READ_ONLY) == "on").then(sql))
}

/// Whether the two are known to be two databases: connection strings can name
/// one database in two ways.
pub(super) async fn are_different(source: &Session, target: &Session, findings: &mut Findings) -> bool {
    let of_the_same = |a: &Server, b: &Server| (a.began, a.database_oid) == (b.began, b.database_oid);
    match (catalog::server::read(source).await, catalog::server::read(target).await) {
        (Ok(a), Ok(b)) if of_the_same(&a, &b) && knows(target, a.pid).await => {
            findings
                .problem(Place::Here, "same_database", "source and target are the same database")
                .remedy("change one of the two connection strings");
            false
        }
        (Ok(_), Ok(_)) => {
            findings.ok(Place::Here, "same_database", "source and target are two databases");
            true
        }
        (Err(error), _) | (_, Err(error)) => {
            findings.unfinished(Place::Here, &error.into());
            false
        }
    }
}

/// Whether the server has this process; one that does not answer is taken to.
async fn knows(session: &Session, pid: i32) -> bool {
    activity::has_process(session, pid).await.unwrap_or(true)
}

/// Tables of nobody's but the database's own; an extension's are none.
const TABLES: &str = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' \
      AND n.nspname NOT IN ('information_schema', 'walferry') \
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')";

/// Whether the two look as if they had been given the wrong way round. `--schema
/// none` says that the target's tables are somebody's business.
pub(super) async fn swapped(
    settings: &Settings,
    source: &Session,
    target: &Session,
    findings: &mut Findings,
) -> Result<(), DbError> {
    if settings.schema == SchemaMode::None {
        return Ok(());
    }
    let count = async |session: &Session| -> Result<i64, DbError> {
        session.query_one(TABLES, &[]).await.during(session.side(), "count the tables")?.take(0)
    };
    let (here, there) = tokio::try_join!(count(source), count(target))?;
    if here == 0 && there > 0 {
        let has = if there == 1 { "one".to_owned() } else { format!("{there} of them") };
        findings
            .problem(
                Place::Here,
                "swapped",
                format!("the source has no tables, and the target has {has}: are the two swapped?"),
            )
            .remedy("give --source and --target the other way round; if it is meant so, say --schema none");
    }
    Ok(())
}
