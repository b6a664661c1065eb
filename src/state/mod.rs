//! The durable state: the schema `walferry` on the target.
//!
//! Invariant: nothing that a restart needs lives anywhere else. Tables are
//! keyed by the migration's name, so several migrations can share a target.

pub mod control;
pub mod copying;
pub mod deferred;
pub mod lease;
pub mod migration;
pub mod position;
pub mod sweeps;
pub mod tables;

use tokio_postgres::error::SqlState;

use crate::config::Side;
use crate::session::{DbContext, DbError, Session};

/// The version of the state schema this program writes.
pub const VERSION: i32 = 1;

/// Why the state could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A statement failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A newer walferry wrote the schema.
    #[error(
        "the schema \"walferry\" on the target has version {found}, this program knows {VERSION}: use a newer walferry"
    )]
    Newer {
        /// The version found.
        found: i32,
    },
    /// The schema exists but is not ours, or is damaged.
    #[error("the schema \"walferry\" on the target is not walferry's: {0}")]
    Foreign(String),
    /// Another process works on this migration.
    #[error("migration \"{name}\" is being worked on by {holder}")]
    Leased {
        /// The migration.
        name: String,
        /// Host and process as far as known.
        holder: String,
    },
    /// No such migration on the target.
    #[error("there is no migration \"{0}\" on the target")]
    NoMigration(String),
}

/// Whether an object could not be created because another session was first.
fn is_race(error: &DbError) -> bool {
    matches!(error.sqlstate(), Some(&SqlState::DUPLICATE_SCHEMA | &SqlState::UNIQUE_VIOLATION))
}

/// A handle on one migration's state, over a session of its own.
pub struct State {
    session: Session,
    name: String,
}

impl State {
    /// Whether the target has a state schema at all.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn is_installed(session: &Session) -> Result<bool, StateError> {
        let row = session
            .query_one("SELECT pg_catalog.to_regclass('walferry.version') IS NOT NULL", &[])
            .await
            .during(Side::Target, "look for the state schema")?;
        Ok(row.get(0))
    }

    /// Creates the schema if it is not there, and opens the migration `name`.
    ///
    /// # Errors
    /// When the role may not create a schema, or the schema is not ours.
    pub async fn install(session: Session, name: &str) -> Result<Self, StateError> {
        if !Self::is_installed(&session).await? {
            let sql = format!("BEGIN; {}; COMMIT", include_str!("schema.sql"));
            let created = session.batch_execute(&sql).await.during(Side::Target, "create the state schema \"walferry\"");
            if let Err(error) = created {
                // A session that was given up for lost may just have created it.
                let rolled_back = session.batch_execute("ROLLBACK").await;
                if rolled_back.is_err() || !is_race(&error) || !Self::is_installed(&session).await? {
                    return Err(error.into());
                }
            }
        }
        Self::open(session, name).await
    }

    /// Opens the state of the migration `name`; the schema must exist.
    ///
    /// # Errors
    /// When the schema is missing, not ours, or of a newer version.
    pub async fn open(session: Session, name: &str) -> Result<Self, StateError> {
        if !Self::is_installed(&session).await? {
            return Err(StateError::NoMigration(name.to_owned()));
        }
        let rows = session
            .query("SELECT version FROM walferry.version", &[])
            .await
            .during(Side::Target, "read the version of the state schema")?;
        let [row] = rows.as_slice() else {
            return Err(StateError::Foreign(format!("walferry.version has {} rows", rows.len())));
        };
        match row.get::<_, i32>(0) {
            VERSION => Ok(State { session, name: name.to_owned() }),
            found => Err(StateError::Newer { found }),
        }
    }

    /// The session, for reading the target's catalog beside the state.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The migration's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes a line into the journal.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn journal(&self, what: &str) -> Result<(), StateError> {
        self.execute(
            "INSERT INTO walferry.journal (migration, what) VALUES ($1, $2)",
            &[&self.name, &what],
            "write the journal",
        )
        .await?;
        Ok(())
    }

    /// Executes a statement on the state, with the action named for errors.
    pub(crate) async fn execute(
        &self,
        sql: &str,
        params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
        action: &str,
    ) -> Result<u64, StateError> {
        Ok(self.session.execute(sql, params).await.during(Side::Target, action)?)
    }

    /// Queries the state, with the action named for errors.
    pub(crate) async fn query(
        &self,
        sql: &str,
        params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
        action: &str,
    ) -> Result<Vec<tokio_postgres::Row>, StateError> {
        Ok(self.session.query(sql, params).await.during(Side::Target, action)?)
    }
}
