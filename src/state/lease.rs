//! The lease: a session-level advisory lock on the target, so that two
//! processes never work on one migration. It goes with the session, so a
//! killed process leaves nothing to clean up. What it had sent may still be at work on
//! the target, and a holder may not know that its lock is lost: with the lease the next
//! process claims the position, without which nobody's batch commits.

use super::{State, StateError};
use crate::catalog::server::OUR_DATABASE;

/// First key of the advisory lock: "wlfy" in ASCII.
pub const LOCK_CLASS: i32 = 0x776c_6679;

impl State {
    /// Takes the lease and enters this process as the one at work.
    ///
    /// # Errors
    /// [`StateError::Leased`] when another session holds it.
    pub async fn take_lease(&self) -> Result<(), StateError> {
        let rows = self
            .query(
                "SELECT pg_catalog.pg_try_advisory_lock($1, pg_catalog.hashtext($2))",
                &[&LOCK_CLASS, &self.name()],
                "take the lease",
            )
            .await?;
        if rows.first().map_or(Ok(false), |row| row.take(0))? {
            let claimed = self.claim_position().await;
            if !matches!(claimed, Ok(true)) {
                self.release_lease().await?;
            }
            if claimed? {
                return Ok(());
            }
            let holder = "a transaction that an earlier process of it has left at work on the target (see pg_stat_activity there)";
            return Err(StateError::Leased { name: self.name().to_owned(), holder: holder.to_owned() });
        }
        Err(self.leased().await?)
    }

    /// Another process is at work.
    ///
    /// # Errors
    /// When the target cannot be asked whose it is.
    pub async fn leased(&self) -> Result<StateError, StateError> {
        let holder = match self.load().await? {
            Some(migration) => migration.holder(),
            None => "another process".to_owned(),
        };
        Ok(StateError::Leased { name: self.name().to_owned(), holder })
    }

    /// Gives the lease back.
    ///
    /// # Errors
    /// When the session is lost, in which case the lease is gone as well.
    pub async fn release_lease(&self) -> Result<(), StateError> {
        self.query(
            "SELECT pg_catalog.pg_advisory_unlock($1, pg_catalog.hashtext($2))",
            &[&LOCK_CLASS, &self.name()],
            "release the lease",
        )
        .await?;
        Ok(())
    }

    /// Whether some session holds the lease.
    ///
    /// # Errors
    /// When pg_locks cannot be read.
    pub async fn is_leased(&self) -> Result<bool, StateError> {
        let rows = self
            .query(
                &format!(
                    "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND database = {OUR_DATABASE} \
                     AND classid::bigint = $1 AND objid::bigint = (pg_catalog.hashtext($2)::bigint & 4294967295) AND objsubid = 2 AND granted)"
                ),
                &[&i64::from(LOCK_CLASS), &self.name()],
                "look for the lease",
            )
            .await?;
        Ok(rows.first().map_or(Ok(false), |row| row.take(0))?)
    }
}
