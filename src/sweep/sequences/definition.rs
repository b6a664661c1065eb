//! The definition of a sequence, and the SQL that makes another one like it.
//!
//! Source: `pg_sequence.h`; `init_params` in `src/backend/commands/sequence.c`:
//! ALTER SEQUENCE refuses new bounds that the current value is not within,
//! unless it is restarted.

/// Everything `pg_sequence` says about a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    /// `smallint`, `integer` or `bigint`.
    pub kind: String,
    pub start: i64,
    pub increment: i64,
    pub min: i64,
    pub max: i64,
    pub cache: i64,
    pub cycles: bool,
}

impl Definition {
    /// The bound that it begins anew from.
    pub fn first(&self) -> i64 {
        if self.increment < 0 { self.max } else { self.min }
    }

    /// The bound that it counts towards.
    pub fn last(&self) -> i64 {
        if self.increment < 0 { self.min } else { self.max }
    }

    /// Whether a value is within the bounds.
    pub fn admits(&self, value: i64) -> bool {
        (self.min..=self.max).contains(&value)
    }

    /// Type, and the options as CREATE and ALTER SEQUENCE take them.
    fn clauses(&self) -> [String; 7] {
        [
            format!("AS {}", self.kind),
            format!("INCREMENT BY {}", self.increment),
            format!("MINVALUE {}", self.min),
            format!("MAXVALUE {}", self.max),
            format!("START WITH {}", self.start),
            format!("CACHE {}", self.cache),
            if self.cycles { "CYCLE".to_owned() } else { "NO CYCLE".to_owned() },
        ]
    }

    /// All of it, for CREATE and ALTER SEQUENCE.
    pub fn sql(&self) -> String {
        self.clauses().join(" ")
    }

    /// All but the type, which an identity column gives.
    pub fn options_sql(&self) -> String {
        self.clauses()[1..].join(" ")
    }

    /// What this one has that the other has otherwise: "MAXVALUE 100, CYCLE".
    pub fn differences(&self, other: &Definition) -> String {
        let pairs = self.clauses().into_iter().zip(other.clauses());
        pairs.filter(|(ours, theirs)| ours != theirs).map(|(ours, _)| ours).collect::<Vec<_>>().join(", ")
    }
}
