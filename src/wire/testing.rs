//! Help for the tests of this module: a throwaway PostgreSQL with a private
//! certificate authority, and a connection string of it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::config::Side;
use crate::config::conninfo::{Address, ChannelBinding, ConnInfo, Host, RootCert, Secret, SslMode, TargetSessionAttrs};
use crate::lsn::{Durable, DurableLsn, EndLsn, Lsn};

struct Proof(u64);

impl Durable for Proof {
    fn end_lsn(&self) -> EndLsn {
        EndLsn(Lsn(self.0))
    }
}

/// A durable position that no target vouches for: tests only.
pub(crate) fn durable(lsn: u64) -> DurableLsn {
    DurableLsn::of(&Proof(lsn))
}

/// A connection string to a port of this machine, without TLS.
pub(super) fn conninfo(port: u16) -> ConnInfo {
    ConnInfo {
        side: Side::Source,
        hosts: vec![host("localhost", port)],
        user: "postgres".into(),
        dbname: "postgres".into(),
        sslmode: SslMode::Disable,
        sslrootcert: RootCert::Default,
        sslcert: None,
        sslkey: None,
        channel_binding: ChannelBinding::Prefer,
        target_session_attrs: TargetSessionAttrs::Any,
        connect_timeout: Duration::from_secs(10),
        options: None,
    }
}

/// A host by name, reached on this machine.
pub(super) fn host(name: &str, port: u16) -> Host {
    let hostaddr = Some(std::net::Ipv4Addr::LOCALHOST.into());
    Host { address: Address::Tcp { host: name.into(), hostaddr }, port, password: None }
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

/// A running server; stopped and removed when dropped.
pub(super) struct Cluster {
    folder: TempDir,
    pub(super) port: u16,
}

impl Cluster {
    /// A server with TLS for `localhost`, logical decoding, and these lines in
    /// front of pg_hba.conf's last one, which trusts the Unix socket.
    pub(super) fn start(hba: &str) -> Cluster {
        let folder = tempfile::Builder::new().prefix("walferry-wire-").tempdir_in("/tmp").unwrap();
        let cluster = Cluster { folder, port: free_port() };
        let data = cluster.data();
        std::fs::create_dir(&data).unwrap();
        cluster.chown();
        cluster.run("initdb", &["-D", &text(&data), "-U", "postgres", "--no-sync", "-A", "trust", "-E", "UTF8"]);
        cluster.certificates();
        let settings = format!(
            "\nport = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\nssl = on\n\
             wal_level = logical\nmax_wal_senders = 4\nmax_replication_slots = 4\nshared_buffers = '16MB'\n",
            cluster.port,
            cluster.folder.path().display()
        );
        let conf = data.join("postgresql.conf");
        std::fs::write(&conf, std::fs::read_to_string(&conf).unwrap() + &settings).unwrap();
        std::fs::write(data.join("pg_hba.conf"), format!("{hba}\nlocal all all trust\nlocal replication all trust\n"))
            .unwrap();
        cluster.chown();
        cluster.pg_ctl(&["start", "-l", &text(&cluster.folder.path().join("log"))]);
        cluster
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
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

    /// The Unix socket's folder.
    pub(super) fn socket(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn pg_ctl(&self, args: &[&str]) {
        let data = text(&self.data());
        self.run("pg_ctl", &[&["-D", &data, "-w", "-s"], args].concat());
    }

    fn certificates(&self) {
        let ca = authority("walferry test authority");
        let folder = self.folder.path();
        let write = |path: PathBuf, text: String| {
            std::fs::write(&path, text).unwrap();
            set_private(&path);
        };
        write(self.root(), ca.pem());
        let other = authority("another authority");
        write(self.other_root(), other.pem());
        let issue = |name: &str, ca: &CertifiedIssuer<'static, KeyPair>| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
        };
        let (cert, key) = issue("localhost", &ca);
        write(self.data().join("server.crt"), cert);
        write(self.data().join("server.key"), key);
        for (file, ca) in [("carl", &ca), ("stranger", &other)] {
            let (cert, key) = issue("carl", ca);
            write(folder.join(file).with_extension("crt"), cert);
            write(folder.join(file).with_extension("key"), key);
        }
        write(self.data().join("root.crt"), ca.pem());
        let conf = self.data().join("postgresql.conf");
        std::fs::write(&conf, std::fs::read_to_string(&conf).unwrap() + "\nssl_ca_file = 'root.crt'\n").unwrap();
    }

    /// PostgreSQL refuses to run as root; the keys of the client stay ours.
    fn chown(&self) {
        if is_root() {
            for path in [self.folder.path().to_owned(), self.data()] {
                Command::new("chown").arg("postgres").arg(path).status().unwrap();
            }
            Command::new("chown").arg("-R").arg("postgres").arg(self.data()).status().unwrap();
        }
    }

    fn run(&self, program: &str, args: &[&str]) {
        let program = bin(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // A pipe would be held open by the server.
        let status = command.args(args).current_dir("/tmp").stdout(Stdio::null()).status().unwrap();
        assert!(status.success(), "{args:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = text(&self.data());
        self.run("pg_ctl", &["-D", &data, "-w", "-s", "-m", "immediate", "stop"]);
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn bin(program: &str) -> PathBuf {
    let debian = Path::new("/usr/lib/postgresql/15/bin").join(program);
    if debian.exists() { debian } else { program.into() }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

fn set_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
