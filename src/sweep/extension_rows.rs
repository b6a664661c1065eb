//! Rows of extensions' configuration tables (`cron.job`, `spatial_ref_sys`):
//! CREATE EXTENSION does not bring the user's own, and no publication does.
//!
//! Invariant: those rows that the extension says are the user's are replaced in
//! one transaction, a savepoint a table, so a pass can be made again at any time; the last, when nothing
//! is written, is exact. What cannot be carried is named, and keeps nothing else
//! from being carried.
//!
//! Source: `pg_extension_config_dump` in `src/backend/commands/extension.c`.

use futures_util::{SinkExt, StreamExt, pin_mut};

use crate::catalog::extensions::{ConfigKind, ConfigTable, config_tables};
use crate::config::Settings;
use crate::session::{DbContext, DbError, Session};
use crate::sql::{TableName, ident, literal};

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
pub async fn carry(settings: &Settings, stage: Stage) -> Result<Carried, SweepError> {
    let source = Session::connect(&settings.source, &settings.name).await?;
    let all = of_source(settings, &source).await?;
    let wanted: Vec<&ConfigTable> =
        all.iter().filter(|table| stage == Stage::End || !ACTING.contains(&table.extension.as_str())).collect();
    let mut carried = Carried::default();
    if wanted.is_empty() {
        return Ok(carried);
    }
    let target = Session::connect(&settings.target, &settings.name).await?;
    let run = async |sql: &str| target.batch_execute(sql).await.during(target.side(), "carry rows of extensions");
    run("BEGIN").await?;
    let mut emptied = Vec::new();
    // Those that refer to others are named later by their extensions.
    for table in wanted.iter().rev() {
        match attempt(&target, empty(&target, table)).await? {
            Ok(()) => emptied.push(*table),
            Err(error) => carried.left.push(format!("{}: {}", table.table, error.words())),
        }
    }
    for table in emptied.iter().rev() {
        match attempt(&target, fill(&source, &target, table)).await? {
            Ok(()) => carried.tables += 1,
            Err(error) => carried.left.push(format!("{}: {}", table.table, error.words())),
        }
    }
    run("COMMIT").await?;
    Ok(carried)
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

/// Runs a step in a savepoint; what the server refuses is an answer.
async fn attempt(
    target: &Session,
    step: impl Future<Output = Result<(), DbError>>,
) -> Result<Result<(), DbError>, DbError> {
    let run = async |sql: &str| target.batch_execute(sql).await.during(target.side(), "carry rows of extensions");
    run("SAVEPOINT walferry").await?;
    let done = step.await;
    match &done {
        Ok(()) => run("RELEASE SAVEPOINT walferry").await?,
        Err(error) if error.sqlstate().is_some() => run("ROLLBACK TO SAVEPOINT walferry").await?,
        Err(_) => return done.map(Ok),
    }
    Ok(done)
}

fn where_user(table: &ConfigTable) -> &str {
    table.condition.trim()
}

async fn empty(target: &Session, table: &ConfigTable) -> Result<(), DbError> {
    if table.kind == ConfigKind::Sequence {
        return Ok(());
    }
    let sql = format!("DELETE FROM ONLY {} {}", table.table.sql(), where_user(table));
    target.batch_execute(&sql).await.during(target.side(), format!("empty {}", table.table))
}

async fn fill(source: &Session, target: &Session, table: &ConfigTable) -> Result<(), DbError> {
    if table.kind == ConfigKind::Sequence {
        return set(source, target, &table.table).await;
    }
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
    let row = source.query_one(&sql, &[]).await.during(source.side(), format!("read {sequence}"))?;
    let (value, is_called): (i64, bool) = (row.take(0)?, row.take(1)?);
    let sql = format!("SELECT pg_catalog.setval({}::regclass, {value}, {is_called})", literal(&sequence.sql()));
    target.batch_execute(&sql).await.during(target.side(), format!("set {sequence}"))
}
