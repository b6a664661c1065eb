//! An authenticated connection that is ready for a query.
//!
//! Invariant: between two calls the server is waiting for us
//! (ReadyForQuery has been read); a server error leaves it so.
//!
//! Source: `PQconnectPoll` in `src/interfaces/libpq/fe-connect.c`;
//! `libpqrcv_connect` in `libpqwalreceiver.c` for the replication options.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::frontend;

use super::auth::{Channel, Dialogue, Login};
use super::frame::server_failure;
use super::stream::Stream;
use super::{Frame, FrameReader, FrameWriter, Peer, Protection, Security, WireError, dial};
use crate::config::Side;
use crate::config::conninfo::{ConnInfo, Host};

/// How long the server's last words are waited for when it no longer takes
/// ours; they are in our socket's buffer already if there are any.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a simple query may answer, in bytes: replication commands and preparations
/// answer a row or none.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// What a message of an answer counts for beside its bytes: a row of none takes memory too.
const MESSAGE_OVERHEAD_BYTES: usize = 64;

/// What a connection is for; it is prepared as [`super::preparation`] says in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// SQL.
    Session,
    /// Logical replication (`replication=database`).
    Replication,
}

/// What a cancel request has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelKey {
    /// The backend's process id.
    pub process_id: i32,
    /// Its secret.
    pub secret_key: i32,
}

/// An authenticated connection that is ready for a query.
pub struct Connection {
    reader: FrameReader,
    writer: FrameWriter,
    host: Host,
    version: i32,
    cancel_key: Option<CancelKey>,
    answer_timeout: Duration,
    security: Security,
}

impl Connection {
    /// Connects to the first host that lets us in and is what
    /// `target_session_attrs` asks for. Each attempt has `connect_timeout`.
    ///
    /// # Errors
    /// The attempt's error, or [`WireError::NoSuitableHost`] after several.
    pub async fn connect(info: &ConnInfo, purpose: Purpose, application_name: &str) -> Result<Self, WireError> {
        dial::connect(info, purpose, application_name).await
    }

    /// Logs in on a fresh channel.
    pub(super) async fn start(
        stream: Stream,
        (channel, protection): (Channel, Protection),
        startup: &Startup<'_>,
    ) -> Result<Self, WireError> {
        let peer = Peer { side: startup.info.side, host: startup.host.to_string() };
        let (read, write) = tokio::io::split(stream);
        let mut reader = FrameReader::new(read, peer.clone());
        let mut writer = FrameWriter::new(write, peer);
        writer.send(&startup.message()?).await?;
        let login = Login {
            user: &startup.info.user,
            password: startup.host.password.as_ref(),
            channel,
            binding: startup.info.channel_binding,
            accepted: startup.info.require_auth.as_deref(),
        };
        let password = Dialogue { reader: &mut reader, writer: &mut writer }.authenticate(&login).await?;
        let security = Security { protection, password };
        let cancel_key = until_ready(&mut reader).await?;
        let version = parse_version(reader.parameter("server_version").unwrap_or_default())
            .ok_or_else(|| reader.protocol("it did not tell its version".into()))?;
        Ok(Connection {
            reader,
            writer,
            host: startup.host.clone(),
            version,
            cancel_key,
            answer_timeout: startup.info.answer_timeout(),
            security,
        })
    }

    /// The server's `server_version_num`, for example 150018.
    pub fn server_version(&self) -> i32 {
        self.version
    }

    /// The host that let us in.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.reader.peer().side
    }

    /// The server, for messages.
    pub fn peer(&self) -> &Peer {
        self.reader.peer()
    }

    /// How it is protected.
    pub fn security(&self) -> Security {
        self.security
    }

    /// What the server last reported of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.reader.parameter(name)
    }

    /// What a cancel request has to show, if the server gave a key.
    pub fn cancel_key(&self) -> Option<CancelKey> {
        self.cancel_key
    }

    /// As [`Connection::simple_query`], of what is answered at once.
    ///
    /// # Errors
    /// [`WireError::Silent`] when it is not; the connection is of no more use then.
    pub(super) async fn ask(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, WireError> {
        let after = self.answer_timeout;
        let silent = WireError::Silent { peer: self.peer().clone(), after };
        tokio::time::timeout(after, self.simple_query(sql)).await.unwrap_or(Err(silent))
    }

    /// Runs SQL or a replication command in the simple protocol. Returns the
    /// rows of all statements, values as text.
    ///
    /// # Errors
    /// [`WireError::Server`] when a statement fails, and the connection stays
    /// usable; it does not after any other error, nor when the future was
    /// dropped.
    pub async fn simple_query(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, WireError> {
        self.send_query(sql).await?;
        let mut rows = Vec::new();
        let mut failure = None;
        let mut answer_bytes = 0;
        loop {
            let frame = self.reader.next().await?;
            answer_bytes += frame.body.len() + MESSAGE_OVERHEAD_BYTES;
            if answer_bytes > MAX_ANSWER_BYTES {
                return Err(self.reader.protocol(format!("an answer of more than {MAX_ANSWER_BYTES} bytes")));
            }
            match frame.tag {
                b'D' => rows.push(data_row(&frame.body).map_err(|what| self.reader.protocol(what.into()))?),
                b'T' | b'C' | b'I' => {}
                b'E' => {
                    let error = server_failure(self.peer(), &frame.body);
                    if is_last_word(&error) {
                        return Err(error);
                    }
                    failure.get_or_insert(error);
                }
                b'Z' => return failure.map_or(Ok(rows), Err),
                _ => return Err(self.reader.unexpected(&frame, "the result of a query")),
            }
        }
    }

    /// Sends a query; when the server no longer listens, its last words are the error.
    pub(super) async fn send_query(&mut self, sql: &str) -> Result<(), WireError> {
        let mut message = BytesMut::new();
        frontend::query(sql, &mut message).map_err(|e| self.reader.protocol(format!("cannot send a query: {e}")))?;
        let Err(error) = self.writer.send(&message).await else { return Ok(()) };
        match tokio::time::timeout(LAST_WORDS, self.reader.next()).await {
            Ok(Ok(frame)) if frame.tag == b'E' => Err(server_failure(self.peer(), &frame.body)),
            _ => Err(error),
        }
    }

    /// The next message, for a command whose answer is not a plain result.
    pub(super) async fn next(&mut self) -> Result<Frame, WireError> {
        self.reader.next().await
    }

    /// The reading half, for an answer that is not read frame by frame.
    pub(super) fn reader(&mut self) -> &mut FrameReader {
        &mut self.reader
    }

    /// The two directions, for a task each.
    pub fn split(self) -> (FrameReader, FrameWriter) {
        (self.reader, self.writer)
    }
}

/// After these the server closes the connection without a ReadyForQuery.
pub(super) fn is_last_word(error: &WireError) -> bool {
    error.server().is_none_or(|e| e.severity == "FATAL" || e.severity == "PANIC")
}

/// What the startup message is made of.
pub(super) struct Startup<'a> {
    /// Where and as whom.
    pub(super) info: &'a ConnInfo,
    /// The host of the attempt.
    pub(super) host: &'a Host,
    /// What for.
    pub(super) purpose: Purpose,
    /// What the server shows of us.
    pub(super) application_name: &'a str,
}

impl Startup<'_> {
    fn message(&self) -> Result<BytesMut, WireError> {
        let mut parameters = vec![
            ("user", self.info.user.as_str()),
            ("database", self.info.dbname.as_str()),
            ("application_name", self.application_name),
            ("client_encoding", "UTF8"),
        ];
        if let Some(options) = self.info.options.as_deref().filter(|options| !options.is_empty()) {
            parameters.push(("options", options));
        }
        if self.purpose == Purpose::Replication {
            parameters.push(("replication", "database"));
        }
        let mut message = BytesMut::new();
        frontend::startup_message(parameters, &mut message).map_err(|e| WireError::Protocol {
            peer: Peer { side: self.info.side, host: self.host.to_string() },
            what: format!("cannot build the startup message: {e}"),
        })?;
        Ok(message)
    }
}

/// From AuthenticationOk to the first ReadyForQuery.
async fn until_ready(reader: &mut FrameReader) -> Result<Option<CancelKey>, WireError> {
    let mut key = None;
    loop {
        let mut frame = reader.next().await?;
        match frame.tag {
            b'K' => {
                // Eight bytes in protocol 3.0, which is the one we ask for.
                let (Ok(process_id), Ok(secret_key)) = (frame.body.try_get_i32(), frame.body.try_get_i32()) else {
                    return Err(reader.protocol("a cancel key is too short".into()));
                };
                key = Some(CancelKey { process_id, secret_key });
            }
            b'Z' => {
                reader.ready();
                return Ok(key);
            }
            _ => return Err(reader.unexpected(&frame, "the end of the startup")),
        }
    }
}

/// The columns of a DataRow as text.
fn data_row(body: &Bytes) -> Result<Vec<Option<String>>, &'static str> {
    let mut rest = body.clone();
    let short = |_| "a row is shorter than it says";
    let columns = rest.try_get_u16().map_err(short)?;
    let mut row = Vec::with_capacity(usize::from(columns));
    for _ in 0..columns {
        let length = rest.try_get_i32().map_err(short)?;
        let Ok(length) = usize::try_from(length) else {
            row.push(None);
            continue;
        };
        if length > rest.len() {
            return Err("a row is shorter than it says");
        }
        let value = rest.split_to(length);
        row.push(Some(std::str::from_utf8(&value).map_err(|_| "a value is not UTF-8")?.to_owned()));
    }
    if rest.is_empty() { Ok(row) } else { Err("a row is longer than it says") }
}

/// `server_version` as `server_version_num`: `15.18 (Debian …)`, `19beta2`, `9.6.3`.
fn parse_version(text: &str) -> Option<i32> {
    let number = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
    let mut parts = number.split('.').map(|part| part.parse::<i32>().ok());
    let major = parts.next().flatten()?;
    let minor = parts.next().flatten().unwrap_or(0);
    let revision = parts.next().flatten().unwrap_or(0);
    let version = if major >= 10 {
        major.checked_mul(10_000)?.checked_add(minor)?
    } else {
        (major * 100).checked_add(minor)?.checked_mul(100)?.checked_add(revision)?
    };
    Some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_libpq_reads_them() {
        for (text, number) in [
            ("15.18 (Debian 15.18-1)", 150_018),
            ("19beta2", 190_000),
            ("18devel", 180_000),
            ("9.6.3", 90_603),
            ("10.0", 100_000),
        ] {
            assert_eq!(parse_version(text), Some(number), "{text}");
        }
        assert_eq!(parse_version("PgBouncer"), None);
    }

    #[test]
    fn every_prefix_of_a_row_is_refused() {
        let body = b"\0\x02\0\0\0\x01a\xff\xff\xff\xff";
        assert_eq!(data_row(&Bytes::from_static(body)), Ok(vec![Some("a".into()), None]));
        for end in 0..body.len() {
            assert!(data_row(&Bytes::copy_from_slice(&body[..end])).is_err(), "{end}");
        }
    }
}
