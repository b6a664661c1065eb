//! How long a check waits: a query of it that waits behind a lock is given up,
//! and who was in the way is said.
//!
//! Invariant: no statement of a check runs without a limit. Who is in the way is
//! looked up by a session beside the waiting one, which is the only moment when
//! the server knows it.

use std::time::Duration;

use super::{CheckError, Findings};
use crate::catalog::activity::{self, Waiting};
use crate::catalog::server;
use crate::config::{Settings, Side};
use crate::fault::sqlstate;
use crate::session::{DbContext, DbError, Session};
use crate::wire::WireError;

/// How long a statement of a check waits for a lock: an ALTER TABLE of an
/// application that is alive takes less, and a check is not to queue in front
/// of its readers for longer.
const LOCK_SECONDS: u64 = 5;

/// How long a statement of a check may take: the slowest, over 20,000 tables,
/// takes a few seconds.
const STATEMENT_SECONDS: u64 = 60;

/// When, and how often, is looked who is in the way of statements that wait.
const LOOK_EVERY: Duration = Duration::from_millis(800);

/// How much longer than a statement may take its answer may be under way.
const ON_THE_WAY: Duration = Duration::from_secs(15);

/// Gives a session of a check its limits: the server's, and one for a server that does
/// not keep them.
pub(super) async fn limit(session: &Session) -> Result<(), DbError> {
    let sql = format!("SET lock_timeout = '{LOCK_SECONDS}s'; SET statement_timeout = '{STATEMENT_SECONDS}s'");
    session.answer_within(Duration::from_secs(STATEMENT_SECONDS) + ON_THE_WAY);
    session.batch_execute(&sql).await.during(session.side(), "set the limits of a check")
}

/// Awaits checks on a session, and remembers whom they waited for at last.
pub(super) async fn watched<T>(
    settings: &Settings,
    session: &Session,
    work: impl Future<Output = Result<T, CheckError>>,
) -> (Result<T, CheckError>, Option<Waiting>) {
    let pid = match server::read(session).await {
        Ok(here) => here.pid,
        Err(error) => return (Err(error.into()), None),
    };
    let mut work = std::pin::pin!(work);
    let mut seen = None;
    loop {
        let look = async {
            tokio::time::sleep(LOOK_EVERY).await;
            look(settings, session.side(), pid).await
        };
        tokio::select! {
            biased;
            outcome = &mut work => return (outcome, seen),
            found = look => match found {
                Ok(found) => seen = found.or(seen),
                // The checks say themselves how they end.
                Err(error) => tracing::debug!(%error, "cannot look who is in the way"),
            },
        }
    }
}

async fn look(settings: &Settings, side: Side, pid: i32) -> Result<Option<Waiting>, CheckError> {
    let info = match side {
        Side::Source => &settings.source,
        Side::Target => &settings.target,
    };
    let beside = Session::connect(info, &settings.name).await.map_err(|error: WireError| CheckError::from(error))?;
    limit(&beside).await?;
    Ok(activity::waiting(&beside, pid).await?)
}

/// Says why checks on a side could not be finished.
pub(super) fn explain(side: Side, error: &CheckError, waiting: Option<&Waiting>, findings: &mut Findings) {
    let gave_up = matches!(error, CheckError::Db(error) if error.sqlstate().is_some_and(sqlstate::is_given_up));
    let Some(waiting) = waiting.filter(|_| gave_up) else {
        return findings.unfinished(side.into(), error);
    };
    let what = waiting.relation.as_deref().map(|table| format!(" on {table}")).unwrap_or_default();
    findings
        .problem(
            side,
            "locked",
            format!(
                "some checks could not be made: they waited {LOCK_SECONDS} s behind a lock{what}, in the way is {}",
                waiting.behind.join(", ")
            ),
        )
        .remedy("wait until it ends, or end it, and check again; what else was looked at is said all the same");
}
