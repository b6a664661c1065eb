//! Types upon types: what somebody may make of all built-in types (domains over domains,
//! enums, composites, ranges, arrays of all of these, casts from text that are none of the
//! input function's), drawn at random, through the copy, net changes and single rows, between
//! servers of two versions whose databases and roles have hostile settings.
//!
//! `WALFERRY_TEST_SEED` repeats a run, `WALFERRY_TEST_CASES` makes more of them
//! (each with servers of its own).
//!
//! Invariant: both sides are compared under settings of the test's own, by text and by what
//! the types send.

use std::fmt::Write;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_postgres::Client;
use walferry::demo::cluster::SUPERUSER;

use crate::journey::{PATIENCE, execute, value};
use crate::support::pair::{DATABASE, Pair};
use crate::support::process::Walferry;
use crate::support::{connect, servers, workload};
use crate::types::BUILT_IN;
use crate::values::HOSTILE;

/// Types that are made on top of the built-in ones.
const MADE: usize = 24;
/// Columns of a table beside its number.
const COLUMNS: usize = 9;
/// Rows of a table before the copy.
const ROWS: usize = 40;
/// Statements between two points.
const STATEMENTS: usize = 60;

/// What a range can be of.
const ORDERED: [&str; 9] = ["int4", "int8", "numeric", "text", "float8", "date", "timestamptz", "uuid", "inet"];

/// The settings under which values are written and compared here.
const OWN: &str = "SET standard_conforming_strings = on; SET array_nulls = on; SET datestyle = 'ISO'; SET intervalstyle = postgres; \
     SET extra_float_digits = 3; SET bytea_output = hex; SET timezone = 'UTC'; SET lc_monetary = 'C'; SET xmloption = content; \
     SET default_transaction_isolation = 'read committed'";

const TABLES: [(&str, &str); 3] = [
    ("keyed", "ALTER TABLE keyed ADD PRIMARY KEY (id)"),
    ("whole", "ALTER TABLE whole REPLICA IDENTITY FULL"),
    (
        "by_index",
        "ALTER TABLE by_index ALTER id SET NOT NULL; CREATE UNIQUE INDEX by_id ON by_index (id); \
         ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_id",
    ),
];

/// A type, and SQL expressions of it.
#[derive(Clone, Debug)]
struct Kind {
    name: String,
    values: Vec<String>,
    is_ordered: bool,
    is_array: bool,
}

struct Maker {
    random: StdRng,
    kinds: Vec<Kind>,
    statements: Vec<String>,
    rows: usize,
}

impl Maker {
    fn new(seed: u64) -> Self {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        // Those whose text names what is another on each server are tried elsewhere.
        let built_in = BUILT_IN.iter().filter(|(name, _)| !name.starts_with("reg") && *name != "aclitem");
        let kind = |(name, values): &(&str, &[&str])| Kind {
            name: (*name).to_owned(),
            values: values.iter().map(|text| format!("{}::{name}", quoted(text))).collect(),
            is_ordered: ORDERED.contains(name),
            is_array: false,
        };
        let mut maker = Maker {
            random: StdRng::seed_from_u64(seed),
            kinds: built_in.map(kind).collect(),
            statements: Vec::new(),
            rows: 0,
        };
        (0..MADE).for_each(|number| maker.make(number));
        maker
    }

    /// Any kind, those that were made as often as those that were there.
    fn kind(&mut self) -> Kind {
        let built_in = self.kinds.len() - self.kinds.len().min(MADE);
        let place = match self.random.random_bool(0.5) {
            true => self.random.random_range(0..self.kinds.len()),
            false => self.random.random_range(built_in.min(self.kinds.len() - 1)..self.kinds.len()),
        };
        self.kinds[place].clone()
    }

    fn value(&mut self, kind: &Kind) -> String {
        if self.random.random_bool(0.15) {
            return format!("NULL::{}", kind.name);
        }
        kind.values[self.random.random_range(0..kind.values.len())].clone()
    }

    fn make(&mut self, number: usize) {
        let of = self.kind();
        match self.random.random_range(0..5) {
            0 => self.domain(&format!("d{number}"), &of),
            1 => self.enumeration(&format!("e{number}")),
            2 => self.composite(&format!("\"c {number}\""), &of),
            3 => self.range(&format!("r{number}")),
            _ if of.is_array => self.domain(&format!("d{number}"), &of),
            _ => self.array(&of),
        }
    }

    fn add(&mut self, name: &str, values: Vec<String>, is_ordered: bool) {
        self.kinds.push(Kind { name: name.to_owned(), values, is_ordered, is_array: name.ends_with(']') });
    }

    fn domain(&mut self, name: &str, of: &Kind) {
        self.statements
            .push(format!("CREATE DOMAIN {name} AS {} CHECK (value IS NULL OR value::text <> 'never')", of.name));
        self.add(name, of.values.iter().map(|value| format!("{value}::{name}")).collect(), false);
    }

    /// With a cast from text that makes another label of it.
    fn enumeration(&mut self, name: &str) {
        self.statements.push(format!("CREATE TYPE {name} AS ENUM ('sad', 'so so', 'it''s', '', 'NULL')"));
        let labels = ["sad", "so so", "it''s", "", "NULL"];
        self.add(name, labels.map(|label| format!("'{label}'::{name}")).to_vec(), true);
        self.cast(name, &format!("enum_last(NULL::public.{name})"));
    }

    fn composite(&mut self, name: &str, of: &Kind) {
        let other = self.kind();
        self.statements.push(format!("CREATE TYPE {name} AS (a {}, \"b c\" {})", of.name, other.name));
        let mut values = Vec::new();
        for _ in 0..4 {
            values.push(format!("ROW({}, {})::{name}", self.value(of), self.value(&other)));
        }
        self.add(name, values, false);
        self.cast(name, &format!("ROW(NULL, NULL)::public.{name}"));
    }

    fn range(&mut self, name: &str) {
        let ordered: Vec<Kind> = self.kinds.iter().filter(|kind| kind.is_ordered).cloned().collect();
        let of = ordered[self.random.random_range(0..ordered.len())].clone();
        self.statements.push(format!("CREATE TYPE {name} AS RANGE (subtype = {})", of.name));
        let mut values = vec![format!("'empty'::{name}"), format!("'(,)'::{name}")];
        for bounds in ["[]", "[)", "(]"] {
            let (one, other) = (self.value(&of), self.value(&of));
            values.push(format!("{name}(least({one}, {other}), greatest({one}, {other}), '{bounds}')"));
        }
        self.add(name, values, false);
    }

    fn array(&mut self, of: &Kind) {
        let name = format!("{}[]", of.name);
        let mut values = vec![format!("'{{}}'::{name}")];
        for _ in 0..3 {
            values.push(format!("ARRAY[{}, {}]::{name}", self.value(of), self.value(of)));
        }
        values.push(format!("ARRAY[[{}], [{}]]::{name}", self.value(of), self.value(of)));
        self.add(&name, values, false);
    }

    fn cast(&mut self, name: &str, makes: &str) {
        if self.random.random_bool(0.5) {
            let function = format!("cast_{}", self.statements.len());
            self.statements.push(format!(
                "CREATE FUNCTION {function}(text) RETURNS {name} LANGUAGE sql IMMUTABLE AS $$ SELECT {makes} $$"
            ));
            self.statements.push(format!("CREATE CAST (text AS {name}) WITH FUNCTION {function}(text) AS ASSIGNMENT"));
        }
    }

    /// The kinds of a table's columns.
    fn table(&mut self, name: &str, identity: &str) -> Vec<Kind> {
        let kinds: Vec<Kind> = (0..COLUMNS).map(|_| self.kind()).collect();
        let mut columns = String::new();
        for (number, kind) in kinds.iter().enumerate() {
            write!(columns, ", v{number} {}", kind.name).unwrap();
        }
        self.statements.push(format!("CREATE TABLE {name} (id int{columns}); {identity}"));
        kinds
    }

    fn insert(&mut self, name: &str, kinds: &[Kind]) -> String {
        self.rows += 1;
        let id = self.rows;
        let values: String = kinds.iter().map(|kind| format!(", {}", self.value(kind))).collect();
        format!("INSERT INTO {name} VALUES ({id}{values})")
    }

    fn write(&mut self, name: &str, kinds: &[Kind]) -> String {
        let place = self.random.random_range(0..kinds.len());
        let (id, value) = (self.random.random_range(1..=self.rows), self.value(&kinds[place]));
        match self.random.random_range(0..10) {
            0..4 => self.insert(name, kinds),
            4..7 => format!("UPDATE {name} SET v{place} = {value} WHERE id % 7 = {id} % 7"),
            // A row by itself, where there is a key.
            7 => format!("UPDATE {name} SET id = -id, v{place} = {value} WHERE id = {id}"),
            8 => format!("DELETE FROM {name} WHERE id = {id}"),
            _ => format!(
                "INSERT INTO {name} SELECT (t).* FROM (SELECT t FROM {name} t WHERE id = {id} AND '{name}' = 'whole') AS t"
            ),
        }
    }
}

/// A session of its owner under settings of the test's own.
async fn session(client: Client) -> Client {
    client.batch_execute(OWN).await.unwrap();
    client
}

/// All rows, as text, and those values as they are sent whose types are built in.
async fn rows(client: &Client, name: &str, kinds: &[Kind]) -> String {
    let mut row = String::from("t::text");
    for (number, kind) in kinds.iter().enumerate() {
        if BUILT_IN.iter().any(|(built_in, _)| *built_in == kind.name) {
            let sql = format!("SELECT typsend::text FROM pg_type WHERE oid = '{}'::regtype", kind.name);
            let send = value(client, &sql).await.replace('"', "");
            // Whoever is sent as text is.
            let cast = if send == "textsend" { "::text" } else { "" };
            write!(row, " || ' ' || coalesce(encode({send}(v{number}{cast}), 'hex'), '-')").unwrap();
        }
    }
    let rows = format!("SELECT {row} AS row FROM {name} t");
    value(
        client,
        &format!("SELECT count(*) || ' ' || md5(string_agg(row, ' ' ORDER BY row COLLATE \"C\")) FROM ({rows}) AS r"),
    )
    .await
}

async fn case(seed: u64) {
    let mut maker = Maker::new(seed);
    let all = servers();
    let (from, to) = (maker.random.random_range(0..all.len()), maker.random.random_range(0..all.len()));
    eprintln!("seed {seed}: from {} to {}", all[from].major, all[to].major);
    let pair = Pair::builder().servers(&all[from], &all[to]).start().await;
    for cluster in [&pair.source, &pair.target] {
        let admin = connect(&cluster.socket_uri(SUPERUSER, DATABASE)).await;
        for setting in HOSTILE {
            admin.batch_execute(&format!("ALTER DATABASE {DATABASE} SET {setting}")).await.unwrap();
        }
    }
    let tables: Vec<(&str, Vec<Kind>)> =
        TABLES.iter().map(|(name, identity)| (*name, maker.table(name, identity))).collect();
    let source = session(pair.source_client().await).await;
    for sql in &maker.statements {
        execute(&source, &[sql]).await;
    }
    for (name, kinds) in &tables {
        for _ in 0..ROWS {
            execute(&source, &[&maker.insert(name, kinds)]).await;
        }
    }
    Walferry::run(&pair, &["run", "--until", "caught-up"], PATIENCE).code(0);
    for command in [&["catchup"][..], &["catchup", "--finish"]] {
        for _ in 0..STATEMENTS {
            let (name, kinds) = &tables[maker.random.random_range(0..tables.len())];
            let sql = maker.write(name, kinds);
            execute(&source, &[&sql]).await;
        }
        let caught_up = Walferry::run(&pair, command, PATIENCE).code(0).stderr;
        assert!(!caught_up.contains("a batch was refused"), "seed {seed}: {caught_up}");
        let target = session(pair.target_client().await).await;
        for (name, kinds) in &tables {
            assert_eq!(
                rows(&target, name, kinds).await,
                rows(&source, name, kinds).await,
                "seed {seed}: {name} {kinds:?}"
            );
        }
    }
}

#[tokio::test]
async fn whatever_types_are_made_of_types_their_values_arrive() {
    let seed = workload::seed();
    let cases: u64 = std::env::var("WALFERRY_TEST_CASES").map_or(2, |text| text.parse().expect("a number"));
    for number in 0..cases {
        case(seed.wrapping_add(number)).await;
    }
}
