//! What is not in the stream: sequences, large objects, and kinds of tables
//! that logical replication passes over.

use super::findings::names;
use super::{CheckError, Findings};
use crate::catalog::roles::Role;
use crate::config::{Settings, Side};
use crate::session::{DbContext, Session};
use crate::sql::{TableName, ident};
use crate::sweep::large_objects::READABLE_SQL;
use crate::words;

pub(super) async fn check(
    settings: &Settings,
    role: &Role,
    session: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    sequences(settings, role, session, findings).await?;
    large_objects(role, session, findings).await
}

/// Sequences with the table they belong to, which decides whether they take
/// part; others go by their own name.
const SEQUENCES: &str = "SELECT n.nspname::text, c.relname::text, tn.nspname::text, t.relname::text, has_sequence_privilege(c.oid, 'SELECT') \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') \
    LEFT JOIN pg_class t ON t.oid = d.refobjid LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace \
    WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'walferry') ORDER BY 1, 2";

async fn sequences(
    settings: &Settings,
    role: &Role,
    session: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let rows = session.query(SEQUENCES, &[]).await.during(Side::Source, "list the sequences")?;
    let mut denied = Vec::new();
    let mut total = 0;
    for row in &rows {
        let name = TableName::new(row.take::<String>(0)?, row.take::<String>(1)?);
        let owner = row.take::<Option<String>>(2)?.zip(row.take::<Option<String>>(3)?);
        let decides = owner.map_or_else(|| name.clone(), |(schema, table)| TableName::new(schema, table));
        if !settings.filter.includes(&decides) {
            continue;
        }
        total += 1;
        if !row.take::<bool>(4)? {
            denied.push(name);
        }
    }
    if denied.is_empty() {
        findings.ok(Side::Source, "sequences", format!("role {} may read all {total} sequences", role.name));
        return Ok(());
    }
    let finding = findings.problem(
        Side::Source,
        "sequences",
        format!("role {} may not read {} sequences: {}", role.name, denied.len(), names(&denied)),
    );
    finding.remedy("let their owner run this:");
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
        findings.ok(Side::Source, "large_objects", format!("role {} may read all {total} large objects", role.name));
    } else if foreign == 0 {
        findings.ok(
            Side::Source,
            "large_objects",
            format!(
                "role {} may open all {total} large objects, but not read their pages: each pass compares all of their contents",
                role.name
            ),
        );
    } else {
        let grant = if session.version() >= 140_000 {
            format!("GRANT pg_read_all_data TO {};", ident(&role.name))
        } else {
            format!("GRANT SELECT ON pg_catalog.pg_largeobject TO {};", ident(&role.name))
        };
        findings
            .problem(
                Side::Source,
                "large_objects",
                format!(
                    "role {} may not read {foreign} of {total} large objects, which others own: {}",
                    role.name,
                    words::listed_of(&unreadable, u64::try_from(foreign).unwrap_or(0))
                ),
            )
            .remedy("let a superuser run this, or use the role that owns them:")
            .sql(grant);
    }
    Ok(())
}
