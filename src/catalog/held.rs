//! Relations that are read by their names, and stay what they are until they have been.
//!
//! An owner may put a view in the place of a table or a sequence, in the moment between our
//! look at the catalogs and our reading: then a function of his runs, with our rights
//! (CVE-2024-7348). So what is read by its name is held first:
//!
//! ```text
//! PREPARE over the names ─ is each a table or a sequence? ─ read ─ end of the transaction
//!    locks, runs nothing      an error, if not                      lets go
//! ```
//!
//! Invariant: nothing is planned or executed over a name before it is known, under a lock,
//! that it is not a view's. All of it is one text of the simple protocol, which is one
//! transaction, or part of the one that is open.
//!
//! What this leaves is an owner of a schema who renames that in between, which no lock
//! keeps him from; on the source [`crate::wire::RESTRICTED`] does.
//!
//! Source: `PrepareQuery` in `src/backend/commands/prepare.c` analyses and rewrites, and
//! leaves the planner to EXECUTE, which comes never; `parserOpenTable` in
//! `src/backend/parser/parse_relation.c` takes the lock. LOCK TABLE wants a right to the whole
//! table, where some columns may do, and takes no sequences. A function's result can be
//! folded by the planner already, so not even LIMIT 0 or EXPLAIN will do.

use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::tables::Shape;
use crate::session::{QueryError, Session};
use crate::sql::{TableName, literal};

/// Whether a foreign table may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// On the target, where rows may be kept behind one.
    Read,
    /// A server that somebody else names is not connected to for us.
    Refused,
}

/// SQL for the simple protocol that holds these relations, and fails with undefined_table
/// where one is neither a table nor a sequence. It has no row. A relation has ONLY before it
/// where that is meant.
fn hold_sql<'a>(relations: impl Iterator<Item = (&'a str, &'a TableName)>, foreign: Foreign) -> String {
    let (mut from, mut names) = (Vec::new(), Vec::new());
    for (number, (only, name)) in relations.enumerate() {
        from.push(format!("{only}{} AS r{number}", name.sql()));
        names.push(literal(&name.text()));
    }
    let behind_none = match foreign {
        Foreign::Read => "c.relkind IN ('p', 'f')",
        Foreign::Refused => "c.relkind = 'p'",
    };
    // By the file: with an older snapshot pg_class has what the table was before it was made
    // a view by a rule (up to 15).
    format!(
        "PREPARE walferry_hold AS SELECT FROM {}; DEALLOCATE walferry_hold; \
         SELECT FROM unnest(ARRAY[{}]::text[]) AS held (name) WHERE CASE \
             WHEN EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(held.name) \
                 AND ({behind_none} OR pg_catalog.pg_relation_filenode(c.oid) IS NOT NULL)) THEN false \
             ELSE ('pg_catalog.' || pg_catalog.quote_ident('not a table: ' || held.name))::regclass IS NULL END",
        from.join(", "),
        names.join(", ")
    )
}

/// Holds one relation in the transaction that is open. It has no row.
pub fn hold(shape: Shape, table: &TableName) -> String {
    hold_sql(std::iter::once((super::tables::only(shape), table)), Foreign::Refused)
}

/// Reads from these relations, each with ONLY before it or nothing, while they are held; the
/// rows are in text.
///
/// # Errors
/// What the driver reports: undefined_table also where one is neither a table nor a
/// sequence any more.
pub async fn read<'a>(
    session: &Session,
    relations: impl Iterator<Item = (&'a str, &'a TableName)>,
    foreign: Foreign,
    sql: &str,
) -> Result<Vec<SimpleQueryRow>, QueryError> {
    let hold = hold_sql(relations, foreign);
    let messages = session.simple_query(&format!("{hold}; {sql}")).await?;
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    };
    Ok(messages.into_iter().filter_map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{bounds, contents};
    use crate::config::Side;
    use crate::demo::cluster::{Cluster, SUPERUSER};
    use crate::testing::{cluster, over_socket};

    /// A role without rights makes a view whose function says in a table whose rights it had.
    /// The planner runs it already: to itself it is immutable.
    const BAIT: &str = "CREATE ROLE mallory LOGIN; GRANT CREATE ON SCHEMA public TO mallory; SET ROLE mallory; \
        CREATE TABLE public.stolen (by text); \
        CREATE FUNCTION public.take() RETURNS bigint LANGUAGE plpgsql AS \
            $$ BEGIN INSERT INTO public.stolen VALUES (current_user); RETURN 7; END $$; \
        CREATE FUNCTION public.bait() RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN public.take(); END $$; \
        CREATE VIEW public.trap AS SELECT 1 AS id, public.bait() AS last_value, true AS is_called; \
        CREATE TABLE public.plain (id int); INSERT INTO public.plain VALUES (1); CREATE SEQUENCE public.counter; RESET ROLE";

    /// A session of walferry's, as on a server that cannot be asked to refuse views.
    async fn unrestricted(cluster: &Cluster, side: Side) -> Session {
        let session = Session::connect(&over_socket(cluster, side, SUPERUSER, "postgres"), "test").await.unwrap();
        session.batch_execute("SET restrict_nonsystem_relation_kind = ''").await.unwrap();
        session
    }

    async fn stolen(session: &Session) -> i64 {
        session.query_one("SELECT count(*) FROM public.stolen", &[]).await.unwrap().get(0)
    }

    fn name(name: &str) -> TableName {
        TableName::new("public", name)
    }

    /// The story: a sequence that had become a view between the list and the reading ran its
    /// owner's function as a superuser (the class of CVE-2024-7348).
    #[tokio::test]
    async fn a_view_in_the_place_of_a_table_is_refused_and_not_run() {
        let cluster = cluster().start().unwrap();
        let session = unrestricted(&cluster, Side::Source).await;
        session.batch_execute(BAIT).await.unwrap();
        let (trap, plain, counter) = (name("trap"), name("plain"), name("counter"));
        let sql = "SELECT last_value FROM public.trap";
        for only in ["", "ONLY "] {
            let relations = [("", &counter), (only, &trap)];
            let error = read(&session, relations.into_iter(), Foreign::Refused, sql).await.unwrap_err();
            assert_eq!(error.code().unwrap().code(), "42P01", "{error:?}");
            let said = error.as_db_error().unwrap().message();
            assert!(said.contains("not a table: \"public\".\"trap\""), "{said}");
        }
        assert!(contents::checksum(&session, &trap, Shape::Plain, &["id"], None).await.is_err());
        let rows = bounds::Rows::Meeting;
        assert!(bounds::has(&session, (&trap, Shape::Partitioned), "id = 1", rows).await.is_err());
        session.batch_execute(&format!("BEGIN; {}", hold(Shape::Plain, &trap))).await.unwrap_err();
        session.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(stolen(&session).await, 0);
        // What is a table, or a sequence, is read.
        let sql = "SELECT last_value, is_called FROM public.counter";
        let rows =
            read(&session, [("", &counter), ("ONLY ", &plain)].into_iter(), Foreign::Refused, sql).await.unwrap();
        assert_eq!((rows[0].get(0), rows[0].get(1)), (Some("1"), Some("f")));
        assert!(bounds::has(&session, (&plain, Shape::Plain), "id = 1", bounds::Rows::Meeting).await.unwrap());
        let found = contents::filled(&session, &[&plain, &trap, &counter]).await.unwrap();
        assert_eq!(found.iter().map(|filled| &filled.table).collect::<Vec<_>>(), [&plain]);
    }

    /// Who asks for the lock first sees the table; by the time that it is had, it is a view.
    #[tokio::test]
    async fn what_became_a_view_while_its_lock_was_waited_for_is_not_read() {
        let cluster = cluster().start().unwrap();
        let (session, attacker) =
            (unrestricted(&cluster, Side::Source).await, unrestricted(&cluster, Side::Source).await);
        session.batch_execute(BAIT).await.unwrap();
        let plain = name("plain");
        for begin in ["BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM public.counter"] {
            session.batch_execute(begin).await.unwrap();
            attacker.batch_execute(
                "SET ROLE mallory; BEGIN; ALTER TABLE public.plain RENAME TO away; CREATE VIEW public.plain AS SELECT * FROM public.trap",
            ).await.unwrap();
            let relation = std::iter::once(("ONLY ", &plain));
            let reading = read(&session, relation, Foreign::Refused, "SELECT * FROM public.plain");
            let letting_go = async {
                let waits = "SELECT count(*) FROM pg_catalog.pg_locks WHERE NOT granted";
                while attacker.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                    tokio::task::yield_now().await;
                }
                attacker.batch_execute("COMMIT").await.unwrap();
            };
            let (read, ()) = tokio::join!(reading, letting_go);
            assert_eq!(read.unwrap_err().code().unwrap().code(), "42P01");
            session.batch_execute("ROLLBACK").await.unwrap();
            assert_eq!(stolen(&session).await, 0);
            attacker.batch_execute("DROP VIEW public.plain; ALTER TABLE public.away RENAME TO plain").await.unwrap();
        }
    }

    /// Up to 15 a rule makes a view of a table, which an older snapshot still calls a table.
    #[tokio::test]
    async fn a_table_that_a_rule_has_made_a_view_is_refused_in_an_older_snapshot() {
        let cluster = cluster().start().unwrap();
        let session = unrestricted(&cluster, Side::Source).await;
        if session.version() >= 160_000 {
            return;
        }
        let attacker = unrestricted(&cluster, Side::Source).await;
        attacker.batch_execute(BAIT).await.unwrap();
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM public.counter";
        session.batch_execute(begin).await.unwrap();
        attacker.batch_execute(
            "SET ROLE mallory; TRUNCATE public.plain; CREATE RULE \"_RETURN\" AS ON SELECT TO public.plain DO INSTEAD SELECT public.bait()::int AS id",
        ).await.unwrap();
        let plain = name("plain");
        let relation = std::iter::once(("ONLY ", &plain));
        let read = read(&session, relation, Foreign::Refused, "SELECT * FROM public.plain").await;
        assert_eq!(read.unwrap_err().code().unwrap().code(), "42P01");
        session.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(stolen(&session).await, 0);
    }
}
