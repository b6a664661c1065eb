//! What pg_dump says that an entry is.
//!
//! Source: the `.description` of the archive entries in `src/bin/pg_dump/pg_dump.c`.

use std::fmt;

/// Makes the enum from pg_dump's words, each of which is written here and nowhere else.
macro_rules! kinds {
    ($($kind:ident = $word:literal),* $(,)?) => {
        /// The kind of an entry.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) enum Kind {
            $(#[doc = $word] $kind,)*
            /// One that nothing is decided by.
            Other(String),
        }

        impl Kind {
            /// pg_dump's word.
            pub(crate) fn as_str(&self) -> &str {
                match self {
                    $(Kind::$kind => $word,)*
                    Kind::Other(word) => word,
                }
            }
        }

        impl From<&str> for Kind {
            fn from(word: &str) -> Self {
                match word {
                    $($word => Kind::$kind,)*
                    other => Kind::Other(other.to_owned()),
                }
            }
        }
    };
}

kinds! {
    AccessMethod = "ACCESS METHOD",
    Acl = "ACL",
    Aggregate = "AGGREGATE",
    Cast = "CAST",
    CheckConstraint = "CHECK CONSTRAINT",
    Collation = "COLLATION",
    Comment = "COMMENT",
    Constraint = "CONSTRAINT",
    Conversion = "CONVERSION",
    DefaultAcl = "DEFAULT ACL",
    EventTrigger = "EVENT TRIGGER",
    Extension = "EXTENSION",
    FkConstraint = "FK CONSTRAINT",
    ForeignDataWrapper = "FOREIGN DATA WRAPPER",
    ForeignTable = "FOREIGN TABLE",
    Function = "FUNCTION",
    Index = "INDEX",
    IndexAttach = "INDEX ATTACH",
    MaterializedView = "MATERIALIZED VIEW",
    OperatorClass = "OPERATOR CLASS",
    OperatorFamily = "OPERATOR FAMILY",
    Policy = "POLICY",
    ProceduralLanguage = "PROCEDURAL LANGUAGE",
    Procedure = "PROCEDURE",
    RowSecurity = "ROW SECURITY",
    Rule = "RULE",
    Schema = "SCHEMA",
    SecurityLabel = "SECURITY LABEL",
    Sequence = "SEQUENCE",
    Server = "SERVER",
    ShellType = "SHELL TYPE",
    Statistics = "STATISTICS",
    Table = "TABLE",
    TableAttach = "TABLE ATTACH",
    TextSearchConfiguration = "TEXT SEARCH CONFIGURATION",
    TextSearchDictionary = "TEXT SEARCH DICTIONARY",
    TextSearchParser = "TEXT SEARCH PARSER",
    TextSearchTemplate = "TEXT SEARCH TEMPLATE",
    Transform = "TRANSFORM",
    Trigger = "TRIGGER",
    Type = "TYPE",
    UserMapping = "USER MAPPING",
    View = "VIEW",
}

impl Kind {
    /// For people: "table".
    pub(crate) fn shown(&self) -> String {
        self.as_str().to_lowercase()
    }

    /// Whether entries of this kind are post-data wherever pg_dump writes them by themselves
    /// (`SECTION_POST_DATA` in `pg_dump.c`); owners and privileges aside.
    pub(super) fn is_post_data(&self) -> bool {
        use Kind::{CheckConstraint, Constraint, FkConstraint, Index, IndexAttach};
        use Kind::{EventTrigger, Policy, RowSecurity, Rule, Statistics, Trigger};
        matches!(self, Index | IndexAttach | Constraint | FkConstraint | CheckConstraint)
            || matches!(self, EventTrigger | Policy | RowSecurity | Rule | Statistics | Trigger)
    }

    /// Whether it would change or refuse rows that come.
    pub(super) fn acts_on_rows(&self) -> bool {
        use Kind::{EventTrigger, FkConstraint, Policy, RowSecurity, Rule, Trigger};
        matches!(self, EventTrigger | FkConstraint | Policy | RowSecurity | Rule | Trigger)
    }

    /// Whether it is a publication or a subscription, or belongs to one.
    pub(super) fn is_of_publishing(&self) -> bool {
        self.as_str().starts_with("PUBLICATION") || self.as_str().starts_with("SUBSCRIPTION")
    }
}

impl Default for Kind {
    fn default() -> Self {
        Kind::Other(String::new())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_keeps_its_word_also_where_nothing_is_decided_by_it() {
        for word in ["FK CONSTRAINT", "DOMAIN", "PUBLICATION TABLE"] {
            assert_eq!(Kind::from(word).as_str(), word);
        }
        assert_eq!(Kind::from("DOMAIN"), Kind::Other("DOMAIN".to_owned()));
        assert!(Kind::from("PUBLICATION TABLES IN SCHEMA").is_of_publishing());
    }
}
