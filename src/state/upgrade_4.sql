-- The state schema from version 4 to 5. Additions only: a process of the older
-- version that is still at work must not notice. A schema of version 4 may have the
-- column: there were two of that number.
ALTER TABLE walferry.migration ADD COLUMN IF NOT EXISTS claim bigint NOT NULL DEFAULT 0;
-- Claims go on from those that positions had: none is given twice.
UPDATE walferry.migration m SET claim = greatest(m.claim, (SELECT coalesce(max(p.claim), 0) FROM walferry.position p));

UPDATE walferry.version SET version = 5;
