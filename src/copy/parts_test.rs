//! Tests of the parts: the ranges as text, and on a server.

use super::*;
use crate::catalog::tables::Detail;
use crate::config::TableFilter;
use crate::membership;
use crate::sweep::testing::{Pair, SOURCE_OWNER};

#[test]
fn ranges_follow_on_one_another_and_the_last_has_no_end() {
    assert_eq!(
        page_ranges(10, 3),
        [
            "ctid >= '(0,0)'::pg_catalog.tid AND ctid < '(3,0)'::pg_catalog.tid",
            "ctid >= '(3,0)'::pg_catalog.tid AND ctid < '(6,0)'::pg_catalog.tid",
            "ctid >= '(6,0)'::pg_catalog.tid",
        ]
    );
    assert_eq!(
        key_ranges("I d", &[7, -3, 7]),
        [
            "\"I d\" < '-3'::pg_catalog.int8",
            "\"I d\" >= '-3'::pg_catalog.int8 AND \"I d\" < '7'::pg_catalog.int8",
            "\"I d\" >= '7'::pg_catalog.int8",
        ]
    );
    assert!(key_ranges("id", &[]).is_empty());
}

#[test]
fn a_part_has_at_least_a_page_and_a_small_table_is_whole() {
    assert_eq!(count(1000, 10, 400), 3);
    assert_eq!(count(1 << 30, 2, 1 << 20), 2);
    assert_eq!(count(1 << 50, 1 << 40, 1), 4096);
    for (bytes, pages) in [(0, 0), (400, 100), (1 << 30, 1)] {
        assert!(page_ranges(pages, count(bytes, pages, 400)).is_empty(), "{bytes} bytes on {pages} pages");
    }
}

#[test]
fn pages_are_ranges_from_14_on_and_integer_keys_before() {
    let key = |type_oid| Key { column: "id".to_owned(), type_oid };
    for (version, type_oid, expected) in [
        (140_000, None, Split::Pages),
        (180_000, Some(23), Split::Pages),
        (130_023, Some(20), Split::Key("id")),
        (130_023, Some(21), Split::Key("id")),
        (100_000, Some(23), Split::Key("id")),
        (130_023, Some(25), Split::Whole),
        (130_023, Some(2950), Split::Whole),
        (130_023, None, Split::Whole),
    ] {
        let key = type_oid.map(key);
        assert_eq!(split(version, key.as_ref()), expected, "{version} {type_oid:?}");
    }
}

#[test]
fn cuts_are_within_what_there_is() {
    assert_eq!(quantiles(&[0, 10, 20, 30, 40], 2), [20]);
    assert_eq!(quantiles(&[0, 10, 20], 9), [10], "no more parts than the histogram has ranges");
    assert_eq!(quantiles(&[5], 3), [0_i64; 0]);
    assert_eq!(equal_widths(1, 100, 4), [26, 51, 76]);
    assert_eq!(equal_widths(i64::MIN, i64::MAX, 2), [0]);
    assert_eq!(equal_widths(3, 3, 3), [3, 3], "which are one range in the end");
}

/// Keys from one end of the type to the other, with gaps, and behind a name
/// that has to be quoted; rows that came after the statistics; an empty table;
/// a key of several columns.
const TABLES: &str = "
    CREATE TABLE public.\"Whole range\" (\"I d\" int8, t text, PRIMARY KEY (\"I d\"));
    INSERT INTO public.\"Whole range\" SELECT i * 7 - 9000, repeat('x', 100) FROM generate_series(1, 20000) i;
    INSERT INTO public.\"Whole range\" VALUES (-9223372036854775808, 'least'), (9223372036854775807, 'greatest');
    CREATE TABLE public.grown (id int4 PRIMARY KEY, t text) WITH (autovacuum_enabled = off);
    INSERT INTO public.grown SELECT i, repeat('x', 100) FROM generate_series(1000, 9000) i;
    ANALYZE public.grown;
    INSERT INTO public.grown SELECT i, repeat('x', 100) FROM generate_series(-500, 500) i;
    INSERT INTO public.grown SELECT i, repeat('x', 100) FROM generate_series(20000, 20500) i;
    CREATE TABLE public.several (a int2, b text, PRIMARY KEY (a, b));
    INSERT INTO public.several SELECT i % 40, repeat('x', 100) || i FROM generate_series(1, 9000) i;
    CREATE TABLE public.emptied (id int4 PRIMARY KEY, t text);
    INSERT INTO public.emptied SELECT i, repeat('x', 100) FROM generate_series(1, 9000) i;
    DELETE FROM public.emptied";

#[tokio::test]
async fn every_row_is_in_exactly_one_range_of_keys() {
    let pair = Pair::new().await;
    let source = pair.source(SOURCE_OWNER).await;
    source.batch_execute(TABLES).await.unwrap();
    source.batch_execute("BEGIN").await.unwrap();
    let tables =
        membership::read(&source, &TableFilter::default(), &membership::Known::new(), Detail::Full).await.unwrap();
    for (name, column, is_split) in
        [("Whole range", "I d", true), ("grown", "id", true), ("several", "a", true), ("emptied", "id", false)]
    {
        let table = tables.iter().find(|table| table.name.name == name).unwrap();
        let keys = keys(&source, &[table]).await.unwrap();
        assert_eq!(split(130_000, keys.get(&table.oid)), Split::Key(column), "{name}");
        let ranges = key_ranges(column, &cuts(&source, &table.name, column, 5).await.unwrap());
        assert_eq!(ranges.len() > 1, is_split, "{name}: {ranges:?}");
        let in_ranges: Vec<String> = ranges.iter().map(|range| format!("({range})::int")).collect();
        let times = if is_split { in_ranges.join(" + ") } else { "1".to_owned() };
        let sql = format!("SELECT count(*) FROM {} WHERE {times} <> 1", table.name.sql());
        assert_eq!(source.query_one(&sql, &[]).await.unwrap().get::<_, i64>(0), 0, "{name}: {ranges:?}");
        for range in &ranges {
            let sql = format!("SELECT count(*) FROM {} WHERE {range}", table.name.sql());
            let rows: i64 = source.query_one(&sql, &[]).await.unwrap().get(0);
            assert!(rows > 0 || name == "Whole range", "{name}: nothing in {range}");
        }
    }
}

/// The story: what was read before the copy of rows began kept every large
/// table locked until the last one was there.
#[tokio::test]
async fn finding_where_to_split_a_table_leaves_no_lock_on_it() {
    let pair = Pair::new().await;
    let source = pair.source(SOURCE_OWNER).await;
    source.batch_execute(TABLES).await.unwrap();
    source.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
    let tables =
        membership::read(&source, &TableFilter::default(), &membership::Known::new(), Detail::Full).await.unwrap();
    let large: Vec<&SourceTable> = tables.iter().collect();
    assert!(!conditions(&source, &large, 8192).await.unwrap().is_empty());
    let whole = tables.iter().find(|table| table.name.name == "Whole range").unwrap();
    assert!(!cuts(&source, &whole.name, "I d", 5).await.unwrap().is_empty());
    let locked = "SELECT count(*) FROM pg_locks JOIN pg_class c ON c.oid = relation \
        WHERE pid = pg_backend_pid() AND c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'";
    assert_eq!(source.query_one(locked, &[]).await.unwrap().get::<_, i64>(0), 0);
}
