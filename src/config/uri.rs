//! The URI form of a connection string.
//!
//! Invariant: taken apart exactly as `conninfo_uri_parse_options` does
//! (`src/interfaces/libpq/fe-connect.c`), so that a string that works with
//! psql works here; the one exception is a bare `@` behind the hosts, which is
//! refused: it is the rest of a password that was not percent-encoded.

use percent_encoding::percent_decode_str;

use super::error::ConnInfoError;
use super::keywords::Params;

/// What follows the scheme, or `None` when the text is no URI.
fn strip_scheme(text: &str) -> Option<&str> {
    text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"))
}

/// Whether the text is a URI rather than keywords.
pub(super) fn is_uri(text: &str) -> bool {
    strip_scheme(text).is_some()
}

/// Parses a URI.
pub(super) fn parse(text: &str) -> Result<Params, ConnInfoError> {
    let rest = strip_scheme(text).ok_or(ConnInfoError::BadUri("not a PostgreSQL URI"))?;
    let mut params = Params::default();
    let rest = user_info(rest, &mut params)?;
    let rest = hosts(rest, &mut params)?;
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let dbname = path.strip_prefix('/').unwrap_or(path);
    if dbname.contains('@') {
        return Err(ConnInfoError::BadUri(
            "there is a bare \"@\" behind the host: in a user or password write \"@\" as %40, \"/\" as %2F, \":\" as %3A",
        ));
    }
    store(&mut params, "dbname", dbname, "database")?;
    for (index, pair) in query.into_iter().filter(|q| !q.is_empty()).flat_map(|q| q.split('&')).enumerate() {
        parameter(pair, index + 1, &mut params)?;
    }
    Ok(params)
}

/// `user:password@`, if an `@` comes before the first `/`.
fn user_info<'a>(text: &'a str, params: &mut Params) -> Result<&'a str, ConnInfoError> {
    let Some(at) = text.find(['@', '/']).filter(|at| text[*at..].starts_with('@')) else {
        return Ok(text);
    };
    let (info, rest) = (&text[..at], &text[at + 1..]);
    let (user, password) = info.split_once(':').unwrap_or((info, ""));
    store(params, "user", user, "user")?;
    store(params, "password", password, "password")?;
    Ok(rest)
}

/// `host:port,host:port`, up to `/`, `?` or the end.
fn hosts<'a>(text: &'a str, params: &mut Params) -> Result<&'a str, ConnInfoError> {
    let (mut hosts, mut ports) = (String::new(), String::new());
    let mut rest = text;
    loop {
        let after_host = host(rest, &mut hosts)?;
        rest = after_host;
        if let Some(port) = after_host.strip_prefix(':') {
            let end = port.find(['/', '?', ',']).unwrap_or(port.len());
            ports.push_str(&port[..end]);
            rest = &port[end..];
        }
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => break,
        }
        hosts.push(',');
        ports.push(',');
    }
    store(params, "host", &hosts, "host")?;
    store(params, "port", &ports, "port")?;
    Ok(rest)
}

/// One host, `[…]` around an IPv6 address.
fn host<'a>(text: &'a str, hosts: &mut String) -> Result<&'a str, ConnInfoError> {
    let Some(inner) = text.strip_prefix('[') else {
        let end = text.find([':', '/', '?', ',']).unwrap_or(text.len());
        hosts.push_str(&text[..end]);
        return Ok(&text[end..]);
    };
    let (address, rest) =
        inner.split_once(']').ok_or(ConnInfoError::BadUri("the \"[\" of an IPv6 address has no matching \"]\""))?;
    if address.is_empty() {
        return Err(ConnInfoError::BadUri("the IPv6 address in brackets is empty"));
    }
    if !rest.is_empty() && !rest.starts_with([':', '/', '?', ',']) {
        return Err(ConnInfoError::BadUri(
            "the \"]\" of an IPv6 address must be followed by \":\", \"/\", \"?\" or \",\"",
        ));
    }
    hosts.push_str(address);
    Ok(rest)
}

/// One `name=value` behind the `?`.
fn parameter(pair: &str, index: usize, params: &mut Params) -> Result<(), ConnInfoError> {
    let (name, value) = pair.split_once('=').ok_or(ConnInfoError::BadUriParameter(index))?;
    if value.contains('=') {
        return Err(ConnInfoError::BadUriParameter(index));
    }
    let name = decode(name, "parameter name")?;
    let value = decode(value, "parameter value")?;
    // JDBC's spelling, which libpq accepts as well.
    if name == "ssl" && value == "true" { params.set("sslmode", "require".into()) } else { params.set(&name, value) }
}

/// Stores a part that is there; an empty one leaves the default.
fn store(params: &mut Params, name: &str, raw: &str, part: &'static str) -> Result<(), ConnInfoError> {
    if raw.is_empty() { Ok(()) } else { params.set(name, decode(raw, part)?) }
}

/// Strict percent-decoding: libpq refuses what browsers let pass.
fn decode(raw: &str, part: &'static str) -> Result<String, ConnInfoError> {
    let wrong = |why| ConnInfoError::PercentEncoding { part, why };
    for (at, _) in raw.match_indices('%') {
        match raw.as_bytes().get(at + 1..at + 3) {
            Some(b"00") => return Err(wrong("%00 is forbidden")),
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {}
            _ => return Err(wrong("\"%\" must be followed by two hexadecimal digits (a plain \"%\" is %25)")),
        }
    }
    let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| wrong("it is not UTF-8"))?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What libpq's own test prints: words in the order user, password, dbname,
    /// host, hostaddr, port, sslmode.
    fn summary(uri: &str) -> String {
        let params = match parse(uri) {
            Ok(params) => params,
            Err(error) => return format!("error: {error}"),
        };
        let words = ["user", "password", "dbname", "host", "hostaddr", "port", "sslmode"];
        let pairs: Vec<String> =
            words.iter().filter_map(|word| Some(format!("{word}={}", params.get(word)?))).collect();
        pairs.join(" ")
    }

    /// The cases of `src/interfaces/libpq/t/001_uri.pl`.
    const ACCEPTED: &[(&str, &str)] = &[
        ("postgresql://uri-user:secret@host:12345/db", "user=uri-user password=secret dbname=db host=host port=12345"),
        ("postgresql://uri-user@host:12345/db", "user=uri-user dbname=db host=host port=12345"),
        ("postgresql://uri-user@host/db", "user=uri-user dbname=db host=host"),
        ("postgresql://host:12345/db", "dbname=db host=host port=12345"),
        ("postgresql://uri-user@host:12345/", "user=uri-user host=host port=12345"),
        ("postgresql://uri-user@host/", "user=uri-user host=host"),
        ("postgresql://uri-user@", "user=uri-user"),
        ("postgresql://host:12345/", "host=host port=12345"),
        ("postgresql://host:12345", "host=host port=12345"),
        ("postgresql://host/db", "dbname=db host=host"),
        ("postgresql://host/", "host=host"),
        ("postgresql://host", "host=host"),
        ("postgresql://", ""),
        ("postgresql://?hostaddr=127.0.0.1", "hostaddr=127.0.0.1"),
        ("postgresql://example.com?hostaddr=63.1.2.4", "host=example.com hostaddr=63.1.2.4"),
        ("postgresql://%68ost/", "host=host"),
        ("postgresql://host/db?user=uri-user", "user=uri-user dbname=db host=host"),
        ("postgresql://host/db?user=uri-user&port=12345", "user=uri-user dbname=db host=host port=12345"),
        ("postgresql://host/db?u%73er=someotheruser&port=12345", "user=someotheruser dbname=db host=host port=12345"),
        ("postgresql://host:12345?user=uri-user", "user=uri-user host=host port=12345"),
        ("postgresql://host?user=uri-user", "user=uri-user host=host"),
        ("postgresql://host?", "host=host"),
        ("postgresql://[::1]:12345/db", "dbname=db host=::1 port=12345"),
        ("postgresql://[::1]/db", "dbname=db host=::1"),
        ("postgresql://[2001:db8::1234]/", "host=2001:db8::1234"),
        ("postgresql://[200z:db8::1234]/", "host=200z:db8::1234"),
        ("postgresql://[::1]", "host=::1"),
        ("postgres://", ""),
        ("postgres:///", ""),
        ("postgres:///db", "dbname=db"),
        ("postgres://uri-user@/db", "user=uri-user dbname=db"),
        ("postgres://?host=/path/to/socket/dir", "host=/path/to/socket/dir"),
        ("postgres://@host", "host=host"),
        ("postgres://host:/", "host=host"),
        ("postgres://:12345/", "port=12345"),
        ("postgres://otheruser@?host=/no/such/directory", "user=otheruser host=/no/such/directory"),
        ("postgres://otheruser@/?host=/no/such/directory", "user=otheruser host=/no/such/directory"),
        (
            "postgres://otheruser@:12345?host=/no/such/socket/path",
            "user=otheruser host=/no/such/socket/path port=12345",
        ),
        (
            "postgres://otheruser@:12345/db?host=/path/to/socket",
            "user=otheruser dbname=db host=/path/to/socket port=12345",
        ),
        ("postgres://:12345/db?host=/path/to/socket", "dbname=db host=/path/to/socket port=12345"),
        ("postgres://:12345?host=/path/to/socket", "host=/path/to/socket port=12345"),
        ("postgres://%2Fvar%2Flib%2Fpostgresql/dbname", "dbname=dbname host=/var/lib/postgresql"),
        ("postgresql://host?sslmode=disable", "host=host sslmode=disable"),
        // Beyond libpq's list.
        ("postgres://a:1,b,[::2]:3/db", "dbname=db host=a,b,::2 port=1,,3"),
        ("postgres://h/db?ssl=true", "dbname=db host=h sslmode=require"),
        ("postgres://u:p%40s%2Fs%3A%25@h", "user=u password=p@s/s:% host=h"),
        ("postgres://u:a:b@h", "user=u password=a:b host=h"),
    ];

    #[test]
    fn every_uri_that_libpq_accepts_means_the_same_here() {
        for (uri, expected) in ACCEPTED {
            assert_eq!(summary(uri), *expected, "{uri}");
        }
    }

    #[test]
    fn every_uri_that_libpq_refuses_is_refused_here() {
        for (uri, part) in [
            ("postgresql://host/db?u%7aer=someotheruser&port=12345", "unknown keyword, did you mean \"user\"?"),
            ("postgresql://host?uzer=", "unknown keyword, did you mean \"user\"?"),
            ("postgres://[::1", "no matching"),
            ("postgres://[]", "empty"),
            ("postgres://[::1]z", "must be followed"),
            ("postgresql://host?zzz", "parameter 1"),
            ("postgresql://host?value1&value2", "parameter 1"),
            ("postgresql://host?key=key=value", "parameter 1"),
            ("postgres://host?dbname=%XXfoo", "percent-encoded"),
            ("postgresql://a%00b", "%00 is forbidden"),
            ("postgresql://%zz", "percent-encoded"),
            ("postgresql://%1", "percent-encoded"),
            ("postgresql://%", "percent-encoded"),
        ] {
            let summary = summary(uri);
            assert!(summary.starts_with("error: ") && summary.contains(part), "{uri}: {summary}");
        }
        assert!(!is_uri("postgre://"));
    }

    #[test]
    fn a_password_that_is_not_encoded_is_refused_and_not_repeated() {
        for uri in ["postgres://u:12/hunter2@host/db", "postgres://u:12?hunter2@host/db"] {
            let summary = summary(uri);
            assert!(!summary.contains("hunter2") || !summary.starts_with("error"), "{summary}");
        }
        assert!(summary("postgres://u:12/hunter2@host/db").contains("%40"));
    }

    proptest! {
        #[test]
        fn whatever_is_percent_encoded_comes_back(password in "[^\0]{1,40}", user in "[^\0]{1,20}") {
            let encode = |s: &str| percent_encoding::utf8_percent_encode(s, percent_encoding::NON_ALPHANUMERIC).to_string();
            let params = parse(&format!("postgresql://{}:{}@h/d", encode(&user), encode(&password))).unwrap();
            prop_assert_eq!(params.get("password"), Some(password.as_str()));
            prop_assert_eq!(params.get("user"), Some(user.as_str()));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
            let _ = parse(&format!("postgresql://{text}"));
            let _ = super::super::keywords::parse(&text);
        }
    }
}
