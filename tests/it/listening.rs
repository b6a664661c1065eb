//! Where metrics and health are served, and to whom, by the program as it is run.

use std::process::Command;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::migration::{
    Load, PATIENCE, get, get_with, settle, source_admin, traces, until_applied, until_streaming, usual_pair,
};
use crate::support::process::{Walferry, command_for, free_port};
use crate::support::wait_until;

const TOKEN: &str = "7f3c9a1e5b2d8064";

/// What the daemon has, and how many half requests it meets.
const DESCRIPTORS: usize = 256;
const HALF_REQUESTS: usize = 400;

/// The same command, as `ulimit -n` lets it.
fn with_descriptors(command: &Command, most: usize) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\"")]);
    limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

/// The story: on 0.0.0.0 everybody was served; and 1,100 half requests took every descriptor of
/// the daemon, so that neither a scraper nor the migration got another connection.
#[tokio::test(flavor = "multi_thread")]
async fn other_machines_need_a_token_and_half_requests_starve_neither_scraper_nor_stream() {
    let pair = usual_pair().await;
    let port = free_port();
    let arguments = ["run", "--listen", &format!("0.0.0.0:{port}")];
    let refused = Walferry::run(&pair, &arguments, PATIENCE).code(2);
    for words in ["--listen names an address that other machines can reach", "WALFERRY_LISTEN_TOKEN", "token none"] {
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    assert_eq!(traces(&pair).await, [""; 0], "nothing was begun");

    let load = Load::start(&pair).await;
    let mut command = command_for(&pair, &arguments);
    command.env("WALFERRY_LISTEN_TOKEN", TOKEN);
    let daemon = Walferry::spawn(with_descriptors(&command, DESCRIPTORS));
    let daemon = until_streaming(&pair, daemon).await;
    for (token, code) in [(None, 401), (Some("7f3c9a1e5b2d8065"), 401), (Some(TOKEN), 200)] {
        let answer = get_with(port, "/metrics", token).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{token:?}: {answer}");
    }
    assert!(get(port, "/livez").await.starts_with("HTTP/1.1 200 "));

    let mut half = Vec::new();
    for _ in 0..HALF_REQUESTS {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
        half.push(stream);
    }
    let metrics = get_with(port, "/metrics", Some(TOKEN)).await;
    assert!(metrics.contains("\nwalferry_http_accept_failures_total 0\n"), "{metrics}");
    // The stream begins anew beside them.
    let source = source_admin(&pair).await;
    let sender = "SELECT min(active_pid) FROM pg_replication_slots WHERE slot_name = 'walferry'";
    let first: Option<i32> = source.query_one(sender, &[]).await.unwrap().get(0);
    source.execute("SELECT pg_terminate_backend($1)", &[&first.unwrap()]).await.unwrap();
    wait_until("it streams again", PATIENCE, || async {
        let now: Option<i32> = source.query_one(sender, &[]).await.unwrap().get(0);
        now.is_some() && now != first
    })
    .await;
    until_applied(&pair).await;
    settle(&pair, load).await;
    let left = daemon.wait(PATIENCE).code(0);
    assert!(!left.stderr.contains(TOKEN), "{}", left.stderr);
}
