//! Why the configuration cannot be used. All of it is exit code 2.
//!
//! Invariant: no message repeats a connection string or a value of one: a
//! password that was not percent-encoded can end up in any part of it.

use std::path::PathBuf;

use super::{Origin, Side};
use crate::shell;

/// Why a connection string cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConnInfoError {
    /// Neither a URI nor keywords.
    #[error("word {0} of the connection string has no \"=\" (expected a URI, postgresql://…, or keyword=value pairs)")]
    MissingEquals(usize),
    /// A quote that does not end.
    #[error("the quoted value of \"{0}\" does not end")]
    UnterminatedQuote(&'static str),
    /// A word libpq does not know either, with the one that was perhaps meant. What was
    /// written may be a part of a password: a URI with a quote before it, or of which an
    /// "&" or a space is not encoded.
    #[error("unknown keyword{}", .0.map_or_else(
        || " (expected a URI, postgresql://… in lower case and without quotes around it, or keyword=value pairs)".to_owned(),
        |near| format!(", did you mean \"{near}\"?"),
    ))]
    UnknownKeyword(Option<&'static str>),
    /// A word that libpq knows and walferry does not serve.
    #[error("\"{keyword}\" cannot have this value: {why}")]
    Unsupported {
        /// The keyword.
        keyword: &'static str,
        /// Why, and what is accepted.
        why: &'static str,
    },
    /// A value out of its range.
    #[error("\"{keyword}\" must be {expected}")]
    BadValue {
        /// The keyword.
        keyword: &'static str,
        /// What is accepted.
        expected: &'static str,
    },
    /// The URI's shape.
    #[error("{0}")]
    BadUri(&'static str),
    /// A `?name` without value.
    #[error("URI parameter {0} must be name=value with one \"=\" (write others as %3D and \"&\" as %26)")]
    BadUriParameter(usize),
    /// A `%` that is not followed by two hexadecimal digits, or %00, or not UTF-8.
    #[error("the {part} of the URI is not well percent-encoded: {why}")]
    PercentEncoding {
        /// Which part of the URI.
        part: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// As many ports (or addresses) as hosts, or one port.
    #[error("{count} values of \"{keyword}\" do not match {hosts} hosts")]
    CountMismatch {
        /// `port` or `hostaddr`.
        keyword: &'static str,
        /// Values given.
        count: usize,
        /// Hosts given.
        hosts: usize,
    },
    /// No user in the string, PGUSER, or the system.
    #[error("no user is given, and the operating system's user is unknown: add user=…")]
    NoUser,
    /// The service is nowhere.
    #[error("service \"{0}\" is not in {1}")]
    NoSuchService(String, String),
    /// The service file is there and wrong.
    #[error("line {line} of {}: {why}", .path.display())]
    ServiceFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// A file named explicitly cannot be read.
    #[error("cannot read {}: {why}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// One of the two connection strings.
    #[error("the connection string of the {side} cannot be used")]
    ConnInfo {
        /// Which.
        side: Side,
        /// Why.
        #[source]
        source: ConnInfoError,
    },
    /// One of the two ends is not given.
    #[error("no {side} is given: use --{side} URI, {variable}, or {side} = \"…\" in walferry.toml")]
    Missing {
        /// Which.
        side: Side,
        /// The variable that would give it.
        variable: String,
    },
    /// Both ends are the same database.
    #[error(
        "source and target are the same database ({0}): a migration onto itself would overwrite what it reads, change one of the two"
    )]
    SameDatabase(String),
    /// A file cannot be read.
    #[error("cannot read {}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// The configuration file is not understood. The parser's own words are
    /// kept without the line they quote: it may hold a password.
    #[error("{} is not a valid configuration: {why}", .path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        why: String,
    },
    /// A file with a password that others may read.
    #[error(
        "{} is not used: \"{key}\" in it has a password, and others on this machine may read the file (mode {mode:04o}); \
         run: chmod 0600 {}",
        .path.display(), shell::word(&.path.to_string_lossy())
    )]
    Readable {
        /// The file.
        path: PathBuf,
        /// The setting with the password.
        key: &'static str,
        /// The file's permissions.
        mode: u32,
    },
    /// A file of somebody else that happens to lie in the working folder.
    #[error(
        "{} in the working folder is not used: it belongs to another user of this machine (uid {owner}), who would say \
         where the rows go; if it is meant, name it: --config ./{}",
        .path.display(), .path.display()
    )]
    Strangers {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// A setting's value.
    #[error("{from} must be {expected}{found}")]
    Setting {
        /// Where it was given.
        from: Origin,
        /// What is accepted.
        expected: String,
        /// ", not" and what was given; empty for a secret.
        found: String,
    },
    /// Settings that do not go together.
    #[error("{from} {why}")]
    Together {
        /// Where one of them was given.
        from: Origin,
        /// What it needs, or does not go with.
        why: &'static str,
    },
    /// A pattern of table or schema names.
    #[error("the pattern \"{pattern}\" of {from} cannot be used: {why}")]
    Pattern {
        /// Where it was given.
        from: Origin,
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: &'static str,
    },
}
