-- A schema with every kind of object that pg_dump puts into post-data.
CREATE SCHEMA shop; COMMENT ON SCHEMA public IS 'mine';
CREATE TYPE shop.mood AS ENUM ('ok','bad; Type: X');
CREATE FUNCTION shop.f() RETURNS trigger LANGUAGE plpgsql AS $f$
BEGIN
--
-- Name: fake; Type: TABLE; Schema: public; Owner: -
--

RETURN NEW; END $f$;
CREATE TABLE shop.customers(id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "E-mail" text NOT NULL UNIQUE, m shop.mood, total numeric GENERATED ALWAYS AS (1+1) STORED);
COMMENT ON TABLE shop.customers IS E'it''s\n\\restrict me;';
CREATE TABLE shop.orders(id bigserial, at date NOT NULL, customer int REFERENCES shop.customers ON DELETE CASCADE, PRIMARY KEY(id, at)) PARTITION BY RANGE(at);
CREATE TABLE shop.orders_1 PARTITION OF shop.orders FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE shop.orders_2 PARTITION OF shop.orders FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE INDEX orders_customer ON shop.orders(customer);
CREATE TABLE shop.items(id int PRIMARY KEY, customer int NOT NULL REFERENCES shop.customers, note text, u int NOT NULL, tags text[], r int4range);
ALTER TABLE shop.items ADD CONSTRAINT nv FOREIGN KEY (u) REFERENCES shop.customers NOT VALID;
CREATE UNIQUE INDEX items_u ON shop.items(u); ALTER TABLE shop.items REPLICA IDENTITY USING INDEX items_u;
CREATE STATISTICS shop.st ON id, customer FROM shop.items;
COMMENT ON INDEX shop.items_u IS 'x';
CREATE TABLE shop."Odd ""name"" t"(a int, b text); ALTER TABLE shop."Odd ""name"" t" REPLICA IDENTITY FULL;
CREATE INDEX "odd ON i" ON shop."Odd ""name"" t"(a);
CREATE TRIGGER trg BEFORE INSERT ON shop.items FOR EACH ROW EXECUTE FUNCTION shop.f();
CREATE RULE ru AS ON DELETE TO shop.items WHERE OLD.id < 0 DO INSTEAD NOTHING;
ALTER TABLE shop.items ENABLE ROW LEVEL SECURITY; CREATE POLICY pol ON shop.items USING (true);
CREATE MATERIALIZED VIEW shop.mv AS SELECT count(*) c FROM shop.items; CREATE UNIQUE INDEX mvi ON shop.mv(c);
CREATE MATERIALIZED VIEW shop.a_mv2 AS SELECT * FROM shop.mv;
CREATE VIEW shop.v AS SELECT id, customer FROM shop.items GROUP BY id;
ALTER TABLE shop.items CLUSTER ON items_pkey;
ALTER TABLE shop.items ADD CONSTRAINT ch CHECK (id > 0) NOT VALID;

ALTER TABLE shop.items DISABLE TRIGGER trg;
INSERT INTO shop.customers ("E-mail", m) SELECT 'a' || g, 'ok' FROM generate_series(1, 3000) g;
INSERT INTO shop.orders (at, customer) SELECT '2020-01-01'::date + g % 700, 1 + g % 3000 FROM generate_series(1, 30000) g;
INSERT INTO shop.items SELECT g, 1 + g % 3000, E'line\nand\ttab\\' || g, g, ARRAY['a', NULL, '{}'], int4range(g, g + 2) FROM generate_series(1, 3000) g;
INSERT INTO shop."Odd ""name"" t" SELECT g % 5, NULLIF('', '') FROM generate_series(1, 100) g;
CREATE TABLE shop.wide (id bigint PRIMARY KEY, n numeric, t timestamptz, b bytea, j jsonb, f float8, u uuid, i interval, a int[][]);
INSERT INTO shop.wide SELECT g, g / 7.0, '2020-01-01'::timestamptz + g * interval '1 hour', decode(md5(g::text), 'hex'), jsonb_build_object('k', g),
    g / 3.0, md5(g::text)::uuid, g * interval '1 minute', ARRAY[[g, 2], [3, NULL]] FROM generate_series(1, 20000) g;
CREATE TABLE shop.empty (id int PRIMARY KEY);
CREATE TABLE shop.empty_text (id int PRIMARY KEY, m shop.mood);
ALTER TABLE shop.items ENABLE TRIGGER trg;
REFRESH MATERIALIZED VIEW shop.mv; REFRESH MATERIALIZED VIEW shop.a_mv2;
SELECT lo_from_bytea(0, 'hello'), lo_from_bytea(0, decode(repeat('00ff', 5000), 'hex'));
-- Where contrib is there.
DO $$ BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_available_extensions WHERE name = 'hstore') THEN
        CREATE EXTENSION hstore WITH SCHEMA public;
        CREATE TABLE shop.bag (id int PRIMARY KEY, h public.hstore);
        INSERT INTO shop.bag VALUES (1, 'k=>v');
    END IF;
END $$;
