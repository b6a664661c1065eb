//! Words to a connection: services, environment, defaults, passwords.
//!
//! Order of precedence, as in libpq: the string, the service it names, the
//! environment, the default. Source: `conninfo_add_defaults` and
//! `pqConnectOptions2` in `src/interfaces/libpq/fe-connect.c`.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::conninfo::{
    Address, AuthMethod, ChannelBinding, ConnInfo, Host, RootCert, Secret, SslMode, SslNegotiation, TargetSessionAttrs,
};
use super::error::{ConfigError, ConnInfoError};
use super::keywords::{self, Params};
use super::passfile::{DEFAULT_SOCKET_FOLDERS, PassFile, Wanted};
use super::{Env, Side, service, uri};

/// PostgreSQL's port.
const DEFAULT_PORT: u16 = 5432;

/// Bound of one attempt to connect. libpq waits for ever; a migration that
/// hangs on a firewall that drops packets helps nobody, and 15 s is enough for
/// a start-up across the world with TLS.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// What `connect_timeout=0` ("for ever") becomes: everything is bounded.
const LONGEST_CONNECT_TIMEOUT: Duration = Duration::from_secs(3600);

/// Words that say where a server is; never taken from the environment, not
/// even through PGSERVICE, because they would fill in both ends.
const PLACES: [&str; 4] = ["host", "hostaddr", "port", "dbname"];

impl ConnInfo {
    /// Parses a connection string (URI or keywords), and fills in what it
    /// leaves out from its service, the environment and libpq's defaults.
    ///
    /// # Errors
    /// [`ConfigError::ConnInfo`] that names the word, never its value.
    pub fn parse(side: Side, text: &str, env: &Env) -> Result<ConnInfo, ConfigError> {
        given(text)
            .and_then(|given| fill(given, env))
            .and_then(|params| build(side, &params, env))
            .map_err(|source| ConfigError::ConnInfo { side, source })
    }

    /// Whether the connection string itself holds a password. A string that
    /// cannot be parsed counts as one without: parsing reports it.
    pub(super) fn text_has_password(text: &str) -> bool {
        given(text).is_ok_and(|params| params.get("password").is_some())
    }
}

/// The words of the string alone.
fn given(text: &str) -> Result<Params, ConnInfoError> {
    let text = text.trim();
    if uri::is_uri(text) { uri::parse(text) } else { keywords::parse(text) }
}

/// Adds what the service and the environment say.
fn fill(mut params: Params, env: &Env) -> Result<Params, ConnInfoError> {
    let environment = Params::of_env(env);
    let file = params.get("servicefile").or(environment.get("servicefile")).map(str::to_owned);
    if let Some(name) = params.get("service").map(str::to_owned) {
        params.fill_from(service::load(&name, file.as_deref(), env)?);
    } else if let Some(name) = environment.get("service") {
        let mut of_service = service::load(name, file.as_deref(), env)?;
        of_service.forget(&PLACES);
        params.fill_from(of_service);
    }
    params.fill_from(environment);
    params.check_supported()?;
    Ok(params)
}

fn build(side: Side, params: &Params, env: &Env) -> Result<ConnInfo, ConnInfoError> {
    let user = params.get("user").or(env.user()).ok_or(ConnInfoError::NoUser)?.to_owned();
    let dbname = params.get("dbname").unwrap_or(&user).to_owned();
    let sslrootcert = root_cert(params.get("sslrootcert"));
    let (sslcert, sslkey) = client_certificate(params, env);
    Ok(ConnInfo {
        side,
        hosts: hosts(params, env, &user, &dbname)?,
        sslmode: ssl_mode(params, &sslrootcert)?,
        sslrootcert,
        sslcert,
        sslkey,
        sslnegotiation: negotiation(params)?,
        channel_binding: channel_binding(params.get("channel_binding"))?,
        require_auth: params.get("require_auth").map(auth_methods).transpose()?,
        target_session_attrs: session_attrs(params.get("target_session_attrs"))?,
        connect_timeout: connect_timeout(params.get("connect_timeout"))?,
        options: params.get("options").map(str::to_owned),
        user,
        dbname,
    })
}

/// Pairs hosts, addresses and ports, and finds each host's password.
fn hosts(params: &Params, env: &Env, user: &str, dbname: &str) -> Result<Vec<Host>, ConnInfoError> {
    let list = |name: &str| params.get(name).map(|text| text.split(',').map(str::trim).collect::<Vec<_>>());
    let (names, addresses, ports) = (list("host"), list("hostaddr"), list("port").unwrap_or_default());
    let count = names.as_ref().or(addresses.as_ref()).map_or(1, Vec::len);
    if let Some(addresses) = addresses.as_ref().filter(|addresses| addresses.len() != count) {
        return Err(ConnInfoError::CountMismatch { keyword: "hostaddr", count: addresses.len(), hosts: count });
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(ConnInfoError::CountMismatch { keyword: "port", count: ports.len(), hosts: count });
    }
    let password = params.get("password").map(Secret::new);
    let file = params.get("passfile").map(PathBuf::from).or_else(|| env.home().map(|home| home.join(".pgpass")));
    let passfile = PassFile::read(if password.is_some() { None } else { file });
    (0..count)
        .map(|index| {
            let item = |list: &Option<Vec<&str>>| {
                list.as_ref()
                    .and_then(|list| list.get(index).copied())
                    .filter(|text| !text.is_empty())
                    .map(str::to_owned)
            };
            let port = port(ports.get(index).or(ports.first()).copied().unwrap_or(""))?;
            let address = address(item(&names), item(&addresses), port)?;
            let wanted = Wanted { address: &address, port, dbname, user };
            let password = password.clone().or_else(|| passfile.find(&wanted));
            Ok(Host { address, port, password })
        })
        .collect()
}

fn port(text: &str) -> Result<u16, ConnInfoError> {
    if text.is_empty() {
        return Ok(DEFAULT_PORT);
    }
    text.parse().ok().filter(|port| *port != 0).ok_or(ConnInfoError::BadValue {
        keyword: "port",
        expected: "a number from 1 to 65535 (in a user or password of a URI write \"@\" as %40, \"/\" as %2F, \":\" as %3A)",
    })
}

fn address(host: Option<String>, hostaddr: Option<String>, port: u16) -> Result<Address, ConnInfoError> {
    let hostaddr = match hostaddr {
        Some(text) => Some(
            text.parse::<IpAddr>()
                .map_err(|_| ConnInfoError::BadValue { keyword: "hostaddr", expected: "an IPv4 or IPv6 address" })?,
        ),
        None => None,
    };
    match (host, hostaddr) {
        (None, None) => Ok(Address::Unix(default_socket_folder(port))),
        (None, Some(address)) => Ok(Address::Tcp { host: address.to_string(), hostaddr: Some(address) }),
        (Some(host), _) if host.contains('@') => Err(ConnInfoError::BadValue {
            keyword: "host",
            expected: "a name, an address or a folder without \"@\" (in a user or password of a URI write \"@\" as %40)",
        }),
        (Some(host), None) if host.starts_with('/') => Ok(Address::Unix(PathBuf::from(host))),
        (Some(host), hostaddr) => Ok(Address::Tcp { host, hostaddr }),
    }
}

/// The first of the usual folders in which a server listens on this port.
fn default_socket_folder(port: u16) -> PathBuf {
    let listens = |folder: &&str| Path::new(folder).join(format!(".s.PGSQL.{port}")).exists();
    PathBuf::from(DEFAULT_SOCKET_FOLDERS.iter().find(|folder| listens(folder)).unwrap_or(&DEFAULT_SOCKET_FOLDERS[0]))
}

fn root_cert(text: Option<&str>) -> RootCert {
    match text {
        None => RootCert::Default,
        Some("system") => RootCert::System,
        Some(path) => RootCert::File(PathBuf::from(path)),
    }
}

/// sslmode, with its default and its floor when the platform's roots are used:
/// any host on the internet can get a certificate from one of those.
fn ssl_mode(params: &Params, roots: &RootCert) -> Result<SslMode, ConnInfoError> {
    let mode = match params.get("sslmode") {
        Some("disable") => SslMode::Disable,
        Some("allow") => SslMode::Allow,
        Some("prefer") => SslMode::Prefer,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(_) => {
            return Err(ConnInfoError::BadValue {
                keyword: "sslmode",
                expected: "disable, allow, prefer, require, verify-ca or verify-full",
            });
        }
        None if *roots == RootCert::System => SslMode::VerifyFull,
        None if params.get("requiressl") == Some("1") => SslMode::Require,
        None => SslMode::Prefer,
    };
    if *roots == RootCert::System && mode != SslMode::VerifyFull {
        return Err(ConnInfoError::BadValue {
            keyword: "sslmode",
            expected: "verify-full together with sslrootcert=system",
        });
    }
    Ok(mode)
}

/// Certificate and key as given, or those in `~/.postgresql` if they are there.
fn client_certificate(params: &Params, env: &Env) -> (Option<PathBuf>, Option<PathBuf>) {
    let usual = |name: &str| env.home().map(|home| home.join(".postgresql").join(name)).filter(|path| path.exists());
    let cert = params.get("sslcert").map(PathBuf::from).or_else(|| usual("postgresql.crt"));
    let key = params.get("sslkey").map(PathBuf::from).or_else(|| cert.as_ref().and_then(|_| usual("postgresql.key")));
    (cert, key)
}

fn channel_binding(text: Option<&str>) -> Result<ChannelBinding, ConnInfoError> {
    match text {
        None | Some("prefer") => Ok(ChannelBinding::Prefer),
        Some("disable") => Ok(ChannelBinding::Disable),
        Some("require") => Ok(ChannelBinding::Require),
        Some(_) => Err(ConnInfoError::BadValue { keyword: "channel_binding", expected: "disable, prefer or require" }),
    }
}

/// How TLS begins. Directly only where nothing but TLS will do: a server that does not
/// know it hangs up, and a weaker mode would go on without (as libpq has it).
fn negotiation(params: &Params) -> Result<SslNegotiation, ConnInfoError> {
    match (params.get("sslnegotiation"), ssl_mode(params, &root_cert(params.get("sslrootcert")))?) {
        (None | Some("postgres"), _) => Ok(SslNegotiation::Postgres),
        (Some("direct"), SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull) => Ok(SslNegotiation::Direct),
        (Some("direct"), _) => Err(ConnInfoError::BadValue {
            keyword: "sslmode",
            expected: "require, verify-ca or verify-full together with sslnegotiation=direct",
        }),
        (Some(_), _) => Err(ConnInfoError::BadValue { keyword: "sslnegotiation", expected: "postgres or direct" }),
    }
}

/// `require_auth`: methods that are accepted, or, each with "!", that are not.
fn auth_methods(text: &str) -> Result<Vec<AuthMethod>, ConnInfoError> {
    let unfit = || ConnInfoError::BadValue {
        keyword: "require_auth",
        expected: "a list of none, password, md5, scram-sha-256, gss, sspi and oauth, with \"!\" before each of them \
                   or before none",
    };
    let items: Vec<&str> = text.split(',').map(str::trim).collect();
    let refused: Vec<&str> = items.iter().filter_map(|item| item.strip_prefix('!')).collect();
    let named = if refused.is_empty() { items.clone() } else { refused };
    let is_known = |name: &&str| AuthMethod::ALL.iter().any(|(_, known)| known == name);
    if named.len() != items.len() || !named.iter().all(is_known) {
        return Err(unfit());
    }
    let is_accepted = |name: &str| named.contains(&name) != text.contains('!');
    Ok(AuthMethod::ALL.iter().filter(|(_, name)| is_accepted(name)).map(|(method, _)| *method).collect())
}

fn session_attrs(text: Option<&str>) -> Result<TargetSessionAttrs, ConnInfoError> {
    Ok(match text {
        None | Some("any") => TargetSessionAttrs::Any,
        Some("read-write") => TargetSessionAttrs::ReadWrite,
        Some("read-only") => TargetSessionAttrs::ReadOnly,
        Some("primary") => TargetSessionAttrs::Primary,
        Some("standby") => TargetSessionAttrs::Standby,
        Some("prefer-standby") => TargetSessionAttrs::PreferStandby,
        Some(_) => {
            return Err(ConnInfoError::BadValue {
                keyword: "target_session_attrs",
                expected: "any, read-write, read-only, primary, standby or prefer-standby",
            });
        }
    })
}

fn connect_timeout(text: Option<&str>) -> Result<Duration, ConnInfoError> {
    let Some(text) = text else { return Ok(DEFAULT_CONNECT_TIMEOUT) };
    let seconds: i64 = text
        .trim()
        .parse()
        .map_err(|_| ConnInfoError::BadValue { keyword: "connect_timeout", expected: "a whole number of seconds" })?;
    match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds).min(LONGEST_CONNECT_TIMEOUT)),
        _ => Ok(LONGEST_CONNECT_TIMEOUT),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn env() -> Env {
        Env::empty().with_user("me")
    }

    fn parse(text: &str, env: &Env) -> ConnInfo {
        ConnInfo::parse(Side::Source, text, env).unwrap()
    }

    fn error(text: &str) -> String {
        let error = ConnInfo::parse(Side::Target, text, &env()).unwrap_err();
        format!("{error}: {}", error.source().unwrap())
    }

    #[test]
    fn what_is_left_out_has_libpqs_defaults() {
        let info = parse("host=h", &env());
        assert_eq!(info.to_string(), "me@h:5432/me");
        assert_eq!((info.sslmode, info.connect_timeout), (SslMode::Prefer, Duration::from_secs(15)));
        assert!(matches!(parse("", &env()).hosts[0].address, Address::Unix(_)));
    }

    #[test]
    fn the_environment_fills_in_words_but_never_the_place_of_a_server() {
        let env = env()
            .with("PGUSER", "u")
            .with("PGPASSWORD", "p")
            .with("PGSSLMODE", "require")
            .with("PGHOST", "wrong")
            .with("PGPORT", "1")
            .with("PGDATABASE", "wrong")
            .with("PGHOSTADDR", "1.2.3.4")
            .with("PGCONNECT_TIMEOUT", "3");
        let info = parse("postgres://h/d", &env);
        assert_eq!(info.to_string(), "u@h:5432/d");
        assert_eq!(info.hosts[0].password, Some(Secret::new("p")));
        assert_eq!((info.sslmode, info.connect_timeout), (SslMode::Require, Duration::from_secs(3)));
        assert_eq!(parse("postgres://x:y@h/d?sslmode=disable", &env).sslmode, SslMode::Disable);
    }

    #[test]
    fn several_hosts_take_one_port_or_one_each() {
        let info = parse("postgres://a,b:6000/d", &env());
        assert_eq!(info.to_string(), "me@a:5432,b:6000/d");
        assert_eq!(parse("host=a,b port=7", &env()).to_string(), "me@a:7,b:7/me");
        assert!(error("host=a,b port=1,2,3").contains("3 values of \"port\" do not match 2 hosts"));
        assert!(error("host=a,b hostaddr=1.1.1.1").contains("hostaddr"));
    }

    #[test]
    fn the_platforms_roots_demand_the_full_verification() {
        assert_eq!(parse("host=h sslrootcert=system", &env()).sslmode, SslMode::VerifyFull);
        assert!(error("host=h sslrootcert=system sslmode=require").contains("verify-full"));
    }

    #[test]
    fn tls_begins_directly_only_where_nothing_but_tls_will_do() {
        assert_eq!(parse("host=h", &env()).sslnegotiation, SslNegotiation::Postgres);
        let direct = parse("host=h sslmode=require sslnegotiation=direct", &env());
        assert_eq!(direct.sslnegotiation, SslNegotiation::Direct);
        assert!(error("host=h sslnegotiation=direct").contains("require, verify-ca or verify-full"));
        assert!(error("host=h sslnegotiation=maybe").contains("postgres or direct"));
    }

    #[test]
    fn ways_to_log_in_are_named_or_ruled_out_but_not_both() {
        let methods = |text: &str| parse(&format!("host=h require_auth={text}"), &env()).require_auth.unwrap();
        assert_eq!(parse("host=h", &env()).require_auth, None);
        assert_eq!(methods("scram-sha-256,none"), [AuthMethod::None, AuthMethod::Scram]);
        let ruled_out = methods("!password,!md5,!none");
        assert_eq!(ruled_out, [AuthMethod::Scram, AuthMethod::Gss, AuthMethod::Sspi, AuthMethod::Oauth]);
        for text in ["scram-sha-256,!md5", "kerberos", "md5,,none", "!"] {
            assert!(error(&format!("host=h require_auth={text}")).contains("require_auth"), "{text}");
        }
    }

    #[test]
    fn each_host_gets_its_password_from_the_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(".pgpass");
        std::fs::write(&path, "a:*:*:*:one\nb:*:*:*:two\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let info = parse("host=a,b,c", &env().with_home(home.path()));
        let passwords: Vec<_> = info.hosts.iter().map(|h| h.password.as_ref().map(Secret::reveal)).collect();
        assert_eq!(passwords, [Some("one"), Some("two"), None]);
    }

    #[test]
    fn a_service_in_the_environment_gives_no_place() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(".pg_service.conf"), "[s]\nhost=sh\nport=99\nuser=su\n").unwrap();
        let env = env().with_home(home.path());
        assert_eq!(parse("service=s", &env).to_string(), "su@sh:99/su");
        assert_eq!(parse("host=h", &env.with("PGSERVICE", "s")).to_string(), "su@h:5432/su");
    }

    #[test]
    fn no_error_and_no_debug_output_holds_a_password() {
        for text in [
            "postgres://u:hunter2/x@h/d",
            "postgres://u:hun@ter2@h/d",
            "postgres://u:p@h:hunter2/d",
            "host=a hunter2",
            "postgres://u:hunter2%zz@h",
            "host=a port=hunter2",
            "postgres://u:1/hunter2@h/d",
        ] {
            let message = error(text);
            assert!(!message.contains("hunter2") && !message.contains("ter2"), "{message}");
        }
        assert!(!format!("{:?}", parse("postgres://u:hunter2@h/d", &env())).contains("hunter2"));
    }
}
