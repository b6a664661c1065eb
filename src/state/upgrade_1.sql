-- The state schema from version 1 to 2. Additions only: a process of the older
-- version that is still at work must not notice.
ALTER TABLE walferry.tables DROP CONSTRAINT tables_state_check;
ALTER TABLE walferry.tables ADD CONSTRAINT tables_state_check
    CHECK (state IN ('waiting', 'copying', 'indexing', 'joining', 'ready', 'excluded'));

ALTER TABLE walferry.control DROP CONSTRAINT control_request_check;
ALTER TABLE walferry.control ADD CONSTRAINT control_request_check CHECK (request IN ('hand over', 'resync'));
ALTER TABLE walferry.control ADD COLUMN tables text[];

ALTER TABLE walferry.migration ADD COLUMN sequences_at timestamptz;
ALTER TABLE walferry.sequences ADD COLUMN source_oid oid;
ALTER TABLE walferry.sequences ADD COLUMN target_oid oid;
ALTER TABLE walferry.sequences ADD COLUMN problem text;
ALTER TABLE walferry.migration ADD COLUMN finished_at timestamptz;

ALTER TABLE walferry.large_objects
    ADD COLUMN claim bigint NOT NULL DEFAULT 0,
    ADD COLUMN adopting boolean NOT NULL DEFAULT false,
    ADD COLUMN scan_xmin bigint,
    ADD COLUMN scan_xmax bigint,
    ADD COLUMN pass_seconds double precision,
    ADD COLUMN unreadable bigint NOT NULL DEFAULT 0,
    ADD COLUMN unreadable_oids oid[] NOT NULL DEFAULT '{}';

UPDATE walferry.version SET version = 2;
