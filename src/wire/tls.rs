//! TLS as libpq means it: which certificates are trusted, what is checked, and
//! the negotiation on a fresh socket.
//!
//! | sslmode | without a root file | with one |
//! |---|---|---|
//! | allow, prefer, require | nothing is checked | the chain |
//! | verify-ca | refused | the chain |
//! | verify-full | refused | the chain and the host's name |
//! | any, sslrootcert=system | | the chain to the platform's roots, and the name |
//!
//! Source: `initialize_SSL` in `src/interfaces/libpq/fe-secure-openssl.c`.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::stream::Tcp;
use super::tls_verify::{NameCheck, Trust, Verifier};
use super::{Peer, Protection, WireError, frame};
use crate::config::conninfo::{ConnInfo, RootCert, SslMode, SslNegotiation};

/// What every TLS connection of one [`ConnInfo`] shares.
#[derive(Clone)]
pub(super) struct TlsSettings {
    connector: TlsConnector,
    negotiation: SslNegotiation,
    /// What a connection is worth on which the handshake went well.
    pub(super) protection: Protection,
}

/// What a server must choose that is asked directly for TLS: the port may be another's.
const ALPN: &[u8] = b"postgresql";

/// What the server answered to the question for TLS.
pub(super) enum Offer {
    /// It goes on with a handshake.
    Tls(Box<TlsStream<Tcp>>),
    /// It has none; the socket is as good as new.
    Plain(Tcp),
}

/// The byte that answers the question for TLS.
enum Answer {
    Willing(Tcp),
    Without(Tcp),
}

impl TlsSettings {
    /// Reads the certificates that the connection string names.
    ///
    /// # Errors
    /// [`WireError::CertificateFile`] for a file that is missing or unfit.
    pub(super) fn load(info: &ConnInfo) -> Result<Self, WireError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |what: String| file_error(info, Path::new("the TLS configuration"), what);
        let trust = trust(info)?;
        let protection = match &trust {
            Trust::Anyone => Protection::Encrypted,
            Trust::Roots { name: NameCheck::No, .. } => Protection::Authority,
            Trust::Roots { name: NameCheck::Yes, .. } => Protection::Verified,
        };
        let verifier = Verifier::new(trust, &provider).map_err(unusable)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| unusable(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match client_certificate(info)? {
            None => builder.with_no_client_auth(),
            Some((chain, key, path)) => {
                builder.with_client_auth_cert(chain, key).map_err(|e| file_error(info, &path, e.to_string()))?
            }
        };
        if info.sslnegotiation == SslNegotiation::Direct {
            config.alpn_protocols = vec![ALPN.to_vec()];
        }
        let connector = TlsConnector::from(Arc::new(config));
        Ok(TlsSettings { connector, negotiation: info.sslnegotiation, protection })
    }

    /// Begins TLS on a fresh socket: asks for it and shakes hands if it is offered, or
    /// directly. `address` is where the socket leads.
    ///
    /// # Errors
    /// `Tls` when the handshake fails, `Protocol` when the other end answers
    /// with anything but `S` or `N`, `NoServerName`, `Closed`, `Io`.
    pub(super) async fn negotiate(
        &self,
        stream: Tcp,
        (host, address): (&str, IpAddr),
        peer: &Peer,
    ) -> Result<Offer, WireError> {
        let name = self.server_name(host, address).ok_or_else(|| WireError::NoServerName { peer: peer.clone() })?;
        if self.negotiation == SslNegotiation::Postgres {
            return match self.ask(stream, peer).await? {
                Answer::Willing(stream) => self.shake_hands(stream, name, peer).await,
                Answer::Without(stream) => Ok(Offer::Plain(stream)),
            };
        }
        let offer = self.shake_hands(stream, name, peer).await?;
        match &offer {
            Offer::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(ALPN) => Ok(offer),
            _ => {
                let what =
                    "TLS that it did not agree to speak PostgreSQL in; sslnegotiation=direct needs PostgreSQL 17";
                Err(WireError::Protocol { peer: peer.clone(), what: what.into() })
            }
        }
    }

    /// What the handshake calls the server. A name that cannot stand in a certificate is
    /// not sent and not verified, as libpq has it; that is no reason to go without TLS.
    fn server_name(&self, host: &str, address: IpAddr) -> Option<ServerName<'static>> {
        match ServerName::try_from(host.to_owned()) {
            Ok(name) => Some(name),
            Err(_) if self.protection == Protection::Verified => None,
            Err(_) => Some(ServerName::from(address)),
        }
    }

    /// Asks whether the server has TLS.
    async fn ask(&self, mut stream: Tcp, peer: &Peer) -> Result<Answer, WireError> {
        let lost = |e| frame::lost(peer, e);
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        stream.write_all(&request).await.map_err(lost)?;
        // One byte only: what follows belongs to the handshake and must not be
        // taken for plain text (CVE-2021-23222).
        match stream.read_u8().await.map_err(lost)? {
            b'S' => Ok(Answer::Willing(stream)),
            b'N' => Ok(Answer::Without(stream)),
            // An error before TLS is not authenticated, so its text is not shown (CVE-2024-10977).
            b'E' => {
                let error = io::Error::other("the server answered with an error when asked for TLS");
                Err(WireError::Tls { peer: peer.clone(), source: error })
            }
            byte => {
                let what = format!(
                    "byte 0x{byte:02x} when asked for TLS; no PostgreSQL server listens there, check host and port"
                );
                Err(WireError::Protocol { peer: peer.clone(), what })
            }
        }
    }

    async fn shake_hands(&self, stream: Tcp, name: ServerName<'static>, peer: &Peer) -> Result<Offer, WireError> {
        let (lost, tls_error) = (|e| frame::lost(peer, e), |source| WireError::Tls { peer: peer.clone(), source });
        // A connection that breaks in the handshake is no verdict on TLS.
        let failed = |e| if frame::tls_cause(&e).is_some() { tls_error(e) } else { lost(e) };
        let stream = self.connector.connect(name, stream).await.map_err(failed)?;
        Ok(Offer::Tls(Box::new(stream)))
    }
}

fn file_error(info: &ConnInfo, path: &Path, what: impl Into<String>) -> WireError {
    WireError::CertificateFile { side: info.side, path: path.to_owned(), what: what.into() }
}

/// A file of libpq's folder in the home directory.
fn home_file(name: &str) -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".postgresql").join(name))
}

/// Which certificates are trusted, by the table above.
fn trust(info: &ConnInfo) -> Result<Trust, WireError> {
    let name = if info.sslmode == SslMode::VerifyFull { NameCheck::Yes } else { NameCheck::No };
    let path = match &info.sslrootcert {
        RootCert::System => return system_roots(info),
        RootCert::File(path) => path.clone(),
        RootCert::Default => match home_file("root.crt").filter(|path| path.exists()) {
            Some(path) => path,
            None if matches!(info.sslmode, SslMode::VerifyCa | SslMode::VerifyFull) => {
                let path = home_file("root.crt").unwrap_or_else(|| PathBuf::from("~/.postgresql/root.crt"));
                let what = "the file does not exist; give the authority's certificate as sslrootcert, sslrootcert=system \
                            for a public authority, or sslmode=require to go without verification";
                return Err(file_error(info, &path, what));
            }
            None => return Ok(Trust::Anyone),
        },
    };
    Ok(Trust::Roots { certificates: certificates(info, &path)?, name })
}

/// The platform's roots; with them the name is always checked.
fn system_roots(info: &ConnInfo) -> Result<Trust, WireError> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!("cannot read a certificate of the platform: {error}");
    }
    if found.certs.is_empty() {
        let what = "the platform has no trusted certificates; install them (ca-certificates) or set SSL_CERT_FILE";
        return Err(file_error(info, Path::new("sslrootcert=system"), what));
    }
    Ok(Trust::Roots { certificates: found.certs, name: NameCheck::Yes })
}

/// All certificates of a PEM file, at least one.
fn certificates(info: &ConnInfo, path: &Path) -> Result<Vec<CertificateDer<'static>>, WireError> {
    let unusable = |e: rustls_pki_types::pem::Error| file_error(info, path, pem_problem(&e));
    let list: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(unusable)?.collect::<Result<_, _>>().map_err(unusable)?;
    if list.is_empty() {
        return Err(file_error(info, path, "there is no certificate in it; it must be PEM"));
    }
    Ok(list)
}

fn pem_problem(error: &rustls_pki_types::pem::Error) -> String {
    match error {
        rustls_pki_types::pem::Error::Io(e) => e.to_string(),
        other => other.to_string(),
    }
}

type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, PathBuf);

/// The client's certificate: named ones must exist, the default one may.
fn client_certificate(info: &ConnInfo) -> Result<Option<ClientCertificate>, WireError> {
    let path = match &info.sslcert {
        Some(path) => path.clone(),
        None => match home_file("postgresql.crt").filter(|path| path.exists()) {
            Some(path) => path,
            None => return Ok(None),
        },
    };
    let chain = certificates(info, &path)?;
    let key = info.sslkey.clone().or_else(|| home_file("postgresql.key")).unwrap_or_else(|| PathBuf::from("(no key)"));
    check_key_mode(info, &key)?;
    let der = PrivateKeyDer::from_pem_file(&key).map_err(|e| match e {
        rustls_pki_types::pem::Error::NoItemsFound => {
            file_error(info, &key, "there is no unencrypted PEM key in it; decrypt it with `openssl pkey`")
        }
        other => file_error(info, &key, pem_problem(&other)),
    })?;
    Ok(Some((chain, der, path)))
}

/// libpq refuses a key that others can read; a group may if root owns it.
#[cfg(unix)]
fn check_key_mode(info: &ConnInfo, key: &Path) -> Result<(), WireError> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(key).map_err(|e| file_error(info, key, e.to_string()))?;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & forbidden != 0 {
        return Err(file_error(info, key, "others can read the private key; run `chmod 0600` on it"));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_key_mode(_info: &ConnInfo, _key: &Path) -> Result<(), WireError> {
    Ok(())
}
