//! What is written on the source: the tables before the copy, and the backlog.
//!
//! Invariant: a workload makes the same number of row changes every time, which
//! is what rows per second are counted by; keys are visited in an order that
//! is fixed, so that a workload can be repeated.

/// How the tables come into being.
#[derive(Clone, Debug)]
pub enum Setup {
    /// By these statements.
    Sql(String),
    /// By `pgbench -i` of this scale.
    Pgbench(u64),
}

/// How the backlog comes into being.
#[derive(Clone, Debug)]
pub enum Load {
    /// By this one statement, which commits on its way.
    Sql(String),
    /// By pgbench's TPC-B.
    Pgbench {
        /// Sessions.
        clients: u64,
        /// Transactions of each.
        transactions: u64,
    },
}

/// A workload.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// What it is, in words.
    pub title: String,
    /// Tables and rows before the copy.
    pub setup: Setup,
    /// What the target is given after the copy, by walferry's role.
    pub on_target: &'static str,
    /// The backlog.
    pub load: Load,
    /// Row changes of the backlog.
    pub changes: u64,
    /// Transactions of the backlog.
    pub transactions: u64,
}

/// Rows of the bulk workloads' transactions.
const ROWS_A_TRANSACTION: u64 = 1000;

/// Rows of the wide table: with a 3 KiB value each they are more than any
/// cache of the CPU, and each is visited a few times.
const WIDE_ROWS: u64 = 20_000;

/// Updates of a transaction on the wide table.
const WIDE_UPDATES: u64 = 100;

/// Foreign keys of w7-fk, which a migration would hold back until the end.
const FOREIGN_KEYS: &str = "ALTER TABLE orders ADD FOREIGN KEY (customer) REFERENCES customers; \
     ALTER TABLE lines ADD FOREIGN KEY (order_id) REFERENCES orders;";

/// All workloads at this scale. `w5` runs only when it is asked for.
pub fn all(scale: f64) -> Vec<Workload> {
    let sized = |full: u64, unit: u64| (((full as f64 * scale) as u64) / unit).max(1) * unit;
    vec![
        inserts(sized(2_000_000, ROWS_A_TRANSACTION)),
        tpcb(sized(200_000, 8)),
        wide("w3-unchanged", "wide rows, TOASTed value unchanged", "n = n + 1, a = md5(t::text)", sized(100_000, 100)),
        wide(
            "w3-changed",
            "wide rows, TOASTed value changed",
            "body = repeat(md5(id::text || t), 96)",
            sized(100_000, 100),
        ),
        wide(
            "w3-mixed",
            "wide rows, TOASTed value changed in every other row",
            "n = n + 1, body = CASE WHEN id % 2 = 0 THEN body ELSE repeat(md5(id::text || t), 96) END",
            sized(100_000, 100),
        ),
        single_rows(sized(200_000, 2)),
        one_transaction(sized(1_000_000, 1)),
        delete_single(sized(1_000_000, ROWS_A_TRANSACTION)),
        delete_composite(sized(1_000_000, ROWS_A_TRANSACTION)),
        foreign_keys(sized(10_000, 1)),
        swaps(sized(20_000, 1)),
        hot_rows(sized(200_000, 1)),
        keyless(sized(1_000_000, 1000)),
    ]
}

/// 12000 → 12 k.
fn short(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => format!("{} k", number / 1000),
        _ => format!("{:.1} M", number as f64 / 1e6).replace(".0 M", " M"),
    }
}

/// A loop that commits after each turn; `t` counts from 0.
fn committing(turns: u64, body: &str) -> Load {
    Load::Sql(format!(
        "DO $$ DECLARE t bigint; x bigint; y bigint; u1 int; u2 int; BEGIN FOR t IN 0..{} LOOP {body} COMMIT; END LOOP; END $$",
        turns - 1
    ))
}

fn inserts(rows: u64) -> Workload {
    let transactions = rows / ROWS_A_TRANSACTION;
    Workload {
        name: "w1",
        title: format!("{} narrow inserts, 1000 a transaction", short(rows)),
        setup: Setup::Sql(
            "CREATE TABLE narrow (id bigint PRIMARY KEY, a int, b int, note text, at timestamptz)".to_owned(),
        ),
        on_target: "",
        load: committing(
            transactions,
            "INSERT INTO narrow SELECT t * 1000 + n, n % 7, n, 'note of the row ' || md5(n::text), now() \
             FROM generate_series(1, 1000) AS n;",
        ),
        changes: rows,
        transactions,
    }
}

fn tpcb(transactions: u64) -> Workload {
    Workload {
        name: "w2",
        title: format!("pgbench TPC-B, scale 10, {} transactions", short(transactions)),
        setup: Setup::Pgbench(10),
        on_target: "",
        load: Load::Pgbench { clients: 8, transactions: transactions / 8 },
        changes: transactions * 4,
        transactions,
    }
}

fn wide(name: &'static str, title: &str, set: &str, updates: u64) -> Workload {
    let transactions = updates / WIDE_UPDATES;
    Workload {
        name,
        title: format!("{} updates, {title}", short(updates)),
        setup: Setup::Sql(format!(
            "CREATE TABLE wide (id bigint PRIMARY KEY, n int, a text, b text, c text, d text, at timestamptz, body text); \
             ALTER TABLE wide ALTER body SET STORAGE EXTERNAL; \
             INSERT INTO wide SELECT n, 0, repeat(md5(n::text), 4), repeat(md5(n::text), 6), repeat(md5(n::text), 8), \
                 repeat(md5(n::text), 10), now(), repeat(md5(n::text), 96) FROM generate_series(1, {WIDE_ROWS}) AS n"
        )),
        on_target: "",
        load: committing(
            transactions,
            &format!(
                "x := t * {WIDE_UPDATES} % {WIDE_ROWS}; \
                 UPDATE wide SET {set} WHERE id > x AND id <= x + {WIDE_UPDATES};"
            ),
        ),
        changes: updates,
        transactions,
    }
}

fn single_rows(transactions: u64) -> Workload {
    let half = transactions / 2;
    Workload {
        name: "w4",
        title: format!("{} single-row transactions, half updates, half inserts", short(transactions)),
        setup: Setup::Sql(format!(
            "CREATE TABLE single (id bigint PRIMARY KEY, n int, note text); \
             INSERT INTO single SELECT n, 0, md5(n::text) FROM generate_series(1, {half}) AS n"
        )),
        on_target: "",
        load: committing(
            half,
            &format!(
                "UPDATE single SET n = n + 1 WHERE id = t + 1; COMMIT; \
                 INSERT INTO single VALUES ({half} + 1 + t, 1, 'new');"
            ),
        ),
        changes: transactions,
        transactions,
    }
}

fn one_transaction(rows: u64) -> Workload {
    Workload {
        name: "w5",
        title: format!("one transaction of {} inserts, after as many that were rolled back", short(rows)),
        setup: Setup::Sql("CREATE TABLE large (id bigint PRIMARY KEY, note text)".to_owned()),
        on_target: "",
        load: Load::Sql(format!(
            "DO $$ BEGIN INSERT INTO large SELECT n, md5(n::text) FROM generate_series(1, {rows}) AS n; ROLLBACK; \
             INSERT INTO large SELECT n, md5(n::text) FROM generate_series(1, {rows}) AS n; COMMIT; END $$"
        )),
        changes: rows,
        transactions: 1,
    }
}

fn delete_single(rows: u64) -> Workload {
    Workload {
        name: "w6-single",
        title: format!("{} deletes, 1000 a transaction, single key", short(rows)),
        setup: Setup::Sql(format!(
            "CREATE TABLE doomed (id bigint PRIMARY KEY, note text); \
             INSERT INTO doomed SELECT n, md5(n::text) FROM generate_series(1, {rows}) AS n"
        )),
        on_target: "",
        load: committing(rows / ROWS_A_TRANSACTION, "DELETE FROM doomed WHERE id > t * 1000 AND id <= (t + 1) * 1000;"),
        changes: rows,
        transactions: rows / ROWS_A_TRANSACTION,
    }
}

fn delete_composite(rows: u64) -> Workload {
    Workload {
        name: "w6-composite",
        title: format!("{} deletes, 1000 a transaction, composite key", short(rows)),
        setup: Setup::Sql(format!(
            "CREATE TABLE doomed (tenant int, code text, note text, PRIMARY KEY (tenant, code)); \
             INSERT INTO doomed SELECT n / 1000, 'code ' || n % 1000, md5(n::text) FROM generate_series(0, {rows} - 1) AS n"
        )),
        on_target: "",
        load: committing(rows / ROWS_A_TRANSACTION, "DELETE FROM doomed WHERE tenant = t;"),
        changes: rows,
        transactions: rows / ROWS_A_TRANSACTION,
    }
}

/// A chain of three tables is written and, a hundred transactions later,
/// removed from its end on.
fn foreign_keys(transactions: u64) -> Workload {
    let removed = transactions.saturating_sub(100);
    Workload {
        name: "w7-fk",
        title: format!("{} transactions through a chain of foreign keys, in force on the target", short(transactions)),
        setup: Setup::Sql(format!(
            "CREATE TABLE customers (id bigint PRIMARY KEY, name text); \
             CREATE TABLE orders (id bigint PRIMARY KEY, customer bigint NOT NULL, at timestamptz); \
             CREATE TABLE lines (id bigint PRIMARY KEY, order_id bigint NOT NULL, amount int); \
             CREATE INDEX ON orders (customer); CREATE INDEX ON lines (order_id); {FOREIGN_KEYS}"
        )),
        on_target: FOREIGN_KEYS,
        load: committing(
            transactions,
            "INSERT INTO customers VALUES (t, md5(t::text)); \
             INSERT INTO orders VALUES (2 * t, t, now()), (2 * t + 1, t, now()); \
             INSERT INTO lines SELECT 4 * t + n, 2 * t + n / 2, n FROM generate_series(0, 3) AS n; \
             x := t - 100; \
             DELETE FROM lines WHERE order_id IN (2 * x, 2 * x + 1); \
             DELETE FROM orders WHERE customer = x; DELETE FROM customers WHERE id = x;",
        ),
        changes: transactions * 7 + removed * 7,
        transactions,
    }
}

/// Two rows exchange a unique value through a third one that is free.
fn swaps(transactions: u64) -> Workload {
    let rows = 20_000;
    Workload {
        name: "w7-swaps",
        title: format!("{} exchanges of a unique value between two rows", short(transactions)),
        setup: Setup::Sql(format!(
            "CREATE TABLE places (id bigint PRIMARY KEY, place int NOT NULL UNIQUE, note text); \
             INSERT INTO places SELECT n, n, md5(n::text) FROM generate_series(0, {rows} - 1) AS n"
        )),
        on_target: "",
        load: committing(
            transactions,
            &format!(
                "x := t * 7919 % {rows}; y := (x + 1 + t % 17) % {rows}; \
                 SELECT place INTO u1 FROM places WHERE id = x; SELECT place INTO u2 FROM places WHERE id = y; \
                 UPDATE places SET place = -1 WHERE id = x; UPDATE places SET place = u1 WHERE id = y; \
                 UPDATE places SET place = u2 WHERE id = x;"
            ),
        ),
        changes: transactions * 3,
        transactions,
    }
}

/// Updates and deletes of rows that nothing but all their values tells apart.
fn keyless(rows: u64) -> Workload {
    let (transactions, each) = (50, 10);
    Workload {
        name: "w8-keyless",
        title: format!("{} changes of a table without a key, of {} rows", transactions * each, short(rows)),
        setup: Setup::Sql(format!(
            "CREATE TABLE events (at bigint, kind int, message text); ALTER TABLE events REPLICA IDENTITY FULL; \
             INSERT INTO events SELECT n / 2, n % 10, 'message ' || n % 1000 FROM generate_series(1, {rows}) AS n"
        )),
        on_target: "",
        load: committing(
            transactions,
            &format!(
                "DELETE FROM events WHERE at = t; UPDATE events SET kind = -1 WHERE at >= {} + t * 4 AND at < {} + t * 4 + 4;",
                rows / 4,
                rows / 4
            ),
        ),
        // Two rows of a time, but for the first one's.
        changes: transactions * each - 1,
        transactions,
    }
}

fn hot_rows(transactions: u64) -> Workload {
    Workload {
        name: "w7-hot",
        title: format!("{} transactions on ten rows", short(transactions)),
        setup: Setup::Sql(
            "CREATE TABLE hot (id bigint PRIMARY KEY, n bigint, note text); \
             INSERT INTO hot SELECT n, 0, 'note' FROM generate_series(1, 10) AS n"
                .to_owned(),
        ),
        on_target: "",
        load: committing(transactions, "UPDATE hot SET n = n + 1 WHERE id = t % 10 + 1;"),
        changes: transactions,
        transactions,
    }
}
