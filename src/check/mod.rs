//! The preflight: everything that would make a migration fail, found before
//! anything is created, with the SQL that mends it.
//!
//! Invariant: nothing is changed on either side. Every group of checks runs in
//! a read-only transaction that is rolled back, and what is tried (the schema, the
//! state, the publication) in one of its own that is rolled back as well; what
//! cannot be checked is a problem, never an omission.
//!
//! One file a group: [`findings`] (what a check says), `server` (both ends:
//! pooler, connections), `source`, `tables`, `publication`, `slot`, `contents`
//! (large objects, sequences), `target`, `acting` (what is at work there while rows
//! come), `landing` (tables that are to exist, what is not replicated), `meeting` (what both ends are asked for together), `trial`
//! (the schema, tried on the target). `patience` bounds them all.
//!
//! `run` asks the same before a first start creates anything: a problem here refuses
//! it, and what does not refuse it is a warning here.

mod acting;
mod contents;
pub mod findings;
mod landing;
mod meeting;
mod patience;
mod publication;
mod server;
mod slot;
mod source;
mod tables;
mod target;
mod trial;

use std::fmt;
use std::sync::LazyLock;

use serde::Serialize;

use acting::Acting;
pub use findings::{Finding, Findings, Place, Severity};

use crate::config::{SchemaMode, Settings, Side};
use crate::fault::{Exit, Fault};
use crate::membership::Known;
use crate::session::{DbContext, DbError, Session};
use crate::sql::TableName;
use crate::state::StateError;
use crate::state::resume::Standing;
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
    /// The state cannot be understood.
    #[error(transparent)]
    State(StateError),
}

impl From<StateError> for CheckError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Db(error) => CheckError::Db(error),
            error => CheckError::State(error),
        }
    }
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
    /// The tables that take part.
    pub tables: Vec<TableName>,
    /// An end that could not be reached.
    #[serde(skip)]
    pub unreached: Option<Side>,
    /// What a migration that has begun and cannot go on ends with.
    #[serde(skip)]
    pub ended: Option<Exit>,
}

impl CheckError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            CheckError::Wire(error) => error.fault(),
            CheckError::Db(error) => error.fault(),
            CheckError::State(error) => error.fault(),
        }
    }

    fn side(&self) -> Side {
        match self {
            CheckError::Wire(error) => error.side(),
            CheckError::Db(error) => error.side,
            CheckError::State(_) => Side::Target,
        }
    }

    /// Whether the session was lost, rather than a question refused.
    fn is_loss(&self) -> bool {
        match self {
            CheckError::Wire(error) => error.fault().is_retried(),
            CheckError::Db(error) => error.sqlstate().is_none() && error.fault().is_retried(),
            CheckError::State(_) => false,
        }
    }
}

impl Report {
    fn of(findings: Findings) -> Self {
        let (unreached, ended) = (findings.unreached(), findings.end());
        let (findings, tables) = findings.into_lists();
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        let (problems, warnings) = (count(Severity::Problem), count(Severity::Warning));
        Report { ok: problems == 0, problems, warnings, findings, tables, unreached, ended }
    }

    /// The problems alone, for a start that they refuse.
    pub fn refusal(&self) -> String {
        let problems = self.findings.iter().filter(|finding| finding.severity == Severity::Problem);
        problems.map(|finding| format!("\n{}:\n{finding}", finding.place).trim_end().to_owned()).collect()
    }

    /// The warnings that a migration says as it begins: partitions are not on the target
    /// what they are on the source, which nothing refuses later.
    pub fn of_places(&self) -> impl Iterator<Item = String> {
        let is_one =
            |finding: &&Finding| finding.severity == Severity::Warning && ["bounds", "apart"].contains(&finding.check);
        self.findings.iter().filter(is_one).map(|finding| {
            let remedy = finding.remedy.as_deref().unwrap_or_default();
            format!("{}; {remedy} {}", finding.message, finding.sql.join(" ")).trim_end().to_owned()
        })
    }

    /// How the process ends: as `run` would. An end that is out of reach may
    /// come back; anything else stands in the way.
    pub fn exit(&self) -> Exit {
        match self.unreached {
            Some(side) => Exit::of(side),
            None if self.ok => Exit::Done,
            None => self.ended.unwrap_or(Exit::Refused),
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
    predicates(settings, source.as_ref(), target.as_ref(), &mut findings).await;
    Report::of(findings)
}

/// What a first start asks before it creates anything: all that `check` asks.
///
/// # Errors
/// When a session is lost.
pub async fn before_anything(settings: &Settings, source: &Session, target: &Session) -> Result<Report, DbError> {
    patience::limit(source).await?;
    patience::limit(target).await?;
    let mut findings = Findings::default();
    predicates(settings, Some(source), Some(target), &mut findings).await;
    Ok(Report::of(findings))
}

/// What a start asks that goes on with a copy: whether the names of what still
/// waits are free.
///
/// # Errors
/// When state or catalog cannot be read.
pub async fn before_going_on(standing: &Standing, target: &Session) -> Result<Report, CheckError> {
    let mut findings = Findings::default();
    trial::waiting(standing, target, &mut findings).await?;
    Ok(Report::of(findings))
}

/// What is known of the tables of a migration that has begun.
fn known(standing: Option<&Standing>) -> &Known {
    static NOTHING: LazyLock<Known> = LazyLock::new(Known::new);
    standing.map_or(&NOTHING, |standing| &standing.tables)
}

/// Everything that is asked of the ends that are there.
async fn predicates(settings: &Settings, source: Option<&Session>, target: Option<&Session>, findings: &mut Findings) {
    let mut read = None;
    if let Some(target) = target {
        read = group(settings, target, findings, async |s, f| target::migration(settings, s, f).await).await.flatten();
    }
    let told = target.filter(|_| read.is_some());
    let standing = read.as_ref().and_then(Option::as_ref);
    let mut content = None;
    if let Some(source) = source {
        content = check_source(settings, (source, told), standing, findings).await;
        pg_dump(settings, source.version(), findings);
    }
    let Some(target) = target else { return };
    server::check(settings, target, findings).await;
    let installer = group(settings, target, findings, async |s, f| target::check(s, f).await).await;
    if let Some(role) = installer.flatten() {
        target::try_state(&role, target, findings).await;
    }
    let acting = acting(settings, (content.as_ref(), standing), target, findings).await;
    let Some(source) = source else { return };
    // Remedies for the target would hit the source if the two were one.
    if !server::are_different(source, target, findings).await {
        return;
    }
    if standing.is_none()
        && let Err(error) = server::swapped(settings, source, target, findings).await
    {
        findings.unfinished(Place::Here, &error.into());
    }
    acting.say(findings);
    if let Some(content) = &content {
        group(settings, target, findings, async |s, f| landing::check(settings, content, standing, s, f).await).await;
        meet(settings, standing, (source, target), findings).await;
        group(settings, source, findings, async |s, f| trial::check(settings, standing, s, f).await).await;
    }
}

/// What is kept quiet on the target while rows come, and what is at work all the same.
async fn acting(
    settings: &Settings,
    (content, standing): (Option<&landing::Content>, Option<&Standing>),
    target: &Session,
    findings: &mut Findings,
) -> Acting {
    let Some((role, message)) = target::replication_role(target, findings).await else { return Acting::default() };
    let mut found = Acting::default();
    if let (Some(content), SchemaMode::None) = (content, settings.schema) {
        let looked = async |s: &Session, _: &mut Findings| Acting::find(settings, (content, standing), s, role).await;
        found = group(settings, target, findings, looked).await.unwrap_or_default();
    }
    target::say_replication_role(settings, message, !found.firing.is_empty(), findings);
    found
}

/// All groups of the source, with a target that told of its migrations; what the target has to
/// take is given back.
async fn check_source(
    settings: &Settings,
    (source, target): (&Session, Option<&Session>),
    standing: Option<&Standing>,
    findings: &mut Findings,
) -> Option<landing::Content> {
    server::check(settings, source, findings).await;
    let role = group(settings, source, findings, async |s, f| source::check(s, f).await).await?;
    let identity = source::replication_connection(settings, &role, findings).await;
    let known = slot::Known { role: &role, standing, source: identity.as_ref(), target };
    group(settings, source, findings, async |s, f| slot::check(settings, &known, s, f).await).await;
    let ours = (&role, standing);
    group(settings, source, findings, async |s, f| contents::check(settings, ours, s, f).await).await;
    let tables = group(settings, source, findings, async |s, f| tables::check(settings, ours, s, f).await).await?;
    let creation =
        group(settings, source, findings, async |s, f| publication::check(settings, ours, &tables, s, f).await).await;
    if let Some(creation) = creation.flatten() {
        publication::try_creation(creation, source, findings).await;
    }
    group(settings, source, findings, async |s, _| landing::Content::read(settings, s, tables).await).await
}

async fn connect(settings: &Settings, side: Side, findings: &mut Findings) -> Option<Session> {
    let info = match side {
        Side::Source => &settings.source,
        Side::Target => &settings.target,
    };
    let session = async {
        let session = Session::connect(info, &settings.name).await?;
        patience::limit(&session).await?;
        Ok::<_, CheckError>(session)
    };
    match session.await {
        Ok(session) => {
            let (major, minor) = (session.version() / 10_000, session.version() % 10_000);
            let security = session.security();
            findings.ok(side, "connection", format!("{info} answers, PostgreSQL {major}.{minor}, {security}"));
            if let Some(risk) = security.risk() {
                findings.warning(side, "encryption", risk).remedy(security.remedy());
            }
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
    settings: &Settings,
    session: &Session,
    findings: &mut Findings,
    checks: impl AsyncFnOnce(&Session, &mut Findings) -> Result<T, CheckError>,
) -> Option<T> {
    let side = session.side();
    let work = async {
        session.batch_execute("BEGIN READ ONLY").await.during(side, "begin a read-only transaction")?;
        let outcome = checks(session, findings).await;
        session.batch_execute("ROLLBACK").await.during(side, "end a read-only transaction")?;
        outcome
    };
    let (outcome, waiting) = patience::watched(settings, session, work).await;
    match outcome {
        Ok(value) => Some(value),
        Err(error) => {
            patience::explain(error.side(), &error, waiting.as_ref(), findings);
            None
        }
    }
}

/// Questions to both ends; they change nothing, or take it back themselves.
async fn meet(
    settings: &Settings,
    standing: Option<&Standing>,
    (source, target): (&Session, &Session),
    findings: &mut Findings,
) {
    let work = meeting::check(settings, standing, (source, target), findings);
    let watched = async { Ok(patience::watched(settings, target, work).await) };
    let (outcome, at_source) = patience::watched(settings, source, watched).await;
    let (outcome, at_target) = match outcome {
        Ok(both) => both,
        Err(error) => (Err(error), None),
    };
    if let Err(error) = outcome {
        let side = error.side();
        let waiting = if side == Side::Source { at_source } else { at_target };
        patience::explain(side, &error, waiting.as_ref(), findings);
    }
}

/// pg_dump brings the schema over, so it is only needed when that is asked for.
fn pg_dump(settings: &Settings, source_version: i32, findings: &mut Findings) {
    if settings.schema != SchemaMode::Create {
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
