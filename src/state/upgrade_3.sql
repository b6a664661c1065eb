-- The state schema from version 3 to 4. Additions only: a process of the older
-- version that is still at work must not notice.
ALTER TABLE walferry.migration ADD COLUMN further_publications text[] NOT NULL DEFAULT '{}';
ALTER TABLE walferry.deferred ADD COLUMN source_class oid, ADD COLUMN source_oid oid, ADD COLUMN target_oid oid,
    ADD COLUMN referenced_oid oid;
ALTER TABLE walferry.tables ADD COLUMN source_columns smallint[], ADD COLUMN target_columns smallint[],
    ADD COLUMN source_types oid[], ADD COLUMN source_modifiers int[], ADD COLUMN columns_of oid,
    ADD COLUMN parents oid[], ADD COLUMN last_column smallint, ADD COLUMN attempt bigint;
ALTER TABLE walferry.position ADD COLUMN claim bigint NOT NULL DEFAULT 0;

UPDATE walferry.version SET version = 4;
