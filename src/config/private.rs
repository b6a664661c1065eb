//! Who may read and write the configuration file.
//!
//! Invariant: a file that has a password and that others may read is not used, nor is one
//! that somebody else has put into the working folder: whoever writes it says where the
//! rows go.
//!
//! Source: `passwordFromFile` in `src/interfaces/libpq/fe-connect.c`, and of a file of
//! root's the permissions that `initialize_SSL` in `fe-secure-openssl.c` takes for a key.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::error::ConfigError;

/// How a file was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The operator has named it.
    Named,
    /// It lies in the working folder.
    WorkingFolder,
}

/// Whose a file is, and who may read it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Access {
    owner: u32,
    mode: u32,
    us: u32,
}

/// The text of a file, and who else has access to it: to the one that was read.
pub(super) fn read(path: &Path) -> io::Result<(String, Access)> {
    let mut file = File::open(path)?;
    let access = Access::of(&file.metadata()?);
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok((text, access))
}

impl Access {
    fn of(metadata: &Metadata) -> Self {
        let us = rustix::process::geteuid().as_raw();
        Access { owner: metadata.uid(), mode: metadata.permissions().mode() & 0o7777, us }
    }

    /// Refuses a file in the working folder that is neither ours nor root's.
    pub(super) fn require_owner(self, path: &Path, place: Place) -> Result<(), ConfigError> {
        let Access { owner, us, .. } = self;
        if place == Place::Named || owner == us || owner == 0 {
            return Ok(());
        }
        Err(ConfigError::Strangers { path: path.to_owned(), owner })
    }

    /// Refuses a file that others may read. One of root's may be read by a group, whose
    /// members root has chosen.
    pub(super) fn require_private(self, path: &Path, key: &'static str) -> Result<(), ConfigError> {
        let Access { owner, mode, us } = self;
        let others = if owner == 0 && us != 0 { 0o037 } else { 0o077 };
        if mode & others == 0 { Ok(()) } else { Err(ConfigError::Readable { path: path.to_owned(), key, mode }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_only_where_no_other_user_can() {
        let path = Path::new("walferry.toml");
        for (owner, mode, us, is_private) in [
            (7, 0o600, 7, true),
            (7, 0o400, 7, true),
            (7, 0o640, 7, false),
            (7, 0o604, 7, false),
            (7, 0o620, 7, false),
            (0, 0o640, 7, true),
            (0, 0o644, 7, false),
            (0, 0o660, 7, false),
            (0, 0o640, 0, false),
        ] {
            let asked = Access { owner, mode, us }.require_private(path, "source");
            assert_eq!(asked.is_ok(), is_private, "{owner} {mode:o} {us}");
        }
        let error = Access { owner: 7, mode: 0o644, us: 7 }.require_private(path, "source").unwrap_err().to_string();
        assert!(error.contains("mode 0644") && error.contains("chmod 0600 'walferry.toml'"), "{error}");
    }

    #[test]
    fn a_file_of_another_user_is_used_only_by_name() {
        let path = Path::new("walferry.toml");
        for (owner, us, place, is_used) in [
            (7, 7, Place::WorkingFolder, true),
            (0, 7, Place::WorkingFolder, true),
            (8, 7, Place::WorkingFolder, false),
            (8, 0, Place::WorkingFolder, false),
            (8, 7, Place::Named, true),
        ] {
            let asked = Access { owner, mode: 0o644, us }.require_owner(path, place);
            assert_eq!(asked.is_ok(), is_used, "{owner} {us} {place:?}");
        }
    }
}
