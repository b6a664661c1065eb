//! Random catalogs, filters and changes of both: what takes part is what is
//! published is what arrives, or a stop that says so. Equality is looked at by
//! means of its own: by the oids of the source's tables and the text of rows.
//!
//! `WALFERRY_TEST_SEED` repeats a run, `WALFERRY_TEST_CASES` makes more of them.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_postgres::Client;

use crate::journey::{Journey, execute};
use crate::support::pair::Pair;
use crate::support::process::Walferry;
use crate::support::workload;

/// A case has a few commands, each of them a few seconds on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Cases of an ordinary run.
const CASES: u64 = 3;

/// A random database: plain tables, tables that inherit, and partitioned ones of
/// one or two levels, over three schemas.
fn database(rng: &mut StdRng) -> (Vec<String>, Vec<String>) {
    let (mut sql, mut names) = (vec!["CREATE SCHEMA s0; CREATE SCHEMA s1; CREATE SCHEMA s2".to_owned()], Vec::new());
    let schema = |rng: &mut StdRng| format!("s{}", rng.random_range(0..3));
    for n in 0..rng.random_range(2..5) {
        let name = format!("{}.plain_{n}", schema(rng));
        sql.push(format!("CREATE TABLE {name} (id int PRIMARY KEY, v text)"));
        if rng.random_bool(0.3) {
            let child = format!("{}.child_{n}", schema(rng));
            sql.push(format!("CREATE TABLE {child} (PRIMARY KEY (id)) INHERITS ({name})"));
            names.push(child);
        }
        names.push(name);
    }
    for n in 0..rng.random_range(1..3) {
        let root = format!("{}.root_{n}", schema(rng));
        sql.push(format!("CREATE TABLE {root} (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id)"));
        for (part, (from, to)) in [(0, 100), (100, 200), (200, 300)].into_iter().enumerate() {
            let name = format!("{}.root_{n}_{part}", schema(rng));
            let bounds = format!("FOR VALUES FROM ({from}) TO ({to})");
            if rng.random_bool(0.3) {
                let leaf = format!("{}.root_{n}_{part}_all", schema(rng));
                sql.push(format!("CREATE TABLE {name} PARTITION OF {root} {bounds} PARTITION BY RANGE (id)"));
                sql.push(format!("CREATE TABLE {leaf} PARTITION OF {name} DEFAULT"));
            } else {
                sql.push(format!("CREATE TABLE {name} PARTITION OF {root} {bounds}"));
            }
        }
        names.push(root);
    }
    for name in &names {
        sql.push(format!("INSERT INTO {name} SELECT i, 'first' FROM generate_series(0, 299, 7) AS i"));
    }
    (sql, names)
}

/// A random filter that fits something.
fn filter(rng: &mut StdRng, names: &[String]) -> Vec<String> {
    let any = |rng: &mut StdRng| names[rng.random_range(0..names.len())].clone();
    let schema = |name: &str| name.split('.').next().unwrap().to_owned();
    let words: Vec<String> = match rng.random_range(0..6) {
        0 => Vec::new(),
        1 => vec!["--tables".into(), format!("{},{}", any(rng), any(rng))],
        2 => vec!["--schemas".into(), schema(&any(rng))],
        3 => vec!["--exclude-tables".into(), any(rng)],
        4 => vec!["--exclude-schemas".into(), schema(&any(rng))],
        _ => vec!["--tables".into(), "*.root*".into(), "--exclude-tables".into(), any(rng)],
    };
    words
}

/// A random change of rows or catalog.
fn change(rng: &mut StdRng, names: &mut Vec<String>, round: usize) -> String {
    let at = rng.random_range(0..names.len());
    let name = names[at].clone();
    let base = name.split('.').nth(1).unwrap().to_owned();
    match rng.random_range(0..12) {
        0..=4 => format!(
            "INSERT INTO {name} SELECT i, 'round {round}' FROM generate_series(1, 299, {}) AS i ON CONFLICT DO NOTHING",
            rng.random_range(2..9)
        ),
        5 | 6 => format!("UPDATE {name} SET v = v || '+' WHERE id % {} = 0", rng.random_range(2..6)),
        7 => format!("DELETE FROM {name} WHERE id % {} = 1", rng.random_range(3..8)),
        8 => {
            let renamed = format!("{base}_r{round}");
            names[at] = format!("{}.{renamed}", name.split('.').next().unwrap());
            format!("ALTER TABLE {name} RENAME TO {renamed}")
        }
        9 => {
            let new = format!("s0.new_{round}");
            names.push(new.clone());
            format!("CREATE TABLE {new} (id int PRIMARY KEY, v text); INSERT INTO {new} VALUES (1, 'new')")
        }
        10 => format!("VACUUM FULL {name}"),
        _ => format!(
            "CREATE TABLE scratch (id int PRIMARY KEY, v text); INSERT INTO scratch SELECT * FROM {name} ON CONFLICT DO NOTHING; DROP TABLE scratch"
        ),
    }
}

/// The tables of rows that take part, by the state, with their rows on the source.
async fn members(source: &Client, target: &Client) -> Vec<(String, String)> {
    let sql = "SELECT source_oid FROM walferry.tables WHERE state = 'ready' OR state = 'within'";
    let mut found = Vec::new();
    for row in target.query(sql, &[]).await.unwrap() {
        let sql = "SELECT oid::regclass::text FROM pg_class WHERE oid = $1 AND relkind = 'r'";
        for row in source.query(sql, &[&row.get::<_, u32>(0)]).await.unwrap() {
            let name: String = row.get(0);
            found.push((name.clone(), rows(source, &name).await.unwrap()));
        }
    }
    found
}

async fn rows(client: &Client, table: &str) -> Result<String, tokio_postgres::Error> {
    let sql = format!("SELECT coalesce(string_agg(id || ' ' || v, ',' ORDER BY id), '') FROM ONLY {table}");
    Ok(client.query_one(&sql, &[]).await?.get(0))
}

/// What is published by now, leaves and tables by themselves.
async fn published(source: &Client) -> Vec<String> {
    let sql = "SELECT format('%I.%I', schemaname, tablename) FROM pg_publication_tables WHERE pubname = 'walferry' ORDER BY 1";
    source.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn case(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (sql, mut names) = database(&mut rng);
    let filter = filter(&mut rng, &names);
    eprintln!("case {seed}: {filter:?}\n{}", sql.join(";\n"));
    let fixtures: Vec<&str> = sql.iter().map(String::as_str).collect();
    let filter: Vec<&str> = filter.iter().map(String::as_str).collect();
    let pair = Pair::builder().start().await;
    pair.source_sql("SET search_path = public").await;
    execute(&pair.source_client().await, &fixtures).await;
    // What check passes, run does; a refusal of both is an answer, too.
    let checked = Walferry::run(&pair, &[&["check"], &filter[..]].concat(), PATIENCE);
    if checked.status.code() == Some(3) {
        Walferry::run(&pair, &[&["run", "--until", "caught-up"], &filter[..]].concat(), PATIENCE).code(3);
        return;
    }
    let journey = Journey::on(pair, &[], &filter).await;
    let before = members(&journey.source, &journey.target).await;
    let leaves: Vec<&String> = before.iter().map(|(name, _)| name).collect();
    for name in published(&journey.source).await {
        assert!(leaves.contains(&&name), "{name} is published and takes no part: {leaves:?}");
    }
    for round in 0..rng.random_range(3..9) {
        let statement = change(&mut rng, &mut names, round);
        eprintln!("  {statement}");
        journey.write(&[&statement]).await;
    }
    let ended = Walferry::run(&journey.pair, &[&["catchup"], &filter[..]].concat(), PATIENCE);
    eprintln!("{}", ended.stderr);
    match ended.status.code() {
        Some(0) => {
            for (name, ours) in members(&journey.source, &journey.target).await {
                assert_eq!(rows(&journey.target, &name).await.unwrap(), ours, "{name}");
            }
        }
        // A stop that says why.
        Some(7) => {
            assert!(ended.stderr.contains("what to do") || ended.stderr.contains("start again"), "{}", ended.stderr)
        }
        Some(8) => assert!(ended.stderr.contains("not equal on both sides"), "{}", ended.stderr),
        code => panic!("it ended with {code:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_part_is_published_and_arrives_or_is_named() {
    let seed = workload::seed();
    let cases = std::env::var("WALFERRY_TEST_CASES").map_or(CASES, |text| text.parse().unwrap());
    for case_number in 0..cases {
        case(seed.wrapping_add(case_number)).await;
    }
}
