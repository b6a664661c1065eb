-- The state schema from version 5 to 6. Additions only: a process of the older
-- version that is still at work must not notice.
CREATE TABLE walferry.types (
    migration    text NOT NULL REFERENCES walferry.migration ON DELETE CASCADE,
    source_oid   oid NOT NULL,
    target_oid   oid NOT NULL,
    source_parts bigint[] NOT NULL,
    target_parts bigint[] NOT NULL,
    names        text[] NOT NULL,
    PRIMARY KEY (migration, source_oid)
);
ALTER TABLE walferry.tables ADD COLUMN bounds text;

UPDATE walferry.version SET version = 6;
