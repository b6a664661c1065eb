-- The state schema from version 6 to 7. There were two of version 6: one had the names of
-- parts, which their versions make needless.
ALTER TABLE walferry.types DROP COLUMN IF EXISTS names, ADD COLUMN source_versions text[], ADD COLUMN target_versions text[];

UPDATE walferry.version SET version = 7;
