//! Whether the schema `walferry` is ours alone: whoever can write into it moves the position
//! of a stream, and whoever can hang something on its tables acts with the rights of the
//! role that walferry has.
//!
//! Invariant: it is asked before anything of the schema is read, by every handle on the
//! state, and by `check` as by all others. Nothing of what counts as a stranger's runs while
//! it is asked: the catalogs are read, and no name of the schema is.
//!
//! | of the schema and its tables | is ours when |
//! |---|---|
//! | owner | it is our role, or one that may act as it anyway (a superuser, a member) |
//! | CREATE on the schema; INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER | only such roles have it |
//! | kind | all are plain tables, that nothing inherits from and that inherit from nothing |
//! | triggers | their functions are such a role's (not one that came with the server, which anybody could take); those of foreign keys are the server's |
//! | rules, policies in force | there is none |
//! | defaults, CHECKs, types, indexes | they are as a state of any version has them, and call nothing |
//!
//! A role whose member we are is not one that may act as us: its other members would.
//!
//! Source: `src/state/schema.sql` and the upgrades; `aclexplode` in
//! `src/backend/utils/adt/acl.c`.

use super::{State, StateError, TABLES};
use crate::config::Side;
use crate::session::{DbContext, DbError, Session};

/// Something about the schema that is not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strange {
    /// What it is: "walferry.position has a trigger of others, moved".
    pub what: String,
    /// What takes it away.
    pub sql: String,
}

/// Both what may be granted away by others' default privileges and what is taken back then.
const GRANT: &str = "grant";

/// Each as kind, description and remedy. `us` is our role, `own` the state's tables.
const STRANGE: &str = r"
WITH us AS (SELECT oid, rolname FROM pg_catalog.pg_roles WHERE rolname = current_user),
home AS (SELECT oid, nspowner, nspacl FROM pg_catalog.pg_namespace WHERE nspname = 'walferry'),
own AS (SELECT c.oid, 'walferry.' || c.relname AS name, c.relkind, c.relowner, c.relacl, c.relrowsecurity
    FROM pg_catalog.pg_class c JOIN home ON home.oid = c.relnamespace WHERE c.relname = ANY ($1::text[])),
granted AS (
    SELECT 'SCHEMA walferry' AS object, acl.* FROM home, us,
        pg_catalog.aclexplode(home.nspacl) acl WHERE acl.grantee <> home.nspowner AND acl.privilege_type = 'CREATE'
    UNION ALL SELECT 'TABLE ' || own.name, acl.* FROM own, pg_catalog.aclexplode(own.relacl) acl
        WHERE acl.grantee <> own.relowner AND acl.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER')
    UNION ALL SELECT pg_catalog.format('(%I) ON TABLE %s', a.attname, own.name), acl.* FROM own
        JOIN pg_catalog.pg_attribute a ON a.attrelid = own.oid, pg_catalog.aclexplode(a.attacl) acl
        WHERE acl.grantee <> own.relowner AND acl.privilege_type IN ('INSERT', 'UPDATE')),
found (kind, what, sql) AS (
SELECT 'owner', pg_catalog.format('the schema walferry belongs to role %I (run walferry as that role if that made it, and is yours)', r.rolname),
    '-- if that is not yours: ALTER SCHEMA walferry RENAME TO walferry_of_another_role;'
    FROM home JOIN pg_catalog.pg_roles r ON r.oid = home.nspowner, us WHERE NOT pg_catalog.pg_has_role(home.nspowner, us.oid, 'MEMBER')
UNION ALL SELECT 'owner', pg_catalog.format('%s belongs to role %I', own.name, r.rolname),
    pg_catalog.format('ALTER TABLE %s OWNER TO %I;', own.name, us.rolname)
    FROM own JOIN pg_catalog.pg_roles r ON r.oid = own.relowner, us WHERE NOT pg_catalog.pg_has_role(own.relowner, us.oid, 'MEMBER')
UNION ALL SELECT 'kind', own.name || ' is no plain table', 'ALTER SCHEMA walferry RENAME TO walferry_of_another_role;'
    FROM own WHERE own.relkind <> 'r'
UNION ALL SELECT 'grant', pg_catalog.format('%s may %s on %s', CASE g.grantee WHEN 0 THEN 'everybody' ELSE 'role ' || pg_catalog.quote_ident(r.rolname) END,
        g.privilege_type, pg_catalog.lower(g.object)),
    pg_catalog.format('REVOKE %s %s FROM %s;', g.privilege_type, CASE WHEN g.object LIKE '(%' THEN g.object ELSE 'ON ' || g.object END,
        CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END)
    FROM granted g LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee, us
    WHERE CASE g.grantee WHEN 0 THEN true ELSE NOT pg_catalog.pg_has_role(g.grantee, us.oid, 'MEMBER') END
UNION ALL SELECT 'trigger', pg_catalog.format('%s has the trigger %I', own.name, t.tgname), pg_catalog.format('DROP TRIGGER %I ON %s;', t.tgname, own.name)
    FROM own JOIN pg_catalog.pg_trigger t ON t.tgrelid = own.oid JOIN pg_catalog.pg_proc f ON f.oid = t.tgfoid, us
    WHERE NOT t.tgisinternal AND (f.oid < 16384 OR NOT pg_catalog.pg_has_role(f.proowner, us.oid, 'MEMBER'))
UNION ALL SELECT 'rule', pg_catalog.format('%s has the rule %I', own.name, w.rulename), pg_catalog.format('DROP RULE %I ON %s;', w.rulename, own.name)
    FROM own JOIN pg_catalog.pg_rewrite w ON w.ev_class = own.oid WHERE own.relkind = 'r'
UNION ALL SELECT 'policy', own.name || ' has row level security', pg_catalog.format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY;', own.name)
    FROM own WHERE own.relrowsecurity
UNION ALL SELECT 'heir', pg_catalog.format('%s inherits from %s', i.inhrelid::pg_catalog.regclass, i.inhparent::pg_catalog.regclass),
    pg_catalog.format('ALTER TABLE %s NO INHERIT %s;', i.inhrelid::pg_catalog.regclass, i.inhparent::pg_catalog.regclass)
    FROM pg_catalog.pg_inherits i JOIN own ON own.oid IN (i.inhrelid, i.inhparent) WHERE own.relkind = 'r'
UNION ALL SELECT 'default', pg_catalog.format('column %I of %s is %s', a.attname, own.name, pg_catalog.pg_get_expr(d.adbin, d.adrelid)),
    pg_catalog.format('ALTER TABLE %s ALTER COLUMN %I %s;', own.name, a.attname, CASE a.atttypid::pg_catalog.regtype::text
        WHEN 'boolean' THEN 'SET DEFAULT false' WHEN 'bigint' THEN 'SET DEFAULT 0' WHEN 'timestamp with time zone' THEN 'SET DEFAULT clock_timestamp()'
        WHEN 'text[]' THEN 'SET DEFAULT ''{}''' WHEN 'oid[]' THEN 'SET DEFAULT ''{}''' ELSE 'DROP DEFAULT' END)
    FROM own JOIN pg_catalog.pg_attrdef d ON d.adrelid = own.oid JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    WHERE pg_catalog.pg_get_expr(d.adbin, d.adrelid) <> ALL (ARRAY['0', 'false', 'now()', 'clock_timestamp()', '''{}''::text[]', '''{}''::oid[]'])
UNION ALL SELECT 'check', pg_catalog.format('%s has the constraint %I', own.name, k.conname), pg_catalog.format('ALTER TABLE %s DROP CONSTRAINT %I;', own.name, k.conname)
    FROM own JOIN pg_catalog.pg_constraint k ON k.conrelid = own.oid
    WHERE k.contype = 'x' OR k.contype = 'c'
        AND pg_catalog.pg_get_constraintdef(k.oid) !~ '^CHECK \(\([a-z]+ = (ANY \(ARRAY\[)?(''[a-z ]+''::text(, )?)+(\]\))?\)\)$'
UNION ALL SELECT 'type', pg_catalog.format('column %I of %s is of the type %s', a.attname, own.name, a.atttypid::pg_catalog.regtype),
    'ALTER SCHEMA walferry RENAME TO walferry_of_another_role;'
    FROM own JOIN pg_catalog.pg_attribute a ON a.attrelid = own.oid JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE NOT a.attisdropped AND t.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace
UNION ALL SELECT 'index', pg_catalog.format('%s has the index %s', own.name, i.indexrelid::pg_catalog.regclass), pg_catalog.format('DROP INDEX %s;', i.indexrelid::pg_catalog.regclass)
    FROM own JOIN pg_catalog.pg_index i ON i.indrelid = own.oid WHERE i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
SELECT kind, what, sql FROM found ORDER BY kind, what, sql";

async fn find(session: &Session) -> Result<Vec<(String, Strange)>, DbError> {
    let rows = session.query(STRANGE, &[&TABLES.as_slice()]).await;
    let rows = rows.during(Side::Target, "look whose the state schema is")?;
    rows.iter().map(|row| Ok((row.take(0)?, Strange { what: row.take(1)?, sql: row.take(2)? }))).collect()
}

impl State {
    /// What others can act through in the schema; nothing where there is no schema.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub async fn strange(session: &Session) -> Result<Vec<Strange>, DbError> {
        Ok(find(session).await?.into_iter().map(|(_, strange)| strange).collect())
    }

    /// Refuses a schema that others can act through.
    ///
    /// # Errors
    /// [`StateError::Strange`]; when the catalog cannot be read.
    pub(crate) async fn require_own(session: &Session) -> Result<(), StateError> {
        let strange = Self::strange(session).await?;
        if strange.is_empty() { Ok(()) } else { Err(StateError::Strange(strange)) }
    }

    /// What the role's default privileges have given to others of the schema that this
    /// transaction has created is taken back.
    ///
    /// # Errors
    /// When the target refuses it.
    pub(super) async fn take_grants_back(session: &Session) -> Result<(), DbError> {
        let granted = find(session).await?.into_iter().filter(|(kind, _)| kind == GRANT);
        let sql: Vec<String> = granted.map(|(_, strange)| strange.sql).collect();
        session.batch_execute(&sql.join(" ")).await.during(Side::Target, "keep the state schema to ourselves")
    }
}

/// For people: each with the SQL that takes it away.
pub(super) fn listed(strange: &[Strange]) -> String {
    let lines = strange.iter().map(|Strange { what, sql }| format!("{what}: {sql}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::testing::{Pair, SUPERUSER, TARGET_OWNER};

    const STRANGERS: &str = "DO $$ BEGIN CREATE ROLE mallory; EXCEPTION WHEN duplicate_object THEN NULL; END $$; \
        CREATE FUNCTION public.at() RETURNS timestamptz LANGUAGE sql AS 'SELECT now()'; \
        CREATE FUNCTION public.is_it(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'; \
        CREATE FUNCTION public.acts() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
        ALTER FUNCTION public.acts() OWNER TO mallory; \
        CREATE FUNCTION public.tells() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; \
        CREATE TRIGGER tells AFTER UPDATE ON walferry.position FOR EACH ROW EXECUTE FUNCTION public.tells(); \
        CREATE DOMAIN public.words AS text CHECK (public.is_it(VALUE)); \
        CREATE TABLE public.above (migration text); \
        GRANT USAGE ON SCHEMA walferry TO PUBLIC; GRANT SELECT ON ALL TABLES IN SCHEMA walferry TO PUBLIC; \
        GRANT ALL ON ALL TABLES IN SCHEMA walferry TO postgres; CREATE VIEW public.progress AS SELECT * FROM walferry.tables";

    /// What others do, what is said of it, and what undoes what the printed SQL has done beyond that.
    const DONE: [(&str, &str, &str); 19] = [
        (
            "CREATE TRIGGER moves BEFORE UPDATE ON walferry.position FOR EACH ROW EXECUTE FUNCTION public.acts()",
            "walferry.position has the trigger moves",
            "",
        ),
        (
            "CREATE TRIGGER keeps BEFORE UPDATE ON walferry.position FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "walferry.position has the trigger keeps",
            "",
        ),
        (
            "CREATE RULE \"also so\" AS ON INSERT TO walferry.journal DO ALSO NOTHING",
            "walferry.journal has the rule \"also so\"",
            "",
        ),
        ("ALTER TABLE walferry.position ENABLE ROW LEVEL SECURITY", "walferry.position has row level security", ""),
        ("CREATE TABLE public.below () INHERITS (walferry.position)", "public.below inherits from walferry.", ""),
        ("ALTER TABLE walferry.control INHERIT public.above", "walferry.control inherits from public.above", ""),
        (
            "ALTER TABLE walferry.position ALTER moved_at SET DEFAULT public.at()",
            "column moved_at of walferry.position is public.at()",
            "",
        ),
        (
            "ALTER TABLE walferry.journal ALTER what SET DEFAULT query_to_xml('SELECT 1', true, true, '')::text",
            "column what of walferry.journal is ",
            "",
        ),
        (
            "ALTER TABLE walferry.migration ALTER phase SET DEFAULT public.at()::text",
            "column phase of walferry.migration is",
            "",
        ),
        (
            "ALTER TABLE walferry.position ADD CONSTRAINT asks CHECK (public.is_it(slot))",
            "walferry.position has the constraint asks",
            "",
        ),
        (
            "CREATE INDEX asks ON walferry.position (slot) WHERE public.is_it(slot)",
            "walferry.position has the index walferry.asks",
            "",
        ),
        ("ALTER TABLE walferry.position OWNER TO mallory", "walferry.position belongs to role mallory", ""),
        ("GRANT INSERT ON walferry.journal TO PUBLIC", "everybody may INSERT on table walferry.journal", ""),
        ("GRANT TRIGGER ON walferry.position TO mallory", "role mallory may TRIGGER on table walferry.position", ""),
        (
            "GRANT UPDATE (end_lsn) ON walferry.position TO mallory",
            "role mallory may UPDATE on (end_lsn) on table walferry.position",
            "",
        ),
        ("GRANT CREATE ON SCHEMA walferry TO mallory", "role mallory may CREATE on schema walferry", ""),
        (
            "ALTER TABLE walferry.journal ALTER what TYPE public.words",
            "column what of walferry.journal is of the type public.words",
            "ALTER TABLE walferry.journal ALTER what TYPE text",
        ),
        (
            "ALTER TABLE walferry.journal RENAME TO kept; CREATE VIEW walferry.journal AS SELECT * FROM walferry.kept; ALTER VIEW walferry.journal OWNER TO target_owner",
            "walferry.journal is no plain table",
            "DROP VIEW walferry.journal; ALTER TABLE walferry.kept RENAME TO journal",
        ),
        (
            "ALTER SCHEMA walferry OWNER TO mallory",
            "the schema walferry belongs to role mallory",
            "ALTER SCHEMA walferry OWNER TO target_owner",
        ),
    ];

    /// The story: a schema that another role had made, with a trigger on its tables, ran that
    /// trigger with walferry's rights.
    #[tokio::test]
    async fn a_schema_that_others_have_a_hand_in_is_refused_until_what_is_printed_is_run() {
        let pair = Pair::new().await;
        drop(pair.state().await);
        let admin = pair.target(SUPERUSER).await;
        admin.batch_execute(STRANGERS).await.unwrap();
        let open = async || State::open(pair.target(TARGET_OWNER).await, "walferry").await;
        open().await.unwrap();
        for (done, said, undo) in DONE {
            admin.batch_execute(done).await.unwrap_or_else(|error| panic!("{error:?} in {done}"));
            let Err(refused @ StateError::Strange(_)) = open().await else { panic!("not refused: {done}") };
            let words = refused.to_string();
            assert!(words.contains(said), "{words}");
            let StateError::Strange(found) = refused else { panic!("{words}") };
            let [Strange { sql, .. }] = found.as_slice() else { panic!("more than one: {words}") };
            let sql = sql.trim_start_matches("-- if that is not yours: ");
            admin.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
            if sql.starts_with("ALTER SCHEMA") {
                assert!(matches!(open().await, Err(StateError::NoMigration(_))));
                let back = format!("ALTER SCHEMA walferry_of_another_role RENAME TO walferry; {undo}");
                admin.batch_execute(&back).await.unwrap();
            }
            open().await.unwrap_or_else(|error| panic!("{error} after {sql}"));
        }
    }

    /// Other members of a role whose member we are do not have our rights; members of ours do.
    #[tokio::test]
    async fn an_owner_is_trusted_if_it_may_act_as_our_role_and_not_if_our_role_may_act_as_it() {
        let pair = Pair::new().await;
        drop(pair.state().await);
        let admin = pair.target(SUPERUSER).await;
        let roles = ["group", "acting"].map(|role| format!("{role}_of_{}", std::process::id()));
        let [group, acting] = &roles;
        let made =
            format!("CREATE ROLE {group}; GRANT {group} TO target_owner; CREATE ROLE {acting} IN ROLE target_owner");
        admin.batch_execute(&made).await.unwrap();
        for (owner, is_trusted) in [(group.as_str(), false), (acting, true), (SUPERUSER, true), (TARGET_OWNER, true)] {
            let sql = format!("ALTER SCHEMA walferry OWNER TO {owner}; GRANT ALL ON SCHEMA walferry TO target_owner");
            admin.batch_execute(&sql).await.unwrap();
            let opened = State::open(pair.target(TARGET_OWNER).await, "walferry").await;
            assert_eq!(opened.is_ok(), is_trusted, "{owner}");
        }
        let refused = State::open(pair.target(SUPERUSER).await, "walferry").await;
        let Err(refused @ StateError::Strange(_)) = refused else {
            panic!("a superuser ran what an ordinary role owns")
        };
        assert!(refused.to_string().contains("belongs to role target_owner"), "{refused}");
        admin
            .batch_execute(&format!(
                "REVOKE ALL ON SCHEMA walferry FROM {group}, {acting}; DROP ROLE {group}, {acting}"
            ))
            .await
            .unwrap();
    }

    /// The story: default privileges of the role gave the new tables to everybody, and the
    /// next start would have refused its own state.
    #[tokio::test]
    async fn what_default_privileges_give_away_of_a_new_schema_is_taken_back() {
        let pair = Pair::new().await;
        let admin = pair.target(SUPERUSER).await;
        let of = "ALTER DEFAULT PRIVILEGES FOR ROLE target_owner GRANT ALL ON";
        admin.batch_execute(&format!("{of} TABLES TO PUBLIC; {of} SCHEMAS TO PUBLIC")).await.unwrap();
        let state = State::install(pair.target(TARGET_OWNER).await, "walferry").await.unwrap();
        assert_eq!(State::strange(state.session()).await.unwrap(), []);
        State::open(pair.target(TARGET_OWNER).await, "walferry").await.unwrap();
    }
}
