//! The schema, tried on the target: what `run` would restore is restored in a
//! transaction that is rolled back, and what the target refuses is said.
//!
//! Invariant: there is no rule here. The dump, the statements and their order
//! are `run`'s own (`crate::schema::trial`); this only says what came of it.

use super::{CheckError, Findings, Place, known};
use crate::border::visible;
use crate::catalog::activity;
use crate::catalog::objects::create_views;
use crate::catalog::tables::Detail;
use crate::config::{SchemaMode, Settings, Side};
use crate::membership;
use crate::schema::kind::Kind;
use crate::schema::taken::Taken;
use crate::schema::trial::{self, Reason, Refused, Trial, When};
use crate::schema::{SchemaError, shown, taken};
use crate::session::Session;
use crate::sql::ident;
use crate::state::resume::Standing;
use crate::words;

/// Refused objects that are shown each by itself: a person mends the first and
/// looks again.
const SHOWN: usize = 50;

pub(super) async fn check(
    settings: &Settings,
    standing: Option<&Standing>,
    source: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    if settings.schema != SchemaMode::Create || standing.is_some_and(|standing| standing.schema_restored) {
        return Ok(());
    }
    tracing::info!("trying the schema on the target, in a transaction that is rolled back");
    let tables = membership::read(source, &settings.filter, known(standing), Detail::Columns).await?;
    match trial::run(settings, source, &tables).await {
        Ok(trial) => {
            say(&trial, findings);
            left_out(source, &trial, findings).await?;
        }
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

/// What a migration whose schema is there still waits for, and cannot have.
pub(super) async fn waiting(standing: &Standing, target: &Session, findings: &mut Findings) -> Result<(), CheckError> {
    let taken = taken::look(target, &standing.name).await?;
    if taken.is_empty() {
        findings.ok(Side::Target, "trial", "the schema is there, and the names of what still waits are free");
        return Ok(());
    }
    taken_names(&taken, findings);
    Ok(())
}

fn taken_names(taken: &[Taken], findings: &mut Findings) {
    if taken.is_empty() {
        return;
    }
    let listed: Vec<&str> = taken.iter().map(|one| one.object.as_str()).collect();
    let message = format!("on the target something else has the names of: {}", words::listed(&listed));
    let finding = findings.problem(Side::Target, "exists", message);
    finding.remedy(if let [_] = taken { "rename it there:" } else { "rename them there:" });
    for one in taken {
        finding.sql(one.frees.clone());
    }
}

async fn dump_failed(source: &Session, error: &SchemaError, findings: &mut Findings) -> Result<(), CheckError> {
    if error.fault().is_retried() {
        findings.out_of_reach(Side::Source, error.to_string());
        return Ok(());
    }
    let holders = activity::exclusive_holders(source).await?;
    let finding = findings.problem(Side::Source, "trial", error.to_string());
    if !holders.is_empty() {
        finding.remedy(format!("tables are held exclusively: {}", words::listed(&holders)));
    }
    Ok(())
}

fn say(trial: &Trial, findings: &mut Findings) {
    missing(trial, findings);
    taken_names(&trial.taken_names, findings);
    let (tried, all) = trial.tried;
    let took = format!("{:.1} s, with {}", trial.took.as_secs_f64(), trial.pg_dump.display());
    if trial.refused.is_empty() {
        let what = if tried == all {
            format!("the schema can be created: all {tried} objects were tried")
        } else {
            let alike = match trial.alike {
                0 => String::new(),
                alike => format!(" ({alike} more are as some of these but for the names of tables, which are free)"),
            };
            format!(
                "the schema can be created as far as it was tried: {tried} of {all} objects, of those that come before the rows{alike},"
            )
        };
        return findings.ok(Side::Target, "trial", format!("{what} in a transaction that was rolled back ({took})"));
    }
    let there: Vec<&Refused> = trial.refused.iter().filter(|refused| refused.reason == Reason::Exists).collect();
    existing(&there, findings);
    let follows = |refused: &&Refused| matches!(refused.reason, Reason::Follows(_));
    let is_said = |refused: &&Refused| match refused.reason {
        Reason::Right | Reason::Locks | Reason::Other => true,
        Reason::Follows(_) => refused.when == When::Administrator,
        Reason::Exists | Reason::Schema | Reason::Missing => false,
    };
    for refused in trial.refused.iter().filter(is_said).take(SHOWN) {
        one(&trial.role, refused, findings);
    }
    let follows = trial.refused.iter().filter(follows).filter(|refused| refused.when != When::Administrator).count();
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
        // Should nothing have been refused for a reason of its own, it is one.
        let is_root =
            |refused: &Refused| !matches!(refused.reason, Reason::Follows(_)) && refused.when != When::Administrator;
        if trial.refused.iter().any(is_root) {
            findings.warning(Side::Target, "trial_follows", message);
        } else {
            findings.problem(Side::Target, "trial_follows", message);
        }
    }
}

/// What many objects need and the target does not have: extensions, roles, the
/// right to create in a schema.
fn missing(trial: &Trial, findings: &mut Findings) {
    if !trial.missing_extensions.is_empty() {
        let message = format!(
            "the target's server does not offer {}: {}",
            if trial.missing_extensions.len() == 1 { "an extension of the source" } else { "extensions of the source" },
            trial.missing_extensions.join(", ")
        );
        findings
            .problem(Side::Target, "extensions", message)
            .remedy("install their packages on the server, or enable them in the provider's console");
    }
    if !trial.missing_roles.is_empty() {
        let message = "roles that policies, user mappings, privileges or owners name are not there, not ours to give to, or may own nothing in a schema";
        let finding = findings.problem(Side::Target, "roles", message);
        finding.remedy(
            "let an administrator run this, or leave out --owners and --acl (policies and user mappings need their roles \
             all the same):",
        );
        for sql in &trial.missing_roles {
            finding.sql(sql);
        }
    }
    for schema in &trial.closed_schemas {
        let role = &trial.role;
        findings
            .problem(Side::Target, "schemas", format!("role {role} may not create in schema {schema} and use it"))
            .remedy("let its owner run this:")
            .sql(format!("GRANT USAGE, CREATE ON SCHEMA {} TO {};", ident(schema), ident(role)));
    }
}

/// Leftovers, as of an earlier attempt.
fn existing(there: &[&Refused], findings: &mut Findings) {
    if there.is_empty() {
        return;
    }
    let listed: Vec<String> = there.iter().map(|refused| refused.what()).collect();
    let message = format!("on the target already, though the schema brings them: {}", words::listed(&listed));
    let finding = findings.problem(Side::Target, "exists", message);
    finding.remedy(
        "start with an empty database; use --schema existing to fill tables that are there; or rename them there:",
    );
    for refused in there {
        finding.sql(refused.frees.clone().unwrap_or_else(|| free_by_kind(refused)));
    }
}

/// The statement that renames a leftover of a kind whose names no other kind has.
fn free_by_kind(refused: &Refused) -> String {
    let has_names_of_its_own = matches!(
        refused.kind,
        Some(
            Kind::Collation
                | Kind::Conversion
                | Kind::Statistics
                | Kind::Server
                | Kind::ForeignDataWrapper
                | Kind::EventTrigger
                | Kind::TextSearchConfiguration
                | Kind::TextSearchDictionary
                | Kind::TextSearchParser
                | Kind::TextSearchTemplate
        )
    );
    let what = refused.word().to_uppercase();
    let name = refused.name.strip_prefix(&format!("{}.", refused.schema)).unwrap_or(&refused.name);
    if has_names_of_its_own {
        let schema = if refused.schema.is_empty() { String::new() } else { format!("{}.", ident(&refused.schema)) };
        let start: String = name.chars().take(if name.is_ascii() { 50 } else { 12 }).collect();
        let (there, new) = (format!("{schema}{}", ident(name)), ident(&format!("{start}_elsewhere")));
        format!("ALTER {what} {there} RENAME TO {new}; -- or, if it is not needed: DROP {what} IF EXISTS {there};")
    } else {
        format!("-- rename or drop {} {}", refused.word(), visible(&refused.name))
    }
}

/// One object with the server's words.
fn one(role: &str, refused: &Refused, findings: &mut Findings) {
    let when = match refused.when {
        When::First => "",
        When::AfterRows => " (after the rows)",
        When::End | When::Administrator => " (at the end, catchup --finish)",
    };
    let message = format!("cannot create {}{when}: {}", refused.what(), words(&refused.error));
    let finding = match refused.reason {
        // Comes last of all, and keeps nothing else back.
        Reason::Right | Reason::Follows(_) if refused.when == When::Administrator => {
            findings.warning(Side::Target, "trial", message)
        }
        _ => findings.problem(Side::Target, "trial", message),
    };
    match refused.reason {
        Reason::Right | Reason::Follows(_) => {
            finding.remedy("let an administrator of the target run this, or grant the role what is missing:");
            finding.sql(refused.sql.clone());
            if let Some(wrapper) = refused.wrapper() {
                finding.sql(format!("GRANT USAGE ON FOREIGN DATA WRAPPER {wrapper} TO {};", ident(role)));
            }
        }
        Reason::Locks => {
            finding.remedy("run restores the schema in one transaction, too: raise max_locks_per_transaction there, and restart the server");
        }
        _ => {
            finding.remedy(format!("it is created by: {}", shown(&refused.sql)));
        }
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
async fn left_out(source: &Session, trial: &Trial, findings: &mut Findings) -> Result<(), CheckError> {
    let others: Vec<&str> = trial.taken.others.iter().map(|along| along.description.as_str()).collect();
    if !others.is_empty() {
        let message =
            format!("left out with the tables that the filter leaves out, as they need them: {}", others.join(", "));
        let finding = findings.warning(Place::Source, "left_out", message);
        let views = create_views(source, &trial.taken.others).await?;
        if !views.is_empty() {
            finding.remedy("views can be created on the target once it has what they read:");
        }
        for sql in views {
            finding.sql(sql);
        }
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
    Ok(())
}
