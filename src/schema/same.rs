//! Whether what is on the target under a name is what was to be brought in.
//!
//! Invariant: identity and definition decide, never a name alone: an index that
//! has the name of a primary key is no primary key. What the server says of its
//! own object is compared with the statement, which pg_dump had from the source's
//! server in the same words; `NOT VALID` is no difference, as a key that is valid
//! already is better.
//!
//! Source: `ruleutils.c` (`pg_get_constraintdef_worker` and its siblings);
//! `dumpPolicy`, `dumpEventTrigger` and `dumpConstraint` in `pg_dump.c` write the
//! three that have no such function, or not in the same words.

use super::classify::{identifier, qualified};
use crate::catalog::holders::Wanted;
use crate::session::{DbContext, DbError, Session};
use crate::sql::tokens::statement_length;
use crate::sql::{TableName, literal};

/// What is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum There {
    /// The same; what is left to execute are the statements behind the first.
    Same { rest: String },
    /// Something else, in the server's words; `None` where nothing of that name
    /// and kind is there.
    Other(Option<String>),
}

/// How the definitions of objects of a name are asked for; parameters are schema,
/// table and name, empty ones where there is none.
struct Question {
    sql: &'static str,
    schema: String,
    table: String,
    name: String,
    /// What the answer is compared with.
    wanted: String,
}

const CONSTRAINT: &str = "SELECT pg_catalog.pg_get_constraintdef(k.oid) FROM pg_catalog.pg_constraint k \
    LEFT JOIN pg_catalog.pg_class c ON c.oid = k.conrelid LEFT JOIN pg_catalog.pg_type t ON t.oid = k.contypid \
    JOIN pg_catalog.pg_namespace n ON n.oid = coalesce(c.relnamespace, t.typnamespace) \
    WHERE n.nspname = $1::text AND coalesce(c.relname, t.typname) = $2::text AND k.conname = $3::text";

const INDEX: &str = "SELECT pg_catalog.pg_get_indexdef(i.oid) FROM pg_catalog.pg_index x \
    JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid JOIN pg_catalog.pg_class c ON c.oid = x.indrelid \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = $1::text AND c.relname = $2::text AND i.relname = $3::text AND (x.indisvalid OR i.relkind = 'I')";

const TRIGGER: &str = "SELECT pg_catalog.pg_get_triggerdef(g.oid) FROM pg_catalog.pg_trigger g \
    WHERE NOT g.tgisinternal AND $1::text = '' AND $2::text = '' AND g.tgname = $3::text";

const RULE: &str = "SELECT pg_catalog.pg_get_ruledef(r.oid) FROM pg_catalog.pg_rewrite r \
    WHERE $1::text = '' AND $2::text = '' AND r.rulename = $3::text";

const STATISTICS: &str = "SELECT pg_catalog.pg_get_statisticsobjdef(s.oid) FROM pg_catalog.pg_statistic_ext s \
    JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace \
    WHERE n.nspname = $1::text AND $2::text = '' AND s.stxname = $3::text";

const POLICY: &str = "SELECT pg_catalog.format('CREATE POLICY %I ON %I.%I', p.polname, n.nspname, c.relname) \
        || CASE WHEN p.polpermissive THEN '' ELSE ' AS RESTRICTIVE' END \
        || CASE p.polcmd WHEN 'r' THEN ' FOR SELECT' WHEN 'a' THEN ' FOR INSERT' WHEN 'w' THEN ' FOR UPDATE' WHEN 'd' THEN ' FOR DELETE' ELSE '' END \
        || CASE WHEN p.polroles = '{0}' THEN '' ELSE ' TO ' || (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(r.rolname), ', ' ORDER BY r.rolname) \
            FROM pg_catalog.pg_roles r WHERE r.oid = ANY (p.polroles)) END \
        || coalesce(' USING (' || pg_catalog.pg_get_expr(p.polqual, p.polrelid) || ')', '') \
        || coalesce(' WITH CHECK (' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) || ')', '') \
    FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_class c ON c.oid = p.polrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = $1::text AND c.relname = $2::text AND p.polname = $3::text";

const EVENT_TRIGGER: &str = "SELECT pg_catalog.format('CREATE EVENT TRIGGER %I ON %s', e.evtname, e.evtevent) \
        || coalesce(' WHEN TAG IN (' || (SELECT pg_catalog.string_agg(pg_catalog.quote_literal(t.tag), ', ' ORDER BY t.n) \
            FROM pg_catalog.unnest(e.evttags) WITH ORDINALITY AS t (tag, n)) || ')', '') \
        || pg_catalog.format(' EXECUTE FUNCTION %s()', e.evtfoid::pg_catalog.regproc) \
    FROM pg_catalog.pg_event_trigger e WHERE $1::text = '' AND $2::text = '' AND e.evtname = $3::text";

/// Looks for what the first of these statements would create.
///
/// # Errors
/// When the catalog cannot be read.
pub(super) async fn look(session: &Session, sql: &str) -> Result<There, DbError> {
    let (first, rest) = sql.split_at_checked(statement_length(sql)).unwrap_or((sql, ""));
    let first = first.trim().trim_end_matches(';');
    let rest = rest.trim().to_owned();
    if let Some(sql) = comment(first) {
        let row = session.query_one(&sql, &[]).await.during(session.side(), "look at a comment")?;
        return Ok(if row.take(0)? { There::Same { rest } } else { There::Other(None) });
    }
    let Some(question) = question(first) else {
        // Views and functions that pg_dump puts off have no words of the server to compare.
        let is_by_name = ["VIEW ", "MATERIALIZED VIEW ", "FUNCTION ", "PROCEDURE "]
            .iter()
            .any(|what| first.strip_prefix("CREATE ").is_some_and(|created| created.starts_with(what)));
        return Ok(if is_by_name { There::Same { rest } } else { There::Other(None) });
    };
    let rows = session
        .query(question.sql, &[&question.schema, &question.table, &question.name])
        .await
        .during(session.side(), format!("look at what {} is", question.name))?;
    let found: Vec<String> = rows.iter().map(|row| row.take(0)).collect::<Result<_, _>>()?;
    let wanted = normal(&question.wanted);
    if found.iter().any(|found| normal(found) == wanted) {
        // What only a superuser may do is done.
        let is_done = question.sql == EVENT_TRIGGER && fires_so(session, &question.name, &rest).await?;
        return Ok(There::Same { rest: if is_done { String::new() } else { rest } });
    }
    Ok(There::Other(found.into_iter().next()))
}

/// Whether an event trigger fires when this statement lets it.
async fn fires_so(session: &Session, name: &str, statement: &str) -> Result<bool, DbError> {
    let firing = [(" DISABLE", "D"), (" ENABLE REPLICA", "R"), (" ENABLE ALWAYS", "A")];
    let statement = statement.trim_end_matches(';');
    let Some((_, letter)) = firing.iter().find(|(words, _)| statement.ends_with(words)) else { return Ok(false) };
    let sql = "SELECT evtenabled::text = $2::text FROM pg_catalog.pg_event_trigger WHERE evtname = $1::text";
    let rows = session.query(sql, &[&name, letter]).await.during(session.side(), "look when an event trigger fires")?;
    rows.first().map_or(Ok(false), |row| row.take(0))
}

/// Whether [`look`] can tell what is there from what is not.
pub(super) fn can_be_looked_at(sql: &str) -> bool {
    let first = sql.split_at_checked(statement_length(sql)).map_or(sql, |(first, _)| first);
    question(first.trim().trim_end_matches(';')).is_some()
}

/// Asks whether a comment that only an owner may give is there.
fn comment(statement: &str) -> Option<String> {
    let on = statement.strip_prefix("COMMENT ON ")?;
    let (object, text) = if let Some(function) = on.strip_prefix("FUNCTION ") {
        let (signature, text) = function.split_once(") IS ")?;
        let signature = literal(&format!("{signature})"));
        (format!("pg_catalog.to_regprocedure({signature})::oid, 'pg_proc'"), text)
    } else {
        let named = [
            ("SCHEMA ", "pg_namespace WHERE nspname"),
            ("EVENT TRIGGER ", "pg_event_trigger WHERE evtname"),
            ("LANGUAGE ", "pg_language WHERE lanname"),
            ("FOREIGN DATA WRAPPER ", "pg_foreign_data_wrapper WHERE fdwname"),
        ];
        let (rest, from) = named.iter().find_map(|(kind, from)| Some((on.strip_prefix(kind)?, *from)))?;
        let (name, text) = identifier(rest)?;
        let catalog = from.split(' ').next()?;
        let name = literal(&name);
        (format!("(SELECT oid FROM pg_catalog.{from} = {name}), '{catalog}'"), text.strip_prefix(" IS ")?)
    };
    Some(format!("SELECT coalesce(pg_catalog.obj_description({object}), '') = {text}"))
}

/// The name in a schema that a statement takes: an index, by itself or for a
/// constraint, shares its name with all relations, a statistics object with its like.
pub(super) fn name_taken_by(sql: &str) -> Option<Wanted> {
    let (first, _) = sql.split_at_checked(statement_length(sql))?;
    let Question { sql: about, schema, name, wanted, .. } = question(first.trim().trim_end_matches(';'))?;
    let has_index = ["PRIMARY KEY", "UNIQUE", "EXCLUDE"].iter().any(|key| wanted.trim_start().starts_with(key));
    let name = TableName { schema, name };
    match about {
        STATISTICS => Some(Wanted::Statistics(name)),
        _ => (about == INDEX || (about == CONSTRAINT && has_index)).then_some(Wanted::Relation(name)),
    }
}

fn question(statement: &str) -> Option<Question> {
    let ask = |sql, (schema, table): (String, String), name: String, wanted: &str| {
        Some(Question { sql, schema, table, name, wanted: wanted.to_owned() })
    };
    let nowhere = || (String::new(), String::new());
    if let Some(altered) = statement.strip_prefix("ALTER ") {
        let kinds = ["TABLE ONLY ", "TABLE ", "FOREIGN TABLE ONLY ", "FOREIGN TABLE ", "DOMAIN "];
        let (table, rest) = qualified(kinds.iter().find_map(|kind| altered.strip_prefix(kind))?)?;
        let (name, definition) = identifier(rest.trim_start().strip_prefix("ADD CONSTRAINT ")?)?;
        return ask(CONSTRAINT, (table.schema, table.name), name, definition);
    }
    let created = statement.strip_prefix("CREATE ")?;
    if let Some(rest) = ["INDEX ", "UNIQUE INDEX "].iter().find_map(|kind| created.strip_prefix(kind)) {
        let (name, rest) = identifier(rest)?;
        let rest = rest.strip_prefix(" ON ")?;
        let (table, _) = qualified(rest.strip_prefix("ONLY ").unwrap_or(rest))?;
        return ask(INDEX, (table.schema, table.name), name, statement);
    }
    if let Some(rest) = created.strip_prefix("POLICY ") {
        let (name, rest) = identifier(rest)?;
        let (table, _) = qualified(rest.strip_prefix(" ON ")?)?;
        return ask(POLICY, (table.schema, table.name), name, statement);
    }
    if let Some(rest) = created.strip_prefix("STATISTICS ") {
        let (object, _) = qualified(rest)?;
        return ask(STATISTICS, (object.schema, String::new()), object.name, statement);
    }
    let named =
        [("TRIGGER ", TRIGGER), ("CONSTRAINT TRIGGER ", TRIGGER), ("RULE ", RULE), ("EVENT TRIGGER ", EVENT_TRIGGER)];
    let (rest, sql) = named.iter().find_map(|(kind, sql)| Some((created.strip_prefix(kind)?, *sql)))?;
    ask(sql, nowhere(), identifier(rest)?.0, statement)
}

/// Without what is no difference: space, ONLY, NOT VALID, how a function is
/// called before 11, and storage parameters of a key, which the server leaves out.
fn normal(definition: &str) -> String {
    let words: Vec<&str> = definition.split_whitespace().collect();
    let mut text =
        words.join(" ").replace(" EXECUTE PROCEDURE ", " EXECUTE FUNCTION ").replacen(" ON ONLY ", " ON ", 1);
    text.truncate(text.trim_end_matches(';').len());
    if let Some(valid) = text.strip_suffix(" NOT VALID") {
        text.truncate(valid.len());
    }
    let is_key = ["PRIMARY KEY ", "UNIQUE "].iter().any(|key| text.starts_with(key));
    if let Some(at) = text.find(" WITH (").filter(|_| is_key) {
        let length = text.get(at..).and_then(|rest| rest.find(')')).map_or(0, |end| end + 1);
        text.replace_range(at..at + length, "");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_difference_is_left_out_and_everything_else_stays() {
        assert_eq!(normal("PRIMARY KEY (a)\n   WITH (fillfactor='50') DEFERRABLE;"), "PRIMARY KEY (a) DEFERRABLE");
        assert_eq!(normal(" CHECK ((a > 0)) NOT VALID"), "CHECK ((a > 0))");
        assert_eq!(normal("CREATE INDEX i ON ONLY a.b USING btree (c)"), "CREATE INDEX i ON a.b USING btree (c)");
        assert_ne!(normal("UNIQUE (a)"), normal("UNIQUE (b)"));
    }

    #[test]
    fn names_are_read_from_statements_of_every_kind() {
        for (statement, schema, table, name) in [
            ("ALTER TABLE ONLY s.\"T.\"\n    ADD CONSTRAINT \"k k\" PRIMARY KEY (id)", "s", "T.", "k k"),
            ("ALTER DOMAIN s.d\n    ADD CONSTRAINT k CHECK (true) NOT VALID", "s", "d", "k"),
            ("CREATE UNIQUE INDEX i ON ONLY s.t USING btree (a)", "s", "t", "i"),
            ("CREATE POLICY p ON s.t USING (true)", "s", "t", "p"),
            ("CREATE STATISTICS s.x (mcv) ON a, b FROM s.t", "s", "", "x"),
            ("CREATE CONSTRAINT TRIGGER g AFTER INSERT ON s.t", "", "", "g"),
            ("CREATE EVENT TRIGGER e ON ddl_command_end", "", "", "e"),
        ] {
            let question = question(statement).expect("it is understood");
            assert_eq!(
                (question.schema.as_str(), question.table.as_str(), question.name.as_str()),
                (schema, table, name)
            );
        }
        assert!(question("COMMENT ON TABLE s.t IS 'CREATE INDEX'").is_none());
    }
}
