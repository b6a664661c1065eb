//! A source and a target, each a cluster of its own, with the roles of a
//! profile of `tests/support/profiles`, asserted before a test may use them.

use std::path::{Path, PathBuf};

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use walferry::demo::cluster::{Cluster, ClusterBuilder, SUPERUSER};
use walferry::demo::server::Server;

use super::{connect, server, servers, target_dir};

/// The database on either side.
pub const DATABASE: &str = "shop";

/// The password of every role.
pub const PASSWORD: &str = "x";

/// The same as a server keeps it (RFC 5803), of one round instead of 4096: a test logs in
/// a hundred times.
const VERIFIER: &str = "SCRAM-SHA-256$1:d2FsZmVycnkgdGVzdCBraQ==\
    $6Hg1z6T1v2DugaQGN3X8Nwy9PDWBTtErupi5nJiCD2Y=:nJb6Eqlp6QFiRlDrZpo2dFnS0l7Zfd4aUC0Dso/MzSo=";

/// The source's superuser and owner, in the default profile.
pub const APP: &str = "app";

/// What the source's role may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRole {
    /// `app`: superuser, owner of everything.
    Superuser,
    /// `mig_src`: REPLICATION and SELECT only, short timeouts, few slots; the
    /// owner is `app_owner` and makes the publication.
    Restricted,
}

/// What the target's role may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetRole {
    /// `doadmin`: owner of its database, no superuser (DigitalOcean).
    Do,
    /// The same with a definer function for `session_replication_role`.
    DoWrapped,
    /// `fly-user`: member of the schema's owner, not owner of the database.
    Fly,
}

impl TargetRole {
    /// The role's name.
    pub fn name(self) -> &'static str {
        match self {
            TargetRole::Do | TargetRole::DoWrapped => "doadmin",
            TargetRole::Fly => "fly-user",
        }
    }
}

/// A profile file.
pub fn profile(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/profiles").join(name)
}

/// A builder that takes initialised folders from the cache under `target/`.
pub fn cluster(server: &Server) -> ClusterBuilder {
    Cluster::builder(server).templates(target_dir().join("postgres/templates"))
}

/// What to build a pair of.
pub struct PairBuilder {
    source: ClusterBuilder,
    target: ClusterBuilder,
    source_role: SourceRole,
    target_role: TargetRole,
}

impl PairBuilder {
    /// The oldest server on both sides: Debian's, which offers PostgreSQL's extensions.
    pub fn with_extensions(self) -> Self {
        let oldest = servers().remove(0);
        self.servers(&oldest, &oldest)
    }

    /// Servers of these versions.
    pub fn servers(mut self, source: &Server, target: &Server) -> Self {
        (self.source, self.target) = (cluster(source), cluster(target));
        self
    }

    /// Another role on the source.
    pub fn source_role(mut self, role: SourceRole) -> Self {
        self.source_role = role;
        self
    }

    /// Another role on the target.
    pub fn target_role(mut self, role: TargetRole) -> Self {
        self.target_role = role;
        self
    }

    /// A setting of the source server; call it after `servers`.
    pub fn source_setting(mut self, name: &str, value: &str) -> Self {
        self.source = self.source.setting(name, value);
        self
    }

    /// A setting of the target server; call it after `servers`.
    pub fn target_setting(mut self, name: &str, value: &str) -> Self {
        self.target = self.target.setting(name, value);
        self
    }

    /// Starts both and asserts what the roles may not do.
    pub async fn start(self) -> Pair {
        let (source_role, target_role) = (self.source_role, self.target_role);
        let target = self.target;
        let other = std::thread::spawn(move || start_target(target, target_role));
        let source = start_source(self.source, source_role);
        let target = other.join().expect("the target starts");
        let pair = Pair { source, target, source_role, target_role };
        assert_source(&pair).await;
        assert_target(&connect(&pair.target_uri()).await, target_role).await;
        pair
    }
}

/// Two running clusters.
pub struct Pair {
    /// The source.
    pub source: Cluster,
    /// The target.
    pub target: Cluster,
    source_role: SourceRole,
    target_role: TargetRole,
}

impl Pair {
    /// Superuser source, do-like target, the test's server on both sides.
    pub fn builder() -> PairBuilder {
        let server = server();
        PairBuilder {
            source: cluster(&server),
            target: cluster(&server),
            source_role: SourceRole::Superuser,
            target_role: TargetRole::Do,
        }
    }

    /// The source as walferry's role.
    pub fn source_uri(&self) -> String {
        match self.source_role {
            SourceRole::Superuser => self.source.uri(APP, PASSWORD, DATABASE),
            SourceRole::Restricted => self.source.uri("mig_src", PASSWORD, DATABASE),
        }
    }

    /// The source as the owner of the tables (over the socket).
    pub fn source_owner_uri(&self) -> String {
        match self.source_role {
            SourceRole::Superuser => self.source_uri(),
            SourceRole::Restricted => self.source.socket_uri("app_owner", DATABASE),
        }
    }

    /// The target as the restricted role.
    pub fn target_uri(&self) -> String {
        self.target.uri(self.target_role.name(), PASSWORD, DATABASE)
    }

    /// A session of the source's tables' owner.
    pub async fn source_client(&self) -> Client {
        match self.source_role {
            SourceRole::Superuser => connect(&self.source_uri()).await,
            // NOLOGIN, so through the superuser.
            SourceRole::Restricted => {
                let client = connect(&self.source.socket_uri(SUPERUSER, DATABASE)).await;
                client.batch_execute("SET ROLE app_owner").await.unwrap();
                client
            }
        }
    }

    /// A session of the target's restricted role.
    pub async fn target_client(&self) -> Client {
        connect(&self.target_uri()).await
    }

    /// Runs SQL as the owner of the source's tables.
    pub async fn source_sql(&self, sql: &str) {
        self.source_client().await.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
    }

    /// Panics unless both databases are equal. Large objects are read as their owners.
    pub async fn assert_equal(&self) {
        let source = self.source_client().await;
        let compared = walferry::demo::compare::compare(&source, &self.target_client().await).await.unwrap();
        let differences = walferry::demo::compare::differences(&compared);
        assert!(differences.is_empty(), "the two databases differ:\n{differences}");
    }
}

fn start_source(builder: ClusterBuilder, role: SourceRole) -> Cluster {
    let builder = match role {
        SourceRole::Superuser => with_profile(builder, "postgres", "source_superuser.sql"),
        SourceRole::Restricted => {
            let builder = builder.setting("max_replication_slots", "5").setting("max_slot_wal_keep_size", "64MB");
            with_profile(builder, "postgres", "source_restricted.sql")
        }
    };
    builder.start().unwrap()
}

fn start_target(builder: ClusterBuilder, role: TargetRole) -> Cluster {
    let builder = match role {
        TargetRole::Do => with_profile(builder, "postgres", "target_do.sql"),
        TargetRole::DoWrapped => {
            let builder = with_profile(builder, "postgres", "target_do.sql");
            with_profile(builder, DATABASE, "target_do_wrapped.sql")
        }
        TargetRole::Fly => with_profile(builder, "postgres", "target_fly.sql"),
    };
    builder.start().unwrap()
}

/// The profiles reconnect with \connect, which keeps the socket and the user.
fn with_profile(builder: ClusterBuilder, database: &str, name: &str) -> ClusterBuilder {
    builder.script(database, profile(name), &[&format!("db={DATABASE}"), &format!("verifier={VERIFIER}")])
}

/// Panics unless the statement is refused for want of a right (42501). It runs
/// in a transaction that is rolled back.
pub async fn assert_denied(client: &Client, sql: &str) {
    client.batch_execute("BEGIN").await.unwrap();
    let outcome = client.batch_execute(sql).await;
    client.batch_execute("ROLLBACK").await.unwrap();
    let error = outcome.err().unwrap_or_else(|| panic!("the profile has drifted: {sql} is allowed"));
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}: {error:?}");
}

/// Asserts that a session's role has neither of the two attributes.
async fn assert_attributes(client: &Client, superuser: bool, replication: bool) {
    let sql = "SELECT rolsuper, rolreplication FROM pg_roles WHERE rolname = current_user";
    let row = client.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, bool>(0), row.get::<_, bool>(1)), (superuser, replication), "the profile has drifted");
}

async fn assert_source(pair: &Pair) {
    let client = connect(&pair.source_uri()).await;
    match pair.source_role {
        SourceRole::Superuser => assert_attributes(&client, true, true).await,
        SourceRole::Restricted => {
            assert_attributes(&client, false, true).await;
            assert_denied(&client, "CREATE PUBLICATION probe").await;
            assert_denied(&client, "CREATE TABLE public.probe ()").await;
        }
    }
}

/// The probe list of the restricted targets.
async fn assert_target(client: &Client, role: TargetRole) {
    assert_attributes(client, false, false).await;
    for sql in [
        "SET session_replication_role = replica",
        "CREATE SUBSCRIPTION probe CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false)",
        "SELECT pg_replication_origin_create('probe')",
        "SELECT pg_replication_origin_session_setup('probe')",
        "SELECT pg_replication_origin_advance('probe', '0/1')",
        "CREATE PUBLICATION probe FOR ALL TABLES",
        "SELECT pg_create_logical_replication_slot('probe', 'pgoutput')",
        "SELECT lo_import('/etc/hostname')",
    ] {
        assert_denied(client, sql).await;
    }
    if role == TargetRole::DoWrapped {
        client.batch_execute("SELECT aiven_extras.session_replication_role('replica')").await.unwrap();
    }
    client.batch_execute("BEGIN; CREATE SCHEMA probe; SELECT pg_advisory_xact_lock(1); ROLLBACK").await.unwrap();
}
