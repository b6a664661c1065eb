//! The password file: `host:port:database:user:password` a line.
//!
//! Invariant: a file that others may read is not used, and that is said.
//! Source: `passwordFromFile` in `src/interfaces/libpq/fe-connect.c`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::conninfo::{Address, Secret};

/// Folders of the server's socket that a password file calls `localhost`.
pub(super) const DEFAULT_SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// What a line is looked up by.
pub(super) struct Wanted<'a> {
    pub(super) address: &'a Address,
    pub(super) port: u16,
    pub(super) dbname: &'a str,
    pub(super) user: &'a str,
}

/// A password file's text; empty when there is none that may be used.
pub(super) struct PassFile(String);

impl PassFile {
    /// Reads the file, if it is there and only its owner can.
    pub(super) fn read(path: Option<PathBuf>) -> PassFile {
        let text = path.and_then(|path| read_private(&path)).unwrap_or_default();
        PassFile(text)
    }

    /// The password of the first line that fits.
    pub(super) fn find(&self, wanted: &Wanted<'_>) -> Option<Secret> {
        let names = host_names(wanted.address);
        let port = wanted.port.to_string();
        self.0.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
            let [host, p, database, user, password] = fields(line)?;
            let fits = names.iter().any(|name| matches(&host, name))
                && matches(&p, &port)
                && matches(&database, wanted.dbname)
                && matches(&user, wanted.user);
            (fits && !password.is_empty()).then(|| Secret::new(unescape(&password)))
        })
    }
}

fn read_private(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() {
        tracing::warn!(path = %path.display(), "the password file is not a plain file and is not used");
        return None;
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "the password file is not used: others may read it (chmod 0600)");
        return None;
    }
    std::fs::read_to_string(path)
        .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "the password file cannot be read"))
        .ok()
}

/// The names a host goes by in the file.
fn host_names(address: &Address) -> Vec<String> {
    match address {
        Address::Tcp { host, .. } => vec![host.clone()],
        Address::Unix(folder) => {
            let mut names = vec![folder.display().to_string()];
            if DEFAULT_SOCKET_FOLDERS.iter().any(|default| Path::new(default) == folder) {
                names.push("localhost".to_owned());
            }
            names
        }
    }
}

/// Splits at colons that no backslash precedes; the password keeps its own.
fn fields(line: &str) -> Option<[String; 5]> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let mut chars = line.trim_end_matches('\r').chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                part.push(c);
                part.extend(chars.next());
            }
            ':' if parts.len() < 4 => parts.push(std::mem::take(&mut part)),
            c => part.push(c),
        }
    }
    parts.push(part);
    parts.try_into().ok()
}

/// A lone `*` fits everything; anything else is compared without backslashes.
fn matches(field: &str, wanted: &str) -> bool {
    field == "*" || unescape(field) == wanted
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(file: &str, address: Address, user: &str) -> Option<String> {
        let wanted = Wanted { address: &address, port: 5432, dbname: "db", user };
        PassFile(file.to_owned()).find(&wanted).map(|s| s.reveal().to_owned())
    }

    fn tcp(host: &str) -> Address {
        Address::Tcp { host: host.into(), hostaddr: None }
    }

    #[test]
    fn the_first_line_that_fits_gives_the_password() {
        let file = "# comment\nother:*:*:*:no\nh:5433:*:*:no\nh:5432:db:me:first:with:colons\n*:*:*:*:second\n";
        assert_eq!(find(file, tcp("h"), "me").as_deref(), Some("first:with:colons"));
        assert_eq!(find(file, tcp("h"), "you").as_deref(), Some("second"));
        assert_eq!(find("too:few:fields", tcp("too"), "me"), None);
    }

    #[test]
    fn backslashes_keep_colons_and_backslashes_in_every_field() {
        assert_eq!(find("\\:\\:1:*:*:*:a\\\\b\\:c\r\n", tcp("::1"), "me").as_deref(), Some("a\\b:c"));
        assert_eq!(find("h:*:*:\\*:star", tcp("h"), "*").as_deref(), Some("star"));
        assert_eq!(find("h:*:*:\\*:star", tcp("h"), "me"), None);
    }

    #[test]
    fn a_unix_socket_is_localhost_or_its_folder() {
        let file = "localhost:*:*:*:local\n/srv/pg:*:*:*:folder\n";
        assert_eq!(find(file, Address::Unix("/tmp".into()), "me").as_deref(), Some("local"));
        assert_eq!(find(file, Address::Unix("/srv/pg".into()), "me").as_deref(), Some("folder"));
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        std::fs::write(&path, "*:*:*:*:x").unwrap();
        for (mode, used) in [(0o644, false), (0o600, true)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(!PassFile::read(Some(path.clone())).0.is_empty(), used);
        }
    }
}
