//! The process's surroundings that configuration reads: environment, home
//! folder, operating-system user. Injectable, so that tests do not depend on
//! the machine they run on.
//!
//! Invariant: nothing else in [`crate::config`] reads the process environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::ConfigError;
use super::given::Origin;

/// What the variables that are read here begin with: ours, and libpq's with the
/// ones that are common for connection strings.
const READ_PREFIXES: [&str; 2] = ["WALFERRY_", "PG"];

/// What configuration may read of the process's surroundings.
#[derive(Clone, Default)]
pub struct Env {
    variables: BTreeMap<String, String>,
    home: Option<PathBuf>,
    user: Option<String>,
}

impl Env {
    /// The surroundings of this process.
    ///
    /// # Errors
    /// [`ConfigError::Setting`] for a variable of ours or libpq's that is not
    /// UTF-8: an exclusion that is not understood must not look as if there
    /// were none.
    pub fn of_process() -> Result<Self, ConfigError> {
        let mut variables = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            // No variable that is read here has such a name.
            let Ok(name) = name.into_string() else { continue };
            let is_read = READ_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            match value.into_string() {
                Ok(value) => drop(variables.insert(name, value)),
                Err(_) if is_read => {
                    let (from, expected) = (Origin::Variable(name), "text in UTF-8".to_owned());
                    return Err(ConfigError::Setting { from, expected, found: String::new() });
                }
                Err(_) => {}
            }
        }
        Ok(Env { variables, home: std::env::home_dir(), user: whoami::username().ok() })
    }

    /// Surroundings without anything.
    pub fn empty() -> Self {
        Env::default()
    }

    /// Adds a variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sets the home folder.
    #[must_use]
    pub fn with_home(mut self, home: &Path) -> Self {
        self.home = Some(home.to_owned());
        self
    }

    /// Sets the operating-system user.
    #[must_use]
    pub fn with_user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// A variable's value; an empty one counts as absent, as in libpq.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The names of all variables, those of empty ones too.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }

    /// The home folder.
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// The operating-system user's name.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}
