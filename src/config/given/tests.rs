//! Claims about flags, environment and file.

use super::*;
use crate::config::settings::how::{BATCH_ROWS, JOBS, RETRY_FOR};
use crate::config::settings::moved::{NO_COPY, SCHEMAS, TABLES};
use crate::config::settings::value::{Patterns, Switch};

/// A file with this content, as `--config` would name it.
struct File(tempfile::TempDir);

impl File {
    fn with(content: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("w.toml"), content).unwrap();
        let owners = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(folder.path().join("w.toml"), owners).unwrap();
        File(folder)
    }

    fn env(&self) -> Env {
        Env::empty().with("WALFERRY_CONFIG", self.0.path().join("w.toml").to_str().unwrap())
    }

    fn error(&self) -> String {
        Values::default().complete(&self.env()).unwrap_err().to_string()
    }
}

#[test]
fn flag_goes_over_environment_goes_over_file() {
    let file = File::with(
        "jobs = 3\nbatch-rows = 7\nretry-for = \"1m\"\ntables = [\"a\", \"b\"]\nschemas = \"s\"\nno-copy = true\n",
    );
    let env = file.env().with("WALFERRY_JOBS", "5").with("WALFERRY_BATCH_ROWS", "8");
    let values = Values::default().with_flag(&JOBS.about, vec!["9".into()]).complete(&env).unwrap();
    assert_eq!(values.find(&JOBS).unwrap(), Some(9));
    assert_eq!(values.get(&BATCH_ROWS).unwrap(), 8);
    assert_eq!(values.get(&RETRY_FOR).unwrap().as_secs(), 60);
    assert_eq!(values.get(&NO_COPY).unwrap(), Switch::On);
    assert_eq!(values.find(&TABLES).unwrap(), Some(Patterns(vec!["a".into(), "b".into()])));
    assert_eq!(values.find(&SCHEMAS).unwrap(), Some(Patterns(vec!["s".into()])));
}

#[test]
fn an_error_names_the_place_that_the_value_came_from() {
    let file = File::with("# gently\n\njobs = 0\n");
    let of_file = Values::default().complete(&file.env()).unwrap();
    let of_env = Values::default().complete(&Env::empty().with("WALFERRY_JOBS", "0")).unwrap();
    let of_flag = Values::default().with_flag(&JOBS.about, vec!["0".into()]);
    for (values, place) in [(of_file, "\"jobs\" in line 3 of "), (of_env, "WALFERRY_JOBS"), (of_flag, "--jobs")] {
        let error = values.find(&JOBS).unwrap_err().to_string();
        assert!(error.starts_with(place) && error.ends_with("must be a number from 1 to 128, not \"0\""), "{error}");
    }
}

#[test]
fn a_key_nobody_knows_and_a_wrong_type_are_errors_that_quote_no_value() {
    for (content, part) in [
        ("job = 3\n", "line 1: there is no setting \"job\" (did you mean \"jobs\"?)"),
        ("retry_for = 3\n", "did you mean \"retry-for\""),
        ("zebra = 3\n", "settings are named like the flags"),
        ("config = \"x\"\n", "there is no setting \"config\""),
        ("\nsource = [\"hunter2\"]\n", "line 2: \"source\" must be a connection string"),
        ("jobs = [3]\n", "line 1: \"jobs\" must be a number from 1 to 128"),
        ("source = \"hunter2", "line 1"),
    ] {
        let error = File::with(content).error();
        assert!(error.contains(part) && error.contains("w.toml") && !error.contains("hunter2"), "{error}");
    }
    let missing = Values::default().complete(&Env::empty().with("WALFERRY_CONFIG", "/nonexistent.toml"));
    assert!(matches!(missing, Err(ConfigError::File { .. })));
}

#[test]
fn a_secret_can_come_from_a_file_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "postgres://u:hunter2@filehost/x\n").unwrap();
    let env = Env::empty().with("WALFERRY_TARGET_PGURI_FILE", path.to_str().unwrap()).with("PG_URI_DST", "host=b");
    let values = Values::default().complete(&env).unwrap();
    assert_eq!(values.find(&TARGET).unwrap().unwrap().0, "postgres://u:hunter2@filehost/x");
    assert!(!format!("{values:?}").contains("hunter2"), "{values:?}");
    // Only secrets: a name is no file's.
    let values = Values::default().complete(&Env::empty().with("WALFERRY_JOBS_FILE", path.to_str().unwrap())).unwrap();
    assert_eq!(values.find(&JOBS).unwrap(), None);
}

#[test]
fn every_setting_is_taken_from_its_flag_before_its_variables_before_its_key() {
    for setting in settings::all() {
        let about = setting.about();
        for variable in about.variables() {
            let given = of_env(&Env::empty().with(&variable, "x"), setting).unwrap().unwrap();
            assert_eq!(given.origin, Origin::Variable(variable));
        }
        let file = File::with(&format!("{} = \"x\"\n", about.name));
        let values = Values::default().complete(&file.env());
        if about.in_file == InFile::Nothing {
            assert!(values.is_err(), "{}", about.name);
            continue;
        }
        assert!(matches!(values.unwrap().origin_of(about.name), Origin::Key { line: 1, .. }), "{}", about.name);
        let env = file.env().with(&about.variable(), "x");
        let values = Values::default().complete(&env).unwrap();
        assert_eq!(values.origin_of(about.name), Origin::Variable(about.variable()));
        let values = Values::default().with_flag(about, vec!["x".into()]).complete(&env).unwrap();
        assert_eq!(values.origin_of(about.name), Origin::Flag(about.name));
    }
    assert!(CONFIG.default.0.contains(DEFAULT_FILE));
}

#[test]
fn a_variable_that_is_nearly_a_setting_s_is_named_and_others_are_passed_over() {
    let near = |name: &str| -> Vec<String> {
        let env = Env::empty().with("WALFERRY_JOBS", "3").with("WALFERRY_TARGET_PGURI_FILE", "/x").with(name, "x");
        near_variables(&env).into_iter().flat_map(|(found, near)| [vec![found.to_owned()], near].concat()).collect()
    };
    assert_eq!(near("WALFERRY_EXCLUDE_TABLE")[..2], ["WALFERRY_EXCLUDE_TABLE", "WALFERRY_EXCLUDE_TABLES"]);
    assert_eq!(near("WALFERRY_SOURCE")[..2], ["WALFERRY_SOURCE", "WALFERRY_SOURCE_PGURI"]);
    assert_eq!(near("WALFERRY_RETRYFOR")[1], "WALFERRY_RETRY_FOR");
    // Of Kubernetes, of our own tests and benchmarks, of others.
    for name in [
        "WALFERRY_SERVICE_HOST",
        "WALFERRY_SERVICE_PORT",
        "WALFERRY_PORT",
        "WALFERRY_PORT_9187_TCP",
        "WALFERRY_PORT_9187_TCP_ADDR",
        "WALFERRY_FAILPOINT",
        "WALFERRY_TEST_SEED",
        "WALFERRY_TEST_PG_BINDIRS",
        "WALFERRY_BENCH_SCALE",
        "WALFERRY_IMAGE",
        "PATH",
    ] {
        assert_eq!(near(name), [""; 0], "{name}");
    }
}
