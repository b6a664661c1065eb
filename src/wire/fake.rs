//! A scripted server for tests: it says what it is told to, byte by byte.
//!
//! Invariant: nothing of it looks at what it is asked; the script does.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::testing::{conninfo, durable};
use super::{Messages, PgoutputOptions, Replication, ReplicationReader, StatusWriter, Streaming, WireError};
use crate::config::conninfo::ConnInfo;

/// One message.
pub(crate) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// An ErrorResponse.
pub(crate) fn error(severity: &str, sqlstate: &str, message: &str) -> Vec<u8> {
    frame(b'E', format!("S{severity}\0V{severity}\0C{sqlstate}\0M{message}\0\0").as_bytes())
}

/// A keepalive in CopyData; `reply` asks for an answer.
pub(crate) fn keepalive(wal_end: u64, reply: u8) -> Vec<u8> {
    frame(b'd', &[&b"k"[..], &wal_end.to_be_bytes(), &0i64.to_be_bytes(), &[reply]].concat())
}

/// A message of pgoutput in CopyData.
pub(crate) fn data(at: u64, payload: &[u8]) -> Vec<u8> {
    frame(b'd', &[&b"w"[..], &at.to_be_bytes(), &at.to_be_bytes(), &5i64.to_be_bytes(), payload].concat())
}

/// A server on a free port; the script gets its first connection.
pub(crate) async fn serve<F, R, T>(script: F) -> (ConnInfo, JoinHandle<T>)
where
    F: FnOnce(Fake) -> R + Send + 'static,
    R: Future<Output = T> + Send,
    T: Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let info = conninfo(listener.local_addr().unwrap().port());
    let task = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        script(Fake { socket }).await
    });
    (info, task)
}

/// The server's end of a connection.
pub(crate) struct Fake {
    pub(crate) socket: TcpStream,
}

impl Fake {
    /// Sends these bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// The startup message, without its length.
    pub(crate) async fn startup(&mut self) -> Vec<u8> {
        let length = self.socket.read_u32().await.unwrap();
        let mut body = vec![0; length as usize - 4];
        self.socket.read_exact(&mut body).await.unwrap();
        body
    }

    /// The client's next message.
    pub(crate) async fn message(&mut self) -> (u8, Vec<u8>) {
        let tag = self.socket.read_u8().await.unwrap();
        (tag, self.startup().await)
    }

    /// Lets the client in and answers its preparation.
    pub(crate) async fn greet(&mut self) {
        self.let_in().await;
        assert_eq!(self.message().await.0, b'Q');
        self.send(&[frame(b'C', b"SELECT 1\0"), frame(b'Z', b"I")].concat()).await;
    }

    /// Lets the client in.
    pub(crate) async fn let_in(&mut self) {
        self.startup().await;
        self.send(&frame(b'R', &0u32.to_be_bytes())).await;
        self.send(&frame(b'S', b"server_version\x0015.18 (fake)\0")).await;
        self.send(&frame(b'K', &[0; 8])).await;
        self.send(&frame(b'Z', b"I")).await;
    }

    /// As `greet`, and starts the stream.
    pub(crate) async fn stream(&mut self) {
        self.greet().await;
        let (_, command) = self.message().await;
        assert!(command.starts_with(b"START_REPLICATION SLOT \"s\" LOGICAL 0/10 (proto_version '1'"));
        self.send(&frame(b'W', &[0, 0, 0])).await;
    }
}

/// A stream from the fake server, as [`Fake::stream`] expects it.
pub(crate) async fn start(info: &ConnInfo) -> Result<(ReplicationReader, StatusWriter), WireError> {
    let options = PgoutputOptions {
        proto_version: 1,
        publications: vec!["p".into()],
        messages: Messages::Omit,
        streaming: Streaming::Off,
    };
    Replication::connect(info, "walferry").await?.start("s", durable(0x10), &options).await
}
