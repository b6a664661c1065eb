//! The shop's customers and staff: several sessions that write all the time,
//! a transaction after another, and count what they wrote.
//!
//! Invariant: a writer ends between two transactions, and any failure but a
//! deadlock ends the demo: nothing it could not write goes unnoticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

use super::shop::{CUSTOMERS, FIRST_MONTH, ORDERS, PRODUCTS};
use crate::config::Side;
use crate::fault::sqlstate;
use crate::session::{DbContext, DbError};

/// Pause between two transactions of one writer: a shop has customers, not a
/// benchmark, and the machine also runs both servers.
const THINK: Duration = Duration::from_millis(4);

/// Why the writers ended early.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// A statement failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// A writer's task broke down.
    #[error("a writer broke down: {0}")]
    Task(#[from] JoinError),
}

/// What has been written so far.
#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    transactions: AtomicU64,
    rows: AtomicU64,
}

/// What was written in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Transactions committed.
    pub transactions: u64,
    /// Rows that their statements set out to insert, update and delete, large
    /// objects included; without what triggers and cascades did.
    pub rows: u64,
}

/// Writers at work; dropping it ends them.
pub struct Writers {
    counts: Arc<Counts>,
    tasks: JoinSet<Result<(), DbError>>,
}

impl Writers {
    /// Starts this many writers, each with a session of its own.
    ///
    /// # Errors
    /// When a session cannot be had.
    pub async fn start(uri: &str, number: u32) -> Result<Self, WriterError> {
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        for seed in 1..=number {
            let (client, connection) =
                tokio_postgres::connect(uri, NoTls).await.during(Side::Source, "connect a writer")?;
            // Ends with the client; its error is the client's as well.
            tokio::spawn(connection);
            let writer = Writer { client, rng: StdRng::seed_from_u64(u64::from(seed)), counts: counts.clone() };
            tasks.spawn(writer.work());
        }
        Ok(Writers { counts, tasks })
    }

    /// What has been written until now.
    pub fn written(&self) -> Written {
        Written {
            transactions: self.counts.transactions.load(Ordering::Relaxed),
            rows: self.counts.rows.load(Ordering::Relaxed),
        }
    }

    /// Fails if a writer has ended: none does before it is told to.
    ///
    /// # Errors
    /// The writer's.
    pub fn check(&mut self) -> Result<(), WriterError> {
        while let Some(ended) = self.tasks.try_join_next() {
            ended??;
        }
        Ok(())
    }

    /// Lets every writer finish its transaction; nothing is written after this
    /// returns.
    ///
    /// # Errors
    /// The first failure of a writer.
    pub async fn stop(mut self) -> Result<Written, WriterError> {
        self.counts.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.written())
    }
}

struct Writer {
    client: Client,
    rng: StdRng,
    counts: Arc<Counts>,
}

impl Writer {
    async fn work(mut self) -> Result<(), DbError> {
        while !self.counts.stop.load(Ordering::Relaxed) {
            let (rows, sql) = self.transaction();
            match self.client.batch_execute(&format!("BEGIN; {sql}; COMMIT")).await {
                Ok(()) => {
                    self.counts.transactions.fetch_add(1, Ordering::Relaxed);
                    self.counts.rows.fetch_add(rows, Ordering::Relaxed);
                }
                Err(error) if error.code().is_some_and(|code| code.code() == sqlstate::DEADLOCK_DETECTED) => {
                    self.client.batch_execute("ROLLBACK").await.during(Side::Source, "roll back a deadlock")?;
                }
                Err(error) => return Err(error).during(Side::Source, "write"),
            }
            sleep(THINK).await;
        }
        Ok(())
    }

    /// The rows it writes (nearly always) and the statements of a transaction.
    fn transaction(&mut self) -> (u64, String) {
        match self.rng.random_range(0..20) {
            0..8 => (5, self.place_an_order()),
            8..10 => (1, self.change_a_customer()),
            10..13 => (2, self.restock()),
            13..15 => (1, self.cancel_an_order()),
            15..17 => (3, self.happen()),
            17 => (1, self.forget_an_event()),
            18 => (2, self.write_a_manual()),
            _ => (1, self.move_an_order()),
        }
    }

    fn day(&mut self) -> String {
        format!("(date '{FIRST_MONTH}' + {})", self.rng.random_range(0..365))
    }

    fn product(&mut self) -> i64 {
        self.rng.random_range(1..=PRODUCTS)
    }

    fn customer(&mut self) -> i64 {
        self.rng.random_range(1..=CUSTOMERS)
    }

    /// A customer of last year's, or a new one with a first order, an item, an
    /// invoice number.
    fn place_an_order(&mut self) -> String {
        let (day, one, other) = (self.day(), self.product(), self.product());
        let quantity = self.rng.random_range(1..9);
        format!(
            "WITH c AS (INSERT INTO shop.customers (email, name) \
                 VALUES (nextval('shop.invoice_number') || '-' || gen_random_uuid() || '@example.org', 'new') RETURNING id), \
             o AS (INSERT INTO shop.orders (placed, customer, note) SELECT {day}, id, md5(id::text) FROM c RETURNING placed, id) \
             INSERT INTO shop.order_items (placed, order_id, line, product, quantity, price) \
             SELECT placed, id, line, CASE line WHEN 1 THEN {one} ELSE {other} END, {quantity}, 9.99 \
             FROM o, generate_series(1, 2) line; \
             UPDATE shop.products SET stock = stock - {quantity} WHERE id = {one}"
        )
    }

    fn change_a_customer(&mut self) -> String {
        let id = self.customer();
        format!(
            "UPDATE shop.customers SET name = name || '.', newsletter = NOT newsletter, \
             addresses = addresses || '[{{\"city\": \"moved\"}}]' WHERE id = {id}"
        )
    }

    /// Leaves thumbnail and details, often in TOAST, as they are.
    fn restock(&mut self) -> String {
        let (one, other) = (self.product(), self.product());
        format!(
            "UPDATE shop.products SET stock = stock + 100, price = price + 0.0001 WHERE id IN ({}, {})",
            one.min(other),
            one.max(other)
        )
    }

    fn cancel_an_order(&mut self) -> String {
        let id = self.rng.random_range(1..=ORDERS);
        format!("DELETE FROM shop.orders WHERE id = {id}")
    }

    /// Into another partition: PostgreSQL makes it a delete and an insert.
    fn move_an_order(&mut self) -> String {
        let day = self.day();
        format!(
            "WITH o AS (DELETE FROM shop.orders WHERE id = {} RETURNING *) \
             INSERT INTO shop.orders (id, placed, customer, delivery, total, note) \
             SELECT id, {day}, customer, delivery, total, 'moved' FROM o",
            self.rng.random_range(1..=ORDERS)
        )
    }

    fn happen(&mut self) -> String {
        let customer = self.customer();
        format!(
            "INSERT INTO shop.events SELECT clock_timestamp(), kind, {customer}, '{{\"page\": 1}}' \
             FROM unnest(ARRAY['view', 'click', 'click']) kind"
        )
    }

    /// One of several equal rows, if it is such an event.
    fn forget_an_event(&mut self) -> String {
        let customer = self.customer();
        format!(
            "DELETE FROM shop.events WHERE ctid = (SELECT ctid FROM shop.events WHERE customer = {customer} LIMIT 1 \
             FOR UPDATE SKIP LOCKED)"
        )
    }

    /// A new large object for a product, or new bytes in the middle of its old one.
    fn write_a_manual(&mut self) -> String {
        let id = self.product();
        format!(
            "UPDATE shop.products SET manual = lo_from_bytea(0, decode(repeat(md5(id::text), 500), 'hex')) \
             WHERE id = {id} AND manual IS NULL; \
             SELECT lo_put(manual, 1000, decode(md5(random()::text), 'hex')) FROM shop.products \
             WHERE id = 1 + {id} % 300 AND manual IS NOT NULL"
        )
    }
}
