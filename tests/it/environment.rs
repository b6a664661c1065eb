//! The support itself: if these fail, no other integration test means anything.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use walferry::demo::writers::Writers;
use walferry::demo::{compare, shop};

use crate::support::pair::{Pair, SourceRole, TargetRole, cluster};
use crate::support::process::Walferry;
use crate::support::proxy::{Mode, Proxy};
use crate::support::workload::{self, Workload};
use crate::support::{connect, oldest_and_newest, server, try_connect, wait_until};

/// Enough for anything that takes a moment on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_dropped_cluster_leaves_neither_process_nor_folder() {
    let cluster = cluster(&server()).start().unwrap();
    let process = PathBuf::from(format!("/proc/{}", cluster.pid().unwrap()));
    let folder = cluster.socket_dir().to_owned();
    assert!(process.exists() && folder.exists());
    drop(cluster);
    assert!(!process.exists(), "the server lives on");
    assert!(!folder.exists(), "the folder is left");
}

#[test]
fn a_cluster_comes_back_on_its_port_with_its_rows_after_a_stop() {
    let mut cluster = cluster(&server()).start().unwrap();
    let port = cluster.port();
    cluster.psql("postgres", "postgres", "CREATE TABLE t AS SELECT 42 AS a").unwrap();
    cluster.restart().unwrap();
    assert_eq!(cluster.port(), port);
    assert_eq!(cluster.psql("postgres", "postgres", "SELECT a FROM t").unwrap(), "42\n");
    // Everything but the walwriter's flush survives a crash as well.
    cluster.crash().unwrap();
    assert!(cluster.psql("postgres", "postgres", "SELECT 1").is_err());
    cluster.restart().unwrap();
    assert_eq!(cluster.psql("postgres", "postgres", "SELECT 1").unwrap(), "1\n");
}

#[test]
fn a_setting_that_the_server_refuses_is_reported_with_its_log() {
    let error = cluster(&server()).setting("no_such_setting", "1").start().err().expect("it does not start");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn every_target_profile_is_as_restricted_as_it_says() {
    // The probes run in `start`.
    for role in [TargetRole::Do, TargetRole::DoWrapped, TargetRole::Fly] {
        let _pair = Pair::builder().target_role(role).start().await;
    }
}

#[tokio::test]
async fn the_restricted_source_may_replicate_and_read_and_no_more() {
    let pair = Pair::builder().source_role(SourceRole::Restricted).start().await;
    pair.source_sql("CREATE TABLE public.t AS SELECT 1 AS a").await;
    let client = connect(&pair.source_uri()).await;
    assert_eq!(client.query("SELECT a FROM public.t", &[]).await.unwrap().len(), 1);
    client.query("SELECT pg_create_logical_replication_slot('s', 'pgoutput')", &[]).await.unwrap();
    client.query("SELECT pg_drop_replication_slot('s')", &[]).await.unwrap();
}

#[tokio::test]
async fn an_older_and_a_newer_major_make_a_pair() {
    let (oldest, newest) = oldest_and_newest();
    let pair = Pair::builder().servers(&oldest, &newest).start().await;
    let row = pair.target_client().await.query_one("SHOW server_version_num", &[]).await.unwrap();
    let version: u32 = row.get::<_, String>(0).parse().unwrap();
    assert_eq!(version / 10_000, newest.major);
}

#[tokio::test]
async fn the_proxy_passes_delays_refuses_and_cuts() {
    let cluster = cluster(&server()).hba("host all all 127.0.0.1/32 trust").start().unwrap();
    let proxy = Proxy::start(cluster.port()).await;
    let uri = proxy.through(&cluster.uri("postgres", "", "postgres"));
    let client = connect(&uri).await;
    client.batch_execute("SELECT 1").await.unwrap();

    proxy.delay(Duration::from_millis(40));
    let begun = Instant::now();
    client.batch_execute("SELECT 1").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(80), "40 ms there and 40 ms back");
    proxy.delay(Duration::ZERO);

    proxy.cut();
    wait_until("the cut is noticed", PATIENCE, || async { client.is_closed() }).await;

    proxy.mode(Mode::Refuse);
    assert!(try_connect(&uri).await.is_err());
    proxy.mode(Mode::Pass);
    connect(&uri).await.batch_execute("SELECT 1").await.unwrap();
    assert_eq!(proxy.accepted(), 2);
}

#[tokio::test]
async fn a_blackhole_swallows_without_a_word_and_loses_the_connection_afterwards() {
    let cluster = cluster(&server()).hba("host all all 127.0.0.1/32 trust").start().unwrap();
    let proxy = Proxy::start(cluster.port()).await;
    let client = connect(&proxy.through(&cluster.uri("postgres", "", "postgres"))).await;
    proxy.mode(Mode::Blackhole);
    let answer = tokio::time::timeout(Duration::from_millis(300), client.batch_execute("SELECT 1")).await;
    assert!(answer.is_err(), "an answer or an error came through: {answer:?}");
    assert!(!client.is_closed());
    proxy.mode(Mode::Pass);
    wait_until("the connection is lost", PATIENCE, || async { client.is_closed() }).await;
}

#[tokio::test]
async fn a_commit_that_the_server_has_done_can_lose_its_answer() {
    let cluster = cluster(&server()).hba("host all all 127.0.0.1/32 trust").start().unwrap();
    let direct = connect(&cluster.uri("postgres", "", "postgres")).await;
    direct.batch_execute("CREATE TABLE t (a int)").await.unwrap();
    let proxy = Proxy::start(cluster.port()).await;
    let client = connect(&proxy.through(&cluster.uri("postgres", "", "postgres"))).await;
    proxy.cut_after_sent(b"COMMIT", 2);
    client.batch_execute("BEGIN; INSERT INTO t VALUES (1); COMMIT").await.unwrap();
    assert_eq!(proxy.trapped(), 0, "the second COMMIT is meant");
    client.batch_execute("BEGIN; INSERT INTO t VALUES (2); COMMIT").await.unwrap_err();
    assert_eq!(proxy.trapped(), 1);
    let direct = &direct;
    wait_until("the second row is there", PATIENCE, || async move {
        direct.query("SELECT FROM t", &[]).await.unwrap().len() == 2
    })
    .await;
}

#[tokio::test]
async fn the_comparison_finds_what_a_workload_leaves_different() {
    let pair = Pair::builder().start().await;
    let (source, target) = (pair.source_client().await, pair.target_client().await);
    workload::create(&source).await;
    workload::create(&target).await;
    target.batch_execute("UPDATE public.account a SET changed = '2020-01-01'").await.unwrap();
    source.batch_execute("UPDATE public.account a SET changed = '2020-01-01'").await.unwrap();
    pair.assert_equal().await;

    let workload = Workload::start(&pair.source_uri(), 3, workload::seed()).await;
    wait_until("100 transactions", PATIENCE, || async { workload.committed() >= 100 }).await;
    let totals = workload.stop().await;
    assert!(totals.rolled_back > 0, "{totals:?}");
    source.batch_execute("SELECT lo_create(4711)").await.unwrap();
    let compared = compare::compare(&source, &target).await.unwrap();
    let differ = |name: &str| compared.iter().any(|object| object.name == name && !object.equal);
    assert!(differ("public.account") && differ("public.log") && differ("public.item_id_seq"), "{compared:#?}");
    assert!(compare::differences(&compared).contains("4711 only on the source"));
    let account = compared.iter().find(|object| object.name == "public.account").unwrap();
    assert!(!account.differing.is_empty() && account.differing.iter().all(|key| key.contains('(')), "{account:?}");
}

#[tokio::test]
async fn the_runner_sees_how_a_process_ends() {
    let mut sleeper = std::process::Command::new("sleep");
    sleeper.arg("600");
    let mut running = Walferry::spawn(sleeper);
    assert!(running.ended().is_none());
    running.signal(Signal::TERM);
    assert_eq!(running.wait(PATIENCE).status.code(), None, "ended by the signal");
}

#[tokio::test]
async fn the_demo_shop_loads_and_its_writers_change_every_table() {
    let pair = Pair::builder().start().await;
    let source = pair.source_client().await;
    shop::load(&source).await.unwrap();
    let rows = |client| async move {
        let sql = "SELECT relname::text, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables \
                   WHERE schemaname = 'shop' AND relname !~ '^orders' ORDER BY 1";
        let rows: &Vec<tokio_postgres::Row> = &tokio_postgres::Client::query(client, sql, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect::<Vec<(String, i64)>>()
    };
    let count = source.query_one("SELECT count(*) FROM shop.order_items", &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(count, shop::ITEMS);
    let before = rows(&source).await;
    let writers = Writers::start(&pair.source_uri(), 3).await.unwrap();
    wait_until("300 transactions", PATIENCE, || async { writers.written().transactions >= 300 }).await;
    let written = writers.stop().await.unwrap();
    assert!(written.rows > written.transactions, "{written:?}");
    // The statistics arrive when the writers' sessions have ended.
    let (before, source) = (&before, &source);
    wait_until("each table has changed", PATIENCE, || async move {
        source.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
        let now = rows(source).await;
        now.len() == 5 - 1 && now.iter().zip(before).all(|(now, before)| now.1 > before.1)
    })
    .await;
}

/// Whether the process of this folder of /proc is more than a zombie that its
/// new parent has not reaped yet.
fn runs(process: &Path) -> bool {
    std::fs::read(process.join("cmdline")).is_ok_and(|arguments| !arguments.is_empty())
}

/// Printed by the process below when its server is up, with the server's pid.
const SERVER_IS: &str = "server is ";

#[test]
#[ignore = "never ends; started and killed by the test below it"]
fn holder_of_a_cluster() {
    let cluster = cluster(&server()).start().unwrap();
    println!("{SERVER_IS}{} {}", cluster.pid().unwrap(), cluster.socket_dir().display());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn a_killed_process_leaves_no_server_and_the_next_cluster_removes_its_folder() {
    use std::io::{BufRead, BufReader};
    let mut holder = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "environment::holder_of_a_cluster", "--ignored", "--nocapture"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.contains(SERVER_IS)).unwrap();
    let mut words = line.split(SERVER_IS).nth(1).unwrap().split(' ');
    let process = PathBuf::from(format!("/proc/{}", words.next().unwrap()));
    let folder = PathBuf::from(words.next().unwrap());
    assert!(runs(&process) && folder.exists());
    holder.kill().unwrap();
    holder.wait().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while runs(&process) {
        assert!(Instant::now() < deadline, "the server lives on");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(cluster(&server()).start().unwrap());
    assert!(!folder.exists(), "the folder is left");
}
