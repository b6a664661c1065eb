-- The state schema from version 6 to 7. Additions only: a process of the older
-- version that is still at work must not notice.
ALTER TABLE walferry.types ADD COLUMN source_versions text[], ADD COLUMN target_versions text[];

UPDATE walferry.version SET version = 7;
