//! The durable state: the schema `walferry` on the target.
//!
//! Invariants: nothing that a restart needs lives anywhere else. Tables are
//! keyed by the migration's name, so several migrations can share a target.
//! Nothing of the schema is read before it is known to be ours alone ([`own`]).

pub mod control;
pub mod copying;
pub mod created;
pub mod deferred;
pub mod large_objects;
pub mod lease;
pub mod migration;
pub mod own;
pub mod places;
pub mod position;
pub mod resume;
pub mod sweeps;
pub mod tables;
pub mod types;

use std::sync::atomic::AtomicI64;

use crate::config::Side;
use crate::fault::{Fault, Trouble};
use crate::session::{DbContext, DbError, Param, Session};
use lease::LOCK_CLASS;

/// The version of the state schema this program writes.
pub const VERSION: i32 = 7;

/// The schema's name.
pub const SCHEMA: &str = "walferry";

/// Its tables.
pub const TABLES: [&str; 11] = [
    "version",
    "migration",
    "position",
    "tables",
    "types",
    "sequences",
    "large_objects",
    "large_object_oids",
    "deferred",
    "journal",
    "control",
];

/// What brings a schema of version n + 1 to the next one, at place n.
const UPGRADES: [&str; VERSION as usize - 1] = [
    include_str!("upgrade_1.sql"),
    include_str!("upgrade_2.sql"),
    include_str!("upgrade_3.sql"),
    include_str!("upgrade_4.sql"),
    include_str!("upgrade_5.sql"),
    include_str!("upgrade_6.sql"),
];

/// Second key of the advisory lock under which the schema is created; the
/// leases' second keys are hashes of names.
const CREATION_KEY: i32 = 0;

/// Asked of the catalog, as a schema that is somebody else's may be closed to us.
const IS_INSTALLED: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = 'walferry' AND c.relname = 'version')";

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
    /// Others could act with our rights, or move our position.
    #[error(
        "the schema \"walferry\" on the target is not safe to be used, as others than role and administrators have a hand in it; \
         look whose it is, and then run on the target what takes that away:\n{}", own::listed(.0)
    )]
    Strange(Vec<own::Strange>),
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

impl StateError {
    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            StateError::Db(error) => error.fault(),
            StateError::Newer { .. } | StateError::Foreign(_) => Fault::lasting(Side::Target),
            StateError::Strange(_) => Fault::Refused,
            StateError::Leased { .. } => Fault::Server(Side::Target, Trouble::Leased),
            StateError::NoMigration(_) => Fault::NoMigration,
        }
    }
}

/// A handle on one migration's state, over a session of its own.
pub struct State {
    session: Session,
    name: String,
    claim: AtomicI64,
}

impl State {
    /// Whether the target has a state schema at all.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn is_installed(session: &Session) -> Result<bool, StateError> {
        let row = session.query_one(IS_INSTALLED, &[]).await.during(Side::Target, "look for the state schema")?;
        Ok(row.take(0)?)
    }

    /// Creates the schema if it is not there, and opens the migration `name`.
    ///
    /// # Errors
    /// When the role may not create a schema, or the schema is not ours.
    pub async fn install(session: Session, name: &str) -> Result<Self, StateError> {
        if !Self::is_installed(&session).await? {
            Self::create(&session).await?;
        }
        Self::open(session, name).await
    }

    /// Creates the schema. Another process may be at it, or the server at what a
    /// killed one had asked for: that is waited for, and then the schema is there.
    async fn create(session: &Session) -> Result<(), StateError> {
        let action = "create the state schema \"walferry\"";
        Self::alone(session, action, async || {
            // Looked for in a transaction of its own: one that had begun before
            // the lock was had would not hear of a schema that was made meanwhile.
            if !Self::is_installed(session).await? {
                session
                    .batch_execute(concat!("BEGIN; ", include_str!("schema.sql")))
                    .await
                    .during(Side::Target, action)?;
                Self::take_grants_back(session).await?;
                session.batch_execute("COMMIT").await.during(Side::Target, action)?;
            }
            Ok(())
        })
        .await
    }

    /// Whether the schema can be created, if it is not there: the same statements,
    /// in a transaction that is rolled back.
    ///
    /// # Errors
    /// What would keep [`State::install`] from it.
    pub async fn try_to_install(session: &Session) -> Result<(), StateError> {
        let mut tried = Ok(());
        let action = "create the state schema \"walferry\"";
        Self::alone(session, action, async || {
            if !Self::is_installed(session).await? {
                tried = session.batch_execute(concat!("BEGIN; ", include_str!("schema.sql"))).await;
                session.batch_execute("ROLLBACK").await.during(Side::Target, "take the state schema back")?;
            }
            Ok(())
        })
        .await?;
        Ok(tried.during(Side::Target, action)?)
    }

    /// Brings a schema that an older walferry wrote to this version.
    async fn upgrade(session: &Session) -> Result<(), StateError> {
        let action = "upgrade the state schema \"walferry\"";
        Self::alone(session, action, async || {
            let found = Self::version(session).await?;
            for sql in UPGRADES.iter().skip(usize::try_from(found - 1).unwrap_or(0)) {
                session.batch_execute(&format!("BEGIN; {sql}; COMMIT")).await.during(Side::Target, action)?;
            }
            Ok(())
        })
        .await
    }

    /// Does something about the schema that no other process does meanwhile.
    async fn alone(
        session: &Session,
        action: &str,
        work: impl AsyncFnOnce() -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let key = format!("({LOCK_CLASS}, {CREATION_KEY})");
        let lock = format!("SELECT pg_catalog.pg_advisory_lock{key}");
        session.batch_execute(&lock).await.during(Side::Target, action)?;
        work().await?;
        // After an error the lock goes with the session.
        let unlock = format!("SELECT pg_catalog.pg_advisory_unlock{key}");
        session.batch_execute(&unlock).await.during(Side::Target, action)?;
        Ok(())
    }

    async fn version(session: &Session) -> Result<i32, StateError> {
        let rows = session
            .query("SELECT version FROM walferry.version", &[])
            .await
            .during(Side::Target, "read the version of the state schema")?;
        let [row] = rows.as_slice() else {
            return Err(StateError::Foreign(format!("walferry.version has {} rows", rows.len())));
        };
        Ok(row.take(0)?)
    }

    /// Refuses a schema that others have a hand in, or that a newer walferry wrote.
    ///
    /// # Errors
    /// When it is one, or cannot be read.
    pub(crate) async fn require_known(session: &Session) -> Result<(), StateError> {
        Self::require_own(session).await?;
        match Self::version(session).await? {
            known if (1..=VERSION).contains(&known) => Ok(()),
            found => Err(StateError::Newer { found }),
        }
    }

    /// Opens the state of the migration `name`; the schema must exist. One that
    /// an older walferry wrote is brought to this version.
    ///
    /// # Errors
    /// When the schema is missing, not ours alone, or of a newer version.
    pub async fn open(session: Session, name: &str) -> Result<Self, StateError> {
        let (is_installed, is_own) = tokio::join!(Self::is_installed(&session), Self::require_own(&session));
        is_own?;
        if !is_installed? {
            return Err(StateError::NoMigration(name.to_owned()));
        }
        match Self::version(&session).await? {
            VERSION => {}
            older if (1..VERSION).contains(&older) => Self::upgrade(&session).await?,
            found => return Err(StateError::Newer { found }),
        }
        Ok(State { session, name: name.to_owned(), claim: AtomicI64::default() })
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
    pub(crate) async fn execute(&self, sql: &str, params: &[&dyn Param], action: &str) -> Result<u64, StateError> {
        Ok(self.session.execute(sql, params).await.during(Side::Target, action)?)
    }

    /// Queries the state, with the action named for errors.
    pub(crate) async fn query(
        &self,
        sql: &str,
        params: &[&dyn Param],
        action: &str,
    ) -> Result<Vec<crate::session::Row>, StateError> {
        Ok(self.session.query(sql, params).await.during(Side::Target, action)?)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::copying::Step;
    use super::tables::{TableRow, TableState};
    use super::*;
    use crate::lsn::{EndLsn, Lsn};
    use crate::sql::TableName;
    use crate::sweep::testing::{Pair, TARGET_OWNER};
    use crate::testing::begun;

    /// The story: a process was killed while it created the schema; the next one
    /// did not see it yet, created it as well, and ended with 23505.
    #[tokio::test]
    async fn processes_that_begin_at_the_same_moment_all_find_the_schema() {
        let pair = Pair::new().await;
        let sessions = join_all((0..8).map(|_| pair.target(TARGET_OWNER))).await;
        let installed = join_all(sessions.into_iter().map(|session| State::install(session, "walferry"))).await;
        for state in installed {
            assert!(state.unwrap().load().await.unwrap().is_none());
        }
    }

    /// The story: where a role's default privileges give its new tables away, SQL with a
    /// password was for everybody to read.
    #[tokio::test]
    async fn what_waits_is_read_by_nobody_else_whatever_default_privileges_say() {
        let pair = Pair::new().await;
        let session = pair.target(TARGET_OWNER).await;
        let give = "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; \
            ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO nosy; ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO PUBLIC";
        let admin = pair.target(crate::demo::cluster::SUPERUSER).await;
        admin.batch_execute("CREATE ROLE nosy").await.unwrap();
        session.batch_execute(give).await.unwrap();
        let state = State::install(session, "walferry").await.unwrap();
        let read = "SELECT pg_catalog.has_table_privilege('nosy', 'walferry.' || $1::text, 'SELECT')";
        let is_read = async |table: &str| -> bool { state.session().query_one(read, &[&table]).await.unwrap().get(0) };
        assert!(is_read("journal").await && !is_read("deferred").await);
    }

    #[test]
    fn the_list_of_tables_is_that_of_the_schema() {
        let created = include_str!("schema.sql").lines().filter_map(|line| line.strip_prefix("CREATE TABLE walferry."));
        let created: Vec<&str> = created.filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(created, TABLES);
    }

    /// The story: a process whose lease was lost unnoticed, or that was killed, and whose
    /// words came late, changed what the next one had begun anew.
    #[tokio::test]
    async fn who_has_lost_the_lease_moves_no_position_and_no_table_and_ends_nothing() {
        let pair = Pair::new().await;
        let state = async || begun(pair.target(TARGET_OWNER).await, "source").await;
        let (old, new) = (state().await, state().await);
        let point = |at: &str| EndLsn::recorded(at.parse::<Lsn>().unwrap());
        let table = TableRow::new(TableName::new("public", "t"), 7, TableState::Waiting);
        old.enter_tables(std::slice::from_ref(&table)).await.unwrap();
        let attempt = old.begin_table(7).await.unwrap().unwrap();
        old.take_lease().await.unwrap();
        let slot = old.load().await.unwrap().unwrap().slot.name().to_owned();
        old.finish_copy(&slot, point("0/100")).await.unwrap();
        old.begin_position("walferry_copy_2", point("0/100")).await.unwrap();
        let from = old.position(&slot).await.unwrap().unwrap();
        old.pass_over(&slot, from, point("0/200")).await.unwrap();
        old.release_lease().await.unwrap();
        // Not while a batch is at work.
        let batch = state().await;
        batch.session().batch_execute("BEGIN").await.unwrap();
        assert!(batch.hold_position(&slot, old.claim()).await.unwrap().is_some());
        assert!(matches!(new.take_lease().await, Err(StateError::Leased { .. })));
        assert!(!new.is_leased().await.unwrap());
        batch.session().batch_execute("ROLLBACK").await.unwrap();
        new.take_lease().await.unwrap();
        assert!(matches!(old.finish_copy(&slot, point("0/100")).await, Err(StateError::Leased { .. })));
        let from = new.position(&slot).await.unwrap().unwrap();
        assert_eq!(from.lsn(), point("0/200").lsn());
        assert!(old.pass_over(&slot, from, point("0/300")).await.is_err());
        let second = old.position("walferry_copy_2").await.unwrap().unwrap();
        assert!(old.pass_over("walferry_copy_2", second, point("0/300")).await.is_err());
        assert!(old.session().batch_execute(&old.require_claim_sql()).await.is_err());
        assert!(matches!(old.set_finished().await, Err(StateError::Leased { .. })));
        new.session().batch_execute(&new.require_claim_sql()).await.unwrap();
        assert!(old.session().batch_execute(&old.require_lease_sql()).await.is_err());
        new.session().batch_execute(&new.require_lease_sql()).await.unwrap();
        // Nothing of a transaction is done that was at work meanwhile.
        for (state, is_done) in [(&old, false), (&new, true)] {
            let beside = state.beside(pair.target(TARGET_OWNER).await).await.unwrap();
            beside.session().batch_execute("BEGIN; CREATE TABLE walferry.done ()").await.unwrap();
            assert_eq!(beside.commit("try it").await.is_ok(), is_done);
            let sql = "SELECT pg_catalog.to_regclass('walferry.done') IS NOT NULL";
            assert_eq!(beside.session().query_one(sql, &[]).await.unwrap().take::<bool>(0).unwrap(), is_done);
        }
        new.pass_over(&slot, from, point("0/300")).await.unwrap();
        // The table is begun anew.
        assert_eq!(new.tables_anew(&[7]).await.unwrap(), 1);
        let next = new.begin_table(7).await.unwrap().unwrap();
        assert_eq!(old.still_copies(7, attempt).await.unwrap(), Step::Elsewhere);
        assert_eq!(old.rows_copied(&table, attempt, "late").await.unwrap(), Step::Elsewhere);
        assert_eq!(new.still_copies(7, next).await.unwrap(), Step::Taken);
        assert_eq!(new.rows_copied(&table, next, "copied").await.unwrap(), Step::Taken);
        assert_eq!(old.table_ready(7, attempt).await.unwrap(), Step::Elsewhere);
        assert_eq!(old.table_joining(7, attempt).await.unwrap(), Step::Elsewhere);
        assert_eq!(new.table_joining(7, next).await.unwrap(), Step::Taken);
    }

    /// A schema of every older version becomes the present one, column by
    /// column and constraint by constraint.
    #[tokio::test]
    async fn an_older_schema_is_upgraded_to_the_same_as_a_new_one() {
        let shape = "SELECT pg_catalog.array_agg(x ORDER BY x)::text FROM ( \
            SELECT attrelid::regclass || ' ' || attname || ' ' || atttypid::regtype || ' ' || attnotnull \
              FROM pg_catalog.pg_attribute JOIN pg_catalog.pg_class c ON c.oid = attrelid \
              WHERE relnamespace = 'walferry'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped \
            UNION ALL SELECT conrelid::regclass || ' ' || conname || ' ' || pg_catalog.pg_get_constraintdef(oid) \
              FROM pg_catalog.pg_constraint WHERE connamespace = 'walferry'::regnamespace) AS s (x)";
        let (new, old) = (Pair::new().await, Pair::new().await);
        let state = State::install(new.target(TARGET_OWNER).await, "walferry").await.unwrap();
        let wanted: String = state.session().query_one(shape, &[]).await.unwrap().get(0);
        let session = old.target(TARGET_OWNER).await;
        session.batch_execute(include_str!("schema_1_test.sql")).await.unwrap();
        // Both at once: one of them waits for the other's upgrade.
        let other = old.target(TARGET_OWNER).await;
        let (state, also) = tokio::join!(State::open(session, "walferry"), State::open(other, "walferry"));
        also.unwrap();
        let upgraded: String = state.unwrap().session().query_one(shape, &[]).await.unwrap().get(0);
        assert_eq!(upgraded, wanted);
    }

    /// The story: a state of the version 6 that had no names of parts could not be read.
    #[tokio::test]
    async fn types_that_either_version_6_has_paired_are_known() {
        for names in ["ADD COLUMN names text[] NOT NULL DEFAULT '{}', ", ""] {
            let pair = Pair::new().await;
            let state = begun(pair.target(TARGET_OWNER).await, "source").await;
            let older = format!(
                "ALTER TABLE walferry.types {names}DROP COLUMN source_versions, DROP COLUMN target_versions; \
                 INSERT INTO walferry.types (migration, source_oid, target_oid, source_parts, target_parts) \
                     SELECT name, 7, 8, '{{1}}', '{{2}}' FROM walferry.migration; \
                 UPDATE walferry.version SET version = 6"
            );
            state.session().batch_execute(&older).await.unwrap();
            let state = State::open(pair.target(TARGET_OWNER).await, "walferry").await.unwrap();
            let part = |versions| types::PartPair { ours: 1, theirs: 2, versions };
            let known = |part| types::TypePairs { of: 8, parts: vec![part] };
            assert_eq!(state.type_pairs().await.unwrap()[&7], known(part(None)));
            let now = known(part(Some(("x".to_owned(), "y".to_owned()))));
            state.keep_type_pairs(&[(7, now.clone())]).await.unwrap();
            assert_eq!(state.type_pairs().await.unwrap()[&7], now);
        }
    }

    /// The story: a state of version 4 without the migration's claim was taken for current.
    #[tokio::test]
    async fn a_claim_goes_on_from_that_of_the_position() {
        let pair = Pair::new().await;
        let state = begun(pair.target(TARGET_OWNER).await, "source").await;
        let older = "ALTER TABLE walferry.migration DROP COLUMN claim; ALTER TABLE walferry.tables DROP COLUMN bounds; DROP TABLE walferry.types; UPDATE walferry.version SET version = 4; \
             INSERT INTO walferry.position (slot, end_lsn, claim) SELECT slot, '0/1', 7 FROM walferry.migration";
        state.session().batch_execute(older).await.unwrap();
        let state = State::open(pair.target(TARGET_OWNER).await, "walferry").await.unwrap();
        state.take_lease().await.unwrap();
        assert_eq!(state.claim().number(), 8);
    }
}
