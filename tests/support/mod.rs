//! What the integration tests stand on: pairs of throwaway clusters with the
//! restricted roles asserted, a proxy that fails on demand, a random workload,
//! the comparison, and a runner for the real binary.
//!
//! Invariant: nothing here outlives its value, and nothing waits without a
//! deadline.

// Each theme uses a part of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod pair;
pub mod process;
pub mod proxy;
pub mod workload;

use std::collections::hash_map::DefaultHasher;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::{Client, NoTls};
use walferry::demo::compare;
use walferry::demo::server::Server;

/// Pause between two looks at a condition that is waited for.
const POLL: Duration = Duration::from_millis(25);

/// `target/`, next to which `scripts/postgres.sh` leaves its findings.
pub fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}

/// Every server there is, oldest first.
pub fn servers() -> Vec<Server> {
    let versions = target_dir().join("postgres/versions");
    if std::env::var_os(walferry::demo::server::BIN_DIRS_VARIABLE).is_none()
        && let Ok(text) = std::fs::read_to_string(&versions)
    {
        let dirs = text.lines().filter_map(|line| line.split_once('=')).map(|(_, dir)| dir);
        return dirs.map(|dir| Server::at(dir).unwrap()).collect();
    }
    let mut servers = Server::find_all().expect("run scripts/postgres.sh, or `make test`");
    servers.sort_by_key(|server| server.major);
    servers
}

/// What a test runs on unless it is about versions: always the same by its name, so that
/// each server has its share of them.
pub fn server() -> Server {
    let mut servers = servers();
    let mut hasher = DefaultHasher::new();
    std::thread::current().name().hash(&mut hasher);
    let place = hasher.finish() % servers.len() as u64;
    servers.remove(usize::try_from(place).unwrap())
}

/// The oldest and the newest server, which must be of different majors.
pub fn oldest_and_newest() -> (Server, Server) {
    let mut servers = servers();
    assert!(servers.len() > 1, "a cross-version test needs two majors: run scripts/postgres.sh --newer");
    (servers.remove(0), servers.pop().unwrap())
}

/// A session over a URI, without TLS.
pub async fn connect(uri: &str) -> Client {
    try_connect(uri).await.unwrap_or_else(|error| panic!("cannot connect: {error:?}"))
}

/// A session over a URI, or why there is none.
pub async fn try_connect(uri: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(uri, NoTls).await?;
    // It ends with the client, or with the server.
    tokio::spawn(connection);
    Ok(client)
}

/// Waits until the condition holds; panics with `what` after `limit`.
pub async fn wait_until<F: Future<Output = bool>>(what: &str, limit: Duration, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + limit;
    while !condition().await {
        assert!(Instant::now() < deadline, "waited {limit:?} in vain until {what}");
        sleep(POLL).await;
    }
}

/// Panics, naming the first differing keys, unless both databases are equal.
pub async fn assert_equal(source_uri: &str, target_uri: &str) {
    let (source, target) = (connect(source_uri).await, connect(target_uri).await);
    let compared = compare::compare(&source, &target).await.unwrap();
    let differences = compare::differences(&compared);
    assert!(differences.is_empty(), "the two databases differ:\n{differences}");
}

/// Of what a storm does so often: all of it with `WALFERRY_TEST_ALL=1`, as `make storms` has
/// it, otherwise a fifth.
pub fn of_a_storm(count: usize) -> usize {
    if std::env::var_os("WALFERRY_TEST_ALL").is_some() { count } else { count.div_ceil(5) }
}

/// Some of these cases, each of which takes servers of its own: as many as [`of_a_storm`]
/// says, chosen at random and named.
pub fn some_of<C>(cases: impl IntoIterator<Item = C>) -> impl Iterator<Item = C> {
    let cases: Vec<C> = cases.into_iter().collect();
    let count = cases.len();
    let mut chosen = rand::seq::index::sample(&mut rand::rng(), count, of_a_storm(count)).into_vec();
    chosen.sort_unstable();
    eprintln!("cases {chosen:?} of {count} (WALFERRY_TEST_ALL=1: all)");
    cases.into_iter().enumerate().filter(move |(place, _)| chosen.contains(place)).map(|(_, case)| case)
}
