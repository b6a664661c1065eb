//! Tables that are copied once the migration streams: anew, or for the first
//! time.
//!
//! ```text
//! between two runs:   emptied ─ waiting ─ copying ─ indexing ─ ready          (the stream comes after)
//! beside the stream:  emptied ─ waiting ─ copying ─ indexing ─ joining ─ ready
//!                                                     └ run::resync: a second stream, and the join
//! ```
//!
//! Invariant: the rows are those of a temporary slot's snapshot. Between two
//! runs the stream has not been past it, and takes the table up there. Beside
//! the stream it has, having passed the table's changes over; so the table
//! stays `joining`, with the slot that has those changes, and is begun anew when
//! that is lost.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::sleep;

use super::board::Board;
use super::emptying;
use super::keep::{Held, Snapshots};
use super::pace::Pace;
use super::room::{refuse_those_of_dropped_tables, require_names};
use super::slot::Need;
use super::snapshot::Keeper;
use super::workers::{self, Crew, Purpose};
use super::{CopyContext, CopyError, columns, finish, plan, publication, rest, slot};
use crate::catalog::publication as publication_facts;
use crate::catalog::publication::Published;
use crate::catalog::tables::{Shape, by_name};
use crate::config::publications::who;
use crate::lsn::EndLsn;
use crate::membership::gap::Gap;
use crate::membership::publishing::root_in_name;
use crate::membership::switched::{self, Switched};
use crate::membership::{self, Part, SourceTable};
use crate::schema::SchemaError;
use crate::session::{DbContext, Session};
use crate::sql::TableName;
use crate::state::tables::{TableRow, TableState};
use crate::wire::Replication;

/// Pause between two signs of life on the connection that has the slot; the
/// shortest idle limits found on proxies are one minute.
const AWAKE_EVERY: Duration = Duration::from_secs(30);

/// How long the emptying waits for somebody who reads the table: the stream
/// stands still meanwhile.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '3s'";

/// What is to be done about the tables somebody asked for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Tables of the migration: emptied and copied anew.
    pub again: Vec<TableRow>,
    /// Tables that it does not have yet.
    pub new: Vec<SourceTable>,
    /// Partitions that it does not have yet, whose rows come in the name of a table that
    /// it has: all they need is their place.
    pub parts: Vec<SourceTable>,
}

impl Wanted {
    fn has_part(&self, table: &SourceTable) -> bool {
        self.parts.iter().any(|known| known.oid == table.oid)
    }

    /// Their names.
    pub fn names(&self) -> Vec<TableName> {
        let new = self.new.iter().chain(&self.parts).map(|table| table.name.clone());
        self.again.iter().map(|row| row.table.clone()).chain(new).collect()
    }
}

/// Tables that were copied beside the stream.
pub struct Copied {
    /// The connection that has the slot.
    pub replication: Replication,
    /// The temporary slot.
    pub slot: String,
    /// Its beginning: the tables hold every commit before.
    pub point: EndLsn,
}

/// Sorts out what the tables of these names are: the migration's, or new to it.
/// A partitioned table stands for its partitions, where these have the rows.
///
/// # Errors
/// [`CopyError::NotHere`] for a table that cannot take part, with the reason.
pub async fn sort_out(ctx: &CopyContext<'_>, source: &Session, names: &[String]) -> Result<Wanted, CopyError> {
    // Before the tables' rows are of the publication that is there by now.
    membership::publishes_all(source, ctx.settings.publications.names(), ctx.state).await?;
    let tables = ctx.tables(source).await?;
    let mut rows = ctx.state.tables().await?;
    follow_renames(ctx, &tables, &mut rows).await?;
    let published = publication_facts::tables(source, ctx.settings.publications.names()).await?;
    let rows: Rows<'_> = rows.iter().map(|row| (row.source_oid, row)).collect();
    let mut by_name: HashMap<String, Vec<&SourceTable>> = HashMap::new();
    for table in &tables {
        for name in std::iter::once(&table.name).chain(table.ancestors.iter().map(|above| &above.name)) {
            by_name.entry(name.sql()).or_default().push(table);
        }
    }
    let mut wanted = Wanted::default();
    for name in names {
        let Some(meant) = by_name.get(name).cloned() else {
            return Err(CopyError::NotHere { table: name.clone(), why: "the source does not have it" });
        };
        let is_known = |table: &SourceTable| rows.get(&table.oid).is_some_and(|row| row.state.takes_part());
        let needed = with_what_they_need(&tables, meant, is_known);
        let is_streamed = |oid| rows.get(&oid).is_some_and(|row| row.state.is_streamed());
        let is_alone = |table: &&SourceTable| {
            rows.get(&table.oid)
                .is_some_and(|row| switched::is_alone(table, row.state, (&published, &tables), &is_streamed))
        };
        let are_copied = needed.iter().copied().filter(|table| is_streamed(table.oid) || is_alone(table));
        require_names(ctx, &tables, are_copied, |table, other, there| table.oid == other.oid || table.name == *there)
            .await?;
        if let Some(switched) = needed.iter().find_map(|table| switched(table, &rows, (&published, &tables))) {
            let was = format!("was altered: {} {switched}", switched.root);
            let problem = who(&switched.publications, &was, &was);
            return Err(CopyError::Publication { problem, sql: switched.sql() });
        }
        let before = wanted.names().len();
        for table in needed {
            let asked = if table.name.sql() == *name { Asked::ByName } else { Asked::AsPart };
            if !comes_with_others(table, &rows, (&published, &tables), asked) {
                take(&mut wanted, table, &rows, asked)?;
            } else if table.part == Part::Included && !rows.contains_key(&table.oid) && !wanted.has_part(table) {
                wanted.parts.push(table.clone());
            }
        }
        if wanted.names().len() == before && !is_among(&wanted, name) {
            let asked = tables.iter().find(|table| table.name.sql() == *name);
            return Err(match asked.and_then(|table| root_in_name(&published, table)) {
                Some(root) => CopyError::InAnothersName { table: name.clone(), root: root.clone() },
                None => CopyError::NotHere { table: name.clone(), why: NOTHING_OF_ITS_OWN },
            });
        }
    }
    let is_again = |table: &&SourceTable| wanted.again.iter().any(|row| row.source_oid == table.oid);
    refuse_those_of_dropped_tables(ctx, &tables, &tables.iter().filter(is_again).collect::<Vec<_>>()).await?;
    require_mended(ctx, source, &wanted, &tables).await?;
    Ok(wanted)
}

/// Refuses tables whose columns have other names or types on the source by now: they are
/// copied by name, and which was which would be forgotten.
async fn require_mended(
    ctx: &CopyContext<'_>,
    source: &Session,
    wanted: &Wanted,
    tables: &[SourceTable],
) -> Result<(), CopyError> {
    let target = Session::connect(&ctx.settings.target, &ctx.settings.name).await?;
    let again: HashSet<u32> = wanted.again.iter().map(|row| row.source_oid).collect();
    let found = columns::look(ctx, tables, &HashSet::new(), (source, &target)).await?;
    if again.is_disjoint(&found.differing) {
        return Ok(());
    }
    let above = tables.iter().filter(|table| again.contains(&table.oid)).flat_map(|table| table.above());
    let meant: HashSet<u32> = above.chain(again.iter().copied()).collect();
    let (own, others): (Vec<&Gap>, Vec<&Gap>) = found.gaps.iter().partition(|gap| meant.contains(&gap.source_oid));
    // What several tables have, a type for one, is said of the first of them.
    let said = if own.is_empty() { others } else { own };
    Err(SchemaError::Mismatch(said.iter().map(ToString::to_string).collect()).into())
}

/// What the state says, by oid.
type Rows<'r> = HashMap<u32, &'r TableRow>;

/// Whether nothing is to be done for a table: its rows are copied with those of
/// others, or at the end.
fn comes_with_others(
    table: &SourceTable,
    rows: &Rows<'_>,
    (published, tables): (&HashMap<u32, Published>, &[SourceTable]),
    asked: Asked,
) -> bool {
    let is_streamed = |oid| rows.get(&oid).is_some_and(|row| row.state.is_streamed());
    let is_carried =
        root_in_name(published, table).is_some() && table.ancestors.iter().any(|above| is_streamed(above.oid));
    match rows.get(&table.oid).map(|row| row.state) {
        Some(state @ TableState::Within) => !switched::is_alone(table, state, (published, tables), &is_streamed),
        Some(TableState::Unlogged) if table.part == Part::Unlogged => asked == Asked::AsPart,
        Some(TableState::Excluded | TableState::Extension) | None if asked == Asked::AsPart => {
            is_carried || !matches!(table.part, Part::Included | Part::LetIn | Part::Unlogged)
        }
        _ => is_carried,
    }
}

/// Whether what `name` stands for is among those that are wanted already.
fn is_among(wanted: &Wanted, name: &str) -> bool {
    let is_it =
        |table: &SourceTable| table.name.sql() == name || table.ancestors.iter().any(|above| above.name.sql() == name);
    wanted.again.iter().any(|row| row.table.sql() == name) || wanted.new.iter().chain(&wanted.parts).any(is_it)
}

/// A member, or a new partition of one, whose rows come in another name by now than
/// they were copied in: no copy of it could be followed by the stream.
fn switched(
    table: &SourceTable,
    rows: &Rows<'_>,
    (published, tables): (&HashMap<u32, Published>, &[SourceTable]),
) -> Option<Switched> {
    let is_streamed = |oid| rows.get(&oid).is_some_and(|row| row.state.is_streamed());
    let takes_part = |oid| rows.get(&oid).is_some_and(|row| row.state.takes_part());
    // A new partition of a member is one as well.
    let is_leaf = table.shape == Shape::Plain;
    let is_new = is_leaf && !takes_part(table.oid) && table.ancestors.iter().any(|above| takes_part(above.oid));
    Some(table).filter(|table| is_streamed(table.oid) || is_new)?;
    switched::switched(table, published, tables, is_streamed)
}

/// These tables, and those that have to be there for them or come with them and
/// that nobody knows yet: what they are partitions of, with all of its partitions,
/// and what they inherit from.
fn with_what_they_need<'t>(
    tables: &'t [SourceTable],
    mut wanted: Vec<&'t SourceTable>,
    is_known: impl Fn(&SourceTable) -> bool,
) -> Vec<&'t SourceTable> {
    let mut seen: HashSet<u32> = wanted.iter().map(|table| table.oid).collect();
    let mut place = 0;
    while let Some(table) = wanted.get(place).copied() {
        place += 1;
        if table.ancestors.is_empty() && table.parents.is_empty() && table.shape == Shape::Plain {
            continue;
        }
        let is_above = |other: &SourceTable| table.is_below(other.oid) || table.parents.contains(&other.oid);
        let is_in = |other: &SourceTable| matches!(other.part, Part::Included | Part::LetIn | Part::Unlogged);
        let is_needed = |other: &&SourceTable| (is_above(other) || other.is_below(table.oid)) && is_in(other);
        for other in tables.iter().filter(is_needed).filter(|other| !is_known(other)) {
            if seen.insert(other.oid) {
                wanted.push(other);
            }
        }
    }
    wanted
}

/// Tables that have the same new name on both sides get it in the state: the stream
/// follows a rename only when it meets a change. So do those that are gone on the target,
/// where nothing but that name tells the one that somebody makes there for them.
async fn follow_renames(ctx: &CopyContext<'_>, tables: &[SourceTable], rows: &mut [TableRow]) -> Result<(), CopyError> {
    let names: HashMap<u32, &TableName> = tables.iter().map(|table| (table.oid, &table.name)).collect();
    let has_another = |row: &&mut TableRow| names.get(&row.source_oid).is_some_and(|name| **name != row.table);
    let mut renamed = rows.iter_mut().filter(has_another).peekable();
    if renamed.peek().is_none() {
        return Ok(());
    }
    let there = ctx.state.names_there().await?;
    let taken: HashSet<&TableName> = there.values().collect();
    for row in renamed {
        let Some(here) = names.get(&row.source_oid) else { continue };
        let is_followed = match there.get(&row.source_oid) {
            Some(there) => there == *here,
            None => !taken.contains(here),
        };
        if is_followed {
            ctx.state.rename_table(row.source_oid, here).await?;
            row.table = (*here).clone();
        }
    }
    Ok(())
}

/// How a table came to be among those that are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// By its own name.
    ByName,
    /// With another one, that it belongs to.
    AsPart,
}

/// Why an unlogged table cannot be copied beside a stream.
const UNLOGGED: &str = "it is unlogged, so nothing of it is in the stream: catchup --finish copies it, or make it logged on the \
     source (ALTER TABLE … SET LOGGED)";

/// The same of one that was copied.
const UNLOGGED_SINCE: &str =
    "it is unlogged by now, so nothing of it is in the stream: make it logged on the source (ALTER TABLE … SET LOGGED)";

/// Why there is nothing to copy of a table.
const NOTHING_OF_ITS_OWN: &str = "its rows come in the name of another table";

fn take(wanted: &mut Wanted, table: &SourceTable, rows: &Rows<'_>, asked: Asked) -> Result<(), CopyError> {
    let not_here = |why| Err(CopyError::NotHere { table: table.name.sql(), why });
    match (table.part, asked) {
        (Part::Included | Part::LetIn, _) | (Part::Unlogged, Asked::AsPart) => {}
        (Part::Filtered, _) => return not_here("the filter (--tables, --exclude-tables and the like) leaves it out"),
        (Part::OfExtension, _) => return not_here("it is an extension's own"),
        (Part::Unlogged, Asked::ByName) if rows.get(&table.oid).is_some_and(|row| row.state.is_streamed()) => {
            return not_here(UNLOGGED_SINCE);
        }
        (Part::Unlogged, Asked::ByName) => return not_here(UNLOGGED),
    }
    match rows.get(&table.oid).copied() {
        Some(row) if row.state.is_streamed() || row.state == TableState::Within => {
            if wanted.again.iter().all(|known| known.source_oid != row.source_oid) {
                wanted.again.push(row.clone());
            }
            Ok(())
        }
        _ => {
            if wanted.new.iter().all(|known| known.oid != table.oid) {
                let part = if table.part == Part::LetIn { Part::Included } else { table.part };
                wanted.new.push(SourceTable { part, ..table.clone() });
            }
            Ok(())
        }
    }
}

/// Empties tables of the migration, all in one transaction, and records that
/// they are to be copied. The stream passes their changes over from the moment
/// it looks at the state again: it must stand still, or not run.
///
/// # Errors
/// When the target refuses it, or somebody holds a lock on one of them.
pub async fn empty(ctx: &CopyContext<'_>, tables: &[TableRow]) -> Result<(), CopyError> {
    if tables.is_empty() {
        return Ok(());
    }
    let own = ctx.state.beside(emptying::session(ctx).await?).await?;
    let session = own.session();
    let action = "empty the tables";
    let run = async |sql: &str| session.batch_execute(sql).await.during(session.side(), action);
    let there = by_name(session, tables.iter().map(|row| &row.table)).await?;
    run(&format!("BEGIN; {LOCK_TIMEOUT}")).await?;
    emptying::empty(session, there.iter().map(|(name, t)| (name, t.shape)), action).await?;
    let oids: Vec<u32> = tables.iter().map(|row| row.source_oid).collect();
    own.tables_anew(&oids).await?;
    own.commit(action).await?;
    Ok(())
}

/// Publishes what is wanted, enters what is new and has its place, and empties the
/// others: from then on they are copied. The stream must stand still, or not run.
///
/// # Errors
/// When the publication cannot be changed, or the target refuses it: then no table
/// has been emptied.
pub async fn begin(ctx: &CopyContext<'_>, source: &Session, wanted: &Wanted) -> Result<(), CopyError> {
    let is_again = |table: &SourceTable| wanted.again.iter().any(|row| row.source_oid == table.oid);
    let again: Vec<SourceTable> = ctx.tables(source).await?.into_iter().filter(|table| is_again(table)).collect();
    plan::require_published_columns(ctx, source, &again).await?;
    let added = publication::include(ctx, source, &again).await?;
    let begun = async {
        enter(ctx, source, &wanted.new).await?;
        empty(ctx, &wanted.again).await
    };
    let result = begun.await;
    if result.is_err() {
        // Published and not emptied, their rows would lack the changes before.
        publication::take_out(source, &added).await?;
    }
    result
}

/// Enters new tables, which have their place: in the publication and in the
/// state. The stream must stand still, or not run: with the first change of a
/// table it asks whose it is.
///
/// # Errors
/// When the publication cannot be changed; then they are not entered.
pub async fn enter(ctx: &CopyContext<'_>, source: &Session, new: &[SourceTable]) -> Result<(), CopyError> {
    let added = publication::include(ctx, source, new).await?;
    let others: Vec<SourceTable> = new.iter().filter(|table| !added.has(&table.name)).cloned().collect();
    let entered = async {
        publication::notice(ctx, source, &others).await?;
        // Each as at the first copy: also those whose rows come in others' names.
        let published = publication_facts::tables(source, ctx.settings.publications.names()).await?;
        for table in new {
            let row = plan::entered(table, &published);
            let has_rows = table.shape == Shape::Plain && row.state == TableState::Within;
            if has_rows && root_in_name(&published, table).is_none() {
                return Err(CopyError::Elsewhere(table.name.clone()));
            }
            ctx.state.enter_tables(std::slice::from_ref(&row)).await?;
            // How the rows of a root that is published as one are parted is the target's.
            if root_in_name(&published, table).is_none() {
                ctx.state.came_later(&[table.oid]).await?;
            }
            ctx.state.journal(&format!("took in {}", row.table)).await?;
        }
        let present: Vec<u32> = ctx.tables(source).await?.iter().map(|table| table.oid).collect();
        Ok(ctx.state.forget_displaced(&present).await?)
    };
    let result = entered.await;
    if result.is_err() {
        // Published and not entered, they would end the stream.
        publication::take_out(source, &added).await?;
    }
    result
}

/// Tables that are published and that the migration does not have: somebody has
/// added them to a publication that is a list. (Of one for all tables a new
/// table's rows are all in the stream.)
///
/// # Errors
/// When the source or the state cannot be read.
pub async fn unknown(ctx: &CopyContext<'_>, source: &Session) -> Result<Vec<SourceTable>, CopyError> {
    if ctx.state.load().await?.is_none_or(|migration| migration.publishes_all_tables) {
        return Ok(Vec::new());
    }
    let known: HashSet<u32> = ctx.state.tables().await?.iter().map(|row| row.source_oid).collect();
    let tables = ctx.tables(source).await?;
    // Those that were vouched for come with the stream.
    let is_vouched = |table: &SourceTable| !ctx.settings.adopt.is_empty() && ctx.settings.adopt.includes(&table.name);
    let is_unknown =
        |table: &SourceTable| table.part == Part::Included && !known.contains(&table.oid) && !is_vouched(table);
    let unknown: Vec<SourceTable> = tables.iter().filter(|table| is_unknown(table)).cloned().collect();
    if unknown.is_empty() {
        return Ok(Vec::new());
    }
    let units: HashSet<u32> = plan::units(ctx, source, &unknown).await?.into_iter().map(|table| table.oid).collect();
    let units: Vec<&SourceTable> = tables.iter().filter(|table| units.contains(&table.oid)).collect();
    let needed = with_what_they_need(&tables, units, |table| known.contains(&table.oid) || is_vouched(table));
    Ok(needed.into_iter().cloned().collect())
}

/// Copies what is not finished, no stream being at work: the tables are ready
/// then, and the stream takes each up where its snapshot ends.
///
/// # Errors
/// [`CopyError`]; run again, it goes on with the tables that are not ready.
pub async fn between_runs(ctx: &CopyContext<'_>) -> Result<(), CopyError> {
    let tables = listed(ctx).await?;
    rest(ctx, &tables, None, Purpose::BetweenRuns).await
}

/// Copies what is not finished beside the stream, which passes its changes over.
///
/// # Errors
/// [`CopyError`]; run again, it begins with all of them anew.
pub async fn beside_stream(ctx: &CopyContext<'_>) -> Result<Copied, CopyError> {
    let tables = listed(ctx).await?;
    let source = Session::connect(&ctx.settings.source, &ctx.settings.name).await?;
    let (mut replication, created) = slot::create_temporary(ctx, &source, Need::Urgent).await?;
    let exported = created.snapshot.ok_or_else(|| CopyError::NoSnapshot(created.name.clone()))?;
    let keeper = Keeper::import(ctx.settings, &exported).await?;
    keeper.settle(&source).await?;
    let point = created.consistent_point;
    let jobs = plan::jobs(ctx, &tables).await?;
    let snapshots = Snapshots::new(ctx);
    let seeds = jobs.iter().map(|job| (job.seed, ctx.memory.of(&job.table)));
    let board = Board::new(seeds, ctx.settings.index_jobs);
    let ready_before = tables.iter().filter(|table| table.part == Part::Included).count().saturating_sub(jobs.len());
    let crew = Crew {
        ctx,
        board: &board,
        snapshots: &snapshots,
        pace: Pace::new(ctx.settings.copy_rate),
        jobs: &jobs,
        ready_before,
        purpose: Purpose::BesideStream,
    };
    let copying = async {
        snapshots.hold(Held::first(point, keeper), &jobs, &board).await?;
        tokio::select! {
            biased;
            result = workers::run(&crew) => result,
            // What is read under a later one, the second stream takes up there.
            error = snapshots.keep(&jobs, &board) => Err(error),
        }
    };
    let stopped = async {
        ctx.shutdown.cancelled().await;
        snapshots.not_creating().await;
    };
    let result = tokio::select! {
        biased;
        () = stopped => Err(CopyError::Stopped),
        result = copying => result,
        error = awake(&mut replication) => Err(error),
    };
    finish(ctx, &board, &jobs, result)?;
    Ok(Copied { replication, slot: created.name, point })
}

/// The tables of the source; those that are not finished are emptied, as the
/// stream may have passed changes over since they were begun, and published.
async fn listed(ctx: &CopyContext<'_>) -> Result<Vec<SourceTable>, CopyError> {
    let source = Session::connect(&ctx.settings.source, &ctx.settings.name).await?;
    let unfinished: Vec<TableRow> = ctx.state.tables().await?.into_iter().filter(TableRow::is_unfinished).collect();
    empty(ctx, &unfinished).await?;
    let tables = ctx.tables(&source).await?;
    let ours: Vec<SourceTable> =
        tables.iter().filter(|table| unfinished.iter().any(|row| row.source_oid == table.oid)).cloned().collect();
    publication::include(ctx, &source, &ours).await?;
    Ok(tables)
}

/// Keeps the connection that has the slot; returns when it is lost.
async fn awake(replication: &mut Replication) -> CopyError {
    loop {
        sleep(AWAKE_EVERY).await;
        if let Err(error) = replication.identify_system().await {
            return error.into();
        }
    }
}
