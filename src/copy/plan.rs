//! What is copied: every published table with its columns, its format, its
//! parts, and what is built on it afterwards.
//!
//! Invariants: the tables of a migration are those that its first snapshot has and
//! something carries ([`register`]); a table that the source creates later is none of the copy's,
//! as all its rows come with the stream. How a table's rows are read is planned
//! in the snapshot they are read in, so a column that was added in between is
//! never left out ([`plans`]).

use std::collections::HashMap;
use std::sync::Arc;

use super::board::{Leftover, Seed};
use super::publication::require_its_rows;
use super::types::pair_types;
use super::{CopyContext, CopyError, parts};
use crate::catalog::publication::{self, Published};
use crate::catalog::tables::{Column, Found, Shape, by_name};
use crate::config::{Baseline, SchemaMode};
use crate::lsn::EndLsn;
use crate::membership::columns::{newest, pair_for_copy};
use crate::membership::coverage::origin;
use crate::membership::placement::Hierarchy;
use crate::membership::publishing::root_in_name;
use crate::membership::{self, Part, Rows, SourceTable, publishing};
use crate::schema::tables::{require_empty, require_fit};
use crate::schema::{self, without_stream};
use crate::session::{DbContext, DbError, Session};
use crate::sql::{TableName, ident};
use crate::state::copying::Attempt;
use crate::state::deferred::{Deferred, DeferredKind};
use crate::state::places::Former;
use crate::state::tables::{Origin, Pair, Pairs, TableRow, TableState};
use crate::sweep::sequences;
use crate::words::listed;

/// How rows are written on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Exact across versions and types.
    Text,
    /// Where every column has the same built-in type on both sides.
    Binary,
}

/// One table that is not complete yet.
#[derive(Debug)]
pub(super) struct Job {
    /// The table on both sides.
    pub(super) table: TableName,
    /// Its oid on the source.
    pub(super) source_oid: u32,
    /// Whether it holds rows itself.
    pub(super) shape: Shape,
    /// Size on the source's disk, in bytes.
    pub(super) bytes: u64,
    /// Where the state says it is.
    pub(super) seed: Seed,
    /// By which attempt.
    pub(super) attempt: Attempt,
    /// Indexes and keys that are built after the rows, in order.
    pub(super) objects: Vec<Deferred>,
}

impl Job {
    /// What its rows are read from.
    pub(super) fn unit(&self) -> (&TableName, u32, Shape) {
        (&self.table, self.source_oid, self.shape)
    }
}

/// How a table's rows are read under one of the snapshots that a stream goes on
/// from.
#[derive(Debug)]
pub(super) struct RowsPlan {
    /// The snapshot's number in this process.
    pub(super) generation: u64,
    /// The point that the snapshot stands for.
    pub(super) point: EndLsn,
    /// What the table is on the source in that snapshot.
    pub(super) origin: Origin,
    /// What is read, and how it is written.
    pub(super) copies: Copies,
}

/// The statements that a table's rows come with.
#[derive(Debug)]
pub(super) struct Copies {
    /// The table's oid on the source.
    pub(super) source_oid: u32,
    /// How the rows are written.
    pub(super) format: Format,
    /// The COPY … FROM on the target.
    pub(super) copy_in: String,
    /// The COPY … TO on the source, one a part; at least one.
    pub(super) parts: Vec<String>,
}

/// What a snapshot says about the tables whose rows are not there yet.
#[derive(Debug, Default)]
pub(super) struct Planned {
    /// Each table's place among the jobs, and its plan.
    pub(super) plans: Vec<(usize, Arc<RowsPlan>)>,
    /// Dropped on the source.
    pub(super) gone: Vec<usize>,
}

/// Makes sure that every published table of the first snapshot has its place
/// on the target, empty, and registers all tables.
///
/// # Errors
/// When tables of the target are missing, do not fit, or hold rows.
pub(super) async fn register(
    ctx: &CopyContext<'_>,
    source: &Session,
    target: &Session,
    tables: &[SourceTable],
) -> Result<(), CopyError> {
    let published = publication::tables(source, ctx.settings.publications.names()).await?;
    let tables = &in_time(tables, &published);
    let units: Vec<&SourceTable> =
        tables.iter().filter(|t| t.part == Part::Included && published.contains_key(&t.oid)).collect();
    let unlogged: Vec<&SourceTable> = without_stream::unlogged(tables).collect();
    let all = || units.iter().chain(&unlogged).copied();
    let there = by_name(target, tables.iter().filter(|table| table.takes_part()).map(|table| &table.name)).await?;
    require_fit(all(), &there, Hierarchy::of(ctx.settings.schema))?;
    let hierarchy = Hierarchy::of(ctx.settings.schema);
    schema::types::require_fit(all(), &there, (source, target), (&HashMap::new(), hierarchy)).await?;
    require_columns(ctx, &published, tables, &there)?;
    if ctx.settings.baseline == Baseline::Copied {
        // They are emptied at the end: nobody's rows may be lost by that.
        let names: Vec<&TableName> = unlogged.iter().map(|table| &table.name).collect();
        require_empty(target, &names).await?;
    }
    let rows: Vec<TableRow> = tables.iter().map(|table| entered(table, &published)).collect();
    // An own session: others' statements must not fall into this transaction.
    let own = ctx.state.beside(Session::connect(&ctx.settings.target, &ctx.settings.name).await?).await?;
    let run = async |sql| own.session().batch_execute(sql).await.during(target.side(), "register the tables");
    run("BEGIN").await?;
    own.register_tables(&rows).await?;
    own.pair_columns(&paired(
        tables.iter().filter(|table| table.takes_part()),
        &there,
        &HashMap::new(),
        Coming::AtFirst,
    ))
    .await?;
    pair_types(
        &own,
        tables.iter().filter(|table| table.takes_part()),
        &there,
        (source, target),
        Hierarchy::of(ctx.settings.schema),
    )
    .await?;
    sequences::pair(source, target, &own, &ctx.settings.filter).await?;
    own.record_filter(&ctx.settings.filter.to_string()).await?;
    without_stream::list(&own, source, tables, ctx.settings).await?;
    own.commit("register the tables").await?;
    if ctx.settings.schema == SchemaMode::None {
        tracing::info!("the schema on the target is taken as it is");
    }
    Ok(())
}

/// A table that was created between the publication and the slot is like one that is created
/// later: it has its place with the others, and waits for `walferry add`.
fn in_time(tables: &[SourceTable], published: &HashMap<u32, Published>) -> Vec<SourceTable> {
    let late = publishing::came_too_late(tables, published);
    tables.iter().filter(|table| !late.contains(&table.oid)).cloned().collect()
}

/// Those whose rows come in their own name, or in that of their partitions.
pub(super) async fn in_their_own_name(
    ctx: &CopyContext<'_>,
    source: &Session,
    tables: &[SourceTable],
) -> Result<Vec<SourceTable>, DbError> {
    let published = publication::tables(source, ctx.settings.publications.names()).await?;
    Ok(publishing::in_their_own_name(&in_time(tables, &published), &published).cloned().collect())
}

/// A table as the state is to have it: in its own name, if that is how its rows
/// come.
pub(super) fn entered(table: &SourceTable, published: &HashMap<u32, Published>) -> TableRow {
    let rows = if published.contains_key(&table.oid) { Rows::Own } else { Rows::OfOthers };
    let origin = origin(table, published);
    TableRow { origin, ..TableRow::new(table.name.clone(), table.oid, table.state(rows)) }
}

/// Those of `tables` that hold the rows as they are published: a partitioned
/// table or its partitions.
///
/// # Errors
/// When the catalog cannot be read.
pub(super) async fn units<'t>(
    ctx: &CopyContext<'_>,
    source: &Session,
    tables: &'t [SourceTable],
) -> Result<Vec<&'t SourceTable>, DbError> {
    let published = publication::tables(source, ctx.settings.publications.names()).await?;
    Ok(tables.iter().filter(|table| published.contains_key(&table.oid)).collect())
}

/// A copy that was cut off goes on with the filter that it began with, or a
/// narrower one.
///
/// # Errors
/// When the filter lets in what it left out.
pub(super) fn require_no_wider_filter(tables: &[SourceTable]) -> Result<(), CopyError> {
    let grown = membership::let_in(tables);
    if grown.is_empty() { Ok(()) } else { Err(CopyError::FilterGrown(grown)) }
}

/// The registered tables that are not complete, largest first. `tables` are
/// those the source has.
///
/// # Errors
/// When the state cannot be read.
pub(super) async fn jobs(ctx: &CopyContext<'_>, tables: &[SourceTable]) -> Result<Vec<Job>, CopyError> {
    let rows = ctx.state.tables().await?;
    let by_oid: HashMap<u32, &SourceTable> = tables.iter().map(|table| (table.oid, table)).collect();
    let objects = ctx.state.deferred().await?.into_iter();
    let mut by_table: HashMap<TableName, Vec<Deferred>> = HashMap::new();
    for object in objects.filter(|o| o.kind == DeferredKind::AfterRows && !o.is_restored) {
        by_table.entry(object.table.clone()).or_default().push(object);
    }
    let job = |row: TableRow| {
        let seed = match row.state {
            TableState::Waiting => Seed::Rows(Leftover::Nothing),
            TableState::Copying => Seed::Rows(Leftover::Rows),
            TableState::Indexing => Seed::Indexes,
            _ => return None,
        };
        let there = by_oid.get(&row.source_oid);
        let shape = there.map_or(Shape::Plain, |table| table.shape);
        // What is built on partitioned tables needs all partitions' own.
        let objects = by_table.remove(&row.table).filter(|_| shape == Shape::Plain).unwrap_or_default();
        let bytes = there.map_or(0, |table| table.bytes);
        Some(Job { table: row.table, source_oid: row.source_oid, shape, bytes, seed, attempt: row.attempt, objects })
    };
    let mut jobs: Vec<Job> = rows.into_iter().filter_map(job).collect();
    jobs.sort_by_key(|job| std::cmp::Reverse(job.bytes));
    Ok(jobs)
}

/// Plans the rows of the jobs in `wanted`, as the snapshot of the session
/// `source` has them.
///
/// # Errors
/// When a table does not fit the target (any more), is not published, or has
/// another name.
pub(super) async fn plans(
    ctx: &CopyContext<'_>,
    (source, target): (&Session, &Session),
    (generation, point): (u64, EndLsn),
    jobs: &[Job],
    wanted: &[usize],
) -> Result<Planned, CopyError> {
    let tables = ctx.tables(source).await?;
    let by_oid: HashMap<u32, &SourceTable> = tables.iter().map(|table| (table.oid, table)).collect();
    let mut planned = Planned::default();
    let mut units: Vec<(usize, &SourceTable)> = Vec::new();
    for index in wanted {
        let Some(job) = jobs.get(*index) else { continue };
        match by_oid.get(&job.source_oid) {
            None => planned.gone.push(*index),
            Some(table) if table.part != Part::Included => return Err(CopyError::unfit(table)),
            Some(table) if table.name != job.table => {
                return Err(CopyError::Renamed { table: job.table.clone(), now: table.name.clone() });
            }
            Some(table) => units.push((*index, table)),
        }
    }
    let published = publication::tables(source, ctx.settings.publications.names()).await?;
    require_published(ctx, source, &units, &published).await?;
    let meant: Vec<SourceTable> = units.iter().map(|(_, unit)| (*unit).clone()).collect();
    require_its_rows(ctx, source, &meant, &published).await?;
    let there = by_name(target, units.iter().map(|(_, unit)| &unit.name)).await?;
    require_fit(units.iter().map(|(_, unit)| *unit), &there, Hierarchy::of(ctx.settings.schema))?;
    let types = (&ctx.state.type_pairs().await?, Hierarchy::of(ctx.settings.schema));
    schema::types::require_fit(units.iter().map(|(_, unit)| *unit), &there, (source, target), types).await?;
    require_columns(ctx, &published, &tables, &there)?;
    let known = ctx.state.column_pairs(&units.iter().map(|(_, unit)| unit.oid).collect::<Vec<_>>()).await?;
    ctx.state.pair_columns(&paired(units.iter().map(|(_, unit)| *unit), &there, &known, Coming::Later)).await?;
    pair_types(
        ctx.state,
        units.iter().map(|(_, unit)| *unit),
        &there,
        (source, target),
        Hierarchy::of(ctx.settings.schema),
    )
    .await?;
    let ranges = ranges(ctx, source, &units).await?;
    for (index, unit) in units {
        let origin = origin(unit, &published);
        let (Some(published), Some(there)) = (published.get(&unit.oid), there.get(&unit.name)) else { continue };
        let copies = copies(unit, published.row_filter().as_deref(), there, ranges.get(&unit.oid));
        planned.plans.push((index, Arc::new(RowsPlan { generation, point, origin, copies })));
    }
    Ok(planned)
}

/// When tables are paired that nobody has paired before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coming {
    /// With the first copy.
    AtFirst,
    /// After it.
    Later,
}

/// The columns of one name: as long as nothing is copied yet, that is what makes two of
/// them one. A column that the target has kept of one that is gone is still that one's.
pub(super) fn paired<'a>(
    tables: impl Iterator<Item = &'a SourceTable>,
    there: &HashMap<TableName, Found>,
    known: &HashMap<u32, Pairs>,
    coming: Coming,
) -> Vec<(u32, Pairs)> {
    let formerly = |table: &SourceTable| match (known.get(&table.oid), coming) {
        (Some(known), _) => known.formerly.clone(),
        (None, Coming::AtFirst) => table.place(),
        (None, Coming::Later) => Former { parents: Vec::new(), ..table.place() },
    };
    let of_table = |table: &SourceTable| {
        let Found { oid, columns, .. } = there.get(&table.name)?;
        let known = known.get(&table.oid).map_or(&[][..], |known| known.with(*oid));
        let paired = |column: &Column| {
            Some(pair_for_copy(column, columns.iter().find(|other| other.name == column.name)?, known))
        };
        let pairs: Vec<Pair> = table.columns.iter().filter_map(paired).collect();
        let is_left = |pair: &&Pair| {
            !table.columns.iter().any(|column| column.number == pair.ours)
                && columns.iter().any(|column| column.number == pair.theirs)
                && !pairs.iter().any(|other| other.theirs == pair.theirs)
        };
        let left: Vec<Pair> = known.iter().filter(is_left).copied().collect();
        Some((
            table.oid,
            Pairs { of: *oid, pairs: [pairs, left].concat(), formerly: formerly(table), last: newest(&table.columns) },
        ))
    };
    tables.filter_map(of_table).collect()
}

/// A column that is not published must not be on the target, where it would stay
/// empty.
fn require_columns(
    ctx: &CopyContext<'_>,
    published: &HashMap<u32, Published>,
    tables: &[SourceTable],
    there: &HashMap<TableName, Found>,
) -> Result<(), CopyError> {
    let has = |table: &SourceTable, column: &str| {
        there.get(&table.name).is_some_and(|found| found.columns.iter().any(|c| c.name == column && !c.is_generated()))
    };
    match publishing::columns_lacking(published, tables, has).into_iter().next() {
        None => Ok(()),
        Some(lack) => {
            let problem = lack.said(&ctx.settings.publications);
            Err(CopyError::Publication { problem, sql: lack.sql() })
        }
    }
}

/// The same, before anything is done about these tables.
pub(super) async fn require_published_columns(
    ctx: &CopyContext<'_>,
    source: &Session,
    tables: &[SourceTable],
) -> Result<(), CopyError> {
    let published = publication::tables(source, ctx.settings.publications.names()).await?;
    let there = by_name(ctx.state.session(), tables.iter().map(|table| &table.name)).await?;
    require_columns(ctx, &published, tables, &there)
}

async fn require_published(
    ctx: &CopyContext<'_>,
    source: &Session,
    units: &[(usize, &SourceTable)],
    published: &HashMap<u32, Published>,
) -> Result<(), CopyError> {
    let missing: Vec<&SourceTable> =
        units.iter().map(|(_, unit)| *unit).filter(|unit| !published.contains_key(&unit.oid)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if let Some((table, root)) = missing.iter().find_map(|table| Some((table, root_in_name(published, table)?))) {
        return Err(CopyError::InAnothersName { table: table.name.sql(), root: root.clone() });
    }
    let names: Vec<TableName> = missing.iter().map(|table| table.name.clone()).collect();
    let found = publication::find(source, ctx.settings.publications.names()).await?;
    let entries: Vec<String> = missing.iter().map(|table| format!("{}{}", table.only(), table.name.sql())).collect();
    let change = publishing::add_sql(&publishing::lists_for_new(&found), &entries);
    let not = |verb: &str| format!("{verb} not publish {} any more", listed(&names));
    Err(CopyError::Publication {
        problem: ctx.settings.publications.who(&not("does"), &not("do")),
        sql: format!("BEGIN; {};", publishing::locked_sql(missing.into_iter(), &change)),
    })
}

/// The conditions of the parts of large tables, by oid.
async fn ranges(
    ctx: &CopyContext<'_>,
    source: &Session,
    units: &[(usize, &SourceTable)],
) -> Result<HashMap<u32, Vec<String>>, DbError> {
    let part_size = ctx.settings.part_size;
    let is_large = |unit: &&SourceTable| unit.shape == Shape::Plain && unit.bytes > part_size;
    let large: Vec<&SourceTable> = units.iter().map(|(_, unit)| *unit).filter(is_large).collect();
    parts::conditions(source, &large, part_size).await
}

/// The statements of a table, of which these rows are wanted in these ranges.
pub(super) fn copies(
    unit: &SourceTable,
    row_filter: Option<&str>,
    there: &Found,
    ranges: Option<&Vec<String>>,
) -> Copies {
    let is_generated = |name: &str| there.columns.iter().any(|c| c.name == name && c.is_generated());
    let columns: Vec<_> = unit.columns.iter().filter(|c| !c.is_generated() && !is_generated(&c.name)).collect();
    let has_same_type = |name: &str, oid: u32| there.columns.iter().any(|t| t.name == name && t.type_oid == oid);
    // The stream brings text, and a row that is found by all its values is to have the very
    // ones that the text makes.
    let is_exact = |column: &Column| column.is_binary_safe && (column.has_one_image || !unit.is_told_whole);
    let (format, option) = if columns.iter().all(|c| is_exact(c) && has_same_type(&c.name, c.type_oid)) {
        (Format::Binary, "binary")
    } else {
        (Format::Text, "text")
    };
    let names: Vec<String> = columns.iter().map(|c| ident(&c.name)).collect();
    let table = unit.name.sql();
    let list = names.join(", ");
    let only = unit.only();
    let part = |range: Option<&String>| {
        let filter = row_filter.map(|filter| format!("({filter})"));
        let conditions: Vec<String> = filter.into_iter().chain(range.cloned()).collect();
        let rows = match (conditions.as_slice(), unit.shape) {
            ([], Shape::Plain) if !names.is_empty() => format!("{table} ({list})"),
            ([], _) => format!("(SELECT {list} FROM {only}{table})"),
            (conditions, _) => format!("(SELECT {list} FROM {only}{table} WHERE {})", conditions.join(" AND ")),
        };
        format!("COPY {rows} TO STDOUT (FORMAT {option})")
    };
    let into = if names.is_empty() { String::new() } else { format!(" ({list})") };
    let copy_in = format!("COPY {table}{into} FROM STDIN (FORMAT {option})");
    let parts = match ranges.map(Vec::as_slice) {
        None | Some([]) => vec![part(None)],
        Some(ranges) => ranges.iter().map(|range| part(Some(range))).collect(),
    };
    Copies { source_oid: unit.oid, format, copy_in, parts }
}
