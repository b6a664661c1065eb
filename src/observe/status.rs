//! The status document: what `walferry status` prints and `/status` serves.
//!
//! Invariant: it is read from the target's state and the source's slot only,
//! so it is the same with and without a daemon; every key is always there, and
//! null is what is not known. Reading changes nothing on either side.

use std::fmt;

pub use without_stream::WithoutStream;

use serde::{Deserialize, Serialize};

use crate::border::{indented, visible};
use crate::catalog;
use crate::config::{Settings, Side};
use crate::fault::Fault;
use crate::lsn::Lsn;
use crate::session::{DbError, Session};
use crate::sql::TableName;
use crate::state::large_objects::LargeObjectsRow;
use crate::state::migration::{Migration, Phase, SourceIdentity};
use crate::state::resume::compare_source;
use crate::state::tables::TableState;
use crate::state::{State, StateError};
use crate::wire::WireError;
use crate::words::listed_of;

/// A position that moved lately and has at most this many bytes to go is
/// seconds behind, whatever the age of the last commit: an idle source still
/// writes WAL (checkpoints, snapshots of running transactions: a few KiB with
/// full pages), and that must not look like lag.
const IDLE_LAG_BYTES: u64 = 64 << 10;

/// Sequences named in a document; the others are counted.
const PROBLEMS_MAX: i64 = 1000;

/// Lines for people about one kind of object; the others are counted: a
/// database can have thousands of tables.
const SHOWN: usize = 30;

/// Why there is no status document.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The target cannot be reached.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A query failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// There is no such migration, or its state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

impl StatusError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            StatusError::Wire(error) => error.fault(),
            StatusError::Db(error) => error.fault(),
            StatusError::State(error) => error.fault(),
        }
    }
}

/// How a migration stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// The migration.
    pub name: String,
    /// `setup`, `copy`, `stream`, `stopped`, `cutover` or `done`.
    pub phase: Phase,
    /// The end LSN up to which the target has committed everything; null
    /// before the copy is complete.
    pub position: Option<String>,
    /// The source's WAL end: as of now, or as last heard if it cannot be reached.
    pub source_lsn: Option<String>,
    /// `source_lsn` minus `position`, in bytes.
    pub lag_bytes: Option<u64>,
    /// An upper bound for the age of the oldest commit that is not applied: 0
    /// when no WAL is outstanding, else the time since the last commit that was
    /// applied (or since the position moved, when that leaves next to nothing).
    pub lag_seconds: Option<f64>,
    /// The process at work.
    pub daemon: Daemon,
    /// The slot; null if the source cannot be reached.
    pub slot: Option<Slot>,
    /// The tables that take part.
    pub tables: Vec<Table>,
    /// The sequences as of the last pass.
    pub sequences: Sequences,
    /// The large objects as of the last pass.
    pub large_objects: LargeObjects,
    /// What has no stream and comes at the end, or not at all.
    pub without_stream: Vec<WithoutStream>,
    /// Why the last process ended; null while one is at work or none was needed.
    pub stopped_because: Option<String>,
}

/// The process at work, or the last one that was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// Whether the lease is held.
    pub alive: bool,
    /// Its host.
    pub host: Option<String>,
    /// Its process id there.
    pub pid: Option<i32>,
}

/// The replication slot on the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Whether a walsender uses it.
    pub active: bool,
    /// WAL that it holds back, in bytes.
    pub retained_bytes: Option<i64>,
    /// WAL that may still be written before it is lost; null without a limit
    /// and before PostgreSQL 13.
    pub safe_wal_bytes: Option<i64>,
    /// `reserved`, `extended`, `unreserved` or `lost`, null before PostgreSQL
    /// 13; `missing` when there is no such slot.
    pub wal_status: Option<String>,
}

/// A table of the migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `waiting`, `copying`, `indexing`, `joining` or `ready`.
    pub state: TableState,
    /// Rows copied.
    pub rows: i64,
    /// Bytes of COPY data copied.
    pub bytes: i64,
    /// The LSN its copy stands for.
    pub snapshot_lsn: Option<String>,
}

/// The sequences as of the last pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequences {
    /// How many take part.
    pub total: i64,
    /// How many could not be brought to the source's value or definition.
    pub behind: i64,
    /// When it ended, ISO 8601.
    pub last_pass: Option<String>,
    /// Which are behind, and which are defined otherwise; the first thousand.
    #[serde(default)]
    pub problems: Vec<SequenceTrouble>,
}

/// A sequence that is not as on the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceTrouble {
    /// Its schema on the source.
    pub schema: String,
    /// Its name there.
    pub name: String,
    /// Whether the last pass of `catchup` would refuse it.
    pub behind: bool,
    /// What is wrong, and what to do.
    pub problem: String,
}

/// The large objects as of the last pass.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LargeObjects {
    /// How many the source had.
    pub total: i64,
    /// Bytes of their pages on the source, which a pass reads.
    pub bytes: i64,
    /// How many our role may not read there: these are not carried.
    pub unreadable: i64,
    /// The first of them.
    pub unreadable_oids: Vec<u32>,
    /// How long the last pass took, its pauses left out: what the last one of
    /// all is likely to take.
    pub final_pass_seconds: Option<f64>,
    /// When it ended, ISO 8601.
    pub last_pass: Option<String>,
}

impl From<LargeObjectsRow> for LargeObjects {
    fn from(row: LargeObjectsRow) -> Self {
        let LargeObjectsRow { total, bytes, last_pass, pass_seconds, unreadable, unreadable_oids, .. } = row;
        LargeObjects { total, bytes, unreadable, unreadable_oids, final_pass_seconds: pass_seconds, last_pass }
    }
}

/// Collects the document over sessions of its own. A source that cannot be
/// reached, or is another than the migration's, is a warning and leaves `slot` null.
///
/// # Errors
/// When the target cannot be reached or knows no such migration.
pub async fn collect(settings: &Settings) -> Result<StatusDocument, StatusError> {
    let target = Session::connect(&settings.target, &settings.name).await?;
    target.answer_within(settings.target.answer_timeout());
    let state = State::open(target, &settings.name).await?;
    let source = match source_of(settings, &state).await {
        Ok(session) => Some(session),
        Err(why) => {
            without_source(&why);
            None
        }
    };
    match collect_with(source.as_ref(), &state).await {
        Err(StatusError::Db(error)) if error.side == Side::Source && error.fault().is_retried() => {
            without_source(&error.to_string());
            collect_with(None, &state).await
        }
        outcome => outcome,
    }
}

fn without_source(why: &str) {
    tracing::warn!("the status is without the source's side: {why}");
}

/// The source, unless it is another than the migration's: a slot of the name is another's there.
async fn source_of(settings: &Settings, state: &State) -> Result<Session, String> {
    let session = Session::connect(&settings.source, &settings.name).await.map_err(|error| error.to_string())?;
    session.answer_within(settings.source.answer_timeout());
    let began = state.load().await.ok().flatten();
    // One that has no connection left for that may be asked for the rest.
    if let (Some(migration), Ok((_, found))) = (began, SourceIdentity::ask(&settings.source, &settings.name).await) {
        compare_source(&migration.source, &found).map_err(|error| error.to_string())?;
    }
    Ok(session)
}

/// Collects the document over sessions that are there.
///
/// # Errors
/// When a query fails or there is no such migration.
pub async fn collect_with(source: Option<&Session>, state: &State) -> Result<StatusDocument, StatusError> {
    let migration = state.load().await?.ok_or_else(|| StateError::NoMigration(state.name().to_owned()))?;
    let side = match source {
        Some(session) => Some(source_side(session, migration.slot.name()).await?),
        None => None,
    };
    let position = position(state, migration.slot.name()).await?;
    let source_lsn = side.as_ref().map(|side| side.wal_end).or(migration.source_lsn);
    let lag_bytes = position.as_ref().zip(source_lsn).map(|(position, end)| end.bytes_since(position.end));
    let alive = state.is_leased().await?;
    let large_objects = state.large_objects().await?;
    Ok(StatusDocument {
        name: state.name().to_owned(),
        phase: migration.phase,
        lag_seconds: position.as_ref().zip(lag_bytes).map(|(position, bytes)| position.lag_seconds(bytes)),
        position: position.map(|position| position.end.to_string()),
        source_lsn: source_lsn.map(|lsn| lsn.to_string()),
        lag_bytes,
        daemon: daemon(&migration, alive),
        slot: side.map(|side| side.slot),
        tables: tables(state).await?,
        sequences: sequences(state).await?,
        large_objects: large_objects.unwrap_or_default().into(),
        without_stream: without_stream::list(state).await?,
        stopped_because: migration.stopped_because,
    })
}

fn daemon(migration: &Migration, alive: bool) -> Daemon {
    let (host, pid) = migration.daemon.clone().unzip();
    Daemon { alive, host, pid }
}

async fn tables(state: &State) -> Result<Vec<Table>, StatusError> {
    let rows = state.tables().await?;
    let taking_part = rows.into_iter().filter(|row| row.state.is_streamed());
    Ok(taking_part
        .map(|row| Table {
            schema: row.table.schema,
            name: row.table.name,
            state: row.state,
            rows: row.rows,
            bytes: row.bytes,
            snapshot_lsn: row.snapshot_lsn.map(|lsn| lsn.lsn().to_string()),
        })
        .collect())
}

async fn sequences(state: &State) -> Result<Sequences, StatusError> {
    let counts = state.sequence_counts().await?;
    let trouble = |(sequence, behind, problem): (TableName, bool, String)| SequenceTrouble {
        schema: sequence.schema,
        name: sequence.name,
        behind,
        problem,
    };
    let problems = state.sequence_problems(PROBLEMS_MAX).await?.into_iter().map(trouble).collect();
    Ok(Sequences { total: counts.total, behind: counts.behind, last_pass: counts.last_pass, problems })
}

/// What the source says.
struct SourceSide {
    wal_end: Lsn,
    slot: Slot,
}

async fn source_side(source: &Session, name: &str) -> Result<SourceSide, DbError> {
    let (found, wal_end) = tokio::try_join!(catalog::slot::find(source, name), catalog::wal::end(source))?;
    let wal_status = match &found {
        Some(slot) => slot.wal_status.map(|status| status.to_string()),
        None => Some("missing".to_owned()),
    };
    let slot = Slot {
        name: name.to_owned(),
        active: found.as_ref().is_some_and(|slot| slot.active_pid.is_some()),
        retained_bytes: found.as_ref().and_then(|slot| slot.retained_bytes(wal_end)),
        safe_wal_bytes: found.as_ref().and_then(|slot| slot.safe_wal_bytes),
        wal_status,
    };
    Ok(SourceSide { wal_end, slot })
}

/// The position with the ages that the target's clock gives it.
struct Position {
    end: Lsn,
    /// Seconds since the last transaction that was applied was committed.
    commit_age: Option<f64>,
    /// Seconds since the position moved.
    moved_age: f64,
}

impl Position {
    fn lag_seconds(&self, lag_bytes: u64) -> f64 {
        let oldest = self.commit_age.unwrap_or(self.moved_age);
        match lag_bytes {
            0 => 0.0,
            // Two clocks are compared: a commit of the future is one of now.
            1..=IDLE_LAG_BYTES => oldest.min(self.moved_age).max(0.0),
            _ => oldest.max(0.0),
        }
    }
}

async fn position(state: &State, slot: &str) -> Result<Option<Position>, StatusError> {
    let rows = state
        .query(
            "SELECT end_lsn, extract(epoch FROM clock_timestamp() - commit_time)::float8, \
             extract(epoch FROM clock_timestamp() - moved_at)::float8 FROM walferry.position WHERE slot = $1",
            &[&slot],
            "read the position",
        )
        .await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Position { end: row.take(0)?, commit_age: row.take(1)?, moved_age: row.take(2)? }))
}

/// For people: one fact a line, and only the tables that are not ready.
impl fmt::Display for StatusDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = || "-".to_owned();
        let text = |value: &Option<String>| value.clone().unwrap_or_else(unknown);
        writeln!(f, "migration      {}", visible(&self.name))?;
        writeln!(f, "phase          {}", self.phase)?;
        if let Some(because) = &self.stopped_because {
            writeln!(f, "stopped        {}", indented(because, 17))?;
        }
        writeln!(f, "daemon         {}", self.daemon)?;
        writeln!(f, "position       {} of {}", text(&self.position), text(&self.source_lsn))?;
        let bytes = self.lag_bytes.map_or_else(unknown, |bytes| human_bytes(bytes as f64));
        let seconds = self.lag_seconds.map_or_else(unknown, |seconds| format!("{seconds:.1} s"));
        writeln!(f, "lag            {bytes}, {seconds}")?;
        match &self.slot {
            Some(slot) => writeln!(f, "slot           {slot}")?,
            None => writeln!(f, "slot           not known: the source cannot be reached")?,
        }
        self.fmt_tables(f)?;
        self.fmt_sequences(f)?;
        self.fmt_large_objects(f)?;
        self.fmt_without_stream(f)
    }
}

impl StatusDocument {
    fn fmt_without_stream(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.without_stream.is_empty() {
            return Ok(());
        }
        write!(f, "\nwithout stream {}", self.without_stream.len())?;
        for relation in self.without_stream.iter().take(SHOWN) {
            write!(f, "\n  {relation}")?;
        }
        match self.without_stream.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }

    fn fmt_large_objects(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LargeObjects { total, unreadable, unreadable_oids, final_pass_seconds, last_pass, .. } =
            &self.large_objects;
        write!(f, "large objects  {total}, last pass {}", last_pass.as_deref().unwrap_or("-"))?;
        if let Some(seconds) = final_pass_seconds.filter(|_| *total > 0) {
            write!(f, ", the final one takes about {seconds:.1} s")?;
        }
        if *unreadable > 0 {
            write!(
                f,
                "\n  not readable: {unreadable} ({})",
                listed_of(unreadable_oids, u64::try_from(*unreadable).unwrap_or(0))
            )?;
        }
        Ok(())
    }

    fn fmt_tables(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = self.tables.iter().filter(|table| table.state == TableState::Ready).count();
        let all = self.tables.len();
        let percent = (ready * 100).checked_div(all).unwrap_or(100);
        let rows: i64 = self.tables.iter().map(|table| table.rows).sum();
        let bytes: i64 = self.tables.iter().map(|table| table.bytes).sum();
        let bytes = human_bytes(bytes as f64);
        writeln!(f, "tables         {ready} of {all} ready ({percent} %), {rows} rows, {bytes} copied")?;
        let mut open = self.tables.iter().filter(|table| table.state != TableState::Ready);
        for table in open.by_ref().take(SHOWN) {
            let name = TableName::new(&table.schema, &table.name);
            let bytes = human_bytes(table.bytes as f64);
            writeln!(f, "  {:<9} {name}  {} rows, {bytes}", table.state, table.rows)?;
        }
        and_more(f, open.count())
    }

    fn fmt_sequences(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sequences { total, behind, last_pass, problems } = &self.sequences;
        writeln!(f, "sequences      {total}, {behind} behind, last pass {}", last_pass.as_deref().unwrap_or("-"))?;
        for trouble in problems.iter().take(SHOWN) {
            let (name, word) =
                (TableName::new(&trouble.schema, &trouble.name), if trouble.behind { "behind" } else { "differs" });
            writeln!(f, "  {word:<9} {name} {}", indented(&trouble.problem, 14))?;
        }
        and_more(f, problems.len().saturating_sub(SHOWN))
    }
}

fn and_more(f: &mut fmt::Formatter<'_>, count: usize) -> fmt::Result {
    if count > 0 { writeln!(f, "  and {count} more") } else { Ok(()) }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.alive, &self.host, self.pid) {
            (true, Some(host), Some(pid)) => write!(f, "process {pid} on {}", visible(host)),
            (true, ..) => f.write_str("at work"),
            (false, Some(host), Some(pid)) => write!(f, "none (the last was process {pid} on {})", visible(host)),
            (false, ..) => f.write_str("none"),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", visible(&self.name), if self.active { "active" } else { "not active" })?;
        if let Some(bytes) = self.retained_bytes {
            write!(f, ", holds back {}", human_bytes(bytes as f64))?;
        }
        if let Some(bytes) = self.safe_wal_bytes {
            write!(f, ", lost after {} more", human_bytes(bytes as f64))?;
        }
        match &self.wal_status {
            Some(status) => write!(f, ", {status}"),
            None => Ok(()),
        }
    }
}

/// Bytes with a binary unit, for people.
pub fn human_bytes(bytes: f64) -> String {
    indicatif::BinaryBytes(bytes.max(0.0) as u64).to_string()
}

#[cfg(test)]
mod tests;
mod without_stream;
