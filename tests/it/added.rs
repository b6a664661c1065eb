//! Columns that were added on the source, with what they need: what is printed runs as it
//! is, and gives the target the same columns and defaults.

use crate::journey::value;
use crate::story::Story;

/// Columns with their types and defaults, without the numbers of anything.
const COLUMNS: &str = "SELECT string_agg(concat_ws(' ', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), \
         pg_get_expr(d.adbin, d.adrelid)), E'\\n' ORDER BY a.attrelid::regclass::text, a.attname) \
     FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
     JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace \
     WHERE a.attnum > 0 AND NOT a.attisdropped";

/// What is printed is done; the columns are the same then.
async fn leads_to_the_same_columns(story: &Story) {
    story.leads_to_the_end().await;
    assert_eq!(value(&story.target, COLUMNS).await, value(&story.source, COLUMNS).await);
}

/// The story: the sequence was looked for at the partition or child whose row came, so the
/// ALTER that was printed called one that was not there, at every start.
#[tokio::test]
async fn numbered_columns_of_roots_and_parents_come_with_their_sequences() {
    let setup = "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); \
         CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (50); INSERT INTO p VALUES (1); \
         CREATE TABLE i (id int PRIMARY KEY); CREATE TABLE i_c (PRIMARY KEY (id)) INHERITS (i); INSERT INTO i_c VALUES (1); \
         CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
    let story = Story::of(setup, &[]).await;
    story.source("ALTER TABLE p ADD COLUMN s serial; INSERT INTO p VALUES (2)").await;
    story.source("ALTER TABLE i ADD COLUMN s bigserial; INSERT INTO i_c VALUES (2)").await;
    story.source("CREATE SCHEMA other; CREATE SEQUENCE other.numbers INCREMENT 5").await;
    story.source("ALTER TABLE t ADD COLUMN s int DEFAULT nextval('other.numbers'); INSERT INTO t VALUES (2)").await;
    let said = story.run(&["catchup"], 7).stderr;
    assert!(!said.contains("NO CYCLE OWNED BY"), "there is no such column yet:\n{said}");
    leads_to_the_same_columns(&story).await;
}

/// The story: ADD COLUMN was printed without the types and functions that the target lacked.
#[tokio::test]
async fn columns_come_with_the_types_and_functions_that_they_need() {
    let setup = "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1); \
         CREATE TABLE d (id int PRIMARY KEY); INSERT INTO d VALUES (1)";
    let story = Story::of(setup, &[]).await;
    story
        .source(
            "CREATE SCHEMA kinds; CREATE TYPE kinds.mood AS ENUM ('it''s', 'sad', 'glad'); \
             CREATE FUNCTION kinds.is_fine(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS E'SELECT -- all\\n$1 <> ''\\\\'' '; \
             CREATE DOMAIN kinds.word AS varchar(9) DEFAULT 'w' NOT NULL CONSTRAINT fine CHECK (kinds.is_fine(VALUE)) CHECK (VALUE <> ''); \
             CREATE TYPE kinds.pair AS (m kinds.mood[], \"W\" kinds.word, n numeric(5, 2)); \
             CREATE FUNCTION kinds.double(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2'",
        )
        .await;
    story.source("ALTER TABLE a ADD COLUMN m kinds.mood[]; INSERT INTO a VALUES (2, '{sad}')").await;
    story
        .source("ALTER TABLE a ADD COLUMN w kinds.word, ADD COLUMN p kinds.pair; INSERT INTO a VALUES (3, '{glad}', 'x', '({sad},y,1.5)')")
        .await;
    story.source("ALTER TABLE d ADD COLUMN n int DEFAULT kinds.double(4), ADD COLUMN m kinds.mood").await;
    story.source("ALTER TABLE d ADD COLUMN g int GENERATED ALWAYS AS (kinds.double(id)) STORED").await;
    leads_to_the_same_columns(&story).await;
}

/// The story: the parent got the default of the child whose row came.
#[tokio::test]
async fn parents_and_children_each_have_their_own_defaults() {
    let setup = "CREATE TABLE i (id int PRIMARY KEY); CREATE TABLE i_1 (PRIMARY KEY (id)) INHERITS (i); \
         CREATE TABLE i_2 (PRIMARY KEY (id)) INHERITS (i); INSERT INTO i VALUES (4); INSERT INTO i_1 VALUES (5); INSERT INTO i_2 VALUES (6); \
         CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (50); \
         CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (50) TO (99); INSERT INTO p VALUES (1), (51); \
         CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
    let story = Story::of(setup, &[]).await;
    story
        .source("ALTER TABLE i_1 ADD COLUMN x int DEFAULT 9; ALTER TABLE i ADD COLUMN x int DEFAULT 5; INSERT INTO i_1 (id) VALUES (7)")
        .await;
    story
        .source("ALTER TABLE p ADD COLUMN x int DEFAULT 5; ALTER TABLE p_1 ALTER x SET DEFAULT 6; INSERT INTO p_1 (id) VALUES (2)")
        .await;
    story.source("ALTER TABLE t ADD COLUMN x int NOT NULL DEFAULT 5; ALTER TABLE t ALTER x DROP DEFAULT").await;
    leads_to_the_same_columns(&story).await;
    let of_types = "ALTER TABLE p ALTER x DROP DEFAULT, ALTER x TYPE text, ALTER x SET DEFAULT 'p'; \
         ALTER TABLE p_1 ALTER x SET DEFAULT 'p_1'; INSERT INTO p_1 (id) VALUES (3)";
    let story = Story::of(&format!("{setup}; ALTER TABLE p ADD COLUMN x int DEFAULT 5"), &[]).await;
    story.source(of_types).await;
    leads_to_the_same_columns(&story).await;
}
