//! Where a server is and how to get in, with libpq's meaning of every word.
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-connect.html>.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Side;

/// A password: never printed, never logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The password itself, for the authentication exchange only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

/// How a host is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP, by name; `hostaddr` spares the look-up and leaves the name for TLS.
    Tcp {
        /// The host's name or address as the user wrote it.
        host: String,
        /// The address to connect to instead of looking `host` up.
        hostaddr: Option<IpAddr>,
    },
    /// A folder with a Unix socket `.s.PGSQL.<port>`.
    Unix(PathBuf),
}

/// One host of the list, with the password that applies to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// How it is reached.
    pub address: Address,
    /// TCP port, or the number in the Unix socket's name.
    pub port: u16,
    /// From the URI, the environment or the password file.
    pub password: Option<Secret>,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp { host, .. } => write!(f, "{host}:{}", self.port),
            Address::Unix(path) => write!(f, "{}/.s.PGSQL.{}", path.display(), self.port),
        }
    }
}

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// Plain first, TLS if that is refused.
    Allow,
    /// TLS first, plain if the server has none.
    Prefer,
    /// TLS; verified like `verify-ca` when a root certificate file exists.
    Require,
    /// TLS with a certificate of a trusted authority.
    VerifyCa,
    /// As `VerifyCa`, and the certificate names the host.
    VerifyFull,
}

/// libpq's `sslrootcert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootCert {
    /// `~/.postgresql/root.crt` if it exists.
    Default,
    /// The platform's roots (`sslrootcert=system`).
    System,
    /// A file the user named; it must exist.
    File(PathBuf),
}

/// libpq's `channel_binding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When the server offers it over TLS.
    Prefer,
    /// Refuse to authenticate without.
    Require,
}

/// libpq's `sslnegotiation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslNegotiation {
    /// The server is asked whether it speaks TLS.
    Postgres,
    /// TLS begins at once (PostgreSQL 17).
    Direct,
}

/// A way to log in, as `require_auth` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    /// The server asks for nothing, or for a client certificate.
    None,
    /// The password itself.
    Password,
    /// Its md5 hash.
    Md5,
    /// SCRAM-SHA-256, with or without channel binding.
    Scram,
    /// GSSAPI, which we do not speak.
    Gss,
    /// SSPI, which we do not speak.
    Sspi,
    /// OAuth, which we do not speak.
    Oauth,
}

impl AuthMethod {
    /// All of them, by libpq's names.
    pub const ALL: [(AuthMethod, &'static str); 7] = [
        (AuthMethod::None, "none"),
        (AuthMethod::Password, "password"),
        (AuthMethod::Md5, "md5"),
        (AuthMethod::Scram, "scram-sha-256"),
        (AuthMethod::Gss, "gss"),
        (AuthMethod::Sspi, "sspi"),
        (AuthMethod::Oauth, "oauth"),
    ];
}

/// libpq's `target_session_attrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSessionAttrs {
    /// The first host that answers.
    Any,
    /// One whose sessions may write.
    ReadWrite,
    /// One whose sessions may not write.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is in recovery.
    Standby,
    /// A standby if there is one, else any.
    PreferStandby,
}

/// A validated connection string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnInfo {
    /// Which end this is, for messages.
    pub side: Side,
    /// Hosts in the order they are tried; never empty.
    pub hosts: Vec<Host>,
    /// The role.
    pub user: String,
    /// The database.
    pub dbname: String,
    /// Whether and how TLS is used.
    pub sslmode: SslMode,
    /// What certificates are trusted.
    pub sslrootcert: RootCert,
    /// Client certificate (PEM), `~/.postgresql/postgresql.crt` if that exists.
    pub sslcert: Option<PathBuf>,
    /// Its key (PEM).
    pub sslkey: Option<PathBuf>,
    /// How TLS begins.
    pub sslnegotiation: SslNegotiation,
    /// Whether SCRAM is bound to the TLS channel.
    pub channel_binding: ChannelBinding,
    /// The ways to log in that are accepted (`require_auth`); `None` for all.
    pub require_auth: Option<Vec<AuthMethod>>,
    /// What kind of session is wanted of several hosts.
    pub target_session_attrs: TargetSessionAttrs,
    /// Bound of one attempt to connect to one host, start-up included.
    pub connect_timeout: Duration,
    /// libpq's `options`: command-line settings for the session.
    pub options: Option<String>,
}

/// What a short question may take, in connect_timeouts.
const LOGINS_A_QUESTION_TAKES: u32 = 4;

impl ConnInfo {
    /// How long the answer to a question may take that is short on every server: four
    /// times what the user grants a whole login, a minute by default. The longest, over
    /// the state of 20,000 tables, takes a second.
    pub fn answer_timeout(&self) -> Duration {
        self.connect_timeout * LOGINS_A_QUESTION_TAKES
    }
}

/// For people and logs: never a password.
impl fmt::Display for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
        write!(f, "{}@{}/{}", self.user, hosts.join(","), self.dbname)
    }
}
