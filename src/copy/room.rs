//! The place that tables have on the target before they are copied beside a stream or
//! between two runs: created where that is ours to do, fitting, empty, and no other's.
//!
//! Invariant: whatever would keep the copy from its end is found here, before a row is
//! touched; a table of the target is the counterpart of one table of the source.

use std::collections::{HashMap, HashSet};

use super::anew::Wanted;
use super::{CopyContext, CopyError, columns, emptying, publication, publication_facts};
use crate::catalog::bounds::{DEFAULT, are_alike};
use crate::catalog::publication::Partitions;
use crate::catalog::tables::{Detail, Persistence, Shape, by_name, default_partitions, list, reading_sql};
use crate::catalog::{contents, roles};
use crate::config::SchemaMode;
use crate::membership::gap::{Cause, Gap};
use crate::membership::placement::{self, Hierarchy, Rules};
use crate::membership::placing::{self, Sides, say_how_to_place};
use crate::membership::publishing::{self, root_in_name};
use crate::membership::{self, Part, SourceTable, letting_go};
use crate::schema::tables::{require_empty, require_fit};
use crate::schema::{self, SchemaError};
use crate::session::{DbContext, DbError, Session};
use crate::sql::TableName;
use crate::sql::rename::Rename;
use crate::state::places::TargetTable;
use crate::state::tables::{TableRow, TableState};

/// Everything that can be found out before a row is touched: keys in force on
/// the target would refuse what comes in another order than they want, and
/// carry what is emptied to other tables, unless they are silent.
///
/// # Errors
/// [`CopyError::KeysInForce`]; a table that does not fit; publications that are gone,
/// or do not agree about it.
pub async fn require_possible(ctx: &CopyContext<'_>, source: &Session, wanted: &Wanted) -> Result<(), CopyError> {
    let target = ctx.state.session();
    let names: HashSet<TableName> = wanted.again.iter().map(|row| row.table.clone()).collect();
    let tables = ctx.tables(source).await?;
    let oids = wanted.again.iter().map(|row| row.source_oid).chain(wanted.new.iter().map(|table| table.oid));
    let oids: HashSet<u32> = oids.collect();
    require_readable(source, &wanted.new).await?;
    publication::require_sound(ctx, source, &tables, &oids).await?;
    let parts = wanted.parts.iter().map(|table| table.oid);
    require_placed(ctx, source, &tables, &oids.iter().copied().chain(parts).collect()).await?;
    let found = columns::look(ctx, &tables, &HashSet::new(), (source, target)).await?;
    // A new partition or child has the columns of those above it, as the source has them.
    let above = |table: &SourceTable, oid| table.is_below(oid) || table.parents.contains(&oid);
    let is_asked = |oid| oids.contains(&oid) || wanted.new.iter().any(|table| above(table, oid));
    if let Some(gap) = found.gaps.into_iter().find(|gap| is_asked(gap.source_oid)) {
        return Err(CopyError::Misplaced(Box::new(gap)));
    }
    let there = by_name(target, names.iter()).await?;
    let again = || tables.iter().filter(|table| names.contains(&table.name));
    require_fit(again(), &there, Hierarchy::of(ctx.settings.schema))?;
    let paired = (&ctx.state.type_pairs().await?, Hierarchy::of(ctx.settings.schema));
    schema::types::require_fit(again(), &there, (source, target), paired).await?;
    emptying::require_no_keys(ctx, &names.iter().collect::<Vec<_>>()).await
}

/// What is to be copied can be read, its definition as well.
async fn require_readable(source: &Session, tables: &[SourceTable]) -> Result<(), CopyError> {
    let unreadable: Vec<&SourceTable> = tables.iter().filter(|table| !table.rights.reads()).collect();
    if unreadable.is_empty() {
        return Ok(());
    }
    let role = roles::current(source).await?.name;
    let sql = reading_sql(unreadable.iter().map(|table| (&table.name, table.rights)), &role);
    let tables: Vec<TableName> = unreadable.iter().map(|table| table.name.clone()).collect();
    Err(CopyError::Unreadable { role, tables, sql })
}

/// Makes sure that new tables have their place on the target, empty.
///
/// # Errors
/// When they cannot be created there, do not fit, or hold rows.
pub async fn make_room(ctx: &CopyContext<'_>, source: &Session, wanted: &Wanted) -> Result<(), CopyError> {
    // Where the schema is the operator's, so is how a root's rows are parted.
    let parts = wanted.parts.iter().filter(|_| ctx.settings.schema == SchemaMode::Create);
    let parts: Vec<&SourceTable> = parts.collect();
    let found = by_name(ctx.state.session(), parts.iter().map(|part| &part.name)).await?;
    let absent = parts.into_iter().filter(|part| !found.contains_key(&part.name));
    let new: Vec<SourceTable> = wanted.new.iter().chain(absent).cloned().collect();
    if new.is_empty() {
        return enter_roots(ctx, wanted).await;
    }
    let tables = ctx.tables(source).await?;
    let tables = membership::letting_in(tables, |oid| new.iter().any(|table| table.oid == oid));
    let target = ctx.state.session();
    let oids: HashSet<u32> = new.iter().map(|table| table.oid).collect();
    let is_new = |table: &&SourceTable| oids.contains(&table.oid);
    require_names(ctx, &tables, tables.iter().filter(is_new), |table, _, there| table.name == *there).await?;
    refuse_those_of_dropped_tables(ctx, &tables, &new.iter().collect::<Vec<_>>()).await?;
    let names: Vec<&TableName> = new.iter().map(|table| &table.name).collect();
    if ctx.settings.schema == SchemaMode::Create {
        let there = by_name(target, names.iter().copied()).await?;
        let created: Vec<&SourceTable> =
            tables.iter().filter(is_new).filter(|table| !there.contains_key(&table.name)).collect();
        require_parents(&tables, created.iter().copied())?;
        let is_above = |table: &SourceTable, other: &SourceTable, _: &TableName| {
            table.is_below(other.oid) || table.parents.contains(&other.oid)
        };
        require_names(ctx, &tables, created.iter().copied(), is_above).await?;
    }
    if let Err(error) = schema::add(ctx.settings, ctx.state, source, &tables, &new).await {
        return Err(in_the_way(ctx, source, (&tables, &new, wanted), error).await?);
    }
    if ctx.settings.schema == SchemaMode::Create {
        log_what_was_unlogged(target, &new).await?;
    }
    let landing = landing(ctx, source, &tables, &wanted.new).await?;
    let copied: Vec<&TableName> = landing.iter().map(|table| &table.name).collect();
    let there = by_name(target, copied.iter().copied()).await?;
    require_fit(landing.iter().copied(), &there, Hierarchy::of(ctx.settings.schema))?;
    let paired = (&ctx.state.type_pairs().await?, Hierarchy::of(ctx.settings.schema));
    schema::types::require_fit(landing.iter().copied(), &there, (source, target), paired).await?;
    require_empty(target, &copied).await?;
    enter_roots(ctx, wanted).await
}

/// Those of the new tables that the target has to have by their names: where its schema
/// is the operator's, not what comes in the name of a root, or will once that is published.
async fn landing<'t>(
    ctx: &CopyContext<'_>,
    source: &Session,
    tables: &[SourceTable],
    new: &'t [SourceTable],
) -> Result<Vec<&'t SourceTable>, DbError> {
    if ctx.settings.schema == SchemaMode::Create {
        return Ok(new.iter().collect());
    }
    let names = ctx.settings.publications.names();
    let published = publication_facts::tables(source, names).await?;
    let found = publication_facts::find(source, names).await?;
    let lists = publishing::lists_for_new(&found);
    let is_rooted = found.iter().any(|one| lists.contains(&one.name) && one.partitions == Partitions::InTheirRootsName);
    let is_new = |oid| new.iter().any(|table| table.oid == oid);
    let roots: HashSet<u32> = match is_rooted {
        true => {
            publishing::entries(tables).into_iter().map(|(table, _)| table.oid).filter(|oid| is_new(*oid)).collect()
        }
        false => HashSet::new(),
    };
    let is_below_one = |table: &SourceTable| table.ancestors.iter().any(|above| roots.contains(&above.oid));
    let comes_in_its_name = |table: &&SourceTable| {
        published.contains_key(&table.oid) || (root_in_name(&published, table).is_none() && !is_below_one(table))
    };
    Ok(new.iter().filter(comes_in_its_name).collect())
}

/// Enters partitioned tables that have their place, below a root that is known: they have
/// no rows themselves, and what is below them is compared.
async fn enter_roots(ctx: &CopyContext<'_>, wanted: &Wanted) -> Result<(), CopyError> {
    let is_ours = ctx.settings.schema == SchemaMode::Create;
    let roots = wanted.parts.iter().filter(|table| is_ours && table.shape == Shape::Partitioned);
    let roots: Vec<TableRow> =
        roots.map(|table| TableRow::new(table.name.clone(), table.oid, TableState::Within)).collect();
    Ok(ctx.state.enter_tables(&roots).await?)
}

/// A table that was dropped on the source and created again has its name on the target
/// taken by the old one.
pub(super) async fn refuse_those_of_dropped_tables(
    ctx: &CopyContext<'_>,
    tables: &[SourceTable],
    new: &[&SourceTable],
) -> Result<(), CopyError> {
    let is_there: HashSet<u32> = tables.iter().map(|table| table.oid).collect();
    let there = ctx.state.target_tables().await?;
    let old = there.iter().filter(|old| !is_there.contains(&old.source_oid));
    let old: Vec<TableName> =
        old.map(|old| old.name.clone()).filter(|name| new.iter().any(|t| t.name == *name)).collect();
    // Empty it may be, and yet have other columns, keys and indexes than the new one.
    let in_the_way = match ctx.settings.schema {
        SchemaMode::Create => old.into_iter().next(),
        SchemaMode::Existing | SchemaMode::None => {
            let filled = contents::filled(ctx.state.session(), &old.iter().collect::<Vec<_>>()).await?;
            filled.into_iter().next().map(|filled| filled.table)
        }
    };
    let Some(table) = in_the_way else { return Ok(()) };
    let sql = letting_go::drop_sql(ctx.state.session(), &table, &there, |oid| is_there.contains(&oid)).await?;
    Err(CopyError::CreatedAgain { table, sql })
}

/// The same error; of a partition that overlaps another there, or that rows of the default
/// one belong to by now, with those beside it that were dropped on the source, or with the
/// default one.
async fn in_the_way(
    ctx: &CopyContext<'_>,
    source: &Session,
    (tables, new, wanted): (&[SourceTable], &[SourceTable], &Wanted),
    error: SchemaError,
) -> Result<CopyError, CopyError> {
    let is = |kind: fn(&DbError) -> bool| matches!(&error, SchemaError::Object { source, .. } if kind(source));
    let is_held = is(schema::is_held_by_default);
    let overlaps = is_held || is(schema::is_overlapping);
    let is_there: HashSet<u32> = tables.iter().map(|table| table.oid).collect();
    let above: HashSet<u32> = new.iter().flat_map(|table| table.ancestors.iter().map(|above| above.oid)).collect();
    let is_beside = |there: &TargetTable| {
        let parent = there.parent.as_ref().and_then(|(oid, _)| *oid);
        !is_there.contains(&there.source_oid) && parent.is_some_and(|oid| above.contains(&oid))
    };
    let dropped = |there: TargetTable| {
        let cause = Cause::Dropped { within: None, release: String::new() };
        Gap { source_oid: there.source_oid, table: there.name, cause }
    };
    let there = ctx.state.target_tables().await?;
    let dropped = there.iter().filter(|_| overlaps).filter(|t| is_beside(t)).cloned().map(dropped);
    let mut dropped: Vec<Gap> = dropped.collect();
    let kept = letting_go::kept(&there, |oid| is_there.contains(&oid));
    letting_go::with_releases(ctx.state.session(), &mut dropped, &kept).await?;
    if !dropped.is_empty() {
        return Ok(CopyError::Overlaps { source: error, dropped });
    }
    if !is_held {
        return Ok(error.into());
    }
    let defaults = default_partitions(ctx.state.session()).await?;
    let is_default = |there: &&TargetTable| {
        let parent = there.parent.as_ref().and_then(|(oid, _)| *oid);
        defaults.contains(&there.name) && parent.is_some_and(|oid| above.contains(&oid))
    };
    let holder = there.iter().find(is_default).and_then(|t| tables.iter().find(|table| table.oid == t.source_oid));
    let published = publication_facts::tables(source, ctx.settings.publications.names()).await?;
    Ok(match holder {
        Some(holder) => {
            let table = root_in_name(&published, holder).unwrap_or(&holder.name).clone();
            let is_copied = wanted.again.iter().any(|row| row.table == table);
            CopyError::HeldByDefault { source: error, default: holder.name.clone(), table, is_copied }
        }
        None => error.into(),
    })
}

/// What is a partition has to be one of the same table on the target; so has what is in
/// the way of a new partition there.
async fn require_placed(
    ctx: &CopyContext<'_>,
    source: &Session,
    tables: &[SourceTable],
    wanted: &HashSet<u32>,
) -> Result<(), CopyError> {
    let there = ctx.state.target_tables().await?;
    let there: HashMap<u32, TargetTable> = there.into_iter().map(|there| (there.source_oid, there)).collect();
    let (formerly, published) =
        (ctx.state.former_places().await?, publication_facts::tables(source, ctx.settings.publications.names()).await?);
    let hierarchy = Hierarchy::of(ctx.settings.schema);
    let rules = Rules { hierarchy, formerly: &formerly, published: &published, is_refused: false };
    let known = membership::known(ctx.state).await?;
    let takes_part = |oid| wanted.contains(&oid) || known.get(&oid).is_some_and(|state| state.takes_part());
    // Rows of a root go on to what is below it.
    let is_wanted = |table: &&SourceTable| {
        wanted.contains(&table.oid) || table.ancestors.iter().any(|above| wanted.contains(&above.oid))
    };
    let roots: HashSet<u32> =
        tables.iter().filter(is_wanted).flat_map(|table| table.ancestors.iter().map(|above| above.oid)).collect();
    let is_in_the_way = |table: &SourceTable| {
        let parent = there.get(&table.oid).and_then(|there| there.parent.as_ref());
        parent.is_some_and(|(oid, _)| oid.is_some_and(|oid| roots.contains(&oid)))
    };
    // What is to become a partition of a new table has its place once that is there, with the
    // indexes that its own are attached to.
    let waits = |table: &SourceTable| {
        let parent = table.ancestors.first().map(|above| above.oid);
        parent.is_some_and(|parent| wanted.contains(&parent) && !there.contains_key(&parent))
            && stands_alone(table, &there)
    };
    let is_looked_at = |table: &&SourceTable| (is_wanted(table) || is_in_the_way(table)) && !waits(table);
    let misplaced = |table: &SourceTable| placement::misplaced(&rules, table, &there, takes_part);
    let looked_at: HashSet<u32> = tables.iter().filter(is_looked_at).map(|table| table.oid).collect();
    let mut gaps: Vec<Gap> = tables.iter().filter(|table| !waits(table)).filter_map(misplaced).collect();
    if gaps.iter().any(|gap| looked_at.contains(&gap.source_oid)) {
        let target = ctx.state.session();
        let sides = Sides { tables, there: &there, published: &published };
        let in_the_way = placing::in_the_way((source, target), &gaps, sides).await?;
        placing::doubt(ctx.state, tables, &in_the_way).await?;
        say_how_to_place(&mut gaps, sides, &in_the_way);
    }
    let found = gaps.iter().find(|gap| looked_at.contains(&gap.source_oid));
    // What is to be done is said with the first of those that are in each other's way.
    let with = found.and_then(Gap::placed_with).and_then(|other| gaps.iter().find(|gap| gap.table == *other));
    match with.or(found) {
        Some(gap) => Err(CopyError::Misplaced(Box::new(gap.clone()))),
        None => require_places_of_rows(ctx, source, tables, (wanted, &published)).await,
    }
}

/// Where the schema is the operator's, rows of a root that no partition there takes would
/// end its copy once it is emptied. That is known where the partitions there are those of the
/// source, but for one that has rows.
async fn require_places_of_rows(
    ctx: &CopyContext<'_>,
    source: &Session,
    tables: &[SourceTable],
    (wanted, published): (&HashSet<u32>, &HashMap<u32, publication_facts::Published>),
) -> Result<(), CopyError> {
    let comes_as_wanted = |table: &&SourceTable| {
        let above = table.ancestors.iter().find(|above| published.contains_key(&above.oid));
        !published.contains_key(&table.oid) && above.is_some_and(|above| wanted.contains(&above.oid))
    };
    let mut leaves = tables.iter().filter(|table| table.shape == Shape::Plain).filter(comes_as_wanted).peekable();
    if ctx.settings.schema == SchemaMode::Create || leaves.peek().is_none() {
        return Ok(());
    }
    let there = list(ctx.state.session(), Detail::Outline).await?;
    let there: HashMap<&TableName, _> = there.iter().map(|table| (&table.name, table)).collect();
    let is_taken_elsewhere = |parent: &TableName| {
        let mut beside = there.values().filter(|t| t.ancestors.first().is_some_and(|above| above.name == *parent));
        let is_the_sources = |name: &TableName, bounds: &str| {
            let ours = tables.iter().find(|table| table.name == *name);
            let is_beside = ours.and_then(|table| table.ancestors.first()).is_some_and(|above| above.name == *parent);
            let words = ours.and_then(|table| table.bounds.as_deref());
            is_beside && bounds != DEFAULT && words.is_some_and(|words| are_alike(words, bounds))
        };
        beside.any(|table| !table.bounds.as_deref().is_some_and(|bounds| is_the_sources(&table.name, bounds)))
    };
    let lacks = |table: &&SourceTable| {
        let parent = table.ancestors.first().map(|above| &above.name);
        let is_parted = |parent: &TableName| there.get(parent).is_some_and(|root| root.shape == Shape::Partitioned);
        !there.contains_key(&table.name)
            && parent.is_some_and(|parent| is_parted(parent) && !is_taken_elsewhere(parent))
    };
    let lacking: Vec<&SourceTable> = leaves.filter(lacks).collect();
    let filled = contents::filled(source, &lacking.iter().map(|table| &table.name).collect::<Vec<_>>()).await?;
    let first = lacking.into_iter().find(|table| filled.iter().any(|filled| filled.table == table.name));
    let gap = first.and_then(|table| placement::lacking(table, root_in_name(published, table)?));
    gap.map_or(Ok(()), |gap| Err(CopyError::Misplaced(Box::new(gap))))
}

fn stands_alone(table: &SourceTable, there: &HashMap<u32, TargetTable>) -> bool {
    there.get(&table.oid).is_some_and(|there| there.parent.is_none())
}

/// A table that is to be created cannot inherit from one that is left out.
fn require_parents<'t>(
    tables: &[SourceTable],
    mut new: impl Iterator<Item = &'t SourceTable>,
) -> Result<(), CopyError> {
    let left_out = |table: &SourceTable| {
        let is_parent = |other: &&SourceTable| other.part == Part::Filtered && table.parents.contains(&other.oid);
        let parent = tables.iter().find(is_parent)?.name.clone();
        Some(CopyError::LacksParent { table: table.name.clone(), parent })
    };
    new.find_map(left_out).map_or(Ok(()), Err)
}

/// Those that some tables have to do with must have their present names on the target;
/// the name that they have there is given as well.
pub(super) async fn require_names<'t>(
    ctx: &CopyContext<'_>,
    all: &'t [SourceTable],
    mut tables: impl Iterator<Item = &'t SourceTable>,
    have_to_do: impl Fn(&SourceTable, &SourceTable, &TableName) -> bool,
) -> Result<(), CopyError> {
    let oids: Vec<u32> = all.iter().map(|table| table.oid).collect();
    let names = ctx.state.target_names(&oids).await?;
    let another = |table: &&SourceTable| names.get(&table.oid).is_some_and(|name| *name != table.name);
    let renamed: Vec<&SourceTable> = all.iter().filter(another).collect();
    let has_to_do = |table: &SourceTable, other: &SourceTable| {
        names.get(&other.oid).is_some_and(|there| have_to_do(table, other, there))
    };
    let first = tables.find_map(|table| Some((table, renamed.iter().find(|other| has_to_do(table, other))?)));
    let Some((table, first)) = first else { return Ok(()) };
    let there = ctx.state.target_tables().await?;
    let rename = |table: &&SourceTable| Some(Rename { from: names.get(&table.oid)?.clone(), to: table.name.clone() });
    let renames: Vec<Rename> = renamed.iter().filter_map(rename).collect();
    let here: HashSet<u32> = all.iter().map(|table| table.oid).collect();
    let has = |oid| here.contains(&oid);
    let sql = letting_go::rename_sql_with_drops(ctx.state.session(), &renames, &there, has).await?;
    Err(CopyError::RenameFirst { table: table.name.clone(), renamed: first.name.clone(), sql })
}

/// Tables that were unlogged when their definitions came over, and are logged on the
/// source by now, become so on the target as well.
async fn log_what_was_unlogged(target: &Session, new: &[SourceTable]) -> Result<(), CopyError> {
    let permanent = || new.iter().filter(|table| table.persistence == Persistence::Permanent);
    for (name, found) in by_name(target, permanent().map(|table| &table.name)).await? {
        if found.persistence == Persistence::Unlogged {
            let sql = format!("ALTER TABLE {} SET LOGGED", name.sql());
            target.batch_execute(&sql).await.during(target.side(), format!("make {name} logged"))?;
        }
    }
    Ok(())
}
