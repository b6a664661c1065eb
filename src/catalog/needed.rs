//! What a column cannot be without, as SQL that creates it: the types and functions of
//! its type and of its default, and the sequences that the default calls.
//!
//! Invariant: what another one needs comes before it, each once, and only what the target
//! lacks by its name; each statement is one line. The column's own sequence (OWNED BY) is
//! not among them: that comes with the column ([`super::added`]).
//!
//! Source: `pg_depend` (`recordDependencyOnExpr`, `GenerateTypeDependencies`); what is
//! built in is not in it. Operators, collations and objects for text search are left out.

use super::sequences;
use super::types::DEFINITION;
use crate::session::{DbContext, DbError, Row, Session};
use crate::sql::{TableName, ident};

/// What a column of the table `$1`, of the number `$2`, needs, the deepest first: its
/// class, oid and the highest depth. A table's row type is the table's, and of a base
/// type nothing is followed, as its functions need it themselves.
const NEEDS: &str = "\
    WITH RECURSIVE needs (classid, objid, depth) AS ( \
        SELECT d.refclassid, d.refobjid, 1 FROM pg_catalog.pg_depend d \
        WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = $1 AND d.objsubid = $2 \
            OR d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass \
                AND d.objid = (SELECT oid FROM pg_catalog.pg_attrdef WHERE adrelid = $1 AND adnum = $2) \
        UNION ALL \
        SELECT d.refclassid, d.refobjid, needs.depth + 1 FROM needs CROSS JOIN LATERAL ( \
            SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_depend d \
                LEFT JOIN pg_catalog.pg_type t ON t.oid = d.objid AND d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass \
                WHERE d.classid = needs.classid AND d.objid = needs.objid \
                    AND (d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass OR t.typtype <> 'b' OR t.typelem <> 0) \
            UNION ALL \
            SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_type t JOIN pg_catalog.pg_depend d \
                ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = t.typrelid AND d.objsubid > 0 \
                WHERE needs.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = needs.objid AND t.typtype = 'c' \
            UNION ALL \
            SELECT d.refclassid, d.refobjid FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_depend d \
                ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND d.objid = k.oid \
                WHERE needs.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND k.contypid = needs.objid AND k.contypid <> 0 \
        ) AS d WHERE needs.depth < 9 AND d.refobjid <> needs.objid \
            AND needs.classid IN ('pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass) \
            AND d.refclassid IN ('pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass) \
    ), of_all (classid, objid, depth) AS (SELECT classid, objid, max(depth) FROM needs GROUP BY classid, objid), \
    extension (classid, objid, name) AS (SELECT d.classid, d.objid, e.extname::text FROM pg_catalog.pg_depend d \
        JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid WHERE d.deptype = 'e' \
            AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass) ";

/// The types among them: how each is made, where that can be said in one statement.
const TYPES: &str = "\
    SELECT 'type', t.oid, n.nspname::text, t.typname::text, x.name, o.depth, DEFINITION \
        FROM of_all o JOIN pg_catalog.pg_type t ON o.classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND t.oid = o.objid \
        JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
        LEFT JOIN extension x ON x.classid = o.classid AND x.objid = o.objid \
        WHERE t.typtype NOT IN ('c', 'm') AND (t.typelem = 0 OR t.typlen <> -1) \
            OR t.typtype = 'c' AND (SELECT r.relkind FROM pg_catalog.pg_class r WHERE r.oid = t.typrelid) = 'c'";

/// The functions.
const FUNCTIONS: &str = "\
    SELECT 'function', p.oid, n.nspname::text, p.oid::pg_catalog.regprocedure::text, x.name, o.depth, pg_catalog.pg_get_functiondef(p.oid) \
        FROM of_all o JOIN pg_catalog.pg_proc p ON o.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND p.oid = o.objid \
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace LEFT JOIN extension x ON x.classid = o.classid AND x.objid = o.objid \
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_aggregate g WHERE g.aggfnoid = p.oid)";

/// The sequences that are not the column's own.
const SEQUENCES: &str = "\
    SELECT 'sequence', c.oid, n.nspname::text, c.relname::text, x.name, o.depth, NULL \
        FROM of_all o JOIN pg_catalog.pg_class c ON o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = o.objid AND c.relkind = 'S' \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace LEFT JOIN extension x ON x.classid = o.classid AND x.objid = o.objid \
        WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = o.classid AND d.objid = o.objid AND d.deptype IN ('a', 'i') \
            AND d.refclassid = o.classid AND d.refobjid = $1 AND d.refobjsubid = $2)";

/// Which of these (what it is, schema, name) are not there, and which of the schemas.
const LACKS: &str = "\
    SELECT asked.place, NOT EXISTS (SELECT FROM pg_catalog.pg_namespace n WHERE n.nspname = asked.schema) \
    FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS asked (what, schema, name, place) WHERE NOT CASE asked.what \
        WHEN 'type' THEN EXISTS (SELECT FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
            WHERE n.nspname = asked.schema AND t.typname = asked.name) \
        WHEN 'function' THEN EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
            WHERE n.nspname = asked.schema AND p.oid::pg_catalog.regprocedure::text = asked.name) \
        ELSE EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
            WHERE n.nspname = asked.schema AND c.relname = asked.name) END \
    ORDER BY asked.place";

/// One thing that a column needs.
struct Needed {
    what: String,
    oid: u32,
    schema: String,
    name: String,
    extension: Option<String>,
    /// How the catalog says that it is made.
    definition: Option<String>,
}

/// The statements that create what the column of this number, of the source's table with
/// this oid, needs and the target lacks.
///
/// # Errors
/// When a catalog cannot be read.
pub async fn needed_sql(
    (source, target): (&Session, &Session),
    (oid, number): (u32, i16),
) -> Result<Vec<String>, DbError> {
    let types = TYPES.replace("DEFINITION", DEFINITION);
    let sql = format!("{NEEDS} {types} UNION ALL {FUNCTIONS} UNION ALL {SEQUENCES} ORDER BY 6 DESC, 1 DESC, 2");
    let rows = source.query(&sql, &[&oid, &number]).await;
    let rows = rows.during(source.side(), "look at what a column needs")?;
    let needed = rows.iter().map(Needed::of).collect::<Result<Vec<_>, DbError>>()?;
    if needed.is_empty() {
        return Ok(Vec::new());
    }
    let texts = |text: fn(&Needed) -> &String| needed.iter().map(|one| text(one).clone()).collect::<Vec<String>>();
    let (what, schemas, names) = (texts(|one| &one.what), texts(|one| &one.schema), texts(|one| &one.name));
    let lacks = target.query(LACKS, &[&what, &schemas, &names]).await;
    let mut statements: Vec<String> = Vec::new();
    let mut add = |sql: String| (!statements.contains(&sql)).then(|| statements.push(sql));
    for row in lacks.during(target.side(), "look for what a column needs")? {
        let place = usize::try_from(row.take::<i64>(0)? - 1).unwrap_or(usize::MAX);
        let Some(one) = needed.get(place) else { continue };
        if row.take(1)? {
            add(format!("CREATE SCHEMA IF NOT EXISTS {};", ident(&one.schema)));
        }
        add(one.sql(source).await?);
    }
    Ok(statements)
}

impl Needed {
    fn of(row: &Row) -> Result<Self, DbError> {
        Ok(Needed {
            what: row.take(0)?,
            oid: row.take(1)?,
            schema: row.take(2)?,
            name: row.take(3)?,
            extension: row.take(4)?,
            definition: row.take(6)?,
        })
    }

    async fn sql(&self, source: &Session) -> Result<String, DbError> {
        let (name, what) = (TableName::new(&self.schema, &self.name), &self.what);
        if let Some(extension) = &self.extension {
            return Ok(format!("CREATE EXTENSION IF NOT EXISTS {};", ident(extension)));
        }
        Ok(match (what.as_str(), &self.definition) {
            ("function", Some(definition)) => function_sql(definition),
            ("sequence", _) => match sequences::definition(source, self.oid).await? {
                Some(definition) => format!("CREATE SEQUENCE IF NOT EXISTS {} {};", name.sql(), definition.sql()),
                None => String::new(),
            },
            (_, Some(definition)) => definition.clone(),
            // A range or a base type.
            (_, None) => format!("(create there first, as it is on the source: {what} {name})"),
        })
    }
}

/// A function's definition (`pg_get_functiondef`) as one line: its text may have comments
/// to the line's end.
fn function_sql(definition: &str) -> String {
    let in_line = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let definition = definition.trim_end().replacen("CREATE OR REPLACE ", "CREATE ", 1);
    let text = definition.split_once("\nAS $").and_then(|(head, rest)| {
        let (tag, text) = rest.split_once('$')?;
        Some((head, text.strip_suffix(&format!("${tag}$"))?))
    });
    match text {
        Some((head, text)) => {
            let text = text.replace('\\', "\\\\").replace('\'', "''").replace('\n', "\\n").replace('\r', "\\r");
            format!("{} AS E'{text}';", in_line(head))
        }
        None => format!("{};", in_line(&definition)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_one_line_whatever_its_text_has() {
        let definition = "CREATE OR REPLACE FUNCTION s.f(a integer)\n RETURNS integer\n LANGUAGE sql\nAS $function$SELECT -- it's\n\\$$1$$$function$\n";
        assert_eq!(
            function_sql(definition),
            r"CREATE FUNCTION s.f(a integer) RETURNS integer LANGUAGE sql AS E'SELECT -- it''s\n\\$$1$$';"
        );
        let atomic = "CREATE OR REPLACE FUNCTION s.f()\n RETURNS integer\n LANGUAGE sql\nRETURN 1\n";
        assert_eq!(function_sql(atomic), "CREATE FUNCTION s.f() RETURNS integer LANGUAGE sql RETURN 1;");
        let of_c =
            "CREATE OR REPLACE FUNCTION s.f()\n RETURNS integer\n LANGUAGE c\nAS '$libdir/x', $function$f$function$\n";
        assert!(function_sql(of_c).ends_with("LANGUAGE c AS '$libdir/x', $function$f$function$;"));
    }
}
