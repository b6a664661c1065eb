-- Target of docker-compose.yml: a role as managed PostgreSQL gives it out.
-- It owns its database and may neither set session_replication_role nor
-- create a subscription.
CREATE ROLE doadmin LOGIN PASSWORD 'example-target'
    NOSUPERUSER CREATEDB CREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 22;
CREATE DATABASE shop OWNER doadmin;
