-- The script whose receipts are recorded in `receipts.txt`. A line is one request of one statement:
-- its stream, a limit of its cost if it has one, and the statement.
1 CREATE TABLE t (id INTEGER PRIMARY KEY, a INT, b TEXT)
1 CREATE INDEX t_a ON t (a)
1 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT i, i * 7 % 50, 'row ' || i FROM n
1 SELECT * FROM t WHERE id = 17
1 SELECT * FROM t WHERE id = 17
2 SELECT count(*), sum(a) FROM t
2 SELECT b FROM t WHERE a = 3 ORDER BY b DESC LIMIT 4
-- A schema change by one stream, met by compiled statements of the other.
1 SELECT a, count(*) FROM t GROUP BY a ORDER BY 2, 1 LIMIT 3
2 CREATE TABLE u (k TEXT PRIMARY KEY, t_id INT REFERENCES t (id) ON DELETE CASCADE) WITHOUT ROWID
1 SELECT a, count(*) FROM t GROUP BY a ORDER BY 2, 1 LIMIT 3
1 SELECT * FROM t WHERE id = 17
2 CREATE TRIGGER t_ai AFTER INSERT ON t BEGIN INSERT INTO u VALUES (new.b, new.id); END
1 INSERT INTO t VALUES (1000, 1, 'one thousand')
1 INSERT INTO t VALUES (1001, 1, 'and one') RETURNING *
2 SELECT * FROM t JOIN u ON u.t_id = t.id WHERE t.a = 1
-- Failures.
1 INSERT INTO t VALUES (1000, 1, 'again')
1 INSERT INTO u VALUES ('nobody', 5555)
1 SELECT abs(-9223372036854775808)
1 SELECT nothing FROM t
-- Transactions.
1 BEGIN IMMEDIATE
1 UPDATE t SET a = a + 1 WHERE id < 100
1 SAVEPOINT s
1 CREATE TABLE gone (x)
1 INSERT INTO gone VALUES (1)
1 ROLLBACK TO s
1 SELECT count(*) FROM t WHERE a = 5
1 PRAGMA table_info(t)
1 COMMIT
2 SELECT count(*) FROM t WHERE a = 5
2 BEGIN IMMEDIATE
2 DELETE FROM t WHERE id = 1001
2 ROLLBACK
2 BEGIN
2 SELECT count(*) FROM u
2 SELECT b FROM t WHERE a = 3 ORDER BY b DESC LIMIT 4
2 COMMIT
1 SELECT count(*) FROM u
-- Overflow pages, and statistics.
1 INSERT INTO t VALUES (2000, 2, hex(zeroblob(40000)))
2 SELECT length(b), b FROM t WHERE id = 2000
2 SELECT substr(b, 70000, 10) FROM t WHERE id = 2000
1 CREATE INDEX t_b ON t (b, a)
2 SELECT id FROM t WHERE a = 3 AND b LIKE 'row 4%'
1 ANALYZE
2 SELECT id FROM t WHERE a = 3 AND b LIKE 'row 4%'
2 SELECT id FROM t WHERE a = 3 AND b LIKE 'row 4%'
1 DELETE FROM sqlite_stat1
2 SELECT id FROM t WHERE a = 3 AND b LIKE 'row 4%'
-- Modules.
1 CREATE VIRTUAL TABLE f USING fts5 (title, body)
1 INSERT INTO f SELECT b, b || ' and ' || a FROM t WHERE id < 200
2 SELECT rowid, highlight(f, 0, '[', ']') FROM f WHERE f MATCH 'row AND 4*' ORDER BY rank LIMIT 3
2 SELECT count(*) FROM f WHERE f MATCH 'row'
1 SELECT count(*) FROM f WHERE f MATCH 'row'
1 SELECT count(*) FROM f WHERE f MATCH 'row'
1 BEGIN IMMEDIATE
1 INSERT INTO f VALUES ('seven', 'eight')
1 SELECT count(*) FROM f WHERE f MATCH 'eight'
1 DELETE FROM f WHERE rowid = 5
1 COMMIT
2 SELECT count(*) FROM f WHERE f MATCH 'row'
1 INSERT INTO f (f) VALUES ('optimize')
1 CREATE VIRTUAL TABLE r USING rtree (id, x0, x1)
1 INSERT INTO r SELECT id, a, a + 2 FROM t
2 SELECT count(*) FROM r WHERE x0 > 10 AND x1 < 30
1 SELECT count(*) FROM r WHERE x0 > 10 AND x1 < 30
1 DELETE FROM r WHERE id = 3
2 SELECT value FROM json_each('[1, 2, 3]')
2 SELECT name FROM pragma_table_info('t')
1 PRAGMA integrity_check
1 DROP TABLE r
2 SELECT count(*) FROM f
-- Limits.
1 [vm_steps=500] SELECT count(*) FROM t, t AS other
1 [ru=0.004] SELECT count(*) FROM t, t AS other
1 [pages_read=100] SELECT * FROM t AS x JOIN t AS y ON y.a = x.id
1 [vm_steps=1000000] SELECT count(*) FROM t
1 [pages_written=2] UPDATE t SET b = b || '!'
1 [result_bytes=1000] SELECT * FROM t
1 BEGIN IMMEDIATE
1 UPDATE t SET a = 0 WHERE id = 1
1 [vm_steps=200] UPDATE t SET a = 0
1 SELECT a FROM t WHERE id = 1
1 ALTER TABLE t ADD COLUMN c DEFAULT 5
2 SELECT sum(c) FROM t
1 ALTER TABLE t DROP COLUMN c
2 SELECT * FROM t WHERE id = 17
1 DROP TABLE t
