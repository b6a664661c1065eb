//! The tables that take part: replica identity, the right to read, policies.
//!
//! Source: publishing a table without a usable replica identity makes the
//! application's own UPDATE and DELETE fail (`CheckCmdReplicaIdentity` in
//! `src/backend/executor/execReplication.c`).

use crate::session::Row;

use super::findings::names;
use super::{CheckError, Findings};
use crate::catalog::roles::Role;
use crate::config::{Provenance, Settings, Side};
use crate::session::{DbContext, Session};
use crate::sql::{TableName, ident};

/// What kind of table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A table with rows: plain, or a leaf of a partitioned one.
    Plain,
    /// A partitioned table: its rows are in its leaves.
    Partitioned,
    /// Has rows that are not in the stream.
    Unlogged,
    /// Filled by REFRESH.
    MaterializedView,
    /// Lives elsewhere.
    Foreign,
}

/// A table of the source.
#[derive(Clone, Debug)]
pub(super) struct SourceTable {
    pub(super) name: TableName,
    /// The topmost partitioned table it belongs to, or itself.
    pub(super) root: TableName,
    pub(super) kind: Kind,
    pub(super) is_owned: bool,
    /// Brought by CREATE EXTENSION, which makes it on the target, too.
    is_of_extension: bool,
    has_identity: bool,
    unique_index: Option<String>,
    may_read: bool,
    may_use_schema: bool,
    has_policies: bool,
}

/// The tables that the filter includes.
pub(super) struct Tables {
    /// Included, less those of extensions.
    pub(super) list: Vec<SourceTable>,
}

impl Tables {
    /// Included tables of a kind.
    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &SourceTable> {
        self.list.iter().filter(move |table| table.kind == kind)
    }

    /// What a publication would list: plain tables, and roots for their leaves.
    pub(super) fn published(&self) -> Vec<&SourceTable> {
        self.list
            .iter()
            .filter(|table| matches!(table.kind, Kind::Plain | Kind::Partitioned) && table.name == table.root)
            .collect()
    }
}

const TABLES: &str = "SELECT n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind, c.relpersistence::text AS persistence, \
    pg_has_role(c.relowner, 'USAGE') AS is_owned, \
    EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') AS of_extension, \
    c.relreplident = 'f' OR pg_get_replica_identity_index(c.oid) IS NOT NULL AS has_identity, \
    (SELECT ic.relname::text FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid \
       WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL \
       AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull) \
       ORDER BY i.indisprimary DESC, i.indnatts, ic.relname LIMIT 1) AS unique_index, \
    has_table_privilege(c.oid, 'SELECT') AS may_read, has_schema_privilege(n.oid, 'USAGE') AS may_use_schema, \
    row_security_active(c.oid) AS has_policies, rn.nspname::text AS root_schema, rc.relname::text AS root_name \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_class rc ON rc.oid = ROOT JOIN pg_namespace rn ON rn.oid = rc.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'm', 'f') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' \
    AND n.nspname NOT IN ('information_schema', 'walferry') ORDER BY 1, 2";

/// The root of a partition, with and without the function of 12.
fn tables_sql(version: i32) -> String {
    let root = if version >= 120_000 {
        "coalesce(pg_partition_root(c.oid), c.oid)"
    } else {
        "(WITH RECURSIVE up AS (SELECT c.oid AS oid, 0 AS depth UNION ALL \
          SELECT i.inhparent, up.depth + 1 FROM up JOIN pg_inherits i ON i.inhrelid = up.oid WHERE c.relispartition) \
          SELECT up.oid FROM up ORDER BY depth DESC LIMIT 1)"
    };
    TABLES.replace("ROOT", root)
}

impl SourceTable {
    fn of(row: &Row) -> Self {
        let text = |column: &str| row.get::<_, String>(column);
        let kind = match (text("kind").as_str(), text("persistence").as_str()) {
            ("p", _) => Kind::Partitioned,
            ("m", _) => Kind::MaterializedView,
            ("f", _) => Kind::Foreign,
            (_, "u") => Kind::Unlogged,
            _ => Kind::Plain,
        };
        SourceTable {
            name: TableName::new(text("schema"), text("name")),
            root: TableName::new(text("root_schema"), text("root_name")),
            kind,
            is_owned: row.get("is_owned"),
            is_of_extension: row.get("of_extension"),
            has_identity: row.get("has_identity"),
            unique_index: row.get("unique_index"),
            may_read: row.get("may_read"),
            may_use_schema: row.get("may_use_schema"),
            has_policies: row.get("has_policies"),
        }
    }
}

pub(super) async fn check(
    settings: &Settings,
    role: &Role,
    session: &Session,
    findings: &mut Findings,
) -> Result<Tables, CheckError> {
    let sql = tables_sql(session.version());
    let rows = session.query(&sql, &[]).await.during(Side::Source, "list the tables")?;
    let all: Vec<SourceTable> = rows.iter().map(SourceTable::of).collect();
    // A leaf takes part when its root is included, unless it is left out itself.
    let takes_part = |table: &SourceTable| {
        let by_root = settings.filter.includes(&table.root) && !settings.filter.excludes_explicitly(&table.name);
        settings.filter.includes(&table.name) || by_root
    };
    let publishes_all =
        role.is_superuser && settings.filter.is_empty() && matches!(settings.publication, Provenance::Ours(_));
    // FOR ALL TABLES publishes the tables of extensions as well.
    let published: Vec<&SourceTable> = all
        .iter()
        .filter(|table| table.kind == Kind::Plain && takes_part(table) && (publishes_all || !table.is_of_extension))
        .collect();
    replica_identity(&published, findings);
    let list: Vec<SourceTable> = all.iter().filter(|t| takes_part(t) && !t.is_of_extension).cloned().collect();
    reading(&list, role, findings);
    Ok(Tables { list })
}

fn replica_identity(published: &[&SourceTable], findings: &mut Findings) {
    let bare: Vec<&&SourceTable> = published.iter().filter(|table| !table.has_identity).collect();
    if bare.is_empty() {
        let message = format!("all {} tables have a replica identity", published.len());
        return findings.ok(Side::Source, "replica_identity", message);
    }
    let listed: Vec<&TableName> = bare.iter().map(|table| &table.name).collect();
    let finding = findings.problem(
        Side::Source,
        "replica_identity",
        format!(
            "{} tables have no replica identity, and once they are published the application's UPDATE and DELETE on them would fail: {}",
            bare.len(),
            names(&listed)
        ),
    );
    finding.remedy("let their owner run this (each waits for the table's transactions to end), or leave them out with --exclude-tables:");
    for table in bare {
        finding.sql(match &table.unique_index {
            Some(index) => format!("ALTER TABLE {} REPLICA IDENTITY USING INDEX {};", table.name.sql(), ident(index)),
            None => format!("ALTER TABLE {} REPLICA IDENTITY FULL;", table.name.sql()),
        });
    }
}

/// Rows are read from plain tables; pg_dump locks every kind, which needs
/// SELECT as well.
fn reading(list: &[SourceTable], role: &Role, findings: &mut Findings) {
    let user = ident(&role.name);
    let unreadable: Vec<&SourceTable> = list.iter().filter(|table| !(table.may_read && table.may_use_schema)).collect();
    if unreadable.is_empty() {
        findings.ok(Side::Source, "select", format!("role {} may read all {} tables", role.name, list.len()));
    } else {
        let listed: Vec<&TableName> = unreadable.iter().map(|table| &table.name).collect();
        let finding = findings.problem(
            Side::Source,
            "select",
            format!("role {} may not read {} tables: {}", role.name, unreadable.len(), names(&listed)),
        );
        finding.remedy("let their owner run this:");
        let mut schemas: Vec<&str> =
            unreadable.iter().filter(|t| !t.may_use_schema).map(|t| t.name.schema.as_str()).collect();
        schemas.dedup();
        for schema in schemas {
            finding.sql(format!("GRANT USAGE ON SCHEMA {} TO {user};", ident(schema)));
        }
        for table in unreadable.iter().filter(|table| !table.may_read) {
            finding.sql(format!("GRANT SELECT ON {} TO {user};", table.name.sql()));
        }
    }
    let hidden: Vec<&TableName> = list.iter().filter(|table| table.has_policies).map(|table| &table.name).collect();
    if !hidden.is_empty() {
        findings
            .problem(
                Side::Source,
                "row_security",
                format!(
                    "row security hides rows of {} tables from role {}: {}",
                    hidden.len(),
                    role.name,
                    names(&hidden)
                ),
            )
            .remedy("let a superuser run this, or use a role that has BYPASSRLS:")
            .sql(format!("ALTER ROLE {user} BYPASSRLS;"));
    }
}
