//! A throwaway server for the tests of the sweeps: two databases on a Unix
//! socket, and the roles that matter.
//!
//! Invariant: the last test that lets go of the server stops it and removes
//! its files. The migration's target role is an ordinary owner.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::config::{ConnInfo, Side};
use crate::demo::cluster::Cluster;
pub use crate::demo::cluster::SUPERUSER;
use crate::session::Session;
use crate::state::State;
use crate::testing::{begun, cluster, over_socket};

/// Owns the source database; nothing more.
pub const SOURCE_OWNER: &str = "source_owner";
/// Reads everything on the source; owns nothing.
pub const SOURCE_READER: &str = "source_reader";
/// Owns the target database; nothing more.
pub const TARGET_OWNER: &str = "target_owner";

static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The server of all tests that run now, with the roles.
fn shared() -> Arc<Cluster> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = shared.upgrade() {
        return cluster;
    }
    let cluster = Arc::new(cluster().start().unwrap());
    for role in [SOURCE_OWNER, SOURCE_READER, TARGET_OWNER] {
        admin(&cluster, &format!("CREATE ROLE {role} LOGIN"));
    }
    // The role to inherit from came with 14.
    if cluster.server().major >= 14 {
        admin(&cluster, &format!("GRANT pg_read_all_data TO {SOURCE_READER}"));
    }
    *shared = Arc::downgrade(&cluster);
    cluster
}

fn admin(cluster: &Cluster, sql: &str) {
    cluster.psql(SUPERUSER, "postgres", sql).unwrap();
}

/// A source database, a target database and a migration between them.
pub struct Pair {
    cluster: Arc<Cluster>,
    number: u32,
}

impl Pair {
    /// Two empty databases and the roles.
    pub async fn new() -> Self {
        let pair = Pair { cluster: shared(), number: DATABASES.fetch_add(1, Ordering::Relaxed) };
        for (side, owner) in [(Side::Source, SOURCE_OWNER), (Side::Target, TARGET_OWNER)] {
            admin(&pair.cluster, &format!("CREATE DATABASE {} OWNER {owner}", pair.database(side)));
        }
        pair
    }

    fn database(&self, side: Side) -> String {
        format!("{side}_{}", self.number)
    }

    /// Where one side is, for a role.
    pub fn info(&self, side: Side, user: &str, dbname: &str) -> ConnInfo {
        over_socket(&self.cluster, side, user, dbname)
    }

    /// Where the target is, for a role.
    pub fn target_info(&self, user: &str) -> ConnInfo {
        self.info(Side::Target, user, &self.database(Side::Target))
    }

    /// Where the source is, for a role.
    pub fn source_info(&self, user: &str) -> ConnInfo {
        self.info(Side::Source, user, &self.database(Side::Source))
    }

    async fn connect(&self, side: Side, user: &str) -> Session {
        Session::connect(&self.info(side, user, &self.database(side)), "walferry-test").await.unwrap()
    }

    /// A session on the source.
    pub async fn source(&self, user: &str) -> Session {
        self.connect(Side::Source, user).await
    }

    /// A session on the target.
    pub async fn target(&self, user: &str) -> Session {
        self.connect(Side::Target, user).await
    }

    /// The state of a migration that has begun, on a session of its own.
    pub async fn state(&self) -> State {
        begun(self.target(TARGET_OWNER).await, &self.database(Side::Source)).await
    }
}
