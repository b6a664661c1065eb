//! Values arrive as the source wrote them, whatever casts, domains and column types
//! there are on the target.

use crate::journey::{Journey, execute};

/// The story: a cast from text that a user had made was taken for the type's input
/// function: streamed values were others, an update changed what it had not touched, and
/// a DELETE took the row whose cast value was the same.
#[tokio::test]
async fn a_cast_from_text_that_somebody_made_is_not_taken_for_the_input_function() {
    let fixtures = [
        "CREATE TYPE mood AS ENUM ('sad', 'so so', 'glad')",
        "CREATE FUNCTION lenient(text) RETURNS mood LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN \
           RETURN CASE WHEN $1 = 'glad' THEN 'sad' ELSE 'so so' END; END $$",
        "CREATE CAST (text AS mood) WITH FUNCTION lenient(text) AS ASSIGNMENT",
        "CREATE DOMAIN felt AS mood; CREATE DOMAIN truly AS felt",
        "CREATE FUNCTION many(text) RETURNS mood[] LANGUAGE sql IMMUTABLE AS 'SELECT ARRAY[''sad'']::mood[]'",
        "CREATE CAST (text AS mood[]) WITH FUNCTION many(text)",
        "CREATE TABLE plain (id int PRIMARY KEY, m mood, f felt, t truly, l mood[], d felt[], note text)",
        "CREATE TABLE by_mood (m mood PRIMARY KEY, note text)",
        "CREATE TABLE by_both (id int, f truly, note text, PRIMARY KEY (id, f))",
        "CREATE TABLE by_list (l mood[] PRIMARY KEY, note text)",
        "CREATE TABLE keyless (m mood, l felt[]); ALTER TABLE keyless REPLICA IDENTITY FULL",
        "INSERT INTO by_mood VALUES ('sad', 's'), ('so so', 'o'), ('glad', 'g')",
        "INSERT INTO by_list VALUES ('{sad}', 's'), ('{glad,sad}', 'g')",
        "INSERT INTO plain SELECT i, 'glad', 'glad', 'sad', '{glad,sad}', '{glad}', 'n' FROM generate_series(1, 20) i",
    ];
    let mut journey = Journey::of(&fixtures).await;
    execute(
        &journey.source,
        &[
            "INSERT INTO plain SELECT i, 'glad', 'glad', 'glad', '{glad,\"so so\"}', '{glad,NULL}', 'n' FROM generate_series(100, 500) i",
            "INSERT INTO plain VALUES (21, 'sad', 'glad', 'so so', '{}', NULL, 'x')",
            "UPDATE plain SET note = 'm' WHERE id BETWEEN 3 AND 5; UPDATE plain SET m = 'sad', l = '{sad,glad}' WHERE id = 7",
            "DELETE FROM by_mood WHERE m = 'glad'; DELETE FROM by_list WHERE l = '{glad,sad}'",
            "INSERT INTO by_both SELECT i, 'glad', 'n' FROM generate_series(1, 5) i; INSERT INTO by_both VALUES (1, 'sad', 's')",
            "UPDATE by_both SET note = 'u' WHERE f::mood = 'glad'; DELETE FROM by_both WHERE id = 1 AND f::mood = 'glad'",
            "INSERT INTO keyless VALUES ('glad', '{glad}'), ('sad', '{sad}'), ('glad', '{glad}')",
            "DELETE FROM keyless WHERE m = 'sad'; UPDATE keyless SET m = 'so so'",
        ],
    )
    .await;
    journey.finish().await;
}

/// The story: a key of a domain over an enum has no operator that takes it.
#[tokio::test]
async fn keys_of_domains_find_their_rows() {
    let fixtures = [
        "CREATE TYPE mood AS ENUM ('sad', 'so so', 'glad'); CREATE DOMAIN felt AS mood; CREATE DOMAIN truly AS felt",
        "CREATE DOMAIN numbers AS int[]; CREATE DOMAIN short AS varchar(5); CREATE DOMAIN spans AS int4range",
        "CREATE TABLE alone (k truly PRIMARY KEY, n int); CREATE TABLE listed (k numbers PRIMARY KEY, n int)",
        "CREATE TABLE brief (k short PRIMARY KEY, n int); CREATE TABLE ranged (k spans PRIMARY KEY, n int)",
        "CREATE TABLE several (a felt, b numbers, c short, n int, PRIMARY KEY (a, b, c))",
        "INSERT INTO alone VALUES ('sad', 1), ('so so', 2), ('glad', 3); INSERT INTO listed VALUES ('{1}', 1), ('{1,2}', 2), ('{}', 3)",
        "INSERT INTO brief VALUES ('a', 1), ('ab', 2), ('', 3); INSERT INTO ranged VALUES ('[1,3)', 1), ('empty', 2), ('[,]', 3)",
        "INSERT INTO several SELECT 'sad', ARRAY[i], 'x' || i, i FROM generate_series(1, 9) i",
    ];
    let mut journey = Journey::of(&fixtures).await;
    for table in ["alone", "listed", "brief", "ranged"] {
        let sql = format!("UPDATE {table} SET n = 10 WHERE n = 1; DELETE FROM {table} WHERE n = 2");
        execute(&journey.source, &[&sql]).await;
    }
    execute(
        &journey.source,
        &[
            "UPDATE alone SET k = 'so so' WHERE n = 10; UPDATE listed SET k = '{7}' WHERE n = 10; UPDATE brief SET k = 'c' WHERE n = 10",
            "UPDATE several SET n = -n WHERE n < 5; UPDATE several SET c = 'new' WHERE n = 6; DELETE FROM several WHERE n > 7",
        ],
    )
    .await;
    journey.finish().await;
}
