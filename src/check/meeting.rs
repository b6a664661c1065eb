//! What both ends are asked for together: whether existing tables fit, oids of
//! large objects, the order of text, what belongs to the database itself, rows of
//! extensions.
//!
//! Invariant: the questions are `run`'s own functions, asked before anything is
//! created.

use std::collections::{BTreeSet, HashMap, HashSet};

use tokio_postgres::types::Type;

use super::{CheckError, Findings, known, landing};
use crate::catalog::bounds::{are_alike, bounds as by_bounds, hashed_by_oid};
use crate::catalog::extensions::{self, ConfigTable, config_tables};
use crate::catalog::tables::{Column, Detail, Found, Shape, by_name, list};
use crate::catalog::{database, large_objects, publication, roles};
use crate::config::{SchemaMode, Settings, Side};
use crate::fault::sqlstate;
use crate::membership::apart::{Apart, apart};
use crate::membership::placement::Hierarchy;
use crate::membership::{self, Part, SourceTable, publishing};
use crate::schema::tables;
use crate::schema::{self, SchemaError};
use crate::session::{DbContext, Session};
use crate::sql::{TableName, ident};
use crate::state::resume::Standing;
use crate::sweep::{extension_rows, sequences};
use crate::words;

pub(super) async fn check(
    settings: &Settings,
    standing: Option<&Standing>,
    (source, target): (&Session, &Session),
    findings: &mut Findings,
) -> Result<(), CheckError> {
    order_of_text(source, target, findings).await?;
    hashed(settings, standing, (source, target), findings).await?;
    if standing.is_some_and(Standing::is_set_up) {
        return Ok(());
    }
    taken_oids(source, target, findings).await?;
    xml(settings, standing, (source, target), findings).await?;
    rows_of_extensions(settings, source, target, findings).await?;
    match (settings.schema, standing.is_some_and(|standing| standing.schema_restored)) {
        (SchemaMode::Create, false) => {
            extensions_elsewhere(source, target, findings).await?;
            of_database(settings, source, target, findings).await
        }
        // An attempt that was cut off before it had its list of tables has made them.
        (SchemaMode::Create, true) | (SchemaMode::Existing | SchemaMode::None, _) => {
            bounds(settings, standing, (source, target), findings).await?;
            sequences(settings, standing, (source, target), findings).await?;
            fit(settings, standing, (source, target), findings).await
        }
    }
}

/// Rows that come in a partition's own name are refused by the target's partition of that name,
/// where a hash parts them otherwise on each server.
async fn hashed(
    settings: &Settings,
    standing: Option<&Standing>,
    (source, target): (&Session, &Session),
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let side = match settings.schema {
        SchemaMode::Create => source,
        SchemaMode::Existing | SchemaMode::None => target,
    };
    let roots: HashSet<TableName> = hashed_by_oid(side).await?.into_values().collect();
    if roots.is_empty() {
        return Ok(());
    }
    let published = publication::tables(source, settings.publications.names()).await?;
    let all = membership::read(source, &settings.filter, known(standing), Detail::Outline).await?;
    let is_included = |table: &&SourceTable| table.part == Part::Included && table.shape == Shape::Plain;
    let in_own_name =
        all.iter().filter(is_included).filter(|table| publishing::root_in_name(&published, table).is_none());
    let above = in_own_name.flat_map(|table| table.ancestors.iter().map(|above| &above.name));
    let named: BTreeSet<&TableName> = above.filter(|name| roots.contains(*name)).collect();
    if named.is_empty() {
        return Ok(());
    }
    let message = format!(
        "rows are parted by a hash of what has another oid on each server (an enum's label), so that partitions of the target \
         would refuse them: {}",
        words::listed(&named.iter().copied().collect::<Vec<_>>())
    );
    let finding = findings.problem(Side::Source, "hash", message);
    if source.version() < 130_000 {
        finding
            .remedy("leave them out with --exclude-tables: before PostgreSQL 13 rows cannot come in the root's name");
        return Ok(());
    }
    // Each table, and of partitioned ones the topmost.
    let entry = |table: &SourceTable| match table.ancestors.last() {
        Some(root) => root.name.sql(),
        None => format!("ONLY {}", table.name.sql()),
    };
    let entries: BTreeSet<String> = all.iter().filter(is_included).map(entry).collect();
    let name = format!("{}_rooted", settings.name);
    finding
        .remedy(format!(
            "have their rows come in the root's name, so that the target parts them: let the owner run this, and say --publication {name}; \
             or leave them out with --exclude-tables:"
        ))
        .sql(format!(
            "CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true);",
            ident(&name),
            entries.into_iter().collect::<Vec<_>>().join(", ")
        ));
    Ok(())
}

/// Rows that come in a partition's own name go into the target's table of that name,
/// whatever that is a partition of.
async fn bounds(
    settings: &Settings,
    standing: Option<&Standing>,
    (source, target): (&Session, &Session),
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let (here, there) = (by_bounds(source).await?, by_bounds(target).await?);
    let published = publication::tables(source, settings.publications.names()).await?;
    let all = membership::read(source, &settings.filter, known(standing), Detail::Outline).await?;
    let members: HashSet<u32> =
        all.iter().filter(|table| table.part == Part::Included).map(|table| table.oid).collect();
    let comes_as_root = |oid: u32| !published.is_empty() && !published.contains_key(&oid);
    let differs = |name: &TableName, oid: u32, bound: &str| {
        let other = there.get(name).filter(|(_, other)| !are_alike(other, bound));
        other.is_some() && members.contains(&oid) && !comes_as_root(oid)
    };
    let mut names: Vec<&TableName> =
        here.iter().filter(|(name, (oid, bound))| differs(name, *oid, bound)).map(|(name, _)| name).collect();
    names.sort();
    if !names.is_empty() {
        let message = format!(
            "partitions have other bounds than on the source, so that rows may be refused: {}",
            words::listed(&names)
        );
        findings
            .warning(Side::Target, "bounds", message)
            .remedy("give them the same bounds, or publish with publish_via_partition_root: then it is the target that parts the rows");
    }
    let apart = apart(&all, &published, &list(target, Detail::Outline).await?);
    if !apart.is_empty() {
        let named = |one: &Apart| format!("{} of {}", one.table, one.parent);
        let message = format!(
            "tables are partitions or children of others on the source and not here, so that those have fewer rows here: {}",
            words::listed(&apart.iter().map(named).collect::<Vec<_>>())
        );
        let finding = findings.warning(Side::Target, "apart", message);
        finding.remedy("unless that is on purpose, let their owner run this, before the migration ends:");
        apart.into_iter().filter_map(|one| one.sql).for_each(|sql| {
            finding.sql(sql);
        });
    }
    Ok(())
}

/// Rows are compared and found by equality, which is the same everywhere, and
/// indexes are built anew; bounds of partitions are not.
async fn order_of_text(source: &Session, target: &Session, findings: &mut Findings) -> Result<(), CheckError> {
    let (here, there) = (database::read(source).await?, database::read(target).await?);
    if here.locale == there.locale {
        findings.ok(Side::Target, "collation", format!("both databases sort text alike ({})", here.locale));
        return Ok(());
    }
    let sorted = database::sorted_partitions(source).await?;
    let mut message = format!(
        "text sorts differently: the source's database is {}, the target's {}; queries and checks that compare text may answer differently",
        here.locale, there.locale
    );
    if !sorted.is_empty() {
        message.push_str(&format!(
            "; and rows may not fit the partitions they are in, which are ranges of text: {}",
            words::listed(&sorted)
        ));
    }
    findings
        .warning(Side::Target, "collation", message)
        .remedy("create the target's database with the source's locale (CREATE DATABASE … TEMPLATE template0 …)");
    Ok(())
}

/// A server that was built without libxml creates columns of this type, and takes no
/// value for them.
async fn xml(
    settings: &Settings,
    standing: Option<&Standing>,
    (source, target): (&Session, &Session),
    findings: &mut Findings,
) -> Result<(), CheckError> {
    match target.query_one("SELECT '<a/>'::pg_catalog.xml::text", &[]).await {
        Err(error) if error.code().is_some_and(|code| code.code() == sqlstate::FEATURE_NOT_SUPPORTED) => {}
        result => return Ok(result.map(drop).during(Side::Target, "try an xml value")?),
    }
    let all = membership::read(source, &settings.filter, known(standing), Detail::Columns).await?;
    let is_xml = |column: &Column| [Type::XML.oid(), Type::XML_ARRAY.oid()].contains(&column.below.oid);
    let takes_part = all.iter().filter(|table| table.takes_part());
    let names: Vec<&TableName> =
        takes_part.filter(|table| table.columns.iter().any(is_xml)).map(|table| &table.name).collect();
    if !names.is_empty() {
        let message = format!(
            "the server was built without libxml and takes no xml value; there are columns of this type: {}",
            words::listed(&names)
        );
        findings
            .problem(Side::Target, "xml", message)
            .remedy("use a server that was built with libxml, or leave these tables out with --exclude-tables");
    }
    Ok(())
}

async fn taken_oids(source: &Session, target: &Session, findings: &mut Findings) -> Result<(), CheckError> {
    let taken = large_objects::in_both(source, target).await?;
    if !taken.is_empty() {
        let count = u64::try_from(taken.len()).unwrap_or(u64::MAX);
        let finding = findings.problem(
            Side::Target,
            "large_objects",
            format!(
                "large objects of the source's oids are on the target already: {}",
                words::listed_of(&taken, count)
            ),
        );
        finding.remedy("if they are not needed there:");
        finding.sql(format!("SELECT lo_unlink(oid) FROM unnest(ARRAY{taken:?}) AS oid;"));
    }
    Ok(())
}

/// A run carries the other sequences, and only its end wants all.
async fn sequences(
    settings: &Settings,
    standing: Option<&Standing>,
    (source, target): (&Session, &Session),
    findings: &mut Findings,
) -> Result<(), CheckError> {
    for problem in sequences::foreseen(source, target, &settings.filter, known(standing)).await? {
        findings
            .warning(Side::Target, "sequences", format!("sequence {problem}"))
            .remedy("a run carries the others, and catchup cannot end before this is mended");
    }
    Ok(())
}

/// Existing tables, by the same functions as the run's.
async fn fit(
    settings: &Settings,
    standing: Option<&Standing>,
    (source, target): (&Session, &Session),
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let all = membership::read(source, &settings.filter, known(standing), Detail::Columns).await?;
    let published = landing::published(settings, source).await?;
    let all = match &published {
        Some(published) => publishing::with_published_columns(all, published),
        None => all,
    };
    let ours = publishing::landing(&all, published.as_ref(), settings.schema);
    let there: HashMap<TableName, Found> = by_name(target, ours.iter().map(|t| &t.name)).await?;
    // Those that are not there are named with the tables.
    let present = || ours.iter().copied().filter(|table| there.contains_key(&table.name));
    let mut unfit =
        schema::types::unfit(present(), &there, (source, target), (&HashMap::new(), Hierarchy::of(settings.schema)))
            .await?;
    if let Err(SchemaError::Mismatch(lines)) = tables::require_fit(present(), &there, Hierarchy::of(settings.schema)) {
        unfit.splice(..0, lines);
    }
    if !unfit.is_empty() {
        let finding = findings.problem(Side::Target, "columns", "tables of the target do not fit those of the source");
        finding.remedy("let their owner run this there:");
        unfit.into_iter().for_each(|line| {
            finding.sql(line);
        });
    }
    let has = |table: &SourceTable, column: &str| {
        there.get(&table.name).is_some_and(|found| found.columns.iter().any(|c| c.name == column && !c.is_generated()))
    };
    for lack in publishing::columns_lacking(published.as_ref().unwrap_or(&HashMap::new()), &all, has) {
        findings
            .problem(
                Side::Source,
                "publication",
                format!("{}, which the target has", lack.said(&settings.publications)),
            )
            .remedy("let its owner mend it, or drop these columns on the target:")
            .sql(lack.sql());
    }
    for difference in tables::differences(present(), &there) {
        findings.warning(Side::Target, "columns", difference);
    }
    Ok(())
}

/// What names an extension's objects, names them in the schema that they have on the
/// source.
async fn extensions_elsewhere(source: &Session, target: &Session, findings: &mut Findings) -> Result<(), CheckError> {
    let there = extensions::list(target).await?;
    for here in extensions::list(source).await? {
        let Some(there) = there.iter().find(|there| there.name == here.name && there.schema != here.schema) else {
            continue;
        };
        let (name, schema) = (ident(&here.name), ident(&here.schema));
        let message = format!(
            "extension {} is in schema {} on the source and in {} on the target, where nothing that names its objects finds them",
            here.name, here.schema, there.schema
        );
        let finding = findings.warning(Side::Target, "extensions", message);
        finding.remedy("let its owner run this before the migration:");
        if there.is_relocatable {
            finding.sql(format!("CREATE SCHEMA IF NOT EXISTS {schema}; ALTER EXTENSION {name} SET SCHEMA {schema};"));
        } else {
            finding.sql(format!("DROP EXTENSION {name}; -- walferry creates it in {schema}"));
        }
    }
    Ok(())
}

/// Settings, comment and privileges of the database.
async fn of_database(
    settings: &Settings,
    source: &Session,
    target: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let found = match schema::database::read(settings, source, target).await {
        Ok(found) => found,
        Err(SchemaError::Db(error)) => return Err(error.into()),
        Err(error) => {
            findings.problem(Side::Target, "database", error.to_string());
            return Ok(());
        }
    };
    if !found.ours.is_empty() {
        let listed: Vec<&str> = found.ours.iter().map(|object| object.object.as_str()).collect();
        findings.ok(
            Side::Target,
            "database",
            format!("comes at the end (catchup --finish): {}", words::listed(&listed)),
        );
    }
    if !found.administrators.is_empty() {
        let words: Vec<&str> = found.administrators.iter().map(|(_, words)| words.as_str()).collect();
        let message = format!("properties of the source's database stay behind: {}", words::listed(&words));
        let finding = findings.warning(Side::Target, "database", message);
        finding.remedy("let an administrator run this at the end:");
        for (sql, _) in &found.administrators {
            finding.sql(sql.clone());
        }
    }
    Ok(())
}

/// Configuration tables of extensions: what may not be read or written is named.
async fn rows_of_extensions(
    settings: &Settings,
    source: &Session,
    target: &Session,
    findings: &mut Findings,
) -> Result<(), CheckError> {
    let ours = extension_rows::of_source(settings, source).await?;
    if ours.is_empty() {
        return Ok(());
    }
    let there = config_tables(target).await?;
    let denied = |table: &&ConfigTable| there.iter().any(|other| other.table == table.table && !other.may_write);
    let unread: Vec<&TableName> = ours.iter().filter(|table| !table.may_read).map(|table| &table.table).collect();
    let unwritten: Vec<&TableName> = ours.iter().filter(denied).map(|table| &table.table).collect();
    for (side, tables, rights) in
        [(Side::Source, unread, "SELECT"), (Side::Target, unwritten, "SELECT, INSERT, DELETE")]
    {
        if tables.is_empty() {
            continue;
        }
        let finding = findings.warning(
            side,
            "extension_rows",
            format!(
                "rows that belong to extensions stay behind, as the role may not reach them: {}",
                words::listed(&tables)
            ),
        );
        finding.remedy("let an administrator run this:");
        let role = roles::current(if side == Side::Source { source } else { target }).await?.name;
        for table in tables {
            finding.sql(format!("GRANT USAGE ON SCHEMA {} TO {};", ident(&table.schema), ident(&role)));
            finding.sql(format!("GRANT {rights} ON {} TO {};", table.sql(), ident(&role)));
        }
    }
    let listed: Vec<&TableName> = ours.iter().map(|table| &table.table).collect();
    findings.ok(Side::Source, "extension_rows", format!("rows of extensions come along: {}", words::listed(&listed)));
    Ok(())
}
