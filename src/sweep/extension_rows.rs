//! Rows of extensions' configuration tables (`cron.job`, `spatial_ref_sys`):
//! CREATE EXTENSION does not bring the user's own, and no publication does.
//!
//! Invariant: those rows that the extension says are the user's are replaced in
//! one transaction, so a pass can be made again at any time; the last, when
//! nothing is written, is exact. A table that cannot be carried is named, keeps
//! the rows that it had, and keeps no other from being carried: the transaction
//! is rolled back and made again without it.
//!
//! Source: `pg_extension_config_dump` in `src/backend/commands/extension.c`.

use futures_util::{SinkExt, StreamExt, pin_mut};

use crate::catalog::extensions::{ConfigKind, ConfigTable, config_tables};
use crate::catalog::held::{self, Foreign};
use crate::catalog::tables::Shape;
use crate::config::Settings;
use crate::session::{DbContext, DbError, Session};
use crate::sql::{TableName, ident, literal};
use crate::state::State;

use super::SweepError;

/// When a pass is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// While the application still writes to the source.
    Before,
    /// At the end.
    End,
}

/// Extensions that act by themselves on what their tables say: on the target
/// they must not, before the end (a job would run on both).
const ACTING: [&str; 2] = ["pg_cron", "pg_partman"];

/// What a pass did.
#[derive(Debug, Default)]
pub struct Carried {
    /// Tables and sequences that are equal now.
    pub tables: u64,
    /// Those that are not, with the reason.
    pub left: Vec<String>,
}

/// Carries what the filter does not leave out by name.
///
/// # Errors
/// When a connection cannot be made or is lost.
pub async fn carry(settings: &Settings, state: &State, stage: Stage) -> Result<Carried, SweepError> {
    let source = Session::connect(&settings.source, &settings.name).await?;
    let all = of_source(settings, &source).await?;
    let mut wanted: Vec<&ConfigTable> =
        all.iter().filter(|table| stage == Stage::End || !ACTING.contains(&table.extension.as_str())).collect();
    let mut carried = Carried::default();
    if wanted.is_empty() {
        return Ok(carried);
    }
    let target = state.beside(Session::connect(&settings.target, &settings.name).await?).await?;
    while let Err(refusal) = replace(&source, &target, &wanted).await? {
        let table = wanted.remove(refusal.place);
        carried.left.push(format!("{}: {}", table.table, refusal.error.words()));
    }
    carried.tables = wanted.len() as u64;
    Ok(carried)
}

/// One of the tables cannot be carried.
struct Refusal {
    /// Its place among them.
    place: usize,
    /// What the server says.
    error: DbError,
}

/// Replaces the rows of all these tables, or of none.
async fn replace(source: &Session, state: &State, tables: &[&ConfigTable]) -> Result<Result<(), Refusal>, SweepError> {
    let target = state.session();
    let run = async |sql: &str| target.batch_execute(sql).await.during(target.side(), "carry rows of extensions");
    run("BEGIN").await?;
    let done = async {
        // Those that refer to others are named later by their extensions.
        for (place, table) in tables.iter().enumerate().rev() {
            empty(target, table).await.map_err(|error| Refusal { place, error })?;
        }
        for (place, table) in tables.iter().enumerate() {
            fill(source, target, table).await.map_err(|error| Refusal { place, error })?;
        }
        Ok::<(), Refusal>(())
    };
    match done.await {
        Ok(()) => Ok(Ok(state.commit("carry rows of extensions").await?)),
        Err(refusal) if refusal.error.sqlstate().is_some() => {
            run("ROLLBACK").await?;
            Ok(Err(refusal))
        }
        Err(refusal) => Err(refusal.error.into()),
    }
}

/// The configuration tables of the source that come along.
///
/// # Errors
/// When the catalog cannot be read.
pub async fn of_source(settings: &Settings, source: &Session) -> Result<Vec<ConfigTable>, DbError> {
    let mut all = config_tables(source).await?;
    all.retain(|table| !settings.filter.excludes_explicitly(&table.table));
    Ok(all)
}

fn where_user(table: &ConfigTable) -> &str {
    table.condition.trim()
}

async fn empty(target: &Session, table: &ConfigTable) -> Result<(), DbError> {
    if table.kind == ConfigKind::Sequence {
        return Ok(());
    }
    // Another pass that is at work would insert what this one does not see yet.
    let name = table.table.sql();
    let sql =
        format!("LOCK TABLE ONLY {name} IN SHARE ROW EXCLUSIVE MODE; DELETE FROM ONLY {name} {}", where_user(table));
    target.batch_execute(&sql).await.during(target.side(), format!("empty {}", table.table))
}

async fn fill(source: &Session, target: &Session, table: &ConfigTable) -> Result<(), DbError> {
    if table.kind == ConfigKind::Sequence {
        return set(source, target, &table.table).await;
    }
    let action = || format!("read {}", table.table);
    // The rows' own transaction: what is read is held in it.
    let begin = format!("BEGIN READ ONLY; {}", held::hold(Shape::Plain, &table.table));
    let copied = match source.batch_execute(&begin).await {
        Ok(()) => copy(source, target, table).await,
        Err(error) => Err(error).during(source.side(), action()),
    };
    let ended = source.batch_execute("ROLLBACK").await.during(source.side(), action());
    copied.and(ended)
}

async fn copy(source: &Session, target: &Session, table: &ConfigTable) -> Result<(), DbError> {
    let name = table.table.sql();
    let columns = table.columns.iter().map(|column| ident(column)).collect::<Vec<_>>().join(", ");
    let out = format!("COPY (SELECT {columns} FROM ONLY {name} {}) TO STDOUT", where_user(table));
    let rows = source.copy_out(&out).await.during(source.side(), format!("read {}", table.table))?;
    let action = || format!("write {}", table.table);
    let sink = target.copy_in(&format!("COPY {name} ({columns}) FROM STDIN")).await.during(target.side(), action())?;
    pin_mut!(rows);
    pin_mut!(sink);
    while let Some(chunk) = rows.next().await {
        let chunk: bytes::Bytes = chunk.during(source.side(), format!("read {}", table.table))?;
        sink.send(chunk).await.during(target.side(), action())?;
    }
    sink.close().await.during(target.side(), action())
}

async fn set(source: &Session, target: &Session, sequence: &TableName) -> Result<(), DbError> {
    let sql = format!("SELECT last_value, is_called FROM {}", sequence.sql());
    let rows = held::read(source, std::iter::once(("", sequence)), Foreign::Refused, &sql).await;
    let rows = rows.during(source.side(), format!("read {sequence}"))?;
    let value = |column| rows.first().and_then(|row| row.get(column)).unwrap_or("NULL");
    let sql = format!(
        "SELECT pg_catalog.setval({}::regclass, {}::bigint, {}::boolean)",
        literal(&sequence.text()),
        literal(value(0)),
        literal(value(1))
    );
    target.batch_execute(&sql).await.during(target.side(), format!("set {sequence}"))
}
