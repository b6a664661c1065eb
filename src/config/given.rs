//! What was typed: flags, then the environment, then the file, setting by
//! setting, each with the place it came from.
//!
//! Invariant: flag over environment over file. A key of the file that is no
//! setting is an error; no error repeats a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::private::{self, Place};
use super::settings::connections::{CONFIG, SOURCE, TARGET};
use super::settings::how::{LISTEN, LISTEN_TOKEN};
use super::settings::value::{ListenToken, Value};
use super::settings::{self, About, Arity, Declared, InFile, Optional, Secrecy, Setting, Taker, value::Uri};
use super::{Audience, ConnInfo, Env, Side, near_misses};

/// The file that is read from the working folder when `--config` is not given.
const DEFAULT_FILE: &str = "walferry.toml";

/// Where a value came from, so that an error can name the place to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag, without its dashes.
    Flag(&'static str),
    /// A variable of the environment.
    Variable(String),
    /// A key of the file.
    Key {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "--{name}"),
            Origin::Variable(name) => f.write_str(name),
            Origin::Key { key, path, line } => write!(f, "\"{key}\" in line {line} of {}", path.display()),
        }
    }
}

/// The texts of a setting.
#[derive(Clone)]
struct Given {
    texts: Vec<String>,
    origin: Origin,
}

/// What was typed, by the settings' names.
#[derive(Clone, Default)]
pub struct Values(BTreeMap<&'static str, Given>);

/// Shows where values come from, and none of them.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.values().map(|given| given.origin.to_string())).finish()
    }
}

impl Values {
    /// Adds a flag with its texts.
    #[must_use]
    pub fn with_flag(mut self, about: &About, texts: Vec<String>) -> Self {
        self.0.insert(about.name, Given { texts, origin: Origin::Flag(about.name) });
        self
    }

    /// Adds what the environment and the file say where no flag does.
    ///
    /// # Errors
    /// When a file that is named cannot be read, or is not understood.
    pub fn complete(self, env: &Env) -> Result<Values, ConfigError> {
        self.with_env(env)?.with_file()
    }

    /// Adds what the environment says where no flag does.
    ///
    /// # Errors
    /// When the file of a secret cannot be read.
    pub fn with_env(mut self, env: &Env) -> Result<Values, ConfigError> {
        for setting in settings::all() {
            if let Some(given) = of_env(env, setting)? {
                self.0.entry(setting.about().name).or_insert(given);
            }
        }
        Ok(self)
    }

    /// Adds what the file says where nothing else does.
    ///
    /// # Errors
    /// When a file that is named cannot be read, or is not understood.
    pub fn with_file(mut self) -> Result<Values, ConfigError> {
        let file = match self.find(&CONFIG)? {
            Some(path) => Some(path),
            None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()),
        };
        if let Some(path) = file {
            let place = if self.0.contains_key(CONFIG.about.name) { Place::Named } else { Place::WorkingFolder };
            for (name, given) in of_file(&path, place)? {
                self.0.entry(name).or_insert(given);
            }
        }
        Ok(self)
    }

    /// Forgets the daemon's own settings: one file serves all commands.
    pub fn forget_daemon(&mut self) {
        for about in settings::all().map(Declared::about).filter(|about| about.taker == Taker::Daemon) {
            self.0.remove(about.name);
        }
    }

    /// The value of a setting, or its default.
    ///
    /// # Errors
    /// [`ConfigError::Setting`] that names the place it came from.
    pub fn get<T: Value + Clone>(&self, setting: &Setting<T>) -> Result<T, ConfigError> {
        Ok(self.find(setting)?.unwrap_or_else(|| setting.default.clone()))
    }

    /// The value of a setting, if it was given.
    ///
    /// # Errors
    /// [`ConfigError::Setting`] that names the place it came from.
    pub fn find<T: Value, D>(&self, setting: &Setting<T, D>) -> Result<Option<T>, ConfigError> {
        let Some(given) = self.0.get(setting.about.name) else { return Ok(None) };
        let wrong = || {
            let found = match setting.about.secrecy {
                Secrecy::Open => format!(", not \"{}\"", given.texts.join(",")),
                Secrecy::Secret => String::new(),
            };
            ConfigError::Setting { from: given.origin.clone(), expected: setting.expected(), found }
        };
        setting.read(&given.texts).ok_or_else(wrong).map(Some)
    }

    /// Where a setting came from; its flag where it was not given.
    pub fn origin<T, D>(&self, setting: &Setting<T, D>) -> Origin {
        self.origin_of(setting.about.name)
    }

    /// The same by the setting's name.
    pub(super) fn origin_of(&self, name: &'static str) -> Origin {
        self.0.get(name).map_or(Origin::Flag(name), |given| given.origin.clone())
    }

    /// What is secret and on the command line, each with what would hide it.
    pub fn exposed(&self) -> Vec<Exposed> {
        let texts = |about: &About| match self.0.get(about.name) {
            Some(Given { texts, origin: Origin::Flag(_) }) => texts.as_slice(),
            _ => &[],
        };
        let has_password = |side: &Side| texts(&uri(*side).about).iter().any(|text| ConnInfo::text_has_password(text));
        let passwords = [Side::Source, Side::Target].into_iter().filter(has_password).map(|side| Exposed {
            what: format!("password of the {side}"),
            instead: format!("{} or ~/.pgpass", uri(side).about.variable()),
        });
        let token = &LISTEN_TOKEN.about;
        let is_token =
            |text: &String| ListenToken::read(text).is_some_and(|said| said.audience() != Audience::Everybody);
        let tokens = Some(token).filter(|about| texts(about).iter().any(is_token)).map(|about| Exposed {
            what: format!("token of --{}", LISTEN.about.name),
            instead: format!("{variable} or {variable}_FILE", variable = about.variable()),
        });
        passwords.chain(tokens).collect()
    }
}

/// A secret that every user of the machine can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// What it is.
    pub what: String,
    /// Where it belongs.
    pub instead: String,
}

/// The connection string's setting of an end.
pub(super) fn uri(side: Side) -> &'static Optional<Uri> {
    match side {
        Side::Source => &SOURCE,
        Side::Target => &TARGET,
    }
}

/// The first of a setting's variables that is there; a secret's may also name a
/// file, by `_FILE` behind the name.
fn of_env(env: &Env, setting: &dyn Declared) -> Result<Option<Given>, ConfigError> {
    for name in setting.about().variables() {
        if let Some(text) = env.get(&name) {
            return Ok(Some(Given { texts: vec![text.to_owned()], origin: Origin::Variable(name) }));
        }
        let name = format!("{name}_FILE");
        let path = env.get(&name).filter(|_| setting.about().secrecy == Secrecy::Secret).map(PathBuf::from);
        if let Some(path) = path {
            let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::File { path, source })?;
            return Ok(Some(Given { texts: vec![text.trim().to_owned()], origin: Origin::Variable(name) }));
        }
    }
    Ok(None)
}

/// What our variables begin with. Others may begin so as well: Kubernetes gives
/// every container of a namespace some for a service named walferry.
const PREFIX: &str = "WALFERRY_";

/// Variables that are no setting's, each with those that it was perhaps meant to
/// be. One that is like none of them is somebody else's.
pub fn near_variables(env: &Env) -> Vec<(&str, Vec<String>)> {
    let variables = |about: &About| match about.secrecy {
        Secrecy::Open => about.variables(),
        Secrecy::Secret => about.variables().iter().flat_map(|name| [name.clone(), format!("{name}_FILE")]).collect(),
    };
    let ours: Vec<String> = settings::all().flat_map(|setting| variables(setting.about())).collect();
    let endings = || ours.iter().filter_map(|name| name.strip_prefix(PREFIX));
    let strangers = env.names().filter(|name| !ours.iter().any(|ours| ours == name));
    strangers
        .filter_map(|name| Some((name, near_misses(name.strip_prefix(PREFIX)?, endings()))))
        .filter(|(_, near)| !near.is_empty())
        .map(|(name, near)| (name, near.into_iter().map(|ending| format!("{PREFIX}{ending}")).collect()))
        .collect()
}

/// The settings of a file.
fn of_file(path: &Path, place: Place) -> Result<Vec<(&'static str, Given)>, ConfigError> {
    let (text, access) = private::read(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    access.require_owner(path, place)?;
    let line_at = |byte: usize| text.bytes().take(byte).filter(|b| *b == b'\n').count() + 1;
    let wrong = |line: Option<usize>, why: &str| {
        let line = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        ConfigError::Toml { path: path.to_owned(), why: format!("{line}{why}") }
    };
    let table = DeTable::parse(&text)
        .map_err(|error| wrong(error.span().map(|span| line_at(span.start)), error.message()))?
        .into_inner();
    let mut all = Vec::new();
    for (key, value) in table {
        let line = line_at(key.span().start);
        let setting = settings::named(key.get_ref()).filter(|setting| setting.about().in_file == InFile::Key);
        let setting = setting.ok_or_else(|| wrong(Some(line), &no_setting(key.get_ref())))?;
        let key = setting.about().name;
        let texts = texts_of(value.get_ref(), setting.arity());
        let texts = texts.ok_or_else(|| {
            wrong(
                Some(line),
                &format!("\"{key}\" must be {}, as a text, a number or a truth value", setting.expected()),
            )
        })?;
        if setting.about().secrecy == Secrecy::Secret && texts.iter().any(|text| ConnInfo::text_has_password(text)) {
            access.require_private(path, key)?;
        }
        all.push((key, Given { texts, origin: Origin::Key { key, path: path.to_owned(), line } }));
    }
    Ok(all)
}

/// Texts as a flag would have them; a list only where a flag may be repeated.
fn texts_of(value: &DeValue<'_>, arity: Arity) -> Option<Vec<String>> {
    match (value, arity) {
        (DeValue::String(text), _) => Some(vec![text.to_string()]),
        (DeValue::Integer(number), Arity::One) => Some(vec![number.to_string()]),
        (DeValue::Boolean(truth), Arity::One) => Some(vec![truth.to_string()]),
        (DeValue::Array(items), Arity::Many) => items
            .iter()
            .map(|item| match item.get_ref() {
                DeValue::String(text) => Some(text.to_string()),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

/// What to say of a key that nobody knows.
fn no_setting(key: &str) -> String {
    let keys = settings::all().map(Declared::about).filter(|about| about.in_file == InFile::Key);
    let near = near_misses(&key.replace('_', "-"), keys.map(|about| about.name));
    let hint = match near.as_slice() {
        [] => "settings are named like the flags, without \"--\"".to_owned(),
        near => {
            format!("did you mean {}?", near.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" or "))
        }
    };
    format!("there is no setting \"{key}\" ({hint})")
}

#[cfg(test)]
mod tests;
