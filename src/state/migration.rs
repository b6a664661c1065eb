//! The migration's own row: where it comes from and how far it is.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::catalog::publication::AllTables;
use crate::session::{Param, Row};

use super::{State, StateError};
use crate::config::publications::Names;
use crate::config::{ConnInfo, Provenance, Publications};
use crate::lsn::{EndLsn, Lsn};
use crate::wire::{Replication, SystemIdentity, WireError};
use crate::words::worded;

/// How far a migration is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "&'static str", try_from = "String")]
pub enum Phase {
    /// Publication, slot and schema are being made.
    Setup,
    /// Rows are being copied.
    Copy,
    /// Changes are being applied.
    Stream,
    /// No process is at work; `stopped_because` says why.
    Stopped,
    /// The cutover has begun.
    Cutover,
    /// The target has taken over.
    Done,
}

worded!(Phase, "phase", [
    Setup => "setup",
    Copy => "copy",
    Stream => "stream",
    Stopped => "stopped",
    Cutover => "cutover",
    Done => "done",
]);

/// What identifies the source: a position is only good for the same one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceIdentity {
    /// From IDENTIFY_SYSTEM; unique to a cluster and its physical copies.
    pub system_identifier: String,
    /// From IDENTIFY_SYSTEM; changes with a promotion.
    pub timeline: i32,
    /// The database the slot belongs to.
    pub database: String,
    /// `server_version_num`.
    pub version: i32,
}

impl SourceIdentity {
    /// What the server says that `info` leads to, on a replication connection.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn ask(info: &ConnInfo, application_name: &str) -> Result<(Replication, Self), WireError> {
        let mut connection = Replication::connect(info, application_name).await?;
        let SystemIdentity { system_id, timeline, dbname, .. } = connection.identify_system().await?;
        let version = connection.server_version();
        Ok((connection, SourceIdentity { system_identifier: system_id, timeline, database: dbname, version }))
    }
}

/// The row of `walferry.migration`.
#[derive(Clone, Debug)]
pub struct Migration {
    /// The source as it was when the migration began.
    pub source: SourceIdentity,
    /// The slot.
    pub slot: Provenance,
    /// The publications.
    pub publications: Publications,
    /// Where the source's WAL ended just before we created the slot.
    pub slot_created: Option<Lsn>,
    /// The publication that we created.
    pub publication_oid: Option<u32>,
    /// Whether the publication is FOR ALL TABLES.
    pub publishes_all_tables: bool,
    /// How far it is.
    pub phase: Phase,
    /// The pre-data schema has been restored by us.
    pub schema_restored: bool,
    /// Every table's rows and indexes are there.
    pub copied: bool,
    /// Where the slot began: the snapshot of the copy holds every commit before.
    pub consistent_point: Option<EndLsn>,
    /// `catchup --finish` has ended well: the target may be the application's.
    pub finished: bool,
    /// Why the last process ended.
    pub stopped_because: Option<String>,
    /// The source's WAL end as last heard.
    pub source_lsn: Option<Lsn>,
    /// Host and process id of the last process at work.
    pub daemon: Option<(String, i32)>,
}

impl Migration {
    /// The last process at work, for messages.
    pub fn holder(&self) -> String {
        match &self.daemon {
            Some((host, pid)) => format!("process {pid} on {host}"),
            None => "another process".to_owned(),
        }
    }

    fn from_row(row: &Row) -> Result<Self, StateError> {
        let slot = row.take("slot")?;
        Ok(Migration {
            source: SourceIdentity {
                system_identifier: row.take("system_identifier")?,
                timeline: row.take("timeline")?,
                database: row.take("source_database")?,
                version: row.take("source_version")?,
            },
            slot: if row.take("slot_is_ours")? { Provenance::Ours(slot) } else { Provenance::Existing(slot) },
            publications: publications(row)?,
            slot_created: row.take("slot_created_lsn")?,
            publication_oid: row.take("publication_oid")?,
            publishes_all_tables: row.take("publishes_all_tables")?,
            phase: Phase::parse(row.take("phase")?)?,
            schema_restored: row.take("schema_restored")?,
            copied: row.take("copied")?,
            consistent_point: row.take::<Option<Lsn>>("consistent_point")?.map(EndLsn::recorded),
            finished: row.take::<Option<SystemTime>>("finished_at")?.is_some(),
            stopped_because: row.take("stopped_because")?,
            source_lsn: row.take("source_lsn")?,
            daemon: row.take::<Option<String>>("daemon_host")?.zip(row.take("daemon_pid")?),
        })
    }
}

fn publications(row: &Row) -> Result<Publications, StateError> {
    let first: String = row.take("publication")?;
    if row.take("publication_is_ours")? {
        return Ok(Publications::Ours(first));
    }
    let further: Vec<String> = row.take("further_publications")?;
    let names = Names::new([vec![first], further].concat());
    let odd = || StateError::Foreign("walferry.migration names a publication twice, or with no letter".to_owned());
    Ok(Publications::Existing(names.ok_or_else(odd)?))
}

impl State {
    /// The migration's row, if it has begun.
    ///
    /// # Errors
    /// When the row cannot be read or understood.
    pub async fn load(&self) -> Result<Option<Migration>, StateError> {
        let rows = self
            .query("SELECT * FROM walferry.migration WHERE name = $1", &[&self.name()], "read the migration")
            .await?;
        rows.first().map(Migration::from_row).transpose()
    }

    /// Enters a new migration in phase `setup`, before anything is created.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn begin(
        &self,
        source: &SourceIdentity,
        slot: &Provenance,
        publications: &Publications,
    ) -> Result<(), StateError> {
        let slot_is_ours = matches!(slot, Provenance::Ours(_));
        let publication_is_ours = matches!(publications, Publications::Ours(_));
        let names = publications.names();
        let (first, further) = (names.first(), names.get(1..).unwrap_or_default());
        self.execute(
            "INSERT INTO walferry.migration (name, system_identifier, timeline, source_database, source_version, \
             slot, slot_is_ours, publication, further_publications, publication_is_ours, phase) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            &[
                &self.name(),
                &source.system_identifier,
                &source.timeline,
                &source.database,
                &source.version,
                &slot.name(),
                &slot_is_ours,
                &first,
                &further,
                &publication_is_ours,
                &Phase::Setup.as_str(),
            ],
            "enter the migration",
        )
        .await?;
        Ok(())
    }

    /// Moves the migration to a phase; clears the reason of an earlier stop.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn set_phase(&self, phase: Phase) -> Result<(), StateError> {
        self.execute(
            "UPDATE walferry.migration SET phase = $2, stopped_because = NULL WHERE name = $1",
            &[&self.name(), &phase.as_str()],
            "set the phase",
        )
        .await?;
        Ok(())
    }

    /// Records that no process is at work any more, and why.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn set_stopped(&self, because: &str) -> Result<(), StateError> {
        self.execute(
            "UPDATE walferry.migration SET phase = CASE WHEN copied AND phase = $3 THEN $4 ELSE phase END, \
             stopped_because = $2 WHERE name = $1",
            &[&self.name(), &because, &Phase::Stream.as_str(), &Phase::Stopped.as_str()],
            "record why the migration stopped",
        )
        .await?;
        Ok(())
    }

    /// Records that everything is in.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn set_finished(&self) -> Result<(), StateError> {
        let sql = "UPDATE walferry.migration SET finished_at = coalesce(finished_at, pg_catalog.clock_timestamp()) \
             WHERE name = $1 AND claim = $2";
        match self.execute(sql, &[&self.name(), &self.claim().0], "record that everything is in").await? {
            0 => Err(self.leased().await?),
            _ => Ok(()),
        }
    }

    /// Records whether the publication covers all tables, tables to come included.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn set_publishes_all_tables(&self, all: AllTables) -> Result<(), StateError> {
        self.execute(
            "UPDATE walferry.migration SET publishes_all_tables = $2 WHERE name = $1",
            &[&self.name(), &(all == AllTables::Yes)],
            "record what is published",
        )
        .await?;
        Ok(())
    }

    /// Records where the slot begins.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn set_consistent_point(&self, point: EndLsn) -> Result<(), StateError> {
        self.execute(
            "UPDATE walferry.migration SET consistent_point = $2, phase = $3 WHERE name = $1",
            &[&self.name(), &point.lsn(), &Phase::Copy.as_str()],
            "record the slot's consistent point",
        )
        .await?;
        Ok(())
    }

    /// Ends the copy: in one transaction the position starts at the consistent
    /// point, and the migration may stream from now on.
    ///
    /// # Errors
    /// [`StateError::Leased`] when another process has taken the lease since.
    pub async fn finish_copy(&self, slot: &str, point: EndLsn) -> Result<(), StateError> {
        let sql = "WITH mine AS (UPDATE walferry.migration SET copied = true, phase = $4 WHERE name = $1 AND claim = $5 RETURNING claim) \
             INSERT INTO walferry.position (slot, end_lsn, claim) SELECT $2, $3, claim FROM mine \
             ON CONFLICT (slot) DO UPDATE SET end_lsn = excluded.end_lsn, claim = excluded.claim, commit_time = NULL";
        let params: [&dyn Param; 5] = [&self.name(), &slot, &point.lsn(), &Phase::Stream.as_str(), &self.claim().0];
        match self.execute(sql, &params, "record that the copy is complete").await? {
            0 => Err(self.leased().await?),
            _ => Ok(()),
        }
    }

    /// For how long the process at work has given no sign of life.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub async fn silent_for(&self) -> Result<Duration, StateError> {
        let sql = "SELECT coalesce(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - daemon_seen), 0)::bigint \
             FROM walferry.migration WHERE name = $1";
        let rows = self.query(sql, &[&self.name()], "look for a sign of life").await?;
        let seconds = rows.first().map_or(Ok(0), |row| row.take::<i64>(0))?;
        Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }

    /// A sign of life of the process at work, with the source's WAL end as it
    /// heard it.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn heartbeat(&self, host: &str, pid: i32, source_lsn: Option<Lsn>) -> Result<(), StateError> {
        self.execute(
            "UPDATE walferry.migration SET daemon_host = $2, daemon_pid = $3, daemon_seen = pg_catalog.clock_timestamp(), \
             source_lsn = coalesce($4, source_lsn) WHERE name = $1",
            &[&self.name(), &host, &pid, &source_lsn],
            "write a sign of life",
        )
        .await?;
        Ok(())
    }
}
