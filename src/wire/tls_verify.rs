//! The check of a server's certificate, and its hash for channel binding.
//!
//! Invariant: the handshake's signature is always verified, whatever is
//! trusted, so that the channel binding is that of the key's holder. Where
//! OpenSSL and webpki differ, OpenSSL's judgement holds: a certificate that is
//! itself a root is trusted, and the common name counts when there are no
//! alternative names.
//!
//! Source: `verify_cb`, `pgtls_verify_peer_name_matches_certificate_guts` and
//! `pgtls_get_peer_certificate_hash` in
//! `src/interfaces/libpq/fe-secure-openssl.c`; RFC 5929 section 4.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Whether the certificate must name the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameCheck {
    /// `verify-full`.
    Yes,
    /// `verify-ca`.
    No,
}

/// Whose certificate is accepted.
pub(super) enum Trust {
    /// Everybody's: encryption against listeners only.
    Anyone,
    /// Those that chain to one of these.
    Roots {
        /// The roots, DER.
        certificates: Vec<CertificateDer<'static>>,
        /// Whether the host's name is checked too.
        name: NameCheck,
    },
}

/// The check that rustls calls.
#[derive(Debug)]
pub(super) struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    anchors: Option<Anchors>,
}

#[derive(Debug)]
struct Anchors {
    store: RootCertStore,
    certificates: Vec<CertificateDer<'static>>,
    name: NameCheck,
}

impl Verifier {
    /// A verifier, or why the roots are of no use.
    pub(super) fn new(trust: Trust, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let algorithms = provider.signature_verification_algorithms;
        let Trust::Roots { certificates, name } = trust else {
            return Ok(Verifier { algorithms, anchors: None });
        };
        let mut store = RootCertStore::empty();
        // As OpenSSL does: a root of the platform that cannot be read is passed
        // over, one that chains to it is then not trusted.
        let (usable, _) = store.add_parsable_certificates(certificates.iter().cloned());
        if usable == 0 {
            return Err("none of the trusted root certificates can be parsed; they must be X.509 version 3".into());
        }
        Ok(Verifier { algorithms, anchors: Some(Anchors { store, certificates, name }) })
    }
}

impl Anchors {
    fn check_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), Error> {
        // A self-signed certificate that is its own root: webpki would refuse it as an authority's.
        if self.certificates.iter().any(|root| root == end_entity) {
            return check_validity(end_entity, now);
        }
        verify_server_cert_signed_by_trust_anchor(parsed, &self.store, intermediates, now, algorithms.all)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(anchors) = &self.anchors else {
            return Ok(ServerCertVerified::assertion());
        };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        anchors.check_chain(end_entity, &parsed, intermediates, now, &self.algorithms)?;
        if anchors.name == NameCheck::Yes {
            verify_server_name(&parsed, server_name)
                .or_else(|error| if common_name_matches(end_entity, server_name) { Ok(()) } else { Err(error) })?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn parse(der: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(der).map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
}

fn check_validity(der: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let certificate = parse(der)?;
    let validity = certificate.tbs_certificate().validity();
    let now_s = now.as_secs();
    if now_s < validity.not_before.to_unix_duration().as_secs() {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if now_s > validity.not_after.to_unix_duration().as_secs() {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    Ok(())
}

/// Whether the subject's common name is the host's, which counts only in a
/// certificate without alternative DNS names and addresses.
fn common_name_matches(der: &CertificateDer<'_>, server_name: &ServerName<'_>) -> bool {
    let Ok(certificate) = parse(der) else { return false };
    let tbs = certificate.tbs_certificate();
    let Ok(alternatives) = tbs.get_extension::<SubjectAltName>() else { return false };
    let names_host = |name: &GeneralName| matches!(name, GeneralName::DnsName(_) | GeneralName::IpAddress(_));
    if alternatives.is_some_and(|(_, names)| names.0.iter().any(names_host)) {
        return false;
    }
    let Ok(Some(common_name)) = tbs.subject().common_name() else { return false };
    matches_pattern(&common_name.value(), &server_name.to_str())
}

/// `wildcard_certificate_match`: `*.` stands for exactly one label.
fn matches_pattern(pattern: &str, host: &str) -> bool {
    if pattern.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some(suffix), Some((label, domain))) = (pattern.strip_prefix("*."), host.split_once('.')) else {
        return false;
    };
    !label.is_empty() && !suffix.is_empty() && suffix.eq_ignore_ascii_case(domain)
}

/// `tls-server-end-point`: the certificate's hash by its own signature's
/// algorithm, SHA-256 for the weak ones. `None` where RFC 5929 defines none
/// (Ed25519) and for RSASSA-PSS, whose hash hides in its parameters.
pub(super) fn server_end_point(der: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(der).ok()?;
    let algorithm = certificate.signature_algorithm().oid.to_string();
    Some(match algorithm.as_str() {
        // md5WithRSA, sha1WithRSA, sha256WithRSA, ecdsa-with-SHA1, ecdsa-with-SHA256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Sha256::digest(der).to_vec(),
        // sha384WithRSA, ecdsa-with-SHA384.
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Sha384::digest(der).to_vec(),
        // sha512WithRSA, ecdsa-with-SHA512.
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Sha512::digest(der).to_vec(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        assert!(matches_pattern("*.example.org", "db.example.org"));
        assert!(matches_pattern("DB.example.org", "db.Example.org"));
        for (pattern, host) in
            [("*.example.org", "a.b.example.org"), ("*.example.org", "example.org"), ("*.", "a."), ("*", "a")]
        {
            assert!(!matches_pattern(pattern, host), "{pattern} {host}");
        }
    }

    #[test]
    fn the_end_point_hash_follows_the_signature_algorithm() {
        let lengths = [
            (&rcgen::PKCS_ECDSA_P256_SHA256, Some(32)),
            (&rcgen::PKCS_ECDSA_P384_SHA384, Some(48)),
            (&rcgen::PKCS_ED25519, None),
        ];
        for (algorithm, length) in lengths {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let cert = rcgen::CertificateParams::new(vec!["h".into()]).unwrap().self_signed(&key).unwrap();
            assert_eq!(server_end_point(cert.der()).map(|hash| hash.len()), length);
        }
    }

    fn verify(
        root: &CertificateDer<'static>,
        name: NameCheck,
        cert: &CertificateDer<'_>,
        host: &str,
    ) -> Result<(), Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = Trust::Roots { certificates: vec![root.clone()], name };
        let host = ServerName::try_from(host.to_owned()).unwrap();
        let verifier = Verifier::new(trust, &provider).unwrap();
        verifier.verify_server_cert(cert, &[], &host, &[], UnixTime::now()).map(drop)
    }

    fn self_signed(common_name: &str, alternatives: &[&str], years: std::ops::Range<i32>) -> CertificateDer<'static> {
        let names = alternatives.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn a_certificate_that_is_its_own_root_is_trusted_while_it_is_valid() {
        let cert = self_signed("h", &["h"], 2020..2999);
        assert_eq!(verify(&cert, NameCheck::Yes, &cert, "h"), Ok(()));
        assert!(verify(&cert, NameCheck::Yes, &self_signed("h", &["h"], 2020..2999), "h").is_err());
        for years in [2000..2001, 2998..2999] {
            let cert = self_signed("h", &["h"], years);
            assert!(verify(&cert, NameCheck::No, &cert, "h").is_err());
        }
    }

    #[test]
    fn the_common_name_counts_only_without_alternative_names() {
        let without = self_signed("*.example.org", &[], 2020..2999);
        assert_eq!(verify(&without, NameCheck::Yes, &without, "db.example.org"), Ok(()));
        assert!(verify(&without, NameCheck::Yes, &without, "example.org").is_err());
        let with = self_signed("db.example.org", &["other.example.org"], 2020..2999);
        assert!(verify(&with, NameCheck::Yes, &with, "db.example.org").is_err());
        assert_eq!(verify(&with, NameCheck::No, &with, "db.example.org"), Ok(()));
    }
}
