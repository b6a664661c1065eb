//! The tables that take part: replica identity, the right to read, policies;
//! the filter's patterns, and what would stay behind for its schema's name.

use std::collections::{HashMap, HashSet};

use super::{CheckError, Findings, known};
use crate::catalog::publication::{self, AllTables, Published};
use crate::catalog::roles::Role;
use crate::catalog::strangers;
use crate::catalog::tables::{self, Detail, OtherKind, Persistence, Rights, Shape};
use crate::config::{PublishWhat, Settings, Side};
use crate::membership::{self, Part, SourceTable, publishing};
use crate::schema;
use crate::session::Session;
use crate::sql::{TableName, ident};
use crate::state::resume::Standing;
use crate::state::{SCHEMA, TABLES};
use crate::words;

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

/// A table that takes part.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) name: TableName,
    pub(super) kind: Kind,
    rights: Rights,
}

/// The tables of the source.
pub(super) struct Tables {
    /// Those that take part, with what is no table of rows.
    pub(super) list: Vec<Listed>,
    /// All tables of rows, with what each is to the migration.
    pub(super) all: Vec<SourceTable>,
}

impl Tables {
    /// Those of a kind that take part.
    pub(super) fn of(&self, kind: Kind) -> impl Iterator<Item = &Listed> {
        self.list.iter().filter(move |table| table.kind == kind)
    }
}

pub(super) async fn check(
    settings: &Settings,
    (role, standing): (&Role, Option<&Standing>),
    session: &Session,
    findings: &mut Findings,
) -> Result<Tables, CheckError> {
    let mut all = membership::read(session, &settings.filter, known(standing), Detail::Outline).await?;
    let others = tables::others(session).await?;
    match standing.filter(|standing| standing.is_set_up()) {
        Some(standing) => all = listed(all, standing, findings),
        None => {
            let left = strangers::relations(session, SCHEMA, &TABLES).await?;
            let names = others.iter().map(|other| &other.name).chain(left.iter().map(|(name, _)| name));
            patterns(settings, &all, &names.cloned().collect::<Vec<_>>(), findings);
            in_the_states_schema(settings, &left, findings);
        }
    }
    part(&all, findings);
    without_root(&all, findings);
    let with_kind = |table: &SourceTable| {
        let kind = match (table.shape, table.persistence) {
            (Shape::Partitioned, _) => Kind::Partitioned,
            (Shape::Plain, Persistence::Unlogged) => Kind::Unlogged,
            (Shape::Plain, Persistence::Permanent) => Kind::Plain,
        };
        Listed { name: table.name.clone(), kind, rights: table.rights }
    };
    let takes_part = all.iter().filter(|table| table.takes_part());
    let mut list: Vec<Listed> = takes_part.map(with_kind).collect();
    let included = others.into_iter().filter(|other| schema::comes(&settings.filter, other));
    list.extend(included.filter_map(|other| {
        let kind = match other.kind {
            OtherKind::MaterializedView => Kind::MaterializedView,
            OtherKind::ForeignTable => Kind::Foreign,
            OtherKind::View | OtherKind::Sequence => return None,
        };
        Some(Listed { name: other.name, kind, rights: other.rights })
    }));
    let publishes = match settings.publish {
        PublishWhat::AllTables => AllTables::Yes,
        PublishWhat::Listed => AllTables::No,
    };
    let published = publication::tables(session, settings.publications.names()).await?;
    replica_identity(&all, (publishes, &published), findings);
    reading(&list, role, findings);
    Ok(Tables { list, all })
}

/// The tables of a migration that has its list: another one is not its business
/// until it is added.
fn listed(all: Vec<SourceTable>, standing: &Standing, findings: &mut Findings) -> Vec<SourceTable> {
    let grown = membership::let_in(&all);
    if !standing.copied && !grown.is_empty() {
        let message =
            format!("the filter left {} out when the copy began, and does not any more", words::listed(&grown));
        findings
            .problem(Side::Source, "tables", message)
            .remedy("leave the filter as it was until the copy is complete; walferry add takes them in then");
    }
    let (listed, new): (Vec<_>, Vec<_>) = all.into_iter().partition(|t| standing.tables.contains_key(&t.oid));
    let new: Vec<&TableName> = new.iter().filter(|t| t.part == Part::Included).map(|t| &t.name).collect();
    if !new.is_empty() {
        let message = format!("created on the source after the copy had its list of tables: {}", words::listed(&new));
        findings
            .warning(Side::Source, "tables", message)
            .remedy("see \"The schema changed on the source\" in the README: walferry add brings a table over");
    }
    listed
}

/// A pattern that fits nothing is a slip: what was meant would stay behind, or
/// come along.
fn patterns(settings: &Settings, all: &[SourceTable], others: &[TableName], findings: &mut Findings) {
    let unmatched = membership::unmatched(&settings.filter, all, others);
    if unmatched.is_empty() && !settings.filter.is_empty() && !all.iter().any(SourceTable::takes_part) {
        findings
            .problem(Side::Source, "patterns", "--tables and --exclude-tables leave not a single table of the source")
            .remedy("name a table, or a schema with tables; patterns fit views and sequences as well");
    }
    for unmatched in unmatched {
        findings
            .problem(Side::Source, "patterns", unmatched.to_string())
            .remedy("outside double quotes letters fold to lower case; a table of another schema is schema.table");
    }
}

/// A schema of the name that the state has is never carried. What an earlier migration
/// to this server has left there need not be.
fn in_the_states_schema(settings: &Settings, left: &[(TableName, String)], findings: &mut Findings) {
    let left: Vec<&(TableName, String)> = left.iter().filter(|(name, _)| settings.filter.includes(name)).collect();
    if left.is_empty() {
        return;
    }
    let names: Vec<&TableName> = left.iter().map(|(name, _)| name).collect();
    let would = if left.len() == 1 { "this would stay behind" } else { "these would stay behind" };
    let message = format!(
        "the schema {SCHEMA} is the state's on the target and is not carried, so {would}: {}",
        words::listed(&names)
    );
    let finding = findings.problem(Side::Source, "schema", message);
    finding.remedy("give them another schema, or leave them behind with --exclude-tables 'walferry.*':");
    for (name, alter) in left {
        finding.sql(format!("{alter} {} SET SCHEMA public;", name.sql()));
    }
}

/// A partition that takes part while the table above it does not.
fn without_root(all: &[SourceTable], findings: &mut Findings) {
    let left_out: HashSet<u32> = all.iter().filter(|t| t.part == Part::Filtered).map(|t| t.oid).collect();
    let alone = all.iter().filter(|table| {
        table.part == Part::Included && table.ancestors.first().is_some_and(|parent| left_out.contains(&parent.oid))
    });
    let alone: Vec<&TableName> = alone.map(|table| &table.name).collect();
    if !alone.is_empty() {
        findings.warning(
            Side::Source,
            "partitions",
            format!("these partitions take part without the table that they are partitions of, and become tables of their own: {}", words::listed(&alone)),
        );
    }
}

/// What takes part, and what the filter leaves out.
fn part(all: &[SourceTable], findings: &mut Findings) {
    let of = |parts: &[Part]| -> Vec<TableName> {
        all.iter().filter(|table| parts.contains(&table.part)).map(|table| table.name.clone()).collect()
    };
    let (tables, left_out) = (of(&[Part::Included, Part::Unlogged]), of(&[Part::Filtered]));
    let take = if tables.len() == 1 { "takes" } else { "take" };
    let mut message = format!("{} {take} part", words::count(tables.len(), "table"));
    if !left_out.is_empty() {
        message.push_str(&format!("; the filter leaves out {}: {}", left_out.len(), words::listed(&left_out)));
    }
    findings.ok(Side::Source, "tables", message);
    findings.take_part(tables);
}

fn replica_identity(
    all: &[SourceTable],
    (publishes, published): (AllTables, &HashMap<u32, Published>),
    findings: &mut Findings,
) {
    let bare = publishing::without_identity(all, publishes, published);
    if bare.is_empty() {
        let count = all.iter().filter(|t| t.part == Part::Included && t.shape == Shape::Plain).count();
        let have = if count == 1 { "has" } else { "have" };
        let message = format!("{} {have} a replica identity", words::all(count, "table"));
        return findings.ok(Side::Source, "replica_identity", message);
    }
    let listed: Vec<&TableName> = bare.iter().map(|(table, _)| &table.name).collect();
    let have = if bare.len() == 1 { "table has" } else { "tables have" };
    let it = if bare.len() == 1 { "it is" } else { "they are" };
    let finding = findings.problem(
        Side::Source,
        "replica_identity",
        format!(
            "{} {have} no replica identity, and once {it} published the application's UPDATE and DELETE there would fail: {}",
            bare.len(),
            words::listed(&listed)
        ),
    );
    let instead = match bare.iter().all(|(table, _)| table.part == Part::Included) {
        true => "use --exclude-tables",
        false => "do without --all-tables, which publishes also what is left out",
    };
    finding.remedy(format!("let the owner run this (it waits for the table's transactions to end), or {instead}:"));
    for (_, sql) in bare {
        finding.sql(sql);
    }
}

/// Rows are read from plain tables; pg_dump locks every kind, which needs
/// SELECT as well.
fn reading(list: &[Listed], role: &Role, findings: &mut Findings) {
    let user = ident(&role.name);
    let is_unreadable = |table: &&Listed| !table.rights.reads();
    let unreadable: Vec<&Listed> = list.iter().filter(is_unreadable).collect();
    if unreadable.is_empty() {
        findings.ok(Side::Source, "select", format!("role {} may read {}", role.name, words::all(list.len(), "table")));
    } else {
        let listed: Vec<&TableName> = unreadable.iter().map(|table| &table.name).collect();
        let finding = findings.problem(
            Side::Source,
            "select",
            format!("role {} may not read {} of the tables: {}", role.name, unreadable.len(), words::listed(&listed)),
        );
        finding.remedy("let their owner run this:");
        let tables = unreadable.iter().map(|table| (&table.name, table.rights));
        for sql in tables::reading_sql(tables, &role.name) {
            finding.sql(sql);
        }
    }
    let hidden: Vec<&TableName> =
        list.iter().filter(|table| table.rights.has_policies).map(|table| &table.name).collect();
    if !hidden.is_empty() {
        let message = format!(
            "row security hides rows of {} of the tables from role {}: {}",
            hidden.len(),
            role.name,
            words::listed(&hidden)
        );
        findings
            .problem(Side::Source, "row_security", message)
            .remedy("let a superuser run this, or use a role that has BYPASSRLS:")
            .sql(format!("ALTER ROLE {user} BYPASSRLS;"));
    }
}
