//! A random workload: several writers over several tables, with everything a
//! replica can get wrong (key changes, TOAST that stays, savepoints rolled
//! back, whole transactions rolled back, duplicate rows without a key).
//!
//! Invariant: the seed is printed, and with it each writer's decisions are
//! repeatable; only their interleaving is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connect;

/// Each writer's keys start at its number times this, so writers add and
/// remove rows of their own, and change anybody's.
const KEYS_PER_WRITER: i64 = 1_000_000;

/// Most statements of one transaction.
const STATEMENTS: u32 = 8;

const SCHEMA: &str = "
    CREATE TABLE public.account (
        id bigint PRIMARY KEY, name text NOT NULL, balance numeric(14,2) NOT NULL DEFAULT 0,
        payload text, changed timestamptz NOT NULL DEFAULT clock_timestamp());
    ALTER TABLE public.account ALTER payload SET STORAGE EXTERNAL;
    CREATE TABLE public.item (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        account bigint NOT NULL REFERENCES public.account ON DELETE CASCADE ON UPDATE CASCADE,
        note text, doubled bigint GENERATED ALWAYS AS (account * 2) STORED);
    CREATE TABLE public.\"Tag \"\"odd\"\"\" (a int, b text, n serial, PRIMARY KEY (a, b));
    CREATE TABLE public.log (account bigint, line text);
    ALTER TABLE public.log REPLICA IDENTITY FULL;
    CREATE TABLE public.counter (name text NOT NULL, value bigint NOT NULL);
    CREATE UNIQUE INDEX counter_name ON public.counter (name);
    ALTER TABLE public.counter REPLICA IDENTITY USING INDEX counter_name;
    INSERT INTO public.account (id, name, payload)
        SELECT i, 'account ' || i, repeat(md5(i::text), 100) FROM generate_series(1, 500) i;
    INSERT INTO public.item (account, note) SELECT i, 'note' FROM generate_series(1, 500) i;
    INSERT INTO public.log SELECT i % 10, 'same' FROM generate_series(1, 100) i;
    INSERT INTO public.counter SELECT 'counter ' || i, 0 FROM generate_series(0, 9) i";

/// Creates the tables with their first rows.
pub async fn create(client: &Client) {
    client.batch_execute(SCHEMA).await.unwrap();
}

/// The seed of `WALFERRY_TEST_SEED`, or a random one; printed either way.
pub fn seed() -> u64 {
    let seed = match std::env::var("WALFERRY_TEST_SEED") {
        Ok(text) => text.parse().expect("WALFERRY_TEST_SEED is a number"),
        Err(_) => rand::random(),
    };
    eprintln!("workload: WALFERRY_TEST_SEED={seed}");
    seed
}

/// What the writers did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Transactions committed.
    pub committed: u64,
    /// Transactions rolled back, on purpose, by a deadlock or a race.
    pub rolled_back: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    committed: AtomicU64,
    rolled_back: AtomicU64,
}

/// Writers at work. Dropping it ends them in the middle of what they do.
pub struct Workload {
    shared: Arc<Shared>,
    writers: JoinSet<()>,
}

impl Workload {
    /// Starts writers on the tables that [`create`] made.
    pub async fn start(uri: &str, writers: u32, seed: u64) -> Self {
        Workload::start_with_pauses(uri, writers, seed, Duration::ZERO).await
    }

    /// The same, each writer pausing between two transactions, so that others
    /// keep up with it on any machine.
    pub async fn start_with_pauses(uri: &str, writers: u32, seed: u64, pause: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        for number in 1..=writers {
            let client = connect(uri).await;
            let rng = StdRng::seed_from_u64(seed.wrapping_add(u64::from(number)));
            let writer = Writer { client, rng, next_key: i64::from(number) * KEYS_PER_WRITER, pause };
            tasks.spawn(writer.work(shared.clone()));
        }
        Workload { shared, writers: tasks }
    }

    /// Transactions committed so far.
    pub fn committed(&self) -> u64 {
        self.shared.committed.load(Ordering::Relaxed)
    }

    /// Lets every writer finish its transaction, and panics if one failed.
    pub async fn stop(mut self) -> Totals {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(outcome) = self.writers.join_next().await {
            outcome.expect("a writer failed");
        }
        Totals { committed: self.committed(), rolled_back: self.shared.rolled_back.load(Ordering::Relaxed) }
    }
}

struct Writer {
    client: Client,
    rng: StdRng,
    next_key: i64,
    pause: Duration,
}

impl Writer {
    async fn work(mut self, shared: Arc<Shared>) {
        while !shared.stop.load(Ordering::Relaxed) {
            match self.transaction().await {
                Ok(Outcome::Committed) => shared.committed.fetch_add(1, Ordering::Relaxed),
                Ok(Outcome::RolledBack) => shared.rolled_back.fetch_add(1, Ordering::Relaxed),
                // Two writers change anybody's rows in any order: they lock each
                // other out, or refer to what another one has just removed.
                Err(error) if error.code().is_some_and(is_of_the_interleaving) => {
                    self.client.batch_execute("ROLLBACK").await.unwrap();
                    shared.rolled_back.fetch_add(1, Ordering::Relaxed)
                }
                Err(error) => panic!("a writer's transaction failed: {error:?}"),
            };
            if !self.pause.is_zero() {
                tokio::time::sleep(self.pause).await;
            }
        }
    }

    async fn transaction(&mut self) -> Result<Outcome, tokio_postgres::Error> {
        self.client.batch_execute("BEGIN").await?;
        for _ in 0..self.rng.random_range(1..=STATEMENTS) {
            let sql = self.statement();
            if self.rng.random_ratio(1, 8) {
                self.client.batch_execute(&format!("SAVEPOINT s; {sql}; ROLLBACK TO s")).await?;
            } else if self.rng.random_ratio(1, 8) {
                self.client.batch_execute(&format!("SAVEPOINT s; {sql}; RELEASE s")).await?;
            } else {
                self.client.batch_execute(&sql).await?;
            }
        }
        let (end, outcome) = if self.rng.random_ratio(1, 10) {
            ("ROLLBACK", Outcome::RolledBack)
        } else {
            ("COMMIT", Outcome::Committed)
        };
        self.client.batch_execute(end).await?;
        Ok(outcome)
    }

    /// Some key of an account that exists or existed: an old one, or one of ours.
    fn key(&mut self) -> i64 {
        let first = self.next_key / KEYS_PER_WRITER * KEYS_PER_WRITER;
        if self.next_key == first || self.rng.random_bool(0.5) {
            self.rng.random_range(1..=500)
        } else {
            self.rng.random_range(first..self.next_key)
        }
    }

    fn statement(&mut self) -> String {
        let key = self.key();
        let number: u32 = self.rng.random_range(0..1_000_000);
        match self.rng.random_range(0..12) {
            0 | 1 => {
                let new = self.next_key;
                self.next_key += 1;
                format!(
                    "INSERT INTO public.account (id, name, payload) \
                     VALUES ({new}, 'n{number}', repeat(md5('{number}'), {}))",
                    number % 200
                )
            }
            2 => {
                format!("INSERT INTO public.item (account, note) SELECT id, NULL FROM public.account WHERE id = {key}")
            }
            // The payload stays, in TOAST when it is long.
            3 | 4 => format!("UPDATE public.account SET balance = balance + {number}, name = 'x' WHERE id = {key}"),
            5 => format!("UPDATE public.account SET payload = repeat('{number}', 500) WHERE id = {key}"),
            6 => {
                let new = self.next_key;
                self.next_key += 1;
                format!("UPDATE public.account SET id = {new} WHERE id = {key}")
            }
            7 => format!("DELETE FROM public.account WHERE id = {key}"),
            8 => format!(
                "INSERT INTO public.\"Tag \"\"odd\"\"\" (a, b) VALUES ({}, 't{number}') \
                 ON CONFLICT (a, b) DO UPDATE SET n = excluded.n",
                number % 50
            ),
            9 => format!("INSERT INTO public.log VALUES ({}, 'same'), ({}, NULL)", number % 10, number % 10),
            10 => format!(
                "DELETE FROM public.log WHERE ctid = (SELECT ctid FROM public.log WHERE account = {} LIMIT 1 \
                 FOR UPDATE SKIP LOCKED)",
                number % 10
            ),
            _ => format!("UPDATE public.counter SET value = value + 1 WHERE name = 'counter {}'", number % 10),
        }
    }
}

fn is_of_the_interleaving(code: &SqlState) -> bool {
    [SqlState::T_R_DEADLOCK_DETECTED, SqlState::FOREIGN_KEY_VIOLATION].contains(code)
}

enum Outcome {
    Committed,
    RolledBack,
}
