//! The connection service file (`pg_service.conf`).
//!
//! Invariant: a service that is asked for and not found is an error. Source:
//! `parseServiceInfo` in `src/interfaces/libpq/fe-connect.c`.

use std::path::{Path, PathBuf};

use super::Env;
use super::error::ConnInfoError;
use super::keywords::Params;

/// Where Debian and the PostgreSQL project's own packages keep the system's file.
const SYSTEM_FOLDERS: [&str; 2] = ["/etc/postgresql-common", "/usr/local/pgsql/etc"];

/// The words of a service.
pub(super) fn load(service: &str, file: Option<&str>, env: &Env) -> Result<Params, ConnInfoError> {
    let files = match file {
        // A file that was named must be there; the usual ones may be absent.
        Some(file) => {
            let path = PathBuf::from(file);
            std::fs::metadata(&path).map_err(|error| unreadable(&path, &error))?;
            vec![path]
        }
        None => usual_files(env),
    };
    for path in &files {
        if !path.exists() {
            continue;
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
        if let Some(params) = parse(&text, service, path)? {
            return Ok(params);
        }
    }
    let places: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    Err(ConnInfoError::NoSuchService(service.to_owned(), places.join(" or ")))
}

fn usual_files(env: &Env) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = env.home().map(|home| home.join(".pg_service.conf")).into_iter().collect();
    match env.get("PGSYSCONFDIR") {
        Some(folder) => files.push(Path::new(folder).join("pg_service.conf")),
        None => files.extend(SYSTEM_FOLDERS.map(|folder| Path::new(folder).join("pg_service.conf"))),
    }
    files
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConnInfoError {
    ConnInfoError::Unreadable { path: path.to_owned(), why: error.to_string() }
}

/// The section `[service]` of the file, or `None` when it has none.
fn parse(text: &str, service: &str, path: &Path) -> Result<Option<Params>, ConnInfoError> {
    let mut found: Option<Params> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let wrong = |why: String| ConnInfoError::ServiceFile { path: path.to_owned(), line: index + 1, why };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if section.strip_suffix(']') == Some(service) {
                found = Some(Params::default());
            }
            continue;
        }
        let Some(params) = found.as_mut() else { continue };
        let Some((name, value)) = line.split_once('=') else {
            return Err(wrong("expected keyword=value (look-ups in LDAP are not supported)".into()));
        };
        if matches!(name, "service" | "servicefile") {
            return Err(wrong("a service cannot name another service".into()));
        }
        // The first value of a word wins inside a service, unlike in a string.
        if params.get(name).is_none() {
            params.set(name, value.to_owned()).map_err(|error| wrong(error.to_string()))?;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "# c\n[a]\nhost=first\n\n[b]\nhost=second\nport=5433\nhost=late\n[b]\nuser=never\n[bad]\nhots=x\n";

    #[test]
    fn the_first_section_of_that_name_gives_the_words() {
        let params = parse(FILE, "b", Path::new("f")).unwrap().unwrap();
        assert_eq!((params.get("host"), params.get("port"), params.get("user")), (Some("second"), Some("5433"), None));
        assert!(parse(FILE, "c", Path::new("f")).unwrap().is_none());
    }

    #[test]
    fn an_error_in_a_service_names_file_and_line() {
        let error = parse(FILE, "bad", Path::new("/etc/f")).err().unwrap();
        assert_eq!(error.to_string(), "line 12 of /etc/f: unknown keyword, did you mean \"host\"?");
    }

    #[test]
    fn a_service_that_is_nowhere_is_an_error_that_says_where_it_was_looked_for() {
        let home = tempfile::tempdir().unwrap();
        let env = Env::empty().with_home(home.path()).with("PGSYSCONFDIR", "/nonexistent");
        let error = load("x", None, &env).err().unwrap().to_string();
        assert!(error.contains(".pg_service.conf") && error.contains("/nonexistent"), "{error}");
        assert!(matches!(load("x", Some("/nonexistent/f"), &env), Err(ConnInfoError::Unreadable { .. })));
    }
}
