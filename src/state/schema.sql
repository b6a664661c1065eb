-- walferry's durable state: everything a process needs to go on from where
-- another one stopped. Version 6. Readable with psql; written by walferry only.
-- What changes here goes into upgrade_6.sql as well (from version 6 to 7).
CREATE SCHEMA walferry;
COMMENT ON SCHEMA walferry IS 'state of walferry migrations; dropped by "walferry cleanup"';

CREATE TABLE walferry.version (version integer NOT NULL);
INSERT INTO walferry.version VALUES (7);

-- One row a migration: where it comes from and how far it is.
CREATE TABLE walferry.migration (
    name                   text PRIMARY KEY,
    system_identifier      text NOT NULL,
    timeline               integer NOT NULL,
    source_database        text NOT NULL,
    source_version         integer NOT NULL,
    slot                   text NOT NULL,
    slot_is_ours           boolean NOT NULL,
    publication            text NOT NULL,
    further_publications   text[] NOT NULL DEFAULT '{}',  -- the operator may name several
    publication_is_ours    boolean NOT NULL,
    slot_created_lsn       pg_lsn,          -- end of the source's WAL just before we created the slot
    publication_oid        oid,             -- of the publication that we created
    publishes_all_tables   boolean NOT NULL DEFAULT false,
    phase                  text NOT NULL CHECK (phase IN ('setup', 'copy', 'stream', 'stopped', 'cutover', 'done')),
    schema_restored        boolean NOT NULL DEFAULT false,
    copied                 boolean NOT NULL DEFAULT false,
    consistent_point       pg_lsn,
    stopped_because        text,
    source_lsn             pg_lsn,          -- as last heard from the source
    daemon_host            text,
    daemon_pid             integer,
    daemon_seen            timestamptz,
    started_at             timestamptz NOT NULL DEFAULT now(),
    sequences_at           timestamptz,     -- when the last pass over the sequences ended
    finished_at            timestamptz,     -- catchup --finish ended well: the target may be the application's
    claim                  bigint NOT NULL DEFAULT 0,  -- of the process that got the lease last
    filter                 text             -- the patterns that the tables were chosen by, as given last
);

-- The position: moved by compare-and-set in the transaction of the data.
CREATE TABLE walferry.position (
    slot         text PRIMARY KEY,
    end_lsn      pg_lsn NOT NULL,
    commit_time  timestamptz,               -- of the last source transaction applied
    moved_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    claim        bigint NOT NULL DEFAULT 0  -- of the process that may move it: the migration's
) WITH (fillfactor = 50);

-- Who takes part: every table of the source that was met, by its oid there. The
-- name is that of the target's table. Without a stream of their own are those
-- that the filter leaves out ('excluded'), an extension's, unlogged ones, and
-- those 'within' others: a partitioned table whose partitions have its rows, or
-- a partition whose rows come in the name of its root.
CREATE TABLE walferry.tables (
    migration     text NOT NULL REFERENCES walferry.migration ON DELETE CASCADE,
    schema        text NOT NULL,
    name          text NOT NULL,
    source_oid    oid NOT NULL,
    target_oid    oid,                      -- tells a renamed table from another of its name
    state         text NOT NULL CHECK (state IN ('waiting', 'copying', 'indexing', 'joining', 'ready', 'excluded',
                      'extension', 'unlogged', 'within')),
    rows          bigint NOT NULL DEFAULT 0,
    bytes         bigint NOT NULL DEFAULT 0,
    snapshot_lsn  pg_lsn,
    changed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    filenode      oid,                      -- of its file on the source when its rows were read
    via           text,                     -- what in the publication it was published by, then
    problem       text,                     -- what makes the two sides differ, as last looked at
    source_columns smallint[],              -- the numbers of its columns on the source,
    target_columns smallint[],              -- and of their counterparts,
    source_types   oid[],                   -- their types on the source below domains, then;
    source_modifiers int[],                 -- 0: computed there
    columns_of     oid,                     -- the target's numbers are of this table
    parents        oid[],                   -- what it was a partition of or inherited from, then
    last_column    smallint,                -- the highest number of a column on the source, then
    bounds         text,                    -- those of a partition on the source, then
    attempt        bigint,                  -- at its copy: the transaction here that began it
    PRIMARY KEY (migration, source_oid)
);

-- Which part of a type that somebody has made, a label of an enum (its oid) or an
-- attribute of a composite type (its number), is which of its counterpart's: as
-- of the copy, or of the moment when the type was met.
CREATE TABLE walferry.types (
    migration    text NOT NULL REFERENCES walferry.migration ON DELETE CASCADE,
    source_oid   oid NOT NULL,              -- of the type there
    target_oid   oid NOT NULL,              -- of its counterpart
    source_parts bigint[] NOT NULL,
    target_parts bigint[] NOT NULL,         -- in the same order
    source_versions text[],                 -- of the parts in the catalog (xmin), when last looked at
    target_versions text[],
    PRIMARY KEY (migration, source_oid)
);

-- Every sequence of the migration as of the last pass; 'behind' ones could not
-- be brought to the source's value or definition, null ones could not be read
-- there.
CREATE TABLE walferry.sequences (
    migration   text NOT NULL REFERENCES walferry.migration ON DELETE CASCADE,
    schema      text NOT NULL,
    name        text NOT NULL,
    last_value  bigint,
    is_called   boolean,
    behind      boolean NOT NULL DEFAULT false,
    synced_at   timestamptz NOT NULL DEFAULT clock_timestamp(),  -- when the row last changed
    source_oid  oid,                        -- tells a renamed sequence from a new one
    target_oid  oid,                        -- of its counterpart
    problem     text,                       -- what is wrong with it, and what to do
    PRIMARY KEY (migration, schema, name)
);

-- One row a migration: the large objects as of the last pass. Whoever writes
-- them locks this row.
CREATE TABLE walferry.large_objects (
    migration        text PRIMARY KEY REFERENCES walferry.migration ON DELETE CASCADE,
    total            bigint NOT NULL,
    bytes            bigint NOT NULL,                -- of pg_largeobject on the source
    last_pass        timestamptz NOT NULL DEFAULT clock_timestamp(),
    claim            bigint NOT NULL DEFAULT 0,      -- of the process that may write them
    adopting         boolean NOT NULL DEFAULT false, -- no pass has ended, and the copy carried none
    scan_xmin        bigint,                         -- all that ended below is on the target; null: compare everything
    scan_xmax        bigint,                         -- of the same snapshot of the source
    pass_seconds     double precision,               -- of the last pass, without pauses
    unreadable       bigint NOT NULL DEFAULT 0,      -- that our role may not read on the source
    unreadable_oids  oid[] NOT NULL DEFAULT '{}'     -- the first of these
);

-- The large objects that are the migration's: entered in the transaction that
-- creates them. Only these are ever written or unlinked.
CREATE TABLE walferry.large_object_oids (
    migration  text NOT NULL REFERENCES walferry.migration ON DELETE CASCADE,
    oid        oid NOT NULL,
    PRIMARY KEY (migration, oid)
);

-- Objects held back, with the SQL that brings each of them in.
CREATE TABLE walferry.deferred (
    migration    text NOT NULL REFERENCES walferry.migration ON DELETE CASCADE,
    ordinal      integer NOT NULL,
    kind         text NOT NULL,
    schema       text NOT NULL,
    table_name   text NOT NULL,
    object       text NOT NULL,
    sql          text NOT NULL,
    restored_at  timestamptz,
    source_class    oid,                    -- what it is or belongs to in the source's catalog, to
    source_oid      oid,                    -- follow renames: catalog and object
    target_oid      oid,                    -- or, if the target's catalog told it, its table there
    referenced_oid  oid,                    -- and the one that its foreign key references
    PRIMARY KEY (migration, ordinal)
);

CREATE TABLE walferry.journal (
    migration  text NOT NULL,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    what       text NOT NULL
);

-- Requests from one command to the running daemon.
CREATE TABLE walferry.control (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration     text NOT NULL,
    request       text NOT NULL CHECK (request IN ('hand over', 'resync')),
    tables        text[],                   -- of a resync: as asked for
    requested_by  text NOT NULL,
    requested_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    answered_at   timestamptz,
    answer        text
);

-- What waits may hold a password (CREATE USER MAPPING): whatever the role's default
-- privileges give away, this is nobody else's to read.
DO $$
DECLARE
    other text;
BEGIN
    FOR other IN
        SELECT DISTINCT CASE g.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END
        FROM pg_catalog.pg_class c
        CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) g
        LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee
        WHERE c.oid = 'walferry.deferred'::pg_catalog.regclass AND g.grantee <> c.relowner
    LOOP
        EXECUTE 'REVOKE ALL ON walferry.deferred FROM ' || other;
    END LOOP;
END
$$;
