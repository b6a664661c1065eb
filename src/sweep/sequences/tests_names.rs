//! What is claimed of sequences whose names are others' by now, without a server: whose
//! counterpart each is, what is printed in which order, and what is set.

use super::*;
use crate::catalog::sequences::{self, Bond};
use crate::catalog::tables::Named;
use crate::state::sweeps::SequencePairs;

/// The source's and the target's oids of one sequence differ by this.
const THERE: u32 = 100;

fn name(text: &str) -> TableName {
    let (schema, name) = text.split_once('.').unwrap_or(("public", text));
    TableName::new(schema, name)
}

/// A plain one, with a value that tells it from others.
fn plain(oid: u32, text: &str) -> Sequence {
    valued(sequences::Sequence::plain(oid, name(text)))
}

/// One of the column `id` of this table.
fn serial(oid: u32, text: &str, table: &str) -> Sequence {
    valued(sequences::Sequence::plain(oid, name(text)).of_column(named_table(table), "id", Bond::OwnedBy))
}

/// One that the column `id` of this table calls and does not own.
fn called(oid: u32, text: &str, table: &str) -> Sequence {
    valued(sequences::Sequence::plain(oid, name(text)).drawn_by(named_table(table), "id"))
}

/// A table of either side, by an oid that its name gives it.
fn named_table(text: &str) -> Named {
    Named { oid: 1000 + text.bytes().map(u32::from).sum::<u32>(), name: name(text) }
}

fn valued(fact: sequences::Sequence) -> Sequence {
    let value = Ok((i64::from(fact.oid), true));
    Sequence { fact, value }
}

/// What a look at both sides finds, where these source's oids were paired.
fn found(ours: Vec<Sequence>, theirs: Vec<Sequence>, paired: &[u32]) -> Found {
    let own = paired.iter().map(|oid| (*oid, oid + THERE)).collect();
    let listed = if paired.is_empty() { Listed::NotYet } else { Listed::Wholly };
    let pairs = SequencePairs { own, listed, ..SequencePairs::default() };
    let tied = ours.iter().flat_map(|ours| &ours.tied).map(|tied| &tied.table);
    let tables = tied.map(|table| (table.oid, table.name.clone()));
    let records = Records { pairs, tables: tables.collect() };
    let matched = matches(&ours, &theirs, &records);
    let mut theirs: Vec<Option<Sequence>> = theirs.into_iter().map(Some).collect();
    let mut take = |matched: Match| Some((theirs[matched.place()?].take().unwrap(), matched));
    let mut counterparts: Vec<Counterpart> = matched.into_iter().map(&mut take).collect();
    let homes = ours.iter().map(|ours| Home::of(ours, &records)).collect();
    let mut others: Vec<Sequence> = theirs.into_iter().flatten().collect();
    let of_source = ours.iter().map(|ours| ours.oid).collect();
    let left = left(&records, &of_source);
    let apart = strangers::apart(&ours, &mut counterparts, &mut others, (&records, &left));
    let elsewhere = drawing::find(&ours, &counterparts, &others, &records);
    let lacks = HashSet::new();
    Found { ours, theirs: counterparts, others, apart, of_source, lacks, homes, elsewhere, records }
}

/// What the last pass sets, by oid, and what it prints, in its order.
fn decided(found: &Found, schema: SchemaMode) -> (Vec<(u32, i64)>, Vec<String>) {
    let (changes, problems) = decide(found, schema, SequencePass::Final { margin: 0 });
    let set = changes.iter().filter_map(|change| Some((change.oid, change.value?.0))).collect();
    let text = |problem: SequenceProblem| problem.to_string().replace("\"public\".", "").replace('"', "");
    (set, named(found, problems).into_iter().map(text).collect())
}

const MODES: [SchemaMode; 3] = [SchemaMode::Create, SchemaMode::Existing, SchemaMode::None];

#[test]
fn sequences_that_exchanged_names_stay_with_their_counterparts() {
    for schema in MODES {
        let found = found(vec![plain(1, "b"), plain(2, "a")], vec![plain(101, "a"), plain(102, "b")], &[1, 2]);
        let (set, said) = decided(&found, schema);
        assert_eq!(set, [(101, 1), (102, 2)], "each has its own value");
        assert_eq!(
            said,
            [
                "public.b has another name on the target; its value was carried (run on the target: ALTER SEQUENCE a RENAME TO \
                 walferry_aside_1; ALTER SEQUENCE b RENAME TO a; ALTER SEQUENCE walferry_aside_1 RENAME TO b;)",
                "public.a has another name on the target; its value was carried (what renames public.b there renames it as well)"
            ]
        );
    }
}

#[test]
fn a_new_sequence_is_created_behind_the_renames_and_never_taken_for_what_has_its_name() {
    for schema in MODES {
        let found = found(vec![plain(3, "a"), plain(1, "old")], vec![plain(101, "a")], &[1]);
        let (set, said) = decided(&found, schema);
        assert_eq!(set, [(101, 1)]);
        assert!(said[0].starts_with("public.old has another name") && said[0].contains("a RENAME TO old"), "{said:?}");
        assert!(
            said[1].starts_with("public.a does not exist on the target (run on the target: CREATE SEQUENCE"),
            "{said:?}"
        );
    }
}

#[test]
fn what_the_source_has_no_more_makes_way_for_the_one_that_took_its_name() {
    let theirs = || vec![plain(101, "a"), plain(102, "gone"), plain(103, "walferry_aside_1")];
    let drop = "DROP SEQUENCE IF EXISTS gone; ALTER SEQUENCE a RENAME TO gone;";
    let aside = "ALTER SEQUENCE IF EXISTS gone RENAME TO walferry_aside_2; ALTER SEQUENCE a RENAME TO gone;";
    for (schema, sql) in [(SchemaMode::Create, drop), (SchemaMode::Existing, aside)] {
        let (set, said) = decided(&found(vec![plain(1, "gone")], theirs(), &[1, 2]), schema);
        assert_eq!((set, said.len()), (vec![(101, 1)], 1));
        assert!(said[0].contains(sql), "{said:?}");
    }
    // A column of the target draws from it.
    let theirs = vec![plain(101, "a"), serial(102, "gone", "t")];
    let (_, said) = decided(&found(vec![plain(1, "gone")], theirs, &[1, 2]), SchemaMode::Create);
    assert!(said[0].contains("ALTER SEQUENCE IF EXISTS gone RENAME TO walferry_aside_1;"), "{said:?}");
}

/// In a schema of the operator's the name of a column's sequence may differ on purpose, but
/// not where a new one needs it.
#[test]
fn a_columns_sequence_gives_up_a_name_that_a_new_one_needs() {
    let theirs = || vec![serial(101, "t_id_seq", "t")];
    let alone = found(vec![serial(1, "other", "t")], theirs(), &[1]);
    let (_, said) = decided(&alone, SchemaMode::Existing);
    assert!(said[0].contains("if that is not on purpose"), "{said:?}");
    let wanted = found(vec![serial(1, "other", "t"), plain(2, "t_id_seq")], theirs(), &[1]);
    let (set, said) = decided(&wanted, SchemaMode::Existing);
    assert_eq!(set, [(101, 1)]);
    assert!(!said[0].contains("on purpose") && said[0].contains("t_id_seq RENAME TO other"), "{said:?}");
    assert!(said[1].contains("CREATE SEQUENCE IF NOT EXISTS t_id_seq"), "{said:?}");
}

#[test]
fn a_pair_holds_over_a_column_that_became_anothers() {
    // Each column of the source has the other's sequence; defaults go on to call the former.
    let swapped = |oid, name: &str, owner, caller| {
        let mut one = serial(oid, name, owner);
        one.fact.tied[0].drawing.clear();
        one.fact.tied.extend(called(oid, name, caller).fact.tied);
        one
    };
    let (one, other) = (swapped(1, "a_id_seq", "b", "a"), swapped(2, "b_id_seq", "a", "b"));
    let theirs = vec![serial(101, "a_id_seq", "a"), serial(102, "b_id_seq", "b")];
    let (set, said) = decided(&found(vec![one, other], theirs, &[1, 2]), SchemaMode::Existing);
    assert_eq!(set, [(101, 1), (102, 2)]);
    assert!(said.len() == 2 && said.iter().all(|text| text.contains("is defined otherwise")), "{said:?}");
}

/// Its values nobody would carry.
#[test]
fn a_column_that_draws_from_what_is_no_counterpart_is_said_to() {
    let theirs = || vec![plain(101, "a"), serial(102, "t_id_seq", "t")];
    let (_, said) = decided(&found(vec![serial(1, "a", "t")], theirs(), &[1, 2]), SchemaMode::Create);
    assert_eq!(
        said,
        [
            "public.a is what column id of public.t draws its values from on the source, and on the target that draws from \
          public.t_id_seq (run on the target: ALTER TABLE t ALTER COLUMN id SET DEFAULT pg_catalog.nextval('a'); DROP SEQUENCE t_id_seq;)"
        ]
    );
    // Without a pair the column tells which it is.
    let (set, said) = decided(&found(vec![serial(1, "a", "t")], theirs(), &[]), SchemaMode::Create);
    assert_eq!(set, [(102, 1)]);
    assert!(said.len() == 1 && said[0].contains("ALTER SEQUENCE t_id_seq RENAME TO a"), "{said:?}");
}

#[test]
fn columns_that_draw_from_each_others_sequences_are_said_to_with_the_names_to_come() {
    for schema in MODES {
        let ours = vec![called(1, "a", "t"), called(2, "b", "u")];
        let theirs = vec![called(101, "b", "u"), called(102, "a", "t")];
        let (set, said) = decided(&found(ours, theirs, &[1, 2]), schema);
        assert_eq!(set, [(101, 1), (102, 2)]);
        assert!(said[0].contains("RENAME TO") && said[1].contains("as well"), "{said:?}");
        assert!(said[2].contains("TABLE t ALTER COLUMN id SET DEFAULT pg_catalog.nextval('a');"), "{said:?}");
        assert!(said[3].contains("TABLE u ALTER COLUMN id SET DEFAULT pg_catalog.nextval('b');"), "{said:?}");
    }
}

#[test]
fn one_that_is_new_is_created_before_what_draws_from_it_is_told_to() {
    let mut found_so = found(vec![called(1, "a", "t")], vec![called(101, "b", "t")], &[]);
    found_so.elsewhere[0].default = Some("nextval('public.a'::regclass)".to_owned());
    let (_, said) = decided(&found_so, SchemaMode::Create);
    assert!(said[0].contains("CREATE SEQUENCE") && said[1].contains("SET DEFAULT"), "{said:?}");
    // A column without any there is no matter of values.
    let (_, said) = decided(&found(vec![called(1, "a", "t")], vec![plain(101, "a")], &[]), SchemaMode::Create);
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn what_has_a_name_of_the_target_by_now_is_run_before_it_changes() {
    let mut ours = vec![plain(1, "b"), plain(2, "a"), plain(3, "new")];
    ours[1].fact.definition.increment = 5;
    let found = found(ours, vec![plain(101, "a"), plain(102, "b")], &[1, 2]);
    let (_, said) = decided(&found, SchemaMode::Existing);
    assert!(said[0].contains("ALTER SEQUENCE b AS bigint INCREMENT BY 5"), "{said:?}");
    assert!(said[1].contains("a RENAME TO") && said[2].contains("as well") && said[3].contains("CREATE"), "{said:?}");
}

/// The story: what the source had made since the copy took over another application's, set it
/// back, and that drew values a second time.
#[test]
fn what_has_the_name_of_a_new_sequence_is_taken_only_if_it_is_nobodys() {
    let untouched = |mut one: Sequence| {
        one.value = Ok((1, false));
        one
    };
    let of_ours = |one: Sequence, value| Sequence { value: Ok((value, true)), ..one };
    let cases = [
        ("called", plain(3, "new"), plain(103, "new"), Some("it was called there already")),
        ("just created", plain(3, "new"), untouched(plain(103, "new")), None),
        (
            "a table's",
            plain(3, "new"),
            untouched(serial(103, "new", "own.orders")),
            Some("table own.orders there uses it"),
        ),
        ("called by one", plain(3, "new"), untouched(called(103, "new", "x")), Some("table public.x there uses it")),
        // Older rows have drawn from it when the column was added there.
        ("drawn from as here", called(3, "new", "t"), of_ours(called(103, "new", "t"), 3), None),
        ("drawn from further", called(3, "new", "t"), of_ours(called(103, "new", "t"), 4), Some("it was called")),
        // The source has dropped its own.
        ("brought", plain(3, "new"), plain(102, "new"), None),
        ("brought, and another's", plain(3, "new"), serial(102, "new", "x"), Some("table public.x there uses it")),
    ];
    for (case, ours, theirs, stranger) in cases {
        for schema in MODES {
            let wanted = theirs.fact.oid;
            let (set, said) = decided(
                &found(vec![plain(1, "a"), ours.clone()], vec![plain(101, "a"), theirs.clone()], &[1, 2]),
                schema,
            );
            let is_set = set.iter().any(|(oid, _)| *oid == wanted);
            match stranger {
                None => assert!(said.iter().all(|text| !text.contains("not the migration's")), "{case}: {said:?}"),
                Some(words) => {
                    assert!(said.len() == 1 && said[0].contains(words) && !is_set, "{case}: {said:?}");
                }
            }
        }
    }
    // As of the copy whatever has the name is meant.
    let (set, _) = decided(&found(vec![plain(3, "new")], vec![plain(103, "new")], &[]), SchemaMode::Existing);
    assert_eq!(set, [(103, 3)]);
}

#[test]
fn what_the_migration_never_had_is_said_to_be_in_the_way_and_neither_dropped_nor_renamed() {
    for schema in MODES {
        let theirs = vec![plain(101, "a"), plain(150, "mine"), plain(102, "b")];
        let (set, said) = decided(&found(vec![plain(1, "mine"), plain(2, "a")], theirs, &[1, 2]), schema);
        assert_eq!(set, [(101, 1), (102, 2)]);
        assert!(
            said[0].contains("(public.mine is in the way there, and not the migration's: rename or drop it first)"),
            "{said:?}"
        );
        assert!(said[1].contains("as well") && said.iter().all(|text| !text.contains("DROP")), "{said:?}");
    }
}
