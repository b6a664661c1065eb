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

/// A pair with a daemon between its two ends.
pub struct Journey {
    pub pair: Pair,
    /// A session of the source's owner.
    pub source: Client,
    /// A session of the target's role.
    pub target: Client,
    arguments: Vec<String>,
    daemon: Option<Walferry>,
}

<<<<<<<< HEAD:tests/it/whole_way.rs
/// What is left to do once both sides are equal.
async fn finish_and_clean_up(pair: &Pair) {
    let refused = Walferry::run(pair, &["cleanup"], PATIENCE).code(2);
    assert!(refused.stderr.contains("held back") && refused.stderr.contains("FOREIGN KEY"), "{}", refused.stderr);
    let report = Walferry::run(pair, &["catchup", "--finish", "--json"], PATIENCE).code(0).json();
    assert!(report["restored"].as_u64().unwrap() >= 3, "a foreign key, a trigger, a materialized view: {report}");
    assert_eq!(deferred_on_target(pair).await, (1, 1));
    let target = pair.target_client().await;
    let row = target.query_one("SELECT (SELECT events FROM public.overview) = count(*) FROM public.event", &[]).await;
    assert!(row.unwrap().get::<_, bool>(0), "the materialized view is filled");
    pair.assert_equal().await;
    Walferry::run(pair, &["cleanup", "--json"], PATIENCE).code(0).json();
    assert_eq!(traces(pair).await, [""; 0]);
    pair.assert_equal().await;
}

/// Validated foreign keys and enabled triggers of the application on the target.
async fn deferred_on_target(pair: &Pair) -> (i64, i64) {
    let sql = "SELECT (SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND convalidated AND connamespace = 'public'::regnamespace), \
         (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'O')";
    let row = pair.target_client().await.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

fn status(pair: &Pair) -> Value {
    Walferry::run(pair, &["status", "--json"], PATIENCE).code(0).json()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// The document of `status --json` while the daemon works.
async fn status_follows(pair: &Pair, daemon: &Walferry, load: &Load) {
    let first = status(pair);
    load.more(50).await;
    until_applied(pair).await;
    let document = status(pair);
    let lsn = |document: &Value, key: &str| document[key].as_str().unwrap().parse::<Lsn>().unwrap();
    assert!(lsn(&document, "position") > lsn(&first, "position"));
    assert!(lsn(&document, "source_lsn") >= lsn(&document, "position"));
    assert_eq!(
        keys(&document),
        [
            "daemon",
            "lag_bytes",
            "lag_seconds",
            "large_objects",
            "name",
            "phase",
            "position",
            "sequences",
            "slot",
            "source_lsn",
            "stopped_because",
            "tables"
        ]
    );
    assert_eq!((&document["name"], &document["phase"]), (&NAME.into(), &"stream".into()));
    assert_eq!(document["daemon"]["alive"], true);
    assert_eq!(document["daemon"]["pid"], daemon.pid());
    assert!(document["daemon"]["host"].is_string());
    assert!(document["lag_bytes"].is_u64() && document["lag_seconds"].is_f64(), "{document}");
    assert_eq!((&document["slot"]["name"], &document["slot"]["active"]), (&NAME.into(), &true.into()));
    assert!(document["slot"]["retained_bytes"].as_i64().unwrap() >= 0);
    assert_eq!(document["slot"]["wal_status"], "reserved");
    assert!(document["slot"].as_object().unwrap().contains_key("safe_wal_bytes"));
    let tables = document["tables"].as_array().unwrap();
    assert_eq!(tables.len(), 7, "{document}");
    for table in tables {
        assert_eq!(keys(table), ["bytes", "name", "rows", "schema", "snapshot_lsn", "state"]);
        assert_eq!(table["state"], "ready");
========
impl Journey {
    /// Creates the fixtures on a plain pair's source and streams.
    pub async fn of(fixtures: &[&str]) -> Self {
        Journey::on(Pair::builder().start().await, fixtures, &[]).await
>>>>>>>> main:tests/it/journey.rs
    }

    /// Creates the fixtures on the pair's source and runs the daemon until it streams.
    pub async fn on(pair: Pair, fixtures: &[&str], arguments: &[&str]) -> Self {
        let (source, target) = (pair.source_client().await, pair.target_client().await);
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut journey = Journey { pair, source, target, arguments, daemon: None };
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

    /// What the daemon has logged so far.
    pub fn log(&self) -> String {
        self.daemon.as_ref().map(Walferry::stderr).unwrap_or_default()
    }

    /// Executes statements on the source. Those in one text are one transaction.
    pub async fn write(&self, statements: &[&str]) {
        execute(&self.source, statements).await;
    }

    /// Waits for the daemon to end by itself, asserting its exit code.
    pub fn stopped(&mut self, code: i32) -> Finished {
        self.daemon.take().unwrap().wait(PATIENCE).code(code)
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
            daemon.wait(PATIENCE).code(0);
        }
        finished
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
