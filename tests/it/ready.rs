//! Random databases, settings and leftovers: what `check` calls ready gets to the
//! stream and arrives; what it does not is refused by `run` with 3, and nothing is
//! left on either side. Rows are compared by their text, by means of its own.
//!
//! `WALFERRY_TEST_SEED` repeats a run, `WALFERRY_TEST_CASES` makes more of them.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio_postgres::Client;
use walferry::demo::cluster::SUPERUSER;

use crate::ready_features::{ENCODINGS, HOSTILE, SETTINGS, SOURCE};
use crate::support::connect;
use crate::support::pair::{APP, PASSWORD, Pair};
use crate::support::process::{Finished, Walferry, command};
use crate::support::workload;

/// A case has a few commands, each of them a few seconds on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Cases of an ordinary run.
const CASES: u64 = 4;

/// A random case.
#[derive(Debug, Default)]
struct Case {
    /// How the databases are created.
    encodings: (&'static str, &'static str),
    /// For the source's owner.
    source: Vec<String>,
    /// Tables of the source that are written to later.
    written: Vec<String>,
    /// For the source's superuser, last.
    settings: Vec<String>,
    /// For the target's role.
    target: Vec<String>,
    /// For the target's superuser.
    admin: Vec<String>,
    /// Of the commands.
    arguments: Vec<String>,
}

impl Case {
    fn of(rng: &mut StdRng, database: &str) -> Self {
        let mut case = Case { encodings: *ENCODINGS.choose(rng).unwrap(), ..Case::default() };
        let fill = |sql: &str, n: usize| sql.replace('#', &n.to_string()).replace('@', database);
        for n in 10..10 + rng.random_range(1..9) {
            let (table, sql) = SOURCE.choose(rng).unwrap();
            case.source.push(fill(sql, n));
            if *table != "-" {
                case.written.push(fill(table, n));
            }
        }
        case.mode(rng);
        let hostile = *[0, 0, 0, 1, 1, 2].choose(rng).unwrap();
        for n in 30..30 + hostile {
            let (source, target, admin) = HOSTILE.choose(rng).unwrap();
            case.source.push(fill(source, n));
            case.target.push(fill(target, n));
            case.admin.push(fill(admin, n));
        }
        if rng.random_bool(0.4) {
            case.settings.push(fill(SETTINGS.choose(rng).unwrap(), 0));
        }
        case.filter(rng);
        case
    }

    /// Who makes the schema; somebody else may have made the tables, more or less.
    fn mode(&mut self, rng: &mut StdRng) {
        let mode = match rng.random_range(0..10) {
            0 => "existing",
            1 => "none",
            _ => {
                let kept: &[&str] = if rng.random_bool(0.3) { &["--acl"] } else { &[] };
                return self.arguments.extend(kept.iter().map(|word| (*word).to_owned()));
            }
        };
        self.arguments.extend(["--schema".to_owned(), mode.to_owned()]);
        if mode == "none" {
            // Its constraints are checked and its triggers fire: the operator's business.
            self.source.retain(|sql| !["REFERENCES", " TRIGGER ", "NOT VALID"].iter().any(|words| sql.contains(words)));
        }
        let without_rows = |sql: &String| {
            let statements =
                sql.split("; ").filter(|sql| !sql.starts_with("INSERT INTO") && !sql.starts_with("SELECT lo_"));
            statements.collect::<Vec<_>>().join("; ")
        };
        self.target = self.source.iter().map(without_rows).collect();
        if rng.random_bool(0.4) {
            self.source.push("CREATE TABLE public.fits (id int PRIMARY KEY, a int, b text)".to_owned());
            let there = [
                "CREATE TABLE public.fits (id int PRIMARY KEY, a int)",
                "CREATE TABLE public.fits (b varchar(9), id bigint PRIMARY KEY, a int)",
                "CREATE TABLE public.fits (id int PRIMARY KEY, a int, b text, c int NOT NULL)",
                "CREATE TABLE public.fits (id int PRIMARY KEY, a int, b text); INSERT INTO public.fits VALUES (1)",
                "CREATE UNLOGGED TABLE public.fits (id int PRIMARY KEY, a int, b text)",
            ];
            self.target.push((*there.choose(rng).unwrap()).to_owned());
        }
    }

    fn filter(&mut self, rng: &mut StdRng) {
        let Some(table) = self.written.choose(rng).cloned() else { return };
        let words: &[&str] = match rng.random_range(0..8) {
            0 => &["--exclude-tables", &table],
            1 => &["--tables", &table],
            2 => &["--schemas", "public"],
            3 if rng.random_bool(0.2) => &["--tables", "public.no_such_table"],
            _ => return,
        };
        self.arguments.extend(words.iter().map(|word| (*word).to_owned()));
    }
}

/// What the commands of a case are about.
struct Ends {
    database: String,
    source: String,
    target: String,
    /// Superusers' sessions.
    here: Client,
    there: Client,
}

impl Ends {
    fn run(&self, case: &Case, words: &[&str]) -> Finished {
        let mut arguments: Vec<&str> = words.to_vec();
        arguments.extend(["--name", &self.database, "--jobs", "2"]);
        arguments.extend(case.arguments.iter().map(String::as_str));
        Walferry::spawn(command(&self.source, &self.target, &arguments)).wait(PATIENCE)
    }

    /// What walferry has made, by name.
    async fn traces(&self) -> Vec<String> {
        let here = "SELECT 'publication ' || pubname FROM pg_publication WHERE pubname = current_database() UNION ALL \
             SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database()";
        let there = "SELECT 'table ' || oid::regclass FROM pg_class WHERE relnamespace = to_regnamespace('walferry')";
        let mut found = Vec::new();
        for (client, sql) in [(&self.here, here), (&self.there, there)] {
            found.extend(client.query(sql, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)));
        }
        found
    }
}

/// Runs SQL as one may; what the random pieces make impossible together is left out.
async fn execute(client: &Client, statements: &[String]) {
    for sql in statements.iter().filter(|sql| !sql.is_empty()) {
        if let Err(error) = client.batch_execute(sql).await {
            eprintln!("  left out: {} in {sql}", error.as_db_error().unwrap().message());
        } else {
            eprintln!("  {sql}");
        }
    }
}

async fn prepare(pair: &Pair, case: &Case, database: &str) -> Ends {
    let create = |owner: &str, how: &str| format!("CREATE DATABASE {database} OWNER {owner} {how}");
    pair.source.psql(SUPERUSER, "postgres", &create(APP, case.encodings.0)).unwrap();
    pair.target.psql(SUPERUSER, "postgres", &create("doadmin", case.encodings.1)).unwrap();
    let (source, target) = (pair.source.uri(APP, PASSWORD, database), pair.target.uri("doadmin", PASSWORD, database));
    let here = connect(&pair.source.socket_uri(SUPERUSER, database)).await;
    let there = connect(&pair.target.socket_uri(SUPERUSER, database)).await;
    execute(&connect(&source).await, &case.source).await;
    for table in &case.written {
        write(&here, table, 1).await;
    }
    execute(&connect(&target).await, &case.target).await;
    execute(&there, &case.admin).await;
    execute(&here, &case.settings).await;
    Ends { database: database.to_owned(), source, target, here, there }
}

/// Rows of a table, as far as its constraints let them in.
async fn write(client: &Client, table: &str, from: i32) {
    let sql = format!("INSERT INTO {table} SELECT i FROM generate_series({from}, {}) AS i", from + 40);
    if let Err(error) = client.batch_execute(&format!("BEGIN READ WRITE; {sql}; COMMIT")).await {
        eprintln!("  left out: {} in {sql}", error.as_db_error().unwrap().message());
        client.batch_execute("ROLLBACK").await.unwrap();
    }
}

/// The rows of each table that takes part, as text.
async fn assert_rows(ends: &Ends) {
    let formats = "SET search_path = ''; SET datestyle = ISO; SET intervalstyle = postgres; SET extra_float_digits = 3; \
         SET bytea_output = hex; SET timezone = 'UTC'; SET statement_timeout = 0; SET row_security = off; SET client_min_messages = warning";
    for client in [&ends.here, &ends.there] {
        client.batch_execute(formats).await.unwrap();
    }
    let sql = "SELECT source_oid FROM walferry.tables WHERE state IN ('ready', 'within')";
    for row in ends.there.query(sql, &[]).await.unwrap() {
        let sql = "SELECT oid::regclass::text FROM pg_class WHERE oid = $1 AND relkind = 'r'";
        for row in ends.here.query(sql, &[&row.get::<_, u32>(0)]).await.unwrap() {
            let name: String = row.get(0);
            let columns = "SELECT coalesce(string_agg(format('%I::text', attname), ', ' ORDER BY attname), '1') FROM pg_attribute \
                 WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped";
            let columns: String = ends.here.query_one(columns, &[&name]).await.unwrap().get(0);
            let sql = format!(
                "SELECT array_agg(the_row::text ORDER BY the_row::text) FROM (SELECT {columns} FROM ONLY {name}) AS the_row"
            );
            let [here, there] = [&ends.here, &ends.there].map(|client| client.query_one(&sql, &[]));
            let (here, there) = (here.await.unwrap(), there.await.unwrap());
            let rows = |row: &tokio_postgres::Row| row.get::<_, Option<Vec<String>>>(0);
            assert_eq!(rows(&here), rows(&there), "{name}");
        }
    }
}

/// Whether it was ready.
async fn case(pair: &Pair, seed: u64, number: u64) -> bool {
    let mut rng = StdRng::seed_from_u64(seed);
    let database = format!("ready_{number}");
    let case = Case::of(&mut rng, &database);
    eprintln!(
        "case {number}: WALFERRY_TEST_SEED={seed} WALFERRY_TEST_CASES=1, {:?} {:?}",
        case.encodings, case.arguments
    );
    let leftovers = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots";
    pair.source.psql(SUPERUSER, "postgres", leftovers).unwrap();
    let ends = prepare(pair, &case, &database).await;
    let before = ends.traces().await;
    let check = ends.run(&case, &["check"]);
    assert_eq!(ends.traces().await, before, "check leaves nothing");
    let run = ends.run(&case, &["run", "--until", "caught-up"]);
    let said = format!("check said:\n{}\nrun said:\n{}", check.stdout, run.stderr);
    assert_eq!(check.status.code(), run.status.code(), "{said}");
    let is_ready = check.status.code() == Some(0);
    if is_ready {
        for table in &case.written {
            write(&ends.here, table, 100).await;
        }
        let caught_up = ends.run(&case, &["catchup"]);
        assert_eq!(caught_up.status.code(), Some(0), "{said}\ncatchup said:\n{}", caught_up.stderr);
        assert_rows(&ends).await;
        let finished = ends.run(&case, &["catchup", "--finish"]);
        assert_eq!(finished.status.code(), Some(0), "{said}\ncatchup --finish said:\n{}", finished.stderr);
        assert_rows(&ends).await;
    } else {
        for problem in check.stdout.lines().filter(|line| line.contains('✗')) {
            eprintln!("{problem}");
        }
        assert_eq!(check.status.code(), Some(3), "{said}");
        assert_eq!(ends.traces().await, before, "{said}");
    }
    let slots =
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()";
    ends.here.query(slots, &[]).await.unwrap();
    drop(ends);
    for cluster in [&pair.source, &pair.target] {
        cluster.psql(SUPERUSER, "postgres", &format!("DROP DATABASE {database} WITH (FORCE)")).unwrap();
    }
    is_ready
}

#[tokio::test(flavor = "multi_thread")]
async fn what_check_calls_ready_gets_to_the_stream_and_what_it_does_not_is_refused_and_leaves_nothing() {
    let seed = workload::seed();
    let cases = std::env::var("WALFERRY_TEST_CASES").map_or(CASES, |text| text.parse().unwrap());
    let pair = Pair::builder().with_extensions().start().await;
    for cluster in [&pair.source, &pair.target] {
        cluster.psql(SUPERUSER, "postgres", "CREATE ROLE shared").unwrap();
    }
    let pair = Arc::new(pair);
    let (mut ready, mut failed) = (0, Vec::new());
    for number in 0..cases {
        let (pair, seed) = (pair.clone(), seed.wrapping_add(number));
        match tokio::spawn(async move { case(&pair, seed, number).await }).await {
            Ok(is_ready) => ready += u64::from(is_ready),
            Err(_) => failed.push(seed),
        }
    }
    eprintln!("{ready} of {cases} were ready");
    assert!(failed.is_empty(), "{} cases failed, by their seeds: {failed:?}", failed.len());
}
