-- The state schema from version 2 to 3. Additions only: a process of the older
-- version that is still at work must not notice.
ALTER TABLE walferry.migration ADD COLUMN slot_created_lsn pg_lsn;
ALTER TABLE walferry.migration ADD COLUMN publication_oid oid;

UPDATE walferry.version SET version = 3;
