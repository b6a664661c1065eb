//! The process's surroundings that configuration reads: environment, home
//! folder, operating-system user. Injectable, so that tests do not depend on
//! the machine they run on.
//!
//! Invariant: nothing else in [`crate::config`] reads the process environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What configuration may read of the process's surroundings.
#[derive(Clone, Default)]
pub struct Env {
    variables: BTreeMap<String, String>,
    home: Option<PathBuf>,
    user: Option<String>,
}

impl Env {
    /// The surroundings of this process. Variables that are not UTF-8 are
    /// treated as absent: none of those read here can be meant that way.
    pub fn of_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        Env { variables, home: std::env::home_dir(), user: whoami::username().ok() }
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
