//! The publications of a migration: one of walferry's own, or those that the
//! operator names.
//!
//! Invariant: there is at least one, and no two are alike. Names are as the catalog
//! has them; how they are typed is read here alone, as SQL has names: outside double
//! quotes letters fold to lower case, commas part them.
//!
//! Source: `SplitIdentifierString` in `src/backend/utils/adt/varlena.c`.

use std::fmt;

use crate::sql::plain_shown;

/// Names of publications: at least one, no two alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd)]
pub struct Names(Vec<String>);

impl Names {
    /// These names, if there are any and no two are alike.
    pub fn new(names: Vec<String>) -> Option<Self> {
        let is_twice = |(place, name): (usize, &String)| names.iter().take(place).any(|before| before == name);
        let is_odd = names.is_empty() || names.iter().any(String::is_empty) || names.iter().enumerate().any(is_twice);
        (!is_odd).then_some(Names(names))
    }

    /// The name of a migration, which its publication has as well.
    pub fn of(name: &str) -> Self {
        Names(vec![name.to_owned()])
    }

    /// Those of texts as they are typed.
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Option<Self> {
        let lists: Option<Vec<Vec<String>>> = texts.into_iter().map(split).collect();
        Names::new(lists?.concat())
    }
}

/// The names of a text; `None` where a double quote does not end.
fn split(text: &str) -> Option<Vec<String>> {
    let (mut names, mut name, mut spaces) = (Vec::new(), String::new(), String::new());
    let mut is_quoted = false;
    let mut letters = text.trim().chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if is_quoted && letters.next_if_eq(&'"').is_some() => name.push('"'),
            '"' => is_quoted = !is_quoted,
            letter if is_quoted => name.push(letter),
            ',' => {
                names.push(std::mem::take(&mut name));
                spaces.clear();
            }
            // Between words they are the name's, around it nobody's.
            space if space.is_whitespace() => spaces.push(space),
            letter => {
                if !name.is_empty() {
                    name.push_str(&spaces);
                }
                spaces.clear();
                name.push(letter.to_ascii_lowercase());
            }
        }
    }
    names.push(name);
    (!is_quoted).then_some(names)
}

/// As they are typed.
impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&listed(&self.0))
    }
}

/// The publications of a migration, and whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publications {
    /// walferry creates it, under this name, and `cleanup` drops it.
    Ours(String),
    /// The operator named these, which exist; none is ever dropped.
    Existing(Names),
}

impl Publications {
    /// Their names, in the order they were given.
    pub fn names(&self) -> &[String] {
        match self {
            Publications::Ours(name) => std::slice::from_ref(name),
            Publications::Existing(Names(names)) => names,
        }
    }

    /// Whether these are the same, whoever made them and in whatever order: that
    /// changes nothing about what is published.
    pub fn are(&self, others: &Publications) -> bool {
        let has_all = |these: &[String], those: &[String]| those.iter().all(|name| these.contains(name));
        has_all(self.names(), others.names()) && has_all(others.names(), self.names())
    }

    /// As a part of a sentence: "publication a", "publications a, b".
    pub fn noun(&self) -> String {
        noun(self.names())
    }

    /// Them and what they do: "publication a publishes", "publications a, b publish".
    pub fn who(&self, singular: &str, plural: &str) -> String {
        who(self.names(), singular, plural)
    }
}

/// As they are typed.
impl fmt::Display for Publications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&listed(self.names()))
    }
}

/// Some publications and what they do.
pub fn who(names: &[String], singular: &str, plural: &str) -> String {
    let verb = if names.len() == 1 { singular } else { plural };
    format!("{} {verb}", noun(names))
}

fn noun(names: &[String]) -> String {
    let noun = if names.len() == 1 { "publication" } else { "publications" };
    format!("{noun} {}", listed(names))
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| plain_shown(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(texts: &[&str]) -> Option<Vec<String>> {
        Names::parse(texts.iter().copied()).map(|names| names.0)
    }

    #[test]
    fn names_are_read_as_sql_has_them() {
        let read = |text: &str, wanted: &[&str]| assert_eq!(names(&[text]).unwrap(), wanted, "{text}");
        read("mine", &["mine"]);
        read(" Mine , \"Theirs\",\"it's \"\"b\"\", x\"", &["mine", "Theirs", "it's \"b\", x"]);
        read("a.b-c", &["a.b-c"]);
        assert_eq!(names(&["a,b", "c"]).unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn a_name_that_is_missing_or_given_twice_and_an_open_quote_are_refused() {
        for text in ["", "a,", ",a", "a,,b", "\"a", "a,a", "A,\"a\"", "\"\""] {
            assert_eq!(names(&[text]), None, "{text}");
        }
        assert_eq!(names(&["a", "b,a"]), None);
        assert_eq!(names(&[]), None);
    }

    #[test]
    fn the_order_makes_no_other_publications() {
        let of = |text: &str| Publications::Existing(Names::parse([text]).unwrap());
        assert!(of("a,b").are(&of("b,a")) && of("a").are(&Publications::Ours("a".to_owned())));
        assert!(!of("a,b").are(&of("a")) && !of("a").are(&of("a,b")));
        assert_eq!(of("b,\"A\"").who("has", "have"), "publications b, \"A\" have");
        assert_eq!((of("a").who("has", "have"), of("a").noun()), ("publication a has".into(), "publication a".into()));
    }

    proptest! {
        #[test]
        fn names_as_they_are_shown_are_read_back(given in proptest::collection::hash_set("[^\0]{1,9}", 1..4)) {
            let given: Vec<String> = given.into_iter().collect();
            let shown = Names::new(given.clone()).unwrap().to_string();
            prop_assert_eq!(names(&[&shown]), Some(given));
        }
    }
}
