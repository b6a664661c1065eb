//! The way a backlog is read again and again: the slot is
//! copied from one that nobody reads, the target's database from one that
//! nobody writes to.
//!
//! Invariant: every run begins with the same backlog and the same target, after
//! a checkpoint on both sides.

use std::ops::Deref;

use crate::error::BenchError;
use crate::options::Options;
use crate::process::Process;
pub use crate::servers::{DATABASE, Sql, create_parent, through, without_settings};
use crate::servers::{LIMIT, SOURCE_ROLE, Servers, TARGET_ROLE};
use crate::workloads::{Load, Setup, Workload};

/// On the target: the same rows, without walferry's state.
pub const NATIVE_BASE: &str = "bench_native";

/// On the target: what a run writes to.
pub const RUN: &str = "bench_run";

/// The slot that holds the backlog; nobody reads it.
const BASE_SLOT: &str = "bench_base";

/// The publication that walferry makes, which everybody reads.
pub const PUBLICATION: &str = "walferry";

/// The servers, with [`DATABASE`] on the target as walferry has copied it.
pub struct Rig {
    servers: Servers,
}

impl Deref for Rig {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        &self.servers
    }
}

impl Rig {
    /// Starts both servers.
    pub fn start(options: &Options) -> Result<Self, BenchError> {
        Ok(Rig { servers: Servers::start(options)? })
    }

    /// Tables and rows on both sides, the slot that holds the backlog, and both
    /// databases of the target from which runs are copied.
    pub fn prepare(&self, workload: &Workload) -> Result<(), BenchError> {
        let source_admin = self.sql(&self.source, "postgres")?;
        let target_admin = self.sql(&self.target, "postgres")?;
        source_admin.run(&format!("CREATE DATABASE {DATABASE} OWNER {SOURCE_ROLE}"))?;
        self.set_up(&workload.setup)?;
        let source = self.sql(&self.source, DATABASE)?;
        source.run("CREATE TABLE sentinel (id int PRIMARY KEY)")?;
        source.run("VACUUM ANALYZE")?;
        target_admin.run(&format!("CREATE DATABASE {DATABASE} OWNER {TARGET_ROLE}"))?;
        let arguments = ["run", "--until", "caught-up"];
        let command = self.walferry(&self.source_uri(), &self.target_uri(DATABASE), &arguments);
        Process::start("walferry run", command)?.finish(LIMIT)?;
        if !workload.on_target.is_empty() {
            let sql = format!("SET ROLE {TARGET_ROLE}; {}", workload.on_target);
            self.sql(&self.target, DATABASE)?.run(&sql)?;
        }
        target_admin.run(&format!("CREATE DATABASE {NATIVE_BASE} TEMPLATE {DATABASE}"))?;
        self.sql(&self.target, NATIVE_BASE)?.run("DROP SCHEMA walferry CASCADE")?;
        source.run(&format!("SELECT pg_copy_logical_replication_slot('walferry', '{BASE_SLOT}')"))?;
        self.drop_slot("walferry")
    }

    fn set_up(&self, setup: &Setup) -> Result<(), BenchError> {
        match setup {
            Setup::Sql(sql) => self.sql(&self.source, DATABASE)?.run(sql)?,
            Setup::Pgbench(scale) => {
                self.pgbench(&["-i", "-q", "-s", &scale.to_string()])?;
                self.sql(&self.source, DATABASE)?.run("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")?;
            }
        }
        Ok(())
    }

    /// Writes the backlog and the sentinel row; where the backlog ends.
    pub fn load(&self, workload: &Workload) -> Result<String, BenchError> {
        let source = self.sql(&self.source, DATABASE)?;
        match &workload.load {
            Load::Sql(sql) => {
                source.run("SET synchronous_commit = off")?;
                source.run(sql)?;
                source.run("RESET synchronous_commit")?;
            }
            Load::Pgbench { clients, transactions } => {
                let (clients, transactions) = (clients.to_string(), transactions.to_string());
                self.pgbench(&["-n", "-c", &clients, "-j", "2", "-t", &transactions])?;
            }
        }
        source.run("INSERT INTO sentinel VALUES (1)")?;
        source.value("SELECT pg_current_wal_lsn()")
    }

    /// A fresh database on the target, a fresh slot, both sides checkpointed.
    pub fn fresh(&self, slot: &str, template: Option<&str>) -> Result<(), BenchError> {
        self.fresh_with(slot, "pgoutput", template)
    }

    /// As [`Rig::fresh`], with a slot of this output plugin: at the same
    /// position, for it is a copy of the same slot.
    pub fn fresh_with(&self, slot: &str, plugin: &str, template: Option<&str>) -> Result<(), BenchError> {
        self.drop_slot(slot)?;
        let source = self.sql(&self.source, DATABASE)?;
        source.run(&format!("SELECT pg_copy_logical_replication_slot('{BASE_SLOT}', '{slot}', false, '{plugin}')"))?;
        let target = self.sql(&self.target, "postgres")?;
        if let Some(template) = template {
            target.run(&format!("DROP DATABASE IF EXISTS {RUN} WITH (FORCE)"))?;
            target.run(&format!("CREATE DATABASE {RUN} TEMPLATE {template} OWNER {TARGET_ROLE}"))?;
        }
        source.run("CHECKPOINT")?;
        target.run("CHECKPOINT")
    }

    /// Removes what [`Rig::prepare`] made.
    pub fn clear(&self) -> Result<(), BenchError> {
        self.drop_slot("walferry")?;
        self.drop_slot(BASE_SLOT)?;
        let target = self.sql(&self.target, "postgres")?;
        for database in [RUN, NATIVE_BASE, DATABASE] {
            target.run(&format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"))?;
        }
        self.sql(&self.source, "postgres")?.run(&format!("DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"))
    }
}
