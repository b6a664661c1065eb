//! How well a connection is protected, in words.
//!
//! Invariant: whoever could read along, or pretend to be the server, is said: in the
//! log once for each side and kind of connection, and by `check` for both ends.
//!
//! Source: "Protection Provided in Different Modes" of libpq's documentation.

use std::fmt;
use std::sync::Mutex;

use super::Peer;

/// What the way between us and the server is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// A Unix socket, or TCP within this machine.
    Local,
    /// TCP without TLS.
    Plain,
    /// TLS with a server whose certificate nobody vouches for.
    Encrypted,
    /// TLS, and a trusted authority vouches for the certificate, if not for the host's name.
    Authority,
    /// TLS, and a trusted authority vouches for the host's name.
    Verified,
}

/// What the login told of the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordShown {
    /// Nothing: none was asked for.
    None,
    /// All of it.
    Clear,
    /// A hash by which passwords can be tried.
    Hashed,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Security {
    /// The way.
    pub protection: Protection,
    /// The login on it.
    pub password: PasswordShown,
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.protection {
            Protection::Local => "on this machine, not encrypted",
            Protection::Plain => "not encrypted",
            Protection::Encrypted => "encrypted, certificate not verified",
            Protection::Authority => "encrypted, authority of the certificate verified",
            Protection::Verified => "encrypted and verified",
        })
    }
}

impl Security {
    /// What somebody on the way learns, where that is more than who talks to whom.
    pub fn risk(&self) -> Option<&'static str> {
        match (self.protection, self.password) {
            (Protection::Local | Protection::Authority | Protection::Verified, _) => None,
            (Protection::Plain, PasswordShown::Clear) => {
                Some("the password goes in clear text over a connection that is not encrypted: whoever listens has it")
            }
            (Protection::Plain, PasswordShown::Hashed) => Some(
                "the connection is not encrypted: whoever listens sees all rows, and can try passwords on what the login \
                 shows",
            ),
            (Protection::Plain, PasswordShown::None) => {
                Some("the connection is not encrypted: whoever listens sees all rows")
            }
            (Protection::Encrypted, PasswordShown::Clear) => Some(
                "the password goes in clear text to a server whose certificate is not verified: an impostor has it",
            ),
            (Protection::Encrypted, PasswordShown::Hashed | PasswordShown::None) => None,
        }
    }

    /// What mends it.
    pub fn remedy(&self) -> &'static str {
        match self.protection {
            Protection::Plain => {
                "put sslmode=require into the connection string, or better sslmode=verify-full with sslrootcert; if the \
                 server has no TLS, turn `ssl` on there"
            }
            _ => "put sslmode=verify-full and sslrootcert into the connection string",
        }
    }

    /// Logs it, once for each side and kind.
    pub(super) fn log(self, peer: &Peer) {
        static SAID: Mutex<Vec<(Peer, Security)>> = Mutex::new(Vec::new());
        tracing::debug!(%peer, "connected: {self}");
        let is_new = SAID.lock().is_ok_and(|mut said| {
            let is_new = said.iter().all(|(known, security)| known.side != peer.side || *security != self);
            if is_new {
                said.push((peer.clone(), self));
            }
            is_new
        });
        if !is_new {
            return;
        }
        match self.risk() {
            Some(risk) => tracing::warn!("the connection to the {peer}: {risk}; {}", self.remedy()),
            None => tracing::info!("the connection to the {peer} is {self}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_clear_text_is_warned_of_wherever_somebody_may_listen() {
        let risk = |protection, password| Security { protection, password }.risk();
        for protection in [Protection::Plain, Protection::Encrypted] {
            assert!(risk(protection, PasswordShown::Clear).unwrap().contains("clear text"));
        }
        for password in [PasswordShown::None, PasswordShown::Hashed] {
            assert!(risk(Protection::Plain, password).unwrap().contains("not encrypted"));
            assert_eq!(risk(Protection::Encrypted, password), None);
        }
        for protection in [Protection::Local, Protection::Authority, Protection::Verified] {
            assert_eq!(risk(protection, PasswordShown::Clear), None);
        }
    }
}
