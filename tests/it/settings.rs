//! Settings as the program takes them: flag over environment over file, and an
//! error that names the place to mend. No server is asked: whatever is wrong
//! here is found before anything is connected to.

use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::Duration;

use crate::support::process::{Finished, Walferry, command};

/// A port that nobody listens on answers at once, so that a setting that was
/// taken shows in another exit code than 2.
const NOBODY: &str = "postgres://u@127.0.0.1:1/a";
const NOBODY_ELSE: &str = "postgres://u@127.0.0.1:1/b";

fn walferry(arguments: &[&str], prepare: impl FnOnce(&mut Command)) -> Finished {
    let mut command = command(NOBODY, NOBODY_ELSE, arguments);
    prepare(&mut command);
    Walferry::spawn(command).wait(Duration::from_secs(30))
}

#[test]
fn a_wrong_value_is_exit_code_2_and_named_where_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("walferry.toml");
    std::fs::write(&file, "name = \"shop\"\njobs = 0\n").unwrap();

    let wrong_file = walferry(&["check"], |command| {
        command.current_dir(folder.path());
    });
    let wrong_variable = walferry(&["check"], |command| {
        command.current_dir(folder.path()).env("WALFERRY_JOBS", "129");
    });
    let wrong_flag = walferry(&["check", "--jobs", "many"], |command| {
        command.current_dir(folder.path()).env("WALFERRY_JOBS", "129");
    });
    for (finished, place) in [
        (wrong_file, "\"jobs\" in line 2 of walferry.toml must be a number from 1 to 128, not \"0\""),
        (wrong_variable, "WALFERRY_JOBS must be a number from 1 to 128, not \"129\""),
        (wrong_flag, "--jobs must be a number from 1 to 128, not \"many\""),
    ] {
        let finished = finished.code(2);
        assert!(finished.stderr.contains(place), "{}", finished.stderr);
    }
}

/// A key that is misspelt would be a setting that is silently not set.
#[test]
fn a_misspelt_key_ends_with_the_nearest_setting_and_a_misspelt_variable_is_warned_about() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("w.toml"), "exclude-table = \"audit\"\n").unwrap();
    let wrong = walferry(&["check", "--config", folder.path().join("w.toml").to_str().unwrap()], |_| {}).code(2);
    assert!(
        wrong.stderr.contains("there is no setting \"exclude-table\" (did you mean \"exclude-tables\""),
        "{}",
        wrong.stderr
    );

    let warned = walferry(&["status"], |command| {
        command.env("WALFERRY_EXCLUDE_TABLE", "audit").env("WALFERRY_SERVICE_HOST", "10.0.0.1");
    });
    assert!(
        warned.stderr.contains("WALFERRY_EXCLUDE_TABLE is no setting: did you mean WALFERRY_EXCLUDE_TABLES"),
        "{}",
        warned.stderr
    );
    assert!(!warned.stderr.contains("WALFERRY_SERVICE_HOST"), "{}", warned.stderr);
    assert_ne!(warned.status.code(), Some(2), "{}", warned.stderr);
}

#[test]
fn the_settings_page_that_the_program_writes_is_the_one_of_the_repository() {
    let written = walferry(&["generate", "settings"], |_| {}).code(0);
    assert_eq!(written.stdout, include_str!("../../docs/settings.md"));
}

/// Variables that are not UTF-8 counted as absent: the exclusion was passed over
/// without a word.
#[test]
fn a_variable_that_is_no_text_is_an_error_and_not_absent() {
    let no_text = std::ffi::OsStr::from_bytes(b"t\xe9l\xe9phones");
    for name in ["WALFERRY_EXCLUDE_TABLES", "PGPASSWORD"] {
        let finished = walferry(&["check"], |command| {
            command.env(name, no_text);
        });
        let finished = finished.code(2);
        assert!(finished.stderr.contains(&format!("{name} must be text in UTF-8")), "{}", finished.stderr);
    }
}

/// The form was taken from the flags alone, as long as the file was not read.
#[test]
fn an_error_of_the_file_has_the_form_that_the_environment_asks_for() {
    let wrong = walferry(&["check", "--config", "/nonexistent.toml"], |command| {
        command.env("WALFERRY_LOG_FORMAT", "json");
    });
    let wrong = wrong.code(2);
    let line: serde_json::Value = serde_json::from_str(&wrong.stderr).unwrap();
    assert_eq!(line["exit_code"], 2);
    assert!(line["message"].as_str().unwrap().contains("/nonexistent.toml"), "{line}");
}

/// The story: a walferry.toml with passwords and mode 0644 was read without a word.
#[test]
fn a_file_with_a_password_that_others_may_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("walferry.toml");
    std::fs::write(&file, "source = \"postgresql://u:hush4@127.0.0.1:1/d\"\n").unwrap();
    let check = |mode: u32| {
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        walferry(&["check"], |command| {
            command.current_dir(folder.path()).env_remove("WALFERRY_SOURCE_PGURI");
        })
    };
    for mode in [0o644, 0o640, 0o604] {
        let refused = check(mode).code(2).stderr;
        for words in ["\"source\" in it has a password", &format!("mode {mode:04o}"), "chmod 0600 'walferry.toml'"] {
            assert!(refused.contains(words), "{words} is not in:\n{refused}");
        }
        assert!(!refused.contains("hush4"), "{refused}");
    }
    let read = check(0o600).code(6);
    assert!(!read.stderr.contains("chmod"), "{}", read.stderr);
    // Without a password it may be anybody's to read.
    std::fs::write(&file, "source = \"postgresql://u@127.0.0.1:1/d\"\n").unwrap();
    check(0o644).code(6);
}

#[test]
fn a_password_on_the_command_line_is_warned_about_once_with_the_way_out() {
    let uri = "postgresql://u:hush4@127.0.0.1:1/d";
    let warned = walferry(&["check", "--source", uri], |_| {}).code(6).stderr;
    let about = "the password of the source is on the command line";
    assert_eq!(warned.matches(about).count(), 1, "{warned}");
    assert!(warned.contains("use WALFERRY_SOURCE_PGURI or ~/.pgpass") && !warned.contains("hush4"), "{warned}");
}
