//! What is not in the stream: sequences and large objects. Those that the role may
//! not read are warnings: a run carries the others, and only its end wants all.

use std::collections::HashSet;

use super::{CheckError, Findings, known};
use crate::catalog::roles::Role;
use crate::catalog::sequences::{self, Sequence};
use crate::config::{Settings, Side};
use crate::membership;
use crate::session::{DbContext, Session};
use crate::sql::{TableName, ident};
use crate::state::resume::Standing;
use crate::sweep::large_objects::READABLE_SQL;
use crate::words;

pub(super) async fn check(
    settings: &Settings,
    (role, standing): (&Role, Option<&Standing>),
    session: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    sequences(settings, (role, standing), session, findings).await?;
    large_objects(role, session, findings).await
}

async fn sequences(
    settings: &Settings,
    (role, standing): (&Role, Option<&Standing>),
    session: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let all = sequences::list(session).await?;
    let takes_part = |one: &&Sequence| membership::sequence(one, &settings.filter, known(standing), &HashSet::new());
    let ours: Vec<&Sequence> = all.iter().filter(takes_part).collect();
    let denied: Vec<&TableName> = ours.iter().filter(|one| !one.may_read).map(|one| &one.name).collect();
    let total = ours.len();
    if denied.is_empty() {
        findings.ok(
            Side::Source,
            "sequences",
            format!("role {} may read {}", role.name, words::all(total, "sequence")),
        );
        return Ok(());
    }
    let sequences = if denied.len() == 1 { "sequence" } else { "sequences" };
    let finding = findings.warning(
        Side::Source,
        "sequences",
        format!("role {} may not read {} {sequences}: {}", role.name, denied.len(), words::listed(&denied)),
    );
    finding
        .remedy("a run carries the others, and catchup cannot end before these can be read; let their owner run this:");
    for name in &denied {
        finding.sql(format!("GRANT SELECT ON SEQUENCE {} TO {};", name.sql(), ident(&role.name)));
    }
    Ok(())
}

async fn large_objects(role: &Role, session: &Session, findings: &mut Findings) -> Result<(), CheckError> {
    let sql = format!(
        "SELECT count(*), count(*) FILTER (WHERE NOT readable), has_table_privilege('pg_catalog.pg_largeobject', 'SELECT'), \
         coalesce((array_agg(oid ORDER BY oid) FILTER (WHERE NOT readable))[1:20], '{{}}') \
         FROM (SELECT m.oid, {READABLE_SQL} AS readable FROM pg_largeobject_metadata m) o"
    );
    let row = session.query_one(&sql, &[]).await.during(Side::Source, "count the large objects")?;
    let (total, foreign, may_read_pages): (i64, i64, bool) = (row.take(0)?, row.take(1)?, row.take(2)?);
    let unreadable: Vec<u32> = row.take(3)?;
    if total == 0 {
        findings.ok(Side::Source, "large_objects", "there are no large objects");
    } else if may_read_pages {
        findings.ok(
            Side::Source,
            "large_objects",
            format!("role {} may read {}", role.name, words::all(total, "large object")),
        );
    } else if foreign == 0 {
        findings.ok(
            Side::Source,
            "large_objects",
            format!(
                "role {} may open {}, but not read their pages: each pass compares all of their contents",
                role.name,
                words::all(total, "large object")
            ),
        );
    } else {
        let grant = if session.version() >= 140_000 {
            format!("GRANT pg_read_all_data TO {};", ident(&role.name))
        } else {
            format!("GRANT SELECT ON pg_catalog.pg_largeobject TO {};", ident(&role.name))
        };
        findings
            .warning(
                Side::Source,
                "large_objects",
                format!(
                    "role {} may not read {foreign} of {total} large objects, which others own: {}",
                    role.name,
                    words::listed_of(&unreadable, u64::try_from(foreign).unwrap_or(0))
                ),
            )
            .remedy("a run carries the others, and catchup cannot end before these can be read; let a superuser run this, or use the role that owns them:")
            .sql(grant);
    }
    Ok(())
}
