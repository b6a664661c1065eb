//! The splitter and the classifier on dumps of a real server (PostgreSQL 15,
//! `pg_dump --schema-only --section=…`), and the whole restore on one.

use std::collections::HashSet;

use super::archive::split;
use super::classify::{deferred, is_wanted, number};
use super::kind::Kind;
use crate::sql::TableName;
use crate::state::deferred::{Deferred, DeferredKind};

const PRE_DATA: &str = include_str!("fixtures/pre_data.sql");
const POST_DATA: &str = include_str!("fixtures/post_data.sql");

fn objects() -> Vec<Deferred> {
    let partitioned = HashSet::from([TableName::new("shop", "orders")]);
    let mut objects = deferred(&split(POST_DATA).unwrap(), &partitioned, 150_018);
    number(&mut objects);
    objects
}

fn named<'a>(objects: &'a [Deferred], name: &str) -> &'a Deferred {
    objects.iter().find(|object| object.object == name).unwrap_or_else(|| panic!("no {name} in {objects:#?}"))
}

#[test]
fn a_header_inside_a_function_body_does_not_tear_it_apart() {
    let entries = split(PRE_DATA).unwrap();
    let function = entries.iter().find(|entry| entry.kind == Kind::Function).unwrap();
    assert_eq!((function.name.as_str(), function.schema.as_str()), ("f()", "shop"));
    assert!(
        function.sql.contains("-- Name: fake") && function.sql.ends_with("RETURN NEW; END $$;"),
        "{}",
        function.sql
    );
    assert!(!entries.iter().any(|entry| entry.name == "fake"));
}

#[test]
fn every_header_of_the_dump_becomes_an_entry_and_nothing_is_lost() {
    for dump in [PRE_DATA, POST_DATA] {
        let entries = split(dump).unwrap();
        let headers = dump.matches("\n-- Name: ").count() - dump.matches("\n-- Name: fake").count();
        assert_eq!(entries.len(), headers);
        assert!(entries.iter().all(|entry| !entry.sql.is_empty()), "{entries:#?}");
        assert!(
            entries
                .iter()
                .all(|entry| !entry.sql.contains("\n\\unrestrict") && !entry.sql.contains("statement_timeout"))
        );
    }
}

#[test]
fn a_setting_before_a_header_belongs_to_the_entry_behind_it() {
    let entries = split(PRE_DATA).unwrap();
    let first_table = entries.iter().find(|entry| entry.kind == Kind::Table).unwrap();
    assert!(
        first_table.sql.starts_with("SET default_table_access_method = heap;\nCREATE TABLE"),
        "{}",
        first_table.sql
    );
    assert!(
        entries.iter().filter(|entry| entry.kind == Kind::Function).all(|entry| !entry.sql.contains("SET default_"))
    );
}

#[test]
fn a_dump_that_was_cut_off_is_refused_wherever_it_was_cut() {
    let end = POST_DATA.find("-- PostgreSQL database dump complete").unwrap();
    for cut in (0..end).filter(|cut| POST_DATA.is_char_boundary(*cut)) {
        assert!(split(&POST_DATA[..cut]).is_err(), "cut at {cut}");
    }
}

#[test]
fn strings_with_quotes_backslashes_and_dollars_end_where_they_end() {
    let header = |name: &str| format!("--\n-- Name: {name}; Type: COMMENT; Schema: -; Owner: -\n--\n\n");
    for body in [
        "E'it''s \\' \n--\n-- Name: no; Type: x; Schema: y; Owner: -\n--\n';",
        "'plain \\'; ",
        "$a$ $$ ' $b$ \" $a$;",
        "\"a\"\"--\n\";",
        "/* /* ' */ ' */;",
        "1 -- it's\n;",
    ] {
        let dump =
            format!("{}{body}\n\n{}x;\n\n--\n-- PostgreSQL database dump complete\n--\n", header("a"), header("b"));
        let entries = split(&dump).unwrap();
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["a", "b"], "{body}");
    }
}

#[test]
fn others_comments_are_not_repeated() {
    let unwanted: Vec<String> =
        split(PRE_DATA).unwrap().into_iter().filter(|entry| !is_wanted(entry)).map(|entry| entry.name).collect();
    assert_eq!(unwanted, ["SCHEMA public", "EXTENSION hstore"]);
}

#[test]
fn indexes_and_keys_follow_the_rows_of_their_table() {
    let objects = objects();
    let of = |table: &TableName| -> Vec<&str> {
        let after = objects.iter().filter(|o| o.kind == DeferredKind::AfterRows && o.table == *table);
        after.map(|o| o.object.as_str()).collect()
    };
    assert_eq!(
        of(&TableName::new("shop", "items")),
        ["constraint items items_pkey in shop", "index items_u in shop", "statistics st in shop"]
    );
    assert_eq!(of(&TableName::new("shop", "Odd \"name\" t")), ["index odd ON i in shop"]);
    assert_eq!(of(&TableName::new("shop", "mv")), ["index mvi in shop"]);
    assert_eq!(
        of(&TableName::new("shop", "orders")),
        ["constraint orders orders_pkey in shop", "index orders_customer in shop"]
    );
    assert!(named(&objects, "index items_u in shop").sql.contains("REPLICA IDENTITY USING INDEX items_u"));
    assert_eq!(named(&objects, "rule v _RETURN in shop").kind, DeferredKind::AfterRows);
}

#[test]
fn foreign_keys_come_in_unvalidated_and_are_validated_after_all_of_them() {
    let objects = objects();
    let key = named(&objects, "fk constraint items items_customer_fkey in shop");
    assert!(key.sql.ends_with("REFERENCES shop.customers(id) NOT VALID;"), "{}", key.sql);
    let validation = named(&objects, "validation of fk constraint items items_customer_fkey in shop");
    assert_eq!(validation.sql, "ALTER TABLE \"shop\".\"items\" VALIDATE CONSTRAINT \"items_customer_fkey\";");
    assert!(objects.iter().filter(|o| !o.object.starts_with("validation")).all(|o| o.ordinal < validation.ordinal));
    let never_valid = named(&objects, "fk constraint items nv in shop");
    assert_eq!(never_valid.sql.matches("NOT VALID").count(), 1);
    let partitioned = named(&objects, "fk constraint orders orders_customer_fkey in shop");
    assert!(!partitioned.sql.contains("NOT VALID"), "{}", partitioned.sql);
    assert_eq!(objects.iter().filter(|o| o.object.starts_with("validation")).count(), 1);
}

#[test]
fn triggers_rules_and_policies_wait_for_the_end() {
    let objects = objects();
    assert_eq!(named(&objects, "trigger items trg in shop").kind, DeferredKind::Trigger);
    assert_eq!(named(&objects, "rule items ru in shop").kind, DeferredKind::Trigger);
    for other in ["row security items in shop", "policy items pol in shop", "comment INDEX items_u in shop"] {
        assert_eq!(named(&objects, other).kind, DeferredKind::Other);
    }
}
