//! Authentication: SCRAM-SHA-256 with and without channel binding, md5,
//! cleartext, none.
//!
//! ```text
//! Start ── R 0 ─────────────────────────────────────────────► authenticated
//!   ├──── R 3 / R 5 ─ password ─────────────── R 0 ─────────► authenticated
//!   └──── R 10 ─ first ─ R 11 ─ final ─ R 12 ─ R 0 ─────────► authenticated
//! ```
//!
//! Invariant: with `channel_binding=require` nothing that depends on the
//! password is sent before the server has agreed to SCRAM-SHA-256-PLUS; a SCRAM
//! exchange counts only when the server has proved that it knows the password.
//!
//! Source: `pg_fe_sendauth` in `src/interfaces/libpq/fe-auth.c`.

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ScramSha256};
use postgres_protocol::message::frontend;

use super::error::AuthError;
use super::{FrameReader, FrameWriter, PasswordShown, WireError};
use crate::config::Secret;
use crate::config::conninfo::{AuthMethod, ChannelBinding};

/// How the channel is protected, for the binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// Nothing to bind to.
    Plain,
    /// TLS, with the `tls-server-end-point` where the certificate has one.
    Tls(Option<Vec<u8>>),
}

/// Who logs in, and with what.
pub(super) struct Login<'a> {
    /// The role.
    pub(super) user: &'a str,
    /// Its password, if there is one.
    pub(super) password: Option<&'a Secret>,
    /// The channel.
    pub(super) channel: Channel,
    /// What the user demands of it.
    pub(super) binding: ChannelBinding,
    /// The ways that the user accepts; `None` for all.
    pub(super) accepted: Option<&'a [AuthMethod]>,
}

/// What the server asks for.
enum Request {
    Ok,
    Cleartext,
    Md5([u8; 4]),
    Sasl(Bytes),
    SaslContinue(Bytes),
    SaslFinal(Bytes),
    Other(u32),
}

/// Both halves during authentication.
pub(super) struct Dialogue<'a> {
    /// The server's words.
    pub(super) reader: &'a mut FrameReader,
    /// Ours.
    pub(super) writer: &'a mut FrameWriter,
}

impl Dialogue<'_> {
    /// Logs in, up to and including AuthenticationOk. Says what that showed of the password.
    ///
    /// # Errors
    /// `Auth` when we refuse, `Server` when the server does.
    pub(super) async fn authenticate(&mut self, login: &Login<'_>) -> Result<PasswordShown, WireError> {
        let request = self.request().await?;
        self.check_accepted(login, &request)?;
        let shown = match &request {
            Request::Ok => PasswordShown::None,
            Request::Cleartext => PasswordShown::Clear,
            _ => PasswordShown::Hashed,
        };
        self.follow(login, request).await.map(|()| shown)
    }

    /// `require_auth`: before anything that depends on the password is sent.
    fn check_accepted(&self, login: &Login<'_>, request: &Request) -> Result<(), WireError> {
        let asked = match request {
            Request::Ok => AuthMethod::None,
            Request::Cleartext => AuthMethod::Password,
            Request::Md5(_) => AuthMethod::Md5,
            Request::Sasl(_) => AuthMethod::Scram,
            Request::SaslContinue(_) | Request::SaslFinal(_) | Request::Other(_) => return Ok(()),
        };
        if login.accepted.is_none_or(|accepted| accepted.contains(&asked)) {
            return Ok(());
        }
        let name = AuthMethod::ALL.iter().find(|(method, _)| *method == asked).map_or("", |(_, name)| *name);
        Err(self.refuse(login, AuthError::NotAccepted(name)))
    }

    async fn follow(&mut self, login: &Login<'_>, request: Request) -> Result<(), WireError> {
        match request {
            Request::Ok => self.check_unbound(login, "the server asks for no password"),
            Request::Cleartext => {
                self.check_unbound(login, "the server asks for the password in clear text")?;
                self.answer(login, self.password(login)?.reveal().as_bytes()).await
            }
            Request::Md5(salt) => {
                self.check_unbound(login, "the server asks for an md5 password")?;
                let hash = md5_hash(login.user.as_bytes(), self.password(login)?.reveal().as_bytes(), salt);
                self.answer(login, hash.as_bytes()).await
            }
            Request::Sasl(mechanisms) => self.scram(login, &mechanisms).await,
            Request::SaslContinue(_) | Request::SaslFinal(_) => {
                Err(self.refuse(login, AuthError::OutOfOrder("SASL goes on before it began")))
            }
            Request::Other(code) => Err(self.refuse(login, AuthError::Unsupported(method_name(code)))),
        }
    }

    async fn request(&mut self) -> Result<Request, WireError> {
        let frame = self.reader.next().await?;
        if frame.tag != b'R' {
            return Err(self.reader.unexpected(&frame, "an authentication request"));
        }
        let mut body = frame.body;
        let short = |_| self.reader.protocol("an authentication request is too short".into());
        Ok(match body.try_get_u32().map_err(short)? {
            0 => Request::Ok,
            3 => Request::Cleartext,
            5 => {
                let salt = <[u8; 4]>::try_from(body.as_ref());
                Request::Md5(salt.map_err(|_| self.reader.protocol("an md5 salt is not 4 bytes long".into()))?)
            }
            10 => Request::Sasl(body),
            11 => Request::SaslContinue(body),
            12 => Request::SaslFinal(body),
            code => Request::Other(code),
        })
    }

    fn refuse(&self, login: &Login<'_>, source: AuthError) -> WireError {
        WireError::Auth { peer: self.reader.peer().clone(), user: login.user.to_owned(), source }
    }

    fn password<'l>(&self, login: &Login<'l>) -> Result<&'l Secret, WireError> {
        login.password.ok_or_else(|| self.refuse(login, AuthError::PasswordMissing))
    }

    fn check_unbound(&self, login: &Login<'_>, why: &'static str) -> Result<(), WireError> {
        if login.binding == ChannelBinding::Require {
            return Err(self.refuse(login, AuthError::ChannelBinding(why)));
        }
        Ok(())
    }

    /// Sends a password message and waits for AuthenticationOk.
    async fn answer(&mut self, login: &Login<'_>, password: &[u8]) -> Result<(), WireError> {
        let mut message = BytesMut::new();
        frontend::password_message(password, &mut message)
            .map_err(|_| self.reader.protocol("a password cannot contain a NUL byte".into()))?;
        self.writer.send(&message).await?;
        self.expect_ok(login).await
    }

    async fn expect_ok(&mut self, login: &Login<'_>) -> Result<(), WireError> {
        match self.request().await? {
            Request::Ok => Ok(()),
            _ => Err(self.refuse(login, AuthError::OutOfOrder("another request instead of an answer"))),
        }
    }

    /// The four messages of SCRAM (RFC 5802).
    async fn scram(&mut self, login: &Login<'_>, offered: &Bytes) -> Result<(), WireError> {
        let (mechanism, binding) = choose(login, offered).map_err(|e| self.refuse(login, e))?;
        let mut scram = ScramSha256::new(self.password(login)?.reveal().as_bytes(), binding);
        let mut message = BytesMut::new();
        frontend::sasl_initial_response(mechanism, scram.message(), &mut message)
            .map_err(|e| self.refuse(login, AuthError::Scram(e)))?;
        self.writer.send(&message).await?;

        let Request::SaslContinue(challenge) = self.request().await? else {
            return Err(self.refuse(login, AuthError::OutOfOrder("no SCRAM challenge")));
        };
        scram.update(&challenge).map_err(|e| self.refuse(login, AuthError::Scram(e)))?;
        message.clear();
        frontend::sasl_response(scram.message(), &mut message).map_err(|e| self.refuse(login, AuthError::Scram(e)))?;
        self.writer.send(&message).await?;

        let Request::SaslFinal(proof) = self.request().await? else {
            return Err(self.refuse(login, AuthError::OutOfOrder("no SCRAM proof of the server")));
        };
        scram.finish(&proof).map_err(|e| self.refuse(login, AuthError::Scram(e)))?;
        self.expect_ok(login).await
    }
}

/// The mechanism and its binding, as `pg_SASL_init` chooses them.
fn choose(login: &Login<'_>, offered: &[u8]) -> Result<(&'static str, sasl::ChannelBinding), AuthError> {
    let offers = |name: &str| offered.split(|&b| b == 0).any(|mechanism| mechanism == name.as_bytes());
    let bindable = match (&login.channel, login.binding) {
        (_, ChannelBinding::Disable) => None,
        (Channel::Tls(end_point), _) => end_point.clone(),
        (Channel::Plain, _) => None,
    };
    if offers(sasl::SCRAM_SHA_256_PLUS) {
        if login.channel == Channel::Plain {
            return Err(AuthError::OutOfOrder("SCRAM-SHA-256-PLUS is offered without TLS"));
        }
        if let Some(end_point) = bindable {
            return Ok((sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(end_point)));
        }
    }
    if login.binding == ChannelBinding::Require {
        let why = match login.channel {
            Channel::Plain => "the connection is not encrypted",
            Channel::Tls(None) => "the server's certificate has no hash to bind to",
            Channel::Tls(Some(_)) => "the server does not offer SCRAM-SHA-256-PLUS",
        };
        return Err(AuthError::ChannelBinding(why));
    }
    if !offers(sasl::SCRAM_SHA_256) {
        let names: Vec<_> =
            offered.split(|&b| b == 0).filter(|name| !name.is_empty()).map(String::from_utf8_lossy).collect();
        return Err(AuthError::Unsupported(names.join(", ")));
    }
    // "unrequested" tells the server that we could have bound: if it could
    // too, somebody in between removed its offer, and it refuses.
    let could_bind = matches!((&login.channel, login.binding), (Channel::Tls(Some(_)), ChannelBinding::Prefer));
    let binding = if could_bind && !offers(sasl::SCRAM_SHA_256_PLUS) {
        sasl::ChannelBinding::unrequested()
    } else {
        sasl::ChannelBinding::unsupported()
    };
    Ok((sasl::SCRAM_SHA_256, binding))
}

fn method_name(code: u32) -> String {
    match code {
        2 => "Kerberos V5".into(),
        6 => "SCM credentials".into(),
        7 | 8 => "GSSAPI".into(),
        9 => "SSPI".into(),
        _ => format!("authentication method {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(channel: Channel, binding: ChannelBinding) -> Login<'static> {
        Login { user: "u", password: None, channel, binding, accepted: None }
    }

    const BOTH: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
    const PLAIN: &[u8] = b"SCRAM-SHA-256\0\0";

    #[test]
    fn the_channel_is_bound_whenever_both_ends_can() {
        let tls = || Channel::Tls(Some(vec![1]));
        let mechanism =
            |channel, binding, offered: &[u8]| choose(&login(channel, binding), offered).map(|(name, _)| name);
        assert_eq!(mechanism(tls(), ChannelBinding::Prefer, BOTH).unwrap(), "SCRAM-SHA-256-PLUS");
        assert_eq!(mechanism(tls(), ChannelBinding::Require, BOTH).unwrap(), "SCRAM-SHA-256-PLUS");
        assert_eq!(mechanism(tls(), ChannelBinding::Disable, BOTH).unwrap(), "SCRAM-SHA-256");
        assert_eq!(mechanism(Channel::Tls(None), ChannelBinding::Prefer, BOTH).unwrap(), "SCRAM-SHA-256");
        assert_eq!(mechanism(Channel::Plain, ChannelBinding::Prefer, PLAIN).unwrap(), "SCRAM-SHA-256");
    }

    #[test]
    fn require_refuses_whatever_cannot_be_bound() {
        for (channel, offered) in
            [(Channel::Plain, PLAIN), (Channel::Tls(None), BOTH), (Channel::Tls(Some(vec![1])), PLAIN)]
        {
            let outcome = choose(&login(channel, ChannelBinding::Require), offered);
            assert!(matches!(outcome, Err(AuthError::ChannelBinding(_))));
        }
    }

    #[test]
    fn a_stripped_offer_is_told_to_the_server() {
        let (_, binding) = choose(&login(Channel::Tls(Some(vec![1])), ChannelBinding::Prefer), PLAIN).unwrap();
        assert!(ScramSha256::new(b"", binding).message().starts_with(b"y,,"));
    }
}
