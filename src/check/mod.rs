//! The preflight: everything that would make a migration fail, found before
//! anything is created, with the SQL that mends it.
//!
//! Invariant: nothing is changed on either side. Every group of checks runs in
//! a read-only transaction that is rolled back, and the trial in one of its own
//! that is rolled back as well; what cannot be checked is a
//! problem, never an omission.
//!
//! One file a group: [`findings`] (what a check says), `server` (both ends:
//! pooler, connections), `source`, `tables`, `publication`, `slot`, `contents`
//! (large objects, sequences), `target`, `landing` (the schema on the target,
//! what is not replicated), `foreign` (foreign servers on the target), `meeting`
//! (what both ends are asked for together), `trial`
//! (the schema, tried on the target).

mod contents;
pub mod findings;
mod foreign;
mod landing;
mod meeting;
mod publication;
mod server;
mod slot;
mod source;
mod tables;
mod target;
mod trial;

use std::fmt;

use serde::Serialize;

pub use findings::{Finding, Findings, Place, Severity};

use crate::config::{Settings, Side};
use crate::fault::Exit;
use crate::session::{DbContext, DbError, Session};
use crate::wire::WireError;

/// Why a group of checks could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A connection was refused or lost.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A query failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Whether a migration would get through.
    pub ok: bool,
    /// How many findings are problems.
    pub problems: usize,
    /// How many are warnings.
    pub warnings: usize,
    /// All findings, the good ones too.
    pub findings: Vec<Finding>,
    /// An end that could not be reached.
    #[serde(skip)]
    pub unreached: Option<Side>,
}

impl Report {
    fn of(findings: Findings) -> Self {
        let unreached = findings.unreached();
        let findings = findings.into_list();
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        let (problems, warnings) = (count(Severity::Problem), count(Severity::Warning));
        Report { ok: problems == 0, problems, warnings, findings, unreached }
    }

    /// How the process ends: as `run` would. An end that is out of reach may
    /// come back; anything else stands in the way.
    pub fn exit(&self) -> Exit {
        match self.unreached {
            Some(side) => Exit::of(side),
            None if self.ok => Exit::Done,
            None => Exit::Refused,
        }
    }
}

/// For people: a list per end, with the SQL that mends each problem.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in [Place::Source, Place::Target, Place::Here] {
            writeln!(f, "{place}")?;
            for finding in self.findings.iter().filter(|finding| finding.place == place) {
                write!(f, "{finding}")?;
            }
            writeln!(f)?;
        }
        match (self.problems, self.warnings) {
            (0, 0) => writeln!(f, "ready: nothing stands in the way"),
            (0, warnings) => writeln!(f, "ready, with {warnings} to look at"),
            (problems, warnings) => writeln!(f, "not ready: {problems} to mend (✗), {warnings} to look at (!)"),
        }
    }
}

/// Checks both ends.
pub async fn run(settings: &Settings) -> Report {
    let mut findings = Findings::default();
    let source = connect(settings, Side::Source, &mut findings).await;
    let target = connect(settings, Side::Target, &mut findings).await;
    let migration = match &target {
        Some(target) => {
            group(target, &mut findings, async |s, f| target::migration(settings, s, f).await).await.flatten()
        }
        None => None,
    };
    let mut content = None;
    if let Some(source) = &source {
        content = check_source(settings, source, migration.as_ref(), &mut findings).await;
        pg_dump(settings, source.version(), &mut findings);
    }
    if let Some(target) = &target {
        server::check(settings, target, &mut findings).await;
        group(target, &mut findings, async |s, f| target::check(s, f).await).await;
        target::probe_replication_role(target, &mut findings).await;
        // Remedies for the target would hit the source if the two were one.
        let are_different = match &source {
            Some(source) => server::are_different(source, target, &mut findings).await,
            None => false,
        };
        if let (Some(content), true) = (&content, are_different) {
            group(target, &mut findings, async |s, f| {
                landing::check(settings, content, migration.as_ref(), s, f).await
            })
            .await;
            if let Some(source) = &source {
                let ends = (source, target);
                meet(settings, migration.as_ref(), ends, &mut findings).await;
                group(source, &mut findings, async |s, f| trial::check(settings, migration.as_ref(), s, f).await).await;
            }
        }
    }
    Report::of(findings)
}

/// All groups of the source; what the target has to take is given back.
async fn check_source(
    settings: &Settings,
    source: &Session,
    migration: Option<&target::Migration>,
    findings: &mut Findings,
) -> Option<landing::Content> {
    server::check(settings, source, findings).await;
    let role = group(source, findings, async |s, f| source::check(s, f).await).await?;
    source::replication_connection(settings, &role, findings).await;
    group(source, findings, async |s, f| slot::check(settings, &role, migration, s, f).await).await;
    let tables = group(source, findings, async |s, f| tables::check(settings, &role, s, f).await).await?;
    group(source, findings, async |s, f| publication::check(settings, &role, &tables, s, f).await).await;
    group(source, findings, async |s, f| contents::check(settings, &role, s, f).await).await;
    group(source, findings, async |s, _| landing::Content::read(settings, s, tables).await).await
}

async fn connect(settings: &Settings, side: Side, findings: &mut Findings) -> Option<Session> {
    let info = match side {
        Side::Source => &settings.source,
        Side::Target => &settings.target,
    };
    match Session::connect(info, &settings.name).await {
        Ok(session) => {
            let (major, minor) = (session.version() / 10_000, session.version() % 10_000);
            findings.ok(side, "connection", format!("{info} answers, PostgreSQL {major}.{minor}"));
            Some(session)
        }
        Err(error) => {
            findings.out_of_reach(side, format!("cannot connect to {info}: {error}"));
            None
        }
    }
}

/// Runs a group of checks in a read-only transaction. A group that fails is a
/// problem of its own; the others go on.
async fn group<T>(
    session: &Session,
    findings: &mut Findings,
    checks: impl AsyncFnOnce(&Session, &mut Findings) -> Result<T, CheckError>,
) -> Option<T> {
    let outcome = async {
        let side = session.side();
        session.batch_execute("BEGIN READ ONLY").await.during(side, "begin a read-only transaction")?;
        let outcome = checks(session, findings).await;
        session.batch_execute("ROLLBACK").await.during(side, "end a read-only transaction")?;
        outcome
    }
    .await;
    outcome.map_err(|error| findings.unfinished(session.side().into(), &error)).ok()
}

/// Questions to both ends; they change nothing, or take it back themselves.
async fn meet(
    settings: &Settings,
    migration: Option<&target::Migration>,
    ends: (&Session, &Session),
    findings: &mut Findings,
) {
    if let Err(error) = meeting::check(settings, migration, ends, findings).await {
        findings.unfinished(Place::Here, &error);
    }
}

/// pg_dump brings the schema over, so it is only needed when that is asked for.
fn pg_dump(settings: &Settings, source_version: i32, findings: &mut Findings) {
    if settings.schema != crate::config::SchemaMode::Create {
        return;
    }
    match crate::schema::find_pg_dump(settings.pg_bin.as_deref(), source_version) {
        Ok(found) => {
            let message = format!("pg_dump {} at {} brings the schema over", found.version, found.path.display());
            findings.ok(Place::Here, "pg_dump", message);
        }
        Err(error) => {
            findings.problem(Place::Here, "pg_dump", error.to_string());
        }
    }
}

#[cfg(test)]
mod tests;
