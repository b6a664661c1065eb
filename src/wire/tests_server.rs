//! The wire against a real PostgreSQL: authentication, TLS, slots, the stream.

use std::time::Duration;

use super::testing::{TlsCluster, conninfo, durable, host, over_socket, with_password};
use super::*;
use crate::config::conninfo::{Address, ChannelBinding, ConnInfo, RootCert, SslMode};
use crate::demo::cluster::Cluster;
use crate::lsn::Lsn;
use crate::session::Session;
use crate::testing::cluster;

async fn connect(info: &ConnInfo) -> Result<Connection, WireError> {
    Connection::connect(info, Purpose::Session, "walferry test").await
}

async fn refusal(info: &ConnInfo) -> WireError {
    match connect(info).await {
        Ok(_) => panic!("let in"),
        Err(error) => error,
    }
}

/// Rows of a query.
async fn ask(connection: &mut Connection, sql: &str) -> String {
    let rows = connection.simple_query(sql).await.unwrap();
    rows[0].iter().map(|value| value.as_deref().unwrap_or("null")).collect::<Vec<_>>().join(" ")
}

const ROLES: &str = "SET password_encryption = 'scram-sha-256'; CREATE ROLE sam LOGIN REPLICATION PASSWORD 'pa$$wörd'; \
    CREATE ROLE carl LOGIN; CREATE ROLE paul LOGIN PASSWORD 'clear'; CREATE ROLE hank LOGIN PASSWORD 'plain only'; \
    SET password_encryption = 'md5'; CREATE ROLE mia LOGIN PASSWORD 'five'";

const HBA: &[&str] = &[
    "hostnossl all hank 127.0.0.1/32 scram-sha-256",
    "hostssl all carl 127.0.0.1/32 cert",
    "host all paul 127.0.0.1/32 password",
    "host all mia 127.0.0.1/32 md5",
    "hostssl all sam 127.0.0.1/32 scram-sha-256",
];

#[tokio::test]
async fn every_way_to_log_in_works_and_every_refusal_has_words() {
    let tls = TlsCluster::start(HBA);
    connect(&over_socket(&tls.cluster)).await.unwrap().simple_query(ROLES).await.unwrap();
    let mut base = conninfo(tls.cluster.port());
    base.sslmode = SslMode::VerifyFull;
    base.sslrootcert = RootCert::File(tls.root());

    logins(&base, &tls).await;
    binding(&base).await;
    refusals(&base, &tls).await;
    modes(&base).await;
    protection(&base).await;
    sessions(&base, tls.cluster.server().major).await;
    cancels(&base).await;
}

/// A cancel request finds its way over TLS.
async fn cancels(base: &ConnInfo) {
    let info = with_password(base.clone(), "sam", "pa$$wörd");
    let mut connection = connect(&info).await.unwrap();
    let (key, host) = (connection.cancel_key().unwrap(), connection.host().clone());
    let sleep = connection.simple_query("SELECT pg_catalog.pg_sleep(60)");
    let later = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        cancel(&info, &host, key).await
    };
    let (slept, cancelled) = tokio::join!(sleep, later);
    cancelled.unwrap();
    assert_eq!(slept.unwrap_err().sqlstate(), Some("57014"));
    connection.simple_query("SELECT 1").await.unwrap();
}

/// SCRAM, md5, cleartext, client certificate, over TLS.
async fn logins(base: &ConnInfo, tls: &TlsCluster) {
    for (user, password) in [("sam", "pa$$wörd"), ("mia", "five"), ("paul", "clear")] {
        let mut connection = connect(&with_password(base.clone(), user, password)).await.unwrap();
        let row = ask(&mut connection, "SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await;
        assert_eq!(row, format!("{user} t"));
    }
    let mut carl = base.clone();
    carl.user = "carl".into();
    let (cert, key) = tls.client_certificate("stranger");
    (carl.sslcert, carl.sslkey) = (Some(cert), Some(key));
    let error = refusal(&carl).await;
    assert!(error.to_string().contains("does not accept our client certificate") && !error.is_transient(), "{error}");
    let (cert, key) = tls.client_certificate("carl");
    (carl.sslcert, carl.sslkey) = (Some(cert), Some(key.clone()));
    assert_eq!(ask(&mut connect(&carl).await.unwrap(), "SELECT current_user").await, "carl");

    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refusal(&carl).await.to_string().contains("chmod 0600"));
}

/// Channel binding, required and forbidden.
async fn binding(base: &ConnInfo) {
    let mut sam = with_password(base.clone(), "sam", "pa$$wörd");
    for binding in [ChannelBinding::Require, ChannelBinding::Disable] {
        sam.channel_binding = binding;
        connect(&sam).await.unwrap();
    }
    for (user, password) in [("mia", "five"), ("paul", "clear")] {
        let mut info = with_password(base.clone(), user, password);
        info.channel_binding = ChannelBinding::Require;
        let error = refusal(&info).await;
        assert!(matches!(error, WireError::Auth { source: AuthError::ChannelBinding(_), .. }), "{error}");
    }
}

async fn refusals(base: &ConnInfo, tls: &TlsCluster) {
    let sam = with_password(base.clone(), "sam", "pa$$wörd");
    for (user, password) in [("sam", "wrong-one"), ("mia", "wrong-one"), ("paul", "wrong-one")] {
        let error = refusal(&with_password(base.clone(), user, password)).await;
        assert_eq!(error.sqlstate(), Some("28P01"), "{error}");
        assert!(!error.is_transient() && error.to_string().contains("check the password"), "{error}");
        assert!(!format!("{error:?}").contains("wrong-one"));
    }
    let mut nobody = base.clone();
    nobody.user = "sam".into();
    let error = refusal(&nobody).await;
    assert!(matches!(error, WireError::Auth { source: AuthError::PasswordMissing, .. }), "{error}");

    let mut stranger = sam.clone();
    stranger.sslrootcert = RootCert::File(tls.other_root());
    for sslmode in [SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
        stranger.sslmode = sslmode;
        let error = refusal(&stranger).await;
        assert!(matches!(error, WireError::Tls { .. }) && error.to_string().contains("sslrootcert"), "{error}");
    }
    let mut misnamed = sam.clone();
    for host in &mut misnamed.hosts {
        if let Address::Tcp { host, .. } = &mut host.address {
            *host = "db.example".into();
        }
    }
    let error = refusal(&misnamed).await;
    assert!(error.to_string().contains("use the host name that the certificate has"), "{error}");
    misnamed.sslmode = SslMode::VerifyCa;
    connect(&misnamed).await.unwrap();

    let mut absent = sam.clone();
    absent.sslrootcert = RootCert::File("/nonexistent/root.crt".into());
    assert!(refusal(&absent).await.to_string().contains("/nonexistent/root.crt"));

    let mut unknown = sam;
    unknown.hosts = vec![host("no-such-host.invalid", tls.cluster.port())];
    if let Address::Tcp { hostaddr, .. } = &mut unknown.hosts[0].address {
        *hostaddr = None;
    }
    let error = refusal(&unknown).await;
    assert!(matches!(error, WireError::Resolve { .. }) && error.is_transient(), "{error}");
}

/// What sslmode allows, where the server admits one kind of connection only.
async fn modes(base: &ConnInfo) {
    let sam = with_password(base.clone(), "sam", "pa$$wörd");
    let hank = with_password(base.clone(), "hank", "plain only");
    let outcomes = [
        // Only TLS is let in.
        (&sam, SslMode::Disable, false),
        (&sam, SslMode::Allow, true),
        (&sam, SslMode::Prefer, true),
        // Only plain is let in.
        (&hank, SslMode::Allow, true),
        (&hank, SslMode::Prefer, true),
        (&hank, SslMode::Require, false),
    ];
    for (info, sslmode, let_in) in outcomes {
        let mut info = info.clone();
        info.sslmode = sslmode;
        match connect(&info).await {
            Ok(_) => assert!(let_in, "{} {sslmode:?}", info.user),
            Err(error) => {
                assert!(!let_in, "{} {sslmode:?}: {error}", info.user);
                assert_eq!(error.sqlstate(), Some("28000"), "{error}");
            }
        }
    }
    // A wrong password is reported from the way that got furthest.
    for sslmode in [SslMode::Allow, SslMode::Prefer] {
        let mut wrong = with_password(base.clone(), "sam", "wrong");
        wrong.sslmode = sslmode;
        assert_eq!(refusal(&wrong).await.sqlstate(), Some("28P01"));
    }
}

/// What is said of a connection, and of a name that no certificate can have.
///
/// The story: with sslmode=prefer such a name went without TLS, and nobody was told.
async fn protection(base: &ConnInfo) {
    let sam = with_password(base.clone(), "sam", "pa$$wörd");
    let expected = [
        (SslMode::Prefer, Protection::Authority),
        (SslMode::VerifyCa, Protection::Authority),
        (SslMode::VerifyFull, Protection::Verified),
    ];
    for (sslmode, protection) in expected {
        let security = connect(&ConnInfo { sslmode, ..sam.clone() }).await.unwrap().security();
        assert_eq!(security, Security { protection, password: PasswordShown::Hashed });
    }
    let hank = with_password(base.clone(), "hank", "plain only");
    let plain = connect(&ConnInfo { sslmode: SslMode::Prefer, ..hank }).await.unwrap().security();
    assert_eq!(plain.protection, Protection::Local);
    let paul = connect(&with_password(base.clone(), "paul", "clear")).await.unwrap().security();
    assert_eq!(paul, Security { protection: Protection::Verified, password: PasswordShown::Clear });

    let unnameable = ConnInfo { hosts: vec![host("größe.example", sam.hosts[0].port)], ..base.clone() };
    let unnameable = with_password(unnameable, "sam", "pa$$wörd");
    for sslmode in [SslMode::Prefer, SslMode::Require, SslMode::VerifyCa] {
        let mut connection = connect(&ConnInfo { sslmode, ..unnameable.clone() }).await.unwrap();
        assert_eq!(connection.security().protection, Protection::Authority);
        assert_eq!(ask(&mut connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").await, "t");
    }
    let error = refusal(&unnameable).await;
    assert!(matches!(error, WireError::NoServerName { .. }) && !error.is_transient(), "{error}");
}

/// The driver on our dial.
async fn sessions(base: &ConnInfo, major: u32) {
    let sam = with_password(base.clone(), "sam", "pa$$wörd");
    let session = Session::connect(&sam, "walferry test").await.unwrap();
    assert_eq!(u32::try_from(session.version() / 10_000).unwrap(), major);
    let row = session
        .query_one(
            "SELECT a.application_name, s.ssl, current_setting('search_path'), $1::text, current_setting('row_security'), \
             current_setting('tcp_keepalives_idle') \
             FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid) WHERE pid = pg_backend_pid()",
            &[&"grüße"],
        )
        .await
        .unwrap();
    let text = |column: usize| row.get::<_, String>(column);
    assert_eq!(
        (text(0), row.get::<_, bool>(1), text(2), text(3), text(4), text(5)),
        ("walferry test".into(), true, "".into(), "grüße".into(), "off".into(), "60".into())
    );
    // More than one buffer in both directions.
    let long = "x".repeat(3_000_000);
    let back: String = session.query_one("SELECT $1::text", &[&long]).await.unwrap().get(0);
    assert_eq!(back.len(), long.len());
    let mut replication = Replication::connect(&sam, "walferry test").await.unwrap();
    assert_eq!(replication.identify_system().await.unwrap().dbname, "postgres");
    let error = Session::connect(&with_password(base.clone(), "sam", "no"), "t").await.err().unwrap();
    assert_eq!(error.sqlstate(), Some("28P01"));
    let error = session.query("SELECT 1/0", &[]).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("22012"));
}

fn exported(lifetime: Lifetime) -> SlotOptions {
    SlotOptions { lifetime, snapshot: SnapshotAction::Export, failover: Failover::No }
}

fn pgoutput(publication: &str) -> PgoutputOptions {
    PgoutputOptions {
        proto_version: 2,
        publications: vec![publication.into()],
        messages: Messages::Include,
        streaming: Streaming::On,
    }
}

#[tokio::test]
async fn a_slot_is_made_streamed_acknowledged_and_dropped() {
    let mut cluster = cluster().start().unwrap();
    let info = over_socket(&cluster);
    let mut sql = connect(&info).await.unwrap();
    // One statement each: they may not share a transaction with the slot's creation.
    for statement in [
        "CREATE TABLE public.t (id int PRIMARY KEY)",
        "CREATE PUBLICATION \"it's \"\"p\"\"\" FOR ALL TABLES",
        "ALTER ROLE postgres SET idle_in_transaction_session_timeout = '50ms'",
        "ALTER ROLE postgres SET statement_timeout = '50ms'",
    ] {
        sql.simple_query(statement).await.unwrap();
    }
    let mut replication = Replication::connect(&info, "walferry test").await.unwrap();
    let identity = replication.identify_system().await.unwrap();
    assert_eq!((identity.timeline, identity.dbname.as_str()), (1, "postgres"));
    assert!(identity.wal_end > Lsn::INVALID);

    let slot = replication.create_slot("s", &exported(Lifetime::Permanent)).await.unwrap();
    let snapshot = slot.snapshot.clone().unwrap();
    // The role's timeout would have ended the exporting transaction by now.
    tokio::time::sleep(Duration::from_millis(200)).await;
    sql.simple_query("INSERT INTO public.t VALUES (1)").await.unwrap();
    sql.simple_query("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
    sql.simple_query(&format!("SET TRANSACTION SNAPSHOT '{snapshot}'")).await.unwrap();
    assert_eq!(ask(&mut sql, "SELECT count(*) FROM public.t").await, "0");
    sql.simple_query("COMMIT").await.unwrap();

    refused_commands(&mut replication).await;
    let from = slot.consistent_point.lsn();
    let end = stream_one_insert(replication, from).await;
    let confirmed = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 's'";
    assert_eq!(ask(&mut sql, confirmed).await, end.to_string());

    let mut replication = Replication::connect(&info, "walferry test").await.unwrap();
    replication.drop_slot("s").await.unwrap();
    assert_eq!(ask(&mut sql, "SELECT count(*) FROM pg_replication_slots").await, "0");
    lost(&info, &mut cluster).await;
}

/// Errors leave the connection usable.
async fn refused_commands(replication: &mut Replication) {
    let error = replication.create_slot("s", &exported(Lifetime::Permanent)).await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("42710"), "{error}");
    let failover = SlotOptions { failover: Failover::Yes, ..exported(Lifetime::Temporary) };
    let error = replication.create_slot("f", &failover).await.unwrap_err();
    assert!(matches!(error, WireError::TooOld { needs: 17, .. }));
    assert_eq!(replication.drop_slot("absent").await.unwrap_err().sqlstate(), Some("42704"));
    replication.identify_system().await.unwrap();
}

/// Reads until the commit of the insert, acknowledges its end, ends the stream.
async fn stream_one_insert(replication: Replication, from: Lsn) -> Lsn {
    let options = pgoutput("it's \"p\"");
    let (mut reader, writer) = replication.start("s", durable(from.number()), &options).await.unwrap();
    let feed = StatusFeed::spawn(writer, durable(from.number()), Duration::from_millis(100));
    let mut tags = Vec::new();
    let end = loop {
        match reader.next().await.unwrap() {
            ReplicationFrame::Data { payload, .. } => {
                tags.push(payload[0]);
                if payload[0] == b'C' {
                    break u64::from_be_bytes(payload[10..18].try_into().unwrap());
                }
            }
            ReplicationFrame::Keepalive { reply, .. } => {
                if reply == ReplyRequested::Yes {
                    feed.reply_now();
                }
            }
            ReplicationFrame::Done => panic!("the stream ended"),
        }
    };
    assert_eq!(tags, b"BRIC");
    feed.request_reply();
    while !matches!(reader.next().await.unwrap(), ReplicationFrame::Keepalive { .. }) {}
    feed.durable(durable(end));
    feed.finish().await.unwrap();
    while reader.next().await.unwrap() != ReplicationFrame::Done {}
    Lsn::new(end)
}

/// A server that stops, and one that is not there.
async fn lost(info: &ConnInfo, cluster: &mut Cluster) {
    let mut victim = connect(info).await.unwrap();
    cluster.restart().unwrap();
    let error = victim.simple_query("SELECT 1").await.unwrap_err();
    assert_eq!(error.sqlstate(), Some("57P01"), "{error}");
    assert!(error.is_transient());
    let mut absent = conninfo(super::testing::free_port());
    absent.dbname = "absent".into();
    assert!(matches!(refusal(&absent).await, WireError::Connect { .. }));
    absent.hosts.clone_from(&info.hosts);
    let error = refusal(&absent).await;
    assert_eq!(error.sqlstate(), Some("3D000"), "{error}");
}

/// The opposite of each setting that a session is pinned to, as far as a role may have it.
const OPPOSITE: [(&str, &str); 26] = [
    ("client_encoding", "LATIN1"),
    ("datestyle", "German"),
    ("intervalstyle", "sql_standard"),
    ("extra_float_digits", "-5"),
    ("bytea_output", "escape"),
    ("timezone", "Asia/Kolkata"),
    ("lc_monetary", "C.UTF-8"),
    ("array_nulls", "off"),
    ("xmloption", "document"),
    ("standard_conforming_strings", "off"),
    ("transform_null_equals", "on"),
    ("quote_all_identifiers", "on"),
    ("search_path", "pg_temp, public"),
    ("default_tablespace", "pg_default"),
    ("row_security", "on"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("client_min_messages", "error"),
    ("synchronize_seqscans", "on"),
    ("jit", "on"),
    ("statement_timeout", "9min"),
    ("lock_timeout", "9min"),
    ("idle_in_transaction_session_timeout", "9min"),
    ("tcp_keepalives_idle", "7000"),
    ("tcp_keepalives_interval", "7000"),
    ("tcp_keepalives_count", "70"),
];

/// The story: `standard_conforming_strings` off on the source doubled backslashes in
/// defaults, `array_nulls` off on the target made NULLs strings.
#[tokio::test]
async fn every_session_has_the_pinned_settings_whatever_role_and_database_have() {
    let cluster = cluster().start().unwrap();
    let mut admin = connect(&over_socket(&cluster)).await.unwrap();
    for of in ["DATABASE postgres", "ROLE postgres"] {
        for (name, value) in OPPOSITE {
            let value = if name == "search_path" { value.to_owned() } else { format!("'{value}'") };
            admin.simple_query(&format!("ALTER {of} SET {name} TO {value}")).await.unwrap();
        }
    }
    for purpose in [Purpose::Session, Purpose::Replication] {
        let mut connection = Connection::connect(&over_socket(&cluster), purpose, "walferry test").await.unwrap();
        for (name, value, since) in PINNED {
            if connection.server_version() < since || (name.starts_with("tcp_") && purpose == Purpose::Session) {
                continue;
            }
            let asked = ask(&mut connection, &format!("SHOW {name}")).await;
            let is_it = match name {
                // A Unix socket has none; the style of input is the server's to say.
                _ if name.starts_with("tcp_") => true,
                "datestyle" => asked.starts_with("ISO"),
                _ => asked == value,
            };
            assert!(is_it, "{name} is {asked} for {purpose:?}");
        }
        let (name, value) = RESTRICTED;
        assert_eq!(ask(&mut connection, &format!("SHOW {name}")).await, value, "{purpose:?}");
    }
    let named: Vec<&str> = OPPOSITE.iter().map(|(name, _)| *name).collect();
    let unasked: Vec<&str> =
        PINNED.iter().filter(|(name, _, since)| *since == 0 && !named.contains(name)).map(|(name, ..)| *name).collect();
    assert!(unasked.is_empty(), "{unasked:?}");
    let restricted = "-c restrict_nonsystem_relation_kind=view,foreign-table";
    assert!(pg_dump_options(170_000).contains(restricted) && !pg_dump_options(150_018).contains(restricted));
    assert!(prepare::OF_PG_DUMP.iter().all(|name| pg_dump_options(110_000).contains(&format!("-c {name}="))));
}
