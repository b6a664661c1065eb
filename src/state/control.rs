//! Requests from one command to the running daemon.

use super::{State, StateError};
use crate::sql::TableName;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    /// To finish the batch, confirm it and leave.
    HandOver,
    /// To copy tables anew.
    Resync,
}

impl Request {
    /// The word in the state.
    fn as_str(self) -> &'static str {
        match self {
            Request::HandOver => "hand over",
            Request::Resync => "resync",
        }
    }
}

/// How a resync ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The tables are up to date.
    Done,
    /// Why they are not.
    NotDone(String),
}

/// The answer of one that is done, in the state.
const DONE: &str = "done";

impl Answer {
    fn as_str(&self) -> &str {
        match self {
            Answer::Done => DONE,
            Answer::NotDone(why) => why,
        }
    }

    fn parse(text: String) -> Self {
        if text == DONE { Answer::Done } else { Answer::NotDone(text) }
    }
}

/// A request the daemon has not answered yet.
#[derive(Clone, Debug)]
pub struct HandOver {
    /// Its row.
    pub id: i64,
    /// Who asks, for the log.
    pub requested_by: String,
}

/// A request to copy tables anew that the daemon has not answered yet.
#[derive(Clone, Debug)]
pub struct Resync {
    /// Its row.
    pub id: i64,
    /// The tables, as [`TableName::sql`] writes them.
    pub tables: Vec<String>,
    /// Who asks, for the log.
    pub requested_by: String,
}

impl State {
    /// Asks the daemon to copy tables anew; the number is for [`Self::answer_to`].
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn request_resync(&self, tables: &[TableName], requested_by: &str) -> Result<i64, StateError> {
        let tables: Vec<String> = tables.iter().map(TableName::sql).collect();
        let rows = self
            .query(
                "INSERT INTO walferry.control (migration, request, tables, requested_by) VALUES ($1, $4, $2, $3) RETURNING id",
                &[&self.name(), &tables, &requested_by, &Request::Resync.as_str()],
                "ask the daemon for a resync",
            )
            .await?;
        match rows.first() {
            Some(row) => Ok(row.take(0)?),
            None => Err(StateError::Foreign("the request was not written".to_owned())),
        }
    }

    /// The oldest request for a resync that is open.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub async fn pending_resync(&self) -> Result<Option<Resync>, StateError> {
        let rows = self
            .query(
                "SELECT id, tables, requested_by FROM walferry.control WHERE migration = $1 AND request = $2 \
                 AND answered_at IS NULL ORDER BY id LIMIT 1",
                &[&self.name(), &Request::Resync.as_str()],
                "look for requests",
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Resync { id: row.take(0)?, tables: row.take(1)?, requested_by: row.take(2)? }))
    }

    /// Answers a request for a resync.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn answer_request(&self, id: i64, answer: &Answer) -> Result<(), StateError> {
        self.execute(
            "UPDATE walferry.control SET answered_at = pg_catalog.clock_timestamp(), answer = $2 WHERE id = $1",
            &[&id, &answer.as_str()],
            "answer a request",
        )
        .await?;
        Ok(())
    }

    /// The answer to a request for a resync, once there is one.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub async fn answer_to(&self, id: i64) -> Result<Option<Answer>, StateError> {
        let rows =
            self.query("SELECT answer FROM walferry.control WHERE id = $1", &[&id], "look for the answer").await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(row.take::<Option<String>>(0)?.map(Answer::parse))
    }

    /// Asks the daemon to finish its batch, confirm it and leave.
    ///
    /// # Errors
    /// When the target refuses it.
    pub async fn request_hand_over(&self, requested_by: &str) -> Result<(), StateError> {
        self.execute(
            "INSERT INTO walferry.control (migration, request, requested_by) VALUES ($1, $3, $2)",
            &[&self.name(), &requested_by, &Request::HandOver.as_str()],
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
                "SELECT id, requested_by FROM walferry.control WHERE migration = $1 AND request = $2 \
                 AND answered_at IS NULL AND requested_at > pg_catalog.clock_timestamp() - '2 minutes'::interval ORDER BY id DESC LIMIT 1",
                &[&self.name(), &Request::HandOver.as_str()],
                "look for requests",
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(HandOver { id: row.take(0)?, requested_by: row.take(1)? }))
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
