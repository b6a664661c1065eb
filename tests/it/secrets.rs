//! Passwords are where they have to be, and nowhere else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use walferry::demo::cluster::SUPERUSER;

use crate::journey::{PATIENCE, value};
use crate::migration::{get, get_with, until_streaming};
use crate::support::pair::{APP, DATABASE, Pair, TargetRole};
use crate::support::process::{Finished, Walferry, command, free_port};
use crate::support::{connect, wait_until};

const SOURCE: &str = "hush4source'%$\\:";
const TARGET: &str = "hush4target\"&# @";

/// Of `--listen`.
const TOKEN: &str = "hush4listen!(7)_";

/// As whom we are on the target.
const ROLE: TargetRole = TargetRole::Do;

/// What is looked for: what is written of each in any encoding.
const SECRET: &str = "hush4";

/// Programs of this name in a folder of their own, which write down what they are given.
fn spies(pair: &Pair, folder: &Path) -> String {
    let bin = folder.join("bin");
    fs::create_dir(&bin).unwrap();
    let real = pair.source.server().program("pg_dump");
    let spy = format!(
        "#!/bin/sh\ncat /proc/$$/environ /proc/$$/cmdline | tr '\\0' '\\n' >> '{}'\nexec '{}' \"$@\"\n",
        folder.join("children").display(),
        real.display()
    );
    fs::write(bin.join("pg_dump"), spy).unwrap();
    fs::set_permissions(bin.join("pg_dump"), fs::Permissions::from_mode(0o755)).unwrap();
    bin.to_str().unwrap().to_owned()
}

/// All files below, with their contents.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: std::path::PathBuf| match path.is_dir() {
        true => files(&path),
        false => vec![format!("{}: {}", path.display(), String::from_utf8_lossy(&fs::read(&path).unwrap()))],
    };
    entries.flat_map(of).collect()
}

/// What leads to another server, with secrets of its own.
const FAR: &str = "CREATE FOREIGN DATA WRAPPER nothing; \
    CREATE SERVER far FOREIGN DATA WRAPPER nothing OPTIONS (host 'far.example', token 'hush4far'); \
    CREATE USER MAPPING FOR app SERVER far OPTIONS (\"user\" 'hush4user', password 'hush4''mapping')";

fn note(ended: Finished, what: &str) -> String {
    format!("{what}: {}{}", ended.stdout, ended.stderr)
}

/// Starts with a token on the command line, good ones and bad.
fn of_tokens(begun: &impl Fn(&str, &[&str], &str) -> Walferry, target: &str) -> Vec<String> {
    let others = format!("0.0.0.0:{}", free_port());
    let shown = ["run", "--log-level", "trace", "--listen", &others, "--listen-token"];
    let tokens = [(TOKEN, 7), ("hush4short", 2), ("hush4 with spaces in it", 2)];
    let with =
        |(token, code): (&str, i32)| begun(target, &[&shown[..], &[token]].concat(), "").wait(PATIENCE).code(code);
    tokens.map(|token| note(with(token), "run with a token on the command line")).to_vec()
}

/// What is served, to whom has no token too.
async fn of_pages(port: u16) -> Vec<String> {
    let mut said = Vec::new();
    for path in ["/", "/metrics", "/status", "/readyz"] {
        let (refused, served) = (get(port, path).await, get_with(port, path, Some(TOKEN)).await);
        assert_eq!(refused.starts_with("HTTP/1.1 401 "), path != "/readyz", "{path}: {refused}");
        assert!(!served.starts_with("HTTP/1.1 401 "), "{path}: {served}");
        said.extend([refused, served].map(|answer| format!("{path}: {answer}")));
    }
    said
}

/// What is refused with a user mapping in it, for people.
fn of_mappings(begun: &impl Fn(&str, &[&str], &str) -> Walferry, target: &str) -> Vec<String> {
    let refused = note(begun(target, &["check"], "").wait(PATIENCE).code(3), "check for people");
    for shown in ["host 'far.example'", "token '***'", "password '***'", "\"user\" '***'", "is not shown"] {
        assert!(refused.contains(shown), "{shown}: {refused}");
    }
    let run = begun(target, &["run", "--log-level", "trace"], "").wait(PATIENCE).code(3);
    vec![refused, note(run, "a run that is refused")]
}

/// The story: pg_dump inherited the connection strings of both ends, and a `kill -9` left its
/// password file in /tmp; a CREATE USER MAPPING that the target refused was printed with its
/// password.
#[tokio::test(flavor = "multi_thread")]
async fn a_password_or_token_is_in_no_output_no_state_no_child_and_no_file_that_is_left() {
    let pair = Pair::builder().start().await;
    pair.source_sql("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')").await;
    pair.source_sql(FAR).await;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (bin, left) = (spies(&pair, folder.path()), folder.path().join("left"));
    fs::create_dir(&left).unwrap();
    for (cluster, role, password) in [(&pair.source, APP, SOURCE), (&pair.target, ROLE.name(), TARGET)] {
        let admin = connect(&cluster.socket_uri(SUPERUSER, DATABASE)).await;
        let quoted = value(&admin, &format!("SELECT quote_literal($p${password}$p$)")).await;
        admin.batch_execute(&format!("ALTER ROLE {role} PASSWORD {quoted}")).await.unwrap();
    }
    let (source, target) = (pair.source.uri(APP, SOURCE, DATABASE), pair.target.uri(ROLE.name(), TARGET, DATABASE));
    let wrong = pair.target.uri(ROLE.name(), &format!("{TARGET}no"), DATABASE);
    let begun = |target: &str, arguments: &[&str], failpoint: &str| {
        let mut command = command(&source, target, arguments);
        command.env("WALFERRY_PG_BIN", &bin).env("TMPDIR", &left).env("WALFERRY_LISTEN_TOKEN", TOKEN);
        if !failpoint.is_empty() {
            command.env("WALFERRY_FAILPOINT", failpoint);
        }
        Walferry::spawn(command)
    };
    let mut said: Vec<String> = Vec::new();
    said.push(note(begun(&wrong, &["check"], "").wait(PATIENCE), "check with a wrong password"));
    said.push(note(begun(&wrong, &["run"], "").wait(PATIENCE), "run with a wrong password"));
    said.extend(of_tokens(&begun, &wrong));
    said.push(note(begun(&target, &["run", "--help"], "").wait(PATIENCE).code(0), "help"));
    said.push(note(begun(&target, &["check", "--json", "--log-level", "trace"], "").wait(PATIENCE).code(3), "check"));
    let admin = connect(&pair.target.socket_uri(SUPERUSER, DATABASE)).await;
    // The server is refused, and with it the mapping.
    admin.batch_execute("CREATE ROLE app; CREATE FOREIGN DATA WRAPPER nothing").await.unwrap();
    said.extend(of_mappings(&begun, &target));
    let grant = format!("GRANT USAGE ON FOREIGN DATA WRAPPER nothing TO {}", ROLE.name());
    admin.batch_execute(&grant).await.unwrap();
    said.push(note(
        begun(&target, &["run", "--jobs", "1"], "copy-before-commit:1").wait(PATIENCE),
        "a run that is killed",
    ));
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let daemon = begun(&target, &["run", "--log-level", "trace", "--listen", &listen], "");
    let daemon = until_streaming(&pair, daemon).await;
    wait_until("there is a status", PATIENCE, || async {
        get_with(port, "/status", Some(TOKEN)).await.starts_with("HTTP/1.1 200 ")
    })
    .await;
    said.extend(of_pages(port).await);
    said.push(note(begun(&target, &["status", "--json"], "").wait(PATIENCE).code(0), "status"));
    said.push(note(daemon.kill(), "the daemon"));
    said.push(note(begun(&wrong, &["catchup"], "").wait(PATIENCE), "catchup with a wrong password"));
    let own = connect(&target).await;
    let tables = "SELECT string_agg(format('SELECT to_jsonb(t)::text AS line FROM walferry.%I t', tablename), ' UNION ALL ') \
        FROM pg_tables WHERE schemaname = 'walferry'";
    let state = format!("SELECT string_agg(x.line, '; ') FROM ({}) x", value(&own, tables).await);
    said.push(format!("the state: {}", value(&own, &state).await));
    said.push(note(
        begun(&target, &["catchup", "--finish", "--log-format", "json"], "").wait(PATIENCE).code(0),
        "catchup",
    ));
    said.push(note(begun(&target, &["cleanup"], "").wait(PATIENCE).code(0), "cleanup"));
    said.extend(files(&left));
    let mapped = value(&admin, "SELECT umoptions::text FROM pg_user_mappings").await;
    assert!(mapped.contains("hush4'mapping"), "what is not shown has come: {mapped}");
    let children = fs::read_to_string(folder.path().join("children")).unwrap();
    assert!(children.contains("PGAPPNAME=walferry pg_dump"), "the spy was at work: {children}");
    said.push(format!("a child: {children}"));
    for text in said {
        assert!(!text.contains(SECRET), "{text}");
    }
}
