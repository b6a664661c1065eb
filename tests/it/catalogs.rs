//! Random catalogs, filters and changes of both: what takes part is what is
//! published is what arrives, or a stop that says so. Equality is looked at by
//! means of its own: by the oids of the source's tables and the text of rows.
//!
//! `WALFERRY_TEST_SEED` repeats a run, `WALFERRY_TEST_CASES` makes more of them.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_postgres::Client;

use crate::journey::{Journey, execute};
use crate::support::connect;
use crate::support::pair::Pair;
use crate::support::process::Walferry;
use crate::support::workload;

/// A case has a few commands, each of them a few seconds on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often a case may stop before its end.
const STOPS: usize = 8;

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

/// A partition that is off its table for a while.
struct Detached {
    parent: u32,
    child: u32,
    bound: String,
}

/// The source, as the changes meet it.
struct World<'a> {
    source: &'a Client,
    rng: StdRng,
    detached: Vec<Detached>,
}

impl World<'_> {
    /// The application's tables by their present names, without partitions.
    async fn tables(&self) -> Vec<String> {
        let sql = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname ~ '^(s[0-2]|public)$' ORDER BY c.oid";
        self.source.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    /// One of the application's partitions.
    async fn partition(&mut self) -> Option<(Detached, String, String)> {
        let sql = "SELECT i.inhparent, i.inhrelid, pg_get_expr(c.relpartbound, c.oid), i.inhparent::regclass::text, i.inhrelid::regclass::text \
             FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relispartition AND c.relkind IN ('r', 'p') ORDER BY c.oid";
        let rows = self.source.query(sql, &[]).await.unwrap();
        let row = rows.get(self.rng.random_range(0..rows.len().max(1)))?;
        Some((Detached { parent: row.get(0), child: row.get(1), bound: row.get(2) }, row.get(3), row.get(4)))
    }

    async fn name(&self, oid: u32) -> Option<String> {
        let sql = "SELECT oid::regclass::text FROM pg_class WHERE oid = $1";
        self.source.query_opt(sql, &[&oid]).await.unwrap().map(|row| row.get(0))
    }

    /// A random change of rows or catalog: statements, each a transaction.
    async fn change(&mut self, round: usize) -> Vec<String> {
        let names = self.tables().await;
        let name = names[self.rng.random_range(0..names.len())].clone();
        let (schema, base) = name.split_once('.').unwrap();
        let write = format!("UPDATE {name} SET v = v || '*' WHERE id % 3 = 1");
        let one = |sql: String| vec![sql];
        match self.rng.random_range(0..26) {
            0..=4 => one(format!(
                "INSERT INTO {name} SELECT i, 'round {round}' FROM generate_series(1, 299, {}) AS i ON CONFLICT DO NOTHING",
                self.rng.random_range(2..9)
            )),
            5 | 6 => one(format!("UPDATE {name} SET v = v || '+' WHERE id % {} = 0", self.rng.random_range(2..6))),
            7 => one(format!("DELETE FROM {name} WHERE id % {} = 1", self.rng.random_range(3..8))),
            8 => one(format!("ALTER TABLE {name} RENAME TO {base}_r{round}")),
            9 => one(format!(
                "CREATE TABLE s0.new_{round} (id int PRIMARY KEY, v text); INSERT INTO s0.new_{round} VALUES (1, 'new')"
            )),
            10 => one(format!("VACUUM FULL {name}")),
            11 => one(format!(
                "CREATE TABLE scratch (id int PRIMARY KEY, v text); INSERT INTO scratch SELECT * FROM {name} ON CONFLICT DO NOTHING; DROP TABLE scratch"
            )),
            12 => one(format!("ALTER TABLE {name} SET SCHEMA s{}", self.rng.random_range(0..3))),
            13 => vec![format!("ALTER TABLE {name} SET UNLOGGED"), write, format!("ALTER TABLE {name} SET LOGGED")],
            14 => one(format!("TRUNCATE {name}")),
            15 => one(format!(
                "DROP TABLE {name}; CREATE TABLE {name} (id int PRIMARY KEY, v text); INSERT INTO {name} VALUES (5, 'again')"
            )),
            16 => {
                let other = &names[self.rng.random_range(0..names.len())];
                let other_base = other.split_once('.').unwrap().1;
                one(format!(
                    "ALTER TABLE {name} RENAME TO swapped_; ALTER TABLE {other} RENAME TO {base}; ALTER TABLE {schema}.swapped_ RENAME TO {other_base}"
                ))
            }
            17 => {
                let drop = format!("ALTER PUBLICATION walferry DROP TABLE ONLY {name}");
                let put_back = format!("ALTER PUBLICATION walferry ADD TABLE ONLY {name}");
                if self.rng.random_bool(0.5) { vec![drop, write, put_back] } else { vec![drop, write] }
            }
            kind => self.change_of_publication_or_partition(kind, round, write).await,
        }
    }

    /// The same for what is not about a single table.
    async fn change_of_publication_or_partition(&mut self, kind: u32, round: usize, write: String) -> Vec<String> {
        let one = |sql: String| vec![sql];
        match kind {
            18 => vec![
                "ALTER PUBLICATION walferry SET (publish = 'insert')".to_owned(),
                write,
                "ALTER PUBLICATION walferry SET (publish = 'insert, update, delete, truncate')".to_owned(),
            ],
            19 => {
                let Some((_, parent, _)) = self.partition().await else { return Vec::new() };
                one(format!(
                    "CREATE TABLE s1.late_{round} PARTITION OF {parent} FOR VALUES FROM (300) TO (400); INSERT INTO s1.late_{round} VALUES (305, 'late')"
                ))
            }
            20 => {
                let sql = "SELECT i.inhrelid::regclass::text, i.inhparent::regclass::text FROM pg_inherits i \
                     JOIN pg_class c ON c.oid = i.inhrelid WHERE NOT c.relispartition AND c.relkind = 'r' ORDER BY i.inhrelid";
                let found = self.source.query(sql, &[]).await.unwrap();
                found.first().map(|row| (row.get::<_, String>(0), row.get::<_, String>(1))).map_or_else(
                    Vec::new,
                    |(child, parent)| {
                        one(format!("ALTER TABLE {child} NO INHERIT {parent}; UPDATE {child} SET v = v || '-'"))
                    },
                )
            }
            21 => one(format!(
                "ALTER PUBLICATION walferry SET (publish_via_partition_root = {})",
                if self.rng.random_bool(0.5) { "true" } else { "false" }
            )),
            22 | 23 => {
                let Some((detached, parent, child)) = self.partition().await else { return Vec::new() };
                let detach = format!("ALTER TABLE {parent} DETACH PARTITION {child}");
                let attach = format!("ALTER TABLE {parent} ATTACH PARTITION {child} {}", detached.bound);
                let write = format!("UPDATE {child} SET v = v || '/'");
                if self.rng.random_bool(0.5) {
                    return vec![detach, write, attach];
                }
                self.detached.push(detached);
                vec![detach, write]
            }
            _ => {
                let Some(detached) = self.detached.pop() else { return Vec::new() };
                let both = (self.name(detached.parent).await, self.name(detached.child).await);
                let (Some(parent), Some(child)) = both else { return Vec::new() };
                one(format!("ALTER TABLE {parent} ATTACH PARTITION {child} {}", detached.bound))
            }
        }
    }

    /// Makes a change, as far as the source takes it: not every one is possible.
    async fn make(&mut self, round: usize) {
        for statement in self.change(round).await {
            match self.source.batch_execute(&statement).await {
                Ok(()) => eprintln!("  {statement}"),
                Err(error) => eprintln!("  {statement}: {}", error.as_db_error().map_or("", |e| e.message())),
            }
        }
    }
}

/// Whether the filter lets in a table of this name, with those above it: told from
/// the words of [`filter`], not by what is tested.
fn lets_in(filter: &[&str], chain: &[String]) -> bool {
    let is_in = |list: &str, part: &dyn Fn(&String) -> String| {
        chain.iter().any(|name| list.split(',').any(|wanted| wanted == part(name)))
    };
    let whole = |name: &String| name.clone();
    let schema = |name: &String| name.split('.').next().unwrap().to_owned();
    let is_root = || chain.iter().any(|name| name.split('.').nth(1).unwrap().starts_with("root"));
    filter.chunks(2).all(|words| match words {
        ["--tables", "*.root*"] => is_root(),
        ["--tables", list] => is_in(list, &whole),
        ["--schemas", list] => is_in(list, &schema),
        ["--exclude-tables", list] => !is_in(list, &whole),
        ["--exclude-schemas", list] => !is_in(list, &schema),
        other => panic!("{other:?}"),
    })
}

/// The application's tables by oid, each with its name and those of the partitioned
/// tables above it.
async fn chains(source: &Client) -> Vec<(u32, Vec<String>)> {
    let sql = "SELECT c.oid, format('%I.%I', m.nspname, c.relname) || ARRAY(SELECT format('%I.%I', n.nspname, a.relname) \
             FROM pg_partition_ancestors(c.oid) AS up JOIN pg_class a ON a.oid = up JOIN pg_namespace n ON n.oid = a.relnamespace \
             WHERE up <> c.oid) \
         FROM pg_class c JOIN pg_namespace m ON m.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p') AND m.nspname ~ '^(s[0-2]|public)$' ORDER BY 1";
    source.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Who is a partition of whom, or inherits from whom, both of these tables.
async fn partitions(client: &Client, tables: &[String]) -> Vec<String> {
    let sql = "SELECT c.oid::regclass || ' of ' || i.inhparent::regclass FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE c.relkind IN ('r', 'p') AND c.oid = ANY ($1::text[]::regclass[]::oid[]) \
             AND i.inhparent = ANY ($1::text[]::regclass[]::oid[]) ORDER BY 1";
    client.query(sql, &[&tables]).await.unwrap().iter().map(|row| row.get(0)).collect()
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

/// The tables of rows that check says take part.
async fn listed(source: &Client, check: &str) -> BTreeSet<String> {
    let document: serde_json::Value = serde_json::from_str(check).unwrap();
    let part = |table: &serde_json::Value, part: &str| table[part].as_str().unwrap().to_owned();
    let tables = document["tables"].as_array().unwrap();
    let (schemas, names): (Vec<String>, Vec<String>) =
        tables.iter().map(|table| (part(table, "schema"), part(table, "name"))).unzip();
    let sql = "SELECT c.oid::regclass::text FROM unnest($1::text[], $2::text[]) AS listed (schema, name) \
         JOIN pg_namespace n ON n.nspname = schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = name AND c.relkind = 'r'";
    source.query(sql, &[&schemas, &names]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn case(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (sql, names) = database(&mut rng);
    let filter = filter(&mut rng, &names);
    eprintln!("case {seed}: {filter:?}\n{}", sql.join(";\n"));
    let fixtures: Vec<&str> = sql.iter().map(String::as_str).collect();
    let filter: Vec<&str> = filter.iter().map(String::as_str).collect();
    let pair = Pair::builder().start().await;
    pair.source_sql("SET search_path = public").await;
    execute(&pair.source_client().await, &fixtures).await;
    // What check passes, run does; a refusal of both is an answer, too.
    let checked = Walferry::run(&pair, &[&["check", "--json"], &filter[..]].concat(), PATIENCE);
    if checked.status.code() == Some(3) {
        Walferry::run(&pair, &[&["run", "--until", "caught-up"], &filter[..]].concat(), PATIENCE).code(3);
        return;
    }
    let journey = Journey::on(pair, &[], &filter).await;
    let before = members(&journey.source, &journey.target).await;
    let arrived: BTreeSet<String> = before.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(arrived, listed(&journey.source, &checked.stdout).await, "what check lists");
    let leaves: Vec<&String> = before.iter().map(|(name, _)| name).collect();
    for name in published(&journey.source).await {
        assert!(leaves.contains(&&name), "{name} is published and takes no part: {leaves:?}");
    }
    let first: Vec<u32> =
        chains(&journey.source).await.into_iter().filter(|(_, chain)| lets_in(&filter, chain)).map(|it| it.0).collect();
    let rounds = rng.random_range(3..9);
    let owner = connect(&journey.pair.source_owner_uri()).await;
    let mut world = World { source: &owner, rng, detached: Vec::new() };
    for round in 0..rounds {
        world.make(round).await;
    }
    if reach_the_end(&journey, &filter).await == End::LeftOut {
        return;
    }
    let now = chains(&journey.source).await.into_iter();
    let taking_part: Vec<String> = now
        .filter(|(oid, chain)| first.contains(oid) || lets_in(&filter, chain))
        .map(|(_, chain)| chain[0].clone())
        .collect();
    for name in &taking_part {
        let ours = rows(&journey.source, name).await.unwrap();
        assert_eq!(rows(&journey.target, name).await.unwrap(), ours, "{name}");
    }
    let ours = partitions(&journey.source, &taking_part).await;
    assert_eq!(partitions(&journey.target, &taking_part).await, ours);
}

/// How a case ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// With equal sides, or on the way there.
    Equal,
    /// With words about a filter that leaves out what is needed: the operator's choice.
    LeftOut,
}

/// Catches up, and does what each stop says is to be done, until nothing is left.
async fn reach_the_end(journey: &Journey, filter: &[&str]) -> End {
    for _ in 0..STOPS {
        let ended = Walferry::run(&journey.pair, &[&["catchup"], filter].concat(), PATIENCE);
        eprintln!("{}", ended.stderr);
        match ended.status.code() {
            Some(0) => return End::Equal,
            Some(7 | 8) if follow(journey, filter, &ended.stderr).await == End::LeftOut => return End::LeftOut,
            Some(7 | 8) => {}
            code => panic!("it ended with {code:?}"),
        }
    }
    panic!("what {STOPS} stops said did not lead to the end");
}

/// Does what the last words of a stop say.
async fn follow(journey: &Journey, filter: &[&str], stderr: &str) -> End {
    let words = stderr.rsplit_once("error:").map_or(stderr, |(_, last)| last);
    let mut done = 0;
    for line in words.lines() {
        for (place, sql) in statements(line) {
            let client = if place == "source" { &journey.source } else { &journey.target };
            let sql = with_bounds(&journey.source, &sql).await;
            eprintln!("  on the {place}: {sql}");
            client.batch_execute(&sql).await.unwrap();
            done += 1;
        }
        for command in ["resync", "add"] {
            for rest in line.split(&format!("walferry {command} '")).skip(1) {
                let table = rest.split('\'').next().unwrap();
                let ended = Walferry::run(&journey.pair, &[&[command, table], filter].concat(), PATIENCE);
                eprintln!("  walferry {command} {table}\n{}", ended.stderr);
                if let Some((_, sql)) = ended.stderr.split_once("rename it there first: ") {
                    let sql = sql.lines().next().unwrap();
                    eprintln!("  on the target: {sql}");
                    journey.target.batch_execute(sql).await.unwrap();
                }
                if let Some((_, sql)) = ended.stderr.split_once("the owner of the tables can mend it:\n") {
                    let sql = sql.lines().next().unwrap();
                    eprintln!("  on the source: {sql}");
                    journey.source.batch_execute(sql).await.unwrap();
                }
                if ended.stderr.contains("which the filter leaves out; let that in as well") {
                    return End::LeftOut;
                }
                done += 1;
            }
        }
    }
    assert!(done > 0, "nothing in it can be done: {words}");
    End::Equal
}

/// The SQL in a remedy, and where it is to be run.
fn statements(line: &str) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for marker in ["on the target: ", "on the target as well: ", "as well, then start again: ", "do the same there: "] {
        let Some((_, sql)) = line.split_once(marker) else { continue };
        let is_sql = |sql: &&str| ["ALTER ", "DROP ", "CREATE "].iter().any(|verb| sql.starts_with(verb));
        found.extend(sql.split(';').map(str::trim).take_while(is_sql).map(|sql| ("target", sql.to_owned())));
    }
    if let Some((_, sql)) = line.split_once("make it logged on the source (") {
        found.push(("source", sql.split(';').next().unwrap().to_owned()));
    }
    if let Some((_, sql)) = line.split_once("set it as it was (") {
        found.push(("source", sql.split(';').next().unwrap().to_owned()));
    }
    if line.contains("mend the publication") {
        let sql = "ALTER PUBLICATION walferry SET (publish = 'insert, update, delete, truncate')";
        found.push(("source", sql.to_owned()));
    }
    found
}

/// A partition's bounds are read by whoever attaches it.
async fn with_bounds(source: &Client, sql: &str) -> String {
    let Some((sql, _)) = sql.split_once(" … (its bounds as on the source)") else { return sql.to_owned() };
    let child = sql.rsplit(' ').next().unwrap();
    let bound = "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = $1::text::regclass";
    let bound: String = source.query_one(bound, &[&child]).await.unwrap().get(0);
    format!("{sql} {bound}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_part_is_published_and_arrives_or_is_named() {
    let seed = workload::seed();
    let cases = std::env::var("WALFERRY_TEST_CASES").map_or(CASES, |text| text.parse().unwrap());
    for case_number in 0..cases {
        case(seed.wrapping_add(case_number)).await;
    }
}
