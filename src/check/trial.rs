//! The schema, tried on the target: what `run` would restore is restored in a
//! transaction that is rolled back, and what the target refuses is said.
//!
//! Invariant: there is no rule here. The dump, the statements and their order
//! are `run`'s own (`crate::schema::trial`); this only says what came of it.

use super::findings::names;
use super::{CheckError, Findings, Place};
use crate::catalog::tables::Detail;
use crate::config::{SchemaMode, Settings, Side};
use crate::membership::{self, Known};
use crate::schema::SchemaError;
use crate::schema::trial::{self, Reason, Refused, Trial, When};
use crate::session::{DbContext, Session};
use crate::sql::ident;
use crate::state::resume::Standing;

/// Refused objects that are shown each by itself: a person mends the first and
/// looks again.
const SHOWN: usize = 50;

pub(super) async fn check(
    settings: &Settings,
    migration: Option<&Standing>,
    source: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    if settings.schema != SchemaMode::Create {
        return Ok(());
    }
    if migration.is_some() {
        findings.ok(Side::Target, "trial", "the schema is not tried again, as the migration has begun");
        return Ok(());
    }
    let tables = membership::read(source, &settings.filter, &Known::new(), Detail::Columns).await?;
    match trial::run(settings, source, &tables).await {
        Ok(trial) => say(&trial, findings),
        // Said with the program.
        Err(SchemaError::NoPgDump { .. }) => {}
        Err(SchemaError::Wire(error)) => return Err(error.into()),
        Err(SchemaError::Db(error)) => return Err(error.into()),
        Err(error @ (SchemaError::Dump { .. } | SchemaError::Archive(_))) => {
            dump_failed(source, &error, findings).await?
        }
        Err(error) => {
            findings.problem(Side::Target, "trial", error.to_string());
        }
    }
    Ok(())
}

/// Who holds tables so that they cannot even be read: what pg_dump waits for.
const HOLDERS: &str = "SELECT DISTINCT pg_catalog.format('process %s (user %s, %s, for %s s) holds %s', a.pid, a.usename, a.state, \
      extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::bigint, l.relation::pg_catalog.regclass) \
    FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
    WHERE l.locktype = 'relation' AND l.granted AND l.mode = 'AccessExclusiveLock' AND l.pid <> pg_catalog.pg_backend_pid() \
      AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) ORDER BY 1 LIMIT 20";

async fn dump_failed(source: &Session, error: &SchemaError, findings: &mut Findings) -> Result<(), CheckError> {
    let rows = source.query(HOLDERS, &[]).await.during(Side::Source, "look who holds tables")?;
    let holders: Vec<String> = rows.iter().map(|row| row.take(0)).collect::<Result<_, _>>()?;
    let finding = findings.problem(Side::Source, "trial", error.to_string());
    if !holders.is_empty() {
        finding.remedy(format!("tables are held exclusively: {}", names(&holders)));
    }
    Ok(())
}

fn say(trial: &Trial, findings: &mut Findings) {
    left_out(trial, findings);
    let (tried, all) = trial.tried;
    let own: Vec<&Refused> = trial.refused.iter().filter(|refused| is_own(refused)).collect();
    let follows = trial.refused.iter().filter(|refused| matches!(refused.reason, Reason::Follows(_))).count();
    let took = format!("{:.1} s, with {}", trial.took.as_secs_f64(), trial.pg_dump.display());
    if own.is_empty() && trial.refused.is_empty() {
        let what = if tried == all {
            format!("the schema can be created: all {tried} objects were tried")
        } else {
            format!(
                "the schema can be created as far as it was tried: {tried} of {all} objects, those that come before the rows"
            )
        };
        return findings.ok(Side::Target, "trial", format!("{what} in a transaction that was rolled back ({took})"));
    }
    existing(&own, findings);
    for refused in own.iter().filter(|refused| refused.reason != Reason::Exists).take(SHOWN) {
        one(refused, trial, findings);
    }
    if follows > 0 {
        let more = if follows == 1 { "1 more object is".to_owned() } else { format!("{follows} more objects are") };
        let first = trial.refused.iter().find_map(|refused| match &refused.reason {
            Reason::Follows(first) => Some(first.as_str()),
            _ => None,
        });
        let message = format!(
            "{more} refused, of {tried} that were tried ({took}), only for want of one that was refused before, as {} was",
            first.unwrap_or_default()
        );
        findings.warning(Side::Target, "trial_follows", message);
    }
}

/// Whether it is said here: tables that are there are said with the tables,
/// extensions that the server does not have with the extensions.
fn is_own(refused: &Refused) -> bool {
    match refused.reason {
        Reason::Follows(_) => false,
        Reason::Exists => refused.kind != "table",
        _ => true,
    }
}

/// Leftovers, as of an earlier attempt.
fn existing(own: &[&Refused], findings: &mut Findings) {
    let there: Vec<&&Refused> = own.iter().filter(|refused| refused.reason == Reason::Exists).collect();
    if there.is_empty() {
        return;
    }
    let listed: Vec<String> = there.iter().map(|r| format!("{} {}", r.kind, r.name).trim().to_owned()).collect();
    let finding = findings.problem(
        Side::Target,
        "exists",
        format!("on the target already, though the schema brings them: {}", listed.join(", ")),
    );
    finding.remedy("start with an empty database; or, if they are not needed, drop them there:");
    for refused in there {
        finding.sql(drop(refused));
    }
}

/// The statement that drops a leftover; relations and types by pg_dump's words.
fn drop(refused: &Refused) -> String {
    let (schema, name) = refused.name.split_once('.').unwrap_or(("", refused.name.as_str()));
    let kinds = ["view", "materialized view", "sequence", "type", "domain", "foreign table", "collation"];
    let routines = ["function", "procedure", "aggregate"];
    let what = refused.kind.to_uppercase();
    if kinds.contains(&refused.kind.as_str()) {
        format!("DROP {what} {}.{} CASCADE;", ident(schema), ident(name))
    } else if routines.contains(&refused.kind.as_str()) {
        format!("DROP {what} {}.{name} CASCADE;", ident(schema))
    } else {
        format!("-- drop {} {}", refused.kind, refused.name)
    }
}

/// One object with the server's words.
fn one(refused: &Refused, trial: &Trial, findings: &mut Findings) {
    let when = match refused.when {
        When::First => "",
        When::AfterRows => " (after the rows)",
        When::End | When::Administrator => " (at the end, catchup --finish)",
    };
    let what = format!("{} {}", refused.kind, refused.name);
    let message = format!("cannot create {}{when}: {}", what.trim(), words(&refused.error));
    let finding = match refused.reason {
        // Comes last of all, and keeps nothing else back.
        Reason::Right if refused.when == When::Administrator => findings.warning(Side::Target, "trial", message),
        _ => findings.problem(Side::Target, "trial", message),
    };
    match refused.reason {
        Reason::Right => {
            finding.remedy("let an administrator of the target run this, or grant the role what is missing:");
            finding.sql(refused.sql.clone());
        }
        Reason::Locks => {
            finding.remedy("run restores the schema in one transaction, too: raise max_locks_per_transaction there, and restart the server");
        }
        _ if !trial.missing_roles.is_empty() && matches!(refused.when, When::End | When::Administrator) => {
            finding.remedy("roles are missing: let an administrator run this:");
            for sql in &trial.missing_roles {
                finding.sql(sql.clone());
            }
        }
        _ => {}
    }
}

/// The server's words, and advice where there is some.
fn words(error: &SchemaError) -> String {
    match error {
        SchemaError::Object { source, advice, .. } => format!("{}{}", source.words(), advice.replacen(": ", "; ", 1)),
        SchemaError::Db(source) => source.words(),
        other => other.to_string(),
    }
}

/// What goes with the tables that the filter leaves out.
fn left_out(trial: &Trial, findings: &mut Findings) {
    let others: Vec<&str> = trial.taken.others.iter().map(|along| along.description.as_str()).collect();
    if !others.is_empty() {
        let message =
            format!("left out with the tables that the filter leaves out, as they need them: {}", others.join(", "));
        findings.warning(Place::Source, "left_out", message);
    }
    if !trial.taken.needs.is_empty() {
        findings
            .problem(
                Place::Source,
                "left_out",
                format!("the filter leaves out what tables need that come: {}", trial.taken.needs.join(", ")),
            )
            .remedy("leave these out as well, or let in what they need");
    }
}
