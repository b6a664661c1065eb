//! Claims about the report.

use super::*;

fn report() -> Report {
    let mut findings = Findings::default();
    findings.ok(Side::Source, "wal_level", "wal_level is logical");
    findings
        .problem(Side::Source, "replica_identity", "1 tables have no replica identity: shop.events")
        .remedy("let their owner run this:")
        .sql("ALTER TABLE shop.events REPLICA IDENTITY FULL;");
    findings.warning(Side::Target, "extensions", "PostgreSQL lets only a superuser create hstore");
    Report::of(findings)
}

#[test]
fn a_report_for_people_marks_each_finding_and_shows_the_sql_under_its_problem() {
    let text = report().to_string();
    assert_eq!(
        text,
        "source\n  ✓ wal_level is logical\n  ✗ 1 tables have no replica identity: shop.events\n      let their owner run this:\n        ALTER TABLE shop.events REPLICA IDENTITY FULL;\n\ntarget\n  ! PostgreSQL lets only a superuser create hstore\n\nhere\n\nnot ready: 1 to mend (✗), 1 to look at (!)\n"
    );
}

#[test]
fn a_report_for_programs_has_stable_words() {
    let value = serde_json::to_value(report()).unwrap();
    assert_eq!(value["ok"], false);
    assert_eq!(value["problems"], 1);
    assert_eq!(
        value["findings"][1],
        serde_json::json!({
            "where": "source", "check": "replica_identity", "severity": "problem",
            "message": "1 tables have no replica identity: shop.events", "remedy": "let their owner run this:",
            "sql": ["ALTER TABLE shop.events REPLICA IDENTITY FULL;"]
        })
    );
}

#[test]
fn one_problem_refuses_and_warnings_do_not() {
    assert!(report().exit() == crate::fault::Exit::Refused);
    let mut findings = Findings::default();
    findings.warning(Side::Source, "unlogged", "x");
    assert!(Report::of(findings).exit() == crate::fault::Exit::Done);
}
