//! A migration that is led on by what walferry prints, command after command.

use tokio_postgres::Client;

use crate::journey::PATIENCE;
use crate::support::pair::Pair;
use crate::support::process::{Finished, Walferry, command_for};

/// More than any way out is long, of ten tables.
const ROUNDS: usize = 40;

/// A migration whose rows were copied, between two runs.
pub struct Story {
    pub pair: Pair,
    /// A session of the source's owner.
    pub source: Client,
    /// A session of the target's role.
    pub target: Client,
    /// What every command is given.
    pub arguments: Vec<String>,
}

impl Story {
    /// Makes the source, copies it, and catches up.
    pub async fn of(setup: &str, arguments: &[&str]) -> Self {
        Story::on(Pair::builder().start().await, setup, arguments).await
    }

    /// The same between these two.
    pub async fn on(pair: Pair, setup: &str, arguments: &[&str]) -> Self {
        let (source, target) = (pair.source_client().await, pair.target_client().await);
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let story = Story { pair, source, target, arguments };
        story.source(setup).await;
        story.run(&["run", "--until", "caught-up"], 0);
        story
    }

    /// A migration whose first copy was killed before it had a table.
    pub async fn cut_off(setup: &str) -> Self {
        let pair = Pair::builder().start().await;
        let (source, target) = (pair.source_client().await, pair.target_client().await);
        let story = Story { pair, source, target, arguments: Vec::new() };
        story.source(setup).await;
        let mut command = command_for(&story.pair, &["run", "--jobs", "1"]);
        command.env("WALFERRY_FAILPOINT", "copy-before-commit:1");
        Walferry::spawn(command).wait(PATIENCE);
        story
    }

    /// A command and the code that it has to end with.
    #[track_caller]
    pub fn run(&self, command: &[&str], code: i32) -> Finished {
        self.with(command).code(code)
    }

    /// Runs this on the source.
    pub async fn source(&self, sql: &str) {
        self.source.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    }

    /// Runs on the target what was printed there; it begins so.
    pub async fn do_as_printed(&self, said: &Finished, begin: &str) {
        let at = said.stderr.find(begin).unwrap_or_else(|| panic!("no {begin} in:\n{}", said.stderr));
        let verbs = ["ALTER ", "DROP ", "TRUNCATE ", "CREATE "];
        let line = said.stderr[at..].lines().next().unwrap();
        for sql in line.split(';').map(str::trim).take_while(|sql| verbs.iter().any(|verb| sql.starts_with(verb))) {
            self.target.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
        }
    }

    /// As [`Self::leads_on`], and then ends the migration.
    pub async fn leads_to_the_end(&self) {
        self.leads_on().await;
        self.run(&["catchup", "--finish"], 0);
        self.pair.assert_equal().await;
    }

    /// Catches up and does to the letter what is printed, until there is nothing to do.
    /// Both sides are equal then.
    pub async fn leads_on(&self) {
        self.leads_through(&["catchup"]).await;
    }

    /// The same with this command.
    pub async fn leads_through(&self, command: &[&str]) {
        for _ in 0..ROUNDS {
            let said = self.with(command);
            if said.status.success() {
                return self.pair.assert_equal().await;
            }
            self.do_what_is_printed(&said).await;
            for command in ["add", "resync"] {
                for table in tables_of(&said.stderr, &format!("walferry {command} '")) {
                    let said = self.with(&[command, &table]);
                    if !said.status.success() {
                        self.do_what_is_printed(&said).await;
                    }
                }
            }
        }
        let said = self.with(command);
        panic!("what is printed leads nowhere:\n{}", said.stderr);
    }

    /// Runs on the target all SQL that an error has for tables there.
    pub async fn do_what_is_printed(&self, said: &Finished) {
        let error = said.stderr.find("error: ").map_or("", |at| &said.stderr[at..]);
        let verbs = [
            "ALTER TABLE \"",
            "ALTER TYPE ",
            "ALTER TABLE ONLY \"",
            "ALTER SEQUENCE \"",
            "ALTER SEQUENCE IF EXISTS ",
            "CREATE DOMAIN ",
            "CREATE FUNCTION ",
            "CREATE SCHEMA ",
            "CREATE SEQUENCE ",
            "CREATE TABLE \"",
            "CREATE TYPE ",
            "DROP SEQUENCE ",
            "DROP SCHEMA ",
            "DROP TABLE \"",
            "TRUNCATE \"",
        ];
        let begins = verbs.into_iter().flat_map(|verb| error.match_indices(verb));
        let mut begins: Vec<usize> = begins.map(|(at, _)| at).collect();
        begins.sort_unstable();
        for sql in begins.into_iter().filter_map(|at| error[at..].split(';').next()) {
            self.target.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
        }
    }

    fn with(&self, command: &[&str]) -> Finished {
        let arguments = self.arguments.iter().map(String::as_str);
        let command: Vec<&str> = command.iter().copied().chain(arguments).collect();
        Walferry::run(&self.pair, &command, PATIENCE)
    }

    /// `catchup` ends with 0, and it is so.
    pub async fn ends_equal(&self) {
        self.run(&["catchup"], 0);
        self.pair.assert_equal().await;
    }
}

/// The names that these words stand before.
fn tables_of(text: &str, words: &str) -> Vec<String> {
    let rests = text.match_indices(words).map(|(at, _)| &text[at + words.len()..]);
    rests.filter_map(|rest| rest.split_once('\'')).map(|(table, _)| table.to_owned()).collect()
}
