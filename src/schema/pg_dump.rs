//! pg_dump: found, and run with everything it needs but the password in its
//! environment and the password in a file that only we can read.
//!
//! Invariant: no password is in an argument list or in an environment, both of
//! which /proc shows.
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-envars.html> and
//! `libpq-pgpass.html`.

use std::collections::HashSet;
use std::fs::{File, Permissions};
use std::io::{Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::io::{FdFlags, fcntl_setfd};
use tokio::process::Command;

use super::SchemaError;
use crate::config::ConnInfo;
use crate::config::conninfo::{Address, ChannelBinding, RootCert, SslMode, TargetSessionAttrs};
use crate::wire::pg_dump_options;

/// A pg_dump that will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgDump {
    /// Where it is.
    pub path: PathBuf,
    /// Its major version.
    pub version: u32,
    /// Its minor version; 0 for a beta.
    pub minor: u32,
}

/// Where packages put the programs, with one `*` at most for the version.
const USUAL_FOLDERS: [&str; 8] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/opt/homebrew/opt/libpq/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/opt/libpq/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// libpq understands `sslrootcert=system` from this major version on.
const SYSTEM_ROOTS: u32 = 16;

/// Where older programs find the platform's roots.
const CA_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Bytes of pg_dump's standard error that are worth showing.
const STDERR_SHOWN: usize = 2000;

/// Finds the newest pg_dump that is not older than the source, in `pg_bin` if
/// that is given, else in PATH and the usual folders. One that came out before
/// the source's own minor may not know what that minor keeps in its catalogs
/// (`attver`), so it is taken only where there is no other. `source_version` is
/// the source's `server_version_num`.
///
/// # Errors
/// [`SchemaError::NoPgDump`] names what was found and what to install.
pub fn find_pg_dump(pg_bin: Option<&Path>, source_version: i32) -> Result<PgDump, SchemaError> {
    let folders = pg_bin.map_or_else(search_folders, |folder| vec![folder.to_owned()]);
    newest(&folders, source_version)
}

fn newest(folders: &[PathBuf], source_version: i32) -> Result<PgDump, SchemaError> {
    let wanted = major(source_version);
    let found: Vec<PgDump> = programs(folders).iter().filter_map(|program| probe(program)).collect();
    // Of several of one version the first: the usual folders come before PATH,
    // where a wrapper script may have a will of its own.
    let fit = found.iter().rev().filter(|dump| dump.version >= wanted);
    let source_day = release_day(wanted, u32::try_from(source_version % 10_000).unwrap_or_default());
    let best = fit.max_by_key(|dump| (dump.release_day() >= source_day, dump.version, dump.minor));
    best.cloned().ok_or_else(|| {
        let seen: Vec<String> = found.iter().map(|d| format!("{} is {}", d.path.display(), d.version)).collect();
        SchemaError::NoPgDump { wanted, found: if seen.is_empty() { "found none".to_owned() } else { seen.join(", ") } }
    })
}

/// The name of Debian's wrapper: it starts one of the programs of the usual folders,
/// which are asked themselves (`postgresql-common`, `pg_wrapper(1)`).
const WRAPPER: &str = "pg_wrapper";

/// Each program in these folders once, by the first of its names: /bin and
/// /usr/bin are one folder mostly.
fn programs(folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut met = HashSet::new();
    let names = folders.iter().map(|folder| folder.join("pg_dump"));
    names
        .filter(|name| {
            let Ok(file) = name.canonicalize() else { return false };
            let wrapper = folders.len() > 1 && file.file_name().is_some_and(|name| name == WRAPPER);
            !wrapper && met.insert(file)
        })
        .collect()
}

/// The minors of all majors come out on one day: 18.4 with 17.10, 16.14 and
/// 15.18. Counted as minors of 15, by what is added to the minor of a major from 13
/// on; of a later major than these every release counts as later.
const MINORS_OF_15: [i64; 7] = [-8, -5, 0, 4, 8, 14, 19];
const FIRST_COUNTED: u32 = 13;

/// The day of a release, for putting those of several majors in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ReleaseDay {
    /// Of a major that nobody maintains any more.
    Before,
    /// That of this minor of 15.
    With15(i64),
    /// Of a major that was not there yet.
    Later,
}

fn release_day(major: u32, minor: u32) -> ReleaseDay {
    let Some(place) = major.checked_sub(FIRST_COUNTED) else { return ReleaseDay::Before };
    let added = usize::try_from(place).ok().and_then(|place| MINORS_OF_15.get(place));
    added.map_or(ReleaseDay::Later, |added| ReleaseDay::With15(i64::from(minor) + added))
}

/// 150018 is 15.
fn major(version_num: i32) -> u32 {
    u32::try_from(version_num / 10_000).unwrap_or_default()
}

fn search_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = USUAL_FOLDERS.iter().flat_map(|pattern| expand(pattern)).collect();
    if let Some(path) = std::env::var_os("PATH") {
        folders.extend(std::env::split_paths(&path));
    }
    folders
}

/// The folders a pattern with at most one `*` stands for.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let Some((parent, prefix)) = before.rsplit_once('/') else {
        return Vec::new();
    };
    let Ok(listing) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    let names = listing.filter_map(|item| item.ok()?.file_name().into_string().ok());
    let mut folders: Vec<PathBuf> = names
        .filter(|name| name.starts_with(prefix))
        .map(|name| PathBuf::from(format!("{parent}/{name}{after}")))
        .collect();
    folders.sort();
    folders
}

/// Asks a program for its version; `None` when it is not there or no pg_dump.
fn probe(path: &Path) -> Option<PgDump> {
    if !path.is_file() {
        return None;
    }
    let output = without_settings(path).arg("--version").stdin(Stdio::null()).output().ok()?;
    let (version, minor) = parse_version(std::str::from_utf8(&output.stdout).ok()?)?;
    Some(PgDump { path: path.to_owned(), version, minor })
}

/// "pg_dump (PostgreSQL) 15.18 (Debian …)" is 15 and 18, "… 19beta2" 19 and 0.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let rest = text.strip_prefix("pg_dump (PostgreSQL) ")?;
    let number = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    let major = number(rest)?;
    let minor = rest.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix('.');
    Some((major, minor.and_then(number).unwrap_or_default()))
}

/// What libpq and the server say when a connection is lost, or the session
/// that exported the snapshot is (`fe-misc.c`, `fe-secure*.c`, `snapmgr.c`).
const CUT_OFF: [&str; 12] = [
    "server closed the connection",
    "could not receive data from server",
    "could not send data to server",
    "SSL connection has been closed",
    "SSL SYSCALL error",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "timeout expired",
    "terminating connection",
    "invalid snapshot identifier",
    "could not import the requested snapshot",
];

/// Whether pg_dump failed because a connection was lost: there is no exit
/// status that says so.
pub(super) fn was_cut_off(stderr: &str) -> bool {
    CUT_OFF.iter().any(|words| stderr.contains(words))
}

impl PgDump {
    fn release_day(&self) -> ReleaseDay {
        release_day(self.version, self.minor)
    }

    /// Runs it on `info`'s database, of a server of this version, with `args`, and returns what
    /// it prints.
    ///
    /// # Errors
    /// When it cannot be started or fails, with the end of its standard error.
    pub(super) async fn run(&self, info: &ConnInfo, server: i32, args: &[String]) -> Result<String, SchemaError> {
        let start = |source| SchemaError::Start { program: self.path.clone(), source };
        let passfile = password_file(info).map_err(start)?;
        let mut command = Command::from(without_settings(&self.path));
        let passfile_path = format!("/dev/fd/{}", passfile.as_raw_fd());
        command.envs(environment(info, server, self.version)).env("PGPASSFILE", passfile_path);
        // Its words are looked at, see `was_cut_off`.
        command.env("LC_ALL", "C");
        command.args(["--schema-only", "--no-password"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = command.output().await.map_err(start)?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let shown: Vec<char> = without_progress(&stderr).trim().chars().rev().take(STDERR_SHOWN).collect();
            return Err(SchemaError::Dump {
                program: self.path.clone(),
                status: output.status.to_string(),
                stderr: shown.into_iter().rev().collect(),
            });
        }
        String::from_utf8(output.stdout).map_err(|error| SchemaError::Archive(format!("it is not UTF-8: {error}")))
    }
}

/// What a verbose pg_dump says from its first error on; all of it when no line
/// is marked as one (before 12).
fn without_progress(stderr: &str) -> &str {
    let start = stderr.find("pg_dump: error: ").unwrap_or_default();
    stderr.get(start..).unwrap_or(stderr)
}

/// This program without our own settings, which hold the passwords of both ends, and
/// without libpq's: what that finds there may be meant for the other end.
fn without_settings(program: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    let is_ours = |name: &str| name.starts_with("PG") || name.starts_with("WALFERRY");
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_ours(&name.to_string_lossy())) {
        command.env_remove(name);
    }
    command
}

/// A password file (mode 0600) with a line for every host. It has no name in any folder, so
/// that nothing is left of it however we end; a child finds it by its number (libpq wants a
/// plain file, `passwordFromFile` in `fe-connect.c`).
fn password_file(info: &ConnInfo) -> std::io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
    for host in &info.hosts {
        let Some(password) = &host.password else {
            continue;
        };
        let password = escape(password.reveal());
        if info.hosts.len() == 1 {
            // Whatever libpq calls this host ("localhost" for the default socket).
            writeln!(file, "*:*:*:*:{password}")?;
        }
        let name = match &host.address {
            Address::Tcp { host, .. } => escape(host),
            Address::Unix(path) => escape(&path.to_string_lossy()),
        };
        writeln!(file, "{name}:{}:*:*:{password}", host.port)?;
    }
    file.rewind()?;
    fcntl_setfd(&file, FdFlags::empty())?;
    Ok(file)
}

/// The connection in libpq's environment variables, without the password.
fn environment(info: &ConnInfo, server: i32, pg_dump_version: u32) -> Vec<(&'static str, String)> {
    let list =
        |of: &dyn Fn(&crate::config::conninfo::Host) -> String| info.hosts.iter().map(of).collect::<Vec<_>>().join(",");
    let mut vars = vec![
        (
            "PGHOST",
            list(&|host| match &host.address {
                Address::Tcp { host, .. } => host.clone(),
                Address::Unix(path) => path.to_string_lossy().into_owned(),
            }),
        ),
        ("PGPORT", list(&|host| host.port.to_string())),
        ("PGUSER", info.user.clone()),
        ("PGDATABASE", info.dbname.clone()),
        ("PGAPPNAME", "walferry pg_dump".to_owned()),
        ("PGSSLMODE", sslmode(info.sslmode).to_owned()),
        ("PGCHANNELBINDING", channel_binding(info.channel_binding).to_owned()),
        ("PGTARGETSESSIONATTRS", session_attrs(info.target_session_attrs).to_owned()),
        ("PGCONNECT_TIMEOUT", info.connect_timeout.as_secs().to_string()),
    ];
    let hostaddr = list(&|host| match &host.address {
        Address::Tcp { hostaddr: Some(address), .. } => address.to_string(),
        _ => String::new(),
    });
    if hostaddr.chars().any(|c| c != ',') {
        vars.push(("PGHOSTADDR", hostaddr));
    }
    if let Some(root) = root_certificate(&info.sslrootcert, pg_dump_version) {
        vars.push(("PGSSLROOTCERT", root));
    }
    for (name, path) in [("PGSSLCERT", &info.sslcert), ("PGSSLKEY", &info.sslkey)] {
        if let Some(path) = path {
            vars.push((name, path.to_string_lossy().into_owned()));
        }
    }
    let theirs = info.options.as_deref().unwrap_or_default();
    vars.push(("PGOPTIONS", format!("{theirs} {}", pg_dump_options(server)).trim_start().to_owned()));
    vars
}

fn root_certificate(root: &RootCert, pg_dump_version: u32) -> Option<String> {
    match root {
        RootCert::Default => None,
        RootCert::File(path) => Some(path.to_string_lossy().into_owned()),
        RootCert::System if pg_dump_version >= SYSTEM_ROOTS => Some("system".to_owned()),
        RootCert::System => CA_BUNDLES.iter().find(|path| Path::new(path).is_file()).map(|path| (*path).to_owned()),
    }
}

fn sslmode(mode: SslMode) -> &'static str {
    match mode {
        SslMode::Disable => "disable",
        SslMode::Allow => "allow",
        SslMode::Prefer => "prefer",
        SslMode::Require => "require",
        SslMode::VerifyCa => "verify-ca",
        SslMode::VerifyFull => "verify-full",
    }
}

fn channel_binding(binding: ChannelBinding) -> &'static str {
    match binding {
        ChannelBinding::Disable => "disable",
        ChannelBinding::Prefer => "prefer",
        ChannelBinding::Require => "require",
    }
}

fn session_attrs(attrs: TargetSessionAttrs) -> &'static str {
    match attrs {
        TargetSessionAttrs::Any => "any",
        TargetSessionAttrs::ReadWrite => "read-write",
        TargetSessionAttrs::ReadOnly => "read-only",
        TargetSessionAttrs::Primary => "primary",
        TargetSessionAttrs::Standby => "standby",
        TargetSessionAttrs::PreferStandby => "prefer-standby",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_packages_and_betas_are_read() {
        assert_eq!(parse_version("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some((15, 18)));
        assert_eq!(parse_version("pg_dump (PostgreSQL) 19beta2\n"), Some((19, 0)));
        assert_eq!(parse_version("pg_restore (PostgreSQL) 15.1\n"), None);
    }

    #[test]
    fn minors_of_one_day_are_of_one_age_whatever_their_major() {
        let [first, .., last] = [(14, 23), (16, 14), (17, 10), (18, 4)].map(|(major, minor)| release_day(major, minor));
        assert_eq!((first, last), (release_day(15, 18), release_day(15, 18)));
        assert!(release_day(18, 4) < release_day(15, 20) && release_day(18, 6) >= release_day(15, 20));
        assert!(release_day(25, 0) > release_day(18, 9) && release_day(10, 23) < release_day(13, 0));
    }

    /// The story: 15.20 keeps an option with its columns that the pg_dump of
    /// 18.4, though of a newer major, carries over.
    #[cfg(unix)]
    #[test]
    fn a_pg_dump_of_an_earlier_day_than_the_source_is_taken_only_where_there_is_no_other() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let program = |version: &str| {
            let bin = folder.path().join(version);
            std::fs::create_dir(&bin).expect("a folder of programs");
            let path = bin.join("pg_dump");
            std::fs::write(&path, format!("#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}'\n")).expect("a program");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it can be run");
            bin
        };
        let folders = ["15.18", "15.20", "18.4"].map(program);
        let found = |folders: &[PathBuf], source| newest(folders, source).map(|dump| (dump.version, dump.minor));
        assert_eq!(found(&folders, 150_020).expect("two will do"), (15, 20));
        assert_eq!(found(&folders, 150_018).expect("all will do"), (18, 4));
        assert_eq!(found(&folders, 160_014).expect("one will do"), (18, 4));
        assert_eq!(found(&[folders[0].clone(), folders[2].clone()], 150_020).expect("no other"), (18, 4));
        assert!(found(&folders[..2], 160_000).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_program_of_several_names_is_asked_once_and_debians_wrapper_by_its_folder_alone() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().expect("a folder");
        let bin = ["own", "again", "wrapped", "empty"].map(|name| folder.path().join(name));
        bin.iter().for_each(|bin| std::fs::create_dir(bin).expect("a folder of programs"));
        let wrapper = folder.path().join(WRAPPER);
        for file in [&bin[0].join("pg_dump"), &wrapper] {
            std::fs::write(file, "").expect("a file");
        }
        symlink(bin[0].join("pg_dump"), bin[1].join("pg_dump")).expect("a second name");
        symlink(&wrapper, bin[2].join("pg_dump")).expect("the wrapper's name");
        assert_eq!(programs(&bin), [bin[0].join("pg_dump")]);
        assert_eq!(programs(&bin[2..3]), [bin[2].join("pg_dump")], "--pg-bin means it");
    }

    #[test]
    fn an_older_pg_dump_is_refused_with_the_package_to_install() {
        let error = find_pg_dump(None, 990_001).expect_err("there is no PostgreSQL 99");
        assert!(error.to_string().contains("postgresql-client-99"), "{error}");
        let folder = tempfile::tempdir().expect("a folder");
        let error = find_pg_dump(Some(folder.path()), 150_000).expect_err("the folder is empty");
        assert!(error.to_string().contains("found none"), "{error}");
    }
}
