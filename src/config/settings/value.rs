//! The types of settings: how each is read, shown, and called in an error.
//!
//! Invariant: what [`Value::show`] writes, [`Value::read`] takes back; nothing
//! is rounded or clamped in silence.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use tracing_subscriber::EnvFilter;

use super::Arity;
use crate::config::publications::Names;
use crate::config::{Audience, ListenAddress, LogFormat, SchemaMode, Secret};
use crate::lsn::Lsn;

/// A type of settings.
pub trait Value: Sized + PartialOrd + Sync + 'static {
    /// What stands for it in the usage.
    const PLACEHOLDER: &'static str;
    /// Examples for an error, "" for none.
    const EXAMPLES: &'static str = "";
    /// The value of a flag without one; `None` where it needs one.
    const ALONE: Option<&'static str> = None;
    /// How often it may be given.
    const ARITY: Arity = Arity::One;
    /// What shells may complete it with.
    const HINT: clap::ValueHint = clap::ValueHint::Other;

    /// What is accepted, in words that follow "must be".
    fn noun() -> String;

    /// The value of a text, if it is one.
    fn read(text: &str) -> Option<Self>;

    /// The value of all texts that were given.
    fn read_all(texts: &[String]) -> Option<Self> {
        Self::read(texts.last()?)
    }

    /// As people write it.
    fn show(&self) -> String;

    /// The words that are accepted, where there are few.
    fn words() -> Vec<PossibleValue> {
        Vec::new()
    }
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Value for $type {
            const PLACEHOLDER: &'static str = "N";
            fn noun() -> String {
                "a number".to_owned()
            }
            fn read(text: &str) -> Option<Self> {
                text.trim().parse().ok()
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
number!(u32, u64, usize);

/// A human duration; a bare number is one of seconds.
impl Value for Duration {
    const PLACEHOLDER: &'static str = "TIME";
    const EXAMPLES: &'static str = "15m, 900s or 250ms";

    fn noun() -> String {
        "a duration".to_owned()
    }

    fn read(text: &str) -> Option<Self> {
        let seconds = text.trim().parse().map(Duration::from_secs);
        seconds.or_else(|_| humantime::parse_duration(text.trim())).ok()
    }

    fn show(&self) -> String {
        humantime::format_duration(*self).to_string()
    }
}

/// A human size; `MB` are decimal, `MiB` binary.
impl Value for ByteSize {
    const PLACEHOLDER: &'static str = "SIZE";
    const EXAMPLES: &'static str = "16MiB or 50MB";

    fn noun() -> String {
        "a size".to_owned()
    }

    fn read(text: &str) -> Option<Self> {
        text.trim().parse().ok()
    }

    fn show(&self) -> String {
        format!("{:.0}", self.display().iec()).replace(' ', "")
    }
}

/// A name of the letters that a replication slot's may have, of at most `MOST`
/// (`ReplicationSlotValidateName` in slot.c).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd)]
pub struct SlotLetters<const MOST: usize>(pub Cow<'static, str>);

impl<const MOST: usize> Value for SlotLetters<MOST> {
    const PLACEHOLDER: &'static str = "NAME";

    fn noun() -> String {
        format!("1 to {MOST} of the letters a-z, 0-9 and _")
    }

    fn read(text: &str) -> Option<Self> {
        let is_plain = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        let fits = is_plain && (1..=MOST).contains(&text.len());
        fits.then(|| SlotLetters(text.to_owned().into()))
    }

    fn show(&self) -> String {
        self.0.clone().into_owned()
    }
}

/// Names of publications, as they are typed.
impl Value for Names {
    const PLACEHOLDER: &'static str = "NAME";
    const EXAMPLES: &'static str = "orders,stock or '\"Orders\"'";
    const ARITY: Arity = Arity::Many;

    fn noun() -> String {
        "names with commas in between, each once, in double quotes where SQL wants them".to_owned()
    }

    fn read(text: &str) -> Option<Self> {
        Names::parse([text])
    }

    fn read_all(texts: &[String]) -> Option<Self> {
        Names::parse(texts.iter().map(String::as_str))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Connection strings are understood where the environment is known
/// ([`ConnInfo::parse`](crate::config::ConnInfo::parse)).
#[derive(Clone, PartialEq, Eq, PartialOrd)]
pub struct Uri(pub String);

impl Value for Uri {
    const PLACEHOLDER: &'static str = "URI";

    fn noun() -> String {
        "a connection string".to_owned()
    }

    fn read(text: &str) -> Option<Self> {
        Some(Uri(text.to_owned()))
    }

    fn show(&self) -> String {
        "…".to_owned()
    }
}

/// Patterns of names; read by [`TableFilter`](crate::config::TableFilter).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd)]
pub struct Patterns(pub Vec<String>);

impl Value for Patterns {
    const PLACEHOLDER: &'static str = "PATTERN";
    const ARITY: Arity = Arity::Many;

    fn noun() -> String {
        "patterns".to_owned()
    }

    fn read(text: &str) -> Option<Self> {
        Some(Patterns(vec![text.to_owned()]))
    }

    fn read_all(texts: &[String]) -> Option<Self> {
        Some(Patterns(texts.to_vec()))
    }

    fn show(&self) -> String {
        self.0.join(",")
    }
}

impl Value for PathBuf {
    const PLACEHOLDER: &'static str = "FOLDER";
    const HINT: clap::ValueHint = clap::ValueHint::AnyPath;

    fn noun() -> String {
        "a path".to_owned()
    }

    fn read(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| PathBuf::from(text))
    }

    fn show(&self) -> String {
        self.display().to_string()
    }
}

impl Value for ListenAddress {
    const PLACEHOLDER: &'static str = "ADDR:PORT";
    const EXAMPLES: &'static str = "127.0.0.1:9187";

    fn noun() -> String {
        "an address and port".to_owned()
    }

    fn read(text: &str) -> Option<Self> {
        ListenAddress::parse(text)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// What requests carry, or the word that nothing is asked of them.
#[derive(Clone, PartialEq, Eq, PartialOrd)]
pub struct ListenToken(String);

impl ListenToken {
    /// The word. It is too short for a token.
    const EVERYBODY: &'static str = "none";

    /// Bytes that a token has: what is tried over the network is not found among
    /// those, and a request's head has room for it.
    const LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;

    /// Who is served.
    pub fn audience(self) -> Audience {
        if self.0 == Self::EVERYBODY { Audience::Everybody } else { Audience::Bearer(Secret::new(self.0)) }
    }
}

impl Value for ListenToken {
    const PLACEHOLDER: &'static str = "TOKEN";
    const EXAMPLES: &'static str = "what \"openssl rand -hex 16\" prints";

    fn noun() -> String {
        let (least, most) = (Self::LENGTHS.start(), Self::LENGTHS.end());
        format!("the word {}, or {least} to {most} ASCII letters, digits and signs without a space", Self::EVERYBODY)
    }

    fn read(text: &str) -> Option<Self> {
        let is_token = Self::LENGTHS.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        (is_token || text == Self::EVERYBODY).then(|| ListenToken(text.to_owned()))
    }

    fn show(&self) -> String {
        "…".to_owned()
    }
}

impl Value for Lsn {
    const PLACEHOLDER: &'static str = "LSN";
    const EXAMPLES: &'static str = "16/B374D848";

    fn noun() -> String {
        "an LSN".to_owned()
    }

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// What is logged, in the language of `tracing_subscriber`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd)]
pub struct Directives(pub Cow<'static, str>);

impl Value for Directives {
    const PLACEHOLDER: &'static str = "LEVEL";

    fn noun() -> String {
        "error, warn, info, debug, trace or tracing directives".to_owned()
    }

    fn read(text: &str) -> Option<Self> {
        EnvFilter::try_new(text).is_ok().then(|| Directives(text.to_owned().into()))
    }

    fn show(&self) -> String {
        self.0.clone().into_owned()
    }
}

/// On or off: off unless it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub enum Switch {
    /// Not asked for.
    Off,
    /// Asked for.
    On,
}

impl Value for Switch {
    const PLACEHOLDER: &'static str = "BOOL";
    const ALONE: Option<&'static str> = Some("true");

    fn noun() -> String {
        "true or false".to_owned()
    }

    fn read(text: &str) -> Option<Self> {
        match text {
            "true" | "yes" | "on" | "1" => Some(Switch::On),
            "false" | "no" | "off" | "0" => Some(Switch::Off),
            _ => None,
        }
    }

    fn show(&self) -> String {
        match self {
            Switch::Off => "false",
            Switch::On => "true",
        }
        .to_owned()
    }

    fn words() -> Vec<PossibleValue> {
        ["true", "false"].map(PossibleValue::new).into()
    }
}

/// A few words, each with its meaning, as clap's derive has them.
macro_rules! word {
    ($($type:ty: $placeholder:literal;)*) => {$(
        impl Value for $type {
            const PLACEHOLDER: &'static str = $placeholder;

            fn noun() -> String {
                one_of(&Self::words())
            }

            fn read(text: &str) -> Option<Self> {
                <$type as ValueEnum>::from_str(text, false).ok()
            }

            fn show(&self) -> String {
                self.to_possible_value().map(|word| word.get_name().to_owned()).unwrap_or_default()
            }

            fn words() -> Vec<PossibleValue> {
                Self::value_variants().iter().filter_map(ValueEnum::to_possible_value).collect()
            }
        }
    )*};
}
word! {
    SchemaMode: "MODE";
    LogFormat: "FORMAT";
}

/// `a, b or c`
fn one_of(words: &[PossibleValue]) -> String {
    let names: Vec<&str> = words.iter().map(PossibleValue::get_name).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_and_sizes_are_read_as_people_write_them() {
        for (given, seconds) in [("900", 900), ("15m", 900), ("1h 30m", 5400), ("1d", 86_400)] {
            assert_eq!(Duration::read(given).unwrap().as_secs(), seconds);
        }
        for (given, bytes) in [("16MiB", 16 << 20), ("2000000", 2_000_000), ("32 MB", 32_000_000), ("1GiB", 1 << 30)] {
            assert_eq!(ByteSize::read(given).unwrap().as_u64(), bytes, "{given}");
        }
    }

    #[test]
    fn words_are_named_as_a_sentence_has_them() {
        assert_eq!(SchemaMode::noun(), "create, existing or none");
        assert_eq!(LogFormat::noun(), "human or json");
    }

    proptest! {
        #[test]
        fn a_duration_as_it_is_shown_is_read_back(millis in 0u64..1_000_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(Duration::read(&duration.show()), Some(duration));
        }
    }
}
