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

/// An end that is lost while both are asked is the one whose code it ends with.
#[test]
fn what_concerns_both_ends_and_is_lost_ends_with_the_code_of_the_one_that_is() {
    for side in [Side::Source, Side::Target] {
        let peer = crate::wire::Peer { side, host: "there:5432".to_owned() };
        let mut findings = Findings::default();
        findings.unfinished(Place::Here, &CheckError::Wire(WireError::Closed { peer }));
        assert!(Report::of(findings).exit() == crate::fault::Exit::of(side), "{side}");
    }
}
