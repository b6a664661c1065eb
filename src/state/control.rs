//! Requests from one command to the running daemon.

use super::{State, StateError};

/// A request the daemon has not answered yet.
#[derive(Clone, Debug)]
pub struct HandOver {
    /// Its row.
    pub id: i64,
    /// Who asks, for the log.
    pub requested_by: String,
}

impl State {
    /// Asks the daemon to finish its batch, confirm it and leave.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn request_hand_over(&self, requested_by: &str) -> Result<(), StateError> {
        self.execute(
            "INSERT INTO walferry.control (migration, request, requested_by) VALUES ($1, 'hand over', $2)",
            &[&self.name(), &requested_by],
            "ask the daemon to hand over",
        )
        .await?;
        Ok(())
    }

    /// The latest unanswered request to hand over. Who asks waits two minutes;
    /// an older request is of a command that was killed.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn pending_hand_over(&self) -> Result<Option<HandOver>, StateError> {
        let rows = self
            .query(
                "SELECT id, requested_by FROM walferry.control WHERE migration = $1 AND answered_at IS NULL \
                 AND requested_at > pg_catalog.clock_timestamp() - '2 minutes'::interval ORDER BY id DESC LIMIT 1",
                &[&self.name()],
                "look for requests",
            )
            .await?;
        Ok(rows.first().map(|row| HandOver { id: row.get(0), requested_by: row.get(1) }))
    }

    /// Answers every request that is open: by the one who hands over, and by
    /// the one who took over.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn answer_requests(&self, answer: &str) -> Result<(), StateError> {
        self.execute(
            "UPDATE walferry.control SET answered_at = pg_catalog.clock_timestamp(), answer = $2 WHERE migration = $1 AND answered_at IS NULL",
            &[&self.name(), &answer],
            "answer the requests",
        )
        .await?;
        Ok(())
    }
}
