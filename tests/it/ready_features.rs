//! What the random databases of `ready` are made of: pieces of SQL, each by itself,
//! with `#` for a number of its own.

/// A piece of a source that a migration carries. The first word of each is a table
/// that is written to later, by `INSERT INTO … SELECT`; `-` where there is none.
pub const SOURCE: [(&str, &str); 44] = [
    (
        "s#.\"T \"\"#\"\" é\"",
        "CREATE SCHEMA s#; CREATE TABLE s#.\"T \"\"#\"\" é\" (\"I d\" int PRIMARY KEY, \"select\" text DEFAULT 'a''b\\c')",
    ),
    (
        "public.wide#",
        "CREATE TABLE public.wide# (id int PRIMARY KEY, a numeric(9,3) DEFAULT 1.5, b timestamptz DEFAULT now(), c interval DEFAULT '1 day 2:03', d bytea DEFAULT '\\x00ff', e float8 DEFAULT 0.1, f jsonb DEFAULT '{\"a\": null}', g int[] DEFAULT '{1,NULL}', h xml DEFAULT '<a/>')",
    ),
    (
        "public.root#",
        "CREATE TABLE public.root# (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE public.root#_1 PARTITION OF public.root# FOR VALUES FROM (0) TO (50); CREATE TABLE public.root#_2 PARTITION OF public.root# FOR VALUES FROM (50) TO (99999) PARTITION BY HASH (id); CREATE TABLE public.root#_2a PARTITION OF public.root#_2 FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    ),
    (
        "public.listed#",
        "CREATE TABLE public.listed# (id int, k text DEFAULT 'x', PRIMARY KEY (id, k)) PARTITION BY LIST (k); CREATE TABLE public.listed#_x PARTITION OF public.listed# FOR VALUES IN ('x'); CREATE TABLE public.listed#_d PARTITION OF public.listed# DEFAULT; CREATE INDEX ON public.listed# (k); CREATE INDEX only_root# ON ONLY public.listed# (id)",
    ),
    (
        "public.parent#",
        "CREATE TABLE public.parent# (id int PRIMARY KEY, v text); CREATE TABLE public.child# (more int DEFAULT 3, PRIMARY KEY (id)) INHERITS (public.parent#); INSERT INTO public.child# VALUES (1000)",
    ),
    (
        "public.kinds#",
        "CREATE TYPE public.mood# AS ENUM ('sad', 'o''k'); CREATE DOMAIN public.positive# AS int CHECK (VALUE > 0) DEFAULT 1; CREATE TYPE public.pair# AS (a int, b public.mood#); CREATE TABLE public.kinds# (id int PRIMARY KEY, m public.mood# DEFAULT 'sad', p public.positive#, q public.pair#, r public.mood#[])",
    ),
    (
        "public.ranged#",
        "CREATE TYPE public.span# AS RANGE (subtype = float8); CREATE TABLE public.ranged# (id int PRIMARY KEY, s public.span#, EXCLUDE USING gist (s WITH &&))",
    ),
    (
        "public.typed#",
        "CREATE TYPE public.row# AS (id int, v text); CREATE TABLE public.typed# OF public.row# (PRIMARY KEY (id))",
    ),
    (
        "public.by_row#",
        "CREATE TABLE public.by_row# (id int PRIMARY KEY, v text); CREATE FUNCTION public.name_of#(public.by_row#) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1.v'; CREATE FUNCTION public.all_of#() RETURNS SETOF public.by_row# LANGUAGE sql AS 'SELECT * FROM public.by_row#'; CREATE VIEW public.over_row# AS SELECT public.name_of#(b) FROM public.by_row# b",
    ),
    (
        "public.grouped#",
        "CREATE TABLE public.grouped# (id int PRIMARY KEY, v text); CREATE VIEW public.needs_key# AS SELECT id, v, count(*) FROM public.grouped# GROUP BY id; CREATE VIEW public.over_it# AS SELECT * FROM public.needs_key#; COMMENT ON VIEW public.over_it# IS 'x''y'",
    ),
    (
        "public.summed#",
        "CREATE TABLE public.summed# (id int PRIMARY KEY); CREATE MATERIALIZED VIEW public.sum# AS SELECT count(*) AS n FROM public.summed#; CREATE UNIQUE INDEX ON public.sum# (n); CREATE MATERIALIZED VIEW public.unfilled# AS SELECT n FROM public.sum# WITH NO DATA; CREATE MATERIALIZED VIEW public.again# AS SELECT n FROM public.sum#",
    ),
    (
        "public.ruled#",
        "CREATE TABLE public.ruled# (id int PRIMARY KEY); CREATE TABLE public.log# (id int PRIMARY KEY); CREATE RULE also# AS ON DELETE TO public.ruled# DO ALSO DELETE FROM public.log#; CREATE VIEW public.seen# AS SELECT id FROM public.ruled#; CREATE RULE put AS ON INSERT TO public.seen# DO INSTEAD INSERT INTO public.ruled# VALUES (NEW.id)",
    ),
    (
        "public.guarded#",
        "CREATE TABLE public.guarded# (id int PRIMARY KEY); ALTER TABLE public.guarded# ENABLE ROW LEVEL SECURITY; CREATE POLICY \"all #\" ON public.guarded# USING (id > 0) WITH CHECK (id > 0)",
    ),
    (
        "public.numbered#",
        "CREATE TABLE public.numbered# (id int PRIMARY KEY, a int GENERATED ALWAYS AS IDENTITY, b serial, c int GENERATED ALWAYS AS (id * 2) STORED); CREATE SEQUENCE public.alone# START 5 INCREMENT -1 MAXVALUE 5 MINVALUE -99; CREATE TABLE public.shares# (id int PRIMARY KEY DEFAULT nextval('public.numbered#_b_seq'))",
    ),
    (
        "public.fired#",
        "CREATE TABLE public.fired# (id int PRIMARY KEY, n int DEFAULT 0); CREATE FUNCTION public.fire#() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.n := NEW.n + 1; RETURN NEW; END$$; CREATE TRIGGER fire BEFORE INSERT OR UPDATE ON public.fired# FOR EACH ROW EXECUTE FUNCTION public.fire#(); CREATE CONSTRAINT TRIGGER later AFTER INSERT ON public.fired# DEFERRABLE FOR EACH ROW EXECUTE FUNCTION public.fire#(); ALTER TABLE public.fired# DISABLE TRIGGER later",
    ),
    (
        "public.referred#",
        "CREATE TABLE public.referred# (id int PRIMARY KEY, other int); CREATE TABLE public.refers# (id int PRIMARY KEY REFERENCES public.referred# ON DELETE CASCADE); ALTER TABLE public.referred# ADD FOREIGN KEY (other) REFERENCES public.refers# DEFERRABLE INITIALLY DEFERRED; ALTER TABLE public.referred# ADD CONSTRAINT self FOREIGN KEY (other) REFERENCES public.referred# NOT VALID",
    ),
    (
        "public.checked#",
        "CREATE TABLE public.checked# (id int PRIMARY KEY, v int CONSTRAINT small CHECK (v < 100)); INSERT INTO public.checked# VALUES (-1, 50); ALTER TABLE public.checked# ADD CONSTRAINT big CHECK (v > 60) NOT VALID",
    ),
    (
        "public.unique#",
        "CREATE TABLE public.unique# (id int PRIMARY KEY DEFERRABLE, a int UNIQUE DEFERRABLE INITIALLY DEFERRED, b text, UNIQUE (a, b) INCLUDE (id)); ALTER TABLE public.unique# REPLICA IDENTITY FULL",
    ),
    (
        "public.keyed#",
        "CREATE TABLE public.keyed# (id int NOT NULL, v text); CREATE UNIQUE INDEX identity# ON public.keyed# (id); ALTER TABLE public.keyed# REPLICA IDENTITY USING INDEX identity#; ALTER TABLE public.keyed# CLUSTER ON identity#",
    ),
    (
        "public.indexed#",
        "CREATE FUNCTION public.up#(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT upper($1)'; CREATE TABLE public.indexed# (id int PRIMARY KEY, v text, t tsvector) WITH (fillfactor = 70); CREATE INDEX ON public.indexed# (public.up#(v)) WHERE id > 3; CREATE INDEX ON public.indexed# USING gin (t); CREATE INDEX ON public.indexed# USING brin (id); CREATE STATISTICS public.stat# ON id, v FROM public.indexed#; ALTER TABLE public.indexed# ALTER v SET STATISTICS 50, ALTER v SET STORAGE EXTERNAL",
    ),
    (
        "public.keyless#",
        "CREATE TABLE public.keyless# (a int, b text); ALTER TABLE public.keyless# REPLICA IDENTITY FULL",
    ),
    ("-", "CREATE TABLE public.nothing# (); ALTER TABLE public.nothing# REPLICA IDENTITY FULL"),
    (
        "-",
        "CREATE UNLOGGED TABLE public.passing# (id int PRIMARY KEY); INSERT INTO public.passing# SELECT generate_series(1, 9)",
    ),
    (
        "public.columns#",
        "CREATE TABLE public.columns# (gone int, id int PRIMARY KEY, also_gone text); ALTER TABLE public.columns# DROP gone, DROP also_gone, ADD late int DEFAULT 7 NOT NULL",
    ),
    (
        "-",
        "CREATE FUNCTION public.add#(a int, b int DEFAULT 3, VARIADIC c int[] DEFAULT '{}') RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT a + b; END; CREATE PROCEDURE public.do#(INOUT a text) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$BEGIN a := ';'; END$$; CREATE AGGREGATE public.total#(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0')",
    ),
    (
        "-",
        "CREATE FUNCTION public.same#(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2'; CREATE OPERATOR public.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = public.same#)",
    ),
    (
        "public.collated#",
        "CREATE COLLATION public.plain# FROM \"C\"; CREATE TABLE public.collated# (id int PRIMARY KEY, v text COLLATE public.plain#); CREATE INDEX ON public.collated# (v COLLATE \"POSIX\")",
    ),
    (
        "-",
        "CREATE TEXT SEARCH CONFIGURATION public.words# (COPY = simple); CREATE TEXT SEARCH DICTIONARY public.dictionary# (TEMPLATE = simple)",
    ),
    ("-", "CREATE CONVERSION public.conversion# FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8"),
    ("-", "SELECT lo_from_bytea(#, 'large'), lo_from_bytea(1#, repeat('x', 5000)::bytea)"),
    (
        "-",
        "CREATE FUNCTION public.watch#() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; CREATE EVENT TRIGGER watch# ON sql_drop EXECUTE FUNCTION public.watch#(); COMMENT ON EVENT TRIGGER watch# IS 'w'",
    ),
    (
        "public.given#",
        "CREATE TABLE public.given# (id int PRIMARY KEY); GRANT SELECT ON public.given# TO PUBLIC; GRANT UPDATE (id) ON public.given# TO shared; CREATE SCHEMA given#; GRANT USAGE ON SCHEMA given# TO shared; ALTER DEFAULT PRIVILEGES IN SCHEMA given# GRANT SELECT ON TABLES TO shared",
    ),
    (
        "public.shared#",
        "CREATE TABLE public.shared# (id int PRIMARY KEY); ALTER TABLE public.shared# ENABLE ROW LEVEL SECURITY; CREATE POLICY theirs ON public.shared# TO shared USING (true)",
    ),
    (
        "public.bag#",
        "CREATE SCHEMA ext#; CREATE EXTENSION IF NOT EXISTS hstore SCHEMA ext#; DO $$BEGIN EXECUTE format('CREATE TABLE public.bag# (id int PRIMARY KEY, h %I.hstore)', (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'hstore')); END$$",
    ),
    ("-", "CREATE EXTENSION IF NOT EXISTS pg_trgm; COMMENT ON EXTENSION pg_trgm IS 'ours'"),
    (
        "public.\"#\"",
        "CREATE TABLE public.\"#\" (id int PRIMARY KEY); COMMENT ON TABLE public.\"#\" IS E'a\\nb -- ; $$'; COMMENT ON COLUMN public.\"#\".id IS ''; COMMENT ON SCHEMA public IS 'said'",
    ),
    (
        "public.domained#",
        "CREATE TYPE public.inner# AS (a int); CREATE DOMAIN public.outer# AS public.inner# CHECK ((VALUE).a > 0); CREATE DOMAIN public.late# AS int; CREATE TABLE public.domained# (id int PRIMARY KEY, o public.outer#, l public.late#); INSERT INTO public.domained# VALUES (-1, NULL, -5); ALTER DOMAIN public.late# ADD CONSTRAINT up CHECK (VALUE > 0) NOT VALID",
    ),
    (
        "public.partial#",
        "CREATE TABLE public.partial# (id int PRIMARY KEY); CREATE PUBLICATION theirs# FOR TABLE public.partial#",
    ),
    ("-", "CREATE PUBLICATION everything# FOR ALL TABLES WITH (publish = 'insert')"),
    (
        "public.cast#",
        "CREATE TYPE public.money# AS (cents int); CREATE FUNCTION public.cents#(public.money#) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1.cents'; CREATE CAST (public.money# AS int) WITH FUNCTION public.cents#(public.money#); CREATE TABLE public.cast# (id int PRIMARY KEY, m public.money#)",
    ),
    (
        "public.long#",
        "CREATE TABLE public.long# (id int PRIMARY KEY, \"a very long name of a column that goes to the limit of sixty-three\" text); CREATE INDEX \"a very long name of an index that goes to the very limit # sixty\" ON public.long# (id)",
    ),
    (
        "public.defaulted#",
        "CREATE FUNCTION public.next#() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 4; END'; CREATE TABLE public.defaulted# (id int PRIMARY KEY, n int DEFAULT public.next#(), CHECK (public.next#() > n - 100))",
    ),
    (
        "public.view_type#",
        "CREATE VIEW public.first# AS SELECT 1 AS a; CREATE TABLE public.view_type# (id int PRIMARY KEY, v public.first#); CREATE FUNCTION public.of_view#(public.first#) RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ),
    (
        "public.keyed_to#",
        "CREATE TABLE public.many# (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE public.many#_1 PARTITION OF public.many# FOR VALUES FROM (0) TO (9999); INSERT INTO public.many# SELECT generate_series(0, 300); CREATE TABLE public.keyed_to# (id int PRIMARY KEY REFERENCES public.many#)",
    ),
];

/// What stands in the way, or looks as if it did: SQL for the source's owner, the
/// target's role, and the target's superuser. `@` is the database.
pub const HOSTILE: [(&str, &str, &str); 43] = [
    ("CREATE TABLE public.bare# (a int)", "", ""),
    ("CREATE TABLE public.left# (id int PRIMARY KEY)", "CREATE TABLE public.left# (id int)", ""),
    ("CREATE TABLE public.left# (id int PRIMARY KEY)", "CREATE VIEW public.left# AS SELECT 1 AS a", ""),
    ("CREATE TABLE public.left# (id int PRIMARY KEY)", "CREATE TYPE public.left# AS ENUM ('a')", ""),
    ("CREATE TABLE public.left# (id int PRIMARY KEY)", "CREATE SEQUENCE public.left#_pkey", ""),
    (
        "CREATE TABLE public.left# (id int PRIMARY KEY, v text); CREATE INDEX index# ON public.left# (v)",
        "CREATE VIEW public.index# AS SELECT 1 AS a",
        "",
    ),
    ("CREATE TABLE public.left# (id serial PRIMARY KEY)", "CREATE SEQUENCE public.left#_id_seq", ""),
    (
        "CREATE FUNCTION public.left#(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION public.left#(int) RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "",
    ),
    (
        "CREATE FUNCTION public.left#(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION public.left#(text) RETURNS int LANGUAGE sql AS 'SELECT 2'",
        "",
    ),
    (
        "CREATE TYPE public.left# AS ENUM ('a'); CREATE TABLE public.uses# (id int PRIMARY KEY, m public.left#)",
        "CREATE DOMAIN public.left# AS text",
        "",
    ),
    ("CREATE TABLE public.left# (id int PRIMARY KEY)", "CREATE TABLE public.\"Left#\" (id int)", ""),
    ("CREATE STATISTICS public.st# ON relname, relkind FROM pg_class", "", ""),
    (
        "CREATE ROLE absent#; CREATE TABLE public.ruled# (id int PRIMARY KEY); CREATE POLICY p ON public.ruled# TO absent# USING (true)",
        "",
        "",
    ),
    (
        "CREATE ROLE absent#; CREATE TABLE public.owned# (id int PRIMARY KEY); ALTER TABLE public.owned# OWNER TO absent#; GRANT SELECT ON public.owned# TO absent#",
        "",
        "",
    ),
    ("CREATE FUNCTION public.native#(text) RETURNS text LANGUAGE internal IMMUTABLE STRICT AS 'lower'", "", ""),
    (
        "CREATE FUNCTION public.native#(text) RETURNS text LANGUAGE internal IMMUTABLE STRICT AS 'lower'; CREATE TABLE public.uses# (id int PRIMARY KEY, v text DEFAULT public.native#('X'))",
        "",
        "",
    ),
    (
        "CREATE FUNCTION public.native#(text) RETURNS text LANGUAGE internal IMMUTABLE STRICT AS 'lower'; COMMENT ON FUNCTION public.native#(text) IS 'l'",
        "",
        "CREATE FUNCTION public.native#(text) RETURNS text LANGUAGE internal IMMUTABLE STRICT AS 'lower'",
    ),
    (
        "CREATE TYPE public.base#; CREATE FUNCTION public.base#_in(cstring) RETURNS public.base# LANGUAGE internal IMMUTABLE STRICT AS 'textin'; CREATE FUNCTION public.base#_out(public.base#) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout'; CREATE TYPE public.base# (INPUT = public.base#_in, OUTPUT = public.base#_out, LIKE = text)",
        "",
        "",
    ),
    ("CREATE OPERATOR FAMILY public.family# USING btree", "", ""),
    (
        "CREATE FOREIGN DATA WRAPPER wrapper#; CREATE SERVER far# FOREIGN DATA WRAPPER wrapper#; CREATE FOREIGN TABLE public.far# (id int) SERVER far#",
        "",
        "",
    ),
    (
        "CREATE FOREIGN DATA WRAPPER wrapper#; CREATE SERVER far# FOREIGN DATA WRAPPER wrapper#; CREATE FOREIGN TABLE public.far# (id int) SERVER far#",
        "",
        "CREATE FOREIGN DATA WRAPPER wrapper#; GRANT USAGE ON FOREIGN DATA WRAPPER wrapper# TO doadmin",
    ),
    (
        "",
        "",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC; ALTER SCHEMA public OWNER TO postgres; REVOKE CREATE ON SCHEMA public FROM doadmin",
    ),
    ("CREATE SCHEMA s#; CREATE TABLE s#.t (id int PRIMARY KEY)", "", "CREATE SCHEMA s#"),
    ("CREATE SCHEMA s#; CREATE TABLE s#.t (id int PRIMARY KEY)", "CREATE SCHEMA s#", ""),
    ("", "", "DROP SCHEMA public"),
    ("", "", "CREATE SCHEMA walferry"),
    ("SELECT lo_from_bytea(77#, 'x')", "SELECT lo_from_bytea(77#, 'y')", ""),
    ("SELECT lo_from_bytea(77#, 'x')", "SELECT lo_from_bytea(78#, 'y')", ""),
    (
        "",
        "",
        "CREATE FUNCTION pg_catalog.stop#() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no tables here'; END$$; CREATE EVENT TRIGGER stop# ON ddl_command_start WHEN TAG IN ('CREATE INDEX', 'ALTER TABLE') EXECUTE FUNCTION pg_catalog.stop#()",
    ),
    ("CREATE EVENT TRIGGER stop# ON sql_drop EXECUTE FUNCTION public.seen#()", "", ""),
    (
        "CREATE SCHEMA other#; CREATE EXTENSION IF NOT EXISTS citext SCHEMA other#; CREATE TABLE public.cited# (id int PRIMARY KEY, v other#.citext)",
        "CREATE EXTENSION citext SCHEMA public",
        "",
    ),
    (
        "CREATE EXTENSION IF NOT EXISTS citext; CREATE TABLE public.cited# (id int PRIMARY KEY, v citext)",
        "CREATE EXTENSION citext SCHEMA public",
        "",
    ),
    ("", "", "ALTER DATABASE @ SET default_transaction_read_only = on"),
    ("", "", "ALTER ROLE doadmin IN DATABASE @ SET default_transaction_read_only = on"),
    (
        "",
        "",
        "ALTER DATABASE @ SET statement_timeout = 200; ALTER DATABASE @ SET lock_timeout = 200; ALTER DATABASE @ SET idle_in_transaction_session_timeout = 200",
    ),
    (
        "",
        "",
        "ALTER DATABASE @ SET search_path = nowhere; ALTER DATABASE @ SET row_security = off; ALTER DATABASE @ SET default_transaction_isolation = serializable",
    ),
    (
        "",
        "",
        "ALTER DATABASE @ SET standard_conforming_strings = off; ALTER DATABASE @ SET bytea_output = escape; ALTER DATABASE @ SET datestyle = 'SQL, DMY'; ALTER DATABASE @ SET intervalstyle = sql_standard; ALTER DATABASE @ SET extra_float_digits = -15",
    ),
    ("", "", "ALTER DATABASE @ SET session_replication_role = replica"),
    (
        "",
        "",
        "ALTER DATABASE @ SET xmloption = document; ALTER DATABASE @ SET check_function_bodies = on; ALTER DATABASE @ SET array_nulls = off; ALTER DATABASE @ SET transform_null_equals = on; ALTER DATABASE @ SET client_min_messages = error; ALTER DATABASE @ SET default_transaction_deferrable = on",
    ),
    (
        "",
        "",
        "ALTER DATABASE @ SET quote_all_identifiers = on; ALTER DATABASE @ SET backslash_quote = off; ALTER DATABASE @ SET escape_string_warning = off; ALTER DATABASE @ SET constraint_exclusion = off; ALTER DATABASE @ SET plpgsql.variable_conflict = 'error'",
    ),
    ("", "", "ALTER DATABASE @ CONNECTION LIMIT 3"),
    ("", "", "REVOKE CREATE ON DATABASE @ FROM doadmin; ALTER DATABASE @ OWNER TO postgres"),
    ("ALTER TABLE public.nobody RENAME TO else", "", ""),
];

/// Settings of the source's database, `@`, which have to make no difference.
pub const SETTINGS: [&str; 10] = [
    "ALTER DATABASE @ SET default_transaction_read_only = on",
    "ALTER DATABASE @ SET statement_timeout = 200",
    "ALTER DATABASE @ SET lock_timeout = 200",
    "ALTER DATABASE @ SET search_path = nowhere",
    "ALTER DATABASE @ SET default_transaction_isolation = 'serializable'",
    "ALTER DATABASE @ SET bytea_output = escape; ALTER DATABASE @ SET extra_float_digits = -15",
    "ALTER DATABASE @ SET datestyle = 'SQL, DMY'; ALTER DATABASE @ SET intervalstyle = sql_standard",
    "ALTER DATABASE @ SET quote_all_identifiers = on; ALTER DATABASE @ SET standard_conforming_strings = off",
    "ALTER DATABASE @ SET row_security = off; ALTER DATABASE @ SET timezone = 'Asia/Kathmandu'",
    "ALTER DATABASE @ SET idle_in_transaction_session_timeout = 200; ALTER DATABASE @ SET idle_session_timeout = 1000",
];

/// How databases are made: of the source's kind and the target's.
pub const ENCODINGS: [(&str, &str); 10] = [
    ("", ""),
    ("", ""),
    ("", ""),
    ("", ""),
    ("", ""),
    ("", ""),
    ("TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'", ""),
    ("", "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"),
    ("TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'", ""),
    ("", "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"),
];
