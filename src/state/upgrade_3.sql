-- The state schema from version 3 to 4. Additions only: a process of the older
-- version that is still at work must not notice.
ALTER TABLE walferry.migration ADD COLUMN further_publications text[] NOT NULL DEFAULT '{}';

UPDATE walferry.version SET version = 4;
