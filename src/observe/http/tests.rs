//! Claims about the server, over real connections.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::TextEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::super::status::{Daemon, Sequences, Table};
use super::connections::GRACE;
use super::*;
use crate::config::{Audience, Secret};
use crate::state::migration::Phase;
use crate::state::tables::TableState;

/// Longer than any test: what must not be what ends a connection.
const NEVER: Duration = Duration::from_secs(3600);

const NEVER_SHORT: Limits = Limits { connections: 64, head: NEVER, whole: NEVER, pause: NEVER };

/// As Linux and the BSDs number it.
const EMFILE: i32 = 24;

const TOKEN: &str = "0123456789abcdef";

fn on(address: &str, said: Option<Audience>) -> Listen {
    Listen::new(ListenAddress::parse(address).unwrap(), said).unwrap()
}

/// A server at work.
struct Served {
    address: SocketAddr,
    hub: Hub,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

impl Served {
    async fn with(limits: Limits, audience: Audience) -> Self {
        let hub = Hub::new(Metrics::new().unwrap());
        let listen = on("127.0.0.1:0", Some(audience.clone()));
        let mut server = HttpServer::bind(&listen, hub.clone()).await.unwrap();
        server.limits = limits;
        // As if it had been named, on a machine of a name that is known here.
        server.guard = Guard::new(&on("Ferry:1", Some(audience)), Some("vm-7.example".to_owned()));
        let (address, shutdown) = (server.listener.local_addr().unwrap(), CancellationToken::new());
        Served { address, hub, server: tokio::spawn(server.run(shutdown.clone())), shutdown }
    }

    async fn usual() -> Self {
        Served::with(NEVER_SHORT, Audience::Everybody).await
    }

    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The whole answer to these bytes.
    async fn asked(&self, request: &str) -> String {
        let mut stream = self.client().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(&self, path: &str) -> String {
        self.asked(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address)).await
    }

    /// The code of the answer to a GET with these headers.
    async fn code(&self, path: &str, headers: &[&str]) -> u16 {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        code(&self.asked(&format!("GET {path} HTTP/1.1\r\n{headers}\r\n")).await)
    }

    async fn end(self) {
        self.shutdown.cancel();
        tokio::time::timeout(GRACE * 5, self.server).await.unwrap().unwrap();
    }
}

fn code(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no code in {answer:?}"))
}

/// Waits until the server has closed this one, what it may still say passed over.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

fn document() -> StatusDocument {
    StatusDocument {
        name: "walferry".to_owned(),
        phase: Phase::Stream,
        position: Some("0/16B3748".to_owned()),
        source_lsn: Some("0/16B3748".to_owned()),
        lag_bytes: Some(0),
        lag_seconds: Some(0.0),
        daemon: Daemon { alive: true, host: Some("<host>".to_owned()), pid: Some(1) },
        slot: None,
        tables: Vec::new(),
        sequences: Sequences { total: 0, behind: 0, last_pass: None, problems: Vec::new() },
        without_stream: Vec::new(),
        large_objects: crate::state::large_objects::LargeObjectsRow::default().into(),
        stopped_because: None,
    }
}

#[tokio::test]
async fn every_page_answers_what_was_published() {
    let served = Served::usual().await;
    assert!(served.get("/livez").await.starts_with("HTTP/1.1 200 "));
    assert!(served.get("/readyz").await.starts_with("HTTP/1.1 503 "));
    assert!(served.get("/status").await.starts_with("HTTP/1.1 503 "));
    served.hub.publish_readiness(Readiness::NotReady("lag 70 s".to_owned()));
    assert!(served.get("/readyz").await.ends_with("not ready: lag 70 s\n"));
    served.hub.publish_readiness(Readiness::Ready);
    served.hub.publish_status(document());
    assert!(served.get("/readyz").await.starts_with("HTTP/1.1 200 "));
    let status = served.get("/status").await;
    let (_, body) = status.split_once("\r\n\r\n").unwrap();
    assert_eq!(serde_json::from_str::<StatusDocument>(body).unwrap(), document());
    let metrics = served.get("/metrics").await.to_lowercase();
    assert!(metrics.contains("content-type: text/plain; version=0.0.4\r\n"), "{metrics}");
    assert!(metrics.contains(r#"walferry_build_info{version=""#), "{metrics}");
    assert!(served.get("/").await.contains("<h1>walferry</h1>"));
    assert!(served.get("/nothing").await.starts_with("HTTP/1.1 404 "));
    served.end().await;
}

/// The story: only `<`, `>` and `&` were escaped, and no header forbade what a
/// name of a table might bring along.
#[tokio::test]
async fn a_table_s_name_is_text_on_the_page_and_no_answer_lets_a_browser_run_or_keep_anything() {
    let served = Served::with(NEVER_SHORT, Audience::Bearer(Secret::new(TOKEN))).await;
    let mut document = document();
    document.tables.push(Table {
        schema: "public".to_owned(),
        name: "\"'><script>alert(1)</script>&amp;".to_owned(),
        state: TableState::Copying,
        rows: 0,
        bytes: 0,
        snapshot_lsn: None,
    });
    served.hub.publish_status(document);
    served.hub.publish_readiness(Readiness::NotReady("<b>\"'".to_owned()));
    let entitled = format!("Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let page = served.asked(&format!("GET / HTTP/1.1\r\n{entitled}")).await;
    assert!(page.contains("&quot;&#39;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;"), "{page}");
    assert!(page.contains("not ready: &lt;b&gt;&quot;&#39;<"), "{page}");
    assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
    for (request, expected) in [
        (format!("GET / HTTP/1.1\r\n{entitled}"), 200),
        (format!("GET /status HTTP/1.1\r\n{entitled}"), 200),
        (format!("GET /nothing HTTP/1.1\r\n{entitled}"), 404),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 200),
        ("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 503),
        ("GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 401),
        ("GET /livez HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), 403),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".to_owned(), 405),
    ] {
        let answer = served.asked(&request).await;
        assert_eq!(code(&answer), expected, "{request}");
        for header in [
            "x-content-type-options: nosniff\r\n",
            "cache-control: no-store\r\n",
            "content-security-policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n",
        ] {
            assert!(answer.contains(header), "{request}{answer}");
        }
    }
    served.end().await;
}

/// The story: 1,100 half requests took every descriptor of the process, and
/// neither a scraper nor the migration itself could open another connection.
#[tokio::test]
async fn the_oldest_connections_make_room_and_a_scraper_is_served_beside_any_number_of_half_requests() {
    let served = Served::with(Limits { connections: 8, ..NEVER_SHORT }, Audience::Everybody).await;
    let mut half = Vec::new();
    for _ in 0..100 {
        let mut stream = served.client().await;
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
        half.push(stream);
    }
    assert_eq!(code(&served.get("/metrics").await), 200);
    // Eight places, one of which the scraper had.
    let kept = half.split_off(100 - 7);
    for mut stream in half {
        closed(&mut stream).await;
    }
    for mut stream in kept {
        stream.write_all(b"\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(code(&answer), 200);
    }
    served.end().await;
}

#[tokio::test]
async fn clients_that_are_silent_or_slow_are_let_go_of() {
    let moment = Duration::from_millis(50);
    for limits in [Limits { head: moment, ..NEVER_SHORT }, Limits { whole: moment, ..NEVER_SHORT }] {
        let served = Served::with(limits, Audience::Everybody).await;
        let (mut silent, mut half, slow) = (served.client().await, served.client().await, served.client().await);
        half.write_all(b"GET /livez HTTP/1.1\r\nHost: loc").await.unwrap();
        closed(&mut silent).await;
        closed(&mut half).await;
        // Each byte that comes in time is no reason to wait for the next.
        let (mut answers, mut sends) = slow.into_split();
        sends.write_all(b"GET /livez HTTP/1.1\r\nX: ").await.unwrap();
        let trickle = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_millis(5));
            while sends.write_all(b"x").await.is_ok() {
                tick.tick().await;
            }
        });
        let mut rest = Vec::new();
        if let Err(error) = answers.read_to_end(&mut rest).await {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        trickle.await.unwrap();
        served.end().await;
    }
}

#[tokio::test]
async fn a_connection_is_over_with_its_answer_and_an_endless_head_is_refused() {
    let served = Served::usual().await;
    let mut stream = served.client().await;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close\r\n"), "{answer}");

    let mut stream = served.client().await;
    let endless = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(64 << 10));
    // It may be closed before all is sent.
    let sent = stream.write_all(endless.as_bytes()).await;
    let mut start = [0; 12];
    match stream.read_exact(&mut start).await {
        Ok(_) => assert_eq!(&start, b"HTTP/1.1 431"),
        Err(error) => assert!(sent.is_err() || error.kind() == io::ErrorKind::ConnectionReset, "{error}"),
    }
    served.end().await;
}

/// Descriptors that are short are there again later, or they are not: neither
/// ends the daemon, nor keeps it busy.
#[tokio::test]
async fn accepting_that_fails_is_counted_paused_and_tried_again() {
    let served = Served::usual().await;
    let pages = || pages::router(served.hub.clone(), Guard::new(&on("localhost:1", None), None));
    let failures = served.hub.metrics.http_accept_failures.clone();

    let tries = AtomicU64::new(0);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accept = || async {
        match tries.fetch_add(1, Ordering::Relaxed) {
            0..3 => Err(io::Error::from_raw_os_error(EMFILE)),
            _ => listener.accept().await.map(|(stream, _)| stream),
        }
    };
    let end = CancellationToken::new();
    let limits = Limits { pause: Duration::from_millis(1), ..NEVER_SHORT };
    let ask = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        end.cancel();
        answer
    };
    let (answer, ()) = tokio::join!(ask, connections::serve(accept, pages(), limits, failures.clone(), end.clone()));
    assert_eq!((code(&answer), failures.get()), (200, 3));

    let end = CancellationToken::new();
    let accept = || async { Err(io::Error::from_raw_os_error(EMFILE)) };
    let stop = async {
        while failures.get() == 3 {
            tokio::task::yield_now().await;
        }
        end.cancel();
    };
    tokio::join!(stop, connections::serve(accept, pages(), NEVER_SHORT, failures.clone(), end.clone()));
    assert_eq!(failures.get(), 4, "after a failure there is a pause");
    served.end().await;
}

#[tokio::test]
async fn only_requests_by_our_own_names_are_served() {
    let served = Served::usual().await;
    for own in [
        "Host: 127.0.0.1",
        "Host: 10.1.2.3:9187",
        "Host: [::1]:9187",
        "Host: localhost",
        "Host: LocalHost:1",
        "Host: localhost.:1",
        "Host: vm-7.example:9187",
        "Host: ferry:9187",
        "Host: FERRY",
    ] {
        assert_eq!(served.code("/metrics", &[own]).await, 200, "{own}");
    }
    for other in [
        "Host: evil.example",
        "Host: evil.example:9187",
        "Host: localhost.evil.example",
        "Host: 127.0.0.1.evil.example",
        "Host: notlocalhost",
        "Host: vm-7",
        "Host: localhost@evil.example",
        "Host: localhost evil.example",
        "Host: [localhost",
        "Host:",
        "X-Forwarded-Host: localhost",
    ] {
        for path in ["/metrics", "/livez", "/nothing"] {
            assert_eq!(served.code(path, &[other]).await, 403, "{other}");
        }
    }
    for two in [["Host: localhost", "Host: evil.example"], ["Host: evil.example", "Host: localhost"]] {
        assert_eq!(served.code("/metrics", &two).await, 403, "{two:?}");
    }
    assert_eq!(served.code("http://evil.example/metrics", &["Host: localhost"]).await, 403);
    assert_eq!(served.code("http://localhost/metrics", &["Host: localhost"]).await, 200);
    let words = served.asked("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
    assert!(words.contains("ask by its IP address, by localhost") && !words.contains("evil"), "{words}");
    served.end().await;
}

#[tokio::test]
async fn only_get_and_head_are_served() {
    let served = Served::usual().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        for path in ["/", "/livez", "/nothing"] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let answer = served.asked(&request).await;
            assert_eq!(code(&answer), 405, "{method} {path}");
            assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
        }
    }
    let answer = served.asked("HEAD /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    served.end().await;
}

#[tokio::test]
async fn with_a_token_only_who_carries_it_is_served_and_probes() {
    let served = Served::with(NEVER_SHORT, Audience::Bearer(Secret::new(TOKEN))).await;
    let host = "Host: localhost";
    for path in ["/", "/metrics", "/status", "/nothing", "/livez/", "//livez", "/livez/../metrics"] {
        assert_eq!(served.code(path, &[host]).await, 401, "{path}");
    }
    for wrong in [
        format!("Bearer {}", &TOKEN[..15]),
        format!("Bearer {TOKEN}0"),
        format!("Bearer {}", TOKEN.to_uppercase()),
        format!("Bearer{TOKEN}"),
        format!("Basic {TOKEN}"),
        TOKEN.to_owned(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        String::new(),
    ] {
        assert_eq!(served.code("/metrics", &[host, &format!("Authorization: {wrong}")]).await, 401, "{wrong:?}");
    }
    for right in [format!("Bearer {TOKEN}"), format!("bearer  {TOKEN} ")] {
        let right = format!("Authorization: {right}");
        assert_eq!(served.code("/metrics", &[host, &right]).await, 200, "{right}");
        assert_eq!(served.code("/metrics", &["Host: walferry.example:9187", &right]).await, 200, "{right}");
    }
    // A probe carries none; it is told no more than that.
    assert_eq!(served.code("/livez", &[host]).await, 200);
    assert_eq!(served.code("/readyz", &[host, "Authorization: Bearer wrong"]).await, 503);
    assert_eq!(served.code("/readyz", &["Host: evil.example"]).await, 403);
    let words = served.asked("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(words.contains("www-authenticate: Bearer\r\n"), "{words}");
    assert!(words.contains("--listen-token") && !words.contains(TOKEN), "{words}");
    served.end().await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let served = Served::usual().await;
    let listen = on(&served.address.to_string(), None);
    let error = HttpServer::bind(&listen, served.hub.clone()).await.err().unwrap().to_string();
    assert!(error.contains(&served.address.to_string()) && error.contains("--listen"), "{error}");
    served.end().await;
}

#[tokio::test]
async fn a_name_is_looked_up() {
    let hub = Hub::new(Metrics::new().unwrap());
    let server = HttpServer::bind(&on("localhost:0", None), hub).await.unwrap();
    assert!(server.listener.local_addr().unwrap().ip().is_loopback());
}

#[tokio::test]
async fn a_client_that_says_nothing_does_not_hold_up_the_end() {
    let served = Served::usual().await;
    let _silent = served.client().await;
    let mut half = served.client().await;
    half.write_all(b"GET /livez HT").await.unwrap();
    // Both are accepted, in the order they came.
    assert_eq!(code(&served.get("/livez").await), 200);
    served.end().await;
}

/// Prometheus' own opinion, where its tools are at hand.
#[tokio::test]
async fn promtool_accepts_the_metrics() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let metrics = Metrics::new().unwrap();
    metrics.observe_process();
    metrics.slot_retained_bytes.with_label_values(&["walferry"]).set(1);
    let text = TextEncoder::new().encode_to_string(&metrics.registry.gather()).unwrap();
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    match spawned {
        Ok(mut tool) => {
            tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
            let output = tool.wait_with_output().unwrap();
            let words =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && words.is_empty(), "{words}\n{text}");
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
    }
}
