//! What a check says: the finding, its weight, and what mends it.

use std::fmt;

use serde::Serialize;

use super::CheckError;
use crate::border::indented;
use crate::config::Side;
use crate::fault::{Exit, Verdict};
use crate::sql::TableName;
use crate::sql::printed::printed;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// A migration gets through, and this should be known.
    Warning,
    /// A migration would fail.
    Problem,
}

/// Where something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// On the source.
    Source,
    /// On the target.
    Target,
    /// On the machine walferry runs on, or between the two ends.
    Here,
}

impl From<Side> for Place {
    fn from(side: Side) -> Self {
        match side {
            Side::Source => Place::Source,
            Side::Target => Place::Target,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Source => "source",
            Place::Target => "target",
            Place::Here => "here",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Where.
    #[serde(rename = "where")]
    pub place: Place,
    /// A word that stays the same between versions, for programs.
    pub check: &'static str,
    /// How much it weighs.
    pub severity: Severity,
    /// What is so.
    pub message: String,
    /// What to do, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// What to do, in SQL, to be run at `place`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sql: Vec<String>,
}

impl Finding {
    /// Adds what to do, in words.
    pub fn remedy(&mut self, text: impl Into<String>) -> &mut Self {
        self.remedy = Some(text.into());
        self
    }

    /// Adds what to do, in SQL, which is printed without secrets.
    pub fn sql(&mut self, statement: impl AsRef<str>) -> &mut Self {
        self.sql.push(printed(statement.as_ref()));
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.severity {
            Severity::Ok => "✓",
            Severity::Warning => "!",
            Severity::Problem => "✗",
        };
        writeln!(f, "  {mark} {}", indented(&self.message, 6))?;
        if let Some(remedy) = &self.remedy {
            writeln!(f, "      {}", indented(remedy, 8))?;
        }
        for statement in &self.sql {
            writeln!(f, "        {}", indented(statement, 8))?;
        }
        Ok(())
    }
}

/// The findings so far. The latest is kept apart, so that it can be handed out
/// for its remedy to be added.
#[derive(Debug, Default)]
pub struct Findings {
    earlier: Vec<Finding>,
    latest: Option<Finding>,
    unreached: Option<Side>,
    ended: Option<Exit>,
    tables: Vec<TableName>,
}

impl Findings {
    /// Something is as it should be.
    pub fn ok(&mut self, place: impl Into<Place>, check: &'static str, message: impl Into<String>) {
        self.push(finding(place, check, Severity::Ok, message));
    }

    /// Something should be known; the remedy can be added to what comes back.
    pub fn warning(
        &mut self,
        place: impl Into<Place>,
        check: &'static str,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.push(finding(place, check, Severity::Warning, message))
    }

    /// Something would make a migration fail; the remedy can be added to what
    /// comes back.
    pub fn problem(
        &mut self,
        place: impl Into<Place>,
        check: &'static str,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.push(finding(place, check, Severity::Problem, message))
    }

    /// An end cannot be reached.
    pub fn out_of_reach(&mut self, side: Side, message: String) {
        self.problem(side, "connection", message);
        self.unreached.get_or_insert(side);
    }

    /// A migration that has begun cannot go on; `run` ends with this.
    pub fn ended(&mut self, message: String, verdict: &Verdict) {
        let finding = self.problem(Side::Source, "slot", message);
        if let Some(remedy) = verdict.remedy {
            finding.remedy(remedy);
        }
        self.ended.get_or_insert(verdict.exit);
    }

    /// What a migration that cannot go on ends with.
    pub fn end(&self) -> Option<Exit> {
        self.ended
    }

    /// These tables take part.
    pub fn take_part(&mut self, tables: Vec<TableName>) {
        self.tables = tables;
    }

    /// The first end that cannot be reached.
    pub fn unreached(&self) -> Option<Side> {
        self.unreached
    }

    /// A group of checks could not be finished.
    pub fn unfinished(&mut self, place: Place, error: &CheckError) {
        self.problem(place, "unfinished", format!("some checks could not be made: {error}"));
        let side = match place {
            Place::Source => Side::Source,
            Place::Target => Side::Target,
            // What concerns both ends.
            Place::Here => error.side(),
        };
        if error.is_loss() {
            self.unreached.get_or_insert(side);
        }
    }

    /// All findings in the order they were made, and the tables that take part.
    pub fn into_lists(mut self) -> (Vec<Finding>, Vec<TableName>) {
        self.earlier.extend(self.latest);
        (self.earlier, self.tables)
    }

    fn push(&mut self, finding: Finding) -> &mut Finding {
        self.earlier.extend(self.latest.take());
        self.latest.insert(finding)
    }
}

fn finding(place: impl Into<Place>, check: &'static str, severity: Severity, message: impl Into<String>) -> Finding {
    Finding { place: place.into(), check, severity, message: message.into(), remedy: None, sql: Vec::new() }
}
