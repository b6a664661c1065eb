//! `walferry resync` and `walferry add`: a running daemon is asked, and watched;
//! where there is none the command does it itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{again, ahead};
use crate::border::visible;
use crate::catalog::publication::{self, Published, RowsRead};
use crate::catalog::tables::Detail;
use crate::catalog::wal;
use crate::config::{Settings, TableFilter};
use crate::copy::{anew, room};
use crate::fault::LEASED;
use crate::membership::{self, Known, Part, SourceTable, publishing};
use crate::observe::progress::TableProgress;
use crate::run::{Context, Error, Finish, begin, finish, identify, prepare, retried, same_objects};
use crate::session::Session;
use crate::sql::TableName;
use crate::state::control::Answer;
use crate::state::resume::{compare_end, compare_source};
use crate::state::tables::{TableRow, TableState};
use crate::state::{State, StateError};
use crate::words;

/// Pause between two looks at how far the daemon is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Which tables are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Tables of the migration.
    Resync,
    /// Tables that it does not have yet.
    Add,
}

/// What was done.
#[derive(Clone, Debug, Serialize)]
pub struct ResyncReport {
    /// The tables.
    pub tables: Vec<ResyncedTable>,
    /// Tables that were to be taken in, and that the migration has already, whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub present: Vec<String>,
    /// Whether a running daemon did it, beside its stream.
    pub by_daemon: bool,
    /// How long it took.
    pub seconds: f64,
}

/// A table that was copied.
#[derive(Clone, Debug, Serialize)]
pub struct ResyncedTable {
    /// Its name.
    pub table: String,
    /// Rows copied.
    pub rows: i64,
    /// Bytes of COPY data.
    pub bytes: i64,
    /// The stream takes the table up here; none yet while the first copy is not
    /// complete, and the next `run` copies the table.
    pub snapshot_lsn: Option<String>,
    /// The condition that its rows had to meet, where not all are published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row_filter: Option<String>,
}

impl fmt::Display for ResyncReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            match &table.snapshot_lsn {
                Some(from) => {
                    let filter = table.row_filter.as_ref();
                    let only = filter.map(|filter| format!(" (only those WHERE {} are published)", visible(filter)));
                    let (only, ResyncedTable { table, rows, .. }) = (only.unwrap_or_default(), table);
                    writeln!(f, "{table}: {rows} rows copied{only}; the stream has it from {from} on")?
                }
                None => writeln!(f, "{}: emptied; the next \"walferry run\" copies it anew", table.table)?,
            }
        }
        if !self.present.is_empty() {
            write!(f, "{}: the migration has it already", words::listed(&self.present))?;
            match self.tables.is_empty() {
                true => return Ok(()),
                false => writeln!(f)?,
            }
        }
        let by = if self.by_daemon { "beside the running stream" } else { "no daemon is running" };
        write!(f, "{} in {:.1} s, {by}", words::count(self.tables.len(), "table"), self.seconds)
    }
}

/// Copies the tables that fit `patterns`.
///
/// # Errors
/// [`Error::Usage`] for a pattern without a table; what kept the tables from
/// being copied.
pub async fn command(
    settings: Settings,
    kind: Kind,
    patterns: &[String],
    shutdown: CancellationToken,
) -> Result<ResyncReport, Error> {
    let begun = Instant::now();
    let ctx = Context::new(settings, shutdown)?;
    let flag = if kind == Kind::Add { "add" } else { "resync" };
    let patterns =
        patterns.iter().map(|pattern| Ok((pattern.as_str(), TableFilter::only(flag, std::slice::from_ref(pattern))?)));
    let patterns = patterns.collect::<Result<Vec<_>, Error>>()?;
    if kind == Kind::Resync && !is_copied(&ctx).await? {
        let state = state(&ctx).await?;
        let waiting = |table: TableName| ResyncedTable {
            table: table.to_string(),
            rows: 0,
            bytes: 0,
            snapshot_lsn: None,
            row_filter: None,
        };
        if let Some(tables) = again::let_wait(&ctx, &state, &patterns).await? {
            let tables = tables.into_iter().map(waiting).collect();
            let seconds = begun.elapsed().as_secs_f64();
            return Ok(ResyncReport { tables, present: Vec::new(), by_daemon: false, seconds });
        }
    }
    let Meant { names, present } = names(&ctx, kind, &patterns).await?;
    let present: Vec<String> = present.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        let seconds = begun.elapsed().as_secs_f64();
        return Ok(ResyncReport { tables: Vec::new(), present, by_daemon: false, seconds });
    }
    let (names, bytes): (Vec<TableName>, Vec<u64>) = names.into_iter().unzip();
    ctx.progress.begin(names.len(), bytes.iter().sum());
    let sizes = names.iter().cloned().zip(bytes).collect();
    let by_daemon = retried(&ctx, || attempt(&ctx, &names, &sizes)).await?;
    let rows = state(&ctx).await?.tables().await?;
    let copied = rows.into_iter().filter(|row| row.state.is_streamed() && names.contains(&row.table));
    let table = |row: TableRow| ResyncedTable {
        table: row.table.to_string(),
        rows: row.rows,
        bytes: row.bytes,
        snapshot_lsn: row.snapshot_lsn.map(|lsn| lsn.lsn().to_string()),
        row_filter: match row.origin.via.as_deref().map(publication::rows_read) {
            Some(RowsRead::Meeting(condition)) => Some(condition),
            Some(RowsRead::All | RowsRead::Unknown) | None => None,
        },
    };
    let seconds = begun.elapsed().as_secs_f64();
    Ok(ResyncReport { tables: copied.map(table).collect(), present, by_daemon, seconds })
}

/// Whether the migration's first copy is complete.
async fn is_copied(ctx: &Context) -> Result<bool, Error> {
    let state = state(ctx).await?;
    let migration = state.load().await?.ok_or_else(|| StateError::NoMigration(state.name().to_owned()))?;
    Ok(migration.copied)
}

async fn state(ctx: &Context) -> Result<State, Error> {
    let session = Session::connect(&ctx.settings.target, &ctx.settings.name).await?;
    Ok(State::open(session, &ctx.settings.name).await?)
}

/// The tables that fit patterns.
#[derive(Debug, Default)]
struct Meant {
    /// Those to be copied, with their sizes in bytes.
    names: Vec<(TableName, u64)>,
    /// Those to be taken in that are there already.
    present: Vec<TableName>,
}

/// The tables that fit the patterns; each pattern has one at least.
async fn names(ctx: &Context, kind: Kind, patterns: &[(&str, TableFilter)]) -> Result<Meant, Error> {
    let state = state(ctx).await?;
    let migration = state.load().await?.ok_or_else(|| StateError::NoMigration(state.name().to_owned()))?;
    if !migration.copied {
        return Err(Error::NotCopied { name: ctx.settings.name.clone() });
    }
    same_objects(&ctx.settings, &migration)?;
    finish::require_not_ended(&migration, &state).await?;
    // Before its tables are looked for on a source that is another one.
    compare_source(&migration.source, &identify(&ctx.settings).await?.1)?;
    let source = ctx.source().await?;
    let position = state.position(migration.slot.name()).await?.map(|position| position.lsn());
    compare_end(position, wal::kept(&source).await?)?;
    let tables = membership::of(&source, &ctx.settings.filter, &state, Detail::Full).await?;
    let rows = state.tables().await?;
    // Where tables to come are published, all tables are also those that came since.
    let comes_along = kind == Kind::Resync && migration.publishes_all_tables;
    let published = publication::tables(&source, ctx.settings.publications.names()).await?;
    let filter = &ctx.settings.filter;
    let states = rows.iter().map(|row| (row.source_oid, row.state)).collect();
    let choice = Choice { kind, tables: &tables, rows: &rows, states, published: &published, filter, comes_along };
    let (mut names, mut present) = (Vec::new(), Vec::new());
    for (text, pattern) in patterns {
        let fit = choice.of(text, pattern)?;
        names.extend(fit.to_copy.into_iter().map(|table| table.name.clone()));
        present.extend(fit.present.into_iter().map(|table| table.name.clone()));
    }
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Ok(Meant { names: Vec::new(), present });
    }
    let copy = ctx.copy(&state);
    let wanted = anew::sort_out(&copy, &source, &names.iter().map(TableName::sql).collect::<Vec<_>>()).await?;
    if kind == Kind::Resync {
        take_away_again(ctx, &state).await?;
    }
    room::require_possible(&copy, &source, &wanted).await?;
    let size = |name: &TableName| tables.iter().find(|table| table.name == *name).map_or(0, |table| table.bytes);
    let names = wanted.names().into_iter().map(|name| (name.clone(), size(&name))).collect();
    Ok(Meant { names, present })
}

/// What patterns choose from.
struct Choice<'a> {
    kind: Kind,
    tables: &'a [SourceTable],
    rows: &'a [TableRow],
    states: Known,
    published: &'a HashMap<u32, Published>,
    filter: &'a TableFilter,
    comes_along: bool,
}

/// The tables that fit one pattern.
struct Fit<'a> {
    to_copy: Vec<&'a SourceTable>,
    /// Those that the migration has already, where all are to be taken in.
    present: Vec<&'a SourceTable>,
}

impl<'a> Choice<'a> {
    /// One at least.
    fn of(&self, text: &str, pattern: &TableFilter) -> Result<Fit<'a>, Error> {
        let is_meant = |table: &&SourceTable| {
            pattern.includes(&table.name) || table.ancestors.iter().any(|a| pattern.includes(&a.name))
        };
        let is_left_out =
            |table: &&SourceTable| self.kind == Kind::Resync && membership::is_excluded(self.filter, table);
        let (left_out, meant): (Vec<&SourceTable>, Vec<&SourceTable>) =
            self.tables.iter().filter(is_meant).partition(is_left_out);
        if meant.is_empty()
            && let Some(first) = left_out.first()
        {
            return Err(Error::Usage(format!("{text}: --exclude-tables and the like leave out {}", first.name)));
        }
        let is_fit = |table: &&SourceTable| self.is_ours(table) == (self.kind == Kind::Resync);
        let mut fit: Vec<&SourceTable> = meant.iter().copied().filter(is_fit).collect();
        if fit.iter().any(|table| self.is_streamed(table)) {
            // The others' rows come with theirs.
            fit.retain(|table| self.is_streamed(table));
        } else if self.kind == Kind::Resync {
            // What is detached from a root comes with its partitions.
            let above: Vec<u32> = fit.iter().map(|table| table.oid).collect();
            fit.retain(|table| !above.iter().any(|above| table.is_below(*above)));
        }
        if self.comes_along && (!fit.is_empty() || text.contains('*')) {
            fit.extend(meant.iter().copied().filter(|table| self.is_new(table)));
        }
        if fit.len() > 1 {
            fit.retain(|table| !is_passed_over(table));
        }
        if !fit.is_empty() {
            return Ok(Fit { to_copy: fit, present: Vec::new() });
        }
        if self.kind == Kind::Add && !meant.is_empty() && are_whole(&meant, self.tables, self.rows) {
            let present = meant.into_iter().filter(|table| pattern.includes(&table.name)).collect();
            return Ok(Fit { to_copy: Vec::new(), present });
        }
        let is_any_left = self.tables.iter().any(|table| self.is_ours(table));
        let why = none_fits(self.kind, &meant, is_any_left, |table| self.is_ours(table));
        Err(Error::Usage(format!("{text}: {why}")))
    }

    fn has_state(&self, table: &SourceTable, is_it: impl Fn(TableState) -> bool) -> bool {
        self.states.get(&table.oid).is_some_and(|state| is_it(*state))
    }

    fn is_streamed(&self, table: &SourceTable) -> bool {
        self.has_state(table, TableState::is_streamed)
    }

    fn is_ours(&self, table: &SourceTable) -> bool {
        self.has_state(table, |state| state.is_streamed() || state == TableState::Within)
    }

    fn is_new(&self, table: &SourceTable) -> bool {
        table.part == Part::Included
            && !self.has_state(table, |_| true)
            && publishing::root_in_name(self.published, table).is_none()
    }
}

/// Why no table of these is to be copied.
fn none_fits(
    kind: Kind,
    meant: &[&SourceTable],
    is_any_left: bool,
    is_ours: impl Fn(&SourceTable) -> bool,
) -> &'static str {
    match kind {
        Kind::Resync if !is_any_left => NONE_LEFT,
        _ if meant.is_empty() => "no table of the source fits it",
        Kind::Resync if meant.iter().any(|table| is_ours(table)) => ALL_UNLOGGED,
        Kind::Resync => "the migration does not have it: see \"walferry add\"",
        Kind::Add => "the migration has it, and it is not complete: see \"walferry resync\"",
    }
}

/// Why there is nothing to copy anew.
const NONE_LEFT: &str = "no table is left in the migration: those that it had are gone from the source, or left out by now; \
     \"walferry add\" takes in others";

/// The same of what the migration has.
const ALL_UNLOGGED: &str = "what fits it is unlogged on the source by now, so its changes are in no stream";

/// Whether these tables, what is below them and what they are partitions of are complete.
fn are_whole(meant: &[&SourceTable], tables: &[SourceTable], rows: &[TableRow]) -> bool {
    let is_in = |oid: u32| {
        meant.iter().any(|table| table.oid == oid || table.is_below(oid))
            || tables.iter().any(|table| table.oid == oid && meant.iter().any(|above| table.is_below(above.oid)))
    };
    !rows.iter().any(|row| row.is_unfinished() && is_in(row.source_oid))
}

/// Takes away again what an end has brought in that did not end well, as every run does
/// as it begins: a daemon that is at work has done so.
async fn take_away_again(ctx: &Context, state: &State) -> Result<(), Error> {
    match state.take_lease().await {
        Err(StateError::Leased { .. }) => Ok(()),
        taken => {
            taken?;
            finish::reopen(ctx, state, Finish::No).await?;
            Ok(state.release_lease().await?)
        }
    }
}

/// Of several tables those are passed over that are unlogged by now.
fn is_passed_over(table: &SourceTable) -> bool {
    let is_unlogged = table.part == Part::Unlogged;
    if is_unlogged {
        warn!(table = %table.name, "it is unlogged on the source by now, so its changes are in no stream: it is not copied with the others");
    }
    is_unlogged
}

/// Asks the daemon, or does it; says which.
async fn attempt(ctx: &Context, names: &[TableName], sizes: &HashMap<TableName, u64>) -> Result<bool, Error> {
    let state = Arc::new(state(ctx).await?);
    if state.take_lease().await.is_ok() {
        between_runs(ctx, &state, names).await?;
        return Ok(false);
    }
    let id = state.request_resync(names, &format!("process {} on {}", ctx.pid, ctx.hostname)).await?;
    info!(tables = names.len(), "asking the daemon");
    let mut board = Board { sizes, bars: HashMap::new() };
    let mut silence = Silence::default();
    loop {
        if let Some(answer) = state.answer_to(id).await? {
            return match answer {
                Answer::Done => Ok(true),
                Answer::NotDone(why) => Err(Error::NotResynced { why }),
            };
        }
        board.show(ctx, state.tables().await?.into_iter().filter(|row| names.contains(&row.table)));
        // A daemon that has ended answers nothing.
        if state.take_lease().await.is_ok() {
            info!("the daemon has ended: going on without it");
            between_runs(ctx, &state, names).await?;
            state.answer_request(id, &Answer::Done).await?;
            return Ok(false);
        }
        silence.say(&state).await?;
        tokio::select! {
            () = ctx.shutdown.cancelled() => {
                info!("the daemon goes on with it");
                return Err(Error::Interrupted);
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// A daemon that is at work shows it every few seconds.
const SILENT: Duration = Duration::from_secs(10);

/// What has been said of a daemon that gives no sign of life.
#[derive(Default)]
struct Silence {
    /// For how long it had given none.
    said: Option<Duration>,
}

impl Silence {
    /// Says so, and again when that has lasted twice as long.
    async fn say(&mut self, state: &State) -> Result<(), Error> {
        let silent = state.silent_for().await?;
        if silent < SILENT {
            self.said = None;
        } else if self.said.is_none_or(|said| silent >= 2 * said) {
            self.said = Some(silent);
            let holder =
                state.load().await?.map_or_else(|| "another process".to_owned(), |migration| migration.holder());
            let seconds = silent.as_secs();
            warn!(
                "{holder} holds the lease of the migration and has given no sign of life for {seconds} s: it is waited for; \
                 to go on without it, {LEASED}"
            );
        }
        Ok(())
    }
}

/// With the lease held: no stream is at work.
async fn between_runs(ctx: &Context, state: &Arc<State>, names: &[TableName]) -> Result<(), Error> {
    let (replication, found) = identify(&ctx.settings).await?;
    drop(replication);
    let migration = prepare(ctx, state, &found).await?;
    let copy = ctx.copy(state);
    let source = Session::connect(&ctx.settings.source, &ctx.settings.name).await?;
    let wanted = anew::sort_out(&copy, &source, &names.iter().map(TableName::sql).collect::<Vec<_>>()).await?;
    ahead::require_stream(ctx, (state, &migration), &source, &wanted).await?;
    begin(ctx, state).await?;
    ctx.established();
    room::make_room(&copy, &source, &wanted).await?;
    anew::begin(&copy, &source, &wanted).await?;
    drop(source);
    super::between_runs(ctx, state).await?;
    ahead::leave_behind(ctx, state).await?;
    state.release_lease().await?;
    Ok(())
}

/// The daemon's progress, from the state.
struct Board<'a> {
    sizes: &'a HashMap<TableName, u64>,
    bars: HashMap<TableName, (TableProgress, u64, u64)>,
}

impl Board<'_> {
    fn show(&mut self, ctx: &Context, rows: impl Iterator<Item = TableRow>) {
        for row in rows.filter(|row| row.state == TableState::Copying) {
            let (rows, bytes) = (u64::try_from(row.rows).unwrap_or(0), u64::try_from(row.bytes).unwrap_or(0));
            let size = self.sizes.get(&row.table).copied().unwrap_or_default();
            let entry = self.bars.entry(row.table.clone());
            let (bar, had_rows, had_bytes) = entry.or_insert_with(|| (ctx.progress.table(&row.table, size), 0, 0));
            if rows > *had_rows {
                bar.advance(rows - *had_rows, bytes.saturating_sub(*had_bytes));
                (*had_rows, *had_bytes) = (rows, bytes);
            }
        }
    }
}
