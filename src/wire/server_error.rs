//! What a server says when it refuses: ErrorResponse and NoticeResponse.
//!
//! Invariant: every field the server sent is kept; unknown field codes are
//! passed over as the protocol demands. Bytes that are not UTF-8 are replaced:
//! before `client_encoding` holds, a server reports in its own locale.
//!
//! Source: `send_message_to_frontend` in `src/backend/utils/error/elog.c` and
//! "Error and Notice Message Fields" of the protocol's documentation.

use std::fmt;

use crate::border::visible;
use crate::fault::sqlstate;

/// An error or notice with all its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL`, `PANIC`, or a notice's `WARNING`, `NOTICE`, …; never localised from PostgreSQL 9.6 on.
    pub severity: String,
    /// The SQLSTATE, five characters.
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
    /// More about the problem.
    pub detail: Option<String>,
    /// What the server suggests.
    pub hint: Option<String>,
    /// Where it happened: the call stack of functions, the COPY line.
    pub where_: Option<String>,
    /// Schema of the object that is meant.
    pub schema: Option<String>,
    /// Table that is meant.
    pub table: Option<String>,
    /// Column that is meant.
    pub column: Option<String>,
    /// Data type that is meant.
    pub datatype: Option<String>,
    /// Constraint that is meant.
    pub constraint: Option<String>,
    /// Character in the statement, from 1.
    pub position: Option<String>,
    /// Character in the internal statement, from 1.
    pub internal_position: Option<String>,
    /// The internal statement.
    pub internal_query: Option<String>,
    /// Source file of the server.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<String>,
    /// Function in it.
    pub routine: Option<String>,
}

impl ServerError {
    /// Whether the server ends the session with it, which may come unasked (`elog.c`).
    pub fn ends_the_session(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// Parses the body of an `E` or `N` message.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let mut error = ServerError::default();
        let mut rest = body;
        while let Some((&code, after)) = rest.split_first() {
            if code == 0 {
                return if after.is_empty() { Ok(error) } else { Err("bytes after the end of an error".into()) };
            }
            let end = after.iter().position(|&b| b == 0).ok_or("an error's field has no end")?;
            let (value, tail) = after.split_at(end);
            error.set(code, String::from_utf8_lossy(value).into_owned());
            rest = tail.get(1..).unwrap_or_default();
        }
        Err("an error message has no end".into())
    }

    fn set(&mut self, code: u8, value: String) {
        match code {
            // 'S' comes first and is localised; 'V' follows from 9.6 on and is not.
            b'S' if self.severity.is_empty() => self.severity = value,
            b'V' => self.severity = value,
            b'C' => self.sqlstate = value,
            b'M' => self.message = value,
            b'D' => self.detail = Some(value),
            b'H' => self.hint = Some(value),
            b'W' => self.where_ = Some(value),
            b's' => self.schema = Some(value),
            b't' => self.table = Some(value),
            b'c' => self.column = Some(value),
            b'd' => self.datatype = Some(value),
            b'n' => self.constraint = Some(value),
            b'P' => self.position = Some(value),
            b'p' => self.internal_position = Some(value),
            b'q' => self.internal_query = Some(value),
            b'F' => self.file = Some(value),
            b'L' => self.line = Some(value),
            b'R' => self.routine = Some(value),
            _ => {}
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", visible(&self.message), visible(&self.sqlstate))?;
        let parts = if sqlstate::quotes_the_row(&self.sqlstate) {
            [("table", &self.table), ("column", &self.column), ("constraint", &self.constraint), ("hint", &self.hint)]
        } else {
            [("detail", &self.detail), ("hint", &self.hint), ("context", &self.where_), ("constraint", &None)]
        };
        for (label, part) in parts {
            if let Some(part) = part {
                write!(f, "; {label}: {}", visible(part))?;
            }
        }
        match sqlstate::advice(&self.sqlstate, self.where_.as_deref()) {
            "" => Ok(()),
            advice => write!(f, "; {advice}"),
        }
    }
}

/// The same of an error that the driver has read.
impl From<&tokio_postgres::error::DbError> for ServerError {
    fn from(error: &tokio_postgres::error::DbError) -> Self {
        let text = |field: Option<&str>| field.map(str::to_owned);
        ServerError {
            severity: error.severity().to_owned(),
            sqlstate: error.code().code().to_owned(),
            message: error.message().to_owned(),
            detail: text(error.detail()),
            hint: text(error.hint()),
            where_: text(error.where_()),
            schema: text(error.schema()),
            table: text(error.table()),
            column: text(error.column()),
            datatype: text(error.datatype()),
            constraint: text(error.constraint()),
            file: text(error.file()),
            line: error.line().map(|line| line.to_string()),
            routine: text(error.routine()),
            ..ServerError::default()
        }
    }
}

impl std::error::Error for ServerError {}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = b"SFEHLER\0VERROR\0C23505\0Mduplicate key\0DKey (id) exists.\0Hdo not\0spublic\0tt\0nt_pkey\0\
        Fnbtinsert.c\0L666\0R_bt_check_unique\0Zfuture\0\0";

    #[test]
    fn every_field_is_kept_and_unknown_ones_are_passed_over() {
        let error = ServerError::parse(BODY).unwrap();
        assert_eq!(error.severity, "ERROR");
        assert!(!error.ends_the_session());
        assert!(ServerError { severity: "FATAL".to_owned(), ..error.clone() }.ends_the_session());
        assert_eq!(error.constraint.as_deref(), Some("t_pkey"));
        assert_eq!(error.routine.as_deref(), Some("_bt_check_unique"));
        assert_eq!(error.to_string(), "duplicate key (SQLSTATE 23505); table: t; constraint: t_pkey; hint: do not");
    }

    #[test]
    fn every_prefix_of_an_error_is_refused() {
        for end in 0..BODY.len() {
            assert!(ServerError::parse(&BODY[..end]).is_err(), "{end}");
        }
    }
}
