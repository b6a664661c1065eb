//! What is copied: every published table with its columns, its format and what
//! is built on it afterwards.
//!
//! Invariant: the plan is read in the snapshot, so it holds exactly the tables
//! whose rows the snapshot has; every table of the source is registered in the
//! state, so that the stream knows each.

use std::collections::{HashMap, HashSet};

use super::{CopyContext, CopyError};
use crate::config::SchemaMode;
use crate::schema::tables::{self, Part, Shape, SourceTable, TargetTable};
use crate::session::{DbContext, DbError, Session};
use crate::sql::{TableName, ident};
use crate::state::State;
use crate::state::deferred::{Deferred, DeferredKind};
use crate::state::tables::{TableRow, TableState};

/// How rows are written on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Exact across versions and types.
    Text,
    /// Where every column has the same built-in type on both sides.
    Binary,
}

/// One table's copy.
#[derive(Debug)]
pub(super) struct Job {
    /// The table on both sides.
    pub(super) table: TableName,
    /// Its oid on the source.
    pub(super) source_oid: u32,
    /// Size on the source's disk, in bytes.
    pub(super) bytes: u64,
    /// How the rows are written.
    pub(super) format: Format,
    /// The COPY … TO on the source.
    pub(super) copy_out: String,
    /// The COPY … FROM on the target.
    pub(super) copy_in: String,
    /// Indexes and keys that are built after the rows, in order.
    pub(super) objects: Vec<Deferred>,
}

/// The whole copy.
#[derive(Debug)]
pub(super) struct Plan {
    /// Tables, largest first.
    pub(super) jobs: Vec<Job>,
    /// Objects of no single table, or of partitioned ones: built when all
    /// tables are there, in order.
    pub(super) last: Vec<Deferred>,
}

/// What the publication says about one table.
struct Published {
    columns: Option<Vec<String>>,
    row_filter: Option<String>,
}

/// Makes the plan, empties tables that an attempt cut off had begun, and
/// registers all tables.
///
/// # Errors
/// When tables of the target are missing, do not fit, or hold rows.
pub(super) async fn make(
    ctx: &CopyContext<'_>,
    source: &Session,
    target: &Session,
    tables: &[SourceTable],
) -> Result<Plan, CopyError> {
    let published = published(source, ctx.settings.publication.name()).await?;
    let units: Vec<&SourceTable> =
        tables.iter().filter(|t| t.part == Part::Included && published.contains_key(&t.name)).collect();
    let there = tables::of_target(target, units.iter().map(|unit| &unit.name)).await?;
    tables::require_fit(units.iter().copied(), &there)?;
    start_over(ctx, target, tables, &units).await?;
    let names: Vec<&TableName> = units.iter().map(|unit| &unit.name).collect();
    tables::require_empty(target, &names).await?;
    let objects = ctx.state.deferred().await?;
    let waiting = objects.into_iter().filter(|o| o.kind == DeferredKind::AfterRows && !o.is_restored);
    let alone: HashSet<&TableName> =
        units.iter().filter(|unit| unit.shape == Shape::Plain).map(|unit| &unit.name).collect();
    let (of_tables, last): (Vec<Deferred>, Vec<Deferred>) = waiting.partition(|o| alone.contains(&o.table));
    let mut by_table: HashMap<TableName, Vec<Deferred>> = HashMap::new();
    for object in of_tables {
        by_table.entry(object.table.clone()).or_default().push(object);
    }
    let mut jobs: Vec<Job> = units
        .iter()
        .filter_map(|unit| {
            let objects = by_table.remove(&unit.name).unwrap_or_default();
            Some(job(unit, published.get(&unit.name)?, there.get(&unit.name)?, objects))
        })
        .collect();
    jobs.sort_by_key(|job| std::cmp::Reverse(job.bytes));
    Ok(Plan { jobs, last })
}

async fn published(source: &Session, publication: &str) -> Result<HashMap<TableName, Published>, DbError> {
    let details = if source.version() >= 150_000 { "attnames::text[], rowfilter" } else { "NULL::text[], NULL::text" };
    let sql = format!(
        "SELECT schemaname::text, tablename::text, {details} FROM pg_catalog.pg_publication_tables WHERE pubname = $1::text"
    );
    let rows = source.query(&sql, &[&publication]).await.during(source.side(), "read what is published")?;
    let entry = |row: &tokio_postgres::Row| {
        let name = TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1));
        (name, Published { columns: row.get(2), row_filter: row.get(3) })
    };
    Ok(rows.iter().map(entry).collect())
}

/// Empties what an earlier attempt had begun, and registers all tables, in one
/// transaction. The foreign keys are not there yet, so a TRUNCATE of some
/// tables is possible.
async fn start_over(
    ctx: &CopyContext<'_>,
    target: &Session,
    tables: &[SourceTable],
    units: &[&SourceTable],
) -> Result<(), CopyError> {
    let begun: HashSet<TableName> = ctx
        .state
        .tables()
        .await?
        .into_iter()
        .filter(|row| !matches!(row.state, TableState::Waiting | TableState::Excluded))
        .map(|row| row.table)
        .collect();
    // An own session: others' statements must not fall into this transaction.
    let own = State::open(Session::connect(&ctx.settings.target, &ctx.settings.name).await?, ctx.state.name()).await?;
    let run = async |sql: String| own.session().batch_execute(&sql).await.during(target.side(), "start the copy over");
    run("BEGIN".to_owned()).await?;
    let empty: Vec<String> = units.iter().filter(|u| begun.contains(&u.name)).map(|u| u.name.sql()).collect();
    if !empty.is_empty() {
        tracing::info!(tables = empty.len(), "the copy was cut off: emptying what it had begun");
        run(format!("TRUNCATE {}", empty.join(", "))).await?;
    }
    let is_unit: HashSet<u32> = units.iter().map(|unit| unit.oid).collect();
    let rows: Vec<TableRow> = tables
        .iter()
        .filter(|table| table.part != Part::Included || is_unit.contains(&table.oid))
        .map(|table| TableRow {
            table: table.name.clone(),
            source_oid: table.oid,
            state: if is_unit.contains(&table.oid) { TableState::Waiting } else { TableState::Excluded },
            rows: 0,
            bytes: 0,
            snapshot_lsn: None,
        })
        .collect();
    own.register_tables(&rows).await?;
    run("COMMIT".to_owned()).await?;
    for state in ["copying", "indexing", "ready"] {
        ctx.metrics.tables.with_label_values(&[state]).set(0);
    }
    ctx.metrics.tables.with_label_values(&["waiting"]).set(i64::try_from(units.len()).unwrap_or(i64::MAX));
    if ctx.settings.schema == SchemaMode::None {
        tracing::info!(
            "the schema on the target is taken as it is; its triggers fire and its foreign keys are checked"
        );
    }
    Ok(())
}

fn job(unit: &SourceTable, published: &Published, there: &TargetTable, objects: Vec<Deferred>) -> Job {
    let is_generated = |name: &str| there.columns.iter().any(|c| c.name == name && c.is_generated);
    let columns: Vec<_> = unit
        .columns
        .iter()
        .filter(|c| !c.is_generated && !is_generated(&c.name))
        .filter(|c| published.columns.as_ref().is_none_or(|names| names.contains(&c.name)))
        .collect();
    let has_same_type = |name: &str, oid: u32| there.columns.iter().any(|t| t.name == name && t.type_oid == oid);
    let format = if columns.iter().all(|c| c.is_binary_safe && has_same_type(&c.name, c.type_oid)) {
        Format::Binary
    } else {
        Format::Text
    };
    let option = match format {
        Format::Binary => "binary",
        Format::Text => "text",
    };
    let names: Vec<String> = columns.iter().map(|c| ident(&c.name)).collect();
    let table = unit.name.sql();
    let list = names.join(", ");
    let only = if unit.shape == Shape::Plain { "ONLY " } else { "" };
    let rows = match (&published.row_filter, unit.shape) {
        (None, Shape::Plain) if !names.is_empty() => format!("{table} ({list})"),
        (filter, _) => {
            let condition = filter.as_ref().map(|filter| format!(" WHERE {filter}")).unwrap_or_default();
            format!("(SELECT {list} FROM {only}{table}{condition})")
        }
    };
    let into = if names.is_empty() { String::new() } else { format!(" ({list})") };
    Job {
        table: unit.name.clone(),
        source_oid: unit.oid,
        bytes: unit.bytes,
        format,
        copy_out: format!("COPY {rows} TO STDOUT (FORMAT {option})"),
        copy_in: format!("COPY {table}{into} FROM STDIN (FORMAT {option})"),
        objects,
    }
}
