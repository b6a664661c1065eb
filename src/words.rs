//! Words: lists in messages (some names, and how many more), and what a value is
//! called where it is kept.

/// How many objects a message names; the rest is counted.
pub(crate) const NAMED_OBJECTS: usize = 20;

/// The first items, joined, and how many more there are.
pub(crate) fn listed(items: &[impl ToString]) -> String {
    listed_of(items, items.len() as u64)
}

/// The first items, joined, and how many more of `count` there are.
pub(crate) fn listed_of(items: &[impl ToString], count: u64) -> String {
    let mut text = items.iter().take(NAMED_OBJECTS).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let more = count.saturating_sub(items.len().min(NAMED_OBJECTS) as u64);
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

/// A number of things, in the right number: "1 table", "2 tables".
pub(crate) fn count(number: impl TryInto<u64>, thing: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// All of a number of things: "the table", "all 2 tables".
pub(crate) fn all(number: impl TryInto<u64>, thing: &str) -> String {
    match number.try_into().unwrap_or(u64::MAX) {
        1 => format!("the {thing}"),
        number => format!("all {number} {thing}s"),
    }
}

/// Gives an enum the words that it has in the state, the status document and the
/// metrics: they are written once, and taken from there by serde and Display as well.
macro_rules! worded {
    ($kind:ident, $what:literal, [$($value:ident => $word:literal),* $(,)?]) => {
        const WORDS: $crate::words::Words<$kind, { [$($word),*].len() }> = [$(($kind::$value, $word)),*];

        impl $kind {
            /// The word for it.
            pub fn as_str(self) -> &'static str {
                $crate::words::word(&WORDS, &self)
            }

            /// What a word of the state stands for.
            pub(super) fn parse(word: &str) -> Result<Self, StateError> {
                let unknown = || StateError::Foreign(format!("unknown {} \"{word}\"", $what));
                $crate::words::value(&WORDS, word).ok_or_else(unknown)
            }

            /// All of them.
            pub fn all() -> impl Iterator<Item = $kind> {
                WORDS.into_iter().map(|(value, _)| value)
            }
        }

        impl From<$kind> for &'static str {
            fn from(value: $kind) -> Self {
                value.as_str()
            }
        }

        impl TryFrom<String> for $kind {
            type Error = StateError;

            fn try_from(word: String) -> Result<Self, Self::Error> {
                $kind::parse(&word)
            }
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

pub(crate) use worded;

/// The values of an enum, each with its word: the one place where these are.
pub(crate) type Words<T, const N: usize> = [(T, &'static str); N];

/// A value's word.
pub(crate) fn word<T: PartialEq>(words: &[(T, &'static str)], value: &T) -> &'static str {
    words.iter().find(|(known, _)| known == value).map_or("", |(_, word)| word)
}

/// What a word stands for.
pub(crate) fn value<T: Copy>(words: &[(T, &'static str)], word: &str) -> Option<T> {
    words.iter().find(|(_, known)| *known == word).map(|(value, _)| *value)
}
