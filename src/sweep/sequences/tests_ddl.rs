//! What the passes claim about sequences that are defined, named or locked
//! otherwise on the two sides, and about the margin.

use std::collections::BTreeMap;

use super::tests::{EXACT, all};
use super::*;
use crate::state::tables::{TableRow, TableState};
use crate::sweep::testing::{Pair, SUPERUSER};

/// Both sides as superusers, and the state.
struct Ends {
    pair: Pair,
    source: Session,
    target: Session,
    state: State,
}

impl Ends {
    async fn new() -> Self {
        let pair = Pair::new().await;
        let (source, target, state) = (pair.source(SUPERUSER).await, pair.target(SUPERUSER).await, pair.state().await);
        Ends { pair, source, target, state }
    }

    async fn on_both(&self, sql: &str) {
        self.source.batch_execute(sql).await.unwrap();
        self.target.batch_execute(sql).await.unwrap();
    }

    /// Enters a table in the list of those that take part.
    async fn know(&self, table: &str) {
        let sql = format!("SELECT 'public.{table}'::regclass::oid");
        let oid = self.source.query_one(&sql, &[]).await.unwrap().get(0);
        let row = TableRow::new(TableName::new("public", table), oid, TableState::Ready);
        self.state.enter_tables(&[row]).await.unwrap();
    }

    async fn pass(&self, schema: SchemaMode, kind: SequencePass) -> Result<SequenceReport, SweepError> {
        let filter = TableFilter::default();
        pass(&self.source, &self.target, &self.state, SequenceRules { schema, ..all(&filter) }, kind).await
    }

    /// The words of a last pass that is not complete.
    async fn refused(&self, schema: SchemaMode) -> String {
        self.pass(schema, EXACT).await.unwrap_err().to_string()
    }

    /// `last_value` and `is_called` on the target.
    async fn value(&self, name: &str) -> Value {
        let row = self.target.query_one(&format!("SELECT last_value, is_called FROM {name}"), &[]).await.unwrap();
        (row.get(0), row.get(1))
    }

    /// The next value of each sequence on a side; none where there is none.
    async fn next(&self, session: &Session, names: &[&str]) -> BTreeMap<String, Option<i64>> {
        let mut next = BTreeMap::new();
        for name in names {
            let row = session.query_one("SELECT pg_catalog.nextval($1::text::regclass)", &[name]).await;
            next.insert((*name).to_owned(), row.ok().map(|row| row.get(0)));
        }
        next
    }

    /// The SQL in parentheses of a message, run on the target.
    async fn mend(&self, message: &str) {
        let (_, sql) = message.split_once("run on the target: ").unwrap();
        let end = sql.find("; or leave").or_else(|| sql.rfind(')')).unwrap();
        self.target.batch_execute(&sql[..end]).await.unwrap();
    }
}

const DEFINITION: &str = "SELECT (seqtypid::regtype, seqstart, seqincrement, seqmin, seqmax, seqcache, seqcycle)::text FROM pg_sequence \
     WHERE seqrelid = $1::text::regclass";

#[tokio::test]
async fn a_definition_that_the_source_changes_is_carried_where_the_schema_is_ours_and_reported_elsewhere() {
    let ends = Ends::new().await;
    ends.on_both("CREATE SEQUENCE public.s AS smallint; SELECT setval('public.s', 30000)").await;
    ends.source
        .batch_execute("ALTER SEQUENCE public.s AS integer INCREMENT BY -5 MINVALUE 7 MAXVALUE 900 START WITH 800 CACHE 9 CYCLE RESTART WITH 850")
        .await
        .unwrap();
    let untouched = ends.target.query_one(DEFINITION, &[&"public.s"]).await.unwrap().get::<_, String>(0);

    for schema in [SchemaMode::Existing, SchemaMode::None] {
        let report = ends.pass(schema, SequencePass::Periodic).await.unwrap();
        let problem = report.problems.iter().map(ToString::to_string).collect::<String>();
        let there = "AS smallint, INCREMENT BY 1, MINVALUE 1, MAXVALUE 32767, START WITH 1, CACHE 1, NO CYCLE";
        assert!(problem.contains(there) && problem.contains("ALTER SEQUENCE"), "{problem}");
        assert_eq!(ends.target.query_one(DEFINITION, &[&"public.s"]).await.unwrap().get::<_, String>(0), untouched);
    }
    let (sequence, behind, words) = ends.state.sequence_problems(10).await.unwrap().remove(0);
    assert!((sequence.name.as_str(), behind) == ("s", false) && words.contains("defined otherwise"), "{words}");
    // It takes the value, so the last pass is complete; the definition is on purpose.
    let report = ends.pass(SchemaMode::Existing, EXACT).await.unwrap();
    assert_eq!((report.changed, report.behind, ends.value("public.s").await), (0, 0, (850, false)));

    // The target's value is not within the new bounds: ALTER alone is refused.
    ends.target.batch_execute("SELECT setval('public.s', 30000)").await.unwrap();
    let report = ends.pass(SchemaMode::Create, SequencePass::Periodic).await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    let wanted: String = ends.source.query_one(DEFINITION, &[&"public.s"]).await.unwrap().get(0);
    assert_eq!(ends.target.query_one(DEFINITION, &[&"public.s"]).await.unwrap().get::<_, String>(0), wanted);
    assert_eq!(ends.value("public.s").await, (850, false));
    assert_eq!(ends.state.sequence_problems(10).await.unwrap(), []);
    let names = ["public.s"];
    assert_eq!(ends.next(&ends.source, &names).await, ends.next(&ends.target, &names).await);
}

#[tokio::test]
async fn a_definition_that_is_not_ours_to_alter_keeps_the_last_pass_from_being_complete() {
    let ends = Ends::new().await;
    ends.on_both("CREATE SEQUENCE public.s; SELECT setval('public.s', 10)").await;
    ends.source.batch_execute("ALTER SEQUENCE public.s INCREMENT BY 2; SELECT setval('public.s', 20)").await.unwrap();
    let role = crate::sweep::testing::TARGET_OWNER;
    ends.target.batch_execute(&format!("GRANT ALL ON SEQUENCE public.s TO {role}")).await.unwrap();
    let (target, filter) = (ends.pair.target(role).await, TableFilter::default());
    let error = pass(&ends.source, &target, &ends.state, all(&filter), EXACT).await.unwrap_err().to_string();
    assert!(error.contains("INCREMENT BY 1 (as its owner, run on the target: ALTER SEQUENCE"), "{error}");
    assert_eq!(ends.value("public.s").await, (20, true), "the value is carried all the same");
    ends.mend(&error).await;
    pass(&ends.source, &target, &ends.state, all(&filter), EXACT).await.unwrap();
}

#[tokio::test]
async fn a_new_sequence_is_named_with_the_sql_that_creates_it_and_a_renamed_one_with_its_new_name() {
    let ends = Ends::new().await;
    ends.on_both("CREATE SCHEMA other; CREATE TABLE public.t (a int NOT NULL, b int NOT NULL, c serial); CREATE SEQUENCE public.old").await;
    ends.know("t").await;
    ends.pass(SchemaMode::Create, SequencePass::Initial).await.unwrap();
    for sql in [
        "CREATE SEQUENCE other.\"neu 'n\" AS integer INCREMENT BY -2 MAXVALUE -3 START -9 CYCLE CACHE 4",
        "CREATE SEQUENCE public.of_a OWNED BY public.t.a",
        "ALTER TABLE public.t ALTER b ADD GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME public.of_b MINVALUE 5 START 6)",
    ] {
        ends.source.batch_execute(sql).await.unwrap();
        assert_eq!(ends.pass(SchemaMode::Create, SequencePass::Periodic).await.unwrap().behind, 1);
        let error = ends.refused(SchemaMode::Create).await;
        assert!(error.contains("does not exist on the target"), "{error}");
        ends.mend(&error).await;
        assert_eq!(ends.pass(SchemaMode::Existing, EXACT).await.unwrap().problems, [], "{error}");
    }

    // By its column: no record is needed.
    ends.source.batch_execute("ALTER SEQUENCE public.t_c_seq RENAME TO c; SELECT setval('public.c', 5)").await.unwrap();
    let error = ends.refused(SchemaMode::Create).await;
    assert!(error.contains("public.c has another name on the target"), "{error}");
    assert_eq!(ends.value("public.t_c_seq").await, (5, true), "its value is carried meanwhile");
    let report = ends.pass(SchemaMode::Existing, EXACT).await.unwrap();
    assert!(report.problems[0].to_string().contains("(if that is not on purpose, run on the target: "), "{report:?}");
    ends.mend(&error).await;
    assert_eq!(ends.pass(SchemaMode::Existing, EXACT).await.unwrap().problems, []);
    ends.source
        .batch_execute("ALTER SEQUENCE public.old RENAME TO new; ALTER SEQUENCE public.new SET SCHEMA other; SELECT setval('other.new', 77)")
        .await
        .unwrap();
    // Told for as long as it is so, also to a process that comes later.
    for _ in 0..2 {
        let report = ends.pass(SchemaMode::Create, SequencePass::Periodic).await.unwrap();
        assert_eq!((report.behind, report.dropped.len()), (1, 0));
        assert_eq!(ends.value("public.old").await, (77, true), "its value is carried meanwhile");
    }
    let error = ends.refused(SchemaMode::Create).await;
    assert!(error.contains("other.new has another name on the target"), "{error}");
    ends.mend(&error).await;
    assert_eq!(ends.pass(SchemaMode::Create, EXACT).await.unwrap().problems, []);
    assert_eq!(ends.value("other.new").await, (77, true));
}

/// The story: a sequence whose name belonged to another column's on the target
/// was set there, and each pass set the one that came last.
#[tokio::test]
async fn no_sequence_of_the_target_is_taken_for_two_of_the_source() {
    let ends = Ends::new().await;
    ends.source
        .batch_execute(
            "CREATE SEQUENCE public.t_a_seq; CREATE TABLE public.t (a serial); \
             SELECT setval('public.t_a_seq', 1000), setval(pg_get_serial_sequence('public.t', 'a'), 7)",
        )
        .await
        .unwrap();
    ends.target.batch_execute("CREATE TABLE public.t (a serial)").await.unwrap();
    let error = ends.refused(SchemaMode::Create).await;
    assert!(error.contains("public.t_a_seq does not exist on the target"), "{error}");
    assert_eq!(ends.value("public.t_a_seq").await, (7, true), "that of the column");
}

/// The story: names were exchanged while the schema was brought over, before the first pass.
#[tokio::test]
async fn counterparts_are_those_of_the_snapshot_that_the_schema_is_of() {
    let ends = Ends::new().await;
    ends.on_both("CREATE SEQUENCE public.a; CREATE SEQUENCE public.b").await;
    pair(&ends.source, &ends.target, &ends.state, &TableFilter::default()).await.unwrap();
    ends.source.batch_execute(&format!("SELECT setval('public.a', 7); {EXCHANGE}")).await.unwrap();
    let report = ends.pass(SchemaMode::Create, SequencePass::Initial).await.unwrap();
    assert_eq!((report.total, report.behind, report.dropped.len()), (2, 2, 0), "{report:?}");
    assert_eq!((ends.value("public.a").await, ends.value("public.b").await), ((7, true), (1, false)));
}

const EXCHANGE: &str =
    "ALTER SEQUENCE public.a RENAME TO c; ALTER SEQUENCE public.b RENAME TO a; ALTER SEQUENCE public.c RENAME TO b";

#[tokio::test]
async fn a_value_that_is_read_by_a_name_which_went_to_another_sequence_is_not_taken() {
    let ends = Ends::new().await;
    ends.source
        .batch_execute("CREATE SEQUENCE public.a; CREATE SEQUENCE public.b; CREATE SEQUENCE public.d")
        .await
        .unwrap();
    let (mut together, mut singly) =
        (catalog::list(&ends.source).await.unwrap(), catalog::list(&ends.source).await.unwrap());
    ends.source.batch_execute(EXCHANGE).await.unwrap();
    catalog::read(&ends.source, together.iter_mut().collect(), IfGone::Fail).await.unwrap();
    // One by one, as there is one that cannot be read.
    ends.source.batch_execute("DROP SEQUENCE public.d").await.unwrap();
    catalog::read(&ends.source, singly.iter_mut().collect(), IfGone::Name).await.unwrap();
    for listed in [&together, &singly] {
        let values: Vec<_> = listed.iter().take(2).map(|sequence| &sequence.value).collect();
        assert_eq!(values, [&Err(SequenceCause::Another), &Err(SequenceCause::Another)]);
    }
    assert_eq!(together[2].value, Ok((1, false)));
}

/// A table that came later has the name that a known one has on the target still, and
/// its sequence is not taken for that one's.
#[tokio::test]
async fn the_sequence_of_a_table_that_was_renamed_is_not_that_of_the_one_that_took_its_name() {
    let ends = Ends::new().await;
    ends.on_both("CREATE TABLE public.a (id serial)").await;
    ends.know("a").await;
    ends.source
        .batch_execute(
            "ALTER TABLE public.a RENAME TO b; CREATE TABLE public.a (id serial); \
             SELECT setval('public.a_id_seq', 7), setval('public.a_id_seq1', 99)",
        )
        .await
        .unwrap();
    for kind in [SequencePass::Periodic, EXACT] {
        let report = ends.pass(SchemaMode::Create, kind).await.unwrap();
        assert_eq!((report.total, report.problems.len()), (1, 0), "the other comes with its table: {report:?}");
        assert_eq!(ends.value("public.a_id_seq").await, (7, true));
    }
}

#[tokio::test]
async fn a_margin_is_left_unused_in_the_direction_of_each_sequence_and_never_uses_one_up() {
    let ends = Ends::new().await;
    ends.on_both(
        "CREATE SEQUENCE public.plain; CREATE SEQUENCE public.untouched START 5; CREATE SEQUENCE public.tens INCREMENT 10; \
         CREATE SEQUENCE public.down INCREMENT -3 MAXVALUE -1; CREATE SEQUENCE public.small AS smallint; \
         CREATE SEQUENCE public.ended MAXVALUE 5; CREATE SEQUENCE public.ring MINVALUE 10 MAXVALUE 200 CYCLE START 10; \
         CREATE SEQUENCE public.high_ring MAXVALUE 200 CYCLE",
    )
    .await;
    ends.source
        .batch_execute(
            "SELECT setval('public.plain', 41), nextval('public.tens'), nextval('public.down'), setval('public.small', 32700), \
             setval('public.ended', 5), setval('public.ring', 200), setval('public.high_ring', 150)",
        )
        .await
        .unwrap();
    let margin = SequencePass::Final { margin: 100 };
    let changed = ends.pass(SchemaMode::Create, margin).await.unwrap().changed;
    assert_eq!(changed, 8);
    assert_eq!(ends.pass(SchemaMode::Create, margin).await.unwrap().changed, 0, "again is the same");
    let names =
        ["plain", "untouched", "tens", "down", "small", "ended", "ring", "high_ring"].map(|n| format!("public.{n}"));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let next = ends.next(&ends.target, &names).await;
    let expected = [142, 105, 1011, -304, 32767].map(Some).into_iter().chain([None, Some(110), Some(200)]);
    let expected: BTreeMap<String, Option<i64>> = names.iter().map(|n| (*n).to_owned()).zip(expected).collect();
    assert_eq!(next, expected);
}

#[tokio::test]
async fn a_locked_sequence_on_either_side_is_named_and_holds_up_no_other() {
    let ends = Ends::new().await;
    ends.on_both("CREATE SEQUENCE public.free; CREATE SEQUENCE public.held; CREATE SEQUENCE public.shut").await;
    let advance = "SELECT setval('public.free', setval('public.held', setval('public.shut', 50)))";
    ends.source.batch_execute(advance).await.unwrap();
    let (source, target) = (ends.pair.source(SUPERUSER).await, ends.pair.target(SUPERUSER).await);
    // What DROP SEQUENCE takes; what ALTER SEQUENCE takes.
    source
        .batch_execute("BEGIN; ALTER SEQUENCE public.shut OWNER TO CURRENT_USER; DROP SEQUENCE public.shut")
        .await
        .unwrap();
    target.batch_execute("BEGIN; ALTER SEQUENCE public.held INCREMENT BY 1").await.unwrap();
    let report = ends.pass(SchemaMode::Create, SequencePass::Periodic).await.unwrap();
    assert_eq!((report.changed, report.behind), (1, 2), "{:?}", report.problems);
    assert_eq!(ends.value("public.free").await, (50, true));
    for (problem, side) in report.problems.iter().zip(["source", "target"]) {
        let text = problem.to_string();
        assert!(text.contains("lock timeout") && text.contains(side), "{text}");
    }
    target.batch_execute("ROLLBACK").await.unwrap();
    let error = ends.refused(SchemaMode::Create).await;
    assert!(error.contains("1 sequence") && error.contains("public.shut is not equal: cannot read it"), "{error}");
    source.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(ends.pass(SchemaMode::Create, EXACT).await.unwrap().behind, 0);
}
