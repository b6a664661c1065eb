//! What the tests of several modules stand on: throwaway clusters
//! ([`crate::demo::cluster`]), connection strings and settings of them, and a
//! migration that has begun.
//!
//! Invariant: nothing here outlives its value.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use crate::config::conninfo::{
    Address, ChannelBinding, ConnInfo, Host, RootCert, SslMode, SslNegotiation, TargetSessionAttrs,
};
use crate::config::{BatchBounds, Provenance, Publications, SchemaMode, Settings, Side, Values};
use crate::demo::cluster::{Cluster, ClusterBuilder};
use crate::demo::server::Server;
use crate::session::Session;
use crate::state::State;
use crate::state::migration::SourceIdentity;

/// The name of every migration, slot and publication.
pub(crate) const NAME: &str = "walferry";

/// A cluster of the oldest server there is; its initialised folder comes from
/// the cache under `target/`, which the integration tests use as well.
pub(crate) fn cluster() -> ClusterBuilder {
    let server = Server::find_all().expect("run scripts/postgres.sh, or `make test`").remove(0);
    // target/debug/deps/walferry-…
    let executable = std::env::current_exe().unwrap();
    let target = executable.ancestors().nth(3).unwrap_or_else(|| Path::new("target"));
    Cluster::builder(&server).templates(target.join("postgres/templates"))
}

/// A connection to a host as a role without a password, without TLS.
pub(crate) fn conninfo(side: Side, host: Host, user: &str, dbname: &str) -> ConnInfo {
    ConnInfo {
        side,
        hosts: vec![host],
        user: user.to_owned(),
        dbname: dbname.to_owned(),
        sslmode: SslMode::Disable,
        sslrootcert: RootCert::Default,
        sslcert: None,
        sslkey: None,
        sslnegotiation: SslNegotiation::Postgres,
        channel_binding: ChannelBinding::Prefer,
        require_auth: None,
        target_session_attrs: TargetSessionAttrs::Any,
        connect_timeout: Duration::from_secs(10),
        options: None,
    }
}

/// A host by name, reached on this machine.
pub(crate) fn host(name: &str, port: u16) -> Host {
    let hostaddr = Some(Ipv4Addr::LOCALHOST.into());
    Host { address: Address::Tcp { host: name.into(), hostaddr }, port, password: None }
}

/// A database of a cluster over its Unix socket, where nobody needs a password.
pub(crate) fn over_socket(cluster: &Cluster, side: Side, user: &str, dbname: &str) -> ConnInfo {
    let address = Address::Unix(cluster.socket_dir().to_owned());
    conninfo(side, Host { address, port: cluster.port(), password: None }, user, dbname)
}

/// Settings of a migration between these two, with small bounds.
pub(crate) fn settings(source: ConnInfo, target: ConnInfo, schema: SchemaMode) -> Settings {
    let declared = Settings::between(source, target, &Values::default()).unwrap();
    Settings {
        schema,
        jobs: 3,
        index_jobs: 3,
        part_size: 1 << 20,
        retry_for: Duration::from_secs(10),
        batch: BatchBounds { rows: 1000, bytes: 1 << 20 },
        queue_bytes: 1 << 20,
        ..declared
    }
}

/// The state of a migration from the database `source`, begun unless it is, on
/// the target's session.
pub(crate) async fn begun(target: Session, source: &str) -> State {
    let state = State::install(target, NAME).await.unwrap();
    if state.load().await.unwrap().is_none() {
        let source = SourceIdentity {
            system_identifier: "1".to_owned(),
            timeline: 1,
            database: source.to_owned(),
            version: 150_000,
        };
        let ours = Provenance::Ours(NAME.to_owned());
        state.begin(&source, &ours, &Publications::Ours(NAME.to_owned())).await.unwrap();
    }
    state
}
