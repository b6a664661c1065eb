//! Whether both sides still have, and publish, what takes part: looked at when a
//! stream begins, every minute beside it, and before a catch-up says that it is
//! done. What is compared is in [`crate::membership::coverage`].
//!
//! Invariant: what is found is in the state and in the log, with what mends it;
//! a look that fails beside the stream is made again and does not end it. A
//! catch-up does not end well while anything is left that makes the sides differ.

mod altered;
mod places;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

pub(super) use altered::or_altered;
pub(super) use places::{or_named, or_named_of_copy};
use tracing::{debug, info, warn};

use super::{Context, Error};
use crate::catalog::contents::{self, Checksum};
use crate::catalog::publication::{self, Published};
use crate::catalog::tables::{self, Column, Detail, Shape};
use crate::config::Settings;
use crate::copy;
use crate::fault::chain;
use crate::membership::coverage::{self, Now};
use crate::membership::gap::{self, Cause, Gap};
use crate::membership::placement::{Hierarchy, Rules};
use crate::membership::placing::{self, Sides, say_how_to_place};
use crate::membership::renaming::renames;
use crate::membership::{self, Part, SourceTable, letting_go, narrowed, publishing, row_filters};
use crate::session::Session;
use crate::sql::TableName;
use crate::state::State;
use crate::state::places::TargetTable;
use crate::state::tables::{Origin, TableRow, TableState};
use crate::sweep::sequences;

/// Pause between two looks beside the stream.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Rows that differ are read again on the source, to see whether they are written to.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Both sides at one time.
struct Look {
    rows: Vec<TableRow>,
    tables: Vec<SourceTable>,
    gaps: Vec<Gap>,
    /// What is published.
    published: HashMap<u32, Published>,
    /// What the tables are on the source just now.
    origins: HashMap<u32, Origin>,
    /// Those that are to be emptied on the target: nothing is equal before that.
    emptied: HashSet<u32>,
}

/// What a look is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To know, beside the stream: no row is read for it.
    Watch,
    /// To say what mends it.
    Mend,
    /// The same, as the target has refused a row.
    Refused,
}

/// Compares, and records what was found.
async fn look(settings: &Settings, state: &State, source: &Session, purpose: Purpose) -> Result<Look, Error> {
    let publishes_all = membership::publishes_all(source, settings.publications.names(), state).await?;
    let known = membership::known(state).await?;
    let detail = match purpose {
        Purpose::Watch | Purpose::Refused => Detail::Outline,
        Purpose::Mend => Detail::Columns,
    };
    let tables = membership::read(source, &settings.filter, &known, detail).await?;
    state.forget_displaced(&tables.iter().map(|table| table.oid).collect::<Vec<_>>()).await?;
    let rows = state.tables().await?;
    let published = publication::tables(source, settings.publications.names()).await?;
    let there: HashMap<u32, TargetTable> =
        state.target_tables().await?.into_iter().map(|there| (there.source_oid, there)).collect();
    let strangers = if publishes_all { strangers(&tables, &rows) } else { Vec::new() };
    let names: Vec<&TableName> = strangers.iter().map(|table| &table.name).collect();
    let filled = contents::filled(source, &names).await?;
    let filled = of_names(&strangers, &filled.iter().map(|filled| &filled.table).collect());
    let awaited = tables::by_name(state.session(), names.into_iter()).await?;
    let awaited = of_names(&strangers, &awaited.keys().collect());
    let strangers = letting_go::strangers(state.session(), &renames(&tables, &there), there.values()).await?;
    let hierarchy = Hierarchy::of(settings.schema);
    let formerly = state.former_places().await?;
    let is_refused = purpose == Purpose::Refused;
    let rules = Rules { hierarchy, formerly: &formerly, published: &published, is_refused };
    let now = Now {
        rows: &rows,
        tables: &tables,
        published: &published,
        publications: &settings.publications,
        there: &there,
        filled: &filled,
        awaited: &awaited,
        strangers: &strangers,
        publishes_all,
        rules,
    };
    let mut gaps = coverage::compare(&now);
    let sides = Sides { tables: &tables, there: &there, published: &published };
    let in_the_way = match purpose {
        Purpose::Watch => Vec::new(),
        Purpose::Mend | Purpose::Refused => placing::in_the_way((source, state.session()), &gaps, sides).await?,
    };
    let emptied = placing::doubt(state, &tables, &in_the_way).await?;
    say_how_to_place(&mut gaps, sides, &in_the_way);
    let on_source: HashSet<u32> = tables.iter().map(|table| table.oid).collect();
    let kept = letting_go::kept(there.values(), |oid| on_source.contains(&oid));
    letting_go::with_releases(state.session(), &mut gaps, &kept).await?;
    let origins: HashMap<u32, Origin> =
        tables.iter().map(|table| (table.oid, coverage::origin(table, &published))).collect();
    let unrecorded =
        rows.iter().filter(|row| row.state.takes_part() && row.origin.filenode.is_none() && !row.is_unfinished());
    let unrecorded: Vec<(u32, Origin)> =
        unrecorded.filter_map(|row| Some((row.source_oid, origins.get(&row.source_oid)?.clone()))).collect();
    if !unrecorded.is_empty() {
        state.record_origins(&unrecorded).await?;
    }
    let problems: Vec<(u32, String)> =
        gaps.iter().filter(|gap| is_sure(gap)).map(|gap| (gap.source_oid, gap.to_string())).collect();
    state.record_problems(&problems).await?;
    Ok(Look { rows, tables, gaps, published, origins, emptied })
}

fn is_sure(gap: &Gap) -> bool {
    !gap.is_doubt()
}

/// The tables with rows of their own that the state does not know.
fn strangers<'t>(tables: &'t [SourceTable], rows: &[TableRow]) -> Vec<&'t SourceTable> {
    let known: HashSet<u32> = rows.iter().map(|row| row.source_oid).collect();
    let is_stranger = |table: &&SourceTable| {
        table.part == Part::Included && table.shape == Shape::Plain && !known.contains(&table.oid)
    };
    tables.iter().filter(is_stranger).collect()
}

/// The oids of those with these names.
fn of_names(tables: &[&SourceTable], names: &HashSet<&TableName>) -> HashSet<u32> {
    tables.iter().filter(|table| names.contains(&table.name)).map(|table| table.oid).collect()
}

/// At a start, with the lease held: what is found is said.
///
/// # Errors
/// When either side cannot be asked.
pub(super) async fn at_start(ctx: &Context, state: &State) -> Result<(), Error> {
    let source = ctx.source().await?;
    let mut said = HashSet::new();
    let look = look(&ctx.settings, state, &source, Purpose::Watch).await?;
    say(&look.gaps, &mut said);
    look.say_row_filters(ctx);
    source.done();
    Ok(())
}

/// At a start, with the lease held: members that a filter leaves out which is not
/// the recorded one are members no longer; a rename alone changes nothing.
///
/// # Errors
/// When either side cannot be asked.
pub(super) async fn apply_filter(ctx: &Context, state: &State) -> Result<(), Error> {
    let filter = &ctx.settings.filter;
    let text = filter.to_string();
    let recorded = state.filter().await?;
    let known = membership::known(state).await?;
    if known.is_empty() || recorded.as_deref() == Some(text.as_str()) {
        return Ok(());
    }
    let source = ctx.source().await?;
    let tables = membership::read(&source, filter, &known, Detail::Outline).await?;
    let left_out: Vec<TableRow> = narrowed(&tables, filter, &known)
        .map(|table| TableRow::new(table.name.clone(), table.oid, TableState::Excluded))
        .collect();
    if !left_out.is_empty() {
        let is_left_out = |row: &TableRow| left_out.iter().any(|table| table.source_oid == row.source_oid);
        let rows = state.tables().await?.into_iter();
        let begun: Vec<TableRow> = rows.filter(|row| row.is_unfinished() && is_left_out(row)).collect();
        // A part of its rows is of no use to anybody.
        copy::anew::empty(&ctx.copy(state), &begun).await?;
        for row in &left_out {
            let what = match begun.iter().any(|begun| begun.source_oid == row.source_oid) {
                true => "the filter leaves this table out by now, before it was copied: it is empty on the target",
                false => {
                    "the filter leaves this table out by now: it is followed no more, and keeps the rows it has on the target"
                }
            };
            warn!(table = %row.table, "{what}");
            state.journal(&format!("{} is left out by now", row.table)).await?;
        }
        state.enter_tables(&left_out).await?;
    }
    sequences::leave_out(&source, state, filter).await?;
    source.done();
    state.record_filter(&text).await?;
    Ok(())
}

/// Looks every minute. Never returns: what cannot be looked at is looked at again.
pub(super) async fn watch(ctx: &Context) -> std::convert::Infallible {
    let mut said = HashSet::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match look_alone(ctx).await {
            Ok(look) => {
                let count = gap::tables(look.gaps.iter().filter(|gap| is_sure(gap)));
                ctx.metrics.tables_differing.set(i64::try_from(count).unwrap_or(i64::MAX));
                say(&look.gaps, &mut said);
            }
            Err(error) => {
                warn!(error = chain(&error), "cannot look whether all tables are still covered; trying again")
            }
        }
    }
}

async fn look_alone(ctx: &Context) -> Result<Look, Error> {
    let (settings, name) = (&ctx.settings, &ctx.settings.name);
    let (source, target) =
        tokio::try_join!(Session::connect(&settings.source, name), Session::connect(&settings.target, name))?;
    look(settings, &State::open(target, name).await?, &source, Purpose::Watch).await
}

/// Says what has not been said yet; what is gone is forgotten.
fn say(gaps: &[Gap], said: &mut HashSet<Gap>) {
    said.retain(|gap| gaps.contains(gap));
    for gap in gaps {
        if said.insert(gap.clone()) {
            match gap.is_doubt() {
                true => debug!(table = %gap.table, "its file is another one; the next catch-up compares its rows"),
                false => warn!(table = %gap.table, "{gap}"),
            }
        }
    }
}

/// Before a catch-up says that the sides are equal: what makes them differ. Tables
/// that were rewritten are compared; rows that are equal settle it.
///
/// # Errors
/// When either side cannot be asked.
pub(super) async fn at_end(ctx: &Context, state: &State) -> Result<Vec<Gap>, Error> {
    let settings = &ctx.settings;
    let source = ctx.source().await?;
    let look = look(settings, state, &source, Purpose::Mend).await?;
    look.say_row_filters(ctx);
    forget_dropped(state, &look.rows, &look.tables).await?;
    let target = ctx.target().await?;
    let others: HashSet<u32> = look.gaps.iter().filter(|gap| is_sure(gap)).map(|gap| gap.source_oid).collect();
    // Rows are compared by all their columns.
    let tables = publishing::with_published_columns(look.tables.clone(), &look.published);
    let columns = copy::columns::look(&ctx.copy(state), &tables, &others, (&source, &target)).await?;
    let look = if columns.has_new_doubts { self::look(settings, state, &source, Purpose::Mend).await? } else { look };
    let (mut left, mut put_off, mut compared) = (columns.gaps, Vec::new(), HashMap::new());
    let hierarchy = Hierarchy::of(settings.schema);
    let is_to_change = look.gaps.iter().any(Gap::is_of_names_and_places);
    for gap in &look.gaps {
        if gap.is_doubt() && look.is_of(gap, &columns.differing) {
            put_off.push(gap.clone());
            continue;
        }
        // A DETACH, DROP or TRUNCATE on the target may take rows away that are equal now.
        let is_emptied = look.emptied.contains(&gap.source_oid);
        if gap.is_doubt() && (is_emptied || is_to_change && look.has_others_rows(gap)) {
            debug!(table = %gap.table, "its rows are compared once names and places on the target are the source's");
            put_off.push(gap.clone());
            continue;
        }
        let is_equal = gap.is_doubt() && look.is_equal((&source, &target), gap, &mut compared).await?;
        let lacks_place = places::lacking(hierarchy, gap, &look.tables, &target).await?;
        match (is_equal, lacks_place, hierarchy) {
            // How the target parts the rows of a root is the operator's, if they are equal.
            (true, lacks_place, Hierarchy::Own) => {
                if let Some(lacks_place) = lacks_place {
                    warn!(table = %gap.table, "{lacks_place}");
                }
                look.settle(state, gap).await?;
            }
            (true, None, Hierarchy::Same) => look.settle(state, gap).await?,
            (true, Some(lacks_place), Hierarchy::Same) => left.push(lacks_place),
            (false, ..) if gap.is_of_a_rewrite() && columns.retyped.contains_key(&gap.source_oid) => {
                left.extend(columns.retyped.get(&gap.source_oid).cloned());
            }
            // The copy of the root makes it.
            (false, None, _) | (false, Some(_), Hierarchy::Same) => left.push(gap.clone()),
            (false, Some(lacks_place), Hierarchy::Own) => left.extend([lacks_place, gap.clone()]),
        }
    }
    let unequal: HashSet<u32> = left.iter().map(|gap| gap.source_oid).collect();
    left.extend(columns.altered.into_iter().filter(|gap| !unequal.contains(&gap.source_oid)));
    // What has not been compared is never equal.
    if left.is_empty() {
        left = put_off;
    }
    let problems: Vec<(u32, String)> = left.iter().map(|gap| (gap.source_oid, gap.to_string())).collect();
    state.record_problems(&problems).await?;
    source.done();
    target.done();
    Ok(left)
}

/// Tables that neither side has any more.
async fn forget_dropped(state: &State, rows: &[TableRow], tables: &[SourceTable]) -> Result<(), Error> {
    let on_source: HashSet<u32> = tables.iter().map(|table| table.oid).collect();
    let there: HashSet<u32> = state.target_tables().await?.into_iter().map(|there| there.source_oid).collect();
    let is_gone = |row: &&TableRow| !on_source.contains(&row.source_oid) && !there.contains(&row.source_oid);
    let gone: Vec<u32> = rows.iter().filter(is_gone).map(|row| row.source_oid).collect();
    Ok(state.forget_tables(&gone).await?)
}

impl Look {
    /// Whether the rows that are in doubt are equal: those of the table, or of the one
    /// in whose name they come. `compared` has what was compared before.
    async fn is_equal(
        &self,
        (source, target): (&Session, &Session),
        gap: &Gap,
        compared: &mut HashMap<TableName, bool>,
    ) -> Result<bool, Error> {
        let Some(table) = self.tables.iter().find(|table| table.oid == gap.source_oid) else { return Ok(false) };
        let root = publishing::root_in_name(&self.published, table);
        let (here, there) = root.map_or((&table.name, &gap.table), |root| (root, root));
        if let Some(known) = compared.get(here) {
            return Ok(*known);
        }
        info!(table = %here, "what happened to it on the source may be in no stream: comparing its rows");
        let oid = root.map_or(Some(table.oid), |root| self.tables.iter().find(|t| t.name == *root).map(|t| t.oid));
        // What does not meet it is not carried.
        let row_filter = oid.and_then(|oid| self.published.get(&oid)).and_then(Published::row_filter);
        let is_equal = have_equal_rows((source, here), (target, there), row_filter.as_deref()).await?;
        compared.insert(here.clone(), is_equal);
        Ok(is_equal)
    }

    /// What is neither copied nor followed, nor compared.
    fn say_row_filters(&self, ctx: &Context) {
        let filtered = || row_filters::filtered(&self.tables, &self.published, &ctx.settings.publications);
        ctx.row_filters.call_once(|| {
            for filter in filtered() {
                info!(table = %filter.table, "{}: only these are copied, followed and compared", filter.said());
            }
        });
    }

    /// Whether the gap is about one of these tables, or one below or above it.
    fn is_of(&self, gap: &Gap, tables: &HashSet<u32>) -> bool {
        let is_above = |table: &SourceTable| {
            table.oid == gap.source_oid && table.ancestors.iter().any(|a| tables.contains(&a.oid))
        };
        let is_below = |table: &SourceTable| tables.contains(&table.oid) && table.is_below(gap.source_oid);
        tables.contains(&gap.source_oid) || self.tables.iter().any(|table| is_above(table) || is_below(table))
    }

    /// Whether its rows come in another table's name, or others' in its.
    fn has_others_rows(&self, gap: &Gap) -> bool {
        let table = self.tables.iter().find(|table| table.oid == gap.source_oid);
        let is_parted = |table: &SourceTable| table.shape == Shape::Partitioned;
        table.is_some_and(|table| is_parted(table) || publishing::root_in_name(&self.published, table).is_some())
    }

    /// What the table is by now is no difference.
    async fn settle(&self, state: &State, gap: &Gap) -> Result<(), Error> {
        info!(table = %gap.table, "its rows are equal");
        let origin = self.origins.get(&gap.source_oid).cloned().unwrap_or_default();
        match gap.cause {
            Cause::NewWithin { .. } => {
                // With the roots between it and the one in whose name its rows come.
                let is_known = |oid| self.rows.iter().any(|row| row.source_oid == oid);
                let is_above = |table: &&SourceTable| {
                    self.tables.iter().any(|below| below.oid == gap.source_oid && below.is_below(table.oid))
                };
                let is_new = |table: &&SourceTable| table.part == Part::Included && !is_known(table.oid);
                let above = self.tables.iter().filter(is_new).filter(is_above);
                let within = |name: &TableName, oid| TableRow::new(name.clone(), oid, TableState::Within);
                let mut rows = vec![TableRow { origin, ..within(&gap.table, gap.source_oid) }];
                rows.extend(above.map(|table| within(&table.name, table.oid)));
                state.enter_tables(&rows).await?;
            }
            _ => state.record_origins(&[(gap.source_oid, origin)]).await?,
        }
        Ok(())
    }
}

/// Compares the rows of a table on both sides by count and sum of hashes, over the
/// columns that both have and that neither computes; on the source those that are
/// published.
pub(super) async fn have_equal_rows(
    (source, here): (&Session, &TableName),
    (target, there): (&Session, &TableName),
    row_filter: Option<&str>,
) -> Result<bool, Error> {
    let (ours, theirs) = tokio::try_join!(
        tables::by_name(source, std::iter::once(here)),
        tables::by_name(target, std::iter::once(there))
    )?;
    let (Some(ours), Some(theirs)) = (ours.get(here), theirs.get(there)) else { return Ok(false) };
    let is_carried = |name: &str, columns: &[Column]| columns.iter().any(|c| c.name == name && !c.is_generated());
    let columns: Vec<&str> = ours.columns.iter().map(|column| column.name.as_str()).collect();
    let columns: Vec<&str> = columns
        .into_iter()
        .filter(|name| is_carried(name, &ours.columns) && is_carried(name, &theirs.columns))
        .collect();
    let of_source = || contents::checksum(source, here, ours.shape, &columns, row_filter);
    let (before, found): (Checksum, Checksum) =
        tokio::try_join!(of_source(), contents::checksum(target, there, theirs.shape, &columns, None))?;
    if before == found {
        return Ok(true);
    }
    tokio::time::sleep(LOOK_AGAIN_AFTER).await;
    if of_source().await? != before {
        warn!(
            table = %here,
            "its rows are written to on the source just now, so that they are not found equal whatever they are: \
             compare again (walferry catchup) while nothing is written, before you copy it anew"
        );
    }
    Ok(false)
}
