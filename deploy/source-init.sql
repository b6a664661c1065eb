-- Source of docker-compose.yml, run as its owner in the database "shop":
-- something to move.
CREATE TABLE author (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name  text NOT NULL
);
CREATE TABLE note (
    id       bigserial PRIMARY KEY,
    author   bigint REFERENCES author,
    text     text NOT NULL,
    written  timestamptz NOT NULL DEFAULT now()
);
INSERT INTO author (name) SELECT 'author ' || i FROM generate_series(1, 1000) i;
INSERT INTO note (author, text) SELECT 1 + i % 1000, md5(i::text) FROM generate_series(1, 100000) i;
SELECT lo_from_bytea(0, decode(repeat(md5(i::text), 100), 'hex')) FROM generate_series(1, 10) i;
