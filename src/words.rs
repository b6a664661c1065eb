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
