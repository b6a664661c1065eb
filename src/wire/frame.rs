//! Frames: a type byte, a length, a body; the reader and writer of both.
//!
//! ```text
//! u8 tag | u32 length (of itself and the body, big-endian) | body
//! ```
//!
//! Invariants: [`FrameReader::next`] keeps everything it has read in the
//! reader, so dropping the future loses no byte; no frame is longer than its
//! limit; the memory grows with the bytes that came, not with the length that
//! was announced. NoticeResponse and ParameterStatus can come at any time and
//! never leave the reader; what they may cost is bounded, and so is everything
//! before the first ReadyForQuery.
//!
//! Source: `pqParseInput3` in `src/interfaces/libpq/fe-protocol3.c`.

use std::collections::HashMap;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tracing::Level;

use super::notice::Notices;
use super::stream::Stream;
use super::{Peer, ServerError, WireError};
use crate::config::Side;

/// Type byte and length.
pub(super) const HEADER_BYTES: usize = 5;

/// The longest message in bytes: PostgreSQL builds messages in a StringInfo,
/// which cannot grow beyond `MaxAllocSize` (1 GiB - 1).
pub(super) const MAX_FRAME_BYTES: u32 = 0x3fff_ffff;

/// The longest message that nobody asked for, in bytes: an error, a notice, a
/// notification, a parameter. It is words, and no value of a user's has to pass.
pub(super) const MAX_UNASKED_BYTES: u32 = 16 * 1024 * 1024;

/// All that may come before the first ReadyForQuery, in bytes: a server says some
/// hundred there, and a trigger on login may talk.
const MAX_STARTUP_BYTES: usize = 256 * 1024;

/// All parameters that a server reports, in bytes: it has some fifteen, of which
/// `search_path` (18) may be long.
pub(super) const MAX_PARAMETER_BYTES: usize = 1024 * 1024;

/// The longest message before ReadyForQuery, in bytes: libpq's `MAX_ERRLEN`.
/// Longer means that the other end is no PostgreSQL server.
const MAX_STARTUP_FRAME_BYTES: u32 = 30_000;

/// Room for one read, in bytes: some hundred row changes, small enough to be
/// in the cache when they are decoded.
const READ_BYTES: usize = 64 * 1024;

/// A message of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The message's type.
    pub tag: u8,
    /// What follows the length.
    pub body: Bytes,
}

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before the first ReadyForQuery: few types, all short, and not many.
    Startup,
    /// Anything that PostgreSQL may send.
    Ready,
}

/// Why [`FrameReader::take_copy_data`] took no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The chunk holds enough.
    Full,
    /// There is no more until [`FrameReader::fill`] has read it.
    NeedsBytes,
    /// A message of another type is next.
    OtherFrame,
}

/// The reading half of a connection.
pub struct FrameReader {
    inner: ReadHalf<Stream>,
    buf: BytesMut,
    peer: Peer,
    stage: Stage,
    /// What has come before the first ReadyForQuery, in bytes.
    startup_bytes: usize,
    parameters: HashMap<String, String>,
    /// What those take, in bytes.
    parameter_bytes: usize,
    notices: Notices,
}

impl FrameReader {
    pub(super) fn new(inner: ReadHalf<Stream>, peer: Peer) -> Self {
        FrameReader {
            inner,
            buf: BytesMut::with_capacity(READ_BYTES),
            notices: Notices::new(peer.clone()),
            peer,
            stage: Stage::Startup,
            startup_bytes: 0,
            parameters: HashMap::new(),
            parameter_bytes: 0,
        }
    }

    /// Lifts the tight limits of the startup.
    pub(super) fn ready(&mut self) {
        self.stage = Stage::Ready;
    }

    /// The server, for messages.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What the server last reported of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    pub(super) fn parameters(&self) -> &HashMap<String, String> {
        &self.parameters
    }

    /// The bytes that were read and not yet handed out, with the socket.
    pub(super) fn into_parts(self) -> (ReadHalf<Stream>, BytesMut) {
        (self.inner, self.buf)
    }

    /// The next message that is not a notice or a parameter's status. Cancel
    /// safe. An ErrorResponse is a frame like others.
    ///
    /// # Errors
    /// [`WireError::Closed`] at the end of the stream; `Io`, `Protocol` and
    /// `FrameTooLarge` as they say. The connection is of no more use then.
    pub async fn next(&mut self) -> Result<Frame, WireError> {
        loop {
            while let Some(frame) = self.buffered()? {
                match frame.tag {
                    b'N' => self.log_notice(&frame.body)?,
                    b'S' => self.note_parameter(&frame.body)?,
                    _ => return Ok(frame),
                }
            }
            // A server that does nothing but talk must not keep the caller's deadline
            // from being noticed.
            tokio::task::consume_budget().await;
            self.fill().await?;
        }
    }

    /// The next message if it has been read already.
    fn buffered(&mut self) -> Result<Option<Frame>, WireError> {
        let Some((tag, body_bytes)) = self.header(&self.buf)? else {
            return Ok(None);
        };
        if self.buf.len() < HEADER_BYTES + body_bytes {
            return Ok(None);
        }
        self.buf.advance(HEADER_BYTES);
        Ok(Some(Frame { tag, body: self.buf.split_to(body_bytes).freeze() }))
    }

    /// Type and length of the body of the message that begins here, if its
    /// header has been read.
    fn header(&self, bytes: &[u8]) -> Result<Option<(u8, usize)>, WireError> {
        let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return match (self.stage, bytes.first()) {
                (Stage::Startup, Some(&tag)) => self.check_startup_tag(tag).map(|()| None),
                _ => Ok(None),
            };
        };
        if self.stage == Stage::Startup {
            self.check_startup_tag(tag)?;
        }
        body_bytes(&self.peer, self.stage, tag, u32::from_be_bytes([a, b, c, d])).map(|length| Some((tag, length)))
    }

    /// Moves what has been read of CopyData messages to the end of `chunk`,
    /// without their headers, until that holds `enough` bytes. `unread` is what
    /// is still to come of a message that has begun, 0 to begin with. Says how
    /// many messages have ended, and why it stopped.
    pub(super) fn take_copy_data(
        &mut self,
        chunk: &mut BytesMut,
        unread: &mut usize,
        enough: usize,
    ) -> Result<(u64, Stop), WireError> {
        let (mut ended, mut taken) = (0, 0);
        let stop = loop {
            let rest = self.buf.get(taken..).unwrap_or_default();
            if *unread > 0 {
                let piece = rest.get(..*unread).unwrap_or(rest);
                chunk.extend_from_slice(piece);
                taken += piece.len();
                *unread -= piece.len();
                if *unread > 0 {
                    break if chunk.len() >= enough { Stop::Full } else { Stop::NeedsBytes };
                }
                ended += 1;
            } else if chunk.len() >= enough {
                break Stop::Full;
            } else {
                match self.header(rest)? {
                    None => break Stop::NeedsBytes,
                    Some((b'd', length)) => {
                        taken += HEADER_BYTES;
                        *unread = length;
                        ended += u64::from(length == 0);
                    }
                    Some(_) => break Stop::OtherFrame,
                }
            }
        };
        self.buf.advance(taken);
        Ok((ended, stop))
    }

    /// Reads what is there, at least one byte.
    pub(super) async fn fill(&mut self) -> Result<(), WireError> {
        if self.buf.capacity() - self.buf.len() < READ_BYTES / 4 {
            self.buf.reserve(READ_BYTES);
        }
        match self.inner.read_buf(&mut self.buf).await {
            Ok(0) => Err(WireError::Closed { peer: self.peer.clone() }),
            Ok(read) if self.stage == Stage::Startup => {
                self.startup_bytes += read;
                if self.startup_bytes <= MAX_STARTUP_BYTES {
                    return Ok(());
                }
                Err(self.protocol(format!(
                    "more than {MAX_STARTUP_BYTES} bytes before it was ready for a query; is this a PostgreSQL server?"
                )))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(lost(&self.peer, error)),
        }
    }

    /// Only these begin a message before ReadyForQuery: Authentication, Error,
    /// Notice, ParameterStatus, BackendKeyData, NegotiateProtocolVersion, ReadyForQuery.
    fn check_startup_tag(&self, tag: u8) -> Result<(), WireError> {
        if matches!(tag, b'R' | b'E' | b'N' | b'S' | b'K' | b'v' | b'Z') {
            return Ok(());
        }
        Err(self.protocol(format!(
            "byte 0x{tag:02x} where its greeting belongs; no PostgreSQL server listens there, check host and port"
        )))
    }

    fn log_notice(&mut self, body: &Bytes) -> Result<(), WireError> {
        let notice = ServerError::parse(body).map_err(|what| self.protocol(what))?;
        let level = if notice.severity == "WARNING" { Level::WARN } else { Level::DEBUG };
        self.notices.take(level, (&notice.severity, &notice.sqlstate), &notice.message);
        Ok(())
    }

    fn note_parameter(&mut self, body: &Bytes) -> Result<(), WireError> {
        let mut parts = body.split(|&b| b == 0).map(String::from_utf8_lossy);
        let (Some(name), Some(value), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(self.protocol("a ParameterStatus has no end".into()));
        };
        self.parameter_bytes += name.len() + value.len();
        if let Some(before) = self.parameters.insert(name.clone().into_owned(), value.into_owned()) {
            self.parameter_bytes -= name.len() + before.len();
        }
        if self.parameter_bytes > MAX_PARAMETER_BYTES {
            return Err(self.protocol(format!(
                "it reports parameters without end, more than {MAX_PARAMETER_BYTES} bytes of them"
            )));
        }
        Ok(())
    }

    pub(super) fn protocol(&self, what: String) -> WireError {
        WireError::Protocol { peer: self.peer.clone(), what }
    }

    /// A frame that does not belong here: the server's error if it is one.
    pub(super) fn unexpected(&self, frame: &Frame, instead_of: &str) -> WireError {
        if frame.tag == b'E' {
            return server_failure(&self.peer, &frame.body);
        }
        self.protocol(format!("a message '{}' instead of {instead_of}", frame.tag.escape_ascii()))
    }
}

/// How long the body is of a message with this header.
pub(super) fn body_bytes(peer: &Peer, stage: Stage, tag: u8, length: u32) -> Result<usize, WireError> {
    let limit = match (stage, tag) {
        (Stage::Startup, _) => MAX_STARTUP_FRAME_BYTES,
        (Stage::Ready, b'N' | b'S' | b'A' | b'E') => MAX_UNASKED_BYTES,
        (Stage::Ready, _) => MAX_FRAME_BYTES,
    };
    if length > limit {
        return Err(WireError::FrameTooLarge { peer: peer.clone(), tag, length, limit });
    }
    if length < 4 {
        let what = format!("a message '{}' of length {length}", tag.escape_ascii());
        return Err(WireError::Protocol { peer: peer.clone(), what });
    }
    // The length counts itself but not the type byte; it fits usize on every platform with sockets.
    Ok(length as usize - 4)
}

/// The writing half of a connection.
pub struct FrameWriter {
    inner: WriteHalf<Stream>,
    peer: Peer,
}

impl FrameWriter {
    pub(super) fn new(inner: WriteHalf<Stream>, peer: Peer) -> Self {
        FrameWriter { inner, peer }
    }

    pub(super) fn into_inner(self) -> WriteHalf<Stream> {
        self.inner
    }

    /// The server, for messages.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Hands whole messages to the system. Not cancel safe: a dropped future
    /// may leave half a message behind.
    ///
    /// # Errors
    /// [`WireError::Closed`] or [`WireError::Io`]; the server's reason, if it
    /// gave one, is in the reader.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.inner.write_all(bytes).await.map_err(|e| lost(&self.peer, e))?;
        // TLS may keep a finished record back until it is flushed.
        self.flush().await
    }

    /// Writes out what TLS holds back; [`FrameWriter::send`] does it already.
    ///
    /// # Errors
    /// As [`FrameWriter::send`].
    pub async fn flush(&mut self) -> Result<(), WireError> {
        self.inner.flush().await.map_err(|e| lost(&self.peer, e))
    }

    /// Says goodbye and closes our direction.
    ///
    /// # Errors
    /// As [`FrameWriter::send`].
    pub async fn terminate(mut self) -> Result<(), WireError> {
        let mut bytes = BytesMut::new();
        postgres_protocol::message::frontend::terminate(&mut bytes);
        self.send(&bytes).await?;
        self.inner.shutdown().await.map_err(|e| lost(&self.peer, e))
    }
}

/// A connection that ended: cleanly, or not. In TLS 1.3 the server's verdict on
/// our certificate comes only after the handshake, and is no accident.
pub(super) fn lost(peer: &Peer, error: io::Error) -> WireError {
    let peer = peer.clone();
    if is_certificate_alert(&error) {
        return WireError::Tls { peer, source: error };
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => WireError::Closed { peer },
        _ => WireError::Io { peer, source: error },
    }
}

/// Whether the server refuses our certificate, or the lack of one.
pub(super) fn is_certificate_alert(error: &io::Error) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        tls_cause(error),
        Some(rustls::Error::AlertReceived(
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::UnknownCA
                | Alert::AccessDenied
        ))
    )
}

/// What rustls says behind an I/O error, if it is from there.
pub(super) fn tls_cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// The server's error as ours.
pub(super) fn server_failure(peer: &Peer, body: &Bytes) -> WireError {
    let peer = peer.clone();
    match ServerError::parse(body) {
        Ok(error) => WireError::Server { peer, error: Box::new(error) },
        Err(what) => WireError::Protocol { peer, what },
    }
}

/// Parses the body of an `E` frame.
///
/// # Errors
/// [`WireError::Protocol`] when it is no error message.
pub fn server_error(side: Side, body: &Bytes) -> Result<ServerError, WireError> {
    ServerError::parse(body)
        .map_err(|what| WireError::Protocol { peer: Peer { side, host: "host not recorded".into() }, what })
}
