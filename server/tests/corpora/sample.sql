-- Statements over many features of SQL, run by the server and by plain SQLite. Empty lines part them.

-- Literals and expressions.

SELECT 1, -1, 9007199254740993, 9223372036854775807, -9223372036854775808, 0x7fff;

SELECT 1.5, -0.0, 1e308, 9e999, 5e-324, 0.1 + 0.2, 1.0, 3.0 / 2, 3 / 2, 3 % 2;

SELECT NULL, 'it''s', '', x'', x'00ff', 'é👩‍👩‍👧‍👦', char(0x10ffff), hex('é');

SELECT typeof(1), typeof(1.0), typeof('a'), typeof(x'00'), typeof(NULL);

SELECT 9223372036854775807 + 1, -9223372036854775808 - 1, 1 << 63, -1 >> 1, ~0, 5 & 3, 5 | 3;

SELECT abs(-9223372036854775808);

SELECT 1 IS NULL, NULL IS NULL, 1 IS NOT DISTINCT FROM 1, NULL = NULL, 1 BETWEEN 0 AND 2, 2 NOT IN (1, 3);

SELECT CASE 2 WHEN 1 THEN 'a' WHEN 2 THEN 'b' END, CASE WHEN NULL THEN 1 ELSE 0 END, iif(1, 'yes', 'no');

SELECT CAST('12abc' AS INTEGER), CAST('1.5e2x' AS REAL), CAST(65 AS BLOB), CAST(x'41' AS TEXT), CAST(2.9 AS INT);

SELECT 'a' || 1 || NULL, 'a' || 1 || 2.5, 'abc' LIKE 'A%', 'abc' GLOB 'a*', 'a_c' LIKE 'a\_c' ESCAPE '\';

SELECT 'a' < 'B', 'a' < 'B' COLLATE NOCASE, 'a ' = 'a' COLLATE RTRIM, 1 < '1', x'00' > 'z';

SELECT (1, 2) < (1, 3), (SELECT 1, 2) = (1, 2), 1 IN (SELECT 1 UNION SELECT 2), EXISTS (SELECT 1 WHERE 0);

SELECT 1 AS a, 1 AS a, 2 AS "b c", 3 AS [d], 4 AS `e`;

VALUES (1, 'a'), (2, 'b'), (3, NULL);

-- Functions.

SELECT length('é'), octet_length('é'), upper('abcé'), lower('ABC'), substr('hello', 2, 3), substr('hello', -3), instr('hello', 'l');

SELECT replace('aXbX', 'X', '--'), trim('  a  '), ltrim('xxa', 'x'), rtrim('axx', 'x'), unicode('é'), char(72, 105);

SELECT printf('%05d|%.3f|%s|%x|%,d|%q|%Q|%c', 42, 3.14159, 'text', 255, 1234567, 'it''s', 'it''s', 'c');

SELECT format('%e %g %10s %-10s|', 12345.678, 0.0001, 'right', 'left'), quote(x'0102'), quote('a''b'), quote(NULL), quote(0.1);

SELECT round(2.5), round(-2.5), round(2.345, 2), abs(-1.5), sign(-3), min(3, 1, 2), max('a', 'b'), nullif(1, 1), ifnull(NULL, 2), coalesce(NULL, NULL, 3);

SELECT hex(zeroblob(4)), unhex('0aFF'), unhex('zz'), concat('a', NULL, 1), concat_ws('-', 'a', NULL, 'b');

SELECT pi(), sqrt(2), exp(1), ln(10), log(100), log2(8), log(2, 8), power(2, 0.5), mod(7.5, 2), degrees(pi()), radians(180);

SELECT sin(1), cos(1), tan(1), asin(1), acos(1), atan(1), atan2(1, 2), sinh(1), cosh(1), tanh(1), asinh(1), acosh(2), atanh(0.5), ceil(1.2), floor(-1.2), trunc(-1.7), sqrt(-1), ln(0);

SELECT date('2024-02-30'), date('2024-01-31', '+1 month'), time('12:00', '+90 minutes'), datetime(0, 'unixepoch'), julianday('2000-01-01'), unixepoch('2024-01-01');

SELECT strftime('%Y-%m-%d %H:%M:%f %j %W %w %s %G-W%V', '2024-12-31 23:59:59.123'), timediff('2024-03-01', '2023-02-28'), date('2024-05-05', 'weekday 1', 'start of month');

SELECT likely(1), unlikely(0), likelihood(1, 0.5), zeroblob(2), sqlite_version() = sqlite_version(), unistr('\0041'), soundex('a');

SELECT substr('abc', 0), substr('abc', 2, -1), substr(x'010203', 2), instr(x'010203', x'02'), replace('', 'a', 'b'), trim('');

SELECT load_extension('nothing');

SELECT no_such_function(1);

SELECT abs(1, 2);

-- Tables, types, constraints.

CREATE TABLE people(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, age INT CHECK (age >= 0), city TEXT DEFAULT 'nowhere' COLLATE NOCASE);

INSERT INTO people(name, age, city) VALUES ('Ada', 36, 'London'), ('Bob', 50, 'Paris'), ('Cleo', 20, 'paris'), ('Dan', NULL, 'Rome');

INSERT INTO people(name) VALUES ('Eve') RETURNING id, name, city, age IS NULL AS ageless;

INSERT INTO people(name) VALUES ('Ada');

INSERT INTO people(name) VALUES (NULL);

INSERT INTO people(name, age) VALUES ('Fay', -1);

INSERT OR IGNORE INTO people(name) VALUES ('Ada'), ('Gus');

INSERT OR REPLACE INTO people(id, name, age) VALUES (2, 'Bob', 51);

REPLACE INTO people(id, name) VALUES (3, 'Ada');

SELECT * FROM people ORDER BY id;

SELECT changes(), total_changes() > 0, last_insert_rowid();

INSERT INTO people(name, age) VALUES ('Ada', 37) ON CONFLICT (name) DO UPDATE SET age = excluded.age, city = upper(city) WHERE excluded.age > 1 RETURNING *;

INSERT INTO people(name) VALUES ('Ada') ON CONFLICT DO NOTHING;

UPDATE people SET age = age + 1 WHERE age IS NOT NULL RETURNING name, age;

UPDATE people SET city = other.city FROM (SELECT 'Bob' AS name, 'Oslo' AS city) AS other WHERE people.name = other.name;

DELETE FROM people WHERE name = 'Gus' RETURNING *;

SELECT count(*), count(age), sum(age), avg(age), min(name), max(age), total(age), group_concat(name, ';') FROM people;

SELECT city, count(*) AS n FROM people GROUP BY city HAVING n > 0 ORDER BY n DESC, city LIMIT 2 OFFSET 0;

SELECT DISTINCT city COLLATE NOCASE FROM people ORDER BY 1;

SELECT string_agg(name, ',' ORDER BY name DESC) FILTER (WHERE age > 1), count(DISTINCT city) FROM people;

CREATE TABLE strict_kinds(i INTEGER, r REAL, t TEXT, b BLOB, a ANY) STRICT;

INSERT INTO strict_kinds VALUES (1, 2, 'x', x'01', 1.5), ('7', '2.5', 3, NULL, 'any');

INSERT INTO strict_kinds(i) VALUES ('seven');

SELECT i, r, t, b, a, typeof(i), typeof(r), typeof(t), typeof(a) FROM strict_kinds;

CREATE TABLE loose(i INTEGER, r REAL, t TEXT, b BLOB, n NUMERIC, none);

INSERT INTO loose VALUES ('1', '2', 3, 4, '5.0', '6'), ('x', 'y', x'41', 'z', '1e3', 7);

SELECT *, typeof(i), typeof(r), typeof(t), typeof(b), typeof(n), typeof(none) FROM loose;

CREATE TABLE pairs(a TEXT, b INT, c, PRIMARY KEY (a, b)) WITHOUT ROWID;

INSERT INTO pairs VALUES ('x', 2, 1), ('x', 1, 2), ('w', 9, 3);

SELECT * FROM pairs;

SELECT rowid FROM pairs;

INSERT INTO pairs VALUES ('x', 1, 0);

CREATE TABLE made(a INT, b INT, s INT GENERATED ALWAYS AS (a + b) VIRTUAL, p INT AS (a * b) STORED);

INSERT INTO made(a, b) VALUES (2, 3), (4, 5);

INSERT INTO made(a, b, s) VALUES (1, 1, 1);

CREATE INDEX made_sum ON made(s) WHERE p > 6;

SELECT * FROM made WHERE s = 9 AND p > 6;

CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v);

INSERT INTO counted(v) VALUES ('a'), ('b');

DELETE FROM counted WHERE id = 2;

INSERT INTO counted(v) VALUES ('c') RETURNING id;

SELECT * FROM sqlite_sequence;

-- Foreign keys, which are on.

PRAGMA foreign_keys;

CREATE TABLE pets(id INTEGER PRIMARY KEY, owner INT NOT NULL REFERENCES people(id) ON DELETE CASCADE ON UPDATE CASCADE, name TEXT);

INSERT INTO pets(owner, name) VALUES (1, 'Rex');

INSERT INTO pets(owner, name) VALUES (2, 'Tom'), (2, 'Kit');

INSERT INTO pets(owner, name) VALUES (99, 'stray');

DELETE FROM people WHERE id = 2;

SELECT * FROM pets;

CREATE TABLE later(id INTEGER PRIMARY KEY, parent INT REFERENCES later(id) DEFERRABLE INITIALLY DEFERRED);

BEGIN;

INSERT INTO later VALUES (1, 2);

COMMIT;

INSERT INTO later VALUES (2, NULL);

COMMIT;

PRAGMA foreign_key_check;

-- Transactions and savepoints.

BEGIN IMMEDIATE;

INSERT INTO counted(v) VALUES ('in');

SAVEPOINT one;

INSERT INTO counted(v) VALUES ('lost');

ROLLBACK TO one;

RELEASE one;

BEGIN;

COMMIT;

SELECT v FROM counted ORDER BY id;

BEGIN EXCLUSIVE;

DELETE FROM counted;

ROLLBACK;

SELECT count(*) FROM counted;

COMMIT;

SAVEPOINT alone;

DELETE FROM counted WHERE v = 'in';

RELEASE alone;

ROLLBACK TO nothing;

INSERT OR ROLLBACK INTO people(id, name) VALUES (1, NULL);

-- Joins, subqueries, compounds, CTEs.

SELECT p.name, q.name FROM people AS p LEFT JOIN pets AS q ON q.owner = p.id ORDER BY p.name, q.name;

SELECT q.name, p.name FROM pets AS q RIGHT JOIN people AS p ON q.owner = p.id ORDER BY 2;

SELECT a.a, b.b FROM made AS a FULL JOIN pairs AS b ON a.a = b.b ORDER BY 1, 2;

SELECT * FROM made NATURAL JOIN (SELECT 2 AS a, 'x' AS c);

SELECT * FROM (VALUES (1), (2)) AS x(n) CROSS JOIN (SELECT 'k' AS k) ORDER BY n;

SELECT name, (SELECT count(*) FROM pets WHERE owner = people.id) AS pets FROM people ORDER BY name;

SELECT 1 UNION ALL SELECT 1 UNION SELECT 2 INTERSECT SELECT 2 EXCEPT SELECT 3 ORDER BY 1;

SELECT 1 UNION SELECT 1, 2;

WITH RECURSIVE c(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c WHERE n < 10) SELECT sum(n), max(n) FROM c;

WITH RECURSIVE fib(a, b) AS (SELECT 0, 1 UNION ALL SELECT b, a + b FROM fib LIMIT 60) SELECT max(a) FROM fib;

WITH t AS MATERIALIZED (SELECT 1 AS x), u AS NOT MATERIALIZED (SELECT 2 AS x) SELECT * FROM t, u;

WITH doomed AS (SELECT id FROM counted WHERE v = 'c') DELETE FROM counted WHERE id IN doomed RETURNING v;

SELECT name FROM people WHERE (age, city) IN (SELECT age, city FROM people WHERE age > 30) ORDER BY name NULLS LAST;

-- Windows.

CREATE TABLE sales(day INT, shop TEXT, amount REAL);

WITH RECURSIVE d(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM d WHERE n < 12) INSERT INTO sales SELECT n, CASE n % 3 WHEN 0 THEN 'a' ELSE 'b' END, n * 1.5 FROM d;

SELECT day, row_number() OVER w, rank() OVER (ORDER BY shop), dense_rank() OVER (ORDER BY shop), ntile(4) OVER w, percent_rank() OVER w, cume_dist() OVER w FROM sales WINDOW w AS (ORDER BY day) ORDER BY day;

SELECT day, sum(amount) OVER (PARTITION BY shop ORDER BY day ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS s FROM sales ORDER BY day;

SELECT day, lag(amount, 2, -1) OVER w, lead(amount) OVER w, first_value(amount) OVER w, last_value(amount) OVER w, nth_value(amount, 2) OVER w FROM sales WINDOW w AS (ORDER BY day) ORDER BY day;

SELECT day, count(*) FILTER (WHERE shop = 'a') OVER (ORDER BY day RANGE BETWEEN 2 PRECEDING AND CURRENT ROW EXCLUDE TIES) FROM sales ORDER BY day;

SELECT shop, group_concat(day) OVER (PARTITION BY shop ORDER BY day GROUPS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM sales ORDER BY shop, day;

SELECT sum(amount) OVER (ORDER BY day ROWS -1 PRECEDING) FROM sales;

-- Views and triggers.

CREATE VIEW adults AS SELECT id, name FROM people WHERE age >= 18;

CREATE TRIGGER adults_insert INSTEAD OF INSERT ON adults BEGIN INSERT INTO people(name, age) VALUES (new.name, 18); END;

INSERT INTO adults(name) VALUES ('Hal');

SELECT name FROM adults ORDER BY name;

CREATE TABLE audit(what TEXT, old, new);

CREATE TRIGGER people_changed AFTER UPDATE OF age ON people WHEN old.age IS NOT new.age BEGIN INSERT INTO audit VALUES ('age', old.age, new.age); SELECT CASE WHEN new.age > 150 THEN RAISE(ABORT, 'too old') END; END;

UPDATE people SET age = 19 WHERE name = 'Hal';

UPDATE people SET age = 200 WHERE name = 'Hal';

SELECT * FROM audit;

INSERT INTO audit VALUES (1);

DROP TRIGGER people_changed;

CREATE TRIGGER chain AFTER INSERT ON audit WHEN new.old < 5 BEGIN INSERT INTO audit VALUES ('chain', new.old + 1, NULL); END;

PRAGMA recursive_triggers = ON;

INSERT INTO audit VALUES ('chain', 1, NULL);

SELECT count(*) FROM audit;

PRAGMA recursive_triggers = OFF;

-- JSON.

SELECT json('{"a":[1,2.5,"x",null,true]}'), json_valid('{'), json_type('[1]', '$[0]'), json_array(1, 'a', NULL), json_object('k', 1, 'l', json('[]'));

SELECT '{"a":{"b":[1,2,3]}}' -> '$.a.b', '{"a":{"b":[1,2,3]}}' ->> '$.a.b[1]', json_extract('{"a":1,"b":2}', '$.a', '$.b');

SELECT json_set('{"a":1}', '$.b', 2), json_insert('{"a":1}', '$.a', 9), json_replace('{"a":1}', '$.a', 9), json_remove('[1,2,3]', '$[1]'), json_patch('{"a":1}', '{"a":null,"c":3}');

SELECT key, value, type, atom, fullkey, path FROM json_tree('{"a":[1,{"b":"x"}]}');

SELECT value FROM json_each('[3,1,2]') ORDER BY value;

SELECT json_group_array(name), json_group_object(name, age) FROM (SELECT name, age FROM people ORDER BY name);

SELECT json(jsonb('{"a": 1}')), hex(jsonb('[1]')), json_array_length('[1,2,3]'), json_quote('a"b'), json_pretty('{"a":[1]}'), json_error_position('{"a"');

SELECT json_extract('{"a":', '$.a');

CREATE TABLE documents(id INTEGER PRIMARY KEY, body TEXT CHECK (json_valid(body)), kind TEXT AS (body ->> 'kind'));

INSERT INTO documents(body) VALUES ('{"kind":"note","n":1}'), ('{"kind":"task","n":2}');

INSERT INTO documents(body) VALUES ('not JSON');

CREATE INDEX documents_kind ON documents(kind);

EXPLAIN QUERY PLAN SELECT id FROM documents WHERE kind = 'task';

-- FTS5.

CREATE VIRTUAL TABLE notes USING fts5(title, body, tokenize = 'porter unicode61');

INSERT INTO notes VALUES ('Boats', 'Sailing the northern seas'), ('Trees', 'A tree falls; many trees fall'), ('Naïve café', 'Accents é è');

SELECT rowid, title FROM notes WHERE notes MATCH 'tree' ORDER BY rank;

SELECT highlight(notes, 1, '[', ']'), snippet(notes, 1, '<', '>', '…', 3), bm25(notes) < 0 FROM notes WHERE notes MATCH 'sail* OR fall';

SELECT title FROM notes('cafe');

SELECT title FROM notes WHERE body MATCH 'NEAR(tree fall, 2)';

SELECT title FROM notes WHERE notes MATCH 'AND';

CREATE VIRTUAL TABLE grams USING fts5(word, tokenize = 'trigram');

INSERT INTO grams VALUES ('common'), ('uncommonly'), ('rare');

SELECT word FROM grams WHERE word LIKE '%ommo%' ORDER BY word;

CREATE VIRTUAL TABLE terms USING fts5vocab('notes', 'row');

SELECT term, doc, cnt FROM terms ORDER BY term LIMIT 5;

INSERT INTO notes(notes) VALUES ('integrity-check');

UPDATE notes SET body = 'nothing' WHERE title = 'Boats';

DELETE FROM notes WHERE title = 'Trees';

SELECT count(*) FROM notes WHERE notes MATCH 'tree OR sail';

-- R*Tree.

CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1, y0, y1, +label);

INSERT INTO boxes VALUES (1, 0, 10, 0, 10, 'a'), (2, 5, 15, 5, 15, 'b'), (3, 20, 30, 20, 30, 'c');

SELECT id, label FROM boxes WHERE x0 <= 7 AND x1 >= 6 AND y0 <= 7 AND y1 >= 6 ORDER BY id;

INSERT INTO boxes VALUES (4, 5, 1, 0, 1, 'inside out');

UPDATE boxes SET x1 = 40 WHERE id = 3;

DELETE FROM boxes WHERE id = 1;

SELECT * FROM boxes ORDER BY id;

CREATE VIRTUAL TABLE cells USING rtree_i32(id, a, b);

INSERT INTO cells VALUES (1, 1, 2);

SELECT * FROM cells;

-- Changes of the schema, and statements that are asked again after them.

SELECT * FROM loose WHERE i = 1;

ALTER TABLE loose ADD COLUMN extra TEXT DEFAULT 'more';

SELECT * FROM loose WHERE i = 1;

ALTER TABLE loose RENAME COLUMN extra TO further;

SELECT * FROM loose WHERE i = 1;

ALTER TABLE loose DROP COLUMN none;

SELECT * FROM loose WHERE i = 1;

ALTER TABLE loose RENAME TO looser;

SELECT * FROM loose WHERE i = 1;

EXPLAIN INSERT INTO looser SELECT * FROM looser;

DROP TABLE looser;

EXPLAIN INSERT INTO looser SELECT * FROM looser;

CREATE UNIQUE INDEX pets_name ON pets(name COLLATE NOCASE DESC);

INSERT INTO pets(owner, name) VALUES (1, 'REX');

REINDEX;

ANALYZE;

SELECT tbl, idx, stat FROM sqlite_stat1 WHERE tbl = 'pets' ORDER BY idx;

DROP INDEX pets_name;

PRAGMA table_info(people);

PRAGMA index_list(people);

PRAGMA foreign_key_list(pets);

SELECT name, type FROM pragma_table_xinfo('made');

SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name;

PRAGMA user_version = 7;

PRAGMA user_version;

PRAGMA application_id;

PRAGMA encoding;

PRAGMA integrity_check;

PRAGMA quick_check;

PRAGMA collation_list;

-- Errors.

SELEC 1;

SELECT;

SELECT * FROM absent;

SELECT absent;

SELECT 'open;

CREATE TABLE people(x);

DROP TABLE absent;

DROP TABLE IF EXISTS absent;

INSERT INTO people VALUES (1);

SELECT count(*, 1) FROM people;

UPDATE sqlite_schema SET sql = '';

DELETE FROM sqlite_sequence WHERE 0;

SELECT x'0';

SELECT 1 ORDER BY 2;

SELECT sum(count(*)) FROM people;

CREATE VIRTUAL TABLE v USING absent(x);

SELECT * FROM people LIMIT 'x';

SELECT zeroblob(-1), 1 / 0, 1 % 0, 1.0 / 0;

ATTACH ':memory:' AS other;

CREATE TEMP TABLE passing(x);

VACUUM;

PRAGMA journal_mode = DELETE;

PRAGMA journal_mode;

SELECT 1; SELECT 2;
