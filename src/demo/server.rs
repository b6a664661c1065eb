//! Where PostgreSQL's server programs are, and as whom they may run.
//!
//! Invariant: a [`Server`] has answered `postgres --version`, so its programs
//! exist and run here. A server refuses to run as root (`check_root` in
//! `src/backend/main/main.c`), hence [`RunAs`].

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::cluster::ClusterError;

/// Folders with server programs, separated by colons. Looked at before the
/// usual places, in its order.
pub const BIN_DIRS_VARIABLE: &str = "WALFERRY_TEST_PG_BINDIRS";

/// An installed PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Major version, for example 15.
    pub major: u32,
    /// The folder of `postgres`, `initdb`, `psql`, `pg_dump`.
    pub bin_dir: PathBuf,
}

impl Server {
    /// The server whose programs are in this folder.
    ///
    /// # Errors
    /// When `postgres` is not there, does not run or names no version.
    pub fn at(bin_dir: impl Into<PathBuf>) -> Result<Self, ClusterError> {
        let bin_dir = bin_dir.into();
        let program = bin_dir.join("postgres");
        let output = Command::new(&program).arg("--version").output().map_err(|source| ClusterError::Io {
            action: "run",
            path: program.clone(),
            source,
        })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let major = parse_major(&text).ok_or(ClusterError::Version { program, answer: text })?;
        Ok(Server { major, bin_dir })
    }

    /// Every server found: those of [`BIN_DIRS_VARIABLE`] in its order, else
    /// those of `/usr/lib/postgresql` and of PATH, oldest first.
    ///
    /// # Errors
    /// When a folder that the variable names has no server, or when none is
    /// found at all.
    pub fn find_all() -> Result<Vec<Self>, ClusterError> {
        if let Some(named) = env::var_os(BIN_DIRS_VARIABLE).filter(|value| !value.is_empty()) {
            return env::split_paths(&named).map(Server::at).collect();
        }
        let mut candidates: Vec<PathBuf> = match fs::read_dir("/usr/lib/postgresql") {
            Ok(entries) => entries.flatten().map(|entry| entry.path().join("bin")).collect(),
            Err(_) => Vec::new(),
        };
        candidates.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        let mut servers: Vec<Server> = candidates
            .into_iter()
            .filter(|dir| dir.join("postgres").is_file() && dir.join("initdb").is_file())
            .filter_map(|dir| Server::at(dir).ok())
            .collect();
        servers.sort_by_key(|server| server.major);
        servers.dedup_by_key(|server| server.major);
        if servers.is_empty() { Err(ClusterError::NoServer) } else { Ok(servers) }
    }

    /// The path of one of the server's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian …)` is 15; `18beta1` is 18.
fn parse_major(answer: &str) -> Option<u32> {
    let version = answer.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The user that server programs run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunAs {
    /// The user we are.
    Ourselves,
    /// We are root: an ordinary user of this machine.
    User {
        /// The user's id.
        uid: u32,
        /// The id of the user's group.
        gid: u32,
    },
}

impl RunAs {
    /// Ourselves, or for root `postgres` where it exists, else `nobody`.
    ///
    /// # Errors
    /// When we are root and neither user exists.
    pub fn choose() -> Result<Self, ClusterError> {
        let io = |path: &str| {
            let path = PathBuf::from(path);
            move |source: io::Error| ClusterError::Io { action: "read", path, source }
        };
        if fs::metadata("/proc/self").map_err(io("/proc/self"))?.uid() != 0 {
            return Ok(RunAs::Ourselves);
        }
        let users = fs::read_to_string("/etc/passwd").map_err(io("/etc/passwd"))?;
        ["postgres", "nobody"].iter().find_map(|name| user(&users, name)).ok_or(ClusterError::NoUser)
    }

    /// A command that runs the program as this user and is told to stop at
    /// once (SIGQUIT: immediate shutdown) when the thread that started it
    /// dies, even by SIGKILL.
    pub fn command(self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        if let RunAs::User { uid, gid } = self {
            command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups"]);
        }
        command.args(["--pdeathsig", "QUIT", "--"]).arg(program);
        command.env("LC_ALL", "C");
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Gives a file or folder of ours to this user.
    ///
    /// # Errors
    /// As `chown` reports.
    pub fn own(self, path: &Path) -> io::Result<()> {
        match self {
            RunAs::Ourselves => Ok(()),
            RunAs::User { uid, gid } => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
        }
    }
}

/// The line `name:x:uid:gid:…` of a passwd file.
fn user(passwd: &str, name: &str) -> Option<RunAs> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut ids = line.split(':').skip(2);
    Some(RunAs::User { uid: ids.next()?.parse().ok()?, gid: ids.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_servers_answer() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(parse_major("something else\n"), None);
    }

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgresx:x:5:6::/:/bin/sh\npostgres:x:101:104:,,,:/var:/bin/bash\n";
        assert_eq!(user(passwd, "postgres"), Some(RunAs::User { uid: 101, gid: 104 }));
        assert_eq!(user(passwd, "nobody"), None);
    }
}
