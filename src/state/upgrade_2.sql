-- The state schema from version 2 to 3.
ALTER TABLE walferry.migration ADD COLUMN slot_created_lsn pg_lsn;
ALTER TABLE walferry.migration ADD COLUMN publication_oid oid;

ALTER TABLE walferry.tables DROP CONSTRAINT tables_state_check;
ALTER TABLE walferry.tables ADD CONSTRAINT tables_state_check
    CHECK (state IN ('waiting', 'copying', 'indexing', 'joining', 'ready', 'excluded',
                     'extension', 'unlogged', 'within'));
-- A name may be that of a table that was dropped and of one that came after it.
ALTER TABLE walferry.tables DROP CONSTRAINT tables_pkey;
ALTER TABLE walferry.tables ADD PRIMARY KEY (migration, source_oid);
ALTER TABLE walferry.tables ADD COLUMN filenode oid, ADD COLUMN via text, ADD COLUMN problem text;

ALTER TABLE walferry.migration ADD COLUMN filter text;

UPDATE walferry.version SET version = 3;
