//! A migration that is led on by what walferry prints, command after command.

use tokio_postgres::Client;

use crate::journey::PATIENCE;
use crate::support::pair::Pair;
use crate::support::process::{Finished, Walferry};

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

    /// A command and the code that it has to end with.
    #[track_caller]
    pub fn run(&self, command: &[&str], code: i32) -> Finished {
        let arguments = self.arguments.iter().map(String::as_str);
        let command: Vec<&str> = command.iter().copied().chain(arguments).collect();
        Walferry::run(&self.pair, &command, PATIENCE).code(code)
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

    /// `catchup` ends with 0, and it is so.
    pub async fn ends_equal(&self) {
        self.run(&["catchup"], 0);
        self.pair.assert_equal().await;
    }
}

impl Story {
    /// Does what is printed, until `catchup` ends with 0; then the end, and all is equal.
    pub async fn led_out(&self) {
        for _ in 0..12 {
            let arguments: Vec<&str> =
                std::iter::once("catchup").chain(self.arguments.iter().map(String::as_str)).collect();
            let said = Walferry::run(&self.pair, &arguments, PATIENCE);
            if said.status.success() {
                self.pair.assert_equal().await;
                self.run(&["catchup", "--finish"], 0);
                self.pair.assert_equal().await;
                return;
            }
            let (_, printed) = said.stderr.split_once("error:").unwrap_or_else(|| panic!("{}", said.stderr));
            for sql in statements(printed) {
                self.target.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}\n{printed}"));
            }
            for command in ["add", "resync"] {
                for table in printed.split(&format!("walferry {command} '")).skip(1) {
                    self.run(&[command, table.split('\'').next().unwrap()], 0);
                }
            }
        }
        panic!("no way out");
    }
}

/// The SQL in a message.
fn statements(printed: &str) -> Vec<String> {
    let verbs = ["ALTER TABLE \"", "ALTER SEQUENCE \"", "DROP TABLE \"", "TRUNCATE \"", "CREATE SEQUENCE "];
    let in_piece = |piece: &str| {
        let from = verbs.iter().filter_map(|verb| piece.find(verb)).min()?;
        Some(piece[from..].to_owned())
    };
    printed.split_inclusive(';').filter(|piece| piece.ends_with(';')).filter_map(in_piece).collect()
}
