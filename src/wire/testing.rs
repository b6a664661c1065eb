//! Help for the tests of this module: a server with TLS and a private
//! certificate authority, and positions that nobody vouches for.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::config::Side;
use crate::config::conninfo::{ConnInfo, Secret};
use crate::demo::cluster::{Cluster, SUPERUSER};
use crate::lsn::sealed::Sealed;
use crate::lsn::{Durable, DurableLsn, EndLsn, Lsn};
pub(super) use crate::testing::host;
use crate::testing::{self, cluster};

struct Proof(u64);

impl Sealed for Proof {}

impl Durable for Proof {
    fn end_lsn(&self) -> EndLsn {
        EndLsn::of_commit(Lsn::new(self.0))
    }
}

/// A durable position that no target vouches for: tests only.
pub(crate) fn durable(lsn: u64) -> DurableLsn {
    DurableLsn::of(Proof(lsn))
}

/// A connection string to a port of this machine, without TLS.
pub(super) fn conninfo(port: u16) -> ConnInfo {
    testing::conninfo(Side::Source, host("localhost", port), SUPERUSER, "postgres")
}

/// The same over the cluster's Unix socket.
pub(super) fn over_socket(cluster: &Cluster) -> ConnInfo {
    testing::over_socket(cluster, Side::Source, SUPERUSER, "postgres")
}

/// The same host with a password.
pub(super) fn with_password(mut info: ConnInfo, user: &str, password: &str) -> ConnInfo {
    info.user = user.into();
    for host in &mut info.hosts {
        host.password = Some(Secret::new(password));
    }
    info
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server with TLS for `localhost`, and the certificates of its clients.
pub(super) struct TlsCluster {
    pub(super) cluster: Cluster,
    folder: TempDir,
}

impl TlsCluster {
    /// Lets in over TCP whom these lines of pg_hba.conf let in, and nobody else.
    pub(super) fn start(hba: &[&str]) -> TlsCluster {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (authority("walferry test authority"), authority("another authority"));
        write(&folder.path().join("root.crt"), &ours.pem());
        write(&folder.path().join("other.crt"), &other.pem());
        for (file, authority) in [("carl", &ours), ("stranger", &other)] {
            let (certificate, key) = issue("carl", authority);
            write(&folder.path().join(file).with_extension("crt"), &certificate);
            write(&folder.path().join(file).with_extension("key"), &key);
        }
        let (certificate, key) = issue("localhost", &ours);
        let builder = cluster()
            .setting("ssl", "on")
            .setting("ssl_ca_file", "root.crt")
            .file("server.crt", certificate)
            .file("server.key", key)
            .file("root.crt", ours.pem());
        let builder = hba.iter().fold(builder, |builder, line| builder.hba(line));
        TlsCluster { cluster: builder.hba("host all all all reject").start().unwrap(), folder }
    }

    /// The authority that signed the server's certificate.
    pub(super) fn root(&self) -> PathBuf {
        self.folder.path().join("root.crt")
    }

    /// An authority that signed nothing.
    pub(super) fn other_root(&self) -> PathBuf {
        self.folder.path().join("other.crt")
    }

    /// A certificate of the role `carl`, and its key: `carl` of the server's
    /// authority, `stranger` of another.
    pub(super) fn client_certificate(&self, file: &str) -> (PathBuf, PathBuf) {
        let path = self.folder.path().join(file);
        (path.with_extension("crt"), path.with_extension("key"))
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for a name, and its key.
fn issue(name: &str, authority: &CertifiedIssuer<'static, KeyPair>) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

/// Writes a file that nobody else may read.
fn write(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
