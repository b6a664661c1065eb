//! What is copied.

use crate::contenders;
use crate::error::BenchError;
use crate::servers::{DATABASE, SOURCE_ROLE, Servers};

/// One large table: pgbench_accounts, and its three small companions.
pub const LARGE: &str = "large";

/// Many small tables.
pub const SMALL: &str = "small";

/// How many these are.
const SMALL_TABLES: u32 = 200;

/// Rows of each.
const SMALL_ROWS: u32 = 1000;

/// A set of tables.
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// What it is, in words.
    pub title: String,
    tables: Tables,
}

/// How the tables come into being.
enum Tables {
    /// By `pgbench -i` of this scale.
    Pgbench(u64),
    /// By this statement.
    Sql(String),
}

/// All workloads.
pub fn all(scale: u64) -> Vec<Workload> {
    let small = format!(
        "DO $$ BEGIN FOR n IN 1..{SMALL_TABLES} LOOP \
            EXECUTE format('CREATE TABLE small_%s (id int PRIMARY KEY, owner int NOT NULL, note text, at timestamptz)', n); \
            EXECUTE format('INSERT INTO small_%s SELECT i, i %% 10, md5(i::text), now() FROM generate_series(1, {SMALL_ROWS}) i', n); \
            EXECUTE format('CREATE INDEX ON small_%s (owner)', n); \
        END LOOP; END $$"
    );
    vec![
        Workload {
            name: LARGE,
            title: format!("pgbench tables of scale {scale}, {} rows", scale * 100_000),
            tables: Tables::Pgbench(scale),
        },
        Workload {
            name: SMALL,
            title: format!("{SMALL_TABLES} tables of {SMALL_ROWS} rows, two indexes each"),
            tables: Tables::Sql(small),
        },
    ]
}

impl Workload {
    /// Makes the tables on the source.
    pub fn prepare(&self, servers: &Servers) -> Result<(), BenchError> {
        contenders::clear(servers)?;
        let admin = servers.sql(&servers.source, "postgres")?;
        admin.run(&format!("CREATE DATABASE {DATABASE} OWNER {SOURCE_ROLE}"))?;
        let source = servers.sql(&servers.source, DATABASE)?;
        match &self.tables {
            Tables::Pgbench(scale) => {
                servers.pgbench(&["-i", "-q", "-s", &scale.to_string()])?;
                source.run("ALTER TABLE pgbench_history REPLICA IDENTITY FULL")?;
            }
            Tables::Sql(sql) => source.run(sql)?,
        }
        source.run("VACUUM ANALYZE")
    }
}
