//! The settings, each declared once: name, type, default, bounds, texts, who
//! takes it. From a declaration come the flag with its help, the environment
//! variable, the key of the file, the parsing with its errors, and the page of
//! all settings (`docs/settings.md`).
//!
//! Reading order: [`Setting`] and [`About`] here, then the declarations
//! themselves in [`connections`], [`moved`], [`how`] and [`log`]; [`value`] has the types,
//! [`super::given`] collects what was typed.
//!
//! Invariant: nothing else in walferry writes down a setting's name, default or
//! bounds. Model: `crates/core/flags/defs.rs` of ripgrep.

pub mod connections;
pub mod how;
pub mod log;
pub mod moved;
pub mod page;
pub mod value;

use value::Value;

/// The heading that a setting stands under, in `--help` and on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heading {
    /// Both ends, and which migration.
    Connections,
    /// What is moved.
    Moved,
    /// How it is moved.
    How,
    /// Messages.
    Log,
}

impl Heading {
    /// As it is written.
    pub fn title(self) -> &'static str {
        match self {
            Heading::Connections => "Connections",
            Heading::Moved => "What is moved",
            Heading::How => "How",
            Heading::Log => "Log",
        }
    }
}

/// The commands that take a setting as a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taker {
    /// Those that know a migration.
    Migration,
    /// Those that move rows, or look whether they could be moved.
    Mover,
    /// The daemon. In variables and the file the setting counts for it only.
    Daemon,
    /// All.
    Everyone,
}

impl Taker {
    /// The commands' names; empty for all there are.
    pub fn commands(self) -> &'static [&'static str] {
        match self {
            Taker::Migration => &["check", "run", "catchup", "resync", "add", "status", "cleanup"],
            Taker::Mover => &["check", "run", "catchup", "resync", "add"],
            Taker::Daemon => &["run"],
            Taker::Everyone => &[],
        }
    }
}

/// Where the environment has a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variables {
    /// `WALFERRY_` and the name in capitals.
    Named,
    /// These, in the order they are looked at.
    These(&'static [&'static str]),
}

/// Whether a setting's value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrecy {
    /// It may.
    Open,
    /// It may not: no error and no log repeats it, and it can also be given as
    /// the file that the variable with `_FILE` behind its name names, as
    /// containers get their secrets.
    Secret,
}

/// Whether the file has a key for a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFile {
    /// The setting's name.
    Key,
    /// None: it says which file is read.
    Nothing,
}

/// How often a setting may be given in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Once.
    One,
    /// Again and again; a list in the file.
    Many,
}

/// What people read of a setting, and where it can be given.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Flag and key of the file.
    pub name: &'static str,
    /// What it does, in a line or two without a full stop.
    pub help: &'static str,
    /// Why one would set it, what it costs, and why the default is as it is;
    /// empty where the help says all.
    pub why: &'static str,
    /// What stands for the value; empty for what its type says.
    pub placeholder: &'static str,
    /// The value of the flag alone, where it may stand alone; empty for what its
    /// type says.
    pub alone: &'static str,
    /// Where it is shown.
    pub heading: Heading,
    /// Who takes it.
    pub taker: Taker,
    /// Its names in the environment.
    pub variables: Variables,
    /// Whether it may be shown.
    pub secrecy: Secrecy,
    /// Its place in the file.
    pub in_file: InFile,
}

impl About {
    /// What most declarations of a heading begin with.
    const fn under(heading: Heading, taker: Taker) -> About {
        About {
            name: "",
            help: "",
            why: "",
            placeholder: "",
            alone: "",
            heading,
            taker,
            variables: Variables::Named,
            secrecy: Secrecy::Open,
            in_file: InFile::Key,
        }
    }

    /// The variables that give it, in the order they are looked at.
    pub fn variables(&self) -> Vec<String> {
        match self.variables {
            Variables::Named => vec![format!("WALFERRY_{}", self.name.replace('-', "_").to_ascii_uppercase())],
            Variables::These(names) => names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    /// The variable that is ours.
    pub fn variable(&self) -> String {
        self.variables().swap_remove(0)
    }
}

/// The default of a setting that has no single one, in words, "" for none; what
/// it is, [`Settings::validate`](super::Settings::validate) decides.
#[derive(Clone, Copy, Debug)]
pub struct Words(pub &'static str);

/// A setting: a value of type `T`, with a default of that type or in words.
#[derive(Clone, Copy, Debug)]
pub struct Setting<T, D = T> {
    /// Texts and places.
    pub about: About,
    /// What holds when it is not given.
    pub default: D,
    least: Option<T>,
    most: Option<T>,
}

/// A setting that may be without a value, or whose default depends.
pub type Optional<T> = Setting<T, Words>;

impl<T, D> Setting<T, D> {
    /// A setting that takes every value of its type.
    const fn new(about: About, default: D) -> Self {
        Setting { about, default, least: None, most: None }
    }
}

impl<T: Copy, D: Copy> Setting<T, D> {
    /// Refuses values below this.
    const fn at_least(self, least: T) -> Self {
        Setting { least: Some(least), ..self }
    }

    /// Refuses values outside of these, which are accepted themselves.
    const fn within(self, least: T, most: T) -> Self {
        Setting { least: Some(least), most: Some(most), ..self }
    }
}

impl<T: Value, D> Setting<T, D> {
    /// The value of what was typed, if it can be used.
    pub(super) fn read(&self, texts: &[String]) -> Option<T> {
        let value = T::read_all(texts)?;
        let is_within = self.least.as_ref().is_none_or(|least| value >= *least)
            && self.most.as_ref().is_none_or(|most| value <= *most);
        is_within.then_some(value)
    }

    /// What is accepted, in words that follow "must be".
    pub(super) fn expected(&self) -> String {
        let noun = T::noun();
        let bounded = match (&self.least, &self.most) {
            (None, None) => noun,
            (Some(least), None) => format!("{noun} of at least {}", least.show()),
            (None, Some(most)) => format!("{noun} of at most {}", most.show()),
            (Some(least), Some(most)) => format!("{noun} from {} to {}", least.show(), most.show()),
        };
        match T::EXAMPLES {
            "" => bounded,
            examples => format!("{bounded}, such as {examples}"),
        }
    }
}

/// What flags, environment, file and pages need of a setting of any type.
pub trait Declared: Sync {
    /// Texts and places.
    fn about(&self) -> &About;
    /// The default as people write it, or in words.
    fn default(&self) -> String;
    /// Whether that is a value, not words.
    fn default_is_value(&self) -> bool;
    /// What is accepted, in words.
    fn expected(&self) -> String;
    /// What stands for the value in the usage.
    fn placeholder(&self) -> &'static str;
    /// The value of the flag alone, where it may stand alone.
    fn alone(&self) -> Option<&'static str>;
    /// Whether it is a flag of yes and no, whose value can only follow after "=".
    fn is_switch(&self) -> bool;
    /// How often it may be given.
    fn arity(&self) -> Arity;
    /// The words that are accepted, each with its meaning, where there are few.
    fn words(&self) -> Vec<clap::builder::PossibleValue>;
    /// What shells may complete it with.
    fn hint(&self) -> clap::ValueHint;
    /// Whether there are values of its type that it refuses.
    fn is_bounded(&self) -> bool;
    /// Whether this text can be used.
    fn accepts(&self, text: &str) -> bool;
}

/// A default, as it can be shown.
pub trait Shown {
    /// As people write it, or in words.
    fn show(&self) -> String;
    /// Whether it is a value.
    const IS_VALUE: bool;
}

impl Shown for Words {
    fn show(&self) -> String {
        self.0.to_owned()
    }
    const IS_VALUE: bool = false;
}

impl<T: Value> Shown for T {
    fn show(&self) -> String {
        Value::show(self)
    }
    const IS_VALUE: bool = true;
}

impl<T: Value, D: Shown + Sync> Declared for Setting<T, D> {
    fn about(&self) -> &About {
        &self.about
    }

    fn default(&self) -> String {
        Shown::show(&self.default)
    }

    fn default_is_value(&self) -> bool {
        D::IS_VALUE
    }

    fn expected(&self) -> String {
        Setting::expected(self)
    }

    fn placeholder(&self) -> &'static str {
        if self.about.placeholder.is_empty() { T::PLACEHOLDER } else { self.about.placeholder }
    }

    fn is_switch(&self) -> bool {
        self.about.alone.is_empty() && T::ALONE.is_some()
    }

    fn alone(&self) -> Option<&'static str> {
        if self.about.alone.is_empty() { T::ALONE } else { Some(self.about.alone) }
    }

    fn arity(&self) -> Arity {
        T::ARITY
    }

    fn words(&self) -> Vec<clap::builder::PossibleValue> {
        T::words()
    }

    fn hint(&self) -> clap::ValueHint {
        T::HINT
    }

    fn is_bounded(&self) -> bool {
        self.least.is_some() || self.most.is_some()
    }

    fn accepts(&self, text: &str) -> bool {
        self.read(&[text.to_owned()]).is_some()
    }
}

/// Declares settings, and lists them in the order they stand.
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $value:expr;)*) => {
        $($(#[$doc])* pub static $name: $type = $value;)*

        /// All of these.
        pub(super) static LISTED: &[&dyn super::Declared] = &[$(&$name),*];
    };
}
use settings;

/// All settings, in the order of the page.
pub fn all() -> impl Iterator<Item = &'static dyn Declared> {
    [connections::LISTED, moved::LISTED, how::LISTED, log::LISTED].into_iter().flatten().copied()
}

/// The setting of that name.
pub fn named(name: &str) -> Option<&'static dyn Declared> {
    all().find(|setting| setting.about().name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_declaration_is_whole_and_no_name_or_variable_is_given_twice() {
        let mut names = BTreeSet::new();
        for setting in all() {
            let about = setting.about();
            assert!(!about.name.is_empty() && !about.help.is_empty(), "{about:?}");
            assert!(!about.help.ends_with('.') && (about.why.is_empty() || about.why.ends_with('.')), "{about:?}");
            for name in about.variables().into_iter().chain([about.name.to_owned()]) {
                assert!(names.insert(name.clone()), "{name} is given twice");
            }
        }
    }

    #[test]
    fn a_default_as_it_is_shown_is_accepted_and_so_is_the_value_of_the_flag_alone() {
        for setting in all() {
            let shown = Some(setting.default()).filter(|_| setting.default_is_value() && setting.arity() == Arity::One);
            for text in shown.as_deref().into_iter().chain(setting.alone()) {
                assert!(setting.accepts(text), "{}: {text}", setting.about().name);
            }
        }
    }

    #[test]
    fn bounds_are_accepted_themselves_and_nothing_beyond_them() {
        assert!(how::JOBS.accepts("1") && how::JOBS.accepts("128"));
        assert!(!how::JOBS.accepts("0") && !how::JOBS.accepts("129"));
        assert_eq!(how::JOBS.expected(), "a number from 1 to 128");
        assert_eq!(how::PART_SIZE.expected(), "a size of at least 1MiB, such as 16MiB or 50MB");
    }
}
