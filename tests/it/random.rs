//! Random schemas, random transactions on a real source, random bounds of the
//! batches: the target is the same whenever it has caught up.
//!
//! `WALFERRY_TEST_SEED` repeats a run, `WALFERRY_TEST_CASES` makes more of them
//! (each with a schema and servers of its own).
//!
//! Invariant: everything is drawn from the seed; one writer, so that a seed
//! gives the same transactions again. What the daemon merges depends on the
//! clock while it runs beside the writer, and not while it is stopped: the
//! backlog that it then meets is cut by the drawn bounds alone.

use std::fmt::Write;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::journey::Journey;
use crate::support::pair::Pair;
use crate::support::workload;

/// Points at which both sides are compared, in each case.
const POINTS: usize = 6;
/// Transactions before each of them.
const TRANSACTIONS: usize = 800;
/// Tables of a schema.
const TABLES: usize = 8;
/// Different keys of a table: few, so that rows come and go under the same one.
const KEYS: u32 = 12;
/// Rows of an insert that becomes a COPY on the target.
const MANY: u32 = 260;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Int,
    Text,
    Numeric,
    Composite,
    /// An identity column GENERATED ALWAYS.
    Always,
    /// None: REPLICA IDENTITY FULL and whole rows.
    Whole,
    /// None, and nothing but inserts and truncates.
    InsertOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    Default,
    Index,
    Full,
}

#[derive(Debug)]
struct Table {
    name: String,
    key: Key,
    identity: Identity,
    has_unique: bool,
    has_generated: bool,
    /// An identity column outside the key, which UPDATE may not name.
    has_number: bool,
}

impl Table {
    fn draw(rng: &mut StdRng, number: usize) -> Self {
        // The first tables are of every kind of key, whatever is drawn.
        const KINDS: [Key; 7] =
            [Key::Int, Key::Composite, Key::Whole, Key::Text, Key::Always, Key::Numeric, Key::InsertOnly];
        let key = KINDS.get(number).copied().unwrap_or_else(|| KINDS[rng.random_range(0..KINDS.len())]);
        let identity = match (key, rng.random_range(0..6)) {
            (Key::Whole | Key::InsertOnly, _) => Identity::Full,
            (_, 0 | 1) => Identity::Full,
            (_, 2) => Identity::Index,
            _ => Identity::Default,
        };
        Table {
            name: format!("t{number}"),
            key,
            identity,
            has_unique: !matches!(key, Key::Whole | Key::InsertOnly) && rng.random_bool(0.6),
            has_generated: rng.random_bool(0.3),
            has_number: rng.random_ratio(1, 8),
        }
    }

    fn create(&self) -> String {
        let name = &self.name;
        let mut sql = format!("CREATE TABLE {name} (");
        sql.push_str(match self.key {
            Key::Int | Key::Whole | Key::InsertOnly => "id int NOT NULL, ",
            Key::Text => "id text NOT NULL, ",
            Key::Numeric => "id numeric(8, 2) NOT NULL, ",
            Key::Composite => "b text NOT NULL, id int NOT NULL, ",
            Key::Always => "id int GENERATED ALWAYS AS IDENTITY, ",
        });
        sql.push_str("v int, note text, big text, large text, code int NOT NULL, u int");
        for (is_there, column) in [
            (self.has_generated, ", g int GENERATED ALWAYS AS (v * 2) STORED"),
            (self.has_number, ", n int GENERATED ALWAYS AS IDENTITY"),
            (self.has_unique, ", UNIQUE (u)"),
            (self.key == Key::Composite, ", PRIMARY KEY (id, b)"),
            (matches!(self.key, Key::Int | Key::Text | Key::Numeric | Key::Always), ", PRIMARY KEY (id)"),
        ] {
            sql.push_str(if is_there { column } else { "" });
        }
        write!(sql, "); ALTER TABLE {name} ALTER big SET STORAGE EXTERNAL, ALTER large SET STORAGE EXTERNAL").unwrap();
        match self.identity {
            Identity::Default => {}
            Identity::Full => write!(sql, "; ALTER TABLE {name} REPLICA IDENTITY FULL").unwrap(),
            Identity::Index => write!(
                sql,
                "; CREATE UNIQUE INDEX {name}_code ON {name} (code); \
                 ALTER TABLE {name} REPLICA IDENTITY USING INDEX {name}_code"
            )
            .unwrap(),
        }
        sql
    }

    /// The key columns' values of key `k`, an SQL expression over an integer.
    fn key(&self, k: &str) -> String {
        match self.key {
            Key::Text => format!("'key ' || ({k})"),
            Key::Numeric => format!("({k}) + 0.50"),
            Key::Composite => format!("'b' || ({k}) % 3, ({k})"),
            _ => k.to_owned(),
        }
    }

    fn key_names(&self) -> &'static str {
        if self.key == Key::Composite { "b, id" } else { "id" }
    }

    /// The constraint of the key that the net changes are made by.
    fn never_clashes(&self) -> Option<String> {
        (self.identity != Identity::Index).then(|| format!("{}_pkey", self.name))
    }

    fn is(&self, k: u32) -> String {
        format!("({}) = ({})", self.key_names(), self.key(&k.to_string()))
    }

    /// Rows with the keys of `from`, a set named `i`; a row that is there stays.
    fn insert(&self, from: &str, row: &Row) -> String {
        format!(
            "INSERT INTO {} ({}, v, note, big, large, code, u) OVERRIDING SYSTEM VALUE \
             SELECT {}, {}, {}, {}, {}, i, {} FROM {from} ON CONFLICT DO NOTHING",
            self.name,
            self.key_names(),
            self.key("i"),
            row.v,
            row.note,
            row.big,
            row.large,
            row.u,
        )
    }
}

/// Values of a row as SQL.
#[derive(Clone)]
struct Row {
    v: u32,
    note: &'static str,
    big: String,
    large: String,
    u: String,
}

struct Writer {
    rng: StdRng,
    tables: Vec<Table>,
}

impl Writer {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let tables = (0..TABLES).map(|number| Table::draw(&mut rng, number)).collect();
        Writer { rng, tables }
    }

    /// A value that stays in the row, or one that goes to TOAST.
    fn large(&mut self) -> String {
        let number: u32 = self.rng.random_range(0..100_000);
        match self.rng.random_range(0..6) {
            0 => "NULL".to_owned(),
            1 => format!("'short {number}'"),
            _ => format!("repeat(md5('{number}'), {})", self.rng.random_range(70..130)),
        }
    }

    fn row(&mut self) -> Row {
        const NOTES: [&str; 6] =
            ["NULL", "''", "'plain'", "E'tab\\tline\\nreturn\\r'", "'back\\slash \\N \\.'", "'ü\"quo''te'"];
        let u = match self.rng.random_range(0..3) {
            0 => "NULL".to_owned(),
            _ => self.rng.random_range(0..30_u32).to_string(),
        };
        let note = NOTES[self.rng.random_range(0..NOTES.len())];
        Row { v: self.rng.random_range(0..1000), note, big: self.large(), large: self.large(), u }
    }

    /// One or more statements.
    fn statement(&mut self) -> String {
        let table = self.rng.random_range(0..self.tables.len());
        let (k, other) = (self.rng.random_range(0..KEYS), self.rng.random_range(0..KEYS));
        let (row, again) = (self.row(), self.row());
        let kind = self.rng.random_range(0..100);
        let next = self.rng.random_range(0..self.tables.len());
        let many = if self.rng.random_bool(0.3) { MANY } else { 5 };
        let next = &self.tables[next].name;
        let table = &self.tables[table];
        let Table { name, key, .. } = table;
        let (here, one) = (table.is(k), table.insert(&format!("(VALUES ({k})) f(i)"), &row));
        let re_insert = table.insert(&format!("(VALUES ({k})) f(i)"), &again);
        let bulk = || {
            let row = Row { u: "NULL".to_owned(), big: "NULL".to_owned(), ..row.clone() };
            table.insert(&format!("generate_series({}, {}) f(i)", 1000 + k, 1000 + k + many), &row)
        };
        if *key == Key::InsertOnly {
            return match kind {
                0..20 => bulk(),
                96 => format!("TRUNCATE {name}"),
                _ => one,
            };
        }
        match kind {
            20..34 => format!("UPDATE {name} SET v = {}, note = {} WHERE {here}", row.v, row.note),
            34..40 => format!("UPDATE {name} SET big = {} WHERE {here}", row.big),
            40..44 => format!("UPDATE {name} SET large = {}, big = NULL WHERE {here}", row.large),
            44..48 => format!("UPDATE {name} SET v = v WHERE {here}"),
            // Changed, and unchanged right after.
            48..52 => format!(
                "UPDATE {name} SET big = {} WHERE {here}; UPDATE {name} SET note = {} WHERE {here}",
                row.big, again.note
            ),
            52..55 => format!("UPDATE {name} SET u = {} WHERE {here}", row.u),
            55..62 if *key != Key::Always => format!(
                "UPDATE {name} SET ({}) = ROW({}), v = {} WHERE {here} AND NOT EXISTS (SELECT FROM {name} WHERE {})",
                table.key_names(),
                table.key(&other.to_string()),
                row.v,
                table.is(other),
            ),
            62..65 if table.identity == Identity::Index => format!("UPDATE {name} SET code = code + 1000 WHERE {here}"),
            65..69 => swap(name, &here, &table.is(other)),
            69..76 => format!("DELETE FROM {name} WHERE {here}"),
            76..81 => format!("DELETE FROM {name} WHERE {here}; {re_insert}"),
            81..84 => {
                format!("{one}; DELETE FROM {name} WHERE {here}; {re_insert}; UPDATE {name} SET v = 1 WHERE {here}")
            }
            84..87 => format!("{one}; UPDATE {name} SET large = {} WHERE {here}", again.large),
            87..90 => bulk(),
            90..93 => format!("DELETE FROM {name} WHERE v % 7 = {} OR code >= 1000", k % 7),
            93..96 => format!("UPDATE {name} SET v = coalesce(v, 0) + 1 WHERE code < 100 OR v % 20 = 3"),
            96 => format!("TRUNCATE {name}"),
            97 if next != name => format!("TRUNCATE {name}, {next} RESTART IDENTITY"),
            _ => one,
        }
    }

    fn transaction(&mut self) -> String {
        let mut sql = "BEGIN; ".to_owned();
        for _ in 0..self.rng.random_range(1..=5) {
            let statement = self.statement();
            match self.rng.random_range(0..12) {
                0 => write!(sql, "SAVEPOINT s; {statement}; ROLLBACK TO s; ").unwrap(),
                1 => write!(sql, "SAVEPOINT s; {statement}; RELEASE s; ").unwrap(),
                _ => write!(sql, "{statement}; ").unwrap(),
            }
        }
        sql.push_str(if self.rng.random_ratio(1, 20) { "ROLLBACK" } else { "COMMIT" });
        sql
    }

    /// Bounds of the batches, and what is logged of them.
    fn arguments(&mut self) -> Vec<String> {
        let rows = [3, 20, 100, 700, 10_000][self.rng.random_range(0..5)];
        let words = ["--batch-rows", &rows.to_string(), "--batch-bytes", "1MiB"];
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}

/// Two rows exchange their unique values, as far as they are there.
fn swap(name: &str, here: &str, there: &str) -> String {
    format!(
        "DO $$ DECLARE one int; other int; BEGIN \
         SELECT u INTO one FROM {name} WHERE {here} LIMIT 1; SELECT u INTO other FROM {name} WHERE {there} LIMIT 1; \
         UPDATE {name} SET u = NULL WHERE {here}; UPDATE {name} SET u = one WHERE {there}; \
         UPDATE {name} SET u = other WHERE {here}; END $$"
    )
}

/// Runs transactions; gives how many committed or were rolled back on purpose.
/// One that the source itself refuses (a unique value is taken) is rolled back.
async fn write(journey: &Journey, writer: &mut Writer, count: usize) -> usize {
    let mut done = 0;
    for _ in 0..count {
        let sql = writer.transaction();
        match journey.source.batch_execute(&sql).await {
            Ok(()) => done += 1,
            Err(error) if error.code().is_some_and(|code| code.code() == "23505") => {
                journey.source.batch_execute("ROLLBACK").await.unwrap();
            }
            Err(error) => panic!("{error:?} in {sql}"),
        }
    }
    done
}

/// The ordered path mends whatever the fast path gets wrong, so that both sides
/// are equal all the same. But only unique values that change places may need
/// it: net changes never miss a row and never write a key twice.
fn assert_no_needless_refusal(log: &str, no_clashes: &[String]) {
    for line in log.lines().filter(|line| line.contains("refused")) {
        assert!(!line.contains("division by zero"), "net changes affected other rows than they should: {line}");
        let clash = no_clashes.iter().find(|name| line.contains(&format!("constraint: {name} ")));
        assert!(clash.is_none(), "net changes wrote a key twice: {line}");
    }
}

async fn case(seed: u64) -> usize {
    let mut writer = Writer::new(seed);
    for table in &writer.tables {
        eprintln!("{table:?}");
    }
    let mut fixtures: Vec<String> = writer.tables.iter().map(Table::create).collect();
    for number in 0..TABLES {
        let row = writer.row();
        let row = Row { u: "i".to_owned(), ..row };
        fixtures.push(writer.tables[number].insert(&format!("generate_series(0, {}) f(i)", KEYS / 2), &row));
    }
    let fixtures: Vec<&str> = fixtures.iter().map(String::as_str).collect();
    let arguments = writer.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut journey = Journey::on(Pair::builder().start().await, &fixtures, &arguments).await;
    let mut done = 0;
    let no_clashes: Vec<String> = writer.tables.iter().filter_map(Table::never_clashes).collect();
    for point in 0..POINTS {
        // Beside the daemon at even points, a backlog at odd ones.
        done += write(&journey, &mut writer, TRANSACTIONS).await;
        let arguments = writer.arguments();
        eprintln!("seed {seed}, point {point}: {done} transactions, then {arguments:?}");
        journey.arguments(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        journey.finish().await;
        assert_no_needless_refusal(&journey.log(), &no_clashes);
        if point % 2 == 1 {
            journey.start();
            journey.streams().await;
        }
    }
    done
}

#[tokio::test]
async fn whatever_is_written_and_however_it_is_merged_both_sides_are_equal() {
    let seed = workload::seed();
    let cases: u64 = std::env::var("WALFERRY_TEST_CASES").map_or(1, |text| text.parse().expect("a number"));
    let mut done = 0;
    for case_number in 0..cases {
        done += case(seed.wrapping_add(case_number)).await;
    }
    assert!(done as u64 > cases * 3_000, "the source refused most of it: only {done} transactions");
}
