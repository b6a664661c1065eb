//! A migration under way, as most tests need it: fixtures on the source, the
//! daemon streaming, changes, and the end at which both sides must be equal.
//!
//! Invariant: [`Journey::finish`] passes only when the daemon handed over, the
//! catch-up ended with 0, and every table and sequence is equal.

use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::pair::Pair;
use crate::support::process::{Finished, Walferry};
use crate::support::wait_until;

/// Enough for anything that takes a moment on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How many foreign keys there are in the schema public.
pub const KEYS_OF_PUBLIC: &str =
    "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace";

/// A pair with a daemon between its two ends.
pub struct Journey {
    pub pair: Pair,
    /// A session of the source's owner.
    pub source: Client,
    /// A session of the target's role.
    pub target: Client,
    arguments: Vec<String>,
    daemon: Option<Walferry>,
    /// What the daemons and catch-ups before have logged.
    past: String,
}

impl Journey {
    /// Creates the fixtures on a plain pair's source and streams.
    pub async fn of(fixtures: &[&str]) -> Self {
        Journey::on(Pair::builder().start().await, fixtures, &[]).await
    }

    /// The same with a publication for all tables, those to come included.
    pub async fn of_all_tables(fixtures: &[&str]) -> Self {
        Journey::on(Pair::builder().start().await, fixtures, &["--all-tables"]).await
    }

    /// Creates the fixtures on the pair's source and runs the daemon until it streams.
    pub async fn on(pair: Pair, fixtures: &[&str], arguments: &[&str]) -> Self {
        let (source, target) = (pair.source_client().await, pair.target_client().await);
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut journey = Journey { pair, source, target, arguments, daemon: None, past: String::new() };
        journey.write(fixtures).await;
        journey.start();
        journey.streams().await;
        journey
    }

    /// Takes other arguments at the next start.
    pub fn arguments(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    }

    /// Starts the daemon.
    pub fn start(&mut self) {
        assert!(self.daemon.is_none());
        let arguments = self.command("run");
        self.daemon = Some(Walferry::on(&self.pair, &strs(&arguments)));
    }

    /// Waits until the daemon streams.
    pub async fn streams(&mut self) {
        let (target, daemon) = (&self.target, &mut self.daemon);
        wait_until("the daemon streams", PATIENCE, || {
            let ended = daemon.as_mut().and_then(Walferry::ended);
            assert!(ended.is_none(), "the daemon ended: {ended:?}");
            async move {
                let found = target.query("SELECT FROM walferry.migration WHERE phase = 'stream'", &[]).await;
                found.is_ok_and(|rows| !rows.is_empty())
            }
        })
        .await;
    }

    /// What the daemon has logged so far, and those and the catch-ups before it.
    pub fn log(&self) -> String {
        self.past.clone() + &self.daemon.as_ref().map(Walferry::stderr).unwrap_or_default()
    }

    /// Executes statements on the source. Those in one text are one transaction.
    pub async fn write(&self, statements: &[&str]) {
        execute(&self.source, statements).await;
    }

    /// Waits for the daemon to end by itself, asserting its exit code.
    pub fn stopped(&mut self, code: i32) -> Finished {
        self.daemon.take().unwrap().wait(PATIENCE).code(code)
    }

    /// Waits for the daemon to end by itself; its exit code.
    pub fn ended(&mut self) -> i32 {
        self.daemon.take().unwrap().wait(PATIENCE).status.code().unwrap()
    }

    /// Catches up, taking over from the daemon if there is one.
    pub async fn catch_up(&mut self) -> Finished {
        if self.daemon.is_some() {
            // Else the catch-up could come first, and the daemon after it.
            self.streams().await;
        }
        let arguments = self.command("catchup");
        let finished = Walferry::run(&self.pair, &strs(&arguments), PATIENCE).code(0);
        if let Some(daemon) = self.daemon.take() {
            self.past += &daemon.wait(PATIENCE).code(0).stderr;
        }
        self.past += &finished.stderr;
        finished
    }

    /// Catches up with the daemon's arguments, however it ends.
    pub fn catch_up_again(&mut self) -> Finished {
        let arguments = self.command("catchup");
        Walferry::run(&self.pair, &strs(&arguments), PATIENCE)
    }

    /// Catches up with other arguments than the daemon's, however it ends.
    pub fn catch_up_with(&mut self, arguments: &[&str]) -> Finished {
        let arguments: Vec<&str> = ["catchup"].iter().chain(arguments).copied().collect();
        Walferry::run(&self.pair, &arguments, PATIENCE)
    }

    /// Catches up and asserts that both sides are equal.
    pub async fn finish(&mut self) {
        self.catch_up().await;
        self.pair.assert_equal().await;
    }

    /// The position on the target.
    pub async fn position(&self) -> String {
        value(&self.target, "SELECT end_lsn FROM walferry.position").await
    }

    /// A value of the target.
    pub async fn value(&self, sql: &str) -> String {
        value(&self.target, sql).await
    }

    fn command(&self, command: &str) -> Vec<String> {
        [command.to_owned()].into_iter().chain(self.arguments.iter().cloned()).collect()
    }
}

fn strs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Executes statements one by one.
pub async fn execute(client: &Client, statements: &[&str]) {
    for sql in statements {
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    }
}

/// The first value of a query's first row, as text.
pub async fn value(client: &Client, sql: &str) -> String {
    let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    let first = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("NULL").to_owned()),
        _ => None,
    });
    first.unwrap_or_else(|| panic!("no row of {sql}"))
}
