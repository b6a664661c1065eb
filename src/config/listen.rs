//! Where metrics and health are served, and to whom.
//!
//! Invariant: what other machines can reach is served to everybody only where
//! the operator has said so: a [`Listen`] is made by [`Listen::new`] alone.

use std::fmt;
use std::net::SocketAddr;

use super::Secret;

/// An address, or a name of one, with a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd)]
pub enum ListenAddress {
    /// An address.
    Socket(SocketAddr),
    /// A name, which is looked up when it is listened on.
    Name {
        /// The name.
        host: String,
        /// The port.
        port: u16,
    },
}

impl ListenAddress {
    /// Reads `127.0.0.1:9187`, `[::1]:9187` or `name:9187`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(ListenAddress::Socket(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        let is_name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        let port = port.parse().ok().filter(|_| is_name)?;
        Some(ListenAddress::Name { host: host.to_owned(), port })
    }

    /// The name, where it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            ListenAddress::Socket(_) => None,
            ListenAddress::Name { host, .. } => Some(host),
        }
    }

    /// Whether only this machine can reach it. Any name but the one that stands
    /// for this (RFC 6761) may turn out to be an address of the network.
    fn is_loopback(&self) -> bool {
        match self {
            ListenAddress::Socket(address) => address.ip().to_canonical().is_loopback(),
            ListenAddress::Name { host, .. } => host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Socket(address) => address.fmt(f),
            ListenAddress::Name { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Who is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Whoever reaches the port.
    Everybody,
    /// Whoever has this token.
    Bearer(Secret),
}

/// Where, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    address: ListenAddress,
    audience: Audience,
}

impl Listen {
    /// `None` for an address that other machines may reach when it was not said
    /// who is served.
    pub fn new(address: ListenAddress, said: Option<Audience>) -> Option<Self> {
        let audience = match said {
            None if address.is_loopback() => Audience::Everybody,
            said => said?,
        };
        Some(Listen { address, audience })
    }

    /// Where.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// To whom.
    pub fn audience(&self) -> &Audience {
        &self.audience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_served_without_a_word_about_whom() {
        let listen = |text: &str, said: Option<Audience>| Listen::new(ListenAddress::parse(text).unwrap(), said);
        for own in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1", "LocalHost:1"] {
            assert_eq!(listen(own, None).unwrap().audience(), &Audience::Everybody, "{own}");
        }
        for open in
            ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "vm:1", "localhost.example:1", "127.1:1"]
        {
            assert_eq!(listen(open, None), None, "{open}");
            for said in [Audience::Everybody, Audience::Bearer(Secret::new("x"))] {
                assert_eq!(listen(open, Some(said.clone())).unwrap().audience(), &said, "{open}");
            }
        }
        let asked_for = Audience::Bearer(Secret::new("x"));
        assert_eq!(listen("127.0.0.1:1", Some(asked_for.clone())).unwrap().audience(), &asked_for);
    }

    #[test]
    fn an_address_is_shown_as_it_is_read_and_what_is_none_is_not_read() {
        for text in ["127.0.0.1:9187", "[::1]:0", "[fe80::1%2]:80", "walferry:9187", "db-1.shop_a.example:1"] {
            assert_eq!(ListenAddress::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(ListenAddress::parse("walferry:9187").unwrap().name(), Some("walferry"));
        assert_eq!(ListenAddress::parse("127.0.0.1:9187").unwrap().name(), None);
        for text in ["9187", ":9187", "host", "host:", "host:65536", "a b:1", "::1:9187", "http://host:1", "höst:1"] {
            assert_eq!(ListenAddress::parse(text), None, "{text}");
        }
    }
}
