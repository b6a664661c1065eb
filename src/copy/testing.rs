//! A throwaway server for the tests of schema and copy: a source database and
//! a target database whose owner is an ordinary role.
//!
//! Invariant: the server stops and its files go when the value is dropped.

use tokio_util::sync::CancellationToken;

use super::{CopyContext, CopyError};
use crate::config::{SchemaMode, Settings, Side};
use crate::demo::cluster::Cluster;
pub(crate) use crate::demo::cluster::SUPERUSER;
use crate::lsn::EndLsn;
use crate::observe::metrics::Metrics;
use crate::observe::progress::Progress;
use crate::session::Session;
use crate::state::State;
use crate::testing::{begun, cluster, over_socket, settings};

/// Owner of the target database, and of nothing else.
pub(crate) const OWNER: &str = "doadmin";
/// May replicate and owns its tables on the source, and nothing else.
pub(crate) const APP: &str = "app";

/// A cluster with the databases "source" and "target", and a migration between
/// them that has begun: what a test cuts off is the copy, not this.
pub(crate) struct Server(Cluster);

impl Server {
    /// Starts it; both databases are empty.
    pub(crate) async fn start() -> Self {
        let server = Server(cluster().start().unwrap());
        let admin = server.session(Side::Source, SUPERUSER, "postgres").await;
        for sql in [
            "CREATE ROLE doadmin LOGIN NOSUPERUSER",
            "CREATE ROLE app LOGIN REPLICATION NOSUPERUSER",
            "CREATE DATABASE source OWNER app",
            "CREATE DATABASE target OWNER doadmin",
        ] {
            admin.batch_execute(sql).await.unwrap();
        }
        begun(server.target().await, "source").await;
        server
    }

    async fn session(&self, side: Side, user: &str, dbname: &str) -> Session {
        Session::connect(&over_socket(&self.0, side, user, dbname), "test").await.unwrap()
    }

    pub(crate) async fn source(&self, user: &str) -> Session {
        self.session(Side::Source, user, "source").await
    }

    pub(crate) async fn target(&self) -> Session {
        self.session(Side::Target, OWNER, "target").await
    }

    pub(crate) fn settings(&self, user: &str, schema: SchemaMode) -> Settings {
        let source = over_socket(&self.0, Side::Source, user, "source");
        let target = over_socket(&self.0, Side::Target, OWNER, "target");
        Settings { pg_bin: Some(self.0.server().bin_dir.clone()), ..settings(source, target, schema) }
    }

    /// The migration's state, on a session of its own.
    pub(crate) async fn state(&self, settings: &Settings) -> State {
        assert_eq!(settings.name, crate::testing::NAME);
        begun(self.target().await, &settings.source.dbname).await
    }

    /// Runs the copy until it ends or `shutdown` is cancelled.
    pub(crate) async fn copy(&self, settings: &Settings, shutdown: &CancellationToken) -> Result<EndLsn, CopyError> {
        let state = self.state(settings).await;
        let (metrics, progress) = (Metrics::new().unwrap(), Progress::lines());
        super::run(&CopyContext {
            settings,
            state: &state,
            metrics: &metrics,
            progress: &progress,
            shutdown,
            memory: &super::Memory::default(),
        })
        .await
    }
}
