//! Which tables take part: the operator's patterns.
//!
//! Patterns are those of psql's `\d` and pg_dump's `--table`: `*` for any
//! letters, `?` for one, `schema.table`, and double quotes around a part whose
//! letters stand for themselves; outside quotes letters fold to lower case. A
//! table pattern without a schema fits tables of every schema. Source:
//! `processSQLNamePattern` in `src/fe_utils/string_utils.c` (its regular
//! expressions are not offered).
//!
//! Invariant: a table is left out only because a pattern says so.

use std::fmt;

use super::error::ConfigError;
use super::given::Origin;
use super::settings::moved::{EXCLUDE_SCHEMAS, EXCLUDE_TABLES, SCHEMAS, TABLES};
use crate::sql::TableName;

/// The patterns as typed: several a flag, and several a string, by commas.
#[derive(Clone, Debug, Default)]
pub struct FilterPatterns {
    /// `--tables`
    pub tables: Vec<String>,
    /// `--exclude-tables`
    pub exclude_tables: Vec<String>,
    /// `--schemas`
    pub schemas: Vec<String>,
    /// `--exclude-schemas`
    pub exclude_schemas: Vec<String>,
}

/// What happens to tables when no pattern says what to include.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Unmentioned {
    #[default]
    Included,
    LeftOut,
}

/// The operator's choice of tables. The default has no patterns and includes
/// every table.
#[derive(Clone, Debug, Default)]
pub struct TableFilter {
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
    unmentioned: Unmentioned,
}

/// What the filter says of a name, and the pattern that decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It takes part.
    Included {
        /// The first pattern that says so; `None` where no pattern says what
        /// to include, and all is.
        by: Option<&'a Pattern>,
    },
    /// A pattern leaves out exactly this name.
    Excluded {
        /// The first one that does.
        by: &'a Pattern,
    },
    /// No pattern includes it.
    NotIncluded,
}

impl TableFilter {
    /// A filter of the given patterns. Tables that fit `tables` or `schemas`
    /// are included (all, when both are empty), less those that fit one of the
    /// others.
    ///
    /// # Errors
    /// [`ConfigError::Pattern`] for a pattern that is not well formed.
    pub fn parse(patterns: &FilterPatterns) -> Result<Self, ConfigError> {
        let mut include = parse_all(TABLES.about.name, &patterns.tables, Subject::Table)?;
        include.extend(parse_all(SCHEMAS.about.name, &patterns.schemas, Subject::Schema)?);
        let mut exclude = parse_all(EXCLUDE_TABLES.about.name, &patterns.exclude_tables, Subject::Table)?;
        exclude.extend(parse_all(EXCLUDE_SCHEMAS.about.name, &patterns.exclude_schemas, Subject::Schema)?);
        Ok(TableFilter { include, exclude, unmentioned: Unmentioned::Included })
    }

    /// A filter that includes exactly the tables that fit a pattern; without
    /// patterns, none. `flag` is named in errors.
    ///
    /// # Errors
    /// [`ConfigError::Pattern`] for a pattern that is not well formed.
    pub fn only(flag: &'static str, patterns: &[String]) -> Result<Self, ConfigError> {
        let include = parse_all(flag, patterns, Subject::Table)?;
        Ok(TableFilter { include, exclude: Vec::new(), unmentioned: Unmentioned::LeftOut })
    }

    /// What the patterns say of a table's name. Exclusion wins.
    pub fn verdict(&self, table: &TableName) -> Verdict<'_> {
        if let Some(by) = self.exclude.iter().find(|pattern| pattern.fits(table)) {
            return Verdict::Excluded { by };
        }
        if self.include.is_empty() && self.unmentioned == Unmentioned::Included {
            return Verdict::Included { by: None };
        }
        match self.include.iter().find(|pattern| pattern.fits(table)) {
            Some(by) => Verdict::Included { by: Some(by) },
            None => Verdict::NotIncluded,
        }
    }

    /// Whether the table takes part in the migration.
    pub fn includes(&self, table: &TableName) -> bool {
        matches!(self.verdict(table), Verdict::Included { .. })
    }

    /// Whether a pattern leaves out exactly this table, rather than none
    /// including it.
    pub fn excludes_explicitly(&self, table: &TableName) -> bool {
        matches!(self.verdict(table), Verdict::Excluded { .. })
    }

    /// The same patterns, each with the place that its setting was given in.
    #[must_use]
    pub fn placed(mut self, origin_of: impl Fn(&'static str) -> Origin) -> Self {
        for pattern in self.include.iter_mut().chain(&mut self.exclude) {
            pattern.from = origin_of(pattern.flag);
        }
        self
    }

    /// All patterns, those that include first, each as the operator typed it.
    pub fn patterns(&self) -> impl Iterator<Item = &Pattern> {
        self.include.iter().chain(&self.exclude)
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}

/// All patterns as typed, one behind the other: two filters of the same text are
/// the same.
impl fmt::Display for TableFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let patterns: Vec<String> = self.patterns().map(ToString::to_string).collect();
        f.write_str(&patterns.join(" "))
    }
}

/// What a pattern without a dot is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A table, of any schema.
    Table,
    /// A schema, with all of its tables.
    Schema,
}

/// One pattern of names. For people it is the place and the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    flag: &'static str,
    from: Origin,
    text: String,
    subject: Subject,
    /// `None` fits every schema.
    schema: Option<NamePattern>,
    /// `None` fits every table.
    table: Option<NamePattern>,
}

impl Pattern {
    /// The name of its setting: its flag, without the dashes.
    pub fn flag(&self) -> &'static str {
        self.flag
    }

    /// The pattern as typed, without its neighbours of a list.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is one of tables or of schemas.
    pub fn subject(&self) -> Subject {
        self.subject
    }

    /// Whether a table's name fits it.
    pub fn fits(&self, table: &TableName) -> bool {
        let fits = |pattern: &Option<NamePattern>, name: &str| pattern.as_ref().is_none_or(|p| p.fits(name));
        fits(&self.schema, &table.schema) && fits(&self.table, &table.name)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Origin::Flag(name) => write!(f, "--{name} {}", self.text),
            Origin::Variable(name) => write!(f, "{} of {name}", self.text),
            Origin::Key { .. } => write!(f, "{} of {}", self.text, self.from),
        }
    }
}

/// One letter of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Glyph {
    Letter(char),
    AnyOne,
    AnyRun,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct NamePattern(Vec<Glyph>);

impl NamePattern {
    /// Greedy matching that remembers the last `*` only: linear in practice,
    /// never exponential.
    fn fits(&self, name: &str) -> bool {
        let letters: Vec<char> = name.chars().collect();
        let (mut p, mut n) = (0, 0);
        let mut last_run: Option<(usize, usize)> = None;
        while n < letters.len() {
            match self.0.get(p) {
                Some(Glyph::AnyRun) => {
                    last_run = Some((p + 1, n));
                    p += 1;
                    continue;
                }
                Some(Glyph::AnyOne) => {
                    (p, n) = (p + 1, n + 1);
                    continue;
                }
                Some(Glyph::Letter(letter)) if letters.get(n) == Some(letter) => {
                    (p, n) = (p + 1, n + 1);
                    continue;
                }
                _ => {}
            }
            let Some((after, from)) = last_run else { return false };
            last_run = Some((after, from + 1));
            (p, n) = (after, from + 1);
        }
        self.0.iter().skip(p).all(|glyph| *glyph == Glyph::AnyRun)
    }
}

/// All patterns of a flag.
fn parse_all(flag: &'static str, texts: &[String], subject: Subject) -> Result<Vec<Pattern>, ConfigError> {
    let mut patterns = Vec::new();
    for text in texts {
        let wrong = |why| ConfigError::Pattern { from: Origin::Flag(flag), pattern: text.clone(), why };
        for (text, parts) in split(text).map_err(wrong)? {
            let (schema, table) = assemble(parts, subject).map_err(wrong)?;
            patterns.push(Pattern { flag, from: Origin::Flag(flag), text, subject, schema, table });
        }
    }
    Ok(patterns)
}

type SchemaAndTable = (Option<NamePattern>, Option<NamePattern>);

fn assemble(parts: Vec<NamePattern>, subject: Subject) -> Result<SchemaAndTable, &'static str> {
    if parts.iter().any(|part| part.0.is_empty()) {
        return Err("a name is empty");
    }
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next(), parts.next(), subject) {
        (Some(table), None, None, Subject::Table) => Ok((None, Some(table))),
        (Some(schema), Some(table), None, Subject::Table) => Ok((Some(schema), Some(table))),
        (Some(schema), None, None, Subject::Schema) => Ok((Some(schema), None)),
        (.., Subject::Table) => Err("expected table or schema.table (a dot inside a name goes in double quotes)"),
        (.., Subject::Schema) => Err("expected the name of a schema (a dot inside a name goes in double quotes)"),
    }
}

/// Splits a text into patterns at commas, and each into its parts at dots;
/// beside the parts, the pattern's own stretch of the text.
fn split(text: &str) -> Result<Vec<(String, Vec<NamePattern>)>, &'static str> {
    let empty = || (String::new(), vec![NamePattern::default()]);
    let mut patterns = vec![empty()];
    let mut in_quotes = false;
    let mut chars = text.trim().chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && !in_quotes {
            patterns.push(empty());
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            continue;
        }
        let Some((typed, parts)) = patterns.last_mut() else { break };
        typed.push(c);
        match c {
            '"' if in_quotes && chars.peek() == Some(&'"') => {
                typed.extend(chars.next());
                push(parts, [Glyph::Letter('"')]);
            }
            '"' => in_quotes = !in_quotes,
            c if in_quotes => push(parts, [Glyph::Letter(c)]),
            '.' => parts.push(NamePattern::default()),
            '*' => push(parts, [Glyph::AnyRun]),
            '?' => push(parts, [Glyph::AnyOne]),
            c => push(parts, c.to_lowercase().map(Glyph::Letter)),
        }
    }
    if in_quotes { Err("a double quote does not end") } else { Ok(patterns) }
}

fn push(parts: &mut [NamePattern], glyphs: impl IntoIterator<Item = Glyph>) {
    if let Some(part) = parts.last_mut() {
        part.0.extend(glyphs);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn t(schema: &str, name: &str) -> TableName {
        TableName::new(schema, name)
    }

    fn tables(patterns: &[&str]) -> TableFilter {
        TableFilter::parse(&FilterPatterns { tables: strings(patterns), ..Default::default() }).unwrap()
    }

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn without_patterns_every_table_takes_part_and_only_of_nothing_is_nothing() {
        let all = TableFilter::default();
        assert!(all.is_empty() && all.includes(&t("a", "b")) && !all.excludes_explicitly(&t("a", "b")));
        assert!(!TableFilter::only("adopt-tables", &[]).unwrap().includes(&t("a", "b")));
        assert!(TableFilter::only("adopt-tables", &strings(&["b"])).unwrap().includes(&t("a", "b")));
    }

    #[test]
    fn a_pattern_without_schema_fits_every_schema() {
        let filter = tables(&["orders"]);
        assert!(filter.includes(&t("public", "orders")) && filter.includes(&t("x", "orders")));
        assert!(!filter.includes(&t("public", "orders2")) && !filter.is_empty());
    }

    #[test]
    fn letters_fold_outside_quotes_and_stand_for_themselves_inside() {
        let filter = tables(&["Public.Orders", "\"Shop\".\"a.b,*\"\"\""]);
        assert!(filter.includes(&t("public", "orders")));
        assert!(filter.includes(&t("Shop", "a.b,*\"")));
        assert!(!filter.includes(&t("shop", "a.b,*\"")) && !filter.includes(&t("Shop", "a.b,x\"")));
    }

    #[test]
    fn stars_and_question_marks_fit_as_in_psql() {
        let filter = tables(&["app.*_20??, log*"]);
        assert!(filter.includes(&t("app", "orders_2024")) && filter.includes(&t("x", "log")));
        assert!(!filter.includes(&t("app", "orders_202")) && !filter.includes(&t("other", "orders_2024")));
    }

    #[test]
    fn exclusion_wins_over_inclusion_and_schemas_add_to_tables() {
        let filter = TableFilter::parse(&FilterPatterns {
            tables: strings(&["audit.log"]),
            schemas: strings(&["app"]),
            exclude_tables: strings(&["app.tmp_*"]),
            exclude_schemas: strings(&["old"]),
        })
        .unwrap();
        assert!(filter.includes(&t("app", "x")) && filter.includes(&t("audit", "log")));
        assert!(!filter.includes(&t("app", "tmp_1")) && !filter.includes(&t("audit", "x")));
        assert!(filter.excludes_explicitly(&t("old", "x")) && !filter.excludes_explicitly(&t("audit", "x")));
    }

    #[test]
    fn the_filter_says_which_pattern_decided_and_keeps_each_as_it_was_typed() {
        let filter = TableFilter::parse(&FilterPatterns {
            tables: strings(&["app.*, \"A,b\"", "Log"]),
            exclude_tables: strings(&["Audit"]),
            exclude_schemas: strings(&["old"]),
            ..Default::default()
        })
        .unwrap();
        let all: Vec<String> = filter.patterns().map(ToString::to_string).collect();
        assert_eq!(
            all,
            ["--tables app.*", "--tables \"A,b\"", "--tables Log", "--exclude-tables Audit", "--exclude-schemas old"]
        );
        let by = |verdict: Verdict<'_>| match verdict {
            Verdict::Included { by } => by.map(ToString::to_string),
            Verdict::Excluded { by } => Some(format!("not {by}")),
            Verdict::NotIncluded => None,
        };
        assert_eq!(by(filter.verdict(&t("x", "A,b"))).unwrap(), "--tables \"A,b\"");
        assert_eq!(by(filter.verdict(&t("app", "audit"))).unwrap(), "not --exclude-tables Audit");
        assert_eq!(by(filter.verdict(&t("old", "log"))).unwrap(), "not --exclude-schemas old");
        assert_eq!(filter.verdict(&t("x", "Audit")), Verdict::NotIncluded);
        assert_eq!(TableFilter::default().verdict(&t("x", "y")), Verdict::Included { by: None });
        // It folds, so it fits no table of that name: whoever knows the tables can say so.
        let audit = filter.patterns().find(|pattern| pattern.flag() == "exclude-tables").unwrap();
        assert!(!audit.fits(&t("public", "Audit")) && audit.fits(&t("public", "audit")));
    }

    #[test]
    fn a_pattern_that_is_not_well_formed_is_named() {
        for bad in ["a.b.c", "", "a.", "\"open", "a,,b"] {
            let patterns = FilterPatterns { exclude_tables: strings(&[bad]), ..Default::default() };
            let error = TableFilter::parse(&patterns).unwrap_err().to_string();
            assert!(error.contains("--exclude-tables") && error.contains(bad), "{error}");
        }
        let patterns = FilterPatterns { schemas: strings(&["a.b"]), ..Default::default() };
        assert!(TableFilter::parse(&patterns).is_err());
    }

    proptest! {
        #[test]
        fn a_quoted_name_fits_itself_and_a_star_fits_everything(schema in "[^\0]{1,12}", name in "[^\0]{1,12}", other in "[^\0]{1,12}") {
            let table = t(&schema, &name);
            let quoted = table.text();
            prop_assert!(tables(&[&quoted]).includes(&table));
            prop_assert_eq!(tables(&[&quoted]).includes(&t(&schema, &other)), other == name);
            prop_assert!(tables(&["*"]).includes(&table));
        }
    }
}
