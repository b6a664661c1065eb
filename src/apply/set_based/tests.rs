//! The text of every statement, and that values arrive in it as they were.

use bytes::Buf;
use proptest::prelude::*;

use super::*;
use crate::apply::target::{Matching, TargetColumn, TargetTable};
use crate::pgoutput::{KeyColumn, RelationColumn, ReplicaIdentity};
use crate::relation::Relation;
use crate::sql::TableName;
use Value::{Null, Text, Unchanged};

/// A mapping of columns `(name, generation, is key)`, all of type `varchar(9)`.
fn mapping(columns: &[(&str, Generation, bool)]) -> Mapping {
    mapping_of(columns, ReplicaIdentity::Default)
}

/// The same where the whole row is the identity.
fn whole(columns: &[(&str, Matching)]) -> Mapping {
    let full: Vec<(&str, Generation, bool)> = columns.iter().map(|(name, _)| (*name, Generation::None, true)).collect();
    let mut mapping = mapping_of(&full, ReplicaIdentity::Full);
    for (column, (_, matching)) in mapping.target.columns.iter_mut().zip(columns) {
        column.matching = *matching;
    }
    mapping
}

fn mapping_of(columns: &[(&str, Generation, bool)], replica_identity: ReplicaIdentity) -> Mapping {
    let relation_column = |&(name, _, is_key): &(&str, Generation, bool)| RelationColumn {
        key: if is_key { KeyColumn::Yes } else { KeyColumn::No },
        name: name.to_owned(),
        type_oid: 1043,
        type_modifier: 13,
    };
    let target_column = |&(name, generation, _): &(&str, Generation, bool)| TargetColumn {
        name: name.to_owned(),
        sql_type: "varchar(9)".to_owned(),
        bare_type: "varchar".to_owned(),
        equality_schema: "eq".to_owned(),
        matching: Matching::Equal,
        can_be_listed: name != "array",
        generation,
        names_objects: false,
        is_cast_otherwise: false,
        is_domain: false,
        below: crate::catalog::types::ColumnType { oid: 25, modifier: -1 },
        number: 1,
    };
    let table = TableName::new("s", "t");
    let relation = Relation {
        id: 1,
        table: table.clone(),
        replica_identity,
        columns: columns.iter().map(relation_column).collect(),
    };
    let columns = columns.iter().map(target_column).collect();
    let target = TargetTable {
        table,
        is_partitioned: false,
        oid: 1,
        needs_order: false,
        has_foreign_keys: false,
        parents: Vec::new(),
        deferrable: Vec::new(),
        actions: Vec::new(),
        columns,
        unique_key: None,
    };
    Mapping::new(Arc::new(relation), target).unwrap()
}

fn keyed() -> Mapping {
    mapping(&[("k", Generation::None, true), ("v", Generation::None, false), ("w", Generation::None, false)])
}

fn row(values: &[Value<'_>]) -> Tuple {
    Tuple::from_values(values).unwrap()
}

fn decoded(array: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut data = array;
    let header = [data.get_i32(), data.get_i32(), data.get_i32(), data.get_i32(), data.get_i32()];
    let [dimensions, _has_nulls, element, count, lower_bound] = header;
    assert_eq!((dimensions, element, lower_bound), (1, 25, 1));
    let values = (0..count)
        .map(|_| {
            let length = usize::try_from(data.get_i32()).ok()?;
            Some(data.copy_to_bytes(length).to_vec())
        })
        .collect();
    assert!(!data.has_remaining(), "bytes behind the last element");
    values
}

/// An array's elements.
type Elements = Vec<Option<Vec<u8>>>;

/// SQL, arrays and count of a prepared statement.
fn arrays(statement: &SetStatement) -> (&str, Vec<Elements>, usize) {
    match statement {
        SetStatement::Arrays { shape, arrays, rows, .. } => {
            (&shape.sql, arrays.iter().map(|array| decoded(array)).collect(), *rows)
        }
        SetStatement::Copy { sql, .. } => panic!("{sql}"),
    }
}

fn rendered(mapping: &Mapping, net: &Net<'_>) -> Vec<SetStatement> {
    let Statements { deletes, updates, inserts } =
        SetRenderer::default().render(mapping, net, Writing::Updating).unwrap();
    deletes.into_iter().chain(updates).chain(inserts).collect()
}

fn some(text: &str) -> Option<Vec<u8>> {
    Some(text.as_bytes().to_vec())
}

#[test]
fn deletes_find_their_rows_by_the_key_and_count_them() {
    let (one, two) = (row(&[Text(b"1"), Null, Null]), row(&[Text(b"2"), Null, Null]));
    let net = Net { deletes: vec![&one, &two], ..Net::default() };
    let statements = rendered(&keyed(), &net);
    let (sql, arrays, rows) = arrays(&statements[0]);
    assert_eq!(
        sql,
        r#"WITH affected AS (DELETE FROM ONLY "s"."t" AS t WHERE t."k" OPERATOR("eq".=) ANY ($1::text[]::varchar[]) RETURNING 1) SELECT 1 / (pg_catalog.count(*) = $2::bigint)::int FROM affected"#
    );
    assert_eq!((arrays, rows, statements.len()), (vec![vec![some("1"), some("2")]], 2, 1));
}

#[test]
fn deletes_by_several_columns_or_by_an_array_join_them() {
    let two = mapping(&[("k", Generation::None, true), ("l", Generation::None, true)]);
    let one = row(&[Text(b"1"), Text(b"2")]);
    let statements = rendered(&two, &Net { deletes: vec![&one], ..Net::default() });
    assert_eq!(
        arrays(&statements[0]).0,
        r#"WITH affected AS (DELETE FROM ONLY "s"."t" AS t USING (SELECT a1::varchar AS c1, a2::varchar AS c2 FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS u(a1, a2)) AS g WHERE t."k" OPERATOR("eq".=) g.c1 AND t."l" OPERATOR("eq".=) g.c2 RETURNING 1) SELECT 1 / (pg_catalog.count(*) = $3::bigint)::int FROM affected"#
    );
    let by_array = mapping(&[("array", Generation::None, true)]);
    let statements = rendered(&by_array, &Net { deletes: vec![&one], ..Net::default() });
    assert!(arrays(&statements[0]).0.contains("USING (SELECT a1::varchar AS c1"));
}

#[test]
fn whole_rows_go_as_often_as_they_are_given_and_are_looked_for_by_what_is_cheap() {
    let mapping =
        whole(&[("a", Matching::Equal), ("b", Matching::Text), ("c", Matching::Costly), ("d", Matching::Never)]);
    let (one, two) = (row(&[Text(b"1"), Null, Text(b"x"), Null]), row(&[Text(b"2"), Text(b"y"), Text(b"x"), Null]));
    let net = Net { deletes: vec![&one, &two, &one], ..Net::default() };
    let statements = rendered(&mapping, &net);
    let (sql, given, rows) = arrays(&statements[0]);
    assert_eq!(
        sql,
        r#"WITH affected AS (WITH found AS (SELECT * FROM (SELECT t.ctid AS place, g.times AS times, pg_catalog.row_number() OVER (PARTITION BY g.number) AS nth FROM ONLY "s"."t" AS t, (SELECT a1::varchar AS c1, a2::varchar AS c2, a3::varchar AS c3, a4::varchar AS c4, times::bigint AS times, number FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), pg_catalog.unnest($3::text[]), pg_catalog.unnest($4::text[]), pg_catalog.unnest($5::text[])) WITH ORDINALITY AS u(a1, a2, a3, a4, times, number)) AS g WHERE t."a" OPERATOR("eq".=) g.c1 AND pg_catalog.record_image_eq(ROW(t."a", t."b", t."c", t."d"), ROW(g.c1, g.c2, g.c3, g.c4))) AS all_found WHERE nth <= times) DELETE FROM ONLY "s"."t" AS t WHERE t.ctid = ANY (ARRAY(SELECT place FROM found)) RETURNING 1) SELECT 1 / (pg_catalog.count(*) = $6::bigint)::int FROM affected"#
    );
    assert_eq!(given[0], [some("1"), some("2")]);
    assert_eq!((&given[1], &given[4]), (&vec![None, some("y")], &vec![some("2"), some("1")]));
    assert_eq!((rows, statements.len()), (3, 1));
    // What one column leaves alike another tells apart; a text by its length if it is large.
    let like_two = row(&[Text(b"2"), Text(b"z"), Text(b"x"), Null]);
    let sql = arrays(&rendered(&mapping, &Net { deletes: vec![&two, &like_two], ..Net::default() })[0]).0.to_owned();
    let text = r#"pg_catalog.octet_length(t."b") = pg_catalog.octet_length(g.c2) AND coalesce((CASE WHEN pg_catalog.octet_length(t."b") <= 1000 THEN t."b" END), ''::varchar) OPERATOR("eq".=) coalesce("#;
    assert!(sql.contains(text) && sql.contains(r#"t."a" OPERATOR("eq".=)"#), "{sql}");
}

#[test]
fn whole_rows_are_looked_for_by_as_few_columns_as_tell_them_apart() {
    let mapping =
        whole(&[("a", Matching::Equal), ("b", Matching::Equal), ("c", Matching::Equal), ("d", Matching::Text)]);
    let rows = [[b"1", b"1", b"1", b"1"], [b"1", b"2", b"1", b"2"], [b"1", b"3", b"2", b"3"]];
    let by = |rows: &[[&'static [u8; 1]; 4]]| {
        let rows: Vec<Tuple> = rows.iter().map(|values| row(&values.map(|value| Text(value)))).collect();
        let statements = rendered(&mapping, &Net { deletes: rows.iter().collect(), ..Net::default() });
        let sql = arrays(&statements[0]).0.split(" WHERE ").nth(1).unwrap().to_owned();
        ["a", "b", "c", "d"]
            .into_iter()
            .filter(|name| sql.contains(&format!("t.\"{name}\" OPERATOR")))
            .collect::<String>()
    };
    assert_eq!(by(&rows), "b");
    assert_eq!(by(&rows[..1]), "a");
    assert_eq!(by(&[rows[0], rows[1], [b"1", b"2", b"2", b"2"]]), "bc");
    // What none tells apart is compared as a whole.
    assert_eq!(by(&[rows[0], [b"1", b"1", b"1", b"1"]]), "a");
}

#[test]
fn whole_rows_with_no_value_in_common_are_looked_for_by_those_that_each_has() {
    let mapping = whole(&[("a", Matching::Equal), ("b", Matching::Costly), ("c", Matching::Never)]);
    let rows =
        [[Text(b"1"), Null, Null], [Null, Text(b"2"), Null], [Text(b"3"), Text(b"4"), Null], [Null, Null, Text(b"5")]];
    let rows = rows.map(|values| row(&values));
    let statements = rendered(&mapping, &Net { deletes: rows.iter().collect(), ..Net::default() });
    let found: Vec<(bool, bool, usize)> = statements
        .iter()
        .map(arrays)
        .map(|(sql, _, rows)| (sql.contains(r#"t."a" OPERATOR"#), sql.contains(r#"t."b" OPERATOR"#), rows))
        .collect();
    assert_eq!(found, [(true, false, 2), (false, true, 1), (false, false, 1)]);
}

#[test]
fn rows_are_replaced_where_all_their_values_came_and_updated_where_not() {
    let (whole, hole) = (row(&[Text(b"1"), Text(b"x"), Null]), row(&[Text(b"2"), Unchanged, Null]));
    let gone = row(&[Text(b"3"), Null, Null]);
    let updated = |tuple| Updated { key: tuple, row: Row::Whole(tuple) };
    let net = Net { deletes: vec![&gone], updates: vec![updated(&whole), updated(&hole)], inserts: Vec::new() };
    let statements = SetRenderer::default().render(&keyed(), &net, Writing::Replacing).unwrap();
    let of = |statement: Option<&SetStatement>| arrays(statement.unwrap()).1;
    assert_eq!(of(statements.deletes.first()), vec![vec![some("3"), some("1")]]);
    assert_eq!(of(statements.updates.first()), vec![vec![some("2")], vec![None]]);
    assert_eq!(of(statements.inserts.as_ref()), vec![vec![some("1")], vec![some("x")], vec![None]]);
}

#[test]
fn a_row_that_goes_and_comes_again_is_updated_where_inserts_come_before_deletes() {
    let (one, two) = (row(&[Text(b"1"), Null, Null]), row(&[Text(b"2"), Null, Null]));
    let (one_again, three) = (row(&[Text(b"1"), Text(b"x"), Null]), row(&[Text(b"3"), Null, Null]));
    let net = || Net {
        deletes: vec![&one, &two],
        updates: Vec::new(),
        inserts: vec![Row::Whole(&three), Row::Whole(&one_again)],
    };
    let of = |statement: Option<&SetStatement>| arrays(statement.unwrap()).1;
    let statements = SetRenderer::default().render(&keyed(), &net(), Writing::Keeping).unwrap();
    assert_eq!(of(statements.deletes.first()), vec![vec![some("2")]]);
    assert_eq!(of(statements.updates.first()), vec![vec![some("1")], vec![some("x")], vec![None]]);
    assert_eq!(of(statements.inserts.as_ref()), vec![vec![some("3")], vec![None], vec![None]]);
    // A column of the target alone would not begin again at its default.
    let mut beyond = keyed();
    let mut extra = beyond.target.columns[1].clone();
    extra.name = "extra".to_owned();
    beyond.target.columns.push(extra);
    let statements = SetRenderer::default().render(&beyond, &net(), Writing::Keeping).unwrap();
    assert_eq!(of(statements.deletes.first()), vec![vec![some("1"), some("2")]]);
    assert!(statements.updates.is_empty());
}

#[test]
fn updates_write_the_columns_that_came_and_find_their_rows_by_the_key() {
    let key = row(&[Text(b"1"), Null, Null]);
    let new = row(&[Text(b"1"), Unchanged, Null]);
    let net = Net { updates: vec![Updated { key: &key, row: Row::Whole(&new) }], ..Net::default() };
    let statements = rendered(&keyed(), &net);
    let (sql, arrays, rows) = arrays(&statements[0]);
    assert_eq!(
        sql,
        r#"WITH affected AS (UPDATE ONLY "s"."t" AS t SET "w" = g.c2 FROM (SELECT a1::varchar AS c1, a2::varchar AS c2 FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS u(a1, a2)) AS g WHERE t."k" OPERATOR("eq".=) g.c1 RETURNING 1) SELECT 1 / (pg_catalog.count(*) = $3::bigint)::int FROM affected"#
    );
    assert_eq!((arrays, rows), (vec![vec![some("1")], vec![None]], 1));
}

#[test]
fn wide_rows_come_in_statements_of_bounded_size_and_none_is_left_out() {
    let large = vec![b'x'; UPDATE_BYTES / 3];
    let huge = vec![b'y'; 2 * UPDATE_BYTES];
    let keys = ["1", "2", "3", "4", "5", "6"];
    let values = [&large, &large, &large, &large, &huge, &large];
    let tuples: Vec<Tuple> =
        keys.iter().zip(values).map(|(key, value)| row(&[Text(key.as_bytes()), Text(value), Null])).collect();
    let updates = tuples.iter().map(|tuple| Updated { key: tuple, row: Row::Whole(tuple) }).collect();
    let statements = rendered(&keyed(), &Net { updates, ..Net::default() });
    let sizes: Vec<usize> = statements.iter().map(|statement| arrays(statement).2).collect();
    let written: Elements = statements.iter().flat_map(|statement| arrays(statement).1.remove(0)).collect();
    assert_eq!(written, keys.map(some));
    assert_eq!(sizes, [2, 2, 1, 1]);
}

#[test]
fn an_update_that_writes_nothing_still_counts_its_rows() {
    let new = row(&[Text(b"1"), Unchanged, Unchanged]);
    let net = Net { updates: vec![Updated { key: &new, row: Row::Whole(&new) }], ..Net::default() };
    let statements = rendered(&keyed(), &net);
    assert_eq!(
        arrays(&statements[0]).0,
        r#"WITH affected AS (SELECT 1 FROM ONLY "s"."t" AS t, (SELECT a1::varchar AS c1 FROM ROWS FROM (pg_catalog.unnest($1::text[])) AS u(a1)) AS g WHERE t."k" OPERATOR("eq".=) g.c1) SELECT 1 / (pg_catalog.count(*) = $2::bigint)::int FROM affected"#
    );
}

#[test]
fn few_inserts_are_a_statement_and_many_are_a_copy() {
    let mapping = mapping(&[
        ("k", Generation::IdentityAlways, true),
        ("g", Generation::Expression, false),
        ("v", Generation::None, false),
    ]);
    let new = row(&[Text(b"1"), Text(b"2"), Null]);
    let rows = |count| Net { inserts: (0..count).map(|_| Row::Whole(&new)).collect(), ..Net::default() };
    let mut renderer = SetRenderer::default();
    let few = renderer.render(&mapping, &rows(COPY_ROWS - 1), Writing::Updating).unwrap();
    let (sql, arrays, count) = arrays(few.inserts.as_ref().unwrap());
    assert_eq!(
        sql,
        r#"WITH affected AS (INSERT INTO "s"."t" ("k", "v") OVERRIDING SYSTEM VALUE SELECT * FROM (SELECT a1::varchar AS c1, a2::varchar AS c2 FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS u(a1, a2)) AS g RETURNING 1) SELECT 1 / (pg_catalog.count(*) = $3::bigint)::int FROM affected"#
    );
    assert_eq!((arrays.len(), arrays[0].len(), count), (2, COPY_ROWS - 1, COPY_ROWS - 1));
    let many = renderer.render(&mapping, &rows(COPY_ROWS), Writing::Updating).unwrap();
    let SetStatement::Copy { sql, data, rows } = many.inserts.as_ref().unwrap() else { panic!("{many:?}") };
    assert_eq!(sql, r#"COPY "s"."t" ("k", "v") FROM STDIN"#);
    assert_eq!((&data[..], *rows), ("1\t\\N\n".repeat(COPY_ROWS).as_bytes(), COPY_ROWS));
}

#[test]
fn deletes_come_first_and_inserts_last_and_a_shape_is_made_once() {
    let (old, new) = (row(&[Text(b"1"), Null, Null]), row(&[Text(b"2"), Text(b"x"), Null]));
    let net = || Net {
        deletes: vec![&old],
        updates: vec![Updated { key: &new, row: Row::Whole(&new) }],
        inserts: vec![Row::Whole(&new)],
    };
    let mut renderer = SetRenderer::default();
    let mapping = keyed();
    let ids = |statements: &Statements| {
        let id = |statement: &SetStatement| match statement {
            SetStatement::Arrays { shape, .. } => shape.id,
            SetStatement::Copy { .. } => 0,
        };
        statements.iter().map(id).collect::<Vec<_>>()
    };
    let first = renderer.render(&mapping, &net(), Writing::Updating).unwrap();
    for (statement, word) in first.iter().zip(["DELETE", "UPDATE", "INSERT"]) {
        assert!(arrays(statement).0.starts_with(&format!("WITH affected AS ({word} ")), "{statement:?}");
    }
    assert_eq!(
        (first.iter().count(), ids(&first)),
        (3, ids(&renderer.render(&mapping, &net(), Writing::Updating).unwrap()))
    );
}

#[test]
fn a_table_without_a_key_takes_inserts_and_a_partitioned_one_is_not_restricted_to_itself() {
    let mut mapping = keyed();
    mapping.identity = Identity::WholeRow;
    let new = row(&[Text(b"1"), Null, Null]);
    let net = Net { inserts: vec![Row::Whole(&new)], ..Net::default() };
    assert_eq!(rendered(&mapping, &net).len(), 1);
    let mut mapping = keyed();
    mapping.target.is_partitioned = true;
    let net = Net { deletes: vec![&new], ..Net::default() };
    let statements = rendered(&mapping, &net);
    assert!(arrays(&statements[0]).0.contains(r#"DELETE FROM "s"."t" AS t"#));
}

#[test]
fn a_value_that_did_not_come_is_an_error_and_never_a_null() {
    let (hole, binary) = (row(&[Text(b"1"), Unchanged, Null]), row(&[Text(b"1"), Value::Binary(b"2"), Null]));
    let of = |row| {
        SetRenderer::default()
            .render(&keyed(), &Net { inserts: vec![row], ..Net::default() }, Writing::Updating)
            .unwrap_err()
    };
    assert_eq!(of(Row::Whole(&hole)), RenderError::MissingValue("\"v\"".to_owned()));
    assert_eq!(of(Row::Whole(&binary)), RenderError::Binary("\"v\"".to_owned()));
    let key = row(&[Unchanged, Null, Null]);
    let net = Net { deletes: vec![&key], ..Net::default() };
    assert_eq!(
        SetRenderer::default().render(&keyed(), &net, Writing::Updating).unwrap_err(),
        RenderError::MissingValue("\"k\"".to_owned())
    );
    let many = || Net { inserts: (0..COPY_ROWS).map(|_| Row::Whole(&hole)).collect(), ..Net::default() };
    assert!(SetRenderer::default().render(&keyed(), &many(), Writing::Updating).is_err());
}

#[test]
fn identity_columns_outside_the_key_no_columns_and_too_many_are_not_possible() {
    use Generation::{Expression, IdentityAlways, None};
    assert!(is_possible(&keyed()));
    assert!(is_possible(&mapping(&[("k", IdentityAlways, true), ("v", None, false)])));
    assert!(!is_possible(&mapping(&[("k", None, true), ("n", IdentityAlways, false)])));
    assert!(!is_possible(&mapping(&[("g", Expression, false)])));
    assert!(!is_possible(&mapping(&[])));
    let names: Vec<String> = (0..=COLUMNS_MAX).map(|n| format!("c{n}")).collect();
    let wide: Vec<(&str, Generation, bool)> = names.iter().map(|name| (name.as_str(), None, false)).collect();
    assert!(!is_possible(&mapping(&wide)));
    assert!(is_possible(&mapping(&wide[1..])));
}

/// What the server makes of a field of a COPY in text format.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = field.iter();
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match *bytes.next().unwrap() {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                other => other,
            },
            other => other,
        });
    }
    out
}

/// Text with many of the bytes that mean something to COPY.
fn awkward() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\\'), Just(b'\t'), Just(b'\n'), Just(b'\r'), Just(b'N'), Just(b'.'), any::<u8>()];
    prop::collection::vec(byte, 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_copy_gives_back_what_was_put_in(
        rows in prop::collection::vec(prop::collection::vec(prop::option::of(awkward()), 3), 1..8),
    ) {
        let tuples: Vec<Tuple> = rows
            .iter()
            .map(|cells| row(&cells.iter().map(|c| c.as_deref().map_or(Null, Text)).collect::<Vec<_>>()))
            .collect();
        let given: Vec<Row<'_>> = tuples.iter().map(Row::Whole).collect();
        let SetStatement::Copy { data, .. } = copy(&keyed(), &[0, 1, 2], &given).unwrap() else { panic!() };
        let lines: Vec<&[u8]> = data.strip_suffix(b"\n").unwrap().split(|&byte| byte == b'\n').collect();
        let field = |field: &[u8]| if field == b"\\N" { None } else { Some(unescape(field)) };
        let read: Vec<Vec<Option<Vec<u8>>>> =
            lines.iter().map(|line| line.split(|&byte| byte == b'\t').map(field).collect()).collect();
        prop_assert!(!lines.contains(&&b"\\."[..]), "a line that ends the data");
        prop_assert_eq!(read, rows);
    }

    #[test]
    fn an_array_gives_back_what_was_put_in(values in prop::collection::vec(prop::option::of(awkward()), 0..20)) {
        let given: Vec<Option<Value<'_>>> =
            values.iter().map(|value| Some(value.as_deref().map_or(Null, Text))).collect();
        prop_assert_eq!(decoded(&array(&keyed(), 1, given.into_iter()).unwrap()), values);
    }

    #[test]
    fn updates_are_grouped_by_exactly_the_columns_they_write(
        unchanged in prop::collection::vec((any::<bool>(), any::<bool>()), 1..30),
    ) {
        let value = |is_unchanged| if is_unchanged { Unchanged } else { Text(b"x") };
        let tuples: Vec<Tuple> =
            unchanged.iter().map(|&(v, w)| row(&[Text(b"k"), value(v), value(w)])).collect();
        let updates: Vec<Updated<'_>> =
            tuples.iter().map(|tuple| Updated { key: tuple, row: Row::Whole(tuple) }).collect();
        let groups = by_set(&keyed(), &[0], &updates);
        let sets: std::collections::HashSet<&Vec<usize>> = groups.iter().map(|(set, _)| set).collect();
        prop_assert_eq!(sets.len(), groups.len(), "a set has two groups");
        prop_assert_eq!(groups.iter().map(|(_, rows)| rows.len()).sum::<usize>(), updates.len());
        for (set, rows) in &groups {
            for row in rows {
                let written: Vec<usize> = [1, 2].into_iter().filter(|&n| row.row.get(n) != Some(Unchanged)).collect();
                prop_assert_eq!(set, &written);
            }
        }
    }
}
