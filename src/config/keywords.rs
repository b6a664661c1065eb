//! The words of a connection string, and the `keyword=value` form.
//!
//! Invariant: every word libpq knows is in [`KEYWORDS`] with what happens to
//! it; a word that would change security and is not served is refused, never
//! ignored. Source: `PQconninfoOptions` and `conninfo_parse` in
//! `src/interfaces/libpq/fe-connect.c`.

use std::collections::BTreeMap;

use super::Env;
use super::error::ConnInfoError;
use super::near::near_misses;

/// What happens to a word.
enum Treatment {
    /// It becomes part of the connection.
    Used,
    /// It has no effect here, and nobody is less safe for it.
    Ignored,
    /// Only these values (and none) mean what we do anyway.
    OnlyIf(&'static [&'static str], &'static str),
}

/// A word, the variable that stands in for it, and what happens to it.
struct Keyword {
    name: &'static str,
    variable: Option<&'static str>,
    treatment: Treatment,
}

const fn used(name: &'static str, variable: Option<&'static str>) -> Keyword {
    Keyword { name, variable, treatment: Treatment::Used }
}

const fn ignored(name: &'static str) -> Keyword {
    Keyword { name, variable: None, treatment: Treatment::Ignored }
}

const fn only_if(
    name: &'static str,
    variable: Option<&'static str>,
    values: &'static [&'static str],
    why: &'static str,
) -> Keyword {
    Keyword { name, variable, treatment: Treatment::OnlyIf(values, why) }
}

/// All words. PGHOST, PGHOSTADDR, PGPORT and PGDATABASE are not here: they
/// would fill in both ends, and turn a typing error in one of them into a
/// migration of a database onto itself.
const KEYWORDS: &[Keyword] = &[
    used("host", None),
    used("hostaddr", None),
    used("port", None),
    used("dbname", None),
    used("user", Some("PGUSER")),
    used("password", Some("PGPASSWORD")),
    used("passfile", Some("PGPASSFILE")),
    used("service", Some("PGSERVICE")),
    used("servicefile", Some("PGSERVICEFILE")),
    used("sslmode", Some("PGSSLMODE")),
    used("requiressl", Some("PGREQUIRESSL")),
    used("sslrootcert", Some("PGSSLROOTCERT")),
    used("sslcert", Some("PGSSLCERT")),
    used("sslkey", Some("PGSSLKEY")),
    used("sslnegotiation", Some("PGSSLNEGOTIATION")),
    used("channel_binding", Some("PGCHANNELBINDING")),
    used("require_auth", Some("PGREQUIREAUTH")),
    used("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    used("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    used("options", Some("PGOPTIONS")),
    ignored("application_name"),
    ignored("fallback_application_name"),
    ignored("client_encoding"),
    ignored("keepalives"),
    ignored("keepalives_idle"),
    ignored("keepalives_interval"),
    ignored("keepalives_count"),
    ignored("tcp_user_timeout"),
    ignored("krbsrvname"),
    ignored("gsslib"),
    ignored("gssdelegation"),
    ignored("sslcompression"),
    ignored("min_protocol_version"),
    ignored("max_protocol_version"),
    only_if("gssencmode", Some("PGGSSENCMODE"), &["disable", "prefer"], "GSSAPI encryption is not supported, use TLS"),
    only_if("sslcertmode", Some("PGSSLCERTMODE"), &["allow"], "only \"allow\" is supported"),
    only_if("sslsni", Some("PGSSLSNI"), &["1"], "the host name is always sent"),
    only_if("sslcrl", Some("PGSSLCRL"), &[], "revocation lists are not supported"),
    only_if("sslcrldir", Some("PGSSLCRLDIR"), &[], "revocation lists are not supported"),
    only_if("sslpassword", None, &[], "encrypted keys are not supported, decrypt it into a file of mode 0600"),
    only_if("sslkeylogfile", None, &[], "logging of TLS keys is not supported"),
    only_if(
        "ssl_min_protocol_version",
        Some("PGSSLMINPROTOCOLVERSION"),
        &["TLSv1", "TLSv1.1", "TLSv1.2"],
        "TLS 1.2 and 1.3 are offered",
    ),
    only_if("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION"), &["TLSv1.3"], "TLS 1.2 and 1.3 are offered"),
    only_if("requirepeer", Some("PGREQUIREPEER"), &[], "the peer of a Unix socket is not checked"),
    only_if("load_balance_hosts", Some("PGLOADBALANCEHOSTS"), &["disable"], "hosts are tried in the order given"),
    only_if("replication", None, &[], "walferry opens its replication connection itself"),
];

/// Words with their values, as given or filled in.
#[derive(Clone, Default)]
pub(super) struct Params(BTreeMap<&'static str, String>);

impl Params {
    /// A word's value; an empty one counts as none, as in libpq.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Stores a word's value; the last one wins.
    pub(super) fn set(&mut self, name: &str, value: String) -> Result<(), ConnInfoError> {
        let keyword = find(name)?;
        self.0.insert(keyword.name, value);
        Ok(())
    }

    /// Fills in words that have no value yet.
    pub(super) fn fill_from(&mut self, other: Params) {
        for (name, value) in other.0 {
            self.0.entry(name).or_insert(value);
        }
    }

    /// Removes words.
    pub(super) fn forget(&mut self, names: &[&str]) {
        self.0.retain(|name, _| !names.contains(name));
    }

    /// What the environment gives.
    pub(super) fn of_env(env: &Env) -> Params {
        let from = |k: &Keyword| Some((k.name, env.get(k.variable?)?.to_owned()));
        Params(KEYWORDS.iter().filter_map(from).collect())
    }

    /// Refuses values that ask for what we do not do.
    pub(super) fn check_supported(&self) -> Result<(), ConnInfoError> {
        for keyword in KEYWORDS {
            let Some(value) = self.get(keyword.name) else { continue };
            match keyword.treatment {
                Treatment::Used => {}
                Treatment::Ignored => tracing::debug!(keyword = keyword.name, "keyword has no effect here"),
                Treatment::OnlyIf(accepted, why) => {
                    if !accepted.contains(&value) {
                        return Err(ConnInfoError::Unsupported { keyword: keyword.name, why });
                    }
                }
            }
        }
        Ok(())
    }
}

fn find(name: &str) -> Result<&'static Keyword, ConnInfoError> {
    let near = || near_misses(name, KEYWORDS.iter().map(|keyword| keyword.name)).first().copied();
    KEYWORDS.iter().find(|keyword| keyword.name == name).ok_or_else(|| ConnInfoError::UnknownKeyword(near()))
}

/// Parses `host=a port=5433 password='it\'s'`.
pub(super) fn parse(text: &str) -> Result<Params, ConnInfoError> {
    let mut params = Params::default();
    let mut rest = text.trim_start();
    let mut word = 0;
    while !rest.is_empty() {
        word += 1;
        let end = rest.find(|c: char| c == '=' || c.is_ascii_whitespace()).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let after = after.trim_start().strip_prefix('=').ok_or(ConnInfoError::MissingEquals(word))?;
        let keyword = find(name)?;
        let (value, after) = value(after.trim_start(), keyword.name)?;
        params.set(keyword.name, value)?;
        rest = after.trim_start();
    }
    Ok(params)
}

/// Takes one value off the front: bare up to white space, or in single quotes;
/// a backslash takes the next character as it is.
fn value<'a>(text: &'a str, keyword: &'static str) -> Result<(String, &'a str), ConnInfoError> {
    let (quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            c if !quoted && c.is_ascii_whitespace() => return Ok((value, &body[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err(ConnInfoError::UnterminatedQuote(keyword)) } else { Ok((value, "")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(text: &str, name: &str) -> Option<String> {
        parse(text).unwrap().get(name).map(str::to_owned)
    }

    #[test]
    fn quotes_escapes_and_spaces_around_the_equals_sign_are_those_of_libpq() {
        assert_eq!(get("host = a  dbname=b", "host").as_deref(), Some("a"));
        assert_eq!(get(r"password='it\'s \\' user=x", "password").as_deref(), Some(r"it's \"));
        assert_eq!(get(r"password=a\ b", "password").as_deref(), Some("a b"));
        assert_eq!(get("password='' user=x", "password"), None);
        assert_eq!(get("user=a user=b", "user").as_deref(), Some("b"));
    }

    #[test]
    fn errors_name_the_place_and_never_the_value() {
        assert_eq!(parse("host=a secret word").err(), Some(ConnInfoError::MissingEquals(2)));
        assert_eq!(parse("password='abc").err(), Some(ConnInfoError::UnterminatedQuote("password")));
        assert_eq!(parse("hots=a").err(), Some(ConnInfoError::UnknownKeyword(Some("host"))));
        for uri in ["\"postgresql://u:secret@h/d?sslmode=require\"", "postgre://u:secret@h/d?a=b", "host=h secret=x"] {
            let error = parse(uri).err().unwrap();
            let is_of_a_keyword = matches!(error, ConnInfoError::UnknownKeyword(_));
            assert!(is_of_a_keyword && !error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_word_that_would_change_security_is_refused_rather_than_ignored() {
        for text in ["sslcrl=/a", "sslpassword=x", "gssencmode=require", "replication=database"] {
            assert!(matches!(parse(text).unwrap().check_supported(), Err(ConnInfoError::Unsupported { .. })), "{text}");
        }
        for text in ["gssencmode=disable", "sslcrl=''", "keepalives=1 application_name=x client_encoding=utf8"] {
            assert_eq!(parse(text).unwrap().check_supported(), Ok(()), "{text}");
        }
    }
}
