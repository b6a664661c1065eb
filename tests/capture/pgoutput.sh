#!/bin/sh
# Captures the fixtures of tests/fixtures/pgoutput from a real server.
#
# usage: pgoutput.sh BINDIR OUTDIR PREFIX
#   BINDIR  PostgreSQL's programs, 15 or newer (initdb, pg_ctl, psql)
#   OUTDIR  where the fixtures go
#   PREFIX  first part of their names, the major version by convention
#
# A fixture is what pg_logical_slot_peek_binary_changes returns, which is
# exactly the payload of each XLogData message: comment lines with the server,
# the options and the SQL, then one message a line in hexadecimal. Transaction
# ids, LSNs and timestamps differ from run to run, so the golden text beside a
# fixture has to be made anew with it (INSTA_UPDATE=always cargo test pgoutput).
#
# Not to be run as root: initdb refuses. Leaves nothing behind.
set -eu

bin=$1 out=$2 prefix=$3
dir=$(mktemp -d)
trap '"$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >"$dir/stop" 2>&1 || cat "$dir/stop" >&2; rm -rf "$dir"' EXIT

export PGHOST="$dir" PGPORT=5999 PGUSER=postgres PGDATABASE=postgres PGCLIENTENCODING=UTF8
"$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --no-locale -N >"$dir/initdb"
# Streaming starts at logical_decoding_work_mem, whose smallest value this is.
cat >>"$dir/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$dir'
port = 5999
wal_level = logical
fsync = off
autovacuum = off
max_prepared_transactions = 10
logical_decoding_work_mem = '64kB'
CONF
"$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w start >"$dir/start"

sql() { "$bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 "$@"; }
version=$(sql -c 'SHOW server_version')
number=$(sql -c 'SHOW server_version_num')

# record SCENARIO TWO_PHASE: runs the SQL of $dir/SCENARIO.sql behind a new slot.
record() {
    sql -c "SELECT pg_create_logical_replication_slot('s', 'pgoutput', false, $2)" >"$dir/slot"
    sql -f "$dir/$1.sql" >"$dir/scenario"
}

# peek SCENARIO VARIANT OPTIONS [SETTING...]: writes what the slot holds, under these options.
peek() {
    file="$out/$prefix-$1-$2.hex" scenario=$1 options=$3
    shift 3
    {
        echo "# server: $version"
        echo "# options: $options"
        for setting in "$@"; do echo "# setting: $setting"; done
        sed 's/^/# sql: /' "$dir/$scenario.sql"
        {
            for setting in "$@"; do echo "SET $setting;"; done
            echo "SELECT encode(data, 'hex') FROM pg_logical_slot_peek_binary_changes('s', NULL, NULL, $options);"
        } | sql -f -
    } >"$file"
}

finish() { sql -c "SELECT pg_drop_replication_slot('s')" >"$dir/slot"; }

sql -f - <<'SQL'
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE by_key (id int PRIMARY KEY, v text, big text);
CREATE TABLE by_full (id int, v text, big text);
CREATE TABLE by_index (v text, code varchar(10) NOT NULL, num numeric(10,2) NOT NULL);
CREATE UNIQUE INDEX by_index_key ON by_index (code, num);
CREATE TABLE by_nothing (id int, v text);
ALTER TABLE by_key ALTER big SET STORAGE EXTERNAL;
ALTER TABLE by_full ALTER big SET STORAGE EXTERNAL, REPLICA IDENTITY FULL;
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_key;
ALTER TABLE by_nothing REPLICA IDENTITY NOTHING;
CREATE TABLE typed (id int PRIMARY KEY, m mood, p positive, c pair, n numeric, t timestamptz, i interval,
                    j jsonb, a text[], b bytea, r int4range, u uuid, f float8, o bool, s mood[]);
CREATE TABLE derived (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int,
                      double int GENERATED ALWAYS AS (v * 2) STORED);
CREATE SCHEMA "Odd ""Schema";
CREATE TABLE "Odd ""Schema"."Täble 'x'" ("Colümn" int PRIMARY KEY, gone int, kept text);
ALTER TABLE "Odd ""Schema"."Täble 'x'" DROP COLUMN gone;
CREATE TABLE parted (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (100) TO (200);
CREATE TABLE filtered (id int, state int, big text, PRIMARY KEY (id, state));
ALTER TABLE filtered ALTER big SET STORAGE EXTERNAL;
CREATE TABLE parent (id serial PRIMARY KEY);
CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent);
CREATE TABLE narrow (id int PRIMARY KEY, m mood);
CREATE PUBLICATION everything FOR ALL TABLES;
CREATE PUBLICATION inserts FOR TABLE by_nothing WITH (publish = 'insert');
CREATE PUBLICATION rooted FOR TABLE parted WITH (publish_via_partition_root = true);
CREATE PUBLICATION matching FOR TABLE filtered WHERE (state > 1);
SQL
v1="'proto_version', '1', 'publication_names', 'everything'"

cat >"$dir/rows.sql" <<'SQL'
INSERT INTO by_key VALUES (1, 'one', repeat('x', 3000)), (2, NULL, NULL), (3, '', 'small');
UPDATE by_key SET v = 'uno' WHERE id = 1;
UPDATE by_key SET id = 20 WHERE id = 2;
DELETE FROM by_key WHERE id = 3;
BEGIN;
INSERT INTO by_full VALUES (1, 'a', repeat('y', 2500)), (1, 'a', NULL);
UPDATE by_full SET v = 'b' WHERE big IS NOT NULL;
DELETE FROM by_full WHERE big IS NULL;
COMMIT;
INSERT INTO by_index VALUES ('v', 'c1', 1.50);
UPDATE by_index SET v = 'w';
UPDATE by_index SET num = 2.25;
DELETE FROM by_index;
INSERT INTO derived (v) VALUES (21);
INSERT INTO "Odd ""Schema"."Täble 'x'" VALUES (1, E'tab\tquote''nl\nüñí');
INSERT INTO parted VALUES (1, 'low'), (101, 'high');
UPDATE parted SET id = 150 WHERE id = 1;
BEGIN;
INSERT INTO narrow VALUES (-1);
SAVEPOINT a;
INSERT INTO narrow VALUES (-2);
ROLLBACK TO a;
INSERT INTO narrow VALUES (-3);
COMMIT;
SQL
record rows false
peek rows v1 "$v1"
peek rows root "'proto_version', '1', 'publication_names', 'rooted'"
finish

cat >"$dir/nothing.sql" <<'SQL'
ALTER PUBLICATION everything SET (publish = 'insert');
INSERT INTO by_nothing VALUES (1, 'x');
UPDATE by_nothing SET v = 'y';
DELETE FROM by_nothing;
ALTER PUBLICATION everything SET (publish = 'insert, update, delete, truncate');
SQL
record nothing false
peek nothing v1 "'proto_version', '1', 'publication_names', 'inserts'"
finish

cat >"$dir/types.sql" <<'SQL'
SET timezone = 'UTC';
INSERT INTO typed VALUES (1, 'happy', 7, (1, 'b"'), 12345.678, '2024-02-29 12:34:56.789+00', '1 mon 2 days 03:04:05',
    '{"a": [1, null]}', ARRAY['x', NULL, '{,"}'], '\x00ff5c', '[1,5)', '00000000-0000-0000-0000-000000000001',
    'NaN', true, ARRAY['sad', 'ok']::mood[]), (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
UPDATE typed SET f = 0.1 WHERE id = 1;
DELETE FROM typed WHERE id = 1;
SQL
record types false
peek types v1 "$v1"
peek types binary "$v1, 'binary', 'true'"
finish

cat >"$dir/truncate.sql" <<'SQL'
INSERT INTO parent DEFAULT VALUES;
INSERT INTO child (parent) VALUES (1);
TRUNCATE by_key;
TRUNCATE by_full, by_index, typed RESTART IDENTITY;
TRUNCATE parent CASCADE;
TRUNCATE parent RESTART IDENTITY CASCADE;
SQL
record truncate false
peek truncate v1 "$v1"
finish

cat >"$dir/ddl.sql" <<'SQL'
INSERT INTO by_key VALUES (1, 'before');
ALTER TABLE by_key ADD COLUMN extra int;
INSERT INTO by_key VALUES (2, 'after', NULL, 5);
BEGIN;
INSERT INTO by_key VALUES (3, 'same transaction');
ALTER TABLE by_key DROP COLUMN extra;
ALTER TABLE by_key RENAME v TO w;
INSERT INTO by_key VALUES (4, 'and behind');
COMMIT;
ALTER TABLE by_key RENAME w TO v;
SQL
record ddl false
peek ddl v1 "$v1"
finish

cat >"$dir/messages.sql" <<'SQL'
SELECT pg_logical_emit_message(false, 'walferry', 'outside');
BEGIN;
INSERT INTO narrow VALUES (-10);
SELECT pg_logical_emit_message(true, 'walferry', 'inside');
SELECT pg_logical_emit_message(true, '', '\x00ff'::bytea);
COMMIT;
SELECT pg_logical_emit_message(true, 'alone', '');
SQL
record messages false
peek messages v1 "$v1, 'messages', 'true'"
finish

cat >"$dir/origin.sql" <<'SQL'
SELECT pg_replication_origin_create('elsewhere');
SELECT pg_replication_origin_session_setup('elsewhere');
BEGIN;
SELECT pg_replication_origin_xact_setup('0/ABCDEF', '2024-01-01');
INSERT INTO narrow VALUES (-20);
COMMIT;
SELECT pg_replication_origin_session_reset();
SQL
record origin false
peek origin v1 "$v1"
finish

cat >"$dir/filter.sql" <<'SQL'
INSERT INTO filtered VALUES (1, 1, repeat('z', 2500));
UPDATE filtered SET state = 2;
UPDATE filtered SET state = 3;
UPDATE filtered SET state = 0;
SQL
record filter false
peek filter v1 "'proto_version', '1', 'publication_names', 'matching'"
finish

# Rows enough for the smallest decoding memory to overflow, several times.
cat >"$dir/stream.sql" <<'SQL'
INSERT INTO narrow VALUES (0, 'ok');
BEGIN;
INSERT INTO narrow SELECT g FROM generate_series(1, 400) g;
SAVEPOINT a;
INSERT INTO narrow SELECT g FROM generate_series(401, 800) g;
ROLLBACK TO a;
SAVEPOINT b;
UPDATE narrow SET id = id + 10000 WHERE id BETWEEN 1 AND 100;
RELEASE b;
SELECT pg_logical_emit_message(true, 'walferry', 'in the stream');
TRUNCATE by_full;
COMMIT;
BEGIN;
INSERT INTO narrow SELECT g FROM generate_series(2001, 2500) g;
ROLLBACK;
INSERT INTO narrow VALUES (-30, 'sad');
SQL
record stream false
if [ "$number" -ge 160000 ]; then
    peek stream v4 "'proto_version', '4', 'publication_names', 'everything', 'streaming', 'parallel', 'messages', 'true'"
else
    peek stream v2 "'proto_version', '2', 'publication_names', 'everything', 'streaming', 'on', 'messages', 'true'"
fi
finish

cat >"$dir/immediate.sql" <<'SQL'
INSERT INTO narrow VALUES (-40);
INSERT INTO typed VALUES (40, 'ok', 7);
BEGIN;
INSERT INTO narrow VALUES (-41);
SAVEPOINT a;
INSERT INTO narrow VALUES (-42);
ROLLBACK TO a;
UPDATE typed SET m = 'sad' WHERE id = 40;
DELETE FROM narrow WHERE id = -41;
COMMIT;
BEGIN;
INSERT INTO narrow VALUES (-43);
ROLLBACK;
SELECT pg_replication_origin_session_setup('elsewhere');
BEGIN;
SELECT pg_replication_origin_xact_setup('0/ABCDEF', '2024-01-01');
INSERT INTO narrow VALUES (-44);
COMMIT;
SELECT pg_replication_origin_session_reset();
SQL
if [ "$number" -ge 160000 ]; then
    record immediate false
    peek immediate v2 "'proto_version', '2', 'publication_names', 'everything', 'streaming', 'on'" \
        "debug_logical_replication_streaming = immediate"
    peek immediate v4 "'proto_version', '4', 'publication_names', 'everything', 'streaming', 'parallel', 'origin', 'any'" \
        "debug_logical_replication_streaming = immediate"
    finish
fi

cat >"$dir/prepared.sql" <<'SQL'
BEGIN;
INSERT INTO narrow VALUES (-50);
PREPARE TRANSACTION 'kept';
COMMIT PREPARED 'kept';
BEGIN;
INSERT INTO narrow VALUES (-51);
PREPARE TRANSACTION 'dropped';
ROLLBACK PREPARED 'dropped';
SQL
record prepared true
peek prepared v3 "'proto_version', '3', 'publication_names', 'everything', 'two_phase', 'on'"
finish
# A slot made without two_phase sees one ordinary transaction, at COMMIT PREPARED.
sed -i 's/-5/-6/' "$dir/prepared.sql"
record prepared false
peek prepared v1 "$v1"
finish

cat >"$dir/preparedstream.sql" <<'SQL'
BEGIN;
INSERT INTO narrow SELECT g FROM generate_series(3001, 3520) g;
PREPARE TRANSACTION 'large';
COMMIT PREPARED 'large';
SQL
record preparedstream true
peek preparedstream v3 "'proto_version', '3', 'publication_names', 'everything', 'two_phase', 'on', 'streaming', 'on'"
finish

cat >"$dir/generated.sql" <<'SQL'
CREATE PUBLICATION computed FOR TABLE derived WITH (publish_generated_columns = stored);
INSERT INTO derived (v) VALUES (5);
UPDATE derived SET v = 6;
SQL
if [ "$number" -ge 180000 ]; then
    record generated false
    peek generated v1 "'proto_version', '1', 'publication_names', 'computed'"
    finish
fi
