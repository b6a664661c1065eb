//! Why a connection could not be made or was lost.
//!
//! Invariant: every error names the side, the host, what failed and what to
//! do; none contains a password or a row's value.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::{ServerError, frame};
use crate::config::Side;
use crate::config::conninfo::TargetSessionAttrs;
use crate::fault::{Fault, sqlstate};

/// The server at the other end, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which end of the migration.
    pub side: Side,
    /// The host as the user wrote it, with the port.
    pub host: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.side, self.host)
    }
}

/// Why authentication failed on our side of it; the server's own refusal is
/// [`WireError::Server`].
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A password is asked for and there is none.
    #[error("the server asks for a password and none was given; put it into the URI, PGPASSWORD or ~/.pgpass")]
    PasswordMissing,
    /// A method that we do not speak.
    #[error("the server asks for {0}, which is not supported; let pg_hba.conf use scram-sha-256 for this role")]
    Unsupported(String),
    /// `require_auth` rules out what the server asks for.
    #[error(
        "the server asks for the method {0}, which require_auth rules out; let pg_hba.conf use another one for this \
         role, or add it to require_auth"
    )]
    NotAccepted(&'static str),
    /// `channel_binding=require` cannot be met.
    #[error(
        "channel_binding=require, but {0}; use sslmode=require or stronger and a role with a SCRAM password, or \
         channel_binding=prefer"
    )]
    ChannelBinding(&'static str),
    /// The server broke the exchange, or does not know the password itself.
    #[error("the SCRAM exchange failed: {0}; the server may be an impostor")]
    Scram(#[source] io::Error),
    /// Authentication messages in an order that the protocol does not know.
    #[error("the server's authentication messages are out of order ({0})")]
    OutOfOrder(&'static str),
}

/// Why a connection could not be made or was lost.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The host's name has no address.
    #[error("cannot find the address of the {peer}: {source}; check the host's name")]
    Resolve {
        /// The server.
        peer: Peer,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// No connection to the address.
    #[error("cannot connect to the {peer}: {source}; check host and port, that the server runs, and its firewall")]
    Connect {
        /// The server.
        peer: Peer,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nobody answered in time.
    #[error(
        "the {peer} did not answer within {} s; check host, port and firewall, or raise connect_timeout",
        after.as_secs_f32()
    )]
    Timeout {
        /// The server.
        peer: Peer,
        /// How long was waited.
        after: Duration,
    },
    /// A server that had let us in went silent.
    #[error(
        "the {peer} has let us in, and gave no answer within {} s; see whether the server and what lies before it are \
         alive",
        after.as_secs_f32()
    )]
    Silent {
        /// The server.
        peer: Peer,
        /// How long was waited.
        after: Duration,
    },
    /// The server has no TLS and it is required.
    #[error("the {peer} does not offer TLS; turn `ssl` on there, or use sslmode=prefer if the network is trusted")]
    TlsRefused {
        /// The server.
        peer: Peer,
    },
    /// The host's name cannot stand in a certificate, and it must be verified.
    #[error(
        "the name of the {peer} cannot be verified: it is neither a DNS name nor an address; use the name that the \
         certificate has, with hostaddr for the address, or sslmode=verify-ca"
    )]
    NoServerName {
        /// The server.
        peer: Peer,
    },
    /// The handshake failed or the certificate was not accepted.
    #[error("cannot set up TLS with the {peer}: {source}; {}", tls_remedy(source))]
    Tls {
        /// The server.
        peer: Peer,
        /// What rustls said.
        #[source]
        source: io::Error,
    },
    /// A file with certificates or a key cannot be used.
    #[error("cannot use {} for TLS with the {side}: {what}", path.display())]
    CertificateFile {
        /// Which end.
        side: Side,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// We cannot or must not authenticate.
    #[error("cannot authenticate as \"{user}\" on the {peer}: {source}")]
    Auth {
        /// The server.
        peer: Peer,
        /// The role.
        user: String,
        /// Why.
        #[source]
        source: AuthError,
    },
    /// The server answered with an error.
    #[error("the {peer} says: {error}")]
    Server {
        /// The server.
        peer: Peer,
        /// Its error with all fields.
        #[source]
        error: Box<ServerError>,
    },
    /// A connection pooler is between us and the server.
    #[error(
        "a connection pooler answers for the {peer}: {error}; replication and session settings do not pass it, give \
         the direct host and port of the database"
    )]
    Pooler {
        /// The server, or what pretends to be it.
        peer: Peer,
        /// Its error with all fields.
        #[source]
        error: Box<ServerError>,
    },
    /// The other end does not speak the protocol, or breaks it.
    #[error("the {peer} broke the protocol: {what}")]
    Protocol {
        /// The server.
        peer: Peer,
        /// What came and what belongs there.
        what: String,
    },
    /// The server closed the connection without a word.
    #[error("the {peer} closed the connection; its log says why")]
    Closed {
        /// The server.
        peer: Peer,
    },
    /// The connection broke.
    #[error("the connection to the {peer} broke: {source}")]
    Io {
        /// The server.
        peer: Peer,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A message is longer than PostgreSQL can make one.
    #[error(
        "the {peer} announces a message '{}' of {length} bytes where {limit} is the limit; is this a PostgreSQL \
         server?",
        tag.escape_ascii()
    )]
    FrameTooLarge {
        /// The server.
        peer: Peer,
        /// The message's type.
        tag: u8,
        /// What its header claims, in bytes.
        length: u32,
        /// The limit, in bytes.
        limit: u32,
    },
    /// The server is too old for what was asked.
    #[error("the {peer} is too old for {what}, which needs PostgreSQL {needs}")]
    TooOld {
        /// The server.
        peer: Peer,
        /// What was asked.
        what: &'static str,
        /// The major version that can do it.
        needs: u8,
    },
    /// A host answered, but is not what `target_session_attrs` asks for.
    #[error("the {peer} is not what target_session_attrs={} asks for", attrs_name(*wanted))]
    NotWanted {
        /// The server.
        peer: Peer,
        /// What was asked for.
        wanted: TargetSessionAttrs,
    },
    /// Several attempts, and none led in.
    #[error("no host of the {side} let us in: {}", list(attempts))]
    NoSuitableHost {
        /// Which end.
        side: Side,
        /// One error for each attempt, in order; never empty.
        attempts: Vec<WireError>,
    },
    /// The driver of ordinary sessions refused a connection that was ready.
    #[error("cannot hand the connection to the {peer} over to the driver: {source}")]
    Driver {
        /// The server.
        peer: Peer,
        /// What the driver said.
        #[source]
        source: Box<tokio_postgres::Error>,
    },
}

impl WireError {
    /// Which end it is about.
    pub fn side(&self) -> Side {
        match self {
            WireError::CertificateFile { side, .. } | WireError::NoSuitableHost { side, .. } => *side,
            WireError::Resolve { peer, .. }
            | WireError::Connect { peer, .. }
            | WireError::Timeout { peer, .. }
            | WireError::Silent { peer, .. }
            | WireError::TlsRefused { peer }
            | WireError::NoServerName { peer }
            | WireError::Tls { peer, .. }
            | WireError::Auth { peer, .. }
            | WireError::Server { peer, .. }
            | WireError::Pooler { peer, .. }
            | WireError::Protocol { peer, .. }
            | WireError::Closed { peer }
            | WireError::Io { peer, .. }
            | WireError::FrameTooLarge { peer, .. }
            | WireError::TooOld { peer, .. }
            | WireError::NotWanted { peer, .. }
            | WireError::Driver { peer, .. } => peer.side,
        }
    }

    /// The server's error, if a server answered.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            WireError::Server { error, .. } | WireError::Pooler { error, .. } => Some(error),
            WireError::NoSuitableHost { attempts, .. } => attempts.iter().rev().find_map(WireError::server),
            _ => None,
        }
    }

    /// The SQLSTATE, if a server answered.
    pub fn sqlstate(&self) -> Option<&str> {
        self.server().map(|error| error.sqlstate.as_str())
    }

    /// What it means.
    pub fn fault(&self) -> Fault {
        match self {
            WireError::Resolve { .. }
            | WireError::Connect { .. }
            | WireError::Timeout { .. }
            | WireError::Silent { .. }
            | WireError::Closed { .. }
            | WireError::Io { .. } => Fault::passing(self.side()),
            // A failover moves what the hosts are.
            WireError::NotWanted { .. } => Fault::passing(self.side()),
            WireError::Server { error, .. } => sqlstate::fault(self.side(), &error.sqlstate, &error.message),
            // The search ends at the first error that does not pass.
            WireError::NoSuitableHost { attempts, .. } => attempts
                .iter()
                .map(WireError::fault)
                .find(|fault| !fault.is_retried())
                .unwrap_or(Fault::passing(self.side())),
            WireError::TlsRefused { .. }
            | WireError::NoServerName { .. }
            | WireError::Tls { .. }
            | WireError::CertificateFile { .. }
            | WireError::Auth { .. }
            | WireError::Pooler { .. }
            | WireError::Protocol { .. }
            | WireError::FrameTooLarge { .. }
            | WireError::TooOld { .. }
            | WireError::Driver { .. } => Fault::lasting(self.side()),
        }
    }

    /// Whether waiting and connecting again may mend it.
    pub fn is_transient(&self) -> bool {
        self.fault().is_retried()
    }
}

fn list(attempts: &[WireError]) -> String {
    attempts.iter().map(WireError::to_string).collect::<Vec<_>>().join("; ")
}

fn attrs_name(wanted: TargetSessionAttrs) -> &'static str {
    match wanted {
        TargetSessionAttrs::Any => "any",
        TargetSessionAttrs::ReadWrite => "read-write",
        TargetSessionAttrs::ReadOnly => "read-only",
        TargetSessionAttrs::Primary => "primary",
        TargetSessionAttrs::Standby => "standby",
        TargetSessionAttrs::PreferStandby => "prefer-standby",
    }
}

fn tls_remedy(error: &io::Error) -> &'static str {
    if frame::is_certificate_alert(error) {
        return "the server does not accept our client certificate; check sslcert and sslkey";
    }
    match frame::tls_cause(error) {
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. },
        )) => "use the host name that the certificate has, or sslmode=verify-ca",
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)) => {
            "give the authority's certificate as sslrootcert, or sslrootcert=system for a public one"
        }
        Some(rustls::Error::InvalidCertificate(_)) => "the server needs another certificate",
        _ => "check that the server speaks TLS 1.2 or newer and what its log says",
    }
}
