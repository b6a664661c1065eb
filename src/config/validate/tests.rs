//! Claims about what a migration is told.

use std::time::Duration;

use super::*;
use crate::config::settings::Declared;
use crate::config::{Audience, Secret};
use crate::sql::TableName;

fn env() -> Env {
    Env::empty().with_user("me").with("WALFERRY_SOURCE_PGURI", "postgres://a/x").with("PG_URI_DST", "postgres://b/x")
}

fn settings_of(flags: &[(&dyn Declared, &str)], env: &Env) -> Result<Settings, ConfigError> {
    let values = flags
        .iter()
        .fold(Values::default(), |values, (setting, text)| values.with_flag(setting.about(), vec![(*text).to_owned()]));
    Settings::validate(&values.complete(env)?, env)
}

fn settings(flags: &[(&dyn Declared, &str)]) -> Result<Settings, ConfigError> {
    settings_of(flags, &env())
}

#[test]
fn defaults_are_those_of_the_declarations() {
    let settings = settings(&[]).unwrap();
    assert_eq!(settings.slot, Provenance::Ours("walferry".into()));
    assert_eq!(settings.publications, Publications::Ours("walferry".into()));
    assert_eq!((settings.retry_for.as_secs(), settings.batch.rows), (900, 10_000));
    assert_eq!((settings.batch.bytes, settings.queue_bytes), (16 << 20, 32 << 20));
    assert_eq!((settings.part_size, settings.wal_warn), (256 << 20, None));
    assert_eq!((settings.index_jobs, settings.copy_rate), (settings.jobs, None));
    assert_eq!(settings.index_resources, IndexResources::default());
    assert_eq!((settings.snapshot_age, settings.schema), (Duration::from_secs(1800), SchemaMode::Create));
    assert!((1..=4).contains(&settings.jobs) && settings.listen.is_none() && settings.filter.is_empty());
    assert_eq!(settings.target.to_string(), "me@b:5432/x");
}

#[test]
fn a_value_that_cannot_be_used_names_its_setting_and_what_is_accepted() {
    let cases: &[(&dyn Declared, &str, &str)] = &[
        (&JOBS, "0", "--jobs must be a number from 1 to 128, not \"0\""),
        (&INDEX_JOBS, "129", "--index-jobs must be a number from 1 to 128"),
        (&INDEX_WORKERS, "-1", "a number from 0 to 1024"),
        (&COPY_RATE, "fast", "--copy-rate must be a size of at least 1MiB"),
        (&RETRY_FOR, "soon", "--retry-for must be a duration, such as 15m"),
        (&BATCH_BYTES, "12", "at least 1MiB"),
        (&SCHEMA, "drop", "create, existing or none"),
        (&OWNERS, "perhaps", "true or false"),
        (&BATCH_ROWS, "0", "a number of at least 1"),
        (&SEQUENCE_INTERVAL, "99ms", "a duration of at least 100ms"),
        (&SEQUENCE_MARGIN, "-1", "a number"),
        (&SEQUENCE_MARGIN, "1.5", "a number"),
        (&SNAPSHOT_AGE, "999ms", "a duration from 1s to 1day"),
        (&SNAPSHOT_AGE, "25h", "a duration from 1s to 1day"),
        (&START_LSN, "16", "an LSN, such as 16/B374D848"),
        (&LISTEN, "9187", "an address and port"),
        (&LISTEN, "0.0.0.0:9187", "--listen names an address that other machines can reach"),
        (&LISTEN, "walferry:9187", "--listen-token none"),
        (&LISTEN_TOKEN, "", "the word none, or 16 to 256 ASCII letters"),
        (&TABLES, "a.b.c", "the pattern \"a.b.c\" of --tables"),
        (&NAME, "", "1 to 40 of the letters a-z, 0-9 and _"),
        (&NAME, "Upper", "1 to 40"),
        (&SLOT, "a-b", "1 to 63"),
    ];
    for (setting, text, part) in cases {
        let error = settings(&[(*setting, text)]).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(settings(&[(&NAME, &"x".repeat(41))]).is_err());
    let error = settings_of(&[], &env().with("WALFERRY_EXCLUDE_TABLES", "\"open")).unwrap_err().to_string();
    assert!(error.contains("of WALFERRY_EXCLUDE_TABLES cannot be used"), "{error}");
}

#[test]
fn a_token_is_long_enough_and_no_error_repeats_it() {
    let listen = |address: &str, token: &str| settings(&[(&LISTEN, address), (&LISTEN_TOKEN, token)]);
    let audience = |address: &str, token: &str| listen(address, token).unwrap().listen.unwrap().audience().clone();
    let token = "hunter2hunter2h!";
    assert_eq!(audience("0.0.0.0:1", token), Audience::Bearer(Secret::new(token)));
    assert_eq!(audience("127.0.0.1:1", token), Audience::Bearer(Secret::new(token)));
    assert_eq!(audience("0.0.0.0:1", "none"), Audience::Everybody);
    let longest = "h".repeat(256);
    assert_eq!(audience("[::]:1", &longest), Audience::Bearer(Secret::new(&longest)));
    for wrong in ["hunter2hunter2h", "hunter2 hunter2 h", "hunter2hunter2hü", "NONE", "none ", &format!("{longest}h")]
    {
        let error = listen("0.0.0.0:1", wrong).err().unwrap().to_string();
        assert!(
            error.starts_with("--listen-token must be the word none, or 16 to 256") && !error.contains("hun"),
            "{error}"
        );
    }
    assert!(settings(&[(&LISTEN_TOKEN, token)]).unwrap().listen.is_none(), "a token alone listens nowhere");
    assert!(!format!("{:?}", listen("0.0.0.0:1", token).unwrap()).contains("hunter2"));
    let of_file = env().with("WALFERRY_LISTEN", "0.0.0.0:1");
    let error = settings_of(&[], &of_file).unwrap_err().to_string();
    assert!(
        error.starts_with("WALFERRY_LISTEN names an address") && error.contains("WALFERRY_LISTEN_TOKEN_FILE"),
        "{error}"
    );
}

#[test]
fn an_end_that_is_not_given_and_a_migration_onto_itself_are_refused() {
    assert!(matches!(settings_of(&[], &Env::empty()), Err(ConfigError::Missing { side: Side::Source, .. })));
    for (source, target, same) in [
        ("postgres://H/x", "postgres://u@h:5432/x", true),
        ("postgres://h/x", "postgres://h/y", false),
        ("postgres://h/x", "postgres://h:5433/x", false),
        ("postgres://a,h/x", "postgres://h/x", true),
    ] {
        let env = env().with("WALFERRY_SOURCE_PGURI", source).with("WALFERRY_TARGET_PGURI", target);
        let outcome = settings_of(&[], &env);
        assert_eq!(matches!(outcome, Err(ConfigError::SameDatabase(_))), same, "{source} {target}");
    }
}

#[test]
fn gentleness_is_read_as_it_is_written() {
    let given: &[(&dyn Declared, &str)] =
        &[(&JOBS, "8"), (&INDEX_MEMORY, "1GiB"), (&INDEX_WORKERS, "0"), (&COPY_RATE, "50MB"), (&SEQUENCE_MARGIN, "7")];
    let settings = settings(given).unwrap();
    assert_eq!((settings.index_jobs, settings.copy_rate, settings.sequence_margin), (8, Some(50_000_000), 7));
    assert_eq!(settings.index_resources, IndexResources { memory_kib: Some(1 << 20), workers: Some(0) });
}

#[test]
fn a_publication_of_all_tables_is_asked_for_and_never_another_s() {
    let of = |flags: &[(&dyn Declared, &str)]| settings(flags).map(|settings| settings.publish);
    assert_eq!(of(&[]).unwrap(), PublishWhat::Listed);
    assert_eq!(of(&[(&ALL_TABLES, "true")]).unwrap(), PublishWhat::AllTables);
    assert_eq!(of(&[(&ALL_TABLES, "false"), (&PUBLICATION, "theirs")]).unwrap(), PublishWhat::Listed);
    let error = of(&[(&ALL_TABLES, "true"), (&PUBLICATION, "theirs")]).unwrap_err().to_string();
    assert!(error.contains("--all-tables does not go with --publication"), "{error}");
}

#[test]
fn several_publications_are_named_as_sql_has_them() {
    let of = |env: &Env| settings_of(&[], env).map(|settings| settings.publications.names().to_owned());
    let named = of(&env().with("WALFERRY_PUBLICATION", "Orders, \"Stock\"")).unwrap();
    assert_eq!(named, ["orders", "Stock"]);
    for slip in ["orders,orders", "orders,", "\"orders"] {
        let error = of(&env().with("WALFERRY_PUBLICATION", slip)).unwrap_err().to_string();
        assert!(error.contains("WALFERRY_PUBLICATION must be names with commas in between, each once"), "{error}");
    }
}

#[test]
fn rows_that_are_there_already_need_a_slot_and_a_schema_that_is_there() {
    let error = |flags: &[(&dyn Declared, &str)]| settings(flags).unwrap_err().to_string();
    assert!(error(&[(&NO_COPY, "true")]).contains("--no-copy needs --slot"));
    assert!(error(&[(&START_LSN, "0/1")]).contains("--start-lsn needs --no-copy"));
    let slot: (&dyn Declared, &str) = (&SLOT, "theirs");
    assert!(error(&[(&NO_COPY, "true"), slot, (&SCHEMA, "create")]).contains("--no-copy goes with --schema existing"));
    let settings = settings(&[(&NO_COPY, "true"), slot, (&START_LSN, "0/10")]).unwrap();
    assert_eq!(settings.schema, SchemaMode::Existing);
    assert_eq!(settings.baseline, Baseline::Restored { start: Some("0/10".parse().unwrap()) });
    assert_eq!(settings.publications, Publications::Existing(Names::of("walferry")));
}

#[test]
fn a_pattern_knows_where_it_was_given() {
    let env = env().with("WALFERRY_EXCLUDE_TABLES", "Audit,\"log\"");
    let settings = settings_of(&[(&SCHEMAS, "app")], &env).unwrap();
    let all: Vec<String> = settings.filter.patterns().map(ToString::to_string).collect();
    assert_eq!(all, ["--schemas app", "Audit of WALFERRY_EXCLUDE_TABLES", "\"log\" of WALFERRY_EXCLUDE_TABLES"]);
}

#[test]
fn defaults_in_words_say_what_is_decided() {
    assert!(JOBS.default.0.ends_with(&format!("at most {DEFAULT_JOBS_AT_MOST}")));
}

#[test]
fn patterns_of_tables_and_schemas_add_up() {
    let settings = settings(&[(&TABLES, "b"), (&SCHEMAS, "s")]).unwrap();
    let includes = |schema: &str, name: &str| settings.filter.includes(&TableName::new(schema, name));
    assert!(includes("x", "b") && includes("s", "c") && !includes("x", "c"));
}
