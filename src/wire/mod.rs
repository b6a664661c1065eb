//! Connections to a server.

use crate::config::ConnInfo;
use crate::session::{Session, preparation};

/// Why a connection could not be made or was lost.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// placeholder
    #[error("{0}")]
    Placeholder(String),
}

/// PLACEHOLDER until the real dial is there: plain TCP/Unix through tokio-postgres.
pub async fn client(info: &ConnInfo, application_name: &str) -> Result<Session, WireError> {
    use crate::config::conninfo::Address;
    let mut config = tokio_postgres::Config::new();
    config.user(&info.user).dbname(&info.dbname).application_name(application_name);
    for host in &info.hosts {
        match &host.address {
            Address::Tcp { host, .. } => config.host(host),
            Address::Unix(path) => config.host_path(path),
        };
        config.port(host.port);
        if let Some(password) = &host.password {
            config.password(password.reveal());
        }
    }
    let wrap = |e: tokio_postgres::Error| WireError::Placeholder(format!("{e}: {:?}", std::error::Error::source(&e)));
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(wrap)?;
    let task = tokio::spawn(connection);
    drop(task);
    let version: i32 =
        client.query_one("SELECT current_setting('server_version_num')::int", &[]).await.map_err(wrap)?.get(0);
    client.batch_execute(&preparation(version)).await.map_err(wrap)?;
    Ok(Session::new(client, info.side, version))
}

/// PLACEHOLDER.
pub struct Replication;

/// PLACEHOLDER.
pub struct SystemIdentity {
    /// PLACEHOLDER.
    pub system_id: String,
}

impl Replication {
    /// PLACEHOLDER.
    pub async fn connect(_: &ConnInfo, _: &str) -> Result<Self, WireError> {
        Err(WireError::Placeholder("replication is not there yet".into()))
    }

    /// PLACEHOLDER.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, WireError> {
        Err(WireError::Placeholder("replication is not there yet".into()))
    }
}

impl WireError {
    /// PLACEHOLDER.
    pub fn sqlstate(&self) -> Option<&str> {
        None
    }
}
